// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * MMIO: every form of instruction that the emulator promises, executed by a
 * real guest in real, protected and long mode. The VMM sees the accesses, the
 * guest the results; the string forms and the faults are at the end.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>

#include "tvm.h"

#define MMIO	0xd0000ul	/* no memory there; DS is based there in 16-bit code */

/*
 * Every snippet starts with RBX = MMIO address (0 in 16-bit code), RAX =
 * 0x8877665544332211, RCX = 4, RDX = 0x123456789abcdef0, RSI = RDI = RBX + 8,
 * and R9 = 0xa1a2a3a4a5a6a7a8. A read yields 0x9181716151413121. The columns
 * are: what is read (bytes, 0 = no read), what is written (bytes and value),
 * and RAX, RDX and R9 afterwards (0 = as before).
 */
#define RAX	0x8877665544332211ull
#define RDX	0x123456789abcdef0ull
#define R9	0xa1a2a3a4a5a6a7a8ull
#define READ	0x9181716151413121ull

#define FORMS64(X)								\
	X(mov_r8_store, 64, "mov %al, (%rbx)", 0, 0, 1, 0x11, 0, 0, 0)		\
	X(mov_ah_store, 64, "mov %ah, (%rbx)", 0, 0, 1, 0x22, 0, 0, 0)		\
	X(mov_dil_store, 64, "mov %dil, (%rbx)", 0, 0, 1, 0x08, 0, 0, 0)	\
	X(mov_r9b_store, 64, "mov %r9b, (%rbx)", 0, 0, 1, 0xa8, 0, 0, 0)	\
	X(mov_r16_store, 64, "mov %ax, 2(%rbx)", 2, 0, 2, 0x2211, 0, 0, 0)	\
	X(mov_r32_store, 64, "mov %eax, 0x100(%rbx)", 0x100, 0, 4, 0x44332211, 0, 0, 0) \
	X(mov_r64_store, 64, "mov %rax, 8(%rbx)", 8, 0, 8, RAX, 0, 0, 0)	\
	X(mov_r9d_sib, 64, "mov %r9d, 8(%rbx,%rcx,4)", 24, 0, 4, 0xa5a6a7a8, 0, 0, 0) \
	X(mov_abs32, 64, "mov %eax, 0xd0010", 16, 0, 4, 0x44332211, 0, 0, 0)	\
	X(mov_rip, 64, "mov %eax, 0xd0010 - 0x1006(%rip)", 16, 0, 4, 0x44332211, 0, 0, 0) \
	X(mov_a32, 64, "mov %eax, 4(%ebx)", 4, 0, 4, 0x44332211, 0, 0, 0)	\
	X(mov_r8_load, 64, "mov (%rbx), %al", 0, 1, 0, 0, 0x8877665544332221, 0, 0) \
	X(mov_ah_load, 64, "mov (%rbx), %ah", 0, 1, 0, 0, 0x8877665544332111, 0, 0) \
	X(mov_r9b_load, 64, "mov (%rbx), %r9b", 0, 1, 0, 0, 0, 0, 0xa1a2a3a4a5a6a721) \
	X(mov_r16_load, 64, "mov (%rbx), %ax", 0, 2, 0, 0, 0x8877665544333121, 0, 0) \
	X(mov_r32_load, 64, "mov (%rbx), %eax", 0, 4, 0, 0, 0x51413121, 0, 0)	\
	X(mov_r64_load, 64, "mov (%rbx), %rax", 0, 8, 0, 0, READ, 0, 0)		\
	X(mov_r9_load, 64, "mov 0x18(%rbx), %r9", 24, 8, 0, 0, 0, 0, READ)	\
	X(mov_imm8, 64, "movb $0x5a, (%rbx)", 0, 0, 1, 0x5a, 0, 0, 0)		\
	X(mov_imm16, 64, "movw $0x5a5b, (%rbx)", 0, 0, 2, 0x5a5b, 0, 0, 0)	\
	X(mov_imm32, 64, "movl $0x5a5b5c5d, 4(%rbx)", 4, 0, 4, 0x5a5b5c5d, 0, 0, 0) \
	X(mov_imm64, 64, "movq $-2, (%rbx)", 0, 0, 8, -2ull, 0, 0, 0)		\
	X(mov_imm_rip, 64, "movl $0x5a5b5c5d, 0xd0010 - 0x100a(%rip)",		\
	  16, 0, 4, 0x5a5b5c5d, 0, 0, 0) \
	X(movabs_load, 64, "movabs 0xd0008, %eax", 8, 4, 0, 0, 0x51413121, 0, 0) \
	X(movabs_store, 64, "movabs %rax, 0xd0008", 8, 0, 8, RAX, 0, 0, 0)	\
	X(movabs_load8, 64, "movabs 0xd0008, %al", 8, 1, 0, 0, 0x8877665544332221, 0, 0) \
	X(movzx_8_32, 64, "movzbl (%rbx), %edx", 0, 1, 0, 0, 0, 0x21, 0)	\
	X(movzx_8_16, 64, "movzbw (%rbx), %dx", 0, 1, 0, 0, 0, 0x123456789abc0021, 0) \
	X(movzx_8_64, 64, "movzbq (%rbx), %r9", 0, 1, 0, 0, 0, 0, 0x21)		\
	X(movzx_16_32, 64, "movzwl 2(%rbx), %edx", 2, 2, 0, 0, 0, 0x3121, 0)	\
	X(movsx_8_32, 64, "movsbl (%rbx), %edx", 0, 1, 0, 0, 0, 0x21, 0)	\
	X(movsx_16_64, 64, "movswq (%rbx), %rdx", 0, 2, 0, 0, 0, 0x3121, 0)	\
	X(movsxd, 64, "movslq (%rbx), %rdx", 0, 4, 0, 0, 0, 0x51413121, 0)	\
	X(stos, 64, "stosl", 8, 0, 4, 0x44332211, 0, 0, 0)			\
	X(lods, 64, "lodsw", 8, 2, 0, 0, 0x8877665544333121, 0, 0)		\
	X(xchg_load_store, 64, "xchg %eax, (%rbx)", 0, 4, 4, 0x44332211, 0x51413121, 0, 0) \
	X(or_store, 64, "or %al, (%rbx)", 0, 1, 1, 0x31, 0, 0, 0)		\
	X(and_imm8, 64, "andl $-16, (%rbx)", 0, 4, 4, 0x51413120, 0, 0, 0)	\
	X(add_imm32, 64, "addl $0x1000000, (%rbx)", 0, 4, 4, 0x52413121, 0, 0, 0) \
	X(xor_reg, 64, "xor (%rbx), %eax", 0, 4, 0, 0, 0x15721330, 0, 0)	\
	X(sub_store, 64, "sub %rcx, (%rbx)", 0, 8, 8, 0x918171615141311d, 0, 0, 0) \
	X(lock_or, 64, "lock orl $2, (%rbx)", 0, 4, 4, 0x51413123, 0, 0, 0)	\
	X(cmp_imm, 64, "cmpl $0x51413121, (%rbx); sete %dl", 0, 4, 0, 0, 0, 0x123456789abcde01, 0) \
	X(cmp_less, 64, "cmpw $0x3122, (%rbx); setb %dl", 0, 2, 0, 0, 0, 0x123456789abcde01, 0) \
	X(test_imm, 64, "testb $0x20, (%rbx); setnz %dl", 0, 1, 0, 0, 0, 0x123456789abcde01, 0) \
	X(test_reg, 64, "test %eax, (%rbx); setz %dl", 0, 4, 0, 0, 0, 0x123456789abcde00, 0) \
	X(not_mem, 64, "notl (%rbx)", 0, 4, 4, 0xaebecede, 0, 0, 0)		\
	X(neg_mem, 64, "negw (%rbx)", 0, 2, 2, 0xcedf, 0, 0, 0)			\
	X(inc_mem, 64, "lock incb (%rbx)", 0, 1, 1, 0x22, 0, 0, 0)		\
	X(dec_mem, 64, "decq (%rbx)", 0, 8, 8, READ - 1, 0, 0, 0)		\
	X(bt_imm, 64, "btl $5, (%rbx); setc %dl", 0, 4, 0, 0, 0, 0x123456789abcde01, 0) \
	X(bts_imm, 64, "lock btsl $1, (%rbx)", 0, 4, 4, 0x51413123, 0, 0, 0)	\
	X(btr_reg, 64, "add $33, %ecx; btr %ecx, (%rbx)", 4, 4, 4, 0x51413101, 0, 0, 0) \
	X(btc_reg, 64, "sub $132, %rcx; btc %rcx, 16(%rbx)", 0, 8, 8, READ ^ 1, 0, 0, 0) \
	X(scas, 64, "scasl; setb %dl", 8, 4, 0, 0, 0, 0x123456789abcde01, 0)

