// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The state of a vCPU by GET and SET: registers, FPU and XSAVE area, XCRs,
 * debug registers, events and mp_state. Each is set, read back, seen by a
 * guest where a guest can see it, and refused where the reference refuses it.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tvm.h"

#define BAD_PTR	((void *)8)

TEST(bad_pointers)
{
	static const unsigned long requests[] = {
		KVM_GET_REGS, KVM_SET_REGS, KVM_GET_SREGS, KVM_SET_SREGS,
		KVM_GET_FPU, KVM_SET_FPU, KVM_GET_XSAVE, KVM_SET_XSAVE,
		KVM_GET_XCRS, KVM_SET_XCRS, KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS,
		KVM_GET_MP_STATE, KVM_SET_MP_STATE, KVM_GET_VCPU_EVENTS,
		KVM_SET_VCPU_EVENTS, KVM_GET_MSRS, KVM_SET_MSRS, KVM_SET_CPUID2,
		KVM_GET_CPUID2, KVM_GET_LAPIC, KVM_SET_LAPIC, KVM_SET_VAPIC_ADDR,
		KVM_X86_SETUP_MCE, KVM_SET_SIGNAL_MASK,
	};
	struct tvm t;
	size_t i;

	tvm_init_bare(&t, TVM_IRQCHIP);
	tvm_add_vcpu(&t, 0);
	for (i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
		errno = 0;
		if (ioctl(t.cpu, requests[i], BAD_PTR) != -1 || errno != EFAULT)
			tap_diag("request %#lx: errno %d", requests[i], errno);
		EXPECT_ERRNO(ioctl(t.cpu, requests[i], BAD_PTR), EFAULT);
	}
	tvm_fini(&t);
}

TEST(reset_state)
{
	struct kvm_sregs s;
	struct kvm_regs r;
	struct kvm_xsave xs;
	struct kvm_fpu fpu;
	struct tvm t;

	tvm_init_bare(&t, TVM_IRQCHIP);
	tvm_add_vcpu(&t, 0);
	r = tvm_regs(&t, 0);
	s = tvm_sregs(&t, 0);
	EXPECT_EQ(r.rip, 0xfff0);
	EXPECT_EQ(r.rflags, 2);
	EXPECT_EQ(r.rax, 0);
	EXPECT_EQ(r.rsp, 0);
	EXPECT_EQ(s.cs.selector, 0xf000);
	EXPECT_EQ(s.cs.base, 0xffff0000);
	EXPECT_EQ(s.cs.limit, 0xffff);
	EXPECT_EQ(s.ds.base, 0);
	EXPECT_EQ(s.gdt.limit, 0xffff);
	EXPECT_EQ(s.idt.limit, 0xffff);
	EXPECT_EQ(s.cr0, 0x60000010);
	EXPECT_EQ(s.cr4, 0);
	EXPECT_EQ(s.efer, 0);
	EXPECT_EQ(s.apic_base, 0xfee00900);
	EXPECT_OK(ioctl(t.cpu, KVM_GET_FPU, &fpu));
	EXPECT_EQ(fpu.fcw, 0x37f);
	EXPECT_OK(ioctl(t.cpu, KVM_GET_XSAVE, &xs));
	EXPECT_EQ(xs.region[24 / 4], 0x1f80);
	EXPECT_EQ(tvm_msr(&t, 0, 0x277), 0x0007040600070406);	/* PAT */
	tvm_fini(&t);
}

TEST(regs_round_trip)
{
	struct kvm_regs in, out;
	struct tvm t;
	size_t i;

	tvm_init_bare(&t, 0);
	tvm_add_vcpu(&t, 0);
	for (i = 0; i < sizeof(in) / 8; i++)
		((uint64_t *)&in)[i] = 0x0101010101010101 * (i + 1);
	in.rip = 0x1234;
	in.rflags = 0x246;
	tvm_set_regs(&t, 0, &in);
	out = tvm_regs(&t, 0);
	EXPECT_MEMEQ(&out, &in, sizeof(in));

	/* Bit 1 of RFLAGS is always set. */
	in.rflags = 0;
	tvm_set_regs(&t, 0, &in);
	EXPECT_EQ(tvm_regs(&t, 0).rflags, 2);
	tvm_fini(&t);
}

