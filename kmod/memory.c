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

/* Slots replaced by an addition wait for the next change, at most so many. */
#define MAX_RETIRED	16

/* A page that comes and goes under memory pressure is tried so often. */
#define MAX_FAULTS	16

static void retire(struct fonda_vm *vm, struct fonda_memslots *slots)
{
	slots->retired = vm->mmu.retired;
	vm->mmu.retired = slots;
	vm->mmu.nr_retired++;
}

/* Wait until nobody uses the replaced slots, and free them. */
static void free_retired(struct fonda_vm *vm)
{
	struct fonda_memslots *slots = vm->mmu.retired;

	fonda_vm_synchronize(vm);
	vm->mmu.retired = NULL;
	vm->mmu.nr_retired = 0;
	while (slots) {
		struct fonda_memslots *next = slots->retired;

		kvfree(slots);
		slots = next;
	}
}

/*
 * Put @new in the place of @old; one of them may be NULL. Returns when nobody
 * uses @old any more, neither the guest nor the kernel.
 */
static int replace_slot(struct fonda_vm *vm, struct fonda_memslot *old,
			const struct fonda_memslot *new)
{
	struct fonda_memslots *slots = rcu_dereference_protected(vm->slots, true), *copy;
	bool remove = old && (!new || new->base_gfn != old->base_gfn);

	copy = fonda_slots_copy(slots, old ? old->id : new->id, new);
	if (!copy)
		return -ENOMEM;
	if (remove)
		fonda_mmu_remove_slot(vm, old);
	fonda_mmu_publish(vm, copy);
	retire(vm, slots);
	if (old || vm->mmu.nr_retired == MAX_RETIRED)
		free_retired(vm);
	return 0;
}

static int check_region(const struct kvm_userspace_memory_region *r)
{
	if (r->slot >= FONDA_MEM_SLOTS)
		return -EINVAL;
	if (r->flags & ~(KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY))
		return -EINVAL;
	if (!PAGE_ALIGNED(r->memory_size) || !PAGE_ALIGNED(r->guest_phys_addr) ||
	    !PAGE_ALIGNED(r->userspace_addr))
		return -EINVAL;
	if (r->userspace_addr != untagged_addr(r->userspace_addr) ||
	    !access_ok((void __user *)(hva_t)r->userspace_addr, r->memory_size))
		return -EINVAL;
	/* Size 0 deletes a slot; the address does not matter then. */
	if (!r->memory_size)
		return 0;
	if (r->memory_size >> PAGE_SHIFT > FONDA_SLOT_MAX_PAGES)
		return -EINVAL;
	if (r->guest_phys_addr > (1ULL << FONDA_GPA_BITS) - r->memory_size)
		return -EINVAL;
	return 0;
}

/* A large leaf serves the slot only where both addresses are aligned alike. */
static u8 max_level(const struct kvm_userspace_memory_region *r)
{
	u64 skew = r->guest_phys_addr ^ r->userspace_addr;
	u8 level = FONDA_MAX_LEAF_LEVEL;

	while (skew & (FONDA_LEVEL_SIZE(level) - 1))
		level--;
	return level;
}

static int delete_slot(struct fonda_vm *vm, struct fonda_memslot *old)
{
	unsigned long *bitmap = old->dirty_bitmap;
	int ret;

	ret = replace_slot(vm, old, NULL);
	if (!ret)
		kvfree(bitmap);
	return ret;
}

/* A new slot, or one that moves or begins or ends to log written pages. */
static int change_slot(struct fonda_vm *vm, struct fonda_memslot *old, struct fonda_memslot *new)
{
	bool logged = old && old->flags & KVM_MEM_LOG_DIRTY_PAGES;
	bool logging = new->flags & KVM_MEM_LOG_DIRTY_PAGES;
	unsigned long *bitmap = old ? old->dirty_bitmap : NULL;
	int ret;

	if (logging && !logged) {
		ret = fonda_dirty_alloc(vm, &bitmap, new->npages);
		if (ret)
			return ret;
	}
	new->dirty_bitmap = logging ? bitmap : NULL;
	ret = replace_slot(vm, old, new);
	if (ret) {
		if (!logged)
			kvfree(bitmap);
		return ret;
	}
	if (logging && !logged) {
		fonda_dirty_start(vm, new);
	} else if (logged && !logging) {
		fonda_dirty_stop(vm, new);
		kvfree(bitmap);
	}
	return 0;
}

static int set_region_locked(struct fonda_vm *vm, const struct kvm_userspace_memory_region *r)
{
	struct fonda_memslots *slots = rcu_dereference_protected(vm->slots, true);
	struct fonda_memslot *old = fonda_slots_by_id(slots, r->slot);
	struct fonda_memslot new = {
		.base_gfn = r->guest_phys_addr >> PAGE_SHIFT,
		.npages = r->memory_size >> PAGE_SHIFT,
		.hva = r->userspace_addr,
		.id = r->slot,
		.flags = r->flags,
	};
	bool stays = old && old->base_gfn == new.base_gfn;

	if (!r->memory_size)
		return old ? delete_slot(vm, old) : -EINVAL;
	if (old && (old->hva != new.hva || old->npages != new.npages ||
		    (old->flags ^ new.flags) & KVM_MEM_READONLY))
		return -EINVAL;
	if (stays && old->flags == new.flags)
		return 0;
	if (!stays && fonda_slots_overlap(slots, new.id, new.base_gfn, new.npages))
		return -EEXIST;
	new.max_level = max_level(r);
	return change_slot(vm, old, &new);
}

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

