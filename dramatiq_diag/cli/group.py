"""Groups the commands of `dramatiq-diag`, and prints this package's errors without a traceback."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any

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

#: The error numbers of an output that takes nothing more.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


class Commands(click.Group):
    """A group that prints this package's errors as one line, without a traceback."""

    def main(self, *args: Any, **options: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # A character that its encoding lacks is shown as a question mark.
                stream.reconfigure(errors="replace")
        return super().main(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except DiagnosticsError as error:
            click.echo(f"Error: {printable(' '.join(str(error).split()))}", err=True)
            ctx.exit(2 if isinstance(error, _CONFIGURATION) else 1)
        except OSError as error:
            if error.errno not in _FULL or error.filename is not None:
                raise
            click.echo(f"Error: The output cannot be written: {error.strerror}.", err=True)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python writes the rest when it ends.
            ctx.exit(1)


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
    *(demo, serve, migrate, tasks, actors, leaks, show, compare, artifacts, report),
    *(workers, stack, watch, attach, capture, show_captures),
    *(pin, unpin, delete, storage, cleanup, recover, doctor, check, uninstall),
):
    main.add_command(_command)
