"""What the client makes of an endpoint that is slow, busy, broken, down, or somewhere else."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from harness.answers.endpoint import (
    Endpoint,
    EndpointError,
    Patience,
    RequestRefused,
    Stopped,
    chat_address,
    key_of,
)
from harness.errors import UsageError
from tests.fixtures.judge_server import MODEL, Script, Scripted, Shown, always_first, serving

KEY = "sk-test-0123456789abcdef"
BODY: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "user", "content": "q"}],
    "temperature": 0,
    "max_tokens": 5,
}
QUICK = Patience(connect=5, answer=0.3, first_wait=0.01, longest_wait=0.02, longest_asked=2)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def after(num: int, first: Scripted, then: Script = always_first) -> Script:
    """A script that answers `num` requests with `first`, and then with another."""
    return lambda shown: first if shown.number < num else then(shown)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1/chat/completions"),
        ("http://localhost:8000/", "http://localhost:8000/v1/chat/completions"),
        ("http://localhost:8000/v1", "http://localhost:8000/v1/chat/completions"),
        ("https://x.org/api/v1/", "https://x.org/api/v1/chat/completions"),
        ("https://x.org/v1/chat/completions", "https://x.org/v1/chat/completions"),
        ("https://x.org/v1?version=2", "https://x.org/v1/chat/completions?version=2"),
    ],
)
def test_addresses_with_and_without_path(url: str, address: str) -> None:
    assert chat_address(url) == address


@pytest.mark.parametrize("url", ["localhost:8000", "", "ftp://x/v1", "http://", "http://x:y/v1"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="--judge-url .*is no address; it begins with http"):
        chat_address(url)


def test_key_comes_from_the_first_variable_that_has_one() -> None:
    assert key_of({"OPENAI_API_KEY": "b", "ZBENCH_JUDGE_API_KEY": "a\n"}) == (
        "ZBENCH_JUDGE_API_KEY",
        "a",
    )
    assert key_of({"OPENAI_API_KEY": "b", "ZBENCH_JUDGE_API_KEY": ""}) == ("OPENAI_API_KEY", "b")
    assert key_of({}) == ("", "")
    with pytest.raises(UsageError, match="the key in OPENAI_API_KEY has characters") as fault:
        key_of({"OPENAI_API_KEY": "geheimnis\u00fc"})
    assert "geheimnis" not in str(fault.value)


def test_a_reply_has_its_text_and_the_model_that_gave_it() -> None:
    with serving(always_first) as server:
        reply = Endpoint(server.url, KEY, patience=QUICK).chat(BODY)
        (asked,) = server.shown
    assert reply.text.endswith("[[A]]")
    assert (reply.model, reply.finish_reason, reply.completion_tokens) == (MODEL, "stop", 10)
    assert asked.headers["Authorization"] == f"Bearer {KEY}"
    assert asked.body == BODY


def test_credentials_in_the_address_are_sent_as_basic_and_shown_nowhere() -> None:
    with serving(after(99, Scripted(status=404))) as server:
        url = server.url.replace("//", "//ann:s3cretword@")
        endpoint = Endpoint(url, patience=QUICK)
        with pytest.raises(EndpointError, match="404") as fault:
            endpoint.chat(BODY)
        (asked,) = server.shown
    assert asked.headers["Authorization"].startswith("Basic ")
    assert "s3cretword" not in str(fault.value) + endpoint.shown


@pytest.mark.parametrize("status", [429, 500, 502, 503, 529])
def test_what_may_pass_is_tried_again(status: int) -> None:
    with serving(after(2, Scripted(status=status))) as server:
        assert Endpoint(server.url, patience=QUICK).chat(BODY).text.endswith("[[A]]")
        assert server.num_requests == 3


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_waited_for(as_date: bool) -> None:
    asked = format_datetime(datetime.now(UTC) + timedelta(seconds=2)) if as_date else "0.4"
    told: list[str] = []
    with serving(after(1, Scripted(status=429, headers={"Retry-After": asked}))) as server:
        start = time.monotonic()
        Endpoint(server.url, patience=QUICK, told=told.append).chat(BODY)
        waited = time.monotonic() - start
    assert waited > 0.39
    assert len(told) == 1
    assert "429" in told[0]


def test_a_wait_beyond_reason_is_not_waited_for() -> None:
    busy = Scripted(status=429, headers={"Retry-After": "7200"})
    with serving(after(99, busy)) as server, pytest.raises(EndpointError, match="wait 7200 s"):
        Endpoint(server.url, patience=QUICK).chat(BODY)


@pytest.mark.parametrize(
    ("script", "tries", "said"),
    [
        (after(99, Scripted(status=500, text="overloaded")), 8, "status 500: overloaded"),
        (after(99, Scripted(raw=b"<html>hello")), 3, "no chat completion: <html>hello"),
        (after(99, Scripted(raw=b'{"choices": []}')), 3, "no chat completion"),
        (after(99, Scripted(delay_seconds=1.0)), 3, "no answer within 0.3 s|broke off"),
        (after(99, Scripted(hang_up=True)), 5, "cannot be reached"),
    ],
)
def test_patience_has_an_end(script: Script, tries: int, said: str) -> None:
    with serving(script) as server:
        with pytest.raises(EndpointError, match=f"(?s){said}.*run the same command again"):
            Endpoint(server.url, patience=QUICK).chat(BODY)
        assert server.num_requests == tries


def test_a_slow_answer_is_asked_for_again() -> None:
    with serving(after(1, Scripted(delay_seconds=1.0))) as server:
        assert Endpoint(server.url, patience=QUICK).chat(BODY).model == MODEL


def test_an_endpoint_that_is_down_is_one_line() -> None:
    with serving(always_first) as server:
        url = server.url
    with pytest.raises(EndpointError, match="cannot be reached.*efused") as fault:
        Endpoint(url, patience=QUICK).chat(BODY)
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (400, RequestRefused, "status 400: too long"),
        (401, EndpointError, "asked with the key in OPENAI_API_KEY"),
        (403, EndpointError, "set OPENAI_API_KEY to a valid key"),
        (404, EndpointError, "correct --judge-url or --judge-model"),
        (308, EndpointError, "status 308"),
    ],
)
def test_what_will_not_pass_is_not_tried_again(
    status: int, kind: type[Exception], said: str
) -> None:
    with serving(after(99, Scripted("too long", status=status))) as server:
        with pytest.raises(kind, match=said):
            Endpoint(server.url, KEY, "OPENAI_API_KEY", patience=QUICK).chat(BODY)
        assert server.num_requests == 1


def test_the_key_is_struck_out_of_whatever_the_endpoint_says() -> None:
    def echo(shown: Shown) -> Scripted:
        said = f"You sent {shown.headers['Authorization']} here [[A]]"
        return Scripted(said, status=200 if shown.number else 401)

    with serving(echo) as server:
        endpoint = Endpoint(server.url, KEY, "OPENAI_API_KEY", patience=QUICK)
        with pytest.raises(EndpointError) as fault:
            endpoint.chat(BODY)
        reply = endpoint.chat(BODY)
    assert KEY not in str(fault.value)
    assert "[[A]]" in reply.text
    assert KEY not in endpoint.masked(reply.text)


@pytest.mark.parametrize("before", [150, 190, 1960])
def test_a_key_that_is_cut_off_is_struck_out_too(before: int) -> None:
    said = "x" * before + KEY
    script: Script = lambda shown: Scripted(raw=said.encode(), status=404)  # noqa: E731
    with serving(script) as server, pytest.raises(EndpointError) as fault:
        Endpoint(server.url, KEY, "OPENAI_API_KEY", patience=QUICK).chat(BODY)
    assert KEY[:8] not in str(fault.value)


def test_credentials_that_come_back_encoded_are_struck_out() -> None:
    with serving(
        lambda shown: Scripted(f"You sent {shown.headers['Authorization']}", status=403)
    ) as server:
        url = server.url.replace("http://", "http://me:secret@")
        with pytest.raises(EndpointError, match=r"You sent Basic \*\*\*"):
            Endpoint(url, patience=QUICK).chat(BODY)


def test_a_wait_that_is_asked_for_is_the_least() -> None:
    patience = Patience(first_wait=0.1, longest_wait=0.2)
    with serving(after(3, Scripted(status=429, headers={"Retry-After": "0"}))) as server:
        start = time.monotonic()
        Endpoint(server.url, patience=patience).chat(BODY)
    assert time.monotonic() - start > 0.49


def test_what_no_file_can_hold_is_replaced() -> None:
    with serving(lambda shown: Scripted("half \ud83d [[A]]", model="\ud83d\x1b[31m\n")) as server:
        reply = Endpoint(server.url, patience=QUICK).chat(BODY)
    assert reply.text == "half ? [[A]]"
    assert reply.model.isascii()
    assert reply.model.isprintable()


def test_later_names_of_the_token_limit_are_learned() -> None:
    def later(shown: Shown) -> Scripted:
        if "max_tokens" in shown.body:
            return Scripted("use 'max_completion_tokens' instead", status=400)
        return always_first(shown)

    with serving(later) as server:
        endpoint = Endpoint(server.url, patience=QUICK)
        endpoint.chat(BODY)
        endpoint.chat(BODY)
        assert server.num_requests == 3
        assert server.shown[-1].body["max_completion_tokens"] == 5


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_no_proxy_is_asked_for_a_judge_on_this_machine(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with serving(always_first) as proxy, serving(always_first) as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
        url = server.url.replace("127.0.0.1", host)
        Endpoint(url, KEY, "OPENAI_API_KEY", patience=QUICK).chat(BODY)
        assert (proxy.num_requests, server.num_requests) == (0, 1)


def test_nothing_is_sent_after_a_stop() -> None:
    with serving(always_first) as server:
        endpoint = Endpoint(server.url, patience=QUICK)
        endpoint.stop()
        with pytest.raises(Stopped):
            endpoint.chat(BODY)
        assert server.num_requests == 0
