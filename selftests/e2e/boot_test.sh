#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Debian's kernel boots on any number of CPUs, with little and with much
# memory, uses its disk and powers off; what it wrote is there afterwards. With
# CPUS MEMORY MINIMUM as arguments, this boot alone.

. "$(dirname "$0")/lib.sh"

# boot CPUS MEMORY MINIMUM: the guest must see that many CPUs, and of the
# memory at least MINIMUM MiB (the kernel keeps some for itself).
boot() {
	local log=$tmp/log name="a guest with $1 CPUs and $2 boots, works and powers off"
	local seen

	token=$(cat /proc/sys/kernel/random/uuid)
	new_disk "$tmp/disk.img"
	if ! run_guest "$log" 180 demo --cpus "$1" --memory "$2" --disk "$tmp/disk.img"; then
		miss "$name" "$log"
		return
	fi
	seen=$(tr -d '\r' <"$log" | sed -n 's/^guest: Linux .*, \([0-9]*\) CPUs, \([0-9]*\) MiB$/\1 \2/p')
	if says "$log" "done" && says "$log" "AVX computed the right" &&
			disk_holds "$tmp/disk.img" &&
			[ "${seen% *}" = "$1" ] && [ "${seen#* }" -ge "$3" ]; then
		pass "$name"
	else
		miss "$name" "$log"
	fi
}

if [ $# = 3 ]; then
	plan 1
	boot "$@"
	finish
fi

plan 5
boot 1 128M 64
boot 2 512M 420
boot 4 1G 900
boot 2 3G 2800

name="a read-only disk can be read and is not changed"
new_disk "$tmp/disk.img"
before=$(sha256sum <"$tmp/disk.img")
if run_guest "$tmp/log" 120 readonly --cpus 1 --memory 256M --disk "$tmp/disk.img,readonly" &&
		says "$tmp/log" "done" && [ "$before" = "$(sha256sum <"$tmp/disk.img")" ]; then
	pass "$name"
else
	miss "$name" "$tmp/log"
fi
finish
