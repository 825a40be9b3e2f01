"""The growing scenario: a web app under gunicorn with a real model behind it, while parts of it die.

Two workers with eight threads each serve the Flask example. Three providers answer: the real llama.cpp behind two gates
(one asked in OpenAI's shape, one in Anthropic's), and a server that echoes; at the first gate and at the echo there is
also a teller of one long tale. Cache, budgets and health are shared through a real Redis, metrics through a directory.
Eight clients ask, some questions again and again, some as streams, while a ninth reads the dashboard. One gate is
killed in the middle of a tale, then Redis, then one worker; then the gate and Redis come back.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from _parts import needs_module
from _scenario import CLIENTS, GUNICORN, TOKEN, Asked, Story, Visit, completed, prompt, two_workers, visit, warmed_up
from _servers import Datagrams, Redis, Server, environment, polled

import perfkit
from perfkit.metrics import PerformanceTracker
from perfkit.testing import FaultServer
from perfkit.testing.faults import ok, stall

if TYPE_CHECKING:
    from perfkit.testing import LlamaServer

QUESTIONS, SEED = 360, 11
AGENTS = 0.2  # share of new questions that an agent answers, lent from a pool of three to eight threads
LINE = re.compile(r"perfkit\.[\w.-]+:-?\d+(\.\d+)?(e-?\d+)?\|(c|ms|g)")
PRICE = {"input": 1.0, "output": 1.0}  # dollars per million tokens
UNSENT = 2.0  # seconds before its death of which a killed worker may not have sent the metrics yet
METRICS = ("agent_response_time", "provider_latency", "cache_hit", "cache_miss", "token_usage", "first_token")
TALE = " ".join(f"chapter-{number}" for number in range(40))
GATE_DOWN = {
    "condition": "error_rate > 0.1",
    "duration": 0.2,
    "severity": "critical",
    "by": ["provider"],
    "min_count": 5,
}
THRESHOLD = 5  # failures in a row that open a circuit


def questions() -> Iterator[Asked]:
    """Yield what the clients ask: a third are streams, some tales, half of the others come again; some ask agents."""
    rng = random.Random(SEED)
    for number in range(QUESTIONS):
        path = rng.choice(["/ask", "/ask", "/ask", "/ask", "/stream", "/tale"])
        again = f"often asked {rng.randrange(20)}" if rng.random() < 1 / 2 else None
        if again is None and path == "/ask" and rng.random() < AGENTS:
            path = "/team"
        yield Asked(path, again if again is not None else f"fresh {number}")


def scenario(stage: Stage) -> str:
    """Return the app's configuration."""
    providers = {
        "main": {"kind": "openai", "base_url": stage.gate.base_url, "models": ["tiny"]},
        "second": {"kind": "anthropic", "base_url": stage.second.base_url, "models": ["tiny"]},
        "echo": {"kind": "openai", "base_url": stage.echo.base_url, "models": ["tiny"]},
        "teller": {"kind": "openai", "base_url": f"{stage.gate.root_url}/tale/v1", "models": ["tale"]},
        "understudy": {"kind": "openai", "base_url": f"{stage.echo.root_url}/tale/v1", "models": ["tale"]},
    }
    tables = {
        "providers": {name: {**one, "api_key": "none"} for name, one in providers.items()},
        "router": {
            "strategy": "round_robin",
            "open_seconds": 0.5,
            "resume": True,
            "failure_threshold": THRESHOLD,
            "outlier_factor": None,  # tales take longer than short answers, and so are no outliers
        },
        "tokens": {"budgets": [{"scope": ["global", "*"], "limit": 1000, "period": "day"}], "fallback_price": PRICE},
        "state": {"url": stage.redis.url, "timeout": 2.0},  # a busy machine is not to be taken for a dead Redis
        "cache": {"backend": "redis"},
        "metrics": {"flush_interval": 0.1, "store": str(stage.directory / "metrics")},
        "alerts": {"interval": 0.2, "defaults": False, "rules": {"gate_down": GATE_DOWN}},
        "dashboard": {"token": TOKEN},
        "agents": {"types": {"writer": {"instructions": "Say it again.", "model": "tiny"}}},
        "profiler": {"slow_capture": "on", "slow_threshold": 3.0},  # no answer takes so long: 30 stacks a minute
        "gc": {"workload": "low_latency"},
        "web": {"collect_garbage": True},
    }
    return json.dumps(tables)


