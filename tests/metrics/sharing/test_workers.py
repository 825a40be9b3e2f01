"""Eight gunicorn workers, recycled, reloaded and killed while they serve, share exactly what was served."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

import pytest
from _parts import needs_module
from _servers import Redis, Server, environment, polled
from metrics.sharing.fast import SPEED, FastClock

import perfkit
from perfkit.metrics import MergedView, PerformanceTracker
from perfkit.metrics.sharing.files import FileStore

pytestmark = pytest.mark.timeout(60)

CLIENTS = 6
SLOT = 10.0
GUNICORN = (
    *("gunicorn", "--bind", "fd://{fd}", "--threads", "2", "--graceful-timeout", "10"),
    *("--max-requests", "60", "--max-requests-jitter", "60", "metrics.sharing.workers_app:application"),
)


@dataclass
class Clients:
    """What was served, by those who were served."""

    served: list[tuple[int, float, float]] = field(default_factory=list)  # pid, and seconds around the counting
    unsure: int = 0  # requests without an answer: they may have been counted
    over: threading.Event = field(default_factory=threading.Event)

    def ask(self, server: Server) -> None:
        while not self.over.is_set():
            try:
                status, body = server.get("/")
            except (OSError, HTTPException):
                self.unsure += 1
                continue
            assert status == 200
            pid, before, after = json.loads(body)
            self.served.append((pid, before, after))

    def by_worker(self) -> Counter[int]:
        return Counter(pid for pid, _, _ in self.served)


@contextmanager
def asking(*servers: Server) -> Iterator[Clients]:
    clients = Clients()
    threads = [threading.Thread(target=clients.ask, args=(servers[i % len(servers)],)) for i in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield clients
    finally:
        clients.over.set()
        for thread in threads:
            thread.join()


def run(workers: int, *options: str, **more: str) -> Server:
    return Server(*GUNICORN, "--workers", str(workers), *options, env=environment(**more))


def merged(view: MergedView, until: float | None = None) -> Counter[int]:
    found: Counter[int] = Counter()
    for series in view.series():
        if series.name == "served":
            pid = series.tags["pid"]
            found[int(pid)] += int(view.get_stats("served", since=0, until=until, tags={"pid": pid}).get("count", 0))
    return +found


def wait_for_slots(n: float) -> None:
    time.sleep(n * SLOT / SPEED)  # other processes' time cannot be made to pass


def strike(clients: Clients) -> tuple[int, float] | None:
    """Kill who served last, and return its id and when; None when it has ended of itself since."""
    now, (pid, _, _) = FastClock().wall(), clients.served[-1]
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return pid, now
    return None


def test_recycled_reloaded_and_killed_workers_have_counted_what_was_served(tmp_path: Path) -> None:
    needs_module("gunicorn")
    store = tmp_path / "metrics"
    reader = PerformanceTracker(clock=FastClock(), store=str(store))
    with run(8, STORE=str(store)) as server:
        with asking(server) as clients:
            polled(lambda: len(clients.by_worker()) >= 8)
            wait_for_slots(1.5)
            server.process.send_signal(signal.SIGHUP)
            wait_for_slots(1)
            victim, killed = polled(lambda: strike(clients))
            wait_for_slots(2)
            boundary = FastClock().wall() // SLOT * SLOT

            def told_to_the_last_closed_slot() -> bool:
                closed = merged(reader.merged(), until=boundary)
                least = Counter(pid for pid, _, after in clients.served if after < boundary and pid != victim)
                return all(closed[pid] >= n for pid, n in least.items())

            polled(told_to_the_last_closed_slot)
            closed = merged(reader.merged(), until=boundary)
            processes = set(server.processes())
            alive = {worker.pid for worker in reader.merged().workers}
            processes |= set(server.processes())
        assert server.stop() == 0
    told, total = clients.by_worker(), merged(reader.merged())

    # While it ran, no more than was served; a value on the edge of a slot may be on either side of it.
    most = Counter(pid for pid, before, _ in clients.served if before < boundary and pid != victim)
    assert sum((closed - most).values()) - closed[victim] <= clients.unsure
    assert len(alive - processes) <= 1  # it may just have ended; those recycled a moment ago have not reported yet

    # When all had ended: everything, but of the killed one what its last slot held, or the last two on a busy machine.
    late = sum(pid == victim and after >= killed // SLOT * SLOT - SLOT for pid, _, after in clients.served)
    assert told[victim] - late <= total.pop(victim, 0) <= told.pop(victim) + clients.unsure
    assert {pid: n - total[pid] for pid, n in told.items() if total[pid] < n} == {}
    assert sum(total.values()) - sum(told.values()) <= clients.unsure
    assert len(told) > 9  # others than the first eight, and the one that came for the killed
    last = reader.merged().workers  # of whom gunicorn had to kill, init has to be told first
    polled(lambda: not any(Path(f"/proc/{worker.pid}").exists() for worker in last))
    assert reader.merged().workers == ()
    reader.flush()
    names = FileStore(store).names()
    assert len([name for name in names if not name.startswith("delta.")]) == 5


def test_two_hosts_share_through_redis(redis: Redis) -> None:
    needs_module("gunicorn")
    perfkit.configure(state={"url": redis.url, "timeout": 5.0})
    reader = PerformanceTracker(clock=FastClock(), store="redis", host="c")
    with ExitStack() as stack:
        lasting = ("--max-requests", "0")
        servers = [stack.enter_context(run(2, *lasting, STORE="redis", STATE=redis.url, HOST=host)) for host in "ab"]
        with asking(*servers) as clients:
            polled(lambda: len(clients.by_worker()) >= 4)
            wait_for_slots(1)
            polled(lambda: {worker.host for worker in reader.merged().workers} == {"a", "b"})
        assert [server.stop() for server in servers] == [0, 0]
    assert clients.unsure == 0
    assert merged(reader.merged()) == clients.by_worker()
