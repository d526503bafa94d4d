/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * All that generic code may ask of a vendor. Bound once when the module loads;
 * every operation is required. Unless said otherwise they run under the vCPU's
 * mutex, in the vCPU's thread, outside a section.
 */
#ifndef FONDA_BACKEND_H
#define FONDA_BACKEND_H

#include "fonda.h"

/*
 * Registers that the vendor's control block holds, for read_reg and write_reg.
 * General registers, RIP and RFLAGS are in struct fonda_vcpu.
 */
enum fonda_reg {
	FONDA_REG_CR0, FONDA_REG_CR2, FONDA_REG_CR3, FONDA_REG_CR4, FONDA_REG_EFER,
	FONDA_REG_PAT, FONDA_REG_FS_BASE, FONDA_REG_GS_BASE,
	FONDA_REG_STAR, FONDA_REG_LSTAR, FONDA_REG_CSTAR, FONDA_REG_SFMASK,
	FONDA_REG_KERNEL_GS_BASE,
	FONDA_REG_SYSENTER_CS, FONDA_REG_SYSENTER_ESP, FONDA_REG_SYSENTER_EIP,
	FONDA_REG_DEBUGCTL,
	FONDA_REG_CPL,		/* read only */
};

struct fonda_backend {
	const char *name;
	/* Bits of vcpu->int_shadow; the same one where the processor does not tell. */
	u8 shadow_of_sti, shadow_of_mov_ss;
	u8 hypercall;		/* the last byte of the instruction, after 0F 01 */

	/*
	 * Can this machine be used? Logs what is missing and what to do; fills
	 * the feature words that cpuid.c filters by. -ENODEV, -EOPNOTSUPP.
	 */
	int (*hardware_setup)(void);
	void (*hardware_unsetup)(void);
	/* On the CPU concerned, interrupts off. -EBUSY: somebody else has it; -EIO. */
	int (*cpu_enable)(void);
	void (*cpu_disable)(void);

	/* Of the vendor's structure, which begins with struct fonda_vcpu. */
	size_t vcpu_size;
	/* All is zero but vcpu->vm. vcpu_fini also after an init that failed. */
	int (*vcpu_init)(struct fonda_vcpu *vcpu);
	void (*vcpu_fini)(struct fonda_vcpu *vcpu);
	/* What else there is, after all registers were set. */
	void (*vcpu_reset)(struct fonda_vcpu *vcpu);

	/*
	 * Inside a section (preemption off, guest FPU loaded): enter the guest
	 * and handle its exits until one needs the generic loop. Returns what
	 * handle_exit returns, or FONDA_RESUME_GUEST when there is work that the
	 * generic loop must do first (a request, a signal, a reschedule). The host
	 * gets back what the processor does not keep for it.
	 */
	int (*run)(struct fonda_vcpu *vcpu);
	/* The last exit again, where it may sleep. */
	int (*handle_exit)(struct fonda_vcpu *vcpu);

	/* Architectural state; write_reg takes values that were validated. */
	u64 (*read_reg)(struct fonda_vcpu *vcpu, enum fonda_reg reg);
	void (*write_reg)(struct fonda_vcpu *vcpu, enum fonda_reg reg, u64 val);
	void (*get_segment)(struct fonda_vcpu *vcpu, enum fonda_seg seg, struct fonda_segment *s);
	void (*set_segment)(struct fonda_vcpu *vcpu, enum fonda_seg seg,
			    const struct fonda_segment *s);
	/* The same for all segments, CR0, CR2 to CR4 and EFER at once. */
	void (*get_sregs)(struct fonda_vcpu *vcpu, struct kvm_sregs2 *sregs);
	void (*set_sregs)(struct fonda_vcpu *vcpu, const struct kvm_sregs2 *sregs);

	/* CPUID, CR4, guest debugging, MSR filters or TSC offset have changed:
	 * recompute the intercepts and what else depends on them. */
	void (*update_controls)(struct fonda_vcpu *vcpu);
	/*
	 * Where the guest executes, for whoever reads its code: the linear address
	 * and what its translation depends on (mmu.h). Returns the size of the
	 * code segment: 16, 32 or 64.
	 */
	int (*get_code)(struct fonda_vcpu *vcpu, struct fonda_paging *p, gva_t *rip);
	/* FONDA_GET_FAILED_ENTRY: the control block as it was refused. */
	void (*describe_entry)(struct fonda_vcpu *vcpu, struct fonda_failed_entry *entry);
	/* FONDA_BREAK_ENTRY: one field wrong, in the next entry only. -EINVAL. */
	int (*break_entry)(struct fonda_vcpu *vcpu, const struct fonda_entry_field *f);
};

extern const struct fonda_backend fonda_svm, fonda_vmx;

#endif
