"""The web app on top of a store of real files and rows, and what its answers are checked for."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from falcon.testing import Result, TestClient
from sqlalchemy import update

from dramatiq_diag import Settings
from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from dramatiq_diag.store.models import Artifact
from dramatiq_diag.store.records import ArtifactRecord, FinishedRun, RunRecord, artifact_id
from dramatiq_diag.store.store import Store
from dramatiq_diag.web.app import DiagnosticsApp
from dramatiq_diag.web.backend import Backend
from dramatiq_diag.web.http.hosts import known_hosts
from support import PATIENCE_S

FIRST_START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
#: The name that the app is asked under.
HOST = "localhost"
TOKEN = "a-token-of-the-tests"
MEMORY = b"0.0 31.5\n2.0 120.25\n4.0 88.0\n"


def memory_artifact(data: bytes = MEMORY, **fields: Any) -> ArtifactRecord:
    return artifact("memory_profile", data, filename="memory.datum", media_type="text/plain", **fields)


def memray_artifact(data: bytes = b"memray\0capture", **fields: Any) -> ArtifactRecord:
    return artifact("memray_profile", data, filename="memray.bin", media_type="application/octet-stream", **fields)


def profile_artifact(data: bytes | None = None, **fields: Any) -> ArtifactRecord:
    return artifact(
        "pyinstrument_profile",
        json.dumps(session_of("crunch_numbers")).encode() if data is None else data,
        filename="pyinstrument.html",
        media_type="text/html",
        stored_as="pyinstrument.session.json",
        **fields,
    )


def artifact(name: str, data: bytes | None, **fields: Any) -> ArtifactRecord:
    opens: Callable[[], Any] | None = None if data is None else lambda: io.BytesIO(data)
    return ArtifactRecord(**{"name": name, "status": ArtifactStatus.STORED, "stored_as": None, "open": opens} | fields)


def session_of(*names: str, file: str = "/srv/app/jobs.py", target: str = "Task t: crunch") -> dict[str, Any]:
    """A pyinstrument session in which each of the functions took a second."""
    thread, root = "MainThread\0<thread>\x001", "crunch\0/srv/app/jobs.py\x001"
    return {
        "start_time": 1767323045.0,
        "duration": float(len(names)),
        "min_interval": 0.005,
        "max_interval": 0.005,
        "sample_count": 200 * len(names),
        "start_call_stack": [thread, root],
        "target_description": target,
        "cpu_time": 1.0,
        "sys_path": ["/srv/app"],
        "sys_prefixes": ["/usr"],
        "frame_records": [[[thread, root, f"{name}\0{file}\x00{9 + at}"], 1.0] for at, name in enumerate(names)],
    }


class Site:
    """A store with its web app; *limits* are options of the app's backend, which by itself waits patiently."""

    def __init__(self, settings: Settings, limits: Mapping[str, Any]) -> None:
        self.settings = settings
        self.store = Store(settings)
        self.store.open()
        patience = dict.fromkeys(("wait_s", "download_wait_s", "probe_wait_s", "answer_wait_s"), PATIENCE_S)
        self.backend = Backend(settings, **{**patience, **limits})
        self.app = DiagnosticsApp(self.backend, known_hosts(settings))
        self.client = TestClient(self.app, headers={"Host": HOST})
        self._published = 0

    def publish(self, task_id: str = "task-1", artifacts: Sequence[ArtifactRecord] = (), **fields: Any) -> uuid.UUID:
        """Publishes a run, each a minute after the one before. Returns: The run's id."""
        run_id = uuid.uuid4()
        started_at = FIRST_START + timedelta(minutes=self._published)
        self._published += 1
        values = {
            "run_id": run_id,
            "task_id": task_id,
            "actor_name": "crunch",
            "queue_name": "default",
            "status": RunStatus.SUCCEEDED,
            "started_at": started_at,
            "finished_at": started_at + timedelta(seconds=4),
            "duration_ms": 4000.5,
            "peak_rss_bytes": 131072000,
            "hostname": "worker-1",
            "pid": 4711,
        }
        self.store.publish([FinishedRun(run=RunRecord(**values | fields), artifacts=artifacts)])
        return run_id

    def publish_one(self, record: ArtifactRecord, **fields: Any) -> str:
        """Publishes a run with one artifact. Returns: The path and query of its download."""
        run_id = self.publish("one", [record], **fields)
        with self.store.session() as session:
            row = session.get(Artifact, artifact_id(run_id, record.name))
        assert row is not None
        return self.url_path(row)

    def url_path(self, row: Artifact) -> str:
        from dramatiq_diag.documents.signing import Signer

        return Signer(self.settings).url_path(str(row.artifact_id), row.filename)

    def change(self, path: str, **values: Any) -> None:
        """Changes the row of the artifact that a download path names."""
        with self.store.session() as session:
            session.execute(update(Artifact).where(Artifact.artifact_id == id_in(path)).values(**values))

    def blob(self, path: str) -> Path:
        """The blob of the artifact that a download path names."""
        with self.store.session() as session:
            row = session.get(Artifact, id_in(path))
        assert row is not None
        assert row.blob_name is not None
        return self.store.blobs.root / row.blob_name

    def cached(self, path: str) -> list[Path]:
        """The files that the cache has of the artifact that a download path names."""
        cache = self.store.cache
        return [cache.root / entry.name for entry in cache.entries() if entry.source_id == id_in(path)]

    def get(self, path: str, **options: Any) -> Result:
        return self.client.simulate_get(path, **options)

    def close(self) -> None:
        self.app.close()
        self.store.close()


def id_in(path: str) -> uuid.UUID:
    """The artifact's id in a download path."""
    return uuid.UUID(path.split("/")[2])


def path_of(url: str) -> str:
    """The path and query of a URL."""
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def assert_problem(result: Result, status: int) -> str:
    """Checks that an answer is a problem document. Returns: Its detail."""
    assert result.status_code == status, result.text
    assert result.headers["content-type"] == "application/problem+json"
    assert result.headers["cache-control"] == "no-store"
    assert result.headers["x-content-type-options"] == "nosniff"
    assert result.json["status"] == status
    assert result.json["type"] == "about:blank"
    assert result.json["title"]
    return str(result.json["detail"])
