// SPDX-License-Identifier: GPL-2.0-only
/*
 * Statistics, by KVM_GET_STATS_FD in its binary format, and in debugfs:
 * /sys/kernel/debug/fonda/<pid>-<fd>/stats, one file a VM,
 * a line a counter. The directory carries the process that made the VM and
 * the number of its file there.
 */
#include <linux/seq_file.h>
#include <asm/tsc.h>

#include "backend.h"

/* In the order of enum fonda_stat. */
static const char *const names[FONDA_STAT_CYCLES] = {
	"interrupt", "halt", "pio", "mmio", "page_fault", "msr", "cpuid", "cr", "dr",
	"exception", "nmi_window", "hypercall", "cache", "pause", "other",
	"user_exits", "halt_polls", "halt_sleeps",
};

/* Of one vCPU, or (NULL) the sum of all. */
static u64 read_stat(struct fonda_vm *vm, struct fonda_vcpu *only, int nr)
{
	struct fonda_vcpu *vcpu;
	u64 sum = 0;
	int i;

	fonda_for_each_vcpu(i, vcpu, vm)
		if (!only || vcpu == only)
			sum += READ_ONCE(vcpu->stats.count[nr]);
	return sum;
}

static int stats_show(struct seq_file *m, void *unused)
{
	static const char *const leaves[] = { "mapped_4k", "mapped_2m", "mapped_1g" };
	struct fonda_vm *vm = m->private;
	u64 cycles;
	int i;

	seq_printf(m, "%-24s %12s %14s\n", "exit", "count", "microseconds");
	for (i = 0; i < FONDA_STAT_CYCLES; i++) {
		seq_printf(m, "%-24s %12llu", names[i], read_stat(vm, NULL, i));
		if (i < FONDA_NR_STAT_EXITS) {
			cycles = read_stat(vm, NULL, FONDA_STAT_CYCLES + i);
			seq_printf(m, " %14llu", mul_u64_u64_div_u64(cycles, 1000, tsc_khz));
		}
		seq_putc(m, '\n');
	}
	seq_printf(m, "%-24s %12d\n", "vcpus", vm->nr_vcpus);
	for (i = 0; i < ARRAY_SIZE(leaves); i++)
		seq_printf(m, "%-24s %12ld\n", leaves[i],
			   atomic_long_read(&vm->mmu.table.leaves[i + 1]));
	seq_printf(m, "%-24s %12ld\n", "table_pages", atomic_long_read(&vm->mmu.table.tables));
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(stats);

/* -- KVM_GET_STATS_FD ------------------------------------------------------- */

#define NAME_BYTES	48
#define DESC_BYTES	(offsetof(struct kvm_stats_desc, name) + NAME_BYTES)
#define DESC_OFFSET	(sizeof(struct kvm_stats_header) + NAME_BYTES)
#define DATA_OFFSET	(DESC_OFFSET + FONDA_NR_STATS * DESC_BYTES)
#define STATS_BYTES	(DATA_OFFSET + FONDA_NR_STATS * sizeof(u64))

struct stats_file {
	struct fonda_vm *vm;
	struct fonda_vcpu *vcpu;	/* NULL: the sums of all */
};

static ssize_t stats_read(struct file *file, char __user *to, size_t len, loff_t *pos)
{
	const struct stats_file *f = file->private_data;
	struct kvm_stats_header *header __free(kfree) = kzalloc(STATS_BYTES, GFP_KERNEL);
	struct kvm_stats_desc *desc;
	u64 *data;
	char *id;
	int i;

	if (!header)
		return -ENOMEM;
	*header = (struct kvm_stats_header){
		.name_size = NAME_BYTES, .num_desc = FONDA_NR_STATS, .id_offset = sizeof(*header),
		.desc_offset = DESC_OFFSET, .data_offset = DATA_OFFSET };
	/* The reference's names begin like this, and its readers insist. */
	id = (char *)(header + 1);
	i = scnprintf(id, NAME_BYTES, "kvm-%s", f->vm->name);
	if (f->vcpu)
		scnprintf(id + i, NAME_BYTES - i, "/vcpu-%d", f->vcpu->id);
	data = (void *)header + DATA_OFFSET;
	for (i = 0; i < FONDA_NR_STATS; i++) {
		desc = (void *)header + DESC_OFFSET + i * DESC_BYTES;
		desc->flags = KVM_STATS_TYPE_CUMULATIVE | KVM_STATS_UNIT_NONE |
			      KVM_STATS_BASE_POW10;
		desc->size = 1;
		desc->offset = i * sizeof(u64);
		snprintf(desc->name, NAME_BYTES, i < FONDA_NR_STAT_EXITS ? "exits_%s" :
			 i < FONDA_STAT_CYCLES ? "%s" : "cycles_%s", names[i % FONDA_STAT_CYCLES]);
		data[i] = read_stat(f->vm, f->vcpu, i);
	}
	return simple_read_from_buffer(to, len, pos, header, STATS_BYTES);
}

static int stats_release(struct inode *inode, struct file *file)
{
	struct stats_file *f = file->private_data;

	fonda_vm_put(f->vm);
	kfree(f);
	return 0;
}

static const struct file_operations stats_fd_fops = {
	.owner		= THIS_MODULE,
	.read		= stats_read,
	.release	= stats_release,
	.llseek		= noop_llseek,
};

static long create_stats_fd(struct fonda_vm *vm, struct fonda_vcpu *vcpu)
{
	struct stats_file *f __free(kfree) = kmalloc(sizeof(*f), GFP_KERNEL_ACCOUNT);
	struct file *file;
	int fd;

	if (!f)
		return -ENOMEM;
	*f = (struct stats_file){ vm, vcpu };
	file = fonda_vm_file(vm, "fonda-stats", &stats_fd_fops, f, &fd);
	if (!file)
		return fd;
	f = NULL;	/* the file's now */
	file->f_mode |= FMODE_PREAD;
	fd_install(fd, file);
	return fd;
}

long fonda_vm_get_stats_fd(struct fonda_vm *vm, void *arg, unsigned int cmd)
{
	return create_stats_fd(vm, NULL);
}

long fonda_vcpu_get_stats_fd(struct fonda_vcpu *vcpu, void *arg, unsigned int cmd)
{
	return create_stats_fd(vcpu->vm, vcpu);
}

/* debugfs holds off its removal (vm.c) while a file is being read. */
void fonda_stats_vm_init(struct fonda_vm *vm, int fd)
{
	static atomic_t again = ATOMIC_INIT(0);
	struct dentry *other;

	snprintf(vm->name, sizeof(vm->name), "%d-%d", task_tgid_vnr(current), fd);
	/* The file was closed while a vCPU lives on, or another PID namespace. */
	other = debugfs_lookup(vm->name, fonda_debugfs);
	if (other) {
		dput(other);
		snprintf(vm->name, sizeof(vm->name), "%d-%d.%u", task_tgid_vnr(current), fd,
			 (u16)atomic_inc_return(&again));
	}
	vm->debugfs = debugfs_create_dir(vm->name, fonda_debugfs);
	debugfs_create_file("stats", 0400, vm->debugfs, vm, &stats_fops);
}
