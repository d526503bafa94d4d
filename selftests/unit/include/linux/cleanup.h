/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One thread: what a scope holds is nothing. */
#ifndef UNIT_LINUX_CLEANUP_H
#define UNIT_LINUX_CLEANUP_H

#define guard(class)	guard_##class
#define guard_preempt()	do { } while (0)

#endif
