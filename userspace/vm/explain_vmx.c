// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The checks of VMLAUNCH and VMRESUME: Intel SDM volume 3, chapter "VM
 * Entries", in its order, which is the order in which a processor may find
 * them. What needs guest memory or an MSR of the moment (the virtual TPR, lists
 * of MSRs, PERF_GLOBAL_CTRL) is not checked here.
 */
#include <inttypes.h>
#include <stdarg.h>

#include "../util/util.h"
#include "explain.h"

/* "Field Encoding in VMCS". */
#define VMCS_FIELDS(_f)							\
	_f(VPID, 0x0000)		_f(POSTED_VECTOR, 0x0002)	\
	_f(GUEST_ES_SELECTOR, 0x0800)	_f(GUEST_CS_SELECTOR, 0x0802)	\
	_f(GUEST_SS_SELECTOR, 0x0804)	_f(GUEST_DS_SELECTOR, 0x0806)	\
	_f(GUEST_FS_SELECTOR, 0x0808)	_f(GUEST_GS_SELECTOR, 0x080a)	\
	_f(GUEST_LDTR_SELECTOR, 0x080c)	_f(GUEST_TR_SELECTOR, 0x080e)	\
	_f(HOST_ES_SELECTOR, 0x0c00)	_f(HOST_CS_SELECTOR, 0x0c02)	\
	_f(HOST_SS_SELECTOR, 0x0c04)	_f(HOST_DS_SELECTOR, 0x0c06)	\
	_f(HOST_FS_SELECTOR, 0x0c08)	_f(HOST_GS_SELECTOR, 0x0c0a)	\
	_f(HOST_TR_SELECTOR, 0x0c0c)					\
	_f(IO_BITMAP_A, 0x2000)		_f(IO_BITMAP_B, 0x2002)		\
	_f(MSR_BITMAP, 0x2004)		_f(EXIT_MSR_STORE_ADDR, 0x2006)	\
	_f(EXIT_MSR_LOAD_ADDR, 0x2008)	_f(ENTRY_MSR_LOAD_ADDR, 0x200a)	\
	_f(PML_ADDRESS, 0x200e)		_f(VIRTUAL_APIC_ADDR, 0x2012)	\
	_f(APIC_ACCESS_ADDR, 0x2014)	_f(POSTED_DESCRIPTOR, 0x2016)	\
	_f(EPT_POINTER, 0x201a)		_f(TSC_MULTIPLIER, 0x2032)	\
	_f(VMCS_LINK_POINTER, 0x2800)	_f(GUEST_DEBUGCTL, 0x2802)	\
	_f(GUEST_PAT, 0x2804)		_f(GUEST_EFER, 0x2806)		\
	_f(GUEST_PDPTE0, 0x280a)	_f(GUEST_PDPTE1, 0x280c)	\
	_f(GUEST_PDPTE2, 0x280e)	_f(GUEST_PDPTE3, 0x2810)	\
	_f(HOST_PAT, 0x2c00)		_f(HOST_EFER, 0x2c02)		\
	_f(PIN_CONTROLS, 0x4000)	_f(CPU_CONTROLS, 0x4002)	\
	_f(CR3_TARGET_COUNT, 0x400a)	_f(EXIT_CONTROLS, 0x400c)	\
	_f(EXIT_MSR_STORE_COUNT, 0x400e) _f(EXIT_MSR_LOAD_COUNT, 0x4010) \
	_f(ENTRY_CONTROLS, 0x4012)	_f(ENTRY_MSR_LOAD_COUNT, 0x4014) \
	_f(ENTRY_INTR_INFO, 0x4016)	_f(ENTRY_EXCEPTION_ERROR, 0x4018) \
	_f(ENTRY_INSN_LEN, 0x401a)	_f(TPR_THRESHOLD, 0x401c)	\
	_f(CPU_CONTROLS2, 0x401e)					\
	_f(GUEST_ES_LIMIT, 0x4800)	_f(GUEST_CS_LIMIT, 0x4802)	\
	_f(GUEST_SS_LIMIT, 0x4804)	_f(GUEST_DS_LIMIT, 0x4806)	\
	_f(GUEST_FS_LIMIT, 0x4808)	_f(GUEST_GS_LIMIT, 0x480a)	\
	_f(GUEST_LDTR_LIMIT, 0x480c)	_f(GUEST_TR_LIMIT, 0x480e)	\
	_f(GUEST_GDTR_LIMIT, 0x4810)	_f(GUEST_IDTR_LIMIT, 0x4812)	\
	_f(GUEST_ES_ACCESS, 0x4814)	_f(GUEST_CS_ACCESS, 0x4816)	\
	_f(GUEST_SS_ACCESS, 0x4818)	_f(GUEST_DS_ACCESS, 0x481a)	\
	_f(GUEST_FS_ACCESS, 0x481c)	_f(GUEST_GS_ACCESS, 0x481e)	\
	_f(GUEST_LDTR_ACCESS, 0x4820)	_f(GUEST_TR_ACCESS, 0x4822)	\
	_f(GUEST_INTERRUPTIBILITY, 0x4824) _f(GUEST_ACTIVITY, 0x4826)	\
	_f(GUEST_CR0, 0x6800)		_f(GUEST_CR3, 0x6802)		\
	_f(GUEST_CR4, 0x6804)						\
	_f(GUEST_ES_BASE, 0x6806)	_f(GUEST_CS_BASE, 0x6808)	\
	_f(GUEST_SS_BASE, 0x680a)	_f(GUEST_DS_BASE, 0x680c)	\
	_f(GUEST_FS_BASE, 0x680e)	_f(GUEST_GS_BASE, 0x6810)	\
	_f(GUEST_LDTR_BASE, 0x6812)	_f(GUEST_TR_BASE, 0x6814)	\
	_f(GUEST_GDTR_BASE, 0x6816)	_f(GUEST_IDTR_BASE, 0x6818)	\
	_f(GUEST_DR7, 0x681a)		_f(GUEST_RIP, 0x681e)		\
	_f(GUEST_RFLAGS, 0x6820)	_f(GUEST_PENDING_DEBUG, 0x6822)	\
	_f(GUEST_SYSENTER_ESP, 0x6824)	_f(GUEST_SYSENTER_EIP, 0x6826)	\
	_f(HOST_CR0, 0x6c00)		_f(HOST_CR3, 0x6c02)		\
	_f(HOST_CR4, 0x6c04)						\
	_f(HOST_FS_BASE, 0x6c06)	_f(HOST_GS_BASE, 0x6c08)	\
	_f(HOST_TR_BASE, 0x6c0a)	_f(HOST_GDTR_BASE, 0x6c0c)	\
	_f(HOST_IDTR_BASE, 0x6c0e)					\
	_f(HOST_SYSENTER_ESP, 0x6c10)	_f(HOST_SYSENTER_EIP, 0x6c12)	\
	_f(HOST_RIP, 0x6c16)

