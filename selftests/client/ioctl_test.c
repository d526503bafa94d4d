// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Which of KVM's ioctls on x86 the device has. Each is called with arguments that
 * it cannot like; one that is not there answers like a number that nobody uses.
 * The lines "NAME | file | status" are what the compatibility table is made of.
 */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tvm.h"

#define NO_SUCH_IOCTL	_IO(KVMIO, 0xfe)

enum file { DEVICE, VM, VCPU, NR_FILES };

static const char *const file_names[NR_FILES] = { "device", "VM", "vCPU" };

struct known {
	const char *name;
	unsigned long cmd;
	enum file file;
	const char *missing;	/* why, or NULL: it must be there */
};

#define HAS(_file, _cmd)		{ #_cmd, _cmd, _file, NULL }
#define HAS_NOT(_file, _cmd, _why)	{ #_cmd, _cmd, _file, _why }

#ifndef KVM_SET_USER_MEMORY_REGION2
#define KVM_SET_USER_MEMORY_REGION2	_IOW(KVMIO, 0x49, uint64_t[20])
#endif

static const struct known known[] = {
	HAS(DEVICE, KVM_GET_API_VERSION), HAS(DEVICE, KVM_CREATE_VM),
	HAS(DEVICE, KVM_CHECK_EXTENSION), HAS(DEVICE, KVM_GET_VCPU_MMAP_SIZE),
	HAS(DEVICE, KVM_GET_SUPPORTED_CPUID), HAS(DEVICE, KVM_GET_MSR_INDEX_LIST),
	HAS(DEVICE, KVM_GET_MSR_FEATURE_INDEX_LIST), HAS(DEVICE, KVM_GET_MSRS),
	HAS(DEVICE, KVM_X86_GET_MCE_CAP_SUPPORTED),
	HAS(DEVICE, KVM_GET_EMULATED_CPUID),
	HAS_NOT(DEVICE, KVM_GET_SUPPORTED_HV_CPUID, "Hyper-V"),

	HAS(VM, KVM_CREATE_VCPU), HAS(VM, KVM_CHECK_EXTENSION), HAS(VM, KVM_ENABLE_CAP),
	HAS(VM, KVM_SET_USER_MEMORY_REGION), HAS(VM, KVM_SET_USER_MEMORY_REGION2),
	HAS(VM, KVM_SET_NR_MMU_PAGES), HAS(VM, KVM_GET_DIRTY_LOG),
	HAS(VM, KVM_CLEAR_DIRTY_LOG), HAS(VM, KVM_RESET_DIRTY_RINGS),
	HAS(VM, KVM_SET_TSS_ADDR), HAS(VM, KVM_SET_IDENTITY_MAP_ADDR),
	HAS(VM, KVM_SET_BOOT_CPU_ID), HAS(VM, KVM_X86_SET_MSR_FILTER),
	HAS(VM, KVM_CREATE_IRQCHIP), HAS(VM, KVM_GET_IRQCHIP), HAS(VM, KVM_SET_IRQCHIP),
	HAS(VM, KVM_CREATE_PIT2), HAS(VM, KVM_GET_PIT2), HAS(VM, KVM_SET_PIT2),
	HAS(VM, KVM_REINJECT_CONTROL), HAS(VM, KVM_IRQ_LINE), HAS(VM, KVM_IRQ_LINE_STATUS),
	HAS(VM, KVM_SET_GSI_ROUTING), HAS(VM, KVM_SIGNAL_MSI), HAS(VM, KVM_IRQFD),
	HAS(VM, KVM_IOEVENTFD), HAS(VM, KVM_REGISTER_COALESCED_MMIO),
	HAS(VM, KVM_UNREGISTER_COALESCED_MMIO), HAS(VM, KVM_GET_CLOCK),
	HAS(VM, KVM_SET_CLOCK), HAS(VM, KVM_GET_TSC_KHZ),
	HAS_NOT(VM, KVM_SET_TSC_KHZ, "no TSC scaling; a vCPU has it"),
	HAS_NOT(VM, KVM_CREATE_PIT, "superseded by KVM_CREATE_PIT2"),
	HAS_NOT(VM, KVM_GET_PIT, "superseded by KVM_GET_PIT2"),
	HAS_NOT(VM, KVM_SET_PIT, "superseded by KVM_SET_PIT2"),
	HAS_NOT(VM, KVM_CREATE_DEVICE, "VFIO"),
	HAS_NOT(VM, KVM_SET_PMU_EVENT_FILTER, "PMU"),
	HAS_NOT(VM, KVM_MEMORY_ENCRYPT_OP, "SEV"),
	HAS_NOT(VM, KVM_MEMORY_ENCRYPT_REG_REGION, "SEV"),
	HAS_NOT(VM, KVM_MEMORY_ENCRYPT_UNREG_REGION, "SEV"),
	HAS_NOT(VM, KVM_HYPERV_EVENTFD, "Hyper-V"),
	HAS_NOT(VM, KVM_XEN_HVM_CONFIG, "Xen"), HAS_NOT(VM, KVM_XEN_HVM_GET_ATTR, "Xen"),
	HAS_NOT(VM, KVM_XEN_HVM_SET_ATTR, "Xen"), HAS_NOT(VM, KVM_XEN_HVM_EVTCHN_SEND, "Xen"),

	HAS(VCPU, KVM_GET_REGS), HAS(VCPU, KVM_SET_REGS), HAS(VCPU, KVM_GET_SREGS),
	HAS(VCPU, KVM_SET_SREGS), HAS(VCPU, KVM_GET_SREGS2), HAS(VCPU, KVM_SET_SREGS2),
	HAS(VCPU, KVM_GET_FPU), HAS(VCPU, KVM_SET_FPU),
	HAS(VCPU, KVM_GET_XSAVE), HAS(VCPU, KVM_SET_XSAVE), HAS(VCPU, KVM_GET_XSAVE2),
	HAS(VCPU, KVM_GET_XCRS), HAS(VCPU, KVM_SET_XCRS), HAS(VCPU, KVM_GET_DEBUGREGS),
	HAS(VCPU, KVM_SET_DEBUGREGS), HAS(VCPU, KVM_GET_VCPU_EVENTS),
	HAS(VCPU, KVM_SET_VCPU_EVENTS), HAS(VCPU, KVM_GET_MP_STATE),
	HAS(VCPU, KVM_SET_MP_STATE), HAS(VCPU, KVM_GET_LAPIC), HAS(VCPU, KVM_SET_LAPIC),
	HAS(VCPU, KVM_INTERRUPT), HAS(VCPU, KVM_NMI), HAS(VCPU, KVM_SET_SIGNAL_MASK),
	HAS(VCPU, KVM_SET_CPUID2), HAS(VCPU, KVM_GET_CPUID2), HAS(VCPU, KVM_GET_MSRS),
	HAS(VCPU, KVM_SET_MSRS), HAS(VCPU, KVM_X86_SETUP_MCE), HAS(VCPU, KVM_SET_VAPIC_ADDR),
	HAS(VCPU, KVM_SET_TSC_KHZ), HAS(VCPU, KVM_GET_TSC_KHZ), HAS(VCPU, KVM_RUN),
	HAS(VCPU, KVM_SET_CPUID), HAS(VCPU, KVM_TRANSLATE), HAS(VCPU, KVM_X86_SET_MCE),
	HAS(VCPU, KVM_HAS_DEVICE_ATTR), HAS(VCPU, KVM_GET_DEVICE_ATTR),
	HAS(VCPU, KVM_SET_DEVICE_ATTR), HAS(VCPU, KVM_KVMCLOCK_CTRL),
	HAS_NOT(VCPU, KVM_TPR_ACCESS_REPORTING, "for guests of 2007"),
	HAS_NOT(VCPU, KVM_SMI, "SMM"),
	HAS_NOT(VCPU, KVM_GET_NESTED_STATE, "nested virtualisation"),
	HAS_NOT(VCPU, KVM_SET_NESTED_STATE, "nested virtualisation"),
	HAS_NOT(VCPU, KVM_XEN_VCPU_GET_ATTR, "Xen"), HAS_NOT(VCPU, KVM_XEN_VCPU_SET_ATTR, "Xen"),
};

