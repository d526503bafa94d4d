// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Guests that execute garbage, in real, protected and long mode, with interrupt
 * controllers and timer mapped. Every fault goes to a handler that goes on with
 * the next instruction, so a guest gets far. It may do anything but disturb the host:
 * KVM_RUN must come back with an exit that a VMM can deal with, the state must
 * stay readable, and the bed sees to it that the kernel had nothing to say.
 */
#include <errno.h>
#include <string.h>

#include "fuzz.h"
#include "tvm.h"

#define STUBS		0x3000		/* 16 bytes for each vector */
#define CODE_SIZE	0x1000
#define ROUNDS		200		/* in each mode */
#define ROUNDS_A_VM	25
#define MAX_EXITS	200
#define TICK_NS		2000000

#define NOP		0x90
#define SLOT		16		/* bytes for an instruction; handlers go to the next */

#define CR0_PE		0x01
#define CR0_MP		0x02
#define CR0_EM		0x04
#define CR0_NE		0x20
#define CR4_PAE		0x20

static struct rng rng;
static unsigned int seen[64];		/* exits by reason */

#define ARRAY_SIZE(_a)	(sizeof(_a) / sizeof((_a)[0]))

#define INSN(_modrm, _imm, ...)	\
	{ sizeof((uint8_t[]){ __VA_ARGS__ }), { __VA_ARGS__ }, _modrm, _imm }
#define OP(...)			INSN(0, 0, __VA_ARGS__)
#define OP_M(...)		INSN(1, 0, __VA_ARGS__)
#define OP_I(...)		INSN(0, 1, __VA_ARGS__)
#define OP_MI(...)		INSN(1, 1, __VA_ARGS__)

/* An opcode, whether a ModRM byte follows, and bytes of an immediate operand. */
struct insn {
	uint8_t len;
	uint8_t bytes[3];
	uint8_t modrm;
	uint8_t imm;
};

/* Instructions that leave the guest. */
static const struct insn tame[] = {
	/* MOV, MOVS, STOS, LODS, SCAS, XCHG, MOVZX, MOVSX */
	OP_M(0x88), OP_M(0x89), OP_M(0x8a), OP_M(0x8b),
	OP_MI(0xc6), OP(0xa4), OP(0xa5), OP(0xaa), OP(0xab),
	OP(0xac), OP(0xae), OP_M(0x86), OP_M(0x87),
	OP_M(0x0f, 0xb6), OP_M(0x0f, 0xb7), OP_M(0x0f, 0xbe),
	OP(0xf3, 0xa4), OP(0xf3, 0xab), OP(0xf2, 0xae),
	/* arithmetic, bits, exchange and compare */
	OP_MI(0x80), OP_MI(0x83), OP_M(0x00), OP_M(0x21),
	OP_M(0x33), OP_M(0x85), OP_M(0xfe), OP_MI(0xf6),
	OP_M(0x0f, 0xab), OP_MI(0x0f, 0xba), OP_M(0x0f, 0xb1),
	OP_M(0x0f, 0xc1), OP_M(0x0f, 0xc7),
	/* ports */
	OP_I(0xe4), OP_I(0xe6), OP(0xec), OP(0xed),
	OP(0xee), OP(0xef), OP(0x6c), OP(0x6d), OP(0x6e),
	OP(0xf3, 0x6f), OP(0xf3, 0x6c),
	/* CPUID, MSRs, TSC; HLT, CLI, STI, PAUSE; reads of CRs and DRs, CLTS */
	OP(0x0f, 0xa2), OP(0x0f, 0x32), OP(0x0f, 0x30), OP(0x0f, 0x31),
	OP(0xf4), OP(0xfa), OP(0xfb), OP(0xfb, 0xf4),
	OP(0xf3, 0x90), OP_M(0x0f, 0x20), OP_M(0x0f, 0x21), OP(0x0f, 0x06),
	/* XSETBV, VMMCALL, VMCALL, VMRUN, MONITOR, MWAIT, INVD, WBINVD, UD2, RSM, RDPMC */
	OP(0x0f, 0x01, 0xd1), OP(0x0f, 0x01, 0xd9), OP(0x0f, 0x01, 0xc1),
	OP(0x0f, 0x01, 0xd8), OP(0x0f, 0x01, 0xc8), OP(0x0f, 0x01, 0xc9),
	OP(0x0f, 0x08), OP(0x0f, 0x09), OP(0x0f, 0x0b), OP(0x0f, 0xaa),
	OP(0x0f, 0x33),
	/* INT n, INT3, PUSHF */
	OP_I(0xcd), OP(0xcc), OP(0x9c),
};

