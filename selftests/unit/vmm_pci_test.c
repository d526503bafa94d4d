// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * PCI configuration by ports and by ECAM, BARs, MSI-X, interrupt pins, and the
 * registers of virtio-pci, driven as a guest drives them: through the bus.
 */
#include <linux/virtio_pci.h>
#include <string.h>

#include "tap.h"
#include "dev/virtio_pci.h"
#include "rng.h"
#include "vmm_driver.h"
#include "vmm_fake.h"

#define SLOT		1
#define NR_QUEUES	2
#define VECTORS		(NR_QUEUES + 1)

struct card {
	struct virtio_dev vdev;
	struct virtio_pci pci;
	unsigned int kicks;
};

static struct ram ram;
static struct loop loop;
static struct bus bus;
static struct pci_bus pci;
static struct kvm kvm = { .vm_fd = -1, .ioeventfd = true };
static struct card cards[4];
static const uint8_t config[6] = { 1, 2, 3, 4, 5, 6 };

static void card_kick(struct virtio_dev *vdev, struct virtq *vq)
{
	container_of(vdev, struct card, vdev)->kicks++;
}

static const struct virtio_ops card_ops = {
	.name = "card", .id = 42, .class = 0x00ff00, .kick = card_kick,
};

static void start(unsigned int nr_cards)
{
	unsigned int i;

	ASSERT_EQ(ram_init(&ram, 32 * MIB), 0);
	ASSERT_EQ(loop_init(&loop), 0);
	bus_init(&bus);
	ASSERT_EQ(pci_init(&pci, &bus, &kvm), 0);
	for (i = 0; i < nr_cards; i++) {
		cards[i].vdev.dev.name = "card";
		cards[i].vdev.config = config;
		cards[i].vdev.config_len = sizeof(config);
		ASSERT_EQ(virtio_init(&cards[i].vdev, &card_ops, NR_QUEUES, 0, &ram, &loop), 0);
		ASSERT_EQ(virtio_pci_init(&cards[i].pci, &cards[i].vdev, &pci), 0);
	}
}

static uint64_t in(uint64_t port, unsigned int len)
{
	uint64_t value = 0;

	bus_access(&bus.pio, port, &value, len, false);
	return value;
}

static void out(uint64_t port, unsigned int len, uint64_t value)
{
	bus_access(&bus.pio, port, &value, len, true);
}

static uint64_t rd(uint64_t gpa, unsigned int len)
{
	uint64_t value = 0;

	bus_access(&bus.mmio, gpa, &value, len, false);
	return value;
}

static void wr(uint64_t gpa, unsigned int len, uint64_t value)
{
	bus_access(&bus.mmio, gpa, &value, len, true);
}

static uint32_t cfg(unsigned int slot, unsigned int offset, unsigned int len)
{
	return (uint32_t)rd(PCI_ECAM_BASE + (slot << 15) + offset, len);
}

static void set_cfg(unsigned int slot, unsigned int offset, unsigned int len, uint32_t value)
{
	wr(PCI_ECAM_BASE + (slot << 15) + offset, len, value);
}

static uint64_t bar(unsigned int slot)
{
	return cfg(slot, PCI_BASE_ADDRESS_0, 4) & ~0xfULL;
}

/* The capability @id; of vendor type @type if that is not 0. */
static unsigned int find_cap(unsigned int slot, uint8_t id, uint8_t type)
{
	unsigned int at, n = 0;

	for (at = cfg(slot, PCI_CAPABILITY_LIST, 1); at; at = cfg(slot, at + 1, 1)) {
		if (n++ > 16 || at < 64)
			FAIL("the list of capabilities is broken");
		if (cfg(slot, at, 1) == id && (!type || cfg(slot, at + 3, 1) == type))
			return at;
	}
	return 0;
}

