from __future__ import annotations

import re
from typing import Any

import pytest
from _parts import REPOSITORY
from flask import Blueprint, Flask, abort, request, session, url_for
from flask.testing import FlaskClient

import perfkit
from perfkit.errors import ConfigError
from perfkit.integrations.flask import Perfkit
from perfkit.testing import FaultServer, faults

METRIC = "http_server_request_duration"


def make(fault: FaultServer, **more: Any) -> Flask:
    app = Flask(__name__)
    app.secret_key = "x"
    providers = {"fake": {"kind": "openai", "base_url": fault.base_url, "api_key": "k"}}
    app.config["PERFKIT"] = {"providers": providers, "client": {"default_model": "m"}, **more}

    @app.get("/ask/<int:number>")
    def ask(number: int) -> dict[str, Any]:
        answer = perfkit.chat(f"my {number}", temperature=0)
        return {"text": answer.text, "cached": answer.cached, "user": session.get("user")}

    @app.get("/login/<name>")
    def login(name: str) -> str:
        session["user"] = name
        return ""

    return app


def visit(client: FlaskClient, path: str) -> dict[str, Any]:
    """Return the JSON of a reply that is read to its end and closed, as servers do it."""
    with client.get(path) as reply:
        return reply.get_json(silent=True) or {}


def test_two_lines_measure_requests_by_route_and_separate_users(fault: FaultServer) -> None:
    app = make(fault)
    Perfkit(app, user=lambda: session.get("user"))
    ann, bob = app.test_client(), app.test_client()
    visit(ann, "/login/ann")
    visit(bob, "/login/bob")
    said = [visit(who, "/ask/1").get("cached") for who in (ann, ann, bob, bob)]
    assert said == [None, "exact", None, "exact"]
    visit(ann, "/nowhere")
    asked = {"method": "GET", "route": "/ask/<int:number>", "status": "2xx"}
    assert perfkit.tracker.get_stats(METRIC, tags=asked)["count"] == 4
    assert perfkit.tracker.get_stats(METRIC, tags={"method": "GET", "route": "", "status": "4xx"})["count"] == 1


def test_an_app_that_has_served_requests_is_left_as_it_was(fault: FaultServer) -> None:
    app = make(fault)
    visit(app.test_client(), "/login/ann")
    wrapped = app.wsgi_app
    with pytest.raises(AssertionError, match="register_blueprint"):
        Perfkit(app)
    assert "perfkit" not in {*app.extensions, *app.blueprints}
    assert app.wsgi_app == wrapped


def test_user_is_asked_for_only_when_a_call_needs_it(fault: FaultServer) -> None:
    asked = []
    app = make(fault)
    Perfkit(app, user=lambda: asked.append(1))
    client = app.test_client()
    visit(client, "/login/ann")
    assert asked == []
    visit(client, "/ask/1")
    assert asked == [1]


def test_calls_of_one_request_share_its_budget(fault: FaultServer) -> None:
    app = make(fault, web={"request_budget": 0.015}, tokens={"prices": {"m": {"input": 0, "output": 1000}}})
    Perfkit(app)

    @app.get("/twice")
    def twice() -> dict[str, Any]:
        paid = perfkit.chat("one", max_tokens=10).cost
        try:
            perfkit.chat("two", max_tokens=10)
        except perfkit.BudgetExceededError as error:
            return {"paid": paid, "refused": error.scope}
        return {}

    fault.behave(*[faults.ok("text", usage={"completion_tokens": 9})] * 4)
    told = [app.test_client().get("/twice", headers={"X-Request-ID": name}).json for name in ("r-1", "r-2")]
    assert told == [{"paid": 0.009, "refused": ["request", name]} for name in ("r-1", "r-2")]


@pytest.mark.parametrize("late", [True, False])
def test_a_configuration_that_nobody_has_read_is_told(late: bool) -> None:
    app = Flask("shop")
    if late:
        Perfkit(app)
    app.config["PERFKIT"] = {"client": {"default_model": "m"}}
    with app.app_context(), pytest.raises(ValueError, match=r"app.config\['PERFKIT'\] is not read: set it before"):
        perfkit.chat("hi")


def test_one_object_serves_several_apps_and_each_app_once(fault: FaultServer) -> None:
    extension = Perfkit()
    first, second = make(fault), make(fault)
    extension.init_app(first)
    extension.init_app(second)
    assert first.extensions["perfkit"] is second.extensions["perfkit"] is extension
    assert ["text" in visit(app.test_client(), "/ask/1") for app in (first, second)] == [True, True]
    with pytest.raises(RuntimeError, match="already"):
        extension.init_app(first)


def test_an_unknown_setting_is_told_at_once(fault: FaultServer) -> None:
    with pytest.raises(ConfigError, match="did you mean 'ttl'"):
        Perfkit(make(fault, cache={"tll": 1}))


def test_commands_run_with_the_configuration_of_the_app(fault: FaultServer, capfd: pytest.CaptureFixture[str]) -> None:
    app = make(fault, cache={"ttl": 77})
    Perfkit(app)
    result = app.test_cli_runner().invoke(args=["perfkit", "config", "show", "--json"])
    assert result.exit_code == 0
    assert '"value": 77' in result.output
    assert app.test_cli_runner().invoke(args=["perfkit", "nonsense"]).exit_code == 2


