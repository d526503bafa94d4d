/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The test harness. A program is any number of TEST(name) bodies linked with
 * tap.c, which owns main(): it runs each body in a child process of its own
 * and prints KTAP. A crash, a hang, a leak found by a sanitizer, or a body
 * that checked nothing is a `not ok`. What a test needs from a virtual
 * machine is in tvm.h; nothing here knows about virtualisation.
 *
 *	prog [-l] [-n] [-s factor] [-t seconds] [name-pattern]...
 *
 *	-l  list the tests	-n  do not fork: for a debugger, no timeout
 *	-s  multiply every timeout, for slow machines (or $TAP_SCALE)
 *	-t  one timeout for all tests instead of their own
 *
 * Exit status: 0 nothing failed, 1 something did, 4 every test was skipped.
 */
#ifndef SELFTESTS_TAP_H
#define SELFTESTS_TAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TAP_DEFAULT_TIMEOUT_S	30

struct tap_test {
	const char *name;
	void (*fn)(void);
	unsigned int timeout_s;
	const char *file;
	int line;
};

/*
 * The linker gathers pointers to all tests of a program in one section. The
 * compiler may reorder them: they run sorted by file and line.
 */
#define TEST_TIMEOUT(_name, _seconds)					\
	static void _name(void);					\
	static const struct tap_test tap_test_##_name = {		\
		.name = #_name, .fn = _name, .timeout_s = (_seconds),	\
		.file = __FILE__, .line = __LINE__,			\
	};								\
	static const struct tap_test *const tap_entry_##_name		\
	__attribute__((used, section("tap_tests"))) = &tap_test_##_name; \
	static void _name(void)

#define TEST(_name)	TEST_TIMEOUT(_name, TAP_DEFAULT_TIMEOUT_S)

/* The time limit of the running test, or 0 under -n. */
unsigned int tap_limit_s(void);

