#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# CPUs of the host go away and come back under a guest that has work for both.

. "$(dirname "$0")/lib.sh"

cpu1=/sys/devices/system/cpu/cpu1/online

plan 3
token=hotplug
new_disk "$tmp/disk.img"
(vmm busy --cpus 2 --memory 256M --disk "$tmp/disk.img") >"$tmp/log" &
pid=$!
if wait_for "$tmp/log" busy 120; then
	pass "a guest is at work"
else
	miss "a guest is at work" "$tmp/log"
fi

bad=
for i in $(seq 10); do
	echo 0 >$cpu1 && sleep 0.2 && echo 1 >$cpu1 && sleep 0.2 || bad=y
done
if [ -z "$bad" ] && kill -0 $pid && ! says "$tmp/log" FAILED; then
	pass "a CPU goes away and comes back 10 times, and the guest works on"
else
	miss "a CPU goes away and comes back 10 times, and the guest works on" "$tmp/log"
fi
kill -9 $pid
wait $pid 2>/dev/null

echo 0 >$cpu1
if run_guest "$tmp/log" 180 demo --cpus 2 --memory 256M --disk "$tmp/disk.img" &&
		says "$tmp/log" "done"; then
	pass "a guest with 2 CPUs boots on a host that has one of two left"
else
	miss "a guest with 2 CPUs boots on a host that has one of two left" "$tmp/log"
fi
echo 1 >$cpu1
finish