GUEST64(guest_pushes_regs,
	"push %rax; push %rbx; push %rcx; push %rdx; push %rsi; push %rdi; push %rbp\n"
	"push %r8; push %r9; push %r10; push %r11; push %r12; push %r13; push %r14; push %r15\n"
	"xor %eax, %eax; not %rax; mov %rax, %rbx; mov %rax, %r15\n"
	"hlt");

TEST(guest_sees_regs)
{
	struct kvm_regs in, out;
	uint64_t *stack;
	struct tvm t;

	tvm_init(&t, &guest_pushes_regs);
	in = tvm_regs(&t, 0);
	in.rax = 1, in.rbx = 2, in.rcx = 3, in.rdx = 4, in.rsi = 5, in.rdi = 6, in.rbp = 7;
	in.r8 = 8, in.r9 = 9, in.r10 = 10, in.r11 = 11, in.r12 = 12, in.r13 = 13;
	in.r14 = 14, in.r15 = 0xfedcba9876543210;
	tvm_set_regs(&t, 0, &in);
	EXPECT_EQ(tvm_run(&t), KVM_EXIT_HLT);
	out = tvm_regs(&t, 0);
	EXPECT_EQ(out.rsp, in.rsp - 15 * 8);
	stack = tvm_ptr(&t, out.rsp);
	EXPECT_EQ(stack[0], 0xfedcba9876543210);
	EXPECT_EQ(stack[1], 14);
	EXPECT_EQ(stack[7], 8);
	EXPECT_EQ(stack[8], 7);
	EXPECT_EQ(stack[14], 1);
	EXPECT_EQ(out.rax, UINT64_MAX);
	EXPECT_EQ(out.rbx, UINT64_MAX);
	EXPECT_EQ(out.r15, UINT64_MAX);
	EXPECT_EQ(out.rcx, 3);
	tvm_fini(&t);
}

GUEST(guest_idle)
{
}

TEST(sregs_round_trip)
{
	struct kvm_sregs in, out;
	struct tvm t;

	tvm_init(&t, &guest_idle);
	in = tvm_sregs(&t, 0);
	in.fs.base = 0x123456789;
	in.cr2 = 0xdeadbeef000;
	in.cr8 = 5;
	in.gdt.limit = 0x1fff;
	tvm_set_sregs(&t, 0, &in);
	out = tvm_sregs(&t, 0);
	EXPECT_MEMEQ(&out, &in, sizeof(in));
	EXPECT_EQ(tvm_msr(&t, 0, MSR_FS_BASE), 0x123456789);
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);
}

/* Combinations that no processor can be in. */
TEST(sregs_refuses_the_impossible)
{
	struct kvm_sregs good, s;
	struct tvm t;

	tvm_init(&t, &guest_idle);
	good = tvm_sregs(&t, 0);

	s = good;
	s.cr4 &= ~0x20ull;		/* long mode without PAE */
	EXPECT_ERRNO(ioctl(t.cpu, KVM_SET_SREGS, &s), EINVAL);
	s = good;
	s.efer &= ~0x400ull;		/* LME and paging without LMA */
	EXPECT_ERRNO(ioctl(t.cpu, KVM_SET_SREGS, &s), EINVAL);
	s = good;
	s.cr4 |= 1ull << 31;		/* a reserved bit */
	EXPECT_ERRNO(ioctl(t.cpu, KVM_SET_SREGS, &s), EINVAL);
	s = good;
	s.cr3 |= 1ull << 60;		/* beyond any physical address */
	EXPECT_ERRNO(ioctl(t.cpu, KVM_SET_SREGS, &s), EINVAL);
	s = good;
	s.cs.db = 1;			/* L and D at once */
	EXPECT_TRUE(ioctl(t.cpu, KVM_SET_SREGS, &s) == 0 || errno == EINVAL);

	tvm_set_sregs(&t, 0, &good);
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);
}

/* A bitmap with one bit is a pending external interrupt. */
TEST(sregs_interrupt_bitmap)
{
	struct kvm_sregs s;
	struct tvm t;

	tvm_init(&t, &guest_idle);
	s = tvm_sregs(&t, 0);
	EXPECT_EQ(s.interrupt_bitmap[0] | s.interrupt_bitmap[1] |
		  s.interrupt_bitmap[2] | s.interrupt_bitmap[3], 0);
	s.interrupt_bitmap[1] = 1ull << 5;
	tvm_set_sregs(&t, 0, &s);
	s = tvm_sregs(&t, 0);
	EXPECT_EQ(s.interrupt_bitmap[1], 1ull << 5);
	tvm_fini(&t);
}

