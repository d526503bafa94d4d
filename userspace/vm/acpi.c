// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * RSDP, XSDT, FADT, FACS, MADT and MCFG, after the "ACPI Software Programming
 * Model" of the ACPI Specification 6.3 and the PCI Firmware Specification. What
 * is a program, the DSDT, is in dsdt.asl and compiled at build time.
 */
#include <errno.h>
#include <string.h>

#include "../dev/pci.h"
#include "../dev/pm.h"
#include "../dev/rtc.h"
#include "../util/util.h"
#include "acpi.h"
#include "dsdt.h"

#define PACKED			__attribute__((packed))
#define OEM_ID			"FONDA "
#define OEM_TABLE_ID		"FONDAPC "
#define CREATOR_ID		"FOND"
#define OEM_REVISION		1

#define LAPIC_ADDRESS		0xfee00000
#define IOAPIC_ADDRESS		0xfec00000

struct acpi_header {
	char signature[4];
	uint32_t length;
	uint8_t revision;
	uint8_t checksum;
	char oem_id[6];
	char oem_table_id[8];
	uint32_t oem_revision;
	char creator_id[4];
	uint32_t creator_revision;
} PACKED;

struct acpi_rsdp {
	char signature[8];
	uint8_t checksum;		/* of the first 20 bytes */
	char oem_id[6];
	uint8_t revision;
	uint32_t rsdt;
	uint32_t length;
	uint64_t xsdt;
	uint8_t extended_checksum;
	uint8_t reserved[3];
} PACKED;

struct acpi_gas {			/* Generic Address Structure */
	uint8_t space;
	uint8_t bits;
	uint8_t bit_offset;
	uint8_t access;
	uint64_t address;
} PACKED;

#define GAS_IO			1
#define IO_REGISTER(_port, _bytes) \
	{ .space = GAS_IO, .bits = 8 * (_bytes), .access = (_bytes) > 2 ? 3 : (_bytes), \
	  .address = (_port) }

struct acpi_fadt {
	struct acpi_header header;
	uint32_t facs;
	uint32_t dsdt;
	uint8_t reserved0;
	uint8_t profile;
	uint16_t sci_irq;
	uint32_t smi_command;
	uint8_t acpi_enable, acpi_disable, s4bios, pstate_control;
	uint32_t pm1a_event, pm1b_event, pm1a_control, pm1b_control;
	uint32_t pm2_control, pm_timer, gpe0, gpe1;
	uint8_t pm1_event_len, pm1_control_len, pm2_control_len, pm_timer_len;
	uint8_t gpe0_len, gpe1_len, gpe1_base, cstate_control;
	uint16_t c2_latency, c3_latency, flush_size, flush_stride;
	uint8_t duty_offset, duty_width, day_alarm, month_alarm, century;
	uint16_t boot_flags;
	uint8_t reserved1;
	uint32_t flags;
	struct acpi_gas reset_register;
	uint8_t reset_value;
	uint16_t arm_boot_flags;
	uint8_t minor;
	uint64_t x_facs, x_dsdt;
	struct acpi_gas x_pm1a_event, x_pm1b_event, x_pm1a_control, x_pm1b_control;
	struct acpi_gas x_pm2_control, x_pm_timer, x_gpe0, x_gpe1;
	struct acpi_gas sleep_control, sleep_status;
	uint64_t hypervisor;
} PACKED;

#define PROFILE_DESKTOP		1
#define BOOT_LEGACY_DEVICES	BIT(0)
#define BOOT_NO_VGA		BIT(2)
#define BOOT_NO_ASPM		BIT(4)
#define FADT_WBINVD		BIT(0)
#define FADT_PROC_C1		BIT(2)
#define FADT_NO_SLEEP_BUTTON	BIT(5)
#define FADT_TIMER_32_BITS	BIT(8)
#define FADT_RESET_REGISTER	BIT(10)
#define NO_CSTATE		0xffff	/* latencies beyond any use */

struct acpi_facs {
	char signature[4];
	uint32_t length;
	uint32_t hardware_signature;
	uint32_t waking_vector;
	uint32_t global_lock;
	uint32_t flags;
	uint64_t x_waking_vector;
	uint8_t version;
	uint8_t reserved[31];
} PACKED;

struct acpi_madt {
	struct acpi_header header;
	uint32_t lapic_address;
	uint32_t flags;
} PACKED;

#define MADT_PCAT_COMPAT	BIT(0)	/* there is a PIC as well */

struct madt_lapic {
	uint8_t type, length;
	uint8_t processor, apic_id;
	uint32_t flags;
} PACKED;

struct madt_ioapic {
	uint8_t type, length;
	uint8_t id, reserved;
	uint32_t address;
	uint32_t gsi_base;
} PACKED;

struct madt_override {
	uint8_t type, length;
	uint8_t bus, source;
	uint32_t gsi;
	uint16_t flags;
} PACKED;

struct madt_nmi {
	uint8_t type, length;
	uint8_t processor;
	uint16_t flags;
	uint8_t lint;
} PACKED;

