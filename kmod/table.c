// SPDX-License-Identifier: GPL-2.0-only
/*
 * Second-stage page tables, NPT and EPT alike: mapping, splitting, removing,
 * and reading the accessed and dirty bits. Pure: it knows entries, not slots,
 * hosts or locks. AMD64 APM volume 2, "Nested Paging"; Intel SDM volume 3,
 * "The Extended Page Table Mechanism (EPT)".
 *
 * Entries change by atomic operations only, because the processor sets bits in
 * them, and because faults of several vCPUs map at once.
 */
#include <linux/gfp.h>
#include <linux/mm.h>

#include "mmu.h"

/* The first page number that four levels do not reach. */
#define END_OF_MEMORY	(1ULL << (FONDA_GPA_BITS - 12))

/*
 * AMD64 APM volume 2, "Nested Paging": the format of the host's own tables.
 * Every access counts as one of user mode. Of the memory type, the bits index
 * the host's PAT, of which Linux uses these three entries.
 */
const struct fonda_mmu_format fonda_npt_format = {
	.address	= GENMASK_ULL(51, 12),
	.table		= BIT_ULL(0) | BIT_ULL(1) | BIT_ULL(2) | BIT_ULL(5),
	.leaf		= BIT_ULL(0) | BIT_ULL(2),
	.accessed	= BIT_ULL(5),
	.dirty		= BIT_ULL(6),
	.memtype	= { 0, BIT_ULL(3), BIT_ULL(3) | BIT_ULL(4) },
	.max_level	= 3,
};

/*
 * Intel SDM volume 3, "EPT Translation Mechanism", "EPT and Memory Typing".
 * Memory is write-back whatever the guest's PAT says; a device is what the
 * host says, too.
 */
const struct fonda_mmu_format fonda_ept_format = {
	.address	= GENMASK_ULL(51, 12),
	.table		= BIT_ULL(0) | BIT_ULL(1) | BIT_ULL(2) | BIT_ULL(8),
	.leaf		= BIT_ULL(0) | BIT_ULL(2) | BIT_ULL(6),
	.accessed	= BIT_ULL(8),
	.dirty		= BIT_ULL(9),
	.memtype	= { 6 << 3, 1 << 3, 0 },
	.max_level	= 3,
};

static u64 *entry_of(u64 *table, gfn_t gfn, int level)
{
	return &table[(gfn / FONDA_LEVEL_PAGES(level)) % FONDA_TABLE_ENTRIES];
}

static u64 *table_of(const struct fonda_mmu_format *f, u64 entry)
{
	return __va(entry & f->address);
}

static bool is_leaf(u64 entry, int level)
{
	return level == 1 || entry & FONDA_ENTRY_LARGE;
}

/* One past the last page that the entry of @gfn translates. */
static gfn_t entry_end(gfn_t gfn, int level)
{
	return (gfn | (FONDA_LEVEL_PAGES(level) - 1)) + 1;
}

