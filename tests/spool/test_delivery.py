"""Delivery: whatever fails in between, each run is stored once, or is still known to the backlog."""

from __future__ import annotations

import errno
import os
import uuid
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest

from dramatiq_diag.errors import DiagnosticsError, RunRefusedError, SpoolError, StoreUnavailableError
from dramatiq_diag.spool.backlog import Backlog
from dramatiq_diag.spool.delivery import Delivery, Outcome
from dramatiq_diag.spool.directory import Spool
from dramatiq_diag.spool.entry import Entry
from dramatiq_diag.store.records import FinishedRun
from support.spool import END, TEXT, start_record

_RUNS = 11
_BATCH = 4
_POISON = 6
"The run that the database refuses: in the middle of a batch."


class FlakyStore:
    """Takes runs as the store does, but for one, and fails once: at the n-th call, before or after it took them."""

    def __init__(self, poison: uuid.UUID, fails_at: int, error: Exception, *, takes: bool) -> None:
        self.calls = 0
        self.taken: Counter[uuid.UUID] = Counter()
        self._poison = poison
        self._fails_at = fails_at
        self._error = error
        self._takes = takes

    @property
    def failed(self) -> bool:
        return self.calls >= self._fails_at

    def publish(self, bundles: Sequence[FinishedRun]) -> None:
        self.calls += 1
        if self.calls == self._fails_at and not self._takes:
            raise self._error
        ids = [bundle.run.run_id for bundle in bundles]
        if self._poison in ids:
            raise RunRefusedError
        self.taken.update(ids)
        if self.calls == self._fails_at:
            raise self._error


def saved(spool: Spool, number: int) -> Entry:
    entry = spool.entry()
    entry.append(start_record(entry.run_id, task_id=f"task-{number}"), TEXT, END)
    entry.flush()
    entry.close()
    os.utime(entry.path("entry"), (number, number))
    return entry


def in_spool(spool: Spool) -> set[uuid.UUID]:
    return {entry.run_id for entry in spool.entries(spool.owner, 1000)}


class Publishing:
    """What the publisher does with a backlog, and a look at every step for runs that nobody knows of."""

    def __init__(self, spool: Spool, fails_at: int, error: Exception, *, takes: bool = False, held: int = 1000) -> None:
        self.spool = spool
        self.unsaved: set[uuid.UUID] = set()
        self.backlog = Backlog(spool, self.unsaved, max_held=held)
        self.entries = [saved(spool, number) for number in range(1, _RUNS + 1)]
        self.poison = self.entries[_POISON].run_id
        self.store: Any = FlakyStore(self.poison, fails_at, error, takes=takes)
        self.delivery = Delivery(spool, self.store)
        self.outcomes: dict[uuid.UUID, Outcome] = {}
        self.backlog.add(self.entries)

    def settled(self, entry: Entry, outcome: Outcome) -> None:
        assert entry.run_id not in self.outcomes
        self.outcomes[entry.run_id] = outcome
        self.backlog.done(entry)

    def run(self) -> None:
        while batch := self.backlog.oldest(_BATCH, but=self.delivery.refused):
            assert not self.backlog.wait_until_done(_RUNS, 0)
            with suppress(DiagnosticsError):  # The publisher waits, and goes on.
                self.delivery.deliver(batch, self.settled)
            assert len(self.backlog) == _RUNS - len(self.outcomes)
            assert in_spool(self.spool) >= {entry.run_id for entry in self.entries} - self.store.taken.keys()

    def assert_all_is_well(self, most: int = 1) -> None:
        expected = {entry.run_id: Outcome.PUBLISHED for entry in self.entries} | {self.poison: Outcome.REFUSED}
        assert self.outcomes == expected
        assert self.store.taken.keys() == expected.keys() - {self.poison}
        assert max(self.store.taken.values()) <= most
        assert in_spool(self.spool) == {self.poison}
        assert self.backlog.wait_until_done(_RUNS, 0)
        assert (len(self.backlog), self.backlog.lost, self.backlog.dropped) == (0, 0, 0)


@pytest.mark.parametrize("held", [3, 1000])
@pytest.mark.parametrize(("error", "takes"), [(StoreUnavailableError(), False), (StoreUnavailableError(), True)])
def test_a_store_that_fails_at_any_call_loses_no_run(settings, held, error, takes):
    fails_at = 0
    while True:
        fails_at += 1
        spool = Spool(settings())
        spool.open()
        publishing = Publishing(spool, fails_at, error, takes=takes, held=held)

        publishing.run()

        publishing.assert_all_is_well(most=2 if takes else 1)
        publishing.entries[_POISON].remove(())
        spool.close()
        if not publishing.store.failed:
            break
    assert fails_at > 6


def test_a_bug_at_any_call_loses_no_run(settings):
    for fails_at in range(1, 8):
        spool = Spool(settings())
        spool.open()
        publishing = Publishing(spool, fails_at, RecursionError())
        with pytest.raises(RecursionError):
            publishing.run()

        publishing.run()

        publishing.assert_all_is_well()
        publishing.entries[_POISON].remove(())
        spool.close()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE])
