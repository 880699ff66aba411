"""Collectors of other packages: found by entry point, imported when they are chosen, refused in words."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import zipfile

import pytest

from dramatiq_diag import Settings, SettingsError
from dramatiq_diag.cli.doctor_checks import Status, examine
from dramatiq_diag.collectors.names import GROUP, installed, known_names
from dramatiq_diag.collectors.registry import load
from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from support import PATIENCE_S, TESTS, python_path

EXAMPLE = TESTS / "example_collector"

_GOOD = """
from dramatiq_diag.collectors import Collector, Recording

class Notes(Collector):
    name = "notes"
    artifact_name = "notes"
    filename = "notes.txt"
    media_type = "text/plain"

    def record(self, run):
        return Note(self, run)

class Note(Recording):
    def __init__(self, collector, run):
        self.collector, self.run = collector, run

    def stop(self):
        self.run.append_text(self.collector, "noted")
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a package of one module with collectors, as far as Python can tell."""
    number = 0

    def put(source: str, *, module: str = "", **points: str) -> str:
        nonlocal number
        number += 1
        module = module or f"plugin_of_test_{number}"
        directory = tmp_path / f"site{number}"
        metadata = directory / f"{module}-1.{number}.dist-info"
        metadata.mkdir(parents=True)
        (directory / f"{module}.py").write_text(source)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.{number}\n")
        lines = [f"{name.replace('_', '-')} = {module}:{value}" for name, value in points.items()]
        (metadata / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines, ""]))
        monkeypatch.syspath_prepend(str(directory))
        monkeypatch.delitem(sys.modules, module, raising=False)
        return module

    return put


# Found and chosen.


def test_a_collector_of_another_package_is_collected(bench, settings, stored, install):
    module = install(_GOOD, notes="Notes")
    given = settings(task_diagnostics=["memory", "notes", "pyinstrument"])
    assert module not in sys.modules

    with bench(given) as tasks:
        order = list(tasks.diagnostics.process.collectors)
        task_id = tasks.run(lambda: None, actor_name="work")

    assert order == ["memory", "notes", "pyinstrument"]
    artifact = stored(given).artifacts(task_id)["notes"]
    assert (artifact.status, artifact.reason) == (ArtifactStatus.STORED, None)
    assert stored(given).data(task_id, "notes") == b"noted"
    assert not stored(given).check()


def test_it_is_imported_only_when_it_is_chosen(settings, install):
    module = install(_GOOD, notes="Notes")

    assert "notes" in known_names()
    assert installed("notes")
    settings(task_diagnostics=["notes", "memory"])
    examine(settings(task_diagnostics=["all"]))
    load(["memory"], settings())
    assert module not in sys.modules
    load(["notes"], settings())
    assert module in sys.modules


def test_importing_the_package_looks_for_none(tmp_path):
    script = "\n".join(
        [
            "import importlib.metadata as metadata",
            "def refuse(**given):",
            "    if given.get('group') == 'dramatiq_diag.collectors':",
            "        raise SystemExit('looked')",
            "    return original(**given)",
            "original, metadata.entry_points = metadata.entry_points, refuse",
            "from dramatiq_diag import Diagnostics, Settings",
            "Diagnostics(Settings(task_diagnostics=['memory', 'all'], data_dir='here'))",
        ]
    )

    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=PATIENCE_S)


def test_all_does_not_mean_them(bench, settings, install):
    install(_GOOD, notes="Notes")

    with bench(settings(task_diagnostics=["all"])) as tasks:
        assert "notes" not in tasks.diagnostics.process.collectors


def test_settings_name_them_where_a_name_is_wrong(install):
    install(_GOOD, notes="Notes", more_notes="Notes")

    with pytest.raises(SettingsError) as caught:
        Settings(task_diagnostics="notes,noets")

    assert "unknown: 'noets'; other packages have more-notes, notes" in str(caught.value)


# Refused.

_ATTRIBUTES = 'name="notes", artifact_name="notes", filename="notes.txt", media_type="text/plain"'


def _with(**changes: object) -> str:
    changed = f"dict({_ATTRIBUTES}) | {changes!r}"
    return f"from dramatiq_diag.collectors import Collector\nNotes = type('Notes', (Collector,), {changed})\n"


REFUSED = [
    # Not to be imported
    ("import no_such_module_of_test", "ModuleNotFoundError: No module named 'no_such_module_of_test'"),
    ("1 / 0", "ZeroDivisionError"),
    ("raise SystemExit(3)", "SystemExit: 3"),
    ("Notes", "NameError"),
    ("", "AttributeError"),
    ("this is no Python", "SyntaxError"),
    # No collector
    ("Notes = 3", "it is no subclass of dramatiq_diag.collectors.Collector"),
    ("class Notes: pass", "it is no subclass of dramatiq_diag.collectors.Collector"),
    # Attributes
    (_with(name="other"), "its name is 'other', and its entry point's is 'notes'"),
    (_with(artifact_name="Notes"), "its artifact_name is 'Notes'; allowed is a lower case letter"),
    (_with(artifact_name="notes\n"), "its artifact_name is 'notes\\n'"),
    (_with(artifact_name="../notes"), "its artifact_name is '../notes'"),
    (_with(artifact_name=3), "its artifact_name is 3"),
    (_with(artifact_name="n" * 65), "its artifact_name is 'nnn"),
    (_with(filename="../notes.txt"), "its filename is '../notes.txt'"),
    (_with(filename=".notes"), "its filename is '.notes'"),
    (_with(filename=""), "its filename is ''"),
    (_with(media_type="text/plain; charset=utf-8"), "its media_type is 'text/plain; charset=utf-8'"),
    (_with(media_type=None), "its media_type is None"),
    (_with(stored_as="notes.json"), "its stored_as is not None"),
    # The artifacts of others
    (_with(artifact_name="memory_profile"), "its artifact_name 'memory_profile' is that of another collector"),
    (_with(artifact_name="task_logs"), "its artifact_name 'task_logs' is that of another collector"),
]


@pytest.mark.parametrize(("source", "expected"), REFUSED)
def test_one_that_cannot_be_used_is_unavailable_and_says_why(bench, settings, stored, install, source, expected):
    install(source, notes="Notes")
    given = settings(task_diagnostics=["memory", "notes"])

    with bench(given) as tasks:
        task_id = tasks.run(lambda: None, actor_name="work")

    artifacts = stored(given).artifacts(task_id)
    assert stored(given).runs(task_id)[0].status == RunStatus.SUCCEEDED
    assert artifacts["memory_profile"].status == ArtifactStatus.STORED
    assert artifacts["notes"].status == ArtifactStatus.UNAVAILABLE
    assert expected in artifacts["notes"].reason


@pytest.mark.parametrize(
    ("step", "more", "status"),
    [
        ("__init__", ", settings", ArtifactStatus.UNAVAILABLE),
        ("open", ", process", ArtifactStatus.UNAVAILABLE),
        ("record", ", run", ArtifactStatus.FAILED),
        ("close", "", ArtifactStatus.STORED),
    ],
)
def test_one_that_breaks_harms_neither_worker_nor_task(bench, settings, stored, install, step, more, status):
    source = _GOOD + f"\ndef broken(self{more}):\n    raise RuntimeError('broken')\nNotes.{step} = broken\n"
    install(source, notes="Notes")
    given = settings(task_diagnostics=["memory", "notes"])

    with bench(given) as tasks:
        task_id = tasks.run(lambda: None, actor_name="work")

    artifacts = stored(given).artifacts(task_id)
    assert stored(given).runs(task_id)[0].status == RunStatus.SUCCEEDED
    assert artifacts["memory_profile"].status == ArtifactStatus.STORED
    assert artifacts["notes"].status == status
    assert status == ArtifactStatus.STORED or "RuntimeError" in artifacts["notes"].reason


@pytest.mark.parametrize("runs_inline", [False, True])
@pytest.mark.parametrize(
    ("owner", "step", "more"), [("Notes", "record", ", run"), ("Note", "start", ""), ("Note", "stop", "")]
)
def test_an_error_that_is_no_exception_costs_the_artifact_alone(
    bench, settings, stored, install, owner, step, more, runs_inline
):
    """A library in Rust that panics raises one. Dramatiq would take it for a failure of the task, and retry that."""
    source = _GOOD + (
        f"\nNote.runs_inline = {runs_inline}\nclass Panic(BaseException): pass\n"
        f"def broken(self{more}):\n    raise Panic('broken')\n{owner}.{step} = broken\n"
    )
    install(source, notes="Notes")
    given = settings(task_diagnostics=["notes", "memory"])
    calls: list[int] = []

    with bench(given) as tasks:
        task_ids = [tasks.run(lambda: calls.append(1), actor_name=f"work{number}") for number in range(2)]

    assert calls == [1, 1]
    for task_id in task_ids:
        (run,) = stored(given).runs(task_id)
        artifacts = stored(given).artifacts(task_id)
        assert (run.status, artifacts["memory_profile"].status) == (RunStatus.SUCCEEDED, ArtifactStatus.STORED)
        assert (artifacts["notes"].status, "Panic" in artifacts["notes"].reason) == (ArtifactStatus.FAILED, True)


def test_of_two_with_one_artifact_the_second_is_refused(settings, install):
    install(_GOOD, notes="Notes")
    second = _GOOD.replace('name = "notes"', 'name = "zettel"', 1)
    install(second, zettel="Notes")

    loaded = load(["notes", "zettel"], settings())

    assert type(loaded["notes"]).__name__ == "Notes"
    assert "artifact_name 'notes' is that of another" in loaded["zettel"].reason  # type: ignore[attr-defined]
    assert loaded["zettel"].artifact_name == "zettel"


def test_a_name_of_ours_is_not_given_away(settings, install, caplog):
    module = install(_GOOD, memory="Notes", all="Notes")

    loaded = load(["memory"], settings())

    assert type(loaded["memory"]).__name__ == "MemoryCollector"
    assert module not in sys.modules
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert f"{module}:Notes is passed over: its name 'memory'" in messages[1]


def test_the_doctor_names_each_and_finds_what_is_chosen_and_broken(settings, install):
    module = install(_GOOD, notes="Notes", memory="Notes")
    broken = install("1 / 0", broken="Notes", idle="Notes")

    checks = {check.name: check for check in examine(settings(task_diagnostics=["notes", "broken"]))[::-1]}

    assert (checks["notes"].status, checks["notes"].detail) == (Status.OK, f"{module}:Notes of {module} 1.1")
    assert checks["broken"].status == Status.FINDING
    assert "ZeroDivisionError" in checks["broken"].detail
    assert checks["idle"].status == Status.OK
    assert f"{broken}:Notes" in checks["idle"].detail


# The worked example.

_WORKER = """
import gc
import json
import sys
import dramatiq
from dramatiq.brokers.stub import StubBroker
from dramatiq_diag import Diagnostics

