// SPDX-License-Identifier: GPL-2.0-only
/*
 * The local APIC, in xAPIC and x2APIC mode, with its timer. Works from the
 * chapters "Advanced Programmable Interrupt Controller" of Intel's SDM volume 3
 * and of AMD's APM volume 2, whose section titles the comments cite. Messages
 * come in from any context through lapic_accept(); everything else runs in the
 * vCPU's own thread, but for the expiry of the timer.
 */
#include "irq.h"

#define MSR_X2_BASE	0x800
#define REG_END		0x400		/* behind the last register */

#define BASE_DEFAULT	0xfee00000ULL
#define BASE_BSP	BIT_ULL(8)
#define BASE_X2APIC	BIT_ULL(10)
#define BASE_ENABLE	BIT_ULL(11)

#define NR_LVTS		6
/* Of an integrated APIC. */
#define VERSION		(0x14 | (NR_LVTS - 1) << 16)
#define SVR_RESET	0xff
#define SVR_WRITABLE	0x3ff		/* with the focus bit of old */
#define LVT_READ_ONLY	(APIC_SEND_PENDING | APIC_LVT_REMOTE_IRR)
#define LVTT_MODE_MASK	(APIC_LVT_TIMER_PERIODIC | APIC_LVT_TIMER_TSCDEADLINE)
#define SHORTHAND_MASK	APIC_DEST_ALLBUT
/* Of x2APIC mode; the busy bit of xAPIC mode may be written. */
#define ICR_RESERVED	(GENMASK_ULL(31, 20) | GENMASK_ULL(17, 16) | BIT_ULL(13))
#define BROADCAST	0xffffffff	/* 0xff in xAPIC mode */

/* Vectors below are the processor's exceptions. */
#define FIRST_VECTOR	16

static u32 get_reg(const struct fonda_lapic *apic, u32 reg)
{
	return READ_ONCE(apic->regs[reg / 16]);
}

static void set_reg(struct fonda_lapic *apic, u32 reg, u32 val)
{
	WRITE_ONCE(apic->regs[reg / 16], val);
}

static __always_inline bool any_vector(const unsigned long *bits)
{
	return READ_ONCE(bits[0]) | READ_ONCE(bits[1]) | READ_ONCE(bits[2]) | READ_ONCE(bits[3]);
}

bool lapic_eoi_is_private(const struct fonda_lapic *apic, u8 vector)
{
	return apic->isr_top < 0 && !any_vector(apic->irr) &&
	       !test_bit(vector, apic->tmr) && !test_bit(vector, apic->chip->eoi_vectors);
}

static __always_inline void end_interrupt(struct fonda_lapic *apic)
{
	int vector = apic->isr_top;

	if (unlikely(vector < 0))
		return;
	__clear_bit(vector, apic->isr);
	apic->isr_top = likely(!any_vector(apic->isr)) ? -1 : lapic_highest(apic->isr);

	/* "Signaling Interrupt Servicing Completion"; then what this one held back. */
	if (unlikely(test_bit(vector, apic->chip->eoi_vectors)) ||
	    (unlikely(test_bit(vector, apic->tmr)) &&
	     !(get_reg(apic, APIC_SPIV) & APIC_SPIV_DIRECTED_EOI))) {
		lapic_eoi_broadcast(apic, vector);
		lapic_recheck(apic);
	} else if (any_vector(apic->irr)) {
		lapic_recheck(apic);
	}
}

void lapic_eoi(struct fonda_lapic *apic)
{
	end_interrupt(apic);
}

/* -- messages that arrive --------------------------------------------------- */

/* "Error Handling": note it; the first of a kind interrupts. */
static noinline void error(struct fonda_lapic *apic, u8 bit)
{
	u32 lvt = get_reg(apic, APIC_LVTERR);

	if (READ_ONCE(apic->esr) & bit)
		return;
	WRITE_ONCE(apic->esr, apic->esr | bit);
	/* An illegal vector here must not be an error once more. */
	if (!(lvt & APIC_LVT_MASKED) && (u8)lvt >= FIRST_VECTOR)
		lapic_accept(apic, (u8)lvt);
}

