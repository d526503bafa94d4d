// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The kernel loaders, over buffers of exactly the file's size so that the
 * address sanitizer sees any read beyond it: good files, files cut off at
 * every length, and files with bytes changed at random.
 */
#include <asm/bootparam.h>
#include <elf.h>
#include <stdlib.h>
#include <string.h>

#include "tap.h"
#include "util/util.h"
#include "vm/boot.h"
#include "rng.h"
#include "vmm_fake.h"

#define RAM_SIZE	(64 * MIB)
#define SETUP_SECTS	2
#define PAYLOAD		4096
#define IMAGE_SIZE	((SETUP_SECTS + 1) * 512 + PAYLOAD)
#define PREF		0x1000000
#define INIT_SIZE	0x100000
#define RSDP		0xe0000

static struct ram ram;

static void init_ram(uint64_t size)
{
	ASSERT_EQ(ram_init(&ram, size), 0);
}

static uint8_t *make_bzimage(void)
{
	uint8_t *image = calloc(1, IMAGE_SIZE);
	struct setup_header *hdr = (struct setup_header *)(image + 0x1f1);

	image[0x201] = 0x6a;		/* the header ends at 0x26c */
	hdr->setup_sects = SETUP_SECTS;
	hdr->syssize = PAYLOAD / 16;
	hdr->boot_flag = 0xaa55;
	memcpy(&hdr->header, "HdrS", 4);
	hdr->version = 0x020f;
	hdr->loadflags = LOADED_HIGH;
	hdr->initrd_addr_max = 0x7fffffff;
	hdr->kernel_alignment = 0x200000;
	hdr->relocatable_kernel = 1;
	hdr->xloadflags = XLF_KERNEL_64;
	hdr->cmdline_size = 2047;
	hdr->pref_address = PREF;
	hdr->init_size = INIT_SIZE;
	memset(image + IMAGE_SIZE - PAYLOAD, 0xcc, PAYLOAD);
	return image;
}

static struct boot_source source(const uint8_t *kernel, size_t len)
{
	return (struct boot_source){
		.name = "k", .kernel = kernel, .kernel_len = len,
		.cmdline = "console=ttyS0", .rsdp = RSDP,
	};
}

static int load(const uint8_t *kernel, size_t len, struct boot_entry *entry)
{
	struct boot_source src = source(kernel, len);

	return boot_load(&src, &ram, entry);
}

TEST(bzimage_is_loaded_as_the_protocol_says)
{
	struct boot_source src = source(make_bzimage(), IMAGE_SIZE);
	struct boot_entry entry;
	struct boot_params *bp;
	uint8_t initrd[5000];

	init_ram(RAM_SIZE);
	memset(initrd, 0x5a, sizeof(initrd));
	src.initrd = initrd;
	src.initrd_len = sizeof(initrd);
	ASSERT_EQ(boot_load(&src, &ram, &entry), 0);

	EXPECT_EQ(entry.mode, BOOT_LONG_MODE);
	EXPECT_EQ(entry.rip, PREF + 0x200);
	bp = ram_ptr(&ram, entry.info, sizeof(*bp));
	ASSERT_TRUE(bp);
	EXPECT_EQ(bp->hdr.type_of_loader, 0xff);
	EXPECT_EQ(bp->acpi_rsdp_addr, RSDP);
	EXPECT_EQ(bp->hdr.ramdisk_size, sizeof(initrd));
	EXPECT_EQ(bp->hdr.ramdisk_image % 4096, 0);
	EXPECT_GE(bp->hdr.ramdisk_image, PREF + INIT_SIZE);
	EXPECT_MEMEQ(ram_ptr(&ram, bp->hdr.ramdisk_image, sizeof(initrd)), initrd,
		     sizeof(initrd));
	EXPECT_STREQ((char *)ram_ptr(&ram, bp->hdr.cmd_line_ptr, 64), "console=ttyS0");
	EXPECT_MEMEQ(ram_ptr(&ram, PREF, PAYLOAD), src.kernel + IMAGE_SIZE - PAYLOAD, PAYLOAD);
	EXPECT_EQ(bp->e820_entries, 5);
	EXPECT_EQ(bp->e820_table[3].addr + bp->e820_table[3].size, RAM_SIZE);
	free((void *)src.kernel);
}

