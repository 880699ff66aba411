"""The page of two compared runs."""

from __future__ import annotations

import falcon

from ...reports.accounting import EXPLANATIONS
from ...reports.charts import Spec, flame_chart, memory_chart
from ...reports.comparison import ComparedRun, Comparison
from ...reports.paths import shorten_paths
from ...reports.tree_diff import difference_boxes
from ..backend import Backend

#: The functions shown at once, and those behind "more".
_SHOWN_FUNCTIONS = 20
_MAX_FUNCTIONS = 500


def show_comparison(
    backend: Backend, req: falcon.Request, resp: falcon.Response, a: ComparedRun, b: ComparedRun, comparison: Comparison
) -> None:
    """Answers with the page: figures, charts, and tables of functions."""
    document = comparison.document
    memory = document["memory"]
    curves = [(which, samples) for which, samples in (("A", memory["a"]), ("B", memory["b"])) if samples]
    tables = {"time": document["time"]["functions"], "allocations": document["allocations"]["functions"]}
    backend.show(
        req,
        resp,
        "compare.html",
        a=a.run,
        b=b.run,
        memory=memory,
        accounting=document["accounting"],
        account_titles=EXPLANATIONS,
        time=document["time"],
        allocations=document["allocations"],
        charts={part: _flames(comparison, part) for part in tables},
        memory_chart=memory_chart(curves),
        short_paths=shorten_paths(row["file"] for table in tables.values() for row in table),
        shown_functions=_SHOWN_FUNCTIONS,
        max_functions=_MAX_FUNCTIONS,
    )


def _flames(comparison: Comparison, part: str) -> Spec | None:
    if part not in comparison.trees:
        return None
    a, b = comparison.trees[part]
    return flame_chart(difference_boxes(a["tree"], b["tree"]), a["unit"])
