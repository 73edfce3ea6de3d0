# SPDX-License-Identifier: GPL-2.0-only
"""Rows of the contract from the records of the VM: text and JSON."""

from statistics import median

from plan import FAST_NS, SLOW_NS

SCHEMA = 1
LABEL = "virtual time, instruction-count model"
# What is not measured so: the words, and the method in results.json.
SCALING = ("real time, two CPUs, median of 5", "real_time_two_cpus")
PAIR = ("real time in two emulated machines, medians: only to be compared with each other",
        "real_time_two_machines")

# What the instrument repeats within; see Documentation/testing.rst.
NOISE = 0.01
# Two times are the same within this.
SAME = 1.10

# Below this for dm-linear, two CPUs were not there to be had.
QUIET = 1.5

PASS = "PASS"
SHORT = "SHORT"
MISSING = "NOT MEASURED"


class Results:
    def __init__(self, records):
        self.records = records
        self.io_index = {}
        for r in records:
            if r["kind"] == "io" and "error" not in r:
                self.io_index[(r["device"], r["workload"], r["depth"], r["jobs"],
                               r["completion_ns"])] = r

    def failures(self):
        return [r for r in self.records if "error" in r]

    def io(self, device, workload, depth=32, jobs=1, ns=FAST_NS):
        r = self.io_index.get((device, workload, depth, jobs, ns))
        return r["iops"] if r else None

    def limit(self, workload, region, depth=32, ns=FAST_NS):
        """The best of the loops: the largest copies are not always it."""
        found = [r["iops"] for r in self.records
                 if r["kind"] == "limit" and "error" not in r and
                 r["workload"] == workload and r["depth"] == depth and
                 r["completion_ns"] == ns and
                 (region is None or r["region"] == region)]
        return max(found, default=None)

    def times(self, kind, **what):
        return [r["ns"] for r in self.records
                if r["kind"] == kind and "error" not in r and
                all(r.get(k) == v for k, v in what.items())]

    def time(self, kind, **what):
        found = self.times(kind, **what)
        return median(found) if found else None

    def scaling(self, device, workload):
        def at(cpus):
            found = [r["iops"] for r in self.records
                     if r["kind"] == "scaling" and "error" not in r and
                     r["device"] == device and r["workload"] == workload and
                     r["cpus"] == cpus]
            return median(found) if found else None
        return ratio(at(2), at(1))

    def memory(self):
        """(bits a region, bytes that do not depend on the size)"""
        found = {r["regions"]: r["bytes"] for r in self.records
                 if r["kind"] == "memory" and "error" not in r}
        if len(found) < 2:
            return None, None
        small, large = min(found), max(found)
        by_region = (found[large] - found[small]) / (large - small)
        return by_region * 8, found[small] - by_region * small


def ratio(a, b):
    return a / b if a is not None and b else None


class Row:
    def __init__(self, what, target, value, at_most=False, unit="", slack=0.0,
                 note="", real=None, group=""):
        self.what = what
        self.target = target
        self.value = value
        self.at_most = at_most
        self.unit = unit
        self.slack = slack
        self.note = note
        self.real = real
        self.group = group
        # No target: printed for comparison.
        if value is None:
            self.result = MISSING
        elif target is None:
            self.result = ""
        elif at_most:
            self.result = PASS if value <= target + slack else SHORT
        else:
            self.result = PASS if value >= target - slack else SHORT


FIRST_NAMES = {
    "first_write_4k_random": "first write, 4 KiB random",
    "first_write_64k_seq": "first write, 64 KiB sequential",
    "first_write_4k_in_64k": "first write, one 4 KiB in each 64 KiB",
}


