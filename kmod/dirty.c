// SPDX-License-Identifier: GPL-2.0-only
/*
 * The log of written guest pages: bitmaps of slots, or rings of vCPUs.
 *
 * With a bitmap the processor's own dirty bits are the log (the write
 * permission where there are none): a write costs nothing, and the ioctls
 * collect the bits. The slot's bitmap adds what no leaf tells: writes by the
 * kernel, and pages that the host took away.
 *
 * A ring must have an entry as soon as a page is written, of which a dirty bit
 * tells nobody. So a page is write-protected until the fault of its first write
 * makes the entry and the page writable, and again when user space has given the
 * entry back; or the processor itself lists the pages it sets the bit of (PML).
 *
 * Large leaves are write-protected when logging begins and split on the first
 * write (table.c), so memory that is not written costs one entry in 512 to scan.
 *
 * What the log forgets is flushed from the processors before the ioctl
 * returns, and user space reads the pages after it has returned.
 */
#include <linux/vmalloc.h>

#include "fonda.h"

int fonda_dirty_alloc(struct fonda_vm *vm, struct fonda_memslot *slot,
		      const struct fonda_memslot *old)
{
	if (!(slot->flags & KVM_MEM_LOG_DIRTY_PAGES) || vm->dirty_ring_entries)
		return 0;
	if (old && old->dirty_bitmap) {
		slot->dirty_bitmap = old->dirty_bitmap;
		return 0;
	}
	slot->dirty_bitmap = kvcalloc(BITS_TO_LONGS(slot->npages), sizeof(long),
				      GFP_KERNEL_ACCOUNT);
	if (!slot->dirty_bitmap)
		return -ENOMEM;
	if (vm->dirty_log_flags & KVM_DIRTY_LOG_INITIALLY_SET)
		bitmap_set(slot->dirty_bitmap, 0, slot->npages);
	return 0;
}

/*
 * Begin anew for pages [first, end) of @slot, whose bitmap, if any, gets those
 * that were written. The caller flushes if the result is true.
 */
static bool collect(struct fonda_vm *vm, const struct fonda_memslot *slot, u64 first, u64 end,
		    bool cool)
{
	struct fonda_mmu *mmu = &vm->mmu;
	bool changed = false;
	u64 next;

	read_lock(&mmu->lock);
	for (; first < end; first = next) {
		next = min(end, first + FONDA_CHUNK_PAGES);
		changed |= fonda_table_collect(&mmu->table, slot, slot->base_gfn + first,
					       slot->base_gfn + next, cool);
		if (next < end)
			cond_resched_rwlock_read(&mmu->lock);
	}
	read_unlock(&mmu->lock);
	return changed;
}

void fonda_dirty_start(struct fonda_vm *vm, const struct fonda_memslot *slot)
{
	/* All pages count as written, until they are cleared. */
	if (slot->dirty_bitmap && vm->dirty_log_flags & KVM_DIRTY_LOG_INITIALLY_SET)
		return;
	if (collect(vm, slot, 0, slot->npages, true))
		fonda_vm_flush_tlbs(vm);
	/* What was written before is of no interest. */
	if (slot->dirty_bitmap)
		bitmap_zero(slot->dirty_bitmap, slot->npages);
}

/*
 * Move what the leaves tell of the pages into the bitmap, and some of its bits
 * out of it: to clear, those that user space has set; else all, for user space
 * to see, unless they stay until they are cleared by hand.
 */
