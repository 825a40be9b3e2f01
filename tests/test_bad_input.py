"""Bad arguments, settings and peers, as tables: each row gives one clear typed error, and leaves nothing behind."""

from __future__ import annotations

import json
import math
import pickle
import re
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from _daemons import free_port
from _servers import polled

import perfkit
from perfkit.errors import (
    AuthenticationError,
    BadRequestError,
    BudgetExceededError,
    ConfigError,
    ContentFilterError,
    ContextWindowExceededError,
    DeadlineExceeded,
    MaxRetriesExceededError,
    ModelNotFoundError,
    NetworkError,
    NoAvailableProviderError,
    PerfkitError,
    ProviderError,
    RateLimitError,
    ResponseFormatError,
    ServerError,
    StreamInterruptedError,
    UnknownModelError,
    UnknownNameError,
)
from perfkit.testing import FaultServer, faults
from perfkit.testing import _formats as formats

if TYPE_CHECKING:
    from perfkit.testing.faults import Behaviour

KEY = "sk-secret/0123456789abcdef"
ANSWER = "echo: one two three"
SHORT = 0.3  # seconds
OURS = ("perfkit-background", "perfkit-lookup", "perfkit-probes", "perfkit-watchdog")  # threads with work of their own
FORMATS = pytest.mark.parametrize("kind", ["openai", "anthropic"])
WAYS = pytest.mark.parametrize("way", ["chat", "stream"])
Errors = type[Exception] | tuple[type[Exception], ...]


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer() as server:
        yield server


@pytest.fixture(scope="module")
def tls() -> Iterator[FaultServer]:
    with FaultServer(tls=True) as server:
        yield server


class Held(NamedTuple):
    """What a call takes and has to give back."""

    threads: list[str]
    sockets: int  # open ones, beyond those the pool keeps for the next call
    slots: float
    money: float
    calls: int


def held() -> Held:
    pools = perfkit.connections.stats().values()
    return Held(
        sorted(thread.name for thread in threading.enumerate() if thread.name not in OURS),
        _open_sockets() - sum(int(pool["idle"]) for pool in pools),
        sum(pool["in_use"] for pool in pools),
        sum(budget["held"] for budget in perfkit.optimizer.budgets()),
        sum(health["in_flight"] for health in perfkit.router.health().values()),
    )


def _open_sockets() -> int:
    return sum(str(descriptor.resolve()).count("socket:") for descriptor in Path("/proc/self/fd").iterdir())


@pytest.fixture(autouse=True)
def _nothing_leaks(server: FaultServer, tls: FaultServer) -> Iterator[None]:
    """Count before and after, and let the servers say that no connection is open but those kept for the next call."""
    server.reset()
    tls.reset()
    before = held()
    yield
    assert held() == before
    for one in (server, tls):
        one.wait_until(partial(_settled, perfkit.connections.stats().get(f"127.0.0.1:{one.port}", {}).get("idle", 0)))


def _settled(idle: float, seen: dict[str, Any]) -> bool:
    return bool(seen["open_connections"] <= idle and not seen["in_flight"])


def configure(base_url: str | None, kind: str = "openai", key: str | None = KEY, **tables: Any) -> None:
    perfkit.configure(
        providers={"local": {"kind": kind, "base_url": base_url, "api_key": key, "models": ["tiny"]}},
        client={"default_model": "tiny"},
        **{"router": {"max_attempts": 1}, "tokens": {"prices": {"tiny": {"input": 1.0, "output": 1.0}}}, **tables},
    )
    perfkit.optimizer.set_budget(("global", ""), 1e6, "day")


def ask(way: str, messages: Any = "one two three", **arguments: Any) -> str:
    arguments = {"max_tokens": 5, **arguments}
    if way == "chat":
        return perfkit.chat(messages, **arguments).text
    return "".join(perfkit.stream(messages, **arguments))


def refused(error: Errors, says: str, call: Callable[[], object]) -> Any:
    """Return the error of `call` after checking all that is asked of any error."""
    with pytest.raises(error) as caught:
        call()
    raised, text = caught.value, str(caught.value)
    assert type(raised) in (error if isinstance(error, tuple) else (error,))
    assert re.search(says, text), text
    assert "\n" not in text
    assert "sk-secret" not in "".join(traceback.format_exception(raised)) + repr(raised) + repr(vars(raised))
    if isinstance(raised, PerfkitError):
        pickled = pickle.dumps(raised)
        again = pickle.loads(pickled)
        assert (type(again), str(again), vars(again)) == (type(raised), text, vars(raised))
        assert b"sk-secret" not in pickled
    return raised


