"""The pool of agents: age, warm-up, resize, reload, drain and shutdown."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest
from _servers import polled
from agents.workshop import (
    Agent,
    Workshop,
    borrowed,
    joined,
    now,
    started,
    sweep,
    waiting,
)

import perfkit
from perfkit import _process
from perfkit.agents import AgentPool
from perfkit.clock import FakeClock
from perfkit.errors import PoolTimeout

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
        polled(lambda: now(pool, "idle", "in_use") == (2, 1))
    sweep(pool)
    assert len(shop.made) == 3


def test_a_sweep_whose_agents_cannot_be_made_is_done_by_the_next(pool: AgentPool, shop: Workshop) -> None:
    shop.broken = True
    pool.register("a", shop.make, size=5, min_idle=3)
    sweep(pool)
    polled(lambda: now(pool, "failed", "in_use") == (3, 0))
    shop.broken = False
    sweep(pool)
    polled(lambda: now(pool, "idle", "in_use") == (3, 0))


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
        polled(lambda: pool._lenders["a"]._shelf._watchers)
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
    assert [wait["histogram"][bound] for bound in (0.001, 1.0, 3.0, 30.0)] == [1, 1, 2, 2]
