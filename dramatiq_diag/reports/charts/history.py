"""Draws the runs of an actor over time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from ...text import MIB, format_duration, format_size
from .drawing import SCHEMA, STACKED_WIDTH, Spec

#: Status -> colour, readable on light and dark pages; red-green blindness does not matter.
_COLOURS = {
    "succeeded": "#0072b2",
    "failed": "#d55e00",
    "interrupted": "#cc79a7",
    "skipped": "#999999",
    "running": "#009e73",
}
_SHAPES = ["circle", "cross", "triangle-up", "square", "diamond"]

#: In pixels.
_HALF_HEIGHT = 160

#: The labels of the axis of time, by what the marks are apart: Vega's own have hours of 1 to 12, and seconds alone.
_TIMES = {
    "year": "%Y",
    "quarter": "%b %Y",
    "month": "%b %Y",
    "week": "%d %b",
    "date": "%d %b",
    "hours": "%H:%M",
    "minutes": "%H:%M",
    "seconds": "%H:%M:%S",
    "milliseconds": "%H:%M:%S.%L",
}

#: The axis of time has at least this length.
_SHORTEST_AXIS = timedelta(minutes=1)


def history_chart(
    runs: Iterable[Any],
    href: Callable[[Any], str],
    *,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Spec:
    """Draws the durations and the peaks of runs, one above the other.

    Parameters:
      runs: Runs, or rows of `recent_figures`. Those without a duration are left out of the upper half.
      href: Returns the address that a click on a run opens.
      since: The beginning of the axis of time; aware. Without both ends it reaches from the first to the last run, and
        over a minute at least.
      until: The end of it.

    Returns:
      A specification with the data `runs`.
    """
    runs = list(runs)
    if since is None or until is None:
        since, until = _around([run.started_at for run in runs])
    domain = None if since is None or until is None else [_vega_moment(since), _vega_moment(until)]
    return {
        "$schema": SCHEMA,
        "datasets": {"runs": [_row(run, href(run)) for run in runs]},
        "data": {"name": "runs"},
        "vconcat": [
            _half("duration_s", "Duration (s)", None, domain),
            _half("peak_mb", "Peak memory (MiB)", "Started (UTC)", domain),
        ],
        "resolve": {"scale": {"color": "shared", "shape": "shared"}},
    }


def _around(moments: list[datetime]) -> tuple[datetime, datetime] | tuple[None, None]:
    """Returns: The ends of an axis around moments that are close together; Vega-Lite finds those for any others."""
    if not moments or max(moments) - min(moments) >= _SHORTEST_AXIS:
        return None, None
    return min(moments) - _SHORTEST_AXIS / 2, max(moments) + _SHORTEST_AXIS / 2


def _vega_moment(moment: datetime) -> Spec:
    """Returns: A moment as the end of a scale, where Vega-Lite takes neither texts nor numbers."""
    in_utc = moment.astimezone(UTC)
    return {
        "year": in_utc.year,
        "month": in_utc.month,
        "date": in_utc.day,
        "hours": in_utc.hour,
        "minutes": in_utc.minute,
        "seconds": in_utc.second,
        "utc": True,
    }


def _half(field: str, title: str, axis_title: str | None, domain: list[Spec] | None) -> Spec:
    scale = {"domain": [*_COLOURS], "range": [*_COLOURS.values()]}
    shapes = {"domain": scale["domain"], "range": _SHAPES}
    status: Spec = {"field": "status", "type": "nominal", "legend": {"title": None, "orient": "top"}}
    scale_of_time: Spec = {"type": "utc", "padding": 10}
    if domain is not None:
        scale_of_time = {"type": "utc", "domain": domain, "nice": False}
    axis = {"title": axis_title, "format": _TIMES}
    x = {"field": "started_at", "type": "temporal", "axis": axis, "scale": scale_of_time}
    fields = ("task", "status", "started", "duration", "peak")
    return {
        "width": STACKED_WIDTH,
        "height": _HALF_HEIGHT,
        # Parameters of the same name, so that both halves are zoomed together.
        "params": [{"name": "zoom", "select": {"type": "interval", "encodings": ["x"]}, "bind": "scales"}],
        "transform": [{"filter": {"field": field, "valid": True}}],
        "mark": {"type": "point", "filled": True, "size": 50, "opacity": 0.8, "clip": True, "cursor": "pointer"},
        "encoding": {
            "x": x,
            "y": {"field": field, "type": "quantitative", "title": title, "scale": {"zero": True}},
            "color": {**status, "scale": scale},
            "shape": {**status, "scale": shapes},
            "href": {"field": "href", "type": "nominal"},
            "tooltip": [{"field": name, "type": "nominal", "title": name.capitalize()} for name in fields],
        },
    }


def _row(run: Any, href: str) -> Spec:
    started_at = run.started_at.astimezone(UTC)
    return {
        "started_at": started_at.isoformat(),
        "duration_s": None if run.duration_ms is None else run.duration_ms / 1000,
        "peak_mb": None if run.peak_rss_bytes is None else run.peak_rss_bytes / MIB,
        "status": str(run.status),
        "href": href,
        "task": run.task_id,
        "started": f"{started_at:%Y-%m-%d %H:%M:%S}",
        "duration": format_duration(run.duration_ms),
        "peak": format_size(run.peak_rss_bytes),
    }
