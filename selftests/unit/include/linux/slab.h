/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Memory from the C library, where the sanitizers watch it. */
#ifndef UNIT_LINUX_SLAB_H
#define UNIT_LINUX_SLAB_H

#include <linux/gfp.h>
#include <stdlib.h>

#define kmalloc(size, gfp)	malloc(size)
#define kzalloc(size, gfp)	calloc(1, size)
#define kcalloc(n, size, gfp)	calloc(n, size)
#define kfree(p)		free((void *)(p))
#define kvmalloc(size, gfp)	malloc(size)
#define kvzalloc(size, gfp)	calloc(1, size)
#define kvfree(p)		free((void *)(p))

#endif
