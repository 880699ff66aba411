"""Defines what a worker process notes of the memory of its runs: which of them grow it, and where they are."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field, FiniteFloat

from ..runtime.memory_state import MemoryState

#: The most runs of a note.
MAX_RUNS = 64

#: The most calls of a run, and the most characters of a name or a path.
MAX_CALLS = 5
MAX_NAME = 200

_Count = Annotated[int, Field(ge=0, le=2**62)]
_Name = Annotated[str, Field(max_length=MAX_NAME)]
_Seconds = Annotated[FiniteFloat, Field(ge=0)]
_Rate = Annotated[FiniteFloat, Field(ge=0, le=2**62)]


class NotedCall(BaseModel):
    """A call on the stack of a run."""

    function: _Name
    file: _Name
    "The end of its path."
    line: _Count
    "0 if unknown."


class NotedRun(BaseModel):
    """The memory of a run."""

    run_id: UUID
    touched_bytes: _Count | None = None
    "What it had touched; None where that is not known."
    shares_thread: bool = False
    "Whether it shares its thread with others, as the coroutines of an event loop do."
    bytes_per_s: _Rate | None = None
    "By how much it was growing the process; None for a run that was not, or of which it cannot be told."
    seconds: _Seconds | None = None
    "The time over which it was."
    task_id: _Name = ""
    actor_name: _Name = ""
    calls: Annotated[list[NotedCall], Field(max_length=MAX_CALLS)] = []
    "Its innermost calls, the innermost first. Names and calls are those of growing runs alone."


class MemoryStory(BaseModel):
    """The memory of a process and of its runs at one moment."""

    number: _Count
    "The number of notes that were written before."
    at: FiniteFloat
    "Seconds since the epoch."
    state: MemoryState
    seconds: _Seconds | None = None
    "The time over which the process was growing until then; None where it was not seen to grow."
    bytes_per_s: _Rate | None = None
    "By how much it was growing as a whole."
    highest_rss_bytes: _Count | None = None
    "The RSS if the runs that do not grow it had as much again as at some moment of the last minute; None if unknown."
    shared_grows: bool = False
    "Whether it was growing on a thread that several runs share."
    other_grows: bool = False
    "Whether it was growing on threads that execute no diagnosed task."
    runs: Annotated[list[NotedRun], Field(max_length=MAX_RUNS)] = []
