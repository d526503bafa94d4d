// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Process 1 of the outer machine. Mounts what programs expect, loads the
 * module under test (or stock KVM), runs the jobs that the host put into
 * /bed, checks the kernel afterwards, writes the verdict, powers off.
 *
 * The verdict goes to the second serial port, which nothing else uses, and
 * carries a nonce of this run. It is written last, when everything has passed
 * its checks: a machine that dies, hangs or powers off early has not written
 * it. The result of each job goes before it. Output goes to the console.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "init.h"

#define MAX_JOBS	1024
#define MAX_REPORTED	64

/* klogctl() commands, from syslog(2). */
#define KLOG_READ_ALL	3
#define KLOG_LEVEL	8
#define KLOG_SIZE	10

/* A module's last reference may be dropped by a work item or by RCU. */
#define IDLE_MS		2000

/* /proc/sys/kernel/tainted: bad page, oops, warning, soft lockup. */
#define TAINT_BROKEN	(1UL << 5 | 1UL << 7 | 1UL << 9 | 1UL << 14)

static struct {
	char *nonce;
	char *module;		/* fonda.ko, or NULL */
	char *module_args;
	char *kvm_module;	/* kvm_amd or kvm_intel */
	bool keep_going;
	struct job jobs[MAX_JOBS];
	size_t nr_jobs;
} conf;

static struct totals totals;
static char *reported[MAX_REPORTED];
static size_t nr_reported;
static int verdict_fd = -1;

void write_all(int fd, const void *buf, size_t len)
{
	const char *p = buf;

	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0) {
			if (errno == EINTR)
				continue;
			return;
		}
		p += n;
		len -= (size_t)n;
	}
}

void say(const char *fmt, ...)
{
	char buf[1024];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(buf, sizeof(buf) - 1, fmt, ap);
	va_end(ap);
	if (n > (int)sizeof(buf) - 2)
		n = sizeof(buf) - 2;
	buf[n++] = '\n';
	write_all(STDOUT_FILENO, "# bed: ", 7);
	write_all(STDOUT_FILENO, buf, (size_t)n);
}

void failure(struct totals *t, const char *fmt, ...)
{
	char *text;
	va_list ap;

	t->failed++;
	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	va_end(ap);
	if (!text)
		return;
	say("FAILED: %s", text);
	if (nr_reported < MAX_REPORTED)
		reported[nr_reported++] = text;
	else
		free(text);
}

/* The whole file with a NUL behind it, or NULL. Of /proc and /sys too. */
static char *read_file(const char *path)
{
	size_t len = 0, size = 65536;
	char *buf = malloc(size);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = 0;

	while (buf && fd >= 0 && (n = read(fd, buf + len, size - len - 1)) > 0) {
		len += (size_t)n;
		if (len == size - 1)
			buf = realloc(buf, size *= 2);
	}
	if (fd >= 0)
		close(fd);
	if (!buf || fd < 0 || n < 0) {
		free(buf);
		return NULL;
	}
	buf[len] = '\0';
	return buf;
}

static unsigned long read_number(const char *path)
{
	char *text = read_file(path);
	unsigned long value = text ? strtoul(text, NULL, 10) : 0;

	free(text);
	return value;
}

static bool write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) >= 0;

	if (fd >= 0)
		close(fd);
	return ok;
}

/* --- the kernel's log ---------------------------------------------------- */

/* The log so far; from the last line that holds mark, where one is given. */
static void dump_log(int fd, const char *mark)
{
	int size = klogctl(KLOG_SIZE, NULL, 0);
	char *buf = size > 0 ? malloc((size_t)size + 1) : NULL;
	char *from = buf, *s;
	int n;

	if (!buf)
		return;
	n = klogctl(KLOG_READ_ALL, buf, size);
	buf[n > 0 ? n : 0] = '\0';
	for (s = buf; mark && (s = strstr(s, mark)); s += strlen(mark))
		from = s + strlen(mark);
	from += *from == '\n';
	write_all(fd, from, strlen(from));
	free(buf);
}

/* Marks the start of a job in the log, below the console's level. */
static void mark_log(const char *mark)
{
	char line[256];

	/* Without a newline, it stays invisible until the next message. */
	snprintf(line, sizeof(line), "<7>%s\n", mark);
	write_file("/dev/kmsg", line);
}

