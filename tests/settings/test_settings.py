"""Settings: defaults, the environment, and every wrong value refused in words."""

from __future__ import annotations

import os
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from dramatiq_diag import Settings, SettingsError

GIB = 1024**3

#: Every setting: variable, field, default.
TABLE = [
    ("TASK_DIAGNOSTICS", "task_diagnostics", ()),
    ("TASK_DIAGNOSTICS_ON_REQUEST", "task_diagnostics_on_request", ()),
    ("DRAMATIQ_DIAG_OPTIONS_ON_REQUEST", "options_on_request", ("all",)),
    ("DRAMATIQ_DIAG_SAMPLE_RATE", "sample_rate", 1),
    ("DRAMATIQ_DIAG_PASS_ON_DEPTH", "pass_on_depth", 3),
    ("DRAMATIQ_DIAG_REQUEST_KEY", "request_key", None),
    ("DRAMATIQ_DIAG_DATA_DIR", "data_dir", Path(".dramatiq_diag")),
    ("DRAMATIQ_DIAG_DATABASE_URL", "database_url", None),
    ("DRAMATIQ_DIAG_BLOB_URL", "blob_url", None),
    ("DRAMATIQ_DIAG_DOWNLOAD_REDIRECT", "download_redirect", False),
    ("DRAMATIQ_DIAG_CACHE_DIR", "cache_dir", None),
    ("DRAMATIQ_DIAG_CACHE_MAX_BYTES", "cache_max_bytes", 1024**3),
    ("DRAMATIQ_DIAG_SPOOL_DIR", "spool_dir", None),
    ("DRAMATIQ_DIAG_SPOOL_MAX_BYTES", "spool_max_bytes", 4 * GIB),
    ("DRAMATIQ_DIAG_MEMORY_INTERVAL", "memory_interval", 2),
    ("DRAMATIQ_DIAG_PYINSTRUMENT_INTERVAL", "pyinstrument_interval", 0.005),
    ("DRAMATIQ_DIAG_PYINSTRUMENT_ENGINE", "pyinstrument_engine", "sampler"),
    ("DRAMATIQ_DIAG_PYINSTRUMENT_START_AFTER", "pyinstrument_start_after", 0),
    ("DRAMATIQ_DIAG_MEMRAY_WAIT", "memray_wait", 0),
    ("DRAMATIQ_DIAG_MEMRAY_MAX_BYTES", "memray_max_bytes", GIB),
    ("DRAMATIQ_DIAG_LOGS_MAX_BYTES", "logs_max_bytes", 1024**2),
    ("DRAMATIQ_DIAG_RESOURCES_INTERVAL", "resources_interval", 2),
    ("DRAMATIQ_DIAG_KEEP_IF", "keep_if", ()),
    ("DRAMATIQ_DIAG_TRIGGERS", "triggers", ()),
    ("DRAMATIQ_DIAG_ORPHAN_PROTECTION_TIME", "orphan_protection_time", 86400),
    ("DRAMATIQ_DIAG_RUN_RETENTION", "run_retention", 2592000),
    ("DRAMATIQ_DIAG_MAX_BYTES", "max_bytes", None),
    ("DRAMATIQ_DIAG_MAX_RUNS", "max_runs", None),
    ("DRAMATIQ_DIAG_CLEANUP_INTERVAL", "cleanup_interval", 3600),
    ("DRAMATIQ_DIAG_CLEANUP_QUEUE", "cleanup_queue", "dramatiq_diag"),
    ("DRAMATIQ_DIAG_SHUTDOWN_TIMEOUT", "shutdown_timeout", 10),
    ("DRAMATIQ_DIAG_URL_TTL", "url_ttl", 3600),
    ("DRAMATIQ_DIAG_SECRET_KEY", "secret_key", None),
    ("DRAMATIQ_DIAG_API_TOKEN", "api_token", None),
    ("DRAMATIQ_DIAG_METRICS_TOKEN", "metrics_token", None),
    ("DRAMATIQ_DIAG_ALLOWED_HOSTS", "allowed_hosts", ()),
    ("DRAMATIQ_DIAG_PUBLIC_URL", "public_url", None),
    ("DRAMATIQ_DIAG_TRACE_URL", "trace_url", None),
    ("DRAMATIQ_DIAG_RELEASE", "release", None),
    ("DRAMATIQ_DIAG_STUCK_AFTER", "stuck_after", "auto"),
    ("DRAMATIQ_DIAG_WATCHDOG", "watchdog", True),
    ("DRAMATIQ_DIAG_LEAK_CAPTURES", "leak_captures", False),
]

