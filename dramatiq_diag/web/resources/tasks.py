"""The list of runs, the runs of one task, and the artifacts of one run: as documents and as pages."""

from __future__ import annotations

from collections.abc import Mapping

import falcon

from ...documents.runs import (
    ArtifactsDocument,
    RunsDocument,
    TaskDocument,
    artifacts_document,
    runs_document,
    task_document,
)
from ...store.attempts import find_attempt
from ..backend import Backend
from ..http.negotiation import wants_html
from ..http.openapi import PROBLEM, operation
from ..http.queries import AttemptQuery, RunsQuery, TaskQuery
from ..http.urls import task_path
from ..pages.attach import attach_values
from ..pages.live import read_live
from ..pages.run import read_run_view, show_run
from ..pages.run_list import read_run_list, show_run_list
from .base import Resource, known_cursor

_NEVER = "Nothing was ever collected for this task, or it is so long ago that its record was removed."

#: The methods of what may follow a task.
_METHODS = ("GET", "HEAD", "POST")


class TaskListResource(Resource):
    """The runs of all tasks, in pages."""

    @operation("get", "/tasks/", query=RunsQuery, answers={200: RunsDocument, 400: PROBLEM})
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List runs, the newest, the slowest, or those that took most memory first."""
        query = RunsQuery.read(req)
        with self._backend.session() as session, known_cursor():
            if not wants_html(req):
                resp.media = runs_document(session, query.wanted, query.limit, query.cursor, query.sort)
                return
            view = read_run_list(session, query)
        show_run_list(self._backend, req, resp, query, view)


class TaskResource(Resource):
    """The runs of one task. A browser gets the page of one of them."""

    @operation("get", "/tasks/{task_id}/", query=TaskQuery, answers={200: TaskDocument, 400: PROBLEM, 404: PROBLEM})
    def on_get(self, req: falcon.Request, resp: falcon.Response, task_id: str) -> None:
        """List the runs of a task, first attempt first."""
        if wants_html(req):
            answer_run(self._backend, req, resp, task_id)
            return
        query = TaskQuery.read(req)
        with self._backend.session() as session, known_cursor():
            document = task_document(session, task_id, query.limit, query.cursor)
        if document is None:
            raise falcon.HTTPNotFound(description=_NEVER)
        resp.media = document


class TaskArtifactsResource(Resource):
    """The artifacts of one run of a task. A browser gets the page of the run."""

    @operation(
        "get",
        "/tasks/{task_id}/profile_artifacts/",
        query=AttemptQuery,
        answers={200: ArtifactsDocument, 400: PROBLEM, 404: PROBLEM},
    )
    def on_get(self, req: falcon.Request, resp: falcon.Response, task_id: str) -> None:
        """Get what was collected of one run of a task, with the URLs of the files."""
        answer_run(self._backend, req, resp, task_id)


def answer_run(backend: Backend, req: falcon.Request, resp: falcon.Response, task_id: str) -> None:
    """Answers with what was collected of one run: as a document, or as a page."""
    attempt = AttemptQuery.read(req).attempt
    with backend.session() as session:
        chosen = find_attempt(session, task_id, attempt)
        if chosen is not None and not wants_html(req):
            resp.media = artifacts_document(session, chosen, backend.signer, backend.base_url(req))
            return
        view = None if chosen is None else read_run_view(session, chosen)
    # The session has ended: the pages open others, and requests that each hold a connection and wait for a second one
    # would wait for each other.
    if view is not None:
        show_run(backend, req, resp, view)
        return
    if wants_html(req) and (live := read_live(backend, task_id, attempt))["live"] is not None:
        # It is executed, and not diagnosed.
        backend.show(req, resp, "live.html", **live, **attach_values(backend, task_id))
        return
    raise falcon.HTTPNotFound(
        description=_NEVER if attempt is None else f"Nothing was ever collected for attempt {attempt} of this task."
    )


class TaskParts(Resource):
    """Finds the resource for what follows a task, whose id may contain slashes.

    Parameters:
      parts: Each of `TASK_PARTS`, and an empty text for the task itself -> the resource, which is given the task's id.
    """

    def __init__(self, backend: Backend, parts: Mapping[str, Resource]) -> None:
        super().__init__(backend)
        self._parts = parts

    def on_get(self, req: falcon.Request, resp: falcon.Response, path: str) -> None:
        self._answer("get", req, resp, path)

    def on_post(self, req: falcon.Request, resp: falcon.Response, path: str) -> None:
        self._answer("post", req, resp, path)

    def on_put(self, req: falcon.Request, resp: falcon.Response, path: str) -> None:
        self._answer("put", req, resp, path)  # No part has it; but the answer names the methods of this very address.

    on_patch = on_delete = on_put

    def _answer(self, method: str, req: falcon.Request, resp: falcon.Response, path: str) -> None:
        wanted = task_path(req, path)
        part = self._parts[wanted.part]
        responder = getattr(part, f"on_{method}", None)
        if responder is None:
            methods = [name for name in _METHODS if hasattr(part, f"on_{name.lower()}")]
            raise falcon.HTTPMethodNotAllowed([*methods, "OPTIONS"])
        responder(req, resp, wanted.task_id)
