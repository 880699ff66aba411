"""The collectors `logs` and `debug-logs`: a run's own records, and all of them."""

from __future__ import annotations

import asyncio
import logging
import os
import threading

import pytest

from support import PATIENCE_S, eventually
from support.logs import messages_of
from support.tasks import Gate

BOTH = ["logs", "debug-logs"]


@pytest.mark.parametrize("name", BOTH)
def test_each_run_has_its_own_lines_and_all_of_them(bench, settings, stored, logger, name):
    given = settings(task_diagnostics=[name])
    threads, coroutines, lines = 8, 10, 100
    started = threading.Barrier(threads)
    waiting: list[asyncio.Event] = []

    # Given eight tasks on threads of their own, which log at once
    def on_a_thread(who: str) -> None:
        started.wait(PATIENCE_S)
        for number in range(lines):
            logger.info("%s %d", who, number)

    # And ten coroutines that wait for each other after each line
    async def in_a_coroutine(who: str) -> None:
        waiting.append(asyncio.Event())
        if len(waiting) == coroutines:
            for event in waiting:
                event.set()
        await waiting[-1].wait()
        for number in range(lines):
            logger.info("%s %d", who, number)
            await asyncio.sleep(0)

    # When they run
    expected: dict[str, str] = {}
    with bench(given, threads=threads) as tasks:
        actor = tasks.actor(on_a_thread)
        for number in range(threads):
            expected[actor.send(f"thread{number}").message_id] = f"thread{number}"
        tasks.finish()
    with bench(given, threads=coroutines) as tasks:
        actor = tasks.actor(in_a_coroutine)
        for number in range(coroutines):
            expected[actor.send(f"coroutine{number}").message_id] = f"coroutine{number}"
        tasks.finish()

    # Then each log is its task's alone
    assert len(waiting) == coroutines
    for task_id, who in expected.items():
        log = stored(given).data(task_id, "task_logs").decode()
        own = [line.partition(f"{logger.name}: ")[2] for line in log.splitlines() if logger.name in line]
        assert own == [f"{who} {number}" for number in range(lines)]


def test_what_others_log_meanwhile_is_not_in_it(bench, settings, stored, logger):
    given = settings(task_diagnostics=["logs"])
    gate = Gate()

    def work() -> None:
        logger.info("before")
        child = threading.Thread(target=logger.info, args=("of a thread of its own",))
        child.start()
        child.join()
        gate.wait()
        logger.info("after")

    with bench(given) as tasks:
        message = tasks.actor(work).send()
        gate.reached.wait(PATIENCE_S)
        logger.info("of the main thread")
        gate.opened.set()
        tasks.finish()
        again = tasks.run(lambda: None, actor_name="next")

    assert messages_of(stored(given).data(message.message_id, "task_logs").decode()) == ["before", "after"]
    assert stored(given).data(again, "task_logs") == b""


def test_what_has_the_context_of_a_coroutine_belongs_to_its_run(log_of, logger):
    async def work() -> None:
        await asyncio.gather(part("first"), part("second"), asyncio.to_thread(logger.info, "third"))

    async def part(name: str) -> None:
        await asyncio.sleep(0)
        logger.info(name)

    assert sorted(messages_of(log_of("logs", work))) == ["first", "second", "third"]


@pytest.mark.parametrize(("name", "level"), [("logs", logging.INFO), ("debug-logs", logging.DEBUG)])
def test_what_is_logged_after_the_run_is_nobody_s(bench, settings, stored, logger, kept, name, level):
    given = settings(task_diagnostics=[name])
    go_on = threading.Event()
    left: list[asyncio.Task[None]] = []

    # Given a task that leaves a coroutine behind
    async def later() -> None:
        await asyncio.to_thread(go_on.wait, PATIENCE_S)
        logger.log(level, "too late")
        logger.info("the end")

    async def work() -> None:
        left.append(asyncio.create_task(later()))

    # When that logs after the run has ended, and while others run
    with bench(given) as tasks:
        first = tasks.run(work)
        go_on.set()
        eventually(lambda: "the end" in kept.messages, "the coroutine has ended")
        second = tasks.run(lambda: None, actor_name="next")
        left.clear()

    # Then it is in no log, and for others it is as ever
    assert kept.messages == ["too late", "the end"][level < logging.INFO :]
    for task_id in (first, second):
        assert b"too late" not in stored(given).data(task_id, "task_logs")


def test_a_process_that_a_task_forks_is_another(log_of, logger):
    def work() -> None:
        logger.info("of the task")
        child = os.fork()
        if child == 0:
            logger.info("of the child")
            os._exit(0)
        os.waitpid(child, 0)

    assert messages_of(log_of("logs", work)) == ["of the task"]


def test_a_task_that_leaves_its_context_is_still_the_run(log_of, logger):
    import contextvars

    assert messages_of(log_of("logs", lambda: contextvars.Context().run(logger.info, "elsewhere"))) == ["elsewhere"]
