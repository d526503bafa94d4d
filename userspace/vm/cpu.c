// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Creates vCPUs, brings them into the state that a boot protocol wants, and
 * serves their exits.
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../util/util.h"
#include "cpu.h"
#include "explain.h"
#include "cpuid.h"

#define KICK_SIGNAL	SIGUSR1
#define STACK_SIZE	(128 * KIB)

#define CR0_PE		BIT(0)
#define CR0_ET		BIT(4)
#define CR0_NE		BIT(5)
#define CR0_PG		BIT(31)
#define CR4_PAE		BIT(5)
#define EFER_LME	BIT(8)
#define EFER_LMA	BIT(10)
#define RFLAGS_FIXED	BIT(1)
#define PTE_PRESENT	BIT(0)
#define PTE_WRITE	BIT(1)
#define PTE_LARGE	BIT(7)

#define MSR_MISC_ENABLE		0x1a0
#define MISC_FAST_STRINGS	BIT(0)
#define MSR_MTRR_DEFAULT	0x2ff
#define MTRR_ENABLE_WRITEBACK	0x806	/* on, without fixed ranges, WB */

#define LAPIC_SVR	0xf0
#define SVR_ENABLE	0x1ff		/* on, spurious vector 255 */
#define LAPIC_LINT0	0x350
#define LAPIC_LINT1	0x360
#define LVT_EXTINT	0x700
#define LVT_NMI		0x400

/* For the signal handler, which has to know whose thread it interrupts. */
static __thread struct kvm_run *current_run;

/*
 * The signal may come just before KVM_RUN: then immediate_exit makes it
 * return at once.
 */
static void kicked(int sig)
{
	(void)sig;
	if (current_run)
		current_run->immediate_exit = 1;
}

void vcpu_init_signals(void)
{
	struct sigaction sa = { .sa_handler = kicked };

	sigaction(KICK_SIGNAL, &sa, NULL);
}

static int vcpu_fail(const struct vcpu *vcpu, const char *what)
{
	int err = errno;

	return fail(err, "vCPU %u: %s failed: %s", vcpu->id, what, strerror(err));
}

static int set_cpuid(struct vcpu *vcpu, unsigned int cpus)
{
	struct kvm_cpuid2 *cpuid = cpuid_supported(vcpu->kvm);
	int ret = 0;

	if (!cpuid)
		return -ENOMEM;
	cpuid_set_topology(cpuid, vcpu->kvm, vcpu->id, cpus);
	if (ioctl(vcpu->fd, KVM_SET_CPUID2, cpuid))
		ret = vcpu_fail(vcpu, "KVM_SET_CPUID2");
	free(cpuid);
	return ret;
}

/* What firmware leaves in model-specific registers. */
static const struct kvm_msr_entry firmware_msrs[] = {
	{ .index = MSR_MISC_ENABLE, .data = MISC_FAST_STRINGS },
	{ .index = MSR_MTRR_DEFAULT, .data = MTRR_ENABLE_WRITEBACK },
};

static int set_msrs(struct vcpu *vcpu)
{
	union {
		struct kvm_msrs msrs;
		uint8_t room[sizeof(struct kvm_msrs) + sizeof(firmware_msrs)];
	} u = { .msrs.nmsrs = ARRAY_SIZE(firmware_msrs) };
	int done;

	memcpy(u.msrs.entries, firmware_msrs, sizeof(firmware_msrs));
	done = ioctl(vcpu->fd, KVM_SET_MSRS, &u.msrs);
	if (done < 0)
		return vcpu_fail(vcpu, "KVM_SET_MSRS");
	if (done < (int)ARRAY_SIZE(firmware_msrs))
		return fail(ENOTSUP, "vCPU %u: %s does not have MSR %#x", vcpu->id,
			    vcpu->kvm->path, firmware_msrs[done].index);
	return 0;
}

