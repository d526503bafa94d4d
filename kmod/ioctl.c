// SPDX-License-Identifier: GPL-2.0-only
/*
 * The three ioctl tables (device, VM, vCPU) and the one dispatcher that copies
 * arguments and takes the vCPU's mutex, so that handlers only act. What is in
 * these tables, and KVM_RUN and KVM_NMI, is what fonda offers; check_extension()
 * must agree.
 *
 * Direction is written out because the bits inside KVM's numbers mislead, and
 * the whole number is matched because low bytes repeat.
 */
#include "backend.h"

/* What becomes of the argument: bits. */
enum ioctl_copy {
	FIO_VAL = 0,	/* it is a value, or a user pointer */
	FIO_IN = 1,
	FIO_FILL = 2,	/* out; the handler writes every byte */
	FIO_INOUT = FIO_IN | FIO_FILL, FIO_ZERO = 4,
	FIO_OUT = FIO_FILL | FIO_ZERO,
};

/* Largest argument that is copied on the stack: nearly all of them. */
#define FIO_STACK_BYTES	320

struct ioctl_entry {
	unsigned int cmd;
	u8 copy;
	union {
		fonda_vm_handler *vm;
		fonda_vcpu_handler *vcpu;
	};
};

static long dev_get_constant(struct fonda_vcpu *vcpu, void *arg, unsigned int cmd)
{
	if (arg)
		return -EINVAL;
	return cmd == KVM_GET_API_VERSION ? KVM_API_VERSION : FONDA_RUN_PAGES * PAGE_SIZE;
}

/*
 * What every VMM sets, and neither backend has a use for. (VT-x without unrestricted
 * guest wants three pages and a page of page tables for real mode.)
 */
static long vm_set_unused(struct fonda_vm *vm, void *arg, unsigned int cmd)
{
	bool valid = cmd == KVM_SET_TSS_ADDR ? (unsigned long)arg <= 0xffffffff - 3 * PAGE_SIZE :
		     cmd == KVM_SET_NR_MMU_PAGES ? (unsigned long)arg >= 64 :
		     /* KVM_SET_IDENTITY_MAP_ADDR */
		     !READ_ONCE(vm->nr_vcpus);

	return valid ? 0 : -EINVAL;
}

/* All VMs count alike; without scaling, only a vCPU may say what it expects. */
static long vm_get_tsc_khz(struct fonda_vm *vm, void *arg, unsigned int cmd)
{
	return tsc_khz;
}

/* The TPR is shared through kvm_run and the local APIC; nothing is patched. */
static long vcpu_set_vapic_addr(struct fonda_vcpu *vcpu, void *arg, unsigned int cmd)
{
	return 0;
}

/* struct kvm_signal_mask, then a kernel sigset (8 bytes); NULL unsets it. */
static long vcpu_set_signal_mask(struct fonda_vcpu *vcpu, void *arg, unsigned int cmd)
{
	struct { u32 len; sigset_t set; } __packed mask;

	if (arg) {
		if (copy_from_user(&mask, (void __user *)arg, sizeof(mask)))
			return -EFAULT;
		if (mask.len != sizeof(mask.set))
			return -EINVAL;
		vcpu->sigmask = mask.set;
		sigdelsetmask(&vcpu->sigmask, sigmask(SIGKILL) | sigmask(SIGSTOP));
	}
	vcpu->sigmask_set = arg;
	return 0;
}

#define FONDA_X2APIC_API (KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK)

#define FONDA_USER_MSR	(KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN | \
			 KVM_MSR_EXIT_REASON_FILTER)

#define FONDA_DISABLE_EXITS	(KVM_X86_DISABLE_EXITS_HLT | KVM_X86_DISABLE_EXITS_PAUSE)

static long set_flags(u64 *field, u64 val, u64 known)
{
	if (val & ~known)
		return -EINVAL;
	WRITE_ONCE(*field, val);
	return 0;
}

