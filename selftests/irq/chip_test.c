// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * PIC and IOAPIC as a guest programs them: edges and levels, masks, EOI,
 * remote IRR, priorities, the cascade, and lines that the VMM moves.
 */
#define _GNU_SOURCE
#include <string.h>

#include "tvm.h"

#define VEC	0x60
#define PIC	0x30

#define IRQS(_t, _vec)	(((volatile struct guest_cpu *)&G(_t, guest_cpus)[0])->irqs[_vec])

static volatile uint32_t phase;

/* The host moves lines between two phases; the guest looks at the result. */
static void next_phase(void)
{
	GUEST_SYNC(++phase);
}

static void take(void)
{
	sti();
	cli();
}

GUEST(guest_ioapic)
{
	volatile uint32_t *irqs = guest_cpu()->irqs;

	guest_handlers[VEC] = guest_handlers[VEC + 1] = guest_eoi_handler;
	guest_handlers[VEC + 2] = guest_count_handler;
	guest_x2apic = true;
	apic_enable();
	cli();

	/* Registers. */
	GUEST_EQ(ioapic_read(1) & 0xff00ff, 0x170011);
	ioapic_write(0, 0x05000000);
	GUEST_EQ(ioapic_read(0), 0x05000000);
	GUEST_EQ(ioapic_read(0x10 + 2 * 23) & 0x10000, 0x10000);
	ioapic_rte(20, 0xffffffffffff5fff);
	GUEST_EQ(ioapic_read(0x10 + 40) & 0x5000, 0);	/* status: read-only */
	ioapic_rte(20, VEC);

	next_phase();		/* 1: pulse on 20 */
	take();
	GUEST_EQ(irqs[VEC], 1);

	next_phase();		/* 2: up and up again: one edge */
	take();
	GUEST_EQ(irqs[VEC], 2);

	/* A masked edge is lost. */
	ioapic_rte(20, APIC_LVT_MASKED | VEC);
	next_phase();		/* 3: down, pulse */
	ioapic_rte(20, VEC);
	take();
	GUEST_EQ(irqs[VEC], 2);

	/* Level: comes again after each EOI while the line is up. */
	ioapic_rte(21, 0x8000 | (VEC + 2));
	next_phase();		/* 4: 21 up */
	take();
	GUEST_EQ(irqs[VEC + 2], 1);
	GUEST_EQ(ioapic_read(0x10 + 42) & 0x4000, 0x4000);	/* remote IRR */
	take();
	GUEST_EQ(irqs[VEC + 2], 1);
	GUEST_EQ(apic_read(APIC_TMR + 0x30) >> 2 & 1, 1);
	apic_write(APIC_EOI, 0);
	take();
	GUEST_EQ(irqs[VEC + 2], 2);
	next_phase();		/* 5: 21 down */
	apic_write(APIC_EOI, 0);
	take();
	GUEST_EQ(irqs[VEC + 2], 2);
	GUEST_EQ(ioapic_read(0x10 + 42) & 0x4000, 0);

	/* A masked level is remembered. */
	ioapic_rte(21, APIC_LVT_MASKED | 0x8000 | (VEC + 2));
	next_phase();		/* 6: 21 up */
	take();
	GUEST_EQ(irqs[VEC + 2], 2);
	ioapic_rte(21, 0x8000 | (VEC + 2));
	take();
	GUEST_EQ(irqs[VEC + 2], 3);
	next_phase();		/* 7: 21 down */
	apic_write(APIC_EOI, 0);

	/* Logical destination; and nobody's. */
	ioapic_rte(22, 0x0100000000000800 | (VEC + 1));
	next_phase();		/* 8: pulse on 22 */
	take();
	GUEST_EQ(irqs[VEC + 1], 1);
	ioapic_rte(22, 0x7700000000000000 | (VEC + 1));
	next_phase();		/* 9: pulse on 22 */
	take();
	GUEST_EQ(irqs[VEC + 1], 1);
}

static void pulse(struct tvm *t, unsigned int gsi)
{
	tvm_irq_line(t, gsi, 1);
	tvm_irq_line(t, gsi, 0);
}

TEST(ioapic_edges_and_levels)
{
	struct kvm_irqchip chip = { .chip_id = KVM_IRQCHIP_IOAPIC };
	uint64_t step;
	struct tvm t;

	tvm_init_smp(&t, &guest_ioapic, TVM_IRQCHIP, 1);
	while ((step = tvm_go(&t)) != TVM_DONE) {
		switch (step) {
		case 1:
			pulse(&t, 20);
			break;
		case 2:
			tvm_irq_line(&t, 20, 1);
			tvm_irq_line(&t, 20, 1);
			break;
		case 3:
			tvm_irq_line(&t, 20, 0);
			pulse(&t, 20);
			break;
		case 4:
		case 6:
			tvm_irq_line(&t, 21, 1);
			break;
		case 5:
			ASSERT_OK(ioctl(t.fd, KVM_GET_IRQCHIP, &chip));
			EXPECT_EQ(chip.chip.ioapic.redirtbl[21].fields.remote_irr, 1);
			EXPECT_EQ(chip.chip.ioapic.irr >> 21 & 1, 1);
			tvm_irq_line(&t, 21, 0);
			break;
		case 7:
			tvm_irq_line(&t, 21, 0);
			break;
		default:
			pulse(&t, 22);
		}
	}
	EXPECT_EQ(G(&t, phase), 9);
	tvm_fini(&t);
}

