// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Power management and reset. Registers: ACPI Specification, "ACPI Hardware
 * Specification", sections on fixed hardware. There is no SMI command port, so
 * the machine is always in ACPI mode (SCI_EN reads as one).
 */
#include <string.h>

#include "../util/util.h"
#include "pm.h"

#define PM1_SCI_EN		BIT(0)
#define PM1_SLEEP_TYPE(_v)	(((_v) >> 10) & 7)
#define PM1_SLEEP_ENABLE	BIT(13)

#define I8042_COMMAND		0x64
#define I8042_PULSE		0xf0	/* pulse the output lines whose bits are 0 */
#define I8042_RESET_LINE	BIT(0)

static uint32_t pm_timer(const struct pm *pm)
{
	unsigned __int128 ns = now_ns() - pm->start_ns;

	return (uint32_t)(ns * PM_TIMER_HZ / NSEC_PER_SEC);
}

static uint64_t pm_read(struct bus_region *r, uint64_t offset, unsigned int len)
{
	struct pm *pm = container_of(r, struct pm, pm_ports);
	uint8_t image[PM_SIZE + sizeof(uint64_t)] = { 0 };

	store16(image + 0, pm->pm1_status);
	store16(image + 2, pm->pm1_enable);
	store16(image + 4, pm->pm1_control | PM1_SCI_EN);
	store32(image + 8, pm_timer(pm));
	return load64(image + offset) & len_mask(len);
}

static void write_control(struct pm *pm, uint16_t value)
{
	pm->pm1_control = value & (uint16_t)~PM1_SLEEP_ENABLE;
	if ((value & PM1_SLEEP_ENABLE) && PM1_SLEEP_TYPE(value) == PM_SLEEP_TYPE_S5)
		loop_stop(pm->loop, STOP_POWEROFF);
}

static void pm_write(struct bus_region *r, uint64_t offset, unsigned int len,
		     uint64_t value)
{
	struct pm *pm = container_of(r, struct pm, pm_ports);

	/* Registers of 16 bits; a 32-bit write at 0 is status and enable. */
	if (len == 4 && offset == 0) {
		pm_write(r, 2, 2, value >> 16);
		len = 2;
	}
	if (len != 2)
		return;
	switch (offset) {
	case 0:
		pm->pm1_status &= (uint16_t)~value;	/* write one to clear */
		break;
	case 2:
		pm->pm1_enable = (uint16_t)value;
		break;
	case 4:
		write_control(pm, (uint16_t)value);
		break;
	}
}

static uint64_t reset_read(struct bus_region *r, uint64_t offset, unsigned int len)
{
	(void)offset;
	(void)len;
	return container_of(r, struct pm, reset_port)->reset_control;
}

static void reset_write(struct bus_region *r, uint64_t offset, unsigned int len,
			uint64_t value)
{
	struct pm *pm = container_of(r, struct pm, reset_port);

	(void)offset;
	(void)len;
	pm->reset_control = (uint8_t)value & RESET_VALUE;
	if (value & 0x04)
		loop_stop(pm->loop, STOP_RESET);
}

/* No keyboard and no controller, but its reset line is there: reads give 0. */
static uint64_t i8042_read(struct bus_region *r, uint64_t offset, unsigned int len)
{
	(void)r;
	(void)offset;
	(void)len;
	return 0;
}

static void i8042_write(struct bus_region *r, uint64_t offset, unsigned int len,
			uint64_t value)
{
	struct pm *pm = container_of(r, struct pm, i8042_ports);

	(void)len;
	if ((value & I8042_PULSE) == I8042_PULSE && !(value & I8042_RESET_LINE) &&
	    offset == 0)
		loop_stop(pm->loop, STOP_RESET);
}

static const struct state_field pm_state[] = {
	STATE_FIELD(struct pm, pm1_status),
	STATE_FIELD(struct pm, pm1_enable),
	STATE_FIELD(struct pm, pm1_control),
	STATE_FIELD(struct pm, reset_control),
	{ }
};

int pm_init(struct pm *pm, struct bus *bus, struct loop *loop)
{
	struct bus_region *ports[] = {
		&pm->pm_ports, &pm->reset_port, &pm->i8042_ports,
	};
	size_t i;
	int ret;

	memset(pm, 0, sizeof(*pm));
	pm->loop = loop;
	pm->start_ns = now_ns();
	pm->dev.name = "pm";
	device_add_state(&pm->dev, &pm->state, NULL, pm, pm_state);
	bus_add_device(bus, &pm->dev);
	pm->pm_ports = (struct bus_region){
		.name = "acpi-pm", .base = PM_BASE, .size = PM_SIZE,
		.dev = &pm->dev, .read = pm_read, .write = pm_write,
	};
	pm->reset_port = (struct bus_region){
		.name = "reset", .base = RESET_PORT, .size = 1,
		.dev = &pm->dev, .read = reset_read, .write = reset_write,
	};
	pm->i8042_ports = (struct bus_region){
		.name = "i8042", .base = I8042_COMMAND, .size = 1,
		.dev = &pm->dev, .read = i8042_read, .write = i8042_write,
	};
	for (i = 0; i < ARRAY_SIZE(ports); i++) {
		ret = bus_map(&bus->pio, ports[i]);
		if (ret)
			return ret;
	}
	return 0;
}
