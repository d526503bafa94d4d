// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Opens disk images. The lock is one of the open file description (fcntl(2)),
 * so it goes with the descriptor, into another process too, and not with the
 * first close of the file anywhere in this one.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "../util/util.h"
#include "disk.h"

#define SECTOR	512

static void alarmed(int sig)
{
	(void)sig;
}

/*
 * A program that was just killed holds its locks until the last of its I/O has
 * ended: give it a moment. The timer repeats, so that an alarm before the wait
 * begins cannot be the only one.
 */
static int lock_in_time(int fd, struct flock *fl)
{
	struct itimerval moment = { .it_value.tv_sec = 1, .it_interval.tv_usec = 100000 };
	struct itimerval never = { 0 };
	struct sigaction sa = { .sa_handler = alarmed }, old;
	int ret;

	if (!fcntl(fd, F_OFD_SETLK, fl))
		return 0;
	if (errno != EAGAIN && errno != EACCES)
		return -errno;
	sigaction(SIGALRM, &sa, &old);
	setitimer(ITIMER_REAL, &moment, NULL);
	ret = fcntl(fd, F_OFD_SETLKW, fl) ? -errno : 0;
	setitimer(ITIMER_REAL, &never, NULL);
	sigaction(SIGALRM, &old, NULL);
	return ret;
}

static int lock(const struct disk *disk)
{
	struct flock fl = {
		.l_type = disk->readonly ? F_RDLCK : F_WRLCK,
		.l_whence = SEEK_SET,
	};
	int ret = lock_in_time(disk->fd, &fl);

	if (ret == -EINTR)
		return fail(EBUSY, "disk %s is in use by another program (its lock is taken)",
			    disk->path);
	if (ret)
		return fail(-ret, "cannot lock disk %s: %s", disk->path, strerror(-ret));
	return 0;
}

static int find_size(struct disk *disk, const struct stat *st)
{
	int block_size;

	disk->block_size = SECTOR;
	if (S_ISREG(st->st_mode)) {
		disk->size = (uint64_t)st->st_size;
	} else if (S_ISBLK(st->st_mode)) {
		if (ioctl(disk->fd, BLKGETSIZE64, &disk->size) ||
		    ioctl(disk->fd, BLKSSZGET, &block_size))
			return fail(errno, "cannot find the size of disk %s: %s",
				    disk->path, strerror(errno));
		disk->block_size = (uint32_t)block_size;
	} else {
		return fail(EINVAL, "disk %s is neither a file nor a block device", disk->path);
	}
	disk->size -= disk->size % SECTOR;
	if (!disk->size)
		return fail(EINVAL, "disk %s is empty: make it larger, for example with 'truncate -s 1G'",
			    disk->path);
	return 0;
}

int disk_open(struct disk *disk)
{
	struct stat st;
	int ret;

	disk->fd = open(disk->path, (disk->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	if (disk->fd < 0) {
		ret = errno;
		return fail(ret, "cannot open disk %s: %s%s", disk->path, strerror(ret),
			    !disk->readonly && (ret == EACCES || ret == EROFS) ?
			    "; add ',readonly' to use it without writing" : "");
	}
	if (fstat(disk->fd, &st)) {
		ret = fail(errno, "cannot examine disk %s: %s", disk->path, strerror(errno));
		goto out_close;
	}
	ret = find_size(disk, &st);
	if (!ret)
		ret = lock(disk);
	if (!ret)
		return 0;
out_close:
	disk_close(disk);
	return ret;
}

void disk_close(struct disk *disk)
{
	close(disk->fd);
	disk->fd = -1;
}
