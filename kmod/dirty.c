// SPDX-License-Identifier: GPL-2.0-only
/*
 * The log of written guest pages: a bitmap of each slot. The processor's own
 * dirty bits are the log (the write permission where there are none): a write
 * costs nothing, and the ioctls collect the bits. The slot's bitmap adds what
 * no leaf tells: writes by the kernel, and pages that the host took away.
 *
 * Large leaves are write-protected when logging begins and split on the first
 * write (mmu.c), so memory that is not written costs one entry in 512 to scan.
 *
 * What the log forgets is flushed from the processors before the ioctl
 * returns, and user space reads the pages after it has returned.
 */
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include "fonda.h"

/* How much is scanned before others may have the lock. */
#define CHUNK_PAGES	FONDA_LEVEL_PAGES(3)

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

/* KVM_GET_DIRTY_LOG. -EINVAL, -ENOENT, -ENOMEM, -EFAULT. */
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

/* KVM_CLEAR_DIRTY_LOG. -EINVAL, -ENOENT, -ENOMEM, -EFAULT. */
long fonda_vm_clear_dirty_log(struct fonda_vm *vm, void *arg)
{
	int ret;

	mutex_lock(&vm->slots_lock);
	ret = clear_log(vm, arg);
	mutex_unlock(&vm->slots_lock);
	return ret;
}

int fonda_dirty_enable(struct fonda_vm *vm, u64 arg)
{
	u64 allowed = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE;

	if (arg & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE)
		allowed |= KVM_DIRTY_LOG_INITIALLY_SET;
	if (arg & ~allowed)
		return -EINVAL;
	/* The slots depend on it. */
	mutex_lock(&vm->slots_lock);
	vm->dirty_log_flags = arg;
	mutex_unlock(&vm->slots_lock);
	return 0;
}

void fonda_mark_dirty(struct fonda_memslot *slot, gfn_t gfn)
{
	if (slot->dirty_bitmap)
		set_bit(gfn - slot->base_gfn, slot->dirty_bitmap);
}
