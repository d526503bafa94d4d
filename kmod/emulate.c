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

enum { VECTOR_SS = 12, VECTOR_GP = 13 };

/* What is done; ALU operations in the order of their opcodes. The flags tell strings apart. */
enum { OP_ADD, OP_OR, OP_ADC, OP_SBB, OP_AND, OP_SUB, OP_XOR, OP_CMP, OP_MOV, OP_MOVSX };

/* More flags of a decoded instruction, beside EMUL_* in the header. */
#define MODRM		(1u << 11)
#define IMM		(1u << 12)	/* an immediate stands for the register */
#define TO_REG		(1u << 13)	/* the result goes to the register */
#define LOCKABLE	(1u << 14)
#define MOFFS		(1u << 15)	/* the address follows the opcode */

#define MOV	(OP_MOV | EMUL_MOV)
#define RD	EMUL_READ
#define WR	EMUL_WRITE
#define RMW	(RD | WR | LOCKABLE)

/*
 * Opcodes of one byte, of which the even ones have byte operands. Not here: the
 * ALU operations below 40. All with an immediate are groups, see decode_group().
 */
static const u32 one_byte[256] = {
	[0x63] = OP_MOVSX | MODRM | RD | TO_REG,
	[0x6c ... 0x6d] = EMUL_STRING | EMUL_PORT | WR,		/* INS */
	[0x6e ... 0x6f] = EMUL_STRING | EMUL_PORT | RD,		/* OUTS */
	[0x80 ... 0x81] = OP_ADD | MODRM | IMM | RMW,
	[0x83] = OP_ADD | MODRM | IMM | RMW,
	[0x84 ... 0x85] = OP_AND | MODRM | RD,			/* TEST */
	[0x86 ... 0x87] = OP_MOV | MODRM | RMW | TO_REG,	/* XCHG */
	[0x88 ... 0x89] = MOV | MODRM | WR,
	[0x8a ... 0x8b] = MOV | MODRM | RD | TO_REG,
	[0xa0 ... 0xa1] = MOV | MOFFS | RD | TO_REG,
	[0xa2 ... 0xa3] = MOV | MOFFS | WR,
	[0xa4 ... 0xa5] = EMUL_STRING | RD | WR,		/* MOVS */
	[0xaa ... 0xab] = EMUL_STRING | WR,			/* STOS */
	[0xac ... 0xad] = EMUL_STRING | RD,			/* LODS */
	[0xc6 ... 0xc7] = MOV | MODRM | IMM | WR,
	[0xf6 ... 0xf7] = OP_AND | MODRM | IMM | RD,		/* TEST */
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
	bool opsize = false, adsize = false;
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
			opsize = true;
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
	insn->op_bytes = insn->rex & 8 ? 8 : (bits == 16) == opsize ? 4 : 2;
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

/* @flags of opcode @b with @reg in its ModRM byte; 0: not emulated. */
static u32 decode_group(u32 flags, u8 b, int reg)
{
	if (b < 0x84)
		return flags + reg;		/* OP_ADD to OP_CMP */
	/* TEST may be 0 and 1, MOV is 0. */
	return reg <= (b >= 0xf6) ? flags : 0;
}

enum emulate_result fonda_decode(struct fonda_insn *insn, const u8 *code, int nr, int bits)
{
	struct cursor c = { .code = code, .nr = min(nr, FONDA_INSN_MAX) };
	u32 flags = 0;
	u8 b, modrm;

	b = next_opcode(&c, insn, bits);
	if (b == 0x0f) {
		b = next(&c);
		if ((b & 0xf6) == 0xb6)		/* MOVZX and MOVSX */
			flags = (b & 8 ? OP_MOVSX : MOV) | MODRM | RD | TO_REG;
		insn->mem_bytes = b & 1 ? 2 : 1;
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

	if (flags & MODRM) {
		modrm = next(&c);
		insn->reg = (modrm >> 3 & 7) | (insn->rex & 4) << 1;
		if (flags & IMM)
			flags = decode_group(flags, b, modrm >> 3 & 7);
		if (modrm >> 6 == 3)
			flags = 0;
		else
			decode_memory(insn, &c, modrm, bits);
	} else if (flags & MOFFS) {
		insn->disp = next_signed(&c, insn->ad_bytes);
	}
	if (insn->seg == FONDA_NR_SEGS)
		insn->seg = FONDA_SEG_DS;
	if (flags & IMM)
		insn->imm = next_signed(&c, b == 0x83 ? 1 : min_t(int, insn->op_bytes, 4));
	if (!(flags & EMUL_STRING) && (flags & EMUL_OP_MASK) == OP_CMP)
		flags &= ~(WR | LOCKABLE);

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
			r = write ? c->ops->write(c, op->gpa[i], data, op->len[i]) :
				    c->ops->read(c, op->gpa[i], data, op->len[i]);
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
	int op = insn->flags & EMUL_OP_MASK, bytes = insn->op_bytes, r;
	bool write = insn->flags & EMUL_WRITE;
	unsigned long flags = c->rflags;
	u64 mem, reg;

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

	/* What the memory operand and the register become; a MOV exchanges them. */
	mem = fonda_emulate_operand(c);
	reg = c->value;
	if (op == OP_MOVSX)
		reg = sign_extend(reg, insn->mem_bytes);
	else if (op <= OP_CMP && (insn->flags & TO_REG))
		reg = alu(op, mem, reg, bytes, &flags);
	else if (op <= OP_CMP)
		mem = alu(op, reg, mem, bytes, &flags);

	if (write) {
		r = access(c, &c->dst, &mem, true);
		if (r != EMULATE_OK)
			return r;
	}
	/* 3a and 3b, CMP, have the form of a write to the register only. */
	if ((insn->flags & TO_REG) && op != OP_CMP)
		write_gpr(c, insn->reg, bytes, reg);
	c->rflags = flags;
	return EMULATE_DONE;
}

/* Two bytes that the processor itself reads, wherever they lie. */
static int read_system(struct emulate_ctxt *c, gva_t gva, u16 *val)
{
	u8 bytes[2];
	gpa_t gpa;
	int i, r;

	for (i = 0; i < 2; i++) {
		r = c->ops->translate(c, gva + i, FONDA_ACCESS_READ | FONDA_ACCESS_IMPLICIT, &gpa);
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
static int string_operand(struct emulate_ctxt *c, bool dst, u64 left, struct emulate_operand *op)
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
	int r = EMULATE_OK;

	c->count = 1;
	if (insn->flags & EMUL_PORT)
		r = check_port(c, c->gpr[DX], insn->op_bytes);
	if (r == EMULATE_OK && (insn->flags & EMUL_READ))
		r = string_operand(c, false, left, &c->src);
	if (r == EMULATE_OK && (insn->flags & EMUL_WRITE))
		r = string_operand(c, true, left, &c->dst);
	c->translated = r == EMULATE_OK;
	/* Only STOS has no source but this. */
	c->value = insn->flags & EMUL_READ ? 0 : c->gpr[AX];
	return r;
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
	bool port = c->insn.flags & EMUL_PORT, read = c->insn.flags & EMUL_READ;
	void *data = port ? (void *)c->pio_data : &c->value;
	int r = EMULATE_OK;

	if (port && !read)
		r = string_port(c, true);
	if (r == EMULATE_OK && read)
		r = access(c, &c->src, data, false);
	if (r == EMULATE_OK && (c->insn.flags & EMUL_WRITE))
		r = access(c, &c->dst, data, true);
	if (r == EMULATE_OK && port && read)
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

	if (!(insn->flags & (EMUL_WRITE | EMUL_PORT)))		/* LODS */
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
