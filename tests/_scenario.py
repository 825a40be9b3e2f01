"""What the stories of a web app under gunicorn share: who asks, what came of it, and what each server was asked."""

from __future__ import annotations

import http.client
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from _servers import Server, polled

from perfkit.clock import SYSTEM_CLOCK
from perfkit.testing import FaultServer

__all__ = [
    "CLIENTS",
    "GUNICORN",
    "TOKEN",
    "Asked",
    "Story",
    "Visit",
    "completed",
    "prompt",
    "two_workers",
    "visit",
    "warmed_up",
]

CLIENTS = 8
GUNICORN = ("gunicorn", "--bind", "fd://{fd}", "--workers", "2", "--threads", "8", "scenario_app:app")
TOKEN = "for-machines"
_REMEMBERED = 200  # requests a fault server tells of


@dataclass(frozen=True)
class Asked:
    """What a client asks for."""

    path: str
    question: str = ""
    user: str = ""


@dataclass
class Visit:
    """One request of a client and what came of it; times are monotonic seconds."""

    asked: Asked
    began: float
    ended: float = 0.0
    worker: int = 0
    status: int = 0
    text: str = ""
    failure: str = ""

    @property
    def ok(self) -> bool:
        return not self.failure and self.status == http.client.OK

    @property
    def told(self) -> dict[str, Any]:
        """Its JSON, which must be JSON to everybody: without NaN and Infinity."""
        found: dict[str, Any] = json.loads(self.text, parse_constant=lambda name: 1 / 0)
        return found

    def under_way(self, moment: tuple[float, float]) -> bool:
        """Whether it was under way when something died, between two readings of the clock."""
        return self.began <= moment[1] and self.ended >= moment[0]


def visit(port: int, asked: Asked) -> Visit:
    """Ask once, on a connection of its own."""
    seen = Visit(asked, SYSTEM_CLOCK.now())
    query = {"q": asked.question, "user": asked.user} if asked.user else {"q": asked.question}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", f"{asked.path}?{urlencode(query)}", headers={"Authorization": f"Bearer {TOKEN}"})
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


class Story:
    """What happens while the clients ask: the n-th request of `tell` sets off what is planned for it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.visits: list[Visit] = []
        self.moments: list[tuple[float, float]] = []  # when each event began and was over, in the order of the plan

    def tell(self, asked: Iterable[Asked], plan: Mapping[int, Callable[[], object]] | None = None) -> None:
        plan, numbers = plan if plan is not None else {}, itertools.count(1)
        with ThreadPoolExecutor(CLIENTS) as clients:
            list(clients.map(lambda one: self._next(one, plan.get(next(numbers))), asked))

    def _next(self, asked: Asked, event: Callable[[], object] | None) -> None:
        if event is not None:
            before = SYSTEM_CLOCK.now()
            event()
            self.moments.append((before, SYSTEM_CLOCK.now()))
        self.ask(asked)

    def ask(self, asked: Asked) -> Visit:
        seen = visit(self.port, asked)
        self.visits.append(seen)
        return seen


def prompt(question: str) -> str:
    """Return what the app makes of a question."""
    return f"Answer in one sentence: {question}"


def completed(server: FaultServer, *, streams: bool = False) -> Counter[str]:
    """Return how often a server has answered each prompt wholly, as a stream or not."""
    told = server.stats()
    assert told["requests"] <= _REMEMBERED
    asked = [
        json.loads(one["body"]) for one in told["recent"] if one["method"] == "POST" if one["outcome"] == "completed"
    ]
    return Counter(_text(body) for body in asked if bool(body.get("stream")) is streams)


def _text(body: dict[str, Any]) -> str:
    said = body["messages"][-1]["content"]
    return said if isinstance(said, str) else "".join(part["text"] for part in said)


def workers(server: Server) -> set[int]:
    return set(server.processes()) - {server.process.pid}


def two_workers(server: Server, dead: int = 0) -> set[int]:
    """Wait until there are two, none of them `dead`, and return them."""
    return set(polled(lambda: len(pids := workers(server)) == 2 and dead not in pids and pids))


def warmed_up(server: Server, story: Story) -> set[int]:
    """Wait until each of two workers has answered a question, and return them."""
    fresh = itertools.count()

    def both() -> bool:
        seen = story.ask(Asked("/ask", f"warm-up {next(fresh)}"))
        assert seen.ok, seen
        return {one.worker for one in story.visits} == workers(server)

    polled(both)
    return workers(server)
