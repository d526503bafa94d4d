/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The inner loop of KVM_RUN, which both backends run with their own parts: it
 * enters the guest and handles its exits while nothing has to sleep. All is
 * inlined into the backend's run().
 */
#ifndef FONDA_RUN_H
#define FONDA_RUN_H

#include <linux/interrupt.h>

#include "backend.h"
#include "trace.h"

/* An entry of a backend's table of exits. */
struct fonda_exit {
	int (*handle)(struct fonda_vcpu *vcpu);
	u32 op;			/* enum fonda_exit_op, if the length of that is to be found */
	u8 stat;		/* enum fonda_stat_exit */
	bool quick;		/* handled with interrupts off, as if still in the guest */
	bool on_demand;		/* not intercepted but when asked for */
};

/* Right before the processor enters the guest: from here the time is the guest's. */
static __always_inline void fonda_before_switch(struct fonda_vcpu *vcpu)
{
	trace_fonda_entry(vcpu);
	context_tracking_guest_enter();
	if (cpu_feature_enabled(X86_FEATURE_CLEAR_CPU_BUF) ||
	    cpu_feature_enabled(X86_FEATURE_CLEAR_CPU_BUF_VM) || fonda_mmio_stale_data())
		x86_clear_cpu_buffers();
	if (unlikely(vcpu->switch_spec_ctrl))
		wrmsrq(MSR_IA32_SPEC_CTRL, vcpu->msrs.spec_ctrl);
}

/* And right after it. */
static __always_inline void fonda_after_switch(struct fonda_vcpu *vcpu)
{
	/* IBRS of old must be written after every exit. */
	if (unlikely(vcpu->switch_spec_ctrl) || cpu_feature_enabled(X86_FEATURE_KERNEL_IBRS)) {
		wrmsrq(MSR_IA32_SPEC_CTRL, fonda_host_spec_ctrl());
		barrier_nospec();
	}
	context_tracking_guest_exit();
}

/*
 * From here on, who sets a request or an interrupt and then looks at the mode
 * sends an IPI, which ends the guest's run, also one that is about to begin.
 */
static __always_inline void fonda_go_in(struct fonda_vcpu *vcpu)
{
	local_irq_disable();
	smp_store_mb(vcpu->mode, FONDA_IN_GUEST);
	/*
	 * On a CPU that is being taken away, or where softirqs wait for the end of the
	 * section (newer kernels keep them off in it): any request ends that.
	 */
	if (unlikely(!this_cpu_read(fonda_cpu_enabled)) ||
	    unlikely(softirq_count() && local_softirq_pending()))
		fonda_request(vcpu, FONDA_REQ_UNLOAD);
	vtime_account_guest_enter();
}

/* What the host has pending is taken here; the ticks among it are the guest's. */
static __always_inline void fonda_go_out(struct fonda_vcpu *vcpu)
{
	WRITE_ONCE(vcpu->mode, FONDA_OUTSIDE);
	local_irq_enable();
	vtime_account_guest_exit();
}

/* What became of fonda_irq_offer()'s vector. */
static __always_inline void fonda_settle_offer(struct fonda_vcpu *vcpu, int vector, bool taken)
{
	if (unlikely(vcpu->lapic.offered_ext || vcpu->lapic.pv_eoi_offered))
		fonda_irq_settle(vcpu, vector, taken);
	else
		lapic_settle(&vcpu->lapic, vector, taken);
}

/* What a backend adds: see fonda_inner_loop(). */
struct fonda_loop {
	/* Interrupts are off; before the first entry after that, and after the last. */
	void (*open)(struct fonda_vcpu *vcpu);
	void (*close)(struct fonda_vcpu *vcpu);
	/* What most entries have nothing of: vcpu->entry_work. */
	void (*prepare)(struct fonda_vcpu *vcpu);
	/* Into the guest and out of it: why it left. */
	const struct fonda_exit *(*enter)(struct fonda_vcpu *vcpu);
	/* Calls the handler of an exit. */
	int (*dispatch)(struct fonda_vcpu *vcpu, const struct fonda_exit *e);
};

/* False: there is other work first, which the outer loop does. */
static __always_inline bool fonda_ready(struct fonda_vcpu *vcpu, const struct fonda_loop *loop)
{
	if (unlikely(READ_ONCE(vcpu->requests))) {
		if (test_and_clear_bit(FONDA_REQ_TLB_FLUSH, &vcpu->requests))
			fonda_flush(vcpu);
		if (READ_ONCE(vcpu->requests))
			return false;
	}
	if (unlikely(read_thread_flags() & FONDA_TIF_WORK))
		return false;
	if (unlikely(READ_ONCE(vcpu->entry_work)))
		loop->prepare(vcpu);
	return true;
}

