// SPDX-License-Identifier: GPL-2.0-only
/*
 * The local APIC, in xAPIC and x2APIC mode, with its timer. Works from the
 * chapters "Advanced Programmable Interrupt Controller" of Intel's SDM volume 3
 * and of AMD's APM volume 2, whose section titles the comments cite. Messages
 * come in from any context through lapic_accept(); everything else runs in the
 * vCPU's own thread, but for the expiry of the timer.
 */
#include <linux/atomic.h>
#include <linux/bitops.h>
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/string.h>

#include "irq.h"

/* Offsets of registers; x2APIC's MSR is 0x800 + offset / 16. */
enum {
	REG_ID		= 0x020,
	REG_VERSION	= 0x030,
	REG_TPR		= 0x080,
	REG_APR		= 0x090,
	REG_PPR		= 0x0a0,
	REG_EOI		= 0x0b0,
	REG_RRD		= 0x0c0,
	REG_LDR		= 0x0d0,
	REG_DFR		= 0x0e0,
	REG_SVR		= 0x0f0,
	REG_ISR		= 0x100,	/* eight each of these three */
	REG_TMR		= 0x180,
	REG_IRR		= 0x200,
	REG_ESR		= 0x280,
	REG_ICR		= 0x300,
	REG_ICR2	= 0x310,
	REG_LVTT	= 0x320,
	REG_LVT_THERMAL	= 0x330,
	REG_LVT_PMC	= 0x340,
	REG_LINT0	= 0x350,
	REG_LINT1	= 0x360,
	REG_LVT_ERROR	= 0x370,
	REG_TMICT	= 0x380,
	REG_TMCCT	= 0x390,
	REG_TDCR	= 0x3e0,
	REG_SELF_IPI	= 0x3f0,	/* x2APIC only */
};

#define MSR_X2_BASE	0x800
#define MSR_X2(reg)	(MSR_X2_BASE + (reg) / 16)

#define BASE_BSP	BIT_ULL(8)
#define BASE_X2APIC	BIT_ULL(10)
#define BASE_ENABLE	BIT_ULL(11)

#define NR_LVTS		6
/* Of an integrated APIC; bit 24: EOI broadcasts can be suppressed. */
#define VERSION		(0x14 | (NR_LVTS - 1) << 16)
#define VERSION_DIRECTED_EOI	BIT(24)

#define SVR_ENABLE	BIT(8)
#define SVR_DIRECTED_EOI BIT(12)
#define SVR_RESET	0xff
#define SVR_WRITABLE	0x3ff		/* with the focus bit of old */

#define LVT_MASKED	BIT(16)
#define LVT_READ_ONLY	(BIT(12) | BIT(14))	/* delivery status, remote IRR */
#define LVT_MODE(lvt)	(((lvt) >> 8) & 7)
#define LVTT_MODE_MASK	(3 << 17)
#define LVTT_PERIODIC	(1 << 17)
#define LVTT_DEADLINE	(2 << 17)

#define ESR_SEND_ILLEGAL	BIT(5)
#define ESR_RECEIVED_ILLEGAL	BIT(6)
#define ESR_ILLEGAL_REGISTER	BIT(7)

#define ICR_LOGICAL	BIT(11)
#define ICR_BUSY	BIT(12)
#define ICR_ASSERT	BIT(14)
#define ICR_LEVEL	BIT(15)
#define ICR_SHORTHAND(icr)	(((icr) >> 18) & 3)
/* Of x2APIC mode; the busy bit of xAPIC mode may be written. */
#define ICR_RESERVED	(GENMASK_ULL(31, 20) | GENMASK_ULL(17, 16) | BIT_ULL(13))
#define SHORTHAND_SELF	1
#define SHORTHAND_ALL	2
#define SHORTHAND_OTHERS 3

#define XAPIC_BROADCAST	0xff
#define X2APIC_BROADCAST 0xffffffff

/* Vectors below are the processor's exceptions. */
#define FIRST_VECTOR	16

static u32 get_reg(const struct fonda_lapic *apic, u32 reg)
{
	return READ_ONCE(apic->regs[reg / 4]);
}

