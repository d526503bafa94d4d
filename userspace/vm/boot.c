// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What the boot protocols have in common: telling them apart, the initrd and
 * the command line.
 */
#include <elf.h>
#include <errno.h>
#include <string.h>

#include "../util/util.h"
#include "boot.h"

int boot_load(const struct boot_source *src, const struct ram *ram,
	      struct boot_entry *entry)
{
	if (src->kernel_len >= SELFMAG && !memcmp(src->kernel, ELFMAG, SELFMAG))
		return pvh_load(src, ram, entry);
	return bzimage_load(src, ram, entry);
}

int boot_place_initrd(const struct boot_source *src, const struct ram *ram,
		      uint64_t floor, uint64_t limit, uint64_t *gpa)
{
	*gpa = 0;
	if (!src->initrd || !src->initrd_len)
		return 0;
	limit = align_down(MIN(limit, ram->regions[0].size), 4096);
	if (floor > limit || src->initrd_len > limit - floor)
		goto out_no_room;
	*gpa = align_down(limit - src->initrd_len, 4096);
	if (*gpa < floor)
		goto out_no_room;
	return ram_write(ram, *gpa, src->initrd, src->initrd_len);

out_no_room:
	return fail(ENOMEM, "the initrd (%zu KiB) does not fit beside the kernel; give the guest more memory",
		    src->initrd_len / 1024);
}

int boot_place_cmdline(const struct boot_source *src, const struct ram *ram,
		       size_t max)
{
	size_t len = strlen(src->cmdline);

	max = MIN(max, (size_t)MEMORY_CMDLINE_MAX - 1);
	if (len > max)
		return fail(E2BIG, "the kernel's command line has %zu bytes, %s takes %zu",
			    len, src->name, max);
	return ram_write(ram, MEMORY_CMDLINE, src->cmdline, len + 1);
}
