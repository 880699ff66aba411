"""Makes a pyinstrument session out of merged stacks, in the JSON form of `Session.to_json`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from types import CodeType
from typing import Any

from ...runtime.stacks import AWAIT, OTHER, Codes, Stack, coroutine_function, root_of
from ..base import Collector, Recording, RunContext
from .pruning import LINE_NUMBER, OTHER_FRAME, prune

#: pyinstrument's separator inside the description of a frame, and its marker of the class.
_IDENTIFIER_SEP = "\0"
_CLASS_NAME = "\x01c"
_AWAIT = "[await]"

SessionDict = dict[str, Any]


class SessionRecording(Recording):
    """The part that both engines share: the times of the run, and a session that is written after the run."""

    runs_inline = True

    def __init__(self, collector: Collector, run: RunContext) -> None:
        self.collector = collector
        self.run = run
        root = root_of(run.actor)
        self.root = f"{run.actor_name}\0\x000" if root is None else describe(root)
        self.native_id = run.native_id
        self.start_time = self.started_s = self.cpu_started_s = self.duration_s = 0.0
        self.cpu_time_s: float | None = None
        "The CPU time of the run's thread; None for an async actor, whose event loop serves other tasks as well."
        self._reads_cpu = coroutine_function(run.actor) is None and sys.platform == "linux"

    def _start_clocks(self) -> None:
        self.started_s = self.run.clock()
        if self._reads_cpu:
            self.cpu_started_s = _cpu_s(self.native_id) or 0.0

    def _stop_clocks(self) -> None:
        """Takes the times of the function alone: other collectors may start after this one, and stop before it."""
        run = self.run
        begun_s = max(self.started_s, run.started)
        self.start_time = run.started_at_s + begun_s - run.started
        self.duration_s = max((run.clock() if run.ended is None else run.ended) - begun_s, 0.0)
        if self._reads_cpu:
            cpu_s = _cpu_s(self.native_id) if run.cpu_ended_s is None else run.cpu_ended_s
            begun_cpu_s = max(self.cpu_started_s, run.cpu_started_s)
            self.cpu_time_s = None if cpu_s is None else max(cpu_s - begun_cpu_s, 0.0)

    def _session(self) -> SessionDict:
        raise NotImplementedError

    def save(self) -> None:
        self._write(self.collector.artifact_name)

    def _write(self, name: str) -> None:
        self.run.entry.write_file(name, json_of(self._session()))


def _cpu_s(native_id: int) -> float | None:
    """Returns: The CPU time of a thread in seconds; only Linux tells that of another thread. None once it has ended."""
    # The kernel's id of a thread's clock. `time.pthread_getcpuclockid` gives the same one, but must not be called once
    # the thread has ended. An error of other middleware can end the thread of a task whose run goes on.
    try:
        return time.clock_gettime(~native_id << 3 | 6)
    except OSError:
        return None


def session_of(
    stacks: Iterable[tuple[Stack, float]],
    codes: Codes,
    *,
    in_order: bool,
    start_time: float,
    duration_s: float,
    cpu_time_s: float | None,
    interval_s: float,
    sample_count: int,
    thread: str,
    root: str,
    target_description: str,
) -> SessionDict:
    """Makes a session out of stacks.

    Parameters:
      stacks: Each with its seconds; without any, the whole duration is the root's.
      in_order: Whether they are a timeline. Otherwise they are sorted: stacks that begin alike have to be neighbours.
      start_time: Seconds since the epoch.
      cpu_time_s: The CPU time of the run's thread; None if it is not known.
      thread: The description of the thread, by `describe_thread`.
      root: The description of the actor's function, by `describe`.
      target_description: The title of the report.
    """
    described: dict[tuple[int, int], str] = {}  # A text for each frame of each stack would take a hundred megabytes.
    records = prune([([thread, *_describe_stack(stack, codes, described)], spent_s) for stack, spent_s in stacks])
    records = records or [([thread, root], duration_s)]
    if not in_order:
        records.sort(key=lambda record: record[0])
    return {
        "start_time": start_time,
        "duration": duration_s,
        "min_interval": interval_s,
        "max_interval": interval_s,
        "sample_count": sample_count,
        "start_call_stack": [thread, root],
        "target_description": target_description,
        "cpu_time": cpu_time_s,
        "sys_path": [path for path in sys.path if path],
        "sys_prefixes": sorted({sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}),
        "frame_records": records,
    }


def json_of(session: SessionDict) -> Iterator[str]:
    """Yields the JSON of a session in pieces: as one text it would be in memory several times over."""
    head = {name: value for name, value in session.items() if name != "frame_records"}
    yield f'{_dumps(head)[:-1]},"frame_records":['
    for number, record in enumerate(session["frame_records"]):
        yield f"{',' if number else ''}{_dumps(record)}"
    yield "]}"


def _dumps(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def describe_thread(name: str, thread_id: int) -> str:
    """Returns: The description of a thread, as pyinstrument has it at the root of a stack."""
    return _IDENTIFIER_SEP.join((name, "<thread>", str(thread_id)))


def identify(code: CodeType) -> str:
    """Returns: The description of a frame without attributes: function, file, first line."""
    return _IDENTIFIER_SEP.join((code.co_name, code.co_filename, str(code.co_firstlineno)))


def describe(code: CodeType, line: int | None = None) -> str:
    """Returns: The description of a frame: function, file, first line, and the class and line as attributes."""
    class_name = code.co_qualname.rpartition("<locals>.")[2].rpartition(".")[0]
    attributes = f"{_CLASS_NAME}{class_name}" if class_name else ""
    return identify(code) + attributes + ("" if line is None else f"{LINE_NUMBER}{line}")


def _describe_stack(stack: Stack, codes: Codes, described: dict[tuple[int, int], str]) -> Iterable[str]:
    for key, line in zip(stack[::2], stack[1::2], strict=True):
        if key == AWAIT:
            yield _AWAIT
        elif key == OTHER:
            yield OTHER_FRAME
        elif (frame := described.get((key, line))) is not None:
            yield frame
        else:
            described[key, line] = frame = describe(codes[key], line or None)
            yield frame
