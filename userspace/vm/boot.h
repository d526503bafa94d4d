/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Loads a kernel the way its boot protocol asks, without firmware. The loaders
 * are functions over buffers: files may be truncated or hostile, and then the
 * answer is a sentence and an error, never a read beyond the buffer or a write
 * outside of guest memory.
 */
#ifndef VM_BOOT_H
#define VM_BOOT_H

#include "memory.h"

struct boot_source {
	const char *name;		/* of the kernel, for sentences */
	const uint8_t *kernel;
	size_t kernel_len;
	const uint8_t *initrd;		/* NULL without */
	size_t initrd_len;
	const char *cmdline;
	uint64_t rsdp;			/* guest-physical address of ACPI's root */
};

enum boot_mode {
	BOOT_LONG_MODE,		/* Linux's 64-bit entry: information in RSI */
	BOOT_PROTECTED,		/* PVH: paging off, information in EBX */
};

/* How the first vCPU starts. */
struct boot_entry {
	enum boot_mode mode;
	uint64_t rip;
	uint64_t info;
};

/*
 * Loads what @src describes into @ram, which is all zero, and fills @entry.
 * 0, or -ENOEXEC (not a kernel, or damaged), -ENOMEM (does not fit in @ram),
 * -E2BIG (command line), with a sentence.
 */
int boot_load(const struct boot_source *src, const struct ram *ram,
	      struct boot_entry *entry);

/* The two formats; boot_load() chooses by the first bytes. */
int bzimage_load(const struct boot_source *src, const struct ram *ram,
		 struct boot_entry *entry);
int pvh_load(const struct boot_source *src, const struct ram *ram,
	     struct boot_entry *entry);

/*
 * Puts the initrd as high as possible in RAM below @limit but above @floor,
 * the end of the kernel. *@gpa is 0 if there is no initrd.
 */
int boot_place_initrd(const struct boot_source *src, const struct ram *ram,
		      uint64_t floor, uint64_t limit, uint64_t *gpa);

/* Puts the command line at MEMORY_CMDLINE; @max bytes without the final 0. */
int boot_place_cmdline(const struct boot_source *src, const struct ram *ram,
		       size_t max);

#endif /* VM_BOOT_H */
