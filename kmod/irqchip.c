// SPDX-License-Identifier: GPL-2.0-only
/*
 * Ties the interrupt controllers of irq/ to a VM: their places on the I/O
 * buses, who is told of the end of an interrupt, and the ioctls. How the
 * devices behave is in irq/ alone; apic.c has the local APICs.
 */
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

/* -- the end of interrupts -------------------------------------------------- */

void fonda_pins_acked(struct fonda_irqchip *chip, u64 pins)
{
	unsigned long flags;
	int gsi;

	for (; pins; pins &= pins - 1) {
		gsi = fonda_routes_gsi(chip, __ffs64(pins));
		if (gsi >= 0)
			fonda_irqfd_acked(vm_of(chip), gsi);
		if (gsi == 0 && smp_load_acquire(&chip->pit.exists)) {
			raw_spin_lock_irqsave(&chip->lock, flags);
			pit_acked(&chip->pit);
			raw_spin_unlock_irqrestore(&chip->lock, flags);
		}
	}
}

/* -- on the I/O buses ------------------------------------------------------- */

static int chip_access(struct fonda_vcpu *vcpu, struct fonda_io_dev *dev, gpa_t addr, int len,
		       void *data, bool write)
{
	struct fonda_irqchip *chip = &vcpu->vm->irqchip;
	u8 *byte = data, *end = byte + len;
	unsigned long flags;
	u32 acked;

	raw_spin_lock_irqsave(&chip->lock, flags);
	if (dev->base == FONDA_IOAPIC_BASE) {
		ioapic_access(chip, addr - dev->base, len, data, write);
		byte = end;
	}
	for (; byte < end; byte++, addr++) {
		if (addr == 0x61 || addr - 0x40 < 4)
			pit_access(&chip->pit, addr, byte, write);
		else
			pic_access(&chip->pic, addr, byte, write);
	}
	acked = pic_take_acked(&chip->pic);
	raw_spin_unlock_irqrestore(&chip->lock, flags);
	fonda_pins_acked(chip, acked);
	return 0;
}

/* Nothing in them is a VM's own. */
static struct fonda_io_dev chip_devs[] = {
	{ chip_access, 0x20, 2, true }, { chip_access, 0xa0, 2, true },
	{ chip_access, 0x4d0, 2, true }, { chip_access, FONDA_IOAPIC_BASE, 0x100 },
	{ chip_access, 0x40, 4, true }, { chip_access, 0x61, 1, true },
};

/* The first that only KVM_CREATE_PIT2 takes; the last is optional. */
#define FIRST_PIT_DEV	4

static int register_devs(struct fonda_vm *vm, int first, int end)
{
	int i, ret = 0;

	guard(mutex)(&vm->slots_lock);
	for (i = first; i < end && !ret; i++)
		ret = fonda_io_register(vm, &chip_devs[i]);
	/* The last one has failed. */
	for (i -= 2; ret && i >= first; i--)
		fonda_io_unregister(vm, &chip_devs[i]);
	return ret;
}

/* -- creation --------------------------------------------------------------- */

void fonda_irq_init(struct fonda_vm *vm)
{
	raw_spin_lock_init(&vm->irqchip.lock);
	vm->irqchip.timer_ns = 1;
	hrtimer_setup(&vm->irqchip.pit.timer, pit_timer_fn, CLOCK_MONOTONIC,
		      HRTIMER_MODE_ABS_HARD);
	mutex_init(&vm->eventfds.lock);
	INIT_LIST_HEAD(&vm->eventfds.irqfds);
}

void fonda_irq_fini(struct fonda_vm *vm)
{
	hrtimer_cancel(&vm->irqchip.pit.timer);
	kvfree(rcu_dereference_protected(vm->irqchip.routes, true));
}

long fonda_vm_create_irqchip(struct fonda_vm *vm, void *arg, unsigned int cmd)
{
	struct fonda_irqchip *chip = &vm->irqchip;
	int ret;

	guard(mutex)(&vm->lock);
	if (chip->mode != FONDA_IRQCHIP_NONE)
		return -EEXIST;
	if (vm->nr_vcpus)
		return -EINVAL;
	pic_init(&chip->pic);
	ioapic_init(chip);
	ret = fonda_routes_set(chip, fonda_routes_default()) ?:
	      register_devs(vm, 0, FIRST_PIT_DEV);
	if (!ret)
		smp_store_release(&chip->mode, FONDA_IRQCHIP_KERNEL);
	return ret;
}

long fonda_vm_set_boot_cpu_id(struct fonda_vm *vm, void *arg, unsigned int cmd)
{
	guard(mutex)(&vm->lock);
	if (vm->nr_vcpus)
		return -EBUSY;
	if ((unsigned long)arg >= (vm->max_vcpu_id ?: FONDA_MAX_VCPU_ID))
		return -EINVAL;
	vm->irqchip.bsp_id = (unsigned long)arg;
	return 0;
}

int fonda_irqchip_enable_split(struct fonda_vm *vm, u64 nr_pins)
{
	struct fonda_irqchip *chip = &vm->irqchip;
	int ret;

	/* How many GSIs are pins of user space's IOAPICs; see lapic_eoi_broadcast(). */
	if (nr_pins > FONDA_MAX_GSI)
		return -EINVAL;
	if (chip->mode != FONDA_IRQCHIP_NONE || vm->nr_vcpus)
		return -EEXIST;
	ret = fonda_routes_set(chip, fonda_routes_alloc(0));
	if (!ret)
		smp_store_release(&chip->mode, FONDA_IRQCHIP_SPLIT);
	return ret;
}

