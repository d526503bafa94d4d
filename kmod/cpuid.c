// SPDX-License-Identifier: GPL-2.0-only
/*
 * CPUID: what fonda can offer a guest on this machine, the leaves that user
 * space chose from it, and the instruction itself. Leaves are user space's to
 * answer for; only what depends on the guest's state is computed here, when the
 * guest asks. Which features the rest of fonda may rely on is worked out once,
 * in update().
 */
#include <linux/bits.h>
#include <linux/kvm_para.h>
#include <linux/mm.h>
#include <linux/uaccess.h>
#include <asm/cpufeature.h>
#include <asm/processor.h>

#include "backend.h"

/* Leaves of which no more is offered: the last of each range. */
#define MAX_BASIC_LEAF		0xd
#define MAX_EXTENDED_AMD	0x80000021
#define MAX_EXTENDED_INTEL	0x80000008
/* Programs of the rust-vmm family have room for no more. */
#define MAX_OFFERED		80

#define F(name)	X86_FEATURE_##name

/* Features that the guest's instructions use without fonda's help. */
static const u16 passed_through[] = {
	F(FPU), F(VME), F(DE), F(PSE), F(TSC), F(MSR), F(PAE), F(CX8), F(SEP), F(PGE),
	F(CMOV), F(PSE36), F(CLFLUSH), F(MMX), F(FXSR), F(XMM), F(XMM2),
	F(XMM3), F(PCLMULQDQ), F(SSSE3), F(FMA), F(CX16), F(PCID), F(XMM4_1), F(XMM4_2),
	F(MOVBE), F(POPCNT), F(AES), F(XSAVE), F(AVX), F(F16C), F(RDRAND),
	F(FSGSBASE), F(BMI1), F(HLE), F(AVX2), F(FDP_EXCPTN_ONLY), F(SMEP), F(BMI2),
	F(ERMS), F(INVPCID), F(RTM), F(ZERO_FCS_FDS), F(AVX512F), F(AVX512DQ), F(RDSEED),
	F(ADX), F(SMAP), F(AVX512IFMA), F(CLFLUSHOPT), F(CLWB),
	F(AVX512CD), F(SHA_NI), F(AVX512BW), F(AVX512VL),
	F(AVX512VBMI), F(UMIP), F(AVX512_VBMI2), F(GFNI), F(VAES), F(VPCLMULQDQ),
	F(AVX512_VNNI), F(AVX512_BITALG), F(AVX512_VPOPCNTDQ), F(LA57), F(RDPID),
	F(CLDEMOTE), F(MOVDIRI), F(MOVDIR64B), F(FSRM), F(AVX512_VP2INTERSECT), F(MD_CLEAR),
	F(SERIALIZE), F(TSXLDTRK), F(AVX512_FP16), F(AVX_VNNI), F(AVX512_BF16),
	F(XSAVEOPT), F(XSAVEC), F(XGETBV1),
	F(SYSCALL), F(NX), F(MMXEXT), F(FXSR_OPT), F(GBPAGES), F(RDTSCP), F(LM),
	F(3DNOWEXT), F(3DNOW),
	F(LAHF_LM), F(CR8_LEGACY), F(ABM), F(SSE4A), F(MISALIGNSSE), F(3DNOWPREFETCH),
	F(XOP), F(FMA4), F(TBM), F(TOPOEXT),
	F(CLZERO), F(XSAVEERPTR), F(WBNOINVD), F(AMD_SSB_NO), F(AMD_STIBP_ALWAYS_ON), F(BTC_NO),
	/* With an MSR, which msr.c has. */
	F(OSVW), F(AMD_IBPB), F(AMD_IBRS), F(AMD_STIBP), F(AMD_SSBD), F(SPEC_CTRL),
	F(INTEL_STIBP), F(SPEC_CTRL_SSBD), F(FLUSH_L1D), F(ARCH_CAPABILITIES),
};

/* What fonda itself makes, whatever this machine has. */
static const u16 emulated[] = {
	F(MCE), F(APIC), F(MTRR), F(MCA), F(PAT), F(X2APIC), F(TSC_DEADLINE_TIMER),
	F(HYPERVISOR), F(TSC_ADJUST),
};

