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

enum { VECTOR_UD = 6, VECTOR_SS = 12, VECTOR_GP = 13 };

/* What is done; ALU operations in the order of their opcodes. */
enum {
	OP_NONE,
	OP_ADD, OP_OR, OP_ADC, OP_SBB, OP_AND, OP_SUB, OP_XOR, OP_CMP,
	OP_TEST, OP_NOT, OP_NEG, OP_INC, OP_DEC,
	OP_BT, OP_BTS, OP_BTR, OP_BTC,
	OP_MOV, OP_MOVZX, OP_MOVSX, OP_MOVBE, OP_CMOV, OP_SETCC,
	OP_XCHG, OP_XADD, OP_CMPXCHG,
	OP_MOVS, OP_STOS, OP_LODS, OP_INS, OP_OUTS,
	NR_OPS
};

/* More flags of a decoded instruction, beside EMUL_* in the header. */
#define MODRM		(1u << 11)
#define BYTE		(1u << 12)	/* the operands are bytes */
#define IMM		(1u << 13)	/* an immediate stands for the register */
#define IMM8		(1u << 14)	/* and is one byte, sign-extended */
#define TO_REG		(1u << 15)	/* the result goes to the register */
#define LOCKABLE	(1u << 16)
#define MOFFS		(1u << 17)	/* the address follows the opcode */
#define BIT_OFFSET	(1u << 18)	/* the register reaches beyond the operand */
#define GROUP		(1u << 19)	/* EMUL_OP_MASK is an index into groups[] */

#define MOV	(OP_MOV | EMUL_MOV)
#define RD	EMUL_READ
#define WR	EMUL_WRITE
#define RMW	(RD | WR | LOCKABLE)

#define ALU(op, wr)							\
	[((op) - OP_ADD) * 8 + 0] = (op) | MODRM | BYTE | RD | (wr),	\
	[((op) - OP_ADD) * 8 + 1] = (op) | MODRM | RD | (wr),		\
	[((op) - OP_ADD) * 8 + 2] = (op) | MODRM | BYTE | RD | TO_REG,	\
	[((op) - OP_ADD) * 8 + 3] = (op) | MODRM | RD | TO_REG

#define STR(opcode, op, flags)						\
	[opcode] = (op) | EMUL_STRING | BYTE | (flags),			\
	[(opcode) + 1] = (op) | EMUL_STRING | (flags)

enum { GROUP1, GROUP3, GROUP45, GROUP8, GROUP11 };

static const u32 one_byte[256] = {
	ALU(OP_ADD, RMW), ALU(OP_OR, RMW), ALU(OP_ADC, RMW), ALU(OP_SBB, RMW),
	ALU(OP_AND, RMW), ALU(OP_SUB, RMW), ALU(OP_XOR, RMW), ALU(OP_CMP, 0),
	[0x63] = OP_MOVSX | MODRM | RD | TO_REG,
	STR(0x6c, OP_INS, WR | EMUL_PORT),
	STR(0x6e, OP_OUTS, RD | EMUL_PORT),
	[0x80] = GROUP | GROUP1 | MODRM | BYTE | IMM,
	[0x81] = GROUP | GROUP1 | MODRM | IMM,
	[0x83] = GROUP | GROUP1 | MODRM | IMM | IMM8,
	[0x84] = OP_TEST | MODRM | BYTE | RD,
	[0x85] = OP_TEST | MODRM | RD,
	[0x86] = OP_XCHG | MODRM | BYTE | RMW | TO_REG,
	[0x87] = OP_XCHG | MODRM | RMW | TO_REG,
	[0x88] = MOV | MODRM | BYTE | WR,
	[0x89] = MOV | MODRM | WR,
	[0x8a] = MOV | MODRM | BYTE | RD | TO_REG,
	[0x8b] = MOV | MODRM | RD | TO_REG,
	[0xa0] = MOV | MOFFS | BYTE | RD | TO_REG,
	[0xa1] = MOV | MOFFS | RD | TO_REG,
	[0xa2] = MOV | MOFFS | BYTE | WR,
	[0xa3] = MOV | MOFFS | WR,
	STR(0xa4, OP_MOVS, RD | WR),
	STR(0xaa, OP_STOS, WR),
	STR(0xac, OP_LODS, RD),
	[0xc6] = GROUP | GROUP11 | MODRM | BYTE | IMM,
	[0xc7] = GROUP | GROUP11 | MODRM | IMM,
	[0xf6] = GROUP | GROUP3 | MODRM | BYTE,
	[0xf7] = GROUP | GROUP3 | MODRM,
	[0xfe] = GROUP | GROUP45 | MODRM | BYTE,
	[0xff] = GROUP | GROUP45 | MODRM,
};

