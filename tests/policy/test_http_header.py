"""Asking for diagnostics by HTTP header, in real frameworks."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import dramatiq
import falcon
import falcon.testing
import pytest
from dramatiq import Broker
from dramatiq.brokers.stub import StubBroker

from dramatiq_diag import Diagnostics, Settings
from dramatiq_diag.asgi import DiagnosticsMiddleware as AsgiMiddleware
from dramatiq_diag.collectors.names import all_names, expand
from dramatiq_diag.policy.http_header import HeaderPolicy
from dramatiq_diag.store.allowed import allowed_names
from dramatiq_diag.wsgi import DiagnosticsMiddleware as WsgiMiddleware
from support import PATIENCE_S
from support.tasks import finish, running

KEY = "a key of sixteen letters"
HEADER, KEY_HEADER, RESULT = "X-Task-Diagnostics", "X-Task-Diagnostics-Key", "x-task-diagnostics-result"


@pytest.fixture
def sent() -> list[Any]:
    """The messages that were enqueued."""
    return []


@pytest.fixture
def actor(sent: list[Any]) -> Iterator[Any]:
    class Look(dramatiq.Middleware):
        def after_enqueue(self, broker: Any, message: Any, delay: Any) -> None:
            sent.append(message)

    broker = StubBroker(middleware=[Diagnostics(Settings()), Look()])
    yield dramatiq.actor(lambda: None, broker=broker, actor_name="work")
    broker.close()


def ask_falcon(app_settings: Settings, actor: Any, headers: dict[str, str]) -> Any:
    class Resource:
        def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
            actor.send()
            resp.stream = body(actor)

    app = falcon.App()
    app.add_route("/", Resource())
    return falcon.testing.TestClient(WsgiMiddleware(app, app_settings, open_to_all=True)).simulate_get(
        "/", headers=headers
    )


def body(actor: Any) -> Iterator[bytes]:
    actor.send()
    yield b"done"


def ask_flask(app_settings: Settings, actor: Any, headers: dict[str, str]) -> Any:
    flask = pytest.importorskip("flask")
    app = flask.Flask("app")

    @app.get("/")
    def index() -> Any:
        actor.send()
        return flask.Response(body(actor))

    app.wsgi_app = WsgiMiddleware(app.wsgi_app, app_settings, open_to_all=True)
    with app.test_client().get("/", headers=headers) as response:
        response.get_data()
        return response


def ask_fastapi(app_settings: Settings, actor: Any, headers: dict[str, str], path: str = "/") -> Any:
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    app = FastAPI()
    app.add_middleware(AsgiMiddleware, settings=app_settings, open_to_all=True)

    @app.get("/")
    async def index() -> str:
        actor.send()
        return "done"

    @app.get("/in-a-thread")
    def in_a_thread() -> str:
        actor.send()
        return "done"

    with TestClient(app) as client:
        return client.get(path, headers=headers)


def ask_fastapi_thread(app_settings: Settings, actor: Any, headers: dict[str, str]) -> Any:
    return ask_fastapi(app_settings, actor, headers, "/in-a-thread")


@pytest.fixture(scope="session", autouse=True)
def django_is_set_up() -> None:
    """Configures Django, which a process can do once."""
    import django
    from django.conf import settings

    settings.configure(LOGGING_CONFIG=None)  # Loggers stay as they are.
    django.setup(set_prefix=False)


def ask_django(app_settings: Settings, actor: Any, headers: dict[str, str]) -> Any:
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpRequest, StreamingHttpResponse
    from django.test import override_settings
    from django.urls import path

    def index(request: HttpRequest) -> StreamingHttpResponse:
        actor.send()
        return StreamingHttpResponse(body(actor))

    with override_settings(ROOT_URLCONF=(path("", index),)):
        client = falcon.testing.TestClient(WsgiMiddleware(get_wsgi_application(), app_settings, open_to_all=True))
        return client.simulate_get("/", headers=headers)


def ask_django_asgi(app_settings: Settings, actor: Any, headers: dict[str, str], url: str = "/") -> Any:
    from django.core.asgi import get_asgi_application
    from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
    from django.test import override_settings
    from django.urls import path
    from fastapi.testclient import TestClient

    async def async_body() -> AsyncIterator[bytes]:
        actor.send()
        yield b"done"

    async def index(request: HttpRequest) -> StreamingHttpResponse:
        actor.send()
        return StreamingHttpResponse(async_body())

    def in_a_thread(request: HttpRequest) -> HttpResponse:
        actor.send()
        return HttpResponse("done")

    with override_settings(ROOT_URLCONF=(path("", index), path("in-a-thread", in_a_thread))):
        return TestClient(AsgiMiddleware(get_asgi_application(), app_settings, open_to_all=True)).get(
            url, headers=headers
        )


def ask_django_asgi_thread(app_settings: Settings, actor: Any, headers: dict[str, str]) -> Any:
    return ask_django_asgi(app_settings, actor, headers, "/in-a-thread")


WSGI = [ask_falcon, ask_flask, ask_django]
ASGI = [ask_fastapi, ask_fastapi_thread, ask_django_asgi, ask_django_asgi_thread]
FRAMEWORKS = [*WSGI, *ASGI]


@pytest.mark.parametrize("ask", FRAMEWORKS)
class TestFrameworks:
    def test_what_the_request_sends_carries_what_it_asks_for(self, ask, actor, sent):
        given = Settings(task_diagnostics_on_request=["memory", "memray"])

        answer = ask(given, actor, {HEADER: " memray, memory,memray"})

        assert {tuple(message.options["diagnostics"]) for message in sent} == {("memray", "memory")}
        assert answer.headers[RESULT] == "accepted: memray, memory"
        # And the next one asks for nothing
        sent.clear()
        assert RESULT not in ask(given, actor, {}).headers
        assert [message.options for message in sent] == [{}] * len(sent) != []

    def test_what_is_not_allowed_is_ignored_and_said(self, ask, actor, sent):
        given = Settings(task_diagnostics=["memory"], task_diagnostics_on_request=["memray"])

        answer = ask(given, actor, {HEADER: "pyinstrument, nonsense, <b>"})

        assert [message.options for message in sent] == [{}] * len(sent) != []
        assert answer.headers[RESULT] == (
            "ignored: pyinstrument, nonsense, 1 more, of neither TASK_DIAGNOSTICS nor TASK_DIAGNOSTICS_ON_REQUEST"
        )

    def test_what_is_collected_for_every_task_may_be_asked_for_with_more(self, ask, actor, sent):
        given = Settings(task_diagnostics=["memory"], task_diagnostics_on_request=["memray"])

        answer = ask(given, actor, {HEADER: "memory,memray"})

        assert {tuple(message.options["diagnostics"]) for message in sent} == {("memory", "memray")}
        assert answer.headers[RESULT] == "accepted: memory, memray"

    def test_all_is_everything_that_may_be_asked_for(self, ask, actor, sent):
        given = Settings(task_diagnostics_on_request=["memray", "memory"])

        answer = ask(given, actor, {HEADER: "all, logs"})

        assert {tuple(message.options["diagnostics"]) for message in sent} == {("memory", "memray")}
        assert answer.headers[RESULT] == (
            "accepted: memory, memray; ignored: logs, of neither TASK_DIAGNOSTICS nor TASK_DIAGNOSTICS_ON_REQUEST"
        )

    def test_the_key_is_asked_for(self, ask, actor, sent):
        given = Settings(task_diagnostics_on_request=["memory"], request_key=KEY)
        for key in ({}, {KEY_HEADER: ""}, {KEY_HEADER: KEY + "x"}):
            assert ask(given, actor, {HEADER: "memory", **key}).headers[RESULT].startswith("ignored: X-Task-")
        assert all(message.options == {} for message in sent)

        assert ask(given, actor, {HEADER: "memory", KEY_HEADER: KEY}).headers[RESULT] == "accepted: memory"
        assert sent[-1].options == {"diagnostics": ["memory"]}


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (None, None),
        (b"", None),
        (b"  ", None),
        (b"memory", ("memory",)),
        (b"memory,,", ("memory",)),
        (b"memory,unknown", ("memory",)),
        # Hostile
        (b",", ()),
        (b"MEMORY", ()),
        (b"all", ("memory",)),
        (b"memory;drop", ()),
        (b"\xff\x00\r\nSet-Cookie: a=b", ()),
        (b"memory," * 1000, ()),
        (b"x" * 100_000, ()),
    ],
)
def test_a_header_asks_for_what_there_is_and_nothing_of_it_comes_back(wanted, names):
    decision = HeaderPolicy(("memory",), None, open_to_all=True).decide(wanted, None)

    assert (decision and decision.names) == names
    if decision is not None:
        assert decision.result.isascii()
        assert decision.result.isprintable()
        assert len(decision.result) < 100


@pytest.mark.parametrize("key", [None, b"", b"x" * 16, KEY.encode()])
def test_without_a_key_nobody_may_ask_unless_it_is_open_to_all(key):
    decision = HeaderPolicy(("memory",), None).decide(b"memory", key)

    assert (decision.names, decision.result) == ((), "ignored: DRAMATIQ_DIAG_REQUEST_KEY is not set")
    assert HeaderPolicy(("memory",), None, open_to_all=True).decide(b"memory", key).names == ("memory",)
    # And a key that is set is asked for, also where it is open to all
    for open_to_all in (True, False):
        expected = ("memory",) if key == KEY.encode() else ()
        assert HeaderPolicy(("memory",), KEY, open_to_all=open_to_all).decide(b"memory", key).names == expected


def test_neither_middleware_is_open_to_all_by_itself():
    given = Settings(task_diagnostics_on_request=["memory"])
    answer = falcon.testing.TestClient(WsgiMiddleware(falcon.App(), given)).simulate_get(
        "/", headers={HEADER: "memory"}
    )
    results = [answer.headers[RESULT]]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(event: Any) -> None:
        results.extend(value.decode() for _, value in event["headers"])

    import asyncio

    scope = {"type": "http", "headers": [(HEADER.lower().encode(), b"memory")]}
    asyncio.run(AsgiMiddleware(app, given)(scope, None, send))
    assert results == ["ignored: DRAMATIQ_DIAG_REQUEST_KEY is not set"] * 2


def test_what_is_no_request_passes_through(settings):
    calls: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        calls.append(scope["type"])

    import asyncio

    middleware = AsgiMiddleware(app, Settings(task_diagnostics_on_request=["memory"]))
    for kind in ("lifespan", "websocket"):
        asyncio.run(middleware({"type": kind, "headers": [(b"x-task-diagnostics", b"memory")]}, None, None))
    assert calls == ["lifespan", "websocket"]


@pytest.mark.parametrize("ask", [ask_falcon, ask_fastapi, ask_django])
def test_a_worker_collects_what_the_request_asked_for(
    ask: Any, broker: Broker, queue_name: str, settings: Callable[..., Settings], stored: Any
) -> None:
    # Given a worker on a broker of each kind, and an application that sends to it
    given = settings(task_diagnostics_on_request=["memory"])
    diagnostics = Diagnostics(given)
    broker.add_middleware(diagnostics)
    actor = dramatiq.actor(lambda: None, broker=broker, actor_name="work", queue_name=queue_name)

    # When one request asks for nothing and the next one does
    with running(broker) as worker:
        assert ask(given, actor, {}).status_code == 200
        assert ask(given, actor, {HEADER: "memory"}).status_code == 200
        finish(broker, worker, queue_name)
        assert diagnostics.flush(PATIENCE_S)

    # Then what the second one sent has its artifact, and nothing else has a run
    runs = stored(given).all_runs()
    assert len(runs) == (2 if ask in WSGI else 1)
    for run in runs:
        [artifact] = stored(given).artifacts(run.task_id).values()
        assert (artifact.name, artifact.status) == ("memory_profile", "stored")


def test_all_is_what_workers_have_wherever_it_is_asked_for(monkeypatch):
    for package in ("memray", "pyinstrument"):  # Neither is installed here.
        monkeypatch.setitem(sys.modules, package, None)
    assert all_names() == ("accounting", "logs", "memory", "resources")
    given = Settings(task_diagnostics_on_request=["all"])

    decision = HeaderPolicy(given.task_diagnostics_on_request, None, open_to_all=True).decide(
        b"memray, pyinstrument, logs, debug-logs", None
    )

    assert decision.names == ("memray", "pyinstrument", "logs")
    assert set(allowed_names(given)) >= {"memray", "pyinstrument", "logs"}
    assert "debug-logs" not in allowed_names(given)
    assert "memray" not in expand(given.task_diagnostics_on_request)  # As a worker here has it.
