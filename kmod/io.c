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

	bus = kvzalloc(struct_size(bus, dev, nr), flags);
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

		if (bus->dev[mid]->base < addr)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static struct fonda_io_bus *bus_of(struct fonda_vm *vm, enum fonda_bus nr)
{
	return srcu_dereference(vm->buses[nr], &vm->srcu);
}

/*
 * The next that may answer, downwards from *@i: a device at @addr exactly
 * (ioeventfds that differ in their data), or a range from below that reaches
 * over it. Ranges do not overlap, but point devices may stand inside one.
 */
static struct fonda_io_dev *next_device(const struct fonda_io_bus *bus, int *i, gpa_t addr, int len)
{
	while (--*i >= 0) {
		struct fonda_io_dev *dev = bus->dev[*i];

		if (dev->base == addr || dev->base + dev->len >= addr + len)
			return dev;
		if (dev->base + 256 < addr)
			break;
	}
	return NULL;
}

int fonda_io_read(struct fonda_vcpu *vcpu, enum fonda_bus nr, gpa_t addr, int len, void *data)
{
	struct fonda_io_bus *bus = bus_of(vcpu->vm, nr);
	int i = bus_search(bus, addr + 1);
	struct fonda_io_dev *dev;

	if (nr == FONDA_BUS_MMIO && (addr & PAGE_MASK) == lapic_gpa(&vcpu->lapic))
		return lapic_read(&vcpu->lapic, addr & ~PAGE_MASK, len, data);
	while ((dev = next_device(bus, &i, addr, len)))
		if (dev->ops->read && dev->base + dev->len >= addr + len &&
		    !dev->ops->read(vcpu, dev, addr, len, data))
			return 0;
	return -EOPNOTSUPP;
}

int fonda_io_write(struct fonda_vcpu *vcpu, enum fonda_bus nr, gpa_t addr, int len,
		   const void *data)
{
	struct fonda_io_bus *bus = bus_of(vcpu->vm, nr);
	int i = bus_search(bus, addr + 1);
	struct fonda_io_dev *dev;

	if (nr == FONDA_BUS_MMIO && (addr & PAGE_MASK) == lapic_gpa(&vcpu->lapic))
		return lapic_write(&vcpu->lapic, addr & ~PAGE_MASK, len, data);
	while ((dev = next_device(bus, &i, addr, len)))
		if (dev->ops->write && !dev->ops->write(vcpu, dev, addr, len, data))
			return 0;
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
	memcpy(new->dev, old->dev, at * sizeof(*new->dev));
	new->dev[at] = dev;
	memcpy(new->dev + at + 1, old->dev + at, (old->nr - at) * sizeof(*new->dev));
	rcu_assign_pointer(vm->buses[nr], new);
	call_srcu(&vm->srcu, &old->rcu, bus_free);
	return 0;
}

/* It cannot fail: an array of pointers is small enough to wait for. */
void fonda_io_unregister(struct fonda_vm *vm, enum fonda_bus nr, struct fonda_io_dev *dev)
{
	struct fonda_io_bus *old = bus_locked(vm, nr), *new;
	int at;

	for (at = 0; at < old->nr && old->dev[at] != dev; at++)
		;
	if (at == old->nr)
		return;
	new = bus_alloc(old->nr - 1, GFP_KERNEL_ACCOUNT | __GFP_NOFAIL);
	memcpy(new->dev, old->dev, at * sizeof(*new->dev));
	memcpy(new->dev + at, old->dev + at + 1, (new->nr - at) * sizeof(*new->dev));
	rcu_assign_pointer(vm->buses[nr], new);
	call_srcu(&vm->srcu, &old->rcu, bus_free);
	fonda_vm_synchronize(vm);
}

/* -- ports ------------------------------------------------------------------ */

static void set_io_result(struct fonda_vcpu *vcpu, int len, const void *data)
{
	/* A 32-bit result clears the upper half, as any 32-bit register write. */
	if (len == 4)
		vcpu->regs[FONDA_RAX] = *(const u32 *)data;
	else
		memcpy(&vcpu->regs[FONDA_RAX], data, len);
}

int fonda_pio(struct fonda_vcpu *vcpu, u16 port, int len, bool in, int insn_len)
{
	struct kvm_run *run = vcpu->run;
	u32 data = vcpu->regs[FONDA_RAX];

	if (in) {
		if (!fonda_io_read(vcpu, FONDA_BUS_PIO, port, len, &data)) {
			set_io_result(vcpu, len, &data);
			return fonda_skip_insn(vcpu, insn_len);
		}
	} else {
		if (!fonda_io_write(vcpu, FONDA_BUS_PIO, port, len, &data) ||
		    fonda_coalesced_write(vcpu, true, port, len, &data))
			return fonda_skip_insn(vcpu, insn_len);
		memcpy(vcpu->pio_data, &data, len);
	}
	run->exit_reason = KVM_EXIT_IO;
	run->io.direction = in ? KVM_EXIT_IO_IN : KVM_EXIT_IO_OUT;
	run->io.size = len;
	run->io.port = port;
	run->io.count = 1;
	run->io.data_offset = FONDA_PIO_PAGE * PAGE_SIZE;
	vcpu->pio = (struct fonda_pio){
		.pending = true, .in = in, .len = len, .insn_len = insn_len, .rip = vcpu->rip };
	return FONDA_EXIT_USER;
}

