"""Errors as problem documents."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from falcon.testing import TestClient

from dramatiq_diag import Settings
from dramatiq_diag.store.migration import migrate
from dramatiq_diag.store.store import Store
from dramatiq_diag.web import create_app
from support.web import MEMORY, Site, assert_problem, memory_artifact


@pytest.mark.parametrize("path", ["/nowhere", "/task", "/artifacts", "/artifacts/x", "/healthz/x"])
def test_an_unknown_address_is_not_found(site: Site, path: str) -> None:
    assert assert_problem(site.get(path), 404)


@pytest.mark.parametrize("path", ["/healthz", "/tasks/", "/tasks/x/", "/tasks/x/profile_artifacts/", "/artifacts/x/y"])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_another_method_is_not_allowed(site: Site, path: str, method: str) -> None:
    result = site.client.simulate_request(method, path)
    assert assert_problem(result, 405)
    assert {"GET", "HEAD"} <= set(result.headers["allow"].split(", "))


def test_an_unexpected_error_is_logged_and_not_told(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def on_get(self, *_: object) -> None:
            raise RuntimeError("the password is hunter2")

    site.app.add_route("/broken", Broken())
    result = site.get("/broken")
    assert "log has the cause" in assert_problem(result, 500)
    assert "hunter2" not in result.text
    assert "hunter2" in caplog.text
    assert "Traceback" in caplog.text


def test_a_database_of_another_version_is_unavailable_until_it_is_migrated(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", database_url=f"sqlite:///{tmp_path}/elsewhere.db")
    app = create_app(settings, insecure=True)
    client = TestClient(app, headers={"Host": "localhost"})
    assert "dramatiq-diag migrate" in assert_problem(client.simulate_get("/tasks/"), 503)
    assert client.simulate_get("/healthz").status_code == 200
    migrate(settings)
    assert client.simulate_get("/tasks/").json == {"runs": [], "next": None}
    app.close()


def test_a_data_dir_that_cannot_be_used_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    app = create_app(Settings(data_dir=tmp_path / "file"), insecure=True)
    client = TestClient(app, headers={"Host": "localhost"})
    assert str(tmp_path) in assert_problem(client.simulate_get("/tasks/"), 503)
    assert str(tmp_path) in assert_problem(client.simulate_get("/artifacts/x/y"), 503)
    assert client.simulate_get("/healthz").status_code == 200
    app.close()


def test_a_database_out_of_reach_is_unavailable(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    url = f"postgresql://nobody@/nothing?host={tmp_path}"
    app = create_app(Settings(data_dir=tmp_path / "data", database_url=url), insecure=True)
    assert "database cannot be used" in assert_problem(
        TestClient(app, headers={"Host": "localhost"}).simulate_get("/tasks/"), 503
    )
    app.close()


def test_tables_that_vanish_are_told(site: Site) -> None:
    from sqlalchemy import text

    assert site.get("/tasks/").status_code == 200
    with site.store.session() as session:
        session.execute(text("DROP TABLE dramatiq_diag_artifacts"))
        session.execute(text("DROP TABLE dramatiq_diag_task_runs"))
    assert "dramatiq-diag migrate" in assert_problem(site.get("/tasks/"), 503)


def test_the_web_part_names_the_extra_when_falcon_is_missing() -> None:
    script = (
        "import sys; sys.modules['falcon'] = None\n"
        "from dramatiq_diag.errors import NotInstalledError\n"
        "from dramatiq_diag.web import create_app\n"
        "from dramatiq_diag.web.server import Server\n"
        "for make in create_app, Server:\n"
        "    try: make()\n"
        "    except NotInstalledError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.count("pip install 'dramatiq_diag[web]'") == 2, done.stderr


def test_serving_names_the_extra_when_waitress_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from dramatiq_diag.errors import NotInstalledError
    from dramatiq_diag.web.server import Server

    monkeypatch.setitem(sys.modules, "waitress", None)
    with pytest.raises(NotInstalledError, match=r"pip install 'dramatiq_diag\[web\]'"):
        Server(Settings(data_dir=tmp_path))


def test_an_app_serves_again_after_it_was_closed(make_site: Callable[..., Site]) -> None:
    site = make_site()
    path = site.publish_one(memory_artifact())
    site.app.close()
    assert site.get(path).content == MEMORY


def test_the_environment_gives_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAMATIQ_DIAG_DATA_DIR", str(tmp_path / "from-environment"))
    app = create_app(insecure=True)
    assert TestClient(app, headers={"Host": "localhost"}).simulate_get("/tasks/").status_code == 200
    app.close()
    store = Store(Settings(data_dir=tmp_path / "from-environment"))
    assert store.store_id()
    store.close()


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/tasks/x/", {"GET", "HEAD", "OPTIONS"}),
        ("/tasks/x/profile_artifacts/", {"GET", "HEAD", "OPTIONS"}),
        ("/tasks/x/stacks/", {"POST", "OPTIONS"}),
        ("/actors/x/", {"GET", "HEAD", "OPTIONS"}),
        ("/actors/x/attachments/", {"GET", "HEAD", "POST", "OPTIONS"}),
    ],
)
def test_an_address_names_the_same_methods_whichever_it_refuses(site: Site, path: str, methods: set[str]) -> None:
    for method in {"POST", "PUT", "PATCH", "DELETE"} - methods:
        result = site.client.simulate_request(method, path)
        assert assert_problem(result, 405)
        assert set(result.headers["allow"].split(", ")) == methods
