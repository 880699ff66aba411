"""Reads the values of options: moments, durations, ids of traces and numbers."""

from __future__ import annotations

import re
from datetime import datetime

import click

from ..text import is_plain_number, parse_duration_ms, parse_moment

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


def trace_id(value: str) -> str:
    """Reads the id of a trace. Returns: Its digits in lower case. Raises: click.BadParameter for anything else."""
    if not re.fullmatch("[0-9a-fA-F]{32}", value):
        raise click.BadParameter(f"{value!r:.80} is not the id of a trace, which has 32 hexadecimal digits.")
    return value.lower()


def milliseconds(value: str) -> float:
    """Reads a number of seconds. Returns: Milliseconds. Raises: click.BadParameter for anything else."""
    return round(number(value) * 1000, 6)  # 1.001 times 1000 is a little less than 1001.


def mebibytes(value: str) -> int:
    """Reads a number of MiB. Returns: Bytes. Raises: click.BadParameter for anything else."""
    return int(number(value) * 1024**2)


def number(value: str) -> float:
    """Reads a number from 0 up. Raises: click.BadParameter for anything else."""
    try:
        read = float(value) if is_plain_number(value) else -1.0
    except ValueError:
        read = -1.0
    if not 0 <= read <= _MAX_NUMBER:
        raise click.BadParameter(f"{value!r:.80} is not a number from 0 to {_MAX_NUMBER:.0f}, such as 1.5.")
    return read
