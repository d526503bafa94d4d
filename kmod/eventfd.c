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
#include <linux/poll.h>
#include <linux/rculist.h>

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
	bool level = irqfd->resample;

	fonda_gsi_set(&irqfd->vm->irqchip, level ? FONDA_IRQ_RESAMPLE : FONDA_IRQ_USER,
		      irqfd->gsi, level ? FONDA_LINE_HIGH : FONDA_LINE_PULSE);
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

static void irqfd_free(struct irqfd *irqfd)
{
	if (!IS_ERR_OR_NULL(irqfd->resample))
		eventfd_ctx_put(irqfd->resample);
	if (!IS_ERR(irqfd->ctx))
		eventfd_ctx_put(irqfd->ctx);
	kfree_rcu(irqfd, rcu);
}

static void irqfd_destroy(struct irqfd *irqfd)
{
	bool held = !irqfd->resample;
	struct irqfd *other;

	/* No wakeup runs after this, nor will one. */
	eventfd_ctx_remove_wait_queue(irqfd->ctx, &irqfd->wait, &irqfd->count);
	list_del_rcu(&irqfd->link);
	if (irqfd->resample)
		synchronize_rcu();
	/* The line is held by all that resample this GSI together. */
	list_for_each_entry(other, &irqfd->vm->eventfds.irqfds, link)
		held |= other->resample && other->gsi == irqfd->gsi;
	if (!held)
		fonda_gsi_set(&irqfd->vm->irqchip, FONDA_IRQ_RESAMPLE, irqfd->gsi,
			      FONDA_LINE_LOW);
	irqfd_free(irqfd);
}

static void sweep_dead(struct fonda_eventfds *eventfds)
{
	struct irqfd *irqfd, *next;

	list_for_each_entry_safe(irqfd, next, &eventfds->irqfds, link)
		if (READ_ONCE(irqfd->dead))
			irqfd_destroy(irqfd);
}

/* A new one; or the end of those that are like it. */
long fonda_vm_irqfd(struct fonda_vm *vm, void *arg, unsigned int cmd)
{
	const struct kvm_irqfd *args = arg;
	bool assign = !(args->flags & KVM_IRQFD_FLAG_DEASSIGN);
	bool resample = assign && args->flags & KVM_IRQFD_FLAG_RESAMPLE;
	int ret, mode = smp_load_acquire(&vm->irqchip.mode);
	struct irqfd *irqfd, *other;
	struct file *file __free(fput) = NULL;

	/* A level cannot be followed to an IOAPIC in user space. */
	if (args->flags & ~(KVM_IRQFD_FLAG_DEASSIGN | KVM_IRQFD_FLAG_RESAMPLE) ||
	    (assign && mode == FONDA_IRQCHIP_NONE) || (resample && mode != FONDA_IRQCHIP_KERNEL))
		return -EINVAL;
	irqfd = kzalloc(sizeof(*irqfd), GFP_KERNEL_ACCOUNT);
	if (!irqfd)
		return -ENOMEM;
	irqfd->vm = vm;
	irqfd->gsi = args->gsi;
	init_waitqueue_func_entry(&irqfd->wait, irqfd_wakeup);
	init_poll_funcptr(&irqfd->poll, irqfd_queue);
	file = fget(args->fd);
	irqfd->ctx = file ? eventfd_ctx_fileget(file) : ERR_PTR(-EBADF);
	if (resample)
		irqfd->resample = eventfd_ctx_fdget(args->resamplefd);
	ret = PTR_ERR_OR_ZERO(irqfd->ctx) ?: PTR_ERR_OR_ZERO(irqfd->resample);

	guard(mutex)(&vm->eventfds.lock);
	list_for_each_entry(other, &vm->eventfds.irqfds, link) {
		if (ret || READ_ONCE(other->dead) || other->ctx != irqfd->ctx)
			continue;
		if (assign)
			ret = -EBUSY;
		else if (other->gsi == irqfd->gsi)
			WRITE_ONCE(other->dead, true);
	}
	sweep_dead(&vm->eventfds);
	if (ret || !assign) {
		irqfd_free(irqfd);
	} else {
		list_add_tail_rcu(&irqfd->link, &vm->eventfds.irqfds);
		/* What was signalled before is an interrupt as well. */
		if (vfs_poll(file, &irqfd->poll) & EPOLLIN)
			irqfd_raise(irqfd);
	}
	return ret;
}

