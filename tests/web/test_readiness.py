"""Whether the server and what it needs answer, and what it still answers where the blobs are away."""

from __future__ import annotations

import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import falcon
import pytest
from falcon.testing import TestClient

from dramatiq_diag import Settings
from dramatiq_diag.store.migration import migrate
from dramatiq_diag.store.store import Store
from dramatiq_diag.web import create_app
from dramatiq_diag.web.http.documents import Part
from dramatiq_diag.web.resources.health import ReadyResource
from support import PATIENCE_S, eventually
from support.records import bundle
from support.web import TOKEN, Site, assert_problem, memory_artifact, path_of, profile_artifact

HTML = {"Accept": "text/html"}


@pytest.mark.parametrize("token", [TOKEN, None])
def test_it_is_ready_without_a_token_and_before_a_worker_ran(make_site: Callable[..., Site], token: str | None) -> None:
    site = make_site(api_token=token)
    result = site.get("/readyz")
    assert (result.status_code, result.json) == (200, {"status": "ok", "failing": []})
    assert site.get("/readyz/").status_code == 200
    assert site.client.simulate_head("/readyz").status_code == 200


def test_the_first_request_may_be_that(tmp_path: Path) -> None:
    app = create_app(Settings(data_dir=tmp_path / "data"), insecure=True)
    assert TestClient(app, headers={"Host": "localhost"}).simulate_get("/readyz").json["status"] == "ok"
    app.close()


