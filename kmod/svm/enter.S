/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * void svm_enter(unsigned long *regs, hpa_t vmcb, hpa_t host)
 *
 * One run of the guest: from the host's GIF=1, IF=0 to the same. @regs holds
 * the guest's general registers in hardware order (RAX and RSP are the VMCB's),
 * @vmcb the guest's control block, @host the page that takes what VMSAVE saves
 * of this CPU. Called with interrupts off.
 *
 * With V_INTR_MASKING the host's RFLAGS.IF at VMRUN decides whether a physical
 * interrupt ends the guest's run, so IF is set; GIF=0 holds interrupts back
 * until STGI, when the host's state is whole again.
 */
#include "enter.h"

.section .noinstr.text, "ax"

SYM_FUNC_START(svm_enter)
	PUSH_HOST_REGS
	push	%rdx
	mov	%rsi, %rax
	LOAD_GUEST_REGS

	clgi
	sti
	vmload	%rax
	vmrun	%rax
	vmsave	%rax
	cli

	/* The host's FS, GS, TR and system-call MSRs: per-CPU data again. */
	pop	%rax
	vmload	%rax

	mov	(%rsp), %rax
	SAVE_GUEST_REGS
	LEAVE_GUEST_BEHIND
	stgi

	POP_HOST_REGS
	RET
SYM_FUNC_END(svm_enter)

.section .note.GNU-stack, "", @progbits
