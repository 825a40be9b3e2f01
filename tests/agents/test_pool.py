"""The pool of agents: fair, bounded, parallel, nothing lost; the cases of connection_pool (Ruby) and psycopg_pool."""

from __future__ import annotations

import ctypes
import gc
import os
import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from transport.peers import await_child, fork_unnoticed, in_child, start_child, until

import perfkit
from perfkit import _process
from perfkit.agents import AgentPool
from perfkit.clock import FakeClock
from perfkit.errors import PerfkitError, PoolTimeout, UnknownNameError

no_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
quiet_fork = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


class Agent:
    """Has state, and is neither hashable nor weak-referenceable."""

    __slots__ = ("conversation", "number")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, number: int) -> None:
        self.number = number
        self.conversation: list[str] = []


class Workshop:
    """Makes agents and remembers what became of them."""

    def __init__(self) -> None:
        self.made: list[Agent] = []
        self.closed: list[int] = []
        self.broken = False
        self.dead: list[int] = []

    def make(self) -> Agent:
        if self.broken:
            raise ConnectionError("no agent today")
        self.made.append(Agent(len(self.made)))
        return self.made[-1]

    def close(self, agent: Agent) -> None:
        self.closed.append(agent.number)

    def valid(self, agent: Agent) -> bool:
        return agent.number not in self.dead


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def pool(clock: FakeClock) -> Iterator[AgentPool]:
    made = AgentPool(clock=clock)
    yield made
    made.reset()


@pytest.fixture
def shop() -> Workshop:
    return Workshop()


def now(pool: AgentPool, *keys: str) -> tuple[Any, ...]:
    stats = pool.stats()["a"]
    return tuple(stats[key] for key in keys)


def started(*works: Callable[[], Any]) -> list[threading.Thread]:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    return threads


def joined(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def borrowed(pool: AgentPool, got: list[Any], timeout: float = 20) -> Callable[[], None]:
    def work() -> None:
        try:
            with pool.get_agent("a", timeout) as agent:
                got.append(agent.number)
        except PerfkitError as error:
            got.append(error)

    return work


def waiting(pool: AgentPool, *works: Callable[[], Any]) -> list[threading.Thread]:
    """Start callers that have to wait, each in line before the next starts."""
    threads = []
    for work in works:
        before = now(pool, "waiters")[0]
        threads += started(work)
        until(partial(has_waiters, pool, before + 1))
    return threads


def has_waiters(pool: AgentPool, number: int) -> bool:
    return now(pool, "waiters") == (number,)


def sweep(pool: AgentPool) -> None:
    pool._lenders["a"].sweep()


# --- lending ---------------------------------------------------------------------------------------------------------


def test_agents_are_made_on_demand_and_used_again_most_recent_first(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make)
    assert shop.made == []
    with pool.get_agent("a") as first, pool.get_agent("a") as second:
        assert (first.number, second.number) == (0, 1)
    with pool.get_agent("a") as again:
        assert again is first  # it came back last
    assert now(pool, "created", "lent", "idle", "in_use") == (2, 3, 2, 0)


def test_an_unknown_type_is_a_key_error_that_names_the_known_ones(pool: AgentPool) -> None:
    pool.register("customer_support", object)
    for ask in (pool.get_agent, pool.warm_up, pool.reload):
        with pytest.raises(KeyError, match="known: customer_support; did you mean 'customer_support'"):
            ask("customer_suport")
    with pytest.raises(UnknownNameError):
        pool.get_agent([])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"size": 0}, ValueError),
        ({"size": 1.5}, TypeError),
        ({"min_idle": 4}, ValueError),
        ({"max_waiting": -1}, ValueError),
        ({"timeout": float("nan")}, ValueError),
        ({"max_idle": 0}, ValueError),
        ({"max_lifetime": -1}, ValueError),
        ({"reset": "reset"}, TypeError),
    ],
)
def test_a_wrong_setting_is_refused_at_registration(
    pool: AgentPool, wrong: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=next(iter(wrong))):
        pool.register("a", object, **wrong)
    assert pool.stats() == {}


