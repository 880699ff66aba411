"""The metrics, read by Prometheus's own parser."""

from __future__ import annotations

import json
import re
from datetime import datetime

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as prometheus_families
from sqlalchemy import null, update

from dramatiq_diag.statuses import RunStatus
from dramatiq_diag.store.models import Worker
from dramatiq_diag.store.stuck_runs import mark_stuck
from dramatiq_diag.store.workers import WorkerReport, note_goodbye, note_worker
from support import ROOT
from support.records import executed_task, run_record, worker_report
from support.web import Site, memory_artifact
from support.workers import move_report

OPEN_METRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


def families(site: Site) -> dict:
    result = site.get("/metrics", headers=OPEN_METRICS)
    assert result.status_code == 200
    assert result.headers["content-type"].startswith("application/openmetrics-text")
    return {family.name: family for family in text_string_to_metric_families(result.text)}


def samples(family) -> dict:
    return {(sample.name, *sorted(sample.labels.items())): sample.value for sample in family.samples}


def test_each_run_is_counted_with_its_labels_and_stands_as_an_exemplar(site: Site) -> None:
    run_id = site.publish("task-1", [memory_artifact()], duration_ms=4000.0, queue_wait_ms=20.0)
    site.publish("task-2", status=RunStatus.FAILED, duration_ms=70_000.0)

    found = families(site)

    labels = ("actor_name", "crunch"), ("queue_name", "default")
    assert samples(found["dramatiq_diag_runs"]) == {
        ("dramatiq_diag_runs_total", *labels, ("status", "failed")): 1,
        ("dramatiq_diag_runs_total", *labels, ("status", "interrupted")): 0,
        ("dramatiq_diag_runs_total", *labels, ("status", "skipped")): 0,
        ("dramatiq_diag_runs_total", *labels, ("status", "succeeded")): 1,
    }
    seconds = found["dramatiq_diag_run_seconds"]
    buckets = {sample.labels.get("le"): sample for sample in seconds.samples}
    assert (buckets["1.0"].value, buckets["5.0"].value, buckets["300.0"].value, buckets["+Inf"].value) == (0, 1, 2, 2)
    assert buckets["5.0"].exemplar.labels == {"run_id": str(run_id)}
    assert buckets["5.0"].exemplar.value == 4.0
    assert samples(seconds)["dramatiq_diag_run_seconds_sum", *labels] == 74
    assert samples(seconds)["dramatiq_diag_run_seconds_count", *labels] == 2
    assert samples(found["dramatiq_diag_run_queue_seconds"])["dramatiq_diag_run_queue_seconds_sum", *labels] == 0.02
    peaks = found["dramatiq_diag_run_peak_rss_bytes"].samples
    assert [sample.value for sample in peaks if sample.labels.get("le") == "134217728.0"] == [2]
    [stored] = found["dramatiq_diag_store_bytes"].samples
    assert stored.labels == {"actor_name": "crunch", "artifact_name": "memory_profile"}
    assert stored.value > 0


def test_an_empty_store_has_metrics_without_samples_but_those_of_no_workers(site: Site) -> None:
    found = families(site)
    assert set(samples(found.pop("dramatiq_diag_workers")).values()) == {0}
    assert not [sample for family in found.values() for sample in family.samples]


@pytest.mark.parametrize(
    "accept",
    [
        "*/*",
        "application/openmetrics-text",
        'application/openmetrics-text; charset=utf-8; version="1.0.0"',
        "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,*/*;q=0.2",
        "application/openmetrics-text;version=0.0.1,application/openmetrics-text;version=1.0.0;escaping=underscores",
        "text/plain;q=0.1, application/openmetrics-text;version=1.0.0",
    ],
)
def test_a_client_that_reads_open_metrics_gets_it_to_its_end(site: Site, accept: str) -> None:
    site.publish()
    result = site.get("/metrics", headers={"Accept": accept})
    assert result.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0;")
    assert result.text.endswith("\n# EOF\n")


@pytest.mark.parametrize(
    "accept", ["text/plain;version=0.0.4", "text/plain", "application/openmetrics-text;version=abc", "application/json"]
)
def test_a_client_without_open_metrics_gets_prometheus_text(site: Site, accept: str) -> None:
    site.publish()
    result = site.get("/metrics", headers={"Accept": accept})
    assert result.headers["content-type"].startswith("text/plain")
    assert "dramatiq_diag_runs" in {family.name for family in prometheus_families(result.text)}


@pytest.mark.parametrize("accept", [OPEN_METRICS["Accept"], "text/plain"])
def test_no_scheme_of_escaping_changes_a_name(site: Site, accept: str) -> None:
    site.publish("task-1", [memory_artifact()])
    lines = site.get("/metrics", headers={"Accept": accept}).text.splitlines()
    names = {re.split("[ {]", line)[0] for line in lines if not line.startswith("#")}
    assert "dramatiq_diag_runs_total" in names
    assert [name for name in names if not re.fullmatch("[a-z_]+", name)] == []


@pytest.mark.parametrize("name", ['a"b\\c\n# EOF\nd{e="f"}', "\\n", "\r\t", "+Inf", "# TYPE x counter", "ü" * 200])
def test_hostile_names_are_escaped(site: Site, name: str) -> None:
    site.publish(actor_name=name)
    samples = families(site)["dramatiq_diag_runs"].samples
    assert {sample.labels["actor_name"] for sample in samples} == {name}


