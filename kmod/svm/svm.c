// SPDX-License-Identifier: GPL-2.0-only
/*
 * AMD-V: switching it on and off, the control block of a vCPU, and the
 * registers in it. Entering the guest is in run.c, what happens after an exit
 * in exit.c. Sections named in all three are of the AMD64 Architecture
 * Programmer's Manual, volume 2.
 */
#define pr_fmt(fmt) "fonda: " fmt

#include <linux/io.h>
#include <linux/vmalloc.h>

#include "svm.h"

struct svm_features svm_features;

#define MSRPM_PAGES	2
#define IOPM_PAGES	3
#define MAP_PAGES	(IOPM_PAGES + MSRPM_PAGES)

/*
 * The I/O permission map: all ports exit, to user space or fonda_io_access(). The
 * MSR permission map follows it.
 */
static void *iopm;

DEFINE_PER_CPU(struct svm_cpu, svm_cpus);
u32 svm_max_asid;
u32 svm_clean_after_exit;
/* No features are newer than those that CR4's bits are known of. */
static bool knows_all_of_cr4;

/*
 * MSRs that the guest may touch without an exit: the VMCB holds them, and
 * VMLOAD and VMSAVE switch them.
 */
static const u32 direct_msrs[] = {
	MSR_STAR, MSR_LSTAR, MSR_CSTAR, MSR_SYSCALL_MASK,
	MSR_FS_BASE, MSR_GS_BASE, MSR_KERNEL_GS_BASE,
	MSR_IA32_SYSENTER_CS, MSR_IA32_SYSENTER_ESP, MSR_IA32_SYSENTER_EIP,
};

/* "MSR Intercepts": two bits an MSR (read, write) in three ranges of 2 KiB. */
static int msrpm_bit(u32 msr)
{
	return (msr >= 0xc0000000 ? 0x800 * 8 : 0) + (msr & 0x1fff) * 2;
}

/* -- switching it on -------------------------------------------------------- */

static int check_processor(void)
{
	u64 vm_cr;

	if (!boot_cpu_has(X86_FEATURE_SVM)) {
		/* The kernel clears the feature when firmware locked it off. */
		if ((boot_cpu_data.x86_vendor == X86_VENDOR_AMD ||
		     boot_cpu_data.x86_vendor == X86_VENDOR_HYGON) &&
		    cpuid_eax(0x80000000) >= 0x8000000a && (cpuid_ecx(0x80000001) & BIT(2)))
			goto disabled;
		return -ENODEV;
	}
	if (!rdmsrq_safe(MSR_VM_CR, &vm_cr) && (vm_cr & BIT(4)))
		goto disabled;
	if (!boot_cpu_has(X86_FEATURE_NPT)) {
		pr_err("AMD-V without nested paging (npt): this processor, or the hypervisor below, is too old\n");
		return -EOPNOTSUPP;
	}
	if (cpu_feature_enabled(X86_FEATURE_LA57)) {
		pr_err("the kernel runs with 5-level page tables, which nested paging then needs too: boot with no5lvl\n");
		return -EOPNOTSUPP;
	}
	return 0;

disabled:
	pr_err("AMD-V (svm) is disabled by firmware: enable \"SVM Mode\" or \"Virtualization\" in its setup\n");
	return -EOPNOTSUPP;
}

static void svm_hardware_unsetup(void)
{
	int cpu;

	for_each_possible_cpu(cpu)
		free_pages(per_cpu(svm_cpus, cpu).host_pages, 1);
	free_pages_exact(iopm, MAP_PAGES * PAGE_SIZE);
}

