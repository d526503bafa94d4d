// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * PCI configuration, BARs, MSI-X and interrupt pins, after the PCI Local Bus
 * Specification 3.0 and, for ECAM, the PCI Express Base Specification.
 */
#include <errno.h>
#include <string.h>

#include "../util/util.h"
#include "pci.h"

#define CONFIG_ENABLE		0x80000000U
#define ECAM_FUNCTION		0x1000
#define MSIX_ENTRY		sizeof(struct msix_entry)

/*
 * Lines that exist behind the PIC as well as behind the IOAPIC, so that one
 * _PRT serves guests with and without an APIC.
 */
static const uint8_t intx_gsis[PCI_NR_INTX] = { 5, 6, 10, 11 };

static const struct pci_id host_bridge_id = {
	.vendor = 0x1b36, .device = 0x0008, .subsystem = 0,
	.class = 0x060000, .revision = 0,
};

unsigned int pci_slot_gsi(unsigned int slot)
{
	return intx_gsis[slot % PCI_NR_INTX];
}

void pci_set_intx(struct pci_dev *dev, bool level)
{
	struct pci_bus *pci = dev->bus;
	uint32_t *slots = &pci->intx_slots[dev->slot % PCI_NR_INTX];
	uint16_t command = load16(dev->config + PCI_COMMAND);
	uint16_t status = load16(dev->config + PCI_STATUS);
	uint32_t before;

	status = level ? status | PCI_STATUS_INTERRUPT :
			 status & (uint16_t)~PCI_STATUS_INTERRUPT;
	store16(dev->config + PCI_STATUS, status);
	if (command & PCI_COMMAND_INTX_DISABLE)
		level = false;
	if (dev->intx_level == level)
		return;
	dev->intx_level = level;

	/* The line is shared: it is low only when nobody drives it. */
	pthread_mutex_lock(&pci->intx_lock);
	before = *slots;
	*slots = level ? before | BIT(dev->slot) : before & ~BIT(dev->slot);
	if (!before != !*slots)
		kvm_set_irq(pci->kvm, pci_slot_gsi(dev->slot), level);
	pthread_mutex_unlock(&pci->intx_lock);
}

static uint16_t msix_flags(const struct pci_dev *dev)
{
	return load16(dev->config + dev->msix_cap + PCI_MSIX_FLAGS);
}

bool pci_msix_enabled(const struct pci_dev *dev)
{
	return dev->msix_cap && (msix_flags(dev) & PCI_MSIX_FLAGS_ENABLE);
}

static bool masked(const struct pci_dev *dev, unsigned int vector)
{
	return (msix_flags(dev) & PCI_MSIX_FLAGS_MASKALL) ||
	       (dev->msix[vector].control & PCI_MSIX_ENTRY_CTRL_MASKBIT);
}

void pci_msix_notify(struct pci_dev *dev, unsigned int vector)
{
	if (!pci_msix_enabled(dev) || vector >= dev->nr_vectors)
		return;
	if (masked(dev, vector)) {
		dev->msix_pending |= BIT_ULL(vector);
		return;
	}
	dev->msix_pending &= ~BIT_ULL(vector);
	kvm_signal_msi(dev->bus->kvm, dev->msix[vector].address, dev->msix[vector].data);
}

/* After an unmask: what was held back goes out now. */
static void send_pending(struct pci_dev *dev)
{
	uint64_t pending = dev->msix_pending;
	unsigned int vector;

	for (vector = 0; pending; vector++, pending >>= 1)
		if ((pending & 1) && !masked(dev, vector))
			pci_msix_notify(dev, vector);
}

/* Entries are read and written in aligned dwords or qwords. */
uint64_t pci_msix_read(const struct pci_dev *dev, uint64_t offset, unsigned int len)
{
	uint64_t value = 0;

	if (offset % len == 0 && offset + len <= dev->nr_vectors * MSIX_ENTRY)
		memcpy(&value, (const uint8_t *)dev->msix + offset, len);
	return value;
}

