// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Split virtqueues: chains, indirect tables, the rules of notification, and
 * drivers that break every rule. What a chain gives the device must always lie
 * in guest memory.
 */
#include <string.h>

#include "tap.h"
#include "rng.h"
#include "vmm_driver.h"
#include "vmm_fake.h"

#define SIZE		16
#define NEXT		VRING_DESC_F_NEXT
#define WRITE		VRING_DESC_F_WRITE
#define INDIRECT	VRING_DESC_F_INDIRECT

static struct ram ram;
static struct loop loop;
static struct virtio_dev vdev;
static struct driver drv;
static unsigned int interrupts, config_interrupts;
static struct virtq_chain chain;

static void no_kick(struct virtio_dev *dev, struct virtq *vq)
{
}

static const struct virtio_ops ops = { .name = "test", .kick = no_kick };

static void count_interrupt(struct virtio_dev *dev, struct virtq *vq)
{
	if (vq)
		interrupts++;
	else
		config_interrupts++;
}

static void start(uint64_t features)
{
	ASSERT_EQ(ram_init(&ram, 32 * MIB), 0);
	ASSERT_EQ(loop_init(&loop), 0);
	vdev.dev.name = "test";
	ASSERT_EQ(virtio_init(&vdev, &ops, 1, 0, &ram, &loop), 0);
	vdev.interrupt = count_interrupt;
	vdev.features = features | BIT_ULL(VIRTIO_F_VERSION_1);
	virtio_set_status(&vdev, VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
	driver_init(&drv, &vdev.queues[0], &ram, SIZE);
}

static bool broken(void)
{
	return vdev.status & VIRTIO_CONFIG_S_NEEDS_RESET;
}

TEST(chain_arrives_in_order_with_out_before_in)
{
	struct vring_used_elem elem;

	start(0);
	driver_desc(&drv, 3, DRIVER_DATA, 16, NEXT, 5);
	driver_desc(&drv, 5, DRIVER_DATA + 4096, 512, NEXT, 1);
	driver_desc(&drv, 1, DRIVER_DATA + 8192, 1, WRITE | NEXT, 2);
	driver_desc(&drv, 2, DRIVER_DATA + 9000, 7, WRITE, 0);
	EXPECT_FALSE(virtq_pop(drv.vq, &chain));
	driver_offer(&drv, 3);
	ASSERT_TRUE(virtq_pop(drv.vq, &chain));
	EXPECT_EQ(chain.head, 3);
	EXPECT_EQ(chain.nr_out, 2);
	EXPECT_EQ(chain.nr_in, 2);
	EXPECT_EQ(chain.out[0].iov_base, ram_ptr(&ram, DRIVER_DATA, 16));
	EXPECT_EQ(chain.out[1].iov_len, 512);
	EXPECT_EQ(chain.in[1].iov_base, ram_ptr(&ram, DRIVER_DATA + 9000, 7));
	EXPECT_FALSE(virtq_pop(drv.vq, &chain));

	EXPECT_FALSE(driver_take(&drv, &elem));
	virtq_push(drv.vq, 3, 8);
	ASSERT_TRUE(driver_take(&drv, &elem));
	EXPECT_EQ(elem.id, 3);
	EXPECT_EQ(elem.len, 8);
	EXPECT_FALSE(broken());
}

TEST(indices_wrap_after_65536_requests)
{
	struct vring_used_elem elem;
	unsigned int i;

	start(0);
	driver_desc(&drv, 0, DRIVER_DATA, 4, 0, 0);
	for (i = 0; i < 70000; i++) {
		driver_offer(&drv, 0);
		if (!virtq_pop(drv.vq, &chain))
			FAIL("request %u is missing", i);
		virtq_push(drv.vq, chain.head, i);
		virtq_notify(drv.vq);
		if (!driver_take(&drv, &elem) || elem.len != i)
			FAIL("answer %u is wrong", i);
	}
	EXPECT_EQ(interrupts, 70000);
	EXPECT_FALSE(broken());
}

TEST(indirect_table_is_followed_even_unaligned)
{
	struct vring_desc table[3] = {
		{ DRIVER_DATA, 4, NEXT, 2 }, { 0, 0, 0, 0 }, { DRIVER_DATA + 64, 8, WRITE, 0 },
	};

	start(BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC));
	ram_write(&ram, DRIVER_DATA + 0x1001, table, sizeof(table));
	driver_desc(&drv, 0, DRIVER_DATA + 0x1001, sizeof(table), INDIRECT, 0);
	driver_offer(&drv, 0);
	ASSERT_TRUE(virtq_pop(drv.vq, &chain));
	EXPECT_EQ(chain.nr_out, 1);
	EXPECT_EQ(chain.nr_in, 1);
	EXPECT_EQ(chain.in[0].iov_len, 8);
}

