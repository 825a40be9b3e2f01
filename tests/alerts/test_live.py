"""One rule of the four, live: four workers under gunicorn, a provider that fails, and a watcher that is killed."""

from __future__ import annotations

import json
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from _parts import needs_module
from _receiver import Receiver
from _servers import Server, environment, polled

from perfkit.testing import FaultServer, faults

WORKERS = 4
GUNICORN = ("--bind", "fd://{fd}", "--workers", str(WORKERS), "--threads", "2", "alerts.app:application")
MINE = "high_error_rate"


class App:
    """The running app, and what it has told."""

    def __init__(self, server: Server, told: Path) -> None:
        self.server, self._told = server, told
        self.sent = 0

    def ask(self, n: int, portions: int = 12) -> list[dict[str, Any]]:
        """Ask from several connections at once, so that all workers get some."""
        self.sent += n * portions
        with ThreadPoolExecutor(8) as clients:
            replies = list(clients.map(lambda _: self.server.get(f"/?n={n}"), range(portions)))
        return [json.loads(body) for _, body in replies]

    def told(self) -> list[tuple[int, str]]:
        """Return the process and the state of each change of the rule."""
        lines = self._told.read_text().splitlines() if self._told.exists() else []
        rows = [json.loads(line) for line in lines]
        return [(pid, state) for pid, rule, labels, state in rows if (rule, labels) == (MINE, {"provider": "openai"})]

    def until(self, state: str, n: int = 0) -> None:
        """Wait until the rule has told of a state, asking on meanwhile."""
        polled(lambda: self.ask(n, 2) and state in [told for _, told in self.told()])

    def everywhere(self, state: str) -> bool:
        """Tell whether all workers say that the rule is in a state."""
        replies = self.ask(0, 24)
        return len({reply["pid"] for reply in replies}) == WORKERS and {r["state"][MINE] for r in replies} == {state}


@pytest.mark.timeout(90)
@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["plain", "preload"])
def test_an_alert_of_four_workers_is_told_once_even_when_its_watcher_dies(
    preload: tuple[str, ...], fault: FaultServer, receiver: Receiver, tmp_path: Path
) -> None:
    needs_module("gunicorn")
    told = tmp_path / "told"
    env = environment(
        LLM=fault.base_url, STORE=str(tmp_path / "store"), WEBHOOK=receiver.url, TOLD=str(told), NO_PROXY="*"
    )
    with Server("gunicorn", *preload, *GUNICORN, env=env) as server:
        app = App(server, told)
        fault.behave(faults.server_error())
        app.ask(2)
        app.until("firing")
        polled(lambda: app.everywhere("firing"))
        ((first, _), (watcher, _)) = app.told()
        assert first == watcher

        if watcher != server.process.pid:
            os.kill(watcher, signal.SIGKILL)
        fault.behave(faults.ok("fine"))
        assert sum(reply["answered"] for reply in app.ask(40)) == 480
        app.until("resolved")
        assert [state for _, state in app.told()] == ["pending", "firing", "resolved"]
        assert (app.told()[-1][0] != watcher) is (watcher != server.process.pid)  # the master may watch, and lives on
        hooks = [body["state"] for _, body in receiver.got if body["rule"] == MINE]
        assert hooks == ["firing", "resolved"]
        check_page(app, answered=480)
        assert server.stop() == 0


def check_page(app: App, answered: int) -> None:
    """Check that the page of any worker has the calls of all, also of the one that was killed."""
    count = re.compile(r'^perfkit_provider_latency_seconds_count\{model="m",provider="openai"\} (\d+)$', re.MULTILINE)
    failed = re.compile(r"^perfkit_provider_failure_total\{.*\} (\d+)$", re.MULTILINE)
    for _ in range(4):
        page = app.server.get("/metrics")[1].decode()
        assert [int(n) for n in count.findall(page)] == [answered]
        assert sum(int(n) for n in failed.findall(page)) == 24
