/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the two halves of the outer machine's init share: init.c owns the
 * machine, job.c runs one command and judges it.
 */
#ifndef SELFTESTS_BED_INIT_H
#define SELFTESTS_BED_INIT_H

#include <stdbool.h>
#include <stddef.h>

/* Every test and every check of the bed's own ends as one of these. */
struct totals {
	unsigned int passed;
	unsigned int failed;
	unsigned int skipped;
};

struct job {
	char *device;		/* "kvm", "fonda" or "none" */
	char *command;		/* for /bin/sh -c */
	unsigned int timeout_s;	/* 0: no limit */
	bool tap;		/* its output must be TAP with a plan */
	bool terminal;		/* runs on the console, for a person */
};

/* A line of the bed's own, marked so that it passes as a TAP comment. */
void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Counts one failure and keeps its text for the summary. */
void failure(struct totals *t, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* Writes all of it, whatever it takes. */
void write_all(int fd, const void *buf, size_t len);

/*
 * Runs the job with FONDA_DEV=device, adds its tests to t, and leaves no
 * process behind. False when one could not be killed: the kernel is stuck.
 */
bool job_run(const struct job *job, const char *device, struct totals *t);

/* Milliseconds of CLOCK_MONOTONIC. */
long long now_ms(void);

#endif /* SELFTESTS_BED_INIT_H */
