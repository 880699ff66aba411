"""`leaks`: lists the actors by what their runs keep of the memory."""

from __future__ import annotations

from datetime import datetime

import click

from ..documents.leaks import ActorLeakDocument, leaks_document
from ..insights.stored_leaks import read_leaks
from ..maintenance.leak_captures import LeakCaptures, capture_leaks
from ..settings import Settings
from ..statuses import LeakVerdict
from ..text import format_size
from .output import Columns, echo_json, echo_table, json_option, shown_name
from .parameters import moment
from .store import echo_captures, opened_store

_COLUMNS: Columns[ActorLeakDocument] = {
    "VERDICT": lambda actor: actor["verdict"],
    "KEPT OF A RUN": lambda actor: _kept(actor["bytes_per_run"]),
    "FROM": lambda actor: _kept(actor["low"]),
    "TO": lambda actor: _kept(actor["high"]),
    "RUNS": lambda actor: str(actor["runs"]),
    "MORE NEEDED": lambda actor: "-" if actor["runs_needed"] is None else str(actor["runs_needed"]),
    "ACTOR": lambda actor: shown_name(actor["actor_name"]),
}


@click.command()
@click.option("--since", type=moment, help="Only memory looked at then or later: a time, or an age such as 24h.")
@click.option("--capture", "capture", is_flag=True, help="Ask for allocation profiles of the leaking actors.")
@json_option("the document of GET /leaks/")
@click.pass_context
def leaks(context: click.Context, *, since: datetime | None, capture: bool, as_json: bool) -> None:
    """Find out whose runs keep memory that nothing frees later.

    Worker processes count the runs of each actor, diagnosed or not, and look at the memory that is in use when a run
    has ended. This command finds the actors whose runs that memory grows with. KEPT OF A RUN is the memory that each
    run keeps. FROM and TO are its confidence interval of 95 %, for actors that are not undecided. The warm-up of each
    process does not count; see the page about leaks in the documentation for the limits.

    With --capture memray records the next 3 runs of each leaking actor, and its reports then show the line. An actor
    that had such a capture within a day is left out. Exits 1 if a capture is not allowed.

    \b
    Examples:
      dramatiq-diag leaks
      dramatiq-diag leaks --since 24h --json
      dramatiq-diag leaks --capture
    """
    with opened_store(Settings()) as store:
        with store.session() as session:
            document = leaks_document(read_leaks(session, since).findings)
        leaking = [actor["actor_name"] for actor in document["actors"] if actor["verdict"] == LeakVerdict.LEAKS]
        captures = capture_leaks(store, leaking) if capture else LeakCaptures([], {})
    if as_json:
        echo_json(document)
    elif document["actors"]:
        echo_table(_COLUMNS, document["actors"])
    else:
        click.echo("Nothing is known yet: no run has ended on a worker whose memory was looked at for long enough.")
    echo_captures(captures)
    if capture and not any(captures):
        click.echo("No capture was made: no actor leaks that had no capture within a day.", err=True)
    context.exit(1 if captures.refused else 0)


def _kept(size_bytes: float | None) -> str:
    return "-" if size_bytes is None else format_size(round(size_bytes))
