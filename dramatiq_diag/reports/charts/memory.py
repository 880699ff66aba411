"""Draws the memory of a process over the time of one task or of two."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypedDict

from ...text import MIB
from .drawing import SCHEMA, Spec, Width, sizing

#: Seconds since the start of the task, and bytes.
Sample = tuple[float, float]

#: A name and its samples.
Curve = tuple[str, Sequence[Sample]]

_BAND_GREY = "#808080"


class Band(TypedDict):
    """The time of another task in the process."""

    start_s: float
    "Seconds since the start of the drawn task."
    end_s: float
    label: str


def memory_chart(
    curves: Sequence[Curve],
    bands: Iterable[Band] = (),
    *,
    width: Width = "container",
    height: int = 280,
    interactive: bool = True,
) -> Spec:
    """Draws the memory of a process over the time of a task, or of two.

    Parameters:
      curves: One or two series, each with its name.
      bands: The times of other tasks in the process.
      width: In pixels, or `container` in a page.
      height: In pixels.
      interactive: Whether it reacts to the pointer; a picture does not, and is drawn faster.

    Returns:
      A specification with the data `samples`, `moments`, `marks` and `bands`.
    """
    curves = _told_apart(curves)
    sizes = [size_bytes / MIB for _, samples in curves for _, size_bytes in samples] or [0.0]
    last_s = max((second for _, samples in curves for second, _ in samples), default=0.0)
    x = {
        "field": "seconds",
        "type": "quantitative",
        "title": "Seconds since task start",
        "scale": {"domain": [0, last_s or 1], "nice": False},
    }
    y = {
        "field": "megabytes",
        "type": "quantitative",
        "title": "Process memory (MiB)",
        "scale": {"domain": _domain(sizes), "nice": False, "zero": False},
    }
    return {
        "$schema": SCHEMA,
        "datasets": {
            "samples": [
                {"seconds": second, "megabytes": size_bytes / MIB, "curve": name}
                for name, samples in curves
                for second, size_bytes in samples
            ],
            "moments": _moments(curves),
            "marks": [mark for name, samples in curves if samples for mark in _marks(name, samples)],
            "bands": [{**band} for band in bands],
        },
        **sizing(width),
        "height": height,
        "layer": _memory_layers(x, y, several=len(curves) > 1, interactive=interactive),
    }


def _told_apart(curves: Sequence[Curve]) -> Sequence[Curve]:
    if len({name for name, _ in curves}) == len(curves):
        return curves
    return [(f"{name} ({number})", samples) for number, (name, samples) in enumerate(curves, 1)]


def _domain(sizes: Sequence[float]) -> list[float]:
    """Returns: A range with room for the labels; it begins at zero unless that flattens the curve."""
    lowest, highest = min(sizes), max(sizes)
    start = 0.0 if lowest < highest / 2 else lowest - max(highest - lowest, highest / 50) * 0.1
    return [max(start, 0.0), highest + max((highest - start) * 0.12, highest / 100, 0.01)]


def _memory_layers(x: Spec, y: Spec, *, several: bool, interactive: bool) -> list[Spec]:
    colour: Spec = (
        {"color": {"field": "curve", "type": "nominal", "sort": None, "legend": {"title": None, "orient": "top"}}}
        if several
        else {}
    )
    band_x = {**x, "field": "start_s"}
    band: Spec = {"data": {"name": "bands"}, "encoding": {"x": band_x, "x2": {"field": "end_s"}}}
    line: Spec = {
        "data": {"name": "samples"},
        "mark": {"type": "line", "clip": True, "strokeWidth": 1.5},
        "encoding": {"x": x, "y": y, **colour},
    }
    area: Spec = {
        "data": {"name": "samples"},
        "mark": {"type": "area", "clip": True, "opacity": 0.15},
        "encoding": {"x": x, "y": y, "y2": {"datum": y["scale"]["domain"][0]}},
    }
    if interactive:  # Declared in a layer: at the top of a layered specification Vega-Lite makes its signals twice.
        line["params"] = [{"name": "zoom", "select": {"type": "interval", "encodings": ["x"]}, "bind": "scales"}]
    return [
        {**band, "mark": {"type": "rect", "clip": True, "color": _BAND_GREY, "opacity": 0.15}},
        *([] if several else [area]),
        line,
        *_mark_layers(x, y, colour),
        *(_hover_layers(x, y, several=several) if interactive else []),
        # Above the layers that catch the pointer, so that it has a tooltip.
        _strip(band),
    ]


def _strip(band: Spec) -> Spec:
    tooltip = [
        {"field": "label", "type": "nominal", "title": "Meanwhile"},
        {"field": "start_s", "type": "quantitative", "title": "From (s)", "format": ".3f"},
        {"field": "end_s", "type": "quantitative", "title": "To (s)", "format": ".3f"},
    ]
    encoding = {**band["encoding"], "y": {"value": 0}, "y2": {"value": 8}, "tooltip": tooltip}
    mark = {"type": "rect", "clip": True, "color": _BAND_GREY, "opacity": 0.6}
    return {**band, "mark": mark, "encoding": encoding}


def _mark_layers(x: Spec, y: Spec, colour: Spec) -> list[Spec]:
    label = {"field": "label", "type": "nominal"}
    dot = {"type": "point", "filled": True, "size": 60, "clip": True}
    peak: Spec = {"data": {"name": "marks"}, "transform": [{"filter": {"field": "kind", "equal": "peak"}}]}
    first: Spec = {"data": {"name": "marks"}, "transform": [{"filter": {"field": "kind", "equal": "first"}}]}
    at_left = {"y": y, "x": {"value": 4}, "text": label, **colour}
    return [
        {**first, "mark": {"type": "rule", "strokeDash": [4, 4], "clip": True}, "encoding": {"y": y, **colour}},
        {**first, "mark": {"type": "text", "align": "left", "dy": 10, "fontSize": 11}, "encoding": at_left},
        {**peak, "mark": dot, "encoding": {"x": x, "y": y, **colour}},
        *(
            {
                **peak,
                "transform": [*peak["transform"], {"filter": {"field": "align", "equal": align}}],
                "mark": {"type": "text", "align": align, "dy": -10, "fontSize": 11, "clip": True},
                "encoding": {"x": x, "y": y, "text": label, **colour},
            }
            for align in ("left", "right")
        ),
    ]


def _hover_layers(x: Spec, y: Spec, *, several: bool) -> list[Spec]:
    select = {"type": "point", "on": "pointerover", "nearest": True, "fields": ["seconds"], "clear": "pointerout"}
    shown = {"condition": {"param": "hover", "empty": False, "value": 1}, "value": 0}
    figures = {"a_mb": "A (MiB)", "b_mb": "B (MiB)"} if several else {"megabytes": "MiB"}
    # Only numbers: for nearest points Vega-Lite looks for texts at the wrong place.
    tooltip = [
        {"field": "seconds", "type": "quantitative", "title": "Seconds", "format": ".3f"},
        *(
            {"field": field, "type": "quantitative", "title": title, "format": ",.1f"}
            for field, title in figures.items()
        ),
    ]
    moments: Spec = {"data": {"name": "moments"}}
    return [
        {**moments, "mark": {"type": "rule", "clip": True}, "encoding": {"x": x, "opacity": shown}},
        {
            **moments,
            "params": [{"name": "hover", "select": select}],
            "mark": {"type": "point", "filled": True, "size": 50, "clip": True},
            "encoding": {"x": x, "y": y, "opacity": shown, "tooltip": tooltip},
        },
    ]


def _moments(curves: Sequence[Curve]) -> list[Spec]:
    """Returns: A row for each sample, with the latest value of each of two curves."""
    if len(curves) < 2:
        return [
            {"seconds": second, "megabytes": size_bytes / MIB}
            for _, samples in curves
            for second, size_bytes in samples
        ]
    fields = ("a_mb", "b_mb")
    at = {field: samples[0][1] / MIB for field, (_, samples) in zip(fields, curves, strict=True) if samples}
    events = sorted(
        (second, field, size_bytes / MIB)
        for field, (_, samples) in zip(fields, curves, strict=True)
        for second, size_bytes in samples
    )
    rows = []
    for second, field, megabytes in events:
        at[field] = megabytes
        rows.append({"seconds": second, "megabytes": megabytes, **at})
    return rows


def _marks(name: str, samples: Sequence[Sample]) -> list[Spec]:
    last_s = max(second for second, _ in samples)
    found = {"first": samples[0], "peak": max(samples, key=lambda sample: sample[1])}
    return [
        {
            "kind": kind,
            "curve": name,
            "seconds": second,
            "megabytes": size_bytes / MIB,
            "label": f"{'at first' if kind == 'first' else 'peak'} {_megabytes(size_bytes)}",
            "align": "right" if second > last_s / 2 else "left",
        }
        for kind, (second, size_bytes) in found.items()
    ]


def _megabytes(size_bytes: float) -> str:
    return f"{size_bytes / MIB:,.1f} MiB"
