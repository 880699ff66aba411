"""Actors: their figures and their runs."""

from __future__ import annotations

import falcon

from ...documents.actors import (
    ActorHistoryDocument,
    ActorsDocument,
    actor_document,
    actors_document,
    releases_document,
)
from ...documents.runs import runs_document
from ...store.actor_stats import list_actors, summarize_actor
from ...store.runs import RunFilter
from ..backend import Backend
from ..http.negotiation import wants_html
from ..http.openapi import PROBLEM, operation
from ..http.queries import ActorQuery, ActorsQuery
from ..pages.actor import read_actor_view, show_actor
from ..pages.actors import show_actors
from .attachments import ActorAttachmentsResource
from .base import Resource, known_cursor
from .captures import form_subject


class ActorListResource(Resource):
    """All actors that have stored runs, and those of the workers."""

    @operation("get", "/actors/", query=ActorsQuery, answers={200: ActorsDocument, 400: PROBLEM})
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List the actors, by name.

        The actors of workers are among them, also those without a stored run.
        """
        query = ActorsQuery.read(req)
        with self._backend.session() as session:
            if not wants_html(req):
                resp.media = actors_document(session, query.since)
                return
            actors = list_actors(session, query.since)
        show_actors(self._backend, req, resp, actors, since=query.since)


class ActorResource(Resource):
    """One actor and its runs.

    Parameters:
      attachments: Answers for what follows the name of the actor, which may contain slashes.
    """

    def __init__(self, backend: Backend, attachments: ActorAttachmentsResource) -> None:
        super().__init__(backend)
        self._attachments = attachments

    def on_post(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        actor_name, slash, part = name.rpartition("/")
        if not slash or part != "attachments":
            raise falcon.HTTPMethodNotAllowed(["GET", "HEAD", "OPTIONS"])
        self._attachments.on_post(req, resp, actor_name)

    def on_put(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        has_post = name.endswith("/attachments")
        raise falcon.HTTPMethodNotAllowed(["GET", "HEAD", *(["POST"] if has_post else []), "OPTIONS"])

    on_patch = on_delete = on_put

    @operation(
        "get", "/actors/{name}/", query=ActorQuery, answers={200: ActorHistoryDocument, 400: PROBLEM, 404: PROBLEM}
    )
    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Get an actor's figures, also by release, and its runs, newest first."""
        query = ActorQuery.read(req)
        with self._backend.session() as session, known_cursor():
            actor = summarize_actor(session, name)
            if actor is None:
                raise falcon.HTTPNotFound(
                    description="Nothing was ever collected for an actor of this name, and no worker has it."
                )
            if not wants_html(req):
                page = runs_document(session, RunFilter(actor_name=name), query.limit, query.cursor)
                document: ActorHistoryDocument = {
                    "actor": actor_document(actor),
                    **releases_document(session, name),
                    **page,
                }
                resp.media = document
                return
            view = read_actor_view(session, actor, query)
        token = self._backend.signer.action_token(form_subject(actor.actor_name))
        show_actor(self._backend, req, resp, view, token)