#define FORMS32(X)								\
	X(mov_store_32, 32, "mov %eax, (%ebx)", 0, 0, 4, 0x44332211, 0, 0, 0)	\
	X(mov_store_32_16, 32, "mov %ax, (%ebx)", 0, 0, 2, 0x2211, 0, 0, 0)	\
	X(mov_load_32, 32, "mov (%ebx), %eax", 0, 4, 0, 0, 0x51413121, 0, 0)	\
	X(mov_load_32_8, 32, "mov (%ebx), %dh", 0, 1, 0, 0, 0, 0x9abc21f0, 0)	\
	X(moffs_load_32, 32, "mov 0xd0030, %eax", 0x30, 4, 0, 0, 0x51413121, 0, 0) \
	X(moffs_store_32, 32, "mov %eax, 0xd0030", 0x30, 0, 4, 0x44332211, 0, 0, 0) \
	X(imm_32, 32, "movl $0xc4500, 0xd0300", 0x300, 0, 4, 0xc4500, 0, 0, 0)	\
	X(movzx_32, 32, "movzbl (%edi), %edx", 8, 1, 0, 0, 0, 0x21, 0)		\
	X(sib_32, 32, "mov %eax, 0x10(%ebx,%ecx,8)", 48, 0, 4, 0x44332211, 0, 0, 0) \
	X(inc_like_32, 32, "addl $1, (%ebx)", 0, 4, 4, 0x51413122, 0, 0, 0)

