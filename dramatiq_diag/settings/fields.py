"""Describes settings: each is a field of a dataclass, with the description, the allowed values and the reader of it."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..text import MAX_SIZE_BYTES
from .readers import Reader, auto_or, boolean, duration, size_bytes

#: The longest duration that a setting may have, in seconds: a hundred years.
_MAX_SECONDS = 100 * 366 * 86400
_UNITS = "or a duration such as 90s or 2h"
_BYTES = "a whole number of bytes above 0, or one with a unit, as in 512MiB"


def field(
    default: Any, description: str, allowed: str, read: Reader, *, variable: str | None = None, secret: bool = False
) -> Any:
    """Returns: A setting.

    Parameters:
      default: The default; if it is None, None is allowed.
      description: What the setting is for.
      allowed: The allowed values, for a person.
      read: The reader of its values.
      variable: The environment variable; None if it is the prefix and the name.
      secret: Whether the value is never shown.
    """
    metadata = {
        "description": description,
        "allowed": allowed,
        "read": (lambda value: None if value is None else read(value)) if default is None else read,
        "variable": variable,
        "secret": secret,
    }
    return dataclasses.field(default=default, repr=not secret, metadata=metadata)


def flag(*, default: bool, description: str) -> Any:
    """Returns: A setting that is true or false."""
    return field(default, description, "true or false", boolean)


def seconds(default: float, description: str) -> Any:
    """Returns: A setting of a duration, which may be 0."""
    allowed = f"a number of seconds from 0 to {_MAX_SECONDS}, {_UNITS}"
    return field(default, description, allowed, duration(_MAX_SECONDS))


def auto_or_seconds(default: str, description: str) -> Any:
    """Returns: A setting of a duration, which may be 0, or of the word `auto`."""
    allowed = f"auto, or a number of seconds from 0 to {_MAX_SECONDS}, {_UNITS}"
    return field(default, description, allowed, auto_or(duration(_MAX_SECONDS)))


def interval(default: float, description: str) -> Any:
    """Returns: A setting of a duration above 0."""
    allowed = f"a number of seconds above 0 and up to {_MAX_SECONDS}, {_UNITS}"
    return field(default, description, allowed, duration(_MAX_SECONDS, above=True))


def size(default: int | None, description: str, allowed: str = _BYTES, most: int = MAX_SIZE_BYTES) -> Any:
    """Returns: A setting of a size."""
    return field(default, description, allowed, size_bytes(most))


def explain(variable: str, setting: dataclasses.Field[Any], value: Any, error: ValueError) -> str:
    """Returns: A line that names the variable, the value and the allowed values."""
    # URLs may have passwords in them too, and a setting may get a value that is meant for another one.
    shown = "the given value" if setting.metadata["secret"] or "@" in str(value) else f"{value!r:.200}"
    hint = f" ({error})" if str(error) else ""
    return f"{variable}: {shown} is not allowed{hint}; allowed: {setting.metadata['allowed']}."
