// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The checks of VMRUN: AMD64 Architecture Programmer's Manual volume 2,
 * chapter "Secure Virtual Machine". Layout of the VMCB: its appendix of that
 * name.
 */
#include <inttypes.h>
#include <stddef.h>

#include "../util/util.h"
#include "explain.h"

/* Offsets in the VMCB, and how many bytes are there. */
#define VMCB_FIELDS(_f)						\
	_f(INTERCEPT_MISC1,	0x00c, 4)			\
	_f(INTERCEPT_MISC2,	0x010, 4)			\
	_f(IOPM_BASE_PA,	0x040, 8)			\
	_f(MSRPM_BASE_PA,	0x048, 8)			\
	_f(GUEST_ASID,		0x058, 4)			\
	_f(TLB_CONTROL,		0x05c, 1)			\
	_f(NP_CONTROL,		0x090, 8)			\
	_f(EVENTINJ,		0x0a8, 4)			\
	_f(N_CR3,		0x0b0, 8)			\
	_f(CS_ATTRIBUTES,	0x412, 2)			\
	_f(EFER,		0x4d0, 8)			\
	_f(CR4,			0x548, 8)			\
	_f(CR3,			0x550, 8)			\
	_f(CR0,			0x558, 8)			\
	_f(DR7,			0x560, 8)			\
	_f(DR6,			0x568, 8)			\
	_f(RFLAGS,		0x570, 8)			\
	_f(G_PAT,		0x668, 8)

enum vmcb_field {
#define _f(_name, _offset, _size)	_name,
	VMCB_FIELDS(_f)
#undef _f
	NR_FIELDS
};

static const struct {
	const char *name;
	uint16_t offset;
	uint8_t size;
} fields[] = {
#define _f(_name, _offset, _size)	{ #_name, _offset, _size },
	VMCB_FIELDS(_f)
#undef _f
};

#define CR0_PE		BIT_ULL(0)
#define CR0_WP		BIT_ULL(16)
#define CR0_NW		BIT_ULL(29)
#define CR0_CD		BIT_ULL(30)
#define CR0_PG		BIT_ULL(31)
#define CR4_PAE		BIT_ULL(5)
#define CR4_CET		BIT_ULL(23)
#define EFER_LME	BIT_ULL(8)
#define EFER_LMA	BIT_ULL(10)
#define EFER_SVME	BIT_ULL(12)
/* Of a segment's attributes as the VMCB has them. */
#define SEG_L		BIT(9)
#define SEG_D		BIT(10)

#define EVENT_VALID	BIT(31)
#define EVENT_TYPE(_event)	((_event) >> 8 & 7)
enum { EVENT_INTR = 0, EVENT_NMI = 2, EVENT_EXCEPTION = 3, EVENT_SOFT = 4 };

#define VMRUN_INTERCEPT	BIT(0)
#define NP_ENABLE	BIT_ULL(0)
/* A bit for each value of TLB_CONTROL. */
#define TLB_CONTROLS	(BIT(0) | BIT(1) | BIT(3) | BIT(7))
/* Bytes of the two permission maps. */
#define IOPM_SIZE	0x3000
#define MSRPM_SIZE	0x2000

static uint64_t get(const struct explain *x, enum vmcb_field field)
{
	return load64(x->entry->vmcb + fields[field].offset) & len_mask(fields[field].size);
}

/* @nr fields of those that follow @rule are involved in it. */
static void broken(struct explain *x, const char *rule, int nr, const enum vmcb_field *involved)
{
	struct finding f = { .nr = nr };
	int i;

	snprintf(f.rule, sizeof(f.rule), "%s", rule);
	for (i = 0; i < nr; i++) {
		f.field[i].name = fields[involved[i]].name;
		f.field[i].value = get(x, involved[i]);
	}
	explain_add(x, &f);
}

/* RULE(x, holds, rule, field...): the field at fault first. */
#define RULE(_x, _holds, _rule, ...) do {						\
	static const enum vmcb_field _involved[] = { __VA_ARGS__ };			\
											\
	_Static_assert(ARRAY_SIZE(_involved) <= EXPLAIN_FIELDS, "too many fields");	\
	if (!(_holds))									\
		broken(_x, _rule, ARRAY_SIZE(_involved), _involved);			\
} while (0)

