// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Finding the instruction that exited: it is decoded from the bytes that the
 * guest executes, whatever became of its page, its page tables, or the memory
 * behind them since the last exit. A CPUID with a prefix, or without, shows it:
 * taken for the other one, the guest goes on in the middle of an instruction.
 */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>

#include "tvm.h"

#define CODE	0x8000000000ul		/* where the guest calls; nothing else is near */
#define PAGE_A	0x52000ul
#define PAGE_B	0x53000ul
#define TABLE	0x54000ul		/* other page tables */
#define OFFSET	0x100
#define RIGHTS	(TVM_PTE_P | TVM_PTE_W)
#define ROUNDS	20

/* push rbx; cpuid, with a prefix in B; pop rbx; mov eax, 'A' or 'B'; ret */
static const uint8_t code_a[] = { 0x53, 0x0f, 0xa2, 0x5b, 0xb8, 'A', 0, 0, 0, 0xc3 };
static const uint8_t code_b[] = { 0x53, 0x3e, 0x0f, 0xa2, 0x5b, 0xb8, 'B', 0, 0, 0, 0xc3 };

static volatile struct {
	uint64_t cr3;		/* to load before the call, or 0 */
	uint64_t at;		/* to call */
} job;

GUEST(guest_calls)
{
	for (;;) {
		uint64_t ret;

		if (job.cr3)
			__asm__ volatile("mov %0, %%cr3" : : "r"(job.cr3) : "memory");
		__asm__ volatile("invlpg (%0)" : : "r"(job.at) : "memory");
		__asm__ volatile("xor %%eax, %%eax; xor %%ecx, %%ecx; call *%1"
				 : "=&a"(ret) : "r"(job.at) : "ecx", "edx", "memory");
		GUEST_SYNC(ret);
	}
}

static void put_code(struct tvm *t, uint64_t gpa, const uint8_t *code, size_t len)
{
	memcpy(tvm_ptr(t, gpa), code, len);
}

static void init(struct tvm *t)
{
	tvm_init(t, &guest_calls);
	put_code(t, PAGE_A + OFFSET, code_a, sizeof(code_a));
	put_code(t, PAGE_B + OFFSET, code_b, sizeof(code_b));
	G(t, job).at = CODE + OFFSET;
}

/* The table that the entry for CODE in @table points to. */
static uint64_t *next_table(struct tvm *t, const uint64_t *table, int shift)
{
	return tvm_ptr(t, table[CODE >> shift & 511] & 0xffffffffff000);
}

TEST(a_page_that_moves)
{
	uint64_t *pte;
	struct tvm t;
	int i;

	init(&t);
	pte = tvm_map(&t, CODE, PAGE_A, RIGHTS);
	for (i = 0; i < ROUNDS; i++) {
		*pte = (i & 1 ? PAGE_B : PAGE_A) | RIGHTS;
		ASSERT_EQ(tvm_go(&t), i & 1 ? 'B' : 'A');
		ASSERT_EQ(tvm_go(&t), i & 1 ? 'B' : 'A');
	}
	tvm_fini(&t);
}

/* One entry of each level in turn leads to other tables. */
TEST(tables_that_move)
{
	static const int shifts[] = { 39, 30, 21 };
	unsigned int level;

	for (level = 0; level < 3; level++) {
		uint64_t *table, *upper, old, copy = TABLE;
		struct tvm t;
		int i, shift;

		init(&t);
		tvm_map(&t, CODE, PAGE_A, RIGHTS);
		upper = tvm_ptr(&t, GUEST_PML4);
		for (i = 39; i > shifts[level]; i -= 9)
			upper = next_table(&t, upper, i);
		old = upper[CODE >> shifts[level] & 511];

		/* Copies of the tables below, the last of which maps B. */
		table = next_table(&t, upper, shifts[level]);
		for (shift = shifts[level] - 9; ; shift -= 9, copy += 0x1000) {
			uint64_t *new = tvm_ptr(&t, copy);

			memcpy(new, table, 0x1000);
			if (shift == 12) {
				new[CODE >> 12 & 511] = PAGE_B | RIGHTS;
				break;
			}
			table = next_table(&t, table, shift);
			new[CODE >> shift & 511] = (copy + 0x1000) | RIGHTS | TVM_PTE_U;
		}
		for (i = 0; i < ROUNDS; i++) {
			upper[CODE >> shifts[level] & 511] =
				i & 1 ? TABLE | RIGHTS | TVM_PTE_U : old;
			ASSERT_EQ(tvm_go(&t), i & 1 ? 'B' : 'A');
		}
		tvm_fini(&t);
	}
}

