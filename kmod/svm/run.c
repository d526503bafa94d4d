// SPDX-License-Identifier: GPL-2.0-only
/*
 * Into an AMD-V guest and out of it: what is injected, what is loaded around a
 * section and around an entry, and how what was offered is settled.
 *
 * External interrupts are offered as virtual interrupts (V_IRQ), not by event
 * injection: the processor takes the vector itself when the guest's RFLAGS.IF,
 * shadow and TPR allow, so that no exit is needed to wait for a window, and an
 * interrupt that was not taken is still in the interrupt controller.
 *
 * Mitigations of speculation, and where: RSB filled, returns untrained, IBPB on
 * exit where the host wants it, registers cleared (enter.S); IBPB when another
 * vCPU follows on a CPU (section_begin); guest SPEC_CTRL by V_SPEC_CTRL or
 * around the entry (enter_guest); VERW before entry where the kernel asks for
 * it (enter_guest). Permission maps are never writable by anyone but us.
 */
#include <linux/percpu.h>
#include <asm/cpufeature.h>
#include <asm/debugreg.h>
#include <asm/nospec-branch.h>
#include <asm/trapnr.h>

#include "svm.h"
#include "../stats.h"
#include "../trace.h"

/* -- events ----------------------------------------------------------------- */

static void inject_exception(struct svm_vcpu *svm)
{
	struct fonda_exception *ex = &svm->vcpu.exception;
	struct vmcb *vmcb = svm->vmcb;

	if (ex->pending && ex->has_payload) {
		if (ex->vector == X86_TRAP_PF) {
			vmcb->cr2 = ex->payload;
			svm_dirty(svm, CLEAN_CR2);
		} else if (ex->vector == X86_TRAP_DB) {
			svm->vcpu.dr6 = fonda_merge_dr6(svm->vcpu.dr6, ex->payload);
			svm->vcpu.dr7 &= ~FONDA_DR7_GD;
			vmcb->dr6 = svm->vcpu.dr6;
			svm_update_debug_controls(svm);
		}
	}
	/* "Resume Flag": set in the image that a fault pushes. */
	if (ex->pending && ex->vector != X86_TRAP_DB)
		svm->vcpu.rflags |= X86_EFLAGS_RF;
	vmcb->event_inj = ex->vector | VMCB_EVENT_EXCEPTION | VMCB_EVENT_VALID |
			  (ex->has_error ? VMCB_EVENT_ERROR : 0);
	vmcb->event_inj_error = ex->error;
	ex->pending = false;
	ex->injected = true;
	trace_fonda_inject(&svm->vcpu, ex->vector, ex->has_error ? ex->error : 0);
}

static void inject_nmi(struct svm_vcpu *svm)
{
	svm->vmcb->event_inj = VMCB_EVENT_NMI | VMCB_EVENT_VALID;
	svm->vcpu.nmi_injected = true;
	svm->nmi_masked = true;
	svm_intercept1(svm, INTERCEPT_IRET, true);
	trace_fonda_inject(&svm->vcpu, X86_TRAP_NMI, 0);
}

void svm_nmi_unmask(struct svm_vcpu *svm)
{
	svm->nmi_masked = false;
	svm->iret_rip = 0;
	svm_intercept1(svm, INTERCEPT_IRET, false);
}

/* Exceptions and NMIs, in the order of "Simultaneous Interrupts". */
static void inject_events(struct svm_vcpu *svm)
{
	struct fonda_vcpu *vcpu = &svm->vcpu;

	/* Before the sources are read: a new NMI sets it again. */
	WRITE_ONCE(vcpu->event_pending, false);
	smp_mb();
	vcpu->nmi_pending = min(vcpu->nmi_pending + atomic_xchg(&vcpu->nmi_queued, 0), 2);

	if (vcpu->exception.injected || vcpu->exception.pending) {
		inject_exception(svm);
	} else if (vcpu->nmi_injected) {
		inject_nmi(svm);
	} else if (vcpu->nmi_pending && !svm->nmi_masked && !vcpu->int_shadow) {
		vcpu->nmi_pending--;
		inject_nmi(svm);
	}
	if (vcpu->nmi_pending) {
		vcpu->event_pending = true;
		/*
		 * It waits for the shadow of an STI or MOV SS, which single stepping
		 * ends, or for the IRET of the NMI before it: exit_iret() finds that.
		 */
		if (!svm->nmi_masked || svm->iret_rip)
			svm->nmi_singlestep = true;
	}
}

