// SPDX-License-Identifier: GPL-2.0-only
/*
 * User memory: the ioctl that tells the VM which of the VMM's memory the guest
 * sees where, and the kernel's own reads and writes of guest memory, which go
 * through the VMM's mapping of it.
 */
#include <linux/mm.h>
#include <linux/nospec.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "fonda.h"

/* A page that comes and goes under memory pressure is tried so often. */
#define MAX_FAULTS	16

static int check_region(const struct kvm_userspace_memory_region *r)
{
	if (r->slot >= FONDA_MEM_SLOTS ||
	    r->flags & ~(KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY) ||
	    !PAGE_ALIGNED(r->memory_size | r->guest_phys_addr | r->userspace_addr) ||
	    r->userspace_addr != untagged_addr(r->userspace_addr) ||
	    !access_ok((void __user *)(hva_t)r->userspace_addr, r->memory_size))
		return -EINVAL;
	/* Size 0 deletes a slot; the address does not matter then. */
	if (r->memory_size && (r->memory_size >> PAGE_SHIFT > FONDA_SLOT_MAX_PAGES ||
			       r->guest_phys_addr > (1ULL << FONDA_GPA_BITS) - r->memory_size))
		return -EINVAL;
	return 0;
}

/* The slot that @r describes; it keeps the log of the one that it replaces. */
static struct fonda_memslot *make_slot(struct fonda_vm *vm, const struct fonda_memslot *old,
				       const struct kvm_userspace_memory_region *r)
{
	struct fonda_memslot *slot = kzalloc(sizeof(*slot), GFP_KERNEL_ACCOUNT);

	if (!slot)
		return NULL;
	slot->base_gfn = r->guest_phys_addr >> PAGE_SHIFT;
	slot->npages = r->memory_size >> PAGE_SHIFT;
	slot->hva = r->userspace_addr;
	slot->id = r->slot;
	slot->flags = r->flags;
	if (!(r->flags & KVM_MEM_LOG_DIRTY_PAGES))
		return slot;
	if (old && old->flags & KVM_MEM_LOG_DIRTY_PAGES) {
		slot->dirty_bitmap = old->dirty_bitmap;
	} else if (fonda_dirty_alloc(vm, slot)) {
		kfree(slot);
		return NULL;
	}
	return slot;
}

/*
 * Put @new in the place of @old; one of them may be NULL. When it returns nobody
 * uses @old any more, neither the guest nor the kernel.
 */
static int replace_slot(struct fonda_vm *vm, struct fonda_memslot *old, struct fonda_memslot *new)
{
	struct fonda_memslots *slots = rcu_dereference_protected(vm->slots, true), *copy;

	copy = fonda_slots_copy(slots, old, new);
	if (!copy)
		return -ENOMEM;
	if (old && (!new || new->base_gfn != old->base_gfn))
		fonda_mmu_remove_slot(vm, old);
	/* Faults that looked at the old ones begin anew. */
	write_lock(&vm->mmu.lock);
	rcu_assign_pointer(vm->slots, copy);
	vm->mmu.seq++;
	write_unlock(&vm->mmu.lock);
	fonda_vm_synchronize(vm);
	kvfree(slots);
	return 0;
}

static int set_region_locked(struct fonda_vm *vm, const struct kvm_userspace_memory_region *r)
{
	struct fonda_memslots *slots = rcu_dereference_protected(vm->slots, true);
	struct fonda_memslot *old = fonda_slots_by_id(slots, r->slot), *new = NULL;
	gfn_t gfn = r->guest_phys_addr >> PAGE_SHIFT;
	u64 npages = r->memory_size >> PAGE_SHIFT;
	bool stays = old && old->base_gfn == gfn;
	u32 old_flags = old ? old->flags : 0;
	int ret;

	if (!npages && !old)
		return -EINVAL;
	if (npages) {
		if (old && (old->hva != r->userspace_addr || old->npages != npages ||
			    (old_flags ^ r->flags) & KVM_MEM_READONLY))
			return -EINVAL;
		if (stays && old_flags == r->flags)
			return 0;
		if (!stays && fonda_slots_overlap(slots, r->slot, gfn, npages))
			return -EEXIST;
		new = make_slot(vm, old, r);
		if (!new)
			return -ENOMEM;
	}
	ret = replace_slot(vm, old, new);
	if (ret) {
		fonda_slot_free(new, old);
		return ret;
	}
	if (new && new->flags & ~old_flags & KVM_MEM_LOG_DIRTY_PAGES)
		fonda_dirty_start(vm, new);
	/* Logging has ended: large leaves come back by faults. */
	else if (new && stays && old_flags & ~new->flags & KVM_MEM_LOG_DIRTY_PAGES)
		fonda_mmu_remove_slot(vm, old);
	fonda_slot_free(old, new);
	return 0;
}

/*
 * KVM_SET_USER_MEMORY_REGION, and _REGION2, whose structure begins alike and
 * whose additions only count with a flag that is refused.
 */
long fonda_vm_set_user_memory_region(struct fonda_vm *vm, void *arg)
{
	int ret;

	ret = check_region(arg);
	if (ret)
		return ret;
	mutex_lock(&vm->slots_lock);
	ret = set_region_locked(vm, arg);
	mutex_unlock(&vm->slots_lock);
	return ret;
}

struct fonda_memslot *fonda_vcpu_slot(struct fonda_vcpu *vcpu, gfn_t gfn)
{
	struct fonda_memslots *slots = rcu_dereference_check(vcpu->vm->slots, true);
	struct fonda_mmu_cache *cache = &vcpu->mmu_cache;
	struct fonda_memslot *slot = cache->slot;

