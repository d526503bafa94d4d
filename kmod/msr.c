// SPDX-License-Identifier: GPL-2.0-only
/*
 * Model-specific registers: one table says which there are, who may touch them
 * and what keeps them. The same table answers the guest's RDMSR and WRMSR, the
 * ioctls, and the list of what a saved vCPU is made of. Also here: the filter
 * by which user space takes MSRs over, and the machine-check banks.
 */
#include <asm/mce.h>
#include <asm/mtrr.h>

#include "run.h"

/*
 * Why an access was refused, as user space is told; -EAGAIN: it must be tried again
 * outside a section.
 */
#define MSR_INVALID	KVM_MSR_EXIT_REASON_INVAL	/* the value, or the kind of access */
#define MSR_UNKNOWN	KVM_MSR_EXIT_REASON_UNKNOWN
#define MSR_FILTERED	KVM_MSR_EXIT_REASON_FILTER	/* user space wants it for itself */

/* The setters of clock.c, and the local APIC, answer with 1. */
static_assert(MSR_INVALID == 1);

#define MSR_X2APIC_BASE		0x800
#define MSR_X2APIC_COUNT	0x100

#define MCG_CAP_SUPPORTED	(MCG_CTL_P | MCG_SER_P)

/* Registers of a machine-check bank, in the order of their MSRs. */
enum { BANK_CTL, BANK_STATUS, BANK_ADDR, BANK_MISC };

/* 8 variable ranges, fixed ranges, write-combining. ("MTRRcap Register") */
#define MTRR_CAP		(FONDA_MTRR_VARIABLE | BIT(8) | BIT(10))

/* McStatusWrEn: the guest may write the banks' status. */
#define HWCR_STATUS_WRITABLE	BIT(18)

/*
 * Bits of ARCH_CAPABILITIES that say of a vulnerability that it is not there,
 * or how software may mend it, and that ask nothing of a hypervisor.
 */
#define ARCH_CAPABILITIES_OFFERED						\
	(ARCH_CAP_RDCL_NO | ARCH_CAP_IBRS_ALL | ARCH_CAP_SKIP_VMENTRY_L1DFLUSH |	\
	 ARCH_CAP_SSB_NO | ARCH_CAP_MDS_NO | ARCH_CAP_PSCHANGE_MC_NO | ARCH_CAP_TAA_NO | \
	 ARCH_CAP_SBDR_SSDP_NO | ARCH_CAP_FBSDP_NO | ARCH_CAP_PSDP_NO |		\
	 ARCH_CAP_FB_CLEAR | ARCH_CAP_RRSBA | ARCH_CAP_BHI_NO | ARCH_CAP_PBRSB_NO)

/* What an MSR reads as. */
enum msr_kept {
	VALUE,		/* always desc.bits */
	FIELD,		/* u64 at desc.where in struct fonda_vcpu */
	REG,		/* the backend's register desc.where */
	LAPIC,		/* the local APIC's, which has its own rules */
	TSC, WALL_CLOCK,
	NOTHING,	/* it is for writing */
};

/* Which writes are accepted, and what else they do. */
enum msr_rule {
	BITS,		/* those in desc.bits may be set */
	READONLY,	/* user space may write what it has read */
	HOST,		/* user space restores it, the guest cannot change it */
	QUIET,		/* the same, but the guest's attempts are ignored */
	CHANGE,		/* the guest may only change desc.bits */
	ADDRESS,	/* canonical ones */
	COMMAND,	/* bits in desc.bits are a command to the processor */
	TYPES,		/* the bits in desc.bits are memory types */
	MTRR,		/* pairs of base and mask */
	BANK,		/* machine-check banks */
	CALL,		/* desc.set() knows */
	SLEEPS,		/* the same, not in a section */
};

struct msr_desc {
	u32 first, last;
	u8 kept;	/* enum msr_kept */
	u8 rule;	/* enum msr_rule */
	u16 feature;	/* that the guest needs, or ANY */
	u8 lists;
	u32 where;
	u64 bits;
	u64 ignored;	/* bits that are dropped */
	fonda_msr_setter *set;
};

#define ANY		0xffff
#define SAVED		0x1	/* of a vCPU's state: KVM_GET_MSR_INDEX_LIST */
#define FEATURE		0x2	/* of the machine: KVM_GET_MSR_FEATURE_INDEX_LIST */
#define ALL		(~0ull)
#define WORD		0xffffffffull
#define IN(m)		offsetof(struct fonda_vcpu, m)
#define M(m)		IN(msrs.m)
#define R(reg)		FONDA_REG_##reg
#define HAS(f)		X86_FEATURE_##f
#define PV(f)		FONDA_PV_FEATURE(f)
#define AMD		FONDA_HAS_AMD_RULES
#define ONE(name)	MSR_##name, MSR_##name
/* One of clock.c's. */
#define TIME(name, kept, feature, where, set) \
	ONE(name), kept, SLEEPS, feature, SAVED, where, 0, 0, fonda_set_##set

