from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.errors import ConfigError
from perfkit.tokens.pricing import Price, PriceTable, Rates, _price, as_usage, shipped
from perfkit.values import Usage

M = 1_000_000
REPOSITORY = Path(__file__).resolve().parents[2]


def found(model: str, **own: Any) -> Price:
    price = PriceTable(own).find(model)
    assert price is not None
    return price


@pytest.mark.parametrize(
    ("model", "provider", "dollars_a_million"),  # input, output, cached read, cache write; None: as any other token
    [
        ("gpt-6.1-sol", "openai", (2, 10, 0.1, 2.5)),
        ("gpt-6.1-terra", "openai", (1, 5, 0.05, 1.25)),
        ("gpt-6-luna", "openai", (0.1, 0.5, 0.01, 0.125)),
        ("gpt-5.6", "openai", (4, 20, 0.4, 5)),
        ("gpt-5", "openai", (1.25, 10, 0.125, None)),
        ("gpt-4o", "openai", (2.5, 10, 1.25, None)),
        ("gpt-4o-mini", "openai", (0.15, 0.6, 0.075, None)),
        ("gpt-4.1", "openai", (2, 8, 0.5, None)),
        ("gpt-4-turbo", "openai", (10, 30, None, None)),
        ("gpt-3.5-turbo", "openai", (0.5, 1.5, None, None)),
        ("claude-opus-5-5", "anthropic", (4, 20, 0.2, 5)),
        ("claude-sonnet-5-5", "anthropic", (2, 10, 0.1, 2.5)),
        ("claude-haiku-5-5", "anthropic", (0.1, 0.5, 0.01, 0.125)),
        ("claude-fable-5-1", "anthropic", (10, 50, 0.25, 12.5)),
        ("claude-3-5-sonnet-20241022", "anthropic", (3, 15, 0.3, 3.75)),
        ("claude-3-5-haiku-20241022", "anthropic", (0.8, 4, 0.08, 1)),
        ("gemini-3.8-flash", "gemini", (0.75, 3.75, 0.075, None)),
        ("gemini-2.5-pro", "gemini", (1.25, 10, 0.125, None)),
        ("deepseek-v4-flash", "deepseek", (0.3, 1.2, 0.006, None)),
        ("openai/gpt-oss-120b", "groq", (0.15, 0.6, 0.075, None)),
        ("llama-3.1-70b-versatile", "groq", (0.59, 0.79, None, None)),
        ("command-r7b-12-2024", "cohere", (0.0375, 0.15, None, None)),
    ],
)
def test_price_is_the_vendors(model: str, provider: str, dollars_a_million: tuple[float | None, ...]) -> None:
    price = found(model)
    prices = (price.input, price.output, price.cache_read, price.cache_write)
    assert [None if nano is None else nano / 1000 for nano in prices] == list(dollars_a_million)
    assert price.provider == provider


def test_table_is_dated_attributed_and_large() -> None:
    table = shipped()
    assert table["date"] >= "2026-11-20"
    assert "LiteLLM" in table["source"]
    assert "MIT" in table["licence"]
    assert len(table["models"]) >= 250


def test_every_shipped_price_is_plausible() -> None:
    table = PriceTable({})
    for model in shipped()["models"]:
        price = table.find(model)
        assert price is not None
        assert price.model == model
        for rates in (price, price.batch, price.priority, *(rates for _, rates in price.tiers)):
            if rates is None:
                continue
            assert 0 < rates.input < 1_000_000, model
            assert 0 <= rates.output < 1_000_000, model
            assert rates.cache_write is None or rates.cache_write >= rates.input, model
            assert rates.input * 2 == int(rates.input * 2), model


def test_cached_and_written_tokens_have_their_own_prices() -> None:
    usage = Usage(10_000, 1_000, cached_tokens=6_000, cache_write_tokens=3_000)
    # 1000 at $4, 6000 at $0.20, 3000 at $5, 1000 at $20 a million
    assert found("claude-opus-5-5").cost(usage) == 4_000_000 + 1_200_000 + 15_000_000 + 20_000_000
    # no price of its own for a write: 4000 at $2.50, 6000 at $1.25, 1000 at $10
    assert found("gpt-4o").cost(usage) == 10_000_000 + 7_500_000 + 10_000_000


@pytest.mark.parametrize(
    ("model", "above", "factor"),
    [("claude-haiku-5-5", 100_000, 5), ("gemini-2.5-pro", 200_000, 2), ("gpt-6.1-sol", 272_000, 2)],
)
def test_long_prompt_costs_more_from_its_first_token(model: str, above: int, factor: int) -> None:
    price = found(model)
    assert price.cost(Usage(above, 0)) == above * price.input
    assert price.cost(Usage(above + 1, 0)) == (above + 1) * price.input * factor


def test_long_prompt_counts_cached_tokens_towards_the_tier() -> None:
    # 300k prompt, 200k of it cached: 100k at $4, 200k at $0.20, 1k answer at $15 a million
    assert (
        found("gpt-6.1-sol").cost(Usage(300_000, 1_000, cached_tokens=200_000)) == 400_000_000 + 40_000_000 + 15_000_000
    )


def test_highest_tier_that_is_passed_applies() -> None:
    tiers = ((200, Rates(input=30, output=0)), (100, Rates(input=20, output=0)))
    price = Price(model="m", input=10, output=0, tiers=tiers)
    assert [price.cost(Usage(tokens, 0)) for tokens in (100, 101, 201)] == [1000, 2020, 6030]


def test_tiers_of_the_table_are_tried_from_the_highest() -> None:
    rates = {"input": 1, "output": 1}
    price = _price("m", {"provider": "p", **rates, "tiers": {"100": rates, "2000": rates, "300": rates}})
    assert [above for above, _ in price.tiers] == [2000, 300, 100]


