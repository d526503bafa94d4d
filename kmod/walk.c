// SPDX-License-Identifier: GPL-2.0-only
/*
 * The walk of the guest's page tables: AMD64 APM volume 2, "Page Translation
 * and Protection"; Intel SDM volume 3, "Paging". Which of the four formats is
 * in use is in the control registers; one loop serves them all.
 */
#include "mmu.h"

#define PTE_P	BIT_ULL(0)
#define PTE_W	BIT_ULL(1)
#define PTE_U	BIT_ULL(2)
#define PTE_A	BIT_ULL(5)
#define PTE_D	BIT_ULL(6)
#define PTE_PS	BIT_ULL(7)
#define PTE_NX	BIT_ULL(63)

/* How often the tables may change under a walk before the guest tries anew. */
#define MAX_RESTARTS	8

struct walk {
	const struct fonda_paging *p;
	struct fonda_walk *found;
	enum { LEGACY, PAE, LONG } format;
	int level;		/* of the entry: 1 is the last */
	u64 denied;		/* by any of them: PTE_W, PTE_U; PTE_NX */
};

/* The lowest bit of the address that the table of this level translates. */
static int level_shift(const struct walk *w)
{
	return 12 + (w->level - 1) * (w->format == LEGACY ? 10 : 9);
}

/* The PDPTEs of PAE have no rights and no A bit, only an address. */
static bool is_pdpte(const struct walk *w)
{
	return w->format == PAE && w->level == 3;
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
	u64 rsvd = phys_bits < 52 ? GENMASK_ULL(51, phys_bits) : 0;

	/* PSE-36: bits 20:13 of a 4 MiB entry are address bits 39:32. */
	if (w->format == LEGACY)
		return leaf && w->level == 2 ?
		       GENMASK_ULL(21, max(min(phys_bits, 40), 32) - 19) : 0;
	if (w->format == PAE)
		rsvd |= GENMASK_ULL(62, 52);
	/* PTE_A is reserved, too, but emulated processors set it. */
	if (is_pdpte(w))
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
	bool user = access & FONDA_ACCESS_USER, user_page = !(w->denied & PTE_U);
	u64 cr4 = w->p->cr4;

	if (user && !user_page)
		return false;
	if (access & FONDA_ACCESS_FETCH)
		return !(w->denied & PTE_NX) && (user || !user_page || !(cr4 & X86_CR4_SMEP));
	if (!user && user_page && (cr4 & X86_CR4_SMAP) && !(w->p->rflags & X86_EFLAGS_AC))
		return false;
	if (access & FONDA_ACCESS_WRITE && w->denied & PTE_W)
		return !user && !(w->p->cr0 & X86_CR0_WP);
	return true;
}

static int page_fault(const struct walk *w, u32 access, u32 error)
{
	bool nx = w->format != LEGACY && (w->p->efer & FONDA_EFER_NXE);

	if (!nx && !(w->p->cr4 & X86_CR4_SMEP))
		access &= ~FONDA_ACCESS_FETCH;
	w->found->error = access | error;
	return FONDA_WALK_FAULT;
}

/* Accessed in every entry that has it, dirty in the last one. */
static int set_accessed(struct fonda_vcpu *vcpu, const struct walk *w, bool write)
{
	const struct fonda_walk *found = w->found;
	int i, ret;

	for (i = w->format == PAE; i < found->nr; i++) {
		u64 bits = write && i == found->nr - 1 ? PTE_A | PTE_D : PTE_A;

		if ((found->entry[i] & bits) == bits)
			continue;
		ret = fonda_cmpxchg_guest(vcpu, found->where[i], w->format == LEGACY ? 4 : 8,
					  found->entry[i], found->entry[i] | bits);
		if (ret)
			return ret > 0 ? -ESTALE : ret;
	}
	return 0;
}

/* One walk; as fonda_walk(), or -ESTALE when the tables changed under it. */
static int walk_once(struct fonda_vcpu *vcpu, const struct fonda_paging *p, gva_t gva,
		     u32 access, struct fonda_walk *found)
{
	bool lma = p->efer & FONDA_EFER_LMA, pae = lma || p->cr4 & X86_CR4_PAE, leaf;
	struct walk w = {
		.p = p, .found = found, .format = lma ? LONG : pae ? PAE : LEGACY,
		.level = lma ? (p->cr4 & X86_CR4_LA57 ? 5 : 4) : pae ? 3 : 2,
	};
	gpa_t table = p->cr3 & GENMASK_ULL(51, w.format == PAE ? 5 : 12), where;
	u64 entry, offset, bytes = pae ? 8 : 4;
	int ret;

	for (;; w.level--) {
		where = table + (gva >> level_shift(&w) & (4096 / bytes - 1)) * bytes;
		entry = 0;
		ret = pae ? fonda_read_guest_u64(vcpu, where, &entry) :
			    fonda_read_guest(vcpu, where, &entry, bytes);
		if (ret)
			return ret;
		found->where[found->nr] = where;
		found->entry[found->nr++] = entry;

		if (!(entry & PTE_P))
			return page_fault(&w, access, 0);
		leaf = is_leaf(&w, entry);
		if (entry & reserved_bits(&w, leaf))
			return page_fault(&w, access, FONDA_PF_PRESENT | FONDA_PF_RSVD);
		if (!is_pdpte(&w))
			w.denied |= (entry ^ (PTE_W | PTE_U)) & (PTE_W | PTE_U | PTE_NX);
		table = entry & GENMASK_ULL(51, 12);
		if (leaf)
			break;
	}

	if (!allowed(&w, access))
		return page_fault(&w, access, FONDA_PF_PRESENT);
	/* PSE-36 again. */
	if (!pae && w.level == 2)
		table |= (entry & GENMASK_ULL(20, 13)) << (32 - 13);
	offset = (1ULL << level_shift(&w)) - 1;
	found->gpa = (table & ~offset) | (gva & offset);
	return set_accessed(vcpu, &w, access & FONDA_ACCESS_WRITE);
}

int fonda_walk(struct fonda_vcpu *vcpu, const struct fonda_paging *p, gva_t gva,
	       u32 access, struct fonda_walk *found)
{
	int tries = 0, ret;

	if (!(p->efer & FONDA_EFER_LMA))
		gva = (u32)gva;
	found->gpa = gva;
	do {
		found->nr = 0;
		ret = p->cr0 & X86_CR0_PG ? walk_once(vcpu, p, gva, access, found) : 0;
	} while (ret == -ESTALE && tries++ < MAX_RESTARTS);
	return ret == -ESTALE ? -EAGAIN : ret;
}
