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
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/overflow.h>
#include <linux/slab.h>

#include "irq.h"

/* -- messages to local APICs ------------------------------------------------ */

void fonda_apic_map_update(struct fonda_lapic *apic)
{
	struct fonda_lapic **by_id = apic->chip->by_id;
	int id = apic->published && apic->enabled ? lapic_id(apic) : -1;
	unsigned long flags;

	raw_spin_lock_irqsave(&apic->chip->lock, flags);
	if (apic->map_id >= 0 && by_id[apic->map_id] == apic)
		WRITE_ONCE(by_id[apic->map_id], NULL);
	/* Once shared, an id stays so: a search is slower, never wrong. */
	if (id >= 0)
		WRITE_ONCE(by_id[id], by_id[id] ? FONDA_APIC_SHARED : apic);
	apic->map_id = id;
	raw_spin_unlock_irqrestore(&apic->chip->lock, flags);
}

/*
 * The slow way: ask every local APIC. Lowest priority is arbitrated by the
 * vector, so that one interrupt keeps going to one processor: of those that may
 * take it, the one whose index is nearest.
 */
static noinline int deliver_search(struct fonda_irqchip *chip, u32 dest, u32 icr)
{
	bool lowest = (icr & APIC_DM_FIXED_MASK) == APIC_DM_LOWEST;
	struct fonda_lapic *apic, *chosen = NULL;
	u32 i, distance, nearest = ~0u;
	int r, ret = -1;

	for (i = 0; (apic = fonda_lapic_by_index(chip, i)); i++) {
		if (!lapic_matches(apic, dest, icr & APIC_DEST_LOGICAL))
			continue;
		distance = i ^ (u8)icr;
		if (lowest && apic->sw_enabled && distance < nearest) {
			nearest = distance;
			chosen = apic;
		}
		r = lowest ? -1 : lapic_accept(apic, icr);
		if (r >= 0)
			ret = max(ret, 0) + r;
	}
	return chosen ? lapic_accept(chosen, icr) : ret;
}

int fonda_irq_deliver(struct fonda_irqchip *chip, u32 dest, u32 icr)
{
	struct fonda_lapic *apic = FONDA_APIC_SHARED;

	/* 255 is a broadcast to those in xAPIC mode. */
	if (likely(!(icr & APIC_DEST_LOGICAL) && dest < FONDA_MAX_VCPU_ID && dest != 0xff))
		apic = READ_ONCE(chip->by_id[array_index_nospec(dest, FONDA_MAX_VCPU_ID)]);
	if (unlikely(apic == FONDA_APIC_SHARED))
		return deliver_search(chip, dest, icr);
	return likely(apic) ? lapic_accept(apic, icr) : -1;
}

/* Bits of "Message Address Register Format". */
#define MSI_LOGICAL	BIT(2)
#define MSI_HINT	BIT(3)

int fonda_msi_deliver(struct fonda_irqchip *chip, u64 address, u32 data)
{
	u32 icr = data & (0xff | APIC_DM_FIXED_MASK | APIC_INT_LEVELTRIG);
	u32 dest = (address >> 12) & 0xff;

	if (chip->x2apic_format)
		dest |= (address >> 32) & 0xffffff00;
	if (address & MSI_LOGICAL) {
		icr |= APIC_DEST_LOGICAL;
		/* The redirection hint: any one of those that the logical id names. */
		if (address & MSI_HINT && !(icr & APIC_DM_FIXED_MASK))
			icr |= APIC_DM_LOWEST;
	}
	return fonda_irq_deliver(chip, fonda_device_dest(chip, dest), icr);
}

/* -- the routing table ------------------------------------------------------ */

struct fonda_routes *fonda_routes_alloc(u32 nr)
{
	u32 buckets = roundup_pow_of_two(max_t(u32, nr, 16));
	struct fonda_routes *routes;

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

static int check_entry(const struct fonda_irqchip *chip, struct fonda_routes *routes,
		       struct kvm_irq_routing_entry *e)
{
	/* The PIC's pins come first: that is how KVM_IRQCHIP_* are numbered. */
	u32 irqchip = e->u.irqchip.irqchip, pin = e->u.irqchip.pin;

	if (e->gsi >= FONDA_MAX_GSI)
		return -EINVAL;
	if (e->type == KVM_IRQ_ROUTING_MSI)
		return e->flags & ~KVM_MSI_VALID_DEVID ? -EINVAL :
		       fonda_msi_check(chip, (u64)e->u.msi.address_hi << 32);
	if (e->type != KVM_IRQ_ROUTING_IRQCHIP || e->flags || irqchip > KVM_IRQCHIP_IOAPIC ||
	    pin >= (irqchip == KVM_IRQCHIP_IOAPIC ? FONDA_IOAPIC_PINS : 8) ||
	    chip->mode == FONDA_IRQCHIP_SPLIT)
		return -EINVAL;
	e->u.irqchip.pin = irqchip * 8 + pin;
	routes->gsi[e->u.irqchip.pin] = e->gsi + 1;
	return 0;
}

/* The next entry for @gsi in the chain behind @e, or NULL. */
static __always_inline struct kvm_irq_routing_entry *
next_route(struct kvm_irq_routing_entry *e, u32 gsi)
{
	while (e->pad) {
		e -= e->pad;
		if (e->gsi == gsi)
			return e;
	}
	return NULL;
}

/*
 * A GSI is one message, or at most one pin of each chip. Chains are short: a
 * bucket holds at most 3 * FONDA_MAX_GSI / buckets entries.
 */
static int build(const struct fonda_irqchip *chip, struct fonda_routes *routes)
{
	u32 i;

	for (i = 0; i < routes->nr; i++) {
		struct kvm_irq_routing_entry *e = &routes->entry[i], *other = e;
		u16 *bucket = &routes->bucket[e->gsi & routes->mask];
		int ret = check_entry(chip, routes, e);

		if (ret)
			return ret;
		e->pad = *bucket ? i + 1 - *bucket : 0;
		*bucket = i + 1;
		while ((other = next_route(other, e->gsi)))
			if (other->type != KVM_IRQ_ROUTING_IRQCHIP ||
			    e->type != KVM_IRQ_ROUTING_IRQCHIP ||
			    other->u.irqchip.irqchip == e->u.irqchip.irqchip)
				return -EINVAL;
	}
	return 0;
}

int fonda_routes_set(struct fonda_irqchip *chip, struct fonda_routes *routes)
{
	int ret = routes ? build(chip, routes) : -ENOMEM;

	if (ret) {
		kvfree(routes);
		return ret;
	}
	routes = unrcu_pointer(xchg(&chip->routes, RCU_INITIALIZER(routes)));
	if (routes)
		kvfree_rcu(routes, rcu);
	return 0;
}

struct fonda_routes *fonda_routes_default(void)
{
	struct fonda_routes *routes = fonda_routes_alloc(FONDA_NR_PINS);
	u32 i;