/* Virtual wire mode: the PIC behind LINT0, as firmware leaves it on a PC. */
static int set_lapic(struct vcpu *vcpu)
{
	struct kvm_lapic_state lapic;

	if (ioctl(vcpu->fd, KVM_GET_LAPIC, &lapic))
		return vcpu_fail(vcpu, "KVM_GET_LAPIC");
	store32(lapic.regs + LAPIC_SVR, SVR_ENABLE);
	store32(lapic.regs + LAPIC_LINT0, LVT_EXTINT);
	store32(lapic.regs + LAPIC_LINT1, LVT_NMI);
	if (ioctl(vcpu->fd, KVM_SET_LAPIC, &lapic))
		return vcpu_fail(vcpu, "KVM_SET_LAPIC");
	return 0;
}

int vcpu_init(struct vcpu *vcpu, unsigned int id, unsigned int cpus,
	      const struct kvm *kvm, const struct ram *ram, struct bus *bus,
	      struct loop *loop)
{
	int ret;

	memset(vcpu, 0, sizeof(*vcpu));
	vcpu->id = id;
	vcpu->kvm = kvm;
	vcpu->ram = ram;
	vcpu->bus = bus;
	vcpu->loop = loop;
	vcpu->fd = ioctl(kvm->vm_fd, KVM_CREATE_VCPU, (unsigned long)id);
	if (vcpu->fd < 0)
		return vcpu_fail(vcpu, "KVM_CREATE_VCPU");
	vcpu->run = mmap(NULL, (size_t)kvm->run_size, PROT_READ | PROT_WRITE,
			 MAP_SHARED, vcpu->fd, 0);
	if (vcpu->run == MAP_FAILED) {
		ret = vcpu_fail(vcpu, "mmap");
		goto out_close;
	}
	ret = set_cpuid(vcpu, cpus);
	if (!ret)
		ret = set_msrs(vcpu);
	if (!ret && id == 0)
		ret = set_lapic(vcpu);
	if (!ret)
		return 0;

	munmap(vcpu->run, (size_t)kvm->run_size);
out_close:
	close(vcpu->fd);
	return ret;
}

void vcpu_fini(struct vcpu *vcpu)
{
	munmap(vcpu->run, (size_t)vcpu->kvm->run_size);
	close(vcpu->fd);
}

/* The first 4 GiB onto themselves: four pages of 2 MiB entries. */
static int write_page_tables(const struct ram *ram)
{
	uint64_t *pml4 = ram_ptr(ram, MEMORY_PAGE_TABLES, 6 * 4096);
	uint64_t *pdpt = pml4 + 512, *pd = pdpt + 512;
	unsigned int i;

	if (!pml4)
		return -EFAULT;
	pml4[0] = (MEMORY_PAGE_TABLES + 0x1000) | PTE_PRESENT | PTE_WRITE;
	for (i = 0; i < 4; i++)
		pdpt[i] = (MEMORY_PAGE_TABLES + 0x2000 + i * 0x1000ULL) |
			  PTE_PRESENT | PTE_WRITE;
	for (i = 0; i < 4 * 512; i++)
		pd[i] = i * 2 * MIB | PTE_PRESENT | PTE_WRITE | PTE_LARGE;
	return 0;
}

/* Selectors as the Linux boot protocol names them: 0x10 code, 0x18 data. */
static int write_gdt(const struct ram *ram, bool long_mode)
{
	uint64_t gdt[] = {
		0, 0,
		long_mode ? 0x00af9b000000ffffULL : 0x00cf9b000000ffffULL,
		0x00cf93000000ffffULL,
		0x00008b0000000067ULL,		/* a task state, never used */
	};

	return ram_write(ram, MEMORY_GDT, gdt, sizeof(gdt));
}

static void set_segments(struct kvm_sregs *sregs, bool long_mode)
{
	struct kvm_segment code = {
		.limit = 0xffffffff, .selector = 0x10, .type = 0xb, .present = 1,
		.s = 1, .g = 1, .l = long_mode, .db = !long_mode,
	};
	struct kvm_segment data = {
		.limit = 0xffffffff, .selector = 0x18, .type = 0x3, .present = 1,
		.s = 1, .g = 1, .db = 1,
	};

	sregs->cs = code;
	sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = data;
	sregs->tr = (struct kvm_segment){
		.limit = 0x67, .selector = 0x20, .type = 0xb, .present = 1,
	};
	sregs->ldt = (struct kvm_segment){ .type = 0x2, .unusable = 1 };
	sregs->gdt = (struct kvm_dtable){ .base = MEMORY_GDT, .limit = 5 * 8 - 1 };
	sregs->idt = (struct kvm_dtable){ .base = 0, .limit = 0 };
}