/* The kernel keeps features in words; these are registers of CPUID. */
struct feature_word {
	u8 word;
	u8 reg;		/* EAX, EBX, ECX, EDX */
	u8 subleaf;
	u32 leaf;
};

static const struct feature_word feature_words[] = {
	{ CPUID_1_EDX,		3, 0, 1 },
	{ CPUID_1_ECX,		2, 0, 1 },
	{ CPUID_7_0_EBX,	1, 0, 7 },
	{ CPUID_7_ECX,		2, 0, 7 },
	{ CPUID_7_EDX,		3, 0, 7 },
	{ CPUID_7_1_EAX,	0, 1, 7 },
	{ CPUID_D_1_EAX,	0, 1, 0xd },
	{ CPUID_8000_0001_EDX,	3, 0, 0x80000001 },
	{ CPUID_8000_0001_ECX,	2, 0, 0x80000001 },
	{ CPUID_8000_0008_EBX,	1, 0, 0x80000008 },
};

/* Offered features, by the kernel's words. Written once. */
static u32 offered[NCAPINTS] __ro_after_init;

/* Those that the rest of fonda asks about. */
static const u16 feature_bits[] = {
	[FONDA_HAS_PCID]		= F(PCID),
	[FONDA_HAS_X2APIC]		= F(X2APIC),
	[FONDA_HAS_TSC_DEADLINE]	= F(TSC_DEADLINE_TIMER),
	[FONDA_HAS_XSAVE]		= F(XSAVE),
	[FONDA_HAS_FSGSBASE]		= F(FSGSBASE),
	[FONDA_HAS_TSC_ADJUST]		= F(TSC_ADJUST),
	[FONDA_HAS_SMEP]		= F(SMEP),
	[FONDA_HAS_SMAP]		= F(SMAP),
	[FONDA_HAS_INVPCID]		= F(INVPCID),
	[FONDA_HAS_UMIP]		= F(UMIP),
	[FONDA_HAS_LA57]		= F(LA57),
	[FONDA_HAS_RDPID]		= F(RDPID),
	[FONDA_HAS_SYSCALL]		= F(SYSCALL),
	[FONDA_HAS_NX]			= F(NX),
	[FONDA_HAS_FXSR_OPT]		= F(FXSR_OPT),
	[FONDA_HAS_GBPAGES]		= F(GBPAGES),
	[FONDA_HAS_RDTSCP]		= F(RDTSCP),
	[FONDA_HAS_LM]			= F(LM),
	[FONDA_HAS_OSVW]		= F(OSVW),
	[FONDA_HAS_AMD_IBPB]		= F(AMD_IBPB),
	[FONDA_HAS_AMD_IBRS]		= F(AMD_IBRS),
	[FONDA_HAS_AMD_STIBP]		= F(AMD_STIBP),
	[FONDA_HAS_AMD_SSBD]		= F(AMD_SSBD),
	[FONDA_HAS_INTEL_IBRS]		= F(SPEC_CTRL),
	[FONDA_HAS_INTEL_STIBP]		= F(INTEL_STIBP),
	[FONDA_HAS_INTEL_SSBD]		= F(SPEC_CTRL_SSBD),
	[FONDA_HAS_FLUSH_L1D]		= F(FLUSH_L1D),
	[FONDA_HAS_ARCH_CAPABILITIES]	= F(ARCH_CAPABILITIES),
};


static bool on_amd(void)
{
	return boot_cpu_data.x86_vendor == X86_VENDOR_AMD ||
	       boot_cpu_data.x86_vendor == X86_VENDOR_HYGON;
}

static void read_cpuid(u32 leaf, u32 subleaf, u32 regs[4])
{
	cpuid_count(leaf, subleaf, &regs[0], &regs[1], &regs[2], &regs[3]);
}

