// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Exceptions and the instructions that a hypervisor intercepts: vectors,
 * error codes and return addresses, privilege checks, interrupt shadows,
 * single steps, debug registers, deliveries that fault half-way, and the way
 * from real mode to long mode.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tvm.h"

#define HOLE	0x200000000ull	/* not mapped by the guest */

/* CPUID leaf 7, EBX */
#define CPUID7_FSGSBASE	(1u << 0)
#define CPUID7_SMEP	(1u << 7)

#define GUEST_TRY0(_insn)	GUEST_TRY(_insn, , )

static void run_to_done(const struct guest_code *code, unsigned int flags)
{
	struct tvm t;

	tvm_init_smp(&t, code, flags, 1);
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);
}

GUEST(guest_faults)
{
	uint64_t zero = 0;

	GUEST_EQ(GUEST_TRY("divq %0", , GUEST_OPS("r"(zero), "a"(1), "d"(0))), 0);
	GUEST_EQ(GUEST_TRY0("ud2"), 6);
	GUEST_EQ(GUEST_TRY0("int3"), 3);
	GUEST_EQ(GUEST_TRY0("int $4"), 4);
	/* A selector beyond the GDT, as a data segment: #GP(selector). */
	GUEST_EQ(GUEST_TRY("mov %w0, %%fs", , GUEST_OPS("r"(0xfff8))), 13);
	GUEST_EQ(guest_cpu()->error, 0xfff8);
	/* Not canonical. */
	GUEST_EQ(GUEST_TRY("mov (%0), %%r11", , GUEST_OPS("r"(1ul << 62))), 13);
	GUEST_EQ(guest_cpu()->error, 0);

	/* #PF: not present, write to read-only, fetch from no-execute. */
	GUEST_EQ(GUEST_TRY("mov (%0), %%r11", , GUEST_OPS("r"(HOLE + 0x10))), 14);
	GUEST_EQ(guest_cpu()->error, 0);
	GUEST_EQ(read_cr2(), HOLE + 0x10);
	GUEST_EQ(GUEST_TRY("movb $1, (%0)", , GUEST_OPS("r"(HOLE + 0x11))), 14);
	GUEST_EQ(guest_cpu()->error, 2);
	GUEST_EQ(read_cr2(), HOLE + 0x11);
	GUEST_EQ(GUEST_TRY("movb $1, (%0)", , GUEST_OPS("r"(HOLE + 0x1020))), 14);
	GUEST_EQ(guest_cpu()->error, 3);
	GUEST_EQ(GUEST_TRY("jmp *%0", , GUEST_OPS("r"(HOLE + 0x2000))), 14);
	GUEST_EQ(guest_cpu()->error, 0x11);
}

TEST(vectors_and_error_codes)
{
	struct tvm t;

	tvm_init(&t, &guest_faults);
	tvm_map(&t, HOLE + 0x1000, 0x90000, TVM_PTE_P);
	tvm_map(&t, HOLE + 0x2000, 0x90000, TVM_PTE_P | TVM_PTE_W | TVM_PTE_NX);
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);
}

/* Faults of intercepted instructions return to the instruction itself. */
#define FAULTS_AT_ITSELF(_insn, _vector, _ops)				\
	do {								\
		uint64_t at;						\
									\
		__asm__ volatile("lea 1f(%%rip), %0\n1:" : "=r"(at));	\
		GUEST_EQ(GUEST_TRY(_insn, , GUEST_OPS _ops), _vector);	\
		GUEST_TRUE(guest_cpu()->fault_rip > at);		\
		GUEST_TRUE(guest_cpu()->fault_rip < at + 80);		\
	} while (0)

GUEST(guest_intercepted_faults)
{
	uint64_t cr4 = read_cr4();

	FAULTS_AT_ITSELF("rdmsr", 13, ("c"(0xdeadbeef), "a"(0)));
	FAULTS_AT_ITSELF("wrmsr", 13, ("c"(0xdeadbeef), "a"(0), "d"(0)));
	FAULTS_AT_ITSELF("mov %0, %%cr4", 13, ("r"(1ul << 31 | 0x620)));
	FAULTS_AT_ITSELF("mov %0, %%cr4", 13, ("r"(0x600ul)));	/* PAE off in long mode */
	FAULTS_AT_ITSELF("vmrun %%rax", 6, ("a"(0)));
	FAULTS_AT_ITSELF("rsm", 6, ("a"(0)));
	GUEST_EQ(read_cr4(), cr4);
}

