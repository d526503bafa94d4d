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
	u16 opcode;		/* 0x1xx: after 0f; 0x2xx: after 0f 38 */
	u8 groups;		/* bit n: ModRM.reg may be n; 0: any */
	bool lock;
	bool moffs, string;
	bool bits;		/* the register is an offset in bits */
	bool bare;		/* there is no form of 16 bits */
	bool vector;		/* moves an XMM register; also with VEX, then 16 or 32 bytes */
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
	{ 0x140 }, { 0x141 }, { 0x142 }, { 0x143 }, { 0x144 }, { 0x145 }, { 0x146 }, { 0x147 },
	{ 0x148 }, { 0x149 }, { 0x14a }, { 0x14b }, { 0x14c }, { 0x14d }, { 0x14e }, { 0x14f },
	{ 0x190 }, { 0x191 }, { 0x192 }, { 0x193 }, { 0x194 }, { 0x195 }, { 0x196 }, { 0x197 },
	{ 0x198 }, { 0x199 }, { 0x19a }, { 0x19b }, { 0x19c }, { 0x19d }, { 0x19e }, { 0x19f },
	{ 0x1a3, .bits = true, .undefined = BIT_TEST },
	{ 0x1ab, .bits = true, .lock = true, .undefined = BIT_TEST },
	{ 0x1b3, .bits = true, .lock = true, .undefined = BIT_TEST },
	{ 0x1bb, .bits = true, .lock = true, .undefined = BIT_TEST },
	{ 0x1ba, .groups = 0x10, .imm = 1, .undefined = BIT_TEST },
	{ 0x1ba, .groups = 0xe0, .imm = 1, .lock = true, .undefined = BIT_TEST },
	{ 0x1b0, .lock = true }, { 0x1b1, .lock = true },
	{ 0x1b6 }, { 0x1b7 }, { 0x1be }, { 0x1bf },
	{ 0x1c0, .lock = true }, { 0x1c1, .lock = true },
	{ 0x1c3, .bare = true },
	{ 0x2f0 }, { 0x2f1 },
	{ 0x110, .vector = true }, { 0x110, .vector = true, .prefix = 0x66 },
	{ 0x110, .vector = true, .prefix = 0xf3 }, { 0x110, .vector = true, .prefix = 0xf2 },
	{ 0x111, .vector = true }, { 0x111, .vector = true, .prefix = 0x66 },
	{ 0x111, .vector = true, .prefix = 0xf3 }, { 0x111, .vector = true, .prefix = 0xf2 },
	{ 0x128, .vector = true, .align = 32 },
	{ 0x128, .vector = true, .align = 32, .prefix = 0x66 },
	{ 0x129, .vector = true, .align = 32 },
	{ 0x129, .vector = true, .align = 32, .prefix = 0x66 },
	{ 0x12b, .vector = true, .align = 32 },
	{ 0x12b, .vector = true, .align = 32, .prefix = 0x66 },
	{ 0x16e, .vector = true, .prefix = 0x66 }, { 0x17e, .vector = true, .prefix = 0x66 },
	{ 0x17e, .vector = true, .prefix = 0xf3 }, { 0x1d6, .vector = true, .prefix = 0x66 },
	{ 0x16f, .vector = true, .align = 32, .prefix = 0x66 },
	{ 0x16f, .vector = true, .prefix = 0xf3 },
	{ 0x17f, .vector = true, .align = 32, .prefix = 0x66 },
	{ 0x17f, .vector = true, .prefix = 0xf3 },
	{ 0x1e7, .vector = true, .align = 32, .prefix = 0x66 },
	{ 0x1f0, .vector = true, .prefix = 0xf2 },
	{ 0x22a, .vector = true, .align = 32, .prefix = 0x66 },
};

/* Only whole registers, and MOVSS and MOVSD, have a form for YMM registers. */
static inline bool form_has_ymm(const struct form *f)
{
	return f->opcode != 0x16e && f->opcode != 0x17e && f->opcode != 0x1d6;
}

static inline int put(u8 *code, u64 val, int bytes)
{
	memcpy(code, &val, (size_t)bytes);
	return bytes;
}

#endif