	if (likely(cache->generation == slots->generation && gfn - slot->base_gfn < slot->npages))
		return slot;
	slot = fonda_slots_find(slots, gfn);
	if (slot) {
		cache->generation = slots->generation;
		cache->slot = slot;
	}
	return slot;
}

/* The VMM's address of @gpa, also under a mispredicted bounds check. */
static void __user *user_address(const struct fonda_memslot *slot, gpa_t gpa)
{
	gfn_t page = array_index_nospec((gpa >> PAGE_SHIFT) - slot->base_gfn, slot->npages);

	return (void __user *)(slot->hva + (page << PAGE_SHIFT) + offset_in_page(gpa));
}

/* What is to be done with guest memory within one page. */
struct access {
	enum { READ_MEMORY, WRITE_MEMORY, CMPXCHG_MEMORY } kind;
	int len;
	gpa_t gpa;
	void *buf;
	u64 old, new;		/* of a compare-and-exchange */
};

static int try_cmpxchg_user(struct access *a, void __user *where)
{
	switch (a->len) {
	case 1:
		return __try_cmpxchg_user((u8 __user *)where, (u8 *)&a->old, (u8)a->new, fault1);
	case 2:
		return __try_cmpxchg_user((u16 __user *)where, (u16 *)&a->old, (u16)a->new, fault2);
	case 4:
		return __try_cmpxchg_user((u32 __user *)where, (u32 *)&a->old, (u32)a->new, fault4);
	case 8:
		return __try_cmpxchg_user((u64 __user *)where, &a->old, a->new, fault8);
	default:
		return -EINVAL;
	}
}

/* With page faults disabled. -EAGAIN: the page is not there. */
static int try_access(struct access *a, void __user *where)
{
	int ret;

	if (a->kind == READ_MEMORY)
		return __copy_from_user_inatomic(a->buf, where, a->len) ? -EAGAIN : 0;
	if (a->kind == WRITE_MEMORY)
		return __copy_to_user_inatomic(where, a->buf, a->len) ? -EAGAIN : 0;
	ret = try_cmpxchg_user(a, where);
	return ret == -EFAULT ? -EAGAIN : ret;
}

static int access_guest(struct fonda_vcpu *vcpu, struct access *a)
{
	bool write = a->kind != READ_MEMORY;
	gfn_t gfn = a->gpa >> PAGE_SHIFT;
	int tries, ret = -EAGAIN;

	for (tries = 0; tries < MAX_FAULTS; tries++) {
		struct fonda_memslot *slot = fonda_vcpu_slot(vcpu, gfn);
		void __user *where;

		if (!slot || (write && slot->flags & KVM_MEM_READONLY))
			return -EFAULT;
		where = user_address(slot, a->gpa);
		pagefault_disable();
		ret = try_access(a, where);
		pagefault_enable();
		if (!ret && write)
			fonda_mark_dirty(vcpu, slot, gfn);
		if (ret != -EAGAIN || vcpu->atomic)
			return ret;
		ret = fonda_mmu_fault_in(vcpu, (hva_t)where, write);
		if (ret)
			return ret == -EINTR ? ret : -EFAULT;
	}
	return -EFAULT;
}

/* Page by page. */
static int access_range(struct fonda_vcpu *vcpu, struct access *a, int len)
{
	int ret = 0;

	while (len > 0 && !ret) {
		a->len = min_t(int, len, PAGE_SIZE - offset_in_page(a->gpa));
		ret = access_guest(vcpu, a);
		a->gpa += a->len;
		a->buf += a->len;
		len -= a->len;
	}
	return ret;
}

int fonda_read_guest(struct fonda_vcpu *vcpu, gpa_t gpa, void *buf, int len)
{
	struct access a = { .kind = READ_MEMORY, .gpa = gpa, .buf = buf };

	return access_range(vcpu, &a, len);
}

int fonda_write_guest(struct fonda_vcpu *vcpu, gpa_t gpa, const void *buf, int len)
{
	struct access a = { .kind = WRITE_MEMORY, .gpa = gpa, .buf = (void *)buf };

	return access_range(vcpu, &a, len);
}

int fonda_cmpxchg_guest(struct fonda_vcpu *vcpu, gpa_t gpa, int len, u64 old, u64 new)
{
	struct access a = { .kind = CMPXCHG_MEMORY, .len = len, .gpa = gpa,
			    .old = old, .new = new };

	return IS_ALIGNED(gpa, len) ? access_guest(vcpu, &a) : -EINVAL;
}

int fonda_read_guest_u64(struct fonda_vcpu *vcpu, gpa_t gpa, u64 *val)
{
	struct fonda_memslot *slot = fonda_vcpu_slot(vcpu, gpa >> PAGE_SHIFT);
	u64 __user *where;
	u64 v;

	if (unlikely(!slot))
		return -EFAULT;
	/* user_access_begin() has the barrier against a mispredicted lookup. */
	where = (u64 __user *)(slot->hva + (gpa - (slot->base_gfn << PAGE_SHIFT)));
	pagefault_disable();
	if (unlikely(!user_access_begin(where, sizeof(v))))
		goto slow;
	unsafe_get_user(v, where, fault);
	user_access_end();
	pagefault_enable();
	*val = v;
	return 0;

fault:
	user_access_end();
slow:
	pagefault_enable();
	return fonda_read_guest(vcpu, gpa, val, sizeof(*val));
}
