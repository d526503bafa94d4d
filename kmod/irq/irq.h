/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Interrupt controllers: the 8259A pair, the IOAPIC, the 8254, the local APIC,
 * and the tables that connect them. The files in irq/ are pure: they see this
 * header and types.h only, and compile on the host as well. irqchip.c, apic.c
 * and eventfd.c tie them to the VM, the vCPU, the I/O buses and ioctls.
 *
 * A message is a destination and the low half of an ICR. Redirection entries
 * and MSI data number their bits alike: vector 7:0, APIC_DM_* 10:8,
 * APIC_DEST_LOGICAL, APIC_INT_ASSERT, APIC_INT_LEVELTRIG.
 *
 * Interrupts are raised from any context, with interrupts off or in a timer's
 * hard interrupt, so nothing here sleeps unless it says so. chip->lock is a
 * leaf lock: delivery to a local APIC happens under it and takes none.
 *
 * Legend of the fields: (c) set at creation, constant afterwards; (k) under
 * chip->lock; (l) under vm->lock; (v) the vCPU's own thread; (a) atomic, by
 * anyone.
 */
#ifndef FONDA_IRQ_H
#define FONDA_IRQ_H

#include <linux/cleanup.h>
#include <linux/hrtimer.h>
#include <linux/kvm.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>
#include <linux/spinlock.h>
#include <asm/apicdef.h>

#include "../types.h"

#define FONDA_MAX_VCPU_ID	1024
#define FONDA_MAX_GSI		4096	/* what KVM_CAP_IRQ_ROUTING answers */
#define FONDA_IOAPIC_PINS	KVM_IOAPIC_NUM_PINS
#define FONDA_PIC_PINS		16
#define FONDA_NR_PINS		(FONDA_PIC_PINS + FONDA_IOAPIC_PINS)
#define FONDA_IOAPIC_BASE	0xfec00000ULL

/* Who holds a line: a pin is high while any of them holds it. */
enum fonda_irq_source {
	FONDA_IRQ_USER,		/* KVM_IRQ_LINE, irqfd */
	FONDA_IRQ_RESAMPLE,	/* irqfd with KVM_IRQFD_FLAG_RESAMPLE */
	FONDA_IRQ_PIT,
};

/* What becomes of a line. A message is sent by its rise. */
enum fonda_line { FONDA_LINE_LOW, FONDA_LINE_HIGH, FONDA_LINE_PULSE };

enum fonda_irqchip_mode {
	FONDA_IRQCHIP_NONE,	/* all of it in user space */
	FONDA_IRQCHIP_KERNEL,	/* PIC, IOAPIC, local APICs; perhaps the PIT */
	FONDA_IRQCHIP_SPLIT,	/* local APICs here, the rest in user space */
};

/* pic.c: the pair of 8259A. All (k). */
struct fonda_pic {
	struct kvm_pic_state chip[2];	/* 0 master, 1 slave on its line 2 */
	bool output;			/* INT of the master; read by anyone */
	u16 offered;			/* lines behind what pic_offer() gave */
	u16 again;			/* of those: another edge has come since */
	u16 acked;			/* lines whose service ended: see pic_take_acked() */
};

void pic_init(struct fonda_pic *pic);
/* 1 delivered, 0 merged with one that waits, negative: masked. */
int pic_set_line(struct fonda_pic *pic, unsigned int pin, bool high);
/* Ports 20, 21, a0, a1, 4d0, 4d1. */
void pic_access(struct fonda_pic *pic, u16 port, u8 *val, bool write);
/* The vector that an INTA cycle would give now. */
u8 pic_peek(struct fonda_pic *pic);
/*
 * The same, and a processor may take it any time from now on, of which
 * pic_settle() tells. Edges that come meanwhile are new ones.
 */
u8 pic_offer(struct fonda_pic *pic);
void pic_settle(struct fonda_pic *pic, u8 vector, bool taken);
void pic_set_state(struct fonda_pic *pic, int nr, const struct kvm_pic_state *state);

