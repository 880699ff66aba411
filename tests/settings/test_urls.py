"""No password of the database is in any output, whatever the shape of its URL."""

from __future__ import annotations

import json
import logging
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from dramatiq_diag import Settings
from dramatiq_diag.cli import main
from dramatiq_diag.errors import DiagnosticsError
from dramatiq_diag.settings.urls import read_database_url, shown_url
from dramatiq_diag.store.store import Store

SECRET = "hunter2xyzzy"

#: Nothing listens there, so that each of them fails at once.
SHAPES = [
    f"postgresql://user:{SECRET}@127.0.0.1:9/name",
    f"postgresql://user@127.0.0.1:9/name?password={SECRET}",
    f"postgresql://127.0.0.1:9/name?user=u&password={SECRET}",
    f"postgresql:///name?host=127.0.0.1&port=9&password={SECRET}",
    f"postgresql://user@127.0.0.1:9/name?sslpassword={SECRET}",
    f"postgresql://user@127.0.0.1:9/name?passfile=/nowhere/{SECRET}",
    f"postgresql://user@127.0.0.1:9/name?passwort={SECRET}",
    f"postgresql://user@127.0.0.1:9/name?options=-c%20app.key%3D{SECRET}",
    f"postgresql://user@127.0.0.1:9/dbname=name password={SECRET}",
    f"postgresql://user@127.0.0.1:9/postgresql://u:{SECRET}@h/name",
    f"postgresql+psycopg://user:{SECRET}@127.0.0.1:9/name?password={SECRET}",
    f"postgresql+psycopg2://user:{SECRET}@127.0.0.1:9/name",
    f"sqlite:///file:/nowhere/name.db?uri=true&key={SECRET}",
    # Not allowed.
    f"mysql://user:{SECRET}@127.0.0.1/name",
    f"postgresql://user:{SECRET}@127.0.0.1:port/name",
    f"{SECRET}",
]


@pytest.mark.parametrize("url", SHAPES)
@pytest.mark.parametrize(
    "command", [["doctor"], ["doctor", "--json"], ["migrate"], ["tasks"], ["check"], ["cleanup"]], ids=" ".join
)
def test_no_command_says_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, url: str, command: list[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("DRAMATIQ_DIAG_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("DRAMATIQ_DIAG_DATABASE_URL", url)
    result = CliRunner().invoke(main, command)
    assert result.exit_code in (1, 2)
    assert SECRET not in result.output
    assert SECRET not in caplog.text


@pytest.mark.parametrize("url", SHAPES[:-3])
def test_no_error_and_no_description_has_it(tmp_path: Path, url: str) -> None:
    settings = Settings(data_dir=tmp_path / "data", database_url=url)
    assert SECRET not in f"{settings!r} {settings}"
    assert SECRET not in shown_url(settings.database)
    with pytest.raises(DiagnosticsError) as caught, closing(Store(settings)) as store:
        store.open()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"postgresql://user:{SECRET}@db.internal:6432/name", "postgresql+psycopg://user@db.internal:6432/name"),
        (f"postgresql:///name?host=/run/postgresql&password={SECRET}", "postgresql+psycopg:///name"),
        ("sqlite:////var/lib/a b/diagnostics.db", "sqlite:////var/lib/a b/diagnostics.db"),
    ],
)
def test_what_helps_is_shown(url: str, shown: str) -> None:
    assert shown_url(read_database_url(url)) == shown


def test_the_doctor_names_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAMATIQ_DIAG_DATA_DIR", str(tmp_path))
    checks = json.loads(CliRunner().invoke(main, ["doctor", "--json"]).output)["checks"]
    [database] = [check for check in checks if check["name"] == "database"]
    assert f"sqlite:///{tmp_path}/diagnostics.db" in database["detail"]
