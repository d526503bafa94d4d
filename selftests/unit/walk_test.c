// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * kmod/walk.c: the four formats of guest page tables, every right, reserved
 * bits, accessed and dirty bits, and tables that change under the walk. The
 * rights are compared with a second model, written as the manual's sentences
 * are, over all combinations.
 */
#include <string.h>

#include "mmu.h"
#include "tap.h"

#define P	0x1ull
#define W	0x2ull
#define U	0x4ull
#define A	0x20ull
#define D	0x40ull
#define PS	0x80ull
#define NX	(1ull << 63)

/* The error code, by the manual. */
#define PF_WRITE	0x2u
#define PF_USER		0x4u
#define PF_FETCH	0x10u

#define EFER_LMA	FONDA_EFER_LMA
#define EFER_NXE	FONDA_EFER_NXE

/* The tables: pages of 4 KiB from 0; beyond them there is no memory. */
static u8 mem[64 * 4096] __attribute__((aligned(8)));
static int reads, fail_reads;
static int flips;		/* times that an entry changes before the exchange */

int fonda_read_guest(struct fonda_vcpu *vcpu, gpa_t gpa, void *val, int len)
{
	reads++;
	if (fail_reads)
		return fail_reads;
	if (gpa + (u64)len > sizeof(mem))
		return -EFAULT;
	memcpy(val, mem + gpa, (size_t)len);
	return 0;
}

int fonda_read_guest_u64(struct fonda_vcpu *vcpu, gpa_t gpa, u64 *val)
{
	return fonda_read_guest(vcpu, gpa, val, 8);
}

int fonda_cmpxchg_guest(struct fonda_vcpu *vcpu, gpa_t gpa, int len, u64 old, u64 new)
{
	u64 now = 0;

	EXPECT_EQ(gpa & ((u64)len - 1), 0);
	if (flips > 0 && flips--)
		mem[gpa + 1] ^= 0x2;	/* a bit that is ignored: 9 */
	memcpy(&now, mem + gpa, (size_t)len);
	if (now != old)
		return 1;
	memcpy(mem + gpa, &new, (size_t)len);
	return 0;
}

static void set(gpa_t table, u32 index, u64 val, int len)
{
	memcpy(mem + table + index * (u32)len, &val, (size_t)len);
}

static u64 get(gpa_t table, u32 index, int len)
{
	u64 val = 0;

	memcpy(&val, mem + table + index * (u32)len, (size_t)len);
	return val;
}

struct tables {
	struct fonda_paging p;
	int len;		/* bytes of an entry */
	int nr;			/* levels */
	u32 index[5];		/* of the address, root first */
	gva_t gva;
	gpa_t page;		/* what the last level points to */
};

enum kind { LEGACY, PAE, LONG4, LONG5, NR_KINDS };

/* One page mapped, writable, for users, by tables of its own at each level. */
static struct tables build(enum kind kind)
{
	struct tables t = {
		.p = { .cr0 = X86_CR0_PE | X86_CR0_PG | X86_CR0_WP, .cr3 = 0x1000,
		       .phys_bits = 40, .gb_pages = true },
		.len = 8, .page = 0x8877665000,
	};
	int i;

	memset(mem, 0, sizeof(mem));
	reads = fail_reads = flips = 0;
	switch (kind) {
	case LEGACY:
		t.len = 4;
		t.nr = 2;
		t.page = 0x87665000;
		t.gva = 0xc1234567;
		t.index[0] = t.gva >> 22;
		t.index[1] = t.gva >> 12 & 0x3ff;
		break;
	case PAE:
		t.nr = 3;
		t.p.cr4 = X86_CR4_PAE;
		t.p.cr3 = 0x1020;	/* aligned to 32 bytes only */
		t.p.efer = EFER_NXE;
		t.gva = 0xc1234567;
		t.index[0] = 3;
		t.index[1] = t.gva >> 21 & 0x1ff;
		t.index[2] = t.gva >> 12 & 0x1ff;
		break;
	default:
		t.nr = kind == LONG4 ? 4 : 5;
		t.p.cr4 = X86_CR4_PAE | (kind == LONG5 ? X86_CR4_LA57 : 0);
		t.p.efer = EFER_LMA | EFER_NXE;
		t.gva = kind == LONG4 ? 0xffff912345678abc : 0xff12912345678abc;
		for (i = 0; i < t.nr; i++)
			t.index[i] = t.gva >> (12 + 9 * (t.nr - 1 - i)) & 0x1ff;
	}
	for (i = 0; i < t.nr; i++) {
		u64 next = i == t.nr - 1 ? t.page : 0x2000ull + 0x1000 * (u32)i;

		set(i ? 0x1000 + 0x1000 * (u64)i : t.p.cr3, t.index[i],
		    next | P | (kind == PAE && !i ? 0 : W | U), t.len);
	}
	return t;
}

