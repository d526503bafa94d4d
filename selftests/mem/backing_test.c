// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Guest memory of the less common kinds: pages that user space supplies on
 * demand (userfaultfd), merged pages, pages that memory errors took, pages that
 * migrate, and memory of a device.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tvm.h"

#define PAGE		4096ul
#define BASE		0x10000000ul
#define SLOT		5
#define PAGES		64ul
#define SIZE		(PAGES * PAGE)

#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE	101
#endif

static volatile uint64_t sum, value;

GUEST(guest_sums_and_writes)
{
	uint64_t i;

	for (;;) {
		sum = 0;
		for (i = 0; i < PAGES; i++)
			sum += *(volatile uint64_t *)(BASE + i * PAGE);
		GUEST_SYNC(1);
		for (i = 0; i < PAGES; i++)
			*(volatile uint64_t *)(BASE + i * PAGE) = value + i;
		GUEST_SYNC(2);
	}
}

static uint8_t *pages(void)
{
	void *p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE(p, MAP_FAILED);
	ASSERT_OK(madvise(p, SIZE, MADV_NOHUGEPAGE));
	return p;
}

#define U64(_p)	(*(volatile uint64_t *)(_p))

/* --- userfaultfd ------------------------------------------------------------ */

struct pager {
	struct tvm *t;
	uint8_t *mem, *elsewhere;
	int fd;
};

/*
 * Supplies each page when it is asked for, and before that changes the slots:
 * a vCPU that waits for its page must not hold up who makes it. (On the
 * reference it does, for ever.)
 */
static void *supply_pages(void *arg)
{
	struct pager *p = arg;
	uint64_t page[PAGE / 8] = { };
	unsigned int n;

	for (n = 0; n < PAGES; n++) {
		struct pollfd wait = { .fd = p->fd, .events = POLLIN };
		struct uffdio_copy copy = { .len = PAGE };
		struct uffd_msg msg;

		ASSERT_EQ(poll(&wait, 1, -1), 1);
		ASSERT_EQ(read(p->fd, &msg, sizeof(msg)), sizeof(msg));
		ASSERT_EQ(msg.event, UFFD_EVENT_PAGEFAULT);
		if (!tvm_is_stock()) {
			tvm_set_slot(p->t, SLOT + 1, 0, 2 * BASE, PAGE, p->elsewhere);
			tvm_set_slot(p->t, SLOT + 1, 0, 2 * BASE, 0, p->elsewhere);
		}
		copy.dst = msg.arg.pagefault.address & ~(PAGE - 1);
		copy.src = (uintptr_t)page;
		page[0] = (copy.dst - (uintptr_t)p->mem) / PAGE + 1;
		ASSERT_OK(ioctl(p->fd, UFFDIO_COPY, &copy));
	}
	return NULL;
}

TEST(pages_are_supplied_while_slots_change)
{
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_api api = { .api = UFFD_API };
	struct pager p = { .mem = pages(), .elsewhere = pages() };
	pthread_t thread;
	struct tvm t;

	p.t = &t;
	p.fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	ASSERT_OK(p.fd);
	ASSERT_OK(ioctl(p.fd, UFFDIO_API, &api));
	reg.range.start = (uintptr_t)p.mem;
	reg.range.len = SIZE;
	ASSERT_OK(ioctl(p.fd, UFFDIO_REGISTER, &reg));

	tvm_init(&t, &guest_sums_and_writes);
	tvm_set_slot(&t, SLOT, 0, BASE, SIZE, p.mem);
	ASSERT_EQ(pthread_create(&thread, NULL, supply_pages, &p), 0);
	EXPECT_EQ(tvm_go(&t), 1);
	EXPECT_EQ(G(&t, sum), PAGES * (PAGES + 1) / 2);
	ASSERT_EQ(pthread_join(thread, NULL), 0);
	EXPECT_EQ(tvm_go(&t), 2);
	EXPECT_EQ(U64(p.mem + PAGE), 1);
	tvm_fini(&t);
}

