// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * KVM_RUN: how it is entered and left. Signals, immediate_exit, the signal
 * mask, what stays pending over an exit, the interrupt window, KVM_INTERRUPT
 * and KVM_NMI, shutdown, and what of kvm_run the VMM may rely on.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "tvm.h"

static volatile uint64_t beat;

GUEST(guest_beats)
{
	/* Bochs does not take interrupts of the host from a guest that never allowed its own. */
	sti();
	for (;;)
		beat++;
}

TEST(run_argument_must_be_zero)
{
	struct tvm t;

	tvm_init(&t, &guest_beats);
	EXPECT_ERRNO(ioctl(t.cpu, KVM_RUN, 1), EINVAL);
	tvm_fini(&t);
}

static void on_signal(int sig)
{
	(void)sig;
}

/* A thread that keeps signalling: the first may come before KVM_RUN begins. */
struct nagger {
	struct tvm *t;
	pthread_t target;
	atomic_bool stop;
	int sig;
};

static void *nag(void *arg)
{
	struct nagger *n = arg;

	while (!n->stop) {
		if (*(volatile uint64_t *)&G(n->t, beat))
			pthread_kill(n->target, n->sig);
		sched_yield();
	}
	return NULL;
}

TEST(signal_is_eintr_and_exit_reason_intr)
{
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	struct nagger n = { .sig = SIGUSR2 };
	pthread_t thread;
	struct tvm t;
	int i;

	sigaction(SIGUSR2, &sa, NULL);
	tvm_init(&t, &guest_beats);
	n.t = &t;
	n.target = pthread_self();
	ASSERT_EQ(pthread_create(&thread, NULL, nag, &n), 0);
	for (i = 0; i < 50; i++) {
		t.run->exit_reason = 0xff;
		ASSERT_ERRNO(ioctl(t.cpu, KVM_RUN, 0), EINTR);
		ASSERT_EQ(t.run->exit_reason, KVM_EXIT_INTR);
	}
	n.stop = true;
	ASSERT_EQ(pthread_join(thread, NULL), 0);
	EXPECT_GT(G(&t, beat), 0);
	tvm_fini(&t);
}

/* A halted vCPU must hear the signal as well. */
GUEST(guest_halts)
{
	beat = 1;
	cli();
	hlt();
}

TEST(signal_ends_a_halt)
{
	struct sigaction sa = { .sa_handler = on_signal };
	struct nagger n = { .sig = SIGUSR2 };
	struct kvm_mp_state mp;
	pthread_t thread;
	struct tvm t;

	sigaction(SIGUSR2, &sa, NULL);
	tvm_init_smp(&t, &guest_halts, TVM_IRQCHIP, 1);
	n.t = &t;
	n.target = pthread_self();
	ASSERT_EQ(pthread_create(&thread, NULL, nag, &n), 0);
	do {
		ASSERT_ERRNO(ioctl(t.cpu, KVM_RUN, 0), EINTR);
		ASSERT_OK(ioctl(t.cpu, KVM_GET_MP_STATE, &mp));
	} while (mp.mp_state != KVM_MP_STATE_HALTED);
	n.stop = true;
	ASSERT_EQ(pthread_join(thread, NULL), 0);
	tvm_fini(&t);
}

TEST(immediate_exit_runs_nothing)
{
	struct tvm t;

	tvm_init(&t, &guest_beats);
	t.run->immediate_exit = 1;
	EXPECT_ERRNO(ioctl(t.cpu, KVM_RUN, 0), EINTR);
	EXPECT_EQ(G(&t, beat), 0);
	t.run->immediate_exit = 0;
	tvm_start(&t, 0);
	TVM_AWAIT(*(volatile uint64_t *)&G(&t, beat) > 100);
	tvm_stop(&t, 0);
	tvm_fini(&t);
}

GUEST64(guest_in_and_mmio,
	"in $0x70, %al\n"
	"mov $0xd0000, %ebx\n"
	"mov (%rbx), %ecx\n"
	"mov %ecx, 4(%rbx)\n"
	"hlt");

