"""Kinds of values that options take; the names show in the help."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click

_AGO = re.compile(r"([0-9]{1,9})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

#: Beyond any duration in seconds, or size in MB.
_MAX_FIGURE = 1e12


def moment(value: str) -> datetime:
    """Reads a time of ISO 8601, in UTC where it has no zone, or how long ago it is: 90s, 15m, 2h, 3d, 1w.

    Raises:
      click.BadParameter: When it is neither.
    """
    try:
        ago = _AGO.fullmatch(value)
        if ago is not None:
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        read = datetime.fromisoformat(value)
        return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        text = f"{value!r:.80} is neither a time such as 2026-11-22T13:40 nor an age such as 2h or 3d."
        raise click.BadParameter(text) from error


def length_s(value: str) -> float:
    """Reads how long something lasts: 90s, 15m, 2h, 3d, 1w. Returns: Seconds. Raises: click.BadParameter if not."""
    length = _AGO.fullmatch(value)
    if length is None:
        raise click.BadParameter(f"{value!r:.80} is no length of time such as 90s, 15m, 2h or 3d.")
    return int(length[1]) * timedelta(**{_UNITS[length[2]]: 1}).total_seconds()


def number(value: str) -> float:
    """Reads a number from 0 on. Raises: click.BadParameter when it is none, or beyond everything."""
    try:
        figure = float(value)
    except ValueError:
        figure = -1.0
    if not 0 <= figure <= _MAX_FIGURE:
        raise click.BadParameter(f"{value!r:.80} is not a number from 0 to {_MAX_FIGURE:.0f}, such as 1.5.")
    return figure
