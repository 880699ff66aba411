"""Wrong tokens are counted, said, and slowed."""

from __future__ import annotations

import base64

import falcon
import pytest
from falcon.testing import Result, TestClient
from pydantic import SecretStr

from dramatiq_diag.web.http.access import TokenAccess
from dramatiq_diag.web.http.logins import MAX_FAILURES, REFILL_S, FailedLogins
from support.clocks import Clock
from support.web import TOKEN

WRONG = "the-wrong-token-0"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def client(clock: Clock) -> TestClient:
    class Nothing:
        def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
            resp.text = "in"

    app = falcon.App(middleware=[TokenAccess(SecretStr(TOKEN), FailedLogins(clock))])
    app.add_route("/", Nothing())
    app.add_route("/healthz", Nothing())
    return TestClient(app)


def ask(client: TestClient, token: str | None, address: str = "192.0.2.1", path: str = "/") -> Result:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return client.simulate_get(path, headers=headers, remote_addr=address)


def test_after_so_many_wrong_tokens_an_address_has_to_wait(client: TestClient, clock: Clock) -> None:
    assert [ask(client, WRONG).status_code for _ in range(MAX_FAILURES)] == [401] * MAX_FAILURES

    # Then no token of that address is looked at
    refused = ask(client, TOKEN)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, str(int(REFILL_S)))
    assert ask(client, WRONG).status_code == 429
    # And other addresses, those without a token, and what is open to all are as before
    assert ask(client, TOKEN, "192.0.2.2").status_code == 200
    assert ask(client, None).status_code == 401
    assert ask(client, TOKEN, path="/healthz").status_code == 200

    # And after a while it gets one try after the other back
    clock.now_s += REFILL_S
    assert ask(client, WRONG).status_code == 401
    assert ask(client, WRONG).status_code == 429
    clock.now_s += REFILL_S
    assert ask(client, TOKEN).status_code == 200


def test_the_password_of_basic_counts_as_well(client: TestClient) -> None:
    given = "Basic " + base64.b64encode(f"x:{WRONG}".encode()).decode()
    for _ in range(MAX_FAILURES):
        client.simulate_get("/", headers={"Authorization": given})
    assert client.simulate_get("/", headers={"Authorization": given}).status_code == 429


def test_right_tokens_are_never_slowed(client: TestClient) -> None:
    assert {ask(client, TOKEN).status_code for _ in range(3 * MAX_FAILURES)} == {200}
    assert {ask(client, None).status_code for _ in range(3 * MAX_FAILURES)} == {401}


def test_the_log_has_the_address_not_the_token_and_not_each_failure(
    client: TestClient, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(200):
        ask(client, WRONG, f"192.0.2.{number}")
    assert [record.getMessage() for record in caplog.records] == ["A wrong API token came from '192.0.2.0'."]
    clock.now_s += 60
    ask(client, WRONG)
    said = caplog.records[-1].getMessage()
    assert said == "A wrong API token came from '192.0.2.1', and 199 more since the last such line."
    assert WRONG not in caplog.text
    assert TOKEN not in caplog.text


def test_the_number_of_addresses_in_memory_is_bounded(clock: Clock) -> None:
    failures = FailedLogins(clock)
    for number in range(5000):
        failures.add(f"2001:db8::{number:x}")
    for _ in range(MAX_FAILURES):
        failures.add("192.0.2.1")
    assert len(failures._forgiven_at_s) == 1000
    assert failures.wait_s("192.0.2.1") == REFILL_S
    assert failures.wait_s("2001:db8::1") == 0
