/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Guest memory: the slots that map guest physical pages to the VMM's memory
 * (memslot.c, memory.c), the second-stage page tables built from them on faults
 * (table.c, mmu.c), and the log of written pages (dirty.c).
 *
 * memslot.c and table.c are pure: they see this file, not fonda.h.
 */
#ifndef FONDA_MMU_H
#define FONDA_MMU_H

#include <linux/atomic.h>
#include <linux/spinlock.h>
#include <linux/types.h>

#include "types.h"

struct kvm_dirty_gfn;
struct page;

#define FONDA_MEM_SLOTS		4096
/* One slot's limit, so that its page numbers fit the dirty log's interface. */
#define FONDA_SLOT_MAX_PAGES	((1UL << 31) - 1)
/* Four levels translate this many bits; CPUID must not promise more. */
#define FONDA_GPA_BITS		48

/* --- Slots: memslot.c ---------------------------------------------------- */

struct fonda_memslot {
	gfn_t base_gfn;
	u64 npages;
	hva_t hva;
	u16 id;
	u8 max_level;		/* the largest leaf that alignment permits */
	bool gone;		/* (a) being deleted: faults must not use it */
	u32 flags;		/* KVM_MEM_* */
	/* Pages written, where table entries do not tell. NULL: not logging, or
	 * logging to the rings. */
	unsigned long *dirty_bitmap;
};

/* A slot's place in the order of host addresses. */
struct fonda_slot_by_hva {
	hva_t max_end;		/* the highest end of this and all before */
	u32 index;
};

/*
 * All slots of a VM. Replaced, never changed (but for `gone`), so a reader
 * inside vm->srcu, or under mmu->lock, may keep a pointer into it.
 */
struct fonda_memslots {
	u64 generation;			/* never repeats within a VM, never 0 */
	struct fonda_memslots *retired;	/* replaced, not freed yet */
	struct fonda_slot_by_hva *by_hva;	/* sorted by hva; nr of them */
	u32 nr;
	struct fonda_memslot slot[];	/* sorted by base_gfn */
};

/* The slot that holds @gfn, or NULL. */
struct fonda_memslot *fonda_slots_find(struct fonda_memslots *slots, gfn_t gfn);
struct fonda_memslot *fonda_slots_by_id(struct fonda_memslots *slots, u16 id);
/* Does a slot other than @id use a page of [gfn, gfn + npages)? */
bool fonda_slots_overlap(struct fonda_memslots *slots, u16 id, gfn_t gfn, u64 npages);
/*
 * A copy of @old (may be NULL) without the slot @id, and with @add if that is
 * not NULL. The caller frees it with kvfree(). NULL: no memory.
 */
struct fonda_memslots *fonda_slots_copy(struct fonda_memslots *old, u16 id,
					const struct fonda_memslot *add);
/*
 * Slots with a byte in [start, end), each once:
 *	i = fonda_slots_hva_first(slots, end);
 *	while ((slot = fonda_slots_hva_next(slots, &i, start)))
 */
int fonda_slots_hva_first(struct fonda_memslots *slots, hva_t end);
struct fonda_memslot *fonda_slots_hva_next(struct fonda_memslots *slots, int *i, hva_t start);

static inline hva_t fonda_slot_hva(const struct fonda_memslot *slot, gfn_t gfn)
{
	return slot->hva + ((gfn - slot->base_gfn) << 12);
}

/* --- The second-stage table: table.c ------------------------------------- */

/*
 * Bits of an entry, where NPT and EPT differ. Physical addresses are bits 51:12
 * in both, and access rights of all levels are ANDed in both.
 */
struct fonda_mmu_format {
	u64 present;		/* set in every entry in use, and only there */
	u64 table;		/* all bits of an entry that points to a table */
	u64 leaf;		/* bits of every leaf: read, execute, guest access */
	u64 write;
	u64 large;		/* tells a leaf from a table above level 1 */
	u64 accessed;		/* 0: the processor does not maintain it */
	u64 dirty;		/* 0: the same */
	u64 soft;		/* one bit that the processor ignores at any level */
	u64 memtype[3];		/* by enum fonda_memtype */
	u8 max_level;		/* the largest leaf: 1: 4K, 2: 2M, 3: 1G */
};

