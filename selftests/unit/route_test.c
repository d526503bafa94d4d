// SPDX-License-Identifier: GPL-2.0-or-later
/* The routing table, messages, and the map from ids to local APICs. */
#include <string.h>

#include "irq_world.h"
#include "tap.h"

#define MSI_ADDR(id)	(0xfee00000u | (id) << 12)

static struct kvm_irq_routing_entry msi(u32 gsi, u32 addr, u32 data)
{
	return (struct kvm_irq_routing_entry){
		.gsi = gsi, .type = KVM_IRQ_ROUTING_MSI,
		.u.msi = { .address_lo = addr, .data = data },
	};
}

static struct kvm_irq_routing_entry pin(u32 gsi, u32 irqchip, u32 pin)
{
	return (struct kvm_irq_routing_entry){
		.gsi = gsi, .type = KVM_IRQ_ROUTING_IRQCHIP,
		.u.irqchip = { .irqchip = irqchip, .pin = pin },
	};
}

static int set(u32 gsi, bool high)
{
	return fonda_gsi_set(&world.chip, FONDA_IRQ_USER, gsi, high);
}

static void start(int nr)
{
	int i;

	world_init(nr);
	for (i = 0; i < nr; i++)
		apic_enable(i);
}

TEST(default_table)
{
	u32 gsi;

	start(1);
	for (gsi = 0; gsi < 24; gsi++)
		set(gsi, true);
	EXPECT_EQ(world.chip.ioapic.irr, 0xffffff);
	EXPECT_EQ(world.chip.pic.chip[0].last_irr, 0xff);
	EXPECT_EQ(world.chip.pic.chip[1].last_irr, 0xff);
	EXPECT_EQ(fonda_routes_gsi(&world.chip, FONDA_PIC_PINS + 17), 17);
	EXPECT_EQ(fonda_routes_gsi(&world.chip, 8 + 3), 11);
	EXPECT_LT(set(24, true), 0);
	EXPECT_LT(set(~0u, true), 0);
	world_fini();
}

TEST(status_adds_up)
{
	start(1);
	/* PIC takes it, the IOAPIC's pin is masked. */
	EXPECT_EQ(set(3, true), 1);
	EXPECT_EQ(set(3, true), 0);
	EXPECT_EQ(set(3, false), 2);
	ioapic_write(&world.chip, 0, 0x10 + 2 * 4);
	ioapic_write(&world.chip, 0x10, 0x44);
	EXPECT_EQ(set(4, true), 2);
	EXPECT_EQ(set(17, true), -1);
	world_fini();
}

TEST(a_pin_is_high_while_somebody_holds_it)
{
	start(1);
	/* Level-triggered at both chips. */
	pic_write(&world.chip.pic, 0x4d1, 0x04);
	ioapic_write(&world.chip, 0, 0x10 + 2 * 10);
	ioapic_write(&world.chip, 0x10, 0x8045);
	EXPECT_EQ(set(10, true), 2);
	EXPECT_EQ(apic_take(0), 0x45);
	EXPECT_EQ(fonda_gsi_set(&world.chip, FONDA_IRQ_RESAMPLE, 10, true), 0);
	EXPECT_EQ(set(10, false), 2);
	EXPECT_TRUE(world.chip.pic.output);
	apic_set(0, APIC_EOI, 0);
	EXPECT_EQ(apic_take(0), 0x45);
	EXPECT_EQ(fonda_gsi_set(&world.chip, FONDA_IRQ_RESAMPLE, 10, false), 2);
	EXPECT_FALSE(world.chip.pic.output);
	apic_set(0, APIC_EOI, 0);
	EXPECT_EQ(apic_take(0), -1);
	/* To let go twice is to let go. */
	EXPECT_EQ(set(10, false), 1);
	world_fini();
}

TEST(pic_output_is_announced_once)
{
	start(1);
	set(3, true);
	EXPECT_EQ(world.pic_outputs, 1);
	set(4, true);
	EXPECT_EQ(world.pic_outputs, 1);
	world_fini();
}

TEST(msi_route)
{
	struct kvm_irq_routing_entry e[] = {
		msi(100, MSI_ADDR(1), 0x51), msi(7, MSI_ADDR(0), 0x52),
	};

	start(2);
	ASSERT_TRUE(world_route(e, 2));
	EXPECT_EQ(set(100, true), 1);
	EXPECT_EQ(apic_take(1), 0x51);
	EXPECT_LT(set(100, false), 0);
	EXPECT_EQ(fonda_gsi_set(&world.chip, FONDA_IRQ_USER, 7, FONDA_LINE_PULSE), 1);
	EXPECT_EQ(apic_take(0), 0x52);
	/* What was in the table before is gone. */
	EXPECT_LT(set(3, true), 0);
	world_fini();
}

