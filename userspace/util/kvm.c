// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * ioctls on the device and on the VM. The API is that of <linux/kvm.h>, so
 * that the same program runs on /dev/fonda and on /dev/kvm.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "kvm.h"
#include "util.h"

/*
 * Three pages that VT-x without unrestricted guest would use for real mode;
 * an address that no RAM and no device of the machine has.
 */
#define TSS_ADDRESS	0xfffbd000

static const struct {
	long cap;
	const char *what;
} required[] = {
	{ KVM_CAP_USER_MEMORY,		"user memory slots" },
	{ KVM_CAP_IRQCHIP,		"interrupt controllers in the kernel" },
	{ KVM_CAP_PIT2,			"the timer (PIT) in the kernel" },
	{ KVM_CAP_EXT_CPUID,		"CPUID leaves" },
	{ KVM_CAP_SET_TSS_ADDR,		"KVM_SET_TSS_ADDR" },
	{ KVM_CAP_IMMEDIATE_EXIT,	"immediate exit" },
	{ KVM_CAP_SIGNAL_MSI,		"message-signalled interrupts" },
};

static const char *remedy(int err)
{
	switch (err) {
	case ENOENT:
		return "is the module loaded? Try 'fonda doctor'";
	case EACCES:
	case EPERM:
		return "run as root, or join the group that owns it";
	case ENODEV:
	case ENXIO:
		return "the module is not ready. Try 'fonda doctor'";
	default:
		return "try 'fonda doctor'";
	}
}

int kvm_check(const struct kvm *kvm, long cap)
{
	int ret = ioctl(kvm->dev_fd, KVM_CHECK_EXTENSION, cap);

	return ret < 0 ? 0 : ret;
}

int kvm_open(struct kvm *kvm, const char *path)
{
	int version, ret;
	size_t i;

	kvm->path = path;
	kvm->vm_fd = -1;
	kvm->dev_fd = open(path, O_RDWR | O_CLOEXEC);
	if (kvm->dev_fd < 0) {
		ret = errno;
		return fail(ret, "cannot open %s: %s; %s", path, strerror(ret),
			    remedy(ret));
	}

	version = ioctl(kvm->dev_fd, KVM_GET_API_VERSION, 0);
	if (version != KVM_API_VERSION) {
		if (version < 0)
			ret = fail(ENOTTY, "%s is not a virtualisation device", path);
		else
			ret = fail(ENOTSUP, "%s speaks API version %d, needed is %d",
				   path, version, KVM_API_VERSION);
		goto out_close;
	}
	for (i = 0; i < ARRAY_SIZE(required); i++) {
		if (!kvm_check(kvm, required[i].cap)) {
			ret = fail(ENOTSUP, "%s does not offer %s", path,
				   required[i].what);
			goto out_close;
		}
	}

	kvm->run_size = ioctl(kvm->dev_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (kvm->run_size < (int)sizeof(struct kvm_run)) {
		ret = fail(ENOTSUP, "%s answers nonsense for the size of a vCPU", path);
		goto out_close;
	}
	/* API documentation: without an answer NR_VCPUS holds, and without that 4. */
	kvm->max_vcpus = kvm_check(kvm, KVM_CAP_MAX_VCPUS);
	if (!kvm->max_vcpus)
		kvm->max_vcpus = kvm_check(kvm, KVM_CAP_NR_VCPUS);
	if (!kvm->max_vcpus)
		kvm->max_vcpus = 4;
	kvm->ioeventfd = kvm_check(kvm, KVM_CAP_IOEVENTFD);
	kvm->deadline_timer = kvm_check(kvm, KVM_CAP_TSC_DEADLINE_TIMER);
	return 0;

out_close:
	close(kvm->dev_fd);
	kvm->dev_fd = -1;
	return ret;
}

void kvm_close(struct kvm *kvm)
{
	close(kvm->dev_fd);
	kvm->dev_fd = -1;
}

int kvm_create_vm(struct kvm *kvm)
{
	/* Port 0x61, by which kernels calibrate against PIT channel 2. */
	struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };
	const char *step;
	int ret;

	/* A signal may interrupt the making of a VM; that is not a failure. */
	step = "KVM_CREATE_VM";
	do {
		kvm->vm_fd = ioctl(kvm->dev_fd, KVM_CREATE_VM, 0UL);
	} while (kvm->vm_fd < 0 && errno == EINTR);
	if (kvm->vm_fd < 0)
		goto out_fail;

	step = "KVM_SET_TSS_ADDR";
	if (ioctl(kvm->vm_fd, KVM_SET_TSS_ADDR, (unsigned long)TSS_ADDRESS))
		goto out_destroy;
	step = "KVM_CREATE_IRQCHIP";
	if (ioctl(kvm->vm_fd, KVM_CREATE_IRQCHIP, 0UL))
		goto out_destroy;
	step = "KVM_CREATE_PIT2";
	if (ioctl(kvm->vm_fd, KVM_CREATE_PIT2, &pit))
		goto out_destroy;
	return 0;

out_destroy:
	ret = errno;
	kvm_destroy_vm(kvm);
	errno = ret;
out_fail:
	ret = errno;
	if (ret == EBUSY)
		return fail(ret, "%s: the CPU's virtualisation is in use by another hypervisor; try 'fonda doctor'",
			    kvm->path);
	return fail(ret, "%s: %s failed: %s", kvm->path, step, strerror(ret));
}

void kvm_destroy_vm(struct kvm *kvm)
{
	close(kvm->vm_fd);
	kvm->vm_fd = -1;
}

void kvm_set_irq(const struct kvm *kvm, unsigned int gsi, bool level)
{
	struct kvm_irq_level irq = { .irq = gsi, .level = level };

	if (ioctl(kvm->vm_fd, KVM_IRQ_LINE, &irq))
		warn("KVM_IRQ_LINE on %u failed: %s", gsi, strerror(errno));
}

void kvm_signal_msi(const struct kvm *kvm, uint64_t address, uint32_t data)
{
	struct kvm_msi msi = {
		.address_lo = (uint32_t)address,
		.address_hi = (uint32_t)(address >> 32),
		.data = data,
	};

	/* The guest chose the address: a message to nobody is its own loss. */
	ioctl(kvm->vm_fd, KVM_SIGNAL_MSI, &msi);
}

int kvm_ioeventfd(const struct kvm *kvm, uint64_t gpa, uint16_t value, int fd,
		  bool on)
{
	struct kvm_ioeventfd io = {
		.datamatch = value,
		.addr = gpa,
		.len = sizeof(value),
		.fd = fd,
		.flags = KVM_IOEVENTFD_FLAG_DATAMATCH,
	};

	if (!on)
		io.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
	return ioctl(kvm->vm_fd, KVM_IOEVENTFD, &io) ? -errno : 0;
}

int kvm_set_memory(const struct kvm *kvm, unsigned int slot, uint64_t gpa,
		   uint64_t size, void *hva)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.guest_phys_addr = gpa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)hva,
	};
	int ret;

	if (!ioctl(kvm->vm_fd, KVM_SET_USER_MEMORY_REGION, &region))
		return 0;
	ret = errno;
	return fail(ret, "cannot give the guest %llu MiB of memory at %#llx: %s",
		    (unsigned long long)(size / MIB), (unsigned long long)gpa,
		    strerror(ret));
}
