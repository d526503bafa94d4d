// SPDX-License-Identifier: GPL-2.0-only
/*
 * Time as the guest sees it: its TSC, the kvmclock page, stolen time.
 *
 * A guest's TSC is the processor's plus an offset, and before that scaled where
 * user space wants another rate. Offsets of the vCPUs of a VM are kept equal
 * unless somebody insists, since guests compare TSCs across CPUs. kvmclock
 * extrapolates from one moment by the TSC. Where the TSC is stable and the
 * offsets are equal, all vCPUs are given the same moment, once and for all: then
 * no two of them can ever disagree, and the guest is told so.
 */
#include <linux/clocksource.h>
#include <asm/pvclock.h>
#include <asm/tsc.h>

#include "backend.h"

/* nanoseconds = (ticks << shift) * multiplier >> 32, as the guest computes. */
static u32 tick_multiplier __ro_after_init;
static s8 tick_shift __ro_after_init;

u8 fonda_tsc_fraction __ro_after_init;

/* The processor and the clock when the machine went to sleep. */
static struct fonda_moment suspended;

/* The two of them for another TSC. */
static s8 tick_scale(u32 khz, u32 *multiplier)
{
	u32 shift;

	clocks_calc_mult_shift(multiplier, &shift, khz, NSEC_PER_MSEC, 0);
	return 32 - shift;
}

void __init fonda_clock_setup(void)
{
	tick_shift = tick_scale(tsc_khz, &tick_multiplier);
}

static u64 ticks_to_ns(u64 ticks)
{
	return pvclock_scale_delta(ticks, tick_multiplier, tick_shift);
}

/* The best of three, since firmware may come in between. */
static void take_moment(struct fonda_moment *m)
{
	u64 best = U64_MAX, start, end, ns;
	int i;

	guard(irqsave)();
	for (i = 0; i < 3; i++) {
		start = rdtsc_ordered();
		ns = ktime_get_boottime_ns();
		end = rdtsc_ordered();
		if (end - start >= best)
			continue;
		best = end - start;
		m->tsc = start + best / 2;
		m->boot_ns = ns;
	}
}

void fonda_clock_init(struct fonda_vm *vm)
{
	struct fonda_clock *c = &vm->clock;

	mutex_init(&c->lock);
	take_moment(&c->moment);
	c->offset_ns = -c->moment.boot_ns;
	c->tsc_moment = c->moment.tsc;
}

/* -- the guest's TSC -------------------------------------------------------- */

/* Ticks of the processor's TSC, or its rate, as the guest's. */
static u64 scale(const struct fonda_vcpu *vcpu, u64 ticks)
{
	u64 ratio = READ_ONCE(vcpu->clock.tsc_ratio);

	return ratio ? mul_u64_u64_shr(ticks, ratio, fonda_tsc_fraction) : ticks;
}

u64 fonda_guest_tsc(struct fonda_vcpu *vcpu)
{
	return scale(vcpu, rdtsc_ordered()) + vcpu->clock.tsc_offset;
}

u64 fonda_ticks_until(struct fonda_vcpu *vcpu, u64 guest_tsc)
{
	s64 ticks = guest_tsc - (scale(vcpu, rdtsc()) + vcpu->clock.tsc_offset);

	if (ticks <= 0 || likely(!vcpu->clock.tsc_ratio))
		return max_t(s64, ticks, 0);
	/* Must not overflow: whoever comes too early asks again. */
	return mul_u64_u64_div_u64(min_t(u64, ticks, BIT(56)), tsc_khz, scale(vcpu, tsc_khz)) + 1;
}

u64 lapic_deadline_ns(struct fonda_lapic *apic, u64 guest_tsc)
{
	struct fonda_vcpu *vcpu = container_of(apic, struct fonda_vcpu, lapic);
	u64 now_ns = ktime_get_ns(), ticks = fonda_ticks_until(vcpu, guest_tsc);

	/* Years away; the sum must not overflow. */
	if (ticks >> 56)
		return KTIME_MAX;
	return ticks ? now_ns + ticks_to_ns(ticks) : 0;
}

