from __future__ import annotations

import json
from contextlib import closing
from typing import Any
from wsgiref.util import setup_testing_defaults

import _shop  # noqa: F401 - sets Django up
import pytest
from django.contrib.auth import get_user_model
from django.core.handlers.wsgi import WSGIHandler
from django.middleware.csrf import get_token
from django.test import Client, RequestFactory, override_settings
from django.test.utils import override_script_prefix
from django.urls import reverse


def client(*, staff: bool, **options: Any) -> Client:
    user = get_user_model().objects.get_or_create(username=f"staff {staff}", is_staff=staff, is_superuser=staff)[0]
    browser = Client(**options)
    browser.force_login(user)
    return browser


def test_staff_see_it_and_find_it_in_the_index() -> None:
    browser = client(staff=True)
    assert reverse("admin:perfkit_dashboard") == "/back/perfkit/"
    page = browser.get("/back/perfkit/")
    assert page.status_code == 200
    assert b"<h1>perfkit</h1>" in page.content
    assert "frame-ancestors 'none'" in page["Content-Security-Policy"]
    assert browser.get("/back/perfkit/static/uplot.js")["Content-Type"] == "text/javascript"
    assert json.loads(browser.get("/back/perfkit/data.json").content)["overview"]["calls"] == 0
    assert b'href="/back/perfkit/"' in browser.get("/back/").content
    assert browser.get("/back/perfkit/nothing").status_code == 404


@pytest.mark.parametrize("path", ["", "data.json", "panels/cache.json", "report.json", "static/dashboard.js"])
def test_others_are_sent_to_the_login(path: str) -> None:
    for browser in (Client(), client(staff=False)):
        reply = browser.get(f"/back/perfkit/{path}")
        assert (reply.status_code, reply["Location"].partition("?")[0]) == (302, "/back/login/")


def test_machines_need_the_token() -> None:
    with override_settings(PERFKIT={"dashboard": {"token": "sesame"}}):
        assert Client().get("/back/perfkit/data.json", headers={"Authorization": "Bearer sesame"}).status_code == 200
        for wrong in ("Bearer sesame2", "Bearer ", "sesame", "Bearer s\xe9same"):
            assert Client().get("/back/perfkit/data.json", headers={"Authorization": wrong}).status_code == 302


def test_staff_may_read_words_where_that_is_switched_on_and_machines_may_not() -> None:
    with override_settings(PERFKIT={"dashboard": {"token": "sesame", "prompts": True}}):
        assert b'id="words"' in client(staff=True).get("/back/perfkit/").content
        page = Client().get("/back/perfkit/", headers={"Authorization": "Bearer sesame"})
        assert b"<h1>perfkit</h1>" in page.content
        assert b'id="words"' not in page.content


def test_no_token_is_no_key() -> None:
    for wrong in ("Bearer ", "Bearer None", ""):
        assert Client().get("/back/perfkit/data.json", headers={"Authorization": wrong}).status_code == 302


def test_there_is_nothing_to_change_and_a_form_without_its_token_is_refused() -> None:
    browser = client(staff=True, enforce_csrf_checks=True)
    assert browser.post("/back/perfkit/").status_code == 403
    token = get_token(RequestFactory().get("/"))
    browser.cookies["csrftoken"] = token
    assert browser.post("/back/perfkit/", {"csrfmiddlewaretoken": token}).status_code == 405


@pytest.mark.parametrize("staff", [None, False, True])
def test_below_a_prefix_others_are_sent_to_the_login_below_it(staff: bool | None) -> None:
    browser = Client() if staff is None else client(staff=staff)
    environ = {"SCRIPT_NAME": "/shop", "PATH_INFO": "/back/perfkit/", "HTTP_COOKIE": browser.cookies.output(header="")}
    setup_testing_defaults(environ)
    told: dict[str, str] = {}
    with (
        override_script_prefix("/"),  # the handler sets this thread's
        closing(WSGIHandler()(environ, lambda status, headers: told.update(headers, status=status))) as body,
    ):
        page = b"".join(body)
    if staff:
        assert b"<h1>perfkit</h1>" in page
    else:
        assert (told["status"], told["Location"]) == ("302 Found", "/shop/back/login/?next=/shop/back/perfkit/")
