"""The kinds of settings: what each is described by, what is allowed, and how its value is read.

Reading needs nothing but the standard library: every process that sends messages does it, and pydantic alone would take
20 MB there. A function that reads returns the value, also of what it returned before, or raises ValueError; the text of
that is a hint for a person.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..collectors.names import COLLECTOR_NAMES
from ..text import MAX_SIZE_BYTES, parse_size_bytes

#: The longest time that a setting may name, in seconds: a hundred years.
_MAX_SECONDS = 100 * 366 * 86400
_SECONDS = f"a number of seconds from 0 to {_MAX_SECONDS}"
_INTERVAL = f"a number of seconds above 0 and up to {_MAX_SECONDS}"
_BYTES = "a whole number of bytes above 0, or one with a unit, as in 512MiB"
#: What may stand in a list of collectors, for people.
NAMES = "names out of " + ", ".join(COLLECTOR_NAMES) + ", and collectors of other packages that are installed"
#: The least length of a key, in characters.
_MIN_KEY_LENGTH = 16

#: What reads a value.
Reader = Callable[[Any], Any]


class Secret:
    """A text that shows in no message, log or repr."""

    def __init__(self, text: str) -> None:
        self._text = text

    def get_secret_value(self) -> str:
        """Returns: The text."""
        return self._text

    def __repr__(self) -> str:
        return "Secret('**********')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)


def field(
    default: Any, description: str, allowed: str, read: Reader, *, variable: str | None = None, secret: bool = False
) -> Any:
    """Returns: A setting.

    Parameters:
      default: Its default; where that is None, None is allowed.
      description: What it is.
      allowed: What it may be, as a person reads that.
      read: Reads a value.
      variable: The environment variable, where that is not the prefix and the name.
      secret: Whether its value is shown to nobody.
    """
    metadata = {
        "description": description,
        "allowed": allowed,
        "read": _or_none(read) if default is None else read,
        "variable": variable,
        "secret": secret,
    }
    return dataclasses.field(default=default, repr=not secret, metadata=metadata)


def seconds(default: float, description: str) -> Any:
    """Returns: A length of time that may be nought."""
    return field(default, description, _SECONDS, number(0, _MAX_SECONDS))


def interval(default: float, description: str) -> Any:
    """Returns: A length of time above nought."""
    return field(default, description, _INTERVAL, number(0, _MAX_SECONDS, above=True))


def size(default: int, description: str, allowed: str = _BYTES, most: int = MAX_SIZE_BYTES) -> Any:
    """Returns: A number of bytes, which may be written with a unit."""
    return field(default, description, allowed, _sized(most))


def number(least: float, most: float, *, above: bool = False) -> Reader:
    """Returns: What reads a number from *least*, or above it, to *most*."""

    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError
        try:
            found = float(value)
        except (ValueError, OverflowError):
            raise ValueError from None
        if not math.isfinite(found) or not least <= found <= most or (above and found == least):
            raise ValueError
        return found

    return read


def whole_number(least: int, most: int) -> Reader:
    """Returns: What reads a whole number from *least* to *most*."""
    read_number = number(least, most)

    def read(value: Any) -> int:
        found = read_number(value)
        if found != int(found):
            raise ValueError
        return int(found)

    return read


def one_of(*texts: str) -> Reader:
    """Returns: What reads one of these texts."""

    def read(value: Any) -> str:
        if value not in texts:
            raise ValueError
        return str(value)

    return read


def text(value: Any) -> str:
    """Reads a text."""
    if not isinstance(value, str):
        raise ValueError
    return value


def matching(pattern: str) -> Reader:
    """Returns: What reads a text that matches a pattern from end to end."""

    def read(value: Any) -> str:
        if not re.fullmatch(pattern, text(value)):
            raise ValueError
        return text(value)

    return read


def token(value: Any) -> Secret:
    """Reads a secret of any length, out of a text or of what keeps one."""
    return Secret(text(value.get_secret_value() if hasattr(value, "get_secret_value") else value))


def key(value: Any) -> Secret:
    """Reads a secret that cannot be guessed."""
    found = token(value)
    length = len(found.get_secret_value())
    if length < _MIN_KEY_LENGTH:
        raise ValueError(f"it has {length} characters")
    return found


def names(value: Any) -> tuple[str, ...]:
    """Reads a list, which the environment has as text with commas."""
    given = value.split(",") if isinstance(value, str) else value
    if not isinstance(given, list | tuple | set | frozenset) or not all(isinstance(name, str) for name in given):
        raise ValueError
    return tuple(dict.fromkeys(name.strip() for name in given if name.strip()))


def directory(value: Any) -> Path:
    """Reads a directory, and makes its path absolute."""
    if not isinstance(value, str | os.PathLike) or "\0" in str(value):
        raise ValueError
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError as error:  # There is no such user's home.
        raise ValueError(str(error)) from None


def explain(variable: str, setting: dataclasses.Field[Any], value: Any, error: ValueError) -> str:
    """Returns: One line that names the variable, the value and what is allowed."""
    # Passwords stand in URLs as well, and a setting may be given a value that is meant for another one.
    shown = "the given value" if setting.metadata["secret"] or "@" in str(value) else f"{value!r:.200}"
    hint = f" ({error})" if str(error) else ""
    return f"{variable}: {shown} is not allowed{hint}; allowed: {setting.metadata['allowed']}."


def _or_none(read: Reader) -> Reader:
    return lambda value: None if value is None else read(value)


def _sized(most: int) -> Reader:
    def read(value: Any) -> int:
        found = parse_size_bytes(value)
        if not 0 < found <= most:
            raise ValueError
        return found

    return read