/*
 * Of a guest that has all bits of CR4 that the processor has, writes to CR4 are
 * the processor's to check, and QEMU's does not. This one lacks some.
 */
static void take_features(struct tvm *t)
{
	struct kvm_cpuid2 *cpuid = tvm_supported_cpuid(t->dev);
	unsigned int i;

	for (i = 0; i < cpuid->nent; i++)
		if (cpuid->entries[i].function == 7 && !cpuid->entries[i].index)
			cpuid->entries[i].ebx &= ~(CPUID7_FSGSBASE | CPUID7_SMEP);
	ASSERT_OK(ioctl(t->cpu, KVM_SET_CPUID2, cpuid));
	free(cpuid);
}

TEST(intercepted_instructions_fault_at_themselves)
{
	struct tvm t;

	tvm_init_smp(&t, &guest_intercepted_faults, TVM_IRQCHIP, 1);
	take_features(&t);
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);
}

GUEST(guest_bad_cr0)
{
	FAULTS_AT_ITSELF("mov %0, %%cr0", 13, ("r"(0x80000000ul)));	/* PG, no PE */
	FAULTS_AT_ITSELF("mov %0, %%cr0", 13, ("r"(0xa0010033ul)));	/* NW, no CD */
	GUEST_EQ(read_cr0(), 0x80010033);
}

TEST(impossible_cr0)
{
	struct tvm t;

	tvm_init(&t, &guest_bad_cr0);
	/* The processor's own check, where the write is not intercepted. */
	if (tvm_in_tcg() && !tvm_is_stock())
		SKIP("emulator: TCG does not check what is written to CR0");
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);
}

GUEST(guest_xsetbv)
{
	write_cr4(read_cr4() | 1 << 18);
	GUEST_EQ(GUEST_TRY("xsetbv", , GUEST_OPS("c"(0), "a"(0), "d"(0))), 13);
	GUEST_EQ(GUEST_TRY("xsetbv", , GUEST_OPS("c"(0), "a"(5), "d"(0))), 13);
	GUEST_EQ(GUEST_TRY("xsetbv", , GUEST_OPS("c"(1), "a"(1), "d"(0))), 13);
	GUEST_EQ(GUEST_TRY("xsetbv", , GUEST_OPS("c"(0), "a"(1), "d"(0x40000000))), 13);
	GUEST_EQ(GUEST_TRY("xsetbv", , GUEST_OPS("c"(0), "a"(3), "d"(0))), GUEST_NO_FAULT);
}

TEST(xsetbv_checks_its_value)
{
	struct tvm t;

	if (!tvm_cpuid(0xd, 0) || !(tvm_cpuid(1, 0)->ecx >> 26 & 1))
		SKIP("emulator: no XSAVE in CPUID");
	tvm_init(&t, &guest_xsetbv);
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);
}

