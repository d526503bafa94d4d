// SPDX-License-Identifier: GPL-2.0-only
/*
 * What exits mean, whatever the vendor: the backends' handlers end here, with
 * the length of the instruction where there is one. Its privilege was checked
 * unless said otherwise.
 */
#include <linux/kvm_para.h>
#include <asm/trapnr.h>

#include "backend.h"
#include "stats.h"
#include "trace.h"

/* The host has taken what it was about. */
int fonda_exit_resume(struct fonda_vcpu *vcpu)
{
	return FONDA_RESUME_GUEST;
}

int fonda_exit_invalid_opcode(struct fonda_vcpu *vcpu)
{
	fonda_queue_exception(vcpu, X86_TRAP_UD);
	return FONDA_RESUME_GUEST;
}

int fonda_exit_protection(struct fonda_vcpu *vcpu)
{
	fonda_queue_exception_error(vcpu, X86_TRAP_GP, 0);
	return FONDA_RESUME_GUEST;
}

int fonda_exit_cpuid(struct fonda_vcpu *vcpu, int len)
{
	unsigned long *regs = vcpu->regs;
	u32 eax = regs[FONDA_RAX], ecx = regs[FONDA_RCX], ebx, edx;

	fonda_cpuid(vcpu, &eax, &ebx, &ecx, &edx);
	regs[FONDA_RAX] = eax;
	regs[FONDA_RBX] = ebx;
	regs[FONDA_RCX] = ecx;
	regs[FONDA_RDX] = edx;
	return fonda_skip_insn(vcpu, len);
}

/*
 * CPUID offers neither MONITOR nor MWAIT; a guest that uses them all the same
 * finds that they do nothing, unless user space asked for the #UD.
 */
int fonda_exit_monitor(struct fonda_vcpu *vcpu, int len)
{
	u32 eax = 1, ebx, ecx = 0, edx;

	fonda_cpuid(vcpu, &eax, &ebx, &ecx, &edx);
	if (vcpu->vm->disabled_quirks & KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS &&
	    !(ecx & BIT(X86_FEATURE_MWAIT % 32)))
		return fonda_exit_invalid_opcode(vcpu);
	return fonda_skip_insn(vcpu, len);
}

/* CPL is checked here. */
int fonda_exit_xsetbv(struct fonda_vcpu *vcpu, int len)
{
	u64 val = (u32)vcpu->regs[FONDA_RAX] | vcpu->regs[FONDA_RDX] << 32;

	if (fonda_backend->read_reg(vcpu, FONDA_REG_CPL) ||
	    fonda_vcpu_set_xcr0(vcpu, vcpu->regs[FONDA_RCX], val))
		return fonda_exit_protection(vcpu);
	return fonda_skip_insn(vcpu, len);
}

int fonda_exit_write_cr8(struct fonda_vcpu *vcpu, u64 val, int len)
{
	u64 old;
	int ret;

	if (val & ~0xfull)
		return fonda_exit_protection(vcpu);
	if (vcpu->in_kernel_apic) {
		lapic_set_tpr(&vcpu->lapic, val);
		return fonda_skip_insn(vcpu, len);
	}
	old = fonda_backend->read_reg(vcpu, FONDA_REG_CR8);
	fonda_backend->write_reg(vcpu, FONDA_REG_CR8, val);
	ret = fonda_skip_insn(vcpu, len);
	if (ret != FONDA_RESUME_GUEST || val >= old)
		return ret;
	/* User space's local APIC may have something for the lower priority. */
	vcpu->run->exit_reason = KVM_EXIT_SET_TPR;
	return FONDA_EXIT_USER;
}

int fonda_exit_nested_fault(struct fonda_vcpu *vcpu, const struct fonda_nested_fault *f)
{
	u32 access = f->fetch ? FONDA_ACCESS_FETCH : f->write ? FONDA_ACCESS_WRITE :
		     FONDA_ACCESS_READ;
	int ret = fonda_mmu_fault(vcpu, f->gpa, access);

	trace_fonda_fault(vcpu, f->gpa, access, ret);
	if (ret != FONDA_FAULT_MMIO)
		return ret;

	fonda_stats_reclassify(vcpu, FONDA_STAT_MMIO);
	/* Delivering an event, or walking tables, by way of MMIO or ROM. */
	if (unlikely(f->event)) {
		u64 data[] = { f->event, f->reason, f->info, f->gpa };

		return fonda_exit_internal_error(vcpu, KVM_INTERNAL_ERROR_DELIVERY_EV,
						 data, ARRAY_SIZE(data));
	}
	/* Found on the way through the guest's tables it is not the operand's. */
	return fonda_emulate_mmio(vcpu, f->table_walk ? FONDA_INVALID_GPA : f->gpa, access);
}