# --- arguments


def _deep() -> list[Any]:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    return nested


def _round() -> list[Any]:
    circle: list[Any] = []
    circle.append(circle)
    return circle


def _user(content: Any, **more: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content, **more}]


HUGE = 10**400
ARGUMENTS: list[tuple[str, list[Any], type[Exception], str]] = [
    ("messages", ["", [], (), _user(""), _user([])], ValueError, "empty"),
    ("messages", [None, 5, b"hi", {"role": "user", "content": "hi"}, {"hi"}, iter(_user("hi"))], TypeError, "a list"),
    ("messages", [["hi"], [None], [5]], TypeError, r"messages\[0\] must be a mapping with 'role' and 'content'"),
    ("messages", [[{}], [{"role": 5, "content": "hi"}], [{"content": "hi"}]], ValueError, "needs a 'role'"),
    ("messages", [_user(5), _user(None), _user({"type": "text"})], TypeError, r"\['content'\] must be a string or"),
    ("messages", [_user(["hi"]), _user([None]), _user([{}, 5])], TypeError, r"\['content'\]\[\d\] must be a mapping"),
    ("messages", [_user([{"type": "text", "text": 5}])], TypeError, r"\['text'\] must be a string"),
    (
        "messages",
        [_user("hi", tool_calls=5), _user("hi", tool_calls=[5])],
        TypeError,
        r"\['tool_calls'\] must be a list",
    ),
    (
        "messages",
        [_user("hi", name=object()), _user("hi", name={1, 2})],
        TypeError,
        "messages cannot be written as JSON",
    ),
    ("messages", [_user("hi", score=math.nan), _user("hi", tree=_deep())], ValueError, "messages cannot be written"),
    ("model", [5, b"tiny", ["tiny"], True], TypeError, "model must be a string"),
    ("model", [""], ValueError, "model is empty"),
    ("model", ["tinny"], UnknownModelError, "no provider offers 'tinny'; offered: tiny; did you mean 'tiny'"),
    ("provider", [5, b"local", ["local"], True], TypeError, "provider must be the name of one"),
    ("provider", ["locl", ""], UnknownNameError, "no provider '.*'; known: local"),
    ("temperature", [math.nan, math.inf, -math.inf, -1, HUGE], ValueError, "temperature must be a finite number of at"),
    ("temperature", ["hot", True, [0], 1j], TypeError, "temperature must be a number"),
    ("max_tokens", [0, -1, HUGE], ValueError, "max_tokens must be a finite number of at least 1"),
    ("max_tokens", [1.5, "5", True, math.nan], TypeError, "max_tokens must be a whole number"),
    ("timeout", [0, -1, math.nan, math.inf, HUGE], ValueError, "timeout must be a finite number above 0"),
    ("timeout", ["5", True, [5]], TypeError, "timeout must be a number"),
    ("tools", ["search", 5, {"a": 1}, [5], [None], iter([{}])], TypeError, "tools must be a list of tool schemas"),
    ("tools", [[{"type": object()}]], TypeError, "tools cannot be written as JSON"),
    ("response_format", ["json", 5, ["json"]], TypeError, "response_format must be a mapping"),
    ("user", [5, b"anna", True], TypeError, "user must be a string"),
    ("user", [""], ValueError, "user is empty"),
    ("agent", [None, 5], TypeError, "agent must be a string"),
    ("context", [5, "city", ["rome"]], TypeError, "context must be a mapping"),
    ("context", [{"city": object()}], TypeError, "context.city cannot be written as JSON"),
    ("cache", ["sometimes", 5, True, ["smart"], b"smart"], ValueError, "cache must be 'smart', 'always', 'never'"),
    ("budget", [-1, math.nan, HUGE], ValueError, "budget must be a finite number of at least 0"),
    ("budget", ["1", True], TypeError, "budget must be a number"),
    ("top_p", [math.nan, _round(), _deep()], ValueError, "top_p cannot be written as JSON"),
    ("top_p", [object(), {1, 2}, b"x", range(3), {(1,): 2}], TypeError, "top_p cannot be written as JSON"),
]


