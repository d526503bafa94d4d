// SPDX-License-Identifier: GPL-2.0-only
/*
 * CPUID: what fonda can offer a guest on this machine, the leaves that user
 * space chose from it, and the instruction itself. Leaves are user space's to
 * answer for; only what depends on the guest's state is computed here, when the
 * guest asks. Which features the rest of fonda may rely on is worked out once,
 * in fonda_cpuid_update().
 */
#include "backend.h"

/* Leaves of which no more is offered: the last of each range. */
#define LAST_BASIC	0xdu
static const u32 last_extended[] = { 0x80000008, 0x80000021 };	/* Intel, AMD */

/* Programs of the rust-vmm family have room for no more. */
#define MAX_OFFERED	80

#define F(name)	X86_FEATURE_##name

/* Features that the guest's instructions use without fonda's help. */
static const u16 passed_through[] = {
	F(FPU), F(VME), F(DE), F(PSE), F(TSC), F(MSR), F(PAE), F(CX8), F(SEP), F(PGE), F(CMOV),
	F(PSE36), F(CLFLUSH), F(MMX), F(FXSR), F(XMM), F(XMM2), F(XMM3), F(PCLMULQDQ), F(SSSE3),
	F(FMA), F(CX16), F(PCID), F(XMM4_1), F(XMM4_2), F(MOVBE), F(POPCNT), F(AES), F(XSAVE),
	F(AVX), F(F16C), F(RDRAND), F(FSGSBASE), F(BMI1), F(HLE), F(AVX2), F(FDP_EXCPTN_ONLY),
	F(SMEP), F(BMI2), F(ERMS), F(INVPCID), F(RTM), F(ZERO_FCS_FDS), F(AVX512F), F(AVX512DQ),
	F(RDSEED), F(ADX), F(SMAP), F(AVX512IFMA), F(CLFLUSHOPT), F(CLWB), F(AVX512CD), F(SHA_NI),
	F(AVX512BW), F(AVX512VL), F(AVX512VBMI), F(UMIP), F(AVX512_VBMI2), F(GFNI), F(VAES),
	F(VPCLMULQDQ), F(AVX512_VNNI), F(AVX512_BITALG), F(AVX512_VPOPCNTDQ), F(LA57), F(RDPID),
	F(CLDEMOTE), F(MOVDIRI), F(MOVDIR64B), F(FSRM), F(AVX512_VP2INTERSECT), F(MD_CLEAR),
	F(SERIALIZE), F(TSXLDTRK), F(AVX512_FP16), F(AVX_VNNI), F(AVX512_BF16), F(XSAVEOPT),
	F(XSAVEC), F(XGETBV1), F(SYSCALL), F(NX), F(MMXEXT), F(FXSR_OPT), F(GBPAGES), F(RDTSCP),
	F(LM), F(3DNOWEXT), F(3DNOW), F(LAHF_LM), F(CR8_LEGACY), F(ABM), F(SSE4A), F(MISALIGNSSE),
	F(3DNOWPREFETCH), F(XOP), F(FMA4), F(TBM), F(TOPOEXT), F(CLZERO), F(XSAVEERPTR),
	F(WBNOINVD), F(AMD_SSB_NO), F(AMD_STIBP_ALWAYS_ON), F(BTC_NO),
	/* With an MSR, which msr.c has. */
	F(OSVW), F(AMD_IBPB), F(AMD_IBRS), F(AMD_STIBP), F(AMD_SSBD), F(SPEC_CTRL), F(INTEL_STIBP),
	F(SPEC_CTRL_SSBD), F(FLUSH_L1D), F(ARCH_CAPABILITIES),
};

/* What fonda itself makes, whatever this machine has. */
static const u16 emulated[] = {
	F(MCE), F(APIC), F(MTRR), F(MCA), F(PAT), F(X2APIC), F(TSC_DEADLINE_TIMER),
	F(HYPERVISOR), F(TSC_ADJUST),
	FONDA_PV_FEATURE(CLOCKSOURCE), FONDA_PV_FEATURE(NOP_IO_DELAY),
	FONDA_PV_FEATURE(CLOCKSOURCE2), FONDA_PV_FEATURE(STEAL_TIME),
	FONDA_PV_FEATURE(CLOCKSOURCE_STABLE_BIT), FONDA_PV_FEATURE(PV_EOI),
	FONDA_PV_FEATURE(PV_UNHALT), FONDA_PV_FEATURE(PV_SEND_IPI),
	FONDA_PV_FEATURE(PV_TLB_FLUSH), FONDA_PV_FEATURE(PV_SCHED_YIELD),
};

