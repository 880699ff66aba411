"""Tests the contract of a collector, for packages that bring one; pytest runs the tests.

from dramatiq_diag.testing import CollectorContract
from my_package import MyCollector

class TestMyCollector(CollectorContract):
    collector_class = MyCollector
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from dramatiq.middleware import Interrupt

from ..collectors.base import ARTIFACT_NAME_PATTERN, FILENAME_PATTERN, MEDIA_TYPE_PATTERN, Collector, Recording
from ..collectors.names import COLLECTOR_NAMES
from ..errors import UnavailableError
from ..settings import Settings
from ..statuses import DOWNLOADABLE_STATUSES, ArtifactStatus, RunStatus
from .harness import PATIENCE_S, Change, Outcome, execute, files_in_spool, installed, outcome_of, traces

__all__ = ["CollectorContract", "Outcome"]


#: A store of its own, whatever the environment says.
_ALONE = {"database_url": None, "blob_url": None, "spool_dir": None, "cleanup_interval": 0}


class CollectorContract:
    """The tests of a collector: derive a class whose name begins with `Test`, and set `collector_class`.

    Each test has a worker of its own, on a broker in memory, with a store in pytest's `tmp_path`.
    """

    collector_class: ClassVar[type[Collector]]
    "The collector to test."

    settings: ClassVar[Mapping[str, Any]] = {}
    "Fields of `Settings` for the tests."

    def work(self) -> None:
        """The work of each task; override it with something that the collector measures."""
        sum(range(10_000))

    # The tests.

    def test_its_attributes_are_allowed(self) -> None:
        given = self.collector_class
        assert re.fullmatch(ARTIFACT_NAME_PATTERN, given.artifact_name), given.artifact_name
        assert re.fullmatch(FILENAME_PATTERN, given.filename), given.filename
        assert re.fullmatch(MEDIA_TYPE_PATTERN, given.media_type), given.media_type
        assert given.name, "its name is empty"
        assert not set(given.name) & set(", \t\n"), f"{given.name!r} cannot stand in a list of names"
        assert given.name in COLLECTOR_NAMES or given.stored_as is None, "only this package renders downloads"

    def test_it_is_built_or_says_what_is_missing(self, tmp_path: Path) -> None:
        try:
            self.collector_class(Settings(data_dir=tmp_path))
        except UnavailableError as error:
            remedy = str(error).strip()
        else:
            return
        assert remedy, "an UnavailableError says what is missing"

    def test_a_task_leaves_its_artifact(self, tmp_path: Path) -> None:
        (outcome,) = self._execute(tmp_path)
        self._is_whole(outcome)
        assert outcome.run_status == RunStatus.SUCCEEDED

    def test_a_task_that_fails_leaves_its_artifact(self, tmp_path: Path) -> None:
        (outcome,) = self._execute(tmp_path, fails=True)
        self._is_whole(outcome)
        assert outcome.run_status == RunStatus.FAILED

    def test_what_it_tells_of_a_running_task_is_json_and_changes_nothing(self, tmp_path: Path) -> None:
        told: list[Any] = []

        def ask(recording: Recording) -> None:
            start, stop = recording.start, recording.stop

            def start_and_ask() -> None:
                told.append(recording.so_far())
                start()
                told.append(recording.so_far())

            def ask_and_stop() -> None:
                asking = threading.Thread(target=lambda: told.extend([recording.so_far(), recording.so_far()]))
                asking.start()
                asking.join(PATIENCE_S)
                stop()
                told.append(recording.so_far())

            recording.start = start_and_ask  # type: ignore[method-assign]
            recording.stop = ask_and_stop  # type: ignore[method-assign]

        (outcome,) = self._execute(tmp_path, change=ask)
        self._is_whole(outcome)
        assert len(told) == 5, "`so_far` did not return, on another thread than the task's"
        for found in told:
            assert found is None or isinstance(found, dict), f"`so_far` returned {type(found).__name__}"
            try:
                json.dumps(found, allow_nan=False)
            except (TypeError, ValueError) as error:
                raise AssertionError(f"`so_far` returned what JSON cannot hold: {error}") from error

    def test_runs_one_after_the_other_have_each_an_artifact(self, tmp_path: Path) -> None:
        for outcome in self._execute(tmp_path, count=3):
            self._is_whole(outcome)

    def test_two_runs_at_once_have_each_an_artifact_or_a_reason(self, tmp_path: Path) -> None:
        meet = threading.Barrier(2)
        outcomes = self._execute(tmp_path, count=2, threads=2, before=lambda: meet.wait(PATIENCE_S))
        for outcome in outcomes:
            assert outcome.run_status == RunStatus.SUCCEEDED, "the tasks did not run at once"
            assert outcome.status in (*DOWNLOADABLE_STATUSES, ArtifactStatus.SKIPPED), outcome
            assert outcome.status == ArtifactStatus.STORED or outcome.reason, f"no reason is given: {outcome}"
        assert any(outcome.status == ArtifactStatus.STORED for outcome in outcomes), outcomes

    def test_a_second_stop_is_harmless(self, tmp_path: Path) -> None:
        def stop_twice(recording: Recording) -> None:
            stop = recording.stop

            def stop_and_again() -> None:
                stop()
                stop()

            recording.stop = stop_and_again  # type: ignore[method-assign]

        (outcome,) = self._execute(tmp_path, change=stop_twice)
        self._is_whole(outcome)

    def test_a_start_that_was_cut_short_is_ended(self, tmp_path: Path) -> None:
        self._is_ended(tmp_path, starts=True)

    def test_a_start_that_never_came_is_ended(self, tmp_path: Path) -> None:
        self._is_ended(tmp_path, starts=False)

    def test_nothing_is_left_behind(self, tmp_path: Path) -> None:
        self._execute(tmp_path / "first")  # Imports and caches of the first time may stay.
        before = traces(tmp_path)
        self._execute(tmp_path / "second", count=2, fails=True)
        self._is_as_before(before, tmp_path)

    def test_nothing_is_left_of_a_run_that_is_not_kept(self, tmp_path: Path) -> None:
        self._execute(tmp_path / "first")  # Imports and caches of the first time may stay.
        before = traces(tmp_path)
        spooled: list[str] = []

        def look(settings: Settings) -> None:
            spooled.extend(files_in_spool(settings))

        outcomes = self._execute(tmp_path / "second", count=2, after=look, keep_if="duration>1h")
        for outcome in outcomes:
            assert (outcome.run_status, outcome.status) == (RunStatus.SUCCEEDED, ArtifactStatus.DROPPED), outcome
            assert outcome.data is None, outcome
        assert not spooled, f"left in the spool, where `discard` ran instead of `save`: {spooled}"
        self._is_as_before(before, tmp_path)

    def test_the_task_is_not_changed(self, tmp_path: Path) -> None:
        seen: list[Any] = []
        logger = logging.getLogger("dramatiq")

        def look() -> None:
            seen.append((threading.current_thread().name, logging.root.level, logger.level, logger.propagate))

        before = (logging.root.level, logger.level, logger.propagate)
        self._execute(tmp_path, count=2, before=look)
        for thread_name, *levels in seen:
            assert tuple(levels) == before, "the level of a logger is another one while a task runs"
            assert thread_name == seen[0][0], "the thread of the worker has another name"

    # Shared steps.

    def _is_whole(self, outcome: Outcome) -> None:
        given = self.collector_class
        assert (outcome.status, outcome.reason) == (ArtifactStatus.STORED, None), outcome
        assert (outcome.filename, outcome.media_type) == (given.filename, given.media_type)

    def _is_as_before(self, before: Mapping[str, Any], directory: Path) -> None:
        left = {name: (before[name], found) for name, found in traces(directory).items() if found != before[name]}
        assert not left, f"left behind, as before and after: {left}"

    def _is_ended(self, directory: Path, *, starts: bool) -> None:
        """Raises an interrupt in the start of the first run, and checks both runs."""
        struck: list[Recording] = []

        def strike_once(recording: Recording) -> None:
            start = recording.start

            def start_and_strike() -> None:
                if struck:
                    start()
                    return
                struck.append(recording)
                if starts:
                    start()
                raise Interrupt

            recording.runs_inline = True  # type: ignore[misc]  # Interrupts strike the task's thread.
            recording.start = start_and_strike  # type: ignore[method-assign]

        first, second = self._execute(directory, count=2, change=strike_once)
        assert first.run_status == RunStatus.FAILED
        assert first.status == ArtifactStatus.STORED or first.reason, f"no reason is given: {first}"
        self._is_whole(second)
        assert second.run_status == RunStatus.SUCCEEDED

    def _execute(
        self,
        directory: Path,
        *,
        count: int = 1,
        threads: int = 1,
        fails: bool = False,
        before: Callable[[], object] | None = None,
        change: Change | None = None,
        after: Callable[[Settings], object] | None = None,
        **values: Any,
    ) -> list[Outcome]:
        """Executes tasks under the collector, with further settings as *values*. Returns: The outcome of each."""

        def task() -> None:
            if before is not None:
                before()
            self.work()
            if fails:
                raise LookupError("the task fails")

        name = self.collector_class.name
        given = {**_ALONE, **self.settings, "data_dir": directory, "task_diagnostics": [name], **values}
        with installed(self.collector_class, directory):
            settings = Settings(**given)
            look = None if after is None else partial(after, settings)
            ids = execute(settings, name, task, count=count, threads=threads, change=change, after=look)
        return [outcome_of(settings, task_id, self.collector_class.artifact_name) for task_id in ids]
