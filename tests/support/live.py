"""What a worker process tells of a running task."""

from __future__ import annotations

from typing import Any

from support.pages import HOSTILE


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
