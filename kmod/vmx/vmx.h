/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What vmx.c (setup, state), run.c (entry) and exit.c (exits) share.
 */
#ifndef FONDA_VMX_H
#define FONDA_VMX_H

#include <uapi/asm/vmx.h>

#include "../run.h"
#include "vmcs.h"

/* What this processor has beside what is required. Written once. */
struct vmx_features {
	u32 pin, cpu, cpu2, exit, entry;	/* controls of every vCPU */
	u32 cpu2_allowed;
	u64 cr0_fixed, cr4_fixed;	/* bits that are 1 in VMX operation */
	bool ept_ad;
	u8 timer_shift;		/* one tick of the preemption timer is 2^timer_shift of the TSC's */
	bool perf;		/* PERF_GLOBAL_CTRL is switched */
};

extern struct vmx_features vmx_features;
extern bool vmx_apicv;		/* the processor may virtualize local APICs in x2APIC mode */
extern bool vmx_timer;		/* the preemption timer may watch deadlines */

struct vmx_cpu {
	u32 *vmxon;		/* region for VMXON; allocated for every possible CPU */
	struct vmx_vcpu *loaded;	/* whose VMCS is active here, or NULL; interrupts off */
	bool borrowed;		/* another hypervisor's operation, during a window: */
	u64 theirs;		/* its VMCS */
};

DECLARE_PER_CPU(struct vmx_cpu, vmx_cpus);

/* MSRs that the processor does not switch: FONDA_REG_STAR and on. */
enum { VMX_STAR, VMX_LSTAR, VMX_CSTAR, VMX_SFMASK, VMX_KERNEL_GS_BASE, VMX_NR_MSRS };

struct vmx_vcpu {
	struct fonda_vcpu vcpu;
	u32 *vmcs;
	u8 *virtual_apic;	/* a page, of which the processor keeps the TPR and, with */
	bool apicv;		/* virtual-interrupt delivery, what waits and is in service */
	u16 apic_status;	/* VMCS_GUEST_INTERRUPT_STATUS, as in the VMCS */
	u64 eoi_exits[4];	/* the same: vectors whose EOI exits */
	u64 *pml;		/* a page, or NULL */
	int cpu;		/* (a) where the VMCS is active; -1: nowhere */
	bool launched;		/* since then */
	int open;		/* depth of vmx_open() */
	unsigned long irq_flags;	/* of the outermost */
	int host_cpu;		/* the CPU whose host state is in the VMCS */
	unsigned long host_cr3, host_cr4;	/* as in the VMCS */
	u16 vpid;
	u64 eptp;
	bool flush_vpid;	/* forget translations by the guest's tables */
	bool pdptes_stale;	/* of a guest with PAE paging: to be read from its memory */

	u64 cr2;
	u64 msr[VMX_NR_MSRS];
	bool msrs_loaded;	/* the processor has them, and this is the host's: */
	u64 host_kernel_gs_base;
	u64 host_debugctl, host_pebs;
	u64 host_test_ctrl;	/* not 0: the guest's split locks are let pass */
	u16 ds, es, fs, gs, ldt;	/* selectors of the host's user space */
	bool drs_loaded;	/* guest DR0-DR3 and DR6 are in the processor */
	bool unsettled;		/* prepare_entry() has done something for this entry */
	bool event_injected;	/* in this entry */
	s16 offered;		/* interrupt of this entry, or -1 */
	u64 own_tf;		/* RFLAGS.TF when it is ours, not the guest's */
	u32 cpu_controls;	/* as in the VMCS */
	u32 cpu2_controls;	/* the same, without those of apicv */
	u32 interruptibility;	/* the same */
	u32 tpr_threshold;	/* the same */
	bool timer_on;		/* the same */

	/* Of the last exit. */
	u32 reason;
	u32 idt_info;		/* an event that was being delivered */
	u32 insn_error;		/* of an entry that failed early */
	u64 qualification;
	gpa_t gpa;		/* of an EPT violation or misconfiguration */

	struct fonda_entry_field broken;	/* FONDA_BREAK_ENTRY */
	bool breaks, is_broken;	/* the next entry; the VMCS as it is now */
};

static inline struct vmx_vcpu *to_vmx(struct fonda_vcpu *vcpu)
{
	return container_of(vcpu, struct vmx_vcpu, vcpu);
}

/*
 * The VMCS can be read and written between these, with preemption and interrupts
 * off. They nest.
 */
void vmx_open(struct vmx_vcpu *vmx);
void vmx_close(struct vmx_vcpu *vmx);

/* Have an exit that CPU_* is about, or not. Open. */
static inline void vmx_control(struct vmx_vcpu *vmx, u32 bits, bool on)
{
	u32 new = on ? vmx->cpu_controls | bits : vmx->cpu_controls & ~bits;

	if (new != vmx->cpu_controls)
		vmwrite(VMCS_CPU_CONTROLS, new);
	vmx->cpu_controls = new;
}

#define MSR_X2(reg)	(0x800 + (reg) / 16)	/* of a register of the APIC's page */

/* enter.S: 0; 1: VMLAUNCH or VMRESUME failed. */
bool vmx_enter(unsigned long *regs, bool launched);
void vmx_exit_point(void);
/* vmx.c; open */
void vmx_set_apicv(struct vmx_vcpu *vmx, bool on);
void vmx_update_debug_controls(struct vmx_vcpu *vmx);
void vmx_load_pdptes(struct vmx_vcpu *vmx);
void vmx_switch_msrs(struct vmx_vcpu *vmx, bool guest);
int vmx_get_code(struct fonda_vcpu *vcpu, struct fonda_paging *p, gva_t *rip);
/* run.c */
void vmx_load_debug_registers(struct vmx_vcpu *vmx);
int vmx_run(struct fonda_vcpu *vcpu);
/* exit.c */
#define VMX_NR_EXITS	64
extern const struct fonda_exit vmx_exits[VMX_NR_EXITS], vmx_exit_failed, vmx_exit_unexpected;

static __always_inline const struct fonda_exit *vmx_find_exit(u32 reason)
{
	if (likely(reason < VMX_NR_EXITS && vmx_exits[reason].handle))
		return &vmx_exits[reason];
	return reason & EXIT_ENTRY_FAILED ? &vmx_exit_failed : &vmx_exit_unexpected;
}

int vmx_handle_exit(struct fonda_vcpu *vcpu);

#endif
