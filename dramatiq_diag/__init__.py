"""Diagnostics for Dramatiq: where did this task's time and memory go."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import DiagnosticsError, SettingsError
    from .middleware import Diagnostics
    from .settings import Settings

__all__ = ["Diagnostics", "DiagnosticsError", "Settings", "SettingsError"]

_MODULES = {
    "Diagnostics": ".middleware",
    "DiagnosticsError": ".errors",
    "Settings": ".settings",
    "SettingsError": ".errors",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is asked for: a process that renders a report, one of many, needs none of them."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name], __name__), name)
