"""What a worker process tells of a running task."""

from __future__ import annotations

import uuid
from typing import Any

from dramatiq_diag.store.questions import QuestionState, answer, open_questions
from dramatiq_diag.store.store import Store
from dramatiq_diag.store.watches import watch
from dramatiq_diag.store.workers import note_worker
from support.pages import HOSTILE
from support.records import executed_task, worker_report


def hostile_answer(**changes: Any) -> dict[str, Any]:
    """Returns: The answer of a worker process, hostile in all its texts."""
    frame = {"function": HOSTILE, "file": HOSTILE, "line": 1, "source": HOSTILE}
    thread = {
        "name": HOSTILE,
        "is_task": True,
        "state": "blocked",
        "same_for_s": 1.0,
        "wait": {"kind": "file", "call": HOSTILE, "detail": HOSTILE, "peer": HOSTILE},
        "frames": [frame],
    }
    function = {"function": HOSTILE, "file": HOSTILE, "line": 1, "self_s": 1.0, "total_s": 1.0, "share": 1.0}
    return {
        "elapsed_s": 1.0,
        "rss_bytes": 1,
        "note": HOSTILE,
        "stack": {"run_id": None, "taken_at": "2026-01-02T03:04:05.000000Z", "note": HOSTILE, "threads": [thread]},
        "memory": {"curve": [[0.0, 1], [1.0, 2]]},
        "resources": None,
        "log": {"text": HOSTILE, "is_cut": True},
        "profile": {"seconds": 1.0, "samples": 1, "functions": [function], "tree": [{**function, "children": []}]},
        "artifacts": [{"name": HOSTILE, "collector": HOSTILE, "so_far": {HOSTILE: HOSTILE}}],
        **changes,
    }


def watch_hostile_task(store: Store) -> uuid.UUID:
    """Stores a worker with a task, somebody who watches it, and the worker's answer; all texts are hostile.

    Returns: The id of the question that is answered.
    """
    report = worker_report(tasks=[executed_task(HOSTILE, actor_name=HOSTILE)], hostname=HOSTILE)
    with store.session() as session:
        note_worker(session, report)
    watch(store, HOSTILE)
    with store.session() as session:
        (question,) = open_questions(session, report.worker_id)
    with store.session() as session:
        answer(session, question.question_id, QuestionState.ACTIVE, hostile_answer())
    question_id: uuid.UUID = question.question_id
    return question_id
