// SPDX-License-Identifier: GPL-2.0-only
/*
 * The pair of 8259A interrupt controllers of a PC, with the edge/level control
 * registers beside them. Works from Intel's "8259A Programmable Interrupt
 * Controller" data sheet; what reaches the processor, and who is told about
 * the end of an interrupt, is the caller's business.
 *
 * The INT output of the slave drives line 2 of the master and nothing else
 * does, so that line is not latched but follows the slave.
 */
#include "irq.h"

#define CASCADE		2

#define ICW1		BIT(4)		/* of a write to the even port */
#define ICW1_IC4	BIT(0)
#define ICW4_AEOI	BIT(1)
#define ICW4_SFNM	BIT(4)
#define OCW3		BIT(3)
#define OCW3_RIS	BIT(0)
#define OCW3_RR		BIT(1)
#define OCW3_POLL	BIT(2)
#define OCW3_SMM	BIT(5)
#define OCW3_ESMM	BIT(6)

/* Lines that a PC's chipset lets be level-triggered, by chip. */
static const u8 elcr_masks[2] = { 0xf8, 0xde };

/* Rank of the highest of @lines, 0 to 7; 8: there is none. */
static int rank(const struct kvm_pic_state *s, u8 lines)
{
	unsigned int add = s->priority_add;

	if (!lines)
		return 8;
	return __builtin_ctz((u8)(lines >> add | lines << (8 - add)));
}

/* The line that this chip wants to interrupt with, or -1. */
static int requested(const struct fonda_pic *pic, int nr)
{
	const struct kvm_pic_state *s = &pic->chip[nr];
	u8 in_service = s->isr;
	int highest;

	/* In special mask mode a masked line does not hold back the others. */
	if (s->special_mask)
		in_service &= ~s->imr;
	/* Specially nested, the slave may interrupt its own service. */
	if (s->special_fully_nested_mode && nr == 0)
		in_service &= ~BIT(CASCADE);

	highest = rank(s, s->irr & ~s->imr);
	if (highest >= rank(s, in_service))
		return -1;
	return (highest + s->priority_add) & 7;
}

static u8 with(u8 bits, u8 bit, bool on)
{
	return on ? bits | bit : bits & ~bit;
}

static void update(struct fonda_pic *pic)
{
	struct kvm_pic_state *master = &pic->chip[0];
	bool had_output = pic->output;

	master->irr = with(master->irr, BIT(CASCADE), requested(pic, 1) >= 0);
	WRITE_ONCE(pic->output, requested(pic, 0) >= 0);
	if (pic->output && !had_output)
		fonda_pic_output(container_of(pic, struct fonda_irqchip, pic));
}

void pic_init(struct fonda_pic *pic)
{
	*pic = (struct fonda_pic){
		.chip = { { .elcr_mask = elcr_masks[0] }, { .elcr_mask = elcr_masks[1] } }
	};
}

int pic_set_line(struct fonda_pic *pic, unsigned int pin, bool high)
{
	struct kvm_pic_state *s = &pic->chip[pin >> 3];
	u8 bit = BIT(pin & 7);
	int ret = 1;

	if (pin != CASCADE) {
		/* A rising edge, or a level that is not latched: see elcr. */
		if (high && (s->elcr & bit || !(s->last_irr & bit))) {
			ret = !(s->irr & bit);
			s->irr |= bit;
			pic->again |= BIT(pin) & pic->offered;
		} else if (!high && s->elcr & bit) {
			s->irr &= ~bit;
		}
	}
	s->last_irr = with(s->last_irr, bit, high);
	/* A masked line changes nothing for the others. */
	if (s->imr & bit)
		return -1;
	update(pic);
	return ret;
}

static void end_service(struct fonda_pic *pic, int nr, int line)
{
	pic->chip[nr].isr &= ~BIT(line);
	pic->acked |= BIT(nr * 8 + line);
}

/* What the chip does in an INTA cycle that gives out @line. */
static void acknowledge(struct fonda_pic *pic, int nr, int line)
{
	struct kvm_pic_state *s = &pic->chip[nr];

	/* A request that went away before it was acknowledged: spurious. */
	if (line == 7 && !(s->irr & BIT(7)))
		return;

	s->isr |= BIT(line);
	if (!(s->elcr & BIT(line) || pic->again & BIT(nr * 8 + line)))
		s->irr &= ~BIT(line);
	if (s->auto_eoi) {
		if (s->rotate_on_auto_eoi)
			s->priority_add = (line + 1) & 7;
		end_service(pic, nr, line);
	}
}

/* The line, of 16, that an INTA cycle would give now; 7 of a chip if there is none. */
static int asked(const struct fonda_pic *pic)
{
	int line = requested(pic, 0), nr = line == CASCADE;

	if (nr)
		line = requested(pic, 1);
	return nr * 8 + (line < 0 ? 7 : line);
}

