// SPDX-License-Identifier: GPL-2.0-or-later
/* The 82093AA, by its data sheet, with local APICs that really take it. */
#include <string.h>

#include "irq_world.h"
#include "tap.h"

#define LEVEL	0x8000
#define MASKED	0x10000
#define REMOTE_IRR 0x4000
#define LOGICAL	0x800

static u32 reg_get(u8 reg)
{
	ioapic_write(&world.chip, 0, reg);
	return ioapic_read(&world.chip, 0x10);
}

static void reg_set(u8 reg, u32 val)
{
	ioapic_write(&world.chip, 0, reg);
	ioapic_write(&world.chip, 0x10, val);
}

static void rte_set(unsigned int pin, u64 val)
{
	reg_set(0x11 + 2 * pin, val >> 32);
	reg_set(0x10 + 2 * pin, val);
}

static u64 rte_get(unsigned int pin)
{
	return (u64)reg_get(0x11 + 2 * pin) << 32 | reg_get(0x10 + 2 * pin);
}

static int line(unsigned int pin, bool high)
{
	return ioapic_set_line(&world.chip, pin, high);
}

static void start(int nr)
{
	int i;

	world_init(nr);
	for (i = 0; i < nr; i++)
		apic_enable(i);
}

TEST(registers)
{
	unsigned int pin;

	start(1);
	EXPECT_EQ(reg_get(0x01), 0x00170011);
	reg_set(0x01, 0xffffffff);
	EXPECT_EQ(reg_get(0x01), 0x00170011);
	reg_set(0x00, 0xffffffff);
	EXPECT_EQ(reg_get(0x00), 0x0f000000);
	EXPECT_EQ(reg_get(0x02), 0x0f000000);
	for (pin = 0; pin < 24; pin++)
		EXPECT_EQ(rte_get(pin), MASKED);
	/* Delivery status and remote IRR are not the guest's to write. */
	rte_set(23, ~0ull);
	EXPECT_EQ(rte_get(23), 0xff0000000001afffull);
	/* The window and the selector are all there is. */
	EXPECT_EQ(reg_get(0x40), 0xffffffff);
	EXPECT_EQ(reg_get(0xff), 0xffffffff);
	EXPECT_EQ(reg_get(0x05), 0);
	reg_set(0x40, 1);
	EXPECT_EQ(ioapic_read(&world.chip, 0x00), 0x40);
	EXPECT_EQ(ioapic_read(&world.chip, 0x20), 0);
	ioapic_write(&world.chip, 0x40, 5);
	world_fini();
}

TEST(edge)
{
	start(1);
	rte_set(4, 0x34);
	EXPECT_EQ(line(4, true), 1);
	EXPECT_EQ(apic_take(0), 0x34);
	apic_set(0, APIC_EOI, 0);
	EXPECT_EQ(apic_take(0), -1);
	EXPECT_EQ(line(4, false), 1);
	EXPECT_EQ(line(4, true), 1);
	EXPECT_EQ(line(4, false), 1);
	/* One waits in IRR already. */
	EXPECT_EQ(line(4, true), 0);
	EXPECT_EQ(apic_take(0), 0x34);
	world_fini();
}

TEST(edge_at_a_masked_pin_is_lost)
{
	start(1);
	rte_set(4, MASKED | 0x34);
	EXPECT_LT(line(4, true), 0);
	rte_set(4, 0x34);
	EXPECT_EQ(apic_take(0), -1);
	line(4, false);
	EXPECT_EQ(line(4, true), 1);
	world_fini();
}

TEST(level)
{
	start(1);
	rte_set(10, LEVEL | 0x45);
	EXPECT_EQ(line(10, true), 1);
	EXPECT_EQ(rte_get(10), REMOTE_IRR | LEVEL | 0x45);
	EXPECT_EQ(apic_get(0, APIC_TMR + 0x20), 1 << 5);
	/* Not again before the EOI. */
	EXPECT_LT(line(10, true), 0);
	EXPECT_EQ(apic_take(0), 0x45);
	EXPECT_EQ(apic_take(0), -1);
	/* Still high: again. */
	apic_set(0, APIC_EOI, 0);
	EXPECT_EQ(world.eois, 1);
	EXPECT_EQ(rte_get(10) & REMOTE_IRR, REMOTE_IRR);
	EXPECT_EQ(apic_take(0), 0x45);
	line(10, false);
	apic_set(0, APIC_EOI, 0);
	EXPECT_EQ(rte_get(10) & REMOTE_IRR, 0);
	EXPECT_EQ(apic_take(0), -1);
	world_fini();
}

