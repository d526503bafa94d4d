// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Interrupts between processors: every destination and delivery mode of the
 * ICR, in xAPIC and x2APIC mode, the start of application processors by INIT
 * and SIPI, and wake-ups from HLT.
 */
#define _GNU_SOURCE
#include <string.h>
#include <sys/ioctl.h>

#include "tvm.h"

#define NR		4
#define IPI		0x51

static volatile uint32_t arrived, go, quit;

static uint32_t count(uint32_t id, uint32_t vector)
{
	return guest_cpus[id].irqs[vector];
}

/* A processor that is not the sender takes interrupts until told to stop. */
static void receive(void)
{
	apic_enable();
	sti();
	__atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST);
	while (!quit)
		cpu_relax();
}

static void set_up(void)
{
	guest_handlers[IPI] = guest_eoi_handler;
	guest_handlers[2] = guest_count_handler;
	if (guest_cpu()->id) {
		receive();
		guest_exit();
	}
	apic_enable();
	sti();
	while (arrived < NR - 1)
		cpu_relax();
}

/* Waits until exactly these processors have been interrupted once more. */
static void await(uint32_t mask, uint32_t vector, uint32_t *counts)
{
	uint32_t i;

	for (i = 0; i < NR; i++) {
		if (mask >> i & 1)
			counts[i]++;
		while (count(i, vector) < counts[i])
			cpu_relax();
	}
	/* Nor has anybody else. */
	for (i = 0; i < NR; i++)
		GUEST_EQ(count(i, vector), counts[i]);
}

static void await_idle(void)
{
	while (!guest_x2apic && (apic_read(APIC_ICR) & 0x1000))
		cpu_relax();
}

static void send(uint32_t dest, uint32_t low)
{
	apic_icr(dest, low);
	await_idle();
}

static void test_destinations(void)
{
	uint32_t ipi[NR] = { 0 }, nmi[NR] = { 0 };
	uint32_t i, all = guest_x2apic ? 0xffffffff : 0xff;

	/* Physical, one by one, and everybody. */
	for (i = 0; i < NR; i++) {
		send(i, APIC_ASSERT | IPI);
		await(1u << i, IPI, ipi);
	}
	send(all, APIC_ASSERT | IPI);
	await(0xf, IPI, ipi);

	/* Shorthands. */
	send(0, APIC_DEST_SELF | APIC_ASSERT | IPI);
	await(1, IPI, ipi);
	send(0, APIC_DEST_ALL | APIC_ASSERT | IPI);
	await(0xf, IPI, ipi);
	send(0, APIC_DEST_OTHERS | APIC_ASSERT | IPI);
	await(0xe, IPI, ipi);

	/* Logical: in x2APIC mode the IDs give cluster 0 and bit ID. */
	send(0x6, APIC_LOGICAL | APIC_ASSERT | IPI);
	await(0x6, IPI, ipi);
	send(0xf, APIC_LOGICAL | APIC_ASSERT | IPI);
	await(0xf, IPI, ipi);
	/* The lowest priority of one is that one. */
	send(0x4, APIC_LOGICAL | APIC_ASSERT | APIC_DM_LOWEST | IPI);
	await(0x4, IPI, ipi);

	/* NMIs carry no vector and ask for no EOI. */
	send(2, APIC_ASSERT | APIC_DM_NMI);
	await(0x4, 2, nmi);
	send(0, APIC_DEST_OTHERS | APIC_ASSERT | APIC_DM_NMI);
	await(0xe, 2, nmi);

	/* Nobody. */
	send(77, APIC_ASSERT | IPI);
	await(0, IPI, ipi);
	quit = 1;
}

GUEST(guest_xapic_destinations)
{
	/* Flat model: a bit for each processor. */
	*mmio32(APIC_BASE + APIC_DFR) = 0xffffffff;
	*mmio32(APIC_BASE + APIC_LDR) = 0x01000000u << guest_cpu()->id;
	GUEST_EQ(*mmio32(APIC_BASE + APIC_ID) >> 24, guest_cpu()->id);
	set_up();
	test_destinations();
}

