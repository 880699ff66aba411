"""Serves artifacts, documents and pages over HTTP, with a Falcon app."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import NotInstalledError, SettingsError
from ..settings import Settings

if TYPE_CHECKING:
    from .app import DiagnosticsApp
    from .http.hosts import HostNames

__all__ = ["create_app"]


def create_app(settings: Settings | None = None, *, insecure: bool = False) -> DiagnosticsApp:
    """Makes the WSGI app. It opens the database with the first request.

    Parameters:
      settings: The settings; those of the environment by default.
      insecure: Whether the app may do without an API token, because the application that it is mounted in has its own
        login, or because only this machine reaches it.

    Returns:
      A `falcon.App` with a `close()` that closes the database connections. It answers under the host names of the
      loopback address, of the public URL, and those in `allowed_hosts`.

    Raises:
      NotInstalledError: When Falcon or the driver of the database is missing.
      SettingsError: When the environment has a value that is not allowed, or there is no token.
    """
    settings = Settings.load(settings)
    from .http.hosts import known_hosts

    app = make_app(settings, known_hosts(settings))
    if settings.api_token is None and not insecure:
        app.close()
        raise SettingsError(
            f"{Settings.variable('api_token')}: it is not set, and everybody who reaches this application could read "
            "and delete all diagnostics; set it, or call create_app(insecure=True) where another login stands in front."
        )
    return app


def make_app(settings: Settings, names: HostNames) -> DiagnosticsApp:
    """Makes the app for a server that has checked who can reach it. Raises: NotInstalledError."""
    try:
        from .app import DiagnosticsApp
        from .backend import Backend
    except ImportError as error:
        raise NotInstalledError(
            f"The web part needs a package that is not installed ({error}): pip install 'dramatiq_diag[web]'"
        ) from error
    return DiagnosticsApp(Backend(settings), names)
