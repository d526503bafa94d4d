// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The second-stage page tables (kmod/table.c) in both formats. A processor is
 * imitated by a walk that obeys the manuals and sets the accessed and dirty
 * bits; what it could write must be what collecting reports.
 */
#include <linux/atomic.h>
#include <linux/bitops.h>
#include <linux/gfp.h>
#include <linux/mm.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>

#include "mmu.h"
#include "rng.h"
#include "tap.h"

long unit_pages_left = 1L << 40;

#define MB2	(2ULL << 20)
#define GB1	(1ULL << 30)

static const struct fonda_mmu_format *const formats[] = { &fonda_npt_format, &fonda_ept_format };

#define for_each_format(f)	\
	for (int _i = 0; _i < 2 && ((f) = formats[_i], true); _i++)

struct bench {
	struct fonda_table t;
	struct fonda_mmu_cache cache;
};

static void setup(struct bench *b, const struct fonda_mmu_format *f)
{
	memset(b, 0, sizeof(*b));
	ASSERT_EQ(fonda_table_init(&b->t, f), 0);
}

static void teardown(struct bench *b)
{
	fonda_table_drain(&b->cache);
	fonda_table_fini(&b->t);
	EXPECT_EQ(atomic_long_read(&b->t.tables), 1);
	EXPECT_EQ(atomic_long_read(&b->t.leaves[1]), 0);
	EXPECT_EQ(atomic_long_read(&b->t.leaves[2]), 0);
	EXPECT_EQ(atomic_long_read(&b->t.leaves[3]), 0);
}

static bool map(struct bench *b, struct fonda_mapping m)
{
	ASSERT_EQ(fonda_table_topup(&b->cache), 0);
	return fonda_table_map(&b->t, &b->cache, &m);
}

/*
 * What a processor does: the rights of all levels count, each level's entry is
 * marked accessed, the leaf dirty by a write. The leaf's entry, or NULL for a
 * fault. *@hpa is where the access goes.
 */