long fonda_vm_access_dirty_log(struct fonda_vm *vm, void *arg, unsigned int cmd)
{
	const struct kvm_clear_dirty_log *log = arg;
	bool clear = cmd == KVM_CLEAR_DIRTY_LOG, collected;
	void __user *user = clear ? log->dirty_bitmap : ((struct kvm_dirty_log *)arg)->dirty_bitmap;
	u64 first = clear ? log->first_page : 0, npages, nr, i;
	struct fonda_memslots *slots;
	struct fonda_memslot *slot;
	atomic_long_t *bitmap;
	unsigned long *words __free(fonda_kvfree) = NULL;

	guard(mutex)(&vm->slots_lock);
	if (vm->dirty_ring_entries)
		return -ENXIO;
	if (log->slot >= FONDA_MEM_SLOTS)
		return -EINVAL;
	slots = rcu_dereference_protected(vm->slots, true);
	slot = fonda_slots_by_id(slots, log->slot);
	if (!slot || !slot->dirty_bitmap)
		return -ENOENT;
	npages = clear ? log->num_pages : slot->npages;
	if (first % 64 || first > slot->npages || npages > slot->npages - first)
		return -EINVAL;
	/* Whole words, or up to the slot's end. */
	if (npages % 64 && npages < slot->npages - first)
		return -EINVAL;
	if (!npages)
		return 0;

	nr = BITS_TO_LONGS(npages);
	words = kvmalloc_array(nr, sizeof(*words), GFP_KERNEL_ACCOUNT);
	if (!words)
		return -ENOMEM;
	if (!clear)
		memset(words, vm->dirty_log_flags ? 0 : ~0, nr * sizeof(*words));
	else if (copy_from_user(words, user, nr * sizeof(*words)))
		return -EFAULT;
	/* A table in which nothing was written since GET may be written soon. */
	collected = collect(vm, slot, first, first + npages, !clear);
	bitmap = (atomic_long_t *)&slot->dirty_bitmap[first / BITS_PER_LONG];
	for (i = 0; i < nr; i++) {
		unsigned long old = atomic_long_read(&bitmap[i]);

		words[i] = words[i] & old ? atomic_long_fetch_andnot(words[i], &bitmap[i]) : old;
	}
	/*
	 * What the log forgets must have been forgotten by the processors: leaves
	 * whose bit was collected, and leaves that somebody removes, who sets bits
	 * in the bitmap but has not flushed yet.
	 */
	smp_mb();
	if (collected || READ_ONCE(vm->mmu.nr_invalidating))
		fonda_vm_flush_tlbs(vm);
	if (clear || !copy_to_user(user, words, nr * sizeof(*words)))
		return 0;
	/* Nothing was taken then. */
	for (i = 0; i < nr; i++)
		atomic_long_or(words[i], &bitmap[i]);
	return -EFAULT;
}

/* --- rings --- */

/* Written before the vCPU looks at its ring: by the kernel, by the processor. */
static u32 reserve(const struct fonda_vm *vm)
{
	return vm->mmu.format.lists_writes ? 64 + 512 : 64;
}

/* @bytes: of each vCPU's ring. */
static int enable_rings(struct fonda_vm *vm, u64 bytes)
{
	if (!is_power_of_2(bytes) || bytes < PAGE_SIZE ||
	    bytes < reserve(vm) * sizeof(struct kvm_dirty_gfn))
		return -EINVAL;
	if (bytes > FONDA_DIRTY_RING_BYTES)
		return -E2BIG;
	if (vm->dirty_ring_entries || vm->nr_vcpus)
		return -EINVAL;
	vm->dirty_ring_entries = bytes / sizeof(struct kvm_dirty_gfn);
	if (!vm->mmu.format.lists_writes)
		vm->mmu.format.dirty = 0;
	return 0;
}

int fonda_dirty_enable(struct fonda_vm *vm, u32 cap, u64 arg)
{
	u64 flags = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET;

	/* The slots depend on it. */
	guard(mutex)(&vm->slots_lock);
	if (cap != KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2)
		return enable_rings(vm, arg);
	if (arg & ~flags || arg == KVM_DIRTY_LOG_INITIALLY_SET)
		return -EINVAL;
	vm->dirty_log_flags = arg;
	return 0;
}

int fonda_dirty_ring_init(struct fonda_vcpu *vcpu)
{
	u32 nr = vcpu->vm->dirty_ring_entries;

	if (!nr)
		return 0;
	vcpu->dirty_ring.entries = __vmalloc(nr * sizeof(struct kvm_dirty_gfn),
					     GFP_KERNEL_ACCOUNT | __GFP_ZERO);
	return vcpu->dirty_ring.entries ? 0 : -ENOMEM;
}

struct page *fonda_dirty_ring_page(struct fonda_vcpu *vcpu, unsigned long pgoff)
{
	unsigned long offset = (pgoff - KVM_DIRTY_LOG_PAGE_OFFSET) * PAGE_SIZE;

	if (offset >= vcpu->vm->dirty_ring_entries * sizeof(struct kvm_dirty_gfn))
		return NULL;
	return vmalloc_to_page((void *)vcpu->dirty_ring.entries + offset);
}

static u32 ring_used(const struct fonda_dirty_ring *ring)
{
	return ring->next - READ_ONCE(ring->taken_back);
}

bool fonda_dirty_ring_full(struct fonda_vcpu *vcpu)
{
	if (ring_used(&vcpu->dirty_ring) < vcpu->vm->dirty_ring_entries - reserve(vcpu->vm))
		return false;
	fonda_request(vcpu, FONDA_REQ_DIRTY_FULL);
	return true;
}

