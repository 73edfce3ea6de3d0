#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Everything at once, exact: readers of the view against the first overwrite of
# each region (race.c), checkpoints into a flood of writes (cut.c), and fio's own
# verification on the view while fio writes the same regions through ingest.
. "$(dirname "$0")/../../lib/suite.sh"

# That kernel is ten times slower.
[ "${REPL_KERNEL-}" != debug ] || export REPL_STEPS="${REPL_STEPS:-0.25}"

suite_program race
suite_program cut

# --- fio. 16 MiB, of which the drill on the view has the last 4 to itself.

tmp=$(mktemp -d)
sectors=32768
modprobe brd rd_nr=3 rd_size=16384 max_part=0 || not_ok "brd loads"
dmsetup create fio-view --table "0 $sectors repl-secondary /dev/ram0 /dev/ram1 /dev/ram2 - 128"
dmsetup create fio-ingest --table "0 $sectors repl-ingest /dev/ram0"
for dev in fio-view fio-ingest; do
	[ -b /dev/mapper/$dev ] || not_ok "$dev is a block device"
done

# writes PATTERN: every 4 KiB block of the device, in random order, as of PATTERN
# (with its offset in it, so that no block passes for another)
writes()
{
	cat <<JOB
[ingest-$1]
filename=/dev/mapper/fio-ingest
rw=randwrite
verify=pattern
verify_pattern=0x$1%o
do_verify=0
JOB
}

common="[global]
direct=1
ioengine=libaio
iodepth=16
bs=4k
size=16m
verify_fatal=1
thread
randrepeat=1"

{ echo "$common"; writes a1; } >"$tmp/first.fio"
if fio --minimal "$tmp/first.fio" >"$tmp/out" 2>&1 && dmsetup message fio-view 0 start >/dev/null; then
	ok "fio fills the secondary; start"
else
	not_ok "fio fills the secondary; start"
	cat "$tmp/out"
fi

old=a1
for new in b2 c3 d4; do
	{
		echo "$common"
		writes $new
		# all of the time, the same blocks of the view are the checkpoint's
		for job in 1 2; do
			cat <<JOB
[view-$job]
filename=/dev/mapper/fio-view
rw=randread
size=12m
loops=2
verify=pattern
verify_pattern=0x$old%o
randseed=$job$$
JOB
		done
		# and a drill reads back what it writes itself
		cat <<JOB
[drill]
filename=/dev/mapper/fio-view
rw=randwrite
bsrange=512-24k
blockalign=512
offset=12m
size=4m
verify=crc32c
verify_backlog=32
JOB
	} >"$tmp/epoch.fio"
	if fio "$tmp/epoch.fio" >"$tmp/out" 2>&1; then
		ok "fio: the view verifies as $old while ingest writes $new to the same blocks"
	else
		not_ok "fio: the view verifies as $old while ingest writes $new to the same blocks"
		head -n 40 "$tmp/out"
	fi
	[ "$(dmsetup message fio-view 0 checkpoint)" ] || not_ok "checkpoint"
	old=$new
done

cat >"$tmp/last.fio" <<JOB
$common
[view]
filename=/dev/mapper/fio-view
rw=read
bs=4k
verify=pattern
verify_pattern=0x$old%o
JOB
if fio "$tmp/last.fio" >"$tmp/out" 2>&1; then
	ok "fio: after the last checkpoint all of the view is $old, the drill's writes are gone"
else
	not_ok "fio: after the last checkpoint all of the view is $old, the drill's writes are gone"
	head -n 40 "$tmp/out"
fi

sed 's/0xd4/0xc3/' "$tmp/last.fio" >"$tmp/wrong.fio"
if fio "$tmp/wrong.fio" >"$tmp/out" 2>&1; then
	not_ok "fio: it would notice another content"
else
	ok "fio: it would notice another content"
fi

dmsetup remove fio-ingest
dmsetup remove fio-view
rmmod brd
rm -rf "$tmp"
suite_end
