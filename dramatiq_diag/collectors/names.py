"""Names the collectors, and imports none of them: every process that sends messages reads the names."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

#: Stands for every collector of this package that is installed.
ALL = "all"

#: Stands for no collector, where an empty setting would mean the default.
NONE = "none"

#: In place of a name, a trigger may ask for the stacks of all threads at that moment.
STACKS = "stacks"

#: The reason why pyinstrument's own engine cannot start in the middle of a run.
CANNOT_JOIN = "pyinstrument's own profiler cannot join later; the engine `sampler` does"

#: The largest limit of a run's log, in bytes. The log is part of the run's entry in the spool, which has a limit too.
MAX_LOG_BYTES = 64 * 1024**2

#: The entry point group of other packages: each entry point's name is that of a collector, and its object the class.
GROUP = "dramatiq_diag.collectors"


@dataclass(frozen=True, kw_only=True)
class Builtin:
    """The facts about a collector of this package that are needed before its class is imported."""

    target: str
    "Its module, relative to this package, and its class."
    options: tuple[str, ...]
    "The fields of its `options_class`."
    package: str | None = None
    "The package that it needs."
    includes: str | None = None
    "The collector that it replaces where both are chosen."
    can_start_late: bool = False
    "Whether it can start on another thread, in the middle of a run."


#: In the order of starting: memray's start takes milliseconds, so it comes first. Collectors of other packages start
#: before the time profile, which starts last and stops first. A test compares this table with the classes.
BUILTIN = {
    "memray": Builtin(
        target=".memray:MemrayCollector",
        options=("native_traces", "trace_python_allocators"),
        package="memray",
        can_start_late=True,
    ),
    "memory": Builtin(target=".memory:MemoryCollector", options=("interval",), can_start_late=True),
    "logs": Builtin(target=".task_logs.collector:LogsCollector", options=("max_bytes",)),
    "debug-logs": Builtin(target=".task_logs.collector:DebugLogsCollector", options=("max_bytes",), includes="logs"),
    "resources": Builtin(target=".resources:ResourcesCollector", options=("interval",)),
    "accounting": Builtin(target=".accounting.collector:AccountingCollector", options=(), can_start_late=True),
    "pyinstrument": Builtin(
        target=".time_profile.collector:PyinstrumentCollector",
        options=("engine", "interval", "start_after"),
        package="pyinstrument",
        can_start_late=True,
    ),
}

COLLECTOR_NAMES: tuple[str, ...] = tuple(sorted(BUILTIN))
"The names of the collectors of this package."

LATE_NAMES = tuple(name for name, builtin in BUILTIN.items() if builtin.can_start_late)
"The collectors that can start in the middle of a run, in the order of starting."


def discover() -> dict[str, EntryPoint]:
    """Returns: Name -> the entry point of a collector of another package that is installed; no module is imported."""
    from importlib.metadata import entry_points  # Takes 10 ms, and most settings name no such collector.

    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        found.setdefault(point.name, point)
    return found


def installed(name: str) -> bool:
    """Returns: Whether the collector, or the package that it needs, can be imported; nothing is imported for it."""
    builtin = BUILTIN.get(name)
    if builtin is None:
        return name in discover()
    return builtin.package is None or find_spec(builtin.package) is not None


def known_names() -> tuple[str, ...]:
    """Returns: The names that may be chosen: those of this package, then those of other packages that are installed."""
    return (*COLLECTOR_NAMES, *sorted({*discover()} - {*COLLECTOR_NAMES, ALL}))


def all_names(*, here: bool = True) -> tuple[str, ...]:
    """Returns: The names that `all` stands for. Collectors of other packages, and `debug-logs`, are chosen by name.

    Parameters:
      here: Whether the collectors run in this process, and have to be installed; otherwise they run elsewhere.
    """
    names = (name for name in COLLECTOR_NAMES if BUILTIN[name].includes is None)
    return tuple(name for name in names if not here or installed(name))


def expand(names: tuple[str, ...], *, here: bool = True) -> tuple[str, ...]:
    """Returns: The names, with `all` replaced by the names that it stands for; see `all_names`."""
    if ALL not in names:
        return names
    return (*(name for name in names if name != ALL), *all_names(here=here))
