/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A page's physical address is its address. */
#ifndef UNIT_LINUX_MM_H
#define UNIT_LINUX_MM_H

#include <linux/gfp.h>
#include <linux/kernel.h>

#define __pa(p)		((u64)(unsigned long)(p))
#define __va(pa)	((void *)(unsigned long)(pa))
#define clear_page(p)	memset(p, 0, PAGE_SIZE)

#endif
