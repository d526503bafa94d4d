// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The epoll loop of the I/O thread, and events made of eventfds and timers.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "loop.h"
#include "util.h"

#define LOOP_BATCH	16

int loop_init(struct loop *loop)
{
	struct epoll_event ee = { .events = EPOLLIN };
	int ret;

	loop->stop_reason = 0;
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll_fd < 0)
		return -errno;
	loop->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (loop->stop_fd < 0) {
		ret = -errno;
		goto out_close_epoll;
	}
	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->stop_fd, &ee)) {
		ret = -errno;
		goto out_close_stop;
	}
	return 0;

out_close_stop:
	close(loop->stop_fd);
out_close_epoll:
	close(loop->epoll_fd);
	return ret;
}

void loop_fini(struct loop *loop)
{
	close(loop->stop_fd);
	close(loop->epoll_fd);
}

int loop_add(struct loop *loop, struct event *ev, uint32_t mask)
{
	struct epoll_event ee = { .events = mask, .data.ptr = ev };

	return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, ev->fd, &ee) ? -errno : 0;
}

void loop_change(struct loop *loop, struct event *ev, uint32_t mask)
{
	struct epoll_event ee = { .events = mask, .data.ptr = ev };

	epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, ev->fd, &ee);
}

void loop_remove(struct loop *loop, struct event *ev)
{
	epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, ev->fd, NULL);
}

int loop_poll(struct loop *loop, int timeout_ms)
{
	struct epoll_event ready[LOOP_BATCH];
	struct event *ev;
	int i, n;

	n = epoll_wait(loop->epoll_fd, ready, LOOP_BATCH, timeout_ms);
	for (i = 0; i < n && !loop_stopped(loop); i++) {
		ev = ready[i].data.ptr;
		if (!ev)
			continue;	/* loop_stop() */
		if (ev->lock)
			pthread_mutex_lock(ev->lock);
		ev->ready(ev);
		if (ev->lock)
			pthread_mutex_unlock(ev->lock);
	}
	return n;
}

int loop_run(struct loop *loop)
{
	while (!loop_stopped(loop))
		loop_poll(loop, -1);
	return __atomic_load_n(&loop->stop_reason, __ATOMIC_ACQUIRE);
}

void loop_stop(struct loop *loop, int reason)
{
	uint64_t one = 1;
	int none = 0;

	__atomic_compare_exchange_n(&loop->stop_reason, &none, reason, false,
				    __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
	if (write(loop->stop_fd, &one, sizeof(one)) < 0)
		return;		/* the counter is full: the loop is awake */
}

bool loop_stopped(struct loop *loop)
{
	return __atomic_load_n(&loop->stop_reason, __ATOMIC_ACQUIRE);
}

void loop_rearm(struct loop *loop)
{
	uint64_t count;

	if (read(loop->stop_fd, &count, sizeof(count)) < 0)
		count = 0;	/* nothing was there */
	__atomic_store_n(&loop->stop_reason, 0, __ATOMIC_RELEASE);
}

int event_init_eventfd(struct event *ev, void (*ready)(struct event *ev),
		       pthread_mutex_t *lock)
{
	ev->ready = ready;
	ev->lock = lock;
	ev->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return ev->fd < 0 ? -errno : 0;
}

int event_init_timer(struct event *ev, int clock,
		     void (*ready)(struct event *ev), pthread_mutex_t *lock)
{
	ev->ready = ready;
	ev->lock = lock;
	ev->fd = timerfd_create(clock, TFD_CLOEXEC | TFD_NONBLOCK);
	return ev->fd < 0 ? -errno : 0;
}

void event_signal(const struct event *ev)
{
	uint64_t one = 1;

	if (write(ev->fd, &one, sizeof(one)) < 0)
		return;		/* the counter is full: the event is signalled */
}

void event_drain(const struct event *ev)
{
	uint64_t count;

	if (read(ev->fd, &count, sizeof(count)) < 0)
		return;		/* a spurious wake-up */
}

void event_set_timer(const struct event *ev, uint64_t first_ns,
		     uint64_t interval_ns)
{
	struct itimerspec its = {
		.it_value.tv_sec = (time_t)(first_ns / NSEC_PER_SEC),
		.it_value.tv_nsec = (long)(first_ns % NSEC_PER_SEC),
		.it_interval.tv_sec = (time_t)(interval_ns / NSEC_PER_SEC),
		.it_interval.tv_nsec = (long)(interval_ns % NSEC_PER_SEC),
	};

	timerfd_settime(ev->fd, 0, &its, NULL);
}

void event_fini(struct event *ev)
{
	close(ev->fd);
	ev->fd = -1;
}
