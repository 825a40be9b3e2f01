"""A web app asked by several visitors at once: are they kept apart, and does the dashboard count what they counted?

It is plain WSGI behind perfkit's middleware, on a threaded server of this process and a free port, and uses the shared
instances as an application does. Its visitors speak real HTTP, and so does who reads its dashboard.
"""

from __future__ import annotations

import json
import math
import secrets
import threading
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from perfkit._shared import start_over
from perfkit.clock import SYSTEM_CLOCK
from perfkit.config import Config
from perfkit.dashboard import Dashboard
from perfkit.errors import BudgetExceededError
from perfkit.integrations.wsgi import ROUTE, PerfkitMiddleware
from perfkit.pipeline import Client
from perfkit.profiling import Profiler

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from wsgiref.types import StartResponse, WSGIEnvironment

    from perfkit.demo.ways import Setting

__all__ = ["POOR", "Web", "visited"]

LOOPBACK = "127.0.0.1"
POOR = "guest"  # the visitor with a budget
VISITORS = ("ana", "ben", "cleo", "dora", "emil", "finn", "greta", POOR)
_LIMIT = 0.0003  # dollars: one or two answers
_QUESTIONS = (
    "What is a cache?",
    "What makes a queue grow?",
    "Why is the first request slow?",
    "When is a retry harmful?",
)
_ROUNDS, _MAX_TOKENS = 3, 16
_MEASURED = "http_server_request_duration"  # by the middleware
_PATIENCE = 30.0  # seconds for a reply


@dataclass(frozen=True, slots=True)
class Web:
    """What the visitors of the app saw, and what its dashboard said.

    Attributes:
        counted: by the visitors: replies of each route, answers, those from the cache, errors, and their cost.
        dashboard: says of the same.
        p95_ms: of each route, by the dashboard.
        limit: US dollars, of the one visitor that has a budget.
        refused: visitor to how often a budget refused it.
        mixed_up: answers that more than one visitor got.
        without_token: what the dashboard answered to one who brought no token, and to one who guessed it.
    """

    visitors: int
    seconds: float
    counted: dict[str, float]
    dashboard: dict[str, float]
    p95_ms: dict[str, float]
    limit: float
    refused: dict[str, int]
    mixed_up: int
    without_token: list[int]

    @property
    def wrong(self) -> list[str]:
        """What is not as it has to be, in words."""
        told = [
            f"the visitors counted {counted:g} {what.replace('_', ' ')} and the dashboard says {self.dashboard[what]:g}"
            for what, counted in self.counted.items()
            if not math.isclose(counted, self.dashboard[what])
        ]
        if self.without_token != [HTTPStatus.FORBIDDEN] * 2:
            told.append("the dashboard opened without its token")
        if self.mixed_up:
            told.append(f"{self.mixed_up} answers went to more than one visitor")
        if list(self.refused) != [POOR]:
            told.append(f"a budget refused {', '.join(self.refused) or 'nobody'} instead of {POOR}")
        return told


@dataclass(frozen=True, slots=True)
class _Seen:
    """One reply, as its visitor saw it."""

    visitor: str
    route: str
    status: int
    told: dict[str, Any]


def visited(setting: Setting) -> Web:
    """Serve the app, let everybody visit it, and ask its dashboard; the shared instances begin and end empty."""
    token, started = secrets.token_urlsafe(), SYSTEM_CLOCK.now()
    with _configured(setting, token), _served() as port, ThreadPoolExecutor(len(VISITORS)) as threads:
        together = threading.Barrier(len(VISITORS))
        seen = [one for each in threads.map(lambda name: _visits(port, name, together), VISITORS) for one in each]
        seconds = SYSTEM_CLOCK.now() - started
        closed = [_get(port, "/perfkit/data.json", given)[0] for given in ({}, _bearer("a guess"))]
        told, reports = _dashboard_says(port, token)
    refused = Counter(one.visitor for one in seen if one.status == HTTPStatus.PAYMENT_REQUIRED)
    return Web(
        visitors=len(VISITORS),
        seconds=round(seconds, 3),
        counted=_counted(seen),
        dashboard=told,
        p95_ms={route: round(reports[route]["p95"] * 1000, 3) for route in ROUTES},
        limit=_LIMIT,
        refused=dict(refused),
        mixed_up=_mixed_up(seen),
        without_token=closed,
    )


# --- the application


def _ask(environ: WSGIEnvironment) -> tuple[int, dict[str, Any]]:
    question = dict(parse_qsl(environ["QUERY_STRING"]))["q"]
    try:
        answer = Client.instance().chat(question, temperature=0, max_tokens=_MAX_TOKENS)
    except BudgetExceededError as error:
        return HTTPStatus.PAYMENT_REQUIRED, {"error": str(error)}
    return HTTPStatus.OK, {"id": answer.id, "text": answer.text, "cached": answer.cached, "cost": answer.cost}


def _about(_environ: WSGIEnvironment) -> tuple[int, dict[str, Any]]:
    return HTTPStatus.OK, {"text": "Ask at /ask."}


ROUTES = {"/ask": _ask, "/about": _about}