static long vm_enable_cap(struct fonda_vm *vm, void *argp, unsigned int cmd)
{
	const struct kvm_enable_cap *cap = argp;
	u64 arg = cap->args[0];

	if (cap->flags)
		return -EINVAL;
	guard(mutex)(&vm->lock);
	switch (cap->cap) {
	case KVM_CAP_SPLIT_IRQCHIP:
		return fonda_irqchip_enable_split(vm, arg);
	case KVM_CAP_X2APIC_API:
		if (arg & ~(u64)FONDA_X2APIC_API)
			return -EINVAL;
		vm->irqchip.x2apic_format = arg & KVM_X2APIC_API_USE_32BIT_IDS;
		vm->irqchip.x2apic_no_broadcast_quirk =
			arg & KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK;
		return 0;
	case KVM_CAP_DISABLE_QUIRKS:
		return set_flags(&vm->disabled_quirks, arg, ~0ull);
	case KVM_CAP_DISABLE_QUIRKS2:
		return set_flags(&vm->disabled_quirks, arg, FONDA_QUIRKS);
	case KVM_CAP_EXCEPTION_PAYLOAD:
		return set_flags(&vm->exception_payload, arg, ~0ull);
	case KVM_CAP_X86_TRIPLE_FAULT_EVENT:
		return set_flags(&vm->triple_fault_event, arg, ~0ull);
	case KVM_CAP_X86_USER_SPACE_MSR:
		return set_flags(&vm->user_msr_mask, arg, FONDA_USER_MSR);
	case KVM_CAP_MSR_PLATFORM_INFO:
		return set_flags(&vm->hide_platform_info, !arg, true);
	case KVM_CAP_EXIT_ON_EMULATION_FAILURE:
		return set_flags(&vm->exit_on_emulation_failure, arg, true);
	case KVM_CAP_X86_DISABLE_EXITS:
		/* It is for vCPUs to come. */
		return set_flags(&vm->disabled_exits, vm->disabled_exits | arg,
				 FONDA_DISABLE_EXITS);
	case KVM_CAP_MAX_VCPU_ID:
		if (vm->nr_vcpus || arg > FONDA_MAX_VCPU_ID || arg < vm->irqchip.bsp_id ||
		    (vm->max_vcpu_id && vm->max_vcpu_id != arg))
			return -EINVAL;
		vm->max_vcpu_id = arg;
		return 0;
	case KVM_CAP_X86_APIC_BUS_CYCLES_NS:
		/* The latest that the timer can be set to must fit a signed number. */
		if (!arg || arg > S64_MAX / 256 / U32_MAX)
			return -EINVAL;
		if (vm->nr_vcpus || vm->irqchip.mode == FONDA_IRQCHIP_NONE)
			return vm->irqchip.mode == FONDA_IRQCHIP_NONE ? -ENXIO : -EINVAL;
		vm->irqchip.timer_ns = arg;
		return 0;
	case KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2:
	case KVM_CAP_DIRTY_LOG_RING:
	case KVM_CAP_DIRTY_LOG_RING_ACQ_REL:
		return fonda_dirty_enable(vm, cap->cap, arg);
	default:
		return -EINVAL;
	}
}