static void set_offset(struct fonda_vcpu *vcpu, u64 offset)
{
	WRITE_ONCE(vcpu->clock.tsc_offset, offset);
	fonda_backend->update_controls(vcpu);
	lapic_tsc_changed(&vcpu->lapic);
	/* Whether the clocks of all vCPUs agree may have changed. */
	fonda_vm_kick_all(vcpu->vm, FONDA_REQ_CLOCK, false);
}

static u64 vm_offset(const struct fonda_vcpu *vcpu)
{
	const struct fonda_clock *c = &vcpu->vm->clock;

	return READ_ONCE(c->tsc_value) - scale(vcpu, c->tsc_moment);
}

/* The offset of the VM's TSC, which user space chose, unless @ticks are no difference. */
static void join_tsc(struct fonda_vcpu *vcpu, u64 offset, s64 ticks)
{
	struct fonda_clock *c = &vcpu->vm->clock;
	s64 ahead;

	guard(mutex)(&c->lock);
	ahead = offset - vm_offset(vcpu);
	if (!c->tsc_written || ahead > ticks || ahead < -ticks)
		WRITE_ONCE(c->tsc_value, c->tsc_value + ahead);
	c->tsc_written = true;
	set_offset(vcpu, vm_offset(vcpu));
}

/*
 * User space writes the TSCs of the vCPUs one after the other, with values that
 * it read together, or with 0 for "as new". What can have been meant to be the
 * same as the last one written becomes exactly that.
 */
int fonda_set_tsc(struct fonda_vcpu *vcpu, u64 val, bool host)
{
	u64 change = val - fonda_guest_tsc(vcpu), offset = vcpu->clock.tsc_offset + change;

	if (host && val) {
		join_tsc(vcpu, offset, scale(vcpu, tsc_khz) * 1000);
	} else if (host) {
		set_offset(vcpu, vm_offset(vcpu));
	} else {
		/* SDM volume 3, "IA32_TSC_ADJUST MSR": a write of either moves both. */
		vcpu->clock.tsc_adjust += change;
		set_offset(vcpu, offset);
	}
	return 0;
}

int fonda_set_tsc_adjust(struct fonda_vcpu *vcpu, u64 val, bool host)
{
	u64 change = val - vcpu->clock.tsc_adjust;

	vcpu->clock.tsc_adjust = val;
	/* User space restores it beside the TSC, which has it in already. */
	if (!host && change)
		set_offset(vcpu, vcpu->clock.tsc_offset + change);
	return 0;
}

/* What nobody can tell from the machine's own rate needs no scaling. */
long fonda_vcpu_tsc_khz(struct fonda_vcpu *vcpu, void *arg, unsigned int cmd)
{
	unsigned long khz = (unsigned long)arg ?: tsc_khz, tolerance = tsc_khz / 4000;
	u64 moment = vcpu->vm->clock.tsc_moment, ratio = 0;
	u64 value = scale(vcpu, moment) + vcpu->clock.tsc_offset;

	if (cmd == KVM_GET_TSC_KHZ)
		return scale(vcpu, tsc_khz);
	if (khz - (tsc_khz - tolerance) > 2 * tolerance) {
		/* So that deadlines cannot overflow. */
		if (!fonda_tsc_fraction || khz < tsc_khz / 100 || khz > tsc_khz * 100ul)
			return -EINVAL;
		/* Rounded up: scale() rounds down. */
		ratio = mul_u64_u64_div_u64(khz, BIT_ULL(fonda_tsc_fraction), tsc_khz) + 1;
	}
	if (ratio == vcpu->clock.tsc_ratio)
		return 0;
	/* As if it had run at that rate from the beginning, which makes all vCPUs agree. */
	WRITE_ONCE(vcpu->clock.tsc_ratio, ratio);
	set_offset(vcpu, value - scale(vcpu, moment));
	return 0;
}

