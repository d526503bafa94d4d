// SPDX-License-Identifier: GPL-2.0-only
/*
 * A vCPU: its lifetime, KVM_RUN, and the events that wait for its next entry.
 *
 * KVM_RUN is two loops. The inner one is the backend's: inside a section
 * (preemption off, guest FPU loaded) it enters the guest and handles exits that
 * need not sleep. The outer one is here: it does what requests ask for, sleeps
 * while the guest is halted, and repeats handlers that had to sleep.
 */
#include <asm/fpu/api.h>
#include <asm/fpu/xcr.h>

#include "backend.h"

static uint halt_poll_us = 50;
module_param(halt_poll_us, uint, 0644);
MODULE_PARM_DESC(halt_poll_us, "longest time a halted vCPU polls for work before it sleeps, in microseconds");

/* -- reaching a vCPU -------------------------------------------------------- */

void fonda_vcpu_kick(struct fonda_vcpu *vcpu)
{
	/*
	 * What the caller set must be visible before the mode is looked at; the
	 * vCPU stores its mode, then looks for work (fonda_go_in()).
	 */
	smp_mb();
	if (READ_ONCE(vcpu->mode) == FONDA_IN_GUEST) {
		int cpu = READ_ONCE(vcpu->cpu);

		/* On its own CPU, we are what has ended the guest's run. */
		if (cpu != raw_smp_processor_id())
			smp_send_reschedule(cpu);
	} else if (rcuwait_active(&vcpu->wait)) {
		rcuwait_wake_up(&vcpu->wait);
	}
}

long fonda_vcpu_nmi(struct fonda_vcpu *vcpu)
{
	atomic_inc(&vcpu->nmi_queued);
	smp_mb__after_atomic();
	WRITE_ONCE(vcpu->event_pending, true);
	fonda_vcpu_kick(vcpu);
	return 0;
}

void fonda_slots_enter(struct fonda_vcpu *vcpu) __acquires(&vcpu->vm->srcu)
{
	/* Marked before the barrier in srcu_read_lock(): fonda_vm_synchronize(). */
	WRITE_ONCE(vcpu->thread, current);
	vcpu->srcu_idx = srcu_read_lock(&vcpu->vm->srcu);
}

void fonda_slots_leave(struct fonda_vcpu *vcpu) __releases(&vcpu->vm->srcu)
{
	srcu_read_unlock(&vcpu->vm->srcu, vcpu->srcu_idx);
	WRITE_ONCE(vcpu->thread, NULL);
}

/* -- exceptions ------------------------------------------------------------- */

/* "Exception classes" of the double-fault table, both vendors' manuals. */
static bool is_contributory(u8 vector)
{
	return vector == X86_TRAP_DE || (vector >= X86_TRAP_TS && vector <= X86_TRAP_GP);
}

void fonda_queue(struct fonda_vcpu *vcpu, const struct fonda_exception *new)
{
	struct fonda_exception *ex = &vcpu->exception;
	bool first = !ex->pending && !ex->injected;
	bool doubles = !first && (is_contributory(ex->vector) || ex->vector == X86_TRAP_PF) &&
		       (is_contributory(new->vector) ||
			(ex->vector == X86_TRAP_PF && new->vector == X86_TRAP_PF));

	vcpu->event_pending = true;
	if (!first && ex->vector == X86_TRAP_DF) {
		/* A fault while delivering a double fault shuts down. */
		*ex = (struct fonda_exception){ };
		fonda_request(vcpu, FONDA_REQ_TRIPLE_FAULT);
		return;
	}
	/* Benign: the newer one first, the older's instruction runs again. */
	*ex = !doubles ? *new :
	      (struct fonda_exception){ .vector = X86_TRAP_DF, .has_error = true };
	ex->pending = true;
}

static int exit_with(struct fonda_vcpu *vcpu, u32 reason)
{
	vcpu->run->exit_reason = reason;
	return FONDA_EXIT_USER;
}

