// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * KVM_SET_GUEST_DEBUG: a debugger outside the guest, which neither sees its
 * breakpoints nor loses its own debug registers to them. And entries that the
 * processor refuses, broken on purpose where the module was loaded for that.
 */
#include <errno.h>
#include <linux/fonda.h>
#include <string.h>

#include "tvm.h"

#define DR6_CLEAR	0xffff0ff0u
#define DR6_BS		0x4000u
#define DR6_BD		0x2000u
#define DR7_GD		0x2000u
#define DR7_EMPTY	0x400u
#define DB		1
#define BP		3

static void set_debug(struct tvm *t, uint32_t control, int reg, uint64_t address, uint64_t dr7)
{
	struct kvm_guest_debug debug = { .control = KVM_GUESTDBG_ENABLE | control };

	debug.arch.debugreg[reg] = address;
	debug.arch.debugreg[7] = DR7_EMPTY | dr7;
	ASSERT_OK(ioctl(t->cpu, KVM_SET_GUEST_DEBUG, &debug));
}

static void expect_debug_exit(struct tvm *t, uint32_t exception, uint64_t pc, uint64_t dr6)
{
	ASSERT_EQ(tvm_run(t), KVM_EXIT_DEBUG);
	EXPECT_EQ(t->run->debug.arch.exception, exception);
	EXPECT_EQ(t->run->debug.arch.pc, pc);
	EXPECT_EQ(t->run->debug.arch.dr6, dr6);
}

/* Among them some that the processor executes and some that exit. */
GUEST64(guest_walks,
	"xor %eax, %eax\n"			/* 2 bytes */
	"cpuid\n"				/* 2 */
	"sti\n"					/* 1 */
	"nop\n"					/* 1 */
	"mov $0x1b, %ecx\n"			/* 5 */
	"rdmsr\n"				/* 2 */
	"pushf\n"				/* 1 */
	"pop %rax\n"				/* 1 */
	"hlt\n");

TEST(single_step_stops_after_each_instruction)
{
	static const int length[] = { 2, 2, 1, 1, 5, 2, 1, 1 };
	uint64_t pc = GUEST_CODE;
	struct kvm_regs regs;
	struct tvm t;
	unsigned int i;

	if (tvm_in_bochs())
		SKIP("emulator: an instruction that an exit interrupts is stepped over twice, on stock KVM too");
	tvm_init(&t, &guest_walks);
	set_debug(&t, KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_BLOCKIRQ, 0, 0, 0);
	for (i = 0; i < sizeof(length) / sizeof(length[0]); i++) {
		pc += length[i];
		expect_debug_exit(&t, DB, pc, DR6_CLEAR | DR6_BS);
	}
	/* The trap flag is the debugger's. */
	regs = tvm_regs(&t, 0);
	EXPECT_EQ(regs.rflags & 0x100, 0);

	set_debug(&t, 0, 0, 0, 0);
	EXPECT_EQ(tvm_run(&t), KVM_EXIT_HLT);
	tvm_fini(&t);
}

static volatile uint64_t watched;

GUEST(guest_writes)
{
	watched = 1;
	GUEST_SYNC(1);
	watched = 2;
}

TEST(data_breakpoint_in_each_register)
{
	unsigned int i;

	for (i = 0; i < 4; i++) {
		struct tvm t;

		tvm_init(&t, &guest_writes);
		/* Enabled, on writes, of 8 bytes. */
		set_debug(&t, KVM_GUESTDBG_USE_HW_BP, i, (uintptr_t)&watched,
			  2ull << 2 * i | 9ull << (16 + 4 * i));
		ASSERT_EQ(tvm_run(&t), KVM_EXIT_DEBUG);
		EXPECT_EQ(t.run->debug.arch.dr6, DR6_CLEAR | 1u << i);
		EXPECT_EQ(G(&t, watched), 1);
		ASSERT_EQ(tvm_go(&t), 1);
		/* Without a debugger nothing stops it. */
		set_debug(&t, 0, 0, 0, 0);
		ASSERT_EQ(tvm_go(&t), TVM_DONE);
		EXPECT_EQ(G(&t, watched), 2);
		tvm_fini(&t);
	}
}

GUEST64(guest_uses_debug_registers,
	"nop\n"
	"mov $0x1234, %eax\n"
	"mov %rax, %db0\n"
	"mov %db0, %rbx\n"
	"mov %db7, %rcx\n"
	"hlt\n");

