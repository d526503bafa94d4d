// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * KVM_SET_USER_MEMORY_REGION: what it accepts and refuses, read-only slots,
 * slots that come, move and go under a running guest, and very many of them.
 */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tvm.h"

#define BAD_PTR	((void *)8)
#define PAGE	4096ul
#define BASE	0x10000000ul	/* free guest-physical memory */

static uint8_t *pages(size_t nr)
{
	void *p = mmap(NULL, nr * PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE(p, MAP_FAILED);
	return p;
}

TEST(refuses_bad_regions)
{
	uint8_t *mem = pages(16);
	unsigned int nr;
	struct tvm t;

	tvm_init_bare(&t, 0);
	nr = (unsigned int)ioctl(t.fd, KVM_CHECK_EXTENSION, KVM_CAP_NR_MEMSLOTS);
	EXPECT_ERRNO(ioctl(t.fd, KVM_SET_USER_MEMORY_REGION, BAD_PTR), EFAULT);
	EXPECT_ERRNO(tvm_try_slot(&t, 5, 0, BASE + 1, PAGE, mem), EINVAL);
	EXPECT_ERRNO(tvm_try_slot(&t, 5, 0, BASE, PAGE + 8, mem), EINVAL);
	EXPECT_ERRNO(tvm_try_slot(&t, 5, 0, BASE, PAGE, mem + 16), EINVAL);
	EXPECT_ERRNO(tvm_try_slot(&t, 5, 0x80, BASE, PAGE, mem), EINVAL);
	EXPECT_ERRNO(tvm_try_slot(&t, nr, 0, BASE, PAGE, mem), EINVAL);
	EXPECT_ERRNO(tvm_try_slot(&t, 7u << 16 | 5, 0, BASE, PAGE, mem), EINVAL);
	/* Wraps around; is not user space; is more than 8 TiB. */
	EXPECT_ERRNO(tvm_try_slot(&t, 5, 0, -PAGE, 2 * PAGE, mem), EINVAL);
	EXPECT_ERRNO(tvm_try_slot(&t, 5, 0, BASE, PAGE, (void *)-PAGE), EINVAL);
	EXPECT_ERRNO(tvm_try_slot(&t, 5, 0, BASE, 1ul << 43, mem), EINVAL);
	/* There is no such slot to delete. */
	EXPECT_ERRNO(tvm_try_slot(&t, 5, 0, BASE, 0, mem), EINVAL);

	/* The highest slot number works. */
	EXPECT_OK(tvm_try_slot(&t, nr - 1, 0, BASE, PAGE, mem));
	EXPECT_OK(tvm_try_slot(&t, nr - 1, 0, BASE, 0, mem));
	tvm_fini(&t);
}

TEST(changes_of_a_slot)
{
	uint8_t *mem = pages(16);
	struct tvm t;

	tvm_init_bare(&t, 0);
	tvm_set_slot(&t, 5, 0, BASE, 4 * PAGE, mem);

	/* Another slot may touch it, but not overlap. */
	EXPECT_ERRNO(tvm_try_slot(&t, 6, 0, BASE, PAGE, mem), EEXIST);
	EXPECT_ERRNO(tvm_try_slot(&t, 6, 0, BASE + 3 * PAGE, 4 * PAGE, mem), EEXIST);
	EXPECT_ERRNO(tvm_try_slot(&t, 6, 0, BASE - PAGE, 6 * PAGE, mem), EEXIST);
	EXPECT_OK(tvm_try_slot(&t, 6, 0, BASE + 4 * PAGE, 4 * PAGE, mem));
	EXPECT_OK(tvm_try_slot(&t, 7, 0, BASE - PAGE, PAGE, mem));

	/* Unchanged, moved, moved onto another. */
	EXPECT_OK(tvm_try_slot(&t, 5, 0, BASE, 4 * PAGE, mem));
	EXPECT_OK(tvm_try_slot(&t, 5, 0, 2 * BASE, 4 * PAGE, mem));
	EXPECT_ERRNO(tvm_try_slot(&t, 5, 0, BASE + 5 * PAGE, 4 * PAGE, mem), EEXIST);

	/* Its size, its backing and READONLY are for life. */
	EXPECT_ERRNO(tvm_try_slot(&t, 5, 0, 2 * BASE, 5 * PAGE, mem), EINVAL);
	EXPECT_ERRNO(tvm_try_slot(&t, 5, 0, 2 * BASE, 4 * PAGE, mem + PAGE), EINVAL);
	EXPECT_ERRNO(tvm_try_slot(&t, 5, KVM_MEM_READONLY, 2 * BASE, 4 * PAGE, mem), EINVAL);

	EXPECT_OK(tvm_try_slot(&t, 5, 0, 2 * BASE, 0, mem));
	EXPECT_OK(tvm_try_slot(&t, 5, KVM_MEM_READONLY, 2 * BASE, 5 * PAGE, mem));
	tvm_fini(&t);
}

static volatile uint64_t target, got;

GUEST(guest_reads_and_writes)
{
	for (;;) {
		got = *(volatile uint64_t *)target;
		GUEST_SYNC(1);
		*(volatile uint64_t *)target = 0x1122334455667788;
		GUEST_SYNC(2);
	}
}

TEST(readonly_slot_reads_as_memory_and_writes_as_mmio)
{
	uint8_t *mem = pages(1);
	struct tvm t;

	tvm_init(&t, &guest_reads_and_writes);
	G(&t, target) = BASE + 8;
	tvm_set_slot(&t, 5, KVM_MEM_READONLY, BASE, PAGE, mem);
	((uint64_t *)mem)[1] = 0xabcdef;
	EXPECT_EQ(tvm_go(&t), 1);
	EXPECT_EQ(G(&t, got), 0xabcdef);

	EXPECT_EQ(tvm_run(&t), KVM_EXIT_MMIO);
	EXPECT_EQ(t.run->mmio.is_write, 1);
	EXPECT_EQ(t.run->mmio.phys_addr, BASE + 8);
	EXPECT_EQ(t.run->mmio.len, 8);
	EXPECT_MEMEQ(t.run->mmio.data, "\x88\x77\x66\x55\x44\x33\x22\x11", 8);
	EXPECT_EQ(tvm_go(&t), 2);
	EXPECT_EQ(((uint64_t *)mem)[1], 0xabcdef);

	/* The host may change what the guest cannot. */
	((uint64_t *)mem)[1] = 0x123;
	EXPECT_EQ(tvm_go(&t), 1);
	EXPECT_EQ(G(&t, got), 0x123);
	tvm_fini(&t);
}

/* Writable host memory, or not: a read-only slot needs no more than reading. */
TEST(readonly_slot_of_readonly_host_memory)
{
	uint8_t *mem = pages(1);
	struct tvm t;

	*(uint64_t *)mem = 0x77;
	ASSERT_OK(mprotect(mem, PAGE, PROT_READ));
	tvm_init(&t, &guest_reads_and_writes);
	G(&t, target) = BASE;
	tvm_set_slot(&t, 5, KVM_MEM_READONLY, BASE, PAGE, mem);
	EXPECT_EQ(tvm_go(&t), 1);
	EXPECT_EQ(G(&t, got), 0x77);
	EXPECT_EQ(tvm_run(&t), KVM_EXIT_MMIO);
	EXPECT_EQ(t.run->mmio.is_write, 1);
	tvm_fini(&t);
}

GUEST16(guest_calls_rom, "mov $0xc000, %ax\n" "call *%ax\n" "mov %ax, 0x8000\n" "hlt");
GUEST16(rom_code, "mov $0x5aa5, %ax\n" "ret");

TEST(readonly_slot_is_executed)
{
	uint8_t *rom = pages(1);
	struct tvm t;

	tvm_init(&t, &guest_calls_rom);
	memcpy(rom, rom_code.start,
	       (size_t)((const char *)rom_code.end - (const char *)rom_code.start));
	tvm_set_slot(&t, 0, 0, 0, 0, NULL);
	tvm_set_slot(&t, 0, 0, 0, 0xc000, t.ram);
	tvm_set_slot(&t, 5, KVM_MEM_READONLY, 0xc000, PAGE, rom);
	EXPECT_EQ(tvm_run(&t), KVM_EXIT_HLT);
	EXPECT_EQ(*(uint16_t *)tvm_ptr(&t, 0x8000), 0x5aa5);
	tvm_fini(&t);
}

TEST(deleted_slot_is_mmio_and_comes_back)
{
	uint8_t *mem = pages(2);
	struct tvm t;
	int i;

	tvm_init(&t, &guest_reads_and_writes);
	G(&t, target) = BASE;
	for (i = 0; i < 20; i++) {
		uint8_t *backing = mem + (i & 1) * PAGE;

		*(uint64_t *)backing = 100u + (unsigned int)i;
		tvm_set_slot(&t, 5, 0, BASE, PAGE, backing);
		EXPECT_EQ(tvm_go(&t), 1);
		EXPECT_EQ(G(&t, got), 100 + i);
		EXPECT_EQ(tvm_go(&t), 2);
		EXPECT_EQ(*(uint64_t *)backing, 0x1122334455667788);

		tvm_set_slot(&t, 5, 0, BASE, 0, NULL);
		EXPECT_EQ(tvm_run(&t), KVM_EXIT_MMIO);
		EXPECT_EQ(t.run->mmio.is_write, 0);
		EXPECT_EQ(t.run->mmio.phys_addr, BASE);
		memset(t.run->mmio.data, 0x41, 8);
		EXPECT_EQ(tvm_go(&t), 1);
		EXPECT_EQ(G(&t, got), 0x4141414141414141);
		EXPECT_EQ(tvm_run(&t), KVM_EXIT_MMIO);
		EXPECT_EQ(t.run->mmio.is_write, 1);
		EXPECT_EQ(tvm_go(&t), 2);
	}
	tvm_fini(&t);
}

TEST(moved_slot_keeps_its_memory)
{
	uint8_t *mem = pages(1);
	struct tvm t;

	tvm_init(&t, &guest_reads_and_writes);
	*(uint64_t *)mem = 0x99;
	tvm_set_slot(&t, 5, 0, BASE, PAGE, mem);
	G(&t, target) = BASE;
	EXPECT_EQ(tvm_go(&t), 1);
	EXPECT_EQ(G(&t, got), 0x99);
	tvm_set_slot(&t, 5, 0, 2 * BASE, PAGE, mem);
	EXPECT_EQ(tvm_run(&t), KVM_EXIT_MMIO);
	EXPECT_EQ(tvm_go(&t), 2);
	G(&t, target) = 2 * BASE;
	EXPECT_EQ(tvm_go(&t), 1);
	EXPECT_EQ(G(&t, got), 0x99);
	tvm_fini(&t);
}

#define MANY	1000

GUEST(guest_sums_slots)
{
	uint64_t sum = 0;
	unsigned int i;

	for (i = 0; i < MANY; i++)
		sum += *(volatile uint64_t *)(BASE + 2 * i * PAGE);
	got = sum;
	GUEST_SYNC(sum);
}

TEST_TIMEOUT(a_thousand_slots, 60)
{
	uint8_t *mem = pages(MANY);
	uint64_t sum = 0;
	struct tvm t;
	unsigned int i;

	tvm_init(&t, &guest_sums_slots);
	/* In an order that is neither up nor down, with holes between them. */
	for (i = 0; i < MANY; i++) {
		unsigned int n = i * 7 % MANY;

		*(uint64_t *)(mem + n * PAGE) = n * n + 1;
		sum += n * n + 1;
		tvm_set_slot(&t, 10 + n, 0, BASE + 2 * n * PAGE, PAGE, mem + n * PAGE);
	}
	EXPECT_EQ(tvm_go(&t), sum);
	EXPECT_ERRNO(tvm_try_slot(&t, 5, 0, BASE + PAGE, 2 * PAGE, mem), EEXIST);
	EXPECT_OK(tvm_try_slot(&t, 5, 0, BASE + PAGE, PAGE, mem));
	for (i = 0; i < MANY; i += 10)
		tvm_set_slot(&t, 10 + i, 0, 0, 0, NULL);
	EXPECT_ERRNO(tvm_try_slot(&t, 10, 0, 0, 0, NULL), EINVAL);
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);
}