def test_a_database_that_is_away_is_named_alone_and_again_there_it_is_ready(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = Settings(data_dir=tmp_path / "data")
    store = Store(own)
    store.open()
    store.close()
    away = own.data_dir / "diagnostics.db"
    hidden = away.rename(tmp_path / "hidden.db")
    away.mkdir()
    app = create_app(own, insecure=True)
    client = TestClient(app, headers={"Host": "localhost"})
    result = client.simulate_get("/readyz")
    assert (result.status_code, result.json) == (503, {"status": "unavailable", "failing": ["database"]})
    assert "the database cannot be used" in caplog.text
    assert str(tmp_path) not in result.text
    assert client.simulate_get("/healthz").status_code == 200
    away.rmdir()
    hidden.rename(away)
    assert client.simulate_get("/readyz").status_code == 200
    app.close()


@pytest.fixture
def without_blobs(site: Site) -> Site:
    """A site with runs, whose blobs went away."""
    site.publish("task-1", [memory_artifact(), profile_artifact()])
    site.store.blobs.root.rename(site.settings.data_dir / "not mounted")
    return site


def test_blobs_that_are_away_are_named(without_blobs: Site) -> None:
    result = without_blobs.get("/readyz")
    assert (result.status_code, result.json) == (503, {"status": "unavailable", "failing": ["blobs"]})


def test_blobs_of_another_store_are_named(site: Site) -> None:
    (site.store.blobs.root / ".store-id").write_text("8b00c56a-0f40-48bb-9e96-0123456789ab\n")
    assert site.get("/readyz").json["failing"] == ["blobs"]


def test_a_directory_of_the_same_store_that_was_not_claimed_is_named(site: Site) -> None:
    identity = site.store.identity()
    site.store.blobs.write_id(replace(identity, root_id=uuid.uuid4()), replace=True)
    assert site.get("/readyz").json["failing"] == ["blobs"]


def test_a_probe_claims_no_directory_that_the_workers_do_not_have(tmp_path: Path, database_url: str | None) -> None:
    # With SQLite they share the file.
    shared = database_url or f"sqlite:///{tmp_path}/shared.db"
    migrate(Settings(database_url=shared))
    web, worker = (Settings(database_url=shared, data_dir=tmp_path / name) for name in ("web", "worker"))
    app = create_app(web, insecure=True)
    client = TestClient(app, headers={"Host": "localhost"})

    assert client.simulate_get("/readyz").json["status"] == "ok"  # There are no blobs yet.
    with closing(Store(worker)) as store:
        store.publish([bundle()])
        assert store.identity().root_id == store.blobs.see_root().root_id

    assert client.simulate_get("/readyz").json["failing"] == ["blobs"]
    assert not (tmp_path / "web" / "blobs").exists()
    app.close()


def test_the_pages_are_there_and_say_so_beside_each_artifact(without_blobs: Site) -> None:
    page = without_blobs.get("/tasks/task-1/", headers={"Host": "localhost", **HTML})
    assert page.status_code == 200
    assert page.text.count("cannot be read now") == 2
    assert str(without_blobs.store.blobs.root) in page.text
    for path in ("/tasks/", "/actors/crunch/", "/actors/"):
        assert without_blobs.get(path, headers={"Host": "localhost", **HTML}).status_code == 200
    urls = without_blobs.get("/tasks/task-1/profile_artifacts/").json["urls"]
    assert "blob directory" in assert_problem(without_blobs.get(path_of(urls["memory_profile"])), 503)


def test_readable_blobs_are_not_mentioned(site: Site) -> None:
    site.publish("task-1", [memory_artifact()])
    assert "cannot be read" not in site.get("/tasks/task-1/", headers={"Host": "localhost", **HTML}).text


def test_an_app_whose_blobs_are_away_from_the_start_answers(without_blobs: Site) -> None:
    app = create_app(without_blobs.settings, insecure=True)
    client = TestClient(app, headers={"Host": "localhost"})
    assert len(client.simulate_get("/tasks/").json["runs"]) == 1
    assert client.simulate_get("/tasks/task-1/", headers={"Host": "localhost", **HTML}).status_code == 200
    assert not without_blobs.store.blobs.root.exists()
    app.close()
    shutil.rmtree(without_blobs.settings.data_dir / "not mounted")


# Parts that neither answer nor fail.


class Hanging:
    """A question that is answered when the test says so."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.asked = 0

    def __call__(self) -> None:
        self.asked += 1
        assert self.go_on.wait(PATIENCE_S)


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    hanging = Hanging()
    yield hanging
    hanging.go_on.set()
    eventually(
        lambda: not any(thread.name == "dramatiq_diag.readiness" for thread in threading.enumerate()), "threads ended"
    )


def probe(site: Site, hanging: Part) -> Any:
    """A probe of an app of its own, which waits a tenth of a second for the part that hangs, and long for the other."""
    app: falcon.App[falcon.Request, falcon.Response] = falcon.App()
    app.add_route("/readyz", ReadyResource(site.backend, {hanging: 0.1}))
    return TestClient(app)


def test_a_database_that_hangs_is_named_in_time_and_asked_once(
    site: Site, hanging: Hanging, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @contextmanager
    def session() -> Iterator[Any]:
        hanging()
        with site.store.session() as opened:
            yield opened

    monkeypatch.setattr(site.backend, "session", session)
    client = probe(site, "database")

    for _ in range(3):
        assert client.simulate_get("/readyz").json == {"status": "unavailable", "failing": ["database"]}
    assert hanging.asked == 1
    assert "the database cannot be used: It did not answer within 0.1 s." in caplog.text

    hanging.go_on.set()
    eventually(lambda: client.simulate_get("/readyz").status_code == 200, "it is ready again")


def test_blobs_that_hang_are_named_in_time_and_asked_once(
    site: Site, hanging: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_id = site.backend.blobs.read_id

    def read_late() -> Any:
        hanging()
        return read_id()

    monkeypatch.setattr(site.backend.blobs, "read_id", read_late)
    client = probe(site, "blobs")

    for _ in range(3):
        assert client.simulate_get("/readyz").json == {"status": "unavailable", "failing": ["blobs"]}
    assert hanging.asked == 1

    hanging.go_on.set()
    eventually(lambda: client.simulate_get("/readyz").status_code == 200, "it is ready again")
