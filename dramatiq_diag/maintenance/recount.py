"""Counts anew what is stored, and mends the counters that differ: an early version publishes without counting."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ..statuses import FAILED_STATUSES, RunStatus
from ..store.counters import Changes, Key, Series, claim_recount, read_stored, total
from ..store.models import Artifact, TaskRun, checked_per_row, is_live
from ..store.store import Store
from ..store.worker_actors import names_of_runs

#: Rows of artifacts that one statement looks at.
_CHUNK_SIZE = 50_000

#: Series, actor and label -> the value that is kept and the one that was counted.
Differences = Mapping[Key, tuple[int, int]]


def wrong_counters(store: Store, *, fix: bool = False, chunk_size: int = _CHUNK_SIZE) -> list[str]:
    """Compares the counters of what is stored with the rows; those of what has happened have no rows to compare with.

    All is read as it was at one moment, while others go on writing. What differed then is added to the counters, which
    is right whatever was counted since.

    Parameters:
      store: The store.
      fix: Whether to mend them.
      chunk_size: Rows of artifacts that one statement looks at.

    Returns:
      A description of each wrong counter, mended or not.
    """
    while True:
        with store.snapshot() as session:
            number = total(session, Series.RECOUNTS)
            found = _differences(session, chunk_size)
        if not found or not fix or _mend(store, found, number):
            return [_description(key, *values) for key, values in sorted(found.items())]


def _differences(session: Session, chunk_size: int) -> Differences:
    kept, counted = read_stored(session), _count(session, chunk_size)
    pairs = {key: (kept.get(key, 0), counted.get(key, 0)) for key in {*kept, *counted}}
    return {key: (value, right) for key, (value, right) in pairs.items() if value != right}


def _mend(store: Store, found: Differences, number: int) -> bool:
    """Returns: True when the counters were mended; False when another process did so since the comparison."""
    with store.session() as session:
        if not claim_recount(session, number):
            return False
        Changes(amounts={key: float(right - value) for key, (value, right) in found.items()}).write(session)
        return True


def _description(key: Key, value: int, right: int) -> str:
    actor_name, _, series, label = key
    return f"{series} of {', '.join(filter(None, (actor_name, label)))}: {value} instead of {right}"


def _count(session: Session, chunk_size: int) -> dict[Key, int]:
    """Returns: The values that the counters should have, without those that are 0."""
    counted: defaultdict[Key, int] = defaultdict(int)
    for actor_name in session.execute(select(names_of_runs().c.actor_name)).scalars().all():
        ended = TaskRun.actor_name == actor_name, TaskRun.status != RunStatus.RUNNING
        failed = func.count().filter(TaskRun.status.in_(FAILED_STATUSES))
        run_count, failed_count = session.execute(select(func.count(), failed).where(*ended)).one()
        counted[actor_name, "", Series.STORED_RUNS, ""] = run_count
        counted[actor_name, "", Series.STORED_FAILED_RUNS, ""] = failed_count
    for actor_name, name, count, size_bytes in _live_artifacts(session, chunk_size):
        counted[actor_name, "", Series.STORED_ARTIFACTS, name] += count
        counted[actor_name, "", Series.STORED_BYTES, name] += size_bytes
    return {key: value for key, value in counted.items() if value}


def _live_artifacts(session: Session, chunk_size: int) -> Iterator[tuple[str, str, int, int]]:
    """Yields an actor, the name of an artifact, how many have a blob, and their bytes; for each chunk of rows."""
    ids = select(Artifact.artifact_id).order_by(Artifact.artifact_id)
    size_bytes = func.sum(Artifact.size_bytes)
    query = select(TaskRun.actor_name, Artifact.name, func.count(), size_bytes).join(Artifact.run)
    query = query.where(checked_per_row(is_live(Artifact.status))).group_by(TaskRun.actor_name, Artifact.name)
    last = uuid.UUID(int=0)
    while True:
        following = ids.where(Artifact.artifact_id > last).limit(chunk_size).subquery()
        end = select(following.c.artifact_id).order_by(following.c.artifact_id.desc()).limit(1)
        before, last_id = last, session.execute(end).scalar()
        if last_id is None:
            return
        last = last_id
        chunk = query.where(Artifact.artifact_id > before, Artifact.artifact_id <= last)
        for actor_name, name, count, size in session.execute(chunk):
            yield actor_name, name, count, int(size or 0)