/*
 * User space has answered. If it moved RIP meanwhile (a reset, a debugger), the
 * instruction is not there to be finished any more.
 */
int fonda_complete_pio(struct fonda_vcpu *vcpu)
{
	struct fonda_pio *pio = &vcpu->pio;

	pio->pending = false;
	if (vcpu->rip != pio->rip)
		return FONDA_RESUME_GUEST;
	if (pio->in)
		set_io_result(vcpu, pio->len, vcpu->pio_data);
	return fonda_skip_insn(vcpu, pio->insn_len);
}

/* -- the coalesced ring ----------------------------------------------------- */

struct fonda_coalesced_zone {
	struct list_head list;
	gpa_t addr;
	u32 size;
	bool pio;
};

#define RING_ENTRIES \
	((PAGE_SIZE - sizeof(struct kvm_coalesced_mmio_ring)) / sizeof(struct kvm_coalesced_mmio))

bool fonda_coalesced_write(struct fonda_vcpu *vcpu, bool pio, gpa_t addr, int len, const void *data)
{
	struct kvm_coalesced_mmio_ring *ring = vcpu->vm->ring;
	struct fonda_coalesced_zone *zone;
	struct kvm_coalesced_mmio *entry;
	bool found = false;
	u32 last, next;

	list_for_each_entry_srcu(zone, &vcpu->vm->coalesced_zones, list,
				 srcu_read_lock_held(&vcpu->vm->srcu)) {
		if (zone->pio == pio && addr >= zone->addr && len <= zone->size &&
		    addr - zone->addr <= zone->size - len) {
			found = true;
			break;
		}
	}
	if (!found)
		return false;

	spin_lock(&vcpu->vm->ring_lock);
	/* The page is user space's to scribble on. */
	last = READ_ONCE(ring->last);
	next = (last + 1) % RING_ENTRIES;
	/* Full: the exit makes user space drain it. */
	if (last >= RING_ENTRIES || next == READ_ONCE(ring->first)) {
		spin_unlock(&vcpu->vm->ring_lock);
		return false;
	}
	entry = &ring->coalesced_mmio[last];
	entry->phys_addr = addr;
	entry->len = len;
	entry->pio = pio;
	memset(entry->data, 0, sizeof(entry->data));
	memcpy(entry->data, data, len);
	/* The entry before the index that announces it. */
	smp_store_release(&ring->last, next);
	spin_unlock(&vcpu->vm->ring_lock);
	return true;
}

long fonda_vm_register_coalesced_mmio(struct fonda_vm *vm, void *arg)
{
	const struct kvm_coalesced_mmio_zone *req = arg;
	struct fonda_coalesced_zone *zone;

	if (req->pio > 1)
		return -EINVAL;
	zone = kzalloc(sizeof(*zone), GFP_KERNEL_ACCOUNT);
	if (!zone)
		return -ENOMEM;
	zone->addr = req->addr;
	zone->size = req->size;
	zone->pio = req->pio;
	mutex_lock(&vm->slots_lock);
	list_add_tail_rcu(&zone->list, &vm->coalesced_zones);
	mutex_unlock(&vm->slots_lock);
	return 0;
}

/* All zones within the range; none is no error. */
long fonda_vm_unregister_coalesced_mmio(struct fonda_vm *vm, void *arg)
{
	const struct kvm_coalesced_mmio_zone *req = arg;
	struct fonda_coalesced_zone *zone, *next;

	if (req->pio > 1)
		return -EINVAL;
	mutex_lock(&vm->slots_lock);
	list_for_each_entry_safe(zone, next, &vm->coalesced_zones, list) {
		if (zone->pio != req->pio || zone->addr < req->addr ||
		    zone->addr + zone->size > req->addr + req->size)
			continue;
		list_del_rcu(&zone->list);
		fonda_vm_synchronize(vm);
		kfree(zone);
	}
	mutex_unlock(&vm->slots_lock);
	return 0;
}

void fonda_io_fini(struct fonda_vm *vm)
{
	struct fonda_coalesced_zone *zone, *next;
	int i;

	list_for_each_entry_safe(zone, next, &vm->coalesced_zones, list)
		kfree(zone);
	for (i = 0; i < FONDA_NR_BUSES; i++)
		kvfree(rcu_access_pointer(vm->buses[i]));
	free_page((unsigned long)vm->ring);
}