static const u32 two_byte[256] = {
	[0x40 ... 0x4f] = OP_CMOV | MODRM | RD | TO_REG,
	[0x90 ... 0x9f] = OP_SETCC | MODRM | BYTE | WR,
	[0xa3] = OP_BT | MODRM | RD | BIT_OFFSET,
	[0xab] = OP_BTS | MODRM | RMW | BIT_OFFSET,
	[0xb0] = OP_CMPXCHG | MODRM | BYTE | RMW,
	[0xb1] = OP_CMPXCHG | MODRM | RMW,
	[0xb3] = OP_BTR | MODRM | RMW | BIT_OFFSET,
	[0xb6 ... 0xb7] = OP_MOVZX | MODRM | RD | TO_REG,
	[0xba] = GROUP | GROUP8 | MODRM | IMM | IMM8,
	[0xbb] = OP_BTC | MODRM | RMW | BIT_OFFSET,
	[0xbe ... 0xbf] = OP_MOVSX | MODRM | RD | TO_REG,
	[0xc0] = OP_XADD | MODRM | BYTE | RMW | TO_REG,
	[0xc1] = OP_XADD | MODRM | RMW | TO_REG,
};

static const u32 groups[][8] = {
	[GROUP1] = {
		OP_ADD | RMW, OP_OR | RMW, OP_ADC | RMW, OP_SBB | RMW,
		OP_AND | RMW, OP_SUB | RMW, OP_XOR | RMW, OP_CMP | RD,
	},
	[GROUP3] = {
		OP_TEST | RD | IMM, OP_TEST | RD | IMM, OP_NOT | RMW, OP_NEG | RMW,
	},
	[GROUP45] = { OP_INC | RMW, OP_DEC | RMW },
	[GROUP8] = {
		[4] = OP_BT | RD, OP_BTS | RMW, OP_BTR | RMW, OP_BTC | RMW,
	},
	[GROUP11] = { MOV | WR },
};

static_assert(NR_OPS <= EMUL_OP_MASK + 1);

struct cursor {
	const u8 *code;
	int pos, nr;
};

/* Beyond the end there are zeros; pos tells. */
static __always_inline u8 next(struct cursor *c)
{
	int pos = c->pos++;

	return likely(pos < c->nr) ? c->code[pos] : 0;
}

/* @bytes (1, 2, 4 or 8) of the code, sign-extended. */
static __always_inline s64 next_signed(struct cursor *c, int bytes)
{
	const u8 *at = c->code + c->pos;
	s64 val = 0;
	s32 val32;
	s16 val16;

	c->pos += bytes;
	if (unlikely(c->pos > c->nr))
		return 0;
	switch (bytes) {
	case 1:
		return (s8)*at;
	case 2:
		memcpy(&val16, at, 2);
		return val16;
	case 4:
		memcpy(&val32, at, 4);
		return val32;
	default:
		memcpy(&val, at, 8);
		return val;
	}
}

/* The bytes 26 2e 36 3e, 64 65 66 67, f0 f2 f3. */
static const u64 prefix_map[4] = {
	BIT_ULL(0x26) | BIT_ULL(0x2e) | BIT_ULL(0x36) | BIT_ULL(0x3e),
	0xfULL << (0x64 - 64),
	0,
	BIT_ULL(0xf0 - 192) | BIT_ULL(0xf2 - 192) | BIT_ULL(0xf3 - 192),
};

struct prefixes {
	u8 rex, rep;
	u8 seg;			/* FONDA_NR_SEGS: no override */
	bool opsize, adsize, lock;
};

/* Read the prefixes and return the first byte of the opcode. */
static __always_inline u8 next_opcode(struct cursor *c, struct prefixes *p, int bits)
{
	*p = (struct prefixes){ .seg = FONDA_NR_SEGS };

	for (;;) {
		u8 b = next(c);

		if (bits == 64 && (b & 0xf0) == 0x40) {
			p->rex = b;
			continue;
		}
		if (likely(!(prefix_map[b >> 6] >> (b & 63) & 1)))
			return b;

		/* A REX prefix counts only right before the opcode. */
		p->rex = 0;
		if (b == 0x66)
			p->opsize = true;
		else if (b == 0x67)
			p->adsize = true;
		else if (b == 0xf0)
			p->lock = true;
		else if (b >= 0xf2)
			p->rep = b;
		else if (b >= 0x64)
			p->seg = FONDA_SEG_FS + (b & 1);
		else if (bits != 64)
			p->seg = FONDA_SEG_ES + (b >> 3 & 3);
	}
}

static __always_inline void decode_sizes(struct fonda_insn *insn, const struct prefixes *p,
					 int bits)
{
	if (p->rex & 8)
		insn->op_bytes = 8;
	else
		insn->op_bytes = (bits == 16) == p->opsize ? 4 : 2;
	if (bits == 64)
		insn->ad_bytes = p->adsize ? 4 : 8;
	else
		insn->ad_bytes = (bits == 16) == p->adsize ? 4 : 2;
}

/* The eight forms of 16-bit addressing: base, then index. */
static const u8 base16[8] = { BX, BX, BP, BP, FONDA_REG_NONE, FONDA_REG_NONE, BP, BX };
static const u8 index16[8] = { SI, DI, SI, DI, SI, DI, FONDA_REG_NONE, FONDA_REG_NONE };

