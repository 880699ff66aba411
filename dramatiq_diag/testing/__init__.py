"""Tests that a collector of another package has to pass."""

from .contract import CollectorContract

__all__ = ["CollectorContract"]