static u64 *field(struct fonda_vcpu *vcpu, const struct msr_desc *d, u32 i)
{
	return (void *)vcpu + d->where + i * sizeof(u64);
}

/* "Extended Feature Enable Register (EFER)" */
static int set_efer(struct fonda_vcpu *vcpu, u64 val, bool host)
{
	u64 old = fonda_backend->read_reg(vcpu, FONDA_REG_EFER);

	if (val & vcpu->cpuid.efer_reserved)
		return MSR_INVALID;
	if (!host) {
		if ((val ^ old) & EFER_LME &&
		    fonda_backend->read_reg(vcpu, FONDA_REG_CR0) & X86_CR0_PG)
			return MSR_INVALID;
		/* The processor's own: writes do not change it. */
		val = (val & ~(u64)EFER_LMA) | (old & EFER_LMA);
	}
	fonda_backend->write_reg(vcpu, FONDA_REG_EFER, val);
	return 0;
}

static int set_tsc_aux(struct fonda_vcpu *vcpu, u64 val, bool host)
{
	/* AMD drops the upper half, Intel refuses it. */
	if (val >> 32 && !fonda_guest_has(vcpu, FONDA_HAS_AMD_RULES))
		return MSR_INVALID;
	vcpu->msrs.tsc_aux = (u32)val;
	if (vcpu->atomic)
		wrmsrq(MSR_TSC_AUX, (u32)val);
	return 0;
}

static int set_spec_ctrl(struct fonda_vcpu *vcpu, u64 val, bool host)
{
	if (val & ~(u64)vcpu->cpuid.spec_ctrl)
		return MSR_INVALID;
	vcpu->msrs.spec_ctrl = val;
	fonda_update_spec_ctrl(vcpu);
	vcpu->backend_work = true;
	return 0;
}

static int set_mcg_ctl(struct fonda_vcpu *vcpu, u64 val, bool host)
{
	if (!(vcpu->msrs.mcg_cap & MCG_CTL_P) || (!host && val && ~val))
		return MSR_INVALID;
	vcpu->msrs.mcg_ctl = val;
	return 0;
}

