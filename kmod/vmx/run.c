// SPDX-License-Identifier: GPL-2.0-only
/*
 * Into a VT-x guest and out of it: what is injected, what is loaded around a
 * section and around an entry, and how what was offered is settled.
 *
 * Mitigations of speculation, and where: RSB filled and registers cleared
 * (enter.h); IBPB when another vCPU follows on a CPU (vcpu.c); guest SPEC_CTRL
 * and VERW around the entry (run.h); the L1 data cache flushed before the first
 * entry of a section where L1TF needs it. Permission maps are never writable by
 * anyone but us.
 */
#include <asm/cpu_entry_area.h>
#include <asm/desc.h>
#include <asm/segment.h>

#include "vmx.h"

static bool flush_l1d = true;
module_param(flush_l1d, bool, 0644);
MODULE_PARM_DESC(flush_l1d, "on processors with L1TF, flush the L1 data cache before guests run");

/* -- events ----------------------------------------------------------------- */

static void inject_events(struct vmx_vcpu *vmx, bool blocked)
{
	struct fonda_vcpu *vcpu = &vmx->vcpu;
	u32 info;

	if (vmx->drs_loaded)
		get_debugreg(vcpu->dr6, 6);
	info = fonda_next_event(vcpu, !blocked && !vcpu->nmi_masked && !vcpu->int_shadow);
	if ((info & FONDA_EVENT_TYPE) == FONDA_EVENT_TYPE_NMI)
		vcpu->nmi_masked = false;
	/* INT3 and INTO, of which the handler expects to find RIP behind them. */
	if ((u8)info == X86_TRAP_BP || (u8)info == X86_TRAP_OF) {
		info ^= FONDA_EVENT_TYPE_EXCEPTION ^ EVENT_TYPE_SOFT_EXCEPTION;
		vmwrite(VMCS_ENTRY_INSN_LEN, 1);
	}
	/* "Checks on VM-Entry Control Fields": none in real mode. */
	if (!(vmread(VMCS_GUEST_CR0) & X86_CR0_PE))
		info &= ~FONDA_EVENT_ERROR;
	vmwrite(VMCS_ENTRY_EXCEPTION_ERROR, vcpu->exception.error);
	vmx->event_injected = info;
	vmwrite(VMCS_ENTRY_INTR_INFO, info);
	if (info)
		vmwrite(VMCS_GUEST_ACTIVITY, 0);
}

static void set_tpr_threshold(struct vmx_vcpu *vmx, u32 threshold)
{
	if (threshold != vmx->tpr_threshold)
		vmwrite(VMCS_TPR_THRESHOLD, threshold);
	vmx->tpr_threshold = threshold;
}

/* Word @i of a register of the virtual-APIC page. */
static u32 *virtual_reg(struct vmx_vcpu *vmx, u32 reg, int i)
{
	return (u32 *)(vmx->virtual_apic + reg) + 4 * i;
}

/* Until the exit the processor has what waits and what is in service. */
static void load_virtual_apic(struct vmx_vcpu *vmx)
{
	struct fonda_lapic *apic = &vmx->vcpu.lapic;
	u16 status = max_t(int, apic->isr_top, 0) << 8;
	u32 *isr = (u32 *)apic->isr, *irr = (u32 *)apic->irr, word;
	u64 exits;
	int i;

	for (i = 7; i >= 0; i--) {
		*virtual_reg(vmx, APIC_ISR, i) = isr[i];
		word = READ_ONCE(irr[i]) ? xchg(&irr[i], 0) : 0;
		*virtual_reg(vmx, APIC_IRR, i) = word;
		if (word && !(u8)status)
			status |= 32 * i + __fls(word);
	}
	if (status != vmx->apic_status)
		vmwrite(VMCS_GUEST_INTERRUPT_STATUS, status);
	vmx->apic_status = status;
	/* After what waits: whose trigger mode was set before. */
	for (i = 0; i < 4; i++) {
		exits = READ_ONCE(apic->tmr[i]) | READ_ONCE(apic->chip->eoi_vectors[i]);
		if (exits != vmx->eoi_exits[i])
			vmwrite(VMCS_EOI_EXIT_BITMAP + 2 * i, exits);
		vmx->eoi_exits[i] = exits;
	}
}

