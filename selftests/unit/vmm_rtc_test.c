// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The clock chip and the power-management ports, as drivers use them.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tap.h"
#include "dev/pm.h"
#include "dev/rtc.h"
#include "util/util.h"
#include "vmm_fake.h"

enum { A = 10, B = 11, C = 12, D = 13 };

#define B_24H		0x02
#define B_BINARY	0x04
#define B_UIE		0x10
#define B_AIE		0x20
#define B_PIE		0x40
#define B_SET		0x80

static struct loop loop;
static struct bus bus;
static struct kvm kvm = { .vm_fd = -1 };
static struct rtc rtc;
static struct pm pm;

static void start(void)
{
	ASSERT_EQ(loop_init(&loop), 0);
	bus_init(&bus);
	ASSERT_EQ(rtc_init(&rtc, &bus, &kvm, &loop, 3 * GIB, 2 * GIB), 0);
	ASSERT_EQ(pm_init(&pm, &bus, &loop), 0);
}

static uint32_t in(unsigned int port, unsigned int len)
{
	uint32_t value = 0;

	bus_access(&bus.pio, port, &value, len, false);
	return value;
}

static void out(unsigned int port, unsigned int len, uint32_t value)
{
	bus_access(&bus.pio, port, &value, len, true);
}

static uint8_t rd(uint8_t index)
{
	out(RTC_PORT, 1, index);
	return (uint8_t)in(RTC_PORT + 1, 1);
}

static void wr(uint8_t index, uint8_t value)
{
	out(RTC_PORT, 1, index);
	out(RTC_PORT + 1, 1, value);
}

static bool irq(void)
{
	return fake.level[RTC_IRQ];
}

static unsigned int bcd(uint8_t value)
{
	return (value >> 4) * 10u + (value & 0xf);
}

/* The date in the registers, binary or BCD as register B says, as UTC. */
static time_t read_clock(void)
{
	bool binary = rd(B) & B_BINARY;
	struct tm tm = { 0 };

#define GET(_i)	(int)(binary ? rd(_i) : bcd(rd(_i)))
	while (rd(A) & 0x80)
		;
	tm.tm_sec = GET(0);
	tm.tm_min = GET(2);
	tm.tm_hour = GET(4);
	tm.tm_mday = GET(7);
	tm.tm_mon = GET(8) - 1;
	tm.tm_year = GET(9) + GET(RTC_CENTURY) * 100 - 1900;
#undef GET
	return timegm(&tm);
}

TEST(clock_shows_the_hosts_time)
{
	start();
	EXPECT_LE(llabs((long long)(read_clock() - time(NULL))), 2);
	wr(B, B_24H | B_BINARY);
	EXPECT_LE(llabs((long long)(read_clock() - time(NULL))), 2);
	EXPECT_EQ(rd(D), 0x80);
}

TEST(clock_that_is_set_goes_on_from_there)
{
	static const uint8_t when[][2] = {
		{ 0, 0x50 }, { 2, 0x59 }, { 4, 0x23 }, { 7, 0x28 }, { 8, 0x02 }, { 9, 0x24 },
		{ RTC_CENTURY, 0x20 },
	};
	const time_t then = 1709164790;		/* 2024-02-28 23:59:50 UTC */
	size_t i;

	start();
	wr(B, B_24H | B_SET);
	for (i = 0; i < ARRAY_SIZE(when); i++)
		wr(when[i][0], when[i][1]);
	EXPECT_EQ(rd(0), 0x50);
	EXPECT_FALSE(rd(A) & 0x80);
	wr(B, B_24H);
	EXPECT_LE(llabs((long long)(read_clock() - then)), 2);
	rtc.offset_s += 10;			/* ten seconds later: a leap day */
	EXPECT_EQ(rd(7), 0x29);
	EXPECT_EQ(rd(8), 0x02);
	EXPECT_EQ(rd(4), 0x00);
}

TEST(twelve_hour_mode_has_its_afternoon_bit)
{
	start();
	wr(B, B_SET);
	wr(4, 0x92);				/* 12 pm */
	wr(B, 0);
	EXPECT_EQ(rd(4), 0x92);
	wr(B, B_24H);
	EXPECT_EQ(rd(4), 0x12);
	wr(4, 0x00);
	wr(B, 0);
	EXPECT_EQ(rd(4), 0x12);			/* 12 am */
	wr(B, B_BINARY);
	wr(4, 0x81);				/* 1 pm */
	wr(B, B_BINARY | B_24H);
	EXPECT_EQ(rd(4), 13);
}

TEST(nonsense_in_the_registers_does_no_harm)
{
	unsigned int i;

	start();
	for (i = 0; i < 256; i++) {
		wr(B, B_24H | B_SET);
		wr(7, (uint8_t)i);
		wr(8, (uint8_t)(i * 7));
		wr(RTC_CENTURY, (uint8_t)i);
		wr(4, (uint8_t)~i);
		wr(B, i & 1 ? B_24H : 0);
		rd(0);
		rd(4);
	}
	tap_checked();
}

