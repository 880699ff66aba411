"""What is stored and what the next cleanup removes, as a document and as a page."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from dramatiq_diag.documents.storage import storage_document
from dramatiq_diag.maintenance.cleanup import Cleanup
from dramatiq_diag.statuses import RunStatus
from dramatiq_diag.store.pins import pin
from support.pages import HOSTILE, page_of, publish_hostile
from support.web import FIRST_START, Site, memory_artifact, profile_artifact

NOTHING = {"run_count": 0, "artifact_count": 0, "size_bytes": 0}


@pytest.fixture
def make(make_site: Callable[..., Site], database_url: str | None) -> Callable[..., Site]:
    """Makes a site over each of the databases; only what a bound takes is removed."""

    def make(**values: object) -> Site:
        return make_site(database_url=database_url, run_retention="9000d", **values)

    return make


def test_bytes_and_runs_are_told_by_actor_and_by_collector(make: Callable[..., Site]) -> None:
    site = make()
    for size in (10, 20):
        site.publish("t", [memory_artifact(b"x" * size), profile_artifact(b"y" * 100)])
    site.publish("o", [memory_artifact(b"x" * 1000)], actor_name="other/é")
    site.publish("without", [], actor_name="without")

    document = site.get("/storage/").json

    assert (document["run_count"], document["artifact_count"], document["size_bytes"]) == (4, 5, 1230)
    assert document["actors"] == [
        {"actor_name": "other/é", "run_count": 1, "artifact_count": 1, "size_bytes": 1000}
        | {"href": "/actors/other%2F%C3%A9/"},
        {"actor_name": "crunch", "run_count": 2, "artifact_count": 4, "size_bytes": 230, "href": "/actors/crunch/"},
        {"actor_name": "without", "run_count": 1, "artifact_count": 0, "size_bytes": 0, "href": "/actors/without/"},
    ]
    assert document["collectors"] == [
        {"artifact_name": "memory_profile", "run_count": 3, "size_bytes": 1030},
        {"artifact_name": "pyinstrument_profile", "run_count": 2, "size_bytes": 200},
    ]
    assert document["oldest_started_at"] == f"{FIRST_START:%Y-%m-%dT%H:%M:%S.%fZ}"
    expires_at = datetime.fromisoformat(document["first_expires_at"])
    assert expires_at - datetime.now(UTC) == pytest.approx(timedelta(days=1), abs=timedelta(minutes=5))
    assert document["max_bytes"] == {
        "setting": "DRAMATIQ_DIAG_MAX_BYTES",
        "used": 1230,
        "limit": None,
        "used_ratio": None,
    }
    assert document["next_cleanup"] == {
        "by_time": NOTHING,
        "by_max_runs": NOTHING,
        "by_max_bytes": NOTHING,
        "size_bytes": 0,
        "is_complete": True,
    }


def test_the_bounds_are_told_with_what_the_next_cleanup_removes_for_each(make: Callable[..., Site]) -> None:
    site = make(max_bytes=250, max_runs=4)
    for _ in range(6):
        site.publish("t", [memory_artifact(b"x" * 100)])

    document = site.get("/storage/").json

    assert document["max_bytes"] | {"setting": ""} == {"setting": "", "used": 600, "limit": 250, "used_ratio": 2.4}
    assert document["max_runs"] | {"setting": ""} == {"setting": "", "used": 6, "limit": 4, "used_ratio": 1.5}
    assert document["next_cleanup"] == {
        "by_time": NOTHING,
        "by_max_runs": {"run_count": 2, "artifact_count": 2, "size_bytes": 200},
        "by_max_bytes": {"run_count": 0, "artifact_count": 2, "size_bytes": 200},
        "size_bytes": 400,
        "is_complete": True,
    }
    counts = Cleanup(site.store).run()
    assert (counts.removed_runs, counts.expired_artifacts, counts.freed_bytes) == (2, 4, 400)
    assert site.get("/storage/").json["max_bytes"]["used"] == 200


def test_what_is_past_its_time_goes_before_what_is_beyond_a_bound(make: Callable[..., Site]) -> None:
    site = make(max_bytes=250)
    old = site.publish_one(memory_artifact(b"x" * 100))
    site.change(old, expires_at=datetime.now(UTC) - timedelta(minutes=1))
    for _ in range(3):
        site.publish("t", [memory_artifact(b"x" * 100)])

    foretold = site.get("/storage/").json["next_cleanup"]

    one = NOTHING | {"artifact_count": 1, "size_bytes": 100}
    assert (foretold["by_time"], foretold["by_max_bytes"]) == (one, one)


def test_pinned_and_running_runs_are_told_apart(make: Callable[..., Site]) -> None:
    site = make(max_bytes=1)
    pin(site.store, site.publish("t", [memory_artifact(b"x" * 100), profile_artifact(b"y" * 5)]))
    site.publish("r", status=RunStatus.RUNNING, finished_at=None)

    document = site.get("/storage/").json

    assert document["pinned"] == {"artifact_count": 2, "size_bytes": 105, "is_complete": True}
    assert document["next_cleanup"]["size_bytes"] == 0


@pytest.mark.parametrize(
    ("bounds", "reason"), [({"max_runs": 1}, "by_max_runs"), ({"max_bytes": 1}, "by_max_bytes"), ({}, "by_time")]
)
def test_where_more_rows_go_than_are_looked_at_the_numbers_are_minima(
    make: Callable[..., Site], bounds: dict[str, int], reason: str
) -> None:
    site = make(**bounds)
    for _ in range(8):
        path = site.publish_one(memory_artifact(b"x" * 100))
        if not bounds:
            site.change(path, expires_at=datetime.now(UTC) - timedelta(minutes=1))

    with site.store.session() as session:
        document = storage_document(session, site.settings, 3)
        whole = storage_document(session, site.settings)

    assert not document["next_cleanup"]["is_complete"]
    assert whole["next_cleanup"]["is_complete"]
    assert 3 < document["next_cleanup"][reason]["artifact_count"] <= whole["next_cleanup"][reason]["artifact_count"]  # type: ignore[literal-required]


def test_an_empty_store_has_an_empty_document_and_page(make: Callable[..., Site]) -> None:
    site = make()
    document = site.get("/storage/").json
    assert (document["size_bytes"], document["actors"], document["oldest_started_at"]) == (0, [], None)
    assert "By actor" not in page_of(site, "/storage/").text


def test_the_page_tells_the_same(make: Callable[..., Site]) -> None:
    site = make(max_bytes=150)
    for _ in range(2):
        site.publish("t", [memory_artifact(b"x" * 100)])

    page = page_of(site, "/storage/")

    text = " ".join(page.text.split())
    assert "2, 200 B" in text
    assert "150 B, 133 %" in text
    assert "Beyond DRAMATIQ_DIAG_MAX_BYTES 0 1 100 B" in text
    assert "no bound" in text
    assert "/actors/crunch/" in page.links()
    assert "/storage/" in page.links()


def test_hostile_names_do_no_harm_on_the_page(make: Callable[..., Site]) -> None:
    site = make()
    publish_hostile(site)
    page = page_of(site, "/storage/")
    assert HOSTILE in page.text
    assert page.all("img") == []
