// SPDX-License-Identifier: GPL-2.0-only
/*
 * Where interrupts go. A GSI leads through the table of user space to pins of
 * the PIC and the IOAPIC, or becomes a message; a message names local APICs by
 * id or by logical id.
 *
 * The routing table is replaced as a whole and read under RCU. User space
 * replaces it at every change of one MSI, so that building it is a single
 * allocation and one pass: the entries stay where user space's were copied to,
 * and hang by their unused word in hash chains by GSI.
 *
 * Readers disable preemption, which is what RCU needs and costs little.
 */
#include <linux/bits.h>
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/nospec.h>
#include <linux/overflow.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "irq.h"

struct fonda_routes {
	struct rcu_head rcu;
	u32 nr;
	u32 mask;		/* buckets - 1 */
	u16 *bucket;		/* behind the entries: index + 1; 0: empty */
	u16 gsi[FONDA_NR_PINS];	/* GSI + 1 of each pin, the PIC's first; 0: none */
	/*
	 * pad: next in the chain, as bucket. u.irqchip.pin: counted from the
	 * PIC's first one on, as chip->lines.
	 */
	struct kvm_irq_routing_entry entry[];
};

/* -- messages to local APICs ------------------------------------------------ */

int fonda_apic_map_reserve(struct fonda_irqchip *chip, u32 id)
{
	struct fonda_apic_map *old, *map;
	u32 nr = round_up(max_t(u32, id + 1, 256), 64);

	old = rcu_dereference_protected(chip->map, true);
	if (old && id < old->nr)
		return 0;
	map = kvzalloc(struct_size(map, by_id, nr), GFP_KERNEL_ACCOUNT);
	if (!map)
		return -ENOMEM;
	map->nr = nr;

	/* chip->lock keeps fonda_apic_map_move() out while there are two. */
	raw_spin_lock_irq(&chip->lock);
	if (old)
		memcpy(map->by_id, old->by_id, old->nr * sizeof(*map->by_id));
	rcu_assign_pointer(chip->map, map);
	raw_spin_unlock_irq(&chip->lock);
	if (old)
		kvfree_rcu(old, rcu);
	return 0;
}

void fonda_apic_map_move(struct fonda_irqchip *chip, struct fonda_lapic *apic,
			 int old_id, int new_id)
{
	struct fonda_apic_map *map;
	unsigned long flags;

	raw_spin_lock_irqsave(&chip->lock, flags);
	map = rcu_dereference_protected(chip->map, true);
	if (old_id >= 0 && old_id < map->nr && map->by_id[old_id] == apic)
		WRITE_ONCE(map->by_id[old_id], NULL);
	/* Once shared, an id stays so: a search is slower, never wrong. */
	if (new_id >= 0 && new_id < map->nr)
		WRITE_ONCE(map->by_id[new_id],
			   map->by_id[new_id] && map->by_id[new_id] != apic ?
			   FONDA_APIC_SHARED : apic);
	raw_spin_unlock_irqrestore(&chip->lock, flags);
}

/* Does @dest name @apic, a broadcast included? */
static bool is_target(struct fonda_irqchip *chip, const struct fonda_irq_msg *msg,
		      struct fonda_lapic *from, struct fonda_lapic *apic)
{
	/*
	 * Devices know 8 bits of an id. To them 255 means everybody, unless user
	 * space has said that it may be the id of an x2APIC.
	 */
	if (!from && msg->dest == 0xff && apic->x2apic && !chip->x2apic_no_broadcast_quirk)
		return true;
	return lapic_matches(apic, msg->dest, msg->logical);
}

/*
 * The slow way: ask every local APIC. Lowest priority is arbitrated by the
 * vector, so that one interrupt keeps going to one processor.
 */
static noinline int deliver_search(struct fonda_irqchip *chip,
				   const struct fonda_irq_msg *msg,
				   struct fonda_lapic *from)
{
	struct fonda_lapic *apic;
	int i, nr = 0, chosen = -1, ret = -1;

	if (msg->mode == FONDA_DM_LOWEST) {
		for (i = 0; (apic = fonda_lapic_by_index(chip, i)); i++)
			nr += apic->sw_enabled && is_target(chip, msg, from, apic);
		if (!nr)
			return -1;
		chosen = msg->vector % nr;
	}

	for (i = 0; (apic = fonda_lapic_by_index(chip, i)); i++) {
		int r;

		if (!is_target(chip, msg, from, apic))
			continue;
		if (msg->mode == FONDA_DM_LOWEST && (!apic->sw_enabled || chosen--))
			continue;
		r = lapic_accept(apic, msg);
		if (r >= 0)
			ret = max(ret, 0) + r;
	}
	return ret;
}

