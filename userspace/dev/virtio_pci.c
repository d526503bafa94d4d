// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The registers of a modern virtio-pci function, all in BAR 0, a page for each
 * kind. Virtio 1.2, "Virtio Over PCI Bus".
 */
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <string.h>

#include "../util/util.h"
#include "virtio_pci.h"

#define VENDOR_VIRTIO		0x1af4
#define DEVICE_BASE		0x1040	/* plus the virtio device id */
#define REVISION_MODERN		1

/* BAR 0. */
#define COMMON_OFFSET		0x0000
#define ISR_OFFSET		0x1000
#define DEVICE_OFFSET		0x2000
#define NOTIFY_OFFSET		0x3000
#define MSIX_OFFSET		0x4000
#define PBA_OFFSET		0x5000
#define PAGE			0x1000
#define BAR_SIZE		0x8000
#define NOTIFY_MULTIPLIER	4

static struct virtq *selected(struct virtio_pci *vpci)
{
	unsigned int i = vpci->queue_select;

	return i < vpci->vdev->nr_queues ? &vpci->vdev->queues[i] : NULL;
}

static uint32_t feature_half(uint64_t features, uint32_t select)
{
	return select < 2 ? (uint32_t)(features >> (32 * select)) : 0;
}

static uint64_t read_queue(const struct virtq *vq, uint64_t offset)
{
	if (!vq)
		return 0;	/* a size of 0: no such queue */
	switch (offset) {
	case VIRTIO_PCI_COMMON_Q_SIZE:
		return vq->size;
	case VIRTIO_PCI_COMMON_Q_MSIX:
		return vq->vector;
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		return vq->enabled;
	case VIRTIO_PCI_COMMON_Q_NOFF:
		return vq->index;
	case VIRTIO_PCI_COMMON_Q_DESCLO:
		return (uint32_t)vq->desc_gpa;
	case VIRTIO_PCI_COMMON_Q_DESCHI:
		return vq->desc_gpa >> 32;
	case VIRTIO_PCI_COMMON_Q_AVAILLO:
		return (uint32_t)vq->avail_gpa;
	case VIRTIO_PCI_COMMON_Q_AVAILHI:
		return vq->avail_gpa >> 32;
	case VIRTIO_PCI_COMMON_Q_USEDLO:
		return (uint32_t)vq->used_gpa;
	case VIRTIO_PCI_COMMON_Q_USEDHI:
		return vq->used_gpa >> 32;
	}
	return 0;
}

/* Drivers access each field in its own width. */
static uint64_t read_common(struct virtio_pci *vpci, uint64_t offset)
{
	struct virtio_dev *vdev = vpci->vdev;

	switch (offset) {
	case VIRTIO_PCI_COMMON_DFSELECT:
		return vpci->device_feature_select;
	case VIRTIO_PCI_COMMON_DF:
		return feature_half(vdev->offered, vpci->device_feature_select);
	case VIRTIO_PCI_COMMON_GFSELECT:
		return vpci->driver_feature_select;
	case VIRTIO_PCI_COMMON_GF:
		return feature_half(vdev->features, vpci->driver_feature_select);
	case VIRTIO_PCI_COMMON_MSIX:
		return vpci->config_vector;
	case VIRTIO_PCI_COMMON_NUMQ:
		return vdev->nr_queues;
	case VIRTIO_PCI_COMMON_STATUS:
		return vdev->status;
	case VIRTIO_PCI_COMMON_CFGGENERATION:
		return vdev->config_generation;
	case VIRTIO_PCI_COMMON_Q_SELECT:
		return vpci->queue_select;
	default:
		return read_queue(selected(vpci), offset);
	}
}

/* A vector that does not exist is answered with "none". */
static uint16_t valid_vector(const struct virtio_pci *vpci, uint64_t vector)
{
	return vector < vpci->pci.nr_vectors ? (uint16_t)vector : VIRTIO_NO_VECTOR;
}

static void set_low(uint64_t *gpa, uint64_t value)
{
	*gpa = (*gpa & ~0xffffffffULL) | (uint32_t)value;
}

static void set_high(uint64_t *gpa, uint64_t value)
{
	*gpa = (uint32_t)*gpa | value << 32;
}

