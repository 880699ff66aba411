"""Makes text fit for every database, and finds a task by a digest of its id."""

from __future__ import annotations

import hashlib


def task_key(task_id: str) -> str:
    """Returns: A digest of the task id, 32 characters: any string is a task id, and an index entry has a limit.

    The digest is that of the text in the column `task_id`, so that an href made from the column finds the task.
    """
    return hashlib.sha256(clean_text(task_id).encode()).hexdigest()[:32]


def clean_text(value: str, limit: int | None = None) -> str:
    """Returns: The text without what PostgreSQL or UTF-8 cannot hold, cut at *limit* characters."""
    text = value.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")
    return text if limit is None or len(text) <= limit else text[: limit - 1] + "\u2026"
