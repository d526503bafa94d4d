/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The virtual machine control block, as in AMD64 Architecture Programmer's
 * Manual volume 2, appendix "VMCB Layout". Ours, because the kernel's own
 * structure changes between releases. Exit codes are in the uapi <asm/svm.h>.
 */
#ifndef FONDA_SVM_VMCB_H
#define FONDA_SVM_VMCB_H

#include <linux/build_bug.h>
#include <linux/types.h>
#include "../types.h"

/* intercept_misc1 */
enum {
	INTERCEPT_INTR		= 1u << 0,
	INTERCEPT_NMI		= 1u << 1,
	INTERCEPT_SMI		= 1u << 2,
	INTERCEPT_INIT		= 1u << 3,
	INTERCEPT_VINTR		= 1u << 4,
	INTERCEPT_CR0_SELECTIVE	= 1u << 5,
	INTERCEPT_RDPMC		= 1u << 15,
	INTERCEPT_CPUID		= 1u << 18,
	INTERCEPT_RSM		= 1u << 19,
	INTERCEPT_IRET		= 1u << 20,
	INTERCEPT_INVD		= 1u << 22,
	INTERCEPT_PAUSE		= 1u << 23,
	INTERCEPT_HLT		= 1u << 24,
	INTERCEPT_INVLPGA	= 1u << 26,
	INTERCEPT_IOIO		= 1u << 27,
	INTERCEPT_MSR		= 1u << 28,
	INTERCEPT_SHUTDOWN	= 1u << 31,
};

/* intercept_misc2 */
enum {
	INTERCEPT_VMRUN		= 1u << 0,
	INTERCEPT_VMMCALL	= 1u << 1,
	INTERCEPT_VMLOAD	= 1u << 2,
	INTERCEPT_VMSAVE	= 1u << 3,
	INTERCEPT_STGI		= 1u << 4,
	INTERCEPT_CLGI		= 1u << 5,
	INTERCEPT_SKINIT	= 1u << 6,
	INTERCEPT_RDTSCP	= 1u << 7,
	INTERCEPT_WBINVD	= 1u << 9,
	INTERCEPT_MONITOR	= 1u << 10,
	INTERCEPT_MWAIT		= 1u << 11,
	INTERCEPT_XSETBV	= 1u << 13,
	INTERCEPT_RDPRU		= 1u << 14,
};

/* intercept_misc3 */
enum {
	INTERCEPT_INVLPGB	= 1u << 0,
	INTERCEPT_INVPCID	= 1u << 2,
	INTERCEPT_MCOMMIT	= 1u << 3,
	INTERCEPT_TLBSYNC	= 1u << 4,
};

/* int_ctl */
#define V_TPR_MASK		0xfu	/* v_tpr: with bits that are 0 */
#define V_IRQ			(1u << 8)
#define V_INTR_PRIO_MASK	(0xfu << 16)
#define V_IGN_TPR		(1u << 20)
#define V_INTR_MASKING		(1u << 24)

/* int_state */
#define INT_SHADOW		(1u << 0)

/* event_inj and exit_int_info */
#define VMCB_EVENT_VECTOR	0xffu
#define VMCB_EVENT_SHIFT	8
#define VMCB_EVENT_MASK		(7u << VMCB_EVENT_SHIFT)
#define VMCB_EVENT_INTR		(0u << VMCB_EVENT_SHIFT)
#define VMCB_EVENT_NMI		(2u << VMCB_EVENT_SHIFT)
#define VMCB_EVENT_EXCEPTION	(3u << VMCB_EVENT_SHIFT)
#define VMCB_EVENT_ERROR		(1u << 11)
#define VMCB_EVENT_VALID		(1u << 31)

/* tlb_control */
#define VMCB_TLB_KEEP		0
#define VMCB_TLB_FLUSH_ALL		1
#define VMCB_TLB_FLUSH_ASID		3

#define NESTED_PAGING_ENABLE	(1ull << 0)