/* What is intercepted and succeeds must go on behind its last byte. */
GUEST(guest_lengths)
{
	uint64_t val = 0x1111, cr4 = read_cr4(), cr0 = read_cr0();
	uint32_t a, b, c, d;

	/* Prefixes lengthen the instruction: the hardware may not tell by how much. */
	__asm__ volatile(".byte 0x2e, 0x66, 0xf3, 0x0f, 0xa2" : "=a"(a), "=b"(b), "=c"(c), "=d"(d)
			 : "a"(0), "c"(0));
	GUEST_EQ(a, cpuid(0, 0).eax);
	__asm__ volatile(".byte 0x48, 0x0f, 0x32" : "=a"(a), "=d"(d) : "c"(MSR_EFER));
	GUEST_EQ(a, (uint32_t)rdmsr(MSR_EFER));
	__asm__ volatile(".byte 0x2e, 0x0f, 0x30" : : "c"(MSR_KERNEL_GS_BASE), "a"(5), "d"(6));
	GUEST_EQ(rdmsr(MSR_KERNEL_GS_BASE), 0x600000005);
	__asm__ volatile("wbinvd");
	__asm__ volatile(".byte 0x66, 0x0f, 0x09");
	__asm__ volatile("invd");

	/* Control registers through R8-R15, and CLTS, LMSW, SMSW. */
	__asm__ volatile("mov %0, %%r9; mov %%r9, %%cr4; mov %%cr4, %%r13; mov %%r13, %1"
			 : : "r"(cr4 | 0x80), "m"(val) : "r9", "r13", "memory");
	__asm__ volatile("mov %%cr4, %0" : "=r"(val));
	GUEST_EQ(val, cr4 | 0x80);
	write_cr4(cr4);
	__asm__ volatile("mov %0, %%r14; mov %%r14, %%cr0" : : "r"(cr0 | 8) : "r14");
	GUEST_EQ(read_cr0(), cr0 | 8);
	GUEST_EQ(GUEST_TRY0("fnop"), 7);		/* #NM */
	__asm__ volatile("clts");
	GUEST_EQ(read_cr0(), cr0);
	__asm__ volatile("lmsw %w0" : : "r"((uint16_t)(cr0 | 8)));
	GUEST_EQ(read_cr0(), cr0 | 8);
	__asm__ volatile("smsw %0" : "=r"(val));
	GUEST_EQ(val & 0xffff, (cr0 | 8) & 0xffff);
	write_cr0(cr0);
	write_cr0(cr0 & ~0x10000ul);
	GUEST_EQ(read_cr0(), cr0 & ~0x10000ul);
	write_cr0(cr0);
	write_cr2(0x123456789a);
	GUEST_EQ(read_cr2(), 0x123456789a);
	write_cr3(read_cr3());
	__asm__ volatile("invlpg (%0)" : : "r"(HOLE) : "memory");

	/* An unknown hypercall: -KVM_ENOSYS, whatever the arguments. */
	GUEST_EQ((int64_t)hypercall(0x12345, 1, 2, 3, 4), -1000);
	__asm__ volatile("pause; pause; pause");
}

TEST(intercepted_instructions_advance)
{
	run_to_done(&guest_lengths, TVM_IRQCHIP);
}

/* At CPL 3 the privileged ones are #GP(0), before any intercept. */
static uint8_t user_stack[4096] __attribute__((aligned(16)));
static volatile uint32_t user_checks;

static void on_user_exit(struct guest_frame *frame)
{
	(void)frame;
	guest_exit();
}

static void user_tries(void)
{
#define IS_GP(_insn, _ops)						\
	do {								\
		if (GUEST_TRY(_insn, , GUEST_OPS _ops) != 13)		\
			__asm__ volatile("ud2" : : "a"(__LINE__));	\
		user_checks++;						\
	} while (0)
	IS_GP("hlt", ("a"(0)));
	IS_GP("cli", ("a"(0)));
	IS_GP("rdmsr", ("c"(MSR_EFER), "a"(0)));
	IS_GP("wrmsr", ("c"(MSR_TSC), "a"(0), "d"(0)));
	IS_GP("mov %%cr0, %0", ("r"(0ul)));
	IS_GP("mov %0, %%cr4", ("r"(0ul)));
	IS_GP("mov %%dr7, %0", ("r"(0ul)));
	IS_GP("invlpg (%0)", ("r"(HOLE)));
	IS_GP("clts", ("a"(0)));
	IS_GP("in $0x80, %%al", ("a"(0)));
	IS_GP("rep insb", ("c"(1), "d"(0x80), "D"(HOLE)));
	/* And a page of the supervisor: #PF with the user bit. */
	if (GUEST_TRY("mov (%0), %%r11", , GUEST_OPS("r"(HOLE + 0x1000))) != 14 ||
	    guest_cpu()->error != 5)
		__asm__ volatile("ud2" : : "a"(__LINE__));
	/* CPUID is for everybody. */
	cpuid(0, 0);
	__asm__ volatile("int $0x80");
}

