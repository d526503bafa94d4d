// SPDX-License-Identifier: GPL-2.0-only
/*
 * The array of memory slots: found by guest page and by id. Pure: what slots
 * mean is memory.c's business.
 *
 * An update copies the array, which has a pointer for each slot. Updates are
 * rare and have few slots, while every fault and every access searches.
 */
#include <linux/mm.h>
#include <linux/overflow.h>
#include <linux/slab.h>

#include "mmu.h"

static gfn_t slot_end(const struct fonda_memslot *slot)
{
	return slot->base_gfn + slot->npages;
}

/* How many slots begin at or below @gfn. */
static u32 count_up_to(const struct fonda_memslots *slots, gfn_t gfn)
{
	u32 low = 0, high = slots->nr;

	while (low < high) {
		u32 mid = (low + high) / 2;

		if (slots->slot[mid]->base_gfn <= gfn)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

struct fonda_memslot *fonda_slots_find(const struct fonda_memslots *slots, gfn_t gfn)
{
	u32 n = count_up_to(slots, gfn);

	return n && gfn < slot_end(slots->slot[n - 1]) ? slots->slot[n - 1] : NULL;
}

struct fonda_memslot *fonda_slots_by_id(const struct fonda_memslots *slots, u32 id)
{
	u32 i;

	for (i = 0; i < slots->nr; i++)
		if (slots->slot[i]->id == id)
			return slots->slot[i];
	return NULL;
}

bool fonda_slots_overlap(const struct fonda_memslots *slots, u16 id, gfn_t gfn, u64 npages)
{
	u32 i = count_up_to(slots, gfn + npages - 1);

	/* Slots do not overlap each other, so their ends are sorted as well. */
	while (i-- && slot_end(slots->slot[i]) > gfn)
		if (slots->slot[i]->id != id)
			return true;
	return false;
}

struct fonda_memslots *fonda_slots_copy(const struct fonda_memslots *old,
					const struct fonda_memslot *gone, struct fonda_memslot *add)
{
	u32 nr = old ? old->nr : 0, i;
	struct fonda_memslots *new;

	new = kvmalloc(struct_size(new, slot, nr + 1), GFP_KERNEL_ACCOUNT);
	if (!new)
		return NULL;
	new->generation = old ? old->generation + 1 : 1;
	new->nr = nr;
	if (old)
		memcpy(new->slot, old->slot, nr * sizeof(*new->slot));
	if (gone) {
		i = count_up_to(new, gone->base_gfn);
		memmove(&new->slot[i - 1], &new->slot[i], (new->nr-- - i) * sizeof(*new->slot));
	}
	if (add) {
		i = count_up_to(new, add->base_gfn);
		memmove(&new->slot[i + 1], &new->slot[i], (new->nr++ - i) * sizeof(*new->slot));
		new->slot[i] = add;
	}
	return new;
}

void fonda_slot_free(struct fonda_memslot *slot, const struct fonda_memslot *other)
{
	if (!slot)
		return;
	if (!other || slot->dirty_bitmap != other->dirty_bitmap)
		kvfree(slot->dirty_bitmap);
	kfree(slot);
}
