"""What works here and what does not: each check says what it found, and the remedy where something is amiss."""

from __future__ import annotations

import difflib
import enum
import platform
import tempfile
import time
from collections.abc import Iterable, Iterator
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

#: A directory is writable if it takes so much: a full disk still takes empty files.
_PROBE_BYTES = 65536

#: Directories of the spool that are named where several have the same fault.
_NAMED = 3

#: Seconds after which an entry that nobody wrote to waits for the store: a run that runs writes to its own each second.
_STUCK_S = 60.0

#: Collectors that are named like the package they need.
_PACKAGES = ("memray", "pyinstrument")

#: Extra -> the distributions that it installs and that are named when they are there.
_EXTRAS = {"web": ("apispec", "falcon", "jinja2", "vl-convert-python", "waitress"), "postgres": ("psycopg",)}


class Status(enum.StrEnum):
    """How a check came out."""

    OK = "ok"
    INFO = "info"
    "Worth knowing; nothing has to be done."
    FINDING = "finding"
    "Something does not work until the remedy is applied."


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    status: Status
    detail: str
    remedy: str | None = None


def examine(settings: Settings) -> list[Check]:
    """Looks at everything and changes nothing."""
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


def _ok(name: str, detail: str) -> Check:
    return Check(name=name, status=Status.OK, detail=detail)


def _info(name: str, detail: str, remedy: str | None = None) -> Check:
    return Check(name=name, status=Status.INFO, detail=detail, remedy=remedy)


def _finding(name: str, detail: str, remedy: str) -> Check:
    return Check(name=name, status=Status.FINDING, detail=detail, remedy=remedy)


def _versions() -> Iterator[Check]:
    yield _ok("python", f"{platform.python_version()} on {platform.system()}")
    for name in ("dramatiq_diag", "dramatiq"):
        yield _ok(name, _version(name) or "runs from a checkout that was not installed")


def _collectors(settings: Settings) -> Iterator[Check]:
    needed = {*expand(settings.task_diagnostics), *expand(settings.task_diagnostics_on_request)}
    if settings.off:
        yield _info(
            "selection",
            "this environment selects nothing, and a worker with it collects nothing; workers may have another",
            "If it is a worker's, set TASK_DIAGNOSTICS, for example to memory,pyinstrument.",
        )
    else:
        for_all, asked = settings.task_diagnostics, settings.task_diagnostics_on_request
        options = ", ".join(settings.options_on_request)
        detail = (
            f"for every task: {', '.join(for_all) or '-'}; on request: {', '.join(asked) or '-'}; options: {options}"
        )
        yield _ok("selection", detail)
    for name in COLLECTOR_NAMES:
        if installed(name):
            yield _ok(name, (_version(name) if name in _PACKAGES else None) or "built in")
        else:
            make = _finding if name in needed else _info
            yield make(name, "is not installed", f"pip install 'dramatiq_diag[{name}]'")
    yield from _other_collectors(needed, settings)


def _other_collectors(needed: set[str], settings: Settings) -> Iterator[Check]:
    """Looks into other packages' collectors as a worker would; those alone are imported that are chosen."""
    points = discover()
    loaded = load(needed - {*COLLECTOR_NAMES}, settings)
    for name, point in sorted(points.items()):
        collector = loaded.get(name)
        package = "" if point.dist is None else f" of {point.dist.name} {point.dist.version}"
        if name in (*COLLECTOR_NAMES, ALL):
            yield _info(name, f"{point.value}{package} is passed over: the name is taken")
        elif isinstance(collector, UnavailableCollector):
            yield _finding(name, collector.reason, f"Mend {point.value}{package}, or take {name} off the settings.")
        else:
            yield _ok(name, f"{point.value}{package}")


def _extras(settings: Settings) -> Iterator[Check]:
    for extra, names in _EXTRAS.items():
        versions = {name: _version(name) for name in names}
        missing = [name for name, found in versions.items() if found is None]
        if not missing:
            yield _ok(extra, ", ".join(f"{name} {found}" for name, found in versions.items()))
            continue
        make = _finding if extra == "postgres" and settings.database.get_backend_name() == "postgresql" else _info
        yield make(extra, f"{', '.join(missing)} not installed", f"pip install 'dramatiq_diag[{extra}]'")


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _variables() -> Iterator[Check]:
    known = [Settings.variable(field.name) for field in fields(Settings)]
    for name in Settings.unknown_variables():
        if name.startswith(_OTHER_VARIABLES):
            continue
        close = difflib.get_close_matches(name.upper(), known, n=1)
        hint = f"Did you mean {close[0]}?" if close else "Remove it; `dramatiq-diag --help` names the settings."
        yield _finding(f"variable {name}", "is no setting of this version", hint)


def _directory(name: str, path: Path, variable: str) -> Check:
    remedy = f"Make it writable for the worker's user, or set {variable}."
    try:
        existing = next(parent for parent in (path, *path.parents) if parent.exists())
        with tempfile.TemporaryFile(dir=existing, buffering=0) as file:
            file.write(bytes(_PROBE_BYTES))
    except OSError as error:
        return _finding(name, f"{path} cannot be written: {error.strerror or error}", remedy)
    return _ok(name, f"{path} is writable" if existing == path else f"{path} will be made when it is needed")


