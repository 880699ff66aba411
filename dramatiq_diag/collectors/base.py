"""Defines the contract of a collector: `Collector`, `Recording`, `Options`, and the `RunContext` that it is given."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict

from ..errors import UnavailableError

if TYPE_CHECKING:
    from dramatiq import Actor

    from ..runtime.coroutine_steps import CoroutineSteps
    from ..runtime.counters import Counters
    from .services import Services

#: The patterns that the class attributes of a collector have to match, from end to end.
ARTIFACT_NAME_PATTERN = "[a-z][a-z0-9_]{0,63}"
FILENAME_PATTERN = "[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
MEDIA_TYPE_PATTERN = "[a-z0-9.+-]{1,60}/[a-z0-9.+-]{1,60}"


def checkpoint_name(artifact_name: str) -> str:
    """Returns: The name of the file that replaces an artifact's file until that is saved."""
    return f"{artifact_name}.part"


def import_extra(name: str) -> Any:
    """Imports the package of an extra of the same name. Raises: UnavailableError with the command that installs it."""
    try:
        return import_module(name)
    except ImportError as error:
        reason = f"{name} is not installed ({error}); install it with: pip install 'dramatiq_diag[{name}]'"
        raise UnavailableError(reason) from error


class Options(BaseModel):
    """The options of a collector that a message, an actor or a capture may give. Each has a default, and limits."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class CollectorSettings(Protocol):
    """The settings that the collectors of this package read; `Settings` has them under these names."""

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
    """The files of one run in the spool: one for each artifact name, besides the entry."""

    def path(self, name: str) -> Path:
        """Returns: The path of this artifact's file."""

    def write_file(self, name: str, text: str | Iterable[str]) -> None:
        """Writes this artifact's file, whole or not at all. Raises: OSError."""


class RunContext(Protocol):
    """A run as its recordings see it. Times are in seconds of `clock`, unless stated otherwise."""

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
    first_rss_bytes: int | None
    "The RSS before the collectors started; None where it could not be read."
    last_rss_bytes: int | None
    "The RSS when the function had returned; None before that."
    coroutine_steps: CoroutineSteps | None
    "What the steps of the coroutine of an async actor took, once the run has ended and if they were measured."
    is_executing: bool
    "Whether the function has been called. A recording made after that starts late, on another thread."

    @property
    def coroutine(self) -> Coroutine[Any, Any, Any] | None:
        """The coroutine of an async actor, while the event loop has it."""

    @property
    def at_call(self) -> Counters | None:
        """What was counted for the task's thread when the function was called; None where that was not noted."""

    @property
    def at_return(self) -> Counters | None:
        """The same when the function had returned; None before that."""

    @property
    def cpu_started_s(self) -> float:
        """The CPU time of the task's thread when the function was called, in seconds."""

    @property
    def cpu_ended_s(self) -> float | None:
        """The same when the function had returned; None before that."""

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
    """The work of one collector for one run; made by `Collector.record`, dropped after `save`."""

    reason: str | None = None
    "Why the artifact is only partial, for a person; None while it is whole."

    runs_inline: ClassVar[bool] = False
    """Whether `start`, `stop` and `save` surely return at once, or have to run on the threads that call them.

    The steps of any other recording run on a thread of their own. A step that hangs is abandoned: the artifact is
    `failed`, and later runs of the process do without the collector until the step returns after all; after the third
    such step they do without it for good.
    """

    step_timeout_s: ClassVar[float] = 2.0
    "Seconds after which a step counts as hanging."

    enter: Callable[[], object] | None = None
    """A function that Dramatiq's hook itself calls after `start`; None for most recordings.

    memray's readers hide as many of the task's outermost frames as there are above the call of `Tracker.__enter__`, so
    that call must not be deeper than the call of the actor's function.
    """

    def start(self) -> None:
        """Starts the measurement. The task's thread waits for it, just before its function is called.

        Raises:
          SkippedError: When this run is declined; the message is the artifact's reason.
        """

    def entered(self, error: Exception | None) -> None:
        """Runs after `enter`, with its error if it raised one. Raises: SkippedError, or the error."""

    def so_far(self) -> dict[str, Any] | None:
        """Returns: What was measured so far, for people who watch the run, as JSON can hold it; None if it is not told.

        It is called about once a second while somebody watches, on another thread than `start` and `stop` and perhaps
        at the same time as these. It only reads: neither the measurement nor the artifact depends on it. What a text
        artifact has so far need not be told, as it is in the spool. Some collectors of this package have a place of
        their own on the page of a running task; of any other, 16 KiB of JSON are shown at most.
        """
        return None

    def stop(self) -> None:
        """Ends the measurement. The task's thread waits for it, so it does as little as possible.

        An interrupt may have cut `start` or an earlier `stop` short: `stop` ends whatever has begun, and may be called
        again. See `runtime.interrupts`.
        """

    def end_early(self, reason: str) -> None:
        """Ends the measurement while the task goes on, on another thread; `stop` follows in any case.

        By default nothing ends: the artifact is not kept in this case, so a measurement that costs little may go on.
        """

    def save(self) -> None:
        """Writes the artifact's file into the spool, after `stop`. The saver's thread waits for it.

        It calls `run.entry.write_file(collector.artifact_name, text)`, or writes to the file
        `run.entry.path(collector.artifact_name)`; text that went to `run.append_text` is in the spool already.

        Raises:
          SkippedError: When there is nothing to save; the message is the artifact's reason.
        """

    def discard(self) -> None:
        """Runs instead of `save` if the artifact is not kept, and returns at once.

        The recording writes nothing after it; the file and its checkpoint are removed.
        """


