"""Importing starts nothing and needs no extra; a worker may be forked or spawned."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys

import dramatiq
import pytest

from dramatiq_diag import Diagnostics
from dramatiq_diag.statuses import ArtifactStatus
from support import PATIENCE_S

_MODULES = """
import importlib, pkgutil, dramatiq_diag
needing_extras = ("web", "cli", "demo", "reports", "testing", "collectors.time_profile")
for module in pkgutil.walk_packages(dramatiq_diag.__path__, "dramatiq_diag.", onerror=print):
    if not any((module.name + ".").startswith("dramatiq_diag." + name + ".") for name in needing_extras):
        importlib.import_module(module.name)
"""

_LOOK = """
import os, sys, threading
def seen():
    descriptors = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    return (
        sorted(thread.name for thread in threading.enumerate()),
        sorted(os.readlink(path) for path in descriptors if os.path.exists(path)),
        sorted(os.listdir(".")),
    )
import dramatiq
before = seen()
%s
assert seen() == before, (seen(), before)
print("as before")
"""

_BLOCK = """
import sys
web = ("falcon", "waitress", "jinja2", "apispec", "vl_convert")
for name in ("memray", "pyinstrument", *web, "psycopg", "redis", "pika"):
    sys.modules[name] = None
"""

_WITHOUT_EXTRAS = (
    _BLOCK
    + _MODULES
    + """
from dramatiq.brokers.stub import StubBroker
from dramatiq_diag import Diagnostics, Settings
from dramatiq_diag.store.store import Store
from sqlalchemy import text

broker = StubBroker()
settings = Settings(task_diagnostics=["memory", "pyinstrument", "memray"], data_dir=sys.argv[1], cleanup_interval=0)
broker.add_middleware(Diagnostics(settings))
task = dramatiq.actor(lambda: None, broker=broker, actor_name="work")
worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=50)
worker.start()
task.send()
broker.join("default")
worker.join()
worker.stop()
store = Store(settings)
with store.session() as session:
    for row in session.execute(text("SELECT name, status, reason FROM dramatiq_diag_artifacts ORDER BY name")):
        print(*row)
store.close()
"""
)


def python(script: str, *arguments: str, cwd: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=cwd, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_starts_no_thread_and_opens_nothing(tmp_path):
    assert python(_LOOK % _MODULES, cwd=str(tmp_path)) == "as before\n"


def test_importing_loads_no_extra_and_no_migration_tool(tmp_path):
    names = ["memray", "pyinstrument", "falcon", "jinja2", "vl_convert", "psycopg", "alembic", "redis", "pika"]

    loaded = python(f"{_MODULES}\nimport sys\nprint([n for n in {names} if n in sys.modules])", cwd=str(tmp_path))

    assert loaded == "[]\n"


_SENDS = """
import sys
import dramatiq
from dramatiq.brokers.stub import StubBroker
before = {*sys.modules}
from dramatiq_diag import Diagnostics
broker = StubBroker()
broker.add_middleware(Diagnostics())
dramatiq.set_broker(broker)
@dramatiq.actor(diagnostics=["memory"], diagnostics_keep_if="failed", diagnostics_triggers="after 1h: stacks")
def work(): pass
work.send()
print(*sorted({name.partition(".")[0] for name in {*sys.modules} - before} - {*sys.stdlib_module_names}))
print(*sorted(name for name in {*sys.modules} - before if name.startswith("dramatiq_diag")))
"""

#: What a process that only sends messages imports of this package.
_LIGHT = {
    "collectors",
    "collectors.names",
    "errors",
    "middleware",
    "policy",
    "policy.keep_rules",
    "policy.propagation",
    "policy.stuck_rule",
    "policy.trigger_rules",
    "settings",
    "settings.fields",
    "settings.readers",
    "settings.urls",
    "statuses",
    "text",
}


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"TASK_DIAGNOSTICS": "memory,pyinstrument,memray"},
        {
            "TASK_DIAGNOSTICS_ON_REQUEST": "all",
            "DRAMATIQ_DIAG_OPTIONS_ON_REQUEST": "memray.native_traces",
            "DRAMATIQ_DIAG_DATABASE_URL": "postgresql://user:secret@host/name",
            "DRAMATIQ_DIAG_BLOB_URL": "/var/blobs",
        },
    ],
)
def test_a_process_that_only_sends_imports_nothing_that_only_workers_need(tmp_path, monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    packages, modules = python(_SENDS, cwd=str(tmp_path)).splitlines()

    assert packages == "dramatiq_diag"
    assert modules.split() == ["dramatiq_diag", *sorted(f"dramatiq_diag.{name}" for name in _LIGHT)]


def test_a_wrong_value_fails_there_as_well(tmp_path, monkeypatch):
    monkeypatch.setenv("DRAMATIQ_DIAG_MEMORY_INTERVAL", "often")

    done = subprocess.run([sys.executable, "-c", _SENDS], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode != 0
    assert "DRAMATIQ_DIAG_MEMORY_INTERVAL: 'often' is not allowed; allowed: a number of seconds" in done.stderr


_COST = """
import resource, time
began_s = time.process_time()
import dramatiq
def rss_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
before_bytes, before_s = rss_bytes(), time.process_time()
import dramatiq_diag
dramatiq_diag.Diagnostics()
print((time.process_time() - before_s) / (before_s - began_s), rss_bytes() - before_bytes)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_importing_and_building_it_costs_little_beside_dramatiq_alone(tmp_path, monkeypatch):
    # The budget is 3 MB, and half of what Dramatiq takes: a slow machine needs longer for both. Usual is a quarter.
    monkeypatch.setenv("TASK_DIAGNOSTICS", "memory,pyinstrument,memray")
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path / "compiled"))
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    python(_COST, cwd=str(tmp_path))  # Compiles.

    costs = [map(float, python(_COST, cwd=str(tmp_path)).split()) for _ in range(5)]

    share, more_bytes = map(min, zip(*costs, strict=True))
    assert more_bytes < 3e6
    assert share < 0.5


