from __future__ import annotations

import itertools
import logging
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, get_args

import pytest
from _forks import in_child
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from perfkit.clock import FakeClock
from perfkit.resilience import CircuitBreaker
from perfkit.resilience.breaker import BUNCH, TABLE, Event, Mode, Rules, State, transition

if TYPE_CHECKING:
    from collections.abc import Callable

RULES = Rules()
NOW = 100.0
CLOSED = State("closed", 7, failures=3)
OPEN = State("open", 7, openings=1, until=NOW + 10)
DUE = State("open", 7, openings=1, until=NOW)
PROBING = State("half-open", 7, openings=1, until=NOW + 10)
LOST = State("half-open", 7, openings=1, until=NOW)


def opened(breaker: CircuitBreaker) -> CircuitBreaker:
    """Fail as often as it takes."""
    for _ in range(breaker.rules.failure_threshold):
        permit = breaker.acquire()
        assert permit is not None
        breaker.record(permit, "failure")
    assert breaker.state.mode == "open"
    return breaker


def mode(breaker: CircuitBreaker) -> str:
    return breaker.state.mode


def at_once(work: Callable[[], object], threads: int) -> list[object]:
    """Return what `work` returns in many threads that start together."""
    barrier = threading.Barrier(threads)

    def run(_: int) -> object:
        barrier.wait(10)
        return work()

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(run, range(threads)))


def test_the_table_has_a_row_for_every_mode_and_event() -> None:
    assert set(TABLE) == set(itertools.product(get_args(Mode), get_args(Event)))


@pytest.mark.parametrize(
    ("before", "event", "after"),
    [
        (CLOSED, "ask", CLOSED),
        (CLOSED, "success", State("closed", 7)),
        (CLOSED, "failure", State("closed", 7, failures=4)),
        (CLOSED._replace(failures=4), "failure", State("open", 8, openings=1, until=NOW + 60)),
        (State("closed", 7), "fatal", State("open", 8, openings=1, until=NOW + 60)),
        (CLOSED, "abandoned", CLOSED),
        (OPEN, "ask", OPEN),
        (DUE, "ask", State("half-open", 8, openings=1, until=NOW + 120)),
        (OPEN, "success", OPEN),
        (OPEN, "failure", OPEN),
        (OPEN, "fatal", OPEN),
        (OPEN, "abandoned", OPEN),
        (PROBING, "ask", PROBING),
        (LOST, "ask", State("half-open", 8, openings=1, until=NOW + 120)),
        (PROBING, "success", State("closed", 8)),
        (PROBING, "failure", State("open", 8, openings=2, until=NOW + 120)),
        (PROBING, "fatal", State("open", 8, openings=2, until=NOW + 120)),
        (PROBING, "abandoned", State("open", 8, openings=1, until=NOW)),
    ],
)
def test_every_transition(before: State, event: Event, after: State) -> None:
    assert transition(before, event, NOW, RULES) == after


def test_openings_double_up_to_the_cap() -> None:
    rules = Rules(open_seconds=60, max_open_seconds=300)
    assert [rules.length(n, 0.0) for n in (0, 1, 2, 3, 1000)] == [60, 120, 240, 300, 300]


@given(openings=st.integers(0, 10_000), jitter=st.floats(0, 1), base=st.floats(0.01, 1e6))
def test_an_opening_is_never_longer_than_the_cap_nor_much_shorter_than_it_should_be(
    openings: int, jitter: float, base: float
) -> None:
    rules = Rules(open_seconds=base)
    exact = rules.length(openings, 0.0)
    assert 0.8 * exact * (1 - 1e-9) <= rules.length(openings, jitter) <= exact <= max(base, 300)
    assert rules.length(0, jitter) == base


def test_openings_after_the_first_are_spread_over_processes() -> None:
    def second_opening() -> float:
        clock = FakeClock()
        breaker = opened(CircuitBreaker(clock=clock))
        clock.advance(60)
        permit = breaker.acquire()
        assert permit is not None
        breaker.record(permit, "failure")
        return round(breaker.state.until - clock.now(), 6)

    lengths = {second_opening() for _ in range(20)}
    assert len(lengths) > 10
    assert all(96 <= length <= 120 for length in lengths)


