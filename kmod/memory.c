// SPDX-License-Identifier: GPL-2.0-only
/*
 * User memory: the ioctl that tells the VM which of the VMM's memory the guest
 * sees where, and the kernel's own reads and writes of guest memory, which go
 * through the VMM's mapping of it.
 */
#include "fonda.h"

/* A page that comes and goes under memory pressure is tried so often. */
#define MAX_FAULTS	16

/* The slot that @r describes; it keeps the log of the one that it replaces. */
static struct fonda_memslot *make_slot(struct fonda_vm *vm, const struct fonda_memslot *old,
				       const struct kvm_userspace_memory_region *r)
{
	struct fonda_memslot *slot __free(kfree) = kmalloc(sizeof(*slot), GFP_KERNEL_ACCOUNT);

	if (!slot)
		return NULL;
	*slot = (struct fonda_memslot){
		.base_gfn = r->guest_phys_addr >> PAGE_SHIFT,
		.npages = r->memory_size >> PAGE_SHIFT,
		.hva = r->userspace_addr, .id = r->slot, .flags = r->flags };
	return fonda_dirty_alloc(vm, slot, old) ? NULL : no_free_ptr(slot);
}

/*
 * KVM_SET_USER_MEMORY_REGION, and _REGION2, whose structure begins alike and
 * whose additions only count with a flag that is refused.
 */
long fonda_vm_set_user_memory_region(struct fonda_vm *vm, void *arg, unsigned int cmd)
{
	const struct kvm_userspace_memory_region *r = arg;
	gfn_t gfn = r->guest_phys_addr >> PAGE_SHIFT;
	u64 npages = r->memory_size >> PAGE_SHIFT;
	struct fonda_memslot *old, *new = NULL;
	struct fonda_memslots *slots, *copy;
	u32 old_flags;
	bool stays;

	guard(mutex)(&vm->slots_lock);
	slots = rcu_dereference_protected(vm->slots, true);
	old = fonda_slots_by_id(slots, r->slot);
	old_flags = old ? old->flags : 0;
	stays = old && old->base_gfn == gfn;
	if (r->slot >= FONDA_MEM_SLOTS ||
	    r->flags & ~(KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY) ||
	    !PAGE_ALIGNED(r->memory_size | r->guest_phys_addr | r->userspace_addr) ||
	    r->userspace_addr != untagged_addr(r->userspace_addr) ||
	    !access_ok((void __user *)(hva_t)r->userspace_addr, r->memory_size))
		return -EINVAL;
	/* Size 0 deletes a slot; the address does not matter then. */
	if (!npages && !old)
		return -EINVAL;
	if (npages) {
		if (npages > FONDA_SLOT_MAX_PAGES ||
		    r->guest_phys_addr > (1ULL << FONDA_GPA_BITS) - r->memory_size)
			return -EINVAL;
		if (old && (old->hva != r->userspace_addr || old->npages != npages ||
			    (old_flags ^ r->flags) & KVM_MEM_READONLY))
			return -EINVAL;
		if (stays && old_flags == r->flags)
			return 0;
		if (fonda_slots_overlap(slots, r->slot, gfn, npages))
			return -EEXIST;
		new = make_slot(vm, old, r);
		if (!new)
			return -ENOMEM;
	}
	copy = fonda_slots_copy(slots, old, new);
	if (!copy) {
		fonda_slot_free(new, old);
		return -ENOMEM;
	}
	/* When logging ends, large leaves come back by faults. */
	stays &= new && !(old_flags & ~r->flags);
	fonda_mmu_replace_slots(vm, copy, stays ? NULL : old);
	if (new && r->flags & ~old_flags & KVM_MEM_LOG_DIRTY_PAGES)
		fonda_dirty_start(vm, new);
	fonda_slot_free(old, new);
	return 0;
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

enum access { READ_MEMORY, WRITE_MEMORY, CMPXCHG_MEMORY };

/* With page faults disabled, within a page. -EAGAIN: it is not there. */
static int try_access(enum access access, void __user *where, void *buf, int len)
{
	u64 *val = buf;		/* to be compared, and the new one */
	int ret;

	if (access == READ_MEMORY)
		return __copy_from_user_inatomic(buf, where, len) ? -EAGAIN : 0;
	if (access == WRITE_MEMORY)
		return __copy_to_user_inatomic(where, buf, len) ? -EAGAIN : 0;
	if (len == 1)
		ret = __try_cmpxchg_user((u8 __user *)where, (u8 *)val, (u8)val[1], fault1);
	else if (len == 4)
		ret = __try_cmpxchg_user((u32 __user *)where, (u32 *)val, (u32)val[1], fault4);
	else
		ret = __try_cmpxchg_user((u64 __user *)where, val, val[1], fault8);
	return ret == -EFAULT ? -EAGAIN : ret;
}

/* Page by page. */
static int access_guest(struct fonda_vcpu *vcpu, enum access access, gpa_t gpa, void *buf, int len)
{
	int tries = 0, ret = 0;

	while (len > 0 && tries < MAX_FAULTS) {
		struct fonda_memslot *slot = fonda_vcpu_slot(vcpu, gpa >> PAGE_SHIFT);
		int n = min_t(int, len, PAGE_SIZE - offset_in_page(gpa));
		bool write = access != READ_MEMORY;
		void __user *where;

		if (!slot || (write && slot->flags & KVM_MEM_READONLY))
			return -EFAULT;
		where = user_address(slot, gpa);
		pagefault_disable();
		ret = try_access(access, where, buf, n);
		pagefault_enable();
		if (ret == -EAGAIN && !vcpu->atomic) {
			ret = fonda_mmu_fault_in(vcpu, (hva_t)where, write);
			if (ret)
				return ret == -EINTR ? ret : -EFAULT;
			tries++;
			continue;
		}
		if (ret)
			return ret;
		if (write)
			fonda_mark_dirty(vcpu, slot, gpa >> PAGE_SHIFT);
		gpa += n;
		buf += n;
		len -= n;
		tries = 0;
	}
	return len > 0 ? -EFAULT : 0;
}

int fonda_read_guest(struct fonda_vcpu *vcpu, gpa_t gpa, void *buf, int len)
{
	return access_guest(vcpu, READ_MEMORY, gpa, buf, len);
}

int fonda_write_guest(struct fonda_vcpu *vcpu, gpa_t gpa, const void *buf, int len)
{
	return access_guest(vcpu, WRITE_MEMORY, gpa, (void *)buf, len);
}

int fonda_cmpxchg_guest(struct fonda_vcpu *vcpu, gpa_t gpa, int len, u64 old, u64 new)
{
	u64 val[] = { old, new };

	return access_guest(vcpu, CMPXCHG_MEMORY, gpa, val, len);
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
	if (likely(user_access_begin(where, sizeof(v)))) {
		unsafe_get_user(v, where, fault);
		user_access_end();
		pagefault_enable();
		*val = v;
		return 0;
fault:
		user_access_end();
	}
	pagefault_enable();
	return fonda_read_guest(vcpu, gpa, val, sizeof(*val));
}