def _pages(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
    """Answer without a length, so that a visitor reads until the server has closed: the request is measured by then."""
    route = environ[ROUTE] = environ["PATH_INFO"]
    with Profiler.instance().profile(route):
        status, told = ROUTES[route](environ)
    start(_line(status), [("Content-Type", "application/json")])
    return [json.dumps(told).encode()]


def _line(status: int) -> str:
    return f"{status:d} {HTTPStatus(status).phrase}"


class _App:
    """The pages behind the middleware, and the dashboard beside it, for it shall count visitors only."""

    def __init__(self) -> None:
        self._dashboard = Dashboard()
        self._pages = PerfkitMiddleware(_pages, user=lambda environ: environ.get("HTTP_X_VISITOR"))  # for a log-in

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        _, below, path = environ["PATH_INFO"].partition("/perfkit/")
        if not below:
            return self._pages(environ, start)
        if not Dashboard.admits(environ.get("HTTP_AUTHORIZATION")):
            start(_line(HTTPStatus.FORBIDDEN), [("Content-Type", "text/plain")])
            return [b"bring the token\n"]
        reply = self._dashboard.respond(environ["REQUEST_METHOD"], path, dict(parse_qsl(environ["QUERY_STRING"])))
        start(_line(reply.status), list(reply.headers.items()))
        return [reply.body]


# --- the server


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 64

    def server_bind(self) -> None:
        """Bind without a look-up of the name of 127.0.0.1, which may take long where there is no network."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = LOOPBACK, self.server_address[1]
        self.setup_environ()


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing: the output is the demo's."""


@contextmanager
def _served() -> Iterator[int]:
    """Serve the app on a free port, which is yielded."""
    with _Server((LOOPBACK, 0), _Quiet) as server:
        server.set_app(_App())
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def _configured(setting: Setting, token: str) -> Iterator[None]:
    """Configure the shared instances by what is given alone, neither files nor variables, and empty them afterwards."""
    providers = {
        one.name: {"kind": one.kind, "base_url": one.base_url, "api_key": one.api_key, "models": [setting.model]}
        for one in setting.endpoints
    }
    budget = {"scope": ["user", POOR], "limit": _LIMIT, "period": "total"}
    tables = {
        "providers": providers,
        "client": {"default_model": setting.model},
        "router": {"timeout": setting.timeout},
        "connections": {"ca_file": setting.ca_file},
        "tokens": {"prices": setting.prices, "budgets": [budget]},
        "dashboard": {"token": token},
    }
    start_over(Config(tables, file={}, environ={}))
    try:
        yield
    finally:
        start_over(Config(file={}, environ={}))


# --- who asks


def _visits(port: int, name: str, together: threading.Barrier) -> list[_Seen]:
    """Ask every question in each round, and look at the other page."""
    together.wait()
    paths = [f"/ask?{urlencode({'q': question})}" for question in _QUESTIONS]
    return [_visit(port, name, path) for _ in range(_ROUNDS) for path in (*paths, "/about")]


def _visit(port: int, name: str, path: str) -> _Seen:
    status, body = _get(port, path, {"X-Visitor": name})
    return _Seen(name, path.partition("?")[0], status, json.loads(body) if status == HTTPStatus.OK else {})


def _get(port: int, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
    connection = HTTPConnection(LOOPBACK, port, timeout=_PATIENCE)
    try:
        connection.request("GET", path, headers=headers)
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


def _counted(seen: Sequence[_Seen]) -> dict[str, float]:
    answers = [one.told for one in seen if "id" in one.told]
    routes = Counter(one.route for one in seen)
    return {
        "requests": len(seen),
        **{f"{route[1:]}_requests": routes[route] for route in ROUTES},
        "answers": len(answers),
        "from_cache": sum(one["cached"] is not None for one in answers),
        "errors": sum(one.status != HTTPStatus.OK for one in seen),
        "dollars": round(sum(one["cost"] for one in answers), 9),
    }


def _mixed_up(seen: Sequence[_Seen]) -> int:
    """Return how many answers, told apart by the provider's own id, were seen by more than one visitor."""
    readers = defaultdict[str, set[str]](set)
    for one in seen:
        if "id" in one.told:
            readers[one.told["id"]].add(one.visitor)
    return sum(len(who) > 1 for who in readers.values())


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _dashboard_says(port: int, token: str) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Return what the visitors count too, and the statistics of each route."""

    def read(path: str, **query: str) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(_get(port, f"/perfkit/{path}?{urlencode(query)}", _bearer(token))[1])
        return told

    panels = read("data.json", range="1h")
    reports = {name: read("report.json", operation=name)["performance_stats"] for name in (_MEASURED, *ROUTES)}
    overview, results = panels["overview"], panels["cache"]["results"]
    answers = overview["calls"] - overview["errors"]
    told = {
        "requests": reports[_MEASURED]["count"],
        **{f"{route[1:]}_requests": reports[route]["count"] for route in ROUTES},
        "answers": answers,
        "from_cache": answers - results.get("miss", 0) - results.get("none", 0),
        "errors": overview["errors"],
        "dollars": round(sum(row["cost"] for row in panels["tokens"]["usage"]), 9),
    }
    return told, reports
