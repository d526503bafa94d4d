// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The executor of kmod/emulate.c on a small machine: what a test against the
 * host's processor (emulate_native_test.c) cannot show. Segments and modes,
 * faults, devices that user space answers for, repetition, ports.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "emulate_forms.h"
#include "rng.h"
#include "tap.h"

/* -- a small machine -------------------------------------------------------- */

#define MEM_SIZE	0x20000		/* memory; above it are devices */
#define DEVICE		0x20000
#define UNMAPPED	0x40000		/* linear addresses from here on */

struct event {
	char kind;		/* 'r', 'w': a device; 'i', 'o': a port */
	u64 addr;
	u32 len;		/* bytes, or elements */
	u64 data;
};

struct small {
	struct emulate_ctxt c;
	unsigned long gpr[16];
	struct fonda_segment seg[FONDA_NR_SEGS];
	int bits;
	u8 mem[MEM_SIZE];
	u8 pio[4096];
	u8 vector[16 * 16];
	struct event log[64];
	int nr_events;
	bool user;		/* devices and ports are user space's */
	bool fickle;		/* each first access to memory is interrupted */
	bool interrupted;
	int port_limit;		/* elements that a port takes at once, 0: all */
	u64 next;		/* what the device reads as, counts up */
	struct { u8 vector; bool has_error; u32 error; gva_t address; } fault;
	void *answer;		/* of a read that user space makes */
	u32 answer_len;
};

static struct small *small_of(struct emulate_ctxt *c)
{
	return (struct small *)((char *)c - offsetof(struct small, c));
}

static void note(struct small *s, char kind, u64 addr, u32 len, u64 data)
{
	ASSERT_LT(s->nr_events, (int)(sizeof(s->log) / sizeof(s->log[0])));
	s->log[s->nr_events++] = (struct event){ kind, addr, len, data };
}

void fonda_emulate_segment(struct emulate_ctxt *c, enum fonda_seg seg, struct fonda_segment *s)
{
	*s = small_of(c)->seg[seg];
}

int fonda_emulate_fault(struct emulate_ctxt *c, u8 vector)
{
	struct small *s = small_of(c);

	s->fault.vector = vector;
	s->fault.has_error = c->mode != EMULATE_REAL;
	s->fault.error = 0;
	return EMULATE_FAULT;
}

int fonda_emulate_translate(struct emulate_ctxt *c, gva_t gva, u32 access, gpa_t *gpa)
{
	if (gva >= UNMAPPED) {
		struct small *s = small_of(c);

		s->fault.vector = 14;
		s->fault.has_error = true;
		s->fault.address = gva;
		s->fault.error = access & FONDA_ACCESS_WRITE ? 2 : 0;
		return EMULATE_FAULT;
	}
	*gpa = gva;
	return EMULATE_OK;
}

bool fonda_emulate_is_ram(struct emulate_ctxt *c, gpa_t gpa, bool write)
{
	return gpa < MEM_SIZE;
}

static bool interrupt(struct small *s)
{
	s->interrupted = s->fickle && !s->interrupted;
	return s->interrupted;
}

static int access_port(struct emulate_ctxt *c, bool in, u16 port, int len)
{
	struct small *s = small_of(c);
	int i, size = c->insn.op_bytes;

	EXPECT_LE(len, 4096);
	EXPECT_EQ(len, size * c->count);
	if (s->port_limit && s->port_limit < c->count)
		c->count = (u32)s->port_limit;
	note(s, in ? 'i' : 'o', port, c->count, 0);
	for (i = 0; in && i < c->count * size; i++)
		s->pio[i] = (u8)s->next++;
	return s->user ? EMULATE_NEED_USER : EMULATE_OK;
}

int fonda_emulate_access(struct emulate_ctxt *c, gpa_t gpa, void *data, int len, bool write)
{
	struct small *s = small_of(c);
	u8 *memory = gpa & EMULATE_XMM ? s->vector + (gpa & ~EMULATE_XMM) : s->mem + gpa;
	u64 val = s->next;

	if (gpa & EMULATE_PORTS) {
		EXPECT_EQ(data, s->pio);
		return access_port(c, !write, (u16)gpa, len);
	}
	EXPECT_LE((gpa & 4095) + (u64)len, 4096);
	if (gpa < MEM_SIZE || gpa & EMULATE_XMM) {
		if (interrupt(s))
			return -EINTR;
		memcpy(write ? memory : data, write ? data : memory, (size_t)len);
		return EMULATE_OK;
	}
	EXPECT_LE(len, 8);
	if (write) {
		val = 0;
		memcpy(&val, data, (size_t)len);
	} else {
		s->next++;
	}
	note(s, write ? 'w' : 'r', gpa, (u32)len, val);
	if (s->user) {
		s->answer = write ? NULL : data;
		s->answer_len = (u32)len;
		return EMULATE_NEED_USER;
	}
	if (!write)
		memcpy(data, &val, (size_t)len);
	return EMULATE_OK;
}

/* Flat segments of @bits. */
static struct small *small_create(int bits)
{
	struct small *s = calloc(1, sizeof(*s));
	int i;

