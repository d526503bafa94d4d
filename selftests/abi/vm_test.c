// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The VM: creation of vCPUs, the small VM ioctls, and lifetimes: files closed
 * in any order and at any moment, a VMM that is killed, another process.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tvm.h"

#define BAD_PTR		((void *)8)

TEST(vcpu_ids)
{
	struct tvm t;
	int fd, max;

	tvm_init_bare(&t, 0);
	fd = ioctl(t.fd, KVM_CREATE_VCPU, 3);
	EXPECT_OK(fd);
	EXPECT_ERRNO(ioctl(t.fd, KVM_CREATE_VCPU, 3), EEXIST);
	max = ioctl(t.fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPU_ID);
	if (!max)
		max = ioctl(t.fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
	ASSERT_GT(max, 0);
	EXPECT_ERRNO(ioctl(t.fd, KVM_CREATE_VCPU, (unsigned long)max), EINVAL);
	EXPECT_ERRNO(ioctl(t.fd, KVM_CREATE_VCPU, 0xffffffffu), EINVAL);
	EXPECT_OK(close(fd));

	/* The id stays taken: the VM owns the vCPU, not its file. */
	EXPECT_ERRNO(ioctl(t.fd, KVM_CREATE_VCPU, 3), EEXIST);
	tvm_fini(&t);
}

TEST(vcpu_limit)
{
	int nr, i, fd[8];
	struct tvm t;

	tvm_init_bare(&t, TVM_IRQCHIP);
	nr = ioctl(t.fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
	for (i = 0; i < 8 && i < nr; i++) {
		fd[i] = ioctl(t.fd, KVM_CREATE_VCPU, i);
		ASSERT_OK(fd[i]);
	}
	while (i--)
		EXPECT_OK(close(fd[i]));
	tvm_fini(&t);
}

TEST(irqchip_is_created_once_and_first)
{
	struct kvm_pit_config pit = { .flags = 0 };
	struct tvm t;

	tvm_init_bare(&t, 0);
	/* The argument means nothing: one client passes garbage. */
	EXPECT_OK(ioctl(t.fd, KVM_CREATE_IRQCHIP, 0xc));
	EXPECT_ERRNO(ioctl(t.fd, KVM_CREATE_IRQCHIP, 0), EEXIST);
	EXPECT_ERRNO(ioctl(t.fd, KVM_CREATE_PIT2, BAD_PTR), EFAULT);
	EXPECT_OK(ioctl(t.fd, KVM_CREATE_PIT2, &pit));
	EXPECT_ERRNO(ioctl(t.fd, KVM_CREATE_PIT2, &pit), EEXIST);
	tvm_fini(&t);

	tvm_init_bare(&t, 0);
	tvm_add_vcpu(&t, 0);
	EXPECT_ERRNO(ioctl(t.fd, KVM_CREATE_IRQCHIP, 0), EINVAL);
	tvm_fini(&t);
}

TEST(ioctls_that_need_an_irqchip)
{
	struct kvm_irq_routing routing = { .nr = 0 };
	struct kvm_irqchip chip = { .chip_id = 0 };
	struct kvm_irqfd irqfd = { .fd = 0 };
	struct kvm_irq_level line = { .irq = 1 };
	struct kvm_lapic_state lapic = { { 0 } };
	struct kvm_pit_state2 pit;
	struct tvm t;

	tvm_init_bare(&t, 0);
	tvm_add_vcpu(&t, 0);
	EXPECT_ERRNO(ioctl(t.fd, KVM_IRQ_LINE, &line), ENXIO);
	EXPECT_ERRNO(ioctl(t.fd, KVM_IRQ_LINE_STATUS, &line), ENXIO);
	EXPECT_ERRNO(ioctl(t.fd, KVM_GET_IRQCHIP, &chip), ENXIO);
	EXPECT_ERRNO(ioctl(t.fd, KVM_SET_IRQCHIP, &chip), ENXIO);
	EXPECT_ERRNO(ioctl(t.fd, KVM_GET_PIT2, &pit), ENXIO);
	memset(&pit, 0, sizeof(pit));
	EXPECT_ERRNO(ioctl(t.fd, KVM_SET_PIT2, &pit), ENXIO);
	EXPECT_ERRNO(ioctl(t.fd, KVM_SET_GSI_ROUTING, &routing), EINVAL);
	EXPECT_ERRNO(ioctl(t.fd, KVM_IRQFD, &irqfd), EINVAL);
	EXPECT_ERRNO(tvm_signal_msi(&t, TVM_MSI_ADDR(0), 0x40), EINVAL);
	EXPECT_ERRNO(ioctl(t.cpu, KVM_GET_LAPIC, &lapic), EINVAL);
	EXPECT_ERRNO(ioctl(t.cpu, KVM_SET_LAPIC, &lapic), EINVAL);
	tvm_fini(&t);
}

TEST(tss_and_identity_map_addresses)
{
	uint64_t addr = 0xfeffc000;
	struct tvm t;

	tvm_init_bare(&t, 0);
	EXPECT_OK(ioctl(t.fd, KVM_SET_TSS_ADDR, 0xfffbd000ul));
	EXPECT_ERRNO(ioctl(t.fd, KVM_SET_TSS_ADDR, 0xfffff000ul), EINVAL);
	EXPECT_OK(ioctl(t.fd, KVM_SET_IDENTITY_MAP_ADDR, &addr));
	EXPECT_ERRNO(ioctl(t.fd, KVM_SET_IDENTITY_MAP_ADDR, BAD_PTR), EFAULT);
	tvm_add_vcpu(&t, 0);
	EXPECT_ERRNO(ioctl(t.fd, KVM_SET_IDENTITY_MAP_ADDR, &addr), EINVAL);
	tvm_fini(&t);
}

TEST(enable_cap_refuses_the_unknown)
{
	struct kvm_enable_cap cap = { .cap = 0xfffff };
	struct tvm t;

	tvm_init_bare(&t, 0);
	tvm_add_vcpu(&t, 0);
	EXPECT_ERRNO(ioctl(t.fd, KVM_ENABLE_CAP, &cap), EINVAL);
	EXPECT_ERRNO(ioctl(t.fd, KVM_ENABLE_CAP, BAD_PTR), EFAULT);
	EXPECT_ERRNO(ioctl(t.cpu, KVM_ENABLE_CAP, &cap), EINVAL);
	tvm_fini(&t);
}

static volatile uint64_t beat;

GUEST(guest_beats)
{
	/* Bochs does not take interrupts of the host from a guest that never allowed its own. */
	sti();
	for (;;)
		beat++;
}

TEST(files_close_in_any_order)
{
	unsigned int order;
	struct tvm t;

	/* Device, VM, vCPU: by the digits of the order, then the mapping. */
	for (order = 0; order < 6; order++) {
		static const char orders[6][3] = {
			"dvc", "dcv", "vdc", "vcd", "cdv", "cvd",
		};
		size_t size, i;

		tvm_init_smp(&t, &guest_beats, order & 1 ? TVM_IRQCHIP : 0, 1);
		tvm_start(&t, 0);
		TVM_AWAIT(*(volatile uint64_t *)&G(&t, beat) > 1000);
		tvm_stop(&t, 0);
		size = tvm_run_size(t.dev);
		for (i = 0; i < 3; i++)
			EXPECT_OK(close(orders[order][i] == 'd' ? t.dev :
					orders[order][i] == 'v' ? t.fd : t.cpu));
		/* The pages outlive every file. */
		t.run->immediate_exit = 1;
		EXPECT_OK(munmap(t.run, size));
		EXPECT_OK(munmap(t.ram, GUEST_RAM_SIZE));
	}
}

TEST(vcpu_runs_on_without_vm_and_device_files)
{
	struct tvm t;

	tvm_init(&t, &guest_beats);
	EXPECT_OK(close(t.fd));
	EXPECT_OK(close(t.dev));
	tvm_start(&t, 0);
	TVM_AWAIT(*(volatile uint64_t *)&G(&t, beat) > 1000);
	tvm_stop(&t, 0);
	EXPECT_GT(G(&t, beat), 1000);
}

/* One thread repeats one ioctl until its file is gone. */
struct racer {
	int fd;
	unsigned long request;
	void *arg;
	pthread_t thread;
	atomic_int tid;
	atomic_bool gone;
};

static struct racer racer(int fd, unsigned long request, void *arg)
{
	return (struct racer){ .fd = fd, .request = request, .arg = arg };
}

static void *race(void *arg)
{
	struct racer *r = arg;

	r->tid = gettid();
	while (ioctl(r->fd, r->request, r->arg) >= 0 || errno != EBADF)
		;
	r->gone = true;
	return NULL;
}

/*
 * No other file is opened meanwhile, so a number cannot come back as another
 * file. A call in progress holds its file: KVM_RUN is left by the signal.
 */
TEST_TIMEOUT(closes_race_with_every_kind_of_call, 60)
{
	static uint8_t buf[8][4096];
	static const uint64_t page[512] __attribute__((aligned(4096)));
	struct kvm_userspace_memory_region region = {
		.slot = 9, .guest_phys_addr = 0x10000000, .memory_size = 4096,
		.userspace_addr = (uintptr_t)page,
	};
	struct kvm_irq_level line = { .irq = 4, .level = 1 };
	struct racer racers[8];
	unsigned int round, i;
	size_t run_size;
	struct tvm t;

	for (round = 0; round < 12; round++) {
		tvm_init_smp(&t, &guest_beats, TVM_IRQCHIP | TVM_PIT, 2);
		memset(racers, 0, sizeof(racers));
		run_size = tvm_run_size(t.dev);
		racers[0] = racer(t.vcpu[0].fd, KVM_RUN, NULL);
		racers[1] = racer(t.vcpu[1].fd, KVM_RUN, NULL);
		racers[2] = racer(t.vcpu[1].fd, KVM_GET_REGS, buf[2]);
		racers[3] = racer(t.vcpu[1].fd, KVM_GET_LAPIC, buf[3]);
		racers[4] = racer(t.fd, KVM_IRQ_LINE, &line);
		racers[5] = racer(t.fd, KVM_SET_USER_MEMORY_REGION, &region);
		racers[6] = racer(t.fd, KVM_GET_PIT2, buf[6]);
		racers[7] = racer(t.dev, KVM_GET_MSR_INDEX_LIST, buf[7]);
		for (i = 0; i < 8; i++)
			ASSERT_EQ(pthread_create(&racers[i].thread, NULL, race, &racers[i]), 0);
		TVM_AWAIT(*(volatile uint64_t *)&G(&t, beat) > 100u * round);

		close(round & 1 ? t.fd : t.vcpu[0].fd);
		close(round & 2 ? t.dev : t.vcpu[1].fd);
		close(round & 2 ? t.vcpu[1].fd : t.dev);
		close(round & 1 ? t.vcpu[0].fd : t.fd);
		for (i = 0; i < 8; i++) {
			while (!racers[i].gone) {
				if (racers[i].tid)
					syscall(SYS_tgkill, getpid(), racers[i].tid, SIGUSR1);
				sched_yield();
			}
			ASSERT_EQ(pthread_join(racers[i].thread, NULL), 0);
		}
		/* On even rounds the shared pages are what keeps the VM. */
		if (round & 1) {
			EXPECT_OK(munmap(t.vcpu[0].run, run_size));
			EXPECT_OK(munmap(t.vcpu[1].run, run_size));
		}
		EXPECT_OK(munmap(t.ram, GUEST_RAM_SIZE));
	}
}

/* A shared page tells that the doomed VMM's guest really runs. */
TEST_TIMEOUT(killed_vmm_leaves_nothing, 60)
{
	volatile uint64_t *alive;
	struct tvm t;
	unsigned int i;
	int status;
	pid_t pid;

	alive = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(alive, MAP_FAILED);
	for (i = 0; i < 10; i++) {
		*alive = 0;
		pid = fork();
		if (!pid) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			tvm_init_smp(&t, &guest_beats, TVM_IRQCHIP | TVM_PIT, 3);
			tvm_start_all(&t);
			for (;;)
				*alive = *(volatile uint64_t *)&G(&t, beat);
		}
		while (*alive <= 50 * i) {
			ASSERT_EQ(waitpid(pid, &status, WNOHANG), 0);
			sched_yield();
		}
		EXPECT_OK(kill(pid, SIGKILL));
		ASSERT_EQ(waitpid(pid, &status, 0), pid);
		EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	}
}

static void set_cpu1(char state)
{
	int fd = open("/sys/devices/system/cpu/cpu1/online", O_WRONLY);

	ASSERT_OK(fd);
	ASSERT_EQ(write(fd, &state, 1), 1);
	EXPECT_OK(close(fd));
}

/* A processor leaves and returns while vCPUs run on it. */
TEST_TIMEOUT(processor_goes_offline_under_vcpus, 60)
{
	volatile uint64_t *count;
	uint64_t before;
	cpu_set_t set;
	struct tvm t;
	int i;

	if (sysconf(_SC_NPROCESSORS_CONF) < 2)
		SKIP("emulator: one processor");
	tvm_init_smp(&t, &guest_beats, TVM_IRQCHIP, 3);
	count = &G(&t, beat);
	tvm_start_all(&t);
	for (i = 0; i < 3; i++) {
		set_cpu1('0');
		before = *count;
		TVM_AWAIT(*count > before + 1000);
		set_cpu1('1');
		before = *count;
		TVM_AWAIT(*count > before + 1000);
	}
	for (i = 0; i < 3; i++)
		tvm_stop(&t, (unsigned int)i);
	tvm_fini(&t);

	/* And it can start a VM again. */
	CPU_ZERO(&set);
	CPU_SET(1, &set);
	ASSERT_OK(sched_setaffinity(0, sizeof(set), &set));
	tvm_init(&t, &guest_beats);
	tvm_start(&t, 0);
	TVM_AWAIT(*(volatile uint64_t *)&G(&t, beat) > 1000);
	tvm_stop(&t, 0);
	tvm_fini(&t);
}

/* The VM belongs to the address space that made it. */
TEST(another_process_gets_eio)
{
	struct kvm_regs regs;
	struct tvm t;
	int status;
	pid_t pid;

	tvm_init(&t, &guest_beats);
	pid = fork();
	if (!pid) {
		EXPECT_ERRNO(ioctl(t.fd, KVM_CHECK_EXTENSION, KVM_CAP_IRQCHIP), EIO);
		EXPECT_ERRNO(ioctl(t.fd, KVM_CREATE_VCPU, 5), EIO);
		EXPECT_ERRNO(ioctl(t.cpu, KVM_GET_REGS, &regs), EIO);
		EXPECT_ERRNO(ioctl(t.cpu, KVM_RUN, 0), EIO);
		_exit(0);
	}
	ASSERT_EQ(waitpid(pid, &status, 0), pid);
	EXPECT_EQ(status, 0);
	EXPECT_OK(ioctl(t.cpu, KVM_GET_REGS, &regs));
	tvm_fini(&t);
}

/* Two threads in one vCPU take turns; each sees a whole exit. */
static volatile uint32_t turns;

GUEST(guest_counts_turns)
{
	for (;;) {
		turns++;
		GUEST_SYNC(1);
	}
}

static void *take_turns(void *arg)
{
	struct tvm *t = arg;
	int i;

	for (i = 0; i < 500; i++) {
		while (ioctl(t->cpu, KVM_RUN, 0) < 0)
			EXPECT_EQ(errno, EINTR);
	}
	return NULL;
}

TEST(two_threads_share_a_vcpu)
{
	pthread_t a, b;
	struct tvm t;

	tvm_init(&t, &guest_counts_turns);
	ASSERT_EQ(pthread_create(&a, NULL, take_turns, &t), 0);
	ASSERT_EQ(pthread_create(&b, NULL, take_turns, &t), 0);
	ASSERT_EQ(pthread_join(a, NULL), 0);
	ASSERT_EQ(pthread_join(b, NULL), 0);
	EXPECT_EQ(t.run->exit_reason, KVM_EXIT_IO);
	EXPECT_EQ(G(&t, turns), 1000);
	tvm_fini(&t);
}
