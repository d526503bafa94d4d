// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * CPU features: what KVM_GET_SUPPORTED_CPUID promises a guest can do, and the
 * memory protections that live in CR0, CR4, EFER and the page tables.
 */
#define _GNU_SOURCE
#include <string.h>

#include "tvm.h"

#define HOLE	0x200000000ull

static volatile uint32_t tried;

/* Instructions by the CPUID bit that promises them; ECX of leaf 7, and so on. */
static uint64_t word;
static uint8_t block[64] __attribute__((aligned(64)));

#define FEATURES(X)								\
	X(1, ecx, 0, "haddps %%xmm0, %%xmm0")					\
	X(1, ecx, 1, "pclmulqdq $0, %%xmm0, %%xmm0")				\
	X(1, ecx, 9, "pshufb %%xmm0, %%xmm0")					\
	X(1, ecx, 12, "vfmadd213ps %%ymm0, %%ymm0, %%ymm0")			\
	X(1, ecx, 13, "lock cmpxchg16b block(%%rip)")				\
	X(1, ecx, 19, "dpps $0, %%xmm0, %%xmm0")				\
	X(1, ecx, 20, "crc32 %%r11, %%r11")					\
	X(1, ecx, 22, "movbe word(%%rip), %%r11")				\
	X(1, ecx, 23, "popcnt %%r11, %%r11")					\
	X(1, ecx, 25, "aesenc %%xmm0, %%xmm0")					\
	X(1, ecx, 28, "vaddps %%ymm0, %%ymm0, %%ymm0")				\
	X(1, ecx, 29, "vcvtph2ps %%xmm0, %%ymm0")				\
	X(1, ecx, 30, "rdrand %%r11")						\
	X(1, edx, 19, "clflush block(%%rip)")					\
	X(7, ebx, 0, "rdfsbase %%r11")						\
	X(7, ebx, 3, "andn %%r11, %%r11, %%r11")				\
	X(7, ebx, 5, "vpaddd %%ymm0, %%ymm0, %%ymm0")				\
	X(7, ebx, 8, "pext %%r11, %%r11, %%r11")				\
	X(7, ebx, 18, "rdseed %%r11")						\
	X(7, ebx, 19, "adcx %%r11, %%r11")					\
	X(7, ebx, 20, "clac")							\
	X(7, ebx, 23, "clflushopt block(%%rip)")				\
	X(7, ebx, 24, "clwb block(%%rip)")					\
	X(7, ebx, 29, "sha256msg1 %%xmm0, %%xmm0")				\
	X(7, ecx, 22, "rdpid %%r11")						\
	X(0x80000001, ecx, 0, "lahf")						\
	X(0x80000001, ecx, 5, "lzcnt %%r11, %%r11")				\
	X(0x80000001, ecx, 8, "prefetchw block(%%rip)")			\
	X(0x80000001, edx, 27, "rdtscp")

GUEST(guest_uses_features)
{
	if (cpuid(1, 0).ecx >> 26 & 1) {
		write_cr4(read_cr4() | 1 << 18);
		__asm__ volatile("xsetbv" : : "c"(0), "a"(cpuid(0xd, 0).eax), "d"(0));
		GUEST_TRY("xgetbv", GUEST_OPS(), GUEST_OPS("c"(0)));
	}
	if (cpuid(7, 0).ebx & 1)
		write_cr4(read_cr4() | 1 << 16);
#define TRY_FEATURE(_leaf, _reg, _bit, _insn)					\
	if (cpuid(_leaf, 0)._reg >> (_bit) & 1) {				\
		uint32_t vector, a = 0, b = 0, c = 0, d = 0;			\
										\
		vector = GUEST_TRY(_insn, GUEST_OPS("+a"(a), "+b"(b), "+c"(c), "+d"(d)), \
				   GUEST_OPS("m"(word), "m"(block)));		\
		if (vector != GUEST_NO_FAULT)					\
			guest_fail(_insn, __LINE__, vector, 0);			\
		tried++;							\
	}
	FEATURES(TRY_FEATURE)
	GUEST_TRUE(tried > 10);
}

TEST(promised_instructions_run)
{
	struct tvm t;

	tvm_init(&t, &guest_uses_features);
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tap_diag("%u instructions", G(&t, tried));
	tvm_fini(&t);
}

/*
 * SMEP and SMAP keep the supervisor out of the user's pages. The VMM makes all
 * pages of this guest the supervisor's, but the one at HOLE.
 */
static volatile uint64_t protect;

GUEST(guest_smep_smap)
{
	uint64_t cr4 = read_cr4();

	GUEST_EQ(GUEST_TRY("jmp *%0", , GUEST_OPS("r"(HOLE))), 6);
	GUEST_EQ(GUEST_TRY("mov (%0), %%r11", , GUEST_OPS("r"(HOLE))), GUEST_NO_FAULT);
	if (protect & 1) {
		write_cr4(cr4 | 1 << 20);
		GUEST_EQ(GUEST_TRY("jmp *%0", , GUEST_OPS("r"(HOLE))), 14);
		GUEST_EQ(guest_cpu()->error, 0x11);
	}
	if (protect & 2) {
		write_cr4(cr4 | 1 << 21);
		GUEST_EQ(GUEST_TRY("mov (%0), %%r11", , GUEST_OPS("r"(HOLE))), 14);
		GUEST_EQ(guest_cpu()->error, 1);
		GUEST_EQ(GUEST_TRY("stac; mov (%0), %%r11; clac", , GUEST_OPS("r"(HOLE))),
			 GUEST_NO_FAULT);
	}
	write_cr4(cr4);
	GUEST_EQ(GUEST_TRY("mov (%0), %%r11", , GUEST_OPS("r"(HOLE))), GUEST_NO_FAULT);
}

