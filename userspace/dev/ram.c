// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Guest memory in a memfd or a file like it: other processes can map it, and a
 * file descriptor is all that has to travel.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>

#include "../util/util.h"
#include "ram.h"

#define SHMEM_ENABLED	"/sys/kernel/mm/transparent_hugepage/shmem_enabled"
#define HUGE_PAGE	(2 * MIB)

/* The setting in force is in brackets. */
static bool memfds_get_huge_pages(void)
{
	char line[128] = "";
	FILE *f = fopen(SHMEM_ENABLED, "re");
	bool some;

	if (!f)
		return false;
	some = fgets(line, sizeof(line), f) && !strstr(line, "[never]");
	fclose(f);
	return some;
}

/*
 * An unnamed file in a tmpfs that nobody else sees, whose files may have huge
 * pages. It needs the right to mount. -1 if that cannot be had.
 */
static int open_in_own_tmpfs(uint64_t size)
{
	int fs, mnt = -1, fd = -1;
	char bytes[32];

	fs = fsopen("tmpfs", FSOPEN_CLOEXEC);
	if (fs < 0)
		return -1;
	snprintf(bytes, sizeof(bytes), "%llu", (unsigned long long)align_up(size, HUGE_PAGE));
	if (!fsconfig(fs, FSCONFIG_SET_STRING, "huge", "advise", 0) &&
	    !fsconfig(fs, FSCONFIG_SET_STRING, "size", bytes, 0) &&
	    !fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
		mnt = fsmount(fs, FSMOUNT_CLOEXEC, 0);
	close(fs);
	if (mnt < 0)
		return -1;
	fd = openat(mnt, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	close(mnt);		/* the open file keeps what it needs */
	return fd;
}

/*
 * Most systems give no huge pages to memfds, and that makes guests slow: a
 * fault for each 4 KiB, and two page tables to walk to the end. Where we are
 * allowed to we help ourselves.
 */
static int open_memory(uint64_t size)
{
	int fd = -1;

	if (!memfds_get_huge_pages())
		fd = open_in_own_tmpfs(size);
	if (fd < 0)
		fd = memfd_create("guest-memory", MFD_CLOEXEC);
	return fd;
}

int ram_init(struct ram *ram, uint64_t size)
{
	uint64_t low = MIN(size, RAM_HOLE_START);
	int ret;

	memset(ram, 0, sizeof(*ram));
	ram->fd = open_memory(size);
	if (ram->fd < 0)
		return fail(errno, "cannot make a memory file: %s", strerror(errno));
	if (ftruncate(ram->fd, (off_t)size)) {
		ret = errno;
		goto out_close;
	}
	ram->base = mmap(NULL, size, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_NORESERVE, ram->fd, 0);
	if (ram->base == MAP_FAILED) {
		ret = errno;
		goto out_close;
	}
	/* Advice only: kernels without huge pages for memfds refuse it. */
	madvise(ram->base, size, MADV_HUGEPAGE);
	/* A core dump of the VMM is about the VMM. */
	madvise(ram->base, size, MADV_DONTDUMP);

	ram->size = size;
	ram->regions[0] = (struct ram_region){ 0, low, ram->base };
	ram->nr_regions = 1;
	if (size > low)
		ram->regions[ram->nr_regions++] = (struct ram_region){
			RAM_HOLE_END, size - low, ram->base + low
		};
	return 0;

out_close:
	close(ram->fd);
	return fail(ret, "cannot get %llu MiB for the guest's memory: %s",
		    (unsigned long long)(size / MIB), strerror(ret));
}

void ram_fini(struct ram *ram)
{
	munmap(ram->base, ram->size);
	close(ram->fd);
}

int ram_clear(struct ram *ram)
{
	if (!fallocate(ram->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
		       (off_t)ram->size))
		return 0;
	return fail(errno, "cannot clear the guest's memory: %s", strerror(errno));
}

void *ram_ptr(const struct ram *ram, uint64_t gpa, uint64_t len)
{
	const struct ram_region *r;
	unsigned int i;

	for (i = 0; i < ram->nr_regions; i++) {
		r = &ram->regions[i];
		if (gpa >= r->gpa && gpa - r->gpa <= r->size &&
		    len <= r->size - (gpa - r->gpa))
			return r->hva + (gpa - r->gpa);
	}
	return NULL;
}

int ram_write(const struct ram *ram, uint64_t gpa, const void *data, size_t len)
{
	void *p = ram_ptr(ram, gpa, len);

	if (!p)
		return -EFAULT;
	memcpy(p, data, len);
	return 0;
}
