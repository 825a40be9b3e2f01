"""The growing scenario: a web app under gunicorn with a real model behind it, while parts of it die.

Two workers with eight threads each serve the Flask example. Three providers answer: the real llama.cpp behind two gates
(one asked in OpenAI's shape, one in Anthropic's), and a server that echoes; budgets and metrics are shared through a
real Redis. Eight clients ask, some questions again and again, some as streams. One gate is killed, then Redis, then one
worker; then the gate and Redis come back.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import random
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest
from _parts import needs_module
from _servers import Datagrams, Redis, Server, environment, polled

import perfkit
from perfkit.clock import SYSTEM_CLOCK
from perfkit.testing import FaultServer

if TYPE_CHECKING:
    from perfkit.testing import LlamaServer

CLIENTS, QUESTIONS, SEED = 8, 480, 11
GUNICORN = ("--bind", "fd://{fd}", "--workers", "2", "--threads", "8", "scenario_app:app")
LINE = re.compile(r"perfkit\.[\w.-]+:-?\d+(\.\d+)?(e-?\d+)?\|(c|ms|g)")
PRICE = {"input": 1.0, "output": 1.0}  # dollars per million tokens
UNSENT = 1.0  # seconds before its death of which a killed worker may not have sent the metrics yet; it flushes each 0.1
METRICS = ("agent_response_time", "provider_latency", "cache_hit", "cache_miss", "token_usage", "first_token")


@dataclass
class Visit:
    """One request of a client and what came of it; times are monotonic seconds."""

    path: str  # "/ask" or "/stream"
    question: str
    began: float
    ended: float = 0.0
    worker: int = 0
    status: int = 0
    text: str = ""
    failure: str = ""

    def under_way(self, moment: tuple[float, float]) -> bool:
        """Whether it was under way when something died, between two readings of the clock."""
        return self.began <= moment[1] and self.ended >= moment[0]


def visit(port: int, path: str, question: str) -> Visit:
    """Ask once, on a connection of its own."""
    seen = Visit(path, question, SYSTEM_CLOCK.now())
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", f"{path}?{urlencode({'q': question})}")
        reply = connection.getresponse()
        seen.status, seen.worker = reply.status, int(reply.headers["X-Worker"])
        while data := reply.read1():
            seen.text += data.decode()
        if reply.length:  # read1() takes any end for the end
            raise http.client.IncompleteRead(b"", reply.length)
    except (OSError, http.client.HTTPException) as error:
        seen.failure = repr(error)
    finally:
        connection.close()
    seen.ended = SYSTEM_CLOCK.now()
    return seen


def questions() -> Iterator[tuple[str, str]]:
    """Yield what the clients ask: a third are streams, a third come again."""
    rng = random.Random(SEED)
    for number in range(QUESTIONS):
        path = rng.choice(["/ask", "/ask", "/stream"])
        yield path, f"often asked {rng.randrange(20)}" if rng.random() < 1 / 2 else f"fresh {number}"


class Story:
    """What happens while the clients ask: the n-th request sets off what is planned for it."""

    def __init__(self, port: int, plan: dict[int, Callable[[], object]]) -> None:
        self.port, self.plan = port, plan
        self.visits: list[Visit] = []
        self.moments: list[tuple[float, float]] = []  # when each event began and was over, in the order of the plan
        self._begun = 0
        self._lock = threading.Lock()  # guards `_begun`

    def tell(self) -> None:
        with ThreadPoolExecutor(CLIENTS) as clients:
            list(clients.map(lambda one: self._next(*one), questions()))

    def _next(self, path: str, question: str) -> None:
        with self._lock:
            self._begun += 1
            event = self.plan.get(self._begun)
        if event is not None:
            before = SYSTEM_CLOCK.now()
            event()
            self.moments.append((before, SYSTEM_CLOCK.now()))
        self.visits.append(visit(self.port, path, question))


def scenario(echo: FaultServer, gates: dict[str, FaultServer], redis: Path) -> str:
    """Return the app's configuration."""
    providers = {
        "main": {"kind": "openai", "base_url": gates["main"].base_url, "api_key": "none"},
        "second": {"kind": "anthropic", "base_url": gates["second"].base_url, "api_key": "none"},
        "echo": {"kind": "openai", "base_url": echo.base_url, "api_key": "none"},
    }
    router = {"strategy": "round_robin", "open_seconds": 0.5}
    tokens = {"budgets": [{"scope": ["global", "*"], "limit": 1000, "period": "day"}], "fallback_price": PRICE}
    state, metrics = {"url": f"unix://{redis}"}, {"flush_interval": 0.1, "store": "redis"}
    return json.dumps({"providers": providers, "router": router, "tokens": tokens, "state": state, "metrics": metrics})


def prompt(question: str) -> str:
    return f"Answer in one sentence: {question}"