@WAYS
@pytest.mark.parametrize(
    ("name", "values", "error", "says"), ARGUMENTS, ids=[f"{row[0]}-{row[3][:30]}" for row in ARGUMENTS]
)
def test_bad_argument_is_refused_at_once(
    server: FaultServer, way: str, name: str, values: list[Any], error: type[Exception], says: str
) -> None:
    configure(server.base_url)
    begin = perfkit.chat if way == "chat" else perfkit.stream  # a stream refuses before it is iterated
    for value in values:
        raised = refused(error, says, lambda value=value: begin(**{"messages": "hi", name: value}))  # type: ignore[misc]
        assert getattr(raised, "attempts", ()) == ()
    assert server.counters()["requests"] == 0


def test_no_model_and_no_default_is_refused(server: FaultServer) -> None:
    perfkit.configure(providers={"local": {"kind": "openai", "base_url": server.base_url, "api_key": KEY}})
    refused(ValueError, "pass model= or set", lambda: perfkit.chat("hi"))
    perfkit.reset()
    refused(UnknownModelError, "no provider is registered", lambda: perfkit.chat("hi", model="tiny"))
    assert server.counters()["requests"] == 0


@WAYS
def test_call_over_its_budget_is_not_sent(server: FaultServer, way: str) -> None:
    configure(server.base_url)
    error = refused(BudgetExceededError, r"may cost \$.* lower max_tokens", lambda: ask(way, budget=1e-9))
    assert (error.attempts, error.scope) == ((), ("request", ""))
    assert server.counters()["requests"] == 0


@WAYS
def test_more_time_than_a_socket_can_wait_is_time_enough(server: FaultServer, way: str) -> None:
    configure(server.base_url)
    for timeout in (3e6, 1e10, 1e300):
        assert ask(way, timeout=timeout) == ANSWER


# --- settings


def _provider(**settings: Any) -> dict[str, Any]:
    return {"providers": {"other": {"kind": "openai", "base_url": "http://127.0.0.1:9/v1", "api_key": KEY, **settings}}}


SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"provider": {}}, "unknown table 'provider'.*did you mean 'providers'"),
    ({"router": {"strategi": "x"}}, r"unknown setting 'strategi' in \[router\].*did you mean 'strategy'"),
    ({"router": {"strategy": "least_latenzy"}}, "did you mean 'least_latency'"),
    ({"router": {"timeout": math.nan}}, "router.timeout"),
    ({"router": {"timeout": HUGE}}, "router.timeout"),
    ({"router": {"max_attempts": 0}}, "router.max_attempts must be .* at least 1"),
    ({"router": 5}, r"\[router\] must be a table"),
    ({"cache": {"policy": "clever"}}, "cache.policy must be one of"),
    ({"cache": {"backend": "redsi"}}, "cache.backend must be one of"),
    ({"metrics": {"statsd": "host:port"}}, "metrics.statsd must be host:port"),
    ({"connections": {"hosts": {"h": 5}}}, "connections.hosts.h must be a table"),
    ({"connections": {"hosts": {"h": {"maxsize": 0}}}}, "connections.hosts.h.maxsize"),
    ({"tokens": {"prices": {"tiny": {"inputt": 1}}}}, "did you mean 'input'"),
    ({"tokens": {"budgets": [{"scope": ["user", "*"]}]}}, "a budget needs scope, limit and period"),
    ({"routes": {"faq": {"modl": "tiny"}}}, "did you mean 'model'"),
    ({"providers": {"other": KEY}}, r"\[providers.other\] must be a table"),
    (_provider(base_ur="x"), "did you mean 'base_url'"),
    (_provider(kind="opnai"), "no provider kind 'opnai'.*did you mean 'openai'"),
    (_provider(base_url="nonsense"), "must be http://host or https://host"),
    (_provider(base_url="ftp://host/v1"), "must be http://host or https://host"),
    (_provider(base_url="http://"), "must be http://host or https://host"),
    (_provider(base_url="http://a b/v1"), "must be http://host or https://host"),
    (_provider(base_url="http://host:99999/v1"), "is not a URL: its host or port"),
    (_provider(base_url="https://user:sk-secret@host/v1"), "has credentials in it; pass api_key="),
    (_provider(base_url=f"https://user:{KEY}@host/v1"), "is not a URL: its host or port"),
    (_provider(base_url=f"user:{KEY}@host/v1"), "must be http://host or https://host with a path$"),
    (_provider(base_url=f"https://host/v1?key={KEY}"), "must end with its path"),
    (_provider(base_url=5), "base_url must be text"),
    (_provider(api_key=KEY + "\nx"), "characters that cannot be in an HTTP header"),
    (_provider(api_key=[KEY]), "api_key must be text"),
    (_provider(models="tiny"), "models must be a table or list"),
    (_provider(models=[5]), "must be names"),
    (_provider(weight=0), "weight must be a finite number above 0"),
    (_provider(options={"tmeout": 1}), "did you mean 'timeout'"),
    (_provider(options={"timeout": -1}), "options.timeout must be a finite number above 0"),
    (_provider(options={"headers": {"x-key": 5}}), "headers of provider 'other' must be a table of text"),
    (_provider(options={"headers": {"x\n": KEY}}), "illegal header name"),
    (_provider(options={"headers": {"x-key": f"{KEY}\r\nx: 1"}}), "header 'x-key' has a line break"),
]


