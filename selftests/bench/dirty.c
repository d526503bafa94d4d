// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The rows of `make bench` about dirty logging: what each step of a migration
 * costs for a slot of 256 MiB, by page or by entry of the ring.
 *
 * A hypervisor that write-protects pays a fault for each page that the guest
 * writes; one that reads the dirty bits of the second-stage tables pays nothing
 * for a write and a few instructions a page for a scan.
 */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>

#include "bench.h"

#define MEMORY		0x40000000ul
#define PAGE_4K		0x1000ul
#define PAGE_2M		0x200000ul
#define SIZE		(256ul << 20)
#define PAGES		(SIZE / PAGE_4K)

#define SLOT		8
#define REPEAT		5	/* each touches all pages */

/* Ring entries, a power of two; and what is reset at once, well below full. */
#define RING_SIZE	16384
#define RING_PAGES	8192

static struct kvm_userspace_memory_region slot = {
	.slot = SLOT, .guest_phys_addr = MEMORY, .memory_size = SIZE,
};
static uint64_t bitmap[PAGES / 64];

static void set_logging(struct tvm *t, bool on)
{
	slot.flags = on ? KVM_MEM_LOG_DIRTY_PAGES : 0;
	ASSERT_OK(ioctl(t->fd, KVM_SET_USER_MEMORY_REGION, &slot));
}

static void get_log(struct tvm *t)
{
	struct kvm_dirty_log log = { .slot = SLOT, .dirty_bitmap = bitmap };

	ASSERT_OK(ioctl(t->fd, KVM_GET_DIRTY_LOG, &log));
}

/* Exactly the pages that the guest has written. */
static void check_log(void)
{
	unsigned int i;

	for (i = 0; i < PAGES / 64; i++)
		ASSERT_EQ(bitmap[i], UINT64_MAX);
}

