"""Tasks leave no line in the worker's log: at INFO one of 280 bytes for each task was half of it."""

from __future__ import annotations

import logging


def test_tasks_log_nothing_above_debug(bench, settings, caplog):
    given = settings(task_diagnostics=["memory", "pyinstrument", "logs"], keep_if="failed")

    with caplog.at_level(logging.INFO), bench(given) as tasks:
        actor = tasks.actor(lambda: None, actor_name="work")
        actor.send()
        tasks.finish()
        caplog.clear()  # The first run opens the store, which says that it made the schema.
        for _ in range(3):
            actor.send()
        tasks.finish()
        ours = [record.getMessage() for record in caplog.records if record.name.startswith("dramatiq_diag")]

    assert ours == []
