// SPDX-License-Identifier: GPL-2.0-only
/*
 * VT-x: switching it on and off, the VMCS of a vCPU, and the registers in it.
 * Entering the guest is in run.c, what happens after an exit in exit.c. Sections
 * named in all three are of the Intel Software Developer's Manual, volume 3.
 *
 * A VMCS stays active on the CPU that used it last until another one is used
 * there, or it is used elsewhere. Where a module cannot keep CR4.VMXE set
 * (compat.h), CPUs are in VMX operation only for as long as a VMCS is used, with
 * interrupts off: a window. If another hypervisor is in VMX operation meanwhile,
 * a window borrows that, and gives back the VMCS that was current.
 */
#define pr_fmt(fmt) "fonda: " fmt

#include <linux/idr.h>
#include <asm/cpu_entry_area.h>
#include <asm/desc.h>
#include <asm/special_insns.h>

#include "vmx.h"

struct vmx_features vmx_features __ro_after_init;
DEFINE_PER_CPU(struct vmx_cpu, vmx_cpus);

static bool windows __ro_after_init = FONDA_VMX_WINDOWS;
module_param_named(vmx_windows, windows, bool, 0444);
MODULE_PARM_DESC(vmx_windows, "leave VMX operation after every entry; needed from Linux 7.0 on");

static bool use_tpr_shadow __ro_after_init = true;
module_param_named(tpr_shadow, use_tpr_shadow, bool, 0444);
static bool use_pml __ro_after_init = true;
module_param_named(pml, use_pml, bool, 0444);
static bool use_tsc_scaling __ro_after_init = true;
module_param_named(tsc_scaling, use_tsc_scaling, bool, 0444);
/* Once loaded: whether they are there, too. */
bool vmx_apicv __ro_after_init = true;
module_param_named(apicv, vmx_apicv, bool, 0444);
bool vmx_timer __ro_after_init = true;
module_param_named(preemption_timer, vmx_timer, bool, 0444);

static DEFINE_IDA(vpids);
static u32 revision __ro_after_init;
/* One for each of BITMAP_* below. */
static u8 *msr_bitmap;
static struct fonda_mmu_format ept_format __ro_after_init;

/* MSRs that the guest may touch without an exit. */
static const u32 direct_msrs[] = {
	MSR_FS_BASE, MSR_GS_BASE, MSR_KERNEL_GS_BASE,
	MSR_IA32_SYSENTER_CS, MSR_IA32_SYSENTER_ESP, MSR_IA32_SYSENTER_EIP,
};

/*
 * The usual one; one that has all exit, for filters; and for APICs in x2APIC mode
 * that the processor virtualizes. Only those: in xAPIC mode the page of registers
 * would have to be mapped, and another for each vCPU that has moved it.
 */
enum { BITMAP_USUAL, BITMAP_FILTER, BITMAP_X2APIC, NR_BITMAPS };

static const u32 msr_numbers[VMX_NR_MSRS] = {
	MSR_STAR, MSR_LSTAR, MSR_CSTAR, MSR_SYSCALL_MASK, MSR_KERNEL_GS_BASE,
};

/* What the host has there, the same on all CPUs. */
static u64 host_msr[VMX_NR_MSRS] __ro_after_init;

/* -- switching it on -------------------------------------------------------- */

static void clear_loaded(struct vmx_cpu *vc)
{
	struct vmx_vcpu *vmx = vc->loaded;

	if (!vmx)
		return;
	vmclear(__pa(vmx->vmcs));
	vmx->launched = false;
	vc->loaded = NULL;
	/* Its own thread may take it elsewhere from here on. */
	smp_store_release(&vmx->cpu, -1);
}

static void clear_vmcs(void *vmx)
{
	struct vmx_cpu *vc = this_cpu_ptr(&vmx_cpus);

	if (vc->loaded == vmx)
		clear_loaded(vc);
}

#define NO_VMCS	(~0ull)

static void begin_window(struct vmx_cpu *vc)
{
	vc->theirs = NO_VMCS;
	vc->borrowed = __read_cr4() & X86_CR4_VMXE;
	if (vc->borrowed) {
		vmx_insn("vmptrst %1", "m"(vc->theirs));
		return;
	}
	fonda_write_cr4(__read_cr4() | X86_CR4_VMXE);
	vmxon(__pa(vc->vmxon));
}

static void end_window(struct vmx_cpu *vc)
{
	clear_loaded(vc);
	if (vc->borrowed) {
		if (vc->theirs != NO_VMCS)
			vmptrld(vc->theirs);
		return;
	}
	vmxoff();
	fonda_write_cr4(__read_cr4() & ~X86_CR4_VMXE);
}

void vmx_open(struct vmx_vcpu *vmx)
{
	struct vmx_cpu *vc;
	int cpu;

	if (vmx->open++)
		return;
	preempt_disable();
	/* Only its own thread makes it active anywhere. */
	cpu = smp_load_acquire(&vmx->cpu);
	if (cpu >= 0 && cpu != smp_processor_id())
		smp_call_function_single(cpu, clear_vmcs, vmx, 1);
	local_irq_save(vmx->irq_flags);
	vc = this_cpu_ptr(&vmx_cpus);
	if (vc->loaded == vmx)
		return;
	if (windows)
		begin_window(vc);
	clear_loaded(vc);
	vmptrld(__pa(vmx->vmcs));
	vc->loaded = vmx;
	vmx->cpu = smp_processor_id();
}