/*
 * And those that change how the guest runs. QEMU aborts, or its translator
 * crashes, on several kinds of garbage in control registers, segments, TSS and
 * CR8, so its guests do without.
 */
static const struct insn wild[] = {
	OP_M(0x0f, 0x22), OP_M(0x0f, 0x23), OP_M(0x8e), OP(0x17), OP_M(0x0f, 0x01),
	OP_M(0x0f, 0x00), OP(0x0f, 0x05), OP(0x0f, 0x34), OP(0xf1), OP(0xcf), OP(0x48, 0xcf),
	OP(0x9d),
};

static const struct insn *some_insn(void)
{
	unsigned int n = rng_below(&rng, ARRAY_SIZE(tame) +
				   (tvm_in_tcg() ? 0 : ARRAY_SIZE(wild)));

	return n < ARRAY_SIZE(tame) ? &tame[n] : &wild[n - ARRAY_SIZE(tame)];
}

/* An instruction at @code; its length, of at most 12 bytes. */
static unsigned int put_insn(uint8_t *code, int bits)
{
	const struct insn *insn = some_insn();
	static const uint8_t prefixes[] = { 0x66, 0xf0, 0x2e, 0x64 };
	unsigned int n = 0, more;
	uint8_t modrm, mod, rm;

	if (!rng_below(&rng, 4))
		code[n++] = prefixes[rng_below(&rng, sizeof(prefixes))];
	if (bits == 64 && rng_below(&rng, 2) && insn->bytes[0] != 0xf3)
		code[n++] = 0x40 | rng_below(&rng, 16);
	memcpy(code + n, insn->bytes, insn->len);
	n += insn->len;
	more = insn->imm;
	if (insn->modrm) {
		modrm = rng_next(&rng) >> 56;
		mod = modrm >> 6;
		rm = modrm & 7;
		code[n++] = modrm;
		if (bits != 16 && mod != 3 && rm == 4) {
			code[n] = rng_next(&rng) >> 56;
			rm = code[n++] & 7;
		}
		if (mod == 1)
			more += 1;
		else if (mod == 2 || (mod == 0 && rm == (bits == 16 ? 6 : 5)))
			more += bits == 16 ? 2 : 4;
	}
	for (; more; more--)
		code[n++] = rng_next(&rng) >> 56;
	return n;
}

/*
 * One instruction in each slot. On a processor that is not QEMU's, half of the
 * guests get any bytes instead: QEMU's translator does not survive them.
 */
static void fill_code(uint8_t *code, int bits)
{
	bool any = !tvm_in_tcg() && rng_below(&rng, 2);
	unsigned int i, j;

	for (i = 0; i < CODE_SIZE; i += SLOT) {
		memset(code + i, NOP, SLOT);
		if (!any)
			put_insn(code + i, bits);
		for (j = 0; any && j < SLOT; j++)
			code[i + j] = rng_next(&rng) >> 56;
	}
}

/* A register: an address of memory or of a device, a port, an MSR, or anything. */
static uint64_t some_register(void)
{
	static const uint64_t useful[] = {
		0xfee00000, 0xfee000b0, 0xfee00300, 0xfee00320, 0xfec00000, 0xfec00010,
		0xa0000, 0xfffff, GUEST_RAM_SIZE, GUEST_RAM_SIZE - 2, GUEST_DATA, GUEST_CODE,
		GUEST_IDT, GUEST_GDT, GUEST_TSS, GUEST_PML4, GUEST_PD, 0x20, 0x40, 0x43, 0x61,
		0x4d0, 0xa1, 0x10, 0x1b, 0x174, 0x277, 0x2ff, 0x6e0, 0x800, 0x80b, 0x830, 0x838,
		0x4b564d00, 0x4b564d01, 0x4b564d03, 0xc0000080, 0xc0000081, 0xc0000102, 0xc0010015,
	};

	if (rng_below(&rng, 4))
		return useful[rng_below(&rng, ARRAY_SIZE(useful))] +
		       (rng_below(&rng, 4) ? 0 : rng_below(&rng, 64));
	return fuzz_number(&rng);
}

