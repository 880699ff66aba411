"""The Falcon app: its routes, and the middleware of all of them."""

from __future__ import annotations

from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

import falcon

from ..documents.fields import mounted
from ..settings import Settings
from .backend import Backend
from .http.access import SameSite, TokenAccess
from .http.gate import Gate, refuse
from .http.hosts import HostNames
from .http.openapi import OpenApiResource
from .problems import Problems
from .resources.actors import ActorListResource, ActorResource
from .resources.base import Resource
from .resources.captures import CaptureFormResource, CaptureListResource, CaptureResource
from .resources.comparison import CompareResource
from .resources.downloads import DownloadResource
from .resources.health import HealthResource, ReadyResource
from .resources.pins import FormResource, PinResource, RunResource
from .resources.reports import ReportResource
from .resources.static import StaticResource
from .resources.tasks import TaskListResource, TaskResource


class DiagnosticsApp(falcon.App[falcon.Request, falcon.Response]):
    """The Falcon app of one store.

    Parameters:
      settings: The settings.
      names: The host names under which it answers.
    """

    def __init__(self, settings: Settings, names: HostNames) -> None:
        self._backend = backend = Backend(settings)
        super().__init__(
            middleware=[
                TokenAccess(settings.api_token),
                SameSite(settings.public_url),
                MountedPaths(backend),
                ResponseHeaders(),
            ]
        )
        self._gate = Gate(names)
        self.req_options.strip_url_path_trailing_slash = True
        Problems(backend).install(self)
        routes = {
            "/healthz": HealthResource(backend),
            "/readyz": ReadyResource(backend),
            "/tasks": TaskListResource(backend),
            "/tasks/{path:path}": TaskResource(backend),
            "/actors": ActorListResource(backend),
            "/actors/{name:path}": ActorResource(backend),
            "/captures": CaptureListResource(backend),
            "/captures/{capture_id}": CaptureResource(backend),
            "/captures/forms/{action}": CaptureFormResource(backend),
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
        self.add_route("/openapi.json", OpenApiResource(routes.values()))

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answers a request, as a WSGI application does."""
        refusal = self._gate.refusal(environ)
        if refusal is not None:
            return refuse(environ, start_response, refusal)
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
        resp.set_header("Referrer-Policy", "no-referrer")
        resp.set_header("X-Frame-Options", "SAMEORIGIN")  # The pages frame reports; other sites may frame nothing.
        resp.set_header("Cross-Origin-Opener-Policy", "same-origin")
        # A sandboxed frame has no origin, and its page needs the styles, which are public.
        is_static = req.path.startswith("/static/")
        resp.set_header("Cross-Origin-Resource-Policy", "cross-origin" if is_static else "same-origin")
        resp.append_header("Vary", "Accept")
        if resp.get_header("Cache-Control") is None:
            resp.set_header("Cache-Control", "no-store")