	ASSERT_TRUE(s != NULL);
	s->bits = bits;
	s->next = 0x1122334455667701;
	for (i = 0; i < FONDA_NR_SEGS; i++)
		s->seg[i] = (struct fonda_segment){
			.limit = bits == 16 ? 0xffff : 0xffffffff,
			.attr = FONDA_SEG_P | FONDA_SEG_S | 3 |
				(bits == 32 ? FONDA_SEG_DB : 0) };
	s->seg[FONDA_SEG_CS].attr |= 8;
	s->c = (struct emulate_ctxt){
		.gpr = s->gpr, .rip = 0x1000,
		.rflags = X86_EFLAGS_FIXED, .va_bits = 48, .pio_data = s->pio,
		.mode = bits == 64 ? EMULATE_LONG : bits == 32 ? EMULATE_PROTECTED :
			EMULATE_REAL };
	return s;
}

/* Decode; the result of that if it is not EMULATE_OK. */
static int load(struct small *s, const char *code, int len)
{
	int r;

	r = fonda_decode(&s->c.insn, (const u8 *)code, len, s->bits);
	if (r == EMULATE_OK) {
		EXPECT_EQ(s->c.insn.len, len);
		fonda_emulate_begin(&s->c);
	}
	return r;
}

#define LOAD(s, code)	load(s, code, sizeof(code) - 1)

/* Load and execute one repetition. */
static int step(struct small *s, const char *code, int len)
{
	int r = load(s, code, len);

	return r == EMULATE_OK ? fonda_emulate(&s->c) : r;
}

#define STEP(s, code)	step(s, code, sizeof(code) - 1)

/* What user space does: answer the read with @data, and go on. */
static int answer(struct small *s, u64 data)
{
	if (s->answer)
		memcpy(s->answer, &data, s->answer_len);
	s->answer = NULL;
	return fonda_emulate(&s->c);
}

static void expect_event(const struct small *s, int i, char kind, u64 addr, u32 len)
{
	ASSERT_LT(i, s->nr_events);
	EXPECT_EQ(s->log[i].kind, kind);
	EXPECT_EQ(s->log[i].addr, addr);
	EXPECT_EQ(s->log[i].len, len);
}

static void expect_fault(const struct small *s, u8 vector, bool has_error)
{
	EXPECT_EQ(s->fault.vector, vector);
	EXPECT_EQ(s->fault.has_error, has_error);
	EXPECT_EQ(s->nr_events, 0);
}

/*
 * The forms of the table above again, without REX: in 16 and 32-bit code they
 * must do what the same operation does in 64-bit code, which was compared with
 * the processor. The operand is at an absolute address.
 */
static int put_form(u8 *code, const struct form *f, int bits, int bytes, bool ad_other,
		    u8 prefix, u8 reg, u32 addr, u32 imm)
{
	bool ad16 = (bits == 16) != ad_other && bits != 64;
	int n = 0;

	if (prefix)
		code[n++] = prefix;
	if ((bytes == 2) != (bits == 16))
		code[n++] = 0x66;
	if (ad_other)
		code[n++] = 0x67;
	if (f->opcode > 0xff)
		code[n++] = 0x0f;
	code[n++] = (u8)f->opcode;
	if (f->string)
		return n;
	if (f->moffs)
		return n + put(code + n, addr, ad16 ? 2 : bits == 64 && !ad_other ? 8 : 4);

	if (ad16) {
		code[n++] = (u8)(reg << 3 | 6);
		n += put(code + n, addr, 2);
	} else if (bits == 64) {
		code[n++] = (u8)(reg << 3 | 4);
		code[n++] = 0x25;
		n += put(code + n, addr, 4);
	} else {
		code[n++] = (u8)(reg << 3 | 5);
		n += put(code + n, addr, 4);
	}
	if (f->imm)
		n += put(code + n, imm, f->imm == 1 || !(f->opcode & 1) ? 1 : bytes);
	return n;
}

static void run_form(struct small *s, struct rng r, const u8 *code, int len)
{
	int res;
	unsigned int i;

	for (i = 0; i < 0x4000; i += 8)
		put(s->mem + i, rng_next(&r), 8);
	for (i = 0; i < 16; i++)
		s->gpr[i] = (u32)rng_next(&r);
	s->gpr[CX] &= 7;
	s->gpr[SI] = 0x1800 + (s->gpr[SI] & 0xff);
	s->gpr[DI] = 0x2800 + (s->gpr[DI] & 0xff);
	s->c.rflags = X86_EFLAGS_FIXED | (rng_next(&r) & (STATUS | X86_EFLAGS_DF));
	res = fonda_decode(&s->c.insn, code, len, s->bits);
	if (res == EMULATE_OK) {
		ASSERT_EQ(s->c.insn.len, len);
		fonda_emulate_begin(&s->c);
		do
			res = fonda_emulate(&s->c);
		while (res == EMULATE_AGAIN);
	}
	EXPECT_EQ(res, EMULATE_DONE);
}

