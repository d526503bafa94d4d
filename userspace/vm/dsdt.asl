// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The machine as ACPI sees it: one PCI bus, a serial port, a clock. Addresses
 * are those of dev/pci.h, dev/pm.h, dev/serial.h and dev/rtc.h.
 */
DefinitionBlock ("dsdt.aml", "DSDT", 2, "FONDA ", "FONDAPC ", 1)
{
	/* Soft off: SLP_TYP of PM1a. */
	Name (\_S5, Package () { 5, 5, 0, 0 })

	Scope (\_SB)
	{
		Device (PCI0)
		{
			Name (_HID, EisaId ("PNP0A03"))
			Name (_UID, 0)
			Name (_SEG, 0)
			Name (_BBN, 0)
			Name (_CRS, ResourceTemplate ()
			{
				WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode,
					0, 0, 0, 0, 1)
				IO (Decode16, 0x0cf8, 0x0cf8, 1, 8)
				WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange,
					0, 0x0000, 0x0cf7, 0, 0x0cf8)
				WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange,
					0, 0x0d00, 0xffff, 0, 0xf300)
				DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed,
					NonCacheable, ReadWrite,
					0, 0xc0000000, 0xdfffffff, 0, 0x20000000)
			})

			/* Pin A of each slot; the lines are wired to GSIs for good. */
			Name (_PRT, Package ()
			{
				Package () { 0x0001ffff, 0, 0, 6 }, Package () { 0x0002ffff, 0, 0, 10 },
				Package () { 0x0003ffff, 0, 0, 11 }, Package () { 0x0004ffff, 0, 0, 5 },
				Package () { 0x0005ffff, 0, 0, 6 }, Package () { 0x0006ffff, 0, 0, 10 },
				Package () { 0x0007ffff, 0, 0, 11 }, Package () { 0x0008ffff, 0, 0, 5 },
				Package () { 0x0009ffff, 0, 0, 6 }, Package () { 0x000affff, 0, 0, 10 },
				Package () { 0x000bffff, 0, 0, 11 }, Package () { 0x000cffff, 0, 0, 5 },
				Package () { 0x000dffff, 0, 0, 6 }, Package () { 0x000effff, 0, 0, 10 },
				Package () { 0x000fffff, 0, 0, 11 }, Package () { 0x0010ffff, 0, 0, 5 },
				Package () { 0x0011ffff, 0, 0, 6 }, Package () { 0x0012ffff, 0, 0, 10 },
				Package () { 0x0013ffff, 0, 0, 11 }, Package () { 0x0014ffff, 0, 0, 5 },
				Package () { 0x0015ffff, 0, 0, 6 }, Package () { 0x0016ffff, 0, 0, 10 },
				Package () { 0x0017ffff, 0, 0, 11 }, Package () { 0x0018ffff, 0, 0, 5 },
				Package () { 0x0019ffff, 0, 0, 6 }, Package () { 0x001affff, 0, 0, 10 },
				Package () { 0x001bffff, 0, 0, 11 }, Package () { 0x001cffff, 0, 0, 5 },
				Package () { 0x001dffff, 0, 0, 6 }, Package () { 0x001effff, 0, 0, 10 },
				Package () { 0x001fffff, 0, 0, 11 }
			})

			Device (COM1)
			{
				Name (_HID, EisaId ("PNP0501"))
				Name (_UID, 1)
				Name (_CRS, ResourceTemplate ()
				{
					IO (Decode16, 0x03f8, 0x03f8, 0, 8)
					IRQNoFlags () { 4 }
				})
			}

			Device (RTC)
			{
				Name (_HID, EisaId ("PNP0B00"))
				Name (_CRS, ResourceTemplate ()
				{
					IO (Decode16, 0x0070, 0x0070, 0, 2)
					IRQNoFlags () { 8 }
				})
			}
		}

		/* What no other device claims: ECAM, the PM registers. */
		Device (MBRD)
		{
			Name (_HID, EisaId ("PNP0C02"))
			Name (_CRS, ResourceTemplate ()
			{
				Memory32Fixed (ReadWrite, 0xe0000000, 0x00100000)
				IO (Decode16, 0x0600, 0x0600, 0, 12)
			})
		}
	}
}
