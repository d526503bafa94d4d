#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# kvm_selftests_test.sh KERNEL check|all [PATTERN]: runs KVM's own selftests of
# that kernel, as kvm-selftests.list says, on $FONDA_DEV. They know no name but
# /dev/kvm, so that is what the device is called for them; those of 6.12 also
# read parameters of a module named kvm.

here=$(dirname "$0")
kernel=$1 when=$2 pattern=${3-.}
bin=/kvm-selftests/$kernel
scale=${TAP_SCALE:-1}

# Tests of that kernel: "when seconds command", one a line.
chosen() {
	awk -v kernel="$kernel" -v when="$when" -v pattern="$pattern" '
	$1 == kernel && ($2 == "check" || $2 == when) && $4 ~ pattern {
		sub(/^[^ \t]+[ \t]+[^ \t]+[ \t]+/, ""); print }' "$here/kvm-selftests.list"
}

# Their module's parameters where there is no such module: stock KVM's defaults.
show_parameters() {
	[ ! -e /sys/module/kvm/parameters ] || return 0
	mount -t tmpfs none /sys/module
	mkdir -p /sys/module/kvm/parameters /sys/module/kvm_amd/parameters
	echo 0 >/sys/module/kvm/parameters/force_emulation_prefix
	echo N >/sys/module/kvm/parameters/enable_pmu
	echo N >/sys/module/kvm/parameters/ignore_msrs
	echo Y >/sys/module/kvm_amd/parameters/npt
	echo N >/sys/module/kvm_amd/parameters/avic
}

if [ "$4" = --in-namespace ]; then
	show_parameters
	[ -e /dev/kvm ] || { ln -s "$FONDA_DEV" /dev/kvm; linked=y; }
else
	exec unshare -m "$0" "$kernel" "$when" "$pattern" --in-namespace
fi

log=$(mktemp /tmp/kvm-selftest.XXXXXX)
failed=0
nr=0
echo "KTAP version 1"
echo "1..$(chosen | wc -l)"
chosen >"$log.list"
while read -r seconds command; do
	nr=$((nr + 1))
	read -r start _ </proc/uptime
	# Unquoted: the words of the command.
	timeout -s KILL $((seconds * scale)) "$bin"/$command >"$log" 2>&1 </dev/null
	status=$?
	# Some have children, who would spin on beside those that follow.
	[ $status = 0 ] || killall -q -KILL "$(basename "${command%% *}")"
	read -r end _ </proc/uptime
	if [ $status = 0 ]; then
		echo "ok $nr $kernel $command"
	else
		echo "# exit status $status"
		tail -n 20 "$log" | sed 's/^/# | /'
		echo "not ok $nr $kernel $command"
		failed=1
	fi
	echo "# ${start%.*} to ${end%.*} s"
done <"$log.list"
rm -f "$log" "$log.list"
[ -z "$linked" ] || rm /dev/kvm
exit $failed