static noinline int accept_other(struct fonda_lapic *apic, u32 icr)
{
	switch (icr & APIC_DM_FIXED_MASK) {
	case APIC_DM_NMI:
		lapic_send_nmi(apic);
		return 1;
	case APIC_DM_INIT:
		/* A SIPI that came before it is void. */
		xchg(&apic->events, FONDA_LAPIC_INIT);
		break;
	case APIC_DM_STARTUP:
		WRITE_ONCE(apic->sipi_vector, icr);
		smp_wmb();	/* pairs with the xchg() that takes the events */
		set_bit(__ffs(FONDA_LAPIC_SIPI), &apic->events);
		break;
	default:
		/* No SMM; an 8259A talks to LINT0 by itself. */
		return -1;
	}
	lapic_send_event(apic);
	return 1;
}

/* @own: it comes from the vCPU itself, which need not be called for. */
static __always_inline int accept(struct fonda_lapic *apic, u32 icr, bool own)
{
	u8 vector = icr;

	if (unlikely((icr & APIC_DM_FIXED_MASK) > APIC_DM_LOWEST))
		return accept_other(apic, icr);
	if (unlikely(!READ_ONCE(apic->sw_enabled)))
		return -1;
	if (unlikely(vector < FIRST_VECTOR)) {
		error(apic, APIC_ESR_RECVILL);
		return -1;
	}
	/* The trigger mode first: the EOI may follow at once. */
	if (unlikely(test_bit(vector, apic->tmr) != !!(icr & APIC_INT_LEVELTRIG)))
		assign_bit(vector, apic->tmr, icr & APIC_INT_LEVELTRIG);
	if (test_and_set_bit(vector, apic->irr))
		return 0;
	if (own)
		lapic_recheck(apic);
	else
		lapic_raise(apic);
	return 1;
}

int lapic_accept(struct fonda_lapic *apic, u32 icr)
{
	return accept(apic, icr, false);
}

bool lapic_matches(struct fonda_lapic *apic, u32 dest, bool logical)
{
	u32 ldr = get_reg(apic, APIC_LDR);

	if (!apic->enabled)
		return false;
	if (dest == BROADCAST || (dest == 0xff && !apic->x2apic))
		return true;
	if (!logical)
		return dest == lapic_id(apic);

	/* "Logical Destination Mode" */
	if (apic->x2apic)
		return dest >> 16 == ldr >> 16 && dest & ldr & 0xffff;
	ldr >>= 24;
	dest &= 0xff;
	if (get_reg(apic, APIC_DFR) >> 28)	/* flat */
		return dest & ldr;
	return dest >> 4 == ldr >> 4 && dest & ldr & 0xf;
}

bool lapic_accepts_extint(struct fonda_lapic *apic)
{
	/* Switched off, LINT0 is the pin INTR, which only the first CPU has wired. */
	if (!READ_ONCE(apic->enabled))
		return lapic_is_bsp(apic);
	return (get_reg(apic, APIC_LVT0) & (APIC_LVT_MASKED | APIC_MODE_MASK)) == APIC_DM_EXTINT;
}

/* -- messages that are sent ------------------------------------------------- */

/* "Interrupt Command Register (ICR)" */
static __always_inline void send_ipi(struct fonda_lapic *apic, u32 icr, u32 dest)
{
	u32 mode = icr & APIC_DM_FIXED_MASK, shorthand = icr & SHORTHAND_MASK;
	struct fonda_lapic *target;
	int i;

	if (unlikely(mode <= APIC_DM_LOWEST && (u8)icr < FIRST_VECTOR)) {
		error(apic, APIC_ESR_SENDILL);
		return;
	}
	/* The de-assert of an INIT synchronised arbitration ids, of old. */
	if (unlikely(mode == APIC_DM_INIT && icr & APIC_INT_LEVELTRIG && !(icr & APIC_INT_ASSERT)))
		return;
	/* All others are edges whatever they say. */
	icr &= ~APIC_INT_LEVELTRIG;
	if (shorthand == APIC_DEST_SELF) {
		accept(apic, icr, true);
	} else if (likely(!shorthand)) {
		fonda_irq_deliver(apic->chip, dest, icr);
	} else {
		for (i = 0; (target = fonda_lapic_by_index(apic->chip, i)); i++)
			if (READ_ONCE(target->enabled) &&
			    (shorthand == APIC_DEST_ALLINC || target != apic))
				lapic_accept(target, icr);
	}
}

