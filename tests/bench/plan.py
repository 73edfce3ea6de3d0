# SPDX-License-Identifier: GPL-2.0-only
"""What is measured, and in which order: the plan that the VM carries out.

A cell is one measurement: device, workload, queue depth, jobs. The short plan
has the cells that the rows of DESIGN's table need and nothing else.
"""

FAST_NS = 30000
SLOW_NS = 100000

SNAPSHOTS = ["snapshot_p_4k", "snapshot_p_64k", "snapshot_n_4k", "snapshot_n_64k"]
REPL = ["repl_4k", "repl_64k"]
# With a metadata device
REPL_P = ["repl_p_4k", "repl_p_64k"]
FIRST = ["first_write_4k_in_64k", "first_write_64k_seq", "first_write_4k_random"]

# Less of a random workload is enough at depth 1: the clock is finer than it.
DEPTH_1_MIB = 64


def cell(workload, depth=32, jobs=1):
    spec = {"workload": workload, "depth": depth, "jobs": jobs}
    if depth == 1 and workload.endswith("4k_random"):
        spec["mib"] = DEPTH_1_MIB
    return spec


def group(device, *cells):
    return {"device": device, "cells": list(cells)}


def all_cells(device):
    """Rewrites come after the first writes that make them rewrites."""
    cells = [cell("first_write_4k_in_64k"),
             cell("first_write_64k_seq"),
             cell("rewrite_64k_seq"),
             cell("first_write_4k_random"),
             cell("rewrite_4k_random")]
    if device in ("thin_64k", "era_64k"):
        return cells
    cells += [cell("rewrite_4k_random", depth=1),
              cell("first_write_4k_in_64k", depth=1),
              cell("first_write_64k_seq", depth=1),
              cell("rewrite_64k_seq", depth=1),
              cell("first_write_4k_random", depth=1)]
    if device not in ("raw", "snapshot_n_4k", "snapshot_n_64k"):
        cells += [cell("first_write_64k_seq", jobs=4),
                  cell("first_write_4k_random", jobs=4),
                  cell("rewrite_4k_random", jobs=4)]
    return cells


def first_writes(device, depth):
    """The first writes that a row compares this device by."""
    small = device.endswith("_4k")
    cells = [cell("first_write_64k_seq", depth)]
    if small:
        cells.append(cell("first_write_4k_random", depth))
    else:
        cells.append(cell("first_write_4k_in_64k", depth))
    return cells


def loop(name, region, count, depth, write, stride, copy, order):
    return {"workload": name, "region": region, "count": count, "depth": depth,
            "write": write, "stride": stride, "copy": copy, "order": order}


def loops(depths, every):
    """The limits; what is sequential may be copied in larger pieces."""
    cells = []
    for depth in depths:
        n = 65536 if depth > 1 else 16384
        cells.append(loop("first_write_4k_random", 8, n, depth, 8, 8, 8,
                          "random"))
        cells.append(loop("first_write_4k_in_64k", 128, 4096, depth, 8, 128, 128,
                          "random"))
        if every:
            cells.append(loop("first_write_4k_in_64k", 8, 4096, depth, 8, 128, 8,
                              "random"))
        for copy in (128, 256, 512, 1024, 2048) if every else (2048,):
            cells.append(loop("first_write_64k_seq", 128, 4096, depth, 128, 128,
                              copy, "seq"))
    return cells


def view_groups(short):
    groups = []
    for size in ("4k",) if short else ("4k", "64k"):
        for where in ("secondary", "hidden", "active"):
            cells = [cell("read_4k_random")]
            if not short:
                cells += [cell("read_4k_random", depth=1), cell("read_64k_seq")]
            if where == "active":
                cells.append(cell("rewrite_4k_random"))
                if not short:
                    cells.append(cell("rewrite_4k_random", depth=1))
            if where == "secondary" and not short:
                cells.append(cell("view_first_write_4k_random"))
            groups.append(group("view_%s_%s" % (where, size), *cells))
    return groups


def persistent_groups(short):
    """With a metadata device, beside the same without and persistent snapshots."""
    groups = []
    for device in REPL_P:
        cells = first_writes(device, 32)
        if not short or device == "repl_p_4k":
            cells.append(cell("rewrite_4k_random"))
        for depth in (1,) if short else (8, 1):
            cells += first_writes(device, depth)
        groups.append(group(device, *cells))
    return groups


