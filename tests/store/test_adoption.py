"""Which blob directory is a database's: one, however many hosts start at once with directories of their own."""

from __future__ import annotations

import shutil
import threading
import uuid
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import update

from dramatiq_diag.cli import main
from dramatiq_diag.errors import StoreMismatchError, StoreUnavailableError
from dramatiq_diag.maintenance.cleanup import Cleanup
from dramatiq_diag.maintenance.consistency import check
from dramatiq_diag.store.blobs.local import LocalBlobStore
from dramatiq_diag.store.migration import migrate
from dramatiq_diag.store.models import StoreState
from dramatiq_diag.store.store import Store
from support import PATIENCE_S
from support.records import bundle, run_record


@pytest.fixture
def hosts(settings, database_url, tmp_path):
    """Settings of two hosts that share a database, and have blob directories of their own by mistake."""
    url = database_url or f"sqlite:///{tmp_path}/shared.db"
    given = [settings(database_url=url, blob_url=str(tmp_path / f"blobs-{number}")) for number in range(2)]
    migrate(given[0])
    return given


def open_at_once(monkeypatch, stores: list[Store]) -> list[Exception]:
    """Opens stores on threads, each of which has seen that nothing is claimed before any claims. Returns: Errors."""
    seen = threading.Barrier(len(stores), timeout=PATIENCE_S)
    errors: list[Exception] = []
    claim_root = Store.claim_root

    def claim_when_all_have_looked(store: Store, **how: Any) -> None:
        seen.wait()
        claim_root(store, **how)

    def open_store(store: Store) -> None:
        try:
            store.open()
        except Exception as error:
            errors.append(error)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "claim_root", claim_when_all_have_looked)
        threads = [threading.Thread(target=open_store, args=(store,)) for store in stores]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return errors


def test_two_hosts_that_start_at_once_do_not_both_claim_their_directories(hosts, monkeypatch):
    stores = [Store(given) for given in hosts]
    assert open_at_once(monkeypatch, stores) == []

    # Then one directory is the store's, and the other host publishes nothing and mends nothing
    (right,) = [store for store in stores if store.blobs.store_id() is not None]
    (wrong,) = [store for store in stores if store is not right]
    right.publish([bundle()])
    with pytest.raises(StoreUnavailableError, match="is away"):
        wrong.publish([bundle()])
    for step in (wrong.check_identity, Cleanup(wrong).run, lambda: check(wrong, fix=True)):
        with pytest.raises(StoreMismatchError, match="nothing was changed"):
            step()
    assert not wrong.blobs.root.exists()
    assert not check(right)
    for store in stores:
        store.close()


def test_hosts_that_start_at_once_with_one_directory_all_have_it(hosts, monkeypatch):
    stores = [Store(hosts[0]) for _ in range(3)]

    assert open_at_once(monkeypatch, stores) == []

    for store in stores:
        store.publish([bundle()])
        assert not check(store)
        store.close()


def test_a_check_on_the_wrong_host_exits_with_2_and_changes_nothing(hosts, store_of, stored, monkeypatch):
    # Given a store, and a directory that carries the same store's id, as an early version could make two of
    right = store_of(hosts[0])
    right.publish([bundle(run_record(task_id="task"))])
    wrong = LocalBlobStore(hosts[1].blob_dir)
    wrong.claim(right.store_id())
    monkeypatch.setenv("DRAMATIQ_DIAG_DATABASE_URL", hosts[0].database_url)
    monkeypatch.setenv("DRAMATIQ_DIAG_BLOB_URL", str(hosts[1].blob_dir))

    for arguments in (["check"], ["check", "--fix"], ["check", "--fix", "--blobs-lost"], ["cleanup"]):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 2, result.output
        assert "in another directory" in result.output

    assert stored(hosts[0]).data("task", "memory_profile")
    assert not check(right)


def test_who_dies_between_directory_and_database_is_not_locked_out(hosts, store_of):
    # Given a directory that was claimed, of which the database does not know
    store = store_of(hosts[0])
    root_id = store.identity().root_id
    with store.session() as session:
        session.execute(update(StoreState).values(blob_root_id=None))

    # When it starts again
    again = store_of(hosts[0])

    # Then it is what it was, and another directory is not
    assert again.identity().root_id == root_id == again.blobs.read_id().root_id
    with pytest.raises(StoreMismatchError):
        store_of(hosts[1]).check_identity()


def test_the_directory_of_an_early_version_gets_its_id(hosts, store_of):
    store = Store(hosts[0])
    for given in hosts:  # Both carry the store's id, which was all there was.
        given.blob_dir.mkdir()
        (given.blob_dir / ".store-id").write_text(f"{store.store_id()}\n")
    store.close()

    first, second = store_of(hosts[0]), store_of(hosts[1])

    first.publish([bundle()])
    first.check_identity()
    with pytest.raises(StoreMismatchError, match="in another directory"):
        second.publish([bundle()])


def test_the_directory_of_another_store_is_not_claimed(hosts, store_of):
    hosts[0].blob_dir.mkdir()
    (hosts[0].blob_dir / ".store-id").write_text(f"{uuid.uuid4()}\n")

    store = store_of(hosts[0])

    assert store.identity().root_id is None
    with pytest.raises(StoreMismatchError):
        store.check_identity()


def test_an_empty_directory_takes_the_place_of_a_lost_one_only_when_told(hosts, store_of, stored):
    store = store_of(hosts[0])
    store.publish([bundle()])
    shutil.rmtree(hosts[0].blob_dir)
    moved = store_of(hosts[1])
    assert moved.blobs.store_id() is None

    assert len(check(moved, fix=True, blobs_lost=True).missing_blobs) == 1

    moved.publish([bundle(run_record(task_id="task"))])
    assert stored(hosts[1]).data("task", "memory_profile")
    with pytest.raises(StoreUnavailableError):
        store.publish([bundle()])