TEST(all_forms_mean_the_same_in_16_and_32_bit_code)
{
	static const u8 prefixes[] = { 0, 0xf0, 0xf3, 0xf2, 0x26, 0x64 };
	struct rng r = rng_create(77);
	unsigned int f, v, i, ran = 0;

	for (f = 0; f < sizeof(forms) / sizeof(forms[0]); f++) {
		const struct form *form = &forms[f];

		/*
		 * ARPL there; what has one size; addresses that wrap.
		 */
		if (form->opcode == 0x63 || form->vector || form->bits)
			continue;
		/* Each prefix with each mode, operand size and address size. */
		for (v = 0; v < 16 * sizeof(prefixes); v++) {
			struct small *a = small_create(v & 1 ? 32 : 16), *b = small_create(64);
			int bytes = v & 2 ? 2 : 4, len;
			u8 prefix = prefixes[v / 16], reg = (u8)rng_below(&r, 8), code[32];
			u32 imm = (u32)rng_next(&r), addr = 0x2000 + rng_below(&r, 0x1000);

			if (prefix == 0xf0 && !form->lock)
				prefix = 0;
			while (form->groups && !(form->groups >> reg & 1))
				reg = (u8)rng_below(&r, 8);
			rng_next(&r);
			len = put_form(code, form, a->bits, bytes, v & 4, prefix, reg, addr, imm);
			run_form(a, r, code, len);
			len = put_form(code, form, 64, bytes, v & 8, prefix, reg, addr, imm);
			run_form(b, r, code, len);

			for (i = 0; i < 16; i++)
				EXPECT_EQ(a->gpr[i], b->gpr[i]);
			EXPECT_EQ(a->c.rflags, b->c.rflags);
			EXPECT_MEMEQ(a->mem, b->mem, 0x4000);
			ran++;
			free(a);
			free(b);
		}
	}
	tap_diag("%u pairs", ran);
}

/* -- addresses, segments, faults -------------------------------------------- */

TEST(addresses_wrap_at_the_address_size)
{
	struct small *s = small_create(16);

	/* mov al, [bx+si+0x10], then the same in 32 bits, in 64 with 67 */
	s->gpr[BX] = 0x1fff0;
	s->gpr[SI] = 0x1020;
	s->mem[0x1020] = 0x5a;
	EXPECT_EQ(STEP(s, "\x8a\x40\x10"), EMULATE_DONE);
	EXPECT_EQ(s->gpr[AX], 0x5a);
	free(s);

	s = small_create(32);
	s->gpr[BX] = 0xfffffff0;
	s->gpr[SI] = 0x1020;
	s->mem[0x1020] = 0x5b;
	EXPECT_EQ(STEP(s, "\x8a\x44\x33\x10"), EMULATE_DONE);
	EXPECT_EQ(s->gpr[AX], 0x5b);
	free(s);

	s = small_create(64);
	s->gpr[BX] = 0xabcd0000fffffff0;
	s->gpr[SI] = 0x1020;
	s->mem[0x1020] = 0x5c;
	EXPECT_EQ(STEP(s, "\x67\x8a\x44\x33\x10"), EMULATE_DONE);
	EXPECT_EQ(s->gpr[AX], 0x5c);
	free(s);
}

TEST(segment_bases_are_added_and_ignored_in_64_bit_code)
{
	struct small *s = small_create(64);

	s->seg[FONDA_SEG_DS].base = 0x5000;
	s->seg[FONDA_SEG_ES].base = 0x5000;
	s->seg[FONDA_SEG_GS].base = 0x3000;
	s->mem[0x1100] = 1;
	s->mem[0x4100] = 2;
	s->gpr[BX] = 0x1100;
	EXPECT_EQ(STEP(s, "\x8a\x03"), EMULATE_DONE);
	EXPECT_EQ(s->gpr[AX], 1);
	EXPECT_EQ(STEP(s, "\x26\x8a\x03"), EMULATE_DONE);
	EXPECT_EQ(s->gpr[AX], 1);
	EXPECT_EQ(STEP(s, "\x65\x8a\x03"), EMULATE_DONE);
	EXPECT_EQ(s->gpr[AX], 2);
	free(s);

	s = small_create(32);
	s->seg[FONDA_SEG_SS].base = 0x3000;
	s->gpr[BP] = 0x1100;
	s->mem[0x4100] = 3;
	EXPECT_EQ(STEP(s, "\x8a\x45\x00"), EMULATE_DONE);	/* mov al, [ebp] */
	EXPECT_EQ(s->gpr[AX], 3);
	free(s);
}

TEST(limit_violations_fault)
{
	struct small *s = small_create(32);

	s->seg[FONDA_SEG_DS].limit = 0x1fff;
	s->seg[FONDA_SEG_SS].limit = 0x1fff;
	s->gpr[BX] = s->gpr[BP] = 0x1ffc;
	EXPECT_EQ(STEP(s, "\x8b\x03"), EMULATE_DONE);		/* mov eax, [ebx] */
	s->gpr[BX] = s->gpr[BP] = 0x1ffd;
	EXPECT_EQ(STEP(s, "\x8b\x03"), EMULATE_FAULT);
	expect_fault(s, 13, true);
	EXPECT_EQ(STEP(s, "\x8b\x45\x00"), EMULATE_FAULT);	/* [ebp] */
	expect_fault(s, 12, true);
	/* Expand-down: the other side of the limit, up to 4 GiB or 64 KiB. */
	s->seg[FONDA_SEG_DS].attr |= 4;
	s->gpr[BX] = 0x1fff;
	EXPECT_EQ(STEP(s, "\x8a\x03"), EMULATE_FAULT);
	s->gpr[BX] = 0x2000;
	EXPECT_EQ(STEP(s, "\x8a\x03"), EMULATE_DONE);
	s->seg[FONDA_SEG_DS].attr &= ~FONDA_SEG_DB;
	s->gpr[BX] = 0xfffd;
	EXPECT_EQ(STEP(s, "\x8b\x03"), EMULATE_FAULT);
	free(s);

	s = small_create(16);
	s->gpr[BX] = 0xffff;
	EXPECT_EQ(STEP(s, "\x8b\x07"), EMULATE_FAULT);		/* mov ax, [bx] */
	expect_fault(s, 13, false);
	s->c.mode = EMULATE_V86;
	EXPECT_EQ(STEP(s, "\x8b\x07"), EMULATE_FAULT);
	expect_fault(s, 13, true);
	free(s);
}

