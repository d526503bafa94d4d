/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * fonda: the contract between the module and the programs that use it.
 *
 * /dev/fonda speaks the KVM API, version 12: the numbers and structures are
 * those of <linux/kvm.h>. This file is the reference manual of what is
 * supported. What is not named here does not exist: an unknown ioctl is -EINVAL
 * on the device and on a vCPU, -ENOTTY on a VM.
 *
 * Who may: whoever can open the device. A VM and its vCPUs belong to the
 * process that created them: from another address space every ioctl is -EIO, as
 * it is after a failure that the VM cannot survive.
 *
 * In the tables, the letter after a name tells what becomes of the argument:
 * v a value, or a pointer to a structure of variable size that the text names;
 * < copied in, > copied out, * copied in and out again. Any of the latter, and
 * of pointers inside structures, may be -EFAULT; what allocates may be -ENOMEM;
 * an ioctl on a vCPU waits for KVM_RUN to return and is -EINTR when the caller
 * is killed meanwhile. These errors are not repeated. Return value 0 is not
 * mentioned either.
 */
#ifndef _UAPI_LINUX_FONDA_H
#define _UAPI_LINUX_FONDA_H

#include <linux/kvm.h>

#define FONDA_DEVICE_NAME	"fonda"	/* unless the module was told devname= */
#define FONDA_DEVICE_PATH	"/dev/" FONDA_DEVICE_NAME

/* Headers before 6.8 do not have it. */
#ifndef KVM_SET_USER_MEMORY_REGION2
struct kvm_userspace_memory_region2 {
	__u32 slot;
	__u32 flags;
	__u64 guest_phys_addr;
	__u64 memory_size;
	__u64 userspace_addr;
	__u64 guest_memfd_offset;
	__u32 guest_memfd;
	__u32 pad1;
	__u64 pad2[14];
};

#define KVM_CAP_USER_MEMORY2		231
#define KVM_SET_USER_MEMORY_REGION2	_IOW(KVMIO, 0x49, struct kvm_userspace_memory_region2)
#endif

/* Nor those before 6.11 these. */
#ifndef KVM_PRE_FAULT_MEMORY
struct kvm_pre_fault_memory {
	__u64 gpa;
	__u64 size;
	__u64 flags;
	__u64 padding[5];
};

#define KVM_CAP_PRE_FAULT_MEMORY	236
#define KVM_CAP_X86_APIC_BUS_CYCLES_NS	237
#define KVM_PRE_FAULT_MEMORY		_IOWR(KVMIO, 0xd5, struct kvm_pre_fault_memory)
#endif

/* The type of ioctls of fonda's own. */
#define FONDA_IOCTL_TYPE	0xfd

