// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The device: its version, its promises (KVM_CHECK_EXTENSION), the lists of
 * MSRs and CPUID leaves and their two-call protocols, and the size and
 * mappings of a vCPU's shared pages.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tvm.h"

#define BAD_PTR		((void *)8)
#define NO_SUCH_IOCTL	_IO(KVMIO, 0xfe)

TEST(version_is_12_and_takes_no_argument)
{
	int dev = tvm_open();

	EXPECT_EQ(ioctl(dev, KVM_GET_API_VERSION, 0), 12);
	EXPECT_ERRNO(ioctl(dev, KVM_GET_API_VERSION, 1), EINVAL);
	EXPECT_OK(close(dev));
}

TEST(unknown_ioctls)
{
	struct tvm t;

	tvm_init_bare(&t, 0);
	tvm_add_vcpu(&t, 0);
	EXPECT_ERRNO(ioctl(t.dev, NO_SUCH_IOCTL, 0), EINVAL);
	EXPECT_ERRNO(ioctl(t.fd, NO_SUCH_IOCTL, 0), ENOTTY);
	EXPECT_ERRNO(ioctl(t.cpu, NO_SUCH_IOCTL, 0), EINVAL);

	/* Known ones, but not of this kind of file. */
	EXPECT_ERRNO(ioctl(t.dev, KVM_RUN, 0), EINVAL);
	EXPECT_ERRNO(ioctl(t.fd, KVM_RUN, 0), ENOTTY);
	EXPECT_ERRNO(ioctl(t.fd, KVM_CREATE_VM, 0), ENOTTY);
	EXPECT_ERRNO(ioctl(t.cpu, KVM_CREATE_VCPU, 1), EINVAL);

	/* Another type is not for a vCPU at all. */
	EXPECT_ERRNO(ioctl(t.cpu, _IO('!', 0x80), 0), EINVAL);
	tvm_fini(&t);
}

TEST(create_vm_knows_only_type_0)
{
	int dev = tvm_open();
	int vm;

	EXPECT_ERRNO(ioctl(dev, KVM_CREATE_VM, 0x1000), EINVAL);
	EXPECT_ERRNO(ioctl(dev, KVM_CREATE_VM, -1l), EINVAL);
	vm = ioctl(dev, KVM_CREATE_VM, 0);
	EXPECT_OK(vm);
	EXPECT_OK(close(vm));
	EXPECT_OK(close(dev));
}

static const struct {
	int cap, min;
} promised[] = {
	{ KVM_CAP_IRQCHIP, 1 },			{ KVM_CAP_HLT, 1 },
	{ KVM_CAP_USER_MEMORY, 1 },		{ KVM_CAP_SET_TSS_ADDR, 1 },
	{ KVM_CAP_EXT_CPUID, 1 },		{ KVM_CAP_NR_VCPUS, 1 },
	{ KVM_CAP_MAX_VCPUS, 4 },		{ KVM_CAP_NR_MEMSLOTS, 1000 },
	{ KVM_CAP_MP_STATE, 1 },		{ KVM_CAP_COALESCED_MMIO, 1 },
	{ KVM_CAP_SYNC_MMU, 1 },		{ KVM_CAP_DESTROY_MEMORY_REGION_WORKS, 1 },
	{ KVM_CAP_JOIN_MEMORY_REGIONS_WORKS, 1 }, { KVM_CAP_USER_NMI, 1 },
	{ KVM_CAP_IRQ_ROUTING, 256 },		{ KVM_CAP_IRQ_INJECT_STATUS, 1 },
	{ KVM_CAP_MCE, 10 },			{ KVM_CAP_IRQFD, 1 },
	{ KVM_CAP_PIT2, 1 },			{ KVM_CAP_PIT_STATE2, 1 },
	{ KVM_CAP_IOEVENTFD, 1 },		{ KVM_CAP_SET_IDENTITY_MAP_ADDR, 1 },
	{ KVM_CAP_ADJUST_CLOCK, 1 },		{ KVM_CAP_INTERNAL_ERROR_DATA, 1 },
	{ KVM_CAP_VCPU_EVENTS, 1 },		{ KVM_CAP_DEBUGREGS, 1 },
	{ KVM_CAP_X86_ROBUST_SINGLESTEP, 1 },	{ KVM_CAP_XSAVE, 1 },
	{ KVM_CAP_XCRS, 1 },			{ KVM_CAP_GET_TSC_KHZ, 1 },
	{ KVM_CAP_TSC_DEADLINE_TIMER, 1 },	{ KVM_CAP_KVMCLOCK_CTRL, 1 },
	{ KVM_CAP_SIGNAL_MSI, 1 },		{ KVM_CAP_READONLY_MEM, 1 },
	{ KVM_CAP_CHECK_EXTENSION_VM, 1 },	{ KVM_CAP_IOEVENTFD_ANY_LENGTH, 1 },
	{ KVM_CAP_IMMEDIATE_EXIT, 1 },
};

