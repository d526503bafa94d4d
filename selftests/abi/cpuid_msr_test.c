// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * CPUID and MSRs: the tables that KVM_SET_CPUID2 and KVM_GET_CPUID2 carry and
 * what the guest reads of them; which MSRs the VMM may set, in what counts
 * KVM_GET_MSRS and KVM_SET_MSRS answer, and what RDMSR and WRMSR do.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tvm.h"

struct msrs {
	struct kvm_msrs head;
	struct kvm_msr_entry entries[64];
};

static volatile uint32_t leaf, subleaf;
static struct cpuid_regs answer;

GUEST(guest_cpuid)
{
	for (;;) {
		answer = cpuid(leaf, subleaf);
		GUEST_SYNC(1);
	}
}

static struct cpuid_regs ask(struct tvm *t, uint32_t function, uint32_t index)
{
	G(t, leaf) = function;
	G(t, subleaf) = index;
	ASSERT_EQ(tvm_go(t), 1);
	return G(t, answer);
}

TEST(guest_sees_the_table)
{
	static const struct kvm_cpuid_entry2 entries[] = {
		{ .function = 0, .eax = 0xd,
		  .ebx = 0x68747541, .ecx = 0x444d4163, .edx = 0x69746e65 },
		{ .function = 1, .eax = 0x800f12,
		  .ebx = 0x800, .ecx = 0x80202001, .edx = 0x78bfbff },
		{ .function = 4, .index = 1, .flags = 1, .ecx = 0x43 },
		{ .function = 4, .index = 2, .flags = 1, .eax = 0x51, .ecx = 0x53 },
		{ .function = 0x40000000, .eax = 0x40000001, .ebx = 1, .ecx = 2, .edx = 3 },
		{ .function = 0x80000000, .eax = 0x80000001 },
		{ .function = 0x80000001, .edx = 0x20100800 },
	};
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[8];
	} c;
	struct cpuid_regs r;
	struct tvm t;

	tvm_init(&t, &guest_cpuid);
	memset(&c, 0, sizeof(c));
	c.head.nent = 7;
	memcpy(c.entries, entries, sizeof(entries));
	ASSERT_OK(ioctl(t.cpu, KVM_SET_CPUID2, &c));

	r = ask(&t, 0, 0);
	EXPECT_EQ(r.eax, 0xd);
	EXPECT_EQ(r.ebx, 0x68747541);
	EXPECT_EQ(r.edx, 0x69746e65);
	r = ask(&t, 4, 1);
	EXPECT_EQ(r.ecx, 0x43);
	r = ask(&t, 4, 2);
	EXPECT_EQ(r.eax, 0x51);
	r = ask(&t, 4, 3);		/* an index that is not there */
	EXPECT_EQ(r.eax | r.ebx | r.ecx | r.edx, 0);
	r = ask(&t, 0, 99);		/* the index means nothing here */
	EXPECT_EQ(r.eax, 0xd);
	r = ask(&t, 0x40000000, 0);
	EXPECT_EQ(r.edx, 3);
	r = ask(&t, 0x80000001, 0);
	EXPECT_EQ(r.edx, 0x20100800);
	r = ask(&t, 7, 0);		/* in range, but not in the table */
	EXPECT_EQ(r.eax | r.ebx | r.ecx | r.edx, 0);
	tvm_fini(&t);
}

/* OSXSAVE, OSPKE and leaf 0xd sizes are not constants: they follow the guest. */
GUEST(guest_osxsave)
{
	GUEST_EQ(cpuid(1, 0).ecx >> 27 & 1, 0);
	write_cr4(read_cr4() | 1 << 18);
	GUEST_EQ(cpuid(1, 0).ecx >> 27 & 1, 1);
	GUEST_EQ(cpuid(0xd, 0).ebx, 576);
	__asm__ volatile("xsetbv" : : "c"(0), "a"(7), "d"(0));
	GUEST_EQ(cpuid(0xd, 0).ebx, 832);
	GUEST_TRUE(cpuid(0xd, 0).ecx >= 832);
	write_cr4(read_cr4() & ~(1ul << 18));
	GUEST_EQ(cpuid(1, 0).ecx >> 27 & 1, 0);
}

