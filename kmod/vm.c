// SPDX-License-Identifier: GPL-2.0-only
/*
 * Lifetime of a VM: its file, its reference count, and the ways to reach all
 * of its vCPUs at once. A VM lives as long as its own file or that of one of
 * its vCPUs is open; teardown below mirrors create().
 */
#include <linux/anon_inodes.h>
#include <linux/sched/mm.h>

#include "backend.h"

static struct fonda_vm *create(void)
{
	struct fonda_vm *vm;
	int ret;

	vm = kvzalloc(sizeof(*vm), GFP_KERNEL_ACCOUNT);
	if (!vm)
		return ERR_PTR(-ENOMEM);

	refcount_set(&vm->users, 1);
	mutex_init(&vm->lock);
	mutex_init(&vm->slots_lock);
	spin_lock_init(&vm->ring_lock);
	vm->mm = current->mm;
	mmgrab(vm->mm);

	ret = init_srcu_struct(&vm->srcu);
	if (ret)
		goto out_mm;
	fonda_irq_init(vm);
	fonda_clock_init(vm);
	vm->ring = (void *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	ret = vm->ring ? fonda_hardware_get(vm) : -ENOMEM;
	if (ret)
		goto out_io;
	/* Last: from here on the memory manager calls us. */
	ret = fonda_mmu_init(vm);
	if (ret)
		goto out_hardware;
	return vm;

out_hardware:
	fonda_hardware_put(vm);
out_io:
	fonda_io_fini(vm);
	cleanup_srcu_struct(&vm->srcu);
out_mm:
	mmdrop(vm->mm);
	kvfree(vm);
	return ERR_PTR(ret);
}

static void destroy(struct fonda_vm *vm)
{
	debugfs_remove_recursive(vm->debugfs);
	fonda_irq_fini(vm);
	fonda_mmu_fini(vm);
	while (vm->nr_vcpus)
		fonda_vcpu_destroy(vm->vcpus[--vm->nr_vcpus]);
	fonda_hardware_put(vm);
	fonda_io_fini(vm);
	kvfree(rcu_access_pointer(vm->msr_filter));
	cleanup_srcu_struct(&vm->srcu);
	mmdrop(vm->mm);
	kvfree(vm);
}

void fonda_vm_put(struct fonda_vm *vm)
{
	if (refcount_dec_and_test(&vm->users))
		destroy(vm);
}

static int vm_release(struct inode *inode, struct file *file)
{
	struct fonda_vm *vm = file->private_data;

	/*
	 * An irqfd holds a file that could be the last user of this VM; without
	 * this two VMs wired to each other would live for ever.
	 */
	fonda_eventfds_release(vm);
	fonda_vm_put(vm);
	return 0;
}

static const struct file_operations vm_fops = {
	.owner		= THIS_MODULE,
	.release	= vm_release,
	.unlocked_ioctl	= fonda_vm_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
	.llseek		= noop_llseek,
};

struct file *fonda_vm_file(struct fonda_vm *vm, const char *name,
			   const struct file_operations *fops, void *data, int *fd)
{
	struct file *file;

	*fd = get_unused_fd_flags(O_CLOEXEC);
	if (*fd < 0)
		return NULL;
	file = anon_inode_getfile(name, fops, data, fops->read ? O_RDONLY : O_RDWR);
	if (IS_ERR(file)) {
		put_unused_fd(*fd);
		*fd = PTR_ERR(file);
		return NULL;
	}
	refcount_inc(&vm->users);
	return file;
}

/* KVM_CREATE_VM: a new file of a new VM; type 0 is the only one. */
long fonda_dev_create_vm(struct fonda_vcpu *vcpu, void *type, unsigned int cmd)
{
	struct fonda_vm *vm;
	struct file *file;
	int fd;

	if (type)
		return -EINVAL;
	vm = create();
	if (IS_ERR(vm))
		return PTR_ERR(vm);
	file = fonda_vm_file(vm, "fonda-vm", &vm_fops, vm, &fd);
	if (file) {
		fonda_stats_vm_init(vm, fd);
		fd_install(fd, file);
	}
	fonda_vm_put(vm);
	return fd;
}

/* Too big for the stack; preemption is off while one is in use. */
static DEFINE_PER_CPU(struct cpumask, kick_mask);

static void acknowledge_kick(void *unused)
{
	/* Taking the interrupt has already ended the guest's run. */
}

void fonda_vm_kick_all(struct fonda_vm *vm, int req, bool wait)
{
	struct fonda_vcpu *vcpu;
	struct cpumask *mask;
	int i;

	guard(preempt)();
	mask = this_cpu_ptr(&kick_mask);
	cpumask_clear(mask);
	fonda_for_each_vcpu(i, vcpu, vm) {
		if (req >= 0)
			fonda_request(vcpu, req);
		/*
		 * Pairs with the store of the mode before the vCPU looks at its
		 * requests: either it sees ours, or we see it in the guest.
		 */
		smp_mb__after_atomic();
		if (READ_ONCE(vcpu->mode) == FONDA_IN_GUEST)
			cpumask_set_cpu(READ_ONCE(vcpu->cpu), mask);
		else if (!wait)
			rcuwait_wake_up(&vcpu->wait);
	}
	if (!cpumask_empty(mask))
		smp_call_function_many(mask, acknowledge_kick, NULL, wait);
}

void fonda_vm_synchronize(struct fonda_vm *vm)
{
	struct fonda_vcpu *vcpu;
	bool busy = false;
	int i;

	/*
	 * What the caller published must be visible before we look for readers:
	 * a vCPU marks itself (fonda_slots_enter()) before it reads. One that we
	 * do not see marked will read what was published.
	 */
	smp_mb();
	fonda_for_each_vcpu(i, vcpu, vm)
		busy |= !!READ_ONCE(vcpu->thread);
	if (!busy)
		return;
	/*
	 * One that left and came back may be waited for once more, so none goes
	 * back into its guest until the grace period is over.
	 */
	atomic_inc(&vm->synchronizing);
	smp_mb__after_atomic();
	fonda_vm_kick_all(vm, FONDA_REQ_UNLOAD, false);
	synchronize_srcu_expedited(&vm->srcu);
	atomic_dec(&vm->synchronizing);
}
