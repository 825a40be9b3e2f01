"""The second scenario: what two workers share, counted where nobody can be wrong about it, at the providers.

The Flask example under gunicorn again, eight clients, a real Redis and three servers that echo: one whose key is
revoked, one that allows so many requests a minute, and one that takes the rest. Questions come again, are personal,
are streamed or put in other words, and one user is poor. Nothing dies, so everything has to add up: to the request,
and to the dollar.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from _parts import needs_module
from _scenario import GUNICORN, TOKEN, Asked, Story, Visit, completed, prompt, visit, warmed_up
from _servers import Redis, Server, environment, polled

import perfkit
from perfkit.clock import SYSTEM_CLOCK
from perfkit.metrics import PerformanceTracker
from perfkit.metrics.sinks.prometheus import render
from perfkit.testing import FaultServer
from perfkit.testing.faults import unauthorized

A_MINUTE = 1200  # requests that one provider takes: 20 a second, and 12 at once
MONEY = 0.0005  # US dollars that the poor user has a day
PRICE = {"input": 1.0, "output": 1.0}  # dollars per million tokens
FAQ, OTHER = (
    "How long is a parcel of 30 kg on its way to the shop?",
    "How long is a parcel of 90 kg on its way to the shop?",
)
SAMPLE = re.compile(r'[a-z_:]+(\{([a-z_]+="[^"\n]*",?)+\})? -?([0-9.e+-]+|\+Inf)')


def questions() -> list[Asked]:
    """Return what the clients ask, in their order."""
    often = [Asked("/ask", f"often asked {number}") for number in range(20)] * 5
    own = [Asked("/ask", f"What is my number {n}?", user) for n in range(4) for user in ("anna", "ben")] * 3
    poor = [Asked("/ask", f"poor man's question {number}", "poor") for number in range(50)]
    streams = [Asked("/stream", f"streamed {number}") for number in range(20)]
    fresh = [Asked("/ask", f"fresh {number}") for number in range(40)]
    asked = often + own + poor + streams + fresh
    random.Random(5).shuffle(asked)
    return asked


@dataclass
class Stage:
    """The servers behind the app."""

    revoked: FaultServer
    limited: FaultServer
    rest: FaultServer
    redis: Redis
    metrics: Path

    def configuration(self) -> str:
        """Return the app's."""
        servers = {"revoked": self.revoked, "limited": self.limited, "rest": self.rest}
        providers = {
            name: {
                "kind": "openai",
                "base_url": server.base_url,
                "api_key": "none",
                "models": ["tiny"],
                "priority": number,
            }
            for number, (name, server) in enumerate(servers.items(), 1)
        }
        providers["limited"]["rpm"] = A_MINUTE
        tables = {
            "providers": providers,
            "router": {"strategy": "priority", "outlier_factor": None},
            "tokens": {
                "budgets": [{"scope": ["user", "poor"], "limit": MONEY, "period": "total"}],
                "fallback_price": PRICE,
            },
            "state": {"url": self.redis.url, "timeout": 2.0},  # a busy machine is not to be taken for a dead Redis
            "cache": {"backend": "redis"},
            "routes": {"faq": {"model": "tiny", "cacheable": True, "semantic": True}},
            "semantic": {"embedder": "hashed", "threshold": 0.8, "verify": 0.0},
            "metrics": {"store": str(self.metrics)},
            "dashboard": {"token": TOKEN},
        }
        return json.dumps(tables)

    def upstream(self) -> Counter[str]:
        """Return how often each prompt was answered, wherever."""
        servers = (self.revoked, self.limited, self.rest)
        return sum((completed(server) + completed(server, streams=True) for server in servers), Counter[str]())


def revoke(stage: Stage, story: Story, workers: set[int]) -> None:
    """Take a provider's key back, let one worker find out, and wait until all know."""
    stage.revoked.behave(unauthorized())
    assert story.ask(Asked("/ask", "the one that is refused")).ok
    skipping: set[int] = set()

    def everywhere() -> bool:
        seen = visit(story.port, Asked("/stats"))
        if seen.told["providers"]["revoked"]["state"] == "open":
            skipping.add(seen.worker)
        return skipping == workers

    polled(everywhere)


def ask_by_meaning(story: Story, workers: set[int]) -> None:
    """Ask the same in other words until both workers take it for what one was asked, and then with another number."""
    assert story.ask(Asked("/faq", FAQ)).told["cached"] is None
    served: set[int] = set()
    wordings = (f"{begin}{FAQ}{end}" for begin in ("", "Hi, ", "Hello ") for end in map("!".__mul__, range(1, 99)))

    def by_both() -> bool:
        seen = story.ask(Asked("/faq", next(wordings)))
        if seen.told["cached"] == "semantic":
            served.add(seen.worker)
        return served == workers

    polled(by_both)
    assert story.ask(Asked("/faq", OTHER)).told["cached"] is None


