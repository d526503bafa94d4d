// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A stopped VM is read out by the documented ioctls and goes on in a new one,
 * again and again, while the guest looks after its registers, its extended
 * state, its clocks, its timers, and interrupts on their way.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tvm.h"

#define MSR_KVM_SYSTEM_TIME	0x4b564d01
#define STOP_PORT		0x80
#define MAX_MSRS		512

/* In the order in which a new vCPU wants them; CPUID before, MSRs and events after. */
static const struct { unsigned long get, set; size_t size; bool apic; } parts[] = {
	{ KVM_GET_MP_STATE, KVM_SET_MP_STATE, sizeof(struct kvm_mp_state), false },
	{ KVM_GET_REGS, KVM_SET_REGS, sizeof(struct kvm_regs), false },
	{ KVM_GET_SREGS, KVM_SET_SREGS, sizeof(struct kvm_sregs), false },
	{ KVM_GET_XSAVE, KVM_SET_XSAVE, sizeof(struct kvm_xsave), false },
	{ KVM_GET_XCRS, KVM_SET_XCRS, sizeof(struct kvm_xcrs), false },
	{ KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, sizeof(struct kvm_debugregs), false },
	{ KVM_GET_LAPIC, KVM_SET_LAPIC, sizeof(struct kvm_lapic_state), true },
};

static void move_msrs(struct tvm *from, struct tvm *to, unsigned int i)
{
	struct kvm_msr_list *list = calloc(1, sizeof(*list) + MAX_MSRS * sizeof(list->indices[0]));
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} m = { .head.nmsrs = 1 };
	uint32_t n;

	list->nmsrs = MAX_MSRS;
	ASSERT_OK(ioctl(from->dev, KVM_GET_MSR_INDEX_LIST, list));
	for (n = 0; n < list->nmsrs; n++) {
		m.entry.index = list->indices[n];
		/* The reference lists some that its guest's CPUID does not have. */
		if (ioctl(from->vcpu[i].fd, KVM_GET_MSRS, &m) != 1) {
			ASSERT_TRUE(tvm_is_stock());
			continue;
		}
		if (ioctl(to->vcpu[i].fd, KVM_SET_MSRS, &m) != 1)
			tap_diag("MSR %#x: %#llx", m.entry.index, m.entry.data);
		EXPECT_EQ(ioctl(to->vcpu[i].fd, KVM_SET_MSRS, &m), 1);
	}
	free(list);
}

/*
 * Linux 6.1 takes a TSC that is less than a second away from a new vCPU's for an
 * attempt to synchronize them; the attribute is the way out.
 */
static void move_tsc_offset(struct tvm *from, struct tvm *to, unsigned int i)
{
	struct kvm_device_attr attr = { .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET };
	uint64_t offset;

	attr.addr = (uintptr_t)&offset;
	ASSERT_OK(ioctl(from->vcpu[i].fd, KVM_GET_DEVICE_ATTR, &attr));
	ASSERT_OK(ioctl(to->vcpu[i].fd, KVM_SET_DEVICE_ATTR, &attr));
}

static void move_vcpu(struct tvm *from, struct tvm *to, unsigned int i)
{
	int in = from->vcpu[i].fd, out = to->vcpu[i].fd;
	struct kvm_vcpu_events events;
	bool apic = ioctl(from->fd, KVM_CHECK_EXTENSION, KVM_CAP_IRQCHIP) > 0;
	union {
		struct kvm_xsave xsave;
		struct kvm_lapic_state lapic;
		struct kvm_sregs sregs;
	} buf;
	size_t n;

	ASSERT_OK(ioctl(in, KVM_GET_VCPU_EVENTS, &events));
	for (n = 0; n < sizeof(parts) / sizeof(parts[0]); n++) {
		if (parts[n].apic && !apic)
			continue;
		ASSERT_LE(parts[n].size, sizeof(buf));
		ASSERT_OK(ioctl(in, parts[n].get, &buf));
		ASSERT_OK(ioctl(out, parts[n].set, &buf));
	}
	move_msrs(from, to, i);
	if (tvm_is_stock())
		move_tsc_offset(from, to, i);
	ASSERT_OK(ioctl(out, KVM_SET_VCPU_EVENTS, &events));
}

