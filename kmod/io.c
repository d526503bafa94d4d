// SPDX-License-Identifier: GPL-2.0-only
/*
 * The port and MMIO buses: who in the kernel answers an address, else it is
 * user space's. Also the coalesced ring, which keeps writes that user space
 * need not see at once.
 */
#include "backend.h"

/* -- the buses -------------------------------------------------------------- */

/*
 * Offered to all that cover the access, from the highest base downwards: ranges
 * may overlap, and ioeventfds at one address differ in their data.
 */
int fonda_io_access(struct fonda_vcpu *vcpu, enum fonda_bus nr, gpa_t addr, int len,
		    void *data, bool write)
{
	const struct fonda_io_bus *bus = srcu_dereference(vcpu->vm->buses[nr], &vcpu->vm->srcu);
	u32 low = 0, high = bus ? bus->nr : 0, mid;
	struct fonda_io_dev *dev;

	if (nr == FONDA_BUS_MMIO && (addr & PAGE_MASK) == lapic_gpa(&vcpu->lapic))
		return lapic_access(&vcpu->lapic, addr & ~PAGE_MASK, len, data, write);
	while (low < high) {
		mid = (low + high) / 2;
		if (bus->range[mid].base <= addr)
			low = mid + 1;
		else
			high = mid;
	}
	for (; low && bus->range[low - 1].reach > addr; low--) {
		dev = bus->range[low - 1].dev;
		if (dev->base + (dev->len ?: len) < addr + len)
			continue;
		if (!dev->access(vcpu, dev, addr, len, data, write))
			return 0;
	}
	return -EOPNOTSUPP;
}

static struct fonda_io_bus *bus_of(struct fonda_vm *vm, enum fonda_bus nr)
{
	return rcu_dereference_protected(vm->buses[nr], lockdep_is_held(&vm->slots_lock));
}

int fonda_io_replace(struct fonda_vm *vm, struct fonda_io_dev *add, struct fonda_io_dev *remove)
{
	enum fonda_bus nr = (add ?: remove)->pio ? FONDA_BUS_PIO : FONDA_BUS_MMIO;
	struct fonda_io_bus *old = bus_of(vm, nr), *new;
	struct fonda_io_dev *dev;
	gpa_t reach = 0;
	int i = 0, n = old ? old->nr : 0;

	if (add && n == FONDA_MAX_BUS_DEVS)
		return -ENOSPC;
	/* Removal cannot fail: an array of ranges is small enough to wait for. */
	new = kvzalloc(struct_size(new, range, n + 1),
		       GFP_KERNEL_ACCOUNT | (remove ? __GFP_NOFAIL : 0));
	if (!new)
		return -ENOMEM;
	while (i < n || add) {
		if (add && (i == n || old->range[i].base >= add->base)) {
			dev = add;
			add = NULL;
		} else {
			dev = old->range[i++].dev;
		}
		if (dev == remove)
			continue;
		reach = max_t(gpa_t, reach, dev->base + max(dev->len, 1u));
		new->range[new->nr].base = dev->base;
		new->range[new->nr].reach = reach;
		new->range[new->nr++].dev = dev;
	}
	rcu_assign_pointer(vm->buses[nr], new);
	fonda_vm_synchronize(vm);
	kvfree(old);
	return 0;
}

/* -- the coalesced ring ----------------------------------------------------- */

#define RING_ENTRIES \
	((PAGE_SIZE - sizeof(struct kvm_coalesced_mmio_ring)) / sizeof(struct kvm_coalesced_mmio))

static int coalesced_access(struct fonda_vcpu *vcpu, struct fonda_io_dev *dev, gpa_t addr, int len,
			    void *data, bool write)
{
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
		entry->pio = dev->pio;
		memset(entry->data, 0, sizeof(entry->data));
		memcpy(entry->data, data, len);
		/* The entry before the index that announces it. */
		smp_store_release(&ring->last, next);
		ret = 0;
	}
	spin_unlock(&vcpu->vm->ring_lock);
	return ret;
}

long fonda_vm_register_coalesced_mmio(struct fonda_vm *vm, void *arg, unsigned int cmd)
{
	const struct kvm_coalesced_mmio_zone *req = arg;
	struct fonda_io_dev *zone;
	int ret;

	if (req->pio > 1)
		return -EINVAL;
	zone = kzalloc(sizeof(*zone), GFP_KERNEL_ACCOUNT);
	if (!zone)
		return -ENOMEM;
	*zone = (struct fonda_io_dev){ .access = coalesced_access, .base = req->addr,
				       .len = req->size, .pio = req->pio };
	guard(mutex)(&vm->slots_lock);
	ret = fonda_io_register(vm, zone);
	if (ret)
		kfree(zone);
	return ret;
}

/* All zones that cover the range; none is no error. */
long fonda_vm_unregister_coalesced_mmio(struct fonda_vm *vm, void *arg, unsigned int cmd)
{
	const struct kvm_coalesced_mmio_zone *req = arg;
	enum fonda_bus nr = req->pio ? FONDA_BUS_PIO : FONDA_BUS_MMIO;
	const struct fonda_io_bus *bus;
	struct fonda_io_dev *zone;
	int i;

	if (req->pio > 1)
		return -EINVAL;
	guard(mutex)(&vm->slots_lock);
	bus = bus_of(vm, nr);
	/* From the end: those below stay where they are. */
	for (i = bus ? bus->nr : 0; --i >= 0;) {
		zone = bus_of(vm, nr)->range[i].dev;
		if (zone->access != coalesced_access || zone->base > req->addr ||
		    zone->base + zone->len < req->addr + req->size)
			continue;
		fonda_io_unregister(vm, zone);
		kfree(zone);
	}
	return 0;
}

void fonda_io_fini(struct fonda_vm *vm)
{
	struct fonda_io_bus *bus;
	int nr, i;

	for (nr = 0; nr < FONDA_NR_BUSES; nr++) {
		bus = rcu_dereference_protected(vm->buses[nr], true);
		for (i = 0; bus && i < bus->nr; i++)
			if (bus->range[i].dev->access == coalesced_access)
				kfree(bus->range[i].dev);
		kvfree(bus);
	}
	free_page((unsigned long)vm->ring);
}
