// SPDX-License-Identifier: GPL-2.0-only
/*
 * The code of the guest: finding the bytes of the instruction that exited,
 * which on processors without NRIP save is a part of most exits. Also gives
 * walk.c the guest's page tables.
 */
#include <linux/kernel.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "fonda.h"
#include "walk.h"

int fonda_walk_read(struct fonda_vcpu *vcpu, gpa_t gpa, void *val, int len)
{
	if (likely(len == 8))
		return fonda_read_guest_u64(vcpu, gpa, val);
	return fonda_read_guest(vcpu, gpa, val, len);
}

int fonda_walk_cmpxchg(struct fonda_vcpu *vcpu, gpa_t gpa, u64 old, u64 new, int len)
{
	int ret = fonda_cmpxchg_guest(vcpu, gpa, len, old, new);

	return ret > 0 ? -ESTALE : ret;
}

/*
 * A walk reads four entries, each through a search of the slots. Exits come
 * from few places, so these places are kept, and a walk is looking whether the
 * entries still are what they were: nothing can be stale.
 */
static struct fonda_code_page *code_page(struct fonda_vcpu *vcpu, gva_t rip)
{
	return &vcpu->code_pages[(rip >> PAGE_SHIFT) % FONDA_CODE_PAGES];
}

static u64 root_of(const struct fonda_paging *p)
{
	return p->cr3 | (p->cr4 & X86_CR4_LA57) << (63 - X86_CR4_LA57_BIT);
}

static u64 slots_generation(struct fonda_vcpu *vcpu)
{
	return rcu_dereference_check(vcpu->vm->slots, true)->generation;
}

/* Does the page kept hold for @rip? Then the FONDA_INSN_MAX bytes there. */
static __always_inline bool fetch_kept(struct fonda_vcpu *vcpu, const struct fonda_paging *p,
				       gva_t rip, u8 *code)
{
	const struct fonda_code_page *page = code_page(vcpu, rip);
	hva_t hva = page->code + offset_in_page(rip);
	u64 low, high, entry;
	bool holds = false;
	int i;

	if (unlikely(page->page != (rip & PAGE_MASK) || page->root != root_of(p) ||
		     page->generation != slots_generation(vcpu) || !(p->efer & FONDA_EFER_LMA)))
		return false;
	pagefault_disable();
	/* All of it is user memory: that was checked when the slots were made. */
	if (unlikely(!user_access_begin((void __user *)hva, FONDA_INSN_MAX)))
		goto out;
	for (i = 0; i < page->nr; i++) {
		unsafe_get_user(entry, (u64 __user *)page->level[i].where, fault);
		if (unlikely(entry != page->level[i].entry))
			goto fault;
	}
	unsafe_get_user(low, (u64 __user *)hva, fault);
	unsafe_get_user(high, (u64 __user *)(hva + FONDA_INSN_MAX - 8), fault);
	holds = true;
fault:
	user_access_end();
out:
	pagefault_enable();
	if (likely(holds)) {
		memcpy(code, &low, 8);
		memcpy(code + FONDA_INSN_MAX - 8, &high, 8);
	}
	return holds;
}

/* The VMM's address of @gpa; 0: there is no memory. */
static hva_t hva_of(struct fonda_vcpu *vcpu, gpa_t gpa)
{
	const struct fonda_memslot *slot = fonda_vcpu_slot(vcpu, gpa >> PAGE_SHIFT);

	return slot ? fonda_slot_hva(slot, gpa >> PAGE_SHIFT) + offset_in_page(gpa) : 0;
}

/*
 * @len bytes of code that do not cross a page, wherever they are. Their page is
 * kept if it and its tables are in memory.
 */
static int fetch_piece(struct fonda_vcpu *vcpu, const struct fonda_paging *p, gva_t rip,
		       u8 *code, int len)
{
	struct fonda_code_page *page = code_page(vcpu, rip);
	u64 generation = slots_generation(vcpu);
	struct fonda_paging readable = *p;
	struct fonda_walk_path path;
	bool kept = p->efer & FONDA_EFER_LMA;
	u32 error;
	gpa_t gpa;
	int i, ret;

	/* The processor has checked the rights when it fetched it. */
	readable.cr4 &= ~(u64)(X86_CR4_SMEP | X86_CR4_SMAP);
	ret = fonda_walk_path(vcpu, &readable, rip, FONDA_ACCESS_READ, &gpa, &error, &path);
	if (ret)
		return ret == FONDA_WALK_FAULT ? -ENOENT : ret;

	for (i = 0; i < path.nr; i++) {
		page->level[i].where = hva_of(vcpu, path.where[i]);
		page->level[i].entry = path.entry[i];
		kept = kept && page->level[i].where;
	}
	page->nr = path.nr;
	page->code = hva_of(vcpu, gpa & PAGE_MASK);
	page->page = rip & PAGE_MASK;
	page->root = root_of(p);
	page->generation = kept && page->code ? generation : 0;
	return fonda_read_guest(vcpu, gpa, code, len);
}

static noinline int fetch_anyhow(struct fonda_vcpu *vcpu, const struct fonda_paging *p,
				 gva_t rip, u8 *code)
{
	int len = min_t(int, FONDA_INSN_MAX, PAGE_SIZE - offset_in_page(rip)), ret;

	ret = fetch_piece(vcpu, p, rip, code, len);
	if (ret || len == FONDA_INSN_MAX)
		return ret ? ret : len;
	/* The next page need not be there: the instruction may end before it. */
	ret = fetch_piece(vcpu, p, rip + len, code + len, FONDA_INSN_MAX - len);
	if (ret == -EAGAIN)
		return ret;
	return ret ? len : FONDA_INSN_MAX;
}

int fonda_fetch_code(struct fonda_vcpu *vcpu, const struct fonda_paging *p, gva_t rip, u8 *code)
{
	if (likely(offset_in_page(rip) <= PAGE_SIZE - FONDA_INSN_MAX &&
		   fetch_kept(vcpu, p, rip, code)))
		return FONDA_INSN_MAX;
	return fetch_anyhow(vcpu, p, rip, code);
}