/* Capabilities whose answer is 1, with or without a VM. */
static const u16 plain_caps[] = {
	KVM_CAP_IRQCHIP, KVM_CAP_HLT, KVM_CAP_USER_MEMORY, KVM_CAP_USER_MEMORY2,
	KVM_CAP_SET_TSS_ADDR, KVM_CAP_EXT_CPUID, KVM_CAP_MP_STATE, KVM_CAP_SYNC_MMU,
	KVM_CAP_CLOCKSOURCE, KVM_CAP_NOP_IO_DELAY, KVM_CAP_DESTROY_MEMORY_REGION_WORKS,
	KVM_CAP_JOIN_MEMORY_REGIONS_WORKS, KVM_CAP_USER_NMI, KVM_CAP_IRQ_INJECT_STATUS,
	KVM_CAP_IRQFD, KVM_CAP_IRQFD_RESAMPLE, KVM_CAP_PIT2, KVM_CAP_PIT_STATE2,
	KVM_CAP_REINJECT_CONTROL, KVM_CAP_IOEVENTFD, KVM_CAP_IOEVENTFD_ANY_LENGTH,
	KVM_CAP_IOEVENTFD_NO_LENGTH, KVM_CAP_SET_IDENTITY_MAP_ADDR, KVM_CAP_INTERNAL_ERROR_DATA,
	KVM_CAP_VCPU_EVENTS, KVM_CAP_DEBUGREGS, KVM_CAP_X86_ROBUST_SINGLESTEP, KVM_CAP_XSAVE,
	KVM_CAP_XCRS, KVM_CAP_GET_TSC_KHZ, KVM_CAP_TSC_DEADLINE_TIMER, KVM_CAP_KVMCLOCK_CTRL,
	KVM_CAP_SIGNAL_MSI, KVM_CAP_READONLY_MEM, KVM_CAP_CHECK_EXTENSION_VM,
	KVM_CAP_ENABLE_CAP_VM, KVM_CAP_DISABLE_QUIRKS, KVM_CAP_SPLIT_IRQCHIP,
	KVM_CAP_IMMEDIATE_EXIT, KVM_CAP_GET_MSR_FEATURES, KVM_CAP_COALESCED_PIO,
	KVM_CAP_EXCEPTION_PAYLOAD, KVM_CAP_X86_TRIPLE_FAULT_EVENT, KVM_CAP_MULTI_ADDRESS_SPACE,
	KVM_CAP_SREGS2, KVM_CAP_X86_USER_SPACE_MSR, KVM_CAP_X86_MSR_FILTER,
	KVM_CAP_MSR_PLATFORM_INFO, KVM_CAP_VCPU_ATTRIBUTES, KVM_CAP_EXT_EMUL_CPUID,
	KVM_CAP_ENFORCE_PV_FEATURE_CPUID, KVM_CAP_ENABLE_CAP, KVM_CAP_EXIT_ON_EMULATION_FAILURE,
	KVM_CAP_SET_BOOT_CPU_ID, KVM_CAP_SET_GUEST_DEBUG, KVM_CAP_BINARY_STATS_FD,
	KVM_CAP_PRE_FAULT_MEMORY, KVM_CAP_X86_APIC_BUS_CYCLES_NS,
};

/* Those with another one that never changes. */
static const struct { u16 cap; u32 answer; } valued_caps[] = {
	{ KVM_CAP_COALESCED_MMIO, FONDA_RING_PAGE },
	{ KVM_CAP_MAX_VCPUS, FONDA_MAX_VCPUS },
	{ KVM_CAP_MAX_VCPU_ID, FONDA_MAX_VCPU_ID },
	{ KVM_CAP_NR_MEMSLOTS, FONDA_MEM_SLOTS },
	{ KVM_CAP_IRQ_ROUTING, FONDA_MAX_GSI },
	{ KVM_CAP_MCE, FONDA_MCE_BANKS },
	{ KVM_CAP_ADJUST_CLOCK, KVM_CLOCK_TSC_STABLE | KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC },
	{ KVM_CAP_X2APIC_API, FONDA_X2APIC_API },
	{ KVM_CAP_DISABLE_QUIRKS2, FONDA_QUIRKS },
	{ KVM_CAP_DIRTY_LOG_RING, FONDA_DIRTY_RING_BYTES },
	{ KVM_CAP_DIRTY_LOG_RING_ACQ_REL, FONDA_DIRTY_RING_BYTES },
	{ KVM_CAP_X86_DISABLE_EXITS, FONDA_DISABLE_EXITS },
	{ KVM_CAP_SET_GUEST_DEBUG2, FONDA_GUEST_DEBUG },
	{ KVM_CAP_SYNC_REGS, KVM_SYNC_X86_VALID_FIELDS },
	{ KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
	  KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET },
};

