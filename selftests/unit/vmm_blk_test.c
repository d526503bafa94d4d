// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * virtio-blk on a real file by the real io_uring: each kind of request, in
 * every cut of its buffers, and every way in which a request can be wrong.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tap.h"
#include "dev/virtio_blk.h"
#include "rng.h"
#include "vmm_driver.h"
#include "vmm_fake.h"

#define NEXT		VRING_DESC_F_NEXT
#define WRITE		VRING_DESC_F_WRITE
#define DISK_SIZE	(1 * MIB)
#define HEADER		DRIVER_DATA
#define STATUS		(DRIVER_DATA + 64)
#define DATA		(DRIVER_DATA + 4096)

static struct ram ram;
static struct loop loop;
static struct bus bus;
static struct pci_bus pci;
static struct kvm kvm = { .vm_fd = -1 };
static struct blk blk;
static struct disk disk;
static struct driver drv;
static char path[] = "/tmp/vmm_blk.XXXXXX";
static uint8_t pattern[DISK_SIZE];

static void start(bool readonly)
{
	struct io_uring probe;
	struct rng rng = { 0x626c6b };
	size_t i;
	int fd;

	if (io_uring_queue_init(1, &probe, 0))
		SKIP("no io_uring here");
	io_uring_queue_exit(&probe);
	for (i = 0; i < DISK_SIZE; i++)
		pattern[i] = (uint8_t)rng_next(&rng);
	fd = mkstemp(path);
	ASSERT_OK(fd);
	ASSERT_EQ(write(fd, pattern, DISK_SIZE), DISK_SIZE);
	close(fd);
	disk = (struct disk){ .path = path, .readonly = readonly };
	ASSERT_EQ(disk_open(&disk), 0);
	unlink(path);

	ASSERT_EQ(ram_init(&ram, 32 * MIB), 0);
	ASSERT_EQ(loop_init(&loop), 0);
	bus_init(&bus);
	ASSERT_EQ(pci_init(&pci, &bus, &kvm), 0);
	ASSERT_EQ(blk_init(&blk, 0, 1, &disk, &pci, &ram, &loop), 0);
	blk.vdev.features = BIT_ULL(VIRTIO_F_VERSION_1) | BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC);
	virtio_set_status(&blk.vdev, VIRTIO_CONFIG_S_DRIVER_OK);
	driver_init(&drv, &blk.vdev.queues[0], &ram, VIRTQ_MAX_SIZE);
}

/* Lets the device work until it has answered. The length written. */
static uint32_t finish(void)
{
	struct pollfd pfd = { .fd = blk.ring.ring_fd, .events = POLLIN };
	struct vring_used_elem elem;

	blk.vdev.ops->kick(&blk.vdev, drv.vq);
	while (!driver_take(&drv, &elem)) {
		if (poll(&pfd, 1, 10000) != 1)
			FAIL("no completion");
		blk.done.ready(&blk.done);
	}
	return elem.len;
}

/* One request in the usual three buffers. The status. */
static uint8_t request(uint32_t type, uint64_t sector, uint32_t len, bool in)
{
	struct virtio_blk_outhdr header = { .type = type, .sector = sector };
	uint8_t *status = ram_ptr(&ram, STATUS, 1);
	uint32_t written;

	*status = 0xee;
	ram_write(&ram, HEADER, &header, sizeof(header));
	driver_desc(&drv, 0, HEADER, sizeof(header), NEXT, len ? 1 : 2);
	driver_desc(&drv, 1, DATA, len, NEXT | (in ? WRITE : 0), 2);
	driver_desc(&drv, 2, STATUS, 1, WRITE, 0);
	driver_offer(&drv, 0);
	written = finish();
	EXPECT_EQ(written, in && *status == VIRTIO_BLK_S_OK ? len + 1 : 1);
	return *status;
}

static uint8_t range_request(uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags)
{
	struct virtio_blk_discard_write_zeroes seg = {
		.sector = sector, .num_sectors = sectors, .flags = flags,
	};

	ram_write(&ram, DATA, &seg, sizeof(seg));
	return request(type, 0, sizeof(seg), false);
}

static bool file_is(uint64_t at, const void *data, size_t len)
{
	uint8_t *now = malloc(len);
	bool same;

	same = pread(disk.fd, now, len, (off_t)at) == (ssize_t)len && !memcmp(now, data, len);
	free(now);
	return same;
}

