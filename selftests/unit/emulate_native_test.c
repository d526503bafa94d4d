// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The executor of kmod/emulate.c against the processor of the host: random
 * instructions of the supported set run natively and through the emulator and
 * must leave the same registers, flags and memory.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "emulate_forms.h"
#include "rng.h"
#include "tap.h"

/* -- the host's processor --------------------------------------------------- */

struct native_regs {
	unsigned long gpr[16];		/* SP is not loaded */
	unsigned long rflags;
	u8 vector[16][16];
};

/* Load all registers, call the code at native_code, and store them again. */
void native_run(struct native_regs *regs);
void *native_code;

__asm__(
	".text\n"
	".macro vectors to_regs\n"
	".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n"
	".if \\to_regs\n"
	"	movdqu 136 + 16 * \\n(%rdi), %xmm\\n\n"
	".else\n"
	"	movdqu %xmm\\n, 136 + 16 * \\n(%rdi)\n"
	".endif\n"
	".endr\n"
	".endm\n"
	"native_run:\n"
	"	push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
	"	push %rdi\n"
	"	vectors 1\n"
	"	push 128(%rdi); popfq\n"
	"	mov 0(%rdi), %rax; mov 8(%rdi), %rcx; mov 16(%rdi), %rdx\n"
	"	mov 24(%rdi), %rbx; mov 40(%rdi), %rbp; mov 48(%rdi), %rsi\n"
	"	mov 64(%rdi), %r8; mov 72(%rdi), %r9; mov 80(%rdi), %r10\n"
	"	mov 88(%rdi), %r11; mov 96(%rdi), %r12; mov 104(%rdi), %r13\n"
	"	mov 112(%rdi), %r14; mov 120(%rdi), %r15; mov 56(%rdi), %rdi\n"
	"	call *native_code(%rip)\n"
	"	push %rdi\n"
	"	pushfq\n"
	"	mov 16(%rsp), %rdi\n"
	"	pop 128(%rdi)\n"
	"	pop 56(%rdi)\n"
	"	mov %rax, 0(%rdi); mov %rcx, 8(%rdi); mov %rdx, 16(%rdi)\n"
	"	mov %rbx, 24(%rdi); mov %rbp, 40(%rdi); mov %rsi, 48(%rdi)\n"
	"	mov %r8, 64(%rdi); mov %r9, 72(%rdi); mov %r10, 80(%rdi)\n"
	"	mov %r11, 88(%rdi); mov %r12, 96(%rdi); mov %r13, 104(%rdi)\n"
	"	mov %r14, 112(%rdi); mov %r15, 120(%rdi)\n"
	"	cld\n"
	"	pop %rdi\n"
	"	vectors 0\n"
	"	pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
	"	ret\n");

/* -- a machine whose linear and physical addresses are the host's ----------- */

void fonda_emulate_segment(struct emulate_ctxt *c, enum fonda_seg seg, struct fonda_segment *s)
{
	*s = (struct fonda_segment){ 0 };
}

int fonda_emulate_fault(struct emulate_ctxt *c, u8 vector)
{
	return EMULATE_FAULT;
}

int fonda_emulate_translate(struct emulate_ctxt *c, gva_t gva, u32 access, gpa_t *gpa)
{
	*gpa = gva;
	return EMULATE_OK;
}

bool fonda_emulate_is_ram(struct emulate_ctxt *c, gpa_t gpa, bool write)
{
	return true;
}

int fonda_emulate_access(struct emulate_ctxt *c, gpa_t gpa, void *data, int len, bool write)
{
	struct native_regs *regs = (struct native_regs *)c->gpr;
	void *host = (void *)(uintptr_t)gpa;

	if (gpa & EMULATE_PORTS)
		return EMULATE_UNSUPPORTED;
	if (gpa & EMULATE_XMM)
		host = regs->vector[(gpa & ~EMULATE_XMM) / 16] + gpa % 16;
	memcpy(write ? host : data, write ? data : host, (size_t)len);
	return EMULATE_OK;
}

/* Low enough that instructions with 32-bit addresses reach it. */
struct arena {
	u8 code[4096];
	u8 data[3 * 4096];
};

static struct arena *arena_create(void)
{
	struct arena *a = mmap(NULL, sizeof(*a), PROT_READ | PROT_WRITE | PROT_EXEC,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);

	if (a == MAP_FAILED)
		SKIP("no memory that is writable and executable");
	native_code = a->code;
	return a;
}

struct native_case {
	const struct form *form;
	u8 code[16];
	int len;
	struct native_regs regs;
};

/*
 * A ModRM operand that points to @target, give or take what the index adds.
 */
