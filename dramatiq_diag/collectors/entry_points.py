"""Imports collectors of other packages: the entry point group `dramatiq_diag.collectors`."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from importlib.metadata import EntryPoint
from typing import Any

from ..errors import GUARDED, UnavailableError
from .base import ARTIFACT_NAME_PATTERN, FILENAME_PATTERN, MEDIA_TYPE_PATTERN, Collector, Options

#: Class attribute -> the pattern that it has to match, and the same in words.
_ATTRIBUTES = {
    "artifact_name": (ARTIFACT_NAME_PATTERN, "a lower case letter, then up to 63 of them, digits and underscores"),
    "filename": (FILENAME_PATTERN, "a letter or digit, then up to 99 of them, dots, dashes and underscores"),
    "media_type": (MEDIA_TYPE_PATTERN, "a media type in lower case without parameters, such as text/csv"),
}


def import_class(point: EntryPoint, taken: Container[str]) -> type[Collector]:
    """Imports the class of an entry point.

    Parameters:
      point: The entry point.
      taken: The artifact names of other collectors.

    Raises:
      UnavailableError: When it cannot be imported, or is not a usable collector; the message says why.
    """
    try:
        found = point.load()
    except GUARDED as error:
        reason = f"{point.value} cannot be imported: {type(error).__name__}: {error}"
        raise UnavailableError(reason) from error
    for reason in _reasons_against(found, point.name, taken):
        raise UnavailableError(f"{point.value} cannot be used: {reason}.")
    return found  # type: ignore[no-any-return]


def placeholder_class(name: str, taken: Iterable[str]) -> type[Collector]:
    """Returns: A class with the attributes of a collector whose own class is not known.

    Parameters:
      name: The name of the collector; any text.
      taken: The artifact names of other collectors.
    """
    plain = re.sub("[^a-z0-9_]", "_", name.lower())[:40]
    artifact_name = plain if plain[:1].isalpha() else f"collector_{plain}"
    while artifact_name in taken:
        artifact_name += "_"
    attributes = {"artifact_name": artifact_name, "filename": "none", "media_type": "application/octet-stream"}
    return type("UnknownCollector", (Collector,), {"name": name, **attributes})


def _reasons_against(found: Any, name: str, taken: Container[str]) -> Iterable[str]:
    if not isinstance(found, type) or not issubclass(found, Collector):
        yield "it is no subclass of dramatiq_diag.collectors.Collector"
        return
    own_name = getattr(found, "name", None)
    if own_name != name:
        yield f"its name is {own_name!r}, and its entry point's is {name!r}"
    for attribute, (pattern, allowed) in _ATTRIBUTES.items():
        value = getattr(found, attribute, None)
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            yield f"its {attribute} is {value!r:.200}; allowed is {allowed}"
    if not isinstance(found.options_class, type) or not issubclass(found.options_class, Options):
        yield "its options_class is no subclass of dramatiq_diag.collectors.Options"
    if found.stored_as is not None:
        yield "its stored_as is not None: its file is downloaded as it was left"
    if found.artifact_name in taken:
        yield f"its artifact_name {found.artifact_name!r} is that of another collector"
