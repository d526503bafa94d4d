/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The driver's side of a virtqueue, for tests: lays out one queue in guest
 * memory and hands buffers to the device.
 */
#ifndef VMM_DRIVER_H
#define VMM_DRIVER_H

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include "dev/virtio.h"
#include "util/util.h"

#define DRIVER_RING	0x10000		/* the rings, 32 KiB a queue */
#define DRIVER_DATA	0x100000	/* buffers */

struct driver {
	struct virtq *vq;
	const struct ram *ram;
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	uint16_t next;			/* free descriptor */
	uint16_t seen;			/* used entries taken */
};

/* Tells the device where the rings are and enables them. */
static inline void driver_init(struct driver *d, struct virtq *vq,
			       const struct ram *ram, uint16_t size)
{
	uint64_t ring = DRIVER_RING + 0x8000 * vq->index;

	memset(d, 0, sizeof(*d));
	d->vq = vq;
	d->ram = ram;
	d->desc = ram_ptr(ram, ring, 0x8000);
	memset(d->desc, 0, 0x8000);
	d->avail = ram_ptr(ram, ring + 0x2000, 0x1000);
	d->used = ram_ptr(ram, ring + 0x4000, 0x1000);
	vq->size = size;
	vq->desc_gpa = ring;
	vq->avail_gpa = ring + 0x2000;
	vq->used_gpa = ring + 0x4000;
	virtq_enable(vq);
}

static inline void driver_desc(struct driver *d, unsigned int i, uint64_t gpa,
			       uint32_t len, uint16_t flags, uint16_t next)
{
	d->desc[i] = (struct vring_desc){ gpa, len, flags, next };
}

/* Makes the chain that starts at @head available. */
static inline void driver_offer(struct driver *d, uint16_t head)
{
	d->avail->ring[d->avail->idx % d->vq->size] = head;
	__atomic_store_n(&d->avail->idx, d->avail->idx + 1, __ATOMIC_SEQ_CST);
}

/* The next used entry, or false. */
static inline bool driver_take(struct driver *d, struct vring_used_elem *elem)
{
	if (__atomic_load_n(&d->used->idx, __ATOMIC_SEQ_CST) == d->seen)
		return false;
	*elem = d->used->ring[d->seen++ % d->vq->size];
	return true;
}

#endif /* VMM_DRIVER_H */