static int put_modrm(struct rng *r, struct native_case *t, int n, u8 reg, u64 target,
		     u8 rex, bool ad32)
{
	int base = (int)rng_below(r, 8), index = (int)rng_below(r, 8), mod = (int)rng_below(r, 3);
	int full_base = base | (rex & 1) << 3, full_index = index | (rex & 2) << 2;
	unsigned long *gpr = t->regs.gpr;
	s64 disp = 0;
	bool sib;

	/* The stack pointer is not ours to choose. */
	if (full_base == SP)
		base = BX;
	if (full_index == SP || full_index == (base | (rex & 1) << 3)) {
		index = 4;
		if (rex & 2)
			index = base == 5 ? 6 : 5;
	}
	full_base = base | (rex & 1) << 3;
	full_index = index | (rex & 2) << 2;
	sib = base == 4 || !rng_below(r, 3);
	if (mod == 1)
		disp = (s8)rng_next(r);
	else if (mod == 2)
		disp = (s32)(rng_next(r) & 0xffffff) - 0x800000;

	t->code[n++] = (u8)(mod << 6 | (reg & 7) << 3 | (sib ? 4 : base));
	if (sib) {
		int scale = (int)rng_below(r, 4);

		t->code[n++] = (u8)(scale << 6 | index << 3 | base);
		if (full_index != SP) {
			u64 val = rng_next(r) >> (ad32 ? 32 : 8);

			if (full_index == (reg & 15))
				val = gpr[full_index];
			gpr[full_index] = val;
			target -= val << scale;
		}
	}
	if (mod == 0 && base == 5) {
		/* No base: an absolute address, or relative to the next instruction. */
		if (sib)
			disp = (s32)target;
		else
			disp = 0;	/* filled in by the caller */
		return n + put(t->code + n, (u64)disp, 4);
	}
	gpr[full_base] = target - (u64)disp;
	if (ad32)
		gpr[full_base] = (u32)gpr[full_base] | rng_next(r) << 32;
	return n + put(t->code + n, (u64)disp, mod == 1 ? 1 : mod == 2 ? 4 : 0);
}

/* False: not a case that can be had (an address out of reach). */
static bool make_case(struct rng *r, const struct arena *a, struct native_case *t)
{
	const struct form *f = &forms[rng_below(r, sizeof(forms) / sizeof(forms[0]))];
	bool op16 = !rng_below(r, 4) && !f->vector;
	bool ad32 = !rng_below(r, 4), rex = rng_below(r, 2);
	u8 rex_byte = rex ? (u8)(0x40 | rng_below(r, 16)) : 0, reg;
	u64 target = (uintptr_t)a->data + 4096 + rng_below(r, 4096);
	int n = 0, i, at, bytes;

	memset(t, 0, sizeof(*t));
	t->form = f;
	if (f->align)
		target &= -(u64)f->align;
	for (i = 0; f->vector && i < (int)sizeof(t->regs.vector); i += 8)
		put((u8 *)t->regs.vector + i, rng_next(r), 8);
	for (i = 0; i < 16; i++)
		t->regs.gpr[i] = rng_next(r) >> rng_below(r, 64);
	t->regs.rflags = X86_EFLAGS_FIXED | X86_EFLAGS_IF | (rng_next(r) & STATUS);
	if (f->string && rng_below(r, 2))
		t->regs.rflags |= X86_EFLAGS_DF;

	if (op16)
		t->code[n++] = 0x66;
	if (ad32)
		t->code[n++] = 0x67;
	if (f->lock && rng_below(r, 2))
		t->code[n++] = 0xf0;
	if (f->string && rng_below(r, 2))
		t->code[n++] = rng_below(r, 2) ? 0xf2 : 0xf3;
	if (f->prefix)
		t->code[n++] = f->prefix;
	if (rex)
		t->code[n++] = rex_byte;
	if (f->opcode > 0xff)
		t->code[n++] = 0x0f;
	t->code[n++] = (u8)f->opcode;
	bytes = rex_byte & 8 ? 8 : op16 ? 2 : 4;

	if (f->string) {
		t->regs.gpr[CX] = rng_below(r, 40);
		t->regs.gpr[SI] = (uintptr_t)a->data + 4096 + rng_below(r, 4096);
		/* Now and then all that is compared is equal. */
		t->regs.gpr[DI] = rng_below(r, 4) ? target : t->regs.gpr[SI];
		t->len = n;
		return true;
	}
	if (f->moffs) {
		t->len = n + put(t->code + n, target, ad32 ? 4 : 8);
		return true;
	}

	reg = (u8)rng_below(r, 8) | (rex_byte & 4) << 1;
	if (f->groups) {
		do
			reg = (u8)rng_below(r, 8);
		while (!(f->groups >> reg & 1));
	} else if (reg == SP && !f->vector && (rex || f->opcode > 0xff || (f->opcode & 1))) {
		/* The stack pointer, not AH. */
		return false;
	}
	if (f->bits)
		t->regs.gpr[reg] = rng_next(r) % 0x10000 - 0x8000;
	at = n;
	n = put_modrm(r, t, n, reg, target, rex_byte, ad32);
	if (f->imm) {
		i = f->imm == 1 || !(f->opcode & 1) ? 1 : bytes == 2 ? 2 : 4;
		n += put(t->code + n, rng_next(r), i);
	}
	/* RIP-relative: the distance is known now. */
	if ((t->code[at] & 0xc7) == 5)
		put(t->code + at + 1, target - ((uintptr_t)a->code + (u64)n), 4);
	t->len = n;
	return true;
}

