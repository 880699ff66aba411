"""The figures of a run that the commands show: its memory curve, and where its time and its allocations went."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import click

from ..documents.runs import absence
from ..errors import DiagnosticsError
from ..reports.cache import format_of, open_download
from ..reports.calltree import CallTree
from ..reports.errors import ReportError
from ..reports.memory import Sample, read_samples
from ..statuses import DOWNLOADABLE_STATUSES, ArtifactStatus
from ..store.attempts import Attempt, count_attempts
from ..store.models import Artifact
from ..store.reasons import shared_reason
from ..store.runs import artifacts_of, traceback_of
from ..store.store import Store
from ..text import format_duration, format_size, printable
from .choose import chosen_run

_BLOCKS = "▁▂▃▄▅▆▇█"
#: Columns of a curve.
_WIDTH = 60

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Why there is no such figure."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Figures:
    """A run, and what was measured of it."""

    run: Attempt
    attempts: int
    "How many runs the task has."
    traceback: str | None
    "Of the exception, where there was one."
    interruption: str | None
    "Why the run was cut short; None for one that was not."
    partial: Mapping[str, str]
    "Name of each artifact that is incomplete -> the reason, where that is not the run's."
    memory: list[Sample] | Missing
    "Seconds since the task began, and bytes; at least one."
    time: CallTree | Missing
    allocations: CallTree | Missing


def figures_of(store: Store, task_id: str, attempt: int | None) -> Figures:
    """Reads the figures of a run. Raises: DiagnosticsError when there is no such run."""
    with store.session() as session:
        chosen = chosen_run(session, task_id, attempt)
        attempts = count_attempts(session, chosen.task_id)
        traceback = traceback_of(session, chosen.run_id)
        artifacts = artifacts_of(session, [chosen.run_id])[chosen.run_id]
    named = {artifact.name: artifact for artifact in artifacts}
    interruption = shared_reason(chosen.status, (artifact.reason for artifact in artifacts))
    incomplete = [artifact for artifact in artifacts if artifact.status == ArtifactStatus.PARTIAL]
    return Figures(
        run=chosen,
        interruption=interruption,
        partial={artifact.name: artifact.reason or "" for artifact in incomplete if artifact.reason != interruption},
        attempts=attempts,
        traceback=traceback,
        memory=_read(chosen, named, "memory_profile", lambda artifact: _samples(store, artifact)),
        time=_read(chosen, named, "pyinstrument_profile", lambda artifact: _tree(store, artifact)),
        allocations=_read(chosen, named, "memray_profile", lambda artifact: _tree(store, artifact)),
    )


def _read(run: Attempt, named: Mapping[str, Artifact], name: str, read: Callable[[Artifact], T]) -> T | Missing:
    artifact = named.get(name)
    if artifact is None:
        return Missing(reason=absence(name, run.status))
    if artifact.status not in DOWNLOADABLE_STATUSES:
        return Missing(reason=f"{artifact.name} is {artifact.status}: {artifact.reason or ''}")
    try:
        return read(artifact)
    except DiagnosticsError as error:
        return Missing(reason=str(error))


def _samples(store: Store, artifact: Artifact) -> list[Sample]:
    with open_download(store.blobs, artifact) as file:
        samples = read_samples(file)
    if not samples:
        raise ReportError("There is no sample in what is stored.")
    return samples


def _tree(store: Store, artifact: Artifact) -> CallTree:
    with open_download(store.blobs, artifact, format_of(artifact, "calltree")) as file:
        tree: CallTree = json.load(file)
    return tree


def echo_heading(text: str) -> None:
    """Prints what stands above a part."""
    click.echo(f"\n{text}")


def echo_reason(reason: str | None) -> None:
    """Prints why a part is not there."""
    if reason is not None:
        click.echo(f"  {printable(' '.join(reason.split()))}")


def echo_rows(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints figures in columns, and a name in the last one."""
    cells = [headings, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings) - 1)]
    for *figures, name in cells:
        aligned = "  ".join(figure.rjust(width) for figure, width in zip(figures, widths, strict=True))
        click.echo(f"  {aligned}  {printable(name)}")


def figure(value: float, unit: str) -> str:
    """Returns: A figure of a call tree for a person."""
    return format_duration(value) if unit == "ms" else format_size(value)


def change(value: float, unit: str) -> str:
    """Returns: A difference of such figures."""
    return ("+" if value > 0 else "") + figure(value, unit)


def memory_words(samples: Sequence[Sample]) -> str:
    """Returns: A curve's figures."""
    peak_s, peak_bytes = max(samples, key=lambda sample: sample[1])
    first, last = samples[0][1], samples[-1][1]
    peak = f"{format_size(peak_bytes)} after {format_duration(peak_s * 1000)}"
    return f"first {format_size(first)}, peak {peak}, last {format_size(last)}"


def sparklines(*curves: Sequence[Sample]) -> list[str]:
    """Returns: Curves as a line of blocks each, all on one scale of time and memory."""
    if not curves:
        return []
    last_s = max(second for curve in curves for second, _ in curve)
    lowest = min(size_bytes for curve in curves for _, size_bytes in curve)
    highest = max(size_bytes for curve in curves for _, size_bytes in curve)
    span = max(highest - lowest, highest * 0.02, 1)  # So that noise does not look like growth.
    lines = []
    for curve in curves:
        steps = [int((size_bytes - lowest) / span * (len(_BLOCKS) - 1) + 0.5) for size_bytes in _columns(curve, last_s)]
        lines.append("".join(_BLOCKS[step] for step in steps))
    return lines


def _columns(curve: Sequence[Sample], last_s: float) -> list[int]:
    """Returns: The most in each column that the curve reaches; where nothing was measured, what was before."""
    most: dict[int, int] = {}
    for second, size_bytes in curve:
        column = min(int(second / last_s * _WIDTH), _WIDTH - 1) if last_s else 0
        most[column] = max(most.get(column, 0), size_bytes)
    columns = [curve[0][1]]
    for column in range(max(most) + 1):
        columns.append(most.get(column, columns[-1]))
    return columns[1:]