GUEST(guest_goes_to_user_mode)
{
	guest_handlers[0x80] = on_user_exit;
	__asm__ volatile("push %0; push %1; push $0x2; push %2; push %3; iretq" : :
			 "i"(GUEST_USER_DS), "r"(user_stack + sizeof(user_stack) - 8),
			 "i"(GUEST_USER_CS), "r"(user_tries) : "memory");
}

TEST(privileged_instructions_in_user_mode)
{
	struct tvm t;

	if (tvm_in_bochs())
		SKIP("emulator: in Bochs an I/O exit comes before the check of permission");
	tvm_init(&t, &guest_goes_to_user_mode);
	tvm_map(&t, HOLE + 0x1000, 0x90000, TVM_PTE_P | TVM_PTE_W);
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	EXPECT_EQ(G(&t, user_checks), 11);
	tvm_fini(&t);
}

/* A fault while a fault is delivered: #DF, whose error code is zero. */
static volatile uint64_t df_error = 1;

static void on_double_fault(struct guest_frame *frame)
{
	df_error = frame->error;
	guest_exit();
}

GUEST(guest_double_faults)
{
	guest_handlers[8] = on_double_fault;
	/* The gate of #GP leads to a segment that is none. */
	*(volatile uint16_t *)(GUEST_IDT + 13 * 16 + 2) = 0xfff8;
	__asm__ volatile("rdmsr" : : "c"(0xdeadbeef) : "eax", "edx");
}

TEST(double_fault)
{
	struct tvm t;

	tvm_init(&t, &guest_double_faults);
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	EXPECT_EQ(G(&t, df_error), 0);
	tvm_fini(&t);
}

/* The instruction behind STI and MOV SS is not interrupted. */
static volatile uint64_t irq_rip, sti_rip;

static void on_irq(struct guest_frame *frame)
{
	irq_rip = frame->rip;
	guest_eoi_handler(frame);
}

static void self_ipi(uint32_t vector)
{
	apic_icr(0, APIC_DEST_SELF | APIC_ASSERT | vector);
}

GUEST(guest_shadows)
{
	uint64_t after;

	guest_handlers[0x40] = on_irq;
	guest_x2apic = true;
	apic_enable();
	cli();
	self_ipi(0x40);
	GUEST_EQ(guest_cpu()->irqs[0x40], 0);
	__asm__ volatile("lea 1f(%%rip), %0\n\tsti\n\tnop\n1:\tnop\n\tcli"
			 : "=r"(after) : : "memory");
	GUEST_EQ(guest_cpu()->irqs[0x40], 1);
	GUEST_EQ(irq_rip, after);

	/* STI, CLI: no window at all. */
	self_ipi(0x40);
	__asm__ volatile("sti\n\tcli\n\tnop" : : : "memory");
	GUEST_EQ(guest_cpu()->irqs[0x40], 1);

	/* An intercepted instruction in the shadow ends it like any other. */
	__asm__ volatile("sti\n\tcpuid\n1:\tnop\n\tcli\n\tlea 1b(%%rip), %0"
			 : "=r"(after) : "a"(0), "c"(0) : "rbx", "rdx", "memory");
	GUEST_EQ(guest_cpu()->irqs[0x40], 2);
	GUEST_EQ(irq_rip, after);

	sti();
	__asm__ volatile("mov %%ss, %%eax\n\tcli" : : : "eax", "memory");
	self_ipi(0x40);
	__asm__ volatile("sti\n\tnop\n\tcli" : : : "memory");
	GUEST_EQ(guest_cpu()->irqs[0x40], 3);
}

TEST(interrupt_shadows)
{
	run_to_done(&guest_shadows, TVM_IRQCHIP);
}

/* The shadow of an STI whose next instruction an exit has put off. */
GUEST(guest_put_off)
{
	uint64_t after;

	guest_handlers[0x40] = on_irq;
	guest_x2apic = true;
	apic_enable();
	cli();
	__asm__ volatile("out %%al, $0x80\n\tnop\n1:\tnop\n\tcli\n\tlea 1b(%%rip), %0"
			 : "=r"(after) : "a"(0) : "memory");
	GUEST_EQ(guest_cpu()->irqs[0x40], 1);
	GUEST_EQ(irq_rip, after);
}