int __init fonda_state_init(void)
{
	u32 max_basic = cpuid_eax(0), max_extended = cpuid_eax(0x80000000);
	u32 regs[4];
	int i;

	for (i = 0; i < ARRAY_SIZE(passed_through); i++)
		if (boot_cpu_has(passed_through[i]))
			offered[passed_through[i] / 32] |= BIT(passed_through[i] % 32);

	/* The kernel sets some that the processor does not announce. */
	for (i = 0; i < ARRAY_SIZE(feature_words); i++) {
		const struct feature_word *w = &feature_words[i];

		if (w->leaf > (w->leaf & BIT(31) ? max_extended : max_basic))
			memset(regs, 0, sizeof(regs));
		else
			read_cpuid(w->leaf, w->subleaf, regs);
		offered[w->word] &= regs[w->reg];
	}
	for (i = 0; i < ARRAY_SIZE(emulated); i++)
		offered[emulated[i] / 32] |= BIT(emulated[i] % 32);

	fonda_fpu_setup();
	fonda_clock_setup();
	return 0;
}

/* -- what is offered -------------------------------------------------------- */

struct offer {
	struct kvm_cpuid_entry2 *entries;
	int nr;
};

/* One more leaf, all zero. */
static struct kvm_cpuid_entry2 *add_zero(struct offer *offer, u32 leaf)
{
	struct kvm_cpuid_entry2 *e;

	/* What is added below is bounded by less than half of it. */
	if (WARN_ON_ONCE(offer->nr == MAX_OFFERED))
		offer->nr--;
	e = &offer->entries[offer->nr++];
	*e = (struct kvm_cpuid_entry2){ .function = leaf };
	return e;
}

/* One more leaf, as this machine has it. */
static struct kvm_cpuid_entry2 *add(struct offer *offer, u32 leaf)
{
	struct kvm_cpuid_entry2 *e = add_zero(offer, leaf);

	cpuid_count(leaf, 0, &e->eax, &e->ebx, &e->ecx, &e->edx);
	return e;
}

static struct kvm_cpuid_entry2 *add_indexed(struct offer *offer, u32 leaf, u32 subleaf)
{
	struct kvm_cpuid_entry2 *e = add_zero(offer, leaf);

	e->index = subleaf;
	e->flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
	cpuid_count(leaf, subleaf, &e->eax, &e->ebx, &e->ecx, &e->edx);
	return e;
}

/* Leaves 4 and 8000001D: one subleaf a cache, until the type is 0. */
static void offer_caches(struct offer *offer, u32 leaf)
{
	int i;

	for (i = 0; i < 8; i++)
		if (!(add_indexed(offer, leaf, i)->eax & 0x1f))
			break;
}

static void offer_xstate(struct offer *offer)
{
	struct kvm_cpuid_entry2 *e;
	int i;

	e = add_indexed(offer, 0xd, 0);
	e->eax = fonda_xcr0_supported;
	e->ebx = e->ecx = fonda_xstate_size(fonda_xcr0_supported, false);
	e->edx = fonda_xcr0_supported >> 32;

	e = add_indexed(offer, 0xd, 1);
	e->eax = offered[CPUID_D_1_EAX];
	/* Without XSAVES there is no supervisor state. */
	e->ebx = fonda_xstate_size(fonda_xcr0_supported, true);
	e->ecx = 0;
	e->edx = 0;
	for (i = 2; i < 63; i++)
		if (fonda_xcr0_supported & BIT_ULL(i))
			add_indexed(offer, 0xd, i)->edx = 0;
}

static void offer_basic(struct offer *offer)
{
	u32 max = min_t(u32, cpuid_eax(0), MAX_BASIC_LEAF);
	struct kvm_cpuid_entry2 *e;

	add(offer, 0)->eax = max;
	e = add(offer, 1);
	/* The size of a CLFLUSH line; APIC id and count are user space's. */
	e->ebx &= 0xff00;
	e->ecx = offered[CPUID_1_ECX];
	e->edx = offered[CPUID_1_EDX];
	if (!on_amd()) {
		add(offer, 2)->eax |= 1;
		if (max >= 4)
			offer_caches(offer, 4);
	}
	if (max >= 6)
		add_zero(offer, 6)->eax = BIT(2);	/* ARAT: the timer never stops */
	if (max >= 7) {
		bool more = offered[CPUID_7_1_EAX];

		e = add_indexed(offer, 7, 0);
		e->eax = more;
		e->ebx = offered[CPUID_7_0_EBX];
		e->ecx = offered[CPUID_7_ECX];
		e->edx = offered[CPUID_7_EDX];
		if (more) {
			e = add_indexed(offer, 7, 1);
			e->eax = offered[CPUID_7_1_EAX];
			e->ebx = e->ecx = e->edx = 0;
		}
	}
	if (max >= 0xa)
		add_zero(offer, 0xa);			/* no performance counters */
	if (max >= 0xb)
		add_zero(offer, 0xb)->flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
	if (max >= 0xd && (offered[CPUID_1_ECX] & BIT(X86_FEATURE_XSAVE % 32)))
		offer_xstate(offer);
}

