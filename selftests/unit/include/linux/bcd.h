/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Two decimal digits in a byte. */
#ifndef UNIT_LINUX_BCD_H
#define UNIT_LINUX_BCD_H

#define bcd2bin(x)	(((x) & 0xf) + ((x) >> 4) * 10)
#define bin2bcd(x)	((x) / 10 << 4 | (x) % 10)

#endif
