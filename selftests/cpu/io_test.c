// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Port I/O: every form of IN, OUT, INS and OUTS as the VMM sees it, what of
 * the registers they change, and how an exit is completed.
 */
#define _GNU_SOURCE
#include <string.h>

#include "tvm.h"

GUEST16(guest_out, "mov $0x2a, %al\n" "out %al, $0x80\n" "hlt");

TEST(out_carries_port_size_and_data)
{
	struct tvm t;

	tvm_init(&t, &guest_out);
	ASSERT_EQ(tvm_run(&t), KVM_EXIT_IO);
	EXPECT_EQ(t.run->io.direction, KVM_EXIT_IO_OUT);
	EXPECT_EQ(t.run->io.port, 0x80);
	EXPECT_EQ(t.run->io.size, 1);
	EXPECT_EQ(t.run->io.count, 1);
	EXPECT_EQ(tvm_io_data(&t)[0], 0x2a);

	/* The OUT is complete: running on must reach the next instruction. */
	EXPECT_EQ(tvm_run(&t), KVM_EXIT_HLT);
	EXPECT_EQ(tvm_regs(&t, 0).rip, GUEST_CODE + 5);
	tvm_fini(&t);
}

/*
 * The single forms: RAX is 0x8877665544332211 and DX 0x1234 in all modes. An
 * IN reads 0xd4c3b2a1.
 */
#define FORMS(X)						\
	X(in_imm8,	"in $0x71, %al",	0x71, 1, 0)	\
	X(in_imm16,	"in $0x71, %ax",	0x71, 2, 0)	\
	X(in_imm32,	"in $0x71, %eax",	0x71, 4, 0)	\
	X(in_dx8,	"in %dx, %al",		0x1234, 1, 0)	\
	X(in_dx16,	"in %dx, %ax",		0x1234, 2, 0)	\
	X(in_dx32,	"in %dx, %eax",		0x1234, 4, 0)	\
	X(out_imm8,	"out %al, $0x71",	0x71, 1, 1)	\
	X(out_imm16,	"out %ax, $0x71",	0x71, 2, 1)	\
	X(out_imm32,	"out %eax, $0x71",	0x71, 4, 1)	\
	X(out_dx8,	"out %al, %dx",		0x1234, 1, 1)	\
	X(out_dx16,	"out %ax, %dx",		0x1234, 2, 1)	\
	X(out_dx32,	"out %eax, %dx",	0x1234, 4, 1)

