// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A local APIC that the processor virtualizes, or not: what the guest and the
 * VMM see of it is the same, but not how often the guest exits.
 */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>

#include "tvm.h"

#define LOW	0x35
#define IPI	0x51
#define HIGH	0x62
#define ROUNDS	100

#define BIT_OF(_vec)		(1u << ((_vec) & 31))
#define WORD_OF(_reg, _vec)	((_reg) + (_vec) / 32 * 16)

static void self_ipi(uint32_t vector)
{
	apic_write(APIC_SELF_IPI, vector);
}

static bool is_set(uint32_t reg, uint32_t vector)
{
	return apic_read(WORD_OF(reg, vector)) & BIT_OF(vector);
}

static void set_up(void)
{
	guest_handlers[LOW] = guest_handlers[IPI] = guest_handlers[HIGH] = guest_eoi_handler;
	guest_x2apic = true;
	apic_enable();
}

/* -- exits ------------------------------------------------------------------ */

GUEST(guest_quiet)
{
	uint32_t i;

	set_up();
	sti();
	GUEST_SYNC(1);
	for (i = 1; i <= ROUNDS; i++) {
		self_ipi(IPI);
		while (guest_cpu()->irqs[IPI] < i)
			cpu_relax();
	}
	GUEST_SYNC(2);
	for (i = 0; i < ROUNDS; i++) {
		apic_write(APIC_TPR, i);
		GUEST_EQ(apic_read(APIC_TPR), i);
		GUEST_EQ(apic_read(APIC_PPR), i);
	}
}

TEST(ipis_to_oneself_and_their_ends_do_not_exit)
{
	uint64_t start, ipis, tprs;
	struct tvm t;

	tvm_init_smp(&t, &guest_quiet, TVM_IRQCHIP, 1);
	EXPECT_EQ(tvm_go(&t), 1);
	start = tvm_counter(&t, "exits_msr");
	EXPECT_EQ(tvm_go(&t), 2);
	ipis = tvm_counter(&t, "exits_msr");
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tprs = tvm_counter(&t, "exits_msr");
	EXPECT_EQ(ipis - start, tvm_has_apicv() ? 0 : 2 * ROUNDS);
	EXPECT_EQ(tprs - ipis, tvm_has_apicv() ? 0 : 3 * ROUNDS);
	tvm_fini(&t);
}

/* -- state ------------------------------------------------------------------ */

static void on_ipi(struct guest_frame *frame)
{
	guest_count_handler(frame);
	GUEST_EQ(apic_read(APIC_PPR), IPI & 0xf0);
	GUEST_SYNC(2);
	sti();
	cli();
	/* What user space has put there came in between. */
	GUEST_EQ(guest_cpu()->irqs[HIGH], 1);
	GUEST_TRUE(is_set(APIC_ISR, IPI));
	GUEST_TRUE(!is_set(APIC_ISR, HIGH));
	apic_write(APIC_EOI, 0);
	GUEST_EQ(apic_read(APIC_PPR), 0x40);
}

GUEST(guest_state)
{
	set_up();
	guest_handlers[IPI] = on_ipi;
	cli();
	apic_write(APIC_TPR, 0x40);
	self_ipi(LOW);
	self_ipi(IPI);
	GUEST_TRUE(is_set(APIC_IRR, LOW));
	GUEST_TRUE(is_set(APIC_IRR, IPI));
	GUEST_SYNC(1);
	sti();
	cli();
	GUEST_EQ(guest_cpu()->irqs[IPI], 1);
	GUEST_EQ(apic_read(WORD_OF(APIC_ISR, IPI)), 0);
	/* And has taken away. */
	apic_write(APIC_TPR, 0);
	sti();
	cli();
	GUEST_EQ(guest_cpu()->irqs[LOW], 0);
	GUEST_SYNC(3);
	sti();
	cli();
	GUEST_EQ(guest_cpu()->irqs[LOW], 1);
}

static void check(struct tvm *t, uint32_t irr, uint32_t isr, uint32_t ppr)
{
	EXPECT_EQ(tvm_lapic_reg(t, 0, WORD_OF(APIC_IRR, LOW)), irr ? BIT_OF(LOW) : 0);
	EXPECT_EQ(tvm_lapic_reg(t, 0, WORD_OF(APIC_IRR, IPI)), irr == IPI ? BIT_OF(IPI) : 0);
	EXPECT_EQ(tvm_lapic_reg(t, 0, WORD_OF(APIC_ISR, IPI)), isr ? BIT_OF(isr) : 0);
	EXPECT_EQ(tvm_lapic_reg(t, 0, APIC_TPR), 0x40);
	EXPECT_EQ(tvm_lapic_reg(t, 0, APIC_PPR), ppr);
}

static uint32_t *reg(struct kvm_lapic_state *lapic, uint32_t offset)
{
	return (uint32_t *)(lapic->regs + offset);
}

