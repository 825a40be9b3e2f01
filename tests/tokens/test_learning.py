from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import pytest

from perfkit.tokens.estimator import Mix, measure
from perfkit.tokens.learning import FACTOR_BOUNDS, Correction

TEXTS = [sample["text"] for sample in json.loads(Path(__file__).with_name("texts.json").read_text(encoding="utf-8"))]


def test_first_answer_sets_all_sorts_of_text_alike() -> None:
    correction = Correction()
    correction.learn(Mix(1000, 300.0, 100.0), 1300)
    for mix in (Mix(500), Mix(500, 500.0), Mix(500, 0.0, 500.0)):
        assert correction.of(mix) == pytest.approx(1.3, abs=0.08)


def test_sorts_of_text_are_told_apart_by_prompts_that_differ() -> None:
    """A tokenizer that needs twice as many tokens beyond ASCII and a fifth less for symbols."""
    correction = Correction()
    for n in range(20):
        words, symbols, beyond = 100 + 30 * (n % 3), 20 + 25 * (n % 4), 40 * (n % 5)
        correction.learn(Mix(words + symbols + beyond, symbols, beyond), round(words + 0.8 * symbols + 2 * beyond))
    assert correction.of(Mix(100)) == pytest.approx(1.0, abs=0.03)
    assert correction.of(Mix(100, 100.0)) == pytest.approx(0.8, abs=0.03)
    assert correction.of(Mix(100, 0.0, 100.0)) == pytest.approx(2.0, abs=0.03)


def test_factor_follows_a_tokenizer_that_changes() -> None:
    correction, mix = Correction(), Mix(1000, 200.0)
    for _ in range(200):
        correction.learn(mix, 1000)
    for _ in range(100):
        correction.learn(mix, 1300)
    assert correction.of(mix) == pytest.approx(1.3, abs=0.01)


@pytest.mark.parametrize("reported", [1, 10**9])
def test_absurd_reports_leave_the_factor_inside_its_bounds(reported: int) -> None:
    correction = Correction()
    for _ in range(50):
        correction.learn(Mix(100, 80.0, 10.0), reported)
        assert FACTOR_BOUNDS[0] <= correction.of(Mix(100, 0.0, 100.0)) <= FACTOR_BOUNDS[1]


def test_one_absurd_report_among_many_moves_the_factor_little() -> None:
    correction, mix = Correction(), Mix(1000, 200.0)
    for _ in range(50):
        correction.learn(mix, 1000)
    correction.learn(mix, 10**7)
    assert correction.of(mix) < 1.3


def test_a_strange_tokenizer_is_followed_text_by_text() -> None:
    """Halves of texts teach what the other halves are judged by: of three tokenizers, by the estimator of one."""
    off: dict[str, list[float]] = defaultdict(list)
    for tokenizer in ("cl100k", "claude2", "tekken"):
        for text in TEXTS:
            correction, step = Correction(), max(1, len(text) // 8)
            pieces = [text[i : i + step] for i in range(0, len(text), step)]
            for piece in pieces[::2]:
                correction.learn(measure(piece), measure(piece, tokenizer).tokens)
            judged = [(measure(piece), measure(piece, tokenizer).tokens) for piece in pieces[1::2]]
            off["raw"].append(fmean(abs(mix.tokens / exact - 1) for mix, exact in judged))
            off["learned"].append(fmean(abs(mix.tokens * correction.of(mix) / exact - 1) for mix, exact in judged))
    assert fmean(off["learned"]) < min(0.1, fmean(off["raw"]) / 2)
