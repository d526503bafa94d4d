// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The local APIC, by the chapters of Intel's and AMD's manuals: registers in
 * both modes, priorities, messages, the timer's modes, state of user space.
 */
#include <string.h>

#include "irq_world.h"
#include "tap.h"

#define X2(reg)		(0x800 + (reg) / 16)
#define SELF		(1u << 18)
#define ALL		(2u << 18)
#define OTHERS		(3u << 18)
#define ASSERT_IPI	0x4000
#define MASKED		0x10000
#define PERIODIC	0x20000
#define DEADLINE	0x40000

static void start(int nr)
{
	int i;

	world_init(nr);
	for (i = 0; i < nr; i++)
		apic_enable(i);
	memset(world.rechecks, 0, sizeof(world.rechecks));
}

static void start_x2(int nr)
{
	int i;

	world_init(nr);
	for (i = 0; i < nr; i++) {
		ASSERT_EQ(lapic_set_base(&world.apic[i], world.apic[i].base | 0x400, false), 0);
		ASSERT_EQ(lapic_write_x2(&world.apic[i], X2(APIC_SPIV), 0x1ff), 0);
	}
}

static int x2_set(int nr, u32 reg, u64 val)
{
	return lapic_write_x2(&world.apic[nr], X2(reg), val);
}

static u64 x2_get(int nr, u32 reg)
{
	u64 val = ~0ull;

	EXPECT_EQ(lapic_read_x2(&world.apic[nr], X2(reg), &val), 0);
	return val;
}

static bool x2_faults(int nr, u32 reg)
{
	u64 val;

	return lapic_read_x2(&world.apic[nr], X2(reg), &val);
}

static void eoi(int nr)
{
	apic_set(nr, APIC_EOI, 0);
}

static void ipi(int nr, u32 dest, u32 icr)
{
	apic_set(nr, APIC_ICR2, dest << 24);
	apic_set(nr, APIC_ICR, icr);
}

TEST(state_after_power_up)
{
	u32 reg;

	world_init(2);
	EXPECT_EQ(world.apic[0].base, 0xfee00900);
	EXPECT_EQ(world.apic[1].base, 0xfee00800);
	EXPECT_EQ(apic_get(1, APIC_ID), 0x01000000);
	EXPECT_EQ(apic_get(1, APIC_LVR), 0x00050014);
	EXPECT_EQ(apic_get(1, APIC_SPIV), 0xff);
	EXPECT_EQ(apic_get(1, APIC_DFR), 0xffffffff);
	EXPECT_EQ(apic_get(1, APIC_LDR), 0);
	EXPECT_EQ(apic_get(1, APIC_TASKPRI), 0);
	EXPECT_EQ(apic_get(1, APIC_PROCPRI), 0);
	for (reg = APIC_LVTT; reg <= APIC_LVTERR; reg += 16)
		EXPECT_EQ(apic_get(1, reg), MASKED);
	for (reg = APIC_ISR; reg < APIC_ESR; reg += 16)
		EXPECT_EQ(apic_get(1, reg), 0);
	EXPECT_EQ(apic_get(1, APIC_TMICT), 0);
	EXPECT_EQ(apic_get(1, APIC_TMCCT), 0);
	EXPECT_EQ(lapic_gpa(&world.apic[0]), 0xfee00000);
	world_fini();
}

TEST(mmio_is_32_bits_of_every_128)
{
	u8 byte;
	u64 wide = ~0ull;

	start(1);
	apic_set(0, APIC_TASKPRI, 0x55);
	lapic_access(&world.apic[0], APIC_TASKPRI, 1, &byte, false);
	EXPECT_EQ(byte, 0x55);
	lapic_access(&world.apic[0], APIC_TASKPRI + 1, 1, &byte, false);
	EXPECT_EQ(byte, 0);
	lapic_access(&world.apic[0], APIC_TASKPRI, 8, &wide, false);
	EXPECT_EQ(wide, 0);
	lapic_access(&world.apic[0], APIC_TASKPRI + 4, 4, &wide, false);
	EXPECT_EQ((u32)wide, 0);
	lapic_access(&world.apic[0], APIC_TASKPRI + 4, 4, &wide, true);
	lapic_access(&world.apic[0], APIC_TASKPRI, 2, &wide, true);
	EXPECT_EQ(apic_get(0, APIC_TASKPRI), 0x55);
	/* Read-only, and not there at all. */
	apic_set(0, APIC_LVR, 0);
	EXPECT_EQ(apic_get(0, APIC_LVR), 0x00050014);
	apic_set(0, APIC_IRR, 0xff);
	EXPECT_EQ(apic_get(0, APIC_IRR), 0);
	apic_set(0, APIC_ESR, 0);
	EXPECT_EQ(apic_get(0, APIC_ESR), 0);
	EXPECT_EQ(apic_get(0, 0x010), 0);
	apic_set(0, 0x3f0, 0x41);
	EXPECT_EQ(apic_get(0, 0xff0), 0);
	apic_set(0, 0xff0, 1);
	apic_set(0, APIC_ESR, 0);
	EXPECT_EQ(apic_get(0, APIC_ESR), 0x80);
	world_fini();
}

TEST(lvt_bits)
{
	start(1);
	apic_set(0, APIC_LVTT, ~0u);
	EXPECT_EQ(apic_get(0, APIC_LVTT), 0x700ff);
	apic_set(0, APIC_LVTTHMR, ~0u);
	EXPECT_EQ(apic_get(0, APIC_LVTTHMR), 0x107ff);
	apic_set(0, APIC_LVTPC, ~0u);
	EXPECT_EQ(apic_get(0, APIC_LVTPC), 0x107ff);
	apic_set(0, APIC_LVT0, ~0u);
	EXPECT_EQ(apic_get(0, APIC_LVT0), 0x1a7ff);
	apic_set(0, APIC_LVT1, ~0u);
	EXPECT_EQ(apic_get(0, APIC_LVT1), 0x1a7ff);
	apic_set(0, APIC_LVTERR, ~0u);
	EXPECT_EQ(apic_get(0, APIC_LVTERR), 0x100ff);
	apic_set(0, APIC_SPIV, ~0u);
	EXPECT_EQ(apic_get(0, APIC_SPIV), 0x3ff);
	apic_set(0, APIC_TDCR, ~0u);
	EXPECT_EQ(apic_get(0, APIC_TDCR), 0xb);
	apic_set(0, APIC_LDR, ~0u);
	EXPECT_EQ(apic_get(0, APIC_LDR), 0xff000000);
	apic_set(0, APIC_DFR, 0);
	EXPECT_EQ(apic_get(0, APIC_DFR), 0x0fffffff);
	world_fini();
}

