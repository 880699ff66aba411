"""The database opens when it is first used, once for all threads, and again after a fault."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import text

from dramatiq_diag.errors import SchemaError, StoreUnavailableError
from dramatiq_diag.store.migration import HEAD_REVISION
from dramatiq_diag.store.store import Store
from dramatiq_diag.store.transactions import Transactions
from support.records import bundle


@pytest.fixture
def given(settings, database_url):
    return settings(database_url=database_url)


@pytest.fixture
def store(given):
    store = Store(given)
    yield store
    store.close()


@pytest.fixture
def checks(monkeypatch):
    """The looks at the schema."""
    from dramatiq_diag.store import transactions

    calls, check = [], transactions.check_schema
    monkeypatch.setattr(transactions, "check_schema", lambda engine: (calls.append(engine), check(engine)))
    return calls


def test_nothing_is_opened_before_it_is_used(store, given, checks):
    assert checks == []
    assert not given.data_dir.exists()


def test_the_first_transaction_opens_the_database_and_the_others_do_not(store, checks):
    for _ in range(3):
        with store.session() as session:
            session.execute(text("SELECT 1"))
    assert len(checks) == 1


def test_threads_that_use_it_first_at_once_open_it_once(store, checks):
    barrier, ids = threading.Barrier(6), []

    def use() -> None:
        barrier.wait()
        ids.append(store.store_id())

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 1
    assert len(ids) == 6
    assert len(checks) == 1


def test_the_first_publication_claims_the_blob_directory(store):
    store.publish([bundle()])
    identity = store.identity()
    assert store.blobs.read_id() is not None
    store.blobs.verify(identity.store_id, identity.root_id)


def test_after_a_fault_the_schema_is_looked_at_again(store, checks):
    store.store_id()
    with store.session() as session:
        session.execute(text("UPDATE dramatiq_diag_version SET version_num = '9999'"))
    store.store_id()  # Nobody has said that anything is wrong.

    store.reopen()

    with pytest.raises(SchemaError, match="9999"):
        store.store_id()
    with pytest.raises(SchemaError, match="9999"):  # It is tried again each time.
        store.store_id()
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE dramatiq_diag_version SET version_num = :head"), {"head": HEAD_REVISION})
    store.store_id()
    assert len(checks) == 4


def test_without_a_descriptor_left_the_database_is_said_to_be_unavailable(given, monkeypatch):
    def exhausted(_engine):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("dramatiq_diag.store.transactions.check_schema", exhausted)
    transactions = Transactions(given)
    with pytest.raises(StoreUnavailableError, match="Too many open files"):
        transactions.open_database()
    transactions.close()
