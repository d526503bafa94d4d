// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The state of a vCPU for people: what is needed to tell why it stopped.
 */
#include <stdio.h>
#include <sys/ioctl.h>

#include "../util/util.h"
#include "cpu.h"

#define CR0_PG		BIT(31)
#define CR4_LA57	BIT(12)
#define EFER_LMA	BIT(10)
#define PTE_PRESENT	BIT(0)
#define PTE_LARGE	BIT(7)
#define PTE_ADDRESS	0x000ffffffffff000ULL
#define CODE_BYTES	16

/* The guest-physical address of @gva, for paging off and 4- or 5-level. */
static bool translate(const struct vcpu *vcpu, const struct kvm_sregs *sregs,
		      uint64_t gva, uint64_t *gpa)
{
	unsigned int shift = sregs->cr4 & CR4_LA57 ? 48 : 39;
	uint64_t table = sregs->cr3 & PTE_ADDRESS, mask;
	const uint64_t *pte;

	*gpa = gva;
	if (!(sregs->cr0 & CR0_PG))
		return true;
	if (!(sregs->efer & EFER_LMA))
		return false;
	for (;; shift -= 9) {
		pte = ram_ptr(vcpu->ram, table + (gva >> shift & 511) * 8, 8);
		if (!pte || !(*pte & PTE_PRESENT))
			return false;
		if (shift == 12 || (shift <= 30 && (*pte & PTE_LARGE))) {
			mask = (1ULL << shift) - 1;
			*gpa = (*pte & PTE_ADDRESS & ~mask) | (gva & mask);
			return true;
		}
		table = *pte & PTE_ADDRESS;
	}
}

static void dump_code(const struct vcpu *vcpu, const struct kvm_sregs *sregs, uint64_t rip)
{
	const uint8_t *byte;
	uint64_t gpa;
	unsigned int i;

	fprintf(stderr, "  code ");
	for (i = 0; i < CODE_BYTES; i++) {
		byte = translate(vcpu, sregs, sregs->cs.base + rip + i, &gpa) ?
			ram_ptr(vcpu->ram, gpa, 1) : NULL;
		if (!byte)
			break;
		fprintf(stderr, " %02x", *byte);
	}
	fprintf(stderr, "%s\n", i ? "" : " not readable");
}

static void dump_segment(const char *name, const struct kvm_segment *s)
{
	fprintf(stderr, "  %s %04x base %#llx limit %#x type %x s %u dpl %u p %u l %u db %u\n",
		name, s->selector, (unsigned long long)s->base, s->limit, s->type, s->s,
		s->dpl, s->present, s->l, s->db);
}

void vcpu_dump(struct vcpu *vcpu)
{
	struct kvm_sregs sregs;
	struct kvm_regs r;

	if (ioctl(vcpu->fd, KVM_GET_REGS, &r) || ioctl(vcpu->fd, KVM_GET_SREGS, &sregs)) {
		fprintf(stderr, "vCPU %u: its registers cannot be read\n", vcpu->id);
		return;
	}
	flockfile(stderr);
	fprintf(stderr, "vCPU %u (%s exits: %llu io, %llu mmio):\n", vcpu->id, vcpu->kvm->path,
		(unsigned long long)vcpu->exits[KVM_EXIT_IO],
		(unsigned long long)vcpu->exits[KVM_EXIT_MMIO]);
#define REG(_name)	(unsigned long long)r._name
	fprintf(stderr, "  rip %016llx rflags %08llx\n", REG(rip), REG(rflags));
	fprintf(stderr, "  rax %016llx rbx %016llx rcx %016llx rdx %016llx\n",
		REG(rax), REG(rbx), REG(rcx), REG(rdx));
	fprintf(stderr, "  rsi %016llx rdi %016llx rbp %016llx rsp %016llx\n",
		REG(rsi), REG(rdi), REG(rbp), REG(rsp));
	fprintf(stderr, "  r8  %016llx r9  %016llx r10 %016llx r11 %016llx\n",
		REG(r8), REG(r9), REG(r10), REG(r11));
	fprintf(stderr, "  r12 %016llx r13 %016llx r14 %016llx r15 %016llx\n",
		REG(r12), REG(r13), REG(r14), REG(r15));
#undef REG
	fprintf(stderr, "  cr0 %llx cr2 %llx cr3 %llx cr4 %llx cr8 %llx efer %llx\n",
		(unsigned long long)sregs.cr0, (unsigned long long)sregs.cr2,
		(unsigned long long)sregs.cr3, (unsigned long long)sregs.cr4,
		(unsigned long long)sregs.cr8, (unsigned long long)sregs.efer);
	dump_segment("cs", &sregs.cs);
	dump_segment("ss", &sregs.ss);
	dump_segment("tr", &sregs.tr);
	fprintf(stderr, "  gdt %#llx+%#x idt %#llx+%#x\n",
		(unsigned long long)sregs.gdt.base, sregs.gdt.limit,
		(unsigned long long)sregs.idt.base, sregs.idt.limit);
	dump_code(vcpu, &sregs, r.rip);
	funlockfile(stderr);
}
