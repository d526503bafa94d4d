/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The objects of fonda.ko and every prototype that generic code shares: the
 * VM, the vCPU, the memory slots, the I/O buses. Vendor code sees this file
 * and backend.h; what a vendor must offer is in backend.h.
 *
 * Locking order, outermost first:
 *
 *   vcpu->mutex          one ioctl at a time on a vCPU; held all through KVM_RUN
 *   vm->lock             creation of vCPUs and devices, configuration of the VM
 *   vm->slots_lock       writers of the memory slots, dirty-log ioctls
 *   vm->srcu (read)      users of memory slots and I/O buses
 *   mmap_lock            taken by get_user_pages, never while a lock below is held
 *   mmu->lock            second-stage tables (rwlock: faults read, zaps write)
 *   vm->irqchip.lock     PIC, IOAPIC, PIT state (raw spinlock, interrupts off)
 *
 * vcpu->mutex of two vCPUs is never held at once, except by VM-wide ioctls
 * that stop all vCPUs, in index order. The GSI routing table is read under RCU
 * and replaced as a whole.
 *
 * Legend of the fields: (c) set at creation, constant afterwards; (m) under
 * the vCPU's mutex; (l) under vm->lock; (s) under slots_lock, read under SRCU;
 * (a) atomic or READ_ONCE/WRITE_ONCE by anyone.
 */
#ifndef FONDA_H
#define FONDA_H

#include <linux/cpumask.h>
#include <linux/debugfs.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/rcuwait.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/srcu.h>
#include <linux/uaccess.h>
#include <asm/cpufeature.h>
#include <asm/debugreg.h>
#include <asm/trapnr.h>
#include <uapi/linux/fonda.h>

#include "compat.h"
#include "mmu.h"
#include "emulate.h"
#include "irq/irq.h"
#include "state.h"

#define FONDA_MAX_VCPUS		1024
#define FONDA_MAX_BUS_DEVS	1000

/* kvm_run, the port data, the coalesced ring: one page each. */
#define FONDA_PIO_PAGE		1
#define FONDA_RING_PAGE		2
#define FONDA_RUN_PAGES		3

/*
 * What a handler of an exit, or of work before an entry, answers; a negative
 * errno ends KVM_RUN with that error.
 */
#define FONDA_EXIT_USER		0	/* vcpu->run is filled in */
#define FONDA_RESUME_GUEST	1
/*
 * The handler was called with preemption off (vcpu->atomic) and must sleep. It
 * has changed nothing and will be called again where it may.
 */
#define FONDA_RETRY_SLEEPING	2
/* Only from fonda_mmu_fault(): no memory there, or read-only; emulate. */
#define FONDA_FAULT_MMIO	3
/* Done, but the section must end: the vCPU is halted. */
#define FONDA_LEAVE_SECTION	4

/* Bits of vcpu->requests: work that the vCPU does before its next entry. */
enum fonda_request {
	FONDA_REQ_TLB_FLUSH,	/* forget cached second-stage translations */
	FONDA_REQ_APIC_EVENT,	/* INIT or SIPI arrived at the local APIC */
	FONDA_REQ_CLOCK,	/* rewrite the guest's kvmclock page */
	FONDA_REQ_TRIPLE_FAULT,	/* leave with KVM_EXIT_SHUTDOWN */
	FONDA_REQ_IOAPIC_EOI,	/* leave with KVM_EXIT_IOAPIC_EOI (split) */
	FONDA_REQ_PV_EOI,	/* has the guest left out an EOI? */
	FONDA_REQ_UNLOAD,	/* leave the section: slots or filters changed */
	FONDA_REQ_DIRTY_FULL,	/* leave with KVM_EXIT_DIRTY_RING_FULL */
	FONDA_REQ_CONTROLS,	/* the TSC offset has changed: update_controls */
};

/* vcpu->mode: where the vCPU is, for those who may have to interrupt it. */
enum fonda_vcpu_mode { FONDA_OUTSIDE, FONDA_IN_GUEST };