def compare(res, rows, group, mine, workload, factor, others, depth=32,
            ns=FAST_NS, slack=0.0):
    """One row against persistent snapshots; the same against transient ones."""
    region = "4 KiB regions" if mine.endswith("_4k") else "64 KiB regions"
    for chunk, wanted in others:
        for mode, name in (("p", "P"), ("n", "N")):
            other = "snapshot_%s_%s" % (mode, chunk)
            value = ratio(res.io(mine, workload, depth, ns=ns),
                          res.io(other, workload, depth, ns=ns))
            target = wanted if mode == "p" else None
            if value is None and target is None:
                continue
            note = ""
            best = ratio(res.io(mine.replace("repl", "limit"), workload, depth,
                                ns=ns), res.io(other, workload, depth, ns=ns))
            if best is not None and ns == SLOW_NS:
                note = "the bare copies reach %.3f: bound by the CPU" % best
            rows.append(Row(
                "%s, %s" % (FIRST_NAMES[workload], region), target, value,
                unit="x dm-snapshot %s %s KiB" % (name, chunk[:-1]), slack=slack,
                note=note, group=group))


def persistent_rows(res, rows):
    """With a metadata device."""
    firsts = (("4k", "first_write_4k_random", "4k", 1.05),
              ("4k", "first_write_64k_seq", "4k", 3.0),
              ("64k", "first_write_64k_seq", "64k", 1.2),
              ("64k", "first_write_4k_in_64k", "64k", 1.2))
    group = "with a metadata device, against none"
    for size, workload, _, _ in firsts:
        mine = res.io_index.get(("repl_p_" + size, workload, 32, 1, FAST_NS))
        value = ratio(res.io("repl_p_" + size, workload),
                      res.io("repl_" + size, workload))
        rows.append(Row("%s, %s KiB regions, depth 32" % (
            FIRST_NAMES[workload], size[:-1]), 0.85, value, unit="x", group=group))
        if workload != "first_write_64k_seq":
            rows.append(Row("%s, %s KiB regions, depth 32: metadata blocks" % (
                FIRST_NAMES[workload], size[:-1]), 1 / 8,
                ratio(mine and mine["metadata_blocks"], mine and mine["ios"]),
                at_most=True, unit="a first write", group=group))
    for size in ("4k", "64k"):
        value = ratio(res.io("repl_p_" + size, "rewrite_4k_random"),
                      res.io("repl_" + size, "rewrite_4k_random"))
        if value is not None or size == "4k":
            rows.append(Row("rewrite, 4 KiB random, %s KiB regions, depth 32" %
                            size[:-1], 1.0, value, slack=NOISE, unit="x",
                            group=group))
    for depth in (32, 8, 1):
        group = "with a metadata device, against persistent dm-snapshot, depth %d" % depth
        for size, workload, chunk, factor in firsts:
            value = ratio(res.io("repl_p_" + size, workload, depth),
                          res.io("snapshot_p_" + chunk, workload, depth))
            if value is None and depth == 8:
                continue
            rows.append(Row("%s, %s KiB regions" % (FIRST_NAMES[workload], size[:-1]),
                            factor if depth == 32 else 1.0 if depth == 1 else None,
                            value, slack=NOISE if depth == 1 else 0.0,
                            unit="x dm-snapshot P %s KiB" % chunk[:-1], group=group))
    group = "with a metadata device, 100 us per I/O and flush, depth 32"
    for size, workload, chunk, _ in firsts:
        rows.append(Row("%s, %s KiB regions" % (FIRST_NAMES[workload], size[:-1]), 2.0,
                        ratio(res.io("repl_p_" + size, workload, ns=SLOW_NS),
                              res.io("snapshot_p_" + chunk, workload, ns=SLOW_NS)),
                        unit="x dm-snapshot P %s KiB" % chunk[:-1], group=group))