static void offer_hypervisor(struct offer *offer)
{
	static const char signature[12] = "KVMKVMKVM\0\0";
	struct kvm_cpuid_entry2 *e = add_zero(offer, KVM_CPUID_SIGNATURE);

	e->eax = KVM_CPUID_FEATURES;
	memcpy(&e->ebx, signature, 4);
	memcpy(&e->ecx, signature + 4, 4);
	memcpy(&e->edx, signature + 8, 4);
	e = add_zero(offer, KVM_CPUID_FEATURES);
	e->eax = BIT(KVM_FEATURE_CLOCKSOURCE) | BIT(KVM_FEATURE_CLOCKSOURCE2) |
		 BIT(KVM_FEATURE_NOP_IO_DELAY) | BIT(KVM_FEATURE_CLOCKSOURCE_STABLE_BIT) |
		 BIT(KVM_FEATURE_STEAL_TIME);
}

static void offer_extended(struct offer *offer)
{
	/* AMD repeats these bits of leaf 1 EDX in 8000_0001. */
	const u32 repeated = 0x0183f3ff;
	u32 max = min_t(u32, cpuid_eax(0x80000000),
			on_amd() ? MAX_EXTENDED_AMD : MAX_EXTENDED_INTEL);
	u32 linear_bits = offered[CPUID_7_ECX] & BIT(X86_FEATURE_LA57 % 32) ? 57 : 48;
	struct kvm_cpuid_entry2 *e;
	u32 leaf;

	add(offer, 0x80000000)->eax = max;
	e = add(offer, 0x80000001);
	e->ebx &= on_amd() ? 0xf0000000 : 0;		/* package type */
	e->ecx = offered[CPUID_8000_0001_ECX];
	e->edx = offered[CPUID_8000_0001_EDX];
	if (on_amd())
		e->edx |= offered[CPUID_1_EDX] & repeated;
	for (leaf = 0x80000002; leaf <= min(max, 0x80000006); leaf++)
		add(offer, leaf);
	if (max >= 0x80000007)				/* the TSC never stops */
		add_zero(offer, 0x80000007)->edx = cpuid_edx(0x80000007) & BIT(8);
	if (max >= 0x80000008) {
		e = add_zero(offer, 0x80000008);
		e->eax = min_t(u32, boot_cpu_data.x86_phys_bits, FONDA_GPA_BITS) | linear_bits << 8;
		e->ebx = offered[CPUID_8000_0008_EBX];
	}
	if (max >= 0x8000001a)
		add(offer, 0x8000001a);			/* hints of speed */
	if (max >= 0x8000001e) {
		if (offered[CPUID_8000_0001_ECX] & BIT(X86_FEATURE_TOPOEXT % 32))
			offer_caches(offer, 0x8000001d);
		add_zero(offer, 0x8000001e);
	}
	if (max >= 0x80000021)
		/* LFENCE serializes; a null selector clears the base. */
		add_zero(offer, 0x80000021)->eax = cpuid_eax(0x80000021) & (BIT(2) | BIT(6));
}

/* Answer a list with room for as many as user space said; -E2BIG, -EFAULT. */
static long give_entries(struct kvm_cpuid2 __user *ulist,
			 const struct kvm_cpuid_entry2 *entries, u32 nr)
{
	u32 room;

	if (get_user(room, &ulist->nent))
		return -EFAULT;
	if (room < nr)
		return -E2BIG;
	if (copy_to_user(ulist->entries, entries, nr * sizeof(*entries)) ||
	    put_user(nr, &ulist->nent))
		return -EFAULT;
	return 0;
}