static uint8_t fx[512] __attribute__((aligned(64)));

GUEST(guest_swaps_fpu)
{
	__asm__ volatile("fxsave %0" : "=m"(fx));
	__asm__ volatile("fninit\n\tfld1\n\tpcmpeqd %%xmm3, %%xmm3" : : : "xmm3");
	GUEST_SYNC(1);
}

TEST(fpu_reaches_the_guest_and_returns)
{
	struct kvm_fpu in, out;
	struct kvm_xsave xs;
	struct tvm t;
	int i;

	tvm_init(&t, &guest_swaps_fpu);
	/*
	 * KVM_SET_FPU leaves MXCSR and the XSAVE header alone on the reference
	 * device: components that the header calls initial stay so.
	 */
	EXPECT_OK(ioctl(t.cpu, KVM_GET_XSAVE, &xs));
	xs.region[512 / 4] |= 3;
	xs.region[24 / 4] = 0x1fa0;
	EXPECT_OK(ioctl(t.cpu, KVM_SET_XSAVE, &xs));
	memset(&in, 0, sizeof(in));
	in.fcw = 0x27f;
	in.fsw = 0x4100;
	in.ftwx = 0xff;
	for (i = 0; i < 16; i++)
		memset(in.xmm[i], 0x10 + i, 16);
	for (i = 0; i < 8; i++)
		memset(in.fpr[i], 0x20 + i, 10);
	EXPECT_OK(ioctl(t.cpu, KVM_SET_FPU, &in));
	EXPECT_OK(ioctl(t.cpu, KVM_GET_FPU, &out));
	EXPECT_EQ(out.fcw, 0x27f);
	EXPECT_MEMEQ(out.xmm, in.xmm, sizeof(in.xmm));
	EXPECT_MEMEQ(out.fpr, in.fpr, sizeof(in.fpr));

	EXPECT_EQ(tvm_go(&t), 1);
	EXPECT_EQ(*(uint16_t *)&G(&t, fx)[0], 0x27f);
	EXPECT_EQ(*(uint16_t *)&G(&t, fx)[2], 0x4100);
	EXPECT_EQ(*(uint32_t *)&G(&t, fx)[24], 0x1fa0);
	EXPECT_MEMEQ(&G(&t, fx)[32], in.fpr[0], 10);
	EXPECT_MEMEQ(&G(&t, fx)[160], in.xmm, 256);

	EXPECT_OK(ioctl(t.cpu, KVM_GET_FPU, &out));
	EXPECT_EQ(out.fcw, 0x37f);
	EXPECT_EQ(out.xmm[3][0], 0xff);
	EXPECT_EQ(out.xmm[4][0], 0x14);
	EXPECT_MEMEQ(&out.fpr[0], "\0\0\0\0\0\0\0\x80\xff\x3f", 10);
	tvm_fini(&t);
}

static bool has_avx(void)
{
	const struct kvm_cpuid_entry2 *e = tvm_cpuid(1, 0);

	return e && (e->ecx >> 28 & 1);
}

GUEST(guest_swaps_avx)
{
	write_cr4(read_cr4() | 1 << 18);
	__asm__ volatile("vextractf128 $1, %%ymm2, %0\n\t"
			 "vpcmpeqd %%xmm5, %%xmm5, %%xmm5\n\t"
			 "vinsertf128 $1, %%xmm5, %%ymm5, %%ymm5" : "=m"(fx) : : "xmm5");
	GUEST_SYNC(1);
}

