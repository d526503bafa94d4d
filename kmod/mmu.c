// SPDX-License-Identifier: GPL-2.0-only
/*
 * Second-stage faults, and the host's changes to the memory behind them. No
 * page is pinned: a fault copies what the VMM's own page table says at that
 * moment, and MMU notifiers take it away before the host changes it. So swap,
 * huge pages, hugetlb, memfd, userfaultfd and mappings of devices all work.
 *
 * Faults hold mmu->lock for read and map with atomic operations; removal holds
 * it for write. What a fault looked at without the lock (slots, the host's page
 * table) is only good if mmu->seq has not moved since and no invalidation that
 * covers it is under way.
 */
#include <linux/mem_encrypt.h>
#include <linux/pgtable.h>

#include "fonda.h"

/* A fault that lost so many races goes back to the guest to begin anew. */
#define MAX_TRIES	2

/* Off: log by write protection even if the processor has dirty bits. */
static bool dirty_bits = true;
module_param(dirty_bits, bool, 0444);

/* The backend's, with which VMs begin. */
static struct fonda_mmu_format host_format __ro_after_init;

/* Under slots_lock or mmu->lock. */
static struct fonda_memslots *current_slots(struct fonda_vm *vm)
{
	return rcu_dereference_protected(vm->slots, true);
}

/* --- faults --- */

/*
 * The entry of the VMM's page table for @hva, or that of a higher level where
 * it ends. The processor's own walk has no lock either: with interrupts off,
 * tables are not freed under it (as for get_user_pages_fast()).
 */
static u64 host_entry(struct mm_struct *mm, hva_t hva, u8 *level)
{
	u64 *table = (u64 *)mm->pgd, entry;

	for (*level = pgtable_l5_enabled() ? 5 : 4; ; --*level) {
		entry = READ_ONCE(table[hva / FONDA_LEVEL_SIZE(*level) % FONDA_TABLE_ENTRIES]);
		if (*level == 1 || !(entry & _PAGE_PRESENT) || entry & _PAGE_PSE)
			return entry;
		table = __va(entry & PTE_PFN_MASK);
	}
}

/*
 * What the VMM's page table maps at @hva; the caller checks mmu->seq before it
 * uses the answer. False: not present (which is so for all that waits for a
 * fault: swap, migration, PROT_NONE), or the access is not permitted.
 */
static bool host_lookup(struct mm_struct *mm, hva_t hva, struct fonda_mapping *m,
			struct page **page)
{
	u64 val, offset;

	scoped_guard(irqsave)
		val = host_entry(mm, hva, &m->level);
	/* The bits that decide are the same ones at each level. */
	if (!pte_access_permitted(__pte(val), m->write))
		return false;
	m->writable = m->write || pte_access_permitted(__pte(val), true);
	offset = FONDA_LEVEL_SIZE(m->level) - 1;
	m->hpa = (val & PTE_PFN_MASK & ~offset) | (hva & offset & PAGE_MASK);
	if (val & (_PAGE_PCD | (m->level == 1 ? _PAGE_PAT : _PAGE_PAT_LARGE)))
		m->memtype = FONDA_MEM_UC;
	else
		m->memtype = val & _PAGE_PWT ? FONDA_MEM_WC : FONDA_MEM_WB;
	*page = val & _PAGE_SPECIAL ? NULL : pfn_to_page(m->hpa >> PAGE_SHIFT);
	return true;
}

int fonda_mmu_fault_in(struct fonda_vcpu *vcpu, hva_t hva, bool write)
{
	unsigned int flags = FOLL_HWPOISON | FOLL_INTERRUPTIBLE;
	struct mm_struct *mm = vcpu->vm->mm;
	bool unlocked = false;
	struct page *page;
	long ret;

	if (write)
		flags |= FOLL_WRITE;
	/* It may take long, and may need somebody who changes slots. */
	fonda_slots_leave(vcpu);
	ret = get_user_pages_unlocked(hva, 1, &page, flags);
	if (ret == 1) {
		put_page(page);
		ret = 0;
	} else if (ret >= 0 || ret == -EFAULT) {
		/* A device's memory or the like: no page to get, only to fault. */
		mmap_read_lock(mm);
		ret = fixup_user_fault(mm, hva, write ? FAULT_FLAG_WRITE : 0, &unlocked);
		mmap_read_unlock(mm);
	}
	fonda_slots_enter(vcpu);
	return ret;
}

