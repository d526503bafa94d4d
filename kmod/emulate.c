// SPDX-License-Identifier: GPL-2.0-only
/*
 * The instruction decoder and executor. It knows the instructions that
 * compilers, kernels and firmware use on MMIO, and the string port
 * instructions; anything else is reported, not guessed. It owns segmentation,
 * operand sizes, arithmetic and flags; paging, memory and devices are behind
 * a few functions. Encodings and effects: AMD64 APM volume 3, "Instruction
 * Encoding" and "General-Purpose Instruction Reference"; Intel SDM volume 2.
 */
#include "emulate.h"

enum { AX, CX, DX, BX, SP, BP, SI, DI };	/* numbers of registers */

enum { VECTOR_SS = 12, VECTOR_GP = 13, VECTOR_AC = 17 };

/* What is done; ALU operations in the order of their opcodes. */
enum {
	OP_ADD, OP_OR, OP_ADC, OP_SBB, OP_AND, OP_SUB, OP_XOR, OP_CMP,
	OP_NOT, OP_NEG, OP_INC, OP_DEC, OP_BT, OP_BTS, OP_BTR, OP_BTC,
	OP_MOV, OP_MOVSX,
};

/* More flags of a decoded instruction, beside EMUL_* in the header. */
#define MODRM		(1u << 10)
#define IMM		(1u << 11)	/* an immediate stands for the register */
#define TO_REG		(1u << 12)	/* the result goes to the register */
#define LOCKABLE	(1u << 13)
#define MOFFS		(1u << 14)	/* the address follows the opcode */
#define BIT_STRING	(1u << 15)	/* the register reaches beyond the operand */
#define GROUP		(1u << 16)	/* EMUL_OP_MASK is an index into groups[] */
#define PAIR		(1u << 17)	/* two operands, see struct emulate_ctxt */
#define MEM32		(1u << 18)	/* the memory operand has four bytes at most, */
#define MEM16		(2u << 18)	/* two, */
#define MEM8		(3u << 18)	/* or one */
#define MEM_SIZE(flags)	(8 >> ((flags) >> 18 & 3))

/* An XMM register is moved, if there is one of these prefixes. */
#define XMM(prefixes)	(OP_MOV | MODRM | PAIR | (prefixes))
#define XMM_NONE	(1u << 20)
#define XMM_66		(1u << 21)
#define XMM_F3		(1u << 22)
#define XMM_MASK	(XMM_NONE | XMM_66 | XMM_F3)

#define MOV	(OP_MOV | EMUL_MOV)
#define RD	EMUL_READ
#define WR	EMUL_WRITE
#define RMW	(MODRM | RD | WR | LOCKABLE)
#define LOAD	(MODRM | RD | TO_REG)
#define STORE	(MODRM | WR)
#define STRING	EMUL_STRING
#define PORT	(STRING | PAIR | EMUL_PORT)

enum { GROUP1, GROUP3, GROUP45, GROUP8, GROUP11 };

/*
 * Opcodes of one byte, of which the even ones have byte operands, and from 100 on
 * those after 0f. Not here: the ALU operations below 40. STOS, LODS and SCAS are a
 * MOV or CMP of the accumulator that moves a pointer.
 */
