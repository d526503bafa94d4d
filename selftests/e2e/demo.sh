#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The demonstration: a Debian guest boots, uses a disk and AVX and powers off,
# its console passing by live. Ends with a summary; exit status 0 only when all
# of it happened. $CPUS and $MEMORY size the guest.

. "$(dirname "$0")/lib.sh"

CR=$(printf '\r')

# Prints the seconds, with one digit, between two times of now_cs.
seconds() {
	local cs=$(($2 - $1))

	echo "$((cs / 100)).$((cs / 10 % 10))"
}

# Passes the console on, notes when user space is reached, and keeps the
# statistics that fonda run prints when the guest is gone.
watch_console() {
	local line statistics=

	while IFS= read -r line; do
		line=${line%"$CR"}
		case $line in
		"guest: user space after"*)
			now_cs >"$tmp/user" ;;
		"machine  "*)
			statistics=y ;;
		esac
		if [ -n "$statistics" ]; then
			printf '%s\n' "$line" >>"$tmp/stats"
		else
			printf '%s\n' "$line"
		fi
	done
}

problems=
# check WHAT TEXT: the guest printed that line, or WHAT did not happen.
check() {
	says "$tmp/log" "$2" || problems="$problems
    the guest did not get to: $1"
}

token=$(cat /proc/sys/kernel/random/uuid)
cpus=${CPUS:-2} memory=${MEMORY:-512M}
new_disk "$tmp/disk.img"

echo "Starting a guest with $cpus CPUs, $memory, and a disk on $FONDA_DEV"
start=$(now_cs)
verbose=	# a kernel that boots is something to see
limit_s=$((240 * scale))
{ (vmm demo --name demo --cpus "$cpus" --memory "$memory" --disk "$tmp/disk.img" --stats)
	echo $? >"$tmp/status"; } | tee "$tmp/log" | watch_console
end=$(now_cs)
status=$(cat "$tmp/status")

check "user space" "user space after"
check "a mounted disk" "disk mounted"
check "a file whose checksum is right" "checksum of the file is right"
check "writing a file" "file written"
check "a right result with AVX" "AVX computed the right result"
check "its power off" "done, powering off"
[ "$status" = 0 ] || problems="$problems
    fonda run ended with exit status $status"
disk_holds "$tmp/disk.img" || problems="$problems
    the disk image does not hold what the guest wrote, or is damaged"

# Stock KVM has no such table: there the list is empty.
awk '/^exit / { on = 1; next }
	on && NF == 3 && $2 > 0 { printf "    %-20s %9d   %9.1f ms\n", $1, $2, $3 / 1000 }' \
	"$tmp/stats" >"$tmp/exits"
[ -s "$tmp/exits" ] || [ "$FONDA_DEV" = /dev/kvm ] || problems="$problems
    no exits were counted"

line() {
	printf '  %-22s %s\n' "$1" "$2"
}

echo
if [ -n "$problems" ]; then
	echo "The demonstration FAILED:$problems"
	exit 1
fi
text=$(tr -d '\r' <"$tmp/log" | sed -n 's/^guest: //p')
echo "A Debian guest ran on $FONDA_DEV"
line "host" "Linux $(uname -r), $(nproc) CPUs"
line "guest" "$(echo "$text" | sed -n 2p), stock kernel"
line "user space" "$(echo "$text" | sed -n '1s/.*after //p') by the guest's clock, $(seconds "$start" "$(cat "$tmp/user")") s after the start of fonda run"
line "whole run" "$(seconds "$start" "$end") s"
line "disk" "ext4 on virtio-blk: file verified, file written, both right after power off"
line "AVX" "right results on all CPUs"
line "exits by reason" ""
sort -k2,2nr "$tmp/exits"
exit 0
