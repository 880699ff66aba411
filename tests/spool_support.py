"""Entries of the spool as workers leave them, for the tests of whatever reads them."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dramatiq_diag.entry import ENTRY_SUFFIX, Entry


def start_record(run_id: uuid.UUID, /, **changes: Any) -> dict[str, Any]:
    return {
        "run": {
            "run_id": str(run_id),
            "task_id": "task-1",
            "actor_name": "work",
            "queue_name": "default",
            "started_at": datetime.now(UTC).isoformat(),
            "hostname": "host",
            "pid": 4711,
            "artifacts": [
                {"name": "memory_profile", "filename": "memory.datum", "media_type": "text/plain", "stored_as": None}
            ],
        }
        | changes
    }


END = {"end": {"status": "succeeded", "finished_at": "2026-01-01T00:00:00+00:00", "duration_ms": 12.5}}
TEXT = {"to": "memory_profile", "text": "0.000\t1.000\n", "peak_rss_bytes": 1048576}


def dead_entry(spool_root: Path, lines: list[Any], run_id: uuid.UUID | None = None, owner: str | None = None) -> Entry:
    """Leaves an entry as a dead worker would, or as somebody hostile would; text goes in as it is."""
    run_id = run_id or uuid.uuid4()
    directory = spool_root / (owner or str(uuid.uuid4()))
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = "".join(line if isinstance(line, str) else f"\n{json.dumps(line)}\n" for line in lines)
    (directory / f"{run_id}.{ENTRY_SUFFIX}").write_text(text, "utf-8", "surrogatepass")
    return Entry(directory, run_id)
