// SPDX-License-Identifier: GPL-2.0-only
/*
 * Registers behind the GET and SET ioctls: general, segment and control
 * registers, debug registers, pending events. Values from user space are
 * checked here; the backend takes what it is given.
 */
#include "backend.h"

/* -- general registers ------------------------------------------------------ */

/* The order of struct kvm_regs, which begins with the general registers. */
static const u8 gpr_order[] = {
	FONDA_RAX, FONDA_RBX, FONDA_RCX, FONDA_RDX, FONDA_RSI, FONDA_RDI, FONDA_RSP, FONDA_RBP,
	FONDA_R8, FONDA_R9, FONDA_R10, FONDA_R11, FONDA_R12, FONDA_R13, FONDA_R14, FONDA_R15,
};

static_assert(offsetof(struct kvm_regs, rip) == sizeof(u64) * ARRAY_SIZE(gpr_order));

long fonda_vcpu_access_regs(struct fonda_vcpu *vcpu, void *arg, unsigned int cmd)
{
	struct kvm_regs *regs = arg;
	u64 *gpr = arg;
	int i;

	if (cmd == KVM_GET_REGS) {
#pragma GCC unroll 16
		for (i = 0; i < ARRAY_SIZE(gpr_order); i++)
			gpr[i] = vcpu->regs[gpr_order[i]];
		regs->rip = vcpu->rip;
		regs->rflags = vcpu->rflags;
		return 0;
	}
#pragma GCC unroll 16
	for (i = 0; i < ARRAY_SIZE(gpr_order); i++)
		vcpu->regs[gpr_order[i]] = gpr[i];
	vcpu->rip = regs->rip;
	vcpu->rflags = regs->rflags | X86_EFLAGS_FIXED;
	/* It belonged to the instruction at the old RIP. */
	vcpu->exception.pending = false;
	return 0;
}

/* -- segment and control registers ------------------------------------------ */

/*
 * struct kvm_sregs and kvm_sregs2 agree up to apic_base; so does what is done
 * with that part.
 */
static_assert(offsetof(struct kvm_sregs, apic_base) == offsetof(struct kvm_sregs2, apic_base));

/*
 * The PDPTEs are not state of their own: with nested paging the processor
 * reads them from memory when it needs them ("Legacy PAE Mode").
 */
long fonda_vcpu_get_sregs(struct fonda_vcpu *vcpu, void *arg, unsigned int cmd)
{
	u64 *bitmap = ((struct kvm_sregs *)arg)->interrupt_bitmap;
	struct kvm_sregs2 *sregs = arg;

	if (cmd == KVM_GET_SREGS) {
		memset(bitmap, 0, sizeof(((struct kvm_sregs *)arg)->interrupt_bitmap));
		if (vcpu->ext_irq >= 0)
			bitmap[vcpu->ext_irq / 64] = BIT_ULL(vcpu->ext_irq % 64);
	}
	fonda_backend->get_sregs(vcpu, sregs);
	sregs->cr8 = lapic_get_tpr(&vcpu->lapic);
	sregs->apic_base = vcpu->lapic.base;
	return 0;
}

/* Adding half of the space brings canonical addresses, and no others, into it. */
static bool bases_canonical(const struct kvm_sregs2 *s)
{
	int bits = s->cr4 & X86_CR4_LA57 ? 57 : 48;
	u64 half = BIT_ULL(bits - 1);

	return !(((s->fs.base + half) | (s->gs.base + half) | (s->tr.base + half) |
		  (s->ldt.base + half) | (s->gdt.base + half) | (s->idt.base + half)) >> bits);
}