enum fonda_memtype {
	FONDA_MEM_WB,		/* the guest's own PAT and MTRRs decide */
	FONDA_MEM_WC,
	FONDA_MEM_UC,
};

#define FONDA_ROOT_LEVEL	4
#define FONDA_TABLE_ENTRIES	512
#define FONDA_ENTRY_ADDR	0x000ffffffffff000ULL
#define FONDA_LEVEL_SHIFT(level)	(12 + 9 * ((level) - 1))
#define FONDA_LEVEL_SIZE(level)		(1ULL << FONDA_LEVEL_SHIFT(level))
#define FONDA_LEVEL_PAGES(level)	(1ULL << (9 * ((level) - 1)))

struct fonda_table {
	u64 *root;			/* (c) */
	const struct fonda_mmu_format *format;	/* (c) */
	atomic_long_t leaves[4];	/* mapped, by level (1 to 3) */
	atomic_long_t tables;		/* pages of tables, the root included */
};

/*
 * Spare table pages, zeroed, so that a fault need not allocate where it must
 * not sleep: one for each level below the root is enough for any fault.
 */
#define FONDA_TABLE_SPARES	(FONDA_ROOT_LEVEL - 1)

struct fonda_mmu_cache {
	u64 *spare[FONDA_TABLE_SPARES];	/* (m) */
	u32 nr_spare;			/* (m) */
	/* The slot used last; valid while generation is that of vm->slots. */
	u64 generation;			/* (m) */
	struct fonda_memslot *slot;	/* (m) */
};

/* What fonda_table_map() is to install. */
struct fonda_mapping {
	gpa_t gpa;
	hpa_t hpa;		/* of the page at gpa, whatever the level */
	u8 level;		/* how much around it the host maps as one */
	bool write;		/* the access is a write */
	bool writable;		/* the host lets the VMM write all of it */
	bool logging;		/* the slot logs dirty pages */
	bool by_write;		/* logging by write protection, not dirty bits */
	enum fonda_memtype memtype;
};

/* -ENOMEM. The functions below take the caller's locks for granted: see mmu.c. */
int fonda_table_init(struct fonda_table *t, const struct fonda_mmu_format *format);
/* Frees every page of tables. */
void fonda_table_fini(struct fonda_table *t);
/*
 * Map, raise the rights of what is mapped, or find that there is nothing to do.
 * Several callers may run at once. Returns true when the leaf became writable
 * by this call, which logging by write protection counts as the page's write.
 */
bool fonda_table_map(struct fonda_table *t, struct fonda_mmu_cache *cache,
		     const struct fonda_mapping *m);
/* The entry that translates @gpa, or 0, and its level. */
u64 fonda_table_lookup(struct fonda_table *t, gpa_t gpa, int *level);

/*
 * Calls for leaves in [start, end): entries of one table that follow each
 * other. At level 1 some of the @nr may be absent; above, @nr is 1, and the
 * leaf may reach beyond the range. Returns what the last call returned; not 0
 * ends the walk.
 */
typedef int (*fonda_table_fn)(void *ctx, u64 *entry, gfn_t gfn, u32 nr, int level);
int fonda_table_walk(struct fonda_table *t, gfn_t start, gfn_t end, fonda_table_fn fn, void *ctx);

/* Where written pages of a range of guest memory are noted. */
struct fonda_dirty_sink {
	unsigned long *bitmap;	/* bit 0 is base_gfn; NULL: nowhere */
	gfn_t base_gfn;
	u64 npages;
	u64 mask;		/* an entry with this bit was written */
};

/*
 * Remove every leaf that touches [start, end) and the tables that the range
 * covers, noting the written ones. Nobody else may use the table. Tables go to
 * the list *@free, to be freed by fonda_table_free_list() after the processors
 * have forgotten them. Returns whether a leaf was removed.
 */
