"""The settings, and the only reader of the environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ByteSize, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import URL

from .collectors import ALL, COLLECTOR_NAMES, NONE, collector_class, known_names
from .errors import SettingsError
from .locations import ANY_HOST, host_name, http_url, local_path, read_database_url
from .rules import ALLOWED_RULES, parse_rules
from .setting_fields import MAX_LOG_BYTES, NAMES, Names, field, interval, seconds, size
from .triggers import ALLOWED_TRIGGERS, CANNOT_JOIN, check_late, collectors_of, parse_triggers, trigger_text

ENV_PREFIX = "DRAMATIQ_DIAG_"

#: Shorter secrets can be guessed, in characters.
_MIN_SECRET_LENGTH = 16


class Settings(BaseSettings):
    """All settings: given in code by field name, otherwise read from the environment, otherwise the default.

    Raises:
      SettingsError: When a value is not allowed; the message names the variable, the value and what is allowed.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, extra="forbid", frozen=True, populate_by_name=True
    )

    task_diagnostics: Names = field(
        (),
        "collected for every executed task, comma separated; `all` for all installed",
        f"{ALL}, or {NAMES}",
        validation_alias="TASK_DIAGNOSTICS",
    )
    task_diagnostics_on_request: Names = field(
        (),
        "what a message, an actor or an HTTP request may ask for besides",
        f"{ALL}, or {NAMES}",
        validation_alias="TASK_DIAGNOSTICS_ON_REQUEST",
    )
    options_on_request: Names = field(
        (ALL,),
        "which options of collectors a message, an actor or a capture may give",
        f"{ALL}, {NONE}, or options such as memray.native_traces, comma separated",
    )
    sample_rate: float = field(
        1.0,
        "the share of the tasks of which is collected what nobody asked for",
        "a number from 0 to 1",
        ge=0,
        le=1,
        allow_inf_nan=False,
    )
    pass_on_depth: int = field(
        3,
        "how many tasks deep what was asked for is passed on to what a task sends",
        "a whole number from 0 to 100",
        ge=0,
        le=100,
    )
    request_key: SecretStr | None = field(
        None, "what an HTTP request has to bring to ask for diagnostics; without it none may", "at least 16 characters"
    )
    data_dir: Path = field(Path(".dramatiq_diag"), "blobs, spool and the SQLite file", "a directory")
    database_url: str | None = field(
        None,
        "any SQLAlchemy URL of SQLite or PostgreSQL; without it SQLite in the data dir",
        "an SQLAlchemy URL such as postgresql://user@host/name or sqlite:////path/file.db",
        repr=False,
    )
    blob_url: str | None = field(
        None, "where blobs live; without it `blobs` in the data dir", "a directory, or a file:// URL of one"
    )
    spool_dir: Path | None = field(None, "on the worker's own disk; without it `spool` in the data dir", "a directory")
    spool_max_bytes: ByteSize = size(4 * 1024**3, "past it new diagnostics are declined with a reason")
    memory_interval: float = interval(2.0, "seconds between RSS samples")
    pyinstrument_interval: float = interval(0.005, "seconds between profile samples")
    pyinstrument_engine: Literal["sampler", "profiler"] = field(
        "sampler", "`sampler`, or `profiler` for pyinstrument's own", "sampler or profiler"
    )
    pyinstrument_start_after: float = seconds(
        0.0, "seconds after which a run that is still going on is profiled; the sampler alone can join later"
    )
    memray_wait: float = seconds(0.0, "seconds a task waits for the process's one Tracker")
    memray_max_bytes: ByteSize = size(1024**3, "a capture stops there and is partial")
    logs_max_bytes: ByteSize = field(
        ByteSize(1024**2),
        "a run's log ends there and is partial",
        "a whole number of bytes from 1 to 64MiB",
        gt=0,
        le=MAX_LOG_BYTES,
    )
    resources_interval: float = interval(2.0, "seconds between looks at what the process uses")
    keep_if: Names = field(
        (), "rules of which one has to hold for a run's artifacts to be kept; without rules all are", ALLOWED_RULES
    )
    triggers: Names = field(
        (), "what begins when a run has lasted so long, or the process has grown so large", ALLOWED_TRIGGERS
    )
    orphan_protection_time: float = seconds(86400.0, "seconds an artifact is kept")
    run_retention: float = seconds(2592000.0, "seconds the row of a run without live artifacts is kept")
    cleanup_interval: float = seconds(3600.0, "seconds between scheduled cleanups; 0 turns the schedule off")
    cleanup_queue: str = field(
        "default",
        "the queue that the cleanup actor is declared on",
        "a queue name: a letter or underscore, then letters, digits, dots, dashes, underscores",
        pattern=r"^[a-zA-Z_][a-zA-Z0-9._-]*$",
    )
    shutdown_timeout: float = seconds(10.0, "seconds a stopping worker spends on publishing")
    url_ttl: float = interval(3600.0, "seconds a download URL stays valid")
    secret_key: SecretStr | None = field(
        None, "signs download URLs; without it one is made and kept in the data dir", "at least 16 characters"
    )
    api_token: SecretStr | None = field(
        None,
        "if set, every route but signed downloads, /healthz and /readyz asks for it",
        "at least 16 characters",
    )
    allowed_hosts: Names = field(
        (),
        "further names that the web part answers under, besides localhost and the public URL's",
        f"names of hosts without a port, comma separated, or {ANY_HOST} for all",
    )
    public_url: str | None = field(None, "prefix of the URLs in answers, behind a proxy", "an http:// or https:// URL")

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SettingsError("\n".join(_explain(detail) for detail in error.errors())) from None

    @field_validator(
        "task_diagnostics", "task_diagnostics_on_request", "options_on_request", "allowed_hosts", mode="before"
    )
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        names = value.split(",") if isinstance(value, str) else value
        if not isinstance(names, list | tuple | set | frozenset) or not all(isinstance(n, str) for n in names):
            raise ValueError
        return tuple(dict.fromkeys(name.strip() for name in names if name.strip()))

    @field_validator("task_diagnostics", "task_diagnostics_on_request")
    @classmethod
    def _know_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in names if name != ALL and name not in COLLECTOR_NAMES]
        known = known_names() if unknown else ()
        unknown = [name for name in unknown if name not in known]
        if unknown:
            others = ", ".join(name for name in known if name not in COLLECTOR_NAMES) or "none"
            raise ValueError(f"unknown: {', '.join(map(repr, unknown))}; of other packages there are: {others}")
        return names

    @field_validator("options_on_request")
    @classmethod
    def _know_options(cls, options: tuple[str, ...]) -> tuple[str, ...]:
        if options in ((ALL,), (NONE,)):
            return options
        for option in options:
            collector_name, _, name = option.rpartition(".")
            collector = collector_class(collector_name)
            if collector is None or name not in collector.options_class.model_fields:
                raise ValueError(f"there is no {option!r:.100}")
        return options

    @field_validator("pyinstrument_start_after")
    @classmethod
    def _joins_late(cls, seconds: float, info: ValidationInfo) -> float:
        if seconds and info.data.get("pyinstrument_engine") == "profiler":
            raise ValueError(CANNOT_JOIN)
        return seconds

    @field_validator("keep_if", mode="before")
    @classmethod
    def _know_rules(cls, value: Any) -> tuple[str, ...]:
        return tuple(rule.text for rule in parse_rules(value))

    @field_validator("triggers", mode="before")
    @classmethod
    def _know_triggers(cls, value: Any, info: ValidationInfo) -> tuple[str, ...]:
        triggers = parse_triggers(value)
        chosen = {*info.data.get("task_diagnostics", ()), *info.data.get("task_diagnostics_on_request", ())}
        missing = [name for name in collectors_of(triggers) if not chosen & {name, ALL}]
        if missing and chosen:  # With nothing chosen everything is off, triggers as well.
            raise ValueError(f"neither TASK_DIAGNOSTICS nor TASK_DIAGNOSTICS_ON_REQUEST has {', '.join(missing)}")
        check_late(triggers, info.data.get("pyinstrument_engine", ""))
        return tuple(map(trigger_text, triggers))

    @field_validator("data_dir", "spool_dir")
    @classmethod
    def _make_absolute(cls, path: Path | None) -> Path | None:
        if path is not None and "\0" in str(path):
            raise ValueError
        return None if path is None else path.expanduser().absolute()

    @field_validator("database_url")
    @classmethod
    def _know_database(cls, value: str | None) -> str | None:
        return value if value is None else read_database_url(value).render_as_string(hide_password=False)

    @field_validator("blob_url")
    @classmethod
    def _know_blob_url(cls, value: str | None) -> str | None:
        if value is not None:
            local_path(value)
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _know_hosts(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(host_name, names))

    @field_validator("secret_key", "request_key", "api_token")
    @classmethod
    def _long_enough(cls, key: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        length = 0 if key is None else len(key.get_secret_value())
        if length == 0 and info.field_name == "api_token":
            return None
        if key is not None and length < _MIN_SECRET_LENGTH:
            raise ValueError(f"it has {length} characters")
        return key

    @field_validator("public_url")
    @classmethod
    def _is_http(cls, value: str | None) -> str | None:
        return None if value is None else http_url(value)

    @property
    def off(self) -> bool:
        """Whether nothing can be selected: then no thread, file, connection or message is made."""
        return not (self.task_diagnostics or self.task_diagnostics_on_request)

    @property
    def database(self) -> URL:
        """The database's URL, with the driver named."""
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
    def blob_dir(self) -> Path:
        """The directory of the blobs."""
        return self.data_dir / "blobs" if self.blob_url is None else local_path(self.blob_url)

    @property
    def spool(self) -> Path:
        """The directory of the spool."""
        return self.data_dir / "spool" if self.spool_dir is None else self.spool_dir

    @classmethod
    def variable(cls, field: str) -> str:
        """Returns: The name of the environment variable of a field."""
        alias = cls.model_fields[field].validation_alias
        return alias if isinstance(alias, str) else ENV_PREFIX + field.upper()

    @classmethod
    def unknown_variables(cls) -> list[str]:
        """Returns: Variables of the environment that look like settings and are none, for the doctor."""
        known = {cls.variable(field) for field in cls.model_fields}
        alike = (name for name in os.environ if name.upper().startswith((ENV_PREFIX, "TASK_DIAGNOSTIC")))
        return sorted(name for name in alike if name.upper() not in known)

    @classmethod
    def load(cls, settings: Self | None) -> Self:
        """Returns: The settings as given, or those of the environment."""
        return cls() if settings is None else settings


class DemoSettings(BaseSettings):
    """What the demo's worker reads besides."""

    broker_url: Annotated[str, Field(validation_alias=f"{ENV_PREFIX}DEMO_BROKER")] = ""


def _explain(detail: Any) -> str:
    """Returns: One line that names the variable, the value and what is allowed."""
    name = str(detail["loc"][0])
    by_variable = {Settings.variable(field): field for field in Settings.model_fields}
    field = by_variable.get(name, name)
    if field not in Settings.model_fields:
        return f"{name}: there is no such setting; the settings are {', '.join(Settings.model_fields)}."
    info = Settings.model_fields[field]
    extra = info.json_schema_extra
    allowed = extra["allowed"] if isinstance(extra, dict) else ""
    # Passwords stand in URLs as well, and other settings may be given a value that is meant for one of these.
    secret = field in ("secret_key", "request_key", "api_token", "database_url") or "@" in str(detail["input"])
    value = "the given value" if secret else f"{detail['input']!r:.200}"
    hint = f" ({detail['ctx']['error']})" if str(detail.get("ctx", {}).get("error", "")) else ""
    return f"{Settings.variable(field)}: {value} is not allowed{hint}; allowed: {allowed}."
