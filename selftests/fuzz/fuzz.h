/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the fuzzers share: how long they go on, and the timer that gets a thread
 * out of KVM_RUN whatever its guest does.
 */
#ifndef SELFTESTS_FUZZ_H
#define SELFTESTS_FUZZ_H

#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "rng.h"
#include "tap.h"

/* `make fuzz' sets FUZZ_SEED and may set FUZZ_FACTOR: times as many steps. */
static inline unsigned int fuzz_steps(unsigned int steps)
{
	const char *env = getenv("FUZZ_FACTOR");

	return env ? steps * strtoul(env, NULL, 0) : steps;
}

static __thread volatile sig_atomic_t fuzz_ticks;

static void fuzz_tick(int sig)
{
	(void)sig;
	fuzz_ticks++;
}

/* The calling thread's timer, which is off. */
static inline timer_t fuzz_timer(void)
{
	struct sigaction action = { .sa_handler = fuzz_tick };
	struct sigevent event = {
		.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN + 4,
	};
	timer_t timer;

	event._sigev_un._tid = syscall(SYS_gettid);
	ASSERT_OK(sigaction(event.sigev_signo, &action, NULL));
	ASSERT_OK(timer_create(CLOCK_MONOTONIC, &event, &timer));
	return timer;
}

/* While it is on, fuzz_ticks grows and system calls are interrupted; 0 is off. */
static inline void fuzz_set_period(timer_t timer, long ns)
{
	const struct itimerspec period = { .it_value.tv_nsec = ns, .it_interval.tv_nsec = ns };

	ASSERT_OK(timer_settime(timer, 0, &period, NULL));
}

/* A number as bugs like them: small, a power of two or next to one, or any. */
static inline uint64_t fuzz_number(struct rng *r)
{
	switch (rng_below(r, 6)) {
	case 0:	 return rng_below(r, 4);
	case 1:	 return rng_below(r, 256);
	case 2:	 return 1ULL << rng_below(r, 64);
	case 3:	 return (1ULL << rng_below(r, 64)) - 1;
	case 4:	 return -(uint64_t)rng_below(r, 0x2000);
	default: return rng_next(r);
	}
}

#endif
