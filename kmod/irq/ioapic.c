// SPDX-License-Identifier: GPL-2.0-only
/*
 * The I/O APIC of a PC, after Intel's "82093AA I/O Advanced Programmable
 * Interrupt Controller (IOAPIC)" data sheet: 24 pins, each with an entry that
 * says which message its interrupts become. Messages are delivered at once, so
 * the delivery status of an entry is always idle. Polarity is stored but not
 * used: whoever drives a pin says what is active.
 */
#include <linux/bits.h>
#include <linux/kernel.h>
#include <linux/nospec.h>
#include <linux/string.h>

#include "irq.h"

#define RTE_VECTOR(rte)		((u8)(rte))
#define RTE_MODE(rte)		(((rte) >> 8) & 7)
#define RTE_LOGICAL		BIT_ULL(11)
#define RTE_STATUS		BIT_ULL(12)
#define RTE_REMOTE_IRR		BIT_ULL(14)
#define RTE_LEVEL		BIT_ULL(15)
#define RTE_MASKED		BIT_ULL(16)
#define RTE_DEST(rte)		((rte) >> 56)
#define RTE_WRITABLE		(0xff0000000001ffffULL & ~(RTE_STATUS | RTE_REMOTE_IRR))

#define REG_SELECT		0x00	/* of the two registers in memory */
#define REG_WINDOW		0x10

#define IND_ID			0x00	/* of those behind the window */
#define IND_VERSION		0x01
#define IND_ARBITRATION		0x02
#define IND_RTE			0x10

#define VERSION			0x11

/* Anything but fixed and lowest priority is an edge whatever bit 15 says. */
static bool level_triggered(u64 rte)
{
	return rte & RTE_LEVEL && RTE_MODE(rte) <= FONDA_DM_LOWEST;
}

/* Send the interrupt of @pin. As ioapic_set_line(). */
static int service(struct fonda_ioapic *ioapic, unsigned int pin)
{
	u64 rte = ioapic->rte[pin];
	bool level = level_triggered(rte);
	int ret;

	if (rte & RTE_MASKED || (level && rte & RTE_REMOTE_IRR))
		return -1;
	if (likely(!(rte & RTE_LOGICAL) && RTE_MODE(rte) == FONDA_DM_FIXED)) {
		ret = fonda_irq_deliver_fixed(ioapic->chip, RTE_DEST(rte), RTE_VECTOR(rte), level);
	} else {
		const struct fonda_irq_msg msg = {
			.dest = RTE_DEST(rte),
			.vector = RTE_VECTOR(rte),
			.mode = RTE_MODE(rte),
			.logical = rte & RTE_LOGICAL,
			.level = level,
		};

		ret = fonda_irq_deliver(ioapic->chip, &msg, NULL);
	}
	if (level && ret >= 0)
		ioapic->rte[pin] |= RTE_REMOTE_IRR;
	return ret;
}

/* Which edge-triggered vectors should local APICs report the end of? */
static void update_eoi_vectors(struct fonda_ioapic *ioapic)
{
	unsigned long map[ARRAY_SIZE(ioapic->chip->eoi_vectors)] = { };
	u32 pins = ioapic->notify;
	unsigned int i;

	while (pins) {
		u64 rte = ioapic->rte[__builtin_ctz(pins)];
		u8 vector = RTE_VECTOR(rte);

		if (!(rte & RTE_LEVEL))
			map[vector / BITS_PER_LONG] |= BIT(vector % BITS_PER_LONG);
		pins &= pins - 1;
	}
	for (i = 0; i < ARRAY_SIZE(map); i++)
		WRITE_ONCE(ioapic->chip->eoi_vectors[i], map[i]);
}

void ioapic_init(struct fonda_ioapic *ioapic, struct fonda_irqchip *chip)
{
	unsigned int pin;

	memset(ioapic, 0, sizeof(*ioapic));
	ioapic->chip = chip;
	for (pin = 0; pin < FONDA_IOAPIC_PINS; pin++)
		ioapic->rte[pin] = RTE_MASKED;
}

int ioapic_set_line(struct fonda_ioapic *ioapic, unsigned int pin, bool high)
{
	if (!high) {
		ioapic->level &= ~BIT(pin);
		return 1;
	}
	ioapic->level |= BIT(pin);
	/*
	 * "Redirection Table Registers": an edge at a masked pin is not kept. A
	 * level is: write_rte() looks at it.
	 */
	return service(ioapic, pin);
}

static void write_rte(struct fonda_ioapic *ioapic, unsigned int pin, u64 val)
{
	u64 *rte = &ioapic->rte[pin];
	bool unmasked = *rte & RTE_MASKED && !(val & RTE_MASKED);

	*rte = (val & RTE_WRITABLE) | (*rte & RTE_REMOTE_IRR);
	/* Guests make a pin edge-triggered for a moment to be rid of this bit. */
	if (!level_triggered(*rte))
		*rte &= ~RTE_REMOTE_IRR;

	if (ioapic->notify & BIT(pin)) {
		update_eoi_vectors(ioapic);
		if (unmasked && ioapic->chip->pit)
			pit_restart_reinject(ioapic->chip->pit);
	}
	if (ioapic->level & BIT(pin) && level_triggered(*rte))
		service(ioapic, pin);
}

