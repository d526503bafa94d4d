// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Time: the TSC of a guest, its frequency, its agreement between vCPUs and
 * with what the VMM sets; kvmclock and KVM_GET_CLOCK.
 */
#define _GNU_SOURCE
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tvm.h"

#define BAD_PTR	((void *)8)

#define MSR_KVM_WALL_CLOCK	0x4b564d00
#define MSR_KVM_SYSTEM_TIME	0x4b564d01

static volatile uint64_t stamp;

GUEST(guest_stamps)
{
	for (;;) {
		stamp = rdtsc();
		GUEST_SYNC(1);
	}
}

TEST(tsc_frequency)
{
	struct tvm t;
	long khz;

	tvm_init(&t, &guest_stamps);
	khz = ioctl(t.cpu, KVM_GET_TSC_KHZ, 0);
	EXPECT_GT(khz, 1000);
	EXPECT_OK(ioctl(t.cpu, KVM_SET_TSC_KHZ, khz));
	EXPECT_EQ(ioctl(t.cpu, KVM_GET_TSC_KHZ, 0), khz);
	/* No scaling on this processor: another frequency cannot be had. */
	if (!ioctl(t.fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_CONTROL))
		EXPECT_ERRNO(ioctl(t.cpu, KVM_SET_TSC_KHZ, khz / 2), EINVAL);
	if (!tvm_is_stock()) {
		EXPECT_ERRNO(ioctl(t.cpu, KVM_SET_TSC_KHZ, 1), EINVAL);
		EXPECT_ERRNO(ioctl(t.cpu, KVM_SET_TSC_KHZ, 1ul << 40), EINVAL);
		EXPECT_EQ(ioctl(t.cpu, KVM_GET_TSC_KHZ, 0), khz);
	}
	tvm_fini(&t);
}

/* -- another rate ----------------------------------------------------------- */

/* A rate of mul / div of the machine's, for all vCPUs; the guest's kHz. */
static long set_rate(struct tvm *t, long mul, long div)
{
	long khz = ioctl(t->cpu, KVM_GET_TSC_KHZ, 0) * mul / div;
	unsigned int i;

	if (!ioctl(t->fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_CONTROL))
		SKIP("emulator: no TSC scaling");
	for (i = 0; i < t->nr_vcpus; i++) {
		ASSERT_OK(ioctl(t->vcpu[i].fd, KVM_SET_TSC_KHZ, khz));
		EXPECT_EQ(ioctl(t->vcpu[i].fd, KVM_GET_TSC_KHZ, 0), khz);
	}
	return khz;
}

static const struct { long mul, div; } rates[] = { { 2, 1 }, { 1, 3 }, { 7, 5 } };

TEST(tsc_at_another_rate)
{
	uint64_t host, guest, start;
	struct tvm t;
	size_t i;

	for (i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
		tvm_init(&t, &guest_stamps);
		set_rate(&t, rates[i].mul, rates[i].div);
		start = rdtsc();
		guest = tvm_msr(&t, 0, MSR_TSC);
		/* Fresh still. (On the reference it jumps with the rate.) */
		if (!tvm_is_stock())
			EXPECT_LT(guest, start * rates[i].mul / rates[i].div / 2);
		do {
			uint64_t before = tvm_msr(&t, 0, MSR_TSC);

			EXPECT_EQ(tvm_go(&t), 1);
			EXPECT_GE(G(&t, stamp), before);
			EXPECT_LE(G(&t, stamp), tvm_msr(&t, 0, MSR_TSC));
			host = rdtsc() - start;
		} while (host < 5000000);
		guest = tvm_msr(&t, 0, MSR_TSC) - guest;
		host = host * rates[i].mul / rates[i].div;
		EXPECT_GT(guest, host - host / 20);
		EXPECT_LT(guest, host + host / 20);
		/* What the VMM writes is in the guest's ticks. */
		EXPECT_EQ(tvm_set_msr(&t, 0, MSR_TSC, 1ull << 50), 1);
		EXPECT_EQ(tvm_go(&t), 1);
		EXPECT_GE(G(&t, stamp), 1ull << 50);
		EXPECT_LT(G(&t, stamp), (1ull << 50) + (1ull << 45));
		/* And back to the machine's. */
		EXPECT_OK(ioctl(t.cpu, KVM_SET_TSC_KHZ, 0));
		tvm_fini(&t);
	}
}

