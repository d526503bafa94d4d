// SPDX-License-Identifier: GPL-2.0-only
/*
 * Model-specific registers: one table says which there are, who may touch them
 * and what keeps them. The same table answers the guest's RDMSR and WRMSR, the
 * ioctls, and the list of what a saved vCPU is made of. Also here: the filter
 * by which user space takes MSRs over, and the machine-check banks.
 */
#include <linux/bits.h>
#include <linux/kvm_para.h>
#include <linux/mm.h>
#include <linux/nospec.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <asm/cpufeature.h>
#include <asm/mce.h>
#include <asm/msr.h>
#include <asm/mtrr.h>
#include <asm/processor.h>
#include <asm/trapnr.h>

#include "backend.h"

/* Why an access was refused. FONDA_RETRY_SLEEPING is not one of them. */
#define MSR_INVALID		1	/* the value, or the kind of access */
#define MSR_UNKNOWN		3

#define MSR_X2APIC_BASE		0x800
#define MSR_X2APIC_COUNT	0x100

#define MCG_CAP_SUPPORTED	(MCG_CTL_P | MCG_SER_P)

/* 8 variable ranges, fixed ranges, write-combining. ("MTRRcap Register") */
#define MTRR_CAP		(FONDA_MTRR_VARIABLE | BIT(8) | BIT(10))

/*
 * Bits of ARCH_CAPABILITIES that say of a vulnerability that it is not there,
 * or how software may mend it, and that ask nothing of a hypervisor.
 */
#define ARCH_CAPABILITIES_OFFERED					\
	(ARCH_CAP_RDCL_NO | ARCH_CAP_IBRS_ALL | ARCH_CAP_SKIP_VMENTRY_L1DFLUSH |	\
	 ARCH_CAP_SSB_NO | ARCH_CAP_MDS_NO | ARCH_CAP_PSCHANGE_MC_NO |	\
	 ARCH_CAP_TAA_NO | ARCH_CAP_SBDR_SSDP_NO | ARCH_CAP_FBSDP_NO |	\
	 ARCH_CAP_PSDP_NO | ARCH_CAP_FB_CLEAR | ARCH_CAP_RRSBA |	\
	 ARCH_CAP_BHI_NO | ARCH_CAP_PBRSB_NO)

/* What an MSR reads as. */
enum msr_kept {
	VALUE,		/* always desc.bits */
	FIELD,		/* u64 at desc.where in struct fonda_vcpu */
	REG,		/* the backend's register desc.where */
	BASE,		/* of FS and GS */
	LAPIC,		/* the local APIC's */
	BANK,		/* machine-check banks */
	TSC, WALL_CLOCK,
	NOTHING,	/* it is for writing */
};

/* Which writes are accepted, and what else they do. */
enum msr_rule {
	READONLY,	/* user space may write what it has read */
	IGNORED,
	HOST,		/* user space restores it, the guest cannot change it */
	BITS,		/* those in desc.bits may be set */
	ADDRESS,	/* canonical ones */
	COMMAND,	/* bits in desc.bits are a command to the processor */
	TYPES,		/* the bits in desc.bits are memory types */
	/* And for one MSR each: */
	SET_TSC, SET_TSC_ADJUST, SET_SYSTEM_TIME, SET_WALL_CLOCK, SET_STEAL_TIME,
	SET_APIC, SET_EFER, SET_TSC_AUX, SET_SPEC_CTRL, SET_MICROCODE, SET_MISC_ENABLE,
	SET_DEBUGCTL, SET_HWCR, SET_MTRR, SET_MCG_CTL, SET_BANK,
};

struct msr_desc {
	u32 first, last;
	u8 kept;	/* enum msr_kept */
	u8 rule;	/* enum msr_rule */
	u8 feature;	/* FONDA_HAS_* that the guest needs, or ANY */
	bool saved;	/* part of a vCPU's state: KVM_GET_MSR_INDEX_LIST */
	u32 where;
	u64 bits;
};

#define ANY		0xff
#define SAVED		true
#define ALL		(~0ull)
#define WORD		0xffffffffull
#define IN(m)		offsetof(struct fonda_vcpu, m)
#define HAS(f)		FONDA_HAS_##f
#define ONE(msr)	msr, msr

