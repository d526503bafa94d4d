/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Architectural state beyond the general registers: CPUID, MSRs, the extended
 * (FPU) state, clocks. Included by fonda.h, whose objects embed the structures
 * here; the files behind it are cpuid.c, regs.c, fpu.c, msr.c and clock.c.
 */
#ifndef FONDA_STATE_H
#define FONDA_STATE_H

#include <linux/kvm_para.h>

/* Writes of an MSR, by the guest or by @host. */
typedef int fonda_msr_setter(struct fonda_vcpu *vcpu, u64 val, bool host);

/* All of this file: features of this machine. After hardware_setup(). */
void fonda_state_init(void);
/*
 * Everything in this file of a vCPU allocated zeroed, as after power-up; INIT
 * changes nothing of it. -ENOMEM.
 */
int fonda_state_vcpu_init(struct fonda_vcpu *vcpu);

/* -- CPUID: cpuid.c --------------------------------------------------------- */

#define FONDA_MAX_CPUID_ENTRIES	256

/*
 * Features are numbered as the kernel does, X86_FEATURE_*: a word of CPUID and
 * a bit. Two words follow the kernel's own: what KVM_CPUID_FEATURES offers, and
 * features that are made of others.
 */
#define FONDA_PV_WORD		NCAPINTS
#define FONDA_OWN_WORD		(NCAPINTS + 1)
#define FONDA_FEATURE_WORDS	(NCAPINTS + 2)
#define FONDA_PV_FEATURE(name)	(FONDA_PV_WORD * 32 + KVM_FEATURE_##name)

enum {
	FONDA_HAS_TSC_AUX = FONDA_OWN_WORD * 32,	/* RDTSCP or RDPID */
	FONDA_HAS_IBPB,		/* by either vendor's bit, as is this: */
	FONDA_HAS_SPEC_CTRL,
	FONDA_HAS_AMD_RULES,	/* it is, or the guest believes in, an AMD processor */
};

struct fonda_cpuid {
	/* As user space gave them; NULL before KVM_SET_CPUID2. */
	struct kvm_cpuid_entry2 *entries;
	u32 nr;
	struct kvm_cpuid_entry2 none;	/* the last answer that is not among them */
	/*
	 * By bits 31:30 and 4:0 of a leaf: its first entry, plus one. 0: there
	 * is none. Leaves with other bits set are looked for one by one.
	 */
	u16 first[4][32];
	/* Set: user space gave it to the guest, fonda and this machine have it. */
	u32 features[FONDA_FEATURE_WORDS];
	u64 cr4_reserved;	/* bits that the guest must not set */
	u64 efer_reserved;
	u64 xcr0;		/* bits that the guest may set */
	u32 spec_ctrl;		/* the same of SPEC_CTRL */
	u8 phys_bits;		/* MAXPHYADDR */
	bool enforce_pv;	/* no paravirtual feature that is not in the entries */
};

/* A load and a test. (A macro: struct fonda_vcpu comes later.) */
#define fonda_guest_has(vcpu, feature)	\
	(!!((vcpu)->cpuid.features[(feature) / 32] & (1U << (feature) % 32)))

/* What the CPUID instruction answers. Any context in the vCPU's thread. */
const struct kvm_cpuid_entry2 *fonda_cpuid(struct fonda_vcpu *vcpu, u32 leaf, u32 subleaf);
/*
 * The bits of CR4 and EFER that this processor has, whatever the kernel makes of
 * them. It may have more where CPUID describes features newer than these.
 */
extern u64 fonda_machine_cr4, fonda_machine_efer;
/* Does this machine have a feature that fonda offers? */
bool fonda_supported(u32 feature);
/* All that follows from the entries; without any, as if they had all on offer. */
void fonda_cpuid_update(struct fonda_cpuid *c);

fonda_vcpu_handler fonda_dev_get_cpuid, fonda_vcpu_set_cpuid, fonda_vcpu_get_cpuid2,
		   fonda_vcpu_enable_cap;

