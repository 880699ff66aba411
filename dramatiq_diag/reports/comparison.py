"""Two runs side by side: their memory, their time, their allocations."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from typing_extensions import TypedDict

from ..documents.fields import described
from ..documents.runs import RunDocument, absence
from ..errors import BlobMissingError, NotInstalledError
from ..statuses import DOWNLOADABLE_STATUSES
from ..store.models import Artifact
from ..text import format_size
from .calltree import CallTree
from .errors import ReportError
from .tree_diff import FunctionChange, compare_trees

#: Opens a form of an artifact, which may have to be rendered first.
Opener = Callable[[Artifact, str], BinaryIO]

#: Part -> the artifact that it is made of, and the form of that.
PARTS = {
    "memory": ("memory_profile", "chart"),
    "time": ("pyinstrument_profile", "calltree"),
    "allocations": ("memray_profile", "calltree"),
}

_MEGABYTE = 1024 * 1024

#: A larger form is not loaded for a comparison, in bytes. Trees of ours keep 5,000 calls, which is about 2 MB.
MAX_FORM_BYTES = 8 * _MEGABYTE

#: Why there may be nothing to compare.
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
class TreeComparison(TypedDict):
    """Where time went, or who held memory."""

    reason: str | None
    "Why there is no comparison."
    unit: str
    "`ms` or `bytes`."
    a_total: float
    b_total: float
    functions: list[FunctionChange]
    "What got more by itself first."


@described
class ComparisonDocument(TypedDict):
    """Two runs side by side; what `b` has more is positive."""

    a: RunDocument
    b: RunDocument
    memory: MemoryComparison
    time: TreeComparison
    allocations: TreeComparison
    "Of what the tasks' own threads held at the peaks."


@dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """One of two runs."""

    run: RunDocument
    artifacts: Mapping[str, Artifact]
    "By name."


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two runs compared."""

    document: ComparisonDocument
    trees: Mapping[str, tuple[CallTree, CallTree]]
    "Part -> both trees, where both could be read."


def compare_runs(a: ComparedRun, b: ComparedRun, open_form: Opener) -> Comparison:
    """Compares two runs, as far as there is something of both; else it says why there is not.

    Raises:
      Whatever `open_form` raises, other than that a report cannot be made.
    """
    trees: dict[str, tuple[CallTree, CallTree]] = {}
    parts = {part: _compare_trees(part, a, b, open_form, trees) for part in ("time", "allocations")}
    document: ComparisonDocument = {
        "a": a.run,
        "b": b.run,
        "memory": _compare_memory(a, b, open_form),
        "time": parts["time"],
        "allocations": parts["allocations"],
    }
    return Comparison(document=document, trees=trees)


def _compare_memory(a: ComparedRun, b: ComparedRun, open_form: Opener) -> MemoryComparison:
    (chart_a, reason_a), (chart_b, reason_b) = (_read(run, which, "memory", open_form) for run, which in _named(a, b))
    return {"reason": _both(reason_a, reason_b), "a": _samples(chart_a), "b": _samples(chart_b)}


def _samples(chart: Any) -> list[tuple[float, int]]:
    if chart is None:
        return []
    samples = chart["datasets"]["samples"]
    return [(sample["seconds"], round(sample["megabytes"] * _MEGABYTE)) for sample in samples]


def _compare_trees(
    part: str, a: ComparedRun, b: ComparedRun, open_form: Opener, trees: dict[str, tuple[CallTree, CallTree]]
) -> TreeComparison:
    (tree_a, reason_a), (tree_b, reason_b) = (_read(run, which, part, open_form) for run, which in _named(a, b))
    found = {} if tree_a is None or tree_b is None else {"a": tree_a, "b": tree_b}
    if found:
        trees[part] = tree_a, tree_b
    return {
        "reason": _both(reason_a, reason_b),
        "unit": "ms" if part == "time" else "bytes",
        "a_total": found["a"]["total"] if found else 0.0,
        "b_total": found["b"]["total"] if found else 0.0,
        "functions": compare_trees(found["a"]["tree"], found["b"]["tree"]) if found else [],
    }


def _named(a: ComparedRun, b: ComparedRun) -> list[tuple[ComparedRun, str]]:
    return [(a, "A"), (b, "B")]


def _read(run: ComparedRun, which: str, part: str, open_form: Opener) -> tuple[Any, str | None]:
    """Returns: The form that a part is made of, or None and why there is none."""
    name, form = PARTS[part]
    artifact = run.artifacts.get(name)
    if artifact is None:
        return None, absence(name, run.run["status"], f"run {which}")
    if artifact.status not in DOWNLOADABLE_STATUSES:
        return None, f"{name} of run {which} is {artifact.status}: {artifact.reason}"
    try:
        with open_form(artifact, form) as file:
            size_bytes = file.seek(0, os.SEEK_END)
            if size_bytes > MAX_FORM_BYTES:
                return None, f"{name} of run {which} is too large to be compared: {format_size(size_bytes)}."
            file.seek(0)
            return json.load(file), None
    except UNREADABLE as error:
        return None, f"{name} of run {which}: {error}"


def _both(*reasons: str | None) -> str | None:
    return " ".join(filter(None, reasons)) or None