static volatile uint64_t guest_khz;

GUEST(guest_waits_for_deadlines)
{
	uint32_t i;

	guest_handlers[0x60] = guest_eoi_handler;
	guest_x2apic = true;
	apic_enable();
	apic_write(APIC_LVTT, 0x60 | APIC_LVT_DEADLINE);
	for (i = 1; i <= 10; i++) {
		uint64_t when = rdtsc() + 5 * guest_khz;

		wrmsr(MSR_TSC_DEADLINE, when);
		while (guest_cpu()->irqs[0x60] < i) {
			sti_hlt();
			cli();
		}
		GUEST_TRUE(rdtsc() >= when);
	}
}

TEST(deadlines_at_another_rate)
{
	struct timespec start, end;
	struct tvm t;
	size_t i;
	long ms;

	for (i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
		tvm_init_smp(&t, &guest_waits_for_deadlines, TVM_IRQCHIP, 1);
		G(&t, guest_khz) = (uint64_t)set_rate(&t, rates[i].mul, rates[i].div);
		clock_gettime(CLOCK_MONOTONIC, &start);
		EXPECT_EQ(tvm_go(&t), TVM_DONE);
		clock_gettime(CLOCK_MONOTONIC, &end);
		ms = (end.tv_sec - start.tv_sec) * 1000 + (end.tv_nsec - start.tv_nsec) / 1000000;
		EXPECT_GE(ms, 49);
		EXPECT_LT(ms, 90);
		tvm_fini(&t);
	}
}

TEST(tsc_follows_what_the_vmm_writes)
{
	const uint64_t far = 1ull << 50;
	uint64_t first, host;
	struct tvm t;

	tvm_init(&t, &guest_stamps);
	EXPECT_EQ(tvm_go(&t), 1);
	first = G(&t, stamp);
	host = tvm_msr(&t, 0, MSR_TSC);
	EXPECT_GE(host, first);
	EXPECT_EQ(tvm_go(&t), 1);
	EXPECT_GE(G(&t, stamp), host);
	/* Not the outer machine's: a fresh vCPU starts near zero. */
	EXPECT_LT(first, rdtsc());

	EXPECT_EQ(tvm_set_msr(&t, 0, MSR_TSC, far), 1);
	EXPECT_EQ(tvm_go(&t), 1);
	EXPECT_GE(G(&t, stamp), far);
	EXPECT_LT(G(&t, stamp), far + (1ull << 45));
	tvm_fini(&t);
}

GUEST(guest_writes_tsc)
{
	uint64_t before, adjust;

	wrmsr(MSR_TSC, 1ull << 48);
	before = rdtsc();
	GUEST_TRUE(before >= 1ull << 48);
	GUEST_TRUE(rdmsr(MSR_TSC) >= before);
	adjust = rdmsr(MSR_TSC_ADJUST);
	GUEST_TRUE(adjust > 1ull << 47);
	wrmsr(MSR_TSC_ADJUST, adjust + (1ull << 40));
	GUEST_TRUE(rdtsc() >= (1ull << 48) + (1ull << 40));
	GUEST_EQ(rdmsr(MSR_TSC_ADJUST), adjust + (1ull << 40));
}

TEST(guest_writes_tsc_and_tsc_adjust)
{
	struct tvm t;

	if (!(tvm_cpuid(7, 0)->ebx & 2))
		SKIP("emulator: no TSC_ADJUST in CPUID");
	tvm_init(&t, &guest_writes_tsc);
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);
}

/* Each vCPU takes the lock, reads its TSC, and must not be behind the last. */
#define ROUNDS	2000

static volatile uint32_t lock, arrived;
static volatile uint64_t last, total;

