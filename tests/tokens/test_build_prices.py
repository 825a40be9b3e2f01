from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from perfkit.tokens.build_prices import build, main, written
from perfkit.tokens.pricing import TABLE_FILE

if TYPE_CHECKING:
    from pathlib import Path


def entry(provider: str = "openai", mode: str = "chat", **fields: Any) -> dict[str, Any]:
    prices = {"input_cost_per_token": Decimal("2.5e-06"), "output_cost_per_token": Decimal("1e-05")}
    return {"litellm_provider": provider, "mode": mode, **prices, **fields}


def rows(**source: Any) -> dict[str, Any]:
    models: dict[str, Any] = build({key.replace("__", "/"): row for key, row in source.items()}, date="2026-01-01")[
        "models"
    ]
    return models


def test_prices_become_nano_dollars_a_token() -> None:
    row = rows(
        m=entry(cache_read_input_token_cost=Decimal("6.25e-08"), max_input_tokens=128000, max_output_tokens=4096)
    )
    assert row == {
        "m": {
            "provider": "openai",
            "input": 2500,
            "output": 10_000,
            "cache_read": 62.5,
            "context": 128000,
            "max_output": 4096,
        }
    }


def test_tiers_batch_and_priority_are_taken_over() -> None:
    fields: dict[str, Any] = {
        f"{kind}_cost_per_token{suffix}": Decimal(price)
        for suffix, price in (("_above_200k_tokens", "5e-6"), ("_batches", "1e-6"), ("_priority", "9e-6"))
        for kind in ("input", "output")
    }
    row = rows(m=entry(**fields))["m"]
    assert row["tiers"] == {"200000": {"input": 5000, "output": 5000}}
    assert row["batch"] == {"input": 1000, "output": 1000}
    assert row["priority"] == {"input": 9000, "output": 9000}


def test_only_chat_models_of_direct_vendors_are_taken() -> None:
    source = {
        "gemini__gemini-x": entry("gemini"),
        "codex": entry(mode="responses"),
        "azure__gpt": entry("azure"),
        "embed": entry(mode="embedding"),
        "container": {"litellm_provider": "openai", "mode": "chat", "code_interpreter_cost_per_session": 0},
        "cohere-x": entry("cohere_chat"),
    }
    models = rows(**source)
    assert set(models) == {"gemini-x", "codex", "cohere-x"}
    assert models["cohere-x"]["provider"] == "cohere"


def test_rows_that_cost_nothing_are_left_out() -> None:
    assert rows(m=entry(input_cost_per_token=0, output_cost_per_token=Decimal("0.0"))) == {}


def test_cache_write_below_the_input_price_is_not_believed() -> None:
    assert "cache_write" not in rows(m=entry(cache_creation_input_token_cost=0))["m"]
    assert rows(m=entry(cache_creation_input_token_cost=Decimal("3e-6")))["m"]["cache_write"] == 3000


def test_of_two_entries_for_a_model_the_dearer_stays() -> None:
    cheap = entry("deepseek", input_cost_per_token=Decimal("1e-06"))
    assert rows(m=cheap, deepseek__m=entry("deepseek"))["m"]["input"] == 2500
    assert rows(deepseek__m=entry("deepseek"), m=cheap)["m"]["input"] == 2500


def test_undated_name_leads_to_the_newest_dated_model() -> None:
    source = {"a-2024-05-13": entry(), "a-2024-08-06": entry(), "b-20250101": entry(), "b": entry()}
    assert build(source, date="2026-01-01")["aliases"] == {"a": "a-2024-08-06"}


def test_models_that_were_dropped_stay_with_the_day_they_left() -> None:
    first = build({"old": entry(), "new": entry()}, date="2026-01-01")
    second = build({"new": entry()}, date="2026-02-01", previous=first)
    third = build({"new": entry()}, date="2026-03-01", previous=second)
    assert third["models"]["old"] == {**first["models"]["old"], "retired": "2026-02-01"}
    assert "retired" not in third["models"]["new"]


def test_model_that_comes_back_is_no_longer_retired() -> None:
    first = build({"m": entry()}, date="2026-01-01")
    second = build({}, date="2026-02-01", previous=first)
    assert "retired" not in build({"m": entry()}, date="2026-03-01", previous=second)["models"]["m"]


def test_command_writes_the_table_and_says_what_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, output = tmp_path / "source.json", tmp_path / "prices.json"
    fields = {"litellm_provider": "openai", "mode": "chat", "output_cost_per_token": 1e-05}
    source.write_text(json.dumps({"m": {**fields, "input_cost_per_token": 2.5e-06}}))
    arguments = [str(source), "--previous", str(output), "--output", str(output)]
    assert main([*arguments, "--date", "2026-01-01"]) == 0
    source.write_text(
        json.dumps({"m": {**fields, "input_cost_per_token": 2e-06}, "n": {**fields, "input_cost_per_token": 0}})
    )
    assert main([*arguments, "--date", "2026-02-01"]) == 0
    table = json.loads(output.read_text())
    assert (table["date"], table["models"]["m"]["input"]) == ("2026-02-01", 2000)
    assert capsys.readouterr().out.splitlines() == [
        "1 models, 1 new, 0 changed, 0 retired",
        "2 models, 1 new, 1 changed, 0 retired",
    ]


def test_shipped_table_is_as_the_builder_writes_it() -> None:
    text = TABLE_FILE.read_text(encoding="utf-8")
    assert written(json.loads(text)) == text
