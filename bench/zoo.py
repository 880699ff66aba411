"""Actors for the benchmark of leaks: each way to keep memory, and innocents that look like it."""

from __future__ import annotations

import importlib
import json
import random
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

#: What a planted actor keeps of each run, about.
KEPT_BYTES = 1024

_MODULES = ("xml.dom.minidom", "decimal", "fractions", "statistics", "difflib", "pydoc", "imaplib", "turtle", "tarfile")

_kept: list[Any] = []
_cache: dict[int, Any] = {}
_bounded: OrderedDict[int, bytes] = OrderedDict()


def keep_in_list(_: int) -> None:
    _kept.append(bytes(KEPT_BYTES - 33))


def keep_in_dict(number: int) -> None:
    _cache[number] = {f"key {part} of {number}": float(number + part) for part in range(8)}


def keep_in_closure(number: int) -> None:
    rows = [f"row {part} of {number}" for part in range(12)]
    _kept.append(lambda: rows)


class _Revenant:
    """An object in a cycle whose finalizer keeps it."""

    def __init__(self) -> None:
        self.itself = self
        self.rows = [str(time.perf_counter()) for _ in range(11)]

    def __del__(self) -> None:
        _kept.append(self)


def keep_by_finalizer(_: int) -> None:
    _Revenant()


def keep_c_buffer(_: int) -> None:
    import ctypes

    allocate = ctypes.CDLL(None).malloc
    allocate.restype = ctypes.c_void_p
    allocate(ctypes.c_size_t(KEPT_BYTES - 16))


def keep_exception(number: int) -> None:
    rows = [number + part + 0.5 for part in range(16)]
    try:
        raise ValueError(rows)
    except ValueError as error:
        _kept.append(error)


def use_bounded_cache(number: int) -> None:
    _bounded[number % 5003] = bytes(4096)
    if len(_bounded) > 20:
        _bounded.popitem(last=False)


def churn_large_buffers(number: int) -> None:
    for _ in range(3):
        buffer = bytearray((1 + number % 7) * 300_000)
        buffer[::4096] = b"x" * len(buffer[::4096])
        time.sleep(0.001)


def import_at_first(number: int) -> None:
    importlib.import_module(_MODULES[number % len(_MODULES)])


def work_with_json(number: int) -> None:
    text = json.dumps([{"name": f"row {row}", "values": [row] * 5} for row in range(number % 200)])
    json.loads(text)


def sort_numbers(number: int) -> None:
    sorted(random.Random(number).random() for _ in range(1000 + number % 1000))  # noqa: S311


def make_cycles(number: int) -> None:
    for _ in range(20):
        cycle: list[Any] = [number]
        cycle.append(cycle)


def fail_and_forget(number: int) -> None:
    try:
        raise KeyError(number)
    except KeyError:
        pass


def join_texts(number: int) -> None:
    ",".join(str(part) for part in range(500 + number % 500))


LEAKS: dict[str, Callable[[int], None]] = {
    "list": keep_in_list,
    "dict cache": keep_in_dict,
    "closure": keep_in_closure,
    "cycle with a finalizer": keep_by_finalizer,
    "C buffer": keep_c_buffer,
    "exception frame": keep_exception,
}

INNOCENTS: tuple[Callable[[int], None], ...] = (
    use_bounded_cache,
    churn_large_buffers,
    churn_large_buffers,
    import_at_first,
    work_with_json,
    work_with_json,
    sort_numbers,
    sort_numbers,
    make_cycles,
    make_cycles,
    fail_and_forget,
    join_texts,
    join_texts,
)


def place_of(function: Callable[[int], None]) -> tuple[str, range]:
    """Returns: The file of a function, and its lines."""
    code = function.__code__
    lines = [line for _, _, line in code.co_lines() if line]
    return sys.modules[function.__module__].__file__ or "", range(min(lines), max(lines) + 1)