TEST(a_shadow_outlives_the_exit)
{
	struct kvm_vcpu_events events;
	struct kvm_regs regs;
	struct tvm t;

	tvm_init_smp(&t, &guest_put_off, TVM_IRQCHIP, 1);
	ASSERT_EQ(tvm_run(&t), KVM_EXIT_IO);
	t.run->immediate_exit = 1;
	ASSERT_ERRNO(ioctl(t.cpu, KVM_RUN, 0), EINTR);
	t.run->immediate_exit = 0;

	regs = tvm_regs(&t, 0);
	regs.rflags |= 1 << 9;		/* IF */
	tvm_set_regs(&t, 0, &regs);
	ASSERT_OK(ioctl(t.cpu, KVM_GET_VCPU_EVENTS, &events));
	events.interrupt.shadow = KVM_X86_SHADOW_INT_STI;
	events.flags = KVM_VCPUEVENT_VALID_SHADOW;
	ASSERT_OK(ioctl(t.cpu, KVM_SET_VCPU_EVENTS, &events));
	ASSERT_EQ(tvm_signal_msi(&t, TVM_MSI_ADDR(0), 0x40), 1);
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);
}

/* MOV SS: the interrupt that CPUID's exit finds pending waits for one more. */
GUEST(guest_mov_ss_shadow)
{
	uint64_t after;

	guest_handlers[0x40] = on_irq;
	guest_x2apic = true;
	apic_enable();
	sti();
	__asm__ volatile("mov %%ss, %%ebx\n\t"
			 "wrmsr\n"		/* the self IPI is taken here */
			 "1:\tmov %%ebx, %%ss\n\tnop\n\tlea 1b(%%rip), %0"
			 : "=r"(after)
			 : "c"(MSR_X2APIC + (APIC_SELF_IPI >> 4)), "a"(0x40), "d"(0)
			 : "rbx", "memory");
	GUEST_EQ(guest_cpu()->irqs[0x40], 1);
	GUEST_EQ(irq_rip, after);
}

TEST(self_ipi_is_taken_at_the_next_boundary)
{
	run_to_done(&guest_mov_ss_shadow, TVM_IRQCHIP);
}

/* TF: one #DB behind every instruction, intercepted or not. */
#define MAX_STEPS 32

static volatile uint64_t steps[MAX_STEPS];
static volatile uint32_t nr_steps;
static volatile uint64_t first_dr6;
extern const char step_begin[], step_end[];

static void on_step(struct guest_frame *frame)
{
	uint64_t dr6 = read_dr6();

	if (!nr_steps)
		first_dr6 = dr6;
	if (nr_steps < MAX_STEPS)
		steps[nr_steps++] = frame->rip;
	__asm__ volatile("mov %0, %%dr6" : : "r"(0xffff0ff0ul));
	if (frame->rip >= (uintptr_t)step_end)
		frame->rflags &= ~0x100ul;
}

GUEST(guest_single_steps)
{
	guest_handlers[1] = on_step;
	__asm__ volatile("xor %%eax, %%eax; xor %%ecx, %%ecx\n\t"
			 "mov $0xd0000, %%esi\n\t"
			 "pushf; orq $0x100, (%%rsp); popf\n\t"
			 ".globl step_begin, step_end\n"
			 "step_begin:\n\t"
			 "nop\n\t"
			 "cpuid\n\t"
			 "mov $0xc0000080, %%ecx\n\t"
			 "rdmsr\n\t"
			 "out %%al, $0x80\n\t"
			 "mov (%%rsi), %%edx\n\t"
			 "mov %%edx, 4(%%rsi)\n\t"
			 "mov %%cr0, %%rax\n\t"
			 "mov %%rax, %%cr0\n\t"
			 "nop\n"
			 "step_end:\n\t"
			 "nop"
			 : : : "rax", "rbx", "rcx", "rdx", "rsi", "memory");
}

