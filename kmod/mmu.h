/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Guest memory: the slots that map guest physical pages to the VMM's memory
 * (memslot.c, memory.c), the second-stage page tables built from them on faults
 * (table.c, mmu.c), the guest's own page tables (walk.c), and the log of written
 * pages (dirty.c).
 *
 * memslot.c, table.c and walk.c are pure: they see this file, not fonda.h. Guest
 * memory is behind the functions of memory.c, which a unit test defines as well.
 */
#ifndef FONDA_MMU_H
#define FONDA_MMU_H

#include <linux/spinlock.h>

#include "types.h"

struct kvm_dirty_gfn;
struct page;

#define FONDA_MEM_SLOTS		32764
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
	u32 flags;		/* KVM_MEM_* */
	/* Pages written, where table entries do not tell. NULL: not logging, or
	 * logging to the rings. */
	unsigned long *dirty_bitmap;
};

/*
 * All slots of a VM. Both are replaced, never changed, so a reader inside
 * vm->srcu, or under mmu->lock, may keep a pointer to a slot.
 */
struct fonda_memslots {
	u64 generation;			/* never repeats within a VM, never 0 */
	u32 nr;
	struct fonda_memslot *slot[];	/* sorted by base_gfn */
};

/* The slot that holds @gfn, or NULL. */
struct fonda_memslot *fonda_slots_find(const struct fonda_memslots *slots, gfn_t gfn);
struct fonda_memslot *fonda_slots_by_id(const struct fonda_memslots *slots, u32 id);
/* Does a slot other than @id use a page of [gfn, gfn + npages)? */
bool fonda_slots_overlap(const struct fonda_memslots *slots, u16 id, gfn_t gfn, u64 npages);
/*
 * A copy of @old (may be NULL) without @gone and with @add, unless they are
 * NULL. The caller frees it with kvfree(). NULL: no memory.
 */
struct fonda_memslots *fonda_slots_copy(const struct fonda_memslots *old,
					const struct fonda_memslot *gone,
					struct fonda_memslot *add);
/* Free @slot, if not NULL, and its bitmap unless @other has the same. */
void fonda_slot_free(struct fonda_memslot *slot, const struct fonda_memslot *other);

static inline hva_t fonda_slot_hva(const struct fonda_memslot *slot, gfn_t gfn)
{
	return slot->hva + ((gfn - slot->base_gfn) << 12);
}

/* --- The second-stage table: table.c ------------------------------------- */

/* Bits of an entry, where NPT and EPT agree. An entry that is not in use is 0. */
#define FONDA_ENTRY_WRITE	BIT_ULL(1)
#define FONDA_ENTRY_LARGE	BIT_ULL(7)	/* tells a leaf from a table above level 1 */
/* Of one that points to a table, which the processor ignores. */
#define FONDA_ENTRY_COOLING	BIT_ULL(52)	/* see fonda_table_collect() */

/*
 * Where they differ. In both, the rights of all levels are ANDed.
 * fonda_mmu_setup() adds the bit of memory encryption (SME) to what names
 * memory, and takes it from the address.
 */
struct fonda_mmu_format {
	u64 address;		/* the physical address */
	u64 table;		/* all bits of an entry that points to a table */
	u64 leaf;		/* bits of every leaf: read, execute, guest access */
	u64 accessed;		/* 0: the processor does not maintain it */
	u64 dirty;		/* 0: the same, or writes are logged by protection */
	u64 memtype[3];		/* by enum fonda_memtype */
	u8 max_level;		/* the largest leaf: 1: 4K, 2: 2M, 3: 1G */
	/* The processor lists the pages whose dirty bit it sets (PML), and the
	 * backend hands them to fonda_dirty_logged(). */
	bool lists_writes;
};

extern const struct fonda_mmu_format fonda_npt_format;
/* With accessed and dirty bits; without, a copy has 0 there. */
extern const struct fonda_mmu_format fonda_ept_format;

