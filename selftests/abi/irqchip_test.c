// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The ioctls around the interrupt controllers: state of PIC, IOAPIC, local
 * APIC and PIT by GET and SET, IRQ_LINE, the routing table, MSIs. What the
 * devices do for a guest is in irq/.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/fonda.h>

#include "tvm.h"

#define BAD_PTR	((void *)8)

struct routing {
	struct kvm_irq_routing head;
	struct kvm_irq_routing_entry entries[64];
};

static void route_msi(struct routing *r, uint32_t gsi, uint32_t addr, uint32_t data)
{
	r->entries[r->head.nr++] = (struct kvm_irq_routing_entry){
		.gsi = gsi, .type = KVM_IRQ_ROUTING_MSI,
		.u.msi = { .address_lo = addr, .data = data },
	};
}

static void route_pin(struct routing *r, uint32_t gsi, uint32_t chip, uint32_t pin)
{
	r->entries[r->head.nr++] = (struct kvm_irq_routing_entry){
		.gsi = gsi, .type = KVM_IRQ_ROUTING_IRQCHIP,
		.u.irqchip = { .irqchip = chip, .pin = pin },
	};
}

TEST(irqchip_state_round_trip)
{
	struct kvm_irqchip chip, out;
	struct tvm t;
	uint32_t id;

	tvm_init_bare(&t, TVM_IRQCHIP);
	for (id = 0; id < 3; id++) {
		memset(&chip, 0, sizeof(chip));
		chip.chip_id = id;
		EXPECT_OK(ioctl(t.fd, KVM_GET_IRQCHIP, &chip));
		EXPECT_EQ(chip.chip_id, id);
		if (id < 2) {
			chip.chip.pic.imr = (uint8_t)(0xa0 | id);
			chip.chip.pic.irq_base = (uint8_t)(0x30 + 8 * id);
			chip.chip.pic.elcr = (uint8_t)(id ? 0x0c : 0x20);
			chip.chip.pic.isr = 0;
			chip.chip.pic.auto_eoi = 1;
		} else {
			EXPECT_EQ(chip.chip.ioapic.base_address, 0xfec00000);
			EXPECT_EQ(chip.chip.ioapic.redirtbl[23].bits & 0x10000, 0x10000);
			chip.chip.ioapic.ioregsel = 0x10;
			chip.chip.ioapic.id = 5;
			chip.chip.ioapic.redirtbl[7].bits = 0x0300000000008045;
		}
		EXPECT_OK(ioctl(t.fd, KVM_SET_IRQCHIP, &chip));
		memset(&out, 0xff, sizeof(out));
		out.chip_id = id;
		EXPECT_OK(ioctl(t.fd, KVM_GET_IRQCHIP, &out));
		if (id < 2) {
			EXPECT_EQ(out.chip.pic.imr, chip.chip.pic.imr);
			EXPECT_EQ(out.chip.pic.irq_base, chip.chip.pic.irq_base);
			EXPECT_EQ(out.chip.pic.elcr, chip.chip.pic.elcr);
			EXPECT_EQ(out.chip.pic.auto_eoi, 1);
		} else {
			EXPECT_EQ(out.chip.ioapic.ioregsel, 0x10);
			EXPECT_EQ(out.chip.ioapic.id, 5);
			EXPECT_EQ(out.chip.ioapic.redirtbl[7].bits, 0x0300000000008045);
		}
	}
	chip.chip_id = 3;
	EXPECT_ERRNO(ioctl(t.fd, KVM_GET_IRQCHIP, &chip), EINVAL);
	EXPECT_ERRNO(ioctl(t.fd, KVM_SET_IRQCHIP, &chip), EINVAL);
	EXPECT_ERRNO(ioctl(t.fd, KVM_GET_IRQCHIP, BAD_PTR), EFAULT);
	EXPECT_ERRNO(ioctl(t.fd, KVM_SET_IRQCHIP, BAD_PTR), EFAULT);
	tvm_fini(&t);
}