static int svm_hardware_setup(void)
{
	int ret, cpu, i;
	u32 edx;

	ret = check_processor();
	if (ret)
		return ret;

	for (i = 0; i < SVM_NR_EXITS; i++)
		if (!svm_exits[i].handle)
			svm_exits[i] = svm_exit_unexpected;
	edx = cpuid_edx(0x8000000a);
	svm_features.nrip_save = edx & BIT(3);
	/* Clear: QEMU's emulation and old processors load all of it each time. */
	svm_clean_after_exit = edx & BIT(5) ? CLEAN_ALL & ~(CLEAN_INT_CTL | CLEAN_CR2) : 0;
	svm_features.flush_by_asid = edx & BIT(6);
	svm_features.decode_assists = edx & BIT(7);
	svm_features.pause_filter = edx & BIT(10);
	fonda_spec_ctrl_by_processor = edx & BIT(20);
	svm_max_asid = cpuid_ebx(0x8000000a) - 1;
	knows_all_of_cr4 = !cpuid_eax(7);

	iopm = alloc_pages_exact(MAP_PAGES * PAGE_SIZE, GFP_KERNEL);
	if (!iopm)
		return -ENOMEM;
	memset(iopm, 0xff, MAP_PAGES * PAGE_SIZE);
	for (i = 0; i < ARRAY_SIZE(direct_msrs); i++)
		bitmap_clear(iopm + IOPM_PAGES * PAGE_SIZE, msrpm_bit(direct_msrs[i]), 2);
	for_each_possible_cpu(cpu) {
		struct page *pages = alloc_pages_node(cpu_to_node(cpu), GFP_KERNEL | __GFP_ZERO, 1);

		if (!pages) {
			svm_hardware_unsetup();
			return -ENOMEM;
		}
		per_cpu(svm_cpus, cpu).host_pages = (unsigned long)page_address(pages);
		per_cpu(svm_cpus, cpu).host_pa = __sme_set(page_to_phys(pages));
	}
	fonda_mmu_setup(&fonda_npt_format);
	return 0;
}

static int svm_cpu_enable(void)
{
	struct svm_cpu *sc = this_cpu_ptr(&svm_cpus);
	u64 efer;

	rdmsrq(MSR_EFER, efer);
	if (efer & EFER_SVME)
		return -EBUSY;
	wrmsrq(MSR_EFER, efer | EFER_SVME);
	fonda_reduce_speculation(true);
	wrmsrq(MSR_VM_HSAVE_PA, sc->host_pa + PAGE_SIZE);
	/* Every vCPU that comes here takes a new ASID. */
	sc->asid_generation++;
	sc->next_asid = svm_max_asid + 1;
	return 0;
}

static void svm_cpu_disable(void)
{
	u64 efer;

	fonda_reduce_speculation(false);
	wrmsrq(MSR_VM_HSAVE_PA, 0);
	rdmsrq(MSR_EFER, efer);
	wrmsrq(MSR_EFER, efer & ~EFER_SVME);
}

/* -- the control block ------------------------------------------------------ */

static void init_vmcb(struct svm_vcpu *svm)
{
	struct vmcb *vmcb = svm->vmcb;
	int code;

	/* What has a handler has the exit: see the table. */
	for (code = 0; code < SVM_NR_EXITS; code++)
		svm_intercept(svm, code, !svm_exits[code].on_demand);
	/* Long enough for most critical sections to end. */
	vmcb->pause_filter_count = 3000;
	svm_intercept(svm, SVM_EXIT_PAUSE, svm_features.pause_filter &&
		      !(svm->vcpu.vm->disabled_exits & KVM_X86_DISABLE_EXITS_PAUSE));
	if (svm->vcpu.vm->disabled_exits & KVM_X86_DISABLE_EXITS_HLT)
		svm_intercept(svm, SVM_EXIT_HLT, false);
	vmcb->iopm_base_pa = __sme_pa(iopm);
	vmcb->int_ctl = V_INTR_MASKING;
	vmcb->nested_ctl = NESTED_PAGING_ENABLE;
	vmcb->nested_cr3 = __sme_set(fonda_mmu_root_hpa(svm->vcpu.vm));
}