def test_an_exhausted_pool_says_who_how_many_and_what_to_do(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, size=1, timeout=0.01)
    with pool.get_agent("a"):
        for timeout in (None, 0):
            with pytest.raises(PoolTimeout, match=r"no agent 'a': all 1 are in use.*raise size=") as caught:
                pool.get_agent("a", timeout).__enter__()
            assert caught.value.reason == "late"  # type: ignore[attr-defined]
    assert now(pool, "timeouts", "waiters", "idle") == (2, 0, 1)


def test_one_caller_too_many_is_turned_away_at_once(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, size=1, max_waiting=2)
    got: list[Any] = []
    with pool.get_agent("a"):
        threads = waiting(pool, *[borrowed(pool, got)] * 2)
        with pytest.raises(PoolTimeout, match="2 callers wait already, which is max_waiting") as caught:
            pool.get_agent("a").__enter__()
        assert caught.value.reason == "shed"  # type: ignore[attr-defined]
    joined(threads)
    assert got == [0, 0]
    assert now(pool, "shed", "timeouts") == (1, 0)


def test_a_loan_cannot_be_entered_twice_at_a_time(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make)
    loan = pool.get_agent("a")
    with loan:
        with pytest.raises(RuntimeError, match="in use"):
            loan.__enter__()
        loan.__exit__(None, None, None)
    assert now(pool, "idle", "in_use") == (1, 0)
    with loan as again:
        assert again.number == 0


# --- hooks -----------------------------------------------------------------------------------------------------------


def test_a_conversation_is_forgotten_on_return_not_on_the_next_loan(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, reset=lambda agent: agent.conversation.clear())
    with pool.get_agent("a") as agent:
        agent.conversation.append("my account is 4711")
    assert agent.conversation == []


def test_an_agent_that_cannot_be_reset_is_closed_and_its_place_is_free(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, size=1, reset=lambda agent: agent.conversation.remove("never said"), close=shop.close)
    with pool.get_agent("a"):
        pass
    assert shop.closed == [0]
    with pool.get_agent("a", 0) as agent:
        assert agent.number == 1
    assert now(pool, "broken") == (2,)


def test_a_failed_creation_reaches_its_caller_and_keeps_the_slot(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, size=1)
    shop.broken = True
    for _ in range(3):
        with pytest.raises(ConnectionError, match="no agent today"):
            pool.get_agent("a", 0).__enter__()
    shop.broken = False
    with pool.get_agent("a", 0) as agent:
        assert agent.number == 0
    assert now(pool, "failed", "created") == (3, 1)


def test_who_waits_makes_an_agent_when_another_ones_creation_fails(pool: AgentPool, shop: Workshop) -> None:
    entered, go = threading.Event(), threading.Event()
    got: list[Any] = []

    def make() -> Agent:
        if not entered.is_set():
            entered.set()
            go.wait(20)
            raise ConnectionError("not the first")
        return shop.make()

    def first() -> None:
        with pytest.raises(ConnectionError):
            pool.get_agent("a").__enter__()

    pool.register("a", make, size=1)
    threads = started(first)
    entered.wait(20)
    threads += waiting(pool, borrowed(pool, got))
    go.set()
    joined(threads)
    assert got == [0]


def test_creations_run_side_by_side_outside_the_lock(pool: AgentPool, shop: Workshop) -> None:
    together = threading.Barrier(3)

    def make() -> Agent:
        together.wait(20)
        return shop.make()

    got: list[Any] = []
    pool.register("a", make, size=3)
    joined(started(*[borrowed(pool, got)] * 3))
    assert len(got) == 3
    assert together.broken is False


def test_a_dead_agent_is_found_after_a_while_and_replaced(pool: AgentPool, shop: Workshop, clock: FakeClock) -> None:
    pool.register("a", shop.make, validate=shop.valid, close=shop.close)
    pool.warm_up("a", 3)
    shop.dead = [0, 1, 2]
    clock.advance(1)
    with pool.get_agent("a") as agent:
        assert agent.number == 3
    assert len(shop.closed) == 1
    assert now(pool, "replaced", "created", "idle") == (1, 4, 3)


def test_an_agent_just_returned_is_lent_without_asking(pool: AgentPool, shop: Workshop, clock: FakeClock) -> None:
    asked: list[int] = []

    def valid(agent: Agent) -> bool:
        asked.append(agent.number)
        return True

    pool.register("a", shop.make, validate=valid)
    for _ in range(3):
        with pool.get_agent("a"):
            pass
        clock.advance(0.4)
    assert asked == []
    pool.configure(validate_after=0.1)
    with pool.get_agent("a"):
        assert asked == [0]