static void check_state(struct explain *x)
{
	uint64_t efer = get(x, EFER), cr0 = get(x, CR0), cr4 = get(x, CR4);
	bool long_mode = (efer & EFER_LME) && (cr0 & CR0_PG);
	uint32_t cs = get(x, CS_ATTRIBUTES);

	x->section = "Canonicalization and Consistency Checks";
	RULE(x, efer & EFER_SVME, "EFER.SVME must be 1", EFER);
	RULE(x, (cr0 & CR0_CD) || !(cr0 & CR0_NW), "CR0.NW must be 0 when CR0.CD is", CR0);
	RULE(x, !(cr0 >> 32), "CR0[63:32] must be 0", CR0);
	RULE(x, !(get(x, CR3) & beyond_phys(x)),
	     "CR3 must not reach beyond the physical address space", CR3);
	RULE(x, !x->entry->caps[2] || !(cr4 & ~x->entry->caps[2]),
	     "CR4 must have no bits that this processor lacks", CR4);
	RULE(x, !(get(x, DR6) >> 32), "DR6[63:32] must be 0", DR6);
	RULE(x, !(get(x, DR7) >> 32), "DR7[63:32] must be 0", DR7);
	RULE(x, !x->entry->caps[1] || !(efer & ~x->entry->caps[1]),
	     "EFER must have no bits that this processor lacks", EFER);
	RULE(x, !long_mode || (cr4 & CR4_PAE),
	     "CR4.PAE must be 1 when EFER.LME and CR0.PG are", CR4, EFER, CR0);
	RULE(x, !long_mode || (cr0 & CR0_PE),
	     "CR0.PE must be 1 when EFER.LME and CR0.PG are", CR0, EFER);
	RULE(x, !long_mode || !(cr4 & CR4_PAE) || (cs & (SEG_L | SEG_D)) != (SEG_L | SEG_D),
	     "CS.L and CS.D must not both be 1 in long mode", CS_ATTRIBUTES, EFER);
	RULE(x, !(cr4 & CR4_CET) || (cr0 & CR0_WP), "CR0.WP must be 1 when CR4.CET is", CR0, CR4);
}

/* Begin and end of a permission map. */
static bool map_ok(const struct explain *x, enum vmcb_field field, uint64_t size)
{
	uint64_t base = get(x, field);

	return !((base | (base + size - 1)) & beyond_phys(x));
}

static void check_controls(struct explain *x)
{
	uint32_t asids = x->entry->caps[0];

	x->section = "Canonicalization and Consistency Checks";
	RULE(x, get(x, INTERCEPT_MISC2) & VMRUN_INTERCEPT, "VMRUN must be intercepted",
	     INTERCEPT_MISC2);
	RULE(x, map_ok(x, MSRPM_BASE_PA, MSRPM_SIZE),
	     "the MSR permission map must lie in the physical address space", MSRPM_BASE_PA);
	RULE(x, map_ok(x, IOPM_BASE_PA, IOPM_SIZE),
	     "the I/O permission map must lie in the physical address space", IOPM_BASE_PA);
	RULE(x, get(x, GUEST_ASID), "the ASID must not be 0, which is the host's", GUEST_ASID);
	RULE(x, !asids || get(x, GUEST_ASID) < asids,
	     "the ASID must be one that this processor has", GUEST_ASID);
	x->section = "TLB Control";
	RULE(x, get(x, TLB_CONTROL) <= 7 && (TLB_CONTROLS & BIT(get(x, TLB_CONTROL))),
	     "TLB_CONTROL must be 0, 1, 3 or 7", TLB_CONTROL);
}

static void check_event(struct explain *x)
{
	uint32_t event = get(x, EVENTINJ), type = EVENT_TYPE(event), vector = event & 0xff;

	if (!(event & EVENT_VALID))
		return;
	x->section = "Event Injection";
	RULE(x, type == EVENT_INTR || (type >= EVENT_NMI && type <= EVENT_SOFT),
	     "the type of an injected event must not be reserved", EVENTINJ);
	RULE(x, type != EVENT_EXCEPTION || (vector <= 31 && vector != 2),
	     "an injected exception must have an exception's vector", EVENTINJ);
}

static void check_nested_paging(struct explain *x)
{
	if (!(get(x, NP_CONTROL) & NP_ENABLE))
		return;
	x->section = "Nested Paging and VMRUN/#VMEXIT";
	RULE(x, !(get(x, N_CR3) & beyond_phys(x)),
	     "nCR3 must not reach beyond the physical address space", N_CR3);
	RULE(x, valid_pat(get(x, G_PAT)), "G_PAT must hold memory types only", G_PAT);
}

void explain_svm(struct explain *x)
{
	x->manual = "AMD64 APM volume 2";
	check_state(x);
	check_controls(x);
	check_event(x);
	check_nested_paging(x);
}
