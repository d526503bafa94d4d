/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Small helpers that every part of the VMM uses: arithmetic macros, unaligned
 * little-endian access, and the one way in which errors become sentences.
 */
#ifndef UTIL_H
#define UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define ARRAY_SIZE(_a)		(sizeof(_a) / sizeof((_a)[0]))
#define BIT(_n)			(1U << (_n))
#define BIT_ULL(_n)		(1ULL << (_n))
#define KIB			1024ULL
#define MIB			(1024ULL * KIB)
#define GIB			(1024ULL * MIB)
#define NSEC_PER_SEC		1000000000ULL

#define container_of(_ptr, _type, _member) \
	((_type *)((char *)(_ptr) - offsetof(_type, _member)))

#define MIN(_a, _b)		((_a) < (_b) ? (_a) : (_b))
#define MAX(_a, _b)		((_a) > (_b) ? (_a) : (_b))

/* @align is a power of two. */
static inline uint64_t align_down(uint64_t v, uint64_t align)
{
	return v & ~(align - 1);
}

static inline uint64_t align_up(uint64_t v, uint64_t align)
{
	return align_down(v + align - 1, align);
}

/* The low @len bytes set, @len from 1 to 8. */
static inline uint64_t len_mask(unsigned int len)
{
	return len >= 8 ? ~0ULL : (1ULL << (8 * len)) - 1;
}

/* x86 is little-endian, and so is everything the guest sees. */
static inline uint16_t load16(const void *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline uint32_t load32(const void *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline uint64_t load64(const void *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline void store16(void *p, uint16_t v)
{
	memcpy(p, &v, sizeof(v));
}

static inline void store32(void *p, uint32_t v)
{
	memcpy(p, &v, sizeof(v));
}

static inline void store64(void *p, uint64_t v)
{
	memcpy(p, &v, sizeof(v));
}

/*
 * Prints "fonda: " and the sentence, and returns -@err, so that the place
 * that knows what went wrong says so and its callers only pass the number on.
 */
int fail(int err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The same without an error to return: something that the run survives. */
void warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Nanoseconds of CLOCK_MONOTONIC. */
uint64_t now_ns(void);

/*
 * Reads a size with an optional suffix K, M, G or T (powers of 1024); without
 * one the number counts @unit bytes. -EINVAL or -ERANGE, without a sentence.
 */
int parse_size(const char *text, uint64_t unit, uint64_t *size);

/* Reads a decimal number between @min and @max. -EINVAL or -ERANGE. */
int parse_uint(const char *text, unsigned int min, unsigned int max,
	       unsigned int *value);

#endif /* UTIL_H */