/* The VMM re-enters with immediate_exit only to have the instruction done. */
TEST(immediate_exit_completes_what_is_pending)
{
	uint64_t start;
	struct tvm t;

	tvm_init(&t, &guest_in_and_mmio);
	start = tvm_regs(&t, 0).rip;
	EXPECT_EQ(tvm_run(&t), KVM_EXIT_IO);
	EXPECT_EQ(t.run->io.direction, KVM_EXIT_IO_IN);
	tvm_io_data(&t)[0] = 0x5d;
	t.run->immediate_exit = 1;
	EXPECT_ERRNO(ioctl(t.cpu, KVM_RUN, 0), EINTR);
	EXPECT_EQ(tvm_regs(&t, 0).rax & 0xff, 0x5d);
	EXPECT_EQ(tvm_regs(&t, 0).rip, start + 2);
	/* Nothing ran since, so the exit still stands in kvm_run. */
	EXPECT_EQ(t.run->exit_reason, KVM_EXIT_IO);
	EXPECT_EQ(t.run->io.port, 0x70);

	t.run->immediate_exit = 0;
	EXPECT_EQ(tvm_run(&t), KVM_EXIT_MMIO);
	EXPECT_EQ(t.run->mmio.is_write, 0);
	memcpy(t.run->mmio.data, "\x11\x22\x33\x44", 4);
	t.run->immediate_exit = 1;
	EXPECT_ERRNO(ioctl(t.cpu, KVM_RUN, 0), EINTR);
	EXPECT_EQ(tvm_regs(&t, 0).rcx, 0x44332211);
	EXPECT_EQ(tvm_regs(&t, 0).rip, start + 2 + 5 + 2);

	t.run->immediate_exit = 0;
	EXPECT_EQ(tvm_run(&t), KVM_EXIT_MMIO);
	EXPECT_EQ(t.run->mmio.is_write, 1);
	EXPECT_MEMEQ(t.run->mmio.data, "\x11\x22\x33\x44", 4);
	EXPECT_EQ(tvm_run(&t), KVM_EXIT_HLT);
	tvm_fini(&t);
}

/* With the mask of KVM_SET_SIGNAL_MASK, a blocked signal is let in by KVM_RUN. */
TEST(signal_mask)
{
	struct {
		struct kvm_signal_mask head;
		uint64_t set;
	} __attribute__((packed)) mask = { .head.len = 8 };
	struct timespec now = { 0 };
	struct kvm_run *run;
	sigset_t usr2;
	struct tvm t;

	tvm_init(&t, &guest_beats);
	run = t.run;
	sigemptyset(&usr2);
	sigaddset(&usr2, SIGUSR2);
	ASSERT_EQ(pthread_sigmask(SIG_BLOCK, &usr2, NULL), 0);
	mask.head.len = 4;
	EXPECT_ERRNO(ioctl(t.cpu, KVM_SET_SIGNAL_MASK, &mask), EINVAL);
	mask.head.len = 8;
	EXPECT_OK(ioctl(t.cpu, KVM_SET_SIGNAL_MASK, &mask));
	EXPECT_EQ(raise(SIGUSR2), 0);
	EXPECT_ERRNO(ioctl(t.cpu, KVM_RUN, 0), EINTR);
	EXPECT_EQ(run->exit_reason, KVM_EXIT_INTR);
	/* It is still pending, and blocked again. */
	EXPECT_EQ(sigtimedwait(&usr2, NULL, &now), SIGUSR2);

	EXPECT_OK(ioctl(t.cpu, KVM_SET_SIGNAL_MASK, NULL));
	tvm_start(&t, 0);
	TVM_AWAIT(*(volatile uint64_t *)&G(&t, beat) > 100);
	tvm_stop(&t, 0);
	tvm_fini(&t);
}

static void *send_usr2(void *arg)
{
	struct tvm *t = arg;

	TVM_AWAIT(*(volatile uint64_t *)&G(t, beat) > 100);
	/* There is one thread besides: the one in KVM_RUN. */
	EXPECT_EQ(kill(getpid(), SIGUSR2), 0);
	return NULL;
}

/* Nobody handles it, so it would end the process if its sender found it let in. */
TEST(a_signal_that_the_mask_lets_in_is_not_fatal)
{
	struct {
		struct kvm_signal_mask head;
		uint64_t set;
	} __attribute__((packed)) mask = { .head.len = 8 };
	struct timespec now = { 0 };
	pthread_t sender;
	sigset_t usr2;
	struct tvm t;

	tvm_init(&t, &guest_beats);
	sigemptyset(&usr2);
	sigaddset(&usr2, SIGUSR2);
	ASSERT_EQ(pthread_sigmask(SIG_BLOCK, &usr2, NULL), 0);
	EXPECT_OK(ioctl(t.cpu, KVM_SET_SIGNAL_MASK, &mask));
	ASSERT_EQ(pthread_create(&sender, NULL, send_usr2, &t), 0);
	/* It may also be interrupted for less. */
	do
		EXPECT_ERRNO(ioctl(t.cpu, KVM_RUN, 0), EINTR);
	while (sigtimedwait(&usr2, NULL, &now) != SIGUSR2);
	ASSERT_EQ(pthread_join(sender, NULL), 0);
	tvm_fini(&t);
}