/* An exception waiting to be injected, or one whose delivery was cut short. */
struct fonda_exception {
	bool pending;
	bool injected;		/* delivery began and must be finished */
	bool has_error;
	bool has_payload;
	u8 vector;
	u32 error;
	u64 payload;		/* CR2 of a #PF, DR6 bits of a #DB */
};

/* One open-coded guest CPU register file; index is the hardware's number. */
enum fonda_gpr {
	FONDA_RAX, FONDA_RCX, FONDA_RDX, FONDA_RBX,
	FONDA_RSP, FONDA_RBP, FONDA_RSI, FONDA_RDI,
	FONDA_R8, FONDA_R9, FONDA_R10, FONDA_R11,
	FONDA_R12, FONDA_R13, FONDA_R14, FONDA_R15,
	FONDA_NR_GPRS
};

/* The guest's x87, SSE and AVX state, in our own XSAVE area (standard form). */
struct fonda_fpu {
	void *area;		/* (c) 64-byte aligned, fonda_xsave_size bytes */
	u64 xcr0;		/* (m) the guest's XCR0 */
};

/* What is counted: exits by class, and what else a vCPU does; then the cycles by class. */
enum fonda_stat {
	FONDA_STAT_INTERRUPT, FONDA_STAT_HALT, FONDA_STAT_PIO, FONDA_STAT_MMIO,
	FONDA_STAT_PAGE_FAULT, FONDA_STAT_MSR, FONDA_STAT_CPUID, FONDA_STAT_CR, FONDA_STAT_DR,
	FONDA_STAT_EXCEPTION, FONDA_STAT_NMI_WINDOW, FONDA_STAT_HYPERCALL, FONDA_STAT_CACHE,
	FONDA_STAT_PAUSE, FONDA_STAT_OTHER, FONDA_NR_STAT_EXITS,
	FONDA_STAT_USER_EXITS = FONDA_NR_STAT_EXITS,
	FONDA_STAT_HALT_POLLS,	/* halts that ended while polling */
	FONDA_STAT_HALT_SLEEPS,
	FONDA_STAT_CYCLES,	/* of the host's TSC */
	FONDA_NR_STATS = FONDA_STAT_CYCLES + FONDA_NR_STAT_EXITS
};

/*
 * Written by the vCPU's thread alone, read by anyone; a reader may see one in the
 * middle of an exit, never a torn number.
 */
struct fonda_vcpu_stats {
	u64 count[FONDA_NR_STATS + 1];	/* enum fonda_stat; the last is void */
	u64 since;		/* TSC of the last exit */
	u8 last;		/* its class, while it is being handled, or FONDA_NR_STAT_EXITS */
};

/*
 * A port or MMIO range served in the kernel. Owned by whoever registers it;
 * access runs under vm->srcu, or with preemption off inside it, so it never
 * sleeps. @data is left alone by a write. 0: done; -EOPNOTSUPP: not mine after
 * all, look on.
 */
struct fonda_io_dev {
	int (*access)(struct fonda_vcpu *vcpu, struct fonda_io_dev *dev, gpa_t addr, int len,
		      void *data, bool write);
	gpa_t base;
	u32 len;		/* bytes; 0: an ioeventfd of any length at base */
	bool pio;		/* on the port bus */
	/* An ioeventfd, which has no access(): what a write at base signals. */
	bool wildcard;		/* any data does, else datamatch */
	u64 datamatch;
	struct eventfd_ctx *eventfd;
};

enum fonda_bus { FONDA_BUS_MMIO, FONDA_BUS_PIO, FONDA_NR_BUSES };

struct fonda_io_range {
	gpa_t base, reach;		/* the end of all up to this one */
	struct fonda_io_dev *dev;
	u64 pad;			/* an index is quicker to follow */
};

