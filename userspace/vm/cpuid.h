/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What CPUID tells each vCPU.
 */
#ifndef VM_CPUID_H
#define VM_CPUID_H

#include "../util/kvm.h"

/*
 * The leaves that the device supports, in memory that the caller frees, or
 * NULL with a sentence. There is room for the few that cpuid_set_topology()
 * adds.
 */
struct kvm_cpuid2 *cpuid_supported(const struct kvm *kvm);

/*
 * Makes @cpuid that of processor @id of @cpus: one socket, one thread a core,
 * the APIC id equal to @id.
 */
void cpuid_set_topology(struct kvm_cpuid2 *cpuid, const struct kvm *kvm,
			unsigned int id, unsigned int cpus);

#endif /* VM_CPUID_H */