/* The standard format: legacy area, header, then AVX at 576. */
TEST(xsave_and_xcrs_reach_the_guest_and_return)
{
	struct kvm_xsave xs, back;
	struct kvm_xcrs xcrs;
	struct tvm t;

	if (!has_avx())
		SKIP("emulator: no AVX in CPUID");
	tvm_init(&t, &guest_swaps_avx);
	EXPECT_OK(ioctl(t.cpu, KVM_GET_XCRS, &xcrs));
	EXPECT_EQ(xcrs.nr_xcrs, 1);
	EXPECT_EQ(xcrs.xcrs[0].xcr, 0);
	EXPECT_EQ(xcrs.xcrs[0].value, 1);
	xcrs.xcrs[0].value = 7;
	EXPECT_OK(ioctl(t.cpu, KVM_SET_XCRS, &xcrs));
	memset(&xcrs, 0, sizeof(xcrs));
	EXPECT_OK(ioctl(t.cpu, KVM_GET_XCRS, &xcrs));
	EXPECT_EQ(xcrs.xcrs[0].value, 7);

	EXPECT_OK(ioctl(t.cpu, KVM_GET_XSAVE, &xs));
	xs.region[512 / 4] |= 7;
	memset(&xs.region[(576 + 2 * 16) / 4], 0x6b, 16);
	memset(&xs.region[(160 + 2 * 16) / 4], 0x5a, 16);
	EXPECT_OK(ioctl(t.cpu, KVM_SET_XSAVE, &xs));
	EXPECT_OK(ioctl(t.cpu, KVM_GET_XSAVE, &back));
	EXPECT_MEMEQ(&back.region[160 / 4], &xs.region[160 / 4], 256);
	EXPECT_MEMEQ(&back.region[576 / 4], &xs.region[576 / 4], 256);

	EXPECT_EQ(tvm_go(&t), 1);
	EXPECT_EQ(G(&t, fx)[0], 0x6b);
	EXPECT_EQ(G(&t, fx)[15], 0x6b);
	EXPECT_OK(ioctl(t.cpu, KVM_GET_XSAVE, &back));
	EXPECT_EQ(back.region[512 / 4] & 4, 4);
	EXPECT_EQ(back.region[(576 + 5 * 16) / 4], 0xffffffff);
	EXPECT_EQ(back.region[(576 + 2 * 16) / 4], 0x6b6b6b6b);
	tvm_fini(&t);
}

TEST(xsave_and_xcrs_refuse_bad_state)
{
	struct kvm_xcrs xcrs = { .nr_xcrs = 1 };
	struct kvm_xsave xs;
	struct tvm t;

	tvm_init_bare(&t, 0);
	tvm_add_vcpu(&t, 0);
	EXPECT_OK(ioctl(t.cpu, KVM_GET_XSAVE, &xs));
	xs.region[512 / 4 + 1] |= 1u << 30;	/* no such component */
	EXPECT_ERRNO(ioctl(t.cpu, KVM_SET_XSAVE, &xs), EINVAL);
	xs.region[512 / 4 + 1] = 0;
	xs.region[512 / 4] |= 2;
	xs.region[24 / 4] = 0xffffffff;		/* reserved bits of MXCSR */
	EXPECT_ERRNO(ioctl(t.cpu, KVM_SET_XSAVE, &xs), EINVAL);

	xcrs.xcrs[0].value = 6;			/* without x87 */
	EXPECT_ERRNO(ioctl(t.cpu, KVM_SET_XCRS, &xcrs), EINVAL);
	xcrs.xcrs[0].value = 5;			/* AVX without SSE */
	EXPECT_ERRNO(ioctl(t.cpu, KVM_SET_XCRS, &xcrs), EINVAL);
	xcrs.xcrs[0].value = 1ull << 62 | 1;
	EXPECT_ERRNO(ioctl(t.cpu, KVM_SET_XCRS, &xcrs), EINVAL);
	xcrs.xcrs[0].value = 1;
	xcrs.flags = 1;
	EXPECT_ERRNO(ioctl(t.cpu, KVM_SET_XCRS, &xcrs), EINVAL);
	xcrs.flags = 0;
	xcrs.nr_xcrs = 17;
	EXPECT_ERRNO(ioctl(t.cpu, KVM_SET_XCRS, &xcrs), EINVAL);
	tvm_fini(&t);
}

static volatile uint64_t seen[4];

GUEST(guest_reads_debug_registers)
{
	uint64_t val;

	__asm__ volatile("mov %%dr0, %0" : "=r"(val));
	seen[0] = val;
	__asm__ volatile("mov %%dr3, %0" : "=r"(val));
	seen[1] = val;
	seen[2] = read_dr6();
	seen[3] = read_dr7();
	__asm__ volatile("mov %0, %%dr2" : : "r"(0x5555ul));
	GUEST_SYNC(1);
}