/* A line of explanation under the running test; any thread may call it. */
void tap_diag(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Ends the test from any thread; the reason goes into the report. */
void tap_skip(const char *fmt, ...)
	__attribute__((format(printf, 1, 2), noreturn));

/* Ends the test as failed, without a check that says why. */
void tap_fail(const char *fmt, ...)
	__attribute__((format(printf, 1, 2), noreturn));

#define SKIP(...)	tap_skip(__VA_ARGS__)
#define FAIL(...)	tap_fail(__VA_ARGS__)

/*
 * A path that goes through every check of a case by other means (a loop over
 * a table, a child process) may count its checks here.
 */
void tap_checked(void);

enum tap_op { TAP_EQ, TAP_NE, TAP_LT, TAP_LE, TAP_GT, TAP_GE };

struct tap_where {
	const char *file;
	int line;
	const char *what;
	bool fatal;
};

void tap_true(const struct tap_where *w, bool ok);
void tap_cmp(const struct tap_where *w, enum tap_op op,
	     uint64_t got, bool got_neg, uint64_t want, bool want_neg);
void tap_str(const struct tap_where *w, const char *got, const char *want);
void tap_mem(const struct tap_where *w, const void *got, const void *want,
	     size_t len);
void tap_ok(const struct tap_where *w, long long ret, int err);
void tap_errno(const struct tap_where *w, long long ret, int err, int want);

#define TAP_WHERE(_what, _fatal) \
	(&(const struct tap_where){ __FILE__, __LINE__, (_what), (_fatal) })

/*
 * Integers of any width and sign compare by value: -1 is below 1U, and is not
 * equal to 0xffffffff. Pointers compare for equality only.
 */
#define TAP_EQUAL(_op, _a, _b, _what, _fatal)				\
	tap_cmp(TAP_WHERE(_what, _fatal), _op,				\
		(uint64_t)(_a), false, (uint64_t)(_b), false)

#define TAP_ORDER(_op, _a, _b, _what, _fatal)				\
	do {								\
		__auto_type tap_a = (_a);				\
		__auto_type tap_b = (_b);				\
									\
		tap_cmp(TAP_WHERE(_what, _fatal), _op,			\
			(uint64_t)tap_a, tap_a < 1 && tap_a != 0,	\
			(uint64_t)tap_b, tap_b < 1 && tap_b != 0);	\
	} while (0)

/* EXPECT_* notes a failure and goes on; ASSERT_* ends the test. */
#define EXPECT_TRUE(_c)		tap_true(TAP_WHERE(#_c, false), (_c))
#define ASSERT_TRUE(_c)		tap_true(TAP_WHERE(#_c, true), (_c))
#define EXPECT_FALSE(_c)	tap_true(TAP_WHERE("!(" #_c ")", false), !(_c))
#define ASSERT_FALSE(_c)	tap_true(TAP_WHERE("!(" #_c ")", true), !(_c))
#define EXPECT_EQ(_a, _b)	TAP_EQUAL(TAP_EQ, _a, _b, #_a " == " #_b, false)
#define ASSERT_EQ(_a, _b)	TAP_EQUAL(TAP_EQ, _a, _b, #_a " == " #_b, true)
#define EXPECT_NE(_a, _b)	TAP_EQUAL(TAP_NE, _a, _b, #_a " != " #_b, false)
#define ASSERT_NE(_a, _b)	TAP_EQUAL(TAP_NE, _a, _b, #_a " != " #_b, true)
#define EXPECT_LT(_a, _b)	TAP_ORDER(TAP_LT, _a, _b, #_a " < " #_b, false)
#define ASSERT_LT(_a, _b)	TAP_ORDER(TAP_LT, _a, _b, #_a " < " #_b, true)
#define EXPECT_LE(_a, _b)	TAP_ORDER(TAP_LE, _a, _b, #_a " <= " #_b, false)
#define ASSERT_LE(_a, _b)	TAP_ORDER(TAP_LE, _a, _b, #_a " <= " #_b, true)
#define EXPECT_GT(_a, _b)	TAP_ORDER(TAP_GT, _a, _b, #_a " > " #_b, false)
#define ASSERT_GT(_a, _b)	TAP_ORDER(TAP_GT, _a, _b, #_a " > " #_b, true)
#define EXPECT_GE(_a, _b)	TAP_ORDER(TAP_GE, _a, _b, #_a " >= " #_b, false)
#define ASSERT_GE(_a, _b)	TAP_ORDER(TAP_GE, _a, _b, #_a " >= " #_b, true)

#define EXPECT_STREQ(_a, _b)	\
	tap_str(TAP_WHERE(#_a " == " #_b, false), _a, _b)
#define ASSERT_STREQ(_a, _b)	\
	tap_str(TAP_WHERE(#_a " == " #_b, true), _a, _b)
#define EXPECT_MEMEQ(_a, _b, _n)	\
	tap_mem(TAP_WHERE(#_a " == " #_b, false), _a, _b, _n)
#define ASSERT_MEMEQ(_a, _b, _n)	\
	tap_mem(TAP_WHERE(#_a " == " #_b, true), _a, _b, _n)

/* System calls: not negative; and -1 with this errno. */
#define TAP_CALL(_call, _what, _fatal)					\
	do {								\
		long long tap_ret;					\
									\
		errno = 0;						\
		tap_ret = (long long)(_call);				\
		tap_ok(TAP_WHERE(_what, _fatal), tap_ret, errno);	\
	} while (0)

#define TAP_CALL_ERRNO(_call, _err, _what, _fatal)			\
	do {								\
		long long tap_ret;					\
									\
		errno = 0;						\
		tap_ret = (long long)(_call);				\
		tap_errno(TAP_WHERE(_what, _fatal), tap_ret, errno, _err); \
	} while (0)

#define EXPECT_OK(_call)	TAP_CALL(_call, #_call, false)
#define ASSERT_OK(_call)	TAP_CALL(_call, #_call, true)
#define EXPECT_ERRNO(_call, _err)	\
	TAP_CALL_ERRNO(_call, _err, #_call " is -1 with " #_err, false)
#define ASSERT_ERRNO(_call, _err)	\
	TAP_CALL_ERRNO(_call, _err, #_call " is -1 with " #_err, true)

#include <errno.h>

#endif /* SELFTESTS_TAP_H */
