// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * MC146818 registers and interrupts as in its data sheet. The guest's clock is
 * the host's in UTC plus an offset that the guest sets; nothing runs unless an
 * interrupt is wanted.
 */
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

#include "../util/util.h"
#include "rtc.h"

enum {
	RTC_SECONDS = 0,	RTC_SECONDS_ALARM = 1,
	RTC_MINUTES = 2,	RTC_MINUTES_ALARM = 3,
	RTC_HOURS = 4,		RTC_HOURS_ALARM = 5,
	RTC_WEEKDAY = 6,
	RTC_DAY = 7,
	RTC_MONTH = 8,
	RTC_YEAR = 9,
	RTC_A = 10,		/* divider, rate, update in progress */
	RTC_B = 11,		/* control */
	RTC_C = 12,		/* interrupt flags, cleared by a read */
	RTC_D = 13,		/* the battery is good */
};

#define A_UIP		BIT(7)
#define A_DIVIDER_32K	0x20
#define A_RATE		0x0f
#define A_RATE_1024_HZ	0x06
#define B_SET		BIT(7)
#define B_PIE		BIT(6)
#define B_AIE		BIT(5)
#define B_UIE		BIT(4)
#define B_BINARY	BIT(2)
#define B_24H		BIT(1)
#define C_IRQF		BIT(7)
#define C_PF		BIT(6)
#define C_AF		BIT(5)
#define C_UF		BIT(4)
#define D_VRT		BIT(7)

/* The date is invalid for this long before each second: time to read it. */
#define UPDATE_NS	244000

#define ALARM_ANY	0xc0	/* both top bits set: matches every value */
#define PERIODIC_BASE	32768

/* Days since 1970-01-01 of a date in the Gregorian calendar, month from 1. */
static int64_t days_from_date(int64_t year, int month, int day)
{
	int64_t era, yoe, doy;

	/* Years start in March here, so that the leap day is the last one. */
	if (month <= 2)
		year--;
	era = (year >= 0 ? year : year - 399) / 400;
	yoe = year - era * 400;
	doy = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
	return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

static uint8_t encode(const struct rtc *rtc, int value)
{
	if (rtc->cmos[RTC_B] & B_BINARY)
		return (uint8_t)value;
	return (uint8_t)(value / 10 << 4 | value % 10);
}

static int decode(const struct rtc *rtc, uint8_t value)
{
	if (rtc->cmos[RTC_B] & B_BINARY)
		return value;
	return (value >> 4) * 10 + (value & 0x0f);
}

static uint8_t encode_hour(const struct rtc *rtc, int hour)
{
	if (rtc->cmos[RTC_B] & B_24H)
		return encode(rtc, hour);
	return encode(rtc, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? 0x80 : 0);
}

static int decode_hour(const struct rtc *rtc, uint8_t value)
{
	if (rtc->cmos[RTC_B] & B_24H)
		return decode(rtc, value);
	return decode(rtc, value & 0x7f) % 12 + (value & 0x80 ? 12 : 0);
}

static struct timespec guest_time(const struct rtc *rtc)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	ts.tv_sec += rtc->offset_s;
	return ts;
}

/* Fills the time registers from the clock. */
static void latch(struct rtc *rtc)
{
	time_t now = guest_time(rtc).tv_sec;
	struct tm tm;
	int year;

	if (!gmtime_r(&now, &tm))
		return;
	/* A guest can set nonsense, which may lie before year 0. */
	year = (tm.tm_year % 10000 + 11900) % 10000;
	rtc->cmos[RTC_SECONDS] = encode(rtc, tm.tm_sec);
	rtc->cmos[RTC_MINUTES] = encode(rtc, tm.tm_min);
	rtc->cmos[RTC_HOURS] = encode_hour(rtc, tm.tm_hour);
	rtc->cmos[RTC_WEEKDAY] = encode(rtc, tm.tm_wday + 1);
	rtc->cmos[RTC_DAY] = encode(rtc, tm.tm_mday);
	rtc->cmos[RTC_MONTH] = encode(rtc, tm.tm_mon + 1);
	rtc->cmos[RTC_YEAR] = encode(rtc, year % 100);
	rtc->cmos[RTC_CENTURY] = encode(rtc, year / 100);
}

