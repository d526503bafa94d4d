// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * MSRs that user space takes over: the filter of KVM_X86_SET_MSR_FILTER, the
 * exits of KVM_CAP_X86_USER_SPACE_MSR with each reason, and what becomes of the
 * instruction when user space answers, refuses, or goes elsewhere.
 */
#define _GNU_SOURCE
#include <string.h>
#include <unistd.h>

#include "tvm.h"

#define BAD_PTR	((void *)8)
#define GP	13

/* What no processor has. */
#define MSR_UNKNOWN	0x4b564dff

static long enable_cap(int fd, uint32_t cap, uint64_t arg)
{
	struct kvm_enable_cap enable = { .cap = cap, .args[0] = arg };

	return ioctl(fd, KVM_ENABLE_CAP, &enable);
}

/* One range of MSRs of which @bitmap says what is allowed. */
static long set_filter(struct tvm *t, uint32_t flags, uint32_t access, uint32_t base, uint32_t nr,
		       const uint8_t *bitmap)
{
	struct kvm_msr_filter filter = { .flags = flags };

	filter.ranges[0] = (struct kvm_msr_filter_range){
		.flags = access, .base = base, .nmsrs = nr, .bitmap = (uint8_t *)bitmap };
	return ioctl(t->fd, KVM_X86_SET_MSR_FILTER, &filter);
}

static const uint8_t nothing[16];

GUEST(guest_meets_a_filter)
{
	uint64_t val;

	/* LSTAR lives in the control block, PAT and SYSENTER_CS do not. */
	GUEST_EQ(wrmsr_safe(MSR_LSTAR, 0x1000), GUEST_NO_FAULT);
	GUEST_SYNC(1);
	GUEST_EQ(wrmsr_safe(MSR_LSTAR, 0x2000), GP);
	GUEST_EQ(rdmsr_safe(MSR_LSTAR, &val), GUEST_NO_FAULT);
	GUEST_EQ(val, 0x1000);
	GUEST_EQ(wrmsr_safe(0xc0000083, 0x3000), GUEST_NO_FAULT);
	GUEST_SYNC(2);
	GUEST_EQ(rdmsr_safe(MSR_LSTAR, &val), GP);
	GUEST_EQ(rdmsr_safe(0x277, &val), GUEST_NO_FAULT);
	GUEST_SYNC(3);
	GUEST_EQ(rdmsr_safe(0x277, &val), GP);
	GUEST_EQ(rdmsr_safe(0x174, &val), GUEST_NO_FAULT);
	GUEST_SYNC(4);
	GUEST_EQ(wrmsr_safe(MSR_LSTAR, 0x2000), GUEST_NO_FAULT);
	GUEST_EQ(rdmsr_safe(MSR_LSTAR, &val), GUEST_NO_FAULT);
	GUEST_EQ(val, 0x2000);
}

TEST(filter_denies_reads_and_writes)
{
	static const uint8_t only_174[] = { 0x10 };
	struct tvm t;

	tvm_init(&t, &guest_meets_a_filter);
	ASSERT_GT(ioctl(t.fd, KVM_CHECK_EXTENSION, KVM_CAP_X86_MSR_FILTER), 0);
	EXPECT_EQ(tvm_go(&t), 1);
	EXPECT_OK(set_filter(&t, 0, KVM_MSR_FILTER_WRITE, MSR_LSTAR, 1, nothing));
	EXPECT_EQ(tvm_go(&t), 2);
	/* The VMM itself is not filtered. */
	EXPECT_EQ(tvm_msr(&t, 0, MSR_LSTAR), 0x1000);
	EXPECT_OK(set_filter(&t, 0, KVM_MSR_FILTER_READ, MSR_LSTAR, 1, nothing));
	EXPECT_EQ(tvm_go(&t), 3);
	/* All is denied but one MSR of a range of eight. */
	EXPECT_OK(set_filter(&t, KVM_MSR_FILTER_DEFAULT_DENY, KVM_MSR_FILTER_READ, 0x170, 8,
			     only_174));
	EXPECT_EQ(tvm_go(&t), 4);
	EXPECT_OK(set_filter(&t, 0, 0, 0, 0, NULL));
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);
}

