/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A timer is what a test knows about it; the test moves the clock. */
#ifndef UNIT_LINUX_HRTIMER_H
#define UNIT_LINUX_HRTIMER_H

#include <linux/types.h>

typedef u64 ktime_t;

enum hrtimer_restart { HRTIMER_NORESTART, HRTIMER_RESTART };
enum hrtimer_mode { HRTIMER_MODE_ABS_HARD, HRTIMER_MODE_ABS_PINNED_HARD };

struct hrtimer {
	u64 expires;	/* ns */
	bool active;
};

extern u64 unit_now_ns;

static inline u64 ktime_get_ns(void)
{
	return unit_now_ns;
}

static inline ktime_t ns_to_ktime(u64 ns)
{
	return ns;
}

static inline u64 ktime_to_ns(ktime_t time)
{
	return time;
}

static inline void hrtimer_start(struct hrtimer *timer, ktime_t expires, enum hrtimer_mode mode)
{
	timer->expires = expires;
	timer->active = true;
}

static inline bool hrtimer_is_queued(const struct hrtimer *timer)
{
	return timer->active;
}

static inline void hrtimer_set_expires(struct hrtimer *timer, ktime_t expires)
{
	timer->expires = expires;
}

static inline ktime_t hrtimer_get_expires(const struct hrtimer *timer)
{
	return timer->expires;
}

static inline int hrtimer_cancel(struct hrtimer *timer)
{
	bool was_active = timer->active;

	timer->active = false;
	return was_active;
}

static inline int hrtimer_try_to_cancel(struct hrtimer *timer)
{
	return hrtimer_cancel(timer);
}

static inline u64 hrtimer_forward_now(struct hrtimer *timer, ktime_t interval)
{
	u64 ticks = (unit_now_ns - timer->expires) / interval + 1;

	timer->expires += ticks * interval;
	return ticks;
}

#endif