static __always_inline int fonda_inner_loop(struct fonda_vcpu *vcpu, const struct fonda_loop loop)
{
	int ret = FONDA_RESUME_GUEST;
	const struct fonda_exit *e;

	fonda_go_in(vcpu);
	loop.open(vcpu);
	while (fonda_ready(vcpu, &loop)) {
		e = loop.enter(vcpu);
		fonda_stats_exit(vcpu, e->stat);
		if (likely(e->quick)) {
			ret = loop.dispatch(vcpu, e);
			if (unlikely(ret != FONDA_RESUME_GUEST))
				break;
		} else {
			/*
			 * A host interrupt came while the guest ran: often the tick, which
			 * is when RCU wants to know that this CPU holds nothing.
			 */
			if (e->stat == FONDA_STAT_INTERRUPT)
				rcu_virt_note_context_switch();
			loop.close(vcpu);
			fonda_go_out(vcpu);
			ret = loop.dispatch(vcpu, e);
			if (ret != FONDA_RESUME_GUEST)
				return ret;
			fonda_go_in(vcpu);
			loop.open(vcpu);
		}
		fonda_stats_close(vcpu);
	}
	loop.close(vcpu);
	fonda_go_out(vcpu);
	return ret;
}

/* An event for the processor, or one whose delivery it cut short; both vendors' form. */
#define FONDA_EVENT_TYPE		(7u << 8)
#define FONDA_EVENT_TYPE_INTR		(0u << 8)
#define FONDA_EVENT_TYPE_NMI		(2u << 8)
#define FONDA_EVENT_TYPE_EXCEPTION	(3u << 8)
#define FONDA_EVENT_ERROR		(1u << 11)
#define FONDA_EVENT_VALID		(1u << 31)

/*
 * What is injected next, in the order of both vendors' priorities: exceptions,
 * whose error code is vcpu->exception.error, then NMIs where they are @nmi_open; 0:
 * nothing. Something may remain: vcpu->nmi_pending.
 */
u32 fonda_next_event(struct fonda_vcpu *vcpu, bool nmi_open);
/* After the exit: @info says which exception or NMI was not delivered, if any. */
void fonda_requeue_event(struct fonda_vcpu *vcpu, u32 info, u32 error);

/* exit.c: what exits mean; handlers' answers. The instruction is vcpu->insn_len long. */
struct fonda_nested_fault {
	gpa_t gpa;
	bool write, fetch;
	bool table_walk;	/* it was met on the way through the guest's tables */
	u32 event;		/* whose delivery met it, as the processor says; or 0 */
	u64 reason, info;	/* of the exit, for who reads about it */
};
typedef int fonda_exit_handler(struct fonda_vcpu *vcpu);
fonda_exit_handler fonda_exit_resume, fonda_exit_invalid_opcode, fonda_exit_protection;
/* #UD, which is intercepted up to vcpu->nr_undefined == FONDA_MAX_UNDEFINED. */
fonda_exit_handler fonda_exit_undefined;
fonda_exit_handler fonda_exit_cpuid, fonda_exit_rdmsr, fonda_exit_wrmsr, fonda_exit_hlt;
fonda_exit_handler fonda_exit_skip, fonda_exit_pause, fonda_exit_monitor, fonda_exit_xsetbv;
fonda_exit_handler fonda_exit_machine_check;
int fonda_exit_write_cr8(struct fonda_vcpu *vcpu, u64 val);
/*
 * MOV to or from debug register @reg while a debugger has those of the processor,
 * with @dr7 in DR7: the guest has its own.
 */
int fonda_exit_debug_register(struct fonda_vcpu *vcpu, int reg, bool write, int gpr, u64 dr7);
static __always_inline int fonda_exit_nested_fault(struct fonda_vcpu *vcpu,
						   const struct fonda_nested_fault *f)
{
	u32 access = f->fetch ? FONDA_ACCESS_FETCH : f->write ? FONDA_ACCESS_WRITE :
		     FONDA_ACCESS_READ;
	const struct fonda_mmu_cache *cache = &vcpu->mmu_cache;
	int ret = FONDA_FAULT_MMIO;

	/* A device's registers: there is no memory, as there was none the last time. */
	if (cache->hole != f->gpa >> PAGE_SHIFT || cache->hole_generation !=
	    rcu_dereference_check(vcpu->vm->slots, true)->generation)
		ret = fonda_mmu_fault(vcpu, f->gpa, access);
	trace_fonda_fault(vcpu, f->gpa, access, ret);
	if (ret != FONDA_FAULT_MMIO)
		return ret;

	fonda_stats_reclassify(vcpu, FONDA_STAT_MMIO);
	/* Delivering an event, or walking tables, by way of MMIO or ROM. */
	if (unlikely(f->event))
		return fonda_internal_error(vcpu, KVM_INTERNAL_ERROR_DELIVERY_EV, f->event,
					    f->reason, f->info, f->gpa);
	/* Found on the way through the guest's tables it is not the operand's. */
	return fonda_emulate_insn(vcpu, f->table_walk ? FONDA_INVALID_GPA : f->gpa, access, 0);
}

/* DR0-DR3 of the guest, or of its debugger, into the processor; and back, if its own. */
void fonda_load_debug_registers(struct fonda_vcpu *vcpu);
void fonda_save_debug_registers(struct fonda_vcpu *vcpu);

#endif