/* -- registers: regs.c ------------------------------------------------------ */

/*
 * MOV to CR0 and CR4 by the guest: 0, or 1 (#GP). They look at the other
 * control registers as the manuals' rules demand and change nothing.
 */
int fonda_check_cr0(struct fonda_vcpu *vcpu, u64 val);
int fonda_check_cr4(struct fonda_vcpu *vcpu, u64 val);

/* All that the backend has, to power-up (@init false) or INIT state. */
void fonda_sregs_reset(struct fonda_vcpu *vcpu, bool init);

/* Bits of DR6 that are 1 when nothing has happened, RTM (16) inverted. */
#define FONDA_DR6_INIT		0xffff0ff0ULL
#define FONDA_DR7_INIT		0x400ULL
#define FONDA_DR7_GD		(1ULL << 13)	/* general detect */

/* DR6 after a #DB with the causes @payload. ("Debug Status Register (DR6)") */
static inline u64 fonda_merge_dr6(u64 dr6, u64 payload)
{
	const u64 active_low = 1u << 16 | 1u << 11;

	/* Only the breakpoint bits are replaced; the others add up. */
	dr6 = (dr6 & ~0xfULL) | (payload & ~active_low);
	return (dr6 & ~(payload & active_low)) | (FONDA_DR6_INIT & ~active_low);
}

/*
 * For the backends' get_sregs and set_sregs.
 *
 * struct kvm_segment has a byte for each attribute. One multiplication moves
 * bits 7 to 11 (P, AVL, L, D/B, G) to their bytes, another brings them back, and
 * S with them: the factors are such that no two partial products share a bit. The
 * bytes are type, present, dpl, db, s, l, g, avl, in this order.
 */
#define KVM_SEG_FLAG_BYTES	0x0101010001000100ull
#define KVM_SEG_S_BYTE		BIT_ULL(32)
#define KVM_SEG_SPREAD_FLAGS	\
	(BIT_ULL(1) | BIT_ULL(48) | BIT_ULL(31) | BIT_ULL(14) | BIT_ULL(37))
#define KVM_SEG_GATHER_FLAGS	\
	(BIT_ULL(51) | BIT_ULL(4) | BIT_ULL(21) | BIT_ULL(38) | BIT_ULL(15) | BIT_ULL(24))

/* Where @seg is, except the descriptor tables, which look different. */
static __always_inline struct kvm_segment *fonda_sregs_segment(struct kvm_sregs2 *sregs,
							       enum fonda_seg seg)
{
	/* CS, DS, ES, FS, GS, SS, TR, LDT is the order there. */
	static const u8 place[] = { 2, 0, 5, 1, 3, 4, 7, 6 };

	return &sregs->cs + place[seg];
}

static __always_inline void fonda_segment_to_kvm(const struct fonda_segment *s,
						 struct kvm_segment *k)
{
	u64 attr = s->attr;

	k->base = s->base;
	k->limit = s->limit;
	k->selector = s->selector;
	put_unaligned((attr & 0xf) | (attr & 0x60) << 11 | (attr & 0x10) << 28 |
		      ((attr & 0xf80) * KVM_SEG_SPREAD_FLAGS & KVM_SEG_FLAG_BYTES),
		      (u64 *)&k->type);
	k->unusable = ~attr >> 7 & 1;
	k->padding = 0;
}

static __always_inline void fonda_segment_from_kvm(struct fonda_segment *s,
						   const struct kvm_segment *k)
{
	u64 bytes = get_unaligned((const u64 *)&k->type);

	s->base = k->base;
	s->limit = k->limit;
	s->selector = k->selector;
	s->attr = (bytes & 0xf) | (bytes >> 11 & 0x60) |
		  (bytes & (KVM_SEG_FLAG_BYTES | KVM_SEG_S_BYTE)) * KVM_SEG_GATHER_FLAGS >> 56 << 4;
	if (k->unusable)
		s->attr &= ~FONDA_SEG_P;
}

/*
 * What delivering the exception that waits does to CR2, DR6 and DR7, now: at its
 * injection, or because an old interface knows no payload.
 */