void vmx_close(struct vmx_vcpu *vmx)
{
	if (--vmx->open)
		return;
	if (windows)
		end_window(this_cpu_ptr(&vmx_cpus));
	local_irq_restore(vmx->irq_flags);
	preempt_enable();
}

static int vmx_cpu_enable(void)
{
	struct vmx_cpu *vc = this_cpu_ptr(&vmx_cpus);

	if (__read_cr4() & X86_CR4_VMXE)
		return -EBUSY;
	if (windows)
		return 0;
	vc->loaded = NULL;
	fonda_pt_handle_vmx(1);
	fonda_set_vmxe(true);
	if (!vmxon(__pa(vc->vmxon)))
		return 0;
	fonda_set_vmxe(false);
	fonda_pt_handle_vmx(0);
	return -EIO;
}

static void vmx_cpu_disable(void)
{
	if (windows)
		return;
	clear_loaded(this_cpu_ptr(&vmx_cpus));
	vmxoff();
	fonda_set_vmxe(false);
	fonda_pt_handle_vmx(0);
}

/* The machine crashes, and a CPU in VMX operation ignores INIT. */
static void emergency(void)
{
	struct vmx_cpu *vc = this_cpu_ptr(&vmx_cpus);

	if (!this_cpu_read(fonda_cpu_enabled) || windows)
		return;
	if (vc->loaded)
		vmclear(__pa(vc->loaded->vmcs));
	vmxoff();
	fonda_write_cr4(__read_cr4() & ~X86_CR4_VMXE);
}

/* KVM wants the kernel's only place for such a function when it is loaded. */
static void watch_for_emergency(bool on)
{
	static DEFINE_MUTEX(lock);	/* of what follows, and of registering itself */
	static bool registered;
	static int users;

	mutex_lock(&lock);
	if (on && !users++)
		registered = fonda_emergency_register(emergency);
	else if (!on && !--users && registered)
		fonda_emergency_unregister(emergency);
	mutex_unlock(&lock);
}

/* "Reserved Controls and Default Settings": what is required is missing in *@missing. */
static u32 adjust(u32 msr, u32 required, u32 optional, u32 *missing)
{
	u32 must, may;

	rdmsr(msr, must, may);
	*missing = required & ~may;
	return ((required | optional) & may) | must;
}

static int refuse(const char *what)
{
	pr_err("VT-x without %s: this processor, or the hypervisor below, is too old or has it turned off\n",
	       what);
	return -EOPNOTSUPP;
}

static int find_controls(void)
{
	struct vmx_features *f = &vmx_features;
	u32 missing[5], nr = 0, pin_allowed;
	u64 basic, misc, caps;

	rdmsrq(MSR_IA32_VMX_BASIC, basic);
	rdmsrq(MSR_IA32_VMX_MISC, misc);
	if (windows && boot_cpu_has(X86_FEATURE_INTEL_PT) && !(misc & BIT(14)))
		return refuse("Intel PT beside it");
	revision = basic & ~0u >> 1;
	if (!(basic & BIT_ULL(55)))
		return refuse("the capability MSRs of its later versions");
	f->pin = adjust(MSR_IA32_VMX_TRUE_PINBASED_CTLS,
			PIN_EXTERNAL_INTERRUPT | PIN_NMI | PIN_VIRTUAL_NMI, 0, &missing[0]);
	f->cpu = adjust(MSR_IA32_VMX_TRUE_PROCBASED_CTLS,
			CPU_TSC_OFFSET | CPU_HLT | CPU_MWAIT | CPU_RDPMC | CPU_MOV_DR | CPU_IO |
			CPU_MSR_BITMAP | CPU_MONITOR | CPU_SECONDARY,
			use_tpr_shadow ? CPU_TPR_SHADOW : 0, &missing[1]);
	if (!(f->cpu & CPU_TPR_SHADOW))
		f->cpu |= CPU_CR8_LOAD | CPU_CR8_STORE;
	f->exit = adjust(MSR_IA32_VMX_TRUE_EXIT_CTLS,
			 EXIT_SAVE_DEBUG | EXIT_HOST_64BIT | EXIT_LOAD_PAT | EXIT_SAVE_EFER |
			 EXIT_LOAD_EFER, EXIT_LOAD_PERF, &missing[2]);
	f->entry = adjust(MSR_IA32_VMX_TRUE_ENTRY_CTLS,
			  ENTRY_LOAD_DEBUG | ENTRY_LOAD_PAT | ENTRY_LOAD_EFER, ENTRY_LOAD_PERF,
			  &missing[3]);
	/* The host's counters stop in the guest: their records would go to its memory. */
	f->perf = f->exit & EXIT_LOAD_PERF && f->entry & ENTRY_LOAD_PERF &&
		  boot_cpu_has(X86_FEATURE_ARCH_PERFMON) && (cpuid_eax(0xa) & 0xff) > 1;
	if (!f->perf) {
		f->exit &= ~(u32)EXIT_LOAD_PERF;
		f->entry &= ~(u32)ENTRY_LOAD_PERF;
	}
	if (missing[1] & CPU_SECONDARY)
		return refuse("secondary controls");
	f->cpu2 = adjust(MSR_IA32_VMX_PROCBASED_CTLS2, CPU2_EPT | CPU2_VPID | CPU2_UNRESTRICTED,
			 CPU2_WBINVD | CPU2_PAUSE_LOOP | CPU2_ENCLS, &missing[4]);
	rdmsr(MSR_IA32_VMX_PROCBASED_CTLS2, nr, f->cpu2_allowed);
	/* Processors from before virtual-interrupt delivery have errata about its rate. */
	rdmsr(MSR_IA32_VMX_TRUE_PINBASED_CTLS, nr, pin_allowed);
	vmx_timer &= pin_allowed & PIN_PREEMPTION_TIMER &&
		     f->cpu2_allowed & CPU2_INTERRUPT_DELIVERY;
	f->timer_shift = misc & 0x1f;
	if (missing[4])
		return refuse(missing[4] & CPU2_EPT ? "extended page tables (ept)" :
			      missing[4] & CPU2_VPID ? "VPIDs (vpid)" : "unrestricted guests");
	for (nr = 0; nr < 4; nr++)
		if (missing[nr])
			return refuse("virtual NMIs, MSR bitmaps, or switching EFER and PAT");
	rdmsrq(MSR_IA32_VMX_EPT_VPID_CAP, caps);
	/* "VPID and EPT Capabilities": 4 levels, write-back, INVEPT and INVVPID of one context. */
	if (~caps & (BIT_ULL(6) | BIT_ULL(14) | BIT_ULL(20) | BIT_ULL(25) | BIT_ULL(32) |
		     BIT_ULL(41)))
		return refuse("write-back EPT of 4 levels, INVEPT or INVVPID");
	ept_format = fonda_ept_format;
	ept_format.max_level = caps & BIT_ULL(17) ? 3 : caps & BIT_ULL(16) ? 2 : 1;
	/*
	 * A guest that changes the size of a page that it executes must not halt the
	 * host, unless the host's owner wants no mitigations.
	 */
	if (boot_cpu_has_bug(X86_BUG_ITLB_MULTIHIT) && !cpu_mitigations_off())
		ept_format.max_level = 1;
	f->ept_ad = caps & BIT_ULL(21);
	if (!f->ept_ad)
		ept_format.accessed = ept_format.dirty = 0;
	ept_format.lists_writes = f->ept_ad && use_pml && f->cpu2_allowed & CPU2_PML;
	/* "Time-Stamp Counter Offset and Multiplier" */
	if (use_tsc_scaling && f->cpu2_allowed & CPU2_TSC_SCALING)
		fonda_tsc_fraction = 48;
	vmx_apicv &= f->cpu & CPU_TPR_SHADOW && !(CPU2_APICV & ~f->cpu2_allowed);
	return 0;
}

