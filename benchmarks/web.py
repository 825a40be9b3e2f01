"""What the middleware adds to a request of a trivial view, in pairs: the same app with and without it, in one process.

    python benchmarks/web.py [--quick] [--json] [--check]

Requests alternate between the two, so that a busy machine slows both alike; the difference of the medians is what the
middleware and its metrics cost. `--check` exits with 1 when that is over 50 us in each of three comparisons. Django and
Flask are called as servers do, without the sockets, which would hide microseconds behind milliseconds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any
from wsgiref.util import setup_testing_defaults

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from perfkit.integrations.wsgi import PerfkitMiddleware

LIMIT = 50.0  # microseconds
TRIES = 3  # of a check: a machine that is busy meanwhile does not fail it
App = Callable[..., Any]


def serve(app: App) -> float:
    """Serve one request as a server does, and return the seconds it took."""
    environ: dict[str, Any] = {"PATH_INFO": "/hello/7"}
    setup_testing_defaults(environ)
    began = time.perf_counter()
    body = app(environ, lambda *_: None)
    try:
        for _ in body:
            pass
    finally:
        if hasattr(body, "close"):
            body.close()
    return time.perf_counter() - began


def plain() -> tuple[App, App]:
    def app(_environ: Any, start: Any) -> list[bytes]:
        start("200 OK", [("Content-Type", "text/plain")])
        return [b"hello"]

    return app, PerfkitMiddleware(app)


def flask() -> tuple[App, App]:
    from flask import Flask

    from perfkit.integrations.flask import Perfkit

    made = Flask("bare"), Flask("measured")
    for app in made:
        app.add_url_rule("/hello/<int:number>", "hello", lambda number: f"hello {number}")
    Perfkit(made[1], user=lambda: "42")
    return made[0], made[1]


def django() -> tuple[App, App]:
    from django.conf import settings
    from django.http import HttpResponse
    from django.urls import path

    measured = "perfkit.integrations.django.middleware.PerfkitMiddleware"
    settings.configure(SECRET_KEY="x", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, MIDDLEWARE=[])
    globals()["urlpatterns"] = [path("hello/<int:number>", lambda _request, number: HttpResponse(f"hello {number}"))]
    import django as package
    from django.core.handlers.wsgi import WSGIHandler

    package.setup()
    bare = WSGIHandler()
    settings.MIDDLEWARE = [measured]
    return bare, WSGIHandler()


KINDS: dict[str, Callable[[], tuple[App, App]]] = {"plain WSGI": plain, "Flask": flask, "Django": django}


def compare(apps: tuple[App, App], pairs: int) -> dict[str, float]:
    """Return the medians of both in microseconds, and what the second adds."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(200):
        serve(apps[0]), serve(apps[1])
    for number in range(pairs):
        for which in (0, 1) if number % 2 else (1, 0):
            times[which].append(serve(apps[which]))
    bare, measured = (1e6 * median(found) for found in times)
    ordered = sorted(1e6 * (b - a) for a, b in zip(*times, strict=True))
    p95 = ordered[int(0.95 * len(ordered))]
    return {"bare_us": bare, "measured_us": measured, "added_p50_us": measured - bare, "added_p95_us": p95}


def checked(apps: tuple[App, App], pairs: int) -> dict[str, float]:
    """Return the first comparison within the limit, or else the last."""
    for _ in range(TRIES):
        found = compare(apps, pairs)
        if found["added_p50_us"] <= LIMIT:
            break
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer requests, about 5 seconds")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--check", action="store_true", help=f"exit with 1 when more than {LIMIT:g} us are added")
    options = parser.parse_args()
    pairs = 2000 if options.quick else 20_000
    measure = checked if options.check else compare
    found = {kind: measure(make(), pairs) for kind, make in KINDS.items()}
    if options.json:
        load = os.getloadavg()[0]
        print(json.dumps({"python": platform.python_version(), "load": load, "unit": "us", "results": found}))
    else:
        print(f"{'us a request, median':22}{'bare':>10}{'measured':>10}{'added p50':>11}{'added p95':>11}")
        for kind, row in found.items():
            print(
                f"{kind:22}"
                + "".join(f"{value:{width}.1f}" for value, width in zip(row.values(), (10, 10, 11, 11), strict=True))
            )
    return int(options.check and any(row["added_p50_us"] > LIMIT for row in found.values()))


if __name__ == "__main__":
    sys.exit(main())