/* An empty IDT: the first exception ends in a triple fault. */
GUEST64(guest_triple_faults, "push $0; push $0; lidt (%rsp)\n" "ud2");

TEST(triple_fault_is_shutdown)
{
	struct tvm t;

	tvm_init(&t, &guest_triple_faults);
	EXPECT_EQ(tvm_run(&t), KVM_EXIT_SHUTDOWN);
	tvm_fini(&t);
}

GUEST16(guest_reset_vector, "mov $0x77, %al\n" "out %al, $0x80\n" "hlt");

/* A VMM resets a machine by hand: the vCPU must run again from any state. */
TEST(runs_again_after_shutdown)
{
	struct kvm_sregs reset;
	struct tvm t;

	tvm_init_bare(&t, 0);
	tvm_add_vcpu(&t, 0);
	reset = tvm_sregs(&t, 0);
	tvm_set_code(&t, 0, &guest_triple_faults);
	EXPECT_EQ(tvm_run(&t), KVM_EXIT_SHUTDOWN);
	tvm_set_sregs(&t, 0, &reset);
	tvm_set_code(&t, 0, &guest_reset_vector);
	EXPECT_EQ(tvm_run(&t), KVM_EXIT_IO);
	EXPECT_EQ(tvm_io_data(&t)[0], 0x77);
	EXPECT_EQ(tvm_run(&t), KVM_EXIT_HLT);
	tvm_fini(&t);
}

/* Interrupts that the VMM injects itself: no local APIC in the kernel. */
static volatile uint32_t taken;

static void on_vector(struct guest_frame *frame)
{
	taken = (uint32_t)frame->vector;
}

GUEST(guest_opens_window)
{
	guest_handlers[0x55] = on_vector;
	cli();
	GUEST_SYNC(1);
	sti();
	for (;;)
		cpu_relax();
}

TEST(interrupt_window_and_kvm_interrupt)
{
	struct kvm_interrupt irq = { .irq = 0x55 }, bad = { .irq = 256 };
	struct tvm t;

	tvm_init(&t, &guest_opens_window);
	EXPECT_EQ(tvm_go(&t), 1);
	EXPECT_EQ(t.run->if_flag, 0);
	EXPECT_EQ(t.run->ready_for_interrupt_injection, 0);
	EXPECT_ERRNO(ioctl(t.cpu, KVM_INTERRUPT, &bad), EINVAL);

	t.run->request_interrupt_window = 1;
	EXPECT_EQ(tvm_run(&t), KVM_EXIT_IRQ_WINDOW_OPEN);
	EXPECT_EQ(t.run->if_flag, 1);
	EXPECT_EQ(t.run->ready_for_interrupt_injection, 1);
	EXPECT_EQ(G(&t, taken), 0);
	t.run->request_interrupt_window = 0;
	EXPECT_OK(ioctl(t.cpu, KVM_INTERRUPT, &irq));
	tvm_start(&t, 0);
	TVM_AWAIT(*(volatile uint32_t *)&G(&t, taken) == 0x55);
	tvm_stop(&t, 0);
	tvm_fini(&t);
}

TEST(kvm_interrupt_with_a_local_apic_is_enxio)
{
	struct kvm_interrupt irq = { .irq = 0x55 };
	struct tvm t;

	tvm_init_smp(&t, &guest_beats, TVM_IRQCHIP, 1);
	EXPECT_ERRNO(ioctl(t.cpu, KVM_INTERRUPT, &irq), ENXIO);
	tvm_fini(&t);
}

/* HLT exits with IF=1; the interrupt must come after it, not instead of it. */
GUEST(guest_halts_for_interrupt)
{
	guest_handlers[0x56] = on_vector;
	sti_hlt();
	GUEST_EQ(taken, 0x56);
}