/* Sorted. */
static const struct msr_desc msrs[] = {
	{ TIME(IA32_TSC, TSC, ANY, 0, tsc) },
	{ TIME(KVM_WALL_CLOCK, WALL_CLOCK, PV(CLOCKSOURCE), 0, wall_clock) },
	{ TIME(KVM_SYSTEM_TIME, FIELD, PV(CLOCKSOURCE), IN(clock.system_msr), system_time) },
	{ ONE(IA32_PLATFORM_ID), VALUE, READONLY, ANY },
	{ ONE(IA32_APICBASE), LAPIC, CALL, ANY },
	{ ONE(IA32_EBL_CR_POWERON), VALUE, READONLY, ANY },
	/* Locked, without VMX. */
	{ ONE(IA32_FEAT_CTL), VALUE, READONLY, ANY, .bits = FEAT_CTL_LOCKED },
	{ TIME(IA32_TSC_ADJUST, FIELD, HAS(TSC_ADJUST), IN(clock.tsc_adjust), tsc_adjust) },
	{ ONE(IA32_SPEC_CTRL), FIELD, CALL, FONDA_HAS_SPEC_CTRL, SAVED, M(spec_ctrl),
	  .set = set_spec_ctrl },
	{ ONE(IA32_PRED_CMD), NOTHING, COMMAND, FONDA_HAS_IBPB, .bits = PRED_CMD_IBPB },
	{ ONE(IA32_UCODE_WRITE), NOTHING, BITS, ANY, .ignored = ALL },
	{ ONE(IA32_UCODE_REV), FIELD, QUIET, ANY, SAVED | FEATURE, M(microcode_rev), ALL },
	{ ONE(PLATFORM_INFO), FIELD, HOST, ANY, SAVED, M(platform_info) },
	{ ONE(MTRRcap), VALUE, READONLY, ANY, .bits = MTRR_CAP },
	{ ONE(IA32_ARCH_CAPABILITIES), FIELD, HOST, HAS(ARCH_CAPABILITIES), SAVED | FEATURE,
	  M(arch_capabilities) },
	{ ONE(IA32_FLUSH_CMD), NOTHING, COMMAND, HAS(FLUSH_L1D), .bits = L1D_FLUSH },
	{ ONE(MISC_FEATURES_ENABLES), VALUE, READONLY, ANY },
	{ ONE(IA32_SYSENTER_CS), REG, BITS, ANY, SAVED, R(SYSENTER_CS), WORD },
	{ MSR_IA32_SYSENTER_ESP, MSR_IA32_SYSENTER_EIP, REG, ADDRESS, ANY, SAVED, R(SYSENTER_ESP) },
	{ ONE(IA32_MCG_CAP), FIELD, READONLY, ANY, 0, M(mcg_cap) },
	{ ONE(IA32_MCG_STATUS), FIELD, BITS, ANY, SAVED, M(mcg_status), ALL },
	{ ONE(IA32_MCG_CTL), FIELD, CALL, ANY, 0, M(mcg_ctl), .set = set_mcg_ctl },
	{ ONE(IA32_MISC_ENABLE), FIELD, CHANGE, ANY, SAVED, M(misc_enable),
	  ~(u64)(MSR_IA32_MISC_ENABLE_EMON | MSR_IA32_MISC_ENABLE_BTS_UNAVAIL |
		 MSR_IA32_MISC_ENABLE_PEBS_UNAVAIL) },
	/* Branch records are not virtualized: asking for them does nothing. */
	{ ONE(IA32_DEBUGCTLMSR), REG, BITS, ANY, SAVED, R(DEBUGCTL), DEBUGCTLMSR_BTF,
	  .ignored = DEBUGCTLMSR_LBR },
	{ MSR_IA32_LASTBRANCHFROMIP, MSR_IA32_LASTINTTOIP, VALUE, READONLY, ANY },
	{ ONE(IA32_POWER_CTL), FIELD, BITS, ANY, SAVED, M(power_ctl), ALL },
	{ MTRRphysBase_MSR(0), MTRRphysMask_MSR(FONDA_MTRR_VARIABLE - 1), FIELD, MTRR, ANY,
	  SAVED, M(mtrr_variable) },
	{ ONE(MTRRfix64K_00000), FIELD, TYPES, ANY, SAVED, M(mtrr_fixed[0]), ALL },
	{ MSR_MTRRfix16K_80000, MSR_MTRRfix16K_A0000, FIELD, TYPES, ANY, SAVED,
	  M(mtrr_fixed[1]), ALL },
	{ MSR_MTRRfix4K_C0000, MSR_MTRRfix4K_F8000, FIELD, TYPES, ANY, SAVED,
	  M(mtrr_fixed[3]), ALL },
	{ ONE(IA32_CR_PAT), REG, TYPES, ANY, SAVED, R(PAT), ALL },
	{ ONE(MTRRdefType), FIELD, TYPES, ANY, SAVED, M(mtrr_default), 0xff },
	{ MSR_IA32_MC0_CTL, MSR_IA32_MCx_MISC(FONDA_MCE_BANKS - 1), FIELD, BANK, ANY, 0,
	  M(mce_banks) },
	{ ONE(IA32_TSC_DEADLINE), LAPIC, CALL, HAS(TSC_DEADLINE_TIMER), SAVED },
	{ MSR_X2APIC_BASE, MSR_X2APIC_BASE + MSR_X2APIC_COUNT - 1, LAPIC, CALL, ANY },
	{ TIME(KVM_WALL_CLOCK_NEW, WALL_CLOCK, PV(CLOCKSOURCE2), 0, wall_clock) },
	{ TIME(KVM_SYSTEM_TIME_NEW, FIELD, PV(CLOCKSOURCE2), IN(clock.system_msr), system_time) },
	{ TIME(KVM_STEAL_TIME, FIELD, PV(STEAL_TIME), IN(clock.steal_msr), steal_time) },
	{ ONE(KVM_PV_EOI_EN), FIELD, BITS, PV(PV_EOI), SAVED, IN(lapic.pv_eoi), ~2ull },
	{ ONE(EFER), REG, CALL, ANY, 0, R(EFER), .set = set_efer },
	{ ONE(STAR), REG, BITS, HAS(SYSCALL), SAVED, R(STAR), ALL },
	{ MSR_LSTAR, MSR_CSTAR, REG, ADDRESS, HAS(LM), SAVED, R(LSTAR) },
	{ ONE(SYSCALL_MASK), REG, BITS, HAS(LM), SAVED, R(SFMASK), WORD },
	{ MSR_FS_BASE, MSR_GS_BASE, REG, ADDRESS, HAS(LM), 0, R(FS_BASE) },
	{ ONE(KERNEL_GS_BASE), REG, ADDRESS, HAS(LM), SAVED, R(KERNEL_GS_BASE) },
	{ ONE(TSC_AUX), FIELD, CALL, FONDA_HAS_TSC_AUX, SAVED, M(tsc_aux), .set = set_tsc_aux },
	/* Guests on AMD look at these unasked. */
	{ MSR_K7_EVNTSEL0, MSR_K7_PERFCTR3, VALUE, BITS, AMD, .ignored = ALL },
	{ ONE(AMD64_SYSCFG), VALUE, READONLY, ANY },
	/* Firmware sets bits about caches, FERR and IGNNE: no meaning here. */
	{ ONE(K7_HWCR), FIELD, BITS, AMD, SAVED, M(hwcr),
	  HWCR_STATUS_WRITABLE | BIT(24), .ignored = BIT(3) | BIT(6) | BIT(8) },
	{ ONE(AMD64_NB_CFG), VALUE, BITS, AMD, .ignored = ALL },
	{ ONE(AMD64_PATCH_LOADER), NOTHING, BITS, AMD, .ignored = ALL },
	{ ONE(K8_INT_PENDING_MSG), VALUE, BITS, AMD, .ignored = ALL },
	{ ONE(FAM10H_MMIO_CONF_BASE), VALUE, BITS, AMD, .ignored = ALL },
	{ MSR_K8_TSEG_ADDR, MSR_VM_HSAVE_PA, VALUE, READONLY, AMD },
	{ MSR_AMD64_OSVW_ID_LENGTH, MSR_AMD64_OSVW_STATUS, FIELD, HOST, HAS(OSVW), SAVED, M(osvw) },
	{ ONE(AMD64_DC_CFG), VALUE, BITS, AMD, .ignored = ALL },
	/* LFENCE serializes. */
	{ ONE(AMD64_DE_CFG), VALUE, READONLY, AMD, FEATURE, .bits = BIT(1) },
	{ ONE(AMD64_BU_CFG2), VALUE, BITS, AMD, .ignored = ALL },
};

