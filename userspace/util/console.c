// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Standard input and output as the guest's console. See console.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "console.h"
#include "util.h"

#define CTRL_A		1

/* How long the first byte of a batch waits for company. */
#define FLUSH_NS	1000000ULL
#define FINAL_FLUSH_MS	1000

/*
 * The terminal is the process's, not the console's: a signal handler has to
 * find what to restore.
 */
static struct termios saved_mode, raw_mode;
static volatile sig_atomic_t raw;

static void restore_terminal(void)
{
	if (!raw)
		return;
	raw = 0;
	tcsetattr(STDIN_FILENO, TCSANOW, &saved_mode);
}

/* A crash of fonda itself must not leave the user without an echo. */
static void fatal_signal(int sig)
{
	restore_terminal();
	signal(sig, SIG_DFL);
	raise(sig);
}

static int take_terminal(void)
{
	static const int fatal[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT };
	struct sigaction sa = { .sa_handler = fatal_signal };
	size_t i;

	if (tcgetattr(STDIN_FILENO, &saved_mode))
		return -errno;
	raw_mode = saved_mode;
	raw_mode.c_iflag &= ~(tcflag_t)(BRKINT | ICRNL | INLCR | IGNCR | ISTRIP | IXON);
	raw_mode.c_lflag &= ~(tcflag_t)(ECHO | ICANON | IEXTEN | ISIG);
	raw_mode.c_cc[VMIN] = 1;
	raw_mode.c_cc[VTIME] = 0;

	for (i = 0; i < ARRAY_SIZE(fatal); i++)
		sigaction(fatal[i], &sa, NULL);
	atexit(restore_terminal);
	raw = 1;
	return tcsetattr(STDIN_FILENO, TCSANOW, &raw_mode) ? -errno : 0;
}

void console_resume(struct console *con)
{
	if (con->tty && raw)
		tcsetattr(STDIN_FILENO, TCSANOW, &raw_mode);
}

/*
 * Non-blocking output needs an open file description of our own: O_NONBLOCK on
 * the inherited one would surprise the shell and everybody else who shares it.
 * Regular files never block and would lose their offset; what cannot be opened
 * again (a socket, another user's terminal) is used as it is.
 */
static int open_output(void)
{
	struct stat st;
	int fd = -1;

	if (!fstat(STDOUT_FILENO, &st) &&
	    (S_ISCHR(st.st_mode) || S_ISFIFO(st.st_mode)))
		fd = open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0);
	return fd;
}

static unsigned int pending(const struct console *con)
{
	return con->head - con->tail;
}

/* Writes what goes without waiting. Returns false if the reader is slow. */
static bool write_some(struct console *con)
{
	unsigned int at, n;
	ssize_t done;

	while (pending(con) && !con->out_dead) {
		at = con->tail % CONSOLE_BUFFER;
		n = MIN(pending(con), CONSOLE_BUFFER - at);
		done = write(con->out.fd, con->tx + at, n);
		if (done > 0)
			con->tail += (unsigned int)done;
		else if (!done || errno == EAGAIN)
			return false;
		else if (errno != EINTR)
			con->out_dead = true;
	}
	if (con->out_dead)
		con->tail = con->head;
	return true;
}

static void arm_output(struct console *con, bool on)
{
	if (con->out_armed == on || !con->out_polled)
		return;
	con->out_armed = on;
	loop_change(con->loop, &con->out, on ? EPOLLOUT : 0);
}

static void drain(struct console *con)
{
	bool all = write_some(con);

	arm_output(con, !all);
	/* A slow reader that epoll cannot watch: try again in a while. */
	if (!all && !con->out_polled) {
		con->flush_pending = true;
		event_set_timer(&con->flush, FLUSH_NS, 0);
	}
	if (con->was_full && pending(con) <= CONSOLE_BUFFER / 2) {
		con->was_full = false;
		if (con->ops)
			con->ops->drained(con->owner);
	}
}

static void output_ready(struct event *ev)
{
	drain(container_of(ev, struct console, out));
}

static void flush_ready(struct event *ev)
{
	struct console *con = container_of(ev, struct console, flush);

	event_drain(ev);
	con->flush_pending = false;
	drain(con);
}

static void watch_marker(struct console *con, uint8_t byte)
{
	if (!con->marker || con->marker_ns)
		return;
	/*
	 * After a mismatch the text may begin anew with this very byte. A full
	 * search would also try the starts in between; markers need none.
	 */
	if (con->marker[con->marker_matched] != (char)byte)
		con->marker_matched = 0;
	if (con->marker[con->marker_matched] == (char)byte)
		con->marker_matched++;
	if (!con->marker[con->marker_matched])
		con->marker_ns = now_ns();
}

bool console_full(const struct console *con)
{
	return pending(con) == CONSOLE_BUFFER;
}