static void enable_msix(unsigned int slot, bool mask_all)
{
	set_cfg(slot, find_cap(slot, PCI_CAP_ID_MSIX, 0) + PCI_MSIX_FLAGS, 2,
		PCI_MSIX_FLAGS_ENABLE | (mask_all ? PCI_MSIX_FLAGS_MASKALL : 0));
}

static uint64_t msix_table(unsigned int slot)
{
	return bar(slot) + cfg(slot, find_cap(slot, PCI_CAP_ID_MSIX, 0) + PCI_MSIX_TABLE, 4);
}

static void set_vector(unsigned int slot, unsigned int vector, uint32_t data, uint32_t control)
{
	uint64_t entry = msix_table(slot) + 16 * vector;

	wr(entry, 4, 0xfee01000);
	wr(entry + 4, 4, 0);
	wr(entry + 8, 4, data);
	wr(entry + 12, 4, control);
}

TEST(ports_and_ecam_show_the_same_configuration)
{
	unsigned int slot, at;

	start(2);
	for (slot = 0; slot < PCI_SLOTS; slot++) {
		for (at = 0; at < 256; at += 4) {
			out(0xcf8, 4, 0x80000000 | slot << 11 | at);
			ASSERT_EQ(in(0xcf8, 4), 0x80000000 | slot << 11 | at);
			ASSERT_EQ(in(0xcfc, 4), cfg(slot, at, 4));
			ASSERT_EQ(in(0xcfe, 2), cfg(slot, at + 2, 2));
			ASSERT_EQ(in(0xcff, 1), cfg(slot, at + 3, 1));
		}
	}
	EXPECT_EQ(cfg(0, 0, 4), 0x00081b36);
	EXPECT_EQ(cfg(1, 0, 4), 0x106a1af4);
	EXPECT_EQ(cfg(3, 0, 4), 0xffffffff);
	EXPECT_EQ(cfg(1, 0x100, 4), 0);		/* no extended capability */
}

TEST(addresses_that_select_nothing_read_as_ones)
{
	start(1);
	out(0xcf8, 4, SLOT << 11);		/* not enabled */
	EXPECT_EQ(in(0xcfc, 4), 0xffffffff);
	out(0xcf8, 4, 0x80010000 | SLOT << 11);	/* bus 1 */
	EXPECT_EQ(in(0xcfc, 4), 0xffffffff);
	out(0xcf8, 4, 0x80000100 | SLOT << 11);	/* function 1 */
	EXPECT_EQ(in(0xcfc, 4), 0xffffffff);
	out(0xcf8, 4, 0x80000000 | SLOT << 11);
	EXPECT_EQ(in(0xcfc, 4), 0x106a1af4);
	EXPECT_EQ(in(0xcfe, 4) & 0xffff, 0xffff);	/* leaves the dword */
	out(0xcf9, 1, 0);			/* not the address register */
	EXPECT_EQ(in(0xcfc, 4), 0x106a1af4);
	EXPECT_EQ(rd(PCI_ECAM_BASE + (SLOT << 15) + 0x1000, 4), 0xffffffff);
}

TEST(only_the_writable_bits_change)
{
	uint8_t before[256];
	unsigned int at;

	start(1);
	for (at = 0; at < 256; at++)
		before[at] = (uint8_t)cfg(SLOT, at, 1);
	for (at = 0; at < 256; at++)
		if (at < PCI_BASE_ADDRESS_0 || at >= PCI_BASE_ADDRESS_0 + 4)
			set_cfg(SLOT, at, 1, (uint8_t)~before[at]);
	EXPECT_EQ(cfg(SLOT, PCI_VENDOR_ID, 4), 0x106a1af4);
	EXPECT_EQ(cfg(SLOT, PCI_COMMAND, 2), PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE);
	EXPECT_EQ(cfg(SLOT, PCI_STATUS, 2), PCI_STATUS_CAP_LIST);
	EXPECT_EQ(cfg(SLOT, PCI_CLASS_REVISION, 4), 0x00ff0001);
	EXPECT_EQ(cfg(SLOT, PCI_BASE_ADDRESS_1, 4), 0);
	EXPECT_EQ(cfg(SLOT, PCI_ROM_ADDRESS, 4), 0);
	EXPECT_EQ(cfg(SLOT, PCI_INTERRUPT_PIN, 1), 1);
}

