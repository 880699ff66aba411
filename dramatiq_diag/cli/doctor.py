"""`doctor`: checks the installation, the settings and the store, and names remedies."""

from __future__ import annotations

import click

from ..settings import Settings
from ..text import printable
from .doctor_checks import Check, Status, examine
from .output import Columns, echo_json, echo_table, json_option

_COLUMNS: Columns[Check] = {
    "": lambda check: check.status,
    "WHAT": lambda check: check.name,
    "HOW": lambda check: check.detail,
}


@click.command()
@json_option("the checks")
@click.pass_context
def doctor(context: click.Context, *, as_json: bool) -> None:
    """Check the packages, the settings, the directories and the database, and name a remedy for each finding.

    It changes nothing. Run it as the user of the worker, and with the worker's environment: the variables that begin
    with DRAMATIQ_DIAG_, and TASK_DIAGNOSTICS, which says which collectors are needed. Exits 1 when there is a finding.

    \b
    Example:
      TASK_DIAGNOSTICS=memory,memray dramatiq-diag doctor
    """
    checks = examine(Settings())
    findings = sum(check.status is Status.FINDING for check in checks)
    if as_json:
        echo_json({"findings": findings, "checks": [vars(check) for check in checks]})
    else:
        echo_table(_COLUMNS, checks)
        remedies = [check for check in checks if check.remedy is not None]
        for check in remedies:
            click.echo(f"\n{check.name}: {printable(check.detail)}\n  {printable(check.remedy or '')}")
        click.echo(f"\n{findings or 'No'} finding{'' if findings == 1 else 's'}.")
    context.exit(1 if findings else 0)
