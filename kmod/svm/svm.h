/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What svm.c (setup, state, entry) and exit.c (exits) share.
 */
#ifndef FONDA_SVM_H
#define FONDA_SVM_H

#include <uapi/asm/svm.h>

#include "../backend.h"
#include "vmcb.h"

/* "Debug Control Register (DR7)": general detect. */
#define FONDA_DR7_GD	(1ull << 13)

/* Optional features of this processor: CPUID 8000_000A, EDX. */
struct svm_features {
	bool nrip_save;
	bool decode_assists;
	bool flush_by_asid;
	bool vmcb_clean;
	bool pause_filter;
	bool v_spec_ctrl;
};

extern struct svm_features svm_features;

/* What one processor needs, allocated for every possible CPU. */
struct svm_cpu {
	struct page *pages;	/* two: VM_HSAVE_PA's own, the target of our VMSAVE */
	hpa_t host_pa;		/* of the second */
	u64 asid_generation;
	u32 next_asid;
	bool enabled;
	struct fonda_vcpu *last;	/* compared only, never followed */
};

DECLARE_PER_CPU(struct svm_cpu, svm_cpus);
extern u32 svm_max_asid;

struct svm_vcpu {
	struct fonda_vcpu vcpu;
	struct vmcb *vmcb;
	hpa_t vmcb_pa;
	u32 clean;		/* what the VMCB still has as we left it */
	u64 asid_generation;
	int vmcb_cpu;		/* where the VMCB ran last */
	bool drs_loaded;	/* guest DR0-DR3 are in the processor */
	bool nmi_masked;	/* an NMI was delivered, its IRET not seen yet */
	bool nmi_singlestep;	/* TF is ours: stepping over that IRET */
	bool flush;		/* forget this guest's translations */
	u64 iret_rip;
	/* CD and NW as the guest last set them while they are held back from
	 * the processor: caches stay on through a reset. */
	u64 cr0_cache_bits;
	u64 host_tsc_aux;
	u64 host_db[4];		/* of the host's own breakpoints, */
	u64 host_dr7;		/* 0: it has none */
};

static inline struct svm_vcpu *to_svm(struct fonda_vcpu *vcpu)
{
	return container_of(vcpu, struct svm_vcpu, vcpu);
}

static inline void svm_dirty(struct svm_vcpu *svm, u32 bits)
{
	svm->clean &= ~bits;
}

static inline void svm_intercept1(struct svm_vcpu *svm, u32 bits, bool on)
{
	if (on)
		svm->vmcb->intercept_misc1 |= bits;
	else
		svm->vmcb->intercept_misc1 &= ~bits;
	svm_dirty(svm, CLEAN_INTERCEPTS);
}

void svm_enter(unsigned long *regs, hpa_t vmcb, hpa_t host);
/* svm.c: DR0-DR3 into the processor for the rest of a section, and back. */
void svm_load_debug_registers(struct svm_vcpu *svm);
void svm_unload_debug_registers(struct svm_vcpu *svm);
/* DR6 and DR7 into the VMCB. */
void svm_update_debug_controls(struct svm_vcpu *svm);
/* run.c */
void svm_section_begin(struct fonda_vcpu *vcpu);
void svm_section_end(struct fonda_vcpu *vcpu);
int svm_run(struct fonda_vcpu *vcpu);
/* An NMI's IRET is done: NMIs may come again. */
void svm_nmi_unmask(struct svm_vcpu *svm);
/* exit.c */
int svm_handle_exit(struct fonda_vcpu *vcpu);
int svm_get_code(struct fonda_vcpu *vcpu, struct fonda_paging *p, gva_t *rip);
#endif
