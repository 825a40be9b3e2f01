from __future__ import annotations

import pickle
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Self

import pytest

from perfkit.errors import DeadlineExceeded, RateLimitError, RecursiveCallError
from perfkit.resilience import singleflight
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


class OutOfTimeError(Exception):
    """A limit of the thread that computes."""


def follow_a_failure(error: Exception, *, timeout: float | None = None) -> tuple[SingleFlight[str], object]:
    """Return what a follower gets when the leader fails with `error`: its own result, or the error it sees."""
    flight: SingleFlight[str] = SingleFlight(personal=(OutOfTimeError,))
    started = threading.Event()

    def fail() -> str:
        started.set()
        assert waiting(flight, 1)  # type: ignore[arg-type]
        raise error

    def lead() -> None:
        with pytest.raises(type(error)) as raised:
            flight.run("key", fail)
        assert raised.value is error

    leader = threading.Thread(target=lead)
    leader.start()
    started.wait()
    try:
        return flight, flight.run("key", lambda: "own", timeout=timeout)
    except Exception as seen:
        return flight, seen
    finally:
        leader.join()


def test_a_limit_of_the_leaders_own_makes_a_waiter_take_over() -> None:
    assert follow_a_failure(OutOfTimeError("0.3 s"), timeout=30)[1] == ("own", False)
    assert isinstance(follow_a_failure(LookupError("gone"), timeout=30)[1], LookupError)


def test_who_takes_over_has_only_the_rest_of_his_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 31.0])  # asked, begins to wait, the leader has failed
    monkeypatch.setattr(singleflight, "SYSTEM_CLOCK", SimpleNamespace(now=lambda: next(clock)))
    assert isinstance(follow_a_failure(OutOfTimeError("30 s"), timeout=30)[1], DeadlineExceeded)


class RefusedError(Exception):
    """Made as HTTP clients make theirs: it cannot be copied by its arguments."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(f"{message}: {status}")
        self.status = status


@pytest.mark.parametrize(
    "error",
    [
        RateLimitError("slow down", provider="p", retry_after=7.0),
        RefusedError("refused", status=503),
        FileNotFoundError(2, "missing", "name"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_each_waiter_gets_an_error_of_its_own_that_is_equal(error: Exception) -> None:
    _, seen = follow_a_failure(error)
    assert isinstance(seen, type(error))
    assert seen is not error
    assert seen.__cause__ is error
    assert (str(seen), seen.args, seen.__dict__) == (str(error), error.args, error.__dict__)
    frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert "follow_a_failure" not in frames
    if not isinstance(error, RefusedError):
        assert str(pickle.loads(pickle.dumps(seen))) == str(error)


def test_an_error_that_cannot_be_copied_is_raised_itself() -> None:
    class SingleError(Exception):
        def __new__(cls, *args: object) -> Self:
            if args != ("once",):
                raise TypeError
            return super().__new__(cls, *args)

        def __init__(self, *_: object) -> None:
            super().__init__()

    error = SingleError("once")
    assert follow_a_failure(error)[1] is error
