"""Does the dashboard tell what happened? A web app under load, restarted in the middle, counted from both sides.

    python benchmarks/app_load.py [SECONDS] [--quick] [--json] [--server NAME]

gunicorn (4 workers of 8 threads), uWSGI prefork (4 processes) and Celery prefork (4 children) each get `--rate`
requests a second for SECONDS (60), of which some fail and many repeat. Half way the workers are replaced gracefully (by
HUP; uWSGI's by touching a file). The dashboard is read all along, and again when the server has ended: its totals must
be the load generator's own, and never have gone down. Exits with 1 where one differs, or where a request was lost.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from _servers import Server, environment, redis_server

import perfkit
from perfkit.dashboard import Dashboard
from perfkit.testing import FaultServer

HERE = Path(__file__).resolve().parent
CLIENTS = 8
SEED = 9
PATIENCE = 60.0  # seconds for a server to answer, or to end
SERVERS = {
    "gunicorn gthread 4 x 8": (
        *("gunicorn", "--bind", "fd://{fd}", "--workers", "4", "--threads", "8", "_loaded_app:app"),
    ),
    "uWSGI prefork 4": (
        *("pyuwsgi", "--http-socket", "fd://{fd}", "--processes", "4", "--master", "--need-app", "--disable-logging"),
        *("--enable-threads", "--module", "_loaded_app:app", "--touch-workers-reload", "{restart}"),
        *("--hook-master-start", "unix_signal:15 gracefully_kill_them_all"),
    ),
    "Celery prefork 4": (
        *("celery", "-A", "_loaded_app:tasks", "worker", "-P", "prefork", "-c", "4", "-l", "WARNING"),
        "--without-mingle",
    ),
}


class Asked(NamedTuple):
    """What became of one request: "2xx", "5xx" or "lost", and the answer."""

    status: str
    answer: dict[str, Any]


class Site:
    """A web server under test; restarting and ending it are signals."""

    metric = "http_server_request_duration"

    def __init__(self, server: Server, restart: Path) -> None:
        self._process, self._port, self._restart = server.process, server.port, restart

    def restart(self) -> None:
        """Replace the workers gracefully."""
        if self._restart.exists():  # uWSGI: of its wheel only the workers can be restarted, by touching a file
            self._restart.touch()
        else:
            self._process.send_signal(signal.SIGHUP)

    def ask(self, question: str, agent: str) -> Asked:
        query = urlencode({"q": question, "agent": agent})
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/ask?{query}", timeout=PATIENCE) as reply:
                return Asked("2xx", json.loads(reply.read()))
        except urllib.error.HTTPError as error:
            return Asked(f"{error.code // 100}xx", {})
        except (OSError, HTTPException):
            return Asked("lost", {})

    def counted(self, statuses: Counter[str]) -> Iterator[tuple[dict[str, str], int]]:
        for status, number in statuses.items():
            yield {"method": "GET", "route": "/ask", "status": status}, number


class Queue(Site):
    """A Celery worker; its clients wait for results."""

    metric = "task_duration"

    def __init__(self, server: Server, restart: Path, broker: str) -> None:
        from celery import Celery

        super().__init__(server, restart)
        self._app = Celery("client", broker=broker, backend=broker)

    def ask(self, question: str, agent: str) -> Asked:
        try:
            result = self._app.send_task("ask", [question, agent])
            return Asked("2xx", result.get(timeout=PATIENCE, interval=0.02))
        except Exception as error:  # the backend makes the task's own exception, or one like it
            return Asked("5xx" if "as asked" in str(error) else "lost", {})

    def counted(self, statuses: Counter[str]) -> Iterator[tuple[dict[str, str], int]]:
        for status, number in statuses.items():
            yield {"task": "ask", "state": "SUCCESS" if status == "2xx" else "FAILURE"}, number


@contextmanager
def serving(name: str, tables: dict[str, Any], directory: Path) -> Iterator[Site]:
    """Start a server; end it gracefully."""
    with ExitStack() as stack:
        env = environment(TABLES=json.dumps(tables), PYTHONPATH=f"{HERE.parent}:{HERE}")
        broker = stack.enter_context(redis()) if name.startswith("Celery") else None
        if broker is not None:
            env["BROKER"] = broker
        restart = directory / "restart"
        if any("{restart}" in part for part in SERVERS[name]):
            restart.touch()
        command = [part.replace("{restart}", str(restart)) for part in SERVERS[name]]
        server = stack.enter_context(Server(*command, env=env))
        yield Site(server, restart) if broker is None else Queue(server, restart, broker)
        server.process.terminate()
        server.process.wait(PATIENCE)


@contextmanager
def redis() -> Iterator[str]:
    """Run a Redis and return its address."""
    with redis_server() as server:
        yield f"redis+socket://{server.directory / 'redis.sock'}"


class Load:
    """Asks at a steady rate, and counts what came; the dashboard is read beside it."""

    def __init__(self, site: Site, seconds: float, rate: float) -> None:
        self._site, self._seconds, self._rate = site, seconds, rate
        self._random = random.Random(SEED)
        self.asked: list[Asked] = []
        self.went_down = 0
        self.readings = 0

    def run(self) -> None:
        watching = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(watching,))
        watcher.start()
        total = round(self._seconds * self._rate)
        began = time.monotonic()
        with ThreadPoolExecutor(4 * CLIENTS) as clients:
            waiting = []
            for number in range(total):
                time.sleep(max(0.0, began + number / self._rate - time.monotonic()))
                if number == total // 2:
                    self._site.restart()
                question = "break" if self._random.random() < 0.05 else f"question {self._random.randrange(total // 3)}"
                waiting.append(clients.submit(self._site.ask, question, f"agent {number % 3}"))
            self.asked = [one.result() for one in waiting]
        watching.set()
        watcher.join()

    def _watch(self, ended: threading.Event) -> None:
        last = 0
        while not ended.wait(0.5):
            calls = told("panels/overview.json")["calls"]
            self.went_down += calls < last
            self.readings += 1
            last = calls


def told(path: str) -> dict[str, Any]:
    """Return what the dashboard tells."""
    data: dict[str, Any] = json.loads(Dashboard().respond("GET", path, {"range": "1h"}).body)
    return data


def compared(site: Site, load: Load, provider_requests: int) -> dict[str, tuple[float, float]]:
    """Return pairs: what the load generator counted, and what the dashboard tells."""
    answers = [one.answer for one in load.asked if one.status == "2xx"]
    kinds = Counter(answer["cached"] or "miss" for answer in answers)
    data, view = told("data.json"), perfkit.tracker.merged()
    usage = data["tokens"]["usage"]
    pairs: dict[str, tuple[float, float]] = {
        "calls": (len(answers), data["overview"]["calls"]),
        "hits": (kinds["exact"], data["cache"]["results"].get("exact", 0)),
        "misses": (kinds["miss"], data["cache"]["results"].get("miss", 0)),
        "provider requests": (provider_requests, sum(r["requests"] for r in data["providers"]["models"].values())),
        "tokens": (sum(a["tokens"] for a in answers), sum(r["tokens_input"] + r["tokens_output"] for r in usage)),
        "cost": (sum(answer["cost"] for answer in answers), data["overview"]["cost_today"]),
    }
    for tags, number in site.counted(Counter(one.status for one in load.asked)):
        label = f"{tags.get('status', tags.get('state'))} requests"
        pairs[label] = (number, view.get_stats(site.metric, tags=tags).get("count", 0))
    return pairs


def measured(name: str, seconds: float, rate: float) -> dict[str, Any]:
    """Run one server under load."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="perfkit-load-")))
        provider = stack.enter_context(FaultServer(latency=0.005))
        tables: dict[str, Any] = {
            "providers": {"fake": {"kind": "openai", "base_url": provider.base_url, "api_key": "k"}},
            "tokens": {"fallback_price": {"input": 1.0, "output": 2.0}},
            "metrics": {"store": str(directory / "store"), "flush_interval": 1.0},
        }
        perfkit.configure(metrics={"store": tables["metrics"]["store"]})
        with serving(name, tables, directory) as site:
            first = site.ask("are you there?", "agent 0")
            load = Load(site, seconds, rate)
            load.run()
            load.asked.insert(0, first)
        pairs = compared(site, load, provider.counters()["requests"])
        workers = {one.answer["worker"] for one in load.asked if one.answer}
        perfkit.tracker.reset()
    lost = sum(one.status == "lost" for one in load.asked)
    different = [label for label, (ours, theirs) in pairs.items() if abs(ours - theirs) > 1e-9 * max(1.0, ours)]
    return {
        "seconds": seconds, "requests": len(load.asked), "lost": lost, "workers": len(workers),
        "readings": load.readings, "went_down": load.went_down, "different": different,
        "load generator and dashboard": pairs,
    }  # fmt: skip