enum { MADT_LAPIC = 0, MADT_IOAPIC = 1, MADT_OVERRIDE = 2, MADT_LAPIC_NMI = 4 };

#define LAPIC_ENABLED		BIT(0)
#define ALL_PROCESSORS		0xff
#define LEVEL_HIGH		0x000d
#define LEVEL_LOW		0x000f

struct acpi_mcfg {
	struct acpi_header header;
	uint64_t reserved;
	uint64_t base;
	uint16_t segment;
	uint8_t first_bus, last_bus;
	uint32_t reserved1;
} PACKED;

#define MAX_TABLES		4	/* that the XSDT lists */

struct acpi_xsdt {
	struct acpi_header header;
	uint64_t tables[MAX_TABLES];
} PACKED;

/* Where the next table goes. */
struct builder {
	uint8_t *buf;
	size_t size, used;
	uint64_t gpa;
	struct acpi_xsdt xsdt;
	unsigned int nr_tables;
};

static uint8_t checksum(const void *data, size_t len)
{
	const uint8_t *p = data;
	uint8_t sum = 0;

	while (len--)
		sum += *p++;
	return (uint8_t)-sum;
}

/* Space for @len bytes; the FACS wants 64 bytes of alignment. NULL if full. */
static void *reserve(struct builder *b, size_t len, uint64_t *gpa)
{
	size_t at = align_up(b->used, 64);

	if (at > b->size || len > b->size - at)
		return NULL;
	b->used = at + len;
	*gpa = b->gpa + at;
	return memset(b->buf + at, 0, len);
}

static void init_header(struct acpi_header *h, const char *signature,
			uint8_t revision, size_t len)
{
	memcpy(h->signature, signature, sizeof(h->signature));
	h->length = (uint32_t)len;
	h->revision = revision;
	memcpy(h->oem_id, OEM_ID, sizeof(h->oem_id));
	memcpy(h->oem_table_id, OEM_TABLE_ID, sizeof(h->oem_table_id));
	h->oem_revision = OEM_REVISION;
	memcpy(h->creator_id, CREATOR_ID, sizeof(h->creator_id));
	h->creator_revision = OEM_REVISION;
}

/* The table at @h is complete: checksum it, and list it in the XSDT. */
static void finish(struct builder *b, struct acpi_header *h, uint64_t gpa)
{
	h->checksum = 0;
	h->checksum = checksum(h, h->length);
	if (b->nr_tables < MAX_TABLES)
		b->xsdt.tables[b->nr_tables++] = gpa;
}

static int build_fadt(struct builder *b)
{
	struct acpi_fadt *fadt;
	struct acpi_facs *facs;
	uint64_t facs_gpa = 0, dsdt_gpa = 0, gpa;
	uint8_t *dsdt;

	facs = reserve(b, sizeof(*facs), &facs_gpa);
	dsdt = reserve(b, sizeof(dsdt_aml_code), &dsdt_gpa);
	fadt = reserve(b, sizeof(*fadt), &gpa);
	if (!facs || !dsdt || !fadt)
		return -ENOSPC;
	memcpy(facs->signature, "FACS", sizeof(facs->signature));
	facs->length = sizeof(*facs);
	facs->version = 2;
	memcpy(dsdt, dsdt_aml_code, sizeof(dsdt_aml_code));

	*fadt = (struct acpi_fadt){
		.facs = (uint32_t)facs_gpa,
		.dsdt = (uint32_t)dsdt_gpa,
		.profile = PROFILE_DESKTOP,
		.sci_irq = PM_SCI_IRQ,
		.pm1a_event = PM1_EVENT_PORT,
		.pm1a_control = PM1_CONTROL_PORT,
		.pm_timer = PM_TIMER_PORT,
		.pm1_event_len = PM1_EVENT_LEN,
		.pm1_control_len = PM1_CONTROL_LEN,
		.pm_timer_len = PM_TIMER_LEN,
		.c2_latency = NO_CSTATE,
		.c3_latency = NO_CSTATE,
		.century = RTC_CENTURY,
		.boot_flags = BOOT_LEGACY_DEVICES | BOOT_NO_VGA | BOOT_NO_ASPM,
		.flags = FADT_WBINVD | FADT_PROC_C1 | FADT_NO_SLEEP_BUTTON |
			 FADT_TIMER_32_BITS | FADT_RESET_REGISTER,
		.reset_register = IO_REGISTER(RESET_PORT, 1),
		.reset_value = RESET_VALUE,
		.minor = 3,
		.x_dsdt = dsdt_gpa,
		.x_pm1a_event = IO_REGISTER(PM1_EVENT_PORT, PM1_EVENT_LEN),
		.x_pm1a_control = IO_REGISTER(PM1_CONTROL_PORT, PM1_CONTROL_LEN),
		.x_pm_timer = IO_REGISTER(PM_TIMER_PORT, PM_TIMER_LEN),
	};
	init_header(&fadt->header, "FACP", 6, sizeof(*fadt));
	memcpy(&fadt->hypervisor, "fonda\0\0", sizeof(fadt->hypervisor));
	finish(b, &fadt->header, gpa);
	return 0;
}

