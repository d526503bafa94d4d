// SPDX-License-Identifier: GPL-2.0-only
/*
 * The extended state of a vCPU: x87, SSE, AVX and AVX-512 registers and XCR0.
 * It lives in an XSAVE area of ours in standard format, which XRSTOR loads at
 * the beginning of every section; nothing that makes it fault may get in.
 */
#include <asm/fpu/api.h>
#include <asm/fpu/types.h>
#include <asm/fpu/xcr.h>

#include "backend.h"

u64 fonda_xcr0_supported __ro_after_init;
u64 fonda_host_xcr0 __ro_after_init;
u64 fonda_host_xss __ro_after_init;
u32 fonda_xsave_size __ro_after_init;

/* Components that a guest may have, as far as the machine has them. */
#define XCR0_OFFERED	(XFEATURE_MASK_FPSSE | XFEATURE_MASK_YMM | XFEATURE_MASK_AVX512)
#define MAX_COMPONENT	XFEATURE_Hi16_ZMM
#define MXCSR_INIT	0x1f80u

/* Of XSAVE components 2 and up: CPUID leaf 0DH. Written once. */
static struct {
	u32 size, offset, flags, reserved;
} component[MAX_COMPONENT + 1] __ro_after_init;
#define COMPONENT_ALIGNED	BIT(1)	/* to 64 bytes, in the compacted format */
static u32 mxcsr_mask __ro_after_init;

u32 fonda_xstate_size(u64 xcr0, bool compacted)
{
	u32 end = offsetof(struct xregs_state, extended_state_area), start;
	int i;

	for (i = 2; i <= MAX_COMPONENT; i++) {
		if (!(xcr0 & BIT_ULL(i)))
			continue;
		start = component[i].flags & COMPONENT_ALIGNED ? ALIGN(end, 64) : end;
		start = compacted ? start : component[i].offset;
		end = max(end, start + component[i].size);
	}
	return end;
}

void __init fonda_fpu_setup(void)
{
	static struct fxregs_state fx __initdata __aligned(16);
	int i;

	fonda_host_xcr0 = xgetbv(XCR_XFEATURE_ENABLED_MASK);
	fonda_xcr0_supported = fonda_host_xcr0 & XCR0_OFFERED;
	if (boot_cpu_has(X86_FEATURE_XSAVES))
		rdmsrq(MSR_IA32_XSS, fonda_host_xss);
	for (i = 2; i <= MAX_COMPONENT; i++)
		if (fonda_xcr0_supported & BIT_ULL(i))
			cpuid_count(0xd, i, &component[i].size, &component[i].offset,
				    &component[i].flags, &component[i].reserved);
	fonda_xsave_size = fonda_xstate_size(fonda_xcr0_supported, false);

	kernel_fpu_begin();
	asm volatile("fxsave64 %0" : "=m"(fx));
	kernel_fpu_end();
	/* "MXCSR_MASK Field": 0 stands for this. */
	mxcsr_mask = fx.mxcsr_mask ?: 0xffbf;
}

int fonda_fpu_init(struct fonda_vcpu *vcpu)
{
	/*
	 * No component is present: XRSTOR initializes all. Powers of two are
	 * aligned to their size, and 64 is the least needed.
	 */
	struct xregs_state *area = kzalloc(roundup_pow_of_two(fonda_xsave_size),
					   GFP_KERNEL_ACCOUNT);

	if (!area)
		return -ENOMEM;
	area->i387.mxcsr = MXCSR_INIT;
	vcpu->fpu.area = area;
	vcpu->fpu.xcr0 = XFEATURE_MASK_FP;
	return 0;
}

/*
 * XSAVE leaves out what is in its initial state; whoever looks at the area's
 * bytes must find that state there.
 */
static struct xregs_state *expand(struct fonda_vcpu *vcpu)
{
	struct xregs_state *area = vcpu->fpu.area;
	u64 present = area->header.xfeatures;
	int i;

	if (!(present & XFEATURE_MASK_FP)) {
		memset(&area->i387, 0, offsetof(struct fxregs_state, mxcsr));
		memset(area->i387.st_space, 0, sizeof(area->i387.st_space));
		area->i387.cwd = 0x37f;
	}
	if (!(present & XFEATURE_MASK_SSE))
		memset(area->i387.xmm_space, 0, sizeof(area->i387.xmm_space));
	for (i = 2; i <= MAX_COMPONENT; i++)
		if (!(present & BIT_ULL(i)))
			memset((void *)area + component[i].offset, 0, component[i].size);
	/* MXCSR belongs to SSE but is always kept. */
	if (area->i387.mxcsr != MXCSR_INIT)
		area->header.xfeatures |= XFEATURE_MASK_SSE;
	return area;
}