def test_batch_and_priority_prices_are_kept() -> None:
    price = found("gpt-4o")
    assert price.batch == Rates(input=1250, output=5000)
    assert price.priority == Rates(input=4250, output=17000, cache_read=2125)
    assert (price.context, price.max_output) == (128_000, 16_384)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("GPT-4o", "gpt-4o"),
        ("openai/gpt-4o", "gpt-4o"),
        ("gpt-4o-2024-08-06", "gpt-4o-2024-08-06"),
        ("gpt-6-luna-2027-01-31", "gpt-6-luna"),
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5-20250929"),
        ("claude-sonnet-4-5@20250929", "claude-sonnet-4-5"),
        ("claude-3-5-haiku-latest", "claude-3-5-haiku-20241022"),
        ("claude-3-5-sonnet", "claude-3-5-sonnet-20241022"),
        ("anthropic/claude-opus-5-5", "claude-opus-5-5"),
        ("google/gemini-2.5-pro", "gemini-2.5-pro"),
        ("models/gemini-2.5-flash-001", "gemini-2.5-flash"),
        ("groq/openai/gpt-oss-120b", "openai/gpt-oss-120b"),
        ("mistral-large", "mistral-large-latest"),
        ("ft:gpt-4o-2024-08-06:acme:tone:9xYz", "ft:gpt-4o-2024-08-06"),
        ("openai/ft:gpt-4o-2024-08-06:acme::9xYz", "ft:gpt-4o-2024-08-06"),
        ("ft:gpt-4o-mini:acme::9xYz", "ft:gpt-4o-mini-2024-07-18"),
    ],
)
def test_model_is_found_under_the_names_people_use(name: str, model: str) -> None:
    assert found(name).model == model


@pytest.mark.parametrize(
    "name", ["", "gpt", "tiny.gguf", "ft:gpt-9:acme::1", "mistral/gpt-4o", "acme/gpt-4o", "4o", "-"]
)
def test_unknown_model_has_no_price(name: str) -> None:
    assert PriceTable({}).find(name) is None


def test_fine_tuned_model_is_not_priced_as_its_base() -> None:
    assert found("ft:gpt-4o-2024-08-06:acme::1").input > found("gpt-4o-2024-08-06").input


def test_retired_models_keep_their_prices() -> None:
    assert shipped()["models"]["claude-3-opus-20240229"]["retired"]
    assert found("claude-3-opus").input == 15_000


def test_own_price_beats_the_table_for_all_names_of_the_model() -> None:
    own = {"GPT-4o": {"input": 2, "output": 8, "cache_read": 0.5}}
    for name in ("gpt-4o", "openai/gpt-4o", "gpt-4o-2024-08-06"):
        price = found(name, **own)
        assert (price.input, price.output, price.cache_read) == (2000, 8000, 500)


def test_own_price_is_exactly_the_decimal_number_written() -> None:
    price = found("m", m={"input": 0.28, "output": 1.1, "cache_read": 0.0003})
    assert (price.input, price.output, price.cache_read) == (280, 1100, 0.3)


def test_price_of_zero_is_known() -> None:
    assert found("tiny.gguf", **{"tiny.gguf": {"input": 0, "output": 0}}).cost(Usage(1000, 1000)) == 0


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"input": 1}, "needs 'output'"),
        ({"input": 1, "output": 1, "cache_raed": 1}, "did you mean 'cache_read'"),
        ({"input": -1, "output": 1}, "at least 0"),
        ({"input": float("nan"), "output": 1}, "finite"),
        ({"input": "1", "output": 1}, "a number"),
        (3, "must be a table"),
    ],
)
def test_wrong_own_price_is_refused(row: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        PriceTable({"m": row})
    with pytest.raises(ConfigError, match=said):
        PriceTable({}, row)


def test_total_is_rounded_once_to_a_whole_nano_dollar() -> None:
    price = found("command-r7b-12-2024")  # 37.5 nano-dollars a token
    assert price.cost(Usage(1000, 0)) == 37_500
    assert isinstance(price.cost(Usage(3, 0)), int)


@given(st.integers(0, 10**7), st.integers(0, 10**6), st.floats(0, 1), st.floats(0, 1))
def test_cost_is_exact_for_whole_prices(prompt: int, completion: int, cached: float, written: float) -> None:
    read = int(prompt * cached)
    write = int((prompt - read) * written)
    price = Price(model="m", input=2000, output=10_000, cache_read=100, cache_write=2500)
    expected = (prompt - read - write) * 2000 + read * 100 + write * 2500 + completion * 10_000
    assert price.cost(Usage(prompt, completion, read, write)) == expected


def test_more_cached_than_prompt_tokens_never_pay_back() -> None:
    assert found("gpt-4o").cost(Usage(100, 0, cached_tokens=1_000)) == 1_000 * 1250


def test_usage_may_be_a_mapping() -> None:
    assert as_usage({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}) == Usage(3, 2)
    assert as_usage({"prompt_tokens": 3}) == Usage(3, 0)
    with pytest.raises(ValueError, match="it has input_tokens"):
        as_usage({"input_tokens": 3})


def test_table_is_read_on_the_first_look_up_only() -> None:
    code = (
        "import sys; from perfkit.tokens import TokenOptimizer; from perfkit.tokens.pricing import shipped\n"
        "optimizer = TokenOptimizer(); assert shipped.cache_info().currsize == 0\n"
        "assert not {'tiktoken', 'regex', 'requests', 'zoneinfo', 'urllib3', 'numpy'} & set(sys.modules)\n"
        "optimizer.price('gpt-4o'); assert shipped.cache_info().currsize == 1"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY, timeout=60)
