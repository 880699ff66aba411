"""The errors of reports."""

from ..errors import DiagnosticsError


class ReportError(DiagnosticsError):
    """The report cannot be made from the stored artifact."""


class UnknownFormatError(ReportError):
    """The artifact has no such format."""


class TooManyRenderingsError(ReportError):
    """Too many reports are waiting to be rendered; ask again in a minute."""


class RenderingInProgress(DiagnosticsError):  # noqa: N818 - it is no error.
    """The report is being rendered; ask again in a second."""

    def __init__(self, *, elapsed_s: float, limit_s: float, waiting: bool) -> None:
        super().__init__()
        self.elapsed_s = elapsed_s
        "Seconds since it was begun, or while it waits, since it was asked for."
        self.limit_s = limit_s
        "Seconds that it may take."
        self.waiting = waiting
        "Whether it waits for other reports to end."