static void write_queue(struct virtio_pci *vpci, struct virtq *vq, uint64_t offset,
			uint64_t value)
{
	if (!vq)
		return;
	if (offset == VIRTIO_PCI_COMMON_Q_MSIX) {
		vq->vector = valid_vector(vpci, value);
		return;
	}
	/* A running queue stays where it is. */
	if (vq->enabled)
		return;
	switch (offset) {
	case VIRTIO_PCI_COMMON_Q_SIZE:
		vq->size = (uint16_t)value;
		break;
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		if (value == 1)
			virtq_enable(vq);
		break;
	case VIRTIO_PCI_COMMON_Q_DESCLO:
		set_low(&vq->desc_gpa, value);
		break;
	case VIRTIO_PCI_COMMON_Q_DESCHI:
		set_high(&vq->desc_gpa, value);
		break;
	case VIRTIO_PCI_COMMON_Q_AVAILLO:
		set_low(&vq->avail_gpa, value);
		break;
	case VIRTIO_PCI_COMMON_Q_AVAILHI:
		set_high(&vq->avail_gpa, value);
		break;
	case VIRTIO_PCI_COMMON_Q_USEDLO:
		set_low(&vq->used_gpa, value);
		break;
	case VIRTIO_PCI_COMMON_Q_USEDHI:
		set_high(&vq->used_gpa, value);
		break;
	}
}

static void write_features(struct virtio_pci *vpci, uint64_t value)
{
	struct virtio_dev *vdev = vpci->vdev;

	/* Agreed is agreed. */
	if (vdev->status & VIRTIO_CONFIG_S_FEATURES_OK)
		return;
	if (vpci->driver_feature_select == 0)
		set_low(&vdev->features, value);
	else if (vpci->driver_feature_select == 1)
		set_high(&vdev->features, value);
}

static void write_status(struct virtio_pci *vpci, uint8_t status)
{
	virtio_set_status(vpci->vdev, status);
	if (status)
		return;
	vpci->device_feature_select = 0;
	vpci->driver_feature_select = 0;
	vpci->queue_select = 0;
	vpci->config_vector = VIRTIO_NO_VECTOR;
	vpci->isr = 0;
	pci_set_intx(&vpci->pci, false);
}

static void write_common(struct virtio_pci *vpci, uint64_t offset, uint64_t value)
{
	switch (offset) {
	case VIRTIO_PCI_COMMON_DFSELECT:
		vpci->device_feature_select = (uint32_t)value;
		break;
	case VIRTIO_PCI_COMMON_GFSELECT:
		vpci->driver_feature_select = (uint32_t)value;
		break;
	case VIRTIO_PCI_COMMON_GF:
		write_features(vpci, value);
		break;
	case VIRTIO_PCI_COMMON_MSIX:
		vpci->config_vector = valid_vector(vpci, value);
		break;
	case VIRTIO_PCI_COMMON_STATUS:
		write_status(vpci, (uint8_t)value);
		break;
	case VIRTIO_PCI_COMMON_Q_SELECT:
		vpci->queue_select = (uint16_t)value;
		break;
	default:
		write_queue(vpci, selected(vpci), offset, value);
	}
}

static uint64_t read_device(const struct virtio_dev *vdev, uint64_t offset, unsigned int len)
{
	uint64_t value = 0;

	if (offset < vdev->config_len)
		memcpy(&value, (const char *)vdev->config + offset,
		       MIN(len, vdev->config_len - offset));
	return value;
}

static uint64_t read_isr(struct virtio_pci *vpci)
{
	uint8_t isr = vpci->isr;

	vpci->isr = 0;
	pci_set_intx(&vpci->pci, false);
	return isr;
}

static uint64_t bar_read(struct bus_region *r, uint64_t offset, unsigned int len)
{
	struct virtio_pci *vpci = container_of(r, struct virtio_pci, pci.bar);
	uint64_t at = offset % PAGE;

	switch (offset - at) {
	case COMMON_OFFSET:
		return read_common(vpci, at);
	case ISR_OFFSET:
		return at ? 0 : read_isr(vpci);
	case DEVICE_OFFSET:
		return read_device(vpci->vdev, at, len);
	case MSIX_OFFSET:
		return pci_msix_read(&vpci->pci, at, len);
	case PBA_OFFSET:
		return pci_pba_read(&vpci->pci, at, len);
	}
	return 0;
}

