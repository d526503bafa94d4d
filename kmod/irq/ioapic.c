// SPDX-License-Identifier: GPL-2.0-only
/*
 * The I/O APIC of a PC, after Intel's "82093AA I/O Advanced Programmable
 * Interrupt Controller (IOAPIC)" data sheet: 24 pins, each with an entry that
 * says which message its interrupts become. Messages are delivered at once, so
 * the delivery status of an entry is always idle. Polarity is stored but not
 * used: whoever drives a pin says what is active.
 */
#include "irq.h"

/* Of an entry; the low half is as an ICR's otherwise. */
#define RTE_STATUS		BIT_ULL(12)
#define RTE_REMOTE_IRR		BIT_ULL(14)
#define RTE_MASKED		BIT_ULL(16)
#define RTE_DEST(rte)		((rte) >> 56)
#define RTE_MESSAGE		(0xff | APIC_DM_FIXED_MASK | APIC_DEST_LOGICAL)
#define RTE_WRITABLE		(0xff0000000001ffffULL & ~(RTE_STATUS | RTE_REMOTE_IRR))

#define REG_SELECT		0x00	/* of the two registers in memory */
#define REG_WINDOW		0x10

#define IND_ID			0x00	/* of those behind the window */
#define IND_VERSION		0x01
#define IND_ARBITRATION		0x02
#define IND_RTE			0x10

#define VERSION			(0x11 | (FONDA_IOAPIC_PINS - 1) << 16)

#define rte_of(chip, pin)	((chip)->ioapic.redirtbl[pin].bits)

/* Anything but fixed and lowest priority is an edge whatever bit 15 says. */
static bool level_triggered(u64 rte)
{
	return rte & APIC_INT_LEVELTRIG && (rte & APIC_DM_FIXED_MASK) <= APIC_DM_LOWEST;
}

/* Send the interrupt of @pin. As ioapic_set_line(). */
static int service(struct fonda_irqchip *chip, unsigned int pin)
{
	u64 rte = rte_of(chip, pin);
	bool level = level_triggered(rte);
	int ret;

	if (rte & RTE_MASKED || (level && rte & RTE_REMOTE_IRR))
		return -1;
	ret = fonda_irq_deliver(chip, fonda_device_dest(chip, RTE_DEST(rte)),
				(rte & RTE_MESSAGE) | (level ? APIC_INT_LEVELTRIG : 0));
	if (level && ret >= 0)
		rte_of(chip, pin) |= RTE_REMOTE_IRR;
	return ret;
}

/*
 * Which vectors should local APICs report the end of? Those of levels they do
 * anyway; but somebody may wait for the end of an edge: the PIT, an irqfd.
 */
static void update_eoi_vectors(struct fonda_irqchip *chip)
{
	unsigned long map[ARRAY_SIZE(chip->eoi_vectors)] = { };
	unsigned int i;

	for (i = 0; i < FONDA_IOAPIC_PINS; i++)
		__set_bit((u8)rte_of(chip, i), map);
	for (i = 0; i < ARRAY_SIZE(map); i++)
		WRITE_ONCE(chip->eoi_vectors[i], map[i]);
}

void ioapic_init(struct fonda_irqchip *chip)
{
	chip->ioapic = (struct kvm_ioapic_state){
		.base_address = FONDA_IOAPIC_BASE,
		.redirtbl = { [0 ... FONDA_IOAPIC_PINS - 1] = { .bits = RTE_MASKED } },
	};
}

int ioapic_set_line(struct fonda_irqchip *chip, unsigned int pin, bool high)
{
	if (!high) {
		chip->ioapic.irr &= ~BIT(pin);
		return 1;
	}
	chip->ioapic.irr |= BIT(pin);
	/*
	 * "Redirection Table Registers": an edge at a masked pin is not kept. A
	 * level is: write_rte() looks at it.
	 */
	return service(chip, pin);
}

static void write_rte(struct fonda_irqchip *chip, unsigned int pin, u64 val)
{
	u64 old = rte_of(chip, pin), new = (val & RTE_WRITABLE) | (old & RTE_REMOTE_IRR);

	/* Guests make a pin edge-triggered for a moment to be rid of this bit. */
	if (!level_triggered(new))
		new &= ~RTE_REMOTE_IRR;
	rte_of(chip, pin) = new;
	update_eoi_vectors(chip);
	if (old & ~new & RTE_MASKED && fonda_routes_gsi(chip, FONDA_PIC_PINS + pin) == 0)
		pit_restart_reinject(&chip->pit);
	if (chip->ioapic.irr & BIT(pin) && level_triggered(new))
		service(chip, pin);
}