TEST(bzimage_of_any_shorter_length_is_refused)
{
	uint8_t *image = make_bzimage(), *cut;
	struct boot_entry entry;
	size_t len;

	init_ram(RAM_SIZE);
	for (len = 0; len < IMAGE_SIZE; len++) {
		cut = malloc(len ? len : 1);
		memcpy(cut, image, len);
		fake.sentences = 0;
		if (load(cut, len, &entry) != -ENOEXEC || fake.sentences != 1)
			FAIL("a file of %zu bytes was not refused in one sentence", len);
		free(cut);
	}
	tap_checked();
	free(image);
}

TEST(bzimage_with_any_header_byte_changed_does_no_harm)
{
	uint8_t *image = make_bzimage(), *bad = malloc(IMAGE_SIZE);
	struct boot_entry entry;
	unsigned int at, value;

	init_ram(RAM_SIZE);
	for (at = 0x1f1; at < 0x290; at++) {
		for (value = 0; value < 256; value++) {
			memcpy(bad, image, IMAGE_SIZE);
			bad[at] = (uint8_t)value;
			if (!load(bad, IMAGE_SIZE, &entry) && !ram_ptr(&ram, entry.rip, 1))
				FAIL("byte %#x = %#x: entry outside of memory", at, value);
		}
	}
	tap_checked();
	free(bad);
	free(image);
}

static void put_header(uint8_t *image, size_t offset, uint64_t value, size_t len)
{
	memcpy(image + 0x1f1 + offset, &value, len);
}

#define PUT(_image, _field, _value) \
	put_header(_image, offsetof(struct setup_header, _field), _value, \
		   sizeof(((struct setup_header *)0)->_field))

TEST(bzimage_that_cannot_work_is_refused_with_the_reason)
{
	uint8_t *image = make_bzimage();
	struct boot_entry entry;

	init_ram(RAM_SIZE);
	PUT(image, xloadflags, 0);
	EXPECT_EQ(load(image, IMAGE_SIZE, &entry), -ENOEXEC);
	EXPECT_TRUE(strstr(fake.sentence, "64-bit"));
	PUT(image, xloadflags, XLF_KERNEL_64);

	PUT(image, init_size, 0xffffffff);
	EXPECT_EQ(load(image, IMAGE_SIZE, &entry), -ENOMEM);
	EXPECT_TRUE(strstr(fake.sentence, "the guest has 64 MiB"));
	PUT(image, init_size, INIT_SIZE);

	PUT(image, pref_address, UINT64_MAX - 4096);
	EXPECT_EQ(load(image, IMAGE_SIZE, &entry), -ENOEXEC);
	PUT(image, pref_address, 0x1000);
	EXPECT_EQ(load(image, IMAGE_SIZE, &entry), -ENOEXEC);
	PUT(image, pref_address, PREF);

	PUT(image, cmdline_size, 5);
	EXPECT_EQ(load(image, IMAGE_SIZE, &entry), -E2BIG);
	PUT(image, cmdline_size, 2047);
	EXPECT_EQ(load(image, IMAGE_SIZE, &entry), 0);
	free(image);
}

TEST(initrd_that_does_not_fit_is_refused)
{
	struct boot_source src = source(make_bzimage(), IMAGE_SIZE);
	struct boot_entry entry;

	init_ram(32 * MIB);
	src.initrd_len = 16 * MIB;
	src.initrd = calloc(1, src.initrd_len);
	EXPECT_EQ(boot_load(&src, &ram, &entry), -ENOMEM);
	EXPECT_TRUE(strstr(fake.sentence, "initrd"));
	src.initrd_len = 15 * MIB;
	EXPECT_EQ(boot_load(&src, &ram, &entry), 0);
	free((void *)src.initrd);
	free((void *)src.kernel);
}

