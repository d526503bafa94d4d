// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Places RAM in the guest's physical address space and describes it.
 */
#include "../dev/pci.h"
#include "../util/util.h"
#include "memory.h"

unsigned int memory_map(const struct ram *ram, struct memory_range map[MEMORY_MAX_RANGES])
{
	uint64_t low = ram->regions[0].size;
	unsigned int n = 0;

	map[n++] = (struct memory_range){ 0, MEMORY_EBDA, MEMORY_RAM };
	map[n++] = (struct memory_range){ MEMORY_EBDA, 0xa0000 - MEMORY_EBDA, MEMORY_RESERVED };
	map[n++] = (struct memory_range){ MEMORY_ACPI, MEMORY_ACPI_SIZE, MEMORY_RESERVED };
	map[n++] = (struct memory_range){ MEMORY_HIGH, low - MEMORY_HIGH, MEMORY_RAM };
	map[n++] = (struct memory_range){ PCI_ECAM_BASE, PCI_ECAM_SIZE, MEMORY_RESERVED };
	if (ram->nr_regions > 1)
		map[n++] = (struct memory_range){
			ram->regions[1].gpa, ram->regions[1].size, MEMORY_RAM
		};
	return n;
}

int memory_attach(const struct ram *ram, const struct kvm *kvm)
{
	const struct ram_region *r;
	unsigned int i;
	int ret;

	for (i = 0; i < ram->nr_regions; i++) {
		r = &ram->regions[i];
		ret = kvm_set_memory(kvm, i, r->gpa, r->size, r->hva);
		if (ret)
			return ret;
	}
	return 0;
}
