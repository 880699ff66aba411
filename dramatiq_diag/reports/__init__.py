"""Artifacts made visible: forms for a person's eyes, rendered from the smaller forms that are stored."""

from .downloads import FORMATS, Form, form_of, open_download
from .errors import ReportError, UnknownFormatError

__all__ = ["FORMATS", "Form", "ReportError", "UnknownFormatError", "form_of", "open_download"]
