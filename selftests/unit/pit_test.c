// SPDX-License-Identifier: GPL-2.0-or-later
/* The 8254, by Intel's data sheet, and its ticks on GSI 0. */
#include <string.h>

#include "irq_world.h"
#include "tap.h"

/* About one clock of the 8254, and the time of @n of them, rounded up. */
#define CLOCKS(n)	(((n) * 1000000000ull + 1193181) / 1193182)

static void out(u16 port, u8 val)
{
	pit_write(&world.chip.pit, port, val);
}

static u8 in(u16 port)
{
	return pit_read(&world.chip.pit, port);
}

static u16 in_word(u16 port)
{
	u8 low = in(port);

	return low | in(port) << 8;
}

static void program(int channel, int mode, u16 count)
{
	/* Channel 2 counts while its gate is high. */
	if (channel == 2)
		out(0x61, 1);
	out(0x43, channel << 6 | 3 << 4 | mode << 1);
	out(0x40 + channel, count);
	out(0x40 + channel, count >> 8);
}

static u16 read_latched(int channel)
{
	out(0x43, channel << 6);
	return in_word(0x40 + channel);
}

static u8 status(int channel)
{
	out(0x43, 0xe0 | 1 << (channel + 1));
	return in(0x40 + channel);
}

/* IRQ 0 through the PIC, on vector 8; the IOAPIC's pin stays masked. */
static void start(void)
{
	world_init(1);
	pic_write(&world.chip.pic, 0x20, 0x11);
	pic_write(&world.chip.pic, 0x21, 0x08);
	pic_write(&world.chip.pic, 0x21, 0x04);
	pic_write(&world.chip.pic, 0x21, 0x01);
	pic_take_acked(&world.chip.pic);
}

/* As a guest does: INTA and EOI. True if there was an interrupt. */
static bool serve(void)
{
	if (!world.chip.pic.output)
		return false;
	EXPECT_EQ(pic_peek(&world.chip.pic), 8);
	pic_settle(&world.chip.pic, 8, true);
	pic_write(&world.chip.pic, 0x20, 0x20);
	if (pic_take_acked(&world.chip.pic) & 1)
		pit_acked(&world.chip.pit);
	return true;
}

TEST(nothing_runs_after_power_up)
{
	start();
	world_advance(1000000000);
	EXPECT_FALSE(serve());
	EXPECT_EQ(world.chip.pit.state.channels[0].mode, 0xff);
	EXPECT_FALSE(world.chip.pit.timer.active);
	world_fini();
}

TEST(mode_0_counts_down_once)
{
	start();
	program(2, 0, 1000);
	EXPECT_EQ(status(2), 0x30);
	EXPECT_EQ(read_latched(2), 1000);
	world_advance(CLOCKS(400));
	EXPECT_EQ(read_latched(2), 600);
	world_advance(CLOCKS(600));
	EXPECT_EQ(status(2), 0xb0);
	/* It goes on through 0. */
	world_advance(CLOCKS(10));
	EXPECT_GT(read_latched(2), 0xff00);
	world_fini();
}

TEST(mode_2_output_is_low_for_a_clock)
{
	start();
	program(2, 2, 100);
	EXPECT_EQ(status(2), 0xb4);
	world_advance(CLOCKS(99));
	EXPECT_EQ(read_latched(2), 1);
	EXPECT_EQ(status(2), 0x34);
	world_advance(CLOCKS(1));
	EXPECT_EQ(read_latched(2), 100);
	EXPECT_EQ(status(2), 0xb4);
	world_fini();
}

