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
 * around the entry (run.h); VERW before entry where the kernel asks for
 * it (run.h). Permission maps are never writable by anyone but us.
 */
#include "svm.h"

/* -- events ----------------------------------------------------------------- */

void svm_nmi_unmask(struct svm_vcpu *svm)
{
	svm->vcpu.nmi_masked = false;
	svm->iret_rip = 0;
}

/* "Simultaneous Interrupts" */
static void inject_events(struct svm_vcpu *svm, bool blocked)
{
	struct fonda_vcpu *vcpu = &svm->vcpu;
	u32 info;

	svm_sync_debug_registers(svm);
	info = fonda_next_event(vcpu, !blocked && !vcpu->nmi_masked && !vcpu->int_shadow);
	svm->vmcb->event_inj = info;
	svm->vmcb->event_inj_error = vcpu->exception.error;
	/* Where INT3 and INTO return to, of which the processor makes use of this. */
	svm->vmcb->next_rip = vcpu->rip + 1;
	vcpu->nmi_masked |= (info & FONDA_EVENT_TYPE) == FONDA_EVENT_TYPE_NMI;
	svm_intercept(svm, SVM_EXIT_IRET, vcpu->nmi_masked && !svm->iret_rip);
	/*
	 * One waits for the shadow of an STI or MOV SS, which single stepping ends,
	 * or for the IRET of the NMI before it: exit_iret() finds that.
	 */
	if (vcpu->nmi_pending && !blocked && (!vcpu->nmi_masked || svm->iret_rip))
		svm->nmi_singlestep = true;
}

/* Offer an interrupt; see the top of the file. */
static __always_inline void offer_interrupt(struct svm_vcpu *svm, bool pending)
{
	struct fonda_vcpu *vcpu = &svm->vcpu;
	struct vmcb *vmcb = svm->vmcb;
	int vector = pending ? fonda_irq_offer(vcpu) : -1;

	/* Its priority was compared with the TPR already. */
	if (vector >= 0) {
		vmcb->int_ctl |= V_IRQ | V_IGN_TPR | V_INTR_PRIO_MASK;
		vmcb->int_vector = vector;
	} else if (vcpu->want_window) {
		/* User space's PIC waits for its turn; the exit is all there is to it. */
		vmcb->int_ctl |= V_IRQ | V_IGN_TPR | V_INTR_PRIO_MASK;
		svm_intercept(svm, SVM_EXIT_VINTR, true);
	}
	/*
	 * A lower task priority may let another interrupt in; and QEMU's
	 * emulation dies of a CR8 write while V_IRQ is set.
	 */
	svm_watch_cr8(svm, vector != -1 || vcpu->want_window);
}

/*
 * Is it an external interrupt whose delivery the exit cut short? (QEMU's
 * emulation calls it an exception; vectors tell, since those end at 31.)
 */
static bool is_cut_interrupt(u32 info)
{
	if (!(info & FONDA_EVENT_VALID))
		return false;
	return (info & FONDA_EVENT_TYPE) == FONDA_EVENT_TYPE_INTR ||
	       ((info & FONDA_EVENT_TYPE) == FONDA_EVENT_TYPE_EXCEPTION && (u8)info > 31);
}

/* After the exit: was the offered interrupt taken? */
static __always_inline void settle_interrupt(struct svm_vcpu *svm)
{
	struct vmcb *vmcb = svm->vmcb;

	/*
	 * An exit in the middle of the delivery (a nested page fault on the
	 * IDT or the stack) leaves it in EXITINTINFO. It was not taken then: it
	 * is still in the interrupt controller and will be offered again.
	 */
	if (unlikely(vmcb->intercepts[SVM_EXIT_VINTR / 32] & BIT(SVM_EXIT_VINTR % 32))) {
		svm_intercept(svm, SVM_EXIT_VINTR, false);
	} else {
		bool taken = !(vmcb->int_ctl & V_IRQ) && !is_cut_interrupt(vmcb->exit_int_info);

		if (taken)
			trace_fonda_inject(&svm->vcpu, vmcb->int_vector, 0);
		fonda_settle_offer(&svm->vcpu, vmcb->int_vector, taken);
	}
	vmcb->int_ctl &= ~(V_IRQ | V_IGN_TPR);
	svm_watch_cr8(svm, false);
}