def test_importing_picks_no_global_broker(tmp_path):
    script = f"{_MODULES}\nimport dramatiq.broker\nprint(dramatiq.broker.global_broker)"

    assert python(script, cwd=str(tmp_path)) == "None\n"


def test_without_the_extras_the_core_works_and_says_what_is_missing(tmp_path):
    lines = python(f"import dramatiq\n{_WITHOUT_EXTRAS}", str(tmp_path / "data"), cwd=str(tmp_path)).splitlines()

    assert [line.split()[:2] for line in lines] == [
        ["memory_profile", "stored"],
        ["memray_profile", "unavailable"],
        ["pyinstrument_profile", "unavailable"],
    ]
    assert "pip install 'dramatiq_diag[memray]'" in lines[1]
    assert "pip install 'dramatiq_diag[pyinstrument]'" in lines[2]


def test_without_its_driver_a_database_is_refused_in_words(tmp_path):
    script = f"""{_BLOCK}
from dramatiq_diag import Settings
from dramatiq_diag.errors import NotInstalledError
from dramatiq_diag.store.store import Store
try:
    Store(Settings(database_url="postgresql://host/name")).open()
except NotInstalledError as error:
    print(error)
"""

    assert "pip install 'dramatiq_diag[postgres]'" in python(script, cwd=str(tmp_path))


def work_in_a_child(data_dir: str, ids: multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    """Runs a worker with the middleware that the parent made, or one like it."""
    from dramatiq.brokers.stub import StubBroker

    from dramatiq_diag import Settings

    diagnostics = INHERITED or Diagnostics(
        Settings(task_diagnostics=["memory", "pyinstrument", "memray"], data_dir=data_dir, cleanup_interval=0)
    )
    broker = StubBroker()
    broker.add_middleware(diagnostics)
    actor = dramatiq.actor(lambda: None, broker=broker, actor_name="work")
    worker = dramatiq.Worker(broker, worker_threads=2, worker_timeout=50)
    worker.start()
    ids.put([actor.send().message_id for _ in range(5)])
    broker.join("default")
    worker.join()
    worker.stop()


INHERITED: Diagnostics | None = None


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_worker_may_be_forked_or_spawned(settings, stored, method, monkeypatch):
    # Given a parent that only made the middleware
    given = settings(task_diagnostics=["memory", "pyinstrument", "memray"])
    monkeypatch.setattr(sys.modules[__name__], "INHERITED", Diagnostics(given) if method == "fork" else None)
    context = multiprocessing.get_context(method)
    ids: multiprocessing.Queue[list[str]] = context.Queue()  # type: ignore[type-arg]

    # When two children work
    children = [context.Process(target=work_in_a_child, args=(str(given.data_dir), ids)) for _ in range(2)]
    for child in children:
        child.start()
    task_ids = [task_id for _ in children for task_id in ids.get(timeout=PATIENCE_S)]
    for child in children:
        child.join(PATIENCE_S)
    ids.close()
    ids.join_thread()

    # Then all their tasks are stored
    assert [child.exitcode for child in children] == [0, 0]
    assert len({run.pid for run in stored(given).all_runs()}) == 2
    for task_id in task_ids:
        artifacts = stored(given).artifacts(task_id)
        assert len(artifacts) == 3
        assert artifacts["memory_profile"].status == ArtifactStatus.STORED
    for child in children:
        child.close()


def test_a_child_that_a_task_forks_harms_nothing(bench, settings, stored):
    given = settings(task_diagnostics=["memory", "pyinstrument"], memory_interval=0.01)

    def fork() -> None:
        context = multiprocessing.get_context("fork")
        child = context.Process(target=int)
        child.start()
        child.join(PATIENCE_S)
        assert child.exitcode == 0

    with bench(given) as tasks:
        task_id = tasks.run(fork)

    assert stored(given).runs(task_id)[0].status == "succeeded"
    assert {artifact.status for artifact in stored(given).artifacts(task_id).values()} == {ArtifactStatus.STORED}
    assert not stored(given).check()
