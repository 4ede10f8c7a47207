"""A chat model behind an OpenAI-compatible address: requests, with patience and without secrets.

The key is sent in the header alone. It is struck out of whatever the endpoint says.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote, urlsplit, urlunsplit

from harness.errors import MASK, EvaluationError, UsageError, mask_secrets, one_line

if TYPE_CHECKING:
    import requests

KEY_VARIABLES = ("ZBENCH_JUDGE_API_KEY", "OPENAI_API_KEY")
"""Where the key is looked for, in this order."""
PATH = "/chat/completions"
MAX_BYTES = 8 * 2**20
"""Of an endpoint's answer."""
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
"""Statuses after which the same request may succeed."""
Kind = Literal["unreachable", "slow", "busy", "garbled"]
TRIES: Mapping[Kind, int] = {"unreachable": 5, "slow": 3, "busy": 8, "garbled": 3}
"""How often a request is sent, by what goes wrong; tries of all kinds count."""


class EndpointError(EvaluationError):
    """The endpoint cannot be used: nothing more is sent to it."""


class RequestRefused(EvaluationError):
    """The endpoint refuses one request, such as one that is too long; others may go through."""


class Stopped(Exception):
    """Another request has found that the endpoint cannot be used."""


@dataclass(frozen=True)
class Patience:
    """How long an endpoint is waited for, in seconds."""

    connect: float = 10.0
    answer: float = 300.0
    """Between two bytes of an answer."""
    first_wait: float = 1.0
    """Before the second try; doubled before each further one."""
    longest_wait: float = 60.0
    longest_asked: float = 300.0
    """The longest `Retry-After` that is waited for."""


@dataclass(frozen=True)
class Reply:
    """What a chat model answered."""

    text: str
    """As it came: it may quote a secret, and is masked before it is written."""
    model: str
    """The model that the endpoint says has answered; empty where it says none."""
    finish_reason: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True)
class _Again:
    """Why a request is to be sent again."""

    kind: Kind
    said: str
    seconds: float | None = None
    """What the endpoint asks to wait."""


def key_of(environment: Mapping[str, str]) -> tuple[str, str]:
    """The name of the variable that holds the key, and the key; both empty where there is none.

    Raises:
        UsageError: it cannot be sent.
    """
    for name in KEY_VARIABLES:
        if key := environment.get(name, "").strip():
            if not (key.isascii() and key.isprintable()) or " " in key:
                raise UsageError(f"the key in {name} has characters that no header may have")
            return name, key
    return "", ""


def chat_address(url: str) -> str:
    """The address that requests go to, of a URL with or without `/v1` or the whole path.

    Raises:
        UsageError: it is no URL.
    """
    try:
        parts = urlsplit(url.strip())
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        known = False
    if not known:
        shown = mask_secrets(url, url)
        raise UsageError(
            f"--judge-url {shown}: is no address; it begins with http:// or https:// and a host, "
            "such as http://localhost:8000/v1"
        )
    path = parts.path.rstrip("/")
    if not path.endswith(PATH):
        path = f"{path or '/v1'}{PATH}"
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


