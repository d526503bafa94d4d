// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * irqfd and ioeventfd: every form that VMMs use, what is refused, and that
 * eventfds and VMs may go in any order.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tvm.h"

#define BAD_PTR	((void *)8)

#define PIO	KVM_IOEVENTFD_FLAG_PIO
#define MATCH	KVM_IOEVENTFD_FLAG_DATAMATCH
#define DEASSIGN KVM_IOEVENTFD_FLAG_DEASSIGN

static int event(void)
{
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

	ASSERT_OK(fd);
	return fd;
}

static uint64_t count(int fd)
{
	uint64_t val = 0;

	if (read(fd, &val, sizeof(val)) != sizeof(val))
		ASSERT_EQ(errno, EAGAIN);
	return val;
}

static int ioev(struct tvm *t, int fd, uint32_t flags, uint64_t addr,
		uint32_t len, uint64_t match)
{
	struct kvm_ioeventfd ev = {
		.datamatch = match, .addr = addr, .len = len, .fd = fd, .flags = flags,
	};

	return ioctl(t->fd, KVM_IOEVENTFD, &ev);
}

#define DOORBELL	0xd0000ul

GUEST(guest_rings_doorbells)
{
	/* Port 0x500: 2 bytes with a match; 0x510: one byte, any value. */
	outw(0x500, 7);
	outb(0x510, 9);
	/* MMIO: 4 bytes with a match; any length; 2 bytes with a match. */
	*(volatile uint32_t *)DOORBELL = 5;
	*(volatile uint8_t *)(DOORBELL + 0x10) = 1;
	*(volatile uint16_t *)(DOORBELL + 0x10) = 2;
	*(volatile uint32_t *)(DOORBELL + 0x10) = 3;
	*(volatile uint64_t *)(DOORBELL + 0x10) = 4;
	*(volatile uint16_t *)(DOORBELL + 0x20) = 0x1234;
	GUEST_SYNC(1);
	/* Not these: other value, other width, other address, a read. */
	outw(0x500, 8);
	outb(0x500, 7);
	outl(0x500, 7);
	*(volatile uint32_t *)DOORBELL = 6;
	*(volatile uint16_t *)DOORBELL = 5;
	*(volatile uint32_t *)(DOORBELL + 4) = 5;
	(void)*(volatile uint32_t *)DOORBELL;
	inw(0x500);
	GUEST_SYNC(2);
}

TEST(ioeventfd_forms)
{
	int fd[5], i, exits = 0;
	bool is_report;
	struct tvm t;

	tvm_init(&t, &guest_rings_doorbells);
	for (i = 0; i < 5; i++)
		fd[i] = event();
	EXPECT_OK(ioev(&t, fd[0], PIO | MATCH, 0x500, 2, 7));
	EXPECT_OK(ioev(&t, fd[1], PIO, 0x510, 1, 0));
	EXPECT_OK(ioev(&t, fd[2], MATCH, DOORBELL, 4, 5));
	EXPECT_OK(ioev(&t, fd[3], 0, DOORBELL + 0x10, 0, 0));
	EXPECT_OK(ioev(&t, fd[4], MATCH, DOORBELL + 0x20, 2, 0x1234));

	EXPECT_EQ(tvm_go(&t), 1);
	EXPECT_EQ(count(fd[0]), 1);
	EXPECT_EQ(count(fd[1]), 1);
	EXPECT_EQ(count(fd[2]), 1);
	EXPECT_EQ(count(fd[3]), 4);
	EXPECT_EQ(count(fd[4]), 1);

	/* The other accesses are the VMM's. */
	for (;;) {
		tvm_run(&t);
		tvm_report(&t, 0, &is_report);
		if (is_report)
			break;
		exits++;
		ASSERT_LE(exits, 8);
	}
	EXPECT_EQ(exits, 8);
	for (i = 0; i < 5; i++) {
		EXPECT_EQ(count(fd[i]), 0);
		EXPECT_OK(close(fd[i]));
	}
	tvm_fini(&t);
}

GUEST(guest_rings_for_ever)
{
	for (;;) {
		outw(0x500, 7);
		GUEST_SYNC(1);
	}
}

TEST(ioeventfd_comes_and_goes)
{
	struct tvm t;
	int fd, other, i;

	tvm_init(&t, &guest_rings_for_ever);
	fd = event();
	other = event();
	for (i = 0; i < 20; i++) {
		EXPECT_OK(ioev(&t, fd, PIO | MATCH, 0x500, 2, 7));
		EXPECT_EQ(tvm_go(&t), 1);
		EXPECT_EQ(count(fd), 1);
		/* Another eventfd, value or length is not the one assigned. */
		EXPECT_ERRNO(ioev(&t, other, PIO | MATCH | DEASSIGN, 0x500, 2, 7), ENOENT);
		EXPECT_ERRNO(ioev(&t, fd, PIO | MATCH | DEASSIGN, 0x500, 2, 8), ENOENT);
		EXPECT_ERRNO(ioev(&t, fd, PIO | DEASSIGN, 0x500, 2, 7), ENOENT);
		EXPECT_OK(ioev(&t, fd, PIO | MATCH | DEASSIGN, 0x500, 2, 7));
		EXPECT_EQ(tvm_run(&t), KVM_EXIT_IO);
		EXPECT_EQ(t.run->io.port, 0x500);
		EXPECT_EQ(count(fd), 0);
		EXPECT_EQ(tvm_go(&t), 1);
	}

	/* A closed eventfd takes its ioeventfd along, or keeps it harmless. */
	EXPECT_OK(ioev(&t, fd, PIO | MATCH, 0x500, 2, 7));
	EXPECT_OK(close(fd));
	tvm_run(&t);
	tvm_fini(&t);
	EXPECT_OK(close(other));
}

