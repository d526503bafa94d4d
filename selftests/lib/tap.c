// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The test harness: selects, runs and reports the tests of a program. See
 * tap.h. The verdict of a test travels from its child process through a page
 * of shared memory, because an exit status cannot tell a body that returned
 * from one that was cut short by exit().
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tap.h"

#define KSFT_SKIP	4

/* A task that outlives SIGKILL this long is stuck inside the kernel. */
#define KILL_GRACE_MS	20000

/* What a test tells about itself, written by its child process. */
struct verdict {
	atomic_uint checks;
	atomic_uint failures;
	atomic_bool returned;
	atomic_bool skipped;
	char reason[256];
};

/* Bounds of the section that TEST() fills; absent in a program without tests. */
extern const struct tap_test *const __start_tap_tests[] __attribute__((weak));
extern const struct tap_test *const __stop_tap_tests[] __attribute__((weak));

static struct verdict *verdict;
static bool no_fork;
static unsigned int limit_s;

unsigned int tap_limit_s(void)
{
	return no_fork ? 0 : limit_s;
}

static void line(const char *fmt, va_list ap)
{
	char buf[1024];

	/* One write per line keeps the lines of several threads apart. */
	vsnprintf(buf, sizeof(buf), fmt, ap);
	printf("# %s\n", buf);
	fflush(stdout);
}

void tap_diag(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	line(fmt, ap);
	va_end(ap);
}

static void __attribute__((noreturn)) leave(void)
{
	fflush(stdout);
	/* Under a debugger, stop where the test gave up. */
	if (no_fork && !verdict->skipped)
		abort();
	_exit(0);
}

void tap_skip(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(verdict->reason, sizeof(verdict->reason), fmt, ap);
	va_end(ap);
	verdict->skipped = true;
	if (no_fork)
		printf("# skipped: %s\n", verdict->reason);
	leave();
}

void tap_fail(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	line(fmt, ap);
	va_end(ap);
	verdict->failures++;
	leave();
}

void tap_checked(void)
{
	verdict->checks++;
}

static void failed(const struct tap_where *w)
{
	verdict->failures++;
	if (w->fatal)
		leave();
}

void tap_true(const struct tap_where *w, bool ok)
{
	verdict->checks++;
	if (ok)
		return;

	tap_diag("%s:%d: not true: %s", w->file, w->line, w->what);
	failed(w);
}

static bool compare(enum tap_op op, uint64_t a, bool a_neg,
		    uint64_t b, bool b_neg)
{
	/* Two negative values keep their order as two's complement. */
	bool less = a_neg == b_neg ? a < b : a_neg;
	bool equal = a == b && a_neg == b_neg;

	switch (op) {
	case TAP_EQ:
		return equal;
	case TAP_NE:
		return !equal;
	case TAP_LT:
		return less;
	case TAP_LE:
		return less || equal;
	case TAP_GT:
		return !less && !equal;
	case TAP_GE:
		return !less;
	}
	return false;
}

void tap_cmp(const struct tap_where *w, enum tap_op op,
	     uint64_t got, bool got_neg, uint64_t want, bool want_neg)
{
	verdict->checks++;
	if (compare(op, got, got_neg, want, want_neg))
		return;

	tap_diag("%s:%d: not true: %s", w->file, w->line, w->what);
	tap_diag("  left %" PRId64 " (%#" PRIx64 "), right %" PRId64 " (%#" PRIx64 ")",
		 (int64_t)got, got, (int64_t)want, want);
	failed(w);
}

void tap_str(const struct tap_where *w, const char *got, const char *want)
{
	verdict->checks++;
	if (got && want && !strcmp(got, want))
		return;

	tap_diag("%s:%d: not true: %s", w->file, w->line, w->what);
	tap_diag("  left \"%s\", right \"%s\"", got ? got : "(null)",
		 want ? want : "(null)");
	failed(w);
}

void tap_mem(const struct tap_where *w, const void *got, const void *want,
	     size_t len)
{
	const unsigned char *a = got, *b = want;
	size_t i;

	verdict->checks++;
	for (i = 0; i < len && a[i] == b[i]; i++)
		;
	if (i == len)
		return;

	tap_diag("%s:%d: not true: %s", w->file, w->line, w->what);
	tap_diag("  offset %zu of %zu: left %#x, right %#x", i, len, a[i], b[i]);
	failed(w);
}

void tap_ok(const struct tap_where *w, long long ret, int err)
{
	verdict->checks++;
	if (ret >= 0)
		return;

	tap_diag("%s:%d: failed: %s", w->file, w->line, w->what);
	tap_diag("  returned %lld, errno %d (%s)", ret, err, strerror(err));
	failed(w);
}

void tap_errno(const struct tap_where *w, long long ret, int err, int want)
{
	verdict->checks++;
	if (ret == -1 && err == want)
		return;

	tap_diag("%s:%d: not true: %s", w->file, w->line, w->what);
	if (ret == -1)
		tap_diag("  errno %d (%s), wanted %d (%s)", err, strerror(err),
			 want, strerror(want));
	else
		tap_diag("  returned %lld, wanted errno %d (%s)", ret, want,
			 strerror(want));
	failed(w);
}

