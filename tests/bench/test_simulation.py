"""The simulator: the router's own code on a jumping clock, and the like of it against real servers."""

from __future__ import annotations

import math
import threading
import time
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from perfkit.bench import Change, Model, Simulation, simulate
from perfkit.bench.report import Outcome, Summary, percentile
from perfkit.metrics import PerformanceTracker
from perfkit.providers import create_provider
from perfkit.routing import ProviderRouter
from perfkit.testing import FaultServer, faults
from perfkit.transport import ConnectionPool
from perfkit.values import ChatRequest

QUIET: dict[str, Any] = {"probe_interval": None, "outlier_factor": None}


def same(name: str, seconds: float, **settings: Any) -> Model:
    return Model(name, median=seconds, p99=seconds, **settings)


def fixed(seconds: float, number: int = 200, every: float = 0.01) -> dict[str, Any]:
    return {"arrivals": [seconds + every * n for n in range(number)], "settings": QUIET}


# --- models -----------------------------------------------------------------------------------------------------------


def test_durations_have_the_median_and_tail_they_should() -> None:
    found = simulate([Model("a", median=0.3, p99=0.9)], ["random"], rate=200.0, seconds=25.0, settings=QUIET)
    summary = found.summary("random")
    assert summary.calls > 4500
    assert summary.p50 == pytest.approx(0.3, rel=0.05)
    assert summary.p99 == pytest.approx(0.9, rel=0.1)


def test_a_call_takes_as_long_at_a_provider_whatever_sent_it_there() -> None:
    models = [Model("a"), Model("b")]
    found = simulate(models, ["random", "weighted"], rate=50.0, seconds=20.0, settings=QUIET)
    first, second = found.outcomes["random"], found.outcomes["weighted"]
    assert [one.began for one in first] == [one.began for one in second]
    shared = [(x, y) for x, y in zip(first, second, strict=True) if x.provider == y.provider]
    assert len(shared) > 300
    assert all(x.seconds == pytest.approx(y.seconds) for x, y in shared)


def test_the_same_seed_is_the_same_day() -> None:
    once, again, other = (
        simulate([Model("a"), Model("b")], ["random"], rate=50.0, seconds=5.0, seed=seed, settings=QUIET).outcomes
        for seed in (1, 1, 2)
    )
    assert once == again != other


def test_slots_make_calls_wait() -> None:
    found = simulate([same("a", 1.0, slots=2)], ["random"], arrivals=[0.0] * 6, settings=QUIET)
    assert sorted(one.seconds for one in found.outcomes["random"]) == pytest.approx([1, 1, 2, 2, 3, 3])


def test_a_change_begins_and_ends() -> None:
    model = same("a", 1.0, changes=[Change(10.0, 5.0, slower=4.0)])
    found = simulate([model], ["random"], arrivals=[9.0, 10.5, 14.9, 15.0], settings=QUIET)
    assert [one.seconds for one in found.outcomes["random"]] == pytest.approx([1, 4, 4, 1])


def test_a_slow_start_is_slow_once() -> None:
    found = simulate([same("a", 1.0, first=3.0)], ["random"], arrivals=[0.0, 5.0], settings=QUIET)
    assert [one.seconds for one in found.outcomes["random"]] == pytest.approx([4, 1])


def test_a_limit_is_a_429_that_the_router_waits_out() -> None:
    found = simulate([same("a", 0.1, rpm=3)], ["random"], arrivals=[0, 1, 2, 3], timeout=100.0, settings=QUIET)
    assert [one.seconds for one in found.outcomes["random"]] == pytest.approx([0.1, 0.1, 0.1, 57.1], abs=0.01)
    assert found.outcomes["random"][-1].attempts == 2


# --- the router's own behaviour ---------------------------------------------------------------------------------------


def test_an_outage_is_failed_over_and_left_alone() -> None:
    models = [same("a", 0.1, changes=[Change(1.0, 60.0, fails=1.0)], terms=(("priority", 1),)), same("b", 0.1)]
    found = simulate(models, ["priority"], **fixed(0.0, 3000, 0.01))
    summary = found.summary("priority", 1.5, 30.0)
    assert (summary.failed, summary.shares) == (0, {"b": 1.0})
    assert found.requests("priority") < 3000 + 20  # the dead one was asked a few times, not thousands


def test_the_deadline_of_a_call_is_kept_on_the_simulated_clock() -> None:
    found = simulate([same("a", 10.0)], ["random"], arrivals=[0.0], timeout=2.0, settings=QUIET)
    (outcome,) = found.outcomes["random"]
    assert outcome.provider is None
    assert outcome.seconds == pytest.approx(2.0)


def test_hedging_takes_the_quicker_answer_and_ends_the_other() -> None:
    models = [same("a", 10.0, terms=(("priority", 1),)), same("b", 0.1, terms=(("priority", 2),))]
    hedged = {"strategy": "priority", "hedge": True, "hedge_delay": 0.5, "hedge_share": 1.0}
    found = simulate(models, {"plain": "priority", "hedged": hedged}, arrivals=[0.0, 20.0, 40.0], settings=QUIET)
    assert [one.seconds for one in found.outcomes["plain"]] == pytest.approx([10, 10, 10])
    assert [one.seconds for one in found.outcomes["hedged"]] == pytest.approx([0.6, 0.6, 0.6])
    assert found.asked["hedged"] == {"a": 3, "b": 3}


