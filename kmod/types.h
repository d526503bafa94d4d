/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The scalar types of addresses, which never mix, and the small structures
 * that the pure files (emulate.c, walk.c, irq/, the table code of mmu.c) share
 * with the rest, so that they compile on the host without fonda.h. Also the
 * headers of the kernel that all of them use; others say what they need beside.
 */
#ifndef FONDA_TYPES_H
#define FONDA_TYPES_H

#include <linux/atomic.h>
#include <linux/bitops.h>
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/nospec.h>
#include <linux/string.h>
#include <linux/types.h>
#include <asm/processor-flags.h>

/* As <linux/kvm_types.h> has them, which newer headers drag in. */
typedef unsigned long gva_t;	/* guest linear address */
typedef u64 gpa_t;	/* guest physical address */
typedef u64 gfn_t;	/* guest page number, of 4 KiB */
typedef u64 hpa_t;	/* host physical address */
typedef unsigned long hva_t;	/* address in the VMM's own memory */

#define FONDA_INVALID_GPA	(~(gpa_t)0)

struct fonda_vm;
struct fonda_vcpu;

/*
 * Handlers of ioctls, of which one may serve several: @cmd tells. The device's have no
 * @vcpu. Function types: such a name declares many at once.
 */
typedef long fonda_vm_handler(struct fonda_vm *vm, void *arg, unsigned int cmd);
typedef long fonda_vcpu_handler(struct fonda_vcpu *vcpu, void *arg, unsigned int cmd);

/* Segment registers by their hardware number; the tables behind them. */
enum fonda_seg {
	FONDA_SEG_ES, FONDA_SEG_CS, FONDA_SEG_SS, FONDA_SEG_DS,
	FONDA_SEG_FS, FONDA_SEG_GS, FONDA_SEG_LDTR, FONDA_SEG_TR,
	FONDA_SEG_GDTR, FONDA_SEG_IDTR,		/* base and limit only */
	FONDA_NR_SEGS
};

/*
 * A segment's cache. attr holds the descriptor's bytes 5 and 6 as in the VMCB:
 * bits 0-3 type, 4 S, 5-6 DPL, 7 P, 8 AVL, 9 L, 10 D/B, 11 G. A segment that
 * must not be used (a null selector was loaded) has P clear.
 */
struct fonda_segment {
	u64 base;
	u32 limit;		/* bytes, granularity applied */
	u16 selector;
	u16 attr;
};

#define FONDA_SEG_TYPE(attr)	((attr) & 0xf)
#define FONDA_SEG_S		(1 << 4)
#define FONDA_SEG_DPL(attr)	(((attr) >> 5) & 3)
#define FONDA_SEG_P		(1 << 7)
#define FONDA_SEG_L		(1 << 9)
#define FONDA_SEG_DB		(1 << 10)
#define FONDA_SEG_G		(1 << 11)

/* Why memory is touched, in the bits of the error code of a #PF. */
#define FONDA_ACCESS_READ	0u
#define FONDA_ACCESS_WRITE	(1u << 1)
#define FONDA_ACCESS_USER	(1u << 2)	/* CPL 3 */
#define FONDA_ACCESS_FETCH	(1u << 4)

#endif
