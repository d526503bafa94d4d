// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * `fonda explain': control blocks that a processor would accept break no rule;
 * with one field broken, that field and the manual's rule are named first.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "entry_breaks.h"
#include "tap.h"
#include "util/util.h"
#include "vm/explain.h"

/* A processor of about 2013, and a guest in 64-bit mode on it. */
static const struct fonda_entry_field vmx_fields[] = {
	{ 0x0000, 2, 1 },			/* VPID */
	{ 0x0800, 2, 0x10 }, { 0x0802, 2, 0x08 }, { 0x0804, 2, 0x10 }, { 0x0806, 2, 0x10 },
	{ 0x0808, 2, 0 }, { 0x080a, 2, 0 }, { 0x080c, 2, 0 }, { 0x080e, 2, 0x18 },
	{ 0x0c00, 2, 0 }, { 0x0c02, 2, 0x10 }, { 0x0c04, 2, 0x18 }, { 0x0c06, 2, 0 },
	{ 0x0c08, 2, 0 }, { 0x0c0a, 2, 0 }, { 0x0c0c, 2, 0x40 },
	{ 0x2004, 8, 0x5000 },			/* MSR bitmap */
	{ 0x200a, 8, 0 }, { 0x2006, 8, 0x6001 }, { 0x2008, 8, 0 },
	{ 0x201a, 8, 0x700000000 | 3 << 3 | 6 },	/* EPT pointer */
	{ 0x2800, 8, ~0ULL }, { 0x2802, 8, 0 },
	{ 0x2804, 8, 0x0007040600070406 }, { 0x2806, 8, 0xd01 },
	{ 0x2c00, 8, 0x0007040600070406 }, { 0x2c02, 8, 0xd01 },
	{ 0x4000, 4, 0x3f }, { 0x4002, 4, 0x9401e172 }, { 0x400a, 4, 0 },
	{ 0x400c, 4, 0x3fffff & ~(1U << 12 | 1U << 15) }, { 0x400e, 4, 0 }, { 0x4010, 4, 0 },
	{ 0x4012, 4, 0x11ff | 1 << 9 | 1 << 14 | 1 << 15 }, { 0x4014, 4, 0 },
	{ 0x4016, 4, 0 }, { 0x4018, 4, 0 }, { 0x401a, 4, 0 }, { 0x401c, 4, 0 },
	{ 0x401e, 4, 0xa2 },			/* EPT, VPID, unrestricted guest */
	{ 0x4800, 4, ~0U }, { 0x4802, 4, ~0U }, { 0x4804, 4, ~0U }, { 0x4806, 4, ~0U },
	{ 0x4808, 4, ~0U }, { 0x480a, 4, ~0U }, { 0x480c, 4, 0 }, { 0x480e, 4, 0x67 },
	{ 0x4810, 4, 0x7f }, { 0x4812, 4, 0xfff },
	{ 0x4814, 4, 0xc093 }, { 0x4816, 4, 0xa09b }, { 0x4818, 4, 0xc093 },
	{ 0x481a, 4, 0xc093 }, { 0x481c, 4, 0x10000 }, { 0x481e, 4, 0x10000 },
	{ 0x4820, 4, 0x10000 }, { 0x4822, 4, 0x8b },
	{ 0x4824, 4, 0 }, { 0x4826, 4, 0 },
	{ 0x6800, 8, 0x80050033 }, { 0x6802, 8, 0x1000 }, { 0x6804, 8, 0x20a0 },
	{ 0x6806, 8, 0 }, { 0x6808, 8, 0 }, { 0x680a, 8, 0 }, { 0x680c, 8, 0 },
	{ 0x680e, 8, 0x7f0000000000 }, { 0x6810, 8, 0xffff888000000000 },
	{ 0x6812, 8, 0 }, { 0x6814, 8, 0xfffffe0000003000 },
	{ 0x6816, 8, 0xfffffe0000001000 }, { 0x6818, 8, 0xfffffe0000000000 },
	{ 0x681a, 8, 0x400 }, { 0x681c, 8, 0x9000 }, { 0x681e, 8, 0xffffffff81000000 },
	{ 0x6820, 8, 0x202 }, { 0x6822, 8, 0 }, { 0x6824, 8, 0 }, { 0x6826, 8, 0 },
	{ 0x6c00, 8, 0x80050033 }, { 0x6c02, 8, 0x2000 }, { 0x6c04, 8, 0x20a0 },
	{ 0x6c06, 8, 0 }, { 0x6c08, 8, 0xffff888000000000 }, { 0x6c0a, 8, 0xfffffe0000003000 },
	{ 0x6c0c, 8, 0xfffffe0000001000 }, { 0x6c0e, 8, 0xfffffe0000000000 },
	{ 0x6c10, 8, 0 }, { 0x6c12, 8, 0xffffffff81001000 }, { 0x6c16, 8, 0xffffffffc0000000 },
};

static struct fonda_failed_entry good_vmx(void)
{
	struct fonda_failed_entry e = {
		.vendor = FONDA_ENTRY_VMX, .nr_fields = ARRAY_SIZE(vmx_fields), .phys_bits = 40,
		.reason = 0x80000021,
		.caps = {
			[0] = 1ULL << 55,		/* the "true" controls tell */
			[5] = 7 << 6,			/* all activity states */
			[6] = 0x80000021, [7] = 0xffffffff,
			[8] = 0x2000, [9] = 0x1727ff,
			[0xb] = 0x1ffULL << 32,
			[0xc] = 1 << 6 | 1 << 8 | 1 << 14,
			[0xd] = 0x7fULL << 32 | 0x16,
			[0xe] = 0xfff9fffeULL << 32 | 0x4006172,
			[0xf] = 0x7fffffULL << 32 | 0x36dfb,
			[0x10] = 0xffffULL << 32 | 0x11fb,
		},
	};

