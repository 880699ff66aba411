"""The kinds of settings: what each is described by, and what is allowed."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ByteSize, Field
from pydantic_settings import NoDecode

from .collectors import COLLECTOR_NAMES

#: The longest time that a setting may name, in seconds: a hundred years.
_MAX_SECONDS = 100 * 366 * 86400
_SECONDS = f"a number of seconds from 0 to {_MAX_SECONDS}"
_INTERVAL = f"a number of seconds above 0 and up to {_MAX_SECONDS}"
_BYTES = "a whole number of bytes above 0, or one with a unit, as in 512MiB"
#: What may stand in a list of collectors, for people.
NAMES = "names out of " + ", ".join(COLLECTOR_NAMES) + ", and collectors of other packages that are installed"
#: So much of text is in an entry of the spool as JSON has it, and an entry has a limit.
MAX_LOG_BYTES = 64 * 1024**2

#: A list, which the environment has as text with commas.
Names = Annotated[tuple[str, ...], NoDecode]


def field(default: Any, description: str, allowed: str, **constraints: Any) -> Any:
    """Returns: A setting, with what it is and what it may be as a person reads that."""
    return Field(default, description=description, json_schema_extra={"allowed": allowed}, **constraints)


def seconds(default: float, description: str) -> Any:
    """Returns: A length of time that may be nought."""
    return field(default, description, _SECONDS, ge=0, le=_MAX_SECONDS, allow_inf_nan=False)


def interval(default: float, description: str) -> Any:
    """Returns: A length of time above nought."""
    return field(default, description, _INTERVAL, gt=0, le=_MAX_SECONDS, allow_inf_nan=False)


def size(default: int, description: str) -> Any:
    """Returns: A number of bytes, which may be written with a unit."""
    return field(ByteSize(default), description, _BYTES, gt=0, le=2**62)
