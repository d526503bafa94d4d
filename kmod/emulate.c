// SPDX-License-Identifier: GPL-2.0-only
/*
 * The instruction decoder and executor. It knows the instructions that
 * compilers, kernels and firmware use on MMIO, and the string port
 * instructions; anything else is reported, not guessed. It owns segmentation,
 * operand sizes, arithmetic and flags; paging, memory and devices are behind
 * struct emulate_ops. Encodings and effects: AMD64 APM volume 3, "Instruction
 * Encoding" and "General-Purpose Instruction Reference"; Intel SDM volume 2.
 */
#include <linux/kernel.h>
#include <linux/string.h>
#include <asm/processor-flags.h>

#include "emulate.h"

enum { AX, CX, DX, BX, SP, BP, SI, DI };	/* numbers of registers */

enum { VECTOR_SS = 12, VECTOR_GP = 13, VECTOR_AC = 17 };

/* What is done; ALU operations in the order of their opcodes. The flags tell strings apart. */
enum {
	OP_ADD, OP_OR, OP_ADC, OP_SBB, OP_AND, OP_SUB, OP_XOR, OP_CMP,
	OP_NOT, OP_NEG, OP_INC, OP_DEC, OP_BT, OP_BTS, OP_BTR, OP_BTC,
	OP_MOV, OP_MOVSX, OP_MOVBE, OP_CMOV, OP_SETCC, OP_XADD, OP_CMPXCHG, OP_CMPXCHG8B,
};

/* More flags of a decoded instruction, beside EMUL_* in the header. */
#define MODRM		(1u << 10)
#define IMM		(1u << 11)	/* an immediate stands for the register */
#define TO_REG		(1u << 12)	/* the result goes to the register */
#define LOCKABLE	(1u << 13)
#define MOFFS		(1u << 14)	/* the address follows the opcode */
#define BYTE		(1u << 15)	/* in the second map: byte operands */
#define BIT_STRING	(1u << 16)	/* the register reaches beyond the operand */
#define GROUP		(1u << 17)	/* EMUL_OP_MASK is an index into groups[] */
#define WIDE		(1u << 18)	/* 4 bytes, or 8 with REX.W */

/*
 * A vector register is moved: how much, in units of 4 bytes, with no prefix and
 * with 66, f3 and f2; 0: another instruction, 4: all of the register.
 */
#define VEC_SHIFT	20
#define VEC_W		3		/* 4 or 8 bytes, as REX.W says */
#define VEC(none, p66, pf3, pf2) \
	(OP_MOV | MODRM | ((none) | (p66) << 3 | (pf3) << 6 | (pf2) << 9) << VEC_SHIFT)
#define VEC_MASK	(0xfffu << VEC_SHIFT)

#define MOV	(OP_MOV | EMUL_MOV)
#define RD	EMUL_READ
#define WR	EMUL_WRITE
#define RMW	(RD | WR | LOCKABLE)
#define LOAD	(MODRM | RD | TO_REG)
#define STORE	(MODRM | WR)

enum { GROUP1, GROUP3, GROUP45, GROUP8, GROUP9, GROUP11 };

/*
 * Opcodes of one byte, of which the even ones have byte operands. Not here: the
 * ALU operations below 40.
 */
static const u32 one_byte[256] = {
	[0x63] = OP_MOVSX | LOAD,
	[0x6c ... 0x6d] = EMUL_STRING | EMUL_PORT | WR,		/* INS */
	[0x6e ... 0x6f] = EMUL_STRING | EMUL_PORT | RD,		/* OUTS */
	[0x80 ... 0x81] = GROUP | GROUP1 | MODRM,
	[0x83] = GROUP | GROUP1 | MODRM,
	[0x84 ... 0x85] = OP_AND | MODRM | RD,			/* TEST */
	[0x86 ... 0x87] = OP_MOV | MODRM | RMW | TO_REG,	/* XCHG */
	[0x88 ... 0x89] = MOV | STORE,
	[0x8a ... 0x8b] = MOV | LOAD,
	[0xa0 ... 0xa1] = MOV | MOFFS | RD | TO_REG,
	[0xa2 ... 0xa3] = MOV | MOFFS | WR,
	[0xa4 ... 0xa5] = OP_MOV | EMUL_STRING | RD | WR,	/* MOVS */
	[0xa6 ... 0xa7] = OP_CMP | EMUL_STRING | RD | WR,	/* CMPS */
	[0xaa ... 0xab] = OP_MOV | EMUL_STRING | WR,		/* STOS */
	[0xac ... 0xad] = OP_MOV | EMUL_STRING | RD,		/* LODS */
	[0xae ... 0xaf] = OP_CMP | EMUL_STRING | WR,		/* SCAS */
	[0xc6 ... 0xc7] = GROUP | GROUP11 | MODRM,
	[0xf6 ... 0xf7] = GROUP | GROUP3 | MODRM,
	[0xfe ... 0xff] = GROUP | GROUP45 | MODRM,
};

