from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import perfkit
from perfkit import DeadlineExceeded, FakeClock
from perfkit.pipeline.scoping import current_scope, entered, left, narrowed
from perfkit.testing import FaultServer
from perfkit.values import ChatRequest


def configure(fault: FaultServer) -> None:
    perfkit.configure(providers={"fake": {"kind": "openai", "base_url": fault.base_url, "api_key": "k"}})


def test_answers_inside_belong_to_the_user_of_the_scope(fault: FaultServer) -> None:
    configure(fault)
    same = {"model": "m", "temperature": 0}
    with perfkit.scope(user="ann"):
        perfkit.chat("what is my balance", **same)  # type: ignore[arg-type]
        assert perfkit.chat("what is my balance", **same).cached == "exact"  # type: ignore[arg-type]
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


@pytest.mark.parametrize(
    ("given", "error"),
    [({"user": 7}, TypeError), ({"timeout": 0}, ValueError), ({"timeout": float("nan")}, ValueError)],
)
def test_bad_scopes_are_refused(given: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error), perfkit.scope(**given):  # type: ignore[arg-type]
        pass
