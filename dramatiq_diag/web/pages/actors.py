"""The page of the list of actors."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import falcon

from ...store.actor_stats import ActorSummary
from ..backend import Backend

#: The ages that the page offers for `since`; None is all.
_RANGES = ("1h", "24h", "7d", None)


def show_actors(
    backend: Backend,
    req: falcon.Request,
    resp: falcon.Response,
    actors: Sequence[ActorSummary],
    *,
    since: datetime | None,
) -> None:
    """Answers with the page: by name, or in a time range the one with the most CPU time first."""
    if since is not None:
        actors = sorted(actors, key=lambda actor: actor.cpu_s or 0.0, reverse=True)
    backend.show(
        req,
        resp,
        "actors.html",
        actors=actors,
        since=since,
        cpu_s=sum(actor.cpu_s or 0.0 for actor in actors),
        ranges=_RANGES,
        shown_range=req.get_param("since") or None,
    )
