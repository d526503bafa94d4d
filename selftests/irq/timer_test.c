// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Timers: the local APIC's in its three modes, and the PIT with its ports and
 * its way to the processor through PIC and IOAPIC. Times are only checked not
 * to be too early: how late a tick comes is the machine's business.
 */
#define _GNU_SOURCE
#include <string.h>

#include "tvm.h"

#define TIMER	0x60

static volatile uint64_t deadline, fired_at;

static void on_timer(struct guest_frame *frame)
{
	fired_at = rdtsc();
	guest_eoi_handler(frame);
}

static volatile uint32_t *ticks(void)
{
	return &guest_cpu()->irqs[TIMER];
}

static void await_ticks(uint32_t n)
{
	cli();
	while (*ticks() < n) {
		sti_hlt();
		cli();
	}
	sti();
}

static void start_apic(bool x2apic)
{
	guest_x2apic = x2apic;
	guest_handlers[TIMER] = on_timer;
	apic_enable();
	sti();
}

static void test_lapic_timer(void)
{
	uint32_t i, last;

	apic_write(APIC_TDCR, 0xb);		/* divide by 1 */
	GUEST_EQ(apic_read(APIC_TDCR), 0xb);

	/* One shot, and no more. */
	apic_write(APIC_LVTT, TIMER);
	apic_write(APIC_TMICT, 100000);
	GUEST_TRUE(apic_read(APIC_TMCCT) <= 100000);
	await_ticks(1);
	GUEST_EQ(apic_read(APIC_TMCCT), 0);
	GUEST_EQ(apic_read(APIC_TMICT), 100000);

	/* Masked: it counts, but is silent. */
	apic_write(APIC_LVTT, TIMER | APIC_LVT_MASKED);
	apic_write(APIC_TMICT, 50000);
	while (apic_read(APIC_TMCCT))
		;
	apic_write(APIC_TMICT, 0);
	GUEST_EQ(*ticks(), 1);

	/* Stopped by a zero before it fires. */
	apic_write(APIC_LVTT, TIMER);
	apic_write(APIC_TMICT, 0xffffffff);
	last = apic_read(APIC_TMCCT);
	for (i = 0; i < 10; i++) {
		uint32_t now = apic_read(APIC_TMCCT);

		GUEST_TRUE(now <= last);
		last = now;
	}
	GUEST_TRUE(last > 0);
	apic_write(APIC_TMICT, 0);
	GUEST_EQ(apic_read(APIC_TMCCT), 0);
	GUEST_EQ(*ticks(), 1);

	/* Periodic, until the count is zero. */
	apic_write(APIC_LVTT, TIMER | APIC_LVT_PERIODIC);
	apic_write(APIC_TMICT, 1000000);
	await_ticks(6);
	apic_write(APIC_TMICT, 0);
	cpuid(0, 0);
	i = *ticks();
	GUEST_TRUE(i >= 6);

	/* Another divisor takes so much longer. */
	apic_write(APIC_TDCR, 0x3);		/* by 16 */
	apic_write(APIC_LVTT, TIMER);
	apic_write(APIC_TMICT, 10000);
	await_ticks(i + 1);
}

GUEST(guest_xapic_timer)
{
	start_apic(false);
	test_lapic_timer();
}

GUEST(guest_x2apic_timer)
{
	start_apic(true);
	test_lapic_timer();
}

static void run_to_done(const struct guest_code *code, unsigned int flags)
{
	struct tvm t;

	tvm_init_smp(&t, code, flags, 1);
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);
}

TEST(xapic_timer)
{
	run_to_done(&guest_xapic_timer, TVM_IRQCHIP);
}

TEST(x2apic_timer)
{
	run_to_done(&guest_x2apic_timer, TVM_IRQCHIP);
}

