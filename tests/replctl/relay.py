# SPDX-License-Identifier: GPL-2.0-only
"""relay.py FROM TO: carries bytes both ways, until one end closes. Either is tcp:HOST:PORT
or unix:PATH; FROM, which waits for one connection after the other, or - for stdin and
stdout.
relay.py --listen PORT FD COMMAND...: COMMAND inherits a socket that listens, as FD."""

import os
import select
import socket
import sys


def address(text):
    kind, rest = text.split(":", 1)
    if kind == "unix":
        return socket.AF_UNIX, rest
    host, port = rest.rsplit(":", 1)
    return socket.AF_INET, (host, int(port))


def listener(family, where):
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(where)
    sock.listen()
    return sock


def carry(source, sink, to):
    family, where = address(to)
    with socket.socket(family) as peer:
        peer.connect(where)
        other = {source: peer.fileno(), peer.fileno(): sink}
        while True:
            for fd in select.select(list(other), [], [])[0]:
                data = os.read(fd, 65536)
                if not data:
                    return
                while data:
                    data = data[os.write(other[fd], data):]


if sys.argv[1] == "--listen":
    inherited = listener(socket.AF_INET, ("", int(sys.argv[2])))
    os.dup2(inherited.fileno(), int(sys.argv[3]))
    os.execv(sys.argv[4], sys.argv[4:])
elif sys.argv[1] == "-":
    with open("/run/relay.pid", "w", encoding="ascii") as f:
        print(os.getpid(), file=f)
    carry(0, 1, sys.argv[2])
else:
    waiting = listener(*address(sys.argv[1]))
    while True:
        with waiting.accept()[0] as guest:
            try:
                carry(guest.fileno(), guest.fileno(), sys.argv[2])
            except OSError as error:
                print(f"relay: {error}", file=sys.stderr)
