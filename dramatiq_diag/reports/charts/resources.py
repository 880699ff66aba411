"""Draws the resources that a process used over the time of a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...text import MIB
from .drawing import SCHEMA, STACKED_WIDTH, Spec

#: In pixels.
_PANEL_HEIGHT = 90

_LEGEND: Spec = {"title": None, "orient": "top"}

#: Title of each panel -> column -> label and divisor. Columns of one panel have the same unit.
_PANELS: dict[str, dict[str, tuple[str, float]]] = {
    "CPU time (s)": {"cpu_user_seconds": ("user", 1), "cpu_system_seconds": ("system", 1)},
    "Context switches": {
        "voluntary_context_switches": ("voluntary", 1),
        "involuntary_context_switches": ("involuntary", 1),
    },
    "I/O (MiB)": {"read_bytes": ("read", MIB), "written_bytes": ("written", MIB)},
    "Files, threads": {"open_files": ("files", 1), "threads": ("threads", 1)},
}


def resources_chart(rows: Sequence[Mapping[str, float | None]]) -> Spec:
    """Draws the table of the collector `resources` as panels, one above the other.

    Parameters:
      rows: Column name -> figure, by time. A panel without a figure is left out.

    Returns:
      A specification with the data `figures`.
    """
    figures = [
        {"seconds": row["elapsed_seconds"], "panel": title, "label": label, "value": value / divisor}
        for title, columns in _PANELS.items()
        for column, (label, divisor) in columns.items()
        for row in rows
        if (value := row.get(column)) is not None
    ]
    last_s = max((row["elapsed_seconds"] or 0.0 for row in rows), default=0.0)
    titles = [title for title in _PANELS if any(figure["panel"] == title for figure in figures)]
    return {
        "$schema": SCHEMA,
        "datasets": {"figures": figures},
        "data": {"name": "figures"},
        "vconcat": [_panel(title, last_s, is_last=title == titles[-1]) for title in titles],
        "resolve": {"scale": {"color": "independent", "strokeDash": "independent"}},
    }


def _panel(title: str, last_s: float, *, is_last: bool) -> Spec:
    x: Spec = {
        "field": "seconds",
        "type": "quantitative",
        "title": "Seconds since task start" if is_last else None,
        "scale": {"domain": [0, last_s or 1], "nice": False},
    }
    labels = [label for label, _ in _PANELS[title].values()]
    colour = {"field": "label", "type": "nominal", "scale": {"domain": labels}, "legend": _LEGEND}
    return {
        "width": STACKED_WIDTH,
        "height": _PANEL_HEIGHT,
        # Panels with a parameter of the same name are zoomed together.
        "params": [{"name": "zoom", "select": {"type": "interval", "encodings": ["x"]}, "bind": "scales"}],
        "transform": [{"filter": {"field": "panel", "equal": title}}],
        "mark": {"type": "line", "clip": True, "strokeWidth": 1.5, "tooltip": True},
        "encoding": {
            "x": x,
            "y": {"field": "value", "type": "quantitative", "title": title, "axis": {"tickCount": 4}},
            "color": colour,
            "strokeDash": {"field": "label", "type": "nominal", "scale": {"domain": labels}, "legend": _LEGEND},
            "tooltip": [
                {"field": "seconds", "type": "quantitative", "title": "Seconds", "format": ".3f"},
                {"field": "label", "type": "nominal", "title": "Figure"},
                {"field": "value", "type": "quantitative", "title": title, "format": ",.2f"},
            ],
        },
    }
