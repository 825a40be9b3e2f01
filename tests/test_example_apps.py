"""The larger examples and those of a single feature, each run as its first lines say, with the real model behind it."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from http.cookies import SimpleCookie
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from _noon import noon
from _parts import REPOSITORY, needs_module
from _servers import Redis, Server, environment, polled

import perfkit
from perfkit.testing.llm import LlamaServer

TOKEN, PASSWORD = "for-the-dashboard", "tea-for-two"


def script(name: str, llm: LlamaServer, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    env = environment(LLM_BASE_URL=llm.base_url, PERFKIT_TOKENS__TIMEZONE=noon(), **more)
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "examples" / f"{name}.py"), *arguments],
        env=env, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def gunicorn(app: str, llm: LlamaServer, *options: str, **more: str) -> Server:
    needs_module("gunicorn")
    settings = {"PERFKIT_TOKENS__TIMEZONE": noon(), "PERFKIT_STATE__TIMEOUT": "5"}  # a busy machine is no outage
    env = environment(LLM_BASE_URL=llm.base_url, **{**settings, "DASHBOARD_TOKEN": TOKEN, **more})
    return Server("gunicorn", "--bind", "fd://{fd}", "--threads", "8", *options, app, env=env)


class Visitor:
    """A browser's cookies."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.cookies: SimpleCookie = SimpleCookie()

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None, **form: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        cookies = "; ".join(f"{name}={morsel.value}" for name, morsel in self.cookies.items())
        sent = {"Cookie": cookies, "Content-Type": "application/x-www-form-urlencoded", **(headers or {})}
        try:
            connection.request(method, path, urlencode(form) if form else None, sent)
            reply = connection.getresponse()
            for value in reply.headers.get_all("Set-Cookie", []):
                self.cookies.load(value)
            return reply.status, reply.read().decode()
        finally:
            connection.close()


# --- Django -----------------------------------------------------------------------------------------------------------


