// SPDX-License-Identifier: GPL-2.0-only
/*
 * The array of memory slots: found by guest page, by id, and by host address.
 * Pure: what slots mean is memory.c's business.
 *
 * An update copies the array. Updates are rare and have few slots, while every
 * fault and every access searches.
 */
#include <linux/mm.h>
#include <linux/overflow.h>
#include <linux/slab.h>

#include "mmu.h"

static gfn_t slot_end(const struct fonda_memslot *slot)
{
	return slot->base_gfn + slot->npages;
}

static hva_t hva_end(const struct fonda_memslot *slot)
{
	return fonda_slot_hva(slot, slot_end(slot));
}

/* How many slots begin at or below @gfn. */
static u32 count_up_to(const struct fonda_memslots *slots, gfn_t gfn)
{
	u32 low = 0, high = slots->nr;

	while (low < high) {
		u32 mid = (low + high) / 2;

		if (slots->slot[mid].base_gfn <= gfn)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

struct fonda_memslot *fonda_slots_find(struct fonda_memslots *slots, gfn_t gfn)
{
	u32 n = count_up_to(slots, gfn);

	if (!n || gfn >= slot_end(&slots->slot[n - 1]))
		return NULL;
	return &slots->slot[n - 1];
}

struct fonda_memslot *fonda_slots_by_id(struct fonda_memslots *slots, u16 id)
{
	u32 i;

	for (i = 0; i < slots->nr; i++)
		if (slots->slot[i].id == id)
			return &slots->slot[i];
	return NULL;
}

bool fonda_slots_overlap(struct fonda_memslots *slots, u16 id, gfn_t gfn, u64 npages)
{
	u32 i = count_up_to(slots, gfn + npages - 1);

	/* Slots do not overlap each other, so their ends are sorted as well. */
	while (i-- && slot_end(&slots->slot[i]) > gfn)
		if (slots->slot[i].id != id)
			return true;
	return false;
}

/* Where a slot goes in the copy, given that @gone leaves and @add enters. */
static u32 new_index(u32 old, u32 gone, u32 add)
{
	u32 i = old > gone ? old - 1 : old;

	return i >= add ? i + 1 : i;
}

/* Sort the slots of @to by host address: the order of @from, with one change. */
static void copy_by_hva(struct fonda_memslots *to, const struct fonda_memslots *from,
			u32 gone, u32 add)
{
	u32 i, n = 0, nr_from = from ? from->nr : 0;
	bool pending = add < to->nr;
	hva_t max_end = 0;

	for (i = 0; i < nr_from; i++) {
		u32 old = from->by_hva[i].index;

		if (old == gone)
			continue;
		if (pending && to->slot[add].hva < from->slot[old].hva) {
			to->by_hva[n++].index = add;
			pending = false;
		}
		to->by_hva[n++].index = new_index(old, gone, add);
	}
	if (pending)
		to->by_hva[n].index = add;

	for (i = 0; i < to->nr; i++) {
		max_end = max(max_end, hva_end(&to->slot[to->by_hva[i].index]));
		to->by_hva[i].max_end = max_end;
	}
}

struct fonda_memslots *fonda_slots_copy(struct fonda_memslots *old, u16 id,
					const struct fonda_memslot *add)
{
	struct fonda_memslot *gone = old ? fonda_slots_by_id(old, id) : NULL;
	u32 nr_old = old ? old->nr : 0;
	u32 nr = nr_old - !!gone + !!add;
	/* Without one the index is that of no slot. */
	u32 gone_index = gone ? gone - old->slot : U32_MAX;
	u32 add_index = U32_MAX, i;
	struct fonda_memslots *new;

	new = kvmalloc(struct_size(new, slot, nr) + nr * sizeof(*new->by_hva), GFP_KERNEL_ACCOUNT);
	if (!new)
		return NULL;
	new->generation = old ? old->generation + 1 : 1;
	new->retired = NULL;
	new->nr = nr;
	new->by_hva = (void *)&new->slot[nr];

	if (add) {
		add_index = old ? count_up_to(old, add->base_gfn) : 0;
		if (gone_index < add_index)
			add_index--;
		new->slot[add_index] = *add;
	}
	for (i = 0; i < nr_old; i++)
		if (i != gone_index)
			new->slot[new_index(i, gone_index, add_index)] = old->slot[i];
	copy_by_hva(new, old, gone_index, add_index);
	return new;
}

/*
 * Slots may overlap in host addresses. Those that begin below @end are the
 * first i of the order; going down from there, once the highest end so far is
 * not above the start, no slot further down can be.
 */
int fonda_slots_hva_first(struct fonda_memslots *slots, hva_t end)
{
	u32 low = 0, high = slots->nr;

	while (low < high) {
		u32 mid = (low + high) / 2;

		if (slots->slot[slots->by_hva[mid].index].hva < end)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

struct fonda_memslot *fonda_slots_hva_next(struct fonda_memslots *slots, int *i, hva_t start)
{
	while (*i > 0 && slots->by_hva[*i - 1].max_end > start) {
		struct fonda_memslot *slot = &slots->slot[slots->by_hva[--*i].index];

		if (hva_end(slot) > start)
			return slot;
	}
	return NULL;
}