/* The memory operand that the byte @modrm begins. */
static __always_inline void decode_memory(struct fonda_insn *insn, struct cursor *c,
					  const struct prefixes *p, u8 modrm, int bits)
{
	int mod = modrm >> 6, rm = modrm & 7;
	int disp_bytes = mod == 1 ? 1 : 0;

	insn->scale = 0;
	insn->index = FONDA_REG_NONE;
	if (insn->ad_bytes == 2) {
		insn->base = base16[rm];
		insn->index = index16[rm];
		if (mod == 0 && rm == 6)
			insn->base = FONDA_REG_NONE;
		if (mod == 2 || (mod == 0 && rm == 6))
			disp_bytes = 2;
	} else {
		insn->base = rm | (p->rex & 1) << 3;
		if (rm == 4) {
			u8 sib = next(c);

			rm = sib & 7;
			insn->base = rm | (p->rex & 1) << 3;
			insn->index = (sib >> 3 & 7) | (p->rex & 2) << 2;
			if (insn->index == SP)
				insn->index = FONDA_REG_NONE;
			insn->scale = sib >> 6;
			if (mod == 0 && rm == 5)
				insn->base = FONDA_REG_NONE;
		} else if (mod == 0 && rm == 5) {
			insn->base = bits == 64 ? FONDA_REG_RIP_REL : FONDA_REG_NONE;
		}
		if (mod == 2 || (mod == 0 && rm == 5))
			disp_bytes = 4;
	}
	insn->disp = disp_bytes ? next_signed(c, disp_bytes) : 0;

	if (insn->seg == FONDA_NR_SEGS)
		insn->seg = insn->base == SP || insn->base == BP ?
			    FONDA_SEG_SS : FONDA_SEG_DS;
}

enum emulate_result fonda_decode(struct fonda_insn *insn, const u8 *code,
				 int nr, int bits)
{
	struct cursor c = { .code = code, .nr = min(nr, FONDA_INSN_MAX) };
	struct prefixes p;
	u32 flags, group;
	u8 b, modrm;

	b = next_opcode(&c, &p, bits);
	flags = one_byte[b];
	if (b == 0x0f) {
		b = next(&c);
		flags = two_byte[b];
		if (b == 0x38) {
			b = next(&c);
			if ((b == 0xf0 || b == 0xf1) && !p.rep)
				flags = OP_MOVBE | MODRM | (b & 1 ? WR : RD | TO_REG);
		}
	} else if (b == 0x63 && bits != 64) {
		flags = 0;			/* ARPL */
	}

	decode_sizes(insn, &p, bits);
	insn->opcode = b;
	insn->rep = p.rep;
	insn->lock = p.lock;
	insn->rex = p.rex;
	insn->seg = p.seg;
	insn->reg = AX;

	if (flags & MODRM) {
		modrm = next(&c);
		insn->reg = (modrm >> 3 & 7) | (p.rex & 4) << 1;
		if (flags & GROUP) {
			group = groups[flags & EMUL_OP_MASK][modrm >> 3 & 7];
			flags = group ? (flags & ~(GROUP | EMUL_OP_MASK)) | group : 0;
		}
		if (modrm >> 6 == 3)
			flags = 0;
		else
			decode_memory(insn, &c, &p, modrm, bits);
	} else if (flags & MOFFS) {
		insn->base = FONDA_REG_NONE;
		insn->index = FONDA_REG_NONE;
		insn->disp = next_signed(&c, insn->ad_bytes);
	}
	if (insn->seg == FONDA_NR_SEGS)
		insn->seg = FONDA_SEG_DS;
	if (unlikely(!flags))
		return c.pos > nr && nr < FONDA_INSN_MAX ? EMULATE_RETRY :
							   EMULATE_UNSUPPORTED;

	if (flags & BYTE)
		insn->op_bytes = 1;
	else if ((flags & EMUL_PORT) && insn->op_bytes == 8)
		insn->op_bytes = 4;
	insn->mem_bytes = insn->op_bytes;
	if (b == 0x63 && insn->mem_bytes == 8)
		insn->mem_bytes = 4;
	else if ((flags & EMUL_OP_MASK) == OP_MOVZX ||
		 ((flags & EMUL_OP_MASK) == OP_MOVSX && b != 0x63))
		insn->mem_bytes = b & 1 ? 2 : 1;
	if (flags & IMM)
		insn->imm = next_signed(&c, flags & IMM8 ? 1 : min_t(int, insn->op_bytes, 4));

	insn->flags = flags;
	insn->len = c.pos;
	if (c.pos > c.nr)
		return nr < FONDA_INSN_MAX ? EMULATE_RETRY : EMULATE_UNSUPPORTED;
	if (insn->lock && !(flags & LOCKABLE))
		return EMULATE_FAULT;
	return EMULATE_OK;
}

