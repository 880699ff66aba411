"""Makes, ends, lists and deletes captures: requests for the next runs of an actor."""

from __future__ import annotations

import enum
import uuid
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, delete, func, insert, or_, select, update
from sqlalchemy.orm import Session

from ..errors import DiagnosticsError
from ..policy.options import DiagnosticsRequest
from ..policy.propagation import CLEANUP_ACTOR
from .allowed import reason_against
from .clock import Clock
from .columns import NAME_LENGTH
from .database import dialect_of
from .models import Capture
from .slots import MAX_OPEN, is_open
from .store import Store
from .values import clean_text
from .worker_actors import close_names, is_known
from .workers import call_attention

#: The bounds of a capture.
MAX_RUNS = 1000
MIN_DURATION_S, MAX_DURATION_S = 1.0, 30 * 86400.0


class CaptureNotFoundError(DiagnosticsError):
    """There is no such capture, or the cleanup has removed it, long after its end."""


class CaptureRequestError(DiagnosticsError, ValueError):
    """A request for a capture is not valid; the message says why."""


class TooManyCapturesError(DiagnosticsError):
    """The largest number of captures is open; end one, or wait until one ends."""


class CaptureState(enum.StrEnum):
    """The state of a capture."""

    OPEN = "open"
    COMPLETE = "complete"
    "It has all its runs."
    EXPIRED = "expired"
    "Its time is up."
    ENDED = "ended"
    "It was ended by hand."


@dataclass(frozen=True, kw_only=True)
class CaptureStanding:
    """A capture, its state and the number of its runs."""

    capture: Capture
    state: CaptureState
    captured_runs: int
    "The runs that have a slot, also those that go on."


def create(
    store: Store,
    actor_name: str,
    diagnostics: DiagnosticsRequest,
    run_limit: int,
    duration_s: float,
    *,
    unknown_actor: bool = False,
) -> CaptureStanding:
    """Asks for the next runs of an actor, on all worker processes of the database.

    Parameters:
      store: The store.
      actor_name: The actor: a worker has it, or a run of it is stored.
      diagnostics: Name of each collector -> its options.
      run_limit: The number of runs, from 1 to 1000.
      duration_s: Seconds after which it ends, from 1 s to 30 days.
      unknown_actor: Whether the actor may be unknown, such as one whose workers have not started yet.

    Raises:
      CaptureRequestError: When the request is not valid.
      TooManyCapturesError: When the largest number of captures is open.
      StoreError: When the store cannot be used.
    """
    _check(actor_name, run_limit, duration_s)
    reason = reason_against(diagnostics, store.settings)
    if reason is not None:
        raise CaptureRequestError(reason)
    if not unknown_actor:
        with store.session() as session:
            _check_known(session, actor_name)
    capture_id = uuid.uuid4()
    with store.session() as session:
        clock = Clock(session)
        _wait_for_turn(session)
        # The insert comes first: an SQLite transaction that has read before may fail when it begins to write.
        session.execute(
            insert(Capture).values(
                capture_id=capture_id,
                actor_name=actor_name,
                diagnostics={name: dict(options) for name, options in diagnostics.items()},
                run_limit=run_limit,
                created_at=clock.now,
                expires_at=clock.after(duration_s),
            )
        )
        if session.execute(select(func.count()).select_from(Capture).where(*is_open(clock))).scalar_one() > MAX_OPEN:
            raise TooManyCapturesError
        call_attention(session)
        return _found(session, capture_id)


def _wait_for_turn(session: Session) -> None:
    """Makes one capture at a time, so that the count below sees all of them. SQLite has one writer anyway."""
    if dialect_of(session) == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(func.hashtext("dramatiq_diag.captures"))))


def end(store: Store, capture_id: uuid.UUID) -> CaptureStanding:
    """Ends a capture; worker processes learn of it within seconds. A capture that has ended stays as it is.

    Raises:
      CaptureNotFoundError: When there is no capture of this id.
      StoreError: When the store cannot be used.
    """
    with store.session() as session:
        clock = Clock(session)
        session.execute(
            update(Capture).where(Capture.capture_id == capture_id, *is_open(clock)).values(ended_at=clock.now)
        )
        call_attention(session)
        return _found(session, capture_id)


def find_capture(session: Session, capture_id: uuid.UUID) -> CaptureStanding | None:
    return next(iter(_standings(session, select(Capture).where(Capture.capture_id == capture_id))), None)


def list_captures(
    session: Session, *, actor_name: str | None = None, only_open: bool = False, limit: int = 50
) -> list[CaptureStanding]:
    """Returns: Captures, the newest first."""
    query = select(Capture).order_by(Capture.created_at.desc(), Capture.capture_id).limit(limit)
    if actor_name is not None:
        query = query.where(Capture.actor_name == actor_name)
    if only_open:
        query = query.where(*is_open(Clock(session)))
    return _standings(session, query)


def _check(actor_name: str, run_limit: int, duration_s: float) -> None:
    if not 1 <= len(actor_name) <= NAME_LENGTH or clean_text(actor_name) != actor_name:
        raise CaptureRequestError(f"An actor's name is a text of 1 to {NAME_LENGTH} characters.")
    if actor_name == CLEANUP_ACTOR:
        raise CaptureRequestError("The cleanup of diagnostics is never diagnosed itself.")
    if not 1 <= run_limit <= MAX_RUNS:
        raise CaptureRequestError(f"A capture is of 1 to {MAX_RUNS} runs, not of {run_limit}.")
    if not MIN_DURATION_S <= duration_s <= MAX_DURATION_S:
        raise CaptureRequestError(f"A capture lasts 1 s to 30 days ({MAX_DURATION_S:.0f} s), not {duration_s:g} s.")


def _check_known(session: Session, actor_name: str) -> None:
    if is_known(session, actor_name):
        return
    close = ", ".join(repr(name) for name in close_names(session, actor_name))
    raise CaptureRequestError(
        f"No worker has said that it has an actor {actor_name!r}, and no run of one is stored"
        f"{f'; there is {close}' if close else ''}. Where its workers have not started yet, ask with `unknown_actor` "
        "(on the command line `--unknown-actor`)."
    )


def _found(session: Session, capture_id: uuid.UUID) -> CaptureStanding:
    standing = find_capture(session, capture_id)
    if standing is None:
        raise CaptureNotFoundError
    return standing


def _standings(session: Session, query: Select[Capture]) -> list[CaptureStanding]:
    found = session.execute(query.add_columns(Clock(session).now).execution_options(populate_existing=True))
    return [
        CaptureStanding(capture=capture, state=_state(capture, now), captured_runs=capture.claimed)
        for capture, now in found
    ]


def _state(capture: Capture, now: datetime) -> CaptureState:
    if capture.claimed >= capture.run_limit:
        return CaptureState.COMPLETE
    if capture.ended_at is not None:
        return CaptureState.ENDED
    return CaptureState.OPEN if capture.expires_at > now else CaptureState.EXPIRED


def delete_captures(session: Session, kept_s: float) -> int:
    """Deletes captures that ended *kept_s* seconds ago or earlier. Returns: Their number."""
    before = Clock(session).after(-kept_s)
    old = or_(Capture.ended_at < before, Capture.ended_at.is_(None) & (Capture.expires_at < before))
    return session.connection().execute(delete(Capture).where(old)).rowcount
