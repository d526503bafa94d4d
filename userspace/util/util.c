// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The clock, and numbers typed by people.
 */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "util.h"

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

/* Digits only: strtoull() alone would take a sign and leading blanks. */
static int parse_digits(const char *text, char **end, uint64_t *value)
{
	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	*value = strtoull(text, end, 10);
	return errno ? -ERANGE : 0;
}

int parse_size(const char *text, uint64_t unit, uint64_t *size)
{
	static const char suffixes[] = "KMGT";
	const char *suffix;
	uint64_t value;
	char *end;
	int ret;

	ret = parse_digits(text, &end, &value);
	if (ret)
		return ret;
	if (*end) {
		suffix = strchr(suffixes, *end >= 'a' ? *end - 'a' + 'A' : *end);
		if (!suffix || end[1])
			return -EINVAL;
		unit = KIB << (10 * (suffix - suffixes));
	}
	if (__builtin_mul_overflow(value, unit, size))
		return -ERANGE;
	return 0;
}

int parse_uint(const char *text, unsigned int min, unsigned int max,
	       unsigned int *value)
{
	uint64_t v;
	char *end;
	int ret;

	ret = parse_digits(text, &end, &v);
	if (ret)
		return ret;
	if (*end)
		return -EINVAL;
	if (v < min || v > max)
		return -ERANGE;
	*value = (unsigned int)v;
	return 0;
}