/* The ModRM byte of an exiting instruction, and its operand. */
static void exit_modrm(struct fonda_exit_insn *i, struct cursor *c,
		       const struct prefixes *p, u8 modrm, int bits)
{
	struct fonda_insn insn = { .seg = FONDA_NR_SEGS };

	i->reg = modrm >> 3 & 7;
	i->rm = (modrm & 7) | (p->rex & 1) << 3;
	i->is_mem = modrm >> 6 != 3;
	if (i->is_mem) {
		decode_sizes(&insn, p, bits);
		decode_memory(&insn, c, p, modrm, bits);
	}
}

/* 0f 01: by ModRM.reg with an operand, by the whole byte without. */
static u8 exit_group7(u8 modrm, bool rep)
{
	static const u8 with_operand[8] = {
		[4] = FONDA_OP_SMSW, [6] = FONDA_OP_LMSW, FONDA_OP_INVLPG,
	};
	static const u8 without[64] = {
		[0x01] = FONDA_OP_VMCALL,
		[0x08] = FONDA_OP_MONITOR, FONDA_OP_MWAIT,
		[0x10] = FONDA_OP_XGETBV, FONDA_OP_XSETBV,
		[0x18] = FONDA_OP_VMRUN, FONDA_OP_VMMCALL, FONDA_OP_VMLOAD,
			 FONDA_OP_VMSAVE, FONDA_OP_STGI, FONDA_OP_CLGI,
			 FONDA_OP_SKINIT, FONDA_OP_INVLPGA,
		[0x20 ... 0x27] = FONDA_OP_SMSW,
		[0x30 ... 0x37] = FONDA_OP_LMSW,
		[0x39] = FONDA_OP_RDTSCP, FONDA_OP_MONITORX, FONDA_OP_MWAITX,
		[0x3d] = FONDA_OP_RDPRU,
	};

	if (modrm < 0xc0)
		return with_operand[modrm >> 3 & 7];
	if (rep && modrm == 0xfa)
		return FONDA_OP_UNKNOWN;	/* MCOMMIT */
	return without[modrm & 63];
}

const u8 fonda_exit_two_bytes[256] = {
	[0x06] = FONDA_OP_CLTS, [0x08] = FONDA_OP_INVD,
	[0x09] = FONDA_OP_WBINVD,	/* and WBNOINVD, with f3 */
	[0x30] = FONDA_OP_WRMSR, FONDA_OP_RDTSC, FONDA_OP_RDMSR, FONDA_OP_RDPMC,
	[0xa2] = FONDA_OP_CPUID, [0xaa] = FONDA_OP_RSM,
};

static void exit_two_byte(struct fonda_exit_insn *i, struct cursor *c,
			  const struct prefixes *p, int bits)
{
	u8 b = next(c), modrm;

	switch (b) {
	case 0x20 ... 0x23:
		/* The mod field is ignored: always a register. */
		modrm = next(c);
		i->op = FONDA_OP_MOV_FROM_CR + (b & 1) * 2 + (b >> 1 & 1);
		i->reg = (modrm >> 3 & 7) | (p->rex & 4) << 1;
		i->rm = (modrm & 7) | (p->rex & 1) << 3;
		/* AMD's way to CR8 outside of 64-bit mode. */
		if (!(b & 1) && p->lock)
			i->reg |= 8;
		break;
	case 0x01:
		modrm = next(c);
		i->op = exit_group7(modrm, p->rep);
		exit_modrm(i, c, p, modrm, bits);
		break;
	case 0x38:
		if (next(c) != 0x82)
			break;
		i->op = FONDA_OP_INVPCID;
		modrm = next(c);
		exit_modrm(i, c, p, modrm, bits);
		i->reg |= (p->rex & 4) << 1;
		break;
	default:
		i->op = fonda_exit_two_bytes[b];
		break;
	}
}

struct fonda_exit_insn fonda_decode_exit_any(const u8 *code, int nr, int bits)
{
	struct cursor c = { .code = code, .nr = min(nr, FONDA_INSN_MAX) };
	struct fonda_exit_insn i = { 0 };
	struct prefixes p;
	u8 b;

