"""The dashboard as a site of a few addresses below one path, for any framework to serve.

.            the page                     ?range=10m|1h|6h|24h  &part=live: without its head
data.json    all panels                   panels/<name>.json: one of them
profiles/<id>  a flame graph
report.json  ?operation=&time_range=      the detailed report of an operation
metrics      Prometheus' text format      static/...
"""

from __future__ import annotations

import hmac
import json
import os
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

from perfkit._shared import current_config
from perfkit.dashboard.page import live_part, profile_page, whole_page
from perfkit.dashboard.panels import PANELS, SPANS, Panels, span_named
from perfkit.dashboard.words import Words
from perfkit.metrics import PerformanceTracker
from perfkit.metrics.sinks.prometheus import CONTENT_TYPE, render
from perfkit.profiling import Profiler

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perfkit.clock import Clock

__all__ = ["Dashboard", "Reply"]

POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
POLICY += "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
STATIC = {
    "dashboard.css": ("perfkit.dashboard", "text/css"),
    "dashboard.js": ("perfkit.dashboard", "text/javascript"),
    "icon.svg": ("perfkit.dashboard", "image/svg+xml"),
    "uplot.css": ("perfkit.charts", "text/css"),
    "uplot.js": ("perfkit.charts", "text/javascript"),
}
AGAIN, TRIES = 3, 20  # seconds, longer than servers keep an idle connection to one worker; times
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Reply(NamedTuple):
    """What to answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Dashboard:
    """Answers requests; who may make them, the framework has decided before, or `admits` does for machines.

    Args:
        clock: None means the system's.
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._panels = Panels(clock=clock)
        self._words = Words()

    @staticmethod
    def admits(authorization: str | None, *, token: str | None = None) -> bool:
        """Tell whether an Authorization header carries this bearer token; None: `[dashboard] token`; "": nobody's."""
        token = token if token is not None else current_config().table("dashboard").token
        if not token or authorization is None:
            return False
        return hmac.compare_digest(authorization.encode(), f"Bearer {token}".encode())

    def respond(self, method: str, path: str, query: Mapping[str, str], *, person: bool = False) -> Reply:
        """Answer a request.

        Args:
            method: GET or HEAD; everything else is refused, for there is nothing to change.
            path: below the dashboard's own, without a leading slash; "" is the page.
            query: single values.
            person: whether a person asks who may see the words of calls, where `[dashboard] prompts` is on.
        """
        if method not in ("GET", "HEAD"):
            return Reply(405, {**HEADERS, "Allow": "GET, HEAD", "Content-Type": "text/plain"}, b"read-only")
        if path == "":
            return self._page(query, self._words.latest() if person else None)
        if path.startswith("static/"):
            return _static(path.removeprefix("static/"))
        if path.startswith("profiles/"):
            return _profile(path.removeprefix("profiles/"), query.get("asked", ""))
        return self._data(path, query)

    def _page(self, query: Mapping[str, str], words: list[dict[str, Any]] | None) -> Reply:
        chosen = query.get("range", "1h") if query.get("range") in SPANS else "1h"
        data = self._panels.all(SPANS[chosen])
        html = (live_part if query.get("part") == "live" else whole_page)(data, chosen, words)
        return _reply(html, "text/html; charset=utf-8")

    def _data(self, path: str, query: Mapping[str, str]) -> Reply:
        panel = path.removeprefix("panels/").removesuffix(".json")
        asked = query.get("time_range" if path == "report.json" else "range") or "1h"
        span = span_named(asked)
        if span is None:
            told = f"{asked[:20]!r} is no time range: give seconds, or a number with s, m, h or d such as 10m or 24h"
            return Reply(400, {**HEADERS, "Content-Type": "text/plain; charset=utf-8"}, told.encode())
        if path == "data.json":
            return _json(self._panels.all(span))
        if path == "report.json":
            return _json(self._panels.report(query.get("operation", ""), span))
        if path == f"panels/{panel}.json" and panel in PANELS:
            return _json(PANELS[panel](self._panels, span))
        if path == "metrics":
            return _reply(render(PerformanceTracker.instance().merged()), CONTENT_TYPE)
        return Reply(404, {**HEADERS, "Content-Type": "text/plain"}, b"not found")


def _profile(number: str, asked: str) -> Reply:
    """Answer with a profile; where another worker keeps it, with a page that asks again until that one answers."""
    found = Profiler.instance().find(number)
    if found is not None:
        return _reply(profile_page(found), "text/html; charset=utf-8")
    plain, worker = {**HEADERS, "Content-Type": "text/plain; charset=utf-8"}, number.partition("-")[0]
    if not worker.isdecimal() or worker == str(os.getpid()):
        return Reply(404, plain, b"no such profile: each worker keeps its latest")
    tries = next((n for n in range(TRIES) if asked == str(n)), 0 if asked == "" else TRIES)
    if tries == TRIES:
        return Reply(404, plain, f"worker {worker}, which keeps this profile, does not answer".encode())
    told = f"This profile is kept by worker {worker}, and {os.getpid()} has answered; asking again ..."
    return Reply(404, {**plain, "Refresh": f"{AGAIN}; url=?asked={tries + 1}"}, told.encode())


def _json(value: object) -> Reply:
    return _reply(json.dumps(value, default=str), "application/json")


def _reply(text: str, kind: str) -> Reply:
    return Reply(200, {**HEADERS, "Content-Type": kind}, text.encode("utf-8", "replace"))


def _static(name: str) -> Reply:
    if name not in STATIC:
        return Reply(404, {**HEADERS, "Content-Type": "text/plain"}, b"not found")
    package, kind = STATIC[name]
    body = files(package).joinpath("static", name).read_bytes()
    return Reply(200, {**HEADERS, "Content-Type": kind, "Cache-Control": "private, max-age=3600"}, body)
