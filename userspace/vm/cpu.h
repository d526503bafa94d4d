/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A virtual CPU and the thread that runs it.
 */
#ifndef VM_CPU_H
#define VM_CPU_H

#include <pthread.h>

#include "../dev/bus.h"
#include "../dev/ram.h"
#include "../util/kvm.h"
#include "../util/loop.h"
#include "boot.h"

#define VCPU_EXITS	40		/* exit reasons that are counted */

struct vcpu {
	unsigned int id;
	int fd;
	struct kvm_run *run;		/* shared with the kernel */
	const struct kvm *kvm;
	const struct ram *ram;
	struct bus *bus;
	struct loop *loop;
	pthread_t thread;
	bool running;			/* there is a thread to join */
	bool quit;			/* (a) the thread shall end */
	bool show;			/* (a) the thread shall print its state */
	uint64_t exits[VCPU_EXITS];	/* by reason; the thread's own */
};

/* Process-wide: the signal that makes vCPU threads look up. Call it once. */
void vcpu_init_signals(void);

/* Creates vCPU @id of @cpus in its state after reset. 0 or a negative errno. */
int vcpu_init(struct vcpu *vcpu, unsigned int id, unsigned int cpus,
	      const struct kvm *kvm, const struct ram *ram, struct bus *bus,
	      struct loop *loop);
void vcpu_fini(struct vcpu *vcpu);

/* Makes this the processor that enters the kernel. */
int vcpu_set_entry(struct vcpu *vcpu, const struct boot_entry *entry);

/* Starts the thread; stops and joins it. */
int vcpu_start(struct vcpu *vcpu);
void vcpu_stop(struct vcpu *vcpu);

/* Asks the thread to print the registers. */
void vcpu_show(struct vcpu *vcpu);

/* The name of a KVM_EXIT_ reason in lower case. */
const char *vcpu_exit_name(unsigned int reason);

/* In the vCPU's thread: registers and the code at the instruction pointer. */
void vcpu_dump(struct vcpu *vcpu);

#endif /* VM_CPU_H */