static int check_processor(void)
{
	if (!boot_cpu_has(X86_FEATURE_VMX)) {
		/* The kernel clears the feature when firmware locked it off. */
		if (boot_cpu_data.x86_vendor != X86_VENDOR_INTEL || !(cpuid_ecx(1) & BIT(5)))
			return -ENODEV;
		pr_err("VT-x (vmx) is disabled by firmware: enable \"VT-x\" or \"Virtualization\" in its setup\n");
		return -EOPNOTSUPP;
	}
#ifdef X86_FEATURE_FRED
	if (cpu_feature_enabled(X86_FEATURE_FRED)) {
		pr_err("NMIs of guests cannot be passed on with FRED: boot with fred=off\n");
		return -EOPNOTSUPP;
	}
#endif
	return find_controls();
}

static void vmx_hardware_unsetup(void)
{
	int cpu;

	for_each_possible_cpu(cpu)
		free_page((unsigned long)per_cpu(vmx_cpus, cpu).vmxon);
	free_pages_exact(msr_bitmap, NR_BITMAPS * PAGE_SIZE);
}

static int vmx_hardware_setup(void)
{
	int ret, cpu, i;
	u8 *x2apic;

	ret = check_processor();
	if (ret)
		return ret;
	/* Without PE and PG, which unrestricted guests may clear. */
	rdmsrq(MSR_IA32_VMX_CR0_FIXED0, vmx_features.cr0_fixed);
	vmx_features.cr0_fixed &= ~(u64)(X86_CR0_PE | X86_CR0_PG);
	rdmsrq(MSR_IA32_VMX_CR4_FIXED0, vmx_features.cr4_fixed);
	for (i = 0; i < VMX_NR_MSRS; i++)
		rdmsrq(msr_numbers[i], host_msr[i]);

	msr_bitmap = alloc_pages_exact(NR_BITMAPS * PAGE_SIZE, GFP_KERNEL);
	if (!msr_bitmap)
		return -ENOMEM;
	memset(msr_bitmap, 0xff, NR_BITMAPS * PAGE_SIZE);
	for (i = 0; i < ARRAY_SIZE(direct_msrs); i++) {
		/* "MSR-Bitmap Address": reads, then writes; of each, two ranges. */
		u32 bit = (direct_msrs[i] & 0x1fff) + (direct_msrs[i] >> 31) * 0x2000;

		__clear_bit(bit, (unsigned long *)msr_bitmap);
		__clear_bit(bit + 0x4000, (unsigned long *)msr_bitmap);
	}
	x2apic = memcpy(msr_bitmap + BITMAP_X2APIC * PAGE_SIZE, msr_bitmap, PAGE_SIZE);
	/* ISR; and IRR, of which other CPUs' newest get there by an exit. */
	x2apic[MSR_X2(APIC_ISR) / 8] = x2apic[MSR_X2(APIC_IRR) / 8] = 0;
	__clear_bit(MSR_X2(APIC_PROCPRI), (unsigned long *)x2apic);
	__clear_bit(MSR_X2(APIC_TASKPRI), (unsigned long *)x2apic);
	__clear_bit(MSR_X2(APIC_TASKPRI) + 0x4000, (unsigned long *)x2apic);
	__clear_bit(MSR_X2(APIC_EOI) + 0x4000, (unsigned long *)x2apic);
	__clear_bit(MSR_X2(APIC_SELF_IPI) + 0x4000, (unsigned long *)x2apic);
	for_each_possible_cpu(cpu) {
		struct page *page = alloc_pages_node(cpu_to_node(cpu), GFP_KERNEL | __GFP_ZERO, 0);

		if (!page) {
			vmx_hardware_unsetup();
			return -ENOMEM;
		}
		per_cpu(vmx_cpus, cpu).vmxon = page_address(page);
		*per_cpu(vmx_cpus, cpu).vmxon = revision;
	}
	fonda_mmu_setup(&ept_format);
	return 0;
}