/* And after it the local APIC has everything again. */
static noinline void save_virtual_apic(struct vmx_vcpu *vmx, u16 status)
{
	struct fonda_lapic *apic = &vmx->vcpu.lapic;
	u32 word;
	int i;

	for (i = 0; i < 8; i++) {
		((u32 *)apic->isr)[i] = *virtual_reg(vmx, APIC_ISR, i);
		word = *virtual_reg(vmx, APIC_IRR, i);
		if (word)
			atomic_or(word, (atomic_t *)apic->irr + i);
	}
	apic->isr_top = status >> 8 ?: -1;
	vmx->apic_status = status;
	lapic_recheck(apic);
}

/* An exit has cut short the delivery of the last that the processor took: take it back. */
static void undo_delivery(struct fonda_lapic *apic)
{
	int vector = apic->isr_top, below;

	__clear_bit(vector, apic->isr);
	below = find_last_bit(apic->isr, 256);
	apic->isr_top = below < 256 ? below : -1;
	lapic_settle(apic, vector, false);
}

/* Offer an interrupt, or have the guest leave when it can take one. True: so wait. */
static bool offer_interrupt(struct vmx_vcpu *vmx)
{
	struct fonda_vcpu *vcpu = &vmx->vcpu;
	bool open = !vmx->event_injected && vcpu->rflags & X86_EFLAGS_IF && !vcpu->int_shadow;
	bool tpr_blocked = false, wait = vcpu->want_window;

	if (vmx->apicv) {
		/* As in fonda_irq_offer(): then a look at what waits. */
		smp_store_mb(vcpu->irq_pending, false);
		if (fonda_extint_waits(vcpu))
			WRITE_ONCE(vcpu->irq_pending, true);
	}
	if (READ_ONCE(vcpu->irq_pending) && open) {
		vmx->offered = fonda_irq_offer(vcpu);
		tpr_blocked = vmx->offered == LAPIC_TPR_BLOCKED;
	} else if (READ_ONCE(vcpu->irq_pending)) {
		if (fonda_irq_waits(vcpu))
			wait = true;
		else
			tpr_blocked = READ_ONCE(vcpu->irq_pending);
	}
	if (vmx->apicv) {
		/* One that has come meanwhile, or the ExtINT was withdrawn. */
		if (vmx->offered >= 0 && !vcpu->lapic.offered_ext) {
			fonda_irq_settle(vcpu, vmx->offered, false);
			vmx->offered = -1;
		}
		load_virtual_apic(vmx);
	}
	if (vmx->offered >= 0)
		vmwrite(VMCS_ENTRY_INTR_INFO,
			vmx->offered | FONDA_EVENT_VALID | FONDA_EVENT_TYPE_INTR);
	/* A lower task priority may let another one in. */
	set_tpr_threshold(vmx, tpr_blocked && vcpu->in_kernel_apic ?
			       lapic_get_tpr(&vcpu->lapic) : 0);
	return wait;
}

/* After the exit: what became of all that prepare_entry() did. */
static noinline void settle(struct vmx_vcpu *vmx, bool entered)
{
	u32 type = vmx->idt_info & FONDA_EVENT_TYPE;
	bool cut = vmx->idt_info & FONDA_EVENT_VALID, interrupt = type == FONDA_EVENT_TYPE_INTR;
	struct fonda_vcpu *vcpu = &vmx->vcpu;
	u64 flags = vcpu->rflags;
	int vector = vmx->offered;

	vmx->unsettled = false;
	vcpu->rflags &= ~vmx->own_tf;
	vmx->offered = -1;
	if (vector >= 0) {
		if (entered && !cut)
			trace_fonda_inject(vcpu, vector, 0);
		/* An exit in the middle of the delivery: it is offered anew. */
		fonda_settle_offer(vcpu, vector, entered && !(cut && interrupt));
	} else if (cut && interrupt && vcpu->lapic.isr_top >= 0) {
		undo_delivery(&vcpu->lapic);
	}
	fonda_requeue_event(vcpu, cut && !interrupt ? vmx->idt_info : 0,
			    cut ? vmread(VMCS_IDT_VECTORING_ERROR) : 0);
	/* Injected again, an NMI must not find itself masked. */
	if (vcpu->nmi_injected)
		vcpu->nmi_masked = false;
	/* INT n had begun; it executes again, perhaps after an STI, and before what waits. */
	if (cut && type == EVENT_TYPE_SOFT_INTERRUPT && flags & X86_EFLAGS_IF &&
	    !(flags & X86_EFLAGS_TF))
		vcpu->int_shadow = BLOCKED_BY_STI;
}

