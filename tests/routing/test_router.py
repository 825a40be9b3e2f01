from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import perfkit
from perfkit.clock import FakeClock
from perfkit.config import Config
from perfkit.errors import (
    ConfigError,
    NoAvailableProviderError,
    ServerError,
    UnknownModelError,
    UnknownNameError,
)
from perfkit.routing import STRATEGIES, ProviderRouter
from perfkit.values import ChatRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from routing.conftest import Scripted, SlowClock

    from perfkit.routing import Candidate

    MakeRouter = Callable[..., ProviderRouter]


HELLO: Any = "hello"  # one user message


def last(candidates: Sequence[Candidate], request: Any) -> Candidate:
    """Choose the last; named by the configuration in a test."""
    return candidates[-1]


def only_b(candidates: Sequence[Candidate], request: Any) -> str:
    return "b"


# --- registration


def test_a_request_goes_to_those_who_offer_the_model(
    router: MakeRouter, scripted: type[Scripted], clock: SlowClock
) -> None:
    made = router()
    made.register_provider("own", scripted(clock, models=["small"]))
    made.register_provider("told", scripted(clock, models=["small"]), models=["large", "small"])
    assert made.execute_with_fallback(ChatRequest(HELLO, "large")).provider == "told"
    assert made.models() == {"small", "large"}
    with pytest.raises(UnknownModelError, match=r"no provider offers 'lrge'; offered: large, small; did you mean") as c:
        made.execute_with_fallback(ChatRequest(HELLO, "lrge"))
    assert c.value.model == "lrge"
    with pytest.raises(UnknownModelError, match="provider 'own' does not offer 'large'"):
        made.execute_with_fallback(ChatRequest(HELLO, "large"), provider="own")
    made.register_provider("any", scripted(clock))
    assert made.execute_with_fallback(ChatRequest(HELLO, "lrge")).provider == "any"
    assert made.models() == {"small", "large"}


def test_without_providers_the_error_says_what_to_do(router: MakeRouter, request_: ChatRequest) -> None:
    with pytest.raises(UnknownModelError, match=r"configure \[providers.<name>\], as in .* or register_provider\(\)"):
        router().execute_with_fallback(request_)


def test_unknown_names_are_told_with_the_known(router: MakeRouter, request_: ChatRequest) -> None:
    made = router(openai=0.0, groq=0.0)
    for ask in (
        made.get_provider,
        made.unregister_provider,
        lambda n: made.execute_with_fallback(request_, provider=n),
    ):
        with pytest.raises(UnknownNameError, match="no provider 'opnai'; known: groq, openai; did you mean 'openai'"):
            ask("opnai")


def test_providers_come_and_go_in_order(router: MakeRouter) -> None:
    made = router(a=0.0, b=0.0, c=0.0)
    made.unregister_provider("b")
    assert made.list_providers() == ("a", "c")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"name": ""}, ValueError, "name must be a string that is not empty"),
        ({"provider": object()}, TypeError, "provider 'x' has no method chat_completion"),
        ({"models": "gpt"}, TypeError, "a list of names, not the string 'gpt'"),
        ({"weight": 0}, ValueError, "weight must be a finite number above 0"),
        ({"weight": float("nan")}, ValueError, "weight must be a finite number"),
        ({"priority": "first"}, TypeError, "priority must be a number"),
    ],
)
def test_what_cannot_be_registered_changes_nothing(
    options: dict[str, Any], error: type[Exception], message: str, router: MakeRouter, scripted: type[Scripted]
) -> None:
    made = router()
    with pytest.raises(error, match=message):
        made.register_provider(**{"name": "x", "provider": scripted(FakeClock()), **options})
    assert made.list_providers() == ()


def test_registration_from_many_threads_loses_nobody(
    router: MakeRouter, scripted: type[Scripted], clock: SlowClock
) -> None:
    made, barrier = router(), threading.Barrier(16)

    def register(thread: int) -> None:
        barrier.wait(10)
        for number in range(20):
            made.register_provider(f"{thread}-{number}", scripted(clock))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(register, range(16)))
    assert len(made.list_providers()) == 320


# --- choice


def test_route_request_names_a_provider_and_takes_nothing(
    router: MakeRouter, request_: ChatRequest, clock: SlowClock
) -> None:
    made = router(a=ServerError("500"), b=0.0)
    assert [made.route_request(), made.route_request({}), made.route_request({"model": "m"})] == ["a"] * 3
    assert made.route_request(request_) == "a"
    for _ in range(5):
        made.execute_with_fallback(request_)
    assert made.route_request(request_) == "b"
    clock.advance(60)
    for _ in range(3):
        assert made.route_request(request_) == "a"  # the probe is still to be had
    assert made.health()["a"]["in_flight"] == 0


def test_route_request_says_why_nobody_can_be_used(router: MakeRouter, request_: ChatRequest) -> None:
    made = router(a=ServerError("500"))
    for _ in range(5):
        with pytest.raises(ServerError):
            made.execute_with_fallback(request_, max_attempts=1)
    with pytest.raises(NoAvailableProviderError, match="a: circuit open"):
        made.route_request({"model": "m"})


