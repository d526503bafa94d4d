// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What two VMMs written in Rust ask of the device before and while their guests
 * run, replayed in their order: every capability, ioctl, MSR and CPUID leaf that
 * Firecracker and Cloud Hypervisor insist on, then a guest that uses what was set
 * up, and a snapshot of the one that makes them, continued in a fresh VM.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tvm.h"

#define DOORBELL	0xd0000050	/* of a virtio device, by ioeventfd */
#define COM1		0x3f8
#define DEVICE_GSI	5
#define DEVICE_VECTOR	0x40
#define TIMER_VECTOR	0x41
#define LEVEL_GSI	6
#define LEVEL_VECTOR	0x58

/* The room that the bindings of both have for CPUID entries and MSR indices. */
#define MAX_CPUID	80
#define MAX_INDICES	256

#define MSR_MISC_ENABLE		0x1a0
#define MSR_MTRR_DEF_TYPE	0x2ff
#define MSR_MC0_CTL		0x400
#define MC_BANKS		32

/* --- the asking ------------------------------------------------------------ */

static void require_caps(struct tvm *t, const int *caps, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		if (ioctl(t->dev, KVM_CHECK_EXTENSION, caps[i]) <= 0 ||
		    ioctl(t->fd, KVM_CHECK_EXTENSION, caps[i]) <= 0)
			FAIL("capability %d is missing", caps[i]);
		tap_checked();
	}
}

struct cpuid_table {
	struct kvm_cpuid2 head;
	struct kvm_cpuid_entry2 entries[MAX_CPUID];
};

static struct kvm_cpuid_entry2 *find_leaf(struct cpuid_table *c, uint32_t leaf, uint32_t index)
{
	unsigned int i;

	for (i = 0; i < c->head.nent; i++) {
		if (c->entries[i].function == leaf && c->entries[i].index == index)
			return &c->entries[i];
	}
	return NULL;
}

static bool is_amd(void)
{
	return cpuid(0, 0).ebx == 0x68747541;
}

/* Their CPUID: the supported table, as edited by both. */
static void set_cpuid(struct tvm *t)
{
	static const uint32_t leaves[] = { 0, 1, 7, 0x80000000, 0x80000005, 0x80000006 };
	static const uint32_t amd_leaves[] = { 0x80000001, 0x80000008, 0x8000001e };
	static const uint32_t intel_leaves[] = { 4, 6, 0xa };
	struct cpuid_table c = { .head.nent = MAX_CPUID }, got = { .head.nent = MAX_CPUID };
	struct kvm_cpuid_entry2 *e;
	unsigned int i;

	ASSERT_OK(ioctl(t->dev, KVM_GET_SUPPORTED_CPUID, &c));
	for (i = 0; i < sizeof(leaves) / sizeof(leaves[0]); i++)
		EXPECT_TRUE(find_leaf(&c, leaves[i], 0));
	for (i = 0; i < 3; i++)
		EXPECT_TRUE(find_leaf(&c, is_amd() ? amd_leaves[i] : intel_leaves[i], 0));
	e = find_leaf(&c, 1, 0);
	ASSERT_TRUE(e);
	e->ecx |= 1u << 24 | 1u << 31;		/* TSC deadline, hypervisor */
	e->edx |= 1u << 12;			/* MTRR */
	e->ebx = (e->ebx & 0xffff) | 1 << 16;
	ASSERT_OK(ioctl(t->cpu, KVM_SET_CPUID2, &c));
	ASSERT_OK(ioctl(t->cpu, KVM_GET_CPUID2, &got));
	EXPECT_GE(got.head.nent, c.head.nent);
}

/* A short count is fatal to both. */
static void set_boot_msrs(struct tvm *t)
{
	static const uint32_t msrs[][2] = {
		{ 0x174, 0 }, { 0x175, 0 }, { 0x176, 0 }, { 0xc0000081, 0 }, { 0xc0000083, 0 },
		{ 0xc0000102, 0 }, { 0xc0000084, 0 }, { 0xc0000082, 0 }, { MSR_TSC, 0 },
		{ MSR_MISC_ENABLE, 1 }, { MSR_MTRR_DEF_TYPE, 0xc06 },
	};
	const unsigned int nr = sizeof(msrs) / sizeof(msrs[0]);
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entries[16];
	} m = { .head.nmsrs = nr };
	unsigned int i;

	for (i = 0; i < nr; i++) {
		m.entries[i].index = msrs[i][0];
		m.entries[i].data = msrs[i][1];
	}
	ASSERT_EQ(ioctl(t->cpu, KVM_SET_MSRS, &m), nr);
}

