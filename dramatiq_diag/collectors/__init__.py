"""Measures runs. Importing this package imports no collector and no pydantic: the settings need the names alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import Collector, Options, Recording, RunContext

__all__ = ["Collector", "Options", "Recording", "RunContext"]


def __getattr__(name: str) -> Any:
    """Returns: A public class, imported on first use. Raises: AttributeError."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import base

    return getattr(base, name)
