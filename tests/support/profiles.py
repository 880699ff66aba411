"""Time profiles as they are stored, and whose share of them is how large."""

from __future__ import annotations

import io
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dramatiq_diag.reports.formats import FORMATS
from dramatiq_diag.reports.profiles import Frame, Profile, Sample
from support.sampling import Step
from support.store import Stored

KEY = "pyinstrument_profile"


def session_dict(reader: Stored, task_id: str) -> dict[str, Any]:
    session: dict[str, Any] = json.loads(reader.data(task_id, KEY))
    return session


def shares(reader: Stored, task_id: str) -> dict[str, float]:
    """Function -> percent of the time in it or below it."""
    spent: Counter[str] = Counter()
    records = session_dict(reader, task_id)["frame_records"]
    for stack, seconds in records:
        for function in {frame.partition("\0")[0] for frame in stack}:
            spent[function] += seconds
    whole = sum(seconds for _, seconds in records)
    return {function: 100 * seconds / whole for function, seconds in spent.items()}


def spin(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


# Async actors.


async def read_page(step: Step) -> None:
    await step.last()


async def read_row(step: Step) -> None:
    await step.last()


def session_of_stacks(stacks: Sequence[tuple[Sequence[str], float]]) -> dict[str, Any]:
    """Returns: A session as the sampler writes it. A call is a name, as in `Client.fetch`, or `parse:7` at a line."""
    thread = "worker\0<thread>\x007"
    return {
        "start_time": 1767323045.0,
        "duration": sum(seconds for _, seconds in stacks),
        "min_interval": 0.005,
        "target_description": "crunch",
        "start_call_stack": [thread, _frame("root")],
        "frame_records": [[[thread, *map(_frame, stack)], seconds] for stack, seconds in stacks],
    }


def _frame(call: str) -> str:
    if call.startswith("["):
        return call
    name, _, line = call.partition(":") if call[-1:].isdigit() else (call, "", "")
    class_name, dot, function = name.rpartition(".")
    attributes = (f"\1c{class_name}" if dot else "") + (f"\1l{line}" if line else "")
    return f"{function}\0/srv/jobs.py\x001{attributes}"


def render(path: Path, name: str) -> bytes:
    """Returns: A format of a stored session, rendered in this process."""
    renderer = FORMATS["pyinstrument.session.json"][name].render
    assert renderer is not None
    target = io.BytesIO()
    renderer(str(path), target)
    return target.getvalue()


def profile_of(*stacks: tuple[Sequence[str], float], line: int = 1) -> Profile:
    """Returns: A time profile of stacks, each with its milliseconds."""
    samples = [Sample([Frame(name, "/srv/jobs.py", line, line) for name in names], value, 0) for names, value in stacks]
    return Profile(samples=samples, unit="ms")