long fonda_vm_create_pit2(struct fonda_vm *vm, void *arg, unsigned int cmd)
{
	bool speaker = ((struct kvm_pit_config *)arg)->flags & KVM_PIT_SPEAKER_DUMMY;
	struct fonda_irqchip *chip = &vm->irqchip;
	int ret;

	guard(mutex)(&vm->lock);
	if (chip->pit.exists)
		return -EEXIST;
	if (chip->mode != FONDA_IRQCHIP_KERNEL)
		return -ENOENT;
	/* Before the ports: a vCPU that runs may use them at once. */
	pit_init(&chip->pit);
	ret = register_devs(vm, FIRST_PIT_DEV, ARRAY_SIZE(chip_devs) - !speaker);
	if (!ret)
		smp_store_release(&chip->pit.exists, true);
	return ret;
}

/* -- state of the chips ----------------------------------------------------- */

/* KVM_GET_IRQCHIP, KVM_SET_IRQCHIP */
long fonda_vm_irqchip_state(struct fonda_vm *vm, void *arg, unsigned int cmd)
{
	struct kvm_irqchip *state = arg;
	struct fonda_irqchip *chip = &vm->irqchip;
	u32 id = state->chip_id, high;
	bool ioapic = id == KVM_IRQCHIP_IOAPIC, set = cmd == KVM_SET_IRQCHIP;
	int i;

	if (mode_of(chip) != FONDA_IRQCHIP_KERNEL)
		return -ENXIO;
	if (id > KVM_IRQCHIP_IOAPIC)
		return -EINVAL;
	raw_spin_lock_irq(&chip->lock);
	if (set && ioapic)
		ioapic_set_state(chip, &state->chip.ioapic);
	else if (set)
		pic_set_state(&chip->pic, id, &state->chip.pic);
	/* Whoever held a line before is not known: user space lets go of it. */
	high = ioapic ? chip->ioapic.irr : chip->pic.chip[id].last_irr;
	for (i = 0; set && i < (ioapic ? FONDA_IOAPIC_PINS : 8); i++)
		chip->lines[id * 8 + i] = (high >> i & 1) << FONDA_IRQ_USER;
	memset(&state->chip, 0, sizeof(state->chip));
	if (ioapic)
		ioapic_get_state(chip, &state->chip.ioapic);
	else
		state->chip.pic = chip->pic.chip[id];
	raw_spin_unlock_irq(&chip->lock);
	return 0;
}

/* KVM_GET_PIT2, KVM_SET_PIT2, KVM_REINJECT_CONTROL */
long fonda_vm_pit_state(struct fonda_vm *vm, void *arg, unsigned int cmd)
{
	struct fonda_irqchip *chip = &vm->irqchip;

	if (!smp_load_acquire(&chip->pit.exists))
		return -ENXIO;
	raw_spin_lock_irq(&chip->lock);
	if (cmd == KVM_GET_PIT2) {
		*(struct kvm_pit_state2 *)arg = chip->pit.state;
	} else if (cmd == KVM_SET_PIT2) {
		pit_set_state(&chip->pit, arg);
	} else {
		chip->pit.reinject = ((struct kvm_reinject_control *)arg)->pit_reinject;
		pit_restart_reinject(&chip->pit);
	}
	raw_spin_unlock_irq(&chip->lock);
	return 0;
}

/* -- raising ---------------------------------------------------------------- */

/* KVM_IRQ_LINE_STATUS; KVM_IRQ_LINE is the same and does not copy the answer. */
long fonda_vm_irq_line(struct fonda_vm *vm, void *arg, unsigned int cmd)
{
	struct kvm_irq_level *line = arg;

	if (mode_of(&vm->irqchip) == FONDA_IRQCHIP_NONE)
		return -ENXIO;
	line->status = fonda_gsi_set(&vm->irqchip, FONDA_IRQ_USER, line->irq, !!line->level);
	return 0;
}

/* How many local APICs took it; 0: there is none such, or it refused. */
long fonda_vm_signal_msi(struct fonda_vm *vm, void *arg, unsigned int cmd)
{
	const struct kvm_msi *msi = arg;
	u64 address = (u64)msi->address_hi << 32 | msi->address_lo;
	struct fonda_irqchip *chip = &vm->irqchip;

	if (mode_of(chip) == FONDA_IRQCHIP_NONE || msi->flags || fonda_msi_check(chip, address))
		return -EINVAL;
	return max(fonda_msi_deliver(chip, address, msi->data), 0);
}

long fonda_vm_set_gsi_routing(struct fonda_vm *vm, void *arg, unsigned int cmd)
{
	struct kvm_irq_routing __user *uarg = (void __user *)arg;
	struct fonda_irqchip *chip = &vm->irqchip;
	struct fonda_routes *routes;
	struct kvm_irq_routing head;

	if (copy_from_user(&head, uarg, sizeof(head)))
		return -EFAULT;
	if (mode_of(chip) == FONDA_IRQCHIP_NONE || head.nr > FONDA_MAX_GSI || head.flags)
		return -EINVAL;
	routes = fonda_routes_alloc(head.nr);
	if (routes && copy_from_user(routes->entry, uarg->entries,
				     head.nr * sizeof(*routes->entry))) {
		kvfree(routes);
		return -EFAULT;
	}
	return fonda_routes_set(chip, routes);
}
