# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0-only
#
# For the suites under tests/vm/suites, which source it. A suite runs as root in
# the machine that tests/vm/run boots.
#
#	. "$(dirname "$0")/../../lib/suite.sh"
#	suite_program errors	# build/tests/errors, with the module loaded
#	suite_end		# nothing is left; the exit status

REPO=$(cd "$(dirname "$0")/../../.." && pwd)
suite_failed=0

ok()
{
	echo "ok - $*"
}

not_ok()
{
	echo "not ok - $*"
	suite_failed=1
}

# suite_program NAME [ARGUMENT]...
suite_program()
{
	program=$REPO/build/tests/$1
	shift
	if [ ! -x "$program" ]; then
		not_ok "$program is there (make -C tests/src)"
		return
	fi
	[ -d /sys/module/dm_repl ] || modprobe dm-repl || {
		not_ok "dm-repl can be loaded"
		return
	}
	"$program" "$@" || {
		status=$?
		suite_failed=1
		[ $status = 1 ] || not_ok "${program##*/} ended with status $status"
	}
}

# Nothing may be left: no device, no reference on the module.
suite_end()
{
	for dev in /sys/block/dm-*; do
		[ -e "$dev" ] || continue
		not_ok "a device is left: $(cat "$dev/dm/name")"
		[ ! -s "$dev/dm/name" ] || dmsetup remove --force "$(cat "$dev/dm/name")"
	done
	if [ -d /sys/module/dm_repl ]; then
		if rmmod dm_repl; then
			ok "the module unloads"
		else
			not_ok "the module unloads"
		fi
	fi
	if [ -e /sys/kernel/debug/kmemleak ]; then
		# An object counts as leaked only when a second scan finds it.
		echo scan >/sys/kernel/debug/kmemleak 2>/dev/null &&
			echo scan >/sys/kernel/debug/kmemleak
		if grep -q repl /sys/kernel/debug/kmemleak; then
			not_ok "kmemleak finds nothing"
			cat /sys/kernel/debug/kmemleak
		else
			ok "kmemleak finds nothing"
		fi
	fi
	exit $suite_failed
}
