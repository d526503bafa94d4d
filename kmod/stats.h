/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Counters of a vCPU: exits by reason, and the time from each exit to the next
 * entry. Written by the vCPU's thread alone, read by anyone; a reader may see
 * one in the middle of an exit, never a torn number.
 */
#ifndef FONDA_STATS_H
#define FONDA_STATS_H

#include <linux/jump_label.h>
#include <asm/msr.h>

#include "fonda.h"

/* Where the time since the last exit goes, and that of who is not in one. */
DECLARE_STATIC_KEY_TRUE(fonda_stats_time);

static inline void fonda_stats_exit(struct fonda_vcpu *vcpu, enum fonda_stat class)
{
	vcpu->stats.count[class]++;
	if (static_branch_likely(&fonda_stats_time)) {
		vcpu->stats.last = class;
		vcpu->stats.since = rdtsc();
	}
}

/* A nested fault turned out to be an access to a device. */
static inline void fonda_stats_reclassify(struct fonda_vcpu *vcpu, enum fonda_stat class)
{
	struct fonda_vcpu_stats *stats = &vcpu->stats;

	/* Not the second time, after its handler had to sleep. */
	if (stats->last == class)
		return;
	stats->count[FONDA_STAT_PAGE_FAULT]--;
	stats->count[class]++;
	stats->last = class;
}

/* Before an entry, before user space, before a halted vCPU sleeps. */
static inline void fonda_stats_close(struct fonda_vcpu *vcpu)
{
	struct fonda_vcpu_stats *stats = &vcpu->stats;

	if (static_branch_likely(&fonda_stats_time)) {
		u64 cycles = rdtsc() - stats->since;

		/* Or the compiler adds in another order, with more instructions. */
		OPTIMIZER_HIDE_VAR(cycles);
		stats->count[FONDA_STAT_CYCLES + stats->last] += cycles;
		stats->last = FONDA_NR_STAT_EXITS;
	}
}

#endif
