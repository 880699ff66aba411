"""Parses and formats durations, sizes and moments, in the one grammar of this package; makes text safe to print."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any

_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}
_DURATION = rf"([0-9]{{1,12}}(?:\.[0-9]{{1,6}})?)\s*({'|'.join(_UNIT_MS)})"
_SIZE = r"(?i:(?P<number>[0-9]{1,20}(?:\.[0-9]{1,10})?)\s*(?:(?P<prefix>[kmgtpe])(?P<binary>i?)b|(?P<bytes>b))?)"
_SIZE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")

#: The bytes of a mebibyte.
MIB = 1024**2

#: The text of a UUID.
UUID_PATTERN = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"

#: Larger sizes do not fit into a column of the database.
MAX_SIZE_BYTES = 2**62


def is_plain_number(text: str) -> bool:
    """Returns: False for a number that Python reads and nobody means, such as `1_000` or digits of another script."""
    return text.isascii() and "_" not in text


def parse_duration_ms(text: str) -> float:
    """Reads a duration such as `500ms`, `90s`, `15m`, `15min`, `2h`, `3d` or `1w`. Returns: Milliseconds.

    Raises:
      ValueError: When it is not a duration; the message names it.
    """
    match = re.fullmatch(_DURATION, text.strip())
    if match is None:
        raise ValueError(f"not a duration such as 500ms, 90s, 15m, 2h, 3d: {text!r:.100}")
    return float(match[1]) * _UNIT_MS[match[2]]


def parse_size_bytes(value: Any, *, needs_unit: bool = False) -> int:
    """Reads a number of bytes, or a text such as `512MiB` or `1.5 GB`.

    Parameters:
      value: The number or the text.
      needs_unit: Whether a number without a unit is an error; then the size has to be above 0 as well.

    Raises:
      ValueError: When it is not a size, or negative, or `MAX_SIZE_BYTES` or more.
    """
    size_bytes: float = -1
    if isinstance(value, int | float) and not isinstance(value, bool) and not needs_unit:
        size_bytes = value if value == value // 1 < math.inf else -1
    elif isinstance(value, str) and (match := re.fullmatch(_SIZE, value.strip())) is not None:
        has_unit = match["prefix"] or match["bytes"]
        if has_unit or not needs_unit:
            base = 1024 if match["binary"] else 1000
            unit = base ** (1 + "kmgtpe".index(match["prefix"].lower())) if match["prefix"] else 1
            number = match["number"]
            size_bytes = int(number) * unit if number.isdigit() else int(float(number) * unit)
    if not (1 if needs_unit else 0) <= size_bytes < MAX_SIZE_BYTES:
        raise ValueError(f"not a size such as 500MiB, 1GiB: {value!r:.100}")
    return int(size_bytes)


def parse_moment(text: str) -> datetime:
    """Reads an ISO 8601 time (in UTC if it names no zone), or an age such as `90s`, `2h` or `3d`.

    Raises:
      ValueError: When it is neither; the message names it.
    """
    try:
        if re.fullmatch(_DURATION, text.strip()):
            return datetime.now(UTC) - timedelta(milliseconds=parse_duration_ms(text))
        read = datetime.fromisoformat(text)
        return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r:.80} is neither a time (2026-11-22T13:40) nor an age (2h, 3d)") from None


def split_texts(value: Any, separator: str) -> tuple[str, ...]:
    """Splits a text, or takes a list of texts. Returns: The parts without white space, empty parts and repeats.

    Raises:
      ValueError: When it is neither a text nor a list of texts.
    """
    parts = value.split(separator) if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise ValueError
    return tuple(dict.fromkeys(tidy for part in parts if (tidy := "".join(part.split()))))


def format_duration(duration_ms: float | None) -> str:
    """Returns: A duration for a person; `-` for None."""
    if duration_ms is None:
        return "-"
    return f"{duration_ms:.1f} ms" if duration_ms < 1000 else f"{duration_ms / 1000:.2f} s"


def format_size(size_bytes: float | None) -> str:
    """Returns: A size for a person; `-` for None."""
    if size_bytes is None:
        return "-"
    value, unit = float(size_bytes), 0
    while abs(value) >= 1024 and unit < len(_SIZE_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.1f} {_SIZE_UNITS[unit]}" if unit else f"{size_bytes:g} B"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Returns: A number and a noun: `1 run`, `2 runs`. The plural is the noun with an `s`, unless it is given."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def printable(text: str) -> str:
    """Returns: The text without characters that could steer a terminal, line ends included."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)