int fonda_exit_debug(struct fonda_vcpu *vcpu, u32 exception, u64 dr6, u64 dr7)
{
	struct fonda_segment cs;

	fonda_backend->get_segment(vcpu, FONDA_SEG_CS, &cs);
	vcpu->run->debug.arch = (struct kvm_debug_exit_arch){
		.exception = exception, .pc = cs.base + vcpu->rip, .dr6 = dr6, .dr7 = dr7 };
	return exit_with(vcpu, KVM_EXIT_DEBUG);
}

int fonda_exit_fail_entry(struct fonda_vcpu *vcpu, u64 reason)
{
	if (vcpu->atomic)
		return FONDA_RETRY_SLEEPING;
	kvfree(vcpu->failed_entry);
	vcpu->failed_entry = kvzalloc(sizeof(*vcpu->failed_entry), GFP_KERNEL_ACCOUNT);
	if (!vcpu->failed_entry)
		return -ENOMEM;
	vcpu->failed_entry->phys_bits = boot_cpu_data.x86_phys_bits;
	fonda_backend->describe_entry(vcpu, vcpu->failed_entry);
	vcpu->run->fail_entry.hardware_entry_failure_reason = reason;
	vcpu->run->fail_entry.cpu = vcpu->cpu;
	return exit_with(vcpu, KVM_EXIT_FAIL_ENTRY);
}

int fonda_exit_internal_error(struct fonda_vcpu *vcpu, u32 suberror, const u64 *data, int ndata)
{
	struct kvm_run *run = vcpu->run;

	run->internal.suberror = suberror;
	run->internal.ndata = ndata;
	memcpy(run->internal.data, data, ndata * sizeof(*data));
	return exit_with(vcpu, KVM_EXIT_INTERNAL_ERROR);
}

bool fonda_in_64bit_mode(struct fonda_vcpu *vcpu)
{
	struct fonda_paging paging;
	gva_t rip;

	return fonda_backend->get_code(vcpu, &paging, &rip) == 64;
}

int fonda_skip_insn_slowly(struct fonda_vcpu *vcpu, int len)
{
	unsigned long rip = vcpu->rip + len;

	/* Only 64-bit code goes on past 4 GiB. */
	if ((rip ^ vcpu->rip) >> 32 && !fonda_in_64bit_mode(vcpu))
		rip = (u32)rip;
	vcpu->rip = rip;
	vcpu->rflags &= ~X86_EFLAGS_RF;
	if (vcpu->debug.control & KVM_GUESTDBG_SINGLESTEP)
		return fonda_exit_debug(vcpu, X86_TRAP_DB, FONDA_DR6_INIT | DR_STEP, vcpu->dr7);
	if (vcpu->rflags & X86_EFLAGS_TF)
		fonda_queue_debug(vcpu, DR_STEP);
	return FONDA_RESUME_GUEST;
}

static bool has_pv(struct fonda_vcpu *vcpu, u32 feature)
{
	return !vcpu->cpuid.enforce_pv || fonda_guest_has(vcpu, feature);
}

int fonda_hypercall(struct fonda_vcpu *vcpu, bool in_64bit_mode, int cpl)
{
	unsigned long mask = in_64bit_mode ? ~0ul : ~0u;
	unsigned long nr = vcpu->regs[FONDA_RAX] & mask;
	long ret = -KVM_ENOSYS;

	if (cpl) {
		ret = -KVM_EPERM;
	} else if (nr == KVM_HC_VAPIC_POLL_IRQ) {
		ret = 0;
	} else if (nr == KVM_HC_SEND_IPI && has_pv(vcpu, FONDA_PV_FEATURE(PV_SEND_IPI))) {
		ret = fonda_hc_send_ipi(vcpu, in_64bit_mode);
	} else if (nr == KVM_HC_KICK_CPU && has_pv(vcpu, FONDA_PV_FEATURE(PV_UNHALT))) {
		ret = fonda_hc_kick_cpu(vcpu, vcpu->regs[FONDA_RCX]);
	} else if (nr == KVM_HC_SCHED_YIELD && has_pv(vcpu, FONDA_PV_FEATURE(PV_SCHED_YIELD))) {
		if (vcpu->atomic)
			return FONDA_RETRY_SLEEPING;
		fonda_vcpu_yield(vcpu, (u32)vcpu->regs[FONDA_RBX]);
		ret = 0;
	}
	vcpu->regs[FONDA_RAX] = ret & mask;
	return fonda_skip_insn(vcpu, vcpu->insn_len);
}