static long check_extension(struct fonda_vcpu *vcpu, void *arg, unsigned int cmd)
{
	unsigned long cap = (unsigned long)arg;
	int i;

	for (i = 0; i < ARRAY_SIZE(plain_caps); i++)
		if (cap == plain_caps[i])
			return 1;
	for (i = 0; i < ARRAY_SIZE(valued_caps); i++)
		if (cap == valued_caps[i].cap)
			return valued_caps[i].answer;
	if (cap == KVM_CAP_NR_VCPUS)
		return min_t(int, num_online_cpus(), FONDA_MAX_VCPUS);
	if (cap == KVM_CAP_TSC_CONTROL)
		return !!fonda_tsc_fraction;
	if (cap == KVM_CAP_XSAVE2)
		return max_t(int, fonda_xsave_size, sizeof(struct kvm_xsave));
	return 0;
}

/*
 * The tables' index: the low byte, and the direction that the number claims. No two
 * of one table share it: -Woverride-init (Kbuild) would tell. All that it can be is
 * in the table.
 */
#define IOCTL_INDEX(cmd)	(_IOC_NR(cmd) | _IOC_DIR(cmd) << _IOC_NRBITS)
#define NR_IOCTLS		(1 << (_IOC_NRBITS + _IOC_DIRBITS))
#define E(cmd, copy, table, fn)	[IOCTL_INDEX(cmd)] = { cmd, copy, .table = fn }

static const struct ioctl_entry dev_ioctls[NR_IOCTLS] = {
	E(KVM_GET_API_VERSION,		FIO_VAL,   vcpu, dev_get_constant),
	E(KVM_CREATE_VM,		FIO_VAL,   vcpu, fonda_dev_create_vm),
	E(KVM_CHECK_EXTENSION,		FIO_VAL,   vcpu, check_extension),
	E(KVM_GET_VCPU_MMAP_SIZE,	FIO_VAL,   vcpu, dev_get_constant),
	E(KVM_GET_SUPPORTED_CPUID,	FIO_VAL,   vcpu, fonda_dev_get_cpuid),
	E(KVM_GET_EMULATED_CPUID,	FIO_VAL,   vcpu, fonda_dev_get_cpuid),
	E(KVM_GET_MSR_INDEX_LIST,	FIO_VAL,   vcpu, fonda_dev_get_msr_list),
	E(KVM_GET_MSR_FEATURE_INDEX_LIST, FIO_VAL, vcpu, fonda_dev_get_msr_list),
	E(KVM_GET_MSRS,			FIO_VAL,   vcpu, fonda_vcpu_access_msrs),
	E(KVM_X86_GET_MCE_CAP_SUPPORTED, FIO_OUT,  vcpu, fonda_dev_x86_get_mce_cap_supported),
};

