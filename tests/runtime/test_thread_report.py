"""Reports of all threads: the task's first, with stacks, waits, and for how long nothing has moved."""

from __future__ import annotations

import gc
import json
import queue
import threading
import time
import weakref
from contextlib import ExitStack
from dataclasses import asdict

import greenlet

from support import PATIENCE_S, eventually, planted
from support.planted import stuck
from support.reports import Reports, functions


def wait_in_vain(event):
    event.wait(PATIENCE_S)  # The line of the wait.


def test_the_tasks_thread_comes_first_with_its_innermost_function_first():
    release = threading.Event()
    with stuck(planted.locking()), ExitStack() as stack:
        task = threading.Thread(target=wait_in_vain, args=[release], name="task", daemon=True)
        own = threading.Thread(target=release.wait, name="dramatiq_diag.own", daemon=True)
        for thread in (task, own):
            thread.start()
            stack.callback(thread.join)
        stack.callback(release.set)
        first, *others = Reports(task.ident).until(lambda report: report.state == "blocked")

    assert (first.name, first.is_task) == ("task", True)
    assert first.wait.detail == "waits until another thread sets an event (Event.wait)"
    assert functions(first)[:3] == ["wait", "wait", "wait_in_vain"]
    assert first.frames[2].file == __file__
    assert first.frames[2].source == "event.wait(PATIENCE_S)  # The line of the wait."
    assert "stuck" in [other.name for other in others]
    assert not any(other.is_task or other.name.startswith("dramatiq_diag.") for other in others)
    assert json.loads(json.dumps([asdict(report) for report in (first, *others)]))[0]["frames"][0]["function"]


def test_a_stack_that_stands_still_is_the_same_for_a_while():
    with stuck(planted.getting()) as (thread, _):
        reports = Reports(thread.ident)
        assert reports.take()[0].same_for_s == 0.0
        before = reports.until(lambda report: report.state == "blocked" and report.same_for_s > 0)[0].same_for_s
        time.sleep(0.05)
        after = reports.take()[0].same_for_s

    assert after >= before + 0.05


def test_a_thread_that_moves_is_not_the_same():
    items = queue.Queue()

    def work():
        while items.get() is not None:
            pass

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    reports = Reports(thread.ident)
    reports.until(lambda report: report.same_for_s > 0)
    items.put(1)
    eventually(items.empty, "the thread has moved")
    reports.until(lambda report: report.same_for_s == 0.0)
    items.put(None)
    thread.join()


def test_a_regular_expression_shows_as_running_in_its_caller():
    with stuck(planted.matching()) as (thread, _):
        report, *_ = Reports(thread.ident).until(lambda report: "match" in functions(report)[:2])

    assert (report.state, report.wait) == ("running", None)


def test_reports_are_bounded():
    release = threading.Event()

    def dive(depth):
        release.wait(PATIENCE_S) if depth == 0 else dive(depth - 1)

    thread = threading.Thread(target=dive, args=[300], name="n" * 1000, daemon=True)
    thread.start()
    report, *_ = Reports(thread.ident).until(lambda report: report.state == "blocked")
    release.set()
    thread.join()

    assert (len(report.name), len(report.frames)) == (200, 100)
    assert functions(report)[:3] == ["wait", "wait", "dive"]


def test_reports_keep_no_object_alive():
    class Held:
        pass

    references, entered, leave = [], threading.Event(), threading.Event()

    def hold():
        held = Held()
        references.append(weakref.ref(held))
        entered.set()
        leave.wait(PATIENCE_S)

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    entered.wait(PATIENCE_S)
    reports = Reports(thread.ident)
    gc.disable()
    try:
        found = reports.take()
        leave.set()
        thread.join()
        assert "hold" in functions(found[0])
        assert references[0]() is None
    finally:
        gc.enable()


def test_the_greenlet_of_a_task():
    def switch_away():
        greenlet.getcurrent().parent.switch()

    task = greenlet.greenlet(switch_away)
    task.switch()
    report, *_ = Reports(id(task)).take()
    task.switch()

    assert (report.name, report.is_task, report.state) == ("greenlet of the task", True, "awaiting")
    assert (functions(report), report.frames[0].file) == (["switch_away"], __file__)


def test_a_task_whose_thread_has_ended():
    report, *_ = Reports(1).take()

    assert (report.is_task, report.state, report.wait.kind, report.frames) == (True, "blocked", "unknown", ())
    assert report.wait.detail.startswith("is not among the threads: ")