/* Sets the clock from the time registers, whatever nonsense they hold. */
static void set_clock(struct rtc *rtc)
{
	const uint8_t *c = rtc->cmos;
	struct timespec now;
	int64_t t;

	clock_gettime(CLOCK_REALTIME, &now);
	t = days_from_date(decode(rtc, c[RTC_CENTURY]) * 100 + decode(rtc, c[RTC_YEAR]),
			   decode(rtc, c[RTC_MONTH]), decode(rtc, c[RTC_DAY]));
	t = t * 24 + decode_hour(rtc, c[RTC_HOURS]);
	t = t * 60 + decode(rtc, c[RTC_MINUTES]);
	t = t * 60 + decode(rtc, c[RTC_SECONDS]);
	rtc->offset_s = t - now.tv_sec;
}

static bool halted(const struct rtc *rtc)
{
	return rtc->cmos[RTC_B] & B_SET;
}

static void update_irq(struct rtc *rtc)
{
	uint8_t *flags = &rtc->cmos[RTC_C];
	uint8_t level;

	/* Flags and enables are at the same bits of their registers. */
	level = (*flags & rtc->cmos[RTC_B] & (C_PF | C_AF | C_UF)) != 0;
	*flags = (uint8_t)((*flags & ~C_IRQF) | (level ? C_IRQF : 0));
	if (level == rtc->irq_level)
		return;
	rtc->irq_level = level;
	kvm_set_irq(rtc->kvm, RTC_IRQ, level);
}

/* Starts or stops the two timers after a change of what is wanted. */
static void update_timers(struct rtc *rtc)
{
	uint8_t control = rtc->cmos[RTC_B];
	uint8_t rate = rtc->cmos[RTC_A] & A_RATE;
	uint64_t period = 0, first = 0;

	if ((control & (B_AIE | B_UIE)) && !halted(rtc))
		first = NSEC_PER_SEC - (uint64_t)guest_time(rtc).tv_nsec;
	event_set_timer(&rtc->second, first, first ? NSEC_PER_SEC : 0);

	/* Data sheet, "Periodic Interrupt Rate": 1 and 2 repeat 8 and 9. */
	if ((control & B_PIE) && rate) {
		if (rate < 3)
			rate += 7;
		period = NSEC_PER_SEC * (1ULL << (rate - 1)) / PERIODIC_BASE;
	}
	event_set_timer(&rtc->periodic, period, period);
}

static bool alarm_matches(const struct rtc *rtc, uint8_t alarm, uint8_t now)
{
	uint8_t want = rtc->cmos[alarm];

	return (want & ALARM_ANY) == ALARM_ANY || want == rtc->cmos[now];
}

static void second_passed(struct event *ev)
{
	struct rtc *rtc = container_of(ev, struct rtc, second);

	event_drain(ev);
	if (halted(rtc))
		return;
	latch(rtc);
	rtc->cmos[RTC_C] |= C_UF;
	if (alarm_matches(rtc, RTC_SECONDS_ALARM, RTC_SECONDS) &&
	    alarm_matches(rtc, RTC_MINUTES_ALARM, RTC_MINUTES) &&
	    alarm_matches(rtc, RTC_HOURS_ALARM, RTC_HOURS))
		rtc->cmos[RTC_C] |= C_AF;
	update_irq(rtc);
}

static void period_passed(struct event *ev)
{
	struct rtc *rtc = container_of(ev, struct rtc, periodic);

	event_drain(ev);
	rtc->cmos[RTC_C] |= C_PF;
	update_irq(rtc);
}

static bool is_time(uint8_t index)
{
	switch (index) {
	case RTC_SECONDS:
	case RTC_MINUTES:
	case RTC_HOURS:
	case RTC_WEEKDAY:
	case RTC_DAY:
	case RTC_MONTH:
	case RTC_YEAR:
	case RTC_CENTURY:
		return true;
	}
	return false;
}

static uint64_t rtc_read(struct bus_region *r, uint64_t offset, unsigned int len)
{
	struct rtc *rtc = container_of(r, struct rtc, ports);
	uint8_t value;

	(void)len;
	if (offset == 0)
		return 0xff;		/* the index cannot be read back */
	if (is_time(rtc->index) && !halted(rtc))
		latch(rtc);
	value = rtc->cmos[rtc->index];
	if (rtc->index == RTC_A && !halted(rtc) &&
	    guest_time(rtc).tv_nsec >= (long)NSEC_PER_SEC - UPDATE_NS)
		value |= A_UIP;
	if (rtc->index == RTC_C) {
		rtc->cmos[RTC_C] = 0;
		update_irq(rtc);
	}
	return value;
}

