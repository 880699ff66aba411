"""Finds the trace that a run is part of: by the active span, or by the headers that its message carries."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from .propagation import NESTED_OPTIONS

#: The headers of Sentry in the options of a message, and the one among them that names the trace.
_SENTRY_HEADERS, _SENTRY_TRACE = "_sentry_headers", "sentry-trace"

#: The header of W3C's Trace Context: an option of a message, or in an option that holds the headers of a propagator.
_TRACEPARENT = "traceparent"

_TRACEPARENT_FORM = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-[0-9a-f]{2}(?P<more>-.*)?"
)
_SENTRY_FORM = re.compile(r"(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})(?:-[01])?")

#: The most characters of a header that is read, and the most options of a message that are looked at.
_MAX_LENGTH = 200
_MAX_OPTIONS = 50

#: The attributes that the active span gets.
_RUN_ID, _RUN_URL = "dramatiq_diag.run_id", "dramatiq_diag.run_url"


class Trace(NamedTuple):
    """The ids of a trace and of a span in it, in lower-case hexadecimal digits; None where they are unknown."""

    trace_id: str | None
    span_id: str | None


NO_TRACE = Trace(None, None)


def active_span() -> Any:
    """Returns: The active span of OpenTelemetry that this process has begun, or None.

    OpenTelemetry is asked only if the application has imported it. A span of another process does not count: an
    instrumentation makes the sender's span the active one, and leaves it so for the next message on the thread.
    """
    module: Any = sys.modules.get("opentelemetry.trace")
    if module is None:
        return None
    span = module.get_current_span()
    context = span.get_span_context()
    return span if context.is_valid and not context.is_remote else None


def trace_of(span: Any, options: Mapping[str, Any]) -> Trace:
    """Returns: The trace of a run.

    Parameters:
      span: The active span, or None.
      options: The options of its message; their sender decides what is in them.
    """
    if span is not None:
        context = span.get_span_context()
        return Trace(f"{context.trace_id:032x}", f"{context.span_id:016x}")
    if _TRACEPARENT not in options and dict not in map(type, options.values()):  # As in most messages.
        return NO_TRACE
    levels = [options]
    if isinstance(nested := options.get(NESTED_OPTIONS), dict):
        levels.append(nested)
    for level in levels:
        if isinstance(headers := level.get(_SENTRY_HEADERS), dict):
            # Sentry begins a new trace for a retry, whose message still has the headers of the attempt before.
            header = _active_sentry_trace() if "retries" in options else headers.get(_SENTRY_TRACE)
            if (found := _read(_SENTRY_FORM, header)) is not None:
                return found
    for level in levels:
        for header in _traceparents(level):
            if (found := _read(_TRACEPARENT_FORM, header)) is not None:
                return found
    return NO_TRACE


def _active_sentry_trace() -> Any:
    """Returns: The header of the trace that Sentry has active, or None; Sentry is asked only if it is imported."""
    module: Any = sys.modules.get("sentry_sdk")
    return module.get_traceparent() if module is not None and module.get_client().is_active() else None


def _traceparents(options: Mapping[str, Any]) -> Iterator[Any]:
    """Yields the option `traceparent`, and the headers of that name in other options: each program names its own."""
    yield options.get(_TRACEPARENT)
    for value in islice(options.values(), _MAX_OPTIONS):
        if isinstance(value, dict) and _TRACEPARENT in value:
            yield value[_TRACEPARENT]


def _read(form: re.Pattern[str], header: Any) -> Trace | None:
    if not isinstance(header, str) or len(header) > _MAX_LENGTH:
        return None
    match = form.fullmatch(header)
    if match is None or not match["trace"].strip("0") or not match["span"].strip("0"):
        return None
    if header.startswith("00-") and match.groupdict().get("more"):  # Only a later version may have more parts.
        return None
    return Trace(match["trace"], match["span"])


def link_run(span: Any, run_id: object, public_url: str | None) -> None:
    """Sets the id of a run, and the address of its page where the public URL is known, as attributes of a span."""
    span.set_attribute(_RUN_ID, str(run_id))
    if public_url is not None:
        span.set_attribute(_RUN_URL, f"{public_url}/runs/{run_id}/")