u8 pic_peek(struct fonda_pic *pic)
{
	int line = asked(pic);

	return pic->chip[line / 8].irq_base | line % 8;
}

u8 pic_offer(struct fonda_pic *pic)
{
	pic->offered = BIT(asked(pic));
	pic->again = 0;
	return pic_peek(pic);
}

void pic_settle(struct fonda_pic *pic, u8 vector, bool taken)
{
	bool slave = (vector & ~7) != pic->chip[0].irq_base;

	if (taken && slave)
		acknowledge(pic, 0, CASCADE);
	if (taken)
		acknowledge(pic, slave, vector & 7);
	pic->offered = 0;
	pic->again = 0;
	update(pic);
}

/* "Initialization Command Words 1 and 2": what ICW1 does by itself. */
static void start_init(struct fonda_pic *pic, int nr, u8 icw1)
{
	struct kvm_pic_state *s = &pic->chip[nr];
	bool icw4_follows = icw1 & ICW1_IC4;

	pic->acked |= s->isr << nr * 8;
	*s = (struct kvm_pic_state){
		.last_irr = s->last_irr, .irr = s->irr & s->elcr, .irq_base = s->irq_base,
		.elcr = s->elcr, .elcr_mask = s->elcr_mask,
		.init_state = 1, .init4 = icw4_follows,
		.auto_eoi = icw4_follows && s->auto_eoi,
		.special_fully_nested_mode = icw4_follows && s->special_fully_nested_mode,
	};
}

static void write_ocw2(struct fonda_pic *pic, int nr, u8 val)
{
	struct kvm_pic_state *s = &pic->chip[nr];
	bool rotate = val & BIT(7), specific = val & BIT(6), eoi = val & BIT(5);
	int line = val & 7, highest;

	if (!specific && !eoi) {
		s->rotate_on_auto_eoi = rotate;
		return;
	}
	if (!specific) {
		highest = rank(s, s->special_mask ? s->isr & ~s->imr : s->isr);
		if (highest == 8)
			return;
		line = (highest + s->priority_add) & 7;
	}
	if (eoi)
		end_service(pic, nr, line);
	if (rotate)
		s->priority_add = (line + 1) & 7;
}

static void write_ocw3(struct kvm_pic_state *s, u8 val)
{
	if (val & OCW3_POLL)
		s->poll = 1;
	if (val & OCW3_RR)
		s->read_reg_select = val & OCW3_RIS;
	if (val & OCW3_ESMM)
		s->special_mask = !!(val & OCW3_SMM);
}

static void write_data(struct kvm_pic_state *s, u8 val)
{
	u8 state = s->init_state;

	if (state == 0) {
		s->imr = val;
	} else if (state == 1) {
		s->irq_base = val & 0xf8;
	} else if (state == 3) {
		s->special_fully_nested_mode = !!(val & ICW4_SFNM);
		s->auto_eoi = !!(val & ICW4_AEOI);
	}
	/* 2: the cascade is wired, ICW3 says nothing new. */
	s->init_state = state == 1 ? 2 : state == 2 && s->init4 ? 3 : 0;
}

static void write_elcr(struct kvm_pic_state *s, u8 val)
{
	s->elcr = val & s->elcr_mask;
	s->irr = (s->irr & ~s->elcr) | (s->last_irr & s->elcr);
}

/* "Poll Command": the next read is an INTA cycle and gives the line. */
static u8 poll(struct fonda_pic *pic, int nr)
{
	int line = requested(pic, nr);

	pic->chip[nr].poll = 0;
	if (line < 0)
		return 0;
	acknowledge(pic, nr, line);
	update(pic);
	return BIT(7) | line;
}

void pic_access(struct fonda_pic *pic, u16 port, u8 *val, bool write)
{
	/* Ports a0, a1 and 4d1 are the slave's. */
	bool elcr = port >= 0x4d0;
	int nr = elcr ? port & 1 : port >= 0xa0;
	struct kvm_pic_state *s = &pic->chip[nr];

	if (!write) {
		*val = elcr ? s->elcr :
		       s->poll ? poll(pic, nr) :
		       port & 1 ? s->imr :
		       s->read_reg_select ? s->isr : s->irr;
		return;
	}
	if (elcr)
		write_elcr(s, *val);
	else if (port & 1)
		write_data(s, *val);
	else if (*val & ICW1)
		start_init(pic, nr, *val);
	else if (*val & OCW3)
		write_ocw3(s, *val);
	else
		write_ocw2(pic, nr, *val);
	update(pic);
}

void pic_set_state(struct fonda_pic *pic, int nr, const struct kvm_pic_state *state)
{
	struct kvm_pic_state *s = &pic->chip[nr];

	*s = *state;
	s->priority_add &= 7;
	s->irq_base &= 0xf8;
	s->init_state &= 3;
	s->elcr_mask = elcr_masks[nr];
	s->elcr &= s->elcr_mask;
	update(pic);
}