static void add_memory(struct tvm *t, int advice)
{
	uint8_t *p;

	p = mmap(NULL, SIZE + PAGE_2M, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ASSERT_NE(p, MAP_FAILED);
	p = (uint8_t *)(((uintptr_t)p + PAGE_2M - 1) & ~(PAGE_2M - 1));
	ASSERT_OK(madvise(p, SIZE, advice));
	memset(p, 1, SIZE);
	slot.userspace_addr = (uintptr_t)p;
	set_logging(t, false);
}

static void add_small_pages(struct tvm *t)
{
	add_memory(t, MADV_NOHUGEPAGE);
}

static void add_large_pages(struct tvm *t)
{
	add_memory(t, MADV_HUGEPAGE);
}

static void add_logged(struct tvm *t)
{
	add_small_pages(t);
	set_logging(t, true);
}

static void write_all(void)
{
	uint8_t *p;

	for (p = (uint8_t *)MEMORY; p < (uint8_t *)MEMORY + SIZE; p += PAGE_4K)
		*(volatile uint8_t *)p = 1;
}

static uint64_t op_enable(struct tvm *t)
{
	uint64_t ticks;

	set_logging(t, false);
	bench_serve(t);
	slot.flags = KVM_MEM_LOG_DIRTY_PAGES;
	ticks = TIMED_IOCTL(t->fd, KVM_SET_USER_MEMORY_REGION, &slot);
	bench_serve(t);
	get_log(t);
	check_log();
	return ticks;
}
ROW(enable_4k, .label = "enable, a page (mapped as 4K)", .target = 12, .per = PAGES,
    .repeat = REPEAT, .setup = add_small_pages, .serve = write_all, .host = op_enable)
ROW(enable_2m, .label = "enable, a page (mapped as 2M)", .target = 12, .per = PAGES,
    .repeat = REPEAT, .setup = add_large_pages, .serve = write_all, .host = op_enable)

/* One page at a time, mapped and collected before. */
extern uint8_t *next_page;
extern uint64_t write_ticks;
uint8_t *next_page = (uint8_t *)MEMORY;
uint64_t write_ticks;

static void write_one(void)
{
	write_ticks = TIMED("movb $1, (%%rcx)", GUEST_OPS("c"(next_page)));
	next_page += PAGE_4K;
}

static uint64_t op_write(struct tvm *t)
{
	get_log(t);
	bench_serve(t);
	return G(t, write_ticks);
}
ROW(write, .label = "first write to a logged page", .target = 10, .setup = add_logged,
    .prepare = write_all, .serve = write_one, .host = op_write)

static uint64_t op_get(struct tvm *t)
{
	struct kvm_dirty_log log = { .slot = SLOT, .dirty_bitmap = bitmap };
	uint64_t ticks;

	bench_serve(t);
	ticks = TIMED_IOCTL(t->fd, KVM_GET_DIRTY_LOG, &log);
	check_log();
	return ticks;
}
ROW(get, .label = "KVM_GET_DIRTY_LOG, a dirty page", .target = 12, .per = PAGES,
    .repeat = REPEAT, .setup = add_logged, .serve = write_all, .host = op_get)

static void protect_manually(struct tvm *t)
{
	struct kvm_enable_cap cap = {
		.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
		.args[0] = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE,
	};

	ASSERT_OK(ioctl(t->fd, KVM_ENABLE_CAP, &cap));
}

static uint64_t op_clear(struct tvm *t)
{
	struct kvm_clear_dirty_log log = {
		.slot = SLOT, .num_pages = PAGES, .dirty_bitmap = bitmap,
	};
	uint64_t ticks;

	bench_serve(t);
	get_log(t);
	check_log();
	ticks = TIMED_IOCTL(t->fd, KVM_CLEAR_DIRTY_LOG, &log);
	get_log(t);
	ASSERT_EQ(bitmap[0], 0);
	return ticks;
}
ROW(clear, .label = "KVM_CLEAR_DIRTY_LOG, a page", .target = 12, .per = PAGES,
    .repeat = REPEAT, .create = protect_manually, .setup = add_logged,
    .serve = write_all, .host = op_clear)

/* What a round of pre-copy costs in all when the guest writes everything. */
static uint64_t op_cycle(struct tvm *t)
{
	uint64_t start;

	/* Collected before: the first round would map what is not yet mapped. */
	get_log(t);
	start = rdtsc();
	bench_serve(t);
	get_log(t);
	start = rdtsc() - start;
	check_log();
	return start;
}
ROW(cycle, .label = "write all pages, KVM_GET_DIRTY_LOG", .target = 2000000,
    .repeat = REPEAT, .setup = add_logged, .prepare = write_all, .serve = write_all,
    .host = op_cycle)

static struct kvm_dirty_gfn *ring;
static uint32_t ring_next;

static void enable_ring(struct tvm *t)
{
	struct kvm_enable_cap cap = {
		.cap = KVM_CAP_DIRTY_LOG_RING,
		.args[0] = RING_SIZE * sizeof(struct kvm_dirty_gfn),
	};

	ASSERT_OK(ioctl(t->fd, KVM_ENABLE_CAP, &cap));
}

static void add_ring(struct tvm *t)
{
	ring = mmap(NULL, RING_SIZE * sizeof(*ring), PROT_READ | PROT_WRITE, MAP_SHARED,
		    t->cpu, KVM_DIRTY_LOG_PAGE_OFFSET * PAGE_4K);
	ASSERT_NE(ring, MAP_FAILED);
	add_logged(t);
}

static void write_some(void)
{
	uint64_t i;

	for (i = 0; i < RING_PAGES; i++)
		*(volatile uint8_t *)(MEMORY + i * PAGE_4K) = 1;
}

/* Marks what the ring holds as collected; returns how much that was. */
static uint32_t collect_ring(void)
{
	uint32_t nr = 0;

	for (;; nr++) {
		struct kvm_dirty_gfn *entry = &ring[ring_next % RING_SIZE];

		if (__atomic_load_n(&entry->flags, __ATOMIC_ACQUIRE) != KVM_DIRTY_GFN_F_DIRTY)
			return nr;
		__atomic_store_n(&entry->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
		ring_next++;
	}
}

static uint64_t op_ring(struct tvm *t)
{
	uint64_t ticks;

	bench_serve(t);
	ASSERT_EQ(collect_ring(), RING_PAGES);
	ticks = TIMED_IOCTL(t->fd, KVM_RESET_DIRTY_RINGS, 0);
	ASSERT_EQ(ioctl(t->fd, KVM_RESET_DIRTY_RINGS, 0), 0);
	return ticks;
}
ROW(ring, .label = "KVM_RESET_DIRTY_RINGS, an entry", .target = 12, .per = RING_PAGES,
    .repeat = REPEAT, .create = enable_ring, .setup = add_ring, .serve = write_some,
    .host = op_ring)
