#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# vm-kmemleak
#
# What all the other suites stand on: the kernel that was asked for, the module,
# device-mapper without udev, the backing devices.

failed=0
check()
{
	local name=$1

	shift
	if "$@"; then
		echo "ok - $name"
	else
		echo "not ok - $name"
		failed=1
	fi
}

release=$(uname -r)
case $REPL_KERNEL in
debug) check "the kernel is $release" grep -q 'repl-debug' /proc/sys/kernel/osrelease ;;
*)     check "the kernel is $release" test "${release#"$REPL_KERNEL"}" != "$release" ;;
esac
check "dm-repl.ko is at \$REPL_KO" test -f "$REPL_KO"
check "dm-repl loads" modprobe dm-repl
dmsetup targets >/tmp/targets
check "its targets are there" grep -q '^repl-secondary ' /tmp/targets
check "dm-repl unloads" modprobe -r dm-repl

check "null_blk loads" modprobe null_blk nr_devices=0
mkdir /sys/kernel/config/nullb/t0
for setting in memory_backed=1 size=16 blocksize=4096 power=1; do
	echo "${setting#*=}" >"/sys/kernel/config/nullb/t0/${setting%%=*}"
done
disk=$(lsblk -dnpo NAME 2>/dev/null | grep -E 'nullb|/t0' | head -1)
check "a null_blk disk appears (${disk:-none})" test -b "${disk:-/nonexistent}"
check "dmsetup makes a device" dmsetup create t --table "0 32768 linear $disk 0"
check "and its node, without udev" test -b /dev/mapper/t
check "what is written is read" \
	sh -c 'head -c 65536 /dev/urandom >/tmp/x && dd if=/tmp/x of=/dev/mapper/t bs=64k oflag=direct status=none &&
	       dd if=/dev/mapper/t bs=64k count=1 iflag=direct status=none | cmp - /tmp/x'
check "the device goes" dmsetup remove t
check "and its node" test ! -e /dev/mapper/t
rmdir /sys/kernel/config/nullb/t0
exit $failed