static void move_vm(struct tvm *from, struct tvm *to)
{
	struct kvm_clock_data clock;
	struct kvm_irqchip chip;
	struct kvm_pit_state2 pit;
	uint32_t id;

	for (id = 0; id < 3; id++) {
		memset(&chip, 0, sizeof(chip));
		chip.chip_id = id;
		ASSERT_OK(ioctl(from->fd, KVM_GET_IRQCHIP, &chip));
		ASSERT_OK(ioctl(to->fd, KVM_SET_IRQCHIP, &chip));
	}
	ASSERT_OK(ioctl(from->fd, KVM_GET_PIT2, &pit));
	ASSERT_OK(ioctl(to->fd, KVM_SET_PIT2, &pit));
	ASSERT_OK(ioctl(from->fd, KVM_GET_CLOCK, &clock));
	clock.flags = 0;
	ASSERT_OK(ioctl(to->fd, KVM_SET_CLOCK, &clock));
}

/* No vCPU runs. The VM in @t goes on in a new one that takes its place. */
static void migrate(struct tvm *t)
{
	struct tvm new;
	unsigned int i;

	/* What user space was asked for must be complete. */
	for (i = 0; i < t->nr_vcpus; i++) {
		t->vcpu[i].run->immediate_exit = 1;
		ASSERT_ERRNO(ioctl(t->vcpu[i].fd, KVM_RUN, 0), EINTR);
	}
	tvm_init_bare(&new, TVM_IRQCHIP | TVM_PIT);
	memcpy(new.ram, t->ram, GUEST_RAM_SIZE);
	for (i = 0; i < t->nr_vcpus; i++)
		tvm_add_vcpu(&new, 0);
	for (i = 0; i < t->nr_vcpus; i++)
		move_vcpu(t, &new, i);
	move_vm(t, &new);
	tvm_fini(t);
	*t = new;
	for (i = 0; i < t->nr_vcpus; i++)
		t->vcpu[i].vm = t;
}

/* The page of kvmclock, by the kernel's ABI (pvclock-abi.h). */
static struct {
	volatile uint32_t version, pad;
	volatile uint64_t tsc, system_time;
	volatile uint32_t mul;
	volatile int8_t shift;
	volatile uint8_t flags, pad2[2];
} clock_page __attribute__((aligned(64)));

static uint64_t clock_ns(void)
{
	uint32_t version;
	uint64_t ns;

	do {
		uint64_t delta;

		version = clock_page.version;
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		delta = rdtsc() - clock_page.tsc;
		delta = clock_page.shift >= 0 ? delta << clock_page.shift :
						delta >> -clock_page.shift;
		ns = clock_page.system_time +
		     (uint64_t)((unsigned __int128)delta * clock_page.mul >> 32);
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
	} while ((version & 1) || version != clock_page.version);
	return ns;
}

#define ROUNDS	8

static volatile bool use_avx;
static uint64_t vec_in[4], vec_out[4];

