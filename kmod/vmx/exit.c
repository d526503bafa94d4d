// SPDX-License-Identifier: GPL-2.0-only
/*
 * What VT-x exits mean: one sparse table, whose entries act themselves or point
 * at generic code. A handler is called inside the section first; one that must
 * sleep answers FONDA_RETRY_SLEEPING before it changes anything and is called
 * again outside.
 */
#include "vmx.h"

/* "Exit Qualification for Control-Register Accesses", and "for MOV DR" */
#define ACCESS_REG(q)		((q) & 0xf)
#define ACCESS_GPR(q)		((q) >> 8 & 0xf)
#define CR_ACCESS_TYPE(q)	((q) >> 4 & 3)
#define CR_FROM			1
#define DR_FROM			BIT(4)

/* "Exit Qualification for I/O Instructions" */
#define IO_IN			BIT(3)
#define IO_STRING		BIT(4)

/* "Exit Qualification for EPT Violations" */
#define EPT_WRITE		BIT(1)
#define EPT_FETCH		BIT(2)
#define EPT_LINEAR		BIT(7)	/* it has a linear address, */
#define EPT_TRANSLATED		BIT(8)	/* and is the access to what that stands for */

/* A fault in the middle of an IRET has ended the masking of NMIs too early. */
static void mask_nmi_again(struct vmx_vcpu *vmx, u64 info)
{
	if (info & NMI_UNBLOCKED && !(vmx->idt_info & FONDA_EVENT_VALID))
		vmx->vcpu.nmi_masked = true;
}

static int debug_exception(struct vmx_vcpu *vmx)
{
	struct fonda_vcpu *vcpu = &vmx->vcpu;
	u64 causes = vmx->qualification;

	if (vcpu->debug.control & (KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_HW_BP))
		return fonda_exit_debug(vcpu, X86_TRAP_DB, FONDA_DR6_INIT | causes,
					vmread(VMCS_GUEST_DR7));
	/* DR6 and DR7 are as before. */
	if (vmx->drs_loaded)
		vcpu->dr7 = vmread(VMCS_GUEST_DR7);
	fonda_queue_debug(vcpu, causes);
	return FONDA_RESUME_GUEST;
}

/*
 * Of a lock across cache lines, which the host wants to know of and no guest expects?
 * Until the section ends those pass: what comes again is the guest's.
 */
static bool allow_split_locks(struct vmx_vcpu *vmx)
{
	u64 val;

	if (rdmsrq_safe(MSR_TEST_CTRL, &val) || !(val & MSR_TEST_CTRL_SPLIT_LOCK_DETECT))
		return false;
	vmx->host_test_ctrl = val;
	wrmsrq(MSR_TEST_CTRL, val & ~(u64)MSR_TEST_CTRL_SPLIT_LOCK_DETECT);
	return true;
}

static int exit_exception(struct fonda_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);
	u32 info;

	/* Of those here it alone is put off until the VMCS is not open any more. */
	if (!vcpu->atomic)
		return fonda_exit_undefined(vcpu);
	info = vmread(VMCS_EXIT_INTR_INFO);
	if ((info & FONDA_EVENT_TYPE) == FONDA_EVENT_TYPE_NMI) {
		/* The host's own; its handler ends with the IRET that lets NMIs in again. */
		asm volatile("int $2");
		return FONDA_RESUME_GUEST;
	}
	if ((u8)info != X86_TRAP_DF)
		mask_nmi_again(vmx, info);
	switch ((u8)info) {
	case X86_TRAP_MC:
		return fonda_exit_machine_check(vcpu);
	case X86_TRAP_DB:
		/* INT1 is a trap, and RIP is still at it. */
		if ((info & FONDA_EVENT_TYPE) == EVENT_TYPE_INT1)
			vcpu->rip += vcpu->insn_len;
		return debug_exception(vmx);
	case X86_TRAP_BP:
		return fonda_exit_debug(vcpu, X86_TRAP_BP, 0, 0);
	case X86_TRAP_UD:
		return fonda_exit_undefined(vcpu);
	case X86_TRAP_AC:
		if (allow_split_locks(vmx))
			return FONDA_RESUME_GUEST;
		fonda_queue_exception_error(vcpu, X86_TRAP_AC, vmread(VMCS_EXIT_INTR_ERROR));
		return FONDA_RESUME_GUEST;
	default:
		return fonda_internal_error(vcpu, KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON,
					    vmx->reason, info);
	}
}