/* -- debugging a guest, and fonda itself ------------------------------------ */

long fonda_vcpu_set_guest_debug(struct fonda_vcpu *vcpu, void *arg, unsigned int cmd)
{
	const struct kvm_guest_debug *debug = arg;

	if (debug->control & ~(u32)FONDA_GUEST_DEBUG || debug->arch.debugreg[7] >> 32)
		return -EINVAL;
	if (debug->control & (KVM_GUESTDBG_INJECT_DB | KVM_GUESTDBG_INJECT_BP)) {
		if (vcpu->exception.pending)
			return -EBUSY;
		fonda_queue_exception(vcpu, debug->control & KVM_GUESTDBG_INJECT_DB ?
					    X86_TRAP_DB : X86_TRAP_BP);
	}
	vcpu->debug = *debug;
	vcpu->debug.arch.debugreg[7] |= FONDA_DR7_INIT;
	if (!(debug->control & KVM_GUESTDBG_ENABLE))
		vcpu->debug.control = 0;
	fonda_backend->update_controls(vcpu);
	return 0;
}

long fonda_vcpu_get_failed_entry(struct fonda_vcpu *vcpu, void *arg, unsigned int cmd)
{
	if (!vcpu->failed_entry)
		return -ENOENT;
	memcpy(arg, vcpu->failed_entry, sizeof(*vcpu->failed_entry));
	return 0;
}

static bool break_entry;
module_param(break_entry, bool, 0444);
MODULE_PARM_DESC(break_entry, "for tests: let user space spoil fields of the control block (FONDA_BREAK_ENTRY)");

long fonda_vcpu_break_entry(struct fonda_vcpu *vcpu, void *arg, unsigned int cmd)
{
	return break_entry ? fonda_backend->break_entry(vcpu, arg) : -EPERM;
}

/* -- sleeping --------------------------------------------------------------- */

/* Has something come that ends a HLT? */
static bool halt_is_over(struct fonda_vcpu *vcpu)
{
	return READ_ONCE(vcpu->event_pending) || READ_ONCE(vcpu->pv_unhalted) ||
	       (READ_ONCE(vcpu->irq_pending) && (vcpu->rflags & X86_EFLAGS_IF) &&
		fonda_irq_waits(vcpu));
}

/* Would a halted vCPU have a reason to run? */
static bool has_work(struct fonda_vcpu *vcpu)
{
	if (READ_ONCE(vcpu->lapic.events))
		return true;
	/* Nothing but INIT starts it; its requests can wait. */
	if (vcpu->mp_state == KVM_MP_STATE_UNINITIALIZED)
		return false;
	if (READ_ONCE(vcpu->requests) & ~BIT(FONDA_REQ_TLB_FLUSH))
		return true;
	return vcpu->mp_state == KVM_MP_STATE_HALTED && halt_is_over(vcpu);
}

int fonda_vcpu_halt(struct fonda_vcpu *vcpu)
{
	if (!vcpu->in_kernel_apic)
		return exit_with(vcpu, KVM_EXIT_HLT);
	if (halt_is_over(vcpu)) {
		vcpu->pv_unhalted = false;
		return FONDA_RESUME_GUEST;
	}
	vcpu->mp_state = KVM_MP_STATE_HALTED;
	return FONDA_LEAVE_SECTION;
}

/*
 * Until there is work or a signal. Outside a section, slots not held.
 *
 * A short while of polling saves the wake-up of a guest that waits for an
 * answer. How long adapts: it grows while that helps, and falls to nothing in
 * front of long sleeps.
 */
