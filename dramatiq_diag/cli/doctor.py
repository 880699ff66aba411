"""`doctor`: what works here and what does not, with the remedy."""

from __future__ import annotations

import click

from ..settings import Settings
from ..text import printable
from .doctor_checks import Status, examine
from .output import echo_json, echo_table


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON.")
@click.pass_context
def doctor(context: click.Context, *, as_json: bool) -> None:
    """Look at what is installed, reachable and writable, and name the remedy for what is not.

    It changes nothing. Run it as the user of the worker, and with the worker's environment: every variable that begins
    with DRAMATIQ_DIAG_ counts, and TASK_DIAGNOSTICS says which collectors are needed. Exits 1 when there is a finding.

    \b
    Example:
      TASK_DIAGNOSTICS=memory,memray dramatiq-diag doctor
    """
    checks = examine(Settings())
    findings = sum(check.status is Status.FINDING for check in checks)
    if as_json:
        echo_json({"findings": findings, "checks": [vars(check) for check in checks]})
    else:
        echo_table(("", "WHAT", "HOW"), [(check.status, check.name, check.detail) for check in checks])
        remedies = [check for check in checks if check.remedy is not None]
        for check in remedies:
            click.echo(f"\n{check.name}: {printable(check.detail)}\n  {printable(check.remedy or '')}")
        click.echo(f"\n{findings or 'No'} finding{'' if findings == 1 else 's'}.")
    context.exit(1 if findings else 0)
