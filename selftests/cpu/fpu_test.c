// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * FPU state belongs to who loaded it: two guests and the VMM each keep theirs,
 * whether they alternate in one thread or are preempted in two.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <string.h>

#include "tvm.h"

#define ROUNDS	100

static volatile uint64_t pattern;
static volatile uint64_t rounds;

/* All sixteen registers, their upper halves if use_avx, x87 and MXCSR. */
static volatile uint32_t use_avx;

#define FOR_ALL(_f) \
	_f(0) _f(1) _f(2) _f(3) _f(4) _f(5) _f(6) _f(7) \
	_f(8) _f(9) _f(10) _f(11) _f(12) _f(13) _f(14) _f(15)

#define LOAD_SSE(_n)	"add $" #_n ", %0\n\tmovq %0, %%xmm" #_n \
			"\n\tpunpcklqdq %%xmm" #_n ", %%xmm" #_n "\n\t"
#define LOAD_AVX(_n)	"vinsertf128 $1, %%xmm" #_n ", %%ymm" #_n ", %%ymm" #_n "\n\t"
#define SAVE_SSE(_n)	"movdqu %%xmm" #_n ", 16*" #_n "(%0)\n\t"
#define SAVE_AVX(_n)	"vextractf128 $1, %%ymm" #_n ", 256+16*" #_n "(%0)\n\t"