static void block(struct fonda_vcpu *vcpu)
{
	u64 start = ktime_get_ns(), max = (u64)READ_ONCE(halt_poll_us) * NSEC_PER_USEC;

	fonda_stats_close(vcpu);
	while (ktime_get_ns() - start < vcpu->halt_poll_ns && !need_resched() &&
	       !signal_pending(current)) {
		if (has_work(vcpu)) {
			vcpu->stats.count[FONDA_STAT_HALT_POLLS]++;
			return;
		}
		cpu_relax();
	}
	vcpu->stats.count[FONDA_STAT_HALT_SLEEPS]++;
	start = ktime_get_ns();
	rcuwait_wait_event(&vcpu->wait, has_work(vcpu) || test_thread_flag(TIF_NOTIFY_RESUME),
			   TASK_INTERRUPTIBLE);
	vcpu->halt_poll_ns = ktime_get_ns() - start > max ? 0 :
			     clamp_t(u64, vcpu->halt_poll_ns * 2,
				     min_t(u64, 10 * NSEC_PER_USEC, max), max);
}

/*
 * The guest spins, most likely for a lock whose holder does not run: give this
 * CPU to the next vCPU of the VM that wants one.
 */
void fonda_vcpu_yield(struct fonda_vcpu *vcpu, s64 apic_id)
{
	struct fonda_vm *vm = vcpu->vm;
	int nr = smp_load_acquire(&vm->nr_vcpus), i;

	for (i = 1; i < nr; i++) {
		struct fonda_vcpu *other = vm->vcpus[(vcpu->index + i) % nr];
		struct task_struct *task;
		int ret;

		if (READ_ONCE(other->mode) == FONDA_IN_GUEST ||
		    (apic_id >= 0 && other->lapic.id != apic_id))
			continue;
		/* It may leave and exit meanwhile, but is not freed before we look. */
		rcu_read_lock();
		task = READ_ONCE(other->thread);
		if (task)
			get_task_struct(task);
		rcu_read_unlock();
		if (!task)
			continue;
		ret = yield_to(task, true);
		put_task_struct(task);
		if (ret > 0)
			return;
	}
	cond_resched();
}

/* -- KVM_RUN ---------------------------------------------------------------- */

/* Operands of XSAVE and XRSTOR: all that this machine has, in EDX:EAX. */
#define XSTATE_MASK	"a"((u32)fonda_xcr0_supported), "d"((u32)(fonda_xcr0_supported >> 32))

/* Compared only, never followed. */
static DEFINE_PER_CPU(struct fonda_vcpu *, last_vcpu);

static void switch_tsc_aux(struct fonda_vcpu *vcpu, u64 from, u64 to)
{
	if (fonda_guest_has(vcpu, FONDA_HAS_TSC_AUX) && from != to)
		wrmsrq(MSR_TSC_AUX, to);
}

/* The guest's FPU state into the processor; what the host has elsewhere, out of it. */
static void section_begin(struct fonda_vcpu *vcpu)
{
	int i;

	/* Saves the task's registers once and turns preemption off. */
	kernel_fpu_begin_mask(0);
	WRITE_ONCE(vcpu->cpu, smp_processor_id());
	vcpu->atomic = true;
	/* The area was validated when user space wrote it: this cannot fault. */
	asm volatile("xrstor64 %0" : : "m"(*(char *)vcpu->fpu.area), XSTATE_MASK : "memory");
	if (vcpu->fpu.xcr0 != fonda_host_xcr0)
		xsetbv(XCR_XFEATURE_ENABLED_MASK, vcpu->fpu.xcr0);
	if (unlikely(fonda_host_xss))
		wrmsrq(MSR_IA32_XSS, 0);
	if (this_cpu_read(last_vcpu) != vcpu) {
		this_cpu_write(last_vcpu, vcpu);
		if (cpu_feature_enabled(X86_FEATURE_USE_IBPB))
			wrmsrq(MSR_IA32_PRED_CMD, PRED_CMD_IBPB);
	}
	switch_tsc_aux(vcpu, this_cpu_read(fonda_host_tsc_aux), vcpu->msrs.tsc_aux);
	vcpu->host_dr7 = hw_breakpoint_active() ? this_cpu_read(cpu_dr7) : 0;
	for (i = 0; i < 4 && unlikely(vcpu->host_dr7); i++)
		get_debugreg(vcpu->host_db[i], i);
	fonda_update_spec_ctrl(vcpu);
}

