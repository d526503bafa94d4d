/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One thread: a grace period is over at once. */
#ifndef UNIT_LINUX_RCUPDATE_H
#define UNIT_LINUX_RCUPDATE_H

#include <linux/compiler.h>
#include <stdlib.h>

#define rcu_read_lock()			do { } while (0)
#define rcu_read_unlock()		do { } while (0)
#define rcu_read_lock_sched()		do { } while (0)
#define rcu_read_unlock_sched()		do { } while (0)
#define rcu_dereference(p)		READ_ONCE(p)
#define rcu_dereference_sched(p)	READ_ONCE(p)
#define rcu_dereference_protected(p, c)	(p)
#define rcu_assign_pointer(p, v)	WRITE_ONCE(p, v)
#define rcu_replace_pointer(p, v, c) ({					\
	__typeof__(p) _old = (p);					\
									\
	WRITE_ONCE(p, v);						\
	_old;								\
})
#define RCU_INITIALIZER(p)		(p)
#define unrcu_pointer(p)		(p)
#define kvfree_rcu(p, member)		free(p)

#endif
