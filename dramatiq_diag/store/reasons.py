"""Finds the one reason of an interrupted run, so that a page gives it once and not for each artifact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ..statuses import RunStatus


def shared_reason(status: str, reasons: Iterable[str | None]) -> str | None:
    """Returns: The reason that most artifacts of an interrupted run have; None for a run of another status."""
    if status != RunStatus.INTERRUPTED:
        return None
    counted = Counter(reason for reason in reasons if reason)
    return counted.most_common(1)[0][0] if counted else None
