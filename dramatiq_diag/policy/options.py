"""Reads requests for diagnostics, and validates the options of collectors in them."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..collectors.names import ALL, all_names
from ..errors import DiagnosticsError

if TYPE_CHECKING:
    from ..collectors.base import Collector, Options

#: Name of each requested collector -> its options, as they were given.
DiagnosticsRequest = Mapping[str, Mapping[str, Any]]

#: The largest length of a request as JSON, in characters, and its deepest nesting. Messages carry it on to the messages
#: of their tasks, and the sender of a message decides what is in it.
_MAX_LENGTH = 4000
_MAX_DEPTH = 6


class OptionsError(DiagnosticsError, ValueError):
    """An option of a collector is not allowed."""


def parse_request(value: Any) -> dict[str, dict[str, Any]]:
    """Reads a request: a list of names, a mapping of names to options, or a list of both.

    Raises:
      ValueError: When it is nothing of these, or too long.
    """
    if _length(value) > _MAX_LENGTH:
        raise ValueError("too long")
    parts = [value] if isinstance(value, Mapping) else value
    if not isinstance(parts, list | tuple | set | frozenset):
        raise ValueError("neither a list of names nor a mapping of names to options")
    found: dict[str, dict[str, Any]] = {}
    for part in parts:
        for name, options in part.items() if isinstance(part, Mapping) else ((part, {}),):
            if not isinstance(name, str) or not isinstance(options, Mapping):
                raise ValueError("neither a list of names nor a mapping of names to options")
            found.setdefault(name, {}).update(options)
    return found


def with_all(request: DiagnosticsRequest, allowed: Container[str]) -> dict[str, Mapping[str, Any]]:
    """Replaces `all` by those of its names that are allowed here.

    Raises:
      ValueError: When `all` itself has options.
    """
    if ALL not in request:
        return dict(request)
    if request[ALL]:
        raise ValueError(f"no list: {ALL} has no options, only the names that it stands for have")
    meant: dict[str, Mapping[str, Any]] = {name: {} for name in all_names() if name in allowed}
    return meant | {name: options for name, options in request.items() if name != ALL}


def _length(value: Any, depth: int = 0) -> int:
    """Returns: About the length of a value as JSON. Raises: ValueError for a value that is nested too deeply."""
    if isinstance(value, str):
        return len(value) + 2
    if isinstance(value, Mapping):
        inner: Iterable[Any] = (*value.keys(), *value.values())
    elif isinstance(value, list | tuple | set | frozenset):
        inner = value
    else:
        return value.bit_length() // 3 + 1 if isinstance(value, int) else 1
    if depth == _MAX_DEPTH:
        raise ValueError("nested too deeply")
    return 2 + sum(_length(part, depth + 1) for part in inner)


def request_value(request: DiagnosticsRequest) -> list[Any]:
    """Returns: The shortest JSON value that `parse_request` reads as this request."""
    return [{name: dict(options)} if options else name for name, options in request.items()]


def parse_option(text: str) -> tuple[str, str, Any]:
    """Reads `memray.native_traces=true`, as a person writes it. Returns: Collector, option, value.

    Raises:
      OptionsError: When it is not of that form.
    """
    place, separator, given = text.partition("=")
    name, _, option = place.strip().rpartition(".")
    if not separator or not name or not option:
        raise OptionsError(f"{text!r:.100} is no option; write it like memray.native_traces=true.")
    try:
        return name, option, json.loads(given)
    except (ValueError, RecursionError):
        return name, option, given.strip()


def with_options(names: Iterable[str], texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Returns: A request for these names, with the options out of texts. Raises: OptionsError."""
    request: dict[str, dict[str, Any]] = {name: {} for name in names}
    for text in texts:
        name, option, value = parse_option(text)
        if name not in request and (ALL not in request or name not in all_names(here=False)):
            raise OptionsError(f"{text!r:.100} is an option of {name!r:.100}, which is not asked for.")
        request.setdefault(name, {})[option] = value
    return request


def validate_options(
    collector: Collector | type[Collector], given: Mapping[str, Any], allowed: Iterable[str] = (ALL,)
) -> Options:
    """Validates the options of one collector.

    Parameters:
      collector: The collector.
      given: Name of each option -> its value.
      allowed: The setting `options_on_request`.

    Returns:
      All its options.

    Raises:
      OptionsError: When an option does not exist, or its value is not allowed; the message is for a person.
    """
    from pydantic import ValidationError  # A process that only sends messages does not validate.

    known = collector.options_class.model_fields
    for option in given:
        if option not in known:
            there_are = ", ".join(known) or "none"
            raise OptionsError(f"{collector.name} has no option {option!r:.100}; its options: {there_are}.")
        if not {ALL, f"{collector.name}.{option}"} & {*allowed}:
            raise OptionsError(
                f"The option {collector.name}.{option} may not be asked for; see DRAMATIQ_DIAG_OPTIONS_ON_REQUEST."
            )
    try:
        return collector.options_class.model_validate(dict(given))
    except ValidationError as error:
        first = error.errors()[0]
        option = ".".join((collector.name, *map(str, first["loc"])))
        raise OptionsError(f"{option}: {first['input']!r:.100} is not allowed: {first['msg'].lower()}.") from error