def show(name: str, found: dict[str, Any]) -> None:
    """Print one server's table."""
    print(f"{name}: {found['requests']} requests in {found['seconds']:g} s, {found['lost']} lost;")
    print(
        f"  {found['workers']} workers before and after; of {found['readings']} readings {found['went_down']} went down"
    )
    print(f"  {'':20}{'load generator':>16}{'dashboard':>16}")
    for label, (ours, theirs) in found["load generator and dashboard"].items():
        print(f"  {label:20}{ours:>16.10g}{theirs:>16.10g}{'  DIFFERENT' if label in found['different'] else ''}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("seconds", type=float, nargs="?", default=60.0)
    parser.add_argument("--rate", type=float, default=40.0, help="requests a second")
    parser.add_argument("--server", choices=SERVERS, action="append", help="only these")
    parser.add_argument("--quick", action="store_true", help="3 seconds each, for CI")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    seconds = 3.0 if options.quick else options.seconds
    found = {}
    for name in options.server or SERVERS:
        found[name] = measured(name, seconds, options.rate)
        if not options.json:
            show(name, found[name])
    if options.json:
        print(json.dumps({"unit": "requests", "rate": options.rate, "load": os.getloadavg()[0], "results": found}))
    return int(any(one["lost"] or one["different"] or one["went_down"] for one in found.values()))


if __name__ == "__main__":
    sys.exit(main())
