/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * bool vmx_enter(unsigned long *regs, bool launched)
 *
 * One run of the guest whose VMCS is current, interrupts off. @regs holds the
 * guest's general registers in hardware order (RSP is the VMCS's). 0, or 1: the
 * instruction failed, and the guest was not entered.
 */
#include "enter.h"

#define VMCS_HOST_RSP	0x6c14

.section .noinstr.text, "ax"

SYM_FUNC_START(vmx_enter)
	PUSH_HOST_REGS
	mov	$VMCS_HOST_RSP, %eax
	vmwrite	%rsp, %rax
	test	%sil, %sil
	mov	(0 * 8)(%rdi), %rax
	LOAD_GUEST_REGS
	/* An exit goes on at vmx_exit_point with this stack. */
	UNWIND_HINT_SAVE
	jnz	.Lresume
.Llaunch:
	vmlaunch
	jmp	.Lfailed
.Lresume:
	vmresume
	jmp	.Lfailed
	/* The extension has been switched off under us. */
	_ASM_EXTABLE(.Llaunch, .Lfailed)
	_ASM_EXTABLE(.Lresume, .Lfailed)

SYM_INNER_LABEL_ALIGN(vmx_exit_point, SYM_L_GLOBAL)
	UNWIND_HINT_RESTORE
	ENDBR
	push	%rax
	mov	8(%rsp), %rax
	SAVE_GUEST_REGS
	pop	(%rax)
	LEAVE_GUEST_BEHIND
	xor	%eax, %eax
	POP_HOST_REGS
	RET

.Lfailed:
	mov	$1, %eax
	POP_HOST_REGS
	RET
SYM_FUNC_END(vmx_enter)

.section .note.GNU-stack, "", @progbits