TEST(another_cr3)
{
	uint64_t *pml4, *pdpt, *pd, *pt;
	struct tvm t;
	int i;

	init(&t);
	tvm_map(&t, CODE, PAGE_A, RIGHTS);
	pml4 = tvm_ptr(&t, TABLE);
	pdpt = tvm_ptr(&t, TABLE + 0x1000);
	pd = tvm_ptr(&t, TABLE + 0x2000);
	pt = tvm_ptr(&t, TABLE + 0x3000);
	memcpy(pml4, tvm_ptr(&t, GUEST_PML4), 0x1000);
	pml4[CODE >> 39 & 511] = (TABLE + 0x1000) | RIGHTS;
	pdpt[CODE >> 30 & 511] = (TABLE + 0x2000) | RIGHTS;
	pd[CODE >> 21 & 511] = (TABLE + 0x3000) | RIGHTS;
	pt[CODE >> 12 & 511] = PAGE_B | RIGHTS;
	for (i = 0; i < ROUNDS; i++) {
		G(&t, job).cr3 = i & 1 ? TABLE : GUEST_PML4;
		ASSERT_EQ(tvm_go(&t), i & 1 ? 'B' : 'A');
	}
	tvm_fini(&t);
}

TEST(code_that_is_rewritten)
{
	struct tvm t;
	int i;

	init(&t);
	tvm_map(&t, CODE, PAGE_A, RIGHTS);
	for (i = 0; i < ROUNDS; i++) {
		if (i & 1)
			put_code(&t, PAGE_A + OFFSET, code_b, sizeof(code_b));
		else
			put_code(&t, PAGE_A + OFFSET, code_a, sizeof(code_a));
		ASSERT_EQ(tvm_go(&t), i & 1 ? 'B' : 'A');
	}
	tvm_fini(&t);
}