/* KVM_VCPU_TSC_CTRL with KVM_VCPU_TSC_OFFSET is the only attribute. */
long fonda_vcpu_device_attr(struct fonda_vcpu *vcpu, void *arg, unsigned int cmd)
{
	const struct kvm_device_attr *attr = arg;
	u64 __user *where = (u64 __user *)attr->addr;
	u64 offset;

	if (attr->group != KVM_VCPU_TSC_CTRL || attr->attr != KVM_VCPU_TSC_OFFSET)
		return -ENXIO;
	if (cmd == KVM_GET_DEVICE_ATTR)
		return put_user(vcpu->clock.tsc_offset, where);
	if (cmd == KVM_HAS_DEVICE_ATTR)
		return 0;
	if (get_user(offset, where))
		return -EFAULT;
	join_tsc(vcpu, offset, 0);
	return 0;
}

/* -- kvmclock --------------------------------------------------------------- */

/* Can all vCPUs share one moment? */
static bool clock_is_shared(struct fonda_vm *vm)
{
	struct fonda_vcpu_clock *first = &vm->vcpus[0]->clock;
	struct fonda_vcpu *vcpu;
	int i;

	if (check_tsc_unstable())
		return false;
	fonda_for_each_vcpu(i, vcpu, vm)
		if (READ_ONCE(vcpu->clock.tsc_offset) != READ_ONCE(first->tsc_offset) ||
		    READ_ONCE(vcpu->clock.tsc_ratio) != READ_ONCE(first->tsc_ratio))
			return false;
	return true;
}

static void lock_clock(struct fonda_clock *c)
{
	mutex_lock(&c->lock);
	/* What is counted from longer ago would drift. */
	if (check_tsc_unstable())
		take_moment(&c->moment);
}

static u64 clock_at(struct fonda_clock *c, u64 tsc)
{
	return c->moment.boot_ns + c->offset_ns + ticks_to_ns(tsc - c->moment.tsc);
}

/*
 * Readers take the version before and after what follows it, and try again when
 * it was odd or has changed. @len bytes at @gpa, the version at @offset in them.
 */
static void write_versioned(struct fonda_vcpu *vcpu, gpa_t gpa, void *data, int len, int offset)
{
	u32 *version = data + offset;

	*version = (*version | 1) + 2;
	if (fonda_write_guest(vcpu, gpa + offset, version, sizeof(*version)))
		return;
	smp_wmb();
	if (fonda_write_guest(vcpu, gpa, data, len))
		return;
	smp_wmb();
	++*version;
	fonda_write_guest(vcpu, gpa + offset, version, sizeof(*version));
}

void fonda_clock_update(struct fonda_vcpu *vcpu)
{
	struct fonda_clock *c = &vcpu->vm->clock;
	struct pvclock_vcpu_time_info info;
	gpa_t gpa;

	if (!(vcpu->clock.system_msr & KVM_MSR_ENABLED))
		return;
	gpa = vcpu->clock.system_msr & ~(u64)KVM_MSR_ENABLED;
	/* The version goes on from what is there; so does an unread flag. */
	if (fonda_read_guest(vcpu, gpa, &info, sizeof(info)))
		return;
	info.flags = (info.flags & PVCLOCK_GUEST_STOPPED) | vcpu->clock.guest_stopped |
		     (clock_is_shared(vcpu->vm) ? PVCLOCK_TSC_STABLE_BIT : 0);
	vcpu->clock.guest_stopped = 0;

	lock_clock(c);
	info.tsc_timestamp = scale(vcpu, c->moment.tsc) + vcpu->clock.tsc_offset;
	info.system_time = c->moment.boot_ns + c->offset_ns;
	mutex_unlock(&c->lock);
	info.tsc_shift = tick_scale(scale(vcpu, tsc_khz), &info.tsc_to_system_mul);
	vcpu->clock.cpu = raw_smp_processor_id();
	write_versioned(vcpu, gpa, &info, sizeof(info), offsetof(typeof(info), version));
}