/* -- the VMCS --------------------------------------------------------------- */

static void init_vmcs(struct vmx_vcpu *vmx)
{
	struct fonda_vm *vm = vmx->vcpu.vm;
	struct vmx_features *f = &vmx_features;
	u64 val;

	static const u16 zero[] = {
		VMCS_HOST_SELECTOR, VMCS_HOST_SELECTOR + 6, VMCS_HOST_SELECTOR + 8,
		VMCS_HOST_SELECTOR + 10, VMCS_PF_ERROR_MASK, VMCS_PF_ERROR_MATCH,
		VMCS_CR3_TARGET_COUNT, VMCS_EXIT_MSR_STORE_COUNT, VMCS_EXIT_MSR_LOAD_COUNT,
		VMCS_ENTRY_MSR_LOAD_COUNT, VMCS_GUEST_INTERRUPTIBILITY, VMCS_TPR_THRESHOLD,
		/* Without virtual-interrupt delivery they are not there, and nothing is written. */
		VMCS_GUEST_INTERRUPT_STATUS, VMCS_EOI_EXIT_BITMAP, VMCS_EOI_EXIT_BITMAP + 2,
		VMCS_EOI_EXIT_BITMAP + 4, VMCS_EOI_EXIT_BITMAP + 6,
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(zero); i++)
		vmwrite(zero[i], 0);
	vmx->cpu_controls = f->cpu;
	if (vm->disabled_exits & KVM_X86_DISABLE_EXITS_HLT)
		vmx->cpu_controls &= ~(u32)CPU_HLT;
	vmwrite(VMCS_PIN_CONTROLS, f->pin);
	vmwrite(VMCS_CPU_CONTROLS, vmx->cpu_controls);
	vmwrite(VMCS_EXIT_CONTROLS, f->exit);
	vmwrite(VMCS_ENTRY_CONTROLS, f->entry);
	vmwrite(VMCS_LINK_POINTER, ~0ull);
	/* Of an empty list: were it not, no entry would get this far. */
	vmwrite(VMCS_EXIT_MSR_STORE_ADDRESS, ~0ull);
	vmwrite(VMCS_VPID, vmx->vpid);
	vmwrite(VMCS_EPT_POINTER, vmx->eptp);
	vmwrite(VMCS_VIRTUAL_APIC_ADDRESS, __pa(vmx->virtual_apic));
	if (vmx->pml) {
		vmwrite(VMCS_PML_ADDRESS, __pa(vmx->pml));
		vmwrite(VMCS_GUEST_PML_INDEX, 511);
	}
	/* Enclaves' memory that user space may have given the guest is the host's to manage. */
	vmwrite(VMCS_ENCLS_EXITING_BITMAP, ~0ull);
	/* As the manual's example has it: spinning is 128 ticks from one to the next. */
	if (f->cpu2 & CPU2_PAUSE_LOOP) {
		vmwrite(VMCS_PLE_GAP, 128);
		vmwrite(VMCS_PLE_WINDOW, 4096);
	}

	vmwrite(VMCS_HOST_CR0, read_cr0());
	vmwrite(VMCS_HOST_CS_SELECTOR, __KERNEL_CS);
	vmwrite(VMCS_HOST_SS_SELECTOR, __KERNEL_DS);
	vmwrite(VMCS_HOST_TR_SELECTOR, GDT_ENTRY_TSS * 8);
	vmwrite(VMCS_HOST_RIP, (unsigned long)vmx_exit_point);
	rdmsrq(MSR_EFER, val);
	vmwrite(VMCS_HOST_EFER, val);
	rdmsrq(MSR_IA32_CR_PAT, val);
	vmwrite(VMCS_HOST_PAT, val);
	rdmsrq(MSR_IA32_SYSENTER_CS, val);
	vmwrite(VMCS_HOST_SYSENTER_CS, val);
	rdmsrq(MSR_IA32_SYSENTER_EIP, val);
	vmwrite(VMCS_HOST_SYSENTER_EIP, val);
}

static void vmx_vcpu_fini(struct fonda_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);
	int cpu = smp_load_acquire(&vmx->cpu);

	if (cpu >= 0)
		smp_call_function_single(cpu, clear_vmcs, vmx, 1);
	if (vmx->vpid)
		ida_free(&vpids, vmx->vpid);
	if (vmx->vmcs)
		free_pages_exact(vmx->vmcs, 3 * PAGE_SIZE);
	watch_for_emergency(false);
}

