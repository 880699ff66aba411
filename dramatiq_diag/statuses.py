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


#: A run with one of these statuses counts as failed in the figures of its actor.
FAILED_STATUSES = (RunStatus.FAILED, RunStatus.INTERRUPTED)


class MemoryRole(enum.StrEnum):
    """The part that a run had in the death of its process for lack of memory."""

    GROWER = "grower"
    "It was growing the process."
    VICTIM = "victim"
    "Another task was."

    @property
    def label(self) -> str:
        """The word beside the status of a run."""
        return "grew" if self is MemoryRole.GROWER else "victim"

    @property
    def meaning(self) -> str:
        """What the word means, as a sentence."""
        if self is MemoryRole.GROWER:
            return "The process was killed, as it seems for lack of memory, and this task was growing it."
        return "The process was killed, as it seems for lack of memory, and another task was growing it."


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


class LeakVerdict(enum.StrEnum):
    """What is known of an actor's memory."""

    LEAKS = "leaks"
    "Its runs keep memory that nothing frees later."
    FRAGMENTATION = "fragmentation"
    "Its runs give back what they use, but the heap keeps it, and the RSS grows."
    UNDECIDED = "undecided"
    "It cannot be said yet."
    CLEAN = "clean"
    "Whatever its runs keep is too little to matter."