GUEST(guest_x2apic_destinations)
{
	guest_x2apic = true;
	apic_enable();
	GUEST_EQ(apic_read(APIC_ID), guest_cpu()->id);
	GUEST_EQ(apic_read(APIC_LDR), 1u << guest_cpu()->id);
	set_up();
	test_destinations();
}

static void run_smp(const struct guest_code *code)
{
	struct tvm t;

	tvm_init_smp(&t, code, TVM_IRQCHIP, NR);
	tvm_start_all(&t);
	tvm_join_all(&t);
	tvm_fini(&t);
}

TEST_TIMEOUT(xapic_destinations_and_modes, 60)
{
	run_smp(&guest_xapic_destinations);
}

TEST_TIMEOUT(x2apic_destinations_and_modes, 60)
{
	run_smp(&guest_x2apic_destinations);
}

/* Lowest priority among several: one of them, and only one. */
GUEST(guest_lowest_priority)
{
	uint32_t i, n, sum;

	guest_x2apic = true;
	set_up();
	for (i = 1; i <= 20; i++) {
		send(0xf, APIC_LOGICAL | APIC_ASSERT | APIC_DM_LOWEST | IPI);
		do {
			for (sum = 0, n = 0; n < NR; n++)
				sum += count(n, IPI);
		} while (sum < i);
		GUEST_EQ(sum, i);
	}
	quit = 1;
}

TEST(lowest_priority_reaches_exactly_one)
{
	run_smp(&guest_lowest_priority);
}

/* IPIs both ways, as many as they can: each is answered, none is lost. */
#define PINGS	500

GUEST(guest_ping_pong)
{
	uint32_t me = guest_cpu()->id, i;

	guest_handlers[IPI] = guest_eoi_handler;
	guest_x2apic = true;
	apic_enable();
	sti();
	__atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST);
	while (arrived < 2)
		cpu_relax();
	for (i = 1; i <= PINGS; i++) {
		if (!me)
			apic_icr(1, APIC_ASSERT | IPI);
		/* Half of the waits are halts. */
		cli();
		while (count(me, IPI) < i) {
			if (i & 1)
				sti_hlt();
			else
				sti();
			cli();
		}
		sti();
		if (me)
			apic_icr(0, APIC_ASSERT | IPI);
	}
	GUEST_EQ(count(me, IPI), PINGS);
}

TEST_TIMEOUT(ping_pong_with_halts, 60)
{
	struct tvm t;

	if (tvm_is_stock())
		SKIP("emulator: TCG can deliver an injected interrupt twice, fonda injects none");
	tvm_init_smp(&t, &guest_ping_pong, TVM_IRQCHIP, 2);
	tvm_start_all(&t);
	tvm_join_all(&t);
	tvm_fini(&t);
}

/*
 * Application processors await INIT and SIPI; they start in real mode at the
 * page that the vector names, write what they see, and halt.
 */
GUEST16(ap_start,
	"mov %cs, %ax\n"
	"mov %ax, %cs:0x10\n"
	"mov %cr0, %eax\n"
	"mov %eax, %cs:0x14\n"
	"incw %cs:0x12\n"
	"1: cli\n"
	"hlt\n"
	"jmp 1b");

#define AP_PAGE	0x9000ul	/* vector 0x09: code at +0x20 by a jump at +0 */