PREPARED = """
import django
from django.core.management import call_command
django.setup()
call_command("check")
call_command("migrate", verbosity=0)
call_command("createsuperuser", interactive=False, username="ann", email="ann@shop.example", verbosity=0)
"""


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the shop's database, made by Django's commands in one process."""
    needs_module("django")
    path = str(tmp_path_factory.mktemp("shop") / "shop.sqlite3")
    settings = {"DJANGO_SETTINGS_MODULE": "examples.shop_assistant.settings", "DJANGO_SUPERUSER_PASSWORD": PASSWORD}
    done = subprocess.run(
        [sys.executable, "-c", PREPARED], env=environment(SHOP_DB=path, **settings),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "no issues" in done.stdout
    return path


@pytest.fixture(scope="module")
def shop(llm: LlamaServer, database: str) -> Iterator[Server]:
    with gunicorn("examples.shop_assistant.wsgi", llm, SHOP_DB=database) as server:
        yield server


def token(page: str) -> str:
    found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
    assert found is not None, page
    return found[1]


def test_the_shops_assistant_answers_on_a_page(shop: Server) -> None:
    visitor = Visitor(shop.port)
    status, page = visitor.ask("GET", "/")
    assert (status, page.count("<li>")) == (200, 3)
    status, page = visitor.ask("POST", "/ask/", csrfmiddlewaretoken=token(page), question="A pot <b>for</b> tea?")
    assert status == 200
    assert re.search(r'<p class="answer">[^<]+</p>', page)
    assert "A pot &lt;b&gt;for&lt;/b&gt; tea?" in page


def test_a_question_without_the_token_of_its_page_is_refused(shop: Server) -> None:
    assert Visitor(shop.port).ask("POST", "/ask/", question="Hello?")[0] == 403


def test_staff_see_what_the_shop_asked_on_the_dashboard(shop: Server) -> None:
    visitor = Visitor(shop.port)
    pages = [visitor.ask("GET", "/products/1/")[1] for _ in "12"]
    first, second = (re.findall(r'<p class="description">([^<]+)</p>', page) for page in pages)
    assert len(first) == 1
    assert first == second
    assert visitor.ask("GET", "/admin/perfkit/")[0] == 302
    page = visitor.ask("GET", "/admin/login/")[1]
    for sheet in re.findall(r'href="(/static/[^"]+)"', page):
        assert visitor.ask("GET", sheet)[0] == 200
    visitor.ask("POST", "/admin/login/", csrfmiddlewaretoken=token(page), username="ann", password=PASSWORD)
    status, page = visitor.ask("GET", "/admin/perfkit/data.json")
    told = json.loads(page)
    assert status == 200
    assert told["cache"]["results"]["exact"] >= 1
    assert "describe" in {row["agent"] for row in told["tokens"]["usage"]}
    assert told["overview"]["cost_today"] > 0


def test_a_page_of_the_shop_shows_the_facts_when_nobody_answers(database: str) -> None:
    nowhere = environment(LLM_BASE_URL="http://127.0.0.1:9/v1", SHOP_DB=database, PERFKIT_ROUTER__MAX_ATTEMPTS="1")
    needs_module("gunicorn")
    with Server("gunicorn", "--bind", "fd://{fd}", "examples.shop_assistant.wsgi", env=nowhere) as server:
        status, page = Visitor(server.port).ask("GET", "/products/2/")
    assert status == 200
    assert '<p class="description">Glass, 1 litre' in page


# --- Flask ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bot(llm: LlamaServer) -> Iterator[Server]:
    needs_module("flask")
    with gunicorn("examples.support_bot.app:app", llm, SECRET_KEY="s" * 32) as server:
        yield server


def test_the_bot_keeps_a_conversation_for_each_visitor(bot: Server) -> None:
    ann, bob = Visitor(bot.port), Visitor(bot.port)
    assert ann.ask("POST", "/", question="Where is my <i>parcel</i>?")[0] == 302
    assert ann.ask("POST", "/", question="And my invoice?")[0] == 302
    page = ann.ask("GET", "/")[1]
    assert (page.count('class="user"'), page.count('class="assistant"')) == (2, 2)
    assert "Where is my &lt;i&gt;parcel&lt;/i&gt;?" in page
    assert 'class="user"' not in bob.ask("GET", "/")[1]
    assert ann.ask("POST", "/forget")[0] == 302
    assert 'class="user"' not in ann.ask("GET", "/")[1]


def test_the_bots_dashboard_is_for_those_with_the_token(bot: Server) -> None:
    visitor = Visitor(bot.port)
    visitor.ask("POST", "/", question="How do I send something back?")
    assert visitor.ask("GET", "/perfkit/data.json")[0] == 403
    status, page = visitor.ask("GET", "/perfkit/data.json", {"Authorization": f"Bearer {TOKEN}"})
    told = json.loads(page)
    assert status == 200
    assert told["overview"]["calls"] >= 1
    assert told["pools"]["agents"]["customer_support"]["lent"] >= 1
    assert visitor.ask("POST", "/staff", token="guessed")[0] == visitor.ask("GET", "/perfkit/")[0] == 403
    status, page = visitor.ask("POST", "/help/staff", {"SCRIPT_NAME": "/help"}, token=TOKEN)
    assert status == 302
    assert 'href="/help/perfkit/"' in page
    assert visitor.ask("GET", "/perfkit/")[0] == 200


def test_nobody_is_staff_of_a_bot_without_a_token(llm: LlamaServer) -> None:
    needs_module("flask")
    with gunicorn("examples.support_bot.app:app", llm, SECRET_KEY="s" * 32, DASHBOARD_TOKEN="") as bot:
        visitor = Visitor(bot.port)
        assert visitor.ask("POST", "/staff", token="")[0] == visitor.ask("GET", "/perfkit/")[0] == 403
        assert visitor.ask("GET", "/perfkit/", {"Authorization": "Bearer "})[0] == 403


# --- one feature each -------------------------------------------------------------------------------------------------


def test_summaries_come_in_order_with_progress(llm: LlamaServer, tmp_path: Path) -> None:
    paths = [tmp_path / f"note{number}.txt" for number in range(6)]
    for number, path in enumerate(paths):
        path.write_text(f"Note {number}: the queue grew and the workers were busy.")
    done = script("batch", llm, *map(str, paths))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [str(path) for path in paths]
    assert all(line.partition(": ")[2] for line in lines)
    assert "6 of 6" in done.stderr
    assert "6 summaries, p95" in done.stderr


def test_a_browser_gets_events_as_the_answer_is_written(llm: LlamaServer) -> None:
    needs_module("flask")
    with gunicorn("examples.sse:app", llm) as server:
        assert b"EventSource" in server.get("/")[1]
        assert server.get("/events?q=")[0] == 400
        status, body = server.get("/events?q=What+is+a+queue%3F")
    assert status == 200
    *texts, last = body.decode().rstrip("\n").split("\n\n")
    assert all(text.startswith("data: ") for text in texts)
    assert len(texts) > 1
    assert last.startswith("event: end\ndata: ")


def test_documents_are_found_and_the_budget_ends_it(llm: LlamaServer) -> None:
    questions = ["How long does shipping take?"] * 2 + [f"Is return number {n} free?" for n in range(12)]
    done = script("rag", llm, *questions)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert re.search(r"\[main, \$0\.0000\d\d\]$", lines[0])
    assert lines[1].endswith("[exact, $0.000000]")
    assert lines[-1].startswith("no budget left: ")


def test_the_official_clients_share_perfkits_connections(llm: LlamaServer) -> None:
    needs_module("openai")
    needs_module("anthropic")
    done = script("sdks", llm)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^openai: .*\nopenai, streamed: \d+ pieces\nanthropic: .*\n", done.stdout), done.stdout
    assert re.search(r"^\S+: [123] connections for 3 requests$", done.stdout, re.MULTILINE), done.stdout


def test_users_are_shared_among_the_models_and_compared(llm: LlamaServer) -> None:
    with LlamaServer(alias="tiny-2") as second:
        done = script("ab_test", llm, LLM_BASE_URL_B=second.base_url)
    assert done.returncode == 0, done.stderr
    found = re.findall(
        r"^(\w+): (\d+) calls of (\S+), \d+% failed, .* \$([\d.]+) a thousand", done.stdout, re.MULTILINE
    )
    [(_, many, _, dear), (_, few, _, cheap)] = found
    assert [(arm, model) for arm, _, model, _ in found] == [("present", "tiny"), ("candidate", "tiny-2")]
    assert int(many) + int(few) == 40
    assert int(many) > int(few) > 0
    assert float(dear) > float(cheap) > 0  # a tenth of the price a token, which no answer makes up for
    assert "cost: Comparison(difference=-" in done.stdout


def test_workers_share_answers_budgets_and_metrics(llm: LlamaServer, redis: Redis) -> None:
    needs_module("flask")
    answers: list[dict[str, Any]] = []
    zone = {"PERFKIT_TOKENS__TIMEZONE": noon()}
    with gunicorn("examples.multi_worker:app", llm, "--workers", "2", REDIS_URL=redis.url, **zone) as server:
        visitor = Visitor(server.port)

        def ask(question: str, user: str) -> dict[str, Any]:
            status, body = visitor.ask("GET", f"/ask?{urlencode({'q': question})}", {"X-User": user})
            assert status == 200, body
            answers.append(json.loads(body))
            return answers[-1]

        numbers = count()

        def answered_by_one_and_known_to_the_other() -> bool:
            question = f"What is queue {next(numbers)}?"
            one, other = ask(question, "ann"), ask(question, "ann")
            return bool(one["worker"] != other["worker"] and other["cached"] == "exact")

        polled(answered_by_one_and_known_to_the_other)
        budget = {"scope": ["user", "*"], "limit": 0.01, "period": "day"}
        tokens = {"budgets": [budget], "timezone": zone["PERFKIT_TOKENS__TIMEZONE"]}
        perfkit.configure(state={"url": redis.url, "timeout": 5.0}, tokens=tokens)
        assert_one_purse(visitor, sum(answer["cost"] for answer in answers))
        ask("What is a queue?", "bob")
        assert json.loads(server.get("/totals")[1])["workers"] <= 2
        assert server.stop() == 0
    perfkit.configure(metrics={"store": "redis"})
    assert perfkit.tracker.merged().get_stats("agent_response_time")["count"] == len(answers)


def assert_one_purse(visitor: Visitor, cost: float) -> None:
    """See that what both workers paid for a user is known here too, and that what is held here is not theirs."""

    def known() -> float:
        perfkit.optimizer.reserve({"user": "ann"}, 0.0).release()
        return next(float(row["spent"]) for row in perfkit.optimizer.budgets() if row["scope"] == ("user", "ann"))

    polled(lambda: known() == pytest.approx(cost))
    perfkit.optimizer.reserve({"user": "ann"}, 0.01 - cost - 1e-7)  # leaves less than any call could cost
    status, body = visitor.ask("GET", "/ask?q=And+one+more%3F", {"X-User": "ann"})
    assert (status, "budget" in body) == (429, True), body
