// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * fonda run: one machine in the foreground, its console on the terminal.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "../util/util.h"
#include "../vm/machine.h"
#include "cmd.h"

#define DEFAULT_MEMORY	(512 * MIB)
#define DEFAULT_CMDLINE	"console=ttyS0"
#define KERNEL_STATS	"/sys/kernel/debug/fonda/%d-%d/stats"

static const char help[] =
"Usage: fonda run --kernel FILE [OPTION]...\n"
"Boot a Linux kernel in a virtual machine, its serial console on this terminal.\n"
"\n"
"  -k, --kernel FILE       bzImage, or ELF with a PVH entry (vmlinux)\n"
"  -i, --initrd FILE       initial ramdisk\n"
"  -a, --append TEXT       kernel command line (default: \"" DEFAULT_CMDLINE "\")\n"
"  -c, --cpus N            virtual CPUs, 1 to 254 (default: 1)\n"
"  -m, --memory SIZE       memory, in MiB or with K, M, G, T (default: 512M)\n"
"  -d, --disk FILE[,readonly]\n"
"                          raw image or block device; may be repeated\n"
"  -n, --name NAME         name of the machine (default: the kernel's)\n"
"      --device FILE       virtualisation device (default: " FONDA_DEVICE_PATH ")\n"
"      --no-reboot         exit when the guest asks for a reset\n"
"      --stats             print a summary at the end\n"
"      --marker TEXT       with --stats: time until TEXT is on the console\n"
"  -h, --help              this help\n"
"\n"
"Keys: Ctrl-A x quits, Ctrl-A h lists the others.\n"
"Exit status: 0 guest powered off, 1 error, 2 usage, 3 guest crashed,\n"
"4 guest reset with --no-reboot, 5 stopped by the user or a signal.\n";

enum { OPT_DEVICE = 256, OPT_NO_REBOOT, OPT_STATS, OPT_MARKER };

static const struct option options[] = {
	{ "kernel",	required_argument,	NULL, 'k' },
	{ "initrd",	required_argument,	NULL, 'i' },
	{ "append",	required_argument,	NULL, 'a' },
	{ "cpus",	required_argument,	NULL, 'c' },
	{ "memory",	required_argument,	NULL, 'm' },
	{ "disk",	required_argument,	NULL, 'd' },
	{ "name",	required_argument,	NULL, 'n' },
	{ "device",	required_argument,	NULL, OPT_DEVICE },
	{ "no-reboot",	no_argument,		NULL, OPT_NO_REBOOT },
	{ "stats",	no_argument,		NULL, OPT_STATS },
	{ "marker",	required_argument,	NULL, OPT_MARKER },
	{ "help",	no_argument,		NULL, 'h' },
	{ }
};

struct run {
	struct machine_config config;
	struct machine machine;
	struct loop loop;
	struct console con;
	struct event signals;
	struct event show;
	const char *marker;
	bool no_reboot;
	bool stats;
	unsigned int resets;
	uint64_t start_ns;
	uint64_t exits[VCPU_EXITS];	/* of all vCPUs, all lives */
	uint64_t bytes_read, bytes_written, flushes;
	char kernel_stats[8192];	/* the module's own, of the last life */
};

static int usage_error(void)
{
	fprintf(stderr, "Try 'fonda run --help'.\n");
	return EXIT_USAGE;
}

static int parse_disk(struct machine_config *config, char *arg)
{
	struct disk *disk;
	char *comma;

	if (config->nr_disks == MACHINE_MAX_DISKS)
		return fail(EINVAL, "at most %d disks", MACHINE_MAX_DISKS);
	disk = &config->disks[config->nr_disks];
	/* A comma may be part of a name: only the known suffix is cut off. */
	comma = strrchr(arg, ',');
	if (comma && (!strcmp(comma, ",readonly") || !strcmp(comma, ",ro"))) {
		disk->readonly = true;
		*comma = '\0';
	}
	if (!*arg)
		return fail(EINVAL, "--disk needs a file");
	disk->path = arg;
	config->nr_disks++;
	return 0;
}

static int parse_memory(struct machine_config *config, const char *arg)
{
	if (parse_size(arg, MIB, &config->memory))
		return fail(EINVAL, "'%s' is not a size: write 512M or 2G", arg);
	if (config->memory < MEMORY_MIN || config->memory > MEMORY_MAX)
		return fail(EINVAL, "memory must be between %llu MiB and %llu GiB",
			    MEMORY_MIN / MIB, MEMORY_MAX / GIB);
	config->memory = align_up(config->memory, MIB);
	return 0;
}