static void write_cmos(struct rtc *rtc, uint8_t index, uint8_t value)
{
	bool was_halted = halted(rtc);

	switch (index) {
	case RTC_A:
		rtc->cmos[index] = value & (uint8_t)~A_UIP;
		update_timers(rtc);
		return;
	case RTC_B:
		/* SET freezes the registers; its end starts the clock there. */
		if (!was_halted && (value & B_SET))
			latch(rtc);
		if (was_halted && !(value & B_SET))
			set_clock(rtc);
		if (value & B_SET)
			value &= (uint8_t)~B_UIE;
		rtc->cmos[index] = value;
		update_timers(rtc);
		update_irq(rtc);
		return;
	case RTC_C:
	case RTC_D:
		return;
	}
	if (is_time(index) && !was_halted)
		latch(rtc);
	rtc->cmos[index] = value;
	if (is_time(index) && !was_halted)
		set_clock(rtc);
}

static void rtc_write(struct bus_region *r, uint64_t offset, unsigned int len,
		      uint64_t value)
{
	struct rtc *rtc = container_of(r, struct rtc, ports);

	(void)len;
	/* Bit 7 of the index port is the NMI mask of old PCs. */
	if (offset == 0)
		rtc->index = value & 0x7f;
	else
		write_cmos(rtc, rtc->index, (uint8_t)value);
}

/* Where AT-class firmware leaves the sizes of memory. */
static void store_memory_sizes(struct rtc *rtc, uint64_t low, uint64_t high)
{
	uint64_t above_1m = MIN((low - MIB) / KIB, 0xffffULL);
	uint64_t above_16m = low > 16 * MIB ? (low - 16 * MIB) / (64 * KIB) : 0;
	uint64_t above_4g = high / (64 * KIB);

	store16(&rtc->cmos[0x15], 640);
	store16(&rtc->cmos[0x17], (uint16_t)above_1m);
	store16(&rtc->cmos[0x30], (uint16_t)above_1m);
	store16(&rtc->cmos[0x34], (uint16_t)MIN(above_16m, 0xffffULL));
	rtc->cmos[0x5b] = (uint8_t)above_4g;
	store16(&rtc->cmos[0x5c], (uint16_t)(above_4g >> 8));
}

static const struct state_field rtc_state[] = {
	STATE_FIELD(struct rtc, index),
	STATE_FIELD(struct rtc, irq_level),
	STATE_FIELD(struct rtc, offset_s),
	STATE_FIELD(struct rtc, cmos),
	{ }
};

int rtc_init(struct rtc *rtc, struct bus *bus, const struct kvm *kvm,
	     struct loop *loop, uint64_t low, uint64_t high)
{
	int64_t offset_s = rtc->offset_s;
	int ret;

	memset(rtc, 0, sizeof(*rtc));
	rtc->offset_s = offset_s;
	rtc->kvm = kvm;
	rtc->cmos[RTC_A] = A_DIVIDER_32K | A_RATE_1024_HZ;
	rtc->cmos[RTC_B] = B_24H;
	rtc->cmos[RTC_D] = D_VRT;
	store_memory_sizes(rtc, low, high);

	rtc->dev.name = "rtc";
	device_add_state(&rtc->dev, &rtc->state, NULL, rtc, rtc_state);
	bus_add_device(bus, &rtc->dev);
	rtc->ports = (struct bus_region){
		.name = "rtc", .base = RTC_PORT, .size = 2,
		.dev = &rtc->dev, .read = rtc_read, .write = rtc_write,
	};
	ret = event_init_timer(&rtc->second, CLOCK_REALTIME, second_passed, &rtc->dev.lock);
	if (ret)
		return ret;
	ret = event_init_timer(&rtc->periodic, CLOCK_MONOTONIC, period_passed, &rtc->dev.lock);
	if (ret)
		goto out_fini_second;
	ret = loop_add(loop, &rtc->second, EPOLLIN);
	if (!ret)
		ret = loop_add(loop, &rtc->periodic, EPOLLIN);
	if (!ret)
		ret = bus_map(&bus->pio, &rtc->ports);
	if (!ret)
		return 0;

	event_fini(&rtc->periodic);
out_fini_second:
	event_fini(&rtc->second);
	return ret;
}

void rtc_fini(struct rtc *rtc)
{
	event_fini(&rtc->periodic);
	event_fini(&rtc->second);
}