void fonda_mark_dirty(struct fonda_vcpu *vcpu, struct fonda_memslot *slot, gfn_t gfn)
{
	struct fonda_dirty_ring *ring = &vcpu->dirty_ring;
	u32 nr = vcpu->vm->dirty_ring_entries;
	struct kvm_dirty_gfn *entry;

	if (!(slot->flags & KVM_MEM_LOG_DIRTY_PAGES))
		return;
	if (!nr) {
		set_bit(gfn - slot->base_gfn, slot->dirty_bitmap);
		return;
	}
	if (ring_used(ring) == nr) {
		/* User space ran on in spite of the exits that asked it not to. */
		WRITE_ONCE(vcpu->vm->bugged, true);
		return;
	}
	entry = &ring->entries[ring->next & (nr - 1)];
	WRITE_ONCE(entry->slot, slot->id);
	WRITE_ONCE(entry->offset, gfn - slot->base_gfn);
	smp_store_release(&entry->flags, KVM_DIRTY_GFN_F_DIRTY);
	WRITE_ONCE(ring->next, ring->next + 1);
	fonda_dirty_ring_full(vcpu);
}

void fonda_dirty_logged(struct fonda_vcpu *vcpu, gpa_t gpa)
{
	struct fonda_memslot *slot = fonda_vcpu_slot(vcpu, gpa >> PAGE_SHIFT);

	if (slot)
		fonda_mark_dirty(vcpu, slot, gpa >> PAGE_SHIFT);
}

/* Where the pages are that entries given back speak of: in one table. */
struct leaves {
	u64 head;	/* flags and slot of such an entry, as one number */
	u64 first;	/* the first page of the slot that the table maps ... */
	u64 nr;		/* ... and how many; 0: none of them is mapped */
	u64 *leaf;	/* of the first */
};

/* What user space wrote is not believed; a slot may be gone or log no more. */
static struct leaves find_leaves(struct fonda_vm *vm, u64 head, u64 page)
{
	struct fonda_memslots *slots = rcu_dereference_protected(vm->slots, true);
	struct fonda_memslot *slot = fonda_slots_by_id(slots, head >> 32);
	struct leaves l = { .head = head };
	gfn_t first, end;

	cond_resched_rwlock_read(&vm->mmu.lock);
	if (!slot || !(slot->flags & KVM_MEM_LOG_DIRTY_PAGES) || page >= slot->npages)
		return l;
	first = (slot->base_gfn + page) & -FONDA_LEVEL_PAGES(2);
	end = min(first + FONDA_LEVEL_PAGES(2), slot->base_gfn + slot->npages);
	first = max(first, slot->base_gfn);
	l.leaf = fonda_table_small_leaf(&vm->mmu.table, first);
	l.first = first - slot->base_gfn;
	l.nr = l.leaf ? end - first : 0;
	return l;
}

/*
 * Take back the entries that user space gave, up to the end of the array; how
 * many. The loop is kept to a dozen instructions: it runs for every page that is
 * written.
 */
static u32 take_back(struct fonda_vm *vm, struct fonda_dirty_ring *ring)
{
	u32 index = ring->taken_back & (vm->dirty_ring_entries - 1);
	u32 nr = min(ring_used(ring), vm->dirty_ring_entries - index);
	struct kvm_dirty_gfn *first = &ring->entries[index], *entry = first;
	struct kvm_dirty_gfn *end = first + nr;
	u64 mask = fonda_written_bit(&vm->mmu.format);
	struct leaves l = { };

	for (; entry != end; entry++) {
		u64 head = smp_load_acquire((u64 *)&entry->flags);
		u64 page = READ_ONCE(entry->offset) - l.first;

		if (unlikely(head != l.head || page >= l.nr)) {
			if (!(head & KVM_DIRTY_GFN_F_RESET))
				break;
			/* User space may have changed it, which changes nothing. */
			page = READ_ONCE(entry->offset);
			l = find_leaves(vm, head, page);
			page -= l.first;
		}
		if (likely(page < l.nr))
			atomic64_and(~mask, (atomic64_t *)&l.leaf[page]);
		WRITE_ONCE(entry->flags, 0);
	}
	/* The vCPU may use the entries from here on. */
	smp_store_release(&ring->taken_back, ring->taken_back + (entry - first));
	return entry - first;
}

/* KVM_RESET_DIRTY_RINGS: how many entries came back. -EINVAL without rings. */
long fonda_vm_reset_dirty_rings(struct fonda_vm *vm, void *arg, unsigned int cmd)
{
	struct fonda_vcpu *vcpu;
	long nr = 0, taken;
	int i;

	if (!vm->dirty_ring_entries)
		return -EINVAL;
	guard(mutex)(&vm->slots_lock);
	read_lock(&vm->mmu.lock);
	fonda_for_each_vcpu(i, vcpu, vm)
		while ((taken = take_back(vm, &vcpu->dirty_ring)))
			nr += taken;
	read_unlock(&vm->mmu.lock);
	if (nr)
		fonda_vm_flush_tlbs(vm);
	return nr;
}