int fonda_set_system_time(struct fonda_vcpu *vcpu, u64 val, bool host)
{
	vcpu->clock.system_msr = val;
	fonda_request(vcpu, FONDA_REQ_CLOCK);
	return 0;
}

/* The wall clock time at which the guest's kvmclock was 0. */
int fonda_set_wall_clock(struct fonda_vcpu *vcpu, u64 val, bool host)
{
	struct pvclock_wall_clock wall;
	struct kvm_clock_data now;
	u64 ns;

	WRITE_ONCE(vcpu->vm->clock.wall_clock, val);
	/* A restored guest has its page already. */
	if (host || !val || fonda_read_guest(vcpu, val, &wall, sizeof(wall)))
		return 0;
	fonda_vm_get_clock(vcpu->vm, &now, KVM_GET_CLOCK);
	ns = now.realtime - now.clock;
	wall.sec = div_u64_rem(ns, NSEC_PER_SEC, &wall.nsec);
	write_versioned(vcpu, val, &wall, sizeof(wall), offsetof(typeof(wall), version));
	return 0;
}

long fonda_vm_get_clock(struct fonda_vm *vm, void *arg, unsigned int cmd)
{
	struct kvm_clock_data *data = arg;
	struct fonda_clock *c = &vm->clock;

	lock_clock(c);
	local_irq_disable();
	data->host_tsc = rdtsc_ordered();
	data->realtime = ktime_get_real_ns();
	local_irq_enable();
	data->clock = clock_at(c, data->host_tsc);
	mutex_unlock(&c->lock);

	data->flags = KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC |
		      (clock_is_shared(vm) ? KVM_CLOCK_TSC_STABLE : 0);
	return 0;
}

long fonda_vm_set_clock(struct fonda_vm *vm, void *arg, unsigned int cmd)
{
	const struct kvm_clock_data *data = arg;
	struct fonda_clock *c = &vm->clock;
	u64 clock = data->clock, now;

	/* The others tell about the past; KVM_GET_CLOCK's answer may come back. */
	if (data->flags & ~(KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC | KVM_CLOCK_TSC_STABLE))
		return -EINVAL;

	guard(mutex)(&c->lock);
	/*
	 * No vCPU runs with the old clock from here on: each has left the guest
	 * and will wait for the lock before it enters.
	 */
	fonda_vm_kick_all(vm, FONDA_REQ_CLOCK, true);
	now = ktime_get_real_ns();
	if (data->flags & KVM_CLOCK_REALTIME && now > data->realtime)
		clock += now - data->realtime;
	take_moment(&c->moment);
	c->offset_ns = clock - c->moment.boot_ns;
	return 0;
}

/* The VM was stopped: the guest's watchdogs shall not mind. */
long fonda_vcpu_kvmclock_ctrl(struct fonda_vcpu *vcpu, void *arg, unsigned int cmd)
{
	if (!(vcpu->clock.system_msr & KVM_MSR_ENABLED))
		return -EINVAL;
	vcpu->clock.guest_stopped = PVCLOCK_GUEST_STOPPED;
	fonda_request(vcpu, FONDA_REQ_CLOCK);
	return 0;
}

/* -- stolen time ------------------------------------------------------------ */

int fonda_set_steal_time(struct fonda_vcpu *vcpu, u64 val, bool host)
{
	if (val & KVM_STEAL_RESERVED_MASK)
		return 1;
	vcpu->clock.steal_msr = val;
	vcpu->clock.steal_task = NULL;
	/* What a restored guest has there may be from before. */
	vcpu->clock.preempted = val & KVM_MSR_ENABLED;
	return 0;
}

static gpa_t preempted_gpa(const struct fonda_vcpu_clock *c)
{
	return (c->steal_msr & KVM_STEAL_VALID_BITS) + offsetof(struct kvm_steal_time, preempted);
}