def test_open_breaker_rejects_until_its_time_is_over() -> None:
    clock = FakeClock()
    breaker = opened(CircuitBreaker(clock=clock))
    clock.advance(59.9)
    assert not breaker.ready(clock.now())
    assert breaker.acquire() is None
    clock.advance(0.1)
    assert breaker.ready(clock.now())
    assert breaker.acquire() is not None


def test_only_failures_in_a_row_count() -> None:
    breaker = CircuitBreaker(clock=FakeClock())
    for event in ("failure", "failure", "failure", "failure", "success", "failure"):
        permit = breaker.acquire()
        assert permit is not None
        breaker.record(permit, event)
    assert breaker.state == State("closed", 0, failures=1)


def test_a_call_that_says_nothing_changes_nothing_and_frees_the_probe() -> None:
    clock = FakeClock()
    breaker = opened(CircuitBreaker(clock=clock))
    clock.advance(60)
    probe = breaker.acquire()
    assert probe is not None
    assert breaker.acquire() is None
    breaker.record(probe, "abandoned")
    assert breaker.acquire() is not None


def test_late_results_of_calls_from_before_the_opening_are_no_news() -> None:
    clock = FakeClock()
    breaker = CircuitBreaker(clock=clock)
    permits = [breaker.acquire() for _ in range(20)]
    for permit in permits[:5]:
        assert permit is not None
        breaker.record(permit, "failure")
    opened_until = breaker.state.until
    clock.advance(30)
    for permit in permits[5:12]:
        assert permit is not None
        breaker.record(permit, "failure")
    assert breaker.state.until == opened_until
    clock.advance(30)
    probe = breaker.acquire()
    for permit, event in zip(permits[12:16], ("success", "failure", "fatal", "abandoned"), strict=True):
        assert permit is not None
        breaker.record(permit, event)  # type: ignore[arg-type]
    assert mode(breaker) == "half-open"
    assert probe is not None
    breaker.record(probe, "success")
    assert mode(breaker) == "closed"
    assert permits[16] is not None
    breaker.record(permits[16], "fatal")
    assert mode(breaker) == "closed"


def test_a_probe_that_never_reports_is_lost_in_the_end_and_its_late_result_ignored() -> None:
    clock = FakeClock()
    breaker = opened(CircuitBreaker(clock=clock))
    clock.advance(60)
    lost = breaker.acquire()
    clock.advance(90)  # the opening after this one lasts 96 to 120 s
    assert breaker.acquire() is None
    clock.advance(30)
    assert breaker.acquire() is not None
    assert lost is not None
    breaker.record(lost, "success")
    assert breaker.state.mode == "half-open"


def test_of_64_threads_exactly_one_gets_the_probe() -> None:
    clock = FakeClock()
    breaker = opened(CircuitBreaker(clock=clock))
    for _ in range(20):
        clock.advance(1000)
        permits = [permit for permit in at_once(breaker.acquire, 64) if permit is not None]
        assert len(permits) == 1
        assert isinstance(permits[0], int)
        breaker.record(permits[0], "failure")


def test_sixteen_guarded_calls_run_at_the_same_time() -> None:
    breaker = CircuitBreaker(clock=FakeClock())
    inside = threading.Barrier(16)

    def call() -> None:
        permit = breaker.acquire()
        assert permit is not None
        inside.wait(10)  # breaks unless all sixteen are here together
        breaker.record(permit, "success")

    at_once(call, 16)
    assert not inside.broken


def test_no_failure_is_lost_when_threads_report_together() -> None:
    breaker = CircuitBreaker(rules=Rules(failure_threshold=6401), clock=FakeClock())

    def fail() -> None:
        for _ in range(100):
            permit = breaker.acquire()
            assert permit is not None
            breaker.record(permit, "failure")

    at_once(fail, 64)
    assert breaker.state.failures == 6400


class Interrupted:
    """A lock that lets something happen just before it is taken."""

    def __init__(self, happens: Callable[[], object]) -> None:
        self.happens = happens

    def __enter__(self) -> None:
        self.happens()

    def __exit__(self, *_: object) -> None:
        """Nothing is held."""


