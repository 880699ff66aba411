"""Writes reports of threads as a text: who does what, what it waits for, and its calls, the innermost first."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from ..text import format_duration
from .stack_dump import cut
from .thread_report import Frame, ThreadReport


def stacks_text(reports: Iterable[ThreadReport], occasion: str) -> str:
    """Returns: The stacks and waits of threads; cut off where they are long, the task's own come first.

    Parameters:
      reports: The threads.
      occasion: Why the stacks are written, for the heading.
    """
    moment = datetime.now(UTC).isoformat(timespec="milliseconds")
    sections = "".join(map(_section, reports))
    return cut(f"# What all threads did at {moment}, {occasion}\n{sections}\n")


def _section(report: ThreadReport) -> str:
    whose = " executes the task" if report.is_task else ""
    same = f", at the same place for {format_duration(report.same_for_s * 1000)}" if report.same_for_s else ""
    lines = [f"\n{report.name}{whose}: {report.state.replace('_', ' ')}{same}\n"]
    if report.wait is not None:
        lines.append(f"  {report.wait.detail}\n")
    return "".join((*lines, *map(frame_text, report.frames)))


def frame_text(frame: Frame) -> str:
    """Returns: A call as one line, with its line of source below."""
    source = f"      {frame.source}\n" if frame.source else ""
    return f"  {frame.function}  {frame.file}:{frame.line or '?'}\n{source}"