TEST(software_disable_masks_and_refuses)
{
	start(1);
	apic_set(0, APIC_LVTERR, 0xfe);
	ipi(0, 0, SELF | 0x41);
	apic_set(0, APIC_SPIV, 0xff);
	EXPECT_EQ(apic_get(0, APIC_LVTERR), MASKED | 0xfe);
	apic_set(0, APIC_LVTERR, 0xfd);
	EXPECT_EQ(apic_get(0, APIC_LVTERR), MASKED | 0xfd);
	/* What waits is held; nothing new comes in but NMI, INIT, SIPI. */
	ipi(0, 0, SELF | 0x51);
	EXPECT_FALSE(apic_irr(0, 0x51));
	EXPECT_EQ(apic_take(0), 0x41);
	ipi(0, 0, 0x400);
	EXPECT_EQ(world.nmis[0], 1);
	apic_enable(0);
	EXPECT_EQ(apic_get(0, APIC_LVTERR), MASKED | 0xfd);
	world_fini();
}

TEST(priorities)
{
	start(1);
	ipi(0, 0, SELF | 0x41);
	ipi(0, 0, SELF | 0x93);
	ipi(0, 0, SELF | 0x95);
	/* Its own: the vCPU need not be called for. */
	EXPECT_EQ(world.rechecks[0], 3);
	EXPECT_EQ(world.raises[0], 0);
	EXPECT_EQ(apic_take(0), 0x95);
	EXPECT_TRUE(apic_isr(0, 0x95));
	EXPECT_FALSE(apic_irr(0, 0x95));
	EXPECT_EQ(apic_get(0, APIC_PROCPRI), 0x90);
	/* The same class waits, a higher one does not. */
	EXPECT_EQ(apic_take(0), -1);
	ipi(0, 0, SELF | 0xa1);
	EXPECT_EQ(apic_take(0), 0xa1);
	eoi(0);
	EXPECT_EQ(apic_get(0, APIC_PROCPRI), 0x90);
	eoi(0);
	EXPECT_EQ(apic_take(0), 0x93);
	eoi(0);
	/* The task priority holds back its own class too. */
	apic_set(0, APIC_TASKPRI, 0x4f);
	EXPECT_EQ(apic_get(0, APIC_PROCPRI), 0x4f);
	EXPECT_EQ(apic_take(0), -1);
	EXPECT_EQ(lapic_get_tpr(&world.apic[0]), 4);
	lapic_set_tpr(&world.apic[0], 3);
	EXPECT_EQ(apic_get(0, APIC_TASKPRI), 0x30);
	EXPECT_EQ(apic_take(0), 0x41);
	EXPECT_EQ(apic_get(0, APIC_PROCPRI), 0x40);
	apic_set(0, APIC_TASKPRI, 0x45);
	EXPECT_EQ(apic_get(0, APIC_PROCPRI), 0x45);
	eoi(0);
	/* With nothing in service an EOI is nothing. */
	eoi(0);
	EXPECT_EQ(world.eois, 0);
	world_fini();
}

/* Every vector through IRR and ISR and out again, nested as deep as they go. */
TEST(all_vectors)
{
	int vector, class;

	start(1);
	for (vector = 16; vector < 256; vector++) {
		ipi(0, 0, SELF | vector);
		EXPECT_TRUE(apic_irr(0, vector));
	}
	for (vector = 255; vector >= 16; vector--) {
		ASSERT_EQ(apic_take(0), vector);
		eoi(0);
	}
	EXPECT_EQ(apic_take(0), -1);
	for (class = 1; class < 16; class++) {
		ipi(0, 0, SELF | class << 4);
		ASSERT_EQ(apic_take(0), class << 4);
	}
	for (class = 15; class >= 1; class--) {
		EXPECT_EQ(apic_get(0, APIC_PROCPRI), class << 4);
		eoi(0);
	}
	EXPECT_EQ(apic_get(0, APIC_PROCPRI), 0);
	EXPECT_EQ(world.apic[0].isr_top, -1);
	world_fini();
}

TEST(one_vector_waits_once)
{
	start(1);
	ipi(0, 0, SELF | 0x41);
	ipi(0, 0, SELF | 0x41);
	EXPECT_EQ(world.rechecks[0], 1);
	EXPECT_EQ(apic_take(0), 0x41);
	/* One more while it is in service. */
	ipi(0, 0, SELF | 0x41);
	EXPECT_EQ(apic_take(0), -1);
	eoi(0);
	EXPECT_EQ(apic_take(0), 0x41);
	eoi(0);
	EXPECT_EQ(apic_take(0), -1);
	world_fini();
}