TEST(debugregs_reach_the_guest_and_return)
{
	struct kvm_debugregs d = {
		.db = { 0x100000, 0x200000, 0x300000, 0x400000 },
		.dr6 = 0xffff0ff1, .dr7 = 0x500,
	};
	struct kvm_debugregs out;
	struct tvm t;

	tvm_init(&t, &guest_reads_debug_registers);
	EXPECT_OK(ioctl(t.cpu, KVM_SET_DEBUGREGS, &d));
	EXPECT_OK(ioctl(t.cpu, KVM_GET_DEBUGREGS, &out));
	EXPECT_MEMEQ(&out, &d, sizeof(d));
	EXPECT_EQ(tvm_go(&t), 1);
	EXPECT_EQ(G(&t, seen[0]), 0x100000);
	EXPECT_EQ(G(&t, seen[1]), 0x400000);
	EXPECT_EQ(G(&t, seen[2]), 0xffff0ff1);
	EXPECT_EQ(G(&t, seen[3]), 0x500);
	EXPECT_OK(ioctl(t.cpu, KVM_GET_DEBUGREGS, &out));
	EXPECT_EQ(out.db[2], 0x5555);

	d.flags = 1;
	EXPECT_ERRNO(ioctl(t.cpu, KVM_SET_DEBUGREGS, &d), EINVAL);
	d.flags = 0;
	d.dr6 = 1ull << 32;
	EXPECT_ERRNO(ioctl(t.cpu, KVM_SET_DEBUGREGS, &d), EINVAL);
	d.dr6 = 0;
	d.dr7 = 1ull << 32;
	EXPECT_ERRNO(ioctl(t.cpu, KVM_SET_DEBUGREGS, &d), EINVAL);
	tvm_fini(&t);
}

TEST(vcpu_events_round_trip)
{
	struct kvm_vcpu_events e, out;
	struct tvm t;

	tvm_init_bare(&t, TVM_IRQCHIP);
	tvm_add_vcpu(&t, 0);
	memset(&e, 0xff, sizeof(e));
	EXPECT_OK(ioctl(t.cpu, KVM_GET_VCPU_EVENTS, &e));
	EXPECT_EQ(e.exception.injected, 0);
	EXPECT_EQ(e.interrupt.injected, 0);
	EXPECT_EQ(e.nmi.injected | e.nmi.pending | e.nmi.masked, 0);
	EXPECT_EQ(e.interrupt.shadow, 0);
	EXPECT_TRUE(e.flags & KVM_VCPUEVENT_VALID_SHADOW);

	e.flags = KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_NMI_PENDING;
	e.nmi.pending = 1;
	e.nmi.masked = 1;
	e.interrupt.shadow = KVM_X86_SHADOW_INT_STI;
	EXPECT_OK(ioctl(t.cpu, KVM_SET_VCPU_EVENTS, &e));
	EXPECT_OK(ioctl(t.cpu, KVM_GET_VCPU_EVENTS, &out));
	EXPECT_EQ(out.nmi.pending, 1);
	EXPECT_EQ(out.nmi.masked, 1);
	EXPECT_NE(out.interrupt.shadow, 0);

	memset(&e, 0, sizeof(e));
	e.exception.injected = 1;
	e.exception.nr = 13;
	e.exception.has_error_code = 1;
	e.exception.error_code = 0x10;
	EXPECT_OK(ioctl(t.cpu, KVM_SET_VCPU_EVENTS, &e));
	EXPECT_OK(ioctl(t.cpu, KVM_GET_VCPU_EVENTS, &out));
	EXPECT_EQ(out.exception.nr, 13);
	EXPECT_EQ(out.exception.error_code, 0x10);
	EXPECT_EQ(out.exception.has_error_code, 1);

	e.exception.nr = 2;		/* an NMI is not an exception */
	EXPECT_ERRNO(ioctl(t.cpu, KVM_SET_VCPU_EVENTS, &e), EINVAL);
	e.exception.nr = 32;
	EXPECT_ERRNO(ioctl(t.cpu, KVM_SET_VCPU_EVENTS, &e), EINVAL);
	e.exception.nr = 13;
	e.flags = 0x8000;
	EXPECT_ERRNO(ioctl(t.cpu, KVM_SET_VCPU_EVENTS, &e), EINVAL);
	tvm_fini(&t);
}

GUEST(guest_takes_gp)
{
	GUEST_EQ(GUEST_TRY("nop", , ), 13);
	GUEST_EQ(guest_cpu()->error, 0x18);
}

