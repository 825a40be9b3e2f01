from __future__ import annotations

import re
import subprocess
import sys
import weakref
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
from _parts import REPOSITORY
from _servers import environment
from _shop import MIDDLEWARE
from django.contrib.admin.sites import all_sites
from django.contrib.auth import get_user_model
from django.core.checks import run_checks
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory, override_settings
from django.urls import path

import perfkit
from perfkit._shared import _state
from perfkit.clock import FakeClock
from perfkit.integrations._web import Visits
from perfkit.integrations.django import checks, middleware
from perfkit.integrations.django.middleware import PerfkitMiddleware
from perfkit.memory import GCOptimizer
from perfkit.memory.workloads import collector_of
from perfkit.metrics import PerformanceTracker
from perfkit.pipeline.scoping import current_scope
from perfkit.testing import FaultServer, faults

SHARED = {"state": {"url": "sqlite:///state.db"}, "cache": {"backend": "sqlite"}}
METRIC = "http_server_request_duration"
GENERATIONAL = collector_of((3, 13, 0), free_threaded=False)


def settings(fault: FaultServer, **tables: Any) -> dict[str, Any]:
    return {"providers": {"fake": {"kind": "openai", "base_url": fault.base_url, "api_key": "k"}}, **tables}


def findings(*, deploy: bool = False) -> list[str | None]:
    return [m.id for m in run_checks(include_deployment_checks=deploy) if (m.id or "").startswith("perfkit")]


def test_calls_belong_to_the_logged_in_user(fault: FaultServer) -> None:
    people = [get_user_model().objects.get_or_create(username=name)[0] for name in ("ann", "bob")]
    with override_settings(PERFKIT=settings(fault)):
        said = []
        for person in people:
            client = Client()
            client.force_login(person)
            said += [client.get("/ask/1").json()["cached"] for _ in range(2)]
        assert said == [None, "exact", None, "exact"]
        assert Client().get("/ask/1").json()["cached"] is None
        tags = {"method": "GET", "route": "ask/<int:number>", "status": "2xx"}
        assert perfkit.tracker.get_stats(METRIC, tags=tags)["count"] == 5


def test_failed_and_unknown_requests_are_counted_without_their_path(fault: FaultServer) -> None:
    with override_settings(PERFKIT=settings(fault)):
        client = Client(raise_request_exception=False)
        assert client.get("/broken").status_code == 500
        assert client.get("/secret/path").status_code == 404
        tracker = perfkit.tracker
        assert tracker.get_stats(METRIC, tags={"method": "GET", "route": "broken", "status": "5xx"})["count"] == 1
        assert tracker.get_stats(METRIC, tags={"method": "GET", "route": "", "status": "4xx"})["count"] == 1


def test_calls_of_one_request_share_its_budget(fault: FaultServer) -> None:
    tables = settings(fault, web={"request_budget": 0.015}, tokens={"prices": {"m": {"input": 0, "output": 1000}}})
    fault.behave(*[faults.ok("text", usage={"completion_tokens": 9})] * 2)
    with override_settings(PERFKIT=tables):
        for name in ("r-1", "r-2"):  # each request has its own
            with pytest.raises(perfkit.BudgetExceededError) as refused:
                Client().get("/twice", headers={"X-Request-ID": name})
            assert (refused.value.scope, refused.value.spent) == (("request", name), 0.009)
        assert fault.stats()["requests"] == 2


def test_calls_of_one_request_share_its_deadline(fault: FaultServer) -> None:
    with override_settings(PERFKIT=settings(fault, web={"request_timeout": 0.6})):
        perfkit.chat("a first one, which makes all the parts", model="m")
        fault.behave(faults.ok(delay=0.4))  # each of the two calls is in time, both together are not
        with pytest.raises(perfkit.DeadlineExceeded):
            Client().get("/twice")
        fault.behave(faults.ok("in time"))
        assert perfkit.chat("for no request", model="m").text == "in time"


def test_a_request_whose_deadline_has_passed_asks_nobody(fault: FaultServer) -> None:
    with override_settings(PERFKIT=settings(fault, web={"request_timeout": 1e-9})):
        with pytest.raises(perfkit.DeadlineExceeded):
            Client().get("/ask/1")
        assert fault.stats()["requests"] == 0
    with override_settings(PERFKIT=settings(fault, web={"request_timeout": 60})):
        assert Client().get("/ask/1").json() == {"cached": None}


class Knot:
    """Garbage that only the collector finds."""

    def __init__(self) -> None:
        self.own = self