TEST(dynamic_cpuid_bits)
{
	struct tvm t;

	if (!tvm_cpuid(0xd, 2))
		SKIP("emulator: no AVX in CPUID");
	tvm_init(&t, &guest_osxsave);
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);
}

TEST(get_cpuid2_returns_what_was_set)
{
	struct kvm_cpuid2 *set, *get;
	struct tvm t;
	uint32_t i;

	tvm_init_bare(&t, 0);
	tvm_add_vcpu(&t, TVM_NO_CPUID);
	set = tvm_supported_cpuid(t.dev);
	get = calloc(1, sizeof(*get) + 256 * sizeof(get->entries[0]));

	EXPECT_OK(ioctl(t.cpu, KVM_SET_CPUID2, set));
	get->nent = set->nent - 1;
	EXPECT_ERRNO(ioctl(t.cpu, KVM_GET_CPUID2, get), E2BIG);
	get->nent = 256;
	EXPECT_OK(ioctl(t.cpu, KVM_GET_CPUID2, get));
	/* Linux 6.1 forgets to tell the count. */
	if (!tvm_is_stock())
		EXPECT_EQ(get->nent, set->nent);
	for (i = 0; i < set->nent; i++) {
		EXPECT_EQ(get->entries[i].function, set->entries[i].function);
		EXPECT_EQ(get->entries[i].index, set->entries[i].index);
		EXPECT_EQ(get->entries[i].flags, set->entries[i].flags);
	}

	set->nent = 1000;
	EXPECT_ERRNO(ioctl(t.cpu, KVM_SET_CPUID2, set), E2BIG);
	/* Linear addresses have 48 or 57 bits, where anything is said of them. */
	set->nent = 1;
	set->entries[0] = (struct kvm_cpuid_entry2){ .function = 0x80000008, .eax = 52 << 8 | 40 };
	EXPECT_ERRNO(ioctl(t.cpu, KVM_SET_CPUID2, set), EINVAL);
	set->entries[0].eax = 57 << 8 | 40;
	EXPECT_OK(ioctl(t.cpu, KVM_SET_CPUID2, set));
	set->nent = 0;
	EXPECT_OK(ioctl(t.cpu, KVM_SET_CPUID2, set));
	free(set);
	free(get);
	tvm_fini(&t);
}

TEST(supported_cpuid_promises_what_works)
{
	const struct kvm_cpuid_entry2 *e;

	e = tvm_cpuid(0, 0);
	ASSERT_TRUE(e);
	EXPECT_GE(e->eax, 0xd);
	e = tvm_cpuid(1, 0);
	ASSERT_TRUE(e);
	EXPECT_TRUE(e->ecx & (1u << 21));	/* x2APIC */
	EXPECT_FALSE(e->ecx & (1u << 3));	/* MONITOR */
	EXPECT_TRUE(tvm_cpuid(7, 0));
	EXPECT_TRUE(tvm_cpuid(0x80000001, 0));
	EXPECT_TRUE(tvm_cpuid(0x80000008, 0));
	e = tvm_cpuid(0x80000001, 0);
	if (!tvm_is_stock())
		EXPECT_FALSE(e->ecx & (1u << 2));	/* no nested SVM */
	e = tvm_cpuid(0x40000000, 0);
	ASSERT_TRUE(e);
	EXPECT_MEMEQ(&e->ebx, "KVMKVMKVM\0\0\0", 12);
	e = tvm_cpuid(0x40000001, 0);
	ASSERT_TRUE(e);
	EXPECT_TRUE(e->eax & (1u << 3));	/* CLOCKSOURCE2 */
}

