#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# virtio-net with QEMU's user network: the guest gets an answer to its pings, and
# 50 MB from a server on the host whose checksum is right.

. "$(dirname "$0")/lib.sh"

limit_s=240

# network MACHINE DEVICE
network() {
	qemu "$tmp/log" "$1" -smp 2 -m 256M -no-reboot \
		-kernel "$GUEST_DIR/vmlinuz" -initrd "$GUEST_DIR/initrd" -append "$(parameters network)" \
		-netdev user,id=net -device "$2,netdev=net"
	ended && says "$tmp/log" "ping answered" && says "$tmp/log" "sha256 $sum"
	verdict $? "$1 | SeaBIOS, -kernel | ping, and 50 MB over ${2%,*}" "$tmp/log"
}

plan 2
ip link set lo up
mkdir "$tmp/www"
head -c 50000000 /dev/urandom >"$tmp/www/data"
sum=$(sha256sum <"$tmp/www/data")
httpd -f -p 127.0.0.1:8000 -h "$tmp/www" &
network q35 virtio-net-pci,romfile=
network microvm,rtc=on virtio-net-device
kill %1
finish