GUEST(guest_tsc_deadline)
{
	uint32_t i;

	start_apic(true);
	/* Not in this mode: the MSR is ignored and reads as zero. */
	apic_write(APIC_LVTT, TIMER);
	wrmsr(MSR_TSC_DEADLINE, rdtsc());
	GUEST_EQ(rdmsr(MSR_TSC_DEADLINE), 0);
	GUEST_EQ(*ticks(), 0);

	apic_write(APIC_LVTT, TIMER | APIC_LVT_DEADLINE);
	for (i = 1; i <= 20; i++) {
		uint64_t when = rdtsc() + 1000000;

		wrmsr(MSR_TSC_DEADLINE, when);
		await_ticks(i);
		GUEST_TRUE(fired_at >= when);
		GUEST_EQ(rdmsr(MSR_TSC_DEADLINE), 0);
	}
	/* In the past: at once. */
	wrmsr(MSR_TSC_DEADLINE, 1);
	while (*ticks() < 21)
		cpu_relax();
	/* Far away, and disarmed. */
	deadline = rdtsc() + (1ull << 45);
	wrmsr(MSR_TSC_DEADLINE, deadline);
	GUEST_EQ(rdmsr(MSR_TSC_DEADLINE), deadline);
	wrmsr(MSR_TSC_DEADLINE, 0);
	GUEST_EQ(rdmsr(MSR_TSC_DEADLINE), 0);
	GUEST_EQ(*ticks(), 21);

	/* The initial count is nothing to this mode. */
	apic_write(APIC_TMICT, 1000);
	GUEST_EQ(apic_read(APIC_TMCCT), 0);

	/* Pending while interrupts are off; taken with them. */
	cli();
	wrmsr(MSR_TSC_DEADLINE, rdtsc() + 10000);
	while (!(apic_read(APIC_IRR + 0x30) & 1))
		cpu_relax();
	GUEST_EQ(*ticks(), 21);
	sti();
	GUEST_EQ(*ticks(), 22);
}

TEST(tsc_deadline_timer)
{
	if (tvm_in_bochs() && !tvm_vmx_parameter("preemption_timer"))
		SKIP("emulator: an interrupt of the host does not end a run that began with the guest's off");
	run_to_done(&guest_tsc_deadline, TVM_IRQCHIP);
}

/* The VMM saves an armed deadline and sets it in another vCPU. */
#define NR_DEADLINES	20

GUEST(guest_spins)
{
	uint32_t i;

	start_apic(true);
	apic_write(APIC_LVTT, TIMER | APIC_LVT_DEADLINE);
	GUEST_SYNC(1);
	for (i = 1; i <= NR_DEADLINES; i++) {
		uint64_t when = rdtsc() + 1000000;

		wrmsr(MSR_TSC_DEADLINE, when);
		/* Of others in between it is not forgotten. */
		cpuid(0, 0);
		if (i & 1)
			GUEST_SYNC(2);
		/* A PAUSE might let others run. */
		while (*ticks() < i)
			;
		GUEST_TRUE(fired_at >= when);
		GUEST_EQ(rdmsr(MSR_TSC_DEADLINE), 0);
	}
}

/*
 * Those that the guest waits for without a break, by the processor's own timer: most
 * of every other one, since the scheduler may break in.
 */
TEST(deadlines_of_a_guest_that_spins)
{
	uint64_t others;
	struct tvm t;

	tvm_init_smp(&t, &guest_spins, TVM_IRQCHIP, 1);
	EXPECT_EQ(tvm_go(&t), 1);
	others = tvm_is_stock() ? 0 : tvm_counter(&t, "exits_other");
	while (tvm_go(&t) != TVM_DONE)
		;
	if (tvm_vmx_parameter("preemption_timer") && !tvm_is_stock())
		EXPECT_GE(tvm_counter(&t, "exits_other") - others, NR_DEADLINES / 4);
	tvm_fini(&t);
}

GUEST(guest_arms_deadline)
{
	start_apic(true);
	apic_write(APIC_LVTT, TIMER | APIC_LVT_DEADLINE);
	deadline = rdtsc() + (1ull << 40);
	wrmsr(MSR_TSC_DEADLINE, deadline);
	GUEST_SYNC(1);
	await_ticks(1);
}

TEST(deadline_through_the_vmm)
{
	struct tvm t;

	tvm_init_smp(&t, &guest_arms_deadline, TVM_IRQCHIP, 1);
	EXPECT_EQ(tvm_go(&t), 1);
	EXPECT_EQ(tvm_msr(&t, 0, MSR_TSC_DEADLINE), G(&t, deadline));
	EXPECT_EQ(tvm_set_msr(&t, 0, MSR_TSC_DEADLINE, 1), 1);
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);
}

/* The PIT: modes, latches, read-back and port 0x61. */
static uint16_t pit_read(uint8_t channel)
{
	uint16_t val;

	outb(0x43, (uint8_t)(channel << 6));		/* latch */
	val = inb((uint16_t)(0x40 + channel));
	return (uint16_t)(val | inb((uint16_t)(0x40 + channel)) << 8);
}

static void pit_set(uint8_t channel, uint8_t mode, uint16_t val)
{
	outb(0x43, (uint8_t)(channel << 6 | 0x30 | mode << 1));
	outb((uint16_t)(0x40 + channel), (uint8_t)val);
	outb((uint16_t)(0x40 + channel), (uint8_t)(val >> 8));
}

/* The reference device goes on counting without the gate. */
static volatile bool gate_works;

