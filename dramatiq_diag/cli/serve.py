"""`serve`: serves the pages, the JSON and the downloads."""

from __future__ import annotations

import logging

import click

from ..settings import Settings
from ..web.server import DEFAULT_HOST, DEFAULT_PORT
from ..web.server import serve as serve_until_stopped

PORT = click.IntRange(0, 65535)


@click.command()
@click.option("--host", default=DEFAULT_HOST, show_default=True, help="The address to listen on.")
@click.option("--port", type=PORT, default=DEFAULT_PORT, show_default=True, help="The port; 0 takes a free one.")
@click.option("--insecure", is_flag=True, help="Serve other machines without an API token.")
def serve(*, host: str, port: int, insecure: bool) -> None:
    """Serve the pages, the JSON and the downloads, until Ctrl-C.

    To listen on another address than loopback set DRAMATIQ_DIAG_API_TOKEN, which every request then has to carry.
    Behind a proxy set DRAMATIQ_DIAG_PUBLIC_URL; further host names stand in DRAMATIQ_DIAG_ALLOWED_HOSTS. The server
    reads the store of the workers: give both the same DRAMATIQ_DIAG_DATABASE_URL, DRAMATIQ_DIAG_BLOB_URL and
    DRAMATIQ_DIAG_DATA_DIR.

    \b
    Examples:
      dramatiq-diag serve
      DRAMATIQ_DIAG_API_TOKEN=... dramatiq-diag serve --host 0.0.0.0 --port 80
    """
    settings = Settings()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    serve_until_stopped(
        settings,
        host,
        port,
        insecure=insecure,
        on_ready=lambda server: click.echo(f"Serving {settings.data_dir} on {server.url} until Ctrl-C.", err=True),
    )
