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
	struct fonda_pic pic;
	struct fonda_ioapic ioapic;
	struct fonda_pit pit;
	struct fonda_lapic apic[WORLD_APICS];
	int nr_apics;

	u64 now_ns;
	/* The guest's TSC counts nanoseconds from here. */
	u64 tsc_epoch_ns;
	u64 min_period_ns;
	bool directed_eoi;

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
/* Take the highest vector that priorities allow; -1: there is none. */
int apic_take(int nr);
/* The highest vector in IRR; -1: none. */
int apic_waits(int nr);
/* Is @vector waiting, in service? */
bool apic_irr(int nr, u8 vector);
bool apic_isr(int nr, u8 vector);

#define APIC_ID		0x20
#define APIC_VERSION	0x30
#define APIC_TPR	0x80
#define APIC_PPR	0xa0
#define APIC_EOI	0xb0
#define APIC_LDR	0xd0
#define APIC_DFR	0xe0
#define APIC_SVR	0xf0
#define APIC_ISR	0x100
#define APIC_TMR	0x180
#define APIC_IRR	0x200
#define APIC_ESR	0x280
#define APIC_ICR	0x300
#define APIC_ICR2	0x310
#define APIC_LVTT	0x320
#define APIC_THERMAL	0x330
#define APIC_PMC	0x340
#define APIC_LINT0	0x350
#define APIC_LINT1	0x360
#define APIC_LVTERR	0x370
#define APIC_TMICT	0x380
#define APIC_TMCCT	0x390
#define APIC_TDCR	0x3e0

#endif
