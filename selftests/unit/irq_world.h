/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A machine for the interrupt controllers of kmod/irq/: local APICs without
 * processors, a clock that a test moves, and a note of everything that the
 * devices ask their surroundings for.
 */
#ifndef UNIT_IRQ_WORLD_H
#define UNIT_IRQ_WORLD_H

#include <linux/kernel.h>

#include "irq/irq.h"

#define WORLD_APICS	8

struct world {
	struct fonda_irqchip chip;
	struct fonda_lapic apic[WORLD_APICS];
	int nr_apics;

	/* The guest's TSC counts nanoseconds from here. */
	u64 tsc_epoch_ns;
	u64 min_period_ns;

	unsigned int raises[WORLD_APICS];
	unsigned int rechecks[WORLD_APICS];
	unsigned int nmis[WORLD_APICS];
	unsigned int events[WORLD_APICS];
	unsigned int pic_outputs;

	/* EOIs that reached beyond the local APIC, and pins that were notified. */
	unsigned int eois;
	u8 last_eoi;
	u32 notified;
	/* Called for each of these pins, as the driver of the line would be. */
	void (*on_notify)(unsigned int pin);
};

extern struct world world;
/* The clock of all timers: unit_now_ns. */

/* Everything as after power-up, with @nr local APICs of ids 0, 1, ... */
void world_init(int nr);
void world_init_mode(int nr, int mode);
void world_fini(void);

/* Move the clock on, and let what expires on the way do so. */
void world_advance(u64 ns);

/* Routing tables; false: it was refused. */
bool world_route(const struct kvm_irq_routing_entry *entry, u32 nr);

/* Registers of a local APIC as a guest sees them in xAPIC mode. */
u32 apic_get(int nr, u32 reg);
void apic_set(int nr, u32 reg, u32 val);
/* Software-enabled, with spurious vector 0xff. */
void apic_enable(int nr);
/* Offer, or take, the highest vector that priorities allow; -1: there is none. */
int apic_offer(int nr);
int apic_take(int nr);
/* The highest vector in IRR; -1: none. */
int apic_waits(int nr);
/* Is @vector waiting, in service? */
bool apic_irr(int nr, u8 vector);
bool apic_isr(int nr, u8 vector);

/* Ports of the PIC and the PIT, registers of the IOAPIC. */
static inline u8 pic_read(struct fonda_pic *pic, u16 port)
{
	u8 val = 0;

	pic_access(pic, port, &val, false);
	return val;
}

static inline void pic_write(struct fonda_pic *pic, u16 port, u8 val)
{
	pic_access(pic, port, &val, true);
}

static inline u8 pit_read(struct fonda_pit *pit, u16 port)
{
	u8 val = 0;

	pit_access(pit, port, &val, false);
	return val;
}

static inline void pit_write(struct fonda_pit *pit, u16 port, u8 val)
{
	pit_access(pit, port, &val, true);
}

static inline u32 ioapic_read(struct fonda_irqchip *chip, u32 offset)
{
	u32 val = 0;

	ioapic_access(chip, offset, sizeof(val), &val, false);
	return val;
}

static inline void ioapic_write(struct fonda_irqchip *chip, u32 offset, u32 val)
{
	ioapic_access(chip, offset, sizeof(val), &val, true);
}

#endif
