"""The chart of an actor's page: its runs in a range of time that ends now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Session

from ...documents.runs import RunDocument, runs_document
from ...reports.charts import history_chart
from ...reports.charts.drawing import Spec
from ...store.runs import RunFilter
from ..http.queries import Range

#: The most runs that are drawn, the newest: with more a browser needs seconds.
_MAX_DRAWN = 1000

#: A range that was not chosen is the shortest in which the actor has so many runs.
_ENOUGH = 10


_LENGTHS = {
    Range.HOUR: timedelta(hours=1),
    Range.DAY: timedelta(days=1),
    Range.WEEK: timedelta(days=7),
    Range.MONTH: timedelta(days=30),
}


@dataclass(frozen=True, kw_only=True)
class ActorChart:
    """A chart, and the range that it is of."""

    range: Range
    spec: Spec
    run_count: int
    "How many runs it shows."
    is_cut: bool
    "Whether there are older runs in the range, which it does not show."


def actor_chart(session: Session, actor_name: str, chosen: Range | None, mount: str) -> ActorChart:
    """Draws the runs of an actor.

    Parameters:
      session: The transaction.
      actor_name: The actor.
      chosen: The range; None for the shortest that has enough runs, or all runs if none has.
      mount: The path that the app is mounted at, without a slash at its end.
    """
    now = datetime.now(UTC)
    given = chosen or next((range_ for range_ in _LENGTHS if _has_enough(session, actor_name, now, range_)), Range.ALL)
    since = None if given is Range.ALL else now - _LENGTHS[given]
    page = runs_document(session, RunFilter(actor_name=actor_name, started_since=since), _MAX_DRAWN, None)

    def href(run: RunDocument) -> str:
        return f"{mount}{run['href']}?attempt={run['attempt']}"

    return ActorChart(
        range=given,
        spec=history_chart(page["runs"], since=since, until=now, href=href),
        run_count=len(page["runs"]),
        is_cut=page["next"] is not None,
    )


def _has_enough(session: Session, actor_name: str, now: datetime, range_: Range) -> bool:
    wanted = RunFilter(actor_name=actor_name, started_since=now - _LENGTHS[range_])
    return len(runs_document(session, wanted, _ENOUGH, None)["runs"]) == _ENOUGH