@pytest.mark.parametrize(("tables", "says"), SETTINGS, ids=[row[1][:40] for row in SETTINGS])
def test_bad_setting_is_refused_and_changes_nothing(server: FaultServer, tables: dict[str, Any], says: str) -> None:
    configure(server.base_url)
    assert ask("chat") == ANSWER
    good = {"metrics": {"prefix": "other"}, "cache": {"ttl": 7}}
    raised = refused((ConfigError, UnknownNameError), says, lambda: perfkit.configure({**good, **tables}))
    assert raised.attempts == ()
    assert (perfkit.tracker.settings.prefix, perfkit.cache.settings.ttl) == ("perfkit", 3600)
    assert ask("chat") == ANSWER
    perfkit.configure(cache={"ttl": 5})
    assert list(perfkit.router.health()) == ["local"]
    assert server.counters()["requests"] == 2


def test_configuration_is_a_mapping_or_a_path() -> None:
    refused(TypeError, "a mapping of tables or the path", lambda: perfkit.configure(5))  # type: ignore[arg-type]
    refused(ConfigError, "cannot read /no/such.toml", lambda: perfkit.configure("/no/such.toml"))


def test_bad_provider_is_told_at_every_call_until_it_is_mended(server: FaultServer) -> None:
    code = f"""
        import perfkit
        for url in ("nonsense", "nonsense", "{server.base_url}"):
            perfkit.configure(providers={{"local": {{"kind": "openai", "base_url": "http://127.0.0.1:9/v1"}}}})
            try:
                perfkit.configure(providers={{"local": {{"kind": "openai", "base_url": url}}}})
                print(perfkit.chat("hi", model="tiny").text)
            except perfkit.ConfigError as error:
                print("base_url" in str(error))
    """
    lines = "\n".join(line[8:] for line in code.splitlines())
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == ["True", "True", "echo: hi"], done.stderr


# --- peers


class Row(NamedTuple):
    """What the server does, and what follows; for the way that is not `only`, an answer."""

    name: str
    does: Behaviour
    error: type[PerfkitError]
    says: str
    timeout: float = 10.0
    only: str = ""


def _told(status: int, **headers: str) -> Behaviour:
    """Answer with the key in every place where a careless server might put it."""
    error = {"message": f"the key {KEY} was used", "type": "trouble", "code": f"code-{KEY}"}
    shown = {"x-request-id": KEY, "content-type": "application/json", **headers}
    return faults.status(status, body={"error": error, "request_id": KEY}, headers=shown)


def _said(text: str, kind: str = "application/json") -> Behaviour:
    return faults.status(200, body=text, headers={"content-type": kind})


