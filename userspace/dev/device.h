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

/* The fields of one structure that is part of a device. */
struct state {
	const char *name;	/* within the device; NULL for the device itself */
	const void *base;
	const struct state_field *fields;	/* ends with an empty entry */
	struct state *next;
};

struct device {
	const char *name;
	pthread_mutex_t lock;	/* held in every callback of the device */
	struct state *state;	/* all parts, in the order they were added */
	struct device *next;
};

/* Adds a part, whose structure lives as long as the device. */
void device_add_state(struct device *dev, struct state *state, const char *name,
		      const void *base, const struct state_field *fields);

/* Prints all fields, for people, on standard error. Takes the lock. */
void device_show(struct device *dev);

#endif /* DEV_DEVICE_H */