static void set_reg(struct fonda_lapic *apic, u32 reg, u32 val)
{
	WRITE_ONCE(apic->regs[reg / 4], val);
}

/* -- IRR, ISR, TMR: 256 bits each, 32 of them every 16 bytes ---------------- */

static unsigned long *vector_regs(struct fonda_lapic *apic, u32 reg)
{
	return (unsigned long *)&apic->regs[reg / 4];
}

static unsigned int vector_bit(u8 vector)
{
	return (vector / 32) * 128 + vector % 32;
}

/* Highest bit of 256 that is set, or -1. Not a loop: every entry may ask. */
static __always_inline int highest_vector(const u32 *bits)
{
#define TRY_WORD(word) do {						\
	u32 val = READ_ONCE(bits[(word) * 4]);				\
									\
	if (val)							\
		return (word) * 32 + fls(val) - 1;			\
} while (0)
	TRY_WORD(7);
	TRY_WORD(6);
	TRY_WORD(5);
	TRY_WORD(4);
	TRY_WORD(3);
	TRY_WORD(2);
	TRY_WORD(1);
	TRY_WORD(0);
	return -1;
#undef TRY_WORD
}

/* "Task and Processor Priorities" */
static u32 processor_priority(const struct fonda_lapic *apic)
{
	u32 tpr = get_reg(apic, REG_TPR) & 0xff;
	u32 isr = apic->isr_top < 0 ? 0 : apic->isr_top & 0xf0;

	return (tpr & 0xf0) >= isr ? tpr : isr;
}

static __always_inline int find_vector(struct fonda_lapic *apic, bool *tpr_blocked)
{
	int vector, in_service;

	if (unlikely(!apic->enabled))
		return -1;
	vector = highest_vector(&apic->regs[REG_IRR / 4]);
	/* A whole class is held back; -1, nothing in service, stays -1. */
	in_service = apic->isr_top | 0xf;
	if (vector <= in_service)
		return -1;
	if (vector <= (int)(get_reg(apic, REG_TPR) | 0xf)) {
		*tpr_blocked = true;
		return -1;
	}
	return vector;
}

int lapic_peek(struct fonda_lapic *apic, bool *tpr_blocked)
{
	return find_vector(apic, tpr_blocked);
}

int lapic_offer(struct fonda_lapic *apic, bool *tpr_blocked)
{
	int vector = find_vector(apic, tpr_blocked);

	if (vector >= 0)
		clear_bit(vector_bit(vector), vector_regs(apic, REG_IRR));
	return vector;
}

void lapic_withdraw(struct fonda_lapic *apic, u8 vector)
{
	set_bit(vector_bit(vector), vector_regs(apic, REG_IRR));
	lapic_recheck(apic);
}

static void end_of_interrupt(struct fonda_lapic *apic)
{
	int vector = apic->isr_top;
	u32 *isr, bit;

	if (unlikely(vector < 0))
		return;
	isr = &apic->regs[(REG_ISR + (vector / 32) * 16) / 4];
	bit = 1u << vector % 32;
	*isr &= ~bit;
	apic->isr_top = highest_vector(&apic->regs[REG_ISR / 4]);
	/* What this one held back. */
	if (highest_vector(&apic->regs[REG_IRR / 4]) >= 0)
		lapic_recheck(apic);

	/* "Signaling Interrupt Servicing Completion" */
	if (test_bit(vector, apic->chip->eoi_vectors) ||
	    (isr[(REG_TMR - REG_ISR) / 4] & bit &&
	     !(get_reg(apic, REG_SVR) & SVR_DIRECTED_EOI)))
		lapic_eoi_broadcast(apic, vector);
}

/* -- messages that arrive --------------------------------------------------- */

/* "Error Handling": note it; the first of a kind interrupts. */
static void error(struct fonda_lapic *apic, u8 bit)
{
	u32 lvt = get_reg(apic, REG_LVT_ERROR);

	if (READ_ONCE(apic->esr) & bit)
		return;
	WRITE_ONCE(apic->esr, apic->esr | bit);
	/* An illegal vector here must not be an error once more. */
	if (!(lvt & LVT_MASKED) && (u8)lvt >= FIRST_VECTOR)
		lapic_accept_fixed(apic, lvt, false);
}

