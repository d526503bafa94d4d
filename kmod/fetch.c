// SPDX-License-Identifier: GPL-2.0-only
/*
 * The code of the guest: finding the bytes of the instruction that exited,
 * which on processors without NRIP save is a part of most exits. Also ties
 * walk.c to the vCPU.
 */
#include "backend.h"

/*
 * A walk reads four entries, each through a search of the slots. Exits come
 * from few places, so these places are kept, and a walk is looking whether the
 * entries still are what they were: nothing can be stale.
 */
static struct fonda_code_page *code_page(struct fonda_vcpu *vcpu, gva_t rip)
{
	return &vcpu->code_pages[(rip >> PAGE_SHIFT) % FONDA_CODE_PAGES];
}

/*
 * The @len bytes at @rip, in two parts that may overlap, if their page is kept and
 * still what it was.
 */
static __always_inline bool fetch_kept(struct fonda_vcpu *vcpu, u64 root, gva_t rip, int len,
				       u64 *first, u64 *last)
{
	const struct fonda_code_page *page = code_page(vcpu, rip);
	const struct fonda_code_level *level = page->level, *end = page->end;
	hva_t hva = page->code + offset_in_page(rip);
	u64 entry;

	if (unlikely(page->page != (rip & PAGE_MASK) || page->root != root ||
		     page->generation != rcu_dereference_check(vcpu->vm->slots, true)->generation ||
		     offset_in_page(rip) > PAGE_SIZE - len))
		return false;
	pagefault_disable();
	/* All of it is user memory: that was checked when the slots were made. */
	__uaccess_begin_nospec();
	/* By pointer: a check of the index may not be called from here. */
	for (; level < end; level++) {
		unsafe_get_user(entry, (u64 __user *)level->where, fault);
		if (unlikely(entry != level->entry))
			goto fault;
	}
	unsafe_get_user(*first, (u64 __user *)hva, fault);
	if (last)
		unsafe_get_user(*last, (u64 __user *)(hva + len - 8), fault);
	user_access_end();
	pagefault_enable();
	return true;
fault:
	user_access_end();
	pagefault_enable();
	return false;
}

u32 fonda_peek_code(struct fonda_vcpu *vcpu, u64 root, gva_t rip)
{
	u64 code fonda_uninitialized;

	return likely(fetch_kept(vcpu, root, rip, sizeof(code), &code, NULL)) ? code : 0;
}

/* The VMM's address of @gpa; 0: there is no memory. */
static hva_t hva_of(struct fonda_vcpu *vcpu, gpa_t gpa)
{
	const struct fonda_memslot *slot = fonda_vcpu_slot(vcpu, gpa >> PAGE_SHIFT);

	return slot ? fonda_slot_hva(slot, gpa >> PAGE_SHIFT) + offset_in_page(gpa) : 0;
}

int fonda_walk_guest(struct fonda_vcpu *vcpu, struct fonda_paging *p, gva_t gva, u32 access,
		     struct fonda_walk *w)
{
	p->phys_bits = vcpu->cpuid.phys_bits;
	p->gb_pages = fonda_guest_has(vcpu, X86_FEATURE_GBPAGES);
	return fonda_walk(vcpu, p, gva, access, w);
}

/* Where the guest would find @linear_address, were it to read it at CPL 0. */
long fonda_vcpu_translate(struct fonda_vcpu *vcpu, void *arg, unsigned int cmd)
{
	struct kvm_translation *tr = arg;
	struct fonda_paging p;
	struct fonda_walk w;
	gva_t rip;
	int ret;

	fonda_slots_enter(vcpu);
	fonda_backend->get_code(vcpu, &p, &rip);
	ret = fonda_walk_guest(vcpu, &p, tr->linear_address, FONDA_ACCESS_READ, &w);
	fonda_slots_leave(vcpu);
	tr->physical_address = ret ? FONDA_INVALID_GPA : w.gpa;
	tr->valid = !ret;
	tr->writeable = true;
	tr->usermode = false;
	return 0;
}

/*
 * @len bytes of code that do not cross a page, wherever they are. Their page is
 * kept if it and its tables are in memory.
 */
static int fetch_piece(struct fonda_vcpu *vcpu, const struct fonda_paging *p, gva_t rip,
		       u8 *code, int len)
{
	struct fonda_code_page *page = code_page(vcpu, rip);
	u64 generation = rcu_dereference_check(vcpu->vm->slots, true)->generation;
	struct fonda_paging readable = *p;
	bool kept = p->efer & FONDA_EFER_LMA;
	struct fonda_walk w;
	int i, ret;

	/* The processor has checked the rights when it fetched it. */
	readable.cr4 &= ~(u64)(X86_CR4_SMEP | X86_CR4_SMAP);
	ret = fonda_walk_guest(vcpu, &readable, rip, FONDA_ACCESS_READ, &w);
	if (ret)
		return ret == FONDA_WALK_FAULT ? -ENOENT : ret;

	for (i = 0; i < w.nr; i++) {
		page->level[i].where = hva_of(vcpu, w.where[i]);
		page->level[i].entry = w.entry[i];
		kept = kept && page->level[i].where;
	}
	page->end = page->level + w.nr;
	page->code = hva_of(vcpu, w.gpa & PAGE_MASK);
	page->page = rip & PAGE_MASK;
	page->root = fonda_code_root(p->cr3, p->cr4);
	page->generation = kept && page->code ? generation : 0;
	return fonda_read_guest(vcpu, w.gpa, code, len);
}

static noinline int fetch_anyhow(struct fonda_vcpu *vcpu, const struct fonda_paging *p,
				 gva_t rip, u8 *code)
{
	int nr, len, ret;

	for (nr = 0; nr < FONDA_INSN_MAX; nr += len) {
		len = min_t(int, FONDA_INSN_MAX - nr, PAGE_SIZE - offset_in_page(rip + nr));
		ret = fetch_piece(vcpu, p, rip + nr, code + nr, len);
		/* The next page need not be there: the instruction may end before it. */
		if (ret)
			return nr && ret != -EAGAIN ? nr : ret;
	}
	return nr;
}

int fonda_fetch_code(struct fonda_vcpu *vcpu, const struct fonda_paging *p, gva_t rip, u8 *code)
{
	u64 first fonda_uninitialized, last fonda_uninitialized;

	if (likely(p->efer & FONDA_EFER_LMA &&
		   fetch_kept(vcpu, fonda_code_root(p->cr3, p->cr4), rip, FONDA_INSN_MAX,
			      &first, &last))) {
		memcpy(code, &first, 8);
		memcpy(code + FONDA_INSN_MAX - 8, &last, 8);
		return FONDA_INSN_MAX;
	}
	return fetch_anyhow(vcpu, p, rip, code);
}
