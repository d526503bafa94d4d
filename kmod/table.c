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
#include <linux/atomic.h>
#include <linux/bitops.h>
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/string.h>

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

static void clear_bits(u64 *entry, u64 bits)
{
	atomic64_and(~bits, (atomic64_t *)entry);
}

static u64 *alloc_table(void)
{
	return (u64 *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
}

int fonda_table_init(struct fonda_table *t, const struct fonda_mmu_format *format)
{
	t->root = alloc_table();
	if (!t->root)
		return -ENOMEM;
	t->format = format;
	atomic_long_set(&t->tables, 1);
	return 0;
}

void fonda_table_fini(struct fonda_table *t)
{
	u64 *list = NULL;

	fonda_table_zap(t, NULL, 0, END_OF_MEMORY, &list);
	fonda_table_free_list(t, list);
	free_page((unsigned long)t->root);
	t->root = NULL;
}

int fonda_table_topup(struct fonda_mmu_cache *cache)
{
	while (cache->nr_spare < FONDA_TABLE_SPARES) {
		u64 *table = alloc_table();

		if (!table)
			return -ENOMEM;
		cache->spare[cache->nr_spare++] = table;
	}
	return 0;
}

void fonda_table_drain(struct fonda_mmu_cache *cache)
{
	while (cache->nr_spare)
		free_page((unsigned long)cache->spare[--cache->nr_spare]);
}

/*
 * The list goes through the first entry of each table. A processor may still
 * walk them: the address of a page has no present bit, so it finds nothing.
 */
static void push_free(u64 **list, u64 *table)
{
	WRITE_ONCE(table[0], (u64)(unsigned long)*list);
	*list = table;
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
	u64 size = FONDA_LEVEL_SIZE(level);
	u64 leaf = f->leaf | f->accessed | f->memtype[m->memtype] | (m->hpa & -size);
	bool writable = m->writable;

	if (level > 1)
		leaf |= FONDA_ENTRY_LARGE;
	/* While logging, a page is writable when its writes can be told. */
	if (m->logging)
		writable &= level == 1 && (m->write || f->dirty);
	if (writable)
		leaf |= FONDA_ENTRY_WRITE;
	if (writable && m->write)
		leaf |= f->dirty;
	return leaf;
}

/*
 * Fill @table with what the large @leaf of @level translated. Each of the new
 * leaves counts as not written: a leaf is split while logging, when it was not
 * writable, or when nobody asks.
 */
static void fill_split(const struct fonda_mmu_format *f, const struct fonda_mapping *m,
		       u64 *table, u64 leaf, int level)
{
	u64 step = FONDA_LEVEL_SIZE(level - 1);
	int i;

	leaf &= ~f->dirty;
	if (level == 2) {
		leaf &= ~FONDA_ENTRY_LARGE;
		/* One fault makes all of them writable, if dirty bits tell. */
		if (m->writable && m->level >= level && f->dirty)
			leaf |= FONDA_ENTRY_WRITE;
	}
	for (i = 0; i < FONDA_TABLE_ENTRIES; i++, leaf += step)
		table[i] = leaf;
}

/* Put a table in the place of @old: nothing, or a large leaf, which it splits. */
static void add_table(struct fonda_table *t, struct fonda_mmu_cache *cache,
		      const struct fonda_mapping *m, u64 *entry, u64 old, int level)
{
	u64 *spare = cache->spare[cache->nr_spare - 1];
	const struct fonda_mmu_format *f = t->format;

	if (old)
		fill_split(f, m, spare, old, level);
	if (cmpxchg64(entry, old, f->table | __pa(spare)) != old) {
		if (old)
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
 * Called for each entry in use that translates pages of the range, above the
 * small leaves: for a table after the entries in it. @start and @end are the
 * part of the range that it translates. Not 0 ends the walk.
 */
typedef int (*walk_fn)(void *ctx, u64 *entry, u64 old, gfn_t start, gfn_t end, int level);

static int walk_level(const struct fonda_mmu_format *f, u64 *table, int level,
		      gfn_t start, gfn_t end, walk_fn fn, void *ctx)
{
	u64 *entry = entry_of(table, start, level);
	int ret = 0;
	gfn_t next;

	for (; start < end && !ret; start = next, entry++) {
		u64 old = READ_ONCE(*entry);

		next = min(end, entry_end(start, level));
		if (!old)
			continue;
		if (level > 2 && !is_leaf(old, level))
			ret = walk_level(f, table_of(f, old), level - 1, start, next, fn, ctx);
		if (!ret)
			ret = fn(ctx, entry, old, start, next, level);
	}
	return ret;
}

static int walk(struct fonda_table *t, gfn_t start, gfn_t end, walk_fn fn, void *ctx)
{
	return walk_level(t->format, t->root, FONDA_ROOT_LEVEL, start, end, fn, ctx);
}

/* The leaf at @gfn was written: all its pages that belong to the slot were. */
static void note_leaf(const struct fonda_memslot *slot, unsigned long *bitmap, gfn_t gfn, int level)
{
	gfn_t end = min(gfn + FONDA_LEVEL_PAGES(level), slot->base_gfn + slot->npages);

	for (gfn = max(gfn, slot->base_gfn); gfn < end; gfn++)
		set_bit(gfn - slot->base_gfn, bitmap);
}

struct zap {
	struct fonda_table *t;
	const struct fonda_memslot *slot;
	u64 **free;
	bool removed;
};

static void zap_leaf(struct zap *z, u64 *entry, gfn_t gfn, int level)
{
	u64 old;

	if (!READ_ONCE(*entry))
		return;
	old = xchg(entry, 0);
	z->removed = true;
	atomic_long_dec(&z->t->leaves[level]);
	if (z->slot && z->slot->dirty_bitmap && old & fonda_written_bit(z->t->format))
		note_leaf(z->slot, z->slot->dirty_bitmap, gfn & -FONDA_LEVEL_PAGES(level), level);
}

static int zap_entry(void *ctx, u64 *entry, u64 old, gfn_t start, gfn_t end, int level)
{
	bool covered = end - start == FONDA_LEVEL_PAGES(level);
	struct zap *z = ctx;
	u64 *table, *leaf;

	if (is_leaf(old, level)) {
		zap_leaf(z, entry, start, level);
		return 0;
	}
	table = table_of(z->t->format, old);
	if (level == 2)
		for (leaf = entry_of(table, start, 1); start < end; start++, leaf++)
			zap_leaf(z, leaf, start, 1);
	if (covered) {
		WRITE_ONCE(*entry, 0);
		push_free(z->free, table);
		z->removed = true;
	}
	return 0;
}

bool fonda_table_zap(struct fonda_table *t, const struct fonda_memslot *slot,
		     gfn_t start, gfn_t end, u64 **free)
{
	struct zap z = { .t = t, .slot = slot, .free = free };

	walk(t, start, end, zap_entry, &z);
	return z.removed;
}

struct collect {
	const struct fonda_mmu_format *f;
	const struct fonda_memslot *slot;
	unsigned long *bitmap;
	const unsigned long *want;
	gfn_t start, end;
	bool changed;
};

/* Whether any of the small leaves of [gfn, end), from @entry on, was written. */
static bool collect_small(struct collect *c, u64 *entry, gfn_t gfn, gfn_t end)
{
	u64 mask = fonda_written_bit(c->f), any = 0;

	while (gfn < end) {
		u64 page = gfn - c->slot->base_gfn, bit = 1ULL << page % 64;
		u64 want = c->want ? c->want[(gfn - c->start) / 64] : ~0ULL, written = 0;
		u64 *last = entry + min(end - gfn, 64 - page % 64);

		/* As far as a word of the bitmap goes. */
		gfn += last - entry;
		do {
			if (want & bit && READ_ONCE(*entry) & mask) {
				clear_bits(entry, mask);
				written |= bit;
			}
			bit <<= 1;
		} while (++entry < last);
		if (written && c->bitmap)
			atomic_long_or(written, (atomic_long_t *)&c->bitmap[page / 64]);
		any |= written;
	}
	return any;
}

static void collect_table(struct collect *c, u64 *entry, u64 old, gfn_t start, gfn_t end)
{
	u64 new = old;
	bool written;

	if (!(old & (FONDA_ENTRY_WRITE | FONDA_ENTRY_COOLING)))
		return;
	written = collect_small(c, entry_of(table_of(c->f, old), start, 1), start, end);
	c->changed |= written;
	if (c->want || end - start != FONDA_TABLE_ENTRIES)
		return;

	if (!(old & FONDA_ENTRY_WRITE)) {
		new &= ~FONDA_ENTRY_COOLING;
	} else if (!written) {
		new = (old & ~FONDA_ENTRY_WRITE) | FONDA_ENTRY_COOLING;
		c->changed = true;
	}
	/* A write fault that comes first keeps it warm. */
	if (new != old)
		cmpxchg64(entry, old, new);
}

static void collect_large(struct collect *c, u64 *entry, gfn_t gfn, int level)
{
	gfn_t first = max(gfn, c->start) - c->start;
	gfn_t end = min(gfn + FONDA_LEVEL_PAGES(level), c->end) - c->start;
	u64 mask = FONDA_ENTRY_WRITE | c->f->dirty, old;

	if (c->want && find_next_bit(c->want, end, first) >= end)
		return;
	do {
		old = READ_ONCE(*entry);
		/* A table by now: what is written there waits for the next time. */
		if (!is_leaf(old, level) || !(old & mask))
			return;
	} while (cmpxchg64(entry, old, old & ~mask) != old);
	c->changed = true;
	if (c->bitmap && old & fonda_written_bit(c->f))
		note_leaf(c->slot, c->bitmap, gfn, level);
}

static int collect_entry(void *ctx, u64 *entry, u64 old, gfn_t start, gfn_t end, int level)
{
	struct collect *c = ctx;

	if (is_leaf(old, level))
		collect_large(c, entry, start & -FONDA_LEVEL_PAGES(level), level);
	else if (level == 2)
		collect_table(c, entry, old, start, end);
	return 0;
}

bool fonda_table_collect(struct fonda_table *t, const struct fonda_memslot *slot,
			 gfn_t start, gfn_t end, unsigned long *bitmap, const unsigned long *want)
{
	struct collect c = {
		.f = t->format, .slot = slot, .bitmap = bitmap, .want = want,
		.start = start, .end = end,
	};

	walk(t, start, end, collect_entry, &c);
	return c.changed;
}

u64 *fonda_table_small_leaf(struct fonda_table *t, gfn_t gfn)
{
	u64 *table = t->root;
	int level;

	for (level = FONDA_ROOT_LEVEL; level > 1; level--) {
		u64 entry = READ_ONCE(*entry_of(table, gfn, level));

		if (!entry || is_leaf(entry, level))
			return NULL;
		table = table_of(t->format, entry);
	}
	return entry_of(table, gfn, 1);
}

struct age {
	const struct fonda_mmu_format *f;
	u64 mask;
	bool clear, young;
};

static int age_entry(void *ctx, u64 *entry, u64 old, gfn_t start, gfn_t end, int level)
{
	u64 *leaf = entry, *last = entry + 1;
	struct age *a = ctx;

	if (!is_leaf(old, level)) {
		if (level > 2)
			return 0;
		leaf = entry_of(table_of(a->f, old), start, 1);
		last = leaf + (end - start);
	}
	for (; leaf < last; leaf++) {
		if (!(READ_ONCE(*leaf) & a->mask))
			continue;
		a->young = true;
		if (!a->clear)
			return 1;
		clear_bits(leaf, a->mask);
	}
	return 0;
}

bool fonda_table_age(struct fonda_table *t, gfn_t start, gfn_t end, bool clear)
{
	/* Without accessed bits what is mapped is young; mmu.c unmaps it. */
	u64 accessed = t->format->accessed;
	struct age a = {
		.f = t->format, .mask = accessed ? accessed : ~0ULL, .clear = clear && accessed,
	};

	walk(t, start, end, age_entry, &a);
	return a.young;
}
