// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a whole VM costs: starts a VMM with the test guest of ../e2e, counts up
 * to the guest's first line from user space, and once the guest waits at its
 * shell looks at the memory of the VMM, the guest's own left out, and at what
 * the kernel has charged to its control group.
 *
 *	startup NAME GUEST-MIB COMMAND [ARG]...
 *
 * prints:
 *
 *	# startup <NAME> <ticks> <microseconds> <KiB of the VMM> <KiB of the kernel>
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CGROUPS		"/run/cgroup"
#define CGROUP		CGROUPS "/startup"
#define SAYS_USER	"guest: user space after"
#define SAYS_SHELL	"guest: a shell"
#define TIMEOUT_MS	300000

static pid_t vmm;

static void __attribute__((noreturn, format(printf, 1, 2))) die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fprintf(stderr, "startup: ");
	vfprintf(stderr, fmt, ap);
	fprintf(stderr, "\n");
	va_end(ap);
	if (vmm > 0)
		kill(vmm, SIGKILL);
	exit(1);
}

static uint64_t ticks(void)
{
	uint32_t low, high;

	__asm__ volatile("lfence\n\trdtsc" : "=a"(low), "=d"(high) : : "memory");
	return low | (uint64_t)high << 32;
}

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static FILE *open_file(const char *path, const char *mode)
{
	FILE *f = fopen(path, mode);

	if (!f)
		die("%s: %s", path, strerror(errno));
	return f;
}

static void write_file(const char *path, const char *text)
{
	FILE *f = open_file(path, "w");

	fputs(text, f);
	if (fclose(f))
		die("%s: %s", path, strerror(errno));
}

static void make_cgroup(void)
{
	mkdir(CGROUPS, 0755);
	if (mount("cgroup2", CGROUPS, "cgroup2", 0, NULL) && errno != EBUSY)
		die("mount cgroup2: %s", strerror(errno));
	write_file(CGROUPS "/cgroup.subtree_control", "+memory");
	if (mkdir(CGROUP, 0755) && errno != EEXIST)
		die("%s: %s", CGROUP, strerror(errno));
}

/* Page tables of guest and VMM, slab, stacks: all that is charged, in KiB. */
static uint64_t kernel_kib(void)
{
	FILE *f = open_file(CGROUP "/memory.stat", "r");
	uint64_t bytes = 0, val;
	char line[256];

	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "kernel %" SCNu64, &val) == 1)
			bytes = val;
	}
	fclose(f);
	return bytes / 1024;
}

/*
 * What the VMM has for itself. A mapping at least half as large as the guest's
 * memory is that memory.
 */
static uint64_t private_kib(uint64_t guest_kib)
{
	uint64_t size = 0, sum = 0, val;
	char path[64], line[512];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/smaps", vmm);
	f = open_file(path, "r");
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "Size: %" SCNu64, &val) == 1)
			size = val;
		else if (size < guest_kib / 2 &&
			 (sscanf(line, "Private_Clean: %" SCNu64, &val) == 1 ||
			  sscanf(line, "Private_Dirty: %" SCNu64, &val) == 1))
			sum += val;
	}
	fclose(f);
	return sum;
}

/* Its standard input stays open and empty. */
static int start(char **argv)
{
	int in[2], out[2];

	if (pipe(in) || pipe(out))
		die("pipe: %s", strerror(errno));
	vmm = fork();
	if (vmm < 0)
		die("fork: %s", strerror(errno));
	if (!vmm) {
		write_file(CGROUP "/cgroup.procs", "0");
		dup2(in[0], 0);
		dup2(out[1], 1);
		close(in[1]);
		close(out[0]);
		execvp(argv[0], argv);
		die("%s: %s", argv[0], strerror(errno));
	}
	close(in[0]);
	close(out[1]);
	return out[0];
}

/* Passes the output on up to where it says that. */
static void await(int out, const char *text)
{
	struct pollfd pfd = { .fd = out, .events = POLLIN };
	static char line[1024];
	static size_t len;

	for (;;) {
		if (poll(&pfd, 1, TIMEOUT_MS) <= 0)
			die("the guest does not get to \"%s\"", text);
		if (read(out, line + len, 1) != 1)
			die("the VMM has ended before \"%s\"", text);
		len++;
		line[len] = 0;
		if (strstr(line, text))
			return;
		if (line[len - 1] == '\n' || len == sizeof(line) - 2) {
			fputs(line, stdout);
			len = 0;
		}
	}
}

int main(int argc, char **argv)
{
	uint64_t guest_kib, user_ticks, user_us, own_kib, kib;
	int out;

	if (argc < 4) {
		fprintf(stderr, "usage: startup NAME GUEST-MIB COMMAND [ARG]...\n");
		return 2;
	}
	guest_kib = strtoull(argv[2], NULL, 0) * 1024;
	make_cgroup();

	user_us = now_us();
	user_ticks = ticks();
	out = start(argv + 3);
	await(out, SAYS_USER);
	user_ticks = ticks() - user_ticks;
	user_us = now_us() - user_us;

	await(out, SAYS_SHELL);
	own_kib = private_kib(guest_kib);
	kib = kernel_kib();
	kill(vmm, SIGKILL);
	waitpid(vmm, NULL, 0);
	printf("\n# startup %s %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", argv[1],
	       user_ticks, user_us, own_kib, kib);
	return 0;
}
