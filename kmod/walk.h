/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The guest's own page tables: from a linear address to a guest physical one,
 * as the processor would find it. Pure; it reads and writes them by the functions
 * of mmu.h, which memory.c (and a unit test) defines.
 */
#ifndef FONDA_WALK_H
#define FONDA_WALK_H


#include "types.h"

#define FONDA_EFER_LMA	(1u << 10)
#define FONDA_EFER_NXE	(1u << 11)

/* What a translation depends on: registers, and what CPUID says. */
struct fonda_paging {
	u64 cr0, cr3, cr4, efer;
	u64 rflags;		/* AC suspends SMAP */
	u8 phys_bits;		/* MAXPHYADDR of the guest */
	bool gb_pages;		/* CPUID has 1 GiB pages */
};

/* Beside FONDA_ACCESS_*: the error code. (SDM volume 3, "Page-Fault Exceptions".) */
#define FONDA_PF_PRESENT	(1u << 0)
#define FONDA_PF_RSVD		(1u << 3)

#define FONDA_WALK_FAULT	1

/* What a walk finds: and the entries that it has passed, root first. */
struct fonda_walk {
	gpa_t gpa;
	u32 error;		/* of the #PF */
	int nr;
	gpa_t where[5];
	u64 entry[5];
};

/*
 * Translate @gva for @access (FONDA_ACCESS_*), checking every right and setting
 * accessed and dirty bits. 0; FONDA_WALK_FAULT: the guest gets a #PF; -EAGAIN:
 * another processor keeps changing the tables, or a table must not be touched in
 * this context; -EINTR; -EFAULT: a table is not in memory. Protection keys and
 * supervisor shadow stacks are not offered to guests.
 */
int fonda_walk(struct fonda_vcpu *vcpu, const struct fonda_paging *p, gva_t gva,
	       u32 access, struct fonda_walk *w);

/* fetch.c: the same for the vCPU as it is; fills in what CPUID says. */
int fonda_walk_guest(struct fonda_vcpu *vcpu, struct fonda_paging *p, gva_t gva,
		     u32 access, struct fonda_walk *w);

#endif
