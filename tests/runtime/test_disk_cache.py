"""A cache in a directory: whole files, a limit, and several processes."""

from __future__ import annotations

import os
import stat
import threading
import uuid
from pathlib import Path

import pytest

from dramatiq_diag.runtime.disk_cache import DiskCache


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "reports"


def name(number: int, what: str = "html") -> str:
    return f"{uuid.UUID(int=number)}.0.{what}"


def put(cache: DiskCache, number: int, data: bytes = b"x" * 100, age_s: float = 0.0) -> str:
    cache.put(name(number), lambda file: file.write(data))
    if age_s:
        path = cache.root / name(number)
        os.utime(path, (path.stat().st_mtime - age_s,) * 2)
    return name(number)


def read(cache: DiskCache, which: str) -> bytes | None:
    file = cache.open(which)
    if file is None:
        return None
    with file:
        return file.read()


def names(cache: DiskCache) -> set[str]:
    return {entry.name for entry in cache.entries()}


def test_what_was_put_is_opened_and_private(root: Path) -> None:
    cache = DiskCache(root, 1000)
    assert read(cache, name(1)) is None
    assert [*cache.entries()] == []

    put(cache, 1, b"one")

    assert read(cache, name(1)) == b"one"
    [entry] = cache.entries()
    assert (entry.name, entry.source_id, entry.size_bytes) == (name(1), uuid.UUID(int=1), 3)
    assert stat.S_IMODE((root / name(1)).stat().st_mode) == 0o600
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert stat.S_IMODE(root.parent.stat().st_mode) == 0o700


def test_the_least_recently_used_goes_first(root: Path) -> None:
    cache = DiskCache(root, 300)
    for number in (1, 2, 3):
        put(cache, number, age_s=100 - number)
    assert read(cache, name(1)) is not None  # It is the oldest, and was used just now.

    put(cache, 4)

    assert names(cache) == {name(1), name(3), name(4)}


def test_a_file_above_the_limit_is_kept_until_the_next(root: Path) -> None:
    cache = DiskCache(root, 50)
    put(cache, 1, age_s=10)
    assert names(cache) == {name(1)}

    put(cache, 2)
    assert names(cache) == {name(2)}


def test_a_write_that_fails_leaves_nothing_new(root: Path) -> None:
    cache = DiskCache(root, 1000)
    put(cache, 1, b"whole")

    def fail(file: object) -> None:
        raise RuntimeError("no")

    for number in (1, 2):
        with pytest.raises(RuntimeError):
            cache.put(name(number), fail)

    assert [path.name for path in root.iterdir()] == [name(1)]
    assert read(cache, name(1)) == b"whole"


def test_other_files_of_the_directory_are_left_alone_and_those_of_dead_processes_go(root: Path) -> None:
    cache = DiskCache(root, 10)
    put(cache, 1)
    foreign, dead, living = root / "notes.txt", root / f".{'0' * 32}.tmp", root / f".{'1' * 32}.tmp"
    for path in (foreign, dead, living):
        path.write_bytes(b"x" * 1000)
    os.utime(dead, (1, 1))

    put(cache, 2)

    assert {path.name for path in root.iterdir()} == {name(2), foreign.name, living.name}


@pytest.mark.parametrize(
    "bad", ["", "..", "../x", "a/b", f"{uuid.UUID(int=1)}/x", f"{uuid.UUID(int=1)}.../../x", "x.y"]
)
def test_only_names_of_the_cache_are_files(root: Path, bad: str) -> None:
    cache = DiskCache(root, 10)
    with pytest.raises(ValueError, match="no name"):
        cache.open(bad)
    with pytest.raises(ValueError, match="no name"):
        cache.put(bad, lambda file: file.write(b""))


def test_a_link_and_an_empty_file_are_not_served(root: Path, tmp_path: Path) -> None:
    cache = DiskCache(root, 1000)
    put(cache, 1)
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (root / name(2)).symlink_to(secret)
    (root / name(3)).touch()

    assert read(cache, name(2)) is None
    assert read(cache, name(3)) is None


def test_many_at_once_leave_whole_files_within_the_limit(root: Path) -> None:
    caches = [DiskCache(root, 1000) for _ in range(4)]
    faults: list[bytes] = []

    def work(cache: DiskCache) -> None:
        for number in range(60):
            put(cache, number % 20, bytes([number % 20]) * 100)
            data = read(cache, name(number % 20))
            if data not in (None, bytes([number % 20]) * 100):
                faults.append(data or b"")

    threads = [threading.Thread(target=work, args=(cache,)) for cache in caches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert faults == []
    assert sum(entry.size_bytes for entry in caches[0].entries()) <= 1000
