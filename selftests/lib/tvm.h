/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A tiny virtual machine for tests: opens the device under test ($FONDA_DEV,
 * /dev/fonda by default), gives the guest memory with the layout of guest.h,
 * puts its vCPUs straight into 16, 32 or 64-bit mode at the guest's code, and
 * runs them. Whatever fails on the way ends the running test; a guest that is
 * still running when the test is nearly out of time ends it too, with a word
 * about where it is. What a test is about it does with plain ioctls.
 */
#ifndef SELFTESTS_TVM_H
#define SELFTESTS_TVM_H

#include <linux/kvm.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>

#include "guest.h"
#include "tap.h"

#define TVM_IRQCHIP	0x1	/* PIC, IOAPIC and local APICs in the kernel */
#define TVM_PIT		0x2
#define TVM_WAIT_SIPI	0x4	/* vCPUs but the first await INIT and SIPI */
#define TVM_NO_CPUID	0x8	/* leave CPUID empty */

struct tvm_vcpu {
	int fd;
	struct kvm_run *run;
	pthread_t thread;
	atomic_int tid;		/* of the thread inside KVM_RUN, or 0 */
	atomic_bool stop;	/* tvm_stop() was called */
	atomic_bool done;	/* the guest said GUEST_DONE() */
	struct tvm *vm;
	unsigned int index;
};

struct tvm {
	int dev;
	int fd;
	int cpu;		/* fd and run of vCPU 0: most tests have one */
	struct kvm_run *run;
	uint8_t *ram;		/* guest-physical 0 to GUEST_RAM_SIZE */
	uint64_t pool;		/* next free page for tvm_map() */
	unsigned int nr_vcpus;
	unsigned int next_slot;
	struct tvm_vcpu vcpu[GUEST_MAX_VCPUS];
};

const char *tvm_dev_path(void);
/* True on the reference device, where a test may meet its known defects. */
bool tvm_is_stock(void);
/* True where the processor is QEMU's emulation, which does not check all. */
bool tvm_in_tcg(void);
/* True in the bed's other emulator. */
bool tvm_in_bochs(void);
/* True where it has VT-x, and this parameter of the module is on. */
bool tvm_vmx_parameter(const char *name);
/* True where the processor virtualizes local APICs in x2APIC mode. */
bool tvm_has_apicv(void);
int tvm_open(void);
size_t tvm_run_size(int dev);
/* The supported CPUID table; the caller frees it. */
struct kvm_cpuid2 *tvm_supported_cpuid(int dev);
/* An entry of the supported table, or NULL; lives as long as the program. */
const struct kvm_cpuid_entry2 *tvm_cpuid(uint32_t leaf, uint32_t index);

/* One vCPU and no interrupt controller: HLT is an exit. */
void tvm_init(struct tvm *t, const struct guest_code *code);
/* All vCPUs start at the same code, where guest_cpu()->id tells them apart. */
void tvm_init_smp(struct tvm *t, const struct guest_code *code,
		  unsigned int flags, unsigned int nr_vcpus);
/* The machine and its memory without vCPUs or image. */
void tvm_init_bare(struct tvm *t, unsigned int flags);
void tvm_add_vcpu(struct tvm *t, unsigned int flags);
void tvm_fini(struct tvm *t);

/* Registers as at the entry of code. The image is copied anew for C guests. */
void tvm_set_code(struct tvm *t, unsigned int i, const struct guest_code *code);

/* A memory slot; KVM_SET_USER_MEMORY_REGION must accept it. */
void tvm_set_slot(struct tvm *t, unsigned int slot, unsigned int flags,
		  uint64_t gpa, uint64_t size, const void *host);
int tvm_try_slot(struct tvm *t, unsigned int slot, unsigned int flags,
		 uint64_t gpa, uint64_t size, const void *host);

/* Page-table entries of a 64-bit guest: maps one 4 KiB page at gva. */
#define TVM_PTE_P	0x1ull
#define TVM_PTE_W	0x2ull
#define TVM_PTE_U	0x4ull
#define TVM_PTE_NX	(1ull << 63)
uint64_t *tvm_map(struct tvm *t, uint64_t gva, uint64_t gpa, uint64_t bits);

/* Guest memory and the guest's copy of a variable of this program. */
#define tvm_ptr(_t, _gpa)	((void *)((_t)->ram + (uint64_t)(_gpa)))
#define G(_t, _var)	(*(__typeof__(_var) *)tvm_ptr(_t, (uintptr_t)&(_var)))

struct kvm_regs tvm_regs(struct tvm *t, unsigned int i);
struct kvm_sregs tvm_sregs(struct tvm *t, unsigned int i);
void tvm_set_regs(struct tvm *t, unsigned int i, const struct kvm_regs *regs);
void tvm_set_sregs(struct tvm *t, unsigned int i, const struct kvm_sregs *sregs);
uint64_t tvm_msr(struct tvm *t, unsigned int i, uint32_t msr);
/* KVM_SET_MSRS of one entry: 1 when accepted, 0 when not. */
int tvm_set_msr(struct tvm *t, unsigned int i, uint32_t msr, uint64_t val);
struct kvm_lapic_state tvm_lapic(struct tvm *t, unsigned int i);
uint32_t tvm_lapic_reg(struct tvm *t, unsigned int i, unsigned int reg);
/* A counter of vCPU 0, of those that KVM_GET_STATS_FD gives. */
uint64_t tvm_counter(struct tvm *t, const char *name);

/* Runs until an exit and returns its reason; a signal is no exit. */
int tvm_run_vcpu(struct tvm *t, unsigned int i);
int tvm_run(struct tvm *t);
uint8_t *tvm_io_data(struct tvm *t);

/*
 * Runs a C guest until it reports: TVM_DONE, or the argument of GUEST_SYNC().
 * A failed check of the guest fails the test, and so does any other exit.
 */
#define TVM_DONE	UINT64_MAX
uint64_t tvm_go_vcpu(struct tvm *t, unsigned int i);
uint64_t tvm_go(struct tvm *t);
/* What the report in a KVM_EXIT_IO says; *is_report false for other exits. */
uint64_t tvm_report(struct tvm *t, unsigned int i, bool *is_report);

/* A thread that runs the vCPU until it is done or tvm_stop()ped. */
void tvm_start(struct tvm *t, unsigned int i);
void tvm_join(struct tvm *t, unsigned int i);
void tvm_stop(struct tvm *t, unsigned int i);
void tvm_start_all(struct tvm *t);
void tvm_join_all(struct tvm *t);
/* Interrupts the KVM_RUN that vCPU i is in, if any, by a signal. */
void tvm_kick(struct tvm *t, unsigned int i);

/* Waits for another thread or vCPU; the timeout is the test's. */
#define TVM_AWAIT(_c)							\
	do {								\
		while (!(_c))						\
			sched_yield();					\
	} while (0)

void tvm_irq_line(struct tvm *t, unsigned int gsi, int level);
/* GSI n to IOAPIC pin n (n < 24) and to the PIC, as after CREATE_IRQCHIP. */
#define TVM_MSI_ADDR(_dest)	(0xfee00000u | (uint32_t)(_dest) << 12)
int tvm_signal_msi(struct tvm *t, uint32_t addr, uint32_t data);

#endif /* SELFTESTS_TVM_H */
