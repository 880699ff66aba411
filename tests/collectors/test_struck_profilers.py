"""An interrupt at any point of the start or the stop of memray, or of pyinstrument's profiler, leaves both usable."""

from __future__ import annotations

import dis
import gc
import inspect
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import memray
import pyinstrument
import pytest
from dramatiq.broker import MessageProxy
from dramatiq.middleware.time_limit import TimeLimitExceeded

from dramatiq_diag.statuses import ArtifactStatus
from support import PATIENCE_S

#: Files whose functions are struck: ours, and those that memray and pyinstrument execute when they start and stop.
STRUCK_FILES = (
    "dramatiq_diag/collectors/memray.py",
    "dramatiq_diag/collectors/time_profile/profiler.py",
    "dramatiq_diag/runtime/profile_hook.py",
    "dramatiq_diag/runtime/frames.py",
    "dramatiq_diag/runtime/gc_pause.py",
    "dramatiq_diag/runtime/interrupts.py",
    "memray/_thread_name_interceptor.py",
    "pyinstrument/profiler.py",
    "pyinstrument/stack_sampler.py",
)

#: A point in a function: its name, and the instruction.
Point = tuple[str, int]


class Striker:
    """Raises a time limit at the first point of the struck files that was not struck before.

    CPython looks for interrupts when a function is entered, and after each call (and where it jumps back, which none of
    these functions does without a call).
    """

    def __init__(self, struck: set[Point]) -> None:
        self.struck = struck
        self.point: Point | None = None
        self._last: dict[FrameType, int] = {}

    def trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        code = frame.f_code
        is_wanted = code.co_filename.endswith(STRUCK_FILES) or code is threading.setprofile.__code__
        if not is_wanted or code.co_flags & inspect.CO_GENERATOR:
            return None
        frame.f_trace_opcodes = True
        last = self._last.get(frame)
        self._last[frame] = frame.f_lasti
        point = code.co_name, frame.f_lasti
        is_one = last is None or (event == "opcode" and dis.opname[code.co_code[last]].startswith("CALL"))
        if not is_one or point in self.struck:
            return self.trace
        self.point = point
        self.struck.add(point)
        self._last.clear()
        sys.settrace(None)
        raise TimeLimitExceeded

    def during(self, step: Callable[[], None]) -> None:
        """Takes a step while it strikes; the time limit passes through, or does not."""
        before = sys.gettrace()
        sys.settrace(self.trace)
        try:
            step()
        except TimeLimitExceeded:
            pass
        finally:
            sys.settrace(before)


@pytest.fixture
def used_tracker() -> Any:
    """A Tracker that was used. To enter it costs little, and tells whether another one is active."""
    tracker = memray.Tracker(destination=memray.FileDestination("/dev/null", overwrite=True))
    with tracker:
        pass
    return tracker


def assert_usable(used_tracker: Any) -> None:
    assert vars(threading.Thread).keys().isdisjoint({"_name", "_ident"})
    assert threading.getprofile() is None
    assert sys.getprofile() is None
    assert gc.isenabled()
    with pytest.raises(RuntimeError, match="stale output handle"):
        used_tracker.__enter__()
    with pyinstrument.Profiler():
        pass


@pytest.mark.parametrize("struck_step", ["start", "stop"])
@pytest.mark.parametrize(
    ("collector", "options", "reached"),
    [
        (
            "memray",
            {},
            {"start": {"acquire_exclusive", "entered", "__init__"}, "stop": {"stop", "_exit", "release", "setprofile"}},
        ),
        (
            "pyinstrument",
            {"pyinstrument_engine": "profiler"},
            {"start": {"acquire_shared", "start", "subscribe", "_update"}, "stop": {"stop", "unsubscribe", "_silence"}},
        ),
    ],
)
def test_an_interrupt_at_any_point_leaves_profilers_usable(
    bench, settings, stored, used_tracker, collector, options, reached, struck_step
):
    given = settings(task_diagnostics=[collector], **options)

    with bench(given) as tasks:
        middleware, actor = tasks.diagnostics, tasks.actor(lambda: None, actor_name="work")

        def run_once(striker: Striker) -> str:
            message = MessageProxy(actor.message())
            start = lambda: middleware.before_process_message(tasks.broker, message)  # noqa: E731
            stop = lambda: middleware.after_process_message(tasks.broker, message)  # noqa: E731
            if struck_step == "start":
                striker.during(start)
                stop()
            else:
                start()
                striker.during(stop)
            return message.message_id

        # When an interrupt strikes at one point after the other, until there is none left
        points: set[Point] = set()
        going_on = True
        while going_on:
            striker = Striker(points)
            last = run_once(striker)
            going_on = striker.point is not None
            assert_usable(used_tracker)
            assert middleware.process.services.profile_hook.acquire_exclusive(striker, "next", 0) is None, striker.point
            middleware.process.services.profile_hook.release(striker)
        assert middleware.flush(PATIENCE_S)

    # Then it struck everywhere, and the run that none struck is measured
    assert reached[struck_step] <= {name for name, _ in points}
    (artifact,) = stored(given).artifacts(last).values()
    assert (artifact.status, artifact.reason) == (ArtifactStatus.STORED, None)
