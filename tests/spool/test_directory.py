"""The spool: owners and their locks."""

from __future__ import annotations

import stat
import uuid

from dramatiq_diag.spool.directory import Spool
from support import PATIENCE_S
from support.spool import dead_entry, dead_owners_seen_by_another_process, start_record

_FORK = """
import os, sys, time
from dramatiq_diag import Settings
from dramatiq_diag.spool.directory import Spool
spool = Spool(Settings(data_dir=sys.argv[1]))
spool.open()
print(spool.owner.name, flush=True)
if os.fork() == 0:
    print("child", flush=True)
    time.sleep(600)
sys.stdin.readline()
os._exit(0)
"""


def test_an_owner_is_private_and_locked_while_it_lives(spool, settings):
    assert stat.S_IMODE(spool.root.stat().st_mode) == 0o700
    assert stat.S_IMODE(spool.owner.stat().st_mode) == 0o700
    assert stat.S_IMODE((spool.owner / "owner.lock").stat().st_mode) == 0o600
    assert dead_owners_seen_by_another_process(settings().data_dir) == []
    assert list(Spool(settings()).dead_owners()) == []


def test_the_processes_own_look_does_not_drop_its_lock(spool, settings):
    list(Spool(settings()).dead_owners())
    spool.measure()

    assert dead_owners_seen_by_another_process(settings().data_dir) == []


def test_a_closed_spool_leaves_no_directory(settings):
    spool = Spool(settings())
    spool.open()

    spool.close()
    spool.close()

    assert list(spool.root.iterdir()) == []


def test_a_closed_spool_leaves_what_is_not_published_to_the_next_worker(settings):
    spool = Spool(settings())
    spool.open()
    owner = spool.owner
    entry = spool.entry()
    entry.append(start_record(entry.run_id))
    entry.flush()
    entry.close()

    spool.close()

    assert [entry.run_id for entry in Spool(settings()).entries(owner, 10)] == [entry.run_id]
    assert dead_owners_seen_by_another_process(settings().data_dir) == [owner.name]


def test_a_child_that_a_task_forked_does_not_keep_a_dead_owner_alive(settings, python):
    # Given a worker with a forked child
    process = python(_FORK, str(settings().data_dir))
    lines = {process.stdout.readline().strip(), process.stdout.readline().strip()}
    (name,) = lines - {"child"}
    assert dead_owners_seen_by_another_process(settings().data_dir) == []

    # When the worker ends and the child lives on
    process.stdin.write("\n")
    process.stdin.flush()
    process.wait(PATIENCE_S)

    # Then the owner counts as dead
    assert dead_owners_seen_by_another_process(settings().data_dir) == [name]
    import psutil

    for child in psutil.process_iter(["cmdline"]):
        if str(settings().data_dir) in (child.info["cmdline"] or []):
            child.kill()


def test_two_salvagers_never_have_the_same_owner(settings):
    owner = dead_entry(settings().spool, [start_record(uuid.uuid4())]).owner

    for claimed in Spool(settings()).dead_owners():
        assert claimed == owner
        assert dead_owners_seen_by_another_process(settings().data_dir) == []

    assert dead_owners_seen_by_another_process(settings().data_dir) == [owner.name]


def test_foreign_names_in_the_spool_are_let_be(settings, bench, tmp_path):
    given = settings(task_diagnostics=["memory"], orphan_protection_time=0)
    root = given.spool
    root.mkdir(parents=True)
    (root / "notes").mkdir()
    (root / "notes" / "a.txt").write_text("mine")
    (root / "README").write_text("mine")
    (root / str(uuid.uuid4())).symlink_to(tmp_path)
    (root / str(uuid.uuid4())).write_text("a file with an owner's name")
    before = sorted(str(path) for path in root.rglob("*"))

    with bench(given):
        pass

    assert sorted(str(path) for path in root.rglob("*")) == before
    assert list(Spool(given).remove_abandoned(before=1e12)) == []
    assert sorted(str(path) for path in root.rglob("*")) == before
