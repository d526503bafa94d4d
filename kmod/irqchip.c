// SPDX-License-Identifier: GPL-2.0-only
/*
 * Ties the interrupt controllers of irq/ to a VM: their places on the I/O
 * buses, the PIT's timer, who is told of the end of an interrupt, and the
 * ioctls. How the devices behave is in irq/ alone; apic.c has the local APICs.
 */
#include <linux/bitops.h>
#include <linux/hrtimer.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "backend.h"

/* A guest's fastest periodic timer: a faster one would occupy a host CPU. */
static unsigned int min_timer_period_us = 100;
module_param(min_timer_period_us, uint, 0644);
MODULE_PARM_DESC(min_timer_period_us, "Shortest period of the guests' periodic timers, in us");

static struct fonda_vm *vm_of(struct fonda_irqchip *chip)
{
	return container_of(chip, struct fonda_vm, irqchip);
}

/* Pairs with the release that publishes the devices before the mode. */
static int mode_of(struct fonda_irqchip *chip)
{
	return smp_load_acquire(&chip->mode);
}

/* -- what the devices ask of us --------------------------------------------- */

u64 fonda_time_ns(void)
{
	return ktime_get_ns();
}

u64 fonda_timer_min_ns(void)
{
	return max(READ_ONCE(min_timer_period_us), 1u) * (u64)NSEC_PER_USEC;
}

struct fonda_lapic *fonda_lapic_by_index(struct fonda_irqchip *chip, int index)
{
	struct fonda_vm *vm = vm_of(chip);

	if (index >= smp_load_acquire(&vm->nr_vcpus))
		return NULL;
	return &vm->vcpus[index]->lapic;
}

void fonda_pic_output(struct fonda_irqchip *chip)
{
	struct fonda_lapic *apic;
	int i;

	for (i = 0; (apic = fonda_lapic_by_index(chip, i)); i++)
		if (lapic_accepts_extint(apic))
			lapic_raise(apic);
}

/* -- the PIT's timer -------------------------------------------------------- */

static enum hrtimer_restart pit_timer_fn(struct hrtimer *timer)
{
	struct fonda_pit *pit = container_of(timer, struct fonda_pit, timer);
	enum hrtimer_restart ret = HRTIMER_NORESTART;
	unsigned long flags;
	u64 ticks = 1;

	raw_spin_lock_irqsave(&pit->chip->lock, flags);
	/* While this waited for the lock it may have been stopped or restarted. */
	if (pit->timer_on && !hrtimer_is_queued(timer)) {
		if (pit->period_ns) {
			ticks = hrtimer_forward_now(timer, ns_to_ktime(pit->period_ns));
			ret = HRTIMER_RESTART;
		} else {
			pit->timer_on = false;
		}
		pit_tick(pit, ticks);
	}
	raw_spin_unlock_irqrestore(&pit->chip->lock, flags);
	return ret;
}

void pit_timer_start(struct fonda_pit *pit, u64 expires_ns)
{
	hrtimer_start(&pit->timer, ns_to_ktime(expires_ns), HRTIMER_MODE_ABS_HARD);
}

void pit_timer_cancel(struct fonda_pit *pit)
{
	hrtimer_try_to_cancel(&pit->timer);
}

/* -- the end of interrupts -------------------------------------------------- */

/* An interrupt of this pin has been acknowledged; chip->lock is not held. */
static void notify_acked(struct fonda_irqchip *chip, int irqchip, unsigned int pin)
{
	unsigned long flags;
	int gsi;

	rcu_read_lock_sched();
	gsi = fonda_routes_gsi(rcu_dereference_sched(chip->routes), irqchip, pin);
	if (gsi >= 0)
		fonda_irqfd_acked(vm_of(chip), gsi);
	if (gsi == 0 && smp_load_acquire(&chip->pit)) {
		raw_spin_lock_irqsave(&chip->lock, flags);
		pit_acked(chip->pit);
		raw_spin_unlock_irqrestore(&chip->lock, flags);
	}
	rcu_read_unlock_sched();
}

void fonda_pic_acked(struct fonda_irqchip *chip, u32 lines)
{
	for (; lines; lines &= lines - 1)
		notify_acked(chip, __ffs(lines) / 8, __ffs(lines) % 8);
}

