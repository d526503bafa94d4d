// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The bzImage loader: "The Linux/x86 Boot Protocol" of the kernel's
 * documentation, section "64-bit Boot Protocol".
 */
#include <asm/bootparam.h>
#include <errno.h>
#include <string.h>

#include "../util/util.h"
#include "boot.h"

#define HEADER_OFFSET		0x1f1
#define HEADER_MAGIC		0x53726448	/* "HdrS" */
#define BOOT_FLAG		0xaa55
#define MIN_VERSION		0x020c		/* the first with a 64-bit entry */
#define SECTOR			512
#define DEFAULT_SETUP_SECTS	4
#define ENTRY_64		0x200		/* from the start of the payload */
#define LOADER_UNDEFINED	0xff		/* a boot loader without a number */

/* The header as far as the file has it, the rest zero. 0 or -ENOEXEC. */
static int read_header(const struct boot_source *src, struct setup_header *hdr)
{
	size_t end, len;

	memset(hdr, 0, sizeof(*hdr));
	if (src->kernel_len < HEADER_OFFSET + sizeof(*hdr))
		return fail(ENOEXEC, "%s is too short to be a kernel (%zu bytes)",
			    src->name, src->kernel_len);
	/* The second byte of the jump at 0x200 says where the header ends. */
	end = 0x202 + src->kernel[0x201];
	len = MIN(end - HEADER_OFFSET, sizeof(*hdr));
	memcpy(hdr, src->kernel + HEADER_OFFSET, len);

	if (hdr->boot_flag != BOOT_FLAG || hdr->header != HEADER_MAGIC)
		return fail(ENOEXEC, "%s is neither a bzImage nor an ELF kernel", src->name);
	if (hdr->version < MIN_VERSION || !(hdr->xloadflags & XLF_KERNEL_64))
		return fail(ENOEXEC, "%s is not a 64-bit kernel of Linux 3.8 or newer",
			    src->name);
	if (!(hdr->loadflags & LOADED_HIGH) || !hdr->pref_address || !hdr->init_size)
		return fail(ENOEXEC, "%s has a damaged header", src->name);
	return 0;
}

static void fill_e820(struct boot_params *bp, const struct ram *ram)
{
	struct memory_range map[MEMORY_MAX_RANGES];
	unsigned int i, n = memory_map(ram, map);

	for (i = 0; i < n; i++)
		bp->e820_table[i] = (struct boot_e820_entry){
			.addr = map[i].start, .size = map[i].size, .type = map[i].type,
		};
	bp->e820_entries = (__u8)n;
}

int bzimage_load(const struct boot_source *src, const struct ram *ram,
		 struct boot_entry *entry)
{
	struct boot_params bp = { 0 };
	struct setup_header *hdr = &bp.hdr;
	uint64_t load, end, initrd;
	size_t setup, payload;
	int ret;

	ret = read_header(src, hdr);
	if (ret)
		return ret;
	setup = (size_t)(hdr->setup_sects ? hdr->setup_sects : DEFAULT_SETUP_SECTS) + 1;
	setup *= SECTOR;
	if (setup >= src->kernel_len)
		return fail(ENOEXEC, "%s is truncated: it ends in its own setup code", src->name);
	payload = src->kernel_len - setup;
	/* syssize counts 16 bytes; a file may be longer (a signature follows). */
	if (payload < (uint64_t)hdr->syssize * 16)
		return fail(ENOEXEC, "%s is truncated: %zu bytes of %llu", src->name,
			    payload, (unsigned long long)hdr->syssize * 16);

	/* Unpacking in place takes more than the file: init_size says how much. */
	load = hdr->pref_address;
	if (load < MEMORY_HIGH ||
	    __builtin_add_overflow(load, MAX((uint64_t)hdr->init_size, payload), &end))
		return fail(ENOEXEC, "%s has a damaged header", src->name);
	if (end > ram->regions[0].size)
		return fail(ENOMEM, "%s needs %llu MiB of memory, the guest has %llu MiB",
			    src->name, (unsigned long long)(end / MIB + 1),
			    (unsigned long long)(ram->size / MIB));
	ret = boot_place_initrd(src, ram, end, (uint64_t)hdr->initrd_addr_max + 1, &initrd);
	if (ret)
		return ret;
	ret = boot_place_cmdline(src, ram, hdr->cmdline_size);
	if (ret)
		return ret;
	ret = ram_write(ram, load, src->kernel + setup, payload);
	if (ret)
		return ret;

	hdr->type_of_loader = LOADER_UNDEFINED;
	hdr->code32_start = (__u32)load;
	hdr->ramdisk_image = (__u32)initrd;
	hdr->ramdisk_size = initrd ? (__u32)src->initrd_len : 0;
	hdr->cmd_line_ptr = MEMORY_CMDLINE;
	hdr->setup_data = 0;
	bp.acpi_rsdp_addr = src->rsdp;
	fill_e820(&bp, ram);

	entry->mode = BOOT_LONG_MODE;
	entry->rip = load + ENTRY_64;
	entry->info = MEMORY_BOOT_INFO;
	return ram_write(ram, MEMORY_BOOT_INFO, &bp, sizeof(bp));
}