#: Variable -> a value that is allowed and not the default, and what it becomes.
GOOD = [
    ("DRAMATIQ_DIAG_OPTIONS_ON_REQUEST", "none", ("none",)),
    (
        "DRAMATIQ_DIAG_OPTIONS_ON_REQUEST",
        "memray.native_traces, memory.interval",
        ("memray.native_traces", "memory.interval"),
    ),
    ("DRAMATIQ_DIAG_SAMPLE_RATE", "0.01", 0.01),
    ("DRAMATIQ_DIAG_PASS_ON_DEPTH", "0", 0),
    ("DRAMATIQ_DIAG_MAX_BYTES", "20GiB", 20 * GIB),
    ("DRAMATIQ_DIAG_MAX_RUNS", "1000000", 10**6),
    ("TASK_DIAGNOSTICS", "memory, pyinstrument,memory,", ("memory", "pyinstrument")),
    ("TASK_DIAGNOSTICS", "all", ("all",)),
    ("TASK_DIAGNOSTICS_ON_REQUEST", "memray", ("memray",)),
    ("DRAMATIQ_DIAG_SPOOL_MAX_BYTES", "512MiB", 512 * 1024**2),
    ("DRAMATIQ_DIAG_MEMRAY_MAX_BYTES", "1000000", 1_000_000),
    ("DRAMATIQ_DIAG_MEMORY_INTERVAL", "0.5", 0.5),
    ("DRAMATIQ_DIAG_LOGS_MAX_BYTES", "64MiB", 64 * 1024**2),
    ("DRAMATIQ_DIAG_RESOURCES_INTERVAL", "0.1", 0.1),
    ("TASK_DIAGNOSTICS", "debug-logs,resources", ("debug-logs", "resources")),
    ("DRAMATIQ_DIAG_PYINSTRUMENT_ENGINE", "profiler", "profiler"),
    ("DRAMATIQ_DIAG_KEEP_IF", "duration > 5s, failed,failed", ("duration>5s", "failed")),
    (
        "DRAMATIQ_DIAG_TRIGGERS",
        "after 30s:stacks,memray ; rss > 1GiB: stacks",
        ("after 30s: stacks, memray", "rss>1GiB: stacks"),
    ),
    ("DRAMATIQ_DIAG_CLEANUP_INTERVAL", "0", 0),
    ("DRAMATIQ_DIAG_CLEANUP_INTERVAL", "90", 90),
    ("DRAMATIQ_DIAG_CLEANUP_INTERVAL", "1.5h", 5400),
    ("DRAMATIQ_DIAG_PYINSTRUMENT_INTERVAL", "10ms", 0.01),
    ("DRAMATIQ_DIAG_ORPHAN_PROTECTION_TIME", "0", 0),
    ("DRAMATIQ_DIAG_CLEANUP_QUEUE", "low.priority-2", "low.priority-2"),
    ("DRAMATIQ_DIAG_DATABASE_URL", "postgresql://u@h/d", "postgresql+psycopg://u@h/d"),
    ("DRAMATIQ_DIAG_PUBLIC_URL", "https://diag.example/x/", "https://diag.example/x"),
]