enum vmcs_field {
#define _f(_name, _encoding)	_name = _encoding,
	VMCS_FIELDS(_f)
#undef _f
};

static const struct {
	const char *name;
	uint16_t encoding;
} names[] = {
#define _f(_name, _encoding)	{ #_name, _encoding },
	VMCS_FIELDS(_f)
#undef _f
};

/* PIN_CONTROLS, CPU_CONTROLS, CPU_CONTROLS2, EXIT_CONTROLS, ENTRY_CONTROLS */
#define PIN_EXTERNAL_INTERRUPT	BIT(0)
#define PIN_NMI			BIT(3)
#define PIN_VIRTUAL_NMI		BIT(5)
#define PIN_PREEMPTION_TIMER	BIT(6)
#define PIN_POSTED		BIT(7)
#define CPU_TPR_SHADOW		BIT(21)
#define CPU_NMI_WINDOW		BIT(22)
#define CPU_IO_BITMAPS		BIT(25)
#define CPU_MTF			BIT(27)
#define CPU_MSR_BITMAP		BIT(28)
#define CPU_SECONDARY		BIT(31)
#define CPU2_APIC_ACCESS	BIT(0)
#define CPU2_EPT		BIT(1)
#define CPU2_X2APIC		BIT(4)
#define CPU2_VPID		BIT(5)
#define CPU2_UNRESTRICTED	BIT(7)
#define CPU2_APIC_REGISTERS	BIT(8)
#define CPU2_INTR_DELIVERY	BIT(9)
#define CPU2_PML		BIT(17)
#define CPU2_TSC_SCALING	BIT(25)
#define EXIT_HOST_64BIT		BIT(9)
#define EXIT_ACK_INTERRUPT	BIT(15)
#define EXIT_LOAD_PAT		BIT(19)
#define EXIT_LOAD_EFER		BIT(21)
#define EXIT_SAVE_TIMER		BIT(22)
#define ENTRY_LOAD_DEBUG	BIT(2)
#define ENTRY_IA32E		BIT(9)
#define ENTRY_SMM		BIT(10)
#define ENTRY_DUAL_MONITOR	BIT(11)
#define ENTRY_LOAD_PAT		BIT(14)
#define ENTRY_LOAD_EFER		BIT(15)

#define CR0_PE			BIT_ULL(0)
#define CR0_WP			BIT_ULL(16)
#define CR0_PG			BIT_ULL(31)
#define CR4_PAE			BIT_ULL(5)
#define CR4_LA57		BIT_ULL(12)
#define CR4_PCIDE		BIT_ULL(17)
#define CR4_CET			BIT_ULL(23)
#define EFER_LME		BIT_ULL(8)
#define EFER_LMA		BIT_ULL(10)
#define EFER_DEFINED		(BIT_ULL(0) | EFER_LME | EFER_LMA | BIT_ULL(11))
#define RFLAGS_FIXED		BIT_ULL(1)
#define RFLAGS_TF		BIT_ULL(8)
#define RFLAGS_IF		BIT_ULL(9)
#define RFLAGS_VM		BIT_ULL(17)
#define RFLAGS_RESERVED		(~0x3fffffULL | BIT_ULL(15) | BIT_ULL(5) | BIT_ULL(3))
#define DEBUGCTL_BTF		BIT_ULL(1)
#define DEBUGCTL_RESERVED	(~0xffc7ULL)

/* Access rights of a segment. */
#define ACCESS_TYPE(_a)		((_a) & 0xf)
#define ACCESS_S		BIT(4)
#define ACCESS_DPL(_a)		((_a) >> 5 & 3)
#define ACCESS_P		BIT(7)
#define ACCESS_L		BIT(13)
#define ACCESS_D		BIT(14)
#define ACCESS_G		BIT(15)
#define ACCESS_UNUSABLE		BIT(16)
#define ACCESS_RESERVED		0xfffe0f00

#define INTR_VALID		BIT(31)
#define INTR_HAS_ERROR		BIT(11)
#define INTR_TYPE(_info)	((_info) >> 8 & 7)
enum { INTR_EXTERNAL = 0, INTR_NMI = 2, INTR_HARD = 3, INTR_SOFT = 4, INTR_PRIV = 5,
       INTR_SOFT_EXCEPTION = 6, INTR_OTHER = 7 };

#define BLOCKED_BY_STI		BIT(0)
#define BLOCKED_BY_MOV_SS	BIT(1)
#define BLOCKED_BY_SMI		BIT(2)
#define BLOCKED_BY_NMI		BIT(3)
enum { ACTIVE = 0, HALTED = 1, SHUTDOWN = 2, WAIT_FOR_SIPI = 3 };

#define PENDING_ENABLED		BIT_ULL(12)
#define PENDING_BS		BIT_ULL(14)
#define PENDING_DEFINED		(0xfULL | PENDING_ENABLED | PENDING_BS | BIT_ULL(16))

/* Indices of fonda_failed_entry.caps: the MSR's number less 0x480. */
enum { CAP_BASIC, CAP_PIN, CAP_CPU, CAP_EXIT, CAP_ENTRY, CAP_MISC,
       CAP_CR0_FIXED0, CAP_CR0_FIXED1, CAP_CR4_FIXED0, CAP_CR4_FIXED1, CAP_ENUM, CAP_CPU2,
       CAP_EPT_VPID, CAP_TRUE_PIN, CAP_TRUE_CPU, CAP_TRUE_EXIT, CAP_TRUE_ENTRY };
#define BASIC_TRUE_CONTROLS	BIT_ULL(55)
#define MISC_ZERO_LENGTH	BIT_ULL(30)
#define EPT_CAP_UC		BIT_ULL(8)
#define EPT_CAP_WB		BIT_ULL(14)
#define EPT_CAP_5_LEVELS	BIT_ULL(7)
#define EPT_CAP_AD		BIT_ULL(21)

