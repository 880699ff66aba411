"""When a report cannot be made."""

from ..errors import DiagnosticsError


class ReportError(DiagnosticsError):
    """The report cannot be made from what is stored."""


class UnknownFormatError(ReportError):
    """The artifact has no such format."""


class TooManyRenderingsError(ReportError):
    """Too many reports are waiting to be rendered; ask again in a minute."""