BAD = [
    # Asking
    ("DRAMATIQ_DIAG_SAMPLE_RATE", "1.1"),
    ("DRAMATIQ_DIAG_SAMPLE_RATE", "-0.1"),
    ("DRAMATIQ_DIAG_SAMPLE_RATE", "nan"),
    ("DRAMATIQ_DIAG_PASS_ON_DEPTH", "-1"),
    ("DRAMATIQ_DIAG_PASS_ON_DEPTH", "101"),
    # Names
    ("TASK_DIAGNOSTICS", "memory,cpu"),
    ("TASK_DIAGNOSTICS", "Memory"),
    ("TASK_DIAGNOSTICS", '["memory"]'),
    ("TASK_DIAGNOSTICS_ON_REQUEST", "everything"),
    ("DRAMATIQ_DIAG_OPTIONS_ON_REQUEST", "memray"),
    ("DRAMATIQ_DIAG_OPTIONS_ON_REQUEST", "memray.speed"),
    ("DRAMATIQ_DIAG_OPTIONS_ON_REQUEST", "cpu.interval"),
    ("DRAMATIQ_DIAG_OPTIONS_ON_REQUEST", "all,memory.interval"),
    ("DRAMATIQ_DIAG_OPTIONS_ON_REQUEST", "none,memory.interval"),
    # Numbers
    ("DRAMATIQ_DIAG_MEMORY_INTERVAL", "0"),
    ("DRAMATIQ_DIAG_MEMORY_INTERVAL", "-1"),
    ("DRAMATIQ_DIAG_MEMORY_INTERVAL", "two"),
    ("DRAMATIQ_DIAG_MEMORY_INTERVAL", "nan"),
    ("DRAMATIQ_DIAG_PYINSTRUMENT_INTERVAL", "inf"),
    ("DRAMATIQ_DIAG_PYINSTRUMENT_INTERVAL", "0"),
    ("DRAMATIQ_DIAG_PYINSTRUMENT_START_AFTER", "-1"),
    ("DRAMATIQ_DIAG_MEMRAY_WAIT", "-0.1"),
    ("DRAMATIQ_DIAG_ORPHAN_PROTECTION_TIME", "1e300"),
    ("DRAMATIQ_DIAG_RUN_RETENTION", "-5"),
    ("DRAMATIQ_DIAG_CLEANUP_INTERVAL", "hourly"),
    ("DRAMATIQ_DIAG_CLEANUP_INTERVAL", "-1h"),
    ("DRAMATIQ_DIAG_CLEANUP_INTERVAL", "101000w"),
    ("DRAMATIQ_DIAG_MEMORY_INTERVAL", "0s"),
    ("DRAMATIQ_DIAG_SHUTDOWN_TIMEOUT", "-1"),
    ("DRAMATIQ_DIAG_URL_TTL", "0"),
    # Rules and triggers
    ("DRAMATIQ_DIAG_KEEP_IF", "duration>5"),
    ("DRAMATIQ_DIAG_KEEP_IF", "duration<5s"),
    ("DRAMATIQ_DIAG_KEEP_IF", "failed>1"),
    ("DRAMATIQ_DIAG_KEEP_IF", "peak_rss>lots"),
    ("DRAMATIQ_DIAG_KEEP_IF", "slower_than>p0"),
    ("DRAMATIQ_DIAG_KEEP_IF", "failed; duration>5s"),
    ("DRAMATIQ_DIAG_TRIGGERS", "after 30s"),
    ("DRAMATIQ_DIAG_TRIGGERS", "after 30s: "),
    ("DRAMATIQ_DIAG_TRIGGERS", "after 30: stacks"),
    ("DRAMATIQ_DIAG_TRIGGERS", "rss>-1GiB: stacks"),
    ("DRAMATIQ_DIAG_TRIGGERS", "before 30s: stacks"),
    ("DRAMATIQ_DIAG_TRIGGERS", "after 30s: logs"),
    # Sizes
    ("DRAMATIQ_DIAG_SPOOL_MAX_BYTES", "0"),
    ("DRAMATIQ_DIAG_SPOOL_MAX_BYTES", "lots"),
    ("DRAMATIQ_DIAG_MEMRAY_MAX_BYTES", "-1"),
    ("DRAMATIQ_DIAG_LOGS_MAX_BYTES", "65MiB"),
    ("DRAMATIQ_DIAG_RESOURCES_INTERVAL", "0"),
    ("DRAMATIQ_DIAG_MEMRAY_MAX_BYTES", "1e30"),
    ("DRAMATIQ_DIAG_MAX_BYTES", "0"),
    ("DRAMATIQ_DIAG_MAX_RUNS", "0"),
    ("DRAMATIQ_DIAG_MAX_RUNS", "1.5"),
    ("DRAMATIQ_DIAG_MAX_RUNS", "1MiB"),
    # Choices and names
    ("DRAMATIQ_DIAG_PYINSTRUMENT_ENGINE", "cprofile"),
    ("DRAMATIQ_DIAG_CLEANUP_QUEUE", "a queue"),
    ("DRAMATIQ_DIAG_CLEANUP_QUEUE", "9lives"),
    # Places
    ("DRAMATIQ_DIAG_DATABASE_URL", "not a url"),
    ("DRAMATIQ_DIAG_DATABASE_URL", "mysql://host/name"),
    ("DRAMATIQ_DIAG_DATABASE_URL", "sqlite://"),
    ("DRAMATIQ_DIAG_DATABASE_URL", "sqlite:///:memory:"),
    ("DRAMATIQ_DIAG_DATABASE_URL", "sqlite:///file:x?mode=memory&uri=true"),
    ("DRAMATIQ_DIAG_BLOB_URL", "s3://bucket:9000/prefix"),
    ("DRAMATIQ_DIAG_DOWNLOAD_REDIRECT", "yes"),
    ("DRAMATIQ_DIAG_BLOB_URL", "file://otherhost/blobs"),
    ("DRAMATIQ_DIAG_PUBLIC_URL", "diag.example"),
    ("DRAMATIQ_DIAG_PUBLIC_URL", "ftp://diag.example"),
    ("DRAMATIQ_DIAG_PUBLIC_URL", "https://"),
    ("DRAMATIQ_DIAG_PUBLIC_URL", "https://diag.example/?q=1"),
    ("DRAMATIQ_DIAG_PUBLIC_URL", "https://diag.example/?"),
    ("DRAMATIQ_DIAG_PUBLIC_URL", "https://diag.example:80x"),
    ("DRAMATIQ_DIAG_PUBLIC_URL", "https://:443"),
    ("DRAMATIQ_DIAG_PUBLIC_URL", "https://diag example"),
    ("DRAMATIQ_DIAG_ALLOWED_HOSTS", "10.0.0.5:8321"),
    ("DRAMATIQ_DIAG_ALLOWED_HOSTS", "[10.0.0.5]"),
    ("DRAMATIQ_DIAG_BLOB_URL", "~nosuchuser/blobs"),
    ("DRAMATIQ_DIAG_BLOB_URL", "file:///tmp/a%00b"),
    ("DRAMATIQ_DIAG_DATABASE_URL", "postgresql+psycopg3://host/name"),
    ("DRAMATIQ_DIAG_DATABASE_URL", "sqlite+aiosqlite:////tmp/x.db"),
]