TEST(segment_types_are_checked_in_protected_mode)
{
	struct small *s = small_create(32);
	u16 *attr = &s->seg[FONDA_SEG_DS].attr;

	s->gpr[BX] = 0x1000;
	*attr = FONDA_SEG_P | FONDA_SEG_S | 1;		/* read-only data */
	EXPECT_EQ(STEP(s, "\x8b\x03"), EMULATE_DONE);
	EXPECT_EQ(STEP(s, "\x89\x03"), EMULATE_FAULT);
	expect_fault(s, 13, true);
	EXPECT_EQ(STEP(s, "\x01\x03"), EMULATE_FAULT);
	*attr = FONDA_SEG_P | FONDA_SEG_S | 0xb;	/* readable code */
	EXPECT_EQ(STEP(s, "\x8b\x03"), EMULATE_DONE);
	EXPECT_EQ(STEP(s, "\x89\x03"), EMULATE_FAULT);
	*attr = FONDA_SEG_P | FONDA_SEG_S | 0x9;	/* code, execute only */
	EXPECT_EQ(STEP(s, "\x8b\x03"), EMULATE_FAULT);
	*attr = FONDA_SEG_S | 3;			/* a null selector */
	EXPECT_EQ(STEP(s, "\x8b\x03"), EMULATE_FAULT);
	s->c.mode = EMULATE_REAL;
	s->bits = 32;
	EXPECT_EQ(STEP(s, "\x89\x03"), EMULATE_DONE);
	free(s);
}

TEST(addresses_that_are_not_canonical_fault)
{
	struct small *s = small_create(64);

	s->gpr[BX] = s->gpr[BP] = 0x800000000000;
	EXPECT_EQ(STEP(s, "\x8b\x03"), EMULATE_FAULT);
	expect_fault(s, 13, true);
	EXPECT_EQ(STEP(s, "\x8b\x45\x00"), EMULATE_FAULT);
	expect_fault(s, 12, true);
	/* The last byte counts too. */
	s->gpr[BX] = 0x7ffffffffffd;
	EXPECT_EQ(STEP(s, "\x8b\x03"), EMULATE_FAULT);
	expect_fault(s, 13, true);
	/* Canonical, with five levels: on to the page tables. */
	s->c.va_bits = 57;
	EXPECT_EQ(STEP(s, "\x8b\x03"), EMULATE_FAULT);
	expect_fault(s, 14, true);
	free(s);
}

TEST(lock_is_legal_only_on_read_modify_write)
{
	struct small *s = small_create(64);

	EXPECT_EQ(LOAD(s, "\xf0\x89\x03"), EMULATE_FAULT);	/* mov */
	EXPECT_EQ(LOAD(s, "\xf0\x39\x03"), EMULATE_FAULT);	/* cmp */
	EXPECT_EQ(LOAD(s, "\xf0\x03\x03"), EMULATE_FAULT);	/* add r, m */
	EXPECT_EQ(LOAD(s, "\xf0\x85\x03"), EMULATE_FAULT);	/* test */
	EXPECT_EQ(LOAD(s, "\xf0\xa4"), EMULATE_FAULT);		/* movsb */
	EXPECT_EQ(LOAD(s, "\xf0\x01\x03"), EMULATE_OK);
	EXPECT_EQ(LOAD(s, "\xf0\x87\x03"), EMULATE_OK);
	EXPECT_EQ(LOAD(s, "\xf0\x80\x0b\x01"), EMULATE_OK);	/* or */
	EXPECT_EQ(LOAD(s, "\xf0\x80\x3b\x01"), EMULATE_FAULT);	/* cmp */
	free(s);
}

