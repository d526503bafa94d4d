// SPDX-License-Identifier: GPL-2.0-only
/*
 * Eventfds on both sides of a guest: an irqfd raises a GSI when user space or
 * another part of the kernel signals it, an ioeventfd is signalled when the
 * guest writes to an address.
 *
 * An irqfd injects in the signaller's own context. With RESAMPLE it holds a
 * level-triggered line high until the guest acknowledges it, and then asks by a
 * second eventfd whether there is more.
 */
#include <linux/eventfd.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/poll.h>
#include <linux/rculist.h>
#include <linux/slab.h>
#include <linux/wait.h>

#include "backend.h"

/* -- irqfd ------------------------------------------------------------------ */

/*
 * When the last file of the eventfd is closed nothing can be done about it on
 * the spot: dead irqfds are swept by the next KVM_IRQFD, or go with the VM.
 */
struct irqfd {
	struct list_head link;		/* vm->eventfds.irqfds, under its lock */
	struct list_head resample_link;	/* .resamplers, also read under RCU */
	struct fonda_vm *vm;
	struct eventfd_ctx *ctx;
	struct eventfd_ctx *resample;	/* NULL: an edge or a message */
	u32 gsi;
	bool dead;
	u64 count;			/* what was signalled, of no interest */
	wait_queue_entry_t wait;
	poll_table poll;
};

/* With the eventfd's wait queue locked and interrupts off. */
static int irqfd_wakeup(wait_queue_entry_t *wait, unsigned int mode, int sync, void *key)
{
	struct irqfd *irqfd = container_of(wait, struct irqfd, wait);
	__poll_t flags = key_to_poll(key);
	struct fonda_irqchip *chip = &irqfd->vm->irqchip;

	if (flags & EPOLLHUP)
		WRITE_ONCE(irqfd->dead, true);
	if (!(flags & EPOLLIN))
		return 0;

	/* Taken here, so that nobody else wakes up for it. */
	eventfd_ctx_do_read(irqfd->ctx, &irqfd->count);
	if (irqfd->resample)
		fonda_gsi_set(chip, FONDA_IRQ_RESAMPLE, irqfd->gsi, true);
	else
		fonda_gsi_pulse(chip, FONDA_IRQ_USER, irqfd->gsi);
	return 1;
}

static void irqfd_queue(struct file *file, wait_queue_head_t *head, poll_table *poll)
{
	struct irqfd *irqfd = container_of(poll, struct irqfd, poll);

	add_wait_queue_priority(head, &irqfd->wait);
}

/* Take it off its eventfd and free it; under eventfds.lock, off the list. */
static void irqfd_destroy(struct irqfd *irqfd)
{
	struct fonda_eventfds *eventfds = &irqfd->vm->eventfds;
	struct irqfd *other;

	/* No wakeup runs after this, nor will one. */
	eventfd_ctx_remove_wait_queue(irqfd->ctx, &irqfd->wait, &irqfd->count);
	if (irqfd->resample) {
		list_del_rcu(&irqfd->resample_link);
		synchronize_rcu();
		/* The line is held by all that resample this GSI together. */
		list_for_each_entry(other, &eventfds->resamplers, resample_link)
			if (other->gsi == irqfd->gsi)
				goto out_held;
		fonda_gsi_set(&irqfd->vm->irqchip, FONDA_IRQ_RESAMPLE, irqfd->gsi, false);
out_held:
		eventfd_ctx_put(irqfd->resample);
		fonda_irqchip_update_notify(irqfd->vm);
	}
	eventfd_ctx_put(irqfd->ctx);
	kfree(irqfd);
}

static void sweep_dead(struct fonda_eventfds *eventfds)
{
	struct irqfd *irqfd, *next;

	list_for_each_entry_safe(irqfd, next, &eventfds->irqfds, link) {
		if (!READ_ONCE(irqfd->dead))
			continue;
		list_del(&irqfd->link);
		irqfd_destroy(irqfd);
	}
}

