/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The shortest guest with a life worth the name, for tests that need many: an
 * ELF kernel with a PVH entry (32 bits, paging off) that writes a line to the
 * serial port, touches every page of 4 MiB, and powers off.
 */
#define COM1_DATA		0x3f8
#define COM1_LINE_STATUS	0x3fd
#define COM1_TX_EMPTY		0x20

/* ACPI's PM1a control block of `fonda run', where S5 has type 5. */
#define PM1_CONTROL		0x604
#define POWER_OFF		((1 << 13) | (5 << 10))

#define AREA			(16 << 20)
#define AREA_SIZE		(4 << 20)

	.section .note.pvh, "a", @note
	.align	4
	.long	2f - 1f, 4f - 3f, 18	/* XEN_ELFNOTE_PHYS32_ENTRY */
1:	.asciz	"Xen"
2:	.align	4
3:	.long	_start
4:

	.text
	.globl	_start
_start:
	mov	$line, %esi
next:	mov	$COM1_LINE_STATUS, %dx
wait:	in	%dx, %al
	test	$COM1_TX_EMPTY, %al
	jz	wait
	mov	$COM1_DATA, %dx
	lodsb
	test	%al, %al
	jz	touch
	out	%al, %dx
	jmp	next

touch:	mov	$AREA, %edi
	mov	$(AREA_SIZE >> 12), %ecx
page:	mov	%edi, (%edi)
	add	$4096, %edi
	loop	page

	mov	$PM1_CONTROL, %dx
	mov	$POWER_OFF, %ax
	out	%ax, %dx
	cli
	hlt

line:	.asciz	"guest: tiny\r\n"

	.section .note.GNU-stack, "", @progbits
