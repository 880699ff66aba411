"""Captures: as many runs as were asked for, over all worker processes of a database, and not one more."""

from __future__ import annotations

import threading
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker
from sqlalchemy import select, update
from support import FakeClock, eventually
from test_brokers import command_line  # noqa: F401 - a fixture.

from dramatiq_diag import Diagnostics
from dramatiq_diag.errors import StoreUnavailableError
from dramatiq_diag.maintenance.cleanup import Cleanup
from dramatiq_diag.policy.options import with_options
from dramatiq_diag.store import permits
from dramatiq_diag.store.captures import (
    CaptureNotFoundError,
    CaptureRequestError,
    CaptureState,
    TooManyCapturesError,
    create,
    end,
    find_capture,
    list_captures,
)
from dramatiq_diag.store.models import Capture, CapturePermit
from dramatiq_diag.store.pins import pin
from dramatiq_diag.store.runs import RunFilter, list_runs
from dramatiq_diag.store.store import Store
from dramatiq_diag.worker import captures as capturing

HOUR_S = 3600.0


def work() -> None:
    sum(range(1000))


@pytest.fixture
def given(settings, database_url):
    made = settings(
        database_url=database_url, task_diagnostics=[], task_diagnostics_on_request=["memory", "pyinstrument"]
    )
    made.data_dir.mkdir()
    return made


@pytest.fixture
def store(given, store_of):
    return store_of(given)


@pytest.fixture
def soon(monkeypatch):
    """Workers look at captures without a pause worth mentioning."""
    monkeypatch.setattr(capturing, "POLL_INTERVAL_S", 0.1)
    monkeypatch.setattr(capturing, "_EAGER_INTERVAL_S", 0.02)


def ask(store, actor_name="work", *, runs=1, names=("memory",), duration_s=HOUR_S):
    diagnostics = {name: {} for name in names}
    return create(store, actor_name, diagnostics, runs, duration_s, unknown_actor=True).capture.capture_id


def standing(store, capture_id):
    with store.session() as session:
        return find_capture(session, capture_id)


def runs_of(store, capture_id):
    with store.session() as session:
        return [*list_runs(session, RunFilter(capture_id=capture_id), 10_000)[0]]


def held(store, capture_id):
    with store.session() as session:
        query = select(CapturePermit).where(CapturePermit.capture_id == capture_id, CapturePermit.holder.is_not(None))
        return list(session.execute(query).scalars())


def failing_once(step, calls):
    """Returns: What fails as without a database the first time, and then is the step; it notes each call."""

    def call(*values):
        calls.append(values)
        if len(calls) == 1:
            raise StoreUnavailableError
        return step(*values)

    return call


# As a person asks for them.


def test_a_capture_is_open_until_it_is_ended_and_stays_as_it_was(store):
    capture_id = ask(store, runs=3)
    made = standing(store, capture_id)
    assert (made.state, made.captured_runs, made.capture.run_limit) == (CaptureState.OPEN, 0, 3)
    assert made.capture.expires_at - made.capture.created_at == timedelta(hours=1)

    ended = end(store, capture_id)

    assert ended.state == CaptureState.ENDED
    assert end(store, capture_id).capture.ended_at == ended.capture.ended_at
    with store.session() as session:
        assert permits.open_captures(session) == []
        assert [each.capture.capture_id for each in list_captures(session)] == [capture_id]
        assert list_captures(session, only_open=True) == []


