/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Pseudo-random numbers that repeat from run to run (xorshift64*). */
#ifndef SELFTESTS_RNG_H
#define SELFTESTS_RNG_H

#include <stdint.h>
#include <stdlib.h>

struct rng {
	uint64_t state;		/* not 0 */
};

/* `make fuzz' runs the tests again and again with other values of FUZZ_SEED. */
static inline struct rng rng_create(uint64_t seed)
{
	const char *env = getenv("FUZZ_SEED");

	if (env)
		seed += strtoull(env, NULL, 0) * 0x9e3779b97f4a7c15ULL;
	return (struct rng){ .state = seed ? seed : 1 };
}

static inline uint64_t rng_next(struct rng *r)
{
	r->state ^= r->state >> 12;
	r->state ^= r->state << 25;
	r->state ^= r->state >> 27;
	return r->state * 0x2545f4914f6cdd1dULL;
}

/* 0 to n - 1 */
static inline uint32_t rng_below(struct rng *r, uint32_t n)
{
	return (uint32_t)(rng_next(r) >> 32) % n;
}

#endif