/* Those after 0f. */
static const u32 two_byte[256] = {
	[0x10] = VEC(4, 4, 1, 2) | LOAD, VEC(4, 4, 1, 2) | STORE,	/* MOVUPS, MOVSS... */
	[0x28] = VEC(4, 4, 0, 0) | LOAD, VEC(4, 4, 0, 0) | STORE,	/* MOVAPS */
	[0x2b] = VEC(4, 4, 0, 0) | STORE,				/* MOVNTPS */
	[0x40 ... 0x4f] = OP_CMOV | LOAD,
	[0x6e] = VEC(0, VEC_W, 0, 0) | LOAD, VEC(0, 4, 4, 0) | LOAD,	/* MOVD, MOVDQA */
	[0x7e] = VEC(0, VEC_W, 2, 0) | STORE, VEC(0, 4, 4, 0) | STORE,
	[0x90 ... 0x9f] = OP_SETCC | BYTE | STORE,
	[0xa3] = OP_BT | MODRM | RD | BIT_STRING,
	[0xab] = OP_BTS | MODRM | RMW | BIT_STRING,
	[0xb0] = OP_CMPXCHG | BYTE | MODRM | RMW, OP_CMPXCHG | MODRM | RMW,
	[0xb3] = OP_BTR | MODRM | RMW | BIT_STRING,
	[0xb6 ... 0xb7] = MOV | LOAD,					/* MOVZX */
	[0xba] = GROUP | GROUP8 | MODRM, OP_BTC | MODRM | RMW | BIT_STRING,
	[0xbe ... 0xbf] = OP_MOVSX | LOAD,
	[0xc0] = OP_XADD | BYTE | MODRM | RMW | TO_REG, OP_XADD | MODRM | RMW | TO_REG,
	[0xc3] = MOV | STORE | WIDE,					/* MOVNTI */
	[0xc7] = GROUP | GROUP9 | MODRM | WIDE,
	[0xd6] = VEC(0, 2, 0, 0) | STORE,				/* MOVQ */
	[0xe7] = VEC(0, 4, 0, 0) | STORE,				/* MOVNTDQ */
	[0xf0] = VEC(0, 0, 0, 4) | LOAD,				/* LDDQU */
};

#define MOVNTDQA	(VEC(0, 4, 0, 0) | LOAD)	/* 0f 38 2a */

static const u32 groups[][8] = {
	[GROUP1] = { OP_ADD | RMW | IMM, OP_OR | RMW | IMM, OP_ADC | RMW | IMM, OP_SBB | RMW | IMM,
		     OP_AND | RMW | IMM, OP_SUB | RMW | IMM, OP_XOR | RMW | IMM, OP_CMP | RD | IMM },
	[GROUP3] = { OP_AND | RD | IMM, OP_AND | RD | IMM, OP_NOT | RMW, OP_NEG | RMW },
	[GROUP45] = { OP_INC | RMW, OP_DEC | RMW },
	[GROUP8] = { [4] = OP_BT | RD | IMM, OP_BTS | RMW | IMM, OP_BTR | RMW | IMM,
		     OP_BTC | RMW | IMM },
	[GROUP9] = { [1] = OP_CMPXCHG8B | RMW },
	[GROUP11] = { MOV | WR | IMM },
};

struct cursor {
	const u8 *code;
	int pos, nr;
};

/* Beyond the end there are zeros; pos tells. */
static u8 next(struct cursor *c)
{
	int pos = c->pos++;

	return likely(pos < c->nr) ? c->code[pos] : 0;
}

static u64 sign_extend(u64 val, int bytes)
{
	return (u64)((s64)(val << (64 - 8 * bytes)) >> (64 - 8 * bytes));
}

/* @bytes (1, 2, 4 or 8) of the code, sign-extended. */
static s64 next_signed(struct cursor *c, int bytes)
{
	u64 val = 0;

	c->pos += bytes;
	if (likely(c->pos <= c->nr))
		memcpy(&val, c->code + c->pos - bytes, bytes);
	return sign_extend(val, bytes);
}

/* Read the prefixes, begin @insn with them, return the first byte of the opcode. */
static u8 next_opcode(struct cursor *c, struct fonda_insn *insn, int bits)
{
	bool adsize = false;
	u8 b;

	*insn = (struct fonda_insn){
		.seg = FONDA_NR_SEGS, .base = FONDA_REG_NONE, .index = FONDA_REG_NONE };
	for (;;) {
		b = next(c);
		if (bits == 64 && (b & 0xf0) == 0x40) {
			insn->rex = b;
			continue;
		}
		if (b == 0x66)
			insn->opsize = true;
		else if (b == 0x67)
			adsize = true;
		else if (b == 0xf0)
			insn->lock = true;
		else if (b == 0xf2 || b == 0xf3)
			insn->rep = b;
		else if ((b & 0xfe) == 0x64)
			insn->seg = FONDA_SEG_FS + (b & 1);
		else if ((b & 0xe7) != 0x26)
			break;
		else if (bits != 64)
			insn->seg = FONDA_SEG_ES + (b >> 3 & 3);
		/* A REX prefix counts only right before the opcode. */
		insn->rex = 0;
	}
	insn->op_bytes = insn->rex & 8 ? 8 : (bits == 16) == insn->opsize ? 4 : 2;
	insn->ad_bytes = bits == 64 ? (adsize ? 4 : 8) : (bits == 16) == adsize ? 4 : 2;
	return b;
}