/* A level that is up while the state is saved and set comes after it. */
GUEST(guest_waits_for_level)
{
	guest_handlers[VEC] = guest_eoi_handler;
	guest_x2apic = true;
	apic_enable();
	cli();
	next_phase();
	take();
	GUEST_EQ(guest_cpu()->irqs[VEC], 1);
}

TEST(ioapic_state_set_by_the_vmm_is_live)
{
	struct kvm_irqchip chip = { .chip_id = KVM_IRQCHIP_IOAPIC };
	struct tvm t;

	tvm_init_smp(&t, &guest_waits_for_level, TVM_IRQCHIP, 1);
	EXPECT_EQ(tvm_go(&t), 1);
	ASSERT_OK(ioctl(t.fd, KVM_GET_IRQCHIP, &chip));
	chip.chip.ioapic.redirtbl[20].bits = VEC;
	ASSERT_OK(ioctl(t.fd, KVM_SET_IRQCHIP, &chip));
	pulse(&t, 20);
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);
}

static void pic_init(uint8_t icw4, uint8_t mask)
{
	outb(0x20, 0x11);
	outb(0x21, PIC);
	outb(0x21, 4);
	outb(0x21, icw4);
	outb(0xa0, 0x11);
	outb(0xa1, PIC + 8);
	outb(0xa1, 2);
	outb(0xa1, icw4);
	outb(0x21, mask);
	outb(0xa1, 0xff);
}

GUEST(guest_pic)
{
	volatile uint32_t *irqs = guest_cpu()->irqs;
	uint32_t i;

	for (i = 0; i < 16; i++)
		guest_handlers[PIC + i] = guest_count_handler;
	apic_enable();
	apic_write(APIC_LVT0, 0x700);
	cli();
	pic_init(1, 0);
	outb(0xa1, 0);
	GUEST_EQ(inb(0x21), 0);
	outb(0x21, 0x20);
	GUEST_EQ(inb(0x21), 0x20);
	outb(0x21, 0);

	next_phase();		/* 1: pulse on 4 and 3: the lower is first */
	outb(0x20, 0x0a);
	GUEST_EQ(inb(0x20), 0x18);
	take();
	GUEST_EQ(irqs[PIC + 3], 1);
	GUEST_EQ(irqs[PIC + 4], 0);
	outb(0x20, 0x0b);
	GUEST_EQ(inb(0x20), 0x08);
	/* In service: 4 waits for the EOI. */
	take();
	GUEST_EQ(irqs[PIC + 4], 0);
	outb(0x20, 0x20);
	take();
	GUEST_EQ(irqs[PIC + 4], 1);
	outb(0x20, 0x60 | 4);		/* a specific EOI */
	GUEST_EQ(inb(0x20), 0);

	next_phase();		/* 2: 12 by the cascade */
	take();
	GUEST_EQ(irqs[PIC + 12], 1);
	outb(0xa0, 0x0b);
	GUEST_EQ(inb(0xa0), 0x10);
	GUEST_EQ(inb(0x20), 0x04);
	outb(0xa0, 0x20);
	outb(0x20, 0x20);

	/* Masked: an edge stays in IRR and comes when unmasked. */
	outb(0x21, 0x20);
	next_phase();		/* 3: 5 up */
	take();
	GUEST_EQ(irqs[PIC + 5], 0);
	outb(0x21, 0);
	take();
	GUEST_EQ(irqs[PIC + 5], 1);
	outb(0x20, 0x20);
	/* An edge, though the line is still up: not again. */
	take();
	GUEST_EQ(irqs[PIC + 5], 1);

	/* A level (ELCR) comes as long as the line is up. */
	outb(0x4d1, 0x0c);
	GUEST_EQ(inb(0x4d1), 0x0c);
	next_phase();		/* 4: 5 down, 10 up */
	take();
	outb(0xa0, 0x20);
	outb(0x20, 0x20);
	take();
	GUEST_EQ(irqs[PIC + 10], 2);
	next_phase();		/* 5: 10 down */
	outb(0xa0, 0x20);
	outb(0x20, 0x20);
	take();
	GUEST_EQ(irqs[PIC + 10], 2);

	/* Automatic EOI. */
	pic_init(3, 0);
	next_phase();		/* 6: pulse on 6, twice */
	take();
	outb(0x20, 0x0b);
	GUEST_EQ(inb(0x20), 0);
	GUEST_EQ(irqs[PIC + 6], 1);
}

