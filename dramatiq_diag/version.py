"""Says which version of this package runs."""

from importlib.metadata import PackageNotFoundError, version


def own_version() -> str:
    """Returns: The version, or `unknown` in an application that was frozen, or has a copy of the package."""
    try:
        return version("dramatiq_diag")
    except PackageNotFoundError:
        return "unknown"