/* -- entry ------------------------------------------------------------------ */

/* FONDA_BREAK_ENTRY: the field gets its value, and after that entry its own again. */
static noinline void swap_broken_field(struct vmx_vcpu *vmx)
{
	u64 old = vmread(vmx->broken.field);

	vmwrite(vmx->broken.field, vmx->broken.value);
	vmx->broken.value = old;
	vmx->breaks = false;
	vmx->is_broken = !vmx->is_broken;
	vmx->vcpu.backend_work = true;
}

/* What most entries have nothing of: events, interrupts, stale translations. */
static noinline void prepare_entry(struct fonda_vcpu *vcpu)
{
	bool blocked = vcpu->debug.control & KVM_GUESTDBG_BLOCKIRQ, wait = false, nmi, apicv;
	struct vmx_vcpu *vmx = to_vmx(vcpu);

	vmx->unsettled = true;
	vmx->event_injected = false;
	vcpu->backend_work = false;
	if (vmx->is_broken)
		swap_broken_field(vmx);
	/* An event that did not get in would wait there. */
	if (vmx->reason & EXIT_ENTRY_FAILED)
		vmwrite(VMCS_ENTRY_INTR_INFO, 0);
	if (vcpu->event_pending)
		inject_events(vmx, blocked);
	/* Switched off, it would refuse the self-IPIs that the processor accepts. */
	apicv = vmx_apicv && vcpu->lapic.x2apic && vcpu->lapic.sw_enabled && !blocked;
	if (apicv != vmx->apicv)
		vmx_set_apicv(vmx, apicv);
	if (!blocked)
		wait = offer_interrupt(vmx);
	else
		set_tpr_threshold(vmx, 0);
	/* Processors differ in whether the shadow of an STI closes the window of NMIs. */
	nmi = vcpu->nmi_pending && !blocked;
	vmx_control(vmx, CPU_INTERRUPT_WINDOW, wait || (nmi && vcpu->int_shadow & BLOCKED_BY_STI));
	vmx_control(vmx, CPU_NMI_WINDOW, nmi && !(vcpu->int_shadow & BLOCKED_BY_STI));
	vmx->own_tf = 0;
	if (vcpu->debug.control & KVM_GUESTDBG_SINGLESTEP) {
		vmx->own_tf = X86_EFLAGS_TF & ~vcpu->rflags;
		vcpu->rflags |= X86_EFLAGS_TF;
		vmwrite(VMCS_GUEST_ACTIVITY, 0);
		vcpu->backend_work = true;
	}
	if (vcpu->flush)
		vmx_forget("invept", vmx->eptp);
	if (vmx->flush_vpid)
		vmx_forget("invvpid", vmx->vpid);
	vcpu->flush = false;
	vmx->flush_vpid = false;
}

/* "Pending Debug Exceptions": a trap that waits for the end of the shadow. */
static noinline void fix_pending_debug(struct fonda_vcpu *vcpu)
{
	u64 pending = vmread(VMCS_GUEST_PENDING_DEBUG) & ~PENDING_DEBUG_BS;

	if (vcpu->rflags & X86_EFLAGS_TF && !(vmread(VMCS_GUEST_DEBUGCTL) & DEBUGCTLMSR_BTF))
		pending |= PENDING_DEBUG_BS;
	vmwrite(VMCS_GUEST_PENDING_DEBUG, pending);
}

/* Pages that the processor has listed from the end of its buffer on. */
static noinline void drain_pml(struct vmx_vcpu *vmx, u16 index)
{
	int i;

	/* It names the next free entry, and -1 when there is none. */
	for (i = 511; i > (s16)index; i--)
		fonda_dirty_logged(&vmx->vcpu, vmx->pml[i]);
	vmwrite(VMCS_GUEST_PML_INDEX, 511);
}