FIELD_OF = {variable: field for variable, field, _ in TABLE}
SECRET = "hunter2-hunter2"
LONG_SECRET = f"{SECRET}-{SECRET}"


def test_the_table_has_every_setting():
    names = {setting.name for setting in fields(Settings)}
    assert {field for _, field, _ in TABLE} == names
    assert {variable for variable, _, _ in TABLE} == {Settings.variable(name) for name in names}


@pytest.mark.parametrize(("variable", "field", "default"), TABLE)
def test_each_setting_has_its_default(variable, field, default):
    expected = default.absolute() if isinstance(default, Path) else default

    assert getattr(Settings(), field) == expected
    assert Settings.variable(field) == variable


def test_what_follows_from_the_data_dir(tmp_path):
    given = Settings(data_dir=tmp_path)

    assert given.blob_dir == tmp_path / "blobs"
    assert given.spool == tmp_path / "spool"
    assert given.database.database == str(tmp_path / "diagnostics.db")
    assert given.migrates_itself


def test_the_data_dir_is_made_absolute_at_construction(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = Settings(data_dir="here")

    monkeypatch.chdir("/")

    assert given.data_dir == tmp_path / "here"
    assert not given.data_dir.exists()


@pytest.mark.parametrize(("variable", "text", "value"), GOOD)
def test_a_setting_is_read_from_the_environment(monkeypatch, variable, text, value):
    monkeypatch.setenv(variable, text)

    assert getattr(Settings(), FIELD_OF[variable]) == value


@pytest.mark.parametrize(("variable", "text", "value"), GOOD)
def test_a_setting_is_given_in_code(variable, text, value):
    assert getattr(Settings(**{FIELD_OF[variable]: text}), FIELD_OF[variable]) == value


def test_code_comes_before_the_environment(monkeypatch):
    monkeypatch.setenv("TASK_DIAGNOSTICS", "memory")
    monkeypatch.setenv("DRAMATIQ_DIAG_MEMORY_INTERVAL", "9")

    given = Settings(task_diagnostics=[], memory_interval=1)

    assert (given.task_diagnostics, given.memory_interval) == ((), 1)
    assert Settings().task_diagnostics == ("memory",)


@pytest.mark.parametrize("names", [["memory"], ("memory",), {"memory"}, "memory"])
def test_names_may_be_any_collection(names):
    assert Settings(task_diagnostics=names).task_diagnostics == ("memory",)


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch):
    unset = Settings()
    for variable, _, _ in TABLE:
        monkeypatch.setenv(variable, "")

    assert Settings() == unset
    assert Settings().off