TEST(extensions_of_device_and_vm)
{
	struct tvm t;
	size_t i;

	tvm_init_bare(&t, 0);
	for (i = 0; i < sizeof(promised) / sizeof(promised[0]); i++) {
		int dev = ioctl(t.dev, KVM_CHECK_EXTENSION, promised[i].cap);
		int vm = ioctl(t.fd, KVM_CHECK_EXTENSION, promised[i].cap);

		if (dev < promised[i].min || vm != dev)
			tap_diag("capability %d: device %d, VM %d, at least %d",
				 promised[i].cap, dev, vm, promised[i].min);
		EXPECT_GE(dev, promised[i].min);
		EXPECT_EQ(vm, dev);
	}
	/* One client compares these with 1, so 1 is their only truth. */
	EXPECT_EQ(ioctl(t.dev, KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY), 1);
	EXPECT_EQ(ioctl(t.dev, KVM_CHECK_EXTENSION, KVM_CAP_IMMEDIATE_EXIT), 1);
	EXPECT_EQ(ioctl(t.dev, KVM_CHECK_EXTENSION, KVM_CAP_XCRS), 1);

	/* Never promised by anybody on this architecture. */
	EXPECT_EQ(ioctl(t.dev, KVM_CHECK_EXTENSION, KVM_CAP_S390_UCONTROL), 0);
	EXPECT_EQ(ioctl(t.dev, KVM_CHECK_EXTENSION, 100000), 0);
	EXPECT_EQ(ioctl(t.dev, KVM_CHECK_EXTENSION, -1l), 0);
	tvm_fini(&t);
}

TEST(shared_pages_of_a_vcpu)
{
	int ring = 0, status;
	struct tvm t;
	size_t size;
	char *pages;
	pid_t pid;

	tvm_init_bare(&t, 0);
	tvm_add_vcpu(&t, 0);
	EXPECT_ERRNO(ioctl(t.dev, KVM_GET_VCPU_MMAP_SIZE, 1), EINVAL);
	size = tvm_run_size(t.dev);
	EXPECT_EQ(size % 4096, 0);
	ring = ioctl(t.dev, KVM_CHECK_EXTENSION, KVM_CAP_COALESCED_MMIO);
	EXPECT_LT((size_t)ring * 4096, size);

	/* Every page is the same one in each mapping, and can be written. */
	pages = mmap(NULL, size + 4096, PROT_READ | PROT_WRITE, MAP_SHARED, t.cpu, 0);
	ASSERT_NE(pages, MAP_FAILED);
	pages[4096] = 0x5a;
	EXPECT_EQ(((char *)t.run)[4096], 0x5a);
	t.run->request_interrupt_window = 1;
	EXPECT_EQ(pages[0], 1);
	t.run->request_interrupt_window = 0;

	/* Beyond the pages there is nothing. */
	pid = fork();
	if (!pid) {
		*(volatile char *)(pages + size) = 1;
		_exit(0);
	}
	ASSERT_EQ(waitpid(pid, &status, 0), pid);
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
	EXPECT_OK(munmap(pages, size + 4096));
	tvm_fini(&t);
}