def right_answers(llm: LlamaServer, asked: set[str]) -> dict[str, set[str]]:
    """Return what the echo and the model say to each question: at temperature 0 the model says always the same."""
    perfkit.configure(providers={"model": {"kind": "openai", "base_url": llm.base_url}})
    same = {"model": "tiny", "temperature": 0, "max_tokens": 32, "cache": "never"}
    requests = [{"messages": prompt(q), **same} for q in sorted(asked)]
    said = perfkit.batch(requests, max_concurrent=4)
    return {q: {answer.text, f"echo: {prompt(q)}"} for q, answer in zip(sorted(asked), said, strict=True)}


def workers(server: Server) -> set[int]:
    return set(server.processes()) - {server.process.pid}


def two_workers(server: Server, dead: int = 0) -> set[int]:
    """Wait until there are two, none of them `dead`, and return them."""
    return set(polled(lambda: len(pids := workers(server)) == 2 and dead not in pids and pids))


def recovered(server: Server, worker: int, question: str) -> bool:
    """Ask once more, and tell whether `worker` says that all its providers work and that none is at work."""
    visit(server.port, "/ask", question)
    seen = visit(server.port, "/stats", "")
    told = json.loads(seen.text)["providers"].values()
    return seen.worker == worker and {(one["state"], one["in_flight"]) for one in told} == {("closed", 0)}


def check_failures(story: Story) -> list[Visit]:
    """Check that nothing failed but what was under way at something that died, and return what succeeded."""
    gate_died, _, worker_died = story.moments  # nothing may fail with Redis
    failed = [seen for seen in story.visits if seen.failure or seen.status != 200]
    lost = [seen for seen in failed if seen.under_way(worker_died)]
    cut = [seen for seen in failed if seen.path == "/stream" and seen.text and seen.under_way(gate_died)]
    assert [seen for seen in failed if seen not in lost and seen not in cut] == []
    assert len(lost) < CLIENTS
    assert len(cut) < CLIENTS
    return [seen for seen in story.visits if seen not in failed]


def check_answers(answered: list[Visit], llm: LlamaServer) -> None:
    """Check that each answer belongs to its question, as far as that can be told."""
    right = right_answers(llm, {seen.question for seen in answered})
    asks = [(seen.question, json.loads(seen.text)) for seen in answered if seen.path == "/ask"]
    assert [(question, said) for question, said in asks if said["text"] not in right[question]] == []
    assert {said["cached"] for _, said in asks} == {None, "exact"}
    times = Counter(question for question, _ in asks)
    assert {said["cached"] for question, said in asks if times[question] == 1} == {None}
    streams = [seen for seen in answered if seen.path == "/stream"]
    assert all(seen.text for seen in streams)
    echoed = [seen for seen in streams if seen.text.startswith("echo: ")]
    assert {seen.text == f"echo: {prompt(seen.question)}" for seen in echoed} == {True}


def check_metrics(sent: Datagrams, answered: list[Visit], victim: int, died: float) -> None:
    """Check that all lines are well-formed, and that those of every call came, but for the dead worker's last ones."""
    assert [line for line in sent.lines if not LINE.fullmatch(line)] == []
    assert {name for name in METRICS if sent.count(rf"{name}\b.*")} == set(METRICS)
    unsent = [seen for seen in answered if seen.worker == victim and seen.ended > died - UNSENT]
    assert sent.count(r"agent_response_time\b.*") >= len(answered) - len(unsent)


@pytest.fixture
def gates(llm: LlamaServer) -> Iterator[dict[str, FaultServer]]:
    with FaultServer(upstream=llm.root_url) as main, FaultServer(upstream=llm.root_url) as second:
        yield {"main": main, "second": second}


@pytest.mark.timeout(100)
def test_web_app_survives_the_death_of_a_provider_of_redis_and_of_a_worker(
    llm: LlamaServer, gates: dict[str, FaultServer], fault: FaultServer, redis: Redis
) -> None:
    needs_module("flask")
    needs_module("gunicorn")
    with Datagrams() as sent:
        env = environment(SCENARIO=scenario(fault, gates, redis.path), STATSD=sent.address)
        with Server("gunicorn", *GUNICORN, env=env) as server:
            polled(lambda: server.get("/stats")[0] == 200)
            victim = min(two_workers(server))
            plan: dict[int, Callable[[], object]] = {
                QUESTIONS // 4: gates["main"].kill,
                2 * QUESTIONS // 4: redis.kill,
                3 * QUESTIONS // 4: lambda: os.kill(victim, signal.SIGKILL),
            }
            story = Story(server.port, plan)
            story.tell()
            answered = check_failures(story)
            check_answers(answered, llm)

            gates["main"].start()
            redis.start()
            fresh = (f"after {number}" for number in itertools.count())
            polled(lambda: visit(server.port, "/ask", next(fresh)) and gates["main"].counters()["requests"])
            for worker in two_workers(server, dead=victim):
                polled(lambda: recovered(server, worker, next(fresh)))  # noqa: B023 - called at once

            assert server.stop() == 0
            assert server.processes() == []
        check_metrics(sent, answered, victim, story.moments[2][0])
        assert sent.count("state_unavailable") > 0  # it was asked while it was away