TEST(interrupts_follow_the_flag)
{
	start(0);
	driver_desc(&drv, 0, DRIVER_DATA, 4, 0, 0);
	drv.avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
	virtq_push(drv.vq, 0, 0);
	virtq_notify(drv.vq);
	EXPECT_EQ(interrupts, 0);
	drv.avail->flags = 0;
	virtq_notify(drv.vq);		/* nothing new */
	EXPECT_EQ(interrupts, 0);
	virtq_push(drv.vq, 0, 0);
	virtq_push(drv.vq, 0, 0);
	virtq_notify(drv.vq);
	EXPECT_EQ(interrupts, 1);
}

TEST(interrupts_and_kicks_follow_the_event_index)
{
	uint16_t *used_event, *avail_event;
	unsigned int i;

	start(BIT_ULL(VIRTIO_RING_F_EVENT_IDX));
	used_event = &drv.avail->ring[SIZE];
	avail_event = (uint16_t *)(void *)&drv.used->ring[SIZE];
	*used_event = 2;		/* wake me when entry 2 is there */
	for (i = 0; i < 3; i++) {
		virtq_push(drv.vq, 0, 0);
		virtq_notify(drv.vq);
		EXPECT_EQ(interrupts, i == 2);
	}
	*used_event = 4;		/* among a batch */
	for (i = 0; i < 4; i++)
		virtq_push(drv.vq, 0, 0);
	virtq_notify(drv.vq);
	EXPECT_EQ(interrupts, 2);

	driver_desc(&drv, 0, DRIVER_DATA, 4, 0, 0);
	driver_offer(&drv, 0);
	driver_offer(&drv, 0);
	EXPECT_TRUE(virtq_pop(drv.vq, &chain));
	EXPECT_TRUE(virtq_pop(drv.vq, &chain));
	EXPECT_FALSE(virtq_pop(drv.vq, &chain));
	EXPECT_EQ(*avail_event, 2);	/* kick me for the third */
}

/* A chain of one descriptor after another, each of them wrong in its way. */
static void offer_wrong(const char *what)
{
	driver_offer(&drv, 0);
	EXPECT_FALSE(virtq_pop(drv.vq, &chain));
	EXPECT_TRUE(broken());
	EXPECT_TRUE(strstr(fake.sentence, what));
	EXPECT_EQ(fake.sentences, 1);
	EXPECT_EQ(config_interrupts, 1);

	/* Once is enough, and nothing more is served. */
	driver_desc(&drv, 0, DRIVER_DATA, 4, 0, 0);
	driver_offer(&drv, 0);
	EXPECT_FALSE(virtq_pop(drv.vq, &chain));
	virtq_push(drv.vq, 0, 0);
	EXPECT_EQ(drv.used->idx, 0);
	EXPECT_EQ(fake.sentences, 1);

	/* Until a reset, after which all is well. */
	virtio_set_status(&vdev, 0);
	virtio_set_status(&vdev, VIRTIO_CONFIG_S_DRIVER_OK);
	driver_init(&drv, &vdev.queues[0], &ram, SIZE);
	driver_desc(&drv, 0, DRIVER_DATA, 4, 0, 0);
	driver_offer(&drv, 0);
	EXPECT_TRUE(virtq_pop(drv.vq, &chain));
}

TEST(loop_breaks_the_device)
{
	start(0);
	driver_desc(&drv, 0, DRIVER_DATA, 4, NEXT, 1);
	driver_desc(&drv, 1, DRIVER_DATA, 4, NEXT, 0);
	offer_wrong("never ends");
}

TEST(index_outside_of_the_table_breaks_the_device)
{
	start(0);
	driver_desc(&drv, 0, DRIVER_DATA, 4, NEXT, SIZE);
	offer_wrong("outside of its table");
}

TEST(head_outside_of_the_table_breaks_the_device)
{
	start(0);
	drv.avail->ring[0] = 0xffff;
	drv.avail->idx = 1;
	EXPECT_FALSE(virtq_pop(drv.vq, &chain));
	EXPECT_TRUE(broken());
}