struct fonda_io_bus {
	int nr;
	u16 hint[16];			/* where searches have ended: any number below nr */
	/* Sorted by base, between one that reaches nothing and one that begins nowhere. */
	struct fonda_io_range range[];
};

struct fonda_vm {
	struct mm_struct *mm;		/* (c) the creator's; mmgrab'ed */
	refcount_t users;		/* the VM fd, each vCPU fd */
	struct mutex lock;
	struct mutex slots_lock;
	struct srcu_struct srcu;
	atomic_t synchronizing;		/* how many wait in fonda_vm_synchronize() */
	struct mmu_notifier notifier;

	struct fonda_mmu mmu;		/* second-stage tables: mmu.h */
	struct fonda_memslots __rcu *slots;	/* (s) */

	struct fonda_io_bus __rcu *buses[FONDA_NR_BUSES];	/* (s) */
	struct kvm_coalesced_mmio_ring *ring;	/* the first vCPU's third page */
	spinlock_t ring_lock;

	struct fonda_vcpu *vcpus[FONDA_MAX_VCPUS];	/* (l), filled once */
	int nr_vcpus;				/* (l) (a) release after filling */

	/* Interrupt controllers: irq/irq.h. */
	struct fonda_irqchip irqchip;
	struct fonda_eventfds eventfds;

	struct fonda_clock clock;		/* kvmclock, TSC: state.h */
	struct kvm_msr_filter __rcu *msr_filter;	/* (s) bitmaps of our own */

	/* Capabilities that KVM_ENABLE_CAP switched on. (l) */
	u64 user_msr_mask;		/* KVM_MSR_EXIT_REASON_* */
	u64 disabled_quirks;
	u64 disabled_exits;		/* KVM_X86_DISABLE_EXITS_* */
	u32 max_vcpu_id;		/* 0: FONDA_MAX_VCPU_ID */
	u64 hide_platform_info, exception_payload, triple_fault_event;	/* zero or not */
	u64 exit_on_emulation_failure;
	u64 dirty_log_flags;		/* KVM_DIRTY_LOG_* */
	u32 dirty_ring_entries;		/* of each vCPU; 0: no rings */

	bool bugged;			/* (a) a bug of fonda's: every KVM_RUN fails */
	struct dentry *debugfs;
	char name[28];			/* debugfs directory: pid-fd */
	struct list_head list;		/* fonda_vms: main.c's */
};

#define FONDA_WORK_IRQ	1
#define FONDA_MAX_UNDEFINED	8

struct fonda_vcpu {
	/* Touched on every entry and exit. */
	unsigned long regs[FONDA_NR_GPRS];	/* (m) valid outside the guest */
	unsigned long rip;
	unsigned long rflags;
	unsigned long requests;		/* (a) bits of enum fonda_request */
	/* What most entries have nothing of, to be looked at together. */
	union {
		struct {
			bool irq_pending;	/* (a) the interrupt controllers hold something */
			bool event_pending;	/* (a) an exception or NMI to inject */
			bool want_window;	/* (m) leave when an interrupt could be taken */
			bool backend_work;	/* (m) something of the backend's own */
		};
		u32 entry_work;		/* FONDA_WORK_IRQ: the first and none of the others */
	};
	int mode;			/* (a) enum fonda_vcpu_mode */
	int cpu;			/* the CPU of the section, else the last one */
	bool atomic;			/* inside a section: preemption is off */
	u8 int_shadow;			/* (m) of an STI or MOV SS just executed; backend's bits */
	int srcu_idx;			/* (m) */
	struct task_struct *thread;	/* (a) of who is inside vm->srcu, or NULL */
	bool in_kernel_apic;		/* (c) */
	bool switch_spec_ctrl;		/* (m) around entries: the host's differs */
	bool flush;			/* (m) forget cached translations before the next entry */
	u8 insn_len;			/* (m) bytes of the instruction that exited */
	struct fonda_vm *vm;		/* (c) holds a reference */
	struct kvm_run *run;		/* (c) shared with user space: hostile */
	u8 *pio_data;			/* (c) second page of the mapping */