/* The largest leaf around @gfn, of at most @level, that serves the slot. */
static u8 fit_level(const struct fonda_memslot *slot, gfn_t gfn, u8 level)
{
	u64 skew = slot->base_gfn ^ slot->hva >> PAGE_SHIFT, mask;

	for (; level > 1; level--) {
		mask = FONDA_LEVEL_PAGES(level) - 1;
		/* Both addresses must be aligned alike, and the leaf within the slot. */
		if (!(skew & mask) && (gfn & ~mask) >= slot->base_gfn &&
		    (gfn | mask) < slot->base_gfn + slot->npages)
			break;
	}
	return level;
}

/*
 * Returns false when it must begin anew: what was looked at since @seq has
 * changed, or is changing.
 */
static bool map_page(struct fonda_vcpu *vcpu, struct fonda_memslot *slot,
		     const struct fonda_mapping *m, struct page *page, unsigned long seq)
{
	gfn_t gfn = m->gpa >> PAGE_SHIFT;
	hva_t hva = fonda_slot_hva(slot, gfn);
	struct fonda_mmu *mmu = &vcpu->vm->mmu;
	bool made_writable;

	read_lock(&mmu->lock);
	if (mmu->seq != seq || (mmu->nr_invalidating && hva >= mmu->invalid_start &&
				hva < mmu->invalid_end)) {
		read_unlock(&mmu->lock);
		return false;
	}
	/*
	 * The host must know that the guest may write the page from now on, for
	 * the guest's table tells it nothing later. A page that is cleaned is
	 * unmapped from the guest first, so this happens again when it is
	 * written again.
	 */
	if (m->writable && page) {
		struct folio *folio = page_folio(page);

		if (!folio_test_dirty(folio) && !folio_test_reserved(folio))
			folio_set_dirty(folio);
	}
	made_writable = fonda_table_map(&mmu->table, &vcpu->mmu_cache, m);
	read_unlock(&mmu->lock);

	/* A bitmap needs no mark: the leaf's bit tells. */
	if (made_writable && m->logging && vcpu->dirty_ring.entries)
		fonda_mark_dirty(vcpu, slot, gfn);
	return true;
}

int fonda_mmu_fault(struct fonda_vcpu *vcpu, gpa_t gpa, u32 access)
{
	struct fonda_mmu *mmu = &vcpu->vm->mmu;
	struct fonda_mapping m = {
		.gpa = gpa & PAGE_MASK,
		.write = access & FONDA_ACCESS_WRITE,
	};
	gfn_t gfn = gpa >> PAGE_SHIFT;
	struct fonda_memslot *slot;
	unsigned long seq;
	struct page *page;
	int tries, ret;
	hva_t hva;

	for (tries = 0; tries < MAX_TRIES; tries++) {
		seq = READ_ONCE(mmu->seq);
		/* Pairs with the locked change of seq after a change of slots. */
		smp_rmb();
		slot = fonda_vcpu_slot(vcpu, gfn);
		if (!slot) {
			vcpu->mmu_cache.hole = gfn;
			vcpu->mmu_cache.hole_generation =
				rcu_dereference_check(vcpu->vm->slots, true)->generation;
		}
		if (!slot || (m.write && slot->flags & KVM_MEM_READONLY))
			return FONDA_FAULT_MMIO;
		hva = fonda_slot_hva(slot, gfn);

		if (unlikely(vcpu->mmu_cache.nr_spare < FONDA_TABLE_SPARES)) {
			if (vcpu->atomic)
				return FONDA_RETRY_SLEEPING;
			ret = fonda_table_topup(&vcpu->mmu_cache);
			if (ret)
				return ret;
		}
		if (host_lookup(vcpu->vm->mm, hva, &m, &page)) {
			m.logging = slot->flags & KVM_MEM_LOG_DIRTY_PAGES;
			if (slot->flags & KVM_MEM_READONLY)
				m.writable = false;
			m.level = fit_level(slot, gfn, min(m.level, mmu->format.max_level));
			if (map_page(vcpu, slot, &m, page, seq))
				break;
			continue;
		}
		if (vcpu->atomic)
			return FONDA_RETRY_SLEEPING;
		ret = fonda_mmu_fault_in(vcpu, hva, m.write);
		if (ret == -EHWPOISON) {
			/* The page is lost; the VMM decides what the guest sees. */
			send_sig_mceerr(BUS_MCEERR_AR, (void __user *)hva, PAGE_SHIFT, current);
			break;
		}
		if (ret)
			return ret;
	}
	return FONDA_RESUME_GUEST;
}