broker, diagnostics = StubBroker(), Diagnostics()
broker.add_middleware(diagnostics)

def work():
    for _ in range(3):
        gc.collect()

message = dramatiq.actor(work, broker=broker).send_with_options(diagnostics=json.loads(sys.argv[1]))
worker = dramatiq.Worker(broker, worker_threads=1)
worker.start()
broker.join("default")
assert diagnostics.flush(170)
worker.stop()
print(message.message_id)
"""


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """A directory in which the example is installed, out of its own wheel, without the network."""
    directory = tmp_path_factory.mktemp("example")
    shutil.copytree(EXAMPLE, directory / "source", ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(directory), str(directory / "source")]
    subprocess.run(command, check=True)
    (wheel,) = directory.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(directory / "site")
    return directory / "site"


def test_the_example_is_installed_chosen_by_name_and_downloaded(example, tmp_path):
    environment = os.environ | {
        "PYTHONPATH": python_path(example),
        "TASK_DIAGNOSTICS_ON_REQUEST": "memory,gc-counts",
        "DRAMATIQ_DIAG_DATA_DIR": str(tmp_path / "data"),
        "DRAMATIQ_DIAG_WATCHDOG": "false",  # On a busy machine a collection keeps the GIL for seconds, which it tells.
    }

    def python(script: str, *arguments: str) -> str:
        command = [sys.executable, "-c", script, *arguments]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, timeout=PATIENCE_S
        ).stdout

    request = ["memory", {"gc-counts": {"from_generation": 1}}]
    task_id = python(_WORKER, json.dumps(request)).strip()
    main = "from dramatiq_diag.cli import main; main()"
    shown = json.loads(python(main, "artifacts", task_id, "--download", str(tmp_path / "got"), "--json"))

    statuses = {artifact["name"]: artifact["status"] for artifact in shown["artifacts"]}
    assert statuses == {"memory_profile": "stored", "gc_counts": "stored"}
    (downloaded,) = (tmp_path / "got").rglob("gc.csv")
    rows = list(csv.DictReader(downloaded.read_text().splitlines()))
    assert [row["generation"] for row in rows] == ["1", "2"]
    assert int(rows[-1]["collections"]) >= 3
