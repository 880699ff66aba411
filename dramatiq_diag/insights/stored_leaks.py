"""Reads the windows of the live memory from the store, and finds the leaking actors in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from uuid import UUID

from sqlalchemy.orm import Session

from ..store.heap_windows import MAX_READ, newest_windows
from .leaks import ActorFinding, findings
from .live_memory import Window, after_warm_up, kept_bytes

#: The most points of a curve.
_MOST_POINTS = 200


@dataclass(frozen=True, kw_only=True)
class LeakReport:
    """What the stored windows say of the actors."""

    findings: Sequence[ActorFinding]
    processes: Sequence[Sequence[Window]]
    "The windows of each process, in order."
    is_cut: bool
    "Whether there are more windows than were read."

    def curve(self, actor_name: str) -> list[tuple[float, float]]:
        """Returns: The runs of an actor, and the bytes that were kept more than at first, after each window.

        They are of the process that executed most of its runs; there are none where this was in the warm-up alone.
        """
        rests = [rest for windows in self.processes if (rest := after_warm_up(windows))]
        windows = max(rests, key=lambda rest: sum(window.runs.get(actor_name, 0) for window in rest), default=())
        kept = kept_bytes([window.live_bytes for window in windows])
        runs = list(accumulate(window.runs.get(actor_name, 0) for window in windows))
        if not runs or not runs[-1]:
            return []
        points = [(float(count - runs[0]), float(size - kept[0])) for count, size in zip(runs, kept, strict=True)]
        return points[:: len(points) // _MOST_POINTS + 1]


def read_leaks(session: Session, since: datetime | None = None, limit: int = MAX_READ) -> LeakReport:
    """Finds the leaking actors in the newest windows, of all processes of the database.

    Parameters:
      since: Reads only the windows that ended then or later.
      limit: The most windows to read.
    """
    rows = newest_windows(session, since, limit)
    processes: dict[UUID, list[Window]] = {}
    for row in reversed(rows):
        processes.setdefault(row.worker_id, []).append(
            Window(
                number=row.number,
                runs=row.runs,
                small_bytes=row.small_bytes,
                in_use_bytes=row.in_use_bytes,
                free_bytes=row.free_bytes,
                rss_bytes=row.rss_bytes,
            )
        )
    ordered = [sorted(windows, key=lambda window: window.number) for windows in processes.values()]
    return LeakReport(findings=findings(ordered), processes=ordered, is_cut=len(rows) == limit)