TEST(ioeventfd_errors)
{
	int fd = event(), plain = open("/dev/null", O_RDWR);
	struct tvm t;

	tvm_init_bare(&t, 0);
	EXPECT_ERRNO(ioctl(t.fd, KVM_IOEVENTFD, BAD_PTR), EFAULT);
	EXPECT_ERRNO(ioev(&t, -1, PIO, 0x500, 2, 0), EBADF);
	EXPECT_ERRNO(ioev(&t, plain, PIO, 0x500, 2, 0), EINVAL);
	EXPECT_ERRNO(ioev(&t, fd, 0x100, 0x500, 2, 0), EINVAL);
	EXPECT_ERRNO(ioev(&t, fd, PIO, 0x500, 3, 0), EINVAL);
	EXPECT_ERRNO(ioev(&t, fd, PIO, 0x500, 16, 0), EINVAL);
	EXPECT_ERRNO(ioev(&t, fd, 0, -2ull, 4, 0), EINVAL);
	/* A value cannot be matched in a write of any length. */
	EXPECT_ERRNO(ioev(&t, fd, MATCH, DOORBELL, 0, 1), EINVAL);

	EXPECT_OK(ioev(&t, fd, PIO | MATCH, 0x500, 2, 1));
	EXPECT_OK(ioev(&t, fd, PIO | MATCH, 0x500, 2, 2));
	EXPECT_ERRNO(ioev(&t, fd, PIO | MATCH, 0x500, 2, 1), EEXIST);
	EXPECT_ERRNO(ioev(&t, fd, PIO, 0x500, 2, 0), EEXIST);
	EXPECT_OK(ioev(&t, fd, PIO | MATCH | DEASSIGN, 0x500, 2, 1));
	EXPECT_ERRNO(ioev(&t, fd, PIO | MATCH | DEASSIGN, 0x500, 2, 1), ENOENT);
	tvm_fini(&t);
	EXPECT_OK(close(fd));
	EXPECT_OK(close(plain));
}

static int irqfd(struct tvm *t, int fd, uint32_t gsi, uint32_t flags, int resample)
{
	struct kvm_irqfd req = {
		.fd = (uint32_t)fd, .gsi = gsi, .flags = flags, .resamplefd = (uint32_t)resample,
	};

	return ioctl(t->fd, KVM_IRQFD, &req);
}

static void kick_event(int fd)
{
	uint64_t one = 1;

	ASSERT_EQ(write(fd, &one, sizeof(one)), sizeof(one));
}

static void set_msi_route(struct tvm *t, uint32_t gsi, uint32_t vector)
{
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry entry;
	} r;

	memset(&r, 0, sizeof(r));
	r.head.nr = 1;
	r.entry.gsi = gsi;
	r.entry.type = KVM_IRQ_ROUTING_MSI;
	r.entry.u.msi.address_lo = TVM_MSI_ADDR(0);
	r.entry.u.msi.data = vector;
	ASSERT_OK(ioctl(t->fd, KVM_SET_GSI_ROUTING, &r));
}

#define IRQS(_t, _vec)	(((volatile struct guest_cpu *)&G(_t, guest_cpus)[0])->irqs[_vec])

GUEST(guest_awaits_interrupts)
{
	unsigned int i;

	for (i = 32; i < 256; i++)
		guest_handlers[i] = guest_eoi_handler;
	apic_enable();
	/* GSI 20, which the PIC has not: level-triggered, vector 0x75. */
	ioapic_rte(20, 0x8075);
	sti();
	GUEST_SYNC(1);
	for (;;)
		cpu_relax();
}