/* The bit of a leaf by which it is known that its page was written. */
static inline u64 fonda_written_bit(const struct fonda_mmu_format *f)
{
	return f->dirty ? f->dirty : FONDA_ENTRY_WRITE;
}

/* Write-back is memory's. */
enum fonda_memtype { FONDA_MEM_WB, FONDA_MEM_WC, FONDA_MEM_UC };

#define FONDA_ROOT_LEVEL	4
#define FONDA_TABLE_ENTRIES	512
#define FONDA_MAX_LEAF_LEVEL	3
#define FONDA_LEVEL_PAGES(level)	(1ULL << (9 * ((level) - 1)))
#define FONDA_LEVEL_SIZE(level)		(FONDA_LEVEL_PAGES(level) << 12)

struct fonda_table {
	u64 *root;			/* (c) */
	const struct fonda_mmu_format *format;	/* (c) from the first vCPU on */
	atomic_long_t leaves[FONDA_MAX_LEAF_LEVEL + 1];	/* mapped, by level */
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
	/* The page that was accessed last where there is no memory; likewise. */
	u64 hole_generation;		/* (m) */
	gfn_t hole;			/* (m) */
};

/* What fonda_table_map() is to install. */
struct fonda_mapping {
	gpa_t gpa;
	hpa_t hpa;		/* of the page at gpa, whatever the level */
	u8 level;		/* how much around it the host maps as one */
	bool write;		/* the access is a write */
	bool writable;		/* the host lets the VMM write all of it */
	bool logging;		/* the slot logs dirty pages */
	enum fonda_memtype memtype;
};

/*
 * Who may run at once: map, collect and age of several callers; zap excludes
 * everything. mmu.c has the lock.
 */
int fonda_table_init(struct fonda_table *t, const struct fonda_mmu_format *format);
/* Frees every page of tables, also when init has failed. */
void fonda_table_fini(struct fonda_table *t);
/* Fill the cache. May sleep; -ENOMEM. */
int fonda_table_topup(struct fonda_mmu_cache *cache);
void fonda_table_drain(struct fonda_mmu_cache *cache);

/*
 * Map, raise the rights of what is mapped, or find that there is nothing to do;
 * the cache is full. Returns true when the page became writable by this call,
 * which no list of the processor's will have.
 */
bool fonda_table_map(struct fonda_table *t, struct fonda_mmu_cache *cache,
		     const struct fonda_mapping *m);

/*
 * Remove every leaf of @slot that touches [start, end) and the tables that the
 * range covers, noting in the slot's bitmap, if it has one, what was written.
 * Returns whether something was removed; then the tables are in the list
 * *@free, for fonda_table_free_list() once the processors have forgotten them.
 * Without @slot nothing is noted.
 */
bool fonda_table_zap(struct fonda_table *t, const struct fonda_memslot *slot,
		     gfn_t start, gfn_t end, u64 **free);
void fonda_table_free_list(struct fonda_table *t, u64 *list);

/*
 * Find the pages of [start, end) in @slot written since the last time, note them
 * in the slot's bitmap, if it has one, and begin anew: the bit is cleared, and
 * large leaves lose the write permission, since they are split when written
 * next. Returns whether an entry was changed, so that the processors must forget
 * what they have cached before the next time.
 *
 * With @cool, a table in which no page was written loses the write permission
 * as a whole: it is `cooling` until it has been looked at once more, for what
 * processors wrote before they forgot, and is passed over from then until a
 * write faults.
 */
bool fonda_table_collect(struct fonda_table *t, const struct fonda_memslot *slot,
			 gfn_t start, gfn_t end, bool cool);
/* The entry of @gfn if it is in a table of small leaves, else NULL. */
u64 *fonda_table_small_leaf(struct fonda_table *t, gfn_t gfn);
/* Was a page of the range accessed? Forget it if @clear. */
bool fonda_table_age(struct fonda_table *t, gfn_t start, gfn_t end, bool clear);

