// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * See vmm_fake.h. Each test is a process of its own, so nothing is reset.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "util/kvm.h"
#include "util/util.h"
#include "vmm_fake.h"

struct fake fake;

static void say(const char *fmt, va_list ap)
{
	vsnprintf(fake.sentence, sizeof(fake.sentence), fmt, ap);
	fake.sentences++;
}

int fail(int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(fmt, ap);
	va_end(ap);
	return -err;
}

void warn(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(fmt, ap);
	va_end(ap);
}

void kvm_set_irq(const struct kvm *kvm, unsigned int gsi, bool level)
{
	if (level && !fake.level[gsi])
		fake.raised[gsi]++;
	fake.level[gsi] = level;
}

void kvm_signal_msi(const struct kvm *kvm, uint64_t address, uint32_t data)
{
	fake.msis++;
	fake.msi_address = address;
	fake.msi_data = data;
}

int kvm_ioeventfd(const struct kvm *kvm, uint64_t gpa, uint16_t value, int fd,
		  bool on)
{
	unsigned int i;

	if (on) {
		if (fake.notifiers == FAKE_NOTIFIERS)
			return -ENOSPC;
		fake.notifier_gpa[fake.notifiers++] = gpa;
		return 0;
	}
	for (i = 0; i < fake.notifiers; i++)
		if (fake.notifier_gpa[i] == gpa)
			break;
	if (i == fake.notifiers)
		return -ENOENT;
	fake.notifier_gpa[i] = fake.notifier_gpa[--fake.notifiers];
	return 0;
}

int kvm_set_memory(const struct kvm *kvm, unsigned int slot, uint64_t gpa,
		   uint64_t size, void *hva)
{
	return 0;
}