static const struct ioctl_entry vm_ioctls[NR_IOCTLS] = {
	E(KVM_CREATE_VCPU,		FIO_VAL,   vm, fonda_vm_create_vcpu),
	E(KVM_GET_STATS_FD,		FIO_VAL,   vm, fonda_vm_get_stats_fd),
	E(KVM_ENABLE_CAP,		FIO_IN,    vm, vm_enable_cap),
	E(KVM_SET_USER_MEMORY_REGION,	FIO_IN,    vm, fonda_vm_set_user_memory_region),
	E(KVM_SET_USER_MEMORY_REGION2,	FIO_IN,    vm, fonda_vm_set_user_memory_region),
	E(KVM_GET_DIRTY_LOG,		FIO_IN,    vm, fonda_vm_access_dirty_log),
	E(KVM_CLEAR_DIRTY_LOG,		FIO_IN,    vm, fonda_vm_access_dirty_log),
	E(KVM_RESET_DIRTY_RINGS,	FIO_VAL,   vm, fonda_vm_reset_dirty_rings),
	E(KVM_SET_TSS_ADDR,		FIO_VAL,   vm, vm_set_unused),
	E(KVM_SET_IDENTITY_MAP_ADDR,	FIO_IN,    vm, vm_set_unused),
	E(KVM_SET_NR_MMU_PAGES,		FIO_VAL,   vm, vm_set_unused),
	E(KVM_CREATE_IRQCHIP,		FIO_VAL,   vm, fonda_vm_create_irqchip),
	E(KVM_SET_BOOT_CPU_ID,		FIO_VAL,   vm, fonda_vm_set_boot_cpu_id),
	E(KVM_GET_IRQCHIP,		FIO_INOUT, vm, fonda_vm_irqchip_state),
	E(KVM_SET_IRQCHIP,		FIO_IN,    vm, fonda_vm_irqchip_state),
	E(KVM_CREATE_PIT2,		FIO_IN,    vm, fonda_vm_create_pit2),
	E(KVM_GET_PIT2,			FIO_OUT,   vm, fonda_vm_pit_state),
	E(KVM_SET_PIT2,			FIO_IN,    vm, fonda_vm_pit_state),
	E(KVM_REINJECT_CONTROL,		FIO_IN,    vm, fonda_vm_pit_state),
	E(KVM_IRQ_LINE,			FIO_IN,    vm, fonda_vm_irq_line),
	E(KVM_IRQ_LINE_STATUS,		FIO_INOUT, vm, fonda_vm_irq_line),
	E(KVM_SET_GSI_ROUTING,		FIO_VAL,   vm, fonda_vm_set_gsi_routing),
	E(KVM_SIGNAL_MSI,		FIO_IN,    vm, fonda_vm_signal_msi),
	E(KVM_IRQFD,			FIO_IN,    vm, fonda_vm_irqfd),
	E(KVM_IOEVENTFD,		FIO_IN,    vm, fonda_vm_ioeventfd),
	E(KVM_REGISTER_COALESCED_MMIO,	FIO_IN,    vm, fonda_vm_register_coalesced_mmio),
	E(KVM_UNREGISTER_COALESCED_MMIO, FIO_IN,   vm, fonda_vm_unregister_coalesced_mmio),
	E(KVM_GET_CLOCK,		FIO_OUT,   vm, fonda_vm_get_clock),
	E(KVM_SET_CLOCK,		FIO_IN,    vm, fonda_vm_set_clock),
	E(KVM_GET_TSC_KHZ,		FIO_VAL,   vm, vm_get_tsc_khz),
	E(KVM_X86_SET_MSR_FILTER,	FIO_IN,    vm, fonda_vm_x86_set_msr_filter),
};

