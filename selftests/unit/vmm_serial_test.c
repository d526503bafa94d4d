// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The UART as a driver sees it, and the console behind it as a user does: on a
 * pseudo-terminal that is raw while the guest has it and as before afterwards,
 * whatever ends the program.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/serial_reg.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
#include <utmp.h>

#include "tap.h"
#include "dev/serial.h"
#include "util/util.h"
#include "vmm_fake.h"

#define QUIT	7

static struct loop loop;
static struct bus bus;
static struct console con;
static struct kvm kvm = { .vm_fd = -1 };
static struct serial serial;
static int to_guest, from_guest;	/* the user's ends of two pipes */

static void attach(void)
{
	ASSERT_EQ(loop_init(&loop), 0);
	bus_init(&bus);
	ASSERT_EQ(console_init(&con, &loop, QUIT), 0);
	ASSERT_EQ(serial_init(&serial, &bus, &kvm, &con), 0);
}

/* Standard input and output become pipes; the harness gets its own back. */
static void start(void)
{
	int in[2], out[2], harness = dup(STDOUT_FILENO);

	ASSERT_OK(pipe2(in, O_CLOEXEC));
	ASSERT_OK(pipe2(out, O_CLOEXEC | O_NONBLOCK));
	ASSERT_OK(dup2(in[0], STDIN_FILENO));
	ASSERT_OK(dup2(out[1], STDOUT_FILENO));
	to_guest = in[1];
	from_guest = out[0];
	attach();
	ASSERT_OK(dup2(harness, STDOUT_FILENO));
}

static uint8_t rd(unsigned int reg)
{
	uint8_t value;

	bus_access(&bus.pio, SERIAL_PORT + reg, &value, 1, false);
	return value;
}

static void wr(unsigned int reg, uint8_t value)
{
	bus_access(&bus.pio, SERIAL_PORT + reg, &value, 1, true);
}

static bool irq(void)
{
	return fake.level[SERIAL_IRQ];
}

/* Serves events until nothing comes for a while. */
static void serve(void)
{
	while (loop_poll(&loop, 50) > 0 && !loop_stopped(&loop))
		;
}

static void type(const char *text)
{
	ASSERT_EQ(write(to_guest, text, strlen(text)), strlen(text));
	serve();
}

/* What the user sees next. */
static const char *seen(void)
{
	static char text[65536];
	ssize_t n = read(from_guest, text, sizeof(text) - 1);

	text[n > 0 ? n : 0] = '\0';
	return text;
}

TEST(output_arrives_in_order_and_in_batches)
{
	const char *text = "hello\r\n";

	start();
	while (*text)
		wr(UART_TX, (uint8_t)*text++);
	EXPECT_STREQ(seen(), "");		/* not byte by byte */
	serve();
	EXPECT_STREQ(seen(), "hello\r\n");
	EXPECT_EQ(rd(UART_LSR), UART_LSR_THRE | UART_LSR_TEMT);
	EXPECT_FALSE(irq());
}

TEST(transmitter_interrupts_when_enabled_and_after_each_byte)
{
	start();
	wr(UART_MCR, UART_MCR_OUT2);
	wr(UART_IER, UART_IER_THRI);
	EXPECT_TRUE(irq());
	EXPECT_EQ(rd(UART_IIR) & 0xf, UART_IIR_THRI);
	EXPECT_FALSE(irq());			/* the read acknowledged it */
	EXPECT_EQ(rd(UART_IIR) & 0xf, UART_IIR_NO_INT);
	wr(UART_TX, 'x');
	EXPECT_TRUE(irq());
	wr(UART_MCR, 0);			/* the gate is closed */
	EXPECT_FALSE(irq());
	wr(UART_MCR, UART_MCR_OUT2);
	EXPECT_TRUE(irq());
	wr(UART_IER, 0);
	EXPECT_FALSE(irq());
}

