"""Runs the benchmarks: `python -m bench [--json FILE] [name ...]`."""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import sys
from pathlib import Path

from .result import Result, table

NAMES = (
    "importing",
    "hooks",
    "overhead",
    "publisher",
    "kept",
    "profile",
    "truth",
    "accounting",
    "cpu",
    "long",
    "stored",
    "lists",
    "large",
    "growth",
    "reports",
    "outage",
    "salvage",
    "stacks",
)

#: Are left out unless they are named: two take an hour each, one needs the right to make cgroups.
_ON_REQUEST = ("soak", "leaks", "oom")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="name",
        help=f"out of {', '.join(NAMES + _ON_REQUEST)}; without names, all but {', '.join(_ON_REQUEST)}",
    )
    parser.add_argument("--json", type=Path, default=Path("bench.json"), help="where to write the figures")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - {*NAMES, *_ON_REQUEST}
    if unknown:
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    results: list[Result] = []
    for name in arguments.names or NAMES:
        for result in importlib.import_module(f".{name}", __package__).run():
            print(f"{result.what}: {result.measured}", file=sys.stderr)  # noqa: T201
            results.append(result)
    machine = {"python": platform.python_version(), "machine": platform.machine(), "system": platform.system()}
    arguments.json.write_text(json.dumps({**machine, "results": [result.row() for result in results]}, indent=2) + "\n")
    print(table(results))  # noqa: T201


main()
