/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The virtual machine control block, as in AMD64 Architecture Programmer's
 * Manual volume 2, appendix "VMCB Layout". Ours, because the kernel's own
 * structure changes between releases. Exit codes are in the uapi <asm/svm.h>.
 */
#ifndef FONDA_SVM_VMCB_H
#define FONDA_SVM_VMCB_H

#include "../types.h"

/* int_ctl */
#define V_IRQ			(1u << 8)
#define V_INTR_PRIO_MASK	(0xfu << 16)
#define V_IGN_TPR		(1u << 20)
#define V_INTR_MASKING		(1u << 24)

/* int_state */
#define INT_SHADOW		(1u << 0)

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
	u32 intercepts[6];	/* one map: bit n has the guest leave with exit code n */
	u8 reserved_018[0x3c - 0x18];
	u16 pause_filter_threshold, pause_filter_count;
	u64 iopm_base_pa, msrpm_base_pa;
	u64 tsc_offset;
	u32 asid;
	u8 tlb_control;
	u8 reserved_05d[3];
	union { u32 int_ctl; u8 v_tpr; };	/* v_tpr: with bits that are 0 */
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