static int exit_triple_fault(struct fonda_vcpu *vcpu)
{
	fonda_request(vcpu, FONDA_REQ_TRIPLE_FAULT);
	return FONDA_RESUME_GUEST;
}

/* Of ours, the next entry offers; the outer loop finds that user space's is open. */
static int exit_window(struct fonda_vcpu *vcpu)
{
	vcpu->backend_work = true;
	return vcpu->want_window ? FONDA_LEAVE_SECTION : FONDA_RESUME_GUEST;
}

static int exit_nmi_window(struct fonda_vcpu *vcpu)
{
	vcpu->event_pending = true;
	return FONDA_RESUME_GUEST;
}

static int exit_hypercall(struct fonda_vcpu *vcpu)
{
	bool long_mode;
	u32 cs, ss;

	vmx_open(to_vmx(vcpu));
	cs = vmread(VMCS_GUEST_ACCESS + 2 * FONDA_SEG_CS);
	ss = vmread(VMCS_GUEST_ACCESS + 2 * FONDA_SEG_SS);
	long_mode = vmread(VMCS_GUEST_EFER) & EFER_LMA;
	vmx_close(to_vmx(vcpu));
	return fonda_hypercall(vcpu, long_mode && cs & ACCESS_LONG, ss >> 5 & 3);
}

/*
 * A MOV to CR0 or CR4 that changes what the guest does not own: it reads those
 * bits in the shadow, so that once they are as it wants them there the
 * instruction no longer exits, and the processor does the rest (LMA, PDPTEs).
 */
static int write_split(struct vmx_vcpu *vmx, int nr, u64 val)
{
	if (nr ? fonda_check_cr4(&vmx->vcpu, val) : fonda_check_cr0(&vmx->vcpu, val))
		return fonda_exit_protection(&vmx->vcpu);
	vmwrite(nr ? VMCS_CR4_SHADOW : VMCS_CR0_SHADOW, val);
	return FONDA_RESUME_GUEST;
}

static int exit_cr_access(struct fonda_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);
	u64 q = vmx->qualification;
	unsigned long *gpr = &vcpu->regs[ACCESS_GPR(q)];
	u64 val = fonda_in_64bit_mode(vcpu) ? *gpr : (u32)*gpr;

	if (ACCESS_REG(q) != 8)
		return write_split(vmx, ACCESS_REG(q), val);
	if (CR_ACCESS_TYPE(q) != CR_FROM)
		return fonda_exit_write_cr8(vcpu, val);
	*gpr = lapic_get_tpr(&vcpu->lapic);
	return fonda_exit_skip(vcpu);
}

/* A debug register, while the processor has the host's: load, and try again. */
static int exit_debug_register(struct fonda_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);
	u64 q = vmx->qualification;

	if (vcpu->debug.control & KVM_GUESTDBG_USE_HW_BP)
		return fonda_exit_debug_register(vcpu, ACCESS_REG(q) & 7, !(q & DR_FROM),
						 ACCESS_GPR(q), vmread(VMCS_GUEST_DR7));
	vmx_load_debug_registers(vmx);
	return FONDA_RESUME_GUEST;
}

static int exit_io(struct fonda_vcpu *vcpu)
{
	u64 q = to_vmx(vcpu)->qualification;
	int size = (q & 7) + 1;

	if (q & IO_STRING)
		return fonda_emulate_insn(vcpu, FONDA_INVALID_GPA, FONDA_ACCESS_READ, size);
	return fonda_pio(vcpu, q >> 16, size, q & IO_IN, vcpu->insn_len);
}

