/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Virtio 1.x devices and their split virtqueues. A device is its work (kick),
 * its configuration and its feature bits; the transport (virtio_pci.c) and the
 * rings (virtio.c) are not its business.
 *
 * Everything in a ring is the guest's and may change at any time: indices and
 * descriptors are read once and checked before use. A ring that makes no sense
 * stops the device until the driver resets it, with one sentence to the user.
 */
#ifndef DEV_VIRTIO_H
#define DEV_VIRTIO_H

#include <sys/uio.h>

#include "../util/loop.h"
#include "device.h"
#include "ram.h"

#define VIRTQ_MAX_SIZE		128
/* Buffers in one request; longer chains are an error of the driver. */
#define VIRTQ_MAX_SEGMENTS	64
#define VIRTIO_MAX_QUEUES	16
#define VIRTIO_NO_VECTOR	0xffff

struct virtio_dev;
struct virtq;

/* One request: what the device reads (out) and then what it may write (in). */
struct virtq_chain {
	uint16_t head;
	uint16_t nr_out;
	uint16_t nr_in;
	struct iovec *out;		/* into iov */
	struct iovec *in;		/* into iov */
	struct iovec iov[VIRTQ_MAX_SEGMENTS];
};

struct virtio_ops {
	const char *name;
	unsigned int id;		/* VIRTIO_ID_* */
	uint32_t class;			/* of the PCI function */
	const struct state_field *state;	/* of the structure that begins with it */
	/* In the I/O thread: there may be requests in @vq. */
	void (*kick)(struct virtio_dev *vdev, struct virtq *vq);
	/* Before the rings vanish: finish or forget every request. May be NULL. */
	void (*reset)(struct virtio_dev *vdev);
};

struct virtq {
	struct virtio_dev *vdev;
	struct state state;
	char name[16];
	struct event kick;		/* the driver's notification */
	unsigned int index;
	uint16_t size;			/* chosen by the driver */
	uint8_t enabled;
	uint16_t vector;
	uint64_t desc_gpa, avail_gpa, used_gpa;
	uint16_t last_avail;		/* next entry of the available ring */
	uint16_t used_idx;		/* our index of the used ring */
	uint16_t notified_idx;		/* used_idx at the last notification */
	/* Where the rings are while enabled. */
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
};

struct virtio_dev {
	struct device dev;
	struct state common_state;
	struct state own_state;		/* what ops->state describes */
	const struct virtio_ops *ops;
	const struct ram *ram;
	struct loop *loop;
	uint64_t offered;		/* feature bits */
	uint64_t features;		/* those that the driver took */
	uint8_t status;
	uint8_t config_generation;
	const void *config;		/* device configuration, little-endian */
	size_t config_len;
	unsigned int nr_queues;
	struct virtq queues[VIRTIO_MAX_QUEUES];
	uint64_t served;		/* requests completed */
	void *transport;
	/* The transport's: an interrupt for @vq, or with NULL for the configuration. */
	void (*interrupt)(struct virtio_dev *vdev, struct virtq *vq);
};

/*
 * Prepares the common part; the lock exists from bus_add_device() on. Feature
 * bits that all devices offer are added to @features. 0 or a negative errno.
 */
int virtio_init(struct virtio_dev *vdev, const struct virtio_ops *ops,
		unsigned int nr_queues, uint64_t features,
		const struct ram *ram, struct loop *loop);
void virtio_fini(struct virtio_dev *vdev);

/* Back to the state after virtio_init(). */
void virtio_reset(struct virtio_dev *vdev);

/* The driver writes the device status. */
void virtio_set_status(struct virtio_dev *vdev, uint8_t status);

/* Maps the rings and starts the queue; on nonsense the device breaks. */
void virtq_enable(struct virtq *vq);

/*
 * Takes the next request. False if there is none (and then the driver will
 * notify us of the next one) or the ring makes no sense.
 */
bool virtq_pop(struct virtq *vq, struct virtq_chain *chain);

/* Gives a request back, @written bytes of its `in` buffers being filled. */
void virtq_push(struct virtq *vq, uint16_t head, uint32_t written);

/* Interrupts the driver, if it wants that, after any number of pushes. */
void virtq_notify(struct virtq *vq);

/* Bytes in @n buffers; chains are limited to 4 GiB. */
size_t iov_length(const struct iovec *iov, unsigned int n);

/* Removes @len bytes, at most what is there, from the front: bytes removed. */
size_t iov_skip(struct iovec **iov, uint16_t *n, size_t len);

/* Moves up to @len bytes out of or into buffers: bytes moved. */
size_t iov_read(const struct iovec *iov, unsigned int n, void *data, size_t len);
size_t iov_write(const struct iovec *iov, unsigned int n, const void *data, size_t len);

#endif /* DEV_VIRTIO_H */
