"""Checks the data dir, the spool, the cache and the blobs: writable, with free space, and closed to other users."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ...documents.signing import KEY_FILE
from ...errors import DiagnosticsError
from ...runtime.private_files import open_to_others
from ...settings import Settings
from ...store.blobs import blob_store_of
from ...text import format_size
from .check import FINDING, OK, Check

#: The bytes that a writable directory takes: a full disk still takes empty files.
_PROBE_BYTES = 65536

#: The part of a disk that has to be free.
_LEAST_FREE = 0.1


def check_directories(settings: Settings) -> Iterator[Check]:
    """Checks the directories, and the bucket if the blobs are in one."""
    yield _directory("data dir", settings.data_dir, Settings.variable("data_dir"))
    yield _directory("spool", settings.spool, Settings.variable("spool_dir"))
    yield _directory("cache", settings.cache, Settings.variable("cache_dir"))
    yield _blobs(settings)
    yield from _free_disk(settings)
    yield from _privacy(settings)


def _directory(name: str, path: Path, variable: str) -> Check:
    try:
        existing = existing_part(path)
        with tempfile.TemporaryFile(dir=existing, buffering=0) as file:
            file.write(bytes(_PROBE_BYTES))
    except OSError as error:
        remedy = f"Make it writable for the worker's user, or set {variable}."
        return Check(name, FINDING, f"{path} cannot be written: {error.strerror or error}", remedy)
    return Check(name, OK, f"{path} is writable" if existing == path else f"{path} will be made when it is needed")


def _blobs(settings: Settings) -> Check:
    if settings.blob_dir is not None:
        return _directory("blobs", settings.blob_dir, Settings.variable("blob_url"))
    try:
        next(blob_store_of(settings).scan(), None)
    except DiagnosticsError as error:
        remedy = "Check the name of the bucket, and the variables of the cloud's tools; see docs/object-stores.md."
        return Check("blobs", FINDING, str(error), remedy)
    return Check("blobs", OK, f"{settings.blob_url} answers")


def existing_part(path: Path) -> Path:
    """Returns: The path, or the nearest of its parents that exists."""
    return next(parent for parent in (path, *path.parents) if parent.exists())


def _free_disk(settings: Settings) -> Iterator[Check]:
    """Checks the free space of the disks of the data dir, the spool and the blobs, each disk once."""
    names_by_disk: dict[int, list[str]] = {}
    paths: dict[int, Path] = {}
    for name, path in {"data dir": settings.data_dir, "spool": settings.spool, "blobs": settings.blob_dir}.items():
        if path is None:  # The blobs are in a bucket.
            continue
        try:
            existing = existing_part(path)
            disk = existing.stat().st_dev
        except OSError:  # `_directory` reports it.
            continue
        names_by_disk.setdefault(disk, []).append(name)
        paths.setdefault(disk, existing)
    for disk, path in paths.items():
        usage = shutil.disk_usage(path)
        text = f"{format_size(usage.free)} of {format_size(usage.total)} are free for {', '.join(names_by_disk[disk])}"
        if usage.total and usage.free < _LEAST_FREE * usage.total:
            bounds = f"{Settings.variable('max_bytes')} and {Settings.variable('spool_max_bytes')}"
            remedy = f"Free some space, or set {bounds}; dramatiq-diag storage says what takes it."
            yield Check("free disk", FINDING, f"{text}, less than {_LEAST_FREE:.0%}", remedy)
        else:
            yield Check("free disk", OK, text)


def _privacy(settings: Settings) -> Iterator[Check]:
    """Checks owner and mode of the directories, the key and the database file: they hold other people's data."""
    data_dir, url = settings.data_dir, settings.database
    paths = [data_dir, settings.spool, settings.cache, data_dir / KEY_FILE]
    if settings.blob_dir is not None:
        paths.append(settings.blob_dir)
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