static int irqfd_assign(struct fonda_vm *vm, const struct kvm_irqfd *args)
{
	struct fonda_eventfds *eventfds = &vm->eventfds;
	bool resample = args->flags & KVM_IRQFD_FLAG_RESAMPLE;
	int mode = smp_load_acquire(&vm->irqchip.mode);
	struct irqfd *irqfd, *other;
	struct file *file;
	int ret;

	/* A level cannot be followed to an IOAPIC in user space. */
	if (mode == FONDA_IRQCHIP_NONE || (resample && mode != FONDA_IRQCHIP_KERNEL))
		return -EINVAL;
	irqfd = kzalloc(sizeof(*irqfd), GFP_KERNEL_ACCOUNT);
	if (!irqfd)
		return -ENOMEM;
	irqfd->vm = vm;
	irqfd->gsi = args->gsi;

	file = fget(args->fd);
	if (!file) {
		ret = -EBADF;
		goto out_free;
	}
	irqfd->ctx = eventfd_ctx_fileget(file);
	if (IS_ERR(irqfd->ctx)) {
		ret = PTR_ERR(irqfd->ctx);
		goto out_file;
	}
	if (resample) {
		irqfd->resample = eventfd_ctx_fdget(args->resamplefd);
		if (IS_ERR(irqfd->resample)) {
			ret = PTR_ERR(irqfd->resample);
			goto out_ctx;
		}
	}
	init_waitqueue_func_entry(&irqfd->wait, irqfd_wakeup);
	init_poll_funcptr(&irqfd->poll, irqfd_queue);

	mutex_lock(&eventfds->lock);
	sweep_dead(eventfds);
	ret = -EBUSY;
	list_for_each_entry(other, &eventfds->irqfds, link)
		if (other->ctx == irqfd->ctx)
			goto out_unlock;
	list_add_tail(&irqfd->link, &eventfds->irqfds);
	if (resample) {
		list_add_tail_rcu(&irqfd->resample_link, &eventfds->resamplers);
		fonda_irqchip_update_notify(vm);
	}
	/* What was signalled before is an interrupt as well. */
	if (vfs_poll(file, &irqfd->poll) & EPOLLIN) {
		if (resample)
			fonda_gsi_set(&vm->irqchip, FONDA_IRQ_RESAMPLE, irqfd->gsi, true);
		else
			fonda_gsi_pulse(&vm->irqchip, FONDA_IRQ_USER, irqfd->gsi);
	}
	mutex_unlock(&eventfds->lock);
	fput(file);
	return 0;

out_unlock:
	mutex_unlock(&eventfds->lock);
	if (resample)
		eventfd_ctx_put(irqfd->resample);
out_ctx:
	eventfd_ctx_put(irqfd->ctx);
out_file:
	fput(file);
out_free:
	kfree(irqfd);
	return ret;
}

static int irqfd_deassign(struct fonda_vm *vm, const struct kvm_irqfd *args)
{
	struct fonda_eventfds *eventfds = &vm->eventfds;
	struct irqfd *irqfd, *next;
	struct eventfd_ctx *ctx;

	ctx = eventfd_ctx_fdget(args->fd);
	if (IS_ERR(ctx))
		return PTR_ERR(ctx);
	mutex_lock(&eventfds->lock);
	list_for_each_entry_safe(irqfd, next, &eventfds->irqfds, link) {
		if (irqfd->ctx != ctx || irqfd->gsi != args->gsi)
			continue;
		list_del(&irqfd->link);
		irqfd_destroy(irqfd);
	}
	sweep_dead(eventfds);
	mutex_unlock(&eventfds->lock);
	eventfd_ctx_put(ctx);
	return 0;
}

long fonda_vm_irqfd(struct fonda_vm *vm, void *arg)
{
	const struct kvm_irqfd *args = arg;

	if (args->flags & ~(KVM_IRQFD_FLAG_DEASSIGN | KVM_IRQFD_FLAG_RESAMPLE))
		return -EINVAL;
	if (args->flags & KVM_IRQFD_FLAG_DEASSIGN)
		return irqfd_deassign(vm, args);
	return irqfd_assign(vm, args);
}

