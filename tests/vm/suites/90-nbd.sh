#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# The peer leg through nbd, both ends in this machine: a workload on the primary,
# checkpoints, and the connection cut in the middle. The workload never sees an
# error; the peer is latched as failed; the view is the last checkpoint.
#
# shellcheck disable=SC2317  # functions are called by name, through is()
. "$(dirname "$0")/../../lib/suite.sh"

tmp=$(mktemp -d)
sectors=32768
# What a flush may take, and until nobody's silence is an error.
timeout=5
[ "${REPL_KERNEL-}" != debug ] || timeout=20
PATH=$PATH:/usr/sbin:/sbin

is()
{
	local what=$1

	shift
	if "$@" >"$tmp/log" 2>&1; then
		ok "$what"
	else
		not_ok "$what"
		tail -n 20 "$tmp/log" | sed 's/^/# /'
		return 1
	fi
}

# same A B [MIB]: on the devices, not in the page cache, which knows nothing of
# what passes below it
same()
{
	cmp <(dd if="$1" bs=1M ${3:+count=$3} iflag=direct status=none) \
		<(dd if="$2" bs=1M ${3:+count=$3} iflag=direct status=none)
}

holds()
{
	cmp <(dd if="$1" bs=1M iflag=direct status=none) "$2"
}

# word DEVICE N of its status
word()
{
	dmsetup status "$1" | cut -d' ' -f$((3 + $2))
}

words()
{
	dmsetup status "$1"
	[ "$(word "$1" "$2")" = "$3" ]
}

# wait_word DEVICE N WORD: by dm events
wait_word()
{
	local nr

	while :; do
		nr=$(dmsetup info -c --noheadings -o events "$1")
		[ "$(word "$1" "$2")" != "$3" ] || return 0
		timeout 30 dmsetup wait "$1" "$nr" || return 1
	done
}

serve()
{
	cat >"$tmp/nbd.conf" <<CONF
[generic]
listenaddr = 127.0.0.1
port = 10809
[ingest]
exportname = /dev/mapper/nbd-ingest
flush = true
fua = true
trim = true
CONF
	nbd-server -d -C "$tmp/nbd.conf" -p "$tmp/nbd.pid" >"$tmp/server.log" 2>&1 &
	server=$!
	for _ in $(seq 100); do
		# listening?
		grep -q ':2A39 .* 0A ' /proc/net/tcp && return 0
		sleep 0.1
	done
	return 1
}

connect()
{
	nbd-client -N ingest 127.0.0.1 10809 /dev/nbd0 -timeout "$timeout" -block-size 512 &&
	[ "$(cat /sys/block/nbd0/size)" = "$sectors" ]
}

# cut: nobody answers any more, as when the peer's power goes
cut_connection()
{
	kill -KILL "$server" $(pgrep -P "$server") 2>/dev/null
	wait "$server" 2>/dev/null
	return 0
}

fio_common="[global]
direct=1
ioengine=libaio
thread
time_based=0
size=16m
verify_fatal=1"

is "modules" modprobe -a loop nbd dm-repl
is "a tmpfs" mount -t tmpfs -o size=200m nbd "$tmp"
loop_of()
{
	truncate -s 16M "$tmp/$1" && losetup --find --show "$tmp/$1"
}
local=$(loop_of local)
secondary=$(loop_of secondary)
hidden=$(loop_of hidden)
active=$(loop_of active)
is "a chain" dmsetup create nbd-view --table \
	"0 $sectors repl-secondary $secondary $hidden $active - 128"
is "its ingest" dmsetup create nbd-ingest --table "0 $sectors repl-ingest $secondary"
is "nbd-server exports it" serve
is "nbd-client has it" connect
is "a primary with the nbd device as its peer" dmsetup create nbd-primary --table \
	"0 $sectors repl-primary $local /dev/nbd0 - 128 1 sync"
for dev in nbd-view nbd-ingest nbd-primary; do
	is "$dev is a block device" test -b /dev/mapper/$dev
done