/* Have the guest leave at its deadline. Not the value of the last exit: time goes on after it. */
static noinline void set_timer(struct vmx_vcpu *vmx)
{
	bool on = vmx->vcpu.lapic.watched;
	u64 ticks;

	if (on) {
		ticks = fonda_ticks_until(&vmx->vcpu, vmx->vcpu.lapic.tsc_deadline);
		/* The first one of the timer's may be short. If all is too early: exit_timer(). */
		ticks = ticks ? (ticks >> vmx_features.timer_shift) + 1 : 0;
		vmwrite(VMCS_PREEMPTION_TIMER, min_t(u64, ticks, U32_MAX));
	}
	if (on != vmx->timer_on)
		vmwrite(VMCS_PIN_CONTROLS, vmx_features.pin | (on ? PIN_PREEMPTION_TIMER : 0));
	vmx->timer_on = on;
}

/* One entry and exit. Interrupts are off. */
static __always_inline const struct fonda_exit *enter(struct fonda_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);
	unsigned long cr3 = __read_cr3();
	u8 *vtpr = &vmx->virtual_apic[APIC_TASKPRI], tpr = vcpu->lapic.regs[APIC_TASKPRI / 16];
	bool failed;
	u16 index, status;
	u32 state;

	*vtpr = tpr;
	vmwrite(VMCS_GUEST_RIP, vcpu->rip);
	vmwrite(VMCS_GUEST_RSP, vcpu->regs[FONDA_RSP]);
	vmwrite(VMCS_GUEST_RFLAGS, vcpu->rflags);
	state = vcpu->int_shadow | (vcpu->nmi_masked ? BLOCKED_BY_NMI : 0);
	if (unlikely(state != vmx->interruptibility))
		vmwrite(VMCS_GUEST_INTERRUPTIBILITY, state);
	vmx->interruptibility = state;
	if (unlikely(vcpu->int_shadow))
		fix_pending_debug(vcpu);
	if (unlikely(cr3 != vmx->host_cr3))
		vmwrite(VMCS_HOST_CR3, cr3);
	vmx->host_cr3 = cr3;
	if (vcpu->lapic.watched || vmx->timer_on)
		set_timer(vmx);
	if (unlikely(vmx->breaks))
		swap_broken_field(vmx);
	fonda_before_switch(vcpu);
	if (native_read_cr2() != vmx->cr2)
		native_write_cr2(vmx->cr2);
	failed = vmx_enter(vcpu->regs, vmx->launched);
	vmx->cr2 = native_read_cr2();
	fonda_after_switch(vcpu);
	if (unlikely(vmx->host_debugctl))
		wrmsrq(MSR_IA32_DEBUGCTLMSR, vmx->host_debugctl);

	vmx->reason = failed ? EXIT_ENTRY_FAILED : vmread(VMCS_EXIT_REASON);
	vmx->qualification = vmread(VMCS_EXIT_QUALIFICATION);
	vmx->idt_info = vmread(VMCS_IDT_VECTORING_INFO);
	if (vmx->reason == EXIT_REASON_EPT_VIOLATION || vmx->reason == EXIT_REASON_EPT_MISCONFIG)
		vmx->gpa = vmread(VMCS_GUEST_PHYSICAL_ADDRESS);
	if (vmx->apicv) {
		status = vmread(VMCS_GUEST_INTERRUPT_STATUS);
		/* Nothing waited, and nothing but that was served meanwhile. */
		if (status | vmx->apic_status)
			save_virtual_apic(vmx, status);
	}
	if (unlikely(vmx->reason & EXIT_ENTRY_FAILED)) {
		vmx->insn_error = failed ? vmread(VMCS_INSN_ERROR) : 0;
		vmx->idt_info = 0;
		settle(vmx, false);
		vcpu->backend_work = true;
		return vmx_find_exit(vmx->reason);
	}
	vmx->launched = true;
	vcpu->rip = vmread(VMCS_GUEST_RIP);
	vcpu->regs[FONDA_RSP] = vmread(VMCS_GUEST_RSP);
	vcpu->rflags = vmread(VMCS_GUEST_RFLAGS);
	vcpu->insn_len = vmread(VMCS_EXIT_INSN_LEN);
	state = vmread(VMCS_GUEST_INTERRUPTIBILITY);
	vmx->interruptibility = state;
	vcpu->int_shadow = state & (BLOCKED_BY_STI | BLOCKED_BY_MOV_SS);
	vcpu->nmi_masked = state & BLOCKED_BY_NMI;
	if (unlikely(vmx->unsettled || vmx->idt_info & FONDA_EVENT_VALID))
		settle(vmx, true);
	if (unlikely(*vtpr != tpr))
		vcpu->lapic.regs[APIC_TASKPRI / 16] = *vtpr;
	if (unlikely(vmx->pml)) {
		index = vmread(VMCS_GUEST_PML_INDEX);
		if (index != 511)
			drain_pml(vmx, index);
	}
	if (trace_fonda_exit_enabled())
		trace_fonda_exit(vcpu, vmx->reason, vmx->qualification);
	return vmx_find_exit(vmx->reason);
}