static int vmx_vcpu_init(struct fonda_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);
	struct fonda_vm *vm = vcpu->vm;
	int vpid;

	watch_for_emergency(true);
	vmx->cpu = -1;
	vmx->host_cpu = -1;
	vmx->offered = -1;
	vmx->vmcs = alloc_pages_exact(3 * PAGE_SIZE, GFP_KERNEL_ACCOUNT | __GFP_ZERO);
	vpid = ida_alloc_range(&vpids, 1, U16_MAX, GFP_KERNEL);
	vmx->vpid = max(vpid, 0);
	if (!vmx->vmcs || !vmx->vpid)
		return min(vpid, 0) ?: -ENOMEM;
	*vmx->vmcs = revision;
	vmx->virtual_apic = (void *)vmx->vmcs + PAGE_SIZE;
	if (vm->dirty_ring_entries && vm->mmu.format.lists_writes)
		vmx->pml = (void *)vmx->vmcs + 2 * PAGE_SIZE;
	vmx->eptp = fonda_mmu_root_hpa(vm) | EPTP_WB | EPTP_4_LEVELS |
		    (vmx_features.ept_ad ? EPTP_ACCESSED_DIRTY : 0);
	vmx_open(vmx);
	/* "Initializing a VMCS" */
	vmclear(__pa(vmx->vmcs));
	vmptrld(__pa(vmx->vmcs));
	init_vmcs(vmx);
	vmx_close(vmx);
	return 0;
}

/* -- registers -------------------------------------------------------------- */

/* Of the VMCS that is open, like set_segment(). */
static __always_inline void get_segment(enum fonda_seg seg, struct fonda_segment *s)
{
	u32 access = vmread(VMCS_GUEST_ACCESS + 2 * seg);

	s->base = vmread(VMCS_GUEST_BASE + 2 * seg);
	s->limit = vmread(VMCS_GUEST_LIMIT + 2 * seg);
	s->selector = vmread(VMCS_GUEST_SELECTOR + 2 * seg);
	s->attr = (access & 0xff) | (access >> 4 & 0xf00);
	if (access & ACCESS_UNUSABLE)
		s->attr &= ~FONDA_SEG_P;
}

static void vmx_get_segment(struct fonda_vcpu *vcpu, enum fonda_seg seg, struct fonda_segment *s)
{
	vmx_open(to_vmx(vcpu));
	get_segment(seg, s);
	vmx_close(to_vmx(vcpu));
}

static __always_inline void set_segment(enum fonda_seg seg, const struct fonda_segment *s)
{
	/*
	 * "Checks on Guest Segment Registers": what was loaded is accessed, a task is
	 * busy. User space may say otherwise, to whom it makes no difference.
	 */
	u32 access = (s->attr & 0xff) | (s->attr & 0xf00) << 4 | (s->attr & FONDA_SEG_S ? 1 : 0) |
		     (seg == FONDA_SEG_TR ? 2 : 0) | (s->attr & FONDA_SEG_P ? 0 : ACCESS_UNUSABLE);

	vmwrite(VMCS_GUEST_BASE + 2 * seg, s->base);
	vmwrite(VMCS_GUEST_LIMIT + 2 * seg, s->limit);
	vmwrite(VMCS_GUEST_SELECTOR + 2 * seg, s->selector);
	vmwrite(VMCS_GUEST_ACCESS + 2 * seg, access);
}

static void vmx_set_segment(struct fonda_vcpu *vcpu, enum fonda_seg seg,
			    const struct fonda_segment *s)
{
	vmx_open(to_vmx(vcpu));
	set_segment(seg, s);
	vmx_close(to_vmx(vcpu));
}

/*
 * A register that is split: the guest has the bits that are not in the mask, and
 * reads the others in the shadow. "Guest/Host Masks and Read Shadows".
 */
static u64 read_cr(int nr)
{
	u64 hidden = vmread(nr ? VMCS_CR4_MASK : VMCS_CR0_MASK);

	return (vmread(nr ? VMCS_GUEST_CR4 : VMCS_GUEST_CR0) & ~hidden) |
	       (vmread(nr ? VMCS_CR4_SHADOW : VMCS_CR0_SHADOW) & hidden);
}

/*
 * A guest comes out of reset with its caches off, and firmware often leaves it
 * so; the bits are kept for those who ask. NE is 1 in VMX operation.
 */
static void set_cr0(struct vmx_vcpu *vmx, u64 val)
{
	u64 mask = vmx_features.cr0_fixed | X86_CR0_CD | X86_CR0_NW;

	vmwrite(VMCS_CR0_MASK, mask);
	vmwrite(VMCS_CR0_SHADOW, val);
	vmwrite(VMCS_GUEST_CR0, (val & ~mask) | vmx_features.cr0_fixed | X86_CR0_ET);
}

/* Machine checks are the host's, whatever the guest wants. */
static void set_cr4(struct vmx_vcpu *vmx, u64 val)
{
	u64 always = vmx_features.cr4_fixed | X86_CR4_MCE;

	vmwrite(VMCS_CR4_MASK, vmx->vcpu.cpuid.cr4_reserved | always);
	vmwrite(VMCS_CR4_SHADOW, val);
	vmwrite(VMCS_GUEST_CR4, val | always);
}

