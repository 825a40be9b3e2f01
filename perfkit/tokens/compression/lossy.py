"""Compression at a loss, never done unasked: the sentences that matter most, or a neural compressor of one's own.

`extractive` ranks sentences by the rare words they have and share with the question (BM25), and keeps the best in their
order. LLMLingua does better at a cost: it needs torch and a model of 0.7 GB and more, so perfkit does not depend on it;
`llmlingua` only adapts a compressor the application has made.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from perfkit.values import finite

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["extractive", "llmlingua"]

_ENDS: Final = re.compile(r"(?<=[.!?])\s+|\n+")
_WORD: Final = re.compile(r"\w+")
K1, B = 1.2, 0.75  # BM25's usual constants (Robertson and Zaragoza, 2009)


def extractive(share: float, *, question: str = "") -> Callable[[str], str]:
    """Return a compressor that keeps the most telling sentences, `share` of the characters at most.

    Args:
        share: 0 to 1.
        question: what the text is wanted for; without it, sentences with rare words count as telling.

    Raises:
        ValueError: `share` is not above 0.
    """
    finite("share", share, above=0)

    def shorten(text: str) -> str:
        ends = [0, *(match.end() for match in _ENDS.finditer(text)), len(text)]
        sentences = [text[begin:end] for begin, end in pairwise(ends) if end > begin]
        scores = _scores([_WORD.findall(s.lower()) for s in sentences], _WORD.findall(question.lower()))
        room, kept = share * len(text), set()
        for number in sorted(range(len(sentences)), key=lambda n: (-scores[n], n)):
            if len(sentences[number]) <= room:
                room -= len(sentences[number])
                kept.add(number)
        return "".join(sentence for number, sentence in enumerate(sentences) if number in kept).rstrip()

    return shorten


def _scores(sentences: Sequence[Sequence[str]], question: Sequence[str]) -> list[float]:
    """Return BM25 of each sentence for the question; for none, the mean rarity of its own words."""
    among = Counter(word for words in sentences for word in set(words))
    rarity = {word: math.log(1 + (len(sentences) - n + 0.5) / (n + 0.5)) for word, n in among.items()}
    if not question:
        return [sum(map(rarity.__getitem__, words)) / max(1, len(words)) for words in sentences]
    usual = sum(map(len, sentences)) / len(sentences)
    wanted = set(question)
    return [_bm25(Counter(words), len(words) / max(1.0, usual), wanted, rarity) for words in sentences]


def _bm25(words: Counter[str], length: float, wanted: set[str], rarity: dict[str, float]) -> float:
    return sum(
        rarity[word] * words[word] * (K1 + 1) / (words[word] + K1 * (1 - B + B * length))
        for word in wanted & words.keys()
    )


def llmlingua(compressor: Any, *, rate: float = 0.5, question: str = "", **options: Any) -> Callable[[str], str]:
    r"""Return a compressor that asks an LLMLingua `PromptCompressor`.

    Args:
        compressor: any object with LLMLingua's `compress_prompt(context, question=..., rate=..., ...)`.
        rate: share of tokens to keep.
        question: what the text is wanted for; it is not written behind the text, as LLMLingua does by itself.
        **options: passed on, for example `force_tokens=["\n"]`.
    """
    finite("rate", rate, above=0)
    options = {"concate_question": False, **options}

    def shorten(text: str) -> str:
        result: str = compressor.compress_prompt([text], question=question, rate=rate, **options)["compressed_prompt"]
        return result

    return shorten