/* The kernel keeps features in words; these are registers of CPUID. */
struct feature_word {
	u8 word;
	u8 reg;		/* EAX, EBX, ECX, EDX */
	u8 subleaf;
	u32 leaf;
};

static const struct feature_word feature_words[] = {
	{ CPUID_1_EDX, 3, 0, 1 }, { CPUID_1_ECX, 2, 0, 1 },
	{ CPUID_7_0_EBX, 1, 0, 7 }, { CPUID_7_ECX, 2, 0, 7 }, { CPUID_7_EDX, 3, 0, 7 },
	{ CPUID_7_1_EAX, 0, 1, 7 }, { CPUID_D_1_EAX, 0, 1, 0xd },
	{ CPUID_8000_0001_EDX, 3, 0, 0x80000001 }, { CPUID_8000_0001_ECX, 2, 0, 0x80000001 },
	{ CPUID_8000_0008_EBX, 1, 0, 0x80000008 }, { FONDA_PV_WORD, 0, 0, KVM_CPUID_FEATURES },
};

/* Offered features, by the kernel's words. Written once. */
static u32 offered[FONDA_FEATURE_WORDS] __ro_after_init;
u64 fonda_machine_cr4 __ro_after_init, fonda_machine_efer __ro_after_init;

/* The leaves that are offered, how much of this machine's answer, and what else. */
struct leaf {
	u32 first, last;
	u8 flags;
	u32 keep[4];	/* bits of EAX, EBX, ECX, EDX; features come from above */
	u32 add[4];
};

#define INDEXED	0x1	/* has subleaves */
#define AMD	0x2	/* only there */
#define INTEL	0x4

#define ALL	{ ~0u, ~0u, ~0u, ~0u }

static const struct leaf leaves[] = {
	{ 0, 0, 0, ALL },
	/* The size of a CLFLUSH line; APIC id and count are user space's. */
	{ 1, 1, 0, { ~0u, 0xff00 } },
	{ 2, 2, INTEL, ALL },
	{ 4, 4, INTEL | INDEXED, ALL },			/* caches */
	{ 6, 6, 0, { }, { BIT(2) } },			/* ARAT: the timer never stops */
	{ 7, 7, INDEXED },
	{ 0xa, 0xa, 0 },				/* no performance counters */
	{ 0xb, 0xb, INDEXED },
	{ 0xd, 0xd, INDEXED, { ~0u, ~0u, ~0u } },
	{ KVM_CPUID_SIGNATURE, KVM_CPUID_SIGNATURE, 0, { },
	  { KVM_CPUID_FEATURES, 0x4b4d564b, 0x564b4d56, 0x4d } },	/* KVMKVMKVM */
	{ KVM_CPUID_FEATURES, KVM_CPUID_FEATURES, 0 },
	{ 0x80000000, 0x80000000, 0, ALL },
	{ 0x80000001, 0x80000001, AMD, { ~0u, 0xf0000000 } },	/* package type */
	{ 0x80000001, 0x80000001, INTEL, { ~0u } },
	{ 0x80000002, 0x80000006, 0, ALL },
	{ 0x80000007, 0x80000007, 0, { 0, 0, 0, BIT(8) } },	/* the TSC never stops */
	{ 0x80000008, 0x80000008, 0 },
	{ 0x8000001a, 0x8000001a, AMD, ALL },		/* hints of speed */
	{ 0x8000001d, 0x8000001d, AMD | INDEXED, ALL },	/* caches */
	{ 0x8000001e, 0x8000001e, AMD },
	/* LFENCE serializes; a null selector clears the base. */
	{ 0x80000021, 0x80000021, AMD, { BIT(2) | BIT(6) } },
};

static u8 vendor(void)
{
	return boot_cpu_data.x86_vendor == X86_VENDOR_AMD ||
	       boot_cpu_data.x86_vendor == X86_VENDOR_HYGON ? AMD : INTEL;
}