def right_answers(llm: LlamaServer, asked: set[str]) -> dict[str, set[str]]:
    """Return what the echo and the model say to each question: at temperature 0 the model says always the same."""
    perfkit.configure(providers={"model": {"kind": "openai", "base_url": llm.base_url}})
    same = {"model": "tiny", "temperature": 0, "max_tokens": 32, "cache": "never"}
    requests = [{"messages": prompt(q), **same} for q in sorted(asked)]
    said = perfkit.batch(requests, max_concurrent=4)
    return {q: {answer.text, f"echo: {prompt(q)}"} for q, answer in zip(sorted(asked), said, strict=True)}


# --- what happens


def tell_tales(server: FaultServer) -> None:
    server.behave(ok(TALE, interval=0.01), path="/tale/*")


def tales_resumed(server: FaultServer) -> int:
    """Return how many tales a server was asked to go on with."""
    bodies = [one["body"] for one in server.stats()["recent"] if one["path"].startswith("/tale") if one["body"]]
    return sum(len(json.loads(body)["messages"]) > 1 for body in bodies)


@dataclass
class Stage:
    """The servers behind the app, and what they have been asked until they died, or Redis did."""

    gate: FaultServer
    second: FaultServer
    echo: FaultServer
    redis: Redis
    directory: Path
    upstream: Counter[str] = field(default_factory=Counter)

    def kill_gate(self) -> None:
        """Kill the gate in the middle of a tale, and wait until somebody goes on with it."""
        self.gate.behave(stall(ok(TALE), after_events=20), path="/tale/*")  # held in its middle until the kill
        self.gate.wait_until(lambda seen: seen["held"] > 0, timeout=20)
        self.upstream.update(completed(self.gate))
        self.gate.kill()
        polled(lambda: tales_resumed(self.echo))

    def kill_redis(self) -> None:
        self.upstream.update(completed(self.second) + completed(self.echo))
        self.redis.kill()

    def restart(self) -> None:
        self.gate.start()
        tell_tales(self.gate)
        self.redis.start()

    def alert(self) -> list[str]:
        """Return all that was told of the gate's alert; there is none of any other provider but the gate's teller."""
        path = self.directory / "alerts"
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        assert {provider for _, provider, _ in rows} <= {"main", "teller"}
        return [state for _, provider, state in rows if provider == "main"]


@contextmanager
def read_dashboard(port: int) -> Iterator[list[Visit]]:
    """Read the dashboard again and again."""
    over, seen = threading.Event(), []

    def read() -> None:
        while not over.wait(0.3):
            seen.append(visit(port, Asked("/perfkit/data.json")))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield seen
    finally:
        over.set()
        reader.join()


def recovered(story: Story, worker: int, question: str) -> bool:
    """Ask once more, and tell whether `worker` says that all its providers work and that none is at work."""
    story.ask(Asked("/ask", question))
    story.ask(Asked("/tale", question))
    seen = visit(story.port, Asked("/stats"))
    providers = seen.told["providers"].values()
    return seen.worker == worker and {(one["state"], one["in_flight"]) for one in providers} == {("closed", 0)}


def resolved(story: Story, stage: Stage, fresh: Iterator[str]) -> bool:
    """Ask the gate more, and tell whether its alert is over."""
    story.tell(Asked("/main", next(fresh)) for _ in range(CLIENTS))
    return stage.alert()[-1] == "resolved"


def profiled(story: Story, question: str) -> bool:
    """Have an agent answer, and tell whether a worker has measured that and, though nobody said so, the rest."""
    story.ask(Asked("/team", question))
    seen = visit(story.port, Asked("/profiled"))
    return {"team", "GET /team", "GET /ask", "chat tiny", "stream tale"} <= seen.told.keys()


def caught(story: Story) -> bool:
    """Have a request stall, and tell whether it was caught in the act, in the right line."""
    return "stalled " in story.ask(Asked("/stalled")).told.get("stall", "")


# --- what came of it


def check_failures(story: Story, panels: list[Visit]) -> list[Visit]:
    """Check that nothing failed but what was under way at the worker that died, and return what succeeded."""
    worker_died = story.moments[-1]
    failed = [seen for seen in (*story.visits, *panels) if not seen.ok]
    assert [seen for seen in failed if not seen.under_way(worker_died)] == []
    assert len(failed) <= CLIENTS
    assert len({seen.worker for seen in panels if seen.ok}) > 1
    assert all(seen.told["overview"] for seen in panels if seen.ok)
    return [seen for seen in story.visits if seen.ok]


