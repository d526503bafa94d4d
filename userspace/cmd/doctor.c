// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * fonda doctor: does this machine have what it needs, and what to do if not.
 */
#include <errno.h>
#include <cpuid.h>
#include <fcntl.h>
#include <getopt.h>
#include <liburing.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../util/kvm.h"
#include "../util/util.h"
#include "cmd.h"

static const char help[] =
"Usage: fonda doctor [--device FILE]\n"
"Check what fonda needs of this machine, and say what to do about what is missing.\n"
"\n"
"      --device FILE       virtualisation device (default: " FONDA_DEVICE_PATH ")\n"
"  -h, --help              this help\n"
"\n"
"Exit status: 0 all is well, 1 something is missing, 2 usage.\n";

enum verdict { GOOD, NOTE, BAD };

struct doctor {
	const char *device;
	bool own_module;		/* the device is ours, not stock KVM's */
	bool sick;
};

/* One line for a finding, and below it the remedy, if one is needed. */
static void say(struct doctor *d, enum verdict verdict, const char *what,
		const char *finding, const char *remedy)
{
	static const char * const words[] = {
		[GOOD] = "ok", [NOTE] = "note", [BAD] = "FAIL",
	};

	printf("%-5s %-12s %s\n", words[verdict], what, finding);
	if (verdict != GOOD && remedy)
		printf("%-5s %-12s -> %s\n", "", "", remedy);
	if (verdict == BAD)
		d->sick = true;
}

static bool module_loaded(const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/module/%s", name);
	return !access(path, F_OK);
}

static void check_cpu(struct doctor *d)
{
	unsigned int eax, ebx, ecx, edx;
	bool svm = false, vmx = false, guest = false;

	if (__get_cpuid(1, &eax, &ebx, &ecx, &edx)) {
		vmx = ecx & BIT(5);
		guest = ecx & BIT(31);
	}
	if (__get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx))
		svm = ecx & BIT(2);

	if (svm && __get_cpuid(0x8000000a, &eax, &ebx, &ecx, &edx) && !(edx & BIT(0)))
		say(d, BAD, "cpu", "has SVM without nested paging",
		    "fonda needs nested paging, which every AMD CPU since 2008 has");
	else if (svm)
		say(d, GOOD, "cpu", "AMD, with SVM and nested paging", NULL);
	else if (vmx)
		say(d, GOOD, "cpu", "Intel, with VMX", NULL);
	else if (guest)
		say(d, BAD, "cpu", "has neither SVM nor VMX; this is a virtual machine",
		    "enable nested virtualisation for it, or use the emulated machine: make demo");
	else
		say(d, BAD, "cpu", "has neither SVM nor VMX",
		    "enable \"SVM mode\" or \"VT-x\" in the firmware's setup, or use the emulated machine: make demo");
}

static void check_module(struct doctor *d)
{
	if (!d->own_module)
		return;
	if (module_loaded("fonda"))
		say(d, GOOD, "module", "fonda is loaded", NULL);
	else
		say(d, BAD, "module", "fonda is not loaded",
		    "load it: 'modprobe fonda', or 'insmod fonda.ko' in the build directory; 'dmesg' says why if that fails");
}

/* Both use the same feature of the CPU, and only one can at a time. */
static void check_kvm(struct doctor *d)
{
	const char *name = module_loaded("kvm_amd") ? "kvm_amd" :
			   module_loaded("kvm_intel") ? "kvm_intel" : NULL;
	char finding[80], remedy[120];

	if (!d->own_module || !name)
		return;
	snprintf(finding, sizeof(finding), "%s is loaded and may hold the CPU", name);
	snprintf(remedy, sizeof(remedy),
		 "if a guest cannot start: stop KVM's guests and 'modprobe -r %s kvm'", name);
	say(d, NOTE, "kvm", finding, remedy);
}