TEST(guest_keeps_its_debug_registers)
{
	struct kvm_debugregs d;
	struct kvm_regs regs;
	struct tvm t;

	tvm_init(&t, &guest_uses_debug_registers);
	set_debug(&t, KVM_GUESTDBG_USE_HW_BP, 1, GUEST_CODE, 2 << 2);
	expect_debug_exit(&t, DB, GUEST_CODE, DR6_CLEAR | 2);
	set_debug(&t, KVM_GUESTDBG_USE_HW_BP, 1, 0xdead0, 2 << 2);
	ASSERT_EQ(tvm_run(&t), KVM_EXIT_HLT);
	regs = tvm_regs(&t, 0);
	EXPECT_EQ(regs.rbx, 0x1234);
	EXPECT_EQ(regs.rcx, DR7_EMPTY);
	ASSERT_OK(ioctl(t.cpu, KVM_GET_DEBUGREGS, &d));
	EXPECT_EQ(d.db[0], 0x1234);
	EXPECT_EQ(d.db[1], 0);
	tvm_fini(&t);
}

GUEST64(guest_reads_a_debug_register, "mov %db0, %rbx\n" "hlt\n");

TEST(general_detect_stops_at_the_access)
{
	struct tvm t;

	tvm_init(&t, &guest_reads_a_debug_register);
	set_debug(&t, KVM_GUESTDBG_USE_HW_BP, 0, 0, DR7_GD);
	/* kvm-amd lets it pass where the processor has no decode assists. */
	if (!tvm_is_stock())
		expect_debug_exit(&t, DB, GUEST_CODE, DR6_CLEAR | DR6_BD);
	set_debug(&t, 0, 0, 0, 0);
	EXPECT_EQ(tvm_run(&t), KVM_EXIT_HLT);
	tvm_fini(&t);
}

GUEST64(guest_breaks, "int3\n" "hlt\n");

TEST(int3_is_an_exit)
{
	struct tvm t;

	if (tvm_in_tcg())
		SKIP("emulator: #BP is not intercepted");
	tvm_init(&t, &guest_breaks);
	set_debug(&t, KVM_GUESTDBG_USE_SW_BP, 0, 0, 0);
	ASSERT_EQ(tvm_run(&t), KVM_EXIT_DEBUG);
	EXPECT_EQ(t.run->debug.arch.exception, BP);
	EXPECT_EQ(t.run->debug.arch.pc, GUEST_CODE);
	tvm_fini(&t);
}

TEST(debugger_injects_once)
{
	struct kvm_guest_debug debug = { .control = KVM_GUESTDBG_INJECT_DB };
	struct kvm_vcpu_events events;
	struct tvm t;

	tvm_init(&t, &guest_breaks);
	ASSERT_OK(ioctl(t.cpu, KVM_SET_GUEST_DEBUG, &debug));
	ASSERT_OK(ioctl(t.cpu, KVM_GET_VCPU_EVENTS, &events));
	EXPECT_EQ(events.exception.nr, DB);
	EXPECT_ERRNO(ioctl(t.cpu, KVM_SET_GUEST_DEBUG, &debug), EBUSY);
	tvm_fini(&t);
}

/* -- entries that fail ------------------------------------------------------ */

#define VMCB_ASID	0x58

TEST(failed_entry_is_kept)
{
	struct fonda_entry_field field = { .field = VMCB_ASID, .size = 4, .value = 0 };
	struct fonda_entry_field bad = { .field = 4095, .size = 4 };
	static struct fonda_failed_entry entry;
	struct tvm t;

	if (tvm_is_stock()) {
		tvm_init(&t, &guest_walks);
		EXPECT_ERRNO(ioctl(t.cpu, FONDA_GET_FAILED_ENTRY, &entry), EINVAL);
		tvm_fini(&t);
		return;
	}
	tvm_init(&t, &guest_walks);
	EXPECT_ERRNO(ioctl(t.cpu, FONDA_GET_FAILED_ENTRY, &entry), ENOENT);
	if (ioctl(t.cpu, FONDA_BREAK_ENTRY, &field)) {
		/* Only a module loaded with break_entry=1 would. */
		EXPECT_EQ(errno, EPERM);
		EXPECT_EQ(tvm_run(&t), KVM_EXIT_HLT);
		tvm_fini(&t);
		return;
	}
	ASSERT_EQ(tvm_run(&t), KVM_EXIT_FAIL_ENTRY);
	ASSERT_OK(ioctl(t.cpu, FONDA_GET_FAILED_ENTRY, &entry));
	if (entry.vendor == FONDA_ENTRY_SVM) {
		uint32_t asid;

		EXPECT_ERRNO(ioctl(t.cpu, FONDA_BREAK_ENTRY, &bad), EINVAL);
		memcpy(&asid, entry.vmcb + VMCB_ASID, sizeof(asid));
		EXPECT_EQ(asid, 0);
		EXPECT_EQ(entry.reason, t.run->fail_entry.hardware_entry_failure_reason);
	}
	/* It was for once. QEMU has stored the host's state in place of the guest's. */
	if (!tvm_in_tcg())
		EXPECT_EQ(tvm_run(&t), KVM_EXIT_HLT);
	tvm_fini(&t);
}