int fonda_table_init(struct fonda_table *t, const struct fonda_mmu_format *format)
{
	t->root = (u64 *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	if (!t->root)
		return -ENOMEM;
	t->format = format;
	atomic_long_set(&t->tables, 1);
	return 0;
}

void fonda_table_fini(struct fonda_table *t)
{
	u64 *list = NULL;

	if (!t->root)
		return;
	fonda_table_zap(t, NULL, 0, END_OF_MEMORY, &list);
	fonda_table_free_list(t, list);
	free_page((unsigned long)t->root);
	t->root = NULL;
}

int fonda_table_topup(struct fonda_mmu_cache *cache)
{
	for (; cache->nr_spare < FONDA_TABLE_SPARES; cache->nr_spare++) {
		cache->spare[cache->nr_spare] = (u64 *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
		if (!cache->spare[cache->nr_spare])
			return -ENOMEM;
	}
	return 0;
}

void fonda_table_drain(struct fonda_mmu_cache *cache)
{
	while (cache->nr_spare)
		free_page((unsigned long)cache->spare[--cache->nr_spare]);
}

void fonda_table_free_list(struct fonda_table *t, u64 *list)
{
	while (list) {
		u64 *next = (u64 *)(unsigned long)list[0];

		free_page((unsigned long)list);
		atomic_long_dec(&t->tables);
		list = next;
	}
}

/* A leaf for @m at @level, with the rights that it may have at first. */
static u64 make_leaf(const struct fonda_mmu_format *f, const struct fonda_mapping *m, int level)
{
	u64 leaf = f->leaf | f->accessed | f->memtype[m->memtype];

	leaf |= m->hpa & -FONDA_LEVEL_SIZE(level);
	if (level > 1)
		leaf |= FONDA_ENTRY_LARGE;
	/* While logging, a page is writable when its writes can be told. */
	if (m->writable && (!m->logging || (level == 1 && (m->write || f->dirty))))
		leaf |= FONDA_ENTRY_WRITE | (m->write ? f->dirty : 0);
	return leaf;
}

/*
 * Put a table in the place of @old: nothing, or a large leaf, which it splits.
 * Each of the new leaves counts as not written: a leaf is split while logging,
 * when it was not writable, or when nobody asks.
 */
static void add_table(struct fonda_table *t, struct fonda_mmu_cache *cache,
		      const struct fonda_mapping *m, u64 *entry, u64 old, int level)
{
	u64 *spare = cache->spare[cache->nr_spare - 1];
	const struct fonda_mmu_format *f = t->format;
	u64 leaf = old & ~f->dirty;
	int i;

	if (level == 2) {
		leaf &= ~FONDA_ENTRY_LARGE;
		/* One fault makes all of them writable, if dirty bits tell. */
		if (m->writable && m->level >= level && f->dirty)
			leaf |= FONDA_ENTRY_WRITE;
	}
	for (i = 0; old && i < FONDA_TABLE_ENTRIES; i++, leaf += FONDA_LEVEL_SIZE(level - 1))
		spare[i] = leaf;
	if (cmpxchg64(entry, old, f->table | __pa(spare)) != old) {
		clear_page(spare);
		return;
	}
	cache->nr_spare--;
	atomic_long_inc(&t->tables);
	if (old) {
		atomic_long_dec(&t->leaves[level]);
		atomic_long_add(FONDA_TABLE_ENTRIES, &t->leaves[level - 1]);
	}
}

bool fonda_table_map(struct fonda_table *t, struct fonda_mmu_cache *cache,
		     const struct fonda_mapping *m)
{
	const struct fonda_mmu_format *f = t->format;
	gfn_t gfn = m->gpa >> 12;
	int level = FONDA_ROOT_LEVEL;
	u64 *table = t->root;

	for (;;) {
		u64 *entry = entry_of(table, gfn, level);
		u64 old = READ_ONCE(*entry), new;

		if (old && !is_leaf(old, level)) {
			/* A table that was not written to for a while is. */
			new = (old | FONDA_ENTRY_WRITE) & ~FONDA_ENTRY_COOLING;
			if (m->write && !(old & FONDA_ENTRY_WRITE) &&
			    cmpxchg64(entry, old, new) != old)
				continue;
			table = table_of(f, old);
			level--;
			continue;
		}
		/* It was there, or another vCPU was faster. */
		if (old && (!m->write || old & FONDA_ENTRY_WRITE || !m->writable))
			return false;
		/* More than a page must not become writable while logging. */
		if (level > m->level || (old && level > 1 && m->logging)) {
			add_table(t, cache, m, entry, old, level);
			continue;
		}
		new = old ? old | FONDA_ENTRY_WRITE | f->accessed | f->dirty :
			    make_leaf(f, m, level);
		if (cmpxchg64(entry, old, new) != old)
			continue;
		if (!old)
			atomic_long_inc(&t->leaves[level]);
		if (!m->write || new & FONDA_ENTRY_WRITE)
			return m->write;
		/* A large leaf, which is split next. */
	}
}

/*
 * The entry where the walk for @gfn ends: one that is not in use, a leaf, or a
 * table's of level @lowest. *@old is what it holds.
 */
static u64 *find_entry(const struct fonda_table *t, gfn_t gfn, int lowest, int *level, u64 *old)
{
	u64 *table = t->root;

	for (*level = FONDA_ROOT_LEVEL; ; --*level) {
		u64 *entry = entry_of(table, gfn, *level);

		*old = READ_ONCE(*entry);
		if (!*old || *level == lowest || is_leaf(*old, *level))
			return entry;
		table = table_of(t->format, *old);
	}
}

/* If the leaf @old was written, all its pages that belong to the slot were. */
static void note_leaf(const struct fonda_mmu_format *f, const struct fonda_memslot *slot,
		      u64 old, gfn_t gfn, int level)
{
	gfn_t end;

	if (!slot || !slot->dirty_bitmap || !(old & fonda_written_bit(f)))
		return;
	end = min(entry_end(gfn, level), slot->base_gfn + slot->npages);
	for (gfn = max(gfn & -FONDA_LEVEL_PAGES(level), slot->base_gfn); gfn < end; gfn++)
		set_bit(gfn - slot->base_gfn, slot->dirty_bitmap);
}

static bool zap_level(struct fonda_table *t, u64 *table, int level,
		      const struct fonda_memslot *slot, gfn_t start, gfn_t end, u64 **free)
{
	u64 *entry = entry_of(table, start, level), *inner, old;
	bool removed = false;
	gfn_t next;

	for (; start < end; start = next, entry++) {
		next = min(end, entry_end(start, level));
		old = READ_ONCE(*entry);
		if (!old)
			continue;
		if (is_leaf(old, level)) {
			note_leaf(t->format, slot, xchg(entry, 0), start, level);
			atomic_long_dec(&t->leaves[level]);
			removed = true;
			continue;
		}
		inner = table_of(t->format, old);
		removed |= zap_level(t, inner, level - 1, slot, start, next, free);
		if (next - start < FONDA_LEVEL_PAGES(level))
			continue;
		/*
		 * The list goes through the first entry of each table. A processor
		 * may still walk them: the address of a page has no present bit, so
		 * it finds nothing.
		 */
		WRITE_ONCE(*entry, 0);
		WRITE_ONCE(inner[0], (u64)(unsigned long)*free);
		*free = inner;
		removed = true;
	}
	return removed;
}

bool fonda_table_zap(struct fonda_table *t, const struct fonda_memslot *slot,
		     gfn_t start, gfn_t end, u64 **free)
{
	return zap_level(t, t->root, FONDA_ROOT_LEVEL, slot, start, end, free);
}

/* Of the small leaves of [gfn, end), from @leaf on: was one written? */
static bool collect_small(const struct fonda_mmu_format *f, const struct fonda_memslot *slot,
			  u64 *leaf, gfn_t gfn, gfn_t end)
{
	u64 mask = fonda_written_bit(f), any = 0;

	while (gfn < end) {
		u64 page = gfn - slot->base_gfn, bit = 1ULL << page % 64, written = 0;
		u64 *last = leaf + min(end - gfn, 64 - page % 64);

		/* As far as a word of the bitmap goes. */
		gfn += last - leaf;
		do {
			if (READ_ONCE(*leaf) & mask) {
				atomic64_and(~mask, (atomic64_t *)leaf);
				written |= bit;
			}
			bit <<= 1;
		} while (++leaf < last);
		if (written && slot->dirty_bitmap)
			atomic_long_or(written, (atomic_long_t *)&slot->dirty_bitmap[page / 64]);
		any |= written;
	}
	return any;
}

static bool collect_table(const struct fonda_mmu_format *f, const struct fonda_memslot *slot,
			  u64 *entry, u64 old, gfn_t start, gfn_t end, bool cool)
{
	bool warm = old & FONDA_ENTRY_WRITE, written;

	if (!(old & (FONDA_ENTRY_WRITE | FONDA_ENTRY_COOLING)))
		return false;
	written = collect_small(f, slot, entry_of(table_of(f, old), start, 1), start, end);
	if (!cool || end - start != FONDA_TABLE_ENTRIES || (warm && written))
		return written;
	/* A write fault that comes first keeps it warm. */
	cmpxchg64(entry, old, old ^ FONDA_ENTRY_COOLING ^ (old & FONDA_ENTRY_WRITE));
	return warm || written;
}

static bool collect_large(const struct fonda_mmu_format *f, const struct fonda_memslot *slot,
			  u64 *entry, gfn_t gfn, int level)
{
	u64 mask = FONDA_ENTRY_WRITE | f->dirty, old;

	do {
		old = READ_ONCE(*entry);
		/* A table by now: what is written there waits for the next time. */
		if (!is_leaf(old, level) || !(old & mask))
			return false;
	} while (cmpxchg64(entry, old, old & ~mask) != old);
	note_leaf(f, slot, old, gfn, level);
	return true;
}

bool fonda_table_collect(struct fonda_table *t, const struct fonda_memslot *slot,
			 gfn_t start, gfn_t end, bool cool)
{
	const struct fonda_mmu_format *f = t->format;
	bool changed = false;
	u64 old, *entry;
	gfn_t next;
	int level;

	for (; start < end; start = next) {
		entry = find_entry(t, start, 2, &level, &old);
		next = min(end, entry_end(start, level));
		if (is_leaf(old, level))
			changed |= collect_large(f, slot, entry, start, level);
		else
			changed |= collect_table(f, slot, entry, old, start, next, cool);
	}
	return changed;
}

u64 *fonda_table_small_leaf(struct fonda_table *t, gfn_t gfn)
{
	int level;
	u64 old, *entry = find_entry(t, gfn, 1, &level, &old);

	return level == 1 ? entry : NULL;
}

bool fonda_table_age(struct fonda_table *t, gfn_t start, gfn_t end, bool clear)
{
	/* Without accessed bits what is mapped is young; mmu.c unmaps it. */
	u64 mask = t->format->accessed ? t->format->accessed : ~0ULL, old, *entry;
	bool young = false;
	int level;

	for (; start < end && (clear || !young); start = entry_end(start, level)) {
		entry = find_entry(t, start, 1, &level, &old);
		if (!(old & mask))
			continue;
		young = true;
		if (clear)
			atomic64_and(~t->format->accessed, (atomic64_t *)entry);
	}
	return young;
}