/* Offer an interrupt; see the top of the file. */
static void offer_interrupt(struct svm_vcpu *svm)
{
	struct fonda_vcpu *vcpu = &svm->vcpu;
	struct vmcb *vmcb = svm->vmcb;
	bool tpr_blocked = false;
	int vector = -1;

	if (READ_ONCE(vcpu->irq_pending))
		vector = fonda_irq_offer(vcpu, &tpr_blocked);
	if (vector >= 0 || vcpu->want_window) {
		/* Its priority was compared with the TPR already. */
		vmcb->int_ctl |= V_IRQ | V_IGN_TPR | V_INTR_PRIO_MASK;
		vmcb->int_vector = max(vector, 0);
		/* User space's PIC waits for its turn; the exit is all there is to it. */
		if (vector < 0)
			svm_intercept1(svm, INTERCEPT_VINTR, true);
	}
	/*
	 * A lower task priority may let another interrupt in; and QEMU's
	 * emulation dies of a CR8 write while V_IRQ is set.
	 */
	if ((vmcb->int_ctl & V_IRQ || tpr_blocked) && !(vmcb->intercept_cr_write & BIT(8))) {
		vmcb->intercept_cr_write |= BIT(8);
		svm_dirty(svm, CLEAN_INTERCEPTS);
	}
}

/*
 * Is it an external interrupt whose delivery the exit cut short? (QEMU's
 * emulation calls it an exception; vectors tell, since those end at 31.)
 */
static bool is_cut_interrupt(u32 info)
{
	if (!(info & VMCB_EVENT_VALID))
		return false;
	return (info & VMCB_EVENT_MASK) == VMCB_EVENT_INTR ||
	       ((info & VMCB_EVENT_MASK) == VMCB_EVENT_EXCEPTION &&
		(info & VMCB_EVENT_VECTOR) > 31);
}

/* After the exit: was the offered interrupt taken? */
static void settle_interrupt(struct svm_vcpu *svm)
{
	struct vmcb *vmcb = svm->vmcb;

	/*
	 * An exit in the middle of the delivery (a nested page fault on the
	 * IDT or the stack) leaves it in EXITINTINFO. It was not taken then: it
	 * is still in the interrupt controller and will be offered again.
	 */
	if (unlikely(vmcb->intercept_misc1 & INTERCEPT_VINTR)) {
		svm_intercept1(svm, INTERCEPT_VINTR, false);
	} else {
		bool taken = !(vmcb->int_ctl & V_IRQ) && !is_cut_interrupt(vmcb->exit_int_info);

		if (taken)
			trace_fonda_inject(&svm->vcpu, vmcb->int_vector, 0);
		fonda_irq_settle(&svm->vcpu, vmcb->int_vector, taken);
	}
	vmcb->int_ctl &= ~(V_IRQ | V_IGN_TPR);
}

static void requeue_event(struct svm_vcpu *svm)
{
	struct fonda_exception *ex = &svm->vcpu.exception;
	u32 info = svm->vmcb->exit_int_info;

	/* What was injected by the last entry has been delivered, unless ... */
	ex->injected = false;
	svm->vcpu.nmi_injected = false;
	/* An external interrupt is offered anew. */
	if (!(info & VMCB_EVENT_VALID) || is_cut_interrupt(info))
		return;

	if ((info & VMCB_EVENT_MASK) == VMCB_EVENT_NMI) {
		svm->vcpu.nmi_injected = true;
	} else {
		ex->vector = info & VMCB_EVENT_VECTOR;
		/* INT n, INT3 and INTO: RIP is still theirs, they execute again. */
		if ((info & VMCB_EVENT_MASK) != VMCB_EVENT_EXCEPTION ||
		    ex->vector == X86_TRAP_BP || ex->vector == X86_TRAP_OF)
			return;
		ex->injected = true;
		ex->has_error = info & VMCB_EVENT_ERROR;
		ex->error = svm->vmcb->exit_int_info_error;
	}
	svm->vcpu.event_pending = true;
}

/* -- entry ------------------------------------------------------------------ */

static void new_asid(struct svm_vcpu *svm, struct svm_cpu *sc)
{
	if (sc->next_asid > svm_max_asid) {
		sc->asid_generation++;
		sc->next_asid = 1;	/* 0 is the host's */
		svm->vmcb->tlb_control = VMCB_TLB_FLUSH_ALL;
	}
	svm->vmcb->asid = sc->next_asid++;
	svm->asid_generation = sc->asid_generation;
	svm_dirty(svm, CLEAN_ASID);
}