TEST(input_interrupts_by_trigger_level_or_timeout)
{
	unsigned int i;

	start();
	wr(UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_TRIGGER_8);
	wr(UART_MCR, UART_MCR_OUT2);
	wr(UART_IER, UART_IER_RDI);
	type("abc");
	EXPECT_TRUE(irq());
	EXPECT_EQ(rd(UART_IIR), 0xc0 | UART_IIR_RX_TIMEOUT);
	type("defgh");
	EXPECT_EQ(rd(UART_IIR), 0xc0 | UART_IIR_RDI);
	for (i = 0; i < 8; i++) {
		EXPECT_TRUE(irq());
		EXPECT_TRUE(rd(UART_LSR) & UART_LSR_DR);
		EXPECT_EQ(rd(UART_RX), "abcdefgh"[i]);
	}
	EXPECT_FALSE(irq());
	EXPECT_FALSE(rd(UART_LSR) & UART_LSR_DR);
}

TEST(long_input_waits_and_is_not_lost)
{
	char text[5000];
	unsigned int i;

	start();
	wr(UART_FCR, UART_FCR_ENABLE_FIFO);
	for (i = 0; i < sizeof(text); i++)
		text[i] = (char)('a' + i % 26);
	ASSERT_EQ(write(to_guest, text, sizeof(text)), sizeof(text));
	for (i = 0; i < sizeof(text); i++) {
		if (!(rd(UART_LSR) & UART_LSR_DR))
			serve();
		if (rd(UART_RX) != (uint8_t)text[i])
			FAIL("byte %u is wrong", i);
	}
	EXPECT_FALSE(rd(UART_LSR) & (UART_LSR_DR | UART_LSR_OE));
	tap_checked();
}

TEST(end_of_input_is_quiet)
{
	start();
	type("z");
	close(to_guest);
	serve();
	EXPECT_EQ(rd(UART_RX), 'z');
	EXPECT_EQ(loop_poll(&loop, 50), 0);
}

TEST(full_output_stops_the_transmitter_until_it_drains)
{
	unsigned int sent = 0, got = 0;

	start();
	ASSERT_OK(fcntl(from_guest, F_SETPIPE_SZ, 4096));
	wr(UART_MCR, UART_MCR_OUT2);
	wr(UART_IER, UART_IER_THRI);
	while (rd(UART_LSR) & UART_LSR_THRE) {
		wr(UART_TX, 'x');
		rd(UART_IIR);
		if (++sent % 1000 == 0)
			serve();
		if (sent > 100000)
			FAIL("a pipe of 4096 bytes never fills");
	}
	EXPECT_FALSE(irq());
	wr(UART_TX, '!');			/* dropped: the driver was told */
	got += (unsigned int)strlen(seen());
	serve();
	EXPECT_TRUE(rd(UART_LSR) & UART_LSR_THRE);
	EXPECT_TRUE(irq());
	do {
		serve();
		sent -= got;
		got = (unsigned int)strlen(seen());
	} while (got);
	EXPECT_EQ(sent, 0);
}

TEST(loopback_returns_bytes_and_modem_lines)
{
	start();
	EXPECT_EQ(rd(UART_MSR), UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS);
	wr(UART_MCR, UART_MCR_LOOP | UART_MCR_OUT2 | UART_MCR_RTS);
	EXPECT_EQ(rd(UART_MSR), UART_MSR_DCD | UART_MSR_CTS);
	wr(UART_TX, 0x5a);
	EXPECT_EQ(rd(UART_RX), 0x5a);
	wr(UART_TX, 1);
	wr(UART_TX, 2);				/* no FIFO: overrun */
	EXPECT_TRUE(rd(UART_LSR) & UART_LSR_OE);
	EXPECT_FALSE(rd(UART_LSR) & UART_LSR_OE);
	EXPECT_EQ(rd(UART_RX), 1);
	serve();
	EXPECT_STREQ(seen(), "");
}