static bool word_has(const u32 *words, u32 feature)
{
	return words[feature / 32] & BIT(feature % 32);
}

/* The last leaf of @leaf's range that this machine has. */
static u32 last_leaf(u32 leaf)
{
	if (leaf >> 28 == 4)
		return KVM_CPUID_FEATURES;
	if (leaf & BIT(31))
		return min(cpuid_eax(0x80000000), last_extended[vendor() == AMD]);
	return min(cpuid_eax(0), LAST_BASIC);
}

#define HAS(f)	word_has(words, X86_FEATURE_##f)

/* What may be set in SPEC_CTRL; the vendors have different bits for each. */
static u32 spec_ctrl_bits(const u32 *words)
{
	return (HAS(AMD_IBRS) || HAS(SPEC_CTRL) ? SPEC_CTRL_IBRS : 0) |
	       (HAS(AMD_STIBP) || HAS(INTEL_STIBP) ? SPEC_CTRL_STIBP : 0) |
	       (HAS(AMD_SSBD) || HAS(SPEC_CTRL_SSBD) ? SPEC_CTRL_SSBD : 0);
}

/* The features that are made of others. */
static void derive(u32 *words)
{
	words[FONDA_OWN_WORD] = (HAS(RDTSCP) || HAS(RDPID)) << FONDA_HAS_TSC_AUX % 32 |
				(HAS(AMD_IBPB) || HAS(SPEC_CTRL)) << FONDA_HAS_IBPB % 32 |
				!!spec_ctrl_bits(words) << FONDA_HAS_SPEC_CTRL % 32;
}

static u64 cr4_bits(const u32 *words)
{
	return X86_CR4_VME | X86_CR4_PVI | X86_CR4_TSD | X86_CR4_DE | X86_CR4_PSE | X86_CR4_PAE |
	       X86_CR4_MCE | X86_CR4_PGE | X86_CR4_PCE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT |
	       (HAS(UMIP) ? X86_CR4_UMIP : 0) | (HAS(LA57) ? X86_CR4_LA57 : 0) |
	       (HAS(FSGSBASE) ? X86_CR4_FSGSBASE : 0) | (HAS(PCID) ? X86_CR4_PCIDE : 0) |
	       (HAS(XSAVE) ? X86_CR4_OSXSAVE : 0) | (HAS(SMEP) ? X86_CR4_SMEP : 0) |
	       (HAS(SMAP) ? X86_CR4_SMAP : 0) | (HAS(PKU) ? X86_CR4_PKE : 0) |
	       /* CR4.CET; older kernels have no name for either. */
	       (words[CPUID_7_ECX] & BIT(7) ? BIT(23) : 0);
}

static u64 efer_bits(const u32 *words)
{
	return (HAS(SYSCALL) ? EFER_SCE : 0) | (HAS(NX) ? EFER_NX : 0) |
	       (HAS(LM) ? EFER_LME | EFER_LMA : 0) | (HAS(FXSR_OPT) ? EFER_FFXSR : 0);
}

bool fonda_supported(u32 feature)
{
	return word_has(offered, feature);
}

void __init fonda_state_init(void)
{
	u32 machine[FONDA_FEATURE_WORDS] = { }, i;

	for (i = 0; i < ARRAY_SIZE(passed_through); i++)
		if (boot_cpu_has(passed_through[i]))
			offered[passed_through[i] / 32] |= BIT(passed_through[i] % 32);
	/* The kernel sets some that the processor does not announce. */
	for (i = 0; i < ARRAY_SIZE(feature_words); i++) {
		const struct feature_word *w = &feature_words[i];
		u32 regs[4] = { };

		if (w->leaf <= last_leaf(w->leaf))
			cpuid_count(w->leaf, w->subleaf, &regs[0], &regs[1], &regs[2], &regs[3]);
		machine[w->word] = regs[w->reg];
		offered[w->word] &= regs[w->reg];
	}
	fonda_machine_cr4 = cr4_bits(machine);
	fonda_machine_efer = efer_bits(machine);
	for (i = 0; i < ARRAY_SIZE(emulated); i++)
		offered[emulated[i] / 32] |= BIT(emulated[i] % 32);
	derive(offered);
	if (vendor() == AMD)
		offered[FONDA_OWN_WORD] |= BIT(FONDA_HAS_AMD_RULES % 32);

	fonda_fpu_setup();
	fonda_clock_setup();
	fonda_msr_setup();
}