/* @len bytes of the state, to it or from it. */
static void move(void *state, void *data, int len, bool set)
{
	memcpy(set ? state : data, set ? data : state, len);
}

void fonda_fpu_access_xmm(struct fonda_vcpu *vcpu, int offset, void *data, int len, bool write)
{
	struct xregs_state *area = expand(vcpu);

	move((void *)area->i387.xmm_space + offset, data, len, write);
	if (write)
		area->header.xfeatures |= XFEATURE_MASK_SSE;
}

int fonda_vcpu_set_xcr0(struct fonda_vcpu *vcpu, u32 index, u64 val)
{
	u64 avx512 = val & XFEATURE_MASK_AVX512;

	/* SDM volume 1, "Enabling the XSAVE Feature Set and XSAVE-Enabled Features" */
	if (index || !(val & XFEATURE_MASK_FP) || val & ~vcpu->cpuid.xcr0 ||
	    (val & XFEATURE_MASK_YMM && !(val & XFEATURE_MASK_SSE)) ||
	    (avx512 && (avx512 != XFEATURE_MASK_AVX512 || !(val & XFEATURE_MASK_YMM))))
		return 1;
	vcpu->fpu.xcr0 = val;
	/* Outside a section, the next one loads it. */
	if (vcpu->atomic)
		xsetbv(XCR_XFEATURE_ENABLED_MASK, val);
	return 0;
}

/* From the control word to the data pointer struct kvm_fpu is FXSAVE's image. */
#define FX_CONTROL_BYTES	offsetof(struct fxregs_state, mxcsr)
static_assert(offsetof(struct kvm_fpu, xmm) - offsetof(struct kvm_fpu, fcw) == FX_CONTROL_BYTES);

/* MXCSR is read only here, as in the reference: KVM_SET_XSAVE writes it. */
long fonda_vcpu_access_fpu(struct fonda_vcpu *vcpu, void *arg, unsigned int cmd)
{
	struct xregs_state *area = expand(vcpu);
	struct fxregs_state *fx = &area->i387;
	bool set = cmd == KVM_SET_FPU;
	struct kvm_fpu *fpu = arg;

	move(fx->st_space, fpu->fpr, sizeof(fpu->fpr), set);
	move(fx, arg + offsetof(struct kvm_fpu, fcw), FX_CONTROL_BYTES, set);
	move(fx->xmm_space, fpu->xmm, sizeof(fpu->xmm), set);
	if (!set) {
		fpu->mxcsr = fx->mxcsr;
	} else {
		fx->twd &= 0xff;
		area->header.xfeatures |= XFEATURE_MASK_FPSSE;
	}
	return 0;
}

long fonda_vcpu_get_xsave(struct fonda_vcpu *vcpu, void *arg, unsigned int cmd)
{
	memcpy(arg, expand(vcpu), fonda_xsave_size);
	return 0;
}

long fonda_vcpu_set_xsave(struct fonda_vcpu *vcpu, void *arg, unsigned int cmd)
{
	const struct xregs_state *new = arg;
	struct xregs_state *area = vcpu->fpu.area;
	bool has_mxcsr = new->header.xfeatures & (XFEATURE_MASK_SSE | XFEATURE_MASK_YMM);

	/* All that XRSTOR may fault on: "Operation of XRSTOR", standard form. */
	if (new->header.xfeatures & ~fonda_xcr0_supported || new->header.xcomp_bv ||
	    memchr_inv(new->header.reserved, 0, sizeof(new->header.reserved)) ||
	    (has_mxcsr && new->i387.mxcsr & ~mxcsr_mask))
		return -EINVAL;
	memcpy(area, new, fonda_xsave_size);
	if (!has_mxcsr)
		area->i387.mxcsr = MXCSR_INIT;
	return 0;
}

long fonda_vcpu_get_xcrs(struct fonda_vcpu *vcpu, void *arg, unsigned int cmd)
{
	*(struct kvm_xcrs *)arg = (struct kvm_xcrs){
		.nr_xcrs = 1, .xcrs = { { XCR_XFEATURE_ENABLED_MASK, .value = vcpu->fpu.xcr0 } } };
	return 0;
}

long fonda_vcpu_set_xcrs(struct fonda_vcpu *vcpu, void *arg, unsigned int cmd)
{
	const struct kvm_xcrs *xcrs = arg;
	u32 i;

	if (xcrs->nr_xcrs > KVM_MAX_XCRS || xcrs->flags)
		return -EINVAL;
	for (i = 0; i < xcrs->nr_xcrs; i++)
		if (xcrs->xcrs[i].xcr == XCR_XFEATURE_ENABLED_MASK)
			return fonda_vcpu_set_xcr0(vcpu, 0, xcrs->xcrs[i].value) ? -EINVAL : 0;
	return 0;
}
