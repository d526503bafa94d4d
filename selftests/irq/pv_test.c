// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a hypervisor offers beside the manuals, by the kernel's documentation of
 * KVM's MSRs, CPUID leaves and hypercalls: an end of interrupt that is a bit in
 * memory, IPIs to many processors at once, and a way to end another one's HLT.
 */
#define _GNU_SOURCE
#include <asm/kvm_para.h>
#include <linux/kvm_para.h>
#include <string.h>

#include "tvm.h"

#define NR	4
#define IPI	0x51
#define LEVEL	0x61

#define IOAPIC	0xfec00000ul
#define PIN	18	/* not the PIC's */

static bool has_feature(uint32_t feature)
{
	return cpuid(KVM_CPUID_FEATURES, 0).eax >> feature & 1;
}

/* -- PV EOI ----------------------------------------------------------------- */

static volatile uint32_t eoi_word __attribute__((aligned(4)));
static volatile uint32_t left_out, written, offered_for_level;
static volatile bool apicv;	/* there writes are cheaper, and none is left out */

static void pv_eoi(void)
{
	uint8_t was;

	__asm__ volatile("btrl $0, %1\n\tsetc %0" : "=q"(was), "+m"(eoi_word) : : "memory");
	if (was) {
		left_out++;
	} else {
		written++;
		apic_write(APIC_EOI, 0);
	}
}

static void on_ipi(struct guest_frame *frame)
{
	guest_cpu()->irqs[frame->vector]++;
	pv_eoi();
}

/* The end of a level-triggered one must be heard. */
static void on_level(struct guest_frame *frame)
{
	offered_for_level += eoi_word & 1;
	guest_cpu()->irqs[frame->vector]++;
	GUEST_SYNC(2);
	pv_eoi();
}

static void self_ipi(void)
{
	apic_icr(guest_cpu()->id, APIC_ASSERT | IPI);
}

GUEST(guest_pv_eoi)
{
	uint32_t i;

	GUEST_TRUE(has_feature(KVM_FEATURE_PV_EOI));
	guest_handlers[IPI] = on_ipi;
	guest_handlers[IPI + 1] = on_ipi;
	guest_handlers[LEVEL] = on_level;
	guest_x2apic = true;
	apic_enable();
	/* Four bytes, aligned; bit 1 is reserved. */
	GUEST_EQ(wrmsr_safe(MSR_KVM_PV_EOI_EN, (uint64_t)&eoi_word | 3), 13);
	wrmsr(MSR_KVM_PV_EOI_EN, (uint64_t)&eoi_word | KVM_MSR_ENABLED);
	GUEST_EQ(rdmsr(MSR_KVM_PV_EOI_EN), (uint64_t)&eoi_word | KVM_MSR_ENABLED);
	sti();
	for (i = 1; i <= 100; i++) {
		self_ipi();
		while (guest_cpu()->irqs[IPI] < i)
			cpu_relax();
		/* All that is in service has ended, by either way. */
		cpuid(0, 0);
		GUEST_EQ(apic_read(APIC_ISR + 0x20), 0);
		GUEST_EQ(eoi_word & 1, 0);
	}
	GUEST_EQ(left_out + written, 100);
	GUEST_EQ(left_out > 0, !apicv);

	/* Two that wait: the end of the first lets in the second. */
	cli();
	self_ipi();
	apic_icr(0, APIC_ASSERT | (IPI + 1));
	sti();
	while (!guest_cpu()->irqs[IPI + 1] || guest_cpu()->irqs[IPI] < 101)
		cpu_relax();
	GUEST_EQ(apic_read(APIC_ISR + 0x20), 0);
	GUEST_EQ(apic_read(APIC_PPR), 0);

	/* A level: the host lowers the line before its end. */
	*mmio32(IOAPIC) = 0x10 + 2 * PIN;
	*mmio32(IOAPIC + 0x10) = 0x8000 | LEVEL;
	GUEST_SYNC(1);
	while (!guest_cpu()->irqs[LEVEL])
		cpu_relax();
	*mmio32(IOAPIC) = 0x10 + 2 * PIN;
	GUEST_EQ(*mmio32(IOAPIC + 0x10) & 0x4000, 0);
	GUEST_EQ(offered_for_level, 0);

	wrmsr(MSR_KVM_PV_EOI_EN, 0);
	i = left_out;
	self_ipi();
	while (guest_cpu()->irqs[IPI] < 102)
		cpu_relax();
	GUEST_EQ(left_out, i);
}