TEST(single_step_over_intercepted_instructions)
{
	/* Lengths of the ten instructions above. */
	static const uint8_t lengths[] = { 1, 2, 5, 2, 2, 2, 3, 3, 3, 1 };
	uint64_t want = (uintptr_t)step_begin;
	unsigned int seen = 0;
	bool is_report;
	struct tvm t;
	size_t i;

	tvm_init(&t, &guest_single_steps);
	for (;;) {
		int reason = tvm_run(&t);

		if (tvm_report(&t, 0, &is_report) == TVM_DONE && is_report)
			break;
		if (reason != KVM_EXIT_MMIO)
			EXPECT_EQ(reason, KVM_EXIT_IO);
	}
	EXPECT_EQ(G(&t, first_dr6) & 0x4000, 0x4000);
	for (i = 0; i < sizeof(lengths); i++) {
		want += lengths[i];
		/* Linux 6.1 loses the step of an MMIO write on SVM. */
		if (tvm_is_stock() && i == 6 && G(&t, steps)[seen] != want)
			continue;
		EXPECT_EQ(G(&t, steps)[seen++], want);
	}
	EXPECT_EQ(G(&t, nr_steps), seen);
	tvm_fini(&t);
}

/* Breakpoints and watchpoints of the guest's own debug registers. */
static volatile uint64_t watched, db_dr6, db_rip, dbs;

static void on_debug(struct guest_frame *frame)
{
	dbs++;
	db_dr6 = read_dr6();
	db_rip = frame->rip;
	frame->rflags |= 0x10000;	/* RF: past an instruction breakpoint */
	__asm__ volatile("mov %0, %%dr6" : : "r"(0xffff0ff0ul));
}

static void __attribute__((noinline)) break_here(void)
{
	__asm__ volatile("nop");
}

GUEST(guest_breaks)
{
	guest_handlers[1] = on_debug;
	write_dr0((uintptr_t)break_here);
	write_dr7(0x402);
	break_here();
	GUEST_EQ(dbs, 1);
	GUEST_EQ(db_dr6 & 0xf, 1);
	GUEST_EQ(db_rip, (uintptr_t)break_here);

	/* They live through exits. */
	GUEST_SYNC(1);
	cpuid(0, 0);
	break_here();
	GUEST_EQ(dbs, 2);

	__asm__ volatile("mov %0, %%dr1" : : "r"(&watched));
	write_dr7(0x408 | 0xd00000);	/* DR1: writes of four bytes */
	watched = 1;
	GUEST_EQ(dbs, 3);
	GUEST_EQ(db_dr6 & 0xf, 2);
	(void)watched;
	GUEST_EQ(dbs, 3);
	write_dr7(0x400);
	watched = 2;
	GUEST_EQ(dbs, 3);
}

TEST(guest_breakpoints_and_watchpoints)
{
	struct tvm t;

	tvm_init(&t, &guest_breaks);
	EXPECT_EQ(tvm_go(&t), 1);
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);
}

/*
 * Every page of the guest disappears from the second-stage tables, so that
 * the next delivery faults on the IDT, the TSS, the stack or the handler, and
 * must be repeated: exactly once, with the same return address.
 */
static volatile uint32_t hits;
static volatile uint64_t hit_rip;

static void on_hit(struct guest_frame *frame)
{
	hits++;
	hit_rip = frame->rip;
	if (frame->vector == 0x41)
		apic_write(APIC_EOI, 0);
	if (frame->vector == 6)
		frame->rip += 2;
}

GUEST(guest_takes_deliveries)
{
	uint64_t after;
	uint32_t i;

	guest_handlers[0x80] = on_hit;
	guest_handlers[6] = on_hit;
	guest_handlers[0x41] = on_hit;
	guest_handlers[2] = on_hit;
	guest_x2apic = true;
	apic_enable();
	for (i = 0; i < 8; i++) {
		/* On another stack page each time, too. */
		*(uint16_t *)(GUEST_IDT + 6 * 16 + 4) = (uint16_t)(0x8e00 | (i & 1));
		GUEST_SYNC(1);
		__asm__ volatile("int $0x80\n1:\tlea 1b(%%rip), %0" : "=r"(after) : : "memory");
		GUEST_EQ(hits, 4 * i + 1);
		GUEST_EQ(hit_rip, after);
		GUEST_SYNC(1);
		__asm__ volatile("1:\tud2\n\tlea 1b(%%rip), %0" : "=r"(after) : : "memory");
		GUEST_EQ(hits, 4 * i + 2);
		GUEST_EQ(hit_rip, after);
		self_ipi(0x41);
		GUEST_SYNC(1);
		sti();
		cli();
		GUEST_EQ(hits, 4 * i + 3);
		GUEST_SYNC(2);		/* an NMI comes with this one */
		GUEST_EQ(hits, 4 * i + 4);
	}
}

