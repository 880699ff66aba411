"""Asking for diagnostics: what messages carry, what is passed on, which share is taken."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import Mock

import dramatiq
import pytest
from dramatiq import Broker, Worker, group, pipeline
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import CurrentMessage, GroupCallbacks, Middleware
from dramatiq.rate_limits import RateLimiterBackend
from dramatiq.rate_limits.backends import RedisBackend, StubBackend

from dramatiq_diag import Diagnostics, Settings
from dramatiq_diag.collectors.registry import load
from dramatiq_diag.policy.propagation import asking_for
from dramatiq_diag.policy.selection import Selection
from dramatiq_diag.store.models import TaskRun
from support import PATIENCE_S
from support.store import Stored
from support.tasks import finish, middleware_under_test, running


class Chain:
    """A broker with a worker, and actors that send others."""

    def __init__(self, broker: Broker, worker: Worker, diagnostics: Diagnostics, queue_name: str) -> None:
        self.broker, self.worker, self.diagnostics, self.queue_name = broker, worker, diagnostics, queue_name

    def actor(self, fn: Callable[..., Any], **options: Any) -> Any:
        given = {"queue_name": self.queue_name, "max_retries": 0, "actor_name": fn.__name__}
        return dramatiq.actor(fn, broker=self.broker, **given | options)

    def finish(self) -> None:
        finish(self.broker, self.worker, self.queue_name)
        finish(self.broker, self.worker, self.queue_name)  # What was sent meanwhile.
        assert self.diagnostics.flush(PATIENCE_S)


@contextmanager
def working(given: Settings, queue_name: str, broker: Broker) -> Iterator[Chain]:
    diagnostics = Diagnostics(given)
    broker.add_middleware(GroupCallbacks(group_backend(broker)))
    broker.add_middleware(diagnostics)
    with running(broker, threads=2) as worker:
        yield Chain(broker, worker, diagnostics, queue_name)


def group_backend(broker: Broker) -> RateLimiterBackend:
    """Where the members of groups are counted: on the broker's own Redis, if it has one."""
    client = getattr(broker, "client", None)
    return StubBackend() if client is None else RedisBackend(client=client)


@pytest.fixture
def chain(
    settings: Callable[..., Settings], stored: Callable[[Settings], Stored], stub_broker: Broker, queue_name: str
) -> Any:
    """`with chain(broker, **settings) as (tasks, runs):`; runs gives actor name -> run."""

    @contextmanager
    def make(broker: Broker = stub_broker, **values: Any) -> Iterator[tuple[Chain, Callable[[], dict[str, TaskRun]]]]:
        given = settings(**{"task_diagnostics_on_request": ["memory"]} | values)

        def runs() -> dict[str, TaskRun]:
            tasks.finish()
            return {run.actor_name: run for run in stored(given).all_runs()}

        with working(given, queue_name, broker) as tasks:
            yield tasks, runs

    return make


# What a task sends.


def test_what_was_asked_for_is_passed_on_with_the_parent(chain, broker):
    with chain(broker) as (tasks, runs):
        leaf = tasks.actor(lambda: None, actor_name="leaf")

        def middle() -> None:
            leaf.send()

        middle = tasks.actor(middle)

        def top() -> None:
            middle.send_with_options(delay=1)

        tasks.actor(top).send_with_options(diagnostics=["memory"])
        found = runs()
        for _ in range(20):
            if "leaf" in found:
                break
            found = runs()

    assert set(found) == {"top", "middle", "leaf"}
    assert found["top"].parent_run_id is None
    assert found["middle"].parent_run_id == found["top"].run_id
    assert found["leaf"].parent_run_id == found["middle"].run_id


@pytest.mark.parametrize(("depth", "collected"), [(0, {"a"}), (1, {"a", "b"}), (2, {"a", "b", "c"})])
def test_it_is_passed_on_so_many_tasks_deep(chain, depth, collected):
    with chain(pass_on_depth=depth) as (tasks, runs):
        d = tasks.actor(lambda: None, actor_name="d")
        c = tasks.actor(lambda: d.send() and None, actor_name="c")
        b = tasks.actor(lambda: c.send() and None, actor_name="b")
        tasks.actor(lambda: b.send() and None, actor_name="a").send_with_options(diagnostics=["memory"])

        assert set(runs()) == collected


def test_what_is_collected_for_all_is_not_passed_on_but_the_parent_is(chain):
    with chain(task_diagnostics=["memory"]) as (tasks, runs):
        quiet = tasks.actor(lambda: None, actor_name="quiet", diagnostics=[])
        child = tasks.actor(lambda: None, actor_name="child")

        def top() -> None:
            quiet.send()
            child.send()

        tasks.actor(top).send()
        found = runs()

    assert set(found) == {"top", "child"}
    assert found["child"].parent_run_id == found["top"].run_id


def test_an_empty_list_is_for_that_message_alone(chain):
    with chain(task_diagnostics=["memory"]) as (tasks, runs):
        child = tasks.actor(lambda: None, actor_name="child")
        tasks.actor(lambda: child.send() and None, actor_name="top").send_with_options(diagnostics=[])
        found = runs()

    assert set(found) == {"child"}
    assert found["child"].parent_run_id is None