/* After the exit: what became of all that prepare_entry() did. */
static noinline void settle(struct svm_vcpu *svm)
{
	struct vmcb *vmcb = svm->vmcb;
	u8 all = svm->unsettled & UNSETTLED_ALL;

	svm->unsettled = 0;
	if (vmcb->int_ctl & V_IGN_TPR)
		settle_interrupt(svm);
	if (likely(!all && !(vmcb->exit_int_info & FONDA_EVENT_VALID)))
		return;
	vmcb->tlb_control = VMCB_TLB_KEEP;
	vmcb->event_inj = 0;
	svm->vcpu.rflags &= ~svm->own_tf;
	/* An external interrupt is offered anew. */
	fonda_requeue_event(&svm->vcpu, is_cut_interrupt(vmcb->exit_int_info) ? 0 :
			    vmcb->exit_int_info, vmcb->exit_int_info_error);
	if (svm->iret_rip && svm->vcpu.rip != svm->iret_rip)
		svm_nmi_unmask(svm);
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

/* FONDA_BREAK_ENTRY: the field gets its value, and after that entry its own again. */
static noinline void swap_broken_field(struct svm_vcpu *svm)
{
	void *field = (void *)svm->vmcb + svm->broken.field;
	u64 old = 0;

	memcpy(&old, field, svm->broken.size);
	memcpy(field, &svm->broken.value, svm->broken.size);
	svm->broken.value = old;
	svm->is_broken = !svm->is_broken;
	if (svm->is_broken)
		memcpy(svm->refused, svm->vmcb, sizeof(*svm->vmcb));
	else
		svm->broken.size = 0;
	svm->vcpu.backend_work = true;
	svm_dirty(svm, CLEAN_ALL);
}

/* Events, stale translations, and what else the flags of entry_work stand for. */
static noinline void prepare_all(struct svm_vcpu *svm)
{
	struct svm_cpu *sc = this_cpu_ptr(&svm_cpus);
	struct fonda_vcpu *vcpu = &svm->vcpu;
	bool blocked = vcpu->debug.control & KVM_GUESTDBG_BLOCKIRQ, step;

	svm->unsettled = UNSETTLED_ALL;
	if (svm->is_broken)
		swap_broken_field(svm);
	svm->vmcb->spec_ctrl = vcpu->msrs.spec_ctrl;
	if (vcpu->event_pending)
		inject_events(svm, blocked);
	if (!blocked)
		offer_interrupt(svm, READ_ONCE(vcpu->irq_pending));
	step = svm->nmi_singlestep || vcpu->debug.control & KVM_GUESTDBG_SINGLESTEP;
	svm->own_tf = step ? X86_EFLAGS_TF & ~vcpu->rflags : 0;
	vcpu->rflags |= svm->own_tf;
	/* Until that is over. */
	vcpu->backend_work = step || blocked || svm->iret_rip;
	if (vcpu->flush && svm_features.flush_by_asid)
		svm->vmcb->tlb_control = VMCB_TLB_FLUSH_ASID;
	else if (vcpu->flush)
		svm->asid_generation = 0;
	vcpu->flush = false;
	/* A new one needs no flush, but where the numbers begin anew. */
	if (svm->asid_generation != sc->asid_generation)
		new_asid(svm, sc);
	if (unlikely(svm->broken.size))
		swap_broken_field(svm);
}

/* What most entries have nothing of, and the others most often an interrupt. */
static noinline void prepare_entry(struct fonda_vcpu *vcpu)
{
	struct svm_vcpu *svm = to_svm(vcpu);

	if (unlikely(READ_ONCE(vcpu->entry_work) != FONDA_WORK_IRQ)) {
		prepare_all(svm);
	} else {
		svm->unsettled = UNSETTLED_OFFER;
		offer_interrupt(svm, true);
	}
}

/* Into the control block what was loaded on another CPU. */
static void section_begin(struct fonda_vcpu *vcpu)
{
	struct svm_cpu *sc = this_cpu_ptr(&svm_cpus);
	struct svm_vcpu *svm = to_svm(vcpu);

	if (svm->vmcb_cpu != vcpu->cpu) {
		svm->vmcb_cpu = vcpu->cpu;
		svm->asid_generation = 0;
		svm_dirty(svm, CLEAN_ALL);
	}
	if (svm->asid_generation != sc->asid_generation)
		vcpu->backend_work = true;
	if (svm->vmcb->dr7 & DR_LOCAL_ENABLE_MASK || svm->vmcb->dr7 & DR_GLOBAL_ENABLE_MASK)
		svm_load_debug_registers(svm);
}

/* One entry and exit. Interrupts are off. */
static __always_inline const struct fonda_exit *enter(struct fonda_vcpu *vcpu)
{
	struct svm_vcpu *svm = to_svm(vcpu);
	struct vmcb *vmcb = svm->vmcb;
	/* User space's local APIC has its TPR there, too. */
	u8 tpr = lapic_get_tpr(&vcpu->lapic);

	vmcb->v_tpr = tpr;
	vmcb->rip = vcpu->rip;
	vmcb->rsp = vcpu->regs[FONDA_RSP];
	vmcb->rax = vcpu->regs[FONDA_RAX];
	vmcb->rflags = vcpu->rflags;
	vmcb->int_state = vcpu->int_shadow;
	fonda_before_switch(vcpu);
	svm_enter(vcpu->regs, svm->vmcb_pa, this_cpu_read(svm_cpus.host_pa));
	fonda_after_switch(vcpu);

	vcpu->rip = vmcb->rip;
	vcpu->regs[FONDA_RSP] = vmcb->rsp;
	vcpu->regs[FONDA_RAX] = vmcb->rax;
	vcpu->rflags = vmcb->rflags;
	vcpu->int_shadow = vmcb->int_state & INT_SHADOW;
	vmcb->clean = svm_clean_after_exit;
	if (unlikely(svm->unsettled || vmcb->exit_int_info & FONDA_EVENT_VALID))
		settle(svm);
	if (unlikely(vmcb->v_tpr != tpr))
		lapic_set_tpr(&vcpu->lapic, vmcb->v_tpr);
	if (trace_fonda_exit_enabled())
		trace_fonda_exit(vcpu, vmcb->exit_code, vmcb->exit_info_1);
	return svm_find_exit(vmcb->exit_code);
}

/*
 * FS and GS bases of this task, and the rest that VMLOAD replaces. An interrupt of the
 * host may have loaded another LDT and freed the one before.
 */
static __always_inline void save_host(struct fonda_vcpu *vcpu)
{
	asm volatile("vmsave %%rax" : : "a"(this_cpu_read(svm_cpus.host_pa)) : "memory");
}

static __always_inline void nothing(struct fonda_vcpu *vcpu)
{
}

int svm_run(struct fonda_vcpu *vcpu)
{
	int ret;

	section_begin(vcpu);
	ret = fonda_inner_loop(vcpu, (struct fonda_loop){
		.open = save_host, .close = nothing, .prepare = prepare_entry,
		.enter = enter, .dispatch = svm_dispatch });
	if (to_svm(vcpu)->drs_loaded)
		svm_unload_debug_registers(to_svm(vcpu));
	/* The host must not find causes of the guest's there. */
	if (unlikely(to_svm(vcpu)->vmcb->dr6 != DR6_RESERVED))
		set_debugreg(DR6_RESERVED, 6);
	return ret;
}
