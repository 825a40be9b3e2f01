from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import perfkit
from perfkit import BudgetExceededError, DeadlineExceeded, FakeClock
from perfkit.pipeline.scoping import current_scope, entered, left, narrowed
from perfkit.testing import FaultServer, faults
from perfkit.values import ChatRequest


def configure(fault: FaultServer) -> None:
    perfkit.configure(providers={"fake": {"kind": "openai", "base_url": fault.base_url, "api_key": "k"}})


def test_answers_inside_belong_to_the_user_of_the_scope(fault: FaultServer) -> None:
    configure(fault)
    same = {"model": "m", "temperature": 0}
    with perfkit.scope(user="ann"):
        perfkit.chat("what is my balance", **same)  # type: ignore[arg-type]
        assert perfkit.chat("what is my balance", **same).cached == "exact"  # type: ignore[arg-type]
    number: Any = 42  # as databases count users
    with perfkit.scope(user=lambda: number), pytest.raises(TypeError, match="user must be a string, not 42"):
        perfkit.chat("My name?", model="m", temperature=0)
    with perfkit.scope(user=lambda: "bob"):
        assert perfkit.chat("what is my balance", **same).cached is None  # type: ignore[arg-type]
        assert perfkit.chat("what is my balance", user="ann", **same).cached == "exact"  # type: ignore[arg-type]
    assert fault.stats()["requests"] == 2


def test_calls_get_what_is_left_and_none_is_made_after_the_deadline() -> None:
    clock = FakeClock()
    with perfkit.scope(timeout=10, clock=clock), perfkit.scope(timeout=20, clock=clock) as inner:
        clock.advance(4)
        request = ChatRequest([{"role": "user", "content": "hi"}], "m")
        assert inner.applied(request, clock.now(), 30.0).timeout == 6
        assert inner.applied(request, clock.now(), 5.0).timeout == 5
        assert inner.applied(request.evolve(timeout=2), clock.now(), 30.0).timeout == 2
        clock.advance(6)
        with pytest.raises(DeadlineExceeded, match="ran out") as caught:
            inner.applied(request, clock.now(), 30.0)
        assert caught.value.sent is False


def test_nothing_is_sent_after_the_deadline(fault: FaultServer) -> None:
    configure(fault)
    with perfkit.scope(timeout=1e-9), pytest.raises(DeadlineExceeded):
        perfkit.chat("hi", model="m")
    with perfkit.scope(timeout=1e-9), pytest.raises(DeadlineExceeded):
        perfkit.stream("hi", model="m")
    assert fault.stats()["requests"] == 0


def test_a_batch_belongs_to_the_scope_it_is_made_in(fault: FaultServer) -> None:
    configure(fault)
    with perfkit.scope(user="ann"):
        perfkit.batch([{"messages": f"q {n}", "model": "m"} for n in range(4)])
    report = perfkit.optimizer.get_usage_report(group_by=("user",))
    assert set(report) == {"ann"}


def test_threads_have_scopes_of_their_own() -> None:
    barrier = threading.Barrier(8)

    def inside(number: int) -> bool:
        with perfkit.scope(user=str(number)) as mine:
            barrier.wait(10)
            return current_scope() is mine

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(inside, range(8)))
    assert current_scope() is None


def test_a_request_that_ends_in_another_context_leaves_no_scope() -> None:
    tokens = []
    thread = threading.Thread(target=lambda: tokens.append(entered(narrowed("ann"))))
    thread.start()
    thread.join()
    outer = entered(narrowed("bob"))
    left(tokens[0])
    assert current_scope() is None
    left(outer)


PRICED = {"m": {"input": 0.0, "output": 1000.0}}  # 0.001 dollars a token


def test_calls_of_a_scope_share_its_budget_in_all_threads(fault: FaultServer) -> None:
    configure(fault)
    perfkit.configure(tokens={"prices": PRICED})
    fault.behave(*[faults.ok("text", usage={"completion_tokens": 20})] * 4)
    with perfkit.scope(budget=0.1, request="r-1"):
        assert perfkit.chat("first", model="m").cost == 0.02
        assert "".join(perfkit.stream("second", model="m"))
        with perfkit.scope(budget=5.0):
            perfkit.batch([{"messages": f"q {n}", "model": "m", "max_tokens": 30} for n in range(2)])
        with pytest.raises(BudgetExceededError, match=r"request 'r-1'.*lower max_tokens") as refused:
            perfkit.chat("too much", model="m", max_tokens=21)
    assert refused.value.scope == ("request", "r-1")
    assert refused.value.spent == pytest.approx(0.08)
    assert fault.stats()["requests"] == 4
    bounds = [json.loads(request["body"]).get("max_tokens") for request in fault.stats()["recent"]]
    assert bounds[:2] == [pytest.approx(100, abs=1), pytest.approx(80, abs=1)]
    perfkit.chat("outside", model="m", max_tokens=21)


def test_calls_of_a_scope_wait_for_each_others_money_but_not_for_their_own(fault: FaultServer) -> None:
    configure(fault)
    perfkit.configure(tokens={"prices": PRICED})
    fault.behave(*[faults.ok("some text", usage={"completion_tokens": 20}, delay=0.02)] * 5)
    with perfkit.scope(budget=0.1):
        answers = perfkit.batch([{"messages": f"q {n}", "model": "m"} for n in range(4)], max_concurrent=4)
        assert [answer.cost for answer in answers] == [0.02] * 4
        assert fault.counters()["peak_in_flight"] == 1  # each holds all that is left
        with perfkit.stream("open", model="m") as stream:
            next(iter(stream))
            with pytest.raises(BudgetExceededError):  # it would wait for itself
                perfkit.chat("meanwhile", model="m", timeout=20)


def test_what_the_cache_answers_costs_the_budget_nothing(fault: FaultServer) -> None:
    configure(fault)
    perfkit.configure(tokens={"prices": PRICED})
    perfkit.chat("what is a queue", model="m", temperature=0)
    with perfkit.scope(budget=0.0):
        assert perfkit.chat("what is a queue", model="m", temperature=0).cached == "exact"
        with pytest.raises(BudgetExceededError):
            perfkit.chat("what is a stack", model="m", temperature=0)


def test_answers_and_budgets_inside_are_those_of_the_tenant(fault: FaultServer) -> None:
    configure(fault)
    perfkit.configure(tokens={"prices": PRICED})
    perfkit.optimizer.set_budget(("tenant", "acme"), 0.0, "day")
    same: dict[str, Any] = {"model": "m", "temperature": 0, "max_tokens": 9}
    with perfkit.scope(tenant="other"):
        assert [perfkit.chat("what is a queue", **same).cached for _ in range(2)] == [None, "exact"]
    with perfkit.scope(tenant="acme"), pytest.raises(BudgetExceededError) as refused:
        perfkit.chat("what is a queue", **same)
    assert refused.value.scope == ("tenant", "acme")


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"user": 7}, TypeError),
        ({"tenant": 7}, TypeError),
        ({"budget": -1}, ValueError),
        ({"timeout": 0}, ValueError),
        ({"timeout": float("nan")}, ValueError),
    ],
)
def test_bad_scopes_are_refused(given: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error), perfkit.scope(**given):  # type: ignore[arg-type]
        pass
