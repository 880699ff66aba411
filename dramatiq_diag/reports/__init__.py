"""Artifacts made visible: forms for a person's eyes, rendered from the smaller forms that are stored."""

from .downloads import open_download
from .errors import ReportError

__all__ = ["ReportError", "open_download"]
