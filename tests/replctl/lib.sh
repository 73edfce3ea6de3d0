# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-only
#
# For scripts that run in both of two machines (tests/vm/run --hosts 2) and speak of
# one resource, r0, with volumes data and log. Host 1 is alpha, the primary at first;
# host 2 is beta. They wait for each other by files in $REPL_OUT.

set -u -o pipefail
PATH=$PATH:/usr/sbin:/sbin
REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
replctl=$REPO/build/tools/replctl
stamp=$REPO/build/tests/replctl/stamp
case $REPL_HOST in 1) me=alpha ;; *) me=beta ;; esac
export REPLCTL_HOST=$me
mib=${mib:-48}
disks=/run/disks
failed=0

ok()	 { echo "ok - $me: $*"; }
not_ok() { echo "not ok - $me: $*"; failed=1; : >"$REPL_OUT/failed"; }

# is WHAT COMMAND...
is()
{
	local what=$1 log

	shift
	if log=$("$@" 2>&1); then
		ok "$what"
	else
		not_ok "$what"
		echo "$log" | tail -n 20 | sed 's/^/# /'
		return 1
	fi
}

die()
{
	not_ok "$*"
	exit 1
}

# nap: a tenth of a second, without the program that sleeps: to start one takes longer
# than that here, and the CPU from those who are measured
mkfifo /run/never && exec {never}<>/run/never || exit 1
nap() { read -r -t 0.1 -u "$never" || :; }

reached() { : >"$REPL_OUT/$1"; }

# await FILE SECONDS
await()
{
	local end=$((SECONDS + $2))

	until [ -e "$REPL_OUT/$1" ]; do
		[ ! -e "$REPL_OUT/failed" ] || finish	# the other host has said why
		[ $SECONDS -lt $end ] || die "waits for $1 in vain"
		nap
	done
}

# await_in FILE PATTERN SECONDS: a line of what a program here writes
await_in()
{
	local end=$((SECONDS + $3))

	until grep -q "$2" "$1" 2>/dev/null; do
		[ $SECONDS -lt $end ] || die "waits for $2 in $1 in vain"
		nap
	done
}

disk()
{
	mkdir -p $disks
	truncate -s ${mib}M "$disks/$1" && losetup --find --show "$disks/$1" &&
		ln -sf "$(losetup -j "$disks/$1" -O NAME -n)" "/dev/disk-$1"
}

# lasting_disks: from now on, parts of a disk that outlives a power cut (vm: --disk)
lasting_disks()
{
	modprobe -a loop virtio_blk
	parts=0
	mkdir -p $disks
	disk()
	{
		ln -sf "$(losetup --find --show --offset $((parts * mib * 1048576)) \
			--sizelimit $((mib * 1048576)) /dev/vda)" "/dev/disk-$1"
		parts=$((parts + 1))
	}
}

# configure KEY=VALUE...: the same file on both hosts
configure()
{
	local volume host

	modprobe -a loop nbd dm-repl || die "no modules"
	mkdir -p /etc/dm-repl
	for volume in data log; do
		for host in disk hidden active metadata; do
			disk $volume-$host >/dev/null || die "no loop device"
		done
	done
	if [ $me = alpha ] && [ ! -e "$REPL_OUT/key" ]; then
		is "key generate" $replctl key generate /etc/dm-repl/r0.key || exit 1
		cp /etc/dm-repl/r0.key "$REPL_OUT/key"
		reached key_made
	else
		await key_made 60
		(umask 077 && cat "$REPL_OUT/key" >/etc/dm-repl/r0.key)
	fi
	{
		echo "[resource]"
		echo "primary = alpha"
		echo "key = /etc/dm-repl/r0.key"
		printf '%s\n' "$@"
		for host in alpha beta; do
			echo "[host $host]"
			echo "address = tcp:10.77.0.$([ $host = alpha ] && echo 1 || echo 2):7790"
		done
		for volume in data log; do
			echo "[volume $volume]"
			echo "region_size = 64KiB"
			for host in alpha beta; do
				echo "[volume $volume on $host]"
				echo "disk = /dev/disk-$volume-disk"
				echo "hidden = /dev/disk-$volume-hidden"
				echo "active = /dev/disk-$volume-active"
				echo "metadata = /dev/disk-$volume-metadata"
			done
		done
	} >/etc/dm-repl/r0.conf
	is "config-check" $replctl config-check r0 || exit 1
}

