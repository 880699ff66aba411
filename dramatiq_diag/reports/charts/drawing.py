"""Holds the parts that all charts share, and the library that draws them."""

from __future__ import annotations

import sys
from typing import Any

from ...errors import NotInstalledError

#: A Vega-Lite specification, or a part of one.
Spec = dict[str, Any]

#: Pixels, or `container` for the width of the surrounding element.
Width = int | str

#: The width of stacked charts, in pixels: Vega-Lite does not fit these to their container. A page sets it in each part.
STACKED_WIDTH = 640

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"


def library() -> Any:
    """Returns: vl_convert. Raises: NotInstalledError."""
    try:
        import vl_convert
    except ImportError as error:
        raise NotInstalledError(
            f"Charts need vl-convert-python, which is not installed ({error}): pip install 'dramatiq_diag[web]'"
        ) from error
    return vl_convert


def bundle() -> str:
    """Returns: The JavaScript that draws charts in a page, as `window.vegaEmbed`. Raises: NotInstalledError."""
    script: str = library().javascript_bundle()
    return script


def write_bundle() -> None:
    """Writes the bundle to standard output; the main function of a child process."""
    sys.stdout.buffer.write(bundle().encode())


def config(dark: bool) -> Spec:
    """Returns: Vega's configuration for a light or a dark page; the background is transparent."""
    ink, soft, line = ("#e6e6e6", "#b3b3b3", "#4d4d4d") if dark else ("#1a1a1a", "#555555", "#dddddd")
    return {
        "background": "transparent",
        "font": "system-ui, sans-serif",
        "axis": {"domainColor": soft, "tickColor": soft, "gridColor": line, "labelColor": soft, "titleColor": ink},
        "legend": {"labelColor": ink, "titleColor": ink},
        "range": {"category": ["#56b4e9", "#e69f00"] if dark else ["#0072b2", "#d55e00"]},
        "mark": {"color": "#56b4e9" if dark else "#0072b2"},
        "rule": {"color": soft},
        "text": {"color": ink},
        "title": {"color": ink},
        "view": {"stroke": None},
    }


def sizing(width: Width) -> Spec:
    """Returns: The part of a specification that sets the width."""
    return {"width": width, "autosize": {"type": "fit-x" if width == "container" else "pad", "contains": "padding"}}