TEST(pv_eoi_instead_of_a_write)
{
	struct tvm t;

	apicv = tvm_has_apicv();
	tvm_init_smp(&t, &guest_pv_eoi, TVM_IRQCHIP, 1);
	EXPECT_EQ(tvm_go(&t), 1);
	tvm_irq_line(&t, PIN, 1);
	EXPECT_EQ(tvm_go(&t), 2);
	tvm_irq_line(&t, PIN, 0);
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	EXPECT_EQ(tvm_set_msr(&t, 0, MSR_KVM_PV_EOI_EN, 0x1003), 0);
	EXPECT_EQ(tvm_set_msr(&t, 0, MSR_KVM_PV_EOI_EN, 0x1001), 1);
	EXPECT_EQ(tvm_msr(&t, 0, MSR_KVM_PV_EOI_EN), 0x1001);
	tvm_fini(&t);
}

/* -- KVM_HC_SEND_IPI, KVM_HC_KICK_CPU --------------------------------------- */

static volatile uint32_t arrived, quit;

static void receive(void)
{
	apic_enable();
	sti();
	__atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST);
	while (!quit)
		cpu_relax();
}

static void await_counts(uint32_t mask, uint32_t vector, uint32_t *counts)
{
	uint32_t i;

	for (i = 0; i < NR; i++) {
		counts[i] += mask >> i & 1;
		while (guest_cpus[i].irqs[vector] < counts[i])
			cpu_relax();
	}
	for (i = 0; i < NR; i++)
		GUEST_EQ(guest_cpus[i].irqs[vector], counts[i]);
}

GUEST(guest_pv_ipi)
{
	uint32_t ipi[NR] = { 0 }, nmi[NR] = { 0 };

	guest_handlers[IPI] = guest_eoi_handler;
	guest_handlers[2] = guest_count_handler;
	guest_x2apic = true;
	if (guest_cpu()->id) {
		receive();
		return;
	}
	GUEST_TRUE(has_feature(KVM_FEATURE_PV_SEND_IPI));
	apic_enable();
	sti();
	while (arrived < NR - 1)
		cpu_relax();
	GUEST_EQ(hypercall(KVM_HC_SEND_IPI, 0xa, 0, 0, IPI), 2);
	await_counts(0xa, IPI, ipi);
	/* The first id counts; the bits may be in the second word, or nobody's. */
	GUEST_EQ(hypercall(KVM_HC_SEND_IPI, 0x3, 0, 2, IPI), 2);
	await_counts(0xc, IPI, ipi);
	GUEST_EQ(hypercall(KVM_HC_SEND_IPI, ~0ull << 4, ~0ull, 0, IPI), 0);
	GUEST_EQ(hypercall(KVM_HC_SEND_IPI, 0, 1, 0, IPI), 0);
	GUEST_EQ(hypercall(KVM_HC_SEND_IPI, 1, 0, ~0u, IPI), 0);
	await_counts(0, IPI, ipi);
	GUEST_EQ(hypercall(KVM_HC_SEND_IPI, 0xe, 0, 0, APIC_DM_NMI), 3);
	await_counts(0xe, 2, nmi);
	/* Shorthands have no meaning here. */
	GUEST_EQ(hypercall(KVM_HC_SEND_IPI, 1, 0, 0, APIC_DEST_ALL | IPI), (uint64_t)-KVM_EINVAL);
	await_counts(0, IPI, ipi);
	quit = 1;
}

TEST_TIMEOUT(pv_ipi_reaches_who_is_named, 60)
{
	struct tvm t;

	tvm_init_smp(&t, &guest_pv_ipi, TVM_IRQCHIP, NR);
	tvm_start_all(&t);
	tvm_join_all(&t);
	tvm_fini(&t);
}

static volatile uint32_t step;

GUEST(guest_kick)
{
	GUEST_TRUE(has_feature(KVM_FEATURE_PV_UNHALT));
	guest_x2apic = true;
	apic_enable();
	cli();
	if (guest_cpu()->id) {
		arrived = 1;
		/* Kicked before: the HLT does not wait. Then one that may sleep. */
		while (!step)
			cpu_relax();
		hlt();
		step = 2;
		hlt();
		step = 3;
		return;
	}
	while (!arrived)
		cpu_relax();
	GUEST_EQ(hypercall(KVM_HC_KICK_CPU, 0, 1, 0, 0), 0);
	step = 1;
	while (step < 2)
		cpu_relax();
	GUEST_EQ(hypercall(KVM_HC_KICK_CPU, 0, 1, 0, 0), 0);
	while (step < 3)
		cpu_relax();
	/* Nobody there. */
	GUEST_EQ(hypercall(KVM_HC_KICK_CPU, 0, 77, 0, 0), 0);
}

