"""Reads the memory log of a run, thins it, and renders it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from ..store.memory_curves import Sample as Sample
from ..store.memory_curves import samples_in, thin
from .charts import bundle, config, library, memory_chart
from .errors import ReportError

#: The most points in a chart.
MAX_POINTS = 2000

#: The size of a picture in pixels; a PNG is scaled.
_WIDTH, _HEIGHT, _SCALE = 900, 320, 2

_PAGE = Path(__file__).with_name("memory.html")


def read_samples(file: BinaryIO) -> list[Sample]:
    """Returns: The samples of a log by time; malformed lines are skipped."""
    return sorted(samples_in(file), key=lambda sample: sample[0])


def render_csv(path: str, target: BinaryIO) -> None:
    """Renders a log to comma-separated values. Raises: ReportError when it has no sample."""
    target.write(b"seconds,rss_bytes\n")
    target.writelines(f"{second:.3f},{size_bytes}\n".encode() for second, size_bytes in _read(path))


def render_chart(path: str, target: BinaryIO) -> None:
    """Renders a log to a Vega-Lite specification. Otherwise as `render_csv`."""
    target.write(json.dumps(_chart(path)).encode())


def render_svg(path: str, target: BinaryIO) -> None:
    """Renders a log to a picture. Otherwise as `render_csv`. Raises: NotInstalledError without vl-convert-python."""
    target.write(_draw(path, library().vegalite_to_svg).encode())


def render_png(path: str, target: BinaryIO) -> None:
    """Renders a log to a PNG. Otherwise as `render_svg`."""
    target.write(_draw(path, partial(library().vegalite_to_png, scale=_SCALE)))


def render_html(path: str, target: BinaryIO) -> None:
    """Renders a log to a page with a zoomable chart, which loads nothing from any host. Otherwise as `render_svg`."""
    given = {"chart": _chart(path), "light": config(dark=False), "dark": config(dark=True)}
    before, _, rest = _PAGE.read_text("utf-8").partition("{{bundle}}")
    between, _, after = rest.partition("{{given}}")
    target.write("".join((before, _in_script(bundle()), between, in_json_script(given), after)).encode())


def in_json_script(value: Any) -> str:
    """Returns: JSON that cannot end the script element that it stands in."""
    return json.dumps(value).replace("<", "\\u003c")


def _in_script(script: str) -> str:
    """Returns: A script that cannot end its element; only its strings and patterns can contain such an end."""
    return re.sub(r"<(?=/script|!--|script)", r"\\x3c", script, flags=re.IGNORECASE)


def _read(path: str) -> list[Sample]:
    with open(path, "rb") as file:
        samples = read_samples(file)
    if not samples:
        raise ReportError("The stored memory log has no sample; see `dramatiq-diag check`.")
    return samples


def _chart(path: str, **options: Any) -> dict[str, Any]:
    return memory_chart([("Process memory", thin(_read(path), MAX_POINTS))], **options)


def _draw(path: str, draw: Callable[..., Any]) -> Any:
    chart = _chart(path, width=_WIDTH, height=_HEIGHT, interactive=False)
    return draw(chart, config={**config(dark=False), "background": "white"}, allowed_base_urls=[])