static u32 nr_bank_regs(struct fonda_vcpu *vcpu)
{
	return (vcpu->msrs.mcg_cap & MCG_BANKCNT_MASK) * FONDA_BANK_REGS;
}

/* @i counts from desc.first. 0 or MSR_INVALID. */
static __always_inline int load(struct fonda_vcpu *vcpu, const struct msr_desc *d, u32 i, u64 *val)
{
	switch (d->kept) {
	case VALUE:
		*val = d->bits;
		return 0;
	case FIELD:
		*val = *field(vcpu, d, i);
		return 0;
	case REG:
		*val = fonda_backend->read_reg(vcpu, d->where + i);
		return 0;
	case LAPIC:
		return fonda_lapic_read_msr(vcpu, d->first + i, val);
	case TSC:
		*val = fonda_guest_tsc(vcpu);
		return 0;
	case WALL_CLOCK:
		*val = READ_ONCE(vcpu->vm->clock.wall_clock);
		return 0;
	default:
		return MSR_INVALID;
	}
}

/* Every byte of @types is one of UC, WC, WT, WP, WB; @pat has UC- as well. */
static bool types_valid(u64 types, bool pat)
{
	const u8 valid = BIT(0) | BIT(1) | BIT(4) | BIT(5) | BIT(6) | (pat ? BIT(7) : 0);

	for (; types; types >>= 8)
		if ((types & 0xf8) || !(valid & BIT(types & 7)))
			return false;
	return true;
}

/* Can the guest, or user space, write @val there? */
static __always_inline bool is_valid(struct fonda_vcpu *vcpu, const struct msr_desc *d, u32 i,
				     u64 val, bool host)
{
	u64 address;
	int bits;

	switch (d->rule) {
	case HOST:
		return host;
	case READONLY:
		return host && val == (d->kept == FIELD ? *field(vcpu, d, i) : d->bits);
	case CHANGE:
		return host || !((val ^ *field(vcpu, d, i)) & ~d->bits);
	case ADDRESS:
		bits = fonda_backend->read_reg(vcpu, FONDA_REG_CR4) & X86_CR4_LA57 ? 57 : 48;
		return (s64)(val << (64 - bits)) >> (64 - bits) == (s64)val;
	case TYPES:
		/* MTRRdefType has two flags beside its type. */
		return types_valid(val & d->bits, d->kept == REG) && !(val & ~d->bits & ~0xc00ull);
	case MTRR:
		/* "Variable Range MTRRs" */
		address = GENMASK_ULL(vcpu->cpuid.phys_bits - 1, 12);
		return i & 1 ? !(val & ~(address | BIT(11))) :
			       !(val & ~(address | 0xff)) && types_valid(val & 0xff, false);
	case BANK:
		if (host || !val || i % FONDA_BANK_REGS > BANK_STATUS)
			return true;
		/* Linux clears bit 10 of an AMD bank, and other systems bit 0. */
		return i % FONDA_BANK_REGS == BANK_CTL ? !~(val | BIT(10) | BIT(0)) :
		       vcpu->msrs.hwcr & HWCR_STATUS_WRITABLE && fonda_guest_has(vcpu, AMD);
	default:
		return !(val & ~d->bits);
	}
}

