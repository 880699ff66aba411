"""Keeps the last memory state of a worker process in one small file that is overwritten in place."""

from __future__ import annotations

import os
import stat
import zlib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from ..runtime.memory_state import MemoryState

STATE_FILE = "owner.state"

#: The file has two places of this size, in bytes, which are written in turn: a torn write loses one state only.
_PLACE_BYTES = 1024


class State(BaseModel):
    """The memory state of a process while it has runs. A salvager reads it."""

    number: Annotated[int, Field(ge=0, le=2**62)]
    "The number of states that were written before."
    at: FiniteFloat
    "Seconds since the epoch."
    vitals: MemoryState


class StateFile:
    """The file in the directory of an owner. One thread writes it. Raises: OSError when it cannot be made."""

    def __init__(self, owner: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(owner / STATE_FILE, flags, 0o600)
        self._number = 0

    def write(self, at: float, vitals: MemoryState) -> None:
        """Writes a state over the last but one. Raises: OSError."""
        data = State(number=self._number, at=at, vitals=vitals).model_dump_json().encode()
        place = b"%08x %b" % (zlib.crc32(data), data)
        os.pwrite(self._descriptor, place.ljust(_PLACE_BYTES, b"\n"), self._number % 2 * _PLACE_BYTES)
        self._number += 1

    def close(self) -> None:
        """Closes the file, which stays."""
        os.close(self._descriptor)


def read_state(owner: Path) -> State | None:
    """Returns: The last state that was written as a whole; None where there is none that can be read."""
    try:
        descriptor = os.open(owner / STATE_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # An owner that died before its first look, or one of an older version.
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        places = [os.pread(descriptor, _PLACE_BYTES, number * _PLACE_BYTES) for number in range(2)]
    except OSError:
        return None
    finally:
        os.close(descriptor)
    states = [state for place in places if (state := _state_in(place)) is not None]
    return max(states, key=lambda state: state.number, default=None)


def _state_in(place: bytes) -> State | None:
    checksum, _, data = place.rstrip(b"\n").partition(b" ")
    if checksum != b"%08x" % zlib.crc32(data):
        return None
    try:
        return State.model_validate_json(data)
    except ValidationError:
        return None
