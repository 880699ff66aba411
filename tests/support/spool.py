"""What is left in a spool: entries of dead workers, and what is not ours."""

from __future__ import annotations

import atexit
import json
import os
import socket
import subprocess
import sys
import uuid
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from dramatiq_diag.spool.entry import ENTRY_SUFFIX, Entry
from support import ROOT

_LOOK = """
import json, sys
from dramatiq_diag import Settings
from dramatiq_diag.spool.directory import Spool
for line in sys.stdin:
    spool = Spool(Settings(data_dir=json.loads(line), spool_dir=None))
    print(json.dumps(sorted(owner.name for owner in spool.dead_owners())), flush=True)
"""


#: Linux's `prctl(PR_CAPBSET_DROP, ...)` for the capabilities by which root reads and writes everything.
_EXECUTE = """
import ctypes, os, sys
for capability in (1, 2):
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


@cache
def _looking() -> subprocess.Popen[str]:
    """Starts the process that looks, once for all tests: its imports take longer than its looks."""
    process = subprocess.Popen(
        [sys.executable, "-c", _LOOK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    atexit.register(process.communicate)  # It ends with its input.
    return process


def dead_owners_seen_by_another_process(data_dir: Path) -> list[str]:
    process = _looking()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{json.dumps(str(data_dir))}\n")
    process.stdin.flush()
    return list(json.loads(process.stdout.readline()))


def without_powers(*command: str) -> list[str]:
    """Returns: A command that executes another one, which permissions hold back even where root executes it."""
    return [sys.executable, "-c", _EXECUTE, *command]


def start_record(run_id: uuid.UUID, /, **changes: Any) -> dict[str, Any]:
    return {
        "run": {
            "run_id": str(run_id),
            "task_id": "task-1",
            "actor_name": "work",
            "queue_name": "default",
            "started_at": datetime.now(UTC).isoformat(),
            "hostname": "host",
            "pid": 4711,
            "artifacts": [
                {"name": "memory_profile", "filename": "memory.datum", "media_type": "text/plain", "stored_as": None}
            ],
        }
        | changes
    }


END = {"end": {"status": "succeeded", "finished_at": "2026-01-01T00:00:00+00:00", "duration_ms": 12.5}}
TEXT = {"to": "memory_profile", "text": "0.000\t1.000\n", "peak_rss_bytes": 1048576}


def dead_entry(spool_root: Path, lines: list[Any], run_id: uuid.UUID | None = None, owner: str | None = None) -> Entry:
    """Leaves an entry as a dead worker would, or as somebody hostile would; text goes in as it is."""
    run_id = run_id or uuid.uuid4()
    directory = spool_root / (owner or str(uuid.uuid4()))
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = "".join(line if isinstance(line, str) else f"\n{json.dumps(line)}\n" for line in lines)
    (directory / f"{run_id}.{ENTRY_SUFFIX}").write_text(text, "utf-8", "surrogatepass")
    return Entry(directory, run_id)


def make_foreign(kind: str, path: Path, secret: Path) -> None:
    if kind == "symlink":
        path.symlink_to(secret)
    elif kind == "dangling symlink":
        path.symlink_to(secret.with_name("gone"))
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            cwd = Path.cwd()
            os.chdir(path.parent)  # The name of a socket has a limit.
            try:
                listener.bind(path.name)
            finally:
                os.chdir(cwd)


KINDS = ["symlink", "dangling symlink", "fifo", "directory", "socket"]
