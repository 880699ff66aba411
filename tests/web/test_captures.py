"""Captures over HTTP, and on the page of an actor."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
import schemathesis
from falcon.testing import Result
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from dramatiq_diag.documents.signing import Signer
from dramatiq_diag.store import captures
from dramatiq_diag.store.slots import MAX_OPEN
from dramatiq_diag.store.worker_actors import note_actors
from dramatiq_diag.web.resources.captures import form_subject
from support.openapi import CHECKS
from support.web import TOKEN, Site, assert_problem, memory_artifact

FORM = "application/x-www-form-urlencoded"
HTML = {"Accept": "text/html"}
WANTED = {"actor_name": "crunch", "diagnostics": ["memory"], "runs": 5, "for_s": 600}


@pytest.fixture
def able(make_site: Callable[..., Site]) -> Site:
    """A site whose settings allow captures, and whose workers have actors."""
    site = make_site(task_diagnostics_on_request=["memory", "memray"])
    know(site, "crunch", "other")
    return site


def know(site: Site, *names: str) -> None:
    """Says for a worker that it has these actors."""
    with site.store.session() as session:
        note_actors(session, dict.fromkeys(names, "default"))


def send(site: Site, method: str, path: str, **options: Any) -> Result:
    return site.client.simulate_request(method, path, **options)


def post(site: Site, document: Any, **headers: str) -> Result:
    every = {"Content-Type": "application/json"} | headers
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return send(site, "POST", "/captures/", body=body, headers=every)


def submit(site: Site, action: str, headers: dict[str, str] | None = None, **fields: Any) -> Result:
    """Sends a form of the page of `crunch`."""
    token = Signer(site.settings).action_token(form_subject("crunch"))
    form = {"token": token, "actor_name": "crunch"} | fields
    every = {"Content-Type": FORM} | (headers or {})
    return send(site, "POST", f"/captures/forms/{action}", body=urlencode(form, doseq=True), headers=every)


def captures_of(site: Site) -> Any:
    return site.get("/captures/?limit=1000").json["captures"]


def test_a_capture_is_made_shown_listed_and_ended(able: Site) -> None:
    made = post(able, WANTED)
    assert made.status_code == 201
    assert made.json["note"] is None
    assert made.headers["location"].endswith(made.json["href"])

    shown = able.get(made.json["href"]).json
    assert shown == {name: value for name, value in made.json.items() if name != "note"}
    assert (shown["state"], shown["captured_runs"], shown["run_limit"]) == ("open", 0, 5)
    assert shown["diagnostics"] == {"memory": {}}
    assert able.get("/captures/", params={"actor": "crunch"}).json == {"captures": [shown]}
    assert able.get("/captures/", params={"actor": "other"}).json == {"captures": []}

    ended = send(able, "DELETE", made.json["href"])
    assert (ended.status_code, ended.json["state"]) == (200, "ended")
    assert send(able, "DELETE", made.json["href"]).json == ended.json


def test_diagnostics_may_have_options_as_far_as_there_are_any(able: Site) -> None:
    wanted = {"memory": {}, "memray": {"native_traces": True}}
    made = post(able, WANTED | {"diagnostics": wanted})
    assert (made.status_code, made.json["diagnostics"]) == (201, wanted)
    assert "no option 'x'" in assert_problem(post(able, WANTED | {"diagnostics": {"memory": {"x": 1}}}), 400)
    assert "memory.interval" in assert_problem(post(able, WANTED | {"diagnostics": {"memory": {"interval": 0}}}), 400)


def test_an_actor_that_nobody_knows_is_refused_unless_it_is_asked_for_as_that(able: Site) -> None:
    wanted = {"actor_name": "crunsh", "diagnostics": ["memory"]}
    for given_name in ({}, {"unknown_actor": False}):
        detail = assert_problem(post(able, wanted | given_name), 400)
        assert "there is 'crunch'" in detail
        assert "`unknown_actor`" in detail
    assert captures_of(able) == []

    made = post(able, wanted | {"unknown_actor": True})
    assert (made.status_code, made.json["run_limit"]) == (201, 1)
    assert made.json["note"] == "No worker has said that it has this actor, and no run of it is stored yet."


def test_an_actor_of_a_stored_run_is_known(able: Site) -> None:
    able.publish(actor_name="old")
    assert post(able, WANTED | {"actor_name": "old"}).json["note"] is None


def test_the_runs_of_a_capture_are_found_by_it(able: Site) -> None:
    made = post(able, WANTED).json
    able.publish("asked", [memory_artifact()], capture_id=uuid.UUID(made["capture_id"]))
    able.publish("other", [memory_artifact()])
    assert [run["task_id"] for run in able.get(made["runs_href"]).json["runs"]] == ["asked"]
    page = able.get(made["runs_href"], headers=HTML).text
    assert "asked" in page
    assert ">other<" not in page
    assert assert_problem(able.get("/tasks/?capture=x"), 400)


@pytest.mark.parametrize(
    "changes",
    [
        # Names of actors.
        *(
            {"actor_name": name}
            for name in ("", "x" * 256, "a\0b", None, 1, ["crunch"], "dramatiq_diag.cleanup_orphans")
        ),
        # Diagnostics that are not allowed here, that there are not, or that are none.
        *(
            {"diagnostics": names}
            for names in (["pyinstrument"], ["x"], ["memory", "../x"], [], {}, None, "memory", [1])
        ),
        *({"diagnostics": options} for options in ({"memory": None}, {"memory": []}, {"x": {}}, ["memory"] * 51)),
        # Numbers out of bounds, or none.
        *({"runs": runs} for runs in (0, -1, 1001, 10**9, 10**400, 1.5, "5", True, None)),
        *({"for_s": length} for length in (0, 0.5, -1, 366 * 86400, 1e300, "1h", True, None)),
        # Whether the actor is known.
        *({"unknown_actor": value} for value in ("true", 1, None)),
        # What nobody knows.
        {"for": "1h"},
    ],
)
def test_a_wrong_capture_is_refused_with_the_reason(able: Site, changes: dict[str, Any]) -> None:
    assert assert_problem(post(able, WANTED | changes), 400)
    assert captures_of(able) == []


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"null", b"1", b'"x"', b"\xff", b"\x00", b"{}"),
        *(b"[" * 60_000, b'{"a":' * 10_000, b'{"actor_name": "\\ud800", "diagnostics": ["memory"]}'),
        *(
            b'{"actor_name": "x", "diagnostics": ["memory"], "for_s": %s}' % text
            for text in (b"NaN", b"Infinity", b"1e999")
        ),
    ],
    ids=lambda body: repr(body[:20]),
)
def test_a_malformed_body_is_refused(able: Site, body: bytes) -> None:
    assert assert_problem(post(able, body), 400)
    assert captures_of(able) == []


def test_a_huge_body_is_not_read(able: Site) -> None:
    huge = b'{"actor_name": "' + b"x" * 100_000 + b'"}'
    assert "at most" in assert_problem(post(able, huge), 413)
    assert assert_problem(submit(able, "start", diagnostics="x" * 100_000), 413)
    assert captures_of(able) == []


@pytest.mark.parametrize("content_type", ["text/plain", FORM, "multipart/form-data", "", "application/jsonx"])
def test_a_body_of_another_media_type_is_refused(able: Site, content_type: str) -> None:
    assert assert_problem(post(able, WANTED, **{"Content-Type": content_type}), 415)
    assert captures_of(able) == []


def test_where_nothing_may_be_asked_for_the_variable_is_named(site: Site) -> None:
    detail = assert_problem(post(site, WANTED), 400)
    assert "TASK_DIAGNOSTICS_ON_REQUEST has 'memory'" in detail


def test_no_more_captures_are_open_than_workers_look_at(able: Site) -> None:
    for _ in range(MAX_OPEN - 1):
        captures.create(able.store, "crunch", {"memory": {}}, 1, 600.0)
    assert post(able, WANTED).status_code == 201
    assert assert_problem(post(able, WANTED), 409)
    assert len(captures_of(able)) == MAX_OPEN


@pytest.mark.parametrize("capture_id", ["7c0a4c1e-53bb-4d0f-9f5e-2f6a8d1b7e90", "x", "%00", "'--", "forms"])
def test_an_unknown_capture_is_not_found(able: Site, capture_id: str) -> None:
    for method in ("GET", "DELETE"):
        assert assert_problem(send(able, method, f"/captures/{capture_id}/"), 404)


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}])
def test_another_sites_page_changes_nothing(able: Site, headers: dict[str, str]) -> None:
    href = post(able, WANTED).json["href"]
    assert assert_problem(post(able, WANTED, **headers), 403)
    assert assert_problem(send(able, "DELETE", href, headers=headers), 403)
    assert assert_problem(submit(able, "start", headers, diagnostics="memory", runs=1, minutes=1), 403)
    assert [capture["state"] for capture in captures_of(able)] == ["open"]


def test_the_token_of_the_api_is_asked_for(make_site: Callable[..., Site]) -> None:
    site = make_site(api_token=TOKEN, task_diagnostics_on_request=["memory"])
    assert assert_problem(post(site, WANTED), 401)
    assert assert_problem(site.get("/captures/"), 401)
    assert assert_problem(submit(site, "start", diagnostics="memory", runs=1, minutes=1), 401)
    assert post(site, WANTED | {"unknown_actor": True}, Authorization=f"Bearer {TOKEN}").status_code == 201


@pytest.mark.filterwarnings("ignore")  # Of Schemathesis and of what it works with.
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_captures_accept_and_answer_as_the_openapi_document_describes(able: Site, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_wsgi("/openapi.json", able.app)
    operation = schema["/captures/"]["POST"]
    statuses = set()

    @settings(max_examples=50, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(mode))
    def ask(case: Any) -> None:
        response = case.call()
        case.validate_response(response, checks=CHECKS)
        statuses.add(response.status_code)

    ask()
    assert statuses <= {201, 400, 409, 413, 415}
    good = operation.Case(body=WANTED, media_type="application/json").call()
    assert good.status_code == 201
    operation.Case(body=WANTED, media_type="application/json").validate_response(good, checks=CHECKS)


# The page.

OPTIONS = "memray.native_traces=true, memory.interval=0.1"


def test_the_page_of_an_actor_starts_shows_and_ends_captures(able: Site) -> None:
    able.publish(actor_name="crunch")
    page = able.get("/actors/crunch/", headers=HTML).text
    assert 'value="memory"' in page
    assert 'value="memray"' in page
    assert 'value="pyinstrument"' not in page
    token = re.findall(r'name="token" value="([^"]*)"', page)[0]

    started = submit(able, "start", token=token, diagnostics=["memory", "memray"], runs=3, minutes=10, options=OPTIONS)
    assert (started.status_code, started.headers["location"]) == (303, "/actors/crunch/")
    (capture,) = captures_of(able)
    wanted = {"memory": {"interval": 0.1}, "memray": {"native_traces": True}}
    assert (capture["diagnostics"], capture["run_limit"]) == (wanted, 3)
    page = able.get("/actors/crunch/", headers=HTML).text
    assert "0 of 3" in page
    assert "memory (interval=0.1), memray (native_traces=true)" in page
    assert f'href="{capture["runs_href"]}"' in page

    assert submit(able, "end", capture_id=capture["capture_id"]).status_code == 303
    assert captures_of(able)[0]["state"] == "ended"
    assert "forms/end" not in able.get("/actors/crunch/", headers=HTML).text


def test_the_page_of_an_actor_without_runs_starts_a_first_capture(able: Site) -> None:
    listed = {actor["actor_name"]: actor for actor in able.get("/actors/").json["actors"]}
    assert set(listed) == {"crunch", "other"}
    assert (listed["crunch"]["run_count"], listed["crunch"]["last_started_at"]) == (0, None)
    assert able.get("/actors/crunch/").json == {"actor": listed["crunch"], "releases": [], "runs": [], "next": None}
    assert 'href="/actors/crunch/"' in able.get("/actors/", headers=HTML).text

    page = able.get("/actors/crunch/", headers=HTML).text
    assert "No run of this actor is stored yet" in page
    assert "data-chart" not in page
    token = re.findall(r'name="token" value="([^"]*)"', page)[0]
    assert submit(able, "start", token=token, diagnostics=["memory"], runs=3, minutes=10).status_code == 303
    assert [capture["actor_name"] for capture in captures_of(able)] == ["crunch"]
    assert "0 of 3" in able.get("/actors/crunch/", headers=HTML).text


def test_the_page_says_where_nothing_may_be_asked_for(site: Site) -> None:
    site.publish(actor_name="crunch")
    page = site.get("/actors/crunch/", headers=HTML).text
    assert "TASK_DIAGNOSTICS_ON_REQUEST" in page
    assert "forms/start" not in page


def test_a_page_that_was_there_before_its_actor_was_forgotten_still_starts_a_capture(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(task_diagnostics_on_request=["memory"])
    assert assert_problem(site.get("/actors/crunch/"), 404)
    assert submit(site, "start", diagnostics="memory", runs=1, minutes=1).status_code == 303


def test_a_form_without_the_token_of_its_page_changes_nothing(able: Site) -> None:
    signer = Signer(able.settings)
    late = Signer(able.settings, clock=lambda: time.time() - 86405.0)  # A page that was opened a day ago.
    expired = late.action_token(form_subject("crunch"))
    others = signer.action_token(form_subject("other")), signer.action_token("crunch"), expired
    for token in ("", "x", "9999999999.", "9999999999.abc", *others):
        fields = {"token": token, "diagnostics": "memory", "runs": 1, "minutes": 1}
        assert assert_problem(submit(able, "start", **fields), 403)
    assert captures_of(able) == []


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        *(({"runs": runs}, 400) for runs in ("", "0", "-1", "x", "1.5", "1001", "9" * 30, "٣")),
        *(({"minutes": minutes}, 400) for minutes in ("", "0", "x", "43201", "9" * 400)),
        ({"diagnostics": []}, 400),
        ({"diagnostics": "pyinstrument"}, 400),
        *(({"options": text}, 400) for text in ("x", "memory.depth=1", "memory.interval=0", "memray.native_traces=1")),
        ({f"field{number}": "x" for number in range(200)}, 400),
    ],
)
def test_a_form_with_wrong_values_changes_nothing(able: Site, fields: dict[str, Any], status: int) -> None:
    assert assert_problem(submit(able, "start", **{"diagnostics": "memory", "runs": 1, "minutes": 1} | fields), status)
    assert captures_of(able) == []


def test_a_form_ends_captures_of_its_own_actor_only(able: Site) -> None:
    other = post(able, WANTED | {"actor_name": "other"}).json["capture_id"]
    for capture_id in (other, str(uuid.uuid4()), "x", ""):
        assert assert_problem(submit(able, "end", capture_id=capture_id), 404)
    assert assert_problem(submit(able, "explode"), 404)
    assert [capture["state"] for capture in captures_of(able)] == ["open"]
