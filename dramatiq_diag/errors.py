"""Defines the errors of this package. The docstring of a class is its default message."""

import inspect
from collections.abc import Callable

from dramatiq.middleware import Interrupt

#: Errors of a collector that are caught. Dramatiq's interrupts are not among them: they are meant for the task.
GUARDED = (Exception, SystemExit)

#: What is raised again where everything else is caught: those interrupts, and the end of a generator.
PASSED_ON = (Interrupt, GeneratorExit)


class DiagnosticsError(Exception):
    """Diagnostics failed; the log has the cause."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or inspect.cleandoc(type(self).__doc__ or ""))


class SettingsError(DiagnosticsError, ValueError):
    """A setting has a value that is not allowed."""


class NotInstalledError(DiagnosticsError, ImportError):
    """An optional package is not installed."""


class StoreError(DiagnosticsError):
    """An operation of the store failed."""


class StoreUnavailableError(StoreError):
    """The database or the blob directory cannot be reached; check it with `dramatiq-diag doctor`."""


class RunRefusedError(StoreError):
    """The database rejects the data of this run."""


class SchemaError(StoreError):
    """The database's schema is not the one this version needs; run `dramatiq-diag migrate`."""


class StoreMismatchError(StoreError):
    """The blob directory belongs to another database; nothing was changed.

    Point DRAMATIQ_DIAG_DATABASE_URL and DRAMATIQ_DIAG_BLOB_URL at two halves of one store. A new database needs a blob
    directory of its own: set another DRAMATIQ_DIAG_BLOB_URL, or move the old directory away.
    """


class BlobMissingError(StoreError):
    """The file of this artifact is not in the blob store."""


class SpoolError(DiagnosticsError):
    """The spool directory cannot be used; see DRAMATIQ_DIAG_SPOOL_DIR."""


class SkippedError(DiagnosticsError):
    """A collector declined this run; raised by `Recording.start` with the reason as its message."""


class UnavailableError(DiagnosticsError):
    """A collector cannot work here; raised by its constructor with the remedy as its message."""


class StepTimeoutError(DiagnosticsError):
    """A step of a collector did not return in time."""

    def __init__(self, message: str, is_over: Callable[[], bool] = lambda: True, *, has_begun: bool = True) -> None:
        super().__init__(message)
        self.is_over = is_over
        "Whether the step has returned since."
        self.has_begun = has_begun
        "False where the process was too busy to begin it: then it does not hang."
