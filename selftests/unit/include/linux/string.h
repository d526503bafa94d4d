/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The C library's memory and string functions serve. */
#ifndef UNIT_LINUX_STRING_H
#define UNIT_LINUX_STRING_H

#include <string.h>

#endif
