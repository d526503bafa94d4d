/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What both vendors' entries do, for assembly: the host's registers on the stack,
 * the guest's general registers from and to the array that RDI points to (in
 * hardware order; RAX and RSP are the vendor's), and what must be done before the
 * host runs on what a guest has trained and left behind.
 */
#ifndef FONDA_ENTER_H
#define FONDA_ENTER_H

#include <linux/linkage.h>
#include <linux/objtool.h>
#include <asm/alternative.h>
#include <asm/asm.h>
#include <asm/cpufeatures.h>
#include <asm/msr-index.h>
#include <asm/nospec-branch.h>
#include <asm/unwind_hints.h>

.macro PUSH_HOST_REGS
	push	%rbp
	push	%r15
	push	%r14
	push	%r13
	push	%r12
	push	%rbx
	push	%rdi
.endm

.macro POP_HOST_REGS
	pop	%rdi
	pop	%rbx
	pop	%r12
	pop	%r13
	pop	%r14
	pop	%r15
	pop	%rbp
.endm

/* Flags are left alone. */
.macro LOAD_GUEST_REGS
	mov	(1 * 8)(%rdi), %rcx
	mov	(2 * 8)(%rdi), %rdx
	mov	(3 * 8)(%rdi), %rbx
	mov	(5 * 8)(%rdi), %rbp
	mov	(6 * 8)(%rdi), %rsi
	.irp	nr, 8, 9, 10, 11, 12, 13, 14, 15
	mov	(\nr * 8)(%rdi), %r\nr
	.endr
	mov	(7 * 8)(%rdi), %rdi
.endm

/* To the array at RAX. */
.macro SAVE_GUEST_REGS
	mov	%rcx, (1 * 8)(%rax)
	mov	%rdx, (2 * 8)(%rax)
	mov	%rbx, (3 * 8)(%rax)
	mov	%rbp, (5 * 8)(%rax)
	mov	%rsi, (6 * 8)(%rax)
	mov	%rdi, (7 * 8)(%rax)
	.irp	nr, 8, 9, 10, 11, 12, 13, 14, 15
	mov	%r\nr, (\nr * 8)(%rax)
	.endr
.endm

/*
 * The guest must not steer the host's returns: the return stack buffer is filled
 * with what leads nowhere (not by the kernel's macro, which loops). Nor may
 * speculation use what it left in the registers. Where the buffer need not be filled
 * because IBRS is always on, one entry is needed all the same: for our own return,
 * with which SPEC_CTRL still is the guest's.
 */
.macro LEAVE_GUEST_BEHIND
	ALTERNATIVE "jmp .Lrsb_one\@", "", X86_FEATURE_RSB_VMEXIT
	.rept	RSB_CLEAR_LOOPS - 1
	ANNOTATE_INTRA_FUNCTION_CALL
	call	1f
	int3
1:
	.endr
	add	$((RSB_CLEAR_LOOPS - 1) * 8), %rsp
.Lrsb_one\@:
	ANNOTATE_INTRA_FUNCTION_CALL
	call	1f
	int3
1:
	add	$8, %rsp
	lfence
#ifdef CREDIT_CALL_DEPTH
	CREDIT_CALL_DEPTH
#endif
	CALL_UNTRAIN_RET
#ifdef X86_FEATURE_CLEAR_BHB_LOOP_ON_VMEXIT
	CLEAR_BRANCH_HISTORY_VMEXIT
#endif
#ifdef X86_FEATURE_IBPB_ON_VMEXIT
	ALTERNATIVE "jmp .Lno_ibpb\@", "", X86_FEATURE_IBPB_ON_VMEXIT
	mov	$MSR_IA32_PRED_CMD, %ecx
	mov	$PRED_CMD_IBPB, %eax
	xor	%edx, %edx
	wrmsr
.Lno_ibpb\@:
#endif
	xor	%ecx, %ecx
	xor	%edx, %edx
	xor	%esi, %esi
	xor	%edi, %edi
	xor	%r8d, %r8d
	xor	%r9d, %r9d
	xor	%r10d, %r10d
	xor	%r11d, %r11d
.endm

#endif
