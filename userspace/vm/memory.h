/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The map of guest-physical memory: what firmware would tell the guest.
 */
#ifndef VM_MEMORY_H
#define VM_MEMORY_H

#include "../dev/ram.h"
#include "../util/kvm.h"

/* Below 1 MiB: where the boot loaders and the tables put things. */
#define MEMORY_GDT		0x00000500
#define MEMORY_BOOT_INFO	0x00007000	/* zero page or PVH start info */
#define MEMORY_PAGE_TABLES	0x00009000	/* six pages */
#define MEMORY_CMDLINE		0x00020000
#define MEMORY_CMDLINE_MAX	0x00010000
#define MEMORY_EBDA		0x0009fc00	/* end of conventional memory */
#define MEMORY_ACPI		0x000e0000
#define MEMORY_ACPI_SIZE	0x00020000
#define MEMORY_HIGH		0x00100000

/* Limits of --memory: bytes. */
#define MEMORY_MIN		(32 * MIB)
#define MEMORY_MAX		(1024 * GIB)

enum memory_type {		/* numbers of the e820 map and of PVH */
	MEMORY_RAM = 1,
	MEMORY_RESERVED = 2,
};

struct memory_range {
	uint64_t start;
	uint64_t size;
	enum memory_type type;
};

#define MEMORY_MAX_RANGES	8

/* Fills @map in ascending order and returns the number of ranges. */
unsigned int memory_map(const struct ram *ram, struct memory_range map[MEMORY_MAX_RANGES]);

/* Gives @ram to the VM. 0 or a negative errno, with a sentence. */
int memory_attach(const struct ram *ram, const struct kvm *kvm);

#endif /* VM_MEMORY_H */
