#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# The daemon under systemd, by its own unit: it says when it is ready, reads its
# configuration again, is started again after SIGKILL. systemd is process 1 of a
# namespace; who asks it has to be in there too.
# vm-only: 6.1
#
# shellcheck disable=SC2317  # called by a name in a variable
set -u
cd "$(dirname "$0")/../../.." || exit
failed=0
is()
{
	local what=$1

	shift
	if "$@"; then
		echo "ok - systemd: $what"
	else
		echo "not ok - systemd: $what"
		ctl status --no-pager -l dm-repl.service | sed 's/^/# /'
		failed=1
	fi
}
ctl() { nsenter -t "$pid" -m -p systemctl "$@"; }
# until SECONDS COMMAND...
until_true()
{
	local end=$((SECONDS + $1))

	shift
	until "$@"; do
		[ $SECONDS -lt $end ] || return
		sleep 0.5
	done
}
main_pid() { ctl show -P MainPID dm-repl.service; }
active() { [ "$(ctl is-active dm-repl.service 2>/dev/null)" = active ]; }
# another PID: it runs again, and is not that one
another() { active && [ "$(main_pid)" != "$1" ]; }

mountpoint -q /sys/fs/cgroup || mount -t cgroup2 none /sys/fs/cgroup || exit
mkdir -p /run/systemd/system /run/prefix/sbin /etc/dm-repl
ln -sf "$PWD/build/tools/replctl" /run/prefix/sbin/replctl
sed 's|@PREFIX@|/run/prefix|' tools/dm-repl.service >/run/systemd/system/dm-repl.service
printf '[Unit]\nDefaultDependencies=no\n' >/run/systemd/system/test.target
build/tools/replctl key generate /etc/dm-repl/r0.key || exit
cat >/etc/dm-repl/r0.conf <<CONF
[resource]
primary = alpha
key = /etc/dm-repl/r0.key
[host alpha]
address = tcp:127.0.0.1:7790
[host beta]
address = tcp:127.0.0.1:7791
[volume data]
[volume data on alpha]
disk = /dev/a
[volume data on beta]
disk = /dev/b
hidden = /dev/h
active = /dev/c
CONF
container=other REPLCTL_HOST=beta unshare -m -p -f --mount-proc --kill-child \
	/lib/systemd/systemd --system --unit=test.target --show-status=no \
	>/run/systemd.log 2>&1 &
until_true 120 pgrep -P $! >/dev/null
pid=$(pgrep -P $!)
until_true 120 ctl daemon-reload 2>/dev/null
ctl set-environment REPLCTL_HOST=beta
is "start returns when the daemon is ready" timeout 100 nsenter -t "$pid" -m -p \
	systemctl start --job-mode=ignore-dependencies dm-repl.service
is "it is active" active
first=$(main_pid)
is "reload" ctl reload dm-repl.service
is "is no restart" test "$(main_pid)" = "$first"
# As a server of the data leg that the daemon has started is.
nsenter -t "$pid" -m -p sleep 1000 &
until_true 60 pgrep -P $! >/dev/null
server=$(pgrep -P $!)
echo "$server" >"/sys/fs/cgroup$(ctl show -P ControlGroup dm-repl.service)/cgroup.procs" || failed=1
ctl kill -s KILL --kill-who=main dm-repl.service
is "SIGKILL: it is started again" until_true 60 another "$first"
is "and its data leg was served all the time" kill -0 "$server"
is "it is stopped" ctl stop dm-repl.service
is "and its data leg is served" kill -0 "$server"
kill -KILL "$server"
kill -KILL "$pid"
exit $failed