/* Injected by the VMM, with the vector's error code on the guest's stack. */
TEST(vcpu_events_inject_an_exception)
{
	struct kvm_vcpu_events e;
	struct kvm_regs regs;
	struct tvm t;

	tvm_init(&t, &guest_takes_gp);
	memset(&e, 0, sizeof(e));
	e.exception.injected = 1;
	e.exception.nr = 13;
	e.exception.has_error_code = 1;
	e.exception.error_code = 0x18;
	/* A fixup that the first instructions of the guest would set. */
	regs = tvm_regs(&t, 0);
	G(&t, guest_cpus)[0].vector = GUEST_NO_FAULT;
	G(&t, guest_cpus)[0].fixup = regs.rip;
	EXPECT_OK(ioctl(t.cpu, KVM_SET_VCPU_EVENTS, &e));
	t.run->immediate_exit = 0;
	ASSERT_EQ(tvm_run(&t), KVM_EXIT_IO);
	EXPECT_EQ(G(&t, guest_cpus)[0].error, 0x18);
	tvm_fini(&t);
}

TEST(mp_state)
{
	struct kvm_mp_state mp;
	struct tvm t;

	tvm_init_bare(&t, TVM_IRQCHIP);
	tvm_add_vcpu(&t, 0);
	tvm_add_vcpu(&t, 0);
	EXPECT_OK(ioctl(t.vcpu[0].fd, KVM_GET_MP_STATE, &mp));
	EXPECT_EQ(mp.mp_state, KVM_MP_STATE_RUNNABLE);
	EXPECT_OK(ioctl(t.vcpu[1].fd, KVM_GET_MP_STATE, &mp));
	EXPECT_EQ(mp.mp_state, KVM_MP_STATE_UNINITIALIZED);
	mp.mp_state = KVM_MP_STATE_HALTED;
	EXPECT_OK(ioctl(t.vcpu[1].fd, KVM_SET_MP_STATE, &mp));
	EXPECT_OK(ioctl(t.vcpu[1].fd, KVM_GET_MP_STATE, &mp));
	EXPECT_EQ(mp.mp_state, KVM_MP_STATE_HALTED);
	mp.mp_state = 77;
	EXPECT_ERRNO(ioctl(t.vcpu[1].fd, KVM_SET_MP_STATE, &mp), EINVAL);
	tvm_fini(&t);

	/* Without a local APIC a vCPU can only be runnable. */
	tvm_init_bare(&t, 0);
	tvm_add_vcpu(&t, 0);
	mp.mp_state = KVM_MP_STATE_RUNNABLE;
	EXPECT_OK(ioctl(t.cpu, KVM_SET_MP_STATE, &mp));
	mp.mp_state = KVM_MP_STATE_UNINITIALIZED;
	EXPECT_ERRNO(ioctl(t.cpu, KVM_SET_MP_STATE, &mp), EINVAL);
	tvm_fini(&t);
}

TEST(vapic_address_is_accepted)
{
	struct kvm_vapic_addr va = { .vapic_addr = 0x9000 };
	struct tvm t;

	tvm_init_bare(&t, TVM_IRQCHIP);
	tvm_add_vcpu(&t, 0);
	EXPECT_OK(ioctl(t.cpu, KVM_SET_VAPIC_ADDR, &va));
	tvm_fini(&t);
}

TEST(setup_mce)
{
	uint64_t cap = 0x10a, bad = 0x100 | 33;	/* MCG_CTL_P, 10 banks */
	struct tvm t;

	tvm_init_bare(&t, 0);
	tvm_add_vcpu(&t, 0);
	EXPECT_ERRNO(ioctl(t.cpu, KVM_X86_SETUP_MCE, &bad), EINVAL);
	EXPECT_OK(ioctl(t.cpu, KVM_X86_SETUP_MCE, &cap));
	EXPECT_EQ(tvm_msr(&t, 0, 0x179) & 0xff, 10);
	EXPECT_EQ(tvm_set_msr(&t, 0, 0x17b, UINT64_MAX), 1);
	EXPECT_EQ(tvm_set_msr(&t, 0, 0x400 + 4 * 9, UINT64_MAX), 1);
	tvm_fini(&t);
}

/* -- machine checks that the VMM injects ------------------------------------ */