	for (i = 0; routes && i < FONDA_NR_PINS; i++) {
		u32 irqchip = min_t(u32, i / 8, KVM_IRQCHIP_IOAPIC);

		routes->entry[i] = (struct kvm_irq_routing_entry){
			.type = KVM_IRQ_ROUTING_IRQCHIP,
			.gsi = i < FONDA_PIC_PINS ? i : i - FONDA_PIC_PINS,
			.u.irqchip = { .irqchip = irqchip, .pin = i - irqchip * 8 },
		};
	}
	return routes;
}

int fonda_routes_gsi(struct fonda_irqchip *chip, unsigned int pin)
{
	guard(preempt)();
	return rcu_dereference_sched(chip->routes)->gsi[pin] - 1;
}

/* -- raising ---------------------------------------------------------------- */

/* The first entry for @gsi, or NULL. */
static __always_inline struct kvm_irq_routing_entry *
first_route(struct fonda_irqchip *chip, u32 gsi)
{
	struct fonda_routes *routes = rcu_dereference_sched(chip->routes);
	u32 index = routes->bucket[gsi & routes->mask];
	struct kvm_irq_routing_entry *e;

	if (!index)
		return NULL;
	e = &routes->entry[index - 1];
	return e->gsi == gsi ? e : next_route(e, gsi);
}

/* @source lets a pin go or holds it. */
static int set_pin(struct fonda_irqchip *chip, int source, unsigned int pin, bool high)
{
	u8 old = chip->lines[pin], new;

	new = high ? old | BIT(source) : old & ~BIT(source);
	WRITE_ONCE(chip->lines[pin], new);
	if (!old == !new)	/* somebody else holds it */
		return !high;
	if (pin >= FONDA_PIC_PINS)
		return ioapic_set_line(chip, pin - FONDA_PIC_PINS, high);
	return pic_set_line(&chip->pic, pin, high);
}

/* Device models repeat themselves: without the lock, would it change anything? */
static __always_inline bool is_change(struct fonda_irqchip *chip, int source,
				      struct kvm_irq_routing_entry *e, enum fonda_line line)
{
	for (; e; e = next_route(e, e->gsi))
		if ((READ_ONCE(chip->lines[e->u.irqchip.pin]) >> source & 1) != line)
			return true;
	return false;
}

static __always_inline bool is_message(const struct kvm_irq_routing_entry *e)
{
	return e && e->type == KVM_IRQ_ROUTING_MSI;
}

/* The GSI whose first entry is @e; chip->lock is held, but for a message. */
static __always_inline int drive(struct fonda_irqchip *chip, int source,
				 struct kvm_irq_routing_entry *e, enum fonda_line line)
{
	int ret = -1, r;

	if (is_message(e))
		return line == FONDA_LINE_LOW ? -1 :
		       fonda_msi_deliver(chip, (u64)e->u.msi.address_hi << 32 |
					       e->u.msi.address_lo, e->u.msi.data);
	for (; e; e = next_route(e, e->gsi)) {
		r = set_pin(chip, source, e->u.irqchip.pin, line != FONDA_LINE_LOW);
		if (r >= 0)
			ret = max(ret, 0) + r;
		if (line == FONDA_LINE_PULSE)
			set_pin(chip, source, e->u.irqchip.pin, false);
	}
	return ret;
}

int fonda_gsi_set_locked(struct fonda_irqchip *chip, int source, u32 gsi, enum fonda_line line)
{
	return drive(chip, source, first_route(chip, gsi), line);
}

static noinline int drive_pins(struct fonda_irqchip *chip, int source,
			       struct kvm_irq_routing_entry *e, enum fonda_line line)
{
	unsigned long flags;
	int ret;

	if (!is_change(chip, source, e, line))
		return line == FONDA_LINE_LOW;
	raw_spin_lock_irqsave(&chip->lock, flags);
	ret = drive(chip, source, e, line);
	raw_spin_unlock_irqrestore(&chip->lock, flags);
	return ret;
}

int fonda_gsi_set(struct fonda_irqchip *chip, int source, u32 gsi, enum fonda_line line)
{
	struct kvm_irq_routing_entry *e;

	guard(preempt)();
	e = first_route(chip, gsi);
	/* Most are messages, which need no lock. */
	return !e || is_message(e) ? drive(chip, source, e, line) :
				     drive_pins(chip, source, e, line);
}
