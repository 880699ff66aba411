"""How runs and artifacts stand; apart from the tables, so that a process without a database has it too."""

from __future__ import annotations

import enum


class RunStatus(enum.StrEnum):
    """How a run stands."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    INTERRUPTED = "interrupted"
    "Its process died."


class ArtifactStatus(enum.StrEnum):
    """What became of a selected collector's artifact."""

    STORED = "stored"
    PARTIAL = "partial"
    "Salvaged or cut short; downloadable."
    UNAVAILABLE = "unavailable"
    "The package is not installed."
    SKIPPED = "skipped"
    "Busy, or declined."
    FAILED = "failed"
    DROPPED = "dropped"
    "By a keep rule."
    EXPIRED = "expired"
    "Removed by the cleanup."
    DELETED = "deleted"
    "Removed by hand."


#: An artifact of these can be downloaded.
DOWNLOADABLE_STATUSES = (ArtifactStatus.STORED, ArtifactStatus.PARTIAL)
