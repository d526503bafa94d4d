// SPDX-License-Identifier: GPL-2.0-or-later
/* The 8259A pair, by the sections of Intel's data sheet. */
#include <string.h>

#include "irq_world.h"
#include "tap.h"

static struct fonda_pic pic;

static void raise(unsigned int line)
{
	pic_set_line(&pic, line, true);
}

static void lower(unsigned int line)
{
	pic_set_line(&pic, line, false);
}

static void pulse(unsigned int line)
{
	raise(line);
	lower(line);
}

/* INTA: the vector, or -1 when the pair does not ask for one. */
static int inta(void)
{
	u8 vector;

	if (!pic.output)
		return -1;
	vector = pic_peek(&pic);
	pic_settle(&pic, vector, true);
	return vector;
}

static void eoi(u16 port)
{
	pic_write(&pic, port, 0x20);
}

/* As a PC's firmware does it: vectors 08 and 70, nothing masked. */
static void setup_icw4(u8 icw4)
{
	pic_init(&pic);
	pic_write(&pic, 0x20, 0x11);
	pic_write(&pic, 0x21, 0x08);
	pic_write(&pic, 0x21, 0x04);
	pic_write(&pic, 0x21, icw4);
	pic_write(&pic, 0xa0, 0x11);
	pic_write(&pic, 0xa1, 0x70);
	pic_write(&pic, 0xa1, 0x02);
	pic_write(&pic, 0xa1, 0x01);
	pic_take_acked(&pic);
}

static void setup(void)
{
	setup_icw4(0x01);
}

TEST(initialisation)
{
	setup();
	EXPECT_EQ(pic_read(&pic, 0x21), 0);
	EXPECT_EQ(pic_read(&pic, 0xa1), 0);
	EXPECT_EQ(pic.chip[0].irq_base, 0x08);
	EXPECT_EQ(pic.chip[1].irq_base, 0x70);
	EXPECT_EQ(pic.chip[0].init_state, 0);
	EXPECT_FALSE(pic.output);
	/* Without ICW4 its functions are off and the next write is OCW1. */
	setup_icw4(0x13);
	EXPECT_TRUE(pic.chip[0].auto_eoi);
	EXPECT_TRUE(pic.chip[0].special_fully_nested_mode);
	pic_write(&pic, 0x20, 0x10);
	pic_write(&pic, 0x21, 0x23);
	pic_write(&pic, 0x21, 0x04);
	pic_write(&pic, 0x21, 0xa5);
	EXPECT_EQ(pic.chip[0].irq_base, 0x20);
	EXPECT_EQ(pic_read(&pic, 0x21), 0xa5);
	EXPECT_FALSE(pic.chip[0].auto_eoi);
	EXPECT_FALSE(pic.chip[0].special_fully_nested_mode);
}

TEST(icw1_clears_mask_and_edges)
{
	setup();
	pic_write(&pic, 0x21, 0xff);
	raise(3);
	pic_write(&pic, 0x20, 0x68);
	pic_write(&pic, 0x20, 0x0b);
	pic_write(&pic, 0x20, 0x11);
	EXPECT_EQ(pic.chip[0].special_mask, 0);
	EXPECT_EQ(pic.chip[0].read_reg_select, 0);
	EXPECT_EQ(pic_read(&pic, 0x20), 0);
	EXPECT_FALSE(pic.output);
	pic_write(&pic, 0x21, 0x08);
	pic_write(&pic, 0x21, 0x04);
	pic_write(&pic, 0x21, 0x01);
	/* The line is still high: an edge has to come first. */
	EXPECT_EQ(inta(), -1);
	lower(3);
	raise(3);
	EXPECT_EQ(inta(), 0x0b);
}

TEST(edge_is_latched_once)
{
	setup();
	EXPECT_EQ(pic_set_line(&pic, 1, true), 1);
	EXPECT_EQ(pic_read(&pic, 0x20), 0x02);
	EXPECT_EQ(inta(), 0x09);
	EXPECT_EQ(pic_read(&pic, 0x20), 0);
	eoi(0x20);
	/* Still high, but no new edge. */
	EXPECT_EQ(inta(), -1);
	lower(1);
	EXPECT_EQ(pic_set_line(&pic, 1, true), 1);
	lower(1);
	/* Merges with the one that waits. */
	EXPECT_EQ(pic_set_line(&pic, 1, true), 0);
	EXPECT_EQ(inta(), 0x09);
	eoi(0x20);
	EXPECT_EQ(inta(), -1);
}

