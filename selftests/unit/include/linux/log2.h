/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Powers of two. */
#ifndef UNIT_LINUX_LOG2_H
#define UNIT_LINUX_LOG2_H

#include <linux/types.h>

static inline unsigned long roundup_pow_of_two(unsigned long n)
{
	unsigned long power = 1;

	while (power < n)
		power <<= 1;
	return power;
}

#endif
