// SPDX-License-Identifier: GPL-2.0-only
/*
 * The module: choice of backend, the device node, and when each CPU's
 * virtualization extension is on. It is on from the first VM to the last, so
 * that fonda and another hypervisor can be loaded together and used in turn.
 */
#define pr_fmt(fmt) "fonda: " fmt

#include <linux/cpu.h>
#include <linux/miscdevice.h>
#include <linux/reboot.h>

#define CREATE_TRACE_POINTS
#include "backend.h"
#include "trace.h"

static char *devname = FONDA_DEVICE_NAME;
module_param(devname, charp, 0444);
MODULE_PARM_DESC(devname, "name of the device node in /dev; 'kvm' serves programs that know no other");

const struct fonda_backend *fonda_backend;
bool fonda_spec_ctrl_by_processor __ro_after_init;
struct dentry *fonda_debugfs;
LIST_HEAD(fonda_vms);
static DEFINE_MUTEX(fonda_vms_lock);

static const struct fonda_backend *const backends[] = { &fonda_svm, &fonda_vmx };

/* While there are VMs. Under fonda_vms_lock. */
static int hotplug_state;
DEFINE_PER_CPU(bool, fonda_cpu_enabled);
/* The machine goes down: no VM may turn a CPU on again. */
static bool rebooting;

DEFINE_PER_CPU(u64, fonda_host_tsc_aux);

static int enable_cpu(unsigned int cpu)
{
	int ret;

	guard(irqsave)();
	/* The kernel writes it when the CPU comes up. */
	rdmsrq_safe(MSR_TSC_AUX, this_cpu_ptr(&fonda_host_tsc_aux));
	ret = fonda_backend->cpu_enable();
	if (!ret)
		__this_cpu_write(fonda_cpu_enabled, true);
	return ret;
}

static int disable_cpu(unsigned int cpu)
{
	guard(irqsave)();
	if (__this_cpu_read(fonda_cpu_enabled)) {
		__this_cpu_write(fonda_cpu_enabled, false);
		fonda_backend->cpu_disable();
	}
	return 0;
}

/*
 * A CPU that comes online meanwhile does so before tasks may run on it, so no
 * vCPU can meet a CPU that is off. Failing keeps it out, which is better than VMs
 * that die on it.
 */
static int enable_all(void)
{
	hotplug_state = cpuhp_setup_state(CPUHP_AP_ONLINE_DYN, "virt/fonda:online",
					  enable_cpu, disable_cpu);
	if (hotplug_state == -EBUSY)
		pr_info_ratelimited("the processor's virtualization extension is in use by another hypervisor; stop its VMs, or unload it: modprobe -r kvm_amd kvm_intel\n");
	return min(hotplug_state, 0);
}

int fonda_hardware_get(struct fonda_vm *vm)
{
	int ret = 0;

	guard(mutex)(&fonda_vms_lock);
	if (rebooting)
		ret = -EBUSY;
	else if (list_empty(&fonda_vms))
		ret = enable_all();
	if (!ret)
		list_add_tail(&vm->list, &fonda_vms);
	return ret;
}

void fonda_hardware_put(struct fonda_vm *vm)
{
	guard(mutex)(&fonda_vms_lock);
	list_del(&vm->list);
	if (list_empty(&fonda_vms))
		cpuhp_remove_state(hotplug_state);
}

/* System sleep: one CPU is left, interrupts are off; firmware forgets MSRs. */
static int suspend(FONDA_SYSCORE_ARG)
{
	fonda_clock_suspend();
	return disable_cpu(smp_processor_id());
}

static void resume(FONDA_SYSCORE_ARG)
{
	if (!list_empty(&fonda_vms))
		enable_cpu(smp_processor_id());
	fonda_clock_resume();
}

static struct syscore_ops sleep_ops = { .suspend = suspend, .resume = resume };
static struct syscore sleep = { .ops = &sleep_ops };

static void disable_this_cpu(void *unused)
{
	disable_cpu(smp_processor_id());
}

/* A new kernel must find the extension off, or it cannot take INIT. */
static int reboot_notify(struct notifier_block *nb, unsigned long action, void *data)
{
	mutex_lock(&fonda_vms_lock);
	rebooting = true;
	mutex_unlock(&fonda_vms_lock);
	on_each_cpu(disable_this_cpu, NULL, 1);
	return NOTIFY_OK;
}

static struct notifier_block reboot_notifier = { .notifier_call = reboot_notify };

static const struct file_operations dev_fops = {
	.owner		= THIS_MODULE,
	.unlocked_ioctl	= fonda_dev_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
	.llseek		= noop_llseek,
};

static struct miscdevice misc = {
	.minor	= MISC_DYNAMIC_MINOR,
	.fops	= &dev_fops,
	.mode	= 0660,
};

static int __init choose_backend(void)
{
	int ret = -ENODEV, i;

	for (i = 0; i < ARRAY_SIZE(backends) && ret == -ENODEV; i++) {
		fonda_backend = backends[i];
		ret = fonda_backend->hardware_setup();
	}
	if (ret == -ENODEV)
		pr_err("this processor offers neither AMD-V (svm) nor VT-x (vmx): see 'grep -wE \"svm|vmx\" /proc/cpuinfo'; in a virtual machine, enable nested virtualization\n");
	return ret;
}

/* All but the device node. */
static void cleanup(void)
{
	unregister_reboot_notifier(&reboot_notifier);
	unregister_syscore(&sleep);
	debugfs_remove_recursive(fonda_debugfs);
	fonda_backend->hardware_unsetup();
	/* RCU callbacks of routes, buses and slots run our code. */
	rcu_barrier();
}

static int __init fonda_init(void)
{
	int ret;

	if (!boot_cpu_has(X86_FEATURE_XSAVE)) {
		pr_err("the processor's XSAVE is needed: enable it, or boot without noxsave\n");
		return -EOPNOTSUPP;
	}
	ret = choose_backend();
	if (ret)
		return ret;
	fonda_state_init();
	fonda_debugfs = debugfs_create_dir("fonda", NULL);
	register_syscore(&sleep);
	register_reboot_notifier(&reboot_notifier);

	/* Is another hypervisor in the way? The first VM will ask again. */
	ret = enable_all();
	if (ret)
		goto out_cleanup;
	cpuhp_remove_state(hotplug_state);
	misc.name = devname;
	ret = misc_register(&misc);
	if (ret) {
		pr_err("cannot create /dev/%s (error %d): is the name taken? choose another with devname=\n",
		       devname, ret);
		goto out_cleanup;
	}
	pr_info("ready: /dev/%s, %s\n", devname, fonda_backend->name);
	return 0;

out_cleanup:
	cleanup();
	return ret;
}

static void __exit fonda_exit(void)
{
	misc_deregister(&misc);
	cleanup();
}

module_init(fonda_init);
module_exit(fonda_exit);

MODULE_DESCRIPTION("fonda: a small hypervisor with the KVM API");
MODULE_LICENSE("GPL");
