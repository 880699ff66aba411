"""How true a profile's shares are, against what each function measured of itself."""

from __future__ import annotations

import hashlib
import json
import random
import re
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .worker import profiled_sessions

#: Each kind of work runs for this long at a time on average, in seconds; twice the one, and none of the other.
_TURN_S = 0.003

_DATA = {str(number): [number, str(number) * 3, None] for number in range(600)}
_NUMBERS = [hash(str(number)) for number in range(3000)]
_TEXT = "the quick brown fox jumps over the lazy dog " * 200
_PATTERN = re.compile(r"(\w+) (\w+) (?=lazy)")
_BYTES = bytes(range(256)) * 2000
_TAKEN = threading.Lock()
_TAKEN.acquire()


def python_loop() -> int:
    total = 0
    for number in range(1000):
        total += number * number % 7
    return total


def python_calls() -> int:
    return sum(_call(number) for number in range(500))


def _call(number: int) -> int:
    return number + 1


def c_json() -> str:
    return json.dumps(_DATA)


def c_sort() -> list[int]:
    return sorted(_NUMBERS)


def c_regex() -> int:
    return len(_PATTERN.findall(_TEXT))


def c_hash() -> str:
    return hashlib.sha256(_BYTES).hexdigest()


def c_zlib() -> int:
    return len(zlib.compress(_BYTES[:100_000], 1))


def sleeping() -> None:
    time.sleep(0.002)


def file_io() -> None:
    with tempfile.TemporaryFile() as file:
        for _ in range(20):
            file.write(_BYTES[:4096])
            file.flush()


def locking() -> None:
    _TAKEN.acquire(timeout=0.002)


KINDS: dict[str, Callable[[], object]] = {
    kind.__name__: kind
    for kind in (python_loop, python_calls, c_json, c_sort, c_regex, c_hash, c_zlib, sleeping, file_io, locking)
}

MIXES: dict[str, dict[str, float]] = {
    "python": {"python_loop": 5, "python_calls": 2, "c_json": 1},
    "c with the GIL": {"python_loop": 2, "c_json": 3, "c_sort": 3, "c_regex": 2},
    "c without the GIL": {"python_calls": 3, "c_hash": 3, "c_zlib": 2},
    "waiting": {"python_loop": 3, "sleeping": 3, "file_io": 2, "locking": 1},
    "everything": dict.fromkeys(KINDS, 1.0),
}


def mixed(mix: dict[str, float], seconds: float, seed: int, truth: dict[str, float]) -> None:
    """Runs a mix of work in turns of random length, and adds up how long each function took."""
    chance = random.Random(seed)  # noqa: S311
    names, weights = list(mix), list(mix.values())
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends:
        name = chance.choices(names, weights)[0]
        work, turn_s = KINDS[name], chance.uniform(0, 2 * _TURN_S)
        turn_ends = time.perf_counter() + turn_s
        while (before := time.perf_counter()) < turn_ends:
            work()
            truth[name] = truth.get(name, 0.0) + time.perf_counter() - before


def shares(seconds: dict[str, float]) -> dict[str, float]:
    """Returns: Name -> percent of the whole."""
    whole = sum(seconds.values())
    return {name: 100 * spent / whole for name, spent in seconds.items()}


def profile_shares(session: dict[str, Any]) -> dict[str, float]:
    """Returns: Kind -> percent of the time that the profile has below its function."""
    seconds = dict.fromkeys(KINDS, 0.0)
    for stack, spent in session["frame_records"]:
        functions = [frame.split("\0")[0] for frame in stack]
        for name in KINDS:
            if name in functions:
                seconds[name] += spent
                break
    return shares(seconds)


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """How true the profile of one task was."""

    errors: dict[str, float]
    "Kind -> percentage points that its share is off."
    samples: float
    "Samples taken, as a share of those that its length deserves."


def measure(mix_name: str, threads: int, seconds: float, seed: int, names: Sequence[str]) -> list[Accuracy]:
    """Runs a mix as a task in each of several threads. Returns: The accuracy of each profile."""
    truths: list[dict[str, float]] = [{} for _ in range(threads)]
    mix = MIXES[mix_name]
    tasks = [lambda n=n: mixed(mix, seconds, 100 * seed + n, truths[n]) for n in range(threads)]  # type: ignore[misc]
    measured = []
    for truth, session in zip(truths, profiled_sessions(tasks, names=names), strict=True):
        seen, true = profile_shares(session), shares(truth)
        measured.append(
            Accuracy(
                errors={kind: seen[kind] - true.get(kind, 0.0) for kind in mix},
                samples=session["sample_count"] * session["min_interval"] / session["duration"],
            )
        )
    return measured
