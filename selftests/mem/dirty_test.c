// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The dirty log: each page that was written is reported, no other is, and no
 * write is lost whoever makes it and whatever the host does to the page in the
 * meantime. Bitmaps, bitmaps cleared by hand, and rings.
 */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tvm.h"

#define PAGE		4096ul
#define HUGE		(512 * PAGE)
#define BASE		0x10000000ul
#define SLOT		5

#define BAD_PTR		((void *)8)

/* Several tables; the slot begins and ends inside one. */
#define PAGES		1500ul
#define SIZE		(PAGES * PAGE)
#define WORDS		((PAGES + 63) / 64)

struct log {
	uint64_t word[WORDS];
};

static volatile uint64_t first, count, stride;

GUEST(guest_writes_pages)
{
	uint64_t i;

	for (;;) {
		for (i = 0; i < count; i++)
			(*(volatile uint64_t *)(BASE + (first + i * stride) * PAGE))++;
		GUEST_SYNC(1);
	}
}

GUEST(guest_reads_pages)
{
	uint64_t i;

	for (;;) {
		for (i = 0; i < PAGES; i++)
			(void)*(volatile uint64_t *)(BASE + i * PAGE);
		GUEST_SYNC(1);
	}
}

static void guest_writes(struct tvm *t, uint64_t from, uint64_t nr, uint64_t step)
{
	G(t, first) = from;
	G(t, count) = nr;
	G(t, stride) = step;
	EXPECT_EQ(tvm_go(t), 1);
}

