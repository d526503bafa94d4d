// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Two threads throw ioctls at the same few VMs: sequences that make sense, with
 * fields that need not. What is read is written back with bits flipped;
 * memory under the guest goes away; files are closed while the other thread is
 * in them; kvm_run is scribbled over. Errors are welcome. What must hold: no
 * call hangs (a timer ends KVM_RUN), no errno is one that the kernel keeps for
 * itself, the bed sees to it that the kernel had nothing to say, and afterwards
 * a VM runs as if nothing had been.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include <linux/fonda.h>

#include "fuzz.h"
#include "tvm.h"

#define ARRAY_SIZE(_a)	(sizeof(_a) / sizeof((_a)[0]))

#define THREADS		2
#define STEPS		6000		/* of each thread */
#define VMS		3
#define VCPUS		3		/* of a VM */
#define EVENTFDS	4
#define MEMORY		(2 << 20)
#define BITMAP		0x10000
#define TICK_NS		500000
#define MSR_EFER	0xc0000080

struct vm {
	atomic_int fd;
	atomic_int vcpu[VCPUS];
	struct kvm_run *_Atomic run[VCPUS];
};

static struct vm vms[VMS];
static int dev, eventfds[EVENTFDS];
static uint64_t efer_bits;	/* that guests may be given */
static size_t run_size;
static uint8_t *memory;		/* of all guests; of other sizes by turns */
static uint8_t *bitmap;		/* dirty pages; too small for some slots: a hole follows */

/* Each thread's own. */
static __thread struct rng *rng;
static __thread uint8_t buffer[16384] __attribute__((aligned(8)));
static __thread timer_t timer;

static unsigned long calls, succeeded, runs;

/* A loop over what leaves a guest, for real mode and for any other. */
GUEST16(busy, "1: in $0x61, %al\n" "out %al, $0x80\n" "cpuid\n" "mov %ax, (0x2000)\n"
	"mov $0xa000, %bx\n" "mov %bx, %ds\n" "mov %ax, (0)\n" "xor %bx, %bx\n"
	"mov %bx, %ds\n" "rdtsc\n" "sti\n" "hlt\n" "jmp 1b\n");

static uint32_t below(uint32_t n)
{
	return rng_below(rng, n);
}

/* Errors that must not reach user space. */
static void check_errno(unsigned long cmd)
{
	if (errno >= 512 || errno == 0)
		tap_fail("ioctl %#lx: errno %d", cmd, errno);
}

static int call(int fd, unsigned long cmd, unsigned long arg)
{
	int ret = ioctl(fd, cmd, arg);

	__atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);
	if (ret < 0)
		check_errno(cmd);
	else
		__atomic_add_fetch(&succeeded, 1, __ATOMIC_RELAXED);
	return ret;
}

/* Sometimes not the buffer, but a pointer that is no good. */
static unsigned long pointer(void *good)
{
	switch (below(50)) {
	case 0:	 return 0;
	case 1:	 return (unsigned long)memory;		/* may be unmapped */
	case 2:	 return ~0UL << 12;
	case 3:	 return (unsigned long)good + below(8);
	default: return (unsigned long)good;
	}
}

static void flip_bits(void *data, size_t size)
{
	unsigned int n = below(4);

	while (n--)
		((uint8_t *)data)[below(size)] ^= 1 << below(8);
	if (!below(4))
		memcpy((uint8_t *)data + (below(size) & ~7ul), &(uint64_t){ fuzz_number(rng) },
		       size < 8 ? 1 : 8);
}

/* -- calls with a structure ------------------------------------------------- */

struct shape {
	unsigned long get, set;		/* either may be 0 */
	size_t size;			/* bytes */
};

#define PAIR(_what, _type)	{ KVM_GET_##_what, KVM_SET_##_what, sizeof(struct _type) }
#define SET(_cmd, _type)	{ 0, _cmd, sizeof(struct _type) }

