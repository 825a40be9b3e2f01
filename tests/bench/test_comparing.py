from __future__ import annotations

import random
from typing import Any

import pytest

from perfkit.bench import compare
from perfkit.bench.comparing import Bound
from perfkit.errors import ConfigError


def row(times: list[float], **more: Any) -> dict[str, Any]:
    samples = [{"latency_ms": t, "first_token_ms": t / 2, "per_token_ms": None, "error": None} for t in times]
    return {
        "provider": "p",
        "model": "m",
        "prompts": "default",
        "concurrency": 1,
        "rate": None,
        "samples": samples,
    } | more


def drawn(mean: float, seed: int) -> list[float]:
    chance = random.Random(seed)
    return [chance.gauss(mean, mean / 10) for _ in range(100)]


@pytest.mark.parametrize(("factor", "verdict"), [(1.2, "slower"), (0.8, "faster")])
def test_a_difference_is_found_with_its_interval(factor: float, verdict: str) -> None:
    found = compare([row(drawn(100, 1))], [row(drawn(100 * factor, 2))])
    assert [(one.key, one.verdict) for one in found] == [("latency_ms", verdict), ("first_token_ms", verdict)]
    assert found[0].low < found[0].ratio < found[0].high
    assert found[0].ratio == pytest.approx(factor, rel=0.05)


def test_noise_is_no_difference() -> None:
    verdicts = [compare([row(drawn(100, n))], [row(drawn(100, n + 500))])[0].verdict for n in range(8)]
    assert verdicts.count("same") >= 6


def test_only_what_both_measured_is_compared_and_errors_have_no_times() -> None:
    other = row([1.0], concurrency=8)
    assert compare([row([1.0])], [other]) == []
    failed = row([1.0])
    failed["samples"][0]["error"] = "429"
    assert compare([row([1.0])], [failed]) == []


def test_the_same_seed_gives_the_same_interval() -> None:
    before, after = [row(drawn(100, 1))], [row(drawn(101, 2))]
    assert compare(before, after, seed=7) == compare(before, after, seed=7)


def test_bounds_are_read_and_kept_or_not() -> None:
    bound = Bound.parse(" p95_latency_ms <= 800.5 ")
    assert str(bound) == "p95_latency_ms<=800.5"
    assert bound.holds({"p95_latency_ms": 800.5})
    assert not bound.holds({"p95_latency_ms": 801})
    assert not bound.holds({"p95_latency_ms": None})
    assert not Bound.parse("goodput>3").holds({"goodput": 3})


@pytest.mark.parametrize("text", ["", "p95", "p95<=", "p95<=x", "p95==3", "p95<=1;rm", "p95_latency<=٣"])
def test_what_is_no_bound_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no bound"):
        Bound.parse(text)


def test_a_misspelt_figure_is_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'p95_latency_ms'"):
        Bound.parse("p95_latencyms<=1", ["p95_latency_ms", "errors"])