/* Sorted. */
static const struct msr_desc msrs[] = {
	{ ONE(MSR_IA32_TSC), TSC, SET_TSC, ANY, SAVED },
	{ ONE(MSR_KVM_WALL_CLOCK), WALL_CLOCK, SET_WALL_CLOCK, ANY, SAVED },
	{ ONE(MSR_KVM_SYSTEM_TIME), FIELD, SET_SYSTEM_TIME, ANY, SAVED, IN(clock.system_time) },
	{ ONE(MSR_IA32_PLATFORM_ID), VALUE, READONLY, ANY },
	{ ONE(MSR_IA32_APICBASE), LAPIC, SET_APIC, ANY },
	{ ONE(MSR_IA32_EBL_CR_POWERON), VALUE, READONLY, ANY },
	/* Locked, without VMX. */
	{ ONE(MSR_IA32_FEAT_CTL), VALUE, READONLY, ANY, .bits = FEAT_CTL_LOCKED },
	{ ONE(MSR_IA32_TSC_ADJUST), FIELD, SET_TSC_ADJUST, HAS(TSC_ADJUST), SAVED,
	  IN(clock.tsc_adjust) },
	{ ONE(MSR_IA32_SPEC_CTRL), FIELD, SET_SPEC_CTRL, HAS(SPEC_CTRL), SAVED,
	  IN(msrs.spec_ctrl) },
	{ ONE(MSR_IA32_PRED_CMD), NOTHING, COMMAND, HAS(IBPB), .bits = PRED_CMD_IBPB },
	{ ONE(MSR_IA32_UCODE_WRITE), NOTHING, IGNORED, ANY },
	{ ONE(MSR_IA32_UCODE_REV), FIELD, SET_MICROCODE, ANY, SAVED, IN(msrs.microcode_rev) },
	{ ONE(MSR_PLATFORM_INFO), VALUE, READONLY, ANY },
	{ ONE(MSR_MTRRcap), VALUE, READONLY, ANY, .bits = MTRR_CAP },
	{ ONE(MSR_IA32_ARCH_CAPABILITIES), FIELD, HOST, HAS(ARCH_CAPABILITIES), SAVED,
	  IN(msrs.arch_capabilities) },
	{ ONE(MSR_IA32_FLUSH_CMD), NOTHING, COMMAND, HAS(FLUSH_L1D), .bits = L1D_FLUSH },
	{ ONE(MSR_MISC_FEATURES_ENABLES), VALUE, READONLY, ANY },
	{ ONE(MSR_IA32_SYSENTER_CS), REG, BITS, ANY, SAVED, FONDA_REG_SYSENTER_CS, WORD },
	{ MSR_IA32_SYSENTER_ESP, MSR_IA32_SYSENTER_EIP, REG, ADDRESS, ANY, SAVED,
	  FONDA_REG_SYSENTER_ESP },
	{ ONE(MSR_IA32_MCG_CAP), FIELD, READONLY, ANY, false, IN(msrs.mcg_cap) },
	{ ONE(MSR_IA32_MCG_STATUS), FIELD, BITS, ANY, SAVED, IN(msrs.mcg_status), ALL },
	{ ONE(MSR_IA32_MCG_CTL), FIELD, SET_MCG_CTL, ANY, false, IN(msrs.mcg_ctl) },
	{ ONE(MSR_IA32_MISC_ENABLE), FIELD, SET_MISC_ENABLE, ANY, SAVED, IN(msrs.misc_enable) },
	{ ONE(MSR_IA32_DEBUGCTLMSR), REG, SET_DEBUGCTL, ANY, SAVED, FONDA_REG_DEBUGCTL },
	{ MSR_IA32_LASTBRANCHFROMIP, MSR_IA32_LASTINTTOIP, VALUE, READONLY, ANY },
	{ MTRRphysBase_MSR(0), MTRRphysMask_MSR(FONDA_MTRR_VARIABLE - 1), FIELD, SET_MTRR, ANY,
	  SAVED, IN(msrs.mtrr_variable) },
	{ ONE(MSR_MTRRfix64K_00000), FIELD, TYPES, ANY, SAVED, IN(msrs.mtrr_fixed[0]), ALL },
	{ MSR_MTRRfix16K_80000, MSR_MTRRfix16K_A0000, FIELD, TYPES, ANY, SAVED,
	  IN(msrs.mtrr_fixed[1]), ALL },
	{ MSR_MTRRfix4K_C0000, MSR_MTRRfix4K_F8000, FIELD, TYPES, ANY, SAVED,
	  IN(msrs.mtrr_fixed[3]), ALL },
	{ ONE(MSR_IA32_CR_PAT), REG, TYPES, ANY, SAVED, FONDA_REG_PAT, ALL },
	{ ONE(MSR_MTRRdefType), FIELD, TYPES, ANY, SAVED, IN(msrs.mtrr_default), 0xff },
	{ MSR_IA32_MC0_CTL, MSR_IA32_MCx_MISC(FONDA_MCE_BANKS - 1), BANK, SET_BANK, ANY },
	{ ONE(MSR_IA32_TSC_DEADLINE), LAPIC, SET_APIC, HAS(TSC_DEADLINE), SAVED },
	{ MSR_X2APIC_BASE, MSR_X2APIC_BASE + MSR_X2APIC_COUNT - 1, LAPIC, SET_APIC, ANY },
	{ ONE(MSR_KVM_WALL_CLOCK_NEW), WALL_CLOCK, SET_WALL_CLOCK, ANY, SAVED },
	{ ONE(MSR_KVM_SYSTEM_TIME_NEW), FIELD, SET_SYSTEM_TIME, ANY, SAVED,
	  IN(clock.system_time) },
	{ ONE(MSR_KVM_STEAL_TIME), FIELD, SET_STEAL_TIME, ANY, SAVED, IN(clock.steal_msr) },
	{ ONE(MSR_EFER), REG, SET_EFER, ANY, false, FONDA_REG_EFER },
	{ ONE(MSR_STAR), REG, BITS, HAS(SYSCALL), SAVED, FONDA_REG_STAR, ALL },
	{ MSR_LSTAR, MSR_CSTAR, REG, ADDRESS, HAS(LM), SAVED, FONDA_REG_LSTAR },
	{ ONE(MSR_SYSCALL_MASK), REG, BITS, HAS(LM), SAVED, FONDA_REG_SFMASK, WORD },
	{ MSR_FS_BASE, MSR_GS_BASE, BASE, ADDRESS, HAS(LM) },
	{ ONE(MSR_KERNEL_GS_BASE), REG, ADDRESS, HAS(LM), SAVED, FONDA_REG_KERNEL_GS_BASE },
	{ ONE(MSR_TSC_AUX), FIELD, SET_TSC_AUX, HAS(TSC_AUX), SAVED, IN(msrs.tsc_aux) },
	/* Guests on AMD look at these unasked, whatever CPUID says. */
	{ MSR_K7_EVNTSEL0, MSR_K7_PERFCTR3, VALUE, IGNORED, ANY },
	{ ONE(MSR_AMD64_SYSCFG), VALUE, READONLY, ANY },
	{ ONE(MSR_K7_HWCR), FIELD, SET_HWCR, ANY, SAVED, IN(msrs.hwcr) },
	{ ONE(MSR_AMD64_NB_CFG), VALUE, IGNORED, ANY },
	{ ONE(MSR_AMD64_PATCH_LOADER), NOTHING, IGNORED, ANY },
	{ ONE(MSR_K8_INT_PENDING_MSG), VALUE, IGNORED, ANY },
	{ ONE(MSR_FAM10H_MMIO_CONF_BASE), VALUE, IGNORED, ANY },
	{ MSR_K8_TSEG_ADDR, MSR_VM_HSAVE_PA, VALUE, READONLY, ANY },
	{ MSR_AMD64_OSVW_ID_LENGTH, MSR_AMD64_OSVW_STATUS, FIELD, HOST, HAS(OSVW), SAVED,
	  IN(msrs.osvw) },
	{ ONE(MSR_AMD64_DC_CFG), VALUE, IGNORED, ANY },
	/* LFENCE serializes. */
	{ ONE(MSR_AMD64_DE_CFG), VALUE, READONLY, ANY, .bits = BIT(1) },
	{ ONE(MSR_AMD64_BU_CFG2), VALUE, IGNORED, ANY },
};