static void bar_write(struct bus_region *r, uint64_t offset, unsigned int len,
		      uint64_t value)
{
	struct virtio_pci *vpci = container_of(r, struct virtio_pci, pci.bar);
	uint64_t at = offset % PAGE;

	switch (offset - at) {
	case COMMON_OFFSET:
		write_common(vpci, at, value);
		break;
	case NOTIFY_OFFSET:
		/* Here only where the kernel has no ioeventfd for it. */
		at /= NOTIFY_MULTIPLIER;
		if (at < vpci->vdev->nr_queues)
			event_signal(&vpci->vdev->queues[at].kick);
		break;
	case MSIX_OFFSET:
		pci_msix_write(&vpci->pci, at, len, value);
		break;
	}
}

static void interrupt(struct virtio_dev *vdev, struct virtq *vq)
{
	struct virtio_pci *vpci = vdev->transport;
	uint16_t vector = vq ? vq->vector : vpci->config_vector;

	if (pci_msix_enabled(&vpci->pci)) {
		if (vector != VIRTIO_NO_VECTOR)
			pci_msix_notify(&vpci->pci, vector);
		return;
	}
	vpci->isr |= vq ? 1 : 1 | VIRTIO_PCI_ISR_CONFIG;
	pci_set_intx(&vpci->pci, true);
}

/* Notifications of a queue go to its eventfd without leaving the kernel. */
static void bar_changed(struct pci_dev *pci, bool mapped)
{
	struct virtio_pci *vpci = container_of(pci, struct virtio_pci, pci);
	const struct kvm *kvm = pci->bus->kvm;
	struct virtq *vq;
	unsigned int i;

	if (!kvm->ioeventfd)
		return;
	for (i = 0; i < vpci->vdev->nr_queues; i++) {
		vq = &vpci->vdev->queues[i];
		/* If the kernel is out of them, bar_write() serves as well. */
		kvm_ioeventfd(kvm, pci->bar.base + NOTIFY_OFFSET + i * NOTIFY_MULTIPLIER,
			      (uint16_t)i, vq->kick.fd, mapped);
	}
}

/*
 * The capability through which software without access to the BAR reads and
 * writes it: four bytes in configuration space that stand for the place that
 * the capability's offset and length name.
 */
static bool access_window(struct virtio_pci *vpci, unsigned int offset,
			  unsigned int len, uint32_t *at, uint32_t *size)
{
	unsigned int cap = vpci->access_cap;
	unsigned int data = cap + offsetof(struct virtio_pci_cfg_cap, pci_cfg_data);

	if (!cap || offset < data || offset + len > data + 4)
		return false;
	*at = load32(vpci->pci.config + cap + VIRTIO_PCI_CAP_OFFSET);
	*size = load32(vpci->pci.config + cap + VIRTIO_PCI_CAP_LENGTH);
	return (*size == 1 || *size == 2 || *size == 4) && *at % *size == 0 &&
	       *at < BAR_SIZE && !vpci->pci.config[cap + VIRTIO_PCI_CAP_BAR];
}

static void config_read(struct pci_dev *pci, unsigned int offset, unsigned int len)
{
	struct virtio_pci *vpci = container_of(pci, struct virtio_pci, pci);
	uint32_t at, size;

	if (access_window(vpci, offset, len, &at, &size))
		store32(pci->config + vpci->access_cap +
			offsetof(struct virtio_pci_cfg_cap, pci_cfg_data),
			(uint32_t)bar_read(&pci->bar, at, size));
}

static void config_written(struct pci_dev *pci, unsigned int offset, unsigned int len)
{
	struct virtio_pci *vpci = container_of(pci, struct virtio_pci, pci);
	uint32_t at, size, value;

	if (!access_window(vpci, offset, len, &at, &size))
		return;
	value = load32(pci->config + vpci->access_cap +
		       offsetof(struct virtio_pci_cfg_cap, pci_cfg_data));
	bar_write(&pci->bar, at, size, value & len_mask(size));
}

static const struct pci_ops virtio_pci_ops = {
	.bar_changed = bar_changed,
	.config_read = config_read,
	.config_written = config_written,
};