void svm_section_begin(struct fonda_vcpu *vcpu)
{
	struct svm_cpu *sc = this_cpu_ptr(&svm_cpus);
	struct svm_vcpu *svm = to_svm(vcpu);

	/* FS and GS bases of this task, and the rest that VMLOAD replaces. */
	asm volatile("vmsave %%rax" : : "a"(sc->host_pa) : "memory");

	if (svm->vmcb_cpu != vcpu->cpu) {
		svm->vmcb_cpu = vcpu->cpu;
		svm->asid_generation = 0;
		svm->clean = 0;
	}
	if (sc->last != vcpu) {
		sc->last = vcpu;
		if (cpu_feature_enabled(X86_FEATURE_USE_IBPB))
			wrmsrq(MSR_IA32_PRED_CMD, PRED_CMD_IBPB);
	}
	if (fonda_guest_has(vcpu, FONDA_HAS_TSC_AUX)) {
		rdmsrq(MSR_TSC_AUX, svm->host_tsc_aux);
		if (svm->host_tsc_aux != vcpu->msrs.tsc_aux)
			wrmsrq(MSR_TSC_AUX, vcpu->msrs.tsc_aux);
	}
	svm->host_dr7 = hw_breakpoint_active() ? this_cpu_read(cpu_dr7) : 0;
	if (unlikely(svm->host_dr7)) {
		get_debugreg(svm->host_db[0], 0);
		get_debugreg(svm->host_db[1], 1);
		get_debugreg(svm->host_db[2], 2);
		get_debugreg(svm->host_db[3], 3);
	}
	if (svm->vmcb->dr7 & DR_LOCAL_ENABLE_MASK || svm->vmcb->dr7 & DR_GLOBAL_ENABLE_MASK)
		svm_load_debug_registers(svm);
}

void svm_section_end(struct fonda_vcpu *vcpu)
{
	struct svm_vcpu *svm = to_svm(vcpu);

	if (svm->drs_loaded)
		svm_unload_debug_registers(svm);
	/* "#VMEXIT" has left DR7 disabled. */
	if (unlikely(svm->host_dr7)) {
		set_debugreg(svm->host_db[0], 0);
		set_debugreg(svm->host_db[1], 1);
		set_debugreg(svm->host_db[2], 2);
		set_debugreg(svm->host_db[3], 3);
		set_debugreg(svm->host_dr7, 7);
	}
	if (fonda_guest_has(vcpu, FONDA_HAS_TSC_AUX) && svm->host_tsc_aux != vcpu->msrs.tsc_aux)
		wrmsrq(MSR_TSC_AUX, svm->host_tsc_aux);
}

/*
 * The guest's SPEC_CTRL where the processor does not switch it, and the buffers
 * that the kernel wants cleared. Both are rare enough not to weigh on others.
 */
static __always_inline void before_entry(struct fonda_vcpu *vcpu)
{
#ifdef X86_FEATURE_CLEAR_CPU_BUF_VM
	if (cpu_feature_enabled(X86_FEATURE_CLEAR_CPU_BUF_VM))
		x86_clear_cpu_buffers();
#endif
	if (!svm_features.v_spec_ctrl && vcpu->msrs.spec_ctrl != fonda_host_spec_ctrl())
		wrmsrq(MSR_IA32_SPEC_CTRL, vcpu->msrs.spec_ctrl);
}

static __always_inline void after_exit(struct fonda_vcpu *vcpu)
{
	if (!svm_features.v_spec_ctrl && vcpu->msrs.spec_ctrl != fonda_host_spec_ctrl())
		wrmsrq(MSR_IA32_SPEC_CTRL, fonda_host_spec_ctrl());
}

