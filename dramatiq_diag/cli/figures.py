"""Reads the figures of a run that the commands show, and draws memory curves as text."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ..documents.run_figures import SHOWN_IN
from ..errors import DiagnosticsError
from ..reports.accounting import Account, read_account
from ..reports.cache import format_of, open_download
from ..reports.calltree import CallTree
from ..reports.errors import ReportError
from ..reports.memory import Sample, read_samples
from ..statuses import ArtifactStatus
from ..store.attempts import Attempt, count_attempts
from ..store.models import Artifact
from ..store.reasons import shared_reason
from ..store.runs import traceback_of
from ..store.store import Store
from ..text import format_duration, format_size
from .choose import find_artifact, run_with_artifacts

#: Heights of a curve, from the lowest to the highest, and its columns.
BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 60

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Figures:
    """A run and its measurements; in place of a missing measurement stands the reason, a text."""

    run: Attempt
    attempts: int
    "How many runs the task has."
    traceback: str | None
    interruption: str | None
    "Why the run was cut short; None for one that was not."
    partial: Mapping[str, str]
    "Name of each artifact that is incomplete -> the reason, where that is not the run's."
    memory: list[Sample] | str
    "Seconds since the start of the task, and bytes; at least one."
    account: Account | str
    time: CallTree | str
    allocations: CallTree | str


def read_figures(store: Store, task_id: str, attempt: int | None) -> Figures:
    """Reads the figures of a run. Raises: DiagnosticsError when there is no such run."""
    with store.session() as session:
        run, artifacts = run_with_artifacts(session, task_id, attempt)
        attempts = count_attempts(session, run.task_id)
        traceback = traceback_of(session, run)
    interruption = shared_reason(run.status, (artifact.reason for artifact in artifacts.values()))
    incomplete = {
        name: artifact.reason or "" for name, artifact in artifacts.items() if artifact.status == ArtifactStatus.PARTIAL
    }

    def read(name: str, read_artifact: Callable[[Store, Artifact], T]) -> T | str:
        try:
            return read_artifact(store, find_artifact(run, artifacts, name))
        except DiagnosticsError as error:
            return str(error)

    return Figures(
        run=run,
        attempts=attempts,
        traceback=traceback,
        interruption=interruption,
        partial={name: reason for name, reason in incomplete.items() if reason != interruption},
        memory=read("memory_profile", _samples),
        account=read("time_accounting", _account),
        time=read("pyinstrument_profile", _tree),
        allocations=read("memray_profile", _tree),
    )


def _samples(store: Store, artifact: Artifact) -> list[Sample]:
    with open_download(store, artifact) as file:
        samples = read_samples(file)
    if not samples:
        raise ReportError("The stored file has no sample.")
    return samples


def _account(store: Store, artifact: Artifact) -> Account:
    with open_download(store, artifact) as file:
        return read_account(file)


def _tree(store: Store, artifact: Artifact) -> CallTree:
    with open_download(store, artifact, format_of(artifact, "calltree")) as file:
        tree: CallTree = json.load(file)
    return tree


def format_figure(value: float, unit: str) -> str:
    """Returns: A figure of a call tree for a person."""
    return SHOWN_IN[unit](value)


def format_change(value: float, unit: str) -> str:
    """Returns: A difference of two figures of a call tree, with its sign."""
    return ("+" if value > 0 else "") + format_figure(value, unit)


def memory_summary(samples: Sequence[Sample]) -> str:
    """Returns: The first, the highest and the last value of a memory curve."""
    peak_s, peak_bytes = max(samples, key=lambda sample: sample[1])
    first, last = samples[0][1], samples[-1][1]
    peak = f"{format_size(peak_bytes)} after {format_duration(peak_s * 1000)}"
    return f"first {format_size(first)}, peak {peak}, last {format_size(last)}"


def sparklines(*curves: Sequence[Sample]) -> list[str]:
    """Returns: A line of blocks for each curve, all on one scale of time and memory."""
    if not curves:
        return []
    last_s = max(second for curve in curves for second, _ in curve)
    lowest = min(size_bytes for curve in curves for _, size_bytes in curve)
    highest = max(size_bytes for curve in curves for _, size_bytes in curve)
    span = max(highest - lowest, highest * 0.02, 1)  # So that noise does not look like growth.
    lines = []
    for curve in curves:
        steps = [int((size_bytes - lowest) / span * (len(BLOCKS) - 1) + 0.5) for size_bytes in _columns(curve, last_s)]
        lines.append("".join(BLOCKS[step] for step in steps))
    return lines


def _columns(curve: Sequence[Sample], last_s: float) -> list[int]:
    """Returns: The highest value in each column that the curve reaches; a column without a sample repeats the last."""
    most: dict[int, int] = {}
    for second, size_bytes in curve:
        column = min(int(second / last_s * WIDTH), WIDTH - 1) if last_s else 0
        most[column] = max(most.get(column, 0), size_bytes)
    columns = [curve[0][1]]
    for column in range(max(most) + 1):
        columns.append(most.get(column, columns[-1]))
    return columns[1:]
