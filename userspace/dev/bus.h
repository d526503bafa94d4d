/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The two address spaces in which a guest meets devices, ports and memory-
 * mapped I/O, and the list of the devices themselves.
 *
 * Locking: a space's own lock covers its table and is never held while a
 * device runs. A device's lock is taken here before its callbacks, and by the
 * I/O loop before its events; devices never take it themselves.
 */
#ifndef DEV_BUS_H
#define DEV_BUS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "device.h"

#define BUS_MAX_REGIONS	64

struct bus_region {
	const char *name;
	uint64_t base;
	uint64_t size;
	struct device *dev;
	/* @len is 1, 2, 4 or 8; the access lies in the region. */
	uint64_t (*read)(struct bus_region *r, uint64_t offset, unsigned int len);
	void (*write)(struct bus_region *r, uint64_t offset, unsigned int len,
		      uint64_t value);
};

struct bus_space {
	pthread_rwlock_t lock;
	unsigned int nr;
	struct bus_region *regions[BUS_MAX_REGIONS];
};

struct bus {
	struct bus_space pio;
	struct bus_space mmio;
	struct device *devices;
};

void bus_init(struct bus *bus);
void bus_fini(struct bus *bus);

/* Enters @dev in the list and initialises its lock. */
void bus_add_device(struct bus *bus, struct device *dev);

/*
 * Makes @r visible at @r->base. Where two regions overlap the one that came
 * first answers: only a guest that moves BARs onto each other can see that.
 * -ENOSPC if the table is full.
 */
int bus_map(struct bus_space *space, struct bus_region *r);
void bus_unmap(struct bus_space *space, struct bus_region *r);

/* One access by a vCPU. Where nothing is, reads give ones. */
void bus_access(struct bus_space *space, uint64_t addr, void *data,
		unsigned int len, bool write);

/* Prints every field of every device, for people, on standard error. */
void bus_show_devices(struct bus *bus);

#endif /* DEV_BUS_H */