static const struct shape vm_shapes[] = {
	PAIR(CLOCK, kvm_clock_data), PAIR(PIT2, kvm_pit_state2), PAIR(IRQCHIP, kvm_irqchip),
	SET(KVM_IRQ_LINE, kvm_irq_level), SET(KVM_IRQ_LINE_STATUS, kvm_irq_level),
	SET(KVM_SIGNAL_MSI, kvm_msi), SET(KVM_CREATE_PIT2, kvm_pit_config),
	SET(KVM_REINJECT_CONTROL, kvm_reinject_control), SET(KVM_ENABLE_CAP, kvm_enable_cap),
	SET(KVM_REGISTER_COALESCED_MMIO, kvm_coalesced_mmio_zone),
	SET(KVM_UNREGISTER_COALESCED_MMIO, kvm_coalesced_mmio_zone),
	{ 0, KVM_SET_IDENTITY_MAP_ADDR, 8 }, SET(KVM_X86_SET_MSR_FILTER, kvm_msr_filter),
	SET(KVM_CREATE_DEVICE, kvm_create_device), { 0, KVM_MEMORY_ENCRYPT_OP, 8 },
};

static const struct shape vcpu_shapes[] = {
	PAIR(REGS, kvm_regs), PAIR(SREGS, kvm_sregs), PAIR(FPU, kvm_fpu), PAIR(XSAVE, kvm_xsave),
	PAIR(XCRS, kvm_xcrs), PAIR(DEBUGREGS, kvm_debugregs), PAIR(VCPU_EVENTS, kvm_vcpu_events),
	PAIR(MP_STATE, kvm_mp_state), PAIR(LAPIC, kvm_lapic_state),
	{ KVM_GET_SREGS2, KVM_SET_SREGS2, sizeof(struct kvm_sregs2) },
	{ KVM_GET_XSAVE2, KVM_SET_XSAVE, 8192 },
	SET(KVM_INTERRUPT, kvm_interrupt), SET(KVM_SET_GUEST_DEBUG, kvm_guest_debug),
	SET(KVM_TRANSLATE, kvm_translation), SET(KVM_TPR_ACCESS_REPORTING, kvm_tpr_access_ctl),
	SET(KVM_SET_VAPIC_ADDR, kvm_vapic_addr), { 0, KVM_X86_SETUP_MCE, 8 },
	SET(KVM_X86_SET_MCE, kvm_x86_mce), SET(KVM_ENABLE_CAP, kvm_enable_cap),
	{ 0, KVM_SET_SIGNAL_MASK, 12 },
	{ KVM_GET_DEVICE_ATTR, KVM_SET_DEVICE_ATTR, sizeof(struct kvm_device_attr) },
	{ FONDA_GET_FAILED_ENTRY, FONDA_BREAK_ENTRY, sizeof(struct fonda_failed_entry) },
};

static void throw_shape(int fd, const struct shape *s)
{
	if (!s->get || below(8) == 0)
		memset(buffer, below(3) ? 0 : 0xff, s->size);
	else
		call(fd, s->get, pointer(buffer));
	flip_bits(buffer, s->size);
	/* So does struct kvm_sregs2 have it. */
	if (s->set == KVM_SET_SREGS || s->set == KVM_SET_SREGS2)
		((struct kvm_sregs *)buffer)->efer &= efer_bits;
	if (s->set && below(4))
		call(fd, s->set, pointer(buffer));
}

/* -- calls that need more --------------------------------------------------- */

static void set_memory(int fd)
{
	struct kvm_userspace_memory_region region = {
		.slot = below(8) ? below(4) : fuzz_number(rng),
		.flags = below(4) ? below(4) & 3 : fuzz_number(rng),
		.guest_phys_addr = (uint64_t)below(8) * 0x80000,
		.memory_size = (uint64_t)below(5) * 0x40000,
		.userspace_addr = (uintptr_t)memory + below(4) * 0x40000,
	};

	if (!below(6))
		flip_bits(&region, sizeof(region));
	call(fd, KVM_SET_USER_MEMORY_REGION, pointer(&region));
}

