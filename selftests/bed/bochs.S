/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What Bochs's BIOS starts: loads a kernel and its initramfs from the disk that
 * mkdisk.c made, and enters the kernel as the PVH boot protocol says (Xen's
 * documentation, "x86/HVM direct boot ABI"). Real mode all the way, but for the
 * one segment that reaches all memory.
 *
 * Sector 0 is the boot sector, 1 the rest of this code; from 2 on stands what
 * mkdisk.c has to say, struct plan, which finds itself at PLAN.
 */
#define CODE		0x7c00
#define PLAN		0x8000
#define PLAN_SECTORS	6
#define MEMORY_MAP	0x9000	/* room for 100 entries of 24 bytes */
#define BUFFER_SEG	0x1000
#define CHUNK		64	/* sectors read at once */

/* struct plan */
#define PLAN_ENTRY	PLAN
#define PLAN_LOADS	(PLAN + 8)
#define PLAN_START_INFO	(PLAN + 264)
#define START_INFO_MEMMAP_ENTRIES	48

/* struct load, found by %bp */
#define LOAD_ADDRESS	0
#define LOAD_SECTOR	4
#define LOAD_SECTORS	8
#define LOAD_SIZE	16

#define COM1		0x3f8
#define FLAT_CODE	8
#define FLAT_DATA	16

	.text
	.code16
	.globl	start
start:
	ljmp	$0, $1f
1:	xorw	%ax, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movw	$CODE, %sp
	movb	%dl, drive
	call	read
	jmp	main

/* What packet says, to where it says. */
read:
	movw	$packet, %si
	movb	drive, %dl
	movb	$0x42, %ah
	int	$0x13
	jc	fail
	ret

fail:
	movw	$message, %si
1:	lodsb
	testb	%al, %al
	jz	2f
	movw	$COM1, %dx
	outb	%al, %dx
	jmp	1b
2:	cli
	hlt
	jmp	2b

message:
	.asciz	"boot: the disk cannot be read\n"
drive:
	.byte	0
	.balign	4
packet:
	.byte	16, 0
packet_sectors:
	.word	1 + PLAN_SECTORS
packet_offset:
	.word	CODE + 512
packet_segment:
	.word	0
packet_lba:
	.quad	1

	.org	510
	.word	0xaa55

main:
	/* The address line 20, by the system control port. */
	inb	$0x92, %al
	orb	$2, %al
	andb	$~1, %al
	outb	%al, $0x92

	/* The BIOS's entries are as long as those of the protocol. */
	movw	$MEMORY_MAP, %di
	xorl	%ebx, %ebx
1:	movl	$0xe820, %eax
	movl	$0x534d4150, %edx
	movl	$20, %ecx
	int	$0x15
	jc	2f
	addw	$24, %di
	incl	PLAN_START_INFO + START_INFO_MEMMAP_ENTRIES
	testl	%ebx, %ebx
	jnz	1b
2:
	movw	$0, packet_offset
	movw	$BUFFER_SEG, packet_segment
	movw	$PLAN_LOADS, %bp
next_load:
	movl	LOAD_ADDRESS(%bp), %edi
	movl	LOAD_SECTOR(%bp), %eax
	movl	%eax, packet_lba
next_chunk:
	movl	LOAD_SECTORS(%bp), %ecx
	jecxz	enter
	cmpl	$CHUNK, %ecx
	jbe	1f
	movl	$CHUNK, %ecx
1:	subl	%ecx, LOAD_SECTORS(%bp)
	movw	%cx, packet_sectors
	pushl	%ecx
	pushl	%edi
	call	read
	call	reach_all
	popl	%edi
	popl	%ecx
	addl	%ecx, packet_lba
	shll	$7, %ecx
	xorl	%esi, %esi
	movw	$BUFFER_SEG, %ax
	movw	%ax, %ds
	cld
	rep movsl %ds:(%esi), %es:(%edi)
	xorw	%ax, %ax
	movw	%ax, %ds
	cmpl	$0, LOAD_SECTORS(%bp)
	jnz	next_chunk
	addw	$LOAD_SIZE, %bp
	jmp	next_load

/*
 * %es without a limit: it keeps that of protected mode after it is left. The
 * BIOS need not keep it, so this is done after each call of it.
 */
reach_all:
	cli
	lgdt	gdtr
	movl	%cr0, %eax
	orb	$1, %al
	movl	%eax, %cr0
	movw	$FLAT_DATA, %bx
	movw	%bx, %es
	andb	$~1, %al
	movl	%eax, %cr0
	xorw	%bx, %bx
	movw	%bx, %es
	sti
	ret

enter:
	cli
	lgdt	gdtr
	movl	%cr0, %eax
	orb	$1, %al
	movl	%eax, %cr0
	ljmp	$FLAT_CODE, $1f
	.code32
1:	movw	$FLAT_DATA, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movl	$PLAN_START_INFO, %ebx
	jmp	*PLAN_ENTRY

	.balign	8
gdt:
	.quad	0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdtr:
	.word	gdtr - gdt - 1
	.long	gdt

	.org	PLAN - CODE