TEST(what_holds_back)
{
	struct fonda_lapic *apic = &world.apic[0];

	start(1);
	EXPECT_EQ(lapic_peek(apic), -1);
	ipi(0, 0, SELF | 0x41);
	EXPECT_EQ(lapic_peek(apic), 0x41);
	EXPECT_TRUE(apic_irr(0, 0x41));
	apic_set(0, APIC_TASKPRI, 0x3f);
	EXPECT_EQ(lapic_peek(apic), 0x41);
	apic_set(0, APIC_TASKPRI, 0x40);
	EXPECT_EQ(lapic_peek(apic), LAPIC_TPR_BLOCKED);
	/* What is in service does, too: a lower TPR would be of no use. */
	apic_set(0, APIC_TASKPRI, 0);
	apic_take(0);
	ipi(0, 0, SELF | 0x4f);
	apic_set(0, APIC_TASKPRI, 0x50);
	EXPECT_EQ(lapic_peek(apic), -1);
	EXPECT_TRUE(apic_irr(0, 0x4f));
	/* Its end is the moment to look again. */
	EXPECT_EQ(world.rechecks[0], 2);
	apic_set(0, APIC_TASKPRI, 0);
	eoi(0);
	EXPECT_EQ(world.rechecks[0], 3);
	EXPECT_EQ(lapic_peek(apic), 0x4f);
	/* Switched off, nothing is let through. */
	lapic_set_base(apic, 0xfee00100, false);
	EXPECT_EQ(lapic_peek(apic), -1);
	world_fini();
}

TEST(one_more_while_the_first_is_offered)
{
	struct fonda_lapic *apic = &world.apic[0];

	start(1);
	ipi(0, 0, SELF | 0x41);
	EXPECT_EQ(apic_offer(0), 0x41);
	/* The guest may be in its handler already: this is another interrupt. */
	ipi(0, 0, SELF | 0x41);
	EXPECT_EQ(world.rechecks[0], 2);
	lapic_settle(apic, 0x41, true);
	EXPECT_EQ(apic_take(0), -1);
	eoi(0);
	EXPECT_EQ(apic_take(0), 0x41);
	eoi(0);
	/* It was not: they are one. */
	ipi(0, 0, SELF | 0x42);
	EXPECT_EQ(apic_offer(0), 0x42);
	ipi(0, 0, SELF | 0x42);
	lapic_settle(apic, 0x42, false);
	EXPECT_GT(world.rechecks[0], 0);
	EXPECT_EQ(apic_take(0), 0x42);
	eoi(0);
	EXPECT_EQ(apic_take(0), -1);
	world_fini();
}

TEST(ipi_destinations)
{
	int i;

	start(4);
	ipi(0, 2, 0x41);
	EXPECT_EQ(apic_take(2), 0x41);
	ipi(1, 1, 0x42);
	EXPECT_EQ(apic_take(1), 0x42);
	ipi(0, 9, 0x43);
	ipi(0, 0xff, 0x44);
	for (i = 0; i < 4; i++)
		EXPECT_TRUE(apic_irr(i, 0x44));
	ipi(0, 0, ALL | 0x45);
	ipi(3, 0, OTHERS | 0x46);
	for (i = 0; i < 4; i++) {
		EXPECT_FALSE(apic_irr(i, 0x43));
		EXPECT_TRUE(apic_irr(i, 0x45));
		EXPECT_EQ(apic_irr(i, 0x46), i != 3);
	}
	/* The command reads back, never as busy. */
	ipi(0, 2, ASSERT_IPI | 0x1047);
	EXPECT_EQ(apic_get(0, APIC_ICR), ASSERT_IPI | 0x47);
	EXPECT_EQ(apic_get(0, APIC_ICR2), 0x02000000);
	world_fini();
}

TEST(logical_flat_and_cluster)
{
	int i;

	start(4);
	for (i = 0; i < 4; i++)
		apic_set(i, APIC_LDR, 1u << (24 + i));
	ipi(0, 0x05, 0x841);
	EXPECT_TRUE(apic_irr(0, 0x41));
	EXPECT_FALSE(apic_irr(1, 0x41));
	EXPECT_TRUE(apic_irr(2, 0x41));
	ipi(0, 0xff, 0x842);
	for (i = 0; i < 4; i++)
		EXPECT_TRUE(apic_irr(i, 0x42));

	/* Clusters 1 and 2, two members each. */
	for (i = 0; i < 4; i++) {
		apic_set(i, APIC_DFR, 0x0fffffff);
		apic_set(i, APIC_LDR, (0x10u + 0x10 * (i / 2) + (1 << i % 2)) << 24);
	}
	ipi(0, 0x13, 0x843);
	EXPECT_TRUE(apic_irr(0, 0x43));
	EXPECT_TRUE(apic_irr(1, 0x43));
	EXPECT_FALSE(apic_irr(2, 0x43));
	ipi(0, 0x22, 0x844);
	EXPECT_FALSE(apic_irr(2, 0x44));
	EXPECT_TRUE(apic_irr(3, 0x44));
	ipi(0, 0xff, 0x845);
	for (i = 0; i < 4; i++)
		EXPECT_TRUE(apic_irr(i, 0x45));
	/* Lowest priority picks one of them. */
	ipi(0, 0x13, 0x946);
	EXPECT_EQ(apic_irr(0, 0x46) + apic_irr(1, 0x46), 1);
	world_fini();
}

TEST(init_and_sipi)
{
	start(2);
	ipi(0, 1, ASSERT_IPI | 0x699);
	EXPECT_EQ(world.apic[1].events, FONDA_LAPIC_SIPI);
	/* An INIT makes void what came before it. */
	ipi(0, 1, 0x8000 | ASSERT_IPI | 0x500);
	EXPECT_EQ(world.apic[1].events, FONDA_LAPIC_INIT);
	EXPECT_EQ(world.events[1], 2);
	/* The de-assert is nothing. */
	ipi(0, 1, 0x8000 | 0x500);
	EXPECT_EQ(world.events[1], 2);
	ipi(0, 1, ASSERT_IPI | 0x69a);
	EXPECT_EQ(world.apic[1].events, FONDA_LAPIC_INIT | FONDA_LAPIC_SIPI);
	EXPECT_EQ(world.apic[1].sipi_vector, 0x9a);
	ipi(0, 0, OTHERS | ASSERT_IPI | 0x400);
	EXPECT_EQ(world.nmis[1], 1);
	EXPECT_EQ(world.nmis[0], 0);
	/* SMI, reserved, ExtINT: nobody has these. */
	ipi(0, 1, 0x200);
	ipi(0, 1, 0x300);
	ipi(0, 1, 0x700);
	EXPECT_EQ(world.raises[1], 0);
	world_fini();
}

