"""Every sample of the README and of the documentation: code is checked, commands and settings exist."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from dramatiq_diag.cli import main
from dramatiq_diag.reports.formats import FORMATS
from dramatiq_diag.settings import Settings
from support import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
#: Kinds of samples that no program here reads.
_UNREAD = {"text", "ini", "nginx", "gnuplot", "cron"}
_KINDS = {"python", "console", "json", "toml", "yaml", "http"} | _UNREAD
#: Samples that a test executes instead (test_django.py), as its answer to WSGI is shorter than the types want it.
_EXECUTED = {"urls.py"}
#: Variables that this package reads besides its settings.
_FURTHER_VARIABLES = {"DRAMATIQ_DIAG_DEMO_BROKER"}


@dataclass(frozen=True)
class Sample:
    page: str
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def samples_of(page: Path) -> Iterator[Sample]:
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(r"^```(?P<kind>\S*)\n(?P<text>.*?)^```$", text, re.DOTALL | re.MULTILINE):
        line = text.count("\n", 0, match.start()) + 1
        yield Sample(str(page.relative_to(ROOT)), line, match["kind"], match["text"])


SAMPLES = [sample for page in PAGES for sample in samples_of(page)]


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
    assert {sample.kind for sample in SAMPLES} >= {"python", "console", "json", "toml", "yaml", "http"}
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

    options = ["--check-untyped-defs", "--ignore-missing-imports", "--follow-imports=silent", "--no-error-summary"]
    options += ["--disable-error-code=method-assign", "--cache-dir", str(ROOT / ".mypy_cache" / "samples")]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=", *options, "."], cwd=tmp_path, capture_output=True, text=True
    )

    assert done.stdout + done.stderr == ""
    assert done.returncode == 0


def test_the_type_checker_of_the_samples_finds_a_wrong_one(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text("from dramatiq_diag import Diagnostics\nDiagnostics(nosuch=1)\n")

    cache = str(ROOT / ".mypy_cache" / "samples")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=", "--follow-imports=silent", "--cache-dir", cache, "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )

    assert "nosuch" in done.stdout


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


@of_kind("json")
def test_a_json_sample_parses(sample: Sample) -> None:
    assert json.loads(sample.text)


@of_kind("toml")
def test_a_toml_sample_parses(sample: Sample) -> None:
    assert tomllib.loads(sample.text)


@of_kind("yaml")
def test_a_yaml_sample_parses(sample: Sample) -> None:
    assert list(yaml.safe_load_all(sample.text))


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
def routes(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str]]:
    """Method and path of each route that the web part describes."""
    testing = pytest.importorskip("falcon.testing")
    from dramatiq_diag.web import create_app

    client = testing.TestClient(create_app(Settings(data_dir=tmp_path_factory.mktemp("data")), insecure=True))
    paths = client.simulate_get("/openapi.json", headers={"Host": "localhost"}).json["paths"]
    described = {(method.upper(), re.sub(r"{[^}]*}", "{}", path)) for path, item in paths.items() for method in item}
    return described | {("GET", "/openapi.json")}


def test_the_page_of_the_routes_names_every_format_of_a_report() -> None:
    text = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", text, re.MULTILINE))
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
        }.items()
    }