static const u32 opcodes[0x200] = {
	[0x63] = OP_MOVSX | LOAD | MEM32,
	[0x6c ... 0x6d] = OP_MOV | PORT | WR,			/* INS */
	[0x6e ... 0x6f] = OP_MOV | PORT | RD,			/* OUTS */
	[0x80 ... 0x81] = GROUP | GROUP1 | MODRM,
	[0x83] = GROUP | GROUP1 | MODRM,
	[0x84 ... 0x85] = OP_AND | MODRM | RD,			/* TEST */
	[0x86 ... 0x87] = OP_MOV | RMW | TO_REG,		/* XCHG */
	[0x88 ... 0x89] = MOV | STORE,
	[0x8a ... 0x8b] = MOV | LOAD,
	[0xa0 ... 0xa1] = MOV | MOFFS | RD | TO_REG,
	[0xa2 ... 0xa3] = MOV | MOFFS | WR,
	[0xa4 ... 0xa5] = OP_MOV | STRING | PAIR | RD,		/* MOVS */
	[0xa6 ... 0xa7] = OP_CMP | STRING | PAIR | RD,		/* CMPS */
	[0xaa ... 0xab] = OP_MOV | STRING | WR,			/* STOS */
	[0xac ... 0xad] = OP_MOV | STRING | RD | TO_REG,	/* LODS */
	[0xae ... 0xaf] = OP_CMP | STRING | RD | TO_REG,	/* SCAS */
	[0xc6 ... 0xc7] = GROUP | GROUP11 | MODRM,
	[0xf6 ... 0xf7] = GROUP | GROUP3 | MODRM,
	[0xfe ... 0xff] = GROUP | GROUP45 | MODRM,
	[0x110] = XMM(XMM_NONE | XMM_66) | RD, XMM(XMM_NONE | XMM_66) | WR,	/* MOVUPS */
	[0x128] = XMM(XMM_NONE | XMM_66) | RD, XMM(XMM_NONE | XMM_66) | WR,	/* MOVAPS */
	[0x12b] = XMM(XMM_NONE | XMM_66) | WR,			/* MOVNTPS */
	[0x16f] = XMM(XMM_66 | XMM_F3) | RD,			/* MOVDQA, MOVDQU */
	[0x17f] = XMM(XMM_66 | XMM_F3) | WR,
	[0x1a3] = OP_BT | MODRM | RD | BIT_STRING,
	[0x1ab] = OP_BTS | RMW | BIT_STRING,
	[0x1b3] = OP_BTR | RMW | BIT_STRING,
	[0x1b6] = MOV | LOAD | MEM8, MOV | LOAD | MEM16,		/* MOVZX */
	[0x1ba] = GROUP | GROUP8 | MODRM, OP_BTC | RMW | BIT_STRING,
	[0x1be] = OP_MOVSX | LOAD | MEM8, OP_MOVSX | LOAD | MEM16,
	[0x1e7] = XMM(XMM_66) | WR,				/* MOVNTDQ */
};