/* As if the guest had read it; what is left to do is in *@arg. */
long fonda_vcpu_pre_fault_memory(struct fonda_vcpu *vcpu, void *arg, unsigned int cmd)
{
	struct kvm_pre_fault_memory *range = arg;
	const u64 size = range->size;
	long ret;

	if (range->flags || !PAGE_ALIGNED(range->gpa | size) || range->gpa + size <= range->gpa)
		return -EINVAL;
	do {
		/* Whoever changes slots waits for a page at most. */
		fonda_slots_enter(vcpu);
		ret = signal_pending(current) ? -EINTR :
		      fonda_mmu_fault(vcpu, range->gpa, FONDA_ACCESS_READ);
		fonda_slots_leave(vcpu);
		if (ret != FONDA_RESUME_GUEST)
			break;
		range->gpa += PAGE_SIZE;
		range->size -= PAGE_SIZE;
		cond_resched();
	} while (range->size);
	return range->size < size ? 0 : ret == FONDA_FAULT_MMIO ? -ENOENT : ret;
}

/* --- invalidation --- */

static hva_t slot_end(const struct fonda_memslot *slot)
{
	return slot->hva + (slot->npages << PAGE_SHIFT);
}

/* The page of @slot at @hva, or the nearest end of the slot. */
static gfn_t gfn_at(const struct fonda_memslot *slot, hva_t hva)
{
	return slot->base_gfn + ((clamp(hva, slot->hva, slot_end(slot)) - slot->hva) >> PAGE_SHIFT);
}

/*
 * Remove what is mapped of [start, end), noting written pages. All slots are
 * looked at: there are a few dozen, and a tree of their host addresses would
 * cost more than it saves.
 */
static bool zap(struct fonda_vm *vm, hva_t start, hva_t end, bool may_yield, u64 **free)
{
	struct fonda_mmu *mmu = &vm->mmu;
	struct fonda_memslots *slots;
	gfn_t gfn, last, next;
	bool removed = false;
	u64 generation;
	u32 i;

again:
	slots = current_slots(vm);
	generation = slots->generation;
	for (i = 0; i < slots->nr; i++) {
		last = gfn_at(slots->slot[i], end + ~PAGE_MASK);
		for (gfn = gfn_at(slots->slot[i], start); gfn < last; gfn = next) {
			next = min(last, (gfn | (FONDA_CHUNK_PAGES - 1)) + 1);
			removed |= fonda_table_zap(&mmu->table, slots->slot[i], gfn, next, free);
			/* Whoever has the lock meanwhile may change the slots. */
			if (may_yield && next < last && cond_resched_rwlock_write(&mmu->lock) &&
			    current_slots(vm)->generation != generation)
				goto again;
		}
	}
	return removed;
}

static struct fonda_vm *vm_of(struct mmu_notifier *mn)
{
	return container_of(mn, struct fonda_vm, notifier);
}

/*
 * After it returns the guest cannot reach the VMM's [start, end), not even by
 * what another invalidation has removed and has not flushed yet (then this one
 * found nothing to remove, and must flush all the same), nor will it until
 * invalidate_range_end(). Whoever finds the bit of a removed leaf in a slot's bitmap
 * knows by nr_invalidating that a processor may still use it.
 */
static void begin_invalidation(struct fonda_vm *vm, hva_t start, hva_t end, bool may_yield)
{
	struct fonda_mmu *mmu = &vm->mmu;
	u64 *free = NULL;
	bool flush;

	write_lock(&mmu->lock);
	/* Of several at once the smallest range around all is remembered. */
	mmu->invalid_start = mmu->nr_invalidating ? min(mmu->invalid_start, start) : start;
	mmu->invalid_end = mmu->nr_invalidating ? max(mmu->invalid_end, end) : end;
	mmu->nr_invalidating++;
	flush = zap(vm, start, end, may_yield, &free) || mmu->nr_invalidating > 1;
	write_unlock(&mmu->lock);
	if (flush)
		fonda_vm_flush_tlbs(vm);
	fonda_table_free_list(&mmu->table, free);
}

