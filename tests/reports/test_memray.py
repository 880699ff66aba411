"""memray's reports: of the task's own thread and of all, at the peak and of what was not freed."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import dramatiq_diag
from dramatiq_diag import Settings
from dramatiq_diag.collectors.task_logs import tap
from dramatiq_diag.reports.allocation_stacks import is_own_code
from dramatiq_diag.reports.cache import format_of, open_download
from dramatiq_diag.reports.calltree import CallTree, functions
from dramatiq_diag.reports.errors import ReportError
from dramatiq_diag.reports.formats import FORMATS
from dramatiq_diag.reports.memray import VIEWS
from dramatiq_diag.runtime import coroutines, ticker
from dramatiq_diag.store.store import Store
from dramatiq_diag.text import MIB
from support import PATIENCE_S, eventually
from support.records import artifact_record, bundle, run_record
from support.store import Stored
from support.tasks import finish, running_bench

_kept: list[bytes] = []


def hold_and_keep() -> None:
    """Frees one of two allocations before it ends."""
    held = hold(20)
    _kept.append(keep(10))
    del held


def hold(megabytes: int) -> bytes:
    return b"h" * (megabytes * MIB)


def keep(megabytes: int) -> bytes:
    return b"k" * (megabytes * MIB)


@pytest.fixture(scope="module")
def profiled(tmp_path_factory):
    """The reader of a store, and the id of a task with an allocation profile. All tests read the same one."""
    given = Settings(data_dir=tmp_path_factory.mktemp("profiled"), task_diagnostics=["memray"], cleanup_interval=0)
    with running_bench(given) as tasks:
        task_id = tasks.run(hold_and_keep)
    _kept.clear()
    with closing(Store(given)) as store:
        store.open()
        yield Stored(store), task_id


def report(reader: Any, task_id: str, name: str) -> str:
    artifact = reader.artifacts(task_id)["memray_profile"]
    with open_download(reader.store, artifact, format_of(artifact, name)) as file:
        return file.read().decode()


def megabytes_of(tree: str, function: str) -> float:
    """What a tree says that a function and its calls held."""
    lines = [line for line in tree.splitlines() if f" {function}  " in line]
    assert len(lines) == 1, tree
    return float(lines[0].lstrip("├└─│ ").split()[0])


def test_every_view_is_a_format_of_an_allocation_profile():
    assert [*FORMATS["memray.bin"]][: 1 + len(VIEWS)] == ["capture", *(view.name for view in VIEWS)]
    assert {"flamegraph", "table-process", "tree-leaks", "summary-process-leaks", "stats-process"} <= {
        *FORMATS["memray.bin"]
    }


@pytest.mark.parametrize("name", ["flamegraph", "table"])
def test_a_page_names_the_function_and_asks_nothing_of_another_host(profiled, name):
    page = report(*profiled, name)

    assert "hold" in page
    assert Path(__file__).name in page
    assert "<script src=" not in page
    assert '<link rel="stylesheet" href="http' not in page


@pytest.mark.parametrize("name", ["tree", "summary", "stats-process"])
def test_a_text_names_the_function(profiled, name):
    text = report(*profiled, name)

    assert "hold" in text
    assert Path(__file__).name in text
    assert all(line.isprintable() for line in text.splitlines())


def test_the_peak_has_what_was_held_and_the_leaks_what_was_kept(profiled):
    peak, leaks = report(*profiled, "tree"), report(*profiled, "tree-leaks")

    assert megabytes_of(peak, "hold") == pytest.approx(20, rel=0.02)
    assert megabytes_of(peak, "keep") == pytest.approx(10, rel=0.02)
    assert megabytes_of(leaks, "keep") == pytest.approx(10, rel=0.02)
    assert " hold  " not in leaks


def test_a_task_among_eight_has_its_own_allocations_and_the_process_those_of_all(bench, settings, stored):
    given = settings(task_diagnostics=["memray"])
    with bench(given, threads=8) as tasks:
        reader = stored(given)
        for chosen in range(8):
            # Given eight tasks that hold a known amount at the same time, of which one is profiled
            all_hold = threading.Barrier(8)

            def work(megabytes: int, all_hold: threading.Barrier = all_hold) -> None:
                held = hold(megabytes)
                all_hold.wait(PATIENCE_S)
                del held

            actor = tasks.actor(work, actor_name=f"work{chosen}")
            messages = [
                actor.send_with_options(args=(5 + number,), diagnostics=["memray"] if number == chosen else [])
                for number in range(8)
            ]
            finish(tasks.broker, tasks.worker, "tasks")
            assert tasks.diagnostics.flush(PATIENCE_S)
            task_id = messages[chosen].message_id
            # Then its report has its own
            tree = report(reader, task_id, "tree")
            assert megabytes_of(tree, "hold") == pytest.approx(5 + chosen, rel=0.02)
            assert float(tree.split()[0]) == pytest.approx(5 + chosen, rel=0.02)


async def hold_in_coroutine() -> None:
    held = hold(20)
    kept = await asyncio.gather(keep_in_task(), keep_in_task())
    del held, kept


async def keep_in_task() -> bytes:
    return keep(3)


def test_an_async_actor_s_own_thread_is_the_event_loop_s_and_said_to_be_shared(bench, settings, stored):
    given = settings(task_diagnostics=["memray"])
    with bench(given) as tasks:
        task_id = tasks.run(hold_in_coroutine)

    tree, summary = (report(stored(given), task_id, name) for name in ("tree", "summary"))
    assert megabytes_of(tree, "hold_in_coroutine") == pytest.approx(20, rel=0.02)
    assert megabytes_of(tree, "keep_in_task") == pytest.approx(6, rel=0.02)
    shared = "of the event loop's thread, which all async actors of the process share"
    assert tree.splitlines()[0].endswith(shared)
    assert summary.splitlines()[0] == f"Allocations {shared}"
    assert "event loop, shared by all async actors" in report(stored(given), task_id, "flamegraph")
    calls = json.loads(report(stored(given), task_id, "calltree"))
    assert calls["note"] == f"They are {shared}."
    assert [call["function"] for call in calls["tree"]["children"]] == ["hold_in_coroutine", "keep_in_task"]


def count_words() -> None:
    words = Path(__file__).read_text().split()
    assert len(set(words)) < len(words)


@pytest.mark.parametrize("is_late", [False, True])
def test_no_report_of_a_small_task_has_anything_of_this_package_or_of_dramatiq_above_the_task(
    bench, settings, stored, is_late
):
    # Given a task so small that most of what is held at its peak is held by the hooks and the threads of this package
    given = settings(task_diagnostics=["memray", "memory", "logs", "pyinstrument"], memory_interval=0.1)
    if is_late:
        given = settings(task_diagnostics_on_request=["memray"], triggers="after 1ms: memray")

    def work() -> None:
        count_words()
        if is_late:
            run = next(iter(tasks.diagnostics.process.runs.values()))
            eventually(lambda: run.recordings.running, "memray began")
            count_words()

    with bench(given) as tasks:
        task_id = tasks.run(work)

    package = str(Path(dramatiq_diag.__file__).parent)
    path = str(stored(given).path(task_id, "memray_profile"))
    for view in VIEWS:
        target = io.BytesIO()
        view.render(path, target)
        page = target.getvalue().decode()
        assert package not in page, view.name
        assert "before_process_message" not in page, view.name
        if not view.whole_process:
            assert "process_message" not in page, view.name
    calls = json.loads(report(stored(given), task_id, "calltree"))
    assert {call["function"] for call in calls["tree"]["children"]} <= {"work", "count_words"}


class KeepingHandler(logging.Handler):
    """Keeps ten megabytes for each line."""

    def emit(self, record: logging.LogRecord) -> None:
        _kept.append(keep(10))


def test_what_dramatiq_logs_around_the_function_is_not_among_the_task_s_allocations(bench, settings, stored):
    given = settings(task_diagnostics=["memray"])
    with bench(given) as tasks:
        task_id = tasks.run_logged(hold_and_keep, KeepingHandler())
    _kept.clear()

    tree = json.loads(report(stored(given), task_id, "calltree"))
    assert {call["function"] for call in tree["tree"]["children"]} == {"hold_and_keep"}


def hold_deeper(depth: int) -> list[bytes]:
    return [hold(1), *(hold_deeper(depth - 1) if depth else ())]


def held(tree: CallTree, function: str) -> float:
    """What a call tree says that a function and its calls held, in megabytes."""
    return sum(row["total"] for row in functions(tree["tree"]) if row["function"] == function) / MIB


def test_a_report_has_what_the_task_allocated_and_one_of_the_process_what_other_threads_did(bench, settings, stored):
    given = settings(task_diagnostics=["memray"])
    task_holds, other_holds, done = threading.Event(), threading.Event(), threading.Event()

    def other() -> None:
        task_holds.wait(PATIENCE_S)
        held = [hold(2), keep(7)]
        other_holds.set()
        done.wait(PATIENCE_S)
        del held

    def work() -> None:
        held = hold_deeper(4)
        task_holds.set()
        other_holds.wait(PATIENCE_S)
        del held

    thread = threading.Thread(target=other)
    thread.start()
    with bench(given) as tasks:
        task_id = tasks.run(work)
    done.set()
    thread.join()

    own = report(stored(given), task_id, "tree")
    assert float(own.split()[0]) == pytest.approx(5, rel=0.02)
    assert " keep  " not in own
    whole = report(stored(given), task_id, "tree-process")
    assert megabytes_of(whole, "keep") == pytest.approx(7, rel=0.02)

    own, whole = (json.loads(report(stored(given), task_id, f"calltree{suffix}")) for suffix in ("", "-process"))
    assert own["unit"] == "bytes"
    assert held(own, "hold") == held(own, "hold_deeper") == pytest.approx(5, rel=0.02)
    assert own["tree"]["children"][0]["function"] == "work"  # Dramatiq's calls are left out.
    assert held(whole, "hold") == pytest.approx(7, rel=0.02)
    assert held(whole, "other") == pytest.approx(9, rel=0.02)
    assert held(own, "other") == held(own, "keep") == 0


def test_a_report_is_rendered_once(profiled, monkeypatch):
    first = report(*profiled, "tree")  # By this test, or by one before it.
    monkeypatch.setattr("dramatiq_diag.reports.process.subprocess.Popen", None)

    assert report(*profiled, "tree") == first


def test_what_is_no_allocation_profile_is_a_clear_error(settings, store_of, stored):
    given = settings()
    data = artifact_record(b"memray? no", name="memray_profile", filename="memray.bin", media_type="x/y")
    store_of(given).publish([bundle(run_record(task_id="task"), data)])
    reader, task_id = stored(given), "task"

    with pytest.raises(ReportError, match="cannot be read"):
        report(reader, task_id, "tree")


def test_names_in_a_page_are_inert(bench, settings, stored):
    given = settings(task_diagnostics=["memray"])
    hostile = "</script><script>document.title='pwned'</script>"
    namespace: dict[str, Any] = {}
    exec(
        compile("def hold_here():\n    held = b'x' * 10_000_000\n    return len(held)", f"/{hostile}.py", "exec"),
        namespace,
    )

    with bench(given) as tasks:
        task_id = tasks.run(lambda: namespace["hold_here"]() and None, actor_name="work")

    for name in ("flamegraph", "table"):
        page = report(stored(given), task_id, name)
        assert "hold_here" in page
        assert hostile not in page


def test_rendering_goes_to_any_file(profiled):
    reader, task_id = profiled
    path = str(reader.path(task_id, "memray_profile"))
    target = io.BytesIO()

    next(view for view in VIEWS if view.name == "tree").render(path, target)

    assert target.getvalue().decode() == report(reader, task_id, "tree")


@pytest.mark.parametrize("name", ["flamegraph", "table"])
def test_a_page_counts_in_the_units_of_everything_else(profiled, name):
    page = report(*profiled, name)

    assert '"MiB"' in page
    assert '"MB"' not in page


@pytest.mark.parametrize("name", ["tree", "summary", "stats-process"])
def test_a_text_counts_in_the_units_of_everything_else(profiled, name):
    text = report(*profiled, name)

    assert re.search(r"\d\.\d MiB", text)
    assert not re.search(r"\d ?[kMG]B", text)


@pytest.mark.parametrize("module", [coroutines, tap], ids=["coroutines", "task_logs"])
def test_code_that_calls_the_application_does_not_count_as_own_code(module):
    assert not is_own_code(module.__file__)
    assert is_own_code(ticker.__file__)