/* The eight forms of 16-bit addressing: base, then index. */
static const u8 base16[8] = { BX, BX, BP, BP, FONDA_REG_NONE, FONDA_REG_NONE, BP, BX };
static const u8 index16[8] = { SI, DI, SI, DI, SI, DI, FONDA_REG_NONE, FONDA_REG_NONE };

/* The memory operand that the byte @modrm begins. */
static void decode_memory(struct fonda_insn *insn, struct cursor *c, u8 modrm, int bits)
{
	int mod = modrm >> 6, rm = modrm & 7, disp_bytes = mod == 1 ? 1 : 0;
	bool absolute;

	if (insn->ad_bytes == 2) {
		absolute = mod == 0 && rm == 6;
		insn->base = absolute ? FONDA_REG_NONE : base16[rm];
		insn->index = index16[rm];
	} else {
		if (rm == 4) {
			u8 sib = next(c);

			rm = sib & 7;
			insn->index = (sib >> 3 & 7) | (insn->rex & 2) << 2;
			if (insn->index == SP)
				insn->index = FONDA_REG_NONE;
			insn->scale = sib >> 6;
		}
		absolute = mod == 0 && rm == 5;
		insn->base = rm | (insn->rex & 1) << 3;
		if (absolute)
			insn->base = bits == 64 && (modrm & 7) == 5 ? FONDA_REG_RIP_REL :
								      FONDA_REG_NONE;
	}
	if (mod == 2 || absolute)
		disp_bytes = insn->ad_bytes == 2 ? 2 : 4;
	insn->disp = disp_bytes ? next_signed(c, disp_bytes) : 0;
	if (insn->seg == FONDA_NR_SEGS && (insn->base == SP || insn->base == BP))
		insn->seg = FONDA_SEG_SS;
}

/* What follows c4 or c5: the flags of the opcode, with the prefixes that VEX stands for. */
static u32 decode_vex(struct fonda_insn *insn, struct cursor *c, int bits)
{
	bool prefixed = insn->opsize || insn->rep || insn->rex;
	u8 first = next(c), last = first, map = 1;

	if (bits != 64 && first < 0xc0)		/* LES, LDS */
		return 0;
	insn->rex = ~first >> 5 & 4;
	if (insn->opcode == 0xc4) {
		last = next(c);
		map = first & 0x1f;
		insn->rex = (~first >> 5 & 7) | (last >> 4 & 8);
	}
	if (bits != 64)
		insn->rex = 0;
	insn->opsize = (last & 3) == 1;
	insn->rep = last & 2 ? 0xf3 - (last & 1) : 0;
	insn->opcode = next(c);
	insn->op_bytes = 32;
	/* Nothing is moved in 32 bytes but whole registers; MOVSS and MOVSD do not care. */
	insn->mem_bytes = last & 4 ? 32 : 16;
	if (prefixed || (last & 0x78) != 0x78)		/* a third operand */
		return 0;
	if (map == 2 && insn->opcode == 0x2a)
		return MOVNTDQA;
	return map == 1 && two_byte[insn->opcode] & VEC_MASK ? two_byte[insn->opcode] : 0;
}

/* The flags of an opcode that begins with 0f. */
static u32 decode_two_byte(struct fonda_insn *insn, struct cursor *c)
{
	u32 flags;

	insn->opcode = next(c);
	flags = two_byte[insn->opcode];
	if (insn->opcode == 0x38) {
		insn->opcode = next(c);
		if ((insn->opcode & 0xfe) == 0xf0 && !insn->rep)
			flags = OP_MOVBE | (insn->opcode & 1 ? STORE : LOAD);
		else if (insn->opcode == 0x2a)
			flags = MOVNTDQA;
	}
	if (flags & BYTE)
		insn->op_bytes = 1;
	else if (flags & WIDE)
		insn->op_bytes = insn->rex & 8 ? 8 : 4;
	insn->mem_bytes = insn->op_bytes;
	if ((insn->opcode & 0xf6) == 0xb6)	/* MOVZX and MOVSX */
		insn->mem_bytes = insn->opcode & 1 ? 2 : 1;
	if (flags & VEC_MASK)
		insn->mem_bytes = insn->op_bytes = 16;
	return insn->opcode == 0xc3 && (insn->opsize || insn->rep) ? 0 : flags;
}

/* A vector move: how much, and which way. */
static u32 decode_vector(struct fonda_insn *insn, u32 flags)
{
	int prefix = insn->rep == 0xf3 ? 2 : insn->rep ? 3 : insn->opsize;
	int words = flags >> (VEC_SHIFT + 3 * prefix) & 7;

	if (insn->opcode == 0x7e && prefix == 2)	/* MOVQ */
		flags ^= RD | WR | TO_REG;
	if (words == VEC_W)
		words = insn->rex & 8 ? 2 : 1;
	if (words == 4)
		return flags;
	if (!words || (insn->mem_bytes == 32 && insn->opcode > 0x11))
		return 0;
	insn->mem_bytes = 4 * words;
	return flags;
}