cat >"$tmp/fill.fio" <<JOB
$fio_common
[fill]
filename=/dev/mapper/nbd-primary
rw=write
bs=64k
iodepth=8
verify=pattern
verify_pattern=0x11%o
do_verify=0
# nbd-server answers when the data is in its page cache: only a flush puts them
# on the device, here as in front of each checkpoint
end_fsync=1
JOB
is "the workload writes" fio "$tmp/fill.fio"
is "local and secondary are the same" same "$local" "$secondary"
is "start" dmsetup message nbd-view 0 start

cat >"$tmp/work.fio" <<JOB
$fio_common
[work]
filename=/dev/mapper/nbd-primary
rw=randwrite
bsrange=512-32k
blockalign=512
size=4m
offset=2m
iodepth=8
verify=crc32c
JOB
is "the workload writes on, and verifies" fio "$tmp/work.fio"
is "and flushes" dd if=/dev/zero of=/dev/mapper/nbd-primary bs=4k count=2 seek=1 oflag=direct conv=fsync
is "and discards" blkdiscard -o $((8 << 20)) -l $((1 << 20)) /dev/mapper/nbd-primary
is "checkpoint" dmsetup message nbd-view 0 checkpoint
is "local and secondary are the same at the checkpoint" same "$local" "$secondary" 8
is "and the view is" same /dev/mapper/nbd-view "$secondary"
dd if="$secondary" of="$tmp/checkpoint" bs=1M iflag=direct status=none
is "the peer is attached" words nbd-primary 4 attached

# The cut, in the middle of the workload: it sees nothing of it.
cat >"$tmp/cut.fio" <<JOB
$fio_common
[cut]
filename=/dev/mapper/nbd-primary
rw=randwrite
bs=4k
iodepth=8
size=8m
io_size=24m
verify=crc32c
do_verify=1
JOB
fio "$tmp/cut.fio" >"$tmp/fio.log" 2>&1 &
fio=$!
forwarded=$(word nbd-primary 6)
for _ in $(seq 200); do
	[ "$(word nbd-primary 6)" -lt $((forwarded + 200)) ] || break
	sleep 0.02
done
is "the workload runs" kill -0 $fio
cut_connection
is "the peer is latched as failed" wait_word nbd-primary 4 failed
if wait $fio; then
	ok "the workload saw no error, and what it wrote verifies"
else
	not_ok "the workload saw no error, and what it wrote verifies"
	tail -n 20 "$tmp/fio.log"
fi
case $(word nbd-primary 8) in
peer-write | peer-write,peer-flush) ok "the class is peer-write" ;;
*) not_ok "the class is peer-write: $(dmsetup status nbd-primary)" ;;
esac
is "with errno 5" words nbd-primary 9 5
is "writes are counted as missed" test "$(word nbd-primary 7)" -gt 0
is "the primary is not running" words nbd-primary 2 none

# The other side: as of the checkpoint, then it takes over.
is "the view is the checkpoint" holds /dev/mapper/nbd-view "$tmp/checkpoint"
is "failover" dmsetup message nbd-view 0 failover
is "the view is the checkpoint after it" holds /dev/mapper/nbd-view "$tmp/checkpoint"
is "the merge is done" wait_word nbd-view 2 "done"
is "the secondary disk is the checkpoint" holds "$secondary" "$tmp/checkpoint"

is "detach" dmsetup message nbd-primary 0 detach
is "nbd-client gives up the dead connection" nbd-client -d /dev/nbd0

# The peer is back (it is only a device again): attach forwards again.
is "start again" dmsetup message nbd-view 0 start
is "nbd-server again" serve
is "nbd-client again" connect
is "attach" dmsetup message nbd-primary 0 attach /dev/nbd0
is "the workload writes everything once more" fio "$tmp/fill.fio"
is "checkpoint" dmsetup message nbd-view 0 checkpoint
is "local and view are the same" same "$local" /dev/mapper/nbd-view
is "attached" words nbd-primary 4 attached
is "no error is latched" words nbd-primary 8 -

dmsetup remove nbd-primary
nbd-client -d /dev/nbd0 >/dev/null 2>&1
cut_connection
dmsetup remove nbd-ingest
dmsetup remove nbd-view
rmmod nbd
losetup -d "$local" "$secondary" "$hidden" "$active"
umount "$tmp"
rm -rf "$tmp"
suite_end
