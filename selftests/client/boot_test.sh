#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# boot_test.sh [all | few]: QEMU's machine types boot Debian's kernel on 1, 2 and
# 4 CPUs; the guest uses its virtio disk, computes and powers off by ACPI. Then
# ways to reset a machine. Without "all", each type with one number of CPUs.

. "$(dirname "$0")/lib.sh"

limit_s=150

# boot MACHINE CPUS [OPTION]...
boot() {
	local machine=$1 cpus=$2 disk=virtio-blk-pci
	shift 2

	case $machine in
	microvm*) disk=virtio-blk-device ;;
	esac
	token=$(cat /proc/sys/kernel/random/uuid)
	new_disk "$tmp/disk.img"
	qemu "$tmp/log" "$machine" -smp "$cpus" -m 256M -no-reboot \
		-kernel "$GUEST_DIR/vmlinuz" -initrd "$GUEST_DIR/initrd" \
		-append "$(parameters demo)" \
		-drive "file=$tmp/disk.img,format=raw,if=none,id=disk" -device "$disk,drive=disk" "$@"
	ended && says "$tmp/log" "Linux .*, $cpus CPUs" && says "$tmp/log" "done" &&
		says "$tmp/log" "AVX computed the right" && disk_holds "$tmp/disk.img"
	verdict $? "$machine | SeaBIOS, -kernel | $cpus CPUs: uses its disk, powers off" "$tmp/log"
}

# reset HOW: HOW is a value of the kernel's reboot= parameter.
reset() {
	token=$(cat /proc/sys/kernel/random/uuid)
	new_disk "$tmp/disk.img"
	more="reboot=$1"
	qemu "$tmp/log" q35 -smp 2 -m 256M \
		-kernel "$GUEST_DIR/vmlinuz" -initrd "$GUEST_DIR/initrd" \
		-append "$(parameters reboot)" \
		-drive "file=$tmp/disk.img,format=raw,if=none,id=disk" -device virtio-blk-pci,drive=disk
	ended && says "$tmp/log" "back after a reset" && says "$tmp/log" "done" &&
		disk_holds "$tmp/disk.img"
	verdict $? "q35 | SeaBIOS, -kernel | reset by $1" "$tmp/log"
	more=
}

# With an RTC, Linux need not look for one for long.
micro=microvm,rtc=on
case ${1-} in
all)
	plan 14
	for cpus in 1 2 4; do
		boot pc $cpus
		boot q35 $cpus
		boot $micro $cpus
		boot $micro,ioapic2=off,kernel-irqchip=on $cpus
	done
	reset kbd
	reset triple ;;
few)
	plan 3
	boot pc 1
	boot q35 2
	boot $micro 2 ;;
*)
	plan 5
	boot pc 1
	boot q35 4
	boot $micro 2
	boot $micro,ioapic2=off,kernel-irqchip=on 2
	reset acpi ;;
esac
finish
