"""Looks at threads in a confined process: no rights, a read-only root, a filter of calls, and without /proc."""

from __future__ import annotations

import json
import os
import platform
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from dramatiq_diag.runtime.thread_report import ThreadReports
from dramatiq_diag.runtime.thread_state import ThreadStateReader
from support import TESTS, eventually, missing, planted
from support.planted import stuck

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the calls are Linux's")

_SCRIPT = """
import json, os, socket, subprocess, sys, threading, time
from dataclasses import asdict
from dramatiq_diag.runtime.thread_report import ThreadReports
from dramatiq_diag.runtime.timed_calls import TimedCalls

server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
with_limit = socket.create_connection(server.getsockname(), 600)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
lock = threading.Lock()
lock.acquire()
reading, writing = os.pipe()
stuck = {
    "recvfrom": lambda: client.recv(1),
    "poll": lambda: with_limit.recv(1),
    "wait4": child.wait,
    "futex": lock.acquire,
    "clock_nanosleep": lambda: time.sleep(600),
    "read": lambda: os.read(reading, 1),
}
for name, function in stuck.items():
    threading.Thread(target=function, name=name, daemon=True).start()
reports = ThreadReports()
deadline = time.monotonic() + 170
while time.monotonic() < deadline:
    taken = {report.name: asdict(report) for report in reports.take(0) if report.name in stuck}
    if all((taken[name]["wait"] or {}).get("call") == name for name in stuck):
        break
    time.sleep(0.02)
reader = next(thread.native_id for thread in threading.enumerate() if thread.name == "read")
calls = TimedCalls.opened(2)
calls.plan(time.perf_counter() + 0.01, 0.0, {reader})
line = calls.take(1)[0].lines[reader]
child.kill()
with open("/proc/self/status") as file:
    status = {name: value.strip() for name, _, value in (line.partition(":") for line in file)}
try:
    open(os.path.join(sys.argv[1], "writable"), "w").close()
    is_read_only = False
except OSError:
    is_read_only = True
print(json.dumps({
    "reports": taken, "missing": reports.missing, "address": "%s:%s" % server.getsockname(), "child": child.pid,
    "status": status, "is_read_only": is_read_only, "planned_descriptor": int(line.split()[1], 16) - reading,
}), flush=True)
os._exit(0)
"""

#: In a mount namespace of its own: lets everybody reach the interpreter, makes the root read-only, gives up all rights,
#: and executes the rest.
_CONFINED = """
set -e
mount --make-rprivate /
if [ -n "$1" ]; then
    mount --bind "$2" /mnt
    mount -t tmpfs -o mode=755 none "$1"
    mkdir -p "$2"
    mount --move /mnt "$2"
fi
shift 2
mount -o bind,remount,ro /
exec setpriv --reuid 65534 --regid 65534 --clear-groups --bounding-set -all --inh-caps -all --no-new-privs "$@"
"""


def _closed_directory(path):
    """Returns: The outermost directory of a path that others must not enter, as `/root`; empty if there is none."""
    return next((str(each) for each in reversed(path.parents) if not each.stat().st_mode & stat.S_IXOTH), "")


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="the numbers are theirs")
def test_no_rights_are_needed():
    if os.geteuid() or _closed_directory(TESTS) or not shutil.which("setpriv") or not shutil.which("unshare"):
        missing("A confined process was not tested", "Run the tests as root, with `setpriv` and `unshare`.")
    filtered = [sys.executable, str(TESTS / "support" / "like_docker.py"), sys.executable, "-c", _SCRIPT, str(TESTS)]
    prefix = Path(sys.base_prefix)
    command = ["unshare", "--mount", "sh", "-c", _CONFINED, "sh", _closed_directory(prefix), str(prefix), *filtered]

    done = subprocess.run(command, capture_output=True, text=True, cwd=TESTS.parent)

    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    found = json.loads(done.stdout)
    status = found["status"]
    assert (status["Uid"].split(), status["CapEff"], status["CapBnd"]) == (["65534"] * 4, "0" * 16, "0" * 16)
    assert (status["NoNewPrivs"], status["Seccomp"], found["is_read_only"]) == ("1", "2", True)
    waits = {name: report["wait"] for name, report in found["reports"].items()}
    assert found["missing"] is None
    assert {name: wait["call"] for name, wait in waits.items()} == {name: name for name in waits}
    assert waits["recvfrom"]["peer"] == waits["poll"]["peer"] == found["address"]
    assert waits["wait4"]["detail"].startswith(f"waits until process {found['child']} ({sys.executable} -c import time")
    assert waits["clock_nanosleep"]["detail"].startswith("sleeps for ")
    assert waits["read"]["kind"] == "pipe"
    assert waits["futex"]["kind"] == "lock"
    assert found["planned_descriptor"] == 0


def test_the_filter_refuses_to_look_at_a_process():
    code = "import ctypes; libc = ctypes.CDLL(None, use_errno=True); print(libc.ptrace(0, 0, 0, 0), ctypes.get_errno())"
    command = [sys.executable, str(TESTS / "support" / "like_docker.py"), sys.executable, "-c", code]

    assert subprocess.run(command, capture_output=True, text=True).stdout == "-1 1\n"


def test_without_proc_the_stacks_tell_what_they_can(tmp_path):
    reports = ThreadReports(ThreadStateReader(tmp_path))
    with stuck(planted.getting()) as (thread, _):
        report, *_ = eventually(
            lambda: [found for found in reports.take(thread.ident) if found.frames[0].function == "Condition.wait"],
            "the thread waits",
        )

    assert (report.state, report.wait.kind, report.wait.call) == ("blocked", "lock", None)
    assert report.wait.detail == "waits for an item of an empty queue (Queue.get)"
    path = tmp_path / "proc/self/task"
    assert reports.missing.startswith(f"The calls of threads are not known, as {path}/")
    assert reports.missing.endswith("/syscall cannot be read: No such file or directory.")


def test_without_proc_it_is_not_said_that_a_thread_runs(tmp_path):
    reader = ThreadStateReader(tmp_path)
    with stuck(planted.locking()) as (thread, _):
        state = reader.read([thread.native_id])[thread.native_id]

    assert (state.state, state.wait.kind) == ("blocked", "unknown")
