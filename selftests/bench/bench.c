// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Repeats the operation of a row and reports the median. See bench.h. The row
 * comes out as one line, for `run` to make a table of:
 *
 *	# bench <name> <ticks> <floor> <target> <label>
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

/* Not static: the host writes the guest's copy behind the compiler's back. */
extern struct bench_row bench_row;
extern uint64_t bench_samples[BENCH_REPEAT];
struct bench_row bench_row;
uint64_t bench_samples[BENCH_REPEAT];

/* What the two readings of the TSC cost: the least of a few tries. */
static uint64_t timing_cost(void)
{
	uint64_t cost = UINT64_MAX;
	uint64_t ticks;
	int i;

	for (i = 0; i < 16; i++) {
		ticks = TIMED("", );
		if (ticks < cost)
			cost = ticks;
	}
	return cost;
}

GUEST(bench_guest)
{
	uint64_t cost;
	uint32_t i;

	if (bench_row.prepare)
		bench_row.prepare();
	cost = timing_cost();
	for (i = 0; bench_row.guest && i < bench_row.repeat; i++)
		bench_samples[i] = bench_row.guest() - cost;
	if (bench_row.guest)
		GUEST_DONE();

	/* The host does the operation, and may need the guest in between. */
	for (;;) {
		GUEST_SYNC(0);
		bench_row.serve();
	}
}

/*
 * What a VMM does on an exit, and nothing else: the guest measures the way
 * out and back in. Ends at the exits that are the guest's reports.
 */
static uint64_t run_guest(struct tvm *t)
{
	bool is_report;
	uint64_t ret;

	for (;;) {
		long run = KVM_RUN, fd = t->cpu;

		__asm__ volatile("syscall" : "=a"(ret)
				 : "a"((long)SYS_ioctl), "D"(fd), "S"(run), "d"(0l)
				 : "rcx", "r11", "memory");
		/* The host had something else for this thread to do. */
		if (ret == (uint64_t)-EINTR)
			continue;
		if (ret)
			FAIL("KVM_RUN: %s", strerror((int)-ret));
		if (t->run->exit_reason == KVM_EXIT_MMIO)
			continue;
		if (t->run->exit_reason != KVM_EXIT_IO ||
		    t->run->io.port == GUEST_PORT)
			break;
	}
	ret = tvm_report(t, 0, &is_report);
	if (!is_report)
		FAIL("exit reason %u instead of a report", t->run->exit_reason);
	return ret;
}

void bench_serve(struct tvm *t)
{
	ASSERT_EQ(run_guest(t), 0);
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static uint64_t median(uint64_t *samples, uint32_t nr)
{
	qsort(samples, nr, sizeof(*samples), by_size);
	return samples[nr / 2];
}

static uint64_t host_part(const struct bench_row *row, uint32_t repeat)
{
	uint64_t cost = timing_cost();
	uint32_t i;

	if (!row->host_part)
		return 0;
	for (i = 0; i < repeat; i++)
		bench_samples[i] = row->host_part() - cost;
	return median(bench_samples, repeat);
}

static void report(const struct bench_row *row, const char *name, uint64_t ticks,
		   uint64_t host)
{
	unsigned long long tenths, floor = 0;
	char each[32];

	snprintf(each, sizeof(each), "%llu", (unsigned long long)ticks);
	/* The floors were counted on the other vendor's processor. */
	if (cpu_is_amd())
		floor = row->floor;
	if (row->per) {
		tenths = (10 * ticks + row->per - 1) / row->per;
		snprintf(each, sizeof(each), "%llu.%llu", tenths / 10, tenths % 10);
	}
	tap_diag("bench %s %s %llu %llu %s", name, each,
		 floor + host,
		 (unsigned long long)(row->target + host), row->label);
}

void bench_row_run(const struct bench_row *row, const char *name)
{
	uint32_t repeat = row->repeat ? row->repeat : BENCH_REPEAT;
	uint64_t *samples = bench_samples;
	uint64_t cost, host;
	struct tvm t;
	uint32_t i;

	ASSERT_LE(repeat, BENCH_REPEAT);
	tvm_init_bare(&t, TVM_IRQCHIP);
	if (row->create)
		row->create(&t);
	tvm_add_vcpu(&t, 0);
	tvm_set_code(&t, 0, &bench_guest);
	if (row->setup)
		row->setup(&t);
	G(&t, bench_row) = *row;
	G(&t, bench_row).repeat = repeat;

	if (row->guest) {
		ASSERT_EQ(run_guest(&t), TVM_DONE);
		samples = G(&t, bench_samples);
	} else {
		cost = timing_cost();
		ASSERT_EQ(run_guest(&t), 0);
		for (i = 0; i < repeat; i++)
			samples[i] = row->host(&t) - cost;
	}
	__asm__ volatile(BENCH_NEXT);

	host = host_part(row, repeat);
	report(row, name, median(samples, repeat), host);
	tvm_fini(&t);
}