/* "Consistency checks" of control registers, and what VMRUN demands. */
static bool sregs_valid(struct fonda_vcpu *vcpu, const struct kvm_sregs2 *s)
{
	const struct fonda_cpuid *c = &vcpu->cpuid;

	if (s->cr4 & c->cr4_reserved || s->efer & c->efer_reserved || s->cr0 >> 32 || s->cr8 >> 4)
		return false;
	if ((s->cr0 & X86_CR0_PG && !(s->cr0 & X86_CR0_PE)) ||
	    (s->cr0 & X86_CR0_NW && !(s->cr0 & X86_CR0_CD)))
		return false;
	if (!(s->efer & EFER_LME && s->cr0 & X86_CR0_PG))
		return !(s->efer & EFER_LMA) && !s->cs.l;

	return s->efer & EFER_LMA && s->cr4 & X86_CR4_PAE &&
	       !(s->cr3 & ~GENMASK_ULL(c->phys_bits - 1, 0)) && bases_canonical(s);
}

/* An interrupt that user space injected and the guest has not taken yet. */
static void set_ext_irq(struct fonda_vcpu *vcpu, int vector)
{
	vcpu->ext_irq = vector;
	if (vector >= 0)
		WRITE_ONCE(vcpu->irq_pending, true);
}

long fonda_vcpu_set_sregs(struct fonda_vcpu *vcpu, void *arg, unsigned int cmd)
{
	const u64 *bits = ((struct kvm_sregs *)arg)->interrupt_bitmap;
	const struct kvm_sregs2 *sregs = arg;

	/* PDPTEs only mean something with PAE paging. */
	if (cmd == KVM_SET_SREGS2 &&
	    (sregs->flags & ~(u64)KVM_SREGS2_FLAGS_PDPTRS_VALID ||
	     (sregs->flags && !(sregs->cr0 & X86_CR0_PG && sregs->cr4 & X86_CR4_PAE &&
				!(sregs->efer & EFER_LMA)))))
		return -EINVAL;
	if (!sregs_valid(vcpu, sregs))
		return -EINVAL;
	if (sregs->apic_base != vcpu->lapic.base &&
	    fonda_lapic_write_msr(vcpu, MSR_IA32_APICBASE, sregs->apic_base, true))
		return -EINVAL;

	fonda_backend->set_sregs(vcpu, sregs);
	lapic_set_tpr(&vcpu->lapic, sregs->cr8);
	if (cmd == KVM_SET_SREGS && unlikely(bits[0] | bits[1] | bits[2] | bits[3]))
		set_ext_irq(vcpu, find_first_bit((const unsigned long *)bits, 256));
	return 0;
}

/* WB, WT, UC-, UC and again */
#define PAT_RESET	0x0007040600070406ull

/* "Processor State After Reset", "Processor Initialization State" */
void fonda_sregs_reset(struct fonda_vcpu *vcpu, bool init)
{
	const struct kvm_segment data = { .limit = 0xffff, .type = 3, .present = 1, .s = 1 };
	/* Those of the caches stay as they are in an INIT. */
	u64 cr0 = init ? fonda_backend->read_reg(vcpu, FONDA_REG_CR0) : ~0ull;
	const struct kvm_sregs2 sregs = {
		.cs = { .selector = 0xf000, .base = 0xffff0000, .limit = 0xffff, .type = 11,
			.present = 1, .s = 1 },
		.ds = data, .es = data, .fs = data, .gs = data, .ss = data,
		.tr = { .limit = 0xffff, .type = 11, .present = 1 },
		.ldt = { .limit = 0xffff, .type = 2, .present = 1 },
		.gdt = { .limit = 0xffff }, .idt = { .limit = 0xffff },
		.cr0 = X86_CR0_ET | (cr0 & (X86_CR0_CD | X86_CR0_NW)),
	};
	enum fonda_reg reg;

	fonda_backend->set_sregs(vcpu, &sregs);
	lapic_set_tpr(&vcpu->lapic, 0);
	vcpu->int_shadow = 0;
	vcpu->nmi_masked = false;
	/* And so do the MSRs. */
	for (reg = init ? FONDA_REG_DEBUGCTL : FONDA_REG_PAT; reg < FONDA_REG_CPL; reg++)
		fonda_backend->write_reg(vcpu, reg, reg == FONDA_REG_PAT ? PAT_RESET : 0);
}