def _locks(settings: Settings) -> Iterator[Check]:
    """Looks whether the spool's file system has the locks that tell living workers from dead ones."""
    try:
        existing = next(parent for parent in (settings.spool, *settings.spool.parents) if parent.is_dir())
        with tempfile.TemporaryFile(dir=existing, buffering=0) as file:
            try_lock(file.fileno())
    except OSError as error:
        if error.errno in NO_LOCKS:  # `_directory` says the rest.
            detail = f"{settings.spool} is on a file system without locks: {error.strerror}"
            yield _finding("spool locks", detail, remedy_for(error))


def _passed_over(spool: Spool) -> Iterator[Check]:
    found: dict[str, list[str]] = {}
    for path, error in spool.passed_over.items():
        found.setdefault(remedy_for(error), []).append(f"{path}: {error.strerror or error}")
    for remedy, paths in found.items():
        more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
        yield _finding("unusable in the spool", f"{'; '.join(paths[:_NAMED])}{more}", remedy)


def _privacy(settings: Settings) -> Iterator[Check]:
    """Looks at owner and mode of what holds other people's data, and of the key that signs URLs."""
    data_dir, url = settings.data_dir, settings.database
    paths = [data_dir, settings.spool, settings.blob_dir, data_dir / KEY_FILE]
    if url.get_backend_name() == "sqlite":
        paths.append(Path(url.database or ""))
    open_ones = 0
    for path in dict.fromkeys(paths):
        try:
            fault = open_to_others(path.stat())
        except OSError:  # It is not there yet, or other checks say what is wrong with it.
            continue
        if fault is not None:
            open_ones += 1
            chown = f"Run this as the owner of {path}, or change the owner."
            yield _finding("privacy", f"{path}: {fault}", f"chmod go= {path}" if "mode" in fault else chown)
    if not open_ones:
        yield _ok("privacy", "only this user reaches the directories, the key and the database file")


def _backlog(settings: Settings) -> Iterator[Check]:
    spool = Spool(settings)
    size_bytes = spool.measure()
    written_at = spool.written_at()
    left = sum(len(spool.written_at(owner)) for owner in spool.dead_owners())
    yield from _passed_over(spool)
    text = f"{len(written_at)} runs, {size_bytes} bytes"
    if written_at:
        text += f", the oldest written to {time.time() - min(written_at):.0f} s ago"
    if left:
        yield _finding(
            "backlog",
            f"{text}; {left} of the runs were left by workers that died",
            "Start a worker with the same spool, or run: dramatiq-diag recover",
        )
    if spool.full:
        yield _finding(
            "backlog",
            f"{text}, over the limit of {int(settings.spool_max_bytes)}: new diagnostics are declined",
            f"See to the store, so that workers can publish; or raise {Settings.variable('spool_max_bytes')}.",
        )
    stuck = bool(written_at) and time.time() - min(written_at) > _STUCK_S
    if stuck and not left:
        yield _finding(
            "backlog", f"{text}: runs that ended wait for the store", "See the worker's log for what it lacks."
        )
    if not left and not spool.full and not stuck:
        yield _ok("backlog", text)


def _store(settings: Settings) -> Iterable[Check]:
    url = settings.database
    shown = shown_url(url)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():  # Connecting would make it.
        if settings.migrates_itself:
            return [_ok("database", f"{shown} will be made when it is needed")]
        return [_finding("database", f"{shown} does not exist", "Run: dramatiq-diag migrate")]
    try:
        with closing(Store(settings)) as store:
            check_schema(store.engine)
            if is_read_only(store.engine):
                detail = f"{shown} takes nothing at the moment: it is read-only"
                return [_finding("database", detail, "Ended runs wait in the spool until it takes them.")]
            return [_ok("database", f"{shown} is at revision {HEAD_REVISION}"), _identity(store), _workers(store)]
    except NotInstalledError as error:
        return [_finding("database", f"{shown} cannot be reached without its driver", str(error))]
    except DiagnosticsError as error:
        return [_finding("database", str(error), f"See that {Settings.variable('database_url')} is right.")]


def _workers(store: Store) -> Check:
    """Says what workers have told the database, whatever the environment here is."""
    with store.session() as session:
        count, last_seen_at = worker_standing(session)
    if last_seen_at is None:
        return _info("workers", "no worker with diagnostics has used this database lately")
    # They say it when they start and once an hour, so a moment ago is not to be expected.
    return _ok("workers", f"they have named {count} actors, the last of them at {last_seen_at:%Y-%m-%d %H:%M} UTC")


def _identity(store: Store) -> Check:
    try:
        store.check_identity()
    except StoreMismatchError as error:
        remedy = f"Point {Settings.variable('database_url')} and {Settings.variable('blob_url')} at one store."
        return _finding("store id", str(error).partition("\n")[0], remedy)
    except DiagnosticsError as error:
        return _finding("store id", str(error), f"See that {Settings.variable('blob_url')} is right.")
    return _ok("store id", "database and blobs are of one store")
