"""Fixtures of the commands: a data dir, the command on it, and what is in its store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from falcon.testing import TestClient

from dramatiq_diag.cli import main
from dramatiq_diag.web import create_app
from support import eventually
from support.cli import Command, add_up, make_runner


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "data"
    monkeypatch.setenv("DRAMATIQ_DIAG_DATA_DIR", str(directory))
    return directory


@pytest.fixture
def command(data_dir: Path) -> Command:
    """Runs the command on the data dir of this test, in this process."""

    def run(*arguments: str, **environment: str) -> Result:
        result = make_runner().invoke(main, arguments, env=environment, prog_name="dramatiq-diag")
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.stderr
        return result

    return run


@pytest.fixture
def execute(data_dir: Path, bench: Any, settings: Any) -> Callable[..., str]:
    """Executes a function as a task under `memory` and `pyinstrument`. Returns: The task's id."""

    def run(fn: Callable[..., None] = add_up, **options: Any) -> str:
        with bench(settings(task_diagnostics=["memory", "pyinstrument"])) as tasks:
            return str(tasks.run(fn, **options))

    return run


@pytest.fixture
def web(data_dir: Path) -> Iterator[TestClient]:
    """The web app of the data dir."""
    app = create_app(insecure=True)
    yield TestClient(app, headers={"Host": "localhost"})
    app.close()


_DIES = """
import dramatiq, os, signal, time
from dramatiq.brokers.stub import StubBroker
from dramatiq_diag import Diagnostics, Settings
broker = StubBroker()
broker.add_middleware(Diagnostics(Settings(task_diagnostics=["memory"])))
dramatiq.actor(lambda: os.kill(os.getpid(), signal.SIGKILL), broker=broker, actor_name="die").send()
worker = dramatiq.Worker(broker)
worker.start()
worker.join()
"""


@pytest.fixture
def killed_worker(data_dir: Path, python: Any) -> None:
    """A worker was killed while it ran a task, and left it in the spool."""
    killed = python(_DIES)
    eventually(lambda: killed.poll() is not None, "the worker was killed")