#define FORMS16(X)								\
	X(mov_store_16, 16, "mov %ax, (%bx)", 0, 0, 2, 0x2211, 0, 0, 0)		\
	X(mov_store_16_32, 16, "mov %eax, 4(%bx)", 4, 0, 4, 0x44332211, 0, 0, 0) \
	X(mov_store_16_a32, 16, "mov %eax, 8(%ebx)", 8, 0, 4, 0x44332211, 0, 0, 0) \
	X(mov_store_es, 16, "mov %al, %es:(%di)", 8, 0, 1, 0x11, 0, 0, 0)	\
	X(mov_load_16, 16, "mov (%bx,%si), %dx", 8, 2, 0, 0, 0, 0x9abc3121, 0)	\
	X(moffs_16, 16, "mov 0x20, %al", 0x20, 1, 0, 0, 0x44332221, 0, 0)	\
	X(imm_16, 16, "movw $0x1234, (%bx)", 0, 0, 2, 0x1234, 0, 0, 0)		\
	X(stosw_16, 16, "stosw", 8, 0, 2, 0x2211, 0, 0, 0)

#define FORM_GUEST(_name, _bits, _insn, ...) \
	GUEST##_bits(guest_##_name, _insn "\n hlt");
#define FORM_ENTRY(_name, _bits, _insn, ...) { _insn, &guest_##_name, __VA_ARGS__ },

FORMS64(FORM_GUEST)
FORMS32(FORM_GUEST)
FORMS16(FORM_GUEST)

static const struct {
	const char *insn;
	const struct guest_code *code;
	uint16_t offset;
	uint8_t read, write;
	uint64_t written;
	uint64_t rax, rdx, r9;
} forms[] = { FORMS64(FORM_ENTRY) FORMS32(FORM_ENTRY) FORMS16(FORM_ENTRY) };

static void start(struct tvm *t, const struct guest_code *code)
{
	struct kvm_regs regs;
	struct kvm_sregs s;
	uint64_t mask = code->bits == 64 ? UINT64_MAX : 0xffffffff;

	tvm_init(t, code);
	s = tvm_sregs(t, 0);
	if (code->bits == 16) {
		s.ds.base = s.es.base = MMIO;
		s.ds.selector = s.es.selector = MMIO >> 4;
		tvm_set_sregs(t, 0, &s);
	}
	regs = tvm_regs(t, 0);
	regs.rax = RAX & mask;
	regs.rbx = code->bits == 16 ? 0 : MMIO;
	regs.rcx = 4;
	regs.rdx = RDX & mask;
	regs.rsi = regs.rdi = regs.rbx + 8;
	regs.r9 = R9;
	tvm_set_regs(t, 0, &regs);
}

