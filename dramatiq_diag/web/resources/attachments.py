"""Attachments to running tasks: as documents for programs, and as a form for the page of a running task."""

from __future__ import annotations

import falcon

from ...documents.attachments import AttachmentDocument, AttachmentsDocument, attachment_document
from ...documents.fields import task_href
from ...policy.options import DiagnosticsRequest
from ...store import attachments
from ...store.attachments import AttachmentStanding
from ..http.bodies import AttachmentBody, read_form, read_json, requested
from ..http.openapi import FORM_ANSWERS, PROBLEM, operation
from ..pages.attach import attach_form_subject
from .base import Resource, first_value, id_in_path
from .captures import form_diagnostics, form_number

_CREATED = {201: AttachmentDocument, **dict.fromkeys((400, 403, 404, 413, 415, 429), PROBLEM)}


class _AttachmentResource(Resource):
    def _document(self, req: falcon.Request, standing: AttachmentStanding) -> AttachmentDocument:
        return attachment_document(standing, self._backend.signer, self._backend.base_url(req))

    def _read(self, req: falcon.Request) -> tuple[DiagnosticsRequest, float]:
        """Returns: What the body asks for, and for how many seconds. Raises: falcon.HTTPError."""
        body = read_json(req, AttachmentBody)
        return requested(body), body.for_s


class TaskAttachmentsResource(_AttachmentResource):
    """New attachments to a running task."""

    @operation("post", "/tasks/{task_id}/attachments/", body=AttachmentBody, answers=_CREATED)
    def on_post(self, req: falcon.Request, resp: falcon.Response, task_id: str) -> None:
        """Collect more of a running task.

        The worker process learns of it within 3 seconds. The collectors end after the time, or with the run; then
        their artifacts can be downloaded, while the run goes on. The diagnostics must be named in TASK_DIAGNOSTICS or
        TASK_DIAGNOSTICS_ON_REQUEST; the task itself need not be diagnosed.
        """
        diagnostics, for_s = self._read(req)
        attachment_id = attachments.attach(self._backend.store, task_id, diagnostics, for_s)
        with self._backend.session() as session:
            (standing,) = attachments.find_attachments(session, [attachment_id])
        document = self._document(req, standing)
        resp.media = document
        resp.status = falcon.HTTP_201
        resp.location = f"{self._backend.base_url(req)}{document['href']}"


class ActorAttachmentsResource(_AttachmentResource):
    """New attachments to the running tasks of an actor."""

    @operation(
        "post",
        "/actors/{name}/attachments/",
        body=AttachmentBody,
        answers={**_CREATED, 201: AttachmentsDocument},
    )
    def on_post(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Collect more of all running tasks of an actor, at most 50: one attachment for each."""
        diagnostics, for_s = self._read(req)
        made = attachments.attach_to_actor(self._backend.store, name, diagnostics, for_s)
        with self._backend.session() as session:
            standings = attachments.find_attachments(session, made)
        document: AttachmentsDocument = {"attachments": [self._document(req, standing) for standing in standings]}
        resp.media = document
        resp.status = falcon.HTTP_201


class AttachmentResource(_AttachmentResource):
    """One attachment."""

    @operation("get", "/attachments/{attachment_id}/", answers={200: AttachmentDocument, 404: PROBLEM})
    def on_get(self, req: falcon.Request, resp: falcon.Response, attachment_id: str) -> None:
        """Get an attachment: how far it is, and the URLs of its files once they can be downloaded."""
        key = id_in_path(attachment_id, "There is no such attachment.")
        with self._backend.session() as session:
            standing = attachments.find_attachment(session, key)
        if standing is None:
            raise falcon.HTTPNotFound(description="There is no such attachment, or it has been removed.")
        resp.media = self._document(req, standing)


class AttachmentFormResource(_AttachmentResource):
    """The form of the page of a running task."""

    @operation("post", "/attachments/forms/start", answers={**FORM_ANSWERS, 429: PROBLEM})
    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Attach to a running task from a form; for pages, which send the token of their form."""
        form = read_form(req)
        task_id = first_value(form, "task_id")
        self._check_form(form, attach_form_subject(task_id))
        attachments.attach(self._backend.store, task_id, form_diagnostics(form), float(form_number(form, "seconds")))
        raise falcon.HTTPSeeOther(f"{self._backend.mount(req)}{task_href(task_id)}")