static void __attribute__((noreturn)) child(const struct tap_test *test)
{
	/* A process group of its own, so that its children die with it. */
	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	test->fn();
	verdict->returned = true;
	/* exit(), not _exit(): a leak checker reports there. */
	exit(0);
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Waits until the child has ended; false when it has not after timeout_ms. */
static bool wait_end(int pidfd, int64_t timeout_ms)
{
	struct pollfd pfd = { .fd = pidfd, .events = POLLIN };
	int64_t end = now_ms() + timeout_ms;
	int ret;

	do {
		int64_t left = end - now_ms();

		ret = poll(&pfd, 1, left > 0 ? (int)left : 0);
	} while (ret < 0 && errno == EINTR);
	return ret > 0;
}

/* Fills why with the fault of a test that did not pass, or leaves it empty. */
static void run_forked(const struct tap_test *test, char *why, size_t size)
{
	siginfo_t info = { 0 };
	bool late = false;
	int pidfd;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid < 0) {
		snprintf(why, size, "fork: %s", strerror(errno));
		return;
	}
	if (!pid)
		child(test);

	setpgid(pid, pid);
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0 || !wait_end(pidfd, (int64_t)limit_s * 1000)) {
		late = true;
		kill(-pid, SIGKILL);
		if (pidfd < 0 || !wait_end(pidfd, KILL_GRACE_MS)) {
			snprintf(why, size, "hangs in the kernel: SIGKILL has no effect");
			return;
		}
	}
	close(pidfd);

	/* The group is alive while its leader is not reaped. */
	waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT);
	kill(-pid, SIGKILL);
	waitid(P_PID, (id_t)pid, &info, WEXITED);

	if (late)
		snprintf(why, size, "timeout after %u s", limit_s);
	else if (info.si_code != CLD_EXITED)
		snprintf(why, size, "killed by signal %d (%s)", info.si_status,
			 strsignal(info.si_status));
	else if (info.si_status)
		snprintf(why, size, "exit status %d", info.si_status);
	else if (verdict->failures)
		snprintf(why, size, "%u of %u checks failed",
			 verdict->failures, verdict->checks);
	else if (!verdict->skipped && !verdict->returned)
		snprintf(why, size, "left through exit()");
	else if (!verdict->skipped && !verdict->checks)
		snprintf(why, size, "nothing was checked");
}

static void run_here(const struct tap_test *test, char *why, size_t size)
{
	test->fn();
	verdict->returned = true;
	if (verdict->failures)
		snprintf(why, size, "%u of %u checks failed",
			 verdict->failures, verdict->checks);
}

static int by_place(const void *a, const void *b)
{
	const struct tap_test *x = *(const struct tap_test *const *)a;
	const struct tap_test *y = *(const struct tap_test *const *)b;
	int files = strcmp(x->file, y->file);

	return files ? files : x->line - y->line;
}

static bool selected(const char *name, char *const *patterns)
{
	if (!*patterns)
		return true;
	for (; *patterns; patterns++) {
		if (!fnmatch(*patterns, name, 0))
			return true;
	}
	return false;
}

static int usage(const char *prog)
{
	fprintf(stderr, "usage: %s [-l] [-n] [-s factor] [-t seconds] [name-pattern]...\n",
		prog);
	return 1;
}

int main(int argc, char **argv)
{
	const char *env = getenv("TAP_SCALE");
	unsigned int scale = env ? (unsigned int)atoi(env) : 1;
	size_t total = (size_t)(__stop_tap_tests - __start_tap_tests);
	unsigned int broken = 0, skipped = 0, timeout_s = 0;
	const struct tap_test **tests;
	bool list = false;
	size_t nr = 0, i;
	int opt;

	while ((opt = getopt(argc, argv, "lns:t:")) != -1) {
		switch (opt) {
		case 'l':
			list = true;
			break;
		case 'n':
			no_fork = true;
			break;
		case 's':
			scale = (unsigned int)atoi(optarg);
			break;
		case 't':
			timeout_s = (unsigned int)atoi(optarg);
			break;
		default:
			return usage(argv[0]);
		}
	}
	if (!scale)
		return usage(argv[0]);

	tests = calloc(total + 1, sizeof(*tests));
	verdict = mmap(NULL, sizeof(*verdict), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (!tests || verdict == MAP_FAILED) {
		perror(argv[0]);
		return 1;
	}
	for (i = 0; i < total; i++) {
		if (selected(__start_tap_tests[i]->name, argv + optind))
			tests[nr++] = __start_tap_tests[i];
	}
	qsort(tests, nr, sizeof(*tests), by_place);

	if (!nr)
		fprintf(stderr, "%s: no test of that name; -l lists them\n", argv[0]);
	else if (!list)
		printf("KTAP version 1\n1..%zu\n", nr);

	for (i = 0; i < nr; i++) {
		const struct tap_test *t = tests[i];
		char why[128] = "";

		if (list) {
			printf("%s\n", t->name);
			continue;
		}
		limit_s = (timeout_s ? timeout_s : t->timeout_s) * scale;
		memset(verdict, 0, sizeof(*verdict));
		if (no_fork)
			run_here(t, why, sizeof(why));
		else
			run_forked(t, why, sizeof(why));

		if (*why) {
			broken++;
			printf("# %s: %s\nnot ok %zu %s\n", t->name, why, i + 1, t->name);
		} else if (verdict->skipped) {
			skipped++;
			printf("ok %zu %s # SKIP %s\n", i + 1, t->name, verdict->reason);
		} else {
			printf("ok %zu %s\n", i + 1, t->name);
		}
		fflush(stdout);
	}
	free(tests);
	if (list)
		return 0;

	printf("# Totals: pass:%zu fail:%u skip:%u\n", nr - broken - skipped,
	       broken, skipped);
	if (broken || !nr)
		return 1;
	return skipped == nr ? KSFT_SKIP : 0;
}