static uint8_t *map(size_t size, bool huge)
{
	uint8_t *p = mmap(NULL, size + 2 * HUGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE(p, MAP_FAILED);
	p = (uint8_t *)(((uintptr_t)p + HUGE - 1) & ~(HUGE - 1));
	ASSERT_OK(madvise(p, size + HUGE, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE));
	return p;
}

static void set_logging(struct tvm *t, const uint8_t *mem, bool on)
{
	tvm_set_slot(t, SLOT, on ? KVM_MEM_LOG_DIRTY_PAGES : 0, BASE, SIZE, mem);
}

static struct log get_log(struct tvm *t)
{
	struct log log;
	struct kvm_dirty_log arg = { .slot = SLOT, .dirty_bitmap = &log };

	memset(&log, 0xa5, sizeof(log));
	ASSERT_OK(ioctl(t->fd, KVM_GET_DIRTY_LOG, &arg));
	return log;
}

static int clear_log(struct tvm *t, uint64_t from, uint32_t nr, const void *bitmap)
{
	struct kvm_clear_dirty_log arg = {
		.slot = SLOT, .first_page = from, .num_pages = nr,
		.dirty_bitmap = (void *)(uintptr_t)bitmap,
	};

	return ioctl(t->fd, KVM_CLEAR_DIRTY_LOG, &arg);
}

static bool has(const struct log *log, uint64_t page)
{
	return log->word[page / 64] >> page % 64 & 1;
}

static uint64_t total(const struct log *log)
{
	uint64_t i, n = 0;

	for (i = 0; i < WORDS; i++)
		n += (uint64_t)__builtin_popcountll(log->word[i]);
	return n;
}

/* Exactly the pages from, from + step, ... */
static void expect_log(const struct log *log, uint64_t from, uint64_t nr, uint64_t step)
{
	uint64_t i;

	EXPECT_EQ(total(log), nr);
	for (i = 0; i < nr; i++)
		EXPECT_TRUE(has(log, from + i * step));
}

static void enable_cap(struct tvm *t, uint32_t number, uint64_t arg, int err)
{
	struct kvm_enable_cap cap = { .cap = number, .args[0] = arg };

	if (err)
		EXPECT_ERRNO(ioctl(t->fd, KVM_ENABLE_CAP, &cap), err);
	else
		ASSERT_OK(ioctl(t->fd, KVM_ENABLE_CAP, &cap));
}

TEST(refuses_what_is_not_logged)
{
	uint8_t *mem = map(SIZE, false);
	struct log log;
	struct kvm_dirty_log arg = { .slot = SLOT, .dirty_bitmap = &log };
	struct tvm t;

	tvm_init(&t, &guest_writes_pages);
	EXPECT_ERRNO(ioctl(t.fd, KVM_GET_DIRTY_LOG, &arg), ENOENT);
	set_logging(&t, mem, false);
	EXPECT_ERRNO(ioctl(t.fd, KVM_GET_DIRTY_LOG, &arg), ENOENT);
	EXPECT_ERRNO(clear_log(&t, 0, 64, &log), ENOENT);
	EXPECT_ERRNO(ioctl(t.fd, KVM_GET_DIRTY_LOG, BAD_PTR), EFAULT);
	EXPECT_ERRNO(ioctl(t.fd, KVM_CLEAR_DIRTY_LOG, BAD_PTR), EFAULT);
	if (ioctl(t.fd, KVM_CHECK_EXTENSION, KVM_CAP_DIRTY_LOG_RING))
		EXPECT_ERRNO(ioctl(t.fd, KVM_RESET_DIRTY_RINGS, 0), EINVAL);
	arg.slot = 0xffff;
	EXPECT_ERRNO(ioctl(t.fd, KVM_GET_DIRTY_LOG, &arg), EINVAL);
	arg.slot = 7 << 16 | SLOT;
	EXPECT_ERRNO(ioctl(t.fd, KVM_GET_DIRTY_LOG, &arg), EINVAL);
	set_logging(&t, mem, true);
	log = get_log(&t);
	EXPECT_EQ(total(&log), 0);
	tvm_fini(&t);
}

static void exactly_the_written_pages(bool huge)
{
	uint8_t *mem = map(SIZE, huge);
	struct log log;
	struct tvm t;
	int round;

	tvm_init(&t, &guest_writes_pages);
	memset(mem, 0, SIZE);
	set_logging(&t, mem, false);
	for (round = 0; round < 3; round++) {
		/* What was written before is not reported. */
		guest_writes(&t, 0, PAGES, 1);
		set_logging(&t, mem, true);
		log = get_log(&t);
		EXPECT_EQ(total(&log), 0);
		guest_writes(&t, 3, 20, 71);
		log = get_log(&t);
		expect_log(&log, 3, 20, 71);
		log = get_log(&t);
		EXPECT_EQ(total(&log), 0);
		/* Pages that were written before, and others. */
		guest_writes(&t, 3, 10, 142);
		guest_writes(&t, PAGES - 1, 1, 1);
		log = get_log(&t);
		EXPECT_EQ(total(&log), 11);
		EXPECT_TRUE(has(&log, 3 + 142));
		EXPECT_TRUE(has(&log, PAGES - 1));
		guest_writes(&t, 0, PAGES, 1);
		log = get_log(&t);
		expect_log(&log, 0, PAGES, 1);
		set_logging(&t, mem, false);
	}
	/* And nothing of it has hurt the memory. */
	EXPECT_EQ(*(uint64_t *)mem, 6);
	EXPECT_EQ(*(uint64_t *)(mem + 3 * PAGE), 12);
	tvm_fini(&t);
}

TEST(small_pages_are_reported_exactly)
{
	exactly_the_written_pages(false);
}

TEST(large_pages_are_reported_as_small_ones)
{
	exactly_the_written_pages(true);
}

TEST(pages_mapped_while_logging_are_reported_when_written)
{
	uint8_t *mem = map(SIZE, true);
	struct log log;
	struct tvm t;

	/* Fresh memory: the first touch of it is logged. */
	tvm_init(&t, &guest_reads_pages);
	set_logging(&t, mem, true);
	EXPECT_EQ(tvm_go(&t), 1);
	log = get_log(&t);
	EXPECT_EQ(total(&log), 0);
	tvm_set_code(&t, 0, &guest_writes_pages);
	guest_writes(&t, 700, 5, 100);
	log = get_log(&t);
	expect_log(&log, 700, 5, 100);
	tvm_fini(&t);
}

TEST(a_failed_get_loses_nothing)
{
	struct kvm_dirty_log bad = { .slot = SLOT, .dirty_bitmap = BAD_PTR };
	uint8_t *mem = map(SIZE, false);
	struct log log;
	struct tvm t;

	tvm_init(&t, &guest_writes_pages);
	set_logging(&t, mem, true);
	guest_writes(&t, 0, 100, 7);
	EXPECT_ERRNO(ioctl(t.fd, KVM_GET_DIRTY_LOG, &bad), EFAULT);
	log = get_log(&t);
	/* The reference forgets them. */
	if (!tvm_is_stock())
		expect_log(&log, 0, 100, 7);
	tvm_fini(&t);
}

TEST(pages_that_the_host_takes_away_stay_reported)
{
	uint8_t *mem = map(SIZE, false);
	struct log log;
	struct tvm t;
	pid_t pid;

	tvm_init(&t, &guest_writes_pages);
	set_logging(&t, mem, true);

	guest_writes(&t, 0, PAGES, 1);
	ASSERT_OK(madvise(mem, SIZE, MADV_DONTNEED));
	log = get_log(&t);
	expect_log(&log, 0, PAGES, 1);

	guest_writes(&t, 1, 700, 2);
	pid = fork();
	if (!pid)
		_exit(0);
	ASSERT_EQ(waitpid(pid, NULL, 0), pid);
	log = get_log(&t);
	expect_log(&log, 1, 700, 2);

	/* Gone and back between two looks, and written again. */
	guest_writes(&t, 10, 3, 1);
	ASSERT_OK(mprotect(mem, SIZE, PROT_READ));
	ASSERT_OK(mprotect(mem, SIZE, PROT_READ | PROT_WRITE));
	guest_writes(&t, 12, 3, 1);
	log = get_log(&t);
	expect_log(&log, 10, 5, 1);

	/* A slot that moves keeps its log. */
	guest_writes(&t, 40, 8, 1);
	tvm_set_slot(&t, SLOT, KVM_MEM_LOG_DIRTY_PAGES, 2 * BASE, SIZE, mem);
	log = get_log(&t);
	expect_log(&log, 40, 8, 1);
	tvm_fini(&t);
}

/* No memory is there: each byte read is an exit. */
#define MMIO		0xd0000000ul

GUEST(guest_copies_from_mmio)
{
	uint64_t to = BASE + 77 * PAGE - 2, from = MMIO, n = 4;

	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
	GUEST_DONE();
}

TEST(writes_by_the_kernel_are_reported)
{
	uint8_t *mem = map(SIZE, false);
	unsigned int i, reason;
	struct log log;
	struct tvm t;

	tvm_init(&t, &guest_copies_from_mmio);
	set_logging(&t, mem, true);
	for (i = 0; i < 4; i++) {
		reason = (unsigned int)tvm_run(&t);
		ASSERT_EQ(reason, KVM_EXIT_MMIO);
		EXPECT_EQ(t.run->mmio.phys_addr, MMIO + i);
		memset(t.run->mmio.data, (int)i + 1, 8);
	}
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	EXPECT_MEMEQ(mem + 77 * PAGE - 2, "\1\2\3\4", 4);
	log = get_log(&t);
	expect_log(&log, 76, 2, 1);
	tvm_fini(&t);
}

TEST(manual_protection_reports_until_cleared)
{
	uint8_t *mem = map(SIZE, true);
	struct log log, part = { };
	struct tvm t;

	tvm_init(&t, &guest_writes_pages);
	enable_cap(&t, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 2, EINVAL);
	enable_cap(&t, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 4, EINVAL);
	enable_cap(&t, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 1, 0);
	set_logging(&t, mem, true);

	guest_writes(&t, 0, 1500, 1);
	log = get_log(&t);
	expect_log(&log, 0, 1500, 1);
	log = get_log(&t);
	expect_log(&log, 0, 1500, 1);

	/* Whole words, or up to the end. */
	EXPECT_ERRNO(clear_log(&t, 1, 64, &log), EINVAL);
	EXPECT_ERRNO(clear_log(&t, 64, 63, &log), EINVAL);
	EXPECT_ERRNO(clear_log(&t, 1536, 64, &log), EINVAL);
	EXPECT_ERRNO(clear_log(&t, 1472, 64, &log), EINVAL);
	EXPECT_ERRNO(clear_log(&t, 64, 64, BAD_PTR), EFAULT);
	EXPECT_OK(clear_log(&t, 0, 0, &log));

	part.word[0] = 0xf0;
	EXPECT_OK(clear_log(&t, 512, 64, &part));
	log = get_log(&t);
	EXPECT_EQ(total(&log), 1496);
	EXPECT_FALSE(has(&log, 516));
	EXPECT_TRUE(has(&log, 515));

	memset(&log, 0xff, sizeof(log));
	EXPECT_OK(clear_log(&t, 0, 1500, &log));
	log = get_log(&t);
	EXPECT_EQ(total(&log), 0);

	/* Written after it was reported, then cleared; written after that. */
	guest_writes(&t, 100, 2, 1);
	log = get_log(&t);
	guest_writes(&t, 100, 1, 1);
	EXPECT_OK(clear_log(&t, 0, 1500, &log));
	log = get_log(&t);
	EXPECT_EQ(total(&log), 0);
	guest_writes(&t, 101, 1, 1);
	log = get_log(&t);
	expect_log(&log, 101, 1, 1);
	tvm_fini(&t);
}

TEST(all_pages_may_be_set_at_first)
{
	uint8_t *mem = map(SIZE, true);
	struct log log;
	struct tvm t;

	tvm_init(&t, &guest_writes_pages);
	enable_cap(&t, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 3, 0);
	set_logging(&t, mem, false);
	guest_writes(&t, 0, 1500, 1);
	set_logging(&t, mem, true);
	log = get_log(&t);
	expect_log(&log, 0, 1500, 1);

	/* In the middle of a large page. */
	EXPECT_OK(clear_log(&t, 640, 64, &log));
	log = get_log(&t);
	EXPECT_EQ(total(&log), 1436);
	guest_writes(&t, 642, 1, 1);
	log = get_log(&t);
	EXPECT_EQ(total(&log), 1437);
	EXPECT_TRUE(has(&log, 642));
	EXPECT_TRUE(has(&log, 800));
	EXPECT_OK(clear_log(&t, 0, 1500, &log));
	log = get_log(&t);
	EXPECT_EQ(total(&log), 0);
	guest_writes(&t, 300, 7, 130);
	log = get_log(&t);
	expect_log(&log, 300, 7, 130);
	tvm_fini(&t);
}

/* --- rings ---------------------------------------------------------------- */

/* Of a processor that lists 512 pages by itself, as many are kept free, and 64. */
#define RING_ENTRIES	1024u
#define RING_BYTES	(RING_ENTRIES * sizeof(struct kvm_dirty_gfn))

struct ring {
	volatile struct kvm_dirty_gfn *entry;
	uint32_t next;
};

/* A capability that is not offered is refused; then there is no more to see. */
static bool rings_offered(void)
{
	struct tvm t;
	int max;

	tvm_init_bare(&t, 0);
	max = ioctl(t.fd, KVM_CHECK_EXTENSION, KVM_CAP_DIRTY_LOG_RING);
	EXPECT_GE(max, 0);
	if (!max) {
		enable_cap(&t, KVM_CAP_DIRTY_LOG_RING, RING_BYTES, EINVAL);
		tap_diag("this device has no dirty rings");
	}
	tvm_fini(&t);
	return max > 0;
}

static void ring_init(struct tvm *t, const struct guest_code *code, unsigned int nr,
		      struct ring *rings)
{
	struct kvm_mp_state runnable = { .mp_state = KVM_MP_STATE_RUNNABLE };
	unsigned int i;

	tvm_init_bare(t, nr > 1 ? TVM_IRQCHIP : 0);
	enable_cap(t, KVM_CAP_DIRTY_LOG_RING, RING_BYTES, 0);
	for (i = 0; i < nr; i++) {
		tvm_add_vcpu(t, nr > 1 ? TVM_IRQCHIP : 0);
		tvm_set_code(t, i, code);
		if (i)
			ASSERT_OK(ioctl(t->vcpu[i].fd, KVM_SET_MP_STATE, &runnable));
		rings[i].next = 0;
		rings[i].entry = mmap(NULL, RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
				      t->vcpu[i].fd, KVM_DIRTY_LOG_PAGE_OFFSET * (off_t)PAGE);
		ASSERT_NE(rings[i].entry, MAP_FAILED);
	}
}

/* Take what is there: how many entries; their pages are set in the log. */
static unsigned int harvest(struct ring *r, struct log *log)
{
	unsigned int n = 0;

	for (;; r->next++, n++) {
		volatile struct kvm_dirty_gfn *e = &r->entry[r->next % RING_ENTRIES];

		if (__atomic_load_n(&e->flags, __ATOMIC_ACQUIRE) != KVM_DIRTY_GFN_F_DIRTY)
			return n;
		if (e->slot == SLOT) {
			ASSERT_LT(e->offset, PAGES);
			log->word[e->offset / 64] |= 1ull << e->offset % 64;
		}
		__atomic_store_n(&e->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
	}
}

TEST(rings_must_be_asked_for_in_time_and_size)
{
	struct kvm_dirty_log arg = { .slot = SLOT };
	struct kvm_clear_dirty_log clear = { .slot = SLOT };
	struct tvm t;
	int max;

	if (!rings_offered())
		return;
	tvm_init_bare(&t, 0);
	max = ioctl(t.fd, KVM_CHECK_EXTENSION, KVM_CAP_DIRTY_LOG_RING);
	EXPECT_EQ(max, 65536 * sizeof(struct kvm_dirty_gfn));
	enable_cap(&t, KVM_CAP_DIRTY_LOG_RING, 0, EINVAL);
	enable_cap(&t, KVM_CAP_DIRTY_LOG_RING, RING_BYTES + 16, EINVAL);
	enable_cap(&t, KVM_CAP_DIRTY_LOG_RING, PAGE / 2, EINVAL);
	enable_cap(&t, KVM_CAP_DIRTY_LOG_RING, 2 * (uint64_t)max, E2BIG);
	enable_cap(&t, KVM_CAP_DIRTY_LOG_RING, RING_BYTES, 0);
	enable_cap(&t, KVM_CAP_DIRTY_LOG_RING, RING_BYTES, EINVAL);
	EXPECT_ERRNO(ioctl(t.fd, KVM_GET_DIRTY_LOG, &arg), ENXIO);
	EXPECT_ERRNO(ioctl(t.fd, KVM_CLEAR_DIRTY_LOG, &clear), ENXIO);
	EXPECT_EQ(ioctl(t.fd, KVM_RESET_DIRTY_RINGS, 0), 0);
	tvm_fini(&t);

	tvm_init(&t, &guest_writes_pages);
	enable_cap(&t, KVM_CAP_DIRTY_LOG_RING, RING_BYTES, EINVAL);
	tvm_fini(&t);
}

TEST(a_ring_is_mapped_shared_and_not_executable)
{
	const off_t at = KVM_DIRTY_LOG_PAGE_OFFSET * (off_t)PAGE;
	struct ring r;
	struct tvm t;

	if (!rings_offered())
		return;
	ring_init(&t, &guest_writes_pages, 1, &r);
	EXPECT_EQ(mmap(NULL, RING_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE, t.cpu, at),
		  MAP_FAILED);
	EXPECT_EQ(mmap(NULL, RING_BYTES, PROT_READ | PROT_EXEC, MAP_SHARED, t.cpu, at), MAP_FAILED);
	tvm_fini(&t);
}

static void ring_reports(bool huge)
{
	uint8_t *mem = map(SIZE, huge);
	struct log log = { };
	struct ring r;
	struct tvm t;

	if (!rings_offered())
		return;
	ring_init(&t, &guest_writes_pages, 1, &r);
	memset(mem, 0, SIZE);
	set_logging(&t, mem, false);
	guest_writes(&t, 0, PAGES, 1);
	EXPECT_EQ(harvest(&r, &log), 0);
	set_logging(&t, mem, true);
	guest_writes(&t, 5, 30, 40);
	/* Once each, however often. */
	guest_writes(&t, 5, 30, 40);
	EXPECT_EQ(harvest(&r, &log), 30);
	expect_log(&log, 5, 30, 40);

	/* Until they are reset, the pages are not reported again. */
	guest_writes(&t, 5, 30, 40);
	EXPECT_EQ(harvest(&r, &log), 0);
	EXPECT_EQ(ioctl(t.fd, KVM_RESET_DIRTY_RINGS, 0), 30);
	EXPECT_EQ(ioctl(t.fd, KVM_RESET_DIRTY_RINGS, 0), 0);
	memset(&log, 0, sizeof(log));
	guest_writes(&t, 5, 15, 80);
	EXPECT_EQ(harvest(&r, &log), 15);
	expect_log(&log, 5, 15, 80);
	tvm_fini(&t);
}

TEST(a_ring_reports_small_pages)
{
	ring_reports(false);
}

TEST(a_ring_reports_large_pages)
{
	ring_reports(true);
}

TEST(a_full_ring_stops_the_vcpu_until_it_is_reset)
{
	uint8_t *mem = map(SIZE, false);
	struct log log = { };
	unsigned int n, all = 0;
	struct ring r;
	struct tvm t;

	if (!rings_offered())
		return;
	ring_init(&t, &guest_writes_pages, 1, &r);
	set_logging(&t, mem, true);
	G(&t, first) = 0;
	G(&t, count) = PAGES;
	G(&t, stride) = 1;
	while (tvm_run(&t) == KVM_EXIT_DIRTY_RING_FULL) {
		/* Not before it has room. */
		ASSERT_EQ(tvm_run(&t), KVM_EXIT_DIRTY_RING_FULL);
		n = harvest(&r, &log);
		EXPECT_GT(n, 100);
		EXPECT_LE(n, RING_ENTRIES);
		all += n;
		ASSERT_EQ(ioctl(t.fd, KVM_RESET_DIRTY_RINGS, 0), (int)n);
	}
	EXPECT_EQ(t.run->exit_reason, KVM_EXIT_IO);
	all += harvest(&r, &log);
	/* A page may be reported, reset and reported again for one write. */
	EXPECT_GE(all, PAGES);
	expect_log(&log, 0, PAGES, 1);
	tvm_fini(&t);
}

/* What user space writes into a ring is not believed. */
TEST(hostile_entries_do_no_harm)
{
	uint8_t *mem = map(SIZE, false);
	struct log log = { };
	unsigned int i;
	struct ring r;
	struct tvm t;

	if (!rings_offered())
		return;
	ring_init(&t, &guest_writes_pages, 1, &r);
	set_logging(&t, mem, true);
	for (i = 0; i < RING_ENTRIES; i++) {
		r.entry[i].slot = i * 0x01010101u;
		r.entry[i].offset = ~0ull / (i + 1);
		r.entry[i].flags = KVM_DIRTY_GFN_F_RESET;
	}
	/* Nothing was made, so nothing comes back. */
	if (!tvm_is_stock())
		EXPECT_EQ(ioctl(t.fd, KVM_RESET_DIRTY_RINGS, 0), 0);
	for (i = 0; i < RING_ENTRIES; i++)
		r.entry[i].flags = 0;
	guest_writes(&t, 0, 64, 1);
	for (i = 0; i < 64; i++) {
		r.entry[i].slot = i & 1 ? SLOT : i * 0x01010101u;
		r.entry[i].offset = i & 2 ? ~0ull - i : PAGES + i;
		r.entry[i].flags = KVM_DIRTY_GFN_F_RESET;
	}
	if (!tvm_is_stock())
		EXPECT_EQ(ioctl(t.fd, KVM_RESET_DIRTY_RINGS, 0), 64);
	r.next = 64;
	guest_writes(&t, 100, 10, 1);
	EXPECT_EQ(harvest(&r, &log), 10);
	expect_log(&log, 100, 10, 1);
	tvm_fini(&t);
}

/* --- a migration under load ------------------------------------------------ */

/*
 * Two vCPUs count in pages while the host copies what the log reports and does
 * to the memory what hosts do. When all stop, the copy must be the memory.
 */
enum how { BITMAP, MANUAL, RINGS };

#define ROUNDS		30
#define STEPS		300	/* of each vCPU in a round, at least */

static volatile uint64_t halt, steps[2];
/* Of the host's threads: waits for its ring to be reset; has ended. */
static atomic_bool full[2], ended[2];

GUEST(guest_dirties_at_random)
{
	uint64_t me = guest_cpu()->id, x = 88172645463325252ull + me;

	/* Bochs does not take interrupts of the host from a guest that never allowed its own. */
	sti();
	while (!halt) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		(*(volatile uint64_t *)(BASE + x % PAGES * PAGE + 8 * me))++;
		steps[me]++;
	}
	GUEST_DONE();
}

static void churn(uint8_t *mem, unsigned int round)
{
	uint8_t *at = mem + round * 7919 % (PAGES - 8) * PAGE;
	pid_t pid;

	switch (round % 5) {
	case 0:
		/* All pages are copied on the next write. */
		pid = fork();
		if (!pid)
			_exit(0);
		ASSERT_EQ(waitpid(pid, NULL, 0), pid);
		break;
	case 1:		/* splits a large page of the host */
		ASSERT_OK(mprotect(at, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC));
		ASSERT_OK(mprotect(at, PAGE, PROT_READ | PROT_WRITE));
		break;
	case 2:		/* MADV_COLLAPSE: makes one */
		madvise(mem, SIZE, 25);
		break;
	case 3:
		madvise(at, 8 * PAGE, MADV_PAGEOUT);
		break;
	}
}

static void *run_vcpu(void *arg)
{
	struct tvm_vcpu *v = arg;
	bool is_report;

	while (tvm_run_vcpu(v->vm, v->index) == KVM_EXIT_DIRTY_RING_FULL) {
		full[v->index] = true;
		TVM_AWAIT(!full[v->index]);
	}
	tvm_report(v->vm, v->index, &is_report);
	ASSERT_TRUE(is_report);
	ended[v->index] = true;
	return NULL;
}

/* Protection that comes back too soon would let no write through. */
static void await_steps(struct tvm *t, uint64_t nr)
{
	volatile uint64_t *now = &G(t, steps)[0];
	uint64_t goal[2] = { now[0] + nr, now[1] + nr };
	unsigned int i;

	for (i = 0; i < 2; i++)
		TVM_AWAIT(now[i] >= goal[i] || full[i] || ended[i]);
}

static void copy_dirty(struct tvm *t, enum how how, struct ring *rings,
		       const uint8_t *mem, uint8_t *copy)
{
	struct log log = { };
	uint64_t i;

	if (how == RINGS) {
		harvest(&rings[0], &log);
		harvest(&rings[1], &log);
		ASSERT_OK(ioctl(t->fd, KVM_RESET_DIRTY_RINGS, 0));
		full[0] = full[1] = false;
	} else {
		log = get_log(t);
		if (how == MANUAL)
			ASSERT_OK(clear_log(t, 0, PAGES, &log));
	}
	for (i = 0; i < PAGES; i++)
		if (has(&log, i))
			memcpy(copy + i * PAGE, mem + i * PAGE, 16);
}

static void migrate(enum how how)
{
	uint8_t *mem = map(SIZE, true), *copy = map(SIZE, false);
	struct ring rings[2];
	pthread_t thread[2];
	unsigned int i;
	struct tvm t;

	memset(mem, 0, SIZE);
	memset(copy, 0, SIZE);
	if (how == RINGS) {
		ring_init(&t, &guest_dirties_at_random, 2, rings);
	} else {
		tvm_init_smp(&t, &guest_dirties_at_random, TVM_IRQCHIP, 2);
		if (how == MANUAL)
			enable_cap(&t, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 3, 0);
	}
	set_logging(&t, mem, true);
	for (i = 0; i < 2; i++)
		ASSERT_EQ(pthread_create(&thread[i], NULL, run_vcpu, &t.vcpu[i]), 0);
	for (i = 0; i < ROUNDS; i++) {
		churn(mem, i);
		await_steps(&t, STEPS);
		copy_dirty(&t, how, rings, mem, copy);
	}
	G(&t, halt) = 1;
	while (!ended[0] || !ended[1]) {
		await_steps(&t, 1);
		copy_dirty(&t, how, rings, mem, copy);
	}
	for (i = 0; i < 2; i++)
		ASSERT_EQ(pthread_join(thread[i], NULL), 0);
	copy_dirty(&t, how, rings, mem, copy);
	for (i = 0; i < PAGES; i++)
		ASSERT_MEMEQ(copy + i * PAGE, mem + i * PAGE, 16);
	tvm_fini(&t);
}

TEST_TIMEOUT(no_write_is_lost_with_bitmaps, 90)
{
	migrate(BITMAP);
}

TEST_TIMEOUT(no_write_is_lost_with_manual_protection, 90)
{
	migrate(MANUAL);
}

TEST_TIMEOUT(no_write_is_lost_with_rings, 90)
{
	if (rings_offered())
		migrate(RINGS);
}