enum emulate_result fonda_decode(struct fonda_insn *insn, const u8 *code, int nr, int bits)
{
	struct cursor c = { .code = code, .nr = min(nr, FONDA_INSN_MAX) };
	u32 flags = 0, group;
	u8 b, modrm;

	b = insn->opcode = next_opcode(&c, insn, bits);
	if (b == 0x0f) {
		flags = decode_two_byte(insn, &c);
	} else if ((b & 0xfe) == 0xc4) {
		flags = decode_vex(insn, &c, bits);
	} else {
		if (b < 0x40 && (b & 7) < 4)
			flags = (OP_ADD + b / 8) | MODRM | (b & 2 ? RD | TO_REG : RMW);
		else if (b != 0x63 || bits == 64)	/* or ARPL */
			flags = one_byte[b];
		if (!(b & 1))
			insn->op_bytes = 1;
		else if (flags & EMUL_PORT)
			insn->op_bytes = min_t(u8, insn->op_bytes, 4);
		insn->mem_bytes = b == 0x63 ? min_t(u8, insn->op_bytes, 4) : insn->op_bytes;
	}
	if (flags & VEC_MASK)
		flags = decode_vector(insn, flags);

	if (flags & MODRM) {
		modrm = next(&c);
		insn->reg = (modrm >> 3 & 7) | (insn->rex & 4) << 1;
		if (flags & GROUP) {
			group = groups[flags & EMUL_OP_MASK][modrm >> 3 & 7];
			flags = group ? (flags & ~(GROUP | EMUL_OP_MASK)) | group : 0;
		}
		if (modrm >> 6 == 3)
			flags = 0;
		else
			decode_memory(insn, &c, modrm, bits);
	} else if (flags & MOFFS) {
		insn->disp = next_signed(&c, insn->ad_bytes);
	}
	if (insn->seg == FONDA_NR_SEGS)
		insn->seg = FONDA_SEG_DS;
	if (insn->op_bytes == 1 && !insn->rex && insn->reg >= 4)
		insn->reg += FONDA_REG_HIGH - 4;
	if (flags & IMM)
		insn->imm = next_signed(&c, b == 0x83 || b == 0x0f ? 1 :
					min_t(int, insn->op_bytes, 4));
	if (!(flags & EMUL_STRING) && (flags & EMUL_OP_MASK) == OP_CMP)
		flags &= ~(WR | LOCKABLE);
	if ((flags & EMUL_OP_MASK) == OP_CMPXCHG8B)
		insn->mem_bytes = 2 * insn->op_bytes;

	insn->flags = flags;
	insn->len = c.pos;
	if (c.pos > c.nr && nr < FONDA_INSN_MAX)
		return EMULATE_RETRY;
	if (c.pos > c.nr || !flags)
		return EMULATE_UNSUPPORTED;
	return insn->lock && !(flags & LOCKABLE) ? EMULATE_FAULT : EMULATE_OK;
}

struct fonda_exit_insn fonda_decode_exit(const u8 *code, int nr, int bits)
{
	static const u8 two_bytes[256] = {
		[0x08] = FONDA_OP_INVD, FONDA_OP_WBINVD,	/* and WBNOINVD, with f3 */
		[0x21] = FONDA_OP_MOV_FROM_DR, FONDA_OP_MOV_TO_CR, FONDA_OP_MOV_TO_DR,
		[0x30] = FONDA_OP_WRMSR, [0x32] = FONDA_OP_RDMSR, [0xa2] = FONDA_OP_CPUID,
	};
	static const u8 after_0f01[256] = {
		[0xc8] = FONDA_OP_MONITOR, FONDA_OP_MWAIT,
		[0xd1] = FONDA_OP_XSETBV, [0xd9] = FONDA_OP_VMMCALL,
		[0x30 ... 0x37] = FONDA_OP_LMSW, [0x70 ... 0x77] = FONDA_OP_LMSW,
		[0xb0 ... 0xb7] = FONDA_OP_LMSW, [0xf0 ... 0xf7] = FONDA_OP_LMSW,
	};
	struct cursor c = { .code = code, .nr = min(nr, FONDA_INSN_MAX) };
	struct fonda_exit_insn i = { 0 };
	struct fonda_insn insn;
	u8 b, modrm;

	b = next_opcode(&c, &insn, bits);
	if (b == 0xf4)
		i.op = FONDA_OP_HLT;
	else if (b == 0x90 && insn.rep == 0xf3)
		i.op = FONDA_OP_PAUSE;
	if (b == 0x0f) {
		b = next(&c);
		i.op = two_bytes[b];
		if (b == 0x01 || (b & 0xfc) == 0x20) {
			modrm = next(&c);
			i.reg = (modrm >> 3 & 7) | (insn.rex & 4) << 1;
			i.rm = (modrm & 7) | (insn.rex & 1) << 3;
			if (b == 0x01)
				i.op = after_0f01[modrm];
			/* A MOV ignores the mod field: always a register. */
			if (b == 0x01 && modrm < 0xc0)
				decode_memory(&insn, &c, modrm, bits);
		}
	}
	i.len = c.pos;
	if (c.pos > c.nr)
		i.op = FONDA_OP_UNKNOWN;
	return i;
}