def build_rows(res):
    rows = []
    linear = {w: res.io("linear", w) for w in ("rewrite_4k_random",
                                               "read_4k_random")}
    group = "steady state, depth 32"
    for size in ("4k", "64k"):
        value = ratio(res.io("repl_" + size, "rewrite_4k_random"),
                      linear["rewrite_4k_random"])
        if value is None and size == "64k":
            continue
        rows.append(Row("ingest write to preserved regions, 4 KiB random, "
                        "%s KiB regions" % size[:-1], 0.97, value,
                        unit="x dm-linear", group=group))
    for size in ("4k", "64k"):
        for where in ("secondary", "hidden", "active"):
            value = ratio(res.io("view_%s_%s" % (where, size), "read_4k_random"),
                          linear["read_4k_random"])
            if value is None and size == "64k":
                continue
            rows.append(Row("view read from %s, 4 KiB random, %s KiB regions" %
                            (where, size[:-1]), 0.97, value, unit="x dm-linear",
                            group=group))
        value = ratio(res.io("view_active_" + size, "rewrite_4k_random"),
                      linear["rewrite_4k_random"])
        if value is not None or size == "4k":
            rows.append(Row("view write to active regions, 4 KiB random, "
                            "%s KiB regions" % size[:-1], 0.97, value,
                            unit="x dm-linear", group=group))
    for other in ("era_64k", "snapshot_p_64k", "thin_64k"):
        value = ratio(res.io(other, "rewrite_4k_random"),
                      linear["rewrite_4k_random"])
        if value is not None:
            rows.append(Row("(for comparison: rewrite, %s)" % other, None, value,
                            unit="x dm-linear", group=group))

    for depth in (32, 1):
        group = "first writes against the limit, depth %d" % depth
        for mine, workload, region in (
                ("repl_4k", "first_write_4k_random", 8),
                ("repl_4k", "first_write_64k_seq", None),
                ("repl_64k", "first_write_64k_seq", None),
                ("repl_64k", "first_write_4k_in_64k", 128),
                ("repl_4k", "first_write_4k_in_64k", 8)):
            value = ratio(res.io(mine, workload, depth),
                          res.limit(workload, region, depth))
            if value is None and (mine, workload) == ("repl_4k",
                                                      "first_write_4k_in_64k"):
                continue
            same = ratio(res.io(mine, workload, depth),
                         res.io(mine.replace("repl", "limit"), workload, depth))
            note = ""
            if same is not None:
                note = "%.3f x the limit behind the same front end" % same
            rows.append(Row("%s, %s KiB regions" % (FIRST_NAMES[workload],
                                                    mine[5:-1]),
                            0.8, value, unit="x limit", note=note, group=group))

    group = "first writes, depth 32"
    compare(res, rows, group, "repl_4k", "first_write_4k_random", 1.05,
            [("4k", 1.05)])
    compare(res, rows, group, "repl_4k", "first_write_64k_seq", 3,
            [("4k", 3.0), ("64k", 1.2)])
    compare(res, rows, group, "repl_64k", "first_write_4k_in_64k", 1.2,
            [("64k", 1.2)])

    for r in res.records:
        if r["kind"] == "scattered" and "error" not in r:
            rows.append(Row("scattered 4 KiB writes, %d KiB regions: preserved "
                            "for each written" % (r["region"] / 2), 1,
                            r["preserved"] / r["written"], at_most=True,
                            unit="regions", group=group))

    group = "first writes, 100 us per I/O and flush, depth 32"
    for mine, workload, chunk in (
            ("repl_4k", "first_write_4k_random", "4k"),
            ("repl_4k", "first_write_64k_seq", "4k"),
            ("repl_64k", "first_write_64k_seq", "64k"),
            ("repl_64k", "first_write_4k_in_64k", "64k")):
        compare(res, rows, group, mine, workload, 2, [(chunk, 2.0)], ns=SLOW_NS)

    group = "depth 1"
    for mine, workload, chunk in (
            ("repl_4k", "first_write_4k_random", "4k"),
            ("repl_4k", "first_write_64k_seq", "4k"),
            ("repl_64k", "first_write_64k_seq", "64k"),
            ("repl_64k", "first_write_4k_in_64k", "64k")):
        compare(res, rows, group, mine, workload, 1, [(chunk, 1.0)], depth=1,
                slack=NOISE)
    for size in ("4k", "64k"):
        value = ratio(res.io("repl_" + size, "rewrite_4k_random", 1),
                      res.io("snapshot_p_" + size, "rewrite_4k_random", 1))
        if value is not None:
            rows.append(Row("rewrite, 4 KiB random, %s KiB regions" % size[:-1],
                            1.0, value, slack=NOISE, group=group,
                            unit="x dm-snapshot P %s KiB" % size[:-1]))

    persistent_rows(res, rows)

    group = "checkpoint, failover, merge"
    few = {}
    for kind, name in (("checkpoint", "checkpoint"),
                       ("failover", "failover to writable view"),
                       ("checkpoint_p", "checkpoint, metadata device"),
                       ("failover_p", "failover to writable view, metadata device")):
        few[kind] = res.time(kind, dirty=10)
        many = res.time(kind, dirty=1000000)
        note = ""
        if few[kind] and many:
            note = "%.1f us with 10, %.1f us with 1,000,000" % (
                few[kind] / 1e3, many / 1e3)
        rows.append(Row("%s: 1,000,000 dirty regions against 10" % name, SAME,
                        ratio(many, few[kind]), at_most=True, unit="x", note=note,
                        group=group))
    for kind, name in (("failover", ""), ("failover_p", ", metadata device")):
        worst = res.times(kind)
        rows.append(Row("failover to writable view%s, the slowest" % name, 10,
                        max(worst) / 1e6 if worst else None, at_most=True,
                        unit="ms", group=group))
    for gib, region in ((16 * 1024, 128), (1024, 8)):
        ns = res.time("activation", gib=gib, region=region)
        rows.append(Row("activation, %d TiB, %d KiB regions, bitmaps and log as "
                        "bad as can be" % (gib / 1024, region / 2), 2,
                        ns and ns / 1e9, at_most=True, unit="s", group=group))
    for shape, region, name in (("whole", 8, "merge, all regions, 4 KiB"),
                                ("whole", 128, "merge, all regions, 64 KiB"),
                                ("scattered", 8,
                                 "merge, one 4 KiB region in each 64 KiB")):
        plain = res.time("kcopyd", shape=shape)
        ours = res.time("merge", shape=shape, region=region)
        if ours is None and (shape, region) != ("whole", 8):
            continue
        rows.append(Row(name, 0.8, ratio(plain, ours), unit="x kcopyd",
                        group=group))

    rows += primary_rows(res)

    group = "two CPUs against one, steady state"
    for device, workload, target, name in (
            ("repl_4k", "rewrite_4k_random", 1.7, "ingest write"),
            ("view_hidden_4k", "read_4k_random", 1.7, "view read from hidden"),
            ("view_active_4k", "rewrite_4k_random", 1.7, "view write to active"),
            ("linear", "rewrite_4k_random", None, "(dm-linear, write)"),
            ("linear", "read_4k_random", None, "(dm-linear, read)")):
        value = res.scaling(device, workload)
        if value is None and device != "repl_4k":
            continue
        row = Row(name, target, value, unit="x one CPU", real=SCALING,
                  group=group)
        control = res.scaling("linear", workload)
        if target and value is not None and (control or 0) < QUIET:
            row.result = MISSING
            row.note = "dm-linear reached %s: the machine was not quiet" % (
                number(control))
        rows.append(row)

    bits, fixed = res.memory()
    rows.append(Row("memory", 9, bits, at_most=True, slack=0.1,
                    unit="bits a region, of three maps", group="memory",
                    note="" if fixed is None else
                    "and %.0f KiB a chain" % (fixed / 1024)))
    return rows + pair_rows(res)


