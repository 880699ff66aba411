"""What importing and building the middleware costs a process that only sends messages, beside Dramatiq alone."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from .result import Result, spread

_BUDGET_MS, _BUDGET_MB = 30.0, 3.0
_ROUNDS = 20

_SCRIPT = """
import resource, time
import dramatiq
def rss_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
before_bytes, before_s = rss_bytes(), time.process_time()
import dramatiq_diag
dramatiq_diag.Diagnostics()
print((time.process_time() - before_s) * 1000, rss_bytes() - before_bytes)
"""


def run() -> Iterator[Result]:
    """Yields a row for nothing selectable, and one for a sender in whose environment everything is."""
    with tempfile.TemporaryDirectory() as compiled:
        for what, selected in (("nothing selectable", ""), ("all selectable, in a process that only sends", "all")):
            memory_mb: list[float] = []
            _measure(compiled, selected, [])  # Compiles.
            with_ms = [_measure(compiled, selected, memory_mb) for _ in range(_ROUNDS)]
            median_ms, median_mb = statistics.median(with_ms), statistics.median(memory_mb)
            yield Result(
                what=f"import and Diagnostics(), {what}",
                budget=f"{_BUDGET_MS:g} ms, {_BUDGET_MB:g} MB",
                measured=f"{median_ms:.1f} ms ({spread(with_ms)}), {median_mb:.2f} MB",
                met=median_ms <= _BUDGET_MS and median_mb <= _BUDGET_MB,
            )


def _measure(compiled: str, selected: str, memory_mb: list[float]) -> float:
    """Returns: Milliseconds of CPU time beyond `import dramatiq`."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled, "TASK_DIAGNOSTICS": selected}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-c", _SCRIPT]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)  # noqa: S603 - our own.
    spent_ms, grown_bytes = map(float, done.stdout.split())
    memory_mb.append(grown_bytes / 1e6)
    return spent_ms