TEST(kvm_interrupt_after_hlt)
{
	struct kvm_interrupt irq = { .irq = 0x56 };
	struct tvm t;

	tvm_init(&t, &guest_halts_for_interrupt);
	EXPECT_EQ(tvm_run(&t), KVM_EXIT_HLT);
	EXPECT_EQ(t.run->ready_for_interrupt_injection, 1);
	EXPECT_OK(ioctl(t.cpu, KVM_INTERRUPT, &irq));
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);
}

/* CR8 travels through kvm_run when the local APIC is not in the kernel. */
GUEST(guest_tpr)
{
	GUEST_EQ(read_cr8(), 0);
	write_cr8(7);
	GUEST_SYNC(1);
	GUEST_EQ(read_cr8(), 3);
}

TEST(cr8_in_kvm_run)
{
	struct tvm t;

	tvm_init(&t, &guest_tpr);
	if (tvm_is_stock())
		SKIP("emulator: CR8 writes under stock KVM can abort QEMU");
	t.run->cr8 = 0;
	for (;;) {
		int reason = tvm_run(&t);
		bool is_report;

		if (reason == KVM_EXIT_SET_TPR)
			continue;
		EXPECT_EQ(tvm_report(&t, 0, &is_report), 1);
		break;
	}
	EXPECT_EQ(t.run->cr8, 7);
	t.run->cr8 = 3;
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);
}

/* NMIs: at once even with IF=0; masked until IRET; one more is remembered, but one only. */
static volatile uint32_t nmis, nested, depth;

static void on_nmi(struct guest_frame *frame)
{
	(void)frame;
	if (depth++)
		nested++;
	nmis++;
	GUEST_SYNC(2);
	/* A second NMI came meanwhile and must wait for the IRET. */
	GUEST_EQ(nmis, 1);
	guest_handlers[2] = guest_count_handler;
	depth--;
}

GUEST(guest_takes_nmis)
{
	guest_handlers[2] = on_nmi;
	cli();
	GUEST_SYNC(1);
	GUEST_EQ(nmis, 1);
	GUEST_EQ(guest_cpu()->irqs[2], 1);
}

static void run_nmis(unsigned int flags)
{
	struct kvm_vcpu_events events;
	struct tvm t;

	tvm_init_smp(&t, &guest_takes_nmis, flags, 1);
	EXPECT_EQ(tvm_go(&t), 1);
	EXPECT_OK(ioctl(t.cpu, KVM_NMI, 0));
	EXPECT_EQ(tvm_go(&t), 2);
	for (int i = 0; i < 3; i++)
		EXPECT_OK(ioctl(t.cpu, KVM_NMI, 0));
	ASSERT_OK(ioctl(t.cpu, KVM_GET_VCPU_EVENTS, &events));
	EXPECT_EQ(events.nmi.pending, 1);
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	EXPECT_EQ(G(&t, nested), 0);
	tvm_fini(&t);
}

TEST(nmi_without_irqchip)
{
	run_nmis(0);
}

TEST(nmi_with_irqchip)
{
	run_nmis(TVM_IRQCHIP);
}

/* What cannot be run: a guest whose code is nowhere. */
TEST(fetch_from_nowhere)
{
	struct kvm_regs regs;
	struct tvm t;
	int reason;

	tvm_init(&t, &guest_beats);
	regs = tvm_regs(&t, 0);
	regs.rip = 0xd0000;		/* no memory there */
	tvm_set_regs(&t, 0, &regs);
	reason = tvm_run(&t);
	EXPECT_TRUE(reason == KVM_EXIT_INTERNAL_ERROR || reason == KVM_EXIT_MMIO);
	if (reason == KVM_EXIT_INTERNAL_ERROR)
		EXPECT_EQ(t.run->internal.suberror, KVM_INTERNAL_ERROR_EMULATION);
	tvm_fini(&t);
}

/* An instruction that no decoder knows, on MMIO: an error with its bytes. */
GUEST64(guest_odd_mmio, "mov $0xd0000, %ebx\n" "fldenv (%rbx)\n" "hlt");

TEST(unknown_mmio_instruction_is_an_internal_error)
{
	struct tvm t;

	tvm_init(&t, &guest_odd_mmio);
	EXPECT_EQ(tvm_run(&t), KVM_EXIT_INTERNAL_ERROR);
	EXPECT_EQ(t.run->internal.suberror, KVM_INTERNAL_ERROR_EMULATION);
	EXPECT_EQ(tvm_regs(&t, 0).rip, GUEST_CODE + 5);
	tvm_fini(&t);
}
