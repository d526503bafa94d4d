/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-blk: a disk image as a block device, by io_uring.
 */
#ifndef DEV_VIRTIO_BLK_H
#define DEV_VIRTIO_BLK_H

#include <liburing.h>
#include <linux/virtio_blk.h>

#include "disk.h"
#include "virtio_pci.h"

#define BLK_MAX_QUEUES		4
#define BLK_ID_LEN		VIRTIO_BLK_ID_BYTES

struct blk_request;

struct blk {
	struct virtio_dev vdev;		/* first: ops->state counts from it */
	struct virtio_pci pci;
	const struct disk *disk;
	struct virtio_blk_config config;
	char name[16];
	char serial[BLK_ID_LEN];
	struct io_uring ring;
	struct event done;		/* the ring has completions */
	struct blk_request *requests;	/* array of all of them */
	unsigned int nr_requests;
	unsigned int nr_used;		/* those from here on were never touched */
	struct blk_request *unused;	/* list of those that were and are free */
	unsigned int in_flight;
	uint32_t touched;		/* queues with completions to announce */
	bool error_reported;
	uint64_t bytes_read, bytes_written, flushes, errors;
};

/*
 * @index numbers the disks from 0 and makes the serial. @nr_queues is at most
 * BLK_MAX_QUEUES. 0 or a negative errno, with a sentence.
 */
int blk_init(struct blk *blk, unsigned int index, unsigned int nr_queues,
	     const struct disk *disk, struct pci_bus *bus, const struct ram *ram,
	     struct loop *loop);
void blk_fini(struct blk *blk);

#endif /* DEV_VIRTIO_BLK_H */