TEST(available_index_that_jumps_breaks_the_device)
{
	start(0);
	drv.avail->idx = SIZE + 1;
	EXPECT_FALSE(virtq_pop(drv.vq, &chain));
	EXPECT_TRUE(broken());
}

TEST(buffer_outside_of_memory_breaks_the_device)
{
	start(0);
	driver_desc(&drv, 0, 32 * MIB - 2, 4, 0, 0);
	offer_wrong("outside of memory");
}

TEST(address_that_overflows_breaks_the_device)
{
	start(0);
	driver_desc(&drv, 0, UINT64_MAX - 2, 4, 0, 0);
	offer_wrong("outside of memory");
}

TEST(lengths_that_overflow_break_the_device)
{
	unsigned int i;

	start(0);
	ram_fini(&ram);
	ASSERT_EQ(ram_init(&ram, 2 * GIB), 0);
	driver_init(&drv, &vdev.queues[0], &ram, SIZE);
	vdev.queues[0].enabled = 0;
	virtq_enable(&vdev.queues[0]);
	for (i = 0; i < 4; i++)
		driver_desc(&drv, i, DRIVER_DATA, 0x60000000, i < 3 ? NEXT : 0, (uint16_t)(i + 1));
	offer_wrong("4 GiB");
}

TEST(readable_after_writable_breaks_the_device)
{
	start(0);
	driver_desc(&drv, 0, DRIVER_DATA, 4, NEXT | WRITE, 1);
	driver_desc(&drv, 1, DRIVER_DATA, 4, 0, 0);
	offer_wrong("readable");
}

TEST(indirect_without_the_feature_breaks_the_device)
{
	start(0);
	driver_desc(&drv, 0, DRIVER_DATA, 32, INDIRECT, 0);
	offer_wrong("indirect");
}

TEST(indirect_in_indirect_breaks_the_device)
{
	struct vring_desc table = { DRIVER_DATA, 16, INDIRECT, 0 };

	start(BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC));
	ram_write(&ram, DRIVER_DATA, &table, sizeof(table));
	driver_desc(&drv, 0, DRIVER_DATA, 16, INDIRECT, 0);
	offer_wrong("indirect");
}

TEST(indirect_table_of_odd_length_breaks_the_device)
{
	start(BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC));
	driver_desc(&drv, 0, DRIVER_DATA, 17, INDIRECT, 0);
	offer_wrong("indirect");
}

TEST(indirect_table_of_no_length_breaks_the_device)
{
	start(BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC));
	driver_desc(&drv, 0, DRIVER_DATA, 0, INDIRECT, 0);
	offer_wrong("indirect");
}

TEST(too_many_buffers_break_the_device)
{
	struct vring_desc table[VIRTQ_MAX_SEGMENTS + 1];
	unsigned int i;

	start(BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC));
	for (i = 0; i <= VIRTQ_MAX_SEGMENTS; i++)
		table[i] = (struct vring_desc){ DRIVER_DATA, 1, NEXT, (uint16_t)(i + 1) };
	ram_write(&ram, DRIVER_DATA, table, sizeof(table));
	driver_desc(&drv, 0, DRIVER_DATA, sizeof(table), INDIRECT, 0);
	offer_wrong("too many buffers");
}

TEST(rings_that_make_no_sense_break_the_device)
{
	static const struct { uint16_t size; uint64_t desc, avail, used; } bad[] = {
		{ 0, 0x1000, 0x2000, 0x3000 },
		{ 3, 0x1000, 0x2000, 0x3000 },
		{ VIRTQ_MAX_SIZE * 2, 0x1000, 0x2000, 0x3000 },
		{ 16, 0x1008, 0x2000, 0x3000 },
		{ 16, 0x1000, 0x2001, 0x3000 },
		{ 16, 0x1000, 0x2000, 0x3002 },
		{ 16, 32 * MIB - 128, 0x2000, 0x3000 },
		{ 16, 0x1000, 32 * MIB - 16, 0x3000 },
		{ 16, 0x1000, 0x2000, 32 * MIB - 16 },
		{ 16, 0x1000, 0x2000, UINT64_MAX & ~3ULL },
	};
	struct virtq *vq = &vdev.queues[0];
	size_t i;

	start(0);
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		virtio_set_status(&vdev, 0);
		EXPECT_FALSE(broken());
		vq->size = bad[i].size;
		vq->desc_gpa = bad[i].desc;
		vq->avail_gpa = bad[i].avail;
		vq->used_gpa = bad[i].used;
		virtq_enable(vq);
		EXPECT_TRUE(broken());
		EXPECT_FALSE(vq->enabled);
		EXPECT_FALSE(virtq_pop(vq, &chain));
		virtq_push(vq, 0, 0);
		virtq_notify(vq);
	}
}

