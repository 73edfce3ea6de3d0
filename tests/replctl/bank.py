#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""A bank on a database, whose every transfer can be missed.

bank.py init DB LOG       accounts without money
bank.py work DB LOG OUT   transfers, one after the other, until killed: its number is
                          written to the device LOG, then it is committed, then its
                          number is in the file OUT
bank.py check DB LOG      prints how many there are, or why they cannot be

All of an account's history must be there: numbers without a gap, balances that add up
to nothing and agree with the transfers. And LOG, another volume of the same
resource, has the last transfer's number, or the next one's.
"""
import mmap
import os
import random
import sqlite3
import sys

ACCOUNTS = 50
BLOCK = 4096


def connect(path):
    db = sqlite3.connect(path, isolation_level=None, timeout=60)
    # (With "full" the end of the journal, which is what commits, may be lost.)
    db.execute("pragma synchronous = extra")
    return db


def log_write(fd, block, number):
    block[:] = b"%020d" % number + bytes(BLOCK - 20)
    os.pwrite(fd, block, 0)


def log_read(path):
    with open(path, "rb", buffering=0) as f:
        return int(f.read(20))


def init(path, log):
    db = connect(path)
    db.execute("create table account (id integer primary key, balance integer)")
    db.execute("create table transfer (n integer primary key, source, target, amount)")
    db.execute("begin")
    db.executemany("insert into account values (?, 0)", ((i,) for i in range(ACCOUNTS)))
    db.execute("commit")
    fd = os.open(log, os.O_WRONLY | os.O_DIRECT | os.O_SYNC)
    log_write(fd, mmap.mmap(-1, BLOCK), 0)


def work(path, log, out):
    db = connect(path)
    fd = os.open(log, os.O_WRONLY | os.O_DIRECT | os.O_SYNC)
    done = os.open(out, os.O_WRONLY | os.O_CREAT, 0o644)
    block = mmap.mmap(-1, BLOCK)
    (n,) = db.execute("select coalesce(max(n), 0) from transfer").fetchone()
    while True:
        n += 1
        source, target = random.sample(range(ACCOUNTS), 2)
        amount = random.randrange(1000)
        log_write(fd, block, n)
        db.execute("begin immediate")
        db.execute("update account set balance = balance - ? where id = ?", (amount, source))
        db.execute("update account set balance = balance + ? where id = ?", (amount, target))
        db.execute("insert into transfer values (?, ?, ?, ?)", (n, source, target, amount))
        db.execute("commit")
        os.pwrite(done, b"%020d\n" % n, 0)


def check(path, log):
    db = connect(path)
    for (word,) in db.execute("pragma integrity_check"):
        if word != "ok":
            return "the database is damaged: " + word
    count, last = db.execute("select count(*), coalesce(max(n), 0) from transfer").fetchone()
    if count != last:
        return "%d transfers, the last one is %d" % (count, last)
    wrong = db.execute(
        "select count(*) from account a where balance != "
        "(select coalesce(sum(amount), 0) from transfer where target = a.id) - "
        "(select coalesce(sum(amount), 0) from transfer where source = a.id)").fetchone()[0]
    if wrong:
        return "%d accounts are wrong" % wrong
    number = log_read(log)
    if number not in (last, last + 1):
        return "the volumes are of different times: %d in the log, %d transfers" % (number, last)
    return str(count)


if __name__ == "__main__":
    if sys.argv[1] == "check":
        print(check(*sys.argv[2:]))
    else:
        {"init": init, "work": work}[sys.argv[1]](*sys.argv[2:])
