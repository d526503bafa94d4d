// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Puts the parts of a machine together and takes them apart in reverse.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../util/util.h"
#include "acpi.h"
#include "machine.h"

int machine_init(struct machine *m, const struct machine_config *config,
		 struct loop *loop, struct console *con)
{
	int ret;

	memset(m, 0, sizeof(*m));
	m->config = config;
	m->loop = loop;
	m->con = con;
	ret = kvm_open(&m->kvm, config->device);
	if (ret)
		return ret;
	if (config->cpus > (unsigned int)m->kvm.max_vcpus) {
		ret = fail(EINVAL, "%s offers at most %d vCPUs", config->device,
			   m->kvm.max_vcpus);
		goto out_close;
	}
	m->vcpus = calloc(config->cpus, sizeof(*m->vcpus));
	if (!m->vcpus) {
		ret = fail(ENOMEM, "out of memory");
		goto out_close;
	}
	ret = ram_init(&m->ram, config->memory);
	if (!ret)
		return 0;

	free(m->vcpus);
out_close:
	kvm_close(&m->kvm);
	return ret;
}

void machine_fini(struct machine *m)
{
	ram_fini(&m->ram);
	free(m->vcpus);
	kvm_close(&m->kvm);
}

static int add_disks(struct machine *m)
{
	unsigned int queues = MIN(m->config->cpus, BLK_MAX_QUEUES);
	unsigned int i;
	int ret;

	for (i = 0; i < m->config->nr_disks; i++) {
		ret = blk_init(&m->blks[i], i, queues, &m->config->disks[i], &m->pci,
			       &m->ram, m->loop);
		if (ret)
			return ret;
		m->nr_blks++;
	}
	return 0;
}

static void remove_disks(struct machine *m)
{
	while (m->nr_blks)
		blk_fini(&m->blks[--m->nr_blks]);
}

static int add_devices(struct machine *m)
{
	uint64_t low = m->ram.regions[0].size;
	int ret;

	bus_init(&m->bus);
	ret = serial_init(&m->serial, &m->bus, &m->kvm, m->con);
	if (ret)
		goto out_fini_bus;
	ret = rtc_init(&m->rtc, &m->bus, &m->kvm, m->loop, low, m->ram.size - low);
	if (ret)
		goto out_fini_serial;
	ret = pm_init(&m->pm, &m->bus, m->loop);
	if (ret)
		goto out_fini_rtc;
	ret = pci_init(&m->pci, &m->bus, &m->kvm);
	if (ret)
		goto out_fini_rtc;
	ret = rng_init(&m->rng, &m->pci, &m->ram, m->loop);
	if (ret)
		goto out_fini_rtc;
	ret = add_disks(m);
	if (!ret)
		return 0;

	remove_disks(m);
	rng_fini(&m->rng);
out_fini_rtc:
	rtc_fini(&m->rtc);
out_fini_serial:
	serial_fini(&m->serial, &m->bus);
out_fini_bus:
	bus_fini(&m->bus);
	return ret;
}

static void remove_devices(struct machine *m)
{
	remove_disks(m);
	rng_fini(&m->rng);
	rtc_fini(&m->rtc);
	serial_fini(&m->serial, &m->bus);
	bus_fini(&m->bus);
}