def test_words_are_for_those_whom_the_callable_admits_where_that_is_switched_on(fault: FaultServer) -> None:
    app = make(fault, dashboard={"token": "sesame", "prompts": True})
    Perfkit(app, dashboard=lambda: True)
    browser = app.test_client()
    assert b'id="words"' in browser.get("/perfkit/").data
    assert b'id="words"' not in browser.get("/perfkit/", headers={"Authorization": "Bearer sesame"}).data


def test_dashboard_is_closed_unless_a_callable_or_the_token_opens_it(fault: FaultServer) -> None:
    closed, opened = make(fault), make(fault, dashboard={"token": "sesame"})
    Perfkit(closed)
    Perfkit(opened, dashboard=lambda: session.get("user") == "ann")
    refused = closed.test_client().get("/perfkit/")
    assert refused.status_code == 403
    assert b"dashboard=" in refused.data
    browser = opened.test_client()
    assert browser.get("/perfkit/").status_code == 403
    assert browser.get("/perfkit/static/uplot.js").status_code == 403
    assert browser.get("/perfkit/data.json", headers={"Authorization": "Bearer sesame"}).status_code == 200
    assert browser.get("/perfkit/data.json", headers={"Authorization": "Bearer nonsense"}).status_code == 403
    visit(browser, "/login/ann")
    page = browser.get("/perfkit", follow_redirects=True)
    assert page.status_code == 200
    assert b"<h1>perfkit</h1>" in page.data
    assert browser.post("/perfkit/").status_code == 405


def test_dashboard_is_a_blueprint_at_the_path_that_is_chosen(fault: FaultServer) -> None:
    apps = {path: make(fault) for path in ("/perfkit", "/ops/llm")}
    Perfkit(apps["/perfkit"], dashboard=lambda: True)
    Perfkit(apps["/ops/llm"], dashboard=lambda: True, url_prefix="/ops/llm")
    for path, app in apps.items():
        assert app.blueprints["perfkit"].url_prefix == path
        with app.test_request_context():
            assert url_for("perfkit.dashboard") == f"{path}/"
            assert url_for("perfkit.dashboard", rest="data.json") == f"{path}/data.json"
        assert app.test_client().get(f"{path}/data.json").status_code == 200
    assert apps["/ops/llm"].test_client().get("/perfkit/").status_code == 404


def test_a_login_that_is_asked_for_everywhere_lets_the_blueprint_through(fault: FaultServer) -> None:
    app = make(fault, dashboard={"token": "sesame"})

    @app.before_request
    def login() -> None:
        if request.blueprint != "perfkit":
            abort(401)

    Perfkit(app)
    machine = {"Authorization": "Bearer sesame"}
    assert [app.test_client().get(path, headers=machine).status_code for path in ("/perfkit/", "/ask/1")] == [200, 401]


def test_each_app_keeps_its_token_and_tells_what_it_changes_for_the_others(
    fault: FaultServer, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = ("a", "b", None)
    apps = [make(fault, cache={"ttl": 60 + (token == "b")}, dashboard={"token": token}) for token in tokens]
    for app in apps[:2]:
        Perfkit(app)
    told = [record.getMessage() for record in caplog.records if record.name == "perfkit.integrations.flask"]
    assert [line.partition(": ")[2] for line in told] == ["cache.ttl"]
    Perfkit(apps[2])

    def admitted(app: Flask) -> list[bool]:
        shown = [app.test_client().get("/perfkit/", headers={"Authorization": f"Bearer {token}"}) for token in "abc"]
        return [reply.status_code == 200 for reply in shown]

    perfkit.configure(dashboard={"token": "c"})  # of who has none
    assert [admitted(app) for app in apps] == [[True, False, False], [False, True, False], [False, False, True]]


def test_a_request_context_made_by_hand_is_served(fault: FaultServer) -> None:
    app = make(fault)
    Perfkit(app)
    with app.test_request_context("/ask/1"):
        assert app.preprocess_request() is None
        assert "text" in app.full_dispatch_request().get_json()


@pytest.mark.parametrize("document", ["README.md", "docs/getting-started.md"])
def test_the_first_lines_of_a_document_answer_and_show_their_dashboard_to_staff(
    document: str, fault: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("OPENAI_BASE_URL", fault.base_url)
    blocks = re.findall(r"^```python\n(.*?)^```$", (REPOSITORY / document).read_text(), re.MULTILINE | re.DOTALL)
    [block] = [text for text in blocks if "Perfkit(app" in text]
    lines = [line for line in block.partition("\n\n\nreply =")[0].splitlines() if line]
    assert len(lines) <= 10
    names: dict[str, Any] = {"__name__": "document"}
    exec(compile("\n".join(lines), document, "exec"), names)
    staff, other = names["app"].test_client(), names["app"].test_client()
    with staff.session_transaction() as opened:
        opened["staff"] = True
    assert staff.get("/ask?q=Hello").data == b"echo: Hello"
    assert b"gpt-4o-mini" in staff.get("/perfkit/").data
    assert other.get("/perfkit/").status_code == 403
    names["app"].debug = True
    assert other.get("/perfkit/").status_code == 200


def test_what_cannot_be_a_dashboard_is_told_at_once(fault: FaultServer) -> None:
    with pytest.raises(ValueError, match="slash"):
        Perfkit(make(fault), url_prefix="ops")
    taken = make(fault)
    taken.register_blueprint(Blueprint("perfkit", __name__))
    with pytest.raises(ValueError, match="'perfkit' is already registered"):
        Perfkit(taken)
    assert "perfkit" not in taken.extensions
