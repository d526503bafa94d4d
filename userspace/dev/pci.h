/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One PCI bus: configuration space by ports 0xcf8/0xcfc and by ECAM, BARs that
 * the guest may move, MSI-X, and one interrupt pin a device. The guest is
 * booted without firmware, so BARs and interrupt lines are assigned here.
 *
 * Locking: the bus has a device lock of its own, for what is common, and takes
 * the lock of the device whose configuration is accessed inside of it.
 */
#ifndef DEV_PCI_H
#define DEV_PCI_H

#include <linux/pci_regs.h>

#include "../util/kvm.h"
#include "bus.h"

/* Where the hole below 4 GiB goes; the DSDT and the memory map say the same. */
#define PCI_WINDOW_BASE		0xc0000000ULL
#define PCI_WINDOW_SIZE		0x20000000ULL
#define PCI_ECAM_BASE		0xe0000000ULL
#define PCI_ECAM_SIZE		0x00100000ULL	/* 4 KiB for each of 256 functions */

#define PCI_CONFIG_PORT		0xcf8
#define PCI_SLOTS		32
#define PCI_CONFIG_SIZE		256
#define PCI_MAX_VECTORS		64
#define PCI_NR_INTX		4

struct pci_bus;
struct pci_dev;

struct pci_ops {
	/* The BAR has moved, appeared or gone (@mapped); may be NULL. */
	void (*bar_changed)(struct pci_dev *pci, bool mapped);
	/* Before a read and after a write at @offset of config; may be NULL. */
	void (*config_read)(struct pci_dev *pci, unsigned int offset, unsigned int len);
	void (*config_written)(struct pci_dev *pci, unsigned int offset, unsigned int len);
};

struct msix_entry {
	uint64_t address;
	uint32_t data;
	uint32_t control;
};

struct pci_dev {
	struct device *dev;		/* the lock, the name */
	struct state state;
	const struct pci_ops *ops;
	struct pci_bus *bus;
	unsigned int slot;
	uint8_t config[PCI_CONFIG_SIZE];
	uint8_t writable[PCI_CONFIG_SIZE];	/* mask of the guest's bits */
	uint8_t next_cap;		/* where the next capability goes */
	uint8_t last_cap;		/* whose link is to be set */
	struct bus_region bar;		/* BAR 0: the only one, 32-bit memory */
	bool bar_mapped;
	uint8_t msix_cap;		/* offset in config, 0 without MSI-X */
	unsigned int nr_vectors;
	struct msix_entry msix[PCI_MAX_VECTORS];
	uint64_t msix_pending;		/* one bit a vector */
	uint8_t intx_level;
};

struct pci_bus {
	struct device dev;
	struct state state;
	struct bus *bus;
	const struct kvm *kvm;
	struct bus_region ports;
	struct bus_region ecam;
	uint32_t address;		/* of the next access by port 0xcfc */
	uint64_t next_bar;
	struct pci_dev *slots[PCI_SLOTS];
	struct pci_dev host_bridge;
	pthread_mutex_t intx_lock;	/* innermost; covers the next line */
	uint32_t intx_slots[PCI_NR_INTX];	/* who drives each shared line */
};

/* What identifies a device. */
struct pci_id {
	uint16_t vendor, device;
	uint16_t subsystem;
	uint32_t class;			/* 24 bits: base, sub, interface */
	uint8_t revision;
};

int pci_init(struct pci_bus *pci, struct bus *bus, const struct kvm *kvm);

/* Puts @dev into the next free slot. @dev->dev is set. -ENOSPC if there is none. */
int pci_add(struct pci_bus *pci, struct pci_dev *dev, const struct pci_id *id,
	    const struct pci_ops *ops);

/*
 * Reserves a capability of @len bytes, header included, links it, and returns
 * its offset. The caller fills in the rest.
 */
unsigned int pci_add_cap(struct pci_dev *dev, uint8_t id, unsigned int len);

/* BAR 0: @size bytes, a power of two; callbacks as for any bus region. */
void pci_set_bar(struct pci_dev *dev, uint64_t size,
		 uint64_t (*read)(struct bus_region *, uint64_t, unsigned int),
		 void (*write)(struct bus_region *, uint64_t, unsigned int, uint64_t));

/* MSI-X with its table at @table and its pending bits at @pba of BAR 0. */
void pci_add_msix(struct pci_dev *dev, unsigned int vectors, uint32_t table,
		  uint32_t pba);
uint64_t pci_msix_read(const struct pci_dev *dev, uint64_t offset, unsigned int len);
void pci_msix_write(struct pci_dev *dev, uint64_t offset, unsigned int len,
		    uint64_t value);
uint64_t pci_pba_read(const struct pci_dev *dev, uint64_t offset, unsigned int len);

/* True if the guest uses MSI-X; then the pin is silent. */
bool pci_msix_enabled(const struct pci_dev *dev);

/* Sends @vector, or notes it while it is masked. */
void pci_msix_notify(struct pci_dev *dev, unsigned int vector);

/* Drives the interrupt pin. */
void pci_set_intx(struct pci_dev *dev, bool level);

/* The GSI that the pin of the device in @slot is wired to. */
unsigned int pci_slot_gsi(unsigned int slot);

/* Configuration access by slot and offset, as the guest does it. */
uint32_t pci_config_read(struct pci_bus *pci, unsigned int slot,
			 unsigned int offset, unsigned int len);
void pci_config_write(struct pci_bus *pci, unsigned int slot,
		      unsigned int offset, unsigned int len, uint32_t value);

#endif /* DEV_PCI_H */
