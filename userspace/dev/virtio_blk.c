// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Turns virtio block requests into io_uring operations, a batch for each
 * notification, and their completions into used entries, a batch for each
 * wake-up. Virtio 1.2, "Block Device".
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/virtio_ids.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "../util/util.h"
#include "virtio_blk.h"

#define BLK_CLASS		0x018000	/* mass storage, other */
#define SECTOR_SHIFT		9
#define RING_ENTRIES		64
#define MAX_DISCARD_SECTORS	(1U << 22)	/* 2 GiB a segment */

struct blk_request {
	struct blk_request *next;	/* in the list of unused ones */
	struct virtq *vq;
	struct virtq_chain chain;	/* what is left of it to do */
	uint8_t *status;		/* the last byte that we may write */
	uint32_t type;
	uint64_t offset;
	uint64_t left;			/* bytes still to move */
	uint32_t written;		/* bytes put into the guest's buffers */
};

/* The one used last first: its memory is warm, and others stay untouched. */
static struct blk_request *get_request(struct blk *blk)
{
	struct blk_request *req = blk->unused;

	if (req)
		blk->unused = req->next;
	else if (blk->nr_used < blk->nr_requests)
		req = &blk->requests[blk->nr_used++];
	return req;
}

static void put_request(struct blk *blk, struct blk_request *req)
{
	req->next = blk->unused;
	blk->unused = req;
}

static void finish(struct blk *blk, struct blk_request *req, uint8_t status)
{
	struct virtq *vq = req->vq;

	*req->status = status;
	if (status == VIRTIO_BLK_S_IOERR)
		blk->errors++;
	virtq_push(vq, req->chain.head, req->written + 1);
	blk->touched |= BIT(vq->index);
	put_request(blk, req);
}

/* One sentence for the user; the guest hears of every error. */
static void report(struct blk *blk, const struct blk_request *req, int err)
{
	if (blk->error_reported)
		return;
	blk->error_reported = true;
	warn("disk %s: %s at byte %llu failed: %s; the guest gets an I/O error (further ones are not reported)",
	     blk->disk->path, req->type == VIRTIO_BLK_T_IN ? "read" :
	     req->type == VIRTIO_BLK_T_FLUSH ? "flush" : "write",
	     (unsigned long long)req->offset, strerror(err));
}

static struct io_uring_sqe *get_sqe(struct blk *blk)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&blk->ring);

	if (!sqe) {
		io_uring_submit(&blk->ring);
		sqe = io_uring_get_sqe(&blk->ring);
	}
	return sqe;
}

/* Hands what is left of @req to the kernel. */
static void issue(struct blk *blk, struct blk_request *req)
{
	struct io_uring_sqe *sqe = get_sqe(blk);
	int fd = blk->disk->fd;
	bool unmap;

	if (!sqe) {
		report(blk, req, EBUSY);
		finish(blk, req, VIRTIO_BLK_S_IOERR);
		return;
	}
	switch (req->type) {
	case VIRTIO_BLK_T_IN:
		io_uring_prep_readv(sqe, fd, req->chain.in, req->chain.nr_in, req->offset);
		break;
	case VIRTIO_BLK_T_OUT:
		io_uring_prep_writev(sqe, fd, req->chain.out, req->chain.nr_out, req->offset);
		break;
	case VIRTIO_BLK_T_FLUSH:
		io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
		break;
	default:
		unmap = req->type == VIRTIO_BLK_T_DISCARD;
		io_uring_prep_fallocate(sqe, fd, (unmap ? FALLOC_FL_PUNCH_HOLE :
					FALLOC_FL_ZERO_RANGE) | FALLOC_FL_KEEP_SIZE,
					(off_t)req->offset, (off_t)req->left);
	}
	io_uring_sqe_set_data(sqe, req);
	blk->in_flight++;
}

static bool in_range(const struct blk *blk, uint64_t sector, uint64_t bytes)
{
	uint64_t size = blk->disk->size;

	return sector <= size >> SECTOR_SHIFT &&
	       bytes <= size - (sector << SECTOR_SHIFT);
}