static void section_end(struct fonda_vcpu *vcpu)
{
	int i;

	switch_tsc_aux(vcpu, vcpu->msrs.tsc_aux, this_cpu_read(fonda_host_tsc_aux));
	/* An exit leaves DR7 disabled. */
	for (i = 0; i < 4 && unlikely(vcpu->host_dr7); i++)
		set_debugreg(vcpu->host_db[i], i);
	if (unlikely(vcpu->host_dr7))
		set_debugreg(vcpu->host_dr7, 7);
	if (vcpu->fpu.xcr0 != fonda_host_xcr0)
		xsetbv(XCR_XFEATURE_ENABLED_MASK, fonda_host_xcr0);
	if (unlikely(fonda_host_xss))
		wrmsrq(MSR_IA32_XSS, fonda_host_xss);
	/* Not XSAVEOPT: the XRSTOR that it goes by may have been the guest's own. */
	asm volatile("xsave64 %0" : "+m"(*(char *)vcpu->fpu.area) : XSTATE_MASK : "memory");
#ifdef X86_FEATURE_IBPB_EXIT_TO_USER
	if (cpu_feature_enabled(X86_FEATURE_IBPB_EXIT_TO_USER))
		this_cpu_write(x86_ibpb_exit_to_user, true);
#endif
	vcpu->atomic = false;
	kernel_fpu_end();
}

static bool take_request(struct fonda_vcpu *vcpu, int req)
{
	/* A full barrier, which pairs with fonda_request(): see what it refers to. */
	return test_bit(req, &vcpu->requests) && test_and_clear_bit(req, &vcpu->requests);
}

static int serve_requests(struct fonda_vcpu *vcpu)
{
	/* Let those go on who wait for us to leave the old slots: fonda_vm_synchronize(). */
	if (take_request(vcpu, FONDA_REQ_UNLOAD)) {
		fonda_slots_leave(vcpu);
		fonda_slots_enter(vcpu);
		if (atomic_read(&vcpu->vm->synchronizing))
			fonda_request(vcpu, FONDA_REQ_UNLOAD);
	}
	if (take_request(vcpu, FONDA_REQ_TRIPLE_FAULT))
		return exit_with(vcpu, KVM_EXIT_SHUTDOWN);
	if (take_request(vcpu, FONDA_REQ_APIC_EVENT)) {
		bool off = vcpu->mp_state == KVM_MP_STATE_UNINITIALIZED;

		fonda_accept_apic_events(vcpu);
		/* An AP has been started: its caller is told to try again. */
		if (off)
			return -EAGAIN;
	}
	if (take_request(vcpu, FONDA_REQ_CONTROLS))
		fonda_backend->update_controls(vcpu);
	if (take_request(vcpu, FONDA_REQ_PV_EOI))
		fonda_settle_pv_eoi(vcpu);
	if (take_request(vcpu, FONDA_REQ_IOAPIC_EOI)) {
		vcpu->run->eoi.vector = vcpu->lapic.eoi_vector;
		return exit_with(vcpu, KVM_EXIT_IOAPIC_EOI);
	}
	if (take_request(vcpu, FONDA_REQ_CLOCK))
		fonda_clock_update(vcpu);
	if (take_request(vcpu, FONDA_REQ_DIRTY_FULL) && fonda_dirty_ring_full(vcpu))
		return exit_with(vcpu, KVM_EXIT_DIRTY_RING_FULL);
	return FONDA_RESUME_GUEST;
}

/* Can user space's interrupt controller inject now? (No PIC in the kernel.) */
static bool interrupt_window_open(struct fonda_vcpu *vcpu)
{
	return vcpu->vm->irqchip.mode != FONDA_IRQCHIP_KERNEL && vcpu->ext_irq < 0 &&
	       (vcpu->rflags & X86_EFLAGS_IF) && !vcpu->int_shadow &&
	       !vcpu->exception.pending && !vcpu->exception.injected &&
	       fonda_irq_accepts_extint(vcpu);
}