static void set_boot_state(struct tvm *t, const struct guest_code *code)
{
	struct kvm_fpu fpu = { .fcw = 0x37f, .mxcsr = 0x1f80 };
	struct kvm_lapic_state apic;
	uint32_t lint[2] = { 0x700, 0x400 };	/* ExtINT, NMI */

	set_boot_msrs(t);
	tvm_set_code(t, 0, code);
	ASSERT_OK(ioctl(t->cpu, KVM_SET_FPU, &fpu));
	ASSERT_OK(ioctl(t->cpu, KVM_GET_LAPIC, &apic));
	memcpy(apic.regs + APIC_LVT0, &lint[0], 4);
	memcpy(apic.regs + APIC_LVT1, &lint[1], 4);
	ASSERT_OK(ioctl(t->cpu, KVM_SET_LAPIC, &apic));
}

/* --- a device: an interrupt for each ring of its doorbell ------------------- */

struct device {
	struct tvm *vm;
	int doorbell;
	int interrupt;
	int quit;
	pthread_t thread;
};

static void *device_thread(void *arg)
{
	struct device *d = arg;
	struct pollfd pfd[2] = {
		{ .fd = d->doorbell, .events = POLLIN },
		{ .fd = d->quit, .events = POLLIN },
	};
	uint64_t count;

	while (poll(pfd, 2, -1) > 0 && !pfd[1].revents) {
		EXPECT_EQ(read(d->doorbell, &count, sizeof(count)), sizeof(count));
		EXPECT_OK(eventfd_write(d->interrupt, 1));
	}
	return NULL;
}

static void plug(struct device *d, struct tvm *t)
{
	struct kvm_ioeventfd bell = {
		.addr = DOORBELL, .len = 4, .datamatch = 1, .flags = KVM_IOEVENTFD_FLAG_DATAMATCH,
	};
	struct kvm_irqfd irqfd = { .gsi = DEVICE_GSI };

	d->vm = t;
	d->doorbell = eventfd(0, 0);
	d->interrupt = eventfd(0, EFD_NONBLOCK);
	d->quit = eventfd(0, 0);
	bell.fd = d->doorbell;
	irqfd.fd = (uint32_t)d->interrupt;
	ASSERT_OK(ioctl(t->fd, KVM_IOEVENTFD, &bell));
	ASSERT_OK(ioctl(t->fd, KVM_IRQFD, &irqfd));
	ASSERT_EQ(pthread_create(&d->thread, NULL, device_thread, d), 0);
}

static void unplug(struct device *d)
{
	EXPECT_OK(eventfd_write(d->quit, 1));
	pthread_join(d->thread, NULL);
	close(d->doorbell);
	close(d->interrupt);
	close(d->quit);
}

/* Routes as both VMMs make them: lines to the chip's pins, or messages. */
static void set_routes(struct tvm *t, bool split)
{
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry entries[24];
	} r;
	unsigned int i;

	memset(&r, 0, sizeof(r));
	for (i = 0; i < 24; i++) {
		struct kvm_irq_routing_entry *e = &r.entries[i];

		e->gsi = i;
		e->type = split ? KVM_IRQ_ROUTING_MSI : KVM_IRQ_ROUTING_IRQCHIP;
		if (!split) {
			e->u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
			e->u.irqchip.pin = i;
		} else {
			e->u.msi.address_lo = TVM_MSI_ADDR(0);
			e->u.msi.data = i == LEVEL_GSI ? APIC_LEVEL | APIC_ASSERT | LEVEL_VECTOR :
						DEVICE_VECTOR + i - DEVICE_GSI;
		}
	}
	r.head.nr = 24;
	ASSERT_OK(ioctl(t->fd, KVM_SET_GSI_ROUTING, &r));
}

static void guest_ring_and_wait(void)
{
	uint32_t before = guest_cpu()->irqs[DEVICE_VECTOR];

	cli();
	*mmio32(DOORBELL) = 1;
	while (guest_cpu()->irqs[DEVICE_VECTOR] == before) {
		sti_hlt();
		cli();
	}
}

