// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * KVM_CAP_SPLIT_IRQCHIP: local APICs in the kernel, PIC and IOAPIC in user
 * space. Lines reach a guest as messages by the routing table, or through LINT0
 * by KVM_INTERRUPT, and user space hears of the EOI of what is level-triggered.
 */
#include <string.h>

#include "tvm.h"

#define NR_PINS	24
#define LEVEL	0x8000

static int enable_split(struct tvm *t, uint64_t nr_pins)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { nr_pins } };

	return ioctl(t->fd, KVM_ENABLE_CAP, &cap);
}

static void init_split(struct tvm *t, const struct guest_code *code)
{
	tvm_init_bare(t, 0);
	ASSERT_OK(enable_split(t, NR_PINS));
	tvm_add_vcpu(t, 0);
	tvm_set_code(t, 0, code);
}

/* GSI 5 is level-triggered, 6 is not, as an IOAPIC in user space routes them. */
static void route_two(struct tvm *t)
{
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry entry[2];
	} r;
	int i;

	memset(&r, 0, sizeof(r));
	r.head.nr = 2;
	for (i = 0; i < 2; i++) {
		r.entry[i].gsi = 5 + i;
		r.entry[i].type = KVM_IRQ_ROUTING_MSI;
		r.entry[i].u.msi.address_lo = TVM_MSI_ADDR(0);
		r.entry[i].u.msi.data = i ? 0x69 : LEVEL | 0x58;
	}
	ASSERT_OK(ioctl(t->fd, KVM_SET_GSI_ROUTING, &r));
}

TEST(split_excludes_the_other_modes)
{
	struct tvm t;

	tvm_init_bare(&t, 0);
	EXPECT_ERRNO(enable_split(&t, 4097), EINVAL);
	EXPECT_OK(enable_split(&t, NR_PINS));
	EXPECT_ERRNO(enable_split(&t, NR_PINS), EEXIST);
	EXPECT_ERRNO(ioctl(t.fd, KVM_CREATE_IRQCHIP, 0), EEXIST);
	tvm_fini(&t);

	tvm_init_bare(&t, TVM_IRQCHIP);
	EXPECT_ERRNO(enable_split(&t, NR_PINS), EEXIST);
	tvm_fini(&t);
	tvm_init_bare(&t, 0);
	tvm_add_vcpu(&t, 0);
	EXPECT_ERRNO(enable_split(&t, NR_PINS), EEXIST);
	tvm_fini(&t);
}

TEST(chips_are_not_in_the_kernel)
{
	struct kvm_irqchip chip = { .chip_id = KVM_IRQCHIP_IOAPIC };
	struct kvm_irqfd irqfd = { .fd = 0, .flags = KVM_IRQFD_FLAG_RESAMPLE };
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry entry;
	} r;
	struct tvm t;

	tvm_init_bare(&t, 0);
	ASSERT_OK(enable_split(&t, NR_PINS));
	EXPECT_ERRNO(ioctl(t.fd, KVM_GET_IRQCHIP, &chip), ENXIO);
	EXPECT_ERRNO(ioctl(t.fd, KVM_SET_IRQCHIP, &chip), ENXIO);
	EXPECT_ERRNO(ioctl(t.fd, KVM_IRQFD, &irqfd), EINVAL);
	memset(&r, 0, sizeof(r));
	r.head.nr = 1;
	r.entry.type = KVM_IRQ_ROUTING_IRQCHIP;
	r.entry.u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
	EXPECT_ERRNO(ioctl(t.fd, KVM_SET_GSI_ROUTING, &r), EINVAL);
	tvm_fini(&t);
}

#define COUNT(_vec)	(((volatile struct guest_cpu *)guest_cpu())->irqs[_vec])

static void guest_takes_both(bool x2apic)
{
	guest_x2apic = x2apic;
	guest_handlers[0x58] = guest_eoi_handler;
	guest_handlers[0x69] = guest_eoi_handler;
	apic_enable();
	sti();
	GUEST_SYNC(1);
	while (!COUNT(0x58))
		cpu_relax();
	GUEST_SYNC(2);
	while (!COUNT(0x69))
		cpu_relax();
	GUEST_SYNC(3);
	while (COUNT(0x58) != 2)
		cpu_relax();
}