	struct fonda_lapic lapic;
	struct fonda_exception exception;	/* (m) */
	atomic_t nmi_queued;		/* (a) 0..2, moved to nmi_pending on entry */
	u8 nmi_pending;			/* (m) 0..2 */
	bool nmi_injected;		/* (m) delivery was cut short */
	bool nmi_masked;		/* (m) from an NMI to its IRET */
	int mp_state;			/* (m) KVM_MP_STATE_* */
	u8 nr_undefined;		/* (m) #UD met so far: fonda_exit_undefined() */
	bool pv_unhalted;		/* (a) KVM_HC_KICK_CPU: ends the next HLT */
	int ext_irq;			/* (m) vector from KVM_INTERRUPT, or -1 */

	struct mutex mutex;
	int id;				/* (c) what user space calls it; initial APIC id */
	int index;			/* (c) in vm->vcpus */
	struct rcuwait wait;		/* of a halted vCPU */
	sigset_t sigmask;
	bool sigmask_set;

	struct fonda_fpu fpu;
	struct fonda_cpuid cpuid;	/* (m) state.h */
	struct fonda_msrs msrs;		/* (m) state.h */
	struct fonda_vcpu_clock clock;	/* (m) state.h */
	struct fonda_code_page code_pages[FONDA_CODE_PAGES];	/* (m) fetch.c's own */
	struct fonda_mmu_cache mmu_cache;	/* (m) spare table pages: mmu.h */
	struct fonda_dirty_ring dirty_ring;	/* mmu.h */
	struct fonda_io io;		/* (m) an instruction that user space finishes */

	struct kvm_guest_debug debug;	/* (m) control is 0 without KVM_GUESTDBG_ENABLE */
	struct fonda_failed_entry *failed_entry;	/* (m) the last one, or NULL */
	u64 db[4];			/* (m) guest DR0-DR3 */
	u64 dr6, dr7;			/* (m) */
	/* Of the host, during a section: its breakpoints, if DR7 is not 0. */
	u64 host_dr7, host_db[4];	/* (m) */

	struct fonda_vcpu_stats stats;
	u64 halt_poll_ns;
};

/* Of what kvmalloc() gave, or NULL. */
DEFINE_FREE(fonda_kvfree, void *, kvfree(_T))

/* main.c */
extern const struct fonda_backend *fonda_backend;
/* The processor switches SPEC_CTRL by itself; set by the backend. */
extern bool fonda_spec_ctrl_by_processor;
/* The extension is on, here. Written by the CPU itself. */
DECLARE_PER_CPU(bool, fonda_cpu_enabled);
extern struct list_head fonda_vms;	/* changes under a lock of main.c's */
/* Turn the extensions on for the first VM, off after the last; -EBUSY. */
int fonda_hardware_get(struct fonda_vm *vm);
void fonda_hardware_put(struct fonda_vm *vm);
DECLARE_PER_CPU(u64, fonda_host_tsc_aux);	/* of a CPU with the extension on */

/* After a change of the guest's, and on another CPU. */
static inline void fonda_update_spec_ctrl(struct fonda_vcpu *vcpu)
{
	vcpu->switch_spec_ctrl = !fonda_spec_ctrl_by_processor &&
				 vcpu->msrs.spec_ctrl != fonda_host_spec_ctrl();
}

static inline void fonda_flush(struct fonda_vcpu *vcpu)
{
	vcpu->flush = true;
	vcpu->backend_work = true;
}

/* ioctl.c: the three tables; the file operations call these. */
long fonda_dev_ioctl(struct file *file, unsigned int cmd, unsigned long arg);
long fonda_vm_ioctl(struct file *file, unsigned int cmd, unsigned long arg);
long fonda_vcpu_ioctl(struct file *file, unsigned int cmd, unsigned long arg);

