/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Bits in arrays of unsigned long. */
#ifndef UNIT_LINUX_BITOPS_H
#define UNIT_LINUX_BITOPS_H

#include <linux/bits.h>
#include <linux/types.h>

static inline void set_bit(unsigned long nr, unsigned long *map)
{
	__atomic_fetch_or(&map[nr / BITS_PER_LONG], BIT(nr % BITS_PER_LONG), __ATOMIC_SEQ_CST);
}

static inline void clear_bit(unsigned long nr, unsigned long *map)
{
	__atomic_fetch_and(&map[nr / BITS_PER_LONG], ~BIT(nr % BITS_PER_LONG), __ATOMIC_SEQ_CST);
}

static inline bool test_and_set_bit(unsigned long nr, unsigned long *map)
{
	return __atomic_fetch_or(&map[nr / BITS_PER_LONG], BIT(nr % BITS_PER_LONG),
				 __ATOMIC_SEQ_CST) >> nr % BITS_PER_LONG & 1;
}

static inline bool test_bit(unsigned long nr, const unsigned long *map)
{
	return map[nr / BITS_PER_LONG] >> nr % BITS_PER_LONG & 1;
}

/* Highest and lowest bit that is set; fls counts from 1, 0 for none. */
static inline void __set_bit(unsigned long nr, unsigned long *map)
{
	map[nr / BITS_PER_LONG] |= BIT(nr % BITS_PER_LONG);
}

static inline void __clear_bit(unsigned long nr, unsigned long *map)
{
	map[nr / BITS_PER_LONG] &= ~BIT(nr % BITS_PER_LONG);
}

static inline void assign_bit(unsigned long nr, unsigned long *map, bool value)
{
	if (value)
		set_bit(nr, map);
	else
		clear_bit(nr, map);
}

static inline int fls(unsigned int val)
{
	return val ? 32 - __builtin_clz(val) : 0;
}

static inline unsigned long __fls(unsigned long val)
{
	return 63 - __builtin_clzl(val);
}

static inline unsigned long __ffs(unsigned long val)
{
	return __builtin_ctzl(val);
}

static inline unsigned long find_next_bit(const unsigned long *map, unsigned long size,
					  unsigned long from)
{
	while (from < size && !test_bit(from, map))
		from++;
	return from < size ? from : size;
}

#endif
