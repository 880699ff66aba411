"""What is installed: the wheel on its own, and life without the extras."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Callable
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from support import ROOT

OPTIONAL = ("falcon", "memray", "psycopg", "pyinstrument", "waitress")
PIN = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+)*==[0-9][0-9a-z.]*")

TASK = """
import dramatiq
from dramatiq.brokers.stub import StubBroker
from dramatiq_diag import Diagnostics
broker, diagnostics = StubBroker(), Diagnostics()
broker.add_middleware(diagnostics)
message = dramatiq.actor(lambda: None, broker=broker, actor_name="nothing").send()
worker = dramatiq.Worker(broker)
worker.start()
broker.join("default")
assert diagnostics.flush(180)
worker.stop()
print(message.message_id)
"""


@pytest.fixture(scope="session")
def wheel(made_once: Callable[..., Path]) -> Path:
    """The wheel, built from the checkout without the network."""
    (built,) = made_once("dist", build).glob("*.whl")
    return built


def build(directory: Path) -> None:
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(directory), str(ROOT)], check=True
    )


class Installed:
    """An environment that has the wheel and what it requires, and none of the extras."""

    def __init__(self, directory: Path, wheel: Path) -> None:
        venv.create(directory / "venv", with_pip=False)
        self.python = directory / "venv" / "bin" / "python"
        self.directory = directory
        (site_packages,) = directory.glob("venv/lib/python*/site-packages")
        with zipfile.ZipFile(wheel) as file:
            file.extractall(site_packages)
        for required in closure(wheel):
            link(required, site_packages)

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        given = clean | {"DRAMATIQ_DIAG_DATA_DIR": str(self.directory / "data")} | environment
        return subprocess.run(
            [str(self.python), *arguments], cwd=self.directory, env=given, capture_output=True, text=True
        )

    def command(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.run("-c", "from dramatiq_diag.cli import main; main()", *arguments, **environment)


def closure(wheel: Path) -> list[Distribution]:
    """Returns: What the wheel requires without extras, and what that requires, as installed where the tests run."""
    with zipfile.ZipFile(wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
        lines = file.read(name).decode().splitlines()
    waiting = [Requirement(line.removeprefix("Requires-Dist: ")) for line in lines if line.startswith("Requires-Dist")]
    found: dict[str, Distribution] = {}
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found[name] = distribution(requirement.name)
        waiting += [Requirement(text) for text in found[name].requires or ()]
    return list(found.values())


def link(required: Distribution, site_packages: Path) -> None:
    """Makes an installed distribution importable in another environment of the same Python."""
    for name in {file.parts[0] for file in required.files or ()} - {"..", "__pycache__"}:
        (site_packages / name).symlink_to(str(required.locate_file(name)))


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Installed:
    return Installed(tmp_path_factory.mktemp("bare"), wheel)


# The wheel.


def test_the_wheel_has_the_package_its_migrations_and_its_licence_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())

    versions = {f"dramatiq_diag/migrations/versions/{path.name}" for path in ROOT.glob("migrations/versions/*.py")}
    assert versions | {"dramatiq_diag/migrations/env.py", "dramatiq_diag/py.typed"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"dramatiq_diag"}
    assert {str(path.relative_to(ROOT)) for path in (ROOT / "dramatiq_diag").rglob("*.py")} <= names


def test_the_environment_without_extras_has_none_of_them(bare: Installed) -> None:
    found = bare.run("-c", f"import importlib.util as u; print([n for n in {OPTIONAL} if u.find_spec(n)])")

    assert found.stdout.strip() == "[]", found.stderr


def test_the_package_is_imported_from_the_wheel(bare: Installed) -> None:
    imported = bare.run("-W", "error", "-c", "import dramatiq_diag; print(dramatiq_diag.__file__)")

    assert imported.stdout.startswith(str(bare.directory)), imported.stderr


# Without the extras.


def test_without_the_extras_a_task_runs_and_each_absence_is_said(bare: Installed) -> None:
    # Given a worker that has neither pyinstrument nor memray, and is asked for both
    task = bare.run("-c", TASK, TASK_DIAGNOSTICS="memory,pyinstrument,memray")
    assert task.returncode == 0, task.stderr

    # When its task's artifacts are looked at
    shown = bare.command("artifacts", task.stdout.strip(), "--json")

    # Then the task succeeded, and what there is not has a reason that mends it
    document = json.loads(shown.stdout)
    assert document["run"]["status"] == "succeeded"
    assert set(document["urls"]) == {"memory_profile"}
    artifacts = {artifact["name"]: artifact for artifact in document["artifacts"]}
    assert artifacts["memory_profile"]["status"] == "stored"
    for extra in ("pyinstrument", "memray"):
        artifact = artifacts[f"{extra}_profile"]
        assert artifact["status"] == "unavailable"
        assert f"pip install 'dramatiq_diag[{extra}]'" in artifact["reason"]


def test_without_the_extras_the_store_is_looked_after_all_the_same(bare: Installed) -> None:
    for arguments in (["migrate"], ["tasks", "--json"], ["cleanup", "--json"], ["check", "--json"]):
        done = bare.command(*arguments)

        assert (done.returncode, done.stderr) == (0, ""), arguments


def test_doctor_finds_a_missing_extra_where_it_is_needed_and_only_there(bare: Installed) -> None:
    idle = bare.command("doctor", "--json")
    wanting = bare.command("doctor", "--json", TASK_DIAGNOSTICS="memory,memray")

    assert (idle.returncode, wanting.returncode) == (0, 1)
    checks: list[dict[str, Any]] = json.loads(wanting.stdout)["checks"]
    remedies = [check["remedy"] for check in checks if check["status"] == "finding"]
    assert remedies == ["pip install 'dramatiq_diag[memray]'"]


@pytest.mark.parametrize(
    ("arguments", "environment", "extra"),
    [
        (["serve"], {}, "web"),
        (["demo"], {}, "web"),
        (["tasks"], {"DRAMATIQ_DIAG_DATABASE_URL": "postgresql://me@127.0.0.1:1/none"}, "postgres"),
    ],
)
def test_what_needs_an_extra_names_it_in_one_line_and_exits_2(
    bare: Installed, arguments: list[str], environment: dict[str, str], extra: str
) -> None:
    done = bare.command(*arguments, **environment)

    assert done.returncode == 2
    assert f"pip install 'dramatiq_diag[{extra}]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_demo_runs_without_the_extras_when_it_need_not_serve(bare: Installed) -> None:
    done = bare.command("demo", "--exit", DRAMATIQ_DIAG_DATA_DIR=str(bare.directory / "demo"))

    assert done.returncode == 0, done.stderr
    without_extras = {"time_accounting", "memory_profile", "task_logs", "resources_profile"}
    assert all(set(run["urls"]) == without_extras for run in json.loads(done.stdout)["runs"])


# The pins.


def test_constraints_are_pins_and_nothing_else() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()

    assert lines == sorted(set(lines))
    assert [line for line in lines if not PIN.fullmatch(line)] == []


def test_everything_that_is_required_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    required = [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *(line for name, lines in extras.items() if name != "all" for line in lines),
        *project["dependency-groups"]["dev"],
    ]
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}

    assert {canonicalize_name(Requirement(line).name) for line in required} <= pinned


@pytest.mark.parametrize("name", ["Makefile", "pyproject.toml", "constraints.txt", "Dockerfile", ".ci/run"])
def test_no_file_says_which_package_index_is_used(name: str) -> None:
    text = (ROOT / name).read_text()

    assert re.findall(r"index-url|find-links|trusted-host|/simple\b|pypi", text, re.IGNORECASE) == []


def test_the_tests_of_other_package_versions_exist() -> None:
    named = re.findall(r"\btests/[\w/.]+", (ROOT / ".ci" / "bounded").read_text())

    assert len(named) > 5
    assert [path for path in named if not (ROOT / path).exists()] == []
