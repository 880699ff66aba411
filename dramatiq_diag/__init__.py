"""Diagnostics for Dramatiq: where did this task's time and memory go."""

from .errors import DiagnosticsError, SettingsError
from .middleware import Diagnostics
from .settings import Settings

__all__ = ["Diagnostics", "DiagnosticsError", "Settings", "SettingsError"]
