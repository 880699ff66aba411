"""`uninstall`: what is left to do before the package itself is removed."""

from __future__ import annotations

import sys

import click

from ..maintenance.uninstall import Holdings, Removal
from ..settings import Settings
from .output import counter


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask; needed where there is no terminal to ask at.")
def uninstall(*, yes: bool) -> None:
    """Remove everything that was stored: the tables, the artifacts, the spool, and the key of download URLs, for good.

    Stop all workers first. It goes by the settings of the environment, and touches nothing that this package has not
    made: other tables of the database and other files of the directories stay. Of a spool on other machines it does not
    know; run it there as well, after this.

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
    _tell(found, settings)
    if not yes:
        if not _at_terminal():
            raise click.UsageError("There is no terminal to ask at; say --yes to remove it.")
        click.confirm("Remove all of it for good?", abort=True)
    with counter("Removed") as show:
        left = removal.run(show)
    click.echo("Removed. What is left: pip uninstall dramatiq_diag, and the middleware in your code.")
    for path in left:
        click.echo(f"{path} stays, as something else is in it.")


def _at_terminal() -> bool:
    return sys.stdin.isatty()


def _tell(found: Holdings, settings: Settings) -> None:
    if found.tables:
        click.echo(f"Database {settings.database.render_as_string(hide_password=True)}: {', '.join(found.tables)}")
    click.echo(f"{found.runs} runs with {found.artifacts} artifacts in {settings.blob_dir}")
    click.echo(f"{found.spool_entries} runs that wait in {settings.spool}")
    for path in found.paths:
        click.echo(str(path))
