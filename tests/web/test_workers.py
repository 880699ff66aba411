"""The worker processes: as a document, as a page and by the command, from what they report."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, event, select, update

from dramatiq_diag import Settings
from dramatiq_diag.statuses import RunStatus
from dramatiq_diag.store.models import Worker
from dramatiq_diag.store.worker_actors import note_actors
from dramatiq_diag.store.workers import note_goodbye
from dramatiq_diag.worker.tuning import TUNING, Tuning
from support import eventually
from support.hanging import hanging
from support.pages import HOSTILE
from support.records import executed_task, run_record
from support.web import Site, assert_problem
from support.workers import report

SOON = Tuning(attention_s=0.05, report_s=0.05)
HTML = {"Accept": "text/html"}

#: Whether a process lives, and how long ago it was heard of, is as a test says, however slow it is.
pytestmark = pytest.mark.usefixtures("stopped_clock")


def listed(site: Site, query: str = "") -> list[dict[str, Any]]:
    answered = site.get(f"/workers/{query}")
    assert answered.status_code == 200
    workers: list[dict[str, Any]] = answered.json["workers"]
    return workers


def test_a_process_is_shown_as_it_reported_itself(site: Site) -> None:
    worker_id = report(site.store, executed_task("one"), queues=["a", "b"], spool_bytes=7, seen_s_ago=3.0)
    (worker,) = listed(site)
    assert worker["worker_id"] == str(worker_id)
    assert (worker["hostname"], worker["pid"], worker["version"], worker["state"]) == ("host", 4711, "1", "live")
    assert (worker["queues"], worker["threads"], worker["threads_busy"]) == (["a", "b"], 8, 1)
    figures = worker["rss_bytes"], worker["cpu_s"], worker["diagnostics_cpu_s"], worker["spool_bytes"]
    assert figures == (100_000_000, 1.5, 0.25, 7)
    assert worker["heard_s_ago"] == 3.0


def test_a_task_has_its_age_and_what_its_actor_usually_takes(site: Site) -> None:
    for duration_ms in (1000.0, 3000.0, 2000.0):
        site.publish("before", actor_name="work", duration_ms=duration_ms)
    with site.store.session() as session:
        note_actors(session, {"work": "default"})
    record = run_record(task_id="running", status=RunStatus.RUNNING, finished_at=None, duration_ms=None)
    site.store.announce([record])
    # The clock of the host does not matter: the process reports an age.
    far = "2031-01-01T00:00:00.000000Z"
    report(
        site.store,
        executed_task("running", run_id=str(record.run_id), age_s=10.0),
        executed_task("shown", started_at=far, age_s=0.0),
        seen_s_ago=5.0,
    )

    first, second = listed(site)[0]["runs"]

    assert (first["run_id"], first["attempt"], first["status"]) == (str(record.run_id), 1, "running")
    assert (first["href"], second["href"]) == ("/tasks/running/", "/tasks/shown/")
    assert (first["usual_duration_ms"], first["is_stuck"]) == (2000.0, False)
    assert first["age_s"] == 15.0
    assert (second["run_id"], second["attempt"]) == (None, None)
    assert second["age_s"] == 5.0


def test_processes_of_now_are_listed_and_on_request_all_of_a_day(site: Site) -> None:
    live, lost, long_lost, gone = (
        report(site.store),
        report(site.store, seen_s_ago=60.0),
        report(site.store, seen_s_ago=7200.0),
        report(site.store, executed_task()),
    )
    with site.store.session() as session:
        note_goodbye(session, gone)

    assert {worker["worker_id"]: worker["state"] for worker in listed(site)} == {str(live): "live", str(lost): "lost"}
    states = {worker["worker_id"]: worker["state"] for worker in listed(site, "?all=true")}
    assert states == {str(live): "live", str(lost): "lost", str(long_lost): "lost", str(gone): "gone"}
    assert len(listed(site, "?all=true&limit=2")) == 2
    assert_problem(site.get("/workers/?all=perhaps"), 400)


def test_a_process_of_an_older_version_has_nulls(site: Site) -> None:
    report(site.store)
    with site.store.session() as session:
        unknown = dict.fromkeys(("queues", "threads", "rss_bytes", "cpu_s", "diagnostics_cpu_s", "tasks"))
        session.execute(update(Worker).values(**unknown))
    (worker,) = listed(site)
    figures = ("queues", "threads", "threads_busy", "rss_bytes", "cpu_s", "diagnostics_cpu_s")
    assert [worker[name] for name in figures] == [None] * 6
    assert worker["runs"] == []
    assert site.get("/workers/", headers=HTML).status_code == 200


def test_a_run_that_was_published_since_the_report_is_no_longer_executed(site: Site) -> None:
    interrupted = site.publish("task", status=RunStatus.INTERRUPTED)
    tasks = [executed_task("task", run_id=str(interrupted)), executed_task("not diagnosed")]
    report(site.store, *tasks, seen_s_ago=60.0)
    (worker,) = listed(site)
    assert (worker["state"], worker["threads_busy"]) == ("lost", 1)
    assert [run["run_id"] for run in worker["runs"]] == [None]
    assert "When it was last heard of, it executed:" in site.get("/workers/", headers=HTML).text


def test_a_task_whose_id_was_cut_is_named_and_has_a_link_if_its_run_is_stored(site: Site) -> None:
    long = "x" * 1000
    run = run_record(task_id=long, status=RunStatus.RUNNING, finished_at=None, duration_ms=None)
    site.store.announce([run])
    report(site.store, executed_task(long, run_id=str(run.run_id)), executed_task(long))
    stored, cut = listed(site)[0]["runs"]
    assert (stored["task_id"], stored["href"]) == (long, f"/tasks/{long}/")
    assert (cut["task_id"], cut["href"]) == ("shown", None)
    assert 'href="None"' not in site.get("/workers/", headers=HTML).text


def test_a_thousand_processes_need_few_statements(site: Site) -> None:
    tasks = [executed_task(f"task {number}", run_id=str(uuid.uuid4())) for number in range(8)]
    for number in range(1000):
        report(site.store, *tasks, hostname=f"host-{number}")
    statements: list[str] = []
    event.listen(site.backend.store.engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
    assert len(listed(site)) == 1000
    assert len(statements) < 30


def test_hostile_names_are_escaped(site: Site) -> None:
    task = executed_task(HOSTILE, actor_name=HOSTILE) | {"task_id": HOSTILE}
    report(site.store, task, hostname=HOSTILE, queues=[HOSTILE])
    page = site.get("/workers/", headers=HTML)
    assert page.status_code == 200
    assert "pwned()</script>" not in page.text
    assert listed(site)[0]["runs"][0]["actor_name"] == HOSTILE


def test_the_page_says_how_workers_appear_here(site: Site) -> None:
    assert "has the middleware" in site.get("/workers/", headers=HTML).text


@pytest.mark.parametrize("diagnosed", [True, False])
def test_a_real_worker_is_live_with_its_task_and_gone_after_its_end(
    make_site: Callable[..., Site], bench: Any, diagnosed: bool
) -> None:
    site = make_site(task_diagnostics=["memory"])
    options = {} if diagnosed else {"diagnostics": []}
    with bench(site.settings, tuning=SOON, threads=2) as tasks:
        with hanging(tasks, **options) as (task_id, _):
            # The report may be made while the test declares the actor.
            eventually(
                lambda: (found := listed(site)) and found[0]["runs"] and found[0]["queues"],
                "the worker has reported its task and its queue",
            )
            (worker,) = listed(site)
            page = site.get("/workers/", headers=HTML).text
        assert (worker["state"], worker["threads"], worker["threads_busy"]) == ("live", 2, 1)
        assert worker["queues"] == ["tasks"]
        (run,) = worker["runs"]
        assert (run["task_id"], run["actor_name"]) == (task_id, "ask_silent_server")
        assert (run["run_id"] is not None) == diagnosed
        assert ("not diagnosed" in page) != diagnosed
        eventually(lambda: not listed(site)[0]["runs"], "the worker has reported the end of its task")
    assert listed(site) == []
    assert [worker["state"] for worker in listed(site, "?all=true")] == ["gone"]


def test_without_settings_a_worker_has_no_row(site: Site, bench: Any) -> None:
    off = Settings(data_dir=site.settings.data_dir, cleanup_interval=0)
    with bench(off, tuning=SOON) as tasks:
        tasks.run(lambda: None)
    with site.store.session() as session:
        assert session.execute(select(Worker)).all() == []


@pytest.mark.parametrize(
    ("report_s", "statement"),
    [(0.0, "INSERT INTO dramatiq_diag_workers"), (3600.0, "SELECT dramatiq_diag_workers.attention")],
)
def test_each_step_of_a_process_that_nobody_asks_is_one_statement(
    make_site: Callable[..., Site], bench: Any, report_s: float, statement: str
) -> None:
    # Every 5 s a report, and every 5 s a look: two small queries.
    assert TUNING.report_s == 2 * TUNING.attention_s == 5.0
    site = make_site(task_diagnostics=["memory"], cleanup_interval=0)
    statements: list[str] = []

    def note(*call: Any) -> None:
        statements.append(call[2])

    with bench(site.settings, tuning=Tuning(attention_s=0.02, report_s=report_s, captures_s=3600.0)):
        eventually(lambda: listed(site), "the worker has reported itself")
        event.listen(Engine, "before_cursor_execute", note)
        try:
            eventually(lambda: len(statements) > 40, "it has taken many steps")
        finally:
            event.remove(Engine, "before_cursor_execute", note)
    assert [text.startswith(statement) for text in statements[20:40]] == [True] * 20


def test_the_command_lists_what_the_document_has(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from dramatiq_diag.cli import main
    from support.cli import make_runner

    monkeypatch.setenv("DRAMATIQ_DIAG_DATA_DIR", str(site.settings.data_dir))
    report(site.store, executed_task("task", actor_name="\x1b[31mwork"), queues=["a"])
    text = make_runner().invoke(main, ["workers"])
    document = json.loads(make_runner().invoke(main, ["workers", "--json"]).stdout)
    assert text.exit_code == 0
    assert "\x1b" not in text.stdout
    assert "1 of 8" in text.stdout
    assert "They execute:" in text.stdout
    assert document["workers"][0]["runs"][0]["actor_name"] == "\x1b[31mwork"


@pytest.mark.parametrize("value", ["yes", "1", "on", "TRUE"])
def test_all_is_true_or_false_and_nothing_else(site: Site, value: str) -> None:
    assert "`all`" in assert_problem(site.get(f"/workers/?all={value}"), 400)
    assert site.get("/workers/?all=true").status_code == 200
