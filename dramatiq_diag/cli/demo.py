"""`demo`: executes real tasks under every diagnostic, and serves their artifacts."""

from __future__ import annotations

import signal
import threading

import click

from ..demo.run import Demo, demo_settings
from ..documents.fields import Document
from ..errors import DiagnosticsError, NotInstalledError, SettingsError
from ..settings import Settings
from ..text import format_duration, format_size
from ..web.server import DEFAULT_HOST, DEFAULT_PORT, Server
from .output import bar, echo_json
from .serve import PORT


@click.command()
@click.option("--exit", "exits", is_flag=True, help="Print the runs as JSON and stop, and serve nothing.")
@click.option("--port", type=PORT, help=f"The port.  [default: {DEFAULT_PORT}, or a free one if that is taken]")
@click.pass_context
def demo(context: click.Context, *, exits: bool, port: int | None) -> None:
    """Execute real tasks under all installed diagnostics, and serve their artifacts until Ctrl-C.

    Broker, worker and web part are in this one process, and the store is an SQLite file: nothing else is needed. The
    tasks work on the sources of Python's standard library. The results are kept in DRAMATIQ_DIAG_DATA_DIR, or else in a
    new temporary directory.

    \b
    Examples:
      dramatiq-diag demo
      dramatiq-diag demo --exit | python -m json.tool
    """
    settings = demo_settings()
    if exits:
        demonstration = Demo(settings, settings.public_url or f"http://{DEFAULT_HOST}:{port or DEFAULT_PORT}")
        with bar("Tasks", len(demonstration.actors)) as step:
            runs = demonstration.run(lambda _: step(1))
        echo_json({"data_dir": str(settings.data_dir), "runs": runs})
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _serve(settings, port)
    except KeyboardInterrupt:
        click.echo(f"\nStopped. The artifacts are kept in {settings.data_dir}.")
        context.exit(0)
    finally:
        signal.signal(signal.SIGTERM, before)


def _serve(settings: Settings, port: int | None) -> None:
    with _bind(settings, port).start() as server:
        click.echo(f"Data dir  {settings.data_dir}\nServing   {server.url}/tasks/\n")
        Demo(settings, settings.public_url or server.url).run(_show)
        click.echo(f"All tasks are done. Serving {server.url}/tasks/ until Ctrl-C.")
        threading.Event().wait()


def _bind(settings: Settings, port: int | None) -> Server:
    if port is not None:
        return Server(settings, port=port)
    try:
        return Server(settings)
    except (SettingsError, NotInstalledError):
        raise
    except DiagnosticsError:
        server = Server(settings, port=0)
        click.echo(f"Port {DEFAULT_PORT} is taken; using port {server.port}.", err=True)
        return server


def _show(runs: list[Document]) -> None:
    for run in runs:
        click.echo(
            f"{run['actor_name']} (attempt {run['attempt']}): {run['status']} "
            f"after {format_duration(run['duration_ms'])}, "
            f"peak RSS {format_size(run['peak_rss_bytes'])}"
        )
        for name, url in run["urls"].items():
            click.echo(f"  {name:<21} {url}")
        click.echo()