static int svm_vcpu_init(struct fonda_vcpu *vcpu)
{
	struct svm_vcpu *svm = to_svm(vcpu);

	/*
	 * The second of two pages, as of VM_HSAVE_PA: the first could be that of a large
	 * page, none of which can be written to on an SNP host while the processor uses it.
	 */
	svm->refused = alloc_pages_exact(2 * PAGE_SIZE, GFP_KERNEL_ACCOUNT | __GFP_ZERO);
	if (!svm->refused)
		return -ENOMEM;
	svm->vmcb = svm->refused + 1;
	svm->vmcb_pa = __sme_pa(svm->vmcb);
	svm->vmcb_cpu = -1;
	init_vmcb(svm);
	return 0;
}

static void svm_vcpu_fini(struct fonda_vcpu *vcpu)
{
	struct svm_vcpu *svm = to_svm(vcpu);

	if (svm->refused)
		free_pages_exact(svm->refused, 2 * PAGE_SIZE);
}

/* -- registers -------------------------------------------------------------- */

static __always_inline struct vmcb_seg *vmcb_segment(struct vmcb *vmcb, enum fonda_seg seg)
{
	/* LDTR, TR, GDTR and IDTR stand in another order there. */
	static const u8 place[FONDA_NR_SEGS] = { 0, 1, 2, 3, 4, 5, 7, 9, 6, 8 };

	return &vmcb->es + place[seg];
}

static __always_inline void svm_get_segment(struct fonda_vcpu *vcpu, enum fonda_seg seg,
					    struct fonda_segment *s)
{
	struct vmcb *vmcb = to_svm(vcpu)->vmcb;
	const struct vmcb_seg *v = vmcb_segment(vmcb, seg);

	s->base = v->base;
	s->limit = v->limit;
	s->selector = v->selector;
	s->attr = v->attr;
	/* Some processors do not store the granularity of CS. */
	if (seg == FONDA_SEG_CS && s->limit > 0xfffff)
		s->attr |= FONDA_SEG_G;
	/* The processor keeps SS's DPL in the CPL field alone. */
	if (seg == FONDA_SEG_SS)
		s->attr = (s->attr & ~(3 << 5)) | vmcb->cpl << 5;
	/* Always busy, whatever VMSAVE stored. */
	if (seg == FONDA_SEG_TR)
		s->attr |= 2;
}

static __always_inline void set_segment(struct vmcb *vmcb, enum fonda_seg seg,
					const struct fonda_segment *s)
{
	struct vmcb_seg *v = vmcb_segment(vmcb, seg);

	v->base = s->base;
	v->limit = s->limit;
	v->selector = s->selector;
	v->attr = s->attr & FONDA_SEG_P ? s->attr & 0xfff : 0;
	if (seg == FONDA_SEG_SS)
		/* "CPL": the processor takes it from here, not from CS. */
		vmcb->cpl = FONDA_SEG_DPL(s->attr);
}

static void svm_set_segment(struct fonda_vcpu *vcpu, enum fonda_seg seg,
			    const struct fonda_segment *s)
{
	set_segment(to_svm(vcpu)->vmcb, seg, s);
	svm_dirty(to_svm(vcpu), CLEAN_SEG | CLEAN_DT);
}

/*
 * DR0-DR3 of the guest, or of its debugger, into the processor until the section
 * ends. A debugger owns them: the guest must keep exiting on its own.
 */
void svm_load_debug_registers(struct svm_vcpu *svm)
{
	struct fonda_vcpu *vcpu = &svm->vcpu;
	bool debugged = vcpu->debug.control & KVM_GUESTDBG_USE_HW_BP;

	if (svm->drs_loaded)
		return;
	fonda_load_debug_registers(vcpu);
	svm->drs_loaded = true;
	svm->vmcb->intercepts[SVM_EXIT_READ_DR0 / 32] = debugged ? ~0u : 0;
	svm_dirty(svm, CLEAN_INTERCEPTS);
}