/* What VMMs set at the start of every VM; a short count is fatal to them. */
static const struct kvm_msr_entry boot_msrs[] = {
	{ .index = 0x174, .data = 0 },		{ .index = 0x175, .data = 0 },
	{ .index = 0x176, .data = 0 },		{ .index = MSR_STAR, .data = 0x23001000000000 },
	{ .index = MSR_LSTAR, .data = 0xffffffff81000000 },
	{ .index = 0xc0000083, .data = 0xffffffff81001000 },
	{ .index = 0xc0000084, .data = 0x47700 },
	{ .index = MSR_KERNEL_GS_BASE, .data = 0xffff888000000000 },
	{ .index = 0x1a0, .data = 1 },		{ .index = 0x2ff, .data = 0xc06 },
	{ .index = 0x277, .data = 0x0007040600070406 },
	{ .index = 0x200, .data = 0x80000006 },	{ .index = 0x201, .data = 0xff80000800 },
	{ .index = 0x20f, .data = 0 },		{ .index = 0x250, .data = 0x0606060606060606 },
	{ .index = 0x258, .data = 0 },		{ .index = 0x259, .data = 0 },
	{ .index = 0x268, .data = 0x0505050505050505 }, { .index = 0x26f, .data = 0 },
	{ .index = 0x17a, .data = 0 },		{ .index = 0x400, .data = UINT64_MAX },
	{ .index = 0x427, .data = 0 },		{ .index = 0x47f, .data = 0 },
	{ .index = MSR_TSC, .data = 0 },	{ .index = MSR_TSC_AUX, .data = 7 },
	{ .index = 0x11, .data = 0 },
	{ .index = 0x12, .data = 0 },		{ .index = 0x4b564d00, .data = 0 },
	{ .index = 0x4b564d01, .data = 0 },	{ .index = MSR_TSC_DEADLINE, .data = 0 },
};

#define NR_BOOT_MSRS (sizeof(boot_msrs) / sizeof(boot_msrs[0]))

TEST(boot_msrs_are_accepted_and_read_back)
{
	struct tvm t;
	struct msrs m;
	size_t i;

	tvm_init_bare(&t, TVM_IRQCHIP);
	tvm_add_vcpu(&t, 0);
	memset(&m, 0, sizeof(m));
	m.head.nmsrs = NR_BOOT_MSRS;
	memcpy(m.entries, boot_msrs, sizeof(boot_msrs));
	ASSERT_EQ(ioctl(t.cpu, KVM_SET_MSRS, &m), NR_BOOT_MSRS);
	for (i = 0; i < NR_BOOT_MSRS; i++)
		m.entries[i].data = 0x5a5a;
	ASSERT_EQ(ioctl(t.cpu, KVM_GET_MSRS, &m), NR_BOOT_MSRS);
	for (i = 0; i < NR_BOOT_MSRS; i++) {
		if (m.entries[i].index == MSR_TSC)
			continue;
		if (m.entries[i].data != boot_msrs[i].data)
			tap_diag("MSR %#x", m.entries[i].index);
		EXPECT_EQ(m.entries[i].data, boot_msrs[i].data);
	}
	/* MTRRcap: eight variable ranges, fixed ranges, write-combining. */
	EXPECT_EQ(tvm_msr(&t, 0, 0xfe), 0x508);
	tvm_fini(&t);
}

TEST(msr_calls_stop_at_the_first_refusal)
{
	struct tvm t;
	struct msrs m;

	tvm_init_bare(&t, 0);
	tvm_add_vcpu(&t, 0);
	memset(&m, 0, sizeof(m));
	m.head.nmsrs = 4;
	m.entries[0] = (struct kvm_msr_entry){ .index = 0x174, .data = 0x10 };
	m.entries[1] = (struct kvm_msr_entry){ .index = 0x175, .data = 0x20 };
	m.entries[2] = (struct kvm_msr_entry){ .index = 0xdeadbeef, .data = 1 };
	m.entries[3] = (struct kvm_msr_entry){ .index = 0x176, .data = 0x40 };
	EXPECT_EQ(ioctl(t.cpu, KVM_SET_MSRS, &m), 2);
	EXPECT_EQ(tvm_msr(&t, 0, 0x175), 0x20);
	EXPECT_EQ(tvm_msr(&t, 0, 0x176), 0);
	EXPECT_EQ(ioctl(t.cpu, KVM_GET_MSRS, &m), 2);

	m.head.nmsrs = 0;
	EXPECT_EQ(ioctl(t.cpu, KVM_SET_MSRS, &m), 0);
	EXPECT_EQ(ioctl(t.cpu, KVM_GET_MSRS, &m), 0);
	m.head.nmsrs = 100000;
	EXPECT_ERRNO(ioctl(t.cpu, KVM_SET_MSRS, &m), E2BIG);
	EXPECT_ERRNO(ioctl(t.cpu, KVM_GET_MSRS, &m), E2BIG);

	/* Values that the guest could not load either. */
	EXPECT_EQ(tvm_set_msr(&t, 0, 0x277, 0x02), 0);		/* PAT type 2 */
	EXPECT_EQ(tvm_set_msr(&t, 0, 0x2ff, 0x1000000), 0);
	EXPECT_EQ(tvm_set_msr(&t, 0, MSR_LSTAR, 1ull << 63), 0);
	EXPECT_EQ(tvm_set_msr(&t, 0, MSR_EFER, 1ull << 40), 0);
	tvm_fini(&t);
}