int lapic_accept_fixed(struct fonda_lapic *apic, u8 vector, bool level)
{
	unsigned int bit = vector_bit(vector);

	if (unlikely(!READ_ONCE(apic->sw_enabled)))
		return -1;
	if (unlikely(vector < FIRST_VECTOR)) {
		error(apic, ESR_RECEIVED_ILLEGAL);
		return -1;
	}
	/* The trigger mode first: the EOI may follow at once. */
	if (unlikely(test_bit(bit, vector_regs(apic, REG_TMR)) != level)) {
		if (level)
			set_bit(bit, vector_regs(apic, REG_TMR));
		else
			clear_bit(bit, vector_regs(apic, REG_TMR));
	}
	if (test_and_set_bit(bit, vector_regs(apic, REG_IRR)))
		return 0;
	lapic_raise(apic);
	return 1;
}

int lapic_accept(struct fonda_lapic *apic, const struct fonda_irq_msg *msg)
{
	switch (msg->mode) {
	case FONDA_DM_FIXED:
	case FONDA_DM_LOWEST:
		return lapic_accept_fixed(apic, msg->vector, msg->level);
	case FONDA_DM_NMI:
		lapic_send_nmi(apic);
		return 1;
	case FONDA_DM_INIT:
		/* The de-assert synchronised arbitration ids, of old. */
		if (msg->deassert)
			return 0;
		/* A SIPI that came before it is void. */
		xchg(&apic->events, FONDA_LAPIC_INIT);
		lapic_send_event(apic);
		return 1;
	case FONDA_DM_SIPI:
		WRITE_ONCE(apic->sipi_vector, msg->vector);
		smp_wmb();	/* pairs with the xchg() that takes the events */
		set_bit(__ffs(FONDA_LAPIC_SIPI), &apic->events);
		lapic_send_event(apic);
		return 1;
	default:
		/* No SMM; an 8259A talks to LINT0 by itself. */
		return -1;
	}
}

/* "Logical Destination Mode" */
static bool matches_logical(struct fonda_lapic *apic, u32 dest)
{
	u32 ldr = get_reg(apic, REG_LDR);

	if (apic->x2apic)
		return dest >> 16 == ldr >> 16 && dest & ldr & 0xffff;

	ldr >>= 24;
	dest &= 0xff;
	if (get_reg(apic, REG_DFR) >> 28)	/* flat */
		return dest & ldr;
	return dest >> 4 == ldr >> 4 && dest & ldr & 0xf;
}

bool lapic_matches(struct fonda_lapic *apic, u32 dest, bool logical)
{
	if (!apic->enabled)
		return false;
	if (dest == (apic->x2apic ? X2APIC_BROADCAST : XAPIC_BROADCAST))
		return true;
	if (dest == X2APIC_BROADCAST)	/* from an x2APIC-mode sender */
		return true;
	if (logical)
		return matches_logical(apic, dest);
	/* An id above 255 is only reached by it, in either mode. */
	if (apic->x2apic || apic->id > 0xff)
		return dest == apic->id;
	return dest == get_reg(apic, REG_ID) >> 24;
}

bool lapic_accepts_extint(struct fonda_lapic *apic)
{
	u32 lvt = get_reg(apic, REG_LINT0);

	/* Switched off, LINT0 is the pin INTR, which only the first CPU has wired. */
	if (!READ_ONCE(apic->enabled))
		return apic->base & BASE_BSP;
	return !(lvt & LVT_MASKED) && LVT_MODE(lvt) == FONDA_DM_EXTINT;
}

/* -- messages that are sent ------------------------------------------------- */

static void send_shorthand(struct fonda_lapic *apic, const struct fonda_irq_msg *msg,
			   bool self)
{
	struct fonda_lapic *target;
	int i;

	for (i = 0; (target = fonda_lapic_by_index(apic->chip, i)); i++)
		if (READ_ONCE(target->enabled) && (self || target != apic))
			lapic_accept(target, msg);
}

