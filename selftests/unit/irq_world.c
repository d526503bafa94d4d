// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What kmod/irqchip.c is to the interrupt controllers in the kernel, this is to
 * them in unit tests: see irq_world.h.
 */
#include <assert.h>
#include <string.h>
#include <linux/bitops.h>

#include "irq_world.h"

struct world world;
u64 unit_now_ns;

static int index_of(struct fonda_lapic *apic)
{
	return apic - world.apic;
}

u64 fonda_timer_min_ns(void)
{
	return world.min_period_ns;
}

struct fonda_lapic *fonda_lapic_by_index(struct fonda_irqchip *chip, int index)
{
	return index < world.nr_apics ? &world.apic[index] : NULL;
}

u64 lapic_deadline_ns(struct fonda_lapic *apic, u64 guest_tsc)
{
	u64 ns = guest_tsc + world.tsc_epoch_ns;

	return ns > unit_now_ns ? ns : 0;
}

void lapic_raise(struct fonda_lapic *apic)
{
	world.raises[index_of(apic)]++;
}

void lapic_recheck(struct fonda_lapic *apic)
{
	world.rechecks[index_of(apic)]++;
}

void lapic_send_event(struct fonda_lapic *apic)
{
	world.events[index_of(apic)]++;
}

void lapic_send_nmi(struct fonda_lapic *apic)
{
	world.nmis[index_of(apic)]++;
}

void lapic_eoi_broadcast(struct fonda_lapic *apic, u8 vector)
{
	u32 pins, left;

	world.eois++;
	world.last_eoi = vector;
	if (world.chip.mode != FONDA_IRQCHIP_KERNEL)
		return;
	pins = ioapic_eoi_pins(&world.chip, vector);
	for (left = pins; left; left &= left - 1) {
		world.notified |= left & -left;
		if (world.on_notify)
			world.on_notify(__builtin_ctz(left));
	}
	ioapic_eoi(&world.chip, pins);
}

void fonda_pic_output(struct fonda_irqchip *chip)
{
	world.pic_outputs++;
}

static void expire(struct hrtimer *timer, enum hrtimer_restart (*fn)(struct hrtimer *timer))
{
	timer->active = false;
	if (fn(timer) == HRTIMER_RESTART)
		timer->active = true;
}

void world_advance(u64 ns)
{
	u64 end = unit_now_ns + ns;

	for (;;) {
		struct hrtimer *first = NULL;
		int i, nr = -1;

		for (i = 0; i < world.nr_apics; i++) {
			struct hrtimer *timer = &world.apic[i].timer;

			if (timer->active && (!first || timer->expires < first->expires)) {
				first = timer;
				nr = i;
			}
		}
		if (world.chip.pit.timer.active &&
		    (!first || world.chip.pit.timer.expires < first->expires)) {
			first = &world.chip.pit.timer;
			nr = -1;
		}
		if (!first || first->expires > end)
			break;
		if (first->expires > unit_now_ns)
			unit_now_ns = first->expires;
		if (nr >= 0)
			expire(first, lapic_timer_fn);
		else
			expire(first, pit_timer_fn);
	}
	unit_now_ns = end;
}

void world_init_mode(int nr, int mode)
{
	int i;

	assert(nr <= WORLD_APICS);
	memset(&world, 0, sizeof(world));
	unit_now_ns = 1000000000;
	world.min_period_ns = 1;
	world.chip.mode = mode;
	world.chip.timer_ns = 1;
	pic_init(&world.chip.pic);
	ioapic_init(&world.chip);
	pit_init(&world.chip.pit);
	assert(!fonda_routes_set(&world.chip, mode == FONDA_IRQCHIP_KERNEL ?
					      fonda_routes_default() : fonda_routes_alloc(0)));

	world.nr_apics = nr;
	for (i = 0; i < nr; i++) {
		struct fonda_lapic *apic = &world.apic[i];

		lapic_init(apic, &world.chip, i, i == 0);
		lapic_reset(apic, false, false);
		apic->published = true;
		fonda_apic_map_update(apic);
	}
	memset(world.rechecks, 0, sizeof(world.rechecks));
}

void world_init(int nr)
{
	world_init_mode(nr, FONDA_IRQCHIP_KERNEL);
}

void world_fini(void)
{
	free(world.chip.routes);
	world.chip.routes = NULL;
}

bool world_route(const struct kvm_irq_routing_entry *entry, u32 nr)
{
	struct fonda_routes *routes = fonda_routes_alloc(nr);

	assert(routes);
	memcpy(routes->entry, entry, nr * sizeof(*entry));
	return !fonda_routes_set(&world.chip, routes);
}

u32 apic_get(int nr, u32 reg)
{
	u32 val;

	lapic_access(&world.apic[nr], reg, sizeof(val), &val, false);
	return val;
}

void apic_set(int nr, u32 reg, u32 val)
{
	lapic_access(&world.apic[nr], reg, sizeof(val), &val, true);
}

void apic_enable(int nr)
{
	apic_set(nr, APIC_SPIV, 0x1ff);
}

int apic_offer(int nr)
{
	int vector = lapic_peek(&world.apic[nr]);

	if (vector < 0)
		return -1;
	clear_bit(vector, world.apic[nr].irr);
	return vector;
}

int apic_take(int nr)
{
	int vector = apic_offer(nr);

	if (vector < 0)
		return -1;
	lapic_settle(&world.apic[nr], vector, true);
	return vector;
}

int apic_waits(int nr)
{
	int vector;

	for (vector = 255; vector >= 0 && !apic_irr(nr, vector); vector--)
		;
	return vector;
}

bool apic_irr(int nr, u8 vector)
{
	return test_bit(vector, world.apic[nr].irr);
}

bool apic_isr(int nr, u8 vector)
{
	return test_bit(vector, world.apic[nr].isr);
}