static void guest_wait_for_timer(void)
{
	cli();
	apic_write(APIC_LVTT, APIC_LVT_DEADLINE | TIMER_VECTOR);
	wrmsr(MSR_TSC_DEADLINE, rdtsc() + 100000);
	while (!guest_cpu()->irqs[TIMER_VECTOR]) {
		sti_hlt();
		cli();
	}
}

static void guest_start(void)
{
	guest_handlers[DEVICE_VECTOR] = guest_eoi_handler;
	guest_handlers[TIMER_VECTOR] = guest_eoi_handler;
	apic_enable();
	GUEST_EQ(rdmsr(MSR_MISC_ENABLE) & 1, 1);
	GUEST_EQ(rdmsr(MSR_MTRR_DEF_TYPE), 0xc06);
	outb(COM1, '!');
}

/* --- Firecracker ------------------------------------------------------------ */

GUEST(guest_firecracker)
{
	guest_start();
	ioapic_rte(DEVICE_GSI, DEVICE_VECTOR);
	/* The dummy of a speaker's port is the kernel's. */
	(void)inb(0x61);
	guest_ring_and_wait();
	guest_wait_for_timer();
	GUEST_SYNC(1);
	guest_ring_and_wait();
	GUEST_EQ(guest_cpu()->irqs[DEVICE_VECTOR], 2);
	GUEST_EQ(guest_cpu()->irqs[TIMER_VECTOR], 1);
}

struct indices {
	struct kvm_msr_list head;
	uint32_t list[MAX_INDICES];
};

struct snapshot {
	struct kvm_mp_state mp_state;
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_xsave xsave;
	struct kvm_xcrs xcrs;
	struct kvm_debugregs debugregs;
	struct kvm_lapic_state lapic;
	struct cpuid_table cpuid;
	struct kvm_vcpu_events events;
	struct kvm_pit_state2 pit;
	struct kvm_clock_data clock;
	struct kvm_irqchip chips[3];
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entries[MAX_INDICES + 4 * MC_BANKS];
	} msrs;
};

/* Those of the index list that a snapshot holds, and the machine-check banks. */
static void choose_msrs(struct tvm *t, struct snapshot *s)
{
	struct indices indices = { .head.nmsrs = MAX_INDICES };
	unsigned int i, n = 0;

	ASSERT_OK(ioctl(t->dev, KVM_GET_MSR_INDEX_LIST, &indices));
	for (i = 0; i < indices.head.nmsrs; i++) {
		uint32_t msr = indices.list[i];

		/* Hyper-V's; the base of SMM's memory; what only hosts may change. */
		if (msr >> 12 == 0x40000 || msr == 0x9e || msr == 0x34)
			continue;
		s->msrs.entries[n++].index = msr;
	}
	for (i = 0; i < 4 * MC_BANKS; i++)
		s->msrs.entries[n++].index = MSR_MC0_CTL + i;
	s->msrs.head.nmsrs = n;
}

static void take_snapshot(struct tvm *t, struct snapshot *s)
{
	unsigned int i;

	memset(s, 0, sizeof(*s));
	/* What the last exit left open is completed first. */
	t->run->immediate_exit = 1;
	ASSERT_ERRNO(ioctl(t->cpu, KVM_RUN, 0), EINTR);
	t->run->immediate_exit = 0;
	/* The guest has no kvmclock, which is the one excuse. */
	if (ioctl(t->cpu, KVM_KVMCLOCK_CTRL, 0))
		EXPECT_EQ(errno, EINVAL);

	ASSERT_OK(ioctl(t->cpu, KVM_GET_MP_STATE, &s->mp_state));
	ASSERT_OK(ioctl(t->cpu, KVM_GET_REGS, &s->regs));
	ASSERT_OK(ioctl(t->cpu, KVM_GET_SREGS, &s->sregs));
	ASSERT_OK(ioctl(t->cpu, KVM_GET_XSAVE, &s->xsave));
	ASSERT_OK(ioctl(t->cpu, KVM_GET_XCRS, &s->xcrs));
	ASSERT_OK(ioctl(t->cpu, KVM_GET_DEBUGREGS, &s->debugregs));
	ASSERT_OK(ioctl(t->cpu, KVM_GET_LAPIC, &s->lapic));
	s->cpuid.head.nent = MAX_CPUID;
	ASSERT_OK(ioctl(t->cpu, KVM_GET_CPUID2, &s->cpuid));
	ASSERT_OK(ioctl(t->cpu, KVM_GET_VCPU_EVENTS, &s->events));
	EXPECT_GT(ioctl(t->cpu, KVM_GET_TSC_KHZ, 0), 0);
	choose_msrs(t, s);
	ASSERT_EQ(ioctl(t->cpu, KVM_GET_MSRS, &s->msrs), s->msrs.head.nmsrs);

	ASSERT_OK(ioctl(t->fd, KVM_GET_PIT2, &s->pit));
	ASSERT_OK(ioctl(t->fd, KVM_GET_CLOCK, &s->clock));
	s->clock.flags = 0;
	for (i = 0; i < 3; i++) {
		s->chips[i].chip_id = i;
		ASSERT_OK(ioctl(t->fd, KVM_GET_IRQCHIP, &s->chips[i]));
	}
}

