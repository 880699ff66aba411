"""The runs of all tasks, and those of one: parameter in, document or page out."""

from __future__ import annotations

import falcon
from sqlalchemy.orm import Session

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
from ..http.urls import TaskPath, task_path
from ..pages.run import show_run
from ..pages.run_list import show_runs

_NEVER = "Nothing was ever collected for this task, or it is so long ago that its record was removed."


def list_of_runs(session: Session, query: RunsQuery) -> RunsDocument:
    """Returns: The page of runs that a query asks for. Raises: falcon.HTTPBadRequest for a cursor that is not ours."""
    try:
        return runs_document(session, query.wanted, query.limit, query.cursor, query.sort)
    except ValueError as error:
        raise falcon.HTTPBadRequest(
            description="`cursor` is not one that a list of runs in this order gave as `next`."
        ) from error


class TaskListResource:
    """The runs of all tasks, in pages."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @operation("get", "/tasks/", query=RunsQuery, answers={200: RunsDocument, 400: PROBLEM})
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List runs, the newest, the slowest, or those that took most memory first."""
        query = RunsQuery.read(req)
        with self._backend.session() as session:
            document = list_of_runs(session, query)
            if wants_html(req):
                show_runs(self._backend, session, req, resp, query, document)
            else:
                resp.media = document

    on_head = on_get


class TaskResource:
    """One task: its runs, or the artifacts of one of them; a browser is shown both on one page."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def on_get(self, req: falcon.Request, resp: falcon.Response, path: str) -> None:
        wanted = task_path(req, path)
        if wanted.wants_artifacts or wants_html(req):
            self._answer_artifacts(req, resp, wanted)
        else:
            self._answer_task(req, resp, wanted)

    on_head = on_get

    @operation("get", "/tasks/{task_id}/", query=TaskQuery, answers={200: TaskDocument, 400: PROBLEM, 404: PROBLEM})
    def _answer_task(self, req: falcon.Request, resp: falcon.Response, wanted: TaskPath) -> None:
        """List the runs of a task, first attempt first."""
        query = TaskQuery.read(req)
        with self._backend.session() as session:
            try:
                document = task_document(session, wanted.task_id, query.limit, query.cursor)
            except ValueError as error:
                raise falcon.HTTPBadRequest(
                    description="`cursor` is not one that this task's runs gave as `next`."
                ) from error
        if document is None:
            raise falcon.HTTPNotFound(description=_NEVER)
        resp.media = document

    @operation(
        "get",
        "/tasks/{task_id}/profile_artifacts/",
        query=AttemptQuery,
        answers={200: ArtifactsDocument, 400: PROBLEM, 404: PROBLEM},
    )
    def _answer_artifacts(self, req: falcon.Request, resp: falcon.Response, wanted: TaskPath) -> None:
        """Get what was collected of one run of a task, with the URLs of the files."""
        attempt = AttemptQuery.read(req).attempt
        signer, base_url = self._backend.signer, self._backend.base_url(req)
        with self._backend.session() as session:
            chosen = find_attempt(session, wanted.task_id, attempt)
            if chosen is None:
                raise falcon.HTTPNotFound(
                    description=_NEVER
                    if attempt is None
                    else f"Nothing was ever collected for attempt {attempt} of this task."
                )
            document = artifacts_document(session, chosen, signer, base_url)
            if wants_html(req):
                show_run(self._backend, session, req, resp, chosen, document)
            else:
                resp.media = document
