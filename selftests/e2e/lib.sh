# SPDX-License-Identifier: GPL-2.0-or-later
#
# For the end-to-end tests, which run in the bed (busybox's sh) or on a real
# machine: TAP, and the test guest (guest/init) run by `fonda run'. Sourced.

: "${FONDA_DEV:=/dev/fonda}"
: "${GUEST_DIR:=/guest}"	# vmlinuz, initrd, disk.img, tiny
scale=${TAP_SCALE:-1}

tmp=$(mktemp -d /tmp/e2e.XXXXXX) || exit 1
trap 'rm -rf "$tmp"' EXIT

# --- TAP ---------------------------------------------------------------------

tap_nr=0
tap_failed=0

plan() {
	echo "KTAP version 1"
	echo "1..$1"
}

pass() {
	tap_nr=$((tap_nr + 1))
	echo "ok $tap_nr $*"
}

# miss NAME [LOG]: with the end of the log that shows why.
miss() {
	tap_nr=$((tap_nr + 1))
	tap_failed=1
	[ ! -e "${2-}" ] || tail -n 30 "$2" | sed 's/^/# | /'
	echo "not ok $tap_nr $1"
}

finish() {
	exit $tap_failed
}

# --- the test guest ----------------------------------------------------------

# Hundredths of a second since boot.
now_cs() {
	local up

	read -r up _ </proc/uptime
	echo "${up%.*}${up#*.}"
}

new_disk() {
	cp "$GUEST_DIR/disk.img" "$1"
}

# vmm TASK [OPTION]...: fonda run with the test guest, as the program that this
# shell becomes. $more is added to the guest's kernel parameters, "quiet" unless
# $verbose; $limit_s is the longest time it may take.
vmm() {
	local task=$1
	shift
	exec ${limit_s:+timeout -s KILL "$limit_s"} fonda run --device "$FONDA_DEV" \
		--kernel "$GUEST_DIR/vmlinuz" --initrd "$GUEST_DIR/initrd" \
		--append "console=ttyS0 ${verbose-quiet} panic=-1 task=$task token=${token-none} ${more-}" \
		"$@" </dev/null 2>&1
}

# run_guest LOG SECONDS TASK [OPTION]...: runs it to its end; the console goes
# to LOG. Returns the exit status of the VMM, 137 when it took longer.
run_guest() {
	local log=$1 limit_s=$(($2 * scale))
	shift 2

	(vmm "$@") >"$log"
}

# says LOG TEXT: whether the guest printed that line.
says() {
	tr -d '\r' <"$1" | grep -q "^guest: $2"
}

# wait_for LOG TEXT SECONDS: until the guest prints it; false when it is late.
wait_for() {
	local end=$(($(now_cs) + $3 * 100 * scale))

	until says "$1" "$2"; do
		[ "$(now_cs)" -lt $end ] || return 1
		sleep 0.1
	done
}

# disk_holds IMAGE: the file system is sound, and holds what the guest wrote.
disk_holds() {
	local want got

	e2fsck -fn "$1" >"$tmp/e2fsck" 2>&1 || {
		sed 's/^/# e2fsck: /' "$tmp/e2fsck"
		return 1
	}
	want=$(yes "$token" | head -n 8192 | sha256sum)
	got=$(debugfs -R 'cat /output' "$1" 2>/dev/null | sha256sum)
	[ "$want" = "$got" ]
}

# --- the host ----------------------------------------------------------------

# Users of the module under test.
use_count() {
	case $FONDA_DEV in
	*kvm) cat /sys/module/kvm_amd/refcnt ;;
	*) cat /sys/module/fonda/refcnt ;;
	esac
}

# VMs that the module's statistics list.
vms_left() {
	local dir=/sys/kernel/debug/${FONDA_DEV##*/}

	find "$dir" -mindepth 1 -maxdepth 1 -type d 2>/dev/null | wc -l
}