/* vm.c */
fonda_vcpu_handler fonda_dev_create_vm;
void fonda_vm_put(struct fonda_vm *vm);
/*
 * A file that holds @vm until its release puts it, and the descriptor to install
 * it under. NULL: @fd is the errno.
 */
struct file *fonda_vm_file(struct fonda_vm *vm, const char *name,
			   const struct file_operations *fops, void *data, int *fd);
/*
 * Raise @req on every vCPU (a negative one only interrupts them) and get those
 * out of the guest that are in it. With @wait it returns when every vCPU has
 * left the guest since, so it must not be called with interrupts off.
 */
void fonda_vm_kick_all(struct fonda_vm *vm, int req, bool wait);
/* After it returns no CPU uses a second-stage translation it had cached. */
#define fonda_vm_flush_tlbs(vm)	fonda_vm_kick_all(vm, FONDA_REQ_TLB_FLUSH, true)

#define fonda_for_each_vcpu(i, vcpu, vm)				\
	for ((i) = 0; (i) < smp_load_acquire(&(vm)->nr_vcpus) &&	\
	     ((vcpu) = (vm)->vcpus[i], true); (i)++)

/* vcpu.c */
fonda_vm_handler fonda_vm_create_vcpu;
fonda_vcpu_handler fonda_vcpu_set_guest_debug;
fonda_vcpu_handler fonda_vcpu_get_failed_entry, fonda_vcpu_break_entry;
void fonda_vcpu_destroy(struct fonda_vcpu *vcpu);
long fonda_vcpu_run(struct fonda_vcpu *vcpu);
/* Set a request; the caller kicks. */
static inline void fonda_request(struct fonda_vcpu *vcpu, int req)
{
	/* What the request refers to must be visible before the request is. */
	smp_mb__before_atomic();
	set_bit(req, &vcpu->requests);
}

/* From any context: wake the vCPU if it sleeps, interrupt it if it runs. */
void fonda_vcpu_kick(struct fonda_vcpu *vcpu);
/* HLT: the instruction has been skipped; sleep until there is work. */
int fonda_vcpu_halt(struct fonda_vcpu *vcpu);
/* KVM_NMI, and from any context: one more NMI for the guest (at most two are kept). */
long fonda_vcpu_nmi(struct fonda_vcpu *vcpu);
/* Of @nr NMIs wait two that come at once, or one behind the one that is being handled. */
static inline int fonda_cap_nmis(const struct fonda_vcpu *vcpu, int nr)
{
	return min(nr, vcpu->nmi_masked || vcpu->nmi_injected ? 1 : 2);
}

/* Back to power-up (@init false) or INIT state, the local APIC excepted. */
void fonda_vcpu_reset(struct fonda_vcpu *vcpu, bool init);
/* The guest spins: let another vCPU of the VM run, or the one with that id. May sleep. */
void fonda_vcpu_yield(struct fonda_vcpu *vcpu, s64 apic_id);
/* VMMCALL or VMCALL; a handler's answer. */
int fonda_hypercall(struct fonda_vcpu *vcpu, bool in_64bit_mode, int cpl);
bool fonda_in_64bit_mode(struct fonda_vcpu *vcpu);
/* KVM_EXIT_DEBUG, and that the processor refused to enter: handlers' answers. */
int fonda_exit_debug(struct fonda_vcpu *vcpu, u32 exception, u64 dr6, u64 dr7);
int fonda_exit_fail_entry(struct fonda_vcpu *vcpu, u64 reason);
int fonda_exit_internal_error(struct fonda_vcpu *vcpu, u32 suberror, const u64 *data, int ndata);
/* The same with the words of data for the last arguments. */
#define fonda_internal_error(vcpu, suberror, ...)				\
	fonda_exit_internal_error(vcpu, suberror, (const u64[]){ __VA_ARGS__ },	\
				  sizeof((const u64[]){ __VA_ARGS__ }) / sizeof(u64))