TEST(level_follows_the_line)
{
	setup();
	pic_write(&pic, 0x4d0, 0xff);
	EXPECT_EQ(pic_read(&pic, 0x4d0), 0xf8);	/* 0, 1 and 2 are always edges */
	pic_write(&pic, 0x4d1, 0xff);
	EXPECT_EQ(pic_read(&pic, 0x4d1), 0xde);	/* so are 8 and 13 */

	raise(5);
	EXPECT_EQ(inta(), 0x0d);
	EXPECT_EQ(pic_read(&pic, 0x20), 0x20);
	eoi(0x20);
	EXPECT_EQ(inta(), 0x0d);
	lower(5);
	eoi(0x20);
	EXPECT_EQ(inta(), -1);
	/* A level that goes away is forgotten. */
	raise(5);
	lower(5);
	EXPECT_FALSE(pic.output);
}

TEST(elcr_takes_a_high_line_along)
{
	setup();
	raise(6);
	EXPECT_EQ(inta(), 0x0e);
	eoi(0x20);
	EXPECT_EQ(inta(), -1);
	/* The edge of another line stays. */
	pulse(7);
	pic_write(&pic, 0x4d0, 0x40);
	EXPECT_EQ(inta(), 0x0e);
	lower(6);
	eoi(0x20);
	EXPECT_EQ(inta(), 0x0f);
}

TEST(fully_nested)
{
	setup();
	pulse(4);
	EXPECT_EQ(inta(), 0x0c);
	pulse(6);
	pulse(4);
	EXPECT_EQ(inta(), -1);
	pulse(1);
	EXPECT_EQ(inta(), 0x09);
	pulse(0);
	EXPECT_EQ(inta(), 0x08);
	eoi(0x20);
	eoi(0x20);
	/* Line 4 is in service still, and holds back itself and 6. */
	EXPECT_EQ(inta(), -1);
	eoi(0x20);
	EXPECT_EQ(inta(), 0x0c);
	eoi(0x20);
	EXPECT_EQ(inta(), 0x0e);
}

TEST(mask)
{
	setup();
	pic_write(&pic, 0x21, 0x02);
	EXPECT_LT(pic_set_line(&pic, 1, true), 0);
	EXPECT_FALSE(pic.output);
	/* It waits behind the mask. */
	pic_write(&pic, 0x21, 0);
	EXPECT_EQ(inta(), 0x09);
}

TEST(cascade)
{
	setup();
	pulse(12);
	EXPECT_EQ(pic_read(&pic, 0x20), 0x04);
	EXPECT_EQ(pic_read(&pic, 0xa0), 0x10);
	EXPECT_EQ(inta(), 0x74);
	pic_write(&pic, 0x20, 0x0b);
	pic_write(&pic, 0xa0, 0x0b);
	EXPECT_EQ(pic_read(&pic, 0x20), 0x04);
	EXPECT_EQ(pic_read(&pic, 0xa0), 0x10);
	/* The slave's 8 is above 12, but the master is busy with line 2. */
	pulse(8);
	EXPECT_EQ(inta(), -1);
	/* Master's 1 is above its line 2; 3 is below. */
	pulse(3);
	pulse(1);
	EXPECT_EQ(inta(), 0x09);
	eoi(0x20);
	eoi(0xa0);
	eoi(0x20);
	EXPECT_EQ(inta(), 0x70);
	eoi(0xa0);
	eoi(0x20);
	EXPECT_EQ(inta(), 0x0b);
	/* Nothing drives line 2 but the slave. */
	eoi(0x20);
	raise(2);
	EXPECT_EQ(inta(), -1);
	/* The slave's mask is the master's business too. */
	pic_write(&pic, 0xa1, 0xff);
	pulse(9);
	EXPECT_FALSE(pic.output);
	EXPECT_EQ(pic_read(&pic, 0x20) & 0x04, 0);
}

TEST(special_fully_nested)
{
	setup_icw4(0x11);
	pulse(12);
	EXPECT_EQ(inta(), 0x74);
	pulse(8);
	EXPECT_EQ(inta(), 0x70);
	pulse(13);
	EXPECT_EQ(inta(), -1);
}