/* 0 for a field that is not there. */
static uint64_t get(const struct explain *x, uint32_t field)
{
	const struct fonda_failed_entry *e = x->entry;
	uint32_t i;

	for (i = 0; i < e->nr_fields; i++)
		if (e->vmcs[i].field == field)
			return e->vmcs[i].value;
	return 0;
}

static const char *name_of(uint32_t field)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(names); i++)
		if (names[i].encoding == field)
			return names[i].name;
	return "?";
}

static void broken(struct explain *x, int nr, const uint16_t *involved, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

static void broken(struct explain *x, int nr, const uint16_t *involved, const char *fmt, ...)
{
	struct finding f = { .nr = nr };
	va_list ap;
	int i;

	va_start(ap, fmt);
	vsnprintf(f.rule, sizeof(f.rule), fmt, ap);
	va_end(ap);
	for (i = 0; i < nr; i++) {
		f.field[i].name = name_of(involved[i]);
		f.field[i].value = get(x, involved[i]);
	}
	explain_add(x, &f);
}

/* RULE(x, holds, rule, field...): the field at fault first. */
#define RULE(_x, _holds, _rule, ...) do {						\
	const uint16_t _involved[] = { __VA_ARGS__ };					\
											\
	_Static_assert(ARRAY_SIZE(_involved) <= EXPLAIN_FIELDS, "too many fields");	\
	if (!(_holds))									\
		broken(_x, ARRAY_SIZE(_involved), _involved, "%s", _rule);		\
} while (0)

static bool in_phys(const struct explain *x, uint64_t addr, uint64_t align)
{
	return !(addr & (align - 1)) && !(addr & beyond_phys(x));
}

static uint32_t secondary(const struct explain *x)
{
	return get(x, CPU_CONTROLS) & CPU_SECONDARY ? get(x, CPU_CONTROLS2) : 0;
}

/* Bits that @cap lets be 0 are in its lower half, those that may be 1 in the upper. */
static void check_reserved(struct explain *x, uint16_t field, int cap)
{
	uint64_t allowed = x->entry->caps[cap];
	uint32_t value = get(x, field), missing, excess;

	if (!allowed)
		return;
	missing = (uint32_t)allowed & ~value;
	excess = value & ~(uint32_t)(allowed >> 32);
	if (missing || excess)
		broken(x, 1, &field, "%s: bits 0x%x must be 1 here, bits 0x%x must be 0",
		       name_of(field), missing, excess);
}

static int true_cap(const struct explain *x, int cap, int true_one)
{
	return x->entry->caps[CAP_BASIC] & BASIC_TRUE_CONTROLS ? true_one : cap;
}

static void check_eptp(struct explain *x)
{
	uint64_t eptp = get(x, EPT_POINTER), caps = x->entry->caps[CAP_EPT_VPID];
	int type = eptp & 7, levels = (eptp >> 3 & 7) + 1;

	RULE(x, (type == 0 && (caps & EPT_CAP_UC)) || (type == 6 && (caps & EPT_CAP_WB)),
	     "the EPT memory type must be one that this processor has", EPT_POINTER);
	RULE(x, levels == 4 || (levels == 5 && (caps & EPT_CAP_5_LEVELS)),
	     "the EPT page-walk length must be 4 (encoded as 3)", EPT_POINTER);
	RULE(x, !(eptp & BIT(6)) || (caps & EPT_CAP_AD),
	     "bit 6, accessed and dirty flags for EPT, must be 0 on this processor", EPT_POINTER);
	RULE(x, !(eptp & 0xf00) && !(eptp & beyond_phys(x)),
	     "reserved bits of the EPT pointer must be 0", EPT_POINTER);
}

static void check_apic_controls(struct explain *x, uint32_t pin, uint32_t cpu, uint32_t cpu2)
{
	RULE(x, !(cpu & CPU_TPR_SHADOW) || in_phys(x, get(x, VIRTUAL_APIC_ADDR), 4096),
	     "the virtual-APIC page must be a physical page", VIRTUAL_APIC_ADDR, CPU_CONTROLS);
	RULE(x, !(cpu & CPU_TPR_SHADOW) || (cpu2 & CPU2_INTR_DELIVERY) ||
	     !(get(x, TPR_THRESHOLD) & ~0xfULL),
	     "bits 31:4 of the TPR threshold must be 0", TPR_THRESHOLD, CPU_CONTROLS);
	RULE(x, !(cpu2 & CPU2_APIC_ACCESS) || in_phys(x, get(x, APIC_ACCESS_ADDR), 4096),
	     "the APIC-access page must be a physical page", APIC_ACCESS_ADDR, CPU_CONTROLS2);
	RULE(x, (cpu & CPU_TPR_SHADOW) ||
	     !(cpu2 & (CPU2_X2APIC | CPU2_APIC_REGISTERS | CPU2_INTR_DELIVERY)),
	     "without a TPR shadow nothing else of the APIC can be virtualised",
	     CPU_CONTROLS2, CPU_CONTROLS);
	RULE(x, !(cpu2 & CPU2_X2APIC) || !(cpu2 & CPU2_APIC_ACCESS),
	     "virtualize x2APIC mode and virtualize APIC accesses exclude each other",
	     CPU_CONTROLS2);
	RULE(x, !(cpu2 & CPU2_INTR_DELIVERY) || (pin & PIN_EXTERNAL_INTERRUPT),
	     "virtual-interrupt delivery needs external-interrupt exiting",
	     PIN_CONTROLS, CPU_CONTROLS2);
	if (!(pin & PIN_POSTED))
		return;
	RULE(x, cpu2 & CPU2_INTR_DELIVERY, "posted interrupts need virtual-interrupt delivery",
	     CPU_CONTROLS2, PIN_CONTROLS);
	RULE(x, get(x, EXIT_CONTROLS) & EXIT_ACK_INTERRUPT,
	     "posted interrupts need acknowledge interrupt on exit", EXIT_CONTROLS, PIN_CONTROLS);
	RULE(x, get(x, POSTED_VECTOR) <= 255, "the notification vector must be 0 to 255",
	     POSTED_VECTOR);
	RULE(x, in_phys(x, get(x, POSTED_DESCRIPTOR), 64),
	     "the posted-interrupt descriptor must be 64-byte aligned in physical memory",
	     POSTED_DESCRIPTOR);
}

