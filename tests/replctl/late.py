# SPDX-License-Identifier: GPL-2.0-only
"""late.py PORT TO_HOST: a network that delivers late. Carries connections to PORT here to
the same of TO_HOST. While /run/hold is there, what comes on those that were made before is
kept, whatever their sender does; when it is gone they get it, and /run/late says how many
bytes there were and what became of them."""

import os
import socket
import sys
import threading

HOLD = "/run/hold"
released = threading.Condition()


def back(server, guest):
    try:
        while True:
            data = server.recv(65536)
            if not data:
                break
            guest.sendall(data)
    except OSError:
        pass


def deliver(server, kept):
    """And wait until it has been answered, or cannot be."""
    try:
        server.sendall(kept)
        server.shutdown(socket.SHUT_WR)
        while server.recv(65536):
            pass
        return "taken"
    except OSError as error:
        return error.strerror


def forth(guest, server, holdable):
    kept = bytearray()
    while True:
        try:
            data = guest.recv(65536)
        except OSError:
            data = b""
        held = holdable and (kept or os.path.exists(HOLD))
        if data and not held:
            try:
                server.sendall(data)
            except OSError:
                break
        elif data:
            kept += data
        else:
            break
    if not kept:
        server.close()
        guest.close()
        return
    with released:
        while os.path.exists(HOLD):
            released.wait(0.1)
        fate = deliver(server, kept)
    with open("/run/late", "a", encoding="ascii") as f:
        print(len(kept), fate, file=f)


waiting = socket.socket()
waiting.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
waiting.bind(("127.0.0.1", int(sys.argv[1])))
waiting.listen()
while True:
    client = waiting.accept()[0]
    there = socket.socket()
    try:
        there.connect((sys.argv[2], int(sys.argv[1])))
    except OSError:
        client.close()
        continue
    may = not os.path.exists(HOLD)
    answers = threading.Thread(target=back, args=(there, client), daemon=True)
    answers.start()
    threading.Thread(target=forth, args=(client, there, may), daemon=True).start()
