/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Why the processor refused to enter a guest: the manual's checks, done again
 * over the control block that it refused.
 */
#ifndef EXPLAIN_H
#define EXPLAIN_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <linux/fonda.h>

#define EXPLAIN_FIELDS	4

/* A rule that the control block breaks. */
struct finding {
	const char *manual;	/* its short name */
	const char *section;	/* the title of the section with the rule */
	char rule[160];		/* what it demands, as a sentence without a full stop */
	int nr;			/* fields involved, the one at fault first */
	struct {
		const char *name;
		uint64_t value;
	} field[EXPLAIN_FIELDS];
};

/* Where findings go, in the order of the manual. */
struct explain {
	const struct fonda_failed_entry *entry;
	void (*found)(void *arg, const struct finding *f);
	void *arg;
	const char *manual;
	const char *section;
	int count;
};

/*
 * Calls @found for each rule broken; how many there were, or -EINVAL for an
 * entry of a vendor unknown here.
 */
int explain_entry(const struct fonda_failed_entry *e,
		  void (*found)(void *arg, const struct finding *f), void *arg);
/* The same for people to read, on @out, with what the processor said before it. */
int explain_print(const struct fonda_failed_entry *e, FILE *out);

/*
 * A file of its own for @e, in the directory for run-time files or, without
 * one, for temporary ones; its name goes into @path. Read back by load, which
 * has said what is wrong with it when it fails. 0 or a negative errno.
 */
int explain_save(const struct fonda_failed_entry *e, char *path, size_t size);
int explain_load(struct fonda_failed_entry *e, const char *path);

/* For the two files of checks. */
void explain_svm(struct explain *x);
void explain_vmx(struct explain *x);
void explain_add(struct explain *x, struct finding *f);

/* What a physical address may not have, and must not. */
static inline uint64_t beyond_phys(const struct explain *x)
{
	return x->entry->phys_bits < 64 ? ~0ULL << x->entry->phys_bits : 0;
}

static inline bool canonical(uint64_t addr, int bits)
{
	return (uint64_t)((int64_t)(addr << (64 - bits)) >> (64 - bits)) == addr;
}

/* Eight memory types of a byte each: 2, 3 and those above 7 are reserved. */
static inline bool valid_pat(uint64_t pat)
{
	for (; pat; pat >>= 8)
		if ((pat & 0xff) > 7 || (pat & 0xff) == 2 || (pat & 0xff) == 3)
			return false;
	return true;
}

#endif