/* -- sections --------------------------------------------------------------- */

/*
 * DR0-DR3 and DR6 of the guest, or of its debugger, into the processor until the
 * section ends. A debugger owns them: the guest must keep exiting on its own.
 */
void vmx_load_debug_registers(struct vmx_vcpu *vmx)
{
	struct fonda_vcpu *vcpu = &vmx->vcpu;

	if (vmx->drs_loaded)
		return;
	fonda_load_debug_registers(vcpu);
	set_debugreg(vcpu->dr6, 6);
	vmx->drs_loaded = true;
	vmx_control(vmx, CPU_MOV_DR, vcpu->debug.control & KVM_GUESTDBG_USE_HW_BP);
}

static void unload_debug_registers(struct vmx_vcpu *vmx)
{
	struct fonda_vcpu *vcpu = &vmx->vcpu;

	get_debugreg(vcpu->dr6, 6);
	if (!(vcpu->debug.control & KVM_GUESTDBG_USE_HW_BP)) {
		fonda_save_debug_registers(vcpu);
		vcpu->dr7 = vmread(VMCS_GUEST_DR7);
	}
	/* The host must not find causes of the guest's there. */
	set_debugreg(DR6_RESERVED, 6);
	vmx->drs_loaded = false;
	vmx_control(vmx, CPU_MOV_DR, true);
}

/* What an exit loads, of this CPU and of this task. */
static void save_host_state(struct vmx_vcpu *vmx)
{
	int cpu = vmx->vcpu.cpu;
	struct desc_ptr idt;
	u64 val;

	if (vmx->host_cpu != cpu) {
		vmx->host_cpu = cpu;
		store_idt(&idt);
		vmwrite(VMCS_HOST_IDTR_BASE, idt.address);
		vmwrite(VMCS_HOST_GDTR_BASE, (unsigned long)get_cpu_gdt_ro(cpu));
		vmwrite(VMCS_HOST_TR_BASE,
			(unsigned long)&get_cpu_entry_area(cpu)->tss.x86_tss);
		rdmsrq(MSR_IA32_SYSENTER_ESP, val);
		vmwrite(VMCS_HOST_SYSENTER_ESP, val);
		rdmsrq(MSR_GS_BASE, val);
		vmwrite(VMCS_HOST_GS_BASE, val);
		/* What this CPU has cached of the guest may be from long ago. */
		fonda_flush(&vmx->vcpu);
	}
	rdmsrq(MSR_FS_BASE, val);
	vmwrite(VMCS_HOST_FS_BASE, val);
	/* An exit loads null selectors, but for CS, SS and TR. */
	savesegment(ds, vmx->ds);
	savesegment(es, vmx->es);
	savesegment(fs, vmx->fs);
	savesegment(gs, vmx->gs);
	asm volatile("sldt %0" : "=m"(vmx->ldt));
}

