// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Control blocks that the processor refuses: KVM_RUN says so, the module keeps
 * what was refused, and the explanation of it names the field that was broken.
 * Fields can be broken only when the module was loaded with break_entry=1; the
 * end-to-end tests do that, and run this program once more.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <linux/fonda.h>

#include "entry_breaks.h"
#include "tvm.h"
#include "vm/explain.h"

#define ARRAY_END(_a)	((_a) + sizeof(_a) / sizeof((_a)[0]))
#define PARAMETER	"/sys/module/fonda/parameters/break_entry"

GUEST64(halts, "hlt\n");

static bool may_break(void)
{
	FILE *file = fopen(PARAMETER, "re");
	int c = file ? fgetc(file) : EOF;

	if (file)
		fclose(file);
	return c == 'Y' || c == '1';
}

static void keep_first(void *arg, const struct finding *f)
{
	struct finding *first = arg;

	if (!first->nr)
		*first = *f;
}

/* What is there: the value of the field in @e. */
static uint64_t value_in(const struct fonda_failed_entry *e, const struct entry_break *b)
{
	uint64_t val = 0;
	uint32_t i;

	if (e->vendor == FONDA_ENTRY_SVM) {
		memcpy(&val, e->vmcb + b->field, b->size);
		return val;
	}
	for (i = 0; i < e->nr_fields; i++)
		if (e->vmcs[i].field == b->field)
			return e->vmcs[i].value;
	FAIL("the record has no field 0x%x", b->field);
}

/* A guest with that field broken: its exit, or -1 where there is no such field. */
static int enter(struct fonda_entry_field field, struct fonda_failed_entry *e)
{
	int reason = -1;
	struct tvm t;

	tvm_init(&t, &halts);
	if (!ioctl(t.cpu, FONDA_BREAK_ENTRY, &field))
		reason = tvm_run(&t);
	if (reason == KVM_EXIT_FAIL_ENTRY)
		ASSERT_OK(ioctl(t.cpu, FONDA_GET_FAILED_ENTRY, e));
	tvm_fini(&t);
	return reason;
}

/* What a control block is like, but for one field whose break is in the lists. */
static void get_record(struct fonda_failed_entry *e)
{
	const struct fonda_entry_field dr7 = { .field = 0x560, .size = 8, .value = 1ULL << 32 };
	const struct fonda_entry_field link = { .field = 0x2800, .value = 1 };

	if (enter(dr7, e) < 0)
		ASSERT_EQ(enter(link, e), KVM_EXIT_FAIL_ENTRY);
	ASSERT_NE(e->vendor, 0);
}

static void check_break(const struct entry_break *b, const struct fonda_failed_entry *good)
{
	uint64_t mask = b->size == 8 ? ~0ULL : (1ULL << 8 * b->size) - 1;
	struct fonda_entry_field field = {
		.field = b->field, .size = b->size,
		.value = ((value_in(good, b) & ~b->clear) | b->set) & mask,
	};
	static struct fonda_failed_entry e;
	struct finding first = { };
	int reason = enter(field, &e);

	if (reason != KVM_EXIT_FAIL_ENTRY)
		tap_diag("%s = 0x%llx (%s): the processor did not mind", b->name,
			 (unsigned long long)field.value, b->rule);
	EXPECT_EQ(reason, KVM_EXIT_FAIL_ENTRY);
	if (reason != KVM_EXIT_FAIL_ENTRY)
		return;
	EXPECT_GT(explain_entry(&e, keep_first, &first), 0);
	if (first.nr && (strcmp(first.field[0].name, b->name) || !strstr(first.rule, b->rule)))
		tap_diag("%s (%s) was explained as %s (%s)", b->name, b->rule, first.field[0].name,
			 first.rule);
	ASSERT_NE(first.nr, 0);
	EXPECT_STREQ(first.field[0].name, b->name);
	EXPECT_TRUE(strstr(first.rule, b->rule));
}

TEST(without_a_failure_there_is_no_record)
{
	struct fonda_failed_entry e;
	struct tvm t;

	tvm_init(&t, &halts);
	EXPECT_ERRNO(ioctl(t.cpu, FONDA_GET_FAILED_ENTRY, &e), ENOENT);
	EXPECT_EQ(tvm_run(&t), KVM_EXIT_HLT);
	EXPECT_ERRNO(ioctl(t.cpu, FONDA_GET_FAILED_ENTRY, &e), ENOENT);
	tvm_fini(&t);
}

TEST(without_the_parameter_no_field_can_be_broken)
{
	struct fonda_entry_field field = { .field = 0x4d0, .size = 8 };
	struct tvm t;

	tvm_init(&t, &halts);
	if (may_break()) {
		field.size = 3;
		EXPECT_ERRNO(ioctl(t.cpu, FONDA_BREAK_ENTRY, &field), EINVAL);
	} else {
		EXPECT_ERRNO(ioctl(t.cpu, FONDA_BREAK_ENTRY, &field), EPERM);
	}
	EXPECT_EQ(tvm_run(&t), KVM_EXIT_HLT);
	tvm_fini(&t);
}

TEST(a_field_cannot_be_broken_while_another_one_is)
{
	struct fonda_entry_field field = { .field = 0x560, .size = 8, .value = 1ULL << 32 };
	struct tvm t;

	tvm_init(&t, &halts);
	if (!may_break()) {
		EXPECT_ERRNO(ioctl(t.cpu, FONDA_BREAK_ENTRY, &field), EPERM);
		EXPECT_ERRNO(ioctl(t.cpu, FONDA_BREAK_ENTRY, &field), EPERM);
		tvm_fini(&t);
		return;
	}
	/* DR7 of a VMCB; a VMCS has no such field, but a link pointer. */
	if (ioctl(t.cpu, FONDA_BREAK_ENTRY, &field)) {
		field = (struct fonda_entry_field){ .field = 0x2800, .value = 1 };
		ASSERT_OK(ioctl(t.cpu, FONDA_BREAK_ENTRY, &field));
	}
	ASSERT_EQ(tvm_run(&t), KVM_EXIT_FAIL_ENTRY);
	EXPECT_ERRNO(ioctl(t.cpu, FONDA_BREAK_ENTRY, &field), EBUSY);
	/* Where it goes on depends: QEMU saves its host's state in a VMCB that it refuses. */
	EXPECT_NE(tvm_run(&t), KVM_EXIT_FAIL_ENTRY);
	EXPECT_OK(ioctl(t.cpu, FONDA_BREAK_ENTRY, &field));
	tvm_fini(&t);
}

TEST_TIMEOUT(each_broken_field_is_named, 300)
{
	static struct fonda_failed_entry good;
	const struct entry_break *b, *end;
	unsigned int broken = 0;
	struct tvm t;

	if (may_break()) {
		get_record(&good);
		b = good.vendor == FONDA_ENTRY_SVM ? svm_breaks : vmx_breaks;
		end = good.vendor == FONDA_ENTRY_SVM ?
		      ARRAY_END(svm_breaks) : ARRAY_END(vmx_breaks);
		for (; b < end; b++)
			if (!b->unchecked || !(tvm_in_tcg() || tvm_in_bochs())) {
				check_break(b, &good);
				broken++;
			}
		/* The end-to-end test looks for it. */
		tap_diag("%u fields were broken", broken);
	}
	/* Nothing is left of it: the next vCPU enters. */
	tvm_init(&t, &halts);
	EXPECT_EQ(tvm_run(&t), KVM_EXIT_HLT);
	tvm_fini(&t);
}