@dataclass
class Endpoint:
    """Sends requests to one address; may be used by several threads."""

    url: str
    key: str = ""
    key_name: str = ""
    """The variable that the key is from."""
    patience: Patience = field(default_factory=Patience)
    told: Callable[[str], None] = lambda line: None
    """Called with a line for each wait."""

    def __post_init__(self) -> None:
        self.address = chat_address(self.url)
        parts = urlsplit(self.address)
        user, _, host = parts.netloc.rpartition("@")
        self._bare = urlunsplit(parts._replace(netloc=host))
        here = _is_here(parts.hostname or "")  # no proxy can reach that, nor is one to see the key
        self._proxies = dict.fromkeys(("http", "https", "all"), "") if here else None
        self._basic = base64.b64encode(unquote(user).encode()).decode()
        self.shown = self.masked(self._bare)
        self._stop = threading.Event()
        self._own = threading.local()
        self._limit_field = "max_tokens"

    def stop(self) -> None:
        """Ends all waiting: no request is sent any more."""
        self._stop.set()

    def masked(self, text: str) -> str:
        """A text in which neither the key nor a part of the address that is secret stands."""
        for secret in filter(None, (self.key, self._basic)):
            text = text.replace(secret, MASK)
        return mask_secrets(text, self.address)

    def chat(self, body: Mapping[str, Any]) -> Reply:
        """Sends a request until it is answered, or for as long as there is hope.

        Raises:
            EndpointError: the endpoint is down, refuses the key, or is no such endpoint.
            RequestRefused: it refuses this request.
            Stopped: `stop` was called meanwhile.
        """
        wait, start, tries = self.patience.first_wait, time.monotonic(), 0
        while True:
            if self._stop.is_set():
                raise Stopped
            found = self._send(body)
            if isinstance(found, Reply):
                return found
            tries += 1
            pause = min(wait, self.patience.longest_wait)
            if found.seconds is not None:
                pause = max(pause, found.seconds)
            if tries >= TRIES[found.kind] or pause > self.patience.longest_asked:
                asks = f", and asks to wait {pause:.0f} s" if found.seconds else ""
                seconds = time.monotonic() - start
                raise EndpointError(
                    f"{self.shown}: {found.said} ({tries} tries in {seconds:.0f} s{asks}); see "
                    "that it is up, then run the same command again"
                )
            self.told(f"{self.shown}: {found.said}; next try in {pause:.0f} s")
            if self._stop.wait(pause):
                raise Stopped
            wait *= 2

    def _send(self, body: Mapping[str, Any]) -> Reply | _Again:
        import requests

        limited = dict(body)
        limited[self._limit_field] = limited.pop("max_tokens")
        times = self.patience.connect, self.patience.answer
        try:
            with self._session().post(
                self._bare,
                json=limited,
                timeout=times,
                proxies=self._proxies,
                allow_redirects=False,
                stream=True,
            ) as response:
                content = response.raw.read(MAX_BYTES, decode_content=True)
        except requests.Timeout:
            return _Again("slow", f"no answer within {self.patience.answer:g} s")
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as fault:
            return _Again("unreachable", f"cannot be reached ({_cause(fault)})")
        except requests.RequestException as fault:
            said = self.masked(one_line(fault))
            raise EndpointError(f"{self.shown}: {said}; correct --judge-url") from None
        except Exception as fault:  # of the content: urllib3's own, which `raw` does not translate
            slow = "timed out" in str(fault).lower()
            return _Again("slow" if slow else "unreachable", f"broke off ({_cause(fault)})")
        return self._read(response, content)

    def _read(self, response: requests.Response, content: bytes) -> Reply | _Again:
        status = response.status_code
        if status in BUSY:
            said = f"answers with status {status}{self._quoted(content)}"
            return _Again("busy", said, _seconds(response.headers.get("Retry-After")))
        if status != 200:
            return self._refused(status, content)
        reply = self._reply(content)
        said = f"answers with what is no chat completion{self._quoted(content)}"
        return reply or _Again("garbled", said)

    def _refused(self, status: int, content: bytes) -> _Again:
        said = f"answers with status {status}{self._quoted(content)}"
        if status in (401, 403):
            of = f"with the key in {self.key_name}" if self.key else "without a key"
            name = self.key_name or KEY_VARIABLES[0]
            raise EndpointError(f"{self.shown}: {said} (asked {of}); set {name} to a valid key")
        if status == 400 and self._limit_field == "max_tokens" and b"max_completion" in content:
            self._limit_field = "max_completion_tokens"  # what later models of OpenAI take
            return _Again("busy", said)
        if status in (400, 413, 422):
            raise RequestRefused(f"{self.shown}: {said}")
        raise EndpointError(f"{self.shown}: {said}; correct --judge-url or --judge-model")

    def _reply(self, content: bytes) -> Reply | None:
        """A chat completion; None where the content is none."""
        try:
            said = json.loads(content)
            choice = said["choices"][0]
            text = choice["message"]["content"]
            if isinstance(text, list):  # parts
                text = "".join(str(part.get("text", "")) for part in text)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return None
        usage = said.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
        return Reply(
            text=_valid(text) if isinstance(text, str) else "",
            model=self.masked(one_line(said.get("model") or "")),
            finish_reason=str(choice.get("finish_reason") or ""),
            prompt_tokens=prompt if isinstance(prompt, int) else None,
            completion_tokens=completion if isinstance(completion, int) else None,
        )

    def _quoted(self, content: bytes) -> str:
        """What an endpoint says of a fault, after a colon; nothing where it says nothing."""
        text = content[:65536].decode("utf-8", "replace")
        try:
            said = json.loads(content)
            fault = said.get("error", said.get("message", said.get("detail", text)))
            text = str(fault.get("message", fault) if isinstance(fault, dict) else fault)
        except (ValueError, AttributeError, RecursionError):
            pass
        return f": {one_line(self.masked(text))}" if text.strip() else ""

    def _session(self) -> requests.Session:
        """This thread's connection."""
        import requests

        if not hasattr(self._own, "session"):
            session = requests.Session()
            session.auth = self._authorise  # else a .netrc would replace the key
            self._own.session = session
        session = self._own.session
        assert isinstance(session, requests.Session)
        return session

    def _authorise(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self.key:
            request.headers["Authorization"] = f"Bearer {self.key}"
        elif self._basic:
            request.headers["Authorization"] = f"Basic {self._basic}"
        return request


def _is_here(host: str) -> bool:
    """Whether a host is this machine itself."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _valid(text: str) -> str:
    """A text as UTF-8 can hold it: JSON may name half a character."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _seconds(text: str | None) -> float | None:
    """What `Retry-After` asks for: seconds, or a time."""
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return None


def _cause(fault: BaseException) -> str:
    """The operating system's words for why a connection failed."""
    seen: BaseException | None = fault
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            return one_line(seen.strerror)
        inner = [getattr(seen, "reason", None), *seen.args, seen.__cause__]
        seen = next((one for one in inner if isinstance(one, BaseException)), None)
    return "the connection broke"