TEST_TIMEOUT(every_form, 90)
{
	const uint64_t read = READ;
	size_t i;

	for (i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		uint64_t mask = forms[i].code->bits == 64 ? UINT64_MAX : 0xffffffff;
		uint64_t rax = forms[i].rax ? forms[i].rax : RAX & mask;
		uint64_t rdx = forms[i].rdx ? forms[i].rdx : RDX & mask;
		uint64_t written = 0;
		struct kvm_regs regs;
		struct tvm t;
		int reason;

		start(&t, forms[i].code);
		reason = tvm_run(&t);
		if (forms[i].read) {
			if (reason != KVM_EXIT_MMIO || t.run->mmio.is_write ||
			    t.run->mmio.len != forms[i].read)
				tap_diag("in %s", forms[i].insn);
			ASSERT_EQ(reason, KVM_EXIT_MMIO);
			EXPECT_EQ(t.run->mmio.is_write, 0);
			EXPECT_EQ(t.run->mmio.phys_addr, MMIO + forms[i].offset);
			EXPECT_EQ(t.run->mmio.len, forms[i].read);
			memcpy(t.run->mmio.data, &read, forms[i].read);
			reason = tvm_run(&t);
		}
		if (forms[i].write) {
			if (reason != KVM_EXIT_MMIO || !t.run->mmio.is_write ||
			    t.run->mmio.len != forms[i].write)
				tap_diag("in %s", forms[i].insn);
			ASSERT_EQ(reason, KVM_EXIT_MMIO);
			EXPECT_EQ(t.run->mmio.is_write, 1);
			EXPECT_EQ(t.run->mmio.phys_addr, MMIO + forms[i].offset);
			EXPECT_EQ(t.run->mmio.len, forms[i].write);
			memcpy(&written, t.run->mmio.data, t.run->mmio.len);
			EXPECT_EQ(written, forms[i].written);
			reason = tvm_run(&t);
		}
		regs = tvm_regs(&t, 0);
		if (reason != KVM_EXIT_HLT || regs.rax != rax || regs.rdx != rdx)
			tap_diag("after %s", forms[i].insn);
		EXPECT_EQ(reason, KVM_EXIT_HLT);
		EXPECT_EQ(regs.rax, rax);
		EXPECT_EQ(regs.rdx, rdx);
		if (mask == UINT64_MAX)
			EXPECT_EQ(regs.r9, forms[i].r9 ? forms[i].r9 : R9);
		tvm_fini(&t);
	}
}

/* String forms with REP: a sequence of accesses, then the registers. */
GUEST64(guest_rep_movsb_out, "mov $0x8100, %esi; rep movsb\n hlt");
GUEST64(guest_rep_movsl_in, "mov $0x8200, %edi; rep movsl\n hlt");
GUEST64(guest_rep_movsw_both, "sub $8, %rdi; rep movsw\n hlt");
GUEST64(guest_rep_stosq, "rep stosq\n hlt");
GUEST64(guest_rep_stosb_down, "std; rep stosb\n hlt");
GUEST16(guest_rep_movsb_16, "rep movsb\n hlt");
GUEST16(guest_rep_stosw_16, "rep stosw\n hlt");

struct access {
	uint64_t addr;
	uint32_t len;
	uint8_t is_write;
};

/* Reads yield 1, 2, 3... in each byte; collects what is written. */
static unsigned int serve(struct tvm *t, struct access *log, uint8_t *written)
{
	unsigned int nr = 0, fed = 0, len;
	int reason;

	while ((reason = tvm_run(t)) == KVM_EXIT_MMIO) {
		len = t->run->mmio.len;
		ASSERT_LE(len, 8);
		ASSERT_LT(nr, 64);
		log[nr++] = (struct access){ t->run->mmio.phys_addr, len, t->run->mmio.is_write };
		if (t->run->mmio.is_write) {
			memcpy(written, t->run->mmio.data, len);
			written += len;
		} else {
			while (len--)
				t->run->mmio.data[t->run->mmio.len - len - 1] = (uint8_t)++fed;
		}
	}
	EXPECT_EQ(reason, KVM_EXIT_HLT);
	return nr;
}