static void restore_snapshot(struct tvm *t, struct snapshot *s)
{
	unsigned int i;

	ASSERT_OK(ioctl(t->fd, KVM_SET_PIT2, &s->pit));
	ASSERT_OK(ioctl(t->fd, KVM_SET_CLOCK, &s->clock));
	for (i = 0; i < 3; i++)
		ASSERT_OK(ioctl(t->fd, KVM_SET_IRQCHIP, &s->chips[i]));

	ASSERT_OK(ioctl(t->cpu, KVM_SET_CPUID2, &s->cpuid));
	ASSERT_OK(ioctl(t->cpu, KVM_SET_MP_STATE, &s->mp_state));
	ASSERT_OK(ioctl(t->cpu, KVM_SET_REGS, &s->regs));
	ASSERT_OK(ioctl(t->cpu, KVM_SET_SREGS, &s->sregs));
	ASSERT_OK(ioctl(t->cpu, KVM_SET_XSAVE, &s->xsave));
	ASSERT_OK(ioctl(t->cpu, KVM_SET_XCRS, &s->xcrs));
	ASSERT_OK(ioctl(t->cpu, KVM_SET_DEBUGREGS, &s->debugregs));
	ASSERT_OK(ioctl(t->cpu, KVM_SET_LAPIC, &s->lapic));
	for (i = 0; i < s->msrs.head.nmsrs; i++) {
		struct kvm_msr_entry *e = &s->msrs.entries[i];

		if (tvm_set_msr(t, 0, e->index, e->data) != 1)
			tap_diag("MSR %x takes no %llx", e->index, e->data);
		tap_checked();
	}
	ASSERT_EQ(ioctl(t->cpu, KVM_SET_MSRS, &s->msrs), s->msrs.head.nmsrs);
	ASSERT_OK(ioctl(t->cpu, KVM_SET_VCPU_EVENTS, &s->events));
}

static const int firecracker_caps[] = {
	KVM_CAP_IRQCHIP, KVM_CAP_IOEVENTFD, KVM_CAP_IRQFD, KVM_CAP_USER_MEMORY,
	KVM_CAP_SET_TSS_ADDR, KVM_CAP_PIT2, KVM_CAP_PIT_STATE2, KVM_CAP_ADJUST_CLOCK,
	KVM_CAP_DEBUGREGS, KVM_CAP_MP_STATE, KVM_CAP_VCPU_EVENTS, KVM_CAP_XCRS, KVM_CAP_XSAVE,
	KVM_CAP_EXT_CPUID,
};

static void start_firecracker(struct tvm *t)
{
	struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };

	tvm_init_bare(t, 0);
	EXPECT_EQ(ioctl(t->dev, KVM_GET_API_VERSION, 0), KVM_API_VERSION);
	EXPECT_GE(ioctl(t->fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2), 0);
	EXPECT_GT(ioctl(t->dev, KVM_CHECK_EXTENSION, KVM_CAP_NR_MEMSLOTS), 32);
	ASSERT_OK(ioctl(t->fd, KVM_CREATE_IRQCHIP, 0));
	ASSERT_OK(ioctl(t->fd, KVM_CREATE_PIT2, &pit));
	tvm_add_vcpu(t, TVM_NO_CPUID);
	set_routes(t, false);
}