int fonda_check_cr0(struct fonda_vcpu *vcpu, u64 val)
{
	u64 changed = val ^ fonda_backend->read_reg(vcpu, FONDA_REG_CR0);
	u64 cr4 = fonda_backend->read_reg(vcpu, FONDA_REG_CR4);
	u64 efer = fonda_backend->read_reg(vcpu, FONDA_REG_EFER);
	struct fonda_segment cs;

	if (val >> 32 || (val & X86_CR0_PG && !(val & X86_CR0_PE)) ||
	    (val & X86_CR0_NW && !(val & X86_CR0_CD)))
		return 1;
	if (!(changed & X86_CR0_PG))
		return 0;

	fonda_backend->get_segment(vcpu, FONDA_SEG_CS, &cs);
	if (val & X86_CR0_PG)
		/* "Activating Long Mode" */
		return efer & EFER_LME && (!(cr4 & X86_CR4_PAE) || cs.attr & FONDA_SEG_L);
	/* Out of 64-bit code, or with PCIDs in use, there is no way back. */
	return cr4 & X86_CR4_PCIDE || (efer & EFER_LMA && cs.attr & FONDA_SEG_L);
}

int fonda_check_cr4(struct fonda_vcpu *vcpu, u64 val)
{
	u64 old = fonda_backend->read_reg(vcpu, FONDA_REG_CR4);
	bool long_mode;

	if (val & vcpu->cpuid.cr4_reserved)
		return 1;
	if (!((val ^ old) & (X86_CR4_PAE | X86_CR4_LA57 | X86_CR4_PCIDE)))
		return 0;

	long_mode = fonda_backend->read_reg(vcpu, FONDA_REG_EFER) & EFER_LMA;
	if (long_mode && (!(val & X86_CR4_PAE) || (val ^ old) & X86_CR4_LA57))
		return 1;
	/* PCIDs begin in long mode, and with PCID 0. */
	return val & ~old & X86_CR4_PCIDE &&
	       (!long_mode || fonda_backend->read_reg(vcpu, FONDA_REG_CR3) & 0xfff);
}

long fonda_vcpu_access_debugregs(struct fonda_vcpu *vcpu, void *arg, unsigned int cmd)
{
	struct kvm_debugregs *regs = arg, now = { .dr6 = vcpu->dr6, .dr7 = vcpu->dr7 };

	memcpy(now.db, vcpu->db, sizeof(now.db));
	if (cmd == KVM_GET_DEBUGREGS) {
		*regs = now;
		return 0;
	}
	if (regs->flags || regs->dr6 >> 32 || regs->dr7 >> 32)
		return -EINVAL;
	memcpy(vcpu->db, regs->db, sizeof(regs->db));
	vcpu->dr6 = regs->dr6;
	vcpu->dr7 = regs->dr7;
	fonda_backend->update_controls(vcpu);
	return 0;
}

/* -- events and the multiprocessing state ----------------------------------- */

void fonda_deliver_payload(struct fonda_vcpu *vcpu)
{
	struct fonda_exception *ex = &vcpu->exception;

	if (!ex->pending || !ex->has_payload)
		return;
	if (ex->vector == X86_TRAP_PF) {
		fonda_backend->write_reg(vcpu, FONDA_REG_CR2, ex->payload);
	} else if (ex->vector == X86_TRAP_DB) {
		vcpu->dr6 = fonda_merge_dr6(vcpu->dr6, ex->payload);
		vcpu->dr7 &= ~FONDA_DR7_GD;
		fonda_backend->update_controls(vcpu);
	}
	ex->has_payload = false;
}

/* What there is of events, as far as user space has enabled it. */
static u32 event_flags(struct fonda_vm *vm)
{
	return KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW |
	       (vm->exception_payload ? KVM_VCPUEVENT_VALID_PAYLOAD : 0) |
	       (vm->triple_fault_event ? KVM_VCPUEVENT_VALID_TRIPLE_FAULT : 0);
}

