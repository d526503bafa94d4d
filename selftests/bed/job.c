// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One job of the outer machine: starts a command, passes its output on as it
 * comes, ends it when its time is over, and judges it by the TAP it printed
 * and by how it ended. As process 1, this program inherits every orphan, so a
 * job that is over leaves nothing behind.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "init.h"

/* Exit status of a kselftest that skipped everything. */
#define KSFT_SKIP	4

/* A task that outlives SIGKILL this long is stuck inside the kernel. */
#define KILL_GRACE_MS	20000

/* Only the emulated processor may excuse a test; the reason says so. */
#define SKIP_ALLOWED	"emulator:"

/* The output of a job, as far as it has been read. */
struct tap {
	const char *name;
	struct totals *totals;
	unsigned int planned;
	unsigned int seen;
	unsigned int broken;	/* "not ok" lines */
	bool has_plan;
	bool skipped_all;	/* the plan is "1..0 # SKIP reason" */
	size_t len;
	char line[1024];
};

long long now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

/* The reason of a skip directive in the line, or NULL when it has none. */
static const char *skip_reason(const char *line)
{
	const char *s = strchr(line, '#');

	for (; s; s = strchr(s + 1, '#')) {
		const char *word = s + 1 + strspn(s + 1, " ");

		if (!strncasecmp(word, "SKIP", 4))
			return word + 4 + strspn(word + 4, " ");
	}
	return NULL;
}

static void count_skip(struct tap *tap, const char *reason)
{
	if (!strncmp(reason, SKIP_ALLOWED, strlen(SKIP_ALLOWED)))
		tap->totals->skipped++;
	else
		failure(tap->totals, "%s: skipped: %s", tap->name, tap->line);
}

/* Top-level results only: the lines of a subtest are indented. */
static void read_line(struct tap *tap)
{
	const char *line = tap->line;
	const char *reason;

	if (!strncmp(line, "1..", 3) && isdigit((unsigned char)line[3])) {
		if (tap->has_plan)
			failure(tap->totals, "%s: two plans", tap->name);
		tap->has_plan = true;
		tap->planned = (unsigned int)strtoul(line + 3, NULL, 10);
		reason = skip_reason(line);
		if (!tap->planned && reason) {
			tap->skipped_all = true;
			count_skip(tap, reason);
		}
	} else if (!strncmp(line, "not ok", 6)) {
		tap->seen++;
		tap->broken++;
		failure(tap->totals, "%s: %s", tap->name, line);
	} else if (!strncmp(line, "ok", 2) && (line[2] == ' ' || !line[2])) {
		tap->seen++;
		reason = skip_reason(line);
		if (reason)
			count_skip(tap, reason);
		else
			tap->totals->passed++;
	} else if (!strncmp(line, "Bail out!", 9)) {
		failure(tap->totals, "%s: %s", tap->name, line);
	}
}

static void read_output(struct tap *tap, const char *buf, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++) {
		if (buf[i] == '\n') {
			tap->line[tap->len] = '\0';
			read_line(tap);
			tap->len = 0;
		} else if (buf[i] != '\r' && tap->len < sizeof(tap->line) - 1) {
			tap->line[tap->len++] = buf[i];
		}
	}
}

static void __attribute__((noreturn)) child(const struct job *job, int out)
{
	int in = open(job->terminal ? "/dev/ttyS0" : "/dev/null", O_RDWR);

	setsid();
	if (job->terminal) {
		ioctl(in, TIOCSCTTY, 0);
		out = in;
	}
	dup2(in, STDIN_FILENO);
	dup2(out, STDOUT_FILENO);
	dup2(out, STDERR_FILENO);
	execl("/bin/sh", "sh", "-c", job->command, NULL);
	_exit(127);
}

/* Reads what there is; false at the end of the output. */
static bool pass_on(struct tap *tap, int fd)
{
	char buf[4096];
	ssize_t n = read(fd, buf, sizeof(buf));

	if (n <= 0)
		return n < 0 && (errno == EINTR || errno == EAGAIN);
	write_all(STDOUT_FILENO, buf, (size_t)n);
	read_output(tap, buf, (size_t)n);
	return true;
}

