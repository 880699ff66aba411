"""Checks the installation, the settings, the directories and the store; each finding has a remedy."""

from __future__ import annotations

import difflib
import enum
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..collectors.base import UnavailableCollector
from ..collectors.names import ALL, COLLECTOR_NAMES, discover, expand, installed
from ..collectors.registry import load
from ..documents.signing import KEY_FILE
from ..errors import DiagnosticsError, NotInstalledError, StoreMismatchError
from ..runtime.private_files import open_to_others
from ..settings import Settings
from ..settings.urls import shown_url
from ..spool.contents import remedy_for
from ..spool.directory import Spool
from ..spool.owner_lock import NO_LOCKS, try_lock
from ..store.database import is_read_only
from ..store.migration import HEAD_REVISION, check_schema
from ..store.store import Store
from ..store.worker_actors import worker_standing

#: Variables with our prefix that are no settings: those of the demo's worker and of the tests.
_OTHER_VARIABLES = ("DRAMATIQ_DIAG_DEMO_", "DRAMATIQ_DIAG_TEST_")

#: The bytes that a writable directory takes: a full disk still takes empty files.
_PROBE_BYTES = 65536

#: How many directories of the spool with the same fault are named.
_NAMED = 3

#: Seconds after which an unchanged entry waits for the store: a running run writes to its entry each second.
_STUCK_S = 60.0

#: Collectors that have the name of the package that they need.
_PACKAGES = ("memray", "pyinstrument")

#: Extra -> its distributions.
_EXTRAS = {"web": ("apispec", "falcon", "jinja2", "vl-convert-python", "waitress"), "postgres": ("psycopg",)}


class Status(enum.StrEnum):
    """The result of a check."""

    OK = "ok"
    INFO = "info"
    "Worth knowing; nothing has to be done."
    FINDING = "finding"
    "Something does not work until the remedy is applied."


OK, INFO, FINDING = Status


@dataclass(frozen=True)
class Check:
    """One check and its result."""

    name: str
    status: Status
    detail: str
    remedy: str | None = None


def examine(settings: Settings) -> list[Check]:
    """Makes all checks. Changes nothing."""
    return [
        *_versions(),
        *_collectors(settings),
        *_extras(settings),
        *_variables(),
        _directory("data dir", settings.data_dir, Settings.variable("data_dir")),
        _directory("spool", settings.spool, Settings.variable("spool_dir")),
        _directory("blobs", settings.blob_dir, Settings.variable("blob_url")),
        *_locks(settings),
        *_privacy(settings),
        *_backlog(settings),
        *_store(settings),
    ]


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
    yield from _other_collectors(needed, settings)


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


def _directory(name: str, path: Path, variable: str) -> Check:
    try:
        existing = _existing(path)
        with tempfile.TemporaryFile(dir=existing, buffering=0) as file:
            file.write(bytes(_PROBE_BYTES))
    except OSError as error:
        remedy = f"Make it writable for the worker's user, or set {variable}."
        return Check(name, FINDING, f"{path} cannot be written: {error.strerror or error}", remedy)
    return Check(name, OK, f"{path} is writable" if existing == path else f"{path} will be made when it is needed")


def _existing(path: Path) -> Path:
    """Returns: The path, or the nearest of its parents that exists."""
    return next(parent for parent in (path, *path.parents) if parent.exists())


def _locks(settings: Settings) -> Iterator[Check]:
    """Checks that the spool's file system has locks, which tell living workers from dead ones."""
    try:
        with tempfile.TemporaryFile(dir=_existing(settings.spool), buffering=0) as file:
            try_lock(file.fileno())
    except OSError as error:
        if error.errno in NO_LOCKS:  # `_directory` reports any other error.
            detail = f"{settings.spool} is on a file system without locks: {error.strerror}"
            yield Check("spool locks", FINDING, detail, remedy_for(error))


