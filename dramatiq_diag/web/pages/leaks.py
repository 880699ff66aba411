"""The page of the leaking actors: a table by verdict, with the evidence of each actor as a small curve."""

from __future__ import annotations

from collections.abc import Callable

import falcon

from ...documents.fields import actor_href
from ...insights.stored_leaks import LeakReport
from ...policy.leak_captures import LEAK_OPTIONS, LEAK_RUNS
from ...statuses import LeakVerdict
from ...store.allowed import reason_against
from ..backend import Backend
from .sparklines import line_through

#: The most actors with a curve, the leaking ones first: each is some kilobytes.
_MOST_CURVES = 100


def show_leaks(
    backend: Backend, req: falcon.Request, resp: falcon.Response, report: LeakReport, subject_of: Callable[[str], str]
) -> None:
    """Answers with the page.

    Parameters:
      subject_of: Gives the subject that the token of an actor's form of captures is signed for.
    """
    findings = report.findings
    curves = {found.actor_name: report.curve(found.actor_name) for found in findings[:_MOST_CURVES]}
    leaking = [found.actor_name for found in findings if found.verdict is LeakVerdict.LEAKS]
    may_capture = reason_against(LEAK_OPTIONS, backend.settings) is None
    backend.show(
        req,
        resp,
        "leaks.html",
        findings=findings,
        is_cut=report.is_cut,
        curves={name: line_through(points) for name, points in curves.items() if points},
        grown={name: max(kept for _, kept in points) for name, points in curves.items() if points},
        hrefs={found.actor_name: actor_href(found.actor_name) for found in findings},
        tokens={name: backend.signer.action_token(subject_of(name)) for name in leaking} if may_capture else {},
        capture_options=", ".join(
            f"{name}.{option}={str(value).lower()}"
            for name, options in LEAK_OPTIONS.items()
            for option, value in options.items()
        ),
        capture_names=list(LEAK_OPTIONS),
        capture_runs=LEAK_RUNS,
    )