/*
 * Whom @dest means as an id: one, FONDA_APIC_SHARED: see for yourself, or NULL.
 * 255 is a broadcast, but from x2APIC-mode senders.
 */
static __always_inline struct fonda_lapic *lookup(struct fonda_irqchip *chip, u32 dest)
{
	struct fonda_apic_map *map = rcu_dereference_sched(chip->map);

	if (unlikely(!map))
		return NULL;
	if (dest >= map->nr || dest == 0xff)
		return FONDA_APIC_SHARED;
	return READ_ONCE(map->by_id[array_index_nospec(dest, map->nr)]);
}

int fonda_irq_deliver(struct fonda_irqchip *chip, const struct fonda_irq_msg *msg,
		      struct fonda_lapic *from)
{
	struct fonda_lapic *apic = FONDA_APIC_SHARED;
	int ret = -1;

	rcu_read_lock_sched();
	if (!msg->logical)
		apic = lookup(chip, msg->dest);
	if (apic == FONDA_APIC_SHARED)
		ret = deliver_search(chip, msg, from);
	else if (apic)
		ret = lapic_accept(apic, msg);
	rcu_read_unlock_sched();
	return ret;
}

/* Bits of "Message Address Register Format" and of the data register. */
#define MSI_LOGICAL	BIT(2)
#define MSI_HINT	BIT(3)
#define MSI_MODE(data)	(((data) >> 8) & 7)
#define MSI_LEVEL	BIT(15)

static noinline int search_fixed(struct fonda_irqchip *chip, u32 dest, u8 vector, bool level)
{
	const struct fonda_irq_msg msg = {
		.dest = dest, .vector = vector, .mode = FONDA_DM_FIXED, .level = level,
	};

	return deliver_search(chip, &msg, NULL);
}

static __always_inline int deliver_fixed(struct fonda_irqchip *chip, u32 dest, u8 vector,
					 bool level)
{
	struct fonda_lapic *apic;
	int ret = -1;

	rcu_read_lock_sched();
	apic = lookup(chip, dest);
	if (unlikely(apic == FONDA_APIC_SHARED))
		ret = search_fixed(chip, dest, vector, level);
	else if (likely(apic))
		ret = lapic_accept_fixed(apic, vector, level);
	rcu_read_unlock_sched();
	return ret;
}

int fonda_irq_deliver_fixed(struct fonda_irqchip *chip, u32 dest, u8 vector, bool level)
{
	return deliver_fixed(chip, dest, vector, level);
}

static noinline int deliver_other_msi(struct fonda_irqchip *chip, u32 dest, u64 address,
				      u32 data)
{
	struct fonda_irq_msg msg = {
		.dest = dest,
		.vector = data,
		.mode = MSI_MODE(data),
		.logical = address & MSI_LOGICAL,
		.level = data & MSI_LEVEL,
	};

	/* The redirection hint: any one of those that the logical id names. */
	if (address & MSI_HINT && msg.logical && msg.mode == FONDA_DM_FIXED)
		msg.mode = FONDA_DM_LOWEST;
	return fonda_irq_deliver(chip, &msg, NULL);
}

static __always_inline int deliver_msi(struct fonda_irqchip *chip, u64 address, u32 data)
{
	u32 dest = (address >> 12) & 0xff;

	if (chip->x2apic_format)
		dest |= (address >> 32) & 0xffffff00;
	if (unlikely(address & MSI_LOGICAL || MSI_MODE(data) != FONDA_DM_FIXED))
		return deliver_other_msi(chip, dest, address, data);
	return deliver_fixed(chip, dest, data, data & MSI_LEVEL);
}

int fonda_msi_deliver(struct fonda_irqchip *chip, u64 address, u32 data)
{
	return deliver_msi(chip, address, data);
}

/* -- the routing table ------------------------------------------------------ */

struct fonda_routes *fonda_routes_alloc(u32 nr)
{
	struct fonda_routes *routes;
	u32 buckets = roundup_pow_of_two(max_t(u32, nr, 16));

	routes = kvmalloc(struct_size(routes, entry, nr) + buckets * sizeof(u16),
			  GFP_KERNEL_ACCOUNT);
	if (!routes)
		return NULL;
	routes->nr = nr;
	routes->mask = buckets - 1;
	routes->bucket = (u16 *)&routes->entry[nr];
	memset(routes->gsi, 0, sizeof(routes->gsi));
	memset(routes->bucket, 0, buckets * sizeof(u16));
	return routes;
}

struct kvm_irq_routing_entry *fonda_routes_entries(struct fonda_routes *routes)
{
	return routes->entry;
}