/* clean: state the processor may keep from the last run of this VMCB. */
enum {
	CLEAN_INTERCEPTS	= 1u << 0,	/* intercepts, TSC offset */
	CLEAN_PERMISSION_MAPS	= 1u << 1,
	CLEAN_ASID		= 1u << 2,
	CLEAN_INT_CTL		= 1u << 3,
	CLEAN_NESTED_PAGING	= 1u << 4,	/* nested CR3, PAT */
	CLEAN_CR		= 1u << 5,	/* CR0, CR3, CR4, EFER */
	CLEAN_DR		= 1u << 6,	/* DR6, DR7 */
	CLEAN_DT		= 1u << 7,	/* GDT, IDT */
	CLEAN_SEG		= 1u << 8,	/* CS, DS, SS, ES, CPL */
	CLEAN_CR2		= 1u << 9,
	CLEAN_ALL		= 0x3ff,
};

/* exit_info_1 of SVM_EXIT_NPF */
#define NPF_WRITE		(1ull << 1)
#define NPF_FETCH		(1ull << 4)
#define NPF_TABLE_WALK		(1ull << 33)

/* exit_info_1 of SVM_EXIT_IOIO: "IOIO Intercept Information" */
#define IOIO_IN			(1u << 0)
#define IOIO_STRING		(1u << 2)
#define IOIO_SIZE_SHIFT		4	/* one-hot: 1, 2, 4 bytes */

struct vmcb_seg {
	u16 selector;
	u16 attr;
	u32 limit;
	u64 base;
};

struct vmcb {
	u16 intercept_cr_read, intercept_cr_write;
	u16 intercept_dr_read, intercept_dr_write;
	u32 intercept_exceptions;
	u32 intercept_misc1, intercept_misc2, intercept_misc3;
	u8 reserved_018[0x3c - 0x18];
	u16 pause_filter_threshold, pause_filter_count;
	u64 iopm_base_pa, msrpm_base_pa;
	u64 tsc_offset;
	u32 asid;
	u8 tlb_control;
	u8 reserved_05d[3];
	union { u32 int_ctl; u8 v_tpr; };
	u32 int_vector;
	u64 int_state;
	u64 exit_code, exit_info_1, exit_info_2;
	u32 exit_int_info, exit_int_info_error;
	u64 nested_ctl;
	u8 reserved_098[0xa8 - 0x98];
	u32 event_inj, event_inj_error;
	u64 nested_cr3;
	u64 virt_ext;
	u32 clean;
	u32 reserved_0c4;
	u64 next_rip;
	u8 reserved_0d0[0x400 - 0xd0];

	struct vmcb_seg es, cs, ss, ds, fs, gs, gdtr, ldtr, idtr, tr;
	u8 reserved_4a0[0x4cb - 0x4a0];
	u8 cpl;
	u32 reserved_4cc;
	u64 efer;
	u8 reserved_4d8[0x548 - 0x4d8];
	u64 cr4, cr3, cr0, dr7, dr6, rflags, rip;
	u8 reserved_580[0x5d8 - 0x580];
	u64 rsp;
	u8 reserved_5e0[0x5f8 - 0x5e0];
	u64 rax, star, lstar, cstar, sfmask, kernel_gs_base;
	u64 sysenter_cs, sysenter_esp, sysenter_eip, cr2;
	u8 reserved_648[0x668 - 0x648];
	u64 g_pat, debugctl;
	u8 reserved_678[0x6e0 - 0x678];
	u64 spec_ctrl;
	u8 reserved_6e8[0x1000 - 0x6e8];
};

static_assert(sizeof(struct vmcb_seg) == 16);
static_assert(sizeof(struct vmcb) == 0x1000);
static_assert(offsetof(struct vmcb, exit_code) == 0x070);
static_assert(offsetof(struct vmcb, next_rip) == 0x0c8);
static_assert(offsetof(struct vmcb, cpl) == 0x4cb);
static_assert(offsetof(struct vmcb, rip) == 0x578);
static_assert(offsetof(struct vmcb, rax) == 0x5f8);
static_assert(offsetof(struct vmcb, spec_ctrl) == 0x6e0);

#endif