TEST(every_listed_msr_can_be_read)
{
	struct kvm_msr_list *list = calloc(1, sizeof(*list) + 1024 * sizeof(__u32));
	struct tvm t;
	uint32_t i;

	list->nmsrs = 1024;
	tvm_init_bare(&t, TVM_IRQCHIP);
	tvm_add_vcpu(&t, 0);
	ASSERT_OK(ioctl(t.dev, KVM_GET_MSR_INDEX_LIST, list));
	ASSERT_GT(list->nmsrs, 10);
	for (i = 0; i < list->nmsrs; i++) {
		struct msrs m = { .head.nmsrs = 1, .entries[0].index = list->indices[i] };
		int ret = ioctl(t.cpu, KVM_GET_MSRS, &m);

		/* Nested and Hyper-V state wants CPUID bits on the reference. */
		if (ret != 1 && tvm_is_stock())
			continue;
		if (ret != 1)
			tap_diag("MSR %#x", list->indices[i]);
		EXPECT_EQ(ret, 1);
	}
	free(list);
	tvm_fini(&t);
}

#define SENTINEL 0x1234567000

GUEST(guest_msrs)
{
	uint64_t val;

	/* Plain storage. */
	wrmsr(MSR_KERNEL_GS_BASE, SENTINEL);
	GUEST_EQ(rdmsr(MSR_KERNEL_GS_BASE), SENTINEL);
	wrmsr(MSR_STAR, 0x1b000800000000);
	GUEST_EQ(rdmsr(MSR_STAR), 0x1b000800000000);
	wrmsr(MSR_LSTAR, SENTINEL);
	GUEST_EQ(rdmsr(MSR_LSTAR), SENTINEL);
	wrmsr(0x174, 8);
	GUEST_EQ(rdmsr(0x174), 8);
	wrmsr(MSR_FS_BASE, SENTINEL);
	__asm__("rdfsbase %0" : "=r"(val));
	GUEST_EQ(val, SENTINEL);
	wrmsr(0x277, 0x0606060606060606);
	GUEST_EQ(rdmsr(0x277), 0x0606060606060606);
	wrmsr(0x201, 0xff80000800);
	GUEST_EQ(rdmsr(0x201), 0xff80000800);
	GUEST_EQ(rdmsr(0xfe), 0x508);

	/* #GP(0): unknown, read-only, reserved bits, not canonical. */
	GUEST_EQ(rdmsr_safe(0xdeadbeef, &val), 13);
	GUEST_EQ(guest_cpu()->error, 0);
	GUEST_EQ(wrmsr_safe(0xdeadbeef, 0), 13);
	GUEST_EQ(wrmsr_safe(0xfe, 0), 13);
	GUEST_EQ(wrmsr_safe(0x277, 0x0202020202020202), 13);
	GUEST_EQ(wrmsr_safe(MSR_EFER, 1ull << 33), 13);
	GUEST_EQ(wrmsr_safe(MSR_EFER, rdmsr(MSR_EFER) & ~0x100ul), 13);

	/* What Linux probes and tolerates. */
	GUEST_EQ(rdmsr_safe(0x8b, &val), GUEST_NO_FAULT);
	GUEST_EQ(rdmsr_safe(0xc0010010, &val), GUEST_NO_FAULT);
	GUEST_EQ(rdmsr_safe(0x179, &val), GUEST_NO_FAULT);
	GUEST_EQ(rdmsr_safe(0x400, &val), GUEST_NO_FAULT);
}

