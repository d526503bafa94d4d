// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Split virtqueues and the life of a device, after "Virtual I/O Device (VIRTIO)
 * Version 1.2", sections "Basic Facilities of a Virtio Device" and "Split
 * Virtqueues".
 */
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

#include "../util/util.h"
#include "virtio.h"

/* Offered by all devices; the rings below know them. */
#define COMMON_FEATURES	(BIT_ULL(VIRTIO_F_VERSION_1) | \
			 BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC) | \
			 BIT_ULL(VIRTIO_RING_F_EVENT_IDX))

/* The driver writes these while we look. */
#define READ_GUEST(_x)		__atomic_load_n(&(_x), __ATOMIC_RELAXED)
#define WRITE_GUEST(_x, _v)	__atomic_store_n(&(_x), (_v), __ATOMIC_RELAXED)

/* The driver broke the rules: no more service until it resets the device. */
static void break_device(struct virtio_dev *vdev, const char *why)
{
	if (vdev->status & VIRTIO_CONFIG_S_NEEDS_RESET)
		return;
	warn("%s: the guest's driver broke the protocol (%s); the device stops until it is reset",
	     vdev->dev.name, why);
	vdev->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
	if (vdev->status & VIRTIO_CONFIG_S_DRIVER_OK)
		vdev->interrupt(vdev, NULL);
}

static bool usable(const struct virtq *vq)
{
	return vq->enabled && vq->desc &&
	       !(vq->vdev->status & VIRTIO_CONFIG_S_NEEDS_RESET);
}

static bool event_idx(const struct virtq *vq)
{
	return vq->vdev->features & BIT_ULL(VIRTIO_RING_F_EVENT_IDX);
}

void virtq_enable(struct virtq *vq)
{
	const struct ram *ram = vq->vdev->ram;
	uint64_t n = vq->size;

	if (vq->enabled)
		return;
	if (!n || n > VIRTQ_MAX_SIZE || (n & (n - 1)) ||
	    vq->desc_gpa % 16 || vq->avail_gpa % 2 || vq->used_gpa % 4) {
		break_device(vq->vdev, "ring size or alignment");
		return;
	}
	/* Flags, index and the event index that follows each ring included. */
	vq->desc = ram_ptr(ram, vq->desc_gpa, n * sizeof(struct vring_desc));
	vq->avail = ram_ptr(ram, vq->avail_gpa, 6 + 2 * n);
	vq->used = ram_ptr(ram, vq->used_gpa, 6 + n * sizeof(struct vring_used_elem));
	if (!vq->desc || !vq->avail || !vq->used) {
		vq->desc = NULL;
		break_device(vq->vdev, "ring outside of memory");
		return;
	}
	vq->enabled = 1;
}

/* After the used ring: the available index whose passing we want to hear of. */
static uint16_t *avail_event(const struct virtq *vq)
{
	return (uint16_t *)(void *)&vq->used->ring[vq->size];
}

/* Asks to be notified of entry last_avail; true if it came in the meantime. */
static bool more_available(struct virtq *vq)
{
	if (event_idx(vq))
		WRITE_GUEST(*avail_event(vq), vq->last_avail);
	/* The driver must see the request before we look for the last time. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return READ_GUEST(vq->avail->idx) != vq->last_avail;
}

/*
 * Adds the buffer of @desc to @chain. All that the device reads comes before
 * all that it writes. NULL or what is wrong.
 */
static const char *add_buffer(struct virtq *vq, struct virtq_chain *chain,
			      const struct vring_desc *desc, uint64_t *total)
{
	unsigned int n = chain->nr_out + chain->nr_in;
	void *p;

	if (n == VIRTQ_MAX_SEGMENTS)
		return "a request of too many buffers";
	*total += desc->len;
	if (*total > UINT32_MAX)
		return "a request of more than 4 GiB";
	p = ram_ptr(vq->vdev->ram, desc->addr, desc->len);
	if (!p)
		return "a buffer outside of memory";
	chain->iov[n] = (struct iovec){ p, desc->len };
	if (desc->flags & VRING_DESC_F_WRITE)
		chain->nr_in++;
	else if (chain->nr_in)
		return "a readable buffer after a writable one";
	else
		chain->nr_out++;
	return NULL;
}

/*
 * Copies descriptor @i of @table, once: the driver may change it behind our
 * back. Indirect tables need not be aligned.
 */
static struct vring_desc read_desc(const void *table, unsigned int i)
{
	struct vring_desc d;

	memcpy(&d, (const char *)table + i * sizeof(d), sizeof(d));
	__asm__ volatile("" : : : "memory");
	return d;
}

/* Follows the chain from @chain->head. NULL or what is wrong. */
static const char *walk(struct virtq *vq, struct virtq_chain *chain)
{
	const void *table = vq->desc;
	unsigned int size = vq->size, left, i = chain->head;
	bool indirect = false;
	struct vring_desc d;
	const char *wrong;
	uint64_t total = 0;

	/* A chain longer than its table goes round in circles. */
	for (left = size; left; left--) {
		if (i >= size)
			return "a descriptor outside of its table";
		d = read_desc(table, i);
		if (d.flags & VRING_DESC_F_INDIRECT) {
			if (indirect || (d.flags & VRING_DESC_F_NEXT) ||
			    !(vq->vdev->features & BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC)))
				return "a misplaced indirect descriptor";
			size = d.len / sizeof(d);
			table = ram_ptr(vq->vdev->ram, d.addr, d.len);
			if (!table || !size || d.len % sizeof(d) || size > UINT16_MAX)
				return "a bad indirect table";
			indirect = true;
			left = size + 1;
			i = 0;
			continue;
		}
		wrong = add_buffer(vq, chain, &d, &total);
		if (wrong)
			return wrong;
		if (!(d.flags & VRING_DESC_F_NEXT))
			return NULL;
		i = d.next;
	}
	return "a chain that never ends";
}

