"""docs/errors.md says what perfkit says: each mistake of its table is made here, and its words compared."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from _parts import REPOSITORY
from _servers import environment

import perfkit
from perfkit.config import Config
from perfkit.testing import FaultServer, faults

TABLE = dict(
    re.findall(r"^\| (.+?) \| `([A-Z].+?)` \|$", (REPOSITORY / "docs" / "errors.md").read_text(), re.MULTILINE)
)
DJANGO = (
    "from django.conf import settings; import django\n"
    "settings.configure(PERFKIT={{'client': {{'default_model': 'm'}}}})\ndjango.setup()\n{}"
)


@pytest.fixture(autouse=True)
def _no_keys_and_no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perfkit.routing.course.backoff", lambda *_: 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


configure: Callable[..., Any] = perfkit.configure


def openai(**settings: Any) -> Any:
    return configure(providers={"openai": settings})


def asked(model: str | None = "m", messages: Any = "hi", **more: Any) -> Any:
    return perfkit.chat(messages, model=model, **more)


def keyed(address: str = "https://api.openai.com/v1", model: str = "m", **settings: Any) -> Any:
    openai(base_url=address, api_key="k", **settings)
    return asked(model)


def flask(**more: Any) -> Callable[[], Any]:
    from flask import Flask

    from perfkit.integrations.flask import Perfkit

    app = Flask("shop")
    if not more:
        Perfkit(app)
    return lambda: Perfkit(app, **more)


def unread(name: str) -> Any:
    from flask import Flask

    from perfkit.integrations.flask import Perfkit

    app = Flask("shop")
    if name != "PERFKIT":
        Perfkit(app)
    app.config[name] = {"client": {"default_model": "m"}}
    with app.app_context():
        return asked(None)


def streaming(_: FaultServer) -> Any:
    from flask import Flask

    from perfkit.integrations.flask import Perfkit

    app = Flask("shop")
    Perfkit(app, user=lambda: "ann")
    app.add_url_rule("/", view_func=lambda: (asked().text for _ in range(1)))
    return app.test_client().get("/").data


async def awaited(fault: FaultServer) -> Any:
    return await answered(fault, faults.ok())


def answered(fault: FaultServer, behaviour: Any) -> Any:
    fault.behave(behaviour)
    return keyed(fault.base_url)


def unpriced(_: FaultServer) -> None:
    openai(api_key="k", models=["m"])
    asked(budget=0.01)


MISTAKES: dict[str, Callable[[FaultServer], Any]] = {
    "no API key": lambda _: (openai(), asked("gpt-4o")),
    "a wrong API key": lambda fault: answered(fault, faults.status(401)),
    "`base_url` where nothing listens": lambda _: keyed("http://127.0.0.1:9/v1"),
    "`base_url` without `/v1`": lambda fault: answered(fault, faults.status(404, body={"detail": "Not Found"})),
    "`base_url` without `https://`": lambda _: keyed("api.openai.com/v1"),
    "no provider configured": lambda _: asked(),
    "a provider named `main` without `kind`": lambda _: configure(providers={"main": {}}) or asked(),
    "a misspelt kind": lambda _: configure(providers={"main": {"kind": "opnai"}}) or asked(),
    "a misspelt model, `models` being set": lambda _: keyed(model="gpt-4o-mni", models=["gpt-4o-mini"]),
    "a model that is no vendor's own": lambda _: (openai(), asked("tiny")),
    "a model the provider does not have": lambda fault: answered(fault, faults.status(404)),
    "no model and no default": lambda _: asked(None),
    "a misspelt table": lambda _: configure(cahce={"ttl": 1}),
    "a misspelt setting": lambda _: configure(cache={"tll": 1}),
    "a value of the wrong type": lambda _: configure(cache={"ttl": "soon"}),
    "a list of providers": lambda _: configure(providers=["openai"]),
    "an unknown preset": lambda _: Config({"app": {"preset": "prod"}}, environ={}),
    "one message as a dict": lambda _: asked(messages={"role": "user", "content": "hi"}),
    "strings in a list": lambda _: asked(messages=["hi"]),
    "no messages": lambda _: asked(messages=[]),
    "a message without role": lambda _: asked(messages=[{"content": "hi"}]),
    "`perfkit.chat(..., stream=True)`": lambda _: asked(stream=True),
    "a budget, and a model without a price": unpriced,
    "`redis` in `[cache] backend`, and no address": lambda _: (
        configure(cache={"backend": "redis"}), perfkit.cache.get("key")
    ),
    "Flask: `dashboard=True`": lambda _: flask(dashboard=True)(),
    'Flask: `Perfkit(app)` before `app.config["PERFKIT"]`, or without Perfkit': lambda _: unread("PERFKIT"),
    "Flask: PERFKIT misspelt in `app.config`": lambda _: unread("PERKIT"),
    "Flask: a reply that calls while it streams": streaming,
    "`answer.choices[0]`, `answer.content`": lambda fault: answered(fault, faults.ok()).choices,
    "`await perfkit.chat(...)`": lambda fault: asyncio.run(awaited(fault)),
    "an unknown strategy": lambda _: (configure(router={"strategy": "fastest"}), openai(api_key="k"), asked()),
    "a number with a unit in the environment": lambda _: Config({}, environ={"PERFKIT_CACHE__TTL": "1h"}),
    "Flask: `Perfkit(app)` twice": lambda _: flask()(),
}  # fmt: skip
CODE = {
    "Django: the middleware without the app": DJANGO.format(
        "from perfkit.integrations.django.middleware import PerfkitMiddleware; PerfkitMiddleware(print)"
    ),
    "Django: neither app nor middleware": DJANGO.format("import perfkit; perfkit.chat('hi')"),
    "Django: no such cache in CACHES": DJANGO.format(
        "import perfkit; perfkit.ResponseCache(backend='django', alias='defalt')"
    ),
    "Django: PERFKIT misspelt, None, or not there": (
        "from django.conf import settings; import django, perfkit\n"
        "settings.configure(PERKIT={}, PERFKIT=None, INSTALLED_APPS=['perfkit.integrations.django'])\n"
        "django.setup(); perfkit.chat('hi')"
    ),
    "Django: a mistake in PERFKIT": (
        "from django.conf import settings; import django, perfkit\n"
        "settings.configure(PERFKIT={'cahce': {}}, INSTALLED_APPS=['perfkit.integrations.django'])\n"
        "django.setup()"
    ),
    "Flask's integration without Flask; Celery's alike": (
        "import sys; sys.modules['flask'] = None; import perfkit.integrations.flask"
    ),
    "LangChain's integration without LangChain": (
        "import sys; sys.modules['langchain_core'] = None; import perfkit.integrations.langchain"
    ),
}


def agrees(documented: str, said: str) -> bool:
    """Tell whether a message is the documented one; an ellipsis there stands for anything."""
    return re.fullmatch(".*".join(map(re.escape, documented.split("…"))), said, re.DOTALL) is not None


def test_each_mistake_of_the_table_is_made_here() -> None:
    assert set(TABLE) == {*MISTAKES, *CODE}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_said_is_what_the_table_says(mistake: str, fault: FaultServer) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the table names its class
        MISTAKES[mistake](fault)
    assert agrees(TABLE[mistake], f"{caught.type.__name__}: {caught.value}"), str(caught.value)


@pytest.mark.parametrize("mistake", CODE)
def test_what_is_said_in_another_process_is_what_the_table_says(mistake: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE[mistake]],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    last = done.stderr.strip().splitlines()[-1].rpartition("exceptions.")[2].removeprefix("perfkit.errors.")
    assert agrees(TABLE[mistake], last), done.stderr