GUEST(guest_starts_ap)
{
	volatile uint16_t *page = (volatile uint16_t *)AP_PAGE;
	uint32_t i;

	guest_x2apic = true;
	apic_enable();
	/* A SIPI without INIT means nothing... */
	apic_icr(1, APIC_ASSERT | APIC_DM_SIPI | 0x09);
	cpuid(0, 0);
	GUEST_EQ(page[9], 0);
	for (i = 1; i <= 3; i++) {
		/* ...and INIT takes a processor back, whatever it does. */
		apic_icr(1, APIC_ASSERT | APIC_LEVEL | APIC_DM_INIT);
		apic_icr(1, APIC_ASSERT | APIC_DM_SIPI | 0x09);
		while (page[9] != i)
			cpu_relax();
		GUEST_EQ(page[8], AP_PAGE >> 4);
		GUEST_EQ(*(volatile uint32_t *)(AP_PAGE + 0x14) & ~0x60000000u, 0x10);
		/* The second SIPI of the usual pair is ignored. */
		apic_icr(1, APIC_ASSERT | APIC_DM_SIPI | 0x09);
	}
	cpuid(0, 0);
	GUEST_EQ(page[9], 3);
}

TEST(init_and_sipi_start_a_processor)
{
	uint8_t *page;
	struct tvm t;

	tvm_init_smp(&t, &guest_starts_ap, TVM_IRQCHIP | TVM_WAIT_SIPI, 2);
	page = tvm_ptr(&t, AP_PAGE);
	memcpy(page, "\xeb\x1e", 2);		/* JMP to 0x20 */
	memcpy(page + 0x20, ap_start.start,
	       (size_t)((const char *)ap_start.end - (const char *)ap_start.start));
	tvm_start(&t, 1);
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_stop(&t, 1);
	EXPECT_EQ(tvm_sregs(&t, 1).cs.base, AP_PAGE);
	tvm_fini(&t);
}

/* What becomes of a vCPU that waits: -EAGAIN tells that it has been started. */
TEST(mp_state_follows_init_and_sipi)
{
	struct kvm_mp_state mp;
	struct tvm t;

	tvm_init_smp(&t, &guest_starts_ap, TVM_IRQCHIP | TVM_WAIT_SIPI, 2);
	EXPECT_OK(ioctl(t.vcpu[1].fd, KVM_GET_MP_STATE, &mp));
	EXPECT_EQ(mp.mp_state, KVM_MP_STATE_UNINITIALIZED);
	t.vcpu[1].run->immediate_exit = 1;
	EXPECT_ERRNO(ioctl(t.vcpu[1].fd, KVM_RUN, 0), EINTR);
	tvm_kick(&t, 1);
	mp.mp_state = KVM_MP_STATE_RUNNABLE;
	EXPECT_OK(ioctl(t.vcpu[1].fd, KVM_SET_MP_STATE, &mp));
	EXPECT_OK(ioctl(t.vcpu[1].fd, KVM_GET_MP_STATE, &mp));
	EXPECT_EQ(mp.mp_state, KVM_MP_STATE_RUNNABLE);
	tvm_fini(&t);
}

/* INIT and SIPI reach a vCPU that nobody runs; its state is the one after them. */
GUEST(guest_sends_events)
{
	guest_x2apic = true;
	apic_enable();
	apic_icr(1, APIC_ASSERT | APIC_LEVEL | APIC_DM_INIT);
	GUEST_SYNC(1);
	apic_icr(1, APIC_ASSERT | APIC_DM_SIPI | 0x09);
	GUEST_SYNC(2);
}

TEST(mp_state_has_taken_what_waits)
{
	struct kvm_mp_state mp;
	struct tvm t;

	tvm_init_smp(&t, &guest_sends_events, TVM_IRQCHIP | TVM_WAIT_SIPI, 2);
	EXPECT_EQ(tvm_go(&t), 1);
	EXPECT_OK(ioctl(t.vcpu[1].fd, KVM_GET_MP_STATE, &mp));
	EXPECT_EQ(mp.mp_state, KVM_MP_STATE_INIT_RECEIVED);
	EXPECT_EQ(tvm_go(&t), 2);
	EXPECT_OK(ioctl(t.vcpu[1].fd, KVM_GET_MP_STATE, &mp));
	EXPECT_EQ(mp.mp_state, KVM_MP_STATE_RUNNABLE);
	EXPECT_EQ(tvm_sregs(&t, 1).cs.base, 0x9000);
	EXPECT_EQ(tvm_regs(&t, 1).rip, 0);
	tvm_fini(&t);
}