bool virtq_pop(struct virtq *vq, struct virtq_chain *chain)
{
	const char *wrong;
	uint16_t avail;

	if (!usable(vq))
		return false;
	avail = READ_GUEST(vq->avail->idx);
	if (avail == vq->last_avail && !more_available(vq))
		return false;
	avail = READ_GUEST(vq->avail->idx);
	if ((uint16_t)(avail - vq->last_avail) > vq->size) {
		break_device(vq->vdev, "an available index that jumps");
		return false;
	}
	/* Entries are valid once the index that covers them has been seen. */
	__atomic_thread_fence(__ATOMIC_ACQUIRE);

	chain->head = READ_GUEST(vq->avail->ring[vq->last_avail % vq->size]);
	chain->nr_out = 0;
	chain->nr_in = 0;
	wrong = walk(vq, chain);
	if (wrong) {
		break_device(vq->vdev, wrong);
		return false;
	}
	chain->out = chain->iov;
	chain->in = chain->iov + chain->nr_out;
	vq->last_avail++;
	return true;
}

void virtq_push(struct virtq *vq, uint16_t head, uint32_t written)
{
	struct vring_used_elem *elem;

	if (!usable(vq))
		return;
	elem = &vq->used->ring[vq->used_idx % vq->size];
	elem->id = head;
	elem->len = written;
	vq->used_idx++;
	__atomic_store_n(&vq->used->idx, vq->used_idx, __ATOMIC_RELEASE);
	vq->vdev->served++;
}

void virtq_notify(struct virtq *vq)
{
	uint16_t event, fresh;

	if (!usable(vq))
		return;
	/* The driver re-enables interrupts, then looks; we publish, then look. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	fresh = (uint16_t)(vq->used_idx - vq->notified_idx);
	if (!fresh)
		return;
	if (event_idx(vq)) {
		event = READ_GUEST(vq->avail->ring[vq->size]);
		vq->notified_idx = vq->used_idx;
		/* Only if the entry it waits for is among the fresh ones. */
		if ((uint16_t)(vq->used_idx - event - 1) >= fresh)
			return;
	} else {
		vq->notified_idx = vq->used_idx;
		if (READ_GUEST(vq->avail->flags) & VRING_AVAIL_F_NO_INTERRUPT)
			return;
	}
	vq->vdev->interrupt(vq->vdev, vq);
}

static void kicked(struct event *ev)
{
	struct virtq *vq = container_of(ev, struct virtq, kick);

	event_drain(ev);
	if (usable(vq) && (vq->vdev->status & VIRTIO_CONFIG_S_DRIVER_OK))
		vq->vdev->ops->kick(vq->vdev, vq);
}

static void reset_queue(struct virtq *vq)
{
	vq->size = VIRTQ_MAX_SIZE;
	vq->enabled = 0;
	vq->vector = VIRTIO_NO_VECTOR;
	vq->desc_gpa = vq->avail_gpa = vq->used_gpa = 0;
	vq->last_avail = vq->used_idx = vq->notified_idx = 0;
	vq->desc = NULL;
}

void virtio_reset(struct virtio_dev *vdev)
{
	unsigned int i;

	if (vdev->ops->reset)
		vdev->ops->reset(vdev);
	for (i = 0; i < vdev->nr_queues; i++)
		reset_queue(&vdev->queues[i]);
	vdev->features = 0;
	vdev->status = 0;
}