TEST(irqfd_raises_an_msi)
{
	struct tvm t;
	uint32_t i;
	int fd;

	tvm_init_smp(&t, &guest_awaits_interrupts, TVM_IRQCHIP, 1);
	EXPECT_EQ(tvm_go(&t), 1);
	fd = event();
	set_msi_route(&t, 30, 0x71);
	EXPECT_OK(irqfd(&t, fd, 30, 0, 0));
	tvm_start(&t, 0);
	for (i = 1; i <= 100; i++) {
		kick_event(fd);
		TVM_AWAIT(IRQS(&t, 0x71) >= i);
		ASSERT_EQ(IRQS(&t, 0x71), i);
	}
	/* The route may change under the irqfd. */
	set_msi_route(&t, 30, 0x72);
	kick_event(fd);
	TVM_AWAIT(IRQS(&t, 0x72) == 1);
	EXPECT_EQ(IRQS(&t, 0x71), 100);

	EXPECT_OK(irqfd(&t, fd, 30, KVM_IRQFD_FLAG_DEASSIGN, 0));
	count(fd);
	kick_event(fd);
	EXPECT_EQ(count(fd), 1);	/* nobody took it */
	EXPECT_EQ(IRQS(&t, 0x72), 1);

	/* What was signalled before the assignment is delivered with it. */
	kick_event(fd);
	EXPECT_OK(irqfd(&t, fd, 30, 0, 0));
	TVM_AWAIT(IRQS(&t, 0x72) == 2);
	/* A closed eventfd is forgotten. */
	EXPECT_OK(close(fd));
	tvm_stop(&t, 0);
	tvm_fini(&t);
}

TEST(irqfd_with_resample)
{
	struct pollfd pfd;
	struct tvm t;
	int fd, back;

	tvm_init_smp(&t, &guest_awaits_interrupts, TVM_IRQCHIP, 1);
	EXPECT_EQ(tvm_go(&t), 1);
	if (!ioctl(t.fd, KVM_CHECK_EXTENSION, KVM_CAP_IRQFD_RESAMPLE)) {
		fd = event();
		EXPECT_ERRNO(irqfd(&t, fd, 20, KVM_IRQFD_FLAG_RESAMPLE, fd), EINVAL);
		return;
	}
	fd = event();
	back = event();
	EXPECT_OK(irqfd(&t, fd, 20, KVM_IRQFD_FLAG_RESAMPLE, back));
	tvm_start(&t, 0);
	kick_event(fd);
	/* The EOI lowers the line and tells the device's owner. */
	pfd = (struct pollfd){ .fd = back, .events = POLLIN };
	EXPECT_EQ(poll(&pfd, 1, -1), 1);
	EXPECT_EQ(IRQS(&t, 0x75), 1);
	tvm_stop(&t, 0);
	EXPECT_OK(irqfd(&t, fd, 20, KVM_IRQFD_FLAG_DEASSIGN, 0));
	tvm_fini(&t);
	EXPECT_OK(close(fd));
	EXPECT_OK(close(back));
}

TEST(irqfd_errors)
{
	int fd = event(), plain = open("/dev/null", O_RDWR);
	struct tvm t;

	tvm_init_bare(&t, TVM_IRQCHIP);
	EXPECT_ERRNO(ioctl(t.fd, KVM_IRQFD, BAD_PTR), EFAULT);
	EXPECT_ERRNO(irqfd(&t, -1, 5, 0, 0), EBADF);
	EXPECT_ERRNO(irqfd(&t, plain, 5, 0, 0), EINVAL);
	EXPECT_ERRNO(irqfd(&t, fd, 5, 0x100, 0), EINVAL);
	EXPECT_OK(irqfd(&t, fd, 5, 0, 0));
	/* One eventfd has one interrupt. */
	EXPECT_ERRNO(irqfd(&t, fd, 6, 0, 0), EBUSY);
	EXPECT_OK(irqfd(&t, fd, 5, KVM_IRQFD_FLAG_DEASSIGN, 0));
	EXPECT_OK(irqfd(&t, fd, 6, 0, 0));
	tvm_fini(&t);
	EXPECT_OK(close(fd));
	EXPECT_OK(close(plain));
}

/* Signals, assignments and the end of the eventfd and of the VM, all at once. */
struct storm {
	int fd;
	atomic_bool stop;
};

static void *storm(void *arg)
{
	struct storm *s = arg;
	uint64_t one = 1;

	while (!s->stop)
		(void)!write(s->fd, &one, sizeof(one));
	return NULL;
}

TEST_TIMEOUT(irqfd_races_with_close, 60)
{
	struct storm s = { 0 };
	pthread_t thread;
	struct tvm t;
	int i, copy;

	for (i = 0; i < 20; i++) {
		tvm_init_smp(&t, &guest_awaits_interrupts, TVM_IRQCHIP, 1);
		EXPECT_EQ(tvm_go(&t), 1);
		set_msi_route(&t, 30, 0x71);
		s.fd = event();
		s.stop = false;
		copy = dup(s.fd);
		tvm_start(&t, 0);
		ASSERT_EQ(pthread_create(&thread, NULL, storm, &s), 0);
		EXPECT_OK(irqfd(&t, copy, 30, 0, 0));
		TVM_AWAIT(IRQS(&t, 0x71) > (uint32_t)i);
		if (i & 1)
			EXPECT_OK(irqfd(&t, copy, 30, KVM_IRQFD_FLAG_DEASSIGN, 0));
		tvm_stop(&t, 0);
		tvm_fini(&t);
		s.stop = true;
		ASSERT_EQ(pthread_join(thread, NULL), 0);
		EXPECT_OK(close(s.fd));
		EXPECT_OK(close(copy));
	}
}