static inline u16 pic_take_acked(struct fonda_pic *pic)
{
	u16 acked = pic->acked;

	pic->acked = 0;
	return acked;
}

/* pit.c: 8254. All (k). */
struct fonda_pit {
	struct kvm_pit_state2 state;
	u64 gate_fell_ns;		/* of channel 2; the others' are high */
	bool exists;			/* (l) set once; acquire before a look at the rest */
	bool reinject;			/* ticks wait for the acknowledge of the last */
	bool in_flight;			/* a tick has not been acknowledged */
	u32 pending;			/* ticks that wait, without that in flight */
	bool timer_on;			/* channel 0's; cleared by a one shot's tick */
	u64 period_ns;			/* of channel 0; 0: one shot */
	struct hrtimer timer;
};

void pit_init(struct fonda_pit *pit);
/* Ports 40-43, 61. */
void pit_access(struct fonda_pit *pit, u16 port, u8 *val, bool write);
/* The last tick's interrupt has been acknowledged. */
void pit_acked(struct fonda_pit *pit);
/* Forget what waits for an acknowledge: the guest has unmasked the pin. */
void pit_restart_reinject(struct fonda_pit *pit);
void pit_set_state(struct fonda_pit *pit, const struct kvm_pit_state2 *state);
enum hrtimer_restart pit_timer_fn(struct hrtimer *timer);	/* takes chip->lock */

/* lapic.c: the local APIC. Bits of events: */
#define FONDA_LAPIC_INIT	(1 << 0)
#define FONDA_LAPIC_SIPI	(1 << 1)	/* sipi_vector is valid */

struct fonda_lapic {
	struct fonda_irqchip *chip;	/* (c) */
	s16 isr_top;			/* (v) highest vector in service, or -1 */
	s16 map_id;			/* (k) by which messages find it, or -1 */
	bool x2apic;			/* (v) mode, from base */
	bool enabled;			/* (v) from base: bit 11 */
	bool sw_enabled;		/* (v) from the spurious vector register */
	bool published;			/* (l) messages may find it */
	bool offered_ext;		/* (v) what fonda_irq_offer() gave is an ExtINT */
	u8 esr;				/* (a) errors since ESR was written */
	u8 eoi_vector;			/* (v) of FONDA_REQ_IOAPIC_EOI */
	u8 sipi_vector;
	unsigned long events;		/* (a) FONDA_LAPIC_INIT, _SIPI */
	u64 base;			/* (v) IA32_APIC_BASE */
	u32 id;				/* (c) what x2APIC mode calls it */
	/*
	 * The registers by offset / 16; (v), but LVTs are read by anyone. Among
	 * them are three times 256 bits, one a vector.
	 */
	union {
		u32 regs[KVM_APIC_REG_SIZE / 16];
		struct {
			u32 below[APIC_ISR / 16];
			unsigned long isr[256 / BITS_PER_LONG];	/* (v) */
			unsigned long tmr[256 / BITS_PER_LONG];	/* (a) */
			unsigned long irr[256 / BITS_PER_LONG];	/* (a) */
		};
	};

	u64 pv_eoi;			/* (v) MSR_KVM_PV_EOI_EN as written */
	bool pv_eoi_offered;		/* (v) its word says that EOI may be left out */
	u64 tsc_deadline;		/* (v), read by the timer; 0: none */
	bool watches;			/* (v) the backend will see when the next one set is due */
	bool watched;			/* (v) it does so of tsc_deadline: the timer is off */
	u64 timer_tsc;			/* (a) the timer's expiry is this deadline's */
	u64 period_ns;			/* (v) of one count-down; 0: it does not count */
	struct hrtimer timer;
};

