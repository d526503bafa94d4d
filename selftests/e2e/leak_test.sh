#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# A hundred short lives of a VM leave nothing behind: neither objects in any
# slab, nor memory, nor open files.

. "$(dirname "$0")/lib.sh"

lives=100
# Below one object, or one page, for each life.
objects_max=50
pages_max=80

live() {
	fonda run --device "$FONDA_DEV" --kernel "$GUEST_DIR/tiny" --cpus 2 \
		--memory 64M </dev/null >"$tmp/log" 2>&1 && says "$tmp/log" tiny
}

live_times() {
	local i=0

	while [ $i -lt "$1" ]; do
		live || return 1
		i=$((i + 1))
	done
}

# Lets the kernel give back what it merely keeps for later.
settle() {
	sync
	echo 3 >/proc/sys/vm/drop_caches
	for cache in /sys/kernel/slab/*/shrink; do
		echo 1 >"$cache"
	done 2>/dev/null
}

# Kernel memory of every sort that is not a cache, in pages.
kernel_pages() {
	awk '/^(SUnreclaim|KernelStack|PageTables|SecPageTables|Percpu|VmallocUsed):/ { kb += $2 }
		END { print int(kb / 4) }' /proc/meminfo
}

free_pages() {
	awk '/^MemFree:/ { print int($2 / 4) }' /proc/meminfo
}

open_files() {
	cut -f 1 /proc/sys/fs/file-nr
}

plan 5
name="$lives VMs live and power off"
live_times 20 || {
	miss "$name" "$tmp/log"
	finish
}
settle
awk 'NR > 2 { print $1, $2 }' /proc/slabinfo | sort >"$tmp/before"
kernel=$(kernel_pages) free=$(free_pages) files=$(open_files)
live_times $lives && pass "$name" || miss "$name" "$tmp/log"
settle

awk 'NR > 2 { print $1, $2 }' /proc/slabinfo | sort >"$tmp/after"
awk -v max=$objects_max 'NR == FNR { before[$1] = $2; next }
	$2 - before[$1] > max { print $1 ": from " before[$1] + 0 " to " $2 " objects" }' \
	"$tmp/before" "$tmp/after" >"$tmp/grown"
name="no slab grew"
[ ! -s "$tmp/grown" ] && pass "$name" || miss "$name" "$tmp/grown"

kernel=$(($(kernel_pages) - kernel)) free=$((free - $(free_pages)))
files=$(($(open_files) - files))
name="no memory is lost"
echo "# kernel memory grew by $kernel pages, free memory shrank by $free pages"
[ $kernel -lt $pages_max ] && [ $free -lt $((pages_max * 10)) ] && pass "$name" || miss "$name"
name="no file stays open"
[ $files -lt 10 ] && pass "$name" || miss "$name: $files more"
name="nobody uses the module"
[ "$(use_count)" = 0 ] && [ "$(vms_left)" = 0 ] && pass "$name" || miss "$name"
finish
