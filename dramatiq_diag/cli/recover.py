"""`recover`: publishes the runs that dead workers left on this machine."""

from __future__ import annotations

from dataclasses import asdict

import click

from ..settings import Settings
from ..spool.contents import remedy_for
from ..spool.delivery import Delivery
from ..spool.directory import Spool
from ..text import counted
from .output import echo_json, json_option
from .store import opened_store


@click.command()
@json_option("the counts")
@click.pass_context
def recover(context: click.Context, *, as_json: bool) -> None:
    """Publish the runs that dead workers left in this machine's spool.

    Workers do that by themselves, when they start and while they run; use this on a machine without workers. The runs
    of living workers are left alone, and a run is never published twice. Exits 1 if an entry could not be published or
    a directory of the spool could not be used; they stay where they are.

    \b
    Example:
      dramatiq-diag recover --json
    """
    settings = Settings()
    spool = Spool(settings)
    with opened_store(settings) as store:
        salvaged = Delivery(spool, store).salvage()
    if as_json:
        echo_json(asdict(salvaged))
    else:
        click.echo(f"Recovered {counted(salvaged.recovered_runs, 'run')} from {settings.spool}.")
        if salvaged.refused_runs:
            click.echo(f"Not published, and left in place: {counted(salvaged.refused_runs, 'entry', 'entries')}.")
        for path, error in spool.passed_over.items():
            click.echo(f"{path} was passed over: {error.strerror or error}. {remedy_for(error)}")
    context.exit(1 if salvaged.refused_runs or spool.passed_over else 0)
