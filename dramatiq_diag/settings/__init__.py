"""Defines the settings, and is the only reader of the environment.

Every process that adds the middleware reads the settings, also one that only sends messages. So this imports no module
that takes long to import.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import Field, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from ..collectors.names import ALL, CANNOT_JOIN, COLLECTOR_NAMES, MAX_LOG_BYTES, NONE, expand
from ..errors import SettingsError
from ..policy.keep_rules import ALLOWED_RULES
from ..policy.stuck_rule import AUTO
from ..policy.trigger_rules import ALLOWED_TRIGGERS, parse_triggers, resolve_triggers, trigger_text
from . import readers
from .fields import auto_or_seconds, explain, field, flag, interval, seconds, size
from .readers import Secret
from .urls import (
    ANY_HOST,
    TRACE_ID_PLACEHOLDER,
    blob_url,
    check_database_url,
    host_names,
    http_url,
    is_bucket,
    local_path,
    read_database_url,
    trace_url,
)

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    from ..policy.http_header import HeaderPolicy

ENV_PREFIX = "DRAMATIQ_DIAG_"

_NAMES = ", ".join(COLLECTOR_NAMES)
_COLLECTORS = f"{ALL}, or names out of {_NAMES}, and collectors of other packages that are installed"
_KEY = "at least 16 characters, without white space at the ends, which is left out"


@dataclass(frozen=True, kw_only=True, init=False)
class Settings:
    """All settings. A value comes from the code by field name, else from the environment, else it is the default.

    Raises:
      SettingsError: When a value is not allowed; the message names the variable, the value and the allowed values.
    """

    task_diagnostics: tuple[str, ...] = field(
        (),
        "collected for every executed task, comma separated; `all` for all installed",
        _COLLECTORS,
        readers.collectors,
        variable="TASK_DIAGNOSTICS",
    )
    task_diagnostics_on_request: tuple[str, ...] = field(
        (),
        "names that a message, an actor or an HTTP request may ask for in addition",
        _COLLECTORS,
        readers.collectors,
        variable="TASK_DIAGNOSTICS_ON_REQUEST",
    )
    options_on_request: tuple[str, ...] = field(
        (ALL,),
        "options of collectors that a message, an actor or a capture may give",
        f"{ALL}, {NONE}, or options such as memray.native_traces, comma separated",
        readers.options,
    )
    sample_rate: float = field(
        1.0,
        "the share of the tasks that are diagnosed without a request",
        "a number from 0 to 1",
        readers.number(0, 1),
    )
    pass_on_depth: int = field(
        3,
        "how many tasks deep a request is passed on to the messages that a task sends",
        "a whole number from 0 to 100",
        readers.whole_number(0, 100),
    )
    request_key: Secret | None = field(
        None,
        "the key of HTTP requests that ask for diagnostics; without it none may ask",
        _KEY,
        readers.key,
        secret=True,
    )
    data_dir: Path = field(
        Path(".dramatiq_diag"),
        "blobs, spool and the SQLite file; a relative path begins at the working directory of the process",
        "a directory",
        readers.directory,
    )
    database_url: str | None = field(
        None,
        "any SQLAlchemy URL of SQLite or PostgreSQL; without it SQLite in the data dir",
        "an SQLAlchemy URL such as postgresql://user@host/name or sqlite:////path/file.db",
        check_database_url,
        secret=True,
    )
    blob_url: str | None = field(
        None,
        "the place of the blobs; without it `blobs` in the data dir",
        "a directory, a file:// URL of one, or s3://bucket/prefix, gs://bucket/prefix, az://container/prefix",
        blob_url,
    )
    spool_dir: Path | None = field(
        None,
        "a directory on the worker's own disk; without it `spool` in the data dir",
        "a directory",
        readers.directory,
    )
    cache_dir: Path | None = field(
        None,
        "a directory for what the web part renders and fetches on its host; without it `cache` in the data dir",
        "a directory",
        readers.directory,
    )
    cache_max_bytes: int = size(1024**3, "above it the least recently used files of the cache go")
    spool_max_bytes: int = size(4 * 1024**3, "above it new diagnostics are declined with a reason")
    memory_interval: float = interval(2.0, "seconds between RSS samples")
    pyinstrument_interval: float = interval(0.005, "seconds between profile samples")
    pyinstrument_engine: Literal["sampler", "profiler"] = field(
        "sampler",
        "`sampler`, or `profiler` for pyinstrument's own",
        "sampler or profiler",
        readers.one_of("sampler", "profiler"),
    )
    pyinstrument_start_after: float = seconds(
        0.0, "seconds after which a run that still goes on is profiled; only the sampler can start late"
    )
    memray_wait: float = seconds(
        0.0, "seconds a task waits for the process's one Tracker; its time limit runs meanwhile"
    )
    memray_max_bytes: int = size(1024**3, "an allocation profile ends there and is partial")
    logs_max_bytes: int = size(
        1024**2, "a run's log ends there and is partial", "a whole number of bytes from 1 to 64MiB", MAX_LOG_BYTES
    )
    resources_interval: float = interval(2.0, "seconds between samples of the resources of the process")
    keep_if: tuple[str, ...] = field(
        (),
        "rules, of which one has to hold for the artifacts of a run to be kept; without rules all are kept",
        ALLOWED_RULES,
        readers.rules,
    )
    triggers: tuple[str, ...] = field(
        (),
        "collectors that start when a run has lasted so long, or the process has grown so large",
        ALLOWED_TRIGGERS,
        readers.triggers,
    )
    stuck_after: str | float = auto_or_seconds(
        AUTO,
        "a diagnosed run that lasts longer is marked as stuck and leaves its stacks; `auto` is ten times the 95th "
        "percentile of its actor, at least 5 min, and 0 turns it off",
    )
    watchdog: bool = flag(
        default=True, description="whether C code that keeps the GIL for seconds is noticed while diagnosed tasks run"
    )
    leak_captures: bool = flag(
        default=False,
        description="whether the cleanup asks for allocation profiles of an actor that was found to leak, once a day",
    )
    orphan_protection_time: float = seconds(86400.0, "seconds an artifact is kept")
    run_retention: float = seconds(2592000.0, "seconds the row of a run without live artifacts is kept")
    max_bytes: int | None = size(
        None, "beyond so many bytes the cleanup expires the oldest artifacts, however young; empty for no bound"
    )
    max_runs: int | None = field(
        None,
        "beyond so many the cleanup removes the oldest ended runs and their artifacts; empty for no bound",
        "a whole number from 1 to 1000000000000",
        readers.whole_number(1, 10**12),
    )
    cleanup_interval: float = seconds(3600.0, "seconds between scheduled cleanups; 0 turns the schedule off")
    cleanup_queue: str = field(
        "dramatiq_diag",
        "the queue that the cleanup actor is declared on",
        "a queue name: a letter or underscore, then letters, digits, dots, dashes, underscores",
        readers.matching("[a-zA-Z_][a-zA-Z0-9._-]*"),
    )
    shutdown_timeout: float = seconds(10.0, "seconds a stopping worker spends on publishing")
    download_redirect: bool = flag(
        default=False,
        description="whether downloads from a bucket answer with a redirect to a signed URL of the bucket",
    )
    url_ttl: float = interval(3600.0, "seconds a download URL stays valid")
    secret_key: Secret | None = field(
        None,
        "signs download URLs; without it one is made and kept in the data dir",
        _KEY,
        readers.key,
        secret=True,
    )
    api_token: Secret | None = field(
        None,
        "if set, every route but signed downloads, /healthz and /readyz asks for it",
        _KEY,
        readers.key_or_empty,
        secret=True,
    )
    metrics_token: Secret | None = field(
        None,
        "opens /metrics alone, where an API token is set, so that Prometheus need not have that one",
        _KEY,
        readers.key_or_empty,
        secret=True,
    )
    allowed_hosts: tuple[str, ...] = field(
        (),
        "further host names of the web part, besides localhost and that of the public URL",
        f"names of hosts without a port, comma separated, or {ANY_HOST} for all",
        host_names,
    )
    public_url: str | None = field(
        None, "prefix of the URLs in answers, behind a proxy", "an http:// or https:// URL", http_url
    )
    release: str | None = field(
        None,
        "the release of the application, which its runs name; without it the one that a variable of the deployment "
        "names, else the git commit of the working directory",
        f"a text of 1 to {readers.MAX_RELEASE_LENGTH} printable characters",
        readers.release,
    )
    trace_url: str | None = field(
        None,
        "the address of a trace in your tracing system; `{trace_id}` in it stands for the trace's id",
        "an http:// or https:// URL with {trace_id} behind the host",
        trace_url,
    )

    given_fields: ClassVar[frozenset[str]]
    "The names of the fields that the code or the environment gave."

    def __init__(self, **values: Any) -> None:
        settings = {setting.name: setting for setting in dataclasses.fields(self)}
        problems = [
            f"{name}: there is no such setting; the settings are {', '.join(settings)}."
            for name in values
            if name not in settings
        ]
        given = _from_environment() | values
        for name, setting in settings.items():
            value = given.get(name, setting.default)
            try:
                value = self._read_beside_others(setting, setting.metadata["read"](value))
            except ValueError as error:
                problems.append(explain(self.variable(name), setting, value, error))
                value = setting.default
            object.__setattr__(self, name, value)
        if problems:
            raise SettingsError("\n".join(problems)) from None  # The error behind it may contain a secret.
        object.__setattr__(self, "given_fields", frozenset(given))

    def _read_beside_others(self, setting: Field[Any], value: Any) -> Any:
        """Checks a value against the settings before it. Raises: ValueError."""
        if setting.name == "pyinstrument_start_after" and value and self.pyinstrument_engine == "profiler":
            raise ValueError(CANNOT_JOIN)
        if setting.name == "triggers" and value and not self.off:
            chosen = self.chosen
            known = expand(chosen, here=False)  # With `all`, a trigger may name a package that is not installed.
            resolved = resolve_triggers(parse_triggers(value), expand(chosen), self.pyinstrument_engine, known=known)
            return tuple(map(trigger_text, resolved))
        return value

    @property
    def chosen(self) -> tuple[str, ...]:
        """The names of what is collected for every task, and of what may be asked for."""
        return self.task_diagnostics + self.task_diagnostics_on_request

    @property
    def off(self) -> bool:
        """Whether nothing can be selected: then no thread, file, connection or message is made."""
        return not self.chosen

    @property
    def database(self) -> URL:
        """The database's URL, with the driver named."""
        from sqlalchemy.engine import URL  # A process that only sends messages does not need it.

        if self.database_url is None:
            return URL.create("sqlite", database=str(self.data_dir / "diagnostics.db"))
        return read_database_url(self.database_url)

    @property
    def migrates_itself(self) -> bool:
        """Whether the database is an SQLite file in the data dir, which is migrated without being asked."""
        url = self.database
        if url.get_backend_name() != "sqlite" or url.database is None:
            return False
        return Path(url.database).absolute().is_relative_to(self.data_dir)

    @property
    def blob_dir(self) -> Path | None:
        """The directory of the blobs; None where they are in a bucket."""
        if self.blob_url is None:
            return self.data_dir / "blobs"
        return None if is_bucket(self.blob_url) else local_path(self.blob_url)

    @property
    def cache(self) -> Path:
        """The directory of the cache."""
        return self.data_dir / "cache" if self.cache_dir is None else self.cache_dir

    @property
    def spool(self) -> Path:
        """The directory of the spool."""
        return self.data_dir / "spool" if self.spool_dir is None else self.spool_dir

    def header_policy(self, *, open_to_all: bool) -> HeaderPolicy:
        """Returns: The policy for the headers of HTTP requests; see `HeaderPolicy` for *open_to_all*."""
        from ..policy.http_header import HeaderPolicy  # Only an HTTP application needs it.

        key = None if self.request_key is None else self.request_key.get_secret_value()
        return HeaderPolicy(self.chosen, key, open_to_all=open_to_all)

    def url_of_trace(self, trace_id: str | None) -> str | None:
        """Returns: The address of a trace; None without the setting, or for None."""
        if self.trace_url is None or trace_id is None:
            return None
        return self.trace_url.replace(TRACE_ID_PLACEHOLDER, trace_id)

    @classmethod
    def variable(cls, name: str) -> str:
        """Returns: The name of the environment variable of a field."""
        return _VARIABLES[name]

    @classmethod
    def unknown_variables(cls) -> list[str]:
        """Returns: Variables of the environment that look like settings but are unknown."""
        known = {*_VARIABLES.values()}
        alike = (name for name in os.environ if name.upper().startswith((ENV_PREFIX, "TASK_DIAGNOSTIC")))
        return sorted(name for name in alike if name.upper() not in known)

    @classmethod
    def load(cls, settings: Self | None) -> Self:
        """Returns: The given settings, or those of the environment if None is given."""
        return cls() if settings is None else settings


_VARIABLES: dict[str, str] = {
    setting.name: setting.metadata["variable"] or ENV_PREFIX + setting.name.upper()
    for setting in dataclasses.fields(Settings)
}
"Name of a field -> its environment variable."


def demo_broker_url() -> str:
    """Returns: The URL of the demo's broker, which is not a setting."""
    return os.environ.get(f"{ENV_PREFIX}DEMO_BROKER", "")


def _from_environment() -> dict[str, str]:
    """Returns: Name of a field -> its value in the environment. An empty variable counts as not set."""
    found = {name.upper(): value for name, value in os.environ.items() if value}
    return {name: found[variable] for name, variable in _VARIABLES.items() if variable in found}