bool fonda_irqfd_resamples(struct fonda_vm *vm, int gsi)
{
	struct irqfd *irqfd;

	list_for_each_entry_rcu(irqfd, &vm->eventfds.resamplers, resample_link)
		if (irqfd->gsi == gsi)
			return true;
	return false;
}

void fonda_irqfd_acked(struct fonda_vm *vm, int gsi)
{
	struct irqfd *irqfd;

	rcu_read_lock();
	if (fonda_irqfd_resamples(vm, gsi)) {
		/* Down first: a device with more to say raises it again. */
		fonda_gsi_set(&vm->irqchip, FONDA_IRQ_RESAMPLE, gsi, false);
		list_for_each_entry_rcu(irqfd, &vm->eventfds.resamplers, resample_link)
			if (irqfd->gsi == gsi)
				fonda_eventfd_signal(irqfd->resample);
	}
	rcu_read_unlock();
}

/* -- ioeventfd -------------------------------------------------------------- */

struct ioeventfd {
	struct fonda_io_dev dev;
	struct list_head link;		/* vm->eventfds.ioeventfds, under slots_lock */
	struct eventfd_ctx *ctx;
	u64 datamatch;
	enum fonda_bus bus;
	bool wildcard;			/* any data */
};

static int ioeventfd_write(struct fonda_vcpu *vcpu, struct fonda_io_dev *dev, gpa_t addr, int len,
			   const void *data)
{
	struct ioeventfd *e = container_of(dev, struct ioeventfd, dev);
	u64 val = 0;

	if (addr != dev->base || (dev->len && dev->len != len))
		return -EOPNOTSUPP;
	if (!e->wildcard) {
		memcpy(&val, data, len);
		if (val != e->datamatch)
			return -EOPNOTSUPP;
	}
	fonda_eventfd_signal(e->ctx);
	return 0;
}

static const struct fonda_io_ops ioeventfd_ops = { .write = ioeventfd_write };

static void ioeventfd_destroy(struct fonda_vm *vm, struct ioeventfd *e)
{
	list_del(&e->link);
	fonda_io_unregister(vm, e->bus, &e->dev);
	eventfd_ctx_put(e->ctx);
	kfree(e);
}

static enum fonda_bus ioeventfd_bus(const struct kvm_ioeventfd *args)
{
	return args->flags & KVM_IOEVENTFD_FLAG_PIO ? FONDA_BUS_PIO : FONDA_BUS_MMIO;
}

/* Could one write be meant for both? */
static bool ioeventfds_collide(const struct ioeventfd *a, const struct ioeventfd *b)
{
	return a->bus == b->bus && a->dev.base == b->dev.base &&
	       (!a->dev.len || !b->dev.len ||
		(a->dev.len == b->dev.len &&
		 (a->wildcard || b->wildcard || a->datamatch == b->datamatch)));
}

static int ioeventfd_check(const struct kvm_ioeventfd *args)
{
	switch (args->len) {
	case 0:
		/* Any length: which bytes would have to match? */
		if (args->flags & KVM_IOEVENTFD_FLAG_DATAMATCH)
			return -EINVAL;
		break;
	case 1:
	case 2:
	case 4:
	case 8:
		break;
	default:
		return -EINVAL;
	}
	if (args->addr + args->len < args->addr)
		return -EINVAL;
	if (args->flags & ~(KVM_IOEVENTFD_FLAG_DATAMATCH | KVM_IOEVENTFD_FLAG_PIO |
			    KVM_IOEVENTFD_FLAG_DEASSIGN))
		return -EINVAL;
	return 0;
}

static int ioeventfd_assign(struct fonda_vm *vm, const struct kvm_ioeventfd *args,
			    struct eventfd_ctx *ctx)
{
	struct ioeventfd *e, *other;
	int ret;

