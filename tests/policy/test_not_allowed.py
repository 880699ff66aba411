"""What was asked for and is not allowed: an artifact of the run says so."""

from __future__ import annotations

import logging

import pytest

from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from support import eventually
from support.triggers import Runs

#: The end of every reason.
NEITHER = "which neither TASK_DIAGNOSTICS nor TASK_DIAGNOSTICS_ON_REQUEST of this worker has"


def reasons(stored, given, task_id):
    """Returns: Name of each artifact that was skipped -> why."""
    artifacts = stored(given).artifacts(task_id).values()
    return {artifact.name: artifact.reason for artifact in artifacts if artifact.status == ArtifactStatus.SKIPPED}


@pytest.mark.parametrize("where", ["message", "actor"])
def test_a_name_that_is_not_allowed_is_an_artifact_that_says_so(bench, settings, stored, where):
    given = settings(task_diagnostics=["memory"])
    wanted = ["memory", {"memray": {"native_traces": True}}, "Flame Graph!"]

    with bench(given) as tasks:
        actor = tasks.actor(lambda: None, actor_name="asks", **({"diagnostics": wanted} if where == "actor" else {}))
        message = actor.send_with_options(**({"diagnostics": wanted} if where == "message" else {}))
        tasks.finish()

    # Then what is allowed was collected, and of the rest the run says why it was not
    artifacts = stored(given).artifacts(message.message_id)
    assert artifacts["memory_profile"].status == ArtifactStatus.STORED
    assert reasons(stored, given, message.message_id) == {
        "memray_profile": f"The {where} asks for 'memray', {NEITHER}.",
        "flame_graph_": f"The {where} asks for 'Flame Graph!', {NEITHER}; it is no collector of dramatiq_diag.",
    }
    assert (artifacts["memray_profile"].filename, artifacts["memray_profile"].blob_name) == ("memray.bin", None)


def test_a_message_that_asks_for_nothing_that_is_allowed_has_a_run_that_says_so(bench, settings, stored):
    given = settings(task_diagnostics_on_request=["memory"])

    with bench(given) as tasks:
        actor = tasks.actor(lambda: None, actor_name="asks")
        message = actor.send_with_options(diagnostics=["memray"])
        silent = actor.send_with_options(diagnostics=[])
        tasks.finish()

    (run,) = stored(given).runs(message.message_id)
    assert run.status == RunStatus.SUCCEEDED
    assert list(reasons(stored, given, message.message_id)) == ["memray_profile"]
    assert stored(given).runs(silent.message_id) == []


def test_an_option_that_is_not_allowed_is_an_artifact_that_says_so(bench, settings, stored):
    given = settings(task_diagnostics=["memory"], options_on_request="none")

    with bench(given) as tasks:
        actor = tasks.actor(lambda: None, actor_name="asks")
        message = actor.send_with_options(diagnostics=[{"memory": {"interval": 0.1}}])
        tasks.finish()

    assert reasons(stored, given, message.message_id) == {
        "memory_profile": "The option memory.interval may not be asked for; see DRAMATIQ_DIAG_OPTIONS_ON_REQUEST."
    }


def test_many_names_leave_a_few_artifacts_and_one_warning(bench, settings, stored, caplog):
    given = settings(task_diagnostics=["memory"])

    with bench(given) as tasks, caplog.at_level(logging.WARNING):
        actor = tasks.actor(lambda: None, actor_name="asks")
        for number in range(3):
            message = actor.send_with_options(diagnostics=[f"{'x' * 100}{number}-{other}" for other in range(30)])
        tasks.finish()

    told = reasons(stored, given, message.message_id)
    assert len(told) == 10
    assert max(map(len, (*told, *told.values()))) < 400
    assert len(caplog.records) == 1


def test_the_logs_that_are_allowed_are_collected_where_more_is_asked_for(bench, settings, stored):
    given = settings(task_diagnostics=["logs"])

    with bench(given) as tasks:
        actor = tasks.actor(lambda: logging.getLogger("asks").error("told"), actor_name="asks")
        message = actor.send_with_options(diagnostics=["logs", "debug-logs"])
        tasks.finish()

    assert list(stored(given).artifacts(message.message_id)) == ["task_logs"]
    assert b"told" in stored(given).data(message.message_id, "task_logs")


def test_stacks_of_a_trigger_are_written_where_logs_were_not_allowed(bench, settings, stored):
    given = settings(task_diagnostics=["memory"], triggers="after 1ms: stacks")
    with bench(given) as tasks:

        def wait_for_stacks() -> None:
            eventually(Runs(tasks).wrote_stacks(), "the stacks were written")

        actor = tasks.actor(wait_for_stacks, actor_name="asks")
        message = actor.send_with_options(diagnostics=["memory", "logs"])
        tasks.finish()

    assert b"# Stacks of all threads" in stored(given).data(message.message_id, "task_logs")