def test_a_messages_own_list_is_never_replaced(chain):
    with chain() as (tasks, runs):
        child = tasks.actor(lambda: None, actor_name="child")
        tasks.actor(lambda: child.send_with_options(diagnostics=[]) and None, actor_name="top").send_with_options(
            diagnostics=["memory"]
        )

        assert set(runs()) == {"top"}


def test_pipelines_groups_and_callbacks_pass_it_on(chain, broker):
    with chain(broker) as (tasks, runs):
        for name in ("second", "done", "succeeded"):
            tasks.actor(lambda *_: None, actor_name=name)
        first = tasks.actor(lambda: 1, actor_name="first")
        second, done = tasks.broker.get_actor("second"), tasks.broker.get_actor("done")
        piped = pipeline([first.message_with_options(diagnostics=["memory"]), second.message()], broker=tasks.broker)
        piped.run()
        found = runs()
        assert found["second"].parent_run_id == found["first"].run_id

        member = tasks.actor(lambda: None, actor_name="member")
        members = group([member.message_with_options(diagnostics=["memory"])], broker=tasks.broker)
        members.add_completion_callback(done.message())
        members.run()
        found = runs()
        assert found["done"].parent_run_id == found["member"].run_id

        caller = tasks.actor(lambda: None, actor_name="caller")
        caller.send_with_options(diagnostics=["memory"], on_success="succeeded")
        found = runs()
        assert found["succeeded"].parent_run_id == found["caller"].run_id


def test_coroutines_pass_on_their_own(chain):
    with chain() as (tasks, runs):
        children = {name: tasks.actor(lambda: None, actor_name=f"of_{name}") for name in ("one", "two")}

        def declare(name: str) -> Any:
            async def run() -> None:
                await asyncio.sleep(0.05)
                children[name].send()

            run.__name__ = name
            return tasks.actor(run)

        parents = [declare(name) for name in children]
        for parent in parents:
            parent.send_with_options(diagnostics=["memory"])
        found = runs()

    assert found["of_one"].parent_run_id == found["one"].run_id
    assert found["of_two"].parent_run_id == found["two"].run_id


@pytest.mark.parametrize("broker", ["stub", "redis"], indirect=True)
def test_a_retry_keeps_what_was_asked_for_and_is_not_its_own_child(settings, stored, broker, queue_name):
    given = settings(task_diagnostics_on_request=["memory"])
    attempts = []

    def flaky() -> None:
        attempts.append(None)
        if len(attempts) == 1:
            raise ValueError("not yet")

    with working(given, queue_name, broker) as tasks:
        message = tasks.actor(flaky, max_retries=1).send_with_options(diagnostics=["memory"])
        tasks.finish()
        while len(attempts) < 2:
            tasks.finish()
        tasks.finish()

    runs = stored(given).runs(message.message_id)
    assert [run.parent_run_id for run in runs] == [None, None]


@pytest.mark.parametrize("parent", ["x", 7, None, [], {"a": 1}, "0" * 10_000, "\ud800"])
@pytest.mark.parametrize("depth", [-1, "x", None, 10**30, [1]])
def test_forged_options_harm_nothing(chain, parent, depth):
    with chain() as (tasks, runs):
        options = {"diagnostics_parent": parent, "diagnostics_depth": depth, "diagnostics_root": parent}
        child = tasks.actor(lambda: None, actor_name="child")
        tasks.actor(lambda: child.send() and None, actor_name="top").send_with_options(
            diagnostics=["memory"], **options
        )
        found = runs()

    assert found["top"].parent_run_id is None


def test_a_thread_that_only_sends_says_nothing_of_a_parent(settings, queue_name):
    broker = StubBroker(middleware=[Diagnostics(settings(task_diagnostics_on_request=["memory"]))])
    actor = dramatiq.actor(lambda: None, broker=broker, actor_name="plain", queue_name=queue_name)

    assert actor.send().options == {}
    with asking_for(["memory"]):
        assert actor.send().options == {"diagnostics": ["memory"]}
        assert actor.send_with_options(diagnostics=[]).options == {"diagnostics": []}
    assert actor.send().options == {}
    broker.close()


def test_a_copy_under_a_new_id_is_passed_on_no_deeper_than_others(chain):
    with chain(pass_on_depth=2) as (tasks, runs):
        tasks.broker.add_middleware(CurrentMessage())
        seen: list[tuple[Any, bool]] = []

        def again() -> None:
            message = CurrentMessage.get_current_message()
            assert message is not None
            seen.append((message.options.get("diagnostics_depth"), "diagnostics" in message.options))
            if len(seen) < 5:
                tasks.broker.enqueue(message.copy(message_id=str(uuid.uuid4())))

        actor = tasks.actor(again)
        tasks.actor(lambda: actor.send() and None, actor_name="start").send_with_options(diagnostics=["memory"])
        runs()

    assert seen == [(1, True), (2, True), *[(None, False)] * 3]