TEST(divisor_and_scratch_are_kept)
{
	start();
	wr(UART_LCR, UART_LCR_DLAB | 3);
	wr(UART_DLL, 0x34);
	wr(UART_DLM, 0x12);
	EXPECT_EQ(rd(UART_DLL), 0x34);
	EXPECT_EQ(rd(UART_DLM), 0x12);
	wr(UART_LCR, 3);
	EXPECT_EQ(rd(UART_IER), 0);
	wr(UART_SCR, 0x77);
	EXPECT_EQ(rd(UART_SCR), 0x77);
	EXPECT_EQ(rd(UART_LCR), 3);
}

TEST(marker_is_noted_once_it_appears)
{
	const char *text = "nonono: now";

	start();
	con.marker = "no: now";
	while (*text) {
		EXPECT_EQ(con.marker_ns, 0);
		wr(UART_TX, (uint8_t)*text++);
	}
	EXPECT_NE(con.marker_ns, 0);
}

/*
 * A child on a pseudo-terminal. It writes a line when the terminal is raw and
 * ends as @how says.
 */
enum how { QUITS, RETURNS, EXITS, ABORTS };

static pid_t on_terminal(enum how how, int *master, int *slave)
{
	pid_t pid;

	ASSERT_OK(openpty(master, slave, NULL, NULL, NULL));
	pid = fork();
	if (pid)
		return pid;
	login_tty(*slave);
	attach();
	if (write(STDERR_FILENO, "raw\n", 4) != 4)
		_exit(99);
	switch (how) {
	case QUITS:
		loop_run(&loop);
		console_fini(&con);
		_exit(loop.stop_reason);
	case RETURNS:
		console_fini(&con);
		_exit(0);
	case EXITS:
		exit(0);
	case ABORTS:
		raise(SIGABRT);
	}
	_exit(98);
}

static void await(int fd, const char *text)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	char got[4096] = "";
	size_t n = 0;
	ssize_t done;

	while (!strstr(got, text)) {
		if (poll(&pfd, 1, 10000) != 1)
			FAIL("'%s' did not come, but '%s'", text, got);
		done = read(fd, got + n, sizeof(got) - 1 - n);
		n += done > 0 ? (size_t)done : 0;
	}
}

static bool is_raw(int fd)
{
	struct termios mode;

	ASSERT_OK(tcgetattr(fd, &mode));
	return !(mode.c_lflag & (ICANON | ECHO | ISIG));
}

TEST(terminal_is_raw_and_restored_on_every_way_out)
{
	enum how how;
	int master, slave, status;
	pid_t pid;

	for (how = QUITS; how <= ABORTS; how++) {
		pid = on_terminal(how, &master, &slave);
		await(master, "raw");
		if (how == QUITS) {
			EXPECT_TRUE(is_raw(slave));
			ASSERT_EQ(write(master, "\001x", 2), 2);
		}
		ASSERT_EQ(waitpid(pid, &status, 0), pid);
		EXPECT_FALSE(is_raw(slave));
		if (how == QUITS)
			EXPECT_EQ(WEXITSTATUS(status), QUIT);
		if (how == ABORTS)
			EXPECT_EQ(WTERMSIG(status), SIGABRT);
		close(master);
		close(slave);
	}
}

TEST(escapes_are_not_for_the_guest)
{
	int master, slave, status;
	pid_t pid;

	pid = on_terminal(QUITS, &master, &slave);
	await(master, "raw");
	ASSERT_EQ(write(master, "\001h", 2), 2);
	await(master, "Ctrl-A x");
	EXPECT_TRUE(is_raw(slave));
	ASSERT_EQ(write(master, "\001", 1), 1);
	ASSERT_EQ(write(master, "x", 1), 1);
	ASSERT_EQ(waitpid(pid, &status, 0), pid);
	EXPECT_EQ(WEXITSTATUS(status), QUIT);
}
