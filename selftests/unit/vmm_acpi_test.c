// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The ACPI tables: found from the root pointer as a guest does it, checksums,
 * and a round trip through ACPICA's disassembler and compiler, which must give
 * the same bytes back.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tap.h"
#include "dev/pm.h"
#include "util/util.h"
#include "vm/acpi.h"
#include "vmm_fake.h"

#define GPA		0xe0000
#define SIZE		0x20000
#define HEADER		36		/* bytes of a table's common header */

static uint8_t buf[SIZE];

static uint8_t sum(const uint8_t *p, size_t len)
{
	uint8_t s = 0;

	while (len--)
		s += *p++;
	return s;
}

static const uint8_t *at(uint64_t gpa)
{
	if (gpa < GPA || gpa >= GPA + SIZE)
		FAIL("%#llx is outside of the tables", (unsigned long long)gpa);
	return buf + (gpa - GPA);
}

static const uint8_t *xsdt(unsigned int cpus)
{
	const uint8_t *rsdp;
	uint64_t gpa;

	ASSERT_EQ(acpi_build(buf, SIZE, GPA, cpus, &gpa), 0);
	rsdp = at(gpa);
	ASSERT_EQ(gpa % 16, 0);
	ASSERT_MEMEQ(rsdp, "RSD PTR ", 8);
	ASSERT_EQ(sum(rsdp, 20), 0);
	ASSERT_EQ(sum(rsdp, 36), 0);
	return at(load64(rsdp + 24));
}

static const uint8_t *find(const char *signature, unsigned int cpus)
{
	const uint8_t *root = xsdt(cpus), *fadt = NULL, *table;
	unsigned int i, n = (load32(root + 4) - HEADER) / 8;

	ASSERT_MEMEQ(root, "XSDT", 4);
	if (!memcmp(root, signature, 4))
		return root;
	for (i = 0; i < n; i++) {
		table = at(load64(root + HEADER + 8 * i));
		if (!memcmp(table, signature, 4))
			return table;
		if (!memcmp(table, "FACP", 4))
			fadt = table;
	}
	ASSERT_TRUE(fadt);
	return at(memcmp(signature, "DSDT", 4) ? load32(fadt + 36) : load64(fadt + 140));
}

static const char * const tables[] = { "XSDT", "FACP", "APIC", "MCFG", "DSDT" };

TEST(every_table_is_found_and_sums_to_zero)
{
	const uint8_t *table;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(tables); i++) {
		table = find(tables[i], 2);
		EXPECT_MEMEQ(table, tables[i], 4);
		EXPECT_EQ(sum(table, load32(table + 4)), 0);
	}
	table = find("FACS", 2);
	EXPECT_MEMEQ(table, "FACS", 4);
	EXPECT_EQ((table - buf) % 64, 0);
}

TEST(madt_lists_each_processor_once)
{
	static const unsigned int counts[] = { 1, 2, 3, 64, 254 };
	unsigned int seen, ioapics;
	const uint8_t *madt, *p;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(counts); i++) {
		madt = find("APIC", counts[i]);
		seen = ioapics = 0;
		for (p = madt + 44; p < madt + load32(madt + 4); p += p[1]) {
			ASSERT_GT(p[1], 1);
			if (p[0] == 0) {
				EXPECT_EQ(p[3], seen);
				EXPECT_EQ(load32(p + 4), 1);
				seen++;
			}
			ioapics += p[0] == 1;
		}
		EXPECT_EQ(seen, counts[i]);
		EXPECT_EQ(ioapics, 1);
	}
}

TEST(fadt_has_the_registers_of_the_machine)
{
	const uint8_t *fadt = find("FACP", 1);

	EXPECT_EQ(load32(fadt + 4), 276);
	EXPECT_EQ(load16(fadt + 46), PM_SCI_IRQ);
	EXPECT_EQ(load32(fadt + 56), PM1_EVENT_PORT);
	EXPECT_EQ(load32(fadt + 64), PM1_CONTROL_PORT);
	EXPECT_EQ(load32(fadt + 76), PM_TIMER_PORT);
	EXPECT_EQ(load64(fadt + 120), RESET_PORT);
	EXPECT_EQ(fadt[128], RESET_VALUE);
}

TEST(too_small_a_buffer_is_refused_at_any_size)
{
	uint64_t rsdp, end = 0;
	uint8_t *small;
	size_t size;

	ASSERT_EQ(acpi_build(buf, SIZE, GPA, 4, &rsdp), 0);
	for (size = 0; size < 4096 && !end; size++) {
		small = malloc(size ? size : 1);
		if (!acpi_build(small, size, GPA, 4, &rsdp))
			end = size;
		free(small);
	}
	EXPECT_GT(end, 1000);
}

/* iasl writes and reads files of fixed names: all in a directory of our own. */
static void round_trip(const char *signature)
{
	char dir[] = "/tmp/vmm_acpi.XXXXXX", path[64], command[256];
	const uint8_t *table = find(signature, 2);
	uint8_t *again = malloc(SIZE);
	size_t len = load32(table + 4);
	FILE *f;

	ASSERT_TRUE(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/t.dat", dir);
	f = fopen(path, "w");
	ASSERT_TRUE(f);
	ASSERT_EQ(fwrite(table, 1, len, f), len);
	fclose(f);
	/* The disassembly must not carry a complaint, and compile to the same. */
	snprintf(command, sizeof(command),
		 "cd %s && iasl -d t.dat >log 2>&1 && ! grep -iE 'error|warning|invalid|incorrect' t.dsl && "
		 "iasl -oa -p again t.dsl >>log 2>&1 || { cat log t.dsl; exit 1; }", dir);
	EXPECT_EQ(system(command), 0);
	snprintf(path, sizeof(path), "%s/again.aml", dir);
	f = fopen(path, "r");
	ASSERT_TRUE(f);
	EXPECT_EQ(fread(again, 1, SIZE, f), len);
	fclose(f);
	/* iasl signs as the creator and sums again. */
	memcpy(again + 28, table + 28, 8);
	again[9] = table[9];
	EXPECT_MEMEQ(again, table, len);
	snprintf(command, sizeof(command), "rm -r %s", dir);
	EXPECT_EQ(system(command), 0);
	free(again);
}

TEST(tables_survive_disassembly_and_compilation)
{
	size_t i;

	if (system("iasl -v >/dev/null 2>&1"))
		SKIP("no iasl here");
	for (i = 0; i < ARRAY_SIZE(tables); i++)
		round_trip(tables[i]);
}