TEST(lapic_state_round_trip)
{
	struct kvm_lapic_state in, out;
	struct tvm t;

	tvm_init_bare(&t, TVM_IRQCHIP);
	tvm_add_vcpu(&t, 0);
	tvm_add_vcpu(&t, 0);
	in = tvm_lapic(&t, 1);
	EXPECT_EQ(tvm_lapic_reg(&t, 1, APIC_ID) >> 24, 1);
	EXPECT_EQ(tvm_lapic_reg(&t, 1, APIC_SVR), 0xff);
	EXPECT_EQ(tvm_lapic_reg(&t, 1, APIC_LVTT), APIC_LVT_MASKED);
	EXPECT_EQ(tvm_lapic_reg(&t, 1, APIC_DFR), 0xffffffff);
	EXPECT_EQ(tvm_lapic_reg(&t, 1, APIC_VERSION) & 0xf0, 0x10);

	*(uint32_t *)(in.regs + APIC_TPR) = 0x50;
	*(uint32_t *)(in.regs + APIC_SVR) = 0x1ef;
	*(uint32_t *)(in.regs + APIC_LDR) = 0x02000000;
	*(uint32_t *)(in.regs + APIC_LVT0) = 0x700;
	*(uint32_t *)(in.regs + APIC_LVT1) = 0x400;
	*(uint32_t *)(in.regs + APIC_IRR + 0x20) = 0x10;
	*(uint32_t *)(in.regs + APIC_ICR_HI) = 0x03000000;
	EXPECT_OK(ioctl(t.vcpu[1].fd, KVM_SET_LAPIC, &in));
	out = tvm_lapic(&t, 1);
	EXPECT_EQ(*(uint32_t *)(out.regs + APIC_TPR), 0x50);
	EXPECT_EQ(*(uint32_t *)(out.regs + APIC_PPR), 0x50);
	EXPECT_EQ(*(uint32_t *)(out.regs + APIC_SVR), 0x1ef);
	EXPECT_EQ(*(uint32_t *)(out.regs + APIC_LDR), 0x02000000);
	EXPECT_EQ(*(uint32_t *)(out.regs + APIC_LVT0), 0x700);
	EXPECT_EQ(*(uint32_t *)(out.regs + APIC_LVT1), 0x400);
	EXPECT_EQ(*(uint32_t *)(out.regs + APIC_IRR + 0x20), 0x10);
	EXPECT_EQ(*(uint32_t *)(out.regs + APIC_ICR_HI), 0x03000000);
	tvm_fini(&t);
}

TEST(pit_state_round_trip)
{
	struct kvm_pit_state2 in, out;
	struct tvm t;

	tvm_init_bare(&t, TVM_IRQCHIP | TVM_PIT);
	EXPECT_OK(ioctl(t.fd, KVM_GET_PIT2, &in));
	in.channels[0].mode = 2;
	in.channels[0].count = 0x4000;
	in.channels[0].gate = 1;
	in.channels[2].mode = 3;
	in.channels[2].count = 0x1234;
	EXPECT_OK(ioctl(t.fd, KVM_SET_PIT2, &in));
	memset(&out, 0xff, sizeof(out));
	EXPECT_OK(ioctl(t.fd, KVM_GET_PIT2, &out));
	EXPECT_EQ(out.channels[0].mode, 2);
	EXPECT_EQ(out.channels[0].count, 0x4000);
	EXPECT_EQ(out.channels[2].mode, 3);
	EXPECT_EQ(out.channels[2].count, 0x1234);
	EXPECT_ERRNO(ioctl(t.fd, KVM_GET_PIT2, BAD_PTR), EFAULT);
	EXPECT_ERRNO(ioctl(t.fd, KVM_SET_PIT2, BAD_PTR), EFAULT);
	tvm_fini(&t);
}