def test_a_change_of_mode_between_look_and_lock_is_seen() -> None:
    clock = FakeClock()
    breaker = CircuitBreaker(clock=clock)
    permit = breaker.acquire()
    assert permit is not None
    probing_meanwhile = State("half-open", permit + 1, openings=1, until=clock.now() + 60)
    breaker._lock = Interrupted(lambda: breaker._become(probing_meanwhile))  # type: ignore[assignment]
    breaker.record(permit, "failure")
    assert breaker.state == probing_meanwhile
    closed_meanwhile = State("closed", permit + 2)
    breaker._lock = Interrupted(lambda: breaker._become(closed_meanwhile))  # type: ignore[assignment]
    assert breaker.acquire() == permit + 2


def test_a_forked_child_does_not_wait_for_the_parents_probe_or_lock() -> None:
    clock = FakeClock()
    breaker = opened(CircuitBreaker(clock=clock))
    clock.advance(60)
    assert breaker.acquire() is not None
    with breaker._lock:
        breaker._after_fork()
        assert breaker.acquire() is not None
    breaker._after_fork()


def test_fork_runs_the_reset() -> None:
    clock = FakeClock()
    breaker = opened(CircuitBreaker(clock=clock))
    clock.advance(60)
    assert breaker.acquire() is not None
    assert in_child(lambda: breaker.acquire() is not None)
    assert breaker.acquire() is None


def test_the_repr_is_live() -> None:
    clock = FakeClock()
    breaker = CircuitBreaker("openai", clock=clock)
    assert repr(breaker) == "<CircuitBreaker 'openai' closed, 0 of 5 failures>"
    opened(breaker)
    clock.advance(18.8)
    assert repr(breaker) == "<CircuitBreaker 'openai' open, probe in 41.2 s>"
    clock.advance(60)
    breaker.acquire()
    assert "half-open, probe out" in repr(breaker)


def test_opening_and_closing_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    with caplog.at_level(logging.INFO, "perfkit.resilience"):
        breaker = opened(CircuitBreaker("openai", clock=clock))
        clock.advance(60)
        probe = breaker.acquire()
        assert probe is not None
        breaker.record(probe, "success")
    assert caplog.messages == ["circuit of openai opened for 60 s after a failure", "circuit of openai closed again"]


