from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perfkit.errors import RateLimitError, ServerError
from perfkit.routing.outliers import Record, outliers

if TYPE_CHECKING:
    from collections.abc import Callable

    from routing.conftest import SlowClock

    from perfkit.routing import ProviderRouter
    from perfkit.values import ChatRequest

    MakeRouter = Callable[..., ProviderRouter]

NEVER_OPEN: dict[str, Any] = {"strategy": "round_robin", "failure_threshold": 10**6, "failure_rate": 1}


def test_who_fails_much_more_or_is_much_slower_than_the_others_is_an_outlier() -> None:
    good = [Record(name, 100, 2, 50.0) for name in "abc"]
    assert outliers(good, 5.0) == []
    assert outliers([*good, Record("fails", 100, 40, 50.0)], 5.0) == ["fails"]
    assert outliers([*good, Record("slow", 100, 2, 500.0)], 5.0) == ["slow"]
    assert outliers([*good, Record("little", 4, 4, 500.0)], 5.0) == []
    assert outliers([Record("alone", 100, 100, 50.0)], 5.0) == []


def ask(router: ProviderRouter, request: ChatRequest, clock: SlowClock, times: int) -> list[str]:
    answered = []
    for _ in range(times):
        clock.advance(0.1)
        answered.append(router.execute_with_fallback(request).provider)
    return answered


def test_an_outlier_is_preferred_last_and_comes_back(
    router: MakeRouter, clock: SlowClock, request_: ChatRequest
) -> None:
    made = router(NEVER_OPEN, a=0.1, b=0.1, c=0.1)
    made.get_provider("c").script = [0.9]
    ask(made, request_, clock, 60)
    assert made.health()["c"]["ejected"] > 0
    assert set(ask(made, request_, clock, 50)) == {"a", "b"}
    made.get_provider("c").script = [0.1]
    clock.advance(40)
    assert "c" in ask(made, request_, clock, 30)


def test_never_is_more_than_half_of_the_pool_out(router: MakeRouter, clock: SlowClock, request_: ChatRequest) -> None:
    error = RateLimitError("429", retry_after=0.0)  # never opens a circuit
    made = router({**NEVER_OPEN, "max_attempts": 6}, a=0.1, b=0.1, c=error, d=error, e=error)
    for _ in range(30):
        ask(made, request_, clock, 20)
        out = [name for name, health in made.health().items() if health["ejected"] > 0]
        assert len(out) <= 2
    assert out


def test_an_outlier_serves_when_nobody_else_can(router: MakeRouter, clock: SlowClock, request_: ChatRequest) -> None:
    made = router(NEVER_OPEN, a=0.1, b=0.1)
    made.get_provider("b").script = [0.9]
    ask(made, request_, clock, 60)
    assert made.health()["b"]["ejected"] > 0
    made.get_provider("a").script = [ServerError("500")]
    assert made.execute_with_fallback(request_).provider == "b"


def test_it_can_be_switched_off(router: MakeRouter, clock: SlowClock, request_: ChatRequest) -> None:
    made = router({**NEVER_OPEN, "outlier_factor": None}, a=0.1, b=0.9)
    ask(made, request_, clock, 60)
    assert made.health()["b"]["ejected"] == 0