void pci_msix_write(struct pci_dev *dev, uint64_t offset, unsigned int len,
		    uint64_t value)
{
	struct msix_entry *entry;

	if (len < 4 || offset % len || offset + len > dev->nr_vectors * MSIX_ENTRY)
		return;
	memcpy((uint8_t *)dev->msix + offset, &value, len);
	entry = &dev->msix[offset / MSIX_ENTRY];
	entry->control &= PCI_MSIX_ENTRY_CTRL_MASKBIT;
	send_pending(dev);
}

uint64_t pci_pba_read(const struct pci_dev *dev, uint64_t offset, unsigned int len)
{
	if (offset + len > sizeof(dev->msix_pending))
		return 0;
	return dev->msix_pending >> (8 * offset) & len_mask(len);
}

/* Moves the BAR's region to where the configuration says. */
static void update_bar(struct pci_dev *dev)
{
	uint64_t base = load32(dev->config + PCI_BASE_ADDRESS_0) & PCI_BASE_ADDRESS_MEM_MASK;
	bool mapped = load16(dev->config + PCI_COMMAND) & PCI_COMMAND_MEMORY;

	if (!dev->bar.size)
		return;
	/* Outside of the window: RAM, or ones from a guest that asks for the size. */
	if (base < PCI_WINDOW_BASE ||
	    base + dev->bar.size > PCI_WINDOW_BASE + PCI_WINDOW_SIZE)
		mapped = false;
	if (mapped == dev->bar_mapped && base == dev->bar.base)
		return;

	if (dev->bar_mapped) {
		if (dev->ops->bar_changed)
			dev->ops->bar_changed(dev, false);
		bus_unmap(&dev->bus->bus->mmio, &dev->bar);
	}
	dev->bar.base = base;
	dev->bar_mapped = mapped && !bus_map(&dev->bus->bus->mmio, &dev->bar);
	if (dev->bar_mapped && dev->ops->bar_changed)
		dev->ops->bar_changed(dev, true);
}

static bool overlaps(unsigned int offset, unsigned int len, unsigned int start,
		     unsigned int size)
{
	return offset < start + size && start < offset + len;
}

static void dev_config_write(struct pci_dev *dev, unsigned int offset,
			     unsigned int len, uint32_t value)
{
	unsigned int i;
	uint8_t mask;

	for (i = 0; i < len; i++, value >>= 8) {
		mask = dev->writable[offset + i];
		dev->config[offset + i] = (uint8_t)((dev->config[offset + i] & ~mask) |
						    (value & mask));
	}
	if (overlaps(offset, len, PCI_COMMAND, 2) ||
	    overlaps(offset, len, PCI_BASE_ADDRESS_0, 4))
		update_bar(dev);
	if (overlaps(offset, len, PCI_COMMAND, 2))
		pci_set_intx(dev, load16(dev->config + PCI_STATUS) & PCI_STATUS_INTERRUPT);
	if (dev->msix_cap && overlaps(offset, len, dev->msix_cap, PCI_CAP_MSIX_SIZEOF))
		send_pending(dev);
	if (dev->ops && dev->ops->config_written)
		dev->ops->config_written(dev, offset, len);
}

static struct pci_dev *lock_slot(struct pci_bus *pci, unsigned int slot)
{
	struct pci_dev *dev = slot < PCI_SLOTS ? pci->slots[slot] : NULL;

	if (dev && dev->dev != &pci->dev)
		pthread_mutex_lock(&dev->dev->lock);
	return dev;
}

static void unlock_slot(struct pci_bus *pci, struct pci_dev *dev)
{
	if (dev->dev != &pci->dev)
		pthread_mutex_unlock(&dev->dev->lock);
}

uint32_t pci_config_read(struct pci_bus *pci, unsigned int slot,
			 unsigned int offset, unsigned int len)
{
	struct pci_dev *dev = lock_slot(pci, slot);
	uint32_t value = 0;

	if (!dev)
		return (uint32_t)len_mask(len);
	/* Beyond the first 256 bytes there is nothing: no extended capability. */
	if (offset + len <= PCI_CONFIG_SIZE) {
		if (dev->ops && dev->ops->config_read)
			dev->ops->config_read(dev, offset, len);
		memcpy(&value, dev->config + offset, len);
	}
	unlock_slot(pci, dev);
	return value;
}

