// SPDX-License-Identifier: GPL-2.0-only
/*
 * Statistics in debugfs: /sys/kernel/debug/fonda/<pid>-<fd>/stats, one file a
 * VM, a line a counter. The directory carries the process that made the VM and
 * the number of its file there.
 */
#include <linux/debugfs.h>
#include <linux/module.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <asm/tsc.h>

#include "stats.h"

DEFINE_STATIC_KEY_TRUE(fonda_stats_time);

static bool exit_time = true;
module_param(exit_time, bool, 0444);
MODULE_PARM_DESC(exit_time, "measure how long exits take, by reason (two RDTSC an exit)");

static struct dentry *root;

/* In the order of enum fonda_stat_exit. */
static const char *const exit_names[FONDA_NR_STAT_EXITS] = {
	"interrupt", "halt", "pio", "mmio", "page_fault", "msr", "cpuid", "cr", "dr",
	"exception", "nmi_window", "hypercall", "cache", "pause", "other",
};

/* Sum of one counter, given by its offset, over all vCPUs. */
static u64 sum(struct fonda_vm *vm, size_t offset)
{
	struct fonda_vcpu *vcpu;
	u64 total = 0;
	int i;

	fonda_for_each_vcpu(i, vcpu, vm)
		total += READ_ONCE(*(u64 *)((void *)&vcpu->stats + offset));
	return total;
}

static int stats_show(struct seq_file *m, void *unused)
{
	static const struct { const char *name; size_t offset; } others[] = {
		{ "user_exits", offsetof(struct fonda_vcpu_stats, user_exits) },
		{ "halt_polls", offsetof(struct fonda_vcpu_stats, halt_polls) },
		{ "halt_sleeps", offsetof(struct fonda_vcpu_stats, halt_sleeps) },
	};
	struct fonda_vm *vm = m->private;
	int i;

	seq_printf(m, "%-24s %12s %14s\n", "exit", "count", "microseconds");
	for (i = 0; i < FONDA_NR_STAT_EXITS; i++) {
		u64 cycles = sum(vm, offsetof(struct fonda_vcpu_stats, cycles[i]));

		seq_printf(m, "%-24s %12llu %14llu\n", exit_names[i],
			   sum(vm, offsetof(struct fonda_vcpu_stats, exits[i])),
			   mul_u64_u64_div_u64(cycles, 1000, tsc_khz));
	}
	for (i = 0; i < ARRAY_SIZE(others); i++)
		seq_printf(m, "%-24s %12llu\n", others[i].name, sum(vm, others[i].offset));
	seq_printf(m, "%-24s %12d\n", "vcpus", vm->nr_vcpus);
	fonda_mmu_show_stats(vm, m);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(stats);

/* debugfs holds off its removal (vm.c) while a file is being read. */
void fonda_stats_vm_init(struct fonda_vm *vm, int fd)
{
	static atomic_t again = ATOMIC_INIT(0);
	struct dentry *other;

	snprintf(vm->name, sizeof(vm->name), "%d-%d", task_tgid_vnr(current), fd);
	/* The file was closed while a vCPU lives on, or another PID namespace. */
	other = debugfs_lookup(vm->name, root);
	if (other) {
		dput(other);
		snprintf(vm->name, sizeof(vm->name), "%d-%d.%u", task_tgid_vnr(current), fd,
			 (u16)atomic_inc_return(&again));
	}
	vm->debugfs = debugfs_create_dir(vm->name, root);
	if (IS_ERR(vm->debugfs))
		vm->debugfs = NULL;
	else
		debugfs_create_file("stats", 0400, vm->debugfs, vm, &stats_fops);
}

void fonda_stats_init(void)
{
	if (!exit_time)
		static_branch_disable(&fonda_stats_time);
	root = debugfs_create_dir("fonda", NULL);
}

void fonda_stats_fini(void)
{
	debugfs_remove_recursive(root);
}
