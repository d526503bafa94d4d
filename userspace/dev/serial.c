// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The 16550A: registers, FIFO and interrupts as in the PC16550D data sheet.
 * Time is not modelled: a byte is on its way as soon as it is written, unless
 * the console is full, and the receive timeout has passed as soon as there is
 * less than a trigger level of data.
 */
#include <linux/serial_reg.h>
#include <string.h>

#include "../util/util.h"
#include "serial.h"

#define NR_REGISTERS	8

static const uint8_t trigger_levels[] = { 1, 4, 8, 14 };

static bool fifo_enabled(const struct serial *s)
{
	return s->fcr & UART_FCR_ENABLE_FIFO;
}

static uint8_t fifo_room(const struct serial *s)
{
	return (uint8_t)((fifo_enabled(s) ? SERIAL_FIFO : 1) - s->fifo_len);
}

static void receive(struct serial *s, uint8_t byte)
{
	if (!fifo_room(s)) {
		s->lsr_errors |= UART_LSR_OE;
		return;
	}
	s->fifo[(s->fifo_start + s->fifo_len++) % SERIAL_FIFO] = byte;
}

/* In loopback the line is off: what the user types waits in the console. */
static void refill(struct serial *s)
{
	uint8_t byte;

	while (!(s->mcr & UART_MCR_LOOP) && fifo_room(s) &&
	       console_getc(s->con, &byte))
		receive(s, byte);
}

static uint8_t interrupt_id(const struct serial *s)
{
	uint8_t trigger = trigger_levels[s->fcr >> 6];

	if ((s->ier & UART_IER_RLSI) && s->lsr_errors)
		return UART_IIR_RLSI;
	if ((s->ier & UART_IER_RDI) && s->fifo_len)
		return fifo_enabled(s) && s->fifo_len < trigger ?
			UART_IIR_RX_TIMEOUT : UART_IIR_RDI;
	if ((s->ier & UART_IER_THRI) && s->thre_pending)
		return UART_IIR_THRI;
	return UART_IIR_NO_INT;
}

/* On a PC OUT2 is the gate between the UART and its interrupt line. */
static void update_irq(struct serial *s)
{
	uint8_t level = interrupt_id(s) != UART_IIR_NO_INT &&
			(s->mcr & (UART_MCR_OUT2 | UART_MCR_LOOP)) == UART_MCR_OUT2;

	if (level == s->irq_level)
		return;
	s->irq_level = level;
	kvm_set_irq(s->kvm, SERIAL_IRQ, level);
}

static void transmit(struct serial *s, uint8_t byte)
{
	if (s->mcr & UART_MCR_LOOP)
		receive(s, byte);
	else
		console_putc(s->con, byte);
	/* With a full console the transmitter stays busy: see drained(). */
	s->thre_pending = !console_full(s->con);
}

static uint8_t line_status(const struct serial *s)
{
	uint8_t lsr = s->lsr_errors;

	if (s->fifo_len)
		lsr |= UART_LSR_DR;
	if (!console_full(s->con))
		lsr |= UART_LSR_THRE | UART_LSR_TEMT;
	return lsr;
}

/* The modem is always there; in loopback it is our own control lines. */
static uint8_t modem_status(const struct serial *s)
{
	uint8_t msr = 0;

	if (!(s->mcr & UART_MCR_LOOP))
		return UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS;
	if (s->mcr & UART_MCR_RTS)
		msr |= UART_MSR_CTS;
	if (s->mcr & UART_MCR_DTR)
		msr |= UART_MSR_DSR;
	if (s->mcr & UART_MCR_OUT1)
		msr |= UART_MSR_RI;
	if (s->mcr & UART_MCR_OUT2)
		msr |= UART_MSR_DCD;
	return msr;
}

static uint8_t read_data(struct serial *s)
{
	uint8_t byte;

	if (!s->fifo_len)
		return 0;
	byte = s->fifo[s->fifo_start];
	s->fifo_start = (uint8_t)((s->fifo_start + 1) % SERIAL_FIFO);
	s->fifo_len--;
	/* A full FIFO's worth at a time, so that the driver drains in bursts. */
	if (!s->fifo_len)
		refill(s);
	return byte;
}

static uint8_t read_iir(struct serial *s)
{
	uint8_t id = interrupt_id(s);

	if (id == UART_IIR_THRI)
		s->thre_pending = 0;
	return fifo_enabled(s) ? id | 0xc0 : id;
}

