"""The OpenAPI document, and whether the app does what it says."""

from __future__ import annotations

import collections
import contextlib
import re
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from dramatiq_diag.store.worker_actors import note_actors
from support.openapi import CHECKS
from support.web import Site, memory_artifact, profile_artifact

#: The pages and the JSON have the same addresses.
ACCEPTED = ("application/json", "text/html")


@pytest.fixture
def published(site: Site) -> Site:
    """Runs of all kinds, whose ids are known."""
    files = [memory_artifact(), profile_artifact()]
    site.publish("t", files)
    site.publish("t", files, exception_type="ValueError", exception_message="x", exception_traceback="y")
    site.publish("other", files)
    with site.store.session() as session:
        note_actors(session, {"without_runs": "default"})
    return site


@pytest.fixture
def known(published: Site) -> dict[str, Any]:
    """What stands for each part of an address that is there."""
    document = published.get("/tasks/other/profile_artifacts/").json
    artifact = document["artifacts"][0]
    url = urlsplit(document["urls"][artifact["name"]])
    return {
        "task_id": "t",
        "name": "crunch",
        "run_id": document["run"]["run_id"],
        "artifact_id": artifact["artifact_id"],
        "filename": artifact["filename"],
        "kind": "csv",
        "action": "pin",
        "query": dict(parse_qsl(url.query)),
    }


def test_it_describes_every_route(site: Site) -> None:
    document = site.get("/openapi.json").json
    assert document["openapi"].startswith("3.1")
    routes = {
        re.sub(r":path", "", route.uri_template).rstrip("/")
        for route in _routes(site)
        if not route.uri_template.startswith(("/static", "/openapi.json")) and route.uri_template != "/"
    }
    described = {path.rstrip("/") for path in document["paths"]}
    assert {route for route in routes if route != "/tasks/{path}"} <= described
    assert {"/tasks/{task_id}", "/tasks/{task_id}/profile_artifacts"} <= described
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert method == "parameters" or operation["summary"].endswith("."), path


def _routes(site: Site) -> list[Any]:
    """All routes of the app, out of Falcon's tree."""
    found, nodes = [], list(site.app._router._roots)  # type: ignore[attr-defined]
    while nodes:
        node = nodes.pop()
        nodes += node.children
        if node.resource is not None:
            found.append(node)
    return found


@pytest.mark.filterwarnings("ignore")  # Of Schemathesis and of what it works with.
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize("with_known", [True, False])
def test_schemathesis_finds_no_error_and_nothing_undocumented(
    published: Site, known: dict[str, Any], mode: GenerationMode, with_known: bool
) -> None:
    schema = schemathesis.openapi.from_wsgi("/openapi.json", published.app)
    answered: dict[str, collections.Counter[int]] = {accept: collections.Counter() for accept in ACCEPTED}
    for found in schema.get_all_operations():
        operation = found.ok()
        names = [name for name in known if f"{{{name}}}" in operation.path]
        if with_known and not names:
            continue  # The cases would be those of the test without what is known: none is random.
        given_path = {name: known[name] for name in names} if with_known else None

        @settings(
            max_examples=25, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
        )
        @given(case=operation.as_strategy(mode, path_parameters=given_path))
        def ask(case: Any) -> None:
            for accept, statuses in answered.items():  # To come by a case takes most of the time.
                response = case.call(headers={"Accept": accept})
                case.validate_response(response, checks=CHECKS)
                statuses[response.status_code] += 1

        with contextlib.suppress(Unsatisfiable):  # An operation without parameters has nothing to get wrong.
            ask()
    for statuses in answered.values():
        assert statuses.total() > 100
        assert statuses[400] + statuses[404] > 0
        assert 200 in statuses or mode is GenerationMode.NEGATIVE
        if with_known:
            assert 400 in statuses or mode is GenerationMode.POSITIVE


def test_known_addresses_answer_as_described(published: Site, known: dict[str, Any]) -> None:
    """What Schemathesis is not likely to come upon."""
    schema = schemathesis.openapi.from_wsgi("/openapi.json", published.app)
    for path, query in (
        ("/compare/", {"a": known["run_id"], "b": known["run_id"]}),
        ("/artifacts/{artifact_id}/{filename}", known["query"]),
        ("/artifacts/{artifact_id}/{filename}", {**known["query"], "format": "csv"}),
        ("/tasks/", {"sort": "slowest", "limit": "1"}),
        ("/actors/", {}),
        ("/storage/", {}),
    ):
        for accept in ACCEPTED:
            given_path = {name: value for name, value in known.items() if f"{{{name}}}" in path}
            case = schema[path]["GET"].Case(path_parameters=given_path, query=query)
            while (response := case.call(headers={"Accept": accept})).status_code == 202:
                case.validate_response(response, checks=CHECKS)
            case.validate_response(response, checks=CHECKS)
            assert response.status_code == 200, response.text
