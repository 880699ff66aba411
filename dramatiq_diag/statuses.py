"""Defines the statuses of runs and artifacts, apart from the tables: a process without a database needs them too."""

from __future__ import annotations

import enum


class RunStatus(enum.StrEnum):
    """The status of a run."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    INTERRUPTED = "interrupted"
    "Its process died."


class ArtifactStatus(enum.StrEnum):
    """The status of an artifact."""

    STORED = "stored"
    PARTIAL = "partial"
    "Salvaged or cut short; downloadable."
    UNAVAILABLE = "unavailable"
    "The package is not installed."
    SKIPPED = "skipped"
    "Busy, or declined."
    FAILED = "failed"
    DROPPED = "dropped"
    "Removed by a keep rule."
    EXPIRED = "expired"
    "Removed by the cleanup."
    DELETED = "deleted"
    "Removed by hand."


#: An artifact with one of these statuses can be downloaded.
DOWNLOADABLE_STATUSES = (ArtifactStatus.STORED, ArtifactStatus.PARTIAL)