#: Values that a reader may not expect.
ODD = [
    *(
        "~nosuchuser/x",
        "~",
        "\0",
        "\udc80",
        "\n",
        "http://[",
        "http://a:b",
        "http://a:99999",
        "file://%00",
        "s3://",
        "://",
    ),
    *("9" * 5000, "1e999", "nan", "-0", "\u0661", "{", "[" * 3000, "a" * 100_000, "10.0.0.5:8321", "sqlite://", "all"),
    *(b"x", 10**400, -1, float("nan"), True, [], {}, [None], {"a": 1}, object(), Path("~nosuchuser"), 1j),
]


def test_a_line_end_behind_an_address_is_refused():
    with pytest.raises(SettingsError, match="line ends"):
        Settings(public_url="https://diag.example\n")


@pytest.mark.parametrize("name", ["10.0.0.5", "::1", "[::1]", "diag.example", "diag_1", "*"])
def test_names_and_addresses_of_hosts_are_taken(name):
    assert Settings(allowed_hosts=[name]).allowed_hosts == (name,)


@pytest.mark.parametrize("field", [setting.name for setting in fields(Settings)])
def test_an_odd_value_is_taken_or_refused_by_name(field):
    for value in ODD:
        try:
            Settings(**{field: value})
        except SettingsError as error:
            assert str(error).startswith(f"{Settings.variable(field)}: ")  # noqa: PT017 - many values are allowed.


@pytest.mark.parametrize(("variable", "text"), BAD)
def test_a_wrong_value_is_refused_by_name_value_and_what_is_allowed(monkeypatch, variable, text):
    field = FIELD_OF[variable]
    monkeypatch.setenv(variable, text)

    with pytest.raises(SettingsError) as from_environment:
        Settings()
    monkeypatch.delenv(variable)
    with pytest.raises(SettingsError) as from_code:
        Settings(**{field: text})

    for caught in (from_environment, from_code):
        message = str(caught.value)
        assert message.startswith(f"{variable}: ")
        assert text in message or field == "database_url"
        allowed = message.partition("; allowed: ")[2]
        assert len(allowed) > 10
        assert isinstance(caught.value, ValueError)


def test_all_wrong_values_are_named_at_once():
    with pytest.raises(SettingsError) as caught:
        Settings(memory_interval=-1, url_ttl=0)

    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        "DRAMATIQ_DIAG_MEMORY_INTERVAL",
        "DRAMATIQ_DIAG_URL_TTL",
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("task_diagnostics", 3),
        ("task_diagnostics", [1]),
        ("data_dir", "a\0b"),
        ("blob_url", "a\0b"),
        ("spool_dir", "\0"),
    ],
)
def test_a_wrong_type_in_code_is_refused_alike(field, value):
    with pytest.raises(SettingsError, match=Settings.variable(field)):
        Settings(**{field: value})


def test_a_misspelt_setting_is_refused_with_the_right_ones():
    with pytest.raises(SettingsError) as caught:
        Settings(memory_intervall=3)

    assert "memory_intervall" in str(caught.value)
    assert "memory_interval," in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("secret_key", SECRET),
        ("request_key", SECRET),
        ("database_url", f"mysql://user:{SECRET}@host/name"),
        ("database_url", f"postgresql://user:{SECRET}@host:port/name"),
        ("api_token", 17),
        ("api_token", SECRET),
        ("metrics_token", SECRET),
        ("public_url", f"https://user:{SECRET}@diag.example"),
        ("blob_url", f"s3://key:{SECRET}@bucket/prefix"),
    ],
)
def test_a_secret_is_not_in_the_message(field, value):
    with pytest.raises(SettingsError) as caught:
        Settings(**{field: value})

    assert Settings.variable(field) in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_secret_is_not_in_the_settings_text():
    given = Settings(
        secret_key=LONG_SECRET,
        request_key=LONG_SECRET,
        api_token=LONG_SECRET,
        metrics_token=LONG_SECRET,
        database_url=f"postgresql://user:{SECRET}@host/name?password={SECRET}",
    )

    assert SECRET not in repr(given)
    assert SECRET not in str(given)


def test_a_database_password_is_kept_for_connecting():
    given = Settings(database_url=f"postgresql://user:{SECRET}@host/name")

    assert given.database.password == SECRET
    assert given.database.drivername == "postgresql+psycopg"


@pytest.mark.parametrize("name", ["secret_key", "api_token", "metrics_token", "request_key"])
def test_a_key_has_no_white_space_at_its_ends_as_a_mounted_secret_has(name):
    given = Settings(**{name: f" {LONG_SECRET}\n"})
    assert getattr(given, name).get_secret_value() == LONG_SECRET
    with pytest.raises(SettingsError, match="at least 16 characters"):
        Settings(**{name: " " * 40 + "x"})