void lapic_init(struct fonda_lapic *apic, struct fonda_irqchip *chip, u32 id, bool bsp);
/* LINT0 passes ExtINT where @lint0, as firmware sets it up on the first processor. */
void lapic_reset(struct fonda_lapic *apic, bool init, bool lint0);
/*
 * MMIO at @offset into the page; always done, as hardware ignores or answers
 * zero for what is not there. The vCPU's own thread; may be atomic.
 */
int lapic_access(struct fonda_lapic *apic, u32 offset, int len, void *data, bool write);
/* x2APIC registers, 0x800-0x8ff. 0, or 1: the guest gets #GP. */
int lapic_read_x2(struct fonda_lapic *apic, u32 msr, u64 *val);
int lapic_write_x2(struct fonda_lapic *apic, u32 msr, u64 val);
/* IA32_APIC_BASE after reserved bits were checked. A @host may set any mode. */
int lapic_set_base(struct fonda_lapic *apic, u64 val, bool host);
u64 lapic_get_deadline(struct fonda_lapic *apic);
void lapic_set_deadline(struct fonda_lapic *apic, u64 guest_tsc);
/* The guest's TSC has jumped: the deadline is at another time now. */
void lapic_tsc_changed(struct fonda_lapic *apic);
/* KVM_GET_LAPIC, KVM_SET_LAPIC; -EINVAL: an id that is not this APIC's. */
void lapic_get_state(struct fonda_lapic *apic, struct kvm_lapic_state *state);
int lapic_set_state(struct fonda_lapic *apic, const struct kvm_lapic_state *state);
/* Any context. 1 accepted, 0 merged with one that waits, -1 refused. */
int lapic_accept(struct fonda_lapic *apic, u32 icr);
bool lapic_matches(struct fonda_lapic *apic, u32 dest, bool logical);
/* Highest of 256 bits that is set, or -1. Others only set bits meanwhile. */
static __always_inline int lapic_highest(const unsigned long *bits)
{
	/* Not a loop: every entry may ask. */
	if (READ_ONCE(bits[3]))
		return 192 + __fls(READ_ONCE(bits[3]));
	if (READ_ONCE(bits[2]))
		return 128 + __fls(READ_ONCE(bits[2]));
	if (READ_ONCE(bits[1]))
		return 64 + __fls(READ_ONCE(bits[1]));
	return READ_ONCE(bits[0]) ? __fls(READ_ONCE(bits[0])) : -1;
}

/*
 * The highest vector that waits in IRR and that priorities let through; or -1; or
 * LAPIC_TPR_BLOCKED, when only the task priority holds it back.
 */
#define LAPIC_TPR_BLOCKED	-2
static __always_inline int lapic_peek(const struct fonda_lapic *apic)
{
	int vector;

	if (unlikely(!apic->enabled))
		return -1;
	vector = lapic_highest(apic->irr);
	/* A whole class is held back; -1, nothing in service, stays -1. */
	if (vector <= (apic->isr_top | 0xf))
		return -1;
	return vector > (int)(apic->regs[APIC_TASKPRI / 16] | 0xf) ? vector : LAPIC_TPR_BLOCKED;
}

void lapic_recheck(struct fonda_lapic *apic);	/* own thread: something may pass now */
/*
 * One that was taken out of IRR is settled: into ISR, or back. In between the
 * processor may have taken it without our knowing yet, and one more of it is a
 * new interrupt.
 */
static inline void lapic_settle(struct fonda_lapic *apic, u8 vector, bool taken)
{
	if (likely(taken)) {
		__set_bit(vector, apic->isr);
		/* Only a higher one can interrupt the one in service. */
		apic->isr_top = vector;
	} else {
		set_bit(vector, apic->irr);
		lapic_recheck(apic);
	}
}

/* What a write to EOI does. */
void lapic_eoi(struct fonda_lapic *apic);
/* Nothing is in service or waits, and the end of @vector concerns nobody else. */
bool lapic_eoi_is_private(const struct fonda_lapic *apic, u8 vector);
enum hrtimer_restart lapic_timer_fn(struct hrtimer *timer);
/* Will LINT0 pass on what an 8259A asks for? */
bool lapic_accepts_extint(struct fonda_lapic *apic);