TEST(mode_3_is_a_square_wave)
{
	start();
	program(2, 3, 1000);
	EXPECT_EQ(status(2), 0xb6);
	world_advance(CLOCKS(100));
	EXPECT_EQ(read_latched(2), 800);
	world_advance(CLOCKS(400));
	EXPECT_EQ(status(2), 0x36);
	EXPECT_EQ(read_latched(2), 1000);
	world_advance(CLOCKS(500));
	EXPECT_EQ(status(2), 0xb6);
	/* 6 and 7 are 2 and 3. */
	program(2, 7, 1000);
	EXPECT_EQ(status(2) & 0x3f, 0x36);
	program(2, 6, 1000);
	EXPECT_EQ(status(2) & 0x3f, 0x34);
	world_fini();
}

TEST(mode_4_strobes)
{
	start();
	program(2, 4, 100);
	EXPECT_EQ(status(2), 0xb8);
	world_advance(CLOCKS(100));
	EXPECT_EQ(status(2), 0x38);
	world_advance(CLOCKS(1));
	EXPECT_EQ(status(2), 0xb8);
	world_fini();
}

TEST(one_byte_counts)
{
	start();
	out(0x61, 1);
	out(0x43, 2 << 6 | 1 << 4 | 0 << 1);
	out(0x42, 0x80);
	EXPECT_EQ(in(0x42), 0x80);
	EXPECT_EQ(in(0x42), 0x80);
	out(0x43, 2 << 6 | 2 << 4 | 0 << 1);
	out(0x42, 0x12);
	EXPECT_EQ(in(0x42), 0x12);
	out(0x43, 2 << 6);
	world_advance(CLOCKS(0x400));
	EXPECT_EQ(in(0x42), 0x12);
	EXPECT_EQ(in(0x42), 0x0e);
	world_fini();
}

TEST(latches_hold)
{
	start();
	program(2, 0, 5000);
	out(0x43, 0x80);
	world_advance(CLOCKS(100));
	/* A second latch command before the read is ignored. */
	out(0x43, 0x80);
	EXPECT_EQ(in_word(0x42), 5000);
	EXPECT_EQ(in_word(0x42), 4900);
	/* Read back: status first, then the count of the same moment. */
	out(0x43, 0xc8);
	world_advance(CLOCKS(100));
	EXPECT_EQ(in(0x42), 0x30);
	EXPECT_EQ(in_word(0x42), 4900);
	/* A new control word drops them. */
	out(0x43, 0xc8);
	out(0x43, 0x80 | 0x30);
	out(0x42, 0x34);
	out(0x42, 0x12);
	EXPECT_EQ(in_word(0x42), 0x1234);
	EXPECT_EQ(in(0x43), 0);
	world_fini();
}

TEST(bcd)
{
	start();
	out(0x61, 1);
	out(0x43, 2 << 6 | 3 << 4 | 1);
	out(0x42, 0x00);
	out(0x42, 0x10);
	EXPECT_EQ(in_word(0x42), 0x1000);
	world_advance(CLOCKS(1));
	EXPECT_EQ(in_word(0x42), 0x0999);
	EXPECT_EQ(status(2), 0x31);
	/* 0 is 10000. */
	out(0x42, 0);
	out(0x42, 0);
	EXPECT_EQ(in_word(0x42), 0);
	world_advance(CLOCKS(1));
	EXPECT_EQ(in_word(0x42), 0x9999);
	/* So it reads at the start of each period. */
	out(0x43, 2 << 6 | 3 << 4 | 2 << 1 | 1);
	out(0x42, 0);
	out(0x42, 0);
	EXPECT_EQ(in_word(0x42), 0);
	world_fini();
}

TEST(port_61)
{
	start();
	program(2, 0, 1000);
	out(0x61, 0xff);
	EXPECT_EQ(in(0x61) & 0xef, 0x03);
	EXPECT_EQ(world.chip.pit.state.flags, KVM_PIT_FLAGS_SPEAKER_DATA_ON);
	world_advance(CLOCKS(1000));
	EXPECT_EQ(in(0x61) & 0x20, 0x20);
	/* A rising gate restarts mode 1, and not mode 0. */
	out(0x61, 0);
	EXPECT_EQ(in(0x61) & 0x03, 0);
	out(0x61, 1);
	EXPECT_EQ(in(0x61) & 0x20, 0x20);
	program(2, 1, 1000);
	world_advance(CLOCKS(1000));
	EXPECT_EQ(in(0x61) & 0x20, 0x20);
	out(0x61, 0);
	out(0x61, 1);
	EXPECT_EQ(in(0x61) & 0x20, 0);
	/* Refresh toggles by itself. */
	unit_now_ns = 0;
	EXPECT_EQ(in(0x61) & 0x10, 0);
	unit_now_ns = 1 << 14;
	EXPECT_EQ(in(0x61) & 0x10, 0x10);
	world_fini();
}

