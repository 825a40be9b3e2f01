"""Hostile text in every place that text comes from, looked for in every place that text goes to."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser

import pytest
from _servers import Datagrams

import perfkit
from perfkit.dashboard import Dashboard
from perfkit.dashboard.panels import PANELS
from perfkit.testing import FaultServer, faults

NASTY = (
    "=1+1\"><script>alert(1)</script><img src=x onerror=alert(1)>'&\n# TYPE x counter\nperfkit.x:1|c\x00\x1b[2J\u202e"
)


def nasty(place: str) -> str:
    """Return hostile text that tells where it came from."""
    return f"{NASTY}{place}"


@pytest.fixture
def attacked(fault: FaultServer) -> Dashboard:
    """Return the dashboard of a process that was given hostile text wherever it takes text."""
    perfkit.configure(
        providers={nasty("provider"): {"kind": "openai", "base_url": fault.base_url, "api_key": "k"}},
        tokens={
            "fallback_price": {"input": 1.0, "output": 1.0},
            "budgets": [{"scope": ["user", "*"], "limit": 100.0, "period": "day"}],
        },
    )
    asked = {"agent": nasty("agent"), "user": nasty("user"), "context": {"tag": nasty("tag")}}
    perfkit.chat(nasty("prompt"), model=nasty("model"), temperature=0, **asked)  # type: ignore[arg-type]
    fault.behave(faults.status(400, body={"error": {"message": nasty("error"), "type": nasty("error")}}))
    with pytest.raises(perfkit.PerfkitError):
        perfkit.chat(nasty("prompt two"), model=nasty("model"), agent=nasty("agent"))
    with pytest.raises(ValueError, match="alert"), perfkit.profile(nasty("operation")):
        raise ValueError(nasty("error"))
    perfkit.tracker.increment(nasty("metric"), tags={nasty("tag"): nasty("tag")})
    return Dashboard()


class Elements(HTMLParser):
    """The elements and attributes of a page, as a browser would make them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes |= {name for name, _ in attrs}


@pytest.mark.parametrize("query", [{}, {"part": "live"}])
def test_the_page_shows_it_as_text(attacked: Dashboard, query: dict[str, str]) -> None:
    page = attacked.respond("GET", "", query).body.decode()
    read = Elements(page)
    assert "img" not in read.elements
    assert read.elements.count("script") == (0 if query else 2)  # the page's own
    assert not [name for name in read.attributes if name.startswith("on")]
    assert re.findall("[\x00-\x08\x0b-\x1f\u202a-\u202e]", page) == []
    for place in ("model", "agent", "provider", "user", "operation"):
        assert place in page
    assert "prompt" not in page.replace("prompts", "")


def test_json_is_json_and_no_page(attacked: Dashboard) -> None:
    for name in ("data", *(f"panels/{panel}" for panel in PANELS)):
        reply = attacked.respond("GET", f"{name}.json", {})
        assert reply.headers["Content-Type"] == "application/json"
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert nasty("prompt") not in json.dumps(json.loads(reply.body), ensure_ascii=False)
    usage = json.loads(attacked.respond("GET", "panels/tokens.json", {}).body)["usage"]
    assert {(row["agent"], row["model"]) for row in usage} == {(nasty("agent"), nasty("model"))}


def test_csv_has_its_cells_and_no_formula(attacked: Dashboard) -> None:
    rows = list(csv.reader(io.StringIO(perfkit.optimizer.export_usage(kind="csv"), newline="")))
    assert {len(row) for row in rows} == {len(rows[0])}
    cells = [cell for row in rows[1:] for cell in row]
    assert "'" + nasty("agent") in cells
    assert [cell for cell in cells if cell[:1] in ("=", "+", "@")] == []


def test_prometheus_gets_whole_lines(attacked: Dashboard) -> None:
    lines = attacked.respond("GET", "metrics", {}).body.decode().split("\n")
    assert lines.pop() == ""
    label = r'\w+="(?:[^"\\\n]|\\[\\"n])*"'
    whole = re.compile(rf"# (HELP|TYPE) perfkit_\w+ .*|perfkit_\w+(\{{{label}(,{label})*\}})? [-+\w.]+")
    assert [line for line in lines if not whole.fullmatch(line)] == []
    assert not any(line.startswith("# TYPE x counter") for line in lines)


def test_statsd_gets_whole_lines(fault: FaultServer) -> None:
    with Datagrams() as heard:
        perfkit.configure(
            providers={"fake": {"kind": "openai", "base_url": fault.base_url, "api_key": "k"}},
            metrics={"statsd": heard.address},
        )
        perfkit.chat("hi", model=nasty("model"), agent=nasty("agent"))
        perfkit.tracker.increment(nasty("metric"), tags={nasty("tag"): nasty("tag")})
        perfkit.tracker.flush()
        heard.close()
    lines = [line for line in heard.lines if line]
    assert any("agent" in line for line in lines)
    whole = re.compile(r"perfkit\.[^\s:|@#]+:[-+\d.e]+\|(c|ms|g|h)(\|@[\d.]+)?")
    assert [line for line in lines if not whole.fullmatch(line)] == []
    assert not any(line.startswith("perfkit.x:") for line in lines)