@pytest.mark.parametrize("asked", [True, False])
def test_garbage_waits_until_the_reply_is_sent(asked: bool, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    def view(_: HttpRequest) -> HttpResponse:
        left.append(weakref.ref(Knot()))
        return HttpResponse("text")

    left: list[weakref.ref[Knot]] = []
    collector = GCOptimizer(collector=GENERATIONAL, clock=clock, tracker=PerformanceTracker())
    monkeypatch.setattr(middleware, "_visits", Visits(collector=collector))
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    with override_settings(PERFKIT={"web": {"collect_garbage": asked}}, ROOT_URLCONF=(path("", view),)):
        handler = WSGIHandler()
        collector.optimize_for_workload("low_latency")
        try:
            clock.advance(1)  # a look at what is young is due
            with closing(handler(environ, lambda *_: None)) as body:
                assert b"".join(body) == b"text"
                assert left[0]() is not None
            assert (left[0]() is None) is asked
        finally:
            collector.restore()


def test_overridden_settings_are_taken_and_given_back() -> None:
    before = perfkit.cache.settings.ttl
    with override_settings(PERFKIT={"cache": {"ttl": 5}}):
        assert perfkit.cache.settings.ttl == 5
    assert perfkit.cache.settings.ttl == before


def test_checks_find_nothing_in_a_plain_project() -> None:
    assert findings() == []


@pytest.mark.parametrize(
    ("middleware", "found"),
    [
        ([MIDDLEWARE[0], *MIDDLEWARE], ["perfkit.W001"]),
        ([*MIDDLEWARE[1:], MIDDLEWARE[0]], ["perfkit.W002"]),
        (MIDDLEWARE[1:], []),
        (["perfkit.integrations.wsgi.PerfkitMiddleware", *MIDDLEWARE[1:]], ["perfkit.E002"]),
    ],
)
def test_checks_find_a_misplaced_middleware(middleware: list[str], found: list[str]) -> None:
    with override_settings(MIDDLEWARE=middleware):
        assert findings() == found


def test_checks_for_deployment_tell_what_workers_do_not_share() -> None:
    with override_settings(MIDDLEWARE=MIDDLEWARE[1:], PERFKIT={}):
        assert findings(deploy=True) == ["perfkit.W004", "perfkit.I001", "perfkit.I002"]
    with override_settings(PERFKIT=SHARED):
        assert findings(deploy=True) == []


@pytest.mark.parametrize(
    ("cache", "found"),
    [
        ({"backend": "memory"}, ["perfkit.I002"]),
        ({"backend": "memory", "policy": "never"}, []),
        ({"backend": "django"}, ["perfkit.I002"]),
        ({"backend": "django", "alias": "files"}, []),
        ({"backend": "sqlite"}, []),
    ],
)
def test_checks_for_deployment_tell_of_a_cache_of_one_process(
    cache: dict[str, Any], found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": "files"}
    local = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
    with override_settings(PERFKIT={**SHARED, "cache": cache}, CACHES={"default": local, "files": files}):
        assert findings(deploy=True) == found
        several = ["perfkit.W008" for _ in found]
        for name, value in (("WEB_CONCURRENCY", "4"), ("GUNICORN_CMD_ARGS", "--threads 8 --workers=3")):
            with monkeypatch.context() as patched:
                patched.setenv(name, value)
                assert findings(deploy=True) == several
        with monkeypatch.context() as patched:
            patched.setitem(sys.modules, "uwsgi", uwsgi(**{"enable-threads": "1", "lazy-apps": "1"}, processes="2"))
            assert findings(deploy=True) == several


def uwsgi(**options: str) -> ModuleType:
    module = ModuleType("uwsgi")
    vars(module)["opt"] = options
    return module


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        ((), ["perfkit.W003", "perfkit.I003"]),
        (("threads = 8", "lazy-apps = true"), []),
        (("enable-threads = true",), ["perfkit.I003"]),
        (("enable-threads = false", "py-call-uwsgi-fork-hooks = true"), ["perfkit.W003"]),
    ],
)
def test_checks_for_deployment_tell_of_flags_of_uwsgi_or_of_the_file_they_will_come_from(
    flags: tuple[str, ...], found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("uwsgi.ini").write_text("\n".join(["[uwsgi]", *flags]))
    with override_settings(PERFKIT=SHARED):
        assert findings(deploy=True) == found
        Path("uwsgi.ini").write_text("[uwsgi]\nlazy-apps = true")
        monkeypatch.setitem(sys.modules, "uwsgi", uwsgi(**dict(flag.split(" = ") for flag in flags)))
        assert findings(deploy=True) == found


@pytest.mark.parametrize(
    ("name", "text", "number"),
    [
        ("gunicorn.conf.py", "workers = 3", 3),
        ("gunicorn.conf.py", "import gevent\nthreads = 8\nworkers = 1", 1),
        ("gunicorn.conf.py", "workers = len(open('ran', 'w').name)", 1),
        ("gunicorn.conf.py", "workers = = 3", 1),
        ("uwsgi.ini", "[uwsgi]\nlazy-apps = 1\nthreads = 2\nprocesses = 4", 4),
        ("uwsgi.ini", "[uwsgi]\nlazy-apps = 1\nthreads = 2\nworkers = %(threads)", 1),
    ],
)
def test_checks_for_deployment_count_the_workers_of_the_servers_files(name: str, text: str, number: int) -> None:
    Path(name).write_text(text)
    with override_settings(PERFKIT={"state": SHARED["state"]}):
        [told] = [m for m in run_checks(include_deployment_checks=True) if (m.id or "").startswith("perfkit")]
    if number == 1:
        assert (told.id, "is not seen" in (told.hint or "")) == ("perfkit.I002", True)
    else:
        assert (told.id, told.msg) == ("perfkit.W008", f"{number} workers, and each has a cache of its own")
    assert not Path("ran").exists()


def test_checks_for_deployment_pass_over_files_they_may_not_read() -> None:
    for name in ("gunicorn.conf.py", "uwsgi.ini"):
        Path(name).symlink_to("/proc/self/mem")
    with override_settings(PERFKIT={"state": SHARED["state"]}):
        assert findings(deploy=True) == ["perfkit.I002"]


def test_checks_for_deployment_tell_of_an_open_dashboard(monkeypatch: pytest.MonkeyPatch) -> None:
    with override_settings(PERFKIT={**SHARED, "dashboard": {"token": "sesame"}}):
        assert findings(deploy=True) == ["perfkit.W006"]
    with override_settings(PERFKIT={**SHARED, "dashboard": {"token": "s" * 43}}):
        assert findings(deploy=True) == []
        [site] = all_sites
        monkeypatch.setitem(vars(site), "has_permission", lambda _: True)
        assert findings(deploy=True) == ["perfkit.W007"]
        assert b"<h1>perfkit</h1>" in Client().get("/back/perfkit/").content  # it is indeed
        monkeypatch.setitem(vars(site), "has_permission", lambda request: request.session["staff"])
        assert findings(deploy=True) == []


def test_each_finding_says_what_to_do_and_is_in_the_guide(monkeypatch: pytest.MonkeyPatch) -> None:
    guide = (REPOSITORY / "docs/getting-started.md").read_text()
    said = set(re.findall(r"perfkit\.[EWI]\d+", Path(checks.__file__).read_text()))
    assert set(re.findall(r"^\| (perfkit\.[EWI]\d+) \|", guide, re.MULTILINE)) == said
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi())
    with override_settings(PERFKIT={"dashboard": {"token": "sesame"}}, MIDDLEWARE=MIDDLEWARE[1:]):
        told = [m for m in run_checks(include_deployment_checks=True) if (m.id or "").startswith("perfkit")]
        assert all(message.hint for message in told)
        assert {message.id for message in told} > {"perfkit.W003", "perfkit.W004", "perfkit.W006", "perfkit.I003"}


