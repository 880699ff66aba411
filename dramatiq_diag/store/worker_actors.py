"""Keeps the actors that worker processes report, and finds the known actors: reported ones, or with a stored run."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import CTE, delete, exists, func, or_, select
from sqlalchemy.orm import Session

from .clock import Clock
from .columns import NAME_LENGTH
from .database import dialect_of, upserting_insert
from .models import TaskRun, WorkerActor
from .values import clean_text

#: The most reported actors, and the most actors with a run, that an unknown name is compared with.
_MAX_COMPARED = 1000


def note_actors(session: Session, actors: Mapping[str, str]) -> None:
    """Writes down the actors of a worker process: name -> queue.

    Many processes may do so at once: all lock the rows in the same order.
    """
    names = {clean_text(name, NAME_LENGTH): clean_text(queue, NAME_LENGTH) for name, queue in actors.items()}
    if not names:
        return
    row = upserting_insert(dialect_of(session), WorkerActor).values(last_seen_at=Clock(session).now)
    upsert = row.on_conflict_do_update(
        index_elements=[WorkerActor.actor_name],
        set_={"queue_name": row.excluded.queue_name, "last_seen_at": row.excluded.last_seen_at},
    )
    rows = [{"actor_name": name, "queue_name": names[name]} for name in sorted(names)]
    session.connection().execute(upsert, rows)


def worker_has(session: Session, actor_name: str) -> bool:
    """Returns: Whether a worker has lately reported the actor."""
    query = select(exists().where(WorkerActor.actor_name == actor_name))
    return bool(session.execute(query).scalar_one())


def worker_actor_names(session: Session) -> list[str]:
    """Returns: The actors that workers have lately reported, in no order."""
    return list(session.execute(select(WorkerActor.actor_name)).scalars())


def worker_standing(session: Session) -> tuple[int, datetime | None]:
    """Returns: The number of actors that workers have lately reported, and when one was last reported."""
    count, last_seen_at = session.execute(select(func.count(), func.max(WorkerActor.last_seen_at))).one()
    return count, last_seen_at


def is_known(session: Session, actor_name: str) -> bool:
    """Returns: Whether a worker has reported the actor, or a run of it is stored."""
    known = exists().where(WorkerActor.actor_name == actor_name), exists().where(TaskRun.actor_name == actor_name)
    return bool(session.execute(select(or_(*known))).scalar_one())


def close_names(session: Session, actor_name: str) -> list[str]:
    """Returns: The known actors whose names are most like this one, at most three."""
    workers = session.execute(select(WorkerActor.actor_name).limit(_MAX_COMPARED)).scalars()
    with_runs = session.execute(select(names_of_runs().c.actor_name).limit(_MAX_COMPARED)).scalars()
    return difflib.get_close_matches(actor_name, {*workers, *with_runs}, n=3)


def delete_worker_actors(session: Session, kept_s: float) -> int:
    """Deletes the actors that no worker has reported for so many seconds. Returns: Their number."""
    before = Clock(session).after(-kept_s)
    # SKIP LOCKED: waiting for a row that a worker is updating could deadlock.
    old = select(WorkerActor.actor_name).where(WorkerActor.last_seen_at < before).with_for_update(skip_locked=True)
    names = session.execute(old).scalars().all()
    session.execute(delete(WorkerActor).where(WorkerActor.actor_name.in_(names)))
    return len(names)


def names_of_runs() -> CTE:
    """Returns: The names of actors with a stored run. Each takes one step in the index, however many runs it has."""
    names = select(func.min(TaskRun.actor_name).label("actor_name")).cte(recursive=True)
    following = select(func.min(TaskRun.actor_name)).where(TaskRun.actor_name > names.c.actor_name)
    every = names.union_all(select(following.scalar_subquery()).where(names.c.actor_name.is_not(None)))
    return select(every.c.actor_name).where(every.c.actor_name.is_not(None)).cte()