TEST(msr_lists_take_two_calls)
{
	static const unsigned long lists[] = {
		KVM_GET_MSR_INDEX_LIST, KVM_GET_MSR_FEATURE_INDEX_LIST,
	};
	struct kvm_msr_list empty = { .nmsrs = 0 }, *list;
	int dev = tvm_open();
	size_t i, n;

	for (i = 0; i < 2; i++) {
		if (i && !ioctl(dev, KVM_CHECK_EXTENSION, KVM_CAP_GET_MSR_FEATURES))
			break;
		empty.nmsrs = 0;
		EXPECT_ERRNO(ioctl(dev, lists[i], &empty), E2BIG);
		ASSERT_GT(empty.nmsrs, 0);
		list = calloc(1, sizeof(*list) + (empty.nmsrs + 1) * sizeof(__u32));

		/* One too few: again only the count. */
		list->nmsrs = empty.nmsrs - 1;
		EXPECT_ERRNO(ioctl(dev, lists[i], list), E2BIG);
		EXPECT_EQ(list->nmsrs, empty.nmsrs);

		/* One too many: the true count comes back. */
		list->nmsrs = empty.nmsrs + 1;
		list->indices[empty.nmsrs] = 0x5a5a5a5a;
		EXPECT_OK(ioctl(dev, lists[i], list));
		EXPECT_EQ(list->nmsrs, empty.nmsrs);
		EXPECT_EQ(list->indices[empty.nmsrs], 0x5a5a5a5a);
		for (n = 1; n < list->nmsrs; n++)
			EXPECT_NE(list->indices[n], list->indices[n - 1]);
		EXPECT_ERRNO(ioctl(dev, lists[i], BAD_PTR), EFAULT);
		free(list);
	}
	EXPECT_OK(close(dev));
}

TEST(supported_cpuid_fits_80_entries)
{
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + 256 * sizeof(cpuid->entries[0]));
	int dev = tvm_open();
	uint32_t n;

	/* Too small, however small: no count, so that clients double. */
	for (n = 0; n < 4; n++) {
		cpuid->nent = n;
		EXPECT_ERRNO(ioctl(dev, KVM_GET_SUPPORTED_CPUID, cpuid), E2BIG);
	}
	cpuid->nent = 80;
	ASSERT_OK(ioctl(dev, KVM_GET_SUPPORTED_CPUID, cpuid));
	n = cpuid->nent;
	EXPECT_GE(n, 10);
	EXPECT_LE(n, 80);

	cpuid->nent = n - 1;
	EXPECT_ERRNO(ioctl(dev, KVM_GET_SUPPORTED_CPUID, cpuid), E2BIG);
	cpuid->nent = n;
	EXPECT_OK(ioctl(dev, KVM_GET_SUPPORTED_CPUID, cpuid));
	EXPECT_EQ(cpuid->nent, n);
	EXPECT_ERRNO(ioctl(dev, KVM_GET_SUPPORTED_CPUID, BAD_PTR), EFAULT);
	free(cpuid);
	EXPECT_OK(close(dev));
}

TEST(mce_capability)
{
	int dev = tvm_open();
	uint64_t cap = 0;

	EXPECT_OK(ioctl(dev, KVM_X86_GET_MCE_CAP_SUPPORTED, &cap));
	EXPECT_TRUE(cap & (1ull << 8));		/* MCG_CTL_P */
	EXPECT_ERRNO(ioctl(dev, KVM_X86_GET_MCE_CAP_SUPPORTED, BAD_PTR), EFAULT);
	EXPECT_OK(close(dev));
}
