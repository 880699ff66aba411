"""Which collectors there are, by name; no collector is imported for it, nor anything that one needs."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

#: Stands for every collector of this package that is installed.
ALL = "all"

#: Stands for nothing, where an empty setting would mean the default.
NONE = "none"

#: Where a trigger has this in place of a name it asks for the stacks of all threads at that moment.
STACKS = "stacks"

#: The collectors that can begin on another thread, in the middle of a run, in the order of starting.
LATE_NAMES = ("memray", "memory", "pyinstrument")

#: The reason why pyinstrument's own engine cannot start in the middle of a run.
CANNOT_JOIN = "pyinstrument's own profiler cannot join later; the engine `sampler` does"

#: The largest limit of a run's log, in bytes. The log is part of the run's entry in the spool, which has a limit too.
MAX_LOG_BYTES = 64 * 1024**2

#: The entry point group of other packages: each entry point's name is that of a collector, and its object the class.
GROUP = "dramatiq_diag.collectors"


@dataclass(frozen=True, kw_only=True)
class Builtin:
    """A collector of this package."""

    module: str
    class_name: str
    artifact_name: str
    options: tuple[str, ...] = ()
    "The names of its options."
    package: str | None = None
    "What it needs."
    includes: str | None = None
    "The collector that it does all of; where both are chosen that one is left out."


#: In the order of starting: memray's start takes milliseconds, so it comes first; other packages' are put before the
#: time profile, which starts last and stops first.
BUILTIN = {
    "memray": Builtin(
        module=".memray",
        class_name="MemrayCollector",
        artifact_name="memray_profile",
        options=("native_traces", "trace_python_allocators"),
        package="memray",
    ),
    "memory": Builtin(
        module=".memory", class_name="MemoryCollector", artifact_name="memory_profile", options=("interval",)
    ),
    "logs": Builtin(
        module=".task_logs.collector", class_name="LogsCollector", artifact_name="task_logs", options=("max_bytes",)
    ),
    "debug-logs": Builtin(
        module=".task_logs.collector",
        class_name="DebugLogsCollector",
        artifact_name="task_logs",
        options=("max_bytes",),
        includes="logs",
    ),
    "resources": Builtin(
        module=".resources", class_name="ResourcesCollector", artifact_name="resources_profile", options=("interval",)
    ),
    "pyinstrument": Builtin(
        module=".time_profile.collector",
        class_name="PyinstrumentCollector",
        artifact_name="pyinstrument_profile",
        options=("engine", "interval", "start_after"),
        package="pyinstrument",
    ),
}

COLLECTOR_NAMES: tuple[str, ...] = tuple(sorted(BUILTIN))
"The names of the collectors of this package."


def discover() -> dict[str, EntryPoint]:
    """Returns: Name -> the entry point of a collector of another package that is installed; no module is imported."""
    from importlib.metadata import entry_points  # Takes 10 ms, and most settings name no such collector.

    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        found.setdefault(point.name, point)
    return found


def installed(name: str) -> bool:
    """Returns: Whether the package that the collector needs is importable, without importing it."""
    builtin = BUILTIN.get(name)
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
    names = (name for name in COLLECTOR_NAMES if BUILTIN[name].includes is None)
    return tuple(name for name in names if not here or installed(name))


def expand(names: tuple[str, ...], *, here: bool = True) -> tuple[str, ...]:
    """Returns: The names, with `all` replaced by what it stands for, here or wherever the workers are."""
    if ALL not in names:
        return names
    return (*(name for name in names if name != ALL), *all_names(here=here))
