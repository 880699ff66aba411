"""Builds, opens and closes the collectors of a process; imports no optional package."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module

from ..errors import GUARDED, UnavailableError
from ..runtime.loggers import get_logger
from .base import Collector, CollectorSettings, PlaceholderCollector, UnavailableCollector
from .entry_points import import_class, placeholder_class
from .names import ALL, BUILTIN, discover
from .services import Services

_LAST = "pyinstrument"


def collector_class(name: str) -> type[Collector] | None:
    """Returns: The class of a collector, whether or not the package that it needs is installed; None if there is none.

    Parameters:
      name: The name of a collector of this package, or of another package that is installed.
    """
    if name in BUILTIN:
        return _builtin_class(name)
    point = discover().get(name)
    try:
        return None if point is None else import_class(point, ())
    except UnavailableError:
        return None


def placeholder(name: str, taken: Iterable[str]) -> Collector:
    """Returns: A description of the artifact of a collector that is not loaded, or does not exist.

    Parameters:
      name: The name of the collector; any text.
      taken: Artifact names that an unknown collector must not have.
    """
    if name in BUILTIN:
        return PlaceholderCollector(_builtin_class(name))
    return PlaceholderCollector(placeholder_class(name, (*taken, *_builtin_artifact_names())))


def chosen(collectors: Mapping[str, Collector], names: Iterable[str]) -> tuple[Collector, ...]:
    """Returns: The collectors of these names, in the order of starting, without those that another one includes."""
    wanted = set(names)
    wanted -= {builtin.includes for name, builtin in BUILTIN.items() if name in wanted and builtin.includes}
    return tuple(collector for name, collector in collectors.items() if name in wanted)


def load(names: Iterable[str], settings: CollectorSettings) -> dict[str, Collector]:
    """Builds collectors.

    Returns:
      Name -> collector, in the order of starting. A collector that cannot work here is an `UnavailableCollector`.
    """
    wanted = set(names)
    loaded = {name: _build(name, _builtin_class(name), settings) for name in BUILTIN if name in wanted}
    loaded |= _load_others(wanted, settings)
    if _LAST in loaded:
        loaded[_LAST] = loaded.pop(_LAST)
    return loaded


def open_all(collectors: dict[str, Collector], services: Services) -> None:
    """Opens each collector; one that cannot be opened is unavailable from then on."""
    for name, collector in collectors.items():
        try:
            collector.open(services)
        except GUARDED as error:  # A broken collector must not stop the worker.
            collectors[name] = _unavailable(name, type(collector), _reason(name, error))


def close_all(collectors: Mapping[str, Collector]) -> None:
    """Closes each collector."""
    for name, collector in collectors.items():
        try:
            collector.close()
        except GUARDED:
            get_logger(__name__).warning("The collector %r could not be closed.", name, exc_info=True)


def _builtin_class(name: str) -> type[Collector]:
    module, _, class_name = BUILTIN[name].target.partition(":")
    found: type[Collector] = getattr(import_module(module, __package__), class_name)
    return found


@cache
def _builtin_artifact_names() -> frozenset[str]:
    return frozenset(_builtin_class(name).artifact_name for name in BUILTIN)


def _load_others(wanted: set[str], settings: CollectorSettings) -> dict[str, Collector]:
    found, loaded = discover(), dict[str, Collector]()
    for name in sorted({*found} & {*BUILTIN, ALL}):
        text = "%s is passed over: its name %r is that of a collector of this package."
        get_logger(__name__).warning(text, found[name].value, name)
    taken = {*_builtin_artifact_names()} if found else set[str]()
    for name in sorted(wanted & {*found} - {*BUILTIN, ALL}):
        try:
            loaded[name] = _build(name, import_class(found[name], taken), settings)
        except UnavailableError as error:
            loaded[name] = _unavailable(name, placeholder_class(name, taken), str(error))
        taken.add(loaded[name].artifact_name)
    return loaded


def _build(name: str, collector_class: type[Collector], settings: CollectorSettings) -> Collector:
    try:
        return collector_class(settings)
    except UnavailableError as error:
        reason = str(error)
    except GUARDED as error:  # A broken package must not stop the worker from booting.
        reason = _reason(name, error)
    return _unavailable(name, collector_class, reason)


def _reason(name: str, error: BaseException) -> str:
    return f"{name} cannot be used here: {type(error).__name__}: {error}"


def _unavailable(name: str, wanted: type[Collector], reason: str) -> Collector:
    get_logger(__name__).warning("The collector %r is unavailable: %s", name, reason)
    return UnavailableCollector(wanted, reason)