/*
 * Limits
 *
 *   vCPUs of a VM		256, ids 0 to 1023
 *   memory slots		KVM_CHECK_EXTENSION(KVM_CAP_NR_MEMSLOTS)
 *   guest physical addresses	48 bits
 *   GSIs			4096; pins of the IOAPIC 24
 *   CPUID entries		256 set, at most 80 supported
 *   MSRs of one call		255
 *   machine-check banks	32
 *
 *
 * The device: open("/dev/fonda")
 *
 *   KVM_GET_API_VERSION v	12. -EINVAL: the argument is not 0.
 *   KVM_CREATE_VM v		A file descriptor. The argument, a type, is 0.
 *				-EINVAL: it is not. -EBUSY: another hypervisor
 *				has the processor, or the machine goes down.
 *				-EMFILE.
 *   KVM_CHECK_EXTENSION v	The value of a capability, 0 for those that are
 *				not supported. Also on a VM, with the same
 *				answers.
 *   KVM_GET_VCPU_MMAP_SIZE v	12288: kvm_run, port data, the ring of coalesced
 *				writes (the same one for every vCPU of a VM).
 *				-EINVAL: the argument is not 0.
 *   KVM_GET_SUPPORTED_CPUID v	struct kvm_cpuid2. Leaves that a guest may have,
 *				of this machine and of fonda. -E2BIG: more than
 *				nent; it is set when they fit.
 *   KVM_GET_EMULATED_CPUID v	The same of leaves that the machine lacks and a
 *				guest may have nevertheless: none.
 *   KVM_GET_MSR_INDEX_LIST v	struct kvm_msr_list. The MSRs to save a vCPU by,
 *				machine-check banks and x2APIC excepted. nmsrs
 *				is always set. -E2BIG: more than it was.
 *   KVM_GET_MSR_FEATURE_INDEX_LIST v
 *				The same of MSRs that describe the machine.
 *   KVM_GET_MSRS v		struct kvm_msrs. Reads those. How many were read
 *				before one was unknown. -E2BIG: nmsrs > 255.
 *   KVM_X86_GET_MCE_CAP_SUPPORTED >
 *				Bits of IA32_MCG_CAP, without the count of banks.
 *
 *
 * A VM
 *
 *   KVM_CREATE_VCPU v		A file descriptor for a vCPU of this id, which is
 *				its APIC id. -EINVAL: the id or the number is too
 *				large. -EEXIST. -EMFILE.
 *   KVM_ENABLE_CAP <		Turns on what the section on capabilities marks
 *				with +. -EINVAL: flags, an unknown capability or
 *				argument, or too late for it.
 *   KVM_SET_TSS_ADDR v		Checked and forgotten: no page of guest memory is
 *   KVM_SET_IDENTITY_MAP_ADDR <	needed, nor are tables limited. -EINVAL: too high;
 *   KVM_SET_NR_MMU_PAGES v	there are vCPUs; under 64.
 *
 *  Memory
 *
 *   KVM_SET_USER_MEMORY_REGION <, KVM_SET_USER_MEMORY_REGION2 <
 *				Creates, moves, changes or (size 0) deletes a
 *				slot, also while vCPUs run. Flags:
 *				KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY.
 *				-EINVAL: slot id, flags, alignment, range, a
 *				change of size, address or READONLY, or nothing
 *				to delete. -EEXIST: overlaps another slot. The
 *				fields that the second one adds only count with
 *				KVM_MEM_GUEST_MEMFD, a flag that is refused.
 *   KVM_GET_DIRTY_LOG <	The pages of a slot written since the last time,
 *				and forgets them unless KVM_CLEAR_DIRTY_LOG does
 *				that. -ENOENT: no such slot, or it does not log.
 *				-EINVAL: slot id. -ENXIO: the VM has dirty rings.
 *   KVM_CLEAR_DIRTY_LOG <	Forgets the pages whose bit is set. -EINVAL:
 *				first_page is no multiple of 64, or num_pages
 *				neither that nor the rest; else as above.
 *   KVM_RESET_DIRTY_RINGS v	Takes back what user space has marked with
 *				KVM_DIRTY_GFN_F_RESET in the rings of all vCPUs;
 *				how many. A page is to be read after that. -EINVAL:
 *				the VM has none.
 *   KVM_REGISTER_COALESCED_MMIO <, KVM_UNREGISTER_COALESCED_MMIO <
 *				Writes to the zone are queued in the ring rather
 *				than exit; the latter takes away every zone that
 *				covers the range, and there may be none. -EINVAL:
 *				pio is neither 0 nor 1. -ENOSPC.
 *   KVM_IOEVENTFD <		A write signals an eventfd instead of exiting.
 *				-EINVAL: flags, length (0, 1, 2, 4, 8), or
 *				DATAMATCH with length 0. -EEXIST: collides with
 *				another. -ENOSPC. -ENOENT: none to deassign.
 *				-EBADF, -EINVAL: not an eventfd.
 *
 *  MSRs
 *
 *   KVM_X86_SET_MSR_FILTER <	Replaces the filter of all vCPUs: which MSRs the
 *				guest may read and write. What it denies is #GP,
 *				or KVM_EXIT_X86_RDMSR and _WRMSR; those of the
 *				x2APIC are not looked up, and the ioctls not
 *				filtered. -EINVAL: flags, a bitmap over 0x600
 *				bytes, or everything denied.
 *
 *  Interrupts
 *
 *   KVM_CREATE_IRQCHIP v	PIC, IOAPIC, and a local APIC for each vCPU to
 *				come. The argument is not looked at. -EEXIST:
 *				there are some. -EINVAL: there are vCPUs.
 *   KVM_GET_IRQCHIP *, KVM_SET_IRQCHIP <
 *				-ENXIO: no such chips. -EINVAL: chip_id.
 *   KVM_SET_BOOT_CPU_ID v	Which vCPU starts by itself. -EBUSY: there are some.
 *				-EINVAL: the id is too large.
 *   KVM_CREATE_PIT2 <		-EEXIST. -ENOENT: no PIC and IOAPIC.
 *   KVM_GET_PIT2 >, KVM_SET_PIT2 <, KVM_REINJECT_CONTROL <
 *				-ENXIO: there is no PIT.
 *   KVM_IRQ_LINE <, KVM_IRQ_LINE_STATUS *
 *				Drives a GSI; one without a route is no error.
 *				status: how many local APICs took it, 0 merged
 *				with one that waits, -1 masked. -ENXIO: there
 *				are no chips.
 *   KVM_SET_GSI_ROUTING v	struct kvm_irq_routing. Replaces all routes.
 *				-EINVAL: no chips, flags, more than 4096 entries,
 *				or an entry that leads nowhere.
 *   KVM_SIGNAL_MSI <		How many local APICs took it. -EINVAL: no local
 *				APICs, flags, an address that no MSI has.
 *   KVM_IRQFD <		-EINVAL: flags, no chips, or RESAMPLE without an
 *				IOAPIC here. -EBUSY: the eventfd is in use.
 *				-EBADF, -EINVAL: not an eventfd.
 *
 *  Time
 *
 *   KVM_GET_CLOCK >		kvmclock with the host's TSC and real time of
 *				that moment. KVM_CLOCK_TSC_STABLE: all vCPUs
 *				count alike.
 *   KVM_SET_CLOCK <		With KVM_CLOCK_REALTIME it is put ahead by the
 *				time passed since realtime. -EINVAL: flags.
 *
 *
 * A vCPU
 *
 *   KVM_RUN v			Runs the guest until it needs user space; see the
 *				section on exits. -EINVAL: the argument is not 0,
 *				or values in kvm_run. -EINTR: a signal, or
 *				immediate_exit. -EAGAIN: it waited for INIT and
 *				SIPI, and something came. -EFAULT: memory of a
 *				slot is not mapped. -EIO: the VM is beyond help.
 *   KVM_NMI v			One NMI more, two at most, and one behind one that
 *				is being handled; does not wait for KVM_RUN.
 *   KVM_INTERRUPT <		Without a PIC here: inject a vector. -EINVAL: it
 *				is over 255. -EEXIST: one waits. -ENXIO: there is
 *				a PIC.
 *   KVM_SET_SIGNAL_MASK v	struct kvm_signal_mask, in force during KVM_RUN;
 *				NULL: none. -EINVAL: len is not 8.
 *
 *  Registers
 *
 *   KVM_GET_REGS >, KVM_SET_REGS <
 *				Setting drops an exception that waits.
 *   KVM_GET_SREGS >, KVM_SET_SREGS <
 *				-EINVAL: control bits that the guest's CPUID does
 *				not allow or that contradict each other; CS.L
 *				outside long mode; in long mode CR3 or a base
 *				that is no address; IA32_APIC_BASE; flags. The
 *   KVM_GET_SREGS2 >, KVM_SET_SREGS2 <
 *				The same without the interrupt. flags and PDPTEs
 *				are 0, as the processor reads those from memory;
 *				they are not used. -EINVAL: also flags, or PDPTEs
 *				without PAE paging.
 *   KVM_GET_FPU >, KVM_SET_FPU <
 *				MXCSR is only read.
 *   KVM_GET_XSAVE >, KVM_GET_XSAVE2 >, KVM_SET_XSAVE <
 *				An XSAVE area in standard format: x87, SSE, AVX
 *				and AVX-512 as far as the machine has them.
 *				-EINVAL: other components, another format,
 *				reserved bits of MXCSR or of the header.
 *   KVM_GET_XCRS >, KVM_SET_XCRS <
 *				XCR0. -EINVAL: flags, too many, or a value that
 *				XSETBV refuses.
 *   KVM_GET_STATS_FD v		Also on the VM, with the sums of its vCPUs: a file in
 *				the reference's binary format; counts of exits and
 *				the host's cycles spent on them.
 *   KVM_SET_GUEST_DEBUG <	Single step, breakpoints by DR0-DR3 or INT3 (where
 *				the processor intercepts it), BLOCKIRQ, INJECT_DB
 *				and _BP. The guest keeps debug registers of its
 *				own. -EINVAL: other bits, or bits 63:32 of DR7.
 *				-EBUSY: an exception waits already.
 *   KVM_GET_DEBUGREGS >, KVM_SET_DEBUGREGS <
 *				-EINVAL: flags, or bits 63:32 of DR6 or DR7.
 *   KVM_GET_MSRS v, KVM_SET_MSRS v
 *				struct kvm_msrs. How many were done before one
 *				was refused. -E2BIG: nmsrs > 255.
 *   KVM_SET_CPUID v		struct kvm_cpuid: as below, without subleaves.
 *   KVM_SET_CPUID2 v		struct kvm_cpuid2. -E2BIG: over 256 entries.
 *				-EINVAL: linear addresses of neither 48 nor 57
 *				bits; or other than before, after the vCPU has
 *				run.
 *   KVM_GET_CPUID2 v		As the guest sees it. -E2BIG: more than nent.
 *   KVM_GET_LAPIC >, KVM_SET_LAPIC <
 *				-EINVAL: no local APIC, or another's id.
 *   KVM_SET_VAPIC_ADDR <	Accepted; there is no use for it.
 *
 *  Events
 *
 *   KVM_GET_VCPU_EVENTS >, KVM_SET_VCPU_EVENTS <
 *				-EINVAL: flags that are not valid or not enabled,
 *				an exception vector over 31 or 2, SMM.
 *   KVM_PRE_FAULT_MEMORY *	Maps guest memory as if it had been read; gpa and
 *				size become what is left, 0 if anything was done.
 *				-EINVAL: flags, alignment, size. -ENOENT: no slot.
 *				-EINTR. -EFAULT: memory of a slot is not mapped.
 *   KVM_TRANSLATE *		Where the guest would find an address, read at CPL
 *				0; valid is 0 where it would fault.
 *   KVM_GET_MP_STATE >, KVM_SET_MP_STATE <
 *				RUNNABLE, HALTED, UNINITIALIZED, INIT_RECEIVED,
 *				SIPI_RECEIVED. -EINVAL: others, or without a
 *				local APIC any but RUNNABLE.
 *   KVM_X86_SETUP_MCE <	IA32_MCG_CAP. -EINVAL: no banks, over 32, or
 *				unsupported bits.
 *   KVM_X86_SET_MCE <		Logs an error in a bank and, if it was not
 *				corrected, raises #MC; a guest that cannot take
 *				it shuts down. -EINVAL: no such bank, or the
 *				status is not valid.
 *
 *  Time
 *
 *   KVM_GET_TSC_KHZ v		Frequency of the TSC. Also of a VM.
 *   KVM_SET_TSC_KHZ v		-EINVAL: more than 250 parts in a million from
 *				the machine's without TSC_CONTROL, or a hundred
 *				times as fast or slow; 0 is the machine's.
 *   KVM_KVMCLOCK_CTRL v	Tells the guest that it was stopped. -EINVAL: it
 *				has no kvmclock.
 *   KVM_HAS_DEVICE_ATTR <, KVM_GET_DEVICE_ATTR <, KVM_SET_DEVICE_ATTR <
 *				KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET: what is
 *				added to the machine's TSC. -ENXIO: others.
 *
 *   KVM_ENABLE_CAP <		ENFORCE_PV_FEATURE_CPUID. -EINVAL: others, flags.
 *
 * KVM_CAP_SYNC_REGS: KVM_RUN first sets what kvm_dirty_regs in kvm_run names, in
 * the order registers, special registers, events, and fails as their ioctls do; it
 * ends by getting what kvm_valid_regs names.
 *
 *
 * Exits: kvm_run->exit_reason
 *
 *   KVM_EXIT_IO, KVM_EXIT_MMIO		finished by the next KVM_RUN, even if it
 *					leaves at once for immediate_exit
 *   KVM_EXIT_X86_RDMSR, _WRMSR		the same, for the reasons enabled by
 *					X86_USER_SPACE_MSR; error: #GP
 *   KVM_EXIT_INTR			with -EINTR, for a signal
 *   KVM_EXIT_HLT, KVM_EXIT_SET_TPR	without a local APIC here
 *   KVM_EXIT_IRQ_WINDOW_OPEN		without a PIC here
 *   KVM_EXIT_IOAPIC_EOI		with a local APIC but no IOAPIC here
 *   KVM_EXIT_DIRTY_RING_FULL		until entries of its dirty ring, mapped at
 *					page KVM_DIRTY_LOG_PAGE_OFFSET, are reset
 *   KVM_EXIT_SHUTDOWN			triple fault
 *   KVM_EXIT_DEBUG			what KVM_SET_GUEST_DEBUG asked for
 *   KVM_EXIT_FAIL_ENTRY		the processor refuses the guest's state
 *   KVM_EXIT_INTERNAL_ERROR		KVM_INTERNAL_ERROR_EMULATION with the
 *					bytes of an instruction that is not
 *					emulated (at CPL 0, or any with
 *					EXIT_ON_EMULATION_FAILURE, without
 *					which the guest also gets an #UD), or
 *					_DELIVERY_EV
 *
 *
 * Capabilities: KVM_CAP_*, 1 unless said otherwise; + also for KVM_ENABLE_CAP
 *
 *  VM		IMMEDIATE_EXIT, INTERNAL_ERROR_DATA, CHECK_EXTENSION_VM,
 *		ENABLE_CAP, ENABLE_CAP_VM, NR_VCPUS (CPUs online), MAX_VCPUS
 *		(1024), MAX_VCPU_ID+ (1024), X86_DISABLE_EXITS+ (HLT, PAUSE),
 *		DISABLE_QUIRKS+, DISABLE_QUIRKS2+ (a mask;
 *		FIX_HYPERCALL_INSN: until a vCPU has met eight other undefined
 *		instructions)
 *  memory	USER_MEMORY, USER_MEMORY2, READONLY_MEM, SYNC_MMU, NR_MEMSLOTS,
 *		MULTI_ADDRESS_SPACE (1: no more), DESTROY_MEMORY_REGION_WORKS,
 *		JOIN_MEMORY_REGIONS_WORKS, PRE_FAULT_MEMORY,
 *		COALESCED_MMIO (2: page of the ring),
 *		COALESCED_PIO, MANUAL_DIRTY_LOG_PROTECT2+ (3),
 *		DIRTY_LOG_RING+ and DIRTY_LOG_RING_ACQ_REL+ (bytes of the largest
 *		ring of a vCPU; a power of two, before the first vCPU, -E2BIG),
 *		SET_TSS_ADDR, SET_IDENTITY_MAP_ADDR
 *  interrupts	IRQCHIP, SPLIT_IRQCHIP+, IRQ_ROUTING (4096), IRQ_INJECT_STATUS,
 *		SIGNAL_MSI, IRQFD, IRQFD_RESAMPLE, IOEVENTFD,
 *		IOEVENTFD_ANY_LENGTH, IOEVENTFD_NO_LENGTH, PIT2, PIT_STATE2,
 *		REINJECT_CONTROL, X2APIC_API+ (3), USER_NMI, HLT, SET_BOOT_CPU_ID
 *  state	EXT_CPUID, EXT_EMUL_CPUID, ENFORCE_PV_FEATURE_CPUID+ (of a vCPU),
 *		GET_MSR_FEATURES, X86_MSR_FILTER, X86_USER_SPACE_MSR+,
 *		MSR_PLATFORM_INFO+, SREGS2, SYNC_REGS (7), XSAVE, XSAVE2 (4096), XCRS,
 *		DEBUGREGS, VCPU_EVENTS, MP_STATE, MCE (32), EXCEPTION_PAYLOAD+,
 *		X86_TRIPLE_FAULT_EVENT+, X86_ROBUST_SINGLESTEP, SET_GUEST_DEBUG,
 *		SET_GUEST_DEBUG2 (the bits that it takes), BINARY_STATS_FD,
 *		EXIT_ON_EMULATION_FAILURE+, NOP_IO_DELAY
 *  time	X86_APIC_BUS_CYCLES_NS+ (1; before the first vCPU, -EINVAL; -ENXIO:
 *		there are no local APICs), CLOCKSOURCE, ADJUST_CLOCK (14),
 *		KVMCLOCK_CTRL, GET_TSC_KHZ, TSC_DEADLINE_TIMER,
 *		VCPU_ATTRIBUTES, TSC_CONTROL (with VT-x, where the processor
 *		scales)
 *
 * What the guest finds: CPUID leaf 0x40000000 says "KVMKVMKVM"; 0x40000001 EAX
 * has CLOCKSOURCE, CLOCKSOURCE2, CLOCKSOURCE_STABLE_BIT, NOP_IO_DELAY, STEAL_TIME,
 * PV_EOI, PV_UNHALT, PV_TLB_FLUSH and PV_SEND_IPI.
 */