TEST(update_interrupt_comes_each_second)
{
	uint64_t before;

	start();
	wr(B, B_24H | B_UIE);
	before = now_ns();
	while (!irq() && now_ns() - before < 3 * NSEC_PER_SEC)
		loop_poll(&loop, 2000);
	EXPECT_TRUE(irq());
	EXPECT_EQ(rd(C), 0x90);
	EXPECT_FALSE(irq());
	EXPECT_EQ(rd(C), 0);
}

TEST(alarm_rings_at_its_second_only)
{
	uint64_t before;
	uint8_t second;

	start();
	while (rd(0) > 0x56)			/* stay within a minute */
		rtc.offset_s += 5;
	second = rd(0);
	second = (uint8_t)((second & 0xf) >= 8 ? (second & 0xf0) + 0x11 : second + 2);
	wr(1, second);
	wr(3, 0xff);				/* any minute, any hour */
	wr(5, 0xc0);
	wr(B, B_24H | B_AIE);
	before = now_ns();
	while (!irq() && now_ns() - before < 5 * NSEC_PER_SEC)
		loop_poll(&loop, 2000);
	EXPECT_TRUE(irq());
	EXPECT_TRUE(rd(C) & 0x20);
	EXPECT_EQ(rd(0), second);
}

TEST(periodic_interrupt_has_its_rate)
{
	unsigned int n = 0;
	uint64_t before;

	start();
	wr(A, 0x2d);				/* 8 Hz */
	wr(B, B_24H | B_PIE);
	before = now_ns();
	while (n < 4) {
		if (loop_poll(&loop, 2000) <= 0)
			FAIL("no interrupt");
		EXPECT_TRUE(irq());
		EXPECT_EQ(rd(C), 0xc0);
		n++;
	}
	EXPECT_GE(now_ns() - before, 4 * NSEC_PER_SEC / 8 - NSEC_PER_SEC / 100);
	wr(B, B_24H);
	EXPECT_EQ(loop_poll(&loop, 300), 0);
}

TEST(cmos_tells_the_memory_and_keeps_bytes)
{
	start();
	EXPECT_EQ(rd(0x15) | rd(0x16) << 8, 640);
	EXPECT_EQ(rd(0x34) | rd(0x35) << 8, (3 * GIB - 16 * MIB) / (64 * KIB));
	EXPECT_EQ(rd(0x5b) | rd(0x5c) << 8 | rd(0x5d) << 16, 2 * GIB / (64 * KIB));
	wr(0x60, 0xa7);
	EXPECT_EQ(rd(0x60), 0xa7);
	EXPECT_EQ(rd(0x60 | 0x80), 0xa7);	/* bit 7 masks NMIs */
}

TEST(pm_timer_runs_at_its_frequency)
{
	uint32_t first, second;
	uint64_t before;

	start();
	first = in(PM_TIMER_PORT, 4);
	before = now_ns();
	while (now_ns() - before < NSEC_PER_SEC / 10)
		;
	second = in(PM_TIMER_PORT, 4);
	EXPECT_GE(second - first + 1, PM_TIMER_HZ / 10);
	EXPECT_LT(second - first, PM_TIMER_HZ * 5);
	EXPECT_EQ(in(PM1_CONTROL_PORT, 2) & 1, 1);
}

TEST(soft_off_and_resets_stop_the_machine)
{
	static const struct { unsigned int port, len; uint32_t value; int reason; } ways[] = {
		{ PM1_CONTROL_PORT, 2, 5 << 10 | 1 << 13, STOP_POWEROFF },
		{ RESET_PORT, 1, 0x06, STOP_RESET },
		{ RESET_PORT, 1, 0x0e, STOP_RESET },
		{ 0x64, 1, 0xfe, STOP_RESET },
	}, others[] = {
		{ PM1_CONTROL_PORT, 2, 5 << 10, 0 },		/* not yet */
		{ PM1_CONTROL_PORT, 2, 1 << 13, 0 },		/* another state */
		{ PM1_EVENT_PORT, 4, 0xffffffff, 0 },
		{ RESET_PORT, 1, 0x02, 0 },
		{ 0x64, 1, 0xff, 0 },
		{ 0x64, 1, 0xd1, 0 },
	};
	size_t i;

	start();
	for (i = 0; i < ARRAY_SIZE(others); i++) {
		out(others[i].port, others[i].len, others[i].value);
		EXPECT_FALSE(loop_stopped(&loop));
	}
	EXPECT_EQ(in(PM1_EVENT_PORT + 2, 2), 0xffff);
	for (i = 0; i < ARRAY_SIZE(ways); i++) {
		out(ways[i].port, ways[i].len, ways[i].value);
		EXPECT_EQ(loop_run(&loop), ways[i].reason);
		loop_rearm(&loop);
	}
}