	e = kzalloc(sizeof(*e), GFP_KERNEL_ACCOUNT);
	if (!e)
		return -ENOMEM;
	e->dev.ops = &ioeventfd_ops;
	e->dev.base = args->addr;
	e->dev.len = args->len;
	e->ctx = ctx;
	e->bus = ioeventfd_bus(args);
	e->wildcard = !(args->flags & KVM_IOEVENTFD_FLAG_DATAMATCH);
	e->datamatch = args->datamatch;

	mutex_lock(&vm->slots_lock);
	ret = -EEXIST;
	list_for_each_entry(other, &vm->eventfds.ioeventfds, link)
		if (ioeventfds_collide(e, other))
			goto out_free;
	ret = fonda_io_register(vm, e->bus, &e->dev);
	if (ret)
		goto out_free;
	list_add_tail(&e->link, &vm->eventfds.ioeventfds);
	mutex_unlock(&vm->slots_lock);
	return 0;

out_free:
	mutex_unlock(&vm->slots_lock);
	kfree(e);
	return ret;
}

static int ioeventfd_deassign(struct fonda_vm *vm, const struct kvm_ioeventfd *args,
			      struct eventfd_ctx *ctx)
{
	bool wildcard = !(args->flags & KVM_IOEVENTFD_FLAG_DATAMATCH);
	struct ioeventfd *e;
	int ret = -ENOENT;

	mutex_lock(&vm->slots_lock);
	list_for_each_entry(e, &vm->eventfds.ioeventfds, link) {
		if (e->ctx != ctx || e->bus != ioeventfd_bus(args) ||
		    e->dev.base != args->addr || e->dev.len != args->len ||
		    e->wildcard != wildcard || (!wildcard && e->datamatch != args->datamatch))
			continue;
		ioeventfd_destroy(vm, e);
		ret = 0;
		break;
	}
	mutex_unlock(&vm->slots_lock);
	return ret;
}

long fonda_vm_ioeventfd(struct fonda_vm *vm, void *arg)
{
	const struct kvm_ioeventfd *args = arg;
	bool deassign = args->flags & KVM_IOEVENTFD_FLAG_DEASSIGN;
	struct eventfd_ctx *ctx;
	int ret;

	ret = deassign ? 0 : ioeventfd_check(args);
	if (ret)
		return ret;
	ctx = eventfd_ctx_fdget(args->fd);
	if (IS_ERR(ctx))
		return PTR_ERR(ctx);
	if (!deassign) {
		ret = ioeventfd_assign(vm, args, ctx);
		/* It keeps the context. */
		if (!ret)
			return 0;
	} else {
		ret = ioeventfd_deassign(vm, args, ctx);
	}
	eventfd_ctx_put(ctx);
	return ret;
}

/* -- with the VM ------------------------------------------------------------ */

void fonda_eventfds_init(struct fonda_vm *vm)
{
	mutex_init(&vm->eventfds.lock);
	INIT_LIST_HEAD(&vm->eventfds.irqfds);
	INIT_LIST_HEAD(&vm->eventfds.resamplers);
	INIT_LIST_HEAD(&vm->eventfds.ioeventfds);
}

void fonda_eventfds_release(struct fonda_vm *vm)
{
	struct fonda_eventfds *eventfds = &vm->eventfds;
	struct ioeventfd *e, *next_e;
	struct irqfd *irqfd, *next;

	mutex_lock(&eventfds->lock);
	list_for_each_entry_safe(irqfd, next, &eventfds->irqfds, link) {
		list_del(&irqfd->link);
		irqfd_destroy(irqfd);
	}
	mutex_unlock(&eventfds->lock);

	mutex_lock(&vm->slots_lock);
	list_for_each_entry_safe(e, next_e, &eventfds->ioeventfds, link)
		ioeventfd_destroy(vm, e);
	mutex_unlock(&vm->slots_lock);
}