def test_after_a_failed_block_the_agent_is_looked_at(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, validate=shop.valid, close=shop.close)
    for dead in ([], [0]):
        shop.dead = dead
        with pytest.raises(ValueError, match="of the block"), pool.get_agent("a"):
            raise ValueError("of the block")
        assert shop.closed == dead


def test_a_block_may_discard_its_agent(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, size=1, close=shop.close)
    loan = pool.get_agent("a")
    with loan:
        loan.discard()
        loan.discard()
    assert shop.closed == [0]
    assert now(pool, "discarded", "idle", "in_use") == (1, 0, 0)


def test_a_close_that_fails_costs_nobody_a_place(pool: AgentPool, shop: Workshop) -> None:
    def close(_: Agent) -> None:
        raise OSError("cannot close")

    pool.register("a", shop.make, size=2, close=close)
    for _ in range(5):
        with pool.get_agent("a", 0), pool.get_agent("a", 0):
            pass
        pool.reload()
    assert now(pool, "idle", "in_use", "created") == (0, 0, 10)


def test_hooks_run_outside_the_lock(pool: AgentPool, shop: Workshop, clock: FakeClock) -> None:
    seen = []

    def look(_: Any = None) -> bool:
        seen.append(now(pool, "size"))  # takes the lock: would hang if it were held
        return True

    pool.register("a", lambda: look() and shop.make(), reset=look, validate=look, close=look)
    with pool.get_agent("a"):
        pass
    clock.advance(10)
    with pool.get_agent("a"):
        pass
    pool.reload()
    assert len(seen) == 5


# --- age -------------------------------------------------------------------------------------------------------------


def test_agents_idle_for_too_long_are_closed_except_min_idle(pool: AgentPool, shop: Workshop, clock: FakeClock) -> None:
    pool.register("a", shop.make, min_idle=1, close=shop.close)
    pool.warm_up("a", 3)
    clock.advance(1799)
    sweep(pool)
    assert shop.closed == []
    clock.advance(1)
    sweep(pool)
    assert len(shop.closed) == 2
    assert now(pool, "idle", "reaped", "size") == (1, 2, 3)


def test_an_agent_in_steady_use_is_not_reaped(pool: AgentPool, shop: Workshop, clock: FakeClock) -> None:
    pool.register("a", shop.make, close=shop.close)
    pool.warm_up("a", 2)
    for _ in range(4):
        clock.advance(600)
        with pool.get_agent("a") as agent:
            used = agent.number
    sweep(pool)
    assert shop.closed == [1 - used]


def test_the_sweep_makes_what_min_idle_is_short_of(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, min_idle=2)
    with pool.get_agent("a"):
        sweep(pool)
        until(lambda: now(pool, "idle", "in_use") == (2, 1))
    sweep(pool)
    assert len(shop.made) == 3