TEST(routing_refuses_bad_tables)
{
	struct routing *r = calloc(1, sizeof(*r) + 5000 * sizeof(r->entries[0]));
	struct tvm t;
	int max;

	tvm_init_bare(&t, TVM_IRQCHIP);
	max = ioctl(t.fd, KVM_CHECK_EXTENSION, KVM_CAP_IRQ_ROUTING);
	EXPECT_OK(ioctl(t.fd, KVM_SET_GSI_ROUTING, r));		/* empty */

	r->head.flags = 1;
	EXPECT_ERRNO(ioctl(t.fd, KVM_SET_GSI_ROUTING, r), EINVAL);
	r->head.flags = 0;
	r->head.nr = (uint32_t)max + 1;
	EXPECT_ERRNO(ioctl(t.fd, KVM_SET_GSI_ROUTING, r), EINVAL);
	EXPECT_ERRNO(ioctl(t.fd, KVM_SET_GSI_ROUTING, BAD_PTR), EFAULT);

	r->head.nr = 0;
	route_pin(r, 5, 9, 0);				/* no such chip */
	EXPECT_ERRNO(ioctl(t.fd, KVM_SET_GSI_ROUTING, r), EINVAL);
	r->head.nr = 0;
	route_pin(r, 5, KVM_IRQCHIP_IOAPIC, 24);		/* no such pin */
	EXPECT_ERRNO(ioctl(t.fd, KVM_SET_GSI_ROUTING, r), EINVAL);
	r->head.nr = 0;
	route_pin(r, 5, KVM_IRQCHIP_IOAPIC, 3);
	r->entries[0].type = 77;
	EXPECT_ERRNO(ioctl(t.fd, KVM_SET_GSI_ROUTING, r), EINVAL);
	r->head.nr = 0;
	route_pin(r, (uint32_t)max, KVM_IRQCHIP_IOAPIC, 3);
	EXPECT_ERRNO(ioctl(t.fd, KVM_SET_GSI_ROUTING, r), EINVAL);
	r->head.nr = 0;
	route_msi(r, 5, TVM_MSI_ADDR(0), 0x40);
	r->entries[0].flags = 0x80;
	EXPECT_ERRNO(ioctl(t.fd, KVM_SET_GSI_ROUTING, r), EINVAL);
	/* A GSI is one MSI, or several pins of different chips. */
	r->head.nr = 0;
	route_msi(r, 5, TVM_MSI_ADDR(0), 0x40);
	route_msi(r, 5, TVM_MSI_ADDR(0), 0x41);
	EXPECT_ERRNO(ioctl(t.fd, KVM_SET_GSI_ROUTING, r), EINVAL);
	r->head.nr = 0;
	route_pin(r, 5, KVM_IRQCHIP_IOAPIC, 5);
	route_pin(r, 5, KVM_IRQCHIP_PIC_MASTER, 5);
	EXPECT_OK(ioctl(t.fd, KVM_SET_GSI_ROUTING, r));
	free(r);
	tvm_fini(&t);
}

TEST(irq_line)
{
	struct kvm_irq_level line = { .irq = 4, .level = 1 };
	struct kvm_irqchip chip = { .chip_id = KVM_IRQCHIP_PIC_MASTER };
	struct tvm t;

	tvm_init_bare(&t, TVM_IRQCHIP);
	tvm_add_vcpu(&t, 0);
	EXPECT_OK(ioctl(t.fd, KVM_IRQ_LINE, &line));
	EXPECT_OK(ioctl(t.fd, KVM_GET_IRQCHIP, &chip));
	EXPECT_EQ(chip.chip.pic.irr & 0x10, 0x10);
	line.level = 0;
	EXPECT_OK(ioctl(t.fd, KVM_IRQ_LINE, &line));
	EXPECT_OK(ioctl(t.fd, KVM_IRQ_LINE, &line));
	/* A GSI that leads nowhere. */
	line.irq = 200;
	EXPECT_TRUE(ioctl(t.fd, KVM_IRQ_LINE, &line) <= 0);
	EXPECT_ERRNO(ioctl(t.fd, KVM_IRQ_LINE, BAD_PTR), EFAULT);
	EXPECT_ERRNO(ioctl(t.fd, KVM_IRQ_LINE_STATUS, BAD_PTR), EFAULT);
	tvm_fini(&t);
}