#define FORM_GUESTS(_name, _insn, _port, _size, _out)		\
	GUEST16(_name##_16, _insn "\n hlt");			\
	GUEST32(_name##_32, _insn "\n hlt");			\
	GUEST64(_name##_64, _insn "\n hlt");
#define FORM_ENTRY(_name, _insn, _port, _size, _out)		\
	{ #_name, { &_name##_16, &_name##_32, &_name##_64 }, _port, _size, _out },

FORMS(FORM_GUESTS)

static const struct {
	const char *name;
	const struct guest_code *code[3];
	uint16_t port;
	uint8_t size;
	uint8_t out;
} forms[] = { FORMS(FORM_ENTRY) };

TEST(all_single_forms_in_all_modes)
{
	static const uint64_t rax_after_in[5] = {
		0, 0x88776655443322a1, 0x887766554433b2a1, 0, 0xd4c3b2a1,
	};
	struct kvm_regs regs;
	struct tvm t;
	size_t i, mode;

	for (i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		for (mode = 0; mode < 3; mode++) {
			uint64_t want = 0x8877665544332211;

			tvm_init(&t, forms[i].code[mode]);
			regs = tvm_regs(&t, 0);
			regs.rax = want;
			regs.rdx = 0x1234;
			tvm_set_regs(&t, 0, &regs);
			ASSERT_EQ(tvm_run(&t), KVM_EXIT_IO);
			if (t.run->io.port != forms[i].port || t.run->io.size != forms[i].size)
				tap_diag("%s in mode %zu", forms[i].name, mode);
			EXPECT_EQ(t.run->io.direction, forms[i].out);
			EXPECT_EQ(t.run->io.port, forms[i].port);
			EXPECT_EQ(t.run->io.size, forms[i].size);
			EXPECT_EQ(t.run->io.count, 1);
			if (forms[i].out) {
				EXPECT_MEMEQ(tvm_io_data(&t), "\x11\x22\x33\x44", forms[i].size);
			} else {
				memcpy(tvm_io_data(&t), "\xa1\xb2\xc3\xd4", 4);
				want = rax_after_in[forms[i].size];
			}
			EXPECT_EQ(tvm_run(&t), KVM_EXIT_HLT);
			EXPECT_EQ(tvm_regs(&t, 0).rax, want);
			tvm_fini(&t);
		}
	}
}

/*
 * A string instruction comes in one or more exits: their elements, in order,
 * are what counts. Collects an OUTS, or feeds an INS with 1, 2, 3...
 */
static unsigned int transfer(struct tvm *t, uint8_t *data, unsigned int size,
			     uint16_t port, int direction)
{
	unsigned int total = 0;
	int reason;

	while ((reason = tvm_run(t)) == KVM_EXIT_IO) {
		unsigned int len = t->run->io.count * t->run->io.size;
		unsigned int i;

		EXPECT_EQ(t->run->io.port, port);
		EXPECT_EQ(t->run->io.size, size);
		EXPECT_EQ(t->run->io.direction, direction);
		ASSERT_LE(len, 4096);
		if (direction == KVM_EXIT_IO_OUT) {
			memcpy(data + total, tvm_io_data(t), len);
			total += len;
			continue;
		}
		for (i = 0; i < len; i++)
			tvm_io_data(t)[i] = (uint8_t)(++total);
	}
	EXPECT_EQ(reason, KVM_EXIT_HLT);
	return total;
}

static void string_regs(struct tvm *t, uint64_t rsi, uint64_t rdi, uint64_t rcx)
{
	struct kvm_regs regs = tvm_regs(t, 0);

	regs.rdx = 0x3f6;
	regs.rsi = rsi;
	regs.rdi = rdi;
	regs.rcx = rcx;
	tvm_set_regs(t, 0, &regs);
}

GUEST64(guest_rep_outsb, "rep outsb\n hlt");
GUEST64(guest_rep_outsw, "rep outsw\n hlt");
GUEST64(guest_rep_outsl, "rep outsl\n hlt");
GUEST64(guest_rep_insb, "rep insb\n hlt");
GUEST64(guest_rep_insw, "rep insw\n hlt");
GUEST64(guest_rep_insl, "rep insl\n hlt");
GUEST64(guest_outsb, "outsb\n hlt");
GUEST64(guest_insl, "insl\n hlt");
GUEST64(guest_rep_insw_down, "std\n rep insw\n hlt");
GUEST64(guest_rep_outsb_a32, "addr32 rep outsb\n hlt");
GUEST16(guest_rep_outsw_16, "rep outsw\n hlt");
GUEST16(guest_rep_insl_16, "rep insl\n hlt");
GUEST16(guest_rep_insb_a32, "addr32 rep insb\n hlt");
GUEST16(guest_outsb_fs, "fs outsb\n hlt");

static const struct {
	const char *name;
	const struct guest_code *code;
	uint8_t size, out;
	uint64_t addr;		/* RSI or RDI */
	uint64_t rcx;
	uint64_t addr_after, rcx_after;
	uint32_t first;		/* guest-physical address of the first element */
	unsigned int total;
} strings[] = {
	{ "rep outsb", &guest_rep_outsb, 1, 1, 0x8100, 100, 0x8164, 0, 0x8100, 100 },
	{ "rep outsw", &guest_rep_outsw, 2, 1, 0x8100, 100, 0x81c8, 0, 0x8100, 200 },
	{ "rep outsl", &guest_rep_outsl, 4, 1, 0x8100, 100, 0x8290, 0, 0x8100, 400 },
	{ "rep outsb, page crossing", &guest_rep_outsb, 1, 1, 0x8ff0, 64, 0x9030, 0, 0x8ff0, 64 },
	{ "rep outsl, element crossing", &guest_rep_outsl, 4, 1, 0x8ff2, 8, 0x9012, 0, 0x8ff2, 32 },
	{ "rep outsb, long", &guest_rep_outsb, 1, 1, 0x90000, 9000, 0x92328, 0, 0x90000, 9000 },
	{ "rep outsb, nothing", &guest_rep_outsb, 1, 1, 0x8100, 0, 0x8100, 0, 0x8100, 0 },
	{ "outsb", &guest_outsb, 1, 1, 0x8100, 5, 0x8101, 5, 0x8100, 1 },
	{ "rep insb", &guest_rep_insb, 1, 0, 0x8100, 100, 0x8164, 0, 0x8100, 100 },
	{ "rep insw", &guest_rep_insw, 2, 0, 0x8100, 100, 0x81c8, 0, 0x8100, 200 },
	{ "rep insl", &guest_rep_insl, 4, 0, 0x8100, 100, 0x8290, 0, 0x8100, 400 },
	{ "rep insb, page crossing", &guest_rep_insb, 1, 0, 0x8ff0, 64, 0x9030, 0, 0x8ff0, 64 },
	{ "rep insw, element crossing", &guest_rep_insw, 2, 0, 0x8ff1, 20, 0x9019, 0, 0x8ff1, 40 },
	{ "rep insb, long", &guest_rep_insb, 1, 0, 0x90000, 9000, 0x92328, 0, 0x90000, 9000 },
	{ "insl", &guest_insl, 4, 0, 0x8100, 5, 0x8104, 5, 0x8100, 4 },
	{ "rep insw, down", &guest_rep_insw_down, 2, 0, 0x8100, 10, 0x80ec, 0, 0x8100, 20 },
	/* A 32-bit address size uses ESI and ECX, and clears their upper halves. */
	{ "rep outsb, addr32", &guest_rep_outsb_a32, 1, 1, 0x100008100, 0x500000010,
	  0x8110, 0, 0x8100, 16 },
	{ "rep outsw, 16-bit", &guest_rep_outsw_16, 2, 1, 0x8100, 100, 0x81c8, 0, 0x8100, 200 },
	{ "rep insl, 16-bit", &guest_rep_insl_16, 4, 0, 0x8100, 50, 0x81c8, 0, 0x8100, 200 },
	{ "rep insb, 16-bit, addr32", &guest_rep_insb_a32, 1, 0, 0x8100, 20,
	  0x8114, 0, 0x8100, 20 },
	/* FS is based at 0x1000 here. */
	{ "outsb, FS, 16-bit", &guest_outsb_fs, 1, 1, 0x7100, 1, 0x7101, 1, 0x8100, 1 },
};

static void fill(struct tvm *t, uint32_t gpa, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		t->ram[gpa + i] = (uint8_t)(i * 7 + 3);
}

TEST_TIMEOUT(string_forms, 60)
{
	static uint8_t data[16384];
	size_t i, n;

	for (i = 0; i < sizeof(strings) / sizeof(strings[0]); i++) {
		struct kvm_sregs sregs;
		struct kvm_regs regs;
		unsigned int total;
		struct tvm t;

		tvm_init(&t, strings[i].code);
		sregs = tvm_sregs(&t, 0);
		if (strings[i].code->bits == 16)
			sregs.fs.base = 0x1000;
		tvm_set_sregs(&t, 0, &sregs);
		fill(&t, strings[i].first, strings[i].total);
		string_regs(&t, strings[i].out ? strings[i].addr : 0x1111,
			    strings[i].out ? 0x1111 : strings[i].addr, strings[i].rcx);
		total = transfer(&t, data, strings[i].size, 0x3f6,
				 strings[i].out ? KVM_EXIT_IO_OUT : KVM_EXIT_IO_IN);
		regs = tvm_regs(&t, 0);
		if (total != strings[i].total || regs.rcx != strings[i].rcx_after)
			tap_diag("%s", strings[i].name);
		EXPECT_EQ(total, strings[i].total);
		EXPECT_EQ(regs.rcx, strings[i].rcx_after);
		EXPECT_EQ(strings[i].out ? regs.rsi : regs.rdi, strings[i].addr_after);
		EXPECT_EQ(strings[i].out ? regs.rdi : regs.rsi, 0x1111);
		if (strings[i].out) {
			EXPECT_MEMEQ(data, t.ram + strings[i].first, total);
		} else if (strings[i].addr_after > strings[i].addr) {
			for (n = 0; n < total; n++)
				data[n] = (uint8_t)(n + 1);
			EXPECT_MEMEQ(t.ram + strings[i].first, data, total);
		} else {
			EXPECT_EQ(*(uint16_t *)(t.ram + 0x8100), 0x0201);
			EXPECT_EQ(*(uint16_t *)(t.ram + 0x80ee), 0x1413);
		}
		tvm_fini(&t);
	}
}

/* What the string touches is checked against the guest's own page tables. */
#define HOLE	0x200000000ull

GUEST(guest_string_faults)
{
	static uint8_t buf[16];
	uint64_t rsi, rcx;
	uint32_t vector;

	rsi = HOLE + 0x1000 - 2;
	rcx = 4;
	vector = GUEST_TRY("rep outsb", GUEST_OPS("+S"(rsi), "+c"(rcx)), GUEST_OPS("d"(0x3f6)));
	GUEST_EQ(vector, 14);
	GUEST_EQ(guest_cpu()->error, 0);
	GUEST_EQ(read_cr2(), HOLE + 0x1000);
	/* Two are out, and the registers say so: the fault can be resumed. */
	GUEST_EQ(rcx, 2);
	GUEST_EQ(rsi, HOLE + 0x1000);

	/* The page at HOLE is read-only. */
	vector = GUEST_TRY("insb", GUEST_OPS(), GUEST_OPS("D"(HOLE), "d"(0x3f6)));
	GUEST_EQ(vector, 14);
	GUEST_EQ(guest_cpu()->error, 3);
	GUEST_EQ(read_cr2(), HOLE);

	vector = GUEST_TRY("outsb", GUEST_OPS(), GUEST_OPS("S"(1ul << 62), "d"(0x3f6)));
	GUEST_EQ(vector, 13);
	(void)buf;
}

TEST(string_faults_belong_to_the_guest)
{
	unsigned int total = 0;
	bool is_report;
	struct tvm t;
	int reason;

	tvm_init(&t, &guest_string_faults);
	tvm_map(&t, HOLE, 0x90000, TVM_PTE_P);
	memcpy(t.ram + 0x90ffe, "\x77\x78", 2);
	for (;;) {
		uint64_t ret;

		reason = tvm_run(&t);
		ret = tvm_report(&t, 0, &is_report);
		if (is_report) {
			EXPECT_EQ(ret, TVM_DONE);
			break;
		}
		ASSERT_EQ(reason, KVM_EXIT_IO);
		if (t.run->io.direction == KVM_EXIT_IO_IN)
			continue;
		EXPECT_EQ(tvm_io_data(&t)[0], 0x77 + total);
		total += t.run->io.count;
	}
	EXPECT_EQ(total, 2);
	tvm_fini(&t);
}

/* The VMM may look at and change registers between the exits of a string. */
TEST(string_of_one_at_a_time_is_seen_whole)
{
	struct kvm_regs regs;
	struct tvm t;

	tvm_init(&t, &guest_insl);
	string_regs(&t, 0, 0x8100, 0);
	ASSERT_EQ(tvm_run(&t), KVM_EXIT_IO);
	memcpy(tvm_io_data(&t), "\x01\x02\x03\x04", 4);
	t.run->immediate_exit = 1;
	EXPECT_ERRNO(ioctl(t.cpu, KVM_RUN, 0), EINTR);
	t.run->immediate_exit = 0;
	regs = tvm_regs(&t, 0);
	EXPECT_EQ(regs.rdi, 0x8104);
	EXPECT_EQ(regs.rip, GUEST_CODE + 1);
	EXPECT_EQ(*(uint32_t *)(t.ram + 0x8100), 0x04030201);
	EXPECT_EQ(tvm_run(&t), KVM_EXIT_HLT);
	tvm_fini(&t);
}

/* The I/O permission bitmap and IOPL are the guest's. */
static volatile uint32_t user_vector;
static uint8_t user_stack[1024];

static void on_gp(struct guest_frame *frame)
{
	user_vector = (uint32_t)frame->vector;
	guest_exit();
}

static void user_out(void)
{
	outb(0x80, 1);
	for (;;)
		;
}

static void user_outs(void)
{
	uint64_t rsi = (uintptr_t)user_stack, rcx = 3;

	__asm__ volatile("rep outsb" : "+S"(rsi), "+c"(rcx) : "d"(0x80));
	for (;;)
		;
}

static void enter_user(void (*fn)(void))
{
	guest_handlers[13] = on_gp;
	__asm__ volatile("push %0; push %1; push $0x2; push %2; push %3; iretq" : :
			 "i"(GUEST_USER_DS), "r"(user_stack + sizeof(user_stack)),
			 "i"(GUEST_USER_CS), "r"(fn) : "memory");
}

GUEST(guest_user_io)
{
	enter_user(user_out);
}

GUEST(guest_user_string_io)
{
	enter_user(user_outs);
}

TEST(user_mode_io_without_permission_is_gp)
{
	static const struct guest_code *const codes[] = { &guest_user_io, &guest_user_string_io };
	struct tvm t;
	int i;

	if (tvm_in_bochs())
		SKIP("emulator: in Bochs an I/O exit comes before the check of permission");
	for (i = 0; i < 2; i++) {
		tvm_init(&t, codes[i]);
		EXPECT_EQ(tvm_go(&t), TVM_DONE);
		EXPECT_EQ(G(&t, user_vector), 13);
		tvm_fini(&t);
	}
}

/* RCX may change while user space has a string: that many are done then. */
TEST(the_count_is_user_spaces_to_change)
{
	static const struct { uint64_t rcx, changed, end; } cases[] = {
		{ 2, 1, 0x8101 }, { 3, 5000, 0x8100 + 5000 },
	};
	struct kvm_regs regs;
	struct tvm t;
	int i;

	for (i = 0; i < 2; i++) {
		tvm_init(&t, &guest_rep_insb);
		string_regs(&t, 0, 0x8100, cases[i].rcx);
		memset(t.ram + 0x8100, 0xee, 4);
		ASSERT_EQ(tvm_run(&t), KVM_EXIT_IO);
		EXPECT_EQ(t.run->io.count, cases[i].rcx);
		memset(tvm_io_data(&t), 0x55, 4096);
		regs = tvm_regs(&t, 0);
		regs.rcx = cases[i].changed;
		tvm_set_regs(&t, 0, &regs);
		while (tvm_run(&t) == KVM_EXIT_IO)
			;
		EXPECT_EQ(t.run->exit_reason, KVM_EXIT_HLT);
		EXPECT_EQ(tvm_regs(&t, 0).rcx, 0);
		EXPECT_EQ(tvm_regs(&t, 0).rdi, cases[i].end);
		EXPECT_EQ(t.ram[0x8100], 0x55);
		if (i == 0)
			EXPECT_EQ(t.ram[0x8101], 0xee);
		tvm_fini(&t);
	}
}