/* -- the timer -------------------------------------------------------------- */

static bool in_timer_mode(const struct fonda_lapic *apic, u32 mode)
{
	return (get_reg(apic, APIC_LVTT) & LVTT_MODE_MASK) == mode;
}

/* "Divide Configuration Register": nanoseconds from one count to the next. */
static u64 count_ns(const struct fonda_lapic *apic)
{
	u32 tdcr = get_reg(apic, APIC_TDCR);

	return (u64)apic->chip->timer_ns << ((((tdcr & 3) | (tdcr & 8) >> 1) + 1) & 7);
}

static void timer_interrupt(struct fonda_lapic *apic)
{
	u32 lvt = get_reg(apic, APIC_LVTT);

	if (!(lvt & APIC_LVT_MASKED))
		lapic_accept(apic, (u8)lvt);
}

enum hrtimer_restart lapic_timer_fn(struct hrtimer *timer)
{
	struct fonda_lapic *apic = container_of(timer, struct fonda_lapic, timer);
	u64 tsc, ns;

	/* It is off the queue, then the deadline is looked at: lapic_set_deadline(). */
	smp_mb();
	if (in_timer_mode(apic, APIC_LVT_TIMER_TSCDEADLINE)) {
		tsc = READ_ONCE(apic->tsc_deadline);
		ns = lapic_deadline_ns(apic, tsc);
		if (ns) {
			WRITE_ONCE(apic->timer_tsc, tsc);
			hrtimer_set_expires(timer, ns_to_ktime(ns));
			return HRTIMER_RESTART;
		}
	}
	timer_interrupt(apic);
	if (!in_timer_mode(apic, APIC_LVT_TIMER_PERIODIC))
		return HRTIMER_NORESTART;
	/* From the time it was due, so that the period does not drift. */
	hrtimer_forward_now(timer, ns_to_ktime(max(READ_ONCE(apic->period_ns),
						   fonda_timer_min_ns())));
	return HRTIMER_RESTART;
}

static void timer_stop(struct fonda_lapic *apic)
{
	hrtimer_cancel(&apic->timer);
	apic->period_ns = 0;
	apic->tsc_deadline = 0;
	apic->watched = false;
}

/* Count from @count down to 0, then, if periodic, from the initial count. */
static void timer_count(struct fonda_lapic *apic, u32 count)
{
	u64 ns, period = get_reg(apic, APIC_TMICT) * count_ns(apic);

	timer_stop(apic);
	if (!period)
		return;
	/* A guest must not keep a CPU of the host in its timer interrupt. */
	if (in_timer_mode(apic, APIC_LVT_TIMER_PERIODIC))
		period = max(period, fonda_timer_min_ns());
	apic->period_ns = period;
	ns = ktime_get_ns() + count * count_ns(apic);
	/* On this CPU: where the vCPU runs its expiry makes it leave the guest. */
	hrtimer_start(&apic->timer, ns_to_ktime(ns), HRTIMER_MODE_ABS_PINNED_HARD);
}

static u32 current_count(struct fonda_lapic *apic)
{
	s64 left = ktime_to_ns(hrtimer_get_expires(&apic->timer)) - ktime_get_ns();

	if (!apic->period_ns)
		return 0;
	if (left <= 0) {
		if (!in_timer_mode(apic, APIC_LVT_TIMER_PERIODIC))
			return 0;
		left = apic->period_ns - (u64)-left % apic->period_ns;
	}
	/* A period that was stretched would show more than it was loaded with. */
	return min_t(u64, (u64)left / count_ns(apic), get_reg(apic, APIC_TMICT));
}

u64 lapic_get_deadline(struct fonda_lapic *apic)
{
	/*
	 * The register is 0 once the interrupt has been sent; whoever sees 0,
	 * a VMM that saves the state above all, must see the interrupt too.
	 */
	if (apic->tsc_deadline && !lapic_deadline_ns(apic, apic->tsc_deadline)) {
		if (hrtimer_cancel(&apic->timer) || apic->watched)
			timer_interrupt(apic);
		apic->tsc_deadline = 0;
		apic->watched = false;
	}
	return apic->tsc_deadline;
}

