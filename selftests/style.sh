#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# style.sh [KERNEL-HEADERS]: the rules of the source that a program can check.
# Prints KTAP; a `not ok' is preceded by the lines at fault. Sizes of files and
# functions are a report, not a rule; the size of the module is a rule.

set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
kdir=${1:-/lib/modules/$(uname -r)/build}

# Lines of code in kmod/, without blank lines and comments.
kmod_budget=12000
# Where a file or function deserves the question which noun is missing.
long_file=900
long_function=120

nr=0 failed=0
work=$(mktemp -d "${TMPDIR:-/tmp}/fonda-style.XXXXXX")
trap 'rm -rf "$work"' EXIT

# rule NAME: passes when standard input is empty.
rule() {
	nr=$((nr + 1))
	sed 's/^/# /' >"$work/faults"
	if [ -s "$work/faults" ]; then
		cat "$work/faults"
		echo "not ok $nr $1"
		failed=1
	else
		echo "ok $nr $1"
	fi
}

skip() {
	nr=$((nr + 1))
	echo "ok $nr $1 # SKIP $2"
}

# sources DIR...: files under git's control or about to be.
sources() {
	git ls-files --cached --others --exclude-standard -- "$@" |
		grep -E '\.[chS]$' | while read -r f; do [ ! -f "$f" ] || echo "$f"; done
}

# Prints "file line-of-code" without comments, strings kept whole.
code_lines() {
	awk '
	FNR == 1 { comment = 0 }
	{
		line = $0
		out = ""
		while (line != "") {
			if (comment) {
				i = index(line, "*/")
				if (!i)
					break
				comment = 0
				line = substr(line, i + 2)
				continue
			}
			if (match(line, /^"([^"\\]|\\.)*"/)) {
				out = out substr(line, 1, RLENGTH)
				line = substr(line, RLENGTH + 1)
			} else if (substr(line, 1, 2) == "/*") {
				comment = 1
				line = substr(line, 3)
			} else if (substr(line, 1, 2) == "//") {
				break
			} else {
				out = out substr(line, 1, 1)
				line = substr(line, 2)
			}
		}
		if (out ~ /[^ \t]/)
			print FILENAME "\t" out
	}' "$@"
}

# includes DIR...: "file included-path" with the path relative to the top.
includes() {
	sources "$@" | while read -r file; do
		sed -n 's/^[ \t]*#[ \t]*include[ \t]*"\([^"]*\)".*/\1/p' "$file" | while read -r inc; do
			echo "$file $(realpath -m --relative-to=. "$(dirname "$file")/$inc")"
		done
	done
}

# --- who may depend on whom --------------------------------------------------

