/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The user's end of the guest's console: standard input and output. A
 * terminal is put into raw mode and given back on every way out; output is
 * gathered and written in batches, never blocking the I/O thread; Ctrl-A is
 * the escape to fonda itself. The guest's end is a device (dev/serial.c).
 */
#ifndef UTIL_CONSOLE_H
#define UTIL_CONSOLE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "loop.h"

/* Output that the terminal has not taken yet; a power of two. */
#define CONSOLE_BUFFER	4096
/* Input that the guest has not taken yet; a power of two. */
#define CONSOLE_INPUT	1024

struct console;

/* The guest's end; called with its lock held. */
struct console_ops {
	/* console_getc() has something. */
	void (*input)(void *owner);
	/* The output buffer was full and has room again. */
	void (*drained)(void *owner);
};

struct console {
	struct loop *loop;
	struct event in;		/* standard input */
	struct event out;		/* the descriptor that we write to */
	struct event flush;		/* timer that ends a batch */
	const struct console_ops *ops;
	void *owner;
	bool tty;			/* input is a terminal, in raw mode */
	bool in_open;			/* no end of file yet */
	bool in_armed;			/* epoll watches input */
	bool out_polled;		/* epoll can watch output (not for files) */
	bool out_armed;			/* epoll watches output */
	bool out_dead;			/* the reader has gone; output is dropped */
	bool flush_pending;
	bool was_full;
	bool escape;			/* Ctrl-A was the last byte */
	unsigned int head, tail;	/* of tx; free-running */
	unsigned int rx_head, rx_tail;	/* of rx; free-running */
	uint8_t tx[CONSOLE_BUFFER];
	uint8_t rx[CONSOLE_INPUT];
	uint64_t bytes_out;
	const char *marker;		/* text whose first appearance is noted */
	size_t marker_matched;
	uint64_t marker_ns;		/* when it did, or 0 */
	int stop_quit;			/* reason for loop_stop() on Ctrl-A x */
	struct event *show;		/* signalled on Ctrl-A s */
};

/*
 * Takes the terminal. @stop_quit is what loop_stop() gets when the user quits.
 * 0 or a negative errno.
 */
int console_init(struct console *con, struct loop *loop, int stop_quit);
void console_fini(struct console *con);

/* Connects the guest's end, or with @ops NULL nobody. */
void console_attach(struct console *con, const struct console_ops *ops,
		    void *owner, pthread_mutex_t *lock);

/* Under the owner's lock: queues one byte; false if the buffer is full. */
bool console_putc(struct console *con, uint8_t byte);
bool console_full(const struct console *con);

/* Under the owner's lock: takes one byte of input; false if there is none. */
bool console_getc(struct console *con, uint8_t *byte);

/* Writes out what is queued, waiting at most a second for a slow reader. */
void console_flush(struct console *con);

/* Raw mode again, after the process was stopped and continued. */
void console_resume(struct console *con);

#endif /* UTIL_CONSOLE_H */