bool fonda_table_zap(struct fonda_table *t, gfn_t start, gfn_t end,
		     const struct fonda_dirty_sink *sink, u64 **free);
void fonda_table_free_list(u64 *list);

/*
 * Collect: note the pages of [start, end) written since the last time, and
 * start anew. Of leaves larger than a page the write permission is taken, for
 * they are split when they are written next. @want, if not NULL, has a bit for
 * each page from @start and limits it to those. Returns whether an entry was
 * changed, so that the processors must forget what they cached.
 */
bool fonda_table_collect(struct fonda_table *t, gfn_t start, gfn_t end,
			 const struct fonda_dirty_sink *sink, const unsigned long *want);
/* Remove tables that splitting has made, so that large leaves can come back. */
bool fonda_table_unsplit(struct fonda_table *t, gfn_t start, gfn_t end, u64 **free);
/* Was a page of the range accessed; forget it if @clear. */
bool fonda_table_age(struct fonda_table *t, gfn_t start, gfn_t end, bool clear);

/* --- Faults and the host's changes: mmu.c -------------------------------- */

struct fonda_mmu {
	struct fonda_table table;
	/* Read: faults, scans; write: removal. Innermost but irq_lock. */
	rwlock_t lock;
	/*
	 * Changes whenever a translation sampled before may be stale; under
	 * lock for write. A fault samples it before it looks at anything.
	 */
	unsigned long seq;
	/* Invalidations of the host that have begun and not ended, and what
	 * they cover together. Under lock for write. */
	unsigned int nr_invalidating;
	hva_t invalid_start, invalid_end;
	/* Somebody has removed leaves and not flushed yet. */
	atomic_t flushes_pending;
	u64 generation;			/* (s) of the newest slots */
	struct fonda_memslots *retired;	/* (s) arrays to free */
	u32 nr_retired;			/* (s) */
	bool registered;		/* (c) the notifier */
};

/* Once, by the backend's hardware_setup(), before any VM exists. */
void fonda_mmu_setup(const struct fonda_mmu_format *format);
static inline int fonda_mmu_module_init(void) { return 0; }
static inline void fonda_mmu_module_exit(void) { }

/* vm->mm is current->mm. -ENOMEM, -EINTR. */
int fonda_mmu_init(struct fonda_vm *vm);
/* All vCPUs are gone. Frees slots and tables. */
void fonda_mmu_fini(struct fonda_vm *vm);
/* Spare tables of a vCPU that dies. */
void fonda_mmu_cache_fini(struct fonda_mmu_cache *cache);
/* For nCR3 or EPTP: constant for the life of the VM. */
hpa_t fonda_mmu_root_hpa(struct fonda_vm *vm);

/*
 * The guest touched @gpa (FONDA_ACCESS_WRITE and _FETCH count) and the
 * processor found no translation. FONDA_RESUME_GUEST; FONDA_RETRY_SLEEPING;
 * FONDA_FAULT_MMIO: no memory there, or a write to read-only memory; -EFAULT:
 * the VMM's mapping is missing; -ENOMEM; -EINTR.
 * May leave and re-enter vm->srcu when it sleeps.
 */
int fonda_mmu_fault(struct fonda_vcpu *vcpu, gpa_t gpa, u32 access);

/* --- The kernel's own access to guest memory: memory.c -------------------- */

/*
 * Callers are inside fonda_slots_enter() of this vCPU, in its thread. When
 * vcpu->atomic is set nothing sleeps and -EAGAIN says that the page is not
 * there (answer FONDA_RETRY_SLEEPING); otherwise they may leave and re-enter
 * vm->srcu to bring it in, so a caller keeps no pointer that it protects.
 * -EFAULT: no slot, a write to a READONLY slot, or the VMM's mapping is missing.
 * Accesses may cross pages and slots; on error part may have been done.
 */
