"""The contract of a collector."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict

from ..errors import UnavailableError

if TYPE_CHECKING:
    from dramatiq import Actor

    from .services import Services

#: What the class attributes of a collector have to be, from end to end.
ARTIFACT_NAME_PATTERN = "[a-z][a-z0-9_]{0,63}"
FILENAME_PATTERN = "[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
MEDIA_TYPE_PATTERN = "[a-z0-9.+-]{1,60}/[a-z0-9.+-]{1,60}"


def checkpoint_name(artifact_name: str) -> str:
    """Returns: The name of the file that stands in for an artifact's file until that is saved."""
    return f"{artifact_name}.part"


class Options(BaseModel):
    """What a message, an actor or a capture may say of how a collector works. Each field has a default, and limits."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class CollectorSettings(Protocol):
    """The values of the settings that built-in collectors read; `Settings` has them, under these names."""

    @property
    def memory_interval(self) -> float: ...
    @property
    def pyinstrument_interval(self) -> float: ...
    @property
    def pyinstrument_engine(self) -> str: ...
    @property
    def pyinstrument_start_after(self) -> float: ...
    @property
    def memray_wait(self) -> float: ...
    @property
    def memray_max_bytes(self) -> int: ...
    @property
    def logs_max_bytes(self) -> int: ...
    @property
    def resources_interval(self) -> float: ...


class RunFiles(Protocol):
    """The files of one run in the spool, one for each name of an artifact, besides its entry."""

    def path(self, name: str) -> Path:
        """Returns: The path that the file of this artifact is to be written to."""

    def write_file(self, name: str, text: str | Iterable[str]) -> None:
        """Writes the file of this artifact, whole or not at all. Raises: OSError."""


class RunContext(Protocol):
    """A run as its recordings see it. Times are seconds of `clock`, unless the name says otherwise."""

    @property
    def task_id(self) -> str: ...
    @property
    def actor_name(self) -> str: ...
    @property
    def actor(self) -> Actor[..., Any]: ...
    @property
    def entry(self) -> RunFiles: ...
    @property
    def clock(self) -> Callable[[], float]: ...
    @property
    def enter_error(self) -> Exception | None:
        """The error of `Recording.enter`, until `Recording.entered` has it."""

    thread_id: int
    "The id of the task's thread by `threading.get_ident`."
    native_id: int
    "The id of the task's thread in the kernel."
    thread_name: str
    started: float
    "The time at which the actor's function was called."
    started_at_s: float
    "The same moment in seconds since the epoch."
    ended: float | None
    "The time at which the function returned; None before that."
    cpu_started_s: float
    "The CPU time of the task's thread when the function was called, in seconds."
    cpu_ended_s: float | None
    first_rss_bytes: int | None
    "The RSS before the collectors started; None where it could not be read."
    last_rss_bytes: int | None
    "The RSS when the function had returned; None before that."
    is_executing: bool
    "Whether the function has been called. A recording made after that starts late, on another thread."
    coroutine: Coroutine[Any, Any, Any] | None
    "The coroutine of an async actor, once it is known and while a collector may start late."

    @property
    def elapsed_s(self) -> float:
        """Seconds for which the function has been running, or ran; 0 before it is called."""

    def options(self, collector: Collector) -> Any:
        """Returns: The options of a collector in this run, an instance of its `options_class`."""

    def write_start(self) -> None:
        """Writes the first record of the run into the spool now, not only when the function is called."""

    def append_text(self, collector: Collector, text: str, *, peak_rss_bytes: int | None = None) -> None:
        """Appends lines to a text artifact; they are in the spool when this returns."""

    def follow_rss(self, look: Callable[[int], None]) -> None:
        """Calls *look* with the RSS in bytes, many times a second, on the ticker's thread."""


class Recording:
    """What one collector does for one run; made by `Collector.record`, dropped after `save`."""

    reason: str | None = None
    "Why the artifact is only partial, in words for a person; None while it is whole."

    runs_inline: ClassVar[bool] = False
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

    def end_early(self, reason: str) -> None:
        """Ends the measurement while the task goes on, on another thread; `stop` follows in any case.

        By default nothing ends: the artifact is not kept in this case, so a measurement that costs little may go on.
        """

    def save(self) -> None:
        """Leaves the file in the spool. The saver's thread waits for it, after `stop`.

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

    services: Services
    "The ticker, the RSS reader and what else the collectors of a process share; set by `open`."

    def __init__(self, settings: CollectorSettings) -> None:
        self.settings = settings
        self.default_options = self.options_class()

    def open(self, services: Services) -> None:
        """Makes what the process is to hold, before the first `record`."""
        self.services = services

    def record(self, run: RunContext) -> Recording:
        """Makes the recording of a run, which measures nothing yet.

        Returns:
          The recording; its state is its own, as worker threads share the collector.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Lets go of what the process holds, after the last recording has stopped."""


class StandIn(Collector):
    """Describes the artifact of a collector that a run does not have: that says why."""

    def __init__(self, wanted: type[Collector]) -> None:
        # Instance attributes hide the annotations of the class: this object describes the artifact of another class.
        vars(self).update(
            {
                field: getattr(wanted, field)
                for field in ("name", "artifact_name", "filename", "media_type", "stored_as", "options_class")
            }
        )
        self.default_options = self.options_class()


class UnavailableCollector(StandIn):
    """Stands in for a collector that cannot work here, so that each run of it says why."""

    def __init__(self, wanted: type[Collector], reason: str) -> None:
        super().__init__(wanted)
        self.reason = reason

    def record(self, run: RunContext) -> Recording:
        raise UnavailableError(self.reason)
