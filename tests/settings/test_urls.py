"""URLs of settings: no password is in any output, whatever the shape of the URL, and links of traces have their id."""

from __future__ import annotations

import json
import logging
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dramatiq_diag import Settings
from dramatiq_diag.cli import main
from dramatiq_diag.errors import DiagnosticsError, SettingsError
from dramatiq_diag.settings.urls import read_database_url, shown_url
from dramatiq_diag.store.store import Store
from support.cli import make_runner

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
    result = make_runner().invoke(main, command)
    assert result.exit_code in (1, 2)
    assert SECRET not in result.stdout + result.stderr
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
def test_the_parts_of_a_url_that_help_are_shown(url: str, shown: str) -> None:
    assert shown_url(read_database_url(url)) == shown


def test_the_doctor_names_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAMATIQ_DIAG_DATA_DIR", str(tmp_path))
    checks = json.loads(make_runner().invoke(main, ["doctor", "--json"]).stdout)["checks"]
    [database] = [check for check in checks if check["name"] == "database"]
    assert f"sqlite:///{tmp_path}/diagnostics.db" in database["detail"]


TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize(
    ("url", "link"),
    [
        ("https://jaeger.example/trace/{trace_id}", f"https://jaeger.example/trace/{TRACE_ID}"),
        ("http://[::1]:16686/trace/{trace_id}?ui=1", f"http://[::1]:16686/trace/{TRACE_ID}?ui=1"),
        (
            "https://g.example/explore?left={%22q%22:%22{trace_id}%22}",
            f"https://g.example/explore?left={{%22q%22:%22{TRACE_ID}%22}}",
        ),
        ("https://app.example/#/t/{trace_id}/{0}", f"https://app.example/#/t/{TRACE_ID}/{{0}}"),
    ],
)
def test_the_url_of_a_trace_has_its_id(url: str, link: str) -> None:
    settings = Settings(trace_url=url)
    assert settings.url_of_trace(TRACE_ID) == link
    assert settings.url_of_trace(None) is None
    assert Settings().url_of_trace(TRACE_ID) is None


@pytest.mark.parametrize(
    "url",
    [
        "https://jaeger.example/trace/",
        "https://jaeger.example/trace/{span_id}",
        "https://{trace_id}.example/",
        "https://{trace_id}.example/{trace_id}",
        f"https://user:{SECRET}@jaeger.example/{{trace_id}}",
        "javascript:alert('{trace_id}')",
        "ftp://jaeger.example/{trace_id}",
        "//jaeger.example/{trace_id}",
        "{trace_id}",
        "https:///{trace_id}",
        7,
    ],
)
def test_another_url_of_traces_is_refused(url: Any) -> None:
    with pytest.raises(SettingsError, match="DRAMATIQ_DIAG_TRACE_URL") as caught:
        Settings(trace_url=url)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("https://x.example/é", "https://x.example/%C3%A9"),
        ("https://x.example/日本/", "https://x.example/%E6%97%A5%E6%9C%AC"),
        ("https://x.example/%C3%A9/a~b(1);c='2'", "https://x.example/%C3%A9/a~b(1);c='2'"),
        ('https://x.example/a"<b>', "https://x.example/a%22%3Cb%3E"),
        ("https://Diag.example:443/Here/", "https://Diag.example:443/Here"),
    ],
)
def test_the_path_of_the_public_url_is_quoted_once(url: str, read: str) -> None:
    assert Settings(public_url=url).public_url == read
    assert Settings(public_url=read).public_url == read


def test_the_host_of_the_public_url_is_that_of_dns() -> None:
    with pytest.raises(SettingsError, match="xn--"):
        Settings(public_url="https://bücher.example/")
    assert Settings(public_url="https://xn--bcher-kva.example/").public_url == "https://xn--bcher-kva.example"