GUEST(guest_compares_tscs)
{
	uint32_t one, i;

	/* Bochs does not take interrupts of the host from a guest that never allowed its own. */
	sti();
	__atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST);
	while (arrived < 2)
		cpu_relax();
	for (i = 0; i < ROUNDS; i++) {
		uint64_t now;

		do {
			one = __atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE);
		} while (one);
		now = rdtsc();
		GUEST_TRUE(now >= last);
		last = now;
		total++;
		__atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
	}
}

TEST(tsc_is_monotonic_across_vcpus)
{
	struct tvm t;

	tvm_init_smp(&t, &guest_compares_tscs, TVM_IRQCHIP, 2);
	tvm_start_all(&t);
	tvm_join_all(&t);
	EXPECT_EQ(G(&t, total), 2 * ROUNDS);
	tvm_fini(&t);
}

/* The same after the VMM wrote the same value to both, as it does at start. */
TEST(tsc_written_alike_stays_monotonic)
{
	struct tvm t;

	tvm_init_smp(&t, &guest_compares_tscs, TVM_IRQCHIP, 2);
	EXPECT_EQ(tvm_set_msr(&t, 0, MSR_TSC, 0), 1);
	EXPECT_EQ(tvm_set_msr(&t, 1, MSR_TSC, 0), 1);
	tvm_start_all(&t);
	tvm_join_all(&t);
	EXPECT_EQ(G(&t, total), 2 * ROUNDS);
	tvm_fini(&t);
}

TEST(tscs_at_another_rate_stay_monotonic)
{
	struct tvm t;

	tvm_init_smp(&t, &guest_compares_tscs, TVM_IRQCHIP, 2);
	set_rate(&t, 3, 2);
	tvm_start_all(&t);
	tvm_join_all(&t);
	EXPECT_EQ(G(&t, total), 2 * ROUNDS);
	tvm_fini(&t);
}

/* The page that kvmclock fills in, by the kernel's ABI (pvclock-abi.h). */
struct pvclock {
	volatile uint32_t version;
	uint32_t pad;
	volatile uint64_t tsc;
	volatile uint64_t system_time;
	volatile uint32_t mul;
	volatile int8_t shift;
	volatile uint8_t flags;
	uint8_t pad2[2];
} __attribute__((packed, aligned(4)));

static struct pvclock pages[2] __attribute__((aligned(64)));
static volatile uint64_t guest_ns;

static uint64_t pvclock_ns(const struct pvclock *p)
{
	uint32_t version;
	uint64_t ns;

	do {
		uint64_t delta;

		version = p->version;
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		delta = rdtsc() - p->tsc;
		delta = p->shift >= 0 ? delta << p->shift : delta >> -p->shift;
		ns = p->system_time + (uint64_t)((unsigned __int128)delta * p->mul >> 32);
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
	} while ((version & 1) || version != p->version);
	return ns;
}

GUEST(guest_reads_kvmclock)
{
	wrmsr(MSR_KVM_SYSTEM_TIME, (uintptr_t)&pages[0] | 1);
	GUEST_EQ(rdmsr(MSR_KVM_SYSTEM_TIME), (uintptr_t)&pages[0] | 1);
	for (;;) {
		GUEST_TRUE(pages[0].version != 0);
		GUEST_TRUE(pages[0].mul != 0);
		guest_ns = pvclock_ns(&pages[0]);
		GUEST_SYNC(pages[0].flags & 1 ? 1 : 2);
	}
}

static void check_kvmclock(long mul, long div)
{
	struct kvm_clock_data before, after, set;
	uint64_t stable;
	struct tvm t;

	tvm_init(&t, &guest_reads_kvmclock);
	if (mul != div)
		set_rate(&t, mul, div);
	EXPECT_OK(ioctl(t.fd, KVM_GET_CLOCK, &before));
	stable = tvm_go(&t);
	EXPECT_OK(ioctl(t.fd, KVM_GET_CLOCK, &after));
	EXPECT_EQ(stable, 1);
	EXPECT_GE(G(&t, guest_ns) + 1000000, before.clock);
	EXPECT_LE(G(&t, guest_ns), after.clock + 1000000);

	/* Set far ahead, as after a migration: the guest follows. */
	memset(&set, 0, sizeof(set));
	set.clock = after.clock + 1000000000000;
	EXPECT_OK(ioctl(t.fd, KVM_SET_CLOCK, &set));
	EXPECT_EQ(tvm_go(&t), 1);
	EXPECT_GE(G(&t, guest_ns), set.clock);
	EXPECT_LT(G(&t, guest_ns), set.clock + 600000000000);
	tvm_fini(&t);
}