/* What every task does, for a process that cannot be killed. */
static void dump_tasks(void)
{
	klogctl(KLOG_LEVEL, NULL, 8);
	write_file("/proc/sysrq-trigger", "w");
	write_file("/proc/sysrq-trigger", "t");
}

/* --- a debug kernel's checks --------------------------------------------- */

/* Once lockdep has reported something it checks no more; it taints nothing. */
static bool lockdep_is_off(void)
{
	char *text = read_file("/proc/lockdep_stats");
	char *value = text ? strstr(text, "debug_locks:") : NULL;
	bool off = value && !strtoul(value + strlen("debug_locks:"), NULL, 10);

	free(text);
	return off;
}

/* What kmemleak knows of, once the modules are gone. */
static void report_leaks(void)
{
	static const char path[] = "/sys/kernel/debug/kmemleak";
	char *text;
	int i;

	if (access(path, F_OK))
		return;
	/* It reports what has not changed from one scan to the next. */
	for (i = 0; i < 2; i++)
		if (!write_file(path, "scan")) {
			failure(&totals, "kmemleak is off: %s", strerror(errno));
			return;
		}
	text = read_file(path);
	if (!text || *text)
		failure(&totals, "memory has leaked");
	if (text)
		write_all(STDOUT_FILENO, text, strlen(text));
	free(text);
}

/* --- setting up ---------------------------------------------------------- */

static void mount_all(void)
{
	static const struct {
		const char *type, *dir;
	} mounts[] = {
		{ "proc",	"/proc" },
		{ "sysfs",	"/sys" },
		{ "devtmpfs",	"/dev" },
		{ "devpts",	"/dev/pts" },
		{ "tmpfs",	"/dev/shm" },
		{ "tmpfs",	"/tmp" },
		{ "tmpfs",	"/run" },
		{ "debugfs",	"/sys/kernel/debug" },
		{ "tracefs",	"/sys/kernel/tracing" },
		{ "cgroup2",	"/sys/fs/cgroup" },
	};
	size_t i;

	for (i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
		mkdir(mounts[i].dir, 0755);
		/* A small kernel lacks some of them; who needs one will say so. */
		if (mount(mounts[i].type, mounts[i].dir, mounts[i].type, 0, NULL) &&
		    errno != ENODEV && errno != ENOENT)
			failure(&totals, "cannot mount %s on %s: %s",
				mounts[i].type, mounts[i].dir, strerror(errno));
	}
}

/* Bytes come out as they went in, and at a speed that an emulator may obey. */
static void set_raw(int fd)
{
	struct termios tio;

	if (tcgetattr(fd, &tio))
		return;
	cfmakeraw(&tio);
	cfsetspeed(&tio, B115200);
	tcsetattr(fd, TCSANOW, &tio);
}

/* The size of the host's terminal, "rows columns", for a shell on the console. */
static void set_window(const char *size)
{
	struct winsize ws = { 0 };

	if (sscanf(size, "%hu %hu", &ws.ws_row, &ws.ws_col) == 2)
		ioctl(STDOUT_FILENO, TIOCSWINSZ, &ws);
}

/* Lines of "key value". */
static void read_config(void)
{
	char *text = read_file("/bed/config");
	char *line, *value;

	while (text && (line = strsep(&text, "\n"))) {
		value = strchr(line, ' ');
		if (!value)
			continue;
		*value++ = '\0';
		if (!strcmp(line, "nonce"))
			conf.nonce = value;
		else if (!strcmp(line, "module"))
			conf.module = value;
		else if (!strcmp(line, "module_args"))
			conf.module_args = value;
		else if (!strcmp(line, "kvm_module"))
			conf.kvm_module = value;
		else if (!strcmp(line, "keep_going"))
			conf.keep_going = atoi(value);
		else if (!strcmp(line, "env"))
			putenv(value);
		else if (!strcmp(line, "window"))
			set_window(value);
	}
}

