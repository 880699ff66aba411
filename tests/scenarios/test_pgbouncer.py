"""PgBouncer between the package and PostgreSQL, with its defaults: nothing has to be set for it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy.engine import make_url

from dramatiq_diag.cli import main
from dramatiq_diag.errors import StoreError
from dramatiq_diag.maintenance.cleanup import Cleanup
from dramatiq_diag.statuses import ArtifactStatus
from dramatiq_diag.store.database import make_engine
from dramatiq_diag.worker.tuning import Tuning
from support import PATIENCE_S, eventually, missing
from support.captures import ask, run_until, standing, work
from support.cli import make_runner
from support.records import bundle, run_record

_CONFIGURATION = """
[databases]
* = host={host} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
logfile = {directory}/log
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture(params=["transaction", "session"])
def pooled(request, postgres):
    """The URL of an empty database behind a PgBouncer of this test."""
    path = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin"
    command = shutil.which("pgbouncer", path=path) or missing("PgBouncer is not there", "apt-get install pgbouncer")
    with postgres.database("template1") as name, tempfile.TemporaryDirectory(prefix="diag-pgbouncer-") as directory:
        host = Path(make_url(postgres.url(name)).query["host"])
        port = free_port()
        configuration = Path(directory, "pgbouncer.ini")
        values = {"host": host, "port": port, "mode": request.param, "directory": directory}
        configuration.write_text(_CONFIGURATION.format(**values))
        arguments = [command, "-q", str(configuration)]
        if os.geteuid() == 0:  # PgBouncer refuses to run as root, and the server's socket is its owner's.
            owner = host.stat()
            os.chown(directory, owner.st_uid, owner.st_gid)
            ids = [f"--reuid={owner.st_uid}", f"--regid={owner.st_gid}", "--clear-groups"]
            arguments = ["setpriv", *ids, *arguments]
        with subprocess.Popen(arguments, stderr=subprocess.DEVNULL) as server:
            try:
                eventually(lambda: answers(port), "PgBouncer answers")
                yield f"postgresql://anybody@127.0.0.1:{port}/{name}"
            finally:
                server.terminate()
                server.wait(PATIENCE_S)


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def given(pooled, settings, monkeypatch):
    given = settings(database_url=pooled, task_diagnostics_on_request=["memory"], orphan_protection_time=0)
    monkeypatch.setenv("DRAMATIQ_DIAG_DATABASE_URL", pooled)
    result = make_runner().invoke(main, ["migrate"])
    assert result.exit_code == 0, result.output
    assert "Step 0001" in result.stderr
    return given


def test_a_task_is_captured_listed_and_cleaned_up(given, store_of, stored, bench):
    store = store_of(given)
    capture_id = ask(store)
    with bench(given, tuning=Tuning(attention_s=0.02)) as tasks:
        actor = tasks.actor(work)
        run_until(tasks, actor, lambda: standing(store, capture_id).captured_runs, "a run is captured")

    (run,) = stored(given).all_runs()
    assert stored(given).artifacts(run.task_id)["memory_profile"].status == ArtifactStatus.STORED
    counts = Cleanup(store).run()
    assert counts.expired_artifacts == 1
    assert not stored(given).check()


def test_processes_that_share_connections_do_not_meet_each_others_prepared_statements(given, store_of, stored):
    # Given statements that were executed so often that a driver would prepare them, by one process after the other
    stores = [store_of(given) for _ in range(3)]

    for _ in range(8):
        for store in stores:
            store.publish([bundle(run_record())])

    assert len(stored(given).all_runs()) == 24


def test_a_statement_is_given_up_after_a_while_and_only_ours(given):
    engine = make_engine(given)
    other = sqlalchemy.create_engine(given.database, connect_args={"prepare_threshold": None})
    with engine.begin() as connection:
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "30s"
    with other.connect() as connection:  # Which may have the same connection of the server.
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "0"
    engine.dispose()
    other.dispose()


def test_an_error_that_says_nothing_about_the_schema_is_not_called_one(given, store_of):
    store = store_of(given)

    with pytest.raises(StoreError) as caught, store.session() as session:
        session.connection().exec_driver_sql("DEALLOCATE never_prepared")

    assert "never_prepared" in str(caught.value)
    assert "migrate" not in str(caught.value)