def test_what_the_process_lacks_is_not_held_against_a_run(spool, monkeypatch, number):
    publishing = Publishing(spool, 10**9, StoreUnavailableError())
    opened, failures = Entry.open, []

    def open_entry(entry: Entry, kind: str) -> Any:
        if len(failures) < 3:
            failures.append(1)
            raise OSError(number, os.strerror(number))
        return opened(entry, kind)

    monkeypatch.setattr(Entry, "open", open_entry)

    publishing.run()

    assert len(failures) == 3
    publishing.assert_all_is_well()


def test_entries_of_a_directory_that_cannot_be_reached_wait_and_hold_up_nothing(spool, tmp_path):
    # Given files that cannot be opened, as where rights were changed or a disk fails, and a run in memory behind them
    publishing = Publishing(spool, 10**9, StoreUnavailableError())
    in_memory = Entry(spool.root, uuid.uuid4())
    in_memory.append(start_record(in_memory.run_id), TEXT, END)
    in_memory.flush()
    publishing.backlog.add([in_memory])
    owner = publishing.entries[0].owner
    owner.rename(tmp_path / "elsewhere")
    owner.symlink_to(owner)

    # When all are delivered
    def batch() -> list[Entry]:
        delivery = publishing.delivery
        return publishing.backlog.oldest(_BATCH, but={*delivery.refused, *delivery.deferred})

    while entries := batch():
        publishing.delivery.deliver(entries, publishing.settled)

    # Then the one is published, none of the others is refused, and a pause is asked for before they are tried again
    assert publishing.outcomes == {in_memory.run_id: Outcome.PUBLISHED}
    with pytest.raises(SpoolError, match="cannot be read"):
        publishing.delivery.retry_deferred()
    publishing.delivery.retry_deferred()
    assert batch() == publishing.entries[:_BATCH]

    # And all are published, once the directory is there
    owner.unlink()
    (tmp_path / "elsewhere").rename(owner)
    while entries := batch():
        publishing.delivery.deliver(entries, publishing.settled)
    assert publishing.outcomes.pop(publishing.poison) is Outcome.REFUSED
    assert publishing.outcomes.keys() == {entry.run_id for entry in (*publishing.entries, in_memory)} - {
        publishing.poison
    }
    assert {*publishing.outcomes.values()} == {Outcome.PUBLISHED}
    assert len(publishing.backlog) == 0


def test_an_entry_that_cannot_be_removed_is_published_once(spool, monkeypatch):
    publishing = Publishing(spool, 10**9, StoreUnavailableError())
    stuck = publishing.entries[2].run_id
    discard = spool.discard

    def refuse(entry: Entry, kinds: Any) -> None:
        if entry.run_id == stuck:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        discard(entry, kinds)

    monkeypatch.setattr(spool, "discard", refuse)

    publishing.run()

    assert publishing.outcomes[stuck] == Outcome.PUBLISHED
    assert publishing.store.taken[stuck] == 1
    assert in_spool(spool) == {stuck, publishing.poison}
    assert len(publishing.backlog) == 0


def test_entries_that_someone_removed_are_lost_and_the_others_are_published(spool, caplog):
    publishing = Publishing(spool, 10**9, StoreUnavailableError())
    gone = publishing.entries[1:3]
    for entry in gone:
        entry.path("entry").unlink()

    publishing.delivery.deliver(publishing.entries[:4], publishing.settled)

    assert {run_id for run_id, outcome in publishing.outcomes.items() if outcome is Outcome.LOST} == {
        entry.run_id for entry in gone
    }
    assert publishing.store.taken.keys() == {publishing.entries[0].run_id, publishing.entries[3].run_id}
    assert [text for text in caplog.messages if text.startswith("2 runs are lost")]


def test_a_run_is_found_as_soon_as_it_is_added_whatever_the_spool_holds(spool):
    unsaved: set[uuid.UUID] = set()
    backlog = Backlog(spool, unsaved, max_held=1)
    first, second = saved(spool, 1), saved(spool, 2)
    unsaved |= {first.run_id, second.run_id}

    # When the second one is added while the first is held, and the sealer gets no further
    backlog.add([first])
    backlog.add([second])
    backlog.done(first)
    first.remove(())

    assert not backlog.wait_until_done(2, 0)
    assert [entry.run_id for entry in backlog.oldest(10, but=())] == [second.run_id]


def test_a_spool_that_cannot_be_listed_for_a_moment_overlooks_nothing(spool, monkeypatch):
    backlog = Backlog(spool, set(), max_held=1)
    first, second = saved(spool, 1), saved(spool, 2)
    backlog.add([first, second])
    backlog.done(first)
    first.remove(())

    def refuse(*_: Any) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        with pytest.raises(DiagnosticsError, match="Too many open files"):
            backlog.oldest(10, but=())

    assert not backlog.wait_until_done(2, 0)
    assert [entry.run_id for entry in backlog.oldest(10, but=())] == [second.run_id]


def test_what_someone_removed_from_a_long_backlog_is_counted_as_lost(spool):
    backlog = Backlog(spool, set(), max_held=1)
    entries = [saved(spool, number) for number in range(4)]
    backlog.add(entries)
    backlog.done(entries[0])
    for entry in entries:
        entry.remove(())

    assert backlog.oldest(10, but=()) == []
    assert (backlog.lost, len(backlog)) == (3, 0)