	b = next_opcode(&c, &p, bits);
	switch (b) {
	case 0x0f:
		exit_two_byte(&i, &c, &p, bits);
		break;
	case 0xf4:
		i.op = FONDA_OP_HLT;
		break;
	case 0xe4 ... 0xe7:
	case 0xec ... 0xef:
	case 0x6c ... 0x6f:
		if (b < 0x70)
			i.op = b & 2 ? FONDA_OP_OUTS : FONDA_OP_INS;
		else
			i.op = b & 2 ? FONDA_OP_OUT : FONDA_OP_IN;
		i.size = !(b & 1) ? 1 : p.rex & 8 || (bits == 16) == p.opsize ? 4 : 2;
		i.has_imm = b >= 0xe4 && b <= 0xe7;
		if (i.has_imm)
			i.imm = next(&c);
		break;
	case 0x90:
		if (p.rep == 0xf3)
			i.op = FONDA_OP_PAUSE;
		break;
	case 0xcc:
		i.op = FONDA_OP_INT3;
		break;
	case 0xcd:
		i.op = FONDA_OP_INT;
		i.imm = next(&c);
		i.has_imm = true;
		break;
	case 0xce:
		if (bits != 64)
			i.op = FONDA_OP_INTO;
		break;
	case 0xcf:
		i.op = FONDA_OP_IRET;
		break;
	case 0xf1:
		i.op = FONDA_OP_ICEBP;
		break;
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

static u64 read_gpr(const struct emulate_ctxt *c, int reg, int bytes)
{
	if (bytes == 1 && !c->insn.rex && reg >= 4)
		return c->gpr[reg - 4] >> 8 & 0xff;
	return c->gpr[reg] & size_mask(bytes);
}

/* 32-bit results clear the upper half, shorter ones keep the rest. */
static void write_gpr(struct emulate_ctxt *c, int reg, int bytes, u64 val)
{
	u64 mask = size_mask(bytes);
	int shift = 0;

	if (bytes == 1 && !c->insn.rex && reg >= 4) {
		reg -= 4;
		shift = 8;
	}
	if (bytes == 4)
		c->gpr[reg] = val & mask;
	else
		c->gpr[reg] = (c->gpr[reg] & ~(mask << shift)) | (val & mask) << shift;
}

static int fault(struct emulate_ctxt *c, u8 vector)
{
	c->fault = (struct emulate_fault){
		.vector = vector,
		.has_error = vector != VECTOR_UD && c->mode != EMULATE_REAL,
	};
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

	if (c->mode == EMULATE_PROTECTED) {
		if (!(s->attr & FONDA_SEG_P))
			return false;
		/* Bit 1 makes data writable and code readable. */
		if ((write || code) && !(FONDA_SEG_TYPE(s->attr) & 2))
			return false;
		if (write && code)
			return false;
	}
	if (!code && (FONDA_SEG_TYPE(s->attr) & 4))	/* expand-down */
		return off > s->limit &&
		       last <= (s->attr & FONDA_SEG_DB ? U32_MAX : U16_MAX);
	return last <= s->limit;
}

/* The linear address of @len bytes at @seg:@off, if they may be accessed. */
static __always_inline int linear(struct emulate_ctxt *c, enum fonda_seg seg, u64 off,
				  u64 len, bool write, gva_t *gva)
{
	struct fonda_segment s = { 0 };

	if (c->mode == EMULATE_LONG) {
		if (seg == FONDA_SEG_FS || seg == FONDA_SEG_GS)
			c->ops->segment(c, seg, &s);
		*gva = s.base + off;
		if (likely(canonical(c, *gva) && canonical(c, *gva + len - 1)))
			return EMULATE_OK;
	} else {
		c->ops->segment(c, seg, &s);
		*gva = (u32)(s.base + off);
		if (likely(segment_allows(c, &s, off, len, write)))
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
static __always_inline int translate(struct emulate_ctxt *c, gva_t gva, u32 len, u32 access,
				     struct emulate_operand *op)
{
	u32 room = page_room(gva);
	int r;

	op->len[0] = min(len, room);
	op->len[1] = len - op->len[0];
	r = c->ops->translate(c, gva, access, &op->gpa[0]);
	if (likely(!op->len[1]) || r != EMULATE_OK)
		return r;

	gva += room;
	if (c->mode != EMULATE_LONG)
		gva = (u32)gva;
	return c->ops->translate(c, gva, access, &op->gpa[1]);
}

/* Read or write all pieces of an operand that are not done yet. */
static __always_inline int access(struct emulate_ctxt *c, const struct emulate_operand *op,
				  void *data, bool write)
{
	int i, r;

	for (i = 0; i < 2 && op->len[i]; i++) {
		if (c->pos++ >= c->done) {
			if (write)
				r = c->ops->write(c, op->gpa[i], data, op->len[i]);
			else
				r = c->ops->read(c, op->gpa[i], data, op->len[i]);
			if (r != EMULATE_OK)
				return r;
			c->done++;
		}
		data += op->len[i];
	}
	return EMULATE_OK;
}

#define STATUS_FLAGS	(X86_EFLAGS_CF | X86_EFLAGS_PF | X86_EFLAGS_AF | \
			 X86_EFLAGS_ZF | X86_EFLAGS_SF | X86_EFLAGS_OF)

/* Replace the status flags by @carries (CF, AF, OF) and those of the result. */
static void set_flags(unsigned long *flags, u64 result, int bytes, unsigned long carries)
{
	u64 val = result & size_mask(bytes);

	*flags = (*flags & ~STATUS_FLAGS) | carries;
	if (!val)
		*flags |= X86_EFLAGS_ZF;
	if (val >> (8 * bytes - 1))
		*flags |= X86_EFLAGS_SF;
	/* Bit n of the constant: does n have an even number of ones? */
	if (0x9669 >> ((val ^ val >> 4) & 0xf) & 1)
		*flags |= X86_EFLAGS_PF;
}

/*
 * CF, AF and OF from the carries into each bit (of an addition) or the borrows
 * (of a subtraction), which carry out of the bit in which they are set.
 */
static unsigned long carry_flags(u64 out, int bytes)
{
	u64 top = out >> (8 * bytes - 2);
	unsigned long flags = 0;

	if (top & 2)
		flags |= X86_EFLAGS_CF;
	if ((top ^ top >> 1) & 1)
		flags |= X86_EFLAGS_OF;
	if (out & 8)
		flags |= X86_EFLAGS_AF;
	return flags;
}

static u64 add(u64 a, u64 b, bool carry, int bytes, unsigned long *flags)
{
	u64 r = a + b + carry;

	set_flags(flags, r, bytes, carry_flags((a & b) | ((a | b) & ~r), bytes));
	return r;
}

static u64 sub(u64 a, u64 b, bool borrow, int bytes, unsigned long *flags)
{
	u64 r = a - b - borrow;

	set_flags(flags, r, bytes, carry_flags((~a & b) | ((~a | b) & r), bytes));
	return r;
}

static u64 logic(u64 r, int bytes, unsigned long *flags)
{
	/* AF is undefined after these; processors clear it. */
	set_flags(flags, r, bytes, 0);
	return r;
}

static u64 alu(int op, u64 a, u64 b, int bytes, unsigned long *flags)
{
	bool cf = *flags & X86_EFLAGS_CF;

	switch (op) {
	case OP_ADD:
		return add(a, b, 0, bytes, flags);
	case OP_ADC:
		return add(a, b, cf, bytes, flags);
	case OP_SUB:
	case OP_CMP:
		return sub(a, b, 0, bytes, flags);
	case OP_SBB:
		return sub(a, b, cf, bytes, flags);
	case OP_OR:
		return logic(a | b, bytes, flags);
	case OP_XOR:
		return logic(a ^ b, bytes, flags);
	case OP_NOT:
		return ~a;
	case OP_NEG:
		return sub(0, a, 0, bytes, flags);
	case OP_INC:
	case OP_DEC:
		a = op == OP_INC ? add(a, 1, 0, bytes, flags) : sub(a, 1, 0, bytes, flags);
		*flags = (*flags & ~X86_EFLAGS_CF) | (cf ? X86_EFLAGS_CF : 0);
		return a;
	default:	/* OP_AND, OP_TEST */
		return logic(a & b, bytes, flags);
	}
}

/* Does the condition in the low four bits of an opcode hold? */
static bool condition(u8 opcode, unsigned long flags)
{
	static const unsigned long any_of[8] = {
		X86_EFLAGS_OF, X86_EFLAGS_CF, X86_EFLAGS_ZF, X86_EFLAGS_CF | X86_EFLAGS_ZF,
		X86_EFLAGS_SF, X86_EFLAGS_PF, 0, X86_EFLAGS_ZF,
	};
	bool met = flags & any_of[opcode >> 1 & 7];

	/* The last four are the signed comparisons. */
	if ((opcode & 0xf) >= 0xc && !(flags & X86_EFLAGS_SF) != !(flags & X86_EFLAGS_OF))
		met = true;
	return met != (opcode & 1);
}

static u64 swap_bytes(u64 val, int bytes)
{
	return __builtin_bswap64(val) >> (64 - 8 * bytes);
}

static u64 sign_extend(u64 val, int bytes)
{
	return (u64)((s64)(val << (64 - 8 * bytes)) >> (64 - 8 * bytes));
}

static u64 bit_op(int op, u64 val, u64 bit, unsigned long *flags)
{
	*flags = (*flags & ~X86_EFLAGS_CF) | (val & bit ? X86_EFLAGS_CF : 0);
	switch (op) {
	case OP_BTS:
		return val | bit;
	case OP_BTR:
		return val & ~bit;
	case OP_BTC:
		return val ^ bit;
	default:
		return val;
	}
}

/* Everything that an instruction leaves behind. */
struct outcome {
	u64 mem, reg;
	u64 acc;		/* CMPXCHG: of the accumulator */
	bool acc_written;
	unsigned long flags;
};

/*
 * The effect of an instruction on its memory operand (@mem was read), on its
 * register (or immediate: @reg) and on the flags in @out.
 */
static void compute(const struct emulate_ctxt *c, u64 mem, u64 reg, struct outcome *out)
{
	const struct fonda_insn *insn = &c->insn;
	int op = insn->flags & EMUL_OP_MASK, bytes = insn->op_bytes;
	u64 acc;

	switch (op) {
	case OP_MOV:
		out->reg = mem;
		out->mem = reg;
		break;
	case OP_ADD ... OP_DEC:
		if (insn->flags & TO_REG)
			out->reg = alu(op, reg, mem, bytes, &out->flags);
		else
			out->mem = alu(op, mem, reg, bytes, &out->flags);
		break;
	case OP_BT ... OP_BTC:
		out->mem = bit_op(op, mem, 1ULL << (reg & (8 * bytes - 1)), &out->flags);
		break;
	case OP_MOVZX:
		out->reg = mem;
		break;
	case OP_MOVSX:
		out->reg = sign_extend(mem, insn->mem_bytes);
		break;
	case OP_MOVBE:
		out->reg = swap_bytes(mem, bytes);
		out->mem = swap_bytes(reg, bytes);
		break;
	case OP_CMOV:
		out->reg = condition(insn->opcode, out->flags) ? mem : reg;
		break;
	case OP_SETCC:
		out->mem = condition(insn->opcode, out->flags);
		break;
	case OP_XCHG:
		out->mem = reg;
		out->reg = mem;
		break;
	case OP_XADD:
		out->mem = add(mem, reg, 0, bytes, &out->flags);
		out->reg = mem;
		break;
	case OP_CMPXCHG:
		/* The write takes place also when it changes nothing. */
		acc = c->gpr[AX] & size_mask(bytes);
		sub(acc, mem, 0, bytes, &out->flags);
		out->mem = acc == mem ? reg : mem;
		out->acc = mem;
		out->acc_written = acc != mem;
		break;
	}
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
	if (insn->flags & BIT_OFFSET) {
		/* A signed bit number: whole operands are added. */
		s64 bit = sign_extend(c->gpr[insn->reg], insn->op_bytes);

		ea += bit >> 3 & -(s64)insn->op_bytes;
	}
	return ea & size_mask(insn->ad_bytes);
}

u64 fonda_emulate_operand(const struct emulate_ctxt *c)
{
	const struct fonda_insn *insn = &c->insn;

	return insn->flags & IMM ? insn->imm & size_mask(insn->op_bytes) :
				   read_gpr(c, insn->reg, insn->op_bytes);
}

void fonda_emulate_load(struct emulate_ctxt *c, u64 val)
{
	write_gpr(c, c->insn.reg, c->insn.op_bytes, val);
}

static int emulate_plain(struct emulate_ctxt *c)
{
	const struct fonda_insn *insn = &c->insn;
	bool write = insn->flags & EMUL_WRITE;
	struct outcome out;
	int r;

	if (!c->translated) {
		gva_t gva;

		r = linear(c, insn->seg, fonda_emulate_address(c), insn->mem_bytes, write, &gva);
		if (r != EMULATE_OK)
			return r;
		r = translate(c, gva, insn->mem_bytes,
			      write ? FONDA_ACCESS_WRITE : FONDA_ACCESS_READ, &c->dst);
		if (r != EMULATE_OK)
			return r;
		c->translated = true;
		c->value = 0;
	}
	if (insn->flags & EMUL_READ) {
		r = access(c, &c->dst, &c->value, false);
		if (r != EMULATE_OK)
			return r;
	}

	out.flags = c->rflags;
	out.acc_written = false;
	compute(c, c->value, fonda_emulate_operand(c), &out);

	if (write) {
		r = access(c, &c->dst, &out.mem, true);
		if (r != EMULATE_OK)
			return r;
	}
	/* 3a and 3b, CMP, have the form of a write to the register only. */
	if ((insn->flags & TO_REG) && (insn->flags & EMUL_OP_MASK) != OP_CMP)
		write_gpr(c, insn->reg, insn->op_bytes, out.reg);
	if (out.acc_written)
		write_gpr(c, AX, insn->op_bytes, out.acc);
	c->rflags = out.flags;
	return EMULATE_DONE;
}

/* Two bytes that the processor itself reads, wherever they lie. */
static int read_system(struct emulate_ctxt *c, gva_t gva, u16 *val)
{
	u8 bytes[2];
	gpa_t gpa;
	int i, r;

	for (i = 0; i < 2; i++) {
		r = c->ops->translate(c, gva + i, FONDA_ACCESS_READ | FONDA_ACCESS_IMPLICIT,
				      &gpa);
		if (r != EMULATE_OK)
			return r;
		if (!c->ops->is_ram(c, gpa, false))
			return EMULATE_UNSUPPORTED;
		r = c->ops->read(c, gpa, &bytes[i], 1);
		if (r != EMULATE_OK)
			return r;
	}
	*val = bytes[0] | bytes[1] << 8;
	return EMULATE_OK;
}

/*
 * May the port be used? (APM volume 2, "I/O-Permission Bitmap": two bytes are
 * read, whatever the alignment; both must lie within the limit of the TSS.)
 */
static int check_port(struct emulate_ctxt *c, u16 port, int size)
{
	unsigned int iopl = c->rflags >> X86_EFLAGS_IOPL_BIT & 3;
	struct fonda_segment tr;
	u32 offset;
	u16 val;
	int r;

	if (c->mode == EMULATE_REAL || (c->mode != EMULATE_V86 && c->ops->cpl(c) <= iopl))
		return EMULATE_OK;

	c->ops->segment(c, FONDA_SEG_TR, &tr);
	/* Only a TSS of the 386 or later has a bitmap; type bit 3 tells. */
	if (!(tr.attr & FONDA_SEG_P) || !(FONDA_SEG_TYPE(tr.attr) & 8) || tr.limit < 103)
		return fault(c, VECTOR_GP);
	r = read_system(c, tr.base + 102, &val);
	if (r != EMULATE_OK)
		return r;
	offset = val + port / 8;
	if (offset + 1 > tr.limit)
		return fault(c, VECTOR_GP);
	r = read_system(c, tr.base + offset, &val);
	if (r != EMULATE_OK)
		return r;
	if (val >> (port & 7) & ((1 << size) - 1))
		return fault(c, VECTOR_GP);
	return EMULATE_OK;
}

/*
 * Resolve the element at a string's pointer. A port instruction takes as many
 * of the @left ones as follow upwards in the same page of memory, so that one
 * request to the device serves them all.
 */
static int string_operand(struct emulate_ctxt *c, bool dst, u64 left,
			  struct emulate_operand *op)
{
	const struct fonda_insn *insn = &c->insn;
	enum fonda_seg seg = dst ? FONDA_SEG_ES : insn->seg;
	u64 mask = size_mask(insn->ad_bytes);
	u64 off = c->gpr[dst ? DI : SI] & mask;
	u32 len = insn->op_bytes;
	gva_t gva;
	int r;

	r = linear(c, seg, off, len, dst, &gva);
	if (r != EMULATE_OK)
		return r;
	r = translate(c, gva, len, dst ? FONDA_ACCESS_WRITE : FONDA_ACCESS_READ, op);
	if (r != EMULATE_OK || !(insn->flags & EMUL_PORT) || left == 1)
		return r;

	left = min_t(u64, left, page_room(gva) / len);
	if (left > 1 && !(c->rflags & (X86_EFLAGS_DF | X86_EFLAGS_TF)) &&
	    left * len - 1 <= mask - off && c->ops->is_ram(c, op->gpa[0], dst) &&
	    linear(c, seg, off, left * len, dst, &gva) == EMULATE_OK) {
		c->count = left;
		op->len[0] = left * len;
	}
	return EMULATE_OK;
}

static int string_prepare(struct emulate_ctxt *c, u64 left)
{
	const struct fonda_insn *insn = &c->insn;
	int r;

	c->count = 1;
	if (insn->flags & EMUL_PORT) {
		r = check_port(c, c->gpr[DX], insn->op_bytes);
		if (r != EMULATE_OK)
			return r;
	}
	if (insn->flags & EMUL_READ) {
		r = string_operand(c, false, left, &c->src);
		if (r != EMULATE_OK)
			return r;
	}
	if (insn->flags & EMUL_WRITE) {
		r = string_operand(c, true, left, &c->dst);
		if (r != EMULATE_OK)
			return r;
	}
	c->translated = true;
	c->value = (insn->flags & EMUL_OP_MASK) == OP_STOS ? c->gpr[AX] : 0;
	return EMULATE_OK;
}

static int string_port(struct emulate_ctxt *c, bool in)
{
	u32 count = c->count;
	int r;

	if (c->pos++ < c->done)
		return EMULATE_OK;
	r = c->ops->pio(c, in, c->gpr[DX], c->insn.op_bytes, count);
	if (r != EMULATE_OK)
		return r;
	if (in && c->count < count)
		c->dst.len[0] = c->count * c->insn.op_bytes;
	c->done++;
	return EMULATE_OK;
}

/* The accesses of one repetition. */
static int string_transfer(struct emulate_ctxt *c)
{
	int op = c->insn.flags & EMUL_OP_MASK, r = EMULATE_OK;
	void *data = &c->value;

	if (c->insn.flags & EMUL_PORT) {
		data = c->pio_data;
		if (op == OP_INS)
			r = string_port(c, true);
	}
	if (r == EMULATE_OK && (c->insn.flags & EMUL_READ))
		r = access(c, &c->src, data, false);
	if (r == EMULATE_OK && (c->insn.flags & EMUL_WRITE))
		r = access(c, &c->dst, data, true);
	if (r == EMULATE_OK && op == OP_OUTS)
		r = string_port(c, false);
	return r;
}

static int emulate_string(struct emulate_ctxt *c)
{
	const struct fonda_insn *insn = &c->insn;
	u64 left = insn->rep ? c->gpr[CX] & size_mask(insn->ad_bytes) : 1;
	s64 step;
	int r;

	if (!left)
		return EMULATE_DONE;
	if (!c->translated) {
		r = string_prepare(c, left);
		if (r != EMULATE_OK)
			return r;
	}
	r = string_transfer(c);
	if (r != EMULATE_OK)
		return r;

	if ((insn->flags & EMUL_OP_MASK) == OP_LODS)
		write_gpr(c, AX, insn->op_bytes, c->value);
	step = (s64)insn->op_bytes * c->count;
	if (c->rflags & X86_EFLAGS_DF)
		step = -step;
	/* MOVS and INS have an ES:rDI; all that read have an rSI. */
	if (insn->flags & EMUL_READ)
		write_gpr(c, SI, insn->ad_bytes, c->gpr[SI] + step);
	if (insn->flags & EMUL_WRITE)
		write_gpr(c, DI, insn->ad_bytes, c->gpr[DI] + step);
	if (!insn->rep)
		return EMULATE_DONE;
	write_gpr(c, CX, insn->ad_bytes, left - c->count);
	return left > c->count ? EMULATE_AGAIN : EMULATE_DONE;
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
