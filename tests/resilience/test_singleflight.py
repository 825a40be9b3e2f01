from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from perfkit.errors import DeadlineExceeded, RecursiveCallError
from perfkit.resilience.singleflight import SingleFlight


def waiting(flight: SingleFlight[object], number: int) -> bool:
    """Wait until `number` threads wait for another one's result."""
    for _ in range(10_000):
        if len(flight._waiting) >= number:
            return True
        threading.Event().wait(0.001)
    return False


def crowd(flight: SingleFlight[object], compute: object, threads: int = 64) -> list[object]:
    """Let `threads` ask for one key at once; the one who computes waits until all others queue."""
    calls = []

    def slow() -> object:
        calls.append(1)
        assert waiting(flight, threads - 1)
        return compute()  # type: ignore[operator]

    def ask(_: int) -> object:
        try:
            return flight.run("key", slow)[0]
        except Exception as error:
            return error

    with ThreadPoolExecutor(threads) as pool:
        answers = list(pool.map(ask, range(threads)))
    assert len(calls) == 1
    return answers


def test_one_of_64_threads_computes_and_all_get_its_result() -> None:
    result = object()
    assert set(map(id, crowd(SingleFlight(), lambda: result))) == {id(result)}


def test_an_error_is_shared_with_those_waiting_and_not_kept() -> None:
    flight: SingleFlight[object] = SingleFlight()

    def fail() -> object:
        raise LookupError("upstream")

    answers = crowd(flight, fail)
    assert {type(answer) for answer in answers} == {LookupError}
    assert flight.run("key", lambda: "again") == ("again", False)


def test_a_waiter_honours_its_own_deadline() -> None:
    flight: SingleFlight[str] = SingleFlight()
    go, started = threading.Event(), threading.Event()

    def slow() -> str:
        started.set()
        go.wait()
        return "late"

    leader = threading.Thread(target=flight.run, args=("key", slow))
    leader.start()
    started.wait()
    with pytest.raises(DeadlineExceeded):
        flight.run("key", slow, timeout=0.01)
    go.set()
    leader.join()
    assert flight._waiting == {}


def test_a_computation_that_asks_for_itself_gets_an_error_not_a_deadlock() -> None:
    flight: SingleFlight[str] = SingleFlight()
    with pytest.raises(RecursiveCallError, match="own result"):
        flight.run("key", lambda: flight.run("key", lambda: "never")[0])
    assert flight.run("key", lambda: "fine") == ("fine", False)


def test_a_circle_through_two_threads_is_found() -> None:
    flight: SingleFlight[str] = SingleFlight()
    both = threading.Barrier(2)

    def ask(first: str, second: str) -> str:
        def outer() -> str:
            both.wait()
            return flight.run(second, lambda: "inner")[0]

        try:
            return flight.run(first, outer)[0]
        except RecursiveCallError:
            return "circle"

    with ThreadPoolExecutor(2) as pool:
        answers = [f.result(10) for f in (pool.submit(ask, "a", "b"), pool.submit(ask, "b", "a"))]
    assert "circle" in answers


def test_when_the_computing_thread_is_torn_away_a_waiter_takes_over() -> None:
    flight: SingleFlight[str] = SingleFlight()
    started = threading.Event()

    def torn() -> str:
        started.set()
        assert waiting(flight, 1)  # type: ignore[arg-type]
        raise SystemExit

    def lead() -> None:
        with pytest.raises(SystemExit):
            flight.run("key", torn)

    leader = threading.Thread(target=lead)
    leader.start()
    started.wait()
    assert flight.run("key", lambda: "taken over") == ("taken over", False)
    leader.join()


def test_after_a_fork_nobody_waits_for_the_parents_threads() -> None:
    flight: SingleFlight[str] = SingleFlight()
    flight._flights["key"] = object()  # type: ignore[assignment]
    flight._after_fork()
    assert flight.run("key", lambda: "mine") == ("mine", False)
