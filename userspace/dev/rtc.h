/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The MC146818 real-time clock and its CMOS memory, which also tells old-style
 * software how much RAM there is.
 */
#ifndef DEV_RTC_H
#define DEV_RTC_H

#include "../util/kvm.h"
#include "../util/loop.h"
#include "bus.h"

#define RTC_PORT	0x70
#define RTC_IRQ		8
#define RTC_CENTURY	0x32	/* where the century is, as the FADT says */

struct rtc {
	struct device dev;
	struct state state;
	struct bus_region ports;
	const struct kvm *kvm;
	struct event second;		/* runs while an alarm or update is wanted */
	struct event periodic;
	uint8_t index;
	uint8_t irq_level;
	uint8_t cmos[128];		/* time registers: valid while SET is on */
	int64_t offset_s;		/* guest's clock minus the host's */
};

/*
 * @rtc is all zero or has been used before: a battery keeps its time, though
 * not its interrupts. @low and @high are bytes of RAM below and above 4 GiB.
 */
int rtc_init(struct rtc *rtc, struct bus *bus, const struct kvm *kvm,
	     struct loop *loop, uint64_t low, uint64_t high);
void rtc_fini(struct rtc *rtc);

#endif /* DEV_RTC_H */
