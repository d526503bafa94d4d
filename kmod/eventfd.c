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

struct irqfd {
	struct list_head link;		/* vm->eventfds.irqfds */
	struct rcu_head rcu;
	struct fonda_vm *vm;
	struct eventfd_ctx *ctx;
	struct eventfd_ctx *resample;	/* NULL: an edge or a message */
	u32 gsi;
	bool dead;			/* to be swept */
	u64 count;			/* what was signalled, of no interest */
	wait_queue_entry_t wait;
	poll_table poll;
};

static void irqfd_raise(struct irqfd *irqfd)
{
	if (irqfd->resample)
		fonda_gsi_set(&irqfd->vm->irqchip, FONDA_IRQ_RESAMPLE, irqfd->gsi,
			      FONDA_LINE_HIGH);
	else
		fonda_gsi_set(&irqfd->vm->irqchip, FONDA_IRQ_USER, irqfd->gsi, FONDA_LINE_PULSE);
}

/* With the eventfd's wait queue locked and interrupts off. */
static int irqfd_wakeup(wait_queue_entry_t *wait, unsigned int mode, int sync, void *key)
{
	struct irqfd *irqfd = container_of(wait, struct irqfd, wait);
	__poll_t flags = key_to_poll(key);

	/*
	 * When the last file of the eventfd is closed nothing can be done about it
	 * on the spot: it is swept by the next KVM_IRQFD, or goes with the VM.
	 */
	if (flags & EPOLLHUP)
		WRITE_ONCE(irqfd->dead, true);
	if (!(flags & EPOLLIN))
		return 0;
	/* Taken here, so that nobody else wakes up for it. */
	eventfd_ctx_do_read(irqfd->ctx, &irqfd->count);
	irqfd_raise(irqfd);
	return 1;
}

static void irqfd_queue(struct file *file, wait_queue_head_t *head, poll_table *poll)
{
	struct irqfd *irqfd = container_of(poll, struct irqfd, poll);

	add_wait_queue_priority(head, &irqfd->wait);
}

/* Does somebody resample @gsi? */
static bool is_resampled(struct fonda_eventfds *eventfds, u32 gsi)
{
	struct irqfd *irqfd;

	list_for_each_entry(irqfd, &eventfds->irqfds, link)
		if (irqfd->resample && irqfd->gsi == gsi)
			return true;
	return false;
}

static void irqfd_destroy(struct irqfd *irqfd)
{
	struct fonda_eventfds *eventfds = &irqfd->vm->eventfds;

	/* No wakeup runs after this, nor will one. */
	eventfd_ctx_remove_wait_queue(irqfd->ctx, &irqfd->wait, &irqfd->count);
	list_del_rcu(&irqfd->link);
	if (irqfd->resample) {
		synchronize_rcu();
		/* The line is held by all that resample this GSI together. */
		if (!is_resampled(eventfds, irqfd->gsi))
			fonda_gsi_set(&irqfd->vm->irqchip, FONDA_IRQ_RESAMPLE, irqfd->gsi,
				      FONDA_LINE_LOW);
		eventfd_ctx_put(irqfd->resample);
	}
	eventfd_ctx_put(irqfd->ctx);
	kfree_rcu(irqfd, rcu);
}

