/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sizes of structures that end in an array. */
#ifndef UNIT_LINUX_OVERFLOW_H
#define UNIT_LINUX_OVERFLOW_H

#define struct_size(p, member, n)	(sizeof(*(p)) + sizeof(*(p)->member) * (size_t)(n))

#endif