GUEST(guest_keeps_its_state)
{
	uint64_t i, tsc = rdtsc(), ns, x87_in, x87_out;

	write_cr4(read_cr4() | 1 << 18);
	__asm__ volatile("xsetbv" : : "c"(0), "a"(use_avx ? 7 : 3), "d"(0));
	wrmsr(MSR_KVM_SYSTEM_TIME, (uintptr_t)&clock_page | 1);
	ns = clock_ns();
	for (i = 1; i <= ROUNDS; i++) {
		uint64_t now;

		vec_in[0] = vec_in[3] = x87_in = i * 0x0123456789abcd;
		vec_in[1] = vec_in[2] = ~x87_in;
		wrmsr(MSR_LSTAR, i << 12);
		wrmsr(MSR_KERNEL_GS_BASE, i << 13);
		wrmsr(MSR_TSC_AUX, i);
		wrmsr(0x277, 0x0007040600070400 + i % 2);
		write_cr2(i << 14);
		write_cr8(i);
		write_dr0(i << 4);
		write_dr6(0xffff0ff0 | i);
		__asm__ volatile("fildq %1\n\tout %%al, $0x80\n\tfistpq %0"
				 : "=m"(x87_out) : "m"(x87_in) : "memory");
		GUEST_EQ(x87_out, x87_in);
		GUEST_EQ(rdmsr(MSR_LSTAR), i << 12);
		GUEST_EQ(rdmsr(MSR_KERNEL_GS_BASE), i << 13);
		GUEST_EQ(rdmsr(MSR_TSC_AUX), i);
		GUEST_EQ(rdmsr(0x277), 0x0007040600070400 + i % 2);
		GUEST_EQ(read_cr2(), i << 14);
		GUEST_EQ(read_cr8(), i);
		GUEST_EQ(read_dr0(), i << 4);
		GUEST_EQ(read_dr6(), 0xffff0ff0 | i);
		if (use_avx)
			__asm__ volatile("vmovdqu %1, %%ymm7\n\tout %%al, $0x80\n\t"
					 "vmovdqu %%ymm7, %0"
					 : "=m"(vec_out) : "m"(vec_in) : "xmm7", "memory");
		else
			__asm__ volatile("movdqu %1, %%xmm7\n\tout %%al, $0x80\n\t"
					 "movdqu %%xmm7, %0"
					 : "=m"(vec_out) : "m"(vec_in) : "xmm7", "memory");
		GUEST_EQ(vec_out[0], vec_in[0]);
		GUEST_EQ(vec_out[1], vec_in[1]);
		if (use_avx)
			GUEST_EQ(vec_out[3], vec_in[3]);
		now = rdtsc();
		GUEST_TRUE(now > tsc);
		tsc = now;
		now = clock_ns();
		GUEST_TRUE(now > ns);
		ns = now;
	}
}

TEST_TIMEOUT(registers_and_clocks, 60)
{
	const struct kvm_cpuid_entry2 *e = tvm_cpuid(1, 0);
	struct tvm t;
	int i;

	tvm_init_smp(&t, &guest_keeps_its_state, TVM_IRQCHIP | TVM_PIT, 1);
	G(&t, use_avx) = e->ecx >> 28 & 1;
	for (i = 0; i < 2 * ROUNDS; i++) {
		ASSERT_EQ(tvm_run(&t), KVM_EXIT_IO);
		ASSERT_EQ(t.run->io.port, STOP_PORT);
		migrate(&t);
	}
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);
}

/* -- timers ----------------------------------------------------------------- */

#define TIMER		0x40
#define PIT		0x41
#define STEPS		5
#define PIT_HZ_100	11932

static volatile bool use_deadline, finish;
static volatile uint64_t period;

static void on_deadline(struct guest_frame *frame)
{
	wrmsr(MSR_TSC_DEADLINE, rdtsc() + period);
	guest_eoi_handler(frame);
}

GUEST(guest_counts_ticks)
{
	guest_handlers[TIMER] = use_deadline ? on_deadline : guest_eoi_handler;
	guest_handlers[PIT] = guest_eoi_handler;
	apic_enable();
	ioapic_rte(0, PIT);
	outb(0x21, 0xff);	/* not through the PIC as well */
	outb(0xa1, 0xff);
	outb(0x43, 0x34);
	outb(0x40, PIT_HZ_100 & 0xff);
	outb(0x40, PIT_HZ_100 >> 8);
	if (use_deadline) {
		apic_write(APIC_LVTT, TIMER | APIC_LVT_DEADLINE);
		wrmsr(MSR_TSC_DEADLINE, rdtsc() + period);
	} else {
		apic_write(APIC_TDCR, 0xb);
		apic_write(APIC_LVTT, TIMER | APIC_LVT_PERIODIC);
		apic_write(APIC_TMICT, 5000000);
	}
	while (!finish) {
		sti_hlt();
		cli();
	}
}