/* "TSC-Deadline Mode" */
void lapic_set_deadline(struct fonda_lapic *apic, u64 guest_tsc)
{
	u64 ns = 0;

	if (!apic->enabled || !in_timer_mode(apic, APIC_LVT_TIMER_TSCDEADLINE))
		return;
	/*
	 * Guests put off their deadline again and again. The timer may expire at
	 * the one before: it looks at what is in force then, and goes on waiting.
	 */
	if (guest_tsc) {
		WRITE_ONCE(apic->tsc_deadline, guest_tsc);
		smp_mb();
		if (hrtimer_is_queued(&apic->timer) && READ_ONCE(apic->timer_tsc) <= guest_tsc)
			return;
		ns = lapic_deadline_ns(apic, guest_tsc);
	}
	timer_stop(apic);
	if (ns) {
		apic->tsc_deadline = guest_tsc;
		apic->watched = apic->watches;
		if (apic->watched)
			return;
		WRITE_ONCE(apic->timer_tsc, guest_tsc);
		hrtimer_start(&apic->timer, ns_to_ktime(ns), HRTIMER_MODE_ABS_PINNED_HARD);
	} else if (guest_tsc) {
		timer_interrupt(apic);
	}
}

void lapic_tsc_changed(struct fonda_lapic *apic)
{
	u64 deadline = apic->tsc_deadline;

	/* What the timer waits for now is another moment. */
	lapic_set_deadline(apic, 0);
	lapic_set_deadline(apic, deadline);
}

/* -- registers -------------------------------------------------------------- */

/* With the IOAPIC in user space a guest may tell that of an EOI by itself. */
static bool has_directed_eoi(const struct fonda_lapic *apic)
{
	return apic->chip->mode == FONDA_IRQCHIP_SPLIT;
}

static bool is_lvt(u32 reg)
{
	return reg - APIC_LVTT <= APIC_LVTERR - APIC_LVTT;
}

/* One bit a register, by offset / 16. */
#define REG_BIT(reg)	BIT_ULL((reg) / 16)
#define REG_RANGE(first, last) GENMASK_ULL((last) / 16, (first) / 16)

/* IRR, TMR and ISR lie between SPIV and ESR. */
#define X2_READABLE (REG_BIT(APIC_ID) | REG_BIT(APIC_LVR) | REG_BIT(APIC_TASKPRI) |	\
	REG_BIT(APIC_PROCPRI) | REG_BIT(APIC_LDR) | REG_RANGE(APIC_SPIV, APIC_ESR) |	\
	REG_BIT(APIC_ICR) | REG_RANGE(APIC_LVTT, APIC_TMCCT) | REG_BIT(APIC_TDCR))
#define XAPIC_REGS (X2_READABLE | REG_BIT(APIC_ARBPRI) | REG_BIT(APIC_EOI) |		\
	REG_BIT(APIC_RRR) | REG_BIT(APIC_DFR) | REG_BIT(APIC_ICR2))

/* Those that an x2APIC-mode guest may write. EOI and ESR take 0 only. */
#define X2_WRITABLE (REG_BIT(APIC_TASKPRI) | REG_BIT(APIC_EOI) | REG_BIT(APIC_SPIV) |	\
	REG_BIT(APIC_ESR) | REG_RANGE(APIC_LVTT, APIC_TMICT) | REG_BIT(APIC_TDCR) |	\
	REG_BIT(APIC_SELF_IPI))
#define XAPIC_WRITABLE (X2_WRITABLE | REG_BIT(APIC_ID) | REG_BIT(APIC_LDR) |		\
	REG_BIT(APIC_DFR) | REG_BIT(APIC_ICR) | REG_BIT(APIC_ICR2))

