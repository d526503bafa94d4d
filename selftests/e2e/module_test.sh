#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Loading and unloading, and what loading says where it cannot work. Needs
# neither fonda nor KVM loaded. With "nosvm": on a machine without SVM. With a
# number: so many times instead of 200.

. "$(dirname "$0")/lib.sh"

module=${MODULE:-/bed/fonda.ko}

# log_since MARK: the kernel's log after that line.
mark() {
	echo "e2e: $1" >/dev/kmsg
}

log_since() {
	dmesg | sed -n "/e2e: $1/,\$p"
}

if [ "${1-}" = nosvm ]; then
	plan 1
	name="without SVM, loading fails and says what is missing"
	mark nosvm
	if insmod "$module" 2>/dev/null; then
		miss "$name: it loaded"
	elif log_since nosvm | grep -q "fonda: .*offers neither AMD-V (svm) nor VT-x"; then
		pass "$name"
	else
		log_since nosvm >"$tmp/log"
		miss "$name" "$tmp/log"
	fi
	finish
fi

plan 4
loads=${1:-200}
kvm=kvm_amd
grep -qw svm /proc/cpuinfo || kvm=kvm_intel

name="$loads times loaded and unloaded"
for i in $(seq "$loads"); do
	insmod "$module" && [ -c /dev/fonda ] && rmmod fonda && [ ! -e /dev/fonda ] || break
done
[ "$i" = "$loads" ] && [ ! -e /sys/module/fonda ] && pass "$name" || miss "$name: stopped at $i"

# Both may be loaded; who has a VM has the processor.
modprobe $kvm
insmod "$module"
FONDA_DEV=/dev/kvm
new_disk "$tmp/kvm.img"
(vmm busy --cpus 1 --memory 128M --disk "$tmp/kvm.img") >"$tmp/kvm.log" &
pid=$!
# What the guest does does not matter, and stock KVM's can hang in an emulator.
i=0
until [ "$(cat /sys/module/$kvm/refcnt)" -gt 0 ]; do
	i=$((i + 1))
	[ "$i" -lt 600 ] && kill -0 $pid || break
	usleep 100000
done
[ "$(cat /sys/module/$kvm/refcnt)" -gt 0 ] || miss "a guest on KVM" "$tmp/kvm.log"

FONDA_DEV=/dev/fonda
name="while KVM has a VM, fonda refuses and says so"
mark busy
run_guest "$tmp/log" 60 demo --cpus 1 --memory 128M --disk "$GUEST_DIR/disk.img,readonly"
status=$?
log_since busy >>"$tmp/log"
if [ $status != 0 ] && [ $status != 137 ] &&
		grep -q "fonda: .*in use by another hypervisor" "$tmp/log"; then
	pass "$name"
else
	miss "$name (exit status $status)" "$tmp/log"
fi
kill -9 $pid
wait $pid 2>/dev/null

name="after KVM's last VM, fonda runs one"
new_disk "$tmp/disk.img"
token=turn
if run_guest "$tmp/log" 120 demo --cpus 1 --memory 256M --disk "$tmp/disk.img" &&
		disk_holds "$tmp/disk.img"; then
	pass "$name"
else
	miss "$name" "$tmp/log"
fi

name="and after that KVM runs one"
if fonda run --device /dev/kvm --kernel "$GUEST_DIR/tiny" --cpus 1 --memory 64M \
		</dev/null >"$tmp/log" 2>&1 && says "$tmp/log" tiny; then
	pass "$name"
else
	miss "$name" "$tmp/log"
fi
rmmod fonda
rmmod $kvm kvm
finish
