// SPDX-License-Identifier: GPL-2.0-only
/*
 * What AMD-V exits mean: one sparse table, whose entries act themselves or
 * point at generic code. A handler is called inside the section first; one
 * that must sleep answers FONDA_RETRY_SLEEPING before it changes anything and
 * is called again outside.
 *
 * The length of the instruction comes from NRIP save where the processor has
 * it, else it is read from the guest's memory and decoded.
 */
#include "svm.h"

static bool in_64bit_code(const struct vmcb *vmcb)
{
	return vmcb->cs.attr & FONDA_SEG_L && vmcb->efer & EFER_LMA;
}

int svm_get_code(struct fonda_vcpu *vcpu, struct fonda_paging *p, gva_t *rip)
{
	const struct vmcb *vmcb = to_svm(vcpu)->vmcb;

	/* One by one: the rest is for fonda_walk_guest() to fill in. */
	p->cr0 = vmcb->cr0;
	p->cr3 = vmcb->cr3;
	p->cr4 = vmcb->cr4;
	p->efer = vmcb->efer;
	p->rflags = vmcb->rflags;
	*rip = vmcb->rip;
	if (in_64bit_code(vmcb))
		return 64;
	*rip = (u32)(*rip + vmcb->cs.base);
	return vmcb->cs.attr & FONDA_SEG_DB ? 32 : 16;
}

/*
 * The instruction that exited, when it is @op: 0, or the FONDA_* code to return
 * (its memory must be faulted in, or no longer holds that instruction and the
 * guest shall execute what is there now).
 */
static noinline int decode(struct svm_vcpu *svm, enum fonda_exit_op op,
			   struct fonda_exit_insn *insn)
{
	struct fonda_paging paging;
	u8 code[FONDA_INSN_MAX];
	gva_t rip;
	int nr, bits;

	bits = svm_get_code(&svm->vcpu, &paging, &rip);
	nr = fonda_fetch_code(&svm->vcpu, &paging, rip, code);
	if (nr < 0)
		return nr == -EAGAIN ? FONDA_RETRY_SLEEPING : FONDA_RESUME_GUEST;
	return fonda_decode_exit(insn, code, nr, bits, op) ? 0 : FONDA_RESUME_GUEST;
}

noinline int svm_insn_length_slowly(struct fonda_vcpu *vcpu, u32 op)
{
	struct fonda_exit_insn insn;
	int ret = decode(to_svm(vcpu), op, &insn);

	return ret ? -ret : insn.len;
}

/* The outer loop finds that the window is open. */
static int exit_window(struct fonda_vcpu *vcpu)
{
	return FONDA_LEAVE_SECTION;
}

static int exit_msr(struct fonda_vcpu *vcpu)
{
	struct svm_vcpu *svm = to_svm(vcpu);

	/* Apart, so that each looks for bytes known here. */
	return svm->vmcb->exit_info_1 ?
	       svm_handle_insn(vcpu, FONDA_OP_WRMSR, fonda_exit_wrmsr) :
	       svm_handle_insn(vcpu, FONDA_OP_RDMSR, fonda_exit_rdmsr);
}

static int exit_io(struct fonda_vcpu *vcpu)
{
	struct vmcb *vmcb = to_svm(vcpu)->vmcb;
	u32 info = vmcb->exit_info_1;
	int size = (info >> IOIO_SIZE_SHIFT) & 7;

	/* Permission was checked by the processor before the intercept. */
	if (info & IOIO_STRING)
		return fonda_emulate_insn(vcpu, FONDA_INVALID_GPA, FONDA_ACCESS_READ, size);
	return fonda_pio(vcpu, info >> 16, size, info & IOIO_IN, vmcb->exit_info_2 - vmcb->rip);
}

static int exit_hypercall(struct fonda_vcpu *vcpu)
{
	const struct vmcb *vmcb = to_svm(vcpu)->vmcb;

	return fonda_hypercall(vcpu, in_64bit_code(vmcb), vmcb->cpl);
}

/* Which general register a MOV to a control register took. */
static int cr_operand(struct svm_vcpu *svm, struct fonda_exit_insn *insn)
{
	if (!svm_features.decode_assists || !svm_features.nrip_save)
		return decode(svm, FONDA_OP_MOV_TO_CR, insn);
	insn->rm = svm->vmcb->exit_info_1 & 0xf;
	insn->len = svm->vmcb->next_rip - svm->vmcb->rip;
	return 0;
}