@pytest.mark.parametrize(
    "strategy",
    [
        last,
        only_b,
        lambda candidates, request: [candidates[-1], candidates[0]],
        lambda candidates, request: (c.name for c in reversed(candidates)),
        lambda candidates, request: ["gone", "b", "a"],
    ],
)
def test_any_callable_is_a_strategy(strategy: Any, router: MakeRouter, request_: ChatRequest) -> None:
    made = router({"strategy": strategy}, a=0.0, b=0.0)
    response = made.execute_with_fallback(request_)
    assert response.provider == "b"
    assert response.attempts[0].reason == f"chosen by {strategy.__name__}"


@pytest.mark.parametrize("nonsense", [None, "nobody", [], 7])
def test_a_strategy_that_names_nobody_is_told_so(nonsense: Any, router: MakeRouter, request_: ChatRequest) -> None:
    def odd(candidates: Any, request: Any) -> Any:
        return nonsense

    with pytest.raises(TypeError, match=r"strategy odd returned .*; it must return one of a, b"):
        router({"strategy": odd}, a=0.0, b=0.0).execute_with_fallback(request_)


def test_strategies_can_be_registered_and_named_by_module(router: MakeRouter, request_: ChatRequest) -> None:
    STRATEGIES.register("test_last", last)
    made = router({"strategy": "test_last"}, a=0.0, b=0.0)
    assert made.execute_with_fallback(request_).provider == "b"
    del STRATEGIES._entries["test_last"]
    made.configure(strategy="perfkit.routing.strategies.ranked:Priority")
    assert made.execute_with_fallback(request_).provider == "a"
    for wrong in ("no.such.module:x", "perfkit.routing:nothing", "perfkit.routing.policy:TABLE"):
        with pytest.raises(ConfigError, match=f"router.strategy '{wrong}'"):
            made.configure(strategy=wrong)


def test_an_unknown_strategy_is_refused_and_nothing_changes(router: MakeRouter) -> None:
    with pytest.raises(UnknownNameError, match=r"no routing strategy 'priorty'; known: .*did you mean 'priority'"):
        ProviderRouter(strategy="priorty")
    made = router({"strategy": last})
    with pytest.raises(UnknownNameError):
        made.configure(strategy="priorty")
    with pytest.raises(ConfigError):
        made.configure(strategy="random", max_attempts=0)
    made.configure(timeout=9)
    assert made._setup.strategy is last
    assert made.settings.max_attempts == 3


def test_a_strategy_stays_until_another_is_given(router: MakeRouter, request_: ChatRequest) -> None:
    made = router({"strategy": last}, a=0.0, b=0.0)
    made.configure(max_attempts=2)
    assert made.route_request(request_) == "b"
    made.configure(strategy="priority")
    assert made.route_request(request_) == "a"
    made.configure(strategy=only_b)
    assert made.route_request(request_) == "b"
    made.reset()
    assert made._setup.strategy is only_b


def test_new_settings_reach_circuits_that_are_there(router: MakeRouter, request_: ChatRequest) -> None:
    made = router(a=ServerError("500"), b=0.0)
    made.configure(failure_threshold=2, open_seconds=7)
    for _ in range(5):
        made.execute_with_fallback(request_)
    assert made.get_provider("a").calls == 2
    assert made.health()["a"]["cooldown"] == 7.0


# --- configuration


def configured(**providers: dict[str, Any]) -> Config:
    return Config({"providers": providers}, file={}, environ={})


ROW = {"kind": "openai", "base_url": "http://127.0.0.1:9/v1", "api_key": "k", "models": ["m"]}


def test_configured_providers_are_made_changed_and_removed(router: MakeRouter) -> None:
    made = router(hand=0.0)
    made._configured(configured(one={**ROW, "priority": 3, "weight": 2.5}, openai={"api_key": "k"}))
    assert made.list_providers() == ("hand", "one", "openai")
    one = made._candidates["one"]
    assert (one.priority, one.weight, one.provider.name) == (3, 2.5, "one")
    assert one.models == frozenset({"m"})
    openai = made.get_provider("openai")
    made._configured(configured(one={**ROW, "priority": 4}, openai={"api_key": "k"}))
    assert made._candidates["one"].priority == 4
    assert made._candidates["one"] is not one
    assert made.get_provider("openai") is openai
    made._configured(configured(one={**ROW, "priority": 4}))
    assert made.list_providers() == ("hand", "one")
    made._configured(configured())
    assert made.list_providers() == ("hand",)


def test_a_provider_registered_by_hand_wins_over_its_row(router: MakeRouter) -> None:
    made = router(openai=0.0)
    by_hand = made.get_provider("openai")
    made._configured(configured(openai={"api_key": "k"}))
    assert made.get_provider("openai") is by_hand
    made._configured(configured(one=ROW))
    made.register_provider("one", by_hand)
    made._configured(configured(one={**ROW, "priority": 4}))
    made._configured(configured())
    assert made.get_provider("one") is by_hand