static void set_efer(struct vmx_vcpu *vmx, u64 val)
{
	u32 controls = vmx_features.entry;

	vmwrite(VMCS_GUEST_EFER, val);
	vmwrite(VMCS_ENTRY_CONTROLS, val & EFER_LMA ? controls | ENTRY_IA32E : controls);
}

/* The four PDPTEs of PAE paging are state of their own, which MOV to CR3 loads. */
void vmx_load_pdptes(struct vmx_vcpu *vmx)
{
	u64 pdpte[4], cr0 = read_cr(0), cr4 = read_cr(4);
	gpa_t gpa = vmread(VMCS_GUEST_CR3) & GENMASK(31, 5);
	bool pae = cr0 & X86_CR0_PG && cr4 & X86_CR4_PAE &&
		   !(vmread(VMCS_GUEST_EFER) & EFER_LMA);
	int i;

	vmx_close(vmx);
	if (pae && fonda_read_guest(&vmx->vcpu, gpa, pdpte, sizeof(pdpte)))
		pae = false;
	vmx_open(vmx);
	for (i = 0; pae && i < 4; i++)
		vmwrite(VMCS_GUEST_PDPTE + 2 * i, pdpte[i]);
	vmx->pdptes_stale = false;
}

/* System-call MSRs and the other GS base: the guest's until the section ends. */
void vmx_switch_msrs(struct vmx_vcpu *vmx, bool guest)
{
	const u64 *msr = guest ? vmx->msr : host_msr;

	if (guest == vmx->msrs_loaded)
		return;
	vmx->msrs_loaded = guest;
	/* Not a loop: each exit to user space comes by. CSTAR is of no use to a 64-bit host. */
	if (vmx->msr[VMX_STAR] != host_msr[VMX_STAR])
		wrmsrq(MSR_STAR, msr[VMX_STAR]);
	if (vmx->msr[VMX_LSTAR] != host_msr[VMX_LSTAR])
		wrmsrq(MSR_LSTAR, msr[VMX_LSTAR]);
	if (vmx->msr[VMX_SFMASK] != host_msr[VMX_SFMASK])
		wrmsrq(MSR_SYSCALL_MASK, msr[VMX_SFMASK]);
	if (guest) {
		rdmsrq(MSR_KERNEL_GS_BASE, vmx->host_kernel_gs_base);
		wrmsrq(MSR_KERNEL_GS_BASE, vmx->msr[VMX_KERNEL_GS_BASE]);
	} else {
		rdmsrq(MSR_KERNEL_GS_BASE, vmx->msr[VMX_KERNEL_GS_BASE]);
		wrmsrq(MSR_KERNEL_GS_BASE, vmx->host_kernel_gs_base);
	}
}

/* Registers that are a field of the VMCS and nothing more. */
static const u16 field_of[] = {
	[FONDA_REG_CR3]		= VMCS_GUEST_CR3,
	[FONDA_REG_EFER]	= VMCS_GUEST_EFER,
	[FONDA_REG_FS_BASE]	= VMCS_GUEST_BASE + 2 * FONDA_SEG_FS,
	[FONDA_REG_GS_BASE]	= VMCS_GUEST_BASE + 2 * FONDA_SEG_GS,
	[FONDA_REG_PAT]		= VMCS_GUEST_PAT,
	[FONDA_REG_SYSENTER_CS]	= VMCS_GUEST_SYSENTER_CS,
	[FONDA_REG_SYSENTER_ESP] = VMCS_GUEST_SYSENTER_ESP,
	[FONDA_REG_SYSENTER_EIP] = VMCS_GUEST_SYSENTER_EIP,
	[FONDA_REG_DEBUGCTL]	= VMCS_GUEST_DEBUGCTL,
};

static u64 vmx_read_reg(struct fonda_vcpu *vcpu, enum fonda_reg reg)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);
	u64 val = 0;

	vmx_open(vmx);
	switch (reg) {
	case FONDA_REG_CR0:
		val = read_cr(0);
		break;
	case FONDA_REG_CR2:
		val = vmx->cr2;
		break;
	case FONDA_REG_CR4:
		val = read_cr(4);
		break;
	case FONDA_REG_STAR ... FONDA_REG_KERNEL_GS_BASE:
		val = vmx->msr[reg - FONDA_REG_STAR];
		if (reg == FONDA_REG_KERNEL_GS_BASE && vmx->msrs_loaded)
			rdmsrq(MSR_KERNEL_GS_BASE, val);
		break;
	case FONDA_REG_CPL:
		val = vmread(VMCS_GUEST_ACCESS + 2 * FONDA_SEG_SS) >> 5 & 3;
		break;
	default:
		val = vmread(field_of[reg]);
	}
	vmx_close(vmx);
	return val;
}

/* What was cached of the guest's translations is void; PDPTEs come from memory. */
static void forget_translations(struct vmx_vcpu *vmx)
{
	vmx->flush_vpid = true;
	vmx->pdptes_stale = true;
	fonda_request(&vmx->vcpu, FONDA_REQ_CONTROLS);
}

