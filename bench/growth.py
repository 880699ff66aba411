"""Memory and time of the commands and of the web server with few blobs and with many, in SQLite."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dramatiq_diag import Settings
from dramatiq_diag.store.migration import migrate
from dramatiq_diag.store.store import Store

from .result import Result
from .serving import TYPES, answers_ms, serving
from .stored import fill

_FEW = int(os.environ.get("BENCH_GROWTH_FEW", "10_000"))
_MANY = int(os.environ.get("BENCH_GROWTH_MANY", "1_000_000"))
_ANSWERS = 50
#: The peaks of two runs of one command differ by so much.
_FLAT_MIB = 16.0
#: The work for each blob may take so much longer where a database has deeper indexes and colder caches.
_LINEAR = 1.5

#: Runs a command, and writes the status of its process. `ru_maxrss` would have the memory of this process as well.
_COMMAND = """
import atexit, pathlib, sys
from dramatiq_diag.cli import main
atexit.register(lambda: sys.stderr.write(pathlib.Path("/proc/self/status").read_text()))
main()
"""
_COMMANDS = {
    "check": ["check"],
    "cleanup of a tenth, the other blobs are looked up": ["cleanup"],
    "tasks": ["tasks", "--limit", "1000"],
}
#: Their time is that of the page alone; those of the others are for each blob.
_OF_A_PAGE = ("tasks", "web server")


def run() -> Iterator[Result]:
    """Yields a row for each command, and one for the web server."""
    measured = [_measured(count) for count in (_FEW, _MANY)]
    for what in measured[0]:
        (few_mib, few_s), (many_mib, many_s) = (figures[what] for figures in measured)
        ratio = many_s / few_s / (1 if what in _OF_A_PAGE else _MANY / _FEW)
        yield Result(
            what=f"{what}: peak memory and time, {_FEW:,} and {_MANY:,} blobs",
            budget="flat" if what in _OF_A_PAGE else "flat; time for each blob alike",
            measured=f"{few_mib:.0f} and {many_mib:.0f} MiB; {few_s:.3f} and {many_s:.3f} s",
            reference=f"{ratio:.2f} times",
            met=many_mib - few_mib <= _FLAT_MIB and ratio <= _LINEAR,
        )


def _measured(count: int) -> dict[str, tuple[float, float]]:
    """Returns: What was measured -> its peak in MiB, and its seconds."""
    with tempfile.TemporaryDirectory(prefix="dramatiq_diag_bench_growth_") as data_dir:
        settings = Settings(data_dir=Path(data_dir))
        migrate(settings)
        store = Store(settings)
        store.open()
        # Those of a tenth have expired when the cleanup comes.
        now = datetime.now(UTC)
        fill(store, count - count // 10, now + timedelta(days=1))
        fill(store, count // 10, now - timedelta(days=1), first=count)
        store.close()
        with serving(settings) as (server, connection):
            spent_ms = [ms for kind in TYPES.values() for ms in answers_ms(connection, "/tasks/", kind, _ANSWERS)]
            found = {"web server": (_peak_mib(server), sum(spent_ms) / len(spent_ms) / 1000)}
        return {what: _run(arguments, settings) for what, arguments in _COMMANDS.items()} | found


def _run(arguments: list[str], settings: Settings) -> tuple[float, float]:
    """Runs a command. Returns: Its peak in MiB, and its seconds."""
    command = [sys.executable, "-c", _COMMAND, *arguments]
    environment = os.environ | {"DRAMATIQ_DIAG_DATA_DIR": str(settings.data_dir)}
    started = time.perf_counter()
    ended = subprocess.run(command, capture_output=True, check=True, env=environment, text=True)  # noqa: S603
    return _read_peak_mib(ended.stderr), time.perf_counter() - started


def _peak_mib(process: subprocess.Popen[str]) -> float:
    return _read_peak_mib(Path(f"/proc/{process.pid}/status").read_text())


def _read_peak_mib(status: str) -> float:
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