TEST(init_resets_all_but_id_and_mode)
{
	struct fonda_lapic *apic = &world.apic[1];

	start(2);
	apic_set(1, APIC_ID, 0x07000000);
	apic_set(1, APIC_TASKPRI, 0x50);
	apic_set(1, APIC_LVTERR, 0xfe);
	apic_set(1, APIC_LVTT, PERIODIC | 0x51);
	apic_set(1, APIC_TMICT, 1000);
	ipi(0, 7, 0x61);
	ipi(0, 7, 0x62);
	EXPECT_EQ(apic_take(1), 0x62);
	lapic_reset(apic, true, false);
	EXPECT_EQ(apic_get(1, APIC_ID), 0x07000000);
	EXPECT_EQ(apic_get(1, APIC_TASKPRI), 0);
	EXPECT_EQ(apic_get(1, APIC_LVTERR), MASKED);
	EXPECT_EQ(apic_get(1, APIC_SPIV), 0xff);
	EXPECT_EQ(apic->isr_top, -1);
	EXPECT_FALSE(apic->timer.active);
	EXPECT_EQ(apic_waits(1), -1);
	ipi(0, 7, 0x500);
	EXPECT_EQ(apic->events, FONDA_LAPIC_INIT);
	/* Power-up takes the id back as well. */
	lapic_reset(apic, false, false);
	EXPECT_EQ(apic_get(1, APIC_ID), 0x01000000);
	ipi(0, 1, 0x400);
	EXPECT_EQ(world.nmis[1], 1);
	world_fini();

	/* x2APIC mode outlives an INIT, with its ids. */
	start_x2(2);
	lapic_reset(apic, true, false);
	EXPECT_EQ(x2_get(1, APIC_ID), 1);
	EXPECT_EQ(x2_get(1, APIC_LDR), 2);
	lapic_reset(apic, false, false);
	EXPECT_FALSE(apic->x2apic);
	EXPECT_EQ(apic_get(1, APIC_LDR), 0);
	world_fini();
}

TEST(errors)
{
	start(2);
	apic_set(0, APIC_LVTERR, 0xfe);
	/* Send illegal vector; nothing is sent. */
	ipi(0, 1, 0x0f);
	EXPECT_EQ(apic_get(0, APIC_ESR), 0);
	EXPECT_EQ(apic_take(0), 0xfe);
	eoi(0);
	/* The same error again before ESR is looked at is no new one. */
	ipi(0, 1, 0x0e);
	EXPECT_EQ(apic_take(0), -1);
	apic_set(0, APIC_ESR, 0);
	EXPECT_EQ(apic_get(0, APIC_ESR), 0x20);
	apic_set(0, APIC_ESR, 0);
	EXPECT_EQ(apic_get(0, APIC_ESR), 0);
	/* Received illegal vector. */
	EXPECT_LT(lapic_accept(&world.apic[0], 3), 0);
	EXPECT_EQ(apic_take(0), 0xfe);
	apic_set(0, APIC_ESR, 0);
	EXPECT_EQ(apic_get(0, APIC_ESR), 0x40);
	apic_set(0, APIC_LVTERR, 0x10);
	ipi(0, 0, SELF | 0x0f);
	eoi(0);
	EXPECT_EQ(apic_take(0), 0x10);
	eoi(0);
	apic_set(0, APIC_ESR, 0);
	/* An error vector that is illegal itself must not recurse. */
	apic_set(0, APIC_LVTERR, 0x05);
	ipi(0, 0, SELF | 0x01);
	apic_set(0, APIC_ESR, 0);
	EXPECT_EQ(apic_get(0, APIC_ESR), 0x20);
	world_fini();
}

TEST(eoi_broadcast_follows_the_trigger_mode)
{
	world_init_mode(1, FONDA_IRQCHIP_SPLIT);
	apic_enable(0);
	EXPECT_EQ(lapic_accept(&world.apic[0], APIC_INT_LEVELTRIG | 0x45), 1);
	EXPECT_EQ(apic_get(0, APIC_TMR + 0x20), 0x20);
	apic_take(0);
	eoi(0);
	EXPECT_EQ(world.eois, 1);
	EXPECT_EQ(world.last_eoi, 0x45);
	/* The next one of that vector is an edge. */
	EXPECT_EQ(lapic_accept(&world.apic[0], 0x45), 1);
	EXPECT_EQ(apic_get(0, APIC_TMR + 0x20), 0);
	apic_take(0);
	eoi(0);
	EXPECT_EQ(world.eois, 1);
	/* Broadcasts can be suppressed where the version says so. */
	EXPECT_EQ(apic_get(0, APIC_LVR), 0x01050014);
	apic_set(0, APIC_SPIV, 0x11ff);
	lapic_accept(&world.apic[0], APIC_INT_LEVELTRIG | 0x45);
	apic_take(0);
	eoi(0);
	EXPECT_EQ(world.eois, 1);
	world_fini();
	start(1);
	apic_set(0, APIC_SPIV, 0x11ff);
	EXPECT_EQ(apic_get(0, APIC_SPIV), 0x1ff);
	world_fini();
}

TEST(extint)
{
	world_init(2);
	EXPECT_FALSE(lapic_accepts_extint(&world.apic[0]));
	lapic_reset(&world.apic[0], false, true);
	EXPECT_TRUE(lapic_accepts_extint(&world.apic[0]));
	EXPECT_EQ(world.rechecks[0], 1);
	/* A processor that virtualizes the APIC does so only while it is enabled. */
	apic_enable(0);
	EXPECT_EQ(world.rechecks[0], 2);
	apic_set(0, APIC_LVT0, MASKED | 0x700);
	EXPECT_EQ(world.rechecks[0], 3);
	apic_set(0, APIC_LVT1, 0x400);
	EXPECT_EQ(world.rechecks[0], 3);
	EXPECT_FALSE(lapic_accepts_extint(&world.apic[0]));
	apic_set(0, APIC_LVT0, 0x400);
	EXPECT_FALSE(lapic_accepts_extint(&world.apic[0]));
	apic_set(0, APIC_LVT0, 0x700);
	EXPECT_TRUE(lapic_accepts_extint(&world.apic[0]));
	/* Without an APIC INTR is the first processor's. */
	lapic_set_base(&world.apic[0], 0xfee00100, false);
	lapic_set_base(&world.apic[1], 0xfee00000, false);
	EXPECT_TRUE(lapic_accepts_extint(&world.apic[0]));
	EXPECT_FALSE(lapic_accepts_extint(&world.apic[1]));
	world_fini();
}