static const u32 groups[][8] = {
	[GROUP1] = { OP_ADD | RMW | IMM, OP_OR | RMW | IMM, OP_ADC | RMW | IMM, OP_SBB | RMW | IMM,
		     OP_AND | RMW | IMM, OP_SUB | RMW | IMM, OP_XOR | RMW | IMM,
		     OP_CMP | RD | IMM },
	[GROUP3] = { OP_AND | RD | IMM, OP_AND | RD | IMM, OP_NOT | RMW, OP_NEG | RMW },
	[GROUP45] = { OP_INC | RMW, OP_DEC | RMW },
	[GROUP8] = { [4] = OP_BT | RD | IMM, OP_BTS | RMW | IMM, OP_BTR | RMW | IMM,
		     OP_BTC | RMW | IMM },
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

/* Read the prefixes and the opcode, and begin @insn with them. */
static void next_opcode(struct cursor *c, struct fonda_insn *insn, int bits)
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
	insn->opcode = b == 0x0f ? b | next(c) << 8 : b;
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

/* The flags of the opcode; the sizes of its operands. */
static u32 decode_opcode(struct fonda_insn *insn, int bits)
{
	u16 op = insn->opcode;
	u32 flags = opcodes[op > 0xff ? 0x100 | op >> 8 : op];

	insn->mem_bytes = 16;
	if (flags & XMM_MASK)
		return flags & (insn->rep == 0xf3 ? XMM_F3 : insn->rep ? 0 :
				insn->opsize ? XMM_66 : XMM_NONE) ? flags : 0;
	if (op < 0x40 && (op & 7) < 4)
		flags = op / 8 | (op & 2 ? LOAD : op / 8 == OP_CMP ? MODRM | RD : RMW);
	if (op < 0x100 && !(op & 1))
		insn->op_bytes = 1;
	else if (flags & EMUL_PORT)
		insn->op_bytes = min_t(u8, insn->op_bytes, 4);
	insn->mem_bytes = min_t(u8, insn->op_bytes, MEM_SIZE(flags));
	return op == 0x63 && bits != 64 ? 0 : flags;		/* ARPL */
}

enum emulate_result fonda_decode(struct fonda_insn *insn, const u8 *code, int nr, int bits)
{
	struct cursor c = { .code = code, .nr = min(nr, FONDA_INSN_MAX) };
	u32 flags;
	u8 modrm;

	next_opcode(&c, insn, bits);
	flags = decode_opcode(insn, bits);
	if (flags & MODRM) {
		modrm = next(&c);
		insn->reg = (modrm & 0x38) | (insn->rex & 4) << 4;
		if (flags & GROUP)
			flags = groups[flags & EMUL_OP_MASK][modrm >> 3 & 7];
		if (modrm >> 6 == 3)
			flags = 0;
		else
			decode_memory(insn, &c, modrm, bits);
	} else if (flags & MOFFS) {
		insn->disp = next_signed(&c, insn->ad_bytes);
	} else if (!(flags & RD) || (insn->opcode & 0xfe) == 0xae) {
		insn->base = DI;
		insn->seg = FONDA_SEG_ES;
	} else {
		insn->base = SI;
	}
	if (insn->seg == FONDA_NR_SEGS)
		insn->seg = FONDA_SEG_DS;
	/* AH, CH, DH, BH. */
	if (insn->op_bytes == 1 && !insn->rex && insn->reg >= 4 * 8)
		insn->reg -= 4 * 8 - 1;
	if (flags & IMM)
		insn->imm = next_signed(&c, insn->opcode > 0xff || insn->opcode == 0x83 ? 1 :
					    min_t(int, insn->op_bytes, 4));

	insn->flags = flags;
	insn->len = c.pos;
	if (c.pos > c.nr && nr < FONDA_INSN_MAX)
		return EMULATE_RETRY;
	if (c.pos > c.nr || !flags)
		return EMULATE_UNSUPPORTED;
	return insn->lock && !(flags & LOCKABLE) ? EMULATE_FAULT : EMULATE_OK;
}

bool fonda_decode_exit(struct fonda_exit_insn *i, const u8 *code, int nr, int bits,
		       enum fonda_exit_op op)
{
	struct cursor c = { .code = code, .nr = min(nr, FONDA_INSN_MAX) };
	struct fonda_insn insn;
	u32 found, modrm;

	next_opcode(&c, &insn, bits);
	found = insn.opcode;
	if (found == 0x90 && insn.rep == 0xf3)
		found = FONDA_OP_PAUSE;
	/* The second: MOV of control and debug registers. */
	if (found == 0x010f || (found & 0xfcff) == 0x200f) {
		modrm = next(&c);
		i->rm = (modrm & 7) | (insn.rex & 1) << 3;
		/* A MOV ignores the mod field: always a register. */
		if (found == 0x010f && modrm < 0xc0)
			decode_memory(&insn, &c, modrm, bits);
		if (found == 0x010f)
			found |= ((modrm & 0x38) == 0x30 ? 0x30 : modrm) << 16;
	}
	i->len = c.pos;
	return found == op && c.pos <= c.nr;
}

static u64 size_mask(int bytes)
{
	return ~0ULL >> (64 - 8 * bytes);
}

/* 32-bit results clear the upper half, shorter ones keep the rest. */
void fonda_load_gpr(unsigned long *gpr, int reg, int bytes, u64 val)
{
	u64 mask = size_mask(bytes), old;

	memcpy(&old, (void *)gpr + reg, sizeof(old));
	val = (bytes == 4 ? 0 : old & ~mask) | (val & mask);
	memcpy((void *)gpr + reg, &val, sizeof(val));
}

static bool canonical(const struct emulate_ctxt *c, gva_t gva)
{
	/* The bits from the highest one up are all equal. */
	return (u64)((s64)gva >> (c->va_bits - 1)) + 1 < 2;
}

/*
 * The linear address of @len bytes at @seg:@off. May they be accessed? (APM volume 2,
 * "Segment Limit Checking" and "Data-Access Privilege Checks".)
 */
static bool linear(struct emulate_ctxt *c, enum fonda_seg seg, u64 off, u64 len, bool write,
		   gva_t *gva)
{
	u64 last = off + len - 1;
	struct fonda_segment s = { 0 };
	u8 type;

	if (c->mode != EMULATE_LONG || seg >= FONDA_SEG_FS)
		fonda_emulate_segment(c, seg, &s);
	*gva = s.base + off;
	if (c->mode == EMULATE_LONG)
		return canonical(c, *gva) && canonical(c, *gva + len - 1);
	*gva = (u32)*gva;
	type = FONDA_SEG_TYPE(s.attr);
	/* Bit 3: code. Bit 1 makes data writable and code readable. */
	if (c->mode == EMULATE_PROTECTED &&
	    (!(s.attr & FONDA_SEG_P) || (type & 2 ? write && type & 8 : write || type & 8)))
		return false;
	if ((type & 0xc) == 4)	/* expand-down */
		return off > s.limit && last <= (s.attr & FONDA_SEG_DB ? U32_MAX : U16_MAX);
	return last <= s.limit;
}

/*
 * Where the operand at @seg:@off is: a piece for each page. A port instruction
 * takes as many of the @left ones as follow upwards in the same page of memory,
 * so that one request to the device serves them all.
 */
static int resolve(struct emulate_ctxt *c, enum fonda_seg seg, u64 off, bool write, u64 left,
		   struct emulate_operand *op)
{
	u32 access = write ? FONDA_ACCESS_WRITE : FONDA_ACCESS_READ, len = c->insn.mem_bytes, room;
	gva_t gva, next;
	int r;

	if (!linear(c, seg, off, len, write, &gva))
		return fonda_emulate_fault(c, seg == FONDA_SEG_SS ? VECTOR_SS : VECTOR_GP);
	room = 4096 - (gva & 4095);
	op->len[0] = min(len, room);
	op->len[1] = len - op->len[0];
	r = fonda_emulate_translate(c, gva, access, &op->gpa[0]);
	if (op->len[1] && r == EMULATE_OK) {
		next = c->mode == EMULATE_LONG ? gva + room : (u32)(gva + room);
		r = fonda_emulate_translate(c, next, access, &op->gpa[1]);
	}
	/* The least of all faults. XMM registers have rules of their own. */
	if (r == EMULATE_OK && c->check_alignment && len <= 8 && gva & (len - 1))
		return fonda_emulate_fault(c, VECTOR_AC);

	left = min_t(u64, left, room / len);
	if (r == EMULATE_OK && c->insn.flags & EMUL_PORT && left > 1 &&
	    !(c->rflags & (X86_EFLAGS_DF | X86_EFLAGS_TF)) &&
	    left * len - 1 <= size_mask(c->insn.ad_bytes) - off &&
	    fonda_emulate_is_ram(c, op->gpa[0], write) &&
	    linear(c, seg, off, left * len, write, &gva))
		c->count = left;
	return r;
}

/* Both operands of a PAIR; what is in memory may be either, or both. */
static int resolve_all(struct emulate_ctxt *c, u64 left)
{
	const struct fonda_insn *insn = &c->insn;
	bool pair = insn->flags & PAIR, write = insn->flags & WR;
	struct emulate_operand *other = &c->op[!write];
	int r;

	memset(c->data, 0, sizeof(c->data));
	c->count = 1;
	r = resolve(c, insn->seg, fonda_emulate_address(c), write, left, &c->op[pair && write]);
	if (insn->flags & EMUL_PORT)
		*other = (struct emulate_operand){
			{ EMULATE_PORTS | (u16)c->gpr[DX] }, { insn->op_bytes } };
	else if (insn->flags & XMM_MASK)
		*other = (struct emulate_operand){ { EMULATE_XMM | insn->reg * 2 }, { 16 } };
	else if (pair && r == EMULATE_OK)
		r = resolve(c, FONDA_SEG_ES, c->gpr[DI] & size_mask(insn->ad_bytes),
			    (insn->flags & EMUL_OP_MASK) != OP_CMP, left, other);
	return r;
}

/*
 * Read or write all of an operand that is not done yet: 8 bytes at most at a
 * time, but what goes through pio_data is memory and all one.
 */
static int access(struct emulate_ctxt *c, const struct emulate_operand *op, void *data, bool write)
{
	u32 most = c->insn.flags & EMUL_PORT ? U16_MAX : 8, off, len, all;
	int i, r;

	for (i = 0; i < 2; i++) {
		all = op->len[i] * c->count;
		for (off = 0; off < all; off += len, data += len) {
			len = min(all - off, most);
			if (c->pos++ < c->done)
				continue;
			r = fonda_emulate_access(c, op->gpa[i] + off, data, len, write);
			/* User space does it before it comes back. */
			if (r == EMULATE_OK || r == EMULATE_NEED_USER)
				c->done++;
			if (r != EMULATE_OK)
				return r;
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

/* What the operation makes of its destination @a and its source @b. */
static u64 compute(const struct emulate_ctxt *c, int op, u64 a, u64 b, unsigned long *flags)
{
	int bytes = c->insn.op_bytes;
	unsigned long cf = *flags & X86_EFLAGS_CF;
	bool carry = (op == OP_ADC || op == OP_SBB) && cf;
	/* AF is undefined after the logical ones; processors clear it. */
	u64 r, out = 0, bit = 1ULL << (b & (8 * bytes - 1));

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
	case OP_INC:
	case OP_DEC:
		r = compute(c, op == OP_INC ? OP_ADD : OP_SUB, a, 1, flags);
		*flags = (*flags & ~X86_EFLAGS_CF) | cf;
		return r;
	case OP_NEG:
		return compute(c, OP_SUB, 0, a, flags);
	case OP_OR:
		r = a | b;
		break;
	case OP_XOR:
		r = a ^ b;
		break;
	case OP_AND:
		r = a & b;
		break;
	case OP_NOT:
		return ~a;
	case OP_BT ... OP_BTC:
		*flags = (*flags & ~X86_EFLAGS_CF) | (a & bit ? X86_EFLAGS_CF : 0);
		return op == OP_BTS ? a | bit : op == OP_BTR ? a & ~bit : a ^ bit;
	case OP_MOVSX:
		return sign_extend(b, c->insn.mem_bytes);
	default:
		return b;
	}
	*flags = (*flags & ~STATUS_FLAGS) | status_flags(r, out, bytes);
	return r;
}

u64 fonda_emulate_operand(const struct emulate_ctxt *c)
{
	u64 val = c->insn.imm;

	if (!(c->insn.flags & IMM))
		memcpy(&val, (void *)c->gpr + c->insn.reg, sizeof(val));
	return val & size_mask(c->insn.op_bytes);
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
		ea += (s64)sign_extend(fonda_emulate_operand(c), insn->op_bytes) >> 3 &
		      -(s64)insn->op_bytes;
	return ea & size_mask(insn->ad_bytes);
}

/* The instruction once, @left repetitions of a string before its end. */
static int emulate_once(struct emulate_ctxt *c, u64 left)
{
	const struct fonda_insn *insn = &c->insn;
	int op = insn->flags & EMUL_OP_MASK, r = EMULATE_OK;
	bool pair = insn->flags & PAIR, load = insn->flags & TO_REG;
	bool read = pair || insn->flags & RD, write = op != OP_CMP && (pair || insn->flags & WR);
	void *data = insn->flags & EMUL_PORT ? (void *)c->pio_data : c->data;
	unsigned long flags = c->rflags;
	u64 reg = 0, mem;

	if (!c->done)
		r = resolve_all(c, left);
	if (r == EMULATE_OK && read)
		r = access(c, &c->op[0], data, false);
	if (r == EMULATE_OK && pair && op == OP_CMP)
		r = access(c, &c->op[1], &c->data[1], false);
	if (r == EMULATE_OK && !(pair && write)) {
		reg = pair ? c->data[1] : fonda_emulate_operand(c);
		mem = c->data[0];
		if (load && !write) {
			reg = compute(c, op, reg, mem, &flags);
		} else {	/* XCHG loads what was there */
			reg = compute(c, op, mem, reg, &flags);
			swap(reg, mem);
		}
		data = &mem;
	}
	if (r == EMULATE_OK && write)
		r = access(c, &c->op[pair], data, true);
	if (r != EMULATE_OK)
		return r;
	if (load && op != OP_CMP)
		fonda_load_gpr(c->gpr, insn->reg, insn->op_bytes, reg);
	c->rflags = flags;
	return EMULATE_DONE;
}

/* The registers of a string after one repetition. */
static int advance(struct emulate_ctxt *c, u64 left)
{
	const struct fonda_insn *insn = &c->insn;
	s64 step = (s64)insn->op_bytes * c->count;

	if (c->rflags & X86_EFLAGS_DF)
		step = -step;
	fonda_load_gpr(c->gpr, insn->base * 8, insn->ad_bytes, c->gpr[insn->base] + step);
	if ((insn->flags & (PAIR | EMUL_PORT)) == PAIR)
		fonda_load_gpr(c->gpr, DI * 8, insn->ad_bytes, c->gpr[DI] + step);
	if (!insn->rep)
		return EMULATE_DONE;
	left -= c->count;
	fonda_load_gpr(c->gpr, CX * 8, insn->ad_bytes, left);
	/* REPE goes on while they are equal, REPNE while they are not. */
	if ((insn->flags & EMUL_OP_MASK) == OP_CMP &&
	    !(c->rflags & X86_EFLAGS_ZF) == (insn->rep == 0xf3))
		return EMULATE_DONE;
	return left ? EMULATE_AGAIN : EMULATE_DONE;
}

int fonda_emulate(struct emulate_ctxt *c)
{
	bool string = c->insn.flags & STRING;
	u64 left = string && c->insn.rep ? c->gpr[CX] & size_mask(c->insn.ad_bytes) : 1;
	int r;

	c->pos = 0;
	/* User space may have lowered rCX meanwhile. */
	c->count = min_t(u64, c->count, left);
	if (!left)
		return EMULATE_DONE;
	r = emulate_once(c, left);
	if (r == EMULATE_DONE && string)
		r = advance(c, left);
	/* What follows, if anything, is a new repetition. */
	if (r == EMULATE_DONE || r == EMULATE_AGAIN)
		fonda_emulate_begin(c);
	return r;
}
