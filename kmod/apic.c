// SPDX-License-Identifier: GPL-2.0-only
/*
 * Ties the local APIC of irq/lapic.c to a vCPU: its timer, its MSRs, what it
 * asks of the vCPU, and what the vCPU asks before an entry: which interrupt is
 * next, of the local APIC, the PIC or user space?
 */
#include "backend.h"

static struct fonda_vcpu *vcpu_of(struct fonda_lapic *apic)
{
	return container_of(apic, struct fonda_vcpu, lapic);
}

/* -- what the local APIC asks of us ----------------------------------------- */

void lapic_recheck(struct fonda_lapic *apic)
{
	WRITE_ONCE(vcpu_of(apic)->irq_pending, true);
}

/* IRR was set by a locked instruction: fonda_irq_offer() relies on it. */
void lapic_raise(struct fonda_lapic *apic)
{
	lapic_recheck(apic);
	fonda_vcpu_kick(vcpu_of(apic));
}

void lapic_send_event(struct fonda_lapic *apic)
{
	fonda_request(vcpu_of(apic), FONDA_REQ_APIC_EVENT);
	fonda_vcpu_kick(vcpu_of(apic));
}

void lapic_send_nmi(struct fonda_lapic *apic)
{
	fonda_vcpu_nmi(vcpu_of(apic));
}

void lapic_eoi_broadcast(struct fonda_lapic *apic, u8 vector)
{
	struct fonda_irqchip *chip = apic->chip;
	unsigned long flags;
	u32 pins;

	if (chip->mode == FONDA_IRQCHIP_SPLIT) {
		/* One exit for each: it is served before the next entry. */
		apic->eoi_vector = vector;
		fonda_request(vcpu_of(apic), FONDA_REQ_IOAPIC_EOI);
		return;
	}
	pins = ioapic_eoi_pins(chip, vector);
	/* Whoever drives the line gets to lower it before it counts again. */
	fonda_pins_acked(chip, (u64)pins << FONDA_PIC_PINS);
	raw_spin_lock_irqsave(&chip->lock, flags);
	ioapic_eoi(chip, pins);
	raw_spin_unlock_irqrestore(&chip->lock, flags);
}

/* -- lifetime --------------------------------------------------------------- */

void fonda_lapic_create(struct fonda_vcpu *vcpu)
{
	struct fonda_irqchip *chip = &vcpu->vm->irqchip;

	vcpu->ext_irq = -1;
	vcpu->in_kernel_apic = chip->mode != FONDA_IRQCHIP_NONE;
	lapic_init(&vcpu->lapic, chip, vcpu->id, vcpu->id == chip->bsp_id);
	hrtimer_setup(&vcpu->lapic.timer, lapic_timer_fn, CLOCK_MONOTONIC,
		      HRTIMER_MODE_ABS_PINNED_HARD);
}

void fonda_lapic_reset(struct fonda_vcpu *vcpu, bool init)
{
	bool lint0 = lapic_is_bsp(&vcpu->lapic) &&
		     !(vcpu->vm->disabled_quirks & KVM_X86_QUIRK_LINT0_REENABLED);

	if (vcpu->in_kernel_apic)
		lapic_reset(&vcpu->lapic, init, lint0);
}

/* "Processor Initialization State", "INIT and SIPI" */
void fonda_accept_apic_events(struct fonda_vcpu *vcpu)
{
	unsigned long events = xchg(&vcpu->lapic.events, 0);
	u8 vector = READ_ONCE(vcpu->lapic.sipi_vector);
	struct fonda_segment cs;

	if (events & FONDA_LAPIC_INIT) {
		fonda_vcpu_reset(vcpu, true);
		vcpu->mp_state = lapic_is_bsp(&vcpu->lapic) ?
				 KVM_MP_STATE_RUNNABLE : KVM_MP_STATE_INIT_RECEIVED;
	}
	/* It counts only for who waits for it. */
	if (events & FONDA_LAPIC_SIPI && vcpu->mp_state == KVM_MP_STATE_INIT_RECEIVED) {
		fonda_backend->get_segment(vcpu, FONDA_SEG_CS, &cs);
		cs.selector = vector << 8;
		cs.base = vector << 12;
		fonda_backend->set_segment(vcpu, FONDA_SEG_CS, &cs);
		vcpu->rip = 0;
		vcpu->mp_state = KVM_MP_STATE_RUNNABLE;
	}
}

/* -- what a vCPU takes ------------------------------------------------------ */

bool fonda_irq_accepts_extint(struct fonda_vcpu *vcpu)
{
	return !vcpu->in_kernel_apic || lapic_accepts_extint(&vcpu->lapic);
}