/* A switch by hardware tasks, which 32-bit systems of old used. */
static int exit_task_switch(struct fonda_vcpu *vcpu)
{
	return fonda_internal_error(vcpu, KVM_INTERNAL_ERROR_EMULATION,
				    EXIT_REASON_TASK_SWITCH, to_vmx(vcpu)->qualification);
}

/* The gpa in a retry outside the section is still in the VMCS. */
static int exit_ept_violation(struct fonda_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);
	u64 q = vmx->qualification;
	const struct fonda_nested_fault fault = {
		.gpa = vmx->gpa, .write = q & EPT_WRITE, .fetch = q & EPT_FETCH,
		.table_walk = (q & (EPT_LINEAR | EPT_TRANSLATED)) == EPT_LINEAR,
		.event = vmx->idt_info & FONDA_EVENT_VALID ? vmx->idt_info : 0,
		.reason = vmx->reason, .info = q,
	};

	mask_nmi_again(vmx, q);
	return fonda_exit_nested_fault(vcpu, &fault);
}

/* It has been drained. */
static int exit_pml_full(struct fonda_vcpu *vcpu)
{
	mask_nmi_again(to_vmx(vcpu), to_vmx(vcpu)->qualification);
	return FONDA_RESUME_GUEST;
}

/* An entry of fonda's own tables that the processor does not understand: a bug. */
static int exit_ept_misconfiguration(struct fonda_vcpu *vcpu)
{
	WRITE_ONCE(vcpu->vm->bugged, true);
	return fonda_internal_error(vcpu, KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON,
				    to_vmx(vcpu)->reason, to_vmx(vcpu)->gpa);
}

/* The deadline, or not yet: then the next entry sets the timer anew. */
static int exit_timer(struct fonda_vcpu *vcpu)
{
	lapic_get_deadline(&vcpu->lapic);
	return FONDA_RESUME_GUEST;
}

/* Of a vector that others wait for. The processor has begun as lapic_eoi() does. */
static int exit_eoi(struct fonda_vcpu *vcpu)
{
	lapic_settle(&vcpu->lapic, to_vmx(vcpu)->qualification, true);
	lapic_eoi(&vcpu->lapic);
	return FONDA_RESUME_GUEST;
}

/* After the write: a self-IPI whose vector is an error. */
static int exit_apic_write(struct fonda_vcpu *vcpu)
{
	u32 reg = to_vmx(vcpu)->qualification & 0xff0;

	fonda_lapic_write_msr(vcpu, MSR_X2(reg), *(u32 *)&to_vmx(vcpu)->virtual_apic[reg], false);
	return FONDA_RESUME_GUEST;
}

#define UD	{ fonda_exit_invalid_opcode, .stat = FONDA_STAT_OTHER }