TEST(base_and_modes)
{
	struct fonda_lapic *apic = &world.apic[0];

	start(1);
	EXPECT_EQ(lapic_set_base(apic, 0xfed00900, false), 0);
	EXPECT_EQ(lapic_gpa(apic), 0xfed00000);
	EXPECT_TRUE(lapic_has_page(apic));
	/* "x2APIC State Transitions" */
	EXPECT_EQ(lapic_set_base(apic, 0xfee00500, false), 1);
	EXPECT_EQ(lapic_set_base(apic, 0xfee00d00, false), 0);
	EXPECT_FALSE(lapic_has_page(apic));
	EXPECT_EQ(lapic_set_base(apic, 0xfee00900, false), 1);
	EXPECT_EQ(lapic_set_base(apic, 0xfee00500, false), 1);
	EXPECT_TRUE(apic->x2apic);
	EXPECT_EQ(lapic_set_base(apic, 0xfee00100, false), 0);
	EXPECT_FALSE(lapic_has_page(apic));
	EXPECT_EQ(lapic_set_base(apic, 0xfee00d00, false), 1);
	EXPECT_EQ(lapic_set_base(apic, 0xfee00900, false), 0);
	/* On again it is as after a reset. */
	EXPECT_EQ(apic_get(0, APIC_SPIV), 0xff);
	apic_set(0, APIC_ID, 0x07000000);
	EXPECT_EQ(lapic_set_base(apic, 0xfee00100, false), 0);
	EXPECT_EQ(lapic_set_base(apic, 0xfee00900, false), 0);
	EXPECT_EQ(apic_get(0, APIC_ID), 0);
	/* User space may set any mode there is. */
	EXPECT_EQ(lapic_set_base(apic, 0xfee00d00, true), 0);
	EXPECT_EQ(lapic_set_base(apic, 0xfee00900, true), 0);
	EXPECT_EQ(lapic_set_base(apic, 0xfee00500, true), 1);
	world_fini();
}

TEST(x2apic_registers)
{
	static const u32 absent[] = { 0, 0x10, 0x40, 0x90, 0xb0, 0xc0, 0xe0, 0x290,
				      0x2f0, 0x310, 0x3a0, 0x3d0, 0x3f0, 0x400, 0x7f0, 0xff0 };
	unsigned int i;

	start_x2(3);
	EXPECT_EQ(x2_get(2, APIC_ID), 2);
	EXPECT_EQ(x2_get(2, APIC_LDR), 4);
	EXPECT_EQ(x2_get(2, APIC_LVR), 0x00050014);
	EXPECT_EQ(x2_set(2, APIC_TASKPRI, 0x20), 0);
	EXPECT_EQ(x2_get(2, APIC_TASKPRI), 0x20);
	EXPECT_EQ(x2_get(2, APIC_PROCPRI), 0x20);
	for (i = 0; i < ARRAY_SIZE(absent); i++)
		EXPECT_TRUE(x2_faults(0, absent[i]));

	/* Read-only ones, and reserved bits. */
	EXPECT_EQ(x2_set(0, APIC_ID, 1), 1);
	EXPECT_EQ(x2_set(0, APIC_LVR, 1), 1);
	EXPECT_EQ(x2_set(0, APIC_LDR, 1), 1);
	EXPECT_EQ(x2_set(0, APIC_PROCPRI, 0), 1);
	EXPECT_EQ(x2_set(0, APIC_DFR, ~0u), 1);
	EXPECT_EQ(x2_set(0, APIC_ISR, 0), 1);
	EXPECT_EQ(x2_set(0, APIC_TMCCT, 0), 1);
	EXPECT_EQ(x2_set(0, APIC_ICR2, 0), 1);
	EXPECT_EQ(x2_set(0, 0x400, 0), 1);
	EXPECT_EQ(x2_set(0, APIC_TASKPRI, 0x100), 1);
	EXPECT_EQ(x2_set(0, APIC_TASKPRI, 1ull << 32), 1);
	EXPECT_EQ(x2_set(0, APIC_EOI, 1), 1);
	EXPECT_EQ(x2_set(0, APIC_ESR, 1), 1);
	EXPECT_EQ(x2_set(0, APIC_ESR, 0), 0);
	EXPECT_EQ(x2_set(0, APIC_SPIV, 0x11ff), 1);
	EXPECT_EQ(x2_set(0, APIC_LVTT, 0x80000), 1);
	EXPECT_EQ(x2_set(0, APIC_LVTERR, 0x100), 1);
	EXPECT_EQ(x2_set(0, APIC_TDCR, 0x4), 1);
	EXPECT_EQ(x2_set(0, 0x3f0, 0x141), 1);
	EXPECT_EQ(x2_set(0, APIC_TMICT, ~0u), 0);
	for (i = 0; i < 32; i++)
		EXPECT_EQ(x2_set(0, APIC_ICR, 9ull << 32 | 0x41 | 1u << i),
			  i == 13 || i == 16 || i == 17 || i >= 20);
	EXPECT_EQ(x2_get(0, APIC_ICR) & 0x1000, 0);

	/* Not there at all in xAPIC mode. */
	lapic_set_base(&world.apic[0], 0xfee00900, true);
	EXPECT_TRUE(x2_faults(0, APIC_ID));
	EXPECT_EQ(x2_set(0, APIC_EOI, 0), 1);
	world_fini();
}