TEST(kvmclock_agrees_with_get_clock)
{
	check_kvmclock(1, 1);
}

TEST(kvmclock_agrees_at_another_rate)
{
	size_t i;

	for (i = 0; i < sizeof(rates) / sizeof(rates[0]); i++)
		check_kvmclock(rates[i].mul, rates[i].div);
}

TEST(clock_errors)
{
	struct kvm_clock_data clock = { .flags = 0x8000 };
	struct tvm t;

	tvm_init(&t, &guest_reads_kvmclock);
	EXPECT_ERRNO(ioctl(t.fd, KVM_GET_CLOCK, BAD_PTR), EFAULT);
	EXPECT_ERRNO(ioctl(t.fd, KVM_SET_CLOCK, BAD_PTR), EFAULT);
	EXPECT_ERRNO(ioctl(t.fd, KVM_SET_CLOCK, &clock), EINVAL);
	/* There is no kvmclock to tell about the pause yet; then there is. */
	EXPECT_ERRNO(ioctl(t.cpu, KVM_KVMCLOCK_CTRL, 0), EINVAL);
	EXPECT_EQ(tvm_go(&t), 1);
	EXPECT_OK(ioctl(t.cpu, KVM_KVMCLOCK_CTRL, 0));
	EXPECT_EQ(tvm_go(&t), 1);
	EXPECT_EQ(G(&t, pages)[0].flags & 2, 2);
	tvm_fini(&t);
}

GUEST(guest_compares_kvmclocks)
{
	struct pvclock *mine = &pages[guest_cpu()->id];
	uint32_t i;

	sti();
	wrmsr(MSR_KVM_SYSTEM_TIME, (uintptr_t)mine | 1);
	__atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST);
	while (arrived < 2)
		cpu_relax();
	for (i = 0; i < ROUNDS; i++) {
		uint64_t now;

		while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE))
			;
		now = pvclock_ns(mine);
		GUEST_TRUE(now >= last);
		last = now;
		total++;
		__atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
	}
}

TEST(kvmclock_is_monotonic_across_vcpus)
{
	struct tvm t;

	tvm_init_smp(&t, &guest_compares_kvmclocks, TVM_IRQCHIP, 2);
	tvm_start_all(&t);
	tvm_join_all(&t);
	EXPECT_EQ(G(&t, total), 2 * ROUNDS);
	tvm_fini(&t);
}

/* Seconds and nanoseconds of the wall clock at the VM's boot. */
static struct {
	volatile uint32_t version, sec, nsec;
} wall __attribute__((aligned(64)));

GUEST(guest_reads_wall_clock)
{
	wrmsr(MSR_KVM_WALL_CLOCK, (uintptr_t)&wall);
	GUEST_TRUE(wall.version && !(wall.version & 1));
	GUEST_TRUE(wall.nsec < 1000000000);
}

TEST(wall_clock)
{
	struct timespec now;
	struct tvm t;

	tvm_init(&t, &guest_reads_wall_clock);
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	clock_gettime(CLOCK_REALTIME, &now);
	EXPECT_LE(G(&t, wall).sec, now.tv_sec);
	EXPECT_GE(G(&t, wall).sec + 600, now.tv_sec);
	tvm_fini(&t);
}

/* -- the record of stolen time, by the kernel's ABI (kvm_para.h) ------------- */

#define MSR_KVM_STEAL_TIME	0x4b564d03
#define PREEMPTED		0x1
#define FLUSH_TLB		0x2