int vcpu_set_entry(struct vcpu *vcpu, const struct boot_entry *entry)
{
	bool long_mode = entry->mode == BOOT_LONG_MODE;
	struct kvm_regs regs = { .rip = entry->rip, .rflags = RFLAGS_FIXED };
	struct kvm_sregs sregs;
	int ret;

	if (ioctl(vcpu->fd, KVM_GET_SREGS, &sregs))
		return vcpu_fail(vcpu, "KVM_GET_SREGS");
	set_segments(&sregs, long_mode);
	ret = write_gdt(vcpu->ram, long_mode);
	if (ret)
		return ret;
	sregs.cr0 = CR0_PE | CR0_ET | CR0_NE;
	if (long_mode) {
		ret = write_page_tables(vcpu->ram);
		if (ret)
			return ret;
		sregs.cr3 = MEMORY_PAGE_TABLES;
		sregs.cr4 = CR4_PAE;
		sregs.cr0 |= CR0_PG;
		sregs.efer |= EFER_LME | EFER_LMA;
		regs.rsi = entry->info;
	} else {
		regs.rbx = entry->info;
	}
	if (ioctl(vcpu->fd, KVM_SET_SREGS, &sregs))
		return vcpu_fail(vcpu, "KVM_SET_SREGS");
	if (ioctl(vcpu->fd, KVM_SET_REGS, &regs))
		return vcpu_fail(vcpu, "KVM_SET_REGS");
	return 0;
}

/*
 * Handlers of exits: 0, or a negative errno if the vCPU cannot go on, after a
 * sentence that says why.
 */
static int exit_io(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;
	unsigned int i;

	for (i = 0; i < run->io.count; i++, data += run->io.size)
		bus_access(&vcpu->bus->pio, run->io.port, data, run->io.size,
			   run->io.direction == KVM_EXIT_IO_OUT);
	return 0;
}

static int exit_mmio(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;

	bus_access(&vcpu->bus->mmio, run->mmio.phys_addr, run->mmio.data,
		   run->mmio.len, run->mmio.is_write);
	return 0;
}

static int exit_nothing(struct vcpu *vcpu)
{
	(void)vcpu;
	return 0;
}

static int exit_shutdown(struct vcpu *vcpu)
{
	return fail(EIO, "vCPU %u: triple fault: the guest could not handle an exception",
		    vcpu->id);
}

/* What the module kept of it; stock KVM keeps nothing. */
static void explain_failed_entry(struct vcpu *vcpu)
{
	struct fonda_failed_entry e;
	char path[PATH_MAX];
	int ret;

	if (ioctl(vcpu->fd, FONDA_GET_FAILED_ENTRY, &e) < 0)
		return;
	explain_print(&e, stderr);
	ret = explain_save(&e, path, sizeof(path));
	if (ret)
		fail(-ret, "the record of the failed entry could not be kept");
	else
		fprintf(stderr, "'fonda explain %s' says so again; keep the file for a report.\n",
			path);
}

static int exit_fail_entry(struct vcpu *vcpu)
{
	explain_failed_entry(vcpu);
	return fail(EIO, "vCPU %u: the processor refused to enter the guest (reason %#llx on CPU %u)",
		    vcpu->id,
		    (unsigned long long)vcpu->run->fail_entry.hardware_entry_failure_reason,
		    vcpu->run->fail_entry.cpu);
}

static int exit_internal_error(struct vcpu *vcpu)
{
	static const char * const why[] = {
		[KVM_INTERNAL_ERROR_EMULATION] = "an instruction could not be emulated",
		[KVM_INTERNAL_ERROR_SIMUL_EX] = "exceptions at the same time",
		[KVM_INTERNAL_ERROR_DELIVERY_EV] = "an event could not be delivered",
		[KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON] = "an unexpected exit",
	};
	const struct kvm_run *run = vcpu->run;
	uint32_t sub = run->internal.suberror;
	unsigned int i;

	warn("vCPU %u: internal error %u of %s: %s", vcpu->id, sub, vcpu->kvm->path,
	     sub < ARRAY_SIZE(why) && why[sub] ? why[sub] : "of an unknown kind");
	for (i = 0; i < run->internal.ndata && i < ARRAY_SIZE(run->internal.data); i++)
		fprintf(stderr, "  data[%u] %#llx\n", i,
			(unsigned long long)run->internal.data[i]);
	return -EIO;
}

