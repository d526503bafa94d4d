// SPDX-License-Identifier: GPL-2.0-only
/*
 * The port and MMIO buses: who in the kernel answers an address, else it is
 * user space's. Also the coalesced ring, which keeps writes that user space
 * need not see at once.
 */
#include <linux/kvm.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "backend.h"

/* -- the buses -------------------------------------------------------------- */

static struct fonda_io_bus *bus_alloc(int nr, gfp_t flags)
{
	struct fonda_io_bus *bus;

	bus = kvzalloc(struct_size(bus, range, nr), flags);
	if (bus)
		bus->nr = nr;
	return bus;
}

int fonda_io_init(struct fonda_vm *vm)
{
	int i;

	vm->ring = (void *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	if (!vm->ring)
		return -ENOMEM;
	for (i = 0; i < FONDA_NR_BUSES; i++) {
		struct fonda_io_bus *bus = bus_alloc(0, GFP_KERNEL_ACCOUNT);

		if (!bus) {
			fonda_io_fini(vm);
			return -ENOMEM;
		}
		rcu_assign_pointer(vm->buses[i], bus);
	}
	return 0;
}

/* Index of the first device whose base is at or above @addr. */
static int bus_search(const struct fonda_io_bus *bus, gpa_t addr)
{
	int low = 0, high = bus->nr;

	while (low < high) {
		int mid = (low + high) / 2;

		if (bus->range[mid].base < addr)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/*
 * Offered to all that cover the access, from the highest base downwards: ranges
 * may overlap, and ioeventfds at one address differ in their data.
 */
int fonda_io_access(struct fonda_vcpu *vcpu, enum fonda_bus nr, gpa_t addr, int len,
		    void *data, bool write)
{
	const struct fonda_io_bus *bus = srcu_dereference(vcpu->vm->buses[nr], &vcpu->vm->srcu);
	struct fonda_io_dev *dev;
	int i;

	if (nr == FONDA_BUS_MMIO && (addr & PAGE_MASK) == lapic_gpa(&vcpu->lapic))
		return lapic_access(&vcpu->lapic, addr & ~PAGE_MASK, len, data, write);
	for (i = bus_search(bus, addr + 1) - 1; i >= 0 && bus->range[i].reach > addr; i--) {
		dev = bus->range[i].dev;
		if (dev->base + (dev->len ?: len) < addr + len)
			continue;
		if (!dev->access(vcpu, dev, addr, len, data, write))
			return 0;
	}
	return -EOPNOTSUPP;
}

static void bus_free(struct rcu_head *head)
{
	kvfree(container_of(head, struct fonda_io_bus, rcu));
}

static struct fonda_io_bus *bus_locked(struct fonda_vm *vm, enum fonda_bus nr)
{
	return rcu_dereference_protected(vm->buses[nr], lockdep_is_held(&vm->slots_lock));
}

static void replace_bus(struct fonda_vm *vm, enum fonda_bus nr, struct fonda_io_bus *old,
			struct fonda_io_bus *new)
{
	gpa_t reach = 0;
	int i;

	for (i = 0; i < new->nr; i++) {
		const struct fonda_io_dev *dev = new->range[i].dev;

		reach = max_t(gpa_t, reach, dev->base + max(dev->len, 1u));
		new->range[i].base = dev->base;
		new->range[i].reach = reach;
	}
	rcu_assign_pointer(vm->buses[nr], new);
	call_srcu(&vm->srcu, &old->rcu, bus_free);
}

int fonda_io_register(struct fonda_vm *vm, enum fonda_bus nr, struct fonda_io_dev *dev)
{
	struct fonda_io_bus *old = bus_locked(vm, nr), *new;
	int at;

	if (old->nr == FONDA_MAX_BUS_DEVS)
		return -ENOSPC;
	new = bus_alloc(old->nr + 1, GFP_KERNEL_ACCOUNT);
	if (!new)
		return -ENOMEM;
	at = bus_search(old, dev->base);
	memcpy(new->range, old->range, at * sizeof(*new->range));
	new->range[at].dev = dev;
	memcpy(new->range + at + 1, old->range + at, (old->nr - at) * sizeof(*new->range));
	replace_bus(vm, nr, old, new);
	return 0;
}

/* It cannot fail: an array of ranges is small enough to wait for. */
void fonda_io_unregister(struct fonda_vm *vm, enum fonda_bus nr, struct fonda_io_dev *dev)
{
	struct fonda_io_bus *old = bus_locked(vm, nr), *new;
	int at;

	for (at = 0; at < old->nr && old->range[at].dev != dev; at++)
		;
	if (at == old->nr)
		return;
	new = bus_alloc(old->nr - 1, GFP_KERNEL_ACCOUNT | __GFP_NOFAIL);
	memcpy(new->range, old->range, at * sizeof(*new->range));
	memcpy(new->range + at, old->range + at + 1, (new->nr - at) * sizeof(*new->range));
	replace_bus(vm, nr, old, new);
	fonda_vm_synchronize(vm);
}

/* -- the coalesced ring ----------------------------------------------------- */

struct coalesced_zone {
	struct list_head link;		/* vm->coalesced_zones */
	struct fonda_io_dev dev;
	enum fonda_bus bus;
};

#define RING_ENTRIES \
	((PAGE_SIZE - sizeof(struct kvm_coalesced_mmio_ring)) / sizeof(struct kvm_coalesced_mmio))

static int coalesced_access(struct fonda_vcpu *vcpu, struct fonda_io_dev *dev, gpa_t addr, int len,
			    void *data, bool write)
{
	struct coalesced_zone *zone = container_of(dev, struct coalesced_zone, dev);
	struct kvm_coalesced_mmio_ring *ring = vcpu->vm->ring;
	struct kvm_coalesced_mmio *entry;
	int ret = -EOPNOTSUPP;
	u32 last, next;

	if (!write)
		return ret;
	spin_lock(&vcpu->vm->ring_lock);
	/* The page is user space's to scribble on. */
	last = READ_ONCE(ring->last);
	next = (last + 1) % RING_ENTRIES;
	/* Full: the exit makes user space drain it. */
	if (dev->len && last < RING_ENTRIES && next != READ_ONCE(ring->first)) {
		entry = &ring->coalesced_mmio[last];
		entry->phys_addr = addr;
		entry->len = len;
		entry->pio = zone->bus == FONDA_BUS_PIO;
		memset(entry->data, 0, sizeof(entry->data));
		memcpy(entry->data, data, len);
		/* The entry before the index that announces it. */
		smp_store_release(&ring->last, next);
		ret = 0;
	}
	spin_unlock(&vcpu->vm->ring_lock);
	return ret;
}

long fonda_vm_register_coalesced_mmio(struct fonda_vm *vm, void *arg)
{
	const struct kvm_coalesced_mmio_zone *req = arg;
	struct coalesced_zone *zone;
	int ret;

	if (req->pio > 1)
		return -EINVAL;
	zone = kzalloc(sizeof(*zone), GFP_KERNEL_ACCOUNT);
	if (!zone)
		return -ENOMEM;
	zone->dev = (struct fonda_io_dev){
		.access = coalesced_access, .base = req->addr, .len = req->size };
	zone->bus = req->pio ? FONDA_BUS_PIO : FONDA_BUS_MMIO;
	mutex_lock(&vm->slots_lock);
	ret = fonda_io_register(vm, zone->bus, &zone->dev);
	if (!ret)
		list_add_tail(&zone->link, &vm->coalesced_zones);
	mutex_unlock(&vm->slots_lock);
	if (ret)
		kfree(zone);
	return ret;
}

/* All zones that cover the range; none is no error. */
long fonda_vm_unregister_coalesced_mmio(struct fonda_vm *vm, void *arg)
{
	const struct kvm_coalesced_mmio_zone *req = arg;
	enum fonda_bus bus = req->pio ? FONDA_BUS_PIO : FONDA_BUS_MMIO;
	struct coalesced_zone *zone, *next;

	if (req->pio > 1)
		return -EINVAL;
	mutex_lock(&vm->slots_lock);
	list_for_each_entry_safe(zone, next, &vm->coalesced_zones, link) {
		if (zone->bus != bus || zone->dev.base > req->addr ||
		    zone->dev.base + zone->dev.len < req->addr + req->size)
			continue;
		list_del(&zone->link);
		fonda_io_unregister(vm, bus, &zone->dev);
		kfree(zone);
	}
	mutex_unlock(&vm->slots_lock);
	return 0;
}

void fonda_io_fini(struct fonda_vm *vm)
{
	struct coalesced_zone *zone, *next;
	int i;

	list_for_each_entry_safe(zone, next, &vm->coalesced_zones, link)
		kfree(zone);
	for (i = 0; i < FONDA_NR_BUSES; i++)
		kvfree(rcu_access_pointer(vm->buses[i]));
	free_page((unsigned long)vm->ring);
}