TEST(deliveries_that_fault_are_repeated_once)
{
	struct tvm t;
	uint64_t ret;

	if (tvm_in_bochs() && tvm_has_apicv())
		SKIP("emulator: an interrupt that it delivers by itself and cannot is reported as another event");
	tvm_init_smp(&t, &guest_takes_deliveries, TVM_IRQCHIP, 1);
	while ((ret = tvm_go(&t)) != TVM_DONE) {
		if (ret == 2)
			ASSERT_OK(ioctl(t.cpu, KVM_NMI, 0));
		ASSERT_OK(mprotect(t.ram, GUEST_RAM_SIZE, PROT_NONE));
		ASSERT_OK(mprotect(t.ram, GUEST_RAM_SIZE, PROT_READ | PROT_WRITE));
	}
	EXPECT_EQ(G(&t, hits), 32);
	tvm_fini(&t);
}

/* Both pending at one entry: the NMI comes first, then the interrupt. */
static volatile uint64_t nmi_rip, loop_begin, loop_end;

static void on_first(struct guest_frame *frame)
{
	nmi_rip = frame->rip;
	GUEST_EQ(hits, 0);
	hits = 1;
}

static void on_second(struct guest_frame *frame)
{
	GUEST_EQ(hits, 1);
	hits = 2;
	guest_eoi_handler(frame);
}

GUEST(guest_nmi_and_interrupt)
{
	guest_handlers[2] = on_first;
	guest_handlers[0x41] = on_second;
	guest_x2apic = true;
	apic_enable();
	__asm__ volatile("lea 1f(%%rip), %0\n\tlea 2f(%%rip), %1"
			 : "=r"(loop_begin), "=r"(loop_end));
	sti();
	__asm__ volatile("1:\tout %%eax, $0x80\n\t"
			 "3:\tcmpl $2, %0\n\tjne 3b\n2:" : : "m"(hits) : "memory");
	/* Not on top of the interrupt's own handler. */
	GUEST_TRUE(nmi_rip >= loop_begin && nmi_rip < loop_end);
}

TEST(nmi_comes_before_an_interrupt)
{
	struct tvm t;

	tvm_init_smp(&t, &guest_nmi_and_interrupt, TVM_IRQCHIP, 1);
	EXPECT_EQ(tvm_run(&t), KVM_EXIT_IO);
	EXPECT_EQ(t.run->io.port, 0x80);
	EXPECT_GT(tvm_signal_msi(&t, TVM_MSI_ADDR(0), 0x41), 0);
	EXPECT_OK(ioctl(t.cpu, KVM_NMI, 0));
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);
}

/* Behind an STI comes the INT, even if its delivery exits, and then the interrupt. */
GUEST(guest_sti_int)
{
	guest_handlers[0x42] = on_first;
	guest_handlers[0x41] = on_second;
	guest_x2apic = true;
	apic_enable();
	self_ipi(0x41);
	GUEST_SYNC(1);
	__asm__ volatile("sti\n\tint $0x42\n\tcli" : : : "memory");
	GUEST_EQ(hits, 2);
}

TEST(int_behind_sti_comes_before_an_interrupt)
{
	struct tvm t;

	if (tvm_in_bochs() && tvm_has_apicv())
		SKIP("emulator: an interrupt that it delivers by itself may come with IF clear");
	tvm_init_smp(&t, &guest_sti_int, TVM_IRQCHIP, 1);
	EXPECT_EQ(tvm_go(&t), 1);
	ASSERT_OK(mprotect(t.ram, GUEST_RAM_SIZE, PROT_NONE));
	ASSERT_OK(mprotect(t.ram, GUEST_RAM_SIZE, PROT_READ | PROT_WRITE));
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);
}

