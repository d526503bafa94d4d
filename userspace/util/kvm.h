/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The device node and the VM behind it: one function for each operation that
 * the device model needs of the kernel. What concerns one vCPU is in vm/cpu.c.
 * Functions return 0 or a negative errno; those that can fail for a reason
 * that a user can mend have printed a sentence.
 */
#ifndef UTIL_KVM_H
#define UTIL_KVM_H

#include <stdbool.h>
#include <stdint.h>
#include <linux/fonda.h>
#include <linux/kvm.h>

struct kvm {
	const char *path;
	int dev_fd;
	int vm_fd;
	int run_size;		/* bytes of a vCPU's shared area */
	int max_vcpus;
	bool ioeventfd;		/* guest writes can signal an eventfd */
	bool deadline_timer;	/* the local APIC has the TSC-deadline mode */
};

/*
 * Opens the device @path, checks its API and everything that a machine needs
 * of it. -ENOENT, -EACCES and others of open(), -ENOTTY, -ENOTSUP.
 */
int kvm_open(struct kvm *kvm, const char *path);
void kvm_close(struct kvm *kvm);

/* Makes the VM with its interrupt controllers and timer in the kernel. */
int kvm_create_vm(struct kvm *kvm);
void kvm_destroy_vm(struct kvm *kvm);

/* KVM_CHECK_EXTENSION: 0 if the device does not have @cap. */
int kvm_check(const struct kvm *kvm, long cap);

/* Drives the wire into pin @gsi of the PIC and the IOAPIC. */
void kvm_set_irq(const struct kvm *kvm, unsigned int gsi, bool level);

/* Sends one message-signalled interrupt. */
void kvm_signal_msi(const struct kvm *kvm, uint64_t address, uint32_t data);

/*
 * From now on a guest's 16-bit write of @value to guest-physical address
 * @gpa signals @fd and does not leave the kernel; or no longer.
 */
int kvm_ioeventfd(const struct kvm *kvm, uint64_t gpa, uint16_t value, int fd,
		  bool on);

/* Makes @size bytes at @hva the guest's memory from @gpa on. */
int kvm_set_memory(const struct kvm *kvm, unsigned int slot, uint64_t gpa,
		   uint64_t size, void *hva);

#endif /* UTIL_KVM_H */
