// SPDX-License-Identifier: GPL-2.0-only
/*
 * What exits mean, whatever the vendor: the backends' tables and handlers end
 * here, with the length of the instruction in vcpu->insn_len. Its privilege was
 * checked unless said otherwise. And what both do about events at an entry.
 */
#include <asm/mce.h>

#include "run.h"

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

/*
 * The other vendor's hypercall, of which only the last byte differs, becomes this
 * one's, unless another vCPU has been here first. A guest that executes others that
 * are undefined, as kernels do where they warn, is left alone with them after a few.
 */
int fonda_exit_undefined(struct fonda_vcpu *vcpu)
{
	const u8 native = fonda_backend->hypercall, other = native ^ 0xc1 ^ 0xd9;
	u8 code[FONDA_INSN_MAX];
	struct fonda_paging p;
	struct fonda_walk w;
	gva_t rip;

	if (vcpu->atomic)
		return FONDA_RETRY_SLEEPING;
	fonda_backend->get_code(vcpu, &p, &rip);
	/* Its own right to read it has been checked. */
	p.cr4 &= ~(u64)X86_CR4_SMAP;
	if (!(vcpu->vm->disabled_quirks & KVM_X86_QUIRK_FIX_HYPERCALL_INSN) &&
	    fonda_fetch_code(vcpu, &p, rip, code) >= 3 && code[0] == 0x0f && code[1] == 0x01 &&
	    (code[2] == native ||
	     (code[2] == other && !fonda_walk_guest(vcpu, &p, rip + 2, FONDA_ACCESS_READ, &w) &&
	      fonda_cmpxchg_guest(vcpu, w.gpa, sizeof(native), other, native) >= 0)))
		return FONDA_RESUME_GUEST;
	/* It may have come in between: then all of it again. */
	if (signal_pending(current))
		return FONDA_RESUME_GUEST;
	if (++vcpu->nr_undefined == FONDA_MAX_UNDEFINED)
		fonda_request(vcpu, FONDA_REQ_CONTROLS);
	return fonda_exit_invalid_opcode(vcpu);
}

int fonda_exit_protection(struct fonda_vcpu *vcpu)
{
	fonda_queue_exception_error(vcpu, X86_TRAP_GP, 0);
	return FONDA_RESUME_GUEST;
}

/* WBINVD and INVD, too: no device reaches the guest's memory behind the caches. */
int fonda_exit_skip(struct fonda_vcpu *vcpu)
{
	return fonda_skip_insn(vcpu, vcpu->insn_len);
}

/* As if in user space, so that an error in the guest's memory ends its VMM only. */
int fonda_exit_machine_check(struct fonda_vcpu *vcpu)
{
	struct pt_regs regs = { .cs = 3, .flags = X86_EFLAGS_IF };

	if (IS_ENABLED(CONFIG_X86_MCE))
		do_machine_check(&regs);
	return FONDA_RESUME_GUEST;
}

int fonda_exit_cpuid(struct fonda_vcpu *vcpu)
{
	unsigned long *regs = vcpu->regs;
	const struct kvm_cpuid_entry2 *e = fonda_cpuid(vcpu, regs[FONDA_RAX], regs[FONDA_RCX]);

	regs[FONDA_RAX] = e->eax;
	regs[FONDA_RBX] = e->ebx;
	regs[FONDA_RCX] = e->ecx;
	regs[FONDA_RDX] = e->edx;
	return fonda_exit_skip(vcpu);
}

int fonda_exit_hlt(struct fonda_vcpu *vcpu)
{
	int ret = fonda_exit_skip(vcpu);

	return ret == FONDA_RESUME_GUEST ? fonda_vcpu_halt(vcpu) : ret;
}

/* The guest spins: let the others of this CPU run. */
int fonda_exit_pause(struct fonda_vcpu *vcpu)
{
	if (vcpu->atomic)
		return FONDA_RETRY_SLEEPING;
	fonda_vcpu_yield(vcpu, -1);
	return fonda_exit_skip(vcpu);
}

/*
 * CPUID offers neither MONITOR nor MWAIT; a guest that uses them all the same
 * finds that they do nothing, unless user space asked for the #UD.
 */
int fonda_exit_monitor(struct fonda_vcpu *vcpu)
{
	if (vcpu->vm->disabled_quirks & KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS &&
	    !(fonda_cpuid(vcpu, 1, 0)->ecx & BIT(X86_FEATURE_MWAIT % 32)))
		return fonda_exit_invalid_opcode(vcpu);
	return fonda_exit_skip(vcpu);
}

/* CPL is checked here. */
int fonda_exit_xsetbv(struct fonda_vcpu *vcpu)
{
	u64 val = (u32)vcpu->regs[FONDA_RAX] | vcpu->regs[FONDA_RDX] << 32;

	if (fonda_backend->read_reg(vcpu, FONDA_REG_CPL) ||
	    fonda_vcpu_set_xcr0(vcpu, vcpu->regs[FONDA_RCX], val))
		return fonda_exit_protection(vcpu);
	return fonda_exit_skip(vcpu);
}

