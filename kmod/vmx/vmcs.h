/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The virtual machine control structure, as in Intel SDM volume 3: "Field
 * Encoding in VMCS", and the controls of "VM-Execution Control Fields" and the
 * two sections after it. Ours, because the kernel's own names change between
 * releases. Exit reasons are in the uapi <asm/vmx.h>.
 */
#ifndef FONDA_VMX_VMCS_H
#define FONDA_VMX_VMCS_H

#include <linux/types.h>
#include <asm/asm.h>

/* Of segments there is one field after the other, in the order of enum fonda_seg. */
enum vmcs_field {
	VMCS_VPID = 0x0000, VMCS_GUEST_SELECTOR = 0x0800,
	VMCS_GUEST_INTERRUPT_STATUS = 0x0810,	/* RVI, SVI << 8 */
	VMCS_GUEST_PML_INDEX = 0x0812, VMCS_HOST_SELECTOR = 0x0c00,	/* ES */
	VMCS_HOST_CS_SELECTOR = 0x0c02, VMCS_HOST_SS_SELECTOR = 0x0c04,
	VMCS_HOST_TR_SELECTOR = 0x0c0c,

	VMCS_MSR_BITMAP = 0x2004, VMCS_EXIT_MSR_STORE_ADDRESS = 0x2006, VMCS_PML_ADDRESS = 0x200e,
	VMCS_TSC_OFFSET = 0x2010, VMCS_VIRTUAL_APIC_ADDRESS = 0x2012, VMCS_EPT_POINTER = 0x201a,
	VMCS_EOI_EXIT_BITMAP = 0x201c,	/* four */
	VMCS_ENCLS_EXITING_BITMAP = 0x202e, VMCS_TSC_MULTIPLIER = 0x2032,
	VMCS_GUEST_PHYSICAL_ADDRESS = 0x2400,
	VMCS_LINK_POINTER = 0x2800, VMCS_GUEST_DEBUGCTL = 0x2802, VMCS_GUEST_PAT = 0x2804,
	VMCS_GUEST_EFER = 0x2806, VMCS_GUEST_PERF = 0x2808, VMCS_GUEST_PDPTE = 0x280a,	/* four */
	VMCS_HOST_PAT = 0x2c00, VMCS_HOST_EFER = 0x2c02, VMCS_HOST_PERF = 0x2c04,

	VMCS_PIN_CONTROLS = 0x4000, VMCS_CPU_CONTROLS = 0x4002, VMCS_EXCEPTION_BITMAP = 0x4004,
	VMCS_PF_ERROR_MASK = 0x4006, VMCS_PF_ERROR_MATCH = 0x4008, VMCS_CR3_TARGET_COUNT = 0x400a,
	VMCS_EXIT_CONTROLS = 0x400c, VMCS_EXIT_MSR_STORE_COUNT = 0x400e,
	VMCS_EXIT_MSR_LOAD_COUNT = 0x4010, VMCS_ENTRY_CONTROLS = 0x4012,
	VMCS_ENTRY_MSR_LOAD_COUNT = 0x4014, VMCS_ENTRY_INTR_INFO = 0x4016,
	VMCS_ENTRY_EXCEPTION_ERROR = 0x4018, VMCS_ENTRY_INSN_LEN = 0x401a,
	VMCS_TPR_THRESHOLD = 0x401c, VMCS_CPU_CONTROLS2 = 0x401e, VMCS_PLE_GAP = 0x4020,
	VMCS_PLE_WINDOW = 0x4022, VMCS_INSN_ERROR = 0x4400, VMCS_EXIT_REASON = 0x4402,
	VMCS_EXIT_INTR_INFO = 0x4404, VMCS_EXIT_INTR_ERROR = 0x4406,
	VMCS_IDT_VECTORING_INFO = 0x4408, VMCS_IDT_VECTORING_ERROR = 0x440a,
	VMCS_EXIT_INSN_LEN = 0x440c, VMCS_GUEST_LIMIT = 0x4800, VMCS_GUEST_ACCESS = 0x4814,
	VMCS_GUEST_INTERRUPTIBILITY = 0x4824, VMCS_GUEST_ACTIVITY = 0x4826,
	VMCS_GUEST_SYSENTER_CS = 0x482a, VMCS_PREEMPTION_TIMER = 0x482e,
	VMCS_HOST_SYSENTER_CS = 0x4c00,

