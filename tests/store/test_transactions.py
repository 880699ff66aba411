"""The database opens when it is first used, once for all threads, and again after a fault."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import event, text

from dramatiq_diag.errors import SchemaError, StoreUnavailableError
from dramatiq_diag.store.migration import VERSION_TABLE, head_revision, migrate
from dramatiq_diag.store.store import Store
from dramatiq_diag.store.transactions import Transactions
from support.records import bundle


@pytest.fixture
def given(settings, database_url):
    made = settings(database_url=database_url)
    migrate(made)
    return made


@pytest.fixture
def store(given):
    store = Store(given)
    yield store
    store.close()


@pytest.fixture
def checks(store):
    """The queries for the revision of the schema."""
    seen = []

    def note(_connection, _cursor, statement, *_):
        if statement == f"SELECT version_num FROM {VERSION_TABLE}":
            seen.append(statement)

    event.listen(store.engine, "before_cursor_execute", note)
    return seen


def test_nothing_is_opened_before_it_is_used(settings, database_url, tmp_path):
    given = settings(database_url=database_url, data_dir=tmp_path / "unused")
    connected = []
    store = Store(given)
    event.listen(store.engine, "do_connect", lambda *arguments: connected.append(arguments))

    assert connected == []
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
        connection.execute(text("UPDATE dramatiq_diag_version SET version_num = :head"), {"head": head_revision()})
    store.store_id()
    assert len(checks) == 4


def test_a_process_that_goes_on_notices_a_schema_that_it_must_not_write_to(given):
    now = [0.0]
    transactions = Transactions(given, lambda: now[0])
    with transactions.session() as session:
        session.execute(text("UPDATE dramatiq_diag_version SET version_num = '1001'"))
    now[0] = 59.0
    transactions.open_database()
    now[0] = 60.0
    with pytest.raises(SchemaError, match="1001"):
        transactions.open_database()
    transactions.close()


def test_without_a_descriptor_left_the_database_is_said_to_be_unavailable(given):
    def exhausted(*_):
        raise OSError(24, "Too many open files")

    transactions = Transactions(given)
    event.listen(transactions.engine, "do_connect", exhausted)
    with pytest.raises(StoreUnavailableError, match="Too many open files"):
        transactions.open_database()
    transactions.close()
