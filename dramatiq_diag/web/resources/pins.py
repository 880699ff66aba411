"""Runs kept and deleted by hand: for programs by method, for pages by form."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import falcon

from ...documents.runs import RunDocument, run_document
from ...store import pins as keeping
from ...store.attempts import Attempt
from ...store.runs import find_run
from ...store.store import Store
from ..backend import Backend
from ..http.bodies import read_form
from ..http.openapi import PAGE, PROBLEM, operation

_ANSWERS = {200: RunDocument, 403: PROBLEM, 404: PROBLEM, 409: PROBLEM}

_FORM_ANSWERS = {303: PAGE, **dict.fromkeys((400, 403, 404, 409, 413, 415), PROBLEM)}

#: What a page can ask for -> what does it.
_ACTIONS: dict[str, Callable[[Store, uuid.UUID], object]] = {
    "pin": keeping.pin,
    "unpin": keeping.unpin,
    "delete": keeping.delete,
}


class _Resource:
    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def _do(self, action: str, run_id: str) -> Attempt:
        """Does it. Returns: The run afterwards. Raises: falcon.HTTPError."""
        try:
            key = uuid.UUID(run_id)
            _ACTIONS[action](self._backend.store, key)
        except (ValueError, keeping.RunNotFoundError) as error:
            raise falcon.HTTPNotFound(description="There is no such run.") from error
        except (keeping.RunIsRunningError, keeping.RunIsPinnedError) as error:
            raise falcon.HTTPConflict(description=str(error)) from error
        with self._backend.session() as session:
            run = find_run(session, key)
        if run is None:
            raise falcon.HTTPNotFound(description="The run has just been removed.")
        return run


class RunResource(_Resource):
    """A run, to be deleted."""

    @operation("delete", "/runs/{run_id}/", answers=_ANSWERS)
    def on_delete(self, req: falcon.Request, resp: falcon.Response, run_id: str) -> None:
        """Delete a run's artifacts now.

        What happened stays on record until the retention ends. A pinned run is to be unpinned before.
        """
        resp.media = run_document(self._do("delete", run_id))


class PinResource(_Resource):
    """Whether the cleanup leaves a run alone."""

    @operation("put", "/runs/{run_id}/pin/", answers=_ANSWERS)
    def on_put(self, req: falcon.Request, resp: falcon.Response, run_id: str) -> None:
        """Pin a run: the cleanup leaves it and its artifacts alone."""
        resp.media = run_document(self._do("pin", run_id))

    @operation("delete", "/runs/{run_id}/pin/", answers=_ANSWERS)
    def on_delete(self, req: falcon.Request, resp: falcon.Response, run_id: str) -> None:
        """Unpin a run: its artifacts have a whole protection time from now."""
        resp.media = run_document(self._do("unpin", run_id))


class FormResource(_Resource):
    """What the buttons of a run's page send."""

    @operation("post", "/runs/{run_id}/forms/{action}", answers=_FORM_ANSWERS)
    def on_post(self, req: falcon.Request, resp: falcon.Response, run_id: str, action: str) -> None:
        """Do what a button of a run's page says; for pages, which bring the token of their form."""
        if action not in _ACTIONS:
            raise falcon.HTTPNotFound(description=f"There are {', '.join(_ACTIONS)}.")
        token = read_form(req).get("token", [""])[0]
        refusal = self._backend.signer.action_refusal(run_id, token)
        if refusal is not None:
            raise falcon.HTTPForbidden(description=refusal)
        run = run_document(self._do(action, run_id))
        raise falcon.HTTPSeeOther(f"{self._backend.mount(req)}{run['href']}?attempt={run['attempt']}")
