"""Makes the JSON documents of captures, for HTTP and the command line."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy.orm import Session
from typing_extensions import TypedDict

from ..store.captures import CaptureStanding, CaptureState, list_captures
from ..store.worker_actors import is_known
from .fields import HrefText, Timestamp, UuidText, described, document_of


@described
class CaptureDocument(TypedDict):
    """A request for the next runs of an actor."""

    capture_id: UuidText
    actor_name: str
    diagnostics: dict[str, dict[str, Any]]
    "Name of each diagnostic -> its options."
    state: CaptureState
    run_limit: int
    captured_runs: int
    "The runs that were begun for it."
    created_at: Timestamp
    expires_at: Timestamp
    "When it ends at the latest."
    ended_at: Timestamp | None
    "When it had all its runs, or was ended by hand."
    href: HrefText
    "The path of the capture."
    runs_href: HrefText
    "The path of the list of its runs."


@described
class NewCaptureDocument(CaptureDocument):
    """A capture that has just been made."""

    note: str | None
    "A possible mistake in the request."


@described
class CapturesDocument(TypedDict):
    """Captures, the newest first."""

    captures: list[CaptureDocument]


def capture_document(standing: CaptureStanding) -> CaptureDocument:
    """Returns: CAPTURE, as docs/captures.md describes it."""
    capture = standing.capture
    return document_of(
        CaptureDocument,
        capture,
        state=standing.state,
        captured_runs=standing.captured_runs,
        href=f"/captures/{capture.capture_id}/",
        runs_href=f"/tasks/?capture={capture.capture_id}",
    )


def described_diagnostics(document: CaptureDocument) -> list[str]:
    """Returns: Each diagnostic with its options, as text: `memray (native_traces=true)`."""
    described = []
    for name, options in document["diagnostics"].items():
        texts = [f"{option}={json.dumps(value)}" for option, value in options.items()]
        described.append(f"{name} ({', '.join(texts)})" if texts else name)
    return described


def new_capture_document(session: Session, standing: CaptureStanding) -> NewCaptureDocument:
    """Returns: CAPTURE, with a note if its actor is not known: the name may be misspelt."""
    known = is_known(session, standing.capture.actor_name)
    note = "No worker has said that it has this actor, and no run of it is stored yet."
    return {**capture_document(standing), "note": None if known else note}


def captures_document(
    session: Session, *, actor_name: str | None = None, only_open: bool = False, limit: int = 50
) -> CapturesDocument:
    """Returns: Captures, the newest first."""
    found = list_captures(session, actor_name=actor_name, only_open=only_open, limit=limit)
    return {"captures": [capture_document(standing) for standing in found]}
