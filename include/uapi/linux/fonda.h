/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
#ifndef _UAPI_LINUX_FONDA_H
#define _UAPI_LINUX_FONDA_H

#include <linux/kvm.h>

#define FONDA_DEVICE_NAME	"fonda"
#define FONDA_DEVICE_PATH	"/dev/" FONDA_DEVICE_NAME

#endif