TEST(x2apic_messages)
{
	start_x2(3);
	EXPECT_EQ(x2_set(0, APIC_ICR, 2ull << 32 | 0x41), 0);
	EXPECT_EQ(x2_get(0, APIC_ICR), 2ull << 32 | 0x41);
	EXPECT_EQ(apic_waits(2), 0x41);
	EXPECT_EQ(x2_set(0, 0x3f0, 0x42), 0);
	EXPECT_EQ(apic_waits(0), 0x42);
	EXPECT_EQ(apic_take(0), 0x42);
	EXPECT_EQ(x2_get(0, APIC_ISR + 0x20), 4);
	EXPECT_EQ(x2_set(0, APIC_EOI, 0), 0);
	EXPECT_EQ(x2_get(0, APIC_ISR + 0x20), 0);
	/* Logical: cluster 0, members 1 and 2. */
	EXPECT_EQ(x2_set(0, APIC_ICR, 6ull << 32 | 0x851), 0);
	EXPECT_EQ(apic_waits(0), -1);
	EXPECT_EQ(apic_waits(1), 0x51);
	EXPECT_EQ(apic_waits(2), 0x51);
	EXPECT_EQ(x2_set(0, APIC_ICR, 0x10001ull << 32 | 0x861), 0);
	EXPECT_EQ(apic_waits(0), -1);
	/* 255 is an id like others, 0xffffffff is everybody. */
	EXPECT_EQ(x2_set(0, APIC_ICR, 0xffull << 32 | 0x71), 0);
	EXPECT_EQ(apic_waits(1), 0x51);
	EXPECT_EQ(x2_set(0, APIC_ICR, 0xffffffffull << 32 | 0x81), 0);
	EXPECT_EQ(apic_waits(0), 0x81);
	EXPECT_EQ(apic_waits(2), 0x81);
	world_fini();
}

/* -- timer ------------------------------------------------------------------ */

TEST(timer_one_shot)
{
	start(1);
	apic_set(0, APIC_LVTT, 0x51);
	apic_set(0, APIC_TDCR, 0xb);	/* by 1: a tick a nanosecond */
	apic_set(0, APIC_TMICT, 1000);
	EXPECT_EQ(apic_get(0, APIC_TMCCT), 1000);
	world_advance(400);
	EXPECT_EQ(apic_get(0, APIC_TMCCT), 600);
	EXPECT_EQ(apic_take(0), -1);
	world_advance(600);
	EXPECT_EQ(apic_take(0), 0x51);
	EXPECT_EQ(apic_get(0, APIC_TMCCT), 0);
	EXPECT_EQ(apic_get(0, APIC_TMICT), 1000);
	eoi(0);
	world_advance(100000);
	EXPECT_EQ(apic_take(0), -1);
	/* Writing 0 stops it. */
	apic_set(0, APIC_TMICT, 1000);
	apic_set(0, APIC_TMICT, 0);
	world_advance(100000);
	EXPECT_EQ(apic_take(0), -1);
	EXPECT_FALSE(world.apic[0].timer.active);
	world_fini();
}

TEST(timer_divider)
{
	static const struct { u32 tdcr, by; } table[] = {
		{ 0, 2 }, { 1, 4 }, { 2, 8 }, { 3, 16 },
		{ 8, 32 }, { 9, 64 }, { 10, 128 }, { 11, 1 },
	};
	unsigned int i;

	start(1);
	apic_set(0, APIC_LVTT, 0x51);
	for (i = 0; i < ARRAY_SIZE(table); i++) {
		apic_set(0, APIC_TDCR, table[i].tdcr);
		apic_set(0, APIC_TMICT, 100);
		world_advance(30 * table[i].by);
		EXPECT_EQ(apic_get(0, APIC_TMCCT), 70);
		world_advance(70 * table[i].by - 1);
		EXPECT_FALSE(apic_irr(0, 0x51));
		world_advance(1);
		EXPECT_EQ(apic_take(0), 0x51);
		eoi(0);
	}
	/* Changed on the way: the count goes on from where it is. */
	apic_set(0, APIC_TDCR, 11);
	apic_set(0, APIC_TMICT, 1000);
	world_advance(500);
	apic_set(0, APIC_TDCR, 0);
	EXPECT_EQ(apic_get(0, APIC_TMCCT), 500);
	world_advance(999);
	EXPECT_FALSE(apic_irr(0, 0x51));
	world_advance(1);
	EXPECT_TRUE(apic_irr(0, 0x51));
	world_fini();
}

/* KVM_CAP_X86_APIC_BUS_CYCLES_NS: the timer's clock is another one. */
TEST(timer_counts_another_clock)
{
	start(1);
	world.chip.timer_ns = 40;
	apic_set(0, APIC_LVTT, 0x51);
	apic_set(0, APIC_TDCR, 1);	/* by 4 */
	apic_set(0, APIC_TMICT, 100);
	world_advance(30 * 160 + 1);
	EXPECT_EQ(apic_get(0, APIC_TMCCT), 69);
	world_advance(70 * 160 - 2);
	EXPECT_FALSE(apic_irr(0, 0x51));
	world_advance(1);
	EXPECT_EQ(apic_take(0), 0x51);
	eoi(0);
	/* The longest there is, from now on. */
	world.chip.timer_ns = INT64_MAX / 256 / U32_MAX;
	apic_set(0, APIC_TDCR, 10);
	apic_set(0, APIC_TMICT, U32_MAX);
	EXPECT_EQ(apic_get(0, APIC_TMCCT), U32_MAX);
	EXPECT_TRUE(world.apic[0].timer.active);
	EXPECT_TRUE(world.apic[0].timer.expires <= INT64_MAX);
	world_fini();
}