def _privacy(settings: Settings) -> Iterator[Check]:
    """Checks owner and mode of the directories, the key and the database file: they hold other people's data."""
    data_dir, url = settings.data_dir, settings.database
    paths = [data_dir, settings.spool, settings.blob_dir, data_dir / KEY_FILE]
    if url.get_backend_name() == "sqlite":
        paths.append(Path(url.database or ""))
    all_private = True
    for path in dict.fromkeys(paths):
        try:
            fault = open_to_others(path.stat())
        except OSError:  # It does not exist yet, or other checks report it.
            continue
        if fault is not None:
            all_private = False
            change_owner = f"Run this as the owner of {path}, or change the owner."
            yield Check(
                "privacy", FINDING, f"{path}: {fault}", f"chmod go= {path}" if "mode" in fault else change_owner
            )
    if all_private:
        yield Check("privacy", OK, "only this user reaches the directories, the key and the database file")


def _backlog(settings: Settings) -> Iterator[Check]:
    spool = Spool(settings)
    size_bytes = spool.measure()
    written_at = spool.written_at()
    oldest_s = time.time() - min(written_at, default=time.time())
    left = sum(len(spool.written_at(owner)) for owner in spool.dead_owners())
    yield from _passed_over(spool)
    text = f"{len(written_at)} runs, {size_bytes} bytes"
    if written_at:
        text += f", the oldest written to {oldest_s:.0f} s ago"
    findings = []
    if left:
        remedy = "Start a worker with the same spool, or run: dramatiq-diag recover"
        findings.append((f"{left} of the runs were left by workers that died", remedy))
    if spool.full:
        limit = int(settings.spool_max_bytes)
        remedy = f"Repair the store, so that workers can publish; or raise {Settings.variable('spool_max_bytes')}."
        findings.append((f"more than the limit of {limit}, so new diagnostics are declined", remedy))
    if oldest_s > _STUCK_S and not left:
        findings.append(("ended runs wait for the store", "The worker's log says what the store lacks."))
    for finding, remedy in findings:
        yield Check("backlog", FINDING, f"{text}; {finding}", remedy)
    if not findings:
        yield Check("backlog", OK, text)


def _passed_over(spool: Spool) -> Iterator[Check]:
    """Names the unusable directories of the spool, together where they have the same remedy."""
    by_remedy: dict[str, list[str]] = {}
    for path, error in spool.passed_over.items():
        by_remedy.setdefault(remedy_for(error), []).append(f"{path}: {error.strerror or error}")
    for remedy, paths in by_remedy.items():
        more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
        yield Check("unusable in the spool", FINDING, f"{'; '.join(paths[:_NAMED])}{more}", remedy)


def _store(settings: Settings) -> Iterator[Check]:
    url = settings.database
    shown = shown_url(url)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():  # Connecting would make the file.
        if settings.migrates_itself:
            yield Check("database", OK, f"{shown} will be made when it is needed")
        else:
            yield Check("database", FINDING, f"{shown} does not exist", "Run: dramatiq-diag migrate")
        return
    try:
        with closing(Store(settings)) as store:
            check_schema(store.engine)
            if is_read_only(store.engine):
                remedy = "Ended runs wait in the spool until the database is writable."
                yield Check("database", FINDING, f"{shown} is read-only at the moment", remedy)
                return
            checks = [
                Check("database", OK, f"{shown} is at revision {HEAD_REVISION}"),
                _identity(store),
                _workers(store),
            ]
    except NotInstalledError as error:
        yield Check("database", FINDING, f"{shown} cannot be reached without its driver", str(error))
    except DiagnosticsError as error:
        yield Check("database", FINDING, str(error), f"Check {Settings.variable('database_url')}.")
    else:
        yield from checks


def _identity(store: Store) -> Check:
    try:
        store.check_identity()
    except StoreMismatchError as error:
        remedy = f"Point {Settings.variable('database_url')} and {Settings.variable('blob_url')} at one store."
        return Check("store id", FINDING, str(error).partition("\n")[0], remedy)
    except DiagnosticsError as error:
        return Check("store id", FINDING, str(error), f"Check {Settings.variable('blob_url')}.")
    return Check("store id", OK, "database and blobs belong to one store")


def _workers(store: Store) -> Check:
    """Says which workers have reported to the database, whatever the environment here is."""
    with store.session() as session:
        count, last_seen_at = worker_standing(session)
    if last_seen_at is None:
        return Check("workers", INFO, "no worker with diagnostics has used this database lately")
    # They report when they start and once an hour, so the time may be long ago.
    return Check(
        "workers", OK, f"they have named {count} actors, the last of them at {last_seen_at:%Y-%m-%d %H:%M} UTC"
    )