/* The status: below 0 ignored, 0 was already pending, above 0 delivered. */
TEST(irq_line_status)
{
	struct kvm_irq_level line;
	struct routing r;
	struct tvm t;

	tvm_init_bare(&t, TVM_IRQCHIP);
	tvm_add_vcpu(&t, 0);
	memset(&r, 0, sizeof(r));
	route_msi(&r, 30, TVM_MSI_ADDR(0), 0x41);
	ASSERT_OK(ioctl(t.fd, KVM_SET_GSI_ROUTING, &r));
	line.irq = 30;
	line.level = 1;
	EXPECT_OK(ioctl(t.fd, KVM_IRQ_LINE_STATUS, &line));
	/* The local APIC is not software-enabled yet: the MSI was ignored. */
	EXPECT_LE((int)line.status, 0);
	tvm_fini(&t);
}

static volatile bool enabled;

GUEST(guest_awaits_interrupts)
{
	unsigned int i;

	for (i = 32; i < 256; i++)
		guest_handlers[i] = guest_eoi_handler;
	apic_enable();
	enabled = true;
	sti();
	GUEST_SYNC(1);
	for (;;)
		cpu_relax();
}

#define IRQS(_t, _vec)	(((volatile struct guest_cpu *)&G(_t, guest_cpus)[0])->irqs[_vec])

TEST(signal_msi_and_msi_routes_reach_the_guest)
{
	struct kvm_irq_level line = { .irq = 40, .level = 1 };
	struct kvm_msi msi = { .flags = 0x100 };
	struct routing r;
	struct tvm t;

	tvm_init_smp(&t, &guest_awaits_interrupts, TVM_IRQCHIP, 1);
	EXPECT_EQ(tvm_go(&t), 1);
	EXPECT_ERRNO(ioctl(t.fd, KVM_SIGNAL_MSI, BAD_PTR), EFAULT);
	EXPECT_ERRNO(ioctl(t.fd, KVM_SIGNAL_MSI, &msi), EINVAL);
	tvm_start(&t, 0);

	EXPECT_GT(tvm_signal_msi(&t, TVM_MSI_ADDR(0), 0x61), 0);
	TVM_AWAIT(IRQS(&t, 0x61) == 1);

	memset(&r, 0, sizeof(r));
	route_msi(&r, 40, TVM_MSI_ADDR(0), 0x62);
	ASSERT_OK(ioctl(t.fd, KVM_SET_GSI_ROUTING, &r));
	EXPECT_OK(ioctl(t.fd, KVM_IRQ_LINE_STATUS, &line));
	EXPECT_GT((int)line.status, 0);
	TVM_AWAIT(IRQS(&t, 0x62) == 1);
	/* Lowering an MSI does nothing. */
	tvm_irq_line(&t, 40, 0);

	/* The same GSI elsewhere: the change is complete on return. */
	r.entries[0].u.msi.data = 0x63;
	ASSERT_OK(ioctl(t.fd, KVM_SET_GSI_ROUTING, &r));
	tvm_irq_line(&t, 40, 1);
	TVM_AWAIT(IRQS(&t, 0x63) == 1);
	EXPECT_EQ(IRQS(&t, 0x62), 1);
	EXPECT_EQ(IRQS(&t, 0x61), 1);

	/* Nobody has this APIC ID. */
	EXPECT_LE(tvm_signal_msi(&t, TVM_MSI_ADDR(0x55), 0x64), 0);
	/* All of them have this one. */
	EXPECT_GT(tvm_signal_msi(&t, TVM_MSI_ADDR(0xff), 0x65), 0);
	TVM_AWAIT(IRQS(&t, 0x65) == 1);
	tvm_stop(&t, 0);
	tvm_fini(&t);
}

/* Tables change while interrupts flow: none is lost, none goes astray. */
static void *swap_routes(void *arg)
{
	struct tvm *t = arg;
	struct routing r;
	int i;

	for (i = 0; i < 200; i++) {
		memset(&r, 0, sizeof(r));
		route_msi(&r, 40, TVM_MSI_ADDR(0), 0x70);
		if (i & 1)
			route_msi(&r, 41, TVM_MSI_ADDR(0), 0x7f);
		EXPECT_OK(ioctl(t->fd, KVM_SET_GSI_ROUTING, &r));
	}
	return NULL;
}