void fonda_deliver_payload(struct fonda_vcpu *vcpu);

/*
 * KVM_CAP_SYNC_REGS: take what kvm_run->kvm_dirty_regs names, give what
 * kvm_valid_regs asks for. -EINVAL: sets that are not known, or values that
 * the SET ioctl would refuse.
 */
int fonda_sync_regs_in(struct fonda_vcpu *vcpu);
void fonda_sync_regs_out(struct fonda_vcpu *vcpu);

fonda_vcpu_handler fonda_vcpu_access_regs, fonda_vcpu_access_debugregs,
		   fonda_vcpu_access_mp_state;
fonda_vcpu_handler fonda_vcpu_get_sregs, fonda_vcpu_set_sregs;
fonda_vcpu_handler fonda_vcpu_get_vcpu_events, fonda_vcpu_set_vcpu_events;

/* -- extended state: fpu.c -------------------------------------------------- */

/* {x87, SSE, AVX, AVX-512} as far as this machine has them; XCR0 of the host. */
extern u64 fonda_xcr0_supported;
extern u64 fonda_host_xcr0;
/*
 * The host's supervisor components. XSAVES is offered to no guest, but it works
 * in any that sets CR4.OSXSAVE: inside a section IA32_XSS is 0.
 */
extern u64 fonda_host_xss;
/* Bytes of a vCPU's XSAVE area with all of fonda_xcr0_supported. */
extern u32 fonda_xsave_size;

/* Sizes of the XSAVE area; part of fonda_state_init(). */
void fonda_fpu_setup(void);
/* Bytes of an XSAVE area for the components in @xcr0. */
u32 fonda_xstate_size(u64 xcr0, bool compacted);
/* The area, as after power-up. -ENOMEM. */
int fonda_fpu_init(struct fonda_vcpu *vcpu);
/* Between sections: @len bytes of the XMM registers, @offset bytes from the first one. */
void fonda_fpu_access_xmm(struct fonda_vcpu *vcpu, int offset, void *data, int len, bool write);
/* XSETBV, CPL excepted: 0, or 1 (#GP). */
int fonda_vcpu_set_xcr0(struct fonda_vcpu *vcpu, u32 index, u64 val);

fonda_vcpu_handler fonda_vcpu_access_fpu;
/* KVM_GET_XSAVE and KVM_GET_XSAVE2: the area is never larger than 4096 bytes. */
fonda_vcpu_handler fonda_vcpu_get_xsave, fonda_vcpu_set_xsave;
fonda_vcpu_handler fonda_vcpu_get_xcrs, fonda_vcpu_set_xcrs;

/* -- MSRs: msr.c ------------------------------------------------------------ */

#define FONDA_MCE_BANKS		32
#define FONDA_BANK_REGS		4	/* CTL, STATUS, ADDR, MISC */
#define FONDA_MTRR_VARIABLE	8

/* The MSRs that live neither in the backend nor in the local APIC. All (m). */
struct fonda_msrs {
	/*
	 * Inside a section the processor has tsc_aux, where the guest has it;
	 * a write there goes to both. spec_ctrl is loaded around every entry,
	 * or by way of the control block.
	 */
	u64 tsc_aux;
	u64 spec_ctrl;
	u64 misc_enable, microcode_rev, arch_capabilities, hwcr, osvw[2];
	u64 platform_info, power_ctl;
	u64 mtrr_default, mtrr_fixed[11];
	u64 mtrr_variable[FONDA_MTRR_VARIABLE * 2];	/* base, mask */
	u64 mcg_cap, mcg_status, mcg_ctl;
	u64 mce_banks[FONDA_MCE_BANKS * FONDA_BANK_REGS];
};

void fonda_msr_setup(void);	/* part of fonda_state_init() */

/*
 * The exit that fonda_exit_rdmsr() or fonda_exit_wrmsr() made has been answered;
 * part of fonda_complete_user_io().
 */
int fonda_complete_msr(struct fonda_vcpu *vcpu);