TEST(other_instructions_are_refused)
{
	struct small *s = small_create(64);

	EXPECT_EQ(LOAD(s, "\xff\x33"), EMULATE_UNSUPPORTED);		/* push */
	EXPECT_EQ(LOAD(s, "\x8f\x03"), EMULATE_UNSUPPORTED);		/* pop */
	EXPECT_EQ(LOAD(s, "\x0f\x6f\x03"), EMULATE_UNSUPPORTED);	/* movq, MMX */
	EXPECT_EQ(LOAD(s, "\x0f\x58\x03"), EMULATE_UNSUPPORTED);	/* addps */
	EXPECT_EQ(LOAD(s, "\xc5\xf8\x11\x03"), EMULATE_UNSUPPORTED);	/* vmovups */
	EXPECT_EQ(LOAD(s, "\x89\xc3"), EMULATE_UNSUPPORTED);		/* no memory */
	EXPECT_EQ(LOAD(s, "\xf7\x33"), EMULATE_UNSUPPORTED);		/* div */
	EXPECT_EQ(LOAD(s, "\xff\x13"), EMULATE_UNSUPPORTED);		/* call */
	EXPECT_EQ(LOAD(s, "\x0f\xba\x03\x01"), EMULATE_UNSUPPORTED);
	EXPECT_EQ(LOAD(s, "\x0f\xc7\x0b"), EMULATE_UNSUPPORTED);		/* cmpxchg8b */
	EXPECT_EQ(LOAD(s, "\xf3\x0f\x10\x03"), EMULATE_UNSUPPORTED);	/* movss */
	EXPECT_EQ(LOAD(s, "\xf2\x0f\x11\x03"), EMULATE_UNSUPPORTED);	/* movsd */
	EXPECT_EQ(LOAD(s, "\x0f\xc3\x03"), EMULATE_UNSUPPORTED);		/* movnti */
	EXPECT_EQ(LOAD(s, "\x0f\xb1\x03"), EMULATE_UNSUPPORTED);		/* cmpxchg */
	EXPECT_EQ(LOAD(s, "\x0f\xc1\x03"), EMULATE_UNSUPPORTED);		/* xadd */
	EXPECT_EQ(LOAD(s, "\x0f\x44\x03"), EMULATE_UNSUPPORTED);		/* cmovz */
	EXPECT_EQ(LOAD(s, "\x0f\x94\x03"), EMULATE_UNSUPPORTED);		/* setz */
	EXPECT_EQ(LOAD(s, "\x0f\x38\xf0\x03"), EMULATE_UNSUPPORTED);	/* movbe */
	s->bits = 32;
	EXPECT_EQ(LOAD(s, "\x63\x03"), EMULATE_UNSUPPORTED);		/* arpl */
	EXPECT_EQ(LOAD(s, "\xc5\x03"), EMULATE_UNSUPPORTED);		/* lds */
	free(s);
}

/* -- devices ---------------------------------------------------------------- */

TEST(a_read_that_user_space_answers_is_made_once)
{
	struct small *s = small_create(64);

	s->user = true;
	s->gpr[BX] = DEVICE;
	s->gpr[AX] = 0xffffffffffffffff;
	EXPECT_EQ(STEP(s, "\x8b\x03"), EMULATE_NEED_USER);
	EXPECT_EQ(s->gpr[AX], 0xffffffffffffffff);
	EXPECT_EQ(answer(s, 0xcafe0001), EMULATE_DONE);
	EXPECT_EQ(s->gpr[AX], 0xcafe0001);
	EXPECT_EQ(s->nr_events, 1);
	expect_event(s, 0, 'r', DEVICE, 4);
	free(s);
}

TEST(a_write_to_user_space_is_made_once_and_eight_bytes_are_one_access)
{
	struct small *s = small_create(64);

	s->user = true;
	s->gpr[BX] = DEVICE + 0xff8;
	s->gpr[AX] = 0x0123456789abcdef;
	EXPECT_EQ(STEP(s, "\x48\x89\x03"), EMULATE_NEED_USER);
	EXPECT_EQ(answer(s, 0), EMULATE_DONE);
	EXPECT_EQ(s->nr_events, 1);
	expect_event(s, 0, 'w', DEVICE + 0xff8, 8);
	EXPECT_EQ(s->log[0].data, 0x0123456789abcdef);
	free(s);
}

TEST(accesses_across_pages_are_split)
{
	struct small *s = small_create(64);

	s->user = true;
	s->gpr[BX] = DEVICE + 0xffd;
	EXPECT_EQ(STEP(s, "\x8b\x03"), EMULATE_NEED_USER);
	EXPECT_EQ(answer(s, 0x332211), EMULATE_NEED_USER);
	EXPECT_EQ(answer(s, 0x44), EMULATE_DONE);
	EXPECT_EQ(s->gpr[AX], 0x44332211);
	EXPECT_EQ(s->nr_events, 2);
	expect_event(s, 0, 'r', DEVICE + 0xffd, 3);
	expect_event(s, 1, 'r', DEVICE + 0x1000, 1);

	s->nr_events = 0;
	EXPECT_EQ(STEP(s, "\x89\x03"), EMULATE_NEED_USER);
	EXPECT_EQ(answer(s, 0), EMULATE_NEED_USER);
	EXPECT_EQ(answer(s, 0), EMULATE_DONE);
	EXPECT_EQ(s->log[0].data, 0x332211);
	EXPECT_EQ(s->log[1].data, 0x44);
	EXPECT_EQ(s->nr_events, 2);

	/* From memory into a device, and a second page that is not there. */
	s->user = false;
	s->nr_events = 0;
	s->gpr[BX] = DEVICE - 2;
	s->gpr[AX] = 0xddccbbaa;
	EXPECT_EQ(STEP(s, "\x89\x03"), EMULATE_DONE);
	EXPECT_EQ(s->mem[DEVICE - 1], 0xbb);
	EXPECT_EQ(s->log[0].data, 0xddcc);
	s->nr_events = 0;
	s->gpr[BX] = UNMAPPED - 2;
	EXPECT_EQ(STEP(s, "\x89\x03"), EMULATE_FAULT);
	expect_fault(s, 14, true);
	EXPECT_EQ(s->fault.address, UNMAPPED);
	free(s);
}

