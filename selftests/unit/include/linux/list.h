/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The types are in types.h; the pure files keep no lists. */
#include <linux/types.h>