static volatile uint64_t mc_status, mc_bank, mc_taken;

static void on_machine_check(struct guest_frame *frame)
{
	(void)frame;
	mc_taken++;
	mc_status = rdmsr(0x17a);
	mc_bank = rdmsr(0x401 + 4 * 3);
	wrmsr(0x17a, 0);
	wrmsr(0x401 + 4 * 3, 0);
}

GUEST(guest_takes_machine_checks)
{
	guest_handlers[18] = on_machine_check;
	write_cr4(read_cr4() | 1 << 6);
	GUEST_SYNC(1);
	GUEST_EQ(mc_taken, 0);
	GUEST_EQ(rdmsr(0x401 + 4 * 3), 0x8000000000000123);
	GUEST_EQ(rdmsr(0x402 + 4 * 3), 0x5000);
	wrmsr(0x401 + 4 * 3, 0);
	GUEST_SYNC(2);
	GUEST_EQ(mc_taken, 1);
	GUEST_EQ(mc_status, 5);
	GUEST_EQ(mc_bank, 0xa000000000000456);
	write_cr4(read_cr4() & ~(1ul << 6));
	GUEST_SYNC(3);
}

TEST(set_mce)
{
	struct kvm_x86_mce mce = { .status = 0x8000000000000123, .addr = 0x5000, .bank = 3 };
	uint64_t cap = 0x10a;
	struct tvm t;

	tvm_init(&t, &guest_takes_machine_checks);
	EXPECT_OK(ioctl(t.cpu, KVM_X86_SETUP_MCE, &cap));
	EXPECT_EQ(tvm_go(&t), 1);
	/* A corrected one is only logged. */
	EXPECT_OK(ioctl(t.cpu, KVM_X86_SET_MCE, &mce));
	EXPECT_EQ(tvm_go(&t), 2);
	mce.status = 0xa000000000000456;
	mce.mcg_status = 5;
	EXPECT_OK(ioctl(t.cpu, KVM_X86_SET_MCE, &mce));
	EXPECT_EQ(tvm_go(&t), 3);

	mce.bank = 10;
	EXPECT_ERRNO(ioctl(t.cpu, KVM_X86_SET_MCE, &mce), EINVAL);
	mce.bank = 3;
	mce.status = 0x123;		/* not valid */
	EXPECT_ERRNO(ioctl(t.cpu, KVM_X86_SET_MCE, &mce), EINVAL);
	EXPECT_ERRNO(ioctl(t.cpu, KVM_X86_SET_MCE, BAD_PTR), EFAULT);
	/* The guest has turned CR4.MCE off: it shuts down. */
	mce.status = 0xa000000000000456;
	EXPECT_OK(ioctl(t.cpu, KVM_X86_SET_MCE, &mce));
	EXPECT_EQ(tvm_run(&t), KVM_EXIT_SHUTDOWN);
	tvm_fini(&t);
}

/* -- registers in kvm_run --------------------------------------------------- */

GUEST64(guest_counts_in_rbx, "1: add $1, %rbx\n" "mov %eax, %fs:0\n" "hlt\n" "jmp 1b\n");

