"""Reads time profiles and allocation profiles as stacks, for the formats that are made of stacks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from . import memray, pyinstrument

# Frames of pyinstrument that are not calls; their time is that of the function above them, which waits or works.
_NO_CALLS = frozenset(["[await]", "[self]", "[root]", "[out-of-context]"])


class Frame(NamedTuple):
    """A call in a stack."""

    function: str
    file: str
    first_line: int
    "Where the function is defined; 0 where that is unknown, as in an allocation profile."
    line: int
    "The current line; 0 where that is unknown."


class Sample(NamedTuple):
    """A stack with its value."""

    frames: Sequence[Frame]
    "The outermost call first."
    value: float
    "In the unit of the profile."
    allocations: int
    "How many allocations it stands for; 0 in a time profile."


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The stacks of a profile, without the calls above the actor's function."""

    samples: Sequence[Sample]
    unit: str
    "`ms` or `bytes`."
    title: str = ""
    started_at_s: float = 0.0
    "Seconds since the epoch; 0 where that is unknown."
    duration_s: float = 0.0
    interval_s: float = 0.0
    "The seconds between samples."
    is_shared: bool = False
    "Whether other tasks ran on the same thread."


def read_session(path: str) -> Profile:
    """Reads a session. The time in which a coroutine awaits something is its own. Raises: As `pyinstrument.read`."""
    session = pyinstrument.read(path)
    try:
        return Profile(
            samples=list(_session_samples(session)),
            unit="ms",
            title=str(session.get("target_description", "")),
            started_at_s=_amount(session.get("start_time", 0.0)),
            duration_s=_amount(session.get("duration", 0.0)),
            interval_s=_amount(session.get("min_interval", 0.0)),
        )
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise pyinstrument.damaged(error) from error


def read_allocations(path: str, *, whole_process: bool) -> Profile:
    """Reads the allocations held at the peak: of all threads, or of the task's own. Raises: As `View.render`."""
    records, is_shared = memray.peak_records(path, whole_process=whole_process)
    samples = [
        Sample(
            [Frame(function, file, 0, line) for function, file, line in reversed(record.stack_trace())],
            record.size,
            record.n_allocations,
        )
        for record in records
    ]
    return Profile(samples=samples, unit="bytes", title="Memory held at the peak", is_shared=is_shared)


def _session_samples(session: Any) -> Iterator[Sample]:
    # The calls above the actor's function; pyinstrument's own reports leave them out as well.
    above = [_identifier(frame) for frame in session["start_call_stack"][:-1]]
    for stack, spent_s in session["frame_records"]:
        pairs = zip(map(_identifier, stack), above, strict=False)
        common = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        frames = [found for frame in stack[common:] if (found := _frame(frame)) is not None]
        yield Sample(frames, _amount(spent_s) * 1000, 0)


def _amount(value: Any) -> float:
    """Raises: ValueError, TypeError for anything but a finite number that is not negative."""
    if not 0 <= value < math.inf:
        raise ValueError("A time is negative or not finite.")
    return float(value)


def _identifier(frame: str) -> str:
    return frame.partition("\1")[0]


def _frame(description: str) -> Frame | None:
    """Returns: The call in the description of a frame, or None if it is not a call."""
    identifier, *attributes = description.split("\1")
    function, _, rest = identifier.partition("\0")
    file, _, first_line = rest.partition("\0")
    if function in _NO_CALLS or file == "<thread>":
        return None
    named = {attribute[:1]: attribute[1:] for attribute in reversed(attributes)}
    name = f"{named['c']}.{function}" if named.get("c") else function
    return Frame(name, file, int(first_line or 0), int(named.get("l") or 0))