static __always_inline bool available(struct fonda_vcpu *vcpu, const struct msr_desc *d,
				      bool host)
{
	if (d->feature == ANY)
		return true;
	/* User space may restore MSRs before it sets the CPUID that has them. */
	if (host || (d->feature / 32 == FONDA_PV_WORD && !vcpu->cpuid.enforce_pv))
		return fonda_supported(d->feature);
	return fonda_guest_has(vcpu, d->feature);
}

/* Where the last search for such a number ended: guests use few, and those often. */
static u8 hints[64];

/* The description of @msr, or NULL. */
static noinline const struct msr_desc *search(u32 msr, u8 *hint)
{
	u32 nr = ARRAY_SIZE(msrs), half, i = 0;

	for (; nr > 1; nr -= half) {
		half = nr / 2;
		if (msrs[i + half].first <= msr)
			i += half;
	}
	WRITE_ONCE(*hint, i);
	return msr >= msrs[i].first && msr <= msrs[i].last ? &msrs[i] : NULL;
}

/* An MSR and its number @i in the description; NULL where it is unknown. */
static __always_inline const struct msr_desc *find(struct fonda_vcpu *vcpu, u32 msr, u32 *i,
						   bool host)
{
	u8 *hint = &hints[(msr ^ msr >> 6) % ARRAY_SIZE(hints)];
	const struct msr_desc *d = &msrs[READ_ONCE(*hint)];

	if (unlikely(msr < d->first || msr > d->last)) {
		d = search(msr, hint);
		if (!d)
			return NULL;
	}
	if (unlikely(!available(vcpu, d, host)))
		return NULL;
	/* The processor may speculate past that; this must not lead it astray. */
	*i = array_index_nospec(msr - d->first, d->last - d->first + 1);
	return d->rule == BANK && vcpu && *i >= nr_bank_regs(vcpu) ? NULL : d;
}

static __always_inline int get_msr(struct fonda_vcpu *vcpu, u32 msr, u64 *val, bool host)
{
	u32 i;
	const struct msr_desc *d = find(vcpu, msr, &i, host);

	if (!d)
		return MSR_UNKNOWN;
	if (msr == MSR_PLATFORM_INFO && !host && READ_ONCE(vcpu->vm->hide_platform_info))
		return MSR_INVALID;
	return load(vcpu, d, i, val);
}

/* Also -EAGAIN, when nothing has been done yet. */
static __always_inline int set_msr(struct fonda_vcpu *vcpu, u32 msr, u64 val, bool host)
{
	u32 i;
	const struct msr_desc *d = find(vcpu, msr, &i, host);

	if (!d)
		return MSR_UNKNOWN;
	if (d->kept == LAPIC)
		return fonda_lapic_write_msr(vcpu, d->first + i, val, host);
	if (d->rule == SLEEPS && vcpu->atomic)
		return -EAGAIN;
	if (d->set)
		return d->set(vcpu, val, host);
	val &= ~d->ignored;
	if (!is_valid(vcpu, d, i, val, host))
		return MSR_INVALID;
	if (d->rule == COMMAND && val && !host)
		wrmsrq(d->first, val);
	if (d->kept == REG)
		fonda_backend->write_reg(vcpu, d->where + i, val);
	else if (d->kept == FIELD && (host || d->rule != QUIET))
		*field(vcpu, d, i) = val;
	return 0;
}

/* -- machine checks --------------------------------------------------------- */

long fonda_dev_x86_get_mce_cap_supported(struct fonda_vcpu *vcpu, void *arg, unsigned int cmd)
{
	*(u64 *)arg = MCG_CAP_SUPPORTED;
	return 0;
}

