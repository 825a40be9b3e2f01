"""What the dashboard adds up over all workers is what those who asked have counted, also over a rolling restart."""

from __future__ import annotations

import json
import random
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from _noon import noon
from _parts import needs_module
from _servers import Server, environment, polled

import perfkit
from perfkit.dashboard import Dashboard
from perfkit.testing import FaultServer

REQUESTS, CLIENTS, SEED = 160, 8, 5
PRICE = {"input": 1.0, "output": 2.0}  # dollars per million tokens
FIFO = "orders"  # in the server's directory: uWSGI's master reads there what to do
SERVERS = {
    "gunicorn": ("--bind", "fd://{fd}", "--workers", "2", "--threads", "4", "dashboard.totals_app:app"),
    "pyuwsgi": (
        *("--http-socket", "fd://{fd}", "--processes", "2", "--master", "--need-app", "--enable-threads"),
        *("--module", "dashboard.totals_app:app", "--master-fifo", FIFO),
        *("--hook-master-start", "unix_signal:15 gracefully_kill_them_all"),
    ),
}


class Load:
    """Asks, and counts what came."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.statuses: Counter[str] = Counter()
        self.answers: list[dict[str, Any]] = []
        self.old: set[int] = set()  # workers before the restart

    def run(self) -> None:
        """Ask half of it while the workers are replaced, and half of the new workers."""
        chance = random.Random(SEED)
        paths = [
            "/broken"
            if chance.random() < 0.1
            else f"/ask?q=question+{chance.randrange(60)}&agent=a{chance.randrange(3)}"
            for _ in range(REQUESTS)
        ]
        self.old = self.processes()
        self.ask(paths[: REQUESTS // 2], restart_at=REQUESTS // 4)
        polled(lambda: not self.processes() & self.old, 40)
        self.ask(paths[REQUESTS // 2 :])

    def processes(self) -> set[int]:
        return set(self.server.processes()) - {self.server.process.pid}

    def ask(self, paths: list[str], restart_at: int = -1) -> None:
        with ThreadPoolExecutor(CLIENTS) as clients:
            for number, (status, body) in enumerate(clients.map(self.server.get, paths)):
                self.statuses[f"{status // 100}xx"] += 1
                if status == 200:
                    self.answers.append(json.loads(body))
                if number == restart_at:
                    self.restart()

    def restart(self) -> None:
        """Have new workers started, while the others finish."""
        orders = self.server.directory / FIFO
        if orders.exists():
            orders.write_text("w")
        else:
            self.server.process.send_signal(signal.SIGHUP)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("program", SERVERS)
def test_totals_of_all_workers_are_those_of_the_load(program: str, tmp_path: Path) -> None:
    needs_module("flask")
    needs_module(program)
    zone, metrics = noon(), {"store": str(tmp_path / "store")}
    with FaultServer() as fault:  # of its own: what other tests have left cannot ask it
        providers = {"fake": {"kind": "openai", "base_url": fault.base_url, "api_key": "k"}}
        tables = {"providers": providers, "tokens": {"fallback_price": PRICE}, "metrics": metrics}
        with Server(program, *SERVERS[program], env=environment(TOTALS=json.dumps(tables))) as server:
            polled(lambda: server.get("/perfkit/")[0] == 200, 40)
            load = Load(server)
            load.run()
            assert server.stop() == 0
        sent = fault.counters()["paths"]
    assert load.statuses.total() == REQUESTS  # none was lost
    assert set(load.statuses) == {"2xx", "5xx"}
    workers = {answer["worker"] for answer in load.answers}
    assert workers & load.old
    assert workers - load.old

    perfkit.configure(metrics=metrics, tokens={"timezone": zone})
    told = json.loads(Dashboard().respond("GET", "data.json", {}).body)
    kinds = Counter(answer["cached"] or "miss" for answer in load.answers)
    assert told["overview"]["calls"] == len(load.answers)
    assert told["overview"]["calls_today"] == len(load.answers)
    assert told["cache"]["results"] == kinds
    assert told["overview"]["cost_today"] == pytest.approx(sum(answer["cost"] for answer in load.answers))
    usage = told["tokens"]["usage"]
    assert sum(row["tokens_input"] + row["tokens_output"] for row in usage) == sum(a["tokens"] for a in load.answers)
    assert sum(row["requests"] for row in told["providers"]["models"].values()) == kinds["miss"]
    view = perfkit.tracker.merged()
    for status, number in load.statuses.items():
        route = "/broken" if status == "5xx" else "/ask"
        tags = {"method": "GET", "route": route, "status": status}
        assert view.get_stats("http_server_request_duration", tags=tags)["count"] == number
    assert sent == {"/v1/chat/completions": kinds["miss"]}
