"""Checks the installation, the directories, the spool and the store; each finding has a remedy."""

from __future__ import annotations

from ...settings import Settings
from .check import Check, Status, guarded
from .directories import check_directories
from .installation import check_installation
from .spool import check_spool
from .store import check_store

__all__ = ["Check", "Status", "examine"]


def examine(settings: Settings) -> list[Check]:
    """Makes all checks. Changes nothing, and raises nothing: what a check does not expect is a finding."""
    return [
        *guarded("installation", check_installation, settings),
        *guarded("directories", check_directories, settings),
        *guarded("spool", check_spool, settings),
        *guarded("store", check_store, settings),
    ]
