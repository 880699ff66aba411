"""Draws two call trees as one, coloured by increase and decrease."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypedDict

from ...text import format_duration, format_size
from .drawing import SCHEMA, Spec, Width, sizing

#: From decrease to increase. Black text is readable on each, and red-green blindness does not matter.
_COLOURS = ["#67a9cf", "#e0e0e0", "#ef8a62"]
_INK = "#1a1a1a"

_ROW_HEIGHT = 18
_MAX_HEIGHT = 3600

#: The widths of a box and of its label in pixels. These expressions contain only our own numbers.
_BOX_WIDTH = "(scale('x', datum.x1) - scale('x', datum.x0))"
_LABEL_WIDTH = f"max(1, {_BOX_WIDTH} - 6)"
_LABEL_SHOWN = f"{_BOX_WIDTH} > 30 ? 1 : 0"


class Box(TypedDict):
    """One call in a comparison."""

    x0: float
    "From 0 to 1, as is `x1`."
    x1: float
    depth: int
    "0 for the outermost."
    label: str
    function: str
    file: str
    a: float
    "Its value in the first tree, with the calls below it."
    b: float
    "Its value in the second tree."
    difference: float
    "`b` less `a`."


def flame_chart(boxes: Iterable[Box], unit: str = "ms", *, width: Width = "container") -> Spec:
    """Draws two call trees as one icicle, the outermost call on top.

    Parameters:
      boxes: From `tree_diff.difference_boxes`.
      unit: The unit of their values: `ms` or `bytes`.
      width: In pixels, or `container` in a page.

    Returns:
      A specification with the data `boxes`.
    """
    rows = [_row(box, unit) for box in boxes]
    most = max((abs(row["difference"]) for row in rows), default=0) or 1
    depths = 1 + max((row["depth"] for row in rows), default=0)
    x: Spec = {"field": "x0", "type": "quantitative", "axis": None, "scale": {"domain": [0, 1], "nice": False}}
    y: Spec = {"field": "depth", "type": "quantitative", "axis": None}
    y["scale"] = {"domain": [0, depths], "nice": False, "reverse": True}
    return {
        "$schema": SCHEMA,
        "datasets": {"boxes": rows},
        "data": {"name": "boxes"},
        **sizing(width),
        "height": min(depths * _ROW_HEIGHT, _MAX_HEIGHT),
        "layer": [_boxes(x, y, most, "ms" if unit == "ms" else "bytes"), _labels(x, y)],
    }


def _boxes(x: Spec, y: Spec, most: float, unit: str) -> Spec:
    titles = {"function": "Function", "file": "File", "first": "First", "second": "Second", "change": "Difference"}
    scale = {"domain": [-most, 0, most], "range": _COLOURS}
    # The padding leaves room for the left half of the first label, which is centred below the end of the gradient.
    figures = ",~r" if unit == "ms" else "~s"  # 2,000 ms, and 2M bytes.
    legend = {"title": f"Difference ({unit})", "orient": "top", "format": figures, "gradientLength": 200, "padding": 14}
    return {
        "params": [{"name": "zoom", "select": {"type": "interval", "encodings": ["x"]}, "bind": "scales"}],
        "mark": {"type": "rect", "clip": True, "stroke": "#ffffff", "strokeWidth": 0.5},
        "encoding": {
            "x": x,
            "x2": {"field": "x1"},
            "y": y,
            "y2": {"field": "below"},
            "color": {"field": "difference", "type": "quantitative", "scale": scale, "legend": legend},
            "tooltip": [{"field": field, "type": "nominal", "title": title} for field, title in titles.items()],
        },
    }


def _labels(x: Spec, y: Spec) -> Spec:
    mark = {
        "type": "text",
        "align": "left",
        "baseline": "middle",
        "clip": True,
        "color": _INK,
        "dx": 3,
        "dy": _ROW_HEIGHT / 2,
        "fontSize": 11,
        "limit": {"expr": _LABEL_WIDTH},
        "opacity": {"expr": _LABEL_SHOWN},
        "tooltip": None,
    }
    encoding = {"x": x, "y": y, "text": {"field": "label", "type": "nominal"}}
    # Boxes too narrow for a label at any zoom have none, so that none is measured for them.
    return {"transform": [{"filter": {"not": {"field": "label", "equal": ""}}}], "mark": mark, "encoding": encoding}


def _row(box: Box, unit: str) -> Spec:
    figure: Callable[[float], str] = format_duration if unit == "ms" else format_size
    change = figure(box["difference"])
    return {
        **box,
        "below": box["depth"] + 1,
        "first": figure(box["a"]),
        "second": figure(box["b"]),
        "change": f"+{change}" if box["difference"] > 0 else change,
    }
