"""Decides after which time a run is stuck."""

from __future__ import annotations

from dataclasses import dataclass

#: The setting that makes the limit of an actor follow from its usual durations.
AUTO = "auto"

#: Of an actor's usual duration the limit is this many times, and at least so many seconds.
_FACTOR = 10.0
LEAST_S = 300.0

#: With fewer ended runs no duration is usual; the limit in seconds is then this one.
MIN_RUNS = 20
UNKNOWN_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class UsualDuration:
    """The durations of the latest ended runs of an actor."""

    run_count: int
    p95_ms: float | None
    "95 % of them took no longer; None where none has ended."


@dataclass(frozen=True, kw_only=True)
class StuckRule:
    """The setting `stuck_after`."""

    after: str | float
    "`auto`, or seconds; 0 turns it off."

    @property
    def is_on(self) -> bool:
        """Whether any run can be stuck."""
        return self.after != 0

    @property
    def least_s(self) -> float:
        """A run that has not lasted so long is not stuck, whatever its actor."""
        return LEAST_S if isinstance(self.after, str) else self.after

    @property
    def needs_usual(self) -> bool:
        """Whether the limit depends on the actor's usual duration."""
        return self.after == AUTO

    def limit_s(self, usual: UsualDuration | None) -> float:
        """Returns: The limit for the runs of an actor, in seconds.

        Parameters:
          usual: The usual duration of the actor; None where it is not known.
        """
        if not isinstance(self.after, str):
            return self.after
        if usual is None or usual.p95_ms is None or usual.run_count < MIN_RUNS:
            return UNKNOWN_S
        return max(_FACTOR * usual.p95_ms / 1000, LEAST_S)
