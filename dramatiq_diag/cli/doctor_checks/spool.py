"""Checks the spool: its locks, the runs in it, and the directories that cannot be used."""

from __future__ import annotations

import errno
import tempfile
import time
from collections.abc import Iterator

from ...settings import Settings
from ...spool.contents import remedy_for
from ...spool.directory import Spool
from ...spool.owner_lock import NO_LOCKS, try_lock
from ...text import counted, format_size
from .check import FINDING, OK, Check, guarded
from .directories import existing_part
from .remedies import place_of, remedy_of

#: How many directories of the spool with the same fault are named.
_NAMED = 3

#: Error numbers of the disk or of this process. Any other one is of a directory of another user, or of foreign files.
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE)

#: Seconds after which an unchanged entry waits for the store: a running run writes to its entry each second.
_STUCK_S = 60.0


def check_spool(settings: Settings) -> Iterator[Check]:
    """Checks whether runs go from the spool into the store."""
    yield from guarded("spool locks", _locks, settings)
    yield from guarded("backlog", _backlog, settings)


def _locks(settings: Settings) -> Iterator[Check]:
    """Checks that the spool's file system has locks, which tell living workers from dead ones."""
    try:
        with tempfile.TemporaryFile(dir=existing_part(settings.spool), buffering=0) as file:
            try_lock(file.fileno())
    except OSError as error:
        if error.errno in NO_LOCKS:  # The check of the directory reports any other error.
            detail = f"{settings.spool} is on a file system without locks: {error.strerror}"
            yield Check("spool locks", FINDING, detail, remedy_for(error))


def _backlog(settings: Settings) -> Iterator[Check]:
    spool = Spool(settings)
    size_bytes = spool.measure()
    written_at = spool.written_at()
    oldest_s = max(time.time() - min(written_at, default=time.time()), 0.0)  # The clock may have been set back.
    left = sum(len(spool.written_at(owner)) for owner in spool.dead_owners())
    yield from _passed_over(spool, settings)
    text = f"{counted(len(written_at), 'run')}, {format_size(size_bytes)}"
    if written_at:
        text += f", the oldest written to {oldest_s:.0f} s ago"
    findings = []
    if left:
        remedy = "Start a worker with the same spool, or run: dramatiq-diag recover"
        findings.append((f"left by workers that died: {left}", remedy))
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


def _passed_over(spool: Spool, settings: Settings) -> Iterator[Check]:
    """Names the unusable directories of the spool, together where they have the same remedy."""
    by_remedy: dict[str, list[str]] = {}
    place = place_of(settings, "spool_dir")
    for path, error in spool.passed_over.items():
        is_of_all = path == spool.root or error.errno in _OF_THE_DISK
        remedy = remedy_of(error, place) if is_of_all else remedy_for(error)
        by_remedy.setdefault(remedy, []).append(f"{path}: {error.strerror or error}")
    for remedy, paths in by_remedy.items():
        more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
        yield Check("unusable in the spool", FINDING, f"{'; '.join(paths[:_NAMED])}{more}", remedy)
