/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Pages from the C library; a test can have the next ones refused. */
#ifndef UNIT_LINUX_GFP_H
#define UNIT_LINUX_GFP_H

#include <linux/kernel.h>
#include <stdlib.h>
#include <string.h>

#define GFP_KERNEL		0u
#define GFP_KERNEL_ACCOUNT	0u

/* How many more pages there are. */
extern long unit_pages_left __attribute__((weak));

static inline unsigned long get_zeroed_page(gfp_t gfp)
{
	void *page;

	if (&unit_pages_left && unit_pages_left-- <= 0)
		return 0;
	page = aligned_alloc(PAGE_SIZE, PAGE_SIZE);
	assert(page);
	memset(page, 0, PAGE_SIZE);
	return (unsigned long)page;
}

static inline void free_page(unsigned long page)
{
	free((void *)page);
}

#endif