long fonda_vcpu_get_vcpu_events(struct fonda_vcpu *vcpu, void *arg, unsigned int cmd)
{
	struct fonda_exception *ex = &vcpu->exception;
	bool payload = vcpu->vm->exception_payload;
	struct kvm_vcpu_events *events = arg;

	if (!payload)
		fonda_deliver_payload(vcpu);
	events->flags = event_flags(vcpu->vm);
	events->exception.injected = ex->injected || (ex->pending && !payload);
	events->exception.pending = ex->pending && payload;
	events->exception_has_payload = payload && ex->has_payload;
	events->exception_payload = payload ? ex->payload : 0;
	events->exception.nr = ex->vector;
	events->exception.has_error_code = ex->has_error;
	events->exception.error_code = ex->error;

	events->interrupt.injected = vcpu->ext_irq >= 0;
	events->interrupt.nr = max(vcpu->ext_irq, 0);
	events->interrupt.shadow =
		(vcpu->int_shadow & fonda_backend->shadow_of_sti ? KVM_X86_SHADOW_INT_STI : 0) |
		(vcpu->int_shadow & fonda_backend->shadow_of_mov_ss ?
		 KVM_X86_SHADOW_INT_MOV_SS : 0);

	events->nmi.injected = vcpu->nmi_injected;
	events->nmi.pending = fonda_cap_nmis(vcpu, vcpu->nmi_pending +
					     atomic_read(&vcpu->nmi_queued));
	events->nmi.masked = vcpu->nmi_masked;

	events->triple_fault.pending = vcpu->vm->triple_fault_event &&
				       test_bit(FONDA_REQ_TRIPLE_FAULT, &vcpu->requests);
	return 0;
}

static bool events_valid(struct fonda_vcpu *vcpu, const struct kvm_vcpu_events *events)
{
	u32 flags = event_flags(vcpu->vm) | KVM_VCPUEVENT_VALID_SIPI_VECTOR |
		    KVM_VCPUEVENT_VALID_SMM;

	/* There is no system management mode. */
	if (events->flags & ~flags ||
	    (events->flags & KVM_VCPUEVENT_VALID_SMM && (events->smi.smm || events->smi.pending)) ||
	    (events->flags & KVM_VCPUEVENT_VALID_PAYLOAD &&
	     events->exception.pending && events->exception.injected))
		return false;
	return !(events->exception.injected || events->exception.pending) ||
	       (events->exception.nr < 32 && events->exception.nr != X86_TRAP_NMI);
}

long fonda_vcpu_set_vcpu_events(struct fonda_vcpu *vcpu, void *arg, unsigned int cmd)
{
	const struct kvm_vcpu_events *events = arg;
	bool payload = events->flags & KVM_VCPUEVENT_VALID_PAYLOAD;

	if (!events_valid(vcpu, events))
		return -EINVAL;

	vcpu->exception = (struct fonda_exception){
		.injected = events->exception.injected,
		.pending = payload && events->exception.pending,
		.vector = events->exception.nr,
		.has_error = events->exception.has_error_code,
		.error = events->exception.error_code,
		.has_payload = payload && events->exception_has_payload,
		.payload = events->exception_payload,
	};
	set_ext_irq(vcpu, events->interrupt.injected ? events->interrupt.nr : -1);
	if (events->flags & KVM_VCPUEVENT_VALID_SHADOW)
		/* "Interruptibility State": never both. */
		vcpu->int_shadow =
			events->interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS ?
			fonda_backend->shadow_of_mov_ss :
			events->interrupt.shadow & KVM_X86_SHADOW_INT_STI ?
			fonda_backend->shadow_of_sti : 0;

	vcpu->nmi_injected = events->nmi.injected;
	if (events->flags & KVM_VCPUEVENT_VALID_NMI_PENDING) {
		vcpu->nmi_pending = min_t(u8, events->nmi.pending, 2);
		atomic_set(&vcpu->nmi_queued, 0);
	}
	vcpu->nmi_masked = events->nmi.masked;
	if (events->flags & KVM_VCPUEVENT_VALID_SIPI_VECTOR)
		vcpu->lapic.sipi_vector = events->sipi_vector;
	if (events->flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT)
		assign_bit(FONDA_REQ_TRIPLE_FAULT, &vcpu->requests, events->triple_fault.pending);
	/* The next entry sorts out what there is. */
	WRITE_ONCE(vcpu->event_pending, true);
	return 0;
}

