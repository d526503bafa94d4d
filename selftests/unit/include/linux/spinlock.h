/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One thread: locks have nothing to do. */
#ifndef UNIT_LINUX_SPINLOCK_H
#define UNIT_LINUX_SPINLOCK_H

typedef struct { int unused; } spinlock_t;
typedef struct { int unused; } rwlock_t;
typedef struct { int unused; } raw_spinlock_t;

#define lockdep_is_held(lock)			true
#define lockdep_assert_held(lock)		do { } while (0)
#define raw_spin_lock_irq(lock)			do { } while (0)
#define raw_spin_unlock_irq(lock)		do { } while (0)
#define raw_spin_lock_irqsave(lock, flags)	((flags) = 0)
#define raw_spin_unlock_irqrestore(lock, flags)	((void)(flags))

#endif