static gpa_t table_of(const struct tables *t, int i)
{
	return i ? 0x1000 + 0x1000 * (u64)i : t->p.cr3;
}

static u64 entry(const struct tables *t, int i)
{
	return get(table_of(t, i), t->index[i], t->len);
}

static void set_entry(const struct tables *t, int i, u64 val)
{
	set(table_of(t, i), t->index[i], val, t->len);
}

static int walk(const struct tables *t, u32 access, gpa_t *gpa, u32 *error)
{
	struct fonda_walk w = { .gpa = 0xbad, .error = 0xbad };
	int ret = fonda_walk(NULL, &t->p, t->gva, access, &w);

	*gpa = w.gpa;
	*error = w.error;
	return ret;
}

static void expect_gpa(const struct tables *t, gpa_t want)
{
	gpa_t gpa;
	u32 error;

	EXPECT_EQ(walk(t, FONDA_ACCESS_READ, &gpa, &error), 0);
	EXPECT_EQ(gpa, want);
}

static void expect_fault(const struct tables *t, u32 access, u32 want)
{
	gpa_t gpa;
	u32 error;

	EXPECT_EQ(walk(t, access, &gpa, &error), FONDA_WALK_FAULT);
	EXPECT_EQ(error, want);
}

TEST(without_paging_addresses_are_the_same)
{
	struct tables t = build(LEGACY);

	t.p.cr0 &= ~X86_CR0_PG;
	t.gva = 0x123456789abc;
	expect_gpa(&t, 0x56789abc);
	EXPECT_EQ(reads, 0);
}

TEST(pages_of_four_kilobytes_in_every_format)
{
	enum kind kind;

	for (kind = LEGACY; kind < NR_KINDS; kind++) {
		struct tables t = build(kind);

		expect_gpa(&t, t.page | (t.gva & 0xfff));
		EXPECT_EQ(reads, t.nr);
	}
}

TEST(large_pages)
{
	struct tables t = build(LEGACY);

	/* Without CR4.PSE the bit is ignored. */
	set_entry(&t, 0, entry(&t, 0) | PS);
	expect_gpa(&t, t.page | (t.gva & 0xfff));
	t.p.cr4 |= X86_CR4_PSE;
	set_entry(&t, 0, 0x87400000 | P | W | U | PS);
	expect_gpa(&t, 0x87400000 | (t.gva & 0x3fffff));
	/* Bits 20:13 are bits 39:32 of the address. */
	set_entry(&t, 0, 0x87400000 | 0x5a << 13 | P | W | U | PS);
	expect_gpa(&t, 0x5a87400000 | (t.gva & 0x3fffff));
	t.p.phys_bits = 36;
	expect_fault(&t, 0, FONDA_PF_PRESENT | FONDA_PF_RSVD);
	set_entry(&t, 0, 0x87400000 | 0xa << 13 | P | W | U | PS);
	expect_gpa(&t, 0xa87400000 | (t.gva & 0x3fffff));
	set_entry(&t, 0, 0x87600000 | P | W | U | PS);	/* bit 21 */
	expect_fault(&t, 0, FONDA_PF_PRESENT | FONDA_PF_RSVD);

	t = build(PAE);
	set_entry(&t, 1, 0x8877600000 | P | W | U | PS);
	expect_gpa(&t, 0x8877600000 | (t.gva & 0x1fffff));

	t = build(LONG4);
	set_entry(&t, 2, 0x8877600000 | P | W | U | PS);
	expect_gpa(&t, 0x8877600000 | (t.gva & 0x1fffff));
	set_entry(&t, 1, 0x8840000000 | P | W | U | PS);
	expect_gpa(&t, 0x8840000000 | (t.gva & 0x3fffffff));
	t.p.gb_pages = false;
	expect_fault(&t, 0, FONDA_PF_PRESENT | FONDA_PF_RSVD);
	t.p.gb_pages = true;
	set_entry(&t, 0, entry(&t, 0) | PS);
	expect_fault(&t, 0, FONDA_PF_PRESENT | FONDA_PF_RSVD);
}

TEST(what_is_not_present_faults_at_every_level)
{
	enum kind kind;
	int i;

	for (kind = LEGACY; kind < NR_KINDS; kind++) {
		struct tables t = build(kind);

		for (i = 0; i < t.nr; i++) {
			t = build(kind);
			/* All other bits set: they must not matter. */
			set_entry(&t, i, ~P);
			expect_fault(&t, 0, 0);
			expect_fault(&t, FONDA_ACCESS_WRITE | FONDA_ACCESS_USER,
				     PF_WRITE | PF_USER);
		}
	}
}

