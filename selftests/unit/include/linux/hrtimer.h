/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A timer is what a test knows about it. */
#ifndef UNIT_LINUX_HRTIMER_H
#define UNIT_LINUX_HRTIMER_H

#include <linux/types.h>

struct hrtimer {
	u64 expires;	/* ns */
	bool active;
};

#endif
