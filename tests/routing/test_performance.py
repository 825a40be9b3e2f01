"""What is known of a provider's attempts, and who is expected to be the quickest."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some

from perfkit.clock import FakeClock
from perfkit.routing.performance import Performance, quickest
from perfkit.routing.terms import Terms

SECONDS = some.floats(0.001, 100.0)


@given(some.lists(some.tuples(SECONDS, SECONDS, SECONDS, SECONDS), min_size=1, max_size=5, unique=True))
def test_the_quickest_is_who_is_expected_to_cost_the_least(known: list[tuple[float, float, float, float]]) -> None:
    clock = FakeClock()
    clock.advance(200.0)
    made = []
    for cost, excess, sampled, used in known:
        one = Performance(Terms(), clock)
        one.cost, one.excess, one.sampled, one.used = cost, excess, clock.now() - sampled, clock.now() - used
        made.append(one)
    chosen = quickest(made, clock.now())
    assert chosen is None or chosen.expected == min(one.expected for one in made)
    assert chosen is not None or len({one.expected for one in made}) < len(made)


def test_nobody_is_the_quickest_while_one_is_untried_or_two_are_equal() -> None:
    clock = FakeClock()
    clock.advance(200.0)
    untried, known, equal = (Performance(Terms(), clock) for _ in range(3))
    known.cost = equal.cost = 1.0
    assert quickest([known, untried], clock.now()) is None
    assert quickest([known, equal], clock.now()) is None
    assert quickest([known], clock.now()) is known