TEST(auto_eoi)
{
	setup_icw4(0x03);
	pulse(1);
	EXPECT_EQ(inta(), 0x09);
	EXPECT_EQ(pic_take_acked(&pic), 0x02);
	pulse(5);
	EXPECT_EQ(inta(), 0x0d);
	/* Rotation in automatic EOI: the line served becomes the lowest. */
	pic_write(&pic, 0x20, 0x80);
	pulse(1);
	EXPECT_EQ(inta(), 0x09);
	pulse(1);
	pulse(0);
	pulse(5);
	EXPECT_EQ(inta(), 0x0d);
	EXPECT_EQ(inta(), 0x08);
	EXPECT_EQ(inta(), 0x09);
	pic_write(&pic, 0x20, 0x00);
	EXPECT_FALSE(pic.chip[0].rotate_on_auto_eoi);
}

TEST(specific_eoi_and_rotation)
{
	setup();
	pulse(3);
	EXPECT_EQ(inta(), 0x0b);
	pulse(1);
	EXPECT_EQ(inta(), 0x09);
	/* Specific: 3 ends although 1 is the highest in service. */
	pic_write(&pic, 0x20, 0x63);
	pic_write(&pic, 0x20, 0x0b);
	EXPECT_EQ(pic_read(&pic, 0x20), 0x02);
	EXPECT_EQ(pic_take_acked(&pic), 0x08);
	/* Rotate on non-specific EOI: 1 becomes the lowest, 2 the highest. */
	pic_write(&pic, 0x20, 0xa0);
	pulse(1);
	pulse(7);
	EXPECT_EQ(inta(), 0x0f);
	eoi(0x20);
	EXPECT_EQ(inta(), 0x09);
	eoi(0x20);
	/* Set priority: 4 is the lowest, so 5 is above 0. */
	pic_write(&pic, 0x20, 0xc4);
	pulse(0);
	pulse(5);
	pulse(4);
	EXPECT_EQ(inta(), 0x0d);
	/* Rotate on specific EOI. */
	pic_write(&pic, 0x20, 0xe5);
	EXPECT_EQ(inta(), 0x08);
	eoi(0x20);
	EXPECT_EQ(inta(), 0x0c);
	eoi(0x20);
	/* An EOI with nothing in service is nothing. */
	eoi(0x20);
	EXPECT_EQ(pic.chip[0].isr, 0);
	/* OCW2 010: no operation. */
	pic_write(&pic, 0x20, 0x40);
	EXPECT_EQ(pic.chip[0].priority_add, 6);
}

TEST(special_mask)
{
	setup();
	pulse(1);
	EXPECT_EQ(inta(), 0x09);
	pulse(5);
	EXPECT_EQ(inta(), -1);
	pic_write(&pic, 0x21, 0x02);
	pic_write(&pic, 0x20, 0x68);
	/* The masked line in service holds nobody back now. */
	EXPECT_EQ(inta(), 0x0d);
	/* And a non-specific EOI does not end it. */
	eoi(0x20);
	pic_write(&pic, 0x20, 0x0b);
	EXPECT_EQ(pic_read(&pic, 0x20), 0x02);
	pic_write(&pic, 0x20, 0x48);
	EXPECT_EQ(pic.chip[0].special_mask, 0);
	/* Without the enable bit the mode stays. */
	pic_write(&pic, 0x20, 0x28);
	EXPECT_EQ(pic.chip[0].special_mask, 0);
}

TEST(poll)
{
	setup();
	pic_write(&pic, 0x20, 0x0c);
	EXPECT_EQ(pic_read(&pic, 0x20), 0);
	pulse(6);
	pic_write(&pic, 0x20, 0x0c);
	EXPECT_EQ(pic_read(&pic, 0x20), 0x86);
	/* That was the INTA; the next read is a plain one. */
	EXPECT_FALSE(pic.output);
	pic_write(&pic, 0x20, 0x0b);
	EXPECT_EQ(pic_read(&pic, 0x20), 0x40);
	eoi(0x20);
	pulse(10);
	pic_write(&pic, 0xa0, 0x0c);
	EXPECT_EQ(pic_read(&pic, 0xa0), 0x82);
}

