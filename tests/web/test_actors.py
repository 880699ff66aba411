"""The list of actors: what each used of the machine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from dramatiq_diag.cli import main
from support.cli import make_runner
from support.pages import page_of
from support.web import Site


def publish(site: Site) -> None:
    recent = {"started_at": datetime.now(UTC) - timedelta(minutes=1)}
    site.publish("a", actor_name="a_little", cpu_ms=1000.0, touched_bytes=1024**2, queue_wait_ms=3.0, **recent)
    site.publish("b", actor_name="much", cpu_ms=3000.0, touched_bytes=2 * 1024**2, **recent)
    site.publish("c", actor_name="unknown", **recent)


def test_a_time_range_has_sums(site: Site) -> None:
    publish(site)

    actors = site.get("/actors/", params={"since": "1h"}).json["actors"]
    assert [(actor["actor_name"], actor["cpu_s"], actor["touched_bytes"]) for actor in actors] == [
        ("a_little", 1.0, 1024**2),
        ("much", 3.0, 2 * 1024**2),
        ("unknown", None, None),
    ]
    assert [actor["queue_wait_ms"] for actor in actors] == [3.0, None, None]

    everything = site.get("/actors/").json["actors"]
    assert [(actor["cpu_s"], actor["run_s"], actor["touched_bytes"]) for actor in everything] == [(None,) * 3] * 3
    assert everything[0]["queue_wait_ms"] == 3.0


def test_the_page_of_a_range_begins_with_the_most_cpu_time(site: Site) -> None:
    publish(site)

    page = page_of(site, "/actors/?since=24h")
    assert [link for link in page.links() if link.endswith(("little/", "much/", "unknown/"))] == [
        "/actors/much/",
        "/actors/a_little/",
        "/actors/unknown/",
    ]
    assert [meter["value"] for meter in page.all("meter")] == ["0.75", "0.25"]
    assert {"?since=1h", "?since=7d", "?"} <= set(page.links())
    assert "Share of CPU" not in page_of(site, "/actors/").text


def test_the_command_shows_the_sums_of_a_range(site: Site) -> None:
    publish(site)
    environment = {"DRAMATIQ_DIAG_DATA_DIR": str(site.settings.data_dir)}

    headings, first, *_ = make_runner().invoke(main, ["actors", "--since", "1h"], env=environment).stdout.splitlines()
    assert {"CPU", "TOUCHED", "QUEUE WAIT", "RUN TIME"} <= {heading.strip() for heading in headings.split("  ")}
    assert "1.0 MiB" in first
    assert "TOUCHED" not in make_runner().invoke(main, ["actors"], env=environment).stdout