TEST(rep_movs_from_memory)
{
	struct access log[64];
	uint8_t out[64];
	struct tvm t;
	unsigned int i;

	start(&t, &guest_rep_movsb_out);
	memcpy(t.ram + 0x8100, "abcd", 4);
	ASSERT_EQ(serve(&t, log, out), 4);
	for (i = 0; i < 4; i++) {
		EXPECT_EQ(log[i].addr, MMIO + 8 + i);
		EXPECT_EQ(log[i].is_write, 1);
	}
	EXPECT_MEMEQ(out, "abcd", 4);
	EXPECT_EQ(tvm_regs(&t, 0).rcx, 0);
	EXPECT_EQ(tvm_regs(&t, 0).rsi, 0x8104);
	EXPECT_EQ(tvm_regs(&t, 0).rdi, MMIO + 12);
	tvm_fini(&t);
}

TEST(rep_movs_to_memory)
{
	struct access log[64];
	uint8_t out[64];
	struct tvm t;

	start(&t, &guest_rep_movsl_in);
	ASSERT_EQ(serve(&t, log, out), 4);
	EXPECT_EQ(log[3].addr, MMIO + 8 + 12);
	EXPECT_EQ(log[3].len, 4);
	EXPECT_EQ(log[3].is_write, 0);
	EXPECT_MEMEQ(t.ram + 0x8200, "\1\2\3\4\5\6\7\10\11\12\13\14\15\16\17\20", 16);
	EXPECT_EQ(tvm_regs(&t, 0).rdi, 0x8210);
	tvm_fini(&t);
}

TEST(rep_movs_from_mmio_to_mmio)
{
	struct access log[64];
	uint8_t out[64];
	struct tvm t;
	unsigned int i;

	start(&t, &guest_rep_movsw_both);
	ASSERT_EQ(serve(&t, log, out), 8);
	for (i = 0; i < 8; i++) {
		EXPECT_EQ(log[i].is_write, i & 1);
		EXPECT_EQ(log[i].addr, MMIO + (i & 1 ? 0 : 8) + (i / 2) * 2);
	}
	EXPECT_MEMEQ(out, "\1\2\3\4\5\6\7\10", 8);
	tvm_fini(&t);

	start(&t, &guest_rep_movsb_16);
	ASSERT_EQ(serve(&t, log, out), 8);
	EXPECT_EQ(log[7].addr, MMIO + 8 + 3);
	tvm_fini(&t);
}

TEST(rep_stos)
{
	static const uint64_t rax = RAX;
	struct access log[64];
	uint8_t out[64];
	struct tvm t;

	start(&t, &guest_rep_stosq);
	ASSERT_EQ(serve(&t, log, out), 4);
	EXPECT_EQ(log[3].addr, MMIO + 8 + 24);
	EXPECT_EQ(log[3].len, 8);
	EXPECT_MEMEQ(out + 24, &rax, 8);
	tvm_fini(&t);

	start(&t, &guest_rep_stosb_down);
	ASSERT_EQ(serve(&t, log, out), 4);
	EXPECT_EQ(log[3].addr, MMIO + 5);
	EXPECT_EQ(tvm_regs(&t, 0).rdi, MMIO + 4);
	tvm_fini(&t);

	start(&t, &guest_rep_stosw_16);
	ASSERT_EQ(serve(&t, log, out), 4);
	EXPECT_EQ(log[3].addr, MMIO + 14);
	EXPECT_EQ(log[3].len, 2);
	tvm_fini(&t);
}

/* An access over a page boundary: its bytes, in order, in one or more exits. */
GUEST64(guest_crossing_store, "mov %rax, 0xffd(%rbx)\n hlt");
GUEST64(guest_crossing_load, "mov 0xffd(%rbx), %rax\n hlt");

TEST(accesses_that_cross_a_page)
{
	static const uint64_t rax = RAX;
	struct access log[64];
	unsigned int nr, i;
	uint64_t next;
	uint8_t out[64];
	struct tvm t;

	start(&t, &guest_crossing_store);
	nr = serve(&t, log, out);
	for (next = MMIO + 0xffd, i = 0; i < nr; next += log[i].len, i++)
		EXPECT_EQ(log[i].addr, next);
	EXPECT_EQ(next, MMIO + 0x1005);
	EXPECT_MEMEQ(out, &rax, 8);
	tvm_fini(&t);

	start(&t, &guest_crossing_load);
	serve(&t, log, out);
	EXPECT_EQ(tvm_regs(&t, 0).rax, 0x0807060504030201);
	tvm_fini(&t);
}