static void migrate_among_ticks(bool deadline)
{
	struct tvm t;
	uint32_t i;

	tvm_init_smp(&t, &guest_counts_ticks, TVM_IRQCHIP | TVM_PIT, 1);
	G(&t, use_deadline) = deadline;
	G(&t, period) = ioctl(t.cpu, KVM_GET_TSC_KHZ, 0) * 5ull;	/* 5 ms */
	for (i = 0; i < STEPS; i++) {
		uint32_t timer = G(&t, guest_cpus)[0].irqs[TIMER];
		uint32_t pit = G(&t, guest_cpus)[0].irqs[PIT];

		tvm_start(&t, 0);
		TVM_AWAIT(G(&t, guest_cpus)[0].irqs[TIMER] >= timer + 10);
		TVM_AWAIT(G(&t, guest_cpus)[0].irqs[PIT] >= pit + 2);
		tvm_stop(&t, 0);
		migrate(&t);
	}
	G(&t, finish) = true;
	tvm_start(&t, 0);
	tvm_join(&t, 0);
	EXPECT_TRUE(t.vcpu[0].done);
	tvm_fini(&t);
}

TEST_TIMEOUT(periodic_timer_and_pit, 60)
{
	migrate_among_ticks(false);
}

TEST_TIMEOUT(tsc_deadline_and_pit, 60)
{
	migrate_among_ticks(true);
}

/* -- interrupts on their way ------------------------------------------------ */

GUEST(guest_awaits_what_is_pending)
{
	guest_handlers[2] = guest_count_handler;
	guest_handlers[0x50] = guest_eoi_handler;
	apic_enable();
	cli();
	apic_icr(0, 0x50);
	__asm__ volatile("out %%al, $0x80" : : : "memory");
	GUEST_EQ(guest_cpu()->irqs[2], 1);
	GUEST_EQ(guest_cpu()->irqs[0x50], 0);
	sti();
	GUEST_EQ(guest_cpu()->irqs[0x50], 1);
}

TEST(pending_interrupt_and_nmi)
{
	struct tvm t;

	tvm_init_smp(&t, &guest_awaits_what_is_pending, TVM_IRQCHIP | TVM_PIT, 1);
	ASSERT_EQ(tvm_run(&t), KVM_EXIT_IO);
	ASSERT_OK(ioctl(t.cpu, KVM_NMI, 0));
	migrate(&t);
	migrate(&t);
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);
}

#define BALL	0x51
static volatile uint32_t shots, ready;

static void on_ball(struct guest_frame *frame)
{
	guest_eoi_handler(frame);
	shots++;
	apic_icr(!guest_cpu()->id, BALL);
}

GUEST(guest_plays_ball)
{
	guest_handlers[BALL] = on_ball;
	apic_enable();
	__atomic_add_fetch(&ready, 1, __ATOMIC_SEQ_CST);
	while (ready < 2)
		cpu_relax();
	if (!guest_cpu()->id)
		apic_icr(1, BALL);
	sti();
	while (!finish)
		cpu_relax();
}

TEST_TIMEOUT(ipis_between_vcpus, 60)
{
	struct tvm t;
	uint32_t i;

	tvm_init_smp(&t, &guest_plays_ball, TVM_IRQCHIP | TVM_PIT, 2);
	for (i = 0; i < STEPS; i++) {
		uint32_t before = G(&t, shots);

		tvm_start_all(&t);
		TVM_AWAIT(G(&t, shots) >= before + 100);
		tvm_stop(&t, i % 2);
		tvm_stop(&t, !(i % 2));
		migrate(&t);
	}
	G(&t, finish) = true;
	tvm_start_all(&t);
	tvm_join_all(&t);
	EXPECT_TRUE(t.vcpu[0].done && t.vcpu[1].done);
	tvm_fini(&t);
}
