"""The page of an actor: its figures, a chart of its runs in a range of time, its captures, and its runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import falcon
from sqlalchemy import Row
from sqlalchemy.orm import Session

from ...documents.captures import CaptureDocument, captures_document, described_diagnostics
from ...reports.charts import history_chart
from ...store.actor_stats import ActorSummary
from ...store.allowed import allowed_names
from ...store.attempts import Attempt
from ...store.release_stats import ReleaseSummary, summarize_releases
from ...store.runs import RunFilter, count_runs, list_runs, recent_figures
from ..backend import Backend
from ..http.queries import ActorQuery, Range
from .sparklines import sparklines

#: The most runs in the chart, the newest: with more, a browser needs seconds to draw it.
_MAX_DRAWN = 1000

#: Unless a range is chosen, the chart has the shortest range with so many runs.
_ENOUGH = 10

#: The most captures on the page, the newest.
_MAX_CAPTURES = 10

_LENGTHS = {
    Range.HOUR: timedelta(hours=1),
    Range.DAY: timedelta(days=1),
    Range.WEEK: timedelta(days=7),
    Range.MONTH: timedelta(days=30),
}


@dataclass(frozen=True, kw_only=True)
class ActorView:
    """The rows that the page of an actor shows."""

    actor: ActorSummary
    runs: Sequence[Attempt]
    next: str | None
    captures: Sequence[CaptureDocument]
    range: Range
    "The range of the chart."
    since: datetime | None
    until: datetime
    drawn: Sequence[Row[*tuple[Any, ...]]]
    "The runs in the chart; see `recent_figures`."
    is_cut: bool
    "Whether the range has older runs that are not in the chart."
    releases: Sequence[ReleaseSummary]


def read_actor_view(session: Session, actor: ActorSummary, query: ActorQuery) -> ActorView:
    """Reads the rows for the page. Raises: ValueError for a cursor of another list."""
    name, now = actor.actor_name, datetime.now(UTC)
    runs, following = list_runs(session, RunFilter(actor_name=name), query.limit, query.cursor)
    enough = (choice for choice in _LENGTHS if _has_enough(session, name, now, choice))
    shown_range = query.range or next(enough, Range.ALL)
    since = None if shown_range is Range.ALL else now - _LENGTHS[shown_range]
    drawn = recent_figures(session, name, since, _MAX_DRAWN + 1)
    return ActorView(
        actor=actor,
        runs=runs,
        next=following,
        captures=captures_document(session, actor_name=name, limit=_MAX_CAPTURES)["captures"],
        range=shown_range,
        since=since,
        until=now,
        drawn=drawn[:_MAX_DRAWN],
        is_cut=len(drawn) > _MAX_DRAWN,
        releases=summarize_releases(session, name),
    )


def _has_enough(session: Session, actor_name: str, now: datetime, choice: Range) -> bool:
    wanted = RunFilter(actor_name=actor_name, started_since=now - _LENGTHS[choice])
    return count_runs(session, wanted, _ENOUGH) == _ENOUGH


def show_actor(backend: Backend, req: falcon.Request, resp: falcon.Response, view: ActorView, token: str) -> None:
    """Answers with the page.

    Parameters:
      token: The token of the forms of captures.
    """
    mount = backend.mount(req)
    backend.show(
        req,
        resp,
        "actor.html",
        **vars(view),
        chart=history_chart(view.drawn, lambda run: f"{mount}/runs/{run.run_id}/", since=view.since, until=view.until),
        ranges=list(Range),
        sparklines=sparklines(view.runs),
        described_diagnostics=described_diagnostics,
        diagnostics=allowed_names(backend.settings),
        token=token,
    )
