"""The release of the application: the setting, the variables of deployments, and the commit of a checkout."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from dramatiq_diag.errors import SettingsError
from dramatiq_diag.settings import Settings
from dramatiq_diag.settings.release import DEPLOYMENT_VARIABLES, find_release
from support import missing

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment without a deployment, and a working directory without a checkout."""
    for name in (*DEPLOYMENT_VARIABLES, "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_nothing_tells_the_release() -> None:
    assert find_release(None) is None


def test_the_setting_comes_first_then_a_deployment_then_git(monkeypatch: pytest.MonkeyPatch, nowhere: Path) -> None:
    (nowhere / ".git").mkdir()
    (nowhere / ".git/HEAD").write_text(COMMIT + "\n")
    assert find_release(None) == "0123456789ab"

    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=shop,service.version=2%2E1,x")
    assert find_release(None) == "2.1"

    monkeypatch.setenv("GIT_COMMIT", COMMIT)
    assert find_release(None) == COMMIT

    monkeypatch.setenv("SENTRY_RELEASE", "  shop@2.1 \n")
    assert find_release(None) == "shop@2.1"

    monkeypatch.setenv("DRAMATIQ_DIAG_RELEASE", "v7")
    assert find_release(Settings().release) == "v7"


def test_a_variable_that_is_blank_tells_nothing_and_a_long_one_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENTRY_RELEASE", "  ")
    monkeypatch.setenv("DD_VERSION", "a\x1b[31m" + "x" * 1000)

    assert find_release(None) == "a\ufffd[31m" + "x" * 194


@pytest.mark.parametrize("value", ["", " ", "a\nb", "x" * 201, 7])
def test_a_setting_that_is_no_release_is_refused(value: object) -> None:
    with pytest.raises(SettingsError, match="DRAMATIQ_DIAG_RELEASE"):
        Settings(release=value)


def test_the_commit_is_the_one_that_git_says(monkeypatch: pytest.MonkeyPatch, nowhere: Path) -> None:
    if shutil.which("git") is None:
        missing("git is not installed", "On Debian: apt-get install git")

    def git(*arguments: str, place: Path = nowhere) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "init.defaultBranch=main")
        command = ["git", *identity, *arguments]
        return subprocess.run(command, cwd=place, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet")
    assert find_release(None) is None  # There is no commit yet.

    git("commit", "--quiet", "--allow-empty", "--message", "first")
    first = git("rev-parse", "HEAD")
    assert find_release(None) == first[:12]

    git("pack-refs", "--all")
    assert not (nowhere / ".git/refs/heads/main").exists()
    assert find_release(None) == first[:12]

    git("checkout", "--quiet", "-b", "topic/x")
    git("commit", "--quiet", "--allow-empty", "--message", "second")
    second = git("rev-parse", "HEAD")
    git("worktree", "add", "--quiet", str(nowhere / "other"), "main")
    (nowhere / "below").mkdir()
    monkeypatch.chdir(nowhere / "below")
    assert find_release(None) == second[:12]
    monkeypatch.chdir(nowhere / "other")
    assert find_release(None) == first[:12]

    git("checkout", "--quiet", "--detach", "topic/x", place=nowhere / "other")
    assert find_release(None) == second[:12]


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"HEAD": "no commit"},
        {"HEAD": "ref: refs/heads/main"},
        {"HEAD": "ref: refs/../../secret"},
        {"HEAD": "ref: refs/heads/main", "refs/heads/main": "0123"},
        {"HEAD": "ref: refs/heads/main", "packed-refs": f"# pack\n{COMMIT} refs/heads/main2\n0123 refs/heads/main\n\n"},
        {"HEAD": "\udcff"},
        {"HEAD": "ref: refs/heads/\0"},
    ],
)
def test_a_checkout_that_cannot_be_read_tells_nothing(nowhere: Path, files: dict[str, str]) -> None:
    (nowhere / "secret").write_text(COMMIT)
    (nowhere / ".git").mkdir()
    for name, content in files.items():
        (nowhere / ".git" / name).parent.mkdir(parents=True, exist_ok=True)
        (nowhere / ".git" / name).write_bytes(content.encode("utf-8", "surrogateescape"))

    assert find_release(None) is None


def test_a_link_to_a_checkout_that_is_no_path_tells_nothing(nowhere: Path) -> None:
    (nowhere / ".git").write_bytes(b"gitdir: \0")

    assert find_release(None) is None
