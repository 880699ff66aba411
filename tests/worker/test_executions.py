"""The tasks that a process executes: for how long, by a clock that nobody sets anew."""

from __future__ import annotations

import time

import dramatiq

from dramatiq_diag.worker.executions import Executions


def test_a_clock_that_is_set_anew_makes_no_task_older_or_younger(monkeypatch):
    message = dramatiq.Message(queue_name="default", actor_name="work", args=(), kwargs={}, options={})
    executions = Executions({1: (message, (1_000_000.0, 5.0))}, {}, lambda: 7.5)

    for wrong_s in (-86400.0, 86400.0):
        monkeypatch.setattr(time, "time", lambda wrong_s=wrong_s: 1_000_002.5 + wrong_s)
        (task,) = executions.reported()

        assert (task["started_at"], task["age_s"]) == ("1970-01-12T13:46:40.000000Z", 2.5)
