/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A disk image: an open file or block device, locked against other users.
 */
#ifndef DEV_DISK_H
#define DEV_DISK_H

#include <stdbool.h>
#include <stdint.h>

struct disk {
	const char *path;
	bool readonly;
	int fd;
	uint64_t size;			/* bytes, a multiple of 512 */
	uint32_t block_size;		/* logical: 512, or the device's */
};

/* Opens and locks @disk->path. 0 or a negative errno, with a sentence. */
int disk_open(struct disk *disk);
void disk_close(struct disk *disk);

#endif /* DEV_DISK_H */
