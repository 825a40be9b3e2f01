"""Agents and plain functions behind the cache."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfkit import CachedAgent, CachePolicy, FakeClock, ResponseCache, cached
from perfkit.metrics import PerformanceTracker

TOOL = {"type": "function", "function": {"name": "search", "parameters": {"type": "object"}}}


class Agent:
    """Counts its runs."""

    def __init__(self, **parts: Any) -> None:
        self.name, self.instructions, self.model = "helper", "be brief", "m"
        self.tools: list[Any] = []
        self.__dict__.update(parts)
        self.runs: list[tuple[str, Any]] = []

    def run(self, message: str, context: Mapping[str, Any] | None) -> Any:
        self.runs.append((message, context))
        return {"text": f"{message} #{len(self.runs)}"}


@pytest.fixture
def cache() -> ResponseCache:
    return ResponseCache(clock=FakeClock(), tracker=PerformanceTracker())


def test_a_run_is_made_once_and_its_answer_belongs_to_who_gets_it(cache: ResponseCache) -> None:
    agent = CachedAgent(Agent(), cache=cache)
    first = agent.run("sort these words")
    first["text"] = "changed"
    assert agent.run("sort these words") == {"text": "sort these words #1"}
    assert len(agent.agent.runs) == 1


def test_request_ids_do_not_matter_and_users_do(cache: ResponseCache) -> None:
    agent = CachedAgent(Agent(), cache=cache)
    occasion = {"request_id": 1, "session_id": "a", "timestamp": 3, "trace_id": "t", "span_id": "s"}
    for user in ("anna", "bert", "anna", "bert"):
        for number in range(3):
            changed = {name: f"{value}{number}{user}" for name, value in occasion.items()}
            agent.run("what is my balance", {"user_id": user, **changed})
    assert [context["user_id"] for _, context in agent.agent.runs] == ["anna", "bert"]


def test_what_a_run_depends_on_is_in_the_key(cache: ResponseCache) -> None:
    variants: list[dict[str, Any]] = [
        {},
        {"name": "other"},
        {"instructions": "be long"},
        {"model": "n"},
        {"tools": [TOOL]},
        {"tools": [{**TOOL, "function": {**TOOL["function"], "parameters": {"type": "array"}}}]},  # type: ignore[dict-item]
    ]
    agents = [CachedAgent(Agent(**parts), "always", cache=cache) for parts in variants]
    for agent in [*agents, *agents]:
        agent.run("hi")
        agent.run("hi", {"place": "Rome"})
    assert [len(agent.agent.runs) for agent in agents] == [2] * len(agents)


def test_the_list_of_ignored_context_can_be_changed(cache: ResponseCache) -> None:
    agent = CachedAgent(Agent(), "always", cache=cache, ignored=["page"])
    for context in ({"page": 1, "request_id": 1}, {"page": 2, "request_id": 1}, {"page": 1, "request_id": 2}):
        agent.run("hi", context)
    assert len(agent.agent.runs) == 2


@pytest.mark.parametrize(
    ("parts", "message", "context", "reason"),
    [
        ({"tools": [TOOL]}, "hi", {}, "tools may have effects"),
        ({"temperature": 0.7}, "hi", {}, "temperature above 0.1"),
        ({}, "what is my balance", {}, "personal data and no user given"),
        ({}, "hi", {"personalized": True}, "personalised context and no user given"),
    ],
)
def test_what_smart_would_not_keep_is_run_every_time(
    cache: ResponseCache, parts: dict[str, Any], message: str, context: dict[str, Any], reason: str
) -> None:
    agent = CachedAgent(Agent(**parts), cache=cache)
    assert agent.decide(message, context).reason == reason
    agent.run(message, context)
    agent.run(message, context)
    assert len(agent.agent.runs) == 2
    assert len(cache) == 0


def test_a_strategy_may_be_a_policy_or_a_function(cache: ResponseCache) -> None:
    for strategy, runs in (
        ("never", 2),
        ("always", 1),
        (CachePolicy(ttl=5), 1),
        (lambda request: "always" if request.model == "m" else "never", 1),
    ):
        agent = CachedAgent(Agent(), strategy, cache=cache)
        cache.clear()
        agent.run("hi")
        agent.run("hi")
        assert len(agent.agent.runs) == runs


def test_kinds_have_their_times(cache: ResponseCache) -> None:
    agent = CachedAgent(Agent(), cache=cache)
    assert agent.decide("sort", {"conversation_type": "support"}).ttl == 3600
    assert agent.decide("what is a queue").ttl == 86_400


def test_a_result_that_cannot_be_kept_is_returned_all_the_same(cache: ResponseCache) -> None:
    class Odd(Agent):
        def run(self, message: str, context: Mapping[str, Any] | None) -> Any:
            self.runs.append((message, context))
            return {1, 2}

    agent = CachedAgent(Odd(), "always", cache=cache)
    assert agent.run("hi") == agent.run("hi") == {1, 2}
    assert len(agent.agent.runs) == 2


def test_functions_as_tools_are_told_apart_by_name_and_signature(cache: ResponseCache) -> None:
    def search(query: str) -> str:
        """Search the web."""
        return query

    def fetch(query: str, page: int) -> str:
        return f"{query}{page}"

    agents = [CachedAgent(Agent(tools=tools), "always", cache=cache) for tools in ([search], [fetch], [search, fetch])]
    for agent in [*agents, *agents]:
        agent.run("hi")
    assert [len(agent.agent.runs) for agent in agents] == [1, 1, 1]
    with pytest.raises(TypeError, match="a tool must be"):
        CachedAgent(Agent(tools=[3]), "always", cache=cache).run("hi")


def test_what_is_no_agent_or_strategy_is_refused(cache: ResponseCache) -> None:
    with pytest.raises(TypeError, match="has no run"):
        CachedAgent(object(), cache=cache)
    with pytest.raises(ValueError, match="'smart', 'always', 'never'"):
        CachedAgent(Agent(), "clever", cache=cache)


names = st.sampled_from(["anna", "bert", "anna ", "user:anna", "None", "\ud800"])
contexts = st.dictionaries(
    st.sampled_from(["place", "request_id", "tenant"]), st.sampled_from(["a", "b", 1]), max_size=3
)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.none() | names, contexts, st.sampled_from(["my balance", "sort", "who am I"])), max_size=12)
)
def test_no_run_of_one_user_is_ever_given_to_another(calls: list[tuple[str | None, dict[str, Any], str]]) -> None:
    class Whose(Agent):
        def run(self, message: str, context: Mapping[str, Any] | None) -> Any:
            return {"for": (context or {}).get("user_id"), "place": (context or {}).get("place"), "said": message}

    agent = CachedAgent(Whose(), "always", cache=ResponseCache(tracker=PerformanceTracker()))
    for user, context, message in calls:
        whole = context if user is None else {**context, "user_id": user}
        assert agent.run(message, whole) == {"for": user, "place": context.get("place"), "said": message}


def test_a_plain_function_is_computed_once_for_equal_arguments(cache: ResponseCache) -> None:
    calls: list[tuple[Any, ...]] = []

    @cached(cache=cache, ttl=10, tags=["sums"])
    def add(a: int, b: int = 2, *rest: int, scale: int = 1) -> int:
        """Add."""
        calls.append((a, b, rest, scale))
        return (a + b + sum(rest)) * scale

    assert [add(1), add(1, 2), add(a=1), add(1, b=2, scale=1)] == [3, 3, 3, 3]
    assert add(1, 2, 3) == 6
    assert len(calls) == 2
    assert add.__doc__ == "Add."
    assert cache.invalidate("sums") == 2
    add(1)
    assert len(calls) == 3


def test_it_decorates_without_arguments_too() -> None:
    calls: list[int] = []

    @cached
    def add(a: int) -> int:
        calls.append(a)
        return a + 1

    assert (add(1), add(1), calls) == (2, 2, [1])


def test_a_falsy_result_is_a_result_and_an_error_is_not(cache: ResponseCache) -> None:
    calls: list[int] = []

    @cached(cache=cache)
    def odd(n: int) -> None:
        calls.append(n)
        if n:
            raise LookupError(n)

    odd(0)
    odd(0)
    for _ in range(2):
        with pytest.raises(LookupError):
            odd(1)
    assert calls == [0, 1, 1]


def test_results_have_a_scope_and_a_key_of_their_own(cache: ResponseCache) -> None:
    calls: list[str] = []

    @cached(cache=cache, scope=lambda user, *_: user, key=lambda _, thing: type(thing).__name__)
    def about(user: str, thing: object) -> str:
        calls.append(user)
        return user

    assert [about("anna", {1}), about("anna", {2}), about("bert", {1})] == ["anna", "anna", "bert"]
    assert calls == ["anna", "bert"]


def test_two_functions_never_share_a_result(cache: ResponseCache) -> None:
    def make(n: int) -> Any:
        @cached(cache=cache)
        def one(x: int) -> int:
            return x + n

        one.__wrapped__.__qualname__ = f"f{n}"  # type: ignore[attr-defined]
        return one

    first = make(1)

    @cached(cache=cache)
    def other(x: int) -> int:
        return -x

    assert (first(1), other(1)) == (2, -1)


def test_threads_that_call_alike_share_one_computation(cache: ResponseCache) -> None:
    started, release, calls = threading.Event(), threading.Event(), []

    @cached(cache=cache)
    def slow(n: int) -> int:
        calls.append(n)
        started.set()
        assert release.wait(10)
        return n

    threads = [threading.Thread(target=slow, args=(1,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert started.wait(10)
    release.set()
    for thread in threads:
        thread.join()
    assert calls == [1]


def test_a_coroutine_is_refused_where_it_is_decorated(cache: ResponseCache) -> None:
    with pytest.raises(TypeError, match="only plain functions"):

        @cached(cache=cache)
        async def later() -> int:
            return 1


def test_a_tool_is_part_of_the_key_by_what_it_says_of_itself(cache: ResponseCache) -> None:
    class Tool:
        def __init__(self, limit: int) -> None:
            self._limit = limit

        def to_dict(self) -> dict[str, Any]:
            return {"name": "search", "limit": self._limit}

    class Searcher:
        name = "searcher"
        runs = 0

        def __init__(self, limit: int) -> None:
            self.tools = [Tool(limit)]

        def run(self, message: str, context: Any) -> str:
            Searcher.runs += 1
            return message

    for limit in (1, 1, 2):
        agent = CachedAgent(Searcher(limit), "always", cache=cache)
        assert agent.run("hello") == "hello"
    assert Searcher.runs == 2
    assert repr(agent).startswith("CachedAgent('searcher'")
