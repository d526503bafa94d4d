/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Atomic operations of the kernel by those of the compiler. */
#ifndef UNIT_LINUX_ATOMIC_H
#define UNIT_LINUX_ATOMIC_H

#include <linux/compiler.h>
#include <linux/types.h>

typedef atomic64_t atomic_long_t;

#define UNIT_ATOMIC(prefix, type, int_type)				\
static inline int_type prefix##_read(const type *v)			\
{									\
	return __atomic_load_n(&v->counter, __ATOMIC_RELAXED);		\
}									\
static inline void prefix##_set(type *v, int_type i)			\
{									\
	__atomic_store_n(&v->counter, i, __ATOMIC_RELAXED);		\
}									\
static inline void prefix##_add(int_type i, type *v)			\
{									\
	__atomic_fetch_add(&v->counter, i, __ATOMIC_SEQ_CST);		\
}									\
static inline void prefix##_sub(int_type i, type *v)			\
{									\
	__atomic_fetch_sub(&v->counter, i, __ATOMIC_SEQ_CST);		\
}									\
static inline void prefix##_inc(type *v) { prefix##_add(1, v); }	\
static inline void prefix##_dec(type *v) { prefix##_sub(1, v); }	\
static inline void prefix##_and(int_type i, type *v)			\
{									\
	__atomic_fetch_and(&v->counter, i, __ATOMIC_SEQ_CST);		\
}									\
static inline void prefix##_or(int_type i, type *v)			\
{									\
	__atomic_fetch_or(&v->counter, i, __ATOMIC_SEQ_CST);		\
}									\
static inline int_type prefix##_fetch_and(int_type i, type *v)		\
{									\
	return __atomic_fetch_and(&v->counter, i, __ATOMIC_SEQ_CST);	\
}

UNIT_ATOMIC(atomic, atomic_t, int)
UNIT_ATOMIC(atomic64, atomic64_t, s64)
UNIT_ATOMIC(atomic_long, atomic_long_t, s64)

#define smp_mb()	__atomic_thread_fence(__ATOMIC_SEQ_CST)
#define smp_wmb()	__atomic_thread_fence(__ATOMIC_RELEASE)
#define smp_rmb()	__atomic_thread_fence(__ATOMIC_ACQUIRE)

#define xchg(p, v)	__atomic_exchange_n(p, v, __ATOMIC_SEQ_CST)

#define cmpxchg(p, old, new) ({						\
	__typeof__(*(p)) _old = (old);					\
									\
	__atomic_compare_exchange_n(p, &_old, new, false,		\
				    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
	_old;								\
})
#define cmpxchg64(p, old, new)	cmpxchg(p, old, new)

#endif
