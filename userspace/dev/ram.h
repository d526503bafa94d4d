/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's memory: one memory file, mapped once, seen by the guest in at most two
 * pieces, below and above the hole for PCI. Devices reach it only through
 * ram_ptr(), which is where hostile addresses end.
 */
#ifndef DEV_RAM_H
#define DEV_RAM_H

#include <stddef.h>
#include <stdint.h>

/* RAM that does not fit below the hole continues at 4 GiB. */
#define RAM_HOLE_START	0xc0000000ULL
#define RAM_HOLE_END	0x100000000ULL

struct ram_region {
	uint64_t gpa;
	uint64_t size;
	uint8_t *hva;
};

struct ram {
	int fd;
	uint64_t size;
	uint8_t *base;
	unsigned int nr_regions;
	struct ram_region regions[2];
};

/* @size in bytes, a multiple of 4096. Zero-filled. 0 or a negative errno. */
int ram_init(struct ram *ram, uint64_t size);
void ram_fini(struct ram *ram);

/* Gives every page back to the host: all is zero again. */
int ram_clear(struct ram *ram);

/*
 * Where guest-physical [@gpa, @gpa + @len) is mapped, or NULL unless all of it
 * lies in one piece of RAM.
 */
void *ram_ptr(const struct ram *ram, uint64_t gpa, uint64_t len);

/* Copies into RAM: 0 or -EFAULT. */
int ram_write(const struct ram *ram, uint64_t gpa, const void *data, size_t len);

#endif /* DEV_RAM_H */