TEST(pulse_is_an_edge)
{
	start(1);
	ioapic_write(&world.chip, 0, 0x10 + 2 * 18);
	ioapic_write(&world.chip, 0x10, 0x48);
	EXPECT_EQ(fonda_gsi_set(&world.chip, FONDA_IRQ_USER, 18, FONDA_LINE_PULSE), 1);
	EXPECT_EQ(world.chip.ioapic.irr, 0);
	EXPECT_EQ(apic_take(0), 0x48);
	EXPECT_EQ(fonda_gsi_set(&world.chip, FONDA_IRQ_USER, 18, FONDA_LINE_PULSE), 1);
	EXPECT_LT(fonda_gsi_set(&world.chip, FONDA_IRQ_USER, 400, FONDA_LINE_PULSE), 0);
	world_fini();
}

TEST(table_is_checked)
{
	struct kvm_irq_routing_entry e[3];

	start(1);
	e[0] = msi(FONDA_MAX_GSI, MSI_ADDR(0), 0x40);
	EXPECT_FALSE(world_route(e, 1));
	e[0] = pin(3, KVM_IRQCHIP_IOAPIC, 24);
	EXPECT_FALSE(world_route(e, 1));
	e[0] = pin(3, KVM_IRQCHIP_PIC_MASTER, 8);
	EXPECT_FALSE(world_route(e, 1));
	e[0] = pin(3, 3, 0);
	EXPECT_FALSE(world_route(e, 1));
	e[0] = pin(3, KVM_IRQCHIP_IOAPIC, 3);
	e[0].flags = 1;
	EXPECT_FALSE(world_route(e, 1));
	e[0] = msi(3, MSI_ADDR(0), 0x40);
	e[0].flags = 2;
	EXPECT_FALSE(world_route(e, 1));
	e[0].flags = 0;
	e[0].type = KVM_IRQ_ROUTING_S390_ADAPTER;
	EXPECT_FALSE(world_route(e, 1));

	/* One GSI: one message, or pins of different chips. */
	e[0] = msi(3, MSI_ADDR(0), 0x40);
	e[1] = msi(3, MSI_ADDR(0), 0x41);
	EXPECT_FALSE(world_route(e, 2));
	e[1] = pin(3, KVM_IRQCHIP_IOAPIC, 3);
	EXPECT_FALSE(world_route(e, 2));
	e[0] = pin(3, KVM_IRQCHIP_IOAPIC, 4);
	EXPECT_FALSE(world_route(e, 2));
	e[0] = pin(3, KVM_IRQCHIP_PIC_MASTER, 3);
	e[2] = pin(3, KVM_IRQCHIP_PIC_SLAVE, 3);
	EXPECT_TRUE(world_route(e, 3));
	EXPECT_TRUE(world_route(e, 0));
	world_fini();
}

TEST(split_has_messages_only)
{
	struct kvm_irq_routing_entry e = pin(3, KVM_IRQCHIP_IOAPIC, 3);

	world_init_mode(1, FONDA_IRQCHIP_SPLIT);
	apic_enable(0);
	EXPECT_FALSE(world_route(&e, 1));
	e = msi(3, MSI_ADDR(0), 0x40);
	EXPECT_TRUE(world_route(&e, 1));
	EXPECT_EQ(set(3, true), 1);
	EXPECT_LT(set(3, false), 0);
	world_fini();
}

/* GSIs of one bucket: a table for 64 has 64 of them. */
TEST(colliding_gsis_are_told_apart)
{
	struct kvm_irq_routing_entry e[64];
	u32 i;

	start(1);
	for (i = 0; i < 64; i++)
		e[i] = msi(i * 64, MSI_ADDR(0), 0x40 + i);
	ASSERT_TRUE(world_route(e, 64));
	for (i = 0; i < 64; i++) {
		EXPECT_EQ(set(i * 64, true), 1);
		EXPECT_TRUE(apic_irr(0, 0x40 + i));
	}
	EXPECT_LT(set(65, true), 0);
	world_fini();
}