static u64 size_mask(int bytes)
{
	return ~0ULL >> (64 - 8 * bytes);
}

/* 32-bit results clear the upper half, shorter ones keep the rest. */
void fonda_load_gpr(unsigned long *gpr, int reg, int bytes, u64 val)
{
	u64 mask = size_mask(bytes);

	if (reg >= FONDA_REG_HIGH) {
		gpr += reg - FONDA_REG_HIGH;
		*gpr = (*gpr & ~0xff00ul) | (val & 0xff) << 8;
	} else {
		gpr[reg] = (bytes == 4 ? 0 : gpr[reg] & ~mask) | (val & mask);
	}
}

static int fault(struct emulate_ctxt *c, u8 vector)
{
	c->fault = (struct emulate_fault){
		.vector = vector, .has_error = c->mode != EMULATE_REAL };
	return EMULATE_FAULT;
}

static bool canonical(const struct emulate_ctxt *c, gva_t gva)
{
	/* The bits from the highest one up are all equal. */
	return (u64)((s64)gva >> (c->va_bits - 1)) + 1 < 2;
}

/* May @len bytes at @off of the segment be accessed? (APM volume 2, "Segment
 * Limit Checking" and "Data-Access Privilege Checks".) */
static bool segment_allows(const struct emulate_ctxt *c, const struct fonda_segment *s,
			   u64 off, u64 len, bool write)
{
	bool code = FONDA_SEG_TYPE(s->attr) & 8;
	u64 last = off + len - 1;

	/* Bit 1 makes data writable and code readable. */
	if (c->mode == EMULATE_PROTECTED &&
	    (!(s->attr & FONDA_SEG_P) || (write && code) ||
	     ((write || code) && !(FONDA_SEG_TYPE(s->attr) & 2))))
		return false;
	if (!code && (FONDA_SEG_TYPE(s->attr) & 4))	/* expand-down */
		return off > s->limit && last <= (s->attr & FONDA_SEG_DB ? U32_MAX : U16_MAX);
	return last <= s->limit;
}

/* The linear address of @len bytes at @seg:@off, if they may be accessed. */
static int linear(struct emulate_ctxt *c, enum fonda_seg seg, u64 off,
				  u64 len, bool write, gva_t *gva)
{
	struct fonda_segment s = { 0 };

	if (c->mode == EMULATE_LONG) {
		if (seg == FONDA_SEG_FS || seg == FONDA_SEG_GS)
			fonda_emulate_segment(c, seg, &s);
		*gva = s.base + off;
		if (canonical(c, *gva) && canonical(c, *gva + len - 1))
			return EMULATE_OK;
	} else {
		fonda_emulate_segment(c, seg, &s);
		*gva = (u32)(s.base + off);
		if (segment_allows(c, &s, off, len, write))
			return EMULATE_OK;
	}
	return fault(c, seg == FONDA_SEG_SS ? VECTOR_SS : VECTOR_GP);
}

/* Bytes from @gva to the end of its page. */
static u32 page_room(gva_t gva)
{
	return 4096 - (gva & 4095);
}

/* Where the @len bytes at @gva are; a piece for each page. */
static int translate(struct emulate_ctxt *c, gva_t gva, u32 len, u32 access,
		     struct emulate_operand *op)
{
	u32 room = page_room(gva);
	int r;

	op->len[0] = min(len, room);
	op->len[1] = len - op->len[0];
	r = fonda_emulate_translate(c, gva, access, &op->gpa[0]);
	if (op->len[1] && r == EMULATE_OK) {
		gva_t next = c->mode == EMULATE_LONG ? gva + room : (u32)(gva + room);

		r = fonda_emulate_translate(c, next, access, &op->gpa[1]);
	}
	/* The least of all faults. Vectors have rules of their own. */
	if (r == EMULATE_OK && c->check_alignment && len <= 8 && gva & (len - 1))
		return fault(c, VECTOR_AC);
	return r;
}

/*
 * Read or write all of an operand that is not done yet: 8 bytes at most at a
 * time, but what goes through pio_data is memory and all one.
 */
static int access(struct emulate_ctxt *c, const struct emulate_operand *op, void *data, bool write)
{
	u32 most = c->insn.flags & EMUL_PORT ? U16_MAX : 8, off, len;
	int i, r;

	for (i = 0; i < 2; i++) {
		for (off = 0; off < op->len[i]; off += len, data += len) {
			len = min(op->len[i] - off, most);
			if (c->pos++ < c->done)
				continue;
			r = fonda_emulate_access(c, op->gpa[i] + off, data, len, write);
			if (r != EMULATE_OK)
				return r;
			c->done++;
		}
	}
	return EMULATE_OK;
}