TEST_TIMEOUT(routes_change_while_interrupts_flow, 60)
{
	struct routing r;
	pthread_t thread;
	struct tvm t;
	uint32_t i;

	tvm_init_smp(&t, &guest_awaits_interrupts, TVM_IRQCHIP, 1);
	EXPECT_EQ(tvm_go(&t), 1);
	memset(&r, 0, sizeof(r));
	route_msi(&r, 40, TVM_MSI_ADDR(0), 0x70);
	ASSERT_OK(ioctl(t.fd, KVM_SET_GSI_ROUTING, &r));
	tvm_start(&t, 0);
	ASSERT_EQ(pthread_create(&thread, NULL, swap_routes, &t), 0);
	for (i = 1; i <= 200; i++) {
		tvm_irq_line(&t, 40, 1);
		TVM_AWAIT(IRQS(&t, 0x70) >= i);
		ASSERT_EQ(IRQS(&t, 0x70), i);
	}
	ASSERT_EQ(pthread_join(thread, NULL), 0);
	EXPECT_EQ(IRQS(&t, 0x7f), 0);
	tvm_stop(&t, 0);
	tvm_fini(&t);
}

/* How fast the clock is: unit/lapic_test, and KVM's apic_bus_clock_test. */
TEST(timer_clock_is_chosen_before_the_first_vcpu)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_X86_APIC_BUS_CYCLES_NS, .args = { 40 } };
	struct tvm t;

	tvm_init_bare(&t, 0);
	if (!ioctl(t.fd, KVM_CHECK_EXTENSION, cap.cap)) {
		/* The reference has it since Linux 6.11. */
		EXPECT_TRUE(tvm_is_stock());
		EXPECT_ERRNO(ioctl(t.fd, KVM_ENABLE_CAP, &cap), EINVAL);
		tvm_fini(&t);
		return;
	}
	EXPECT_EQ(ioctl(t.fd, KVM_CHECK_EXTENSION, cap.cap), 1);
	EXPECT_ERRNO(ioctl(t.fd, KVM_ENABLE_CAP, &cap), ENXIO);
	ASSERT_OK(ioctl(t.fd, KVM_CREATE_IRQCHIP, 0));
	EXPECT_OK(ioctl(t.fd, KVM_ENABLE_CAP, &cap));
	cap.args[0] = INT64_MAX / 256 / UINT32_MAX;
	EXPECT_OK(ioctl(t.fd, KVM_ENABLE_CAP, &cap));
	cap.args[0]++;
	EXPECT_ERRNO(ioctl(t.fd, KVM_ENABLE_CAP, &cap), EINVAL);
	cap.args[0] = 0;
	EXPECT_ERRNO(ioctl(t.fd, KVM_ENABLE_CAP, &cap), EINVAL);
	tvm_add_vcpu(&t, 0);
	cap.args[0] = 40;
	EXPECT_ERRNO(ioctl(t.fd, KVM_ENABLE_CAP, &cap), EINVAL);
	tvm_fini(&t);
}

/* Any vCPU can be the one that starts by itself. */
TEST(boot_cpu_id)
{
	struct kvm_mp_state mp;
	struct tvm t;

	tvm_init_bare(&t, TVM_IRQCHIP);
	EXPECT_EQ(ioctl(t.fd, KVM_CHECK_EXTENSION, KVM_CAP_SET_BOOT_CPU_ID), 1);
	EXPECT_OK(ioctl(t.fd, KVM_SET_BOOT_CPU_ID, 1));
	tvm_add_vcpu(&t, TVM_WAIT_SIPI);
	tvm_add_vcpu(&t, TVM_WAIT_SIPI);
	EXPECT_ERRNO(ioctl(t.fd, KVM_SET_BOOT_CPU_ID, 0), EBUSY);
	EXPECT_OK(ioctl(t.vcpu[0].fd, KVM_GET_MP_STATE, &mp));
	EXPECT_EQ(mp.mp_state, KVM_MP_STATE_UNINITIALIZED);
	EXPECT_OK(ioctl(t.vcpu[1].fd, KVM_GET_MP_STATE, &mp));
	EXPECT_EQ(mp.mp_state, KVM_MP_STATE_RUNNABLE);
	EXPECT_EQ(tvm_sregs(&t, 0).apic_base & 0x100, 0);
	EXPECT_EQ(tvm_sregs(&t, 1).apic_base & 0x100, 0x100);
	tvm_fini(&t);
}
