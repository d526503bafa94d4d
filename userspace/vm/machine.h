/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One virtual machine: what it is made of, and its life from power on to power
 * off. A reset is a power cycle in place: the process, the memory file, the
 * open images and the console stay, everything that holds guest state is made
 * anew, so that nothing of the old life can leak into the new one.
 */
#ifndef VM_MACHINE_H
#define VM_MACHINE_H

#include "../dev/disk.h"
#include "../dev/pci.h"
#include "../dev/pm.h"
#include "../dev/rtc.h"
#include "../dev/serial.h"
#include "../dev/virtio_blk.h"
#include "../dev/virtio_rng.h"
#include "../util/console.h"
#include "cpu.h"

#define MACHINE_MAX_CPUS	254	/* APIC ids of 8 bits, 255 is broadcast */
#define MACHINE_MAX_DISKS	16

/* A file that is read at each power on; opened once, as it was at the start. */
struct machine_file {
	const char *path;		/* NULL if there is none */
	int fd;
};

struct machine_config {
	const char *name;
	const char *device;
	unsigned int cpus;
	uint64_t memory;		/* bytes */
	const char *cmdline;
	struct machine_file kernel;
	struct machine_file initrd;
	unsigned int nr_disks;
	struct disk disks[MACHINE_MAX_DISKS];
};

struct machine {
	const struct machine_config *config;
	struct loop *loop;
	struct console *con;
	struct kvm kvm;
	struct ram ram;
	/* From here on only while the power is on. */
	struct bus bus;
	struct serial serial;
	struct rtc rtc;
	struct pm pm;
	struct pci_bus pci;
	struct rng rng;
	unsigned int nr_blks;
	struct blk blks[MACHINE_MAX_DISKS];
	unsigned int nr_vcpus;
	struct vcpu *vcpus;
};

/* Opens the device and takes the memory. 0 or a negative errno, with a sentence. */
int machine_init(struct machine *m, const struct machine_config *config,
		 struct loop *loop, struct console *con);
void machine_fini(struct machine *m);

/* Builds the machine, loads the kernel and lets the vCPUs run. */
int machine_power_on(struct machine *m);

/* Stops the vCPUs; their counters and the devices can still be looked at. */
void machine_stop(struct machine *m);

/* Takes everything apart; the counterpart of machine_power_on(). */
void machine_power_off(struct machine *m);

/* Prints devices and registers while it runs. */
void machine_show(struct machine *m);

#endif /* VM_MACHINE_H */