const struct fonda_exit vmx_exits[VMX_NR_EXITS] = {
	[EXIT_REASON_EXCEPTION_NMI]	= { exit_exception, 0, FONDA_STAT_EXCEPTION, true },
	[EXIT_REASON_EXTERNAL_INTERRUPT] = { fonda_exit_resume, 0, FONDA_STAT_INTERRUPT },
	[EXIT_REASON_TRIPLE_FAULT]	= { exit_triple_fault, 0, FONDA_STAT_OTHER },
	[EXIT_REASON_INTERRUPT_WINDOW]	= { exit_window, 0, FONDA_STAT_OTHER, true },
	[EXIT_REASON_NMI_WINDOW]	= { exit_nmi_window, 0, FONDA_STAT_NMI_WINDOW, true },
	[EXIT_REASON_TASK_SWITCH]	= { exit_task_switch, 0, FONDA_STAT_OTHER },
	[EXIT_REASON_CPUID]		= { fonda_exit_cpuid, 0, FONDA_STAT_CPUID, true },
	[11 /* GETSEC */]		= UD,
	[EXIT_REASON_HLT]		= { fonda_exit_hlt, 0, FONDA_STAT_HALT, true },
	[EXIT_REASON_INVD]		= { fonda_exit_skip, 0, FONDA_STAT_CACHE, true },
	[EXIT_REASON_RDPMC]		= { fonda_exit_protection, 0, FONDA_STAT_OTHER },
	[EXIT_REASON_VMCALL]		= { exit_hypercall, 0, FONDA_STAT_HYPERCALL, true },
	/* VMCLEAR to VMXON */
	[EXIT_REASON_VMCLEAR ... EXIT_REASON_VMON] = UD,
	[EXIT_REASON_CR_ACCESS]		= { exit_cr_access, 0, FONDA_STAT_CR, true },
	[EXIT_REASON_DR_ACCESS]		= { exit_debug_register, 0, FONDA_STAT_DR, true },
	[EXIT_REASON_IO_INSTRUCTION]	= { exit_io, 0, FONDA_STAT_PIO, true },
	[EXIT_REASON_MSR_READ]		= { fonda_exit_rdmsr, 0, FONDA_STAT_MSR, true },
	[EXIT_REASON_MSR_WRITE]		= { fonda_exit_wrmsr, 0, FONDA_STAT_MSR, true },
	[EXIT_REASON_MWAIT_INSTRUCTION]	= { fonda_exit_monitor, 0, FONDA_STAT_OTHER },
	[EXIT_REASON_MONITOR_INSTRUCTION] = { fonda_exit_monitor, 0, FONDA_STAT_OTHER },
	[EXIT_REASON_PAUSE_INSTRUCTION]	= { fonda_exit_pause, 0, FONDA_STAT_PAUSE },
	/* The next entry offers what the task priority held back. */
	[EXIT_REASON_TPR_BELOW_THRESHOLD] = { fonda_exit_resume, 0, FONDA_STAT_OTHER, true },
	[EXIT_REASON_PREEMPTION_TIMER]	= { exit_timer, 0, FONDA_STAT_OTHER, true },
	[EXIT_REASON_EOI_INDUCED]	= { exit_eoi, 0, FONDA_STAT_MSR, true },
	[EXIT_REASON_APIC_WRITE]	= { exit_apic_write, 0, FONDA_STAT_MSR, true },
	[EXIT_REASON_EPT_VIOLATION]	= { exit_ept_violation, 0, FONDA_STAT_PAGE_FAULT },
	[EXIT_REASON_EPT_MISCONFIG]	= { exit_ept_misconfiguration, 0, FONDA_STAT_OTHER },
	[EXIT_REASON_INVEPT]		= UD,
	[EXIT_REASON_INVVPID]		= UD,
	[EXIT_REASON_WBINVD]		= { fonda_exit_skip, 0, FONDA_STAT_CACHE, true },
	[EXIT_REASON_XSETBV]		= { fonda_exit_xsetbv, 0, FONDA_STAT_OTHER },
	[EXIT_REASON_RDRAND]		= UD,
	[EXIT_REASON_VMFUNC]		= UD,
	[EXIT_REASON_ENCLS]		= UD,
	[EXIT_REASON_RDSEED]		= UD,
	[EXIT_REASON_PML_FULL]		= { exit_pml_full, 0, FONDA_STAT_OTHER, true },
};

/* The processor refused: for its host's state and controls at once, for the guest's later. */
static int exit_failed(struct fonda_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);

	if ((u16)vmx->reason == EXIT_REASON_MCE_DURING_VMENTRY && vcpu->atomic)
		fonda_exit_machine_check(vcpu);
	return fonda_exit_fail_entry(vcpu, vmx->insn_error ?: vmx->reason);
}

static int exit_unexpected(struct fonda_vcpu *vcpu)
{
	return fonda_internal_error(vcpu, KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON,
				    to_vmx(vcpu)->reason, to_vmx(vcpu)->qualification);
}

const struct fonda_exit vmx_exit_failed = { exit_failed, 0, FONDA_STAT_OTHER };
const struct fonda_exit vmx_exit_unexpected = { exit_unexpected, 0, FONDA_STAT_OTHER };

int vmx_handle_exit(struct fonda_vcpu *vcpu)
{
	return vmx_find_exit(to_vmx(vcpu)->reason)->handle(vcpu);
}
