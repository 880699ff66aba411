"""The settings, and the only reader of the environment.

Every process that adds the middleware reads them, those that only send messages as well: so nothing that takes long to
import is imported here.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import Field, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from ..collectors.names import ALL, BUILTIN, CANNOT_JOIN, COLLECTOR_NAMES, MAX_LOG_BYTES, NONE, expand, known_names
from ..errors import SettingsError
from ..policy.allowed_texts import ALLOWED_RULES, ALLOWED_TRIGGERS
from .fields import (
    NAMES,
    Secret,
    directory,
    explain,
    field,
    interval,
    key,
    matching,
    names,
    number,
    one_of,
    seconds,
    size,
    text,
    token,
    whole_number,
)
from .urls import ANY_HOST, check_database_url, host_name, http_url, local_path, read_database_url

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

ENV_PREFIX = "DRAMATIQ_DIAG_"

#: Shorter secrets can be guessed, in characters.
_MIN_SECRET_LENGTH = 16


def _collectors(value: Any) -> tuple[str, ...]:
    found = names(value)
    unknown = [name for name in found if name != ALL and name not in COLLECTOR_NAMES]
    known = known_names() if unknown else ()
    unknown = [name for name in unknown if name not in known]
    if unknown:
        others = ", ".join(name for name in known if name not in COLLECTOR_NAMES) or "none"
        raise ValueError(f"unknown: {', '.join(map(repr, unknown))}; of other packages there are: {others}")
    return found


def _options(value: Any) -> tuple[str, ...]:
    found = names(value)
    if found not in ((ALL,), (NONE,)):
        for option in found:
            collector_name, _, name = option.rpartition(".")
            if name not in _option_names(collector_name):
                raise ValueError(f"there is no {option!r:.100}")
    return found


def _option_names(collector_name: str) -> tuple[str, ...]:
    if collector_name in BUILTIN:
        return BUILTIN[collector_name].options
    from ..collectors.registry import collector_class  # Only the class of another package's knows its options.

    collector = collector_class(collector_name)
    return () if collector is None else tuple(collector.options_class.model_fields)


def _rules(value: Any) -> tuple[str, ...]:
    if value == ():
        return ()
    from ..policy.keep_rules import parse_rules  # Most processes have none.

    return tuple(rule.text for rule in parse_rules(value))


def _triggers(value: Any) -> tuple[str, ...]:
    if value == ():
        return ()
    from ..policy.trigger_rules import parse_triggers, trigger_text  # As above.

    return tuple(map(trigger_text, parse_triggers(value)))


def _triggers_for(chosen: tuple[str, ...], engine: str, texts: tuple[str, ...]) -> tuple[str, ...]:
    """Judges triggers by what is chosen and by the engine. Returns: The triggers, with names in place of `all`."""
    from ..policy.trigger_rules import check_late, collectors_of, parse_triggers, trigger_text, with_all

    triggers = with_all(parse_triggers(texts), expand(chosen), engine)
    missing = [name for name in collectors_of(triggers) if name not in chosen and ALL not in chosen]
    if missing:
        raise ValueError(f"neither TASK_DIAGNOSTICS nor TASK_DIAGNOSTICS_ON_REQUEST has {', '.join(missing)}")
    check_late(triggers, engine)
    return tuple(map(trigger_text, triggers))


def _place(value: Any) -> str:
    local_path(text(value))
    return text(value)


def _web_address(value: Any) -> str:
    return http_url(text(value))


def _hosts(value: Any) -> tuple[str, ...]:
    return tuple(map(host_name, names(value)))


def _key_or_nothing(value: Any) -> Secret | None:
    """Reads a key; an empty one is none."""
    return key(value) if token(value).get_secret_value() else None


@dataclass(frozen=True, kw_only=True, init=False)
class Settings:
    """All settings: given in code by field name, otherwise read from the environment, otherwise the default.

    Raises:
      SettingsError: When a value is not allowed; the message names the variable, the value and what is allowed.
    """

    task_diagnostics: tuple[str, ...] = field(
        (),
        "collected for every executed task, comma separated; `all` for all installed",
        f"{ALL}, or {NAMES}",
        _collectors,
        variable="TASK_DIAGNOSTICS",
    )
    task_diagnostics_on_request: tuple[str, ...] = field(
        (),
        "what a message, an actor or an HTTP request may ask for besides",
        f"{ALL}, or {NAMES}",
        _collectors,
        variable="TASK_DIAGNOSTICS_ON_REQUEST",
    )
    options_on_request: tuple[str, ...] = field(
        (ALL,),
        "which options of collectors a message, an actor or a capture may give",
        f"{ALL}, {NONE}, or options such as memray.native_traces, comma separated",
        _options,
    )
    sample_rate: float = field(
        1.0,
        "the share of the tasks of which is collected what nobody asked for",
        "a number from 0 to 1",
        number(0, 1),
    )
    pass_on_depth: int = field(
        3,
        "how many tasks deep what was asked for is passed on to what a task sends",
        "a whole number from 0 to 100",
        whole_number(0, 100),
    )
    request_key: Secret | None = field(
        None,
        "what an HTTP request has to bring to ask for diagnostics; without it none may",
        "at least 16 characters",
        key,
        secret=True,
    )
    data_dir: Path = field(Path(".dramatiq_diag"), "blobs, spool and the SQLite file", "a directory", directory)
    database_url: str | None = field(
        None,
        "any SQLAlchemy URL of SQLite or PostgreSQL; without it SQLite in the data dir",
        "an SQLAlchemy URL such as postgresql://user@host/name or sqlite:////path/file.db",
        check_database_url,
        secret=True,
    )
    blob_url: str | None = field(
        None, "where blobs live; without it `blobs` in the data dir", "a directory, or a file:// URL of one", _place
    )
    spool_dir: Path | None = field(
        None, "on the worker's own disk; without it `spool` in the data dir", "a directory", directory
    )
    spool_max_bytes: int = size(4 * 1024**3, "past it new diagnostics are declined with a reason")
    memory_interval: float = interval(2.0, "seconds between RSS samples")
    pyinstrument_interval: float = interval(0.005, "seconds between profile samples")
    pyinstrument_engine: Literal["sampler", "profiler"] = field(
        "sampler",
        "`sampler`, or `profiler` for pyinstrument's own",
        "sampler or profiler",
        one_of("sampler", "profiler"),
    )
    pyinstrument_start_after: float = seconds(
        0.0, "seconds after which a run that is still going on is profiled; the sampler alone can join later"
    )
    memray_wait: float = seconds(0.0, "seconds a task waits for the process's one Tracker")
    memray_max_bytes: int = size(1024**3, "a capture stops there and is partial")
    logs_max_bytes: int = size(
        1024**2, "a run's log ends there and is partial", "a whole number of bytes from 1 to 64MiB", MAX_LOG_BYTES
    )
    resources_interval: float = interval(2.0, "seconds between looks at what the process uses")
    keep_if: tuple[str, ...] = field(
        (),
        "rules of which one has to hold for a run's artifacts to be kept; without rules all are",
        ALLOWED_RULES,
        _rules,
    )
    triggers: tuple[str, ...] = field(
        (),
        "what begins when a run has lasted so long, or the process has grown so large",
        ALLOWED_TRIGGERS,
        _triggers,
    )
    orphan_protection_time: float = seconds(86400.0, "seconds an artifact is kept")
    run_retention: float = seconds(2592000.0, "seconds the row of a run without live artifacts is kept")
    cleanup_interval: float = seconds(3600.0, "seconds between scheduled cleanups; 0 turns the schedule off")
    cleanup_queue: str = field(
        "dramatiq_diag",
        "the queue that the cleanup actor is declared on",
        "a queue name: a letter or underscore, then letters, digits, dots, dashes, underscores",
        matching("[a-zA-Z_][a-zA-Z0-9._-]*"),
    )
    shutdown_timeout: float = seconds(10.0, "seconds a stopping worker spends on publishing")
    url_ttl: float = interval(3600.0, "seconds a download URL stays valid")
    secret_key: Secret | None = field(
        None,
        "signs download URLs; without it one is made and kept in the data dir",
        "at least 16 characters",
        key,
        secret=True,
    )
    api_token: Secret | None = field(
        None,
        "if set, every route but signed downloads, /healthz and /readyz asks for it",
        "at least 16 characters",
        _key_or_nothing,
        secret=True,
    )
    allowed_hosts: tuple[str, ...] = field(
        (),
        "further names that the web part answers under, besides localhost and the public URL's",
        f"names of hosts without a port, comma separated, or {ANY_HOST} for all",
        _hosts,
    )
    public_url: str | None = field(
        None, "prefix of the URLs in answers, behind a proxy", "an http:// or https:// URL", _web_address
    )

    given_fields: ClassVar[frozenset[str]]
    "The fields that the code or the environment gave; of each object its own."

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
            raise SettingsError("\n".join(problems)) from None  # Whatever it comes from may have a secret in it.
        object.__setattr__(self, "given_fields", frozenset(given))

    def _read_beside_others(self, setting: Field[Any], value: Any) -> Any:
        """Judges a value by what the settings before it are. Raises: ValueError."""
        if setting.name == "pyinstrument_start_after" and value and self.pyinstrument_engine == "profiler":
            raise ValueError(CANNOT_JOIN)
        chosen = self.task_diagnostics + self.task_diagnostics_on_request
        if setting.name == "triggers" and value and chosen:  # With nothing chosen everything is off, triggers as well.
            return _triggers_for(chosen, self.pyinstrument_engine, value)
        return value

    @property
    def off(self) -> bool:
        """Whether nothing can be selected: then no thread, file, connection or message is made."""
        return not (self.task_diagnostics or self.task_diagnostics_on_request)

    @property
    def database(self) -> URL:
        """The database's URL, with the driver named."""
        from sqlalchemy.engine import URL  # The most of what a process that only sends messages would import.

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
    def variable(cls, name: str) -> str:
        """Returns: The name of the environment variable of a field."""
        return _VARIABLES[name]

    @classmethod
    def unknown_variables(cls) -> list[str]:
        """Returns: Variables of the environment that look like settings and are none, for the doctor."""
        known = {*_VARIABLES.values()}
        alike = (name for name in os.environ if name.upper().startswith((ENV_PREFIX, "TASK_DIAGNOSTIC")))
        return sorted(name for name in alike if name.upper() not in known)

    @classmethod
    def load(cls, settings: Self | None) -> Self:
        """Returns: The settings as given, or those of the environment."""
        return cls() if settings is None else settings


_VARIABLES: dict[str, str] = {
    setting.name: setting.metadata["variable"] or ENV_PREFIX + setting.name.upper()
    for setting in dataclasses.fields(Settings)
}
"Name of a field -> its environment variable."


def demo_broker_url() -> str:
    """Returns: The broker that the demo's worker is told of, besides the settings."""
    return os.environ.get(f"{ENV_PREFIX}DEMO_BROKER", "")


def _from_environment() -> dict[str, str]:
    """Returns: Name of a field -> what the environment has for it; an empty variable is one that is not set."""
    found = {name.upper(): value for name, value in os.environ.items() if value}
    return {name: found[variable] for name, variable in _VARIABLES.items() if variable in found}