/* Lines of "device timeout kind command", separated by single tabs. */
static void read_jobs(void)
{
	char *text = read_file("/bed/jobs");
	char *line;

	while (text && (line = strsep(&text, "\n"))) {
		struct job *job = &conf.jobs[conf.nr_jobs];
		char *timeout, *kind;

		job->device = strsep(&line, "\t");
		timeout = strsep(&line, "\t");
		kind = strsep(&line, "\t");
		job->command = line;
		if (!line)
			continue;
		if (conf.nr_jobs == MAX_JOBS - 1) {
			failure(&totals, "more than %d jobs", MAX_JOBS - 1);
			return;
		}
		job->timeout_s = (unsigned int)atoi(timeout);
		job->tap = !strcmp(kind, "tap");
		job->terminal = !strcmp(kind, "terminal");
		conf.nr_jobs++;
	}
	if (!conf.nr_jobs)
		failure(&totals, "no job was given");
}

/* --- modules ------------------------------------------------------------- */

static bool run_helper(const char *const argv[])
{
	int status = -1;
	pid_t pid = fork();

	if (!pid) {
		execv(argv[0], (char *const *)argv);
		_exit(127);
	}
	if (pid > 0)
		waitpid(pid, &status, 0);
	return !status;
}

/* Waits until nobody uses the module, then removes it. */
static bool remove_module(const char *name)
{
	long long end = now_ms() + IDLE_MS;
	char path[64];

	snprintf(path, sizeof(path), "/sys/module/%s/refcnt", name);
	while (read_number(path) && now_ms() < end)
		usleep(10000);
	if (read_number(path)) {
		failure(&totals, "module %s: its use count stays %lu", name,
			read_number(path));
		return false;
	}
	if (syscall(SYS_delete_module, name, O_NONBLOCK)) {
		failure(&totals, "module %s: cannot be removed: %s", name,
			strerror(errno));
		return false;
	}
	return true;
}

static bool load_kvm(void)
{
	const char *const argv[] = {
		"/bin/busybox", "modprobe", conf.kvm_module, NULL
	};

	if (run_helper(argv) && !access("/dev/kvm", R_OK | W_OK))
		return true;
	failure(&totals, "stock KVM does not load");
	return false;
}

static bool unload_kvm(void)
{
	return remove_module(conf.kvm_module) && remove_module("kvm");
}

/* The parameter "devname" gives the device another name. */
static const char *fonda_device(void)
{
	static char path[64] = "/dev/fonda";
	const char *name = conf.module_args ? strstr(conf.module_args, "devname=") : NULL;

	if (name)
		sscanf(name, "devname=%50s", path + strlen("/dev/"));
	return path;
}

static bool load_fonda(void)
{
	const char *args = conf.module_args ? conf.module_args : "";
	int fd = open(conf.module, O_RDONLY | O_CLOEXEC);

	mark_log("bed: insmod");
	if (fd < 0 || syscall(SYS_finit_module, fd, args, 0)) {
		failure(&totals, "insmod %s %s: %s", conf.module, args,
			strerror(errno));
		dump_log(STDOUT_FILENO, "bed: insmod");
		return false;
	}
	close(fd);
	if (!access(fonda_device(), R_OK | W_OK))
		return true;
	failure(&totals, "the module is loaded, but there is no %s", fonda_device());
	return false;
}

static bool unload_fonda(void)
{
	if (!remove_module("fonda"))
		return false;
	if (!access(fonda_device(), F_OK)) {
		failure(&totals, "%s is still there after rmmod", fonda_device());
		return false;
	}
	return true;
}

/* --- phases -------------------------------------------------------------- */

struct phase {
	const char *name;	/* as in the jobs' device field */
	const char *device;	/* NULL: as the module's parameters say */
	bool (*load)(void);
	bool (*unload)(void);
};

/* The reference first: what fails there is the test's fault. */
static const struct phase phases[] = {
	{ "kvm",	"/dev/kvm",	load_kvm,	unload_kvm },
	{ "fonda",	NULL,		load_fonda,	unload_fonda },
	{ "none",	"",		NULL,		NULL },
};