#define STATUS_FLAGS	(X86_EFLAGS_CF | X86_EFLAGS_PF | X86_EFLAGS_AF | \
			 X86_EFLAGS_ZF | X86_EFLAGS_SF | X86_EFLAGS_OF)

/*
 * The status flags of @result. @out: the carries of an addition, or the borrows
 * of a subtraction, out of the bits in which they are set.
 */
static unsigned long status_flags(u64 result, u64 out, int bytes)
{
	u64 val = result & size_mask(bytes), top = out >> (8 * bytes - 2);
	/* Bit n of the constant: does n have an even number of ones? */
	bool even = 0x9669 >> ((val ^ val >> 4) & 0xf) & 1;

	return (top & 2 ? X86_EFLAGS_CF : 0) | (even ? X86_EFLAGS_PF : 0) |
	       (out & 8 ? X86_EFLAGS_AF : 0) | (!val ? X86_EFLAGS_ZF : 0) |
	       (val >> (8 * bytes - 1) ? X86_EFLAGS_SF : 0) |
	       ((top ^ top >> 1) & 1 ? X86_EFLAGS_OF : 0);
}

static u64 alu(int op, u64 a, u64 b, int bytes, unsigned long *flags)
{
	bool carry = (op == OP_ADC || op == OP_SBB) && (*flags & X86_EFLAGS_CF);
	/* AF is undefined after the logical ones; processors clear it. */
	u64 r, out = 0;

	switch (op) {
	case OP_ADD:
	case OP_ADC:
		r = a + b + carry;
		out = (a & b) | ((a | b) & ~r);
		break;
	case OP_SUB:
	case OP_SBB:
	case OP_CMP:
		r = a - b - carry;
		out = (~a & b) | ((~a | b) & r);
		break;
	case OP_OR:
		r = a | b;
		break;
	case OP_XOR:
		r = a ^ b;
		break;
	default:
		r = a & b;
	}
	*flags = (*flags & ~STATUS_FLAGS) | status_flags(r, out, bytes);
	return r;
}

/* Does the condition in the low four bits of the opcode hold? */
static bool condition(const struct emulate_ctxt *c)
{
	static const u16 any_of[8] = {
		X86_EFLAGS_OF, X86_EFLAGS_CF, X86_EFLAGS_ZF, X86_EFLAGS_CF | X86_EFLAGS_ZF,
		X86_EFLAGS_SF, X86_EFLAGS_PF, 0, X86_EFLAGS_ZF,
	};
	u8 cc = c->insn.opcode & 0xf;
	bool met = c->rflags & any_of[cc >> 1];

	/* The last four are the signed comparisons. */
	if (cc >= 0xc && !(c->rflags & X86_EFLAGS_SF) != !(c->rflags & X86_EFLAGS_OF))
		met = true;
	return met != (cc & 1);
}

u64 fonda_emulate_address(const struct emulate_ctxt *c)
{
	const struct fonda_insn *insn = &c->insn;
	u64 ea = insn->disp;

	if (insn->base < FONDA_REG_NONE)
		ea += c->gpr[insn->base];
	else if (insn->base == FONDA_REG_RIP_REL)
		ea += c->rip + insn->len;
	if (insn->index < FONDA_REG_NONE)
		ea += c->gpr[insn->index] << insn->scale;
	if (insn->flags & BIT_STRING)	/* a signed number of bits: whole operands are added */
		ea += (s64)sign_extend(c->gpr[insn->reg], insn->op_bytes) >> 3 &
		      -(s64)insn->op_bytes;
	return ea & size_mask(insn->ad_bytes);
}

u64 fonda_emulate_operand(const struct emulate_ctxt *c)
{
	const struct fonda_insn *insn = &c->insn;

	if (insn->flags & IMM)
		return insn->imm & size_mask(insn->op_bytes);
	if (insn->reg >= FONDA_REG_HIGH)
		return c->gpr[insn->reg - FONDA_REG_HIGH] >> 8 & 0xff;
	return c->gpr[insn->reg] & size_mask(insn->op_bytes);
}

/* What an instruction leaves behind. */
struct outcome {
	u64 mem[4];		/* in: as read */
	u64 reg;		/* in: the operand */
	int dest;		/* the register that is loaded, or -1 */
	unsigned long flags;
};

static void set_flag(unsigned long *flags, unsigned long flag, bool set)
{
	*flags = (*flags & ~flag) | (set ? flag : 0);
}

/* CMPXCHG8B and CMPXCHG16B: two registers for each operand. */
static void compare_exchange_pair(struct emulate_ctxt *c, struct outcome *out)
{
	int bytes = c->insn.op_bytes;
	void *low = out->mem, *high = low + bytes;
	bool equal = !memcmp(low, &c->gpr[AX], bytes) && !memcmp(high, &c->gpr[DX], bytes);

	set_flag(&out->flags, X86_EFLAGS_ZF, equal);
	if (equal) {
		memcpy(low, &c->gpr[BX], bytes);
		memcpy(high, &c->gpr[CX], bytes);
	}
}