static const struct ioctl_entry vcpu_ioctls[NR_IOCTLS] = {
	E(KVM_GET_REGS,			FIO_FILL,  vcpu, fonda_vcpu_access_regs),
	E(KVM_SET_REGS,			FIO_IN,    vcpu, fonda_vcpu_access_regs),
	E(KVM_GET_SREGS,		FIO_FILL,  vcpu, fonda_vcpu_get_sregs),
	E(KVM_SET_SREGS,		FIO_IN,    vcpu, fonda_vcpu_set_sregs),
	E(KVM_GET_SREGS2,		FIO_OUT,   vcpu, fonda_vcpu_get_sregs),
	E(KVM_SET_SREGS2,		FIO_IN,    vcpu, fonda_vcpu_set_sregs),
	E(KVM_GET_FPU,			FIO_OUT,   vcpu, fonda_vcpu_access_fpu),
	E(KVM_SET_FPU,			FIO_IN,    vcpu, fonda_vcpu_access_fpu),
	E(KVM_GET_XSAVE,		FIO_OUT,   vcpu, fonda_vcpu_get_xsave),
	E(KVM_SET_XSAVE,		FIO_IN,    vcpu, fonda_vcpu_set_xsave),
	E(KVM_GET_XSAVE2,		FIO_OUT,   vcpu, fonda_vcpu_get_xsave),
	E(KVM_GET_XCRS,			FIO_OUT,   vcpu, fonda_vcpu_get_xcrs),
	E(KVM_SET_XCRS,			FIO_IN,    vcpu, fonda_vcpu_set_xcrs),
	E(KVM_GET_DEBUGREGS,		FIO_OUT,   vcpu, fonda_vcpu_access_debugregs),
	E(KVM_SET_DEBUGREGS,		FIO_IN,    vcpu, fonda_vcpu_access_debugregs),
	E(KVM_GET_VCPU_EVENTS,		FIO_OUT,   vcpu, fonda_vcpu_get_vcpu_events),
	E(KVM_SET_VCPU_EVENTS,		FIO_IN,    vcpu, fonda_vcpu_set_vcpu_events),
	E(KVM_GET_STATS_FD,		FIO_VAL,   vcpu, fonda_vcpu_get_stats_fd),
	E(KVM_SET_GUEST_DEBUG,		FIO_IN,    vcpu, fonda_vcpu_set_guest_debug),
	E(FONDA_GET_FAILED_ENTRY,	FIO_FILL,  vcpu, fonda_vcpu_get_failed_entry),
	E(FONDA_BREAK_ENTRY,		FIO_IN,    vcpu, fonda_vcpu_break_entry),
	E(KVM_TRANSLATE,		FIO_INOUT, vcpu, fonda_vcpu_translate),
	E(KVM_PRE_FAULT_MEMORY,		FIO_INOUT, vcpu, fonda_vcpu_pre_fault_memory),
	E(KVM_GET_MP_STATE,		FIO_OUT,   vcpu, fonda_vcpu_access_mp_state),
	E(KVM_SET_MP_STATE,		FIO_IN,    vcpu, fonda_vcpu_access_mp_state),
	E(KVM_GET_LAPIC,		FIO_OUT,   vcpu, fonda_vcpu_lapic_state),
	E(KVM_SET_LAPIC,		FIO_IN,    vcpu, fonda_vcpu_lapic_state),
	E(KVM_INTERRUPT,		FIO_IN,    vcpu, fonda_vcpu_interrupt),
	E(KVM_SET_SIGNAL_MASK,		FIO_VAL,   vcpu, vcpu_set_signal_mask),
	E(KVM_SET_CPUID,		FIO_VAL,   vcpu, fonda_vcpu_set_cpuid),
	E(KVM_SET_CPUID2,		FIO_VAL,   vcpu, fonda_vcpu_set_cpuid),
	E(KVM_GET_CPUID2,		FIO_VAL,   vcpu, fonda_vcpu_get_cpuid2),
	E(KVM_GET_MSRS,			FIO_VAL,   vcpu, fonda_vcpu_access_msrs),
	E(KVM_SET_MSRS,			FIO_VAL,   vcpu, fonda_vcpu_access_msrs),
	E(KVM_X86_SETUP_MCE,		FIO_IN,    vcpu, fonda_vcpu_x86_setup_mce),
	E(KVM_X86_SET_MCE,		FIO_IN,    vcpu, fonda_vcpu_x86_set_mce),
	E(KVM_SET_VAPIC_ADDR,		FIO_IN,    vcpu, vcpu_set_vapic_addr),
	E(KVM_SET_TSC_KHZ,		FIO_VAL,   vcpu, fonda_vcpu_tsc_khz),
	E(KVM_GET_TSC_KHZ,		FIO_VAL,   vcpu, fonda_vcpu_tsc_khz),
	E(KVM_KVMCLOCK_CTRL,		FIO_VAL,   vcpu, fonda_vcpu_kvmclock_ctrl),
	E(KVM_HAS_DEVICE_ATTR,		FIO_IN,    vcpu, fonda_vcpu_device_attr),
	E(KVM_GET_DEVICE_ATTR,		FIO_IN,    vcpu, fonda_vcpu_device_attr),
	E(KVM_SET_DEVICE_ATTR,		FIO_IN,    vcpu, fonda_vcpu_device_attr),
	E(KVM_ENABLE_CAP,		FIO_IN,    vcpu, fonda_vcpu_enable_cap),
};

