"""What a call gets from the cache: replayed streams, stale answers, scopes."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from _servers import polled

import perfkit
from perfkit.errors import BadRequestError
from perfkit.testing import FaultServer, faults

Chat = Callable[..., perfkit.ChatResponse]


def test_a_streamed_answer_is_kept_whole_and_replayed_as_a_stream(chat: Chat, fault: FaultServer) -> None:
    first = perfkit.stream("one two three " * 20, model="tiny", temperature=0)
    text = "".join(first)
    again = perfkit.stream("one two three " * 20, model="tiny", temperature=0)
    pieces = list(again)
    assert "".join(pieces) == text
    assert len(pieces) > 3
    assert first.response is not None
    assert again.response is not None
    assert (again.response.cached, again.response.cost) == ("exact", 0.0)
    assert again.response.usage == first.response.usage
    assert chat("one two three " * 20, temperature=0).cached == "exact"
    assert fault.stats()["requests"] == 1
    assert perfkit.tracker.get_stats("cache_saving")["sum"] == pytest.approx(2 * (first.response.cost or 0))


def test_a_stream_overtaken_by_an_invalidation_is_not_kept(chat: Chat) -> None:
    stream = perfkit.stream("same", model="tiny", temperature=0)
    next(stream)
    perfkit.cache.invalidate("chat:*")
    list(stream)
    assert len(perfkit.cache) == 0


def test_a_stale_answer_is_served_and_its_refresh_is_paid_and_counted(chat: Chat, fault: FaultServer) -> None:
    policy = perfkit.CachePolicy(ttl=0.01, stale_ttl=60)
    chat("same", cache=policy)
    asked = fault.stats()["requests"]
    threading.Event().wait(0.02)
    stale = chat("same", cache=policy)
    assert (stale.cached, stale.cost) == ("exact", 0.0)
    assert perfkit.cache._loader.refresher.wait(10)
    assert fault.stats()["requests"] == asked + 1
    assert perfkit.tracker.get_stats("cost")["count"] == 2
    threading.Event().wait(0.02)
    list(perfkit.stream("same", model="tiny", cache=policy))
    assert perfkit.cache._loader.refresher.wait(10)
    assert perfkit.cache.stats()["stale_hits"] == 2


def test_a_tenants_answers_are_shared_by_its_users_and_nobody_else(chat: Chat) -> None:
    policy = perfkit.CachePolicy(scope="tenant")

    def cached(user: str, tenant: str | None) -> str | None:
        context = {} if tenant is None else {"tenant": tenant}
        answer: perfkit.ChatResponse = chat("same", cache=policy, user=user, context=context)
        return answer.cached

    assert [cached("anna", "acme"), cached("bert", "acme"), cached("carl", "other")] == [None, "exact", None]
    assert [cached("anna", None), cached("anna", None)] == [None, None]
    assert perfkit.cache.forget(tenant="acme") == 1
    assert [cached("bert", "acme"), cached("carl", "other")] == [None, "exact"]


def test_a_wrong_request_is_remembered_for_a_moment_where_that_is_wanted(chat: Chat, fault: FaultServer) -> None:
    perfkit.configure(cache={"error_ttl": 10})
    fault.behave(faults.status(422), then="ok")
    for _ in range(3):
        with pytest.raises(BadRequestError):
            chat("same", temperature=0)
    assert fault.stats()["requests"] == 1
    assert chat("other", temperature=0).text == "echo: other"


def test_where_the_provider_fails_an_old_answer_serves(chat: Chat, fault: FaultServer) -> None:
    perfkit.configure(cache={"stale_if_error": 60}, router={"max_attempts": 1})
    policy = perfkit.CachePolicy(ttl=0.01)
    first = chat("same", cache=policy)
    threading.Event().wait(0.02)
    fault.behave(faults.status(500))
    old = chat("same", cache=policy)
    assert (old.text, old.cached, old.cost) == (first.text, "exact", 0.0)
    with pytest.raises(perfkit.PerfkitError):
        chat("other", cache=policy)


def _ask(kind: str, **more: object) -> perfkit.ChatResponse:
    policy = perfkit.CachePolicy(ttl=1e-6)
    if kind == "chat":
        return perfkit.chat("same", cache=policy, **more)  # type: ignore[arg-type]
    stream = perfkit.stream("same", cache=policy, **more)  # type: ignore[arg-type]
    list(stream)
    assert stream.response is not None
    return stream.response


@pytest.mark.parametrize("kind", ["chat", "stream"])
@pytest.mark.parametrize("configured", [False, True])
def test_the_stale_answer_is_the_last_resort_where_that_is_wanted(
    chat: Chat, fault: FaultServer, kind: str, configured: bool
) -> None:
    perfkit.configure(
        providers={"local": {"kind": "openai", "base_url": fault.base_url, "api_key": "sk-test"}},
        client={"default_model": "tiny"},
        router={"max_attempts": 1, **({"fallback_response": "stale"} if configured else {})},
    )
    more = {} if configured else {"fallback_response": "stale"}
    fault.behave(faults.server_error())
    with pytest.raises(perfkit.ProviderError):  # nothing was ever kept
        _ask(kind, **more)
    fault.behave(faults.ok("old"), faults.server_error(), faults.status(400), faults.ok("new"))
    kept = _ask(kind, **more)
    polled(lambda: perfkit.cache.stats()["entries"] == 1)
    again = _ask(kind, **more)
    assert (kept.cached, again.text.strip(), again.cached, again.cost) == (None, "old", "exact", 0.0)
    assert again.age is not None
    assert again.age > 1e-6
    with pytest.raises(BadRequestError):  # a fault of the caller is not hidden
        _ask(kind, **more)
    assert _ask(kind, **more).text.strip() == "new"
    counted = {name: perfkit.tracker.get_stats(name)["sum"] for name in ("llm_cache", "llm_error")}
    assert counted == {"llm_cache": 3, "llm_error": 2}  # each of the five once


def test_without_the_last_resort_nothing_is_kept_beyond_its_time(chat: Chat, fault: FaultServer) -> None:
    perfkit.configure(router={"max_attempts": 1})
    fault.behave(faults.ok("old"))
    _ask("chat")
    fault.behave(faults.server_error())
    with pytest.raises(perfkit.ProviderError):
        _ask("chat")