def primary_rows(res):
    """Writes to a repl-primary in mode async, against dm-linear."""
    rows = []
    found = {}
    for r in res.records:
        if r["kind"] == "primary" and "error" not in r:
            found[(r["device"], r["peer_ns"], r["depth"], r.get("rate"))] = r

    def missed(r):
        """What the window had no room for is sent later, and costs nothing now."""
        if not r or not r["missed"]:
            return ""
        return "%.0f %% of them not forwarded, but left to a push" % (
            100 * r["missed"] / r["ios"])

    def compare_to_linear(group, device, peer_ns, depth, words, targets, rate=None):
        mine = found.get((device, peer_ns, depth, rate))
        plain = found.get(("linear", None, depth, rate))
        for key, name, target in targets:
            value = ratio(mine and mine[key], plain and plain[key])
            if value is None and device != "primary":
                continue
            rows.append(Row("%s, %s" % (name, words), target, value, unit="x dm-linear",
                            at_most=key != "iops", group=group, note=missed(mine)))

    distances = sorted({ns for _, ns, _, _ in found if ns}) or [10000000]
    for device, more in (("primary", ""), ("primary_p", ", metadata device")):
        for ns in distances:
            group = "primary, mode async, peer %g ms away%s" % (ns / 1e6, more)
            for rate in (1000, 4000):
                compare_to_linear(group, device, ns, 8, "%s writes a second" % format(rate, ","), (
                    ("latency_p50_ns", "p50", 1.1), ("latency_p99_ns", "p99", 1.1),
                    ("latency_p999_ns", "p99.9", None)), rate)
            compare_to_linear(group, device, ns, 1, "one after the other", (
                ("latency_p50_ns", "p50", None), ("latency_p99_ns", "p99", None),
                ("iops", "IOPS", None)))
            compare_to_linear(group, device, ns, 32, "as fast as it goes, depth 32", (
                ("iops", "IOPS", None),))
    for ns in distances:
        group = ("for comparison: dm-linear, while a process writes as much to a disk %g ms away"
                 % (ns / 1e6))
        for rate in (1000, 4000):
            compare_to_linear(group, "linear_beside", ns, 8, "%s writes a second" %
                              format(rate, ","), (
                                  ("latency_p50_ns", "p50", None), ("latency_p99_ns", "p99", None),
                                  ("latency_p999_ns", "p99.9", None)), rate)
    group = "primary, without a peer, its dirty map on a metadata device"
    compare_to_linear(group, "primary_p_alone", None, 32, "rewrite, 4 KiB random, depth 32",
                      (("iops", "IOPS", 0.95),))
    for r in res.records:
        if r["kind"] == "hour" and "error" not in r:
            rows.append(Row("%s writes, 1 TiB, a peer that does not answer: memory" %
                            format(r["writes"], ","), 1, r["bytes"] / (1 << 20),
                            at_most=True, unit="MiB in all", group=group))
    rows.append(Row("resync of all regions", 0.8, ratio(res.time("resync_limit"),
                                                        res.time("resync")),
                    unit="x kcopyd", group="primary, resync"))
    return rows