/*
 * Entries that the processor refused
 *
 * After KVM_EXIT_FAIL_ENTRY the vCPU still has the control block that the
 * processor refused; `fonda explain' finds the field at fault.
 *
 *   FONDA_GET_FAILED_ENTRY >	The last one, on a vCPU. -ENOENT: there is none.
 *   FONDA_BREAK_ENTRY <	For tests, and only when the module was loaded
 *				with break_entry=1: the field gets the value right
 *				before the vCPU's next entry, once. -EPERM: it was
 *				not. -EINVAL: there is no such field. -EBUSY: the
 *				field before is still broken until the next KVM_RUN.
 */
#define FONDA_ENTRY_SVM		1
#define FONDA_ENTRY_VMX		2
#define FONDA_ENTRY_CAPS	18
#define FONDA_ENTRY_FIELDS	512

struct fonda_entry_field {
	__u32 field;		/* VMX: its encoding; SVM: its offset in the VMCB */
	__u32 size;		/* bytes: 1, 2, 4 or 8; VMX: not used when breaking it */
	__u64 value;
};

struct fonda_failed_entry {
	__u32 vendor;		/* FONDA_ENTRY_* */
	__u32 nr_fields;	/* VMX: how many of vmcs[] */
	__u64 reason;		/* exit code, or exit reason; VMX: 0 with error */
	__u64 qualification;	/* of the exit; SVM: EXITINFO1 */
	__u32 error;		/* VMX: VM-instruction error, 0 for none */
	__u32 phys_bits;	/* of a physical address on this machine */
	/*
	 * What this processor can do. VMX: MSRs 0x480 (IA32_VMX_BASIC) to 0x491,
	 * 0 where there is none. SVM: [0] has CPUID 8000_000A, EBX in the lower
	 * and EDX in the upper half; [1] the bits that EFER may have; [2] CR4.
	 */
	__u64 caps[FONDA_ENTRY_CAPS];
	union {
		__u8 vmcb[4096];
		struct fonda_entry_field vmcs[FONDA_ENTRY_FIELDS];
	};
};

#define FONDA_GET_FAILED_ENTRY	_IOR(FONDA_IOCTL_TYPE, 0, struct fonda_failed_entry)
#define FONDA_BREAK_ENTRY	_IOW(FONDA_IOCTL_TYPE, 1, struct fonda_entry_field)

#endif