/* The task priority class: what CR8 holds. */
static inline u8 lapic_get_tpr(const struct fonda_lapic *apic)
{
	return (apic->regs[APIC_TASKPRI / 16] >> 4) & 0xf;
}

static inline void lapic_set_tpr(struct fonda_lapic *apic, u8 cr8)
{
	apic->regs[APIC_TASKPRI / 16] = cr8 << 4;
}

/* By which messages find it. An id above 255 is its own in either mode. */
static inline u32 lapic_id(const struct fonda_lapic *apic)
{
	return apic->x2apic || apic->id > 0xff ? apic->id : apic->regs[APIC_ID / 16] >> 24;
}

static inline bool lapic_is_bsp(const struct fonda_lapic *apic)
{
	return apic->base & BIT(8);
}

/* Guest physical address of the register page, whether or not it is there. */
static inline gpa_t lapic_gpa(const struct fonda_lapic *apic)
{
	return apic->base & 0xffffffffff000ULL;
}

static inline bool lapic_has_page(const struct fonda_lapic *apic)
{
	return apic->enabled && !apic->x2apic;
}

/* A routing table: route.c. */
struct fonda_routes {
	struct rcu_head rcu;
	u32 nr;
	u32 mask;		/* buckets - 1 */
	u16 *bucket;		/* behind the entries: index + 1; 0: empty */
	u16 gsi[FONDA_NR_PINS];	/* GSI + 1 of each pin, the PIC's first; 0: none */
	/*
	 * pad: how far back the next in the chain is; 0: none. u.irqchip.pin:
	 * counted from the PIC's first one on, as chip->lines.
	 */
	struct kvm_irq_routing_entry entry[];
};

/* Several local APICs claim this id: look at all of them. */
#define FONDA_APIC_SHARED	((struct fonda_lapic *)1)

/* vm->irqchip. */
struct fonda_irqchip {
	raw_spinlock_t lock;		/* PIC, IOAPIC, PIT state, by_id */
	int mode;			/* (l) enum fonda_irqchip_mode; read by anyone */
	u32 bsp_id;			/* (l) vCPU id of the boot processor */
	u32 timer_ns;			/* (l) a count of the local APICs' timers, undivided */
	bool x2apic_format;		/* (l) KVM_X2APIC_API_USE_32BIT_IDS */
	bool x2apic_no_broadcast_quirk;	/* (l) */
	struct fonda_routes __rcu *routes;
	/* Vectors whose EOI the IOAPIC wants to know of whatever their trigger mode. */
	unsigned long eoi_vectors[256 / BITS_PER_LONG];	/* (k), read by anyone */
	/* Who holds each pin, the PIC's first: bits of enum fonda_irq_source. (k) */
	u8 lines[FONDA_NR_PINS];
	struct fonda_pic pic;
	struct kvm_ioapic_state ioapic;	/* (k); irr: pins that are high */
	struct fonda_pit pit;
	/* (a) By APIC id: NULL, or FONDA_APIC_SHARED. vCPUs live as long as the VM. */
	struct fonda_lapic *by_id[FONDA_MAX_VCPU_ID];
};

/* ioapic.c: the 82093AA. With chip->lock held. */
void ioapic_init(struct fonda_irqchip *chip);
/* Local APICs reached; 0 merged with one that waits; -1 masked. */
int ioapic_set_line(struct fonda_irqchip *chip, unsigned int pin, bool high);
void ioapic_access(struct fonda_irqchip *chip, u32 offset, int len, void *data, bool write);
/*
 * A local APIC has announced the end of @vector: which pins does that concern?
 * Whoever waits for their EOI is told before ioapic_eoi(), which makes those
 * that are still high interrupt again.
 */
