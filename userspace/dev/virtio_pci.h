/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Virtio over PCI, the modern (non-transitional) interface only.
 */
#ifndef DEV_VIRTIO_PCI_H
#define DEV_VIRTIO_PCI_H

#include "pci.h"
#include "virtio.h"

struct virtio_pci {
	struct pci_dev pci;
	struct virtio_dev *vdev;
	struct state state;
	uint32_t device_feature_select;
	uint32_t driver_feature_select;
	uint16_t queue_select;
	uint16_t config_vector;
	uint8_t isr;
	uint8_t access_cap;		/* the capability for access without BAR */
};

/* Makes @vdev a function on @bus. 0 or a negative errno. */
int virtio_pci_init(struct virtio_pci *vpci, struct virtio_dev *vdev,
		    struct pci_bus *bus);

#endif /* DEV_VIRTIO_PCI_H */
