"""Checks the versions, the collectors, the extras and the environment variables."""

from __future__ import annotations

import difflib
import platform
from collections.abc import Iterator
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version

from ...collectors.base import UnavailableCollector
from ...collectors.names import ALL, COLLECTOR_NAMES, discover, expand, installed
from ...collectors.registry import load
from ...settings import Settings
from .check import FINDING, INFO, OK, Check, guarded

#: Variables with our prefix that are no settings: those of the demo's worker and of the tests.
_OTHER_VARIABLES = ("DRAMATIQ_DIAG_DEMO_", "DRAMATIQ_DIAG_TEST_")

#: Collectors that have the name of the package that they need.
_PACKAGES = ("memray", "pyinstrument")

#: Extra -> its distributions.
_EXTRAS = {
    "web": ("apispec", "falcon", "jinja2", "vl-convert-python", "waitress"),
    "postgres": ("psycopg",),
    "object-store": ("obstore",),
}


def check_installation(settings: Settings) -> Iterator[Check]:
    """Checks what is installed, and what the environment selects of it."""
    yield from guarded("versions", _versions)
    yield from guarded("collectors", _collectors, settings)
    yield from guarded("extras", _extras, settings)
    yield from guarded("variables", _variables)


def _versions() -> Iterator[Check]:
    yield Check("python", OK, f"{platform.python_version()} on {platform.system()}")
    for name in ("dramatiq_diag", "dramatiq"):
        yield Check(name, OK, _version(name) or "runs from a checkout that was not installed")


def _collectors(settings: Settings) -> Iterator[Check]:
    for_all, on_request = settings.task_diagnostics, settings.task_diagnostics_on_request
    needed = {*expand(for_all), *expand(on_request)}
    if settings.off:
        detail = "this environment selects nothing, and a worker with it collects nothing; workers may have another one"
        remedy = "If it is a worker's, set TASK_DIAGNOSTICS, for example to memory,pyinstrument."
        yield Check("selection", INFO, detail, remedy)
    else:
        parts = {"for every task": for_all, "on request": on_request, "options": settings.options_on_request}
        yield Check("selection", OK, "; ".join(f"{part}: {', '.join(names) or '-'}" for part, names in parts.items()))
    for name in COLLECTOR_NAMES:
        if installed(name):
            yield Check(name, OK, (_version(name) if name in _PACKAGES else None) or "built in")
        else:
            status = FINDING if name in needed else INFO
            yield Check(name, status, "is not installed", f"pip install 'dramatiq_diag[{name}]'")
    yield from guarded("collectors of other packages", _other_collectors, needed, settings)


def _other_collectors(needed: set[str], settings: Settings) -> Iterator[Check]:
    """Checks other packages' collectors. Imports only chosen ones, as a worker does."""
    loaded = load(needed - {*COLLECTOR_NAMES}, settings)
    for name, point in sorted(discover().items()):
        collector = loaded.get(name)
        source = point.value if point.dist is None else f"{point.value} of {point.dist.name} {point.dist.version}"
        if name in (*COLLECTOR_NAMES, ALL):
            yield Check(name, INFO, f"{source} is passed over: the name is taken")
        elif isinstance(collector, UnavailableCollector):
            yield Check(name, FINDING, collector.reason, f"Repair {source}, or remove {name} from the settings.")
        else:
            yield Check(name, OK, source)


def _extras(settings: Settings) -> Iterator[Check]:
    for extra, names in _EXTRAS.items():
        versions = {name: _version(name) for name in names}
        missing = [name for name, found in versions.items() if found is None]
        if missing:
            is_needed = extra == "postgres" and settings.database.get_backend_name() == "postgresql"
            detail, remedy = f"{', '.join(missing)} not installed", f"pip install 'dramatiq_diag[{extra}]'"
            yield Check(extra, FINDING if is_needed else INFO, detail, remedy)
        else:
            yield Check(extra, OK, ", ".join(f"{name} {found}" for name, found in versions.items()))


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _variables() -> Iterator[Check]:
    known = [Settings.variable(field.name) for field in fields(Settings)]
    for name in Settings.unknown_variables():
        if not name.startswith(_OTHER_VARIABLES):
            close = difflib.get_close_matches(name.upper(), known, n=1)
            remedy = f"Did you mean {close[0]}?" if close else "Remove it; docs/settings.md lists the settings."
            yield Check(f"variable {name}", FINDING, "is no setting of this version", remedy)