/* --- pages that the host replaces --------------------------------------------- */

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	ASSERT_OK(fd);
	ASSERT_EQ(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

static unsigned long read_number(const char *path)
{
	char text[32] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	ASSERT_OK(fd);
	ASSERT_GT(read(fd, text, sizeof(text) - 1), 0);
	close(fd);
	return strtoul(text, NULL, 10);
}

#define KSM	"/sys/kernel/mm/ksm/"

TEST_TIMEOUT(merged_pages_part_again_when_written, 60)
{
	uint8_t *mem = pages();
	struct tvm t;
	unsigned int i;

	memset(mem, 0x11, SIZE);
	tvm_init(&t, &guest_sums_and_writes);
	tvm_set_slot(&t, SLOT, 0, BASE, SIZE, mem);
	EXPECT_EQ(tvm_go(&t), 1);
	EXPECT_EQ(G(&t, sum), PAGES * 0x1111111111111111);

	ASSERT_OK(madvise(mem, SIZE, MADV_MERGEABLE));
	write_file(KSM "sleep_millisecs", "1");
	write_file(KSM "run", "1");
	TVM_AWAIT(read_number(KSM "pages_sharing") >= PAGES - 1);
	G(&t, value) = 500;
	EXPECT_EQ(tvm_go(&t), 2);
	for (i = 0; i < PAGES; i++)
		EXPECT_EQ(U64(mem + i * PAGE), 500 + i);
	write_file(KSM "run", "2");
	tvm_fini(&t);
}

TEST(pages_migrate)
{
	uint8_t *mem = pages();
	struct tvm t;
	unsigned int i;

	tvm_init(&t, &guest_sums_and_writes);
	tvm_set_slot(&t, SLOT, 0, BASE, SIZE, mem);
	EXPECT_EQ(tvm_go(&t), 1);
	G(&t, value) = 700;
	EXPECT_EQ(tvm_go(&t), 2);
	/* Each goes to another frame and the old one is never used again. */
	for (i = 0; i < PAGES; i += 8)
		ASSERT_OK(madvise(mem + i * PAGE, PAGE, MADV_SOFT_OFFLINE));
	EXPECT_EQ(tvm_go(&t), 1);
	EXPECT_EQ(G(&t, sum), PAGES * 700 + PAGES * (PAGES - 1) / 2);
	G(&t, value) = 900;
	EXPECT_EQ(tvm_go(&t), 2);
	for (i = 0; i < PAGES; i++)
		EXPECT_EQ(U64(mem + i * PAGE), 900 + i);
	tvm_fini(&t);
}

static volatile sig_atomic_t bus_code;
static void *volatile bus_address;

static void on_bus_error(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	bus_code = info->si_code;
	bus_address = info->si_addr;
}

TEST(a_lost_page_is_told_by_a_signal)
{
	struct sigaction action = { .sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO };
	uint8_t *mem = pages();
	struct tvm t;

	ASSERT_OK(sigaction(SIGBUS, &action, NULL));
	tvm_init(&t, &guest_sums_and_writes);
	tvm_set_slot(&t, SLOT, 0, BASE, SIZE, mem);
	memset(mem, 0, SIZE);
	EXPECT_EQ(tvm_go(&t), 1);
	EXPECT_EQ(tvm_go(&t), 2);
	ASSERT_OK(madvise(mem + 9 * PAGE, PAGE, MADV_HWPOISON));
	EXPECT_ERRNO(ioctl(t.cpu, KVM_RUN, 0), EINTR);
	EXPECT_EQ(bus_code, BUS_MCEERR_AR);
	EXPECT_EQ(bus_address, mem + 9 * PAGE);

	/* The VMM gives the guest another page, and it goes on. */
	ASSERT_EQ(mmap(mem + 9 * PAGE, PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), mem + 9 * PAGE);
	U64(mem + 9 * PAGE) = 9;
	EXPECT_EQ(tvm_go(&t), 1);
	EXPECT_EQ(G(&t, sum), PAGES * (PAGES - 1) / 2);
	tvm_fini(&t);
}

/* --- a device's memory: no pages behind it --------------------------------------- */

#define ROM		0xf0000
#define ROM_SIZE	0x10000ul

static volatile uint64_t rom_sum;

GUEST(guest_sums_rom)
{
	uint64_t i, n = 0;

	for (i = 0; i < ROM_SIZE; i += 8)
		n = n * 31 + *(volatile uint64_t *)(BASE + i);
	rom_sum = n;
	GUEST_DONE();
}

TEST(device_memory_is_guest_memory)
{
	uint64_t *rom, i, n = 0;
	struct tvm t;
	int fd;

	fd = open("/dev/mem", O_RDONLY | O_CLOEXEC);
	ASSERT_OK(fd);
	rom = mmap(NULL, ROM_SIZE, PROT_READ, MAP_SHARED, fd, ROM);
	ASSERT_NE(rom, MAP_FAILED);
	for (i = 0; i < ROM_SIZE / 8; i++)
		n = n * 31 + rom[i];
	ASSERT_NE(n, 0);
	tvm_init(&t, &guest_sums_rom);
	tvm_set_slot(&t, SLOT, KVM_MEM_READONLY, BASE, ROM_SIZE, rom);
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	EXPECT_EQ(G(&t, rom_sum), n);
	tvm_fini(&t);
}