/* Handlers for all vectors: drop the error code, go to the next slot. */
static void put_handlers(struct tvm *t, int bits)
{
	/* push %bp; mov %sp, %bp; or $15, 2(%bp); inc 2(%bp); pop %bp; iret */
	static const uint8_t step16[] = { 0x55, 0x89, 0xe5, 0x83, 0x4e, 0x02, 0x0f, 0xff, 0x46,
					  0x02, 0x5d, 0xcf };
	/* add $4, %esp; or $15, (%esp); inc (%esp); iret; and so with 64 bits */
	static const uint8_t step32[] = { 0x83, 0xc4, 0x04, 0x83, 0x0c, 0x24, 0x0f, 0xff, 0x04,
					  0x24, 0xcf };
	static const uint8_t step64[] = { 0x48, 0x83, 0xc4, 0x08, 0x48, 0x83, 0x0c, 0x24, 0x0f,
					  0x48, 0xff, 0x04, 0x24, 0x48, 0xcf };
	/* #DF, #TS, #NP, #SS, #GP, #PF, #AC, #CP push an error code. */
	const uint32_t with_error = 0x00227d00;
	uint32_t *idt = tvm_ptr(t, GUEST_IDT);
	unsigned int v;

	for (v = 0; v < 256; v++) {
		uint32_t stub = STUBS + 16 * v;
		bool has_error = v < 32 && (with_error & 1u << v);
		unsigned int skip;

		switch (bits) {
		case 16:
			memcpy(tvm_ptr(t, stub), step16, sizeof(step16));
			((uint32_t *)tvm_ptr(t, 0))[v] = stub;
			break;
		case 32:
			skip = has_error ? 0 : 3;
			memcpy(tvm_ptr(t, stub), step32 + skip, sizeof(step32) - skip);
			idt[2 * v] = GUEST_CS32 << 16 | stub;
			idt[2 * v + 1] = 0x8e00;
			break;
		default:
			skip = has_error ? 0 : 4;
			memcpy(tvm_ptr(t, stub), step64 + skip, sizeof(step64) - skip);
			idt[4 * v] = GUEST_CS64 << 16 | stub;
			idt[4 * v + 1] = 0x8e00;
			idt[4 * v + 2] = idt[4 * v + 3] = 0;
		}
	}
}

/* The machine as it was made: garbage reaches its tables, too. */
static struct {
	uint8_t memory[GUEST_LOW_END];
	struct kvm_sregs sregs;
	struct kvm_vcpu_events events;
	struct kvm_debugregs debug;
} fresh;

static void remember_state(struct tvm *t)
{
	memcpy(fresh.memory, t->ram, GUEST_LOW_END);
	fresh.sregs = tvm_sregs(t, 0);
	ASSERT_OK(ioctl(t->cpu, KVM_GET_VCPU_EVENTS, &fresh.events));
	ASSERT_OK(ioctl(t->cpu, KVM_GET_DEBUGREGS, &fresh.debug));
}

static void set_state(struct tvm *t, int bits)
{
	static uint8_t code[CODE_SIZE];
	const struct guest_code garbage = { .bits = bits, .start = code, .end = code + CODE_SIZE };
	struct kvm_mp_state runnable = { KVM_MP_STATE_RUNNABLE };
	struct kvm_sregs sregs;
	struct kvm_regs regs;
	uint64_t *reg;

	memcpy(t->ram, fresh.memory, GUEST_LOW_END);
	tvm_set_sregs(t, 0, &fresh.sregs);
	ASSERT_OK(ioctl(t->cpu, KVM_SET_VCPU_EVENTS, &fresh.events));
	ASSERT_OK(ioctl(t->cpu, KVM_SET_DEBUGREGS, &fresh.debug));
	fill_code(code, bits);
	tvm_set_code(t, 0, &garbage);
	put_handlers(t, bits);
	sregs = tvm_sregs(t, 0);
	sregs.idt.base = bits == 16 ? 0 : GUEST_IDT;
	sregs.idt.limit = 0xfff;
	/* No x87: with its errors as interrupts the emulator of the bed aborts. */
	sregs.cr0 |= CR0_MP | CR0_EM | CR0_NE;
	/* Nor LME without PAE, which a WRMSR could make: see the bed's README. */
	sregs.cr4 |= CR4_PAE;
	/*
	 * An IRET of a handler whose stack is garbage may lead to virtual-8086 mode,
	 * and QEMU aborts when it then needs a TSS that is busy: an available one it takes.
	 */
	if (tvm_in_tcg())
		sregs.tr.type = 9;
	tvm_set_sregs(t, 0, &sregs);
	regs = tvm_regs(t, 0);
	/* All but RSP, between RSI, RDI and RBP. */
	for (reg = (uint64_t *)&regs.rax; reg <= (uint64_t *)&regs.r15; reg++)
		if (reg != (uint64_t *)&regs.rsp)
			*reg = some_register();
	tvm_set_regs(t, 0, &regs);
	ASSERT_OK(ioctl(t->cpu, KVM_SET_MP_STATE, &runnable));
}