/* "Interrupt Command Register (ICR)" */
static void send_ipi(struct fonda_lapic *apic, u32 icr, u32 dest)
{
	struct fonda_irq_msg msg = {
		.dest = dest,
		.vector = icr,
		.mode = (icr >> 8) & 7,
		.logical = icr & ICR_LOGICAL,
		.deassert = icr & ICR_LEVEL && !(icr & ICR_ASSERT),
	};

	if (msg.mode <= FONDA_DM_LOWEST && msg.vector < FIRST_VECTOR) {
		error(apic, ESR_SEND_ILLEGAL);
		return;
	}
	switch (ICR_SHORTHAND(icr)) {
	case SHORTHAND_SELF:
		lapic_accept(apic, &msg);
		break;
	case SHORTHAND_ALL:
	case SHORTHAND_OTHERS:
		send_shorthand(apic, &msg, ICR_SHORTHAND(icr) == SHORTHAND_ALL);
		break;
	default:
		fonda_irq_deliver(apic->chip, &msg, apic);
	}
}

/* -- the timer -------------------------------------------------------------- */

static bool deadline_mode(const struct fonda_lapic *apic)
{
	return (get_reg(apic, REG_LVTT) & LVTT_MODE_MASK) == LVTT_DEADLINE;
}

static bool periodic_mode(const struct fonda_lapic *apic)
{
	return (get_reg(apic, REG_LVTT) & LVTT_MODE_MASK) == LVTT_PERIODIC;
}

/* "Divide Configuration Register": the timer's clock ticks every nanosecond. */
static u32 divisor(const struct fonda_lapic *apic)
{
	u32 tdcr = get_reg(apic, REG_TDCR);

	return 1u << ((((tdcr & 3) | (tdcr & 8) >> 1) + 1) & 7);
}

static void timer_interrupt(struct fonda_lapic *apic)
{
	u32 lvt = get_reg(apic, REG_LVTT);

	if (!(lvt & LVT_MASKED))
		lapic_accept_fixed(apic, lvt, false);
}

bool lapic_timer_expired(struct fonda_lapic *apic)
{
	timer_interrupt(apic);
	return periodic_mode(apic);
}

static void timer_stop(struct fonda_lapic *apic)
{
	lapic_timer_cancel(apic);
	apic->armed = false;
	apic->tsc_deadline = 0;
}

/* Count from @count down to 0, then, if periodic, from the initial count. */
static void timer_count(struct fonda_lapic *apic, u32 count)
{
	u64 period = (u64)get_reg(apic, REG_TMICT) * divisor(apic);
	u64 first = (u64)count * divisor(apic);
	u64 now = fonda_time_ns();

	timer_stop(apic);
	if (!period)
		return;
	/* A guest must not keep a CPU of the host in its timer interrupt. */
	if (periodic_mode(apic))
		period = max(period, fonda_timer_min_ns());
	apic->period_ns = period;
	apic->start_ns = now + first - period;
	apic->armed = true;
	lapic_timer_start(apic, now + first);
}

static u32 current_count(struct fonda_lapic *apic)
{
	u64 elapsed;

	if (!apic->armed)
		return 0;
	elapsed = fonda_time_ns() - apic->start_ns;
	if (elapsed >= apic->period_ns) {
		if (!periodic_mode(apic))
			return 0;
		elapsed %= apic->period_ns;
	}
	/* A period that was stretched would show more than it was loaded with. */
	return min_t(u64, (apic->period_ns - elapsed) / divisor(apic),
		     get_reg(apic, REG_TMICT));
}

u64 lapic_get_deadline(struct fonda_lapic *apic)
{
	if (!apic->tsc_deadline)
		return 0;
	/*
	 * The register is 0 once the interrupt has been sent; whoever sees 0,
	 * a VMM that saves the state above all, must see the interrupt too.
	 */
	if (!lapic_deadline_ns(apic, apic->tsc_deadline)) {
		if (lapic_timer_cancel(apic))
			timer_interrupt(apic);
		apic->tsc_deadline = 0;
	}
	return apic->tsc_deadline;
}