void fonda_mmu_replace_slots(struct fonda_vm *vm, struct fonda_memslots *slots,
			     const struct fonda_memslot *gone)
{
	struct fonda_memslots *old = current_slots(vm);

	lockdep_assert_held(&vm->slots_lock);
	if (gone)
		begin_invalidation(vm, gone->hva, slot_end(gone), true);
	write_lock(&vm->mmu.lock);
	rcu_assign_pointer(vm->slots, slots);
	/* Faults that looked at the old ones begin anew. */
	vm->mmu.seq++;
	vm->mmu.nr_invalidating -= !!gone;
	write_unlock(&vm->mmu.lock);
	fonda_vm_synchronize(vm);
	kvfree(old);
}

static int invalidate_range_start(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	begin_invalidation(vm_of(mn), range->start, range->end,
			   mmu_notifier_range_blockable(range));
	return 0;
}

/* Also of one that was begun here. */
static void invalidate_range_end(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	struct fonda_mmu *mmu = &vm_of(mn)->mmu;

	write_lock(&mmu->lock);
	mmu->seq++;
	mmu->nr_invalidating--;
	write_unlock(&mmu->lock);
}

static bool age(struct fonda_vm *vm, hva_t start, hva_t end, bool clear)
{
	struct fonda_mmu *mmu = &vm->mmu;
	struct fonda_memslots *slots;
	bool young = false;
	u32 i;

	read_lock(&mmu->lock);
	slots = current_slots(vm);
	for (i = 0; i < slots->nr; i++)
		young |= fonda_table_age(&mmu->table, gfn_at(slots->slot[i], start),
					 gfn_at(slots->slot[i], end + ~PAGE_MASK), clear);
	read_unlock(&mmu->lock);
	return young;
}

/*
 * Translations that processors have cached are not flushed: a page that is
 * used only through those for long looks idle, which costs a fault, not data.
 */
static fonda_young_t clear_young(struct mmu_notifier *mn, struct mm_struct *mm,
				 unsigned long start, unsigned long end)
{
	struct fonda_vm *vm = vm_of(mn);
	bool young = age(vm, start, end, true);

	/* Without accessed bits only a new fault can tell that it is used. */
	if (young && !vm->mmu.format.accessed) {
		begin_invalidation(vm, start, end, false);
		invalidate_range_end(mn, NULL);
	}
	return young;
}

static fonda_young_t test_young(struct mmu_notifier *mn, struct mm_struct *mm,
				unsigned long address)
{
	return age(vm_of(mn), address, address + 1, false);
}

/* The VMM's memory goes away as a whole. Its threads do not run any more. */
static void release(struct mmu_notifier *mn, struct mm_struct *mm)
{
	begin_invalidation(vm_of(mn), 0, TASK_SIZE_MAX, true);
	invalidate_range_end(mn, NULL);
}

static const struct mmu_notifier_ops notifier_ops = {
	.invalidate_range_start	= invalidate_range_start,
	.invalidate_range_end	= invalidate_range_end,
	.clear_flush_young	= clear_young,
	.clear_young		= clear_young,
	.test_young		= test_young,
	.release		= release,
};

/* --- lifetime --- */

void fonda_mmu_setup(const struct fonda_mmu_format *format)
{
	host_format = *format;
	host_format.address &= ~sme_me_mask;
	host_format.table |= sme_me_mask;
	host_format.memtype[FONDA_MEM_WB] |= sme_me_mask;
	if (!dirty_bits) {
		host_format.dirty = 0;
		host_format.lists_writes = false;
	}
}

/* Nobody uses them any more, or has yet. */
static void free_memory(struct fonda_vm *vm)
{
	struct fonda_memslots *slots = current_slots(vm);
	u32 i;

	fonda_table_fini(&vm->mmu.table);
	for (i = 0; i < slots->nr; i++)
		fonda_slot_free(slots->slot[i], NULL);
	kvfree(slots);
}

int fonda_mmu_init(struct fonda_vm *vm)
{
	struct fonda_memslots *slots = fonda_slots_copy(NULL, NULL, NULL);
	int ret;

	if (!slots)
		return -ENOMEM;
	rwlock_init(&vm->mmu.lock);
	RCU_INIT_POINTER(vm->slots, slots);
	vm->mmu.format = host_format;
	vm->notifier.ops = &notifier_ops;
	ret = fonda_table_init(&vm->mmu.table, &vm->mmu.format) ?:
	      mmu_notifier_register(&vm->notifier, vm->mm);
	if (ret)
		free_memory(vm);
	return ret;
}

void fonda_mmu_fini(struct fonda_vm *vm)
{
	mmu_notifier_unregister(&vm->notifier, vm->mm);
	free_memory(vm);
}