static __always_inline const struct ioctl_entry *
find_ioctl(const struct ioctl_entry *table, unsigned int cmd)
{
	const struct ioctl_entry *e = &table[IOCTL_INDEX(cmd)];

	return cmd && e->cmd == cmd ? e : NULL;
}

/* @of_vm is constant: the handlers of a table are of one type. */
static __always_inline long call_handler(const struct ioctl_entry *e, bool of_vm, void *object,
					 void *arg)
{
	return of_vm ? e->vm(object, arg, e->cmd) : e->vcpu(object, arg, e->cmd);
}

static __always_inline long copy_and_call(const struct ioctl_entry *e, bool of_vm, void *object,
					  unsigned long arg)
{
	u64 stack[FIO_STACK_BYTES / 8] fonda_uninitialized;
	unsigned int size = _IOC_SIZE(e->cmd);
	void *buf = stack, __user *uarg = (void __user *)arg;
	long ret;

	if (e->copy == FIO_VAL)
		return call_handler(e, of_vm, object, (void *)arg);

	if (size > sizeof(stack)) {
		buf = kmalloc(size, GFP_KERNEL_ACCOUNT);
		if (!buf)
			return -ENOMEM;
	}
	/* Without the kernel's check that the buffer has room: it was chosen for that. */
	ret = -EFAULT;
	if (e->copy & FIO_IN) {
		if (size == sizeof(u64) ? get_user(stack[0], (u64 __user *)uarg) :
					  _copy_from_user(buf, uarg, size))
			goto out_free;
	} else if (e->copy & FIO_ZERO) {
		memset(buf, 0, size);
	}
	ret = call_handler(e, of_vm, object, buf);
	if (ret >= 0 && e->copy & FIO_FILL && _copy_to_user(uarg, buf, size))
		ret = -EFAULT;
out_free:
	if (buf != stack)
		kfree(buf);
	return ret;
}

long fonda_dev_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	const struct ioctl_entry *e = find_ioctl(dev_ioctls, cmd);

	return e ? copy_and_call(e, false, NULL, arg) : -EINVAL;
}

long fonda_vm_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	const struct ioctl_entry *e = find_ioctl(vm_ioctls, cmd);
	struct fonda_vm *vm = file->private_data;

	/* Guest memory is the creator's: another process has other memory there. */
	if (vm->mm != current->mm || READ_ONCE(vm->bugged))
		return -EIO;
	if (e)
		return copy_and_call(e, true, vm, arg);
	return cmd == KVM_CHECK_EXTENSION ? check_extension(NULL, (void *)arg, cmd) : -ENOTTY;
}

static noinline long vcpu_ioctl(struct fonda_vcpu *vcpu, unsigned int cmd, unsigned long arg)
{
	const struct ioctl_entry *e = find_ioctl(vcpu_ioctls, cmd);
	long ret;

	if (!e)
		return -EINVAL;
	if (mutex_lock_killable(&vcpu->mutex))
		return -EINTR;
	ret = copy_and_call(e, false, vcpu, arg);
	mutex_unlock(&vcpu->mutex);
	return ret;
}

long fonda_vcpu_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct fonda_vcpu *vcpu = file->private_data;

	if (vcpu->vm->mm != current->mm || READ_ONCE(vcpu->vm->bugged))
		return -EIO;
	/* Once for each exit to user space: in no table. */
	if (likely(cmd == KVM_RUN))
		return arg ? -EINVAL : fonda_vcpu_run(vcpu);
	/* From other threads, while the vCPU's own is in KVM_RUN. */
	if (cmd == KVM_NMI)
		return fonda_vcpu_nmi(vcpu);
	return vcpu_ioctl(vcpu, cmd, arg);
}