/* An ELF file: header, two program headers, a note, a page of code. */
struct elf64 {
	Elf64_Ehdr eh;
	Elf64_Phdr ph[2];
	Elf64_Nhdr note;
	char name[4];
	uint64_t entry;
	uint8_t code[256];
};

struct elf32 {
	Elf32_Ehdr eh;
	Elf32_Phdr ph[2];
	Elf32_Nhdr note;
	char name[4];
	uint32_t entry;
	uint8_t code[256];
};

#define FILL_ELF(_elf, _bits, _machine, _entry)					\
	do {									\
		memcpy((_elf)->eh.e_ident, ELFMAG, SELFMAG);			\
		(_elf)->eh.e_ident[EI_CLASS] = ELFCLASS##_bits;			\
		(_elf)->eh.e_ident[EI_DATA] = ELFDATA2LSB;			\
		(_elf)->eh.e_machine = (_machine);				\
		(_elf)->eh.e_phoff = sizeof((_elf)->eh);			\
		(_elf)->eh.e_phentsize = sizeof((_elf)->ph[0]);			\
		(_elf)->eh.e_phnum = 2;						\
		(_elf)->ph[0].p_type = PT_NOTE;					\
		(_elf)->ph[0].p_offset = offsetof(struct elf##_bits, note);	\
		(_elf)->ph[0].p_filesz = sizeof((_elf)->note) +			\
			sizeof((_elf)->name) + sizeof((_elf)->entry);		\
		(_elf)->ph[1].p_type = PT_LOAD;					\
		(_elf)->ph[1].p_offset = offsetof(struct elf##_bits, code);	\
		(_elf)->ph[1].p_paddr = PREF;					\
		(_elf)->ph[1].p_filesz = sizeof((_elf)->code);			\
		(_elf)->ph[1].p_memsz = 65536;					\
		(_elf)->note.n_namesz = 4;					\
		(_elf)->note.n_descsz = sizeof((_elf)->entry);			\
		(_elf)->note.n_type = 18;					\
		memcpy((_elf)->name, "Xen", 4);					\
		(_elf)->entry = (_entry);					\
		memset((_elf)->code, 0xf4, sizeof((_elf)->code));		\
	} while (0)

TEST(pvh_elf_of_both_classes_is_loaded)
{
	struct elf64 e64 = { 0 };
	struct elf32 e32 = { 0 };
	struct boot_entry entry;
	uint32_t *info;

	init_ram(RAM_SIZE);
	FILL_ELF(&e64, 64, EM_X86_64, PREF + 16);
	ASSERT_EQ(load((uint8_t *)&e64, sizeof(e64), &entry), 0);
	EXPECT_EQ(entry.mode, BOOT_PROTECTED);
	EXPECT_EQ(entry.rip, PREF + 16);
	EXPECT_MEMEQ(ram_ptr(&ram, PREF, 256), e64.code, 256);
	info = ram_ptr(&ram, entry.info, 56);
	EXPECT_EQ(info[0], 0x336ec578);
	EXPECT_EQ(info[1], 1);
	EXPECT_EQ(info[3], 0);			/* no module */
	EXPECT_EQ(load64(info + 8), RSDP);

	FILL_ELF(&e32, 32, EM_386, PREF + 32);
	ASSERT_EQ(load((uint8_t *)&e32, sizeof(e32), &entry), 0);
	EXPECT_EQ(entry.rip, PREF + 32);
}

TEST(pvh_elf_of_any_shorter_length_is_refused)
{
	struct elf64 e64 = { 0 };
	struct boot_entry entry;
	uint8_t *cut;
	size_t len;

	init_ram(RAM_SIZE);
	FILL_ELF(&e64, 64, EM_X86_64, PREF);
	for (len = 0; len < sizeof(e64); len++) {
		cut = malloc(len ? len : 1);
		memcpy(cut, &e64, len);
		if (load(cut, len, &entry) != -ENOEXEC)
			FAIL("a file of %zu bytes was not refused", len);
		free(cut);
	}
	tap_checked();
}

TEST(pvh_elf_without_its_note_or_place_is_refused)
{
	struct elf64 e64 = { 0 };
	struct boot_entry entry;

	init_ram(RAM_SIZE);
	FILL_ELF(&e64, 64, EM_X86_64, PREF);
	e64.note.n_type = 17;
	EXPECT_EQ(load((uint8_t *)&e64, sizeof(e64), &entry), -ENOEXEC);
	EXPECT_TRUE(strstr(fake.sentence, "CONFIG_PVH"));
	e64.note.n_type = 18;
	e64.note.n_namesz = UINT32_MAX;
	EXPECT_EQ(load((uint8_t *)&e64, sizeof(e64), &entry), -ENOEXEC);
	e64.note.n_namesz = 4;
	e64.ph[1].p_paddr = 0x1000;
	EXPECT_EQ(load((uint8_t *)&e64, sizeof(e64), &entry), -ENOMEM);
	e64.ph[1].p_paddr = UINT64_MAX - 100;
	EXPECT_EQ(load((uint8_t *)&e64, sizeof(e64), &entry), -ENOMEM);
	e64.ph[1].p_paddr = PREF;
	e64.entry = PREF + 65536;
	EXPECT_EQ(load((uint8_t *)&e64, sizeof(e64), &entry), -ENOEXEC);
	e64.eh.e_machine = EM_AARCH64;
	EXPECT_EQ(load((uint8_t *)&e64, sizeof(e64), &entry), -ENOEXEC);
}

/* Both loaders, some bytes changed at random, ten of a hundred in length too. */
TEST_TIMEOUT(files_changed_at_random_do_no_harm, 120)
{
	struct rng rng = { 0x666f6e6461 };
	uint8_t *image = make_bzimage(), *bad;
	struct elf64 e64 = { 0 };
	const uint8_t *good;
	struct boot_entry entry;
	unsigned int i, n;
	size_t size, len;

	init_ram(RAM_SIZE);
	FILL_ELF(&e64, 64, EM_X86_64, PREF);
	for (i = 0; i < 200000; i++) {
		good = i & 1 ? image : (uint8_t *)&e64;
		size = i & 1 ? IMAGE_SIZE : sizeof(e64);
		len = rng_below(&rng, 10) ? size : rng_below(&rng, (uint32_t)size);
		bad = malloc(len ? len : 1);
		memcpy(bad, good, len);
		for (n = 1 + rng_below(&rng, 8); n && len; n--)
			bad[rng_below(&rng, (uint32_t)MIN(len, 0x290))] = (uint8_t)rng_next(&rng);
		load(bad, len, &entry);
		free(bad);
	}
	tap_checked();
	free(image);
}

TEST(ram_above_3_gib_goes_to_4_gib)
{
	struct memory_range map[MEMORY_MAX_RANGES];
	unsigned int n;

	init_ram(3 * GIB + 5 * MIB);
	n = memory_map(&ram, map);
	EXPECT_EQ(map[n - 1].start, 4 * GIB);
	EXPECT_EQ(map[n - 1].size, 5 * MIB);
	EXPECT_TRUE(ram_ptr(&ram, 3 * GIB - 1, 1));
	EXPECT_FALSE(ram_ptr(&ram, 3 * GIB - 1, 2));
	EXPECT_FALSE(ram_ptr(&ram, 4 * GIB - 1, 1));
	EXPECT_TRUE(ram_ptr(&ram, 4 * GIB, 5 * MIB));
	EXPECT_FALSE(ram_ptr(&ram, 4 * GIB, 5 * MIB + 1));
	EXPECT_FALSE(ram_ptr(&ram, UINT64_MAX, 2));
	EXPECT_FALSE(ram_ptr(&ram, 4096, UINT64_MAX));
	*(uint8_t *)ram_ptr(&ram, 4 * GIB, 1) = 7;
	EXPECT_EQ(ram.base[3 * GIB], 7);
}
