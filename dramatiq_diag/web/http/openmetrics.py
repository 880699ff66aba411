"""Writes metrics as OpenMetrics or as Prometheus text, one line for each sample.

prometheus_client would write the same. It makes several objects for each of the thousands of samples, which took most
of a scrape's time; the tests read the text with its parsers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

_OPEN_TYPE = "application/openmetrics-text"
_PLAIN_TYPE = "text/plain"
_CONTENT_TYPES = {
    True: f"{_OPEN_TYPE}; version=1.0.0; charset=utf-8",
    False: f"{_PLAIN_TYPE}; version=0.0.4; charset=utf-8",
}

#: Found in an entry of `Accept` that asks for another version than the one that is written.
_OTHER_VERSION = re.compile(r";\s*version=(?!\"?1\.0\.0\"?\s*(;|$))")

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class Sample(NamedTuple):
    """One number."""

    suffix: str
    "What its name has behind that of its metric, as `_bucket`."
    labels: str
    "See `write_labels`."
    value: float
    exemplar: str = ""
    "See `write_exemplar`."


class Metric(NamedTuple):
    """All samples of one name."""

    name: str
    "Of a counter without `_total`."
    kind: Literal["counter", "gauge", "histogram"]
    help_text: str
    samples: Iterable[Sample]


def wants_open_metrics(accept: str) -> bool:
    """Returns: True for a client that reads OpenMetrics 1.0 or names no format; False for one of Prometheus text."""
    entries = accept.split(",")
    kinds = {entry.partition(";")[0].strip() for entry in entries if not _OTHER_VERSION.search(entry)}
    return _OPEN_TYPE in kinds or ("*/*" in kinds and _PLAIN_TYPE not in accept)


def write(metrics: Iterable[Metric], *, is_open: bool) -> tuple[str, str]:
    """Returns: The text and its media type: OpenMetrics, or Prometheus text, which has no exemplars."""
    lines = []
    for name, kind, help_text, samples in metrics:
        heading = f"{name}_total" if kind == "counter" and not is_open else name
        lines += [f"# HELP {heading} {help_text}", f"# TYPE {heading} {kind}"]
        for suffix, labels, value, exemplar in samples:
            lines.append(f"{name}{suffix}{{{labels}}} {value!r}{exemplar if is_open else ''}")
    if is_open:
        lines.append("# EOF")
    return "\n".join([*lines, ""]), _CONTENT_TYPES[is_open]


def write_labels(labels: Mapping[str, str]) -> str:
    """Returns: Labels as they stand between braces."""
    return ",".join([f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels.items()])


def write_exemplar(labels: Mapping[str, str], value: float, timestamp: float | None) -> str:
    """Returns: What stands behind the value of a sample. The timestamp is in seconds since the epoch."""
    moment = "" if timestamp is None else f" {timestamp!r}"
    return f" # {{{write_labels(labels)}}} {value!r}{moment}"
