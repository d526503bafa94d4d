/* SPDX-License-Identifier: GPL-2.0-or-later */
/* min() and max() are in kernel.h here. */
#include <linux/kernel.h>
