"""Reads the values of settings from text, or from what code gives.

A reader returns the value, also when it is given a value that it returned before, or raises ValueError; the text of the
error is a hint for a person. The standard library is enough for it: every process that sends messages reads settings,
and pydantic alone would take 20 MB there.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..collectors.names import ALL, BUILTIN, COLLECTOR_NAMES, NONE, known_names
from ..policy.keep_rules import parse_rules
from ..policy.stuck_rule import AUTO
from ..policy.trigger_rules import parse_triggers, trigger_text
from ..text import is_plain_number, parse_duration_ms, parse_size_bytes

#: The longest release, in characters.
MAX_RELEASE_LENGTH = 200

#: The least length of a key, in characters; shorter ones can be guessed.
_MIN_KEY_LENGTH = 16

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


def number(least: float, most: float, *, above: bool = False) -> Reader:
    """Returns: A reader of numbers from *least*, or above it, to *most*."""

    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError
        if isinstance(value, str) and not is_plain_number(value):
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
    """Returns: A reader of whole numbers from *least* to *most*."""
    read_number = number(least, most)

    def read(value: Any) -> int:
        found = read_number(value)
        if found != int(found):
            raise ValueError
        return int(found)

    return read


def duration(most_s: float, *, above: bool = False) -> Reader:
    """Returns: A reader of durations: seconds as a number, or a text with a unit such as `90s` or `2h`."""
    read_number = number(0, most_s, above=above)

    def read(value: Any) -> float:
        if isinstance(value, str):
            with suppress(ValueError):
                value = parse_duration_ms(value) / 1000
        return float(read_number(value))

    return read


def auto_or(read_other: Reader) -> Reader:
    """Returns: A reader of the word `auto`, or of what the other reader reads."""

    def read(value: Any) -> Any:
        return AUTO if value == AUTO else read_other(value)

    return read


def size_bytes(most: int) -> Reader:
    """Returns: A reader of sizes above 0: bytes as a number, or a text with a unit such as `512MiB`."""

    def read(value: Any) -> int:
        found = parse_size_bytes(value)
        if not 0 < found <= most:
            raise ValueError
        return found

    return read


def boolean(value: Any) -> bool:
    """Reads true or false."""
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise ValueError
    return value


def one_of(*texts: str) -> Reader:
    """Returns: A reader of one of these texts."""

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


def release(value: Any) -> str | None:
    """Reads the name of a release, without white space at its ends; None stays None."""
    if value is None:
        return None
    found = text(value).strip()
    if not 0 < len(found) <= MAX_RELEASE_LENGTH or not found.isprintable():
        raise ValueError
    return found


def matching(pattern: str) -> Reader:
    """Returns: A reader of texts that match a pattern from end to end."""

    def read(value: Any) -> str:
        if not re.fullmatch(pattern, text(value)):
            raise ValueError
        return text(value)

    return read


def key(value: Any) -> Secret:
    """Reads a secret that cannot be guessed, from a text or from an object with `get_secret_value`.

    White space at its ends is no part of it: a secret that is mounted as a file mostly ends with a line end, and no
    header can have that.
    """
    found = _secret_text(value).strip()
    if len(found) < _MIN_KEY_LENGTH:
        raise ValueError(f"it has {len(found)} characters")
    return Secret(found)


def key_or_empty(value: Any) -> Secret | None:
    """Reads a key; an empty text means None, and one of white space alone is refused."""
    return key(value) if _secret_text(value) else None


def _secret_text(value: Any) -> str:
    return text(value.get_secret_value() if hasattr(value, "get_secret_value") else value)


def names(value: Any) -> tuple[str, ...]:
    """Reads a list: a collection of texts, or one text with commas."""
    given = value.split(",") if isinstance(value, str) else value
    if not isinstance(given, list | tuple | set | frozenset) or not all(isinstance(name, str) for name in given):
        raise ValueError
    return tuple(dict.fromkeys(name.strip() for name in given if name.strip()))


def directory(value: Any) -> Path:
    """Reads a directory, and makes its path absolute."""
    if not isinstance(value, str | os.PathLike) or "\0" in str(value):
        raise ValueError
    if value == "":
        raise ValueError("it is empty; the working directory is .")
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError as error:  # There is no such user's home.
        raise ValueError(str(error)) from None
    except OSError as error:
        raise ValueError(f"the working directory cannot be found: {error.strerror or error}") from None


def collectors(value: Any) -> tuple[str, ...]:
    """Reads the names of collectors, of this package or of another one that is installed."""
    found = names(value)
    unknown = [name for name in found if name != ALL and name not in COLLECTOR_NAMES]
    known = known_names() if unknown else ()
    unknown = [name for name in unknown if name not in known]
    if unknown:
        others = ", ".join(name for name in known if name not in COLLECTOR_NAMES)
        from_others = f"; other packages have {others}" if others else "; no other package has collectors"
        raise ValueError(f"unknown: {', '.join(map(repr, unknown))}{from_others}")
    return found


def options(value: Any) -> tuple[str, ...]:
    """Reads the names of options such as `memray.native_traces`."""
    found = names(value)
    if found not in ((ALL,), (NONE,)):
        for option in found:
            collector_name, _, name = option.rpartition(".")
            if name not in _option_names(collector_name):
                raise ValueError(f"there is no {option!r:.100}")
    return found


def _option_names(collector_name: str) -> tuple[str, ...]:
    if collector_name in BUILTIN:
        return BUILTIN[collector_name].options
    from ..collectors.registry import (
        collector_class,  # Only the class knows the options of another package's collector.
    )

    collector = collector_class(collector_name)
    return () if collector is None else tuple(collector.options_class.model_fields)


def rules(value: Any) -> tuple[str, ...]:
    """Reads keep rules. Returns: Each as a text."""
    return tuple(rule.text for rule in parse_rules(value))


def triggers(value: Any) -> tuple[str, ...]:
    """Reads triggers. Returns: Each as a text."""
    return tuple(map(trigger_text, parse_triggers(value)))
