"""The contract of a collector."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict

from ..errors import UnavailableError

if TYPE_CHECKING:
    from ..process import Process
    from ..run import Run
    from ..settings import Settings

#: What the class attributes of a collector have to be, from end to end.
ARTIFACT_NAME_PATTERN = "[a-z][a-z0-9_]{0,63}"
FILENAME_PATTERN = "[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
MEDIA_TYPE_PATTERN = "[a-z0-9.+-]{1,60}/[a-z0-9.+-]{1,60}"


class Options(BaseModel):
    """What a message, an actor or a capture may say of how a collector works. Each field has a default, and limits."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Recording:
    """What one collector does for one run; made by `Collector.record`, dropped after `save`."""

    reason: str | None = None
    "Why the artifact is only partial, in words for a person; None while it is whole."

    quick: ClassVar[bool] = False
    """Whether `start`, `stop` and `save` are sure to return at once, or have to run on the threads that call them.

    Any other recording's steps run on a thread of their own, and one that hangs is abandoned: the artifact is `failed`,
    and the collector is left out of the later runs of the process.
    """

    enter: Callable[[], object] | None = None
    """What Dramatiq's hook itself calls after `start`, where one is given.

    memray's readers hide as many of the task's outermost frames as there are above the call of `Tracker.__enter__`, so
    that call must not be deeper than the one of the actor's function.
    """

    def start(self) -> None:
        """Begins to measure. The task's thread waits for it, just before its function is called.

        Raises:
          SkippedError: When this run is declined; the message is the artifact's reason.
        """

    def entered(self, error: Exception | None) -> None:
        """Runs after `enter`, with what that raised. Raises: SkippedError, or the error."""

    def stop(self) -> None:
        """Ends the measurement. The task's thread waits for it, so it does the least that it can.

        An interrupt of Dramatiq's may have cut `start` or an earlier `stop` short: it ends whatever has begun, and may
        be called again.
        """

    def save(self) -> None:
        """Leaves the file in the spool. The sealer's thread waits for it, after `stop`.

        That is `run.entry.write_file(collector.artifact_name, text)`, or whatever writes to the file
        `run.entry.path(collector.artifact_name)`; text that went to `run.append_text` is in the spool already.

        Raises:
          SkippedError: When there is nothing to leave; the message is the artifact's reason.
        """

    def discard(self) -> None:
        """Runs instead of `save` where the artifact is not kept, and returns at once.

        After it nothing is written; the file and its checkpoint are removed.
        """


class Collector:
    """A diagnostic that can be chosen by name. Built once per process, by `load`; its `record` runs for each run.

    A package of its own names its class under the entry point group `dramatiq_diag.collectors`, by the class's `name`.
    `dramatiq_diag.testing` has the tests of what is said here.

    Parameters:
      settings: The settings of this process.

    Raises:
      UnavailableError: When it cannot work here; the message has the remedy.
    """

    name: ClassVar[str]
    "What a user writes in TASK_DIAGNOSTICS."

    artifact_name: ClassVar[str]
    "The key of its artifact in `urls`, its own: a lower case letter, then those, digits and underscores."

    filename: ClassVar[str]
    "The name under which its artifact is downloaded."

    media_type: ClassVar[str]
    "The media type of the download."

    stored_as: ClassVar[str | None] = None
    "The name of the stored form, where this package renders the download from a smaller one; None for all others."

    options_class: ClassVar[type[Options]] = Options
    "The options that a request may give; the run has them as `run.options(self)`."

    process: Process
    "The process it works in, with the ticker that it may use; set by `open`."

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.default_options = self.options_class()

    def open(self, process: Process) -> None:
        """Makes what the process is to hold, before the first `record`."""
        self.process = process

    def record(self, run: Run) -> Recording:
        """Makes the recording of a run, which measures nothing yet.

        Returns:
          The recording; its state is its own, as worker threads share the collector.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Lets go of what the process holds, after the last recording has stopped."""


class StandIn(Collector):
    """Describes the artifact of a collector that a run does not have: that says why."""

    def __init__(self, settings: Settings, wanted: type[Collector]) -> None:
        super().__init__(settings)
        # Instance attributes hide the annotations of the class: this object describes the artifact of another class.
        vars(self).update(
            {
                field: getattr(wanted, field)
                for field in ("name", "artifact_name", "filename", "media_type", "stored_as", "options_class")
            }
        )


class UnavailableCollector(StandIn):
    """Stands in for a collector that cannot work here, so that each run of it says why."""

    def __init__(self, settings: Settings, wanted: type[Collector], reason: str) -> None:
        super().__init__(settings, wanted)
        self.reason = reason

    def record(self, run: Run) -> Recording:
        raise UnavailableError(self.reason)
