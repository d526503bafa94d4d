// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The loader for ELF kernels with a PVH entry: "x86/HVM direct boot ABI" of the
 * Xen project's documentation. Linux's vmlinux has the note, and so do other
 * systems' kernels.
 */
#include <elf.h>
#include <errno.h>
#include <string.h>

#include "../util/util.h"
#include "boot.h"

#define NOTE_NAME		"Xen"
#define NOTE_PHYS32_ENTRY	18
#define START_MAGIC		0x336ec578
#define START_VERSION		1	/* with a memory map */
#define MAX_SEGMENTS		64

struct start_info {
	uint32_t magic;
	uint32_t version;
	uint32_t flags;
	uint32_t nr_modules;
	uint64_t modules;
	uint64_t cmdline;
	uint64_t rsdp;
	uint64_t memmap;
	uint32_t memmap_entries;
	uint32_t reserved;
};

struct start_module {
	uint64_t address;
	uint64_t size;
	uint64_t cmdline;
	uint64_t reserved;
};

struct start_range {
	uint64_t address;
	uint64_t size;
	uint32_t type;
	uint32_t reserved;
};

/* Everything that starts at MEMORY_BOOT_INFO. */
struct start_area {
	struct start_info info;
	struct start_module module;
	struct start_range ranges[MEMORY_MAX_RANGES];
};

/* A program header of either class. */
struct segment {
	uint32_t type;
	uint64_t offset, address, file_size, memory_size;
};

static bool in_file(const struct boot_source *src, uint64_t offset, uint64_t len)
{
	return offset <= src->kernel_len && len <= src->kernel_len - offset;
}

/* Reads program header @i. False if it is not in the file. */
static bool read_segment(const struct boot_source *src, unsigned int i,
			 struct segment *seg)
{
	const uint8_t *k = src->kernel;
	Elf64_Ehdr eh64;
	Elf32_Ehdr eh32;
	Elf64_Phdr ph64;
	Elf32_Phdr ph32;
	uint64_t at;

	if (k[EI_CLASS] == ELFCLASS64) {
		memcpy(&eh64, k, sizeof(eh64));
		at = eh64.e_phoff + (uint64_t)i * sizeof(ph64);
		if (at < eh64.e_phoff || !in_file(src, at, sizeof(ph64)))
			return false;
		memcpy(&ph64, k + at, sizeof(ph64));
		*seg = (struct segment){ ph64.p_type, ph64.p_offset, ph64.p_paddr,
					 ph64.p_filesz, ph64.p_memsz };
	} else {
		memcpy(&eh32, k, sizeof(eh32));
		at = eh32.e_phoff + (uint64_t)i * sizeof(ph32);
		if (!in_file(src, at, sizeof(ph32)))
			return false;
		memcpy(&ph32, k + at, sizeof(ph32));
		*seg = (struct segment){ ph32.p_type, ph32.p_offset, ph32.p_paddr,
					 ph32.p_filesz, ph32.p_memsz };
	}
	return true;
}

/* The number of program headers, or -ENOEXEC if this is no x86 executable. */
static int check_header(const struct boot_source *src)
{
	const uint8_t *k = src->kernel;
	uint16_t machine, n, size, want;
	Elf64_Ehdr eh64;
	Elf32_Ehdr eh32;

	if (src->kernel_len < sizeof(eh64))
		return fail(ENOEXEC, "%s is truncated: no ELF header", src->name);
	if (k[EI_CLASS] == ELFCLASS64) {
		memcpy(&eh64, k, sizeof(eh64));
		machine = eh64.e_machine;
		n = eh64.e_phnum;
		size = eh64.e_phentsize;
		want = sizeof(Elf64_Phdr);
	} else {
		memcpy(&eh32, k, sizeof(eh32));
		machine = eh32.e_machine;
		n = eh32.e_phnum;
		size = eh32.e_phentsize;
		want = sizeof(Elf32_Phdr);
	}
	if (k[EI_DATA] != ELFDATA2LSB || (machine != EM_X86_64 && machine != EM_386))
		return fail(ENOEXEC, "%s is an ELF file, but not for x86", src->name);
	if (!n || n > MAX_SEGMENTS || size != want)
		return fail(ENOEXEC, "%s has no usable program headers", src->name);
	return n;
}

