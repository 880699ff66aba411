"""Says in a phrase what a thread waits for in a call of the kernel, with the help of its Python stack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..frames import Place
from .descriptors import Endpoint
from .python import (
    client_of,
    executes_statement,
    is_selector_of_loop,
    purpose_of_thread,
    resolves_name,
    shakes_hands,
)
from .system_calls import SystemCall
from .wait import Wait, WaitKind

#: The most descriptors that are named where a thread waits for several.
_MAX_NAMED = 4

#: Call -> what it is about where no more is known.
_KINDS: dict[str, WaitKind] = {
    "flock": "file",
    "futex": "lock",
    "nanosleep": "sleep",
    "recvfrom": "socket",
    "wait4": "child",
}

#: What other calls wait for.
_OTHERS = {
    "rt_sigsuspend": "waits for a signal",
    "rt_sigtimedwait": "waits for a signal",
    "pause": "waits for a signal",
    "io_uring_enter": "waits until the kernel has done what it was asked for by io_uring",
    "io_getevents": "waits until the kernel has done what it was asked for by asynchronous I/O",
    "msgrcv": "waits for a message of System V",
    "msgsnd": "waits for room for a message of System V",
    "mq_timedreceive": "waits for a message of a POSIX message queue",
    "mq_timedsend": "waits for room in a POSIX message queue",
}


def wait_for_one(end: Endpoint, *, to_write: bool, has_limit: bool = False) -> Wait:
    """Returns: The wait for one descriptor."""
    if end.kind == "child":
        return Wait("child", None, f"waits until {end.what} has ended")
    if end.kind == "pipe":
        return Wait("pipe", None, f"waits until {end.what} has room" if to_write else f"waits for data from {end.what}")
    if end.kind != "socket":
        verb = "writes to" if to_write else "reads from"
        return Wait(end.kind, None, f"{verb} {end.what}" if end.kind == "file" else f"waits for {end.what}")
    if end.is_connecting:
        detail = f"waits for a connection to {end.what}"
    elif end.is_listening:
        detail = f"waits for a new connection to {end.what}"
    elif to_write:
        detail = f"waits until {end.what} takes what is sent"
    else:
        detail = f"waits for an answer of {end.what}" if end.peer else f"waits for data from {end.what}"
    return Wait("socket", None, detail if has_limit else f"{detail}, without a time limit", end.peer)


def wait_for_any(ends: Sequence[Endpoint]) -> Wait:
    """Returns: The wait for any of several descriptors."""
    named = ", ".join(dict.fromkeys(end.what for end in ends[:_MAX_NAMED]))
    more = ", ..." if len(ends) > _MAX_NAMED else ""
    kinds, peers = {end.kind for end in ends}, {end.peer for end in ends}
    kind, peer = kinds.pop(), peers.pop()
    detail = f"waits for any of {len(ends)} descriptors: {named}{more}"
    return Wait("unknown" if kinds else kind, None, detail, None if peers else peer)


def wait_by_name(call: SystemCall, places: Sequence[Place]) -> Wait:
    """Returns: The wait in a call of which no more than the name is known."""
    purpose = purpose_of_thread(places)
    if purpose is not None:
        return Wait(purpose.kind, call.name, purpose.detail)
    if call.name == "page fault":
        return Wait("file", call.name, "waits for a page of memory, which the kernel reads from a file or from swap")
    if call.name in ("vfork", "clone", "clone3"):
        return Wait("child", call.name, "waits until a child process executes its program")
    if call.name in ("semop", "semtimedop"):
        return Wait("lock", call.name, "waits for a semaphore of System V")
    within = f" (in {call.function} of the kernel)" if call.function else ""
    detail = _OTHERS.get(call.name, f"waits in the call {call.name} of the kernel{within}")
    return Wait(_KINDS.get(call.name, "unknown"), call.name, detail)


def refined(wait: Wait, places: Sequence[Place]) -> Wait:
    """Returns: The wait with what the Python functions tell about it."""
    if is_selector_of_loop(places):
        watched = f", and {wait.detail}" if wait.peer else ""
        return replace(wait, kind="loop", detail=f"is an event loop that has nothing to do{watched}")
    if wait.kind == "socket":
        return _refined_socket(wait, places)
    purpose = purpose_of_thread(places)
    if purpose is None or wait.kind not in ("lock", "sleep", "unknown"):
        return wait
    limit = ", without a time limit" if wait.detail.endswith("without a time limit") else ""
    return replace(wait, kind=purpose.kind, detail=f"{purpose.detail}{limit}")


def _refined_socket(wait: Wait, places: Sequence[Place]) -> Wait:
    where = wait.detail
    for start in ("waits for an answer of ", "waits for data from ", "waits for any of "):
        where = where.removeprefix(start)
    if resolves_name(places) or (wait.peer or "").endswith(":53"):
        return replace(wait, detail=f"resolves a host name: waits for an answer of {where}")
    if shakes_hands(places):
        return replace(wait, detail=f"waits for the TLS handshake with {where}")
    return called_by_client(wait, places)


def called_by_client(wait: Wait, places: Sequence[Place]) -> Wait:
    """Returns: The wait for a socket with the client library that waits, and what it does if that is known."""
    client = client_of(places)
    if "PostgreSQL" in wait.detail and executes_statement(places):
        by = f" by {client}" if client else ""
        return replace(wait, detail=f"{wait.detail}: a statement{by} is under way, which may wait for a lock of a row")
    return replace(wait, detail=f"{wait.detail} (called by {client})") if client else wait