# fence_hook: /run/fence cuts alpha's power, and ends when that is done
fence_hook()
{
	cat >/run/fence <<-FENCE
	#!/bin/sh
	echo kill 1 >$REPL_CONTROL
	until [ -e $REPL_OUT/killed.1 ]; do sleep 0.05; done
	FENCE
	chmod +x /run/fence
}

# write_image N: all of both volumes
write_image()
{
	local volume

	for volume in data log; do
		timeout 60 $stamp write /dev/mapper/r0-$volume "$1" || return
	done
}

# image: the number of the one that both volumes are, or why they are none
image()
{
	local data log

	data=$($stamp check /dev/mapper/r0-data)
	log=$($stamp check /dev/mapper/r0-log)
	[ "$data" = "$log" ] && echo "$data" || echo "data: $data, log: $log"
}

# serve: the daemon, in the background; $daemon is its number. It notes each two seconds, not
# each ten, how far a resync has come.
serve()
{
	export REPLCTL_TEST_SETTLE_MS=0
	$replctl serve r0 2>>$disks/daemon.log &
	daemon=$!
	disown
	for _ in $(seq 100); do
		$replctl status --json r0 2>/dev/null | grep -q '"connection":"' && return
		kill -0 $daemon 2>/dev/null || break
		nap
	done
	not_ok "the daemon starts"
	sed 's/^/# /' $disks/daemon.log
	exit 1
}

# gone: waits until the daemon is
gone()
{
	for _ in $(seq 300); do
		kill -0 "$daemon" 2>/dev/null || return 0
		nap
	done
	not_ok "the daemon ends"
	return 1
}

stop()
{
	kill "$daemon"
	gone
}

# field NAME: of status --json, the resource's
field()
{
	[[ $($replctl status --json r0) =~ \"$1\":\"?([^,\"]*) ]] && echo "${BASH_REMATCH[1]}"
}

role_is() { [ "$(field role)" = "$1" ]; }
has_checkpoint_after() { [ "$(field checkpoint)" -gt "$1" ]; }

# last_of VOLUME: the checkpoint that its metadata knows
last_of()
{
	local words

	read -ra words <<<"$(dmsetup message "r0-$1" 0 identity)"
	echo "${words[4]}"
}

# soon COMMAND...: it comes true, within 40 s, for what nobody can be woken by
soon()
{
	for _ in $(seq 400); do
		! "$@" || return 0
		nap
	done
	return 1
}

degraded() { [ "$(field degraded)" = true ]; }

# caught_up: what the peer has missed was sent, by itself, and the daemon knows
caught_up()
{
	$replctl wait --timeout 90s r0 synced || return
	for _ in $(seq 100); do
		[ "$(field degraded)" != false ] || return 0
		nap
	done
	return 1
}

# volumes_are PATTERN: the kernel's status of both
volumes_are()
{
	local volume

	for volume in data log; do
		[[ $(dmsetup status r0-$volume) =~ $1 ]] || return
	done
}

# lost: the primary has let go of both data legs
lost() { volumes_are 'primary none async (failed|detached)'; }

# sent_kib: written to the peer's disks, by the block layer's count
sent_kib()
{
	local stat sum=0 words

	for stat in /sys/block/nbd[0-9]/stat; do
		read -ra words <"$stat"
		sum=$((sum + words[6] / 2))
	done
	echo $sum
}

finish()
{
	if [ -e "$REPL_OUT/failed" ]; then
		sed 's/^/# daemon: /' $disks/daemon.log
		$replctl status r0 2>&1 | sed 's/^/# /'
	fi
	exit $failed
}
