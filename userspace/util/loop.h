/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The I/O thread: one epoll loop that waits for descriptors and calls their
 * owners. An owner's callback runs with the owner's lock held, so that devices
 * need no locking of their own against the vCPU threads (dev/bus.h).
 */
#ifndef UTIL_LOOP_H
#define UTIL_LOOP_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct event {
	int fd;
	void (*ready)(struct event *ev);
	pthread_mutex_t *lock;		/* may be NULL */
};

struct loop {
	int epoll_fd;
	int stop_fd;
	int stop_reason;		/* (a) 0 while running; the first one stays */
};

int loop_init(struct loop *loop);
void loop_fini(struct loop *loop);

/* Watches @ev->fd for input (EPOLLIN) or what @mask says, level-triggered. */
int loop_add(struct loop *loop, struct event *ev, uint32_t mask);
void loop_change(struct loop *loop, struct event *ev, uint32_t mask);

/* Only in the loop's own thread, or when it does not run. */
void loop_remove(struct loop *loop, struct event *ev);

/* Serves what is ready now or becomes so in time; how many, or negative. */
int loop_poll(struct loop *loop, int timeout_ms);

/* Serves events until somebody asks to stop, and returns the reason. */
int loop_run(struct loop *loop);

/* Any thread, any time. @reason is positive; only the first one counts. */
void loop_stop(struct loop *loop, int reason);
bool loop_stopped(struct loop *loop);

/* Forgets a stop, so that the loop can run again. */
void loop_rearm(struct loop *loop);

/* An event that another thread can signal, and its acknowledgement. */
int event_init_eventfd(struct event *ev, void (*ready)(struct event *ev),
		       pthread_mutex_t *lock);
void event_signal(const struct event *ev);
void event_drain(const struct event *ev);

/* An event that a timer signals; drained by event_drain(). */
int event_init_timer(struct event *ev, int clock,
		     void (*ready)(struct event *ev), pthread_mutex_t *lock);

/* Fires in @first_ns and then each @interval_ns; 0 and 0 stop the timer. */
void event_set_timer(const struct event *ev, uint64_t first_ns,
		     uint64_t interval_ns);

/* Closes the descriptor of either kind. */
void event_fini(struct event *ev);

#endif /* UTIL_LOOP_H */
