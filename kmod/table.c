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
	.present	= BIT_ULL(0),
	.table		= BIT_ULL(0) | BIT_ULL(1) | BIT_ULL(2) | BIT_ULL(5),
	.leaf		= BIT_ULL(0) | BIT_ULL(2),
	.write		= BIT_ULL(1),
	.large		= BIT_ULL(7),
	.accessed	= BIT_ULL(5),
	.dirty		= BIT_ULL(6),
	.split		= BIT_ULL(11),
	.cooling	= BIT_ULL(52),
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
	.present	= BIT_ULL(0),
	.table		= BIT_ULL(0) | BIT_ULL(1) | BIT_ULL(2) | BIT_ULL(8),
	.leaf		= BIT_ULL(0) | BIT_ULL(2) | BIT_ULL(6),
	.write		= BIT_ULL(1),
	.large		= BIT_ULL(7),
	.accessed	= BIT_ULL(8),
	.dirty		= BIT_ULL(9),
	.split		= BIT_ULL(11),
	.cooling	= BIT_ULL(52),
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

static bool is_leaf(const struct fonda_mmu_format *f, u64 entry, int level)
{
	return level == 1 || entry & f->large;
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
	int i;

	t->root = alloc_table();
	if (!t->root)
		return -ENOMEM;
	t->format = format;
	for (i = 0; i <= FONDA_MAX_LEAF_LEVEL; i++)
		atomic_long_set(&t->leaves[i], 0);
	atomic_long_set(&t->tables, 1);
	return 0;
}

void fonda_table_fini(struct fonda_table *t)
{
	u64 *list = NULL;

	fonda_table_zap(t, 0, END_OF_MEMORY, NULL, &list);
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
		leaf |= f->large;
	/* While logging, a page is writable when its writes can be told. */
	if (m->logging)
		writable &= level == 1 && (m->write || !m->by_write);
	if (writable)
		leaf |= f->write;
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
		leaf &= ~f->large;
		/* One fault makes all of them writable, if dirty bits tell. */
		if (m->writable && m->level >= level && !m->by_write)
			leaf |= f->write;
	}
	for (i = 0; i < FONDA_TABLE_ENTRIES; i++, leaf += step)
		table[i] = leaf;
}

/* What shall be in place of @old, which does not permit the access? */
static u64 make_entry(const struct fonda_mmu_format *f, const struct fonda_mapping *m,
		      struct fonda_mmu_cache *cache, u64 old, int level, bool *table, bool *split)
{
	bool present = old & f->present;
	u64 *spare;

	/* More than a page must not become writable while logging. */
	*split = present && level > 1 && (m->logging || level > m->level);
	*table = *split || (!present && level > m->level);
	if (*table) {
		spare = cache->spare[cache->nr_spare - 1];
		if (*split)
			fill_split(f, m, spare, old, level);
		return f->table | __pa(spare) | (*split ? f->split : 0);
	}
	if (present)
		return old | f->write | f->accessed | f->dirty;
	return make_leaf(f, m, level);
}

static void count_change(struct fonda_table *t, bool table, bool split, bool was_present, int level)
{
	if (table)
		atomic_long_inc(&t->tables);
	else if (!was_present)
		atomic_long_inc(&t->leaves[level]);
	if (split) {
		atomic_long_dec(&t->leaves[level]);
		atomic_long_add(FONDA_TABLE_ENTRIES, &t->leaves[level - 1]);
	}
}

/* A table that was not written to for a while is. False: it has changed. */
static bool warm_up(const struct fonda_mmu_format *f, u64 *entry, u64 old)
{
	return cmpxchg64(entry, old, (old | f->write) & ~f->cooling) == old;
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
		bool new_table, split;

		if (old & f->present) {
			if (!is_leaf(f, old, level)) {
				if (m->write && !(old & f->write) && !warm_up(f, entry, old))
					continue;
				table = table_of(f, old);
				level--;
				continue;
			}
			/* It was there, or another vCPU was faster. */
			if (!m->write || old & f->write || !m->writable)
				return false;
		}

		new = make_entry(f, m, cache, old, level, &new_table, &split);
		if (cmpxchg64(entry, old, new) != old) {
			if (split)
				clear_page(cache->spare[cache->nr_spare - 1]);
			continue;
		}
		count_change(t, new_table, split, old & f->present, level);
		if (new_table)
			cache->nr_spare--;
		else if (!m->write || new & f->write)
			return m->write;
		/* A new table is filled next, a large leaf is split next. */
	}
}