/* Half in memory: 0x9fffd is RAM up to 0xa0000. */
GUEST64(guest_half_store, "mov $0x9fffd, %ebx; mov %rax, (%rbx)\n hlt");
GUEST64(guest_half_load, "mov $0x9fffd, %ebx; mov (%rbx), %rax\n hlt");

TEST(accesses_half_in_memory)
{
	struct access log[64];
	uint8_t out[64];
	struct tvm t;

	start(&t, &guest_half_store);
	serve(&t, log, out);
	EXPECT_MEMEQ(t.ram + 0x9fffd, "\x11\x22\x33", 3);
	EXPECT_MEMEQ(out, "\x44\x55\x66\x77\x88", 5);
	EXPECT_EQ(log[0].addr, 0xa0000);
	tvm_fini(&t);

	start(&t, &guest_half_load);
	memcpy(t.ram + 0x9fffd, "\xf1\xf2\xf3", 3);
	serve(&t, log, out);
	EXPECT_EQ(tvm_regs(&t, 0).rax, 0x0504030201f3f2f1);
	tvm_fini(&t);
}

/* The other operand of a string may fault, and belongs to the guest. */
#define HOLE	0x200000000ull

GUEST(guest_movs_faults)
{
	uint64_t rsi = HOLE + 0xffe, rdi = MMIO, rcx = 4;

	GUEST_EQ(GUEST_TRY("rep movsb", GUEST_OPS("+S"(rsi), "+D"(rdi), "+c"(rcx)), ), 14);
	GUEST_EQ(read_cr2(), HOLE + 0x1000);
	GUEST_EQ(rcx, 2);
	GUEST_EQ(rdi, MMIO + 2);

	/* Read-only for the supervisor, by CR0.WP. */
	rsi = MMIO, rdi = HOLE, rcx = 1;
	GUEST_EQ(GUEST_TRY("rep movsb", GUEST_OPS("+S"(rsi), "+D"(rdi), "+c"(rcx)), ), 14);
	GUEST_EQ(guest_cpu()->error, 3);
	GUEST_EQ(rcx, 1);
}

TEST(string_operands_fault_in_the_guest)
{
	unsigned int writes = 0;
	bool is_report;
	struct tvm t;
	int reason;

	tvm_init(&t, &guest_movs_faults);
	tvm_map(&t, HOLE, 0x90000, TVM_PTE_P);
	memcpy(t.ram + 0x90ffe, "xy", 2);
	for (;;) {
		reason = tvm_run(&t);
		tvm_report(&t, 0, &is_report);
		if (is_report)
			break;
		ASSERT_EQ(reason, KVM_EXIT_MMIO);
		if (t.run->mmio.is_write)
			EXPECT_EQ(t.run->mmio.data[0], 'x' + writes++);
	}
	EXPECT_EQ(writes, 2);
	tvm_fini(&t);
}

/* Through the guest's own page tables, at an address that is not identical. */
GUEST64(guest_mapped_mmio, "mov $0x200000000, %rbx; mov %eax, 0x10(%rbx)\n hlt");

TEST(mmio_through_guest_page_tables)
{
	struct access log[64];
	uint8_t out[64];
	struct tvm t;

	start(&t, &guest_mapped_mmio);
	tvm_map(&t, HOLE, MMIO + 0x5000, TVM_PTE_P | TVM_PTE_W);
	ASSERT_EQ(serve(&t, log, out), 1);
	EXPECT_EQ(log[0].addr, MMIO + 0x5010);
	tvm_fini(&t);
}

/* Vector registers go in pieces of eight bytes, and come back the same way. */
GUEST64(guest_sse, "movdqu 0x8100, %xmm9; movdqu %xmm9, (%rbx)\n"
	"movups 0x20(%rbx), %xmm1; movaps %xmm1, 0x8200\n hlt");
TEST(vector_registers_are_moved_in_pieces)
{
	struct access log[64];
	struct kvm_sregs s;
	uint8_t out[64];
	struct tvm t;
	unsigned int i;

	start(&t, &guest_sse);
	s = tvm_sregs(&t, 0);
	s.cr4 |= 0x200;		/* OSFXSR */
	tvm_set_sregs(&t, 0, &s);
	for (i = 0; i < 16; i++)
		t.ram[0x8100 + i] = (uint8_t)(0xa0 + i);
	ASSERT_EQ(serve(&t, log, out), 4);
	for (i = 0; i < 4; i++) {
		EXPECT_EQ(log[i].is_write, i < 2);
		EXPECT_EQ(log[i].len, 8);
		EXPECT_EQ(log[i].addr, MMIO + (i < 2 ? 0 : 0x20 - 16) + 8 * i);
	}
	EXPECT_MEMEQ(out, t.ram + 0x8100, 16);
	for (i = 0; i < 16; i++)
		EXPECT_EQ(t.ram[0x8200 + i], i + 1);
	tvm_fini(&t);
}

