# SPDX-License-Identifier: GPL-2.0-only
"""takeover.py REPLCTL DEVICE: cuts host 1's power, waits until the daemon here has failed
over, writes to the view, and says how long what took (a line of $REPL_OUT/speed.jsonl,
in seconds)."""

import json
import mmap
import os
import subprocess
import sys
import time

replctl, device = sys.argv[1:]
out = os.environ["REPL_OUT"]
when = {}

view = os.open(device, os.O_WRONLY | os.O_DIRECT | os.O_DSYNC)
page = mmap.mmap(-1, 4096)
events = subprocess.Popen([replctl, "events", "r0"], stdout=subprocess.PIPE)
events.stdout.readline()		# the status: it listens
with open(os.environ["REPL_CONTROL"], "w", encoding="ascii") as f:
    f.write("kill 1\n")
while not os.path.exists(out + "/killed.1"):
    time.sleep(0.01)
when["cut"] = time.time()
for line in events.stdout:
    event = json.loads(line)
    when[event["event"]] = event["time"]
    if event["event"] == "failover":
        break
os.pwrite(view, page, 0)
when["written"] = time.time()
events.kill()

# What the fence hook costs before it does anything: here, when nothing else runs.
subprocess.run([replctl, "wait", "--timeout", "60s", "r0", "merged"], check=True)
hook = []
for _ in range(5):
    begin = time.time()
    subprocess.run(["/bin/true"], check=True)
    hook.append(time.time() - begin)

record = {"kind": "pair_takeover",
          "detection": when["peer_lost"] - when["cut"],
          "silence": when["disconnected"] - when["cut"],
          "rest": when["written"] - when["peer_lost"],
          "failover": when["failover"] - when["peer_lost"],
          "hook": sorted(hook)[2]}
print("# " + json.dumps(record))
with open(out + "/speed.jsonl", "a", encoding="utf-8") as f:
    f.write(json.dumps(record) + "\n")