long fonda_dev_get_supported_cpuid(void *arg)
{
	struct offer offer = { };
	long ret;

	offer.entries = kcalloc(MAX_OFFERED, sizeof(*offer.entries), GFP_KERNEL_ACCOUNT);
	if (!offer.entries)
		return -ENOMEM;
	offer_basic(&offer);
	offer_hypervisor(&offer);
	offer_extended(&offer);
	ret = give_entries((void __user *)arg, offer.entries, offer.nr);
	kfree(offer.entries);
	return ret;
}

/* -- what the guest has ----------------------------------------------------- */

static struct kvm_cpuid_entry2 *find(const struct fonda_cpuid *c, u32 leaf, u32 subleaf)
{
	struct kvm_cpuid_entry2 *e = c->entries, *end = e + c->nr;

	if (likely(!(leaf & GENMASK(29, 5)))) {
		/* Bounded by the masks: no speculation leaves the table. */
		u32 first = c->first[leaf >> 30][leaf & 31];

		if (!first)
			return NULL;
		e += first - 1;
	}
	for (; e < end; e++)
		if (e->function == leaf &&
		    (!(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) || e->index == subleaf))
			return e;
	return NULL;
}

static u32 guest_reg(const struct fonda_cpuid *c, u32 leaf, u32 subleaf, int reg)
{
	const struct kvm_cpuid_entry2 *e = find(c, leaf, subleaf);

	return e ? (&e->eax)[reg] : 0;
}

/* Is it an AMD (or Hygon) processor that leaf 0 names? */
static bool names_amd(const struct fonda_cpuid *c)
{
	const struct kvm_cpuid_entry2 *e = find(c, 0, 0);

	return e && (!memcmp(&e->ebx, "Auth", 4) || !memcmp(&e->ebx, "Hygo", 4));
}

#define HAS(f)	(features & BIT_ULL(FONDA_HAS_##f))

static u32 spec_ctrl_bits(u64 features)
{
	return (HAS(AMD_IBRS) || HAS(INTEL_IBRS) ? SPEC_CTRL_IBRS : 0) |
	       (HAS(AMD_STIBP) || HAS(INTEL_STIBP) ? SPEC_CTRL_STIBP : 0) |
	       (HAS(AMD_SSBD) || HAS(INTEL_SSBD) ? SPEC_CTRL_SSBD : 0);
}

/* Offered features that the guest has; all of them without a CPUID. */
static u64 find_features(const struct fonda_cpuid *c)
{
	u64 features = 0;
	int i, j;

	for (i = 0; i < ARRAY_SIZE(feature_words); i++) {
		const struct feature_word *w = &feature_words[i];
		u32 bits = offered[w->word];

		if (c->entries)
			bits &= guest_reg(c, w->leaf, w->subleaf, w->reg);
		for (j = 0; j < ARRAY_SIZE(feature_bits); j++)
			if (feature_bits[j] / 32 == w->word && bits & BIT(feature_bits[j] % 32))
				features |= BIT_ULL(j);
	}
	if (HAS(RDTSCP) || HAS(RDPID))
		features |= BIT_ULL(FONDA_HAS_TSC_AUX);
	if (HAS(AMD_IBPB) || HAS(INTEL_IBRS))
		features |= BIT_ULL(FONDA_HAS_IBPB);
	if (spec_ctrl_bits(features))
		features |= BIT_ULL(FONDA_HAS_SPEC_CTRL);
	return features;
}

bool fonda_supported(enum fonda_feature feature)
{
	const struct fonda_cpuid none = { };

	return find_features(&none) & BIT_ULL(feature);
}

static u64 cr4_reserved(u64 features)
{
	u64 bits = X86_CR4_VME | X86_CR4_PVI | X86_CR4_TSD | X86_CR4_DE | X86_CR4_PSE |
		   X86_CR4_PAE | X86_CR4_MCE | X86_CR4_PGE | X86_CR4_PCE |
		   X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT;

	bits |= HAS(UMIP) ? X86_CR4_UMIP : 0;
	bits |= HAS(LA57) ? X86_CR4_LA57 : 0;
	bits |= HAS(FSGSBASE) ? X86_CR4_FSGSBASE : 0;
	bits |= HAS(PCID) ? X86_CR4_PCIDE : 0;
	bits |= HAS(XSAVE) ? X86_CR4_OSXSAVE : 0;
	bits |= HAS(SMEP) ? X86_CR4_SMEP : 0;
	bits |= HAS(SMAP) ? X86_CR4_SMAP : 0;
	return ~bits;
}

