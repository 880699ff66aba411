"""The routes, and what holds for all of them."""

from __future__ import annotations

import falcon

from ..settings import Settings
from .access import TokenAccess
from .backend import Backend
from .downloads import DownloadResource
from .problems import Problems
from .resources import HealthResource, TaskListResource, TaskResource


class DiagnosticsApp(falcon.App[falcon.Request, falcon.Response]):
    """The Falcon app of one store.

    Parameters:
      settings: The settings.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(middleware=[TokenAccess(settings.api_token), ResponseHeaders()])
        self.req_options.strip_url_path_trailing_slash = True
        self._backend = backend = Backend(settings)
        Problems().install(self)
        self.add_route("/healthz", HealthResource())
        self.add_route("/tasks", TaskListResource(backend))
        self.add_route("/tasks/{path:path}", TaskResource(backend))
        self.add_route("/artifacts/{artifact_id}/{filename:path}", DownloadResource(backend))

    def close(self) -> None:
        """Closes the database connections; a further request opens new ones."""
        self._backend.close()


class ResponseHeaders:
    """What every answer says: it is not to be kept, guessed at, or told to others, unless it says otherwise itself."""

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: object, req_succeeded: bool
    ) -> None:
        resp.set_header("X-Content-Type-Options", "nosniff")
        resp.set_header("Referrer-Policy", "no-referrer")
        if resp.get_header("Cache-Control") is None:
            resp.set_header("Cache-Control", "no-store")