def test_the_background_thread_sweeps_and_does_not_keep_the_pool_alive(
    shop: Workshop, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    import weakref

    jobs: dict[Any, float] = {}
    monkeypatch.setattr(
        _process.background, "every", lambda interval, work: jobs.__setitem__(weakref.WeakMethod(work), interval)
    )
    pool = AgentPool(clock=clock)
    pool.register("a", shop.make, close=shop.close)
    assert jobs == {}  # nothing to sweep yet
    pool.warm_up("a", 2)
    pool.configure(reap_interval=60)
    assert list(jobs.values()) == [60]
    clock.advance(1800)
    (job,) = jobs
    work = job()
    assert work is not None
    work()
    assert len(shop.closed) == 2
    del work, pool
    gc.collect()
    assert job() is None


def test_an_agent_past_its_lifetime_is_replaced_with_jitter(pool: AgentPool, shop: Workshop, clock: FakeClock) -> None:
    pool.register("a", shop.make, size=50, max_lifetime=1000, close=shop.close)
    pool.warm_up("a", 50)
    ends = [slot.expires - clock.now() for slot in pool._lenders["a"]._shelf.idle]
    assert 950 <= min(ends) < max(ends) <= 1000
    assert len(set(ends)) > 40
    with pool.get_agent("a") as kept:
        clock.advance(1000)
    assert shop.closed == [kept.number]  # on return
    with pool.get_agent("a") as agent:
        assert agent.number == 50  # on the next loan
    sweep(pool)  # and the rest when swept
    assert now(pool, "idle", "reaped", "replaced", "retired") == (1, 48, 1, 1)


# --- warm-up, resize, reload, drain, shutdown ------------------------------------------------------------------------


def test_warm_up_really_makes_agents_all_at_once(pool: AgentPool, shop: Workshop) -> None:
    together = threading.Barrier(5)

    def make() -> Agent:
        together.wait(20)
        return shop.make()

    pool.register("a", make, size=5)
    assert pool.warm_up("a") == 5
    assert pool.warm_up("a") == 5
    assert len(shop.made) == 5


def test_warm_up_stays_within_the_size_and_counts_what_is_there(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make)
    with pool.get_agent("a"):
        assert pool.warm_up("a", 10) == 2
    assert pool.warm_up("a", 1) == 3
    assert len(shop.made) == 3


def test_warm_up_tells_what_failed_and_keeps_the_rest(pool: AgentPool, shop: Workshop) -> None:
    turn = iter([True, False, True])
    lock = threading.Lock()

    def make() -> Agent:
        with lock:
            if not next(turn):
                raise ConnectionError("one of three")
            return shop.make()

    pool.register("a", make)
    with pytest.raises(ConnectionError, match="one of three"):
        pool.warm_up("a", 3)
    assert now(pool, "idle", "in_use", "failed") == (2, 0, 1)


def test_a_larger_size_serves_who_waits(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, size=1)
    got: list[Any] = []
    with pool.get_agent("a"):
        threads = waiting(pool, borrowed(pool, got))
        pool.resize("a", 2)
        joined(threads)
        assert got == [1]


def test_a_smaller_size_closes_idle_agents_now_and_lent_ones_later(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, size=4, close=shop.close)
    pool.warm_up("a", 4)
    with pool.get_agent("a"), pool.get_agent("a"):
        pool.resize("a", 1)
        assert len(shop.closed) == 2
    assert len(shop.closed) == 3
    assert now(pool, "size", "idle", "in_use") == (1, 1, 0)


def test_reload_replaces_all_and_never_exceeds_the_size(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, size=2, close=shop.close)
    with pool.get_agent("a") as kept:
        with pool.get_agent("a") as other:
            pass
        pool.reload("a")
        assert shop.closed == [other.number]
        with pool.get_agent("a", 0) as new:
            assert new.number == 2
            with pytest.raises(PoolTimeout):
                pool.get_agent("a", 0).__enter__()
    assert shop.closed == [other.number, kept.number]
    assert now(pool, "idle", "in_use") == (1, 0)


def test_who_waits_across_a_reload_gets_a_new_agent(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, size=1, close=shop.close)
    got: list[Any] = []
    with pool.get_agent("a"):
        threads = waiting(pool, borrowed(pool, got))
        pool.reload()
    joined(threads)
    assert (got, shop.closed) == ([1], [0])


def test_who_waits_while_there_are_too_many_goes_on_waiting(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, size=2, close=shop.close)
    got: list[Any] = []
    with pool.get_agent("a"):
        with pool.get_agent("a"):
            threads = waiting(pool, borrowed(pool, got))
            pool.resize("a", 1)
        assert (now(pool, "waiters", "in_use"), shop.closed) == ((1, 1), [1])
    joined(threads)
    assert got == [0]


def test_an_agent_on_its_way_back_does_not_slip_through_a_reload(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, reset=lambda _: pool.reload(), close=shop.close)
    with pool.get_agent("a"):
        pass
    assert (now(pool, "idle"), shop.closed) == ((0,), [0])


def test_drain_waits_until_the_agents_of_before_are_gone(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, close=shop.close)
    drained: list[bool] = []
    loan = pool.get_agent("a")
    with loan:
        assert pool.drain(timeout=0) is False
        threads = started(lambda: drained.append(pool.drain(20)))
        until(lambda: pool._lenders["a"]._shelf._watchers)
        with pool.get_agent("a", 0) as new:  # lending goes on
            assert new.number == 1
        assert drained == []
    joined(threads)
    assert drained == [True]
    assert shop.closed[-1] == 0
    assert pool.drain(0) is True


def test_shutdown_closes_idle_agents_fails_waiters_and_closes_lent_ones_later(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, size=2, close=shop.close)
    pool.warm_up("a", 2)
    got: list[Any] = []
    with pool.get_agent("a") as first:
        with pool.get_agent("a"):
            threads = waiting(pool, *[borrowed(pool, got)] * 3)
            assert pool.shutdown(timeout=0) is False
            joined(threads)
            assert [error.reason for error in got] == ["shut"] * 3
            assert shop.closed == []
        assert shop.closed == [1 - first.number]
        done: list[bool] = []
        threads = started(lambda: done.append(pool.shutdown(20)))
    joined(threads)
    assert done == [True]
    assert sorted(shop.closed) == [0, 1]
    with pytest.raises(PoolTimeout, match="shut down; register"):
        pool.get_agent("a").__enter__()
    assert pool.warm_up("a") == 0
    pool.register("a", shop.make)
    with pool.get_agent("a") as agent:
        assert agent.number == 2


def test_a_type_registered_again_closes_the_agents_of_before(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, close=shop.close)
    pool.warm_up("a", 2)
    with pool.get_agent("a") as kept:
        pool.register("a", shop.make, size=1)
        assert shop.closed == [1 - kept.number]
        assert now(pool, "size", "in_use") == (1, 0)
    assert shop.closed == [1 - kept.number, kept.number]


def test_a_sweep_keeps_the_order(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make)
    pool.warm_up("a", 3)
    before = [slot.value.number for slot in pool._lenders["a"]._shelf.idle]
    sweep(pool)
    assert [slot.value.number for slot in pool._lenders["a"]._shelf.idle] == before


def test_close_lets_go_and_the_pool_goes_on(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, close=shop.close)
    pool.warm_up("a", 2)
    pool.close()
    pool.close()
    assert sorted(shop.closed) == [0, 1]
    with pool.get_agent("a") as agent:
        assert agent.number == 2


def test_the_shared_pool_forgets_types_at_reset(shop: Workshop) -> None:
    assert perfkit.agent_pool is AgentPool.instance()
    perfkit.agent_pool.register("a", shop.make, close=shop.close)
    with perfkit.agent_pool.get_agent("a"):
        pass
    perfkit.reset()
    assert shop.closed == [0]
    with pytest.raises(KeyError):
        perfkit.agent_pool.get_agent("a")


def test_stats_and_repr_tell_of_waits(pool: AgentPool, shop: Workshop, clock: FakeClock) -> None:
    pool.register("a", shop.make, size=1)
    got: list[Any] = []
    with pool.get_agent("a"):
        threads = waiting(pool, borrowed(pool, got))
        clock.advance(2)
        assert repr(pool) == "AgentPool(<agents 'a': 1 of 1 in use, 0 idle, 1 waiting>)"
    joined(threads)
    wait = now(pool, "wait")[0]
    assert (wait["count"], wait["min"], wait["max"], wait["p99"]) == (2, 0, 2, 2)


# --- fairness and load -----------------------------------------------------------------------------------------------


def test_callers_are_served_in_the_order_they_came(pool: AgentPool, shop: Workshop) -> None:
    order: list[int] = []

    def caller(number: int) -> Callable[[], None]:
        def work() -> None:
            with pool.get_agent("a"):
                order.append(number)

        return work

    pool.register("a", shop.make, size=1)
    with pool.get_agent("a"):
        threads = waiting(pool, *[caller(number) for number in range(12)])
    joined(threads)
    assert order == list(range(12))


def test_late_comer_does_not_take_what_is_meant_for_who_waits(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, size=1)
    got: list[Any] = []
    with pool.get_agent("a"):
        threads = waiting(pool, borrowed(pool, got))
        loan = pool.get_agent("a")
        shelf = pool._lenders["a"]._shelf
        shelf.idle.append(shelf._new())  # put down, and not yet handed over
        with pytest.raises(PoolTimeout):
            loan._lender.take(0)
    joined(threads)
    assert len(got) == 1


def test_sixty_four_threads_share_eight_agents_evenly(pool: AgentPool, shop: Workshop) -> None:
    counts, left, together = Counter[int](), deque(range(3200)), threading.Barrier(64)

    def worker(number: int) -> Callable[[], None]:
        def work() -> None:
            together.wait(20)
            while left:
                with pool.get_agent("a"):
                    try:
                        left.pop()
                    except IndexError:
                        return
                    threading.Event().wait(0.0002)  # holding lets go of the interpreter, as waiting for a reply does
                counts[number] += 1

        return work

    pool.register("a", shop.make, size=8)
    joined(started(*[worker(number) for number in range(64)]))
    assert sum(counts.values()) == 3200
    assert min(counts.values()) >= 15  # of 50; with queue.LifoQueue most get none
    assert len(shop.made) == 8


def test_under_random_timeouts_no_agent_is_lost_or_lent_twice(shop: Workshop) -> None:
    pool, held, wrong, outcomes = AgentPool(), set[int](), list[int](), Counter[str]()
    pool.register("a", shop.make, size=8)
    together, lock = threading.Barrier(64), threading.Lock()

    def work(seed: int) -> None:
        chance, mine = random.Random(seed), Counter[str]()
        together.wait(20)
        for _ in range(60):
            try:
                with pool.get_agent("a", chance.choice([0, 0.0005, 0.002, 0.01])) as agent:
                    if agent.number in held:
                        wrong.append(agent.number)
                    held.add(agent.number)
                    threading.Event().wait(chance.random() * 0.0005)
                    held.discard(agent.number)
                mine["lent"] += 1
            except PoolTimeout:
                mine["late"] += 1
        with lock:
            outcomes.update(mine)

    joined(started(*[partial(work, seed) for seed in range(64)]))
    assert wrong == []
    assert outcomes["lent"] + outcomes["late"] == 64 * 60
    assert outcomes["late"] > 100
    assert now(pool, "idle", "in_use", "waiters", "lost", "lent") == (8, 0, 0, 0, outcomes["lent"])
    assert len(shop.made) == 8


def test_a_spike_makes_no_more_than_it_may(pool: AgentPool, shop: Workshop) -> None:
    together, got = threading.Barrier(40), list[Any]()

    def work() -> None:
        together.wait(20)
        borrowed(pool, got)()

    pool.register("a", shop.make, size=4)
    joined(started(*[work] * 40))
    assert len(got) == 40
    assert len(shop.made) <= 4


# --- interrupts and finalizers ---------------------------------------------------------------------------------------


class Interrupted(BaseException): ...


class Victim(threading.Thread):
    """Borrows again and again, and survives being interrupted."""

    def __init__(self, pool: AgentPool, stop: threading.Event) -> None:
        super().__init__()
        self.pool, self.stop = pool, stop
        self.sent = self.caught = 0

    def run(self) -> None:
        while not self.stop.is_set():
            with suppress(Interrupted):  # on 3.13 it may strike outside of the inner try: at the jump back of its loop
                self.borrow()
            self.caught += 1

    def borrow(self) -> None:
        try:
            while self.sent == self.caught and not self.stop.is_set():
                with self.pool.get_agent("a", 5):
                    pass
            for _ in range(200):  # on its way, if no finalizer swallowed it: nothing else may be struck by it
                threading.Event().wait(0.0001)
        except Interrupted:
            pass

    def interrupt(self) -> None:
        if self.sent == self.caught and self.ident is not None:
            self.sent += 1
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.ident), ctypes.py_object(Interrupted))