TEST(a_low_gate_stops_counting)
{
	start();
	program(2, 0, 1000);
	world_advance(CLOCKS(100));
	out(0x61, 0);
	world_advance(CLOCKS(5000));
	EXPECT_EQ(read_latched(2), 900);
	EXPECT_EQ(in(0x61) & 0x20, 0);
	/* On from there. */
	out(0x61, 1);
	world_advance(CLOCKS(100));
	EXPECT_EQ(read_latched(2), 800);
	/* Loaded while it stands still: from the start. */
	out(0x61, 0);
	out(0x43, 2 << 6 | 3 << 4);
	out(0x42, 0x00);
	out(0x42, 0x20);
	world_advance(CLOCKS(100));
	EXPECT_EQ(read_latched(2), 0x2000);
	/* Modes 2 and 3 keep the output high meanwhile, and begin anew. */
	program(2, 3, 1000);
	world_advance(CLOCKS(600));
	EXPECT_EQ(in(0x61) & 0x20, 0);
	out(0x61, 0);
	EXPECT_EQ(in(0x61) & 0x20, 0x20);
	out(0x61, 1);
	EXPECT_EQ(read_latched(2), 1000);
	world_fini();
}

TEST(periodic_ticks)
{
	int i, ticks = 0;

	start();
	program(0, 2, 11932);	/* 10 ms */
	for (i = 0; i < 1000; i++) {
		world_advance(1000000);
		ticks += serve();
	}
	EXPECT_EQ(ticks, 99);
	/* Another mode, another period: from now on. */
	program(0, 3, 0);
	world_advance(CLOCKS(0x10000) - 1000);
	EXPECT_FALSE(serve());
	world_advance(2000);
	EXPECT_TRUE(serve());
	world_fini();
}

TEST(one_shot_ticks_once)
{
	start();
	program(0, 0, 1000);
	world_advance(1000000000);
	EXPECT_TRUE(serve());
	EXPECT_FALSE(serve());
	program(0, 4, 1000);
	world_advance(1000000000);
	EXPECT_TRUE(serve());
	world_advance(1000000000);
	EXPECT_FALSE(serve());
	/* 1 and 5 wait for a gate that never rises. */
	program(0, 1, 1000);
	world_advance(1000000000);
	EXPECT_FALSE(serve());
	world_fini();
}

TEST(a_short_period_is_stretched)
{
	start();
	world.min_period_ns = 100000;
	program(0, 2, 1);
	EXPECT_EQ(world.chip.pit.period_ns, 100000);
	world_fini();
}

TEST(late_ticks_wait_for_their_turn)
{
	int i;

	start();
	program(0, 2, 11932);
	world_advance(55000000);
	/* Five periods have passed; the guest gets every one of them. */
	EXPECT_EQ(world.chip.pit.pending, 4);
	for (i = 0; i < 5; i++)
		EXPECT_TRUE(serve());
	EXPECT_FALSE(serve());
	world_advance(10000000);
	EXPECT_TRUE(serve());
	/* A new count forgets what was late. */
	world_advance(55000000);
	program(0, 2, 11932);
	EXPECT_EQ(world.chip.pit.pending, 0);
	world_fini();
}

TEST(without_reinjection_late_ticks_are_lost)
{
	start();
	world.chip.pit.reinject = false;
	program(0, 2, 11932);
	world_advance(55000000);
	EXPECT_TRUE(serve());
	EXPECT_FALSE(serve());
	world_fini();
}