/* What the guest is backed by goes away, comes back, changes. */
static void disturb_memory(void)
{
	uint8_t *at = memory + (below(MEMORY / 4096) & ~0xful) * 4096;
	size_t size = 4096u << below(6);

	if (at + size > memory + MEMORY)
		return;
	switch (below(5)) {
	case 0:
		madvise(at, size, MADV_DONTNEED);
		break;
	case 1:
		mprotect(at, size, below(2) ? PROT_READ : PROT_NONE);
		break;
	case 2:
		mmap(at, size, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		break;
	case 3:
		/* Not a hole: what is mapped next must not come to lie in it. */
		mmap(at, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		break;
	default:
		mmap(memory, MEMORY, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		memcpy(memory + GUEST_CODE, busy.start,
		       (const char *)busy.end - (const char *)busy.start);
	}
}

static void dirty_log(int fd)
{
	struct kvm_dirty_log get = { .slot = below(5), .dirty_bitmap = bitmap };
	struct kvm_clear_dirty_log clear = {
		.slot = below(5), .num_pages = below(3) ? 64 : fuzz_number(rng),
		.first_page = below(4) * 64, .dirty_bitmap = bitmap,
	};

	call(fd, KVM_GET_DIRTY_LOG, pointer(&get));
	call(fd, KVM_CLEAR_DIRTY_LOG, pointer(&clear));
	call(fd, KVM_RESET_DIRTY_RINGS, 0);
}

static void routing(int fd)
{
	struct kvm_irq_routing *table = (void *)buffer;
	unsigned int i;

	memset(table, 0, sizeof(*table) + 16 * sizeof(table->entries[0]));
	table->nr = below(16);
	for (i = 0; i < table->nr; i++) {
		table->entries[i].gsi = below(3) ? below(24) : fuzz_number(rng);
		table->entries[i].type = below(4);
		if (table->entries[i].type == KVM_IRQ_ROUTING_MSI) {
			table->entries[i].u.msi.address_lo = 0xfee00000 | below(4) << 12;
			table->entries[i].u.msi.data = fuzz_number(rng);
		} else {
			table->entries[i].u.irqchip.irqchip = below(4);
			table->entries[i].u.irqchip.pin = below(32);
		}
	}
	call(fd, KVM_SET_GSI_ROUTING, pointer(table));
}

static void event_fds(int fd)
{
	struct kvm_irqfd irqfd = {
		.fd = eventfds[below(EVENTFDS)], .gsi = below(8) ? below(24) : fuzz_number(rng),
		.flags = below(4), .resamplefd = eventfds[below(EVENTFDS)],
	};
	struct kvm_ioeventfd io = {
		.addr = below(2) ? 0x80 : 0xa0000 + below(4), .len = below(10) ? 1 << below(4) : 3,
		.fd = eventfds[below(EVENTFDS)], .flags = below(8), .datamatch = below(2),
	};
	uint64_t one = 1;

	call(fd, KVM_IRQFD, pointer(&irqfd));
	call(fd, KVM_IOEVENTFD, pointer(&io));
	if (write(eventfds[below(EVENTFDS)], &one, sizeof(one)) < 0 && errno != EAGAIN)
		tap_fail("eventfd: %s", strerror(errno));
}

static void set_cpuid(int fd)
{
	struct kvm_cpuid2 *table = (void *)buffer;

	table->nent = below(4) ? 100 : fuzz_number(rng);
	call(dev, KVM_GET_SUPPORTED_CPUID, pointer(table));
	if (table->nent < 200)
		flip_bits(table->entries, table->nent * sizeof(table->entries[0]) + 8);
	call(fd, KVM_SET_CPUID2, pointer(table));
	call(fd, KVM_GET_CPUID2, pointer(table));
}

static void msrs(int fd)
{
	static const uint32_t useful[] = {
		0x10, 0x11, 0x12, 0x1b, 0x3a, 0x3b, 0x8b, 0xfe, 0x10a, 0x174, 0x179, 0x17a, 0x1a0,
		0x1d9, 0x200, 0x250, 0x277, 0x2ff, 0x400, 0x47f, 0x6e0, 0x802, 0x80b, 0x830, 0x838,
		0xda0, 0x4b564d00, 0x4b564d01, 0x4b564d02, 0x4b564d03, 0x4b564d04, 0xc0000080,
		0xc0000081, 0xc0000100, 0xc0000102, 0xc0000103, 0xc0010015, 0xc001001f, 0xc0010140,
	};
	struct kvm_msrs *list = (void *)buffer;
	unsigned int i;

	list->nmsrs = below(8) ? 1 + below(4) : fuzz_number(rng);
	list->pad = 0;
	for (i = 0; i < 4; i++)
		list->entries[i] = (struct kvm_msr_entry){
			.index = below(8) ? useful[below(ARRAY_SIZE(useful))] : fuzz_number(rng),
		};
	call(fd, KVM_GET_MSRS, pointer(list));
	for (i = 0; i < 4; i++) {
		flip_bits(&list->entries[i].data, 8);
		if (list->entries[i].index == MSR_EFER)
			list->entries[i].data &= efer_bits;
	}
	call(fd, KVM_SET_MSRS, pointer(list));
}

/* What the kernel shares with user space is anyone's to write. */
static void scribble(struct kvm_run *run)
{
	if (!run)
		return;
	switch (below(5)) {
	case 0:	 run->immediate_exit = below(2); break;
	case 1:	 run->request_interrupt_window = below(2); break;
	case 2:	 run->cr8 = fuzz_number(rng); break;
	case 3:	 run->kvm_dirty_regs = below(16); run->kvm_valid_regs = below(16); break;
	default: ((uint64_t *)run)[below(run_size / 8)] = fuzz_number(rng); break;
	}
}

static void run(int fd)
{
	unsigned int first = fuzz_ticks, n;

	fuzz_set_period(timer, TICK_NS);
	for (n = 0; n < 8 && fuzz_ticks - first < 2; n++) {
		if (!call(fd, KVM_RUN, below(100) ? 0 : fuzz_number(rng)))
			__atomic_add_fetch(&runs, 1, __ATOMIC_RELAXED);
		else if (errno != EINTR && errno != EAGAIN)
			break;
	}
	fuzz_set_period(timer, 0);
}

/* Registers with which the busy loop runs. */
static void make_runnable(int fd)
{
	struct kvm_mp_state state = { KVM_MP_STATE_RUNNABLE };
	struct kvm_regs regs = { .rip = GUEST_CODE, .rflags = 2, .rsp = GUEST_STACK16 };
	struct kvm_sregs sregs;

	if (call(fd, KVM_GET_SREGS, (unsigned long)&sregs))
		return;
	sregs.cs.base = sregs.cs.selector = 0;
	call(fd, KVM_SET_SREGS, (unsigned long)&sregs);
	call(fd, KVM_SET_REGS, (unsigned long)&regs);
	call(fd, KVM_SET_MP_STATE, (unsigned long)&state);
}

/* -- objects ---------------------------------------------------------------- */

static void create_vm(struct vm *vm)
{
	int none = -1, fd = call(dev, KVM_CREATE_VM, below(20) ? 0 : fuzz_number(rng));

	if (fd < 0)
		return;
	if (!atomic_compare_exchange_strong(&vm->fd, &none, fd)) {
		close(fd);
		return;
	}
	set_memory(fd);
	if (below(4))
		call(fd, KVM_CREATE_IRQCHIP, 0);
	if (below(2))
		throw_shape(fd, &(struct shape)SET(KVM_CREATE_PIT2, kvm_pit_config));
}

static void create_vcpu(struct vm *vm, unsigned int i)
{
	int none = -1, fd;
	void *map;

	fd = call(vm->fd, KVM_CREATE_VCPU, below(10) ? i : fuzz_number(rng));
	if (fd < 0)
		return;
	if (!atomic_compare_exchange_strong(&vm->vcpu[i], &none, fd)) {
		close(fd);
		return;
	}
	map = mmap(NULL, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map != MAP_FAILED)
		vm->run[i] = map;	/* never unmapped: the other thread may use it */
	make_runnable(fd);
}

static void close_fd(atomic_int *fd)
{
	int old = atomic_exchange(fd, -1);

	if (old >= 0)
		close(old);
}

static void step(void)
{
	struct vm *vm = &vms[below(VMS)];
	unsigned int i = below(VCPUS);
	int fd = vm->fd, vcpu = vm->vcpu[i];

	if (fd < 0)
		return create_vm(vm);
	switch (below(100)) {
	case 0:
		return close_fd(&vm->fd);
	case 1:
		return close_fd(&vm->vcpu[i]);
	case 2 ... 5:
		return set_memory(fd);
	case 6 ... 9:
		return disturb_memory();
	case 10 ... 12:
		return dirty_log(fd);
	case 13 ... 15:
		return routing(fd);
	case 16 ... 19:
		return event_fds(fd);
	case 20:
		call(below(2) ? fd : dev, KVM_CHECK_EXTENSION, fuzz_number(rng));
		return;
	case 21:
		close(call(below(2) ? fd : vcpu, KVM_GET_STATS_FD, 0));
		return;
	case 22:
		/* Any number of ours, on any of the files. */
		call(below(2) ? fd : vcpu, _IOC(below(4), KVMIO, below(256), below(1024)),
		     pointer(buffer));
		return;
	case 23 ... 40:
		return throw_shape(fd, &vm_shapes[below(ARRAY_SIZE(vm_shapes))]);
	}
	if (vcpu < 0)
		return create_vcpu(vm, i);
	switch (below(16)) {
	case 0:
		return set_cpuid(vcpu);
	case 1 ... 2:
		return msrs(vcpu);
	case 3:
		return make_runnable(vcpu);
	case 4 ... 5:
		return scribble(vm->run[i]);
	case 6:
		call(vcpu, below(2) ? KVM_NMI : KVM_KVMCLOCK_CTRL, 0);
		return;
	case 7 ... 9:
		return run(vcpu);
	default:
		return throw_shape(vcpu, &vcpu_shapes[below(ARRAY_SIZE(vcpu_shapes))]);
	}
}

static void *thread(void *arg)
{
	struct rng mine = rng_create(1 + (uintptr_t)arg);
	unsigned int i, steps = fuzz_steps(STEPS);

	rng = &mine;
	timer = fuzz_timer();
	for (i = 0; i < steps; i++)
		step();
	return NULL;
}

TEST_TIMEOUT(any_ioctls_leave_the_kernel_as_it_was, 3600)
{
	pthread_t threads[THREADS];
	struct tvm t;
	int i, j;

	dev = tvm_open();
	/* QEMU does not survive guests with LME but not PAE: see the bed's README. */
	efer_bits = tvm_in_tcg() ? ~0x100ull : ~0ull;
	run_size = tvm_run_size(dev);
	memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(memory, MAP_FAILED);
	memcpy(memory + GUEST_CODE, busy.start, (const char *)busy.end - (const char *)busy.start);
	bitmap = mmap(NULL, 2 * BITMAP, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(bitmap, MAP_FAILED);
	ASSERT_OK(mprotect(bitmap + BITMAP, BITMAP, PROT_NONE));
	for (i = 0; i < EVENTFDS; i++) {
		eventfds[i] = eventfd(0, EFD_NONBLOCK);
		ASSERT_OK(eventfds[i]);
	}
	for (i = 0; i < VMS; i++) {
		vms[i].fd = -1;
		for (j = 0; j < VCPUS; j++)
			vms[i].vcpu[j] = -1;
	}
	for (i = 0; i < THREADS; i++)
		ASSERT_EQ(pthread_create(&threads[i], NULL, thread, (void *)(uintptr_t)i), 0);
	for (i = 0; i < THREADS; i++)
		ASSERT_EQ(pthread_join(threads[i], NULL), 0);
	tap_diag("%lu calls, %lu succeeded, %lu exits", calls, succeeded, runs);
	EXPECT_GT(succeeded, calls / 10);
	EXPECT_GT(runs, 10);

	tvm_init(&t, &busy);
	EXPECT_EQ(tvm_run(&t), KVM_EXIT_IO);
	EXPECT_EQ(t.run->io.port, 0x61);
	tvm_fini(&t);
}
