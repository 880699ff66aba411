"""Tells by the Python functions on a stack what a thread or a coroutine waits for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from ..frames import Place
from .wait import WaitKind

#: The most frames of one library that lie around a wait.
_MAX_FRAMES = 20


class Purpose(NamedTuple):
    """What the functions of a library wait for."""

    kind: WaitKind
    detail: str


#: End of the file -> qualified name of a function -> what it waits for, for threads.
_THREADS: dict[str, dict[str, Purpose]] = {
    "/threading.py": {
        "Condition.wait": Purpose("lock", "waits until another thread notifies a condition (Condition.wait)"),
        "Condition.wait_for": Purpose("lock", "waits until a condition holds (Condition.wait_for)"),
        "Event.wait": Purpose("lock", "waits until another thread sets an event (Event.wait)"),
        "Barrier.wait": Purpose("lock", "waits until all other threads have come to a barrier (Barrier.wait)"),
        "Barrier._wait": Purpose("lock", "waits until all other threads have come to a barrier (Barrier.wait)"),
        "Semaphore.acquire": Purpose("lock", "waits until another thread releases a semaphore (Semaphore.acquire)"),
        "_RLock.acquire": Purpose("lock", "waits for a lock that another thread holds (RLock.acquire)"),
        "Thread.join": Purpose("lock", "waits until another thread has ended (Thread.join)"),
        "Thread._wait_for_tstate_lock": Purpose("lock", "waits until another thread has ended (Thread.join)"),
        "_shutdown": Purpose("lock", "waits until all other threads have ended, as the process exits"),
    },
    "/queue.py": {
        "Queue.get": Purpose("lock", "waits for an item of an empty queue (Queue.get)"),
        "Queue.put": Purpose("lock", "waits for a free place in a full queue (Queue.put)"),
        "Queue.join": Purpose("lock", "waits until all items of a queue are done (Queue.join)"),
        "_PySimpleQueue.get": Purpose("lock", "waits for an item of an empty queue (SimpleQueue.get)"),
    },
    "/concurrent/futures/_base.py": {
        "Future.result": Purpose("future", "waits for a result of a thread pool or an event loop (Future.result)"),
        "Future.exception": Purpose("future", "waits until a future is done (Future.exception)"),
        "_result_or_cancel": Purpose("future", "waits for a result of an executor (Executor.map)"),
        "Executor.map.<locals>.result_iterator": Purpose("future", "waits for a result of an executor (Executor.map)"),
        "wait": Purpose("future", "waits until futures are done (concurrent.futures.wait)"),
        "as_completed": Purpose("future", "waits until the next future is done (concurrent.futures.as_completed)"),
    },
    "/concurrent/futures/thread.py": {
        "_worker": Purpose("lock", "is a thread of a pool that has no work"),
        "ThreadPoolExecutor.shutdown": Purpose("lock", "waits until the threads of a pool have ended"),
    },
    "/multiprocessing/synchronize.py": {
        "SemLock.__enter__": Purpose("lock", "waits for a lock that is shared with other processes"),
        "Condition.wait": Purpose("lock", "waits until a condition of several processes is notified"),
    },
    "/multiprocessing/popen_fork.py": {
        "Popen.poll": Purpose("child", "waits until a process has ended (multiprocessing)"),
        "Popen.wait": Purpose("child", "waits until a process has ended (multiprocessing)"),
    },
    "/multiprocessing/pool.py": {
        "ApplyResult.wait": Purpose("future", "waits for a result of a pool of processes (multiprocessing.Pool)"),
        "ApplyResult.get": Purpose("future", "waits for a result of a pool of processes (multiprocessing.Pool)"),
        "IMapIterator.next": Purpose("future", "waits for a result of a pool of processes (multiprocessing.Pool)"),
    },
    "/subprocess.py": {
        "Popen._wait": Purpose("child", "waits until a child process has ended (subprocess)"),
        "Popen.wait": Purpose("child", "waits until a child process has ended (subprocess)"),
        "Popen._execute_child": Purpose("child", "waits until a child process has begun (subprocess)"),
    },
    "/sqlalchemy/util/queue.py": {
        "Queue.get": Purpose("lock", "waits for an item of a queue of SQLAlchemy"),
        "Queue.put": Purpose("lock", "waits for a free place in a queue of SQLAlchemy"),
    },
    "/sqlalchemy/pool/impl.py": {
        "QueuePool._do_get": Purpose(
            "lock", "waits for a free connection of SQLAlchemy's pool, which is exhausted (QueuePool)"
        ),
    },
    "/psycopg_pool/pool.py": {
        "WaitingClient.wait": Purpose("lock", "waits for a free connection of psycopg's pool (ConnectionPool.getconn)"),
        "ConnectionPool.getconn": Purpose("lock", "waits for a free connection of psycopg's pool"),
    },
    "/urllib3/connectionpool.py": {
        "HTTPConnectionPool._get_conn": Purpose("lock", "waits for a free connection of urllib3's pool"),
    },
    "/redis/connection.py": {
        "BlockingConnectionPool.get_connection": Purpose("lock", "waits for a free connection of Redis's pool"),
    },
    "/gevent/hub.py": {
        "sleep": Purpose("sleep", "sleeps (gevent)"),
    },
    "/gevent/thread.py": {
        "LockType.acquire": Purpose("lock", "waits for a lock that another greenlet holds (gevent)"),
    },
    "/gevent/subprocess.py": {
        "Popen._gevent_result_wait": Purpose("child", "waits until a child process has ended (gevent)"),
        "Popen.wait": Purpose("child", "waits until a child process has ended (gevent)"),
    },
    "/gevent/_socketcommon.py": {
        "SocketMixin.recv": Purpose("socket", "waits for an answer (gevent)"),
        "SocketMixin.recv_into": Purpose("socket", "waits for an answer (gevent)"),
        "SocketMixin.connect": Purpose("socket", "waits for a connection (gevent)"),
    },
    "/dramatiq/asyncio.py": {
        "EventLoopThread.run_coroutine": Purpose("future", "waits until the coroutine of its actor is done"),
    },
    "<frozen importlib._bootstrap>": {
        "_ModuleLock.acquire": Purpose("lock", "waits until another thread has imported a module"),
    },
}

_ANSWER = Purpose("socket", "waits for an answer")

#: The same for the innermost functions of a coroutine.
_COROUTINES: dict[str, dict[str, Purpose]] = {
    "/asyncio/tasks.py": {
        "sleep": Purpose("sleep", "sleeps (asyncio.sleep)"),
        "wait_for": Purpose("future", "awaits a future with a time limit (asyncio.wait_for)"),
        "wait": Purpose("future", "awaits several tasks (asyncio.wait)"),
        "_wait": Purpose("future", "awaits several tasks (asyncio.wait)"),
    },
    "/asyncio/threads.py": {
        "to_thread": Purpose("future", "awaits the result of a function in a thread (asyncio.to_thread)"),
    },
    "/asyncio/locks.py": {
        "Lock.acquire": Purpose("lock", "awaits a lock that another coroutine holds (asyncio.Lock)"),
        "Event.wait": Purpose("lock", "awaits an event that nobody has set (asyncio.Event)"),
        "Condition.wait": Purpose("lock", "awaits the notification of a condition (asyncio.Condition)"),
        "Semaphore.acquire": Purpose("lock", "awaits a semaphore that others hold (asyncio.Semaphore)"),
        "Barrier._block": Purpose("lock", "awaits the others at a barrier (asyncio.Barrier)"),
        "Barrier._wait": Purpose("lock", "awaits the others at a barrier (asyncio.Barrier)"),
    },
    "/asyncio/queues.py": {
        "Queue.get": Purpose("lock", "awaits an item of an empty queue (asyncio.Queue.get)"),
        "Queue.put": Purpose("lock", "awaits a free place in a full queue (asyncio.Queue.put)"),
        "Queue.join": Purpose("lock", "waits until all items of a queue are done (asyncio.Queue.join)"),
    },
    "/asyncio/streams.py": {
        "StreamReader._wait_for_data": _ANSWER,
        "FlowControlMixin._drain_helper": Purpose("socket", "waits until the other end takes what is sent"),
    },
    "/asyncio/subprocess.py": {
        "Process.wait": Purpose("child", "waits until a child process has ended (asyncio)"),
        "Process.communicate": Purpose("child", "waits for the output of a child process (asyncio)"),
    },
    "/aiohttp/streams.py": {
        "DataQueue.read": _ANSWER,
        "StreamReader._wait": _ANSWER,
    },
    "/anyio/_backends/_asyncio.py": {
        "SocketStream.receive": _ANSWER,
    },
    "/asyncpg/connection.py": {
        "Connection._do_execute": _ANSWER,
        "Connection._get_statement": _ANSWER,
        "Connection.execute": _ANSWER,
    },
    "/asyncpg/pool.py": {
        "Pool._acquire.<locals>._acquire_impl": Purpose("lock", "waits for a free connection of asyncpg's pool"),
        "Pool._acquire": Purpose("lock", "waits for a free connection of asyncpg's pool, which is exhausted"),
    },
    "/asyncio/base_subprocess.py": {
        "BaseSubprocessTransport._wait": Purpose("child", "waits until a child process has ended (asyncio)"),
    },
    "/asyncio/selector_events.py": {
        "BaseSelectorEventLoop.sock_connect": Purpose("socket", "waits for a connection"),
        "BaseSelectorEventLoop.sock_recv": _ANSWER,
        "BaseSelectorEventLoop.sock_recv_into": _ANSWER,
        "BaseSelectorEventLoop.sock_sendall": Purpose("socket", "waits until the other end takes what is sent"),
        "BaseSelectorEventLoop.sock_accept": Purpose("socket", "waits for a new connection"),
    },
    "/asyncio/base_events.py": {
        "BaseEventLoop.getaddrinfo": Purpose("socket", "waits until a name is resolved"),
        "BaseEventLoop._create_connection_transport": Purpose("socket", "waits for a TLS handshake"),
    },
    "/asyncio/taskgroups.py": {
        "TaskGroup.__aexit__": Purpose("future", "awaits the tasks of a group (asyncio.TaskGroup)"),
    },
}

#: Part of the path of a client library -> its name.
_CLIENTS = {
    "/psycopg/": "psycopg",
    "/psycopg2/": "psycopg2",
    "/asyncpg/": "asyncpg",
    "/pg8000/": "pg8000",
    "/pymysql/": "PyMySQL",
    "/MySQLdb/": "mysqlclient",
    "/redis/": "redis",
    "/pika/": "pika",
    "/kombu/": "kombu",
    "/pymongo/": "PyMongo",
    "/kafka/": "kafka",
    "/urllib3/": "urllib3",
    "/requests/": "requests",
    "/httpx/": "httpx",
    "/aiohttp/": "aiohttp",
    "/botocore/": "botocore",
    "/smtplib.py": "smtplib",
    "/imaplib.py": "imaplib",
    "/ftplib.py": "ftplib",
    "/http/client.py": "http.client",
}

#: Functions that execute statements.
_STATEMENTS = (
    *("_execute", "copy", "do_execute", "do_executemany", "execute", "executemany"),
    *("fetch", "fetchrow", "fetchval"),
)

#: What calls an event loop, which is written in C where this is the innermost function.
_C_LOOP = ("/dramatiq/asyncio.py", "EventLoopThread.run")

_RESOLVERS = ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr", "getfqdn", "getnameinfo")


def purpose_of_thread(places: Sequence[Place]) -> Purpose | None:
    """Returns: What the innermost functions of a thread's stack wait for, as the outermost of them tells; or None.

    `Condition.wait` in `Queue.get` in SQLAlchemy's pool is a wait for a connection of the pool.
    """
    return _purpose(places, is_thread=True)


def purpose_of_coroutine(places: Sequence[Place]) -> Purpose | None:
    """Returns: The same for the stack of a coroutine that awaits."""
    return _purpose(places, is_thread=False)


def reads_answer(places: Sequence[Place]) -> bool:
    """Returns: Whether a coroutine goes on as soon as its connection has bytes."""
    return purpose_of_coroutine(places) is _ANSWER


def is_event_of_socket(places: Sequence[Place]) -> bool:
    """Returns: Whether a coroutine awaits an event for the one that called it, which has the connection (anyio)."""
    ends = ("/asyncio/locks.py", "Event.wait"), ("/anyio/_backends/_asyncio.py", "SocketStream.receive")
    return len(places) > 1 and all(map(is_in, places, ends))


def client_of(places: Iterable[Place]) -> str | None:
    """Returns: The client library among the innermost functions, or None."""
    for code, _ in list(places)[:_MAX_FRAMES]:
        for part, name in _CLIENTS.items():
            if part in code.co_filename:
                return name
    return None


def executes_statement(places: Iterable[Place]) -> bool:
    """Returns: Whether one of the innermost functions executes a statement of a database."""
    return any(code.co_name in _STATEMENTS for code, _ in list(places)[:_MAX_FRAMES])


def shakes_hands(places: Sequence[Place]) -> bool:
    """Returns: Whether the innermost function begins a TLS connection."""
    return any(code.co_name == "do_handshake" for code, _ in places[:3])


def resolves_name(places: Sequence[Place]) -> bool:
    """Returns: Whether the innermost function resolves the name of a host."""
    return bool(places) and places[0][0].co_name in _RESOLVERS


def is_in(place: Place, function: tuple[str, str]) -> bool:
    """Returns: Whether a place is in a function, which is given by the end of its file and its qualified name."""
    return place[0].co_qualname == function[1] and place[0].co_filename.endswith(function[0])


def is_selector_of_loop(places: Sequence[Place]) -> bool:
    """Returns: Whether an event loop waits for its next event: one of asyncio, or one in C such as uvloop's."""
    if places and is_in(places[0], _C_LOOP):
        return True
    names = [code.co_qualname for code, _ in places[:2]]
    return names[1:] == ["BaseEventLoop._run_once"] and names[0].endswith(".select")


def _purpose(places: Sequence[Place], *, is_thread: bool) -> Purpose | None:
    found: Purpose | None = None
    for code, _ in places[:_MAX_FRAMES]:
        functions = _functions_in(code.co_filename, is_thread=is_thread)
        if not functions or (found is None and code.co_qualname not in functions):
            break
        found = functions.get(code.co_qualname, found)
    return found


@lru_cache(maxsize=1024)  # It is asked for at each wait of a coroutine.
def _functions_in(filename: str, *, is_thread: bool) -> Mapping[str, Purpose]:
    """Returns: The functions of a file that are known, each with what it waits for."""
    table = _THREADS if is_thread else _COROUTINES
    # Of `/subprocess.py` and `/gevent/subprocess.py` the longer one.
    ends = [end for end in table if filename.endswith(end)]
    return table[max(ends, key=len)] if ends else {}