bool console_putc(struct console *con, uint8_t byte)
{
	if (console_full(con))
		return false;
	con->tx[con->head++ % CONSOLE_BUFFER] = byte;
	con->was_full = console_full(con);
	con->bytes_out++;
	watch_marker(con, byte);
	if (con->out_armed)
		return true;
	if (!con->flush_pending) {
		con->flush_pending = true;
		event_set_timer(&con->flush, FLUSH_NS, 0);
	} else if (pending(con) == CONSOLE_BUFFER / 2) {
		event_set_timer(&con->flush, 1, 0);
	}
	return true;
}

static unsigned int input_room(const struct console *con)
{
	return CONSOLE_INPUT - (con->rx_head - con->rx_tail);
}

/*
 * Input from a file or a pipe waits there until the guest takes it. A terminal
 * is always read, so that the user can leave a guest that does not listen.
 */
static void arm_input(struct console *con)
{
	bool on = con->in_open && con->ops && (con->tty || input_room(con));

	if (con->in_armed == on)
		return;
	con->in_armed = on;
	loop_change(con->loop, &con->in, on ? EPOLLIN : 0);
}

bool console_getc(struct console *con, uint8_t *byte)
{
	if (con->rx_head == con->rx_tail)
		return false;
	*byte = con->rx[con->rx_tail++ % CONSOLE_INPUT];
	arm_input(con);
	return true;
}

static void print_help(void)
{
	fprintf(stderr,
		"\nCtrl-A h   this help\n"
		"Ctrl-A x   quit: the guest stops at once, as by a power cut\n"
		"Ctrl-A s   show the state of the machine\n"
		"Ctrl-A a   send Ctrl-A to the guest\n");
}

/* The byte after Ctrl-A. True if it is for the guest. */
static bool escape(struct console *con, uint8_t byte)
{
	switch (byte) {
	case 'x':
	case 'X':
		loop_stop(con->loop, con->stop_quit);
		return false;
	case 'a':
	case CTRL_A:
		return true;
	case 's':
		if (con->show)
			event_signal(con->show);
		return false;
	default:
		print_help();
		return false;
	}
}

/* True if @byte is for the guest. */
static bool filter(struct console *con, uint8_t byte)
{
	if (con->escape) {
		con->escape = false;
		return escape(con, byte);
	}
	con->escape = con->tty && byte == CTRL_A;
	return !con->escape;
}

static void input_ready(struct event *ev)
{
	struct console *con = container_of(ev, struct console, in);
	uint8_t data[64];
	ssize_t i, n;
	size_t want;

	/* What is typed beyond a full buffer is lost, except to the escapes. */
	want = con->tty ? sizeof(data) : MIN(input_room(con), sizeof(data));
	n = read(con->in.fd, data, want);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0 && want) {
		con->in_open = false;
		loop_remove(con->loop, &con->in);
		return;
	}
	for (i = 0; i < n; i++)
		if (filter(con, data[i]) && input_room(con))
			con->rx[con->rx_head++ % CONSOLE_INPUT] = data[i];
	if (con->ops)
		con->ops->input(con->owner);
	arm_input(con);
}

int console_init(struct console *con, struct loop *loop, int stop_quit)
{
	int ret;

	memset(con, 0, sizeof(*con));
	con->loop = loop;
	con->stop_quit = stop_quit;
	con->in.fd = STDIN_FILENO;
	con->in.ready = input_ready;
	con->out.ready = output_ready;
	con->out.fd = open_output();
	if (con->out.fd < 0)
		return fail(EBADF, "standard output is closed");
	ret = event_init_timer(&con->flush, CLOCK_MONOTONIC, flush_ready, NULL);
	if (ret)
		goto out_close_output;
	ret = loop_add(loop, &con->flush, EPOLLIN);
	if (ret)
		goto out_close_timer;
	con->out_polled = !loop_add(loop, &con->out, 0);

	/* Files and a closed input cannot be watched: read as if at their end. */
	con->in_open = !loop_add(loop, &con->in, 0);
	if (isatty(STDIN_FILENO)) {
		ret = take_terminal();
		if (ret)
			goto out_close_timer;
		con->tty = true;
	}
	return 0;

out_close_timer:
	event_fini(&con->flush);
out_close_output:
	close(con->out.fd);
	return ret;
}

void console_fini(struct console *con)
{
	console_flush(con);
	if (con->in_open)
		loop_remove(con->loop, &con->in);
	event_fini(&con->flush);
	close(con->out.fd);
	restore_terminal();
}

void console_attach(struct console *con, const struct console_ops *ops,
		    void *owner, pthread_mutex_t *lock)
{
	con->in.lock = lock;
	con->out.lock = lock;
	con->flush.lock = lock;
	con->owner = owner;
	con->ops = ops;
	con->was_full = false;
	arm_input(con);
}

void console_flush(struct console *con)
{
	struct pollfd pfd = { .fd = con->out.fd, .events = POLLOUT };
	uint64_t deadline = now_ns() + FINAL_FLUSH_MS * 1000000ULL;

	while (!write_some(con) && now_ns() < deadline)
		poll(&pfd, 1, 50);
}
