#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# A guest whose CPUs write memory all the time, and check it, is saved to a file
# and continued by another QEMU; and moved from one QEMU to another over TCP
# while it runs. Afterwards its own checks still find every page right.

. "$(dirname "$0")/lib.sh"

limit_s=300

# start LOG [OPTION]...: the same machine each time.
start() {
	local log=$1
	shift

	qemu "$log" "$machine" -smp 2 -m 192M -no-reboot \
		-kernel "$GUEST_DIR/vmlinuz" -initrd "$GUEST_DIR/initrd" -append "$(parameters churn)" "$@"
}

# migrated: the source has handed the guest over.
migrated() {
	local end=$(($(now_cs) + 12000 * scale))

	until grep -q "Migration status: completed" "$tmp/from.monitor"; do
		! grep -q "Migration status: failed" "$tmp/from.monitor" || return 1
		[ "$(now_cs)" -lt $end ] || return 1
		monitor "$tmp/from" "info migrate"
		sleep 1
	done
}

# right_rounds LOG: so many of them does the guest's part of its console show.
right_rounds() {
	grep -c "^guest: round .* is right" "$1"
}

# goes_on LOG: the guest's checks go on, and none has failed.
goes_on() {
	local end=$(($(now_cs) + 6000 * scale))

	until [ "$(right_rounds "$1")" -ge 5 ]; do
		[ "$(now_cs)" -lt $end ] || return 1
		sleep 0.2
	done
	! grep -qE "FAILED|BUG:|WARNING:|Call Trace" "$1"
}

# move NAME URI-OF-SOURCE URI-OF-DESTINATION
move() {
	local name="$machine | SeaBIOS, -kernel | $1" from=$2 to=$3 source

	start "$tmp/from"
	source=$vmm
	seen "$tmp/from" "round 3 is right" $limit_s || { verdict 1 "$name" "$tmp/from"; return; }
	# Emulated, the machine writes faster than the network takes it.
	monitor "$tmp/from" "migrate_set_parameter downtime-limit 5000"
	monitor "$tmp/from" "migrate_set_parameter max-bandwidth 1G"
	case $to in
	tcp:*)
		start "$tmp/to" -incoming "$to"
		seen "$tmp/to.monitor" "(qemu)" 60 ;;
	esac
	monitor "$tmp/from" "migrate -d \"$from\""
	if migrated; then
		case $to in
		exec:*) start "$tmp/to" -incoming "$to" ;;
		esac
		goes_on "$tmp/to"
		verdict $? "$name" "$tmp/to"
	else
		verdict 1 "$name" "$tmp/from"
	fi
	echo "# $(sed -n 's/^\(downtime\|total time\|dirty sync count\): /\1 /p' "$tmp/from.monitor" |
		tr -d '\r' | tail -n 3 | tr '\n' ' ')"
	kill -KILL "$vmm" "$source" 2>/dev/null
	wait "$vmm" "$source" 2>/dev/null
}

more=mib=32
plan 3
ip link set lo up
machine=pc
move "saved to a file and continued" "exec:cat >$tmp/state" "exec:cat $tmp/state"
move "moved over TCP while it writes memory" tcp:127.0.0.1:4444 tcp:127.0.0.1:4444
machine=q35
move "moved over TCP while it writes memory" tcp:127.0.0.1:4445 tcp:127.0.0.1:4445
finish
