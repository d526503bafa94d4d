// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The array of memory slots (kmod/memslot.c) against a list that is searched
 * from end to end.
 */
#include <linux/slab.h>
#include <string.h>

#include "mmu.h"
#include "rng.h"
#include "tap.h"

static struct fonda_memslots *replace(struct fonda_memslots *old, struct fonda_memslot *gone,
				      struct fonda_memslot *add)
{
	struct fonda_memslots *new = fonda_slots_copy(old, gone, add);

	ASSERT_NE(new, NULL);
	if (old)
		EXPECT_EQ(new->generation, old->generation + 1);
	kvfree(old);
	fonda_slot_free(gone, add);
	return new;
}

/* A slot that may replace one of the same id. */
static struct fonda_memslots *add(struct fonda_memslots *old, u16 id, gfn_t gfn, u64 npages,
				  hva_t hva)
{
	struct fonda_memslot *slot = kzalloc(sizeof(*slot), GFP_KERNEL);

	*slot = (struct fonda_memslot){ .base_gfn = gfn, .npages = npages, .hva = hva, .id = id };
	return replace(old, fonda_slots_by_id(old, id), slot);
}

static void free_all(struct fonda_memslots *slots)
{
	u32 i;

	for (i = 0; i < slots->nr; i++)
		fonda_slot_free(slots->slot[i], NULL);
	kvfree(slots);
}

TEST(an_empty_array_finds_nothing)
{
	struct fonda_memslots *slots = replace(NULL, NULL, NULL);

	EXPECT_EQ(fonda_slots_find(slots, 0), NULL);
	EXPECT_EQ(fonda_slots_by_id(slots, 0), NULL);
	EXPECT_FALSE(fonda_slots_overlap(slots, 0, 0, 1));
	EXPECT_NE(slots->generation, 0);
	free_all(slots);
}

TEST(a_slot_is_found_from_its_first_page_to_its_last)
{
	struct fonda_memslots *slots = replace(NULL, NULL, NULL);

	slots = add(slots, 7, 0x100, 0x10, 0x7000000);
	EXPECT_EQ(fonda_slots_find(slots, 0xff), NULL);
	EXPECT_EQ(fonda_slots_find(slots, 0x100), slots->slot[0]);
	EXPECT_EQ(fonda_slots_find(slots, 0x10f), slots->slot[0]);
	EXPECT_EQ(fonda_slots_find(slots, 0x110), NULL);
	EXPECT_EQ(fonda_slots_by_id(slots, 7), slots->slot[0]);
	/* Ids are not cut to the size of a slot's. */
	EXPECT_EQ(fonda_slots_by_id(slots, 7 | 1 << 16), NULL);
	EXPECT_EQ(fonda_slot_hva(slots->slot[0], 0x10f), 0x700f000);
	free_all(slots);
}

TEST(overlap_looks_at_every_other_slot)
{
	struct fonda_memslots *slots = replace(NULL, NULL, NULL);

	slots = add(slots, 1, 0x10, 0x10, 0x100000);
	slots = add(slots, 2, 0x30, 0x10, 0x200000);
	EXPECT_FALSE(fonda_slots_overlap(slots, 3, 0x20, 0x10));
	EXPECT_TRUE(fonda_slots_overlap(slots, 3, 0x1f, 1));
	EXPECT_TRUE(fonda_slots_overlap(slots, 3, 0x20, 0x11));
	EXPECT_TRUE(fonda_slots_overlap(slots, 3, 0, 0x100));
	/* A slot that moves may overlap where it was. */
	EXPECT_FALSE(fonda_slots_overlap(slots, 1, 0x18, 0x10));
	EXPECT_TRUE(fonda_slots_overlap(slots, 1, 0x28, 0x10));
	/* Both are met; the second is the one that counts. */
	EXPECT_TRUE(fonda_slots_overlap(slots, 2, 0x18, 0x20));
	free_all(slots);
}

