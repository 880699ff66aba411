"""Finds the release of the application: the setting, a variable of its deployment, or the commit of its checkout."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

from ..text import printable
from .readers import MAX_RELEASE_LENGTH

#: Variables that name a release or a commit, as tools and platforms set them. The first one that is set counts.
DEPLOYMENT_VARIABLES = (
    "SENTRY_RELEASE",
    "DD_VERSION",
    "HEROKU_SLUG_COMMIT",
    "HEROKU_BUILD_COMMIT",
    "RENDER_GIT_COMMIT",
    "RAILWAY_GIT_COMMIT_SHA",
    "CODEBUILD_RESOLVED_SOURCE_VERSION",
    "CIRCLE_SHA1",
    "CI_COMMIT_SHA",
    "GITHUB_SHA",
    "GIT_COMMIT",
    "COMMIT_SHA",
    "SOURCE_VERSION",
    "SOURCE_COMMIT",
    "GAE_VERSION",
    "K_REVISION",
)

#: OpenTelemetry's variable of attributes, and the one among them that names the release.
_ATTRIBUTES_VARIABLE, _VERSION_ATTRIBUTE = "OTEL_RESOURCE_ATTRIBUTES", "service.version"

#: What git writes: the id of a commit, and the name of a branch in place of one.
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_BRANCH = re.compile(r"ref: (refs/(?!.*\.\.).+)")

#: The digits of a commit that a release has.
_COMMIT_DIGITS = 12

#: The most characters that are read of one of git's small files.
_MAX_LENGTH = 1000


def find_release(given: str | None) -> str | None:
    """Returns: The release of the application that this process runs; None where nothing tells.

    It reads files, so only worker processes call it, when they boot.

    Parameters:
      given: The setting.
    """
    return given or _of_deployment() or _commit_of_working_directory()


def _of_deployment() -> str | None:
    values = [os.environ.get(name, "") for name in DEPLOYMENT_VARIABLES]
    pairs = (pair.partition("=") for pair in os.environ.get(_ATTRIBUTES_VARIABLE, "").split(","))
    values += [unquote(value) for name, _, value in pairs if name.strip() == _VERSION_ATTRIBUTE]
    return next(filter(None, (printable(value.strip())[:MAX_RELEASE_LENGTH] for value in values)), None)


def _commit_of_working_directory() -> str | None:
    """Returns: The commit of the checkout that the working directory is in; None without one.

    Git itself is not asked: most containers lack it, and it refuses the checkout of another user.
    """
    try:
        here = Path.cwd()
        found = next((path for path in (here, *here.parents) if (path / ".git").exists()), None)
        commit = None if found is None else _commit(found / ".git")
    except (OSError, ValueError):  # The files may contain anything: no text, or a path that no system takes.
        return None
    return None if commit is None else commit[:_COMMIT_DIGITS]


def _commit(git: Path) -> str | None:
    """Returns: The commit that is checked out. Raises: OSError, ValueError."""
    if git.is_file():  # Of a further work tree, or of a submodule.
        git = git.parent / _line(git).removeprefix("gitdir: ")
    head = _line(git / "HEAD")
    branch = _BRANCH.fullmatch(head)
    if branch is None:
        return head if _COMMIT.fullmatch(head) else None
    common = git / _line(git / "commondir") if (git / "commondir").exists() else git
    if (common / branch[1]).is_file():
        commit = _line(common / branch[1])
        return commit if _COMMIT.fullmatch(commit) else None
    if not (common / "packed-refs").is_file():  # It has no commit yet, or keeps its branches in another format.
        return None
    with (common / "packed-refs").open(encoding="utf-8") as packed:
        pairs = (line.split() for line in packed)
        return next((pair[0] for pair in pairs if pair[1:] == [branch[1]] and _COMMIT.fullmatch(pair[0])), None)


def _line(file: Path) -> str:
    with file.open(encoding="utf-8") as opened:
        return opened.read(_MAX_LENGTH).strip()