TEST(read_modify_write_asks_twice_and_commits_at_the_end)
{
	struct small *s = small_create(64);

	s->user = true;
	s->gpr[BX] = DEVICE;
	s->gpr[CX] = 1;
	EXPECT_EQ(STEP(s, "\x01\x0b"), EMULATE_NEED_USER);	/* add [rbx], ecx */
	EXPECT_EQ(answer(s, 0xffffffff), EMULATE_NEED_USER);
	EXPECT_EQ(s->gpr[CX], 1);
	EXPECT_EQ(s->c.rflags, X86_EFLAGS_FIXED);
	EXPECT_EQ(answer(s, 0), EMULATE_DONE);
	EXPECT_EQ(s->gpr[CX], 1);
	EXPECT_EQ(s->log[1].data, 0);
	EXPECT_TRUE(s->c.rflags & X86_EFLAGS_ZF);
	EXPECT_TRUE(s->c.rflags & X86_EFLAGS_CF);
	EXPECT_EQ(s->nr_events, 2);
	free(s);
}

TEST(an_access_that_is_interrupted_is_repeated_alone)
{
	struct small *s = small_create(64);

	/* movsb from a device to memory: the device is read once. */
	s->fickle = true;
	s->gpr[SI] = DEVICE;
	s->gpr[DI] = 0x2000;
	EXPECT_EQ(STEP(s, "\xa4"), -EINTR);
	EXPECT_EQ(fonda_emulate(&s->c), EMULATE_DONE);
	EXPECT_EQ(s->nr_events, 1);
	EXPECT_EQ(s->mem[0x2000], 0x01);
	EXPECT_EQ(s->gpr[SI], DEVICE + 1);
	free(s);
}

/* -- strings ---------------------------------------------------------------- */

static int run_all(struct small *s, int *repetitions)
{
	int r;

	*repetitions = 0;
	do {
		++*repetitions;
		r = fonda_emulate(&s->c);
	} while (r == EMULATE_AGAIN);
	return r;
}

TEST(repetition_is_by_one_and_resumes)
{
	struct small *s = small_create(64);
	int n;

	s->gpr[CX] = 5;
	s->gpr[DI] = DEVICE;
	s->gpr[AX] = 0x1234;
	ASSERT_EQ(LOAD(s, "\xf3\x66\xab"), EMULATE_OK);		/* rep stosw */
	EXPECT_EQ(fonda_emulate(&s->c), EMULATE_AGAIN);
	EXPECT_EQ(s->gpr[CX], 4);
	EXPECT_EQ(s->gpr[DI], DEVICE + 2);
	/* The guest took an interrupt and came back to it. */
	ASSERT_EQ(LOAD(s, "\xf3\x66\xab"), EMULATE_OK);
	EXPECT_EQ(run_all(s, &n), EMULATE_DONE);
	EXPECT_EQ(n, 4);
	EXPECT_EQ(s->gpr[CX], 0);
	EXPECT_EQ(s->nr_events, 5);
	expect_event(s, 4, 'w', DEVICE + 8, 2);

	/* Nothing to do: no access, no fault. */
	s->gpr[DI] = UNMAPPED;
	EXPECT_EQ(STEP(s, "\xf3\x66\xab"), EMULATE_DONE);
	EXPECT_EQ(s->nr_events, 5);
	free(s);
}

TEST(string_registers_have_the_address_size)
{
	struct small *s = small_create(64);
	int n;

	/* 67: the halves above are not used and get cleared. */
	s->gpr[CX] = 0xdead00000002;
	s->gpr[SI] = 0xdead00002000;
	s->gpr[DI] = 0xdead00002800;
	s->mem[0x2000] = 7;
	ASSERT_EQ(LOAD(s, "\x67\xf3\xa4"), EMULATE_OK);
	EXPECT_EQ(run_all(s, &n), EMULATE_DONE);
	EXPECT_EQ(s->gpr[CX], 0);
	EXPECT_EQ(s->gpr[SI], 0x2002);
	EXPECT_EQ(s->gpr[DI], 0x2802);
	EXPECT_EQ(s->mem[0x2800], 7);
	free(s);

	/* 16 bits: they wrap, and the upper halves stay. */
	s = small_create(16);
	s->gpr[CX] = 0xabcd0003;
	s->gpr[DI] = 0x5555fffe;
	s->gpr[AX] = 0x77;
	ASSERT_EQ(LOAD(s, "\xf2\xaa"), EMULATE_OK);		/* repne stosb */
	EXPECT_EQ(run_all(s, &n), EMULATE_DONE);
	EXPECT_EQ(n, 3);
	EXPECT_EQ(s->gpr[CX], 0xabcd0000);
	EXPECT_EQ(s->gpr[DI], 0x55550001);
	EXPECT_EQ(s->mem[0xffff], 0x77);
	EXPECT_EQ(s->mem[0], 0x77);
	free(s);
}

TEST(movs_between_devices_reads_then_writes)
{
	struct small *s = small_create(16);
	int i;

	/* The scrolling of a text screen: 32-bit, user space answers. */
	s->user = true;
	s->seg[FONDA_SEG_DS].base = DEVICE;
	s->seg[FONDA_SEG_ES].base = DEVICE + 0x100;
	s->gpr[CX] = 2;
	ASSERT_EQ(LOAD(s, "\xf3\x66\xa5"), EMULATE_OK);
	EXPECT_EQ(fonda_emulate(&s->c), EMULATE_NEED_USER);
	EXPECT_EQ(answer(s, 0xaaaaaaaa), EMULATE_NEED_USER);
	EXPECT_EQ(answer(s, 0), EMULATE_AGAIN);
	EXPECT_EQ(fonda_emulate(&s->c), EMULATE_NEED_USER);
	EXPECT_EQ(answer(s, 0xbbbbbbbb), EMULATE_NEED_USER);
	EXPECT_EQ(answer(s, 0), EMULATE_DONE);
	ASSERT_EQ(s->nr_events, 4);
	for (i = 0; i < 4; i++)
		expect_event(s, i, i & 1 ? 'w' : 'r', DEVICE + (i & 1) * 0x100 + (i / 2) * 4, 4);
	EXPECT_EQ(s->log[3].data, 0xbbbbbbbb);
	free(s);
}