/* Work before the next section; the code to leave with, or FONDA_RESUME_GUEST. */
static int prepare(struct fonda_vcpu *vcpu)
{
	unsigned long work = read_thread_flags() & FONDA_TIF_WORK;
	int ret;

	if (unlikely(work)) {
		ret = signal_pending(current) ? -EINTR : fonda_handle_task_work();
		if (ret) {
			exit_with(vcpu, KVM_EXIT_INTR);
			return ret;
		}
		if (work & (_TIF_NEED_RESCHED | _TIF_NEED_RESCHED_LAZY)) {
			fonda_steal_time_preempted(vcpu);
			schedule();
		}
	}
	if ((vcpu->clock.steal_msr | vcpu->clock.system_msr) & KVM_MSR_ENABLED)
		fonda_clock_check(vcpu);
	if (READ_ONCE(vcpu->requests)) {
		ret = serve_requests(vcpu);
		if (ret != FONDA_RESUME_GUEST)
			return ret;
	}
	vcpu->want_window = false;
	if (vcpu->vm->irqchip.mode != FONDA_IRQCHIP_KERNEL &&
	    READ_ONCE(vcpu->run->request_interrupt_window) && fonda_irq_accepts_extint(vcpu)) {
		if (interrupt_window_open(vcpu))
			return exit_with(vcpu, KVM_EXIT_IRQ_WINDOW_OPEN);
		vcpu->want_window = true;
	}
	return FONDA_RESUME_GUEST;
}

static int run_loop(struct fonda_vcpu *vcpu)
{
	int ret;

	do {
		ret = prepare(vcpu);
		if (ret != FONDA_RESUME_GUEST)
			break;

		if (unlikely(vcpu->mp_state != KVM_MP_STATE_RUNNABLE)) {
			fonda_steal_time_preempted(vcpu);
			fonda_slots_leave(vcpu);
			block(vcpu);
			fonda_slots_enter(vcpu);
			if (vcpu->mp_state == KVM_MP_STATE_HALTED && halt_is_over(vcpu)) {
				vcpu->pv_unhalted = false;
				vcpu->mp_state = KVM_MP_STATE_RUNNABLE;
			}
			continue;
		}

		section_begin(vcpu);
		ret = fonda_backend->run(vcpu);
		section_end(vcpu);
		if (ret == FONDA_RETRY_SLEEPING)
			ret = fonda_backend->handle_exit(vcpu);
		fonda_stats_close(vcpu);
	} while (ret > 0);
	return ret;
}

static int run_locked(struct fonda_vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	int ret;

	if (unlikely(run->kvm_valid_regs | run->kvm_dirty_regs)) {
		ret = fonda_sync_regs_in(vcpu);
		if (ret)
			return ret;
	}
	if (!vcpu->in_kernel_apic) {
		u64 cr8 = READ_ONCE(run->cr8);

		if (cr8 & ~0xfull)
			return -EINVAL;
		lapic_set_tpr(&vcpu->lapic, cr8);
	}

	fonda_slots_enter(vcpu);
	ret = fonda_complete_user_io(vcpu);
	if (ret == FONDA_RESUME_GUEST && READ_ONCE(run->immediate_exit__unsafe)) {
		/* The access is complete, and its report stays: see the API's text. */
		ret = -EINTR;
	} else if (ret == FONDA_RESUME_GUEST) {
		run->exit_reason = KVM_EXIT_UNKNOWN;
		ret = run_loop(vcpu);
	}
	fonda_slots_leave(vcpu);
	vcpu->stats.count[FONDA_STAT_USER_EXITS]++;
	run->if_flag = !!(vcpu->rflags & X86_EFLAGS_IF);
	run->flags = 0;
	run->cr8 = lapic_get_tpr(&vcpu->lapic);
	run->apic_base = vcpu->lapic.base;
	run->ready_for_interrupt_injection =
		vcpu->vm->irqchip.mode == FONDA_IRQCHIP_KERNEL || interrupt_window_open(vcpu);
	if (unlikely(READ_ONCE(run->kvm_valid_regs)))
		fonda_sync_regs_out(vcpu);
	return ret;
}