static void check_execution_controls(struct explain *x)
{
	uint32_t pin = get(x, PIN_CONTROLS), cpu = get(x, CPU_CONTROLS), cpu2 = secondary(x);

	x->section = "VM-Execution Control Fields";
	check_reserved(x, PIN_CONTROLS, true_cap(x, CAP_PIN, CAP_TRUE_PIN));
	check_reserved(x, CPU_CONTROLS, true_cap(x, CAP_CPU, CAP_TRUE_CPU));
	if (cpu & CPU_SECONDARY)
		check_reserved(x, CPU_CONTROLS2, CAP_CPU2);
	RULE(x, get(x, CR3_TARGET_COUNT) <= 4, "the CR3-target count must be at most 4",
	     CR3_TARGET_COUNT);
	RULE(x, !(cpu & CPU_IO_BITMAPS) || in_phys(x, get(x, IO_BITMAP_A), 4096),
	     "I/O bitmap A must be a physical page", IO_BITMAP_A, CPU_CONTROLS);
	RULE(x, !(cpu & CPU_IO_BITMAPS) || in_phys(x, get(x, IO_BITMAP_B), 4096),
	     "I/O bitmap B must be a physical page", IO_BITMAP_B, CPU_CONTROLS);
	RULE(x, !(cpu & CPU_MSR_BITMAP) || in_phys(x, get(x, MSR_BITMAP), 4096),
	     "the MSR bitmap must be a physical page", MSR_BITMAP, CPU_CONTROLS);
	RULE(x, (pin & PIN_NMI) || !(pin & PIN_VIRTUAL_NMI), "virtual NMIs need NMI exiting",
	     PIN_CONTROLS);
	RULE(x, (pin & PIN_VIRTUAL_NMI) || !(cpu & CPU_NMI_WINDOW),
	     "NMI-window exiting needs virtual NMIs", CPU_CONTROLS, PIN_CONTROLS);
	check_apic_controls(x, pin, cpu, cpu2);
	RULE(x, !(cpu2 & CPU2_VPID) || get(x, VPID), "the VPID must not be 0, which is the host's",
	     VPID, CPU_CONTROLS2);
	if (cpu2 & CPU2_EPT)
		check_eptp(x);
	RULE(x, !(cpu2 & CPU2_PML) || (cpu2 & CPU2_EPT), "page-modification logging needs EPT",
	     CPU_CONTROLS2);
	RULE(x, !(cpu2 & CPU2_PML) || in_phys(x, get(x, PML_ADDRESS), 4096),
	     "the page-modification log must be a physical page", PML_ADDRESS, CPU_CONTROLS2);
	RULE(x, !(cpu2 & CPU2_UNRESTRICTED) || (cpu2 & CPU2_EPT), "unrestricted guest needs EPT",
	     CPU_CONTROLS2);
	RULE(x, !(cpu2 & CPU2_TSC_SCALING) || get(x, TSC_MULTIPLIER),
	     "the TSC multiplier must not be 0", TSC_MULTIPLIER, CPU_CONTROLS2);
}

/* A list of 16-byte entries, if it has any. */
static bool msr_list_ok(const struct explain *x, uint16_t addr, uint16_t count)
{
	uint64_t first = get(x, addr), nr = get(x, count);

	return !nr || (in_phys(x, first, 16) && in_phys(x, (first + nr * 16 - 1) & ~15ULL, 16));
}

static void check_exit_controls(struct explain *x)
{
	uint32_t exit = get(x, EXIT_CONTROLS);

	x->section = "VM-Exit Control Fields";
	check_reserved(x, EXIT_CONTROLS, true_cap(x, CAP_EXIT, CAP_TRUE_EXIT));
	RULE(x, (get(x, PIN_CONTROLS) & PIN_PREEMPTION_TIMER) || !(exit & EXIT_SAVE_TIMER),
	     "saving the preemption timer needs it to be active", EXIT_CONTROLS, PIN_CONTROLS);
	RULE(x, msr_list_ok(x, EXIT_MSR_STORE_ADDR, EXIT_MSR_STORE_COUNT),
	     "the exit MSR-store list must be 16-byte aligned in physical memory",
	     EXIT_MSR_STORE_ADDR, EXIT_MSR_STORE_COUNT);
	RULE(x, msr_list_ok(x, EXIT_MSR_LOAD_ADDR, EXIT_MSR_LOAD_COUNT),
	     "the exit MSR-load list must be 16-byte aligned in physical memory",
	     EXIT_MSR_LOAD_ADDR, EXIT_MSR_LOAD_COUNT);
}

static void check_injection(struct explain *x)
{
	uint32_t info = get(x, ENTRY_INTR_INFO), type = INTR_TYPE(info), vector = info & 0xff;
	bool protected_mode = !(secondary(x) & CPU2_UNRESTRICTED) || (get(x, GUEST_CR0) & CR0_PE);
	/* #DF, #TS, #NP, #SS, #GP, #PF, #AC */
	bool pushes = BIT(vector & 31) & (BIT(8) | 0x1fU << 10 | BIT(17)) && vector < 32;
	uint64_t length = get(x, ENTRY_INSN_LEN);
	bool has_mtf = x->entry->caps[true_cap(x, CAP_CPU, CAP_TRUE_CPU)] >> 32 & CPU_MTF;

	if (!(info & INTR_VALID))
		return;
	RULE(x, type != 1 && (type != INTR_OTHER || has_mtf),
	     "the type of an injected event must not be reserved", ENTRY_INTR_INFO);
	RULE(x, type != INTR_NMI || vector == 2, "an injected NMI must have vector 2",
	     ENTRY_INTR_INFO);
	RULE(x, type != INTR_HARD || vector <= 31,
	     "an injected hardware exception must have a vector up to 31", ENTRY_INTR_INFO);
	RULE(x, type != INTR_OTHER || vector == 0, "an injected other event must have vector 0",
	     ENTRY_INTR_INFO);
	RULE(x, !(info & INTR_HAS_ERROR) == !(protected_mode && type == INTR_HARD && pushes),
	     "an error code must be delivered by those exceptions, and only those, that have one",
	     ENTRY_INTR_INFO, GUEST_CR0);
	RULE(x, !(info & 0x7ffff000), "reserved bits of an injected event must be 0",
	     ENTRY_INTR_INFO);
	RULE(x, !(info & INTR_HAS_ERROR) || !(get(x, ENTRY_EXCEPTION_ERROR) & 0xffff0000),
	     "bits 31:16 of an injected error code must be 0", ENTRY_EXCEPTION_ERROR,
	     ENTRY_INTR_INFO);
	if (type >= INTR_SOFT && type <= INTR_SOFT_EXCEPTION)
		RULE(x, length <= 15 && (length ||
					 (x->entry->caps[CAP_MISC] & MISC_ZERO_LENGTH)),
		     "a software event must have an instruction length of 1 to 15",
		     ENTRY_INSN_LEN, ENTRY_INTR_INFO);
}

