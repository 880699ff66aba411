"""`workers`: lists the worker processes, and what they execute."""

from __future__ import annotations

import click

from ..documents.workers import ExecutedRunDocument, WorkerDocument, workers_document
from ..settings import Settings
from ..text import format_duration, format_size
from .output import Columns, echo_heading, echo_json, echo_table, json_option, shown_name, shown_time
from .store import opened_store


def _shown(seconds: float | None) -> str:
    return format_duration(None if seconds is None else seconds * 1000)


_COLUMNS: Columns[WorkerDocument] = {
    "STATE": lambda worker: worker["state"],
    "HOST": lambda worker: worker["hostname"],
    "PID": lambda worker: str(worker["pid"]),
    "SINCE": lambda worker: shown_time(worker["started_at"]),
    "HEARD OF": lambda worker: f"{format_duration(worker['heard_s_ago'] * 1000)} ago",
    "BUSY": lambda worker: "-" if worker["threads"] is None else f"{worker['threads_busy']} of {worker['threads']}",
    "RSS": lambda worker: format_size(worker["rss_bytes"]),
    "CPU": lambda worker: _shown(worker["cpu_s"]),
    "DIAGNOSTICS": lambda worker: _shown(worker["diagnostics_cpu_s"]),
    "SPOOL": lambda worker: format_size(worker["spool_bytes"]),
    "VERSION": lambda worker: worker["version"],
    "QUEUES": lambda worker: "-" if worker["queues"] is None else ",".join(worker["queues"]),
}
_RUN_COLUMNS: Columns[tuple[WorkerDocument, ExecutedRunDocument]] = {
    "FOR": lambda pair: format_duration(pair[1]["age_s"] * 1000),
    "USUALLY": lambda pair: format_duration(pair[1]["usual_duration_ms"]),
    "ACTOR": lambda pair: shown_name(pair[1]["actor_name"]),
    "WHERE": lambda pair: f"{pair[0]['hostname']}, {pair[0]['pid']}",
    "STATE": lambda pair: pair[0]["state"],
    "STUCK": lambda pair: "stuck" if pair[1]["is_stuck"] else "-",
    "TASK ID": lambda pair: pair[1]["task_id"],
}


@click.command()
@click.option("--all", "every_state", is_flag=True, help="Also those of the last day that are gone.")
@json_option("the document of GET /workers/")
def workers(*, every_state: bool, as_json: bool) -> None:
    """List the worker processes and the tasks that they execute, diagnosed or not.

    A process reports itself every 5 s. It is `lost` when it was not heard of for 30 s: it was killed, is frozen, or
    does not reach the database; then the tasks are those of its last report. It is `gone` when it said goodbye.

    CPU is the CPU time of all threads of the process, DIAGNOSTICS that of the threads of this package among them.

    \b
    Examples:
      dramatiq-diag workers
      dramatiq-diag stack TASK_ID             see what one of the tasks waits for
    """
    with opened_store(Settings()) as store, store.session() as session:
        document = workers_document(session, every_state=every_state)
    if as_json:
        echo_json(document)
    elif not document["workers"]:
        click.echo("No worker process has reported itself to this database within the last hour.")
    else:
        echo_table(_COLUMNS, document["workers"])
        executed = [(worker, run) for worker in document["workers"] for run in worker["runs"]]
        if executed:
            echo_heading("They execute:")
            echo_table(_RUN_COLUMNS, executed)
