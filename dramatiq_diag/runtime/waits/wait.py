"""Defines what a thread does and what it waits for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["running", "gil_wait", "blocked", "awaiting"]

WaitKind = Literal["socket", "file", "lock", "gil", "child", "sleep", "pipe", "future", "loop", "unknown"]


@dataclass(frozen=True, slots=True)
class Wait:
    """What a thread or a coroutine waits for."""

    kind: WaitKind
    call: str | None
    "The name of the kernel's call; None if it is not known, and for coroutines."
    detail: str
    "A phrase for a developer, as `waits for an answer of 127.0.0.1:5432, where PostgreSQL commonly listens`."
    peer: str | None = None
    "The other end of a socket: `host:port`, or the path of a Unix socket."


@dataclass(frozen=True, slots=True)
class ThreadState:
    """What a thread does right now."""

    state: State
    wait: Wait | None = None
    "None while it runs."
