"""The small memory curve of a run: made from its memory log when it is published, and kept in its row for lists."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import BinaryIO

from ..text import MIB

#: Seconds since the start of the task, and bytes.
Sample = tuple[float, int]

_NUMBER = rb"([0-9]{1,12}(?:\.[0-9]{1,12})?)"
# The last line of a salvaged log may be torn: without its line end, the last number may be cut.
_LINE = re.compile(rb"[ \t]*" + _NUMBER + rb"[ \t]+" + _NUMBER + rb"[ \t]*\r?\n")
#: The longest line of a log, in bytes.
_MAX_LINE_BYTES = 128

#: The points of a curve, and the samples from which they are chosen: the memory does not grow with the log.
_POINTS = 32
_MAX_SAMPLES = 2048

#: The digits of a curve, from 0 on: two for each point, of the time and of the memory.
_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
MOST = len(_DIGITS) - 1
#: The length of a curve, in characters.
LENGTH = 2 * _POINTS


def samples_in(file: BinaryIO) -> Iterator[Sample]:
    """Yields the samples of a log as they stand there; malformed lines are skipped."""
    for line in iter(partial(file.readline, _MAX_LINE_BYTES), b""):
        match = _LINE.fullmatch(line)
        if match is not None:
            yield float(match[1]), round(float(match[2]) * MIB)


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


def write_curve(file: BinaryIO) -> str | None:
    """Returns: The curve of a memory log as a text of at most 64 characters; None for less than two samples."""
    samples: list[Sample] = []
    for sample in samples_in(file):
        samples.append(sample)
        if len(samples) == _MAX_SAMPLES:
            samples = thin(sorted(samples), _MAX_SAMPLES // 2)
    if len(samples) < 2:
        return None
    points = thin(sorted(samples), _POINTS)
    sizes = [size_bytes for _, size_bytes in points]
    first_s, low = points[0][0], min(sizes)
    length_s = points[-1][0] - first_s or 1.0
    height = max(max(sizes) - low, max(sizes) * 0.02) or 1.0  # So that noise does not look like growth.
    return "".join(
        _DIGITS[round((second - first_s) / length_s * MOST)] + _DIGITS[round((size_bytes - low) / height * MOST)]
        for second, size_bytes in points
    )


def read_curve(text: str) -> list[tuple[int, int]]:
    """Returns: The points of a curve, time and memory, each from 0 to `MOST`. Another version's characters are 0."""
    digits = [max(_DIGITS.find(character), 0) for character in text]
    return [*zip(digits[::2], digits[1::2], strict=False)]