GUEST(guest_takes_both_xapic)
{
	guest_takes_both(false);
}

GUEST(guest_takes_both_x2apic)
{
	guest_takes_both(true);
}

static void expect_eoi(struct tvm *t)
{
	EXPECT_EQ(tvm_run(t), KVM_EXIT_IOAPIC_EOI);
	EXPECT_EQ(t->run->eoi.vector, 0x58);
}

static void eoi_exits(const struct guest_code *code)
{
	struct tvm t;

	init_split(&t, code);
	route_two(&t);
	EXPECT_EQ(tvm_go(&t), 1);
	tvm_irq_line(&t, 5, 1);
	expect_eoi(&t);
	tvm_irq_line(&t, 5, 0);
	EXPECT_EQ(tvm_go(&t), 2);
	/* An edge ends without a word. */
	tvm_irq_line(&t, 6, 1);
	tvm_irq_line(&t, 6, 0);
	EXPECT_EQ(tvm_go(&t), 3);
	/* A level that is still there is sent again by user space. */
	tvm_irq_line(&t, 5, 1);
	expect_eoi(&t);
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);
}

TEST(eoi_of_a_level_exits_xapic)
{
	eoi_exits(&guest_takes_both_xapic);
}

TEST(eoi_of_a_level_exits_x2apic)
{
	eoi_exits(&guest_takes_both_x2apic);
}

static volatile unsigned int taken;

static void on_extint(struct guest_frame *frame)
{
	(void)frame;
	taken++;
}

GUEST(guest_takes_extint)
{
	guest_handlers[0x44] = on_extint;
	apic_enable();
	apic_write(APIC_LVT0, 0x700);
	GUEST_SYNC(1);
	GUEST_EQ(taken, 0);
	sti();
	while (taken != 1)
		cpu_relax();
	/* It is not the local APIC's: nothing is in service there. */
	GUEST_EQ(apic_read(APIC_ISR + 0x20), 0);
	cli();
	apic_write(APIC_LVT0, APIC_LVT_MASKED | 0x700);
	GUEST_SYNC(2);
	sti();
	GUEST_SYNC(3);
	GUEST_EQ(taken, 1);
	apic_write(APIC_LVT0, 0x700);
	while (taken != 2)
		cpu_relax();
}

TEST(kvm_interrupt_goes_through_lint0)
{
	struct kvm_interrupt irq = { .irq = 0x44 };
	struct tvm t;

	init_split(&t, &guest_takes_extint);
	EXPECT_EQ(tvm_go(&t), 1);
	EXPECT_EQ(t.run->if_flag, 0);
	EXPECT_EQ(t.run->ready_for_interrupt_injection, 0);
	/* The window: the guest can be interrupted now. */
	t.run->request_interrupt_window = 1;
	EXPECT_EQ(tvm_run(&t), KVM_EXIT_IRQ_WINDOW_OPEN);
	EXPECT_EQ(t.run->if_flag, 1);
	EXPECT_EQ(t.run->ready_for_interrupt_injection, 1);
	t.run->request_interrupt_window = 0;
	EXPECT_OK(ioctl(t.cpu, KVM_INTERRUPT, &irq));
	EXPECT_ERRNO(ioctl(t.cpu, KVM_INTERRUPT, &irq), EEXIST);
	EXPECT_EQ(tvm_go(&t), 2);

	/* LINT0 is masked: it waits, and waiting for the window does not stop the guest. */
	EXPECT_OK(ioctl(t.cpu, KVM_INTERRUPT, &irq));
	t.run->request_interrupt_window = 1;
	EXPECT_EQ(tvm_go(&t), 3);
	t.run->request_interrupt_window = 0;
	EXPECT_EQ(t.run->ready_for_interrupt_injection, 0);
	/* The reference would not look at LINT0 before something else happens. */
	if (!tvm_is_stock())
		EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);
}
