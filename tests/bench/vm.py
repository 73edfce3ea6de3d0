# SPDX-License-Identifier: GPL-2.0-only
"""Building what the measurements need, and booting the VM that makes them."""

import json
import os
import shutil
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
REPO = os.path.dirname(os.path.dirname(HERE))
BUILD = os.path.join(REPO, "build/bench")
VM_RUN = os.path.join(REPO, "tests/vm/run")
MEMORY_MIB = 3072


def die(text):
    print("bench: " + text, file=sys.stderr)
    sys.exit(1)


def need(*pairs):
    missing = [package for command, package in pairs if not shutil.which(command)]
    if missing:
        die("missing: %s\n  apt-get install --no-install-recommends %s\n"
            "or, for everything that the tests want: make setup" %
            (" ".join(missing), " ".join(missing)))


def link(source, folder):
    target = os.path.join(folder, os.path.basename(source))
    if os.path.lexists(target):
        os.unlink(target)
    os.symlink(source, target)


def build(kernel):
    """copy-limit.ko and timing, outside the source's folders."""
    folder = BUILD
    kfolder = os.path.join(folder, kernel)
    os.makedirs(kfolder, exist_ok=True)
    subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-o", folder + "/timing",
                    HERE + "/timing.c"], check=True)
    found = subprocess.run([REPO + "/tests/vm/kernel", kernel], check=True,
                           stdout=subprocess.PIPE)
    kernel_folder = found.stdout.decode().strip()
    for source in (HERE + "/copy-limit/copy-limit.c",
                   HERE + "/copy-limit/slow-flush.c", HERE + "/copy-limit/Kbuild",
                   REPO + "/dm-repl/probe-headers.sh"):
        link(source, kfolder)
    subprocess.run(["make", "-s", "--no-print-directory",
                    "-C", kernel_folder + "/build", "M=" + kfolder, "W=1",
                    "CONFIG_DEBUG_INFO_BTF_MODULES=", "modules"], check=True)
    os.environ["REPL_BENCH_TIMING"] = folder + "/timing"
    os.environ["REPL_BENCH_MODULES"] = kfolder


def boot(kernel, out, name, what, words, timeout):
    """Carry out a plan in a VM; its records."""
    raw = os.path.join(out, name + ".jsonl")
    if os.path.exists(raw):
        os.unlink(raw)
    with open(os.path.join(out, name + ".plan.json"), "w", encoding="utf-8") as f:
        json.dump(what, f, indent=1)
    command = [VM_RUN, "--kernel", kernel, "--mem", str(MEMORY_MIB),
               "--timeout", str(timeout), "--out", out, *words]
    if not what["repl"]:
        command.append("--no-module")
    command += ["--", "sh", "-c",
                'exec tests/bench/guest "$REPL_OUT/$0.plan.json" "$REPL_OUT/$0.jsonl"',
                name]
    begin = time.monotonic()
    status = subprocess.run(command, cwd=REPO, check=False).returncode
    print("%s: %d s, exit status %d" % (name, time.monotonic() - begin, status),
          flush=True)
    return status


def boot_pair(kernel, out, scenario):
    """A scenario of tests/replctl in two machines; its records are in NAME.jsonl."""
    raw = os.path.join(out, scenario + ".jsonl")
    shared = os.path.join(out, "pair")
    path = "tests/replctl/" + scenario
    if os.path.exists(raw):
        os.unlink(raw)
    shutil.rmtree(shared, ignore_errors=True)
    for folder in ("tools", "tests/replctl"):
        subprocess.run(["make", "-s", "--no-print-directory", "-C", folder], cwd=REPO,
                       check=True)
    with open(os.path.join(REPO, path), encoding="utf-8") as f:
        options = [line.split(":", 1)[1].split() for line in f
                   if line.startswith("# vm: ")][0]
    begin = time.monotonic()
    status = subprocess.run([VM_RUN, "--kernel", kernel, "--hosts", "2", *options, "--out",
                             shared, "--", path], cwd=REPO, check=False).returncode
    print("%s: %d s, exit status %d" % (scenario, time.monotonic() - begin, status),
          flush=True)
    if os.path.exists(shared + "/" + scenario + ".jsonl"):
        shutil.copyfile(shared + "/" + scenario + ".jsonl", raw)
    shutil.rmtree(shared, ignore_errors=True)
    return status


def load(out, names):
    records = []
    for name in names:
        raw = os.path.join(out, name + ".jsonl")
        if os.path.exists(raw):
            with open(raw, encoding="utf-8") as f:
                records += [json.loads(line) for line in f if line.strip()]
    return records