def is_by_meaning(seen: Visit) -> bool:
    return seen.asked.path == "/faq" and seen.told["cached"] == "semantic"


def answered_cost(seen: Visit) -> float:
    """Return what an answer cost: what it says, or for a stream what the echo counts as tokens."""
    if seen.asked.path in {"/ask", "/faq"}:
        return float(seen.told["cost"])
    return (len(prompt(seen.asked.question).split()) + len(seen.text.split())) / 1e6


def check_limit(requests: int, seconds: float) -> None:
    """Check that the workers together kept the limit, and used it."""
    burst = A_MINUTE / 100
    assert burst < requests <= A_MINUTE / 60 * seconds + burst


def check_poverty(story: Story) -> None:
    """Check that nobody was refused but the poor user, and he only beyond his money."""
    refused = [seen for seen in story.visits if not seen.ok]
    assert {(seen.asked.user, seen.status, seen.told["error"]) for seen in refused} == {
        ("poor", 503, "BudgetExceededError")
    }
    spent = sum(answered_cost(seen) for seen in story.visits if seen.asked.user == "poor" and seen.ok)
    assert MONEY / 2 < spent <= MONEY


def check_answers(story: Story, stage: Stage) -> None:
    """Check that no question of one person was asked twice, and that everybody has got his own answer."""
    meant = [seen for seen in story.visits if seen.ok and is_by_meaning(seen)]
    assert all("90" not in seen.told["text"] and "parcel of 30 kg" in seen.told["text"] for seen in meant)
    answered = [seen for seen in story.visits if seen.ok and seen not in meant]
    times = stage.upstream()
    times["Answer in one sentence: the one that is refused"] -= 1
    wanted = {(seen.asked.question, "my" in seen.asked.question and seen.asked.user) for seen in answered}
    assert times == Counter(prompt(question) for question, _ in wanted)
    texts = [
        (seen.asked.question, seen.text if seen.asked.path == "/stream" else seen.told["text"]) for seen in answered
    ]
    assert [(question, text) for question, text in texts if text != f"echo: {prompt(question)}"] == []
    asks = [seen for seen in answered if seen.asked.path == "/ask"]
    asked_by = {seen.asked: seen.worker for seen in asks if seen.told["cached"] is None}
    assert any(seen.worker != asked_by[seen.asked] for seen in asks)


def check_metrics(story: Story, stage: Stage) -> None:
    """Check that the merged metrics, and the usage report, say what the clients have seen."""
    answered = [seen for seen in story.visits if seen.ok]
    asked = [seen for seen in answered if seen.asked.path == "/stream" or seen.told["cached"] is None]
    costs: dict[str, float] = defaultdict(float)
    for seen in asked:
        costs[seen.asked.user] += answered_cost(seen)
    view = PerformanceTracker(store=str(stage.metrics)).merged()
    assert view.get_stats("agent_response_time")["count"] == len(answered)
    assert view.get_stats("llm_duration")["count"] == len(asked)
    assert view.get_stats("cost")["sum"] == pytest.approx(sum(costs.values()))
    lines = [line for line in render(view).splitlines() if not line.startswith("#")]
    assert [line for line in lines if not SAMPLE.fullmatch(line)] == []
    assert f'perfkit_agent_response_time_seconds_count{{agent="default"}} {len(answered)}' in lines

    perfkit.configure(state={"url": stage.redis.url, "timeout": 5.0})
    report = perfkit.optimizer.get_usage_report(group_by=("user",))
    users = Counter(seen.asked.user for seen in asked)
    assert {user: row["request_count"] for user, row in report.items()} == users
    assert {user: row["total_cost"] for user, row in report.items()} == pytest.approx(costs)


@pytest.fixture
def stage(fault: FaultServer, redis: Redis, tmp_path: Path) -> Iterator[Stage]:
    with FaultServer() as limited, FaultServer() as rest:
        yield Stage(fault, limited, rest, redis, tmp_path / "metrics")


@pytest.mark.timeout(60)
def test_what_two_workers_share_adds_up(stage: Stage) -> None:
    needs_module("flask")
    needs_module("gunicorn")
    with Server(*GUNICORN, env=environment(SCENARIO=stage.configuration())) as server:
        story = Story(server.port)
        workers = warmed_up(server, story)
        warm_ups = stage.revoked.counters()["paths"]["/v1/chat/completions"]
        revoke(stage, story, workers)
        ask_by_meaning(story, workers)
        before, began = stage.limited.counters()["requests"], SYSTEM_CLOCK.now()
        story.tell(questions())
        check_limit(stage.limited.counters()["requests"] - before, SYSTEM_CLOCK.now() - began)
        assert {seen.worker for seen in story.visits} == workers
        assert stage.revoked.counters()["paths"]["/v1/chat/completions"] == warm_ups + 1
        check_poverty(story)
        check_answers(story, stage)
        assert server.stop() == 0
    check_metrics(story, stage)
