"""Makes the commands and environments of child processes that run Python."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

from ..errors import NotInstalledError

#: The only environment variables that a child gets. Others may contain the API token or the password of the database,
#: and a damaged allocation profile may take control of the child that reads it.
_PASSED_ON = ("LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "PYTHONPATH", "TZ")

#: The code of a child: it adds the import paths of this process to its own, then calls a function with its arguments.
_START = (
    "import sys; sys.path += [path for path in sys.argv.pop(1).split('\\n') if path not in sys.path]; "
    "from importlib import import_module; module, name = sys.argv.pop(1).split(':'); "
    "sys.exit(getattr(import_module(module), name)(*sys.argv[1:]))"
)


def python_command(function: str, *arguments: str) -> list[str]:
    """Makes the command of a child process.

    Parameters:
      function: The function that it calls, as `module:name`; its result is the exit status.
      arguments: The arguments of the function.

    Raises:
      NotInstalledError: When there is no interpreter of this version.
    """
    paths = "\n".join(path for path in sys.path if os.path.isabs(path))
    return [python_executable(), "-P", "-c", _START, paths, function, *arguments]


def environment(scratch: str) -> dict[str, str]:
    """Returns: The environment of a child process, which writes to the directory *scratch* alone."""
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {**passed_on, "HOME": scratch, "TMPDIR": scratch}


def python_executable() -> str:
    """Returns: The interpreter of this process, or one of the same version if a server embeds Python, as uWSGI does.

    Raises:
      NotInstalledError: When there is none.
    """
    if Path(sys.executable or "").name.lower().startswith(("python", "pypy")):
        return sys.executable
    versioned = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    directories = [f"{sys.prefix}/bin", str(sysconfig.get_config_var("BINDIR"))]
    candidates = [f"{directory}/{versioned}" for directory in directories] + [f"{sys.prefix}/bin/python"]
    for candidate in candidates:
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    raise NotInstalledError(
        f"No {versioned}, which makes reports, was found in {' and '.join(dict.fromkeys(directories))}; "
        f"{sys.executable!r} embeds Python and cannot be used."
    )