def test_checks_for_deployment_tell_of_a_missing_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with override_settings(PERFKIT={**SHARED, "providers": {"openai": {}}}):
        assert findings(deploy=True) == ["perfkit.W005"]
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    with override_settings(PERFKIT={**SHARED, "providers": {"openai": {}}}):
        assert findings(deploy=True) == []


def test_a_request_that_ends_the_server_is_ended_too() -> None:
    def view(_: HttpRequest) -> HttpResponse:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        PerfkitMiddleware(view)(RequestFactory().get("/"))
    assert perfkit.tracker.get_stats(METRIC, tags={"method": "GET", "route": "", "status": "5xx"})["count"] == 1
    assert current_scope() is None


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"router": {"strategy": "fastest"}}, "no routing strategy 'fastest'"),
        ({"state": {"url": "localhost:6379"}}, "state.url must begin with"),
        ({"providers": {"openai": {"base_url": "api.openai.com"}}}, "base_url of provider 'openai' must be"),
        (
            {"cache": {"backend": "django", "alias": "defalt"}},
            "[cache] alias is 'defalt', which Django's CACHES does not",
        ),
        ({"tokens": {"budgets": [{"scope": ["global"], "limit": 1, "period": "day"}]}}, "a budget's scope is"),
    ],
)
def test_checks_find_what_is_seen_only_when_the_parts_are_made(
    tables: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_state, "objects", {})  # as in a process that has just begun
    with override_settings(PERFKIT=tables):
        [found] = [m for m in run_checks(include_deployment_checks=True) if (m.id or "").startswith("perfkit")]
    assert found.id == "perfkit.E001"
    assert found.msg.startswith(f"settings.PERFKIT: {said}")


def test_starting_django_starts_no_thread_and_opens_nothing() -> None:
    code = (
        "from django.conf import settings; import django, threading, os\n"
        "settings.configure(INSTALLED_APPS=['perfkit.integrations.django'], PERFKIT={})\n"
        "before = len(os.listdir('/proc/self/fd')); django.setup()\n"
        "assert threading.active_count() == 1; assert len(os.listdir('/proc/self/fd')) == before"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment(), capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