static void start_transfer(struct blk *blk, struct blk_request *req, uint64_t sector,
			   uint64_t bytes)
{
	if (!in_range(blk, sector, bytes) || bytes % (1U << SECTOR_SHIFT)) {
		finish(blk, req, VIRTIO_BLK_S_IOERR);
		return;
	}
	req->offset = sector << SECTOR_SHIFT;
	req->left = bytes;
	if (bytes)
		issue(blk, req);
	else
		finish(blk, req, VIRTIO_BLK_S_OK);
}

/* Discard and write zeroes: one segment each, as the configuration says. */
static void start_range(struct blk *blk, struct blk_request *req)
{
	struct virtio_blk_discard_write_zeroes seg;
	uint64_t bytes;

	if (iov_length(req->chain.out, req->chain.nr_out) != sizeof(seg)) {
		finish(blk, req, VIRTIO_BLK_S_UNSUPP);
		return;
	}
	iov_read(req->chain.out, req->chain.nr_out, &seg, sizeof(seg));
	if ((seg.flags & ~VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP) ||
	    (seg.flags && req->type == VIRTIO_BLK_T_DISCARD) ||
	    seg.num_sectors > MAX_DISCARD_SECTORS) {
		finish(blk, req, VIRTIO_BLK_S_UNSUPP);
		return;
	}
	/* Zeroes that need no space are a hole. */
	if (seg.flags)
		req->type = VIRTIO_BLK_T_DISCARD;
	bytes = (uint64_t)seg.num_sectors << SECTOR_SHIFT;
	start_transfer(blk, req, seg.sector, bytes);
}

static void start(struct blk *blk, struct blk_request *req)
{
	struct virtq_chain *chain = &req->chain;
	struct virtio_blk_outhdr header;
	uint64_t in_bytes;

	/*
	 * The header is in front of what we read and the status the last byte
	 * of what we write, however the driver cuts them into buffers. Without
	 * room for the status there is nothing that could be answered.
	 */
	in_bytes = iov_length(chain->in, chain->nr_in);
	while (chain->nr_in && !chain->in[chain->nr_in - 1].iov_len)
		chain->nr_in--;
	if (!chain->nr_in) {
		virtq_push(req->vq, chain->head, 0);
		blk->touched |= BIT(req->vq->index);
		put_request(blk, req);
		return;
	}
	req->status = (uint8_t *)chain->in[chain->nr_in - 1].iov_base +
		      --chain->in[chain->nr_in - 1].iov_len;
	in_bytes--;
	req->written = 0;
	if (iov_read(chain->out, chain->nr_out, &header, sizeof(header)) != sizeof(header)) {
		finish(blk, req, VIRTIO_BLK_S_IOERR);
		return;
	}
	iov_skip(&chain->out, &chain->nr_out, sizeof(header));
	req->type = header.type;

	switch (header.type) {
	case VIRTIO_BLK_T_OUT:
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		if (blk->disk->readonly) {
			finish(blk, req, VIRTIO_BLK_S_IOERR);
			return;
		}
	}
	switch (header.type) {
	case VIRTIO_BLK_T_IN:
		start_transfer(blk, req, header.sector, in_bytes);
		break;
	case VIRTIO_BLK_T_OUT:
		start_transfer(blk, req, header.sector,
			       iov_length(chain->out, chain->nr_out));
		break;
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		start_range(blk, req);
		break;
	case VIRTIO_BLK_T_FLUSH:
		req->offset = 0;
		req->left = 0;
		issue(blk, req);
		break;
	case VIRTIO_BLK_T_GET_ID:
		req->written = (uint32_t)iov_write(chain->in, chain->nr_in, blk->serial,
						   sizeof(blk->serial));
		finish(blk, req, VIRTIO_BLK_S_OK);
		break;
	default:
		finish(blk, req, VIRTIO_BLK_S_UNSUPP);
	}
}

