// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Starts from what the device supports and puts the machine's own topology in
 * place of the host's. Leaves: Intel SDM, "CPUID--CPU Identification", and AMD
 * APM volume 3, "Obtaining Processor Information Via the CPUID Instruction".
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "../util/util.h"
#include "cpuid.h"

#define MAX_ENTRIES	256
#define SPARE_ENTRIES	2

#define L1_ECX_TSC_DEADLINE	BIT(24)
#define L1_ECX_HYPERVISOR	BIT(31)
#define L1_EDX_HTT		BIT(28)
#define X1_ECX_CMP_LEGACY	BIT(1)
#define TOPOLOGY_THREAD		(1 << 8)
#define TOPOLOGY_CORE		(2 << 8)

struct kvm_cpuid2 *cpuid_supported(const struct kvm *kvm)
{
	struct kvm_cpuid2 *cpuid;
	int ret;

	cpuid = calloc(1, sizeof(*cpuid) +
		       (MAX_ENTRIES + SPARE_ENTRIES) * sizeof(cpuid->entries[0]));
	if (!cpuid) {
		fail(ENOMEM, "out of memory");
		return NULL;
	}
	cpuid->nent = MAX_ENTRIES;
	if (!ioctl(kvm->dev_fd, KVM_GET_SUPPORTED_CPUID, cpuid))
		return cpuid;
	ret = errno;
	free(cpuid);
	fail(ret, "%s: KVM_GET_SUPPORTED_CPUID failed: %s", kvm->path, strerror(ret));
	return NULL;
}

/* Bits that number @n things. */
static unsigned int bits_for(unsigned int n)
{
	return n > 1 ? 32 - (unsigned int)__builtin_clz(n - 1) : 0;
}

static void set_leaf(struct kvm_cpuid_entry2 *e, const struct kvm *kvm,
		     unsigned int id, unsigned int cpus)
{
	unsigned int bits = bits_for(cpus), level;

	switch (e->function) {
	case 1:
		e->ebx = (e->ebx & 0x0000ffff) | id << 24 | cpus << 16;
		e->ecx |= L1_ECX_HYPERVISOR;
		if (kvm->deadline_timer)
			e->ecx |= L1_ECX_TSC_DEADLINE;
		if (cpus > 1)
			e->edx |= L1_EDX_HTT;
		else
			e->edx &= ~L1_EDX_HTT;
		break;
	case 4:
		/* A cache of level 3 or more is shared by all cores. */
		level = e->eax >> 5 & 7;
		e->eax &= 0x00003fff;
		e->eax |= (BIT(bits) - 1) << 26;
		if (level >= 3)
			e->eax |= (BIT(bits) - 1) << 14;
		break;
	case 0x80000001:
		if (cpus > 1)
			e->ecx |= X1_ECX_CMP_LEGACY;
		else
			e->ecx &= ~X1_ECX_CMP_LEGACY;
		break;
	case 0x80000008:
		e->ecx = (e->ecx & ~0xf0ffU) | bits << 12 | (cpus - 1);
		break;
	case 0x8000001d:
		level = e->eax >> 5 & 7;
		e->eax &= 0x00003fff;
		if (level >= 3)
			e->eax |= (cpus - 1) << 14;
		break;
	case 0x8000001e:
		e->eax = id;
		e->ebx = id;
		e->ecx = 0;
		break;
	}
}

/* Takes all of @function out; true if there was one. */
static bool remove_leaf(struct kvm_cpuid2 *cpuid, uint32_t function)
{
	unsigned int i, n = 0;
	bool found = false;

	for (i = 0; i < cpuid->nent; i++) {
		if (cpuid->entries[i].function == function)
			found = true;
		else
			cpuid->entries[n++] = cpuid->entries[i];
	}
	cpuid->nent = n;
	return found;
}

void cpuid_set_topology(struct kvm_cpuid2 *cpuid, const struct kvm *kvm,
			unsigned int id, unsigned int cpus)
{
	unsigned int i;

	for (i = 0; i < cpuid->nent; i++)
		set_leaf(&cpuid->entries[i], kvm, id, cpus);

	/* The newer of the two topology leaves has nothing to add. */
	remove_leaf(cpuid, 0x1f);
	if (!remove_leaf(cpuid, 0x0b))
		return;
	cpuid->entries[cpuid->nent++] = (struct kvm_cpuid_entry2){
		.function = 0x0b, .index = 0, .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
		.eax = 0, .ebx = 1, .ecx = TOPOLOGY_THREAD, .edx = id,
	};
	cpuid->entries[cpuid->nent++] = (struct kvm_cpuid_entry2){
		.function = 0x0b, .index = 1, .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
		.eax = bits_for(cpus), .ebx = cpus, .ecx = TOPOLOGY_CORE | 1, .edx = id,
	};
}
