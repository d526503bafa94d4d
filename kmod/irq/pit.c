// SPDX-License-Identifier: GPL-2.0-only
/*
 * The 8254 interval timer of a PC, and port 61h where user space leaves it to
 * the kernel. Counters are not stepped: what a guest reads is computed from the
 * time of loading, as Intel's "8254 Programmable Interval Timer" data sheet
 * defines each mode. Only channel 0 has an effect, interrupts on GSI 0.
 *
 * Ticks that a guest was too late to take are not lost: each waits until the
 * one before has been acknowledged, if user space wants that (reinjection).
 *
 * Not modelled: the null count flag; a new count takes effect at once.
 */
#include <linux/bcd.h>
#include <linux/math64.h>

#include "irq.h"

#define PIT_HZ		1193182
#define PORT_COUNTER	0x40
#define PORT_CONTROL	0x43
#define PORT_SPEAKER	0x61

/* kvm_pit_channel_state: read_state, write_state, rw_mode and count_latched. */
enum {
	RW_NONE, RW_LSB, RW_MSB,
	RW_WORD,	/* the low byte of two is next */
	RW_WORD_MSB,	/* the high byte of two is next */
};

/* As struct kvm_pit_channel_state has it: never programmed, nothing runs. */
#define MODE_NONE	0xff

/* A guest that does not look for seconds has lost its time anyway. */
#define MAX_PENDING	10000

/* What a count of 0 means, which is the largest. */
static u32 range(const struct kvm_pit_channel_state *c)
{
	return c->bcd ? 10000 : 0x10000;
}

static bool is_periodic(const struct kvm_pit_channel_state *c)
{
	return c->mode == 2 || c->mode == 3;
}

/* Clocks of the 8254 that were counted since the count was loaded. */
static u64 elapsed(const struct fonda_pit *pit, const struct kvm_pit_channel_state *c)
{
	/* A low gate stops the counter, but in the modes that it only triggers. */
	bool stopped = !c->gate && c->mode != 1 && c->mode != 5;
	u64 end = stopped ? pit->gate_fell_ns : ktime_get_ns();

	return mul_u64_u32_div(end - c->count_load_time, PIT_HZ, 1000000000);
}

/* The counting element, as a guest would read it. */
static u16 counter(const struct fonda_pit *pit, const struct kvm_pit_channel_state *c)
{
	u64 t = elapsed(pit, c);
	u32 n;

	if (is_periodic(c))	/* 3 by twos; the odd half is of no interest */
		n = c->count - (t << (c->mode - 2)) % c->count;
	else			/* goes on through 0 */
		n = (c->count + range(c) - t % range(c)) % range(c);
	return c->bcd ? bin2bcd(n / 100 % 100) << 8 | bin2bcd(n % 100) : n;
}

static bool output(const struct fonda_pit *pit, const struct kvm_pit_channel_state *c)
{
	u32 high = c->mode == 2 ? c->count - 1 : (c->count + 1) / 2;
	u64 t = elapsed(pit, c);

	if (is_periodic(c))
		return !c->gate || t % c->count < high;
	return c->mode == 4 || c->mode == 5 ? t != c->count : t >= c->count;
}

/* Start channel 0's timer for the count that was just loaded, or stop it. */
static void start_timer(struct fonda_pit *pit)
{
	const struct kvm_pit_channel_state *c = &pit->state.channels[0];
	u64 ns = max(mul_u64_u32_div(c->count, 1000000000, PIT_HZ), fonda_timer_min_ns());

	pit_restart_reinject(pit);
	/* Its callback may be waiting for the lock, and will see what is new. */
	hrtimer_try_to_cancel(&pit->timer);
	pit->period_ns = is_periodic(c) ? ns : 0;
	/* 1 and 5 wait for the gate to rise; it is wired high. */
	pit->timer_on = !(pit->state.flags & KVM_PIT_FLAGS_HPET_LEGACY) &&
			c->mode <= 4 && c->mode != 1;
	if (pit->timer_on)
		hrtimer_start(&pit->timer, ns_to_ktime(c->count_load_time + ns),
			      HRTIMER_MODE_ABS_HARD);
}