# Spools.


def report(hostname: str = "host", **changes) -> WorkerReport:
    return worker_report(**{"hostname": hostname} | changes)


def spools(site: Site) -> dict:
    found = families(site)
    return {
        sample.labels["hostname"]: (sample.value, age.value)
        for sample, age in zip(
            found["dramatiq_diag_spool_bytes"].samples,
            found["dramatiq_diag_oldest_unpublished_seconds"].samples,
            strict=True,
        )
    }


def note(site: Site, *reports: WorkerReport, seen_s_ago: float = 0.0) -> None:
    with site.store.session() as session:
        for each in reports:
            note_worker(session, each)
            move_report(session, each.worker_id, seen_s_ago)


def test_a_host_has_the_spool_that_its_processes_share_and_its_oldest_run(site: Site, stopped_clock: datetime) -> None:
    note(site, report("a", spool_bytes=5), report("a", spool_bytes=7, unpublished_s=100.0), report("b"))

    assert spools(site) == {"a": (7, 100), "b": (0, 0)}


def test_the_spool_of_a_lost_host_counts_and_that_of_one_that_said_goodbye_does_not(
    site: Site, stopped_clock: datetime
) -> None:
    lost, gone = report("lost", spool_bytes=9, unpublished_s=500.0), report("gone", spool_bytes=9)
    replaced, successor = report("again", spool_bytes=9, unpublished_s=500.0), report("again")
    note(site, lost, gone, replaced, seen_s_ago=300)
    note(site, successor)
    with site.store.session() as session:
        note_goodbye(session, gone.worker_id)

    assert spools(site) == {"lost": (9, 500), "again": (0, 0)}


def test_a_lost_host_is_forgotten_after_a_day_also_without_a_cleanup(site: Site) -> None:
    note(site, report("a day", spool_bytes=9), seen_s_ago=86_460)
    note(site, report("hours", spool_bytes=9), seen_s_ago=86_000)

    assert spools(site).keys() == {"hours"}


# Workers.


@pytest.mark.usefixtures("stopped_clock")
def test_workers_are_counted_by_state_and_their_threads_by_host(site_on_any_database: Site) -> None:
    site = site_on_any_database
    note(site, report("a", threads=4, tasks=[executed_task()]), report("a", threads=8), report("b", threads=2))
    note(site, report("old"))
    with site.store.session() as session:
        session.execute(update(Worker).where(Worker.hostname == "old").values(threads=null(), tasks=null()))
    note(site, report("a", threads=16), report("c"), seen_s_ago=60)
    gone = report("b", threads=32)
    note(site, gone, report("long lost"), seen_s_ago=7200)
    with site.store.session() as session:
        note_goodbye(session, gone.worker_id)

    found = families(site)

    states = {sample.labels["state"]: sample.value for sample in found["dramatiq_diag_workers"].samples}
    assert states == {"live": 4, "lost": 2}
    for name, expected in (("threads", {"a": 12, "b": 2}), ("threads_busy", {"a": 1, "b": 0})):
        gauge = found[f"dramatiq_diag_worker_{name}"]
        assert {sample.labels["hostname"]: sample.value for sample in gauge.samples} == expected


# The dashboard and the alerts of the documentation.


def expressions() -> list[str]:
    dashboard = json.loads((ROOT / "docs/grafana/dashboard.json").read_text())
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    variables = [
        variable["query"]["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"
    ]
    alerts = re.findall(r"expr: (.+)", (ROOT / "docs/metrics.md").read_text())
    assert (len(panels), len(variables), len(alerts)) == (13, 1, 4)
    return panels + variables + alerts


def announce_stuck(site: Site) -> None:
    run = run_record(actor_name="hang", status=RunStatus.RUNNING, finished_at=None, duration_ms=None)
    site.store.announce([run])
    with site.store.session() as session:
        assert mark_stuck(session, [run.run_id]) == {run.run_id}


@pytest.mark.parametrize("expression", expressions())
def test_each_query_asks_for_metrics_and_labels_that_are_served(site: Site, expression: str) -> None:
    site.publish("task-1", [memory_artifact()], queue_wait_ms=1.0)
    announce_stuck(site)
    note(site, report())
    labels: dict[str, set[str]] = {}
    for family in families(site).values():
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)

    names = set(re.findall(r"dramatiq_diag_\w+", expression))

    assert names
    assert names <= labels.keys()
    grouped = [name for group in re.findall(r"by \(([^)]*)\)", expression) for name in group.split(", ")]
    matched = re.findall(r"(\w+)=~?\"", expression)
    for name in names:
        assert {*grouped, *matched} <= labels[name]


def test_the_documentation_names_each_metric_and_no_other(site: Site) -> None:
    documented = re.findall(r"^\| `(dramatiq_diag_\w+)`", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
    site.publish("task-1", [memory_artifact()], queue_wait_ms=1.0)
    served = {f"{name}_total" if family.type == "counter" else name for name, family in families(site).items()}
    assert sorted(documented) == sorted(served)
