"""What a router knows of its providers: information, cost, who is best, warm-up and validation."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import perfkit
from perfkit.errors import AuthenticationError, NoAvailableProviderError, UnknownModelError, UnknownNameError
from perfkit.metrics import PerformanceTracker
from perfkit.providers import Provider, create_provider
from perfkit.routing import ProviderRouter
from perfkit.testing import FakeClock, FaultServer, faults
from perfkit.transport import ConnectionPool
from perfkit.values import ChatRequest, ChatResponse, Usage


class Slow(Provider):
    """Answers after `seconds` of a fake clock."""

    def __init__(self, name: str, models: Any, clock: FakeClock, seconds: float) -> None:
        super().__init__(name, models=models)
        self.clock, self.seconds = clock, seconds

    def chat_completion(self, request: ChatRequest) -> ChatResponse:
        self.clock.sleep(self.seconds)
        return ChatResponse("x", Usage(1, 1), request.model, self.name)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def router(clock: FakeClock) -> ProviderRouter:
    made = ProviderRouter(clock=clock, tracker=PerformanceTracker())
    models = {"openai": "gpt-4o-mini", "anthropic": "claude-opus-4-8", "groq": "llama-3.1-8b"}
    for name, model in models.items():
        made.register_provider(name, Slow(name, {"default": model, model: model}, clock, 0.2))
    return made


def test_information_about_a_provider(router: ProviderRouter) -> None:
    info = router.get_provider_info("openai")
    assert info["cost_per_1k"] == pytest.approx((0.15 * 750 + 0.60 * 250) / 1e6)
    assert (info["name"], info["kind"], info["model"]) == ("openai", "Slow", "gpt-4o-mini")
    assert info["models"] == ["default", "gpt-4o-mini"]
    assert (info["status"], info["measured"], info["quality"]) == ("healthy", False, 0.75)
    with pytest.raises(UnknownNameError, match="no provider 'nobody'; known: anthropic"):
        router.get_provider_info("nobody")


def test_the_documented_loop_over_costs_prints(router: ProviderRouter) -> None:
    told = [f"{p}: ${router.get_provider_info(p)['cost_per_1k']:.4f} per 1K tokens" for p in ("openai", "anthropic")]
    assert told[0] == "openai: $0.0003 per 1K tokens"


def test_the_cost_of_a_request(router: ProviderRouter) -> None:
    dollars = pytest.approx((0.15 * 1000 + 0.60 * 500) / 1e6)
    assert router.get_request_cost("openai", Usage(1000, 500)) == dollars
    assert router.get_request_cost("openai", {"input_tokens": 1000, "output_tokens": 500}) == dollars
    assert router.get_request_cost("openai", {"prompt_tokens": 1000, "completion_tokens": 500}) == dollars
    assert router.get_request_cost("groq", Usage(1, 1), "no such model") is None


def test_who_is_best_at_what(router: ProviderRouter) -> None:
    assert router.best_quality_provider() == "anthropic"
    assert router.cheapest_provider("default") in {"openai", "groq"}
    assert router.fastest_provider() in {"groq", "openai"}
    with pytest.raises(UnknownModelError):
        router.cheapest_provider("no such model")


def test_what_was_measured_decides_who_is_fastest(router: ProviderRouter, clock: FakeClock) -> None:
    for name, seconds in (("openai", 3.0), ("anthropic", 0.01), ("groq", 3.0)):
        router.get_provider(name).seconds = seconds
        router.execute_with_fallback(ChatRequest("hi", "default"), provider=name)
    assert router.fastest_provider() == "anthropic"
    assert router.get_provider_info("anthropic")["measured"]


def test_a_provider_that_cannot_be_used_is_not_the_best(router: ProviderRouter) -> None:
    def broken(request: ChatRequest) -> ChatResponse:
        raise AuthenticationError("no")

    router.get_provider("anthropic").chat_completion = broken
    with pytest.raises(AuthenticationError):
        router.execute_with_fallback(ChatRequest("hi", "default"), provider="anthropic")
    assert router.best_quality_provider() != "anthropic"
    with pytest.raises(NoAvailableProviderError):
        router.best_quality_provider("claude-opus-4-8")
    assert router.select_model(max_latency=10.0)[0] != "anthropic"


def test_a_model_is_selected_by_constraints(router: ProviderRouter) -> None:
    assert router.select_model(min_quality=0.9, max_latency=5.0)[0] == "anthropic"
    with pytest.raises(NoAvailableProviderError, match=r"max_latency=0\.001 keeps them out"):
        router.select_model(max_latency=0.001)


def test_without_a_constraint_the_configured_default_is_taken_and_never_another(router: ProviderRouter) -> None:
    with pytest.raises(UnknownModelError, match="default_model"):
        router.select_model()
    assert router.select_model(default="gpt-4o-mini") == ("openai", "gpt-4o-mini")
    perfkit.configure(client={"default_model": "claude-opus-4-8"})
    assert router.select_model() == ("anthropic", "claude-opus-4-8")


# --- warm-up and validation, over the wire ----------------------------------------------------------------------------


@pytest.fixture
def wired(fault: FaultServer) -> Any:
    pool = ConnectionPool()
    router = ProviderRouter(tracker=PerformanceTracker())
    for name, base_url in (("good", fault.base_url), ("gone", "http://127.0.0.1:9/v1")):
        provider = create_provider(
            "openai", name=name, base_url=base_url, api_key="k" * 20, connections=pool, models=["m"]
        )
        router.register_provider(name, provider)
    yield router
    pool.close()


def test_warm_up_opens_connections_and_tells_of_each_provider(wired: ProviderRouter, fault: FaultServer) -> None:
    before = fault.counters()["connections"]
    outcomes = wired.warm_up(2)
    assert outcomes["good"]
    assert outcomes["good"].connections == 2
    assert fault.counters()["connections"] - before == 2
    assert fault.counters()["requests"] == 0
    assert not outcomes["gone"]
    assert "0 of 2 connections" in str(outcomes["gone"].error)


def test_warm_up_with_a_request_asks_for_one_token(wired: ProviderRouter, fault: FaultServer) -> None:
    assert wired.warm_up(request=True)["good"].ok
    sent = fault.stats()["recent"]
    assert len(sent) == 1
    assert '"max_tokens":1' in sent[0]["body"]


def test_validation_names_the_variable_of_a_wrong_key(wired: ProviderRouter, fault: FaultServer) -> None:
    fault.behave(faults.unauthorized())
    outcome = wired.validate_providers(timeout=2)["good"]
    assert isinstance(outcome.error, AuthenticationError)
    assert "OPENAI_API_KEY" in str(outcome.error)


def test_providers_are_looked_at_at_the_same_time() -> None:
    barrier = threading.Barrier(3, timeout=10)

    class Meeting(Provider):
        def chat_completion(self, request: ChatRequest) -> ChatResponse:
            raise AssertionError

        def validate(self, timeout: float = 10.0) -> None:
            barrier.wait()

    router = ProviderRouter(tracker=PerformanceTracker())
    for name in "abc":
        router.register_provider(name, Meeting(name))
    assert all(router.validate_providers().values())


def test_nobody_to_warm_up_is_nobody() -> None:
    assert ProviderRouter().warm_up() == {}


def test_metrics_of_all_and_of_each(fault: FaultServer) -> None:
    perfkit.configure(
        providers={"one": {"kind": "openai", "base_url": fault.base_url, "api_key": "k", "models": ["a"]}},
        tokens={"prices": {"a": {"input": 1e6, "output": 0.0}}},
    )
    assert perfkit.router.metrics() == {
        "requests": 0, "avg_latency": None, "success_rate": None, "total_cost": None, "providers": {},
    }  # fmt: skip
    cost = sum(perfkit.chat(f"q {n}", model="a").cost or 0.0 for n in range(3))
    fault.behave(faults.status(401))
    with pytest.raises(perfkit.PerfkitError):
        perfkit.chat("wrong", model="a")
    told = perfkit.router.metrics()
    assert (told["requests"], told["success_rate"], told["total_cost"]) == (4, 0.75, cost)
    assert told["avg_latency"] == pytest.approx(perfkit.tracker.get_stats("provider_latency")["avg"])
    assert told["providers"]["one"] == {key: told[key] for key in told if key != "providers"}