void fonda_ioapic_end(struct fonda_irqchip *chip, u8 vector)
{
	struct fonda_ioapic *ioapic = chip->ioapic;
	unsigned long flags;
	u32 pins, notify;

	raw_spin_lock_irqsave(&chip->lock, flags);
	pins = ioapic_eoi_pins(ioapic, vector);
	notify = pins & ioapic->notify;
	if (!notify)
		ioapic_eoi(ioapic, pins);
	raw_spin_unlock_irqrestore(&chip->lock, flags);
	if (!notify)
		return;

	/* Whoever drives the line gets to lower it before it counts again. */
	for (; notify; notify &= notify - 1)
		notify_acked(chip, KVM_IRQCHIP_IOAPIC, __ffs(notify));
	raw_spin_lock_irqsave(&chip->lock, flags);
	ioapic_eoi(ioapic, pins);
	raw_spin_unlock_irqrestore(&chip->lock, flags);
}

void fonda_irqchip_update_notify(struct fonda_vm *vm)
{
	struct fonda_irqchip *chip = &vm->irqchip;
	struct fonda_routes *routes;
	unsigned int pin;
	u32 pins = 0;

	if (mode_of(chip) != FONDA_IRQCHIP_KERNEL)
		return;
	/* Nobody waits, nobody waited: user space changes its routes often. */
	if (!chip->pit && list_empty(&vm->eventfds.resamplers) && !chip->ioapic->notify)
		return;
	mutex_lock(&chip->route_lock);
	rcu_read_lock();
	routes = rcu_dereference_protected(chip->routes, lockdep_is_held(&chip->route_lock));
	for (pin = 0; pin < FONDA_IOAPIC_PINS; pin++) {
		int gsi = fonda_routes_gsi(routes, KVM_IRQCHIP_IOAPIC, pin);

		if ((gsi == 0 && chip->pit && chip->pit->reinject) ||
		    (gsi >= 0 && fonda_irqfd_resamples(vm, gsi)))
			pins |= BIT(pin);
	}
	rcu_read_unlock();
	raw_spin_lock_irq(&chip->lock);
	ioapic_set_notify(chip->ioapic, pins);
	raw_spin_unlock_irq(&chip->lock);
	mutex_unlock(&chip->route_lock);
}

/* -- on the I/O buses ------------------------------------------------------- */

struct fonda_irqchip_devs {
	struct fonda_io_dev pic[3];	/* master, slave, ELCR */
	struct fonda_io_dev ioapic;
	struct fonda_io_dev pit;
	struct fonda_io_dev speaker;
};

static bool is_pit(gpa_t port)
{
	return port == 0x61 || port - 0x40 < 4;
}

/* An access that reaches over the end is somebody else's. */
static int chip_read(struct fonda_vcpu *vcpu, struct fonda_io_dev *dev, gpa_t addr, int len,
		     void *data)
{
	struct fonda_irqchip *chip = &vcpu->vm->irqchip;
	unsigned long flags;
	u8 *bytes = data;
	u64 val;
	int i;

	if (addr - dev->base + len > dev->len)
		return -EOPNOTSUPP;
	raw_spin_lock_irqsave(&chip->lock, flags);
	if (dev->base == FONDA_IOAPIC_BASE) {
		val = ioapic_read(chip->ioapic, addr - dev->base);
		memcpy(data, &val, min_t(int, len, sizeof(val)));
	} else {
		for (i = 0; i < len; i++, addr++)
			bytes[i] = is_pit(addr) ? pit_read(chip->pit, addr) :
						  pic_read(chip->pic, addr);
	}
	raw_spin_unlock_irqrestore(&chip->lock, flags);
	return 0;
}

static int chip_write(struct fonda_vcpu *vcpu, struct fonda_io_dev *dev, gpa_t addr, int len,
		      const void *data)
{
	struct fonda_irqchip *chip = &vcpu->vm->irqchip;
	const u8 *bytes = data;
	unsigned long flags;
	bool had_output;
	u32 acked, val = 0;
	int i;

	if (addr - dev->base + len > dev->len)
		return -EOPNOTSUPP;
	memcpy(&val, data, min_t(int, len, sizeof(val)));
	raw_spin_lock_irqsave(&chip->lock, flags);
	had_output = chip->pic->output;
	if (dev->base == FONDA_IOAPIC_BASE)
		ioapic_write(chip->ioapic, addr - dev->base, val);
	else if (is_pit(addr))
		for (i = 0; i < len; i++)
			pit_write(chip->pit, addr + i, bytes[i]);
	else
		for (i = 0; i < len; i++)
			pic_write(chip->pic, addr + i, bytes[i]);
	acked = pic_take_acked(chip->pic);
	if (chip->pic->output && !had_output)
		fonda_pic_output(chip);
	raw_spin_unlock_irqrestore(&chip->lock, flags);
	fonda_pic_acked(chip, acked);
	return 0;
}