static inline __attribute__((always_inline)) void load(uint64_t val, bool avx)
{
	uint32_t mxcsr = 0x1f80 | (uint32_t)(val & 3) << 13;

	__asm__ volatile(FOR_ALL(LOAD_SSE) : "+r"(val) : :
			 "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
			 "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
	if (avx)
		__asm__ volatile(FOR_ALL(LOAD_AVX) : : : "memory");
	__asm__ volatile("ldmxcsr %0\n\tfninit\n\tfildll %1" : : "m"(mxcsr), "m"(val));
}

/* The first register that is wrong, or -1. */
static inline __attribute__((always_inline)) int check(uint64_t val, bool avx)
{
	uint64_t regs[64], x87;
	uint32_t mxcsr, i;

	__asm__ volatile(FOR_ALL(SAVE_SSE) : : "r"(regs) : "memory");
	if (avx)
		__asm__ volatile(FOR_ALL(SAVE_AVX) : : "r"(regs) : "memory");
	__asm__ volatile("stmxcsr %0\n\tfistpll %1" : "=m"(mxcsr), "=m"(x87));
	if ((mxcsr & 0x6000) != (uint32_t)(val & 3) << 13)
		return 100;
	for (i = 0; i < 16; i++) {
		val += i;
		if (regs[2 * i] != val || regs[2 * i + 1] != val)
			return (int)i;
		if (avx && (regs[32 + 2 * i] != val || regs[33 + 2 * i] != val))
			return 16 + (int)i;
	}
	return x87 == val ? -1 : 101;
}

GUEST(guest_keeps_fpu)
{
	bool avx = use_avx;

	if (avx) {
		write_cr4(read_cr4() | 1 << 18);
		__asm__ volatile("xsetbv" : : "c"(0), "a"(7), "d"(0));
	}
	for (;;) {
		int wrong;

		load(pattern + rounds, avx);
		/* A report could use an XMM register. */
		outb(0x80, 1);
		cpuid(0, 0);
		wrong = check(pattern + rounds, avx);
		if (wrong >= 0)
			guest_fail("FPU register", __LINE__, (uint64_t)wrong, rounds);
		rounds++;
	}
}

static bool has_avx(void)
{
	return tvm_cpuid(1, 0)->ecx >> 28 & 1;
}

static void start(struct tvm *t, uint64_t val)
{
	tvm_init(t, &guest_keeps_fpu);
	G(t, pattern) = val;
	G(t, use_avx) = has_avx();
}

TEST(two_guests_and_the_vmm_in_one_thread)
{
	const bool avx = has_avx();
	struct tvm a, b;
	int i;

	start(&a, 0xaaaa000000000000);
	start(&b, 0x5555000000000001);
	for (i = 0; i < ROUNDS; i++) {
		int wrong;

		load(0x123400000000 + (uint64_t)i, avx);
		/* No function call that could use a register. */
		while (ioctl(a.cpu, KVM_RUN, 0))
			;
		while (ioctl(b.cpu, KVM_RUN, 0))
			;
		wrong = check(0x123400000000 + (uint64_t)i, avx);
		EXPECT_EQ(wrong, -1);
		tvm_report(&a, 0, &(bool){ false });
		tvm_report(&b, 0, &(bool){ false });
	}
	EXPECT_EQ(G(&a, rounds), ROUNDS - 1);
	EXPECT_EQ(G(&b, rounds), ROUNDS - 1);
	tvm_fini(&a);
	tvm_fini(&b);
}

/* No exit but the scheduler's: all threads share one CPU. */
GUEST(guest_spins_on_fpu)
{
	bool avx = use_avx;

	if (avx) {
		write_cr4(read_cr4() | 1 << 18);
		__asm__ volatile("xsetbv" : : "c"(0), "a"(7), "d"(0));
	}
	/* Bochs does not take interrupts of the host from a guest that never allowed its own. */
	sti();
	for (;;) {
		uint32_t i;
		int wrong;

		load(pattern + rounds, avx);
		for (i = 0; i < 5000; i++)
			__asm__ volatile("pause");
		wrong = check(pattern + rounds, avx);
		if (wrong >= 0)
			guest_fail("FPU register", __LINE__, (uint64_t)wrong, rounds);
		rounds++;
	}
}

TEST(preempted_threads_keep_their_fpu)
{
	const bool avx = has_avx();
	volatile uint64_t *ra, *rb;
	cpu_set_t one;
	struct tvm a, b;
	uint64_t i;

	CPU_ZERO(&one);
	CPU_SET(0, &one);
	ASSERT_OK(sched_setaffinity(0, sizeof(one), &one));
	tvm_init(&a, &guest_spins_on_fpu);
	tvm_init(&b, &guest_spins_on_fpu);
	G(&a, pattern) = 0xaaaa000000000000;
	G(&b, pattern) = 0x5555000000000001;
	G(&a, use_avx) = G(&b, use_avx) = avx;
	ra = &G(&a, rounds);
	rb = &G(&b, rounds);
	tvm_start(&a, 0);
	tvm_start(&b, 0);
	for (i = 0; *ra < 100 || *rb < 100; i++) {
		uint32_t spin;

		load(i, avx);
		for (spin = 0; spin < 50000; spin++)
			cpu_relax();
		EXPECT_EQ(check(i, avx), -1);
		sched_yield();
	}
	tvm_stop(&a, 0);
	tvm_stop(&b, 0);
	tvm_fini(&a);
	tvm_fini(&b);
}

/* A fresh vCPU sees the state of a reset, not what ran before it. */
GUEST(guest_reads_fresh_fpu)
{
	static uint8_t fx[512] __attribute__((aligned(16)));
	uint32_t i;

	__asm__ volatile("fxsave %0" : "=m"(fx));
	for (i = 160; i < 416; i++)
		GUEST_EQ(fx[i], 0);
	GUEST_EQ(*(uint16_t *)fx, 0x37f);
	GUEST_EQ(*(uint32_t *)(fx + 24), 0x1f80);
}

TEST(fresh_vcpu_has_no_leftovers)
{
	struct tvm a, b;

	start(&a, 0xaaaa000000000000);
	EXPECT_EQ(tvm_run(&a), KVM_EXIT_IO);
	load(0x77, has_avx());
	tvm_init(&b, &guest_reads_fresh_fpu);
	EXPECT_EQ(tvm_go(&b), TVM_DONE);
	tvm_fini(&a);
	tvm_fini(&b);
}
