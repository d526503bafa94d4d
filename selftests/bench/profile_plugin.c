// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A TCG plugin that records which instructions the emulated machine executes
 * between the markers of TIMED() (bench.h), one window per repetition. At the
 * end of each row it writes the addresses of the window of median length, in
 * order of execution, one a line, and then a line "end". Made for `profile`,
 * which gives them names.
 *
 *	-plugin profile_plugin.so,out=FILE
 *
 * Written to QEMU's "TCG Plugins" developer documentation; the few functions
 * it takes are declared here because no Debian package has the header. The
 * machine has one CPU, so nothing needs a lock.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Since version 3 the bytes of an instruction are copied out. */
#define API_OLDEST	3

typedef uint64_t plugin_id;
struct tb;
struct insn;

struct plugin_info {
	const char *target_name;
	struct {
		int min, cur;
	} version;
};

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id,
		void (*cb)(plugin_id id, struct tb *tb));
void qemu_plugin_register_vcpu_insn_exec_cb(struct insn *insn,
		void (*cb)(unsigned int cpu, void *arg), int flags, void *arg);
void qemu_plugin_register_atexit_cb(plugin_id id,
		void (*cb)(plugin_id id, void *arg), void *arg);
size_t qemu_plugin_tb_n_insns(const struct tb *tb);
struct insn *qemu_plugin_tb_get_insn(const struct tb *tb, size_t i);
uint64_t qemu_plugin_insn_vaddr(const struct insn *insn);
size_t qemu_plugin_insn_data(const struct insn *insn, void *data, size_t len);

extern int qemu_plugin_version;
int qemu_plugin_version = API_OLDEST;

#define MAX_WINDOWS	1024
#define MAX_TRACE	(64u << 20)	/* addresses in all windows: 512 MiB */

struct window {
	size_t start, len;
};

static FILE *out;
static struct window windows[MAX_WINDOWS];
static size_t nr_windows, nr_trace;
static uint64_t *trace;
static int open_window;

static void on_insn(unsigned int cpu, void *vaddr)
{
	(void)cpu;
	if (!open_window)
		return;
	if (nr_trace == MAX_TRACE) {
		/* The window is of no use without its end. */
		open_window = 0;
		nr_trace = windows[nr_windows].start;
		return;
	}
	trace[nr_trace++] = (uintptr_t)vaddr;
}

static void on_begin(unsigned int cpu, void *vaddr)
{
	(void)cpu;
	(void)vaddr;
	if (nr_windows == MAX_WINDOWS)
		return;
	windows[nr_windows].start = nr_trace;
	open_window = 1;
}

static void on_end(unsigned int cpu, void *vaddr)
{
	(void)cpu;
	(void)vaddr;
	if (!open_window)
		return;
	open_window = 0;
	windows[nr_windows].len = nr_trace - windows[nr_windows].start;
	nr_windows++;
}

static int by_length(const void *a, const void *b)
{
	const struct window *x = a, *y = b;

	return x->len < y->len ? -1 : x->len > y->len;
}

static void on_next(unsigned int cpu, void *vaddr)
{
	const struct window *w = &windows[nr_windows / 2];
	size_t i;

	(void)cpu;
	(void)vaddr;
	qsort(windows, nr_windows, sizeof(*windows), by_length);
	for (i = 0; nr_windows && i < w->len; i++)
		fprintf(out, "%016llx\n", (unsigned long long)trace[w->start + i]);
	fprintf(out, "end\n");
	nr_windows = 0;
	nr_trace = 0;
	open_window = 0;
}

/* The markers' displacement; they differ in the lowest byte. */
static void on_translate(plugin_id id, struct tb *tb)
{
	static const uint8_t marker[] = { 0x0f, 0x1f, 0x80, 0, 0xa0, 0x0d, 0x0f };
	static void (*const cbs[])(unsigned int cpu, void *arg) = {
		on_insn, on_begin, on_end, on_next,
	};
	size_t i;

	(void)id;
	for (i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
		struct insn *insn = qemu_plugin_tb_get_insn(tb, i);
		void *vaddr = (void *)(uintptr_t)qemu_plugin_insn_vaddr(insn);
		uint8_t data[sizeof(marker)];
		unsigned int which = 0;

		if (qemu_plugin_insn_data(insn, data, sizeof(data)) == sizeof(data) &&
		    !memcmp(data, marker, 3) && !memcmp(data + 4, marker + 4, 3) &&
		    data[3] < sizeof(cbs) / sizeof(cbs[0]))
			which = data[3];
		/* No flag: the callback does not read the CPU's registers. */
		qemu_plugin_register_vcpu_insn_exec_cb(insn, cbs[which], 0, vaddr);
	}
}

static void at_end(plugin_id id, void *arg)
{
	(void)id;
	(void)arg;
	if (fclose(out))
		perror("profile");
}

int qemu_plugin_install(plugin_id id, const struct plugin_info *info,
			int argc, char **argv);
int qemu_plugin_install(plugin_id id, const struct plugin_info *info,
			int argc, char **argv)
{
	int i;

	for (i = 0; i < argc; i++) {
		if (!strncmp(argv[i], "out=", 4))
			out = fopen(argv[i] + 4, "w");
	}
	trace = malloc(MAX_TRACE * sizeof(*trace));
	if (!out || !trace || info->version.cur < API_OLDEST ||
	    info->version.min > API_OLDEST) {
		fprintf(stderr, "profile: needs out=FILE, memory, and a QEMU whose plugin interface has version %d\n",
			API_OLDEST);
		return 1;
	}
	qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
	qemu_plugin_register_atexit_cb(id, at_end, NULL);
	return 0;
}