def check_answers(answered: list[Visit], llm: LlamaServer) -> None:
    """Check that each answer belongs to its question, as far as that can be told."""
    asks = [(seen.asked.question, seen.told) for seen in answered if seen.asked.path == "/ask"]
    right = right_answers(llm, {question for question, _ in asks})
    assert [(question, said) for question, said in asks if said["text"] not in right[question]] == []
    assert {said["cached"] for _, said in asks} == {None, "exact"}
    times = Counter(question for question, _ in asks)
    assert {said["cached"] for question, said in asks if times[question] == 1} == {None}
    streams = [seen for seen in answered if seen.asked.path == "/stream"]
    assert all(seen.text for seen in streams)
    agents = [seen.told for seen in answered if seen.asked.path == "/team"]
    assert all(told["text"] for told in agents)
    pools = [told["pool"] for told in agents]
    assert max(pool["lent"] for pool in pools) > 3 >= max(pool["size"] for pool in pools)
    assert {pool[wrong] for pool in pools for wrong in ("lost", "timeouts", "broken")} == {0}
    echoed = [seen for seen in streams if seen.text.startswith("echo: ")]
    assert {seen.text == f"echo: {prompt(seen.asked.question)}" for seen in echoed} == {True}
    assert {seen.text for seen in answered if seen.asked.path == "/tale"} == {TALE}


def check_sharing(answered: list[Visit], upstream: Counter[str], until: float) -> None:
    """Check that no question was answered twice while Redis lived, and that each worker knew the other's answers."""
    assert [question for question, times in upstream.items() if times > 1] == []
    asks = [seen for seen in answered if seen.asked.path == "/ask" and seen.ended < until]
    asked_by = {seen.asked.question: seen.worker for seen in asks if seen.told["cached"] is None}
    hits = [seen for seen in asks if seen.told["cached"] is not None]
    assert any(seen.worker != asked_by.get(seen.asked.question, seen.worker) for seen in hits)


def check_metrics(sent: Datagrams, store: Path, story: Story, victim: int) -> None:
    """Check that the metrics of every call came both ways, but for the dead worker's last ones."""
    assert [line for line in sent.lines if not LINE.fullmatch(line)] == []
    assert {name for name in METRICS if sent.count(rf"{name}\b.*")} == set(METRICS)
    died, answered = story.moments[-1][0], [seen for seen in story.visits if seen.ok]
    unsent = [seen for seen in answered if seen.worker == victim and seen.ended > died - UNSENT]
    for count in (sent.count(r"agent_response_time\b.*"), merged(store, "agent_response_time")):
        assert len(answered) - len(unsent) <= count <= len(story.visits)


def merged(store: Path, name: str) -> int:
    return int(PerformanceTracker(store=str(store)).merged().get_stats(name)["count"])


@pytest.fixture
def stage(llm: LlamaServer, fault: FaultServer, redis: Redis, tmp_path: Path) -> Iterator[Stage]:
    with FaultServer(upstream=llm.root_url) as gate, FaultServer(upstream=llm.root_url) as second:
        for server in (gate, fault):
            tell_tales(server)
        yield Stage(gate, second, fault, redis, tmp_path)


@pytest.mark.timeout(100)
def test_web_app_survives_the_death_of_a_provider_of_redis_and_of_a_worker(stage: Stage, llm: LlamaServer) -> None:
    needs_module("flask")
    needs_module("gunicorn")
    fresh = (f"after {number}" for number in itertools.count())
    with Datagrams() as sent:
        alerts = str(stage.directory / "alerts")
        env = environment(SCENARIO=scenario(stage), STATSD=sent.address, ALERTS=alerts)
        with Server(*GUNICORN, env=env) as server:
            story = Story(server.port)
            victim = min(warmed_up(server, story))
            plan: dict[int, Callable[[], object]] = {
                QUESTIONS // 4: stage.kill_gate,
                2 * QUESTIONS // 4: stage.kill_redis,
                3 * QUESTIONS // 4: lambda: os.kill(victim, signal.SIGKILL),
            }
            with read_dashboard(server.port) as panels:
                story.tell(questions(), plan)
            answered = check_failures(story, panels)
            check_answers(answered, llm)
            check_sharing(answered, stage.upstream, until=story.moments[1][0])
            polled(lambda: story.ask(Asked("/ask", next(fresh))) and stage.alert() == ["pending", "firing"])

            stage.restart()
            for worker in two_workers(server, dead=victim):
                polled(lambda: recovered(story, worker, next(fresh)))  # noqa: B023 - called at once
            polled(lambda: resolved(story, stage, fresh), 40)
            polled(lambda: profiled(story, next(fresh)))
            polled(lambda: caught(story))

            assert server.stop() == 0
            assert server.processes() == []
        assert stage.alert() == ["pending", "firing", "resolved"]
        check_metrics(sent, stage.directory / "metrics", story, victim)
        assert sent.count(r"gc_count\.between\.true\..*") > 0  # garbage was collected after replies
        assert sent.count("state_unavailable") > 0  # it was asked while it was away
