/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Assertions at compile time. */
#include <assert.h>
#include <linux/bug.h>