static void compute(struct emulate_ctxt *c, struct outcome *out)
{
	const struct fonda_insn *insn = &c->insn;
	u64 mem = out->mem[0], reg = out->reg, bit;
	int op = insn->flags & EMUL_OP_MASK, bytes = insn->op_bytes;

	switch (op) {
	case OP_ADD ... OP_CMP:
		if (insn->flags & TO_REG)
			out->reg = alu(op, reg, mem, bytes, &out->flags);
		else
			out->mem[0] = alu(op, mem, reg, bytes, &out->flags);
		/* 3a and 3b, CMP, have the form of a write to the register only. */
		if (op == OP_CMP)
			out->dest = -1;
		break;
	case OP_NOT:
		out->mem[0] = ~mem;
		break;
	case OP_NEG:
		out->mem[0] = alu(OP_SUB, 0, mem, bytes, &out->flags);
		break;
	case OP_INC ... OP_DEC:
		out->mem[0] = alu(op == OP_INC ? OP_ADD : OP_SUB, mem, 1, bytes, &out->flags);
		set_flag(&out->flags, X86_EFLAGS_CF, c->rflags & X86_EFLAGS_CF);
		break;
	case OP_BT ... OP_BTC:
		bit = 1ULL << (reg & (8 * bytes - 1));
		set_flag(&out->flags, X86_EFLAGS_CF, mem & bit);
		out->mem[0] = op == OP_BTS ? mem | bit : op == OP_BTR ? mem & ~bit : mem ^ bit;
		break;
	case OP_MOV:	/* and XCHG */
		out->mem[0] = reg;
		out->reg = mem;
		break;
	case OP_MOVSX:
		out->reg = sign_extend(mem, insn->mem_bytes);
		break;
	case OP_MOVBE:
		out->mem[0] = __builtin_bswap64(reg) >> (64 - 8 * bytes);
		out->reg = __builtin_bswap64(mem) >> (64 - 8 * bytes);
		break;
	case OP_CMOV:
		out->reg = condition(c) ? mem : reg;
		break;
	case OP_SETCC:
		out->mem[0] = condition(c);
		break;
	case OP_XADD:
		out->mem[0] = alu(OP_ADD, mem, reg, bytes, &out->flags);
		out->reg = mem;
		break;
	case OP_CMPXCHG:
		/* The write takes place also when it changes nothing. */
		alu(OP_CMP, c->gpr[AX], mem, bytes, &out->flags);
		if (out->flags & X86_EFLAGS_ZF) {
			out->mem[0] = reg;
		} else {
			out->reg = mem;
			out->dest = AX;
		}
		break;
	case OP_CMPXCHG8B:
		compare_exchange_pair(c, out);
		break;
	}
}

static int emulate_plain(struct emulate_ctxt *c)
{
	const struct fonda_insn *insn = &c->insn;
	bool write = insn->flags & EMUL_WRITE, vector = insn->flags & VEC_MASK;
	struct outcome out = {
		.dest = insn->flags & TO_REG ? insn->reg : -1, .flags = c->rflags };
	gva_t gva;
	int r = EMULATE_OK;

	if (!c->translated) {
		memset(c->data, 0, sizeof(c->data));
		r = linear(c, insn->seg, fonda_emulate_address(c), insn->mem_bytes, write, &gva);
		if (r == EMULATE_OK)
			r = translate(c, gva, insn->mem_bytes,
				      write ? FONDA_ACCESS_WRITE : FONDA_ACCESS_READ, &c->dst);
		c->translated = r == EMULATE_OK;
	}
	if (r == EMULATE_OK && insn->flags & EMUL_READ)
		r = access(c, &c->dst, c->data, false);
	if (r == EMULATE_OK && vector)
		r = fonda_emulate_vector(c, insn->reg, write ? out.mem : c->data,
					 insn->op_bytes, !write);
	if (r != EMULATE_OK)
		return r;

	if (!vector) {
		memcpy(out.mem, c->data, sizeof(out.mem));
		out.reg = fonda_emulate_operand(c);
		compute(c, &out);
	}
	if (write) {
		r = access(c, &c->dst, out.mem, true);
		if (r != EMULATE_OK)
			return r;
	}
	if (vector)
		return EMULATE_DONE;
	if ((insn->flags & EMUL_OP_MASK) == OP_CMPXCHG8B && !(out.flags & X86_EFLAGS_ZF)) {
		fonda_load_gpr(c->gpr, AX, insn->op_bytes, c->data[0]);
		fonda_load_gpr(c->gpr, DX, insn->op_bytes,
			       insn->op_bytes == 8 ? c->data[1] : c->data[0] >> 32);
	} else if (out.dest >= 0) {
		fonda_load_gpr(c->gpr, out.dest, insn->op_bytes, out.reg);
	}
	c->rflags = out.flags;
	return EMULATE_DONE;
}

/*
 * Resolve the element at a string's pointer. A port instruction takes as many
 * of the @left ones as follow upwards in the same page of memory, so that one
 * request to the device serves them all.
 */
