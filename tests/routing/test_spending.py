from __future__ import annotations

import signal

from _servers import Redis, polled

from perfkit.clock import FakeClock
from perfkit.routing.spending import FRESH, Spending
from perfkit.state import RedisLink

DAY = 86_400


def test_a_day_begins_at_midnight_utc() -> None:
    clock = FakeClock(wall=DAY - 1.0)
    spent = Spending("a", 9.0, clock, lambda: None)
    spent.add(0.25)
    spent.add(0.5)
    assert spent.today() == 0.75
    clock.advance(1)
    assert spent.today() == 0.0


def test_what_is_spent_while_redis_is_away_is_told_once_it_is_back(redis: Redis, clock: FakeClock) -> None:
    links = [RedisLink(redis.url, timeout=5.0) for _ in range(2)]
    here, there = (Spending("a", 9.0, clock, lambda link=link: link) for link in links)  # type: ignore[misc]
    try:
        here.add(1.0)
        assert there.today() == 1.0
        redis.kill()
        here.add(0.5)
        assert here.today() == 1.5
        redis.start()
        polled(lambda: links[0].available)
        clock.advance(FRESH)
        assert here.today() == 1.5  # what it knew outlives the data of Redis
        polled(lambda: links[1].available)
        newcomer = Spending("a", 9.0, clock, lambda: links[1])
        assert newcomer.today() == 0.5  # what was spent meanwhile; the first dollar went with the data of Redis
    finally:
        for link in links:
            link.close()


def test_a_total_is_asked_for_once_a_second(redis: Redis, clock: FakeClock) -> None:
    link = RedisLink(redis.url, timeout=5.0)
    try:
        spent = Spending("a", 9.0, clock, lambda: link)
        spent.add(1.0)
        redis.signal(signal.SIGSTOP)
        assert [spent.today() for _ in range(100)] == [1.0] * 100
        assert link.available
        redis.signal(signal.SIGCONT)
    finally:
        link.close()