TEST(filter_errors)
{
	struct tvm t;

	tvm_init_bare(&t, 0);
	EXPECT_ERRNO(ioctl(t.fd, KVM_X86_SET_MSR_FILTER, BAD_PTR), EFAULT);
	EXPECT_ERRNO(set_filter(&t, 2, KVM_MSR_FILTER_READ, 0, 1, nothing), EINVAL);
	EXPECT_ERRNO(set_filter(&t, 0, 4, 0, 1, nothing), EINVAL);
	EXPECT_ERRNO(set_filter(&t, 0, 0, 0, 1, nothing), EINVAL);
	EXPECT_ERRNO(set_filter(&t, 0, KVM_MSR_FILTER_READ, 0, 0x600 * 8 + 1, nothing), EINVAL);
	EXPECT_ERRNO(set_filter(&t, 0, KVM_MSR_FILTER_READ, 0, 64, BAD_PTR), EFAULT);
	/* With nothing allowed at all, no guest could run. */
	EXPECT_ERRNO(set_filter(&t, KVM_MSR_FILTER_DEFAULT_DENY, 0, 0, 0, NULL), EINVAL);
	EXPECT_ERRNO(enable_cap(t.fd, KVM_CAP_X86_USER_SPACE_MSR, 8), EINVAL);
	tvm_fini(&t);
}

GUEST(guest_asks_the_vmm)
{
	uint64_t val;

	GUEST_EQ(rdmsr_safe(MSR_UNKNOWN, &val), GUEST_NO_FAULT);
	GUEST_EQ(val, 0x123456789abcdef0);
	GUEST_EQ(rdmsr_safe(MSR_UNKNOWN, &val), GP);
	GUEST_EQ(wrmsr_safe(MSR_UNKNOWN, 0x1122334455667788), GUEST_NO_FAULT);
	GUEST_EQ(wrmsr_safe(MSR_UNKNOWN, 0), GP);
	GUEST_EQ(wrmsr_safe(0x277, 0x0202020202020202), GUEST_NO_FAULT);
	GUEST_EQ(wrmsr_safe(0x174, 0x55), GUEST_NO_FAULT);
	/* The x2APIC's are never asked about. */
	GUEST_SYNC(1);
	GUEST_EQ(rdmsr_safe(MSR_UNKNOWN, &val), GUEST_NO_FAULT);
}

static void expect_exit(struct tvm *t, unsigned int exit, uint32_t reason, uint32_t msr)
{
	ASSERT_EQ(tvm_run(t), exit);
	EXPECT_EQ(t->run->msr.reason, reason);
	EXPECT_EQ(t->run->msr.index, msr);
	EXPECT_EQ(t->run->msr.error, 0);
}

