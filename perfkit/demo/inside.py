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
_LIMIT, _ANSWER = 1.0, 1000  # dollars, and tokens that cost a hundredth of them
_ITEMS, _WORKERS = 10_000, 8
_CALLS, _ROUNDS = 200, 20
_SLOW, _STALL = 0.1, 2.0
_MS, _US = 1e3, 1e6


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
    optimizer = TokenOptimizer(tracker=PerformanceTracker(), prices={"model": {"input": 0, "output": 10}})
    optimizer.set_budget("global", _LIMIT, "total")
    asked, price = ChatRequest([{"role": "user", "content": "How are you?"}], "model"), _LIMIT / 100
    today: list[float] = []
    perfkit: list[float] = []

    def look_first() -> bool:
        left = sum(today) < _LIMIT - price / 2
        if left:
            pause.wait(_HELD)
            today.append(price)
        return left

    def hold() -> bool:
        try:
            admission = optimizer.admit(asked, "p")
        except BudgetExceededError:
            return False
        pause.wait(_HELD)
        cost = optimizer.calculate_cost(Usage(0, min(_ANSWER, admission.max_tokens or _ANSWER)), "model")
        if admission.hold is not None:
            admission.hold.settle(cost)
        perfkit.append(cost or 0.0)
        return True

    pause = threading.Event()
    for call in (look_first, hold):
        with ThreadPoolExecutor(_THREADS) as threads:
            for _ in threads.map(lambda _, call=call: call(), range(2 * round(_LIMIT / price))):
                pass
    optimizer.close()
    return Inside(f"spent of ${_LIMIT:.2f} by {_THREADS} threads", f"${sum(today):.2f}", f"${sum(perfkit):.2f}")


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
    together, pause = threading.Barrier(_THREADS), threading.Event()

    def borrow(_: int) -> tuple[bool, float]:
        served, longest = False, 0.0
        together.wait()
        end = SYSTEM_CLOCK.now() + _SECONDS
        while (asked := SYSTEM_CLOCK.now()) < end:
            try:
                with lent():
                    served, longest = True, max(longest, SYSTEM_CLOCK.now() - asked)
                    pause.wait(_HELD)
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
        end, pause = SYSTEM_CLOCK.now() + _STALL, threading.Event()
        while not profiler.slow_captures() and SYSTEM_CLOCK.now() < end:
            pause.wait(_SLOW / 10)
    captures = [capture for slow in profiler.slow_captures() for capture in slow.captures]
    profiler.close()
    seen = [f"{one.age * _MS:.0f} ms, in {frame.function}()" for one in captures for frame in one.stack if _own(frame)]
    return Inside(f"a request slower than {_SLOW * _MS:.0f} ms, caught at", None, seen[0] if seen else "not caught")


def _own(frame: Frame) -> bool:
    return frame.function == _stall.__name__
