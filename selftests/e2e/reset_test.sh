#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# A guest that resets the machine, in each of the ways a PC has for that, comes
# back with its disk as it left it, and then powers off. A triple fault is a
# crash: the VMM says so, with the registers, and ends.

. "$(dirname "$0")/lib.sh"

# reset HOW NAME: HOW is a value of the kernel's reboot= parameter.
reset() {
	local log=$tmp/log

	token=$(cat /proc/sys/kernel/random/uuid)
	new_disk "$tmp/disk.img"
	more="reboot=$1"
	if run_guest "$log" 180 reboot --cpus 2 --memory 256M --disk "$tmp/disk.img" &&
			says "$log" rebooting && says "$log" "back after a reset" &&
			says "$log" "done" && disk_holds "$tmp/disk.img"; then
		pass "a reset by $2 starts the guest anew"
	else
		miss "a reset by $2 starts the guest anew" "$log"
	fi
}

plan 4
reset acpi "ACPI's reset register"
reset kbd "the keyboard controller"
reset pci "port 0xcf9"

name="a triple fault is told as a crash"
new_disk "$tmp/disk.img"
more="reboot=triple"
run_guest "$tmp/log" 180 reboot --cpus 2 --memory 256M --disk "$tmp/disk.img"
if [ $? = 3 ] && grep -q "triple fault" "$tmp/log"; then
	pass "$name"
else
	miss "$name" "$tmp/log"
fi
finish
