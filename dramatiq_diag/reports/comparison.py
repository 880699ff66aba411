"""Compares two runs: their memory, where their time went, their functions, their allocations."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from typing_extensions import TypedDict

from ..documents.fields import described
from ..documents.runs import RunDocument, absence, run_document
from ..errors import BlobMissingError, NotInstalledError
from ..statuses import DOWNLOADABLE_STATUSES
from ..store.attempts import Attempt
from ..store.models import Artifact
from ..text import MIB, format_size
from .accounting import PartChange, compare_accounts, parse_account
from .calltree import CallTree
from .errors import ReportError
from .tree_diff import FunctionChange, compare_trees

#: Opens a format of an artifact, which may have to be rendered first.
Opener = Callable[[Artifact, str], BinaryIO]

#: Part -> the artifact that it is made of, and the format.
PARTS = {
    "memory": ("memory_profile", "chart"),
    "accounting": ("time_accounting", "json"),
    "time": ("pyinstrument_profile", "calltree"),
    "allocations": ("memray_profile", "calltree"),
}


#: The largest format that is loaded, in bytes. Our trees have at most 5,000 calls, which is about 2 MB.
MAX_FORMAT_BYTES = 8 * MIB

#: The errors that make a part of the comparison unavailable.
UNREADABLE = (ReportError, BlobMissingError, NotInstalledError)


@described
class MemoryComparison(TypedDict):
    """Two memory curves."""

    reason: str | None
    "Why one is missing."
    a: list[tuple[float, int]]
    "Seconds since the task's start, and the RSS of the process in bytes."
    b: list[tuple[float, int]]


@described
class AccountComparison(TypedDict):
    """Where the wall times of two runs went."""

    reason: str | None
    "Why there is no comparison."
    a_wall_ms: float
    b_wall_ms: float
    parts: list[PartChange]
    "The part that grew most first."


@described
class TreeComparison(TypedDict):
    """Two call trees of time or of memory, by function."""

    reason: str | None
    "Why there is no comparison."
    unit: str
    "`ms` or `bytes`."
    a_total: float
    b_total: float
    functions: list[FunctionChange]
    "The largest increase of a function's own value first."


@described
class ComparisonDocument(TypedDict):
    """Two runs compared; differences are `b` less `a`."""

    a: RunDocument
    b: RunDocument
    memory: MemoryComparison
    accounting: AccountComparison
    time: TreeComparison
    allocations: TreeComparison
    "Of the memory that the tasks' own threads held at the peaks."


@dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """One of two runs."""

    run: Attempt
    artifacts: Mapping[str, Artifact]
    "By name."


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two runs compared."""

    document: ComparisonDocument
    trees: Mapping[str, tuple[CallTree, CallTree]]
    "Part -> both trees, where both could be read."


def compare_runs(a: ComparedRun, b: ComparedRun, open_format: Opener, max_bytes: int = MAX_FORMAT_BYTES) -> Comparison:
    """Compares two runs; a part that one of them lacks, or whose format has over *max_bytes*, has a reason instead.

    Raises:
      Any error of `open_format` except those in `UNREADABLE`.
    """
    read = {part: _read_both(a, b, part, open_format, max_bytes) for part in PARTS}
    (chart_a, chart_b), memory_reason = read["memory"]
    document: ComparisonDocument = {
        "a": run_document(a.run),
        "b": run_document(b.run),
        "memory": {"reason": memory_reason, "a": _samples(chart_a), "b": _samples(chart_b)},
        "accounting": _account_comparison(*read["accounting"]),
        "time": _tree_comparison("ms", *read["time"]),
        "allocations": _tree_comparison("bytes", *read["allocations"]),
    }
    trees = {part: read[part][0] for part in ("time", "allocations") if None not in read[part][0]}
    return Comparison(document=document, trees=trees)


def _samples(chart: Any) -> list[tuple[float, int]]:
    if chart is None:
        return []
    samples = chart["datasets"]["samples"]
    return [(sample["seconds"], round(sample["megabytes"] * MIB)) for sample in samples]


def _account_comparison(contents: tuple[Any, Any], reason: str | None) -> AccountComparison:
    try:
        a, b = (None, None) if None in contents else map(parse_account, contents)
    except ReportError as error:
        a, b, reason = None, None, str(error)
    return {
        "reason": reason,
        "a_wall_ms": a["wall_ms"] if a else 0.0,
        "b_wall_ms": b["wall_ms"] if b else 0.0,
        "parts": compare_accounts(a, b) if a and b else [],
    }


def _tree_comparison(unit: str, trees: tuple[Any, Any], reason: str | None) -> TreeComparison:
    a, b = (None, None) if None in trees else trees
    return {
        "reason": reason,
        "unit": unit,
        "a_total": a["total"] if a else 0.0,
        "b_total": b["total"] if b else 0.0,
        "functions": compare_trees(a["tree"], b["tree"]) if a and b else [],
    }


def _read_both(
    a: ComparedRun, b: ComparedRun, part: str, open_format: Opener, max_bytes: int
) -> tuple[tuple[Any, Any], str | None]:
    """Returns: The content of both formats, None for a missing one; and the reasons, None if there is none."""
    (content_a, reason_a), (content_b, reason_b) = (
        _read(run, which, part, open_format, max_bytes) for run, which in ((a, "A"), (b, "B"))
    )
    return (content_a, content_b), " ".join(filter(None, (reason_a, reason_b))) or None


def _read(run: ComparedRun, which: str, part: str, open_format: Opener, max_bytes: int) -> tuple[Any, str | None]:
    """Returns: The content of the format that a part is made of; or None and the reason."""
    name, format_name = PARTS[part]
    artifact = run.artifacts.get(name)
    if artifact is None:
        return None, absence(name, run.run, f"run {which}")
    if artifact.status not in DOWNLOADABLE_STATUSES:
        return None, f"{name} of run {which} is {artifact.status}: {artifact.reason}"
    try:
        with open_format(artifact, format_name) as file:
            size_bytes = file.seek(0, os.SEEK_END)
            if size_bytes > max_bytes:
                return None, f"{name} of run {which} is too large to be compared: {format_size(size_bytes)}."
            file.seek(0)
            return json.load(file), None
    except UNREADABLE as error:
        return None, f"{name} of run {which}: {error}"
    except (ValueError, RecursionError):
        return None, f"{name} of run {which} is damaged; see `dramatiq-diag check`."
