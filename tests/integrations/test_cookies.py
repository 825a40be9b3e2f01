"""Cookies are sent as the module's own jar would, and worked out only when they have changed."""

from __future__ import annotations

import time
from http.cookiejar import CookieJar
from typing import Any
from urllib.request import Request

import pytest
from integrations.test_httpx import client, module

from perfkit.integrations._cookies import RememberingJar
from perfkit.testing import faults
from perfkit.testing.faults import FaultServer

__all__ = ["client", "module"]


@pytest.fixture
def reckonings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what is appended to whenever the standard library works out a field."""
    seen = list[str]()
    stock = CookieJar.add_cookie_header

    def noting(self: CookieJar, request: Any) -> None:
        seen.append(request.full_url)
        stock(self, request)

    monkeypatch.setattr(CookieJar, "add_cookie_header", noting)
    return seen


def sent(server: FaultServer) -> list[str | None]:
    return [request["headers"].get("cookie") for request in server.stats()["recent"]]


def setting(*cookies: str) -> faults.Behaviour:
    return faults.status(200, body="x", headers={"set-cookie": ", ".join(cookies)})


def test_cookies_are_sent_and_worked_out_once(
    client: Any, module: Any, any_fault: FaultServer, reckonings: list[str]
) -> None:
    url = f"{any_fault.base_url}/models"
    any_fault.behave(setting("a=1; path=/"), then="ok")
    for _ in range(5):
        client.get(url)
    assert sent(any_fault) == [None, *["a=1"] * 4]
    assert len(reckonings) == (1 if module.__name__ == "httpx2" else 4)  # httpx copies the jar for each request


def test_change_of_a_cookie_is_sent(client: Any, any_fault: FaultServer) -> None:
    url = f"{any_fault.base_url}/models"
    any_fault.behave(setting("a=1; path=/"), faults.ok(), setting("a=2; path=/"), then="ok")
    for _ in range(4):
        client.get(url)
    client.cookies.set("b", "3", domain="127.0.0.1")
    client.get(url)
    client.cookies.clear()
    client.get(url)
    assert sent(any_fault) == [None, "a=1", "a=1", "a=2", "a=2; b=3", None]


def test_cookie_that_expires_is_not_sent(client: Any, any_fault: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{any_fault.base_url}/models"
    any_fault.behave(setting("a=1; path=/; max-age=60"), then="ok")
    for _ in range(3):
        client.get(url)
    now = time.time() + 61
    monkeypatch.setattr(time, "time", lambda: now)
    client.get(url)
    assert sent(any_fault) == [None, "a=1", "a=1", None]


def test_cookie_belongs_to_its_path(client: Any, any_fault: FaultServer) -> None:
    any_fault.behave(setting("a=1; path=/v1/chat"), then="ok")
    client.get(f"{any_fault.base_url}/models")
    for path in ("/chat/x", "/models", "/chat/x"):
        client.get(any_fault.base_url + path)
    assert sent(any_fault)[1:] in ([None, None, None], ["a=1", None, "a=1"])  # a cookie for another path may be refused


def test_field_given_by_the_caller_is_neither_changed_nor_remembered(client: Any, any_fault: FaultServer) -> None:
    url = f"{any_fault.base_url}/models"
    any_fault.behave(setting("a=1; path=/"), then="ok")
    client.get(url)
    client.get(url, headers={"cookie": "own=1"})
    client.get(url)
    assert sent(any_fault) == [None, "own=1", "a=1"]


def test_addresses_do_not_fill_the_memory() -> None:
    jar = RememberingJar()
    for number in range(300):
        jar.add_cookie_header(Request(f"http://h.test/{number}"))
    assert len(jar._fields) == 256
