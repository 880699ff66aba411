"""Prints the lowest version of each package that pyproject.toml itself asks for, as constraints for pip."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"].values()
for text in (*project["dependencies"], *(text for extra in extras for text in extra)):
    if text.startswith(project["name"]):
        continue
    match = re.fullmatch(r"(?P<name>[\w.-]+)(?:\[[\w,]+\])?>=(?P<version>[\w.]+)", text)
    if match is None:
        raise SystemExit(f"{text!r} in pyproject.toml has no lower bound that can be tried.")
    print(f"{match['name']}=={match['version']}")  # noqa: T201 - a command's output.
