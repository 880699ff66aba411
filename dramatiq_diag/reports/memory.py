"""The memory of a process over the time of a task: read from its log, thinned, and rendered."""

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

#: Seconds since the task began, and bytes.
Sample = tuple[float, int]

#: Points in a chart.
MAX_POINTS = 2000

#: Of pictures, in pixels; a PNG has twice as many.
_WIDTH, _HEIGHT, _SCALE = 900, 320, 2

_MEGABYTE = 1024 * 1024
_NUMBER = rb"([0-9]{1,12}(?:\.[0-9]{1,12})?)"
# The last line of a salvaged log may be torn: without its end, a number may be a shorter one than was written.
_LINE = re.compile(rb"[ \t]*" + _NUMBER + rb"[ \t]+" + _NUMBER + rb"[ \t]*\r?\n")
#: No line that is one of ours is longer, in bytes.
_MAX_LINE_BYTES = 128

#: A log of up to this many bytes is read whole for a list of runs.
_SMALL_BYTES = 4 * 1024

_PAGE = Path(__file__).with_name("memory.html")


def read_samples(file: BinaryIO) -> list[Sample]:
    """Reads a log; whatever is no line of one is passed over.

    Parameters:
      file: The log, as the collector `memory` writes it.

    Returns:
      Seconds since the task began and bytes, by time.
    """
    samples = []
    while line := file.readline(_MAX_LINE_BYTES):
        sample = _sample(line)
        if sample is not None:
            samples.append(sample)
    samples.sort(key=lambda sample: sample[0])
    return samples


def thin(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Thins a curve so that it looks the same: of each of equal parts the least and the most are kept.

    Parameters:
      samples: By time.
      count: How many to keep at most, 4 or more.

    Returns:
      The first, the last, and what is between them, by time.
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
    """Reads what a small drawing needs, with the same little work however large the log is.

    Of a small log the peak is always among the points; of a large one they are samples at equal distances.

    Parameters:
      file: The log.
      size_bytes: Its size.
      count: How many points at most.

    Returns:
      Points by time; none where there is none.
    """
    if size_bytes <= _SMALL_BYTES:
        return thin(read_samples(io.BytesIO(file.read(_SMALL_BYTES))), count)
    found: set[Sample] = set()
    for place in range(count):
        is_last = place == count - 1
        file.seek(size_bytes - _MAX_LINE_BYTES if is_last else place * size_bytes // count)
        # Enough for the rest of one line and the whole next one; at the beginning, for the header and a line.
        lines = io.BytesIO(file.read(_MAX_LINE_BYTES)).readlines()
        samples = [sample for sample in map(_sample, lines[1:]) if sample is not None]
        found.update(samples[-1:] if is_last else samples[:1])
    return sorted(found)


def _sample(line: bytes) -> Sample | None:
    match = _LINE.fullmatch(line)
    return None if match is None else (float(match[1]), round(float(match[2]) * _MEGABYTE))


def render_csv(path: str, target: BinaryIO) -> None:
    """Renders a log to comma-separated values. Raises: ReportError for one without a sample."""
    target.write(b"seconds,rss_bytes\n")
    target.writelines(f"{second:.3f},{size_bytes}\n".encode() for second, size_bytes in _read(path))


def render_chart(path: str, target: BinaryIO) -> None:
    """Renders a log to a Vega-Lite specification, for a page. As `render_csv` otherwise."""
    target.write(json.dumps(_chart(path)).encode())


def render_svg(path: str, target: BinaryIO) -> None:
    """Renders a log to a picture. As `render_csv` otherwise. Raises: NotInstalledError without vl-convert-python."""
    target.write(_draw(path, library().vegalite_to_svg).encode())


def render_png(path: str, target: BinaryIO) -> None:
    """As `render_svg`, in pixels."""
    target.write(_draw(path, partial(library().vegalite_to_png, scale=_SCALE)))


def render_html(path: str, target: BinaryIO) -> None:
    """As `render_svg`, as a page in which one can zoom, that asks nothing of any host."""
    given = {"chart": _chart(path), "light": config(dark=False), "dark": config(dark=True)}
    before, _, rest = _PAGE.read_text("utf-8").partition("{{bundle}}")
    between, _, after = rest.partition("{{given}}")
    target.write("".join((before, _in_script(bundle()), between, in_json_script(given), after)).encode())


def in_json_script(value: Any) -> str:
    """Returns: JSON that cannot end the element of a page that it stands in."""
    return json.dumps(value).replace("<", "\\u003c")


def _in_script(script: str) -> str:
    """Returns: A script that cannot end its element: of what would, only strings and patterns can hold any."""
    return re.sub(r"<(?=/script|!--|script)", r"\\x3c", script, flags=re.IGNORECASE)


def _read(path: str) -> list[Sample]:
    with open(path, "rb") as file:
        samples = read_samples(file)
    if not samples:
        raise ReportError("There is no sample of the memory in what is stored; see `dramatiq-diag check`.")
    return samples


def _chart(path: str, **options: Any) -> dict[str, Any]:
    return memory_chart([("Process memory", thin(_read(path), MAX_POINTS))], **options)


def _draw(path: str, draw: Callable[..., Any]) -> Any:
    chart = _chart(path, width=_WIDTH, height=_HEIGHT, interactive=False)
    return draw(chart, config={**config(dark=False), "background": "white"}, allowed_base_urls=[])