def test_a_bulkhead_queues_on_the_simulated_clock() -> None:
    model = same("a", 1.0, terms=(("max_concurrency", 1),))
    found = simulate([model], ["random"], arrivals=[0.0, 0.0, 0.0], settings=QUIET)
    assert sorted(one.seconds for one in found.outcomes["random"]) == pytest.approx([1, 2, 3])


def test_probes_stay_out_of_the_simulated_world() -> None:
    models = [same("a", 0.1, changes=[Change(0.0, fails=1.0)]), same("b", 0.1)]
    found = simulate(models, ["random"], arrivals=[0.1 * n for n in range(3000)])
    assert found.summary("random").failed == 0
    assert not [thread for thread in threading.enumerate() if "probe" in thread.name]


def test_a_strategy_of_ones_own_is_compared() -> None:
    class Last:
        def __call__(self, candidates: Any, request: Any) -> Any:
            return candidates[-1]

    models = [same("a", 0.1), same("b", 0.2)]
    found = simulate(models, {"mine": Last, "first": lambda candidates, request: candidates[0]}, **fixed(0.0, 10))
    assert found.summary("mine").shares == {"b": 1.0}
    assert found.summary("first").shares == {"a": 1.0}


# --- what is told -----------------------------------------------------------------------------------------------------


def test_percentiles_are_nearest_ranks() -> None:
    values = [float(number) for number in range(1, 1001)]
    assert [percentile(values, percent) for percent in (0, 50, 99, 99.9, 100)] == [1, 500, 990, 999, 1000]
    assert math.isnan(percentile([], 50))


def test_figures_are_of_the_calls_that_began_then() -> None:
    calls = [Outcome(0.0, 1.0, "a", 1), Outcome(1.0, 3.0, "b", 2), Outcome(2.0, 9.0, None, 3)]
    simulation = Simulation({"x": calls}, {"x": {"a": 2, "b": 4}})
    assert simulation.summary("x") == Summary(3, 1, 3.0, 9.0, 9.0, 13 / 3, 2.0, {"a": 0.5, "b": 0.5})
    assert simulation.summary("x", 1.0, 2.0).calls == 1
    assert simulation.requests("x") == 6


def test_table_and_chart_show_every_strategy() -> None:
    found = simulate([same("a", 0.1), same("b", 0.3)], ["random", "weighted"], **fixed(0.0, 100))
    assert [line.split()[0] for line in found.table().splitlines()] == ["strategy", "random", "weighted"]
    chart = ET.fromstring(found.svg())
    assert chart.tag == "{http://www.w3.org/2000/svg}svg"
    assert "random" in found.svg()
    assert "weighted" in found.svg()
    assert found.to_dict()["random"]["calls"] == 100


# --- against real servers ---------------------------------------------------------------------------------------------

DELAYS = {"a": 0.3, "b": 0.6, "c": 1.2}
WEIGHTS = {"a": 6, "b": 3, "c": 1}


def real_run(arrivals: list[float]) -> Summary:
    """Return what the router does with real servers that take as long as the models."""
    servers, pool = {name: FaultServer() for name in DELAYS}, ConnectionPool(maxsize=100)
    router = ProviderRouter(strategy="weighted", tracker=PerformanceTracker(), **QUIET)
    outcomes: list[Outcome] = []

    def call(at: float) -> None:
        time.sleep(max(0.0, began + at - time.monotonic()))
        start = time.monotonic()
        response = router.execute_with_fallback(ChatRequest([{"role": "user", "content": "hi"}], "m", timeout=30))
        outcomes.append(Outcome(at, time.monotonic() - start, response.provider, len(response.attempts)))

    try:
        for name, server in servers.items():
            server.start().behave(faults.ok("x", delay=DELAYS[name]))
            provider = create_provider("openai", name=name, base_url=server.base_url, connections=pool)
            router.register_provider(name, provider, weight=WEIGHTS[name])
        began = time.monotonic() + 0.1
        threads = [threading.Thread(target=call, args=(at,)) for at in arrivals]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return Summary.of(outcomes)
    finally:
        pool.close()
        for server in servers.values():
            server.stop()


def test_a_real_run_is_reproduced_within_a_tenth() -> None:
    arrivals = [0.025 * number for number in range(100)]
    models = [same(name, DELAYS[name], terms=(("weight", WEIGHTS[name]),)) for name in DELAYS]
    simulated = simulate(models, ["weighted"], arrivals=arrivals, settings=QUIET).summary("weighted")
    for left in reversed(range(4)):  # a busy machine makes a real run slower, and no run faster
        real = real_run(arrivals)
        times = pytest.approx((real.p50, real.p99), rel=0.1)
        if not left or (simulated.p50, simulated.p99) == times:
            break
    assert (simulated.p50, simulated.p99) == times
    assert simulated.shares == pytest.approx(real.shares, rel=0.1)


def test_hedging_after_the_usual_95_percent_goes_to_the_slowest_within_its_share() -> None:
    """A twentieth of all calls passes the 95th percentile, a fiftieth may be hedged: it has to be the right one."""
    models = [Model(name, quantile=lambda share: 10.0 if share > 0.995 else 0.2 + 0.2 * share) for name in "ab"]
    hedged = {"strategy": "random", "hedge": True, "hedge_share": 0.02}
    found = simulate(models, {"plain": "random", "hedged": hedged}, rate=200.0, seconds=20.0, settings=QUIET)
    assert found.summary("plain").p99_9 == pytest.approx(10.0)
    assert found.summary("hedged").p99_9 <= 2.0
    assert found.requests("hedged") <= 1.03 * found.requests("plain")
