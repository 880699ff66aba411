"""Checks the installation, the directories, the spool and the store; each finding has a remedy."""

from __future__ import annotations

from ...settings import Settings
from .check import Check, Status
from .directories import check_directories
from .installation import check_installation
from .spool import check_spool
from .store import check_store

__all__ = ["Check", "Status", "examine"]


def examine(settings: Settings) -> list[Check]:
    """Makes all checks. Changes nothing."""
    return [
        *check_installation(settings),
        *check_directories(settings),
        *check_spool(settings),
        *check_store(settings),
    ]