	VMCS_CR0_MASK = 0x6000, VMCS_CR4_MASK = 0x6002, VMCS_CR0_SHADOW = 0x6004,
	VMCS_CR4_SHADOW = 0x6006, VMCS_EXIT_QUALIFICATION = 0x6400, VMCS_GUEST_CR0 = 0x6800,
	VMCS_GUEST_CR3 = 0x6802, VMCS_GUEST_CR4 = 0x6804, VMCS_GUEST_BASE = 0x6806,
	VMCS_GUEST_DR7 = 0x681a, VMCS_GUEST_RSP = 0x681c, VMCS_GUEST_RIP = 0x681e,
	VMCS_GUEST_RFLAGS = 0x6820, VMCS_GUEST_PENDING_DEBUG = 0x6822,
	VMCS_GUEST_SYSENTER_ESP = 0x6824, VMCS_GUEST_SYSENTER_EIP = 0x6826,
	VMCS_HOST_CR0 = 0x6c00, VMCS_HOST_CR3 = 0x6c02, VMCS_HOST_CR4 = 0x6c04,
	VMCS_HOST_FS_BASE = 0x6c06, VMCS_HOST_GS_BASE = 0x6c08, VMCS_HOST_TR_BASE = 0x6c0a,
	VMCS_HOST_GDTR_BASE = 0x6c0c, VMCS_HOST_IDTR_BASE = 0x6c0e,
	VMCS_HOST_SYSENTER_ESP = 0x6c10, VMCS_HOST_SYSENTER_EIP = 0x6c12, VMCS_HOST_RIP = 0x6c16,
};

/* VMCS_PIN_CONTROLS */
enum {
	PIN_EXTERNAL_INTERRUPT = BIT(0), PIN_NMI = BIT(3), PIN_VIRTUAL_NMI = BIT(5),
	PIN_PREEMPTION_TIMER = BIT(6),
};
/* VMCS_CPU_CONTROLS */
enum {
	CPU_INTERRUPT_WINDOW = BIT(2), CPU_TSC_OFFSET = BIT(3), CPU_HLT = BIT(7),
	CPU_MWAIT = BIT(10), CPU_RDPMC = BIT(11), CPU_CR8_LOAD = BIT(19), CPU_CR8_STORE = BIT(20),
	CPU_TPR_SHADOW = BIT(21), CPU_NMI_WINDOW = BIT(22), CPU_MOV_DR = BIT(23),
	CPU_IO = BIT(24), CPU_MSR_BITMAP = BIT(28), CPU_MONITOR = BIT(29),
	CPU_SECONDARY = BIT(31),
};
/* VMCS_CPU_CONTROLS2 */
enum {
	CPU2_EPT = BIT(1), CPU2_RDTSCP = BIT(3), CPU2_X2APIC = BIT(4), CPU2_VPID = BIT(5),
	CPU2_WBINVD = BIT(6), CPU2_UNRESTRICTED = BIT(7), CPU2_APIC_REGISTERS = BIT(8),
	CPU2_INTERRUPT_DELIVERY = BIT(9), CPU2_PAUSE_LOOP = BIT(10), CPU2_RDRAND = BIT(11),
	CPU2_INVPCID = BIT(12), CPU2_ENCLS = BIT(15), CPU2_RDSEED = BIT(16), CPU2_PML = BIT(17),
	CPU2_TSC_SCALING = BIT(25),
	CPU2_APICV = CPU2_X2APIC | CPU2_APIC_REGISTERS | CPU2_INTERRUPT_DELIVERY,
};
/* VMCS_EXIT_CONTROLS */
enum {
	EXIT_SAVE_DEBUG = BIT(2), EXIT_HOST_64BIT = BIT(9), EXIT_LOAD_PERF = BIT(12),
	EXIT_LOAD_PAT = BIT(19), EXIT_SAVE_EFER = BIT(20), EXIT_LOAD_EFER = BIT(21),
};
/* VMCS_ENTRY_CONTROLS */
enum {
	ENTRY_LOAD_DEBUG = BIT(2), ENTRY_IA32E = BIT(9), ENTRY_LOAD_PERF = BIT(13),
	ENTRY_LOAD_PAT = BIT(14), ENTRY_LOAD_EFER = BIT(15),
};

