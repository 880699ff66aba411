"""Reads the memory log of a run, thins it, and renders it."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from .charts import bundle, config, library, memory_chart
from .errors import ReportError

#: Seconds since the start of the task, and bytes.
Sample = tuple[float, int]

#: The most points in a chart.
MAX_POINTS = 2000

#: The size of a picture in pixels; a PNG is scaled.
_WIDTH, _HEIGHT, _SCALE = 900, 320, 2

_MEGABYTE = 1024 * 1024
_NUMBER = rb"([0-9]{1,12}(?:\.[0-9]{1,12})?)"
# The last line of a salvaged log may be torn: without its line end, the last number may be cut.
_LINE = re.compile(rb"[ \t]*" + _NUMBER + rb"[ \t]+" + _NUMBER + rb"[ \t]*\r?\n")
#: The longest line of a log, in bytes.
_MAX_LINE_BYTES = 128

#: Up to this size, in bytes, a log is read whole for a list of runs.
_SMALL_BYTES = 4 * 1024

_PAGE = Path(__file__).with_name("memory.html")


def read_samples(file: BinaryIO) -> list[Sample]:
    """Returns: The samples of a log by time; malformed lines are skipped."""
    samples = map(_sample, iter(partial(file.readline, _MAX_LINE_BYTES), b""))
    return sorted(filter(None, samples), key=lambda sample: sample[0])


def thin(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Thins a curve so that it looks the same: of each of equal parts it keeps the smallest and the largest sample.

    Parameters:
      samples: By time.
      count: The most samples to keep, 4 or more.

    Returns:
      The kept samples by time; the first and the last are among them.
    """
    if len(samples) <= count:
        return [*samples]
    inner = samples[1:-1]
    parts = (count - 2) // 2
    kept = [samples[0]]
    for part in range(parts):
        bucket = inner[part * len(inner) // parts : (part + 1) * len(inner) // parts]
        places = {min(bucket, key=lambda sample: sample[1]), max(bucket, key=lambda sample: sample[1])}
        kept += sorted(places)
    return [*kept, samples[-1]]


def sparkline_points(file: BinaryIO, size_bytes: int, count: int = 60) -> list[Sample]:
    """Reads at most *count* points for a small drawing, without reading a large log whole.

    The points of a small log contain its peak; those of a large one are samples at equal distances.

    Parameters:
      file: The log.
      size_bytes: Its size.
      count: The most points.

    Returns:
      The points by time.
    """
    if size_bytes <= _SMALL_BYTES:
        return thin(read_samples(io.BytesIO(file.read(_SMALL_BYTES))), count)
    found: set[Sample] = set()
    for place in range(count):
        is_last = place == count - 1
        file.seek(size_bytes - _MAX_LINE_BYTES if is_last else place * size_bytes // count)
        # This holds the rest of one line and the whole next one; at the beginning, the header and one line.
        lines = io.BytesIO(file.read(_MAX_LINE_BYTES)).readlines()
        samples = [sample for sample in map(_sample, lines[1:]) if sample is not None]
        found.update(samples[-1:] if is_last else samples[:1])
    return sorted(found)


def _sample(line: bytes) -> Sample | None:
    match = _LINE.fullmatch(line)
    return None if match is None else (float(match[1]), round(float(match[2]) * _MEGABYTE))


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