/* The user space of a 64-bit kernel has selectors there that are rarely not null. */
static void restore_selectors(struct vmx_vcpu *vmx)
{
	u64 val;

	if (unlikely(vmx->ldt))
		asm volatile("lldt %0" : : "m"(vmx->ldt));
	if (unlikely(vmx->ds | vmx->es)) {
		loadsegment(ds, vmx->ds);
		loadsegment(es, vmx->es);
	}
	if (unlikely(vmx->fs)) {
		rdmsrq(MSR_FS_BASE, val);
		loadsegment(fs, vmx->fs);
		wrmsrq(MSR_FS_BASE, val);
	}
	if (unlikely(vmx->gs)) {
		rdmsrq(MSR_KERNEL_GS_BASE, val);
		load_gs_index(vmx->gs);
		wrmsrq(MSR_KERNEL_GS_BASE, val);
	}
}

static void section_begin(struct fonda_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);

	vmx_open(vmx);
	save_host_state(vmx);
	vmx_switch_msrs(vmx, true);
	if (vcpu->debug.control & KVM_GUESTDBG_USE_HW_BP ||
	    vcpu->dr7 & (DR_LOCAL_ENABLE_MASK | DR_GLOBAL_ENABLE_MASK))
		vmx_load_debug_registers(vmx);
	vmx_close(vmx);
	vcpu->lapic.watches = vmx_timer;
}

static void section_end(struct fonda_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);

	/* From here on the deadline is the timer's again. */
	vcpu->lapic.watches = false;
	if (vcpu->lapic.watched)
		lapic_set_deadline(&vcpu->lapic, vcpu->lapic.tsc_deadline);
	vmx_open(vmx);
	if (vmx->drs_loaded)
		unload_debug_registers(vmx);
	vmx_switch_msrs(vmx, false);
	vmx_close(vmx);
	if (unlikely(vmx->host_test_ctrl))
		wrmsrq(MSR_TEST_CTRL, vmx->host_test_ctrl);
	vmx->host_test_ctrl = 0;
	restore_selectors(vmx);
	/* An exit leaves these tables' limits at 64 KiB, and the task's without a port map. */
	load_fixmap_gdt(vcpu->cpu);
	invalidate_tss_limit();
}

static __always_inline int dispatch(struct fonda_vcpu *vcpu, const struct fonda_exit *e)
{
	return e->handle(vcpu);
}

/* Interrupts of the host may have changed these, and used the cache, since they were off. */
static void open_for_loop(struct fonda_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);
	unsigned long cr4;
	u64 val;

	vmx_open(vmx);
	cr4 = __read_cr4();
	if (cr4 != vmx->host_cr4)
		vmwrite(VMCS_HOST_CR4, cr4);
	vmx->host_cr4 = cr4;
	rdmsrq(MSR_IA32_DEBUGCTLMSR, vmx->host_debugctl);
	/* A record that is due would be written through the guest's tables. */
	if (boot_cpu_has(X86_FEATURE_PEBS)) {
		rdmsrq(MSR_IA32_PEBS_ENABLE, vmx->host_pebs);
		if (unlikely(vmx->host_pebs))
			wrmsrq(MSR_IA32_PEBS_ENABLE, 0);
	}
	if (vmx_features.perf) {
		rdmsrq(MSR_CORE_PERF_GLOBAL_CTRL, val);
		vmwrite(VMCS_HOST_PERF, val);
		vmwrite(VMCS_GUEST_PERF, 0);
	}
	if (boot_cpu_has_bug(X86_BUG_L1TF) && boot_cpu_has(X86_FEATURE_FLUSH_L1D) && flush_l1d)
		wrmsrq(MSR_IA32_FLUSH_CMD, L1D_FLUSH);
}

static void close_for_loop(struct fonda_vcpu *vcpu)
{
	if (unlikely(to_vmx(vcpu)->host_pebs))
		wrmsrq(MSR_IA32_PEBS_ENABLE, to_vmx(vcpu)->host_pebs);
	vmx_close(to_vmx(vcpu));
}

int vmx_run(struct fonda_vcpu *vcpu)
{
	int ret;

	section_begin(vcpu);
	ret = fonda_inner_loop(vcpu, (struct fonda_loop){
		.open = open_for_loop, .close = close_for_loop,
		.prepare = prepare_entry, .enter = enter, .dispatch = dispatch });
	section_end(vcpu);
	return ret;
}
