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

enum fonda_stat_exit {
	FONDA_STAT_INTERRUPT, FONDA_STAT_HALT, FONDA_STAT_PIO, FONDA_STAT_MMIO,
	FONDA_STAT_PAGE_FAULT, FONDA_STAT_MSR, FONDA_STAT_CPUID, FONDA_STAT_CR, FONDA_STAT_DR,
	FONDA_STAT_EXCEPTION, FONDA_STAT_NMI_WINDOW, FONDA_STAT_HYPERCALL, FONDA_STAT_CACHE,
	FONDA_STAT_PAUSE, FONDA_STAT_OTHER,
	FONDA_NR_STAT_EXITS
};

struct fonda_vcpu_stats {
	u64 exits[FONDA_NR_STAT_EXITS];
	u64 cycles[FONDA_NR_STAT_EXITS];	/* of the host's TSC */
	u64 user_exits;
	u64 halt_polls;		/* halts that ended while polling */
	u64 halt_sleeps;
	u64 since;		/* TSC of the last exit */
	u8 last;		/* its class */
	bool open;		/* its time is still running */
};

DECLARE_STATIC_KEY_TRUE(fonda_stats_time);

static inline void fonda_stats_exit(struct fonda_vcpu *vcpu, enum fonda_stat_exit class)
{
	struct fonda_vcpu_stats *stats = vcpu->stats;

	/* Called a second time for an exit whose handler had to sleep. */
	if (stats->open)
		return;
	stats->exits[class]++;
	if (static_branch_likely(&fonda_stats_time)) {
		stats->open = true;
		stats->last = class;
		stats->since = rdtsc();
	}
}

/* A nested fault turned out to be an access to a device. */
static inline void fonda_stats_reclassify(struct fonda_vcpu *vcpu, enum fonda_stat_exit class)
{
	struct fonda_vcpu_stats *stats = vcpu->stats;

	if (stats->last == class)
		return;
	stats->exits[FONDA_STAT_PAGE_FAULT]--;
	stats->exits[class]++;
	stats->last = class;
}

/* Before an entry, before user space, before a halted vCPU sleeps. */
static inline void fonda_stats_close(struct fonda_vcpu *vcpu)
{
	struct fonda_vcpu_stats *stats = vcpu->stats;

	if (stats->open) {
		stats->open = false;
		stats->cycles[stats->last] += rdtsc() - stats->since;
	}
}

#endif
