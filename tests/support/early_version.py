"""A store of the version before the tables had a prefix, as its migrations made it."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime

from sqlalchemy import Connection, column, table

from dramatiq_diag.store.models import Artifact, StoreState, TaskRun
from dramatiq_diag.store.values import task_key

#: Revision -> its statements; MOMENT and IDENTIFIER are types that the databases name differently.
STATEMENTS = {
    "0001": """
        CREATE TABLE task_runs (run_id IDENTIFIER NOT NULL, task_key VARCHAR(32) NOT NULL, task_id TEXT NOT
            NULL, actor_name VARCHAR(255) NOT NULL, queue_name VARCHAR(255) NOT NULL, status VARCHAR(16) NOT NULL,
            started_at MOMENT NOT NULL, finished_at MOMENT, duration_ms FLOAT, peak_rss_bytes BIGINT, hostname
            VARCHAR(255) NOT NULL, pid BIGINT NOT NULL, exception_type VARCHAR(255), exception_message TEXT,
            overlapped_task_ids JSON NOT NULL, CONSTRAINT pk_task_runs PRIMARY KEY (run_id));
        CREATE INDEX ix_task_runs_task_key_started_at_run_id ON task_runs (task_key, started_at, run_id);
        CREATE INDEX ix_task_runs_started_at_run_id ON task_runs (started_at, run_id);
        CREATE INDEX ix_task_runs_actor_name_started_at_run_id ON task_runs (actor_name, started_at, run_id);
        CREATE TABLE artifacts (artifact_id IDENTIFIER NOT NULL, run_id IDENTIFIER NOT NULL, name VARCHAR(64)
            NOT NULL, status VARCHAR(16) NOT NULL, reason TEXT, filename VARCHAR(255) NOT NULL, media_type
            VARCHAR(127) NOT NULL, stored_as VARCHAR(255), blob_name VARCHAR(64), size_bytes BIGINT, sha256
            VARCHAR(64), published_at MOMENT NOT NULL, expires_at MOMENT, CONSTRAINT pk_artifacts PRIMARY KEY
            (artifact_id), CONSTRAINT fk_artifacts_run_id_task_runs FOREIGN KEY(run_id) REFERENCES task_runs
            (run_id) ON DELETE CASCADE);
        CREATE UNIQUE INDEX ix_artifacts_run_id_name ON artifacts (run_id, name);
        CREATE INDEX ix_artifacts_expires_at ON artifacts (expires_at) WHERE status IN ('stored', 'partial');
        CREATE TABLE store_state (id INTEGER NOT NULL, store_id IDENTIFIER NOT NULL, last_cleanup_at MOMENT,
            CONSTRAINT pk_store_state PRIMARY KEY (id));
    """,
    "0002": """
        ALTER TABLE task_runs ADD COLUMN exception_traceback TEXT;
        ALTER TABLE task_runs ADD COLUMN pinned_at MOMENT;
        CREATE INDEX ix_task_runs_actor_name_started_at_run_id_status_peak_rss_bytes ON task_runs (actor_name,
            started_at, run_id, status, peak_rss_bytes);
        CREATE INDEX ix_task_runs_queue_name_started_at_run_id ON task_runs (queue_name, started_at, run_id);
        CREATE INDEX ix_task_runs_status_started_at_run_id ON task_runs (status, started_at, run_id);
        CREATE INDEX ix_task_runs_duration_ms_run_id ON task_runs (duration_ms, run_id);
        CREATE INDEX ix_task_runs_peak_rss_bytes_run_id ON task_runs (peak_rss_bytes, run_id);
        DROP INDEX ix_task_runs_actor_name_started_at_run_id;
    """,
    "0003": """
        ALTER TABLE task_runs ADD COLUMN parent_run_id IDENTIFIER;
        CREATE INDEX ix_task_runs_parent_run_id ON task_runs (parent_run_id) WHERE parent_run_id IS NOT NULL;
        ALTER TABLE task_runs ADD COLUMN capture_id IDENTIFIER;
        CREATE INDEX ix_task_runs_capture_id ON task_runs (capture_id) WHERE capture_id IS NOT NULL;
        CREATE TABLE captures (capture_id IDENTIFIER NOT NULL, actor_name VARCHAR(255) NOT NULL, diagnostics
            JSON NOT NULL, run_limit INTEGER NOT NULL, created_at MOMENT NOT NULL, expires_at MOMENT NOT NULL,
            ended_at MOMENT, wanted_at MOMENT, CONSTRAINT pk_captures PRIMARY KEY (capture_id));
        CREATE INDEX ix_captures_ended_at_expires_at ON captures (ended_at, expires_at);
        CREATE TABLE capture_permits (capture_id IDENTIFIER NOT NULL, number INTEGER NOT NULL, holder
            IDENTIFIER, held_until MOMENT, run_id IDENTIFIER, CONSTRAINT pk_capture_permits PRIMARY KEY (capture_id,
            number), CONSTRAINT fk_capture_permits_capture_id_captures FOREIGN KEY(capture_id) REFERENCES captures
            (capture_id) ON DELETE CASCADE);
    """,
    "0004": """
        CREATE TABLE worker_actors (actor_name VARCHAR(255) NOT NULL, queue_name VARCHAR(255) NOT NULL,
            last_seen_at MOMENT NOT NULL, CONSTRAINT pk_worker_actors PRIMARY KEY (actor_name));
    """,
}

_TYPES = {
    "sqlite": {"MOMENT": "DATETIME", "IDENTIFIER": "CHAR(32)"},
    "postgresql": {"MOMENT": "TIMESTAMP WITH TIME ZONE", "IDENTIFIER": "UUID"},
}


def make_early_tables(connection: Connection, revision: str = "0004") -> None:
    """Makes the tables of a revision, without rows."""
    types = _TYPES[connection.dialect.name]
    for step, statements in STATEMENTS.items():
        for statement in statements.split(";")[:-1] if step <= revision else ():
            connection.exec_driver_sql(re.sub("|".join(types), lambda found: types[found[0]], statement))
    connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")


def make_early_store(connection: Connection, revision: str = "0004") -> uuid.UUID:
    """Makes the tables of a revision, with one run, `task`, that has one artifact. Returns: The store's id."""
    make_early_tables(connection, revision)
    connection.exec_driver_sql(f"INSERT INTO alembic_version VALUES ('{revision}')")
    store_id, run_id, now = uuid.uuid4(), uuid.uuid4(), datetime.now(UTC)
    run = {"run_id": run_id, "task_key": task_key("task"), "task_id": "task", "actor_name": "work", "pid": 1}
    run |= {"queue_name": "default", "hostname": "host", "status": "succeeded", "overlapped_task_ids": []}
    run |= {"started_at": now, "finished_at": now}
    artifact = {"artifact_id": uuid.uuid4(), "run_id": run_id, "name": "memory_profile", "status": "partial"}
    artifact |= {"filename": "memory.datum", "media_type": "text/plain", "published_at": now, "expires_at": now}
    for name, model, row in (
        ("store_state", StoreState, {"id": 1, "store_id": store_id}),
        ("task_runs", TaskRun, run),
        ("artifacts", Artifact, artifact),
    ):
        columns = (column(field, model.__table__.c[field].type) for field in row)
        connection.execute(table(name, *columns).insert(), row)
    return store_id