/* Exceptions: queued here, merged by the manual's rules, injected by the
 * backend on the next entry. Never for an event already being delivered. */
void fonda_queue(struct fonda_vcpu *vcpu, const struct fonda_exception *new);
#define fonda_queue_exception(vcpu, nr)	\
	fonda_queue(vcpu, &(struct fonda_exception){ .vector = (nr) })
#define fonda_queue_exception_error(vcpu, nr, code)	\
	fonda_queue(vcpu, &(struct fonda_exception){	\
		.vector = (nr), .has_error = true, .error = (code) })
/* #DB for @causes: bits of DR6, of which 11 and 16 are inverted. */
#define fonda_queue_debug(vcpu, causes)		\
	fonda_queue(vcpu, &(struct fonda_exception){	\
		.vector = X86_TRAP_DB, .has_payload = true, .payload = (causes) })
/*
 * The instruction that exited is done: move RIP past it, end the interrupt
 * shadow, raise the #DB of single stepping. FONDA_RESUME_GUEST,
 * FONDA_EXIT_USER (guest debugging) or FONDA_RETRY_SLEEPING as a handler's.
 */
int fonda_skip_insn_slowly(struct fonda_vcpu *vcpu, int len);

static inline int fonda_skip_insn(struct fonda_vcpu *vcpu, int len)
{
	unsigned long rip = vcpu->rip + len;

	vcpu->int_shadow = 0;
	if (unlikely((rip ^ vcpu->rip) >> 32 || vcpu->rflags & X86_EFLAGS_TF ||
		     vcpu->debug.control))
		return fonda_skip_insn_slowly(vcpu, len);
	vcpu->rip = rip;
	vcpu->rflags &= ~(unsigned long)X86_EFLAGS_RF;
	return FONDA_RESUME_GUEST;
}

/* io.c: the buses. Callers are inside vm->srcu. */
void fonda_io_fini(struct fonda_vm *vm);
int fonda_io_access(struct fonda_vcpu *vcpu, struct fonda_io_bus *bus, gpa_t addr, int len,
		    void *data, bool write);
#define fonda_bus(vcpu, nr)	srcu_dereference((vcpu)->vm->buses[nr], &(vcpu)->vm->srcu)
/*
 * Under slots_lock: @add and @remove, unless NULL. Afterwards nobody uses @remove
 * any more. -ENOSPC, -ENOMEM, both for @add only; -EEXIST is for callers to check
 * themselves.
 */
struct fonda_io_bus *fonda_io_bus(struct fonda_vm *vm, bool pio);	/* or NULL */
int fonda_io_replace(struct fonda_vm *vm, struct fonda_io_dev *add, struct fonda_io_dev *remove);
#define fonda_io_register(vm, dev)	fonda_io_replace(vm, dev, NULL)
#define fonda_io_unregister(vm, dev)	fonda_io_replace(vm, NULL, dev)
fonda_vm_handler fonda_vm_register_coalesced_mmio, fonda_vm_unregister_coalesced_mmio;

/*
 * Wait until nobody uses what @vm->srcu protected before the call; quick when
 * no vCPU is in KVM_RUN. Callers hold slots_lock or vm->lock.
 */
void fonda_vm_synchronize(struct fonda_vm *vm);

/* vcpu.c: the bracket around everything that uses slots or buses. Inside the
 * vCPU's thread only; released around sleeps of unbounded length. */
void fonda_slots_enter(struct fonda_vcpu *vcpu);
void fonda_slots_leave(struct fonda_vcpu *vcpu);

/*
 * mmio.c: the instruction that touched @gpa (FONDA_INVALID_GPA: it was not its
 * operand) for @access, where there is no memory for that; or an INS or OUTS of
 * @port_size bytes, to which the port is allowed. RIP has not moved.
 */