def test_interrupted_threads_take_no_agent_with_them(shop: Workshop) -> None:
    pool, stop = AgentPool(), threading.Event()
    pool.register("a", shop.make, size=4, close=shop.close)
    victims = [Victim(pool, stop) for _ in range(6)]
    for victim in victims:
        victim.start()
    while sum(victim.sent for victim in victims) < 1500:
        for victim in victims:
            victim.interrupt()
        threading.Event().wait(0.0002)
    until(lambda: all(victim.sent == victim.caught for victim in victims))
    stop.set()
    joined(list(victims))
    gc.collect()
    assert now(pool, "in_use", "waiters") == (0, 0)
    loans = [pool.get_agent("a", 0) for _ in range(4)]
    assert len({loan.__enter__().number for loan in loans}) == 4
    sweep(pool)
    assert len(shop.closed) == len(shop.made) - 4  # those that were lost are closed


def test_an_agent_handed_over_as_its_caller_is_interrupted_goes_to_the_next(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, size=1)
    loan = pool.get_agent("a")
    loan.__enter__()
    shelf = pool._lenders["a"]._shelf
    await_gate = shelf._await

    class Gate:
        def acquire(self, timeout: float) -> bool:
            loan.__exit__(None, None, None)
            raise Interrupted

        def release(self) -> None: ...

    def interrupted(waiter: Any, timeout: float) -> Any:
        waiter.gate = Gate()
        return await_gate(waiter, timeout)

    shelf._await = interrupted  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        pool.get_agent("a").__enter__()
    assert now(pool, "idle", "in_use", "waiters", "lost") == (1, 0, 0, 0)


