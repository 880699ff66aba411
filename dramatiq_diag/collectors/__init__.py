"""The collectors by name; importing this package imports no optional one, and looks for no other package's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ..errors import UnavailableError
from ..logs import get_logger
from .base import Collector, Options, Recording, UnavailableCollector
from .plugins import discover, import_class, stand_in

if TYPE_CHECKING:
    from ..process import Process
    from ..settings import Settings

__all__ = [
    "ALL",
    "COLLECTOR_NAMES",
    "NONE",
    "Collector",
    "Options",
    "Recording",
    "all_names",
    "chosen",
    "close_all",
    "collector_class",
    "installed",
    "known_names",
    "load",
    "open_all",
]

#: Stands for every collector of this package that is installed.
ALL = "all"

#: Stands for nothing, where an empty setting would mean the default.
NONE = "none"


@dataclass(frozen=True, kw_only=True)
class _Builtin:
    module: str
    class_name: str
    artifact_name: str
    package: str | None = None
    "What it needs."
    includes: str | None = None
    "The collector that it does all of; where both are chosen that one is left out."


#: In the order of starting: memray's start takes milliseconds, so it comes first; other packages' are put before the
#: time profile, which starts last and stops first.
_BUILTIN = {
    "memray": _Builtin(
        module=".memray", class_name="MemrayCollector", artifact_name="memray_profile", package="memray"
    ),
    "memory": _Builtin(module=".memory", class_name="MemoryCollector", artifact_name="memory_profile"),
    "logs": _Builtin(module=".logs", class_name="LogsCollector", artifact_name="task_logs"),
    "debug-logs": _Builtin(module=".logs", class_name="DebugLogsCollector", artifact_name="task_logs", includes="logs"),
    "resources": _Builtin(module=".resources", class_name="ResourcesCollector", artifact_name="resources_profile"),
    "pyinstrument": _Builtin(
        module=".pyinstrument",
        class_name="PyinstrumentCollector",
        artifact_name="pyinstrument_profile",
        package="pyinstrument",
    ),
}
_LAST = "pyinstrument"

COLLECTOR_NAMES: tuple[str, ...] = tuple(sorted(_BUILTIN))
"The names of the collectors of this package."


def installed(name: str) -> bool:
    """Returns: Whether the package that the collector needs is importable, without importing it."""
    builtin = _BUILTIN.get(name)
    if builtin is None:
        return name in discover()
    return builtin.package is None or find_spec(builtin.package) is not None


def known_names() -> tuple[str, ...]:
    """Returns: The names that may be chosen: of this package, then of the others that are installed."""
    return (*COLLECTOR_NAMES, *sorted({*discover()} - {*COLLECTOR_NAMES, ALL}))


def all_names(*, here: bool = True) -> tuple[str, ...]:
    """Returns: What `all` stands for; other packages' are chosen by name, and `debug-logs` is as well.

    Parameters:
      here: Whether for a worker, which has what is installed; otherwise for whoever asks workers elsewhere.
    """
    names = (name for name in COLLECTOR_NAMES if _BUILTIN[name].includes is None)
    return tuple(name for name in names if not here or installed(name))


def collector_class(name: str) -> type[Collector] | None:
    """Returns: The class of a collector of this package, or of another that is installed; None where it cannot be had.

    What it measures with need not be installed.
    """
    if name in _BUILTIN:
        return _class_of(_BUILTIN[name])
    point = discover().get(name)
    try:
        return None if point is None else import_class(point, ())
    except UnavailableError:
        return None


def chosen(collectors: Mapping[str, Collector], names: Iterable[str]) -> tuple[Collector, ...]:
    """Returns: The collectors of these names, in the order of starting, without what another one includes."""
    wanted = set(names)
    wanted -= {builtin.includes for name, builtin in _BUILTIN.items() if name in wanted and builtin.includes}
    return tuple(collector for name, collector in collectors.items() if name in wanted)


def load(names: Iterable[str], settings: Settings) -> dict[str, Collector]:
    """Builds collectors.

    Returns:
      Name -> collector, in the order of starting; one that cannot work here is there as an `UnavailableCollector`.
    """
    wanted = set(names)
    loaded = {name: _build_builtin(name, settings) for name in _BUILTIN if name in wanted and name != _LAST}
    loaded |= _load_others(wanted, settings)
    if _LAST in wanted:
        loaded[_LAST] = _build_builtin(_LAST, settings)
    return loaded


def open_all(collectors: dict[str, Collector], process: Process) -> None:
    """Opens each collector; one that cannot be opened is unavailable from then on."""
    for name, collector in collectors.items():
        try:
            collector.open(process)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a broken collector must not stop the worker.
            collectors[name] = _unavailable(name, type(collector), collector.settings, _reason(name, error))


def close_all(collectors: Mapping[str, Collector]) -> None:
    """Closes each collector."""
    for name, collector in collectors.items():
        try:
            collector.close()
        except (Exception, SystemExit):  # noqa: BLE001 - as above.
            get_logger(__name__).warning("The collector %r could not be closed.", name, exc_info=True)


def _build_builtin(name: str, settings: Settings) -> Collector:
    return _build(name, _class_of(_BUILTIN[name]), settings)


def _class_of(builtin: _Builtin) -> type[Collector]:
    found: type[Collector] = getattr(import_module(builtin.module, __name__), builtin.class_name)
    return found


def _load_others(wanted: set[str], settings: Settings) -> dict[str, Collector]:
    taken = {builtin.artifact_name for builtin in _BUILTIN.values()}
    found, loaded = discover(), dict[str, Collector]()
    for name in sorted({*found} & {*_BUILTIN, ALL}):
        text = "%s is passed over: its name %r is that of a collector of this package."
        get_logger(__name__).warning(text, found[name].value, name)
    for name in sorted(wanted & {*found} - {*_BUILTIN, ALL}):
        try:
            loaded[name] = _build(name, import_class(found[name], taken), settings)
        except UnavailableError as error:
            loaded[name] = _unavailable(name, stand_in(name, taken), settings, str(error))
        taken.add(loaded[name].artifact_name)
    return loaded


def _build(name: str, collector_class: type[Collector], settings: Settings) -> Collector:
    try:
        return collector_class(settings)
    except UnavailableError as error:
        reason = str(error)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a broken package must not stop the worker from booting.
        reason = _reason(name, error)
    return _unavailable(name, collector_class, settings, reason)


def _reason(name: str, error: BaseException) -> str:
    return f"{name} cannot be used here: {type(error).__name__}: {error}"


def _unavailable(name: str, wanted: type[Collector], settings: Settings, reason: str) -> Collector:
    get_logger(__name__).warning("The collector %r is unavailable: %s", name, reason)
    return UnavailableCollector(settings, wanted, reason)
