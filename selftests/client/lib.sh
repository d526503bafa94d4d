# SPDX-License-Identifier: GPL-2.0-or-later
#
# For the tests of QEMU in the bed (busybox's sh): runs it on the device under
# test, with the guest and the functions of the end-to-end tests. Sourced.

. "$(dirname "$0")/../e2e/lib.sh"

: "${CLIENT_DIR:=/client}"
: "${QEMU:=/client/qemu10}"

version=$("$QEMU" --version | sed -n '1s/.*version \([0-9.]*\).*/QEMU \1/p')
# QEMU 7.2 knows no other name than /dev/kvm.
case $version in
"QEMU 7"*) accel=kvm ;;
*) accel=kvm,device=$FONDA_DEV ;;
esac

# qemu LOG MACHINE [OPTION]...: starts QEMU in the background, as $vmm. The
# guest's serial port is in LOG, QEMU's own words in LOG.err, the answers of its
# monitor in LOG.monitor. It may take $limit_s seconds.
qemu() {
	local log=$1 machine=$2
	shift 2

	: >"$log"
	: >"$log.monitor"
	rm -f "$log.in" "$log.out"
	mkfifo "$log.in" "$log.out"
	cat "$log.out" >>"$log.monitor" &
	timeout -s KILL $((limit_s * scale)) "$QEMU" -M "$machine" -accel "$accel" -cpu host \
		-nodefaults -no-user-config -display none -L "$CLIENT_DIR/rom" \
		-chardev "file,id=serial,path=$log" -serial chardev:serial \
		-chardev "pipe,id=monitor,path=$log" -mon chardev=monitor "$@" \
		</dev/null >"$log.err" 2>&1 &
	vmm=$!
}


# parameters TASK: of the guest's kernel.
parameters() {
	echo "console=ttyS0 ${verbose-quiet} panic=-1 no_timer_check task=$1 token=${token-none} ${more-}"
}

# ended: waits for QEMU; whether it ended by itself and well.
ended() {
	wait "$vmm"
}

# finish_off: QEMU has been seen enough of.
finish_off() {
	kill -KILL "$vmm"
	wait "$vmm"
} 2>/dev/null

monitor() {
	local log=$1
	shift

	echo "$*" >"$log.in"
}

# seen FILE TEXT SECONDS: waits for a basic regular expression.
seen() {
	local end=$(($(now_cs) + $3 * 100 * scale))

	until tr -d '\r\0' <"$1" 2>/dev/null | grep -q "$2"; do
		[ "$(now_cs)" -lt $end ] || return 1
		kill -0 "$vmm" 2>/dev/null || { tr -d '\r\0' <"$1" | grep -q "$2"; return; }
		sleep 0.2
	done
}

# verdict STATUS "MACHINE | FIRMWARE | WHAT" LOG: as the compatibility table has it.
verdict() {
	set -- "$1" "$version | $2" "$3"

	if [ "$1" = 0 ]; then
		pass "$2"
		return
	fi
	sed 's/^/# QEMU: /' "$3.err"
	tail -n 5 "$3.monitor" | tr -d '\r' | sed 's/^/# monitor: /'
	miss "$2" "$3"
}