TEST(firecracker_starts_a_guest_and_restores_its_snapshot)
{
	struct snapshot *s = malloc(sizeof(*s));
	struct tvm t, restored;
	struct device d;

	ASSERT_TRUE(s);
	start_firecracker(&t);
	require_caps(&t, firecracker_caps, sizeof(firecracker_caps) / sizeof(int));
	set_cpuid(&t);
	set_boot_state(&t, &guest_firecracker);
	plug(&d, &t);
	ASSERT_EQ(tvm_run(&t), KVM_EXIT_IO);
	EXPECT_EQ(t.run->io.port, COM1);
	EXPECT_EQ(tvm_io_data(&t)[0], '!');
	ASSERT_EQ(tvm_go(&t), 1);
	unplug(&d);
	take_snapshot(&t, s);

	start_firecracker(&restored);
	memcpy(restored.ram, t.ram, GUEST_RAM_SIZE);
	tvm_fini(&t);
	restore_snapshot(&restored, s);
	plug(&d, &restored);
	EXPECT_EQ(tvm_go(&restored), TVM_DONE);
	unplug(&d);
	tvm_fini(&restored);
	free(s);
}

/* --- Cloud Hypervisor ------------------------------------------------------- */

static volatile uint32_t nmis;

static void guest_nmi(struct guest_frame *frame)
{
	(void)frame;
	nmis++;
}

GUEST(guest_cloud_hypervisor)
{
	guest_handlers[2] = guest_nmi;
	guest_handlers[LEVEL_VECTOR] = guest_eoi_handler;
	guest_start();
	guest_ring_and_wait();
	guest_wait_for_timer();
	GUEST_SYNC(1);
	sti();
	while (!guest_cpu()->irqs[LEVEL_VECTOR])
		cpu_relax();
	GUEST_SYNC(2);
	GUEST_EQ(nmis, 1);
}

static const int cloud_hypervisor_caps[] = {
	KVM_CAP_ADJUST_CLOCK, KVM_CAP_EXT_CPUID, KVM_CAP_GET_TSC_KHZ, KVM_CAP_IMMEDIATE_EXIT,
	KVM_CAP_IOEVENTFD, KVM_CAP_IRQCHIP, KVM_CAP_IRQFD, KVM_CAP_IRQ_ROUTING,
	KVM_CAP_MP_STATE, KVM_CAP_SET_IDENTITY_MAP_ADDR, KVM_CAP_SET_TSS_ADDR,
	KVM_CAP_SPLIT_IRQCHIP, KVM_CAP_TSC_DEADLINE_TIMER, KVM_CAP_USER_MEMORY,
	KVM_CAP_USER_NMI, KVM_CAP_VCPU_EVENTS, KVM_CAP_XSAVE,
};

TEST(cloud_hypervisor_starts_a_guest)
{
	struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };
	uint64_t identity_map = 0xfffbc000;
	struct device d;
	struct tvm t;

	tvm_init_bare(&t, 0);
	require_caps(&t, cloud_hypervisor_caps, sizeof(cloud_hypervisor_caps) / sizeof(int));
	ASSERT_OK(ioctl(t.fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map));
	ASSERT_OK(ioctl(t.fd, KVM_ENABLE_CAP, &split));
	tvm_add_vcpu(&t, TVM_NO_CPUID);
	set_cpuid(&t);
	EXPECT_GT(ioctl(t.cpu, KVM_GET_TSC_KHZ, 0), 0);
	set_boot_state(&t, &guest_cloud_hypervisor);
	set_routes(&t, true);
	plug(&d, &t);

	ASSERT_EQ(tvm_run(&t), KVM_EXIT_IO);
	EXPECT_EQ(t.run->io.port, COM1);
	ASSERT_EQ(tvm_go(&t), 1);
	/* A level-triggered line of the IOAPIC in user space: it hears of the EOI. */
	tvm_irq_line(&t, LEVEL_GSI, 1);
	ASSERT_EQ(tvm_run(&t), KVM_EXIT_IOAPIC_EOI);
	EXPECT_EQ(t.run->eoi.vector, LEVEL_VECTOR);
	ASSERT_EQ(tvm_go(&t), 2);
	ASSERT_OK(ioctl(t.cpu, KVM_NMI, 0));
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	unplug(&d);
	tvm_fini(&t);
}
