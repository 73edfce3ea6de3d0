#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# What the module writes to a metadata device, seen by replctl, and the other way
# round: made by replctl, filled through several compactions, checked and dumped after
# each removal; refused while it is in use, or mounted.
#
# shellcheck disable=SC2317  # functions are called by name, through check()
. "$(dirname "$0")/../../lib/suite.sh"

replctl=$REPO/build/tools/replctl
tmp=$(mktemp -d)
mib=32
sectors=$((mib * 2048))

# check DESCRIPTION COMMAND...
check()
{
	local what=$1 status

	shift
	"$@" >"$tmp/log" 2>&1
	status=$?
	if [ $status = 0 ]; then
		ok "$what"
	else
		not_ok "$what"
		tail -n 20 "$tmp/log" | sed 's/^/# /'
	fi
	return $status
}

# refused STATUS WORDS COMMAND...
refused()
{
	local status=$1 words=$2

	shift 2
	"$@" >"$tmp/refused" 2>&1
	if [ $? != "$status" ] || ! grep -q "$words" "$tmp/refused"; then
		cat "$tmp/refused"
		return 1
	fi
}

# loop_of NAME SIZE
loop_of()
{
	truncate -s "$2" "$tmp/$1" && losetup --find --show "$tmp/$1"
}

up()
{
	dmsetup create mt-view --table \
		"0 $sectors repl-secondary $secondary $hidden $active $meta 8 2 uuid $uuid" &&
		dmsetup create mt-ingest --table "0 $sectors repl-ingest $secondary"
}

down()
{
	dmsetup remove mt-ingest && dmsetup remove mt-view
}

# scatter DEVICE FROM NR: so many single regions, each a batch
scatter()
{
	local i

	for ((i = 0; i < $3; i++)); do
		dd if=/dev/urandom of="$1" bs=4k count=1 seek=$(($2 + 3 * i)) oflag=direct \
			conv=notrunc status=none || return
	done
}

field()
{
	dmsetup status mt-view | cut -d ' ' -f $(($1 + 3))
}

# agrees STAGE: taken down, metadata is as the status line said
agrees()
{
	local hidden_regions id

	hidden_regions=$(field 7) id=$(field 3)
	down &&
		"$replctl" metadata check --json "$meta" >"$tmp/json" &&
		"$replctl" metadata dump "$meta" >"$tmp/dump" || return
	echo "status: $hidden_regions regions in hidden, checkpoint $id"
	cat "$tmp/json"
	grep -q "\"hidden_regions\":$hidden_regions," "$tmp/json" &&
		grep -q "\"checkpoint\":$id,.*\"stage\":\"$1\"" "$tmp/json" &&
		grep -q '"errors":0,"warnings":0' "$tmp/json"
}

# same_layout: what the module makes of a blank device is what replctl would make
same_layout()
{
	local bytes='"metadata_bytes":[0-9]*'

	dd if=/dev/zero of="$meta" bs=4k count=2 oflag=direct conv=notrunc status=none &&
		"$replctl" metadata create --json --dry-run --force --like "$secondary" \
			--region-size 4KiB "$meta" >"$tmp/would" &&
		dmsetup create mt-view --table \
			"0 $sectors repl-secondary $secondary $hidden $active $meta 8" &&
		dmsetup remove mt-view &&
		"$replctl" metadata dump --json "$meta" >"$tmp/json" || return
	cat "$tmp/would" "$tmp/json"
	grep -o "$bytes" "$tmp/would" >"$tmp/bytes" &&
		grep -o "$bytes" "$tmp/json" | cmp - "$tmp/bytes"
}

modprobe -q loop
modprobe -q dm-repl || not_ok "dm-repl can be loaded"
secondary=$(loop_of secondary ${mib}M) hidden=$(loop_of hidden ${mib}M)
active=$(loop_of active ${mib}M) meta=$(loop_of meta 300K)

check "replctl makes metadata" "$replctl" metadata create --like "$secondary" \
	--region-size 4KiB "$meta"
uuid=$(sed -n 's/^uuid //p' "$tmp/log")
check "a dump" "$replctl" metadata dump "$meta"
check "it is good" "$replctl" metadata check "$meta"
check "the module takes it, with its UUID" up
check "in use it is not dumped" refused 4 'is in use' "$replctl" metadata dump "$meta"
check "nor checked" refused 4 'is in use' "$replctl" metadata check "$meta"
check "nor made new" refused 4 'is in use' "$replctl" metadata create --force \
	--size 32MiB --region-size 4KiB "$meta"
check "start" dmsetup message mt-view 0 start
check "first writes" scatter /dev/mapper/mt-ingest 0 10
check "replctl sees what the module has" agrees running
check "it comes back" up
check "writes through compactions, with bitmaps" scatter /dev/mapper/mt-ingest 1 150
check "replctl sees the same" agrees running
check "it has bitmaps now" grep -q 'bitmaps    area' "$tmp/dump"
check "it comes back" up
check "a checkpoint" dmsetup message mt-view 0 checkpoint
check "writes" scatter /dev/mapper/mt-ingest 2 40
check "replctl sees the same" agrees running
check "it comes back" up
check "failover" dmsetup message mt-view 0 failover
for _ in $(seq 100); do
	[ "$(field 2)" != failover ] || sleep 0.1
done
check "the merge ends" test "$(field 2)" = "done"
check "replctl sees it" agrees "done"
check "the module makes the same layout on a blank device" same_layout

mkfs.ext4 -q -F "$hidden" && mkdir "$tmp/mnt" && mount "$hidden" "$tmp/mnt"
check "a mounted disk is refused" refused 4 'is in use' "$replctl" metadata create \
	--force --size 32MiB --region-size 4KiB "$hidden"
umount "$tmp/mnt"
check "and one with a file system" refused 4 'a file system on it (ext4)' \
	"$replctl" metadata create --size 32MiB --region-size 4KiB "$hidden"
losetup -d "$secondary" "$hidden" "$active" "$meta"
rm -r "$tmp"
suite_end
