// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Computes with AVX in the guest, on every CPU at once, with a different
 * expected result on each: a value lost or mixed up when the guest, the host
 * or another guest switches register state shows up as a wrong sum. Exit
 * status 0 when all are right.
 */
#define _GNU_SOURCE
#include <immintrin.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#define MAX_THREADS	64
#define ROUNDS		200
#define TERMS		500

/*
 * Every lane counts (seed + lane) up TERMS times a round. All values are
 * integers below 2^53, so the sums of doubles are exact. The accumulators stay
 * in YMM registers across sched_yield() only as the C library and the kernel
 * save them, and across interrupts always.
 */
__attribute__((target("avx")))
static int64_t sum_avx(int seed)
{
	__m256d step = _mm256_set_pd(seed + 3, seed + 2, seed + 1, seed);
	__m256d sum = _mm256_setzero_pd();
	double lanes[4];
	int round, i;

	for (round = 0; round < ROUNDS; round++) {
		for (i = 1; i <= TERMS; i++) {
			__m256d term = _mm256_mul_pd(step, _mm256_set1_pd(i));

			sum = _mm256_add_pd(sum, term);
		}
		sched_yield();
	}
	_mm256_storeu_pd(lanes, sum);
	return (int64_t)(lanes[0] + lanes[1] + lanes[2] + lanes[3]);
}

/* The same in closed form: four lanes, TERMS (TERMS + 1) / 2 a round. */
static int64_t sum_expected(int seed)
{
	return (4LL * seed + 6) * ROUNDS * TERMS * (TERMS + 1) / 2;
}

static void *work(void *arg)
{
	int seed = (int)(intptr_t)arg;
	int64_t got = sum_avx(seed);

	if (got == sum_expected(seed))
		return NULL;
	printf("seed %d: %lld instead of %lld\n", seed, (long long)got,
	       (long long)sum_expected(seed));
	return arg;
}

int main(void)
{
	long nr = 2 * sysconf(_SC_NPROCESSORS_ONLN);
	pthread_t threads[MAX_THREADS];
	void *wrong, *any_wrong = NULL;
	long i;

	if (!__builtin_cpu_supports("avx")) {
		puts("this CPU has no AVX");
		return 2;
	}
	if (nr > MAX_THREADS)
		nr = MAX_THREADS;
	for (i = 0; i < nr; i++) {
		if (pthread_create(&threads[i], NULL, work, (void *)(intptr_t)(1000 * (i + 1))))
			return 2;
	}
	for (i = 0; i < nr; i++) {
		pthread_join(threads[i], &wrong);
		if (wrong)
			any_wrong = wrong;
	}
	return any_wrong ? 1 : 0;
}
