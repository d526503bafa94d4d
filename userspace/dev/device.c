// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The state of devices by name.
 */
#include <stdio.h>

#include "../util/util.h"
#include "device.h"

void device_add_state(struct device *dev, struct state *state, const char *name,
		      const void *base, const struct state_field *fields)
{
	struct state **p = &dev->state;

	*state = (struct state){ .name = name, .base = base, .fields = fields };
	while (*p)
		p = &(*p)->next;
	*p = state;
}

static void show_field(const struct state *state, const struct state_field *f)
{
	const uint8_t *p = (const uint8_t *)state->base + f->offset;
	uint64_t value = 0;
	size_t i;

	if (f->size <= sizeof(value)) {
		memcpy(&value, p, f->size);
		fprintf(stderr, " %s=%#llx", f->name, (unsigned long long)value);
		return;
	}
	fprintf(stderr, " %s=", f->name);
	for (i = 0; i < f->size; i++)
		fprintf(stderr, "%02x", p[i]);
}

static void show_state(const struct device *dev, const struct state *state)
{
	const struct state_field *f;

	fprintf(stderr, "%s%s%s:", dev->name, state->name ? "." : "",
		state->name ? state->name : "");
	for (f = state->fields; f->name; f++)
		show_field(state, f);
	fprintf(stderr, "\n");
}

void device_show(struct device *dev)
{
	const struct state *state;

	pthread_mutex_lock(&dev->lock);
	for (state = dev->state; state; state = state->next)
		show_state(dev, state);
	pthread_mutex_unlock(&dev->lock);
}