/* 0, or EXIT_USAGE after a sentence, or -1 if help was asked for and given. */
static int parse_options(struct run *run, int argc, char **argv)
{
	struct machine_config *config = &run->config;
	int opt, ret = 0;

	config->cpus = 1;
	config->memory = DEFAULT_MEMORY;
	config->cmdline = DEFAULT_CMDLINE;
	config->device = FONDA_DEVICE_PATH;
	while ((opt = getopt_long(argc, argv, "k:i:a:c:m:d:n:h", options, NULL)) != -1) {
		switch (opt) {
		case 'k':
			config->kernel.path = optarg;
			break;
		case 'i':
			config->initrd.path = optarg;
			break;
		case 'a':
			config->cmdline = optarg;
			break;
		case 'c':
			if (parse_uint(optarg, 1, MACHINE_MAX_CPUS, &config->cpus))
				ret = fail(EINVAL, "'%s' is not a number of CPUs from 1 to %d",
					   optarg, MACHINE_MAX_CPUS);
			break;
		case 'm':
			ret = parse_memory(config, optarg);
			break;
		case 'd':
			ret = parse_disk(config, optarg);
			break;
		case 'n':
			config->name = optarg;
			break;
		case OPT_DEVICE:
			config->device = optarg;
			break;
		case OPT_NO_REBOOT:
			run->no_reboot = true;
			break;
		case OPT_STATS:
			run->stats = true;
			break;
		case OPT_MARKER:
			run->marker = optarg;
			break;
		case 'h':
			fputs(help, stdout);
			return -1;
		default:
			return usage_error();
		}
		if (ret)
			return usage_error();
	}
	if (optind < argc) {
		fail(EINVAL, "'%s' is one argument too many", argv[optind]);
		return usage_error();
	}
	if (!config->kernel.path) {
		fail(EINVAL, "--kernel is missing");
		return usage_error();
	}
	if (!config->name) {
		config->name = strrchr(config->kernel.path, '/');
		config->name = config->name ? config->name + 1 : config->kernel.path;
	}
	return 0;
}

static int open_file(struct machine_file *file)
{
	int ret;

	file->fd = -1;
	if (!file->path)
		return 0;
	file->fd = open(file->path, O_RDONLY | O_CLOEXEC);
	if (file->fd >= 0)
		return 0;
	ret = errno;
	return fail(ret, "cannot open %s: %s", file->path, strerror(ret));
}

/* All files are opened here, before anything of a guest runs. */
static int open_files(struct machine_config *config)
{
	unsigned int i;
	int ret;

	ret = open_file(&config->kernel);
	if (!ret)
		ret = open_file(&config->initrd);
	for (i = 0; i < config->nr_disks; i++)
		config->disks[i].fd = -1;
	for (i = 0; !ret && i < config->nr_disks; i++)
		ret = disk_open(&config->disks[i]);
	return ret;
}

static void close_files(struct machine_config *config)
{
	unsigned int i;

	for (i = 0; i < config->nr_disks; i++)
		if (config->disks[i].fd >= 0)
			disk_close(&config->disks[i]);
	if (config->initrd.fd >= 0)
		close(config->initrd.fd);
	if (config->kernel.fd >= 0)
		close(config->kernel.fd);
}

static void signalled(struct event *ev)
{
	struct run *run = container_of(ev, struct run, signals);
	struct signalfd_siginfo info;

	if (read(ev->fd, &info, sizeof(info)) != sizeof(info))
		return;
	if (info.ssi_signo == SIGCONT)
		console_resume(&run->con);
	else if (info.ssi_signo == SIGUSR2)
		machine_show(&run->machine);
	else
		loop_stop(&run->loop, STOP_SIGNAL);
}

static void show(struct event *ev)
{
	struct run *run = container_of(ev, struct run, show);

	event_drain(ev);
	machine_show(&run->machine);
}

/* Signals become events, so that every one of them ends in an orderly way. */
static int init_events(struct run *run)
{
	sigset_t set;
	int ret;

	signal(SIGPIPE, SIG_IGN);
	vcpu_init_signals();
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGQUIT);
	sigaddset(&set, SIGCONT);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
	run->signals.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (run->signals.fd < 0)
		return -errno;
	run->signals.ready = signalled;
	ret = loop_add(&run->loop, &run->signals, EPOLLIN);
	if (ret)
		goto out_close;
	ret = event_init_eventfd(&run->show, show, NULL);
	if (ret)
		goto out_close;
	ret = loop_add(&run->loop, &run->show, EPOLLIN);
	if (!ret)
		return 0;

	event_fini(&run->show);
out_close:
	event_fini(&run->signals);
	return ret;
}

static void fini_events(struct run *run)
{
	event_fini(&run->show);
	event_fini(&run->signals);
}

/* The file lives as long as the VM, is root's, and stock KVM has none. */
static void read_kernel_stats(struct run *run)
{
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), KERNEL_STATS, getpid(), run->machine.kvm.vm_fd);
	f = fopen(path, "re");
	if (!f)
		return;
	run->kernel_stats[fread(run->kernel_stats, 1, sizeof(run->kernel_stats) - 1, f)] = '\0';
	fclose(f);
}

