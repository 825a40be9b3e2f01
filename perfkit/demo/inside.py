"""What perfkit does inside of the process, where no provider is asked: budget, agents, batch, calls measured, stall."""

from __future__ import annotations

import queue
import threading
import timeit
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perfkit.agents import AgentPool, map_bounded
from perfkit.clock import SYSTEM_CLOCK
from perfkit.errors import BudgetExceededError
from perfkit.metrics import PerformanceTracker
from perfkit.profiling import Profiler
from perfkit.tokens import TokenOptimizer
from perfkit.values import ChatRequest, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from perfkit.profiling.frames import Frame

__all__ = ["Inside", "measure"]

_THREADS, _AGENTS = 16, 4
_SECONDS, _HELD = 0.3, 0.002
_LIMIT, _PRICE, _ANSWER, _TRIES = 1.0, 0.01, 1000, 100  # dollars, and tokens of an answer at that price
_ITEMS, _WORKERS = 10_000, 8
_CALLS, _ROUNDS = 200, 20
_SLOW, _STALL = 0.1, 2.0
_MS, _US = 1e3, 1e6
_pause = threading.Event()  # never set


@dataclass(frozen=True, slots=True)
class Inside:
    """One figure: as it is done today, None where it is not, and through perfkit."""

    what: str
    today: str | None
    perfkit: str


def measure() -> list[Inside]:
    """Measure all of it, within two seconds."""
    return [_budget(), *_agents(), _batch(), _profile(), _stall()]


def _budget() -> Inside:
    """Spend a budget from many threads: by looking whether something is left and adding afterwards, and by holds."""
    return Inside(f"spent of ${_LIMIT:.2f} by {_THREADS} threads", f"${_by_looking():.2f}", f"${_by_holds():.2f}")


def _by_looking() -> float:
    paid: list[float] = []

    def spend(_: int) -> None:
        if sum(paid) < _LIMIT - _PRICE / 2:
            _pause.wait(_HELD)
            paid.append(_PRICE)

    _from_many_threads(spend)
    return sum(paid)


def _by_holds() -> float:
    paid: list[float] = []
    optimizer = TokenOptimizer(tracker=PerformanceTracker(), prices={"model": {"input": 0, "output": 10}})
    optimizer.set_budget("global", _LIMIT, "total")

    def spend(_: int) -> None:
        for _ in range(_TRIES):
            if sum(paid) > _LIMIT - _PRICE / 2:
                return
            try:
                paid.append(_spent(optimizer))
            except BudgetExceededError:  # others hold what is left, and may spend less of it
                _pause.wait(_HELD)
            else:
                return

    _from_many_threads(spend)
    optimizer.close()
    return sum(paid)


def _from_many_threads(spend: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(_THREADS) as threads:
        list(threads.map(spend, range(2 * round(_LIMIT / _PRICE))))


def _spent(optimizer: TokenOptimizer) -> float:
    """Do what a call does that says nothing of its length: what is left bounds it."""
    admission = optimizer.admit(ChatRequest([{"role": "user", "content": "How are you?"}], "model"), "p")
    _pause.wait(_HELD)
    cost = optimizer.calculate_cost(Usage(0, min(_ANSWER, admission.max_tokens or _ANSWER)), "model") or 0.0
    if admission.hold is not None:
        admission.hold.settle(cost)
    return cost


def _agents() -> list[Inside]:
    """Have more threads than there are agents borrow one again and again."""
    today, perfkit = _served(_line_of_queue()), _served(_line_of_pool())
    whom = f"of {_THREADS} threads, got one of {_AGENTS} agents"
    return [
        Inside(whom, str(today[0]), str(perfkit[0])),
        Inside("longest wait for an agent, ms", f"{today[1] * _MS:.0f}", f"{perfkit[1] * _MS:.0f}"),
    ]


def _line_of_queue() -> Callable[[], AbstractContextManager[Any]]:
    agents: queue.LifoQueue[object] = queue.LifoQueue()
    for _ in range(_AGENTS):
        agents.put(object())

    @contextmanager
    def lent() -> Iterator[object]:
        agent = agents.get(timeout=_SECONDS)
        try:
            yield agent
        finally:
            agents.put(agent)

    return lent


def _line_of_pool() -> Callable[[], AbstractContextManager[Any]]:
    pool = AgentPool()
    pool.register("agent", object, size=_AGENTS)
    return lambda: pool.get_agent("agent")


def _served(lent: Callable[[], AbstractContextManager[Any]]) -> tuple[int, float]:
    """Return how many threads were lent one at all, and the longest that one waited, seconds."""
    together = threading.Barrier(_THREADS)

    def borrow(_: int) -> tuple[bool, float]:
        served, longest = False, 0.0
        together.wait()
        end = SYSTEM_CLOCK.now() + _SECONDS
        while (asked := SYSTEM_CLOCK.now()) < end:
            try:
                with lent():
                    served, longest = True, max(longest, SYSTEM_CLOCK.now() - asked)
                    _pause.wait(_HELD)
            except queue.Empty:
                longest = max(longest, SYSTEM_CLOCK.now() - asked)
        return served, longest

    with ThreadPoolExecutor(_THREADS) as threads:
        seen = list(threads.map(borrow, range(_THREADS)))
    return sum(served for served, _ in seen), max(longest for _, longest in seen)


def _batch() -> Inside:
    def today() -> None:
        with ThreadPoolExecutor(_WORKERS) as threads:
            for _ in threads.map(int, range(_ITEMS)):
                pass

    def perfkit() -> None:
        for _ in map_bounded(int, range(_ITEMS), _WORKERS):
            pass

    each = [f"{timeit.timeit(way, number=1) / _ITEMS * _US:.1f}" for way in (today, perfkit)]
    return Inside(f"an item of a batch of {_ITEMS:,}, us", *each)


def _profile() -> Inside:
    profiler = Profiler(tracker=PerformanceTracker(), slow_capture="off")
    bare, measured = (
        min(timeit.repeat(call, number=_CALLS, repeat=_ROUNDS)) / _CALLS
        for call in (int, profiler.profile("call")(int))
    )
    profiler.close()
    return Inside("added by @profile to a call, us", None, f"{(measured - bare) * _US:.1f}")


def _stall() -> Inside:
    """Stall until that is noticed, and tell when it was, and where it was said to be."""
    profiler = Profiler(tracker=PerformanceTracker(), slow_capture="on", slow_threshold=_SLOW)
    with profiler.profile("request"):
        end = SYSTEM_CLOCK.now() + _STALL
        while not profiler.slow_captures() and SYSTEM_CLOCK.now() < end:
            _pause.wait(_SLOW / 10)
    captures = [capture for slow in profiler.slow_captures() for capture in slow.captures]
    profiler.close()
    seen = [f"{one.age * _MS:.0f} ms, in {frame.function}()" for one in captures for frame in one.stack if _own(frame)]
    return Inside(f"a request slower than {_SLOW * _MS:.0f} ms, caught at", None, seen[0] if seen else "not caught")


def _own(frame: Frame) -> bool:
    return frame.function == _stall.__name__
