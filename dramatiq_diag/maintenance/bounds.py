"""Keeps a bound on what is stored: removes the oldest beyond it."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Row, Select

from ..store.retention import beyond
from ..store.store import Store
from .pace import Pace


def remove_beyond(
    store: Store,
    bound: int | None,
    oldest: Callable[[Row[Any] | None], Select[Any]],
    remove: Callable[[Sequence[uuid.UUID]], int],
    pace: Pace,
    chunk_size: int,
) -> None:
    """Removes the oldest, in batches, until no more is stored than the bound allows.

    Each chunk is read together with the total, so two cleanups at once remove no more than one would. What is
    published meanwhile counts only for the next cleanup, so that this one ends.

    Parameters:
      store: The store.
      bound: How much may be stored; None for any amount.
      oldest: Makes the query of what may go, which begins after a row; see `retention.oldest_artifacts`.
      remove: Removes what has these ids, if it still may. Returns how much of the bound that frees.
      pace: Says how many ids are removed at a time.
      chunk_size: The number of rows that are read at a time.
    """
    if bound is None:
        return
    excess: float = math.inf
    last: Row[Any] | None = None
    while True:
        with store.session() as session:
            chunk = session.execute(oldest(last).limit(chunk_size)).all()
        if chunk:
            excess = min(excess, chunk[0].total - bound)
        rows = beyond(chunk, excess)
        if not rows:
            return
        for ids in pace.batched(row.id for row in rows):
            excess -= remove(ids)
        last = rows[-1]
