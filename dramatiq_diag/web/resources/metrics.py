"""Serves the counters of the store as OpenMetrics, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

import falcon

from ...statuses import RunStatus
from ...store.counters import BUCKETS, SUM, Series, read_counters
from ...store.stuck_runs import stuck_counts
from ...store.workers import HostWorkers, WorkerState, count_workers, reported_spools
from ..http.openapi import FILE, operation
from ..http.openmetrics import Metric, Sample, wants_open_metrics, write, write_exemplar, write_labels
from .base import Resource

_ACTOR = ("queue_name", "actor_name")

#: Series -> the name of its metric, its help text and, of one that is no histogram, the name of its label.
_COUNTERS = {
    Series.RUNS: ("dramatiq_diag_runs", "Diagnosed runs that ended.", "status"),
    Series.ARTIFACTS: ("dramatiq_diag_artifacts", "Artifacts that came to a status.", "status"),
}
#: Series -> the values of statuses that have not occurred. Prometheus takes no increase from a sample that is the first
#: of its series, so the first interrupted run would raise no alert. Of artifacts the many statuses are not worth that.
_ABSENT: dict[Series, dict[str, float]] = {
    Series.RUNS: {status.value: 0.0 for status in RunStatus if status is not RunStatus.RUNNING},
    Series.ARTIFACTS: {},
}
_HISTOGRAMS = {
    Series.RUN_SECONDS: ("dramatiq_diag_run_seconds", "Durations of the actors' functions in diagnosed runs."),
    Series.RUN_QUEUE_SECONDS: (
        "dramatiq_diag_run_queue_seconds",
        "Time from the moment when a message was due until a worker took it up.",
    ),
    Series.RUN_PEAK_RSS_BYTES: (
        "dramatiq_diag_run_peak_rss_bytes",
        "Largest RSS of the worker process during a diagnosed run.",
    ),
}
_GAUGES = {
    Series.STORED_RUNS: ("dramatiq_diag_store_runs", "Stored runs that have ended.", ("actor_name",)),
    Series.STORED_BYTES: (
        "dramatiq_diag_store_bytes",
        "Size of the artifacts in the blob store.",
        ("actor_name", "artifact_name"),
    ),
}


class MetricsResource(Resource):
    """The metrics. Each scrape reads the counters, whose number does not grow with the number of runs."""

    @operation("get", "/metrics", answers={200: FILE})
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Get metrics of all worker processes: OpenMetrics text, or Prometheus text for a client without it."""
        with self._backend.session() as session:
            counters, spools, stuck = read_counters(session), reported_spools(session), stuck_counts(session)
            workers = count_workers(session)
        metrics = [*_metrics_of(counters), _stuck_metric(stuck), *_worker_metrics(workers), *_spool_metrics(spools)]
        is_open = wants_open_metrics(req.get_header("Accept", default="*/*"))
        resp.text, resp.content_type = write(metrics, is_open=is_open)


def _metrics_of(counters: Sequence[Any]) -> Iterator[Metric]:
    by_series = {series: list(rows) for series, rows in groupby(counters, attrgetter("series"))}
    for series, (name, text, label) in _COUNTERS.items():
        yield Metric(name, "counter", text, _counter_samples(by_series.get(series, ()), label, _ABSENT[series]))
    for series, (name, text) in _HISTOGRAMS.items():
        yield Metric(name, "histogram", text, _histogram_samples(by_series.get(series, ()), series))
    for series, (name, text, labels) in _GAUGES.items():
        found = by_series.get(series, ())
        samples = [Sample("", _labels(labels, (row.actor_name, row.label)), row.value) for row in found]
        yield Metric(name, "gauge", text, samples)


def _labels(names: Sequence[str], values: Iterable[str]) -> str:
    return write_labels(dict(zip(names, values, strict=False)))


def _counter_samples(counters: Iterable[Any], label: str, absent: dict[str, float]) -> Iterator[Sample]:
    for key, rows in groupby(counters, attrgetter(*_ACTOR)):
        values = {**absent, **{row.label: row.value for row in rows}}
        for status, value in values.items():
            yield Sample("_total", _labels((*_ACTOR, label), (*key, status)), value)


def _histogram_samples(counters: Iterable[Any], series: Series) -> Iterator[Sample]:
    """Yields the buckets, cumulated, with their exemplars; the number of runs, and their sum."""
    bounds = *map(str, BUCKETS[series]), "+Inf"
    for key, rows in groupby(counters, attrgetter(*_ACTOR)):
        found, labels, count = {row.label: row for row in rows}, _labels(_ACTOR, key), 0.0
        for bound in bounds:
            row = found.get(bound)
            count += 0.0 if row is None else row.value
            yield Sample("_bucket", f'{labels},le="{bound}"', count, "" if row is None else _exemplar(row))
        yield Sample("_count", labels, count)
        yield Sample("_sum", labels, found[SUM].value if SUM in found else 0.0)


def _exemplar(row: Any) -> str:
    if row.exemplar_run_id is None:
        return ""
    labels = {"run_id": str(row.exemplar_run_id)}
    if row.exemplar_trace_id:
        labels["trace_id"] = row.exemplar_trace_id
    at = None if row.exemplar_at is None else row.exemplar_at.timestamp()
    return write_exemplar(labels, row.exemplar_value, at)


def _gauge(name: str, text: str, label: str, values: Mapping[str, float | None]) -> Metric:
    """Returns: A gauge with a value for each of its label; None has no sample."""
    known = {key: value for key, value in values.items() if value is not None}
    return Metric(
        name, "gauge", text, [Sample("", write_labels({label: key}), float(value)) for key, value in known.items()]
    )


def _stuck_metric(stuck: Mapping[str, int]) -> Metric:
    text = "Diagnosed runs that have lasted much longer than their actors usually take."
    return _gauge("dramatiq_diag_stuck_runs", text, "actor_name", dict(sorted(stuck.items())))


def _worker_metrics(hosts: Sequence[HostWorkers]) -> Iterator[Metric]:
    # Without any process they are 0, so that an alert sees that all are gone.
    counts: dict[str, float] = {
        WorkerState.LIVE: sum(host.live for host in hosts),
        WorkerState.LOST: sum(host.lost for host in hosts),
    }
    text = "Worker processes that live, or were lost in the last hour."
    yield _gauge("dramatiq_diag_workers", text, "state", counts)
    threads = {host.hostname: host.threads for host in hosts}
    text = "Threads of the live worker processes of a host."
    yield _gauge("dramatiq_diag_worker_threads", text, "hostname", threads)
    busy = {host.hostname: host.threads_busy for host in hosts}
    yield _gauge("dramatiq_diag_worker_threads_busy", "Those of them that execute a task.", "hostname", busy)


def _spool_metrics(spools: Iterable[Any]) -> Iterator[Metric]:
    sizes: dict[str, float] = {}
    ages: dict[str, float] = {}
    for hostname, size_bytes, unpublished_since, now in sorted(spools, key=attrgetter("hostname")):
        # The processes of a host mostly share a spool, and each reports the whole of it.
        sizes[hostname] = max(sizes.get(hostname, 0.0), size_bytes)
        waits_s = 0.0 if unpublished_since is None else (now - unpublished_since).total_seconds()
        ages[hostname] = max(ages.get(hostname, 0.0), waits_s)
    yield _gauge("dramatiq_diag_spool_bytes", "Size of what waits in the spool of a host.", "hostname", sizes)
    text = "Age of the oldest run that waits in the spool of a host; 0 where none waits."
    yield _gauge("dramatiq_diag_oldest_unpublished_seconds", text, "hostname", ages)
