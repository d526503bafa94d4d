/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What svm.c (setup, state, entry) and exit.c (exits) share.
 */
#ifndef FONDA_SVM_H
#define FONDA_SVM_H

#include <uapi/asm/svm.h>

#include "../run.h"
#include "vmcb.h"

/* Optional features of this processor: CPUID 8000_000A, EDX. */
struct svm_features {
	bool nrip_save;
	bool decode_assists;
	bool flush_by_asid;
	bool pause_filter;
};

extern struct svm_features svm_features;

/* What one processor needs, allocated for every possible CPU. */
struct svm_cpu {
	unsigned long host_pages;	/* two: the target of our VMSAVE, VM_HSAVE_PA's own */
	hpa_t host_pa;		/* of the first */
	u64 asid_generation;
	u32 next_asid;
};

DECLARE_PER_CPU(struct svm_cpu, svm_cpus);
extern u32 svm_max_asid;
/* What the VMCB still has as we left it, right after an exit. */
extern u32 svm_clean_after_exit;

struct svm_vcpu {
	struct fonda_vcpu vcpu;
	struct vmcb *vmcb;
	hpa_t vmcb_pa;
	u64 asid_generation;
	int vmcb_cpu;		/* where the VMCB ran last */
	bool drs_loaded;	/* guest DR0-DR3 are in the processor */
	bool nmi_singlestep;	/* step over that IRET */
	u8 unsettled;		/* what prepare_entry() has done for this entry: */
#define UNSETTLED_OFFER	1	/* an interrupt was offered, or would have been */
#define UNSETTLED_ALL	2
	u64 own_tf;		/* RFLAGS.TF when it is ours, not the guest's */
	u64 iret_rip;
	struct fonda_entry_field broken;	/* FONDA_BREAK_ENTRY; size 0: none */
	bool is_broken;		/* and value is what the field had */
	struct vmcb *refused;	/* the VMCB with it: QEMU stores the host's state there */
	/* CD and NW as the guest last set them while they are held back from
	 * the processor: caches stay on through a reset. */
	u64 cr0_cache_bits;
};

static inline struct svm_vcpu *to_svm(struct fonda_vcpu *vcpu)
{
	return container_of(vcpu, struct svm_vcpu, vcpu);
}

static inline void svm_dirty(struct svm_vcpu *svm, u32 bits)
{
	svm->vmcb->clean &= ~bits;
}

/* Have what the exit @code is about exit, or not. */
static inline void svm_intercept(struct svm_vcpu *svm, u32 code, bool on)
{
	u32 *word = &svm->vmcb->intercepts[code / 32], old = *word;

	*word = on ? old | BIT(code % 32) : old & ~BIT(code % 32);
	if (*word != old)
		svm_dirty(svm, CLEAN_INTERCEPTS);
}

/* Writes of CR8 exit; nearly always that is a change. */
static __always_inline void svm_watch_cr8(struct svm_vcpu *svm, bool on)
{
	u32 *word = &svm->vmcb->intercepts[SVM_EXIT_WRITE_CR8 / 32];

	*word = on ? *word | BIT(SVM_EXIT_WRITE_CR8 % 32) : *word & ~BIT(SVM_EXIT_WRITE_CR8 % 32);
	svm_dirty(svm, CLEAN_INTERCEPTS);
}

void svm_enter(unsigned long *regs, hpa_t vmcb, hpa_t host);
/* svm.c: DR0-DR3 into the processor for the rest of a section, and back. */
void svm_load_debug_registers(struct svm_vcpu *svm);
void svm_unload_debug_registers(struct svm_vcpu *svm);
/* DR6 and DR7 as the guest has changed them, from the VMCB. */
void svm_sync_debug_registers(struct svm_vcpu *svm);
/* DR6 and DR7 into the VMCB. */
void svm_update_debug_controls(struct svm_vcpu *svm);
/* run.c */
int svm_run(struct fonda_vcpu *vcpu);
/* An NMI's IRET is done: NMIs may come again. */
void svm_nmi_unmask(struct svm_vcpu *svm);
/* exit.c */
#define SVM_NR_EXITS	0xa5
extern struct fonda_exit svm_exits[SVM_NR_EXITS];
extern const struct fonda_exit svm_exit_npf, svm_exit_unexpected;

static __always_inline const struct fonda_exit *svm_find_exit(u64 code)
{
	if (likely(code < SVM_NR_EXITS))
		return &svm_exits[code];
	return code == SVM_EXIT_NPF ? &svm_exit_npf : &svm_exit_unexpected;
}

int svm_insn_length_slowly(struct fonda_vcpu *vcpu, u32 op);

/*
 * Bytes of the instruction that exited, of which @op has the first: from the
 * processor, or read and decoded. A negative number: minus what to answer.
 */
static __always_inline int svm_insn_length(struct svm_vcpu *svm, u32 op)
{
	const struct vmcb *vmcb = svm->vmcb;
	int len = 1 + (op > 0xff) + (op > 0xffff);

	if (svm_features.nrip_save)
		return vmcb->next_rip - vmcb->rip;
	/* Without prefixes, as nearly all are, the first bytes say it all. */
	if (likely(vmcb->cs.attr & FONDA_SEG_L && vmcb->efer & EFER_LMA &&
		   (fonda_peek_code(&svm->vcpu, fonda_code_root(vmcb->cr3, vmcb->cr4),
				    vmcb->rip) & ~0u >> (32 - 8 * len)) == op))
		return len;
	return svm_insn_length_slowly(&svm->vcpu, op);
}

/* Calls @handle once the length of the instruction, which is @op, is known. */
static __always_inline int svm_handle_insn(struct fonda_vcpu *vcpu, u32 op,
					   int (*handle)(struct fonda_vcpu *vcpu))
{
	int len = svm_insn_length(to_svm(vcpu), op);

	if (unlikely(len < 0))
		return -len;
	vcpu->insn_len = len;
	return handle(vcpu);
}

static __always_inline int svm_dispatch(struct fonda_vcpu *vcpu, const struct fonda_exit *e)
{
	return e->op ? svm_handle_insn(vcpu, e->op, e->handle) : e->handle(vcpu);
}

int svm_handle_exit(struct fonda_vcpu *vcpu);
int svm_get_code(struct fonda_vcpu *vcpu, struct fonda_paging *p, gva_t *rip);
#endif