/* -- what is offered -------------------------------------------------------- */

/* What is neither this machine's answer nor a feature. */
static void compute(struct kvm_cpuid_entry2 *e)
{
	/* AMD repeats these bits of leaf 1 EDX in 8000_0001. */
	const u32 repeated = 0x0183f3ff;

	switch (e->function) {
	case 0:
	case 0x80000000:
		e->eax = last_leaf(e->function);
		break;
	case 7:
		e->eax |= !e->index && offered[CPUID_7_1_EAX];
		break;
	case 0xd:
		if (e->index > 1) {
			if (!(fonda_xcr0_supported & BIT_ULL(e->index)))
				e->eax = e->ebx = e->ecx = 0;
			break;
		}
		/* Without XSAVES there is no supervisor state. */
		e->ebx = fonda_xstate_size(fonda_xcr0_supported, e->index);
		e->eax = e->index ? offered[CPUID_D_1_EAX] : fonda_xcr0_supported;
		e->ecx = e->index ? 0 : e->ebx;
		break;
	case 0x80000001:
		if (vendor() == AMD)
			e->edx |= offered[CPUID_1_EDX] & repeated;
		break;
	case 0x80000008:
		e->eax = min_t(u32, boot_cpu_data.x86_phys_bits, FONDA_GPA_BITS) |
			 (fonda_supported(F(LA57)) ? 57 : 48) << 8;
		break;
	}
}