static void check_entry_controls(struct explain *x)
{
	uint32_t entry = get(x, ENTRY_CONTROLS);

	x->section = "VM-Entry Control Fields";
	check_reserved(x, ENTRY_CONTROLS, true_cap(x, CAP_ENTRY, CAP_TRUE_ENTRY));
	check_injection(x);
	RULE(x, msr_list_ok(x, ENTRY_MSR_LOAD_ADDR, ENTRY_MSR_LOAD_COUNT),
	     "the entry MSR-load list must be 16-byte aligned in physical memory",
	     ENTRY_MSR_LOAD_ADDR, ENTRY_MSR_LOAD_COUNT);
	RULE(x, !(entry & (ENTRY_SMM | ENTRY_DUAL_MONITOR)),
	     "entry to SMM and deactivation of dual-monitor treatment are for SMM only",
	     ENTRY_CONTROLS);
}

/* Bits that VMX operation holds at 1 or at 0. */
static bool fixed_ok(const struct explain *x, uint64_t val, int fixed0, uint64_t free)
{
	uint64_t ones = x->entry->caps[fixed0], may = x->entry->caps[fixed0 + 1];

	return !may || !((ones & ~val & ~free) | (val & ~may));
}

static void check_host(struct explain *x)
{
	static const uint16_t bases[] = { HOST_FS_BASE, HOST_GS_BASE, HOST_GDTR_BASE,
					  HOST_IDTR_BASE, HOST_TR_BASE };
	static const uint16_t selectors[] = { HOST_CS_SELECTOR, HOST_SS_SELECTOR,
		HOST_DS_SELECTOR, HOST_ES_SELECTOR, HOST_FS_SELECTOR, HOST_GS_SELECTOR,
		HOST_TR_SELECTOR };
	uint64_t cr4 = get(x, HOST_CR4), efer = get(x, HOST_EFER);
	uint32_t exit = get(x, EXIT_CONTROLS);
	int bits = cr4 & CR4_LA57 ? 57 : 48;
	bool wide = exit & EXIT_HOST_64BIT;
	size_t i;

	x->section = "Checks on Host Control Registers, MSRs, and SSP";
	RULE(x, fixed_ok(x, get(x, HOST_CR0), CAP_CR0_FIXED0, 0),
	     "HOST_CR0 must be a value that VMX operation allows", HOST_CR0);
	RULE(x, fixed_ok(x, cr4, CAP_CR4_FIXED0, 0),
	     "HOST_CR4 must be a value that VMX operation allows", HOST_CR4);
	RULE(x, !(get(x, HOST_CR3) & beyond_phys(x)),
	     "HOST_CR3 must not reach beyond the physical address space", HOST_CR3);
	RULE(x, canonical(get(x, HOST_SYSENTER_ESP), bits), "HOST_SYSENTER_ESP must be canonical",
	     HOST_SYSENTER_ESP);
	RULE(x, canonical(get(x, HOST_SYSENTER_EIP), bits), "HOST_SYSENTER_EIP must be canonical",
	     HOST_SYSENTER_EIP);
	RULE(x, !(exit & EXIT_LOAD_PAT) || valid_pat(get(x, HOST_PAT)),
	     "HOST_PAT must hold memory types only", HOST_PAT);
	if (exit & EXIT_LOAD_EFER) {
		RULE(x, !(efer & ~EFER_DEFINED), "reserved bits of HOST_EFER must be 0", HOST_EFER);
		RULE(x, wide == !!(efer & EFER_LMA) && wide == !!(efer & EFER_LME),
		     "LMA and LME of HOST_EFER must equal host address-space size",
		     HOST_EFER, EXIT_CONTROLS);
	}

	x->section = "Checks on Host Segment and Descriptor-Table Registers";
	for (i = 0; i < ARRAY_SIZE(selectors); i++)
		RULE(x, !(get(x, selectors[i]) & 7), "RPL and TI of a host selector must be 0",
		     selectors[i]);
	RULE(x, get(x, HOST_CS_SELECTOR), "the host's CS must not be 0", HOST_CS_SELECTOR);
	RULE(x, get(x, HOST_TR_SELECTOR), "the host's TR must not be 0", HOST_TR_SELECTOR);
	RULE(x, wide || get(x, HOST_SS_SELECTOR), "the SS of a 32-bit host must not be 0",
	     HOST_SS_SELECTOR);
	for (i = 0; i < ARRAY_SIZE(bases); i++)
		RULE(x, canonical(get(x, bases[i]), bits), "a host base address must be canonical",
		     bases[i]);

	x->section = "Checks Related to Address-Space Size";
	RULE(x, wide, "host address-space size must be 1: the host is in 64-bit mode",
	     EXIT_CONTROLS);
	RULE(x, !wide || (cr4 & CR4_PAE), "HOST_CR4.PAE must be 1 for a 64-bit host",
	     HOST_CR4, EXIT_CONTROLS);
	RULE(x, !wide || canonical(get(x, HOST_RIP), bits), "HOST_RIP must be canonical", HOST_RIP);
}

static int guest_linear_bits(const struct explain *x)
{
	return get(x, GUEST_CR4) & CR4_LA57 ? 57 : 48;
}