/* Does something want to be taken as an ExtINT, and is let through? */
static __always_inline bool extint_waits(struct fonda_vcpu *vcpu)
{
	struct fonda_irqchip *chip = &vcpu->vm->irqchip;
	bool asked = chip->mode == FONDA_IRQCHIP_KERNEL ? READ_ONCE(chip->pic.output) :
							  READ_ONCE(vcpu->ext_irq) >= 0;

	return unlikely(asked) && fonda_irq_accepts_extint(vcpu);
}

bool fonda_extint_waits(struct fonda_vcpu *vcpu)
{
	return extint_waits(vcpu);
}

bool fonda_irq_waits(struct fonda_vcpu *vcpu)
{
	bool extint;
	int vector;

	/* As in fonda_irq_offer(). */
	smp_store_mb(vcpu->irq_pending, false);
	extint = extint_waits(vcpu);
	vector = likely(vcpu->in_kernel_apic) ? lapic_peek(&vcpu->lapic) : -1;
	if (extint || vector != -1)
		WRITE_ONCE(vcpu->irq_pending, true);
	return extint || vector >= 0;
}

static noinline int offer_extint(struct fonda_vcpu *vcpu)
{
	struct fonda_irqchip *chip = &vcpu->vm->irqchip;
	unsigned long flags;
	u8 vector;

	WRITE_ONCE(vcpu->irq_pending, true);
	if (chip->mode != FONDA_IRQCHIP_KERNEL)
		return vcpu->ext_irq;
	raw_spin_lock_irqsave(&chip->lock, flags);
	vector = pic_offer(&chip->pic);
	raw_spin_unlock_irqrestore(&chip->lock, flags);
	return vector;
}

/*
 * Paravirtual EOI. While the guest's word says 1 it may clear that instead of
 * writing to EOI. It is set with an interrupt whose end concerns nobody else,
 * before an entry, and taken back at the exit after it: whatever comes meanwhile
 * makes the vCPU exit.
 */
static noinline void offer_pv_eoi(struct fonda_vcpu *vcpu, u8 vector)
{
	const u8 on = KVM_PV_EOI_ENABLED;

	vcpu->lapic.pv_eoi_offered =
		lapic_eoi_is_private(&vcpu->lapic, vector) &&
		!fonda_write_guest(vcpu, vcpu->lapic.pv_eoi & ~KVM_MSR_ENABLED, &on, sizeof(on));
}

void fonda_settle_pv_eoi(struct fonda_vcpu *vcpu)
{
	struct fonda_lapic *apic = &vcpu->lapic;
	gpa_t gpa = apic->pv_eoi & ~KVM_MSR_ENABLED;
	const u8 off = KVM_PV_EOI_DISABLED;
	u8 word;
	int ret;

	ret = fonda_read_guest(vcpu, gpa, &word, sizeof(word));
	if (!ret && word & KVM_PV_EOI_MASK)
		ret = fonda_write_guest(vcpu, gpa, &off, sizeof(off));
	else if (!ret)
		lapic_eoi(apic);
	apic->pv_eoi_offered = ret == -EAGAIN;
	if (unlikely(apic->pv_eoi_offered))
		fonda_request(vcpu, FONDA_REQ_PV_EOI);
}

/*
 * Once the highest vector is offered, or held back by one in service, all others
 * have to wait for an EOI: lapic_eoi() has irq_pending set again. The task
 * priority may change without that.
 */
int fonda_irq_offer(struct fonda_vcpu *vcpu)
{
	struct fonda_lapic *apic = &vcpu->lapic;
	int vector = -1;

	/*
	 * Who raises an interrupt makes it visible, then sets irq_pending.
	 * Either we see it now, or irq_pending is set after we cleared it.
	 */
	smp_store_mb(vcpu->irq_pending, false);
	apic->offered_ext = extint_waits(vcpu);
	if (unlikely(apic->offered_ext))
		return offer_extint(vcpu);
	if (likely(vcpu->in_kernel_apic))
		vector = lapic_peek(apic);
	if (vector >= 0) {
		clear_bit(vector, apic->irr);
		if (apic->pv_eoi & KVM_MSR_ENABLED)
			offer_pv_eoi(vcpu, vector);
	} else if (vector == LAPIC_TPR_BLOCKED) {
		WRITE_ONCE(vcpu->irq_pending, true);
	}
	return vector;
}

static noinline void settle_extint(struct fonda_vcpu *vcpu, int vector, bool taken)
{
	struct fonda_irqchip *chip = &vcpu->vm->irqchip;
	unsigned long flags;
	u32 acked;

	if (chip->mode != FONDA_IRQCHIP_KERNEL) {
		if (taken)
			WRITE_ONCE(vcpu->ext_irq, -1);
		return;
	}
	raw_spin_lock_irqsave(&chip->lock, flags);
	pic_settle(&chip->pic, vector, taken);
	acked = pic_take_acked(&chip->pic);
	raw_spin_unlock_irqrestore(&chip->lock, flags);
	/* With automatic end of interrupt that was its end. */
	fonda_pins_acked(chip, acked);
}