TEST(reserved_bits_fault)
{
	static const struct {
		enum kind kind;
		int level;		/* index of the entry, root first */
		u64 bits;
		bool reserved;
	} cases[] = {
		{ PAE, 0, 2, true }, { PAE, 0, 4, true }, { PAE, 0, 0x40, true },
		{ PAE, 0, 0x100, true }, { PAE, 0, NX, true }, { PAE, 0, 0x18, false },
		{ PAE, 0, 0xe00, false }, { PAE, 1, 1ull << 40, true },
		{ PAE, 2, 1ull << 52, true }, { PAE, 2, 1ull << 62, true },
		{ PAE, 2, NX, false },
		{ LONG4, 0, 1ull << 40, true }, { LONG4, 1, 1ull << 51, true },
		{ LONG4, 3, 1ull << 47, true }, { LONG4, 3, 1ull << 52, false },
		{ LONG4, 3, 0x7full << 52, false }, { LONG4, 3, NX, false },
		{ LONG4, 3, PS, false /* PAT */ }, { LONG4, 2, PS | 1 << 13, true },
		{ LONG5, 0, PS, true }, { LONG5, 1, PS, true },
	};
	unsigned int i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct tables t = build(cases[i].kind);
		gpa_t gpa;
		u32 error;
		int ret;

		set_entry(&t, cases[i].level, entry(&t, cases[i].level) | cases[i].bits);
		ret = walk(&t, FONDA_ACCESS_READ, &gpa, &error);
		if ((ret != 0) != cases[i].reserved)
			FAIL("case %u", i);
		if (ret)
			EXPECT_EQ(error, FONDA_PF_PRESENT | FONDA_PF_RSVD);
	}

	/* NX is reserved while EFER.NXE is clear. */
	struct tables t = build(LONG4);

	t.p.efer = EFER_LMA;
	set_entry(&t, 3, entry(&t, 3) | NX);
	expect_fault(&t, 0, FONDA_PF_PRESENT | FONDA_PF_RSVD);
}

/* "Determination of access rights", sentence by sentence (SDM volume 3). */
static bool model_allows(u64 rights, u32 access, const struct fonda_paging *p)
{
	bool user_page = rights & U, writable = rights & W, ac = p->rflags & X86_EFLAGS_AC;
	bool supervisor = !(access & FONDA_ACCESS_USER);

	if (access & FONDA_ACCESS_FETCH) {
		if (rights & NX)
			return false;
		if (supervisor)
			return !user_page || !(p->cr4 & X86_CR4_SMEP);
		return user_page;
	}
	if (supervisor) {
		if (user_page && (p->cr4 & X86_CR4_SMAP) && !ac)
			return false;
		if (!(access & FONDA_ACCESS_WRITE))
			return true;
		return writable || !(p->cr0 & X86_CR0_WP);
	}
	if (!user_page)
		return false;
	return !(access & FONDA_ACCESS_WRITE) || writable;
}

TEST(rights_are_those_of_the_manual)
{
	static const u32 accesses[] = {
		FONDA_ACCESS_READ, FONDA_ACCESS_WRITE, FONDA_ACCESS_FETCH,
		FONDA_ACCESS_USER, FONDA_ACCESS_WRITE | FONDA_ACCESS_USER,
		FONDA_ACCESS_FETCH | FONDA_ACCESS_USER,
	};
	unsigned int mask, a, checked = 0;

	/* Rights of the two last levels, then the control bits. */
	for (mask = 0; mask < 1 << 10; mask++) {
		for (a = 0; a < sizeof(accesses) / sizeof(accesses[0]); a++) {
			struct tables t = build(LONG4);
			u64 upper = (mask & 1 ? W : 0) | (mask & 2 ? U : 0) | (mask & 4 ? NX : 0);
			u64 lower = (mask & 8 ? W : 0) | (mask & 16 ? U : 0) | (mask & 32 ? NX : 0);
			u64 rights = (upper & lower & (W | U)) | ((upper | lower) & NX);
			u32 error, want = FONDA_PF_PRESENT;
			gpa_t gpa;
			int ret;

			set_entry(&t, 2, 0x4000 | P | upper);
			set_entry(&t, 3, t.page | P | lower);
			t.p.cr0 &= ~(mask & 64 ? X86_CR0_WP : 0);
			t.p.cr4 |= mask & 128 ? X86_CR4_SMEP : 0;
			t.p.cr4 |= mask & 256 ? X86_CR4_SMAP : 0;
			t.p.rflags = mask & 512 ? X86_EFLAGS_AC : 0;

			ret = walk(&t, accesses[a], &gpa, &error);
			EXPECT_EQ(!ret, model_allows(rights, accesses[a], &t.p));
			checked++;
			if (!ret)
				continue;
			want |= accesses[a] & FONDA_ACCESS_WRITE ? PF_WRITE : 0;
			want |= accesses[a] & FONDA_ACCESS_FETCH ? PF_FETCH : 0;
			if (accesses[a] & FONDA_ACCESS_USER)
				want |= PF_USER;
			EXPECT_EQ(error, want);
		}
	}
	tap_diag("%u combinations", checked);
}

