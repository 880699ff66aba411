"""Reads the URLs of requests: the path where the app is mounted, and the requested task."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, unquote

import falcon

#: The segments that may follow a task.
TASK_PARTS = ("profile_artifacts", "stacks", "live", "attachments")


@dataclass(frozen=True, kw_only=True)
class TaskPath:
    """What stands in a URL behind `/tasks/`."""

    task_id: str
    part: str = ""
    "The one of `TASK_PARTS` that follows the task; empty where none does."


def base_url(req: falcon.Request) -> str:
    """Returns: Scheme, host and mount point of the app, as the client named them."""
    return f"{req.scheme}://{req.netloc}{mount_path(req)}"


def mount_path(req: falcon.Request) -> str:
    """Returns: The path that the app is mounted at, quoted, without a slash at its end."""
    return quote(_mount(req))


def task_path(req: falcon.Request, path: str) -> TaskPath:
    """Reads the requested task, whose id may contain slashes.

    A WSGI server decodes the path, so `a%2Fb` and `a/b` are the same. waitress and gunicorn also give the raw URI,
    which is exact; without it, the last segment decides.

    Parameters:
      path: The decoded path behind `/tasks/`, without a slash at its end.
    """
    exact = _raw_task_path(req, path)
    if exact is not None:
        return exact
    task_id, slash, last = path.rpartition("/")
    if slash and last in TASK_PARTS:
        return TaskPath(task_id=task_id, part=last)
    return TaskPath(task_id=path)


def _raw_task_path(req: falcon.Request, path: str) -> TaskPath | None:
    raw: str = req.env.get("REQUEST_URI") or req.env.get("RAW_URI") or ""
    mount_length = _mount(req).count(b"/") + 1
    segments = raw.partition("?")[0].split("/")
    tail = segments[mount_length + 1 :]
    if len(tail) > 1 and not tail[-1]:
        tail.pop()
    if unquote("/".join(tail)).rstrip("/") != path.rstrip("/"):  # A proxy or middleware has rewritten the path.
        return None
    if len(tail) == 1:
        return TaskPath(task_id=unquote(tail[0]))
    if len(tail) == 2 and tail[1] in TASK_PARTS:
        return TaskPath(task_id=unquote(tail[0]), part=tail[1])
    return None


def _mount(req: falcon.Request) -> bytes:
    mount: str = req.env.get("SCRIPT_NAME", "")
    return mount.encode("latin-1", "replace").rstrip(b"/")  # WSGI decodes the bytes of a path as Latin-1.
