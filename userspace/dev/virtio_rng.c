// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Answers requests for random bytes from getrandom(). Virtio 1.2, "Entropy
 * Device".
 */
#include <linux/virtio_ids.h>
#include <string.h>
#include <sys/random.h>

#include "../util/util.h"
#include "virtio_rng.h"

#define RNG_CLASS	0x00ff00	/* a device of no particular class */

/* A guest that asks for gigabytes must not keep the I/O thread. */
#define RNG_MAX		4096

static void rng_kick(struct virtio_dev *vdev, struct virtq *vq)
{
	struct rng *rng = container_of(vdev, struct rng, vdev);
	struct virtq_chain chain;
	ssize_t n;

	while (virtq_pop(vq, &chain)) {
		n = 0;
		/* A short answer is legal, so one buffer per request is enough. */
		if (chain.nr_in)
			n = getrandom(chain.in[0].iov_base,
				      MIN(chain.in[0].iov_len, RNG_MAX), GRND_NONBLOCK);
		/* A host that has no randomness yet must not stop the I/O thread. */
		if (n < 0)
			n = 0;
		virtq_push(vq, chain.head, (uint32_t)n);
		rng->bytes += (uint64_t)n;
	}
	virtq_notify(vq);
}

static const struct state_field rng_state[] = {
	STATE_FIELD(struct rng, bytes),
	{ }
};

static const struct virtio_ops rng_ops = {
	.name = "virtio-rng", .id = VIRTIO_ID_RNG, .class = RNG_CLASS,
	.state = rng_state, .kick = rng_kick,
};

int rng_init(struct rng *rng, struct pci_bus *bus, const struct ram *ram,
	     struct loop *loop)
{
	int ret;

	memset(rng, 0, sizeof(*rng));
	rng->vdev.dev.name = "rng";
	ret = virtio_init(&rng->vdev, &rng_ops, 1, 0, ram, loop);
	if (ret)
		return ret;
	ret = virtio_pci_init(&rng->pci, &rng->vdev, bus);
	if (ret)
		virtio_fini(&rng->vdev);
	return ret;
}

void rng_fini(struct rng *rng)
{
	virtio_fini(&rng->vdev);
}
