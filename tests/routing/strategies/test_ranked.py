from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from perfkit.errors import ServerError
from perfkit.values import ChatRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from routing.conftest import SlowClock

    from perfkit.routing import ProviderRouter

    MakeRouter = Callable[..., ProviderRouter]

LATENCY = {"strategy": "least_latency"}


def ask(router: ProviderRouter, request: ChatRequest, times: int, clock: SlowClock, gap: float = 1.0) -> Counter[str]:
    answered: Counter[str] = Counter()
    for _ in range(times):
        clock.advance(gap)
        answered[router.execute_with_fallback(request).provider] += 1
    return answered


def test_priority_one_comes_first(router: MakeRouter, request_: ChatRequest, clock: SlowClock, scripted: type) -> None:
    made = router()
    for name, priority in (("backup", 2), ("primary", 1), ("last", 3)):
        made.register_provider(name, scripted(clock), priority=priority)
    assert ask(made, request_, 20, clock) == {"primary": 20}


def test_equal_priorities_share_what_runs_at_the_same_time(
    router: MakeRouter, request_: ChatRequest, clock: SlowClock, scripted: type
) -> None:
    made, inside = router(), threading.Barrier(2)
    for name in "ab":
        made.register_provider(name, scripted(clock, lambda _: inside.wait(10)))
    first = made._candidates["a"]
    first.in_flight += 1
    assert made.route_request(request_) == "b"
    first.in_flight -= 1
    assert made.route_request(request_) == "a"


def test_the_fastest_gets_the_calls(router: MakeRouter, request_: ChatRequest, clock: SlowClock) -> None:
    made = router(LATENCY, slow=2.0, fast=0.1, middling=0.5)
    answered = ask(made, request_, 300, clock, gap=0.1)
    assert answered["fast"] > 290
    assert min(answered.values()) >= 1  # everybody was tried


def test_an_untried_provider_is_neither_starved_nor_swamped(
    router: MakeRouter, request_: ChatRequest, clock: SlowClock
) -> None:
    made = router(LATENCY, known=0.1)
    ask(made, request_, 10, clock)
    inside, answered = threading.Event(), threading.Event()

    def first_try(_: ChatRequest) -> None:
        inside.set()
        assert answered.wait(10)

    made.register_provider("new", type(made.get_provider("known"))(clock, first_try))
    with ThreadPoolExecutor(1) as pool:
        exploring = pool.submit(made.execute_with_fallback, request_)
        assert inside.wait(10)
        assert ask(made, request_, 20, clock) == {"known": 20}
        assert made.get_provider("new").calls == 1
        answered.set()
        assert exploring.result(10).provider == "new"


def test_a_provider_that_only_fails_does_not_look_fast(
    router: MakeRouter, request_: ChatRequest, clock: SlowClock
) -> None:
    made = router({**LATENCY, "failure_threshold": 1000}, broken=ServerError("500"), works=0.3)
    ask(made, request_, 30, clock)
    assert made.get_provider("broken").calls == 1


def test_failures_now_and_then_cost_a_fast_provider_little(
    router: MakeRouter, request_: ChatRequest, clock: SlowClock
) -> None:
    script = ([0.2] * 49 + [ServerError("500")]) * 20
    made = router(LATENCY, fast=tuple(script), slow=1.0)
    answered = ask(made, request_, 900, clock, gap=0.05)
    assert answered["fast"] > 850


def test_a_provider_that_became_slow_is_left_and_found_again_when_it_recovers(
    router: MakeRouter, request_: ChatRequest, clock: SlowClock
) -> None:
    made = router(LATENCY, first=0.1, second=0.5)
    ask(made, request_, 20, clock)
    made.get_provider("first").script = [5.0]
    assert ask(made, request_, 50, clock, gap=0.1)["first"] <= 5
    made.get_provider("first").script = [0.1]
    assert ask(made, request_, 300, clock)["first"] > 100


def test_a_slow_provider_is_explored_seldom(router: MakeRouter, request_: ChatRequest, clock: SlowClock) -> None:
    made = router(LATENCY, fast=0.5, slow=2.0)
    answered = ask(made, request_, 1000, clock, gap=0.5)
    assert 2 <= answered["slow"] <= 30


@pytest.mark.parametrize("idle", [0.0, 600.0])
def test_an_idle_estimate_fades(idle: float, router: MakeRouter, request_: ChatRequest, clock: SlowClock) -> None:
    made = router(LATENCY, a=2.0)
    made.execute_with_fallback(request_)
    clock.advance(idle)
    expected = made._candidates["a"].expected
    assert expected == pytest.approx(2.0, rel=0.04) if idle == 0 else expected < 0.001
    assert made.health()["a"]["avg_latency"] == pytest.approx(2.0)
