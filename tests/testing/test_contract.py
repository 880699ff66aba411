"""The contract suite for other packages: our own collectors and the example keep it, and it tells who does not."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from typing import Any, ClassVar

import pytest

from dramatiq_diag.collectors import Collector, Recording
from dramatiq_diag.collectors.memory import MemoryCollector
from dramatiq_diag.collectors.memray import MemrayCollector
from dramatiq_diag.collectors.resources import ResourcesCollector
from dramatiq_diag.collectors.task_logs.collector import DebugLogsCollector, LogsCollector
from dramatiq_diag.collectors.time_profile.collector import PyinstrumentCollector
from dramatiq_diag.errors import UnavailableError
from dramatiq_diag.testing import CollectorContract
from example_collector.gc_counts import GcCountsCollector
from support import PATIENCE_S, TESTS

# Who keeps it.


class TestMemory(CollectorContract):
    collector_class = MemoryCollector


class TestMemray(CollectorContract):
    collector_class = MemrayCollector


class TestPyinstrument(CollectorContract):
    collector_class = PyinstrumentCollector


class TestPyinstrumentProfiler(CollectorContract):
    collector_class = PyinstrumentCollector
    settings: ClassVar = {"pyinstrument_engine": "profiler"}


class TestLogs(CollectorContract):
    collector_class = LogsCollector


class TestDebugLogs(CollectorContract):
    collector_class = DebugLogsCollector


class TestResources(CollectorContract):
    collector_class = ResourcesCollector


class TestExample(CollectorContract):
    collector_class = GcCountsCollector


# Who does not.


class Notes(Collector):
    """The shortest collector there is."""

    name = "notes"
    artifact_name = "notes"
    filename = "notes.txt"
    media_type = "text/plain"

    def record(self, run: Any) -> Recording:
        return self.recording_class(self, run)

    class recording_class(Recording):  # noqa: N801 - stands for an attribute.
        runs_inline = True

        def __init__(self, collector: Collector, run: Any) -> None:
            self.collector = collector
            self.run = run

        def stop(self) -> None:
            self.run.append_text(self.collector, "noted")


class OddName(Notes):
    artifact_name = "Odd Name"


class Listed(Notes):
    name = "notes,more"


class BuiltBadly(Notes):
    def __init__(self, settings: Any) -> None:
        raise RuntimeError("no remedy is told")


class SilentlyMissing(Notes):
    def __init__(self, settings: Any) -> None:
        raise UnavailableError(" ")


class LeavesNothing(Notes):
    class recording_class(Notes.recording_class):  # noqa: N801
        def stop(self) -> None:
            pass


class ForgetsFailures(Notes):
    class recording_class(Notes.recording_class):  # noqa: N801
        def stop(self) -> None:
            if sys.exc_info()[0] is None:
                super().stop()


class SharesState(Notes):
    """Its recordings keep what they have on the collector."""

    class recording_class(Notes.recording_class):  # noqa: N801
        def start(self) -> None:
            self.collector.mine = self  # type: ignore[attr-defined]

        def stop(self) -> None:
            if self.collector.mine is not self:  # type: ignore[attr-defined]
                raise RuntimeError("not mine")
            super().stop()


class StopsOnce(Notes):
    class recording_class(Notes.recording_class):  # noqa: N801
        stopped = False

        def stop(self) -> None:
            if self.stopped:
                raise RuntimeError("stopped twice")
            self.stopped = True
            super().stop()


class HoldsOn(Notes):
    """Takes something that there is one of, and lets go of it only if all went well."""

    class recording_class(Notes.recording_class):  # noqa: N801
        holder: ClassVar[Any] = None

        def start(self) -> None:
            if type(self).holder is not None:
                raise RuntimeError("it is taken")
            type(self).holder = self
            self.run.is_noted = True

        def stop(self) -> None:
            super().stop()
            if self.run.is_executing:
                type(self).holder = None


class LeavesThread(Notes):
    go_on = threading.Event()

    class recording_class(Notes.recording_class):  # noqa: N801
        def start(self) -> None:
            threading.Thread(target=LeavesThread.go_on.wait, name="left by a test").start()


class LeavesProfile(Notes):
    class recording_class(Notes.recording_class):  # noqa: N801
        def start(self) -> None:
            threading.setprofile(lambda *_: None)


class LeavesScratch(Notes):
    """Has a file beside its own while a run runs, and tidies up only if the run is kept."""

    class recording_class(Notes.recording_class):  # noqa: N801
        def start(self) -> None:
            self.run.entry.write_file("scratch", "for a moment")

        def save(self) -> None:
            self.run.entry.remove_files(["scratch"])


class StopsWhenSaved(Notes):
    """Has a thread, and ends it only if the run is kept."""

    class recording_class(Notes.recording_class):  # noqa: N801
        def start(self) -> None:
            self.thread = threading.Thread(target=LeavesThread.go_on.wait, name="left by a test")
            self.thread.start()

        def save(self) -> None:
            LeavesThread.go_on.set()
            self.thread.join()
            LeavesThread.go_on.clear()


class FailsToDiscard(Notes):
    class recording_class(Notes.recording_class):  # noqa: N801
        def discard(self) -> None:
            raise RuntimeError("it has been let go of already")


class TellsNoJson(Notes):
    class recording_class(Notes.recording_class):  # noqa: N801
        def so_far(self) -> Any:
            return {"run": self.run}


class ForgetsWhenAsked(Notes):
    class recording_class(Notes.recording_class):  # noqa: N801
        reads = 0

        def so_far(self) -> Any:
            self.reads += 1
            if self.reads > 1:
                raise RuntimeError("it was told already")
            return {}


class RenamesThread(Notes):
    class recording_class(Notes.recording_class):  # noqa: N801
        def start(self) -> None:
            thread = threading.current_thread()
            thread.name = f"renamed {time.monotonic_ns()}"


class Contract(CollectorContract):
    collector_class = Notes


BREACHES = [
    (OddName, "its_attributes_are_allowed"),
    (Listed, "its_attributes_are_allowed"),
    (BuiltBadly, "it_is_built_or_says_what_is_missing"),
    (SilentlyMissing, "it_is_built_or_says_what_is_missing"),
    (LeavesNothing, "a_task_leaves_its_artifact"),
    (TellsNoJson, "what_it_tells_of_a_running_task_is_json_and_changes_nothing"),
    (ForgetsWhenAsked, "what_it_tells_of_a_running_task_is_json_and_changes_nothing"),
    (StopsOnce, "a_second_stop_is_harmless"),
    (SharesState, "two_runs_at_once_have_each_an_artifact_or_a_reason"),
    (HoldsOn, "a_start_that_was_cut_short_is_ended"),
    (LeavesThread, "nothing_is_left_behind"),
    (LeavesProfile, "nothing_is_left_behind"),
    (LeavesScratch, "nothing_is_left_of_a_run_that_is_not_kept"),
    (StopsWhenSaved, "nothing_is_left_of_a_run_that_is_not_kept"),
    (FailsToDiscard, "nothing_is_left_of_a_run_that_is_not_kept"),
    (RenamesThread, "the_task_is_not_changed"),
]


@pytest.mark.parametrize(("collector_class", "promise"), BREACHES)
def test_a_broken_promise_is_found(tmp_path, collector_class, promise):
    LeavesThread.go_on.clear()
    contract = type("Broken", (Contract,), {"collector_class": collector_class})()
    method = getattr(contract, f"test_{promise}")

    try:
        with pytest.raises((AssertionError, RuntimeError)):
            method(tmp_path) if "tmp_path" in method.__code__.co_varnames else method()
    finally:
        LeavesThread.go_on.set()
        threading.setprofile(None)  # type: ignore[arg-type]
        HoldsOn.recording_class.holder = None


def test_no_store_that_is_in_use_is_touched(monkeypatch, tmp_path):
    monkeypatch.setenv("DRAMATIQ_DIAG_DATABASE_URL", "postgresql://me@db/production")
    monkeypatch.setenv("DRAMATIQ_DIAG_BLOB_URL", "/srv/production")
    monkeypatch.setenv("TASK_DIAGNOSTICS", "memory")

    Contract().test_a_task_leaves_its_artifact(tmp_path)

    assert (tmp_path / "diagnostics.db").exists()


def test_the_shortest_collector_keeps_the_contract(tmp_path):
    contract = Contract()
    promises = [name for name in dir(contract) if name.startswith("test_")]

    for number, name in enumerate(promises):
        method = getattr(contract, name)
        method(tmp_path / str(number)) if "tmp_path" in method.__code__.co_varnames else method()

    assert len(promises) >= 10


def test_the_suite_runs_in_a_package_of_its_own_and_skips_what_is_unavailable(tmp_path):
    (tmp_path / "test_mine.py").write_text(
        "from dramatiq_diag.collectors import Collector\n"
        "from dramatiq_diag.errors import UnavailableError\n"
        "from dramatiq_diag.testing import CollectorContract\n"
        "class Mine(Collector):\n"
        "    name, artifact_name, filename, media_type = 'mine', 'mine', 'mine.txt', 'text/plain'\n"
        "    def __init__(self, settings):\n"
        "        raise UnavailableError('pip install what-i-need')\n"
        "class TestMine(CollectorContract):\n"
        "    collector_class = Mine\n"
    )

    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "test_mine.py"]
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # Those of the tests take seconds to import.
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )

    assert done.returncode == 0, done.stdout
    assert "It is unavailable here: pip install what-i-need" in done.stdout
    assert "2 passed" in done.stdout


def test_the_suite_can_be_imported_without_pytest():
    script = "import sys; sys.modules['pytest'] = None; import dramatiq_diag.testing.contract"

    subprocess.run([sys.executable, "-c", script], check=True, timeout=PATIENCE_S, cwd=TESTS)