void fonda_steal_time_preempted(struct fonda_vcpu *vcpu)
{
	struct fonda_vcpu_clock *c = &vcpu->clock;
	const u8 flag = KVM_VCPU_PREEMPTED;

	if (c->steal_msr & KVM_MSR_ENABLED && !c->preempted)
		c->preempted = !fonda_write_guest(vcpu, preempted_gpa(c), &flag, sizeof(flag));
}

/* From here on other vCPUs send IPIs again; what they asked for until now is done. */
static void end_preemption(struct fonda_vcpu *vcpu)
{
	gpa_t gpa = preempted_gpa(&vcpu->clock);
	const u8 none = 0;

	vcpu->clock.preempted = false;
	/* Not just our own flag: KVM_VCPU_FLUSH_TLB is there, or was until the page went. */
	if (fonda_cmpxchg_guest(vcpu, gpa, sizeof(none), KVM_VCPU_PREEMPTED, none)) {
		fonda_write_guest(vcpu, gpa, &none, sizeof(none));
		fonda_request(vcpu, FONDA_REQ_TLB_FLUSH);
	}
}

static noinline void update_steal_time(struct fonda_vcpu *vcpu)
{
	struct fonda_vcpu_clock *c = &vcpu->clock;
	u64 delay = fonda_run_delay_ns();
	struct kvm_steal_time st;
	gpa_t gpa = c->steal_msr & KVM_STEAL_VALID_BITS;
	const int len = offsetof(typeof(st), preempted);

	if (fonda_read_guest(vcpu, gpa, &st, len))
		return;
	/* What a thread waited before it became the vCPU's is not the guest's. */
	if (c->steal_task == current)
		st.steal += delay - c->steal_seen_ns;
	c->steal_task = current;
	c->steal_seen_ns = delay;
	st.flags = 0;
	write_versioned(vcpu, gpa, &st, len, offsetof(typeof(st), version));
}

/* -- both ------------------------------------------------------------------- */

void fonda_clock_check(struct fonda_vcpu *vcpu)
{
	const struct fonda_vcpu_clock *c = &vcpu->clock;

	if (unlikely(c->preempted))
		end_preemption(vcpu);
	if (c->steal_msr & KVM_MSR_ENABLED &&
	    (c->steal_task != current || c->steal_seen_ns != fonda_run_delay_ns()))
		update_steal_time(vcpu);
	/* TSCs of two CPUs that differ: each needs a page of its own. */
	if (c->cpu != raw_smp_processor_id() && check_tsc_unstable())
		fonda_request(vcpu, FONDA_REQ_CLOCK);
}

void fonda_clock_suspend(void)
{
	take_moment(&suspended);
}

/*
 * Most processors lose their TSC in the deeper sleep states. The guest's goes
 * on from where it was; its kvmclock has run on, as boot time has.
 *
 * Nothing is locked: one CPU is up, and no task was put to sleep while it held
 * one of these locks.
 */
void fonda_clock_resume(void)
{
	struct fonda_moment now;
	struct fonda_vcpu *vcpu;
	struct fonda_vm *vm;
	int i;

	if (boot_cpu_has(X86_FEATURE_NONSTOP_TSC_S3))
		return;
	take_moment(&now);
	list_for_each_entry(vm, &fonda_vms, list) {
		struct fonda_clock *c = &vm->clock;

		c->offset_ns = clock_at(c, suspended.tsc) - suspended.boot_ns;
		c->moment = now;
		c->tsc_moment += now.tsc - suspended.tsc;
		fonda_for_each_vcpu(i, vcpu, vm) {
			vcpu->clock.tsc_offset += scale(vcpu, suspended.tsc) - scale(vcpu, now.tsc);
			fonda_request(vcpu, FONDA_REQ_CONTROLS);
			fonda_request(vcpu, FONDA_REQ_CLOCK);
		}
	}
}
