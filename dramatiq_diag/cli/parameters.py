"""Reads the values of options: moments, durations and numbers."""

from __future__ import annotations

from datetime import datetime

import click

from ..text import parse_duration_ms, parse_moment

#: Larger than any duration in seconds or size in MiB.
_MAX_NUMBER = 1e12


def moment(value: str) -> datetime:
    """Reads a time of ISO 8601, or an age such as 2h. Raises: click.BadParameter for anything else."""
    try:
        return parse_moment(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from error


def duration_s(value: str) -> float:
    """Reads a duration such as 90s. Returns: Seconds. Raises: click.BadParameter for anything else."""
    try:
        return parse_duration_ms(value) / 1000
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from error


def number(value: str) -> float:
    """Reads a number from 0 up. Raises: click.BadParameter for anything else."""
    try:
        read = float(value)
    except ValueError:
        read = -1.0
    if not 0 <= read <= _MAX_NUMBER:
        raise click.BadParameter(f"{value!r:.80} is not a number from 0 to {_MAX_NUMBER:.0f}, such as 1.5.")
    return read
