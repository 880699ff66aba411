"""How a document is made from a row: by the names of its fields, with moments, ids and paths as texts."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace
from typing import get_type_hints

import pytest
from pydantic import ValidationError
from typing_extensions import TypedDict

from dramatiq_diag.documents.artifacts import ArtifactDocument
from dramatiq_diag.documents.fields import Href, HrefText, Timestamp, UuidText, document_of, mounted, timestamp
from dramatiq_diag.documents.runs import RunDocument, run_document
from dramatiq_diag.store.attempts import Attempt
from dramatiq_diag.store.models import Artifact, TaskRun

ID = uuid.UUID(int=7)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Thing(TypedDict):
    thing_id: UuidText
    name: str
    made_at: Timestamp
    ended_at: Timestamp | None
    href: HrefText


def thing(**changes: object) -> SimpleNamespace:
    return SimpleNamespace(**({"thing_id": ID, "name": "x", "made_at": NOON, "ended_at": None, "other": 1} | changes))


def test_fields_are_read_by_their_names_and_in_their_order() -> None:
    document = document_of(Thing, thing(), href="/things/7/")

    assert list(document.items()) == [
        ("thing_id", "00000000-0000-0000-0000-000000000007"),
        ("name", "x"),
        ("made_at", "2026-01-01T12:00:00.000000Z"),
        ("ended_at", None),
        ("href", "/things/7/"),
    ]


def test_moments_are_in_utc() -> None:
    there = NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))

    assert document_of(Thing, thing(ended_at=there), href="/")["ended_at"] == "2026-01-01T12:00:00.000000Z"


def test_a_path_begins_where_the_web_part_is_mounted() -> None:
    document = document_of(Thing, thing(name="/x"), href="/things/7/")

    assert isinstance(document["href"], Href)
    assert mounted([document], "/diag")[0] == document | {"href": "/diag/things/7/"}


def test_a_value_of_another_type_is_an_error() -> None:
    with pytest.raises(ValidationError):
        document_of(Thing, thing(name=7), href="/")
    with pytest.raises(AttributeError):
        document_of(Thing, thing())


def test_a_document_names_only_what_its_row_has() -> None:
    of_run = {"exception", "pinned", "href", "attempt"}

    assert {*get_type_hints(RunDocument)} - of_run <= {*TaskRun.__table__.columns.keys()}
    assert {*get_type_hints(ArtifactDocument)} <= {*Artifact.__table__.columns.keys()}


@pytest.mark.parametrize(
    ("error", "exception"),
    [
        ((None, None), None),
        (("ValueError", "boom"), {"type": "ValueError", "message": "boom"}),
        (("ValueError", None), {"type": "ValueError", "message": ""}),
        (("", "x"), {"type": "", "message": "x"}),  # As only an entry that somebody made can say.
    ],
)
def test_the_exception_of_a_run_is_one_field(error: tuple[str | None, str | None], exception: object) -> None:
    run = Attempt(
        run_id=ID,
        task_id="a/b",
        actor_name="work",
        queue_name="default",
        status="failed",
        started_at=NOON,
        hostname="host",
        pid=1,
        exception_type=error[0],
        exception_message=error[1],
        overlapped_task_ids=[],
    )
    run.attempt = 2

    document = run_document(run)

    assert document["exception"] == exception
    assert (document["attempt"], document["href"], document["pinned"]) == (2, "/tasks/a%2Fb/", False)


def test_a_moment_has_four_digits_for_its_year() -> None:
    assert timestamp(datetime(7, 1, 2, tzinfo=UTC)) == "0007-01-02T00:00:00.000000Z"