static void load(struct fonda_pit *pit, int nr, u32 count)
{
	struct kvm_pit_channel_state *c = &pit->state.channels[nr];

	if (c->bcd)
		count = bcd2bin((u8)(count >> 8)) * 100 + bcd2bin((u8)count);
	c->count = count ?: range(c);
	c->count_load_time = ktime_get_ns();
	if (!c->gate)
		pit->gate_fell_ns = c->count_load_time;
	if (nr == 0)
		start_timer(pit);
}

/* What is latched already stays until it is read. */
static void latch(struct fonda_pit *pit, int nr, bool count, bool status)
{
	struct kvm_pit_channel_state *c = &pit->state.channels[nr];

	if (count && !c->count_latched) {
		c->latched_count = counter(pit, c);
		c->count_latched = c->rw_mode;
	}
	if (status && !c->status_latched) {
		c->status = output(pit, c) << 7 | c->rw_mode << 4 | (c->mode & 7) << 1 | c->bcd;
		c->status_latched = 1;
	}
}

static void write_control(struct fonda_pit *pit, u8 val)
{
	u8 rw = (val >> 4) & 3, nr = val >> 6;
	struct kvm_pit_channel_state *c;

	if (nr == 3) {
		/* "Read-Back Command": what is 0 of bits 5 and 4, where 3 to 1 say. */
		for (nr = 0; nr < 3; nr++)
			if (val & BIT(nr + 1))
				latch(pit, nr, !(val & BIT(5)), !(val & BIT(4)));
		return;
	}
	if (!rw) {
		latch(pit, nr, true, false);
		return;
	}
	c = &pit->state.channels[nr];
	c->rw_mode = c->read_state = c->write_state = rw;
	c->count_latched = 0;
	c->status_latched = 0;
	c->mode = (val >> 1) & 7;
	if (c->mode > 5)	/* 6 and 7 are 2 and 3 */
		c->mode &= 3;
	c->bcd = val & 1;
}

static void write_counter(struct fonda_pit *pit, int nr, u8 val)
{
	struct kvm_pit_channel_state *c = &pit->state.channels[nr];
	u8 state = c->write_state;

	if (state == RW_WORD || state == RW_WORD_MSB)
		c->write_state ^= RW_WORD ^ RW_WORD_MSB;
	if (state == RW_WORD)
		c->write_latch = val;
	else if (state == RW_LSB)
		load(pit, nr, val);
	else if (state != RW_NONE)
		load(pit, nr, val << 8 | (state == RW_WORD_MSB ? c->write_latch : 0));
}

static u8 read_counter(struct fonda_pit *pit, struct kvm_pit_channel_state *c)
{
	u8 state = c->count_latched ?: c->read_state;
	u16 val = c->count_latched ? c->latched_count : counter(pit, c);

	if (c->status_latched) {
		c->status_latched = 0;
		return c->status;
	}
	if (c->count_latched)
		c->count_latched = state == RW_WORD ? RW_MSB : RW_NONE;
	else if (state == RW_WORD || state == RW_WORD_MSB)
		c->read_state ^= RW_WORD ^ RW_WORD_MSB;
	return state == RW_MSB || state == RW_WORD_MSB ? val >> 8 : val;
}

/* Port 61h: gate of channel 2 and speaker; reads add refresh and OUT 2. */
static void write_speaker(struct fonda_pit *pit, u8 val)
{
	struct kvm_pit_channel_state *c = &pit->state.channels[2];
	u64 now = ktime_get_ns();
	bool gate = val & 1;

	/* A rising gate continues modes 0 and 4 and restarts the others. */
	if (gate && !c->gate)
		c->count_load_time = c->mode == 0 || c->mode == 4 ?
				     c->count_load_time + now - pit->gate_fell_ns : now;
	else if (!gate && c->gate)
		pit->gate_fell_ns = now;
	c->gate = gate;
	pit->state.flags &= ~KVM_PIT_FLAGS_SPEAKER_DATA_ON;
	pit->state.flags |= val & BIT(1) ? KVM_PIT_FLAGS_SPEAKER_DATA_ON : 0;
}