static u64 efer_reserved(u64 features)
{
	u64 bits = 0;

	bits |= HAS(SYSCALL) ? EFER_SCE : 0;
	bits |= HAS(LM) ? EFER_LME | EFER_LMA : 0;
	bits |= HAS(NX) ? EFER_NX : 0;
	bits |= HAS(FXSR_OPT) ? EFER_FFXSR : 0;
	return ~bits;
}

/* All that follows from the entries. */
static void update(struct fonda_cpuid *c)
{
	u64 features;
	u32 i;

	memset(c->first, 0, sizeof(c->first));
	for (i = c->nr; i-- > 0; ) {
		u32 leaf = c->entries[i].function;

		if (!(leaf & GENMASK(29, 5)))
			c->first[leaf >> 30][leaf & 31] = i + 1;
	}

	features = find_features(c);
	c->cr4_reserved = cr4_reserved(features);
	c->efer_reserved = efer_reserved(features);
	c->linear_bits = HAS(LA57) ? 57 : 48;
	c->phys_bits = guest_reg(c, 0x80000008, 0, 0) & 0xff;
	if (!c->phys_bits)
		c->phys_bits = 36;
	c->xcr0 = guest_reg(c, 0xd, 0, 0) | (u64)guest_reg(c, 0xd, 0, 3) << 32;
	c->xcr0 = (c->xcr0 & fonda_xcr0_supported) | XFEATURE_MASK_FP;

	if (names_amd(c))
		features |= BIT_ULL(FONDA_HAS_AMD_RULES);
	c->spec_ctrl = spec_ctrl_bits(features);
	/* A guest without a CPUID is offered nothing. */
	c->features = c->entries ? features : 0;
}

void fonda_cpuid_init(struct fonda_vcpu *vcpu)
{
	update(&vcpu->cpuid);
}

/* The parts of an entry that follow the state of the vCPU. */
static void patch(struct fonda_vcpu *vcpu, struct kvm_cpuid_entry2 *e)
{
	switch (e->function) {
	case 1:
		e->ecx &= ~BIT(X86_FEATURE_OSXSAVE % 32);
		if (fonda_backend->read_reg(vcpu, FONDA_REG_CR4) & X86_CR4_OSXSAVE)
			e->ecx |= BIT(X86_FEATURE_OSXSAVE % 32);
		if (vcpu->in_kernel_apic && !vcpu->lapic.enabled)
			e->edx &= ~BIT(X86_FEATURE_APIC % 32);
		break;
	case 0xd:
		if (!(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) || e->index == 0)
			e->ebx = fonda_xstate_size(vcpu->fpu.xcr0, false);
		else if (e->index == 1 && e->eax & BIT(X86_FEATURE_XSAVEC % 32))
			e->ebx = fonda_xstate_size(vcpu->fpu.xcr0, true);
		break;
	}
}

/*
 * A leaf beyond the last one of its range: Intel answers as for the last basic
 * leaf (SDM volume 2, "CPUID"), AMD with zeros (APM volume 3, "CPUID").
 */
static struct kvm_cpuid_entry2 *find_beyond(struct fonda_vcpu *vcpu, u32 leaf, u32 subleaf)
{
	const struct fonda_cpuid *c = &vcpu->cpuid;
	const struct kvm_cpuid_entry2 *range;
	u32 base = leaf & BIT(31);

	if (fonda_guest_has(vcpu, FONDA_HAS_AMD_RULES))
		return NULL;
	if (leaf >> 28 == 4)
		base = leaf & ~0xffu;
	range = find(c, base, 0);
	if (range && leaf <= range->eax)
		return NULL;
	return find(c, guest_reg(c, 0, 0, 0), subleaf);
}

/*
 * "Extended Topology Enumeration": ECX echoes the subleaf and EDX has the
 * x2APIC id even in levels that do not exist.
 */
static void fill_topology(const struct fonda_cpuid *c, u32 leaf, u32 *ecx, u32 *edx)
{
	const struct kvm_cpuid_entry2 *e = find(c, leaf, 1);
	u32 level = *ecx & 0xff;

	*ecx = e ? level : 0;
	*edx = e ? e->edx : 0;
}

