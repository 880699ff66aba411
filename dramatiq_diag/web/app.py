"""The Falcon app: its routes, and the middleware of all of them."""

from __future__ import annotations

from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

import falcon

from ..documents.fields import mounted
from .backend import Backend
from .http.access import SameSite, TokenAccess
from .http.gate import reason_against, refuse
from .http.hosts import HostNames
from .http.openapi import OpenApiResource
from .problems import Problems
from .resources.actors import ActorListResource, ActorResource
from .resources.attachments import (
    ActorAttachmentsResource,
    AttachmentFormResource,
    AttachmentResource,
    TaskAttachmentsResource,
)
from .resources.base import Resource
from .resources.captures import CaptureFormResource, CaptureListResource, CaptureResource
from .resources.comparison import CompareResource
from .resources.downloads import DownloadResource
from .resources.health import HealthResource, ReadyResource
from .resources.leaks import LeaksResource
from .resources.live import LiveResource
from .resources.metrics import MetricsResource
from .resources.pins import FormResource, PinResource, RunResource
from .resources.reports import ReportResource
from .resources.stacks import StacksResource
from .resources.static import StaticResource
from .resources.storage import StorageResource
from .resources.tasks import TaskArtifactsResource, TaskListResource, TaskParts, TaskResource
from .resources.workers import WorkersResource


class DiagnosticsApp(falcon.App[falcon.Request, falcon.Response]):
    """The Falcon app of one store.

    Parameters:
      backend: What the resources use.
      names: The host names under which it answers.
    """

    def __init__(self, backend: Backend, names: HostNames) -> None:
        self._backend = backend
        settings = backend.settings
        super().__init__(
            middleware=[
                TokenAccess(settings.api_token, metrics_token=settings.metrics_token),
                SameSite(settings.public_url),
                MountedPaths(backend),
                ResponseHeaders(),
            ]
        )
        self._names = names
        self.req_options.strip_url_path_trailing_slash = True
        Problems(backend).install(self)
        parts = {
            "": TaskResource(backend),
            "profile_artifacts": TaskArtifactsResource(backend),
            "stacks": StacksResource(backend),
            "live": LiveResource(backend),
            "attachments": TaskAttachmentsResource(backend),
        }
        actor_attachments = ActorAttachmentsResource(backend)
        routes = {
            "/healthz": HealthResource(backend),
            "/readyz": ReadyResource(backend),
            "/metrics": MetricsResource(backend),
            "/tasks": TaskListResource(backend),
            "/tasks/{path:path}": TaskParts(backend, parts),
            "/actors": ActorListResource(backend),
            "/actors/{name:path}": ActorResource(backend, actor_attachments),
            "/captures": CaptureListResource(backend),
            "/captures/{capture_id}": CaptureResource(backend),
            "/captures/forms/{action}": CaptureFormResource(backend),
            "/leaks": LeaksResource(backend),
            "/workers": WorkersResource(backend),
            "/attachments/{attachment_id}": AttachmentResource(backend),
            "/attachments/forms/start": AttachmentFormResource(backend),
            "/storage": StorageResource(backend),
            "/compare": CompareResource(backend),
            "/runs/{run_id}": RunResource(backend),
            "/runs/{run_id}/pin": PinResource(backend),
            "/runs/{run_id}/forms/{action}": FormResource(backend),
            "/artifacts/{artifact_id}/reports/{kind}": ReportResource(backend),
            "/artifacts/{artifact_id}/{filename:path}": DownloadResource(backend),
        }
        for path, resource in routes.items():
            self.add_route(path, resource)
        self.add_route("/", StartResource(backend))
        self.add_route("/static/{name}", StaticResource(backend))
        self.add_route("/openapi.json", OpenApiResource([*routes.values(), *parts.values(), actor_attachments]))

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answers a request, as a WSGI application does."""
        reason = reason_against(environ, self._names)
        if reason is not None:
            return refuse(environ, start_response, *reason)
        return super().__call__(environ, start_response)

    def close(self) -> None:
        """Stops the rendering of reports, and closes the database connections; a further request opens new ones."""
        self._backend.close()


class StartResource(Resource):
    """Redirects to the list of runs."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        raise falcon.HTTPSeeOther(f"{self._backend.mount(req)}/tasks/")


class MountedPaths:
    """Prefixes the paths in documents with the path that the app is mounted at."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: object, req_succeeded: bool
    ) -> None:
        mount = self._backend.mount(req)
        if mount and resp.media is not None:
            resp.media = mounted(resp.media, mount)


class ResponseHeaders:
    """Sets the security headers of all answers, and forbids caching unless a resource allows it."""

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: object, req_succeeded: bool
    ) -> None:
        resp.set_header("X-Content-Type-Options", "nosniff")
        # With `no-referrer` a browser sends `Origin: null` with a form, and over plain http nothing else identifies the
        # site of the page.
        resp.set_header("Referrer-Policy", "same-origin")
        resp.set_header("X-Frame-Options", "SAMEORIGIN")  # The pages frame reports; other sites may frame nothing.
        resp.set_header("Cross-Origin-Opener-Policy", "same-origin")
        # A sandboxed frame has no origin, and its page needs the styles, which are public.
        is_static = req.path.startswith("/static/")
        resp.set_header("Cross-Origin-Resource-Policy", "cross-origin" if is_static else "same-origin")
        resp.append_header("Vary", "Accept")
        if resp.get_header("Cache-Control") is None:
            resp.set_header("Cache-Control", "no-store")