TEST(level_at_a_masked_pin_waits)
{
	start(1);
	rte_set(10, MASKED | LEVEL | 0x45);
	EXPECT_LT(line(10, true), 0);
	rte_set(10, LEVEL | 0x45);
	EXPECT_EQ(apic_take(0), 0x45);
	/* Masked before the EOI: it comes with the unmasking. */
	rte_set(10, MASKED | LEVEL | 0x45);
	apic_set(0, APIC_EOI, 0);
	EXPECT_EQ(apic_take(0), -1);
	EXPECT_EQ(rte_get(10) & REMOTE_IRR, 0);
	rte_set(10, LEVEL | 0x45);
	EXPECT_EQ(apic_take(0), 0x45);
	world_fini();
}

TEST(a_moment_of_edge_clears_remote_irr)
{
	start(1);
	rte_set(10, LEVEL | 0x45);
	line(10, true);
	apic_take(0);
	EXPECT_EQ(rte_get(10) & REMOTE_IRR, REMOTE_IRR);
	rte_set(10, MASKED | 0x45);
	EXPECT_EQ(rte_get(10) & REMOTE_IRR, 0);
	rte_set(10, MASKED | LEVEL | 0x45);
	EXPECT_EQ(rte_get(10) & REMOTE_IRR, 0);
	world_fini();
}

TEST(nobody_there_leaves_remote_irr_alone)
{
	start(1);
	rte_set(10, 0x7ull << 56 | LEVEL | 0x45);
	EXPECT_LT(line(10, true), 0);
	EXPECT_EQ(rte_get(10) & REMOTE_IRR, 0);
	/* As soon as somebody is addressed, the level interrupts. */
	rte_set(10, LEVEL | 0x45);
	EXPECT_EQ(apic_take(0), 0x45);
	world_fini();
}

TEST(two_pins_with_one_vector)
{
	start(1);
	rte_set(10, LEVEL | 0x45);
	rte_set(11, LEVEL | 0x45);
	EXPECT_EQ(line(10, true), 1);
	EXPECT_EQ(line(11, true), 0);
	EXPECT_EQ(rte_get(11) & REMOTE_IRR, REMOTE_IRR);
	EXPECT_EQ(apic_take(0), 0x45);
	line(10, false);
	apic_set(0, APIC_EOI, 0);
	EXPECT_EQ(rte_get(10) & REMOTE_IRR, 0);
	EXPECT_EQ(apic_take(0), 0x45);
	world_fini();
}

TEST(first_and_last_pin)
{
	start(1);
	rte_set(0, LEVEL | 0x45);
	rte_set(23, LEVEL | 0x55);
	line(0, true);
	line(23, true);
	EXPECT_EQ(apic_take(0), 0x55);
	line(23, false);
	apic_set(0, APIC_EOI, 0);
	EXPECT_EQ(rte_get(23), LEVEL | 0x55);
	EXPECT_EQ(rte_get(0), REMOTE_IRR | LEVEL | 0x45);
	EXPECT_EQ(apic_take(0), 0x45);
	line(0, false);
	apic_set(0, APIC_EOI, 0);
	EXPECT_EQ(rte_get(0), LEVEL | 0x45);
	world_fini();
}

TEST(destinations_and_modes)
{
	start(4);
	apic_set(0, APIC_LDR, 0x01000000);
	apic_set(1, APIC_LDR, 0x02000000);
	apic_set(2, APIC_LDR, 0x04000000);
	apic_set(3, APIC_LDR, 0x08000000);

	rte_set(1, 2ull << 56 | 0x51);
	EXPECT_EQ(line(1, true), 1);
	EXPECT_EQ(apic_take(2), 0x51);
	/* Everybody, physically; and two, logically. */
	rte_set(2, 0xffull << 56 | 0x52);
	EXPECT_EQ(line(2, true), 4);
	rte_set(3, 0x0aull << 56 | LOGICAL | 0x63);
	EXPECT_EQ(line(3, true), 2);
	EXPECT_EQ(apic_take(1), 0x63);
	EXPECT_EQ(apic_take(3), 0x63);
	EXPECT_EQ(apic_take(0), 0x52);
	/* Lowest priority: one of those, and always the same. */
	rte_set(5, 0x0full << 56 | LOGICAL | 0x100 | 0x76);
	EXPECT_EQ(line(5, true), 1);
	EXPECT_TRUE(apic_irr(0x76 % 4, 0x76));
	/* NMI; never a level. */
	rte_set(6, 1ull << 56 | LEVEL | 0x400);
	EXPECT_EQ(line(6, true), 1);
	EXPECT_EQ(world.nmis[1], 1);
	EXPECT_EQ(rte_get(6) & REMOTE_IRR, 0);
	rte_set(7, 1ull << 56 | 0x500);
	EXPECT_EQ(line(7, true), 1);
	EXPECT_EQ(world.apic[1].events, FONDA_LAPIC_INIT);
	world_fini();
}