def test_a_row_that_cannot_be_made_changes_nothing(router: MakeRouter) -> None:
    made = router(hand=0.0)
    made._configured(configured(one=ROW))
    with pytest.raises(UnknownNameError):
        made._configured(configured(two={"kind": "opnai", "api_key": "k"}))
    assert made.list_providers() == ("hand", "one")


def test_providers_made_from_the_configuration_are_closed_when_they_go(router: MakeRouter) -> None:
    made, closed = router(hand=0.0), []
    made.get_provider("hand").close = lambda: closed.append("hand")
    made._configured(configured(one=ROW, two=ROW, three=ROW))
    for name in ("one", "two", "three"):
        made.get_provider(name).close = lambda name=name: closed.append(name)
    made._configured(configured(one=ROW, two=ROW))
    made.unregister_provider("two")
    made.register_provider("one", made.get_provider("hand"))
    assert closed == ["three", "two", "one"]
    made.reset()
    assert closed == ["three", "two", "one"]


def test_the_shared_router_follows_the_configuration() -> None:
    perfkit.configure(providers={"one": ROW}, router={"strategy": "priority"})
    assert perfkit.router is ProviderRouter.instance()
    assert perfkit.router.list_providers() == ("one",)
    perfkit.reset()
    assert perfkit.router.list_providers() == ()


# --- life


def test_reset_forgets_everything_in_place(router: MakeRouter, request_: ChatRequest) -> None:
    made = router(a=0.0)
    made.close()
    assert made.execute_with_fallback(request_).text == "fine"
    made.reset()
    assert (made.list_providers(), made.health()) == ((), {})


def test_a_forked_child_has_locks_of_its_own(router: MakeRouter, scripted: type[Scripted], clock: SlowClock) -> None:
    made = router({"strategy": "weighted"}, a=0.0)
    with made._lock:
        made._after_fork()
        made.register_provider("b", scripted(clock))
    assert made.route_request({"model": "m"}) in ("a", "b")


def test_the_repr_is_live(router: MakeRouter, request_: ChatRequest) -> None:
    made = router(a=ServerError("500"), b=0.0)
    assert repr(router()) == "<ProviderRouter Priority: no providers>"
    for _ in range(5):
        made.execute_with_fallback(request_)
    assert repr(made) == "<ProviderRouter Priority: a open, probe in 60.0 s, b closed, 0 of 5 failures>"


def test_importing_and_making_a_router_loads_nothing_heavy() -> None:
    heavy = ["urllib3", "requests", "ssl", "asyncio", "numpy", "redis"]
    code = (
        "import sys, threading; from perfkit.routing import ProviderRouter; ProviderRouter();"
        f"print([m for m in {heavy!r} if m in sys.modules], threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[] 1\n"


def test_a_router_uses_the_shared_tracker_unless_given_one(request_: ChatRequest, scripted: type[Scripted]) -> None:
    made = ProviderRouter()
    made.register_provider("a", scripted(FakeClock()))
    made.execute_with_fallback(request_)
    assert perfkit.tracker.get_stats("provider_latency")["count"] == 1


def test_latency_is_another_name_of_least_latency() -> None:
    from perfkit.routing.strategies.ranked import LeastLatency

    made = ProviderRouter(strategy="latency")
    assert (made.strategy, STRATEGIES.get("latency")) == ("latency", LeastLatency)
    made.strategy = "round_robin"
    made.configure(strategy="latency")
    assert made.strategy == "latency"


def test_a_provider_that_says_what_it_offers_is_asked_again_after_a_while(
    router: MakeRouter, clock: SlowClock, request_: ChatRequest
) -> None:
    made = router(a=0.0, b=0.0)
    provider, asked, offered = made.get_provider("a"), [], {"m"}

    def offers(model: str) -> bool:
        asked.append(model)
        return model in offered

    provider.offers = offers
    made.register_provider("a", provider, priority=0)
    assert [made.execute_with_fallback(request_).provider for _ in range(5)] == ["a"] * 5
    assert asked == ["m"]
    offered.clear()
    clock.advance(10)
    assert [made.execute_with_fallback(request_).provider for _ in range(3)][1:] == ["b"] * 2


def test_who_is_registered_or_taken_out_counts_at_once(router: MakeRouter, request_: ChatRequest) -> None:
    made = router(a=0.0, b=0.0)
    assert made.execute_with_fallback(request_).provider == "a"
    made.register_provider("first", made.get_provider("b"), priority=0)
    assert made.execute_with_fallback(request_).provider == "first"
    made.unregister_provider("first")
    made.unregister_provider("a")
    assert made.execute_with_fallback(request_).provider == "b"
    made.unregister_provider("b")
    with pytest.raises(UnknownModelError):
        made.execute_with_fallback(request_)
