"""The command `watch`."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from sqlalchemy import select

from dramatiq_diag import Settings
from dramatiq_diag.store.models import Question
from dramatiq_diag.store.questions import QuestionState
from dramatiq_diag.store.store import Store
from dramatiq_diag.worker.tuning import Tuning
from support import PATIENCE_S, eventually
from support.cli import Command
from support.hanging import hanging, is_line_that_hangs
from support.workers import is_executed

SOON = Tuning(attention_s=0.05, watched_s=0.05, report_s=0.05)


def until_executed(store: Any, task_id: str) -> None:
    eventually(lambda: is_executed(store, task_id), "the worker has said that it executes the task")


def release_once_watched(store: Store, task_id: str, release: threading.Event) -> None:
    """Lets a task end when its worker has told of it."""

    def is_told() -> bool:
        with store.session() as session:
            states = session.execute(select(Question.state).where(Question.task_id == task_id)).scalars().all()
        return QuestionState.ACTIVE in states

    eventually(is_told, "the worker tells of the task")
    release.set()


def test_a_view_shows_where_the_task_hangs_and_what_it_has_collected(
    command: Command, data_dir: Path, bench: Any, store_of: Any
) -> None:
    given = Settings(data_dir=data_dir, task_diagnostics=["memory", "resources", "pyinstrument"])
    store = store_of(given)
    with bench(given, tuning=SOON) as tasks, hanging(tasks) as (task_id, peer):
        until_executed(store, task_id)
        text = command("watch", task_id, "--once")
        document = json.loads(command("watch", task_id, "--once", "--json").stdout)

    assert text.exit_code == 0, text.output
    assert text.stdout.startswith(f"ask_silent_server {task_id}: active, ")
    assert peer in text.stdout
    assert "connection.recv(1)  # It hangs here." in text.stdout
    assert "Memory so far: " in text.stdout
    assert "open files: " in text.stdout
    assert "\x1b" not in text.stdout
    assert is_line_that_hangs(document["stack"]["threads"][0]["frames"][0])


def test_it_ends_with_the_task_and_says_how(command: Command, data_dir: Path, bench: Any, store_of: Any) -> None:
    given = Settings(data_dir=data_dir, task_diagnostics=["memory"])
    store = store_of(given)
    release = threading.Event()

    def work() -> None:
        release.wait(PATIENCE_S)

    with bench(given, tuning=SOON) as tasks:
        task_id = tasks.actor(work).send().message_id
        until_executed(store, task_id)
        watched = threading.Thread(target=release_once_watched, args=(store, task_id, release))
        watched.start()
        followed = command("watch", task_id, "--interval", "250ms")
        watched.join()
        tasks.finish()
        again = command("watch", task_id)

    assert followed.exit_code == 0, followed.output
    assert f"{task_id}: it succeeded after " in followed.stdout.splitlines()[-1]
    assert again.exit_code == 1
    assert f"{task_id} is not running: it succeeded after" in again.stderr


def test_a_task_that_nothing_is_known_of_ends_with_1(command: Command) -> None:
    result = command("watch", "nothing")
    assert result.exit_code == 1
    assert "No live worker process reports that it executes nothing" in result.stderr


def test_an_interval_is_a_duration(command: Command) -> None:
    assert command("watch", "nothing", "--interval", "soon").exit_code == 2