def repl_groups(short):
    if not short:
        return (persistent_groups(short) +
                [group(d, *all_cells(d)) for d in REPL] +
                [group(d, cell("first_write_4k_in_64k"),
                       cell("first_write_4k_random"),
                       cell("first_write_64k_seq"))
                 for d in ("limit_4k", "limit_64k")] +
                view_groups(short))
    groups = []
    for device in REPL:
        cells = first_writes(device, 32)
        if device == "repl_4k":
            cells.append(cell("rewrite_4k_random"))
        groups.append(group(device, *cells, *first_writes(device, 1)))
    for device in ("limit_4k", "limit_64k"):
        groups.append(group(device, *first_writes(device, 32)))
    return groups + persistent_groups(short) + view_groups(short)


def base_groups(short):
    if not short:
        names = ["raw", "linear"] + SNAPSHOTS + ["thin_64k", "era_64k"]
        groups = [group(d, *all_cells(d)) for d in names]
        for g in groups:
            if "_p_" in g["device"]:
                g["cells"] += first_writes(g["device"], 8)
        groups[1]["cells"] += [cell("read_4k_random"), cell("read_64k_seq"),
                               cell("read_4k_random", depth=1)]
        return groups
    groups = [group("linear", cell("rewrite_4k_random"), cell("read_4k_random"))]
    for device in SNAPSHOTS:
        cells = first_writes(device, 32)
        if "_p_" in device:
            cells += first_writes(device, 1)
        groups.append(group(device, *cells))
    return groups


def slow_groups(short, repl):
    names = ["snapshot_p_4k", "snapshot_p_64k"]
    if not short:
        names = ["linear"] + SNAPSHOTS
    if repl:
        # What the same copies cost with nothing else: says why a row falls short.
        names = names + REPL + REPL_P + ["limit_4k", "limit_64k"]
    return [group(d, *first_writes(d, 32)) for d in names]


def main_plan(short, repl):
    """One boot, virtual time."""
    switch = [{"dirty": 10, "repeat": 3 if short else 5},
              {"dirty": 1000, "repeat": 3 if short else 5},
              {"dirty": 1000000, "repeat": 2 if short else 3}]
    phases = [{
        "phase": "io", "completion_ns": FAST_NS,
        "groups": base_groups(short) + (repl_groups(short) if repl else []),
        "loops": loops((32, 1), not short),
        "merge": {"repeat": 1 if short else 3,
                  "shapes": ["whole"] if short else ["whole", "scattered"],
                  "regions": ([8] if short else [8, 128]) if repl else []},
    }, {
        "phase": "io", "completion_ns": SLOW_NS, "slow": True, "flush": True,
        "groups": slow_groups(short, repl),
        "loops": loops((32,), False),
    }]
    if repl:
        phases.append({"phase": "switch", "checkpoint": switch,
                       "failover": switch, "metadata_ns": SLOW_NS})
        phases.append({"phase": "activation", "metadata_ns": FAST_NS,
                       "shapes": [[16 * 1024, 128], [1024, 8]]})
        phases.append({"phase": "memory", "gib": [1, 1024]})
        phases += primary_plan(short, repl)["phases"]
    return {"repl": repl, "phases": phases}


def primary_plan(short, repl):
    """What a primary costs: in the boot of main_plan(), or alone."""
    return {"repl": repl, "phases": [{
        "phase": "primary", "completion_ns": FAST_NS,
        "peers_ns": [10000000] if short else [100000, 1000000, 10000000],
        "hour": 100000 if short else 3600 * 300,
        # What a database does, and as fast as it goes.
        "cells": [{"depth": 8, "rate": 1000, "mib": 16}, {"depth": 8, "rate": 4000, "mib": 32},
                  {"depth": 1, "mib": 32}, {"depth": 32, "mib": 128}]}]}


def scaling_plan(short, repl):
    """A boot with two CPUs, real time."""
    cells = [("linear", "rewrite_4k_random")]
    if repl:
        cells.append(("repl_4k", "rewrite_4k_random"))
    if not short:
        cells.append(("linear", "read_4k_random"))
        if repl:
            cells.append(("view_hidden_4k", "read_4k_random"))
            cells.append(("view_active_4k", "rewrite_4k_random"))
    return {"repl": repl, "phases": [{
        "phase": "scaling", "completion_ns": FAST_NS, "repeat": 5, "seconds": 2,
        "cells": cells}]}
