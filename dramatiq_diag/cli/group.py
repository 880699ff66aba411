"""Groups the commands of `dramatiq-diag`, and prints this package's errors without a traceback."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import Any, TextIO

import click

from ..errors import DiagnosticsError, NotInstalledError, SettingsError, StoreMismatchError
from ..text import printable
from .actors import actors
from .artifacts import artifacts
from .attach import attach
from .capture import capture, show_captures
from .compare import compare
from .demo import demo
from .doctor import doctor
from .keep import delete, pin, unpin
from .leaks import leaks
from .recover import recover
from .releases import releases
from .report import report
from .serve import serve
from .show import show
from .stack import stack
from .storage import storage
from .store import check, cleanup, migrate
from .tasks import tasks
from .uninstall import uninstall
from .watch import watch
from .workers import workers

#: Errors of settings or installation: trying again makes no sense.
_CONFIGURATION = (NotInstalledError, SettingsError, StoreMismatchError)

#: The error numbers of an output that takes nothing more. A closed pipe is not among them: click ends quietly then.
_NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

#: What the streams do by themselves about a character that their encoding lacks, and raise no error.
_FORGIVING = ("replace", "backslashreplace", "namereplace", "xmlcharrefreplace", "ignore")


class Commands(click.Group):
    """A group that prints this package's errors as one line, without a traceback."""

    def main(self, *args: Any, **options: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper) and stream.errors not in _FORGIVING:
                stream.reconfigure(errors="replace")  # Names of tasks and actors may have any character.
        try:
            return super().main(*args, **options)
        except OSError as error:
            if not _is_of_output(error):
                raise
            with suppress(OSError):
                click.echo(f"Error: The output cannot be written: {error.strerror or error}.", err=True)
            with suppress(OSError, ValueError):  # Python writes the rest when it ends, and would complain again.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            _flush()  # While an error of it can still be told.
            return result
        except DiagnosticsError as error:
            click.echo(f"Error: {printable(' '.join(str(error).split()))}", err=True)
            ctx.exit(2 if isinstance(error, _CONFIGURATION) else 1)


def _is_of_output(error: OSError) -> bool:
    """Returns: Whether the error is one of standard output, or of standard error, and not of a file."""
    try:
        _flush()  # What could not be written is tried again.
    except OSError:
        return True
    return error.filename is None and error.errno in _NOT_WRITABLE


def _flush() -> None:
    """Writes what waits for standard output, which may be closed."""
    stream: TextIO | None = sys.stdout
    if stream is not None:
        stream.flush()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="dramatiq_diag")
def main() -> None:
    """Where did this task's time and memory go: diagnostics for Dramatiq workers.

    The settings are environment variables, the same for workers and for this command. The most important ones:

    \b
      TASK_DIAGNOSTICS            the diagnostics of every task: memory, pyinstrument, memray, or all
      DRAMATIQ_DIAG_DATA_DIR      the directory of all data, ./.dramatiq_diag by default
      DRAMATIQ_DIAG_DATABASE_URL  PostgreSQL in place of SQLite in the data dir

    \b
    Exit codes:
      0  done, and all is well
      1  done, with findings or failures; or not done, because the store cannot be reached or a port is taken
      2  wrong usage or configuration; nothing was done

    \b
    Examples:
      dramatiq-diag demo                      see it work, without a broker or a database
      dramatiq-diag tasks                     list the recent runs
      dramatiq-diag actors                    list the actors with their figures
      dramatiq-diag leaks                     find out whose runs keep memory
      dramatiq-diag releases ACTOR            find out whether an actor became slower with a release
      dramatiq-diag show TASK_ID              show one run: its memory, its time, its allocations
      dramatiq-diag compare TASK_A TASK_B     find out what became slower or larger
      dramatiq-diag artifacts TASK_ID         list the artifacts of a run
      dramatiq-diag workers                   list the worker processes and what they execute
      dramatiq-diag stack TASK_ID             see what a running task waits for now
      dramatiq-diag watch TASK_ID             follow a running task
      dramatiq-diag attach TASK_ID --diagnostics pyinstrument       profile a running task for 30 s
      dramatiq-diag report TASK_ID            write its time profile
      dramatiq-diag capture ACTOR --diagnostics memray --runs 5     measure the next runs of an actor
      dramatiq-diag doctor                    find out why something was not collected
    """


for _command in (
    *(demo, serve, migrate, tasks, actors, leaks, releases, show, compare, artifacts, report),
    *(workers, stack, watch, attach, capture, show_captures),
    *(pin, unpin, delete, storage, cleanup, recover, doctor, check, uninstall),
):
    main.add_command(_command)