/* Who may use a device that we may not. */
static void say_permissions(struct doctor *d, const struct stat *st)
{
	char finding[160], remedy[80];

	snprintf(finding, sizeof(finding), "%s is not yours to read and write (mode %04o, user %u, group %u)",
		 d->device, st->st_mode & 07777, st->st_uid, st->st_gid);
	if (st->st_gid && (st->st_mode & 060) == 060)
		snprintf(remedy, sizeof(remedy), "join group %u and log in again, or run as root",
			 st->st_gid);
	else
		snprintf(remedy, sizeof(remedy), "run as root");
	say(d, BAD, "device", finding, remedy);
}

/* True if the device can be opened and is what it should be. */
static bool check_device(struct doctor *d)
{
	char finding[160];
	struct stat st;
	int fd, version;

	if (stat(d->device, &st)) {
		snprintf(finding, sizeof(finding), "%s: %s", d->device, strerror(errno));
		say(d, BAD, "device", finding, "it appears when the module is loaded");
		return false;
	}
	fd = open(d->device, O_RDWR | O_CLOEXEC);
	if (fd < 0 && (errno == EACCES || errno == EPERM)) {
		say_permissions(d, &st);
		return false;
	}
	if (fd < 0) {
		snprintf(finding, sizeof(finding), "%s cannot be opened: %s", d->device,
			 strerror(errno));
		say(d, BAD, "device", finding, "'dmesg' may say why");
		return false;
	}
	version = ioctl(fd, KVM_GET_API_VERSION, 0);
	close(fd);
	if (version != KVM_API_VERSION) {
		snprintf(finding, sizeof(finding), "%s does not speak the API (version %d)",
			 d->device, version);
		say(d, BAD, "device", finding, "it must be fonda's, or stock KVM's");
		return false;
	}
	snprintf(finding, sizeof(finding), "%s speaks API version %d", d->device, version);
	say(d, GOOD, "device", finding, NULL);
	return true;
}

/* The proof: make a VM and throw it away. Errors have printed a sentence. */
static void check_vm(struct doctor *d)
{
	struct kvm kvm;

	fflush(stdout);
	if (kvm_open(&kvm, d->device)) {
		say(d, BAD, "machine", "the device lacks what a machine needs",
		    "load the module of this version of fonda");
		return;
	}
	if (kvm_create_vm(&kvm)) {
		say(d, BAD, "machine", "a machine cannot be made",
		    "see the sentence above, and 'dmesg'");
	} else {
		kvm_destroy_vm(&kvm);
		say(d, GOOD, "machine", "a machine can be made", NULL);
	}
	kvm_close(&kvm);
}

static void check_io_uring(struct doctor *d)
{
	struct io_uring ring;
	int ret = io_uring_queue_init(1, &ring, 0);

	if (ret) {
		say(d, BAD, "io_uring", strerror(-ret),
		    "disks need it: see the sysctl kernel.io_uring_disabled and a container's seccomp policy");
		return;
	}
	io_uring_queue_exit(&ring);
	say(d, GOOD, "io_uring", "works", NULL);
}

int cmd_doctor(int argc, char **argv)
{
	static const struct option options[] = {
		{ "device",	required_argument,	NULL, 'd' },
		{ "help",	no_argument,		NULL, 'h' },
		{ }
	};
	struct doctor d = { .device = FONDA_DEVICE_PATH };
	int opt;

	while ((opt = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (opt) {
		case 'd':
			d.device = optarg;
			break;
		case 'h':
			fputs(help, stdout);
			return EXIT_OK;
		default:
			fprintf(stderr, "Try 'fonda doctor --help'.\n");
			return EXIT_USAGE;
		}
	}
	if (optind < argc) {
		fail(EINVAL, "'%s' is one argument too many", argv[optind]);
		fprintf(stderr, "Try 'fonda doctor --help'.\n");
		return EXIT_USAGE;
	}
	d.own_module = strcmp(d.device, "/dev/kvm") != 0;
	check_cpu(&d);
	check_module(&d);
	check_kvm(&d);
	if (check_device(&d))
		check_vm(&d);
	check_io_uring(&d);
	return d.sick ? EXIT_ERROR : EXIT_OK;
}
