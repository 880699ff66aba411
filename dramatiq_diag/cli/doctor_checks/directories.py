"""Checks the data dir, the spool, the cache and the blobs: writable, with free space, and closed to other users."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ...documents.signing import KEY_FILE
from ...errors import DiagnosticsError
from ...runtime.private_files import open_to_others
from ...settings import Settings
from ...store.blobs import blob_store_of
from ...text import format_size
from .check import FINDING, OK, Check, guarded
from .remedies import place_of, remedy_of

#: The bytes that a writable directory takes: a full disk still takes empty files.
_PROBE_BYTES = 65536

#: The part of a disk that has to be free.
_LEAST_FREE = 0.1


#: The name of each directory, and the field of the settings that says where it is.
_DIRECTORIES = {"data dir": "data_dir", "spool": "spool_dir", "cache": "cache_dir", "blobs": "blob_url"}


def check_directories(settings: Settings) -> Iterator[Check]:
    """Checks the directories, and the bucket if the blobs are in one."""
    for name, field in _DIRECTORIES.items():
        yield from guarded(name, _place, name, settings, field)
    yield from guarded("free disk", _free_disk, settings)
    yield from guarded("privacy", _privacy, settings)


def _place(name: str, settings: Settings, field: str) -> Iterator[Check]:
    place = place_of(settings, field)
    path = place.path
    if path is None:
        yield _bucket(name, settings)
        return
    try:
        existing = existing_part(path)
        with tempfile.TemporaryFile(dir=existing, buffering=0) as file:
            file.write(bytes(_PROBE_BYTES))
    except OSError as error:
        yield Check(name, FINDING, f"{path} cannot be written: {error.strerror or error}", remedy_of(error, place))
        return
    yield Check(name, OK, f"{path} is writable" if existing == path else f"{path} will be made when it is needed")


def _bucket(name: str, settings: Settings) -> Check:
    try:
        next(blob_store_of(settings).scan(), None)
    except DiagnosticsError as error:
        return Check(name, FINDING, str(error), remedy_of(error, place_of(settings, "blob_url")))
    return Check(name, OK, f"{settings.blob_url} answers")


def existing_part(path: Path) -> Path:
    """Returns: The path, or the nearest of its parents that exists.

    Raises:
      OSError: When that cannot be told, as in a directory that this user may not enter.
    """
    for part in (path, *path.parents):
        try:
            part.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        return part
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


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
        except OSError:  # `_place` reports it.
            continue
        names_by_disk.setdefault(disk, []).append(name)
        paths.setdefault(disk, existing)
    for disk, path in paths.items():
        try:
            usage = shutil.disk_usage(path)
        except OSError as error:
            remedy = remedy_of(error, replace(place_of(settings, "data_dir"), path=path))
            yield Check("free disk", FINDING, f"that of {path} cannot be measured: {error.strerror or error}", remedy)
            continue
        text = f"{format_size(usage.free)} of {format_size(usage.total)} are free for {', '.join(names_by_disk[disk])}"
        if usage.total and usage.free < _LEAST_FREE * usage.total:
            bounds = f"{Settings.variable('max_bytes')} and {Settings.variable('spool_max_bytes')}"
            remedy = f"Free some space, or set {bounds}; dramatiq-diag storage says what takes it."
            yield Check("free disk", FINDING, f"{text}, less than {_LEAST_FREE:.0%}", remedy)
        else:
            yield Check("free disk", OK, text)
        yield from _free_inodes(path, names_by_disk[disk])


def _free_inodes(path: Path, names: list[str]) -> Iterator[Check]:
    """Yields a finding where a file system can take few more files: each artifact is one, of often a few bytes."""
    status = os.statvfs(path)
    if status.f_favail < _LEAST_FREE * status.f_files:  # Both are 0 where the file system has no such bound.
        free = f"{status.f_favail} of {status.f_files} inodes are free for {', '.join(names)}"
        remedy = f"Remove files, or set {Settings.variable('max_bytes')}: each stored artifact takes one inode."
        yield Check("free disk", FINDING, f"{free}, less than {_LEAST_FREE:.0%}", remedy)


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
            remedy = f"chmod go= {shlex.quote(str(path))}" if "mode" in fault else change_owner
            yield Check("privacy", FINDING, f"{path}: {fault}", remedy)
    if all_private:
        yield Check("privacy", OK, "only this user reaches the directories, the key and the database file")
