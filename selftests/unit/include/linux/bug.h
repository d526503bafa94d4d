/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A warning of the kernel ends a unit test: it means a bug of ours. */
#ifndef UNIT_LINUX_BUG_H
#define UNIT_LINUX_BUG_H

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define WARN_ON(c) ({							\
	bool _c = !!(c);						\
									\
	if (_c) {							\
		fprintf(stderr, "%s:%d: WARN_ON(%s)\n", __FILE__, __LINE__, #c); \
		abort();						\
	}								\
	_c;								\
})
#define WARN_ON_ONCE(c)		WARN_ON(c)
#define BUILD_BUG_ON(c)		_Static_assert(!(c), #c)

#endif