/* "TSC-Deadline Mode" */
void lapic_set_deadline(struct fonda_lapic *apic, u64 guest_tsc)
{
	u64 ns;

	if (!apic->enabled || !deadline_mode(apic))
		return;
	if (!guest_tsc) {
		timer_stop(apic);
		return;
	}
	ns = lapic_deadline_ns(apic, guest_tsc);
	if (ns) {
		/* Armed already or not: it is armed for this now. */
		apic->tsc_deadline = guest_tsc;
		lapic_timer_start(apic, ns);
	} else {
		timer_stop(apic);
		timer_interrupt(apic);
	}
}

/* -- registers -------------------------------------------------------------- */

static u32 version(struct fonda_lapic *apic)
{
	return VERSION | (lapic_has_directed_eoi(apic) ? VERSION_DIRECTED_EOI : 0);
}

/* "Local Vector Table": which bits of @reg exist; 0: it is not one. */
static u32 lvt_bits(u32 reg)
{
	switch (reg) {
	case REG_LVTT:
		return 0xff | LVT_MASKED | LVTT_MODE_MASK;
	case REG_LVT_THERMAL:
	case REG_LVT_PMC:
		return 0x7ff | LVT_MASKED;
	case REG_LINT0:
	case REG_LINT1:
		return 0xa7ff | LVT_MASKED;
	case REG_LVT_ERROR:
		return 0xff | LVT_MASKED;
	default:
		return 0;
	}
}

static u32 svr_bits(struct fonda_lapic *apic)
{
	return SVR_WRITABLE | (lapic_has_directed_eoi(apic) ? SVR_DIRECTED_EOI : 0);
}

static void write_lvt(struct fonda_lapic *apic, u32 reg, u32 val)
{
	u32 old = get_reg(apic, reg);

	val &= lvt_bits(reg);
	if (!apic->sw_enabled)
		val |= LVT_MASKED;
	if (reg != REG_LVTT) {
		set_reg(apic, reg, val);
		if (reg == REG_LINT0)
			lapic_recheck(apic);
		return;
	}
	if ((old ^ val) & LVTT_DEADLINE) {
		/* Entering and leaving deadline mode disarms the timer. */
		timer_stop(apic);
		set_reg(apic, REG_TMICT, 0);
	} else if (apic->armed && val & ~old & LVTT_PERIODIC) {
		/* A one shot that is still counting goes on as periodic. */
		apic->armed = current_count(apic);
		WRITE_ONCE(apic->period_ns, max(apic->period_ns, fonda_timer_min_ns()));
	}
	set_reg(apic, reg, val);
}

static void write_svr(struct fonda_lapic *apic, u32 val)
{
	u32 reg;

	set_reg(apic, REG_SVR, val & svr_bits(apic));
	WRITE_ONCE(apic->sw_enabled, val & SVR_ENABLE);
	if (apic->sw_enabled)
		return;
	/* "Local APIC State After It Has Been Software Disabled" */
	for (reg = REG_LVTT; reg <= REG_LVT_ERROR; reg += 16)
		set_reg(apic, reg, get_reg(apic, reg) | LVT_MASKED);
}

static void write_tdcr(struct fonda_lapic *apic, u32 val)
{
	u32 count = current_count(apic);

	set_reg(apic, REG_TDCR, val & 0xb);
	if (count)
		timer_count(apic, count);
}

/* What both modes write alike. */
static void write_reg(struct fonda_lapic *apic, u32 reg, u32 val)
{
	switch (reg) {
	case REG_TPR:
		set_reg(apic, REG_TPR, val & 0xff);
		break;
	case REG_EOI:
		end_of_interrupt(apic);
		break;
	case REG_SVR:
		write_svr(apic, val);
		break;
	case REG_ESR:
		/* A write makes visible what has gathered since the last one. */
		set_reg(apic, REG_ESR, apic->esr);
		WRITE_ONCE(apic->esr, 0);
		break;
	case REG_TMICT:
		if (deadline_mode(apic))
			break;
		set_reg(apic, REG_TMICT, val);
		timer_count(apic, val);
		break;
	case REG_TDCR:
		write_tdcr(apic, val);
		break;
	default:
		if (lvt_bits(reg))
			write_lvt(apic, reg, val);
		break;
	}
}