/* --- Faults and the host's changes: mmu.c -------------------------------- */

/* How much is removed or scanned before others may have the lock. */
#define FONDA_CHUNK_PAGES	FONDA_LEVEL_PAGES(3)

struct fonda_mmu {
	struct fonda_table table;
	struct fonda_mmu_format format;	/* (c) from the first vCPU on: the table's */
	/* Read: faults, scans; write: removal. Innermost but irq_lock. */
	rwlock_t lock;
	/*
	 * Changes whenever a translation sampled before may be stale; under
	 * lock for write. A fault samples it before it looks at anything.
	 */
	unsigned long seq;
	/* Invalidations that have begun and not ended, and what they cover
	 * together. Under lock for write. */
	unsigned int nr_invalidating;
	hva_t invalid_start, invalid_end;
};

/* Once, by the backend's hardware_setup(), before any VM exists. Copied. */
void fonda_mmu_setup(const struct fonda_mmu_format *format);

/* vm->mm is current->mm. -ENOMEM, -EINTR. */
int fonda_mmu_init(struct fonda_vm *vm);
/* No vCPU runs any more. Frees slots and tables. */
void fonda_mmu_fini(struct fonda_vm *vm);
/*
 * For memory.c, under slots_lock: publish @slots. After it returns nobody uses
 * the old ones, neither the guest nor the kernel, and nothing of @gone, unless
 * NULL, is mapped as it was.
 */
void fonda_mmu_replace_slots(struct fonda_vm *vm, struct fonda_memslots *slots,
			     const struct fonda_memslot *gone);
/*
 * Have the host make its page at @hva present (and writable); sleeps, outside
 * vm->srcu. -EFAULT, -EHWPOISON, -EINTR.
 */
int fonda_mmu_fault_in(struct fonda_vcpu *vcpu, hva_t hva, bool write);
/* For nCR3 or EPTP: constant for the life of the VM. */
#define fonda_mmu_root_hpa(vm)	__pa((vm)->mmu.table.root)

/*
 * The guest touched @gpa (FONDA_ACCESS_WRITE and _FETCH count) and the
 * processor found no translation. FONDA_RESUME_GUEST; FONDA_RETRY_SLEEPING;
 * FONDA_FAULT_MMIO: no memory there, or a write to read-only memory; -EFAULT:
 * the VMM's mapping is missing; -ENOMEM; -EINTR.
 * May leave and re-enter vm->srcu when it sleeps.
 */
int fonda_mmu_fault(struct fonda_vcpu *vcpu, gpa_t gpa, u32 access);
fonda_vcpu_handler fonda_vcpu_pre_fault_memory;

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
 * Atomic for the guest: @len (1, 4, 8) naturally aligned bytes become @new if
 * they are @old. 1: they were something else.
 */
int fonda_cmpxchg_guest(struct fonda_vcpu *vcpu, gpa_t gpa, int len, u64 old, u64 new);

/* The slot that holds @gfn, or NULL; through the vCPU's cache. */
struct fonda_memslot *fonda_vcpu_slot(struct fonda_vcpu *vcpu, gfn_t gfn);

fonda_vm_handler fonda_vm_set_user_memory_region;

/* --- The guest's own page tables: walk.c ----------------------------------- */

#define FONDA_EFER_LMA	(1u << 10)
#define FONDA_EFER_NXE	(1u << 11)

/* What a translation depends on: registers, and what CPUID says. */
struct fonda_paging {
	u64 cr0, cr3, cr4, efer;
	u64 rflags;		/* AC suspends SMAP */
	u8 phys_bits;		/* MAXPHYADDR of the guest */
	bool gb_pages;		/* CPUID has 1 GiB pages */
};