def test_a_forgotten_loan_frees_its_place(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, size=1, close=shop.close)
    got: list[Any] = []
    loan = pool.get_agent("a")
    loan.__enter__()
    threads = waiting(pool, borrowed(pool, got))
    del loan
    gc.collect()
    joined(threads)
    assert got == [1]
    assert shop.closed == [0]
    assert now(pool, "lost") == (1,)


def test_a_place_is_free_even_if_the_finalizer_of_its_slot_is_interrupted(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, size=1)
    loan = pool.get_agent("a")
    loan.__enter__()
    assert loan._slot is not None
    loan._slot._shelf = None  # so the finalizer does nothing
    del loan
    gc.collect()
    assert now(pool, "in_use", "lost") == (0, 1)
    with pool.get_agent("a", 0) as agent:
        assert agent.number == 1


def test_a_loan_ended_by_a_finalizer_inside_the_lock_does_not_block(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, size=1)
    got: list[Any] = []
    loan = pool.get_agent("a")
    loan.__enter__()
    threads = waiting(pool, borrowed(pool, got))
    shelf = pool._lenders["a"]._shelf
    with shelf._lock:  # a generator with a loan is collected on the thread that holds the lock
        loan.__exit__(None, None, None)
    shelf.settle()
    joined(threads)
    assert got == [0]