static __always_inline struct fonda_memslot *vcpu_slot(struct fonda_vcpu *vcpu, gfn_t gfn)
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

struct fonda_memslot *fonda_vcpu_slot(struct fonda_vcpu *vcpu, gfn_t gfn)
{
	return vcpu_slot(vcpu, gfn);
}

static void mark_written(struct fonda_vcpu *vcpu, struct fonda_memslot *slot, gpa_t gpa)
{
	if (slot->flags & KVM_MEM_LOG_DIRTY_PAGES)
		fonda_mark_dirty(slot, gpa >> PAGE_SHIFT);
}

/* The VMM's address of @gpa, also under a mispredicted bounds check. */
static void __user *user_address(const struct fonda_memslot *slot, gpa_t gpa)
{
	gfn_t page = array_index_nospec((gpa >> PAGE_SHIFT) - slot->base_gfn, slot->npages);

	return (void __user *)(slot->hva + (page << PAGE_SHIFT) + offset_in_page(gpa));
}

/* What is to be done with guest memory within one page. */
struct access {
	gpa_t gpa;
	int len;
	bool write;
	/* Called with page faults disabled. -EAGAIN: the page is not there. */
	int (*fn)(struct access *a, void __user *where);
	void *buf;
	u64 old, new;		/* of a compare-and-exchange */
};

static int access_guest(struct fonda_vcpu *vcpu, struct access *a)
{
	int tries, ret = -EAGAIN;

	for (tries = 0; tries < MAX_FAULTS; tries++) {
		struct fonda_memslot *slot = vcpu_slot(vcpu, a->gpa >> PAGE_SHIFT);
		void __user *where;

		if (!slot || (a->write && slot->flags & KVM_MEM_READONLY))
			return -EFAULT;
		where = user_address(slot, a->gpa);
		pagefault_disable();
		ret = a->fn(a, where);
		pagefault_enable();
		if (!ret && a->write)
			mark_written(vcpu, slot, a->gpa);
		if (ret != -EAGAIN || vcpu->atomic)
			return ret;
		ret = fonda_mmu_fault_in(vcpu, (hva_t)where, a->write);
		if (ret)
			return ret == -EINTR ? ret : -EFAULT;
	}
	return -EFAULT;
}

static int do_read(struct access *a, void __user *where)
{
	return __copy_from_user_inatomic(a->buf, where, a->len) ? -EAGAIN : 0;
}

static int do_write(struct access *a, void __user *where)
{
	return __copy_to_user_inatomic(where, a->buf, a->len) ? -EAGAIN : 0;
}

#define TRY_CMPXCHG(type)						\
do {									\
	type old = a->old;						\
									\
	if (!user_access_begin(where, sizeof(type)))			\
		return -EFAULT;						\
	done = unsafe_try_cmpxchg_user((type __user *)where, &old,	\
				       (type)a->new, fault);		\
	user_access_end();						\
} while (0)

static int do_cmpxchg(struct access *a, void __user *where)
{
	bool done;

	switch (a->len) {
	case 1:
		TRY_CMPXCHG(u8);
		break;
	case 2:
		TRY_CMPXCHG(u16);
		break;
	case 4:
		TRY_CMPXCHG(u32);
		break;
	case 8:
		TRY_CMPXCHG(u64);
		break;
	default:
		return -EINVAL;
	}
	return done ? 0 : 1;

fault:
	user_access_end();
	return -EAGAIN;
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
	struct access a = { .gpa = gpa, .fn = do_read, .buf = buf };

	return access_range(vcpu, &a, len);
}

int fonda_write_guest(struct fonda_vcpu *vcpu, gpa_t gpa, const void *buf, int len)
{
	struct access a = { .gpa = gpa, .fn = do_write, .buf = (void *)buf, .write = true };

	return access_range(vcpu, &a, len);
}

int fonda_cmpxchg_guest(struct fonda_vcpu *vcpu, gpa_t gpa, int len, u64 old, u64 new)
{
	struct access a = {
		.gpa = gpa, .len = len, .fn = do_cmpxchg, .write = true,
		.old = old, .new = new,
	};

	if (!IS_ALIGNED(gpa, len))
		return -EINVAL;
	return access_guest(vcpu, &a);
}

int fonda_read_guest_u64(struct fonda_vcpu *vcpu, gpa_t gpa, u64 *val)
{
	struct fonda_memslot *slot = vcpu_slot(vcpu, gpa >> PAGE_SHIFT);
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
