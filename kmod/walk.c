// SPDX-License-Identifier: GPL-2.0-only
/*
 * The walk of the guest's page tables: AMD64 APM volume 2, "Page Translation
 * and Protection"; Intel SDM volume 3, "Paging". Which of the four formats is
 * in use is in the control registers; one loop serves them all.
 */
#include <linux/kernel.h>

#include "walk.h"

#define PTE_P	BIT_ULL(0)
#define PTE_W	BIT_ULL(1)
#define PTE_U	BIT_ULL(2)
#define PTE_A	BIT_ULL(5)
#define PTE_D	BIT_ULL(6)
#define PTE_PS	BIT_ULL(7)
#define PTE_NX	BIT_ULL(63)

/* How often the tables may change under a walk before the guest tries anew. */
#define MAX_RESTARTS	8

enum format { LEGACY, PAE, LONG };

struct walk {
	const struct fonda_paging *p;
	struct fonda_walk *found;
	enum format format;
	int level;		/* of the entry: 1 is the last */
	int index_bits;		/* of the address at each level */
	int entry_bytes;
	u64 rights;		/* PTE_W, PTE_U, PTE_NX of all of them */
};

/* The lowest bit of the address that the table of this level translates. */
static int level_shift(const struct walk *w)
{
	return 12 + (w->level - 1) * w->index_bits;
}

/* The PDPTEs of PAE have no rights and no A bit, only an address. */
static bool is_pae_pdpte(const struct walk *w, int level)
{
	return w->format == PAE && level == 3;
}

static bool is_leaf(const struct walk *w, u64 entry)
{
	if (w->level == 1 || !(entry & PTE_PS))
		return w->level == 1;
	if (w->format == LEGACY)
		return w->p->cr4 & X86_CR4_PSE;
	return w->level == 2 || (w->format == LONG && w->level == 3 && w->p->gb_pages);
}

/* Bits of an entry that must be zero. */
static u64 reserved_bits(const struct walk *w, bool leaf)
{
	int phys_bits = w->p->phys_bits;
	u64 rsvd = 0;

	if (w->format == LEGACY) {
		/* PSE-36: bits 20:13 of a 4 MiB entry are address bits 39:32. */
		if (!leaf || w->level == 1)
			return 0;
		return phys_bits >= 40 ? BIT_ULL(21) :
					 GENMASK_ULL(21, max(phys_bits, 32) - 19);
	}

	if (phys_bits < 52)
		rsvd |= GENMASK_ULL(51, phys_bits);
	if (w->format == PAE)
		rsvd |= GENMASK_ULL(62, 52);
	/* PTE_A is reserved, too, but emulated processors set it. */
	if (is_pae_pdpte(w, w->level))
		return rsvd | PTE_NX | GENMASK_ULL(8, 6) | GENMASK_ULL(2, 1);
	if (!(w->p->efer & FONDA_EFER_NXE))
		rsvd |= PTE_NX;
	if (leaf && w->level > 1)
		rsvd |= GENMASK_ULL(level_shift(w) - 1, 13);
	/* Where a page cannot be, PS is reserved; else it made a leaf. */
	if (!leaf && w->level >= 3)
		rsvd |= PTE_PS;
	return rsvd;
}

static bool allowed(const struct walk *w, u32 access)
{
	bool user = access & FONDA_ACCESS_USER, user_page = w->rights & PTE_U;
	u64 cr4 = w->p->cr4;

	if (user && !user_page)
		return false;
	if (access & FONDA_ACCESS_FETCH)
		return !(w->rights & PTE_NX) && (user || !user_page || !(cr4 & X86_CR4_SMEP));
	if (!user && user_page && (cr4 & X86_CR4_SMAP) && !(w->p->rflags & X86_EFLAGS_AC))
		return false;
	if ((access & FONDA_ACCESS_WRITE) && !(w->rights & PTE_W))
		return !user && !(w->p->cr0 & X86_CR0_WP);
	return true;
}