GUEST(guest_pit_ports)
{
	uint16_t a, b;
	uint8_t status;

	/* Channel 2, gate off: it stands still. */
	outb(0x61, 0);
	pit_set(2, 0, 0xffff);
	a = pit_read(2);
	b = pit_read(2);
	if (gate_works)
		GUEST_EQ(a, b);
	GUEST_EQ(inb(0x61) & 0x21, 0);
	/* Gate on: it counts down, and the output rises at the end. */
	outb(0x61, 1);
	pit_set(2, 0, 0xffff);
	a = pit_read(2);
	do {
		b = pit_read(2);
	} while (a == b);
	GUEST_TRUE(b < a);
	pit_set(2, 0, 20);
	while (!(inb(0x61) & 0x20))
		cpu_relax();

	/* Read-back: status and count of channel 0 in mode 2. */
	pit_set(0, 2, 0x8000);
	outb(0x43, 0xc2);
	status = inb(0x40);
	GUEST_EQ(status & 0x3f, 0x34);
	a = inb(0x40);
	a = (uint16_t)(a | inb(0x40) << 8);
	GUEST_TRUE(a <= 0x8000);
	/* One byte only. */
	outb(0x43, 0xd0 & 0x3f);
	outb(0x43, 0x14);
	outb(0x40, 0x80);
	outb(0x43, 0xe2);
	GUEST_EQ(inb(0x40) & 0x3f, 0x14);
	/* The refresh bit toggles. */
	a = inb(0x61) & 0x10;
	while ((inb(0x61) & 0x10) == a)
		;
}

TEST(pit_ports)
{
	struct tvm t;

	tvm_init_smp(&t, &guest_pit_ports, TVM_IRQCHIP | TVM_PIT, 1);
	G(&t, gate_works) = !tvm_is_stock();
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);
}

#define PIC_BASE	0x30

static void pic_init(uint8_t mask)
{
	outb(0x20, 0x11);
	outb(0x21, PIC_BASE);
	outb(0x21, 4);
	outb(0x21, 1);
	outb(0xa0, 0x11);
	outb(0xa1, PIC_BASE + 8);
	outb(0xa1, 2);
	outb(0xa1, 1);
	outb(0x21, mask);
	outb(0xa1, 0xff);
}

static void on_pic(struct guest_frame *frame)
{
	guest_count_handler(frame);
	outb(0x20, 0x20);
}

/* By the PIC and LINT0, as in a PC that has just been switched on. */
GUEST(guest_pit_by_pic)
{
	volatile uint32_t *irqs = &guest_cpu()->irqs[PIC_BASE];

	guest_handlers[PIC_BASE] = on_pic;
	start_apic(false);
	apic_write(APIC_LVT0, 0x700);		/* ExtINT */
	cli();
	pic_init(0xfe);
	pit_set(0, 2, 1193);			/* a millisecond */
	while (*irqs < 10) {
		sti_hlt();
		cli();
	}
	/* Mode 0 is one shot. */
	pit_set(0, 0, 1193);
	outb(0x21, 0xff);
	sti();
	outb(0x21, 0xfe);
	while (*irqs < 11)
		cpu_relax();
}

TEST(pit_through_pic_and_lint0)
{
	run_to_done(&guest_pit_by_pic, TVM_IRQCHIP | TVM_PIT);
}

/* GSI 0 is pin 0 of the IOAPIC in the default routing. */
GUEST(guest_pit_by_ioapic)
{
	start_apic(true);
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
	ioapic_rte(0, TIMER);
	pit_set(0, 2, 1193);
	await_ticks(10);
	ioapic_rte(0, APIC_LVT_MASKED | TIMER);
}

TEST(pit_through_ioapic)
{
	run_to_done(&guest_pit_by_ioapic, TVM_IRQCHIP | TVM_PIT);
}

/* Two timers at once on each of two vCPUs, and IPIs between: all arrive. */
GUEST(guest_busy_timers)
{
	uint32_t i;

	start_apic(true);
	guest_handlers[0x61] = guest_eoi_handler;
	apic_write(APIC_LVTT, TIMER | APIC_LVT_DEADLINE);
	for (i = 1; i <= 100; i++) {
		wrmsr(MSR_TSC_DEADLINE, rdtsc() + 20000);
		apic_icr(guest_cpu()->id, APIC_ASSERT | 0x61);
		while (*ticks() < i || guest_cpu()->irqs[0x61] < i)
			cpu_relax();
	}
	GUEST_EQ(*ticks(), 100);
	GUEST_EQ(guest_cpu()->irqs[0x61], 100);
}

TEST(busy_timers_on_two_vcpus)
{
	struct tvm t;

	tvm_init_smp(&t, &guest_busy_timers, TVM_IRQCHIP, 2);
	tvm_start_all(&t);
	tvm_join_all(&t);
	tvm_fini(&t);
}