/* Looks for the entry point among the notes in @seg; 0 if it is not there. */
static uint64_t find_entry(const struct boot_source *src, const struct segment *seg)
{
	uint64_t at = seg->offset, end, name, desc;
	Elf64_Nhdr note;		/* the same in both classes */

	if (!in_file(src, seg->offset, seg->file_size))
		return 0;
	end = seg->offset + seg->file_size;
	while (end - at >= sizeof(note)) {
		memcpy(&note, src->kernel + at, sizeof(note));
		name = at + sizeof(note);
		desc = name + align_up(note.n_namesz, 4);
		at = desc + align_up(note.n_descsz, 4);
		if (at > end)
			return 0;
		if (note.n_type != NOTE_PHYS32_ENTRY ||
		    note.n_namesz != sizeof(NOTE_NAME) ||
		    memcmp(src->kernel + name, NOTE_NAME, sizeof(NOTE_NAME)))
			continue;
		if (note.n_descsz == 4)
			return load32(src->kernel + desc);
		if (note.n_descsz == 8)
			return load64(src->kernel + desc);
	}
	return 0;
}

/* Copies a loadable segment; the rest of its memory is zero already. */
static int load_segment(const struct boot_source *src, const struct ram *ram,
			const struct segment *seg, uint64_t *end)
{
	uint64_t seg_end;

	if (!seg->memory_size)
		return 0;
	if (!in_file(src, seg->offset, seg->file_size) ||
	    seg->file_size > seg->memory_size)
		return fail(ENOEXEC, "%s is truncated: a segment is not in the file", src->name);
	if (seg->address < MEMORY_HIGH ||
	    __builtin_add_overflow(seg->address, seg->memory_size, &seg_end) ||
	    seg_end > ram->regions[0].size)
		return fail(ENOMEM, "%s wants to be at %#llx, where the guest has no memory",
			    src->name, (unsigned long long)seg->address);
	*end = MAX(*end, seg_end);
	return ram_write(ram, seg->address, src->kernel + seg->offset, seg->file_size);
}

static int write_start_info(const struct boot_source *src, const struct ram *ram,
			    uint64_t initrd)
{
	struct memory_range map[MEMORY_MAX_RANGES];
	unsigned int i, n = memory_map(ram, map);
	struct start_area area = {
		.info = {
			.magic = START_MAGIC,
			.version = START_VERSION,
			.nr_modules = initrd ? 1 : 0,
			.modules = initrd ? MEMORY_BOOT_INFO +
					    offsetof(struct start_area, module) : 0,
			.cmdline = MEMORY_CMDLINE,
			.rsdp = src->rsdp,
			.memmap = MEMORY_BOOT_INFO + offsetof(struct start_area, ranges),
			.memmap_entries = n,
		},
		.module = { .address = initrd, .size = src->initrd_len },
	};

	for (i = 0; i < n; i++)
		area.ranges[i] = (struct start_range){
			.address = map[i].start, .size = map[i].size, .type = map[i].type,
		};
	return ram_write(ram, MEMORY_BOOT_INFO, &area, sizeof(area));
}

int pvh_load(const struct boot_source *src, const struct ram *ram,
	     struct boot_entry *entry)
{
	uint64_t pc = 0, end = 0, initrd;
	struct segment seg;
	int i, n, ret;

	n = check_header(src);
	if (n < 0)
		return n;
	for (i = 0; i < n; i++) {
		if (!read_segment(src, (unsigned int)i, &seg))
			return fail(ENOEXEC, "%s is truncated: no program headers", src->name);
		if (seg.type == PT_NOTE && !pc)
			pc = find_entry(src, &seg);
		if (seg.type != PT_LOAD)
			continue;
		ret = load_segment(src, ram, &seg, &end);
		if (ret)
			return ret;
	}
	if (!pc)
		return fail(ENOEXEC, "%s has no PVH entry (a Linux kernel needs CONFIG_PVH=y)",
			    src->name);
	if (pc >= end)
		return fail(ENOEXEC, "%s has its PVH entry outside of itself", src->name);

	ret = boot_place_initrd(src, ram, end, RAM_HOLE_START, &initrd);
	if (!ret)
		ret = boot_place_cmdline(src, ram, MEMORY_CMDLINE_MAX - 1);
	if (!ret)
		ret = write_start_info(src, ram, initrd);
	if (ret)
		return ret;
	entry->mode = BOOT_PROTECTED;
	entry->rip = pc;
	entry->info = MEMORY_BOOT_INFO;
	return 0;
}
