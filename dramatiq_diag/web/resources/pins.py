"""Pins, unpins and deletes runs: by method for programs, by form for pages."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import falcon

from ...documents.fields import task_href
from ...documents.runs import RunDocument, run_document
from ...store import pins
from ...store.attempts import Attempt
from ...store.runs import find_run
from ...store.store import Store
from ..http.bodies import read_form
from ..http.negotiation import wants_html
from ..http.openapi import FORM_ANSWERS, PROBLEM, operation
from .base import Resource, id_in_path

_ANSWERS = {200: RunDocument, 403: PROBLEM, 404: PROBLEM, 409: PROBLEM}

_ACTIONS: dict[str, Callable[[Store, uuid.UUID], object]] = {
    "pin": pins.pin,
    "unpin": pins.unpin,
    "delete": pins.delete,
}


_NO_SUCH_RUN = "There is no such run."


class _RunResource(Resource):
    def _do(self, action: str, run_id: str) -> Attempt:
        """Pins, unpins or deletes a run. Returns: The run afterwards. Raises: falcon.HTTPNotFound."""
        key = id_in_path(run_id, _NO_SUCH_RUN)
        try:
            _ACTIONS[action](self._backend.store, key)
        except pins.RunNotFoundError as error:
            raise falcon.HTTPNotFound(description=_NO_SUCH_RUN) from error
        with self._backend.session() as session:
            run = find_run(session, key)
        if run is None:
            raise falcon.HTTPNotFound(description="The run has just been removed.")
        return run


class RunResource(_RunResource):
    """One run."""

    @operation("get", "/runs/{run_id}/", answers={200: RunDocument, 302: None, 404: PROBLEM})
    def on_get(self, req: falcon.Request, resp: falcon.Response, run_id: str) -> None:
        """Get a run by its id. A browser is sent to its page."""
        with self._backend.session() as session:
            run = find_run(session, id_in_path(run_id, _NO_SUCH_RUN))
        if run is None:
            raise falcon.HTTPNotFound(description=_NO_SUCH_RUN)
        if wants_html(req):
            raise falcon.HTTPFound(f"{self._backend.mount(req)}{task_href(run.task_id)}?attempt={run.attempt}")
        resp.media = run_document(run)

    @operation("delete", "/runs/{run_id}/", answers=_ANSWERS)
    def on_delete(self, req: falcon.Request, resp: falcon.Response, run_id: str) -> None:
        """Delete a run's artifacts now.

        The record of the run stays until the retention ends. A pinned run must be unpinned first.
        """
        resp.media = run_document(self._do("delete", run_id))


class PinResource(_RunResource):
    """The pin of a run, which protects it from the cleanup."""

    @operation("put", "/runs/{run_id}/pin/", answers=_ANSWERS)
    def on_put(self, req: falcon.Request, resp: falcon.Response, run_id: str) -> None:
        """Pin a run: the cleanup does not remove it and its artifacts."""
        resp.media = run_document(self._do("pin", run_id))

    @operation("delete", "/runs/{run_id}/pin/", answers=_ANSWERS)
    def on_delete(self, req: falcon.Request, resp: falcon.Response, run_id: str) -> None:
        """Unpin a run: its protection time begins anew."""
        resp.media = run_document(self._do("unpin", run_id))


class FormResource(_RunResource):
    """The buttons of a run's page."""

    @operation("post", "/runs/{run_id}/forms/{action}", answers=FORM_ANSWERS)
    def on_post(self, req: falcon.Request, resp: falcon.Response, run_id: str, action: str) -> None:
        """Pin, unpin or delete a run from its page; for pages, which send the token of their form."""
        if action not in _ACTIONS:
            raise falcon.HTTPNotFound(description="Unknown action; use `pin`, `unpin` or `delete`.")
        self._check_form(read_form(req), run_id)
        run = run_document(self._do(action, run_id))
        raise falcon.HTTPSeeOther(f"{self._backend.mount(req)}{run['href']}?attempt={run['attempt']}")
