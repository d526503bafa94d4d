/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ACPI's fixed hardware (power off, PM timer, power button registers) and the
 * classic ways to reset a PC: port 0xcf9 and the keyboard controller's line.
 */
#ifndef DEV_PM_H
#define DEV_PM_H

#include "../util/loop.h"
#include "bus.h"

#define PM_BASE			0x600
#define PM1_EVENT_PORT		(PM_BASE + 0)
#define PM1_EVENT_LEN		4
#define PM1_CONTROL_PORT	(PM_BASE + 4)
#define PM1_CONTROL_LEN		2
#define PM_TIMER_PORT		(PM_BASE + 8)
#define PM_TIMER_LEN		4
#define PM_SIZE			12
#define PM_TIMER_HZ		3579545ULL
#define PM_SLEEP_TYPE_S5	5	/* SLP_TYP of soft off, as in the DSDT */
#define PM_SCI_IRQ		9

#define RESET_PORT		0xcf9
#define RESET_VALUE		0x06	/* SYS_RST and RST_CPU of the PIIX family */

struct pm {
	struct device dev;
	struct state state;
	struct bus_region pm_ports;
	struct bus_region reset_port;
	struct bus_region i8042_ports;
	struct loop *loop;
	uint64_t start_ns;		/* when the PM timer was zero */
	uint16_t pm1_status, pm1_enable, pm1_control;
	uint8_t reset_control;
};

int pm_init(struct pm *pm, struct bus *bus, struct loop *loop);

#endif /* DEV_PM_H */