BROKEN = f'data: {{"choices": "{KEY}\n\n'
FAILED = "event: error\ndata: " + json.dumps(
    {"type": "error", "error": {"type": "overloaded_error", "message": f"overloaded, says {KEY}"}}
)
FAILED += "\n\n"
FIRST_TEXT = 5  # events; in either format text has come by then
PEERS = [
    Row("reply is not JSON", _said(f'{{"{KEY}": '), ResponseFormatError, "not JSON"),
    Row("HTML with 200", faults.garbage("html"), ResponseFormatError, "Welcome to the proxy"),
    Row("empty 200", faults.garbage("empty"), ResponseFormatError, "it is empty"),
    Row("JSON null", _said("null"), ResponseFormatError, "begins 'null'"),
    Row("JSON list", _said("[]"), ResponseFormatError, r"begins '\[\]'"),
    Row("no choices", _said(f'{{"key": "{KEY}"}}'), ResponseFormatError, "no '(choices|content)'"),
    Row("error with 200", _told(200), ServerError, r"the key \*\*\* was used"),
    Row("not HTTP", faults.garbage("bytes"), NetworkError, "not HTTP.*base_url"),
    Row("truncated body", faults.truncated(), NetworkError, "IncompleteRead", only="chat"),
    Row("cut gzip", faults.gzip(broken=True), NetworkError, "cut short", only="chat"),
    Row("reset", faults.reset(), NetworkError, "ConnectionResetError while waiting"),
    Row("closed without reply", faults.close(), NetworkError, "closed without a reply"),
    Row("cut after the head", faults.cut(after_bytes=0), NetworkError, "while reading the reply"),
    Row("redirect", _told(302, location=f"https://h/{KEY}"), ProviderError, "redirects to"),
    Row("400", _told(400), BadRequestError, "answered 400"),
    Row("401", _told(401), AuthenticationError, "check the key given by [A-Z]+_API_KEY"),
    Row("402", _told(402), AuthenticationError, "answered 402"),
    Row("403", faults.status(403), AuthenticationError, "Not allowed"),
    Row("404 model", faults.model_not_found(), ModelNotFoundError, "404.*tiny"),
    Row("404 path", faults.status(404, body="no page"), ModelNotFoundError, "is base_url right"),
    Row("413", faults.status(413), BadRequestError, "answered 413"),
    Row("422", _told(422), BadRequestError, "answered 422"),
    Row("429", faults.rate_limited(), RateLimitError, "answered 429"),
    Row("429 with a wait", faults.rate_limited(60), RateLimitError, "asks to wait 60 s"),
    Row("no money left", faults.quota_exhausted(), AuthenticationError, "may not spend more"),
    Row("500", faults.server_error(), ServerError, "answered 500"),
    Row("503 in HTML", faults.status(503, body=f"<p>{KEY}"), ServerError, r"answered 503.*<p>\*\*\*"),
    Row("529", faults.overloaded(), ServerError, "answered 529 overloaded"),
    Row("context overflow", faults.context_overflow(), ContextWindowExceededError, "9000 tokens"),
    Row("content filter", faults.content_filtered(), ContentFilterError, "safety|filtering"),
    Row("hang", faults.hang(), DeadlineExceeded, "ran out while waiting", SHORT),
    Row("dripping head", faults.drip(part="head"), DeadlineExceeded, "ran out while waiting", SHORT),
    Row("dripping body", faults.drip(), DeadlineExceeded, "ran out while reading", 2 * SHORT),
    Row("stream failed", faults.malformed_sse(block=FAILED), ServerError, r"overloaded, says \*\*\*", only="stream"),
    Row("stream broken", faults.malformed_sse(block=BROKEN), ResponseFormatError, "not JSON", only="stream"),
    Row("stream cut", faults.cut(after_events=1), NetworkError, "while reading the reply", only="stream"),
    Row("stream ended", faults.sse(), ResponseFormatError, "ended without|not JSON"),
]
LATE = [
    Row("failed", faults.malformed_sse(after_events=FIRST_TEXT, block=FAILED), StreamInterruptedError, "overloaded"),
    Row("broken", faults.malformed_sse(after_events=FIRST_TEXT, block=BROKEN), StreamInterruptedError, "not JSON"),
    Row("reset", faults.cut(after_events=FIRST_TEXT), StreamInterruptedError, "ConnectionResetError"),
    Row("ended", faults.cut(after_events=FIRST_TEXT, how="fin"), StreamInterruptedError, "IncompleteRead"),
    Row("stalled", faults.stall(after_events=FIRST_TEXT), DeadlineExceeded, "ran out while reading", 2 * SHORT),
]


def one_attempt(error: PerfkitError, host: str = "") -> None:
    """Check that one provider was asked once, and that the error says who."""
    [attempt] = error.attempts
    assert (attempt.provider, attempt.outcome, attempt.error) == ("local", "error", type(error).__name__)
    assert re.search(rf"\blocal\b|{re.escape(host)}" if host else r"\blocal\b", str(error)), str(error)


