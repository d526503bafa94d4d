// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Guest memory is ordinary memory of the VMM: whatever the host does with its
 * pages (split, drop, protect, replace, copy on write, punch holes), the guest
 * sees what the VMM would see, and nothing is lost or stays behind.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/fonda.h>

#include "tvm.h"

#define PAGE		4096ul
#define MB		0x100000ul
#define BASE		0x10000000ul
#define HUGE		(2 * MB)

/* What the guest is told to do, by the host between two runs. */
static struct {
	volatile uint64_t op, start, end, step, val;
	volatile uint64_t sum, bad;
} job;

enum { READ = 1, WRITE, CHECK, ADD };

GUEST(guest_works)
{
	for (;;) {
		uint64_t addr, sum = 0, bad = 0;

		for (addr = job.start; addr < job.end; addr += job.step) {
			volatile uint64_t *p = (volatile uint64_t *)addr;

			switch (job.op) {
			case READ:
				sum += *p;
				break;
			case WRITE:
				*p = job.val + addr;
				break;
			case CHECK:
				bad += *p != job.val + addr;
				break;
			case ADD:
				__atomic_add_fetch(p, 1, __ATOMIC_RELAXED);
				break;
			}
		}
		job.sum = sum;
		job.bad = bad;
		GUEST_SYNC(1);
	}
}

static uint64_t work_step(struct tvm *t, int op, uint64_t start, uint64_t len,
			  uint64_t step, uint64_t val)
{
	G(t, job).op = (uint64_t)op;
	G(t, job).start = start;
	G(t, job).end = start + len;
	G(t, job).step = step;
	G(t, job).val = val;
	EXPECT_EQ(tvm_go(t), 1);
	return op == READ ? G(t, job).sum : G(t, job).bad;
}

static uint64_t work(struct tvm *t, int op, uint64_t start, uint64_t len, uint64_t val)
{
	return work_step(t, op, start, len, PAGE, val);
}