/*
 * Called for each entry in use that translates pages of the range: a leaf of
 * more than a page, or a table of small leaves (level 2). @start and @end are
 * the part of the range that it translates. Not 0 ends the walk.
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
		if (!(old & f->present))
			continue;
		if (level == 2 || is_leaf(f, old, level))
			ret = fn(ctx, entry, old, start, next, level);
		else
			ret = walk_level(f, table_of(f, old), level - 1, start, next, fn, ctx);
	}
	return ret;
}

static int walk(struct fonda_table *t, gfn_t start, gfn_t end, walk_fn fn, void *ctx)
{
	return walk_level(t->format, t->root, FONDA_ROOT_LEVEL, start, end, fn, ctx);
}

/* The leaf at @gfn was written: all its pages that belong to the slot were. */
static void note_leaf(const struct fonda_dirty_sink *sink, gfn_t gfn, int level)
{
	gfn_t end = min(gfn + FONDA_LEVEL_PAGES(level), sink->base_gfn + sink->npages);

	for (gfn = max(gfn, sink->base_gfn); gfn < end; gfn++)
		set_bit(gfn - sink->base_gfn, sink->bitmap);
}

struct zap {
	struct fonda_table *t;
	const struct fonda_dirty_sink *sink;
	u64 **free;
	long leaves[FONDA_MAX_LEAF_LEVEL + 1];
	bool removed;
};

static void zap_leaf(struct zap *z, u64 *entry, gfn_t gfn, int level)
{
	u64 old = xchg(entry, 0);

	z->leaves[level]++;
	z->removed = true;
	if (z->sink && z->sink->bitmap && old & z->sink->mask)
		note_leaf(z->sink, gfn & -FONDA_LEVEL_PAGES(level), level);
}

/* With @split_only, leaves stay that are not below a table made by a split. */
static void zap_level(struct zap *z, u64 *table, int level, gfn_t start, gfn_t end, bool split_only)
{
	const struct fonda_mmu_format *f = z->t->format;
	u64 *entry = entry_of(table, start, level);
	gfn_t next;

	for (; start < end; start = next, entry++) {
		u64 old = READ_ONCE(*entry);
		bool keep = split_only;

		next = min(end, entry_end(start, level));
		if (!(old & f->present))
			continue;
		if (is_leaf(f, old, level)) {
			if (!keep)
				zap_leaf(z, entry, start, level);
			continue;
		}
		if (next - start < FONDA_LEVEL_PAGES(level)) {
			zap_level(z, table_of(f, old), level - 1, start, next, keep);
			continue;
		}
		if (old & f->split)
			keep = false;
		zap_level(z, table_of(f, old), level - 1, start, next, keep);
		if (!keep) {
			WRITE_ONCE(*entry, 0);
			push_free(z->free, table_of(f, old));
			z->removed = true;
		}
	}
}

static bool zap(struct fonda_table *t, gfn_t start, gfn_t end,
		const struct fonda_dirty_sink *sink, u64 **free, bool split_only)
{
	struct zap z = { .t = t, .sink = sink, .free = free };
	int level;

	zap_level(&z, t->root, FONDA_ROOT_LEVEL, start, end, split_only);
	for (level = 1; level <= FONDA_MAX_LEAF_LEVEL; level++)
		if (z.leaves[level])
			atomic_long_sub(z.leaves[level], &t->leaves[level]);
	return z.removed;
}

bool fonda_table_zap(struct fonda_table *t, gfn_t start, gfn_t end,
		     const struct fonda_dirty_sink *sink, u64 **free)
{
	return zap(t, start, end, sink, free, false);
}

