/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The instructions that kmod/emulate.c executes, for tests that generate them. */
#ifndef UNIT_EMULATE_FORMS_H
#define UNIT_EMULATE_FORMS_H

#include <string.h>
#include <asm/processor-flags.h>

#include "emulate.h"

enum { AX, CX, DX, BX, SP, BP, SI, DI };

#define STATUS	(X86_EFLAGS_CF | X86_EFLAGS_PF | X86_EFLAGS_AF | \
		 X86_EFLAGS_ZF | X86_EFLAGS_SF | X86_EFLAGS_OF)

/* An opcode, its map, and the values of ModRM.reg that are supported. */
struct form {
	u16 opcode;		/* 0x1xx: after 0f */
	u8 groups;		/* bit n: ModRM.reg may be n; 0: any */
	bool lock;
	bool moffs, string;
	bool bits;		/* the register is an offset in bits */
	bool vector;		/* moves an XMM register */
	u8 prefix;		/* the one that belongs to the opcode */
	u8 align;		/* of the operand */
	u8 imm;			/* bytes; 4: the operand's size, at most 4 */
	unsigned long undefined;	/* flags not to be compared */
};

#define LOGIC	X86_EFLAGS_AF
#define BIT_TEST	(X86_EFLAGS_OF | X86_EFLAGS_SF | X86_EFLAGS_AF | X86_EFLAGS_PF)

static const struct form forms[] = {
	{ 0x00, .lock = true }, { 0x01, .lock = true }, { 0x02 }, { 0x03 },
	{ 0x08, .lock = true, .undefined = LOGIC }, { 0x09, .lock = true, .undefined = LOGIC },
	{ 0x0a, .undefined = LOGIC }, { 0x0b, .undefined = LOGIC },
	{ 0x10, .lock = true }, { 0x11, .lock = true }, { 0x12 }, { 0x13 },
	{ 0x18, .lock = true }, { 0x19, .lock = true }, { 0x1a }, { 0x1b },
	{ 0x20, .lock = true, .undefined = LOGIC }, { 0x21, .lock = true, .undefined = LOGIC },
	{ 0x22, .undefined = LOGIC }, { 0x23, .undefined = LOGIC },
	{ 0x28, .lock = true }, { 0x29, .lock = true }, { 0x2a }, { 0x2b },
	{ 0x30, .lock = true, .undefined = LOGIC }, { 0x31, .lock = true, .undefined = LOGIC },
	{ 0x32, .undefined = LOGIC }, { 0x33, .undefined = LOGIC },
	{ 0x38 }, { 0x39 }, { 0x3a }, { 0x3b },
	{ 0x63 },
	/* OR, AND, XOR apart: their AF is undefined. */
	{ 0x80, .groups = 0x2d, .lock = true, .imm = 1 },
	{ 0x80, .groups = 0x52, .lock = true, .imm = 1, .undefined = LOGIC },
	{ 0x80, .groups = 0x80, .imm = 1 },
	{ 0x81, .groups = 0x2d, .lock = true, .imm = 4 },
	{ 0x81, .groups = 0x52, .lock = true, .imm = 4, .undefined = LOGIC },
	{ 0x81, .groups = 0x80, .imm = 4 },
	{ 0x83, .groups = 0x2d, .lock = true, .imm = 1 },
	{ 0x83, .groups = 0x52, .lock = true, .imm = 1, .undefined = LOGIC },
	{ 0x83, .groups = 0x80, .imm = 1 },
	{ 0x84, .undefined = LOGIC }, { 0x85, .undefined = LOGIC },
	{ 0x86, .lock = true }, { 0x87, .lock = true },
	{ 0x88 }, { 0x89 }, { 0x8a }, { 0x8b },
	{ 0xa0, .moffs = true }, { 0xa1, .moffs = true },
	{ 0xa2, .moffs = true }, { 0xa3, .moffs = true },
	{ 0xa4, .string = true }, { 0xa5, .string = true },
	{ 0xaa, .string = true }, { 0xab, .string = true },
	{ 0xac, .string = true }, { 0xad, .string = true },
	{ 0xa6, .string = true }, { 0xa7, .string = true },
	{ 0xae, .string = true }, { 0xaf, .string = true },
	{ 0xc6, .groups = 1, .imm = 1 }, { 0xc7, .groups = 1, .imm = 4 },
	{ 0xf6, .groups = 3, .imm = 1, .undefined = LOGIC },
	{ 0xf7, .groups = 3, .imm = 4, .undefined = LOGIC },
	{ 0xf6, .groups = 0x0c, .lock = true }, { 0xf7, .groups = 0x0c, .lock = true },
	{ 0xfe, .groups = 3, .lock = true }, { 0xff, .groups = 3, .lock = true },
	{ 0x1a3, .bits = true, .undefined = BIT_TEST },
	{ 0x1ab, .bits = true, .lock = true, .undefined = BIT_TEST },
	{ 0x1b3, .bits = true, .lock = true, .undefined = BIT_TEST },
	{ 0x1bb, .bits = true, .lock = true, .undefined = BIT_TEST },
	{ 0x1ba, .groups = 0x10, .imm = 1, .undefined = BIT_TEST },
	{ 0x1ba, .groups = 0xe0, .imm = 1, .lock = true, .undefined = BIT_TEST },
	{ 0x1b6 }, { 0x1b7 }, { 0x1be }, { 0x1bf },
	{ 0x110, .vector = true }, { 0x110, .vector = true, .prefix = 0x66 },
	{ 0x111, .vector = true }, { 0x111, .vector = true, .prefix = 0x66 },
	{ 0x128, .vector = true, .align = 16 },
	{ 0x128, .vector = true, .align = 16, .prefix = 0x66 },
	{ 0x129, .vector = true, .align = 16 },
	{ 0x129, .vector = true, .align = 16, .prefix = 0x66 },
	{ 0x12b, .vector = true, .align = 16 },
	{ 0x12b, .vector = true, .align = 16, .prefix = 0x66 },
	{ 0x16f, .vector = true, .align = 16, .prefix = 0x66 },
	{ 0x16f, .vector = true, .prefix = 0xf3 },
	{ 0x17f, .vector = true, .align = 16, .prefix = 0x66 },
	{ 0x17f, .vector = true, .prefix = 0xf3 },
	{ 0x1e7, .vector = true, .align = 16, .prefix = 0x66 },
};

static inline int put(u8 *code, u64 val, int bytes)
{
	memcpy(code, &val, (size_t)bytes);
	return bytes;
}

#endif