static u64 cr_value(struct svm_vcpu *svm, int reg)
{
	u64 val = svm->vcpu.regs[reg];

	return in_64bit_code(svm->vmcb) ? val : (u32)val;
}

/*
 * A write of CR0 that changes more than TS and MP, while the reset value of CD
 * and NW is held back (set_guest_cr0() in svm.c). From here on the guest has its
 * own CR0 and no intercept.
 */
static int exit_cr0_write(struct fonda_vcpu *vcpu)
{
	struct svm_vcpu *svm = to_svm(vcpu);
	struct fonda_exit_insn insn;
	int ret;

	ret = decode(svm, FONDA_OP_MOV_TO_CR, &insn);
	if (!ret && fonda_check_cr0(vcpu, cr_value(svm, insn.rm)))
		return fonda_exit_protection(vcpu);
	/* LMSW never touches CD: the processor can have it. */
	if (ret == FONDA_RESUME_GUEST)
		ret = decode(svm, FONDA_OP_LMSW, &insn);
	if (ret)
		return ret;
	/* The processor does the rest (LMA, PDPTEs) as it executes. */
	svm->cr0_cache_bits = 0;
	svm_intercept(svm, SVM_EXIT_CR0_SEL_WRITE, false);
	return FONDA_RESUME_GUEST;
}

static int exit_cr4_write(struct fonda_vcpu *vcpu)
{
	struct svm_vcpu *svm = to_svm(vcpu);
	struct fonda_exit_insn insn;
	u64 val;
	int ret;

	ret = cr_operand(svm, &insn);
	if (ret)
		return ret;
	val = cr_value(svm, insn.rm);
	if (fonda_check_cr4(vcpu, val))
		return fonda_exit_protection(vcpu);
	svm->vmcb->cr4 = val;
	svm_dirty(svm, CLEAN_CR);
	fonda_flush(vcpu);
	return fonda_skip_insn(vcpu, insn.len);
}

static int exit_cr8_write(struct fonda_vcpu *vcpu)
{
	struct svm_vcpu *svm = to_svm(vcpu);
	struct fonda_exit_insn insn;
	int ret;

	ret = cr_operand(svm, &insn);
	vcpu->insn_len = insn.len;
	return ret ? ret : fonda_exit_write_cr8(vcpu, cr_value(svm, insn.rm));
}

/* A debug register, while the processor's are a debugger's. */
static int emulate_debug_register(struct svm_vcpu *svm)
{
	bool write = svm->vmcb->exit_code >= SVM_EXIT_WRITE_DR0;
	struct fonda_exit_insn insn;
	int ret;

	ret = decode(svm, write ? FONDA_OP_MOV_TO_DR : FONDA_OP_MOV_FROM_DR, &insn);
	svm->vcpu.insn_len = insn.len;
	return ret ? ret : fonda_exit_debug_register(&svm->vcpu, svm->vmcb->exit_code & 7, write,
						     insn.rm, svm->vmcb->dr7);
}

/* A debug register, while the processor has the host's: load, and try again. */
static int exit_debug_register(struct fonda_vcpu *vcpu)
{
	struct svm_vcpu *svm = to_svm(vcpu);

	if (vcpu->debug.control & KVM_GUESTDBG_USE_HW_BP)
		return emulate_debug_register(svm);
	if (vcpu->atomic) {
		svm_update_debug_controls(svm);
		svm_load_debug_registers(svm);
	}
	return FONDA_RESUME_GUEST;
}

static int exit_debug_exception(struct fonda_vcpu *vcpu)
{
	struct svm_vcpu *svm = to_svm(vcpu);
	u64 dr6 = svm->vmcb->dr6;

	if (svm->nmi_singlestep) {
		/* The instruction that held the NMI back is done. */
		svm->nmi_singlestep = false;
		if (svm->iret_rip)
			svm_nmi_unmask(svm);
		vcpu->event_pending = true;
		if (!(vcpu->rflags & X86_EFLAGS_TF) && !vcpu->debug.control) {
			dr6 &= ~(u64)DR_STEP;
			svm->vmcb->dr6 = dr6;
			svm_dirty(svm, CLEAN_DR);
			if (!(dr6 & DR_TRAP_BITS))
				return FONDA_RESUME_GUEST;
		}
	}
	if (vcpu->debug.control & (KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_HW_BP)) {
		u64 dr7 = svm->vmcb->dr7;

		svm_update_debug_controls(svm);
		return fonda_exit_debug(vcpu, X86_TRAP_DB, dr6, dr7);
	}
	/* DR6 is as the guest shall see it; only the delivery is left. */
	vcpu->dr6 = dr6;
	fonda_queue_exception(vcpu, X86_TRAP_DB);
	return FONDA_RESUME_GUEST;
}