/* HLT ends by an IPI, by an NMI even with IF = 0, and not by a masked one. */
static volatile uint32_t halts;

GUEST(guest_halts)
{
	guest_handlers[IPI] = guest_eoi_handler;
	guest_handlers[2] = guest_count_handler;
	guest_x2apic = true;
	apic_enable();
	if (guest_cpu()->id) {
		arrived = 1;
		cli();
		sti_hlt();
		cli();
		halts = 1;
		hlt();
		halts = 2;
		return;
	}
	while (!arrived)
		cpu_relax();
	apic_icr(1, APIC_ASSERT | IPI);
	while (halts < 1)
		cpu_relax();
	/* IF is 0 now: this one stays pending and wakes nobody up. */
	apic_icr(1, APIC_ASSERT | IPI);
	cpuid(0, 0);
	GUEST_EQ(halts, 1);
	apic_icr(1, APIC_ASSERT | APIC_DM_NMI);
	while (halts < 2)
		cpu_relax();
	GUEST_EQ(guest_cpus[1].irqs[IPI], 1);
	GUEST_EQ(guest_cpus[1].irqs[2], 1);
}

TEST(halt_ends_by_ipi_and_nmi)
{
	struct tvm t;

	tvm_init_smp(&t, &guest_halts, TVM_IRQCHIP, 2);
	tvm_start_all(&t);
	tvm_join_all(&t);
	tvm_fini(&t);
}

/* Priorities: TPR and the interrupt in service hold back what is lower. */
static volatile uint32_t order[8], nr_order;

static void on_ordered(struct guest_frame *frame)
{
	order[nr_order++] = (uint32_t)frame->vector;
	if (frame->vector == 0x61) {
		/* 0x62 is of the same class, 0x71 above: only that may nest. */
		apic_icr(0, APIC_DEST_SELF | APIC_ASSERT | 0x62);
		apic_icr(0, APIC_DEST_SELF | APIC_ASSERT | 0x71);
		sti();
		cli();
	}
	apic_write(APIC_EOI, 0);
}

GUEST(guest_priorities)
{
	guest_handlers[0x61] = guest_handlers[0x62] = on_ordered;
	guest_handlers[0x71] = guest_handlers[0x31] = on_ordered;
	guest_x2apic = true;
	apic_enable();
	cli();
	apic_icr(0, APIC_DEST_SELF | APIC_ASSERT | 0x31);
	apic_icr(0, APIC_DEST_SELF | APIC_ASSERT | 0x61);
	GUEST_EQ(apic_read(APIC_IRR + 0x10), 1u << 17);
	sti();
	cli();
	GUEST_EQ(nr_order, 4);
	GUEST_EQ(order[0], 0x61);
	GUEST_EQ(order[1], 0x71);
	GUEST_EQ(order[2], 0x62);
	GUEST_EQ(order[3], 0x31);

	apic_write(APIC_TPR, 0x70);
	GUEST_EQ(apic_read(APIC_PPR), 0x70);
	apic_icr(0, APIC_DEST_SELF | APIC_ASSERT | 0x61);
	sti();
	GUEST_EQ(nr_order, 4);
	apic_write(APIC_TPR, 0x50);
	cli();
	GUEST_EQ(nr_order, 7);
	GUEST_EQ(apic_read(APIC_ISR + 0x30), 0);
}

TEST(priorities_and_nesting)
{
	struct tvm t;

	tvm_init_smp(&t, &guest_priorities, TVM_IRQCHIP, 1);
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);
}

