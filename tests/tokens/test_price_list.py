from __future__ import annotations

import json
from datetime import date, timedelta
from typing import Any

import pytest

import perfkit
from perfkit.cli import main
from perfkit.tokens import price_list
from perfkit.tokens.price_list import sources, stale
from perfkit.tokens.pricing import shipped

DATE = date.fromisoformat(shipped()["date"])


def prices(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, Any]:
    assert main(["prices", *arguments, "--json"]) == code
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_list_has_what_is_sold_in_dollars_a_million(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row["model"]: row for row in prices(capsys)["prices"]}
    assert (rows["gpt-4o"]["input"], rows["gpt-4o"]["output"], rows["gpt-4o"]["cache_read"]) == (2.5, 10.0, 1.25)
    assert all(row["retired"] is None for row in rows.values())
    every = {row["model"] for row in prices(capsys, "--retired")["prices"]}
    assert len(every) >= 250
    assert "gpt-3.5-turbo" in every - set(rows)
    assert {row["provider"] for row in prices(capsys, "--provider", "anthropic")["prices"]} == {"anthropic"}


def test_search_finds_all_words(capsys: pytest.CaptureFixture[str]) -> None:
    found = [row["model"] for row in prices(capsys, "search", "4O", "mini")["prices"]]
    assert "gpt-4o-mini" in found
    assert all("4o" in name and "mini" in name for name in found)
    assert prices(capsys, "4O", "mini") == prices(capsys, "search", "4O", "mini")
    assert main(["prices", "search", "no such model"]) == 0
    assert capsys.readouterr().out == "nothing found\n"


def test_compare_tells_what_a_call_costs_cheapest_first(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("compare", "gpt-4o", "gpt-4o-mini", "--prompt", "10000", "--completion", "1000", "--cached", "8000")
    rows = prices(capsys, *arguments)["prices"]
    assert [row["model"] for row in rows] == ["gpt-4o-mini", "gpt-4o"]
    assert rows[1]["cost"] == pytest.approx(2000 * 2.5e-6 + 8000 * 1.25e-6 + 1000 * 10e-6)
    assert rows[1]["times"] == pytest.approx(rows[1]["cost"] / rows[0]["cost"])
    assert main(["prices", "compare", "gpt-4p"]) == 1
    assert "did you mean" in capsys.readouterr().err


def test_own_prices_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    perfkit.configure(tokens={"prices": {"mine": {"input": 1, "output": 2}}})
    [row] = prices(capsys, "search", "mine")["prices"]
    assert (row["input"], row["output"]) == (1.0, 2.0)


def test_fifty_prices_carry_source_and_date(capsys: pytest.CaptureFixture[str]) -> None:
    told = [row for row in prices(capsys)["prices"] if row["source"]]
    assert len(told) >= 50
    assert all(row["source"].startswith("https://") and row["checked"] for row in told)
    assert len({row["provider"] for row in told}) >= 5


def test_old_prices_are_stale(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert stale(45, DATE + timedelta(days=45)) == []
    found = stale(45, DATE + timedelta(days=46))
    assert found[0] == f"the table is of {DATE}, 46 days ago"
    assert len(found) == 1 + len(sources())
    monkeypatch.setattr(price_list, "today", lambda: DATE + timedelta(days=10))
    assert prices(capsys, "search", "gpt-4o", "--stale")["stale"] == []
    assert len(prices(capsys, "search", "gpt-4o", "--stale", "9", code=1)["stale"]) > 1


def test_configured_model_that_is_retired_is_stale() -> None:
    perfkit.configure(client={"default_model": "gpt-3.5-turbo"}, routes={"old": {"model": "gpt-4-turbo"}})
    found = stale(45, DATE)
    assert [line.partition(" names ")[0] for line in found] == ["client.default_model", "routes.old"]


def test_table_is_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prices", "compare", "gpt-4o", "gpt-4o-mini"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["model", "provider", "input"]
    assert head.index("provider") == rows[0].index("openai")
