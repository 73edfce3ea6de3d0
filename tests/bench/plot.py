# SPDX-License-Identifier: GPL-2.0-only
"""SVG plots of the results, drawn by hand: no package is needed."""

import os
from html import escape

from plan import FAST_NS, SLOW_NS
from report import LABEL, build_rows

COLOURS = ["#7f7f7f", "#a6a6a6", "#c49a6c", "#8c6d46", "#e0b070", "#b08850",
           "#6fa8a0", "#9c8fc0", "#1f5fa8", "#4f93d8", "#d05050", "#e89090"]
WIDTH = 960


class Svg:
    def __init__(self, height, title):
        self.height = height
        self.parts = []
        self.text(WIDTH / 2, 22, title, size=16, anchor="middle")
        self.text(WIDTH / 2, 40, LABEL, size=11, anchor="middle", fill="#666")

    def text(self, x, y, text, size=11, anchor="start", fill="#222"):
        self.parts.append('<text x="%.1f" y="%.1f" font-size="%d" '
                          'text-anchor="%s" fill="%s">%s</text>' %
                          (x, y, size, anchor, fill, escape(text)))

    def rect(self, x, y, width, height, fill, title=""):
        self.parts.append('<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" '
                          'fill="%s"><title>%s</title></rect>' %
                          (x, y, max(width, 0.5), height, fill, escape(title)))

    def line(self, x1, y1, x2, y2, colour="#ccc", dash=""):
        self.parts.append('<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" '
                          'stroke="%s"%s/>' %
                          (x1, y1, x2, y2, colour,
                           ' stroke-dasharray="%s"' % dash if dash else ""))

    def save(self, path):
        with open(path, "w", encoding="utf-8") as f:
            f.write('<svg xmlns="http://www.w3.org/2000/svg" width="%d" '
                    'height="%d" viewBox="0 0 %d %d" '
                    'font-family="sans-serif">\n'
                    '<rect width="100%%" height="100%%" fill="white"/>\n%s\n'
                    '</svg>\n' % (WIDTH, self.height, WIDTH, self.height,
                                  "\n".join(self.parts)))


def nice(most):
    """A round step for a scale that reaches most."""
    step = 1e-6
    while True:
        for factor in (1, 2, 5):
            if most / (step * factor) <= 8:
                return step * factor
        step *= 10


def bars(path, title, unit, groups):
    """groups: [(name, [(label, value, colour)])]; horizontal bars."""
    groups = [(n, [b for b in g if b[1] is not None]) for n, g in groups]
    groups = [(n, g) for n, g in groups if g]
    if not groups:
        return
    most = max(b[1] for _, g in groups for b in g)
    left, right, high, top = 230, 70, 16, 60
    height = top + sum(len(g) * high + 34 for _, g in groups) + 40
    svg = Svg(height, title)
    scale = (WIDTH - left - right) / most
    step = nice(most)
    n = 0
    while n * step <= most * 1.001:
        x = left + n * step * scale
        svg.line(x, top - 6, x, height - 36)
        svg.text(x, height - 22, "%g" % round(n * step, 6), anchor="middle",
                 fill="#666")
        n += 1
    svg.text(left, height - 6, unit, fill="#666")
    y = top
    for name, group in groups:
        svg.text(8, y + 12, name, size=12)
        y += 20
        for label, value, colour in group:
            svg.text(left - 6, y + 11, label, anchor="end")
            svg.rect(left, y + 1, value * scale, high - 3, colour,
                     "%s: %g" % (label, value))
            svg.text(left + value * scale + 4, y + 11,
                     "%.2f" % value if value < 100 else "%.0f" % value,
                     fill="#444")
            y += high
        y += 14
    svg.save(path)


def io_groups(res, workloads, devices, depth=32, jobs=1, ns=FAST_NS,
              relative=True):
    groups = []
    for workload in workloads:
        base = res.io("linear", workload, depth, jobs, ns) if relative else 1
        if not base:
            continue
        group = []
        for i, device in enumerate(devices):
            value = res.io(device, workload, depth, jobs, ns)
            if value is not None:
                group.append((device, value / base, COLOURS[i % len(COLOURS)]))
        groups.append((workload.replace("_", " "), group))
    return groups


def rows_plot(res, path):
    """Each row's measured value as a part of its target."""
    rows = [r for r in build_rows(res) if r.target and r.value]
    if not rows:
        return
    left, right, high, top = 520, 60, 17, 60
    height = top + len(rows) * high + 40
    most = 4.0
    svg = Svg(height, "Rows of the contract: 1 is the target, right is better")
    scale = (WIDTH - left - right) / most
    for n in range(int(most) + 1):
        x = left + n * scale
        svg.line(x, top - 6, x, height - 30,
                 colour="#222" if n == 1 else "#ccc")
        svg.text(x, height - 16, "%d" % n, anchor="middle", fill="#666")
    y = top
    for row in rows:
        score = row.target / row.value if row.at_most else row.value / row.target
        colour = "#d05050" if row.result == "SHORT" else "#3f8f5f"
        name = "%s (%s)" % (row.what, row.unit)
        depth = row.group.rsplit("depth ", 1)
        if len(depth) == 2:
            name += ", d%s" % depth[1]
        svg.text(left - 8, y + 11, name[:92], size=10, anchor="end")
        svg.rect(left, y + 2, min(score, most) * scale, high - 5, colour,
                 "%g, target %g" % (row.value, row.target))
        svg.text(left + min(score, most) * scale + 4, y + 11, "%.2f" % score,
                 fill="#444")
        y += high
    svg.save(path)


def write(res, folder):
    base = ["raw", "linear", "snapshot_p_4k", "snapshot_p_64k", "snapshot_n_4k",
            "snapshot_n_64k", "thin_64k", "era_64k", "repl_4k", "repl_64k",
            "limit_4k", "limit_64k"]
    first = ["first_write_4k_random", "first_write_64k_seq",
             "first_write_4k_in_64k"]
    again = ["rewrite_4k_random", "rewrite_64k_seq"]

    def name(what):
        return os.path.join(folder, what + ".svg")

    rows_plot(res, name("rows"))
    bars(name("first-write"), "First write, depth 32", "x dm-linear",
         io_groups(res, first, base))
    bars(name("first-write-slow"),
         "First write, 100 us per I/O and flush, depth 32", "IOPS",
         io_groups(res, first, base, ns=SLOW_NS, relative=False))
    bars(name("rewrite"), "Rewrite, depth 32", "x dm-linear",
         io_groups(res, again, base))
    bars(name("depth-1"), "Depth 1", "x dm-linear",
         io_groups(res, first + again, base, depth=1))
    bars(name("jobs-4"), "Four jobs, depth 32 each", "x dm-linear",
         io_groups(res, first + again, base, jobs=4))
    views = ["linear"] + ["view_%s_%s" % (w, s) for s in ("4k", "64k")
                          for w in ("secondary", "hidden", "active")]
    bars(name("view"), "The view, depth 32", "x dm-linear",
         io_groups(res, ["read_4k_random", "read_64k_seq", "rewrite_4k_random"],
                   views))
    groups = []
    for kind in ("checkpoint", "failover"):
        groups.append((kind, [
            ("%s dirty regions" % format(n, ","),
             (res.time(kind, dirty=n) or 0) / 1000 or None, COLOURS[8])
            for n in (10, 1000, 1000000)]))
    bars(name("switch"), "Checkpoint and failover to writable view",
         "microseconds", groups)