int fonda_emulate_insn(struct fonda_vcpu *vcpu, gpa_t gpa, u32 access, int port_size);
/* An IN or OUT of @size bytes, @insn_len bytes long. */
int fonda_pio(struct fonda_vcpu *vcpu, u16 port, int size, bool in, int insn_len);

/* fetch.c */
fonda_vcpu_handler fonda_vcpu_translate;
/*
 * The first four bytes of code at @rip in long mode, where that is quick: exits
 * come from few places, and these are remembered. 0: not this one.
 */
u32 fonda_peek_code(struct fonda_vcpu *vcpu, u64 root, gva_t rip);
static inline u64 fonda_code_root(u64 cr3, u64 cr4)
{
	return cr3 | (cr4 & X86_CR4_LA57) << (63 - X86_CR4_LA57_BIT);
}

/*
 * The bytes of code at linear address @rip: how many of FONDA_INSN_MAX there
 * are, -EAGAIN (answer FONDA_RETRY_SLEEPING), -ENOENT: not mapped any more.
 */
int fonda_fetch_code(struct fonda_vcpu *vcpu, const struct fonda_paging *p, gva_t rip, u8 *code);
/* Finish what user space was asked to do, before anything else in KVM_RUN:
 * FONDA_RESUME_GUEST, FONDA_EXIT_USER (more to ask), or an errno. */
int fonda_complete_user_io(struct fonda_vcpu *vcpu);

/* What KVM_SET_GUEST_DEBUG takes: KVM_CAP_SET_GUEST_DEBUG2. */
#define FONDA_GUEST_DEBUG	(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | \
				 KVM_GUESTDBG_USE_SW_BP | KVM_GUESTDBG_USE_HW_BP | \
				 KVM_GUESTDBG_INJECT_DB | KVM_GUESTDBG_INJECT_BP | \
				 KVM_GUESTDBG_BLOCKIRQ)

/* cpuid.c, msr.c, regs.c, clock.c: state.h. mmu.c, memslot.c: mmu.h. */

/* The quirks that KVM_CAP_DISABLE_QUIRKS2 can turn off. */
#define FONDA_QUIRKS	(KVM_X86_QUIRK_LINT0_REENABLED | KVM_X86_QUIRK_CD_NW_CLEARED | \
			 KVM_X86_QUIRK_LAPIC_MMIO_HOLE | KVM_X86_QUIRK_OUT_7E_INC_RIP | \
			 KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT | KVM_X86_QUIRK_FIX_HYPERCALL_INSN | \
			 KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS)

/* stats.c */
extern struct dentry *fonda_debugfs;	/* main.c's */
void fonda_stats_vm_init(struct fonda_vm *vm, int fd);
fonda_vm_handler fonda_vm_get_stats_fd;
fonda_vcpu_handler fonda_vcpu_get_stats_fd;

static inline void fonda_stats_exit(struct fonda_vcpu *vcpu, enum fonda_stat class)
{
	vcpu->stats.count[class]++;
	vcpu->stats.last = class;
	vcpu->stats.since = rdtsc();
}

/* A nested fault turned out to be an access to a device. */
static inline void fonda_stats_reclassify(struct fonda_vcpu *vcpu, enum fonda_stat class)
{
	struct fonda_vcpu_stats *stats = &vcpu->stats;

	/* Not the second time, after its handler had to sleep. */
	if (stats->last == class)
		return;
	stats->count[FONDA_STAT_PAGE_FAULT]--;
	stats->count[class]++;
	stats->last = class;
}

/* Before an entry, before user space, before a halted vCPU sleeps. */
static inline void fonda_stats_close(struct fonda_vcpu *vcpu)
{
	struct fonda_vcpu_stats *stats = &vcpu->stats;
	u64 cycles = rdtsc() - stats->since;

	/* Or the compiler adds in another order, with more instructions. */
	OPTIMIZER_HIDE_VAR(cycles);
	stats->count[FONDA_STAT_CYCLES + stats->last] += cycles;
	stats->last = FONDA_NR_STAT_EXITS;
}

#endif
