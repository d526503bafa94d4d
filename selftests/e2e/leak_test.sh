#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Two hundred short lives of a VM leave nothing behind: neither objects in any
# slab, nor memory, nor mappings, nor open files. One object or page lost in
# each life is above the limits; what varies from run to run is below.

. "$(dirname "$0")/lib.sh"

lives=200
objects_max=100
pages_max=150
files_max=100	# the kernel counts them roughly, by CPU

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

# Objects by slab. Areas of vmalloc are freed in large batches: see mappings().
slabs() {
	awk 'NR > 2 && $1 != "vmap_area" { print $1, $2 }' /proc/slabinfo
}

mappings() {
	grep -vc unpurged /proc/vmallocinfo
}

# Pages that are free, on lists of a CPU too, or in a cache of user data.
free_pages() {
	awk '/^(MemFree|Cached|AnonPages|SReclaimable|PageTables):/ { pages += $2 / 4 }
		$1 == "count:" { pages += $2 }
		END { print int(pages) }' /proc/meminfo /proc/zoneinfo
}

open_files() {
	cut -f 1 /proc/sys/fs/file-nr
}

plan 6
name="$lives VMs live and power off"
live_times 20 || {
	miss "$name" "$tmp/log"
	finish
}
settle
slabs >"$tmp/before"
free=$(free_pages) files=$(open_files) maps=$(mappings)
live_times $lives && pass "$name" || miss "$name" "$tmp/log"
settle
slabs >"$tmp/after"
lost=$((free - $(free_pages))) files=$(($(open_files) - files)) maps=$(($(mappings) - maps))

name="no slab grew"
awk -v max=$objects_max 'NR == FNR { before[$1] = $2; next }
	$2 - before[$1] > max { print $1 ": from " before[$1] + 0 " to " $2 " objects" }' \
	"$tmp/before" "$tmp/after" >"$tmp/grown"
[ ! -s "$tmp/grown" ] && pass "$name" || miss "$name" "$tmp/grown"

echo "# lost: $lost pages, $maps kernel mappings, $files files"
name="no memory is lost"
[ $lost -lt $pages_max ] && pass "$name" || miss "$name"
name="no kernel mapping is left"
[ $maps -lt 10 ] && pass "$name" || miss "$name"
name="no file stays open"
[ $files -lt $files_max ] && pass "$name" || miss "$name"
name="nobody uses the module"
[ "$(use_count)" = 0 ] && [ "$(vms_left)" = 0 ] && pass "$name" || miss "$name"
finish
