/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Control blocks broken on purpose, one field at a time, and which rule of the
 * manual each breaks: for the unit test of the explanation, and for the one that
 * lets a processor refuse them.
 */
#ifndef SELFTESTS_ENTRY_BREAKS_H
#define SELFTESTS_ENTRY_BREAKS_H

#include <stdbool.h>
#include <stdint.h>

struct entry_break {
	uint32_t field;		/* encoding, or offset in the VMCB */
	uint32_t size;		/* bytes, in the VMCB */
	uint64_t clear, set;	/* bits, in this order */
	const char *name;	/* of the field that the explanation must name first, */
	const char *rule;	/* and a part of the rule that it must name first */
	bool unchecked;		/* by the emulators: QEMU's VMRUN, VM entries of Bochs */
};

#define ALL		(~0ULL)
#define NOT_CANONICAL	0x0000900000000000ULL
#define BEYOND_PHYS	0x4000000000000000ULL

/* In a guest in 64-bit mode that is not being injected anything. */
static const struct entry_break svm_breaks[] = {
	{ 0x010, 4, 1, 0, "INTERCEPT_MISC2", "VMRUN must be intercepted" },
	{ 0x058, 4, ALL, 0, "GUEST_ASID", "must not be 0" },
	{ 0x0a8, 4, 0, 0x80000106, "EVENTINJ", "type of an injected event", true },
	{ 0x0a8, 4, 0, 0x80000320, "EVENTINJ", "exception's vector", true },
	{ 0x0a8, 4, 0, 0x80000302, "EVENTINJ", "exception's vector", true },
	{ 0x048, 8, ALL, ~0xfffULL, "MSRPM_BASE_PA", "MSR permission map" },
	{ 0x040, 8, ALL, ~0xfffULL, "IOPM_BASE_PA", "I/O permission map" },
	{ 0x0b0, 8, 0, BEYOND_PHYS, "N_CR3", "physical address space", true },
	{ 0x4d0, 8, 1 << 12, 0, "EFER", "EFER.SVME" },
	{ 0x4d0, 8, 0, 1ULL << 40, "EFER", "lacks" },
	{ 0x548, 8, 0, 1ULL << 40, "CR4", "lacks" },
	{ 0x548, 8, 1 << 5, 0, "CR4", "CR4.PAE" },
	{ 0x550, 8, 0, BEYOND_PHYS, "CR3", "physical address space" },
	{ 0x558, 8, 1 << 30, 1 << 29, "CR0", "CR0.NW" },
	{ 0x558, 8, 0, 1ULL << 32, "CR0", "CR0[63:32]" },
	{ 0x558, 8, 1, 0, "CR0", "CR0.PE" },
	{ 0x560, 8, 0, 1ULL << 32, "DR7", "DR7[63:32]" },
	{ 0x568, 8, 0, 1ULL << 32, "DR6", "DR6[63:32]" },
	{ 0x412, 2, 0, 3 << 9, "CS_ATTRIBUTES", "CS.L and CS.D" },
	{ 0x668, 8, 0xff, 2, "G_PAT", "memory types", true },
};

