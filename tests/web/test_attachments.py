"""Attachments over HTTP: made, followed and downloaded while the task runs; and the form of its page."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest

from dramatiq_diag.store.questions import QuestionKind, ask
from dramatiq_diag.store.records import FinishedRun
from dramatiq_diag.store.store import Store
from dramatiq_diag.store.workers import note_worker
from support import eventually
from support.attachments import SOON, Attaching
from support.hanging import hanging
from support.records import artifact_record, executed_task, run_record, worker_report
from support.web import Site, assert_problem

HTML = {"Accept": "text/html"}


def test_a_running_task_is_attached_to_and_its_files_are_there_before_it_ends(
    make_site: Callable[..., Site], bench: Any
) -> None:
    site = make_site(task_diagnostics_on_request=["memory", "pyinstrument"])
    ask = Attaching(site.store)
    with bench(site.settings, tuning=SOON) as tasks, hanging(tasks) as (task_id, _):
        eventually(lambda: ask.is_executed(task_id), "the worker has said that it executes the task")
        made = site.client.simulate_post(
            f"/tasks/{task_id}/attachments/", json={"diagnostics": ["memory", "pyinstrument"], "for_s": 1}
        )
        assert made.status_code == 201, made.text
        assert made.json["state"] in ("pending", "active")
        assert (made.json["task_id"], made.json["urls"], made.json["artifacts"]) == (task_id, {}, [])
        assert made.headers["location"].endswith(made.json["href"])
        attachment_id = made.json["attachment_id"]

        def answer() -> dict[str, Any]:
            return site.client.simulate_get(f"/attachments/{attachment_id}/").json

        eventually(lambda: answer()["state"] == "done", "it is done")
        document = answer()
        assert {*document["urls"]} == {"memory_profile", "pyinstrument_profile"}
        assert document["run_id"] is not None
        assert document["diagnostics"] == {"memory": {}, "pyinstrument": {}}
        for url in document["urls"].values():
            assert site.client.simulate_get(re.sub(r"^\w+://[^/]+", "", url)).status_code == 200
        page = site.client.simulate_get(f"/tasks/{task_id}/", headers=HTML)
        assert "Attachments" in page.text
        assert "memory.datum" in page.text
        own = site.client.simulate_get(f"/tasks/{task_id}/profile_artifacts/").json
        assert (own["run"]["status"], own["artifacts"], own["urls"]) == ("running", [], {})
        (attached,) = own["attachments"]
        assert (attached["attachment_id"], {*attached["urls"]}) == (attachment_id, {*document["urls"]})


def test_all_running_tasks_of_an_actor_are_attached_to(make_site: Callable[..., Site]) -> None:
    site = make_site(task_diagnostics=["memory"])
    tasks = [{**executed_task(task_id), "task_id": task_id} for task_id in ("one", "two")]
    with site.store.session() as session:
        note_worker(session, worker_report(tasks=tasks))
    actor_name = tasks[0]["actor_name"]
    made = site.client.simulate_post(f"/actors/{actor_name}/attachments/", json={"diagnostics": ["memory"]})
    assert made.status_code == 201, made.text
    assert [each["task_id"] for each in made.json["attachments"]] == ["one", "two"]
    refused = site.client.simulate_post("/actors/other/attachments/", json={"diagnostics": ["memory"]})
    assert "executes a task of 'other'" in assert_problem(refused, 404)


def test_the_form_of_the_page_attaches(make_site: Callable[..., Site], bench: Any) -> None:
    site = make_site(task_diagnostics=["memory"])
    ask = Attaching(site.store)
    with bench(site.settings, tuning=SOON) as tasks, hanging(tasks) as (task_id, _):
        eventually(lambda: ask.is_executed(task_id), "the worker has said that it executes the task")
        path = f"/tasks/{task_id}/"
        page = site.client.simulate_get(path, headers=HTML).text
        form = page[page.index('action="/attachments/forms/start"') :]
        token = form.partition('name="token" value="')[2].partition('"')[0]
        fields = {"task_id": task_id, "diagnostics": "memory", "options": "", "seconds": "600", "token": token}
        made = site.client.simulate_post("/attachments/forms/start", **as_form(fields))
        assert made.status_code == 303, made.text
        assert "memory" in site.client.simulate_get(path, headers=HTML).text
        stale = {**fields, "token": "no"}
        assert_problem(site.client.simulate_post("/attachments/forms/start", **as_form(stale)), 403)


def as_form(fields: dict[str, str]) -> dict[str, Any]:
    return {"body": urlencode(fields), "headers": {"Content-Type": "application/x-www-form-urlencoded"}}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"diagnostics": ["memray"]}, "neither TASK_DIAGNOSTICS nor"),
        ({"diagnostics": []}, "must be a list of 1 to 50 names"),
        ({"diagnostics": None}, "must be a list of 1 to 50 names"),
        ({"diagnostics": {"memory": None}}, "an object that has for each such name an object"),
        ({"diagnostics": ["memory"], "for_s": None}, "`for_s` is null; it must be a valid number"),
        ({"diagnostics": ["memory"], "for_s": 0.1}, "for_s"),
        ({"diagnostics": {"memory": {"interval": -1}}}, "memory.interval"),
        ({"diagnostics": {"memory": {"colour": 1}}}, "no option"),
        ({"diagnostics": ["memory"], "more": 1}, "more"),
    ],
)
def test_a_wrong_request_is_refused(make_site: Callable[..., Site], body: dict[str, Any], text: str) -> None:
    site = make_site(task_diagnostics=["memory"])
    refused = site.client.simulate_post("/tasks/task/attachments/", json=body)
    assert text.lower() in assert_problem(refused, 400).lower()


def test_what_is_not_there_is_not_found(make_site: Callable[..., Site]) -> None:
    site = make_site(task_diagnostics=["memory"])
    refused = site.client.simulate_post("/tasks/task/attachments/", json={"diagnostics": ["memory"]})
    assert "worker process" in assert_problem(refused, 404)
    for attachment_id in ("no-id", "6f1c9f0e-9b1a-4f57-8c55-0d8f6a2f7c11"):
        assert_problem(site.client.simulate_get(f"/attachments/{attachment_id}/"), 404)


def test_a_page_of_another_site_cannot_attach(site: Site) -> None:
    headers = {"Sec-Fetch-Site": "cross-site"}
    refused = site.client.simulate_post("/tasks/task/attachments/", json={"diagnostics": ["memory"]}, headers=headers)
    assert "another site" in assert_problem(refused, 403)


@pytest.mark.parametrize("is_known", [True, False])
def test_a_run_with_nothing_but_attached_files_shows_and_deletes_them(
    make_site: Callable[..., Site], is_known: bool
) -> None:
    site = make_site(task_diagnostics=["memory"])
    run = run_record(task_id="t")
    attachment_id = ask_for(site.store, run.run_id) if is_known else uuid.uuid4()
    file = artifact_record(b"x", name="memray_profile", filename="memray.bin")
    attached = FinishedRun(
        run=replace(run.as_running(), is_attached=True), attachment_id=attachment_id, artifacts=[file]
    )
    site.store.publish([attached])
    site.store.publish([FinishedRun(run=run, artifacts=[])])

    page = site.client.simulate_get("/tasks/t/", headers=HTML).text
    assert "left no files" not in page
    assert ("only the files of its attachments" in page) == is_known
    assert page.count(">memray.bin</a>") == 1
    token = page.partition("/forms/delete")[2].partition('name="token" value="')[2].partition('"')[0]
    deleted = site.client.simulate_post(f"/runs/{run.run_id}/forms/delete", **as_form({"token": token}))
    assert deleted.status_code == 303, deleted.text

    page = site.client.simulate_get("/tasks/t/", headers=HTML).text
    assert "/forms/delete" not in page
    assert ">memray.bin</a>" not in page


def ask_for(store: Store, run_id: uuid.UUID) -> uuid.UUID:
    """Asks a process to attach to a run that it executes. Returns: The attachment's id."""
    task = {**executed_task("t"), "task_id": "t", "run_id": str(run_id)}
    with store.session() as session:
        note_worker(session, worker_report(tasks=[task]))
    return ask(store, QuestionKind.ATTACH, "t", {"request": {"memray": {}}, "for_s": 1.0}, expires_after_s=60.0)