/*
 * Interrupts whose trigger is not the ISA bus's: the SCI and PCI's. The timer
 * needs none: the kernel's default routing wires it to pin 0, where PCs wire
 * their PIC, and not to pin 2.
 */
static const struct madt_override overrides[] = {
	{ MADT_OVERRIDE, sizeof(struct madt_override), 0, PM_SCI_IRQ, PM_SCI_IRQ, LEVEL_HIGH },
	{ MADT_OVERRIDE, sizeof(struct madt_override), 0, 5, 5, LEVEL_LOW },
	{ MADT_OVERRIDE, sizeof(struct madt_override), 0, 6, 6, LEVEL_LOW },
	{ MADT_OVERRIDE, sizeof(struct madt_override), 0, 10, 10, LEVEL_LOW },
	{ MADT_OVERRIDE, sizeof(struct madt_override), 0, 11, 11, LEVEL_LOW },
};

static int build_madt(struct builder *b, unsigned int cpus)
{
	size_t len = sizeof(struct acpi_madt) + cpus * sizeof(struct madt_lapic) +
		     sizeof(struct madt_ioapic) + sizeof(overrides) +
		     sizeof(struct madt_nmi);
	struct madt_ioapic ioapic = {
		.type = MADT_IOAPIC, .length = sizeof(ioapic), .id = 0,
		.address = IOAPIC_ADDRESS,
	};
	struct madt_nmi nmi = {
		.type = MADT_LAPIC_NMI, .length = sizeof(nmi),
		.processor = ALL_PROCESSORS, .lint = 1,
	};
	struct acpi_madt *madt;
	struct madt_lapic lapic;
	unsigned int i;
	uint64_t gpa;
	uint8_t *p;

	madt = reserve(b, len, &gpa);
	if (!madt)
		return -ENOSPC;
	init_header(&madt->header, "APIC", 5, len);
	madt->lapic_address = LAPIC_ADDRESS;
	madt->flags = MADT_PCAT_COMPAT;
	p = (uint8_t *)(madt + 1);
	for (i = 0; i < cpus; i++) {
		lapic = (struct madt_lapic){
			.type = MADT_LAPIC, .length = sizeof(lapic),
			.processor = (uint8_t)i, .apic_id = (uint8_t)i,
			.flags = LAPIC_ENABLED,
		};
		p = (uint8_t *)memcpy(p, &lapic, sizeof(lapic)) + sizeof(lapic);
	}
	p = (uint8_t *)memcpy(p, &ioapic, sizeof(ioapic)) + sizeof(ioapic);
	p = (uint8_t *)memcpy(p, overrides, sizeof(overrides)) + sizeof(overrides);
	memcpy(p, &nmi, sizeof(nmi));
	finish(b, &madt->header, gpa);
	return 0;
}

static int build_mcfg(struct builder *b)
{
	struct acpi_mcfg *mcfg;
	uint64_t gpa;

	mcfg = reserve(b, sizeof(*mcfg), &gpa);
	if (!mcfg)
		return -ENOSPC;
	init_header(&mcfg->header, "MCFG", 1, sizeof(*mcfg));
	mcfg->base = PCI_ECAM_BASE;
	finish(b, &mcfg->header, gpa);
	return 0;
}

static int build_root(struct builder *b, struct acpi_rsdp *rsdp)
{
	size_t len = sizeof(struct acpi_header) + b->nr_tables * sizeof(uint64_t);
	struct acpi_xsdt *xsdt;
	uint64_t gpa;

	init_header(&b->xsdt.header, "XSDT", 1, len);
	b->xsdt.header.checksum = checksum(&b->xsdt, len);
	xsdt = reserve(b, len, &gpa);
	if (!xsdt)
		return -ENOSPC;
	memcpy(xsdt, &b->xsdt, len);

	memcpy(rsdp->signature, "RSD PTR ", sizeof(rsdp->signature));
	memcpy(rsdp->oem_id, OEM_ID, sizeof(rsdp->oem_id));
	rsdp->revision = 2;
	rsdp->length = sizeof(*rsdp);
	rsdp->xsdt = gpa;
	rsdp->checksum = checksum(rsdp, 20);
	rsdp->extended_checksum = checksum(rsdp, sizeof(*rsdp));
	return 0;
}

int acpi_build(uint8_t *buf, size_t size, uint64_t gpa, unsigned int cpus,
	       uint64_t *rsdp)
{
	struct builder b = { .buf = buf, .size = size, .gpa = gpa };
	/* First, so that a search of the BIOS area finds it at once. */
	struct acpi_rsdp *root = reserve(&b, sizeof(*root), rsdp);
	int ret;

	if (!root)
		return -ENOSPC;
	ret = build_fadt(&b);
	if (!ret)
		ret = build_madt(&b, cpus);
	if (!ret)
		ret = build_mcfg(&b);
	if (!ret)
		ret = build_root(&b, root);
	return ret;
}