void svm_sync_debug_registers(struct svm_vcpu *svm)
{
	struct fonda_vcpu *vcpu = &svm->vcpu;

	if (!svm->drs_loaded || vcpu->debug.control & KVM_GUESTDBG_USE_HW_BP)
		return;
	vcpu->dr6 = svm->vmcb->dr6;
	vcpu->dr7 = svm->vmcb->dr7;
	fonda_save_debug_registers(vcpu);
}

void svm_unload_debug_registers(struct svm_vcpu *svm)
{
	svm_sync_debug_registers(svm);
	svm->drs_loaded = false;
	svm->vmcb->intercepts[SVM_EXIT_READ_DR0 / 32] = ~0u;
	svm_dirty(svm, CLEAN_INTERCEPTS);
}

/* What the processor sees of DR6 and DR7: the guest's, or its debugger's. */
void svm_update_debug_controls(struct svm_vcpu *svm)
{
	struct fonda_vcpu *vcpu = &svm->vcpu;

	svm->vmcb->dr7 = vcpu->debug.control & KVM_GUESTDBG_USE_HW_BP ?
			 vcpu->debug.arch.debugreg[7] : vcpu->dr7;
	svm->vmcb->dr6 = vcpu->dr6;
	svm_intercept(svm, SVM_EXIT_EXCP_BASE + X86_TRAP_BP,
		      vcpu->debug.control & KVM_GUESTDBG_USE_SW_BP);
	vcpu->backend_work = true;
	svm_dirty(svm, CLEAN_DR);
}

/* Registers that are a field of the VMCB and nothing more. */
static u64 *vmcb_register(struct vmcb *vmcb, enum fonda_reg reg)
{
	static const u16 offset[] = {
		[FONDA_REG_CR2]		= offsetof(struct vmcb, cr2),
		[FONDA_REG_CR3]		= offsetof(struct vmcb, cr3),
		[FONDA_REG_CR4]		= offsetof(struct vmcb, cr4),
		[FONDA_REG_EFER]	= offsetof(struct vmcb, efer),
		[FONDA_REG_PAT]		= offsetof(struct vmcb, g_pat),
		[FONDA_REG_STAR]	= offsetof(struct vmcb, star),
		[FONDA_REG_LSTAR]	= offsetof(struct vmcb, lstar),
		[FONDA_REG_CSTAR]	= offsetof(struct vmcb, cstar),
		[FONDA_REG_SFMASK]	= offsetof(struct vmcb, sfmask),
		[FONDA_REG_FS_BASE]	= offsetof(struct vmcb, fs.base),
		[FONDA_REG_GS_BASE]	= offsetof(struct vmcb, gs.base),
		[FONDA_REG_KERNEL_GS_BASE] = offsetof(struct vmcb, kernel_gs_base),
		[FONDA_REG_SYSENTER_CS]	= offsetof(struct vmcb, sysenter_cs),
		[FONDA_REG_SYSENTER_ESP] = offsetof(struct vmcb, sysenter_esp),
		[FONDA_REG_SYSENTER_EIP] = offsetof(struct vmcb, sysenter_eip),
		[FONDA_REG_DEBUGCTL]	= offsetof(struct vmcb, debugctl),
	};

	return (void *)vmcb + offset[reg];
}

static __always_inline u64 svm_read_reg(struct fonda_vcpu *vcpu, enum fonda_reg reg)
{
	struct svm_vcpu *svm = to_svm(vcpu);
	struct vmcb *vmcb = svm->vmcb;

	switch (reg) {
	case FONDA_REG_CR0:
		return vmcb->cr0 | svm->cr0_cache_bits;
	case FONDA_REG_EFER:
		return vmcb->efer & ~(u64)EFER_SVME;
	case FONDA_REG_CPL:
		return vmcb->cpl;
	default:
		return *vmcb_register(vmcb, reg);
	}
}