/* Index of a pin in routes->gsi, or -1: there is no such pin. */
static int pin_index(u32 irqchip, u32 pin)
{
	switch (irqchip) {
	case KVM_IRQCHIP_PIC_MASTER:
		return pin < 8 ? pin : -1;
	case KVM_IRQCHIP_PIC_SLAVE:
		return pin < 8 ? 8 + pin : -1;
	case KVM_IRQCHIP_IOAPIC:
		return pin < FONDA_IOAPIC_PINS ? FONDA_PIC_PINS + pin : -1;
	default:
		return -1;
	}
}

static int check_entry(const struct fonda_irqchip *chip, struct fonda_routes *routes,
		       struct kvm_irq_routing_entry *e)
{
	int pin;

	if (e->gsi >= FONDA_MAX_GSI)
		return -EINVAL;
	switch (e->type) {
	case KVM_IRQ_ROUTING_MSI:
		if (e->flags & ~KVM_MSI_VALID_DEVID)
			return -EINVAL;
		return fonda_msi_check(chip, (u64)e->u.msi.address_hi << 32);
	case KVM_IRQ_ROUTING_IRQCHIP:
		pin = pin_index(e->u.irqchip.irqchip, e->u.irqchip.pin);
		if (e->flags || pin < 0 || chip->mode != FONDA_IRQCHIP_KERNEL)
			return -EINVAL;
		routes->gsi[pin] = e->gsi + 1;
		e->u.irqchip.pin = pin;
		return 0;
	default:
		return -EINVAL;
	}
}

/*
 * A GSI is one message, or at most one pin of each chip. Chains are short: a
 * bucket holds at most 3 * FONDA_MAX_GSI / buckets entries.
 */
int fonda_routes_build(const struct fonda_irqchip *chip, struct fonda_routes *routes)
{
	u32 i;

	for (i = 0; i < routes->nr; i++) {
		struct kvm_irq_routing_entry *e = &routes->entry[i], *other;
		u16 *bucket = &routes->bucket[e->gsi & routes->mask], next;
		int ret = check_entry(chip, routes, e);

		if (ret)
			return ret;
		for (next = *bucket; next; next = other->pad) {
			other = &routes->entry[next - 1];
			if (other->gsi == e->gsi &&
			    (other->type != KVM_IRQ_ROUTING_IRQCHIP ||
			     e->type != KVM_IRQ_ROUTING_IRQCHIP ||
			     other->u.irqchip.irqchip == e->u.irqchip.irqchip))
				return -EINVAL;
		}
		e->pad = *bucket;
		*bucket = i + 1;
	}
	return 0;
}

struct fonda_routes *fonda_routes_default(void)
{
	/* The chips are about to exist. */
	const struct fonda_irqchip chip = { .mode = FONDA_IRQCHIP_KERNEL };
	struct fonda_routes *routes = fonda_routes_alloc(FONDA_NR_PINS);
	u32 i;

	if (!routes)
		return NULL;
	memset(routes->entry, 0, FONDA_NR_PINS * sizeof(*routes->entry));
	for (i = 0; i < FONDA_NR_PINS; i++) {
		struct kvm_irq_routing_entry *e = &routes->entry[i];

		e->type = KVM_IRQ_ROUTING_IRQCHIP;
		if (i < FONDA_PIC_PINS) {
			e->gsi = i;
			e->u.irqchip.irqchip = i / 8;	/* master 0, slave 1 */
			e->u.irqchip.pin = i % 8;
		} else {
			e->gsi = i - FONDA_PIC_PINS;
			e->u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
			e->u.irqchip.pin = e->gsi;
		}
	}
	/* Cannot fail: the table is right. */
	fonda_routes_build(&chip, routes);
	return routes;
}

void fonda_routes_publish(struct fonda_irqchip *chip, struct fonda_routes *routes)
{
	struct fonda_routes *old;

	old = rcu_replace_pointer(chip->routes, routes, lockdep_is_held(&chip->route_lock));
	if (old)
		kvfree_rcu(old, rcu);
}

int fonda_routes_gsi(struct fonda_routes *routes, int irqchip, unsigned int pin)
{
	return routes->gsi[pin_index(irqchip, pin)] - 1;
}

/* -- raising ---------------------------------------------------------------- */

/* The first entry for @gsi in the chain from @index on, or NULL. */
static __always_inline struct kvm_irq_routing_entry *
route_of(struct fonda_routes *routes, u32 index, u32 gsi)
{
	while (index && routes->entry[index - 1].gsi != gsi)
		index = routes->entry[index - 1].pad;
	return index ? &routes->entry[index - 1] : NULL;
}

