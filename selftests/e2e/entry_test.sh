#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Broken control blocks: the module is loaded so that it lets tests break them,
# each is refused by the processor, and the explanation names the field. Needs
# neither fonda nor KVM loaded.

. "$(dirname "$0")/lib.sh"

module=${MODULE:-/bed/fonda.ko}

plan 2
insmod "$module" break_entry=1

name="each broken field is named"
if entry_test >"$tmp/log" 2>&1 && grep "[1-9][0-9]* fields were broken" "$tmp/log"; then
	pass "$name"
else
	miss "$name" "$tmp/log"
fi

rmmod fonda && [ ! -e /sys/module/fonda ] && pass "the module unloads" || miss "the module unloads"
finish
