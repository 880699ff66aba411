"""The cleanup actor: declared by hand, and driven by other schedulers, as docs/operations.md shows them."""

from __future__ import annotations

import warnings
from typing import Any

import dramatiq
import pytest

from dramatiq_diag import Diagnostics, Settings
from dramatiq_diag.cleanup import register_cleanup
from dramatiq_diag.errors import DiagnosticsError
from dramatiq_diag.policy.propagation import CLEANUP_ACTOR
from dramatiq_diag.statuses import ArtifactStatus
from support import PATIENCE_S, eventually
from support.tasks import finish

# Declared by hand.


def test_registering_without_options_is_repeatable(settings, stub_broker):
    given = settings(cleanup_queue="low")
    stub_broker.add_middleware(Diagnostics(given))

    actor = register_cleanup(stub_broker)

    assert register_cleanup(stub_broker) is actor
    assert (actor.actor_name, actor.queue_name) == (CLEANUP_ACTOR, "low")
    assert actor.options == {"time_limit": 3_600_000, "max_retries": 0, "throws": DiagnosticsError}
    assert actor.priority > 0
    with pytest.raises(ValueError, match="already registered"):
        register_cleanup(stub_broker, queue_name="high")


def test_registering_with_options_comes_before_the_worker(settings, stub_broker, run_worker, stored):
    given = settings(task_diagnostics=["memory"], orphan_protection_time=0)
    stub_broker.add_middleware(Diagnostics(given))

    actor = register_cleanup(stub_broker, queue_name="mine", time_limit=1_000_000, priority=3)
    with run_worker(stub_broker) as worker:
        actor.send()
        finish(stub_broker, worker, "mine")

    assert (actor.queue_name, actor.options["time_limit"], actor.priority) == ("mine", 1_000_000, 3)
    assert stub_broker.dead_letters == []


def test_registering_without_the_middleware_takes_the_settings_of_the_environment(
    stub_broker, run_worker, monkeypatch, tmp_path, queue_name
):
    monkeypatch.setenv("DRAMATIQ_DIAG_DATA_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("DRAMATIQ_DIAG_CLEANUP_QUEUE", queue_name)

    actor = register_cleanup(stub_broker)
    with run_worker(stub_broker) as worker:
        actor.send()
        finish(stub_broker, worker, queue_name)

    assert (tmp_path / "elsewhere" / "diagnostics.db").exists()
    assert stub_broker.dead_letters == []


def test_an_option_that_no_middleware_knows_is_left_out(settings):
    from dramatiq.brokers.stub import StubBroker

    broker = StubBroker(middleware=[Diagnostics(settings())])

    assert register_cleanup(broker).options == {}
    broker.close()


# Other schedulers, as docs/operations.md shows them.


@pytest.fixture
def old_artifact(settings, stub_broker, run_worker, stored):
    """Settings, and the id of a task whose artifact is past its protection time."""
    given = settings(task_diagnostics=["memory"], orphan_protection_time=0)
    stub_broker.add_middleware(Diagnostics(given))
    work = dramatiq.actor(lambda: None, broker=stub_broker, actor_name="work")
    with run_worker(stub_broker) as worker:
        task_id = work.send().message_id
        finish(stub_broker, worker, "default")
    del stub_broker.actors[CLEANUP_ACTOR]  # As in a process that has run no worker.
    return given, task_id


def _expired(stored: Any, given: Settings, task_id: str) -> bool:
    return stored(given).artifacts(task_id)["memory_profile"].status == ArtifactStatus.EXPIRED


def test_apscheduler_drives_it(old_artifact, stub_broker, run_worker, stored):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It imports pkg_resources where that is installed.
        background = pytest.importorskip("apscheduler.schedulers.background")
    given, task_id = old_artifact

    actor = register_cleanup(stub_broker)
    scheduler = background.BackgroundScheduler()
    scheduler.add_job(actor.send, "interval", seconds=0.05)
    with run_worker(stub_broker):
        scheduler.start()
        try:
            eventually(lambda: _expired(stored, given, task_id), "the artifact is expired")
        finally:
            scheduler.shutdown()

    assert list(stored(given).store.blobs.scan()) == []


def test_periodiq_drives_it(old_artifact, stub_broker, run_worker, stored, queue_name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        periodiq = pytest.importorskip("periodiq")
    given, task_id = old_artifact
    stub_broker.add_middleware(periodiq.PeriodiqMiddleware(skip_delay=int(PATIENCE_S)))

    register_cleanup(stub_broker, periodic=periodiq.cron("* * * * *"))
    scheduler = periodiq.Scheduler([a for a in stub_broker.actors.values() if "periodic" in a.options])
    with run_worker(stub_broker) as worker:
        scheduler.send_actors(scheduler.actors, now=periodiq.pendulum.now())
        finish(stub_broker, worker, queue_name)

    assert _expired(stored, given, task_id)
    assert stub_broker.dead_letters == []
