"""A compute tests' runner that is a script: it says what a test of the harness wants said, without a driver."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

SCRIPT = r"""#!{python}
import json, os, subprocess, sys, time, zlib

plan = json.load(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "plan.json")))
with open(plan["log"], "a") as log:
    log.write(" ".join(sys.argv[1:]) + "\n")
if sys.argv[1] == "list":
    print("test enumerate\ntest vecadd")
    print("\n".join("backend " + name for name in plan["backends"]))
    sys.exit(0)
test, backend = sys.argv[2], sys.argv[sys.argv.index("--backend") + 1]
mine = plan["backends"][backend]


def say(ev, **data):
    body = json.dumps({{"ev": ev, **data}}).encode()
    sys.stdout.write("@GT1 " + body.decode() + " %08x\n" % zlib.crc32(body))
    sys.stdout.flush()


say("hello", schema=1, build="scripted", test=test, backend=backend, pid=os.getpid(), budget=1)
if "absent" in mine:
    say("result", status="skip", kind="none", reason=mine["absent"], secs=0)
    sys.exit(77)
devices = mine.get("devices", [])
for index, device in enumerate(devices):
    say("device", index=index, vendor="v", driver="d", **device)
if not devices:
    say("result", status="fail", kind="none", reason=mine.get("reason", "the driver offers no device"), secs=0)
    sys.exit(1)
act = mine.get("act", {{}}).get(test, "")
kind = devices[0]["kind"]
if act == "crash":
    os.kill(os.getpid(), 11)
if act == "hang":
    child = subprocess.Popen(["sleep", "1000"])
    with open(plan["log"] + ".pids", "a") as pids:
        pids.write(f"{{os.getpid()}} {{child.pid}}\n")
    time.sleep(1000)
say("check", name="sum", kind=kind, ok=True, checked=1, bad=0)
say("metric", name="init_time", kind=kind, unit="s", better="lower", value=1, n=1, min=1, p50=1, p95=1, max=1,
    samples=[1], clock="wall")
say("result", status="pass", kind=kind, reason="", secs=0)
"""


def scripted_runner(folder: Path, backends: dict[str, dict[str, Any]]) -> Path:
    """Make the directory of a runner whose backends behave as told; what it was asked for is in ``folder/asked``.

    A backend is ``{"absent": reason}``, or has ``devices`` (``kind``, ``name``, ``bdf``), the ``reason`` of a failure
    without one, and ``act``: by test, ``crash`` or ``hang`` (with a child that hangs, too).
    """
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    (folder / "bin" / "plan.json").write_text(json.dumps({"backends": backends, "log": str(folder / "asked")}))
    for name in ("gtrun", "gtrun-sycl"):
        runner = folder / "bin" / name
        runner.write_text(SCRIPT.format(python=sys.executable))
        runner.chmod(0o755)
    (folder / "asked").touch()
    return folder


def asked(folder: Path) -> list[list[str]]:
    """The argument vectors that it was started with."""
    return [line.split() for line in (folder / "asked").read_text().splitlines()]


def hanging(folder: Path) -> list[int]:
    """The processes that it left hanging: itself and its child, once both are there."""
    pids = folder / "asked.pids"
    return [int(word) for word in pids.read_text().split()] if pids.exists() else []


CPU = {"kind": "cpu-runtime", "name": "a processor", "bdf": ""}
GPU = {"kind": "gpu", "name": "a card", "bdf": "0000:01:00.0"}
