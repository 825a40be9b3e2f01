"""Benchmarks: how often to call, and what the times say.

Loops are calibrated as pytest-benchmark and pyperf do, so that the clock's own cost vanishes; outliers are Tukey's, 1.5
times the interquartile range away; warnings are pyperf's (_cli.py): a deviation over 10 % of the mean, or an extreme
beyond half of it. The source's 100 single timings have neither warm-up nor calibration.
"""

from __future__ import annotations

import math
import statistics
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Sample", "described", "measured"]

_LEAST = 1e-4  # seconds of a sample: 2000 times what reading the clock costs
_WARM_UP = 0.1  # seconds of calls that are not counted, at most, and
_FIRST = 3  # calls at least
_UNSTEADY = 0.1  # of the mean
_EXTREME = 0.5


class Sample(NamedTuple):
    """Seconds a call, of wall time and of the thread's CPU."""

    wall: float
    cpu: float


def measured(function: Callable[[], object], iterations: int, threads: int) -> tuple[list[Sample], int, float]:
    """Warm up, find how many calls make a sample, take samples in each thread.

    Returns:
        All samples, the calls in each, and the calls a second of all threads together.
    """
    _warm_up(function)
    loops = _calibrated(function)
    begun: list[float] = []
    barrier = threading.Barrier(threads, lambda: begun.append(time.perf_counter()))
    samples: list[list[Sample]] = [[] for _ in range(threads)]
    errors: list[BaseException] = []

    def work(own: list[Sample]) -> None:
        try:
            barrier.wait()
            own.extend(_sample(function, loops) for _ in range(iterations))
        except BaseException as error:
            errors.append(error)

    if threads == 1:
        work(samples[0])
    else:
        crew = [
            threading.Thread(target=work, args=(own,), name=f"perfkit-benchmark-{n}", daemon=True)
            for n, own in enumerate(samples)
        ]
        for one in crew:
            one.start()
        for one in crew:
            one.join()
    elapsed = time.perf_counter() - begun[0]
    if errors:
        raise errors[0]
    return [one for own in samples for one in own], loops, threads * iterations * loops / elapsed


def _warm_up(function: Callable[[], object]) -> None:
    until = time.perf_counter() + _WARM_UP
    for _ in range(_FIRST):
        function()
        if time.perf_counter() >= until:
            return


def _calibrated(function: Callable[[], object]) -> int:
    """Return how many calls take 0.1 ms."""
    loops = 1
    while (took := _sample(function, loops).wall * loops) < _LEAST:
        loops = max(loops * 2, math.ceil(loops * _LEAST / took) if took > _LEAST / 10 else loops * 8)
    return loops


def _sample(function: Callable[[], object], loops: int) -> Sample:
    rounds = range(loops)
    cpu, wall = time.thread_time(), time.perf_counter()
    for _ in rounds:
        function()
    wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
    return Sample(wall / loops, cpu / loops)


def described(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return the figures of a BenchmarkReport that come from the samples alone."""
    times = sorted(one.wall for one in samples)
    mean, deviation = statistics.fmean(times), statistics.pstdev(times)
    first, third = _rank(times, 25), _rank(times, 75)
    reach = 1.5 * (third - first)
    return {
        "avg_time": mean,
        "min_time": times[0],
        "max_time": times[-1],
        "std_deviation": deviation,
        "percentiles": {f"p{percent}": _rank(times, percent) for percent in (50, 90, 95, 99)},
        "median": statistics.median(times),
        "iqr": third - first,
        "outliers_low": sum(one < first - reach for one in times),
        "outliers_high": sum(one > third + reach for one in times),
        "cpu_time": statistics.fmean(one.cpu for one in samples),
        "warnings": _warnings(mean, deviation, times[0], times[-1]),
    }


def _rank(ordered: Sequence[float], percent: float) -> float:
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def _warnings(mean: float, deviation: float, least: float, most: float) -> tuple[str, ...]:
    found = []
    if deviation > _UNSTEADY * mean:
        found.append(f"the standard deviation is {deviation / mean:.0%} of the mean: something else was running")
    if most > (1 + _EXTREME) * mean:
        found.append(f"the slowest sample took {most / mean:.1f} times the mean")
    if least < (1 - _EXTREME) * mean:
        found.append(f"the fastest sample took {least / mean:.0%} of the mean")
    return tuple(found)
