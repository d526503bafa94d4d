#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The VMM is killed at 20 moments between its start and a busy guest. The
# moments are the same in each run. Nothing may be left of the VM, and the file
# system on the disk must be one that a journal replay makes sound.

. "$(dirname "$0")/lib.sh"

plan 20
seed=20
token=kill
for i in $(seq 20); do
	# A linear congruential generator; up to 10 s, or the first of them all.
	seed=$(((seed * 1103515245 + 12345) % 2147483648))
	after_ms=$((seed / 1024 % (i * 500)))

	name="killed after $after_ms ms, the VMM leaves nothing behind"
	new_disk "$tmp/disk.img"
	(vmm busy --cpus 2 --memory 256M --disk "$tmp/disk.img") >"$tmp/log" &
	pid=$!
	sleep $((after_ms / 1000)).$(printf %03d $((after_ms % 1000)))
	if ! kill -9 $pid; then
		miss "$name: it had ended by itself" "$tmp/log"
		continue
	fi
	wait $pid 2>/dev/null
	e2fsck -fp "$tmp/disk.img" >"$tmp/e2fsck" 2>&1
	fsck=$?
	if [ $fsck -gt 1 ]; then
		miss "$name: the disk is damaged" "$tmp/e2fsck"
	elif [ "$(use_count)" != 0 ] || [ "$(vms_left)" != 0 ]; then
		miss "$name: use count $(use_count), $(vms_left) VMs left"
	else
		pass "$name"
	fi
done
finish