TEST(read_gives_what_is_on_the_disk)
{
	start(false);
	EXPECT_EQ(request(VIRTIO_BLK_T_IN, 3, 8192, true), VIRTIO_BLK_S_OK);
	EXPECT_MEMEQ(ram_ptr(&ram, DATA, 8192), pattern + 3 * 512, 8192);
	EXPECT_EQ(request(VIRTIO_BLK_T_IN, DISK_SIZE / 512 - 1, 512, true), VIRTIO_BLK_S_OK);
	EXPECT_MEMEQ(ram_ptr(&ram, DATA, 512), pattern + DISK_SIZE - 512, 512);
}

TEST(write_and_flush_reach_the_disk)
{
	uint8_t data[4096];

	start(false);
	memset(data, 0xa5, sizeof(data));
	ram_write(&ram, DATA, data, sizeof(data));
	EXPECT_EQ(request(VIRTIO_BLK_T_OUT, 8, sizeof(data), false), VIRTIO_BLK_S_OK);
	EXPECT_EQ(request(VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_OK);
	EXPECT_TRUE(file_is(4096, data, sizeof(data)));
	EXPECT_TRUE(file_is(0, pattern, 4096));
	EXPECT_TRUE(file_is(8192, pattern + 8192, DISK_SIZE - 8192));
	EXPECT_EQ(blk.flushes, 1);
}

TEST(buffers_may_be_cut_anywhere)
{
	struct virtio_blk_outhdr header = { .type = VIRTIO_BLK_T_IN, .sector = 1 };
	unsigned int n = 0;

	start(false);
	ram_write(&ram, HEADER, &header, sizeof(header));
	/* The header in three, the data in two, the status behind the data. */
	driver_desc(&drv, n++, HEADER, 5, NEXT, 1);
	driver_desc(&drv, n++, HEADER + 5, 0, NEXT, 2);
	driver_desc(&drv, n++, HEADER + 5, 11, NEXT, 3);
	driver_desc(&drv, n++, DATA, 100, WRITE | NEXT, 4);
	driver_desc(&drv, n++, DATA + 100, 413, WRITE | NEXT, 5);
	driver_desc(&drv, n++, DATA + 513, 0, WRITE, 0);
	driver_offer(&drv, 0);
	EXPECT_EQ(finish(), 513);
	EXPECT_MEMEQ(ram_ptr(&ram, DATA, 512), pattern + 512, 512);
	EXPECT_EQ(*(uint8_t *)ram_ptr(&ram, DATA + 512, 1), VIRTIO_BLK_S_OK);
}

TEST(serial_number_names_the_disk)
{
	start(false);
	EXPECT_EQ(request(VIRTIO_BLK_T_GET_ID, 0, 20, true), VIRTIO_BLK_S_OK);
	EXPECT_STREQ((char *)ram_ptr(&ram, DATA, 20), "fonda-disk0");
}

TEST(discard_and_write_zeroes_clear)
{
	static const uint8_t zeroes[65536];
	uint8_t status;

	start(false);
	status = range_request(VIRTIO_BLK_T_WRITE_ZEROES, 8, 128, 0);
	if (status == VIRTIO_BLK_S_UNSUPP)
		SKIP("the file system of /tmp has no holes");
	EXPECT_EQ(status, VIRTIO_BLK_S_OK);
	EXPECT_TRUE(file_is(4096, zeroes, 65536));
	EXPECT_TRUE(file_is(4096 + 65536, pattern + 4096 + 65536, 4096));
	EXPECT_EQ(range_request(VIRTIO_BLK_T_WRITE_ZEROES, 256, 16,
				VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP), VIRTIO_BLK_S_OK);
	EXPECT_TRUE(file_is(256 * 512, zeroes, 16 * 512));
	EXPECT_EQ(range_request(VIRTIO_BLK_T_DISCARD, 512, 64, 0), VIRTIO_BLK_S_OK);
	EXPECT_TRUE(file_is(512 * 512, zeroes, 64 * 512));
}

TEST(ranges_that_make_no_sense_are_refused)
{
	start(false);
	EXPECT_EQ(range_request(VIRTIO_BLK_T_DISCARD, 0, 8, 1), VIRTIO_BLK_S_UNSUPP);
	EXPECT_EQ(range_request(VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 2), VIRTIO_BLK_S_UNSUPP);
	EXPECT_EQ(range_request(VIRTIO_BLK_T_DISCARD, 0, UINT32_MAX, 0), VIRTIO_BLK_S_UNSUPP);
	EXPECT_EQ(range_request(VIRTIO_BLK_T_DISCARD, UINT64_MAX, 1, 0), VIRTIO_BLK_S_IOERR);
	EXPECT_EQ(range_request(VIRTIO_BLK_T_DISCARD, DISK_SIZE / 512 - 1, 2, 0),
		  VIRTIO_BLK_S_IOERR);
	EXPECT_EQ(request(VIRTIO_BLK_T_DISCARD, 0, 15, false), VIRTIO_BLK_S_UNSUPP);
	EXPECT_EQ(range_request(VIRTIO_BLK_T_DISCARD, 5, 0, 0), VIRTIO_BLK_S_OK);
	EXPECT_TRUE(file_is(0, pattern, DISK_SIZE));
}

TEST(transfers_beyond_the_end_are_errors)
{
	start(false);
	EXPECT_EQ(request(VIRTIO_BLK_T_IN, DISK_SIZE / 512, 512, true), VIRTIO_BLK_S_IOERR);
	EXPECT_EQ(request(VIRTIO_BLK_T_IN, DISK_SIZE / 512 - 1, 1024, true), VIRTIO_BLK_S_IOERR);
	EXPECT_EQ(request(VIRTIO_BLK_T_OUT, UINT64_MAX, 512, false), VIRTIO_BLK_S_IOERR);
	EXPECT_EQ(request(VIRTIO_BLK_T_OUT, UINT64_MAX / 512, 512, false), VIRTIO_BLK_S_IOERR);
	EXPECT_EQ(request(VIRTIO_BLK_T_IN, 0, 511, true), VIRTIO_BLK_S_IOERR);
	EXPECT_EQ(request(99, 0, 512, true), VIRTIO_BLK_S_UNSUPP);
	EXPECT_TRUE(file_is(0, pattern, DISK_SIZE));
	EXPECT_EQ(fake.sentences, 0);
}

TEST(readonly_disk_is_never_written)
{
	start(true);
	EXPECT_TRUE(blk.vdev.offered & BIT_ULL(VIRTIO_BLK_F_RO));
	EXPECT_EQ(request(VIRTIO_BLK_T_OUT, 0, 512, false), VIRTIO_BLK_S_IOERR);
	EXPECT_EQ(range_request(VIRTIO_BLK_T_DISCARD, 0, 8, 0), VIRTIO_BLK_S_IOERR);
	EXPECT_EQ(range_request(VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 0), VIRTIO_BLK_S_IOERR);
	EXPECT_EQ(request(VIRTIO_BLK_T_IN, 0, 512, true), VIRTIO_BLK_S_OK);
	EXPECT_TRUE(file_is(0, pattern, DISK_SIZE));
}

TEST(image_that_shrinks_gives_errors_and_one_sentence)
{
	struct stat st;

	start(false);
	ASSERT_OK(ftruncate(disk.fd, DISK_SIZE / 2 + 512));
	EXPECT_EQ(request(VIRTIO_BLK_T_IN, DISK_SIZE / 512 / 2, 512, true), VIRTIO_BLK_S_OK);
	EXPECT_EQ(request(VIRTIO_BLK_T_IN, DISK_SIZE / 512 - 8, 4096, true), VIRTIO_BLK_S_IOERR);
	EXPECT_EQ(fake.sentences, 1);
	EXPECT_TRUE(strstr(fake.sentence, "I/O error"));
	EXPECT_EQ(request(VIRTIO_BLK_T_IN, DISK_SIZE / 512 - 8, 4096, true), VIRTIO_BLK_S_IOERR);
	EXPECT_EQ(fake.sentences, 1);
	ASSERT_OK(fstat(disk.fd, &st));
	EXPECT_EQ(st.st_size, DISK_SIZE / 2 + 512);
}

TEST(requests_without_header_or_status_are_harmless)
{
	start(false);
	driver_desc(&drv, 0, HEADER, 16, 0, 0);		/* nowhere to answer */
	driver_offer(&drv, 0);
	EXPECT_EQ(finish(), 0);
	driver_desc(&drv, 0, HEADER, 16, NEXT, 1);
	driver_desc(&drv, 1, STATUS, 0, WRITE, 0);
	driver_offer(&drv, 0);
	EXPECT_EQ(finish(), 0);
	driver_desc(&drv, 0, HEADER, 15, NEXT, 1);	/* too short a header */
	driver_desc(&drv, 1, STATUS, 1, WRITE, 0);
	driver_offer(&drv, 0);
	EXPECT_EQ(finish(), 1);
	EXPECT_EQ(*(uint8_t *)ram_ptr(&ram, STATUS, 1), VIRTIO_BLK_S_IOERR);
	EXPECT_EQ(request(VIRTIO_BLK_T_IN, 0, 512, true), VIRTIO_BLK_S_OK);
}

/* The whole ring at once, more than io_uring has entries. */
TEST(full_ring_is_served_in_one_kick)
{
	struct pollfd pfd = { .fd = -1, .events = POLLIN };
	struct virtio_blk_outhdr header = { .type = VIRTIO_BLK_T_IN };
	struct vring_desc table[3];
	struct vring_used_elem elem;
	unsigned int i, done = 0;

	start(false);
	pfd.fd = blk.ring.ring_fd;
	for (i = 0; i < VIRTQ_MAX_SIZE; i++) {
		header.sector = i * 8;
		ram_write(&ram, HEADER + 0x100000 + i * 256, &header, sizeof(header));
		table[0] = (struct vring_desc){ HEADER + 0x100000 + i * 256, 16, NEXT, 1 };
		table[1] = (struct vring_desc){ DATA + 0x200000 + i * 4096, 4096, NEXT | WRITE, 2 };
		table[2] = (struct vring_desc){ HEADER + 0x100080 + i * 256, 1, WRITE, 0 };
		ram_write(&ram, HEADER + 0x100010 + i * 256, table, sizeof(table));
		driver_desc(&drv, i, HEADER + 0x100010 + i * 256, sizeof(table),
			    VRING_DESC_F_INDIRECT, 0);
		driver_offer(&drv, (uint16_t)i);
	}
	blk.vdev.ops->kick(&blk.vdev, drv.vq);
	while (done < VIRTQ_MAX_SIZE) {
		while (driver_take(&drv, &elem))
			done++;
		if (done < VIRTQ_MAX_SIZE && poll(&pfd, 1, 10000) != 1)
			FAIL("only %u completions", done);
		blk.done.ready(&blk.done);
	}
	EXPECT_MEMEQ(ram_ptr(&ram, DATA + 0x200000, VIRTQ_MAX_SIZE * 4096), pattern,
		     VIRTQ_MAX_SIZE * 4096);
}

TEST(reset_waits_for_what_is_in_flight)
{
	start(false);
	ram_write(&ram, HEADER, &(struct virtio_blk_outhdr){ .type = VIRTIO_BLK_T_IN }, 16);
	driver_desc(&drv, 0, HEADER, 16, NEXT, 1);
	driver_desc(&drv, 1, DATA, 65536, NEXT | WRITE, 2);
	driver_desc(&drv, 2, STATUS, 1, WRITE, 0);
	driver_offer(&drv, 0);
	blk.vdev.ops->kick(&blk.vdev, drv.vq);
	virtio_set_status(&blk.vdev, 0);
	EXPECT_EQ(blk.in_flight, 0);
	memset(ram_ptr(&ram, DATA, 65536), 0, 65536);
	blk.done.ready(&blk.done);
	EXPECT_EQ(*(uint8_t *)ram_ptr(&ram, DATA, 1), 0);
}

TEST(disk_in_use_is_refused)
{
	struct disk second = { .path = path };
	int fd;

	fd = mkstemp(path);
	ASSERT_OK(fd);
	ASSERT_OK(ftruncate(fd, 4096));
	disk = (struct disk){ .path = path, .readonly = true };
	ASSERT_EQ(disk_open(&disk), 0);
	EXPECT_EQ(disk_open(&second), -EBUSY);
	EXPECT_TRUE(strstr(fake.sentence, "in use"));
	second.readonly = true;			/* readers share */
	EXPECT_EQ(disk_open(&second), 0);
	disk_close(&disk);
	disk_close(&second);
	second.readonly = false;
	EXPECT_EQ(disk_open(&second), 0);
	disk_close(&second);

	ASSERT_OK(ftruncate(fd, 511));
	EXPECT_EQ(disk_open(&second), -EINVAL);
	EXPECT_TRUE(strstr(fake.sentence, "empty"));
	second.path = "/tmp";
	EXPECT_EQ(disk_open(&second), -EISDIR);
	second.path = "/dev/null";
	EXPECT_EQ(disk_open(&second), -EINVAL);
	second.path = "/does/not/exist";
	EXPECT_EQ(disk_open(&second), -ENOENT);
	unlink(path);
}