TEST(timer_periodic_does_not_drift)
{
	int i;

	start(1);
	apic_set(0, APIC_LVTT, PERIODIC | 0x51);
	apic_set(0, APIC_TDCR, 0xb);
	apic_set(0, APIC_TMICT, 1000);
	for (i = 0; i < 10; i++) {
		world_advance(1000);
		EXPECT_EQ(apic_take(0), 0x51);
		eoi(0);
		EXPECT_EQ(apic_get(0, APIC_TMCCT), 1000);
	}
	world_advance(250);
	EXPECT_EQ(apic_get(0, APIC_TMCCT), 750);
	EXPECT_EQ(world.raises[0], 10);
	/* Masked it counts on without a word. */
	apic_set(0, APIC_LVTT, MASKED | PERIODIC | 0x51);
	world_advance(2000);
	EXPECT_EQ(apic_take(0), -1);
	EXPECT_EQ(apic_get(0, APIC_TMCCT), 750);
	world_fini();
}

TEST(timer_periodic_is_bounded)
{
	start(1);
	world.min_period_ns = 100000;
	apic_set(0, APIC_LVTT, PERIODIC | 0x51);
	apic_set(0, APIC_TDCR, 0xb);
	apic_set(0, APIC_TMICT, 1);
	EXPECT_LE(apic_get(0, APIC_TMCCT), 1);
	world_advance(1000000);
	EXPECT_EQ(world.apic[0].period_ns, 100000);
	/* So is one that becomes periodic while it counts. */
	apic_set(0, APIC_LVTT, 0x51);
	apic_set(0, APIC_TMICT, 100);
	apic_set(0, APIC_LVTT, PERIODIC | 0x51);
	EXPECT_EQ(world.apic[0].period_ns, 100000);
	/* One that has expired does not begin again. */
	apic_set(0, APIC_LVTT, 0x51);
	apic_set(0, APIC_TMICT, 100);
	world_advance(1000);
	apic_set(0, APIC_LVTT, PERIODIC | 0x51);
	EXPECT_EQ(apic_get(0, APIC_TMCCT), 0);
	world_fini();
}

/* In the last tick of the count nothing is left to be read, but it is not over. */
TEST(timer_becomes_periodic_in_its_last_tick)
{
	start(1);
	apic_set(0, APIC_LVTT, 0x51);
	apic_set(0, APIC_TDCR, 0xa);	/* by 128 */
	apic_set(0, APIC_TMICT, 10);
	world_advance(1270);
	EXPECT_EQ(apic_get(0, APIC_TMCCT), 0);
	apic_set(0, APIC_LVTT, PERIODIC | 0x51);
	EXPECT_EQ(apic_take(0), -1);
	world_advance(10);
	EXPECT_EQ(apic_take(0), 0x51);
	eoi(0);
	EXPECT_EQ(apic_get(0, APIC_TMCCT), 10);
	world_advance(1279);
	EXPECT_EQ(apic_take(0), -1);
	world_advance(1);
	EXPECT_EQ(apic_take(0), 0x51);
	EXPECT_EQ(world.raises[0], 2);
	world_fini();
}

TEST(timer_deadline)
{
	struct fonda_lapic *apic = &world.apic[0];

	start(1);
	world.tsc_epoch_ns = unit_now_ns - 5000;
	lapic_set_deadline(apic, 6000);
	EXPECT_EQ(lapic_get_deadline(apic), 0);		/* another mode */
	apic_set(0, APIC_LVTT, DEADLINE | 0x51);
	lapic_set_deadline(apic, 6000);
	EXPECT_EQ(lapic_get_deadline(apic), 6000);
	/* The counter is not in use. */
	apic_set(0, APIC_TMICT, 10);
	EXPECT_EQ(apic_get(0, APIC_TMICT), 0);
	EXPECT_EQ(apic_get(0, APIC_TMCCT), 0);
	world_advance(999);
	EXPECT_EQ(apic_take(0), -1);
	world_advance(1);
	EXPECT_EQ(apic_take(0), 0x51);
	EXPECT_EQ(lapic_get_deadline(apic), 0);
	eoi(0);
	/* Past already: at once. */
	lapic_set_deadline(apic, 10);
	EXPECT_EQ(apic_take(0), 0x51);
	EXPECT_EQ(lapic_get_deadline(apic), 0);
	eoi(0);
	/* Moved, and disarmed. */
	lapic_set_deadline(apic, 8000);
	lapic_set_deadline(apic, 9000);
	world_advance(2500);
	EXPECT_EQ(apic_take(0), -1);
	lapic_set_deadline(apic, 0);
	world_advance(10000);
	EXPECT_EQ(apic_take(0), -1);
	/* Leaving the mode disarms too. */
	lapic_set_deadline(apic, 50000);
	apic_set(0, APIC_LVTT, 0x51);
	EXPECT_EQ(lapic_get_deadline(apic), 0);
	world_advance(100000);
	EXPECT_EQ(apic_take(0), -1);
	world_fini();
}

TEST(a_deadline_that_is_put_off_leaves_the_timer)
{
	struct fonda_lapic *apic = &world.apic[0];

	start(1);
	world.tsc_epoch_ns = unit_now_ns;
	apic_set(0, APIC_LVTT, DEADLINE | 0x51);
	lapic_set_deadline(apic, 1000);
	lapic_set_deadline(apic, 3000);
	EXPECT_EQ(apic->timer.expires, world.tsc_epoch_ns + 1000);
	world_advance(2999);
	EXPECT_EQ(apic_take(0), -1);
	EXPECT_EQ(lapic_get_deadline(apic), 3000);
	world_advance(1);
	EXPECT_EQ(apic_take(0), 0x51);
	eoi(0);
	/* Earlier it has to move; and disarmed it is. */
	lapic_set_deadline(apic, 9000);
	lapic_set_deadline(apic, 5000);
	world_advance(2000);
	EXPECT_EQ(apic_take(0), 0x51);
	eoi(0);
	lapic_set_deadline(apic, 6000);
	lapic_set_deadline(apic, 8000);
	lapic_set_deadline(apic, 0);
	world_advance(10000);
	EXPECT_EQ(apic_take(0), -1);
	world_fini();
}