TEST(user_space_reads_and_writes_what_waits_and_is_in_service)
{
	struct kvm_lapic_state lapic;
	struct tvm t;

	tvm_init_smp(&t, &guest_state, TVM_IRQCHIP, 1);
	EXPECT_EQ(tvm_go(&t), 1);
	check(&t, IPI, 0, 0x40);
	EXPECT_EQ(tvm_go(&t), 2);
	check(&t, LOW, IPI, 0x50);
	lapic = tvm_lapic(&t, 0);
	*reg(&lapic, WORD_OF(APIC_IRR, LOW)) = 0;
	*reg(&lapic, WORD_OF(APIC_IRR, HIGH)) = BIT_OF(HIGH);
	ASSERT_OK(ioctl(t.cpu, KVM_SET_LAPIC, &lapic));
	EXPECT_EQ(tvm_go(&t), 3);
	lapic = tvm_lapic(&t, 0);
	EXPECT_EQ(*reg(&lapic, APIC_TPR), 0);
	*reg(&lapic, WORD_OF(APIC_IRR, LOW)) = BIT_OF(LOW);
	ASSERT_OK(ioctl(t.cpu, KVM_SET_LAPIC, &lapic));
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);
}

/* -- modes ------------------------------------------------------------------ */

GUEST(guest_modes)
{
	uint32_t i;

	set_up();
	/* Software-disabled it takes no more, but delivers what it has. */
	cli();
	self_ipi(IPI);
	apic_write(APIC_SVR, 0xff);
	self_ipi(LOW);
	GUEST_TRUE(is_set(APIC_IRR, IPI));
	GUEST_TRUE(!is_set(APIC_IRR, LOW));
	apic_write(APIC_SVR, 0x1ff);
	sti();
	GUEST_EQ(guest_cpu()->irqs[IPI], 1);
	GUEST_EQ(guest_cpu()->irqs[LOW], 0);

	/* Vectors that are none, and values that are reserved. */
	self_ipi(3);
	apic_write(APIC_ESR, 0);
	GUEST_EQ(apic_read(APIC_ESR), 0x20);
	GUEST_EQ(wrmsr_safe(MSR_X2APIC + (APIC_SELF_IPI >> 4), 0x100 | IPI), 13);
	GUEST_EQ(wrmsr_safe(MSR_X2APIC + (APIC_EOI >> 4), 1), 13);
	GUEST_EQ(wrmsr_safe(MSR_X2APIC + (APIC_TPR >> 4), 0x100), 13);

	/* A debugger holds back what waits already, and then no longer. */
	cli();
	self_ipi(IPI);
	GUEST_SYNC(1);
	sti();
	self_ipi(HIGH);
	for (i = 0; i < 1000; i++)
		cpu_relax();
	GUEST_EQ(guest_cpu()->irqs[IPI], 1);
	GUEST_EQ(guest_cpu()->irqs[HIGH], 0);
	GUEST_SYNC(2);
	while (guest_cpu()->irqs[IPI] < 2)
		cpu_relax();
	GUEST_EQ(guest_cpu()->irqs[HIGH], 1);

	/* With a filter of MSRs, too. */
	GUEST_SYNC(3);
	self_ipi(IPI);
	while (guest_cpu()->irqs[IPI] < 3)
		cpu_relax();
	GUEST_EQ(apic_read(WORD_OF(APIC_ISR, IPI)), 0);
	GUEST_EQ(apic_read(APIC_PPR), 0);
}

TEST(modes_of_the_apic_and_of_the_vcpu)
{
	struct kvm_guest_debug debug = { .control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_BLOCKIRQ };
	uint8_t allow = 1;
	struct kvm_msr_filter filter = {
		.ranges[0] = { .flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE,
			       .nmsrs = 1, .base = 0x1000, .bitmap = &allow },
	};
	struct tvm t;

	tvm_init_smp(&t, &guest_modes, TVM_IRQCHIP, 1);
	EXPECT_EQ(tvm_go(&t), 1);
	ASSERT_OK(ioctl(t.cpu, KVM_SET_GUEST_DEBUG, &debug));
	EXPECT_EQ(tvm_go(&t), 2);
	debug.control = 0;
	ASSERT_OK(ioctl(t.cpu, KVM_SET_GUEST_DEBUG, &debug));
	EXPECT_EQ(tvm_go(&t), 3);
	ASSERT_OK(ioctl(t.fd, KVM_X86_SET_MSR_FILTER, &filter));
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);
}

/* -- deliveries that are cut short ------------------------------------------ */

GUEST(guest_cut)
{
	uint32_t i;

	/*
	 * The first in xAPIC mode, where it is injected: Bochs reports the others as
	 * what that was. See apic_enable().
	 */
	guest_handlers[IPI] = guest_eoi_handler;
	apic_enable();
	apic_icr(0, APIC_DEST_SELF | APIC_ASSERT | IPI);
	sti();
	cli();
	set_up();
	for (i = 1; i <= 8; i++) {
		self_ipi(LOW);
		self_ipi(IPI);
		GUEST_SYNC(1);
		sti();
		cli();
		GUEST_EQ(guest_cpu()->irqs[IPI], i + 1);
		GUEST_EQ(guest_cpu()->irqs[LOW], i);
		GUEST_EQ(apic_read(APIC_PPR), 0);
	}
}

/* Each time the interrupts meet descriptors and a stack that are not mapped. */
TEST(deliveries_that_fault_are_repeated)
{
	struct tvm t;

	tvm_init_smp(&t, &guest_cut, TVM_IRQCHIP, 1);
	while (tvm_go(&t) != TVM_DONE) {
		ASSERT_OK(mprotect(t.ram, GUEST_RAM_SIZE, PROT_NONE));
		ASSERT_OK(mprotect(t.ram, GUEST_RAM_SIZE, PROT_READ | PROT_WRITE));
	}
	tvm_fini(&t);
}