static const struct fonda_io_ops chip_io_ops = { .read = chip_read, .write = chip_write };

static const struct fonda_irqchip_devs devs_template = {
	.pic = {
		{ .ops = &chip_io_ops, .base = 0x20, .len = 2 },
		{ .ops = &chip_io_ops, .base = 0xa0, .len = 2 },
		{ .ops = &chip_io_ops, .base = 0x4d0, .len = 2 },
	},
	.ioapic = { .ops = &chip_io_ops, .base = FONDA_IOAPIC_BASE, .len = 0x100 },
	.pit = { .ops = &chip_io_ops, .base = 0x40, .len = 4 },
	.speaker = { .ops = &chip_io_ops, .base = 0x61, .len = 1 },
};

/* -- creation --------------------------------------------------------------- */

int fonda_irq_init(struct fonda_vm *vm)
{
	raw_spin_lock_init(&vm->irqchip.lock);
	mutex_init(&vm->irqchip.route_lock);
	fonda_eventfds_init(vm);
	return 0;
}

void fonda_irq_quiesce(struct fonda_vm *vm)
{
	if (vm->irqchip.pit)
		hrtimer_cancel(&vm->irqchip.pit->timer);
}

void fonda_irq_fini(struct fonda_vm *vm)
{
	struct fonda_irqchip *chip = &vm->irqchip;

	kfree(chip->pit);
	kfree(chip->ioapic);
	kfree(chip->pic);
	kfree(chip->devs);
	kvfree(rcu_dereference_protected(chip->routes, true));
	kvfree(rcu_dereference_protected(chip->map, true));
}

static int register_devs(struct fonda_vm *vm, struct fonda_irqchip_devs *devs)
{
	int i, ret;

	mutex_lock(&vm->slots_lock);
	for (i = 0; i < ARRAY_SIZE(devs->pic); i++) {
		ret = fonda_io_register(vm, FONDA_BUS_PIO, &devs->pic[i]);
		if (ret)
			goto out_pic;
	}
	ret = fonda_io_register(vm, FONDA_BUS_MMIO, &devs->ioapic);
	if (ret)
		goto out_pic;
	mutex_unlock(&vm->slots_lock);
	return 0;

out_pic:
	while (--i >= 0)
		fonda_io_unregister(vm, FONDA_BUS_PIO, &devs->pic[i]);
	mutex_unlock(&vm->slots_lock);
	return ret;
}

static int create_irqchip_locked(struct fonda_vm *vm)
{
	struct fonda_irqchip *chip = &vm->irqchip;
	struct fonda_routes *routes;
	int ret = -ENOMEM;

	if (chip->mode != FONDA_IRQCHIP_NONE)
		return -EEXIST;
	if (vm->nr_vcpus)
		return -EINVAL;

	chip->pic = kzalloc(sizeof(*chip->pic), GFP_KERNEL_ACCOUNT);
	chip->ioapic = kzalloc(sizeof(*chip->ioapic), GFP_KERNEL_ACCOUNT);
	chip->devs = kmemdup(&devs_template, sizeof(devs_template), GFP_KERNEL_ACCOUNT);
	routes = fonda_routes_default();
	if (!chip->pic || !chip->ioapic || !chip->devs || !routes)
		goto out_free;
	pic_init(chip->pic);
	ioapic_init(chip->ioapic, chip);
	ret = register_devs(vm, chip->devs);
	if (ret)
		goto out_free;
	mutex_lock(&chip->route_lock);
	fonda_routes_publish(chip, routes);
	mutex_unlock(&chip->route_lock);
	smp_store_release(&chip->mode, FONDA_IRQCHIP_KERNEL);
	return 0;

out_free:
	kvfree(routes);
	kfree(chip->devs);
	kfree(chip->ioapic);
	kfree(chip->pic);
	chip->devs = NULL;
	chip->ioapic = NULL;
	chip->pic = NULL;
	return ret;
}

long fonda_vm_create_irqchip(struct fonda_vm *vm, void *arg)
{
	long ret;

	mutex_lock(&vm->lock);
	ret = create_irqchip_locked(vm);
	mutex_unlock(&vm->lock);
	return ret;
}