/* False: there is no such subleaf. */
static bool offer_subleaf(struct kvm_cpuid_entry2 *e, const struct leaf *l, u32 leaf, u32 subleaf)
{
	u32 *regs = &e->eax;
	int i;

	*e = (struct kvm_cpuid_entry2){ .function = leaf, .index = subleaf,
		.flags = l->flags & INDEXED ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0 };
	cpuid_count(leaf, subleaf, &regs[0], &regs[1], &regs[2], &regs[3]);
	for (i = 0; i < 4; i++)
		regs[i] = (regs[i] & l->keep[i]) | l->add[i];
	for (i = 0; i < ARRAY_SIZE(feature_words); i++)
		if (feature_words[i].leaf == leaf && feature_words[i].subleaf == subleaf)
			regs[feature_words[i].reg] = offered[feature_words[i].word];
	compute(e);
	return !subleaf || e->eax || e->ebx || e->ecx || e->edx;
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

/* What is on offer; what is emulated although the machine lacks it is nothing. */
long fonda_dev_get_cpuid(struct fonda_vcpu *vcpu, void *arg, unsigned int cmd)
{
	const int nr = cmd == KVM_GET_SUPPORTED_CPUID ? ARRAY_SIZE(leaves) : 0;
	struct kvm_cpuid2 *offer __free(kfree) = kzalloc(struct_size(offer, entries, MAX_OFFERED),
							 GFP_KERNEL_ACCOUNT);
	const struct leaf *l;
	u32 leaf, i;

	if (!offer)
		return -ENOMEM;
	for (l = leaves; l < leaves + nr; l++) {
		const u32 subleaves = l->flags & INDEXED ? 63 : 1;

		if (l->flags & (AMD | INTEL) && !(l->flags & vendor()))
			continue;
		for (leaf = l->first; leaf <= min(l->last, last_leaf(leaf)); leaf++)
			for (i = 0; i < subleaves && offer->nent < MAX_OFFERED; i++)
				offer->nent += offer_subleaf(&offer->entries[offer->nent],
							     l, leaf, i);
	}
	return give_entries((void __user *)arg, offer->entries, offer->nent);
}

/* -- what the guest has ----------------------------------------------------- */

static __always_inline struct kvm_cpuid_entry2 *find(const struct fonda_cpuid *c,
						     u32 leaf, u32 subleaf)
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

void fonda_cpuid_update(struct fonda_cpuid *c)
{
	u32 *words = c->features, vendor, i;

	memset(c->first, 0, sizeof(c->first));
	for (i = c->nr; i-- > 0; ) {
		u32 leaf = c->entries[i].function;

		if (!(leaf & GENMASK(29, 5)))
			c->first[leaf >> 30][leaf & 31] = i + 1;
	}
	memcpy(words, offered, sizeof(offered));
	for (i = 0; c->entries && i < ARRAY_SIZE(feature_words); i++) {
		const struct feature_word *w = &feature_words[i];

		words[w->word] &= guest_reg(c, w->leaf, w->subleaf, w->reg);
	}
	derive(words);
	c->cr4_reserved = ~cr4_bits(words);
	c->efer_reserved = ~efer_bits(words);
	c->spec_ctrl = spec_ctrl_bits(words);
	c->phys_bits = (guest_reg(c, 0x80000008, 0, 0) & 0xff) ?: 36;
	c->xcr0 = guest_reg(c, 0xd, 0, 0) | (u64)guest_reg(c, 0xd, 0, 3) << 32;
	c->xcr0 = (c->xcr0 & fonda_xcr0_supported) | XFEATURE_MASK_FP;

	/* A guest without a CPUID may rely on nothing. */
	if (!c->entries)
		memset(words, 0, sizeof(c->features));
	vendor = guest_reg(c, 0, 0, 1);
	if (vendor == 0x68747541 || vendor == 0x6f677948)	/* Auth, Hygo */
		words[FONDA_OWN_WORD] |= BIT(FONDA_HAS_AMD_RULES % 32);
}

static void set_feature(u32 *reg, u32 feature, bool on)
{
	*reg = on ? *reg | BIT(feature % 32) : *reg & ~BIT(feature % 32);
}

/* The parts of an entry that follow the state of the vCPU. */
static __always_inline void patch(struct fonda_vcpu *vcpu, struct kvm_cpuid_entry2 *e)
{
	switch (e->function) {
	case 1:
		set_feature(&e->ecx, X86_FEATURE_OSXSAVE,
			    fonda_backend->read_reg(vcpu, FONDA_REG_CR4) & X86_CR4_OSXSAVE);
		/* "IA32_MISC_ENABLE", ENABLE MONITOR FSM */
		if (vcpu->vm->disabled_quirks & KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT)
			set_feature(&e->ecx, F(MWAIT),
				    vcpu->msrs.misc_enable & MSR_IA32_MISC_ENABLE_MWAIT);
		if (vcpu->in_kernel_apic)
			set_feature(&e->edx, X86_FEATURE_APIC, vcpu->lapic.enabled);
		break;
	case KVM_CPUID_FEATURES:
		/* A vCPU whose HLT does not exit is never kicked out of it. */
		if (vcpu->vm->disabled_exits & KVM_X86_DISABLE_EXITS_HLT)
			e->eax &= ~BIT(KVM_FEATURE_PV_UNHALT);
		break;
	case 0xd:
		if (!(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) || e->index == 0)
			e->ebx = fonda_xstate_size(vcpu->fpu.xcr0, false);
		else if (e->index == 1 && e->eax & BIT(X86_FEATURE_XSAVEC % 32))
			e->ebx = fonda_xstate_size(vcpu->fpu.xcr0, true);
		break;
	}
}

/* What is answered where there is no entry. */
static noinline struct kvm_cpuid_entry2 *find_other(struct fonda_vcpu *vcpu, u32 leaf, u32 subleaf)
{
	u32 base = leaf >> 28 == 4 ? leaf & ~0xffu : leaf & BIT(31);
	struct fonda_cpuid *c = &vcpu->cpuid;
	struct kvm_cpuid_entry2 *e = NULL;

	/*
	 * Beyond the last leaf of a range Intel answers as for the last basic one
	 * (SDM volume 2, "CPUID"), AMD with zeros (APM volume 3, "CPUID").
	 */
	if (!fonda_guest_has(vcpu, FONDA_HAS_AMD_RULES) &&
	    (!find(c, base, 0) || leaf > guest_reg(c, base, 0, 0)))
		e = find(c, guest_reg(c, 0, 0, 0), subleaf);
	if (e)
		return e;
	/*
	 * "Extended Topology Enumeration": ECX echoes the subleaf and EDX has the
	 * x2APIC id even in levels that do not exist.
	 */
	e = leaf == 0xb || leaf == 0x1f ? find(c, leaf, 1) : NULL;
	c->none = (struct kvm_cpuid_entry2){
		.ecx = e ? subleaf & 0xff : 0, .edx = e ? e->edx : 0, .function = ~0u };
	return &c->none;
}

const struct kvm_cpuid_entry2 *fonda_cpuid(struct fonda_vcpu *vcpu, u32 leaf, u32 subleaf)
{
	struct kvm_cpuid_entry2 *e = find(&vcpu->cpuid, leaf, subleaf);

	if (unlikely(!e))
		e = find_other(vcpu, leaf, subleaf);
	patch(vcpu, e);
	return e;
}

/* -- ioctls ----------------------------------------------------------------- */

/*
 * Once the guest has run, what it saw must not change; setting the same again is
 * harmless, and done by programs that hotplug vCPUs.
 */
static bool is_same(struct fonda_vcpu *vcpu, struct kvm_cpuid_entry2 *entries, u32 nr)
{
	struct kvm_cpuid_entry2 *old = vcpu->cpuid.entries;
	u32 i;

	for (i = 0; i < nr && nr == vcpu->cpuid.nr; i++) {
		patch(vcpu, &old[i]);
		patch(vcpu, &entries[i]);
		if (memcmp(&old[i], &entries[i], offsetof(typeof(*old), padding)))
			return false;
	}
	return nr == vcpu->cpuid.nr;
}

/* From a list of KVM_SET_CPUID2, or an old one: that has no subleaves. */
long fonda_vcpu_set_cpuid(struct fonda_vcpu *vcpu, void *arg, unsigned int cmd)
{
	const bool old = cmd == KVM_SET_CPUID;
	const u32 size = old ? sizeof(struct kvm_cpuid_entry) : sizeof(struct kvm_cpuid_entry2);
	struct fonda_cpuid *c = &vcpu->cpuid, new = { .enforce_pv = c->enforce_pv };
	struct kvm_cpuid_entry2 *entries __free(fonda_kvfree) = NULL;
	struct kvm_cpuid2 __user *ulist = (void __user *)arg;
	u32 linear_bits, i;

	if (get_user(new.nr, &ulist->nent))
		return -EFAULT;
	if (new.nr > FONDA_MAX_CPUID_ENTRIES)
		return -E2BIG;
	entries = new.nr ? kvcalloc(new.nr, sizeof(*entries), GFP_KERNEL_ACCOUNT) : NULL;
	if (new.nr && !entries)
		return -ENOMEM;
	if (copy_from_user(entries, ulist->entries, new.nr * size))
		return -EFAULT;
	/* Where they were copied to, from the last to the first: old ones are shorter. */
	for (i = new.nr; old && i-- > 0; ) {
		struct kvm_cpuid_entry e = ((struct kvm_cpuid_entry *)entries)[i];

		entries[i] = (struct kvm_cpuid_entry2){ .function = e.function,
			.eax = e.eax, .ebx = e.ebx, .ecx = e.ecx, .edx = e.edx };
	}
	new.entries = entries;
	fonda_cpuid_update(&new);
	linear_bits = guest_reg(&new, 0x80000008, 0, 0) >> 8 & 0xff;
	if (linear_bits && linear_bits != 48 && linear_bits != 57)
		return -EINVAL;
	if (vcpu->cpu >= 0 && c->entries)
		return is_same(vcpu, entries, new.nr) ? 0 : -EINVAL;
	entries = c->entries;
	*c = new;
	fonda_backend->update_controls(vcpu);
	return 0;
}

long fonda_vcpu_get_cpuid2(struct fonda_vcpu *vcpu, void *arg, unsigned int cmd)
{
	struct fonda_cpuid *c = &vcpu->cpuid;
	u32 i;

	for (i = 0; i < c->nr; i++)
		patch(vcpu, &c->entries[i]);
	return give_entries((void __user *)arg, c->entries, c->nr);
}

/* The one capability of a vCPU: its guest has no paravirtual feature unasked. */
long fonda_vcpu_enable_cap(struct fonda_vcpu *vcpu, void *arg, unsigned int cmd)
{
	const struct kvm_enable_cap *cap = arg;

	if (cap->flags || cap->cap != KVM_CAP_ENFORCE_PV_FEATURE_CPUID)
		return -EINVAL;
	vcpu->cpuid.enforce_pv = cap->args[0];
	return 0;
}