def test_a_capture_that_there_is_not_cannot_be_ended(store):
    with pytest.raises(CaptureNotFoundError):
        end(store, uuid.uuid4())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        # Runs and times out of bounds.
        *(({"runs": runs}, "1 to 1000 runs") for runs in (0, -1, 1001, 10**9)),
        *(
            ({"duration_s": duration_s}, "1 s to 30 days")
            for duration_s in (0.0, 0.5, -1.0, 366 * 86400.0, float("nan"), float("inf"))
        ),
        # Names that are none.
        *(({"actor_name": name}, "1 to 255 characters") for name in ("", "x" * 256, "a\0b", "\udcff")),
        ({"actor_name": "dramatiq_diag.cleanup_orphans"}, "never diagnosed"),
        # Diagnostics that nobody allowed, or that there are not.
        ({"names": ()}, "needs the name"),
        ({"names": ("memory", "memray")}, "Neither TASK_DIAGNOSTICS nor TASK_DIAGNOSTICS_ON_REQUEST has 'memray'"),
        ({"names": ("memoy",)}, "TASK_DIAGNOSTICS_ON_REQUEST"),
    ],
)
def test_what_cannot_be_captured_is_refused_in_words(store, changes, said):
    with pytest.raises(CaptureRequestError, match=said):
        ask(store, **changes)
    with store.session() as session:
        assert list_captures(session) == []


def test_options_that_no_diagnostic_has_are_refused(store):
    with pytest.raises(CaptureRequestError, match="memory has no option 'depth'"):
        create(store, "work", {"memory": {"depth": 1}}, 1, HOUR_S)
    with pytest.raises(CaptureRequestError, match=r"memory\.interval"):
        create(store, "work", {"memory": {"interval": 0}}, 1, HOUR_S)


def test_only_so_many_captures_are_open_at_once(store, monkeypatch):
    monkeypatch.setattr("dramatiq_diag.store.store.captures.MAX_OPEN", 2)
    first = ask(store)
    ask(store)
    with pytest.raises(TooManyCapturesError):
        ask(store)
    end(store, first)
    ask(store)


def test_those_who_ask_at_once_get_no_more_captures_than_there_may_be(given, store_of, monkeypatch):
    monkeypatch.setattr("dramatiq_diag.store.store.captures.MAX_OPEN", 3)
    stores = [store_of(given) for _ in range(8)]
    barrier, made, refused = threading.Barrier(len(stores)), [], []

    def ask_for_one(own: Store) -> None:
        barrier.wait()
        try:
            made.append(ask(own, runs=1000))
        except TooManyCapturesError as error:
            refused.append(error)

    threads = [threading.Thread(target=ask_for_one, args=(own,)) for own in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), len(refused)) == (3, 5)
    with stores[0].session() as session:
        assert len(list_captures(session)) == 3


# Permits.


def claimed(store, capture_id, holder):
    with store.session() as session:
        return permits.claim(session, capture_id, holder)


def use(store, capture_id, number, holder):
    with store.session() as session:
        return permits.use(session, capture_id, number, holder, uuid.uuid4())


def lapse(store, capture_id):
    """Lets the time of all leases pass."""
    with store.session() as session:
        past = datetime.now(UTC) - timedelta(seconds=1)
        session.execute(update(CapturePermit).where(CapturePermit.capture_id == capture_id).values(held_until=past))


def test_a_permit_is_one_process_s_until_it_is_given_back(store):
    capture_id, one, other = ask(store), uuid.uuid4(), uuid.uuid4()
    assert claimed(store, capture_id, one) == 1
    assert claimed(store, capture_id, other) is None
    with store.session() as session:
        assert [capture.has_free_permit for capture in permits.open_captures(session)] == [False]
        assert not permits.give_back(session, capture_id, 1, other)
        assert not permits.renew(session, capture_id, 1, other)
        assert permits.give_back(session, capture_id, 1, one)
    assert claimed(store, capture_id, other) == 1


def test_a_lease_that_ended_makes_the_permit_another_s(store):
    capture_id, one, other = ask(store), uuid.uuid4(), uuid.uuid4()
    claimed(store, capture_id, one)
    lapse(store, capture_id)

    assert claimed(store, capture_id, other) == 1
    assert not use(store, capture_id, 1, one)
    assert use(store, capture_id, 1, other)

    # A used one is used, however old the lease is
    lapse(store, capture_id)
    assert claimed(store, capture_id, one) is None
    assert standing(store, capture_id).state == CaptureState.COMPLETE


