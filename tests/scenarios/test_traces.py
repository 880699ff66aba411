"""Runs name the trace that they are part of, with the tracing libraries that applications use."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

from support import PATIENCE_S

#: Each application runs in a process of its own: tracing libraries change the process for good.
_BEFORE = """
import json, os, sys, uuid
import dramatiq
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import Retries
from dramatiq_diag import Diagnostics, Settings
from dramatiq_diag.documents.runs import runs_document
from dramatiq_diag.store.runs import RunFilter
from dramatiq_diag.store.store import Store

settings = Settings(
    data_dir=sys.argv[1], task_diagnostics_on_request=["memory"], cleanup_interval=0, public_url="https://diag.example"
)
diagnostics = Diagnostics(settings)

def execute(broker):
    worker = dramatiq.Worker(broker, worker_timeout=10, worker_threads=1)
    worker.start()
    broker.join("default", timeout=180_000)
    worker.join()
    assert diagnostics.flush(180)
    worker.stop()
    store = Store(settings)
    with store.session() as session:
        runs = runs_document(session, RunFilter(), 100, None)["runs"]
    store.close()
    return runs[::-1]  # The first one first.
"""


def execute(directory: Path, application: str) -> Any:
    """Returns: What the application prints in its last line."""
    command = [sys.executable, "-c", _BEFORE + dedent(application), str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_instrumentation_that_nests_all_options_of_a_message(tmp_path: Path) -> None:
    spans, (traced, other) = execute(
        tmp_path,
        """
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        from opentelemetry_instrumentor_dramatiq import DramatiqInstrumentor

        exporter, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        trace.set_tracer_provider(provider)
        DramatiqInstrumentor().instrument()
        broker = StubBroker()
        broker.add_middleware(diagnostics)

        @dramatiq.actor(broker=broker)
        def work():
            pass

        message = work.send_with_options(diagnostics=["memory"])
        assert "diagnostics" in message.options["options"], "this instrumentation nests no options any more"
        # Another program sends this one without a trace. The thread still has the trace of the message before.
        broker.enqueue(dramatiq.Message("default", "work", (), {}, {"diagnostics": ["memory"]}))
        runs = execute(broker)
        spans = {span.name: (f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}")
                 for span in exporter.get_finished_spans() if span.name.startswith("dramatiq.producer")}
        print(json.dumps([spans, runs]))
        """,
    )
    assert [traced["trace_id"], traced["span_id"]] == spans["dramatiq.producer.work"]
    assert (other["trace_id"], other["span_id"]) == (None, None)


def test_the_active_span_of_opentelemetry_and_its_link_to_the_run(tmp_path: Path) -> None:
    span, run = execute(
        tmp_path,
        """
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        exporter, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))

        class Tracing(dramatiq.Middleware):
            def before_process_message(self, broker, message):
                self.scope = provider.get_tracer("test").start_as_current_span(message.actor_name)
                self.scope.__enter__()

            def after_process_message(self, broker, message, *, result=None, exception=None):
                self.scope.__exit__(None, None, None)

        broker = StubBroker()
        broker.add_middleware(Tracing())
        broker.add_middleware(diagnostics)

        @dramatiq.actor(broker=broker)
        def work():
            pass

        work.send_with_options(
            diagnostics=["memory"], traceparent="00-11111111111111111111111111111111-2222222222222222-01"
        )
        [run] = execute(broker)
        [span] = exporter.get_finished_spans()
        ids = [f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"]
        print(json.dumps([{"ids": ids, "attributes": dict(span.attributes)}, run]))
        """,
    )
    assert [run["trace_id"], run["span_id"]] == span["ids"]
    assert span["attributes"] == {
        "dramatiq_diag.run_id": run["run_id"],
        "dramatiq_diag.run_url": f"https://diag.example/runs/{run['run_id']}/",
    }


def test_sentry_whose_retries_are_traces_of_their_own(tmp_path: Path) -> None:
    sent_in, transactions, (first, retry) = execute(
        tmp_path,
        """
        import sentry_sdk
        from sentry_sdk.integrations.dramatiq import DramatiqIntegration

        events = []

        class Kept(sentry_sdk.transport.Transport):
            def capture_envelope(self, envelope):
                events.extend(item.payload.json for item in envelope.items if item.type == "transaction")

        sentry_sdk.init(
            dsn="http://key@127.0.0.1:9/1", integrations=[DramatiqIntegration()], traces_sample_rate=1.0, transport=Kept
        )
        broker = StubBroker(middleware=[Retries(min_backoff=1, max_backoff=1)], fail_fast_default=False)
        broker.add_middleware(diagnostics)
        failures = [ValueError("once")]

        @dramatiq.actor(broker=broker, max_retries=1)
        def work():
            if failures:
                raise failures.pop()

        with sentry_sdk.start_transaction(name="request"):
            work.send_with_options(diagnostics=["memory"])
            sent_in = sentry_sdk.get_current_span().trace_id
        runs = execute(broker)
        transactions = [event["contexts"]["trace"] for event in events if event["transaction"] == "work"]
        print(json.dumps([sent_in, transactions, runs]))
        """,
    )
    assert first["trace_id"] == transactions[0]["trace_id"] == sent_in
    assert first["span_id"] == transactions[0]["parent_span_id"]
    assert [retry["trace_id"], retry["span_id"]] == [transactions[1]["trace_id"], transactions[1]["span_id"]]
    assert retry["trace_id"] != sent_in
