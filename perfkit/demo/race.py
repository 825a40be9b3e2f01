"""The race: the same calls each way on the same stage, and what is told of each as a row of the table."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from perfkit.agents import Result, map_bounded
from perfkit.clock import SYSTEM_CLOCK
from perfkit.demo.ways import Perfkit, Setting, Today, Way
from perfkit.memory import GCOptimizer
from perfkit.metrics import PerformanceTracker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from perfkit.demo.ways import Answer
    from perfkit.demo.workload import Call

__all__ = ["MS", "WAYS", "Row", "Stage", "compare"]

MS = 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What became of the workload one way. Latencies are milliseconds of answered calls, costs US dollars.

    Attributes:
        failures: calls the caller saw fail, by kind.
        resumed: streams that another provider went on with after their first words.
        first_failure: what the first of them said.
        p50_ms: None when nothing was answered, like the other percentiles and `first_token_p50_ms`.
        per_second: answered calls.
        recorded: answered calls that the way's own metrics have timed, and `recorded_p95_ms` by them; None without any.
        garbage_ms: for which all threads stood still, together, for garbage collections; `garbage_longest_ms` for one.
        connections: opened, as whoever counted saw it; None when nobody did, like `tls_handshakes` and `requests`.
        tokens_in: prompt tokens sent; answers from the cache send none.
        cost: None when the price of the model is unknown, like `saved`: what answers from the cache would have cost.
    """

    name: str
    calls: int
    answered: int
    failures: dict[str, int]
    first_failure: str | None
    resumed: int
    seconds: float
    per_second: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    first_token_p50_ms: float | None
    recorded: int | None = None
    recorded_p95_ms: float | None = None
    garbage_ms: float = 0.0
    garbage_longest_ms: float = 0.0
    connections: int | None = None
    tls_handshakes: int | None = None
    requests: int | None = None
    cache_hits: int
    tokens_in: int
    tokens_out: int
    cost: float | None
    saved: float | None

    @property
    def failed(self) -> int:
        """Calls the caller saw fail."""
        return self.calls - self.answered

    @property
    def cost_per_thousand(self) -> float | None:
        """US dollars for 1,000 answers."""
        return None if self.cost is None or not self.answered else self.cost / self.answered * 1000


class Stage(Protocol):
    """Where the race is run."""

    @property
    def setting(self) -> Setting:
        """What every way is given."""
        ...

    @property
    def kill_first(self) -> Callable[[], None] | None:
        """What happens before the middle call begins, None for nothing."""
        ...

    def restart(self) -> None:
        """Make everything as it was at the beginning, counts at 0."""

    def seen(self) -> dict[str, int]:
        """Return what was counted since, by field of Row."""
        ...


WAYS: dict[str, Callable[[Setting], Way]] = {
    "today": Today,
    "perfkit": lambda setting: Perfkit(setting, cache=True),
    "perfkit, cache off": lambda setting: Perfkit(setting, cache=False),
}


def compare(stage: Stage, calls: Sequence[Call], threads: int, progress: Callable[[str, int], object]) -> Iterator[Row]:
    """Make the same calls each way and yield what became of them.

    Where calls cost nothing, each way makes one before the race, so that what it loads at first counts for none.

    Args:
        stage: made anew for each.
        calls: begun in this order.
        threads: calls at a time.
        progress: told the way and how many of its calls are done.
    """
    if stage.kill_first is not None:
        _warm_up(stage, calls[0])
    for name, way in WAYS.items():
        stage.restart()
        yield _run(name, way(stage.setting), stage, calls, threads, partial(progress, name))


def _warm_up(stage: Stage, call: Call) -> None:
    stage.restart()
    for way in (made(stage.setting) for made in WAYS.values()):
        try:
            way.ask(call)
        finally:
            way.close()


def _run(
    name: str, way: Way, stage: Stage, calls: Sequence[Call], threads: int, progress: Callable[[int], object]
) -> Row:
    items = calls if stage.kill_first is None else _interrupted(calls, stage.kill_first)
    started, garbage = SYSTEM_CLOCK.now(), GCOptimizer(tracker=PerformanceTracker()).monitor_gc_performance()
    try:
        with garbage:
            results = list(map_bounded(way.ask, items, threads, ordered=False, progress=progress))
        seconds, recorded = SYSTEM_CLOCK.now() - started, way.recorded()
    finally:
        way.close()
    count, p95 = recorded if recorded is not None else (None, None)
    timed = {"recorded": count, "recorded_p95_ms": None if p95 is None else round(p95 * MS, 2)}
    stopped = {"garbage_ms": garbage.report.seconds, "garbage_longest_ms": garbage.report.longest}
    timed |= {key: round(each * MS, 2) for key, each in stopped.items()}
    return _row(name, results, seconds, timed | stage.seen())


def _interrupted(calls: Sequence[Call], kill: Callable[[], None]) -> Iterator[Call]:
    """Yield `calls`; the threads queue here while the kill is done, so that no later call begins before it."""
    for number, call in enumerate(calls, 1):
        if number == len(calls) // 2:
            kill()
        yield call


def _row(name: str, results: Sequence[Result[Answer]], seconds: float, counted: dict[str, Any]) -> Row:
    answers = [result.value for result in results if result.value is not None]
    waits = [result.seconds for result in results if result.ok]
    firsts = [answer.first_token for answer in answers if answer.first_token is not None]
    errors = [result.error for result in results if result.error is not None]
    return Row(
        name=name,
        calls=len(results),
        answered=len(answers),
        failures=dict(Counter(map(_kind, errors)).most_common()),
        first_failure=str(errors[0]) if errors else None,
        resumed=sum(answer.resumed for answer in answers),
        seconds=round(seconds, 3),
        per_second=round(len(answers) / seconds, 1),
        p50_ms=_percentile(waits, 50),
        p95_ms=_percentile(waits, 95),
        p99_ms=_percentile(waits, 99),
        first_token_p50_ms=_percentile(firsts, 50),
        cache_hits=sum(answer.cached for answer in answers),
        tokens_in=sum(answer.usage.prompt_tokens for answer in answers),
        tokens_out=sum(answer.usage.completion_tokens for answer in answers),
        cost=_sum([answer.cost for answer in answers]),
        saved=_sum([answer.saved for answer in answers]),
        **counted,
    )


def _sum(dollars: Sequence[float | None]) -> float | None:
    """Return the sum, None where there is nothing or one of them is unknown."""
    known = [amount for amount in dollars if amount is not None]
    return round(sum(known), 9) if known and len(known) == len(dollars) else None


def _percentile(seconds: list[float], percent: int) -> float | None:
    """Return the nearest-rank percentile in milliseconds."""
    if not seconds:
        return None
    return round(sorted(seconds)[math.ceil(percent / 100 * len(seconds)) - 1] * MS, 2)


def _kind(error: Exception) -> str:
    status = getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)
    return type(error).__name__ if status is None else f"{type(error).__name__} {status}"