long fonda_vcpu_run(struct fonda_vcpu *vcpu)
{
	int ret;

	if (mutex_lock_killable(&vcpu->mutex))
		return -EINTR;
	/* Where a sender finds that the mask is temporary: else a signal whose
	 * default is to end the process does so at once. */
	if (unlikely(vcpu->sigmask_set))
		sigprocmask(SIG_SETMASK, &vcpu->sigmask, &current->real_blocked);
	ret = run_locked(vcpu);
	if (unlikely(vcpu->sigmask_set)) {
		sigprocmask(SIG_SETMASK, &current->real_blocked, NULL);
		sigemptyset(&current->real_blocked);
	}
	mutex_unlock(&vcpu->mutex);
	return ret;
}

/* -- lifetime --------------------------------------------------------------- */

void fonda_vcpu_reset(struct fonda_vcpu *vcpu, bool init)
{
	memset(vcpu->regs, 0, sizeof(vcpu->regs));
	/* As the manuals' reset tables have it, before there is a leaf 1. */
	vcpu->regs[FONDA_RDX] = fonda_cpuid(vcpu, 1, 0)->eax ?: 0x600;
	vcpu->rip = 0xfff0;
	vcpu->rflags = X86_EFLAGS_FIXED;
	vcpu->exception = (struct fonda_exception){ };
	vcpu->event_pending = false;
	vcpu->nmi_pending = 0;
	vcpu->nmi_injected = false;
	atomic_set(&vcpu->nmi_queued, 0);
	vcpu->ext_irq = -1;
	memset(vcpu->db, 0, sizeof(vcpu->db));
	vcpu->dr6 = FONDA_DR6_INIT;
	vcpu->dr7 = FONDA_DR7_INIT;
	/* Nobody waits for what user space was asked any more. */
	vcpu->io.pending = FONDA_IO_NONE;
	fonda_lapic_reset(vcpu, init);
	fonda_sregs_reset(vcpu, init);
	fonda_backend->vcpu_reset(vcpu);
	fonda_backend->update_controls(vcpu);
}

static int vcpu_release(struct inode *inode, struct file *file)
{
	struct fonda_vcpu *vcpu = file->private_data;

	fonda_vm_put(vcpu->vm);
	return 0;
}

static vm_fault_t vcpu_fault(struct vm_fault *vmf)
{
	struct fonda_vcpu *vcpu = vmf->vma->vm_file->private_data;
	struct page *page = NULL;

	if (vmf->pgoff <= FONDA_PIO_PAGE)
		page = virt_to_page((void *)vcpu->run + vmf->pgoff * PAGE_SIZE);
	else if (vmf->pgoff == FONDA_RING_PAGE)
		page = virt_to_page(vcpu->vm->ring);
	else
		page = fonda_dirty_ring_page(vcpu, vmf->pgoff);
	if (!page)
		return VM_FAULT_SIGBUS;
	get_page(page);
	vmf->page = page;
	return 0;
}

static const struct vm_operations_struct vcpu_vm_ops = { .fault = vcpu_fault };

static int vcpu_mmap(struct file *file, struct vm_area_struct *vma)
{
	/* A private copy of a dirty ring would hide what user space gives back. */
	if (vma->vm_pgoff >= KVM_DIRTY_LOG_PAGE_OFFSET &&
	    (vma->vm_flags & (VM_SHARED | VM_EXEC)) != VM_SHARED)
		return -EINVAL;
	vma->vm_ops = &vcpu_vm_ops;
	return 0;
}

static const struct file_operations vcpu_fops = {
	.owner		= THIS_MODULE,
	.release	= vcpu_release,
	.mmap		= vcpu_mmap,
	.unlocked_ioctl	= fonda_vcpu_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
	.llseek		= noop_llseek,
};