static void vmx_write_reg(struct fonda_vcpu *vcpu, enum fonda_reg reg, u64 val)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);

	vmx_open(vmx);
	switch (reg) {
	case FONDA_REG_CR0:
		set_cr0(vmx, val);
		break;
	case FONDA_REG_CR2:
		vmx->cr2 = val;
		break;
	case FONDA_REG_CR4:
		set_cr4(vmx, val);
		break;
	case FONDA_REG_EFER:
		set_efer(vmx, val);
		break;
	case FONDA_REG_STAR ... FONDA_REG_KERNEL_GS_BASE:
		/* Out and in again: what differs from the host's is loaded. */
		if (vmx->msrs_loaded)
			vmx_switch_msrs(vmx, false);
		vmx->msr[reg - FONDA_REG_STAR] = val;
		if (vcpu->atomic)
			vmx_switch_msrs(vmx, true);
		break;
	default:
		vmwrite(field_of[reg], val);
	}
	vcpu->backend_work = true;
	if (reg <= FONDA_REG_EFER && reg != FONDA_REG_CR2)
		forget_translations(vmx);
	vmx_close(vmx);
}

static void vmx_get_sregs(struct fonda_vcpu *vcpu, struct kvm_sregs2 *sregs)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);
	struct fonda_segment s;
	int seg;

	vmx_open(vmx);
#pragma GCC unroll 8
	for (seg = FONDA_SEG_ES; seg <= FONDA_SEG_TR; seg++) {
		get_segment(seg, &s);
		fonda_segment_to_kvm(&s, fonda_sregs_segment(sregs, seg));
	}
	sregs->gdt = (struct kvm_dtable){ vmread(VMCS_GUEST_BASE + 2 * FONDA_SEG_GDTR),
					  vmread(VMCS_GUEST_LIMIT + 2 * FONDA_SEG_GDTR) };
	sregs->idt = (struct kvm_dtable){ vmread(VMCS_GUEST_BASE + 2 * FONDA_SEG_IDTR),
					  vmread(VMCS_GUEST_LIMIT + 2 * FONDA_SEG_IDTR) };
	sregs->cr0 = read_cr(0);
	sregs->cr2 = vmx->cr2;
	sregs->cr3 = vmread(VMCS_GUEST_CR3);
	sregs->cr4 = read_cr(4);
	sregs->efer = vmread(VMCS_GUEST_EFER);
	vmx_close(vmx);
}

static void vmx_set_sregs(struct fonda_vcpu *vcpu, const struct kvm_sregs2 *sregs)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);
	struct fonda_segment s;
	int seg;

	vmx_open(vmx);
#pragma GCC unroll 8
	for (seg = FONDA_SEG_ES; seg <= FONDA_SEG_TR; seg++) {
		fonda_segment_from_kvm(&s, fonda_sregs_segment((void *)sregs, seg));
		set_segment(seg, &s);
	}
	vmwrite(VMCS_GUEST_BASE + 2 * FONDA_SEG_GDTR, sregs->gdt.base);
	vmwrite(VMCS_GUEST_LIMIT + 2 * FONDA_SEG_GDTR, sregs->gdt.limit);
	vmwrite(VMCS_GUEST_BASE + 2 * FONDA_SEG_IDTR, sregs->idt.base);
	vmwrite(VMCS_GUEST_LIMIT + 2 * FONDA_SEG_IDTR, sregs->idt.limit);
	set_efer(vmx, sregs->efer);
	set_cr0(vmx, sregs->cr0);
	vmx->cr2 = sregs->cr2;
	vmwrite(VMCS_GUEST_CR3, sregs->cr3);
	set_cr4(vmx, sregs->cr4);
	vmwrite(VMCS_GUEST_ACTIVITY, 0);
	vcpu->backend_work = true;
	forget_translations(vmx);
	vmx_close(vmx);
}

int vmx_get_code(struct fonda_vcpu *vcpu, struct fonda_paging *p, gva_t *rip)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);
	struct fonda_segment cs;

	vmx_open(vmx);
	get_segment(FONDA_SEG_CS, &cs);
	*p = (struct fonda_paging){
		.cr0 = read_cr(0), .cr3 = vmread(VMCS_GUEST_CR3), .cr4 = read_cr(4),
		.efer = vmread(VMCS_GUEST_EFER), .rflags = vcpu->rflags,
	};
	vmx_close(vmx);
	*rip = vcpu->rip;
	if (cs.attr & FONDA_SEG_L && p->efer & EFER_LMA)
		return 64;
	*rip = (u32)(*rip + cs.base);
	return cs.attr & FONDA_SEG_DB ? 32 : 16;
}

/* What the processor sees of the debug registers: the guest's, or its debugger's. */
void vmx_update_debug_controls(struct vmx_vcpu *vmx)
{
	struct fonda_vcpu *vcpu = &vmx->vcpu;
	u32 control = vcpu->debug.control;

	vmwrite(VMCS_GUEST_DR7, control & KVM_GUESTDBG_USE_HW_BP ?
		vcpu->debug.arch.debugreg[7] : vcpu->dr7);
	if (vmx->drs_loaded)
		set_debugreg(vcpu->dr6, 6);
	/* Delivered in an endless loop #AC and #DB would never let go of the CPU. */
	vmwrite(VMCS_EXCEPTION_BITMAP, BIT(X86_TRAP_DB) | BIT(X86_TRAP_AC) | BIT(X86_TRAP_MC) |
		(control & KVM_GUESTDBG_USE_SW_BP ? BIT(X86_TRAP_BP) : 0) |
		(vcpu->nr_undefined < FONDA_MAX_UNDEFINED ? BIT(X86_TRAP_UD) : 0));
	vcpu->backend_work = true;
}