	memcpy(e.vmcs, vmx_fields, sizeof(vmx_fields));
	return e;
}

static void put(struct fonda_failed_entry *e, uint32_t offset, uint32_t size, uint64_t value)
{
	memcpy(e->vmcb + offset, &value, size);
}

static struct fonda_failed_entry good_svm(void)
{
	struct fonda_failed_entry e = {
		.vendor = FONDA_ENTRY_SVM, .reason = ~0ULL, .phys_bits = 40,
		.caps = { 16, 0x5d01, 0x3706ff },
	};

	put(&e, 0x010, 4, 1);
	put(&e, 0x040, 8, 0x5000);
	put(&e, 0x048, 8, 0x8000);
	put(&e, 0x058, 4, 1);
	put(&e, 0x090, 8, 1);
	put(&e, 0x0b0, 8, 0xa000);
	put(&e, 0x412, 2, 0xa9b);
	put(&e, 0x4d0, 8, 0x1d01);
	put(&e, 0x548, 8, 0x6a0);
	put(&e, 0x550, 8, 0x1000);
	put(&e, 0x558, 8, 0x80050033);
	put(&e, 0x560, 8, 0x400);
	put(&e, 0x568, 8, 0xffff0ff0);
	put(&e, 0x570, 8, 2);
	put(&e, 0x668, 8, 0x0007040600070406);
	return e;
}

static void keep_first(void *arg, const struct finding *f)
{
	struct finding *first = arg;

	EXPECT_NE(f->nr, 0);
	EXPECT_NE((uintptr_t)f->section, 0);
	EXPECT_TRUE(strcmp(f->field[0].name, "?"));
	if (!first->nr)
		*first = *f;
}

static void say(void *arg, const struct finding *f)
{
	tap_diag("%s: %s = 0x%llx", f->rule, f->field[0].name,
		 (unsigned long long)f->field[0].value);
}

static void apply(struct fonda_failed_entry *e, const struct entry_break *b)
{
	uint64_t val = 0;
	uint32_t i;

	if (e->vendor == FONDA_ENTRY_SVM) {
		memcpy(&val, e->vmcb + b->field, b->size);
		val = ((val & ~b->clear) | b->set) & len_mask(b->size);
		put(e, b->field, b->size, val);
		return;
	}
	for (i = 0; i < e->nr_fields && e->vmcs[i].field != b->field; i++)
		;
	if (i == e->nr_fields)
		FAIL("the test has no field 0x%x", b->field);
	e->vmcs[i].value = ((e->vmcs[i].value & ~b->clear) | b->set) & len_mask(b->size);
}

static void check_break(struct fonda_failed_entry e, const struct entry_break *b)
{
	struct finding first = { };

	apply(&e, b);

	if (explain_entry(&e, keep_first, &first) <= 0 || strcmp(first.field[0].name, b->name) ||
	    !strstr(first.rule, b->rule)) {
		tap_diag("broken: %s, \"%s\"; found first:", b->name, b->rule);
		say(NULL, &first);
	}
	EXPECT_STREQ(first.field[0].name, b->name);
	EXPECT_TRUE(strstr(first.rule, b->rule));
}

TEST(a_good_control_block_breaks_no_rule)
{
	struct fonda_failed_entry svm = good_svm(), vmx = good_vmx();

	EXPECT_EQ(explain_entry(&svm, say, NULL), 0);
	EXPECT_EQ(explain_entry(&vmx, say, NULL), 0);
}

TEST(svm_names_each_field_that_is_broken)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(svm_breaks); i++)
		check_break(good_svm(), &svm_breaks[i]);
}

TEST(vmx_names_each_field_that_is_broken)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(vmx_breaks); i++)
		check_break(good_vmx(), &vmx_breaks[i]);
}

/* Whatever a file holds: an answer, and nothing read beyond it. */
TEST(any_bytes_are_survived)
{
	static struct fonda_failed_entry e;
	struct finding first = { };
	unsigned int seed;
	size_t i;

	for (seed = 1; seed <= 2000; seed++) {
		srand(seed);
		for (i = 0; i < sizeof(e); i++)
			((uint8_t *)&e)[i] = rand();
		e.vendor = 1 + seed % 2;
		e.nr_fields = rand() % (FONDA_ENTRY_FIELDS + 2);
		for (i = 0; i < FONDA_ENTRY_FIELDS; i++)
			e.vmcs[i].field &= 0x6fff;
		if (e.vendor == FONDA_ENTRY_VMX && e.nr_fields > FONDA_ENTRY_FIELDS)
			EXPECT_EQ(explain_entry(&e, keep_first, &first), -EINVAL);
		else
			EXPECT_TRUE(explain_entry(&e, keep_first, &first) >= 0);
	}
	e.vendor = 3;
	EXPECT_EQ(explain_entry(&e, keep_first, &first), -EINVAL);
}

TEST(a_record_comes_back_from_its_file_and_no_other_file_does)
{
	struct fonda_failed_entry out = good_vmx(), in = { };
	char path[256];

	ASSERT_EQ(explain_save(&out, path, sizeof(path)), 0);
	EXPECT_EQ(explain_load(&in, path), 0);
	EXPECT_EQ(memcmp(&in, &out, sizeof(in)), 0);
	ASSERT_EQ(truncate(path, sizeof(out)), 0);
	EXPECT_EQ(explain_load(&in, path), -EINVAL);
	ASSERT_EQ(unlink(path), 0);
	EXPECT_EQ(explain_load(&in, path), -ENOENT);
	EXPECT_EQ(explain_load(&in, "/dev/zero"), -EINVAL);
}
