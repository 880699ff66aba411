"""Builds, opens and closes the collectors of a process; imports no optional package."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module

from ..errors import UnavailableError
from ..runtime.loggers import get_logger
from .base import Collector, CollectorSettings, StandIn, UnavailableCollector
from .entry_points import import_class, stand_in
from .names import ALL, BUILTIN, Builtin, discover
from .services import Services

_LAST = "pyinstrument"


def collector_class(name: str) -> type[Collector] | None:
    """Returns: The class of a collector of this package, or of another that is installed; None where it cannot be had.

    What it measures with need not be installed.
    """
    if name in BUILTIN:
        return _class_of(BUILTIN[name])
    point = discover().get(name)
    try:
        return None if point is None else import_class(point, ())
    except UnavailableError:
        return None


def stand_in_for(name: str, taken: Iterable[str]) -> Collector:
    """Returns: What describes the artifact of a collector that is not loaded, which may be no collector at all.

    Parameters:
      name: The name of the collector; any text.
      taken: Names of artifacts that one which is not known here must not have.
    """
    known = _class_of(BUILTIN[name]) if name in BUILTIN else None
    return StandIn(stand_in(name, (*taken, *_artifact_names())) if known is None else known)


def chosen(collectors: Mapping[str, Collector], names: Iterable[str]) -> tuple[Collector, ...]:
    """Returns: The collectors of these names, in the order of starting, without what another one includes."""
    wanted = set(names)
    wanted -= {builtin.includes for name, builtin in BUILTIN.items() if name in wanted and builtin.includes}
    return tuple(collector for name, collector in collectors.items() if name in wanted)


def load(names: Iterable[str], settings: CollectorSettings) -> dict[str, Collector]:
    """Builds collectors.

    Returns:
      Name -> collector, in the order of starting; one that cannot work here is there as an `UnavailableCollector`.
    """
    wanted = set(names)
    loaded = {name: _build_builtin(name, settings) for name in BUILTIN if name in wanted and name != _LAST}
    loaded |= _load_others(wanted, settings)
    if _LAST in wanted:
        loaded[_LAST] = _build_builtin(_LAST, settings)
    return loaded


def open_all(collectors: dict[str, Collector], services: Services) -> None:
    """Opens each collector; one that cannot be opened is unavailable from then on."""
    for name, collector in collectors.items():
        try:
            collector.open(services)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a broken collector must not stop the worker.
            collectors[name] = _unavailable(name, type(collector), _reason(name, error))


def close_all(collectors: Mapping[str, Collector]) -> None:
    """Closes each collector."""
    for name, collector in collectors.items():
        try:
            collector.close()
        except (Exception, SystemExit):  # noqa: BLE001 - as above.
            get_logger(__name__).warning("The collector %r could not be closed.", name, exc_info=True)


def _build_builtin(name: str, settings: CollectorSettings) -> Collector:
    return _build(name, _class_of(BUILTIN[name]), settings)


def _class_of(builtin: Builtin) -> type[Collector]:
    found: type[Collector] = getattr(import_module(builtin.module, __package__), builtin.class_name)
    return found


def _load_others(wanted: set[str], settings: CollectorSettings) -> dict[str, Collector]:
    taken = _artifact_names()
    found, loaded = discover(), dict[str, Collector]()
    for name in sorted({*found} & {*BUILTIN, ALL}):
        text = "%s is passed over: its name %r is that of a collector of this package."
        get_logger(__name__).warning(text, found[name].value, name)
    for name in sorted(wanted & {*found} - {*BUILTIN, ALL}):
        try:
            loaded[name] = _build(name, import_class(found[name], taken), settings)
        except UnavailableError as error:
            loaded[name] = _unavailable(name, stand_in(name, taken), str(error))
        taken.add(loaded[name].artifact_name)
    return loaded


def _artifact_names() -> set[str]:
    return {builtin.artifact_name for builtin in BUILTIN.values()}


def _build(name: str, collector_class: type[Collector], settings: CollectorSettings) -> Collector:
    try:
        return collector_class(settings)
    except UnavailableError as error:
        reason = str(error)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a broken package must not stop the worker from booting.
        reason = _reason(name, error)
    return _unavailable(name, collector_class, reason)


def _reason(name: str, error: BaseException) -> str:
    return f"{name} cannot be used here: {type(error).__name__}: {error}"


def _unavailable(name: str, wanted: type[Collector], reason: str) -> Collector:
    get_logger(__name__).warning("The collector %r is unavailable: %s", name, reason)
    return UnavailableCollector(wanted, reason)
