from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.tokens import estimator
from perfkit.tokens.estimator import TOKENIZERS, Mix, estimate, measure

if TYPE_CHECKING:
    from collections.abc import Callable

# Written for this test, and counted once by the tokenizers: none of them was used to fit the estimator.
TEXTS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("texts.json").read_text(encoding="utf-8"))


def error_of(count: Callable[[str], float], tokenizer: str = "o200k") -> float:
    return fmean(abs(count(sample["text"]) / sample[tokenizer] - 1) for sample in TEXTS)


@pytest.mark.parametrize("sample", TEXTS, ids=lambda sample: sample["kind"])
def test_each_kind_of_text_is_estimated_within_a_third(sample: dict[str, Any]) -> None:
    assert estimate(sample["text"]) == pytest.approx(sample["o200k"], rel=1 / 3)


def test_mean_error_is_below_eight_percent_and_a_third_of_four_characters_a_token() -> None:
    assert len(TEXTS) >= 40
    assert error_of(estimate) < 0.08
    assert error_of(estimate) < error_of(lambda text: len(text) / 4) / 3


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_each_tokenizer_is_estimated_within_eight_percent(tokenizer: str) -> None:
    assert error_of(lambda text: estimate(text, tokenizer), tokenizer) < 0.08


def test_sums_of_weights_do_not_wrap() -> None:
    heaviest = estimator.Weights(bytes([255] * 256), {})
    assert estimator._added(bytes(10_000), heaviest, b"") == pytest.approx(10_000 * 255 * estimator.STEP)


def test_minified_json_is_estimated_as_well_as_other_json() -> None:
    customer = {"name": "Ada Byron", "city": "London"}
    rows = [
        {"order": f"A-{n}", "customer": customer, "items": ["tea", "bread", "milk"], "state": "open"} for n in range(10)
    ]
    counted_by_tiktoken = 313
    assert estimate(json.dumps(rows, separators=(",", ":"))) == pytest.approx(counted_by_tiktoken, rel=0.1)


def test_parts_of_a_count_add_up_for_short_and_long_texts() -> None:
    for text, symbols, beyond in (
        ("only words here", False, False),
        ("x = [1, 2];\n", True, False),
        ("слово", False, True),
    ):
        for times in (1, 5000):
            mix = measure(text * times)
            assert (mix.symbols > mix.tokens / 4, mix.beyond > mix.tokens / 2) == (symbols, beyond)
            assert mix.symbols + mix.beyond <= mix.tokens


def test_prompt_of_many_kinds_is_estimated_within_five_percent() -> None:
    whole, exact = "\n".join(sample["text"] for sample in TEXTS), sum(sample["o200k"] for sample in TEXTS)
    assert estimate(whole) == pytest.approx(exact, rel=0.05)


@given(st.text(st.characters(codec=None), max_size=300), st.sampled_from(TOKENIZERS))
def test_estimate_stays_between_a_16th_of_the_bytes_and_all_of_them(text: str, tokenizer: str) -> None:
    size = len(text.encode("utf-8", "surrogatepass"))
    assert size / 16 <= estimate(text, tokenizer) <= size


@pytest.mark.parametrize("text", ["=" * 9000, "\n" * 9000, "\0" * 9000, "9" * 9000, "a" * 9000, "\ud800" * 300])
def test_adversarial_runs_stay_inside_the_bounds(text: str) -> None:
    size = len(text.encode("utf-8", "surrogatepass"))
    assert size / 16 <= estimate(text) <= size


def test_empty_text_has_no_tokens() -> None:
    assert estimate("") == 0


def test_long_text_is_judged_by_samples_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    whole = estimator._whole

    def spy(text: str, weights: estimator.Weights) -> Mix:
        seen.append(len(text))
        return whole(text, weights)

    monkeypatch.setattr(estimator, "_whole", spy)
    text = "\n".join(sample["text"] for sample in TEXTS) * 30
    sampled = estimate(text)
    assert len(text) > 200_000
    assert seen == [estimator.WINDOWS * estimator.WINDOW]
    assert sampled == pytest.approx(30 * sum(sample["o200k"] for sample in TEXTS), rel=0.15)


def test_text_at_the_bound_is_counted_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimator, "_whole", lambda text, weights: Mix(len(text)))
    assert estimate("a" * estimator.SAMPLED_ABOVE) == estimator.SAMPLED_ABOVE
    monkeypatch.setattr(estimator, "_whole", lambda text, weights: Mix(10 * (len(text) == 8192)))
    assert estimate("a" * (estimator.SAMPLED_ABOVE + 1)) == 20