# Generated once; kmod/ is also an include directory of its own (Kbuild).
includes kmod | while read -r file inc; do
	base=kmod/${inc#"$(dirname "$file")"/}
	[ -e "$inc" ] || [ ! -e "$base" ] || inc=$base
	echo "$file $inc"
done >"$work/kmod"
includes userspace >"$work/userspace"

rule "kmod includes nothing of userspace or selftests" < <(
	grep -E ' (userspace|selftests)/' "$work/kmod"
)
rule "generic code does not include a vendor's headers" < <(
	grep -vE '^kmod/(svm|vmx)/' "$work/kmod" | grep -E ' kmod/(svm|vmx)/'
)
rule "vendors do not see each other" < <(
	grep -E '^kmod/svm/.* kmod/vmx/|^kmod/vmx/.* kmod/svm/' "$work/kmod"
)
rule "pure files take what they need as arguments" < <(
	grep -E '^kmod/(emulate|walk|irq/(pic|ioapic|lapic|pit))\.c .*/backend\.h$' "$work/kmod"
	grep -nE '\bcurrent->|\bfonda_backend\b' kmod/emulate.c kmod/walk.c \
		kmod/irq/{pic,ioapic,lapic,pit}.c 2>/dev/null
)
rule "kernel versions are known to compat.h only" < <(
	sources kmod | grep -v '^kmod/compat\.h$' |
		xargs -r grep -nE 'LINUX_VERSION_CODE|KERNEL_VERSION\('
)
rule "userspace depends downwards: main, cmd, vm, dev, util" < <(
	awk '
	function rank(path) {
		if (path ~ /^userspace\/util\//) return 0
		if (path ~ /^userspace\/dev\//) return 1
		if (path ~ /^userspace\/(vm|ctl|migrate)\//) return 2
		if (path ~ /^userspace\/cmd\//) return 3
		return 4
	}
	$2 ~ /^(kmod|selftests)\// || rank($2) > rank($1)
	' "$work/userspace"
)
rule "of kmod, selftests include only what unit tests compile" < <(
	# The test of failed entries has `fonda explain' judge them.
	includes selftests | grep -v '^selftests/unit/' | grep -E ' (kmod|userspace)/' |
		grep -v '^selftests/abi/entry_test\.c userspace/vm/explain\.h$'
)

# --- what stands in the files ------------------------------------------------

rule "every source names its licence and says what it is for" < <(
	sources kmod userspace selftests include | while read -r file; do
		head -n 1 "$file" | grep -q 'SPDX-License-Identifier: ' ||
			echo "$file: no SPDX-License-Identifier on the first line"
		# The small headers that stand in for the kernel's explain nothing.
		case $file in selftests/unit/include/*) continue ;; esac
		sed -n 2,8p "$file" | grep -q '/\*\|^ \*\|^//' ||
			echo "$file: no comment at the top"
	done
)
rule "no white space at the end of a line, no spaces that should be a tab" < <(
	sources kmod userspace selftests include | xargs -r grep -nE '[ 	]+$|^        '
)
rule "no line beyond 100 columns" < <(
	sources kmod userspace selftests include | while read -r file; do
		expand "$file" | awk -v f="$file" '
			# A message for people stays in one piece, to be found by grep.
			length($0) > 100 && !/"/ { print f ":" FNR ": " length($0) " columns" }'
	done
)
rule "no host names of mirrors, no paths of one machine" < <(
	git grep -nIE '(deb|ftp|security|snapshot)\.debian[.]org|/home/[a-z]+/|/tmp/[b]ash|/wor[k]/' -- .
)

# --- tools -------------------------------------------------------------------

if [ ! -e "$kdir/Makefile" ]; then
	skip "gcc and sparse have nothing to say about kmod" "no kernel headers in $kdir"
elif ! command -v sparse >/dev/null; then
	skip "gcc and sparse have nothing to say about kmod" "sparse is not installed"
else
	# In a copy: a build of the tree itself is left as it is.
	mkdir "$work/tree"
	cp -R Kbuild kmod include "$work/tree"
	find "$work/tree" \( -name '*.o' -o -name '.*.cmd' -o -name '*.ko' \) -delete
	rule "gcc and sparse have nothing to say about kmod" < <(
		# Debian's sparse does not know __has_include; 6.1 has none of what
		# is asked for.
		make -C "$kdir" M="$work/tree" W=1 C=2 CF='-D"__has_include(x)=0"' modules >"$work/build" 2>&1 ||
			echo "the build failed"
		grep -E 'warning:|error:|Error [0-9]|objtool' "$work/build" | sort -u | head -n 60
	)
fi

checkpatch=$(compgen -G "/usr/src/*/scripts/checkpatch.pl" | head -n 1)
checkpatch=${CHECKPATCH:-$checkpatch}
if [ -n "$checkpatch" ]; then
	# Trace headers have a form of their own; the tree has no MAINTAINERS.
	rule "checkpatch has nothing to say about kmod" < <(
		sources kmod | grep -v '/trace\.h$' |
			xargs perl "$checkpatch" --no-tree --terse --no-summary \
				--max-line-length=100 --ignore FILE_PATH_CHANGES -f 2>&1 | head -n 60
	)
fi

# --- sizes -------------------------------------------------------------------

sources kmod userspace selftests | xargs -r wc -l |
	awk -v max=$long_file '$2 != "total" && $1 > max {
		print "# long file: " $2 ", " $1 " lines" }'
sources kmod userspace | grep '\.c$' | xargs -r awk -v max=$long_function '
	/^[a-z].*\(/ { name = $0; sub(/\(.*/, "", name); sub(/.*[ *]/, "", name) }
	/^{/ { start = FNR }
	/^}/ { if (start && FNR - start > max)
		print "# long function: " FILENAME ": " name "(), " FNR - start " lines"
	       start = 0 }'

count() {
	local files
	mapfile -t files < <(sources "$@")
	if [ ${#files[@]} = 0 ]; then
		echo 0
	else
		code_lines "${files[@]}" | wc -l
	fi
}

kmod=$(count kmod)
echo "# lines of code: kmod $kmod (budget $kmod_budget), userspace $(count userspace)," \
	"selftests $(count selftests)"
rule "kmod keeps its budget of $kmod_budget lines" < <(
	[ "$kmod" -le $kmod_budget ] || echo "$kmod lines"
)

echo "1..$nr"
exit $failed
