// SPDX-License-Identifier: GPL-2.0-only
/*
 * The code of the guest: finding the bytes of the instruction that exited,
 * which on processors without NRIP save is a part of most exits. Also gives
 * walk.c the guest's page tables.
 */
#include <linux/kernel.h>
#include <linux/nospec.h>
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
 * @gpa in the VMM's memory, if the slot used last has it. (Nothing here may be
 * a call: user memory is open.)
 */
static __always_inline bool in_last_slot(struct fonda_vcpu *vcpu, gpa_t gpa, hva_t *hva)
{
	const struct fonda_memslot *slot = vcpu->mmu_cache.slot;
	u64 size = slot->npages << PAGE_SHIFT, offset = gpa - (slot->base_gfn << PAGE_SHIFT);

	if (unlikely(offset >= size))
		return false;
	*hva = slot->hva + array_index_nospec(offset, size);
	return true;
}

static __always_inline int read_entry(struct fonda_vcpu *vcpu, gpa_t gpa, void *val, int len)
{
	hva_t hva;

	if (unlikely(!in_last_slot(vcpu, gpa, &hva)))
		return -EAGAIN;
	unsafe_get_user(*(u64 *)val, (u64 __user *)hva, fault);
	return 0;
fault:
	return -EAGAIN;
}

/*
 * The usual case in few instructions, with one opening of user memory for all
 * reads: 64-bit code within a page, which is in one slot with its tables, and
 * all of it present. Tells only whether it was that.
 */
static bool fetch_quickly(struct fonda_vcpu *vcpu, const struct fonda_paging *p, gva_t rip,
			  u8 *code)
{
	const struct fonda_memslots *slots = rcu_dereference_check(vcpu->vm->slots, true);
	bool done = false;
	u64 low, high;
	gpa_t gpa;
	hva_t hva;

	if (unlikely(!(p->efer & FONDA_EFER_LMA) ||
		     vcpu->mmu_cache.generation != slots->generation))
		return false;
	pagefault_disable();
	/* Slots are user memory: that was checked when they were made. */
	if (likely(user_access_begin((void __user *)vcpu->mmu_cache.slot->hva, PAGE_SIZE))) {
		if (likely(!fonda_walk_code(vcpu, p, rip, &gpa, read_entry) &&
			   in_last_slot(vcpu, gpa, &hva))) {
			unsafe_get_user(low, (u64 __user *)hva, fault);
			unsafe_get_user(high, (u64 __user *)(hva + 7), fault);
			done = true;
		}
fault:
		user_access_end();
	}
	pagefault_enable();
	if (likely(done)) {
		memcpy(code, &low, 8);
		memcpy(code + 7, &high, 8);
	}
	return done;
}

/* @len bytes of code that do not cross a page, wherever they are. */
static int fetch_piece(struct fonda_vcpu *vcpu, const struct fonda_paging *p, gva_t rip,
		       u8 *code, int len)
{
	struct fonda_paging readable = *p;
	gpa_t gpa;
	u32 error;
	int ret;

	/* The processor has checked the rights when it fetched the instruction. */
	readable.cr4 &= ~(u64)(X86_CR4_SMEP | X86_CR4_SMAP);
	ret = fonda_walk(vcpu, &readable, rip, FONDA_ACCESS_READ, &gpa, &error);
	if (unlikely(ret))
		return ret == FONDA_WALK_FAULT ? -ENOENT : ret;
	return fonda_read_guest(vcpu, gpa, code, len);
}

int fonda_fetch_code(struct fonda_vcpu *vcpu, const struct fonda_paging *p, gva_t rip, u8 *code)
{
	int room = PAGE_SIZE - offset_in_page(rip), ret;

	if (likely(room >= FONDA_INSN_MAX)) {
		if (likely(fetch_quickly(vcpu, p, rip, code)))
			return FONDA_INSN_MAX;
		ret = fetch_piece(vcpu, p, rip, code, FONDA_INSN_MAX);
		return ret ? ret : FONDA_INSN_MAX;
	}
	ret = fetch_piece(vcpu, p, rip, code, room);
	if (ret)
		return ret;
	/* The next page need not be there: the instruction may end before it. */
	ret = fetch_piece(vcpu, p, rip + room, code + room, FONDA_INSN_MAX - room);
	if (ret == -EAGAIN)
		return ret;
	return ret ? room : FONDA_INSN_MAX;
}