class BreakerMachine(RuleBasedStateMachine):
    """Any order of calls, outcomes and waits, against what a breaker promises."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.limits = Rules(failure_threshold=3, open_seconds=10, max_open_seconds=40)
        self.breaker = CircuitBreaker(rules=self.limits, clock=self.clock)
        self.out: list[tuple[int, Mode]] = []  # permits not reported yet, and the mode they were given in
        self.in_a_row = 0
        self.last = self.breaker.state

    @rule()
    def ask(self) -> None:
        before, now = self.breaker.state, self.clock.now()
        ready = self.breaker.ready(now)
        permit = self.breaker.acquire()
        assert (permit is not None) == ready
        if permit is not None:
            assert before.mode == "closed" or now >= before.until
            self.out.append((permit, self.breaker.state.mode))

    @rule(which=st.integers(0, 1000), event=st.sampled_from(["success", "failure", "fatal", "abandoned"]))
    @precondition(lambda self: self.out)
    def report(self, which: int, event: Event) -> None:
        permit, _ = self.out.pop(which % len(self.out))
        before = self.breaker.state
        self.breaker.record(permit, event)
        after = self.breaker.state
        if permit != before.epoch:
            assert after == before
            return
        self.in_a_row = {"success": 0, "failure": self.in_a_row + 1}.get(event, self.in_a_row)
        if before.mode == "half-open":
            assert after.mode == ("closed" if event == "success" else "open")
        elif event == "fatal" or self.in_a_row >= self.limits.failure_threshold:
            assert after.mode == "open"
        else:
            assert after == before._replace(failures=self.in_a_row)
        if after.mode != "closed" or before.mode != "closed":
            self.in_a_row = 0
        if after.openings > before.openings:
            assert 8 <= after.until - self.clock.now() <= 40

    @rule(seconds=st.floats(0, 50))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @invariant()
    def at_most_one_probe_counts(self) -> None:
        epochs = Counter(permit for permit, mode in self.out if mode == "half-open")
        assert all(number == 1 for number in epochs.values())
        assert sum(permit == self.breaker.state.epoch for permit in epochs) <= 1

    @invariant()
    def epochs_only_grow(self) -> None:
        state = self.breaker.state
        assert state.epoch >= self.last.epoch
        assert (state.epoch == self.last.epoch) <= (state.mode == self.last.mode)
        self.last = state


TestBreakerMachine = BreakerMachine.TestCase
TestBreakerMachine.settings = settings(max_examples=60, stateful_step_count=60)


# --- shares of a window


def by_share(clock: FakeClock, **more: float) -> CircuitBreaker:
    rules = Rules(failure_threshold=10**6, failure_rate=0.5, minimum_calls=10, slow_rate=more.get("slow_rate", 1.0))
    return CircuitBreaker(rules=rules, clock=clock)


OK: Event = "success"
BAD: Event = "failure"
SLOW: Event = "slow"


def tell(breaker: CircuitBreaker, *events: Event) -> str:
    for event in events:
        permit = breaker.acquire()
        if permit is not None:
            breaker.record(permit, event)
    return breaker.state.mode


def test_half_of_the_calls_failing_opens_it_though_never_in_a_row() -> None:
    breaker = by_share(FakeClock())
    assert tell(breaker, *[OK, BAD] * 4, OK) == "closed"  # nine calls say nothing
    assert tell(breaker, BAD) == "open"


def test_less_than_the_share_never_opens_it() -> None:
    breaker = by_share(FakeClock())
    assert tell(breaker, *([OK, OK, BAD] * 200)) == "closed"


def test_old_calls_do_not_count() -> None:
    clock = FakeClock()
    breaker = by_share(clock)
    tell(breaker, *[OK] * 2, *[BAD] * 7)
    clock.advance(31)
    assert tell(breaker, BAD) == "closed"
    assert tell(breaker, *[BAD] * 8) == "closed"
    assert tell(breaker, BAD) == "open"


def test_every_success_counts_however_many_are_noted_before_they_are_counted() -> None:
    breaker = by_share(FakeClock())
    successes = 2 * BUNCH + BUNCH // 2
    assert tell(breaker, *[OK] * successes, *[BAD] * (successes - 1)) == "closed"
    assert tell(breaker, BAD) == "open"


def test_successes_from_before_an_opening_are_forgotten_with_it() -> None:
    clock = FakeClock()
    breaker = by_share(clock)
    late = [breaker.acquire() for _ in range(20)]
    tell(breaker, *[OK] * 20, "fatal")
    for permit in late:
        assert permit is not None
        breaker.record(permit, OK)
    clock.advance(60)
    assert tell(breaker, OK) == "closed"
    assert tell(breaker, *[BAD] * 9) == "closed"
    assert tell(breaker, BAD) == "open"


def test_successes_that_many_threads_note_are_all_counted() -> None:
    breaker = by_share(FakeClock())
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: tell(breaker, *[OK] * 500), range(8)))
    assert tell(breaker, *[BAD] * 3999) == "closed"
    assert tell(breaker, BAD) == "open"


def test_slow_calls_open_it_and_a_slow_probe_keeps_it_open() -> None:
    clock = FakeClock()
    breaker = by_share(clock, slow_rate=0.8)
    assert tell(breaker, *[OK] * 2, *[SLOW] * 7) == "closed"
    assert tell(breaker, SLOW) == "open"
    clock.advance(60)
    assert tell(breaker, SLOW) == "open"
    clock.advance(120)
    assert tell(breaker, OK) == "closed"


def test_slow_calls_alone_are_no_failures() -> None:
    assert tell(by_share(FakeClock()), *[SLOW] * 100) == "closed"


def test_siblings_can_hold_it_open_and_let_a_probe_go() -> None:
    clock = FakeClock()
    breaker = CircuitBreaker(clock=clock)
    late = breaker.acquire()
    assert late is not None
    breaker.hold_open(30)
    breaker.record(late, OK)
    assert breaker.acquire() is None
    breaker.hold_open(5)  # a longer one stays
    clock.advance(29)
    assert breaker.acquire() is None
    breaker.allow_probe()
    assert breaker.acquire() is not None
    assert breaker.acquire() is None  # exactly one
