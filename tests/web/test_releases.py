"""The releases of an actor: in JSON, on its page, and on the command line."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from dramatiq_diag.cli import main
from dramatiq_diag.statuses import RunStatus
from support.cli import make_runner
from support.pages import page_of
from support.web import FIRST_START, Site


@pytest.fixture
def run_ids(site: Site) -> list[str]:
    """The runs of an actor, five in each of two releases, the second of which takes half as long again."""
    durations_ms = {"2.13": 1000.0, "2.14 <b>": 1500.0}
    return [
        str(site.publish(f"{release}-{number}", release=release, duration_ms=duration_ms, cpu_ms=duration_ms / 2))
        for release, duration_ms in durations_ms.items()
        for number in range(5)
    ]


def test_an_actor_has_its_releases(site: Site, run_ids: list[str]) -> None:
    newer, older = site.get("/actors/crunch/").json["releases"]

    assert newer == {
        "release": "2.14 <b>",
        "run_count": 5,
        "failed_count": 0,
        "first_started_at": f"{FIRST_START + timedelta(minutes=5):%Y-%m-%dT%H:%M:%S.%fZ}",
        "last_started_at": f"{FIRST_START + timedelta(minutes=9):%Y-%m-%dT%H:%M:%S.%fZ}",
        "median_duration_ms": 1500.0,
        "p95_duration_ms": 1500.0,
        "median_cpu_ms": 750.0,
        "max_peak_rss_bytes": 131072000,
        "typical_run_id": run_ids[-1],
        "typical_task_id": "2.14 <b>-4",
        "duration_ratio": 1.5,
    }
    assert (older["release"], older["duration_ratio"], older["typical_run_id"]) == ("2.13", None, run_ids[4])


def test_the_page_shows_the_change_and_compares_typical_runs(site: Site, run_ids: list[str]) -> None:
    page = page_of(site, "/actors/crunch/")
    text = " ".join(page.text.split())

    assert "2.14 <b> 5 0 1.50 s +50 % 1.50 s 750.0 ms 125.0 MiB" in text
    assert "2.13 5 0 1.00 s - 1.00 s 500.0 ms 125.0 MiB" in text
    compared = [link for link in page.links() if link.startswith("/compare/")]
    assert compared == [f"/compare/?a={run_ids[4]}&b={run_ids[-1]}"]
    assert site.get(compared[0]).status_code == 200
    assert "Release2.14 <b>" in page_of(site, "/tasks/2.14 <b>-4/").text


def test_the_command_shows_the_same(site: Site, run_ids: list[str]) -> None:
    environment = {"DRAMATIQ_DIAG_DATA_DIR": str(site.settings.data_dir)}
    runner = make_runner()

    shown = runner.invoke(main, ["releases", "crunch"], env=environment).stdout.splitlines()
    assert shown[0].split("  ")[0] == "RELEASE"
    assert [cell.strip() for cell in shown[1].split("  ") if cell][:5] == ["2.14 <b>", "5", "0", "1.50 s", "+50 %"]
    assert shown[1].rstrip().endswith("2.14 <b>-4")
    document = json.loads(runner.invoke(main, ["releases", "crunch", "--json"], env=environment).stdout)
    assert document["releases"] == site.get("/actors/crunch/").json["releases"]
    assert "  release 2.14 <b>\n" in runner.invoke(main, ["show", "2.14 <b>-4"], env=environment).stdout


def test_runs_that_name_no_release_make_no_table(site: Site) -> None:
    site.publish(status=RunStatus.SUCCEEDED)
    environment = {"DRAMATIQ_DIAG_DATA_DIR": str(site.settings.data_dir)}

    assert site.get("/actors/crunch/").json["releases"] == []
    assert "Releases" not in page_of(site, "/actors/crunch/").text
    assert "DRAMATIQ_DIAG_RELEASE" in make_runner().invoke(main, ["releases", "crunch"], env=environment).stdout
    unknown = make_runner().invoke(main, ["releases", "nobody"], env=environment)
    assert (unknown.exit_code, unknown.stdout) == (2, "")
    assert "'nobody'" in unknown.stderr