/*
 * One vCPU reads a page for ever while its slot is deleted, moved to other
 * backing and made again. It must see one of the backings, or an MMIO exit.
 */
struct swapper {
	struct tvm *t;
	atomic_uint mmio;
	atomic_bool stop;
};

static volatile uint64_t reads, wrong;

GUEST(guest_watches_page)
{
	for (;;) {
		uint64_t val = *(volatile uint64_t *)BASE;

		if (val != 0xa && val != 0xb && val != 0xc)
			wrong = val ? val : 1;
		reads++;
	}
}

static void *watch(void *arg)
{
	struct swapper *s = arg;
	const uint64_t hole = 0xc;

	while (!s->stop) {
		int reason;

		s->t->vcpu[0].stop = s->stop;
		reason = tvm_run(s->t);
		if (reason == KVM_EXIT_MMIO) {
			s->mmio++;
			memcpy(s->t->run->mmio.data, &hole, 8);
		} else if (!s->stop) {
			EXPECT_EQ(reason, KVM_EXIT_MMIO);
		}
	}
	return NULL;
}

TEST_TIMEOUT(slot_swaps_under_a_running_vcpu, 60)
{
	uint8_t *mem = pages(2);
	struct swapper s;
	pthread_t thread;
	struct tvm t;
	int i;

	memset(&s, 0, sizeof(s));
	s.t = &t;
	*(uint64_t *)mem = 0xa;
	*(uint64_t *)(mem + PAGE) = 0xb;
	tvm_init(&t, &guest_watches_page);
	tvm_set_slot(&t, 5, 0, BASE, PAGE, mem);
	ASSERT_EQ(pthread_create(&thread, NULL, watch, &s), 0);
	for (i = 0; i < 80; i++) {
		volatile uint64_t *count = &G(&t, reads);
		unsigned int mmio = s.mmio;
		uint64_t before;

		tvm_set_slot(&t, 5, 0, BASE, 0, NULL);
		if (i % 4 == 0)
			TVM_AWAIT(s.mmio > mmio);
		tvm_set_slot(&t, 5, 0, BASE, PAGE, mem + (i & 1) * PAGE);
		before = *count;
		TVM_AWAIT(*count > before);
	}
	s.stop = true;
	t.vcpu[0].stop = true;
	tvm_kick(&t, 0);
	ASSERT_EQ(pthread_join(thread, NULL), 0);
	EXPECT_EQ(G(&t, wrong), 0);
	EXPECT_GE(s.mmio, 20);
	tvm_fini(&t);
}
