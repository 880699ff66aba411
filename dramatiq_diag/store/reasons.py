"""Finds the one reason of an interrupted run, so that a page gives it once and not for each artifact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ..statuses import RunStatus


def shared_reason(status: str, reasons: Iterable[str | None]) -> str | None:
    """Finds the reason that stands for all of an interrupted run.

    Parameters:
      status: The status of the run.
      reasons: The reasons of its artifacts.

    Returns:
      The reason that most of the artifacts have, the first of several; None for a run that was not interrupted.
    """
    if status != RunStatus.INTERRUPTED:
        return None
    counted = Counter(reason for reason in reasons if reason)
    return counted.most_common(1)[0][0] if counted else None