TEST(a_deadline_follows_the_tsc)
{
	struct fonda_lapic *apic = &world.apic[0];

	start(1);
	world.tsc_epoch_ns = unit_now_ns;
	apic_set(0, APIC_LVTT, DEADLINE | 0x51);
	lapic_set_deadline(apic, 5000);
	/* The guest's TSC goes ahead by 3000, then beyond the deadline. */
	world.tsc_epoch_ns -= 3000;
	lapic_tsc_changed(apic);
	EXPECT_EQ(lapic_get_deadline(apic), 5000);
	world_advance(1999);
	EXPECT_EQ(apic_take(0), -1);
	world_advance(1);
	EXPECT_EQ(apic_take(0), 0x51);
	eoi(0);
	lapic_set_deadline(apic, 100000);
	world.tsc_epoch_ns -= 200000;
	lapic_tsc_changed(apic);
	EXPECT_EQ(apic_take(0), 0x51);
	EXPECT_EQ(lapic_get_deadline(apic), 0);
	world_fini();
}

TEST(timer_deadline_read_as_zero_has_interrupted)
{
	struct fonda_lapic *apic = &world.apic[0];

	start(1);
	world.tsc_epoch_ns = unit_now_ns;
	apic_set(0, APIC_LVTT, DEADLINE | 0x51);
	lapic_set_deadline(apic, 100);
	/* The clock is there, but the timer's interrupt is late. */
	unit_now_ns += 200;
	EXPECT_EQ(lapic_get_deadline(apic), 0);
	EXPECT_TRUE(apic_irr(0, 0x51));
	EXPECT_FALSE(apic->timer.active);
	world_fini();
}

/* -- state of user space ---------------------------------------------------- */

TEST(state_goes_out_and_in)
{
	struct kvm_lapic_state state, again;
	struct fonda_lapic *apic = &world.apic[1];

	start(2);
	apic_set(1, APIC_ID, 0x09000000);
	apic_set(1, APIC_LVTT, PERIODIC | 0x51);
	apic_set(1, APIC_TDCR, 0xb);
	apic_set(1, APIC_TMICT, 1000);
	world_advance(300);
	ipi(1, 0, SELF | 0x61);
	apic_take(1);
	ipi(1, 0, SELF | 0x71);
	lapic_get_state(apic, &state);
	EXPECT_EQ(*(u32 *)(state.regs + APIC_PROCPRI), 0x60);
	EXPECT_EQ(*(u32 *)(state.regs + APIC_TMCCT), 700);
	world_fini();

	start(2);
	EXPECT_EQ(lapic_set_state(apic, &state), 0);
	lapic_get_state(apic, &again);
	EXPECT_MEMEQ(&again, &state, sizeof(state));
	EXPECT_EQ(world.rechecks[1], 1);
	EXPECT_EQ(apic_take(1), 0x71);
	eoi(1);
	eoi(1);
	EXPECT_EQ(apic_get(1, APIC_PROCPRI), 0);
	/* The timer goes on where it was. */
	world_advance(699);
	EXPECT_FALSE(apic_irr(1, 0x51));
	world_advance(1);
	EXPECT_EQ(apic_take(1), 0x51);
	eoi(1);
	world_advance(1000);
	EXPECT_EQ(apic_take(1), 0x51);
	/* And the id is known. */
	ipi(0, 9, 0x400);
	EXPECT_EQ(world.nmis[1], 1);

	memset(&state, 0xff, sizeof(state));
	EXPECT_EQ(lapic_set_state(apic, &state), 0);
	EXPECT_EQ(apic->isr_top, 255);
	EXPECT_EQ(apic_waits(1), 255);
	EXPECT_EQ(apic_get(1, APIC_LVR), 0x00050014);
	world_fini();
}

TEST(state_of_an_expired_one_shot_stays_expired)
{
	struct kvm_lapic_state state;

	start(1);
	apic_set(0, APIC_LVTT, 0x51);
	apic_set(0, APIC_TMICT, 1000);
	world_advance(100000);
	apic_take(0);
	eoi(0);
	lapic_get_state(&world.apic[0], &state);
	EXPECT_EQ(lapic_set_state(&world.apic[0], &state), 0);
	EXPECT_FALSE(world.apic[0].timer.active);
	world_fini();
}

TEST(state_keeps_the_deadline)
{
	struct kvm_lapic_state state;
	struct fonda_lapic *apic = &world.apic[0];

	start(1);
	world.tsc_epoch_ns = unit_now_ns;
	apic_set(0, APIC_LVTT, DEADLINE | 0x51);
	lapic_set_deadline(apic, 5000);
	lapic_get_state(apic, &state);
	EXPECT_EQ(lapic_set_state(apic, &state), 0);
	EXPECT_EQ(lapic_get_deadline(apic), 5000);
	world_advance(5000);
	EXPECT_EQ(apic_take(0), 0x51);
	world_fini();
}

TEST(state_of_x2apic_ids)
{
	struct kvm_lapic_state state;
	struct fonda_lapic *apic = &world.apic[2];

	start_x2(3);
	lapic_get_state(apic, &state);
	EXPECT_EQ(*(u32 *)(state.regs + APIC_ID), 0x02000000);
	EXPECT_EQ(lapic_set_state(apic, &state), 0);
	EXPECT_EQ(x2_get(2, APIC_ID), 2);
	EXPECT_EQ(x2_get(2, APIC_LDR), 4);
	/* The other format, which user space asks for. */
	world.chip.x2apic_format = true;
	lapic_get_state(apic, &state);
	EXPECT_EQ(*(u32 *)(state.regs + APIC_ID), 2);
	EXPECT_EQ(lapic_set_state(apic, &state), 0);
	*(u32 *)(state.regs + APIC_ID) = 3;
	EXPECT_EQ(lapic_set_state(apic, &state), -EINVAL);
	EXPECT_EQ(x2_get(2, APIC_ID), 2);
	/* The command of x2APIC is in two registers there. */
	x2_set(2, APIC_ICR, 0x12345678ull << 32 | 0x41);
	lapic_get_state(apic, &state);
	EXPECT_EQ(*(u32 *)(state.regs + APIC_ICR), 0x41);
	EXPECT_EQ(*(u32 *)(state.regs + APIC_ICR2), 0x12345678);
	world_fini();
}
