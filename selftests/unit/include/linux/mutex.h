/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Types only: the pure files take no mutexes. */
#ifndef UNIT_LINUX_MUTEX_H
#define UNIT_LINUX_MUTEX_H

struct mutex { int unused; };

#endif