void virtio_set_status(struct virtio_dev *vdev, uint8_t status)
{
	uint8_t fresh = status & (uint8_t)~vdev->status;
	unsigned int i;

	if (!status) {
		virtio_reset(vdev);
		return;
	}
	/* Features that make no sense are refused by not keeping the bit. */
	if ((fresh & VIRTIO_CONFIG_S_FEATURES_OK) &&
	    ((vdev->features & ~vdev->offered) ||
	     !(vdev->features & BIT_ULL(VIRTIO_F_VERSION_1))))
		status &= (uint8_t)~VIRTIO_CONFIG_S_FEATURES_OK;
	/* The driver cannot clear what only a reset clears. */
	vdev->status |= status & (uint8_t)~VIRTIO_CONFIG_S_NEEDS_RESET;

	/* Requests queued before DRIVER_OK have no notification to come. */
	if (fresh & VIRTIO_CONFIG_S_DRIVER_OK)
		for (i = 0; i < vdev->nr_queues; i++)
			event_signal(&vdev->queues[i].kick);
}

static const struct state_field common_state[] = {
	STATE_FIELD(struct virtio_dev, features),
	STATE_FIELD(struct virtio_dev, status),
	STATE_FIELD(struct virtio_dev, served),
	{ }
};

static const struct state_field queue_state[] = {
	STATE_FIELD(struct virtq, size),
	STATE_FIELD(struct virtq, enabled),
	STATE_FIELD(struct virtq, vector),
	STATE_FIELD(struct virtq, desc_gpa),
	STATE_FIELD(struct virtq, avail_gpa),
	STATE_FIELD(struct virtq, used_gpa),
	STATE_FIELD(struct virtq, last_avail),
	STATE_FIELD(struct virtq, used_idx),
	STATE_FIELD(struct virtq, notified_idx),
	{ }
};

int virtio_init(struct virtio_dev *vdev, const struct virtio_ops *ops,
		unsigned int nr_queues, uint64_t features,
		const struct ram *ram, struct loop *loop)
{
	struct virtq *vq;
	unsigned int i;
	int ret;

	vdev->ops = ops;
	vdev->ram = ram;
	vdev->loop = loop;
	vdev->offered = features | COMMON_FEATURES;
	vdev->nr_queues = 0;
	device_add_state(&vdev->dev, &vdev->common_state, "virtio", vdev, common_state);
	if (ops->state)
		device_add_state(&vdev->dev, &vdev->own_state, NULL, vdev, ops->state);
	for (i = 0; i < nr_queues; i++) {
		vq = &vdev->queues[i];
		vq->vdev = vdev;
		vq->index = i;
		snprintf(vq->name, sizeof(vq->name), "queue%u", i);
		device_add_state(&vdev->dev, &vq->state, vq->name, vq, queue_state);
		reset_queue(vq);
		ret = event_init_eventfd(&vq->kick, kicked, &vdev->dev.lock);
		if (ret)
			goto out_fini;
		vdev->nr_queues++;
		ret = loop_add(loop, &vq->kick, EPOLLIN);
		if (ret)
			goto out_fini;
	}
	return 0;

out_fini:
	virtio_fini(vdev);
	return ret;
}

void virtio_fini(struct virtio_dev *vdev)
{
	unsigned int i;

	if (vdev->ops->reset)
		vdev->ops->reset(vdev);
	for (i = 0; i < vdev->nr_queues; i++)
		event_fini(&vdev->queues[i].kick);
	vdev->nr_queues = 0;
}

size_t iov_length(const struct iovec *iov, unsigned int n)
{
	size_t len = 0;
	unsigned int i;

	for (i = 0; i < n; i++)
		len += iov[i].iov_len;
	return len;
}

size_t iov_skip(struct iovec **iov, uint16_t *n, size_t len)
{
	size_t part, done = 0;

	while (*n && done < len) {
		part = MIN(len - done, (*iov)->iov_len);
		(*iov)->iov_base = (char *)(*iov)->iov_base + part;
		(*iov)->iov_len -= part;
		done += part;
		if (!(*iov)->iov_len) {
			(*iov)++;
			(*n)--;
		}
	}
	return done;
}

size_t iov_read(const struct iovec *iov, unsigned int n, void *data, size_t len)
{
	size_t part, done = 0;
	unsigned int i;

	for (i = 0; i < n && done < len; i++) {
		part = MIN(len - done, iov[i].iov_len);
		memcpy((char *)data + done, iov[i].iov_base, part);
		done += part;
	}
	return done;
}

size_t iov_write(const struct iovec *iov, unsigned int n, const void *data, size_t len)
{
	size_t part, done = 0;
	unsigned int i;

	for (i = 0; i < n && done < len; i++) {
		part = MIN(len - done, iov[i].iov_len);
		memcpy(iov[i].iov_base, (const char *)data + done, part);
		done += part;
	}
	return done;
}
