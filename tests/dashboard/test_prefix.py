"""Below the prefix of a proxy or mount the dashboard is as closed as without one: under Flask, and as plain WSGI."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask
from werkzeug.exceptions import NotFound
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

import perfkit
from perfkit.dashboard import Dashboard
from perfkit.dashboard.panels import PANELS
from perfkit.integrations.flask import Perfkit
from perfkit.integrations.wsgi import PerfkitMiddleware

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

TOKEN = "sesame"
WRONG = (None, "", "Bearer ", "Bearer", "Bearer None", "Bearer nonsense", f"Bearer {TOKEN}2", TOKEN, f"Basic {TOKEN}")
DATA = ("data.json", "report.json", "metrics", *(f"panels/{name}.json" for name in PANELS))
PATHS = ("", *DATA, "profiles/1-1", "static/dashboard.js", "nothing")


def flask() -> WSGIApplication:
    app = Flask(__name__)
    app.config["PERFKIT"] = {"dashboard": {"token": TOKEN, "prompts": True}}
    Perfkit(app, dashboard=lambda: False)
    return app


def plain() -> WSGIApplication:
    perfkit.configure(dashboard={"token": TOKEN, "prompts": True})
    dashboard = Dashboard()

    def app(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        if not dashboard.admits(environ.get("HTTP_AUTHORIZATION")):
            start("403 Forbidden", [])
            return [b"closed"]
        reply = dashboard.respond(environ["REQUEST_METHOD"], environ["PATH_INFO"].removeprefix("/perfkit/"), {})
        start(f"{reply.status} told", list(reply.headers.items()))
        return [reply.body]

    return PerfkitMiddleware(app)


@pytest.fixture(params=[flask, plain])
def visitor(request: pytest.FixtureRequest) -> Client:
    """Return who visits an application mounted at /shop."""
    return Client(DispatcherMiddleware(NotFound(), {"/shop": request.param()}))


def ask(visitor: Client, path: str, authorization: str | None) -> Any:
    headers = {} if authorization is None else {"Authorization": authorization}
    return visitor.get(f"/shop/perfkit/{path}", headers=headers)


@pytest.mark.parametrize("authorization", WRONG)
def test_below_a_prefix_nobody_gets_in_without_the_token(visitor: Client, authorization: str | None) -> None:
    for path in PATHS:
        reply = ask(visitor, path, authorization)
        assert (path, reply.status_code) == (path, 403)
        assert b"perfkit</h1>" not in reply.data
        assert not reply.data.startswith(b"{")
    without_slash = visitor.get("/shop/perfkit", follow_redirects=True)
    assert (without_slash.request.path.rstrip("/"), without_slash.status_code) == ("/shop/perfkit", 403)


def test_below_a_prefix_the_token_opens_it_but_for_words(visitor: Client) -> None:
    for path in DATA:
        assert (path, ask(visitor, path, f"Bearer {TOKEN}").status_code) == (path, 200)
    page = ask(visitor, "", f"Bearer {TOKEN}")
    assert b"<h1>perfkit</h1>" in page.data
    assert b'id="words"' not in page.data
    assert b'href="panels/overview.json' in page.data  # relative: the prefix is the browser's to know