def test_what_a_middleware_sends_before_a_task_is_not_of_the_task_before(chain, stored):
    class Audit(Middleware):
        def before_process_message(self, broker: Broker, message: Any) -> None:
            if message.actor_name == "work":
                broker.get_actor("audit").send()

    with chain(task_diagnostics=["memory"]) as (tasks, runs):
        tasks.broker.add_middleware(Audit(), before=Diagnostics)
        tasks.actor(lambda: None, actor_name="audit")
        work = tasks.actor(lambda: None, actor_name="work")
        for _ in range(6):  # More than there are threads.
            work.send()
            tasks.finish()
        runs()
        assert {run.parent_run_id for run in stored(tasks.diagnostics.settings).all_runs()} == {None}


# Which share is taken.


def in_share(given: Settings, rate: float) -> Callable[[str], bool]:
    """Returns: Whether a task of an id is selected with this rate."""
    broker = StubBroker(middleware=[])
    actor = dramatiq.actor(lambda: None, broker=broker, actor_name="work")
    selection = Selection(load(["memory"], given), given.task_diagnostics, sample_rate=rate, warn=Mock())
    message = actor.message()
    broker.close()
    return lambda task_id: bool(selection(broker, message.copy(message_id=task_id)).collectors)


def test_the_share_is_right_over_many_messages(settings):
    given = settings(task_diagnostics=["memory"])
    one_percent = in_share(given, 0.01)
    count = sum(one_percent(str(uuid.UUID(int=number * 7919))) for number in range(30_000))
    numbered = sum(one_percent(f"task-{number}") for number in range(30_000))

    assert 230 < count < 370  # Four standard deviations of a fair draw.
    assert 230 < numbered < 370
    assert not any(map(in_share(given, 0), (f"task-{number}" for number in range(1000))))
    assert all(map(in_share(given, 1), (f"task-{number}" for number in range(1000))))


def test_a_share_is_collected_and_explicit_requests_always(chain):
    with chain(task_diagnostics=["memory"], sample_rate=0.3) as (tasks, _):
        plain = tasks.actor(lambda: None, actor_name="plain")
        always = tasks.actor(lambda: None, actor_name="always", diagnostics_sample_rate=1)
        never = tasks.actor(lambda: None, actor_name="never", diagnostics_sample_rate=0)
        sent = [plain.send().message_id for _ in range(60)]
        asked = [never.send_with_options(diagnostics=["memory"]).message_id for _ in range(3)]
        always_sent = [always.send().message_id for _ in range(3)]
        for _ in range(3):
            never.send()
        tasks.finish()
        from dramatiq_diag.store.store import Store

        store = Store(tasks.diagnostics.settings)
        collected = {run.task_id for run in Stored(store).all_runs()}
        store.close()

    expected = {task_id for task_id in sent if in_share(tasks.diagnostics.settings, 0.3)(task_id)}
    assert collected == expected | set(asked) | set(always_sent)
    assert 0 < len(expected) < 60


def test_what_a_task_sends_is_taken_or_left_with_it(chain):
    with chain(task_diagnostics=["memory"], sample_rate=0.5) as (tasks, _):
        leaf = tasks.actor(lambda: None, actor_name="leaf")
        middle = tasks.actor(lambda: leaf.send() and None, actor_name="middle")
        top = tasks.actor(lambda: middle.send() and None, actor_name="top")
        for _ in range(20):
            top.send()
        tasks.finish()
        tasks.finish()
        from dramatiq_diag.store.store import Store

        store = Store(tasks.diagnostics.settings)
        runs = Stored(store).all_runs()
        store.close()

    by_id = {run.run_id: run for run in runs}
    assert {"top", "middle", "leaf"} == {run.actor_name for run in runs}
    counts = [sum(run.actor_name == name for run in runs) for name in ("top", "middle", "leaf")]
    assert counts[0] == counts[1] == counts[2] < 20
    assert all(run.parent_run_id in by_id for run in runs if run.actor_name != "top")


def test_the_first_task_is_told_although_only_an_actor_of_other_workers_has_a_share(settings):
    diagnostics = Diagnostics(settings(task_diagnostics=["memory"]))
    broker = StubBroker(middleware=middleware_under_test(diagnostics), fail_fast_default=False)
    leaf = dramatiq.actor(
        lambda: None, broker=broker, actor_name="leaf", queue_name="elsewhere", diagnostics_sample_rate=0.5
    )
    top = dramatiq.actor(lambda: leaf.send() and None, broker=broker, actor_name="top", queue_name="here")

    with running(broker, queues={"here"}) as worker:
        task_id = top.send().message_id
        finish(broker, worker, "here")

    [sent] = [dramatiq.Message.decode(data) for data in broker.queues["elsewhere"].queue]
    assert sent.options["diagnostics_root"] == task_id
    broker.close()


@pytest.mark.parametrize("rate", ["1", -1, 1.5, True, None, float("nan")])
def test_a_rate_that_is_none_is_ignored_with_a_warning(chain, caplog, rate):
    with chain(task_diagnostics=["memory"]) as (tasks, runs):
        tasks.actor(lambda: None, actor_name="odd", diagnostics_sample_rate=rate).send()
        assert set(runs()) == {"odd"}

    assert "diagnostics_sample_rate" in caplog.text