/* Which bits of a register a guest can change; "Local Vector Table" and others. */
static const u32 writable[REG_END / 16] = {
	[APIC_ID / 16]		= 0xff000000,
	[APIC_TASKPRI / 16]	= 0xff,
	[APIC_LDR / 16]		= 0xff000000,
	[APIC_DFR / 16]		= 0xf0000000,
	[APIC_SPIV / 16]	= SVR_WRITABLE | APIC_SPIV_DIRECTED_EOI,
	[APIC_ICR / 16]		= ~APIC_ICR_BUSY,
	[APIC_ICR2 / 16]	= 0xff000000,
	[APIC_LVTT / 16]	= 0xff | APIC_LVT_MASKED | LVTT_MODE_MASK,
	[APIC_LVTTHMR / 16 ... APIC_LVTPC / 16] = 0x7ff | APIC_LVT_MASKED,
	[APIC_LVT0 / 16 ... APIC_LVT1 / 16] = 0xa7ff | APIC_LVT_MASKED,
	[APIC_LVTERR / 16]	= 0xff | APIC_LVT_MASKED,
	[APIC_TMICT / 16]	= ~0u,
	[APIC_TDCR / 16]	= APIC_TDR_DIV_1,
	[APIC_SELF_IPI / 16]	= 0xff,
};

static u32 writable_bits(const struct fonda_lapic *apic, u32 reg)
{
	u32 bits = writable[array_index_nospec(reg / 16, REG_END / 16)];

	return reg == APIC_SPIV && !has_directed_eoi(apic) ? SVR_WRITABLE : bits;
}

/* The timer's entry was @old until now. */
static void change_timer(struct fonda_lapic *apic, u32 old)
{
	u32 new = get_reg(apic, APIC_LVTT);

	if ((old ^ new) & APIC_LVT_TIMER_TSCDEADLINE) {
		/* Entering and leaving deadline mode disarms the timer. */
		timer_stop(apic);
		set_reg(apic, APIC_TMICT, 0);
	} else if (new & ~old & APIC_LVT_TIMER_PERIODIC) {
		/* A one shot that is still counting goes on as periodic. */
		apic->period_ns = hrtimer_cancel(&apic->timer) ?
				  max(apic->period_ns, fonda_timer_min_ns()) : 0;
		if (apic->period_ns)
			hrtimer_start(&apic->timer, hrtimer_get_expires(&apic->timer),
				      HRTIMER_MODE_ABS_PINNED_HARD);
	}
}

/* "Local APIC State After It Has Been Software Disabled" */
static void mask_lvts(struct fonda_lapic *apic)
{
	u32 reg;

	for (reg = APIC_LVTT; reg <= APIC_LVTERR; reg += 16)
		set_reg(apic, reg, get_reg(apic, reg) | APIC_LVT_MASKED);
}

static void write_reg(struct fonda_lapic *apic, u32 reg, u32 val)
{
	u32 count = reg == APIC_TDCR ? current_count(apic) : 0, old = get_reg(apic, reg);

	val &= writable_bits(apic, reg);
	if (is_lvt(reg) && !apic->sw_enabled)
		val |= APIC_LVT_MASKED;
	if (reg == APIC_DFR)
		val |= 0x0fffffff;
	/* A write makes visible what has gathered since the last one. */
	if (reg == APIC_ESR)
		val = xchg(&apic->esr, 0);
	/* Read-only; an id above 255, that does not fit; a timer in another mode. */
	if (!(XAPIC_WRITABLE & REG_BIT(reg)) || (reg == APIC_ID && apic->id > 0xff) ||
	    (reg == APIC_TMICT && in_timer_mode(apic, APIC_LVT_TIMER_TSCDEADLINE)))
		return;
	set_reg(apic, reg, val);
	switch (reg) {
	case APIC_EOI:
		lapic_eoi(apic);
		break;
	case APIC_ID:
		fonda_apic_map_update(apic);
		break;
	case APIC_ICR:
		send_ipi(apic, val, get_reg(apic, APIC_ICR2) >> 24);
		break;
	case APIC_SPIV:
		WRITE_ONCE(apic->sw_enabled, val & APIC_SPIV_APIC_ENABLED);
		if (!apic->sw_enabled)
			mask_lvts(apic);
		lapic_recheck(apic);
		break;
	case APIC_LVTT:
		change_timer(apic, old);
		break;
	case APIC_LVT0:
		lapic_recheck(apic);
		break;
	case APIC_TMICT:
		timer_count(apic, val);
		break;
	case APIC_TDCR:
		if (count)
			timer_count(apic, count);
		break;
	}
}

