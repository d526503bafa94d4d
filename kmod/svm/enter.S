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
#include <linux/linkage.h>
#include <asm/asm.h>
#include <asm/cpufeatures.h>
#include <asm/msr-index.h>
#include <asm/nospec-branch.h>

#define REG(n)	(n * 8)(%rdi)

.section .noinstr.text, "ax"

SYM_FUNC_START(svm_enter)
	push	%rbp
	push	%r15
	push	%r14
	push	%r13
	push	%r12
	push	%rbx
	push	%rdi
	push	%rdx

	mov	%rsi, %rax
	mov	REG(1), %rcx
	mov	REG(2), %rdx
	mov	REG(3), %rbx
	mov	REG(5), %rbp
	mov	REG(6), %rsi
	mov	REG(8), %r8
	mov	REG(9), %r9
	mov	REG(10), %r10
	mov	REG(11), %r11
	mov	REG(12), %r12
	mov	REG(13), %r13
	mov	REG(14), %r14
	mov	REG(15), %r15
	mov	REG(7), %rdi

	clgi
	sti
	vmload	%rax
	vmrun	%rax
	vmsave	%rax
	cli

	/* The host's FS, GS, TR and system-call MSRs: per-CPU data again. */
	mov	(%rsp), %rax
	vmload	%rax

	mov	8(%rsp), %rax
	mov	%rcx, (1 * 8)(%rax)
	mov	%rdx, (2 * 8)(%rax)
	mov	%rbx, (3 * 8)(%rax)
	mov	%rbp, (5 * 8)(%rax)
	mov	%rsi, (6 * 8)(%rax)
	mov	%rdi, (7 * 8)(%rax)
	mov	%r8, (8 * 8)(%rax)
	mov	%r9, (9 * 8)(%rax)
	mov	%r10, (10 * 8)(%rax)
	mov	%r11, (11 * 8)(%rax)
	mov	%r12, (12 * 8)(%rax)
	mov	%r13, (13 * 8)(%rax)
	mov	%r14, (14 * 8)(%rax)
	mov	%r15, (15 * 8)(%rax)

	/* The guest must not steer the host's returns. */
	FILL_RETURN_BUFFER %rcx, RSB_CLEAR_LOOPS, X86_FEATURE_RSB_VMEXIT
	CALL_UNTRAIN_RET
#ifdef X86_FEATURE_IBPB_ON_VMEXIT
	ALTERNATIVE "jmp .Lno_ibpb", "", X86_FEATURE_IBPB_ON_VMEXIT
	mov	$MSR_IA32_PRED_CMD, %ecx
	mov	$PRED_CMD_IBPB, %eax
	xor	%edx, %edx
	wrmsr
.Lno_ibpb:
#endif

	/* Nor may speculation use what it left in the registers. */
	xor	%ecx, %ecx
	xor	%edx, %edx
	xor	%esi, %esi
	xor	%edi, %edi
	xor	%r8d, %r8d
	xor	%r9d, %r9d
	xor	%r10d, %r10d
	xor	%r11d, %r11d

	stgi

	pop	%rdx
	pop	%rdi
	pop	%rbx
	pop	%r12
	pop	%r13
	pop	%r14
	pop	%r15
	pop	%rbp
	RET
SYM_FUNC_END(svm_enter)

.section .note.GNU-stack, "", @progbits