static void lower(unsigned int pin)
{
	ioapic_set_line(&world.chip, pin, false);
}

TEST(the_end_is_notified_before_it_counts_again)
{
	start(1);
	rte_set(10, LEVEL | 0x45);
	world.on_notify = lower;
	ioapic_set_line(&world.chip, 10, true);
	EXPECT_EQ(apic_take(0), 0x45);
	apic_set(0, APIC_EOI, 0);
	EXPECT_EQ(world.notified, 1 << 10);
	EXPECT_EQ(apic_take(0), -1);
	world_fini();
}

TEST(the_end_of_an_edge_is_notified)
{
	start(1);
	rte_set(2, 0x30);
	line(2, true);
	EXPECT_EQ(apic_take(0), 0x30);
	apic_set(0, APIC_EOI, 0);
	EXPECT_EQ(world.eois, 1);
	EXPECT_EQ(world.notified, 1 << 2);
	/* The vector moves with the entry. */
	rte_set(2, 0x31);
	line(2, false);
	line(2, true);
	EXPECT_EQ(apic_take(0), 0x31);
	apic_set(0, APIC_EOI, 0);
	EXPECT_EQ(world.last_eoi, 0x31);
	EXPECT_EQ(world.eois, 2);
	/* A vector of no entry is between the local APIC and the guest. */
	apic_set(0, APIC_ICR, APIC_DEST_SELF | 0x30);
	EXPECT_EQ(apic_take(0), 0x30);
	apic_set(0, APIC_EOI, 0);
	EXPECT_EQ(world.eois, 2);
	world_fini();
}

TEST(state_goes_out_and_in)
{
	struct kvm_ioapic_state state, again;

	start(1);
	rte_set(10, LEVEL | 0x45);
	rte_set(11, MASKED | LEVEL | 0x46);
	rte_set(4, 0x34);
	line(10, true);
	line(11, true);
	line(4, true);
	ioapic_write(&world.chip, 0, 0x15);
	ioapic_get_state(&world.chip, &state);
	EXPECT_EQ(state.base_address, 0xfec00000);
	EXPECT_EQ(state.ioregsel, 0x15);
	/* The edge has been delivered. */
	EXPECT_EQ(state.irr, 1 << 10 | 1 << 11);
	EXPECT_EQ(state.redirtbl[10].bits, REMOTE_IRR | LEVEL | 0x45);
	world_fini();

	start(1);
	ioapic_set_state(&world.chip, &state);
	ioapic_get_state(&world.chip, &again);
	EXPECT_MEMEQ(&again, &state, sizeof(state));
	/* Remote IRR: the local APIC's state has that one. */
	EXPECT_EQ(apic_take(0), -1);
	rte_set(11, LEVEL | 0x46);
	EXPECT_EQ(apic_take(0), 0x46);
	/* The new owner lowers what the old one had raised. */
	line(11, false);
	apic_set(0, APIC_EOI, 0);
	EXPECT_EQ(apic_take(0), -1);

	/* A level that was never delivered is, on arrival. */
	state.redirtbl[10].bits = LEVEL | 0x45;
	ioapic_set_state(&world.chip, &state);
	EXPECT_EQ(apic_take(0), 0x45);

	memset(&state, 0xff, sizeof(state));
	ioapic_set_state(&world.chip, &state);
	EXPECT_EQ(rte_get(0), 0xff0000000001efffull);
	EXPECT_EQ(ioapic_read(&world.chip, 0), 0x10);
	world_fini();
}