static const struct {
	const char *name;
	int (*handle)(struct vcpu *vcpu);
} exits[VCPU_EXITS] = {
	[KVM_EXIT_IO]			= { "io", exit_io },
	[KVM_EXIT_MMIO]			= { "mmio", exit_mmio },
	[KVM_EXIT_INTR]			= { "signal", exit_nothing },
	[KVM_EXIT_IRQ_WINDOW_OPEN]	= { "irq-window", exit_nothing },
	[KVM_EXIT_SHUTDOWN]		= { "shutdown", exit_shutdown },
	[KVM_EXIT_FAIL_ENTRY]		= { "fail-entry", exit_fail_entry },
	[KVM_EXIT_INTERNAL_ERROR]	= { "internal-error", exit_internal_error },
};

const char *vcpu_exit_name(unsigned int reason)
{
	return reason < VCPU_EXITS && exits[reason].name ? exits[reason].name : "other";
}

static int handle_exit(struct vcpu *vcpu)
{
	uint32_t reason = vcpu->run->exit_reason;

	if (reason >= VCPU_EXITS || !exits[reason].handle)
		return fail(EIO, "vCPU %u: %s ended with the unknown exit reason %u",
			    vcpu->id, vcpu->kvm->path, reason);
	vcpu->exits[reason]++;
	return exits[reason].handle(vcpu);
}

/* Runs until somebody wants something of the thread. 0 or a negative errno. */
static int run_once(struct vcpu *vcpu)
{
	if (!ioctl(vcpu->fd, KVM_RUN, 0))
		return handle_exit(vcpu);
	switch (errno) {
	case EINTR:		/* a kick */
	case EAGAIN:		/* a processor has been started: run it again */
		vcpu->exits[KVM_EXIT_INTR]++;
		return 0;
	default:
		return vcpu_fail(vcpu, "KVM_RUN");
	}
}

static void *thread(void *arg)
{
	struct vcpu *vcpu = arg;
	sigset_t kick;

	current_run = vcpu->run;
	sigemptyset(&kick);
	sigaddset(&kick, KICK_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &kick, NULL);
	for (;;) {
		/* Cleared first: a kick after this comes with its signal. */
		vcpu->run->immediate_exit = 0;
		if (__atomic_load_n(&vcpu->quit, __ATOMIC_ACQUIRE))
			break;
		if (__atomic_exchange_n(&vcpu->show, false, __ATOMIC_ACQ_REL))
			vcpu_dump(vcpu);
		if (run_once(vcpu)) {
			vcpu_dump(vcpu);
			loop_stop(vcpu->loop, STOP_CRASH);
			break;
		}
	}
	current_run = NULL;
	return NULL;
}

int vcpu_start(struct vcpu *vcpu)
{
	pthread_attr_t attr;
	sigset_t all, old;
	int ret;

	/* Signals to the process are the I/O thread's, a crash is everybody's. */
	sigfillset(&all);
	sigdelset(&all, SIGSEGV);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGILL);
	sigdelset(&all, SIGFPE);
	sigdelset(&all, SIGABRT);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	ret = pthread_create(&vcpu->thread, &attr, thread, vcpu);
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (ret)
		return fail(ret, "vCPU %u: cannot start a thread: %s", vcpu->id, strerror(ret));
	vcpu->running = true;
	return 0;
}

void vcpu_stop(struct vcpu *vcpu)
{
	if (!vcpu->running)
		return;
	__atomic_store_n(&vcpu->quit, true, __ATOMIC_RELEASE);
	pthread_kill(vcpu->thread, KICK_SIGNAL);
	pthread_join(vcpu->thread, NULL);
	vcpu->running = false;
}

void vcpu_show(struct vcpu *vcpu)
{
	__atomic_store_n(&vcpu->show, true, __ATOMIC_RELEASE);
	pthread_kill(vcpu->thread, KICK_SIGNAL);
}
