"""Files for one user alone: made so, and not trusted where they are not."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from dramatiq_diag import Settings
from dramatiq_diag.cli.doctor_checks import Check, Status, examine
from dramatiq_diag.documents.signing import Signer
from dramatiq_diag.errors import StoreUnavailableError
from dramatiq_diag.runtime.private_files import make_directory, make_file
from dramatiq_diag.store.migration import migrate
from dramatiq_diag.store.store import Store

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")


@pytest.fixture(autouse=True)
def usual_mask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "above" / "data", task_diagnostics=["memory"])


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_directories_are_made_for_this_user_alone_from_the_first_one(tmp_path: Path) -> None:
    make_directory(tmp_path / "a" / "b" / "c")
    make_directory(tmp_path / "a" / "b" / "c")
    assert [_mode(tmp_path / name) for name in ("a", "a/b", "a/b/c")] == [0o700] * 3


def test_a_file_is_made_once_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    make_file(path, b"first")
    make_file(path, b"second")
    assert (path.read_bytes(), _mode(path), os.listdir(tmp_path)) == (b"first", 0o600, ["file"])


def open_store(settings: Settings) -> None:
    with closing(Store(settings)) as store:
        store.open_database()


@pytest.mark.parametrize("opens", [open_store, migrate])
def test_the_database_is_private_in_a_directory_that_is_not(
    settings: Settings, opens: Callable[[Settings], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dramatiq_diag.store.transactions.migrate", migrate)  # Not the clone of the tests' template.
    settings.data_dir.mkdir(mode=0o755, parents=True)

    opens(settings)

    with closing(Store(settings)) as store, store.session() as session:
        session.connection()
        found = {path.name: _mode(path) for path in settings.data_dir.glob("diagnostics.db*")}
    assert found["diagnostics.db"] == 0o600
    assert set(found.values()) == {0o600}
    assert len(found) == 3  # With the journal and its index.


def test_what_a_store_makes_is_private(settings: Settings) -> None:
    with closing(Store(settings)) as store:
        store.open()
    Signer(settings)
    for path in (settings.data_dir, settings.data_dir / "blobs"):
        assert _mode(path) == 0o700
    assert _mode(settings.data_dir / "secret.key") == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_can_reach_is_not_trusted(settings: Settings, mode: int) -> None:
    Signer(settings)
    key = settings.data_dir / "secret.key"
    key.chmod(mode)
    expected = rf"{key} is not trusted, because its mode is {mode:04o}.*DRAMATIQ_DIAG_SECRET_KEY"
    with pytest.raises(StoreUnavailableError, match=expected):
        Signer(settings)
    assert Signer(replace(settings, secret_key="k" * 16))


@as_root
def test_a_key_of_another_user_is_not_trusted(settings: Settings) -> None:
    Signer(settings)
    os.chown(settings.data_dir / "secret.key", 12345, 12345)
    with pytest.raises(StoreUnavailableError, match="not trusted, because it belongs to the user with id 12345"):
        Signer(settings)


@pytest.mark.parametrize("kind", ["link", "directory", "pipe"])
def test_a_key_that_is_no_file_is_not_trusted(settings: Settings, tmp_path: Path, kind: str) -> None:
    settings.data_dir.mkdir(parents=True)
    key = settings.data_dir / "secret.key"
    if kind == "link":
        (tmp_path / "elsewhere").write_bytes(b"k" * 32)
        key.symlink_to(tmp_path / "elsewhere")
    elif kind == "directory":
        key.mkdir()
    else:
        os.mkfifo(key, 0o600)
    with pytest.raises(StoreUnavailableError, match=str(key)):
        Signer(settings)


def _privacy(settings: Settings) -> list[Check]:
    return [check for check in examine(settings) if check.name == "privacy"]


def test_the_doctor_is_content_with_what_was_made(settings: Settings) -> None:
    with closing(Store(settings)) as store:
        store.open()
    Signer(settings)
    assert [check.status for check in _privacy(settings)] == [Status.OK]


@pytest.mark.parametrize("name", ["", "blobs", "spool", "secret.key", "diagnostics.db"])
def test_the_doctor_names_what_others_can_reach(settings: Settings, name: str) -> None:
    with closing(Store(settings)) as store:
        store.open()
    Signer(settings)
    settings.spool.mkdir(mode=0o700)
    path = settings.data_dir / name
    path.chmod(0o755 if path.is_dir() else 0o644)

    [check] = _privacy(settings)

    assert check.status is Status.FINDING
    assert check.detail.startswith(f"{path}: its mode is 0")
    assert check.remedy == f"chmod go= {path}"


@as_root
def test_the_doctor_names_what_is_somebody_elses(settings: Settings) -> None:
    with closing(Store(settings)) as store:
        store.open()
    os.chown(settings.data_dir, 12345, 12345)
    [check] = _privacy(settings)
    assert "belongs to the user with id 12345" in check.detail
