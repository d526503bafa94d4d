// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The decoders of kmod/emulate.c against Zydis: generated instructions of all
 * three modes with any prefixes must be taken or refused alike, and have the
 * same length and operands.
 */
#include <stdio.h>
#include <string.h>
#include <Zydis/Zydis.h>

#include "emulate.h"
#include "rng.h"
#include "tap.h"

#define ROUNDS	700000		/* instructions of each mode and decoder */

/* What the executor would want of a machine. */
#define NEVER(_type, _name, ...)	_type _name(__VA_ARGS__) { __builtin_trap(); }

NEVER(void, fonda_emulate_segment, struct emulate_ctxt *, enum fonda_seg, struct fonda_segment *)
NEVER(int, fonda_emulate_fault, struct emulate_ctxt *, u8)
NEVER(int, fonda_emulate_translate, struct emulate_ctxt *, gva_t, u32, gpa_t *)
NEVER(bool, fonda_emulate_is_ram, struct emulate_ctxt *, gpa_t, bool)
NEVER(int, fonda_emulate_access, struct emulate_ctxt *, gpa_t, void *, int, bool)

struct machine {
	ZydisDecoder decoder;
	int bits;
};

static struct machine machine(int bits)
{
	struct machine m = { .bits = bits };

	if (bits == 64)
		ZydisDecoderInit(&m.decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	else if (bits == 32)
		ZydisDecoderInit(&m.decoder, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
	else
		ZydisDecoderInit(&m.decoder, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
	return m;
}

struct reference {
	ZydisDecodedInstruction insn;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	ZyanStatus status;
};

static void decode_reference(const struct machine *m, const u8 *code, int nr,
			     struct reference *ref)
{
	ref->status = ZydisDecoderDecodeFull(&m->decoder, code, (ZyanUSize)nr,
					     &ref->insn, ref->ops);
}

static void print(const struct machine *m, const u8 *code, const struct reference *ref)
{
	char text[96] = "(refused)", hex[3 * 16 + 1];
	ZydisFormatter f;
	int i;

	for (i = 0; i < 16; i++)
		sprintf(hex + 3 * i, "%02x ", code[i]);
	if (ZYAN_SUCCESS(ref->status)) {
		ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
		ZydisFormatterFormatInstruction(&f, &ref->insn, ref->ops,
						ref->insn.operand_count_visible,
						text, sizeof(text), 0, NULL);
	}
	tap_diag("%d bits: %s: Zydis: %s, %d bytes", m->bits, hex, text, ref->insn.length);
}

/* Prefixes, then an opcode of @opcodes (below 0x100: one byte) or any, then noise. */
static void generate(struct rng *r, u8 *code, const u16 *opcodes, int nr)
{
	static const u8 prefixes[] = {
		0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x66, 0x67, 0x67,
		0xf0, 0xf2, 0xf3,
	};
	int n = 0, count, i;
	u16 op;

	for (i = 0; i < 16; i++)
		code[i] = (u8)rng_next(r);
	count = rng_below(r, 8) ? (int)rng_below(r, 4) : (int)rng_below(r, 15);
	for (i = 0; i < count; i++)
		code[n++] = rng_below(r, 4) ? prefixes[rng_below(r, sizeof(prefixes))] :
			    (u8)(0x40 + rng_below(r, 16));
	if (!rng_below(r, 4))
		return;

	op = opcodes[rng_below(r, (u32)nr)];
	if (op > 0xff && n < 16)
		code[n++] = 0x0f;
	if (n < 16)
		code[n++] = (u8)op;
}

static bool is_string(const ZydisDecodedInstruction *insn)
{
	switch (insn->opcode) {
	case 0x6c ... 0x6f:
	case 0xa4 ... 0xa7: case 0xaa ... 0xaf:
		return insn->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT;
	default:
		return false;
	}
}

static const ZydisDecodedOperand *other_operand(const struct reference *ref);

/* Of the vector moves those of whole XMM registers. */
static bool is_vector_move(const struct reference *ref)
{
	const ZydisDecodedOperand *op = other_operand(ref);

	if (!op || op->type != ZYDIS_OPERAND_TYPE_REGISTER ||
	    ZydisRegisterGetClass(op->reg.value) != ZYDIS_REGCLASS_XMM)
		return false;
	switch (ref->insn.mnemonic) {
	case ZYDIS_MNEMONIC_MOVUPS: case ZYDIS_MNEMONIC_MOVUPD: case ZYDIS_MNEMONIC_MOVAPS:
	case ZYDIS_MNEMONIC_MOVAPD: case ZYDIS_MNEMONIC_MOVNTPS: case ZYDIS_MNEMONIC_MOVNTPD:
	case ZYDIS_MNEMONIC_MOVDQA: case ZYDIS_MNEMONIC_MOVDQU: case ZYDIS_MNEMONIC_MOVNTDQ:
		return true;
	default:
		return false;
	}
}

/* Is it one of the set that the emulator promises, with an operand in memory? */
static bool promised(const struct reference *ref)
{
	const ZydisDecodedInstruction *insn = &ref->insn;
	int reg = insn->raw.modrm.reg;

	if (insn->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
		return false;
	if (is_vector_move(ref))
		return insn->raw.modrm.mod != 3;
	if (is_string(insn))
		return true;
	if (insn->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT &&
	    insn->opcode >= 0xa0 && insn->opcode <= 0xa3)
		return true;
	if (!(insn->attributes & ZYDIS_ATTRIB_HAS_MODRM) || insn->raw.modrm.mod == 3)
		return false;
	switch (insn->mnemonic) {
	case ZYDIS_MNEMONIC_BT: case ZYDIS_MNEMONIC_BTS: case ZYDIS_MNEMONIC_BTR:
	case ZYDIS_MNEMONIC_BTC: case ZYDIS_MNEMONIC_NOT: case ZYDIS_MNEMONIC_NEG:
	case ZYDIS_MNEMONIC_INC: case ZYDIS_MNEMONIC_DEC:
		return true;
	default:
		break;
	}
	if (insn->opcode_map == ZYDIS_OPCODE_MAP_0F)
		return insn->opcode == 0xb6 || insn->opcode == 0xb7 ||
		       insn->opcode == 0xbe || insn->opcode == 0xbf;
	if (insn->opcode_map != ZYDIS_OPCODE_MAP_DEFAULT)
		return false;
	switch (insn->opcode) {
	case 0x00 ... 0x3f:
		return (insn->opcode & 7) < 4;
	case 0x63:
		return insn->mnemonic == ZYDIS_MNEMONIC_MOVSXD;
	case 0x80: case 0x81: case 0x83 ... 0x8b:
		return true;
	case 0xc6: case 0xc7:
		return reg == 0;
	case 0xf6: case 0xf7:
		return reg <= 1;
	default:
		return false;
	}
}

static const ZydisDecodedOperand *memory_operand(const struct reference *ref)
{
	const ZydisDecodedOperand *found = NULL;
	int i;

	/* Of the two of MOVS the source is the second, of CMPS the first. */
	for (i = 0; i < ref->insn.operand_count; i++) {
		if (ref->ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
		    !(found && (ref->insn.opcode & 0xfe) == 0xa6))
			found = &ref->ops[i];
	}
	return found;
}

/* The register or immediate beside the memory operand, if it is written out. */
static const ZydisDecodedOperand *other_operand(const struct reference *ref)
{
	int i;

	for (i = 0; i < ref->insn.operand_count_visible; i++) {
		if (ref->ops[i].type != ZYDIS_OPERAND_TYPE_MEMORY)
			return &ref->ops[i];
	}
	return NULL;
}

static u8 register_number(ZydisRegister reg)
{
	if (reg == ZYDIS_REGISTER_NONE)
		return FONDA_REG_NONE;
	if (reg == ZYDIS_REGISTER_RIP || reg == ZYDIS_REGISTER_EIP)
		return FONDA_REG_RIP_REL;
	return (u8)ZydisRegisterGetId(reg);
}

static u8 segment_number(ZydisRegister reg)
{
	return (u8)(reg - ZYDIS_REGISTER_ES) + FONDA_SEG_ES;
}

static const char *compare_memory(const struct fonda_insn *insn, const struct reference *ref)
{
	const ZydisDecodedOperand *mem = memory_operand(ref);

	if (!mem)
		return "no memory operand";
	/* MOVSXD to 16 bits reads as many by the SDM, 32 by Zydis. */
	if (mem->size != insn->mem_bytes * 8 &&
	    !(ref->insn.mnemonic == ZYDIS_MNEMONIC_MOVSXD && insn->op_bytes == 2))
		return "size of the memory operand";
	if (ref->insn.address_width != insn->ad_bytes * 8)
		return "address size";
	if (segment_number(mem->mem.segment) != insn->seg)
		return "segment";
	/* [SI] and the like: an index alone is a base for Zydis. */
	if (insn->base == FONDA_REG_NONE && insn->ad_bytes == 2 &&
	    mem->mem.index == ZYDIS_REGISTER_NONE)
		return register_number(mem->mem.base) == insn->index ? NULL : "base";
	/*
	 * Without a ModRM displacement SIB base 5 is none, whatever REX.B says.
	 * Zydis 4.0 forgets it for 32-bit addresses in 64-bit mode; the test
	 * against the processor in emulate_test.c has that form.
	 */
	if (mem->mem.base == ZYDIS_REGISTER_R13D && ref->insn.raw.modrm.mod == 0 &&
	    ref->insn.raw.sib.base == 5)
		return insn->base == FONDA_REG_NONE ? NULL : "base";
	if (register_number(mem->mem.base) != insn->base)
		return "base";
	if (register_number(mem->mem.index) != insn->index)
		return "index";
	if (insn->index != FONDA_REG_NONE && mem->mem.scale != 1 << insn->scale)
		return "scale";
	return mem->mem.disp.value == insn->disp ? NULL : "displacement";
}

static const char *compare_other(const struct fonda_insn *insn, const struct reference *ref)
{
	const ZydisDecodedOperand *op = other_operand(ref);
	u64 mask = insn->op_bytes >= 8 ? ~0ULL : ~(~0ULL << 8 * insn->op_bytes);
	int at;

	if ((insn->flags & EMUL_STRING) || !op)
		return NULL;
	if (op->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
		return ((op->imm.value.u ^ insn->imm) & mask &
			(~0ULL >> (64 - ref->insn.raw.imm[0].size))) ? "immediate" : NULL;

	at = ZydisRegisterGetId(op->reg.value) * 8;
	if (is_vector_move(ref))
		return at == insn->reg ? NULL : "register";
	if (op->size != insn->op_bytes * 8)
		return "size of the register";
	if (op->reg.value >= ZYDIS_REGISTER_AH && op->reg.value <= ZYDIS_REGISTER_BH)
		at = (op->reg.value - ZYDIS_REGISTER_AH) * 8 + 1;
	if (op->reg.value >= ZYDIS_REGISTER_SPL && op->reg.value <= ZYDIS_REGISTER_R15B)
		at = (op->reg.value - ZYDIS_REGISTER_SPL + 4) * 8;
	return at == insn->reg ? NULL : "register";
}

/* What differs between the decoders, or NULL. */
static const char *compare(const struct machine *m, const u8 *code, bool *taken)
{
	struct fonda_insn insn;
	struct reference ref;
	enum emulate_result r;
	const char *why;

	memset(&insn, 0xa5, sizeof(insn));
	r = fonda_decode(&insn, code, FONDA_INSN_MAX, m->bits);
	decode_reference(m, code, FONDA_INSN_MAX, &ref);
	*taken = r == EMULATE_OK;

	if (r == EMULATE_FAULT)
		return ref.status == ZYDIS_STATUS_ILLEGAL_LOCK ? NULL : "LOCK refused";
	if (!ZYAN_SUCCESS(ref.status))
		return r == EMULATE_OK ? "taken, and is illegal" : NULL;
	if (promised(&ref) != *taken)
		return *taken ? "taken" : "not taken";
	if (!*taken)
		return NULL;
	if (ref.insn.length != insn.len)
		return "length";
	why = compare_memory(&insn, &ref);
	return why ? why : compare_other(&insn, &ref);
}

static void differential(int bits)
{
	static const u16 opcodes[] = {
		0x00, 0x01, 0x02, 0x03, 0x09, 0x13, 0x18, 0x21, 0x29, 0x31, 0x38,
		0x39, 0x3a, 0x3b, 0x63, 0x6c, 0x6d, 0x6e, 0x6f, 0x80, 0x81, 0x83,
		0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8b, 0xa0, 0xa1, 0xa2,
		0xa3, 0xa4, 0xa5, 0xaa, 0xab, 0xac, 0xad, 0xc6, 0xc7, 0xf6, 0xf7,
		0xa6, 0xa7, 0xae, 0xaf, 0xfe, 0xff, 0x145, 0x192, 0x1a3, 0x1ab, 0x1b0, 0x1b1,
		0x1b3, 0x1b6, 0x1b7, 0x1ba, 0x1bb, 0x1be, 0x1bf, 0x1c0, 0x1c1, 0x1c3, 0x1c7,
		0x110, 0x111, 0x128, 0x129, 0x12b, 0x16e, 0x16f, 0x17e, 0x17f, 0x1d6, 0x1e7,
		0x1f0, 0xc4, 0xc5,
	};
	struct machine m = machine(bits);
	struct rng r = rng_create(0x9e3779b97f4a7c15ULL + (u64)bits);
	int i, failed = 0, total = 0;
	struct reference ref;
	const char *why;
	bool taken;
	u8 code[16];

	for (i = 0; i < ROUNDS && failed < 20; i++) {
		generate(&r, code, opcodes, sizeof(opcodes) / sizeof(opcodes[0]));
		why = compare(&m, code, &taken);
		total += taken;
		if (!why)
			continue;
		failed++;
		decode_reference(&m, code, FONDA_INSN_MAX, &ref);
		print(&m, code, &ref);
		tap_diag("differs: %s", why);
	}
	tap_diag("%d of %d instructions were taken", total, i);
	EXPECT_EQ(failed, 0);
	EXPECT_GT(total, ROUNDS / 4);
}

TEST_TIMEOUT(decoder_agrees_in_64_bit_mode, 300)
{
	differential(64);
}

TEST_TIMEOUT(decoder_agrees_in_32_bit_mode, 300)
{
	differential(32);
}

TEST_TIMEOUT(decoder_agrees_in_16_bit_mode, 300)
{
	differential(16);
}

/* A shorter buffer must be told from an instruction that is not taken. */
TEST(truncated_instructions_ask_for_the_rest)
{
	static const u16 opcodes[] = { 0x89, 0x8b, 0xc7, 0x81, 0xa1, 0x1b7, 0xf7 };
	struct rng r = rng_create(42);
	struct fonda_insn insn;
	u8 code[16];
	int i, n, len;

	for (i = 0; i < 100000; i++) {
		generate(&r, code, opcodes, sizeof(opcodes) / sizeof(opcodes[0]));
		if (fonda_decode(&insn, code, FONDA_INSN_MAX, 64) != EMULATE_OK)
			continue;
		len = insn.len;
		ASSERT_EQ(fonda_decode(&insn, code, len, 64), EMULATE_OK);
		for (n = 0; n < len; n++)
			ASSERT_EQ(fonda_decode(&insn, code, n, 64), EMULATE_RETRY);
	}
}

static const struct {
	ZydisMnemonic mnemonic;
	enum fonda_exit_op op;
} exit_ops[] = {
	{ ZYDIS_MNEMONIC_INVALID, FONDA_OP_MOV_TO_CR },
	{ ZYDIS_MNEMONIC_CPUID, FONDA_OP_CPUID },
	{ ZYDIS_MNEMONIC_RDMSR, FONDA_OP_RDMSR },
	{ ZYDIS_MNEMONIC_WRMSR, FONDA_OP_WRMSR },
	{ ZYDIS_MNEMONIC_HLT, FONDA_OP_HLT },
	{ ZYDIS_MNEMONIC_WBINVD, FONDA_OP_WBINVD },
	{ ZYDIS_MNEMONIC_INVD, FONDA_OP_INVD },
	{ ZYDIS_MNEMONIC_PAUSE, FONDA_OP_PAUSE },
	{ ZYDIS_MNEMONIC_XSETBV, FONDA_OP_XSETBV },
	{ ZYDIS_MNEMONIC_LMSW, FONDA_OP_LMSW },
	{ ZYDIS_MNEMONIC_VMMCALL, FONDA_OP_VMMCALL },
	{ ZYDIS_MNEMONIC_MONITOR, FONDA_OP_MONITOR },
	{ ZYDIS_MNEMONIC_MWAIT, FONDA_OP_MWAIT },
};

static enum fonda_exit_op exit_op(const ZydisDecodedInstruction *insn)
{
	unsigned int i;

	if (insn->mnemonic == ZYDIS_MNEMONIC_MOV && insn->opcode == 0x22 &&
	    insn->opcode_map == ZYDIS_OPCODE_MAP_0F)
		return FONDA_OP_MOV_TO_CR;
	for (i = 0; i < sizeof(exit_ops) / sizeof(exit_ops[0]); i++) {
		if (exit_ops[i].mnemonic == insn->mnemonic)
			return exit_ops[i].op;
	}
	return 0;
}

static const char *compare_exit(const struct machine *m, const u8 *code, bool *taken)
{
	struct fonda_exit_insn insn;
	struct reference ref;
	enum fonda_exit_op op;
	unsigned int i;
	bool is;

	decode_reference(m, code, FONDA_INSN_MAX, &ref);
	*taken = false;
	/* The processor has refused these itself. */
	if (!ZYAN_SUCCESS(ref.status))
		return NULL;
	op = exit_op(&ref.insn);
	for (i = 0; i < sizeof(exit_ops) / sizeof(exit_ops[0]); i++) {
		is = fonda_decode_exit(&insn, code, FONDA_INSN_MAX, m->bits, exit_ops[i].op);
		if (is != (exit_ops[i].op == op))
			return "operation";
		if (!is)
			continue;
		*taken = true;
		if (insn.len != ref.insn.length)
			return "length";
		if (op == FONDA_OP_MOV_TO_CR && ZydisRegisterGetId(ref.ops[1].reg.value) != insn.rm)
			return "register";
	}
	return NULL;
}

static void differential_exit(int bits)
{
	static const u16 opcodes[] = {
		0x6c, 0x90, 0x90, 0xcc, 0xe4, 0xf4, 0xf4, 0x101, 0x101, 0x101,
		0x101, 0x108, 0x109, 0x120, 0x121, 0x122, 0x123, 0x130, 0x131,
		0x132, 0x1a2,
	};
	struct machine m = machine(bits);
	struct rng r = rng_create(0x123456789abcdefULL + (u64)bits);
	int i, failed = 0, total = 0;
	struct reference ref;
	const char *why;
	bool taken;
	u8 code[16];

	for (i = 0; i < ROUNDS && failed < 20; i++) {
		generate(&r, code, opcodes, sizeof(opcodes) / sizeof(opcodes[0]));
		why = compare_exit(&m, code, &taken);
		total += taken;
		if (!why)
			continue;
		failed++;
		decode_reference(&m, code, FONDA_INSN_MAX, &ref);
		print(&m, code, &ref);
		tap_diag("differs: %s", why);
	}
	tap_diag("%d of %d instructions were taken", total, i);
	EXPECT_EQ(failed, 0);
	EXPECT_GT(total, ROUNDS / 6);
}

TEST_TIMEOUT(exit_decoder_agrees_in_64_bit_mode, 300)
{
	differential_exit(64);
}

TEST_TIMEOUT(exit_decoder_agrees_in_32_bit_mode, 300)
{
	differential_exit(32);
}

TEST_TIMEOUT(exit_decoder_agrees_in_16_bit_mode, 300)
{
	differential_exit(16);
}