TEST(smep_and_smap)
{
	const struct kvm_cpuid_entry2 *e = tvm_cpuid(7, 0);
	uint64_t *pd;
	struct tvm t;
	int i;

	tvm_init(&t, &guest_smep_smap);
	G(&t, protect) = (e->ebx >> 7 & 1) | (e->ebx >> 20 & 1) << 1;
	if (!G(&t, protect))
		SKIP("emulator: neither SMEP nor SMAP in CPUID");
	pd = tvm_ptr(&t, GUEST_PD);
	for (i = 0; i < 2048; i++)
		pd[i] &= ~TVM_PTE_U;
	tvm_map(&t, HOLE, 0x90000, TVM_PTE_P | TVM_PTE_W | TVM_PTE_U);
	memcpy(tvm_ptr(&t, 0x90000), "\x0f\x0b", 2);		/* UD2 */
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);
}

/* CR0.WP, and accessed and dirty bits in the guest's page tables. */
static volatile uint64_t pte_addr;

GUEST(guest_write_protection)
{
	volatile uint64_t *pte = (volatile uint64_t *)pte_addr;

	GUEST_EQ(*pte & 0x60, 0);
	(void)*(volatile uint8_t *)HOLE;
	GUEST_EQ(*pte & 0x60, 0x20);
	GUEST_EQ(GUEST_TRY("movb $1, (%0)", , GUEST_OPS("r"(HOLE))), 14);
	GUEST_EQ(*pte & 0x60, 0x20);
	write_cr0(read_cr0() & ~0x10000ul);
	GUEST_EQ(GUEST_TRY("movb $1, (%0)", , GUEST_OPS("r"(HOLE))), GUEST_NO_FAULT);
	GUEST_EQ(*pte & 0x60, 0x60);
	write_cr0(read_cr0() | 0x10000ul);
	GUEST_EQ(GUEST_TRY("movb $1, (%0)", , GUEST_OPS("r"(HOLE))), 14);

	/* Another frame behind the same address, by INVLPG and by CR3. */
	*pte = 0x91000 | 3;
	__asm__ volatile("invlpg (%0)" : : "r"(HOLE) : "memory");
	GUEST_EQ(*(volatile uint8_t *)HOLE, 0x91);
	*pte = 0x92000 | 3;
	write_cr3(read_cr3());
	GUEST_EQ(*(volatile uint8_t *)HOLE, 0x92);
	/* A global page survives CR3, and goes with CR4.PGE. */
	write_cr4(read_cr4() | 0x80);
	*pte = 0x91000 | 0x103;
	write_cr4(read_cr4() & ~0x80ul);
	GUEST_EQ(*(volatile uint8_t *)HOLE, 0x91);
	/* A reserved bit of the guest's table is the guest's fault. */
	*pte = 0x91000 | 3 | 1ull << 51;
	__asm__ volatile("invlpg (%0)" : : "r"(HOLE) : "memory");
	GUEST_EQ(GUEST_TRY("mov (%0), %%r11", , GUEST_OPS("r"(HOLE))), 14);
	GUEST_EQ(guest_cpu()->error & ~1ul, 8);	/* TCG forgets the present bit */
}

TEST(page_protection_and_tlb)
{
	uint64_t *pte;
	struct tvm t;

	tvm_init(&t, &guest_write_protection);
	pte = tvm_map(&t, HOLE, 0x90000, TVM_PTE_P);
	G(&t, pte_addr) = (uint64_t)((uint8_t *)pte - t.ram);
	memset(tvm_ptr(&t, 0x91000), 0x91, 4096);
	memset(tvm_ptr(&t, 0x92000), 0x92, 4096);
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);
}

/* Each vCPU has its own translations, though both run on one processor. */
GUEST(guest_own_translation)
{
	uint32_t i;

	for (i = 0; i < 200; i++) {
		GUEST_EQ(*(volatile uint8_t *)HOLE, 0x91 + guest_cpu()->id);
		GUEST_SYNC(1);
	}
}

TEST(vcpus_do_not_share_translations)
{
	struct kvm_sregs s;
	uint64_t *top;
	struct tvm t;
	int i;

	tvm_init_smp(&t, &guest_own_translation, TVM_IRQCHIP, 2);
	memset(tvm_ptr(&t, 0x91000), 0x91, 4096);
	memset(tvm_ptr(&t, 0x92000), 0x92, 4096);
	/* The second vCPU has another top level, and other tables below. */
	top = tvm_ptr(&t, GUEST_POOL_END);
	memcpy(top, tvm_ptr(&t, GUEST_PML4), 4096);
	memcpy((uint8_t *)top + 4096, tvm_ptr(&t, GUEST_PDPT), 4096);
	tvm_map(&t, HOLE, 0x91000, TVM_PTE_P);
	top[0] = (GUEST_POOL_END + 4096) | 7;
	s = tvm_sregs(&t, 1);
	s.cr3 = GUEST_POOL_END;
	tvm_set_sregs(&t, 1, &s);
	top[512 + (HOLE >> 30)] = (GUEST_POOL_END + 2 * 4096) | 7;
	top[2 * 512] = (GUEST_POOL_END + 3 * 4096) | 7;
	top[3 * 512] = 0x92000 | 1;
	for (i = 0; i < 200; i++) {
		EXPECT_EQ(tvm_go_vcpu(&t, 0), 1);
		EXPECT_EQ(tvm_go_vcpu(&t, 1), 1);
	}
	EXPECT_EQ(tvm_go_vcpu(&t, 0), TVM_DONE);
	EXPECT_EQ(tvm_go_vcpu(&t, 1), TVM_DONE);
	tvm_fini(&t);
}
