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
from perfkit.testing import FaultServer, faults

REQUESTS, CLIENTS, SEED = 160, 8, 5
DOWN, ONCE = "/down/v1/chat/completions", {"max_attempts": 1}
PRICE = {"input": 1.0, "output": 2.0}  # dollars per million tokens
MODELS = (*7 * ("m",), "lost")  # of the second the provider fails
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
    """Asks, and counts what came: one in ten requests fails by itself, and of the others' calls one in eight."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.statuses: Counter[tuple[str, str]] = Counter()  # by route
        self.answers: list[dict[str, Any]] = []
        self.old: set[int] = set()  # workers before the restart

    def run(self) -> None:
        """Ask half of it while the workers are replaced, and half of the new workers."""
        chance = random.Random(SEED)
        paths = [
            "/broken"
            if chance.random() < 0.1
            else f"/ask?q=question+{chance.randrange(60)}&agent=a{chance.randrange(3)}&model={chance.choice(MODELS)}"
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
                self.statuses[paths[number].partition("?")[0], f"{status // 100}xx"] += 1
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
        fault.behave(faults.status(500), path=DOWN)
        providers = {
            name: {"kind": "openai", "base_url": f"{fault.root_url}{path}", "api_key": "k", "models": [model]}
            for name, path, model in (("fake", "/v1", "m"), ("down", "/down/v1", "lost"))
        }
        tables = {"providers": providers, "tokens": {"fallback_price": PRICE}, "metrics": metrics, "router": ONCE}
        with Server(program, *SERVERS[program], env=environment(TOTALS=json.dumps(tables))) as server:
            polled(lambda: server.get("/perfkit/")[0] == 200, 40)
            load = Load(server)
            load.run()
            assert server.stop() == 0
        sent = fault.counters()["paths"]
    assert load.statuses.total() == REQUESTS  # none was lost
    assert set(load.statuses) == {("/ask", "2xx"), ("/ask", "5xx"), ("/broken", "5xx")}
    workers = {answer["worker"] for answer in load.answers}
    assert workers & load.old
    assert workers - load.old

    perfkit.configure(metrics=metrics, tokens={"timezone": zone})
    told = json.loads(Dashboard().respond("GET", "data.json", {}).body)
    kinds = Counter(answer["cached"] or "miss" for answer in load.answers)
    failed = load.statuses["/ask", "5xx"]
    calls = len(load.answers) + failed
    overview = told["overview"]
    assert (overview["calls"], overview["calls_today"], overview["errors"]) == (calls, calls, failed)
    assert overview["error_rate"] == pytest.approx(failed / calls)
    assert (sum(told["history"]["calls"]), sum(told["history"]["errors"])) == (calls, failed)
    assert told["cache"]["results"] == kinds
    assert overview["cost_today"] == pytest.approx(sum(answer["cost"] for answer in load.answers))
    usage = told["tokens"]["usage"]
    assert sum(row["tokens_input"] + row["tokens_output"] for row in usage) == sum(a["tokens"] for a in load.answers)
    attempts = {name: row["requests"] for name, row in told["providers"]["models"].items()}
    assert attempts == {"fake/m": kinds["miss"], "down/lost": sent[DOWN]}
    view = perfkit.tracker.merged()
    for (route, status), number in load.statuses.items():
        tags = {"method": "GET", "route": route, "status": status}
        assert view.get_stats("http_server_request_duration", tags=tags)["count"] == number
    assert sent["/v1/chat/completions"] == kinds["miss"]
    assert 0 < sent[DOWN] <= failed  # what an open circuit refuses, or another call has asked already, is not sent