static void write_id(struct fonda_lapic *apic, u32 val)
{
	/* Ids above 255 do not fit here and are not the guest's to change. */
	if (apic->id > 0xff)
		return;
	fonda_apic_map_move(apic->chip, apic, get_reg(apic, REG_ID) >> 24, val >> 24);
	set_reg(apic, REG_ID, val & 0xff000000);
}

static void write_xapic(struct fonda_lapic *apic, u32 reg, u32 val)
{
	switch (reg) {
	case REG_ID:
		write_id(apic, val);
		break;
	case REG_LDR:
		set_reg(apic, REG_LDR, val & 0xff000000);
		break;
	case REG_DFR:
		set_reg(apic, REG_DFR, val | 0x0fffffff);
		break;
	case REG_ICR:
		set_reg(apic, REG_ICR, val & ~ICR_BUSY);
		send_ipi(apic, val, get_reg(apic, REG_ICR2) >> 24);
		break;
	case REG_ICR2:
		set_reg(apic, REG_ICR2, val & 0xff000000);
		break;
	default:
		write_reg(apic, reg, val);
		break;
	}
}

/* One bit a register, by offset / 16. */
#define REG_BIT(reg)	BIT_ULL((reg) / 16)
#define REG_BITS(reg, n) (GENMASK_ULL((n) - 1, 0) << (reg) / 16)

#define X2_READABLE (REG_BIT(REG_ID) | REG_BIT(REG_VERSION) | REG_BIT(REG_TPR) |	\
	REG_BIT(REG_PPR) | REG_BIT(REG_LDR) | REG_BIT(REG_SVR) |			\
	REG_BITS(REG_ISR, 24) | REG_BIT(REG_ESR) | REG_BIT(REG_ICR) |			\
	REG_BITS(REG_LVTT, NR_LVTS) | REG_BIT(REG_TMICT) | REG_BIT(REG_TMCCT) |		\
	REG_BIT(REG_TDCR))
#define XAPIC_REGS (X2_READABLE | REG_BIT(REG_APR) | REG_BIT(REG_EOI) |		\
	REG_BIT(REG_RRD) | REG_BIT(REG_DFR) | REG_BIT(REG_ICR2))

static u32 read_reg(struct fonda_lapic *apic, u32 reg)
{
	switch (reg) {
	case REG_PPR:
		return processor_priority(apic);
	case REG_VERSION:
		return version(apic);
	case REG_TMCCT:
		return current_count(apic);
	default:
		return get_reg(apic, reg);
	}
}

int lapic_read(struct fonda_lapic *apic, u32 offset, int len, void *data)
{
	u32 reg = offset & 0xff0;
	u32 val = 0;

	memset(data, 0, len);
	/* "Local APIC Register Address Map": 32 bits of every 128. */
	if ((offset & 0xf) + len > 4)
		return 0;
	if (reg < 0x400 && XAPIC_REGS & REG_BIT(reg))
		val = read_reg(apic, reg);
	else
		error(apic, ESR_ILLEGAL_REGISTER);
	memcpy(data, (u8 *)&val + (offset & 0xf), len);
	return 0;
}

int lapic_write(struct fonda_lapic *apic, u32 offset, int len, const void *data)
{
	u32 val;

	if (offset & 0xf || len != 4)
		return 0;
	memcpy(&val, data, sizeof(val));
	if (offset < 0x400 && XAPIC_REGS & REG_BIT(offset))
		write_xapic(apic, offset, val);
	else
		error(apic, ESR_ILLEGAL_REGISTER);
	return 0;
}

int lapic_read_x2(struct fonda_lapic *apic, u32 msr, u64 *val)
{
	u32 reg = (msr - MSR_X2_BASE) * 16;

	if (!apic->x2apic || reg >= 0x400 || !(X2_READABLE & REG_BIT(reg)))
		return 1;
	*val = read_reg(apic, reg);
	if (reg == REG_ICR)
		*val |= (u64)get_reg(apic, REG_ICR2) << 32;
	return 0;
}