u32 ioapic_eoi_pins(struct fonda_irqchip *chip, u8 vector);	/* needs no lock */
void ioapic_eoi(struct fonda_irqchip *chip, u32 pins);
void ioapic_get_state(struct fonda_irqchip *chip, struct kvm_ioapic_state *state);
void ioapic_set_state(struct fonda_irqchip *chip, const struct kvm_ioapic_state *state);

/*
 * route.c: where messages and GSIs go. How many local APICs took it (0: all had
 * it waiting already), -1: nobody is there. For an IPI @dest is the ICR's; from
 * a device it is what fonda_device_dest() makes of it.
 */
int fonda_irq_deliver(struct fonda_irqchip *chip, u32 dest, u32 icr);
int fonda_msi_deliver(struct fonda_irqchip *chip, u64 address, u32 data);
/* @apic is known by its present id, and by no other. */
void fonda_apic_map_update(struct fonda_lapic *apic);

/* Devices know 8 bits of an id. To them 255 means everybody, unless user space
 * has said that it may be the id of an x2APIC. */
static inline u32 fonda_device_dest(const struct fonda_irqchip *chip, u32 dest)
{
	return dest == 0xff && !chip->x2apic_no_broadcast_quirk ? ~0u : dest;
}

/* 0, or -EINVAL: bits that no message can have. */
static inline int fonda_msi_check(const struct fonda_irqchip *chip, u64 address)
{
	return chip->x2apic_format && address & 0xff00000000ULL ? -EINVAL : 0;
}

/*
 * A table for @nr entries, which the caller fills in. fonda_routes_set() puts it
 * in force, or frees it and returns -EINVAL; -ENOMEM for NULL.
 */
struct fonda_routes *fonda_routes_alloc(u32 nr);
int fonda_routes_set(struct fonda_irqchip *chip, struct fonda_routes *routes);
/* As CREATE_IRQCHIP leaves it: GSI 0-15 to both chips, 16-23 to the IOAPIC. */
struct fonda_routes *fonda_routes_default(void);
/* GSI that leads to @pin, counted from the PIC's first, or -1. */
int fonda_routes_gsi(struct fonda_irqchip *chip, unsigned int pin);
/*
 * Drive @gsi for @source. Sum of what its routes answer, as KVM_IRQ_LINE_STATUS
 * gives it: negative: masked or connected to nothing, 0: merged with one that
 * waits.
 */
int fonda_gsi_set(struct fonda_irqchip *chip, int source, u32 gsi, enum fonda_line line);
int fonda_gsi_set_locked(struct fonda_irqchip *chip, int source, u32 gsi, enum fonda_line line);

/*
 * What the pure files need from outside; irqchip.c, apic.c and clock.c have it, unit
 * tests stub it.
 */
/* CLOCK_MONOTONIC time at which the guest's TSC is @guest_tsc; 0: it is past. */
u64 lapic_deadline_ns(struct fonda_lapic *apic, u64 guest_tsc);
void lapic_raise(struct fonda_lapic *apic);	/* something waits in IRR */
void lapic_send_event(struct fonda_lapic *apic);	/* INIT or SIPI arrived */
void lapic_send_nmi(struct fonda_lapic *apic);
/* A level-triggered, or waited for, vector has ended. */
void lapic_eoi_broadcast(struct fonda_lapic *apic, u8 vector);
/* Iterate over all local APICs; NULL at the end. */
struct fonda_lapic *fonda_lapic_by_index(struct fonda_irqchip *chip, int index);
void fonda_pic_output(struct fonda_irqchip *chip);	/* INT has risen; (k) held */
u64 fonda_timer_min_ns(void);	/* no periodic timer is faster */

/*
 * irqchip.c, for apic.c: interrupts of @pins, as chip->lines counts them, have come
 * to their end. chip->lock is not held.
 */
void fonda_pins_acked(struct fonda_irqchip *chip, u64 pins);

/*
 * irqchip.c and apic.c: for the core.
 */