static u32 read_reg(struct fonda_lapic *apic, u32 reg)
{
	/* "Task and Processor Priorities" */
	if (reg == APIC_PROCPRI)
		return max_t(u32, get_reg(apic, APIC_TASKPRI) & 0xff,
			     apic->isr_top < 0 ? 0 : apic->isr_top & 0xf0);
	if (reg == APIC_LVR)
		return VERSION | (has_directed_eoi(apic) ? APIC_LVR_DIRECTED_EOI : 0);
	return reg == APIC_TMCCT ? current_count(apic) : get_reg(apic, reg);
}

int lapic_access(struct fonda_lapic *apic, u32 offset, int len, void *data, bool write)
{
	u32 val = 0, reg = offset & 0xff0;

	if (!write)
		memset(data, 0, len);
	/* "Local APIC Register Address Map": 32 bits of every 128. */
	offset &= 0xf;
	if (write ? offset || len != 4 : offset + len > 4)
		return 0;
	memcpy((u8 *)&val + offset, data, len);
	if (reg >= REG_END || !(XAPIC_REGS & REG_BIT(reg)))
		error(apic, APIC_ESR_ILLREGA);
	else if (write)
		write_reg(apic, reg, val);
	else
		val = read_reg(apic, reg);
	if (!write)
		memcpy(data, (u8 *)&val + offset, len);
	return 0;
}

int lapic_read_x2(struct fonda_lapic *apic, u32 msr, u64 *val)
{
	u32 reg = (msr - MSR_X2_BASE) * 16;

	if (!apic->x2apic || reg >= REG_END || !(X2_READABLE & REG_BIT(reg)))
		return 1;
	*val = read_reg(apic, reg);
	if (reg == APIC_ICR)
		*val |= (u64)get_reg(apic, APIC_ICR2) << 32;
	return 0;
}

/* "x2APIC Register Address Space" */
static noinline int write_x2(struct fonda_lapic *apic, u32 reg, u64 val)
{
	/* Read-only bits may be written; Linux does so on its way down. */
	u64 free_bits = is_lvt(reg) ? LVT_READ_ONLY : 0;

	if (reg >= REG_END || !(X2_WRITABLE & REG_BIT(reg)) ||
	    val & ~(writable_bits(apic, reg) | free_bits))
		return 1;
	if (reg == APIC_SELF_IPI)
		send_ipi(apic, val | APIC_DEST_SELF, 0);
	else
		write_reg(apic, reg, val);
	return 0;
}

static noinline int write_icr(struct fonda_lapic *apic, u64 val)
{
	if (val & ICR_RESERVED)
		return 1;
	set_reg(apic, APIC_ICR, val & ~(u64)APIC_ICR_BUSY);
	set_reg(apic, APIC_ICR2, val >> 32);
	send_ipi(apic, val, val >> 32);
	return 0;
}

int lapic_write_x2(struct fonda_lapic *apic, u32 msr, u64 val)
{
	u32 reg = (msr - MSR_X2_BASE) * 16;

	if (unlikely(!apic->x2apic))
		return 1;
	if (reg != APIC_EOI || val)
		return reg == APIC_ICR ? write_icr(apic, val) : write_x2(apic, reg, val);
	end_interrupt(apic);
	return 0;
}

/* -- modes, reset, state of user space -------------------------------------- */

/* Id and logical id, "Derivation of Logical x2APIC ID from the Local x2APIC ID". */
static void set_ids(struct fonda_lapic *apic)
{
	u32 id = apic->id;

	set_reg(apic, APIC_ID, apic->x2apic ? id : id << 24);
	set_reg(apic, APIC_LDR, apic->x2apic ? (id >> 4) << 16 | 1u << (id & 0xf) : 0);
}

static void set_mode(struct fonda_lapic *apic, u64 base)
{
	bool x2apic = base & BASE_X2APIC, changed = x2apic != apic->x2apic;

	apic->base = base;
	WRITE_ONCE(apic->x2apic, x2apic);
	WRITE_ONCE(apic->enabled, base & BASE_ENABLE);
	if (changed)
		set_ids(apic);
}