/* Reads of a read-only slot find memory, writes are user space's. */
GUEST64(guest_rom, "addl $1, 0x10(%rbx); mov 0x10(%rbx), %edx\n hlt");

TEST(a_read_only_slot_takes_no_writes)
{
	static uint8_t rom[4096] __attribute__((aligned(4096)));
	struct access log[64];
	uint8_t out[64];
	struct tvm t;

	rom[0x10] = 0x41;
	start(&t, &guest_rom);
	tvm_set_slot(&t, t.next_slot, KVM_MEM_READONLY, MMIO, sizeof(rom), rom);
	ASSERT_EQ(serve(&t, log, out), 1);
	EXPECT_EQ(log[0].addr, MMIO + 0x10);
	EXPECT_EQ(log[0].len, 4);
	EXPECT_EQ(log[0].is_write, 1);
	EXPECT_EQ(out[0], 0x42);
	EXPECT_EQ(tvm_regs(&t, 0).rdx, 0x41);
	tvm_fini(&t);
}

/* -- the coalesced ring ----------------------------------------------------- */

#define WRITES		300u
#define RING_MAX	((4096 - sizeof(struct kvm_coalesced_mmio_ring)) / \
			 sizeof(struct kvm_coalesced_mmio))

GUEST64(guest_many_writes, "xor %ecx, %ecx\n"
	"1: mov %ecx, 4(%rbx); inc %ecx; cmp $300, %ecx; jb 1b; hlt");
GUEST64(guest_many_outs, "xor %eax, %eax\n"
	"1: out %eax, $0x74; inc %eax; cmp $300, %eax; jb 1b; hlt");

static void expect_entries(const struct kvm_coalesced_mmio_ring *ring, uint32_t first,
			   uint32_t nr, uint64_t addr, uint32_t pio, uint32_t val)
{
	uint32_t i;

	for (i = 0; i < nr; i++) {
		const struct kvm_coalesced_mmio *e = &ring->coalesced_mmio[(first + i) % RING_MAX];

		ASSERT_EQ(e->phys_addr, addr);
		ASSERT_EQ(e->len, 4);
		ASSERT_EQ(e->pio, pio);
		ASSERT_EQ(*(const uint32_t *)e->data, val + i);
	}
}

static void coalesce(const struct guest_code *code, uint32_t pio, uint64_t addr)
{
	struct kvm_coalesced_mmio_zone zone = { .addr = addr - 4, .size = 8, .pio = pio };
	struct kvm_coalesced_mmio_ring *ring;
	const uint32_t reason = pio ? KVM_EXIT_IO : KVM_EXIT_MMIO;
	uint32_t seen = 0, nr;
	struct tvm t;

	start(&t, code);
	ring = (void *)((char *)t.run + 4096 *
			ioctl(t.dev, KVM_CHECK_EXTENSION, KVM_CAP_COALESCED_MMIO));
	ASSERT_EQ(ioctl(t.fd, KVM_REGISTER_COALESCED_MMIO, &zone), 0);

	/*
	 * Nothing is seen until there is no room; that write is an exit. The
	 * reference of 6.1 loses half of the ring when first is ahead of last.
	 */
	while (tvm_run(&t) == (int)reason) {
		nr = (ring->last + RING_MAX - ring->first) % RING_MAX;
		if (!tvm_is_stock())
			EXPECT_EQ(nr, RING_MAX - 1);
		ASSERT_GT(nr, 0);
		expect_entries(ring, ring->first, nr, addr, pio, seen);
		seen += nr;
		EXPECT_EQ(*(uint32_t *)(pio ? tvm_io_data(&t) : t.run->mmio.data), seen);
		seen++;
		ring->first = ring->last;
	}
	EXPECT_EQ(t.run->exit_reason, KVM_EXIT_HLT);
	nr = (ring->last + RING_MAX - ring->first) % RING_MAX;
	expect_entries(ring, ring->first, nr, addr, pio, seen);
	EXPECT_EQ(seen + nr, WRITES);

	/* An index that user space has spoiled: as if the ring were full. */
	tvm_set_code(&t, 0, code);
	ring->last = 5000;
	if (!pio) {
		struct kvm_regs regs = tvm_regs(&t, 0);

		regs.rbx = MMIO;
		tvm_set_regs(&t, 0, &regs);
	}
	ASSERT_EQ(tvm_run(&t), reason);
	ring->first = ring->last = 0;

	/* A zone goes when the range lies in it; then all writes exit. */
	zone.addr = addr + 4;
	ASSERT_EQ(ioctl(t.fd, KVM_UNREGISTER_COALESCED_MMIO, &zone), 0);
	zone.addr = addr;
	zone.size = 4;
	ASSERT_EQ(ioctl(t.fd, KVM_UNREGISTER_COALESCED_MMIO, &zone), 0);
	ASSERT_EQ(tvm_run(&t), reason);
	EXPECT_EQ(ring->last, 0);
	zone.pio = 2;
	EXPECT_ERRNO(ioctl(t.fd, KVM_REGISTER_COALESCED_MMIO, &zone), EINVAL);
	EXPECT_ERRNO(ioctl(t.fd, KVM_UNREGISTER_COALESCED_MMIO, &zone), EINVAL);
	tvm_fini(&t);
}