long fonda_vcpu_x86_setup_mce(struct fonda_vcpu *vcpu, void *arg, unsigned int cmd)
{
	u64 cap = *(u64 *)arg, banks = cap & MCG_BANKCNT_MASK;
	int i;

	if (!banks || banks > FONDA_MCE_BANKS ||
	    cap & ~(u64)(MCG_CAP_SUPPORTED | MCG_BANKCNT_MASK | MCG_EXT_CNT_MASK))
		return -EINVAL;
	vcpu->msrs.mcg_cap = cap;
	if (cap & MCG_CTL_P)
		vcpu->msrs.mcg_ctl = ~0ull;
	for (i = 0; i < banks; i++)
		vcpu->msrs.mce_banks[i * FONDA_BANK_REGS + BANK_CTL] = ~0ull;
	return 0;
}

/* Log an error in a bank and, if it was not corrected, raise #MC. */
long fonda_vcpu_x86_set_mce(struct fonda_vcpu *vcpu, void *arg, unsigned int cmd)
{
	const struct kvm_x86_mce *mce = arg;
	bool uncorrected = mce->status & MCI_STATUS_UC;
	struct fonda_msrs *m = &vcpu->msrs;
	u64 *bank, old;

	if (mce->bank * FONDA_BANK_REGS >= nr_bank_regs(vcpu) || !(mce->status & MCI_STATUS_VAL))
		return -EINVAL;
	bank = m->mce_banks + array_index_nospec(mce->bank, FONDA_MCE_BANKS) * FONDA_BANK_REGS;

	/* Reports that the guest has turned off are lost. */
	if (uncorrected && ((m->mcg_cap & MCG_CTL_P && ~m->mcg_ctl) || ~bank[BANK_CTL]))
		return 0;
	if (uncorrected && (m->mcg_status & MCG_STATUS_MCIP ||
			    !(fonda_backend->read_reg(vcpu, FONDA_REG_CR4) & X86_CR4_MCE))) {
		fonda_request(vcpu, FONDA_REQ_TRIPLE_FAULT);
		return 0;
	}
	old = bank[BANK_STATUS] & MCI_STATUS_VAL ? bank[BANK_STATUS] : 0;
	/* A corrected error does not hide an uncorrected one. ("Overwrite Rules") */
	if (!uncorrected && old & MCI_STATUS_UC) {
		bank[BANK_STATUS] |= MCI_STATUS_OVER;
		return 0;
	}
	bank[BANK_STATUS] = mce->status | (old ? MCI_STATUS_OVER : 0);
	bank[BANK_ADDR] = mce->addr;
	bank[BANK_MISC] = mce->misc;
	if (uncorrected) {
		m->mcg_status = mce->mcg_status;
		fonda_queue_exception(vcpu, X86_TRAP_MC);
	}
	return 0;
}

/* -- power-up --------------------------------------------------------------- */

/* What a new vCPU begins with; the rest is 0. INIT changes none of it. */
static struct fonda_msrs fresh __ro_after_init = {
	.mcg_cap = FONDA_MCE_BANKS,
	.misc_enable = MSR_IA32_MISC_ENABLE_FAST_STRING |
		       MSR_IA32_MISC_ENABLE_BTS_UNAVAIL | MSR_IA32_MISC_ENABLE_PEBS_UNAVAIL,
	/* Errata 0 to 2 are known about, and none of them concerns a guest. */
	.osvw = { 3 },
};

void __init fonda_msr_setup(void)
{
	fresh.microcode_rev = boot_cpu_data.microcode;
	/* Intel has it in the upper half. */
	if (boot_cpu_data.x86_vendor == X86_VENDOR_INTEL)
		fresh.microcode_rev <<= 32;
	if (fonda_supported(X86_FEATURE_ARCH_CAPABILITIES))
		rdmsrq(MSR_IA32_ARCH_CAPABILITIES, fresh.arch_capabilities);
	/* Whoever runs the guest flushes where that is needed. */
	fresh.arch_capabilities &= ARCH_CAPABILITIES_OFFERED;
	fresh.arch_capabilities |= ARCH_CAP_SKIP_VMENTRY_L1DFLUSH;
}

int fonda_state_vcpu_init(struct fonda_vcpu *vcpu)
{
	vcpu->msrs = fresh;
	fonda_cpuid_update(&vcpu->cpuid);
	return fonda_fpu_init(vcpu);
}

/* -- filter ----------------------------------------------------------------- */

