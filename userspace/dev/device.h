/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What all devices have in common: a name, a lock, and state that is described
 * field by field under its name, so that it can be shown, and can travel,
 * without the layout of a C structure becoming a format.
 */
#ifndef DEV_DEVICE_H
#define DEV_DEVICE_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

/* Why the I/O loop ends (loop_stop()). */
enum stop_reason {
	STOP_POWEROFF = 1,	/* the guest switched itself off */
	STOP_RESET,		/* the guest asked for a restart */
	STOP_CRASH,		/* a vCPU cannot go on; a diagnosis was printed */
	STOP_QUIT,		/* the user left */
	STOP_SIGNAL,		/* a signal told us to end */
};

struct state_field {
	const char *name;
	size_t offset;
	size_t size;		/* 1, 2, 4 and 8 are numbers, the rest bytes */
};

#define STATE_FIELD(_type, _field) \
	{ #_field, offsetof(_type, _field), sizeof(((_type *)0)->_field) }

struct device {
	const char *name;
	pthread_mutex_t lock;	/* held in every callback of the device */
	const struct state_field *state;	/* ends with an empty entry */
	struct device *next;
};

#endif /* DEV_DEVICE_H */