/* Beside FONDA_ACCESS_*: the error code. (SDM volume 3, "Page-Fault Exceptions".) */
#define FONDA_PF_PRESENT	(1u << 0)
#define FONDA_PF_RSVD		(1u << 3)

#define FONDA_WALK_FAULT	1

/* What a walk finds: and the entries that it has passed, root first. */
struct fonda_walk {
	gpa_t gpa;
	u32 error;		/* of the #PF */
	int nr;
	gpa_t where[5];
	u64 entry[5];
};

/*
 * Translate @gva for @access (FONDA_ACCESS_*), checking every right and setting
 * accessed and dirty bits. 0; FONDA_WALK_FAULT: the guest gets a #PF; -EAGAIN:
 * another processor keeps changing the tables, or a table must not be touched in
 * this context; -EINTR; -EFAULT: a table is not in memory. Protection keys and
 * supervisor shadow stacks are not offered to guests.
 */
int fonda_walk(struct fonda_vcpu *vcpu, const struct fonda_paging *p, gva_t gva,
	       u32 access, struct fonda_walk *w);

/* fetch.c: the same for the vCPU as it is; fills in what CPUID says. */
int fonda_walk_guest(struct fonda_vcpu *vcpu, struct fonda_paging *p, gva_t gva,
		     u32 access, struct fonda_walk *w);

/* --- The log of written pages: dirty.c ------------------------------------ */

/* The largest ring, in bytes: 65536 entries. */
#define FONDA_DIRTY_RING_BYTES	(65536 * 16)

/* Pages that one vCPU has written, for user space, which shares the entries. */
struct fonda_dirty_ring {
	struct kvm_dirty_gfn *entries;	/* (c) by vmalloc; NULL: no rings */
	u32 next;		/* (m) to be filled; others READ_ONCE it */
	u32 taken_back;		/* (s) before it; others READ_ONCE it */
};

/* KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KVM_CAP_DIRTY_LOG_RING*; under vm->lock. */
int fonda_dirty_enable(struct fonda_vm *vm, u32 cap, u64 arg);
/* At the vCPU's creation; nothing to do without rings. -ENOMEM. */
int fonda_dirty_ring_init(struct fonda_vcpu *vcpu);
/* The page of the ring at @pgoff of the vCPU's mapping, or NULL. */
struct page *fonda_dirty_ring_page(struct fonda_vcpu *vcpu, unsigned long pgoff);
/*
 * After FONDA_REQ_DIRTY_FULL: must the vCPU leave with KVM_EXIT_DIRTY_RING_FULL
 * rather than enter? The request is up until it need not.
 */
bool fonda_dirty_ring_full(struct fonda_vcpu *vcpu);

/*
 * A page of @slot was written, by the kernel or through a leaf that has just
 * become writable; after the write, or before the vCPU enters.
 */
void fonda_mark_dirty(struct fonda_vcpu *vcpu, struct fonda_memslot *slot, gfn_t gfn);
/* The same for a page that the processor has listed; inside vm->srcu. */
void fonda_dirty_logged(struct fonda_vcpu *vcpu, gpa_t gpa);

/* For memory.c, under slots_lock. */
/* The bitmap of a slot that logs, that of @old if it has one; none with rings. -ENOMEM. */
int fonda_dirty_alloc(struct fonda_vm *vm, struct fonda_memslot *slot,
		      const struct fonda_memslot *old);
/* Logging of @slot, which is published, begins. */
void fonda_dirty_start(struct fonda_vm *vm, const struct fonda_memslot *slot);

/* KVM_GET_, KVM_CLEAR_DIRTY_LOG. -ENXIO with rings, -EINVAL, -ENOENT, -ENOMEM, -EFAULT. */
fonda_vm_handler fonda_vm_access_dirty_log;
/* KVM_RESET_DIRTY_RINGS: how many entries came back. -EINVAL without rings. */
fonda_vm_handler fonda_vm_reset_dirty_rings;

#endif