def test_a_use_may_be_noted_twice_and_is_one(store):
    capture_id, one, run_id = ask(store), uuid.uuid4(), uuid.uuid4()
    claimed(store, capture_id, one)
    for _ in range(2):
        with store.session() as session:
            assert permits.use(session, capture_id, 1, one, run_id)
    assert not use(store, capture_id, 1, one)
    assert standing(store, capture_id).captured_runs == 1
    assert held(store, capture_id)[0].run_id == run_id


def test_the_last_use_ends_a_capture_also_where_two_are_noted_at_once(given, store, store_of):
    stores, barrier = [store_of(given) for _ in range(2)], threading.Barrier(2)
    captures = [ask(store, runs=2) for _ in range(20)]
    permits_of = [[(each, holder := uuid.uuid4(), claimed(store, each, holder)) for each in captures] for _ in stores]

    def use_all(own: Store, mine) -> None:
        for capture_id, holder, number in mine:
            barrier.wait()
            assert use(own, capture_id, number, holder)

    threads = [threading.Thread(target=use_all, args=pair) for pair in zip(stores, permits_of, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [standing(store, each).captured_runs for each in captures] == [2] * 20
    assert None not in [standing(store, each).capture.ended_at for each in captures]


def test_no_permit_is_given_of_a_capture_that_is_over(store):
    by_hand, in_time = ask(store), ask(store)
    claimed(store, by_hand, uuid.uuid4())
    end(store, by_hand)
    with store.session() as session:
        past = datetime.now(UTC) - timedelta(seconds=1)
        session.execute(update(Capture).where(Capture.capture_id == in_time).values(expires_at=past))
    lapse(store, by_hand)

    assert claimed(store, by_hand, uuid.uuid4()) is None
    assert claimed(store, in_time, uuid.uuid4()) is None
    assert standing(store, in_time).state == CaptureState.EXPIRED


def test_those_who_claim_at_once_get_different_permits(given, store, store_of):
    capture_id, numbers = ask(store, runs=40), []
    stores = [store_of(given) for _ in range(4)]

    def claim_all(own: Store) -> None:
        while (number := claimed(own, capture_id, uuid.uuid4())) is not None:
            numbers.append(number)

    threads = [threading.Thread(target=claim_all, args=(own,)) for own in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # One that finds the only free ones locked by others leaves them to those
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    assert len(numbers) >= 37


# In workers.


def test_a_worker_looks_at_captures_often_enough_to_learn_of_one_within_five_seconds():
    assert 2 * capturing.POLL_INTERVAL_S <= 5


def has_a_permit(tasks):
    """Returns: Whether a worker has permits at hand, of whatever capture."""
    return bool(tasks.diagnostics.process.captures._mine)


def look(tasks):
    """Lets a worker look at the captures once more."""
    process = tasks.diagnostics.process.captures
    process._due = 0.0
    process.held.news.put(None)


def run_until(tasks, actor, condition, what):
    """Runs an actor again and again until something holds."""

    def once():
        actor.send()
        tasks.finish()
        return condition()

    eventually(once, what)


def test_the_next_runs_are_captured_and_no_more(given, store, bench, stored, soon):
    capture_id = ask(store, runs=3)
    with bench(given, threads=4) as tasks:
        actor, other = tasks.actor(work), tasks.actor(work, actor_name="other")
        run_until(tasks, actor, lambda: standing(store, capture_id).captured_runs == 3, "three runs are captured")
        for _ in range(20):
            actor.send()
            other.send()
        tasks.finish()

    done = standing(store, capture_id)
    assert (done.state, done.captured_runs) == (CaptureState.COMPLETE, 3)
    assert done.capture.ended_at is not None
    runs = runs_of(store, capture_id)
    assert {permit.run_id for permit in held(store, capture_id)} == {run.run_id for run in runs}
    assert [set(stored(given).artifacts(run.task_id)) for run in runs] == [{"memory_profile"}] * 3
    assert len(stored(given).all_runs()) == 3


def test_a_capture_whose_time_is_up_has_what_came(given, store, bench, stored, soon):
    capture_id = ask(store, runs=1000)
    with bench(given) as tasks:
        actor = tasks.actor(work)
        run_until(tasks, actor, lambda: standing(store, capture_id).captured_runs, "a run is captured")
        with store.session() as session:
            session.execute(update(Capture).values(expires_at=datetime.now(UTC)))
        run_until(tasks, actor, lambda: standing(store, capture_id).state == CaptureState.EXPIRED, "its time is up")
        run_until(tasks, actor, lambda: tasks.diagnostics.process.selection.captures is None, "the worker knows")
        count = len(stored(given).all_runs())
        actor.send()
        tasks.finish()

    assert 0 < count == len(runs_of(store, capture_id)) == len(stored(given).all_runs())
    assert standing(store, capture_id).captured_runs == count < 1000


def test_a_capture_that_is_ended_by_hand_takes_no_further_run(given, store, bench, stored, soon):
    capture_id = ask(store, runs=1000)
    with bench(given) as tasks:
        actor = tasks.actor(work)
        run_until(tasks, actor, lambda: standing(store, capture_id).captured_runs, "a run is captured")
        end(store, capture_id)
        eventually(lambda: tasks.diagnostics.process.selection.captures is None, "the worker knows")
        count = len(stored(given).all_runs())
        actor.send()
        tasks.finish()

    assert len(stored(given).all_runs()) == count == standing(store, capture_id).captured_runs


def test_two_captures_of_one_actor_have_each_their_runs(given, store, bench, stored, soon):
    first, second = ask(store, runs=2), ask(store, runs=2, names=("pyinstrument",))
    with bench(given) as tasks:
        actor = tasks.actor(work)
        run_until(tasks, actor, lambda: standing(store, second).captured_runs == 2, "the later one is complete")

    for capture_id, name in ((first, "memory_profile"), (second, "pyinstrument_profile")):
        runs = runs_of(store, capture_id)
        assert [set(stored(given).artifacts(run.task_id)) for run in runs] == [{name}] * 2


def test_an_idle_process_leaves_its_permit_to_one_that_has_runs(given, store, bench, run_worker, soon):
    # Given a process that has the only permit, and no runs
    capture_id = ask(store)
    diagnostics = Diagnostics(given)
    idle = StubBroker(middleware=[diagnostics])  # AsyncIO has one thread in a process, and the other worker has it.
    dramatiq.actor(work, broker=idle)
    with run_worker(idle):
        eventually(lambda: diagnostics.process.captures._mine, "the idle process has the permit")

        # When another one has runs, then one of those is captured
        with bench(given) as busy:
            actor = busy.actor(work)
            run_until(busy, actor, lambda: standing(store, capture_id).captured_runs, "a run is captured")
            assert not has_a_permit(busy)


def test_an_idle_process_keeps_its_permit_while_nobody_wants_it(given, store, bench, soon):
    capture_id = ask(store)
    with bench(given) as tasks:
        actor = tasks.actor(work)
        eventually(lambda: has_a_permit(tasks), "the process has the permit")
        with store.session() as session:  # As if most of the lease had passed.
            session.execute(update(CapturePermit).values(held_until=datetime.now(UTC) + timedelta(seconds=1)))
        tasks.diagnostics.process.captures._mine[capture_id].usable_until -= permits.LEASE_S / 2
        eventually(
            lambda: held(store, capture_id)[0].held_until > datetime.now(UTC) + timedelta(seconds=5), "it is renewed"
        )

        # And so the very next run is captured
        actor.send()
        tasks.finish()

    assert standing(store, capture_id).state == CaptureState.COMPLETE


def test_the_permit_of_a_process_that_was_killed_comes_back_after_its_lease(given, store, bench, soon):
    capture_id = ask(store)
    assert claimed(store, capture_id, uuid.uuid4()) == 1
    with bench(given) as tasks:
        actor = tasks.actor(work)
        eventually(lambda: tasks.diagnostics.process.selection.captures is not None, "the worker knows of it")
        actor.send()
        tasks.finish()
        assert standing(store, capture_id).captured_runs == 0

        lapse(store, capture_id)
        run_until(tasks, actor, lambda: standing(store, capture_id).captured_runs, "a run is captured")


def test_a_worker_that_stops_gives_its_permit_back(given, store, bench, soon):
    capture_id = ask(store)
    with bench(given) as tasks:
        tasks.actor(work)
        eventually(lambda: has_a_permit(tasks), "the worker has the permit")
        assert len(held(store, capture_id)) == 1

    assert held(store, capture_id) == []


def test_all_is_what_the_worker_may_collect(given, store, bench, stored, soon):
    capture_id = ask(store, names=("all",))
    with bench(replace(given, task_diagnostics_on_request=("memory", "resources"))) as tasks:
        actor = tasks.actor(work)
        run_until(tasks, actor, lambda: standing(store, capture_id).captured_runs, "a run is captured")
    (run,) = runs_of(store, capture_id)
    assert set(stored(given).artifacts(run.task_id)) == {"memory_profile", "resources_profile"}


def test_all_has_no_options_and_the_names_that_it_stands_for_have(store):
    with pytest.raises(CaptureRequestError, match="all has no options"):
        create(store, "work", {"all": {"interval": 1.0}}, 1, HOUR_S, unknown_actor=True)
    wanted = with_options(["all"], ["memory.interval=1"])
    assert create(store, "work", wanted, 1, HOUR_S, unknown_actor=True).capture.diagnostics == {
        "all": {},
        "memory": {"interval": 1},
    }


def test_what_is_collected_anyway_is_collected_of_a_captured_run_too(given, store, bench, stored, soon):
    capture_id = ask(store, names=("pyinstrument",))
    with bench(replace(given, task_diagnostics=("memory",))) as tasks:
        actor = tasks.actor(work)
        run_until(tasks, actor, lambda: standing(store, capture_id).captured_runs, "a run is captured")

    (run,) = runs_of(store, capture_id)
    assert set(stored(given).artifacts(run.task_id)) == {"memory_profile", "pyinstrument_profile"}


def test_a_message_with_a_list_of_its_own_is_not_counted(given, store, bench, stored, soon):
    capture_id = ask(store)
    with bench(given) as tasks:
        actor = tasks.actor(work)
        eventually(lambda: has_a_permit(tasks), "the worker has a permit")
        own = actor.send_with_options(diagnostics=["pyinstrument"]).message_id
        none = actor.send_with_options(diagnostics=[]).message_id
        tasks.finish()

    assert set(stored(given).artifacts(own)) == {"pyinstrument_profile"}
    assert stored(given).runs(none) == []
    assert standing(store, capture_id).captured_runs == 0


def test_a_worker_whose_settings_lack_a_name_leaves_the_capture_to_others(given, store, bench, caplog, soon):
    capture_id = ask(store, names=("memory", "pyinstrument"))
    with bench(replace(given, task_diagnostics_on_request=("memory",))) as tasks:
        tasks.actor(work).send()
        tasks.finish()
        eventually(lambda: "left to other workers" in caplog.text, "the worker says so")
        look(tasks)
        tasks.finish()

    assert held(store, capture_id) == []
    assert caplog.text.count("left to other workers") == 1
    assert "TASK_DIAGNOSTICS_ON_REQUEST of this one has ['pyinstrument']" in caplog.text


def test_a_worker_without_the_actor_or_its_queue_holds_no_permit(given, store, stub_broker, run_worker, soon):
    ask(store)
    ask(store, "elsewhere")
    seen_by = ask(store, "here")
    diagnostics = Diagnostics(given)
    stub_broker.add_middleware(diagnostics)
    dramatiq.actor(work, broker=stub_broker, actor_name="here", queue_name="here")
    dramatiq.actor(work, broker=stub_broker, actor_name="elsewhere", queue_name="elsewhere")
    with run_worker(stub_broker, queues={"here", given.cleanup_queue}):
        eventually(lambda: diagnostics.process.captures._mine, "the worker has looked at the captures")
        assert set(diagnostics.process.captures._mine) == {seen_by}


def test_while_the_database_is_away_captures_pause_and_tasks_run_on(given, store, bench, monkeypatch, caplog, soon):
    with bench(given) as tasks:
        actor, calls = tasks.actor(work), []

        def away(session):
            calls.append(session)
            raise StoreUnavailableError

        monkeypatch.setattr(permits, "open_captures", away)
        capture_id = ask(store)
        eventually(lambda: len(calls) > 3, "the worker tried several times")
        actor.send()
        tasks.finish()
        assert caplog.text.count("Captures pause, and tasks run on") == 1

        monkeypatch.undo()
        look(tasks)
        run_until(tasks, actor, lambda: standing(store, capture_id).captured_runs, "a run is captured")


def test_a_run_that_could_not_be_told_of_is_told_of_later(given, store, bench, monkeypatch, soon):
    capture_id = ask(store, runs=2)
    with bench(given) as tasks:
        actor, calls = tasks.actor(work), []
        eventually(lambda: has_a_permit(tasks), "the worker has a permit")

        monkeypatch.setattr(permits, "use", failing_once(permits.use, calls))
        actor.send()
        eventually(lambda: standing(store, capture_id).captured_runs == 1, "the run is told of")
        tasks.finish()

    assert len(runs_of(store, capture_id)) == 1


def test_a_run_that_was_told_of_though_the_answer_was_lost_is_no_run_more(
    given, store, bench, monkeypatch, caplog, soon
):
    capture_id, use_of = ask(store), permits.use
    with bench(given) as tasks:
        actor, calls = tasks.actor(work), []
        eventually(lambda: has_a_permit(tasks), "the worker has a permit")

        def loses_its_first_answer(session, *values):
            used = use_of(session, *values)
            calls.append(used)
            if len(calls) == 1:
                session.commit()
                raise StoreUnavailableError
            return used

        monkeypatch.setattr(permits, "use", loses_its_first_answer)
        actor.send()
        eventually(lambda: len(calls) == 2, "the run is told of again")
        tasks.finish()

    assert "lease had ended" not in caplog.text
    assert standing(store, capture_id).captured_runs == 1


def test_a_complete_capture_is_ended_though_the_database_failed_in_between(given, store, bench, monkeypatch, soon):
    capture_id = ask(store)
    with bench(given) as tasks:
        actor, calls = tasks.actor(work), []
        eventually(lambda: has_a_permit(tasks), "the worker has a permit")

        monkeypatch.setattr(permits, "end_if_complete", failing_once(permits.end_if_complete, calls))
        actor.send()
        tasks.finish()
        eventually(lambda: standing(store, capture_id).captured_runs, "the run is told of")
        eventually(lambda: len(calls) > 1, "it was tried again")

    assert standing(store, capture_id).capture.ended_at is not None


def test_a_complete_capture_is_ended_by_a_worker_that_stops(given, store, bench, monkeypatch, soon):
    capture_id = ask(store)
    with bench(given) as tasks:
        actor, process = tasks.actor(work), tasks.diagnostics.process.captures
        take_in = process._take_in

        def stop_and_take_in(news):
            process._stopping = process._stopping or news is not None
            take_in(news)

        monkeypatch.setattr(process, "_take_in", stop_and_take_in)
        eventually(lambda: has_a_permit(tasks), "the worker has a permit")
        actor.send()
        tasks.finish()

    assert standing(store, capture_id).captured_runs == 1
    assert standing(store, capture_id).capture.ended_at is not None


def test_a_process_whose_lease_went_to_another_one_claims_the_next_permit(given, store, bench, monkeypatch, soon):
    capture_id, looks, renewed = ask(store, runs=2), [], []
    open_captures, renew = permits.open_captures, permits.renew
    monkeypatch.setattr(permits, "open_captures", lambda session: looks.append(session) or open_captures(session))
    monkeypatch.setattr(permits, "renew", lambda *values: renewed.append(renew(*values)) or renewed[-1])
    with bench(given) as tasks:
        tasks.actor(work)
        eventually(lambda: has_a_permit(tasks), "the process has a permit")
        lapse(store, capture_id)
        assert claimed(store, capture_id, uuid.uuid4()) == 1

        tasks.diagnostics.process.captures._mine[capture_id].usable_until -= permits.LEASE_S / 2
        eventually(lambda: False in renewed, "the lease could not be renewed")
        count = len(looks)
        eventually(lambda: len(looks) > count + 3, "the process has looked a few times")
        assert tasks.diagnostics.process.captures._mine[capture_id].number == 2


# After their end.


def test_the_cleanup_removes_what_ended_before_the_retention_and_leaves_the_runs(
    given, store, bench, monkeypatch, soon
):
    clock = FakeClock(monkeypatch)
    complete, in_time, still_open = ask(store), ask(store, "x"), ask(store, "y", duration_s=30 * 86400.0)
    with bench(given) as tasks:
        actor = tasks.actor(work)
        run_until(tasks, actor, lambda: standing(store, complete).captured_runs, "a run is captured")
    (run,) = runs_of(store, complete)
    pin(store, run.run_id)  # Or it would go by the same retention.

    clock.ahead = timedelta(seconds=given.run_retention - 60)
    Cleanup(store).run()
    assert standing(store, complete) is not None

    clock.ahead = timedelta(seconds=given.run_retention + 60)
    Cleanup(store, dry_run=True).run()
    assert standing(store, complete) is not None
    Cleanup(store).run()
    assert standing(store, complete) is None
    assert standing(store, in_time) is not None  # It ended an hour later.
    assert held(store, complete) == []

    clock.ahead += timedelta(hours=2)
    Cleanup(store).run()
    assert standing(store, in_time) is None
    clock.ahead = timedelta(0)
    assert standing(store, still_open).state == CaptureState.OPEN
    assert [each.run_id for each in runs_of(store, complete)] == [run.run_id]


# Several processes.


def test_five_runs_over_three_processes_under_load_are_five_runs(
    given,
    store,
    redis_url,
    stored,
    command_line,  # noqa: F811
):
    # Given three worker processes, a capture of five runs, and tasks without end
    capture_id = ask(store, "parse", runs=5)
    command = command_line(redis_url, given, TASK_DIAGNOSTICS_ON_REQUEST="memory")
    command.start("--processes", "3", "--threads", "2")

    def complete():
        assert command.process.poll() is None, command.log.read_text()
        command.send(100)
        return standing(store, capture_id).state == CaptureState.COMPLETE

    eventually(complete, "the capture is complete")

    # When as many tasks again are done
    (last := given.data_dir / "retried-199").unlink(missing_ok=True)
    command.send(200)
    eventually(last.exists, "the last tasks are done")
    eventually(lambda: len(stored(given).all_runs()) >= 5, "all is published")
    assert command.stop() == 0

    # Then five runs were diagnosed, each with its artifact and by a permit of its own, and no other
    runs = stored(given).all_runs()
    assert len(runs) == 5
    assert {run.capture_id for run in runs} == {capture_id}
    for run in runs:
        (artifact,) = stored(given).artifacts(run.task_id).values()
        assert (artifact.name, artifact.status) == ("memory_profile", "stored")
    assert {permit.run_id for permit in held(store, capture_id)} == {run.run_id for run in runs}
    assert standing(store, capture_id).captured_runs == 5
    assert "lease had ended" not in command.log.read_text()