/* INT3 while a debugger uses it. */
static int exit_breakpoint(struct fonda_vcpu *vcpu)
{
	return fonda_exit_debug(vcpu, X86_TRAP_BP, 0, 0);
}

static int exit_alignment_check(struct fonda_vcpu *vcpu)
{
	fonda_queue_exception_error(vcpu, X86_TRAP_AC, to_svm(vcpu)->vmcb->exit_info_1);
	return FONDA_RESUME_GUEST;
}

/*
 * An IRET while an NMI is being handled. NMIs are let in again after it, not
 * before: where one waits, single stepping finds the end, else the next exit.
 */
static int exit_iret(struct fonda_vcpu *vcpu)
{
	struct svm_vcpu *svm = to_svm(vcpu);

	svm_intercept(svm, SVM_EXIT_IRET, false);
	svm->iret_rip = vcpu->rip;
	vcpu->backend_work = true;
	if (vcpu->nmi_pending)
		vcpu->event_pending = true;
	return FONDA_RESUME_GUEST;
}

/* A triple fault; the VMCB's state is undefined afterwards. */
static int exit_shutdown(struct fonda_vcpu *vcpu)
{
	fonda_vcpu_reset(vcpu, true);
	fonda_request(vcpu, FONDA_REQ_TRIPLE_FAULT);
	return FONDA_RESUME_GUEST;
}

static int exit_nested_fault(struct fonda_vcpu *vcpu)
{
	const struct vmcb *vmcb = to_svm(vcpu)->vmcb;
	u64 info = vmcb->exit_info_1;
	const struct fonda_nested_fault fault = {
		.gpa = vmcb->exit_info_2, .write = info & NPF_WRITE, .fetch = info & NPF_FETCH,
		.table_walk = info & NPF_TABLE_WALK,
		.event = vmcb->exit_int_info & FONDA_EVENT_VALID ? vmcb->exit_int_info : 0,
		.reason = vmcb->exit_code, .info = info,
	};

	return fonda_exit_nested_fault(vcpu, &fault);
}

#define UD	{ fonda_exit_invalid_opcode, .stat = FONDA_STAT_OTHER }