static void check_guest_registers(struct explain *x)
{
	uint64_t cr0 = get(x, GUEST_CR0), cr4 = get(x, GUEST_CR4), efer = get(x, GUEST_EFER);
	uint32_t entry = get(x, ENTRY_CONTROLS);
	bool ia32e = entry & ENTRY_IA32E;
	int bits = guest_linear_bits(x);

	x->section = "Checks on Guest Control Registers, Debug Registers, and MSRs";
	RULE(x, fixed_ok(x, cr0, CAP_CR0_FIXED0,
			 secondary(x) & CPU2_UNRESTRICTED ? CR0_PE | CR0_PG : 0),
	     "GUEST_CR0 must be a value that VMX operation allows", GUEST_CR0);
	RULE(x, !(cr0 & CR0_PG) || (cr0 & CR0_PE), "CR0.PE must be 1 when CR0.PG is", GUEST_CR0);
	RULE(x, fixed_ok(x, cr4, CAP_CR4_FIXED0, 0),
	     "GUEST_CR4 must be a value that VMX operation allows", GUEST_CR4);
	RULE(x, !(cr4 & CR4_CET) || (cr0 & CR0_WP), "CR0.WP must be 1 when CR4.CET is",
	     GUEST_CR0, GUEST_CR4);
	RULE(x, !(entry & ENTRY_LOAD_DEBUG) || !(get(x, GUEST_DEBUGCTL) & DEBUGCTL_RESERVED),
	     "reserved bits of GUEST_DEBUGCTL must be 0", GUEST_DEBUGCTL);
	RULE(x, !ia32e || (cr0 & CR0_PG), "CR0.PG must be 1 in IA-32e mode", GUEST_CR0,
	     ENTRY_CONTROLS);
	RULE(x, !ia32e || (cr4 & CR4_PAE), "CR4.PAE must be 1 in IA-32e mode", GUEST_CR4,
	     ENTRY_CONTROLS);
	RULE(x, ia32e || !(cr4 & CR4_PCIDE), "CR4.PCIDE must be 0 outside IA-32e mode", GUEST_CR4,
	     ENTRY_CONTROLS);
	RULE(x, !(get(x, GUEST_CR3) & beyond_phys(x)),
	     "GUEST_CR3 must not reach beyond the physical address space", GUEST_CR3);
	RULE(x, !(entry & ENTRY_LOAD_DEBUG) || !(get(x, GUEST_DR7) >> 32),
	     "bits 63:32 of GUEST_DR7 must be 0", GUEST_DR7);
	RULE(x, canonical(get(x, GUEST_SYSENTER_ESP), bits),
	     "GUEST_SYSENTER_ESP must be canonical", GUEST_SYSENTER_ESP);
	RULE(x, canonical(get(x, GUEST_SYSENTER_EIP), bits),
	     "GUEST_SYSENTER_EIP must be canonical", GUEST_SYSENTER_EIP);
	RULE(x, !(entry & ENTRY_LOAD_PAT) || valid_pat(get(x, GUEST_PAT)),
	     "GUEST_PAT must hold memory types only", GUEST_PAT);
	if (!(entry & ENTRY_LOAD_EFER))
		return;
	RULE(x, !(efer & ~EFER_DEFINED), "reserved bits of GUEST_EFER must be 0", GUEST_EFER);
	RULE(x, ia32e == !!(efer & EFER_LMA), "GUEST_EFER.LMA must equal IA-32e mode guest",
	     GUEST_EFER, ENTRY_CONTROLS);
	RULE(x, !(cr0 & CR0_PG) || !(efer & EFER_LMA) == !(efer & EFER_LME),
	     "GUEST_EFER.LME must equal LMA when CR0.PG is 1", GUEST_EFER, GUEST_CR0);
}

/* -- segments --------------------------------------------------------------- */

/* In the order of their fields, which are two apart. */
enum segment { ES, CS, SS, DS, FS, GS, LDTR, TR, NR_SEGMENTS };
#define SELECTOR(_s)	(GUEST_ES_SELECTOR + 2 * (_s))
#define LIMIT(_s)	(GUEST_ES_LIMIT + 2 * (_s))
#define ACCESS(_s)	(GUEST_ES_ACCESS + 2 * (_s))
#define BASE(_s)	(GUEST_ES_BASE + 2 * (_s))

/* A limit in bytes needs G=0 unless its low bits are ones, G=1 when it is above 1 MiB. */
static bool granularity_ok(uint32_t limit, uint32_t access)
{
	return ((limit & 0xfff) == 0xfff || !(access & ACCESS_G)) &&
	       (!(limit >> 20) || (access & ACCESS_G));
}

static void check_v8086(struct explain *x)
{
	int s;

	for (s = ES; s <= GS; s++) {
		RULE(x, get(x, BASE(s)) == get(x, SELECTOR(s)) << 4,
		     "a base in virtual-8086 mode must be the selector times 16",
		     BASE(s), SELECTOR(s));
		RULE(x, get(x, LIMIT(s)) == 0xffff, "a limit in virtual-8086 mode must be 0xffff",
		     LIMIT(s));
		RULE(x, get(x, ACCESS(s)) == 0xf3,
		     "access rights in virtual-8086 mode must be 0xf3", ACCESS(s));
	}
}

static void check_code_segment(struct explain *x, bool unrestricted, bool ia32e)
{
	uint32_t access = get(x, ACCESS(CS)), type = ACCESS_TYPE(access);
	uint32_t ss_dpl = ACCESS_DPL(get(x, ACCESS(SS)));

	RULE(x, type == 9 || type == 11 || type == 13 || type == 15 || (unrestricted && type == 3),
	     "CS must be an accessed code segment", ACCESS(CS));
	RULE(x, type != 3 || !ACCESS_DPL(access), "DPL of a CS that is a data segment must be 0",
	     ACCESS(CS));
	RULE(x, (type != 9 && type != 11) || ACCESS_DPL(access) == ss_dpl,
	     "DPL of CS must be SS's", ACCESS(CS), ACCESS(SS));
	RULE(x, (type != 13 && type != 15) || ACCESS_DPL(access) <= ss_dpl,
	     "DPL of a conforming CS must not be above SS's", ACCESS(CS), ACCESS(SS));
	RULE(x, !ia32e || !(access & ACCESS_L) || !(access & ACCESS_D),
	     "D of CS must be 0 when L is 1", ACCESS(CS));
}

static void check_stack_segment(struct explain *x, bool unrestricted)
{
	uint32_t access = get(x, ACCESS(SS)), type = ACCESS_TYPE(access);

	RULE(x, (access & ACCESS_UNUSABLE) || type == 3 || type == 7,
	     "SS must be an accessed writable data segment", ACCESS(SS));
	RULE(x, unrestricted || ACCESS_DPL(access) == (get(x, SELECTOR(SS)) & 3),
	     "DPL of SS must be its selector's RPL", ACCESS(SS), SELECTOR(SS));
	RULE(x, (get(x, GUEST_CR0) & CR0_PE) || !ACCESS_DPL(access),
	     "DPL of SS must be 0 in real mode", ACCESS(SS), GUEST_CR0);
}