void pci_config_write(struct pci_bus *pci, unsigned int slot,
		      unsigned int offset, unsigned int len, uint32_t value)
{
	struct pci_dev *dev = lock_slot(pci, slot);

	if (!dev)
		return;
	if (offset + len <= PCI_CONFIG_SIZE)
		dev_config_write(dev, offset, len, value);
	unlock_slot(pci, dev);
}

/*
 * The slot and offset that port 0xcfc + @at means. False if the address does
 * not select bus 0, function 0, or the access leaves the dword.
 */
static bool decode_address(const struct pci_bus *pci, uint64_t at, unsigned int len,
			   unsigned int *slot, unsigned int *offset)
{
	*slot = pci->address >> 11 & 0x1f;
	*offset = (pci->address & 0xfc) + (unsigned int)at;
	return (pci->address & CONFIG_ENABLE) && !(pci->address & 0x00ff0700) &&
	       at + len <= 4;
}

static uint64_t ports_read(struct bus_region *r, uint64_t offset, unsigned int len)
{
	struct pci_bus *pci = container_of(r, struct pci_bus, ports);
	unsigned int slot, at;

	if (offset < 4)
		return offset + len <= 4 ?
			pci->address >> (8 * offset) & len_mask(len) : len_mask(len);
	if (!decode_address(pci, offset - 4, len, &slot, &at))
		return len_mask(len);
	return pci_config_read(pci, slot, at, len);
}

static void ports_write(struct bus_region *r, uint64_t offset, unsigned int len,
			uint64_t value)
{
	struct pci_bus *pci = container_of(r, struct pci_bus, ports);
	unsigned int slot, at;

	/* Only a dword write is the address; smaller ones are other devices'. */
	if (offset == 0 && len == 4)
		pci->address = (uint32_t)value & ~3U;
	else if (offset >= 4 && decode_address(pci, offset - 4, len, &slot, &at))
		pci_config_write(pci, slot, at, len, (uint32_t)value);
}

static uint64_t ecam_read(struct bus_region *r, uint64_t offset, unsigned int len)
{
	struct pci_bus *pci = container_of(r, struct pci_bus, ecam);

	if ((offset / ECAM_FUNCTION & 7) || len > 4 || offset % len)
		return len_mask(len);
	return pci_config_read(pci, (unsigned int)(offset >> 15),
			       offset % ECAM_FUNCTION, len);
}

static void ecam_write(struct bus_region *r, uint64_t offset, unsigned int len,
		       uint64_t value)
{
	struct pci_bus *pci = container_of(r, struct pci_bus, ecam);

	if ((offset / ECAM_FUNCTION & 7) || len > 4 || offset % len)
		return;
	pci_config_write(pci, (unsigned int)(offset >> 15),
			 offset % ECAM_FUNCTION, len, (uint32_t)value);
}

static const struct state_field dev_state[] = {
	STATE_FIELD(struct pci_dev, config),
	STATE_FIELD(struct pci_dev, msix),
	STATE_FIELD(struct pci_dev, msix_pending),
	STATE_FIELD(struct pci_dev, intx_level),
	{ }
};

int pci_add(struct pci_bus *pci, struct pci_dev *dev, const struct pci_id *id,
	    const struct pci_ops *ops)
{
	uint8_t *config = dev->config;
	unsigned int slot;

	for (slot = 0; slot < PCI_SLOTS && pci->slots[slot]; slot++)
		;
	if (slot == PCI_SLOTS)
		return -ENOSPC;

	store16(config + PCI_VENDOR_ID, id->vendor);
	store16(config + PCI_DEVICE_ID, id->device);
	store32(config + PCI_CLASS_REVISION, id->class << 8 | id->revision);
	store16(config + PCI_SUBSYSTEM_VENDOR_ID, id->vendor);
	store16(config + PCI_SUBSYSTEM_ID, id->subsystem);
	store16(dev->writable + PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER |
					     PCI_COMMAND_INTX_DISABLE);
	dev->writable[PCI_CACHE_LINE_SIZE] = 0xff;
	dev->writable[PCI_INTERRUPT_LINE] = 0xff;
	dev->next_cap = PCI_STD_HEADER_SIZEOF;
	dev->bus = pci;
	dev->slot = slot;
	dev->ops = ops;
	pci->slots[slot] = dev;
	device_add_state(dev->dev, &dev->state, "pci", dev, dev_state);
	return 0;
}

