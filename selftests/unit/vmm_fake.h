/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Stands in for the kernel and the user when parts of the VMM are tested
 * alone: util/kvm.h without a device, noting what was asked of it, and
 * util/say.c without a terminal, keeping the last sentence.
 */
#ifndef VMM_FAKE_H
#define VMM_FAKE_H

#include <stdbool.h>
#include <stdint.h>

#define FAKE_GSIS	24
#define FAKE_NOTIFIERS	64

struct fake {
	unsigned int raised[FAKE_GSIS];		/* low to high, times */
	bool level[FAKE_GSIS];
	unsigned int msis;			/* sent */
	uint64_t msi_address;			/* of the last one */
	uint32_t msi_data;
	unsigned int notifiers;			/* ioeventfds in force */
	uint64_t notifier_gpa[FAKE_NOTIFIERS];
	unsigned int sentences;			/* said */
	char sentence[1024];			/* the last one */
};

extern struct fake fake;

#endif /* VMM_FAKE_H */
