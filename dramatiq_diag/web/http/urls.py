"""What a request's URL says: where the app is mounted, and which task is meant."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, unquote

import falcon

_ARTIFACTS = "profile_artifacts"


@dataclass(frozen=True, kw_only=True)
class TaskPath:
    """What follows `/tasks/` in a URL."""

    task_id: str
    wants_artifacts: bool
    "Whether `profile_artifacts` of the task is meant, and not the task itself."


def base_url(req: falcon.Request) -> str:
    """Returns: Scheme, host and mount point of the app, as the client named them."""
    return f"{req.scheme}://{req.netloc}{mount_path(req)}"


def mount_path(req: falcon.Request) -> str:
    """Returns: The path that the app is mounted at, quoted, without a slash at its end."""
    return quote(_mount(req))


def task_path(req: falcon.Request, path: str) -> TaskPath:
    """Reads which task is meant, when its id may have slashes.

    A WSGI server hands the path over decoded, so `a%2Fb` and `a/b` are one. Where it gives the raw URI as well, as
    waitress and gunicorn do, that one is exact; otherwise the last segment decides.

    Parameters:
      path: What follows `/tasks/`, decoded, without a slash at its end.
    """
    exact = _raw_task_path(req, path)
    if exact is not None:
        return exact
    task_id, slash, last = path.rpartition("/")
    if slash and last == _ARTIFACTS:
        return TaskPath(task_id=task_id, wants_artifacts=True)
    return TaskPath(task_id=path, wants_artifacts=False)


def _raw_task_path(req: falcon.Request, path: str) -> TaskPath | None:
    raw: str = req.env.get("REQUEST_URI") or req.env.get("RAW_URI") or ""
    mount_length = _mount(req).count(b"/") + 1
    segments = raw.partition("?")[0].split("/")
    tail = segments[mount_length + 1 :]
    if len(tail) > 1 and not tail[-1]:
        tail.pop()
    if unquote("/".join(tail)).rstrip("/") != path.rstrip("/"):  # Something rewrote the path on its way.
        return None
    if len(tail) == 1:
        return TaskPath(task_id=unquote(tail[0]), wants_artifacts=False)
    if len(tail) == 2 and tail[1] == _ARTIFACTS:
        return TaskPath(task_id=unquote(tail[0]), wants_artifacts=True)
    return None


def _mount(req: falcon.Request) -> bytes:
    mount: str = req.env.get("SCRIPT_NAME", "")
    return mount.encode("latin-1", "replace").rstrip(b"/")  # WSGI has the path's bytes as if they were Latin-1.