@pytest.mark.parametrize(
    ("public_url", "kept"),
    [
        ("https://x.example/日本/é", "https://x.example/%E6%97%A5%E6%9C%AC/%C3%A9"),
        ("https://x.example/a%20b/c@d/", "https://x.example/a%20b/c@d"),
    ],
)
def test_the_path_of_the_public_url_is_fit_for_headers(public_url, kept):
    assert Settings(public_url=public_url).public_url == kept


def test_a_secret_key_has_to_be_long():
    with pytest.raises(SettingsError, match="at least 16 characters"):
        Settings(secret_key="short")
    assert Settings(secret_key="x" * 16).secret_key.get_secret_value() == "x" * 16


@pytest.mark.parametrize("field", ["secret_key", "request_key", "api_token", "metrics_token"])
def test_white_space_at_the_ends_of_a_secret_is_left_out(monkeypatch, field):
    for text in (f"{LONG_SECRET}\n", f" {LONG_SECRET}\r\n", f"\t{LONG_SECRET}"):
        monkeypatch.setenv(Settings.variable(field), text)
        assert getattr(Settings(), field).get_secret_value() == LONG_SECRET
        assert getattr(Settings(**{field: text}), field).get_secret_value() == LONG_SECRET


@pytest.mark.parametrize("field", ["secret_key", "request_key", "api_token", "metrics_token"])
@pytest.mark.parametrize("text", ["\n", " " * 20, "short" + "\n" * 20])
def test_a_secret_that_is_empty_or_short_without_white_space_is_refused(field, text):
    with pytest.raises(SettingsError, match="at least 16 characters"):
        Settings(**{field: text})


def test_settings_do_not_change():
    with pytest.raises(FrozenInstanceError):
        Settings().memory_interval = 3


@pytest.mark.parametrize(
    ("values", "off"),
    [({}, True), ({"task_diagnostics": "memory"}, False), ({"task_diagnostics_on_request": "memory"}, False)],
)
def test_off_means_that_nothing_can_be_selected(values, off):
    assert Settings(**values).off is off


@pytest.mark.parametrize(
    ("blob_url", "expected"),
    [("/var/blobs", "/var/blobs"), ("file:///var/my%20blobs", "/var/my blobs"), ("file://localhost/b", "/b")],
)
def test_blobs_may_live_elsewhere(blob_url, expected):
    assert str(Settings(blob_url=blob_url).blob_dir) == expected


@pytest.mark.parametrize(
    ("database_url", "migrates_itself"),
    [(None, True), ("sqlite:///{}/x.db", True), ("sqlite:////elsewhere/x.db", False), ("postgresql://h/d", False)],
)
def test_only_sqlite_in_the_data_dir_migrates_itself(tmp_path, database_url, migrates_itself):
    url = database_url and database_url.format(tmp_path)

    assert Settings(data_dir=tmp_path, database_url=url).migrates_itself is migrates_itself


def test_nothing_else_reads_the_environment():
    package = Path(os.path.dirname(__import__("dramatiq_diag").__file__))

    readers = [
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if ("os.environ" in path.read_text("utf-8") or "getenv" in path.read_text("utf-8"))
    ]

    # The demo tells its worker where the broker is; child processes are given a few variables.
    assert set(readers) <= {"settings/__init__.py", "settings/release.py", "demo/worker.py", "runtime/interpreter.py"}


@pytest.mark.parametrize("text", ["1_000", "\u0661\u0662", "1\uff10"])
@pytest.mark.parametrize("field", ["memory_interval", "pass_on_depth", "max_runs"])
def test_a_number_has_no_other_digits_or_underscores(field, text):
    with pytest.raises(SettingsError, match=Settings.variable(field)):
        Settings(**{field: text})


@pytest.mark.parametrize("field", ["data_dir", "blob_url", "spool_dir", "cache_dir"])
def test_an_empty_directory_in_code_is_not_the_working_directory(field):
    with pytest.raises(SettingsError, match="it is empty"):
        Settings(**{field: ""})


@pytest.mark.parametrize("name", ["[::1", "::1]", "[10.0.0.5]", "[]", "["])
def test_half_an_address_is_no_host(name):
    with pytest.raises(SettingsError, match="is not the name of a host"):
        Settings(allowed_hosts=[name])


def test_a_percentile_has_ascii_digits():
    with pytest.raises(SettingsError, match="percentile"):
        Settings(keep_if="slower_than>p9\u0665")
