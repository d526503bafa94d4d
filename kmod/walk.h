/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The guest's own page tables: from a linear address to a guest physical one,
 * as the processor would find it. Pure; what it reads goes through the two
 * functions at the end, which mmio.c (and a unit test) defines.
 */
#ifndef FONDA_WALK_H
#define FONDA_WALK_H

#include <linux/bits.h>
#include <linux/errno.h>
#include <linux/compiler.h>
#include <asm/processor-flags.h>

#include "types.h"

#define FONDA_EFER_LMA	(1u << 10)
#define FONDA_EFER_NXE	(1u << 11)

/* The registers that a translation depends on. */
struct fonda_paging {
	u64 cr0, cr3, cr4, efer;
	u64 rflags;		/* AC suspends SMAP */
	u8 phys_bits;		/* MAXPHYADDR of the guest */
	bool gb_pages;		/* CPUID has 1 GiB pages */
};

/* Error code of a page fault. (SDM volume 3, "Page-Fault Exceptions".) */
#define FONDA_PF_PRESENT	(1u << 0)
#define FONDA_PF_WRITE		(1u << 1)
#define FONDA_PF_USER		(1u << 2)
#define FONDA_PF_RSVD		(1u << 3)
#define FONDA_PF_FETCH		(1u << 4)

#define FONDA_WALK_FAULT	1

/*
 * Translate @gva for @access (FONDA_ACCESS_*), checking every right and setting
 * accessed and dirty bits. 0; FONDA_WALK_FAULT: the guest gets a #PF with
 * *@error; -EAGAIN: another processor keeps changing the tables, or a table
 * must not be touched in this context; -EFAULT: a table is not in memory.
 * Protection keys and supervisor shadow stacks are not offered to guests.
 */
int fonda_walk(struct fonda_vcpu *vcpu, const struct fonda_paging *p, gva_t gva,
	       u32 access, gpa_t *gpa, u32 *error);

/*
 * In long mode, where is the instruction at @gva, which the processor has just
 * fetched? It has checked all rights and set the bits, so that only the address
 * is left to find. @read is called as fonda_walk_read(), and is nothing but a
 * part of this function. Errors as fonda_walk().
 */
static __always_inline int
fonda_walk_code(struct fonda_vcpu *vcpu, const struct fonda_paging *p, gva_t gva, gpa_t *gpa,
		int (*read)(struct fonda_vcpu *vcpu, gpa_t gpa, void *val, int len))
{
	u64 entry = p->cr3;
	int shift, ret;

	for (shift = p->cr4 & X86_CR4_LA57 ? 48 : 39; ; shift -= 9) {
		/* Entries are 8 bytes, 512 to a table. */
		entry = (entry & GENMASK_ULL(51, 12)) | (gva >> (shift - 3) & 0xff8);
		ret = read(vcpu, entry, &entry, 8);
		if (unlikely(ret))
			return ret;
		if (unlikely(!(entry & 1)))
			return FONDA_WALK_FAULT;
		/* Bit 7 is PS: a large page. (Where there is none, it faulted.) */
		if (shift == 12 || (entry & 0x80))
			break;
	}
	*gpa = (entry & GENMASK_ULL(51, 12) & (~0ULL << shift)) |
	       (gva & ~(~0ULL << shift));
	return 0;
}

/* @len is 4 or 8. 0, -EAGAIN or -EFAULT as above. */
int fonda_walk_read(struct fonda_vcpu *vcpu, gpa_t gpa, void *val, int len);
/* Also -ESTALE: the entry is not @old any more. */
int fonda_walk_cmpxchg(struct fonda_vcpu *vcpu, gpa_t gpa, u64 old, u64 new, int len);

#endif