/* "x2APIC Register Address Space": which bits of @reg may be set; 0: none. */
static u32 x2_writable(struct fonda_lapic *apic, u32 reg)
{
	switch (reg) {
	case REG_TPR:
	case REG_SELF_IPI:
		return 0xff;
	case REG_SVR:
		return svr_bits(apic);
	case REG_TMICT:
		return ~0u;
	case REG_TDCR:
		return 0xb;
	default:
		/* Read-only bits may be written; Linux does so on its way down. */
		return lvt_bits(reg) ? lvt_bits(reg) | LVT_READ_ONLY : 0;
	}
}

static int write_x2(struct fonda_lapic *apic, u32 reg, u64 val)
{
	u32 bits = x2_writable(apic, reg);

	/* EOI and ESR exist, and take 0 only. */
	if ((!bits && reg != REG_ESR) || val & ~(u64)bits)
		return 1;
	if (reg == REG_SELF_IPI)
		send_ipi(apic, val | SHORTHAND_SELF << 18, 0);
	else
		write_reg(apic, reg, val);
	return 0;
}

int lapic_write_x2(struct fonda_lapic *apic, u32 msr, u64 val)
{
	if (!apic->x2apic)
		return 1;
	switch (msr) {
	case MSR_X2(REG_EOI):
		if (val)
			return 1;
		end_of_interrupt(apic);
		return 0;
	case MSR_X2(REG_ICR):
		if (val & ICR_RESERVED)
			return 1;
		val &= ~(u64)ICR_BUSY;
		set_reg(apic, REG_ICR, val);
		set_reg(apic, REG_ICR2, val >> 32);
		send_ipi(apic, val, val >> 32);
		return 0;
	default:
		if (msr >= MSR_X2(0x400))
			return 1;
		return write_x2(apic, (msr - MSR_X2_BASE) * 16, val);
	}
}

/* -- modes, reset, state of user space -------------------------------------- */

/* By which id is this APIC known to the map? -1: by none. */
static int map_id(const struct fonda_lapic *apic)
{
	if (!apic->published || !apic->enabled)
		return -1;
	if (apic->x2apic || apic->id > 0xff)
		return apic->id;
	return get_reg(apic, REG_ID) >> 24;
}

/* "Derivation of Logical x2APIC ID from the Local x2APIC ID" */
static u32 x2_ldr(u32 id)
{
	return (id >> 4) << 16 | 1u << (id & 0xf);
}

static void set_mode(struct fonda_lapic *apic, u64 base)
{
	bool x2apic = base & BASE_X2APIC, was_x2apic = apic->x2apic;

	apic->base = base;
	WRITE_ONCE(apic->x2apic, x2apic);
	WRITE_ONCE(apic->enabled, base & BASE_ENABLE);
	if (x2apic) {
		set_reg(apic, REG_ID, apic->id);
		set_reg(apic, REG_LDR, x2_ldr(apic->id));
	} else if (was_x2apic) {
		set_reg(apic, REG_ID, apic->id << 24);
		set_reg(apic, REG_LDR, 0);
	}
}

/* Registers as after power-up, "Local APIC State After Power-Up or Reset". */
static void reset_regs(struct fonda_lapic *apic)
{
	u32 reg;

	timer_stop(apic);
	for (reg = REG_VERSION; reg < 0x400; reg += 16)
		if (reg != REG_LDR || !apic->x2apic)
			set_reg(apic, reg, 0);
	for (reg = REG_LVTT; reg <= REG_LVT_ERROR; reg += 16)
		set_reg(apic, reg, LVT_MASKED);
	set_reg(apic, REG_VERSION, version(apic));
	set_reg(apic, REG_DFR, ~0u);
	set_reg(apic, REG_SVR, SVR_RESET);
	WRITE_ONCE(apic->sw_enabled, false);
	WRITE_ONCE(apic->esr, 0);
	apic->isr_top = -1;
}

