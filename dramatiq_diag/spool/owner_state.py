"""Keeps the last memory state of a worker process, and of its runs, in one small file that is overwritten in place."""

from __future__ import annotations

import os
import stat
import threading
import zlib
from operator import itemgetter
from pathlib import Path
from typing import Annotated, NamedTuple, TypeVar

from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from ..runtime.memory_state import MemoryState
from .memory_story import MemoryStory

STATE_FILE = "owner.state"

#: The file has two places of this size, in bytes, which are written in turn: a torn write loses one state only.
_PLACE_BYTES = 1024

#: Behind them it has two places for stories, which versions before 0.1.0 do not read.
_STORY_BYTES = 48 * 1024
_STORIES_AT = 2 * _PLACE_BYTES


class State(BaseModel):
    """The memory state of a process while it has runs. A salvager reads it."""

    number: Annotated[int, Field(ge=0, le=2**62)]
    "The number of states that were written before."
    at: FiniteFloat
    "Seconds since the epoch."
    vitals: MemoryState


class Left(NamedTuple):
    """What a process has left of its memory."""

    state: State | None
    story: MemoryStory | None

    def states(self) -> list[tuple[float, MemoryState]]:
        """Returns: The states, each with its time in seconds since the epoch, the last one last."""
        found = [(self.state.at, self.state.vitals)] if self.state is not None else []
        if self.story is not None:
            found.append((self.story.at, self.story.state))
        return sorted(found, key=itemgetter(0))


_Kept = TypeVar("_Kept", State, MemoryStory)


class StateFile:
    """The file in the directory of an owner. One thread writes it, and any may close it.

    Raises:
      OSError: When it cannot be made.
    """

    def __init__(self, owner: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(owner / STATE_FILE, flags, 0o600)
        self._number = 0
        self._story_number = 0
        self._lock = threading.Lock()  # Held while the descriptor is used: the number of a closed one is given anew.

    def write(self, at: float, vitals: MemoryState) -> None:
        """Writes a state over the last but one. Raises: OSError."""
        place = _place_of(State(number=self._number, at=at, vitals=vitals))
        self._write_at(self._number % 2 * _PLACE_BYTES, place.ljust(_PLACE_BYTES, b"\n"))
        self._number += 1

    def write_story(self, story: MemoryStory) -> None:
        """Writes a story over the last but one, and numbers it. Raises: OSError."""
        numbered = story.model_copy(update={"number": self._story_number})
        place = _place_of(numbered)
        if len(place) > _STORY_BYTES:  # Names of many bytes a character, or many runs.
            runs = [
                run.model_copy(update={"calls": run.calls[:1]}) for run in story.runs if run.bytes_per_s is not None
            ]
            place = _place_of(numbered.model_copy(update={"runs": runs}))
        self._write_at(_STORIES_AT + self._story_number % 2 * _STORY_BYTES, place[:_STORY_BYTES])
        self._story_number += 1

    def close(self) -> None:
        """Closes the file, which stays. What is written later is dropped."""
        with self._lock:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write_at(self, offset: int, data: bytes) -> None:
        with self._lock:
            if self._descriptor >= 0:
                os.pwrite(self._descriptor, data, offset)


def read_left(owner: Path) -> Left:
    """Returns: The last state and the last story that were written as a whole."""
    try:
        descriptor = os.open(owner / STATE_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # An owner that died before its first look, or one of an older version.
        return Left(None, None)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return Left(None, None)
        states = [os.pread(descriptor, _PLACE_BYTES, number * _PLACE_BYTES) for number in range(2)]
        stories = [os.pread(descriptor, _STORY_BYTES, _STORIES_AT + number * _STORY_BYTES) for number in range(2)]
    except OSError:
        return Left(None, None)
    finally:
        os.close(descriptor)
    return Left(_latest(State, states), _latest(MemoryStory, stories))


def _place_of(kept: State | MemoryStory) -> bytes:
    data = kept.model_dump_json(exclude_defaults=isinstance(kept, MemoryStory)).encode()
    return b"%08x %b\n" % (zlib.crc32(data), data)


def _latest(kind: type[_Kept], places: list[bytes]) -> _Kept | None:
    found = [kept for place in places if (kept := _kept_in(kind, place)) is not None]
    return max(found, key=lambda kept: kept.number, default=None)


def _kept_in(kind: type[_Kept], place: bytes) -> _Kept | None:
    # What is behind the first line is left of an earlier, longer one.
    checksum, _, data = place.partition(b"\n")[0].partition(b" ")
    if checksum != b"%08x" % zlib.crc32(data):
        return None
    try:
        return kind.model_validate_json(data)
    except ValidationError:
        return None
