"""Actors: how each has been doing."""

from __future__ import annotations

import falcon

from ...documents.actors import ActorHistoryDocument, ActorsDocument, actor_document, actors_document
from ...documents.captures import captures_document, described_diagnostics
from ...documents.runs import RunDocument, runs_document
from ...store.actor_stats import summarize_actor
from ...store.captures import allowed_names
from ...store.runs import RunFilter
from ..backend import Backend
from ..http.negotiation import wants_html
from ..http.openapi import PROBLEM, operation
from ..http.queries import ActorQuery, ActorsQuery, Range
from ..pages.actor_chart import actor_chart
from ..pages.sparklines import HEIGHT, WIDTH, sparklines
from .captures import form_subject

#: The latest captures that an actor's page shows.
_SHOWN_CAPTURES = 10


class ActorListResource:
    """All actors that something was collected for, and those that workers have."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @operation("get", "/actors/", query=ActorsQuery, answers={200: ActorsDocument, 400: PROBLEM})
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List the actors, by name.

        Those that workers have are among them, also where no run of one is stored.
        """
        query = ActorsQuery.read(req)
        with self._backend.session() as session:
            document = actors_document(session, query.since)
        if wants_html(req):
            self._backend.pages.show(req, resp, "actors.html", self._backend.mount(req), actors=document["actors"])
        else:
            resp.media = document

    on_head = on_get


class ActorResource:
    """One actor and its runs."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @operation(
        "get", "/actors/{name}/", query=ActorQuery, answers={200: ActorHistoryDocument, 400: PROBLEM, 404: PROBLEM}
    )
    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Get an actor's figures and its runs, newest first."""
        query = ActorQuery.read(req)
        with self._backend.session() as session:
            summary = summarize_actor(session, name)
            if summary is None:
                raise falcon.HTTPNotFound(
                    description="Nothing was ever collected for an actor of this name, and no worker has it."
                )
            try:
                page = runs_document(session, RunFilter(actor_name=name), query.limit, query.cursor)
            except ValueError as error:
                raise falcon.HTTPBadRequest(
                    description="`cursor` is not one that this actor's runs gave as `next`."
                ) from error
            document: ActorHistoryDocument = {"actor": actor_document(summary), **page}
            if wants_html(req):
                self._backend.pages.show(
                    req,
                    resp,
                    "actor.html",
                    self._backend.mount(req),
                    actor=document["actor"],
                    runs=document["runs"],
                    next=document["next"],
                    chart=actor_chart(session, name, query.range, self._backend.mount(req)),
                    ranges=list(Range),
                    sparklines=sparklines(self._backend, session, [run["run_id"] for run in document["runs"]]),
                    sparkline_size=(WIDTH, HEIGHT),
                    captures=captures_document(session, actor_name=name, limit=_SHOWN_CAPTURES)["captures"],
                    described_diagnostics=described_diagnostics,
                    diagnostics=allowed_names(self._backend.store.settings),
                    token=self._backend.signer.action_token(form_subject(name)),
                )
            else:
                resp.media = document

    on_head = on_get


def _run_url(mount: str, run: RunDocument) -> str:
    return f"{mount}{run['href']}?attempt={run['attempt']}"
