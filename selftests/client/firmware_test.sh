#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# firmware_test.sh CASE...: what runs before Linux, and instead of it. grub:
# SeaBIOS and GRUB start Linux from an IDE disk; ovmf_shell, ovmf_linux: OVMF,
# executed from flash, comes to its shell, starts Linux; ipxe starts Linux over
# the network; vga_text: Linux fills a VGA text screen; memtest: memtest86+ on two
# CPUs for a minute.

. "$(dirname "$0")/lib.sh"

limit_s=240

# What the memory of the VGA text screen holds, on one line.
screen() {
	monitor "$tmp/log" "pmemsave 0xb8000 32768 \"$tmp/screen\""
	seen "$tmp/screen" . 10
	# Every second byte is a colour, and not printable.
	tr -dc ' -~' <"$tmp/screen"
}

grub() {
	local name="pc | SeaBIOS, GRUB on IDE | starts Linux"

	cp "$CLIENT_DIR/grub.img" "$tmp/grub.img"
	new_disk "$tmp/disk.img"
	token=grub
	qemu "$tmp/log" pc -smp 1 -m 256M -no-reboot -vga std \
		-drive "file=$tmp/grub.img,format=raw,if=ide" \
		-drive "file=$tmp/disk.img,format=raw,if=none,id=disk" -device virtio-blk-pci,drive=disk
	ended && says "$tmp/log" "done" && disk_holds "$tmp/disk.img"
	verdict $? "$name" "$tmp/log"
}

# ovmf NAME TEXT [OPTION]...: until the guest's serial port shows the text.
ovmf() {
	local name=$1 text=$2
	shift 2

	cp "$CLIENT_DIR/rom/OVMF_VARS_4M.fd" "$tmp/vars.fd"
	qemu "$tmp/log" q35 -smp 2 -m 256M -no-reboot \
		-drive "if=pflash,format=raw,readonly=on,file=$CLIENT_DIR/rom/OVMF_CODE_4M.fd" \
		-drive "if=pflash,format=raw,file=$tmp/vars.fd" "$@"
	seen "$tmp/log" "$text" $limit_s
	verdict $? "$name" "$tmp/log"
	finish_off
}

ovmf_shell() {
	ovmf "q35 | OVMF in flash | comes to its shell" "UEFI Interactive Shell"
}

ovmf_linux() {
	token=$(cat /proc/sys/kernel/random/uuid)
	new_disk "$tmp/disk.img"
	ovmf "q35 | OVMF in flash, -kernel | starts Linux" "guest: done" \
		-kernel "$GUEST_DIR/vmlinuz" -initrd "$GUEST_DIR/initrd" -append "$(parameters demo)" \
		-drive "file=$tmp/disk.img,format=raw,if=none,id=disk" -device virtio-blk-pci,drive=disk
}

ipxe() {
	mkdir -p "$tmp/tftp"
	cp "$GUEST_DIR/vmlinuz" "$GUEST_DIR/initrd" "$tmp/tftp"
	token=$(cat /proc/sys/kernel/random/uuid)
	new_disk "$tmp/disk.img"
	cat >"$tmp/tftp/boot.ipxe" <<-END
		#!ipxe
		kernel vmlinuz initrd=initrd $(parameters demo)
		initrd initrd
		boot
	END
	qemu "$tmp/log" pc,graphics=off -smp 1 -m 256M -no-reboot \
		-netdev "user,id=net,tftp=$tmp/tftp,bootfile=boot.ipxe" \
		-device e1000,netdev=net,romfile=pxe-e1000.rom,bootindex=1 \
		-drive "file=$tmp/disk.img,format=raw,if=none,id=disk" -device virtio-blk-pci,drive=disk
	ended && grep -q "iPXE" "$tmp/log" && says "$tmp/log" "done" && disk_holds "$tmp/disk.img"
	verdict $? "pc | SeaBIOS, iPXE of e1000 | starts Linux over the network" "$tmp/log"
}

vga_text() {
	more=nomodeset
	qemu "$tmp/log" pc -smp 1 -m 256M -no-reboot -vga std \
		-kernel "$GUEST_DIR/vmlinuz" -initrd "$GUEST_DIR/initrd" -append "$(parameters screen)"
	seen "$tmp/log" "guest: screen written" $limit_s &&
		screen | grep -q "row 299 of 300 *row 300 of 300"
	verdict $? "pc | SeaBIOS, -kernel | fills a VGA text screen, and scrolls it" "$tmp/log"
	finish_off
	more=
}

memtest() {
	local shown

	qemu "$tmp/log" pc -smp 2 -m 64M -vga std -kernel "$CLIENT_DIR/rom/memtest86+x64.bin"
	sleep $((75 * scale))
	shown=$(screen)
	echo "# $shown"
	kill -0 "$vmm" && echo "$shown" | grep -q "Errors: *0 "
	verdict $? "pc | SeaBIOS, memtest86+ | no error on two CPUs in a minute" "$tmp/log"
	finish_off
}

plan $#
for case; do
	$case
done
finish