/* Whether the guest can go on after this exit. */
static bool handle_exit(struct tvm *t)
{
	struct kvm_run *run = t->run;
	uint64_t data = rng_next(&rng);
	struct kvm_sregs sregs;
	struct kvm_regs regs;

	EXPECT_LT(run->exit_reason, ARRAY_SIZE(seen));
	seen[run->exit_reason]++;
	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		EXPECT_LE(run->io.size * run->io.count, 0x1000u);
		if (run->io.direction == KVM_EXIT_IO_IN)
			memcpy((char *)run + run->io.data_offset, &data, run->io.size);
		return true;
	case KVM_EXIT_MMIO:
		EXPECT_TRUE(run->mmio.len >= 1 && run->mmio.len <= 8);
		memcpy(run->mmio.data, &data, sizeof(data));
		return true;
	case KVM_EXIT_INTERNAL_ERROR:
		/* Garbage need not be an instruction that is emulated. */
		if (run->internal.suberror != KVM_INTERNAL_ERROR_EMULATION)
			return false;
		regs = tvm_regs(t, 0);
		regs.rip = (regs.rip | (SLOT - 1)) + 1;
		tvm_set_regs(t, 0, &regs);
		return true;
	case KVM_EXIT_HLT:
	case KVM_EXIT_SHUTDOWN:
		return false;
	case KVM_EXIT_SET_TPR:
	case KVM_EXIT_INTR:
		return true;
	default:
		sregs = tvm_sregs(t, 0);
		/* QEMU does not check MOV to CR0, but VMRUN. */
		if (run->exit_reason == KVM_EXIT_FAIL_ENTRY && tvm_in_tcg() &&
		    !(sregs.cr0 & CR0_PE))
			return false;
		tap_fail("exit reason %u; CR0 %llx, CR3 %llx, CR4 %llx, EFER %llx, CS.L %u, CS.D %u",
			 run->exit_reason, sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer,
			 sregs.cs.l, sregs.cs.db);
	}
}

static void play(struct tvm *t, timer_t timer)
{
	struct kvm_vcpu_events events;
	unsigned int exits, first = fuzz_ticks;
	bool goes_on = true;

	fuzz_set_period(timer, TICK_NS);
	for (exits = 0; goes_on && exits < MAX_EXITS && fuzz_ticks - first < 2; exits++) {
		if (!ioctl(t->cpu, KVM_RUN, 0))
			goes_on = handle_exit(t);
		else if (errno != EINTR)
			tap_fail("KVM_RUN: %s", strerror(errno));
	}
	fuzz_set_period(timer, 0);
	tvm_regs(t, 0);
	tvm_sregs(t, 0);
	ASSERT_OK(ioctl(t->cpu, KVM_GET_VCPU_EVENTS, &events));
}

static void fuzz(int bits)
{
	unsigned int i, rounds = fuzz_steps(ROUNDS);
	timer_t timer = fuzz_timer();
	struct tvm t;

	rng = rng_create(bits);
	for (i = 0; i < rounds; i++) {
		if (i % ROUNDS_A_VM == 0) {
			tvm_init_bare(&t, i / ROUNDS_A_VM % 4 ? TVM_IRQCHIP | TVM_PIT : 0);
			tvm_add_vcpu(&t, 0);
			remember_state(&t);
		}
		set_state(&t, bits);
		play(&t, timer);
		if (i % ROUNDS_A_VM == ROUNDS_A_VM - 1)
			tvm_fini(&t);
	}
	for (i = 0; i < ARRAY_SIZE(seen); i++)
		if (seen[i])
			tap_diag("exit reason %u: %u times", i, seen[i]);
	/* The garbage did reach ports, memory that is none, and its end. */
	EXPECT_NE(seen[KVM_EXIT_IO], 0);
	EXPECT_TRUE(bits == 16 || seen[KVM_EXIT_MMIO]);
	EXPECT_NE(seen[KVM_EXIT_SHUTDOWN] + seen[KVM_EXIT_HLT], 0);
}

TEST_TIMEOUT(garbage_in_real_mode, 3600)
{
	fuzz(16);
}

TEST_TIMEOUT(garbage_in_protected_mode, 3600)
{
	fuzz(32);
}

TEST_TIMEOUT(garbage_in_long_mode, 3600)
{
	fuzz(64);
}