static void sweep_dead(struct fonda_eventfds *eventfds)
{
	struct irqfd *irqfd, *next;

	list_for_each_entry_safe(irqfd, next, &eventfds->irqfds, link)
		if (READ_ONCE(irqfd->dead))
			irqfd_destroy(irqfd);
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

	ret = -EBADF;
	file = fget(args->fd);
	if (!file)
		goto out_free;
	irqfd->ctx = eventfd_ctx_fileget(file);
	ret = PTR_ERR_OR_ZERO(irqfd->ctx);
	if (ret)
		goto out_file;
	if (resample)
		irqfd->resample = eventfd_ctx_fdget(args->resamplefd);
	ret = PTR_ERR_OR_ZERO(irqfd->resample);
	if (ret)
		goto out_ctx;
	init_waitqueue_func_entry(&irqfd->wait, irqfd_wakeup);
	init_poll_funcptr(&irqfd->poll, irqfd_queue);

	mutex_lock(&eventfds->lock);
	sweep_dead(eventfds);
	ret = -EBUSY;
	list_for_each_entry(other, &eventfds->irqfds, link)
		if (other->ctx == irqfd->ctx)
			goto out_unlock;
	list_add_tail_rcu(&irqfd->link, &eventfds->irqfds);
	/* What was signalled before is an interrupt as well. */
	if (vfs_poll(file, &irqfd->poll) & EPOLLIN)
		irqfd_raise(irqfd);
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
	struct eventfd_ctx *ctx = eventfd_ctx_fdget(args->fd);
	struct irqfd *irqfd;

	if (IS_ERR(ctx))
		return PTR_ERR(ctx);
	mutex_lock(&vm->eventfds.lock);
	list_for_each_entry(irqfd, &vm->eventfds.irqfds, link)
		if (irqfd->ctx == ctx && irqfd->gsi == args->gsi)
			WRITE_ONCE(irqfd->dead, true);
	sweep_dead(&vm->eventfds);
	mutex_unlock(&vm->eventfds.lock);
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

void fonda_irqfd_acked(struct fonda_vm *vm, int gsi)
{
	bool lowered = false;
	struct irqfd *irqfd;

	rcu_read_lock();
	list_for_each_entry_rcu(irqfd, &vm->eventfds.irqfds, link) {
		if (!irqfd->resample || irqfd->gsi != gsi)
			continue;
		/* Down first: a device with more to say raises it again. */
		if (!lowered)
			fonda_gsi_set(&vm->irqchip, FONDA_IRQ_RESAMPLE, gsi, FONDA_LINE_LOW);
		lowered = true;
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

static int ioeventfd_access(struct fonda_vcpu *vcpu, struct fonda_io_dev *dev, gpa_t addr, int len,
			    void *data, bool write)
{
	struct ioeventfd *e = container_of(dev, struct ioeventfd, dev);
	u64 val = 0;

	if (!write || addr != dev->base || (dev->len && dev->len != len))
		return -EOPNOTSUPP;
	if (!e->wildcard) {
		memcpy(&val, data, len);
		if (val != e->datamatch)
			return -EOPNOTSUPP;
	}
	fonda_eventfd_signal(e->ctx);
	return 0;
}

static struct ioeventfd *ioeventfd_create(const struct kvm_ioeventfd *args)
{
	struct eventfd_ctx *ctx = eventfd_ctx_fdget(args->fd);
	struct ioeventfd *e;

	if (IS_ERR(ctx))
		return ERR_CAST(ctx);
	e = kzalloc(sizeof(*e), GFP_KERNEL_ACCOUNT);
	if (!e) {
		eventfd_ctx_put(ctx);
		return ERR_PTR(-ENOMEM);
	}
	e->dev = (struct fonda_io_dev){
		.access = ioeventfd_access, .base = args->addr, .len = args->len };
	e->ctx = ctx;
	e->bus = args->flags & KVM_IOEVENTFD_FLAG_PIO ? FONDA_BUS_PIO : FONDA_BUS_MMIO;
	e->wildcard = !(args->flags & KVM_IOEVENTFD_FLAG_DATAMATCH);
	e->datamatch = args->datamatch;
	return e;
}

static void ioeventfd_free(struct ioeventfd *e)
{
	eventfd_ctx_put(e->ctx);
	kfree(e);
}

static void ioeventfd_end(struct fonda_vm *vm, struct ioeventfd *e)
{
	list_del(&e->link);
	fonda_io_unregister(vm, e->bus, &e->dev);
	ioeventfd_free(e);
}

static bool same_place(const struct ioeventfd *a, const struct ioeventfd *b)
{
	return a->bus == b->bus && a->dev.base == b->dev.base;
}

/* Could one write be meant for both? */
static bool ioeventfds_collide(const struct ioeventfd *a, const struct ioeventfd *b)
{
	return same_place(a, b) &&
	       (!a->dev.len || !b->dev.len ||
		(a->dev.len == b->dev.len &&
		 (a->wildcard || b->wildcard || a->datamatch == b->datamatch)));
}

static int ioeventfd_check(const struct kvm_ioeventfd *args)
{
	/* Of any length: which bytes would have to match? */
	if (!args->len && args->flags & KVM_IOEVENTFD_FLAG_DATAMATCH)
		return -EINVAL;
	if (args->len > 8 || (args->len && !is_power_of_2(args->len)))
		return -EINVAL;
	if (args->addr + args->len < args->addr)
		return -EINVAL;
	if (args->flags & ~(KVM_IOEVENTFD_FLAG_DATAMATCH | KVM_IOEVENTFD_FLAG_PIO))
		return -EINVAL;
	return 0;
}

static int ioeventfd_assign(struct fonda_vm *vm, struct ioeventfd *e)
{
	struct ioeventfd *other;
	int ret;

	list_for_each_entry(other, &vm->eventfds.ioeventfds, link)
		if (ioeventfds_collide(e, other))
			return -EEXIST;
	ret = fonda_io_register(vm, e->bus, &e->dev);
	if (!ret)
		list_add_tail(&e->link, &vm->eventfds.ioeventfds);
	return ret;
}

static int ioeventfd_deassign(struct fonda_vm *vm, const struct ioeventfd *like)
{
	struct ioeventfd *e;

	list_for_each_entry(e, &vm->eventfds.ioeventfds, link) {
		if (e->ctx != like->ctx || !same_place(e, like) || e->dev.len != like->dev.len ||
		    e->wildcard != like->wildcard ||
		    (!e->wildcard && e->datamatch != like->datamatch))
			continue;
		ioeventfd_end(vm, e);
		return 0;
	}
	return -ENOENT;
}

long fonda_vm_ioeventfd(struct fonda_vm *vm, void *arg)
{
	const struct kvm_ioeventfd *args = arg;
	bool deassign = args->flags & KVM_IOEVENTFD_FLAG_DEASSIGN;
	struct ioeventfd *e;
	int ret;

	ret = deassign ? 0 : ioeventfd_check(args);
	if (ret)
		return ret;
	e = ioeventfd_create(args);
	if (IS_ERR(e))
		return PTR_ERR(e);
	mutex_lock(&vm->slots_lock);
	ret = deassign ? ioeventfd_deassign(vm, e) : ioeventfd_assign(vm, e);
	mutex_unlock(&vm->slots_lock);
	if (deassign || ret)
		ioeventfd_free(e);
	return ret;
}

/* -- with the VM ------------------------------------------------------------ */

void fonda_eventfds_init(struct fonda_vm *vm)
{
	mutex_init(&vm->eventfds.lock);
	INIT_LIST_HEAD(&vm->eventfds.irqfds);
	INIT_LIST_HEAD(&vm->eventfds.ioeventfds);
}

void fonda_eventfds_release(struct fonda_vm *vm)
{
	struct ioeventfd *e, *next;
	struct irqfd *irqfd;

	mutex_lock(&vm->eventfds.lock);
	list_for_each_entry(irqfd, &vm->eventfds.irqfds, link)
		WRITE_ONCE(irqfd->dead, true);
	sweep_dead(&vm->eventfds);
	mutex_unlock(&vm->eventfds.lock);

	mutex_lock(&vm->slots_lock);
	list_for_each_entry_safe(e, next, &vm->eventfds.ioeventfds, link)
		ioeventfd_end(vm, e);
	mutex_unlock(&vm->slots_lock);
}