TEST(a_masked_tick_is_not_waited_for)
{
	start();
	pic_write(&world.chip.pic, 0x21, 0x01);
	program(0, 2, 11932);
	world_advance(55000000);
	EXPECT_EQ(world.chip.pit.pending, 0);
	EXPECT_FALSE(world.chip.pit.in_flight);
	pic_write(&world.chip.pic, 0x21, 0x00);
	/* One edge waited behind the mask. */
	EXPECT_TRUE(serve());
	EXPECT_FALSE(serve());
	world_advance(10000000);
	EXPECT_TRUE(serve());
	world_fini();
}

TEST(a_tick_that_merges_is_in_flight)
{
	start();
	/* Somebody else's edge waits on line 0. */
	pic_set_line(&world.chip.pic, 0, true);
	pic_set_line(&world.chip.pic, 0, false);
	program(0, 2, 11932);
	world_advance(25000000);
	EXPECT_EQ(world.chip.pit.pending, 1);
	EXPECT_TRUE(serve());
	EXPECT_TRUE(serve());
	EXPECT_FALSE(serve());
	world_fini();
}

TEST(unmasking_the_ioapic_pin_starts_afresh)
{
	start();
	apic_enable(0);
	/* The PIC took a tick, but nobody listens to the PIC. */
	program(0, 2, 11932);
	world_advance(55000000);
	EXPECT_TRUE(world.chip.pit.in_flight);
	EXPECT_EQ(world.chip.pit.pending, 4);
	pic_write(&world.chip.pic, 0x21, 0xff);
	ioapic_write(&world.chip, 0, 0x10);
	ioapic_write(&world.chip, 0x10, 0x30);
	EXPECT_EQ(world.chip.pit.pending, 0);
	world_advance(10000000);
	EXPECT_EQ(apic_take(0), 0x30);
	world_fini();
}

TEST(pending_ticks_are_bounded)
{
	start();
	program(0, 2, 1193);
	world_advance(60000000000);
	EXPECT_EQ(world.chip.pit.pending, 10000);
	world_fini();
}

TEST(state_goes_out_and_in)
{
	struct kvm_pit_state2 state, again;

	start();
	program(0, 2, 11932);
	program(2, 3, 1234);
	out(0x42, 0x55);
	state = world.chip.pit.state;
	EXPECT_EQ(state.channels[0].count, 11932);
	EXPECT_EQ(state.channels[0].mode, 2);
	EXPECT_EQ(state.channels[0].rw_mode, 3);
	pit_init(&world.chip.pit);
	pit_set_state(&world.chip.pit, &state);
	again = world.chip.pit.state;
	EXPECT_MEMEQ(&again, &state, sizeof(state));
	world_advance(11000000);
	EXPECT_TRUE(serve());
	/* The byte that was half a count is still there. */
	out(0x42, 0x01);
	EXPECT_EQ(read_latched(2), 0x155);

	/* The HPET has taken over: channel 0 is silent. */
	state = world.chip.pit.state;
	state.flags |= KVM_PIT_FLAGS_HPET_LEGACY;
	pit_set_state(&world.chip.pit, &state);
	world_advance(1000000000);
	EXPECT_FALSE(serve());
	state.flags = 0;
	pit_set_state(&world.chip.pit, &state);
	world_advance(11000000);
	EXPECT_TRUE(serve());

	/* Whatever comes in, nothing divides by it. */
	memset(&state, 0xff, sizeof(state));
	pit_set_state(&world.chip.pit, &state);
	in(0x40);
	in(0x42);
	in(0x61);
	memset(&state, 0, sizeof(state));
	pit_set_state(&world.chip.pit, &state);
	status(0);
	read_latched(1);
	EXPECT_EQ(world.chip.pit.state.channels[0].count, 0x10000);
	world_fini();
}
