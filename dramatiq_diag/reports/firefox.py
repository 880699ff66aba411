"""Renders profiles as JSON that the Firefox Profiler (https://profiler.firefox.com) opens.

It is the "processed profile format", described in the profiler's src/types/profile.ts. The profiler upgrades each
earlier version of it, and refuses later ones, so this writes an early version of the present shape.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Hashable
from typing import Any, BinaryIO

from .profiles import Frame, Profile

#: The first version in which all threads share their tables, and sources have the columns below.
_FORMAT_VERSION = 61
_GECKO_VERSION = 31

#: The columns that are the same in every row, with their values.
_FRAME_DEFAULTS: dict[str, Any] = {
    "address": -1,
    "inlineDepth": 0,
    "category": 0,
    "subcategory": 0,
    "nativeSymbol": None,
    "innerWindowID": None,
    "column": None,
}
_FUNCTION_DEFAULTS: dict[str, Any] = {"isJS": False, "relevantForJS": False, "resource": -1, "columnNumber": None}
_SOURCE_DEFAULTS: dict[str, Any] = {"id": None, "startLine": 1, "startColumn": 1, "sourceMapURL": None}


def write_firefox(profile: Profile, target: BinaryIO) -> None:
    """Writes the JSON of a profile."""
    target.write(json.dumps(_document(profile), separators=(",", ":")).encode())


def _document(profile: Profile) -> dict[str, Any]:
    tables = _Tables()
    stacks = [tables.stack(sample.frames) for sample in profile.samples]
    weights = [sample.value for sample in profile.samples]
    in_time = profile.unit == "ms"
    # Stacks that are alike were merged, so a sample lasts as long as they did together. Allocations have no time.
    times_ms = [0.0, *itertools.accumulate(weights[:-1])] if in_time else [float(at) for at in range(len(weights))]
    samples = {
        "stack": stacks,
        "time": times_ms[: len(weights)],
        "weight": weights,
        "weightType": "tracing-ms" if in_time else "bytes",
        "length": len(weights),
    }
    return {
        "meta": {
            "interval": profile.interval_s * 1000 or 1,
            "startTime": profile.started_at_s * 1000,
            "processType": 0,
            "product": profile.title or "dramatiq_diag",
            "importedFrom": "dramatiq_diag",
            "stackwalk": 0,
            "version": _GECKO_VERSION,
            "preprocessedProfileVersion": _FORMAT_VERSION,
            "categories": [{"name": "Other", "color": "grey", "subcategories": ["Other"]}],
            "markerSchema": [],
            "symbolicated": True,
            "symbolicationNotSupported": True,
            "usesOnlyOneStackType": True,
            "sourceCodeIsNotOnSearchfox": True,
        },
        "libs": [],
        "pages": [],
        "shared": tables.document(),
        "threads": [_thread(samples)],
    }


def _thread(samples: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "Task",
        "processType": "default",
        "isMainThread": True,
        "pid": "0",
        "tid": 0,
        "processStartupTime": 0,
        "processShutdownTime": None,
        "registerTime": 0,
        "unregisterTime": None,
        "pausedRanges": [],
        "samples": samples,
        "markers": _table(["data", "name", "startTime", "endTime", "phase", "category"], [], {}),
    }


class _Rows(dict[Hashable, int]):
    """Row of a table -> its number; equal rows are stored once."""

    def number(self, row: Hashable) -> int:
        return self.setdefault(row, len(self))


class _Tables:
    """The tables that refer to each other: stacks to frames, frames to functions, functions to sources and texts."""

    def __init__(self) -> None:
        self._strings, self._sources, self._functions, self._frames, self._stacks = (_Rows() for _ in range(5))

    def stack(self, frames: Any) -> int | None:
        """Returns: The number of a stack; None for an empty one."""
        found: int | None = None
        for frame in frames:
            found = self._stacks.number((self._frame(frame), found))
        return found

    def _frame(self, frame: Frame) -> int:
        source = self._sources.number((self._strings.number(frame.file),)) if frame.file else None
        function = self._functions.number((self._strings.number(frame.function), source, frame.first_line or None))
        return self._frames.number((function, frame.line or None))

    def document(self) -> dict[str, Any]:
        """Returns: All tables, by column."""
        return {
            "stringArray": list(self._strings),
            "sources": _table(["filename"], self._sources, _SOURCE_DEFAULTS),
            "funcTable": _table(["name", "source", "lineNumber"], self._functions, _FUNCTION_DEFAULTS),
            "frameTable": _table(["func", "line"], self._frames, _FRAME_DEFAULTS),
            "stackTable": _table(["frame", "prefix"], self._stacks, {}),
            "resourceTable": _table(["lib", "name", "host", "type"], [], {}),
            "nativeSymbols": _table(["libIndex", "address", "name", "functionSize"], [], {}),
        }


def _table(columns: list[str], rows: Any, defaults: dict[str, Any]) -> dict[str, Any]:
    """Returns: A table by column."""
    table: dict[str, Any] = {name: [row[at] for row in rows] for at, name in enumerate(columns)}
    table |= {name: [value] * len(rows) for name, value in defaults.items()}
    return {**table, "length": len(rows)}