long fonda_vcpu_access_mp_state(struct fonda_vcpu *vcpu, void *arg, unsigned int cmd)
{
	u32 state = ((struct kvm_mp_state *)arg)->mp_state;

	if (cmd == KVM_GET_MP_STATE) {
		fonda_accept_apic_events(vcpu);
		((struct kvm_mp_state *)arg)->mp_state = vcpu->mp_state;
		return 0;
	}
	/* Without a local APIC nothing could wake it. The states above are other machines'. */
	if ((state != KVM_MP_STATE_RUNNABLE && !vcpu->in_kernel_apic) ||
	    state > KVM_MP_STATE_SIPI_RECEIVED)
		return -EINVAL;
	if (state == KVM_MP_STATE_SIPI_RECEIVED) {
		/* Its vector came, or comes, by KVM_SET_VCPU_EVENTS. */
		state = KVM_MP_STATE_INIT_RECEIVED;
		vcpu->lapic.events |= FONDA_LAPIC_SIPI;
		fonda_request(vcpu, FONDA_REQ_APIC_EVENT);
	}
	vcpu->mp_state = state;
	return 0;
}

/* -- registers in kvm_run --------------------------------------------------- */

/* What ioctls get and set the part of each bit of KVM_SYNC_X86_*. */
static const struct {
	u32 get_cmd, set_cmd;
	u16 offset;
	fonda_vcpu_handler *get, *set;
} synced[] = {
	{ KVM_GET_REGS, KVM_SET_REGS, offsetof(struct kvm_sync_regs, regs),
	  fonda_vcpu_access_regs, fonda_vcpu_access_regs },
	{ KVM_GET_SREGS, KVM_SET_SREGS, offsetof(struct kvm_sync_regs, sregs),
	  fonda_vcpu_get_sregs, fonda_vcpu_set_sregs },
	{ KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS, offsetof(struct kvm_sync_regs, events),
	  fonda_vcpu_get_vcpu_events, fonda_vcpu_set_vcpu_events },
};

static_assert(BIT(ARRAY_SIZE(synced)) - 1 == KVM_SYNC_X86_VALID_FIELDS);

int fonda_sync_regs_in(struct fonda_vcpu *vcpu)
{
	u64 dirty = READ_ONCE(vcpu->run->kvm_dirty_regs), copy[sizeof(struct kvm_sregs) / 8];
	long ret = 0;
	int i;

	if ((dirty | READ_ONCE(vcpu->run->kvm_valid_regs)) & ~(u64)KVM_SYNC_X86_VALID_FIELDS)
		return -EINVAL;
	for (i = 0; !ret && i < ARRAY_SIZE(synced); i++) {
		if (!(dirty & BIT(i)))
			continue;
		/* User space can write there while we look. */
		memcpy(copy, (void *)&vcpu->run->s + synced[i].offset,
		       _IOC_SIZE(synced[i].set_cmd));
		ret = synced[i].set(vcpu, copy, synced[i].set_cmd);
	}
	if (!ret)
		vcpu->run->kvm_dirty_regs = 0;
	return ret;
}

void fonda_sync_regs_out(struct fonda_vcpu *vcpu)
{
	u64 valid = READ_ONCE(vcpu->run->kvm_valid_regs);
	int i;

	for (i = 0; i < ARRAY_SIZE(synced); i++) {
		void *shared = (void *)&vcpu->run->s + synced[i].offset;

		if (!(valid & BIT(i)))
			continue;
		memset(shared, 0, _IOC_SIZE(synced[i].get_cmd));
		synced[i].get(vcpu, shared, synced[i].get_cmd);
	}
}
