// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What fonda tells about its VMs: the counters in debugfs, one directory a VM,
 * and the trace events. The reference device has others of its own.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tvm.h"

#define DEBUG	"/sys/kernel/debug"
#define TRACING	DEBUG "/tracing"

static void mount_debugfs(void)
{
	if (mount("none", DEBUG, "debugfs", 0, NULL) && errno != EBUSY)
		FAIL("debugfs: %s", strerror(errno));
}

static void stats_path(char *path, size_t size, const struct tvm *t)
{
	snprintf(path, size, DEBUG "/fonda/%d-%d/stats", getpid(), t->fd);
}

static long long counter(const struct tvm *t, const char *name)
{
	char path[128], line[256], key[64];
	long long val, found = -1;
	FILE *f;

	stats_path(path, sizeof(path), t);
	f = fopen(path, "r");
	if (!f)
		FAIL("%s: %s", path, strerror(errno));
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%63s %lld", key, &val) == 2 && !strcmp(key, name))
			found = val;
	}
	fclose(f);
	if (found < 0)
		FAIL("no counter %s in %s", name, path);
	return found;
}

static volatile uint64_t rounds;

GUEST(guest_exits)
{
	uint64_t i;

	for (i = 0; i < rounds; i++) {
		cpuid(0, 0);
		rdmsr(0xfe);
		outb(0x80, 1);
		*mmio32(0xd0000) = 1;
	}
}

static void run(struct tvm *t, uint64_t n)
{
	unsigned int io = 0, mmio = 0;
	bool is_report;

	G(t, rounds) = n;
	for (;;) {
		int reason = tvm_run(t);

		tvm_report(t, 0, &is_report);
		if (is_report)
			break;
		io += reason == KVM_EXIT_IO;
		mmio += reason == KVM_EXIT_MMIO;
	}
	EXPECT_EQ(io, n);
	EXPECT_EQ(mmio, n);
}

TEST(counters_of_a_vm)
{
	char path[128];
	struct tvm t;

	mount_debugfs();
	tvm_init(&t, &guest_exits);
	EXPECT_EQ(counter(&t, "cpuid"), 0);
	EXPECT_EQ(counter(&t, "vcpus"), 1);
	run(&t, 50);
	EXPECT_EQ(counter(&t, "cpuid"), 50);
	EXPECT_EQ(counter(&t, "msr"), 50);
	EXPECT_EQ(counter(&t, "mmio"), 50);
	EXPECT_EQ(counter(&t, "pio"), 51);		/* and the report */
	/* The scheduler may ask for more. */
	EXPECT_GE(counter(&t, "user_exits"), 101);
	EXPECT_GT(counter(&t, "page_fault"), 0);

	/* Gone with the VM, and so is what somebody still reads. */
	stats_path(path, sizeof(path), &t);
	tvm_fini(&t);
	EXPECT_ERRNO(access(path, F_OK), ENOENT);
}

TEST(each_vm_has_its_own_counters)
{
	struct tvm a, b;

	mount_debugfs();
	tvm_init(&a, &guest_exits);
	tvm_init(&b, &guest_exits);
	run(&a, 10);
	run(&b, 20);
	EXPECT_EQ(counter(&a, "cpuid"), 10);
	EXPECT_EQ(counter(&b, "cpuid"), 20);
	tvm_fini(&a);
	tvm_fini(&b);
}

/* Readers and the end of the VM. */
static void *read_stats(void *arg)
{
	const char *path = arg;
	char buf[4096];
	int fd;

	while ((fd = open(path, O_RDONLY)) >= 0) {
		while (read(fd, buf, sizeof(buf)) > 0)
			;
		close(fd);
	}
	return NULL;
}

TEST(reading_races_with_the_end_of_the_vm)
{
	char path[128];
	pthread_t thread;
	struct tvm t;
	int i;

	mount_debugfs();
	for (i = 0; i < 20; i++) {
		tvm_init_smp(&t, &guest_exits, TVM_IRQCHIP, 2);
		stats_path(path, sizeof(path), &t);
		ASSERT_OK(access(path, R_OK));
		ASSERT_EQ(pthread_create(&thread, NULL, read_stats, path), 0);
		run(&t, 5);
		tvm_fini(&t);
		ASSERT_EQ(pthread_join(thread, NULL), 0);
	}
}

static void write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0)
		FAIL("%s: %s", path, strerror(errno));
	ASSERT_EQ(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

TEST(trace_events)
{
	unsigned int entries = 0, exits = 0, faults = 0;
	char line[512];
	struct tvm t;
	FILE *f;

	mount_debugfs();
	tvm_init(&t, &guest_exits);
	write_text(TRACING "/trace", "\n");
	write_text(TRACING "/events/fonda/enable", "1");
	run(&t, 20);
	write_text(TRACING "/events/fonda/enable", "0");
	f = fopen(TRACING "/trace", "r");
	ASSERT_TRUE(f);
	while (fgets(line, sizeof(line), f)) {
		entries += !!strstr(line, "fonda_entry: vcpu 0 rip 0x");
		exits += !!strstr(line, "fonda_exit: vcpu 0 rip 0x");
		faults += !!strstr(line, "fonda_fault: vcpu 0 gpa 0x");
	}
	fclose(f);
	EXPECT_GE(exits, 80);
	EXPECT_GE(entries, 80);
	EXPECT_GT(faults, 0);
	tvm_fini(&t);
}