unsigned int pci_add_cap(struct pci_dev *dev, uint8_t id, unsigned int len)
{
	unsigned int cap = dev->next_cap;

	dev->config[cap] = id;
	dev->config[dev->last_cap ? dev->last_cap + PCI_CAP_LIST_NEXT :
				    PCI_CAPABILITY_LIST] = (uint8_t)cap;
	dev->config[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
	dev->last_cap = (uint8_t)cap;
	dev->next_cap = (uint8_t)align_up(cap + len, 4);
	return cap;
}

void pci_set_bar(struct pci_dev *dev, uint64_t size,
		 uint64_t (*read)(struct bus_region *, uint64_t, unsigned int),
		 void (*write)(struct bus_region *, uint64_t, unsigned int, uint64_t))
{
	struct pci_bus *pci = dev->bus;
	uint64_t base = align_up(pci->next_bar, size);

	dev->bar = (struct bus_region){
		.name = dev->dev->name, .size = size, .dev = dev->dev,
		.read = read, .write = write,
	};
	pci->next_bar = base + size;
	store32(dev->config + PCI_BASE_ADDRESS_0, (uint32_t)base);
	store32(dev->writable + PCI_BASE_ADDRESS_0, (uint32_t)~(size - 1));
	dev->config[PCI_INTERRUPT_PIN] = 1;
	dev->config[PCI_INTERRUPT_LINE] = (uint8_t)pci_slot_gsi(dev->slot);
	dev->config[PCI_COMMAND] |= PCI_COMMAND_MEMORY;
	update_bar(dev);
}

void pci_add_msix(struct pci_dev *dev, unsigned int vectors, uint32_t table,
		  uint32_t pba)
{
	unsigned int i, cap = pci_add_cap(dev, PCI_CAP_ID_MSIX, PCI_CAP_MSIX_SIZEOF);

	/* The low bits of the offsets say which BAR: 0. */
	store16(dev->config + cap + PCI_MSIX_FLAGS, (uint16_t)(vectors - 1));
	store16(dev->writable + cap + PCI_MSIX_FLAGS,
		PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
	store32(dev->config + cap + PCI_MSIX_TABLE, table);
	store32(dev->config + cap + PCI_MSIX_PBA, pba);
	dev->msix_cap = (uint8_t)cap;
	dev->nr_vectors = vectors;
	for (i = 0; i < vectors; i++)
		dev->msix[i].control = PCI_MSIX_ENTRY_CTRL_MASKBIT;
}

static const struct state_field pci_state[] = {
	STATE_FIELD(struct pci_bus, address),
	STATE_FIELD(struct pci_bus, intx_slots),
	{ }
};

int pci_init(struct pci_bus *pci, struct bus *bus, const struct kvm *kvm)
{
	int ret;

	memset(pci, 0, sizeof(*pci));
	pthread_mutex_init(&pci->intx_lock, NULL);
	pci->bus = bus;
	pci->kvm = kvm;
	pci->next_bar = PCI_WINDOW_BASE;
	pci->dev.name = "pci";
	device_add_state(&pci->dev, &pci->state, NULL, pci, pci_state);
	bus_add_device(bus, &pci->dev);
	pci->ports = (struct bus_region){
		.name = "pci-config", .base = PCI_CONFIG_PORT, .size = 8,
		.dev = &pci->dev, .read = ports_read, .write = ports_write,
	};
	pci->ecam = (struct bus_region){
		.name = "pci-ecam", .base = PCI_ECAM_BASE, .size = PCI_ECAM_SIZE,
		.dev = &pci->dev, .read = ecam_read, .write = ecam_write,
	};
	ret = bus_map(&bus->pio, &pci->ports);
	if (!ret)
		ret = bus_map(&bus->mmio, &pci->ecam);
	if (ret)
		return ret;
	pci->host_bridge.dev = &pci->dev;
	return pci_add(pci, &pci->host_bridge, &host_bridge_id, NULL);
}