void fonda_irq_init(struct fonda_vm *vm);
/* No interrupt comes from here any more; after fonda_eventfds_release(). */
void fonda_irq_fini(struct fonda_vm *vm);
/*
 * Sets up the local APIC where the VM has them, and vcpu->in_kernel_apic and
 * ext_irq. Needs vcpu->vm and id; under vm->lock. The APIC can be addressed
 * once it is published, which is done with the vCPU in vm->vcpus.
 */
void fonda_lapic_create(struct fonda_vcpu *vcpu);
/* Power-up or INIT. */
void fonda_lapic_reset(struct fonda_vcpu *vcpu, bool init);

/*
 * Only when vcpu->irq_pending: the vector to offer to the guest now, -1 or
 * LAPIC_TPR_BLOCKED. Clears irq_pending unless it is worth asking again before
 * something else happens. vcpu->lapic.offered_ext says that the vector is an ExtINT, to
 * which priorities do not apply. Each offer is settled before the next
 * question: did the guest take it, or not?
 */
int fonda_irq_offer(struct fonda_vcpu *vcpu);
/* By way of fonda_settle_offer(). */
void fonda_irq_settle(struct fonda_vcpu *vcpu, int vector, bool taken);
/* Would fonda_irq_offer() have one? */
bool fonda_irq_waits(struct fonda_vcpu *vcpu);
bool fonda_extint_waits(struct fonda_vcpu *vcpu);	/* and it would be an ExtINT */
/* Would the guest take an ExtINT, were one asked for? */
bool fonda_irq_accepts_extint(struct fonda_vcpu *vcpu);
/* The vCPU obeys the INIT and SIPI that have arrived. In its thread. */
void fonda_accept_apic_events(struct fonda_vcpu *vcpu);
/*
 * FONDA_REQ_PV_EOI, after an exit from a guest that may leave out EOIs: has it?
 * Raises the request when it must be asked where it may sleep.
 */
void fonda_settle_pv_eoi(struct fonda_vcpu *vcpu);
/* Hypercalls; what they return to the guest. */
long fonda_hc_send_ipi(struct fonda_vcpu *vcpu, bool long_mode);
long fonda_hc_kick_cpu(struct fonda_vcpu *vcpu, u32 apic_id);

/*
 * IA32_APIC_BASE, 0x800-0x8ff and IA32_TSC_DEADLINE: 0, or 1: #GP. Never sleep.
 * Called by the guest's own RDMSR and WRMSR (@host false), or for an ioctl.
 */
int fonda_lapic_read_msr(struct fonda_vcpu *vcpu, u32 msr, u64 *val);
int fonda_lapic_write_msr(struct fonda_vcpu *vcpu, u32 msr, u64 val, bool host);

/* Under vm->lock. -EINVAL, -EEXIST, -ENOMEM. */
int fonda_irqchip_enable_split(struct fonda_vm *vm, u64 nr_pins);

/*
 * ioctls. @arg is a copy of the structure in the kernel, but of the routing
 * table, whose user address it is. It is not looked at by create_irqchip.
 */
fonda_vm_handler fonda_vm_create_irqchip, fonda_vm_irqchip_state, fonda_vm_create_pit2,
		 fonda_vm_pit_state, fonda_vm_irq_line, fonda_vm_set_gsi_routing,
		 fonda_vm_signal_msi, fonda_vm_irqfd, fonda_vm_ioeventfd,
		 fonda_vm_set_boot_cpu_id;
fonda_vcpu_handler fonda_vcpu_lapic_state, fonda_vcpu_interrupt;

/* eventfd.c: vm->eventfds. */
struct fonda_eventfds {
	struct mutex lock;
	struct list_head irqfds;	/* under lock, read under RCU */
};

/* Ends every irqfd and ioeventfd; may sleep. */
void fonda_eventfds_release(struct fonda_vm *vm);
/* An interrupt of @gsi has been acknowledged. Any context. */
void fonda_irqfd_acked(struct fonda_vm *vm, int gsi);

#endif