/* From real mode to long mode by the guest's own instructions. */
GUEST16(guest_boots,
	"cli\n"
	"mov $0x8000, %bx\n"
	"movw $0x7f, (%bx)\n"
	"movl $" "0x10000" ", 2(%bx)\n"
	"lgdtl (%bx)\n"
	"mov %cr0, %eax\n"
	"or $1, %eax\n"
	"mov %eax, %cr0\n"
	"ljmpl $0x8, $(0x1000 + boot32 - guest_boots_start)\n"
	".code32\n"
	"boot32: mov $0x10, %eax\n"
	"mov %eax, %ds\n"
	"mov %eax, %ss\n"
	"mov $0x13000, %eax\n"
	"mov %eax, %cr3\n"
	"mov %cr4, %eax\n"
	"or $0x20, %eax\n"
	"mov %eax, %cr4\n"
	"mov $0xc0000080, %ecx\n"
	"rdmsr\n"
	"or $0x100, %eax\n"
	"wrmsr\n"
	"mov %cr0, %eax\n"
	"or $0x80000000, %eax\n"
	"mov %eax, %cr0\n"
	"ljmpl $0x18, $(0x1000 + boot64 - guest_boots_start)\n"
	".code64\n"
	"boot64: mov $0x123456789abcdef0, %rax\n"
	"mov %rax, 0x8100\n"
	"mov $0xc0000080, %ecx\n"
	"rdmsr\n"
	"hlt");

TEST(from_real_to_long_mode)
{
	struct kvm_sregs s;
	struct tvm t;

	/* A 64-bit image first: it brings the tables. */
	tvm_init(&t, &guest_faults);
	tvm_fini(&t);
	tvm_init_bare(&t, 0);
	tvm_add_vcpu(&t, 0);
	s = tvm_sregs(&t, 0);
	tvm_set_code(&t, 0, &guest_faults);
	tvm_set_sregs(&t, 0, &s);
	tvm_set_code(&t, 0, &guest_boots);
	EXPECT_EQ(tvm_run(&t), KVM_EXIT_HLT);
	EXPECT_EQ(*(uint64_t *)tvm_ptr(&t, 0x8100), 0x123456789abcdef0);
	EXPECT_EQ(tvm_regs(&t, 0).rax & 0x500, 0x500);
	s = tvm_sregs(&t, 0);
	EXPECT_EQ(s.cs.l, 1);
	EXPECT_EQ(s.efer & 0x500, 0x500);
	EXPECT_EQ(s.cr0 & 0x80000001, 0x80000001);
	tvm_fini(&t);
}

/* Real mode: interrupts through the IVT, segments, and INT that faults. */
GUEST16(guest_real_int,
	"xor %ax, %ax\n"
	"mov %ax, %ds\n"
	"movw $0x2000, 0x84\n"
	"movw $0, 0x86\n"
	"movb $0xcf, 0x2000\n"		/* IRET */
	"out %al, $0x80\n"
	"mov $7, %cx\n"
	"1: int $0x21\n"
	"loop 1b\n"
	"mov %cx, 0x8000\n"
	"movw $0x5a5a, 0x8002\n"
	"hlt");

TEST(real_mode_int)
{
	struct tvm t;

	tvm_init(&t, &guest_real_int);
	EXPECT_EQ(tvm_run(&t), KVM_EXIT_IO);
	ASSERT_OK(mprotect(t.ram, GUEST_RAM_SIZE, PROT_NONE));
	ASSERT_OK(mprotect(t.ram, GUEST_RAM_SIZE, PROT_READ | PROT_WRITE));
	EXPECT_EQ(tvm_run(&t), KVM_EXIT_HLT);
	EXPECT_EQ(*(uint32_t *)tvm_ptr(&t, 0x8000), 0x5a5a0000);
	EXPECT_EQ(tvm_regs(&t, 0).rsp, GUEST_STACK16);
	tvm_fini(&t);
}