/* Bit 4 of the error code exists with NX or SMEP only. */
TEST(fetches_are_told_only_with_nx_or_smep)
{
	struct tables t = build(LEGACY);

	set_entry(&t, 1, 0);
	expect_fault(&t, FONDA_ACCESS_FETCH, 0);
	t.p.efer = EFER_NXE;
	expect_fault(&t, FONDA_ACCESS_FETCH, 0);	/* no NX in this format */
	t.p.cr4 |= X86_CR4_SMEP;
	expect_fault(&t, FONDA_ACCESS_FETCH, PF_FETCH);
	t = build(LONG4);
	set_entry(&t, 3, 0);
	expect_fault(&t, FONDA_ACCESS_FETCH, PF_FETCH);
	t.p.efer &= ~(u64)EFER_NXE;
	expect_fault(&t, FONDA_ACCESS_FETCH, 0);
}

TEST(accessed_and_dirty_bits_are_set)
{
	enum kind kind;
	int i;

	for (kind = LEGACY; kind < NR_KINDS; kind++) {
		struct tables t = build(kind);
		gpa_t gpa;
		u32 error;

		EXPECT_EQ(walk(&t, FONDA_ACCESS_READ, &gpa, &error), 0);
		for (i = 0; i < t.nr; i++)
			EXPECT_EQ(entry(&t, i) & (A | D), kind == PAE && !i ? 0 : A);
		EXPECT_EQ(walk(&t, FONDA_ACCESS_WRITE, &gpa, &error), 0);
		EXPECT_EQ(entry(&t, t.nr - 1) & (A | D), A | D);
		EXPECT_EQ(entry(&t, t.nr - 2) & (A | D), A);
	}
}

TEST(a_fault_sets_no_bits)
{
	struct tables t = build(LONG4);
	int i;

	set_entry(&t, 3, t.page | P | U);
	expect_fault(&t, FONDA_ACCESS_WRITE, FONDA_PF_PRESENT | PF_WRITE);
	for (i = 0; i < 4; i++)
		EXPECT_EQ(entry(&t, i) & (A | D), 0);
}

TEST(tables_that_change_are_walked_again)
{
	struct tables t = build(LONG4);
	gpa_t gpa;
	u32 error;

	flips = 3;
	EXPECT_EQ(walk(&t, FONDA_ACCESS_WRITE, &gpa, &error), 0);
	EXPECT_EQ(gpa, t.page | (t.gva & 0xfff));
	/* But not for ever. */
	t = build(LONG4);
	flips = 1000000;
	EXPECT_EQ(walk(&t, FONDA_ACCESS_WRITE, &gpa, &error), -EAGAIN);
	EXPECT_LT(reads, 100);
}

TEST(errors_of_memory_are_passed_on)
{
	struct tables t = build(LONG4);
	gpa_t gpa;
	u32 error;

	fail_reads = -EAGAIN;
	EXPECT_EQ(walk(&t, FONDA_ACCESS_READ, &gpa, &error), -EAGAIN);
	fail_reads = 0;
	set_entry(&t, 1, 0x100000 | P | W | U);
	EXPECT_EQ(walk(&t, FONDA_ACCESS_READ, &gpa, &error), -EFAULT);
}

TEST(a_walk_tells_its_way)
{
	struct fonda_walk w;
	enum kind kind;
	int i;

	for (kind = LEGACY; kind < NR_KINDS; kind++) {
		struct tables t = build(kind);
		u64 before[5];

		for (i = 0; i < t.nr; i++)
			before[i] = entry(&t, i);
		EXPECT_EQ(fonda_walk(NULL, &t.p, t.gva, FONDA_ACCESS_WRITE, &w), 0);
		ASSERT_EQ(w.nr, t.nr);
		for (i = 0; i < t.nr; i++) {
			EXPECT_EQ(w.where[i], table_of(&t, i) + t.index[i] * (u32)t.len);
			EXPECT_EQ(w.entry[i], before[i]);
		}
	}
}