/* Adds up what this life of the machine did. */
static void collect(struct run *run)
{
	const struct machine *m = &run->machine;
	unsigned int i, r;

	if (run->stats)
		read_kernel_stats(run);

	for (i = 0; i < m->nr_vcpus; i++)
		for (r = 0; r < VCPU_EXITS; r++)
			run->exits[r] += m->vcpus[i].exits[r];
	for (i = 0; i < m->nr_blks; i++) {
		run->bytes_read += m->blks[i].bytes_read;
		run->bytes_written += m->blks[i].bytes_written;
		run->flushes += m->blks[i].flushes;
	}
}

static double seconds_since_start(const struct run *run, uint64_t ns)
{
	return (double)(ns - run->start_ns) / (double)NSEC_PER_SEC;
}

static void print_stats(const struct run *run)
{
	const struct machine_config *config = &run->config;
	unsigned int r;

	fprintf(stderr, "machine      %s: %u vCPU, %llu MiB, %s\n", config->name,
		config->cpus, (unsigned long long)(config->memory / MIB), config->device);
	fprintf(stderr, "wall time    %.3f s\n", seconds_since_start(run, now_ns()));
	if (run->marker && run->con.marker_ns)
		fprintf(stderr, "marker       %.3f s until \"%s\"\n",
			seconds_since_start(run, run->con.marker_ns), run->marker);
	else if (run->marker)
		fprintf(stderr, "marker       \"%s\" did not appear\n", run->marker);
	if (run->resets)
		fprintf(stderr, "resets       %u\n", run->resets);
	fprintf(stderr, "console      %llu bytes written\n",
		(unsigned long long)run->con.bytes_out);
	if (config->nr_disks)
		fprintf(stderr, "disks        %llu KiB read, %llu KiB written, %llu flushes\n",
			(unsigned long long)run->bytes_read / 1024,
			(unsigned long long)run->bytes_written / 1024,
			(unsigned long long)run->flushes);
	fprintf(stderr, "user exits  ");
	for (r = 0; r < VCPU_EXITS; r++)
		if (run->exits[r])
			fprintf(stderr, " %s %llu", vcpu_exit_name(r),
				(unsigned long long)run->exits[r]);
	fprintf(stderr, "\n%s", run->kernel_stats);
}

/* Power on, run, power off, and again after a reset. The last reason to stop. */
static int run_machine(struct run *run)
{
	int reason, ret;

	for (;;) {
		ret = machine_power_on(&run->machine);
		if (ret)
			return ret;
		reason = loop_run(&run->loop);
		machine_stop(&run->machine);
		collect(run);
		machine_power_off(&run->machine);
		if (reason != STOP_RESET || run->no_reboot)
			return reason;
		run->resets++;
		ret = ram_clear(&run->machine.ram);
		if (ret)
			return ret;
		loop_rearm(&run->loop);
	}
}

static int exit_status(int reason)
{
	switch (reason) {
	case STOP_POWEROFF:
		return EXIT_OK;
	case STOP_RESET:
		return EXIT_RESET;
	case STOP_CRASH:
		return EXIT_CRASHED;
	case STOP_QUIT:
	case STOP_SIGNAL:
		return EXIT_STOPPED;
	default:
		return EXIT_ERROR;
	}
}

static int run_with_console(struct run *run)
{
	int ret;

	ret = machine_init(&run->machine, &run->config, &run->loop, &run->con);
	if (ret)
		return ret;
	ret = init_events(run);
	if (ret)
		goto out_fini_machine;
	ret = console_init(&run->con, &run->loop, STOP_QUIT);
	if (ret)
		goto out_fini_events;
	run->con.marker = run->marker;
	run->con.show = &run->show;

	ret = run_machine(run);

	console_fini(&run->con);
	if (run->stats && ret > 0)
		print_stats(run);
out_fini_events:
	fini_events(run);
out_fini_machine:
	machine_fini(&run->machine);
	return ret;
}

int cmd_run(int argc, char **argv)
{
	struct run *run = calloc(1, sizeof(*run));
	int ret;

	if (!run) {
		fail(ENOMEM, "out of memory");
		return EXIT_ERROR;
	}
	run->start_ns = now_ns();
	ret = parse_options(run, argc, argv);
	if (ret) {
		free(run);
		return ret < 0 ? EXIT_OK : ret;
	}
	ret = open_files(&run->config);
	if (!ret)
		ret = loop_init(&run->loop);
	if (!ret) {
		ret = run_with_console(run);
		loop_fini(&run->loop);
	}
	close_files(&run->config);
	free(run);
	return exit_status(ret);
}
