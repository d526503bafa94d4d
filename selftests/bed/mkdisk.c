// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * mkdisk DISK BOOT KERNEL INITRAMFS PARAMETERS
 *
 * Makes the disk from which Bochs boots Linux without a boot loader: BOOT
 * (bochs.S), a plan of what it has to load, the segments of an ELF kernel, the
 * initramfs. Prints the number of the disk's cylinders.
 */
#include <elf.h>
#include <err.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECTOR		512u
#define HEADS		16u
#define TRACK		63u
#define CYLINDER	(SECTOR * HEADS * TRACK)

/* Above any kernel, and low enough for a small machine. */
#define INITRAMFS_ADDRESS	0x8000000u

#define MAX_LOADS	15

/* The ELF note of the PVH entry: Xen's "XEN_ELFNOTE_PHYS32_ENTRY". */
#define NOTE_PVH	18
#define START_MAGIC	0x336ec578u

struct load {
	uint32_t address;
	uint32_t sector;
	uint32_t sectors;	/* 0: the end of the list */
	uint32_t unused;
};

/* As in the boot protocol: struct hvm_start_info and hvm_modlist_entry. */
struct start_info {
	uint32_t magic;
	uint32_t version;
	uint32_t flags;
	uint32_t nr_modules;
	uint64_t modules;
	uint64_t parameters;
	uint64_t rsdp;		/* 0: the kernel looks for it */
	uint64_t memmap;
	uint32_t memmap_entries;	/* counted by bochs.S */
	uint32_t reserved;
};

struct module {
	uint64_t address;
	uint64_t size;
	uint64_t parameters;
	uint64_t reserved;
};

/* What bochs.S finds at PLAN. */
struct plan {
	uint32_t entry;
	uint32_t unused;
	struct load loads[MAX_LOADS + 1];
	struct start_info start_info;
	struct module initramfs;
	char parameters[6 * SECTOR - 352];
};

#define PLAN		0x8000u
#define MEMORY_MAP	0x9000u

_Static_assert(offsetof(struct plan, start_info) == 264, "as in bochs.S");
_Static_assert(sizeof(struct plan) == 6 * SECTOR, "as in bochs.S");

static struct plan plan;
static FILE *disk;
static uint32_t next_sector;

static void *read_file(const char *name, size_t *size)
{
	FILE *f = fopen(name, "rb");
	long length;
	char *data;

	if (!f || fseek(f, 0, SEEK_END) || (length = ftell(f)) < 0)
		err(1, "%s", name);
	data = malloc((size_t)length + 1);
	rewind(f);
	if (!data || fread(data, 1, (size_t)length, f) != (size_t)length)
		err(1, "%s", name);
	fclose(f);
	*size = (size_t)length;
	return data;
}

/* Fills up the last sector. */
static void write_disk(const void *data, size_t size)
{
	static const char zeros[SECTOR];
	size_t rest = -size % SECTOR;

	if (fwrite(data, 1, size, disk) != size || fwrite(zeros, 1, rest, disk) != rest)
		err(1, "writing the disk");
	next_sector += (uint32_t)((size + rest) / SECTOR);
}

/* Appends it to the disk, and to the plan. */
static void add_load(uint64_t address, const void *data, size_t size)
{
	static unsigned int nr;
	struct load *load = &plan.loads[nr++];

	if (nr > MAX_LOADS)
		errx(1, "the kernel has more than %d segments", MAX_LOADS - 1);
	load->address = (uint32_t)address;
	load->sector = next_sector;
	write_disk(data, size);
	load->sectors = next_sector - load->sector;
}

/* The PVH entry among the notes of a segment, or 0. */
static uint32_t find_entry(const char *notes, size_t size)
{
	const char *end = notes + size;

	while ((size_t)(end - notes) >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr note;
		const char *name = notes + sizeof(note), *desc;
		uint32_t entry;

		memcpy(&note, notes, sizeof(note));
		desc = name + ((note.n_namesz + 3) & ~3u);
		notes = desc + ((note.n_descsz + 3) & ~3u);
		if (notes > end)
			break;
		if (note.n_type == NOTE_PVH && note.n_namesz == 4 && !strcmp(name, "Xen")) {
			memcpy(&entry, desc, sizeof(entry));
			return entry;
		}
	}
	return 0;
}

/* Memory of Bochs begins as zeros, and so .bss needs no room on the disk. */
static void add_kernel(const char *name)
{
	size_t size;
	const char *elf = read_file(name, &size);
	const Elf64_Ehdr *eh = (const void *)elf;
	unsigned int i;

	if (size < sizeof(*eh) || memcmp(eh->e_ident, ELFMAG, SELFMAG) ||
	    eh->e_machine != EM_X86_64 || eh->e_phoff > size ||
	    eh->e_phnum * sizeof(Elf64_Phdr) > size - eh->e_phoff)
		errx(1, "%s: not an ELF kernel", name);
	for (i = 0; i < eh->e_phnum; i++) {
		const Elf64_Phdr *ph = (const Elf64_Phdr *)(elf + eh->e_phoff) + i;

		if (ph->p_offset > size || ph->p_filesz > size - ph->p_offset)
			errx(1, "%s: a segment is not in the file", name);
		if (ph->p_type == PT_NOTE && !plan.entry)
			plan.entry = find_entry(elf + ph->p_offset, ph->p_filesz);
		if (ph->p_type != PT_LOAD || !ph->p_filesz)
			continue;
		if (ph->p_paddr + ph->p_memsz > INITRAMFS_ADDRESS)
			errx(1, "%s: reaches into the initramfs", name);
		add_load(ph->p_paddr, elf + ph->p_offset, ph->p_filesz);
	}
	if (!plan.entry)
		errx(1, "%s: has no PVH entry (CONFIG_PVH)", name);
}

int main(int argc, char **argv)
{
	const size_t head = (size_t)PLAN - 0x7c00;
	size_t size, initramfs_size;
	void *boot, *initramfs;

	if (argc != 6)
		errx(2, "usage: mkdisk DISK BOOT KERNEL INITRAMFS PARAMETERS");
	disk = fopen(argv[1], "wb");
	if (!disk)
		err(1, "%s", argv[1]);
	boot = read_file(argv[2], &size);
	if (size != head)
		errx(1, "%s: %zu bytes, not %zu", argv[2], size, head);
	if (strlen(argv[5]) >= sizeof(plan.parameters))
		errx(1, "the kernel's parameters are too long");

	write_disk(boot, size);
	write_disk(&plan, sizeof(plan));
	add_kernel(argv[3]);
	initramfs = read_file(argv[4], &initramfs_size);
	add_load(INITRAMFS_ADDRESS, initramfs, initramfs_size);

	strcpy(plan.parameters, argv[5]);
	plan.initramfs.address = INITRAMFS_ADDRESS;
	plan.initramfs.size = initramfs_size;
	plan.start_info = (struct start_info){
		.magic = START_MAGIC,
		.version = 1,
		.nr_modules = 1,
		.modules = PLAN + offsetof(struct plan, initramfs),
		.parameters = PLAN + offsetof(struct plan, parameters),
		.memmap = MEMORY_MAP,
	};
	size = ((size_t)next_sector * SECTOR + CYLINDER - 1) / CYLINDER;
	if (fseek(disk, (long)head, SEEK_SET) || fwrite(&plan, sizeof(plan), 1, disk) != 1 ||
	    fseek(disk, (long)(size * CYLINDER) - 1, SEEK_SET) || fputc(0, disk) || fclose(disk))
		err(1, "%s", argv[1]);
	printf("%zu\n", size);
	return 0;
}