/* Registers as after power-up, "Local APIC State After Power-Up or Reset". */
static void reset_regs(struct fonda_lapic *apic)
{
	u32 id = get_reg(apic, APIC_ID);

	timer_stop(apic);
	memset(apic->regs, 0, sizeof(apic->regs));
	set_ids(apic);
	set_reg(apic, APIC_ID, id);
	mask_lvts(apic);
	set_reg(apic, APIC_DFR, ~0u);
	set_reg(apic, APIC_SPIV, SVR_RESET);
	WRITE_ONCE(apic->sw_enabled, false);
	WRITE_ONCE(apic->esr, 0);
	apic->isr_top = -1;
}

void lapic_init(struct fonda_lapic *apic, struct fonda_irqchip *chip, u32 id, bool bsp)
{
	apic->chip = chip;
	apic->id = id;
	apic->map_id = -1;
	apic->base = BASE_DEFAULT | BASE_ENABLE | (bsp ? BASE_BSP : 0);
}

void lapic_reset(struct fonda_lapic *apic, bool init, bool lint0)
{
	/* INIT leaves the mode and the id alone. */
	if (!init) {
		set_mode(apic, BASE_DEFAULT | BASE_ENABLE | (apic->base & BASE_BSP));
		set_ids(apic);
	}
	reset_regs(apic);
	if (lint0)
		set_reg(apic, APIC_LVT0, APIC_DM_EXTINT);
	lapic_recheck(apic);
	fonda_apic_map_update(apic);
}

/* "x2APIC State Transitions" */
int lapic_set_base(struct fonda_lapic *apic, u64 val, bool host)
{
	u64 old_mode = apic->base & (BASE_ENABLE | BASE_X2APIC);
	u64 mode = val & (BASE_ENABLE | BASE_X2APIC);

	if (mode == BASE_X2APIC ||
	    (!host && ((mode == (BASE_ENABLE | BASE_X2APIC) && !old_mode) ||
		       (mode == BASE_ENABLE && old_mode & BASE_X2APIC))))
		return 1;

	set_mode(apic, val);
	/* Switched on again it is as after a reset; a VMM restores the rest. */
	if (!host && mode && !old_mode) {
		set_ids(apic);
		reset_regs(apic);
	}
	if (!mode)
		timer_stop(apic);
	fonda_apic_map_update(apic);
	lapic_recheck(apic);
	return 0;
}

void lapic_get_state(struct fonda_lapic *apic, struct kvm_lapic_state *state)
{
	u32 *regs = (u32 *)state->regs;
	u32 reg;

	memset(state, 0, sizeof(*state));
	for (reg = 0; reg < REG_END; reg += 16)
		regs[reg / 4] = read_reg(apic, reg);
	if (apic->x2apic && !apic->chip->x2apic_format)
		regs[APIC_ID / 4] <<= 24;
}

int lapic_set_state(struct fonda_lapic *apic, const struct kvm_lapic_state *state)
{
	const u32 *regs = (const u32 *)state->regs;
	u32 reg, id = regs[APIC_ID / 4], initial = regs[APIC_TMICT / 4];
	u32 count = min(regs[APIC_TMCCT / 4], initial);
	u64 deadline = apic->tsc_deadline;

	if (apic->x2apic && apic->chip->x2apic_format && id != apic->id)
		return -EINVAL;

	timer_stop(apic);
	for (reg = 0; reg < REG_END; reg += 16)
		set_reg(apic, reg, regs[reg / 4]);
	if (apic->x2apic)
		set_ids(apic);
	else
		set_reg(apic, APIC_ID, id & 0xff000000);
	WRITE_ONCE(apic->sw_enabled, get_reg(apic, APIC_SPIV) & APIC_SPIV_APIC_ENABLED);
	apic->isr_top = lapic_highest(apic->isr);
	fonda_apic_map_update(apic);

	if (in_timer_mode(apic, APIC_LVT_TIMER_TSCDEADLINE))
		lapic_set_deadline(apic, deadline);
	else if (count || in_timer_mode(apic, APIC_LVT_TIMER_PERIODIC))
		timer_count(apic, count ?: initial);
	lapic_recheck(apic);
	return 0;
}