/* VMCS_GUEST_ACCESS: fonda's bits 11:8 are 15:12 here. */
#define ACCESS_LONG		BIT(13)
#define ACCESS_UNUSABLE		BIT(16)

/* VMCS_GUEST_INTERRUPTIBILITY */
#define BLOCKED_BY_STI		BIT(0)
#define BLOCKED_BY_MOV_SS	BIT(1)
#define BLOCKED_BY_NMI		BIT(3)

#define PENDING_DEBUG_BS	BIT_ULL(14)

/* VMCS_ENTRY_INTR_INFO, beside FONDA_EVENT_*: INT3 and INTO. */
#define EVENT_TYPE_SOFT_INTERRUPT	(4u << 8)
#define EVENT_TYPE_INT1			(5u << 8)
#define EVENT_TYPE_SOFT_EXCEPTION	(6u << 8)
/* VMCS_EXIT_INTR_INFO and the qualification of EPT violations: an IRET was cut short. */
#define NMI_UNBLOCKED		BIT(12)

#define EXIT_ENTRY_FAILED	BIT(31)		/* VMCS_EXIT_REASON */

#define EPTP_WB			6
#define EPTP_4_LEVELS		(3 << 3)
#define EPTP_ACCESSED_DIRTY	BIT(6)

/*
 * Instructions: those whose failure nobody looks at are of fields or regions that
 * are known to be there. All may meet that the extension has been switched off,
 * on a machine that goes down.
 */
#define vmx_insn(insn, ...)	({						\
	u8 __failed = 1;							\
	asm volatile("1: " insn "\n\tsetna %0\n2:\n" _ASM_EXTABLE(1b, 2b)	\
		     : "+qm"(__failed) : __VA_ARGS__ : "cc", "memory");		\
	__failed;								\
})

#define vmx_region(insn, pa)	({						\
	u64 __region = pa;							\
	vmx_insn(insn " %1", "m"(__region));					\
})

#define vmxon(pa)	vmx_region("vmxon", pa)
#define vmxoff()	vmx_insn("vmxoff", "i"(0))
#define vmclear(pa)	vmx_region("vmclear", pa)
#define vmptrld(pa)	vmx_region("vmptrld", pa)

/* All of one context, the EPT pointer or the VPID. */
#define vmx_forget(insn, context)	({					\
	u64 __descriptor[2] = { context };					\
	vmx_insn(insn " %1, %2", "m"(__descriptor), "r"(1ul));			\
})

static __always_inline bool vmread_safe(unsigned long field, u64 *val)
{
	u8 failed = 1;

	asm volatile("1: vmread %2, %1\n\tsetna %0\n2:\n" _ASM_EXTABLE(1b, 2b)
		     : "+qm"(failed), "+r"(*val) : "r"(field) : "cc");
	return !failed;
}

static __always_inline u64 vmread(unsigned long field)
{
	u64 val = 0;

	asm volatile("1: vmread %1, %0\n2:\n" _ASM_EXTABLE(1b, 2b)
		     : "+r"(val) : "r"(field) : "cc");
	return val;
}

static __always_inline void vmwrite(unsigned long field, u64 val)
{
	asm volatile("1: vmwrite %0, %1\n2:\n" _ASM_EXTABLE(1b, 2b)
		     : : "r"(val), "r"(field) : "cc", "memory");
}

#endif