TEST(writes_are_coalesced)
{
	coalesce(&guest_many_writes, 0, MMIO + 4);
}

TEST(port_writes_are_coalesced)
{
	coalesce(&guest_many_outs, 1, 0x74);
}

/* -- what is not emulated, and where things are ------------------------------ */

GUEST64(guest_float, "flds (%rbx)\n hlt");

TEST(an_instruction_that_is_not_emulated_is_shown)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_EXIT_ON_EMULATION_FAILURE, .args[0] = 1 };
	struct kvm_regs regs;
	struct tvm t;

	start(&t, &guest_float);
	EXPECT_EQ(ioctl(t.dev, KVM_CHECK_EXTENSION, KVM_CAP_EXIT_ON_EMULATION_FAILURE), 1);
	ASSERT_EQ(ioctl(t.fd, KVM_ENABLE_CAP, &cap), 0);
	ASSERT_EQ(tvm_run(&t), KVM_EXIT_INTERNAL_ERROR);
	EXPECT_EQ(t.run->emulation_failure.suberror, KVM_INTERNAL_ERROR_EMULATION);
	EXPECT_GE(t.run->emulation_failure.ndata, 3);
	EXPECT_TRUE(t.run->emulation_failure.flags &
		    KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES);
	ASSERT_GE(t.run->emulation_failure.insn_size, 2);
	EXPECT_MEMEQ(t.run->emulation_failure.insn_bytes, "\xd9\x03", 2);

	/* User space may do it itself, and go on. */
	regs = tvm_regs(&t, 0);
	EXPECT_EQ(regs.rip, GUEST_CODE);
	regs.rip += 2;
	tvm_set_regs(&t, 0, &regs);
	EXPECT_EQ(tvm_run(&t), KVM_EXIT_HLT);
	cap.args[0] = 2;
	EXPECT_ERRNO(ioctl(t.fd, KVM_ENABLE_CAP, &cap), EINVAL);
	tvm_fini(&t);
}

TEST(translate_walks_the_guests_tables)
{
	struct kvm_translation tr = { .linear_address = HOLE + 0x123 };
	struct tvm t;

	start(&t, &guest_mapped_mmio);
	tvm_map(&t, HOLE, 0x90000, TVM_PTE_P);
	ASSERT_EQ(ioctl(t.cpu, KVM_TRANSLATE, &tr), 0);
	EXPECT_EQ(tr.valid, 1);
	EXPECT_EQ(tr.physical_address, 0x90123);
	EXPECT_EQ(tr.writeable, 1);
	EXPECT_EQ(tr.usermode, 0);
	tr.linear_address = HOLE + 0x1000;
	ASSERT_EQ(ioctl(t.cpu, KVM_TRANSLATE, &tr), 0);
	EXPECT_EQ(tr.valid, 0);
	EXPECT_EQ(tr.physical_address, UINT64_MAX);
	tvm_fini(&t);
}
