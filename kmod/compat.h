/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The only place that knows kernel versions. Code is written to the newest
 * names; each function here is named after what it gives and stands in where a
 * kernel between 6.1 and the newest lacks it. Features are probed for where a
 * header can tell, since distributions backport.
 */
#ifndef FONDA_COMPAT_H
#define FONDA_COMPAT_H

#include <linux/context_tracking.h>
#include <linux/eventfd.h>
#include <linux/hrtimer.h>
#include <linux/mmu_notifier.h>
#include <linux/module.h>
#include <linux/syscore_ops.h>
#include <linux/version.h>
#include <linux/vtime.h>
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 19, 0)
#include <linux/entry-virt.h>
#endif
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
#include <trace/events/ipi.h>
#endif
#include <asm/msr.h>
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 16, 0)
#include <asm/cpuid/api.h>
#endif
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
#include <linux/unaligned.h>
#else
#include <asm/unaligned.h>
#endif
#include <asm/nospec-branch.h>
#include <asm/perf_event.h>
#include <asm/reboot.h>
#include <asm/tlbflush.h>

/*
 * Debian's kernels zero every variable on the stack. This one is filled before
 * it is read, and on a path that is counted in instructions.
 */
#if __has_attribute(__uninitialized__)
#define fonda_uninitialized	__attribute__((__uninitialized__))
#else
#define fonda_uninitialized
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 15, 0)
#define hrtimer_setup(timer, fn, clock, mode)	\
	(hrtimer_init(timer, clock, mode), (timer)->function = (fn))
#endif

/* What 6.1 and 6.12 know only since some of their later releases. */
#ifndef X86_FEATURE_CLEAR_CPU_BUF_VM
#define X86_FEATURE_CLEAR_CPU_BUF_VM	X86_FEATURE_CLEAR_CPU_BUF
#endif

/* Of processors that leave stale data to those who map devices only, as guests may. */
#ifdef X86_FEATURE_CLEAR_CPU_BUF_VM_MMIO
#define fonda_mmio_stale_data()	cpu_feature_enabled(X86_FEATURE_CLEAR_CPU_BUF_VM_MMIO)
#else
#define fonda_mmio_stale_data()	static_branch_unlikely(&mmio_stale_data_clear)
#endif

/* Newer kernels flush the branch predictor between guests wherever it can be done. */
#ifndef X86_FEATURE_USE_IBPB
#define X86_FEATURE_USE_IBPB	X86_FEATURE_IBPB
#endif

#ifndef rdmsrq
#define rdmsrq		rdmsrl
#define wrmsrq		wrmsrl
#define rdmsrq_safe	rdmsrl_safe
#endif

/* Since 6.8 an eventfd counts by one. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 8, 0)
#define eventfd_signal(ctx)	eventfd_signal(ctx, 1)
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
#define rcu_virt_note_context_switch()	rcu_virt_note_context_switch(smp_processor_id())
#endif

/* Under __KERNEL__ newer headers make reading this field deliberate. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 10, 0)
#define immediate_exit__unsafe	immediate_exit
#endif

/*
 * Why a vCPU thread must leave the guest: signals, other tasks, and what the
 * kernel does on the way to user mode. Lazy rescheduling is the scheduler's
 * wish for later, but the guest may never make a "later".
 */
#ifndef _TIF_NEED_RESCHED_LAZY
#define _TIF_NEED_RESCHED_LAZY	0
#endif
#define FONDA_TIF_WORK	(_TIF_SIGPENDING | _TIF_NOTIFY_SIGNAL | _TIF_NOTIFY_RESUME | \
			 _TIF_NEED_RESCHED | _TIF_NEED_RESCHED_LAZY)

/*
 * Do the work that only the way to user mode can do, TIF_NOTIFY_RESUME. Before 7.0
 * what is needed is not for modules: a trip to user space does it, which nobody
 * there notices. TIF_NOTIFY_SIGNAL has the system call started again on the way,
 * unless a signal's handler runs; then KVM_RUN fails with -EINTR. Since 7.0 limits
 * of cgroups depend on the call.
 */
static inline int fonda_handle_task_work(void)
{
	if (!test_thread_flag(TIF_NOTIFY_RESUME))
		return 0;
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 19, 0)
	set_thread_flag(TIF_NOTIFY_SIGNAL);
	return -ERESTARTNOHAND;
#else
	return xfer_to_guest_mode_handle_work();
#endif
}

/* On Zen 5 kernels leave it to hypervisors to have guests train no returns of the host's. */
static inline void fonda_reduce_speculation(bool on)
{
#ifdef X86_FEATURE_SRSO_BP_SPEC_REDUCE
	const u64 bit = BIT(MSR_ZEN4_BP_CFG_BP_SPEC_REDUCE_BIT);
	u64 val;

	if (!cpu_feature_enabled(X86_FEATURE_SRSO_BP_SPEC_REDUCE))
		return;
	rdmsrq(MSR_ZEN4_BP_CFG, val);
	wrmsrq(MSR_ZEN4_BP_CFG, on ? val | bit : val & ~bit);
#endif
}

/* What the host itself keeps in SPEC_CTRL on this CPU. */
#define fonda_host_spec_ctrl()	this_cpu_read(x86_spec_ctrl_current)

/* With interrupts off, behind the kernel's back: to be undone before they are on. */
static inline void fonda_write_cr4(unsigned long val)
{
	asm volatile("mov %0, %%cr4" : : "r"(val) : "memory");
}

/*
 * VMX operation: until 7.0 a module may keep CR4.VMXE set, and the kernel calls it
 * when it crashes (one module; KVM has that place when it is loaded). Newer ones
 * see to themselves, and keep CR4 for themselves. Since then callbacks of system
 * sleep have an argument, too, and an object of their own.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 19, 0)
#define FONDA_SYSCORE_ARG	void
struct syscore { struct syscore_ops *ops; };
#define register_syscore(s)	register_syscore_ops((s)->ops)
#define unregister_syscore(s)	unregister_syscore_ops((s)->ops)
#define FONDA_VMX_WINDOWS	false
#define fonda_pt_handle_vmx(on)	intel_pt_handle_vmx(on)
#define fonda_set_vmxe(on)	((on) ? cr4_set_bits(X86_CR4_VMXE) : cr4_clear_bits(X86_CR4_VMXE))

static inline bool fonda_emergency_register(cpu_emergency_virt_cb *callback)
{
	if (__symbol_get("kvm_rebooting")) {
		__symbol_put("kvm_rebooting");
		return false;
	}
	cpu_emergency_register_virt_callback(callback);
	return true;
}
#define fonda_emergency_unregister(cb)	cpu_emergency_unregister_virt_callback(cb)
#else
#define FONDA_SYSCORE_ARG		void *unused
#define FONDA_VMX_WINDOWS		true
#define fonda_pt_handle_vmx(on)		do { } while (0)
#define fonda_set_vmxe(on)		do { } while (0)
#define fonda_emergency_register(cb)	((void)(cb), false)
#define fonda_emergency_unregister(cb)	((void)(cb))
#endif

/* What the ageing callbacks return: int, later bool. */
typedef typeof(((const struct mmu_notifier_ops *)NULL)->test_young(NULL, NULL, 0)) fonda_young_t;

/* A signal ends the wait for a page (userfaultfd) since 6.2. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)
#define FOLL_INTERRUPTIBLE	0
#endif

/* Nanoseconds that this task has waited for a CPU so far. */
static inline u64 fonda_run_delay_ns(void)
{
#ifdef CONFIG_SCHED_INFO
	return current->sched_info.run_delay;
#else
	return 0;
#endif
}

#endif
