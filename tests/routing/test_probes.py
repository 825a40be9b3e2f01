from __future__ import annotations

import gc
import itertools
import threading
from typing import TYPE_CHECKING, Any

import pytest
from _servers import polled

from perfkit.errors import ServerError
from perfkit.metrics import PerformanceTracker
from perfkit.providers import create_provider
from perfkit.routing import ProviderRouter
from perfkit.routing.probes import worker
from perfkit.testing.faults import FaultServer, server_error
from perfkit.values import ChatRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from routing.conftest import SlowClock

    MakeRouter = Callable[..., ProviderRouter]

HELLO: Any = "hello"  # one user message


def broken(made: ProviderRouter, request: ChatRequest) -> list[float]:
    """Open the circuit of a, and return where the checks of it are noted."""
    asked: list[float] = []
    made.get_provider("a").list_models = lambda: asked.append(made._clock.now())
    for _ in range(5):
        made.execute_with_fallback(request)
    assert made.health()["a"]["state"] == "open"
    return asked


def look_for(made: ProviderRouter, clock: SlowClock, seconds: int) -> None:
    for _ in range(seconds * 4):
        clock.advance(0.25)
        made._prober.look()


def test_a_provider_that_is_back_gets_its_probe_long_before_the_circuit_would_let_it(
    router: MakeRouter, clock: SlowClock, request_: ChatRequest
) -> None:
    made = router(a=ServerError("500"), b=0.0)
    asked = broken(made, request_)
    made.get_provider("a").script = [0.0]
    look_for(made, clock, 7)
    assert len(asked) == 1
    assert made.execute_with_fallback(request_).provider == "a"
    assert made.health()["a"]["state"] == "closed"


def test_one_that_does_not_answer_stays_out(router: MakeRouter, clock: SlowClock, request_: ChatRequest) -> None:
    made = router(a=ServerError("500"), b=0.0)
    broken(made, request_)
    made.get_provider("a").list_models = lambda timeout: 1 / 0
    look_for(made, clock, 50)
    assert made.execute_with_fallback(request_).provider == "b"
    assert made.get_provider("a").calls == 5


def test_checks_have_jitter_and_become_rarer_while_real_calls_still_fail(
    router: MakeRouter, clock: SlowClock, request_: ChatRequest
) -> None:
    made = router(a=ServerError("500"), b=0.0)
    asked = broken(made, request_)
    for _ in range(1200):
        look_for(made, clock, 1)
        assert made.execute_with_fallback(request_).provider == "b"
    gaps = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert len({round(gap, 2) for gap in gaps}) > 3
    assert 10 <= len(asked) <= 40  # at most one a minute in the end
    assert made.get_provider("a").calls <= 5 + len(asked) + 6


def test_it_can_be_switched_off_and_needs_list_models(
    router: MakeRouter, clock: SlowClock, request_: ChatRequest
) -> None:
    made = router({"probe_interval": None}, a=ServerError("500"), b=0.0)
    asked = broken(made, request_)
    look_for(made, clock, 50)
    assert asked == []
    made = router(a=ServerError("500"), b=0.0)
    for _ in range(5):
        made.execute_with_fallback(request_)
    made._prober.look()


def test_the_thread_lives_only_while_something_is_broken(fault: FaultServer) -> None:
    def names() -> list[str]:
        return [thread.name for thread in threading.enumerate()]

    router = ProviderRouter(failure_threshold=1, probe_interval=0.05, tracker=PerformanceTracker())
    router.register_provider("p", create_provider("openai", name="p", base_url=fault.base_url, api_key="k"))
    gc.collect()  # the routers of earlier tests
    polled(lambda: worker._thread is None)
    fault.behave(server_error(), path="*/chat/completions")
    with pytest.raises(ServerError):
        router.execute_with_fallback(ChatRequest(HELLO, "m", timeout=5), 1)
    assert "perfkit-probes" in names()
    fault.behave(path="*/chat/completions")
    fault.wait_until(lambda seen: seen["paths"].get("/v1/models", 0) >= 1)
    polled(lambda: router._candidates["p"].breaker.ready(router._clock.now()))
    assert router.execute_with_fallback(ChatRequest(HELLO, "m", timeout=5)).text
    polled(lambda: "perfkit-probes" not in names())