void fonda_irqfd_acked(struct fonda_vm *vm, int gsi)
{
	struct irqfd *irqfd;

	/* Down first: a device with more to say raises it again. */
	fonda_gsi_set(&vm->irqchip, FONDA_IRQ_RESAMPLE, gsi, FONDA_LINE_LOW);
	rcu_read_lock();
	list_for_each_entry_rcu(irqfd, &vm->eventfds.irqfds, link)
		if (irqfd->resample && irqfd->gsi == gsi)
			eventfd_signal(irqfd->resample);
	rcu_read_unlock();
}

/* -- ioeventfd -------------------------------------------------------------- */

static void ioeventfd_free(struct fonda_io_dev *e)
{
	if (!IS_ERR(e->eventfd))
		eventfd_ctx_put(e->eventfd);
	kfree(e);
}

static void ioeventfd_end(struct fonda_vm *vm, struct fonda_io_dev *e)
{
	fonda_io_unregister(vm, e);
	ioeventfd_free(e);
}

/* With @exactly, one that is like @e; else one that the same write may be meant for. */
static struct fonda_io_dev *find_ioeventfd(struct fonda_vm *vm, const struct fonda_io_dev *e,
					   bool exactly)
{
	struct fonda_io_bus *bus = fonda_io_bus(vm, e->pio);
	int i;

	for (i = bus ? bus->nr : 1; --i;) {
		struct fonda_io_dev *o = bus->range[i].dev;
		bool same_len = o->len == e->len, same_data = o->datamatch == e->datamatch;

		if (!o->eventfd || o->base != e->base)
			continue;
		if (exactly ? o->eventfd == e->eventfd && same_len && same_data &&
			      o->wildcard == e->wildcard :
			      !o->len || !e->len ||
			      (same_len && (o->wildcard || e->wildcard || same_data)))
			return o;
	}
	return NULL;
}

static bool ioeventfd_is_valid(const struct kvm_ioeventfd *args)
{
	/* Of any length: which bytes would have to match? */
	if (!args->len && args->flags & KVM_IOEVENTFD_FLAG_DATAMATCH)
		return false;
	return args->len <= 8 && (!args->len || is_power_of_2(args->len)) &&
	       args->addr + args->len >= args->addr &&
	       !(args->flags & ~(KVM_IOEVENTFD_FLAG_DATAMATCH | KVM_IOEVENTFD_FLAG_PIO));
}

long fonda_vm_ioeventfd(struct fonda_vm *vm, void *arg, unsigned int cmd)
{
	const struct kvm_ioeventfd *args = arg;
	bool deassign = args->flags & KVM_IOEVENTFD_FLAG_DEASSIGN;
	struct fonda_io_dev *e, *other;
	int ret;

	if (!deassign && !ioeventfd_is_valid(args))
		return -EINVAL;
	e = kzalloc(sizeof(*e), GFP_KERNEL_ACCOUNT);
	if (!e)
		return -ENOMEM;
	*e = (struct fonda_io_dev){
		.base = args->addr, .len = args->len,
		.pio = args->flags & KVM_IOEVENTFD_FLAG_PIO,
		.wildcard = !(args->flags & KVM_IOEVENTFD_FLAG_DATAMATCH) };
	e->datamatch = e->wildcard ? 0 : args->datamatch;
	e->eventfd = eventfd_ctx_fdget(args->fd);
	ret = PTR_ERR_OR_ZERO(e->eventfd);

	guard(mutex)(&vm->slots_lock);
	other = find_ioeventfd(vm, e, deassign);
	if (!ret && !deassign)
		ret = other ? -EEXIST : fonda_io_register(vm, e);
	else if (!ret && !other)
		ret = -ENOENT;
	else if (!ret)
		ioeventfd_end(vm, other);
	if (deassign || ret)
		ioeventfd_free(e);
	return ret;
}

/* -- with the VM ------------------------------------------------------------ */

void fonda_eventfds_release(struct fonda_vm *vm)
{
	struct fonda_io_bus *bus;
	struct irqfd *irqfd;
	int pio, i;

	guard(mutex)(&vm->eventfds.lock);
	guard(mutex)(&vm->slots_lock);
	list_for_each_entry(irqfd, &vm->eventfds.irqfds, link)
		WRITE_ONCE(irqfd->dead, true);
	sweep_dead(&vm->eventfds);
	/* From the end, as those below stay where they are. */
	for (pio = 0; pio < 2; pio++)
		for (i = (bus = fonda_io_bus(vm, pio)) ? bus->nr : 1; --i;)
			if (fonda_io_bus(vm, pio)->range[i].dev->eventfd)
				ioeventfd_end(vm, fonda_io_bus(vm, pio)->range[i].dev);
}
