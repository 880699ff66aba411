"""Selection: message, then actor, then settings, within what the settings allow."""

from __future__ import annotations

import logging
from typing import Any
from unittest.mock import Mock

import dramatiq
import pytest
from dramatiq.broker import MessageProxy
from dramatiq.brokers.stub import StubBroker

from dramatiq_diag import Diagnostics
from dramatiq_diag.collectors.names import COLLECTOR_NAMES, all_names, expand
from dramatiq_diag.collectors.registry import load
from dramatiq_diag.policy.propagation import CLEANUP_ACTOR
from dramatiq_diag.policy.selection import Selection

UNSET: Any = object()


def selection_of(given: Any) -> Selection:
    """Returns: The selection of a worker with these settings."""
    collectors = load(COLLECTOR_NAMES, given)
    return Selection(collectors, given.task_diagnostics, given.task_diagnostics_on_request, warn=Mock())


def choose(given: Any, actor: Any = UNSET, message: Any = UNSET, actor_name: str = "work") -> set[str]:
    """Returns: The names of the collectors of one message."""
    broker = StubBroker(middleware=[Diagnostics(given)])
    selection = selection_of(given)
    declared = dramatiq.actor(
        lambda: None, broker=broker, actor_name=actor_name, **({} if actor is UNSET else {"diagnostics": actor})
    )
    sent = declared.message_with_options(**({} if message is UNSET else {"diagnostics": message}))
    chosen = {collector.name for collector in selection(broker, MessageProxy(sent)).collectors}
    assert chosen == {
        collector.name for collector in selection(broker, MessageProxy(sent)).collectors
    }  # From the cache as well.
    broker.close()
    return chosen


@pytest.mark.parametrize(
    ("for_all", "on_request", "actor", "message", "expected"),
    [
        # Nothing is asked for: what the settings say
        ("memory", "", UNSET, UNSET, {"memory"}),
        ("", "memory", UNSET, UNSET, set()),
        ("all", "", UNSET, UNSET, set(all_names())),
        # An actor's list replaces that of the settings
        ("memory", "memray", ["memray"], UNSET, {"memray"}),
        ("memory,memray", "", ["memory"], UNSET, {"memory"}),
        ("memory", "", [], UNSET, set()),
        # A message's list replaces both
        ("memory", "memray", ["memray"], ["memory"], {"memory"}),
        ("memory", "memray", ["memray"], [], set()),
        ("memory", "memray", [], ["memray", "memory"], {"memory", "memray"}),
        ("", "all", UNSET, ["pyinstrument"], {"pyinstrument"}),
        # `all` stands for what may be asked for, of this package and without what another one includes
        ("memory", "logs", UNSET, ["all"], {"memory", "logs"}),
        ("memory", "logs", ["all"], UNSET, {"memory", "logs"}),
        ("memory", "logs,debug-logs", UNSET, ["all", "debug-logs"], {"memory", "debug-logs"}),
        ("", "all", UNSET, {"all": {}, "memory": {"interval": 1.0}}, set(all_names())),
        ("memory", "", UNSET, {"all": {"interval": 1.0}}, {"memory"}),
        # What another one includes is left out
        ("logs,debug-logs", "", UNSET, UNSET, {"debug-logs"}),
        ("logs", "debug-logs", UNSET, ["debug-logs", "logs"], {"debug-logs"}),
        ("logs", "debug-logs", UNSET, ["logs"], {"logs"}),
        # What the settings do not allow is dropped
        ("memory", "", UNSET, ["memory", "memray"], {"memory"}),
        ("memory", "", ["memray"], UNSET, set()),
        ("memory", "", UNSET, ["no such"], set()),
        # What is no list of names is ignored
        ("memory", "", UNSET, "memory", {"memory"}),
        ("memory", "", UNSET, None, {"memory"}),
        ("memory", "", UNSET, 0, {"memory"}),
        ("memory", "", UNSET, [["memory"]], {"memory"}),
        ("memory", "", UNSET, {"memory": True}, {"memory"}),
        ("memory", "memray", ["memray"], "memory", {"memray"}),
    ],
)
def test_the_most_specific_list_replaces_the_others(settings, for_all, on_request, actor, message, expected):
    given = settings(task_diagnostics=for_all, task_diagnostics_on_request=on_request)

    assert choose(given, actor, message) == expected


def test_actors_of_one_name_in_two_brokers_have_each_their_own_list(settings):
    given = settings(task_diagnostics="memory,memray")
    selection = selection_of(given)
    chosen = []
    for wanted in (["memory"], [], ["memray"]):
        broker = StubBroker(middleware=[Diagnostics(given)])
        sent = dramatiq.actor(lambda: None, broker=broker, actor_name="work", diagnostics=wanted).message()
        chosen.append([collector.name for collector in selection(broker, MessageProxy(sent)).collectors])
        broker.close()
    assert chosen == [["memory"], [], ["memray"]]


def test_collectors_start_in_an_order_of_their_own(settings):
    given = settings(task_diagnostics="pyinstrument,memory,memray")
    selection = selection_of(given)
    broker = StubBroker(middleware=[])
    message = dramatiq.actor(lambda: None, broker=broker, actor_name="work").message()

    assert [collector.name for collector in selection(broker, MessageProxy(message)).collectors] == [
        "memray",
        "memory",
        "pyinstrument",
    ]
    broker.close()


@pytest.mark.parametrize("message", [UNSET, ["memory"], ["memory", "memray"]])
def test_the_cleanup_is_never_diagnosed(settings, message):
    given = settings(task_diagnostics="memory", task_diagnostics_on_request="all")

    assert choose(given, UNSET, message, actor_name=CLEANUP_ACTOR) == set()


def test_what_is_dropped_is_said_once_for_each_actor(bench, settings, caplog):
    given = settings(task_diagnostics=["memory"])

    with bench(given) as tasks, caplog.at_level(logging.WARNING):
        first = tasks.actor(lambda: None, actor_name="first")
        second = tasks.actor(lambda: None, actor_name="second", diagnostics=["memray"])
        for _ in range(3):
            first.send_with_options(diagnostics=["memory", "memray", "x" * 3000])
            second.send()
        tasks.finish()

    messages = sorted(record.getMessage() for record in caplog.records)
    assert len(messages) == 2
    assert all("memray" in message and "TASK_DIAGNOSTICS_ON_REQUEST" in message for message in messages)
    assert "'first'" in messages[0]
    assert "'second'" in messages[1]
    assert max(map(len, messages)) < 1000


def test_an_actor_declared_before_the_middleware_was_added_is_told_by_dramatiq(settings):
    broker = StubBroker(middleware=[])

    with pytest.raises(ValueError, match="diagnostics"):
        dramatiq.actor(lambda: None, broker=broker, actor_name="early", diagnostics=["memory"])

    broker.add_middleware(Diagnostics(settings()))
    assert dramatiq.actor(lambda: None, broker=broker, actor_name="later", diagnostics=[]).options == {
        "diagnostics": []
    }
    broker.close()


def test_all_is_what_is_installed_and_keeps_what_is_named():
    assert expand(("memory", "all"))[0] == "memory"
    assert set(expand(("all",))) == set(COLLECTOR_NAMES) - {"debug-logs"}
    assert set(expand(("debug-logs", "all"))) == set(COLLECTOR_NAMES)
    assert expand(("memray",)) == ("memray",)
    assert expand(()) == ()
