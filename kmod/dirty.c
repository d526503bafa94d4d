// SPDX-License-Identifier: GPL-2.0-only
/*
 * The log of written guest pages: bitmaps of slots, and rings of vCPUs.
 *
 * With a bitmap the processor's own dirty bits are the log (the write
 * permission where there are none): a write costs nothing, and the ioctls
 * collect the bits. The slot's bitmap adds what no leaf tells: writes by the
 * kernel, and pages that the host took away.
 *
 * With rings a page is write-protected until it is written, since an entry must
 * be made at once; user space takes it and gives it back for protection.
 *
 * Large leaves are write-protected when logging begins and split on the first
 * write (mmu.c), so memory that is not written costs one entry in 512 to scan.
 *
 * In all cases: what the log forgets is flushed from the processors before the
 * ioctl returns, and user space reads the pages after it has returned.
 */
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include "fonda.h"

/* How much is scanned before others may have the lock. */
#define CHUNK_PAGES	FONDA_LEVEL_PAGES(3)

/* Entries kept free for what happens between two looks at the ring. */
#define RING_RESERVE	64

u64 fonda_dirty_mask(struct fonda_vm *vm)
{
	const struct fonda_mmu_format *f = vm->mmu.table.format;

	return vm->mmu.dirty_by_write ? f->write : f->dirty;
}

static unsigned long bitmap_longs(u64 npages)
{
	return DIV_ROUND_UP(npages, BITS_PER_LONG);
}

int fonda_dirty_alloc(struct fonda_vm *vm, unsigned long **bitmap, u64 npages)
{
	*bitmap = NULL;
	if (vm->dirty_ring_size)
		return 0;
	*bitmap = kvcalloc(bitmap_longs(npages), sizeof(long), GFP_KERNEL_ACCOUNT);
	if (!*bitmap)
		return -ENOMEM;
	if (vm->dirty_log_flags & KVM_DIRTY_LOG_INITIALLY_SET)
		bitmap_set(*bitmap, 0, npages);
	return 0;
}

/*
 * Begin anew for pages [first, end) of @slot, or those of them that @want has
 * a bit for, and move into @bitmap, unless NULL, which of them were written.
 * The caller flushes if the result is true.
 */
