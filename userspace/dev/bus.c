// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Finds the device behind an address and calls it under its lock.
 */
#include <errno.h>

#include "../util/util.h"
#include "bus.h"

static void space_init(struct bus_space *space)
{
	pthread_rwlock_init(&space->lock, NULL);
	space->nr = 0;
}

void bus_init(struct bus *bus)
{
	space_init(&bus->pio);
	space_init(&bus->mmio);
	bus->devices = NULL;
}

void bus_fini(struct bus *bus)
{
	struct device *dev;

	for (dev = bus->devices; dev; dev = dev->next)
		pthread_mutex_destroy(&dev->lock);
	pthread_rwlock_destroy(&bus->pio.lock);
	pthread_rwlock_destroy(&bus->mmio.lock);
}

void bus_add_device(struct bus *bus, struct device *dev)
{
	struct device **p = &bus->devices;

	pthread_mutex_init(&dev->lock, NULL);
	dev->next = NULL;
	while (*p)
		p = &(*p)->next;
	*p = dev;
}

int bus_map(struct bus_space *space, struct bus_region *r)
{
	int ret = -ENOSPC;

	pthread_rwlock_wrlock(&space->lock);
	if (space->nr < BUS_MAX_REGIONS) {
		space->regions[space->nr++] = r;
		ret = 0;
	}
	pthread_rwlock_unlock(&space->lock);
	return ret;
}

void bus_unmap(struct bus_space *space, struct bus_region *r)
{
	unsigned int i;

	pthread_rwlock_wrlock(&space->lock);
	for (i = 0; i < space->nr && space->regions[i] != r; i++)
		;
	if (i < space->nr) {
		space->nr--;
		memmove(&space->regions[i], &space->regions[i + 1],
			(space->nr - i) * sizeof(space->regions[0]));
	}
	pthread_rwlock_unlock(&space->lock);
}

static struct bus_region *find(struct bus_space *space, uint64_t addr,
			       unsigned int len, uint64_t *offset)
{
	struct bus_region *r, *found = NULL;
	unsigned int i;

	pthread_rwlock_rdlock(&space->lock);
	for (i = 0; i < space->nr; i++) {
		r = space->regions[i];
		*offset = addr - r->base;
		if (*offset < r->size && len <= r->size - *offset) {
			found = r;
			break;
		}
	}
	pthread_rwlock_unlock(&space->lock);
	return found;
}

void bus_access(struct bus_space *space, uint64_t addr, void *data,
		unsigned int len, bool write)
{
	uint64_t offset, value = ~0ULL;
	struct bus_region *r;

	r = find(space, addr, len, &offset);
	if (!r) {
		if (!write)
			memset(data, 0xff, len);
		return;
	}

	pthread_mutex_lock(&r->dev->lock);
	if (write) {
		value = 0;
		memcpy(&value, data, len);
		r->write(r, offset, len, value);
	} else {
		value = r->read(r, offset, len);
		memcpy(data, &value, len);
	}
	pthread_mutex_unlock(&r->dev->lock);
}

void bus_show_devices(struct bus *bus)
{
	struct device *dev;

	for (dev = bus->devices; dev; dev = dev->next)
		device_show(dev);
}