def pair_rows(res):
    """replctl: tests/replctl/speed."""
    rows = []

    def middle(kind, key, **what):
        found = [r[key] for r in res.records
                 if r["kind"] == kind and all(r.get(k) == v for k, v in what.items())]
        return median(found) if found else None

    def add(what, value, unit="ms", target=None, at_most=True, note=""):
        if unit == "ms" and value is not None:
            value *= 1000
        if value is not None or target is not None:
            rows.append(Row(what, target, value, at_most=at_most, unit=unit,
                            note=note, real=PAIR, group="replctl"))

    for state in (0, 1 << 20):
        for dirty in (0, 1000, 100000):
            of = {"dirty": dirty, "state": state}
            name = "%s dirty regions%s" % (
                format(dirty, ","), ", 1 MiB of state by hooks" if state else "")
            add("(checkpoint, %s)" % name, middle("pair_checkpoint", "seconds", **of))
            add("(workload held, %s)" % name, middle("pair_checkpoint", "pause", **of))
    for state, writes, words in ((0, 0, ""), (0, 50, ", 100 writes a second meanwhile"),
                                 (1 << 20, 0, ", 1 MiB of state")):
        count, seconds = (middle("pair_rate", key, state=state, writes=writes)
                          for key in ("count", "seconds"))
        if count is not None or not words:
            add("checkpoints one after the other" + words, ratio(count, seconds), "a second",
                None if words else 40, at_most=False)
    add("(power cut to connection given up, dead_after = 2s)",
        middle("pair_takeover", "silence"))
    add("(power cut to primary given up, dead_after = 2s)",
        middle("pair_takeover", "detection"))
    hook = middle("pair_takeover", "hook")
    add("from there to a write to the view, fence = /bin/true",
        middle("pair_takeover", "rest"), target=100,
        note="" if hook is None else "%.0f of it to start the hook's programs" % (hook * 1000))
    return rows + drbd_rows(middle)