static noinline bool in_filter(const struct kvm_msr_filter *filter, u32 msr, u32 access)
{
	int i;

	for (i = 0; i < KVM_MSR_FILTER_MAX_RANGES; i++) {
		const struct kvm_msr_filter_range *r = &filter->ranges[i];
		u32 bit = msr - r->base;

		if (bit < r->nmsrs && r->flags & access) {
			bit = array_index_nospec(bit, r->nmsrs);
			return r->bitmap[bit / 8] >> bit % 8 & 1;
		}
	}
	return !(filter->flags & KVM_MSR_FILTER_DEFAULT_DENY);
}

static __always_inline bool filter_allows(struct fonda_vcpu *vcpu, u32 msr, u32 access)
{
	const struct kvm_msr_filter *filter =
		srcu_dereference(vcpu->vm->msr_filter, &vcpu->vm->srcu);

	return likely(!filter) || in_filter(filter, msr, access);
}

/* Brings the bitmaps behind @filter. 1, -EINVAL, -EFAULT; 0: it allows everything. */
static int copy_bitmaps(struct kvm_msr_filter *filter)
{
	int ret = filter->flags & KVM_MSR_FILTER_DEFAULT_DENY ? -EINVAL : 0;
	u8 *bitmap = (u8 *)(filter + 1);
	int i;

	for (i = 0; i < KVM_MSR_FILTER_MAX_RANGES; i++) {
		struct kvm_msr_filter_range *r = &filter->ranges[i];

		if (!r->nmsrs)
			continue;
		if (!r->flags || r->flags & ~(KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE) ||
		    r->nmsrs > KVM_MSR_FILTER_MAX_BITMAP_SIZE * 8)
			return -EINVAL;
		if (copy_from_user(bitmap, (void __user *)r->bitmap, DIV_ROUND_UP(r->nmsrs, 8)))
			return -EFAULT;
		r->bitmap = bitmap;
		bitmap += KVM_MSR_FILTER_MAX_BITMAP_SIZE;
		ret = 1;
	}
	return ret;
}

long fonda_vm_x86_set_msr_filter(struct fonda_vm *vm, void *arg, unsigned int cmd)
{
	struct kvm_msr_filter *new __free(fonda_kvfree) =
		kvmalloc(sizeof(*new) + KVM_MSR_FILTER_MAX_RANGES * KVM_MSR_FILTER_MAX_BITMAP_SIZE,
			 GFP_KERNEL_ACCOUNT);
	int ret;

	if (!new)
		return -ENOMEM;
	*new = *(struct kvm_msr_filter *)arg;
	ret = new->flags & ~KVM_MSR_FILTER_DEFAULT_DENY ? -EINVAL : copy_bitmaps(new);
	if (ret < 0)
		return ret;

	guard(mutex)(&vm->slots_lock);
	arg = rcu_replace_pointer(vm->msr_filter, ret ? no_free_ptr(new) : NULL,
				  lockdep_is_held(&vm->slots_lock));
	/* MSRs that did not exit may have to now: nobody goes on without that. */
	fonda_vm_kick_all(vm, FONDA_REQ_CONTROLS, false);
	fonda_vm_synchronize(vm);
	kvfree(arg);
	return 0;
}

/* -- RDMSR and WRMSR -------------------------------------------------------- */

/* An access that was refused for reason @why: user space's, or the guest's mistake. */
static int refuse(struct fonda_vcpu *vcpu, int why, bool write, u64 val)
{
	struct kvm_run *run = vcpu->run;

	if (why < 0)
		return FONDA_RETRY_SLEEPING;
	if (!(READ_ONCE(vcpu->vm->user_msr_mask) & why))
		return fonda_exit_protection(vcpu);
	run->exit_reason = write ? KVM_EXIT_X86_WRMSR : KVM_EXIT_X86_RDMSR;
	run->msr = (typeof(run->msr)){
		.reason = why, .index = vcpu->regs[FONDA_RCX], .data = val };
	vcpu->io.pending = FONDA_IO_MSR;
	vcpu->io.rip = vcpu->rip;
	vcpu->io.reg_bytes = write ? 0 : sizeof(val);
	return FONDA_EXIT_USER;
}

static int finish_read(struct fonda_vcpu *vcpu, u64 val)
{
	vcpu->regs[FONDA_RAX] = (u32)val;
	vcpu->regs[FONDA_RDX] = val >> 32;
	return fonda_skip_insn(vcpu, vcpu->insn_len);
}

int fonda_complete_msr(struct fonda_vcpu *vcpu)
{
	if (READ_ONCE(vcpu->run->msr.error))
		return fonda_exit_protection(vcpu);
	return vcpu->io.reg_bytes ? finish_read(vcpu, READ_ONCE(vcpu->run->msr.data)) :
				    fonda_exit_skip(vcpu);
}