/* Also of what create() has not finished. */
void fonda_vcpu_destroy(struct fonda_vcpu *vcpu)
{
	int cpu;

	/* Its address may be a new vCPU's next; that one needs its IBPB. */
	for_each_possible_cpu(cpu)
		cmpxchg(&per_cpu(last_vcpu, cpu), vcpu, NULL);
	if (vcpu->in_kernel_apic)
		hrtimer_cancel(&vcpu->lapic.timer);
	kvfree(vcpu->cpuid.entries);
	kfree(vcpu->fpu.area);
	kvfree(vcpu->dirty_ring.entries);
	kvfree(vcpu->failed_entry);
	fonda_table_drain(&vcpu->mmu_cache);
	if (vcpu->run)
		free_pages_exact(vcpu->run, FONDA_RING_PAGE * PAGE_SIZE);
	fonda_backend->vcpu_fini(vcpu);
	kvfree(vcpu);
}

/* All of a vCPU but its place in the VM. Under vm->lock. */
static struct fonda_vcpu *create(struct fonda_vm *vm, int id)
{
	struct fonda_vcpu *vcpu = kvzalloc(fonda_backend->vcpu_size, GFP_KERNEL_ACCOUNT);
	int ret;

	if (!vcpu)
		return ERR_PTR(-ENOMEM);
	vcpu->vm = vm;
	vcpu->id = id;
	vcpu->index = vm->nr_vcpus;
	vcpu->cpu = -1;
	mutex_init(&vcpu->mutex);
	rcuwait_init(&vcpu->wait);
	vcpu->stats.last = FONDA_NR_STAT_EXITS;
	/* And the port data: the pages before the ring's. */
	vcpu->run = alloc_pages_exact(FONDA_RING_PAGE * PAGE_SIZE, GFP_KERNEL_ACCOUNT | __GFP_ZERO);
	vcpu->pio_data = (u8 *)vcpu->run + FONDA_PIO_PAGE * PAGE_SIZE;
	ret = fonda_backend->vcpu_init(vcpu) ?: fonda_state_vcpu_init(vcpu) ?:
	      fonda_dirty_ring_init(vcpu);
	if (ret || !vcpu->run)
		goto out;
	fonda_lapic_create(vcpu);
	fonda_vcpu_reset(vcpu, false);
	vcpu->mp_state = !vcpu->in_kernel_apic || lapic_is_bsp(&vcpu->lapic) ?
			 KVM_MP_STATE_RUNNABLE : KVM_MP_STATE_UNINITIALIZED;
	return vcpu;

out:
	fonda_vcpu_destroy(vcpu);
	return ERR_PTR(ret ?: -ENOMEM);
}

long fonda_vm_create_vcpu(struct fonda_vm *vm, void *arg, unsigned int cmd)
{
	unsigned long id = (unsigned long)arg;
	struct fonda_vcpu *vcpu;
	struct file *file;
	char name[24];
	int fd, i;

	guard(mutex)(&vm->lock);
	if (id >= (vm->max_vcpu_id ?: FONDA_MAX_VCPU_ID) || vm->nr_vcpus == FONDA_MAX_VCPUS)
		return -EINVAL;
	fonda_for_each_vcpu(i, vcpu, vm)
		if (vcpu->id == id)
			return -EEXIST;
	vcpu = create(vm, id);
	if (IS_ERR(vcpu))
		return PTR_ERR(vcpu);
	snprintf(name, sizeof(name), "fonda-vcpu:%lu", id);
	file = fonda_vm_file(vm, name, &vcpu_fops, vcpu, &fd);
	if (!file) {
		fonda_vcpu_destroy(vcpu);
		return fd;
	}
	/* Nothing that is published can fail any more. */
	vm->vcpus[vm->nr_vcpus] = vcpu;
	smp_store_release(&vm->nr_vcpus, vm->nr_vcpus + 1);
	vcpu->lapic.published = true;
	fonda_apic_map_update(&vcpu->lapic);
	/* Its TSC joins the others'. */
	fonda_set_tsc(vcpu, 0, true);
	fd_install(fd, file);
	return fd;
}
