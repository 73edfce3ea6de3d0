#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# ext4 and xfs on a primary whose peer leg is ingest: a checkpoint of a mounted
# file system, more writes, a drill on the view, the loss of the primary, and the
# files exactly as they were at the checkpoint.
#
# shellcheck disable=SC2317  # functions are called by name, through check()
. "$(dirname "$0")/../../lib/suite.sh"

mib=${REPL_FS_MIB:-48}
tmp=$(mktemp -d)
sums=$tmp/sums

# check DESCRIPTION COMMAND...
check()
{
	local what=$1 status

	shift
	"$@" >"$tmp/log" 2>&1
	status=$?
	if [ $status = 0 ]; then
		ok "$fs: $what"
	else
		not_ok "$fs: $what"
		tail -n 20 "$tmp/log" | sed 's/^/# /'
	fi
	return $status
}

# populate DIR NAME: a tree of new files (few processes: each is dear here)
populate()
{
	local dir=$1/$2

	mkdir -p "$dir/deep/er" &&
	head -c 900001 /dev/urandom | split -b 37777 - "$dir/file-" &&
	head -c 1500000 /dev/urandom >"$dir/deep/large" &&
	ln "$dir/file-aa" "$dir/deep/er/link" &&
	ln -s ../file-ab "$dir/deep/symlink" &&
	dd if=/dev/urandom of="$dir/sparse" bs=4k seek=200 count=3 status=none
}

# sums DIR: every file's checksum, and every name with type, size and target
sums()
{
	(
		cd "$1" || exit 1
		find . -type f -print0 | sort -z | xargs -0 -r sha256sum
		find . -name lost+found -prune -o \( -type d -printf '%p %y\n' \) -o \
			-printf '%p %y %s %l\n' | sort
	)
}

loop_of()
{
	truncate -s "${mib}M" "$tmp/$1" && losetup --find --show "$tmp/$1"
}

# fsck DEV: after a mount has replayed the log
fsck()
{
	case $fs in
	ext4) e2fsck -fn "$1" ;;
	xfs)  xfs_repair -n "$1" ;;
	esac
}

make_fs()
{
	case $fs in
	ext4) mkfs.ext4 -q -F "$1" ;;
	xfs)  mkfs.xfs -q -f "$1" ;;
	esac
}

# Mount DEV and compare; a file system that was in use is recovered by that.
mounted_is()
{
	local dev=$1 want=$2 mnt=$3 opts=rw

	# the primary is mounted too, and is the same file system to xfs
	[ "$fs" = ext4 ] || opts=nouuid
	mount -t "$fs" -o "$opts" "$dev" "$mnt" || return 1
	sums "$mnt" >"$tmp/got" && diff "$want" "$tmp/got"
}