@FORMATS
@WAYS
@pytest.mark.parametrize("row", PEERS, ids=[row.name for row in PEERS])
def test_bad_reply_gives_one_typed_error(
    server: FaultServer, kind: str, way: str, row: Row, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    configure(server.base_url, kind)
    server.behave(row.does)
    if row.only in ("", way):
        error = refused(row.error, row.says, lambda: ask(way, timeout=row.timeout))
        one_attempt(error, f"127.0.0.1:{server.port}")
    else:
        assert ask(way, timeout=row.timeout) == ANSWER
    assert server.counters()["requests"] == 1
    assert KEY not in caplog.text


@FORMATS
@pytest.mark.parametrize("row", LATE, ids=[row.name for row in LATE])
def test_stream_that_breaks_after_text_tells_what_was_heard(server: FaultServer, kind: str, row: Row) -> None:
    configure(server.base_url, kind)
    server.behave(row.does)
    heard: list[str] = []
    error = refused(row.error, row.says, lambda: heard.extend(perfkit.stream("one two three", timeout=row.timeout)))
    assert error.partial == "".join(heard)
    assert heard
    assert ANSWER.startswith(error.partial)
    one_attempt(error, f"127.0.0.1:{server.port}")
    assert server.counters()["requests"] == 1


@FORMATS
@WAYS
def test_key_in_a_reply_that_is_not_http_is_not_shown(server: FaultServer, kind: str, way: str) -> None:
    configure(server.base_url, kind)
    server.behave(faults.raw(f"you sent {KEY}\r\n\r\n"))
    with pytest.raises(NetworkError, match="not HTTP") as caught:
        ask(way)
    assert KEY.encode() not in pickle.dumps(caught.value)


@FORMATS
@WAYS
def test_missing_key_is_told_without_a_request(kind: str, way: str) -> None:
    configure(None, kind, key=None)  # the provider's own address, which nothing must be sent to
    one_attempt(refused(AuthenticationError, "has no key: set [A-Z]+_API_KEY or api_key=", lambda: ask(way)))
    assert perfkit.connections.stats() == {}


# --- replies of the right shape with a wrong value somewhere

ODD: list[Any] = [None, True, 5, -1, HUGE, 1.5, math.nan, "", "x", [], [5], {}, {"x": 5}, [[[]]]]


def _odd(document: Any, put: Callable[[Any], Any] = lambda value: value) -> Iterator[Any]:
    """Yield `document` with each of its values, and itself, replaced by each odd one."""
    yield from (put(value) for value in ODD)
    pairs = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in pairs:
        yield from _odd(value, partial(_with, document, key, put))


def _with(document: Any, key: Any, put: Callable[[Any], Any], value: Any) -> Any:
    copy = document.copy()
    copy[key] = value
    return put(copy)


FUNCTION = {"name": "look_up", "arguments": "{}"}
CALL = {"index": 0, "id": "call_1", "type": "function", "function": FUNCTION}
USE = {"type": "tool_use", "id": "call_1", "name": "look_up", "input": {}}


def _whole(kind: str, said: formats.Answer) -> Any:
    """Return a reply with text, a tool call and usage."""
    body = formats.FORMATS[PATHS[kind]].body(said)
    if kind == "openai":
        body["choices"][0]["message"]["tool_calls"] = [CALL]
    else:
        body["content"].append(USE)
    return body


def _events(kind: str, said: formats.Answer) -> list[str]:
    """Return the events of such a reply."""
    blocks = [block.decode() for block in formats.FORMATS[PATHS[kind]].events(said)]
    begun = {"type": "content_block_start", "index": 1, "content_block": USE}
    call = {"choices": [{"index": 0, "delta": {"tool_calls": [CALL]}}]} if kind == "openai" else begun
    arguments = {"type": "input_json_delta", "partial_json": "{}"}
    more = [] if kind == "openai" else [{"type": "content_block_delta", "index": 1, "delta": arguments}]
    return [*blocks[:-3], *(f"data: {json.dumps(data)}\n\n" for data in (call, *more)), *blocks[-3:]]


PATHS = {"openai": "/chat/completions", "anthropic": "/messages"}


def _odd_replies(way: str, kind: str) -> Iterator[Behaviour]:
    said = formats.answer(
        {"model": "tiny", "messages": "hi", "stream_options": {"include_usage": True}}, text="one two"
    )
    if way == "chat":
        return (_said(json.dumps(odd)) for odd in _odd(_whole(kind, said)))
    blocks = _events(kind, said)
    return (
        faults.sse(*blocks[:at], f"{head}data: {json.dumps(odd)}\n\n", *blocks[at + 1 :])
        for at, block in enumerate(blocks)
        for head, _, data in [block.partition("data: ")]
        if not data.startswith("[DONE]")
        for odd in _odd(json.loads(data))
    )


@FORMATS
@WAYS
def test_odd_value_anywhere_in_a_reply_gives_an_answer_or_a_typed_error(
    server: FaultServer, kind: str, way: str
) -> None:
    configure(server.base_url, kind, router={"max_attempts": 1, "failure_threshold": 10**9, "failure_rate": 1})
    script = list(_odd_replies(way, kind))
    assert len(script) > 200
    server.behave(*script)
    answers = 0
    for number in range(len(script)):
        try:  # cacheable: what cannot be kept must not fail the call that got it
            text = ask(way, f"question {number}", temperature=0)
        except PerfkitError as error:
            pickle.dumps(error)
            assert isinstance(error, ProviderError), repr(error)  # noqa: PT017 - an answer is right as well
        else:
            answers += isinstance(text, str)
    assert 0 < answers < len(script)
    assert server.counters()["requests"] == len(script)


# --- calls that are left


class Torn(BaseException):
    """What a signal handler raises."""


class SoftTimeLimitExceeded(Exception):  # noqa: N818 - Celery's name, and as there an Exception
    """What ends a task."""


@FORMATS
@WAYS
@pytest.mark.parametrize("tears", [Torn, SoftTimeLimitExceeded])
def test_call_torn_away_by_a_signal_leaves_nothing(
    server: FaultServer, kind: str, way: str, tears: type[BaseException]
) -> None:
    def handler(*_: object) -> None:
        raise tears

    def strike() -> None:
        server.wait_until(lambda seen: seen["held"] == 1)
        signal.pthread_kill(main, signal.SIGUSR1)

    configure(server.base_url, kind, router={"max_attempts": 3})
    perfkit.configure(providers={"other": {"kind": kind, "base_url": server.base_url}})  # who is not to be asked
    server.behave(faults.hang() if way == "chat" else faults.stall(after_events=FIRST_TEXT), then="ok")
    main, before = threading.get_ident(), signal.signal(signal.SIGUSR1, handler)
    striker = threading.Thread(target=strike)
    striker.start()
    try:
        with pytest.raises(tears):
            ask(way, temperature=0)
    finally:
        striker.join()
        signal.signal(signal.SIGUSR1, before)
    server.behave()
    assert ask(way, temperature=0) == ANSWER
    assert server.counters()["requests"] == 2


@FORMATS
@pytest.mark.parametrize("leave", ["unasked", "closed", "dropped", "raised"])
def test_stream_that_is_left_leaves_nothing(server: FaultServer, kind: str, leave: str) -> None:
    configure(server.base_url, kind)
    server.behave(faults.stall(after_events=FIRST_TEXT))
    before, stream = held(), perfkit.stream("one two three", max_tokens=5)
    if leave != "unasked":
        next(stream)
    if leave == "raised":
        with suppress(ZeroDivisionError), stream:
            raise ZeroDivisionError
    if leave == "closed":
        stream.close()
    del stream
    polled(lambda: leave != "dropped" or held() == before)  # the background thread closes what was forgotten


# --- providers of one's own


@WAYS
@pytest.mark.parametrize(
    "returns",
    [
        None,
        {"text": "hi"},
        "hi",
        perfkit.ChatResponse(None, perfkit.Usage(1, 1), "tiny", "own"),  # type: ignore[arg-type]
        perfkit.ChatResponse("hi", None, "tiny", "own"),  # type: ignore[arg-type]
        perfkit.ChatResponse("hi", perfkit.Usage(1, 1), None, "own"),  # type: ignore[arg-type]
    ],
    ids=["None", "dict", "str", "no text", "no usage", "no model"],
)
def test_provider_that_returns_no_answer_is_an_error_of_its_own(server: FaultServer, way: str, returns: Any) -> None:
    class Own:
        supported_models = frozenset({"own"})

        def chat_completion(self, _: perfkit.ChatRequest) -> Any:
            return returns

        def stream(self, _: perfkit.ChatRequest) -> Generator[str, None, Any]:
            yield from ()
            return returns

    configure(server.base_url, tokens={"prices": {"own": {"input": 1.0, "output": 1.0}}})
    perfkit.router.register_provider("own", Own())
    error = refused(ResponseFormatError, "provider 'own' returned", lambda: ask(way, model="own"))
    assert [(attempt.provider, attempt.outcome) for attempt in error.attempts] == [("own", "error")]


# --- no connection


class Nowhere(NamedTuple):
    """An address where nobody answers as asked."""

    name: str
    url: str  # with {plain}, {tls} and {closed} for ports
    error: type[PerfkitError]
    says: str
    timeout: float = 10.0


NOWHERE = [
    Nowhere("refused", "http://127.0.0.1:{closed}/v1", NetworkError, "Connection refused"),
    Nowhere("no such name", "http://host.invalid/v1", NetworkError, "host.invalid:80"),
    Nowhere("no such name, TLS", "https://host.invalid/v1", NetworkError, "host.invalid:443"),
    Nowhere("TLS to a plain port", "https://127.0.0.1:{plain}/v1", DeadlineExceeded, "ran out while connecting", SHORT),
    Nowhere("plain to a TLS port", "http://127.0.0.1:{tls}/v1", NetworkError, "closed without a reply"),
    Nowhere("untrusted certificate", "https://127.0.0.1:{tls}/v1", NetworkError, "not trusted.*connections.ca_file"),
]


@FORMATS
@WAYS
@pytest.mark.parametrize("row", NOWHERE, ids=[row.name for row in NOWHERE])
def test_peer_that_cannot_be_reached_gives_one_typed_error(
    server: FaultServer, tls: FaultServer, kind: str, way: str, row: Nowhere
) -> None:
    url = row.url.format(plain=server.port, tls=tls.port, closed=free_port())
    configure(url, kind)
    error = refused(row.error, row.says, lambda: ask(way, timeout=row.timeout))
    one_attempt(error, url.split("/")[2])
    assert server.counters()["requests"] == tls.counters()["requests"] == 0


@WAYS
def test_trusted_certificate_is_the_way_out_and_a_missing_file_is_named(tls: FaultServer, way: str) -> None:
    configure(tls.base_url, connections={"ca_file": tls.ca_file})
    assert ask(way) == ANSWER
    perfkit.configure(connections={"ca_file": "/no/such.pem"})
    refused(ConfigError, "cannot load certificates from /no/such.pem", lambda: ask(way))


# --- nobody else to ask


@WAYS
def test_rate_limit_with_nobody_else_is_waited_for_only_within_the_deadline(server: FaultServer, way: str) -> None:
    configure(server.base_url, router={"max_attempts": 3})
    server.behave(faults.rate_limited(0.05), faults.ok())
    assert ask(way) == ANSWER
    server.behave(faults.rate_limited(60))
    error = refused(RateLimitError, "asks to wait 60 s", lambda: ask(way, timeout=30))
    one_attempt(error)
    error = refused(NoAvailableProviderError, r"local: cooling down for \d+", lambda: ask(way, timeout=30))
    assert (error.attempts, list(error.reasons)) == ((), ["local"])
    assert server.counters()["requests"] == 3


@FORMATS
@WAYS
def test_every_provider_failing_names_them_all(server: FaultServer, tls: FaultServer, kind: str, way: str) -> None:
    configure(server.base_url, kind, router={"max_attempts": 2, "strategy": "priority"})
    other = {"kind": "openai", "base_url": tls.base_url, "api_key": KEY, "models": ["tiny"], "priority": 2}
    perfkit.configure(providers={"other": other}, connections={"ca_file": tls.ca_file})
    server.behave(_told(500))
    tls.behave(_told(429))
    says = "2 attempts for 'tiny' failed: local: ServerError.*; other: RateLimitError"
    error = refused(MaxRetriesExceededError, says, lambda: ask(way))
    assert [(a.provider, a.error) for a in error.attempts] == [("local", "ServerError"), ("other", "RateLimitError")]
    server.behave(_told(400))
    one_attempt(refused(BadRequestError, "answered 400", lambda: ask(way)))
    assert (server.counters()["requests"], tls.counters()["requests"]) == (2, 1)