static unsigned int add_virtio_cap(struct virtio_pci *vpci, uint8_t type,
				   uint32_t offset, uint32_t length, size_t cap_len)
{
	unsigned int cap = pci_add_cap(&vpci->pci, PCI_CAP_ID_VNDR, (unsigned int)cap_len);
	uint8_t *p = vpci->pci.config + cap;

	p[VIRTIO_PCI_CAP_LEN] = (uint8_t)cap_len;
	p[VIRTIO_PCI_CAP_CFG_TYPE] = type;
	store32(p + VIRTIO_PCI_CAP_OFFSET, offset);
	store32(p + VIRTIO_PCI_CAP_LENGTH, length);
	return cap;
}

static void add_caps(struct virtio_pci *vpci)
{
	unsigned int cap;

	add_virtio_cap(vpci, VIRTIO_PCI_CAP_COMMON_CFG, COMMON_OFFSET,
		       sizeof(struct virtio_pci_common_cfg), sizeof(struct virtio_pci_cap));
	add_virtio_cap(vpci, VIRTIO_PCI_CAP_ISR_CFG, ISR_OFFSET, 1,
		       sizeof(struct virtio_pci_cap));
	if (vpci->vdev->config_len)
		add_virtio_cap(vpci, VIRTIO_PCI_CAP_DEVICE_CFG, DEVICE_OFFSET,
			       (uint32_t)vpci->vdev->config_len,
			       sizeof(struct virtio_pci_cap));
	cap = add_virtio_cap(vpci, VIRTIO_PCI_CAP_NOTIFY_CFG, NOTIFY_OFFSET,
			     vpci->vdev->nr_queues * NOTIFY_MULTIPLIER,
			     sizeof(struct virtio_pci_notify_cap));
	store32(vpci->pci.config + cap + VIRTIO_PCI_NOTIFY_CAP_MULT, NOTIFY_MULTIPLIER);

	cap = add_virtio_cap(vpci, VIRTIO_PCI_CAP_PCI_CFG, 0, 0,
			     sizeof(struct virtio_pci_cfg_cap));
	memset(vpci->pci.writable + cap + VIRTIO_PCI_CAP_OFFSET, 0xff,
	       sizeof(struct virtio_pci_cfg_cap) - VIRTIO_PCI_CAP_OFFSET);
	vpci->pci.writable[cap + VIRTIO_PCI_CAP_BAR] = 0xff;
	vpci->access_cap = (uint8_t)cap;
}

static const struct state_field virtio_pci_state[] = {
	STATE_FIELD(struct virtio_pci, device_feature_select),
	STATE_FIELD(struct virtio_pci, driver_feature_select),
	STATE_FIELD(struct virtio_pci, queue_select),
	STATE_FIELD(struct virtio_pci, config_vector),
	STATE_FIELD(struct virtio_pci, isr),
	{ }
};

int virtio_pci_init(struct virtio_pci *vpci, struct virtio_dev *vdev,
		    struct pci_bus *bus)
{
	struct pci_id id = {
		.vendor = VENDOR_VIRTIO,
		.device = (uint16_t)(DEVICE_BASE + vdev->ops->id),
		.subsystem = (uint16_t)(DEVICE_BASE + vdev->ops->id),
		.class = vdev->ops->class,
		.revision = REVISION_MODERN,
	};
	int ret;

	memset(vpci, 0, sizeof(*vpci));
	vpci->vdev = vdev;
	vpci->config_vector = VIRTIO_NO_VECTOR;
	vpci->pci.dev = &vdev->dev;
	vdev->transport = vpci;
	vdev->interrupt = interrupt;
	bus_add_device(bus->bus, &vdev->dev);
	ret = pci_add(bus, &vpci->pci, &id, &virtio_pci_ops);
	if (ret)
		return ret;
	device_add_state(&vdev->dev, &vpci->state, "transport", vpci, virtio_pci_state);
	add_caps(vpci);
	/* One vector a queue, and one for the configuration. */
	pci_add_msix(&vpci->pci, vdev->nr_queues + 1, MSIX_OFFSET, PBA_OFFSET);
	pci_set_bar(&vpci->pci, BAR_SIZE, bar_read, bar_write);
	return 0;
}