/* All that a call says of itself, folded: bytes of errno for each argument. */
static uint64_t answers(int fd, unsigned long cmd, void *read_only, void *zeros)
{
	const unsigned long args[] = { 0, 1, 8, (unsigned long)read_only, (unsigned long)zeros };
	uint64_t all = 0;
	unsigned int i;

	for (i = 0; i < sizeof(args) / sizeof(args[0]); i++)
		all = all << 8 | (ioctl(fd, cmd, args[i]) < 0 ? (uint64_t)errno : 0);
	return all;
}

static void probe(enum file file)
{
	long page = sysconf(_SC_PAGESIZE);
	/* KVM_KVMCLOCK_CTRL is for guests that have a clock. */
	const struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} clock = { { .nmsrs = 1 }, { .index = 0x4b564d01, .data = GUEST_DATA | 1 } };
	void *read_only, *zeros;
	struct tvm t;
	unsigned int i;

	read_only = mmap(NULL, 2 * page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	zeros = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		const struct known *k = &known[i];
		bool there;
		int fd;

		if (k->file != file)
			continue;
		tvm_init_bare(&t, file == VCPU ? TVM_IRQCHIP : 0);
		tvm_add_vcpu(&t, 0);
		if (file == VCPU)
			EXPECT_OK(ioctl(t.cpu, KVM_SET_MSRS, &clock));
		fd = file == DEVICE ? t.dev : file == VM ? t.fd : t.cpu;
		memset(zeros, 0, 2 * page);
		there = answers(fd, k->cmd, read_only, zeros) !=
			answers(fd, NO_SUCH_IOCTL, read_only, zeros);
		tap_diag("%s | %s | %s", k->name, file_names[file],
			 there ? "yes" : k->missing ? k->missing : "missing");
		/* The reference has more, and may be older than this one. */
		if (!tvm_is_stock() ||
		    (!k->missing && k->cmd != KVM_SET_USER_MEMORY_REGION2))
			EXPECT_EQ(there, !k->missing);
		tvm_fini(&t);
	}
	munmap(read_only, 2 * page);
	munmap(zeros, 2 * page);
}

TEST(of_the_device)
{
	probe(DEVICE);
}

TEST(of_a_vm)
{
	probe(VM);
}

TEST(of_a_vcpu)
{
	probe(VCPU);
}