static __always_inline void set_guest_cr0(struct svm_vcpu *svm, u64 val)
{
	struct vmcb *vmcb = svm->vmcb;

	/*
	 * A guest comes out of reset with its caches off, and firmware often
	 * leaves it so; the processor would take CR0.CD at its word and crawl.
	 * The bits are kept for those who ask, and the guest's next write to
	 * CR0 that changes one settles the matter (exit.c).
	 */
	svm->cr0_cache_bits = val & (X86_CR0_CD | X86_CR0_NW);
	vmcb->cr0 = val & ~svm->cr0_cache_bits;
	svm_intercept(svm, SVM_EXIT_CR0_SEL_WRITE, svm->cr0_cache_bits);
}

static void svm_write_reg(struct fonda_vcpu *vcpu, enum fonda_reg reg, u64 val)
{
	struct svm_vcpu *svm = to_svm(vcpu);

	svm_dirty(svm, CLEAN_CR | CLEAN_CR2 | CLEAN_NESTED_PAGING);
	/* VMRUN demands SVME in the guest's EFER. */
	if (reg == FONDA_REG_CR0)
		set_guest_cr0(svm, val);
	else
		*vmcb_register(svm->vmcb, reg) = reg == FONDA_REG_EFER ? val | EFER_SVME : val;
	if (reg <= FONDA_REG_EFER && reg != FONDA_REG_CR2)
		fonda_flush(&svm->vcpu);
}

static void svm_get_sregs(struct fonda_vcpu *vcpu, struct kvm_sregs2 *sregs)
{
	const struct vmcb *vmcb = to_svm(vcpu)->vmcb;
	struct fonda_segment s;
	int seg;

	/* Unrolled, so that tables and switches vanish. */
#pragma GCC unroll 8
	for (seg = FONDA_SEG_ES; seg <= FONDA_SEG_TR; seg++) {
		svm_get_segment(vcpu, seg, &s);
		fonda_segment_to_kvm(&s, fonda_sregs_segment(sregs, seg));
	}
	sregs->gdt = (struct kvm_dtable){ vmcb->gdtr.base, vmcb->gdtr.limit };
	sregs->idt = (struct kvm_dtable){ vmcb->idtr.base, vmcb->idtr.limit };
	sregs->cr0 = svm_read_reg(vcpu, FONDA_REG_CR0);
	sregs->cr2 = vmcb->cr2;
	sregs->cr3 = vmcb->cr3;
	sregs->cr4 = vmcb->cr4;
	sregs->efer = svm_read_reg(vcpu, FONDA_REG_EFER);
}

static void svm_set_sregs(struct fonda_vcpu *vcpu, const struct kvm_sregs2 *sregs)
{
	struct svm_vcpu *svm = to_svm(vcpu);
	struct vmcb *vmcb = svm->vmcb;
	struct fonda_segment s;
	int seg;

#pragma GCC unroll 8
	for (seg = FONDA_SEG_ES; seg <= FONDA_SEG_TR; seg++) {
		fonda_segment_from_kvm(&s, fonda_sregs_segment((void *)sregs, seg));
		set_segment(vmcb, seg, &s);
	}
	vmcb->gdtr.base = sregs->gdt.base;
	vmcb->gdtr.limit = sregs->gdt.limit;
	vmcb->idtr.base = sregs->idt.base;
	vmcb->idtr.limit = sregs->idt.limit;
	set_guest_cr0(svm, sregs->cr0 | X86_CR0_ET);
	vmcb->cr2 = sregs->cr2;
	vmcb->cr3 = sregs->cr3;
	vmcb->cr4 = sregs->cr4;
	vmcb->efer = sregs->efer | EFER_SVME;
	fonda_flush(&svm->vcpu);
	svm_dirty(svm, CLEAN_SEG | CLEAN_DT | CLEAN_CR | CLEAN_CR2);
}

static void svm_vcpu_reset(struct fonda_vcpu *vcpu)
{
	struct svm_vcpu *svm = to_svm(vcpu);

	svm->vmcb->event_inj = 0;
	svm->vmcb->int_ctl &= ~V_IRQ;
	svm->nmi_singlestep = false;
	svm_intercept(svm, SVM_EXIT_IRET, false);
	svm_dirty(svm, CLEAN_ALL);
}