/*
 * The x2APIC's registers are what a busy guest uses most: they need no search, and
 * no filter looks at them.
 */
int fonda_exit_rdmsr(struct fonda_vcpu *vcpu)
{
	u32 msr = vcpu->regs[FONDA_RCX];
	int ret = MSR_FILTERED;
	u64 val = 0;

	if (msr - MSR_X2APIC_BASE < MSR_X2APIC_COUNT)
		ret = lapic_read_x2(&vcpu->lapic, msr, &val);
	else if (filter_allows(vcpu, msr, KVM_MSR_FILTER_READ))
		ret = get_msr(vcpu, msr, &val, false);
	return unlikely(ret) ? refuse(vcpu, ret, false, 0) : finish_read(vcpu, val);
}

static __always_inline int finish_write(struct fonda_vcpu *vcpu, int ret, u64 val)
{
	return unlikely(ret) ? refuse(vcpu, ret, true, val) :
			       fonda_skip_insn(vcpu, vcpu->insn_len);
}

static noinline int write_other(struct fonda_vcpu *vcpu, u32 msr)
{
	u64 val = (u32)vcpu->regs[FONDA_RAX] | (u64)vcpu->regs[FONDA_RDX] << 32;

	return finish_write(vcpu, filter_allows(vcpu, msr, KVM_MSR_FILTER_WRITE) ?
				  set_msr(vcpu, msr, val, false) : MSR_FILTERED, val);
}

int fonda_exit_wrmsr(struct fonda_vcpu *vcpu)
{
	u32 msr = vcpu->regs[FONDA_RCX];
	u64 val;

	if (msr - MSR_X2APIC_BASE >= MSR_X2APIC_COUNT)
		return write_other(vcpu, msr);
	val = (u32)vcpu->regs[FONDA_RAX] | (u64)vcpu->regs[FONDA_RDX] << 32;
	return finish_write(vcpu, lapic_write_x2(&vcpu->lapic, msr, val), val);
}

/* -- ioctls ----------------------------------------------------------------- */

/* What VMMs need to know of the machine before there is a vCPU. */
static int get_feature_msr(u32 msr, u64 *val)
{
	u32 i;
	const struct msr_desc *d = find(NULL, msr, &i, true);

	if (!d || !(d->lists & FEATURE))
		return MSR_UNKNOWN;
	*val = d->kept == VALUE ? d->bits : *(u64 *)((void *)&fresh + d->where - IN(msrs));
	return 0;
}

/* How many were done before one was refused; of the machine where @vcpu is NULL. */
long fonda_vcpu_access_msrs(struct fonda_vcpu *vcpu, void *arg, unsigned int cmd)
{
	bool set = cmd == KVM_SET_MSRS;
	struct kvm_msrs __user *ulist = (void __user *)arg;
	struct kvm_msr_entry e;
	u32 nr, i;

	if (get_user(nr, &ulist->nmsrs))
		return -EFAULT;
	if (nr >= 256)
		return -E2BIG;
	for (i = 0; i < nr; i++) {
		if (copy_from_user(&e, &ulist->entries[i], sizeof(e)))
			return -EFAULT;
		if (set ? set_msr(vcpu, e.index, e.data, true) :
		    vcpu ? get_msr(vcpu, e.index, &e.data, true) :
			   get_feature_msr(e.index, &e.data))
			break;
		if (!set && put_user(e.data, &ulist->entries[i].data))
			return -EFAULT;
	}
	return i;
}

/* The number always; the list where there is room, else -E2BIG. */
long fonda_dev_get_msr_list(struct fonda_vcpu *vcpu, void *arg, unsigned int cmd)
{
	u8 which = cmd == KVM_GET_MSR_INDEX_LIST ? SAVED : FEATURE;
	struct kvm_msr_list __user *ulist = (void __user *)arg;
	u32 list[96], nr = 0, msr, room;
	const struct msr_desc *d;

	for (d = msrs; d < msrs + ARRAY_SIZE(msrs); d++) {
		if (!(d->lists & which) || !available(NULL, d, true))
			continue;
		for (msr = d->first; msr <= d->last && nr < ARRAY_SIZE(list); msr++)
			list[nr++] = msr;
	}
	if (get_user(room, &ulist->nmsrs) || put_user(nr, &ulist->nmsrs))
		return -EFAULT;
	if (room < nr)
		return -E2BIG;
	return copy_to_user(ulist->indices, list, nr * sizeof(*list)) ? -EFAULT : 0;
}