TEST(bar_tells_its_size_and_moves)
{
	uint64_t base, to = PCI_WINDOW_BASE + 0x100000;

	start(1);
	base = bar(SLOT);
	EXPECT_EQ(base % 0x8000, 0);
	EXPECT_EQ(rd(base + 18, 2), NR_QUEUES);
	EXPECT_EQ(fake.notifiers, NR_QUEUES);

	set_cfg(SLOT, PCI_BASE_ADDRESS_0, 4, 0xffffffff);
	EXPECT_EQ(cfg(SLOT, PCI_BASE_ADDRESS_0, 4), 0xffff8000);
	EXPECT_EQ(rd(base + 18, 2), 0xffff);
	EXPECT_EQ(fake.notifiers, 0);

	set_cfg(SLOT, PCI_BASE_ADDRESS_0, 4, (uint32_t)to);
	EXPECT_EQ(rd(to + 18, 2), NR_QUEUES);
	EXPECT_EQ(fake.notifiers, NR_QUEUES);
	EXPECT_GE(fake.notifier_gpa[0], to);

	set_cfg(SLOT, PCI_COMMAND, 2, 0);
	EXPECT_EQ(rd(to + 18, 2), 0xffff);
	EXPECT_EQ(fake.notifiers, 0);
	set_cfg(SLOT, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	EXPECT_EQ(rd(to + 18, 2), NR_QUEUES);

	/* Over RAM or another device's window there is nothing to see. */
	set_cfg(SLOT, PCI_BASE_ADDRESS_0, 4, 0x100000);
	EXPECT_EQ(rd(0x100000 + 18, 2), 0xffff);
	set_cfg(SLOT, PCI_BASE_ADDRESS_0, 4, 0xfee00000);
	EXPECT_EQ(rd(0xfee00000 + 18, 2), 0xffff);
}

TEST(msix_sends_what_the_table_says)
{
	start(1);
	set_vector(SLOT, 1, 0x4041, 0);
	pci_msix_notify(&cards[0].pci.pci, 1);
	EXPECT_EQ(fake.msis, 0);		/* not enabled */
	enable_msix(SLOT, false);
	pci_msix_notify(&cards[0].pci.pci, 1);
	EXPECT_EQ(fake.msis, 1);
	EXPECT_EQ(fake.msi_address, 0xfee01000);
	EXPECT_EQ(fake.msi_data, 0x4041);
	pci_msix_notify(&cards[0].pci.pci, VECTORS);
	EXPECT_EQ(fake.msis, 1);
}

TEST(masked_vectors_wait_for_the_unmask)
{
	uint64_t pba;

	start(1);
	pba = bar(SLOT) + cfg(SLOT, find_cap(SLOT, PCI_CAP_ID_MSIX, 0) + PCI_MSIX_PBA, 4);
	enable_msix(SLOT, false);
	set_vector(SLOT, 1, 0x41, 1);
	set_vector(SLOT, 2, 0x42, 0);
	pci_msix_notify(&cards[0].pci.pci, 1);
	pci_msix_notify(&cards[0].pci.pci, 1);
	EXPECT_EQ(fake.msis, 0);
	EXPECT_EQ(rd(pba, 8), 2);
	wr(msix_table(SLOT) + 16 + 12, 4, 0);
	EXPECT_EQ(fake.msis, 1);
	EXPECT_EQ(fake.msi_data, 0x41);
	EXPECT_EQ(rd(pba, 8), 0);

	enable_msix(SLOT, true);		/* all of the function */
	pci_msix_notify(&cards[0].pci.pci, 2);
	EXPECT_EQ(fake.msis, 1);
	EXPECT_EQ(rd(pba, 4), 4);
	enable_msix(SLOT, false);
	EXPECT_EQ(fake.msis, 2);
	EXPECT_EQ(fake.msi_data, 0x42);
}

TEST(shared_pins_are_low_only_when_all_are)
{
	struct pci_dev *a, *b;
	unsigned int gsi;

	start(4);
	/* Slots 1 to 4 have different lines; a fifth would share. */
	a = &cards[0].pci.pci;
	b = &cards[1].pci.pci;
	b->slot = a->slot + PCI_NR_INTX;
	gsi = pci_slot_gsi(a->slot);
	EXPECT_EQ(pci_slot_gsi(b->slot), gsi);
	EXPECT_NE(pci_slot_gsi(2), gsi);
	pci_set_intx(a, true);
	pci_set_intx(b, true);
	EXPECT_TRUE(fake.level[gsi]);
	EXPECT_EQ(fake.raised[gsi], 1);
	pci_set_intx(a, false);
	EXPECT_TRUE(fake.level[gsi]);
	pci_set_intx(b, false);
	EXPECT_FALSE(fake.level[gsi]);
}

TEST(disabled_pin_is_silent_but_shows_in_the_status)
{
	unsigned int gsi = pci_slot_gsi(SLOT);

	start(1);
	set_cfg(SLOT, PCI_COMMAND, 2, PCI_COMMAND_INTX_DISABLE | PCI_COMMAND_MEMORY);
	pci_set_intx(&cards[0].pci.pci, true);
	EXPECT_FALSE(fake.level[gsi]);
	EXPECT_TRUE(cfg(SLOT, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT);
	set_cfg(SLOT, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	EXPECT_TRUE(fake.level[gsi]);
	pci_set_intx(&cards[0].pci.pci, false);
	EXPECT_FALSE(fake.level[gsi]);
}

TEST(virtio_capabilities_lead_to_the_registers)
{
	unsigned int cap;
	uint64_t base;

	start(1);
	base = bar(SLOT);
	cap = find_cap(SLOT, PCI_CAP_ID_VNDR, VIRTIO_PCI_CAP_DEVICE_CFG);
	ASSERT_TRUE(cap);
	EXPECT_EQ(cfg(SLOT, cap + VIRTIO_PCI_CAP_LENGTH, 4), sizeof(config));
	base += cfg(SLOT, cap + VIRTIO_PCI_CAP_OFFSET, 4);
	EXPECT_EQ(rd(base, 4), 0x04030201);
	EXPECT_EQ(rd(base + 4, 4), 0x0605);	/* nothing beyond its end */
	EXPECT_EQ(rd(base + 6, 1), 0);
	EXPECT_TRUE(find_cap(SLOT, PCI_CAP_ID_VNDR, VIRTIO_PCI_CAP_COMMON_CFG));
	EXPECT_TRUE(find_cap(SLOT, PCI_CAP_ID_VNDR, VIRTIO_PCI_CAP_ISR_CFG));
	cap = find_cap(SLOT, PCI_CAP_ID_VNDR, VIRTIO_PCI_CAP_NOTIFY_CFG);
	EXPECT_EQ(cfg(SLOT, cap + VIRTIO_PCI_NOTIFY_CAP_MULT, 4), 4);
}

TEST(device_starts_as_the_specification_says)
{
	uint64_t common, ring = DRIVER_RING;

	start(1);
	common = bar(SLOT);
	wr(common + VIRTIO_PCI_COMMON_STATUS, 1, 0);
	wr(common + VIRTIO_PCI_COMMON_STATUS, 1, 3);
	wr(common + VIRTIO_PCI_COMMON_DFSELECT, 4, 1);
	EXPECT_EQ(rd(common + VIRTIO_PCI_COMMON_DF, 4) & 1, 1);
	wr(common + VIRTIO_PCI_COMMON_DFSELECT, 4, 2);
	EXPECT_EQ(rd(common + VIRTIO_PCI_COMMON_DF, 4), 0);
	wr(common + VIRTIO_PCI_COMMON_GFSELECT, 4, 1);
	wr(common + VIRTIO_PCI_COMMON_GF, 4, 1);
	wr(common + VIRTIO_PCI_COMMON_STATUS, 1, 0xb);
	EXPECT_EQ(rd(common + VIRTIO_PCI_COMMON_STATUS, 1), 0xb);
	wr(common + VIRTIO_PCI_COMMON_GF, 4, 0);	/* too late */
	EXPECT_EQ(rd(common + VIRTIO_PCI_COMMON_GF, 4), 1);

	wr(common + VIRTIO_PCI_COMMON_Q_SELECT, 2, NR_QUEUES);
	EXPECT_EQ(rd(common + VIRTIO_PCI_COMMON_Q_SIZE, 2), 0);
	wr(common + VIRTIO_PCI_COMMON_Q_SELECT, 2, 1);
	EXPECT_EQ(rd(common + VIRTIO_PCI_COMMON_Q_SIZE, 2), VIRTQ_MAX_SIZE);
	wr(common + VIRTIO_PCI_COMMON_Q_SIZE, 2, 16);
	wr(common + VIRTIO_PCI_COMMON_Q_MSIX, 2, VECTORS);
	EXPECT_EQ(rd(common + VIRTIO_PCI_COMMON_Q_MSIX, 2), VIRTIO_NO_VECTOR);
	wr(common + VIRTIO_PCI_COMMON_Q_MSIX, 2, 2);
	EXPECT_EQ(rd(common + VIRTIO_PCI_COMMON_Q_MSIX, 2), 2);
	wr(common + VIRTIO_PCI_COMMON_Q_DESCLO, 4, ring);
	wr(common + VIRTIO_PCI_COMMON_Q_AVAILLO, 4, ring + 0x1000);
	wr(common + VIRTIO_PCI_COMMON_Q_USEDLO, 4, ring + 0x2000);
	wr(common + VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
	EXPECT_EQ(rd(common + VIRTIO_PCI_COMMON_Q_ENABLE, 2), 1);
	wr(common + VIRTIO_PCI_COMMON_Q_DESCLO, 4, 0x5000);	/* it runs */
	EXPECT_EQ(rd(common + VIRTIO_PCI_COMMON_Q_DESCLO, 4), ring);

	wr(common + VIRTIO_PCI_COMMON_STATUS, 1, 0);
	EXPECT_EQ(rd(common + VIRTIO_PCI_COMMON_STATUS, 1), 0);
	wr(common + VIRTIO_PCI_COMMON_Q_SELECT, 2, 1);
	EXPECT_EQ(rd(common + VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
	EXPECT_EQ(rd(common + VIRTIO_PCI_COMMON_Q_DESCLO, 4), 0);
	EXPECT_EQ(rd(common + VIRTIO_PCI_COMMON_Q_MSIX, 2), VIRTIO_NO_VECTOR);
}

TEST(interrupts_without_msix_use_the_pin_and_isr)
{
	unsigned int gsi = pci_slot_gsi(SLOT);
	struct virtio_dev *vdev = &cards[0].vdev;
	uint64_t isr;

	start(1);
	isr = bar(SLOT) + cfg(SLOT, find_cap(SLOT, PCI_CAP_ID_VNDR, VIRTIO_PCI_CAP_ISR_CFG) +
			      VIRTIO_PCI_CAP_OFFSET, 4);
	vdev->interrupt(vdev, &vdev->queues[0]);
	EXPECT_TRUE(fake.level[gsi]);
	EXPECT_EQ(rd(isr, 1), 1);
	EXPECT_FALSE(fake.level[gsi]);
	EXPECT_EQ(rd(isr, 1), 0);
	vdev->interrupt(vdev, NULL);
	EXPECT_EQ(rd(isr, 1), 3);
}

/* Virtio 1.2, "PCI configuration access capability". */
TEST(registers_can_be_reached_without_the_bar)
{
	unsigned int cap, data;

	start(1);
	cap = find_cap(SLOT, PCI_CAP_ID_VNDR, VIRTIO_PCI_CAP_PCI_CFG);
	data = cap + sizeof(struct virtio_pci_cap);
	set_cfg(SLOT, PCI_COMMAND, 2, 0);
	set_cfg(SLOT, cap + VIRTIO_PCI_CAP_BAR, 1, 0);
	set_cfg(SLOT, cap + VIRTIO_PCI_CAP_OFFSET, 4, VIRTIO_PCI_COMMON_NUMQ);
	set_cfg(SLOT, cap + VIRTIO_PCI_CAP_LENGTH, 4, 2);
	EXPECT_EQ(cfg(SLOT, data, 2), NR_QUEUES);
	set_cfg(SLOT, cap + VIRTIO_PCI_CAP_OFFSET, 4, VIRTIO_PCI_COMMON_STATUS);
	set_cfg(SLOT, cap + VIRTIO_PCI_CAP_LENGTH, 4, 1);
	set_cfg(SLOT, data, 1, 1);
	EXPECT_EQ(cards[0].vdev.status, 1);
	/* Beyond the BAR, or of an odd length: nothing happens. */
	set_cfg(SLOT, cap + VIRTIO_PCI_CAP_OFFSET, 4, 0xfffffffc);
	set_cfg(SLOT, data, 4, 0xff);
	set_cfg(SLOT, cap + VIRTIO_PCI_CAP_LENGTH, 4, 3);
	set_cfg(SLOT, data, 4, 0xff);
	EXPECT_EQ(cards[0].vdev.status, 1);
}

TEST_TIMEOUT(random_accesses_do_no_harm, 120)
{
	static const unsigned int lens[] = { 1, 2, 4, 8 };
	struct rng rng = { 0x70636920 };
	unsigned int i, len;
	uint64_t value;

	start(4);
	for (i = 0; i < 500000; i++) {
		len = lens[rng_below(&rng, 4)];
		value = rng_next(&rng) >> rng_below(&rng, 64);
		switch (rng_below(&rng, 5)) {
		case 0:
			out(0xcf8 + rng_below(&rng, 8), MIN(len, 4u), value);
			in(0xcf8 + rng_below(&rng, 8), MIN(len, 4u));
			break;
		case 1:
			set_cfg(rng_below(&rng, 5), rng_below(&rng, 300), len, (uint32_t)value);
			break;
		case 2:
			cfg(rng_below(&rng, 5), rng_below(&rng, 300), len);
			break;
		default:
			/* Put the BAR back now and then. */
			if (!rng_below(&rng, 50)) {
				set_cfg(SLOT, PCI_BASE_ADDRESS_0, 4, (uint32_t)PCI_WINDOW_BASE);
				set_cfg(SLOT, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
			}
			wr(PCI_WINDOW_BASE + rng_below(&rng, 0x8000), len, value);
			wr(PCI_WINDOW_BASE + rng_below(&rng, 0x40), len, value);
			rd(PCI_WINDOW_BASE + rng_below(&rng, 0x8000), len);
		}
	}
	tap_checked();
}

TEST(bus_full_of_cards_refuses_one_more)
{
	static struct card many[PCI_SLOTS];
	unsigned int i;

	start(0);
	for (i = 0; i < PCI_SLOTS; i++) {
		many[i].vdev.dev.name = "card";
		ASSERT_EQ(virtio_init(&many[i].vdev, &card_ops, 1, 0, &ram, &loop), 0);
		EXPECT_EQ(virtio_pci_init(&many[i].pci, &many[i].vdev, &pci),
			  i < PCI_SLOTS - 1 ? 0 : -ENOSPC);
	}
}