TEST(sync_regs)
{
	const uint64_t all = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;
	struct kvm_vcpu_events events;
	struct kvm_sync_regs *s;
	struct kvm_sregs sregs;
	struct kvm_regs regs;
	struct tvm t;

	tvm_init(&t, &guest_counts_in_rbx);
	s = &t.run->s.regs;
	EXPECT_EQ(ioctl(t.fd, KVM_CHECK_EXTENSION, KVM_CAP_SYNC_REGS), all);

	t.run->kvm_valid_regs = all << 3;
	EXPECT_ERRNO(ioctl(t.cpu, KVM_RUN, 0), EINVAL);
	t.run->kvm_valid_regs = 0;
	t.run->kvm_dirty_regs = 1ull << 63;
	EXPECT_ERRNO(ioctl(t.cpu, KVM_RUN, 0), EINVAL);

	t.run->kvm_dirty_regs = 0;
	t.run->kvm_valid_regs = all;
	EXPECT_EQ(tvm_run(&t), KVM_EXIT_HLT);
	regs = tvm_regs(&t, 0);
	sregs = tvm_sregs(&t, 0);
	EXPECT_OK(ioctl(t.cpu, KVM_GET_VCPU_EVENTS, &events));
	EXPECT_MEMEQ(&s->regs, &regs, sizeof(regs));
	EXPECT_MEMEQ(&s->sregs, &sregs, sizeof(sregs));
	EXPECT_MEMEQ(&s->events, &events, sizeof(events));

	/* What is not called dirty is not taken. */
	s->regs.rbx = 1000;
	EXPECT_EQ(tvm_run(&t), KVM_EXIT_HLT);
	EXPECT_EQ(s->regs.rbx, regs.rbx + 1);
	s->regs.rbx = 1000;
	s->regs.rax = 0x4711;
	s->sregs.fs.base = GUEST_DATA;
	t.run->kvm_dirty_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
	EXPECT_EQ(tvm_run(&t), KVM_EXIT_HLT);
	EXPECT_EQ(t.run->kvm_dirty_regs, 0);
	EXPECT_EQ(s->regs.rbx, 1001);
	EXPECT_EQ(*(uint32_t *)tvm_ptr(&t, GUEST_DATA), 0x4711);

	/* Values are checked as the SET ioctls do. */
	s->sregs.cr4 |= 1ull << 40;
	t.run->kvm_dirty_regs = KVM_SYNC_X86_SREGS;
	EXPECT_ERRNO(ioctl(t.cpu, KVM_RUN, 0), EINVAL);
	s->sregs.cr4 &= ~(1ull << 40);
	s->events.flags = 0x8000;
	t.run->kvm_dirty_regs = KVM_SYNC_X86_EVENTS;
	EXPECT_ERRNO(ioctl(t.cpu, KVM_RUN, 0), EINVAL);

	/* Not asked for: left alone. */
	t.run->kvm_dirty_regs = 0;
	t.run->kvm_valid_regs = 0;
	s->regs.rbx = 5;
	EXPECT_EQ(tvm_run(&t), KVM_EXIT_HLT);
	EXPECT_EQ(s->regs.rbx, 5);
	EXPECT_EQ(tvm_regs(&t, 0).rbx, 1002);
	tvm_fini(&t);
}

TEST(sregs2)
{
	struct kvm_sregs2 s2;
	struct kvm_sregs s;
	struct tvm t;

	tvm_init(&t, &guest_idle);
	s = tvm_sregs(&t, 0);
	EXPECT_OK(ioctl(t.cpu, KVM_GET_SREGS2, &s2));
	EXPECT_MEMEQ(&s2, &s, offsetof(struct kvm_sregs, interrupt_bitmap));
	EXPECT_EQ(s2.flags, 0);		/* long mode has no PDPTEs */
	s2.fs.base = 0x7000;
	EXPECT_OK(ioctl(t.cpu, KVM_SET_SREGS2, &s2));
	EXPECT_EQ(tvm_sregs(&t, 0).fs.base, 0x7000);
	s2.flags = 2;
	EXPECT_ERRNO(ioctl(t.cpu, KVM_SET_SREGS2, &s2), EINVAL);
	s2.flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
	EXPECT_ERRNO(ioctl(t.cpu, KVM_SET_SREGS2, &s2), EINVAL);
	EXPECT_ERRNO(ioctl(t.cpu, KVM_SET_SREGS2, BAD_PTR), EFAULT);
	EXPECT_EQ(tvm_go(&t), TVM_DONE);
	tvm_fini(&t);
}

TEST(max_vcpu_id)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_MAX_VCPU_ID };
	struct tvm t;

	tvm_init_bare(&t, 0);
	cap.args[0] = ioctl(t.fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPU_ID) + 1;
	EXPECT_ERRNO(ioctl(t.fd, KVM_ENABLE_CAP, &cap), EINVAL);
	cap.args[0] = 3;
	EXPECT_OK(ioctl(t.fd, KVM_ENABLE_CAP, &cap));
	EXPECT_OK(ioctl(t.fd, KVM_ENABLE_CAP, &cap));
	cap.args[0] = 4;			/* it is chosen once */
	EXPECT_ERRNO(ioctl(t.fd, KVM_ENABLE_CAP, &cap), EINVAL);
	EXPECT_ERRNO(ioctl(t.fd, KVM_CREATE_VCPU, 3), EINVAL);
	EXPECT_OK(ioctl(t.fd, KVM_CREATE_VCPU, 2));
	tvm_fini(&t);
}