def drbd_rows(middle):
    """A primary beside DRBD: tests/replctl/drbd. Medians of some turns."""
    rows = []
    for delay in (0, 5):
        for ours, theirs, words in (("repl-async", "drbd-a", "A"),
                                    ("repl-sync", "drbd-c", "C")):
            for load, key, what in (
                    ("paced", "p50", "200 writes a second of 4 KiB, p50"),
                    ("paced", "p99", "200 writes a second of 4 KiB, p99"),
                    ("full", "iops", "4 KiB random, depth 32, IOPS")):
                value, drbd, linear = (
                    middle("pair_write", key, device=device, load=load, delay_ms=delay)
                    for device in (ours, theirs, "linear"))
                if value is not None and drbd is not None:
                    rows.append(Row(
                        "mode %s, peer %d ms away: %s" % (ours[5:], delay, what),
                        None, ratio(value, drbd), at_most=load == "paced",
                        unit="x DRBD, protocol " + words, real=PAIR,
                        note="%s x dm-linear" % number(ratio(value, linear)),
                        group="a primary beside DRBD 8.4"))
    return rows


def number(value):
    if value is None:
        return "-"
    return "%.0f" % value if value >= 100 else "%.3f" % value


def table(res):
    """IOPS of everything, by workload."""
    devices, columns, cells = [], [], {}
    for (device, workload, depth, jobs, ns), r in res.io_index.items():
        column = (ns, jobs, -depth, workload)
        if device not in devices:
            devices.append(device)
        if column not in columns:
            columns.append(column)
        cells[device, column] = r["iops"]
    lines = []
    for column in sorted(columns):
        ns, jobs, depth, workload = column
        lines.append("%s, depth %d, %d job%s, %d us per I/O: IOPS (x dm-linear)" %
                     (workload, -depth, jobs, "s" if jobs > 1 else "", ns / 1000))
        base = cells.get(("linear", column))
        for device in devices:
            iops = cells.get((device, column))
            if iops is None:
                continue
            lines.append("    %-20s %9.0f%s" % (
                device, iops, " (%.2f)" % (iops / base) if base else ""))
    for r in res.records:
        if r["kind"] == "limit" and "iops" in r:
            lines.append("limit: %s, depth %d, %d us per I/O, copies of %d KiB: "
                         "%.0f" % (r["workload"], r["depth"],
                                   r["completion_ns"] / 1000, r["copy"] / 2,
                                   r["iops"]))
    return lines


def as_text(res, short):
    lines = []
    if not short:
        lines += table(res) + [""]
    lines.append("Ratios: %s" % LABEL)
    group = None
    rows = build_rows(res)
    for row in rows:
        if row.real and short and row.value is None:
            continue
        if row.group != group:
            group = row.group
            lines.append("%s%s" % (group, " (%s)" % row.real[0] if row.real else ""))
        target = ""
        if row.target is not None:
            target = "%s %s" % ("<=" if row.at_most else ">=",
                                number(row.target))
        lines.append("  %-12s %8s  %-8s %-26s %s%s" % (
            row.result, number(row.value), target, row.unit, row.what,
            "; " + row.note if row.note else ""))
    for r in res.failures():
        lines.append("FAILED: %s" % " ".join("%s=%s" % i for i in r.items()))
    pair = [r["kind"] for r in res.records if r["kind"].startswith("pair_")]
    if (len(pair) < len(res.records) and
            not any(r["kind"] == "end" for r in res.records)) or (
                pair and "pair_takeover" not in pair):
        lines.append("FAILED: the run did not come to its end")
    if any(row.real == PAIR and row.value is not None for row in rows):
        lines.append("replctl's times are those of an emulator: to start a program takes "
                     "it tenths of a second.")
    lines.append("%d rows pass, %d fall short, %d not measured" % tuple(
        sum(row.result == what for row in rows)
        for what in (PASS, SHORT, MISSING)))
    return "\n".join(lines)


def as_json(res, short):
    return {
        "schema": SCHEMA,
        "label": LABEL,
        "short": short,
        "rows": [{
            "group": row.group,
            "what": row.what,
            "unit": row.unit,
            "target": row.target,
            "direction": "at_most" if row.at_most else "at_least",
            "measured": row.value,
            "slack": row.slack,
            "result": {PASS: "pass", SHORT: "short",
                       MISSING: "not_measured"}.get(row.result),
            "method": row.real[1] if row.real else "virtual_time",
            "note": row.note or None,
        } for row in build_rows(res)],
        "measurements": res.records,
    }