/* Passes output on until the command has ended; false when it is late. */
static bool follow(struct tap *tap, int fd, int pidfd, long long end_ms)
{
	struct pollfd pfd[2] = {
		{ .fd = fd, .events = POLLIN },
		{ .fd = pidfd, .events = POLLIN },
	};

	for (;;) {
		long long left = end_ms - now_ms();
		int wait_ms = -1;

		if (end_ms) {
			if (left <= 0)
				return false;
			wait_ms = (int)left;
		}
		if (poll(pfd, 2, wait_ms) < 0)
			continue;
		if (pfd[0].revents && !pass_on(tap, fd))
			pfd[0].fd = -1;
		if (pfd[1].revents)
			return true;
	}
}

/* Kills and reaps every process but this one; false when one survives. */
static bool sweep(void)
{
	long long end = now_ms() + KILL_GRACE_MS;

	for (;;) {
		kill(-1, SIGKILL);
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		if (waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD)
			return true;
		if (now_ms() > end)
			return false;
		/* Of many children, any may be the next to die: no event. */
		usleep(10000);
	}
}

/* How the command ended, held against what it printed. */
static void judge(struct tap *tap, const struct job *job, const siginfo_t *info,
		  bool late)
{
	struct totals *t = tap->totals;
	bool must_tap = job->tap || tap->has_plan;
	int status = info->si_status;

	if (late)
		failure(t, "%s: timeout after %u s", tap->name, job->timeout_s);
	else if (info->si_code != CLD_EXITED)
		failure(t, "%s: killed by signal %d (%s)", tap->name, status,
			strsignal(status));
	else if (job->terminal)
		t->passed++;	/* how a person leaves a shell means nothing */
	else if (!must_tap && status)
		failure(t, "%s: exit status %d", tap->name, status);
	else if (!must_tap)
		t->passed++;
	else if (!tap->has_plan)
		failure(t, "%s: printed no test plan (exit status %d)",
			tap->name, status);
	else if (status == KSFT_SKIP && !tap->broken)
		return;
	else if (status && !tap->broken)
		failure(t, "%s: exit status %d", tap->name, status);

	if (tap->has_plan && tap->seen != tap->planned)
		failure(t, "%s: %u tests planned, %u reported", tap->name,
			tap->planned, tap->seen);
	else if (tap->has_plan && !tap->planned && !tap->skipped_all)
		failure(t, "%s: its plan is empty", tap->name);
}

bool job_run(const struct job *job, const char *device, struct totals *t)
{
	struct tap tap = { .name = job->command, .totals = t };
	siginfo_t info = { 0 };
	bool late, clean;
	int fds[2];
	pid_t pid;
	int pidfd;

	setenv("FONDA_DEV", device, 1);
	if (pipe2(fds, O_CLOEXEC) < 0) {
		failure(t, "%s: pipe: %s", tap.name, strerror(errno));
		return true;
	}
	pid = fork();
	if (!pid)
		child(job, fds[1]);
	close(fds[1]);
	pidfd = pid < 0 ? -1 : (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0) {
		failure(t, "%s: cannot start: %s", tap.name, strerror(errno));
		close(fds[0]);
		return sweep();
	}

	late = !follow(&tap, fds[0], pidfd,
		       job->timeout_s ? now_ms() + job->timeout_s * 1000LL : 0);
	if (late)
		kill(pid, SIGKILL);
	else
		waitid(P_PID, (id_t)pid, &info, WEXITED);
	clean = sweep();
	close(pidfd);

	/* All writers are gone unless one is stuck; never wait for that one. */
	fcntl(fds[0], F_SETFL, O_NONBLOCK);
	do {
		errno = 0;
	} while (pass_on(&tap, fds[0]) && errno != EAGAIN);
	close(fds[0]);
	if (tap.len) {
		read_output(&tap, "\n", 1);
		write_all(STDOUT_FILENO, "\n", 1);
	}

	judge(&tap, job, &info, late);
	if (!clean)
		failure(t, "%s: a process survives SIGKILL: it hangs in the kernel",
			tap.name);
	return clean;
}
