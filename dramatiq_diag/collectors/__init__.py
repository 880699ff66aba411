"""The collectors by name; importing this package imports no optional one."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from dramatiq.logging import get_logger

from ..errors import UnavailableError
from .base import Collector, Recording, UnavailableCollector

if TYPE_CHECKING:
    from ..settings import Settings

__all__ = ["COLLECTOR_NAMES", "Collector", "Recording", "installed", "load"]

#: Name -> (module, class, the package it needs or None). The order is the order of starting: memray's start takes
#: milliseconds, so it comes first; the time profile starts last and stops first.
_BUILTIN: dict[str, tuple[str, str, str | None]] = {
    "memray": (".memray", "MemrayCollector", "memray"),
    "memory": (".memory", "MemoryCollector", None),
    "pyinstrument": (".pyinstrument", "PyinstrumentCollector", "pyinstrument"),
}

COLLECTOR_NAMES: tuple[str, ...] = tuple(sorted(_BUILTIN))


def installed(name: str) -> bool:
    """Returns: Whether the package that the collector needs is importable, without importing it."""
    package = _BUILTIN[name][2]
    return package is None or find_spec(package) is not None


def load(names: Iterable[str], settings: Settings) -> dict[str, Collector]:
    """Builds collectors.

    Returns:
      Name -> collector, in the order of starting; one that cannot work here is there as an `UnavailableCollector`.
    """
    wanted = set(names)
    return {name: _build(name, settings) for name in _BUILTIN if name in wanted}


def _build(name: str, settings: Settings) -> Collector:
    module, class_name, _ = _BUILTIN[name]
    collector_class: type[Collector] = getattr(import_module(module, __name__), class_name)
    try:
        return collector_class(settings)
    except UnavailableError as error:
        reason = str(error)
    except Exception as error:  # noqa: BLE001 - a broken package must not stop the worker from booting.
        reason = f"{name} cannot be used here: {type(error).__name__}: {error}"
    get_logger(__name__).warning("The collector %r is unavailable: %s", name, reason)
    return UnavailableCollector(settings, collector_class, reason)