static void check_rights(struct explain *x, bool unrestricted, bool ia32e)
{
	int s;

	check_code_segment(x, unrestricted, ia32e);
	check_stack_segment(x, unrestricted);
	for (s = ES; s <= GS; s++) {
		uint32_t access = get(x, ACCESS(s)), type = ACCESS_TYPE(access);

		if (access & ACCESS_UNUSABLE && s != CS)
			continue;
		if (s != CS && s != SS) {
			RULE(x, (type & 1) && (!(type & 8) || (type & 2)),
			     "a data segment must be accessed and readable", ACCESS(s));
			RULE(x, unrestricted || type > 11 ||
			     ACCESS_DPL(access) >= (get(x, SELECTOR(s)) & 3),
			     "DPL of a data segment must not be below its RPL",
			     ACCESS(s), SELECTOR(s));
		}
		RULE(x, access & ACCESS_S, "S must be 1: code or data", ACCESS(s));
		RULE(x, access & ACCESS_P, "P must be 1 in a usable segment", ACCESS(s));
		RULE(x, !(access & ACCESS_RESERVED), "reserved access rights must be 0", ACCESS(s));
		RULE(x, granularity_ok(get(x, LIMIT(s)), access), "G must fit the limit",
		     ACCESS(s), LIMIT(s));
	}
}

/* TR, or a usable LDTR. */
static void check_system_segment(struct explain *x, int s, bool type_ok)
{
	uint32_t access = get(x, ACCESS(s));

	RULE(x, type_ok, s == TR ? "TR must be a busy TSS" : "LDTR must be an LDT", ACCESS(s));
	RULE(x, !(access & ACCESS_S), "S must be 0: a system segment", ACCESS(s));
	RULE(x, access & ACCESS_P, "P must be 1 in a usable segment", ACCESS(s));
	RULE(x, !(access & ACCESS_RESERVED), "reserved access rights must be 0", ACCESS(s));
	RULE(x, granularity_ok(get(x, LIMIT(s)), access), "G must fit the limit",
	     ACCESS(s), LIMIT(s));
}

static void check_guest_segments(struct explain *x)
{
	bool unrestricted = secondary(x) & CPU2_UNRESTRICTED;
	bool ia32e = get(x, ENTRY_CONTROLS) & ENTRY_IA32E;
	bool v8086 = get(x, GUEST_RFLAGS) & RFLAGS_VM;
	uint32_t ldtr = get(x, ACCESS(LDTR)), tr = get(x, ACCESS(TR));
	int bits = guest_linear_bits(x), s;

	x->section = "Checks on Guest Segment Registers";
	RULE(x, !(get(x, SELECTOR(TR)) & 4), "TI of TR must be 0", SELECTOR(TR));
	RULE(x, (ldtr & ACCESS_UNUSABLE) || !(get(x, SELECTOR(LDTR)) & 4),
	     "TI of a usable LDTR must be 0", SELECTOR(LDTR), ACCESS(LDTR));
	RULE(x, v8086 || unrestricted ||
	     !((get(x, SELECTOR(SS)) ^ get(x, SELECTOR(CS))) & 3),
	     "RPL of SS must be CS's", SELECTOR(SS), SELECTOR(CS));
	for (s = FS; s <= TR; s++)
		RULE(x, (s == LDTR && (ldtr & ACCESS_UNUSABLE)) ||
		     canonical(get(x, BASE(s)), bits), "a guest base address must be canonical",
		     BASE(s));
	RULE(x, !(get(x, BASE(CS)) >> 32), "bits 63:32 of the base of CS must be 0", BASE(CS));
	for (s = ES; s <= DS; s++)
		RULE(x, s == CS || (get(x, ACCESS(s)) & ACCESS_UNUSABLE) ||
		     !(get(x, BASE(s)) >> 32),
		     "bits 63:32 of the base of a usable ES, SS or DS must be 0",
		     BASE(s), ACCESS(s));
	if (v8086)
		check_v8086(x);
	else
		check_rights(x, unrestricted, ia32e);

	check_system_segment(x, TR, ACCESS_TYPE(tr) == 11 || (!ia32e && ACCESS_TYPE(tr) == 3));
	RULE(x, !(tr & ACCESS_UNUSABLE), "TR must be usable", ACCESS(TR));
	if (!(ldtr & ACCESS_UNUSABLE))
		check_system_segment(x, LDTR, ACCESS_TYPE(ldtr) == 2);

	x->section = "Checks on Guest Descriptor-Table Registers";
	RULE(x, canonical(get(x, GUEST_GDTR_BASE), bits), "a guest base address must be canonical",
	     GUEST_GDTR_BASE);
	RULE(x, canonical(get(x, GUEST_IDTR_BASE), bits), "a guest base address must be canonical",
	     GUEST_IDTR_BASE);
	RULE(x, !(get(x, GUEST_GDTR_LIMIT) >> 16), "bits 31:16 of a table's limit must be 0",
	     GUEST_GDTR_LIMIT);
	RULE(x, !(get(x, GUEST_IDTR_LIMIT) >> 16), "bits 31:16 of a table's limit must be 0",
	     GUEST_IDTR_LIMIT);
}

static void check_guest_rip(struct explain *x)
{
	uint64_t rip = get(x, GUEST_RIP), rflags = get(x, GUEST_RFLAGS);
	bool ia32e = get(x, ENTRY_CONTROLS) & ENTRY_IA32E;
	bool wide = ia32e && (get(x, ACCESS(CS)) & ACCESS_L);
	uint32_t info = get(x, ENTRY_INTR_INFO);

	x->section = "Checks on Guest RIP, RFLAGS, and SSP";
	RULE(x, wide || !(rip >> 32), "bits 63:32 of RIP must be 0 outside 64-bit mode",
	     GUEST_RIP, ACCESS(CS));
	/* The highest bit of a linear address may differ from them. */
	RULE(x, !wide || canonical(rip, guest_linear_bits(x) + 1),
	     "bits of RIP above a linear address must be identical", GUEST_RIP);
	RULE(x, !(rflags & RFLAGS_RESERVED) && (rflags & RFLAGS_FIXED),
	     "reserved bits of RFLAGS must be 0, and bit 1 must be 1", GUEST_RFLAGS);
	RULE(x, !(rflags & RFLAGS_VM) || (!ia32e && (get(x, GUEST_CR0) & CR0_PE)),
	     "RFLAGS.VM must be 0 in IA-32e mode and in real mode", GUEST_RFLAGS, ENTRY_CONTROLS);
	RULE(x, !(info & INTR_VALID) || INTR_TYPE(info) != INTR_EXTERNAL || (rflags & RFLAGS_IF),
	     "RFLAGS.IF must be 1 when an external interrupt is injected",
	     GUEST_RFLAGS, ENTRY_INTR_INFO);
}