TEST(pic_edges_and_levels)
{
	uint64_t step;
	struct tvm t;

	tvm_init_smp(&t, &guest_pic, TVM_IRQCHIP, 1);
	while ((step = tvm_go(&t)) != TVM_DONE) {
		switch (step) {
		case 1:
			tvm_irq_line(&t, 4, 1);
			tvm_irq_line(&t, 3, 1);
			break;
		case 2:
			tvm_irq_line(&t, 4, 0);
			tvm_irq_line(&t, 3, 0);
			tvm_irq_line(&t, 12, 1);
			break;
		case 3:
			tvm_irq_line(&t, 12, 0);
			tvm_irq_line(&t, 5, 1);
			break;
		case 4:
			tvm_irq_line(&t, 5, 0);
			tvm_irq_line(&t, 10, 1);
			break;
		case 5:
			tvm_irq_line(&t, 10, 0);
			break;
		default:
			tvm_irq_line(&t, 6, 1);
			break;
		}
	}
	EXPECT_EQ(G(&t, phase), 6);
	tvm_fini(&t);
}

/* Vectors below 16 are for exceptions: no interrupt may come there. */
GUEST(guest_lvt_error)
{
	guest_handlers[0x70] = guest_eoi_handler;
	guest_x2apic = true;
	apic_enable();
	apic_write(APIC_LVTERR, 0x70);
	apic_write(APIC_ESR, 0);
	sti();
	apic_icr(0, APIC_DEST_SELF | APIC_ASSERT | 0x05);
	GUEST_EQ(apic_read(APIC_ISR), 0);
	apic_icr(0, APIC_DEST_SELF | APIC_ASSERT | 0x70);
	while (!guest_cpu()->irqs[0x70])
		cpu_relax();
}

TEST(illegal_vectors_do_no_harm)
{
	struct tvm t;

	tvm_init_smp(&t, &guest_lvt_error, TVM_IRQCHIP, 1);
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);
}

/* Many lines from two threads, all level-triggered: none is lost or stuck. */
#define STORM	200

static void on_level(struct guest_frame *frame)
{
	guest_count_handler(frame);
	/* The handler tells the device, which lowers its line before the EOI. */
	outl(0x700, (uint32_t)frame->vector);
	apic_write(APIC_EOI, 0);
}

GUEST(guest_takes_levels)
{
	guest_handlers[VEC] = guest_handlers[VEC + 1] = on_level;
	guest_x2apic = true;
	apic_enable();
	ioapic_rte(20, 0x8000 | VEC);
	ioapic_rte(21, 0x8000 | (VEC + 1));
	sti();
	GUEST_SYNC(1);
	while (guest_cpu()->irqs[VEC] < STORM || guest_cpu()->irqs[VEC + 1] < STORM)
		cpu_relax();
	cli();
}

struct device {
	struct tvm *t;
	unsigned int gsi;
	atomic_uint lowered;
};

static void *raise_levels(void *arg)
{
	struct device *d = arg;
	unsigned int i;

	for (i = 0; i < STORM; i++) {
		tvm_irq_line(d->t, d->gsi, 1);
		TVM_AWAIT(d->lowered > i);
	}
	return NULL;
}

TEST_TIMEOUT(level_storm_from_two_devices, 60)
{
	struct device d[2];
	pthread_t thread[2];
	bool is_report;
	struct tvm t;
	unsigned int i;

	tvm_init_smp(&t, &guest_takes_levels, TVM_IRQCHIP, 1);
	EXPECT_EQ(tvm_go(&t), 1);
	for (i = 0; i < 2; i++) {
		d[i].t = &t;
		d[i].gsi = 20 + i;
		d[i].lowered = 0;
		ASSERT_EQ(pthread_create(&thread[i], NULL, raise_levels, &d[i]), 0);
	}
	for (;;) {
		ASSERT_EQ(tvm_run(&t), KVM_EXIT_IO);
		if (tvm_report(&t, 0, &is_report) == TVM_DONE && is_report)
			break;
		i = *(uint32_t *)tvm_io_data(&t) - VEC;
		ASSERT_LT(i, 2);
		tvm_irq_line(&t, 20 + i, 0);
		d[i].lowered++;
	}
	EXPECT_EQ(IRQS(&t, VEC), STORM);
	EXPECT_EQ(IRQS(&t, VEC + 1), STORM);
	for (i = 0; i < 2; i++)
		ASSERT_EQ(pthread_join(thread[i], NULL), 0);
	tvm_fini(&t);
}