static u64 *cpu_access(struct fonda_table *t, gpa_t gpa, bool write, hpa_t *hpa, int *level_p)
{
	const struct fonda_mmu_format *f = t->format;
	u64 *table = t->root;
	int level;

	for (level = 4; ; level--) {
		u64 *entry = &table[gpa >> (3 + 9 * level) & 511];
		u64 old = __atomic_load_n(entry, __ATOMIC_SEQ_CST), new;
		bool leaf;

		do {
			if (!old || (write && !(old & FONDA_ENTRY_WRITE)))
				return NULL;
			leaf = level == 1 || old & FONDA_ENTRY_LARGE;
			new = old | f->accessed | (leaf && write ? f->dirty : 0);
		} while (!__atomic_compare_exchange_n(entry, &old, new, false,
						      __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
		if (leaf) {
			u64 offset = gpa & ((1ULL << (3 + 9 * level)) - 1);

			/* Reserved bits of a large leaf's address. */
			EXPECT_EQ(new & f->address & ((1ULL << (3 + 9 * level)) - 1), 0);
			if (hpa)
				*hpa = (new & f->address) + offset;
			if (level_p)
				*level_p = level;
			return entry;
		}
		EXPECT_EQ((new | FONDA_ENTRY_WRITE) & f->table, f->table);
		table = __va(new & f->address);
	}
}

static bool can_write(struct fonda_table *t, gpa_t gpa)
{
	return cpu_access(t, gpa, true, NULL, NULL);
}

TEST(each_size_of_leaf_translates_all_of_its_range)
{
	const struct fonda_mmu_format *f;
	struct bench b;
	int level, i;

	for_each_format(f) {
		for (level = 1; level <= 3; level++) {
			u64 size = FONDA_LEVEL_SIZE(level);
			gpa_t base = 3 * GB1;
			hpa_t hpa;
			int got;

			setup(&b, f);
			/* The fault is somewhere inside. */
			map(&b, (struct fonda_mapping){
				.gpa = base + (size / 2 & ~0xfffULL),
				.hpa = 5 * GB1 + (size / 2 & ~0xfffULL),
				.level = level, .writable = true });
			for (i = 0; i < 16; i++) {
				ASSERT_NE(cpu_access(&b.t, base + size / 16 * i, true, &hpa, &got),
					  NULL);
				EXPECT_EQ(hpa, 5 * GB1 + size / 16 * i);
				EXPECT_EQ(got, level);
			}
			EXPECT_EQ(cpu_access(&b.t, base - 1, false, NULL, NULL), NULL);
			EXPECT_EQ(cpu_access(&b.t, base + size, false, NULL, NULL), NULL);
			EXPECT_EQ(atomic_long_read(&b.t.leaves[level]), 1);
			EXPECT_EQ(atomic_long_read(&b.t.tables), 5 - level);
			teardown(&b);
		}
	}
}

TEST(the_highest_page_is_reached)
{
	const struct fonda_mmu_format *f;
	struct bench b;
	gpa_t last = (1ULL << FONDA_GPA_BITS) - 4096;
	u64 *list = NULL;

	for_each_format(f) {
		setup(&b, f);
		map(&b, (struct fonda_mapping){ .gpa = last, .hpa = 4096, .level = 1 });
		EXPECT_NE(cpu_access(&b.t, last, false, NULL, NULL), NULL);
		EXPECT_TRUE(fonda_table_zap(&b.t, NULL, last >> 12, (last >> 12) + 1, &list));
		EXPECT_EQ(list, NULL);
		teardown(&b);
	}
}

TEST(a_read_only_page_becomes_writable_by_a_write_fault)
{
	struct fonda_mapping m = { .gpa = MB2, .hpa = GB1, .level = 2 };
	const struct fonda_mmu_format *f;
	struct bench b;

	for_each_format(f) {
		setup(&b, f);
		EXPECT_FALSE(map(&b, m));
		EXPECT_FALSE(can_write(&b.t, MB2));
		m.write = m.writable = true;
		EXPECT_TRUE(map(&b, m));
		EXPECT_TRUE(can_write(&b.t, MB2));
		/* A second vCPU's fault finds it done. */
		EXPECT_FALSE(map(&b, m));
		EXPECT_EQ(atomic_long_read(&b.t.leaves[2]), 1);
		m.write = m.writable = false;
		teardown(&b);
	}
}

TEST(memory_types_reach_the_leaf)
{
	const struct fonda_mmu_format *f;
	struct bench b;
	int type;

	for_each_format(f) {
		setup(&b, f);
		for (type = FONDA_MEM_WB; type <= FONDA_MEM_UC; type++) {
			u64 all = f->memtype[0] | f->memtype[1] | f->memtype[2];
			gpa_t gpa = type * 4096;
			u64 *entry;

			map(&b, (struct fonda_mapping){ .gpa = gpa, .hpa = GB1 + gpa,
							.level = 1, .memtype = type });
			entry = cpu_access(&b.t, gpa, false, NULL, NULL);
			ASSERT_NE(entry, NULL);
			EXPECT_EQ(*entry & all, f->memtype[type]);
		}
		teardown(&b);
	}
}

/* The same format without dirty bits, so that writes are known by protection. */
static const struct fonda_mmu_format *
logging_format(const struct fonda_mmu_format *f, bool by_write)
{
	static struct fonda_mmu_format copy;

	if (!by_write)
		return f;
	copy = *f;
	copy.dirty = 0;
	return &copy;
}

static struct fonda_memslot slot_of(unsigned long *bitmap, gfn_t base, u64 npages)
{
	return (struct fonda_memslot){
		.dirty_bitmap = bitmap, .base_gfn = base, .npages = npages,
	};
}

static bool collect(struct bench *b, const struct fonda_memslot *slot, gfn_t start, gfn_t end)
{
	return fonda_table_collect(&b->t, slot, start, end, true);
}

static u64 count_bits(const unsigned long *bitmap, u64 n)
{
	u64 i, count = 0;

	for (i = 0; i < n; i++)
		count += test_bit(i, bitmap);
	return count;
}

TEST(a_large_leaf_is_split_by_the_first_write_while_logging)
{
	unsigned long bitmap[8] = { };
	const struct fonda_mmu_format *f;
	struct fonda_memslot slot;
	struct bench b;
	int by_write, got;
	gpa_t gpa;
	hpa_t hpa;

	for_each_format(f) {
		for (by_write = 0; by_write < 2; by_write++) {
			struct fonda_mapping m = {
				.gpa = MB2, .hpa = GB1, .level = 2, .writable = true };

			setup(&b, logging_format(f, by_write));
			map(&b, m);
			EXPECT_TRUE(can_write(&b.t, MB2));

			/* Logging begins: what was written before is of no interest. */
			slot = slot_of(NULL, 512, 512);
			EXPECT_TRUE(collect(&b, &slot, 512, 1024));
			EXPECT_FALSE(can_write(&b.t, MB2));
			EXPECT_FALSE(collect(&b, &slot, 512, 1024));

			m.gpa += 5 * 4096;
			m.hpa += 5 * 4096;
			m.logging = m.write = true;
			EXPECT_EQ(map(&b, m), by_write);
			EXPECT_EQ(atomic_long_read(&b.t.leaves[1]), 512);
			EXPECT_EQ(atomic_long_read(&b.t.leaves[2]), 0);
			for (gpa = MB2; gpa < 2 * MB2; gpa += 4096) {
				ASSERT_NE(cpu_access(&b.t, gpa, false, &hpa, &got), NULL);
				EXPECT_EQ(hpa, GB1 + gpa - MB2);
				EXPECT_EQ(got, 1);
			}

			/* By dirty bits, writes do not fault from then on. */
			memset(bitmap, 0, sizeof(bitmap));
			slot = slot_of(bitmap, 512, 512);
			EXPECT_TRUE(can_write(&b.t, MB2 + 5 * 4096));
			EXPECT_EQ(can_write(&b.t, MB2 + 9 * 4096), !by_write);
			EXPECT_TRUE(collect(&b, &slot, 512, 1024));
			EXPECT_TRUE(test_bit(5, bitmap));
			EXPECT_EQ(count_bits(bitmap, 512), by_write ? 1 : 2);
			EXPECT_EQ(can_write(&b.t, MB2 + 5 * 4096), !by_write);
			teardown(&b);
		}
	}
}

TEST(a_gigabyte_is_split_twice)
{
	const struct fonda_mmu_format *f;
	struct bench b;
	hpa_t hpa;
	int got;

	for_each_format(f) {
		struct fonda_mapping m = { .gpa = GB1, .hpa = 2 * GB1, .level = 3,
					   .writable = true, .logging = true };

		setup(&b, f);
		/* A read maps it whole, without the right to write. */
		map(&b, m);
		EXPECT_EQ(atomic_long_read(&b.t.leaves[3]), 1);
		EXPECT_FALSE(can_write(&b.t, GB1));
		m.write = true;
		m.gpa += 7 * MB2 + 4096;
		m.hpa += 7 * MB2 + 4096;
		map(&b, m);
		EXPECT_EQ(atomic_long_read(&b.t.leaves[3]), 0);
		EXPECT_EQ(atomic_long_read(&b.t.leaves[2]), 511);
		EXPECT_EQ(atomic_long_read(&b.t.leaves[1]), 512);
		EXPECT_TRUE(can_write(&b.t, m.gpa));
		EXPECT_FALSE(can_write(&b.t, GB1));
		EXPECT_NE(cpu_access(&b.t, GB1 + 8 * MB2 + 12345, false, &hpa, &got), NULL);
		EXPECT_EQ(hpa, 2 * GB1 + 8 * MB2 + 12345);
		EXPECT_EQ(got, 2);
		teardown(&b);
	}
}

TEST(a_write_that_maps_while_logging_maps_small)
{
	struct fonda_mapping m = { .gpa = MB2 + 4096, .hpa = GB1 + 4096, .level = 2,
				   .writable = true, .logging = true, .write = true };
	unsigned long bitmap[8] = { };
	const struct fonda_mmu_format *f;
	struct fonda_memslot slot;
	struct bench b;

	for_each_format(f) {
		setup(&b, f);
		map(&b, m);
		EXPECT_EQ(atomic_long_read(&b.t.leaves[1]), 512);
		EXPECT_TRUE(can_write(&b.t, MB2 + 4096));
		memset(bitmap, 0, sizeof(bitmap));
		slot = slot_of(bitmap, 512, 512);
		collect(&b, &slot, 512, 1024);
		EXPECT_EQ(bitmap[0], 2);
		EXPECT_EQ(count_bits(bitmap, 512), 1);
		teardown(&b);
	}
}

TEST(removal_notes_what_was_written_and_frees_covered_tables)
{
	const struct fonda_mmu_format *f;
	struct bench b;

	for_each_format(f) {
		/* The slot begins in the middle of a table, and of a word. */
		unsigned long bitmap[16] = { };
		struct fonda_memslot slot;
		u64 *list = NULL;
		gfn_t gfn;

		setup(&b, f);
		for (gfn = 0x1f3; gfn < 0x500; gfn++)
			map(&b, (struct fonda_mapping){ .gpa = gfn << 12, .hpa = gfn << 12,
							.level = 1, .writable = true });
		EXPECT_EQ(atomic_long_read(&b.t.leaves[1]), 0x500 - 0x1f3);
		EXPECT_EQ(atomic_long_read(&b.t.tables), 3 + 3);
		can_write(&b.t, 0x1f3000);
		can_write(&b.t, 0x2ab000);
		can_write(&b.t, 0x4ff000);

		slot = slot_of(bitmap, 0x1f3, 0x500 - 0x1f3);
		EXPECT_TRUE(fonda_table_zap(&b.t, &slot, 0x1f3, 0x400, &list));
		EXPECT_EQ(count_bits(bitmap, 0x500 - 0x1f3), 2);
		EXPECT_TRUE(test_bit(0, bitmap));
		EXPECT_TRUE(test_bit(0x2ab - 0x1f3, bitmap));
		EXPECT_EQ(cpu_access(&b.t, 0x3ff000, false, NULL, NULL), NULL);
		EXPECT_NE(cpu_access(&b.t, 0x400000, false, NULL, NULL), NULL);
		/* Of three tables the range covers the second only. */
		EXPECT_NE(list, NULL);
		fonda_table_free_list(&b.t, list);
		EXPECT_EQ(atomic_long_read(&b.t.tables), 3 + 2);
		EXPECT_EQ(atomic_long_read(&b.t.leaves[1]), 0x100);

		list = NULL;
		EXPECT_FALSE(fonda_table_zap(&b.t, &slot, 0x1f3, 0x400, &list));
		EXPECT_EQ(list, NULL);
		teardown(&b);
	}
}

TEST(a_removed_table_shows_nothing_to_a_processor_that_still_walks_it)
{
	const struct fonda_mmu_format *f;
	struct bench b;
	int i;

	for_each_format(f) {
		u64 *list = NULL, *table;

		setup(&b, f);
		map(&b, (struct fonda_mapping){ .gpa = 0, .hpa = GB1, .level = 1 });
		map(&b, (struct fonda_mapping){ .gpa = MB2, .hpa = GB1, .level = 1 });
		EXPECT_TRUE(fonda_table_zap(&b.t, NULL, 0, 1024, &list));
		for (table = list; table; table = (u64 *)table[0])
			for (i = 0; i < 512; i++)
				EXPECT_EQ(table[i] & 7, 0);
		fonda_table_free_list(&b.t, list);
		teardown(&b);
	}
}

TEST(part_of_a_large_leaf_removes_all_of_it)
{
	const struct fonda_mmu_format *f;
	struct bench b;

	for_each_format(f) {
		unsigned long bitmap[8] = { };
		struct fonda_memslot slot;
		u64 *list = NULL;

		setup(&b, f);
		map(&b, (struct fonda_mapping){ .gpa = MB2, .hpa = GB1, .level = 2,
						.writable = true });
		can_write(&b.t, MB2);
		/* The slot ends inside the leaf: no bit beyond its end. */
		slot = slot_of(bitmap, 512, 100);
		EXPECT_TRUE(fonda_table_zap(&b.t, &slot, 600, 601, &list));
		EXPECT_EQ(list, NULL);
		EXPECT_EQ(count_bits(bitmap, 512), 100);
		EXPECT_EQ(cpu_access(&b.t, MB2, false, NULL, NULL), NULL);
		teardown(&b);
	}
}

TEST(collecting_a_part_leaves_the_rest)
{
	const struct fonda_mmu_format *f;
	struct bench b;

	for_each_format(f) {
		unsigned long bitmap[8] = { };
		gfn_t base = 0x1e5, gfn;
		struct fonda_memslot slot;

		setup(&b, f);
		for (gfn = base; gfn < base + 512; gfn++)
			map(&b, (struct fonda_mapping){ .gpa = gfn << 12, .hpa = gfn << 12,
							.level = 1, .writable = true,
							.write = true });
		slot = slot_of(bitmap, base, 512);
		EXPECT_TRUE(collect(&b, &slot, base + 128, base + 331));
		EXPECT_FALSE(collect(&b, &slot, base + 128, base + 331));
		EXPECT_EQ(count_bits(bitmap, 512), 203);
		EXPECT_EQ(bitmap[1], 0);
		EXPECT_EQ(bitmap[2], ~0UL);
		EXPECT_EQ(bitmap[5], (1UL << 11) - 1);

		/* Without a bitmap the rest is forgotten. */
		slot.dirty_bitmap = NULL;
		EXPECT_TRUE(collect(&b, &slot, base, base + 512));
		slot.dirty_bitmap = bitmap;
		EXPECT_FALSE(collect(&b, &slot, base, base + 512));
		EXPECT_EQ(count_bits(bitmap, 512), 203);
		teardown(&b);
	}
}

TEST(a_table_stays_warm_unless_it_may_cool)
{
	const struct fonda_mmu_format *f;
	struct bench b;

	for_each_format(f) {
		struct fonda_memslot slot = slot_of(NULL, 0, 512);

		setup(&b, f);
		map(&b, (struct fonda_mapping){ .hpa = GB1, .level = 1, .writable = true });
		EXPECT_FALSE(fonda_table_collect(&b.t, &slot, 0, 512, false));
		EXPECT_TRUE(can_write(&b.t, 0));
		EXPECT_TRUE(fonda_table_collect(&b.t, &slot, 0, 512, false));
		EXPECT_TRUE(can_write(&b.t, 0));
		teardown(&b);
	}
}

TEST(a_table_without_writes_is_passed_over_until_one_faults)
{
	const struct fonda_mmu_format *f;
	struct bench b;
	int by_write;

	for_each_format(f) {
		for (by_write = 0; by_write < 2; by_write++) {
			struct fonda_mapping m = {
				.hpa = GB1, .level = 1, .writable = true, .write = true,
				.logging = true };
			unsigned long bitmap[8] = { };
			struct fonda_memslot slot;
			u64 *leaf;

			setup(&b, logging_format(f, by_write));
			map(&b, m);
			slot = slot_of(bitmap, 0, 512);
			EXPECT_TRUE(collect(&b, &slot, 0, 512));
			EXPECT_EQ(bitmap[0], 1);
			if (by_write)
				map(&b, m);
			leaf = cpu_access(&b.t, 0, true, NULL, NULL);
			ASSERT_NE(leaf, NULL);
			EXPECT_TRUE(collect(&b, &slot, 0, 512));

			/* Nothing was written: the table loses its permission. */
			EXPECT_TRUE(collect(&b, &slot, 0, 512));
			EXPECT_FALSE(can_write(&b.t, 0));

			/* A processor that has it cached writes until the flush. */
			atomic64_or(fonda_written_bit(b.t.format), (atomic64_t *)leaf);
			bitmap[0] = 0;
			EXPECT_TRUE(collect(&b, &slot, 0, 512));
			EXPECT_EQ(bitmap[0], 1);
			EXPECT_FALSE(collect(&b, &slot, 0, 512));
			EXPECT_FALSE(can_write(&b.t, 0));

			/* A read does not warm it, a write does. */
			m.write = false;
			map(&b, m);
			EXPECT_FALSE(can_write(&b.t, 0));
			m.write = true;
			map(&b, m);
			EXPECT_TRUE(can_write(&b.t, 0));
			bitmap[0] = 0;
			EXPECT_TRUE(collect(&b, &slot, 0, 512));
			EXPECT_EQ(bitmap[0], 1);
			teardown(&b);
		}
	}
}

TEST(small_leaves_are_found_where_they_are)
{
	const struct fonda_mmu_format *f;
	struct bench b;

	for_each_format(f) {
		setup(&b, f);
		map(&b, (struct fonda_mapping){ .gpa = MB2, .hpa = GB1, .level = 2 });
		map(&b, (struct fonda_mapping){ .gpa = 4096, .hpa = GB1, .level = 1 });
		EXPECT_EQ(fonda_table_small_leaf(&b.t, 1),
			  cpu_access(&b.t, 4096, false, NULL, NULL));
		EXPECT_NE(fonda_table_small_leaf(&b.t, 2), NULL);
		EXPECT_EQ(fonda_table_small_leaf(&b.t, 512), NULL);
		EXPECT_EQ(fonda_table_small_leaf(&b.t, 1 << 20), NULL);
		teardown(&b);
	}
}

TEST(age_is_read_and_cleared)
{
	const struct fonda_mmu_format *f;
	struct bench b;

	for_each_format(f) {
		setup(&b, f);
		EXPECT_FALSE(fonda_table_age(&b.t, 0, 1 << 20, true));
		map(&b, (struct fonda_mapping){ .gpa = 0, .hpa = GB1, .level = 1 });
		map(&b, (struct fonda_mapping){ .gpa = MB2, .hpa = GB1, .level = 2 });
		EXPECT_TRUE(fonda_table_age(&b.t, 0, 1, false));
		EXPECT_TRUE(fonda_table_age(&b.t, 0, 1, true));
		EXPECT_FALSE(fonda_table_age(&b.t, 0, 1, true));
		EXPECT_TRUE(fonda_table_age(&b.t, 700, 701, true));
		EXPECT_FALSE(fonda_table_age(&b.t, 0, 1024, false));
		cpu_access(&b.t, 0, false, NULL, NULL);
		EXPECT_TRUE(fonda_table_age(&b.t, 0, 1024, false));
		teardown(&b);
	}
}

TEST(without_accessed_bits_what_is_mapped_is_young)
{
	struct fonda_mmu_format f = fonda_ept_format;
	struct bench b;

	f.accessed = 0;
	f.dirty = 0;
	setup(&b, &f);
	EXPECT_FALSE(fonda_table_age(&b.t, 0, 512, true));
	map(&b, (struct fonda_mapping){ .gpa = 0, .hpa = GB1, .level = 1 });
	EXPECT_TRUE(fonda_table_age(&b.t, 0, 512, true));
	EXPECT_TRUE(fonda_table_age(&b.t, 0, 512, true));
	EXPECT_NE(cpu_access(&b.t, 0, false, NULL, NULL), NULL);
	teardown(&b);
}

TEST(no_memory_for_tables_is_an_error_that_keeps_the_spares)
{
	struct bench b;

	unit_pages_left = 0;
	EXPECT_EQ(fonda_table_init(&b.t, &fonda_npt_format), -ENOMEM);
	unit_pages_left = 2;
	setup(&b, &fonda_npt_format);
	EXPECT_EQ(fonda_table_topup(&b.cache), -ENOMEM);
	EXPECT_EQ(b.cache.nr_spare, 1);
	unit_pages_left = 100;
	EXPECT_EQ(fonda_table_topup(&b.cache), 0);
	EXPECT_EQ(b.cache.nr_spare, FONDA_TABLE_SPARES);
	teardown(&b);
}

/* --- random operations against a model ---------------------------------- */

#define PAGES	2048u

struct model {
	struct bench b;
	bool written[PAGES];	/* since it was collected */
	bool sure[PAGES];	/* reported pages must be a subset of these */
	gfn_t base;
};

/* The host maps each half of it by 2M pages if aligned, and small elsewhere. */
static struct fonda_mapping host(struct model *m, gfn_t gfn, bool write)
{
	return (struct fonda_mapping){
		.gpa = gfn << 12, .hpa = GB1 + (gfn << 12),
		.level = gfn & 512 ? 2 : 1,
		.writable = true, .write = write,
		.logging = true,
	};
}

static void guest_write(struct model *m, unsigned int page)
{
	gfn_t gfn = m->base + page;
	int tries = 0;
	hpa_t hpa;

	while (!cpu_access(&m->b.t, gfn << 12, true, &hpa, NULL)) {
		ASSERT_LT(tries++, 2);
		map(&m->b, host(m, gfn, true));
	}
	ASSERT_EQ(hpa, GB1 + (gfn << 12));
	m->written[page] = m->sure[page] = true;
}

static void check_collect(struct model *m, unsigned long *bitmap)
{
	struct fonda_memslot slot = slot_of(bitmap, m->base, PAGES);
	unsigned int i;

	collect(&m->b, &slot, m->base, m->base + PAGES);
	for (i = 0; i < PAGES; i++) {
		if (m->written[i])
			ASSERT_TRUE(test_bit(i, bitmap));
		else
			ASSERT_FALSE(test_bit(i, bitmap));
		m->written[i] = false;
	}
	memset(bitmap, 0, PAGES / 8);
}

static void run_model(const struct fonda_mmu_format *f, bool by_write, gfn_t base)
{
	static struct model m;
	unsigned long bitmap[PAGES / 64] = { };
	struct rng rng = { 0xd1127 + by_write + base };
	struct fonda_memslot slot;
	int round;

	memset(&m, 0, sizeof(m));
	setup(&m.b, logging_format(f, by_write));
	m.base = base;
	slot = slot_of(bitmap, base, PAGES);
	for (round = 0; round < 20000; round++) {
		unsigned int page = rng_below(&rng, PAGES);
		u64 *list = NULL;

		switch (rng_below(&rng, 16)) {
		case 0:
			fonda_table_zap(&m.b.t, &slot, base + page,
					base + min(PAGES, page + 1 + rng_below(&rng, 600)),
					&list);
			fonda_table_free_list(&m.b.t, list);
			break;
		case 1:
			if (rng_below(&rng, 32) == 0)
				check_collect(&m, bitmap);
			break;
		case 2 ... 5:
			if (!cpu_access(&m.b.t, (base + page) << 12, false, NULL, NULL))
				map(&m.b, host(&m, base + page, false));
			break;
		default:
			guest_write(&m, page);
		}
	}
	check_collect(&m, bitmap);
	teardown(&m.b);
}

TEST(random_operations_report_exactly_what_was_written)
{
	const struct fonda_mmu_format *f;

	for_each_format(f) {
		run_model(f, false, 0x40000);
		run_model(f, true, 0x40000);
		/* Words of the bitmap that straddle tables. */
		run_model(f, false, 0x3fff0);
		run_model(f, true, 0x40011);
	}
}

/* --- several vCPUs while somebody collects -------------------------------- */

#define RACE_PAGES	1024u
#define RACE_WRITES	20000u

struct race {
	struct fonda_table *t;
	/* How often each page was written; the collector reads it. */
	u32 version[RACE_PAGES];
	int running;
};

static void *race_vcpu(void *arg)
{
	struct race *r = arg;
	struct rng rng = { (u64)(unsigned long)&rng | 1 };
	struct bench b = { };
	unsigned int i;

	for (i = 0; i < RACE_WRITES; i++) {
		u32 page = rng_below(&rng, RACE_PAGES);
		gpa_t gpa = GB1 + ((u64)page << 12);
		struct fonda_mapping m = {
			.gpa = gpa, .hpa = gpa, .level = 2, .writable = true, .write = true,
			.logging = true };

		/*
		 * Without a TLB in between, the write itself must come before
		 * its mark: a page counts from when its bit is seen.
		 */
		__atomic_fetch_add(&r->version[page], 1, __ATOMIC_SEQ_CST);
		while (!cpu_access(r->t, gpa, true, NULL, NULL)) {
			fonda_table_topup(&b.cache);
			fonda_table_map(r->t, &b.cache, &m);
		}
	}
	fonda_table_drain(&b.cache);
	__atomic_fetch_sub(&r->running, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

static void race(const struct fonda_mmu_format *f, bool by_write)
{
	unsigned long bitmap[RACE_PAGES / 64];
	u32 copy[RACE_PAGES] = { };
	struct fonda_memslot slot;
	struct race r = { .running = 3 };
	pthread_t threads[3];
	struct bench b;
	bool last;
	u32 i;

	setup(&b, logging_format(f, by_write));
	r.t = &b.t;
	for (i = 0; i < 3; i++)
		ASSERT_EQ(pthread_create(&threads[i], NULL, race_vcpu, &r), 0);
	slot = slot_of(bitmap, GB1 >> 12, RACE_PAGES);
	do {
		last = !__atomic_load_n(&r.running, __ATOMIC_SEQ_CST);
		memset(bitmap, 0, sizeof(bitmap));
		collect(&b, &slot, GB1 >> 12, (GB1 >> 12) + RACE_PAGES);
		for (i = 0; i < RACE_PAGES; i++)
			if (test_bit(i, bitmap))
				copy[i] = __atomic_load_n(&r.version[i], __ATOMIC_SEQ_CST);
		sched_yield();
	} while (!last);
	for (i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	/* The copy is what a migration would have arrived at. */
	for (i = 0; i < RACE_PAGES; i++)
		EXPECT_EQ(copy[i], r.version[i]);
	EXPECT_EQ(atomic_long_read(&b.t.leaves[1]), RACE_PAGES);
	teardown(&b);
}

TEST_TIMEOUT(no_write_is_lost_while_several_vcpus_map_and_one_collects, 60)
{
	race(&fonda_npt_format, false);
	race(&fonda_npt_format, true);
	race(&fonda_ept_format, false);
}
