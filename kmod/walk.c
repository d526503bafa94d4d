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
	enum format format;
	int level;		/* of the entry: 1 is the last */
	int entry_bytes;
	struct fonda_walk_path path;
	u64 rights;		/* PTE_W, PTE_U, PTE_NX of all of them */
};

static int index_bits(const struct walk *w)
{
	return w->format == LEGACY ? 10 : 9;
}

/* The lowest bit of the address that the table of this level translates. */
static int level_shift(const struct walk *w)
{
	return 12 + (w->level - 1) * index_bits(w);
}

/* The PDPTEs of PAE have no rights and no A bit, only an address. */
static bool is_pae_pdpte(const struct walk *w, int level)
{
	return w->format == PAE && level == 3;
}

static bool is_leaf(const struct walk *w, u64 entry)
{
	if (w->level == 1)
		return true;
	if (!(entry & PTE_PS))
		return false;
	switch (w->format) {
	case LEGACY:
		return w->p->cr4 & X86_CR4_PSE;
	case PAE:
		return w->level == 2;
	default:
		return w->level == 2 || (w->level == 3 && w->p->gb_pages);
	}
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
	bool user = (access & (FONDA_ACCESS_USER | FONDA_ACCESS_IMPLICIT)) == FONDA_ACCESS_USER;
	bool user_page = w->rights & PTE_U;
	u64 cr4 = w->p->cr4;

	if (user && !user_page)
		return false;
	if (access & FONDA_ACCESS_FETCH)
		return !(w->rights & PTE_NX) && (user || !user_page || !(cr4 & X86_CR4_SMEP));
	if (!user && user_page && (cr4 & X86_CR4_SMAP) &&
	    ((access & FONDA_ACCESS_IMPLICIT) || !(w->p->rflags & X86_EFLAGS_AC)))
		return false;
	if ((access & FONDA_ACCESS_WRITE) && !(w->rights & PTE_W))
		return !user && !(w->p->cr0 & X86_CR0_WP);
	return true;
}

static u32 error_code(const struct walk *w, u32 access, u32 error)
{
	if (access & FONDA_ACCESS_WRITE)
		error |= FONDA_PF_WRITE;
	if ((access & (FONDA_ACCESS_USER | FONDA_ACCESS_IMPLICIT)) == FONDA_ACCESS_USER)
		error |= FONDA_PF_USER;
	if ((access & FONDA_ACCESS_FETCH) &&
	    ((w->p->cr4 & X86_CR4_SMEP) ||
	     (w->format != LEGACY && (w->p->efer & FONDA_EFER_NXE))))
		error |= FONDA_PF_FETCH;
	return error;
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
	const struct fonda_walk_path *path = &w->path;
	int i, ret, level = w->level + path->nr - 1;

	for (i = 0; i < path->nr; i++, level--) {
		u64 bits = PTE_A;

		if (write && i == path->nr - 1)
			bits |= PTE_D;
		if (is_pae_pdpte(w, level) || (path->entry[i] & bits) == bits)
			continue;
		ret = fonda_walk_cmpxchg(vcpu, path->where[i], path->entry[i],
					 path->entry[i] | bits, w->entry_bytes);
		if (ret)
			return ret;
	}
	return 0;
}

static void begin(struct walk *w, const struct fonda_paging *p)
{
	w->p = p;
	w->path.nr = 0;
	w->rights = PTE_W | PTE_U;
	w->entry_bytes = 8;
	if (p->efer & FONDA_EFER_LMA) {
		w->format = LONG;
		w->level = p->cr4 & X86_CR4_LA57 ? 5 : 4;
	} else if (p->cr4 & X86_CR4_PAE) {
		w->format = PAE;
		w->level = 3;
	} else {
		w->format = LEGACY;
		w->level = 2;
		w->entry_bytes = 4;
	}
}

/* One walk; as fonda_walk(), or -ESTALE when the tables changed under it. */
static int walk_once(struct fonda_vcpu *vcpu, struct walk *w, gva_t gva,
		     u32 access, gpa_t *gpa, u32 *error)
{
	gpa_t table = w->p->cr3 & GENMASK_ULL(51, w->format == PAE ? 5 : 12);
	struct fonda_walk_path *path = &w->path;
	u64 entry, index;
	bool leaf;
	int ret;

	for (;; w->level--) {
		index = gva >> level_shift(w) & ((1 << index_bits(w)) - 1);
		path->where[path->nr] = table + index * w->entry_bytes;
		entry = 0;
		ret = fonda_walk_read(vcpu, path->where[path->nr], &entry, w->entry_bytes);
		if (ret)
			return ret;
		path->entry[path->nr++] = entry;

		*error = error_code(w, access, 0);
		if (!(entry & PTE_P))
			return FONDA_WALK_FAULT;
		leaf = is_leaf(w, entry);
		if (entry & reserved_bits(w, leaf)) {
			*error |= FONDA_PF_PRESENT | FONDA_PF_RSVD;
			return FONDA_WALK_FAULT;
		}
		if (!is_pae_pdpte(w, w->level)) {
			w->rights &= entry | ~(PTE_W | PTE_U);
			w->rights |= entry & PTE_NX;
		}
		if (leaf)
			break;
		table = entry & GENMASK_ULL(51, 12);
	}

	if (!allowed(w, access)) {
		*error |= FONDA_PF_PRESENT;
		return FONDA_WALK_FAULT;
	}
	*gpa = leaf_address(w, entry, gva);
	return set_accessed(vcpu, w, access & FONDA_ACCESS_WRITE);
}

int fonda_walk_path(struct fonda_vcpu *vcpu, const struct fonda_paging *p, gva_t gva,
		    u32 access, gpa_t *gpa, u32 *error, struct fonda_walk_path *path)
{
	struct walk w = { .path.nr = 0 };
	int i, ret = 0;

	if (!(p->efer & FONDA_EFER_LMA))
		gva = (u32)gva;
	*gpa = gva;
	for (i = 0; p->cr0 & X86_CR0_PG; i++) {
		begin(&w, p);
		ret = walk_once(vcpu, &w, gva, access, gpa, error);
		if (ret != -ESTALE)
			break;
		if (i == MAX_RESTARTS)
			return -EAGAIN;
	}
	*path = w.path;
	return ret;
}

int fonda_walk(struct fonda_vcpu *vcpu, const struct fonda_paging *p, gva_t gva,
	       u32 access, gpa_t *gpa, u32 *error)
{
	struct fonda_walk_path path;

	return fonda_walk_path(vcpu, p, gva, access, gpa, error, &path);
}
