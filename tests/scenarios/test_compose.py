"""docker-compose.yml and Dockerfile, as far as they can be judged without a container engine."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
import yaml
from dramatiq.cli import make_argument_parser

from dramatiq_diag import Settings
from dramatiq_diag.text import parse_duration_ms
from support import ROOT

COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "Dockerfile"


@pytest.fixture
def services() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return dict(document["services"])


def test_the_file_follows_the_compose_specification() -> None:
    subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)], check=True
    )


def test_there_is_a_database_a_broker_a_worker_and_a_web_part_after_a_migration(services: dict[str, Any]) -> None:
    assert set(services) == {"postgres", "rabbitmq", "migrate", "worker", "web"}
    assert services["migrate"]["command"] == ["dramatiq-diag", "migrate"]
    assert services["migrate"]["restart"] == "no"
    for name in ("worker", "web"):
        assert services[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


def test_every_service_has_a_health_check_and_waits_for_health(services: dict[str, Any]) -> None:
    assert all("test" in service["healthcheck"] for service in services.values())
    for name, waited_for in (("migrate", "postgres"), ("worker", "rabbitmq")):
        assert services[name]["depends_on"][waited_for] == {"condition": "service_healthy"}


def test_the_worker_is_healthy_as_long_as_it_runs_whatever_the_database_does(services: dict[str, Any]) -> None:
    kind, *command = services["worker"]["healthcheck"]["test"]
    assert (kind, command[0]) == ("CMD", "python")
    argument = services["worker"]["command"][3]
    script = "import sys; print('runs', flush=True); sys.stdin.read()"

    # Given a process with the argument of the worker, and neither a database nor settings
    with subprocess.Popen(
        [sys.executable, "-c", script, argument], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "runs\n"
        done = subprocess.run([sys.executable, *command[1:]], check=False, capture_output=True)
        worker.communicate()

    assert done.returncode == 0, done.stderr


def test_the_worker_may_end_its_tasks_and_publish_before_it_is_killed(services: dict[str, Any]) -> None:
    python, _, module, *arguments = services["worker"]["command"]
    assert (python, module) == ("python", "dramatiq")
    options = make_argument_parser().parse_args(arguments)

    needed_s = options.worker_shutdown_timeout / 1000 + Settings().shutdown_timeout
    assert parse_duration_ms(services["worker"]["stop_grace_period"]) / 1000 > needed_s


def test_no_health_check_asks_the_database(services: dict[str, Any]) -> None:
    asking = ("doctor", "readyz", "check", "tasks", "migrate")
    for name in ("worker", "web"):
        assert not any(word in " ".join(services[name]["healthcheck"]["test"]) for word in asking)


def test_worker_and_web_share_the_blobs_and_the_spool_outlives_the_worker(services: dict[str, Any]) -> None:
    mounts = {name: dict(volume.split(":") for volume in services[name]["volumes"]) for name in ("worker", "web")}

    for name in mounts:
        assert mounts[name]["blobs"] == services[name]["environment"]["DRAMATIQ_DIAG_BLOB_URL"]
    assert mounts["worker"]["spool"] == services["worker"]["environment"]["DRAMATIQ_DIAG_SPOOL_DIR"]


def test_the_web_part_is_open_to_others_only_with_a_token(services: dict[str, Any]) -> None:
    web = services["web"]

    assert web["command"] == ["dramatiq-diag", "serve", "--host", "0.0.0.0"]
    for name in ("DRAMATIQ_DIAG_API_TOKEN", "DRAMATIQ_DIAG_SECRET_KEY"):
        assert web["environment"][name].startswith("${" + name + ":?")
    assert all(port.startswith("127.0.0.1:") for port in web["ports"])


@pytest.mark.parametrize("name", ["migrate", "worker", "web"])
def test_the_environment_of_our_services_is_one_of_settings(
    services: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in services[name]["environment"].items():
        # What Compose puts in: the default where there is one, otherwise what the user has to set.
        monkeypatch.setenv(
            variable, re.sub(r"\$\{\w+:([-?])([^}]*)\}", lambda m: m[2] if m[1] == "-" else "x" * 32, value)
        )

    assert Settings().database.drivername == "postgresql+psycopg"
    assert set(Settings.unknown_variables()) <= {"DRAMATIQ_DIAG_DEMO_BROKER"}


def test_the_image_is_built_of_what_is_in_the_repository_and_runs_as_nobody_special() -> None:
    text = DOCKERFILE.read_text()

    copied = [name for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE) for name in line.split()]
    assert copied
    assert all((ROOT / name).exists() for name in copied)
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(copied) == allowed
    assert re.search(r"^USER (?!root)\w+$", text, re.MULTILINE)
