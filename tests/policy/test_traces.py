"""The trace of a run: out of the active span, or of headers whose sender decides what is in them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext

from dramatiq_diag.policy.propagation import find_request
from dramatiq_diag.policy.traces import NO_TRACE, Trace, active_span, link_run, trace_of

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
FOUND = Trace(TRACE_ID, SPAN_ID)
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"
SENTRY_TRACE = f"{TRACE_ID}-{SPAN_ID}-1"
OTHER = "00-11111111111111111111111111111111-2222222222222222-00"


@pytest.mark.parametrize(
    "options",
    [
        {"traceparent": TRACEPARENT},
        {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-00"},
        {"traceparent": f"01-{TRACE_ID}-{SPAN_ID}-01-what comes later"},
        {"trace_ctx": {"traceparent": TRACEPARENT, "tracestate": ""}},
        {"options": {"traceparent": TRACEPARENT}},
        {"options": {"trace_context": {"traceparent": TRACEPARENT}}},
        {"_sentry_headers": {"sentry-trace": SENTRY_TRACE, "baggage": ""}},
        {"_sentry_headers": {"sentry-trace": f"{TRACE_ID}-{SPAN_ID}"}},
        {"options": {"_sentry_headers": {"sentry-trace": SENTRY_TRACE}}},
        {"_sentry_headers": {"sentry-trace": SENTRY_TRACE}, "traceparent": OTHER},
        {"traceparent": TRACEPARENT, "headers": {"traceparent": OTHER}},
        {"traceparent": "no header", "headers": {"traceparent": TRACEPARENT}},
    ],
)
def test_the_headers_of_a_message_name_the_trace(options: dict[str, Any]) -> None:
    assert trace_of(None, options) == FOUND


@pytest.mark.parametrize(
    "header",
    [
        # Of other types, and empty.
        None,
        7,
        True,
        b"00",
        "",
        [TRACEPARENT],
        # Not quite a header.
        TRACEPARENT.upper(),
        f" {TRACEPARENT}",
        f"{TRACEPARENT}\n",
        f"{TRACEPARENT}-more",
        TRACEPARENT[:-1],
        f"ff-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID}",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID}-{'g' * 16}-01",
        f"00-{'٣' * 32}-{SPAN_ID}-01",
        # Text for a page, a log, or a query.
        "<script>alert(1)</script>",
        "00-' OR 1=1 --",
        "\ud800",
        # Long.
        f"01-{TRACE_ID}-{SPAN_ID}-01-{'x' * 200}",
        "0" * 10_000_000,
    ],
    ids=lambda header: f"{header!r:.40}",
)
def test_what_is_no_header_names_no_trace(header: Any) -> None:
    assert trace_of(None, {"traceparent": header}) == NO_TRACE
    assert trace_of(None, {"options": {"traceparent": header}}) == NO_TRACE
    assert trace_of(None, {"trace_ctx": {"traceparent": header}}) == NO_TRACE
    assert trace_of(None, {"_sentry_headers": {"sentry-trace": header}}) == NO_TRACE
    assert trace_of(None, {"_sentry_headers": header}) == NO_TRACE
    assert trace_of(None, {"options": header}) == NO_TRACE


def test_only_the_first_options_of_a_message_are_looked_at() -> None:
    others = {f"option {number}": {"x": 1} for number in range(50)}
    headers = {"trace_ctx": {"traceparent": TRACEPARENT}}
    assert trace_of(None, headers | others) == FOUND
    assert trace_of(None, others | headers) == NO_TRACE


def test_a_span_of_another_process_is_not_the_active_one() -> None:
    context = SpanContext(int(TRACE_ID, 16), int(SPAN_ID, 16), is_remote=True)
    with trace.use_span(NonRecordingSpan(context)):
        assert active_span() is None
    with trace.use_span(NonRecordingSpan(SpanContext(context.trace_id, context.span_id, is_remote=False))):
        assert trace_of(active_span(), {"traceparent": OTHER}) == FOUND
    assert active_span() is None


def test_the_active_span_names_the_trace_and_gets_the_address_of_the_run() -> None:
    with TracerProvider().get_tracer("test").start_as_current_span("work") as span:
        found = active_span()
        link_run(found, "run-1", "https://diag.example/x")
        link_run(NonRecordingSpan(SpanContext(1, 2, is_remote=False)), "run-1", None)
        context = span.get_span_context()
        assert trace_of(found, {"traceparent": TRACEPARENT}) == Trace(
            trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)
        )
        assert dict(span.attributes) == {
            "dramatiq_diag.run_id": "run-1",
            "dramatiq_diag.run_url": "https://diag.example/x/runs/run-1/",
        }


def test_no_tracing_library_is_imported() -> None:
    code = f"""if True:
        import sys
        from dramatiq_diag.policy.traces import active_span, trace_of
        retry = {{"retries": 1, "_sentry_headers": {{"sentry-trace": {SENTRY_TRACE!r}}}}}
        assert trace_of(active_span(), retry).trace_id is None
        sys.exit(bool({{"opentelemetry", "sentry_sdk"}} & {{name.partition(".")[0] for name in sys.modules}}))
    """
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({}, None),
        ({"diagnostics": ["memory"]}, (["memory"],)),
        ({"diagnostics": None}, (None,)),
        ({"options": {"diagnostics": ["memory"]}}, (["memory"],)),
        ({"diagnostics": [], "options": {"diagnostics": ["memory"]}}, ([],)),
        ({"options": {"options": {"diagnostics": ["memory"]}}}, None),
        ({"options": None}, None),
        ({"options": ["diagnostics"]}, None),
        ({"options": "diagnostics"}, None),
    ],
)
def test_a_request_is_found_where_an_instrumentation_nests_it(options: dict[str, Any], found: Any) -> None:
    assert find_request(options) == found