/* Registers of a machine-check bank, in the order of their MSRs. */
enum { BANK_CTL, BANK_STATUS, BANK_ADDR, BANK_MISC, BANK_REGS };

static u32 nr_banks(struct fonda_vcpu *vcpu)
{
	return vcpu->msrs.mcg_cap & MCG_BANKCNT_MASK;
}

static u64 *field(struct fonda_vcpu *vcpu, const struct msr_desc *d, u32 i)
{
	return (void *)vcpu + d->where + i * sizeof(u64);
}

/* @i counts from desc.first. 0, MSR_INVALID or MSR_UNKNOWN. */
static int load(struct fonda_vcpu *vcpu, const struct msr_desc *d, u32 i, u64 *val)
{
	struct fonda_segment s;

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
	case BASE:
		fonda_backend->get_segment(vcpu, FONDA_SEG_FS + i, &s);
		*val = s.base;
		return 0;
	case LAPIC:
		return fonda_lapic_read_msr(vcpu, d->first + i, val);
	case BANK:
		if (i >= nr_banks(vcpu) * BANK_REGS)
			return MSR_UNKNOWN;
		*val = vcpu->msrs.mce_banks[i];
		return 0;
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

/* A value that was checked, into what has no rules of its own. */
static int store(struct fonda_vcpu *vcpu, const struct msr_desc *d, u32 i, u64 val)
{
	struct fonda_segment s;

	if (d->kept == REG) {
		fonda_backend->write_reg(vcpu, d->where + i, val);
	} else if (d->kept == BASE) {
		fonda_backend->get_segment(vcpu, FONDA_SEG_FS + i, &s);
		s.base = val;
		fonda_backend->set_segment(vcpu, FONDA_SEG_FS + i, &s);
	} else {
		*field(vcpu, d, i) = val;
	}
	return 0;
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

static int set_tsc_aux(struct fonda_vcpu *vcpu, u64 val)
{
	/* AMD drops the upper half, Intel refuses it. */
	if (val >> 32 && !fonda_guest_has(vcpu, FONDA_HAS_AMD_RULES))
		return MSR_INVALID;
	vcpu->msrs.tsc_aux = (u32)val;
	if (vcpu->atomic)
		wrmsrq(MSR_TSC_AUX, (u32)val);
	return 0;
}

/* Every byte of @types is one of UC, WC, WT, WP, WB; @pat has UC- as well. */
static bool types_valid(u64 types, bool pat)
{
	const u8 valid = BIT(MTRR_TYPE_UNCACHABLE) | BIT(MTRR_TYPE_WRCOMB) |
			 BIT(MTRR_TYPE_WRTHROUGH) | BIT(MTRR_TYPE_WRPROT) |
			 BIT(MTRR_TYPE_WRBACK) | (pat ? BIT(7) : 0);

	for (; types; types >>= 8)
		if ((types & 0xf8) || !(valid & BIT(types & 7)))
			return false;
	return true;
}

/* Pairs of base and mask. ("Variable Range MTRRs") */
static bool mtrr_valid(struct fonda_vcpu *vcpu, u32 i, u64 val)
{
	u64 address = GENMASK_ULL(vcpu->cpuid.phys_bits - 1, 12);

	if (i & 1)
		return !(val & ~(address | BIT(11)));
	return !(val & ~(address | 0xff)) && types_valid(val & 0xff, false);
}

static int set_bank(struct fonda_vcpu *vcpu, u32 i, u64 val, bool host)
{
	/* Linux clears bit 10 of an AMD bank, and other systems bit 0. */
	const u64 free_bits = BIT(10) | BIT(0);
	/* McStatusWrEn of HWCR */
	bool status_writable = vcpu->msrs.hwcr & BIT(18) &&
			       fonda_guest_has(vcpu, FONDA_HAS_AMD_RULES);

	if (i >= nr_banks(vcpu) * BANK_REGS)
		return MSR_UNKNOWN;
	if (!host && val &&
	    ((i % BANK_REGS == BANK_CTL && ~(val | free_bits)) ||
	     (i % BANK_REGS == BANK_STATUS && !status_writable)))
		return MSR_INVALID;
	vcpu->msrs.mce_banks[i] = val;
	return 0;
}

/* Can the guest, or user space, write @val there? Those without side effects. */
static bool is_valid(struct fonda_vcpu *vcpu, const struct msr_desc *d, u32 i, u64 *val, bool host)
{
	const u64 readonly = MSR_IA32_MISC_ENABLE_EMON | MSR_IA32_MISC_ENABLE_BTS_UNAVAIL |
			     MSR_IA32_MISC_ENABLE_PEBS_UNAVAIL;

	switch (d->rule) {
	case HOST:
		return host;
	case BITS:
		return !(*val & ~d->bits);
	case ADDRESS:
		return fonda_is_canonical(vcpu, *val);
	case TYPES:
		/* MTRRdefType has two flags beside its type. */
		return types_valid(*val & d->bits, d->kept == REG) &&
		       !(*val & ~d->bits & ~0xc00ull);
	case SET_SPEC_CTRL:
		return !(*val & ~(u64)vcpu->cpuid.spec_ctrl);
	case SET_MISC_ENABLE:
		return host || !((*val ^ vcpu->msrs.misc_enable) & readonly);
	case SET_DEBUGCTL:
		/* Branch records are not virtualized: asking for them does nothing. */
		*val &= ~(u64)DEBUGCTLMSR_LBR;
		return !(*val & ~(u64)DEBUGCTLMSR_BTF);
	case SET_HWCR:
		/* Firmware sets these, about caches, FERR and IGNNE: no meaning here. */
		*val &= ~(u64)(BIT(3) | BIT(6) | BIT(8));
		return !(*val & ~(u64)(BIT(18) | BIT(24)));
	case SET_MTRR:
		return mtrr_valid(vcpu, i, *val);
	case SET_MCG_CTL:
		return vcpu->msrs.mcg_cap & MCG_CTL_P && (host || !*val || !~*val);
	default:
		return false;
	}
}

/* Also FONDA_RETRY_SLEEPING, when nothing has been done yet. */
static int check_and_store(struct fonda_vcpu *vcpu, const struct msr_desc *d, u32 i, u64 val,
			   bool host)
{
	u64 old;

	switch (d->rule) {
	case READONLY:
		return host && !load(vcpu, d, i, &old) && val == old ? 0 : MSR_INVALID;
	case IGNORED:
		return 0;
	case COMMAND:
		if (val & ~d->bits)
			return MSR_INVALID;
		if (val && !host)
			wrmsrq(d->first, val);
		return 0;
	case SET_TSC:
		return fonda_set_tsc(vcpu, val, host);
	case SET_TSC_ADJUST:
		return fonda_set_tsc_adjust(vcpu, val, host);
	case SET_SYSTEM_TIME:
		return fonda_set_system_time(vcpu, val);
	case SET_WALL_CLOCK:
		return fonda_set_wall_clock(vcpu, val, host);
	case SET_STEAL_TIME:
		return fonda_set_steal_time(vcpu, val);
	case SET_APIC:
		return fonda_lapic_write_msr(vcpu, d->first + i, val, host);
	case SET_EFER:
		return set_efer(vcpu, val, host);
	case SET_TSC_AUX:
		return set_tsc_aux(vcpu, val);
	case SET_MICROCODE:
		/* The guest's attempts to load some are ignored, as firmware's are. */
		if (host)
			vcpu->msrs.microcode_rev = val;
		return 0;
	case SET_BANK:
		return set_bank(vcpu, i, val, host);
	default:
		if (!is_valid(vcpu, d, i, &val, host))
			return MSR_INVALID;
		return store(vcpu, d, i, val);
	}
}

static __always_inline const struct msr_desc *find(u32 msr)
{
	u32 nr = ARRAY_SIZE(msrs), half;
	const struct msr_desc *d = msrs;

	/* The last one that does not begin behind @msr. */
	for (; nr > 1; nr -= half) {
		half = nr / 2;
		if (d[half].first <= msr)
			d += half;
	}
	return d->first <= msr && msr <= d->last ? d : NULL;
}

static __always_inline bool available(struct fonda_vcpu *vcpu, const struct msr_desc *d, bool host)
{
	if (d->feature == ANY)
		return true;
	/* User space may restore MSRs before it sets the CPUID that has them. */
	return host ? fonda_supported(d->feature) : fonda_guest_has(vcpu, d->feature);
}

/* The processor may speculate past find(); this must not lead it astray. */
static __always_inline u32 index_in(const struct msr_desc *d, u32 msr)
{
	return array_index_nospec(msr - d->first, d->last - d->first + 1);
}

static int get_msr(struct fonda_vcpu *vcpu, u32 msr, u64 *val, bool host)
{
	const struct msr_desc *d = find(msr);

	if (!d || !available(vcpu, d, host))
		return MSR_UNKNOWN;
	return load(vcpu, d, index_in(d, msr), val);
}

static int set_msr(struct fonda_vcpu *vcpu, u32 msr, u64 val, bool host)
{
	const struct msr_desc *d = find(msr);

	if (!d || !available(vcpu, d, host))
		return MSR_UNKNOWN;
	return check_and_store(vcpu, d, index_in(d, msr), val, host);
}

/* -- machine checks --------------------------------------------------------- */

long fonda_dev_x86_get_mce_cap_supported(void *arg)
{
	*(u64 *)arg = MCG_CAP_SUPPORTED;
	return 0;
}

long fonda_vcpu_x86_setup_mce(struct fonda_vcpu *vcpu, void *arg)
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
		vcpu->msrs.mce_banks[i * BANK_REGS + BANK_CTL] = ~0ull;
	return 0;
}

/* -- power-up --------------------------------------------------------------- */

static u64 host_microcode_rev(void)
{
	u64 rev = boot_cpu_data.microcode;

	/* Intel has it in the upper half. */
	return boot_cpu_data.x86_vendor == X86_VENDOR_INTEL ? rev << 32 : rev;
}

static u64 host_arch_capabilities(void)
{
	u64 val = 0;

	if (fonda_supported(FONDA_HAS_ARCH_CAPABILITIES))
		rdmsrq(MSR_IA32_ARCH_CAPABILITIES, val);
	/* Whoever runs the guest flushes where that is needed. */
	return (val & ARCH_CAPABILITIES_OFFERED) | ARCH_CAP_SKIP_VMENTRY_L1DFLUSH;
}

int fonda_state_vcpu_init(struct fonda_vcpu *vcpu)
{
	struct fonda_msrs *m = &vcpu->msrs;

	m->mce_banks = kcalloc(FONDA_MCE_BANKS * BANK_REGS, sizeof(u64), GFP_KERNEL_ACCOUNT);
	if (!m->mce_banks)
		return -ENOMEM;
	m->mcg_cap = FONDA_MCE_BANKS;
	m->microcode_rev = host_microcode_rev();
	m->arch_capabilities = host_arch_capabilities();
	/* Errata 0 to 2 are known about, and none of them concerns a guest. */
	m->osvw[0] = 3;
	fonda_cpuid_init(vcpu);
	return 0;
}

void fonda_state_vcpu_fini(struct fonda_vcpu *vcpu)
{
	kvfree(vcpu->cpuid.entries);
	kfree(vcpu->msrs.mce_banks);
}

void fonda_state_reset(struct fonda_vcpu *vcpu, bool init)
{
	struct fonda_msrs *m = &vcpu->msrs;

	/* INIT leaves extended state, MSRs and clocks as they are. */
	if (init)
		return;
	fonda_fpu_reset(vcpu);
	m->tsc_aux = 0;
	m->spec_ctrl = 0;
	m->hwcr = 0;
	m->misc_enable = MSR_IA32_MISC_ENABLE_FAST_STRING |
			 MSR_IA32_MISC_ENABLE_BTS_UNAVAIL | MSR_IA32_MISC_ENABLE_PEBS_UNAVAIL;
	m->mtrr_default = 0;
	memset(m->mtrr_fixed, 0, sizeof(m->mtrr_fixed));
	memset(m->mtrr_variable, 0, sizeof(m->mtrr_variable));
	m->mcg_status = 0;
	vcpu->clock.tsc_adjust = 0;
	vcpu->clock.system_time = 0;
	vcpu->clock.steal_msr = 0;
}

/* -- RDMSR and WRMSR -------------------------------------------------------- */

/* What a busy guest uses most needs no search. */
static bool is_hot(struct fonda_vcpu *vcpu, u32 msr)
{
	return msr - MSR_X2APIC_BASE < MSR_X2APIC_COUNT ||
	       (msr == MSR_IA32_TSC_DEADLINE && fonda_guest_has(vcpu, FONDA_HAS_TSC_DEADLINE));
}

static int refuse(struct fonda_vcpu *vcpu, int why)
{
	if (why == FONDA_RETRY_SLEEPING)
		return why;
	fonda_queue_exception_error(vcpu, X86_TRAP_GP, 0);
	return FONDA_RESUME_GUEST;
}

int fonda_emulate_rdmsr(struct fonda_vcpu *vcpu, int insn_len)
{
	u32 msr = vcpu->regs[FONDA_RCX];
	u64 val = 0;
	int ret;

	ret = is_hot(vcpu, msr) ? fonda_lapic_read_msr(vcpu, msr, &val) :
				  get_msr(vcpu, msr, &val, false);
	if (unlikely(ret))
		return refuse(vcpu, ret);
	vcpu->regs[FONDA_RAX] = (u32)val;
	vcpu->regs[FONDA_RDX] = val >> 32;
	return fonda_skip_insn(vcpu, insn_len);
}

int fonda_emulate_wrmsr(struct fonda_vcpu *vcpu, int insn_len)
{
	u64 val = (u32)vcpu->regs[FONDA_RAX] | (u64)vcpu->regs[FONDA_RDX] << 32;
	u32 msr = vcpu->regs[FONDA_RCX];
	int ret;

	ret = is_hot(vcpu, msr) ? fonda_lapic_write_msr(vcpu, msr, val, false) :
				  set_msr(vcpu, msr, val, false);
	return unlikely(ret) ? refuse(vcpu, ret) : fonda_skip_insn(vcpu, insn_len);
}

/* -- ioctls ----------------------------------------------------------------- */

/* What VMMs need to know of the machine before there is a vCPU. */
static const u32 feature_msrs[] = {
	MSR_AMD64_DE_CFG, MSR_IA32_UCODE_REV, MSR_IA32_ARCH_CAPABILITIES,
};

static int nr_feature_msrs(void)
{
	return ARRAY_SIZE(feature_msrs) - !fonda_supported(FONDA_HAS_ARCH_CAPABILITIES);
}

static int get_feature_msr(u32 msr, u64 *val)
{
	if (msr == MSR_IA32_UCODE_REV)
		*val = host_microcode_rev();
	else if (msr == MSR_AMD64_DE_CFG)
		*val = find(msr)->bits;
	else if (msr == MSR_IA32_ARCH_CAPABILITIES && nr_feature_msrs() == 3)
		*val = host_arch_capabilities();
	else
		return MSR_UNKNOWN;
	return 0;
}

enum { FEATURES_GET, VCPU_GET, VCPU_SET };

/* How many were done before one was refused. */
static long access_msrs(struct fonda_vcpu *vcpu, void *arg, int what)
{
	struct kvm_msrs __user *ulist = (void __user *)arg;
	struct kvm_msr_entry e;
	u32 nr, i;
	int ret;

	if (get_user(nr, &ulist->nmsrs))
		return -EFAULT;
	if (nr >= 256)
		return -E2BIG;
	for (i = 0; i < nr; i++) {
		if (copy_from_user(&e, &ulist->entries[i], sizeof(e)))
			return -EFAULT;
		if (what == VCPU_SET) {
			ret = set_msr(vcpu, e.index, e.data, true);
		} else {
			e.data = 0;
			ret = what == VCPU_GET ? get_msr(vcpu, e.index, &e.data, true) :
						 get_feature_msr(e.index, &e.data);
			if (!ret && put_user(e.data, &ulist->entries[i].data))
				return -EFAULT;
		}
		if (ret)
			break;
	}
	return i;
}

long fonda_vcpu_get_msrs(struct fonda_vcpu *vcpu, void *arg)
{
	return access_msrs(vcpu, arg, VCPU_GET);
}

long fonda_vcpu_set_msrs(struct fonda_vcpu *vcpu, void *arg)
{
	return access_msrs(vcpu, arg, VCPU_SET);
}

long fonda_dev_get_msrs(void *arg)
{
	return access_msrs(NULL, arg, FEATURES_GET);
}

/* The number always; the list where there is room, else -E2BIG. */
static long give_list(struct kvm_msr_list __user *ulist, const u32 *list, u32 nr)
{
	u32 room;

	if (get_user(room, &ulist->nmsrs) || put_user(nr, &ulist->nmsrs))
		return -EFAULT;
	if (room < nr)
		return -E2BIG;
	return copy_to_user(ulist->indices, list, nr * sizeof(*list)) ? -EFAULT : 0;
}

long fonda_dev_get_msr_index_list(void *arg)
{
	u32 list[96], nr = 0, msr;
	int i;

	for (i = 0; i < ARRAY_SIZE(msrs); i++) {
		const struct msr_desc *d = &msrs[i];

		if (!d->saved || !available(NULL, d, true))
			continue;
		for (msr = d->first; msr <= d->last && nr < ARRAY_SIZE(list); msr++)
			list[nr++] = msr;
	}
	return give_list((void __user *)arg, list, nr);
}

long fonda_dev_get_msr_feature_index_list(void *arg)
{
	return give_list((void __user *)arg, feature_msrs, nr_feature_msrs());
}
