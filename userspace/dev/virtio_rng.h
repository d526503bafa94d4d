/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-rng: random bytes of the host for the guest.
 */
#ifndef DEV_VIRTIO_RNG_H
#define DEV_VIRTIO_RNG_H

#include "virtio_pci.h"

struct rng {
	struct virtio_dev vdev;		/* first: ops->state counts from it */
	struct virtio_pci pci;
	uint64_t bytes;
};

int rng_init(struct rng *rng, struct pci_bus *bus, const struct ram *ram,
	     struct loop *loop);
void rng_fini(struct rng *rng);

#endif /* DEV_VIRTIO_RNG_H */