static uint64_t serial_read(struct bus_region *r, uint64_t offset, unsigned int len)
{
	struct serial *s = container_of(r, struct serial, ports);
	bool dlab = s->lcr & UART_LCR_DLAB;
	uint8_t value;

	(void)len;
	switch (offset) {
	case UART_RX:
		value = dlab ? (uint8_t)s->divisor : read_data(s);
		break;
	case UART_IER:
		value = dlab ? (uint8_t)(s->divisor >> 8) : s->ier;
		break;
	case UART_IIR:
		value = read_iir(s);
		break;
	case UART_LCR:
		value = s->lcr;
		break;
	case UART_MCR:
		value = s->mcr;
		break;
	case UART_LSR:
		value = line_status(s);
		s->lsr_errors = 0;
		break;
	case UART_MSR:
		value = modem_status(s);
		break;
	default:
		value = s->scr;
	}
	update_irq(s);
	return value;
}

static void write_ier(struct serial *s, uint8_t value)
{
	/* Enabling the interrupt of an idle transmitter raises it at once. */
	if (!(s->ier & UART_IER_THRI) && (value & UART_IER_THRI))
		s->thre_pending = !console_full(s->con);
	s->ier = value & 0x0f;
}

static void write_fcr(struct serial *s, uint8_t value)
{
	/* Turning the FIFOs on or off empties them. */
	if ((value & UART_FCR_CLEAR_RCVR) || ((value ^ s->fcr) & UART_FCR_ENABLE_FIFO))
		s->fifo_len = 0;
	s->fcr = value & (UART_FCR_ENABLE_FIFO | UART_FCR_TRIGGER_MASK);
	refill(s);
}

static void serial_write(struct bus_region *r, uint64_t offset, unsigned int len,
			 uint64_t value)
{
	struct serial *s = container_of(r, struct serial, ports);
	bool dlab = s->lcr & UART_LCR_DLAB;
	uint8_t byte = (uint8_t)value;

	(void)len;
	switch (offset) {
	case UART_TX:
		if (dlab)
			s->divisor = (s->divisor & 0xff00) | byte;
		else
			transmit(s, byte);
		break;
	case UART_IER:
		if (dlab)
			s->divisor = (uint16_t)((s->divisor & 0xff) | byte << 8);
		else
			write_ier(s, byte);
		break;
	case UART_FCR:
		write_fcr(s, byte);
		break;
	case UART_LCR:
		s->lcr = byte;
		break;
	case UART_MCR:
		s->mcr = byte & 0x1f;
		refill(s);
		break;
	case UART_SCR:
		s->scr = byte;
		break;
	}
	update_irq(s);
}

static void input(void *owner)
{
	struct serial *s = owner;

	refill(s);
	update_irq(s);
}

static void drained(void *owner)
{
	struct serial *s = owner;

	s->thre_pending = 1;
	update_irq(s);
}

static const struct console_ops serial_console = {
	.input = input,
	.drained = drained,
};

static const struct state_field serial_state[] = {
	STATE_FIELD(struct serial, ier),
	STATE_FIELD(struct serial, fcr),
	STATE_FIELD(struct serial, lcr),
	STATE_FIELD(struct serial, mcr),
	STATE_FIELD(struct serial, scr),
	STATE_FIELD(struct serial, lsr_errors),
	STATE_FIELD(struct serial, divisor),
	STATE_FIELD(struct serial, fifo),
	STATE_FIELD(struct serial, fifo_start),
	STATE_FIELD(struct serial, fifo_len),
	STATE_FIELD(struct serial, thre_pending),
	STATE_FIELD(struct serial, irq_level),
	{ }
};

int serial_init(struct serial *s, struct bus *bus, const struct kvm *kvm,
		struct console *con)
{
	memset(s, 0, sizeof(*s));
	s->kvm = kvm;
	s->con = con;
	s->divisor = 12;		/* 9600 baud, as firmware leaves it */
	s->dev.name = "serial";
	device_add_state(&s->dev, &s->state, NULL, s, serial_state);
	bus_add_device(bus, &s->dev);
	s->ports = (struct bus_region){
		.name = "serial", .base = SERIAL_PORT, .size = NR_REGISTERS,
		.dev = &s->dev, .read = serial_read, .write = serial_write,
	};
	console_attach(con, &serial_console, s, &s->dev.lock);
	return bus_map(&bus->pio, &s->ports);
}

void serial_fini(struct serial *s, struct bus *bus)
{
	console_attach(s->con, NULL, NULL, NULL);
	bus_unmap(&bus->pio, &s->ports);
}