static int string_operand(struct emulate_ctxt *c, bool dst, u64 left, struct emulate_operand *op)
{
	const struct fonda_insn *insn = &c->insn;
	/* CMPS and SCAS only read. */
	bool write = dst && (insn->flags & EMUL_OP_MASK) != OP_CMP;
	enum fonda_seg seg = dst ? FONDA_SEG_ES : insn->seg;
	u64 mask = size_mask(insn->ad_bytes);
	u64 off = c->gpr[dst ? DI : SI] & mask;
	u32 len = insn->op_bytes;
	gva_t gva;
	int r;

	r = linear(c, seg, off, len, write, &gva);
	if (r != EMULATE_OK)
		return r;
	r = translate(c, gva, len, write ? FONDA_ACCESS_WRITE : FONDA_ACCESS_READ, op);
	if (r != EMULATE_OK || !(insn->flags & EMUL_PORT) || left == 1)
		return r;

	left = min_t(u64, left, page_room(gva) / len);
	if (left > 1 && !(c->rflags & (X86_EFLAGS_DF | X86_EFLAGS_TF)) &&
	    left * len - 1 <= mask - off && fonda_emulate_is_ram(c, op->gpa[0], dst) &&
	    linear(c, seg, off, left * len, dst, &gva) == EMULATE_OK) {
		c->count = left;
		op->len[0] = left * len;
	}
	return EMULATE_OK;
}

static int string_port(struct emulate_ctxt *c, bool in)
{
	int r;

	if (c->pos++ < c->done)
		return EMULATE_OK;
	r = fonda_emulate_port(c, in, c->gpr[DX], c->insn.op_bytes, c->count);
	if (r != EMULATE_OK)
		return r;
	if (in && !c->dst.len[1])	/* it may have been fewer */
		c->dst.len[0] = c->count * c->insn.op_bytes;
	c->done++;
	return EMULATE_OK;
}

/* The accesses of one repetition. */
static int string_transfer(struct emulate_ctxt *c)
{
	u32 flags = c->insn.flags;
	bool port = flags & EMUL_PORT, read = flags & EMUL_READ;
	bool compare = (flags & EMUL_OP_MASK) == OP_CMP;
	void *data = port ? (void *)c->pio_data : c->data;
	int r = EMULATE_OK;

	if (port && !read)
		r = string_port(c, true);
	if (r == EMULATE_OK && read)
		r = access(c, &c->src, data, false);
	if (r == EMULATE_OK && (flags & EMUL_WRITE))
		r = access(c, &c->dst, compare ? &c->data[1] : data, !compare);
	if (r == EMULATE_OK && port && read)
		r = string_port(c, false);
	return r;
}

static int emulate_string(struct emulate_ctxt *c)
{
	const struct fonda_insn *insn = &c->insn;
	bool src = insn->flags & EMUL_READ, dst = insn->flags & EMUL_WRITE;
	bool compare = (insn->flags & EMUL_OP_MASK) == OP_CMP;
	u64 left = insn->rep ? c->gpr[CX] & size_mask(insn->ad_bytes) : 1;
	int r = EMULATE_OK;
	s64 step;

	if (!left)
		return EMULATE_DONE;
	if (!c->translated) {
		c->count = 1;
		if (src)
			r = string_operand(c, false, left, &c->src);
		if (r == EMULATE_OK && dst)
			r = string_operand(c, true, left, &c->dst);
		c->translated = r == EMULATE_OK;
		/* STOS and SCAS have no source but this. */
		c->data[0] = src ? 0 : c->gpr[AX];
		c->data[1] = 0;
	}
	if (r == EMULATE_OK)
		r = string_transfer(c);
	if (r != EMULATE_OK)
		return r;

	if (compare)
		alu(OP_CMP, c->data[0], c->data[1], insn->op_bytes, &c->rflags);
	else if (!dst && !(insn->flags & EMUL_PORT))		/* LODS */
		fonda_load_gpr(c->gpr, AX, insn->op_bytes, c->data[0]);
	step = (s64)insn->op_bytes * c->count;
	if (c->rflags & X86_EFLAGS_DF)
		step = -step;
	if (src)
		fonda_load_gpr(c->gpr, SI, insn->ad_bytes, c->gpr[SI] + step);
	if (dst)
		fonda_load_gpr(c->gpr, DI, insn->ad_bytes, c->gpr[DI] + step);
	if (!insn->rep)
		return EMULATE_DONE;
	/* User space may have changed it meanwhile. */
	left -= min_t(u64, left, c->count);
	fonda_load_gpr(c->gpr, CX, insn->ad_bytes, left);
	/* REPE goes on while they are equal, REPNE while they are not. */
	if (compare && !(c->rflags & X86_EFLAGS_ZF) == (insn->rep == 0xf3))
		left = 0;
	return left ? EMULATE_AGAIN : EMULATE_DONE;
}

enum emulate_result fonda_emulate(struct emulate_ctxt *c)
{
	int r;

	c->pos = 0;
	r = c->insn.flags & EMUL_STRING ? emulate_string(c) : emulate_plain(c);
	/* What follows, if anything, is a new repetition. */
	if (r == EMULATE_DONE || r == EMULATE_AGAIN)
		fonda_emulate_begin(c);
	return r;
}