TEST(spurious)
{
	setup();
	pic_write(&pic, 0x4d0, 0xf8);
	pic_write(&pic, 0x4d1, 0xde);
	/* Gone between the look and the INTA: the lowest vector, no service. */
	EXPECT_EQ(pic_peek(&pic), 0x0f);
	pic_settle(&pic, 0x0f, true);
	EXPECT_EQ(pic.chip[0].isr, 0);
	raise(11);
	EXPECT_EQ(pic_peek(&pic), 0x73);
	pic_settle(&pic, 0x77, true);
	/* Spurious on the slave: the master does not know. */
	EXPECT_EQ(pic.chip[1].isr, 0);
	EXPECT_EQ(pic.chip[0].isr, 0x04);
	/* A vector that the guest took is in service, whatever came after. */
	lower(11);
	eoi(0x20);
	raise(4);
	lower(4);
	pic_settle(&pic, 0x0c, true);
	EXPECT_EQ(pic.chip[0].isr, 0x10);
	/* Line 7 itself. */
	eoi(0x20);
	raise(7);
	EXPECT_EQ(inta(), 0x0f);
	EXPECT_EQ(pic.chip[0].isr, 0x80);
}

TEST(one_more_while_the_first_is_offered)
{
	static const unsigned int lines[] = { 1, 12 };
	unsigned int i;

	for (i = 0; i < 2; i++) {
		u8 vector = lines[i] < 8 ? 0x08 + lines[i] : 0x68 + lines[i];

		setup();
		pulse(lines[i]);
		EXPECT_EQ(pic_offer(&pic), vector);
		pulse(lines[i]);
		pic_settle(&pic, vector, true);
		EXPECT_EQ(inta(), -1);
		eoi(0xa0);
		eoi(0x20);
		EXPECT_EQ(inta(), vector);
		eoi(0xa0);
		eoi(0x20);
		EXPECT_EQ(inta(), -1);
		/* Not taken: the two are one. */
		pulse(lines[i]);
		EXPECT_EQ(pic_offer(&pic), vector);
		pulse(lines[i]);
		pic_settle(&pic, 0, false);
		EXPECT_EQ(inta(), vector);
		eoi(0xa0);
		eoi(0x20);
		EXPECT_EQ(inta(), -1);
		/* Before the offer, too. */
		pulse(lines[i]);
		pulse(lines[i]);
		EXPECT_EQ(pic_offer(&pic), vector);
		pic_settle(&pic, vector, true);
		eoi(0xa0);
		eoi(0x20);
		EXPECT_EQ(inta(), -1);
	}
}

TEST(end_of_service_is_reported)
{
	setup();
	pulse(0);
	inta();
	EXPECT_EQ(pic_take_acked(&pic), 0);
	eoi(0x20);
	EXPECT_EQ(pic_take_acked(&pic), 0x0001);
	pulse(14);
	inta();
	eoi(0xa0);
	EXPECT_EQ(pic_take_acked(&pic), 0x4000);
	/* A new initialisation ends what is in service. */
	eoi(0x20);
	pulse(3);
	inta();
	pic_take_acked(&pic);
	pic_write(&pic, 0x20, 0x11);
	EXPECT_EQ(pic_take_acked(&pic), 0x0008);
}

TEST(state_goes_out_and_in)
{
	struct kvm_pic_state state[2], hostile;
	struct fonda_pic copy;

	setup();
	pic_write(&pic, 0x4d0, 0x20);
	raise(5);
	pulse(12);
	pic_write(&pic, 0x21, 0x01);
	pic_write(&pic, 0x20, 0xc2);
	state[0] = pic.chip[0];
	state[1] = pic.chip[1];
	copy = pic;
	pic_init(&pic);
	pic_set_state(&pic, 0, &state[0]);
	pic_set_state(&pic, 1, &state[1]);
	EXPECT_MEMEQ(pic.chip, copy.chip, sizeof(pic.chip));
	EXPECT_TRUE(pic.output);
	EXPECT_EQ(inta(), 0x0d);
	eoi(0x20);
	/* The new owner lowers a line that the old one had raised. */
	lower(5);
	EXPECT_EQ(inta(), 0x74);

	memset(&hostile, 0xff, sizeof(hostile));
	pic_set_state(&pic, 0, &hostile);
	pic_set_state(&pic, 1, &hostile);
	EXPECT_EQ(pic.chip[0].priority_add, 7);
	EXPECT_EQ(pic.chip[0].elcr_mask, 0xf8);
	pic_peek(&pic);
	pic_read(&pic, 0x20);
	pic_read(&pic, 0xa0);
}