class Collector:
    """A diagnostic that can be chosen by name. It is built once per process; `record` is called for each run.

    Another package declares its class as an entry point of the group `dramatiq_diag.collectors`, under the class's
    `name`. `dramatiq_diag.testing` has tests of this contract.

    Parameters:
      settings: The settings of this process.

    Raises:
      UnavailableError: When it cannot work here; the message has the remedy.
    """

    name: ClassVar[str]
    "Its name in TASK_DIAGNOSTICS."

    artifact_name: ClassVar[str]
    "The key of its artifact in `urls`, unique: a lower case letter, then those, digits and underscores."

    filename: ClassVar[str]
    "The file name of the download."

    media_type: ClassVar[str]
    "The media type of the download."

    stored_as: ClassVar[str | None] = None
    "The name of the stored file, if this package renders the download from a smaller file; None for all others."

    options_class: ClassVar[type[Options]] = Options
    "The class of its options; a run has them as `run.options(self)`."

    services: Services
    "The ticker, the RSS reader and the other parts that the collectors of a process share; set by `open`."

    def __init__(self, settings: CollectorSettings) -> None:
        self.settings = settings
        self.default_options = self.options_class()

    def open(self, services: Services) -> None:
        """Acquires the resources of the process, before the first `record`."""
        self.services = services

    def record(self, run: RunContext) -> Recording:
        """Returns: The recording of a run, not started. It keeps its own state: worker threads share the collector."""
        raise NotImplementedError

    def close(self) -> None:
        """Releases the resources of the process, after the last recording has stopped."""


class PlaceholderCollector(Collector):
    """Describes the artifact of a collector that a run does not have: the artifact says why."""

    def __init__(self, wanted: type[Collector]) -> None:
        # Instance attributes hide the annotations of the class: this object describes the artifact of another class.
        fields = ("name", "artifact_name", "filename", "media_type", "stored_as", "options_class")
        vars(self).update({field: getattr(wanted, field) for field in fields})
        self.default_options = self.options_class()


class UnavailableCollector(PlaceholderCollector):
    """Stands for a collector that cannot work here, so that each run of it says why."""

    def __init__(self, wanted: type[Collector], reason: str) -> None:
        super().__init__(wanted)
        self.reason = reason

    def record(self, run: RunContext) -> Recording:
        raise UnavailableError(self.reason)