/* The slot is deleted, and other memory of the VMM takes its place. */
TEST(memory_that_is_replaced)
{
	const uint64_t gpa = 0x10000000;
	uint8_t *mem = mmap(NULL, 0x2000, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct tvm t;
	int i;

	ASSERT_NE(mem, MAP_FAILED);
	memcpy(mem + OFFSET, code_a, sizeof(code_a));
	memcpy(mem + 0x1000 + OFFSET, code_b, sizeof(code_b));
	init(&t);
	tvm_map(&t, CODE, gpa, RIGHTS);
	for (i = 0; i < ROUNDS; i++) {
		tvm_set_slot(&t, 5, 0, gpa, 0x1000, mem + (i & 1) * 0x1000);
		ASSERT_EQ(tvm_go(&t), i & 1 ? 'B' : 'A');
		tvm_set_slot(&t, 5, 0, gpa, 0, NULL);
	}
	tvm_fini(&t);
}

/* The page tables in a slot of their own, swapped out from under the guest. */
TEST(tables_in_memory_that_is_replaced)
{
	const uint64_t gpa = 0x10000000;
	uint64_t *mem = mmap(NULL, 0x2000, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *pd;
	struct tvm t;
	int i;

	ASSERT_NE(mem, MAP_FAILED);
	mem[CODE >> 12 & 511] = PAGE_A | RIGHTS;
	mem[512 + (CODE >> 12 & 511)] = PAGE_B | RIGHTS;
	init(&t);
	tvm_map(&t, CODE, PAGE_A, RIGHTS);
	pd = next_table(&t, next_table(&t, tvm_ptr(&t, GUEST_PML4), 39), 30);
	pd[CODE >> 21 & 511] = gpa | RIGHTS;
	for (i = 0; i < ROUNDS; i++) {
		tvm_set_slot(&t, 5, 0, gpa, 0x1000, mem + (i & 1) * 512);
		ASSERT_EQ(tvm_go(&t), i & 1 ? 'B' : 'A');
		tvm_set_slot(&t, 5, 0, gpa, 0, NULL);
	}
	tvm_fini(&t);
}

/* Its second half is on a page that moves, or is not there at all. */
TEST(an_instruction_across_pages)
{
	uint64_t *pte;
	struct tvm t;
	int i;

	if (tvm_in_bochs())
		SKIP("emulator: in Bochs, stock KVM fails it as well");
	init(&t);
	tvm_map(&t, CODE, PAGE_A, RIGHTS);
	pte = tvm_map(&t, CODE + 0x1000, PAGE_B, RIGHTS);
	/* push and one prefix before the border, in B another one behind it. */
	memcpy(tvm_ptr(&t, PAGE_A + 0xffe), code_b, 2);
	memcpy(tvm_ptr(&t, PAGE_B), code_b + 1, sizeof(code_b) - 1);
	memcpy(tvm_ptr(&t, TABLE), code_a + 1, sizeof(code_a) - 1);
	G(&t, job).at = CODE + 0xffe;
	for (i = 0; i < ROUNDS; i++) {
		*pte = (i & 1 ? PAGE_B : TABLE) | RIGHTS;
		/* Forget the second page as well as the first. */
		G(&t, job).cr3 = GUEST_PML4;
		ASSERT_EQ(tvm_go(&t), i & 1 ? 'B' : 'A');
	}

	/* All of it before the border, and nothing behind. */
	*pte = 0;
	memcpy(tvm_ptr(&t, PAGE_A + 0x1000 - sizeof(code_a)), code_a, sizeof(code_a));
	G(&t, job).at = CODE + 0x1000 - sizeof(code_a);
	EXPECT_EQ(tvm_go(&t), 'A');
	tvm_fini(&t);
}

/* Large pages: the same code through 2 MiB and 1 GiB leaves. */
TEST(large_pages)
{
	uint64_t *pdpt, *pd;
	struct tvm t;

	init(&t);
	tvm_map(&t, CODE, PAGE_A, RIGHTS);
	pdpt = next_table(&t, tvm_ptr(&t, GUEST_PML4), 39);
	pd = next_table(&t, pdpt, 30);
	pd[CODE >> 21 & 511] = 0x80 | RIGHTS;
	G(&t, job).at = CODE + PAGE_B + OFFSET;
	EXPECT_EQ(tvm_go(&t), 'B');
	G(&t, job).at = CODE + PAGE_A + OFFSET;
	EXPECT_EQ(tvm_go(&t), 'A');
	if (!(tvm_cpuid(0x80000001, 0)->edx >> 26 & 1))
		SKIP("emulator: no pages of 1 GiB");
	pdpt[CODE >> 30 & 511] = 0x80 | RIGHTS;
	EXPECT_EQ(tvm_go(&t), 'A');
	G(&t, job).at = CODE + PAGE_B + OFFSET;
	EXPECT_EQ(tvm_go(&t), 'B');
	tvm_fini(&t);
}

/*
 * 32-bit paging, with pages of 4 MiB, and PAE: CR3 is the argument. CPUID and
 * MMIO exit, and both are decoded through these tables.
 */
GUEST32(guest_paging_32,
	"mov %edx, %cr3\n"
	"mov %cr4, %eax; or %ecx, %eax; mov %eax, %cr4\n"
	"mov %cr0, %eax; or $0x80000000, %eax; mov %eax, %cr0\n"
	"xor %eax, %eax; xor %ecx, %ecx; ds cpuid; mov $0x5a, %al\n"
	"mov %al, 0xd0012\n"
	"movl $0xd0020, %edi; mov $2, %ecx; rep stosl\n"
	"hlt\n");

static void expect_mmio(struct tvm *t, uint64_t addr, uint32_t len)
{
	ASSERT_EQ(tvm_run(t), KVM_EXIT_MMIO);
	EXPECT_EQ(t->run->mmio.phys_addr, addr);
	EXPECT_EQ(t->run->mmio.len, len);
	EXPECT_TRUE(t->run->mmio.is_write);
}

static void run_paging_32(uint64_t cr4, bool pae)
{
	struct kvm_regs regs;
	struct tvm t;

	tvm_init(&t, &guest_paging_32);
	if (pae) {
		*(uint64_t *)tvm_ptr(&t, TABLE) = (TABLE + 0x1000) | TVM_PTE_P;
		*(uint64_t *)tvm_ptr(&t, TABLE + 0x1000) = 0x80 | RIGHTS | TVM_PTE_U;
	} else {
		*(uint32_t *)tvm_ptr(&t, TABLE) = 0x80 | RIGHTS | TVM_PTE_U;
	}
	regs = tvm_regs(&t, 0);
	regs.rdx = TABLE;
	regs.rcx = cr4;
	tvm_set_regs(&t, 0, &regs);
	expect_mmio(&t, 0xd0012, 1);
	expect_mmio(&t, 0xd0020, 4);
	expect_mmio(&t, 0xd0024, 4);
	EXPECT_EQ(tvm_run(&t), KVM_EXIT_HLT);
	tvm_fini(&t);
}

TEST(paging_of_32_bits)
{
	run_paging_32(1 << 4, false);
}

TEST(paging_of_pae)
{
	run_paging_32(1 << 5, true);
}
