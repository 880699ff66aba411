"""Estimates quantiles of recent durations, from a histogram that forgets."""

from __future__ import annotations

import math

#: With fewer durations there are no quantiles.
MIN_COUNT = 20

#: With this many durations all are halved in weight, so that those before the last deployment fade.
_HALVE_AT = 2000

#: A bucket of less weight is dropped.
_LIGHTEST = 0.01

#: The ratio of the bounds of a bucket, and the range of all buckets in milliseconds: up to a hundred days.
_RATIO = 1.05
_SHORTEST_MS = 0.01
_LONGEST_MS = 1e10
_LOG_RATIO = math.log(_RATIO)


class DurationHistogram:
    """The recent durations of one kind, in buckets that are each 5 % wide.

    Note:
      The error of a quantile is less than a bucket. There are at most 567 buckets, mostly a few dozen. Exact quantiles
      would need the durations themselves; the P-square estimator has five numbers for one quantile, but never forgets.
    """

    def __init__(self) -> None:
        self.weight = 0.0
        "The sum of the weights of the durations."
        self._buckets: dict[int, float] = {}

    @property
    def bucket_count(self) -> int:
        """The number of buckets that are not empty."""
        return len(self._buckets)

    def add(self, duration_ms: float) -> None:
        """Adds a duration."""
        if self.weight >= _HALVE_AT:
            self._halve()
        bucket = _bucket(duration_ms)
        self._buckets[bucket] = self._buckets.get(bucket, 0.0) + 1.0
        self.weight += 1.0

    def quantile_ms(self, share: float) -> float | None:
        """Returns: The duration that this share of them does not exceed; None below `MIN_COUNT` durations."""
        if self.weight < MIN_COUNT:
            return None
        left = share * self.weight
        for bucket in sorted(self._buckets):
            weight = self._buckets[bucket]
            if left <= weight:
                return _SHORTEST_MS * math.exp((bucket + left / weight) * _LOG_RATIO)
            left -= weight
        return _LONGEST_MS  # The sum of the weights was rounded.

    def _halve(self) -> None:
        halved = ((bucket, weight / 2) for bucket, weight in self._buckets.items())
        self._buckets = {bucket: weight for bucket, weight in halved if weight >= _LIGHTEST}
        self.weight = sum(self._buckets.values())


def _bucket(duration_ms: float) -> int:
    return int(math.log(min(max(duration_ms, _SHORTEST_MS), _LONGEST_MS) / _SHORTEST_MS) / _LOG_RATIO)