TEST(a_fault_comes_before_any_effect)
{
	struct small *s = small_create(64);

	s->gpr[SI] = DEVICE;
	s->gpr[DI] = UNMAPPED;
	s->gpr[CX] = 3;
	EXPECT_EQ(STEP(s, "\xf3\xa4"), EMULATE_FAULT);		/* rep movsb */
	expect_fault(s, 14, true);
	EXPECT_EQ(s->fault.error, 2);
	EXPECT_EQ(STEP(s, "\xf3\x6c"), EMULATE_FAULT);		/* rep insb */
	expect_fault(s, 14, true);
	s->gpr[SI] = UNMAPPED;
	EXPECT_EQ(STEP(s, "\xf3\x6e"), EMULATE_FAULT);		/* rep outsb */
	expect_fault(s, 14, true);
	EXPECT_EQ(s->fault.error, 0);
	EXPECT_EQ(s->gpr[CX], 3);
	free(s);
}

/* -- ports ------------------------------------------------------------------ */

TEST(string_input_is_asked_for_by_the_page)
{
	struct small *s = small_create(64);
	int i, n;

	s->gpr[DX] = 0x1f0;
	s->gpr[CX] = 3000;
	s->gpr[DI] = 0x2f00;
	ASSERT_EQ(LOAD(s, "\xf3\x66\x6d"), EMULATE_OK);		/* rep insw */
	EXPECT_EQ(run_all(s, &n), EMULATE_DONE);
	ASSERT_EQ(s->nr_events, 3);
	expect_event(s, 0, 'i', 0x1f0, 0x80);
	expect_event(s, 1, 'i', 0x1f0, 0x800);
	expect_event(s, 2, 'i', 0x1f0, 3000 - 0x880);
	EXPECT_EQ(s->gpr[CX], 0);
	EXPECT_EQ(s->gpr[DI], 0x2f00 + 6000);
	for (i = 0; i < 6000; i++)
		ASSERT_EQ(s->mem[0x2f00 + i], (u8)(1 + i));
	free(s);
}

TEST(string_output_waits_for_user_space)
{
	struct small *s = small_create(64);
	int i;

	s->user = true;
	s->gpr[DX] = 0x402;
	s->gpr[CX] = 10;
	s->gpr[SI] = 0x2ffc;
	for (i = 0; i < 10; i++)
		s->mem[0x2ffc + i] = (u8)('a' + i);
	ASSERT_EQ(LOAD(s, "\xf3\x6e"), EMULATE_OK);		/* rep outsb */
	EXPECT_EQ(fonda_emulate(&s->c), EMULATE_NEED_USER);
	EXPECT_MEMEQ(s->pio, "abcd", 4);
	EXPECT_EQ(s->gpr[CX], 10);
	EXPECT_EQ(answer(s, 0), EMULATE_AGAIN);
	EXPECT_EQ(s->gpr[CX], 6);
	EXPECT_EQ(fonda_emulate(&s->c), EMULATE_NEED_USER);
	EXPECT_MEMEQ(s->pio, "efghij", 6);
	EXPECT_EQ(answer(s, 0), EMULATE_DONE);
	EXPECT_EQ(s->nr_events, 2);
	free(s);
}

TEST(a_port_may_take_fewer)
{
	struct small *s = small_create(64);
	int n;

	s->port_limit = 3;
	s->gpr[CX] = 7;
	s->gpr[DI] = 0x2000;
	memset(s->mem + 0x2000, 0xee, 16);
	ASSERT_EQ(LOAD(s, "\xf3\x6c"), EMULATE_OK);
	EXPECT_EQ(fonda_emulate(&s->c), EMULATE_AGAIN);
	EXPECT_EQ(s->gpr[CX], 4);
	EXPECT_EQ(s->mem[0x2002], 3);
	EXPECT_EQ(s->mem[0x2003], 0xee);
	EXPECT_EQ(run_all(s, &n), EMULATE_DONE);
	EXPECT_EQ(n, 2);
	EXPECT_EQ(s->mem[0x2006], 7);
	EXPECT_EQ(s->mem[0x2007], 0xee);
	free(s);
}