/* Registers: what x2APIC refuses, what a mode change does. */
GUEST(guest_apic_registers)
{
	uint64_t val;

	*mmio32(APIC_BASE + APIC_SVR) = 0x1ff;
	GUEST_EQ(*mmio32(APIC_BASE + APIC_VERSION) & 0xff, 0x14);
	*mmio32(APIC_BASE + APIC_TPR) = 0x40;
	GUEST_EQ(*mmio32(APIC_BASE + APIC_TPR), 0x40);
	*mmio32(APIC_BASE + APIC_TPR) = 0;
	/* MSRs of the x2APIC are not there in xAPIC mode. */
	GUEST_EQ(rdmsr_safe(0x802, &val), 13);
	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 0xc00);
	GUEST_EQ(rdmsr(0x802), 0);
	GUEST_EQ(wrmsr_safe(0x802, 1), 13);		/* ID: read-only */
	GUEST_EQ(wrmsr_safe(0x80b, 0), GUEST_NO_FAULT);
	GUEST_EQ(wrmsr_safe(0x80f, 1ull << 40), 13);	/* upper half reserved */
	GUEST_EQ(rdmsr_safe(0x80e, &val), 13);		/* no DFR */
	GUEST_EQ(rdmsr_safe(0x831, &val), 13);		/* no second ICR half */
	GUEST_EQ(rdmsr_safe(0x83f, &val), 13);		/* SELF IPI: write-only */
	/* From x2APIC straight to xAPIC is not a way. */
	val = rdmsr(MSR_APIC_BASE);
	GUEST_EQ(val & 0xd00, 0xd00);
	GUEST_EQ(wrmsr_safe(MSR_APIC_BASE, val & ~0x400ul), 13);
	wrmsr(MSR_APIC_BASE, val & ~0xc00ul);
	wrmsr(MSR_APIC_BASE, (val & ~0xc00ul) | 0x800);
	GUEST_EQ(*mmio32(APIC_BASE + APIC_VERSION) & 0xff, 0x14);
	/* Off and on brings its id back. */
	*mmio32(APIC_BASE + APIC_ID) = 0x7000000;
	GUEST_EQ(*mmio32(APIC_BASE + APIC_ID), 0x7000000);
	wrmsr(MSR_APIC_BASE, val & ~0xc00ul);
	wrmsr(MSR_APIC_BASE, (val & ~0xc00ul) | 0x800);
	GUEST_EQ(*mmio32(APIC_BASE + APIC_ID), 0);
}

TEST(apic_registers_and_modes)
{
	struct tvm t;

	tvm_init_smp(&t, &guest_apic_registers, TVM_IRQCHIP, 1);
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);
}

/* Of a page that is not there nobody hears, or only who has asked for it. */
GUEST(guest_looks_for_the_apic)
{
	uint64_t base = rdmsr(MSR_APIC_BASE);

	wrmsr(MSR_APIC_BASE, base | 0xc00);
	*mmio32(APIC_BASE) = 0xff;
	GUEST_EQ(*mmio32(APIC_BASE + APIC_VERSION), ~0u);
	wrmsr(MSR_APIC_BASE, base & ~0xc00ul);
	*mmio32(APIC_BASE) = 0xff;
	GUEST_EQ(*mmio32(APIC_BASE + APIC_VERSION), ~0u);
}

TEST(the_page_of_an_apic_that_is_off_is_a_hole)
{
	struct kvm_enable_cap cap = {
		.cap = KVM_CAP_DISABLE_QUIRKS2, .args[0] = KVM_X86_QUIRK_LAPIC_MMIO_HOLE };
	struct tvm t;

	tvm_init_smp(&t, &guest_looks_for_the_apic, TVM_IRQCHIP, 1);
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);

	tvm_init_smp(&t, &guest_looks_for_the_apic, TVM_IRQCHIP, 1);
	ASSERT_OK(ioctl(t.fd, KVM_ENABLE_CAP, &cap));
	EXPECT_EQ(tvm_run(&t), KVM_EXIT_MMIO);
	EXPECT_EQ(t.run->mmio.phys_addr, APIC_BASE);
	EXPECT_TRUE(t.run->mmio.is_write);
	tvm_fini(&t);
}
