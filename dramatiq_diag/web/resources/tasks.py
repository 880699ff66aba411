"""The list of runs, the runs of one task, and the artifacts of one run: as documents and as pages."""

from __future__ import annotations

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
from ..http.negotiation import wants_html
from ..http.openapi import PROBLEM, operation
from ..http.queries import AttemptQuery, RunsQuery, TaskQuery
from ..http.urls import TaskPath, task_path
from ..pages.run import read_run_view, show_run
from ..pages.run_list import read_run_list, show_run_list
from .base import Resource, known_cursor

_NEVER = "Nothing was ever collected for this task, or it is so long ago that its record was removed."


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
    """One task: its runs, or the artifacts of one of them. A browser gets both on one page."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, path: str) -> None:
        wanted = task_path(req, path)
        if wanted.wants_artifacts or wants_html(req):
            self._answer_artifacts(req, resp, wanted)
        else:
            self._answer_task(req, resp, wanted)

    @operation("get", "/tasks/{task_id}/", query=TaskQuery, answers={200: TaskDocument, 400: PROBLEM, 404: PROBLEM})
    def _answer_task(self, req: falcon.Request, resp: falcon.Response, wanted: TaskPath) -> None:
        """List the runs of a task, first attempt first."""
        query = TaskQuery.read(req)
        with self._backend.session() as session, known_cursor():
            document = task_document(session, wanted.task_id, query.limit, query.cursor)
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
            if not wants_html(req):
                resp.media = artifacts_document(session, chosen, signer, base_url)
                return
            view = read_run_view(session, chosen)
        show_run(self._backend, req, resp, view)
