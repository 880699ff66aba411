"""Artifacts over HTTP: a Falcon app to mount, or to serve."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import NotInstalledError
from ..settings import Settings

if TYPE_CHECKING:
    from .app import DiagnosticsApp

__all__ = ["create_app"]


def create_app(settings: Settings | None = None) -> DiagnosticsApp:
    """Makes the WSGI app; it reaches for database and files with its first request.

    Parameters:
      settings: The settings; those of the environment by default.

    Returns:
      A `falcon.App` with a `close()` that closes the database connections.

    Raises:
      NotInstalledError: When Falcon, or the database's driver, is missing.
      SettingsError: When the environment has a value that is not allowed.
    """
    try:
        from .app import DiagnosticsApp
    except ImportError as error:
        raise NotInstalledError(
            f"The web part needs a package that is not installed ({error}): pip install 'dramatiq_diag[web]'"
        ) from error
    return DiagnosticsApp(Settings.load(settings))