static uint8_t *map(size_t size, int flags, int fd)
{
	uint8_t *p = mmap(NULL, size + HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE(p, MAP_FAILED);
	p = (uint8_t *)(((uintptr_t)p + HUGE - 1) & ~(HUGE - 1));
	p = mmap(p, size, PROT_READ | PROT_WRITE, MAP_FIXED | flags, fd, 0);
	ASSERT_NE(p, MAP_FAILED);
	return p;
}

static void init(struct tvm *t, const void *mem, uint64_t size)
{
	tvm_init(t, &guest_works);
	tvm_set_slot(t, 5, 0, BASE, size, mem);
}

#define U64(_p)	(*(volatile uint64_t *)(_p))

TEST(guest_and_host_see_the_same)
{
	const uint64_t size = 16 * MB;
	uint8_t *mem = map(size, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	struct tvm t;
	uint64_t i;

	init(&t, mem, size);
	work(&t, WRITE, BASE, size, 7);
	for (i = 0; i < size; i += PAGE)
		ASSERT_EQ(U64(mem + i), BASE + i + 7);
	for (i = 0; i < size; i += PAGE)
		U64(mem + i) = BASE + i + 9;
	EXPECT_EQ(work(&t, CHECK, BASE, size, 9), 0);
	tvm_fini(&t);
}

/* A read finds the zero page; the host's first write replaces it. */
TEST(zero_page_is_replaced)
{
	uint8_t *mem = map(MB, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	struct tvm t;

	init(&t, mem, MB);
	EXPECT_EQ(work(&t, READ, BASE, MB, 0), 0);
	U64(mem) = 5;
	U64(mem + PAGE) = 6;
	EXPECT_EQ(work(&t, READ, BASE, MB, 0), 11);
	work(&t, WRITE, BASE + 2 * PAGE, PAGE, 1);
	EXPECT_EQ(U64(mem + 2 * PAGE), BASE + 2 * PAGE + 1);
	EXPECT_EQ(U64(mem + 3 * PAGE), 0);
	tvm_fini(&t);
}

TEST(madvise_dontneed_drops_pages)
{
	uint8_t *mem = map(4 * MB, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	struct tvm t;

	init(&t, mem, 4 * MB);
	work(&t, WRITE, BASE, 4 * MB, 1);
	ASSERT_OK(madvise(mem + MB, MB, MADV_DONTNEED));
	EXPECT_EQ(work(&t, READ, BASE + MB, MB, 0), 0);
	EXPECT_EQ(work(&t, CHECK, BASE, MB, 1), 0);
	EXPECT_EQ(work(&t, CHECK, BASE + 2 * MB, 2 * MB, 1), 0);
	work(&t, WRITE, BASE + MB, MB, 3);
	EXPECT_EQ(U64(mem + MB), BASE + MB + 3);
	tvm_fini(&t);
}

static bool is_huge(const uint8_t *mem)
{
	unsigned long start, end, kb = 0;
	bool inside = false;
	char line[256];
	FILE *f = fopen("/proc/self/smaps", "r");

	ASSERT_TRUE(f);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			inside = start <= (uintptr_t)mem && (uintptr_t)mem < end;
		if (inside && sscanf(line, "AnonHugePages: %lu", &kb) == 1)
			break;
	}
	fclose(f);
	return kb > 0;
}

/* A 2 MiB page, mapped as one, is split under the guest and goes on as 4 KiB. */
TEST(thp_splits_and_collapses)
{
	uint8_t *mem = map(8 * MB, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	struct tvm t;
	int i;

	ASSERT_OK(madvise(mem, 8 * MB, MADV_HUGEPAGE));
	memset(mem, 0, 8 * MB);
	if (!is_huge(mem))
		FAIL("the outer machine has no transparent huge pages");
	init(&t, mem, 8 * MB);
	work(&t, WRITE, BASE, 8 * MB, 1);
	for (i = 0; i < 4; i++) {
		uint8_t *page = mem + (unsigned int)i * HUGE + 5 * PAGE;

		ASSERT_OK(madvise(page, PAGE, MADV_DONTNEED));
		EXPECT_EQ(work(&t, READ, BASE + (uint64_t)(page - mem), PAGE, 0), 0);
		U64(page) = BASE + (uint64_t)(page - mem) + 1;
		EXPECT_EQ(work(&t, CHECK, BASE, 8 * MB, 1), 0);
	}
	ASSERT_OK(mprotect(mem + HUGE, PAGE, PROT_READ));
	ASSERT_OK(mprotect(mem + HUGE, PAGE, PROT_READ | PROT_WRITE));
	work(&t, WRITE, BASE, 8 * MB, 2);
	for (i = 0; i < 4; i++)
		EXPECT_EQ(U64(mem + (unsigned int)i * HUGE), BASE + (unsigned int)i * HUGE + 2);
	/* Back to one page, where the kernel offers it (MADV_COLLAPSE). */
	if (!madvise(mem, 8 * MB, 25))
		EXPECT_EQ(work(&t, CHECK, BASE, 8 * MB, 2), 0);
	work(&t, WRITE, BASE, 8 * MB, 3);
	EXPECT_EQ(U64(mem + 3 * HUGE + 7 * PAGE), BASE + 3 * HUGE + 7 * PAGE + 3);
	tvm_fini(&t);
}

/* A slot whose addresses differ in their lower 21 bits cannot use large pages. */
TEST(thp_behind_a_misaligned_slot)
{
	uint8_t *mem = map(8 * MB, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	struct tvm t;
	uint64_t i;

	ASSERT_OK(madvise(mem, 8 * MB, MADV_HUGEPAGE));
	memset(mem, 0, 8 * MB);
	tvm_init(&t, &guest_works);
	tvm_set_slot(&t, 5, 0, BASE + 3 * PAGE, 6 * MB, mem + PAGE);
	work(&t, WRITE, BASE + 3 * PAGE, 6 * MB, 1);
	for (i = 0; i < 6 * MB; i += PAGE)
		ASSERT_EQ(U64(mem + PAGE + i), BASE + 3 * PAGE + i + 1);
	EXPECT_EQ(U64(mem), 0);
	EXPECT_EQ(U64(mem + PAGE + 6 * MB), 0);
	tvm_fini(&t);
}

TEST(memfd_shared_with_another_mapping)
{
	int fd = memfd_create("guest", MFD_CLOEXEC);
	uint8_t *mem, *other;
	struct tvm t;

	ASSERT_OK(fd);
	ASSERT_OK(ftruncate(fd, 4 * MB));
	mem = map(4 * MB, MAP_SHARED, fd);
	other = mmap(NULL, 4 * MB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_NE(other, MAP_FAILED);
	init(&t, mem, 4 * MB);
	work(&t, WRITE, BASE, 4 * MB, 1);
	EXPECT_EQ(U64(other + 2 * MB), BASE + 2 * MB + 1);
	U64(other + PAGE) = 77;
	EXPECT_EQ(work(&t, READ, BASE + PAGE, PAGE, 0), 77);

	/* A hole in the file is zero for everybody. */
	ASSERT_OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, MB, MB));
	EXPECT_EQ(work(&t, READ, BASE + MB, MB, 0), 0);
	work(&t, WRITE, BASE + MB, MB, 5);
	EXPECT_EQ(U64(other + MB), BASE + MB + 5);

	/* Beyond the end of the file there is no memory: EFAULT, and no harm. */
	ASSERT_OK(ftruncate(fd, 2 * MB));
	G(&t, job).op = WRITE;
	G(&t, job).start = BASE + 3 * MB;
	G(&t, job).end = G(&t, job).start + PAGE;
	EXPECT_ERRNO(ioctl(t.cpu, KVM_RUN, 0), EFAULT);
	ASSERT_OK(ftruncate(fd, 4 * MB));
	EXPECT_EQ(tvm_go(&t), 1);
	EXPECT_EQ(U64(other + 3 * MB), BASE + 3 * MB + 5);
	tvm_fini(&t);
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	ASSERT_OK(fd);
	ASSERT_EQ(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

TEST(hugetlb)
{
	uint8_t *mem;
	struct tvm t;

	write_file("/proc/sys/vm/nr_hugepages", "8");
	mem = map(8 * MB, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_POPULATE, -1);
	init(&t, mem, 8 * MB);
	work(&t, WRITE, BASE, 8 * MB, 1);
	EXPECT_EQ(U64(mem + 5 * MB), BASE + 5 * MB + 1);
	ASSERT_OK(madvise(mem + HUGE, HUGE, MADV_DONTNEED));
	EXPECT_EQ(work(&t, READ, BASE + HUGE, HUGE, 0), 0);
	EXPECT_EQ(work(&t, CHECK, BASE, HUGE, 1), 0);
	work(&t, WRITE, BASE, 8 * MB, 2);
	EXPECT_EQ(U64(mem + HUGE), BASE + HUGE + 2);
	tvm_fini(&t);
	munmap(mem, 8 * MB);
	write_file("/proc/sys/vm/nr_hugepages", "0");
}

/* Host memory that is gone or may not be written: EFAULT until it is back. */
TEST(unmapped_and_protected_host_memory)
{
	uint8_t *mem = map(MB, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	struct tvm t;

	init(&t, mem, MB);
	work(&t, WRITE, BASE, MB, 1);
	ASSERT_OK(mprotect(mem, MB, PROT_READ));
	EXPECT_EQ(work(&t, CHECK, BASE, MB, 1), 0);
	G(&t, job).op = WRITE;
	G(&t, job).val = 2;
	EXPECT_ERRNO(ioctl(t.cpu, KVM_RUN, 0), EFAULT);
	EXPECT_ERRNO(ioctl(t.cpu, KVM_RUN, 0), EFAULT);
	EXPECT_EQ(U64(mem), BASE + 1);
	ASSERT_OK(mprotect(mem, MB, PROT_READ | PROT_WRITE));
	EXPECT_EQ(tvm_go(&t), 1);
	EXPECT_EQ(U64(mem), BASE + 2);

	ASSERT_OK(munmap(mem, MB));
	EXPECT_ERRNO(ioctl(t.cpu, KVM_RUN, 0), EFAULT);
	ASSERT_EQ(mmap(mem, MB, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), mem);
	EXPECT_EQ(tvm_go(&t), 1);
	EXPECT_EQ(U64(mem + MB - PAGE), BASE + MB - PAGE + 2);
	tvm_fini(&t);
}

static long pre_fault(struct tvm *t, struct kvm_pre_fault_memory *range, uint64_t gpa,
		      uint64_t size)
{
	*range = (struct kvm_pre_fault_memory){ .gpa = gpa, .size = size };
	return ioctl(t->cpu, KVM_PRE_FAULT_MEMORY, range);
}

/* The guest's first accesses then need no exit. */
TEST(memory_can_be_mapped_beforehand)
{
	uint8_t *mem = map(MB, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	struct kvm_pre_fault_memory range;
	uint64_t before = 0;
	struct tvm t;

	init(&t, mem, MB);
	if (!ioctl(t.fd, KVM_CHECK_EXTENSION, KVM_CAP_PRE_FAULT_MEMORY)) {
		/* The reference has it since Linux 6.11. */
		EXPECT_TRUE(tvm_is_stock());
		EXPECT_ERRNO(pre_fault(&t, &range, BASE, MB), EINVAL);
		tvm_fini(&t);
		return;
	}
	memset(mem, 0x5a, MB / 2);
	/* What the guest needs beside. */
	work(&t, READ, BASE, PAGE, 0);
	EXPECT_OK(pre_fault(&t, &range, BASE, MB));
	EXPECT_EQ(range.gpa, BASE + MB);
	EXPECT_EQ(range.size, 0);
	/* As far as there is memory; nothing at all is an error. */
	EXPECT_OK(pre_fault(&t, &range, BASE + MB - PAGE, 3 * PAGE));
	EXPECT_EQ(range.gpa, BASE + MB);
	EXPECT_EQ(range.size, 2 * PAGE);
	EXPECT_ERRNO(pre_fault(&t, &range, BASE + MB, PAGE), ENOENT);
	EXPECT_EQ(range.size, PAGE);
	EXPECT_ERRNO(pre_fault(&t, &range, BASE + 1, PAGE), EINVAL);
	EXPECT_ERRNO(pre_fault(&t, &range, BASE, PAGE + 1), EINVAL);
	EXPECT_ERRNO(pre_fault(&t, &range, BASE, 0), EINVAL);
	EXPECT_ERRNO(pre_fault(&t, &range, BASE, -BASE), EINVAL);
	range = (struct kvm_pre_fault_memory){ .gpa = BASE, .size = PAGE, .flags = 1 };
	EXPECT_ERRNO(ioctl(t.cpu, KVM_PRE_FAULT_MEMORY, &range), EINVAL);
	EXPECT_ERRNO(ioctl(t.cpu, KVM_PRE_FAULT_MEMORY, NULL), EFAULT);
	if (!tvm_is_stock())
		before = tvm_counter(&t, "exits_page_fault");
	work(&t, READ, BASE, MB, 0);
	EXPECT_EQ(G(&t, job).sum, MB / 2 / PAGE * 0x5a5a5a5a5a5a5a5aull);
	if (!tvm_is_stock())
		EXPECT_EQ(tvm_counter(&t, "exits_page_fault"), before);
	/* What is mapped may be taken away, and what was read is not written. */
	work(&t, WRITE, BASE, MB, 3);
	EXPECT_EQ(U64(mem + MB - PAGE), BASE + MB - PAGE + 3);
	ASSERT_OK(munmap(mem, MB));
	EXPECT_ERRNO(pre_fault(&t, &range, BASE, MB), EFAULT);
	tvm_fini(&t);
}

/* After fork() the pages are copied on write: the child keeps the old ones. */
TEST(fork_copies_what_the_guest_writes)
{
	uint8_t *mem = map(MB, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	int to_child[2], to_parent[2], status;
	struct tvm t;
	pid_t pid;
	char c;

	init(&t, mem, MB);
	work(&t, WRITE, BASE, MB, 1);
	ASSERT_OK(pipe(to_child));
	ASSERT_OK(pipe(to_parent));
	pid = fork();
	if (!pid) {
		uint64_t i, bad = 0;

		bad += read(to_child[0], &c, 1) != 1;
		for (i = 0; i < MB; i += PAGE)
			bad += U64(mem + i) != BASE + i + 1;
		_exit(bad ? 1 : 0);
	}
	work(&t, WRITE, BASE, MB, 2);
	EXPECT_EQ(U64(mem + 5 * PAGE), BASE + 5 * PAGE + 2);
	ASSERT_EQ(write(to_child[1], "x", 1), 1);
	ASSERT_EQ(waitpid(pid, &status, 0), pid);
	EXPECT_EQ(status, 0);
	EXPECT_EQ(work(&t, CHECK, BASE, MB, 2), 0);
	tvm_fini(&t);
}

/* Four vCPUs fault the same pages at the same time; each adds its share. */
#define PARALLEL	(32 * MB)

static volatile uint32_t arrived;

GUEST(guest_adds_everywhere)
{
	uint64_t addr, i, nr = PARALLEL / PAGE;

	__atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST);
	while (arrived < 4)
		cpu_relax();
	/* Half of them from the other end. */
	for (i = 0; i < nr; i++) {
		addr = BASE + (guest_cpu()->id & 1 ? nr - 1 - i : i) * PAGE;
		__atomic_add_fetch((volatile uint64_t *)addr, 1, __ATOMIC_RELAXED);
	}
}

static void parallel_faults(bool huge)
{
	uint8_t *mem = map(PARALLEL, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	struct tvm t;
	uint64_t i;

	if (huge)
		ASSERT_OK(madvise(mem, PARALLEL, MADV_HUGEPAGE));
	else
		ASSERT_OK(madvise(mem, PARALLEL, MADV_NOHUGEPAGE));
	tvm_init_smp(&t, &guest_adds_everywhere, TVM_IRQCHIP, 4);
	tvm_set_slot(&t, 5, 0, BASE, PARALLEL, mem);
	tvm_start_all(&t);
	tvm_join_all(&t);
	for (i = 0; i < PARALLEL; i += PAGE)
		ASSERT_EQ(U64(mem + i), 4);
	tvm_fini(&t);
}

TEST_TIMEOUT(parallel_faults_on_small_pages, 60)
{
	parallel_faults(false);
}

TEST_TIMEOUT(parallel_faults_on_large_pages, 60)
{
	parallel_faults(true);
}

/*
 * Two vCPUs count in every page for ever while the host does to the pages all
 * that swapping, compaction and khugepaged do. A count must never be lost:
 * each vCPU owns one word of each page and knows what it should be.
 */
#define LOAD_PAGES	1024ul

static volatile uint64_t laps[2], halt;

GUEST(guest_counts_in_pages)
{
	uint32_t me = guest_cpu()->id;
	uint64_t lap, i;

	/* Bochs does not take interrupts of the host from a guest that never allowed its own. */
	sti();
	for (lap = 0; !halt; lap++) {
		for (i = 0; i < LOAD_PAGES; i++) {
			volatile uint64_t *p = (volatile uint64_t *)(BASE + i * PAGE) + me;

			GUEST_EQ(*p, lap);
			*p = lap + 1;
		}
		laps[me] = lap + 1;
	}
}

/* KVM_RUN answers EFAULT while a page is protected: then it is tried again. */
static void *run_through_faults(void *arg)
{
	struct tvm_vcpu *v = arg;
	bool is_report;

	for (;;) {
		if (ioctl(v->fd, KVM_RUN, 0) < 0) {
			if (errno != EFAULT && errno != EINTR && errno != EAGAIN)
				FAIL("KVM_RUN: %s", strerror(errno));
			sched_yield();
			continue;
		}
		tvm_report(v->vm, v->index, &is_report);
		ASSERT_TRUE(is_report);
		return NULL;
	}
}

static void pages_under_load(uint8_t *mem, int fd)
{
	const size_t size = LOAD_PAGES * PAGE;
	pthread_t thread[2];
	volatile uint64_t *lap;
	unsigned int i, v;
	struct tvm t;

	tvm_init_smp(&t, &guest_counts_in_pages, TVM_IRQCHIP, 2);
	tvm_set_slot(&t, 5, 0, BASE, size, mem);
	for (v = 0; v < 2; v++)
		ASSERT_EQ(pthread_create(&thread[v], NULL, run_through_faults, &t.vcpu[v]), 0);
	lap = &G(&t, laps)[0];
	for (i = 0; i < 60; i++) {
		size_t at = (i * 7919 % (LOAD_PAGES - 64)) * PAGE;
		uint64_t before = lap[i & 1];

		switch (i % 6) {
		case 0:		/* as before swapping out: unmapped from all tables */
			madvise(mem, size, MADV_PAGEOUT);
			break;
		case 1:
			ASSERT_OK(mprotect(mem + at, 64 * PAGE, PROT_NONE));
			ASSERT_OK(mprotect(mem + at, 64 * PAGE, PROT_READ | PROT_WRITE));
			break;
		case 2:		/* splits a large page */
			ASSERT_OK(mprotect(mem + at, PAGE, PROT_READ));
			ASSERT_OK(mprotect(mem + at, PAGE, PROT_READ | PROT_WRITE));
			break;
		case 3:		/* MADV_COLLAPSE: makes one, by copying */
			madvise(mem, size, 25);
			break;
		case 4:
			madvise(mem + at, 64 * PAGE, MADV_COLD);
			break;
		default:	/* copy on write for a while */
			if (fd < 0) {
				pid_t pid = fork();

				if (!pid)
					_exit(0);
				ASSERT_EQ(waitpid(pid, NULL, 0), pid);
			} else {
				ASSERT_NE(mmap(mem + at, 64 * PAGE, PROT_READ | PROT_WRITE,
					       MAP_SHARED | MAP_FIXED, fd, (off_t)at), MAP_FAILED);
			}
		}
		if (i % 10 == 9)
			TVM_AWAIT(lap[i & 1] > before);
	}
	G(&t, halt) = 1;
	for (v = 0; v < 2; v++) {
		uint64_t end;

		ASSERT_EQ(pthread_join(thread[v], NULL), 0);
		end = lap[v];
		EXPECT_GT(end, 10);
		for (i = 0; i < LOAD_PAGES; i++)
			ASSERT_EQ(U64(mem + i * PAGE + 8 * v), end);
	}
	tvm_fini(&t);
}

TEST_TIMEOUT(anonymous_pages_change_under_load, 120)
{
	uint8_t *mem = map(LOAD_PAGES * PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);

	madvise(mem, LOAD_PAGES * PAGE, MADV_HUGEPAGE);
	pages_under_load(mem, -1);
}

TEST_TIMEOUT(shared_pages_change_under_load, 120)
{
	int fd = memfd_create("guest", MFD_CLOEXEC);

	ASSERT_OK(fd);
	ASSERT_OK(ftruncate(fd, LOAD_PAGES * PAGE));
	pages_under_load(map(LOAD_PAGES * PAGE, MAP_SHARED, fd), fd);
}

/* A slot that is large and deleted again and again under all vCPUs. */
static volatile uint64_t touches;

GUEST(guest_touches_slot)
{
	uint64_t i;

	/* Bochs does not take interrupts of the host from a guest that never allowed its own. */
	sti();
	for (;;) {
		for (i = 0; i < 512; i++) {
			*(volatile uint64_t *)(BASE + i * PAGE) = i;
			touches++;
		}
	}
}

static void *touch(void *arg)
{
	struct tvm_vcpu *v = arg;

	while (!v->stop) {
		int reason = tvm_run_vcpu(v->vm, v->index);

		if (reason != KVM_EXIT_MMIO && !v->stop)
			EXPECT_EQ(reason, KVM_EXIT_MMIO);
	}
	return NULL;
}

TEST_TIMEOUT(slot_deletion_under_all_vcpus, 60)
{
	uint8_t *mem = map(2 * MB, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	pthread_t thread[3];
	struct tvm t;
	int i, v;

	tvm_init_smp(&t, &guest_touches_slot, TVM_IRQCHIP, 3);
	tvm_set_slot(&t, 5, 0, BASE, 2 * MB, mem);
	for (v = 0; v < 3; v++)
		ASSERT_EQ(pthread_create(&thread[v], NULL, touch, &t.vcpu[v]), 0);
	for (i = 0; i < 60; i++) {
		uint64_t before = *(volatile uint64_t *)&G(&t, touches);

		tvm_set_slot(&t, 5, 0, BASE, 0, NULL);
		/* Nobody may write here any more: the kernel gets it back. */
		memset(mem, 0x5a, 2 * MB);
		for (v = 0; v < 512; v++)
			ASSERT_EQ(U64(mem + (unsigned int)v * PAGE), 0x5a5a5a5a5a5a5a5a);
		tvm_set_slot(&t, 5, 0, BASE, 2 * MB, mem);
		TVM_AWAIT(*(volatile uint64_t *)&G(&t, touches) > before + 100);
	}
	for (v = 0; v < 3; v++) {
		t.vcpu[v].stop = true;
		tvm_kick(&t, (unsigned int)v);
	}
	for (v = 0; v < 3; v++)
		ASSERT_EQ(pthread_join(thread[v], NULL), 0);
	tvm_fini(&t);
}

/* The kernel's memory for a VM is charged to the VMM's cgroup, and returned. */
static uint64_t cgroup_kernel_bytes(void)
{
	char line[128];
	unsigned long val = 0;
	FILE *f = fopen("/tmp/cgroup/fonda-test/memory.stat", "r");

	ASSERT_TRUE(f);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "kernel %lu", &val) == 1)
			break;
	}
	fclose(f);
	ASSERT_GT(val, 0);
	return val;
}

TEST(page_tables_are_charged_and_freed)
{
	const uint64_t size = 1024 * MB;
	uint64_t before, with, after, i;
	struct tvm t;
	uint8_t *mem;

	mkdir("/tmp/cgroup", 0755);
	if (mount("none", "/tmp/cgroup", "cgroup2", 0, NULL) && errno != EBUSY)
		FAIL("cgroup2: %s", strerror(errno));
	write_file("/tmp/cgroup/cgroup.subtree_control", "+memory");
	mkdir("/tmp/cgroup/fonda-test", 0755);
	write_file("/tmp/cgroup/fonda-test/cgroup.procs", "0");

	mem = map(size, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	ASSERT_OK(madvise(mem, size, MADV_NOHUGEPAGE));
	init(&t, mem, size);
	/* One page in each 2 MiB: the host's tables come first, then the guest's. */
	for (i = 0; i < size; i += HUGE)
		U64(mem + i) = 1;
	before = cgroup_kernel_bytes();
	work_step(&t, WRITE, BASE, size, HUGE, 1);
	with = cgroup_kernel_bytes();
	/* 512 pages of leaf tables; the statistics may lag by some pages. */
	EXPECT_GT(with, before + 400 * PAGE);
	tvm_set_slot(&t, 5, 0, BASE, 0, NULL);
	tvm_fini(&t);
	after = cgroup_kernel_bytes();
	EXPECT_LT(after, before + 100 * PAGE);
	write_file("/tmp/cgroup/cgroup.procs", "0");
}
