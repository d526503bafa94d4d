#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# setup against a mirror that is not there, has moved on, or knows more than the
# lists of packages do. apt and dpkg are played by this file itself, under their
# names, on text files: "mirror" holds the packages that can be downloaded,
# "lists" those that apt believes in, "dpkg" those that are installed. A package
# linux-headers-amd64 is listed with the release that it depends on.

set -u

# --- apt, dpkg, id and depmod ------------------------------------------------

# The last package of that name in a list: "name release".
known() {
	grep "^$1\( \|$\)" "$2" 2>/dev/null | tail -n 1
}

fake_apt_get() {
	local lists=$FAKE/lists words=() package

	while [ $# != 0 ]; do
		case $1 in
		-o)
			[[ $2 != Dir::State::Lists=* ]] || lists=${2#*=}/lists
			shift 2 ;;
		-*) shift ;;
		*) words+=("$1"); shift ;;
		esac
	done
	[ -e "$FAKE/online" ] || [ "${words[0]}" = indextargets ] || return 100
	case ${words[0]} in
	update) cp "$FAKE/mirror" "$lists"; return ;;
	indextargets) echo "Debian Debian http://mirror"; return ;;
	esac
	for package in "${words[@]:1}"; do
		grep -qxF "$(known "$package" "$lists")" "$FAKE/mirror" || {
			echo "E: $package: 404 Not Found" >&2
			return 100
		}
		if [ "${words[0]}" = download ]; then
			touch "$package.deb"
		else
			known "$package" "$lists" >>"$FAKE/dpkg"
			known "$package" "$lists" | sed -n 's/.* /linux-headers-/p' >>"$FAKE/dpkg"
		fi
	done
}

fake_dpkg_query() {
	local line

	line=$(known "$4" "$FAKE/dpkg")
	[ -n "$line" ] || return
	case $3 in
	*Status*) echo "ii " ;;
	*) echo "linux-headers-${line#* } (= 1)" ;;
	esac
}

# dpkg -x PACKAGE.deb ROOT
fake_dpkg() {
	local release=${2##*/linux-image-}

	release=${release%.deb}
	mkdir -p "$3/boot" "$3/lib/modules/$release"
	touch "$3/boot/vmlinuz-$release"
	echo x >"$3/lib/modules/$release/modules.dep"
}

case ${0##*/} in
apt-get) echo "$*" >>"$FAKE/log"; fake_apt_get "$@"; exit ;;
dpkg-query) fake_dpkg_query "$@"; exit ;;
dpkg) fake_dpkg "$@"; exit ;;
id) cat "$FAKE/uid"; exit ;;
esac

# --- the tests ---------------------------------------------------------------

self=$(realpath "$0")
setup=$(dirname "$self")/setup
tmp=$(mktemp -d "${TMPDIR:-/tmp}/fonda-setup.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
mkdir "$tmp/bin"
for name in apt-get dpkg-query dpkg id; do
	ln -s "$self" "$tmp/bin/$name"
done
export FAKE=$tmp/fake FONDA_CACHE=$tmp/cache PATH=$tmp/bin:$PATH

old=6.1.0-1-amd64 new=6.1.0-2-amd64
packages=$("$setup" -h | sed -n '/^  packages /,/^  6.1 /p' |
	sed '$d; s/^.*: //' | tr ' ' '\n' | grep -v '^linux-headers-amd64$')

# kernel_packages RELEASE
kernel_packages() {
	printf '%s\n' "linux-headers-amd64 $1" "linux-headers-$1" "linux-image-$1"
}

# A machine with everything installed, as root, on line; nothing in the cache.
machine() {
	rm -rf "$FAKE" "$FONDA_CACHE"
	mkdir "$FAKE"
	echo 0 >"$FAKE/uid"
	touch "$FAKE/online"
	{ echo "$packages"; kernel_packages $old; } | tee "$FAKE/mirror" >"$FAKE/lists"
	grep -v linux-image "$FAKE/mirror" >"$FAKE/dpkg"
}

# The mirror drops the old kernel for the new one.
mirror_moves() {
	{ echo "$packages"; kernel_packages $new; } >"$FAKE/mirror"
}

headers_move() {
	kernel_packages $new | grep -v linux-image >>"$FAKE/dpkg"
}

run() {
	"$setup" packages 6.1 >"$tmp/out" 2>&1
}

says() {
	grep -q "$1" "$tmp/out"
}

# The kernel in the cache is this one, and so are the headers.
pair() {
	[ "$(ls "$FONDA_CACHE/linux/6.1/boot")" = "vmlinuz-$1" ] &&
		[ "$("$setup" headers)" = "/usr/src/linux-headers-$1" ]
}

nothing_is_fetched_when_all_is_there() {
	machine; run || return
	rm "$FAKE/online" "$FAKE/log"
	run && pair $old && [ ! -e "$FAKE/log" ]
}

missing_lists_are_read() {
	machine
	rm "$FAKE/lists"
	sed -i /^busybox/d "$FAKE/dpkg"
	run && pair $old && grep -q ^busybox "$FAKE/dpkg"
}

stale_lists_are_read_again() {
	machine
	sed -i 's/^busybox-static$/& 2/' "$FAKE/mirror"
	sed -i /^busybox/d "$FAKE/dpkg"
	run && grep -q ^busybox "$FAKE/dpkg"
}

superseded_headers_are_followed() {
	machine; mirror_moves
	run && pair $new
}

the_kernel_follows_the_headers() {
	machine; run || return
	mirror_moves; headers_move
	run && pair $new
}

the_kernel_comes_without_root() {
	machine; mirror_moves; headers_move
	echo 1000 >"$FAKE/uid"
	run && pair $new
}

off_line_the_matching_pair_stays() {
	machine; run || return
	headers_move
	rm "$FAKE/online"
	run && says "staying with Linux $old" && pair $old
}

off_line_without_a_pair_fails() {
	machine; run || return
	headers_move
	sed -i "/^linux-headers-$old$/d" "$FAKE/dpkg"
	rm "$FAKE/online"
	! run && says "no kernel can be had that matches"
}

off_line_without_a_package_says_so() {
	machine
	rm "$FAKE/online"
	sed -i /^busybox/d "$FAKE/dpkg"
	! run && says "is this machine on line" && says "could not install: busybox-static"
}

without_root_it_names_the_command() {
	machine
	sed -i /^busybox/d "$FAKE/dpkg"
	echo 1000 >"$FAKE/uid"
	! run && says "apt-get install busybox-static"
}

tests=(
	nothing_is_fetched_when_all_is_there
	missing_lists_are_read
	stale_lists_are_read_again
	superseded_headers_are_followed
	the_kernel_follows_the_headers
	the_kernel_comes_without_root
	off_line_the_matching_pair_stays
	off_line_without_a_pair_fails
	off_line_without_a_package_says_so
	without_root_it_names_the_command
)
echo "KTAP version 1"
echo "1..${#tests[@]}"
nr=0 failed=0
for name in "${tests[@]}"; do
	nr=$((nr + 1))
	if $name; then
		echo "ok $nr $name"
	else
		sed 's/^/# /' "$tmp/out"
		echo "not ok $nr $name"
		failed=1
	fi
done
exit $failed