TEST(user_space_answers)
{
	struct kvm_regs regs;
	uint64_t rip;
	struct tvm t;

	tvm_init(&t, &guest_asks_the_vmm);
	EXPECT_OK(enable_cap(t.fd, KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_UNKNOWN |
			     KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_FILTER));
	EXPECT_OK(set_filter(&t, 0, KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE, 0x174, 1,
			     nothing));

	expect_exit(&t, KVM_EXIT_X86_RDMSR, KVM_MSR_EXIT_REASON_UNKNOWN, MSR_UNKNOWN);
	rip = tvm_regs(&t, 0).rip;
	t.run->msr.data = 0x123456789abcdef0;
	expect_exit(&t, KVM_EXIT_X86_RDMSR, KVM_MSR_EXIT_REASON_UNKNOWN, MSR_UNKNOWN);
	EXPECT_NE(tvm_regs(&t, 0).rip, rip);
	t.run->msr.error = 1;
	expect_exit(&t, KVM_EXIT_X86_WRMSR, KVM_MSR_EXIT_REASON_UNKNOWN, MSR_UNKNOWN);
	EXPECT_EQ(t.run->msr.data, 0x1122334455667788);
	expect_exit(&t, KVM_EXIT_X86_WRMSR, KVM_MSR_EXIT_REASON_UNKNOWN, MSR_UNKNOWN);
	t.run->msr.error = 1;
	expect_exit(&t, KVM_EXIT_X86_WRMSR, KVM_MSR_EXIT_REASON_INVAL, 0x277);
	EXPECT_EQ(t.run->msr.data, 0x0202020202020202);
	expect_exit(&t, KVM_EXIT_X86_WRMSR, KVM_MSR_EXIT_REASON_FILTER, 0x174);
	EXPECT_EQ(tvm_go(&t), 1);

	/* With immediate_exit the access is completed and nothing else. */
	expect_exit(&t, KVM_EXIT_X86_RDMSR, KVM_MSR_EXIT_REASON_UNKNOWN, MSR_UNKNOWN);
	rip = tvm_regs(&t, 0).rip;
	t.run->msr.data = 77ull << 32 | 99;
	t.run->immediate_exit = 1;
	EXPECT_ERRNO(ioctl(t.cpu, KVM_RUN, 0), EINTR);
	t.run->immediate_exit = 0;
	regs = tvm_regs(&t, 0);
	EXPECT_EQ(regs.rip, rip + 2);
	EXPECT_EQ(regs.rax, 99);
	EXPECT_EQ(regs.rdx, 77);
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);
}

/* Only the reasons that were asked for; the others are #GP. */
GUEST(guest_is_refused)
{
	uint64_t val;

	GUEST_EQ(rdmsr_safe(MSR_UNKNOWN, &val), GP);
	GUEST_EQ(wrmsr_safe(0x277, 0x0202020202020202), GUEST_NO_FAULT);
}

TEST(other_reasons_are_faults)
{
	struct tvm t;

	tvm_init(&t, &guest_is_refused);
	EXPECT_OK(enable_cap(t.fd, KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_INVAL));
	expect_exit(&t, KVM_EXIT_X86_WRMSR, KVM_MSR_EXIT_REASON_INVAL, 0x277);
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);
}

/* A filter set while a vCPU runs holds from its next access on. */
static volatile uint32_t denied;

GUEST(guest_polls_an_msr)
{
	while (wrmsr_safe(MSR_LSTAR, 0x1000) == GUEST_NO_FAULT)
		cpu_relax();
	denied = 1;
}

TEST(filter_reaches_a_running_guest)
{
	struct tvm t;

	tvm_init(&t, &guest_polls_an_msr);
	tvm_start(&t, 0);
	TVM_AWAIT(t.vcpu[0].tid);
	EXPECT_OK(set_filter(&t, 0, KVM_MSR_FILTER_WRITE, MSR_LSTAR, 1, nothing));
	tvm_join(&t, 0);
	EXPECT_EQ(G(&t, denied), 1);
	tvm_fini(&t);
}

GUEST(guest_reads_platform_info)
{
	uint64_t val;

	GUEST_EQ(rdmsr_safe(0xce, &val), GUEST_NO_FAULT);
	GUEST_EQ(val, 0x1f00);
	GUEST_EQ(wrmsr_safe(0xce, 0), GP);
	GUEST_SYNC(1);
	GUEST_EQ(rdmsr_safe(0xce, &val), GP);
}

TEST(platform_info_can_be_hidden)
{
	struct tvm t;

	tvm_init(&t, &guest_reads_platform_info);
	EXPECT_EQ(tvm_set_msr(&t, 0, 0xce, 0x1f00), 1);
	EXPECT_EQ(tvm_go(&t), 1);
	EXPECT_OK(enable_cap(t.fd, KVM_CAP_MSR_PLATFORM_INFO, 0));
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);
}