static void announce(struct blk *blk)
{
	uint32_t touched = blk->touched;
	unsigned int i;

	blk->touched = 0;
	for (i = 0; touched; i++, touched >>= 1)
		if (touched & 1)
			virtq_notify(&blk->vdev.queues[i]);
}

static void blk_kick(struct virtio_dev *vdev, struct virtq *vq)
{
	struct blk *blk = container_of(vdev, struct blk, vdev);
	struct blk_request *req;

	/* They can only run out if the driver reuses what it has not got back. */
	while ((req = get_request(blk))) {
		if (!virtq_pop(vq, &req->chain)) {
			put_request(blk, req);
			break;
		}
		req->vq = vq;
		start(blk, req);
	}
	io_uring_submit(&blk->ring);
	announce(blk);
}

static void complete_transfer(struct blk *blk, struct blk_request *req, uint64_t done)
{
	req->offset += done;
	req->left -= MIN(done, req->left);
	if (req->type == VIRTIO_BLK_T_IN) {
		req->written += (uint32_t)done;
		blk->bytes_read += done;
		iov_skip(&req->chain.in, &req->chain.nr_in, done);
	} else {
		blk->bytes_written += done;
		iov_skip(&req->chain.out, &req->chain.nr_out, done);
	}
	if (!req->left) {
		finish(blk, req, VIRTIO_BLK_S_OK);
	} else if (!done) {
		/* The image has become shorter than it was. */
		report(blk, req, ENODATA);
		finish(blk, req, VIRTIO_BLK_S_IOERR);
	} else {
		issue(blk, req);
	}
}

static void complete(struct blk *blk, struct blk_request *req, int result)
{
	bool transfer = req->type == VIRTIO_BLK_T_IN || req->type == VIRTIO_BLK_T_OUT;

	blk->in_flight--;
	if (result == -EINTR || result == -EAGAIN) {
		issue(blk, req);
	} else if (result == -EOPNOTSUPP && !transfer) {
		finish(blk, req, VIRTIO_BLK_S_UNSUPP);
	} else if (result < 0) {
		report(blk, req, -result);
		finish(blk, req, VIRTIO_BLK_S_IOERR);
	} else if (transfer) {
		complete_transfer(blk, req, (uint64_t)result);
	} else {
		if (req->type == VIRTIO_BLK_T_FLUSH)
			blk->flushes++;
		finish(blk, req, VIRTIO_BLK_S_OK);
	}
}

static void reap(struct blk *blk)
{
	struct io_uring_cqe *cqe;

	while (!io_uring_peek_cqe(&blk->ring, &cqe)) {
		struct blk_request *req = io_uring_cqe_get_data(cqe);
		int result = cqe->res;

		io_uring_cqe_seen(&blk->ring, cqe);
		complete(blk, req, result);
	}
	io_uring_submit(&blk->ring);
}

static void completed(struct event *ev)
{
	struct blk *blk = container_of(ev, struct blk, done);

	reap(blk);
	announce(blk);
}

/*
 * The kernel still reads and writes guest memory for what is in flight: wait
 * for it. The time is that of the host's disk.
 */
static void blk_reset(struct virtio_dev *vdev)
{
	struct blk *blk = container_of(vdev, struct blk, vdev);

	while (blk->in_flight) {
		io_uring_submit_and_wait(&blk->ring, 1);
		reap(blk);
	}
	blk->touched = 0;
}

static const struct state_field blk_state[] = {
	STATE_FIELD(struct blk, in_flight),
	STATE_FIELD(struct blk, bytes_read),
	STATE_FIELD(struct blk, bytes_written),
	STATE_FIELD(struct blk, flushes),
	STATE_FIELD(struct blk, errors),
	{ }
};

static const struct virtio_ops blk_ops = {
	.name = "virtio-blk", .id = VIRTIO_ID_BLOCK, .class = BLK_CLASS,
	.state = blk_state, .kick = blk_kick, .reset = blk_reset,
};

