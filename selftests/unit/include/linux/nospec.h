/* SPDX-License-Identifier: GPL-2.0-or-later */
/* An index is its own clamp where nothing speculates. */
#ifndef UNIT_LINUX_NOSPEC_H
#define UNIT_LINUX_NOSPEC_H

#define array_index_nospec(index, size)	(index)

#endif
