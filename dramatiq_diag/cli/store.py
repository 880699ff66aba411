"""`migrate`, `cleanup` and `check`: maintain the store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from operator import itemgetter
from typing import TypeVar

import click

from ..errors import StoreUnavailableError
from ..maintenance import consistency
from ..maintenance.cleanup import Cleanup
from ..maintenance.leak_captures import LeakCaptures, capture_leaks, refusals
from ..settings import Settings
from ..settings.urls import shown_url
from ..store import migration
from ..store.store import Store
from ..text import format_size, printable
from .output import counter, echo_json, echo_table, json_option

T = TypeVar("T")


@contextmanager
def opened_store(settings: Settings) -> Iterator[Store]:
    """Opens the database of the settings, and closes it at the end. The blob root is claimed by what stores blobs."""
    store = Store(settings)
    try:
        store.open_database()
        yield store
    finally:
        store.close()


def patiently(call: Callable[[], T], patience_s: float = 60.0, pause_s: float = 1.0) -> T:
    """Makes a call again while the store is out of reach, and says so once. Raises: The error after *patience_s*."""
    until, is_said = time.monotonic() + patience_s, False
    while True:
        try:
            return call()
        except StoreUnavailableError as error:
            if time.monotonic() >= until:
                raise
            if not is_said:
                click.echo(f"{error} It is tried again for {patience_s:.0f} s.", err=True)
            is_said = True
            time.sleep(pause_s)


def echo_captures(results: LeakCaptures) -> None:
    """Prints captures of leaking actors that were just made, and those that are not allowed, to standard error."""
    for text in refusals(results):
        click.echo(text, err=True)
    for standing in results.made:
        name = printable(standing.capture.actor_name)
        click.echo(f"Capture {standing.capture.capture_id}: the next runs of {name}.", err=True)


@click.command()
def migrate() -> None:
    """Bring the database's schema to the version that this package needs.

    It is safe to run again, and from several machines at once. An SQLite file in the data dir is migrated by itself;
    PostgreSQL needs this once after each installation. Each step is printed before it begins, as an index of a large
    table takes long.

    \b
    Example:
      DRAMATIQ_DIAG_DATABASE_URL=postgresql://diag@db/diag dramatiq-diag migrate
    """
    settings = Settings()
    revision = migration.migrate(settings, partial(click.echo, err=True))
    click.echo(f"{shown_url(settings.database)} is at revision {revision}.")


@click.command()
@click.option("--dry-run", is_flag=True, help="Only count, and remove nothing.")
@json_option("the counts")
def cleanup(*, dry_run: bool, as_json: bool) -> None:
    """Remove artifacts past their protection time, and files and rows without an owner.

    Workers schedule the cleanup by themselves; run it from cron where that schedule is off. The settings are
    DRAMATIQ_DIAG_ORPHAN_PROTECTION_TIME (seconds an artifact is kept) and DRAMATIQ_DIAG_RUN_RETENTION (seconds the row
    of a run is kept). Beyond DRAMATIQ_DIAG_MAX_BYTES and DRAMATIQ_DIAG_MAX_RUNS the oldest goes, however young it is.
    With DRAMATIQ_DIAG_LEAK_CAPTURES it then asks for allocation profiles of leaking actors. A cleanup frees at least as
    many bytes as a dry run counts: reports in this machine's cache go with their artifacts.

    \b
    Example:
      dramatiq-diag cleanup --dry-run
    """
    settings = Settings()
    with opened_store(settings) as store, counter("Removed") as show:
        counts = Cleanup(store, dry_run=dry_run, on_batch=lambda counts: show(counts.total)).run()
        captures = capture_leaks(store) if settings.leak_captures and not dry_run else LeakCaptures([], {})
    echo_captures(captures)
    document = asdict(counts)
    if as_json:
        echo_json(document)
        return
    texts = {name: format_size(number) if name.endswith("_bytes") else str(number) for name, number in document.items()}
    if dry_run:
        click.echo("Nothing was removed. A cleanup would remove:")
    columns = {"WHAT": lambda name: name.replace("_", " "), "COUNT": texts.__getitem__}
    echo_table(columns, texts)


@click.command()
@click.option(
    "--fix", is_flag=True, help="Mark artifacts without their whole file, remove files without a row, mend counters."
)
@click.option("--blobs-lost", is_flag=True, help="With --fix: the blob directory is empty because its files are lost.")
@json_option("the findings")
@click.pass_context
def check(context: click.Context, *, fix: bool, blobs_lost: bool, as_json: bool) -> None:
    """Compare every artifact's row with its file, byte by byte, every file with the rows, and the counters of what is
    stored with the rows.

    Exits 1 when something was found, fixed or not. Refuses and exits 2 where DRAMATIQ_DIAG_DATABASE_URL and
    DRAMATIQ_DIAG_BLOB_URL belong to different stores, or where the blob directory is empty while the database knows
    blobs: the directory may be a disk that is not mounted.

    \b
    Example:
      dramatiq-diag check --fix
    """
    if blobs_lost and not fix:
        raise click.UsageError("--blobs-lost needs --fix.")
    with opened_store(Settings()) as store, counter("Read") as show:
        findings = consistency.check(store, fix=fix, blobs_lost=blobs_lost, on_blob=show)
    document = asdict(findings)
    if as_json:
        echo_json(document)
    elif findings:
        rows = [(kind.replace("_", " "), name) for kind, names in document.items() for name in names]
        echo_table({"FOUND": itemgetter(0), "WHAT": itemgetter(1)}, rows)
        click.echo("Fixed." if fix else "Fix it with: dramatiq-diag check --fix")
    else:
        click.echo("Every artifact has its whole file, every file its artifact, and the counters are right.")
    context.exit(1 if findings else 0)