run_fs()
{
	local sectors=$((mib * 2048)) region=$1 disks disk

	disks=()
	for disk in local secondary hidden active; do
		disks+=("$(loop_of "$disk")") || { not_ok "$fs: $disk disk"; return; }
	done
	mkdir -p "$tmp/primary" "$tmp/view"

	# Before the first sync both disks are the same: zeroes.
	dmsetup create fs-view --table \
		"0 $sectors repl-secondary ${disks[1]} ${disks[2]} ${disks[3]} - $region"
	dmsetup create fs-ingest --table "0 $sectors repl-ingest ${disks[1]}"
	dmsetup create fs-primary --table \
		"0 $sectors repl-primary ${disks[0]} /dev/mapper/fs-ingest - $region 1 sync"
	for disk in fs-view fs-ingest fs-primary; do
		[ -b /dev/mapper/$disk ] || { not_ok "$fs: $disk is a block device"; return; }
	done

	check "mkfs on the primary, the secondary in stage none" make_fs /dev/mapper/fs-primary
	check "mount" mount -t "$fs" /dev/mapper/fs-primary "$tmp/primary"
	check "files" populate "$tmp/primary" first
	check "start, with the file system in use" dmsetup message fs-view 0 start
	check "more files" populate "$tmp/primary" second
	rm -r "$tmp/primary/first/deep"
	sync -f "$tmp/primary"
	sums "$tmp/primary" >"$sums.1"
	check "checkpoint" dmsetup message fs-view 0 checkpoint

	# A drill: the view is mounted and written, while the primary goes on.
	check "the view mounts, its files are the checkpoint's" \
		mounted_is /dev/mapper/fs-view "$sums.1" "$tmp/view"
	populate "$tmp/primary" third &
	check "the drill writes to it" populate "$tmp/view" drill
	rm -rf "$tmp/view/second"
	wait $!
	check "unmount the view" umount "$tmp/view"
	check "the drill's file system is clean" fsck /dev/mapper/fs-view
	rm -r "$tmp/primary/second/deep"
	sync -f "$tmp/primary"
	sums "$tmp/primary" >"$sums.2"
	check "the next checkpoint" dmsetup message fs-view 0 checkpoint
	check "the drill has left nothing" mounted_is /dev/mapper/fs-view "$sums.2" "$tmp/view"
	umount "$tmp/view"

	# After the checkpoint: new files, changed files, removed files.
	check "files after the checkpoint" populate "$tmp/primary" fourth
	rm -rf "$tmp/primary/third"
	head -c 50000 /dev/urandom >"$tmp/primary/second/file-ac"
	sync -f "$tmp/primary"

	# The primary is lost while it writes.
	populate "$tmp/primary" fifth &
	check "failover" dmsetup message fs-view 0 failover
	check "the view mounts while the merge runs, its files are the checkpoint's" \
		mounted_is /dev/mapper/fs-view "$sums.2" "$tmp/view"
	check "and it can be used" populate "$tmp/view" promoted
	wait $!
	sums "$tmp/view" >"$sums.3"
	umount "$tmp/view"

	# The primary's workload has noticed nothing.
	check "the primary's workload goes on" sync -f "$tmp/primary"
	sums "$tmp/primary" >"$sums.4"
	check "the peer is latched as failed" grep -q ' failed ' <(dmsetup status fs-primary)
	umount "$tmp/primary"
	check "the primary's own file system is clean" fsck /dev/mapper/fs-primary
	check "all its files are there" mounted_is /dev/mapper/fs-primary "$sums.4" "$tmp/primary"
	umount "$tmp/primary"

	while read -r _ _ _ _ stage _ < <(dmsetup status fs-view); [ "$stage" = failover ]; do
		dmsetup wait fs-view "$(dmsetup info -c --noheadings -o events fs-view)" &
		wait=$!
		# the event may have come before the wait
		[ "$(dmsetup status fs-view | cut -d' ' -f5)" = failover ] || kill $wait 2>/dev/null
		wait $wait 2>/dev/null
	done
	check "the merge is done" test "$stage" = "done"
	check "fsck of the view is clean" fsck /dev/mapper/fs-view

	dmsetup remove fs-primary
	dmsetup remove fs-ingest
	dmsetup remove fs-view
	check "the secondary disk alone: fsck is clean" fsck "${disks[1]}"
	check "and holds the promoted side's files" mounted_is "${disks[1]}" "$sums.3" "$tmp/view"
	umount "$tmp/view"
	for disk in "${disks[@]}"; do
		losetup -d "$disk"
	done
	rm -f "$tmp"/{local,secondary,hidden,active}
}

modprobe -a loop dm-repl || not_ok "the modules load"
mount -t tmpfs -o size=600m fs "$tmp" || not_ok "a tmpfs"

fs=ext4
run_fs 128
fs=xfs
# xfsprogs refuses less than 300 MB since 6.0; the files are sparse.
mkfs.xfs -N -f -d "file,name=$tmp/probe,size=${mib}m" >/dev/null 2>&1 || mib=320
rm -f "$tmp/probe"
run_fs 8

umount "$tmp"
rmdir "$tmp"
suite_end