TEST(msi_forms)
{
	start(4);
	apic_set(0, APIC_LDR, 0x01000000);
	apic_set(1, APIC_LDR, 0x02000000);
	apic_set(2, APIC_LDR, 0x04000000);
	apic_set(3, APIC_LDR, 0x08000000);
	EXPECT_EQ(fonda_msi_deliver(&world.chip, MSI_ADDR(2), 0x51), 1);
	EXPECT_TRUE(apic_irr(2, 0x51));
	EXPECT_EQ(fonda_msi_deliver(&world.chip, MSI_ADDR(2), 0x51), 0);
	EXPECT_EQ(fonda_msi_deliver(&world.chip, MSI_ADDR(0xff), 0x52), 4);
	/* Logical; with the redirection hint one of those. */
	EXPECT_EQ(fonda_msi_deliver(&world.chip, MSI_ADDR(0x0a) | 4, 0x53), 2);
	EXPECT_EQ(fonda_msi_deliver(&world.chip, MSI_ADDR(0x0a) | 0xc, 0x54), 1);
	/* Level-triggered, as an IOAPIC in user space sends it. */
	EXPECT_EQ(fonda_msi_deliver(&world.chip, MSI_ADDR(1), 0x8055), 1);
	EXPECT_EQ(apic_get(1, APIC_TMR + 0x20), 1 << 0x15);
	/* NMI; SMI, and what does not exist, reach nobody. */
	EXPECT_EQ(fonda_msi_deliver(&world.chip, MSI_ADDR(3), 0x400), 1);
	EXPECT_EQ(world.nmis[3], 1);
	EXPECT_LT(fonda_msi_deliver(&world.chip, MSI_ADDR(3), 0x200), 0);
	EXPECT_LT(fonda_msi_deliver(&world.chip, MSI_ADDR(9), 0x51), 0);
	/* A vector that no local APIC accepts. */
	EXPECT_LT(fonda_msi_deliver(&world.chip, MSI_ADDR(0), 0x0f), 0);
	world_fini();
}

TEST(extended_ids_in_addresses)
{
	struct kvm_irq_routing_entry e;
	int i;

	start(3);
	for (i = 0; i < 3; i++)
		ASSERT_EQ(lapic_set_base(&world.apic[i], world.apic[i].base | 0x400, false), 0);
	world.apic[2].id = 300;
	fonda_apic_map_update(&world.apic[2]);

	/* Unless user space speaks the x2APIC format, the upper half is not looked at. */
	EXPECT_EQ(fonda_msi_check(&world.chip, 0x1200000000ull), 0);
	EXPECT_LT(fonda_msi_deliver(&world.chip, 0x100ull << 32 | MSI_ADDR(44), 0x51), 0);
	world.chip.x2apic_format = true;
	EXPECT_EQ(fonda_msi_deliver(&world.chip, 0x100ull << 32 | MSI_ADDR(44), 0x51), 1);
	EXPECT_EQ(fonda_msi_check(&world.chip, 0x1200000000ull), -EINVAL);
	e = msi(5, MSI_ADDR(0), 0x40);
	e.u.msi.address_hi = 0x12;
	EXPECT_FALSE(world_route(&e, 1));

	/* 255 is everybody to a device, unless that is switched off. */
	EXPECT_EQ(fonda_msi_deliver(&world.chip, MSI_ADDR(0xff), 0x52), 3);
	world.chip.x2apic_no_broadcast_quirk = true;
	EXPECT_LT(fonda_msi_deliver(&world.chip, MSI_ADDR(0xff), 0x53), 0);
	world_fini();
}

TEST(ids_move)
{
	start(3);
	apic_set(1, APIC_ID, 0x20000000);
	EXPECT_LT(fonda_msi_deliver(&world.chip, MSI_ADDR(1), 0x51), 0);
	EXPECT_EQ(fonda_msi_deliver(&world.chip, MSI_ADDR(0x20), 0x51), 1);
	EXPECT_TRUE(apic_irr(1, 0x51));
	/* Two of one id: both. */
	apic_set(2, APIC_ID, 0x20000000);
	EXPECT_EQ(fonda_msi_deliver(&world.chip, MSI_ADDR(0x20), 0x52), 2);
	/* And apart again. */
	apic_set(1, APIC_ID, 0x01000000);
	EXPECT_EQ(fonda_msi_deliver(&world.chip, MSI_ADDR(0x20), 0x53), 1);
	EXPECT_TRUE(apic_irr(2, 0x53));
	EXPECT_EQ(fonda_msi_deliver(&world.chip, MSI_ADDR(1), 0x54), 1);
	/* Switched off, it is not there. */
	EXPECT_EQ(lapic_set_base(&world.apic[1], 0xfee00000, false), 0);
	EXPECT_LT(fonda_msi_deliver(&world.chip, MSI_ADDR(1), 0x55), 0);
	EXPECT_EQ(fonda_msi_deliver(&world.chip, MSI_ADDR(0xff), 0x56), 2);
	world_fini();
}

TEST(lowest_priority_skips_the_disabled)
{
	int i;

	world_init(3);
	apic_enable(2);
	for (i = 0; i < 16; i++)
		EXPECT_EQ(fonda_msi_deliver(&world.chip, MSI_ADDR(0xff), 0x100 | (0x60 + i)), 1);
	for (i = 0; i < 16; i++)
		EXPECT_TRUE(apic_irr(2, 0x60 + i));
	apic_set(2, APIC_SPIV, 0xff);
	EXPECT_LT(fonda_msi_deliver(&world.chip, MSI_ADDR(0xff), 0x180), 0);
	world_fini();
}