static int page_fault(const struct walk *w, u32 access, u32 error)
{
	bool nx = w->format != LEGACY && (w->p->efer & FONDA_EFER_NXE);

	if (access & FONDA_ACCESS_WRITE)
		error |= FONDA_PF_WRITE;
	if (access & FONDA_ACCESS_USER)
		error |= FONDA_PF_USER;
	if ((access & FONDA_ACCESS_FETCH) && (nx || (w->p->cr4 & X86_CR4_SMEP)))
		error |= FONDA_PF_FETCH;
	w->found->error = error;
	return FONDA_WALK_FAULT;
}

static gpa_t leaf_address(const struct walk *w, u64 entry, gva_t gva)
{
	u64 offset = (1ULL << level_shift(w)) - 1;
	gpa_t gpa = entry & GENMASK_ULL(51, 12);

	if (w->format == LEGACY && w->level == 2)
		gpa |= (entry & GENMASK_ULL(20, 13)) << (32 - 13);
	return (gpa & ~offset) | (gva & offset);
}

/* Accessed in every entry that has it, dirty in the last one. */
static int set_accessed(struct fonda_vcpu *vcpu, const struct walk *w, bool write)
{
	const struct fonda_walk *found = w->found;
	int i, ret, level = w->level + found->nr - 1;

	for (i = 0; i < found->nr; i++, level--) {
		u64 bits = write && i == found->nr - 1 ? PTE_A | PTE_D : PTE_A;

		if (is_pae_pdpte(w, level) || (found->entry[i] & bits) == bits)
			continue;
		ret = fonda_walk_cmpxchg(vcpu, found->where[i], found->entry[i],
					 found->entry[i] | bits, w->entry_bytes);
		if (ret)
			return ret;
	}
	return 0;
}

/* One walk; as fonda_walk(), or -ESTALE when the tables changed under it. */
static int walk_once(struct fonda_vcpu *vcpu, struct walk *w, gva_t gva, u32 access)
{
	gpa_t table = w->p->cr3 & GENMASK_ULL(51, w->format == PAE ? 5 : 12), where;
	u64 entry, index;
	bool leaf;
	int ret;

	for (;; w->level--) {
		index = gva >> level_shift(w) & ((1 << w->index_bits) - 1);
		where = table + index * w->entry_bytes;
		entry = 0;
		ret = fonda_walk_read(vcpu, where, &entry, w->entry_bytes);
		if (ret)
			return ret;
		w->found->where[w->found->nr] = where;
		w->found->entry[w->found->nr++] = entry;

		if (!(entry & PTE_P))
			return page_fault(w, access, 0);
		leaf = is_leaf(w, entry);
		if (entry & reserved_bits(w, leaf))
			return page_fault(w, access, FONDA_PF_PRESENT | FONDA_PF_RSVD);
		if (!is_pae_pdpte(w, w->level)) {
			w->rights &= entry | ~(PTE_W | PTE_U);
			w->rights |= entry & PTE_NX;
		}
		if (leaf)
			break;
		table = entry & GENMASK_ULL(51, 12);
	}

	if (!allowed(w, access))
		return page_fault(w, access, FONDA_PF_PRESENT);
	w->found->gpa = leaf_address(w, entry, gva);
	return set_accessed(vcpu, w, access & FONDA_ACCESS_WRITE);
}

int fonda_walk(struct fonda_vcpu *vcpu, const struct fonda_paging *p, gva_t gva,
	       u32 access, struct fonda_walk *found)
{
	bool lma = p->efer & FONDA_EFER_LMA, pae = p->cr4 & X86_CR4_PAE;
	int i, ret = 0;

	if (!lma)
		gva = (u32)gva;
	found->gpa = gva;
	found->nr = 0;
	for (i = 0; p->cr0 & X86_CR0_PG; i++) {
		struct walk w = {
			.p = p, .found = found, .rights = PTE_W | PTE_U,
			.format = lma ? LONG : pae ? PAE : LEGACY,
			.level = lma ? (p->cr4 & X86_CR4_LA57 ? 5 : 4) : pae ? 3 : 2,
			.index_bits = lma || pae ? 9 : 10, .entry_bytes = lma || pae ? 8 : 4,
		};

		found->nr = 0;
		ret = walk_once(vcpu, &w, gva, access);
		if (ret != -ESTALE)
			break;
		if (i == MAX_RESTARTS)
			return -EAGAIN;
	}
	return ret;
}
