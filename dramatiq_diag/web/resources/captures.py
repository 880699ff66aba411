"""Captures: as documents for programs, and as forms for the page of an actor."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

import falcon

from ...documents.captures import (
    CaptureDocument,
    CapturesDocument,
    NewCaptureDocument,
    capture_document,
    captures_document,
    described_diagnostics,
    new_capture_document,
)
from ...documents.fields import actor_href
from ...policy.options import DiagnosticsRequest, OptionsError, with_options
from ...store import captures
from ...store.captures import CaptureStanding
from ..http.bodies import CaptureBody, read_form, read_json, requested
from ..http.negotiation import wants_html
from ..http.openapi import FORM_ANSWERS, PROBLEM, operation
from ..http.queries import CapturesQuery
from .base import Resource, first_value, id_in_path


class _CaptureResource(Resource):
    def _find(self, capture_id: str) -> CaptureStanding:
        """Returns: The capture. Raises: falcon.HTTPNotFound."""
        key = id_in_path(capture_id, "There is no such capture.")
        with self._backend.session() as session:
            standing = captures.find_capture(session, key)
        if standing is None:
            raise falcon.HTTPNotFound(description="There is no such capture, or it has been removed.")
        return standing

    def _end(self, capture_id: uuid.UUID) -> CaptureStanding:
        try:
            return captures.end(self._backend.store, capture_id)
        except captures.CaptureNotFoundError as error:
            raise falcon.HTTPNotFound(description="The capture has just been removed.") from error


class CaptureListResource(_CaptureResource):
    """All captures; new ones are created here."""

    @operation("get", "/captures/", query=CapturesQuery, answers={200: CapturesDocument, 400: PROBLEM})
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List the captures, newest first."""
        query = CapturesQuery.read(req)
        with self._backend.session() as session:
            document = captures_document(session, actor_name=query.actor, limit=query.limit)
        if wants_html(req):
            self._backend.show(req, resp, "all_captures.html", **document, described_diagnostics=described_diagnostics)
        else:
            resp.media = document

    @operation(
        "post",
        "/captures/",
        body=CaptureBody,
        answers={201: NewCaptureDocument, **dict.fromkeys((400, 403, 409, 413, 415), PROBLEM)},
    )
    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Ask for the next runs of an actor.

        Workers learn of it within 5 seconds. The diagnostics must be named in TASK_DIAGNOSTICS or
        TASK_DIAGNOSTICS_ON_REQUEST. A worker must have the actor, or a run of it must be stored; with `unknown_actor`
        any other name is allowed, and the answer has a note.
        """
        body = read_json(req, CaptureBody)
        created = captures.create(
            self._backend.store,
            body.actor_name,
            requested(body),
            body.runs,
            body.for_s,
            unknown_actor=body.unknown_actor,
        )
        with self._backend.session() as session:
            document = new_capture_document(session, created)
        resp.media = document
        resp.status = falcon.HTTP_201
        resp.location = f"{self._backend.base_url(req)}{document['href']}"


class CaptureResource(_CaptureResource):
    """One capture."""

    @operation("get", "/captures/{capture_id}/", answers={200: CaptureDocument, 404: PROBLEM})
    def on_get(self, req: falcon.Request, resp: falcon.Response, capture_id: str) -> None:
        """Get a capture."""
        resp.media = capture_document(self._find(capture_id))

    @operation("delete", "/captures/{capture_id}/", answers={200: CaptureDocument, 403: PROBLEM, 404: PROBLEM})
    def on_delete(self, req: falcon.Request, resp: falcon.Response, capture_id: str) -> None:
        """End a capture now.

        Its runs and its record stay. A capture that has ended already does not change.
        """
        resp.media = capture_document(self._end(self._find(capture_id).capture.capture_id))


class CaptureFormResource(_CaptureResource):
    """The forms of an actor's page."""

    @operation("post", "/captures/forms/{action}", answers=FORM_ANSWERS)
    def on_post(self, req: falcon.Request, resp: falcon.Response, action: str) -> None:
        """Start or end a capture from a form; for pages, which send the token of their form."""
        if action not in ("start", "end"):
            raise falcon.HTTPNotFound(description="Unknown action; use `start` or `end`.")
        form = read_form(req)
        actor_name = first_value(form, "actor_name")
        self._check_form(form, form_subject(actor_name))
        if action == "start":
            diagnostics = form_diagnostics(form)
            run_limit, duration_s = form_number(form, "runs"), form_number(form, "minutes") * 60.0
            # Only known actors have the page with this token; but the actor's runs may be gone by now.
            captures.create(self._backend.store, actor_name, diagnostics, run_limit, duration_s, unknown_actor=True)
        else:
            capture = self._find(first_value(form, "capture_id")).capture
            if capture.actor_name != actor_name:
                raise falcon.HTTPNotFound(description="There is no such capture of this actor.")
            self._end(capture.capture_id)
        raise falcon.HTTPSeeOther(f"{self._backend.mount(req)}{actor_href(actor_name)}")


def form_subject(actor_name: str) -> str:
    """Returns: The subject that the token of the forms of an actor's page is signed for."""
    return f"captures of {actor_href(actor_name)}"


def form_diagnostics(form: Mapping[str, list[str]]) -> DiagnosticsRequest:
    """Returns: What the fields `diagnostics` and `options` ask for. Raises: falcon.HTTPBadRequest."""
    texts = [text for text in first_value(form, "options").split(",") if text.strip()]
    try:
        return with_options(form.get("diagnostics", ()), texts)
    except OptionsError as error:
        raise falcon.HTTPBadRequest(description=str(error)) from error


def form_number(form: Mapping[str, list[str]], name: str) -> int:
    """Returns: A whole number in a field. Raises: falcon.HTTPBadRequest."""
    text = first_value(form, name)
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise falcon.HTTPBadRequest(description=f"`{name}` is {text!r:.80}; it must be a whole number.")
    return int(text)