static void svm_update_controls(struct fonda_vcpu *vcpu)
{
	struct svm_vcpu *svm = to_svm(vcpu);
	struct vmcb *vmcb = svm->vmcb;

	svm_update_debug_controls(svm);
	vmcb->tsc_offset = vcpu->clock.tsc_offset;
	/* A filter may want any of them: the ports' map, all ones, serves as a map of MSRs. */
	vmcb->msrpm_base_pa = __sme_pa(iopm) +
		(rcu_access_pointer(vcpu->vm->msr_filter) ? 0 : IOPM_PAGES * PAGE_SIZE);
	svm_intercept(svm, SVM_EXIT_EXCP_BASE + X86_TRAP_UD,
		      vcpu->nr_undefined < FONDA_MAX_UNDEFINED);
	svm_intercept(svm, SVM_EXIT_RDTSCP, !fonda_guest_has(vcpu, X86_FEATURE_RDTSCP));
	svm_intercept(svm, SVM_EXIT_INVPCID, !fonda_guest_has(vcpu, X86_FEATURE_INVPCID));
	/* A guest that may set all that there is needs nobody to check it. */
	svm_intercept(svm, SVM_EXIT_WRITE_CR4,
		      !knows_all_of_cr4 || vcpu->cpuid.cr4_reserved != ~fonda_machine_cr4);
	svm_dirty(svm, CLEAN_INTERCEPTS | CLEAN_PERMISSION_MAPS);
}

static void svm_describe_entry(struct fonda_vcpu *vcpu, struct fonda_failed_entry *entry)
{
	const struct svm_vcpu *svm = to_svm(vcpu);
	const struct vmcb *vmcb = svm->vmcb;

	entry->vendor = FONDA_ENTRY_SVM;
	entry->reason = vmcb->exit_code;
	entry->qualification = vmcb->exit_info_1;
	entry->caps[0] = cpuid_ebx(0x8000000a) | (u64)cpuid_edx(0x8000000a) << 32;
	entry->caps[1] = fonda_machine_efer | EFER_SVME;
	entry->caps[2] = knows_all_of_cr4 ? fonda_machine_cr4 : 0;
	memcpy(entry->vmcb, svm->is_broken ? svm->refused : vmcb, sizeof(*vmcb));
}

static int svm_break_entry(struct fonda_vcpu *vcpu, const struct fonda_entry_field *f)
{
	struct svm_vcpu *svm = to_svm(vcpu);

	if (f->size > 8 || !is_power_of_2(f->size) || f->field % f->size ||
	    f->field > sizeof(struct vmcb) - f->size)
		return -EINVAL;
	if (svm->is_broken)
		return -EBUSY;
	svm->broken = *f;
	vcpu->backend_work = true;
	return 0;
}

const struct fonda_backend fonda_svm = {
	.name			= "AMD-V (svm)",
	.shadow_of_sti		= INT_SHADOW,
	.shadow_of_mov_ss	= INT_SHADOW,
	.hypercall		= 0xd9,
	.hardware_setup		= svm_hardware_setup,
	.hardware_unsetup	= svm_hardware_unsetup,
	.cpu_enable		= svm_cpu_enable,
	.cpu_disable		= svm_cpu_disable,
	.vcpu_size		= sizeof(struct svm_vcpu),
	.vcpu_init		= svm_vcpu_init,
	.vcpu_fini		= svm_vcpu_fini,
	.vcpu_reset		= svm_vcpu_reset,
	.run			= svm_run,
	.handle_exit		= svm_handle_exit,
	.read_reg		= svm_read_reg,
	.write_reg		= svm_write_reg,
	.get_segment		= svm_get_segment,
	.set_segment		= svm_set_segment,
	.get_sregs		= svm_get_sregs,
	.set_sregs		= svm_set_sregs,
	.update_controls	= svm_update_controls,
	.get_code		= svm_get_code,
	.describe_entry		= svm_describe_entry,
	.break_entry		= svm_break_entry,
};