TEST(features_that_were_not_offered_are_not_ok)
{
	start(0);
	virtio_set_status(&vdev, 0);
	vdev.features = BIT_ULL(VIRTIO_F_VERSION_1) | BIT_ULL(40);
	virtio_set_status(&vdev, VIRTIO_CONFIG_S_FEATURES_OK);
	EXPECT_FALSE(vdev.status & VIRTIO_CONFIG_S_FEATURES_OK);
	vdev.features = 0;		/* not even version 1 */
	virtio_set_status(&vdev, VIRTIO_CONFIG_S_FEATURES_OK);
	EXPECT_FALSE(vdev.status & VIRTIO_CONFIG_S_FEATURES_OK);
	vdev.features = BIT_ULL(VIRTIO_F_VERSION_1);
	virtio_set_status(&vdev, VIRTIO_CONFIG_S_FEATURES_OK);
	EXPECT_TRUE(vdev.status & VIRTIO_CONFIG_S_FEATURES_OK);
}

static void check_chain(const struct virtq_chain *c)
{
	const uint8_t *base;
	unsigned int i;

	for (i = 0; i < (unsigned int)c->nr_out + c->nr_in; i++) {
		base = c->iov[i].iov_base;
		if (base < ram.base || base + c->iov[i].iov_len > ram.base + ram.size)
			FAIL("buffer %u is outside of memory", i);
	}
}

/* Rings and tables of plausible nonsense. */
TEST_TIMEOUT(random_rings_never_leave_memory, 120)
{
	struct rng rng = { 0x766972747175 };
	struct vring_desc *d;
	unsigned int i, n, served = 0;

	start(BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC));
	for (i = 0; i < 300000; i++) {
		for (n = 0; n < 2 * SIZE; n++) {
			d = n < SIZE ? &drv.desc[n] :
			    (struct vring_desc *)ram_ptr(&ram, DRIVER_DATA, 4096) + (n - SIZE);
			d->addr = rng_below(&rng, 3) ? DRIVER_DATA + rng_below(&rng, 4) * 16 :
				  rng_next(&rng) >> rng_below(&rng, 64);
			d->len = 16 * rng_below(&rng, 20) + !rng_below(&rng, 8);
			d->flags = (uint16_t)(rng_next(&rng) & (rng_below(&rng, 4) ? 3 : 7));
			d->next = (uint16_t)rng_below(&rng, SIZE + 1);
		}
		drv.avail->ring[drv.avail->idx % SIZE] = (uint16_t)rng_below(&rng, SIZE);
		drv.avail->idx++;
		if (virtq_pop(drv.vq, &chain)) {
			check_chain(&chain);
			virtq_push(drv.vq, chain.head, 0);
			served++;
		} else {
			virtio_set_status(&vdev, 0);
			vdev.features = BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC);
			virtio_set_status(&vdev, VIRTIO_CONFIG_S_DRIVER_OK);
			driver_init(&drv, &vdev.queues[0], &ram, SIZE);
		}
	}
	EXPECT_GT(served, 1000);
	EXPECT_GT(fake.sentences, 1000);
}

TEST(iov_helpers_move_across_buffers)
{
	char a[3] = "abc", b[1] = "d", c[4] = "efgh", out[9] = "";
	struct iovec iov[3] = { { a, 3 }, { b, 1 }, { c, 4 } }, *p = iov;
	uint16_t n = 3;

	EXPECT_EQ(iov_length(iov, 3), 8);
	EXPECT_EQ(iov_read(iov, 3, out, 8), 8);
	EXPECT_MEMEQ(out, "abcdefgh", 8);
	EXPECT_EQ(iov_skip(&p, &n, 4), 4);
	EXPECT_EQ(n, 1);
	EXPECT_EQ(iov_skip(&p, &n, 1), 1);
	EXPECT_EQ(iov_write(p, n, "XYZW", 4), 3);
	EXPECT_MEMEQ(c, "eXYZ", 4);
	EXPECT_EQ(iov_skip(&p, &n, 100), 3);
	EXPECT_EQ(n, 0);
}