TEST(guest_reads_and_writes_msrs)
{
	struct kvm_sregs s;
	struct tvm t;

	tvm_init(&t, &guest_msrs);
	s = tvm_sregs(&t, 0);
	s.cr4 |= 1 << 16;		/* FSGSBASE */
	if (!(tvm_cpuid(7, 0)->ebx & 1))
		SKIP("emulator: no FSGSBASE in CPUID");
	tvm_set_sregs(&t, 0, &s);
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	EXPECT_EQ(tvm_msr(&t, 0, MSR_KERNEL_GS_BASE), SENTINEL);
	EXPECT_EQ(tvm_msr(&t, 0, 0x201), 0xff80000800);
	EXPECT_EQ(tvm_sregs(&t, 0).fs.base, SENTINEL);
	tvm_fini(&t);
}

/* SYSCALL and SWAPGS with MSRs that the VMM wrote: they live in the VMCB. */
static volatile uint64_t syscall_cs;

static void on_syscall(void)
{
	uint64_t cs;

	__asm__ volatile("mov %%cs, %0" : "=r"(cs));
	syscall_cs = cs;
	guest_exit();
}

GUEST(guest_makes_a_syscall)
{
	__asm__ volatile("syscall" : : : "rcx", "r11", "memory");
}

TEST(msrs_of_the_vmm_drive_syscall)
{
	struct tvm t;

	tvm_init(&t, &guest_makes_a_syscall);
	EXPECT_EQ(tvm_set_msr(&t, 0, MSR_STAR, (uint64_t)(GUEST_CS64) << 32), 1);
	EXPECT_EQ(tvm_set_msr(&t, 0, MSR_LSTAR, (uintptr_t)on_syscall), 1);
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	EXPECT_EQ(G(&t, syscall_cs), GUEST_CS64);
	tvm_fini(&t);
}

/* Leaf 1's bit of the local APIC goes and comes with IA32_APIC_BASE. */
TEST(apic_bit_follows_the_apic)
{
	struct kvm_cpuid2 *get;
	struct kvm_sregs s;
	struct tvm t;
	int on;
	uint32_t i;

	tvm_init_bare(&t, TVM_IRQCHIP);
	tvm_add_vcpu(&t, 0);
	get = calloc(1, sizeof(*get) + 256 * sizeof(get->entries[0]));
	for (on = 0; on < 2; on++) {
		s = tvm_sregs(&t, 0);
		s.apic_base = on ? s.apic_base | 0x800 : s.apic_base & ~0x800ull;
		ASSERT_OK(ioctl(t.cpu, KVM_SET_SREGS, &s));
		get->nent = 256;
		ASSERT_OK(ioctl(t.cpu, KVM_GET_CPUID2, get));
		for (i = 0; get->entries[i].function != 1; i++)
			ASSERT_LE(i, 254);
		EXPECT_EQ(get->entries[i].edx >> 9 & 1, on);
	}
	free(get);
	tvm_fini(&t);
}

/* The oldest form of the table: no subleaves. */
TEST(set_cpuid_without_subleaves)
{
	struct {
		struct kvm_cpuid head;
		struct kvm_cpuid_entry entries[2];
	} c = {
		.head.nent = 2,
		.entries = {
			{ .function = 0, .eax = 7, .ebx = 1, .ecx = 2, .edx = 3 },
			{ .function = 7, .ebx = 0x55 },
		},
	};
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[4];
	} out = { .head.nent = 4 };
	struct cpuid_regs r;
	struct tvm t;

	tvm_init(&t, &guest_cpuid);
	EXPECT_ERRNO(ioctl(t.cpu, KVM_SET_CPUID, 8), EFAULT);
	c.head.nent = 1000;
	EXPECT_ERRNO(ioctl(t.cpu, KVM_SET_CPUID, &c), E2BIG);
	c.head.nent = 2;
	EXPECT_OK(ioctl(t.cpu, KVM_SET_CPUID, &c));
	EXPECT_OK(ioctl(t.cpu, KVM_GET_CPUID2, &out));
	EXPECT_EQ(out.entries[1].function, 7);
	EXPECT_EQ(out.entries[1].flags, 0);
	r = ask(&t, 0, 0);
	EXPECT_EQ(r.edx, 3);
	r = ask(&t, 7, 5);		/* an entry without index is for all */
	EXPECT_EQ(r.ebx, 0x55);
	tvm_fini(&t);
}