fonda_vcpu_handler fonda_dev_get_msr_list, fonda_dev_x86_get_mce_cap_supported;
fonda_vm_handler fonda_vm_x86_set_msr_filter;
fonda_vcpu_handler fonda_vcpu_access_msrs, fonda_vcpu_x86_setup_mce, fonda_vcpu_x86_set_mce;

/* -- clocks: clock.c -------------------------------------------------------- */

/* One moment: the processor's TSC, and boot time in nanoseconds. */
struct fonda_moment {
	u64 tsc;
	u64 boot_ns;
};

struct fonda_vcpu_clock {
	/* Guest TSC = TSC * tsc_ratio (if not 0) + tsc_offset. (m); others READ_ONCE. */
	u64 tsc_offset, tsc_ratio;
	u64 tsc_adjust;		/* (m) IA32_TSC_ADJUST */
	u64 system_msr;		/* (m) MSR_KVM_SYSTEM_TIME as written */
	int cpu;		/* (m) where the page was last written */
	u8 guest_stopped;	/* (m) a flag for the guest with the next update, or 0 */
	u64 steal_msr;		/* (m) MSR_KVM_STEAL_TIME as written */
	u64 steal_seen_ns;	/* (m) run delay of steal_task accounted so far */
	struct task_struct *steal_task;	/* compared only, never followed */
	bool preempted;		/* (m) KVM_VCPU_PREEMPTED may be in the guest's page */
};

/* vm->clock. */
struct fonda_clock {
	struct mutex lock;
	/*
	 * kvmclock is boot time plus offset_ns. Where the TSC is stable all
	 * vCPUs count from this one moment, so that they cannot disagree.
	 */
	struct fonda_moment moment;	/* under lock */
	s64 offset_ns;			/* under lock */
	u64 wall_clock;			/* MSR_KVM_WALL_CLOCK as written; (a) */

	/*
	 * The TSC that new or rewritten vCPUs join is tsc_value, under lock, where the
	 * processor's is tsc_moment, (c) but for a resume.
	 */
	u64 tsc_value, tsc_moment;
	bool tsc_written;		/* user space chose it */
};

/* Part of fonda_state_init(). */
void fonda_clock_setup(void);
void fonda_clock_init(struct fonda_vm *vm);
/* Around system sleep; one CPU, interrupts off. */
void fonda_clock_suspend(void);
void fonda_clock_resume(void);

u64 fonda_guest_tsc(struct fonda_vcpu *vcpu);
/* Ticks of the processor's TSC, at most, until the guest's is @guest_tsc; 0: it is past. */
u64 fonda_ticks_until(struct fonda_vcpu *vcpu, u64 guest_tsc);
/* Bits of tsc_ratio behind the point; 0: no scaling. Set by the backend. */
extern u8 fonda_tsc_fraction;

/*
 * FONDA_REQ_CLOCK: rewrite the guest's page. In the vCPU's thread, slots held,
 * not atomic. A page that is not there is the guest's problem.
 */
void fonda_clock_update(struct fonda_vcpu *vcpu);
/*
 * The vCPU stops running for a while: other vCPUs of the guest may leave it a
 * note to flush its TLB then, rather than wait until it runs again to do that.
 */
void fonda_steal_time_preempted(struct fonda_vcpu *vcpu);
/* Before every section, ahead of the requests: accounts stolen time, asks for an update. */
void fonda_clock_check(struct fonda_vcpu *vcpu);

fonda_vm_handler fonda_vm_get_clock, fonda_vm_set_clock;
fonda_vcpu_handler fonda_vcpu_tsc_khz, fonda_vcpu_device_attr, fonda_vcpu_kvmclock_ctrl;

/* For msr.c: writes of this part's MSRs, not in a section. 0, or 1 (#GP). */
fonda_msr_setter fonda_set_tsc, fonda_set_tsc_adjust, fonda_set_system_time;
fonda_msr_setter fonda_set_wall_clock, fonda_set_steal_time;

#endif