/* In a guest in 64-bit mode, unrestricted, with EPT, VPID and virtual NMIs. */
static const struct entry_break vmx_breaks[] = {
	/* controls */
	{ 0x4000, 4, 1 << 1, 0, "PIN_CONTROLS", "PIN_CONTROLS: bits 0x2 must be 1" },
	{ 0x4000, 4, 0, 1U << 31, "PIN_CONTROLS", "bits 0x80000000 must be 0" },
	{ 0x4000, 4, 1 << 3, 0, "PIN_CONTROLS", "virtual NMIs need NMI exiting" },
	{ 0x4002, 4, 1 << 1, 0, "CPU_CONTROLS", "CPU_CONTROLS: bits 0x2 must be 1" },
	{ 0x401e, 4, 0, 1U << 31, "CPU_CONTROLS2", "CPU_CONTROLS2" },
	{ 0x400a, 4, ALL, 5, "CR3_TARGET_COUNT", "at most 4" },
	{ 0x2004, 8, 0, 1, "MSR_BITMAP", "MSR bitmap" },
	{ 0x2004, 8, 0, BEYOND_PHYS, "MSR_BITMAP", "MSR bitmap" },
	{ 0x0000, 2, ALL, 0, "VPID", "must not be 0" },
	{ 0x201a, 8, 7, 3, "EPT_POINTER", "memory type" },
	{ 0x201a, 8, 7 << 3, 1 << 3, "EPT_POINTER", "page-walk length" },
	{ 0x201a, 8, 0, 1 << 9, "EPT_POINTER", "reserved bits" },
	{ 0x201a, 8, 0, BEYOND_PHYS, "EPT_POINTER", "reserved bits" },
	{ 0x401e, 4, 1 << 1, 0, "CPU_CONTROLS2", "needs EPT" },
	{ 0x400c, 4, 1 << 0, 0, "EXIT_CONTROLS", "EXIT_CONTROLS: bits 0x1 must be 1" },
	{ 0x400c, 4, 0, 1 << 22, "EXIT_CONTROLS", "saving the preemption timer" },
	{ 0x400e, 4, ALL, 1 << 9, "EXIT_MSR_STORE_ADDR", "MSR-store list" },
	{ 0x4012, 4, 1 << 0, 0, "ENTRY_CONTROLS", "ENTRY_CONTROLS: bits 0x1 must be 1" },
	{ 0x4012, 4, 0, 1 << 10, "ENTRY_CONTROLS", "for SMM only" },
	{ 0x4016, 4, ALL, 0x80000120, "ENTRY_INTR_INFO", "type of an injected event" },
	{ 0x4016, 4, ALL, 0x80000203, "ENTRY_INTR_INFO", "NMI must have vector 2" },
	{ 0x4016, 4, ALL, 0x80000320, "ENTRY_INTR_INFO", "vector up to 31" },
	{ 0x4016, 4, ALL, 0x8000030d, "ENTRY_INTR_INFO", "error code" },
	{ 0x4016, 4, ALL, 0x80001306, "ENTRY_INTR_INFO", "reserved bits" },
	{ 0x4016, 4, ALL, 0x80000480, "ENTRY_INSN_LEN", "instruction length", true },
	/* host */
	{ 0x6c00, 8, 1, 0, "HOST_CR0", "VMX operation" },
	{ 0x6c04, 8, 1 << 13, 0, "HOST_CR4", "VMX operation" },
	{ 0x6c02, 8, 0, BEYOND_PHYS, "HOST_CR3", "physical address space" },
	{ 0x6c10, 8, ALL, NOT_CANONICAL, "HOST_SYSENTER_ESP", "canonical" },
	{ 0x6c12, 8, ALL, NOT_CANONICAL, "HOST_SYSENTER_EIP", "canonical" },
	{ 0x0c00, 2, 0, 3, "HOST_ES_SELECTOR", "RPL and TI" },
	{ 0x0c02, 2, ALL, 0, "HOST_CS_SELECTOR", "must not be 0" },
	{ 0x0c02, 2, 0, 4, "HOST_CS_SELECTOR", "RPL and TI" },
	{ 0x0c0c, 2, ALL, 0, "HOST_TR_SELECTOR", "must not be 0" },
	{ 0x6c06, 8, ALL, NOT_CANONICAL, "HOST_FS_BASE", "canonical" },
	{ 0x6c08, 8, ALL, NOT_CANONICAL, "HOST_GS_BASE", "canonical" },
	{ 0x6c0a, 8, ALL, NOT_CANONICAL, "HOST_TR_BASE", "canonical" },
	{ 0x6c0c, 8, ALL, NOT_CANONICAL, "HOST_GDTR_BASE", "canonical" },
	{ 0x6c0e, 8, ALL, NOT_CANONICAL, "HOST_IDTR_BASE", "canonical" },
	{ 0x6c16, 8, ALL, NOT_CANONICAL, "HOST_RIP", "canonical" },
	/* guest: registers */
	{ 0x6800, 8, 1 << 5, 0, "GUEST_CR0", "VMX operation" },
	{ 0x6800, 8, 1, 0, "GUEST_CR0", "CR0.PE" },
	{ 0x6804, 8, 1 << 13, 0, "GUEST_CR4", "VMX operation" },
	{ 0x6804, 8, 1 << 5, 0, "GUEST_CR4", "CR4.PAE" },
	{ 0x6802, 8, 0, BEYOND_PHYS, "GUEST_CR3", "physical address space" },
	{ 0x6824, 8, ALL, NOT_CANONICAL, "GUEST_SYSENTER_ESP", "canonical" },
	{ 0x6826, 8, ALL, NOT_CANONICAL, "GUEST_SYSENTER_EIP", "canonical" },
	{ 0x2804, 8, 0xff, 2, "GUEST_PAT", "memory types" },
	{ 0x2806, 8, 0, 1ULL << 40, "GUEST_EFER", "reserved bits" },
	{ 0x2806, 8, 1 << 10, 0, "GUEST_EFER", "LMA must equal" },
	{ 0x2806, 8, 1 << 8, 0, "GUEST_EFER", "LME must equal" },
	/* guest: segments */
	{ 0x080e, 2, 0, 4, "GUEST_TR_SELECTOR", "TI of TR" },
	{ 0x680e, 8, ALL, NOT_CANONICAL, "GUEST_FS_BASE", "canonical" },
	{ 0x6810, 8, ALL, NOT_CANONICAL, "GUEST_GS_BASE", "canonical" },
	{ 0x6814, 8, ALL, NOT_CANONICAL, "GUEST_TR_BASE", "canonical" },
	{ 0x6808, 8, 0, 1ULL << 32, "GUEST_CS_BASE", "bits 63:32" },
	{ 0x4816, 4, 0xf, 0x3 | 1 << 5, "GUEST_CS_ACCESS", "DPL of a CS" },
	{ 0x4816, 4, 0xf, 0x8, "GUEST_CS_ACCESS", "accessed code segment" },
	{ 0x4816, 4, 0, 1 << 14, "GUEST_CS_ACCESS", "D of CS" },
	{ 0x4816, 4, 1 << 4, 0, "GUEST_CS_ACCESS", "S must be 1" },
	{ 0x4816, 4, 1 << 7, 0, "GUEST_CS_ACCESS", "P must be 1" },
	{ 0x4816, 4, 0, 1 << 8, "GUEST_CS_ACCESS", "reserved access rights" },
	{ 0x4818, 4, 0x1000f, 0x1, "GUEST_SS_ACCESS", "writable data segment" },
	{ 0x4822, 4, 0xf, 0x9, "GUEST_TR_ACCESS", "busy TSS" },
	{ 0x4822, 4, 0, 1 << 4, "GUEST_TR_ACCESS", "S must be 0" },
	{ 0x4822, 4, 1 << 7, 0, "GUEST_TR_ACCESS", "P must be 1" },
	{ 0x4822, 4, 0, 1 << 16, "GUEST_TR_ACCESS", "TR must be usable" },
	{ 0x4820, 4, 0x1ffff, 0x83, "GUEST_LDTR_ACCESS", "must be an LDT" },
	{ 0x6816, 8, ALL, NOT_CANONICAL, "GUEST_GDTR_BASE", "canonical" },
	{ 0x6818, 8, ALL, NOT_CANONICAL, "GUEST_IDTR_BASE", "canonical" },
	{ 0x4810, 4, 0, 1 << 16, "GUEST_GDTR_LIMIT", "bits 31:16" },
	{ 0x4812, 4, 0, 1 << 16, "GUEST_IDTR_LIMIT", "bits 31:16" },
	/* guest: the rest */
	{ 0x681e, 8, ALL, BEYOND_PHYS, "GUEST_RIP", "identical", true },
	{ 0x6820, 8, 1 << 1, 0, "GUEST_RFLAGS", "reserved bits" },
	{ 0x6820, 8, 0, 1 << 15, "GUEST_RFLAGS", "reserved bits" },
	{ 0x6820, 8, 0, 1 << 17, "GUEST_ES_BASE", "virtual-8086" },
	{ 0x4826, 4, ALL, 5, "GUEST_ACTIVITY", "activity state" },
	{ 0x4824, 4, 0, 1 << 8, "GUEST_INTERRUPTIBILITY", "reserved bits" },
	{ 0x4824, 4, 0, 3, "GUEST_INTERRUPTIBILITY", "exclude each other" },
	{ 0x4824, 4, 0, 4, "GUEST_INTERRUPTIBILITY", "SMI" },
	{ 0x6822, 8, 0, 1 << 5, "GUEST_PENDING_DEBUG", "reserved bits" },
	{ 0x2800, 8, ALL, 1, "VMCS_LINK_POINTER", "link pointer" },
};

#endif