TEST(a_slot_is_replaced_in_its_place_and_elsewhere)
{
	struct fonda_memslots *slots = replace(NULL, NULL, NULL);

	slots = add(slots, 1, 0x10, 1, 0x3000);
	slots = add(slots, 2, 0x20, 1, 0x2000);
	slots = add(slots, 3, 0x30, 1, 0x1000);
	slots = add(slots, 1, 0x40, 1, 0x0000);
	EXPECT_EQ(slots->nr, 3);
	EXPECT_EQ(slots->slot[0]->id, 2);
	EXPECT_EQ(slots->slot[1]->id, 3);
	EXPECT_EQ(slots->slot[2]->id, 1);
	slots = add(slots, 3, 0x30, 1, 0x9000);
	EXPECT_EQ(slots->slot[1]->hva, 0x9000);
	slots = replace(slots, slots->slot[0], NULL);
	EXPECT_EQ(slots->nr, 2);
	EXPECT_EQ(slots->slot[0]->id, 3);
	free_all(slots);
}

TEST(a_slot_keeps_the_log_of_the_one_it_replaces)
{
	struct fonda_memslot *old = kzalloc(sizeof(*old), GFP_KERNEL);
	struct fonda_memslot *new = kzalloc(sizeof(*new), GFP_KERNEL);

	old->dirty_bitmap = new->dirty_bitmap = kzalloc(8, GFP_KERNEL);
	fonda_slot_free(old, new);
	EXPECT_EQ(*new->dirty_bitmap, 0);
	fonda_slot_free(new, NULL);
	fonda_slot_free(NULL, NULL);
}

#define MODEL_SLOTS	64

TEST(random_changes_agree_with_a_list)
{
	struct fonda_memslots *slots = replace(NULL, NULL, NULL);
	struct fonda_memslot model[MODEL_SLOTS] = { };
	struct rng rng = { 0x51075 };
	int round, i;

	for (round = 0; round < 20000; round++) {
		struct fonda_memslot s = {
			.id = rng_below(&rng, MODEL_SLOTS),
			.base_gfn = rng_below(&rng, 0x1000),
			.npages = 1 + rng_below(&rng, 0x80),
		};
		gfn_t gfn = rng_below(&rng, 0x1100);
		struct fonda_memslot *found, *want = NULL;
		bool overlap = false;

		for (i = 0; i < MODEL_SLOTS; i++) {
			struct fonda_memslot *m = &model[i];

			if (m->npages && i != s.id && m->base_gfn < s.base_gfn + s.npages &&
			    s.base_gfn < m->base_gfn + m->npages)
				overlap = true;
		}
		ASSERT_EQ(fonda_slots_overlap(slots, s.id, s.base_gfn, s.npages), overlap);
		if (rng_below(&rng, 4) == 0) {
			slots = replace(slots, fonda_slots_by_id(slots, s.id), NULL);
			model[s.id].npages = 0;
		} else if (!overlap) {
			slots = add(slots, s.id, s.base_gfn, s.npages, 0);
			model[s.id] = s;
		}

		for (i = 0; i < MODEL_SLOTS; i++)
			if (model[i].npages && gfn - model[i].base_gfn < model[i].npages)
				want = &model[i];
		found = fonda_slots_find(slots, gfn);
		ASSERT_EQ(!found, !want);
		if (found)
			ASSERT_EQ(found->id, want->id);
		found = fonda_slots_by_id(slots, s.id);
		ASSERT_EQ(!found, !model[s.id].npages);
	}
	free_all(slots);
}

TEST(as_many_slots_as_there_may_be)
{
	struct fonda_memslots *slots = replace(NULL, NULL, NULL);
	u32 i;

	/* In an order that is not that of pages. */
	for (i = 0; i < FONDA_MEM_SLOTS; i++) {
		u32 id = i * 1531 % FONDA_MEM_SLOTS;
		struct fonda_memslot *slot = kzalloc(sizeof(*slot), GFP_KERNEL);

		slot->id = id;
		slot->base_gfn = id * 2;
		slot->npages = 1;
		slots = replace(slots, NULL, slot);
	}
	EXPECT_EQ(slots->nr, FONDA_MEM_SLOTS);
	for (i = 0; i < FONDA_MEM_SLOTS; i++) {
		EXPECT_EQ(fonda_slots_find(slots, i * 2)->id, i);
		EXPECT_EQ(fonda_slots_find(slots, i * 2 + 1), NULL);
	}
	free_all(slots);
}