TEST(kick_ends_a_halt)
{
	struct tvm t;

	tvm_init_smp(&t, &guest_kick, TVM_IRQCHIP, 2);
	tvm_start_all(&t);
	tvm_join_all(&t);
	tvm_fini(&t);
}

/* -- KVM_HC_SCHED_YIELD, and the hypercall of another vendor ---------------- */

static volatile uint32_t passed;

GUEST(guest_yield)
{
	guest_x2apic = true;
	apic_enable();
	sti();
	if (guest_cpu()->id) {
		/* Whoever waits for it gives it the processor. */
		while (!quit)
			passed++;
		return;
	}
	GUEST_TRUE(has_feature(KVM_FEATURE_PV_SCHED_YIELD));
	while (passed < 1000)
		GUEST_EQ(hypercall(KVM_HC_SCHED_YIELD, 1, 0, 0, 0), 0);
	/* Oneself, and nobody. */
	GUEST_EQ(hypercall(KVM_HC_SCHED_YIELD, 0, 0, 0, 0), 0);
	GUEST_EQ(hypercall(KVM_HC_SCHED_YIELD, ~0u, 0, 0, 0), 0);
	quit = 1;
}

TEST_TIMEOUT(a_vcpu_yields_to_another, 60)
{
	struct tvm t;

	tvm_init_smp(&t, &guest_yield, TVM_IRQCHIP, 2);
	tvm_start_all(&t);
	tvm_join_all(&t);
	tvm_fini(&t);
}

extern uint8_t foreign_insn[];

static volatile bool patched;

/* VMCALL and VMMCALL differ in their last byte. */
static __attribute__((noinline)) uint64_t foreign_hypercall(void)
{
	uint64_t ret = KVM_HC_VAPIC_POLL_IRQ;

	__asm__ volatile(".globl foreign_insn\n"
			 "foreign_insn:\n\t.byte 0x0f, 0x01, 0" : "+a"(ret) : : "memory");
	return ret;
}

GUEST(guest_foreign)
{
	uint8_t native = cpu_is_amd() ? 0xd9 : 0xc1, foreign = native ^ 0xc1 ^ 0xd9;
	int i;

	/* Others that are undefined are the guest's own, however many. */
	for (i = 0; i < 3; i++)
		GUEST_EQ(GUEST_TRY("ud2", , ), 6);
	foreign_insn[2] = foreign;
	if (patched) {
		GUEST_EQ(foreign_hypercall(), 0);
		GUEST_EQ(foreign_insn[2], native);
		GUEST_EQ(foreign_hypercall(), 0);
	}
	for (i = 0; i < 20; i++)
		GUEST_EQ(GUEST_TRY("ud2", , ), 6);
	if (patched)
		return;
	if (cpu_is_amd())
		GUEST_EQ(GUEST_TRY("vmcall", , ), 6);
	else
		GUEST_EQ(GUEST_TRY("vmmcall", , ), 6);
	GUEST_EQ(foreign_insn[2], foreign);
}

TEST(hypercall_of_another_vendor_is_replaced)
{
	struct kvm_enable_cap cap = {
		.cap = KVM_CAP_DISABLE_QUIRKS2, .args = { KVM_X86_QUIRK_FIX_HYPERCALL_INSN }
	};
	struct tvm t;

	patched = true;
	tvm_init(&t, &guest_foreign);
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);

	patched = false;
	tvm_init(&t, &guest_foreign);
	ASSERT_OK(ioctl(t.fd, KVM_ENABLE_CAP, &cap));
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);
}

/* Both find it undefined; one of them replaces it. */
GUEST(guest_foreign_smp)
{
	uint8_t foreign = cpu_is_amd() ? 0xc1 : 0xd9;
	uint32_t i;

	apic_enable();
	sti();
	for (i = 1; i <= 300; i++) {
		if (!guest_cpu()->id)
			foreign_insn[2] = foreign;
		__atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST);
		while (arrived < 4 * i - 2)
			cpu_relax();
		/* Code that another processor has changed wants this. */
		cpuid(0, 0);
		GUEST_EQ(foreign_hypercall(), 0);
		__atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST);
		while (arrived < 4 * i)
			cpu_relax();
	}
}

TEST_TIMEOUT(two_vcpus_replace_the_same_hypercall, 60)
{
	struct tvm t;

	tvm_init_smp(&t, &guest_foreign_smp, TVM_IRQCHIP, 2);
	tvm_start_all(&t);
	tvm_join_all(&t);
	tvm_fini(&t);
}