/* What the machine lacks and the VMM may offer nevertheless. */
TEST(emulated_cpuid)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[16];
	} c = { .head.nent = 16 };
	int dev = tvm_open();

	EXPECT_ERRNO(ioctl(dev, KVM_GET_EMULATED_CPUID, 8), EFAULT);
	EXPECT_OK(ioctl(dev, KVM_GET_EMULATED_CPUID, &c));
	EXPECT_LE(c.head.nent, 16);
	close(dev);
}

/* Programs of the rust-vmm family have room for 80 entries. */
TEST(supported_cpuid_is_short)
{
	struct kvm_cpuid2 *c;
	struct tvm t;

	tvm_init_bare(&t, 0);
	c = tvm_supported_cpuid(t.dev);
	EXPECT_LE(c->nent, 80);
	c->nent--;
	EXPECT_ERRNO(ioctl(t.dev, KVM_GET_SUPPORTED_CPUID, c), E2BIG);
	free(c);
	tvm_fini(&t);
}

TEST(feature_msrs)
{
	struct {
		struct kvm_msr_list head;
		uint32_t indices[64];
	} list = { .head.nmsrs = 0 };
	struct msrs m = { .head.nmsrs = 1 };
	uint32_t i, nr;
	int dev = tvm_open();

	EXPECT_ERRNO(ioctl(dev, KVM_GET_MSR_FEATURE_INDEX_LIST, &list), E2BIG);
	nr = list.head.nmsrs;
	ASSERT_GT(nr, 0);
	ASSERT_LE(nr, 64);
	EXPECT_OK(ioctl(dev, KVM_GET_MSR_FEATURE_INDEX_LIST, &list));
	for (i = 0; i < nr; i++) {
		m.entries[0].index = list.indices[i];
		EXPECT_EQ(ioctl(dev, KVM_GET_MSRS, &m), 1);
	}
	m.entries[0].index = MSR_STAR;		/* a vCPU's, not the machine's */
	EXPECT_EQ(ioctl(dev, KVM_GET_MSRS, &m), 0);
	close(dev);
}

/* A guest that is told of no paravirtual feature has none, if that is enforced. */
GUEST(guest_tries_pv_msrs)
{
	uint64_t val;

	GUEST_EQ(rdmsr_safe(0x4b564d01, &val), GUEST_NO_FAULT);
	GUEST_EQ(rdmsr_safe(0x4b564d03, &val), GUEST_NO_FAULT);
	GUEST_SYNC(1);
	GUEST_EQ(rdmsr_safe(0x11, &val), 13);
	GUEST_EQ(rdmsr_safe(0x4b564d01, &val), 13);
	GUEST_EQ(wrmsr_safe(0x4b564d03, 0), 13);
}

TEST(pv_features_are_enforced)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_ENFORCE_PV_FEATURE_CPUID, .args[0] = 1 };
	struct kvm_cpuid2 *c;
	struct tvm t;
	uint32_t i;

	tvm_init(&t, &guest_tries_pv_msrs);
	c = tvm_supported_cpuid(t.dev);
	for (i = 0; i < c->nent; i++)
		if (c->entries[i].function == 0x40000001)
			c->entries[i].eax = 0;
	ASSERT_OK(ioctl(t.cpu, KVM_SET_CPUID2, c));
	EXPECT_EQ(tvm_go(&t), 1);
	EXPECT_OK(ioctl(t.cpu, KVM_ENABLE_CAP, &cap));
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	cap.cap = 9999;
	EXPECT_ERRNO(ioctl(t.cpu, KVM_ENABLE_CAP, &cap), EINVAL);
	free(c);
	tvm_fini(&t);
}