int fonda_irqchip_enable_split(struct fonda_vm *vm, u64 nr_pins)
{
	struct fonda_irqchip *chip = &vm->irqchip;
	struct fonda_routes *routes;

	/* How many GSIs are pins of user space's IOAPICs; see lapic_eoi_broadcast(). */
	if (nr_pins > FONDA_MAX_GSI)
		return -EINVAL;
	if (chip->mode != FONDA_IRQCHIP_NONE || vm->nr_vcpus)
		return -EEXIST;
	routes = fonda_routes_alloc(0);
	if (!routes)
		return -ENOMEM;
	mutex_lock(&chip->route_lock);
	fonda_routes_publish(chip, routes);
	mutex_unlock(&chip->route_lock);
	smp_store_release(&chip->mode, FONDA_IRQCHIP_SPLIT);
	return 0;
}

static int create_pit_locked(struct fonda_vm *vm, u32 flags)
{
	struct fonda_irqchip *chip = &vm->irqchip;
	struct fonda_pit *pit;
	int ret;

	if (chip->pit)
		return -EEXIST;
	if (chip->mode != FONDA_IRQCHIP_KERNEL)
		return -ENOENT;
	pit = kzalloc(sizeof(*pit), GFP_KERNEL_ACCOUNT);
	if (!pit)
		return -ENOMEM;
	pit_init(pit, chip, flags);
	hrtimer_setup(&pit->timer, pit_timer_fn, CLOCK_MONOTONIC, HRTIMER_MODE_ABS_HARD);
	/* Before the ports: a vCPU that runs may use them at once. */
	smp_store_release(&chip->pit, pit);

	mutex_lock(&vm->slots_lock);
	ret = fonda_io_register(vm, FONDA_BUS_PIO, &chip->devs->pit);
	if (!ret && pit->has_speaker) {
		ret = fonda_io_register(vm, FONDA_BUS_PIO, &chip->devs->speaker);
		if (ret)
			fonda_io_unregister(vm, FONDA_BUS_PIO, &chip->devs->pit);
	}
	mutex_unlock(&vm->slots_lock);
	if (ret) {
		WRITE_ONCE(chip->pit, NULL);
		/* An EOI may be looking at it. */
		synchronize_rcu();
		hrtimer_cancel(&pit->timer);
		kfree(pit);
	}
	return ret;
}

long fonda_vm_create_pit2(struct fonda_vm *vm, void *arg)
{
	const struct kvm_pit_config *config = arg;
	long ret;

	mutex_lock(&vm->lock);
	ret = create_pit_locked(vm, config->flags);
	mutex_unlock(&vm->lock);
	if (!ret)
		fonda_irqchip_update_notify(vm);
	return ret;
}

/* -- state of the chips ----------------------------------------------------- */

long fonda_vm_get_irqchip(struct fonda_vm *vm, void *arg)
{
	struct fonda_irqchip *chip = &vm->irqchip;
	struct kvm_irqchip *state = arg;

	if (mode_of(chip) != FONDA_IRQCHIP_KERNEL)
		return -ENXIO;
	if (state->chip_id > KVM_IRQCHIP_IOAPIC)
		return -EINVAL;
	memset(&state->chip, 0, sizeof(state->chip));
	raw_spin_lock_irq(&chip->lock);
	if (state->chip_id == KVM_IRQCHIP_IOAPIC)
		ioapic_get_state(chip->ioapic, &state->chip.ioapic);
	else
		pic_get_state(chip->pic, state->chip_id, &state->chip.pic);
	raw_spin_unlock_irq(&chip->lock);
	return 0;
}

/* Whoever held a line before is not known: user space lets go of it. */
static void set_holders(u8 *lines, int nr, u32 high)
{
	int i;

	for (i = 0; i < nr; i++)
		lines[i] = high & BIT(i) ? BIT(FONDA_IRQ_USER) : 0;
}

long fonda_vm_set_irqchip(struct fonda_vm *vm, void *arg)
{
	struct fonda_irqchip *chip = &vm->irqchip;
	const struct kvm_irqchip *state = arg;

	if (mode_of(chip) != FONDA_IRQCHIP_KERNEL)
		return -ENXIO;
	if (state->chip_id > KVM_IRQCHIP_IOAPIC)
		return -EINVAL;
	raw_spin_lock_irq(&chip->lock);
	if (state->chip_id == KVM_IRQCHIP_IOAPIC) {
		ioapic_set_state(chip->ioapic, &state->chip.ioapic);
		set_holders(&chip->lines[FONDA_PIC_PINS], FONDA_IOAPIC_PINS, chip->ioapic->level);
	} else {
		pic_set_state(chip->pic, state->chip_id, &state->chip.pic);
		set_holders(&chip->lines[state->chip_id * 8], 8, state->chip.pic.last_irr);
		if (chip->pic->output)
			fonda_pic_output(chip);
	}
	raw_spin_unlock_irq(&chip->lock);
	return 0;
}