static u8 read_speaker(struct fonda_pit *pit)
{
	const struct kvm_pit_channel_state *c = &pit->state.channels[2];
	/* The refresh bit flips every 15 us or so. */
	bool refresh = ktime_get_ns() & BIT(14);
	bool data = pit->state.flags & KVM_PIT_FLAGS_SPEAKER_DATA_ON;

	return output(pit, c) << 5 | refresh << 4 | data << 1 | c->gate;
}

void pit_access(struct fonda_pit *pit, u16 port, u8 *val, bool write)
{
	int nr = port - PORT_COUNTER;

	if (port == PORT_SPEAKER && write)
		write_speaker(pit, *val);
	else if (port == PORT_CONTROL && write)
		write_control(pit, *val);
	else if (write)
		write_counter(pit, nr, *val);
	else if (port == PORT_SPEAKER)
		*val = read_speaker(pit);
	else
		*val = port == PORT_CONTROL ? 0 : read_counter(pit, &pit->state.channels[nr]);
}

/* -- channel 0's interrupt -------------------------------------------------- */

static struct fonda_irqchip *chip_of(struct fonda_pit *pit)
{
	return container_of(pit, struct fonda_irqchip, pit);
}

/* The next of those that wait, if it is its turn. */
static void raise(struct fonda_pit *pit)
{
	if (pit->in_flight || !pit->pending)
		return;
	pit->pending--;
	/* Masked everywhere: nobody will acknowledge it, nobody misses it. */
	pit->in_flight = fonda_gsi_set_locked(chip_of(pit), FONDA_IRQ_PIT, 0,
					      FONDA_LINE_PULSE) >= 0 && pit->reinject;
	if (!pit->in_flight)
		pit->pending = 0;
}

enum hrtimer_restart pit_timer_fn(struct hrtimer *timer)
{
	struct fonda_pit *pit = container_of(timer, struct fonda_pit, timer);
	enum hrtimer_restart ret = HRTIMER_NORESTART;
	unsigned long flags;
	u64 ticks = 1;

	raw_spin_lock_irqsave(&chip_of(pit)->lock, flags);
	/* While this waited for the lock it may have been stopped or restarted. */
	if (pit->timer_on && !hrtimer_is_queued(timer)) {
		pit->timer_on = pit->period_ns;
		if (pit->timer_on) {
			ticks = hrtimer_forward_now(timer, ns_to_ktime(pit->period_ns));
			ret = HRTIMER_RESTART;
		}
		pit->pending = min_t(u64, pit->pending + ticks, MAX_PENDING);
		raise(pit);
	}
	raw_spin_unlock_irqrestore(&chip_of(pit)->lock, flags);
	return ret;
}

void pit_acked(struct fonda_pit *pit)
{
	pit->in_flight = false;
	raise(pit);
}

void pit_restart_reinject(struct fonda_pit *pit)
{
	pit->in_flight = false;
	pit->pending = 0;
}

/* -- state ------------------------------------------------------------------ */

/* The counts start anew: the clock they were loaded by may be another's. */
void pit_set_state(struct fonda_pit *pit, const struct kvm_pit_state2 *state)
{
	int nr;

	pit->gate_fell_ns = ktime_get_ns();
	memcpy(pit->state.channels, state->channels, sizeof(state->channels));
	pit->state.flags = state->flags &
			   (KVM_PIT_FLAGS_HPET_LEGACY | KVM_PIT_FLAGS_SPEAKER_DATA_ON);
	for (nr = 0; nr < 3; nr++) {
		struct kvm_pit_channel_state *c = &pit->state.channels[nr];

		c->bcd &= 1;
		c->gate = nr != 2 || c->gate & 1;
		c->rw_mode &= 3;
		if (c->mode > 5)
			c->mode = MODE_NONE;
		if (!c->count || c->count > range(c))
			c->count = range(c);
		c->count_load_time = pit->gate_fell_ns;
	}
	start_timer(pit);
}

void pit_init(struct fonda_pit *pit)
{
	static const struct kvm_pit_state2 state = {
		.channels = { [0 ... 2] = { .mode = MODE_NONE } }
	};

	pit->reinject = true;
	pit_set_state(pit, &state);
}
