// SPDX-License-Identifier: GPL-2.0-only
/*
 * The port and MMIO buses: who in the kernel answers an address, else it is
 * user space's. Also the coalesced ring, which keeps writes that user space
 * need not see at once.
 */
#include <linux/eventfd.h>

#include "backend.h"

/* -- the buses -------------------------------------------------------------- */

/* Where the last search for such an address ended: guests use few, and those often. */
static __always_inline u16 *hint_of(struct fonda_io_bus *bus, gpa_t addr)
{
	return &bus->hint[(addr >> 2 ^ addr >> 12) % ARRAY_SIZE(bus->hint)];
}

static __always_inline bool begins_last(const struct fonda_io_range *range, gpa_t addr)
{
	return range[0].base <= addr && range[1].base > addr;
}

static __always_inline bool signals(const struct fonda_io_dev *dev, gpa_t addr, int len,
				    const void *data, bool write)
{
	if (!dev->eventfd || !write || addr != dev->base || (dev->len && dev->len != len))
		return false;
	if (dev->wildcard)
		return true;
	return dev->datamatch == (len == 8 ? *(u64 *)data : len == 4 ? *(u32 *)data :
				  len == 2 ? *(u16 *)data : *(u8 *)data);
}

/*
 * Offered to all that cover the access, from the highest base downwards: ranges
 * may overlap, and ioeventfds at one address differ in their data.
 */
static noinline int access_devices(struct fonda_vcpu *vcpu, struct fonda_io_bus *bus, gpa_t addr,
				   int len, void *data, bool write)
{
	u32 low = READ_ONCE(*hint_of(bus, addr)), high, mid;
	const struct fonda_io_range *range;
	struct fonda_io_dev *dev;

	if (!begins_last(&bus->range[low], addr)) {
		for (low = 0, high = bus->nr; high - low > 1;) {
			mid = (low + high) / 2;
			if (bus->range[mid].base <= addr)
				low = mid;
			else
				high = mid;
		}
		WRITE_ONCE(*hint_of(bus, addr), low);
	}
	for (range = &bus->range[low]; range->reach > addr; range--) {
		dev = range->dev;
		if (signals(dev, addr, len, data, write)) {
			eventfd_signal(dev->eventfd);
			return 0;
		}
		if (dev->access && dev->base + dev->len >= addr + len &&
		    !dev->access(vcpu, dev, addr, len, data, write))
			return 0;
	}
	return -EOPNOTSUPP;
}

int fonda_io_access(struct fonda_vcpu *vcpu, struct fonda_io_bus *bus, gpa_t addr, int len,
		    void *data, bool write)
{
	const struct fonda_io_range *range;

	if (unlikely(!bus))
		return -EOPNOTSUPP;
	range = &bus->range[READ_ONCE(*hint_of(bus, addr))];
	if (likely(begins_last(range, addr))) {
		/* What guests do most: what nobody here serves, and what signals. */
		if (range->reach <= addr)
			return -EOPNOTSUPP;
		if (signals(range->dev, addr, len, data, write)) {
			eventfd_signal(range->dev->eventfd);
			return 0;
		}
	}
	return access_devices(vcpu, bus, addr, len, data, write);
}

struct fonda_io_bus *fonda_io_bus(struct fonda_vm *vm, bool pio)
{
	enum fonda_bus nr = pio ? FONDA_BUS_PIO : FONDA_BUS_MMIO;

	return rcu_dereference_protected(vm->buses[nr], lockdep_is_held(&vm->slots_lock));
}

int fonda_io_replace(struct fonda_vm *vm, struct fonda_io_dev *add, struct fonda_io_dev *remove)
{
	bool pio = (add ?: remove)->pio;
	struct fonda_io_bus *old = fonda_io_bus(vm, pio), *new;
	struct fonda_io_dev *dev;
	gpa_t reach = 0;
	int i = 1, n = old ? old->nr : 1;

	if (add && n > FONDA_MAX_BUS_DEVS)
		return -ENOSPC;
	/* Removal cannot fail: an array of ranges is small enough to wait for. */
	new = kvzalloc(struct_size(new, range, n + 2),
		       GFP_KERNEL_ACCOUNT | (remove ? __GFP_NOFAIL : 0));
	if (!new)
		return -ENOMEM;
	new->nr = 1;
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
		new->range[new->nr++] = (struct fonda_io_range){
			.base = dev->base, .reach = reach, .dev = dev };
	}
	new->range[new->nr].base = ~0ull;
	rcu_assign_pointer(vm->buses[pio ? FONDA_BUS_PIO : FONDA_BUS_MMIO], new);
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
	const struct fonda_io_bus *bus;
	struct fonda_io_dev *zone;
	int i;

	if (req->pio > 1)
		return -EINVAL;
	guard(mutex)(&vm->slots_lock);
	bus = fonda_io_bus(vm, req->pio);
	/* From the end: those below stay where they are. */
	for (i = bus ? bus->nr : 1; --i;) {
		zone = fonda_io_bus(vm, req->pio)->range[i].dev;
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
		for (i = 1; bus && i < bus->nr; i++)
			if (bus->range[i].dev->access == coalesced_access)
				kfree(bus->range[i].dev);
		kvfree(bus);
	}
	free_page((unsigned long)vm->ring);
}
