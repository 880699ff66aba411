"""Defines how a run sees what begins in its middle."""

from __future__ import annotations

from typing import Protocol

from ..spool.entry import Entry


class Attached(Protocol):
    """Collectors that began because somebody asked for them; see `Attachment`."""

    @property
    def entry(self) -> Entry: ...
    def end_with_run(self) -> None: ...
    def end_early(self, reason: str) -> None: ...


class LateStarts(Protocol):
    """Collectors that begin when a trigger fires; see `LateStart`."""

    def arm(self) -> None: ...
    def look(self, rss_bytes: int) -> None: ...
    def end(self) -> None: ...