void lapic_init(struct fonda_lapic *apic, struct fonda_irqchip *chip, u32 id, bool bsp)
{
	apic->chip = chip;
	apic->id = id;
	apic->base = FONDA_APIC_DEFAULT_BASE | BASE_ENABLE | (bsp ? BASE_BSP : 0);
}

void lapic_publish(struct fonda_lapic *apic)
{
	apic->published = true;
	fonda_apic_map_move(apic->chip, apic, -1, map_id(apic));
}

void lapic_reset(struct fonda_lapic *apic, bool init)
{
	int old_id = map_id(apic);

	/* INIT leaves the mode and the id alone. */
	if (!init) {
		set_mode(apic, FONDA_APIC_DEFAULT_BASE | BASE_ENABLE | (apic->base & BASE_BSP));
		set_reg(apic, REG_ID, apic->id << 24);
	}
	reset_regs(apic);
	fonda_apic_map_move(apic->chip, apic, old_id, map_id(apic));
}

void lapic_open_lint0(struct fonda_lapic *apic)
{
	set_reg(apic, REG_LINT0, FONDA_DM_EXTINT << 8);
	lapic_recheck(apic);
}

/* "x2APIC State Transitions" */
int lapic_set_base(struct fonda_lapic *apic, u64 val, bool host)
{
	u64 old_mode = apic->base & (BASE_ENABLE | BASE_X2APIC);
	u64 mode = val & (BASE_ENABLE | BASE_X2APIC);
	int old_id = map_id(apic);

	if (mode == BASE_X2APIC)
		return 1;
	if (!host && ((mode == (BASE_ENABLE | BASE_X2APIC) && !old_mode) ||
		      (mode == BASE_ENABLE && old_mode & BASE_X2APIC)))
		return 1;

	set_mode(apic, val);
	/* Switched on again it is as after a reset; a VMM restores the rest. */
	if (!host && mode && !old_mode)
		reset_regs(apic);
	if (!mode)
		timer_stop(apic);
	fonda_apic_map_move(apic->chip, apic, old_id, map_id(apic));
	lapic_recheck(apic);
	return 0;
}

void lapic_get_state(struct fonda_lapic *apic, struct kvm_lapic_state *state)
{
	u32 *id = (u32 *)&state->regs[REG_ID];

	set_reg(apic, REG_VERSION, version(apic));
	set_reg(apic, REG_PPR, processor_priority(apic));
	set_reg(apic, REG_TMCCT, current_count(apic));
	memcpy(state->regs, apic->regs, sizeof(state->regs));
	if (apic->x2apic && !apic->chip->x2apic_format)
		*id <<= 24;
}

int lapic_set_state(struct fonda_lapic *apic, const struct kvm_lapic_state *state)
{
	const u32 *regs = (const u32 *)state->regs;
	int old_id = map_id(apic);
	u32 id = regs[REG_ID / 4], count = regs[REG_TMCCT / 4];
	u64 deadline = apic->tsc_deadline;

	if (apic->x2apic && apic->chip->x2apic_format && id != apic->id)
		return -EINVAL;

	timer_stop(apic);
	memcpy(apic->regs, state->regs, sizeof(state->regs));
	if (apic->x2apic) {
		set_reg(apic, REG_ID, apic->id);
		set_reg(apic, REG_LDR, x2_ldr(apic->id));
	} else {
		set_reg(apic, REG_ID, id & 0xff000000);
	}
	set_reg(apic, REG_VERSION, version(apic));
	WRITE_ONCE(apic->sw_enabled, get_reg(apic, REG_SVR) & SVR_ENABLE);
	apic->isr_top = highest_vector(&apic->regs[REG_ISR / 4]);
	fonda_apic_map_move(apic->chip, apic, old_id, map_id(apic));

	if (deadline_mode(apic))
		lapic_set_deadline(apic, deadline);
	else if (count || periodic_mode(apic))
		timer_count(apic, count ? min(count, get_reg(apic, REG_TMICT)) :
				  get_reg(apic, REG_TMICT));
	lapic_recheck(apic);
	return 0;
}