static __always_inline struct kvm_irq_routing_entry *
first_route(struct fonda_routes *routes, u32 gsi)
{
	return route_of(routes, routes->bucket[gsi & routes->mask], gsi);
}

/* @source lets the pin of @e go or holds it; chip->lock is held. */
static __always_inline int set_pin(struct fonda_irqchip *chip, int source,
				   const struct kvm_irq_routing_entry *e, bool high)
{
	unsigned int pin = e->u.irqchip.pin;
	u8 old = chip->lines[pin], new;

	new = high ? old | BIT(source) : old & ~BIT(source);
	WRITE_ONCE(chip->lines[pin], new);
	if (!old == !new)	/* somebody else holds it */
		return !high;
	if (pin >= FONDA_PIC_PINS)
		return ioapic_set_line(chip->ioapic, pin - FONDA_PIC_PINS, high);
	return pic_set_line(chip->pic, pin, high);
}

/* All pins of a GSI whose first entry is @e. As fonda_gsi_set(). */
static __always_inline int set_pins(struct fonda_irqchip *chip, struct fonda_routes *routes,
				    int source, const struct kvm_irq_routing_entry *e, bool high)
{
	bool had_output = chip->pic->output;
	int ret = -1;

	lockdep_assert_held(&chip->lock);
	do {
		int r = set_pin(chip, source, e, high);

		if (r >= 0)
			ret = max(ret, 0) + r;
		e = route_of(routes, e->pad, e->gsi);
	} while (e);
	if (chip->pic->output && !had_output)
		fonda_pic_output(chip);
	return ret;
}

static __always_inline int send_msi(struct fonda_irqchip *chip,
				    const struct kvm_irq_routing_entry *e)
{
	return deliver_msi(chip, (u64)e->u.msi.address_hi << 32 | e->u.msi.address_lo,
			   e->u.msi.data);
}

/* Device models repeat themselves: without the lock, would it change anything? */
static __always_inline bool is_change(struct fonda_irqchip *chip, struct fonda_routes *routes,
				      int source, const struct kvm_irq_routing_entry *e,
				      bool high)
{
	for (; e; e = route_of(routes, e->pad, e->gsi))
		if ((READ_ONCE(chip->lines[e->u.irqchip.pin]) >> source & 1) != high)
			return true;
	return false;
}

int fonda_gsi_set(struct fonda_irqchip *chip, int source, u32 gsi, bool high)
{
	struct kvm_irq_routing_entry *e;
	struct fonda_routes *routes;
	unsigned long flags;
	int ret = -1;

	rcu_read_lock_sched();
	routes = rcu_dereference_sched(chip->routes);
	e = first_route(routes, gsi);
	if (!e)
		goto out;
	if (e->type == KVM_IRQ_ROUTING_MSI) {
		if (high)
			ret = send_msi(chip, e);
	} else if (is_change(chip, routes, source, e, high)) {
		raw_spin_lock_irqsave(&chip->lock, flags);
		ret = set_pins(chip, routes, source, e, high);
		raw_spin_unlock_irqrestore(&chip->lock, flags);
	} else {
		ret = !high;
	}
out:
	rcu_read_unlock_sched();
	return ret;
}

int fonda_gsi_pulse_locked(struct fonda_irqchip *chip, int source, u32 gsi)
{
	struct kvm_irq_routing_entry *e;
	struct fonda_routes *routes;
	int ret = -1;

	rcu_read_lock_sched();
	routes = rcu_dereference_sched(chip->routes);
	e = first_route(routes, gsi);
	if (e && e->type == KVM_IRQ_ROUTING_MSI) {
		ret = send_msi(chip, e);
	} else if (e) {
		ret = set_pins(chip, routes, source, e, true);
		set_pins(chip, routes, source, e, false);
	}
	rcu_read_unlock_sched();
	return ret;
}

static noinline int pulse_pins(struct fonda_irqchip *chip, int source, u32 gsi)
{
	unsigned long flags;
	int ret;

	raw_spin_lock_irqsave(&chip->lock, flags);
	ret = fonda_gsi_pulse_locked(chip, source, gsi);
	raw_spin_unlock_irqrestore(&chip->lock, flags);
	return ret;
}

int fonda_gsi_pulse(struct fonda_irqchip *chip, int source, u32 gsi)
{
	struct kvm_irq_routing_entry *e;
	int ret;

	/* A message needs no lock, and most of these are messages. */
	rcu_read_lock_sched();
	e = first_route(rcu_dereference_sched(chip->routes), gsi);
	if (likely(e && e->type == KVM_IRQ_ROUTING_MSI))
		ret = send_msi(chip, e);
	else
		ret = pulse_pins(chip, source, gsi);
	rcu_read_unlock_sched();
	return ret;
}