static struct {
	volatile uint64_t steal;
	volatile uint32_t version, flags;
	volatile uint8_t preempted;
	uint8_t pad[47];
} steal __attribute__((aligned(64)));

#define WINDOW	0x8000000000ul	/* mapped here and there */

GUEST(guest_sleeps_preempted)
{
	volatile uint64_t *window = (volatile uint64_t *)WINDOW;

	guest_handlers[2] = guest_count_handler;
	wrmsr(MSR_KVM_STEAL_TIME, (uintptr_t)&steal | 1);
	GUEST_TRUE(steal.version != 0 && !(steal.version & 1));
	GUEST_EQ(steal.preempted, 0);
	GUEST_EQ(*window, 1);
	hlt();
	GUEST_EQ(steal.preempted, 0);
	GUEST_EQ(*window, 2);
}

/*
 * A vCPU that does not run says so; another one may ask for a flush of its TLB
 * instead of interrupting it.
 */
TEST(preempted_flag_and_tlb_flush)
{
	uint64_t *pte;
	struct tvm t;

	ASSERT_TRUE(tvm_cpuid(0x40000001, 0)->eax & 1 << 9);
	/* Linux 6.1 has an exception for those that execute HLT. */
	if (tvm_is_stock())
		return;
	tvm_init_smp(&t, &guest_sleeps_preempted, TVM_IRQCHIP, 1);
	*(uint64_t *)tvm_ptr(&t, 0x700000) = 1;
	*(uint64_t *)tvm_ptr(&t, 0x701000) = 2;
	pte = tvm_map(&t, WINDOW, 0x700000, TVM_PTE_P | TVM_PTE_W);
	tvm_start(&t, 0);
	TVM_AWAIT(G(&t, steal).preempted == PREEMPTED);
	*pte += 0x1000;
	G(&t, steal).preempted = PREEMPTED | FLUSH_TLB;
	ASSERT_OK(ioctl(t.cpu, KVM_NMI, 0));
	tvm_join(&t, 0);
	EXPECT_EQ(G(&t, steal).preempted, 0);
	tvm_fini(&t);
}

/* The guest's TSC less the machine's: what a migration carries. */
TEST(tsc_offset_attribute)
{
	struct kvm_device_attr attr = { .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET };
	uint64_t offset = 0, before, after;
	struct tvm t;

	tvm_init(&t, &guest_stamps);
	attr.addr = (uintptr_t)&offset;
	EXPECT_OK(ioctl(t.cpu, KVM_HAS_DEVICE_ATTR, &attr));
	EXPECT_OK(ioctl(t.cpu, KVM_GET_DEVICE_ATTR, &attr));
	before = rdtsc();
	EXPECT_EQ(tvm_go(&t), 1);
	after = rdtsc();
	EXPECT_GE(G(&t, stamp), before + offset);
	EXPECT_LE(G(&t, stamp), after + offset);

	offset += 1ull << 50;
	EXPECT_OK(ioctl(t.cpu, KVM_SET_DEVICE_ATTR, &attr));
	before = rdtsc();
	EXPECT_EQ(tvm_go(&t), 1);
	EXPECT_GE(G(&t, stamp), before + offset);
	offset = 0;
	EXPECT_OK(ioctl(t.cpu, KVM_GET_DEVICE_ATTR, &attr));
	EXPECT_GT(offset, 1ull << 49);

	attr.addr = 8;
	EXPECT_ERRNO(ioctl(t.cpu, KVM_GET_DEVICE_ATTR, &attr), EFAULT);
	EXPECT_ERRNO(ioctl(t.cpu, KVM_SET_DEVICE_ATTR, &attr), EFAULT);
	attr.attr = 77;
	EXPECT_ERRNO(ioctl(t.cpu, KVM_HAS_DEVICE_ATTR, &attr), ENXIO);
	EXPECT_ERRNO(ioctl(t.cpu, KVM_GET_DEVICE_ATTR, &attr), ENXIO);
	EXPECT_ERRNO(ioctl(t.cpu, KVM_SET_DEVICE_ATTR, &attr), ENXIO);
	tvm_fini(&t);
}