/* One entry and exit. False: there is other work first, nothing was entered. */
static bool enter_guest(struct svm_vcpu *svm)
{
	struct svm_cpu *sc = this_cpu_ptr(&svm_cpus);
	struct fonda_vcpu *vcpu = &svm->vcpu;
	struct vmcb *vmcb = svm->vmcb;
	bool stepping;
	u32 tpr;

	local_irq_disable();
	/* Pairs with those who set a request or an interrupt, then look. */
	smp_store_mb(vcpu->mode, FONDA_IN_GUEST);
	if (unlikely(READ_ONCE(vcpu->requests))) {
		if (test_and_clear_bit(FONDA_REQ_TLB_FLUSH, &vcpu->requests))
			svm->flush = true;
		if (READ_ONCE(vcpu->requests))
			goto out_work;
	}
	if (unlikely(read_thread_flags() & FONDA_TIF_WORK) || unlikely(!sc->enabled))
		goto out_work;

	if (unlikely(vcpu->event_pending))
		inject_events(svm);
	if (READ_ONCE(vcpu->irq_pending) || unlikely(vcpu->want_window))
		offer_interrupt(svm);
	else if (vmcb->intercept_cr_write & BIT(8)) {
		vmcb->intercept_cr_write &= ~BIT(8);
		svm_dirty(svm, CLEAN_INTERCEPTS);
	}
	if (unlikely(svm->flush)) {
		svm->flush = false;
		if (svm_features.flush_by_asid && svm->asid_generation == sc->asid_generation)
			vmcb->tlb_control = VMCB_TLB_FLUSH_ASID;
		else
			svm->asid_generation = 0;
	}
	if (unlikely(svm->asid_generation != sc->asid_generation))
		new_asid(svm, sc);

	tpr = vcpu->in_kernel_apic ? lapic_get_tpr(&vcpu->lapic) : vmcb->int_ctl & V_TPR_MASK;
	vmcb->int_ctl = (vmcb->int_ctl & ~V_TPR_MASK) | tpr;
	vmcb->rip = vcpu->rip;
	vmcb->rsp = vcpu->regs[FONDA_RSP];
	vmcb->rax = vcpu->regs[FONDA_RAX];
	vmcb->rflags = vcpu->rflags;
	vmcb->int_state = vcpu->int_shadow;
	stepping = svm->nmi_singlestep && !(vcpu->rflags & X86_EFLAGS_TF);
	if (unlikely(stepping))
		vmcb->rflags |= X86_EFLAGS_TF;
	vmcb->spec_ctrl = vcpu->msrs.spec_ctrl;
	vmcb->clean = svm_features.vmcb_clean ? svm->clean : 0;

	fonda_stats_close(vcpu);
	trace_fonda_entry(vcpu);
	/* From here the time is the guest's, for RCU and context tracking too. */
	vtime_account_guest_enter();
	context_tracking_guest_enter();
	before_entry(vcpu);
	svm_enter(vcpu->regs, svm->vmcb_pa, sc->host_pa);
	after_exit(vcpu);
	context_tracking_guest_exit();
	WRITE_ONCE(vcpu->mode, FONDA_OUTSIDE);

	vcpu->rip = vmcb->rip;
	vcpu->regs[FONDA_RSP] = vmcb->rsp;
	vcpu->regs[FONDA_RAX] = vmcb->rax;
	vcpu->rflags = vmcb->rflags;
	vcpu->int_shadow = vmcb->int_state & INT_SHADOW;
	if (unlikely(stepping))
		vcpu->rflags &= ~X86_EFLAGS_TF;
	vmcb->tlb_control = VMCB_TLB_KEEP;
	vmcb->event_inj = 0;
	svm->clean = CLEAN_ALL & ~(CLEAN_INT_CTL | CLEAN_CR2);
	if (svm->drs_loaded) {
		vcpu->dr6 = vmcb->dr6;
		vcpu->dr7 = vmcb->dr7;
	}
	/*
	 * A host interrupt came while the guest ran: often the tick, which is
	 * when RCU wants to know that this CPU holds nothing.
	 */
	if (vmcb->exit_code == SVM_EXIT_INTR)
		fonda_rcu_note_guest();
	/* What the host has pending is taken here. */
	local_irq_enable();
	/* The ticks among it are the guest's. */
	vtime_account_guest_exit();

	if (vmcb->int_ctl & V_IGN_TPR)
		settle_interrupt(svm);
	if (vcpu->in_kernel_apic && (vmcb->int_ctl & V_TPR_MASK) != tpr)
		lapic_set_tpr(&vcpu->lapic, vmcb->int_ctl & V_TPR_MASK);
	if (unlikely(vmcb->exit_int_info & VMCB_EVENT_VALID || vcpu->exception.injected ||
		     vcpu->nmi_injected))
		requeue_event(svm);
	if (unlikely(svm->iret_rip && vcpu->rip != svm->iret_rip))
		svm_nmi_unmask(svm);
	return true;

out_work:
	WRITE_ONCE(vcpu->mode, FONDA_OUTSIDE);
	local_irq_enable();
	return false;
}

int svm_run(struct fonda_vcpu *vcpu)
{
	struct svm_vcpu *svm = to_svm(vcpu);
	int ret;

	do {
		if (!enter_guest(svm))
			return FONDA_RESUME_GUEST;
		ret = svm_handle_exit(vcpu);
	} while (ret == FONDA_RESUME_GUEST);
	return ret;
}