static void emulate_native(const struct arena *a, struct native_case *t,
			   int *result)
{
	struct emulate_ctxt c = {
		.gpr = t->regs.gpr, .rip = (uintptr_t)a->code,
		.rflags = t->regs.rflags, .mode = EMULATE_LONG, .va_bits = 48,
	};

	*result = fonda_decode(&c.insn, t->code, t->len, 64);
	if (*result != EMULATE_OK)
		return;
	fonda_emulate_begin(&c);
	do
		*result = fonda_emulate(&c);
	while (*result == EMULATE_AGAIN);
	t->regs.rflags = c.rflags;
}

/* Where in the data the memory operand is; strings stay there by themselves. */
static u64 target_offset(const struct arena *a, const struct native_case *t)
{
	struct fonda_insn insn;
	u64 ea;

	if (t->form->string)
		return 4096;
	if (fonda_decode(&insn, t->code, t->len, 64) != EMULATE_OK)
		return 4096;	/* for the comparison to report */
	ea = (u64)insn.disp;
	if (insn.base < 16)
		ea += t->regs.gpr[insn.base];
	if (insn.base == FONDA_REG_RIP_REL)
		ea += (uintptr_t)a->code + insn.len;
	if (insn.index < 16)
		ea += t->regs.gpr[insn.index] << insn.scale;
	if (t->form->bits) {
		u64 val = t->regs.gpr[insn.reg / 8];
		s64 bit = insn.op_bytes == 2 ? (s16)val : insn.op_bytes == 4 ? (s32)val : (s64)val;

		/* Operands below or above: the quotient, rounded down. */
		ea += (u64)((bit >> (insn.op_bytes == 2 ? 4 : insn.op_bytes == 4 ? 5 : 6)) *
			    insn.op_bytes);
	}
	if (insn.ad_bytes == 4)
		ea = (u32)ea;
	return ea - (uintptr_t)a->data;
}

static void show(const struct native_case *t)
{
	char hex[64];
	int i;

	for (i = 0; i < t->len; i++)
		sprintf(hex + 3 * i, "%02x ", t->code[i]);
	tap_diag("instruction %s", hex);
}

TEST_TIMEOUT(results_and_flags_are_those_of_the_processor, 300)
{
	struct arena *a = arena_create();
	struct rng r = rng_create(20260101);
	static u8 before[sizeof(a->data)], after[sizeof(a->data)];
	int i, ran = 0, failed = 0, regs_differ;

	for (i = 0; i < 400000 && failed < 10; i++) {
		struct native_case t, native;
		int result;
		unsigned int k;

		if (!make_case(&r, a, &t))
			continue;
		/* The address must lie within the data. */
		if (target_offset(a, &t) - 8 > sizeof(a->data) - 48)
			continue;
		for (k = 0; k < sizeof(before); k += 8)
			put(before + k, rng_next(&r), 8);
		ran++;

		native = t;
		memcpy(a->data, before, sizeof(before));
		memcpy(a->code, t.code, (size_t)t.len);
		a->code[t.len] = 0xc3;
		native_run(&native.regs);
		memcpy(after, a->data, sizeof(after));

		memcpy(a->data, before, sizeof(before));
		emulate_native(a, &t, &result);
		native.regs.gpr[SP] = t.regs.gpr[SP];
		regs_differ = memcmp(native.regs.gpr, t.regs.gpr, sizeof(t.regs.gpr)) ||
			      (t.form->vector && memcmp(native.regs.vector, t.regs.vector,
							sizeof(t.regs.vector)));
		if (result == EMULATE_DONE && !regs_differ &&
		    !((native.regs.rflags ^ t.regs.rflags) & STATUS & ~t.form->undefined) &&
		    !memcmp(after, a->data, sizeof(after)))
			continue;

		failed++;
		show(&t);
		if (result != EMULATE_DONE)
			tap_diag("  result %d", result);
		for (k = 0; t.form->vector && k < 16; k++) {
			if (memcmp(native.regs.vector[k], t.regs.vector[k], 16))
				tap_diag("  vector register %u", k);
		}
		for (k = 0; k < 16; k++) {
			if (native.regs.gpr[k] != t.regs.gpr[k])
				tap_diag("  register %u: %#lx, and %#lx natively", k,
					 t.regs.gpr[k], native.regs.gpr[k]);
		}
		tap_diag("  flags %#lx, and %#lx natively; memory %s", t.regs.rflags,
			 native.regs.rflags,
			 memcmp(after, a->data, sizeof(after)) ? "differs" : "is the same");
	}
	tap_diag("%d instructions ran", ran);
	EXPECT_EQ(failed, 0);
	EXPECT_GT(ran, 100000);
}
