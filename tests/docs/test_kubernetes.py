"""The manifests in docs/kubernetes: valid for Kubernetes, of settings that exist, and of commands that exist."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest
import yaml
from dramatiq.cli import make_argument_parser

from dramatiq_diag import Settings
from dramatiq_diag.cli import main
from dramatiq_diag.web.server import DEFAULT_PORT
from support import ROOT

DIRECTORY = ROOT / "docs" / "kubernetes"
#: The oldest version that the manifests are meant for, and the newest that the schemas are there for.
VERSIONS = ("1.28", kubernetes_validate.latest_version())
CLOUD = re.compile(r"AWS_(REGION|ACCESS_KEY_ID|SECRET_ACCESS_KEY|ENDPOINT_URL)")
KUSTOMIZATION = DIRECTORY / "kustomization.yaml"

DOCUMENTS = {
    f"{document['kind']}/{document['metadata']['name']}": document
    for path in sorted(DIRECTORY.glob("*.yaml"))
    if path != KUSTOMIZATION
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
}


def pod(name: str) -> dict[str, Any]:
    """The specification of the pods of a document."""
    spec = DOCUMENTS[name]["spec"]
    spec = spec.get("jobTemplate", {}).get("spec", spec)
    found: dict[str, Any] = spec["template"]["spec"]
    return found


def container(name: str) -> dict[str, Any]:
    [found] = pod(name)["containers"]
    return dict(found)


def environment(name: str) -> dict[str, str]:
    """The variables of a container; a secret has what its template says."""
    variables: dict[str, str] = {}
    for source in container(name)["envFrom"]:
        if "configMapRef" in source:
            variables |= DOCUMENTS[f"ConfigMap/{source['configMapRef']['name']}"]["data"]
        else:
            variables |= DOCUMENTS[f"Secret/{source['secretRef']['name']}"]["stringData"]
    return variables


PODS = [name for name in DOCUMENTS if re.match("(Deployment|Job|CronJob)/", name)]
each_pod = pytest.mark.parametrize("name", PODS)


def test_there_are_workers_a_web_part_a_migration_and_a_cleanup() -> None:
    assert sorted(PODS) == [
        "CronJob/dramatiq-diag-cleanup",
        "Deployment/dramatiq-diag-web",
        "Deployment/worker",
        "Job/dramatiq-diag-migrate",
    ]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_manifest_is_one_that_kubernetes_takes(name: str, version: str) -> None:
    kubernetes_validate.validate(DOCUMENTS[name], version, strict=True)


def test_the_schemas_refuse_a_field_that_does_not_exist() -> None:
    wrong = copy.deepcopy(DOCUMENTS["Deployment/dramatiq-diag-web"])
    [of_web] = wrong["spec"]["template"]["spec"]["containers"]
    of_web["readinessProb"] = of_web.pop("readinessProbe")

    with pytest.raises(kubernetes_validate.ValidationError, match="readinessProb"):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def test_the_kustomization_has_every_manifest_and_sets_every_image() -> None:
    text = KUSTOMIZATION.read_text(encoding="utf-8")
    document = yaml.safe_load(text)
    optional = re.findall(r"^  # - (\S+\.yaml)\b", text, re.MULTILINE)

    files = sorted(path.name for path in DIRECTORY.glob("*.yaml") if path != KUSTOMIZATION)
    assert sorted([*document["resources"], *optional]) == files
    assert optional == ["cleanup.yaml"]
    assert {image["name"] for image in document["images"]} == {container(name)["image"] for name in PODS}


def test_no_manifest_names_a_namespace() -> None:
    assert [name for name, document in DOCUMENTS.items() if "namespace" in document["metadata"]] == []


# Settings.


@each_pod
def test_the_environment_is_one_of_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {key: value for key, value in environment(name).items() if not CLOUD.fullmatch(key)}
    for variable, value in variables.items():
        assert variable.startswith(("DRAMATIQ_DIAG_", "TASK_DIAGNOSTICS"))
        monkeypatch.setenv(variable, value.replace("CHANGE-ME", "x" * 32))

    assert Settings.unknown_variables() == []
    assert Settings().database.drivername == "postgresql+psycopg"


@each_pod
def test_kubernetes_adds_no_variables_that_look_like_settings(name: str) -> None:
    assert pod(name)["enableServiceLinks"] is False


def test_the_web_part_refuses_the_token_and_the_key_of_the_template(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("DRAMATIQ_DIAG_API_TOKEN", "DRAMATIQ_DIAG_SECRET_KEY"):
        with monkeypatch.context() as patch:
            patch.setenv(variable, environment("Deployment/dramatiq-diag-web")[variable])
            with pytest.raises(ValueError, match=variable):
                Settings()


def test_only_the_web_part_gets_the_token() -> None:
    assert [name for name in PODS if "DRAMATIQ_DIAG_API_TOKEN" in environment(name)] == ["Deployment/dramatiq-diag-web"]


# Commands.


@pytest.mark.parametrize("name", [name for name in PODS if name != "Deployment/worker"])
def test_a_command_exists_with_its_options(name: str) -> None:
    program, *arguments = container(name)["command"]
    assert program == "dramatiq-diag"
    with main.make_context(program, [*arguments]) as context:
        _, command, rest = main.resolve_command(context, arguments)
        assert command is not None
        command.make_context(arguments[0], rest, parent=context).close()


def test_the_workers_may_end_their_tasks_and_publish_before_they_are_killed() -> None:
    python, _, module, *arguments = container("Deployment/worker")["command"]
    assert (python, module) == ("python", "dramatiq")
    options = make_argument_parser().parse_args(arguments)
    assert options.broker == "app"

    publishing_s = Settings(shutdown_timeout=environment("Deployment/worker")["DRAMATIQ_DIAG_SHUTDOWN_TIMEOUT"])
    needed_s = options.worker_shutdown_timeout / 1000 + publishing_s.shutdown_timeout
    assert pod("Deployment/worker")["terminationGracePeriodSeconds"] > needed_s


# Volumes and rights.


@each_pod
def test_a_pod_needs_no_right_and_writes_to_its_volumes_alone(name: str) -> None:
    of_pod, of_container = pod(name)["securityContext"], container(name)["securityContext"]
    assert of_pod["runAsNonRoot"] is True
    # Files of the emptyDir belong to the group: a user of the image alone could not write there.
    assert of_pod["runAsUser"] == of_pod["runAsGroup"] == of_pod["fsGroup"] == 10001
    assert of_container == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounted = {mount["name"]: mount["mountPath"] for mount in container(name)["volumeMounts"]}
    assert {volume["name"] for volume in pod(name)["volumes"]} == mounted.keys()
    assert all(volume["emptyDir"]["sizeLimit"] for volume in pod(name)["volumes"])
    # The mount point itself belongs to root: the data directory is one in it.
    assert environment(name)["DRAMATIQ_DIAG_DATA_DIR"].startswith(f"{mounted['data']}/")
    assert mounted["tmp"] == "/tmp"


def test_the_image_has_the_user_of_the_pods() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^USER 10001$", text, re.MULTILINE)  # By number: the kubelet cannot verify a name.
    assert "--uid 10001" in text


def test_a_full_spool_declines_diagnostics_before_the_pod_is_evicted() -> None:
    settings = Settings(spool_max_bytes=environment("Deployment/worker")["DRAMATIQ_DIAG_SPOOL_MAX_BYTES"])
    [data] = [volume for volume in pod("Deployment/worker")["volumes"] if volume["name"] == "data"]
    assert settings.spool_max_bytes < int(data["emptyDir"]["sizeLimit"].removesuffix("Gi")) * 1024**3


# Probes.


def probes() -> Iterator[tuple[str, dict[str, Any]]]:
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        yield kind, container("Deployment/dramatiq-diag-web")[kind]


def test_the_probes_ask_routes_that_need_no_token_and_wait_long_enough() -> None:
    asked = {kind: probe["httpGet"]["path"] for kind, probe in probes()}
    assert asked == {"startupProbe": "/healthz", "readinessProbe": "/readyz", "livenessProbe": "/healthz"}
    [port] = container("Deployment/dramatiq-diag-web")["ports"]
    assert (port["name"], port["containerPort"]) == ("http", DEFAULT_PORT)
    assert {probe["httpGet"]["port"] for _, probe in probes()} == {port["name"]}
    assert dict(probes())["readinessProbe"]["timeoutSeconds"] > 4


def test_a_web_part_gets_no_requests_long_before_it_is_started_again() -> None:
    after_s = {kind: probe["periodSeconds"] * probe["failureThreshold"] for kind, probe in probes()}
    assert after_s["livenessProbe"] >= after_s["readinessProbe"] + 60


def test_the_service_leads_to_the_web_part() -> None:
    service = DOCUMENTS["Service/dramatiq-diag-web"]["spec"]
    labels = DOCUMENTS["Deployment/dramatiq-diag-web"]["spec"]["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()
    assert service["ports"] == [{"name": "http", "port": 80, "targetPort": "http"}]
    others = [name for name in PODS if name != "Deployment/dramatiq-diag-web"]
    for name in others:
        spec = DOCUMENTS[name]["spec"]
        found = spec.get("jobTemplate", {}).get("spec", spec)["template"]["metadata"]["labels"]
        assert not service["selector"].items() <= found.items()
