/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A 16550A UART at COM1 with the console behind it.
 */
#ifndef DEV_SERIAL_H
#define DEV_SERIAL_H

#include "../util/console.h"
#include "../util/kvm.h"
#include "bus.h"

#define SERIAL_PORT	0x3f8
#define SERIAL_IRQ	4
#define SERIAL_FIFO	16

struct serial {
	struct device dev;
	struct state state;
	struct bus_region ports;
	struct console *con;
	const struct kvm *kvm;
	uint8_t ier, fcr, lcr, mcr, scr;
	uint8_t lsr_errors;		/* sticky bits of LSR until it is read */
	uint16_t divisor;
	uint8_t fifo[SERIAL_FIFO];	/* received, not yet read */
	uint8_t fifo_start, fifo_len;
	uint8_t thre_pending;		/* transmitter-empty not yet acknowledged */
	uint8_t irq_level;
};

/* 0 or a negative errno. */
int serial_init(struct serial *serial, struct bus *bus, const struct kvm *kvm,
		struct console *con);
void serial_fini(struct serial *serial, struct bus *bus);

#endif /* DEV_SERIAL_H */