/* Reads all of @file into memory that the caller frees; nothing for no file. */
static int read_file(const struct machine_file *file, uint8_t **data, size_t *len)
{
	struct stat st;
	ssize_t n = 1;
	int ret;

	*data = NULL;
	*len = 0;
	if (!file->path)
		return 0;
	if (fstat(file->fd, &st))
		return fail(errno, "cannot examine %s: %s", file->path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return fail(EINVAL, "%s is not a regular file", file->path);
	if (!st.st_size)
		return fail(EINVAL, "%s is empty", file->path);
	*data = malloc((size_t)st.st_size);
	if (!*data)
		return fail(ENOMEM, "%s is too large", file->path);
	while (*len < (size_t)st.st_size && n > 0) {
		n = pread(file->fd, *data + *len, (size_t)st.st_size - *len, (off_t)*len);
		*len += n > 0 ? (size_t)n : 0;
	}
	if (n >= 0)
		return 0;
	ret = errno;
	free(*data);
	return fail(ret, "cannot read %s: %s", file->path, strerror(ret));
}

static int load_kernel(struct machine *m)
{
	const struct machine_config *config = m->config;
	struct boot_source src = {
		.name = config->kernel.path, .cmdline = config->cmdline,
	};
	uint8_t *kernel, *initrd, *acpi;
	struct boot_entry entry;
	int ret;

	acpi = ram_ptr(&m->ram, MEMORY_ACPI, MEMORY_ACPI_SIZE);
	if (!acpi)
		return fail(EINVAL, "too little memory for a machine");
	ret = acpi_build(acpi, MEMORY_ACPI_SIZE, MEMORY_ACPI, config->cpus, &src.rsdp);
	if (ret)
		return fail(-ret, "the ACPI tables do not fit");

	ret = read_file(&config->kernel, &kernel, &src.kernel_len);
	if (ret)
		return ret;
	ret = read_file(&config->initrd, &initrd, &src.initrd_len);
	if (ret)
		goto out_free_kernel;
	src.kernel = kernel;
	src.initrd = initrd;
	ret = boot_load(&src, &m->ram, &entry);
	if (!ret)
		ret = vcpu_set_entry(&m->vcpus[0], &entry);

	free(initrd);
out_free_kernel:
	free(kernel);
	return ret;
}

static void remove_vcpus(struct machine *m)
{
	while (m->nr_vcpus)
		vcpu_fini(&m->vcpus[--m->nr_vcpus]);
}

static int add_vcpus(struct machine *m)
{
	unsigned int i;
	int ret;

	for (i = 0; i < m->config->cpus; i++) {
		ret = vcpu_init(&m->vcpus[i], i, m->config->cpus, &m->kvm, &m->ram,
				&m->bus, m->loop);
		if (ret) {
			remove_vcpus(m);
			return ret;
		}
		m->nr_vcpus++;
	}
	return 0;
}

static int start_vcpus(struct machine *m)
{
	unsigned int i;
	int ret;

	for (i = 0; i < m->nr_vcpus; i++) {
		ret = vcpu_start(&m->vcpus[i]);
		if (ret)
			return ret;
	}
	return 0;
}

int machine_power_on(struct machine *m)
{
	int ret;

	ret = kvm_create_vm(&m->kvm);
	if (ret)
		return ret;
	ret = memory_attach(&m->ram, &m->kvm);
	if (ret)
		goto out_destroy_vm;
	ret = add_devices(m);
	if (ret)
		goto out_destroy_vm;
	ret = add_vcpus(m);
	if (ret)
		goto out_remove_devices;
	ret = load_kernel(m);
	if (ret)
		goto out_remove_vcpus;
	ret = start_vcpus(m);
	if (!ret)
		return 0;

	machine_stop(m);
out_remove_vcpus:
	remove_vcpus(m);
out_remove_devices:
	remove_devices(m);
out_destroy_vm:
	kvm_destroy_vm(&m->kvm);
	return ret;
}

void machine_stop(struct machine *m)
{
	unsigned int i;

	for (i = 0; i < m->nr_vcpus; i++)
		vcpu_stop(&m->vcpus[i]);
}

void machine_power_off(struct machine *m)
{
	remove_vcpus(m);
	remove_devices(m);
	kvm_destroy_vm(&m->kvm);
}

void machine_show(struct machine *m)
{
	unsigned int i;

	fprintf(stderr, "\n");
	bus_show_devices(&m->bus);
	for (i = 0; i < m->nr_vcpus; i++)
		vcpu_show(&m->vcpus[i]);
}