static void write_indirect(struct fonda_ioapic *ioapic, u32 val)
{
	unsigned int pin = (ioapic->ioregsel - IND_RTE) / 2;
	u64 rte;

	if (ioapic->ioregsel == IND_ID) {
		ioapic->id = (val >> 24) & 0xf;
		return;
	}
	if (ioapic->ioregsel < IND_RTE || pin >= FONDA_IOAPIC_PINS)
		return;

	pin = array_index_nospec(pin, FONDA_IOAPIC_PINS);
	rte = ioapic->rte[pin];
	if (ioapic->ioregsel & 1)
		rte = lower_32_bits(rte) | (u64)val << 32;
	else
		rte = (rte & ~0xffffffffULL) | val;
	write_rte(ioapic, pin, rte);
}

static u32 read_indirect(struct fonda_ioapic *ioapic)
{
	unsigned int pin = (ioapic->ioregsel - IND_RTE) / 2;
	u64 rte;

	switch (ioapic->ioregsel) {
	case IND_ID:
	case IND_ARBITRATION:
		return ioapic->id << 24;
	case IND_VERSION:
		return VERSION | (FONDA_IOAPIC_PINS - 1) << 16;
	}
	if (ioapic->ioregsel < IND_RTE)
		return 0;
	if (pin >= FONDA_IOAPIC_PINS)
		return ~0u;

	rte = ioapic->rte[array_index_nospec(pin, FONDA_IOAPIC_PINS)];
	return ioapic->ioregsel & 1 ? upper_32_bits(rte) : lower_32_bits(rte);
}

u32 ioapic_read(struct fonda_ioapic *ioapic, u32 offset)
{
	switch (offset) {
	case REG_SELECT:
		return ioapic->ioregsel;
	case REG_WINDOW:
		return read_indirect(ioapic);
	default:
		return 0;
	}
}

void ioapic_write(struct fonda_ioapic *ioapic, u32 offset, u32 val)
{
	switch (offset) {
	case REG_SELECT:
		ioapic->ioregsel = val;
		break;
	case REG_WINDOW:
		write_indirect(ioapic, val);
		break;
	}
}

u32 ioapic_eoi_pins(struct fonda_ioapic *ioapic, u8 vector)
{
	unsigned int pin;
	u32 pins = 0;

	for (pin = 0; pin < FONDA_IOAPIC_PINS; pin++) {
		u64 rte = ioapic->rte[pin];

		if (RTE_VECTOR(rte) == vector &&
		    (rte & RTE_REMOTE_IRR || ioapic->notify & BIT(pin)))
			pins |= BIT(pin);
	}
	return pins;
}

void ioapic_eoi(struct fonda_ioapic *ioapic, u32 pins)
{
	while (pins) {
		unsigned int pin = __builtin_ctz(pins);

		pins &= pins - 1;
		if (!(ioapic->rte[pin] & RTE_REMOTE_IRR))
			continue;
		ioapic->rte[pin] &= ~RTE_REMOTE_IRR;
		if (ioapic->level & BIT(pin))
			service(ioapic, pin);
	}
}

void ioapic_set_notify(struct fonda_ioapic *ioapic, u32 pins)
{
	ioapic->notify = pins;
	update_eoi_vectors(ioapic);
}

/* An edge was delivered when it came; only levels are still to be reported. */
void ioapic_get_state(struct fonda_ioapic *ioapic, struct kvm_ioapic_state *state)
{
	unsigned int pin;

	state->base_address = FONDA_IOAPIC_BASE;
	state->ioregsel = ioapic->ioregsel;
	state->id = ioapic->id;
	state->irr = 0;
	state->pad = 0;
	for (pin = 0; pin < FONDA_IOAPIC_PINS; pin++) {
		state->redirtbl[pin].bits = ioapic->rte[pin];
		if (level_triggered(ioapic->rte[pin]))
			state->irr |= ioapic->level & BIT(pin);
	}
}

void ioapic_set_state(struct fonda_ioapic *ioapic, const struct kvm_ioapic_state *state)
{
	unsigned int pin;

	ioapic->ioregsel = state->ioregsel;
	ioapic->id = state->id & 0xf;
	ioapic->level = state->irr & (BIT(FONDA_IOAPIC_PINS) - 1);
	for (pin = 0; pin < FONDA_IOAPIC_PINS; pin++)
		ioapic->rte[pin] = state->redirtbl[pin].bits & (RTE_WRITABLE | RTE_REMOTE_IRR);
	update_eoi_vectors(ioapic);
	for (pin = 0; pin < FONDA_IOAPIC_PINS; pin++)
		if (ioapic->level & BIT(pin))
			service(ioapic, pin);
}
