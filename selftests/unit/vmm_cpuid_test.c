// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The topology that CPUID tells, and the numbers that people type.
 */
#include <errno.h>
#include <stdlib.h>

#include "tap.h"
#include "util/util.h"
#include "vm/cpuid.h"
#include "vmm_fake.h"

static const uint32_t leaves[] = {
	0, 1, 4, 4, 0x0b, 0x1f, 0x1f, 0x40000000, 0x80000001, 0x80000008, 0x8000001d, 0x8000001e,
};

/* A host of many cores: every field that is the host's has all bits set. */
static struct kvm_cpuid2 *host(void)
{
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + 32 * sizeof(cpuid->entries[0]));
	struct kvm_cpuid_entry2 *e;
	unsigned int caches = 0;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(leaves); i++) {
		e = &cpuid->entries[cpuid->nent++];
		*e = (struct kvm_cpuid_entry2){
			.function = leaves[i], .eax = ~0U, .ebx = ~0U, .ecx = ~0U, .edx = ~0U,
		};
		/* A first-level cache and a third-level one. */
		if (leaves[i] == 4)
			e->eax = ~0xe0U | (caches++ ? 3 : 1) << 5;
		if (leaves[i] == 0x8000001d)
			e->eax = ~0xe0U | 3 << 5;
	}
	return cpuid;
}

static const struct kvm_cpuid_entry2 *leaf(const struct kvm_cpuid2 *cpuid, uint32_t function,
					   unsigned int nth)
{
	unsigned int i;

	for (i = 0; i < cpuid->nent; i++)
		if (cpuid->entries[i].function == function && !nth--)
			return &cpuid->entries[i];
	return NULL;
}

TEST(each_processor_has_its_own_apic_id)
{
	static const struct { unsigned int cpus, bits; } cases[] = {
		{ 1, 0 }, { 2, 1 }, { 3, 2 }, { 4, 2 }, { 5, 3 }, { 254, 8 },
	};
	const struct kvm kvm = { .deadline_timer = true };
	struct kvm_cpuid2 *cpuid;
	unsigned int id, cpus;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		cpus = cases[i].cpus;
		id = cpus - 1;
		cpuid = host();
		cpuid_set_topology(cpuid, &kvm, id, cpus);
		EXPECT_EQ(leaf(cpuid, 1, 0)->ebx, id << 24 | cpus << 16 | 0xffff);
		EXPECT_EQ(leaf(cpuid, 1, 0)->edx >> 28 & 1, cpus > 1);
		EXPECT_EQ(leaf(cpuid, 4, 0)->eax >> 14 & 0xfff, 0);
		EXPECT_EQ(leaf(cpuid, 4, 0)->eax >> 26, ((1U << cases[i].bits) - 1) & 0x3f);
		EXPECT_EQ(leaf(cpuid, 4, 1)->eax >> 14 & 0xfff, (1U << cases[i].bits) - 1);
		EXPECT_EQ(leaf(cpuid, 0x0b, 0)->ecx, 0x100);
		EXPECT_EQ(leaf(cpuid, 0x0b, 0)->edx, id);
		EXPECT_EQ(leaf(cpuid, 0x0b, 1)->eax, cases[i].bits);
		EXPECT_EQ(leaf(cpuid, 0x0b, 1)->ebx, cpus);
		EXPECT_EQ(leaf(cpuid, 0x0b, 1)->ecx, 0x201);
		EXPECT_FALSE(leaf(cpuid, 0x0b, 2));
		EXPECT_FALSE(leaf(cpuid, 0x1f, 0));
		EXPECT_EQ(leaf(cpuid, 0x80000008, 0)->ecx & 0xff, cpus - 1);
		EXPECT_EQ(leaf(cpuid, 0x80000008, 0)->ecx >> 12 & 0xf, cases[i].bits);
		EXPECT_EQ(leaf(cpuid, 0x8000001d, 0)->eax >> 14 & 0xfff, cpus - 1);
		EXPECT_EQ(leaf(cpuid, 0x8000001e, 0)->eax, id);
		EXPECT_EQ(leaf(cpuid, 0x40000000, 0)->ebx, ~0U);
		free(cpuid);
	}
}

TEST(what_only_the_device_gives_is_promised_only_then)
{
	struct kvm kvm = { .deadline_timer = false };
	struct kvm_cpuid2 *cpuid = host();

	cpuid->entries[1].ecx = 0;
	cpuid_set_topology(cpuid, &kvm, 0, 1);
	EXPECT_EQ(leaf(cpuid, 1, 0)->ecx, 1U << 31);
	kvm.deadline_timer = true;
	cpuid_set_topology(cpuid, &kvm, 0, 1);
	EXPECT_EQ(leaf(cpuid, 1, 0)->ecx, 1U << 31 | 1U << 24);
	free(cpuid);
}

TEST(sizes_are_read_as_people_write_them)
{
	static const struct { const char *text; int ret; uint64_t size; } cases[] = {
		{ "512", 0, 512 * MIB }, { "512M", 0, 512 * MIB }, { "2g", 0, 2 * GIB },
		{ "64K", 0, 64 * KIB }, { "1T", 0, 1024 * GIB }, { "0", 0, 0 },
		{ "", -EINVAL, 0 }, { "-1", -EINVAL, 0 }, { " 1", -EINVAL, 0 }, { "+1", -EINVAL, 0 },
		{ "1.5G", -EINVAL, 0 }, { "1GB", -EINVAL, 0 }, { "1X", -EINVAL, 0 },
		{ "G", -EINVAL, 0 }, { "99999999999999999999", -ERANGE, 0 },
		{ "18446744073709551615", -ERANGE, 0 }, { "16777216T", -ERANGE, 0 },
	};
	uint64_t size;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		size = 0;
		if (parse_size(cases[i].text, MIB, &size) != cases[i].ret ||
		    (!cases[i].ret && size != cases[i].size))
			FAIL("'%s' gave %llu", cases[i].text, (unsigned long long)size);
	}
	tap_checked();
}

TEST(numbers_have_their_limits)
{
	unsigned int n = 7;

	EXPECT_EQ(parse_uint("0", 1, 254, &n), -ERANGE);
	EXPECT_EQ(parse_uint("255", 1, 254, &n), -ERANGE);
	EXPECT_EQ(parse_uint("4294967297", 1, 254, &n), -ERANGE);
	EXPECT_EQ(parse_uint("2x", 1, 254, &n), -EINVAL);
	EXPECT_EQ(parse_uint("", 1, 254, &n), -EINVAL);
	EXPECT_EQ(n, 7);
	EXPECT_EQ(parse_uint("254", 1, 254, &n), 0);
	EXPECT_EQ(n, 254);
}