void fonda_cpuid(struct fonda_vcpu *vcpu, u32 *eax, u32 *ebx, u32 *ecx, u32 *edx)
{
	struct fonda_cpuid *c = &vcpu->cpuid;
	struct kvm_cpuid_entry2 *e, patched;
	u32 leaf = *eax;

	e = find(c, leaf, *ecx);
	if (unlikely(!e)) {
		*eax = 0;
		*ebx = 0;
		if (leaf == 0xb || leaf == 0x1f) {
			fill_topology(c, leaf, ecx, edx);
			return;
		}
		e = find_beyond(vcpu, leaf, *ecx);
		if (!e) {
			*ecx = 0;
			*edx = 0;
			return;
		}
	}
	if (e->function == 1 || e->function == 0xd) {
		patched = *e;
		e = &patched;
		patch(vcpu, e);
	}
	*eax = e->eax;
	*ebx = e->ebx;
	*ecx = e->ecx;
	*edx = e->edx;
}

u32 fonda_cpuid_signature(struct fonda_vcpu *vcpu)
{
	/* As the manuals' reset tables have it, before there is a leaf 1. */
	return guest_reg(&vcpu->cpuid, 1, 0, 0) ?: 0x600;
}

bool fonda_is_canonical(struct fonda_vcpu *vcpu, u64 address)
{
	int shift = 64 - (fonda_backend->read_reg(vcpu, FONDA_REG_CR4) & X86_CR4_LA57 ? 57 : 48);

	return (s64)(address << shift) >> shift == (s64)address;
}

/* -- ioctls ----------------------------------------------------------------- */

/* Takes @entries, also on error. */
static long set_entries(struct fonda_vcpu *vcpu, struct kvm_cpuid_entry2 *entries, u32 nr)
{
	struct fonda_cpuid *c = &vcpu->cpuid, new = { .entries = entries, .nr = nr };
	u32 linear_bits, i;
	long ret = -EINVAL;

	linear_bits = guest_reg(&new, 0x80000008, 0, 0) >> 8 & 0xff;
	if (linear_bits && linear_bits != 48 && linear_bits != 57)
		goto out_free;

	/*
	 * Once the guest has run, what it saw must not change; setting the same
	 * again is harmless, and done by programs that hotplug vCPUs.
	 */
	if (rcu_access_pointer(vcpu->pid) && c->entries) {
		if (nr != c->nr)
			goto out_free;
		for (i = 0; i < nr; i++) {
			struct kvm_cpuid_entry2 old = c->entries[i];

			patch(vcpu, &old);
			patch(vcpu, &entries[i]);
			if (memcmp(&old, &entries[i], offsetof(typeof(old), padding)))
				goto out_free;
		}
		ret = 0;
		goto out_free;
	}

	kvfree(c->entries);
	c->entries = entries;
	c->nr = nr;
	update(c);
	fonda_backend->update_controls(vcpu);
	return 0;

out_free:
	kvfree(entries);
	return ret;
}

long fonda_vcpu_set_cpuid2(struct fonda_vcpu *vcpu, void *arg)
{
	struct kvm_cpuid2 __user *ulist = (void __user *)arg;
	struct kvm_cpuid_entry2 *entries = NULL;
	u32 nr;

	if (get_user(nr, &ulist->nent))
		return -EFAULT;
	if (nr > FONDA_MAX_CPUID_ENTRIES)
		return -E2BIG;
	if (nr) {
		entries = kvmalloc_array(nr, sizeof(*entries), GFP_KERNEL_ACCOUNT);
		if (!entries)
			return -ENOMEM;
		if (copy_from_user(entries, ulist->entries, nr * sizeof(*entries))) {
			kvfree(entries);
			return -EFAULT;
		}
	}
	return set_entries(vcpu, entries, nr);
}

long fonda_vcpu_get_cpuid2(struct fonda_vcpu *vcpu, void *arg)
{
	struct fonda_cpuid *c = &vcpu->cpuid;
	u32 i;

	for (i = 0; i < c->nr; i++)
		patch(vcpu, &c->entries[i]);
	return give_entries((void __user *)arg, c->entries, c->nr);
}