int fonda_read_guest(struct fonda_vcpu *vcpu, gpa_t gpa, void *buf, int len);
int fonda_write_guest(struct fonda_vcpu *vcpu, gpa_t gpa, const void *buf, int len);
/* The same for 8 aligned bytes, in few instructions: a page-table entry. */
int fonda_read_guest_u64(struct fonda_vcpu *vcpu, gpa_t gpa, u64 *val);
/*
 * Atomic for the guest: @len (1, 2, 4, 8) naturally aligned bytes become @new
 * if they are @old. 1: they were something else.
 */
int fonda_cmpxchg_guest(struct fonda_vcpu *vcpu, gpa_t gpa, int len, u64 old, u64 new);

/* A guest structure that the kernel updates often; all in one slot. */
struct fonda_gpa_cache {
	gpa_t gpa;
	u32 len;
	u64 generation;		/* of the slots that the rest was found in */
	hva_t hva;
	struct fonda_memslot *slot;
};

/* -EINVAL: it crosses slots; -EFAULT: no memory there. */
int fonda_gpa_cache_init(struct fonda_vcpu *vcpu, struct fonda_gpa_cache *cache,
			 gpa_t gpa, u32 len);
int fonda_gpa_cache_read(struct fonda_vcpu *vcpu, struct fonda_gpa_cache *cache,
			 u32 offset, void *buf, u32 len);
int fonda_gpa_cache_write(struct fonda_vcpu *vcpu, struct fonda_gpa_cache *cache,
			  u32 offset, const void *buf, u32 len);

/* The slot that holds @gfn, or NULL; through the vCPU's cache. */
struct fonda_memslot *fonda_vcpu_slot(struct fonda_vcpu *vcpu, gfn_t gfn);

/*
 * KVM_SET_USER_MEMORY_REGION, and _REGION2, whose structure begins alike and
 * whose additions only count with a flag that is refused.
 */
long fonda_vm_set_user_memory_region(struct fonda_vm *vm, void *arg);
long fonda_vm_set_user_memory_region2(struct fonda_vm *vm, void *arg);

/* --- The log of written pages: dirty.c ------------------------------------ */

/* The largest ring, in bytes: 65536 entries. */
#define FONDA_DIRTY_RING_BYTES	(65536 * 16)

/* Written pages of one vCPU, shared with user space (hostile). */
struct fonda_dirty_ring {
	struct kvm_dirty_gfn *entries;
	u32 size;		/* (c) entries, a power of 2 */
	u32 dirty_index;	/* (m) next to fill; READ_ONCE by others */
	u32 reset_index;	/* (s) next to take back; READ_ONCE by others */
};

/* KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KVM_CAP_DIRTY_LOG_RING*; under vm->lock. */
int fonda_dirty_enable(struct fonda_vm *vm, u32 cap, u64 arg);
/* At the vCPU's creation; does nothing without rings. -ENOMEM. */
int fonda_dirty_ring_init(struct fonda_vcpu *vcpu);
void fonda_dirty_ring_fini(struct fonda_vcpu *vcpu);
/* For the vCPU's mapping: the ring's page @index (from KVM_DIRTY_LOG_PAGE_OFFSET). */
struct page *fonda_dirty_ring_page(struct fonda_vcpu *vcpu, unsigned long index);
/* Must the vCPU leave with KVM_EXIT_DIRTY_RING_FULL rather than enter? */
bool fonda_dirty_ring_soft_full(struct fonda_vcpu *vcpu);

/* A page of a logging slot was written, by the kernel or through a new leaf. */
void fonda_mark_dirty(struct fonda_vcpu *vcpu, struct fonda_memslot *slot, gfn_t gfn);
/* Logging of @slot begins or has ended; under slots_lock, slots published. */
void fonda_dirty_start(struct fonda_vm *vm, struct fonda_memslot *slot);
void fonda_dirty_stop(struct fonda_vm *vm, struct fonda_memslot *slot);

long fonda_vm_get_dirty_log(struct fonda_vm *vm, void *arg);
long fonda_vm_clear_dirty_log(struct fonda_vm *vm, void *arg);
long fonda_vm_reset_dirty_rings(struct fonda_vm *vm, void *arg);

#endif
