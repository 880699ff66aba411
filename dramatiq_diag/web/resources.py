"""Runs and artifacts as JSON: parameter in, document out."""

from __future__ import annotations

import re

import falcon

from ..documents import artifacts_document, runs_document, task_document
from ..models import RunStatus
from ..records import RunFilter
from .backend import Backend
from .urls import TaskPath, task_path

#: Runs on a page of the list.
_DEFAULT_LIMIT = 50
_MAX_LIMIT = 1000
#: Far beyond any number of attempts, and well within what can be compared.
_MAX_ATTEMPT = 10**18
_WHOLE_NUMBER = re.compile(r"[0-9]{1,19}")


class HealthResource:
    """Whether the server answers; asks nothing of the store."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.media = {"status": "ok"}

    on_head = on_get


class TaskListResource:
    """The runs of all tasks, newest first, in pages."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        wanted = RunFilter(
            actor_name=_text(req, "actor"),
            queue_name=_text(req, "queue"),
            status=_status(req),
        )
        limit = _number(req, "limit", _MAX_LIMIT)
        with self._backend.session() as session:
            try:
                resp.media = runs_document(session, wanted, limit or _DEFAULT_LIMIT, _text(req, "cursor"))
            except ValueError as error:
                raise falcon.HTTPBadRequest(
                    description="`cursor` is not one that a list of runs gave as `next`."
                ) from error

    on_head = on_get


class TaskResource:
    """One task: its runs, or the artifacts of one of them."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def on_get(self, req: falcon.Request, resp: falcon.Response, path: str) -> None:
        wanted = task_path(req, path)
        if wanted.wants_artifacts:
            self._answer_artifacts(req, resp, wanted)
        else:
            self._answer_task(resp, wanted)

    on_head = on_get

    def _answer_task(self, resp: falcon.Response, wanted: TaskPath) -> None:
        with self._backend.session() as session:
            document = task_document(session, wanted.task_id)
        if document is None:
            raise falcon.HTTPNotFound(description="Nothing was ever collected for this task.")
        resp.media = document

    def _answer_artifacts(self, req: falcon.Request, resp: falcon.Response, wanted: TaskPath) -> None:
        attempt = _number(req, "attempt", _MAX_ATTEMPT)
        signer, base_url = self._backend.signer, self._backend.base_url(req)
        with self._backend.session() as session:
            document = artifacts_document(session, wanted.task_id, attempt, signer, base_url)
        if document is None:
            raise falcon.HTTPNotFound(
                description="Nothing was ever collected for this task."
                if attempt is None
                else f"Nothing was ever collected for attempt {attempt} of this task."
            )
        resp.media = document


def _text(req: falcon.Request, name: str) -> str | None:
    """Returns: The parameter; None when it is absent or empty."""
    return req.get_param(name) or None


def _number(req: falcon.Request, name: str, maximum: int) -> int | None:
    value = _text(req, name)
    if value is None:
        return None
    if not _WHOLE_NUMBER.fullmatch(value) or not 1 <= int(value) <= maximum:
        raise falcon.HTTPBadRequest(
            description=f"`{name}` is {value!r:.80}; it must be a whole number from 1 to {maximum}."
        )
    return int(value)


def _status(req: falcon.Request) -> str | None:
    value = _text(req, "status")
    if value is not None and value not in list(RunStatus):
        raise falcon.HTTPBadRequest(description=f"`status` is {value!r:.80}; it must be one of {', '.join(RunStatus)}.")
    return value