# --- fork ------------------------------------------------------------------------------------------------------------


@no_fork
@quiet_fork
@pytest.mark.parametrize("fork", [os.fork, fork_unnoticed])
def test_a_child_starts_with_the_types_and_without_the_objects(
    pool: AgentPool, shop: Workshop, clock: FakeClock, fork: Callable[[], int]
) -> None:
    pool.register("a", shop.make, size=2, close=shop.close)
    pool.warm_up("a", 2)
    clock.advance(1)  # a fork that Python is not told of is noticed where an agent was idle, or is to be made

    def child() -> Any:
        with pool.get_agent("a", 0) as one, pool.get_agent("a", 0) as two:
            numbers = {one.number, two.number}
        pool.close()
        return numbers, sorted(shop.closed)

    assert await_child(*start_child(child, fork=fork)) == ({2, 3}, [2, 3])
    assert now(pool, "idle", "created") == (2, 2)


@no_fork
@quiet_fork
def test_an_agent_lent_while_forking_is_dropped_by_the_child_not_closed(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, size=1, close=shop.close)

    def child_of_a_loan() -> Any:
        loan.__exit__(None, None, None)
        with pool.get_agent("a", 0) as agent:
            return agent.number, shop.closed, now(pool, "idle", "in_use")

    loan = pool.get_agent("a")
    with loan:
        assert in_child(child_of_a_loan) == (1, [], (0, 1))
    with pool.get_agent("a", 0) as agent:
        assert agent.number == 0


@no_fork
@quiet_fork
def test_no_child_hangs_that_is_forked_under_load() -> None:
    pool, stop = AgentPool(), threading.Event()
    pool.register("a", lambda: Agent(os.getpid()), size=4)

    def work() -> None:
        while not stop.is_set():
            with pool.get_agent("a"):
                threading.Event().wait(0.0001)

    def child() -> Any:
        with pool.get_agent("a", 5) as agent:
            return agent.number == os.getpid(), now(pool, "size", "in_use", "waiters")

    threads = started(*[work] * 8)
    try:
        answers = [await_child(*start_child(child)) for _ in range(60)]
    finally:
        stop.set()
        joined(threads)
    assert answers == [(True, (4, 1, 0))] * 60