int fonda_exit_write_cr8(struct fonda_vcpu *vcpu, u64 val)
{
	u64 old = lapic_get_tpr(&vcpu->lapic);
	int ret;

	if (val & ~0xfull)
		return fonda_exit_protection(vcpu);
	lapic_set_tpr(&vcpu->lapic, val);
	ret = fonda_exit_skip(vcpu);
	if (vcpu->in_kernel_apic || ret != FONDA_RESUME_GUEST || val >= old)
		return ret;
	/* User space's local APIC may have something for the lower priority. */
	vcpu->run->exit_reason = KVM_EXIT_SET_TPR;
	return FONDA_EXIT_USER;
}

void fonda_load_debug_registers(struct fonda_vcpu *vcpu)
{
	const u64 *db = vcpu->debug.control & KVM_GUESTDBG_USE_HW_BP ?
			vcpu->debug.arch.debugreg : vcpu->db;
	int i;

	for (i = 0; i < 4; i++)
		set_debugreg(db[i], i);
}

void fonda_save_debug_registers(struct fonda_vcpu *vcpu)
{
	int i;

	for (i = 0; i < 4; i++)
		get_debugreg(vcpu->db[i], i);
}

int fonda_exit_debug_register(struct fonda_vcpu *vcpu, int reg, bool write, int gpr, u64 dr7)
{
	u64 *dr, val = vcpu->regs[gpr];

	if (dr7 & FONDA_DR7_GD)
		return fonda_exit_debug(vcpu, X86_TRAP_DB, FONDA_DR6_INIT | BIT(13), dr7);
	/* DR4 and DR5 are DR6 and DR7; with CR4.DE they are gone, which the processor checked. */
	dr = reg < 4 ? &vcpu->db[reg & 3] : reg & 1 ? &vcpu->dr7 : &vcpu->dr6;
	if (!write) {
		vcpu->regs[gpr] = *dr;
		return fonda_exit_skip(vcpu);
	}
	if (!fonda_in_64bit_mode(vcpu))
		val = (u32)val;
	if (reg >= 4 && val >> 32)
		return fonda_exit_protection(vcpu);
	if (dr == &vcpu->dr7)
		val = (val & 0xffff2bff) | FONDA_DR7_INIT;
	else if (dr == &vcpu->dr6)
		val = (val & (DR_TRAP_BITS | DR_STEP | DR_SWITCH | BIT(13))) | FONDA_DR6_INIT;
	*dr = val;
	return fonda_exit_skip(vcpu);
}

/* -- events ----------------------------------------------------------------- */

u32 fonda_next_event(struct fonda_vcpu *vcpu, bool nmi_open)
{
	u32 info = 0;

	/* Before the sources are read: a new NMI sets it again. */
	WRITE_ONCE(vcpu->event_pending, false);
	smp_mb();
	vcpu->nmi_pending = fonda_cap_nmis(vcpu, vcpu->nmi_pending +
					   atomic_xchg(&vcpu->nmi_queued, 0));

	if (vcpu->exception.injected || vcpu->exception.pending) {
		fonda_deliver_payload(vcpu);
		/* "Resume Flag": set in the image that a fault pushes. */
		if (vcpu->exception.pending && vcpu->exception.vector != X86_TRAP_DB)
			vcpu->rflags |= X86_EFLAGS_RF;
		vcpu->exception.pending = false;
		vcpu->exception.injected = true;
		info = vcpu->exception.vector | FONDA_EVENT_TYPE_EXCEPTION | FONDA_EVENT_VALID |
		       (vcpu->exception.has_error ? FONDA_EVENT_ERROR : 0);
	} else if (vcpu->nmi_injected || (vcpu->nmi_pending && nmi_open)) {
		vcpu->nmi_pending -= !vcpu->nmi_injected;
		vcpu->nmi_injected = true;
		info = X86_TRAP_NMI | FONDA_EVENT_TYPE_NMI | FONDA_EVENT_VALID;
	}
	if (vcpu->nmi_pending)
		vcpu->event_pending = true;
	if (info)
		trace_fonda_inject(vcpu, (u8)info, vcpu->exception.error);
	return info;
}

/* Both vendors number the parts of such a word alike. */
void fonda_requeue_event(struct fonda_vcpu *vcpu, u32 info, u32 error)
{
	struct fonda_exception *ex = &vcpu->exception;

	/* What was injected by the last entry has been delivered, unless ... */
	ex->injected = false;
	vcpu->nmi_injected = false;
	if (!(info & FONDA_EVENT_VALID))
		return;
	if ((info & FONDA_EVENT_TYPE) == FONDA_EVENT_TYPE_NMI) {
		vcpu->nmi_injected = true;
	} else {
		/* INT n, INT3 and INTO: RIP is still theirs, they execute again. */
		ex->vector = info;
		if ((info & FONDA_EVENT_TYPE) != FONDA_EVENT_TYPE_EXCEPTION ||
		    ex->vector == X86_TRAP_BP || ex->vector == X86_TRAP_OF)
			return;
		ex->injected = true;
		ex->has_error = info & FONDA_EVENT_ERROR;
		ex->error = error;
	}
	vcpu->event_pending = true;
}