/* May this event be delivered to a guest that is not active? */
static bool wakes(uint64_t activity, uint32_t info)
{
	uint32_t type = INTR_TYPE(info), vector = info & 0xff;

	if (activity == HALTED)
		return type == INTR_EXTERNAL || type == INTR_NMI ||
		       (type == INTR_HARD && (vector == 1 || vector == 18)) || type == INTR_OTHER;
	if (activity == SHUTDOWN)
		return type == INTR_NMI || (type == INTR_HARD && vector == 18);
	return activity == ACTIVE;
}

static void check_activity(struct explain *x, uint32_t blocked, uint32_t info)
{
	uint64_t activity = get(x, GUEST_ACTIVITY), supported = x->entry->caps[CAP_MISC] >> 6 & 7;

	RULE(x, activity <= WAIT_FOR_SIPI && (!activity || (supported & BIT_ULL(activity - 1))),
	     "the activity state must be one that this processor has", GUEST_ACTIVITY);
	RULE(x, activity != HALTED || !ACCESS_DPL(get(x, ACCESS(SS))),
	     "a halted guest must have an SS with DPL 0", GUEST_ACTIVITY, ACCESS(SS));
	RULE(x, activity == ACTIVE || !(blocked & (BLOCKED_BY_STI | BLOCKED_BY_MOV_SS)),
	     "a guest with blocking by STI or MOV SS must be active",
	     GUEST_ACTIVITY, GUEST_INTERRUPTIBILITY);
	RULE(x, !(info & INTR_VALID) || wakes(activity, info),
	     "the injected event must be one that this activity state allows",
	     GUEST_ACTIVITY, ENTRY_INTR_INFO);
}

static void check_interruptibility(struct explain *x, uint32_t blocked, uint32_t info)
{
	uint32_t shadow = blocked & (BLOCKED_BY_STI | BLOCKED_BY_MOV_SS);
	bool valid = info & INTR_VALID;

	RULE(x, !(blocked & ~0x1fU), "reserved bits of the interruptibility state must be 0",
	     GUEST_INTERRUPTIBILITY);
	RULE(x, shadow != (BLOCKED_BY_STI | BLOCKED_BY_MOV_SS),
	     "blocking by STI and by MOV SS exclude each other", GUEST_INTERRUPTIBILITY);
	RULE(x, !(blocked & BLOCKED_BY_STI) || (get(x, GUEST_RFLAGS) & RFLAGS_IF),
	     "blocking by STI needs RFLAGS.IF", GUEST_INTERRUPTIBILITY, GUEST_RFLAGS);
	RULE(x, !valid || INTR_TYPE(info) != INTR_EXTERNAL || !shadow,
	     "an external interrupt must not be injected into the shadow of STI or MOV SS",
	     GUEST_INTERRUPTIBILITY, ENTRY_INTR_INFO);
	RULE(x, !valid || INTR_TYPE(info) != INTR_NMI || !(blocked & BLOCKED_BY_MOV_SS),
	     "an NMI must not be injected into the shadow of MOV SS",
	     GUEST_INTERRUPTIBILITY, ENTRY_INTR_INFO);
	RULE(x, !(blocked & BLOCKED_BY_SMI), "blocking by SMI must be 0 outside SMM",
	     GUEST_INTERRUPTIBILITY);
	RULE(x, !(get(x, PIN_CONTROLS) & PIN_VIRTUAL_NMI) || !valid ||
	     INTR_TYPE(info) != INTR_NMI || !(blocked & BLOCKED_BY_NMI),
	     "an NMI must not be injected while NMIs are blocked",
	     GUEST_INTERRUPTIBILITY, ENTRY_INTR_INFO);
}

static void check_pending_debug(struct explain *x, uint32_t blocked)
{
	uint64_t pending = get(x, GUEST_PENDING_DEBUG), rflags = get(x, GUEST_RFLAGS);
	bool step = (rflags & RFLAGS_TF) && !(get(x, GUEST_DEBUGCTL) & DEBUGCTL_BTF);

	RULE(x, !(pending & ~PENDING_DEFINED),
	     "reserved bits of the pending debug exceptions must be 0", GUEST_PENDING_DEBUG);
	if ((blocked & (BLOCKED_BY_STI | BLOCKED_BY_MOV_SS)) || get(x, GUEST_ACTIVITY) == HALTED)
		RULE(x, step == !!(pending & PENDING_BS),
		     "BS of the pending debug exceptions must tell of single-stepping",
		     GUEST_PENDING_DEBUG, GUEST_RFLAGS, GUEST_INTERRUPTIBILITY);
}

static void check_guest_rest(struct explain *x)
{
	uint32_t blocked = get(x, GUEST_INTERRUPTIBILITY), info = get(x, ENTRY_INTR_INFO);
	uint64_t link = get(x, VMCS_LINK_POINTER);
	uint64_t cr0 = get(x, GUEST_CR0), cr4 = get(x, GUEST_CR4);
	int i;

	x->section = "Checks on Guest Non-Register State";
	check_activity(x, blocked, info);
	check_interruptibility(x, blocked, info);
	check_pending_debug(x, blocked);
	RULE(x, link == ~0ULL || in_phys(x, link, 4096),
	     "the VMCS link pointer must be all ones or a physical page", VMCS_LINK_POINTER);

	x->section = "Checks on Guest Page-Directory-Pointer-Table Entries";
	if (!(cr0 & CR0_PG) || !(cr4 & CR4_PAE) || (get(x, ENTRY_CONTROLS) & ENTRY_IA32E) ||
	    !(secondary(x) & CPU2_EPT))
		return;
	for (i = 0; i < 4; i++) {
		uint64_t pdpte = get(x, GUEST_PDPTE0 + 2 * i);

		RULE(x, !(pdpte & 1) || !(pdpte & (beyond_phys(x) | 0x1e6)),
		     "reserved bits of a present PDPTE must be 0", GUEST_PDPTE0 + 2 * i);
	}
}

/*
 * The processor checks controls and host first, and the guest only when those
 * are in order: each group that finds something ends the search.
 */
void explain_vmx(struct explain *x)
{
	x->manual = "Intel SDM volume 3";
	check_execution_controls(x);
	check_exit_controls(x);
	check_entry_controls(x);
	check_host(x);
	if (x->count)
		return;
	check_guest_registers(x);
	check_guest_segments(x);
	check_guest_rip(x);
	check_guest_rest(x);
}
