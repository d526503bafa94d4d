/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The ACPI tables of the machine.
 */
#ifndef VM_ACPI_H
#define VM_ACPI_H

#include <stddef.h>
#include <stdint.h>

/*
 * Builds all tables for @cpus processors in @buf, which the guest will see at
 * guest-physical @gpa, and stores the address of the root pointer in @rsdp.
 * 0, or -ENOSPC if @size bytes are too few.
 */
int acpi_build(uint8_t *buf, size_t size, uint64_t gpa, unsigned int cpus,
	       uint64_t *rsdp);

#endif /* VM_ACPI_H */