/* The half of an entry that the window shows, counted from the first; -1: it does not. */
static int window_half(const struct fonda_irqchip *chip)
{
	u32 half = chip->ioapic.ioregsel - IND_RTE;

	return half < 2 * FONDA_IOAPIC_PINS ? array_index_nospec(half, 2 * FONDA_IOAPIC_PINS) : -1;
}

static void write_window(struct fonda_irqchip *chip, u32 val)
{
	int half = window_half(chip);

	if (chip->ioapic.ioregsel == IND_ID)
		chip->ioapic.id = (val >> 24) & 0xf;
	else if (half >= 0 && half & 1)
		write_rte(chip, half / 2, (u64)val << 32 | lower_32_bits(rte_of(chip, half / 2)));
	else if (half >= 0)
		write_rte(chip, half / 2, rte_of(chip, half / 2) >> 32 << 32 | val);
}

static u32 read_window(struct fonda_irqchip *chip)
{
	int half = window_half(chip);

	if (half >= 0)
		return rte_of(chip, half / 2) >> (half & 1) * 32;
	if (chip->ioapic.ioregsel == IND_ID || chip->ioapic.ioregsel == IND_ARBITRATION)
		return chip->ioapic.id << 24;
	if (chip->ioapic.ioregsel == IND_VERSION)
		return VERSION;
	return chip->ioapic.ioregsel < IND_RTE ? 0 : ~0u;
}

void ioapic_access(struct fonda_irqchip *chip, u32 offset, int len, void *data, bool write)
{
	u64 val = 0;

	if (write)
		memcpy(&val, data, len);
	if (offset == REG_SELECT && write)
		chip->ioapic.ioregsel = (u8)val;
	else if (offset == REG_SELECT)
		val = chip->ioapic.ioregsel;
	else if (offset == REG_WINDOW && write)
		write_window(chip, val);
	else if (offset == REG_WINDOW)
		val = read_window(chip);
	if (!write)
		memcpy(data, &val, len);
}

u32 ioapic_eoi_pins(struct fonda_irqchip *chip, u8 vector)
{
	unsigned int pin;
	u32 pins = 0;

	for (pin = 0; pin < FONDA_IOAPIC_PINS; pin++)
		if ((u8)rte_of(chip, pin) == vector)
			pins |= BIT(pin);
	return pins;
}

void ioapic_eoi(struct fonda_irqchip *chip, u32 pins)
{
	for (; pins; pins &= pins - 1) {
		unsigned int pin = __ffs(pins);

		if (!(rte_of(chip, pin) & RTE_REMOTE_IRR))
			continue;
		rte_of(chip, pin) &= ~RTE_REMOTE_IRR;
		if (chip->ioapic.irr & BIT(pin))
			service(chip, pin);
	}
}

/* An edge was delivered when it came; only levels are still to be reported. */
void ioapic_get_state(struct fonda_irqchip *chip, struct kvm_ioapic_state *state)
{
	unsigned int pin;

	*state = chip->ioapic;
	for (pin = 0; pin < FONDA_IOAPIC_PINS; pin++)
		if (!level_triggered(rte_of(chip, pin)))
			state->irr &= ~BIT(pin);
}

void ioapic_set_state(struct fonda_irqchip *chip, const struct kvm_ioapic_state *state)
{
	unsigned int pin;

	chip->ioapic = *state;
	chip->ioapic.base_address = FONDA_IOAPIC_BASE;
	chip->ioapic.pad = 0;
	chip->ioapic.ioregsel &= 0xff;
	chip->ioapic.id &= 0xf;
	chip->ioapic.irr &= BIT(FONDA_IOAPIC_PINS) - 1;
	for (pin = 0; pin < FONDA_IOAPIC_PINS; pin++)
		rte_of(chip, pin) &= RTE_WRITABLE | RTE_REMOTE_IRR;
	update_eoi_vectors(chip);
	for (pin = 0; pin < FONDA_IOAPIC_PINS; pin++)
		if (chip->ioapic.irr & BIT(pin))
			service(chip, pin);
}
