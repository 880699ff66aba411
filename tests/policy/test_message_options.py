"""What a message says of diagnostics is decided by its sender: it is checked, and nothing large is passed on."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker

from dramatiq_diag import Diagnostics, Settings
from dramatiq_diag.policy.options import parse_request
from dramatiq_diag.policy.propagation import MessageOptions
from support.tasks import finish, middleware_under_test, running

LONG = "x" * 65_536
RUN_ID = uuid.UUID("8b00c56a-0f40-48bb-9e96-0123456789ab")


@pytest.fixture
def reader() -> MessageOptions:
    return MessageOptions(logging.getLogger(__name__).warning)


def message(message_id: Any = "own", **options: Any) -> dramatiq.Message[Any]:
    return dramatiq.Message("queue", "actor", (), {}, options, message_id=message_id, message_timestamp=0)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def said(caplog: pytest.LogCaptureFixture, option: str) -> int:
    return sum(f"The option {option} of a message" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(("root", "expected"), [("t", "t"), ("x" * 1000, "x" * 1000), ("", "")])
def test_the_first_task_is_taken_over(reader: MessageOptions, root: str, expected: str) -> None:
    assert reader.root_task_id(message(diagnostics_root=root)) == expected


@pytest.mark.parametrize("root", [LONG, 7, None, ["t"], {"t": 1}, b"t", nested(500)])
def test_a_forged_first_task_is_ignored_with_one_warning(
    reader: MessageOptions, root: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert [reader.root_task_id(message(diagnostics_root=root)) for _ in range(3)] == ["own"] * 3
    assert said(caplog, "diagnostics_root") == 1


@pytest.mark.parametrize("message_id", [LONG, "\ud800" * 2000, 7])
def test_an_id_that_is_no_short_text_stands_for_itself_shortly(reader: MessageOptions, message_id: Any) -> None:
    root = reader.root_task_id(message(message_id))
    assert len(root) <= 64
    assert root == reader.root_task_id(message(message_id))
    assert root != reader.root_task_id(message(str(message_id) + "y"))
    root.encode()


@pytest.mark.parametrize("depth", [-1, 101, 10**30, True, "1", None, 1.0, [1], nested(500)])
def test_a_forged_depth_ends_what_is_passed_on(
    reader: MessageOptions, depth: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert reader.depth({"diagnostics_depth": depth}) >= Settings(pass_on_depth=100).pass_on_depth
    reader.depth({"diagnostics_depth": depth})
    assert said(caplog, "diagnostics_depth") == 1


def test_a_depth_is_what_the_sender_says(reader: MessageOptions) -> None:
    assert [reader.depth(options) for options in ({}, {"diagnostics_depth": 0}, {"diagnostics_depth": 3})] == [0, 0, 3]


@pytest.mark.parametrize("parent", ["x", LONG, f"{RUN_ID}" * 1000, 7, None, [str(RUN_ID)], RUN_ID.bytes])
def test_a_forged_parent_is_ignored_with_one_warning(
    reader: MessageOptions, parent: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert [reader.parent_run_id({"diagnostics_parent": parent}) for _ in range(3)] == [None] * 3
    assert said(caplog, "diagnostics_parent") == 1
    assert reader.parent_run_id({"diagnostics_parent": str(RUN_ID)}) == RUN_ID
    assert reader.parent_run_id({}) is None


@pytest.mark.parametrize(
    "request_",
    [
        [LONG],
        {LONG: {}},
        {"memory": {LONG: 1}},
        {"memory": {"interval": LONG}},
        ["memory"] * 2000,
        {"memory": {"interval": [1] * 5000}},
        {"memory": {"interval": 10**20_000}},
        {"memory": {"interval": nested(50)}},
        nested(10_000),
    ],
    ids=lambda value: f"{type(value).__name__}",
)
def test_a_request_that_is_too_long_or_too_deep_is_refused(request_: Any) -> None:
    with pytest.raises(ValueError, match=r"^(too long|nested too deeply)$"):
        parse_request(request_)


def test_a_request_of_every_collector_with_options_is_read() -> None:
    wanted = {f"collector-{number}": {"interval": 0.25, "names": ["a", "b"]} for number in range(50)}
    assert parse_request(wanted) == wanted
    assert parse_request([wanted, "memory"]) == {**wanted, "memory": {}}


@pytest.mark.parametrize(
    "diagnostics", [[LONG, "memory"], {"memory": {"interval": LONG}}, ["memory", {"memory": {"interval": nested(100)}}]]
)
def test_what_is_passed_on_stays_small_and_the_rest_is_ignored(
    settings: Callable[..., Settings], diagnostics: Any, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a worker, an actor that sends another one, and a message whose every option is forged
    given = settings(task_diagnostics=["memory"], task_diagnostics_on_request=["memory"], sample_rate=0.999999)
    diagnostics_middleware = Diagnostics(given)
    broker = StubBroker(middleware=middleware_under_test(diagnostics_middleware), fail_fast_default=False)
    sent: list[dict[str, Any]] = []
    child = dramatiq.actor(lambda: None, broker=broker, actor_name="child")

    def send() -> None:
        sent.append(child.send().options)

    top = dramatiq.actor(send, broker=broker, actor_name="top")

    # When it is executed twice
    with running(broker) as worker:
        for _ in range(2):
            top.send_with_options(
                diagnostics=diagnostics, diagnostics_root=LONG, diagnostics_parent=LONG, diagnostics_depth=10**100
            )
            finish(broker, worker, "default")

    # Then what it sends carries little, and the log has one line of each
    assert len(sent) == 2
    assert all(len(json.dumps(options)) < 1000 for options in sent)
    assert all("diagnostics" not in options for options in sent)
    assert said(caplog, "diagnostics_root") == said(caplog, "diagnostics_parent") == 1
    assert sum("the option diagnostics of the message is" in record.getMessage() for record in caplog.records) == 1
    assert max(len(record.getMessage()) for record in caplog.records) < 2000
    broker.close()