void vmx_set_apicv(struct vmx_vcpu *vmx, bool on)
{
	int bitmap = rcu_access_pointer(vmx->vcpu.vm->msr_filter) ? BITMAP_FILTER :
		     on ? BITMAP_X2APIC : BITMAP_USUAL;

	vmx->apicv = on;
	vmwrite(VMCS_CPU_CONTROLS2, vmx->cpu2_controls | (on ? CPU2_APICV : 0));
	vmwrite(VMCS_MSR_BITMAP, __pa(msr_bitmap) + bitmap * PAGE_SIZE);
}

static void vmx_update_controls(struct fonda_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);
	u32 wanted = 0;

	if (fonda_guest_has(vcpu, X86_FEATURE_RDTSCP) || fonda_guest_has(vcpu, X86_FEATURE_RDPID))
		wanted |= CPU2_RDTSCP;
	if (fonda_guest_has(vcpu, X86_FEATURE_INVPCID))
		wanted |= CPU2_INVPCID;
	if (!fonda_guest_has(vcpu, X86_FEATURE_RDRAND))
		wanted |= CPU2_RDRAND;
	if (!fonda_guest_has(vcpu, X86_FEATURE_RDSEED))
		wanted |= CPU2_RDSEED;
	if (vmx->pml)
		wanted |= CPU2_PML;
	if (vcpu->clock.tsc_ratio)
		wanted |= CPU2_TSC_SCALING;
	wanted |= vmx_features.cpu2;
	if (vcpu->vm->disabled_exits & KVM_X86_DISABLE_EXITS_PAUSE)
		wanted &= ~(u32)CPU2_PAUSE_LOOP;

	vmx_open(vmx);
	vmx_update_debug_controls(vmx);
	vmx->cpu2_controls = wanted & vmx_features.cpu2_allowed;
	vmx_set_apicv(vmx, vmx->apicv);
	vmwrite(VMCS_TSC_OFFSET, vcpu->clock.tsc_offset);
	if (vcpu->clock.tsc_ratio)
		vmwrite(VMCS_TSC_MULTIPLIER, vcpu->clock.tsc_ratio);
	set_cr4(vmx, read_cr(4));
	/* The request comes where memory can be read. */
	if (vmx->pdptes_stale && vcpu->thread && !vcpu->atomic)
		vmx_load_pdptes(vmx);
	vmx_close(vmx);
}

static void vmx_vcpu_reset(struct fonda_vcpu *vcpu)
{
	vmx_open(to_vmx(vcpu));
	vmwrite(VMCS_GUEST_PENDING_DEBUG, 0);
	vmwrite(VMCS_ENTRY_INTR_INFO, 0);
	vmx_close(to_vmx(vcpu));
}

/* -- entries that fail ------------------------------------------------------ */

/* All fields that this processor has: an encoding has a width, a type and an index. */
static void vmx_describe_entry(struct fonda_vcpu *vcpu, struct fonda_failed_entry *entry)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);
	u32 field, i;
	u64 val;

	entry->vendor = FONDA_ENTRY_VMX;
	entry->reason = vmx->insn_error ? 0 : vmx->reason;
	entry->qualification = vmx->qualification;
	entry->error = vmx->insn_error;
	for (i = 0; i < FONDA_ENTRY_CAPS; i++)
		if (rdmsrq_safe(MSR_IA32_VMX_BASIC + i, &entry->caps[i]))
			entry->caps[i] = 0;
	vmx_open(vmx);
	for (field = 0; field < 0x8000; field += 2) {
		if (field & 0x13c0 || entry->nr_fields == FONDA_ENTRY_FIELDS ||
		    !vmread_safe(field, &val))
			continue;
		entry->vmcs[entry->nr_fields++] =
			(struct fonda_entry_field){ .field = field, .value = val };
	}
	vmx_close(vmx);
}

static int vmx_break_entry(struct fonda_vcpu *vcpu, const struct fonda_entry_field *f)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);
	u64 val;

	if (vmx->is_broken)
		return -EBUSY;
	vmx_open(vmx);
	vmx->breaks = f->size <= 8 && is_power_of_2(f->size ?: 1) && vmread_safe(f->field, &val);
	vmx_close(vmx);
	vmx->broken = *f;
	vcpu->backend_work = true;
	return vmx->breaks ? 0 : -EINVAL;
}

const struct fonda_backend fonda_vmx = {
	.name			= "VT-x (vmx)",
	.shadow_of_sti		= BLOCKED_BY_STI,
	.shadow_of_mov_ss	= BLOCKED_BY_MOV_SS,
	.hypercall		= 0xc1,
	.hardware_setup		= vmx_hardware_setup,
	.hardware_unsetup	= vmx_hardware_unsetup,
	.cpu_enable		= vmx_cpu_enable,
	.cpu_disable		= vmx_cpu_disable,
	.vcpu_size		= sizeof(struct vmx_vcpu),
	.vcpu_init		= vmx_vcpu_init,
	.vcpu_fini		= vmx_vcpu_fini,
	.vcpu_reset		= vmx_vcpu_reset,
	.run			= vmx_run,
	.handle_exit		= vmx_handle_exit,
	.read_reg		= vmx_read_reg,
	.write_reg		= vmx_write_reg,
	.get_segment		= vmx_get_segment,
	.set_segment		= vmx_set_segment,
	.get_sregs		= vmx_get_sregs,
	.set_sregs		= vmx_set_sregs,
	.update_controls	= vmx_update_controls,
	.get_code		= vmx_get_code,
	.describe_entry		= vmx_describe_entry,
	.break_entry		= vmx_break_entry,
};