/* Where a batch cannot be had, elements go one by one. */
TEST(strings_of_ports_are_single_where_they_must_be)
{
	static const struct {
		unsigned long flags, di;
		u32 limit;
		int requests;
	} cases[] = {
		{ X86_EFLAGS_DF, 0x2100, 0xffffffff, 4 },
		{ X86_EFLAGS_TF, 0x2000, 0xffffffff, 4 },
		{ 0, DEVICE, 0xffffffff, 4 },
		{ 0, 0x2ffe, 0xffffffff, 2 },	/* one across pages, three together */
		{ 0, 0x2000, 0x2007, 3 },	/* the third faults */
	};
	unsigned int i;
	int n;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct small *s = small_create(32);
		int k, requests = 0;

		s->c.rflags |= cases[i].flags;
		s->seg[FONDA_SEG_ES].limit = cases[i].limit;
		s->gpr[CX] = 4;
		s->gpr[DI] = cases[i].di;
		ASSERT_EQ(LOAD(s, "\xf3\x6d"), EMULATE_OK);	/* rep insd */
		if (cases[i].limit == 0xffffffff) {
			EXPECT_EQ(run_all(s, &n), EMULATE_DONE);
			EXPECT_EQ(s->gpr[CX], 0);
		} else {
			/* Not before its turn. */
			EXPECT_EQ(fonda_emulate(&s->c), EMULATE_AGAIN);
			EXPECT_EQ(s->fault.vector, 0);
			EXPECT_EQ(run_all(s, &n), EMULATE_FAULT);
			EXPECT_EQ(s->fault.vector, 13);
			EXPECT_EQ(s->gpr[CX], 2);
			n++;
			EXPECT_EQ(n, cases[i].requests);
			requests = 1;
		}
		for (k = 0; k < s->nr_events; k++)
			requests += s->log[k].kind == 'i';
		EXPECT_EQ(requests, cases[i].requests);
		free(s);
	}
}

TEST(string_operands_do_not_wrap_in_a_batch)
{
	struct small *s = small_create(16);
	int n;

	/*
	 * Address size 16 in a segment of 4 GiB: the pointer wraps, in the
	 * middle of a page, where no limit stops it.
	 */
	s->seg[FONDA_SEG_ES].limit = 0xffffffff;
	s->seg[FONDA_SEG_ES].base = 0x800;
	s->gpr[CX] = 4;
	s->gpr[DI] = 0xfffe;
	memset(s->mem + 0x10800, 0xee, 4);
	ASSERT_EQ(LOAD(s, "\xf3\x6c"), EMULATE_OK);
	EXPECT_EQ(run_all(s, &n), EMULATE_DONE);
	EXPECT_EQ(s->mem[0x107ff], 2);
	EXPECT_EQ(s->mem[0x800], 3);
	EXPECT_EQ(s->mem[0x10800], 0xee);
	EXPECT_EQ(s->gpr[DI] & 0xffff, 2);
	free(s);
}

/* -- anything --------------------------------------------------------------- */

/*
 * Random bytes in random machines: no step may do what the sanitizers or the
 * checks of the small machine see, and registers change with success only.
 */
TEST_TIMEOUT(nothing_bad_happens_on_random_code, 120)
{
	struct small *s = small_create(64), *before = malloc(sizeof(*s));
	struct rng r = rng_create(4711);
	int i, k, taken = 0;

	ASSERT_TRUE(before != NULL);
	for (i = 0; i < 300000; i++) {
		static const int modes[] = { 16, 32, 64 };
		int res;
		u8 code[16];

		for (k = 0; k < 16; k++)
			code[k] = (u8)rng_next(&r);
		if (rng_below(&r, 2))
			code[rng_below(&r, 3)] = (u8)(0x80 + rng_below(&r, 0x30));
		s->bits = modes[rng_below(&r, 3)];
		s->c.mode = s->bits == 64 ? EMULATE_LONG : rng_below(&r, 3);
		s->c.check_alignment = rng_below(&r, 2);
		s->user = rng_below(&r, 2);
		s->fickle = rng_below(&r, 2);
		s->port_limit = (int)rng_below(&r, 3);
		for (k = 0; k < 16; k++)
			s->gpr[k] = rng_next(&r) >> (64 - rng_below(&r, 20) - 1);
		for (k = 0; k < FONDA_NR_SEGS; k++) {
			s->seg[k].base = rng_next(&r) & 0x1ffff;
			s->seg[k].limit = (u32)rng_next(&r) >> rng_below(&r, 32);
			s->seg[k].attr = (u16)rng_next(&r) | FONDA_SEG_P;
		}
		s->c.rflags = X86_EFLAGS_FIXED | (rng_next(&r) & 0x3fd5);
		s->nr_events = 0;
		s->answer = NULL;
		if (fonda_decode(&s->c.insn, code, (int)rng_below(&r, 16), s->bits) != EMULATE_OK)
			continue;

		taken++;
		fonda_emulate_begin(&s->c);
		memcpy(before->gpr, s->gpr, sizeof(s->gpr));
		before->c.rflags = s->c.rflags;
		for (k = 0; k < 40; k++) {
			res = fonda_emulate(&s->c);
			if (res == EMULATE_NEED_USER) {
				if (s->answer)
					memset(s->answer, 0x5a, s->answer_len);
				s->answer = NULL;
			}
			if (res == EMULATE_AGAIN || res == EMULATE_DONE) {
				memcpy(before->gpr, s->gpr, sizeof(s->gpr));
				before->c.rflags = s->c.rflags;
				s->nr_events = 0;
			}
			if (memcmp(before->gpr, s->gpr, sizeof(s->gpr)) ||
			    before->c.rflags != s->c.rflags)
				FAIL("registers changed, result %d", res);
			if (res != EMULATE_NEED_USER && res != EMULATE_AGAIN &&
			    res != -EINTR)
				break;
		}
		ASSERT_TRUE(res != EMULATE_OK && res != EMULATE_RETRY);
	}
	tap_diag("%d instructions were executed", taken);
	EXPECT_GT(taken, 20000);
	free(before);
	free(s);
}