/* False when the machine is in no state to go on. */
static bool run_job(const struct job *job, const char *device)
{
	unsigned long tainted = read_number("/proc/sys/kernel/tainted");
	bool again = !strcmp(device, "/dev/kvm"), unlocked = lockdep_is_off();
	size_t before = nr_reported;
	struct totals t = { 0 };
	long long start = now_ms();
	char mark[128];
	bool clean;

	snprintf(mark, sizeof(mark), "bed: job %td on %s",
		 job - conf.jobs + 1, *device ? device : "no device");
	mark_log(mark);
	say("%s%s%s", device, *device ? ": " : "", job->command);
	clean = job_run(job, device, &t);
	/* The emulator can repeat an interrupt that stock KVM has injected. */
	if (again && t.failed && clean) {
		say("the reference gets a second try: README says why");
		nr_reported = before;
		t = (struct totals){ 0 };
		clean = job_run(job, device, &t);
	}

	tainted = read_number("/proc/sys/kernel/tainted") & ~tainted;
	if (tainted & TAINT_BROKEN)
		failure(&t, "%s: the kernel is tainted (%#lx)", job->command,
			tainted);
	if (!unlocked && lockdep_is_off())
		failure(&t, "%s: lockdep reports", job->command);
	if (t.failed) {
		if (!clean)
			dump_tasks();
		say("the kernel's log since the job began:");
		dump_log(STDOUT_FILENO, mark);
	}
	say("%u passed, %u failed, %u skipped in %lld.%lld s", t.passed,
	    t.failed, t.skipped, (now_ms() - start) / 1000,
	    (now_ms() - start) / 100 % 10);
	dprintf(verdict_fd, "job\t%s\t%s\t%u\t%u\t%u\t%lld\n", job->device, job->command,
		t.passed, t.failed, t.skipped, (now_ms() - start) / 1000);
	totals.passed += t.passed;
	totals.failed += t.failed;
	totals.skipped += t.skipped;
	return clean && !(tainted & TAINT_BROKEN);
}

static bool run_phase(const struct phase *phase)
{
	bool fine = true, loaded = false;
	size_t i;

	for (i = 0; i < conf.nr_jobs && fine; i++) {
		const struct job *job = &conf.jobs[i];

		if (strcmp(job->device, phase->name))
			continue;
		if (phase->load && !loaded) {
			if (!phase->load())
				return conf.keep_going;
			loaded = true;
		}
		fine = run_job(job, phase->device ? phase->device : fonda_device()) &&
		       (!totals.failed || conf.keep_going);
	}
	return (!loaded || phase->unload()) && fine;
}

static void __attribute__((noreturn)) power_off(void)
{
	sync();
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

static void give_verdict(void)
{
	char line[256];
	int n;

	n = snprintf(line, sizeof(line), "verdict %s %s %u %u %u\n", conf.nonce,
		     totals.failed || !(totals.passed + totals.skipped) ?
		     "fail" : "pass",
		     totals.passed, totals.failed, totals.skipped);
	write_all(verdict_fd, line, (size_t)n);
	tcdrain(verdict_fd);
}

int main(void)
{
	static const char *const install[] = {
		"/bin/busybox", "--install", "-s", "/bin", NULL
	};
	size_t i;

	mount_all();
	verdict_fd = open("/dev/ttyS1", O_RDWR | O_NOCTTY | O_CLOEXEC);
	setenv("PATH", "/bin:/sbin:/usr/bin:/usr/sbin", 1);
	setenv("HOME", "/", 1);
	read_config();
	read_jobs();
	if (verdict_fd < 0 || !conf.nonce) {
		say("the host left no verdict port or no nonce");
		power_off();
	}
	set_raw(verdict_fd);
	if (!conf.nr_jobs || !conf.jobs[0].terminal)
		set_raw(STDOUT_FILENO);
	if (!run_helper(install))
		failure(&totals, "busybox --install failed");
	chdir("/bed/tests");

	if (lockdep_is_off())
		failure(&totals, "lockdep has reported before the first job");
	for (i = 0; i < sizeof(phases) / sizeof(phases[0]); i++) {
		if (!run_phase(&phases[i]))
			break;
	}

	report_leaks();
	if (read_number("/proc/sys/kernel/tainted") & TAINT_BROKEN)
		failure(&totals, "the kernel is tainted (%#lx)",
			read_number("/proc/sys/kernel/tainted"));
	if (totals.failed) {
		say("failures:");
		for (i = 0; i < nr_reported; i++)
			say("  %s", reported[i]);
		dump_log(verdict_fd, NULL);
	}
	tcdrain(STDOUT_FILENO);
	give_verdict();
	power_off();
}
