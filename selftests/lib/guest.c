// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The part of a guest that is common to all tests in C: exception vectors,
 * the dispatch of exceptions, and reports to the host. This file is compiled
 * without SSE, so that a handler leaves the registers of the FPU alone.
 */
#include "guest.h"

struct guest_cpu guest_cpus[GUEST_MAX_VCPUS];
void (*volatile guest_handlers[256])(struct guest_frame *frame);
volatile bool guest_x2apic;

/*
 * A vector pushes a zero where the processor pushes no error code, its
 * number, and all registers.
 */
__asm__(".pushsection .text\n"
	".balign 16\n"
	".globl guest_vectors\n"
	"guest_vectors:\n"
	".set vec, 0\n"
	".rept 256\n"
	".balign 16\n"
	"	.if vec < 8 || vec == 9 || vec > 14 && vec != 17 && vec != 21 && "
	"	    vec != 29 && vec != 30\n"
	"	push $0\n"
	"	.endif\n"
	"	pushq $vec\n"
	"	jmp guest_common\n"
	".set vec, vec + 1\n"
	".endr\n"
	"guest_common:\n"
	"	push %rax; push %rcx; push %rdx; push %rbx; push %rbp; push %rsi; push %rdi\n"
	"	push %r8; push %r9; push %r10; push %r11\n"
	"	push %r12; push %r13; push %r14; push %r15\n"
	"	mov %rsp, %rdi\n"
	"	mov %rsp, %rbx\n"
	"	and $-16, %rsp\n"
	"	cld\n"
	"	call guest_dispatch\n"
	"	mov %rbx, %rsp\n"
	"	pop %r15; pop %r14; pop %r13; pop %r12; pop %r11; pop %r10; pop %r9; pop %r8\n"
	"	pop %rdi; pop %rsi; pop %rbp; pop %rbx; pop %rdx; pop %rcx; pop %rax\n"
	"	add $16, %rsp\n"
	"	iretq\n"
	".popsection\n");

void guest_report(const struct guest_report *report)
{
	outl(GUEST_PORT, (uint32_t)(uintptr_t)report);
}

void guest_exit(void)
{
	const struct guest_report report = { .kind = GUEST_REPORT_DONE };

	for (;;)
		guest_report(&report);
}

void guest_fail(const char *what, uint64_t where, uint64_t left, uint64_t right)
{
	const struct guest_report report = {
		.kind = GUEST_REPORT_FAILED, .what = what, .line = where,
		.left = left, .right = right,
	};

	for (;;)
		guest_report(&report);
}

void guest_count_handler(struct guest_frame *frame)
{
	struct guest_cpu *cpu = guest_cpu();

	cpu->irqs[frame->vector]++;
	cpu->last_irq = (uint32_t)frame->vector;
}

void guest_eoi_handler(struct guest_frame *frame)
{
	guest_count_handler(frame);
	apic_write(APIC_EOI, 0);
}

void guest_dispatch(struct guest_frame *frame);
void guest_dispatch(struct guest_frame *frame)
{
	struct guest_report report = { .kind = GUEST_REPORT_FAULT, .frame = frame };
	struct guest_cpu *cpu = guest_cpu();

	if (guest_handlers[frame->vector]) {
		guest_handlers[frame->vector](frame);
		return;
	}
	if (frame->vector < 32 && cpu->fixup) {
		cpu->vector = (uint32_t)frame->vector;
		cpu->error = frame->error;
		cpu->fault_rip = frame->rip;
		frame->rip = cpu->fixup;
		cpu->fixup = 0;
		return;
	}
	report.left = read_cr2();
	for (;;)
		guest_report(&report);
}
