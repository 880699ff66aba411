"""`uninstall`: removes all stored data, before the package itself is removed."""

from __future__ import annotations

import click

from ..maintenance.uninstall import Holdings, Removal
from ..settings import Settings
from ..settings.urls import shown_url
from ..text import counted
from .output import confirm, counter, yes_option


@click.command()
@yes_option
def uninstall(*, yes: bool) -> None:
    """Remove all stored data for good: the tables, the artifacts, the spool, and the key of download URLs.

    Stop all workers first. The settings of the environment say where the data is; other tables of the database and
    other files of the directories stay. A spool on another machine is not known here: run it there as well, after this.

    \b
    Example:
      dramatiq-diag uninstall
    """
    settings = Settings()
    removal = Removal(settings)
    found = removal.look()
    if not found:
        click.echo("Nothing is stored here.")
        return
    _show(found, settings)
    confirm("Remove all of it for good?", yes=yes)
    with counter("Removed") as show:
        left = removal.run(show)
    click.echo("Removed. What is left: pip uninstall dramatiq_diag, and the middleware in your code.")
    for path in left:
        click.echo(f"{path} stays, as it contains other files.")


def _show(found: Holdings, settings: Settings) -> None:
    if found.tables:
        click.echo(f"Database {shown_url(settings.database)}: {', '.join(found.tables)}")
    click.echo(f"{counted(found.runs, 'run')} with {counted(found.artifacts, 'artifact')} in {settings.blob_dir}")
    click.echo(f"{counted(found.spool_entries, 'run')} waiting in {settings.spool}")
    for path in found.paths:
        click.echo(str(path))