static bool collect(struct fonda_vm *vm, const struct fonda_memslot *slot, u64 first, u64 end,
		    unsigned long *bitmap, const unsigned long *want)
{
	const struct fonda_dirty_sink sink = {
		.bitmap = bitmap,
		.base_gfn = slot->base_gfn,
		.npages = slot->npages,
		.mask = fonda_dirty_mask(vm),
	};
	struct fonda_mmu *mmu = &vm->mmu;
	bool changed = false;
	u64 next;

	read_lock(&mmu->lock);
	for (; first < end; first = next) {
		next = min(end, first + CHUNK_PAGES);
		changed |= fonda_table_collect(&mmu->table, slot->base_gfn + first,
					       slot->base_gfn + next, &sink, want);
		if (want)
			want += CHUNK_PAGES / BITS_PER_LONG;
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
	if (collect(vm, slot, 0, slot->npages, NULL, NULL))
		fonda_vm_flush_tlbs(vm);
}

void fonda_dirty_stop(struct fonda_vm *vm, const struct fonda_memslot *slot)
{
	fonda_mmu_unsplit(vm, slot);
}

/* The slot whose bitmap user space asks for. Under slots_lock. */
static struct fonda_memslot *logging_slot(struct fonda_vm *vm, u32 id)
{
	struct fonda_memslots *slots = rcu_dereference_protected(vm->slots, true);
	struct fonda_memslot *slot;

	if (vm->dirty_ring_size)
		return ERR_PTR(-ENXIO);
	if (id >= FONDA_MEM_SLOTS)
		return ERR_PTR(-EINVAL);
	slot = fonda_slots_by_id(slots, id);
	return slot && slot->dirty_bitmap ? slot : ERR_PTR(-ENOENT);
}

/*
 * What the log forgets must have been forgotten by the processors: leaves whose
 * bit was @collected, and leaves that somebody removes, who sets bits in the
 * bitmap but has not flushed yet. After the bits were taken.
 */
static void flush_taken(struct fonda_vm *vm, bool collected)
{
	smp_mb();
	if (collected || atomic_read(&vm->mmu.flushes_pending))
		fonda_vm_flush_tlbs(vm);
}

/* Copy the bitmap out and clear it. If that fails it keeps all it has. */
static int take_bitmap(struct fonda_vm *vm, unsigned long *bitmap, unsigned long nr,
		       bool collected, void __user *to)
{
	unsigned long *copy, i;
	int ret = 0;

	copy = kvmalloc_array(nr, sizeof(*copy), GFP_KERNEL_ACCOUNT);
	if (!copy) {
		flush_taken(vm, collected);
		return -ENOMEM;
	}
	for (i = 0; i < nr; i++)
		copy[i] = READ_ONCE(bitmap[i]) ? xchg(&bitmap[i], 0) : 0;
	flush_taken(vm, collected);
	if (copy_to_user(to, copy, nr * sizeof(*copy))) {
		ret = -EFAULT;
		for (i = 0; i < nr; i++)
			atomic_long_or(copy[i], (atomic_long_t *)&bitmap[i]);
	}
	kvfree(copy);
	return ret;
}

static int get_log(struct fonda_vm *vm, const struct kvm_dirty_log *log)
{
	struct fonda_memslot *slot = logging_slot(vm, log->slot);
	unsigned long nr;
	bool collected;

	if (IS_ERR(slot))
		return PTR_ERR(slot);
	nr = bitmap_longs(slot->npages);
	collected = collect(vm, slot, 0, slot->npages, slot->dirty_bitmap, NULL);
	if (!(vm->dirty_log_flags & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE))
		return take_bitmap(vm, slot->dirty_bitmap, nr, collected, log->dirty_bitmap);
	/* Nothing is taken: the bits stay until they are cleared by hand. */
	if (collected)
		fonda_vm_flush_tlbs(vm);
	if (copy_to_user(log->dirty_bitmap, slot->dirty_bitmap, nr * sizeof(long)))
		return -EFAULT;
	return 0;
}

/* KVM_GET_DIRTY_LOG. -ENXIO with rings, -EINVAL, -ENOENT, -ENOMEM, -EFAULT. */
long fonda_vm_get_dirty_log(struct fonda_vm *vm, void *arg)
{
	int ret;

	mutex_lock(&vm->slots_lock);
	ret = get_log(vm, arg);
	mutex_unlock(&vm->slots_lock);
	return ret;
}

static int clear_log(struct fonda_vm *vm, const struct kvm_clear_dirty_log *log)
{
	struct fonda_memslot *slot = logging_slot(vm, log->slot);
	u64 first = log->first_page, npages = log->num_pages;
	unsigned long *want, nr, i;
	atomic_long_t *bitmap;

	if (IS_ERR(slot))
		return PTR_ERR(slot);
	if (first % 64 || first > slot->npages || npages > slot->npages - first)
		return -EINVAL;
	/* Whole words, or up to the slot's end. */
	if (npages % 64 && npages < slot->npages - first)
		return -EINVAL;
	if (!npages)
		return 0;

	nr = bitmap_longs(npages);
	want = kvmalloc_array(nr, sizeof(*want), GFP_KERNEL_ACCOUNT);
	if (!want)
		return -ENOMEM;
	if (copy_from_user(want, log->dirty_bitmap, nr * sizeof(*want))) {
		kvfree(want);
		return -EFAULT;
	}
	bitmap = (atomic_long_t *)&slot->dirty_bitmap[first / BITS_PER_LONG];
	for (i = 0; i < nr; i++)
		if (want[i] & atomic_long_read(&bitmap[i]))
			atomic_long_andnot(want[i], &bitmap[i]);
	flush_taken(vm, collect(vm, slot, first, first + npages, NULL, want));
	kvfree(want);
	return 0;
}

/* KVM_CLEAR_DIRTY_LOG. -ENXIO with rings, -EINVAL, -ENOENT, -ENOMEM, -EFAULT. */
long fonda_vm_clear_dirty_log(struct fonda_vm *vm, void *arg)
{
	int ret;

	mutex_lock(&vm->slots_lock);
	ret = clear_log(vm, arg);
	mutex_unlock(&vm->slots_lock);
	return ret;
}

/* --- rings --- */

/* arg: bytes for each vCPU. */
static int enable_rings(struct fonda_vm *vm, u64 arg)
{
	if (!is_power_of_2(arg) || arg < PAGE_SIZE ||
	    arg < 2 * RING_RESERVE * sizeof(struct kvm_dirty_gfn))
		return -EINVAL;
	if (arg > FONDA_DIRTY_RING_BYTES)
		return -E2BIG;
	if (vm->dirty_ring_size || vm->nr_vcpus)
		return -EINVAL;
	vm->dirty_ring_size = arg;
	vm->mmu.dirty_by_write = true;
	return 0;
}

int fonda_dirty_enable(struct fonda_vm *vm, u32 cap, u64 arg)
{
	u64 allowed = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE;
	int ret;

	/* The slots depend on it. */
	mutex_lock(&vm->slots_lock);
	if (cap != KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2) {
		ret = enable_rings(vm, arg);
	} else {
		if (arg & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE)
			allowed |= KVM_DIRTY_LOG_INITIALLY_SET;
		ret = arg & ~allowed ? -EINVAL : 0;
		if (!ret)
			vm->dirty_log_flags = arg;
	}
	mutex_unlock(&vm->slots_lock);
	return ret;
}

int fonda_dirty_ring_alloc(struct fonda_vcpu *vcpu)
{
	u32 bytes = vcpu->vm->dirty_ring_size;
	struct fonda_dirty_ring *ring;

	if (!bytes)
		return 0;
	ring = kzalloc(sizeof(*ring), GFP_KERNEL_ACCOUNT);
	if (!ring)
		return -ENOMEM;
	ring->size = bytes / sizeof(*ring->entries);
	ring->entries = __vmalloc(bytes, GFP_KERNEL_ACCOUNT | __GFP_ZERO);
	if (!ring->entries) {
		kfree(ring);
		return -ENOMEM;
	}
	vcpu->dirty_ring = ring;
	return 0;
}

void fonda_dirty_ring_free(struct fonda_vcpu *vcpu)
{
	if (!vcpu->dirty_ring)
		return;
	vfree(vcpu->dirty_ring->entries);
	kfree(vcpu->dirty_ring);
	vcpu->dirty_ring = NULL;
}

static unsigned long ring_pages(struct fonda_vcpu *vcpu)
{
	return vcpu->vm->dirty_ring_size / PAGE_SIZE;
}

int fonda_dirty_ring_check_mmap(struct fonda_vcpu *vcpu, struct vm_area_struct *vma)
{
	unsigned long end = vma->vm_pgoff + vma_pages(vma);

	if (vma->vm_pgoff >= KVM_DIRTY_LOG_PAGE_OFFSET + ring_pages(vcpu) ||
	    end <= KVM_DIRTY_LOG_PAGE_OFFSET)
		return 0;
	/* A private copy would hide what user space gives back. */
	return vma->vm_flags & VM_SHARED && !(vma->vm_flags & VM_EXEC) ? 0 : -EINVAL;
}

struct page *fonda_dirty_ring_page(struct fonda_vcpu *vcpu, unsigned long pgoff)
{
	unsigned long index = pgoff - KVM_DIRTY_LOG_PAGE_OFFSET;

	if (pgoff < KVM_DIRTY_LOG_PAGE_OFFSET || index >= ring_pages(vcpu))
		return NULL;
	return vmalloc_to_page((void *)vcpu->dirty_ring->entries + index * PAGE_SIZE);
}

static u32 ring_used(const struct fonda_dirty_ring *ring)
{
	return ring->dirty_index - READ_ONCE(ring->reset_index);
}

static struct kvm_dirty_gfn *ring_entry(struct fonda_dirty_ring *ring, u32 index)
{
	return &ring->entries[index & (ring->size - 1)];
}

bool fonda_dirty_ring_full(struct fonda_vcpu *vcpu)
{
	struct fonda_dirty_ring *ring = vcpu->dirty_ring;

	return ring && ring_used(ring) >= ring->size - RING_RESERVE;
}

static void push(struct fonda_vcpu *vcpu, struct fonda_dirty_ring *ring, u16 slot, u64 offset)
{
	struct kvm_dirty_gfn *entry = ring_entry(ring, ring->dirty_index - 1);

	/*
	 * The same page once more, and user space has not taken the entry: it
	 * will read the page after it has. The write itself came first.
	 */
	smp_mb();
	if (READ_ONCE(entry->flags) == KVM_DIRTY_GFN_F_DIRTY &&
	    READ_ONCE(entry->slot) == slot && READ_ONCE(entry->offset) == offset)
		return;
	if (ring_used(ring) == ring->size) {
		/* User space ran on in spite of the exits that asked it not to. */
		WRITE_ONCE(vcpu->vm->bugged, true);
		return;
	}
	entry = ring_entry(ring, ring->dirty_index);
	WRITE_ONCE(entry->slot, slot);
	WRITE_ONCE(entry->offset, offset);
	smp_store_release(&entry->flags, KVM_DIRTY_GFN_F_DIRTY);
	WRITE_ONCE(ring->dirty_index, ring->dirty_index + 1);
	if (fonda_dirty_ring_full(vcpu))
		fonda_request(vcpu, FONDA_REQ_DIRTY_FULL);
}

void fonda_mark_dirty(struct fonda_vcpu *vcpu, struct fonda_memslot *slot, gfn_t gfn)
{
	u64 offset = gfn - slot->base_gfn;

	if (slot->dirty_bitmap)
		set_bit(offset, slot->dirty_bitmap);
	else if (vcpu->dirty_ring)
		push(vcpu, vcpu->dirty_ring, slot->id, offset);
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
	struct leaves l = { .head = head };
	struct fonda_memslot *slot;
	u32 id = head >> 32;
	gfn_t first, end;

	cond_resched_rwlock_read(&vm->mmu.lock);
	slot = id < FONDA_MEM_SLOTS ? fonda_slots_by_id(slots, id) : NULL;
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
 * Take back @nr entries, or as many of them as user space gave; how many. The
 * loop is kept to a dozen instructions: it runs for every page that is written.
 */
static u32 reset_entries(struct fonda_vm *vm, struct kvm_dirty_gfn *entries, u32 nr)
{
	struct kvm_dirty_gfn *entry = entries, *end = entries + nr;
	u64 mask = fonda_dirty_mask(vm);
	struct leaves l = { };

	for (; entry != end; entry++) {
		u64 head = smp_load_acquire((u64 *)&entry->flags);
		u64 page = READ_ONCE(entry->offset) - l.first;

		if (unlikely(head != l.head || page >= l.nr)) {
			if (!(head & KVM_DIRTY_GFN_F_RESET))
				break;
			page = READ_ONCE(entry->offset);
			l = find_leaves(vm, head, page);
			page -= l.first;
			if (page >= l.nr)
				goto next;
		}
		atomic64_and(~mask, (atomic64_t *)&l.leaf[page]);
next:
		WRITE_ONCE(entry->flags, 0);
	}
	return entry - entries;
}

static u32 reset_ring(struct fonda_vm *vm, struct fonda_dirty_ring *ring)
{
	u32 index = ring->reset_index, made = READ_ONCE(ring->dirty_index) - index;
	u32 before_wrap = min(made, ring->size - (index & (ring->size - 1)));
	u32 nr;

	read_lock(&vm->mmu.lock);
	nr = reset_entries(vm, ring_entry(ring, index), before_wrap);
	if (nr == before_wrap)
		nr += reset_entries(vm, ring->entries, made - nr);
	read_unlock(&vm->mmu.lock);
	/* The vCPU may use the entries from here on. */
	smp_store_release(&ring->reset_index, index + nr);
	return nr;
}

/* KVM_RESET_DIRTY_RINGS: how many entries came back. -EINVAL without rings. */
long fonda_vm_reset_dirty_rings(struct fonda_vm *vm, void *arg)
{
	struct fonda_vcpu *vcpu;
	long nr = 0;
	int i;

	if (!vm->dirty_ring_size)
		return -EINVAL;
	mutex_lock(&vm->slots_lock);
	fonda_for_each_vcpu(i, vcpu, vm)
		nr += reset_ring(vm, vcpu->dirty_ring);
	if (nr)
		fonda_vm_flush_tlbs(vm);
	mutex_unlock(&vm->slots_lock);
	return nr;
}
