// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What kmod/irqchip.c is to the interrupt controllers in the kernel, this is to
 * them in unit tests: see irq_world.h.
 */
#include <assert.h>
#include <string.h>

#include "irq_world.h"

struct world world;

static int index_of(struct fonda_lapic *apic)
{
	return apic - world.apic;
}

u64 fonda_time_ns(void)
{
	return world.now_ns;
}

u64 fonda_timer_min_ns(void)
{
	return world.min_period_ns;
}

struct fonda_lapic *fonda_lapic_by_index(struct fonda_irqchip *chip, int index)
{
	return index < world.nr_apics ? &world.apic[index] : NULL;
}

void lapic_timer_start(struct fonda_lapic *apic, u64 expires_ns)
{
	apic->timer = (struct hrtimer){ .expires = expires_ns, .active = true };
}

bool lapic_timer_cancel(struct fonda_lapic *apic)
{
	bool was_active = apic->timer.active;

	apic->timer.active = false;
	return was_active;
}

u64 lapic_deadline_ns(struct fonda_lapic *apic, u64 guest_tsc)
{
	u64 ns = guest_tsc + world.tsc_epoch_ns;

	return ns > world.now_ns ? ns : 0;
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

bool lapic_has_directed_eoi(struct fonda_lapic *apic)
{
	return world.directed_eoi;
}

void lapic_eoi_broadcast(struct fonda_lapic *apic, u8 vector)
{
	u32 pins, notify;

	world.eois++;
	world.last_eoi = vector;
	if (world.chip.mode != FONDA_IRQCHIP_KERNEL)
		return;
	pins = ioapic_eoi_pins(&world.ioapic, vector);
	for (notify = pins & world.ioapic.notify; notify; notify &= notify - 1) {
		world.notified |= notify & -notify;
		if (world.on_notify)
			world.on_notify(__builtin_ctz(notify));
	}
	ioapic_eoi(&world.ioapic, pins);
}

void fonda_pic_output(struct fonda_irqchip *chip)
{
	world.pic_outputs++;
}

void pit_timer_start(struct fonda_pit *pit, u64 expires_ns)
{
	pit->timer = (struct hrtimer){ .expires = expires_ns, .active = true };
}

void pit_timer_cancel(struct fonda_pit *pit)
{
	pit->timer.active = false;
}

static void expire(struct fonda_lapic *apic)
{
	apic->timer.active = false;
	if (lapic_timer_expired(apic)) {
		apic->timer.expires += apic->period_ns;
		apic->timer.active = true;
	}
}

static void expire_pit(struct fonda_pit *pit)
{
	pit->timer.active = false;
	if (!pit->timer_on)
		return;
	if (pit->period_ns) {
		pit->timer.expires += pit->period_ns;
		pit->timer.active = true;
	} else {
		pit->timer_on = false;
	}
	pit_tick(pit, 1);
}

void world_advance(u64 ns)
{
	u64 end = world.now_ns + ns;

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
		if (world.pit.timer.active &&
		    (!first || world.pit.timer.expires < first->expires)) {
			first = &world.pit.timer;
			nr = -1;
		}
		if (!first || first->expires > end)
			break;
		if (first->expires > world.now_ns)
			world.now_ns = first->expires;
		if (nr >= 0)
			expire(&world.apic[nr]);
		else
			expire_pit(&world.pit);
	}
	world.now_ns = end;
}

void world_init_mode(int nr, int mode)
{
	static u32 regs[WORLD_APICS][1024];
	int i;

	assert(nr <= WORLD_APICS);
	memset(&world, 0, sizeof(world));
	memset(regs, 0, sizeof(regs));
	world.now_ns = 1000000000;
	world.min_period_ns = 1;
	world.chip.mode = mode;
	world.chip.pic = &world.pic;
	world.chip.ioapic = &world.ioapic;
	pic_init(&world.pic);
	ioapic_init(&world.ioapic, &world.chip);
	pit_init(&world.pit, &world.chip, 0);

	world.nr_apics = nr;
	for (i = 0; i < nr; i++) {
		struct fonda_lapic *apic = &world.apic[i];

		assert(!fonda_apic_map_reserve(&world.chip, i));
		apic->regs = regs[i];
		lapic_init(apic, &world.chip, i, i == 0);
		lapic_reset(apic, false);
		lapic_publish(apic);
	}
	fonda_routes_publish(&world.chip, mode == FONDA_IRQCHIP_KERNEL ?
					  fonda_routes_default() : fonda_routes_alloc(0));
	memset(world.rechecks, 0, sizeof(world.rechecks));
}

void world_init(int nr)
{
	world_init_mode(nr, FONDA_IRQCHIP_KERNEL);
}

void world_fini(void)
{
	free(world.chip.routes);
	free(world.chip.map);
	world.chip.routes = NULL;
	world.chip.map = NULL;
}

bool world_route(const struct kvm_irq_routing_entry *entry, u32 nr)
{
	struct fonda_routes *routes = fonda_routes_alloc(nr);

	assert(routes);
	memcpy(fonda_routes_entries(routes), entry, nr * sizeof(*entry));
	if (fonda_routes_build(&world.chip, routes)) {
		free(routes);
		return false;
	}
	fonda_routes_publish(&world.chip, routes);
	return true;
}

u32 apic_get(int nr, u32 reg)
{
	u32 val;

	lapic_read(&world.apic[nr], reg, sizeof(val), &val);
	return val;
}

void apic_set(int nr, u32 reg, u32 val)
{
	lapic_write(&world.apic[nr], reg, sizeof(val), &val);
}

void apic_enable(int nr)
{
	apic_set(nr, APIC_SVR, 0x1ff);
}

int apic_take(int nr)
{
	bool tpr_blocked;
	int vector = lapic_offer(&world.apic[nr], &tpr_blocked);

	if (vector < 0)
		return -1;
	lapic_take(&world.apic[nr], vector);
	return vector;
}

int apic_waits(int nr)
{
	int vector;

	for (vector = 255; vector >= 0 && !apic_irr(nr, vector); vector--)
		;
	return vector;
}

static bool vector_bit(int nr, u32 reg, u8 vector)
{
	return world.apic[nr].regs[(reg + (vector / 32) * 16) / 4] >> vector % 32 & 1;
}

bool apic_irr(int nr, u8 vector)
{
	return vector_bit(nr, APIC_IRR, vector);
}

bool apic_isr(int nr, u8 vector)
{
	return vector_bit(nr, APIC_ISR, vector);
}
