"""`migrate`, `cleanup` and `check`: the store's upkeep."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial

import click

from ..maintenance import consistency as checking
from ..maintenance.cleanup import Cleanup
from ..settings import Settings
from ..settings.urls import shown_url
from ..store import migration
from ..store.store import Store
from ..text import format_size
from .output import counter, echo_json, echo_table


@contextmanager
def opened_store(settings: Settings) -> Iterator[Store]:
    """The store of the settings, open, and closed at the end."""
    store = Store(settings)
    try:
        store.open()
        yield store
    finally:
        store.close()


@click.command()
def migrate() -> None:
    """Bring the database's schema to the version that this package needs.

    Safe to run again, and from several machines at once. An SQLite file in the data dir is migrated without being
    asked; PostgreSQL needs this once after each installation. Each step is said before it is taken: an index of a large
    table takes its time.

    \b
    Example:
      DRAMATIQ_DIAG_DATABASE_URL=postgresql://diag@db/diag dramatiq-diag migrate
    """
    settings = Settings()
    revision = migration.migrate(settings, partial(click.echo, err=True))
    click.echo(f"{shown_url(settings.database)} is at revision {revision}.")


@click.command()
@click.option("--dry-run", is_flag=True, help="Count only, and remove nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def cleanup(*, dry_run: bool, as_json: bool) -> None:
    """Remove artifacts past their protection time, and whatever nothing speaks for any more.

    Workers schedule this by themselves; from cron it is for those who turned the schedule off. It reads
    DRAMATIQ_DIAG_ORPHAN_PROTECTION_TIME (seconds an artifact is kept) and DRAMATIQ_DIAG_RUN_RETENTION (seconds the row
    of a run is kept).

    \b
    Example:
      dramatiq-diag cleanup --dry-run
    """
    with opened_store(Settings()) as store, counter("Removed") as show:
        counts = Cleanup(store, dry_run=dry_run, on_batch=lambda counts: show(counts.total)).run()
    document = asdict(counts)
    if as_json:
        echo_json(document)
        return
    texts = {name: format_size(number) if name.endswith("_bytes") else str(number) for name, number in document.items()}
    if dry_run:
        click.echo("Nothing was removed; a cleanup now would count:")
    echo_table(("WHAT", "COUNT"), [(name.replace("_", " "), text) for name, text in texts.items()])


@click.command()
@click.option("--fix", is_flag=True, help="Mend: mark artifacts without their whole file, remove files without a row.")
@click.option("--blobs-lost", is_flag=True, help="With --fix: the blob directory is empty because its files are lost.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_context
def check(context: click.Context, *, fix: bool, blobs_lost: bool, as_json: bool) -> None:
    """Compare every artifact's row with its file, byte by byte, and every file with the rows.

    Exits 1 when something was found, mended or not. Where DRAMATIQ_DIAG_DATABASE_URL and DRAMATIQ_DIAG_BLOB_URL are not
    of one store, it refuses and exits 2; so it does where the blob directory is empty while the database knows of
    blobs, as a disk that is not mounted looks like that.

    \b
    Example:
      dramatiq-diag check --fix
    """
    if blobs_lost and not fix:
        raise click.UsageError("--blobs-lost goes with --fix.")
    with opened_store(Settings()) as store, counter("Read") as show:
        findings = checking.check(store, fix=fix, blobs_lost=blobs_lost, on_blob=show)
    document = asdict(findings)
    if as_json:
        echo_json(document)
    elif findings:
        rows = [(kind.replace("_", " "), name) for kind, names in document.items() for name in names]
        echo_table(("FOUND", "ARTIFACT OR FILE"), rows)
        click.echo("Mended." if fix else "Mend with: dramatiq-diag check --fix")
    else:
        click.echo("Every artifact has its file, whole, and every file its artifact.")
    context.exit(1 if findings else 0)