static int init_ring(struct blk *blk)
{
	int ret = io_uring_queue_init(RING_ENTRIES, &blk->ring, 0);

	if (!ret)
		return 0;
	return fail(-ret, "cannot set up io_uring: %s%s", strerror(-ret),
		    ret == -EPERM || ret == -ENOSYS ?
		    "; see the sysctl kernel.io_uring_disabled and the container's seccomp policy" :
		    "");
}

static uint64_t init_config(struct blk *blk, unsigned int nr_queues)
{
	struct virtio_blk_config *c = &blk->config;
	uint64_t features = BIT_ULL(VIRTIO_BLK_F_SEG_MAX) | BIT_ULL(VIRTIO_BLK_F_BLK_SIZE) |
			    BIT_ULL(VIRTIO_BLK_F_FLUSH) | BIT_ULL(VIRTIO_BLK_F_MQ);

	c->capacity = blk->disk->size >> SECTOR_SHIFT;
	c->seg_max = VIRTQ_MAX_SEGMENTS - 2;	/* without header and status */
	c->blk_size = blk->disk->block_size;
	c->num_queues = (uint16_t)nr_queues;
	c->max_discard_sectors = MAX_DISCARD_SECTORS;
	c->max_discard_seg = 1;
	c->discard_sector_alignment = blk->disk->block_size >> SECTOR_SHIFT;
	c->max_write_zeroes_sectors = MAX_DISCARD_SECTORS;
	c->max_write_zeroes_seg = 1;
	c->write_zeroes_may_unmap = 1;
	if (blk->disk->readonly)
		features |= BIT_ULL(VIRTIO_BLK_F_RO);
	else
		features |= BIT_ULL(VIRTIO_BLK_F_DISCARD) |
			    BIT_ULL(VIRTIO_BLK_F_WRITE_ZEROES);
	return features;
}

int blk_init(struct blk *blk, unsigned int index, unsigned int nr_queues,
	     const struct disk *disk, struct pci_bus *bus, const struct ram *ram,
	     struct loop *loop)
{
	uint64_t features;
	int ret;

	memset(blk, 0, sizeof(*blk));
	blk->disk = disk;
	snprintf(blk->name, sizeof(blk->name), "disk%u", index);
	snprintf(blk->serial, sizeof(blk->serial), "fonda-disk%u", index % 1000);
	blk->vdev.dev.name = blk->name;
	blk->vdev.config = &blk->config;
	blk->vdev.config_len = sizeof(blk->config);
	features = init_config(blk, nr_queues);

	ret = init_ring(blk);
	if (ret)
		return ret;
	/* One for every entry of every ring; memory for those that are used. */
	blk->nr_requests = nr_queues * VIRTQ_MAX_SIZE;
	blk->requests = calloc(blk->nr_requests, sizeof(*blk->requests));
	if (!blk->requests) {
		ret = fail(ENOMEM, "out of memory");
		goto out_exit_ring;
	}
	blk->done.fd = blk->ring.ring_fd;
	blk->done.ready = completed;
	blk->done.lock = &blk->vdev.dev.lock;
	ret = loop_add(loop, &blk->done, EPOLLIN);
	if (ret)
		goto out_free_requests;
	ret = virtio_init(&blk->vdev, &blk_ops, nr_queues, features, ram, loop);
	if (ret)
		goto out_remove_event;
	ret = virtio_pci_init(&blk->pci, &blk->vdev, bus);
	if (!ret)
		return 0;

	virtio_fini(&blk->vdev);
out_remove_event:
	loop_remove(loop, &blk->done);
out_free_requests:
	free(blk->requests);
out_exit_ring:
	io_uring_queue_exit(&blk->ring);
	return ret;
}

void blk_fini(struct blk *blk)
{
	virtio_fini(&blk->vdev);
	loop_remove(blk->vdev.loop, &blk->done);
	free(blk->requests);
	io_uring_queue_exit(&blk->ring);
}
