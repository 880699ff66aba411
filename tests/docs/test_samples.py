"""Every sample of the README and of the documentation: code is checked, commands and settings exist."""

from __future__ import annotations

import configparser
import dataclasses
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from apscheduler.triggers.cron import CronTrigger

from dramatiq_diag.cli import main
from dramatiq_diag.reports.formats import FORMATS
from dramatiq_diag.settings import Settings
from support import ROOT, missing
from support.samples import PAGES, SAMPLES, Sample, sample_of

#: Each kind but `text` is read by a test; that of `nginx` is tests/web/test_documented_servers.py.
_KINDS = {"python", "console", "json", "toml", "yaml", "http", "cron", "gnuplot", "nginx", "text"}
#: Samples that a test executes instead: test_django.py, as its answer to WSGI is shorter than the types want it, and
#: test_documented_servers.py, as the types of a2wsgi are not those of Starlette.
_EXECUTED = {"urls.py", "main.py"}
#: Options of `strict` that hold for the package, and not for a sample.
_STRICT_OPTIONS = (
    "disallow_any_generics",
    "disallow_incomplete_defs",
    "disallow_subclassing_any",
    "disallow_untyped_calls",
    "disallow_untyped_decorators",
    "disallow_untyped_defs",
    "strict_equality",
    "warn_return_any",
    "warn_unused_ignores",
)
#: Variables that this package reads besides its settings.
_FURTHER_VARIABLES = {"DRAMATIQ_DIAG_DEMO_BROKER"}


def of_kind(kind: str) -> Any:
    found = [sample for sample in SAMPLES if sample.kind == kind]
    return pytest.mark.parametrize("sample", found, ids=map(str, found))


def commands_of(text: str) -> Iterator[list[str]]:
    """Yields the words of each command that a console sample types at its prompt, without variables before it."""
    typed = [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]
    for line in typed:
        for part in re.split(r"\s[|&]+\s*|\s&$", line):
            words = shlex.split(part, comments=True)
            while words and re.match(r"[A-Z_]+=", words[0]):
                words.pop(0)
            if words:
                yield words


def diag_commands(text: str) -> list[list[str]]:
    return [words[1:] for words in commands_of(text) if words[0] == "dramatiq-diag"]


def parse(arguments: list[str]) -> None:
    """Parses a command line as the command would, and executes nothing. Raises: click.ClickException."""
    with main.make_context("dramatiq-diag", list(arguments)) as context:
        name, command, rest = main.resolve_command(context, arguments)
        assert command is not None
        command.make_context(name, rest, parent=context).close()


def test_there_are_samples_of_each_kind() -> None:
    assert {sample.kind for sample in SAMPLES} == _KINDS
    assert len(SAMPLES) > 40


def test_each_sample_names_its_language() -> None:
    assert [f"{sample}: {sample.kind!r}" for sample in SAMPLES if sample.kind not in _KINDS] == []


def test_the_python_samples_pass_the_type_checker(tmp_path: Path) -> None:
    found = [sample for sample in SAMPLES if sample.kind == "python"]
    for sample in found:
        named = re.match(r"# (?P<name>\w+\.py)\b", sample.text)
        if named and named["name"] in _EXECUTED:
            continue
        default = f"{Path(sample.page).stem.lower().replace('-', '_')}_{sample.line}.py"
        path = tmp_path / (named["name"] if named else default)
        assert not path.exists(), f"Two samples are called {path.name}."
        path.write_text(sample.text, encoding="utf-8")

    done = _check_types(tmp_path)

    assert done.stdout + done.stderr == ""
    assert done.returncode == 0