struct fonda_exit svm_exits[SVM_NR_EXITS] __ro_after_init = {
	[SVM_EXIT_WRITE_CR4]	= { exit_cr4_write, 0, FONDA_STAT_CR, true },
	[SVM_EXIT_WRITE_CR8]	= { exit_cr8_write, 0, FONDA_STAT_CR, true, .on_demand = true },
	[SVM_EXIT_CR0_SEL_WRITE] = { exit_cr0_write, 0, FONDA_STAT_CR, .on_demand = true },
	[SVM_EXIT_READ_DR0 ... SVM_EXIT_READ_DR0 + 15] = { exit_debug_register, 0, FONDA_STAT_DR },
	[SVM_EXIT_WRITE_DR0 ... SVM_EXIT_WRITE_DR0 + 15] =
				  { exit_debug_register, 0, FONDA_STAT_DR },
	[SVM_EXIT_EXCP_BASE + X86_TRAP_DB] = { exit_debug_exception, 0, FONDA_STAT_EXCEPTION },
	[SVM_EXIT_EXCP_BASE + X86_TRAP_BP] =
		{ exit_breakpoint, 0, FONDA_STAT_EXCEPTION, .on_demand = true },
	[SVM_EXIT_EXCP_BASE + X86_TRAP_UD] = { fonda_exit_undefined, 0, FONDA_STAT_EXCEPTION },
	/* Delivered in an endless loop these two would never let go of the CPU. */
	[SVM_EXIT_EXCP_BASE + X86_TRAP_AC] = { exit_alignment_check, 0, FONDA_STAT_EXCEPTION },
	[SVM_EXIT_EXCP_BASE + X86_TRAP_MC] =
		{ fonda_exit_machine_check, 0, FONDA_STAT_EXCEPTION, true },
	/* INTR, NMI, SMI, INIT */
	[SVM_EXIT_INTR ... SVM_EXIT_INIT] = { fonda_exit_resume, 0, FONDA_STAT_INTERRUPT },
	[SVM_EXIT_VINTR]	= { exit_window, 0, FONDA_STAT_INTERRUPT, .on_demand = true },
	[SVM_EXIT_RDPMC]	= { fonda_exit_protection, 0, FONDA_STAT_OTHER },
	[SVM_EXIT_CPUID]	= { fonda_exit_cpuid, FONDA_OP_CPUID, FONDA_STAT_CPUID, true },
	[SVM_EXIT_RSM]		= UD,
	[SVM_EXIT_IRET]		= { exit_iret, 0, FONDA_STAT_NMI_WINDOW, .on_demand = true },
	[SVM_EXIT_INVD]		= { fonda_exit_skip, FONDA_OP_INVD, FONDA_STAT_CACHE },
	[SVM_EXIT_PAUSE]	= { fonda_exit_pause, FONDA_OP_PAUSE, FONDA_STAT_PAUSE },
	[SVM_EXIT_HLT]		= { fonda_exit_hlt, FONDA_OP_HLT, FONDA_STAT_HALT, true },
	[SVM_EXIT_INVLPGA]	= UD,
	[SVM_EXIT_IOIO]		= { exit_io, 0, FONDA_STAT_PIO, true },
	[SVM_EXIT_MSR]		= { exit_msr, 0, FONDA_STAT_MSR, true },
	[SVM_EXIT_SHUTDOWN]	= { exit_shutdown, 0, FONDA_STAT_OTHER },
	[SVM_EXIT_VMRUN]	= UD,
	[SVM_EXIT_VMMCALL]	= { exit_hypercall, FONDA_OP_VMMCALL, FONDA_STAT_HYPERCALL, true },
	/* VMLOAD, VMSAVE, STGI, CLGI, SKINIT, RDTSCP where the guest has none */
	[SVM_EXIT_VMLOAD ... SVM_EXIT_RDTSCP] = UD,
	/* WBNOINVD as well */
	[SVM_EXIT_WBINVD]	= { fonda_exit_skip, FONDA_OP_WBINVD, FONDA_STAT_CACHE, true },
	[SVM_EXIT_MONITOR]	= { fonda_exit_monitor, FONDA_OP_MONITOR, FONDA_STAT_OTHER },
	[SVM_EXIT_MWAIT]	= { fonda_exit_monitor, FONDA_OP_MWAIT, FONDA_STAT_OTHER },
	[SVM_EXIT_XSETBV]	= { fonda_exit_xsetbv, FONDA_OP_XSETBV, FONDA_STAT_OTHER },
	[SVM_EXIT_RDPRU]	= UD,
	/* INVLPGB, ILLEGAL_INVLPGB, INVPCID, MCOMMIT, TLBSYNC */
	[0xa0 ... SVM_NR_EXITS - 1] = UD,
};

/* VMRUN found the VMCB's state illegal, or the exit is one we never asked for. */
static int exit_unexpected(struct fonda_vcpu *vcpu)
{
	u64 code = to_svm(vcpu)->vmcb->exit_code;

	/* -1; QEMU's emulation stores its lower half. */
	if ((u32)code == (u32)SVM_EXIT_ERR) {
		/* A flush may not have come about, of this guest or of the whole TLB. */
		to_svm(vcpu)->vmcb_cpu = -1;
		if (vcpu->atomic)
			this_cpu_write(svm_cpus.next_asid, svm_max_asid + 1);
		return fonda_exit_fail_entry(vcpu, code);
	}
	return fonda_internal_error(vcpu, KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON, code,
				    vcpu->cpu);
}

const struct fonda_exit svm_exit_npf = { exit_nested_fault, 0, FONDA_STAT_PAGE_FAULT };
const struct fonda_exit svm_exit_unexpected = {
	exit_unexpected, 0, FONDA_STAT_OTHER, .on_demand = true };

int svm_handle_exit(struct fonda_vcpu *vcpu)
{
	return svm_dispatch(vcpu, svm_find_exit(to_svm(vcpu)->vmcb->exit_code));
}