long fonda_vm_get_pit2(struct fonda_vm *vm, void *arg)
{
	struct fonda_irqchip *chip = &vm->irqchip;
	struct fonda_pit *pit = smp_load_acquire(&chip->pit);

	if (!pit)
		return -ENXIO;
	raw_spin_lock_irq(&chip->lock);
	pit_get_state(pit, arg);
	raw_spin_unlock_irq(&chip->lock);
	return 0;
}

long fonda_vm_set_pit2(struct fonda_vm *vm, void *arg)
{
	struct fonda_irqchip *chip = &vm->irqchip;
	struct fonda_pit *pit = smp_load_acquire(&chip->pit);

	if (!pit)
		return -ENXIO;
	raw_spin_lock_irq(&chip->lock);
	pit_set_state(pit, arg);
	raw_spin_unlock_irq(&chip->lock);
	return 0;
}

long fonda_vm_reinject_control(struct fonda_vm *vm, void *arg)
{
	const struct kvm_reinject_control *control = arg;
	struct fonda_irqchip *chip = &vm->irqchip;
	struct fonda_pit *pit = smp_load_acquire(&chip->pit);

	if (!pit)
		return -ENXIO;
	raw_spin_lock_irq(&chip->lock);
	pit_set_reinject(pit, control->pit_reinject);
	raw_spin_unlock_irq(&chip->lock);
	fonda_irqchip_update_notify(vm);
	return 0;
}

/* -- raising ---------------------------------------------------------------- */

int fonda_set_gsi(struct fonda_vm *vm, int source, u32 gsi, int level)
{
	return fonda_gsi_set(&vm->irqchip, source, gsi, level);
}

int fonda_deliver_msi(struct fonda_vm *vm, u64 address, u32 data)
{
	return fonda_msi_deliver(&vm->irqchip, address, data);
}

long fonda_vm_irq_line(struct fonda_vm *vm, void *arg)
{
	const struct kvm_irq_level *line = arg;

	if (mode_of(&vm->irqchip) == FONDA_IRQCHIP_NONE)
		return -ENXIO;
	fonda_gsi_set(&vm->irqchip, FONDA_IRQ_USER, line->irq, line->level);
	return 0;
}

long fonda_vm_irq_line_status(struct fonda_vm *vm, void *arg)
{
	struct kvm_irq_level *line = arg;

	if (mode_of(&vm->irqchip) == FONDA_IRQCHIP_NONE)
		return -ENXIO;
	line->status = fonda_gsi_set(&vm->irqchip, FONDA_IRQ_USER, line->irq, line->level);
	return 0;
}

/* How many local APICs took it; 0: there is none such, or it refused. */
long fonda_vm_signal_msi(struct fonda_vm *vm, void *arg)
{
	const struct kvm_msi *msi = arg;
	u64 address = (u64)msi->address_hi << 32 | msi->address_lo;
	struct fonda_irqchip *chip = &vm->irqchip;

	if (mode_of(chip) == FONDA_IRQCHIP_NONE || msi->flags || fonda_msi_check(chip, address))
		return -EINVAL;
	return max(fonda_msi_deliver(chip, address, msi->data), 0);
}

long fonda_vm_set_gsi_routing(struct fonda_vm *vm, void *arg)
{
	struct kvm_irq_routing __user *uarg = (void __user *)arg;
	struct fonda_irqchip *chip = &vm->irqchip;
	struct fonda_routes *routes;
	struct kvm_irq_routing head;
	int ret;

	if (copy_from_user(&head, uarg, sizeof(head)))
		return -EFAULT;
	if (mode_of(chip) == FONDA_IRQCHIP_NONE || head.nr > FONDA_MAX_GSI || head.flags)
		return -EINVAL;
	routes = fonda_routes_alloc(head.nr);
	if (!routes)
		return -ENOMEM;
	ret = -EFAULT;
	if (copy_from_user(fonda_routes_entries(routes), uarg->entries,
			   head.nr * sizeof(*uarg->entries)))
		goto out_free;
	ret = fonda_routes_build(chip, routes);
	if (ret)
		goto out_free;
	mutex_lock(&chip->route_lock);
	fonda_routes_publish(chip, routes);
	mutex_unlock(&chip->route_lock);
	fonda_irqchip_update_notify(vm);
	return 0;

out_free:
	kvfree(routes);
	return ret;
}