bool fonda_table_unsplit(struct fonda_table *t, gfn_t start, gfn_t end, u64 **free)
{
	return zap(t, start, end, NULL, free, true);
}

struct collect {
	const struct fonda_mmu_format *f;
	const struct fonda_dirty_sink *sink;
	const unsigned long *want;
	gfn_t start, end;
	bool changed;
};

/* Of @n entries (1 to 64), which were written and, unless @all, are wanted? */
static __always_inline u64 collect_word(u64 *entry, unsigned int n, u64 mask, u64 want, bool all)
{
	u64 written = 0, bit = 1;
	u64 *end = entry + n;

	do {
		if (READ_ONCE(*entry) & mask && (all || want & bit)) {
			clear_bits(entry, mask);
			written |= bit;
		}
		bit <<= 1;
	} while (++entry < end);
	return written;
}

static u64 collect_small(struct collect *c, u64 *entry, gfn_t gfn, u32 nr)
{
	u64 mask = c->sink->mask, any = 0;

	while (nr) {
		u64 page = gfn - c->sink->base_gfn, want = ~0ULL, written = 0;
		unsigned int shift = page % 64;
		unsigned int n = min(nr, 64 - shift);

		if (c->want)
			want = c->want[(gfn - c->start) / 64] >> shift;
		/* Most often all are wanted: not to ask each saves a fifth. */
		if (want == ~0ULL)
			written = collect_word(entry, n, mask, want, true);
		else if (want)
			written = collect_word(entry, n, mask, want, false);
		if (written && c->sink->bitmap)
			atomic_long_or(written << shift,
				       (atomic_long_t *)&c->sink->bitmap[page / 64]);
		any |= written;
		entry += n;
		gfn += n;
		nr -= n;
	}
	return any;
}

static void collect_table(struct collect *c, u64 *entry, u64 old, gfn_t start, gfn_t end)
{
	const struct fonda_mmu_format *f = c->f;
	u64 written, new = old;

	if (!(old & (f->write | f->cooling)))
		return;
	written = collect_small(c, entry_of(table_of(f, old), start, 1), start, end - start);
	if (written)
		c->changed = true;
	if (c->want || end - start != FONDA_TABLE_ENTRIES)
		return;

	if (!(old & f->write)) {
		new &= ~f->cooling;
	} else if (!written) {
		new = (old & ~f->write) | f->cooling;
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
	u64 mask = c->f->write | c->f->dirty, old;

	if (c->want && find_next_bit(c->want, end, first) >= end)
		return;
	do {
		old = READ_ONCE(*entry);
		/* A table by now: what is written there waits for the next time. */
		if (!is_leaf(c->f, old, level) || !(old & mask))
			return;
	} while (cmpxchg64(entry, old, old & ~mask) != old);
	c->changed = true;
	if (c->sink->bitmap && old & c->sink->mask)
		note_leaf(c->sink, gfn, level);
}

static int collect_entry(void *ctx, u64 *entry, u64 old, gfn_t start, gfn_t end, int level)
{
	struct collect *c = ctx;

	if (is_leaf(c->f, old, level))
		collect_large(c, entry, start & -FONDA_LEVEL_PAGES(level), level);
	else
		collect_table(c, entry, old, start, end);
	return 0;
}

bool fonda_table_collect(struct fonda_table *t, gfn_t start, gfn_t end,
			 const struct fonda_dirty_sink *sink, const unsigned long *want)
{
	struct collect c = {
		.f = t->format, .sink = sink, .want = want, .start = start, .end = end,
	};

	walk(t, start, end, collect_entry, &c);
	return c.changed;
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

	if (!is_leaf(a->f, old, level)) {
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
	struct age a = { .f = t->format, .mask = t->format->accessed, .clear = clear };

	if (!a.mask) {
		a.mask = t->format->present;
		a.clear = false;
	}
	walk(t, start, end, age_entry, &a);
	return a.young;
}
