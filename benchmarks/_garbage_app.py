"""The application of benchmarks/garbage.py: much that lives, and requests that leave cycles behind."""

from __future__ import annotations

import contextlib
import gc
import importlib
import itertools
import json
import os
import threading
import time
import types
from collections import OrderedDict, deque
from typing import Any

import flask
from werkzeug.test import Client

from benchmarks._stalls import Stalls

WORKLOAD = os.environ["WORKLOAD"]  # "" is Python's default, "off" collects nothing, "frozen" has nothing of perfkit
OBJECTS = int(os.environ["OBJECTS"])
KEPT = 300  # replies in the application's own cache
SESSION = 2.0  # seconds a session lives


def reply(choices: int = 280) -> dict[str, Any]:
    """Return what a provider answers: 100 KB of JSON, 1,400 containers."""
    message = {"role": "assistant", "content": "lorem ipsum dolor " * 9}
    call = {"id": "call", "type": "function", "function": {"name": "f", "arguments": '{"q": 1}'}}
    return {
        "id": "1",
        "usage": {"prompt_tokens": 812, "completion_tokens": 1403},
        "choices": [{"index": n, "message": {**message, "tool_calls": [call]}} for n in range(choices)],
    }


class Message:
    def __init__(self, data: Any, parent: Any) -> None:
        self.data, self.parent = data, parent
        self.children: list[Any] = []


BODY = json.dumps(reply())
app = flask.Flask(__name__)
resident: list[Any] = []
cache: OrderedDict[int, Any] = OrderedDict()
sessions: deque[tuple[float, Any]] = deque()
guard = threading.Lock()  # guards cache and sessions
numbers = itertools.count(1)
monitors: list[Any] = []


def fill() -> None:
    gc.disable()
    before = len(gc.get_objects())
    resident.append(json.loads(BODY))
    each = len(gc.get_objects()) - before
    resident.extend(json.loads(BODY) for _ in range((OBJECTS - before) // each))
    gc.enable()
    gc.collect()


@app.get("/ask")
def ask() -> Any:
    time.sleep(0.004)  # the provider
    data, number = json.loads(BODY), next(numbers)
    root = Message(data, None)
    messages = [Message(choice["message"], root) for choice in data["choices"]]
    if number % 20 == 0:
        root.children = messages  # a cycle that holds the whole reply
    if number % 5 == 0:
        with guard:
            cache[number] = data
            if len(cache) > KEPT:
                cache.popitem(last=False)
    return flask.jsonify(number=len(messages))


@app.get("/session")
def session() -> Any:
    """Begin a session that dies as a cycle after two seconds."""
    data, now = json.loads(BODY), time.monotonic()
    root = Message(data, None)
    root.children = [Message(choice, root) for choice in data["choices"]]
    with guard:
        sessions.append((now, root))
        while sessions[0][0] < now - SESSION:
            sessions.popleft()
    return flask.jsonify(ok=True)


@app.get("/begin")
def begin() -> Any:
    stalls.begin()
    monitors.append(perfkit.gc_optimizer.monitor_gc_performance())
    monitors[-1].__enter__()
    return flask.jsonify(ok=True)


@app.get("/report")
def report() -> Any:
    """Tell what was seen since /begin, or nothing: that the application is ready."""
    if not monitors:
        return flask.jsonify(ready=True)
    seen, stats = monitors[-1].report, perfkit.gc_optimizer.stats()
    return flask.jsonify(
        longest_ms=seen.longest * 1e3, between_ms=seen.longest_between * 1e3, gc_seconds=seen.seconds,
        collections=seen.collections, found=seen.found, passes=stats["passes"], rss=stats["rss"], **stalls.report(),
    )  # fmt: skip


@app.get("/light")
def light() -> Any:
    """Keep nothing of a reply."""
    return flask.jsonify(number=len(json.loads(BODY)), pid=os.getpid())


@app.get("/collect")
def collect() -> Any:
    return flask.jsonify(found=gc.collect(), pid=os.getpid())


def load_django() -> None:
    """Load it as `startproject` sets it up, with a database."""
    import django
    from django.conf import settings
    from django.contrib import admin
    from django.urls import get_resolver, path

    names = ("admin", "auth", "contenttypes", "sessions", "messages", "staticfiles")
    urls = types.ModuleType("urls")
    settings.configure(
        SECRET_KEY="no secret", ROOT_URLCONF=urls, INSTALLED_APPS=[f"django.contrib.{name}" for name in names],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
    )  # fmt: skip
    django.setup()
    vars(urls)["urlpatterns"] = [path("admin/", admin.site.urls)]
    get_resolver()._populate()


if OBJECTS:
    fill()
else:
    load_django()
    for name in ("django.core.handlers.wsgi", "sqlalchemy.orm", "sqlalchemy.dialects.sqlite", "requests"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
application: Any = Stalls(app.wsgi_app)
stalls = application
if WORKLOAD != "frozen":
    import perfkit
    from perfkit.integrations.wsgi import PerfkitMiddleware

    application = PerfkitMiddleware(stalls)
if WORKLOAD == "off":
    gc.disable()
elif not OBJECTS:
    client = Client(application)
    for _ in range(20):  # what the first requests write to is written before the fork
        client.get("/light").close()
        client.get("/collect").close()
    if WORKLOAD == "frozen":
        gc.freeze()
    else:  # gunicorn's hook does the rest
        perfkit.configure(gc={"immortal": not WORKLOAD.endswith("counted")})
elif WORKLOAD:
    perfkit.configure(gc={"workload": WORKLOAD}, web={"collect_garbage": True})
    perfkit.prepare()