void fonda_irq_settle(struct fonda_vcpu *vcpu, int vector, bool taken)
{
	if (unlikely(vcpu->lapic.offered_ext))
		settle_extint(vcpu, vector, taken);
	else
		lapic_settle(&vcpu->lapic, vector, taken);
	if (unlikely(vcpu->lapic.pv_eoi_offered))
		fonda_settle_pv_eoi(vcpu);
}

/* -- hypercalls ------------------------------------------------------------- */

/* An IPI to each bit of RBX and RCX, counted from the APIC id in RDX; ICR in RSI. */
long fonda_hc_send_ipi(struct fonda_vcpu *vcpu, bool long_mode)
{
	unsigned long low = vcpu->regs[FONDA_RBX], high = vcpu->regs[FONDA_RCX], i;
	unsigned long bits[2] = { low, high };
	u32 icr = vcpu->regs[FONDA_RSI], first = vcpu->regs[FONDA_RDX];
	u32 mode = icr & APIC_DM_FIXED_MASK;
	long count = 0;

	if (!long_mode) {
		bits[0] = (u32)low | high << 32;
		bits[1] = 0;
	}
	if (!vcpu->in_kernel_apic || icr & ~(APIC_VECTOR_MASK | APIC_INT_ASSERT | APIC_DM_NMI) ||
	    (mode != APIC_DM_FIXED && mode != APIC_DM_NMI))
		return -KVM_EINVAL;
	for_each_set_bit(i, bits, 128)
		if (first + i < FONDA_MAX_VCPU_ID)	/* not a broadcast */
			count += max(fonda_irq_deliver(vcpu->lapic.chip, first + i, icr), 0);
	return count;
}

/* End the HLT of that processor, or the next one that it executes. */
long fonda_hc_kick_cpu(struct fonda_vcpu *vcpu, u32 apic_id)
{
	struct fonda_vcpu *target;
	int i;

	fonda_for_each_vcpu(i, target, vcpu->vm)
		if (target->lapic.id == apic_id) {
			WRITE_ONCE(target->pv_unhalted, true);
			fonda_vcpu_kick(target);
		}
	return 0;
}

/* -- MSRs ------------------------------------------------------------------- */

static int write_base(struct fonda_vcpu *vcpu, u64 val, bool host)
{
	/* "IA32_APIC_BASE MSR": bits 7:0 and 9, and those above MAXPHYADDR. */
	u64 reserved = 0x2ff | ~(BIT_ULL(vcpu->cpuid.phys_bits) - 1);

	if (!fonda_guest_has(vcpu, X86_FEATURE_X2APIC))
		reserved |= X2APIC_ENABLE;
	if (val & reserved)
		return 1;
	if (vcpu->in_kernel_apic)
		return lapic_set_base(&vcpu->lapic, val, host);
	vcpu->lapic.base = val;
	return 0;
}

int fonda_lapic_read_msr(struct fonda_vcpu *vcpu, u32 msr, u64 *val)
{
	if (msr == MSR_IA32_TSC_DEADLINE)
		*val = lapic_get_deadline(&vcpu->lapic);
	else if (msr == MSR_IA32_APICBASE)
		*val = vcpu->lapic.base;
	else
		return lapic_read_x2(&vcpu->lapic, msr, val);
	return 0;
}

int fonda_lapic_write_msr(struct fonda_vcpu *vcpu, u32 msr, u64 val, bool host)
{
	if (msr == MSR_IA32_APICBASE)
		return write_base(vcpu, val, host);
	if (msr != MSR_IA32_TSC_DEADLINE)
		return lapic_write_x2(&vcpu->lapic, msr, val);
	lapic_set_deadline(&vcpu->lapic, val);
	return 0;
}

/* -- ioctls of a vCPU ------------------------------------------------------- */

/* KVM_GET_LAPIC, KVM_SET_LAPIC */
long fonda_vcpu_lapic_state(struct fonda_vcpu *vcpu, void *arg, unsigned int cmd)
{
	if (!vcpu->in_kernel_apic)
		return -EINVAL;
	if (cmd == KVM_SET_LAPIC)
		return lapic_set_state(&vcpu->lapic, arg);
	lapic_get_state(&vcpu->lapic, arg);
	return 0;
}

long fonda_vcpu_interrupt(struct fonda_vcpu *vcpu, void *arg, unsigned int cmd)
{
	const struct kvm_interrupt *interrupt = arg;
	int mode = vcpu->vm->irqchip.mode;

	if (interrupt->irq >= KVM_NR_INTERRUPTS)
		return -EINVAL;
	if (mode == FONDA_IRQCHIP_KERNEL)
		return -ENXIO;
	if (mode == FONDA_IRQCHIP_SPLIT && vcpu->ext_irq >= 0)
		return -EEXIST;
	WRITE_ONCE(vcpu->ext_irq, interrupt->irq);
	WRITE_ONCE(vcpu->irq_pending, true);
	return 0;
}