def test_the_type_checker_of_the_samples_finds_a_wrong_one(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text("from dramatiq_diag import Diagnostics\nDiagnostics(nosuch=1)\n")

    assert "nosuch" in _check_types(tmp_path).stdout


def _check_types(directory: Path) -> subprocess.CompletedProcess[str]:
    """Checks the modules of a directory, by the options of the package, so that `make types` has filled the cache.

    For the samples alone they are relaxed: a sample has few annotations, and imports what may not be installed.
    """
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    shared = {name: options[name] for name in ("strict", "python_version")}
    shared["untyped_calls_exclude"] = ",".join(options["untyped_calls_exclude"])
    relaxed = dict.fromkeys(_STRICT_OPTIONS, False) | {"implicit_reexport": True}
    relaxed["disable_error_code"] = "import-not-found,import-untyped,method-assign"
    modules = "mypy-" + ",".join(path.stem for path in directory.glob("*.py"))
    config = configparser.ConfigParser()
    config.read_dict({"mypy": shared, modules: relaxed})
    with (directory / "mypy.ini").open("w") as file:
        config.write(file)
    command = [sys.executable, "-m", "mypy", "--config-file", str(directory / "mypy.ini"), "--no-error-summary"]
    return subprocess.run([*command, str(directory)], cwd=ROOT, capture_output=True, text=True)


def test_the_collector_of_the_documentation_keeps_the_contract(tmp_path: Path) -> None:
    pages = [sample.text for sample in SAMPLES if (sample.page, sample.kind) == ("docs/collectors.md", "python")]
    collector, contract = pages
    (tmp_path / "gc_counts.py").write_text(collector, encoding="utf-8")
    (tmp_path / "test_gc_counts.py").write_text(contract, encoding="utf-8")

    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout
    assert re.search(r"^1\d passed", done.stdout, re.MULTILINE), done.stdout


def test_the_test_of_the_documentation_passes(tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    exec(sample_of("docs/integrations.md", "python", "# test_word_count.py"), names)

    names["test_the_memory_of_a_task_is_measured"](tmp_path)


@of_kind("json")
def test_a_json_sample_parses(sample: Sample) -> None:
    assert json.loads(sample.text)


@of_kind("toml")
def test_a_toml_sample_parses(sample: Sample) -> None:
    assert tomllib.loads(sample.text)


@of_kind("yaml")
def test_a_yaml_sample_parses(sample: Sample) -> None:
    assert list(yaml.safe_load_all(sample.text))


@of_kind("cron")
def test_a_line_of_a_crontab_has_a_time_and_a_command(sample: Sample) -> None:
    commands = []
    for line in sample.text.splitlines():
        if line.startswith("#") or re.match(r"[A-Z_]+=\S+$", line):
            continue
        *moment, command = line.split(maxsplit=5)
        assert CronTrigger.from_crontab(" ".join(moment))  # It refuses a wrong number of fields, and wrong fields.
        assert "%" not in command  # It ends the command in a crontab.
        commands.append(command)

    assert commands
    for command in commands:
        path, *arguments = shlex.split(command)
        assert Path(path).name == "dramatiq-diag"
        parse(arguments)


@of_kind("gnuplot")
def test_gnuplot_draws_what_a_sample_says(sample: Sample, tmp_path: Path) -> None:
    if shutil.which("gnuplot") is None:
        missing("gnuplot is not installed", "On Debian: apt-get install gnuplot-nox")
    (tmp_path / "memory.datum").write_text("0.0 31.5\n2.0 120.25\n4.0 88.0\n")

    done = subprocess.run(
        ["gnuplot"], input=f"set terminal svg\n{sample.text}", cwd=tmp_path, capture_output=True, text=True
    )

    assert (done.returncode, done.stderr) == (0, "")
    for label in re.findall(r'set [xy]label "(.*)"', sample.text):
        assert label in done.stdout


@of_kind("console")
def test_the_commands_of_a_console_sample_exist_with_their_options(sample: Sample) -> None:
    for arguments in diag_commands(sample.text):
        parse(arguments)


@of_kind("console")
def test_the_make_targets_of_a_console_sample_exist(sample: Sample) -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)

    used = [words[1] for words in commands_of(sample.text) if words[0] == "make" and len(words) > 1]

    assert [target for target in used if "=" not in target and target not in targets] == []


def test_a_command_that_does_not_exist_is_found() -> None:
    with pytest.raises(click.UsageError):
        parse(["tasks", "--nosuch"])
    with pytest.raises(click.UsageError):
        parse(["nosuch"])
    with pytest.raises(click.UsageError):
        parse(["show"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_in_the_text_exist_with_their_options(page: Path) -> None:
    for text in re.findall(r"`dramatiq-diag ([^`]+)`", page.read_text(encoding="utf-8")):
        name, *words = shlex.split(text)
        command = main.commands[name]
        options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert [word for word in words if word.startswith("-") and word not in options] == [], text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_variables_that_a_page_names_are_settings(page: Path) -> None:
    known = {Settings.variable(field.name) for field in dataclasses.fields(Settings)} | _FURTHER_VARIABLES
    used = re.findall(r"\b(?:DRAMATIQ_DIAG_[A-Z_]+[A-Z]|TASK_DIAGNOSTICS\w*)\b", page.read_text(encoding="utf-8"))

    assert sorted(set(used) - known) == []


#: The pages that are written by hand, but for the measurements.
_BY_HAND = [page for page in PAGES if page.name not in ("settings.md", "cli.md", "benchmarks.md", "CONTRIBUTING.md")]


def test_a_page_by_hand_tells_of_each_setting_and_each_command() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in _BY_HAND)

    variables = [Settings.variable(field.name) for field in dataclasses.fields(Settings)]
    assert [variable for variable in variables if not re.search(rf"\b{variable}\b", text)] == []
    assert [name for name in main.commands if f"dramatiq-diag {name}" not in text] == []


def test_the_pages_of_http_tell_of_each_route_and_each_parameter(paths: dict[str, dict[str, Any]]) -> None:
    pages = (ROOT / "docs" / name for name in ("http.md", "captures.md", "attach.md"))
    text = re.sub(r"<[^>]*>", "{}", "\n".join(page.read_text(encoding="utf-8") for page in pages))

    for path, item in paths.items():
        if "/forms/" in path:
            continue
        plain = re.sub(r"{[^}]*}", "{}", path)
        for method in item.keys() & {"get", "post", "put", "delete"}:
            assert re.search(rf"^{method.upper()} +{re.escape(plain)}(\?| |$)", text, re.MULTILINE), (method, path)
            queries = [
                parameter["name"] for parameter in item[method].get("parameters", ()) if parameter["in"] == "query"
            ]
            assert [name for name in queries if not re.search(rf"[?&]{name}=|`{name}`", text)] == [], path


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_the_links_of_a_page_outside_the_site_lead_somewhere(name: str) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", (ROOT / name).read_text(encoding="utf-8"))
    local = [target for target in targets if not re.match(r"https?://", target)]

    for target in local:
        path, _, anchor = target.partition("#")
        text = (ROOT / path).read_bytes()
        if anchor:
            headings = re.findall(r"^#+ (.+)$", text.decode(), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings], target


@of_kind("http")
def test_the_routes_of_a_sample_exist(sample: Sample, routes: set[tuple[str, str]]) -> None:
    text = re.sub(r"<[^>]*>", "{}", sample.text)
    named = re.findall(r"^(GET|POST|PUT|DELETE)\s+(/[^\s?]*)", text, re.MULTILINE)

    assert named
    assert sorted(set(named) - routes) == []


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The part `paths` of the OpenAPI document."""
    testing = pytest.importorskip("falcon.testing")
    from dramatiq_diag.web import create_app

    client = testing.TestClient(create_app(Settings(data_dir=tmp_path_factory.mktemp("data")), insecure=True))
    found: dict[str, dict[str, Any]] = client.simulate_get("/openapi.json", headers={"Host": "localhost"}).json["paths"]
    return found


@pytest.fixture(scope="module")
def routes(paths: dict[str, dict[str, Any]]) -> set[tuple[str, str]]:
    """Method and path of each route that the web part describes."""
    described = {(method.upper(), re.sub(r"{[^}]*}", "{}", path)) for path, item in paths.items() for method in item}
    return described | {("GET", "/openapi.json")}


def test_the_page_of_the_routes_names_every_format_of_a_report() -> None:
    text = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+_(?:profile|accounting))` \| (.*) \|$", text, re.MULTILINE))
    named = {artifact: set(re.findall(r"`([\w-]+)`", cell)) for artifact, cell in rows.items()}
    of_thread = {"flamegraph", "table", "tree", "summary"}
    suffixes = named["memray_profile"] & {"-process", "-leaks", "-process-leaks"}
    named["memray_profile"] = (named["memray_profile"] - suffixes) | {a + b for a in of_thread for b in suffixes}

    assert named == {
        artifact: {*FORMATS[stored]}
        for artifact, stored in {
            "memory_profile": "memory.datum",
            "pyinstrument_profile": "pyinstrument.session.json",
            "memray_profile": "memray.bin",
            "resources_profile": "resources.csv",
            "time_accounting": "accounting.json",
        }.items()
    }
